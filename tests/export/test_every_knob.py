"""A script uses each knob: one that is new and that `export/schedule.py` does not know would be left out in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

import cnnlab
from cnnlab.config.settings import KNOB_FIELDS, LIMITS, Choice, NumberOrName

BESIDE = {
    "clip_threshold": {"clip": "norm"},
    "epsilon": {"cost": "softmax_log"},
    "penalty_in": {"l1": 0.5},
    "beta2": {"optimizer": "rmsprop"},
    "adam_epsilon": {"optimizer": "adam"},
    "loss_scale": {"precision": "float16"},
}
"""What a knob has an effect beside."""


@pytest.mark.parametrize("name", KNOB_FIELDS)
def test_a_script_computes_with_each_knob(name: str, tmp_path: Path) -> None:
    limit = LIMITS[name]
    first, second = limit.options[:2] if isinstance(limit, (Choice, NumberOrName)) else (0.25, 0.5)
    small = {"channels": 1, "hidden": (2, 2), "patch_size": 13, "patches": 4, "device": "cpu"}
    run = cnnlab.Run("question", **{**small, **BESIDE.get(name, {}), name: first})
    run.step()
    run.set(**{name: second})
    run.step()
    cnnlab.export_script(run.record, tmp_path / "run.py")
    body = (tmp_path / "run.py").read_text().partition("for step in")[2]
    assert name in body.partition("SCHEDULE[step]")[2]
