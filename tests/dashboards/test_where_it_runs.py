"""The widgets of the dashboards are such as every front end for Jupyter's widgets can load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import ipywidgets
import pytest

import cnnlab

MODULES = {"@jupyter-widgets/base", "@jupyter-widgets/controls", "anywidget"}


def list_widgets(value: Any, met: set[int]) -> Iterator[ipywidgets.Widget]:
    """A widget, and those that its state sends to the page with it."""
    if isinstance(value, ipywidgets.Widget) and id(value) not in met:
        met.add(id(value))
        yield value
        for name in value.keys:
            yield from list_widgets(getattr(value, name), met)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from list_widgets(part, met)


@pytest.mark.parametrize("make", [cnnlab.Lab, lambda: cnnlab.Atlas("question", learning_rate=[1e-4, 1e-2])])
def test_a_dashboard_needs_no_widgets_but_those_of_ipywidgets_and_anywidget(make):
    dashboard = make()
    widgets = list(list_widgets(dashboard.box, set()))
    dashboard.close()
    assert len(widgets) > 20
    assert {widget._model_module for widget in widgets} == MODULES
    assert {widget._view_module for widget in widgets if widget._view_module is not None} <= MODULES


def test_no_script_of_a_dashboard_loads_from_another_host():
    scripts = list(Path(str(files("cnnlab"))).rglob("*.js"))
    assert len(scripts) > 3
    for path in scripts:
        hosts = set(re.findall(r"https?://([\w.]+)", path.read_text(encoding="utf-8")))
        assert hosts <= {"www.w3.org"}, path  # the name of SVG, which nothing is loaded from
