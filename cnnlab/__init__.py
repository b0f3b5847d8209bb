"""cnnlab: watch a small convolutional network explode or converge, change one number, and learn why.

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cnnlab.config.settings import Knobs, Recipe, Settings, presets, settings

if TYPE_CHECKING:
    from cnnlab.config.schedules import rate_plan
    from cnnlab.course.calibration import guesses
    from cnnlab.course.checks import check_answer
    from cnnlab.course.guesses import guess
    from cnnlab.course.hand_in import hand_in
    from cnnlab.curvature.divergence import Prediction, predict
    from cnnlab.curvature.hessian import Critical, critical_learning_rate
    from cnnlab.curvature.tracker import advance_safely
    from cnnlab.dashboards.lab import Lab
    from cnnlab.dashboards.seeds import Fan, Remedies
    from cnnlab.dashboards.trainability_map import Atlas
    from cnnlab.dashboards.watch import watch
    from cnnlab.diagnosis.autopsy import autopsy
    from cnnlab.diagnosis.early_warning import overflow_clock
    from cnnlab.diagnosis.watch import Watch
    from cnnlab.export.html import export_html
    from cnnlab.export.script import export_script
    from cnnlab.records.journal import load
    from cnnlab.records.map import Map, wilson
    from cnnlab.records.own_image import own_image
    from cnnlab.records.record import Frame, Record
    from cnnlab.sweeps.sweep import sweep
    from cnnlab.training.run import Run

__version__ = "0.1.0"

MODULES = {
    "Run": "training.run",
    "Lab": "dashboards.lab",
    "Record": "records.record",
    "Frame": "records.record",
    "load": "records.journal",
    "Critical": "curvature.hessian",
    "critical_learning_rate": "curvature.hessian",
    "Prediction": "curvature.divergence",
    "predict": "curvature.divergence",
    "rate_plan": "config.schedules",
    "advance_safely": "curvature.tracker",
    "overflow_clock": "diagnosis.early_warning",
    "autopsy": "diagnosis.autopsy",
    "before_explosion": "diagnosis.summary",
    "state_line": "diagnosis.summary",
    "own_image": "records.own_image",
    "export_html": "export.html",
    "export_script": "export.script",
    "Map": "records.map",
    "wilson": "records.map",
    "Atlas": "dashboards.trainability_map",
    "Fan": "dashboards.seeds",
    "Remedies": "dashboards.seeds",
    "sweep": "sweeps.sweep",
    "Watch": "diagnosis.watch",
    "watch": "dashboards.watch",
    "guess": "course.guesses",
    "guesses": "course.calibration",
    "check_answer": "course.checks",
    "hand_in": "course.hand_in",
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
    "check_answer",
    "critical_learning_rate",
    "export_html",
    "export_script",
    "guess",
    "guesses",
    "hand_in",
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
    if name not in MODULES:
        raise AttributeError(f"module 'cnnlab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cnnlab.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
