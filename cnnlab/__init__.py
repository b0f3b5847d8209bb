"""cnnlab: watch a small convolutional network explode or converge, change one number, and learn why.

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cnnlab.settings import Knobs, Recipe, Settings, presets, settings

if TYPE_CHECKING:
    from cnnlab.atlas import Atlas
    from cnnlab.curvature import Critical, critical_learning_rate
    from cnnlab.diagnosis import autopsy
    from cnnlab.edge import advance_safely
    from cnnlab.fan import Fan, Remedies
    from cnnlab.given_image import own_image
    from cnnlab.journal import load
    from cnnlab.lab import Lab
    from cnnlab.maps import Map, wilson
    from cnnlab.page import export_html
    from cnnlab.prediction import Prediction, predict
    from cnnlab.rates import rate_plan
    from cnnlab.records import Frame, Record
    from cnnlab.run import Run
    from cnnlab.script import export_script
    from cnnlab.survey import sweep
    from cnnlab.warning import overflow_clock
    from cnnlab.watching import Watch, watch

__version__ = "0.1.0"

ROOMS = {
    "Run": "run",
    "Lab": "lab",
    "Record": "records",
    "Frame": "records",
    "load": "journal",
    "Critical": "curvature",
    "critical_learning_rate": "curvature",
    "Prediction": "prediction",
    "predict": "prediction",
    "rate_plan": "rates",
    "advance_safely": "edge",
    "overflow_clock": "warning",
    "autopsy": "diagnosis",
    "before_explosion": "verdict",
    "state_line": "verdict",
    "own_image": "given_image",
    "export_html": "page",
    "export_script": "script",
    "Map": "maps",
    "wilson": "maps",
    "Atlas": "atlas",
    "Fan": "fan",
    "Remedies": "fan",
    "sweep": "survey",
    "Watch": "watching",
    "watch": "watching",
}
"""Public name -> the module that it is fetched from at first use."""

__all__ = [
    "Atlas",
    "Critical",
    "Fan",
    "Frame",
    "Knobs",
    "Lab",
    "Map",
    "Prediction",
    "Recipe",
    "Record",
    "Remedies",
    "Run",
    "Settings",
    "Watch",
    "advance_safely",
    "autopsy",
    "before_explosion",
    "critical_learning_rate",
    "export_html",
    "export_script",
    "load",
    "overflow_clock",
    "own_image",
    "predict",
    "presets",
    "rate_plan",
    "settings",
    "state_line",
    "sweep",
    "watch",
    "wilson",
]


def __getattr__(name: str) -> Any:
    if name not in ROOMS:
        raise AttributeError(f"module 'cnnlab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cnnlab.{ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
