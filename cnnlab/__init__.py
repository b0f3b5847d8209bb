"""cnnlab: watch a small convolutional network explode or converge, change one number, and learn why.

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cnnlab.settings import Knobs, Recipe, Settings, presets, settings

if TYPE_CHECKING:
    from cnnlab.atlas import Atlas
    from cnnlab.fan import Fan, Remedies
    from cnnlab.files import load
    from cnnlab.lab import Lab
    from cnnlab.maps import Map, wilson
    from cnnlab.page import export_html
    from cnnlab.records import Frame, Record
    from cnnlab.run import Run
    from cnnlab.script import export_script
    from cnnlab.survey import sweep

__version__ = "0.1.0"

ROOMS = {
    "Run": "run",
    "Lab": "lab",
    "Record": "records",
    "Frame": "records",
    "load": "files",
    "before_explosion": "verdict",
    "state_line": "verdict",
    "export_html": "page",
    "export_script": "script",
    "Map": "maps",
    "wilson": "maps",
    "Atlas": "atlas",
    "Fan": "fan",
    "Remedies": "fan",
    "sweep": "survey",
}
"""Public name -> the module that it is fetched from at first use."""

__all__ = [
    "Atlas",
    "Fan",
    "Frame",
    "Knobs",
    "Lab",
    "Map",
    "Recipe",
    "Record",
    "Remedies",
    "Run",
    "Settings",
    "before_explosion",
    "export_html",
    "export_script",
    "load",
    "presets",
    "settings",
    "state_line",
    "sweep",
    "wilson",
]


def __getattr__(name: str) -> Any:
    if name not in ROOMS:
        raise AttributeError(f"module 'cnnlab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cnnlab.{ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
