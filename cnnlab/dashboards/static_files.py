"""The scripts and styles of the dashboards, as text: anywidget would watch a file, and never free its widget."""

from __future__ import annotations

from importlib.resources import files


def read_static(*names: str) -> str:
    """Files of the folder `static`, one after another."""
    static = files("cnnlab.dashboards") / "static"
    return "\n".join((static / name).read_text(encoding="utf-8") for name in names)
