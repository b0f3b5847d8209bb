"""cnnlab: watch a small convolutional network explode or converge, change one number, and learn why.

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cnnlab.config.settings import Knobs, Recipe, Settings, presets, settings

if TYPE_CHECKING:
    from cnnlab.config.schedules import rate_plan as rate_plan
    from cnnlab.course.calibration import guesses as guesses
    from cnnlab.course.checks import check_answer as check_answer
    from cnnlab.course.guesses import guess as guess
    from cnnlab.course.hand_in import hand_in as hand_in
    from cnnlab.curvature.critical import Critical as Critical
    from cnnlab.curvature.direction import SharpestDirection as SharpestDirection
    from cnnlab.curvature.direction import measure_direction as measure_direction
    from cnnlab.curvature.divergence import Prediction as Prediction
    from cnnlab.curvature.divergence import predict as predict
    from cnnlab.curvature.learning_rate import critical_learning_rate as critical_learning_rate
    from cnnlab.curvature.tracker import advance_safely as advance_safely
    from cnnlab.dashboards.lab import Lab as Lab
    from cnnlab.dashboards.seeds import Fan as Fan
    from cnnlab.dashboards.seeds import Remedies as Remedies
    from cnnlab.dashboards.trainability_map import Atlas as Atlas
    from cnnlab.dashboards.watch import watch as watch
    from cnnlab.diagnosis.autopsy import autopsy as autopsy
    from cnnlab.diagnosis.detectors import first_alarms as first_alarms
    from cnnlab.diagnosis.early_warning import overflow_clock as overflow_clock
    from cnnlab.diagnosis.summary import before_explosion as before_explosion
    from cnnlab.diagnosis.summary import state_line as state_line
    from cnnlab.diagnosis.watch import Watch as Watch
    from cnnlab.export.html import export_html as export_html
    from cnnlab.export.script import export_script as export_script
    from cnnlab.records.frame import Frame as Frame
    from cnnlab.records.journal import load as load
    from cnnlab.records.map import Map as Map
    from cnnlab.records.map import wilson as wilson
    from cnnlab.records.own_image import own_image as own_image
    from cnnlab.records.record import Record as Record
    from cnnlab.records.signals import Signals as Signals
    from cnnlab.sweeps.sweep import sweep as sweep
    from cnnlab.training.run import Run as Run
    from cnnlab.training.signals import measure_signals as measure_signals

__version__ = "0.1.0"

MODULES = {
    "Run": "training.run",
    "Lab": "dashboards.lab",
    "Record": "records.record",
    "Frame": "records.frame",
    "load": "records.journal",
    "Critical": "curvature.critical",
    "critical_learning_rate": "curvature.learning_rate",
    "SharpestDirection": "curvature.direction",
    "measure_direction": "curvature.direction",
    "Prediction": "curvature.divergence",
    "predict": "curvature.divergence",
    "Signals": "records.signals",
    "measure_signals": "training.signals",
    "rate_plan": "config.schedules",
    "advance_safely": "curvature.tracker",
    "first_alarms": "diagnosis.detectors",
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

__all__ = ["Knobs", "Recipe", "Settings", "presets", "settings", *MODULES]


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module 'cnnlab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cnnlab.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
