"""What an autopsy says of a loss scale: an overflow that was left out is harmless, a NaN of the network is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import cnnlab
from cnnlab import Run
from cnnlab.diagnosis.nan_tracer import find_first_update, find_overflows
from cnnlab.diagnosis.summary import CALM, RISING, state_line, tone

HALF = {"channels": 2, "hidden": (4, 3), "patch_size": 13, "patches": 8, "input_scaling": "standardised",
        "init": "he_normal", "device": "cpu", "precision": "float16", "learning_rate": 0.05}  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")


def examine(run: Run) -> cnnlab.Autopsy:
    return cnnlab.autopsy(run, prove=False)


def test_an_overflow_that_was_left_out_is_harmless():
    run = Run("question", **HALF | {"activation": "tanh"}, loss_scale="dynamic")
    run.advance(20)
    left_out = (run.record.skipped == 1).sum()
    assert 0 < left_out < 10
    assert np.array_equal(find_overflows(run.record), run.record.skipped == 1)
    assert find_first_update(run.record) is None
    found = examine(run)
    assert found.cause == "healthy"
    assert found.step is None
    assert f"left out {left_out} update{'s' if left_out > 1 else ''} of 20" in str(found)
    assert "harmless" in str(found)
    assert "NaN" not in str(found)
    assert "all numbers are finite" not in str(found), "those of the gradient were not"
    assert tone(run.record) == CALM


def test_the_nan_of_a_network_is_told_however_far_the_scale_halves():
    run = Run("question", **HALF | {"learning_rate": 1e5}, loss_scale="dynamic")
    run.advance(40)
    assert run.record.scale[-1] < 1
    found = examine(run)
    assert found.cause != "healthy"
    assert found.step in (run.record.first_nonfinite, run.record.first_nonfinite - 1)
    since = int(np.flatnonzero(run.record.skipped != 1)[-1]) + 2
    assert since < 5
    assert "NaN" in str(found) or "inf" in str(found)
    assert f"all since update {since}: the weights stay, and no scale helps" in " ".join(str(found).split())
    assert "harmless" not in str(found)


def test_a_run_that_skips_everything_is_not_called_healthy():
    run = Run("question", **HALF, loss_scale=1e6)
    run.advance(2)
    assert (run.record.skipped == 1).all()
    assert examine(run).cause == "undecided"
    run.advance(4)
    found = examine(run)
    assert found.cause == "every step skipped"
    assert "left out the last 6 of 6 updates" in str(found)
    assert "harmless" not in str(found)
    assert tone(run.record) == RISING
    assert "the last 6 updates were left out" in state_line(run.record)
    assert find_first_update(run.record) is None


def test_a_gradient_that_no_scale_mends_is_traced_to_its_operation():
    torch.manual_seed(0)
    network, x = nn.Linear(4, 2).half(), torch.randn(16, 4).half()
    data = x, network(x).detach()
    run = Run(
        network=network, data=data, cost=lambda out, y: (out - y).square().sum(1).sqrt().mean(), loss_scale="dynamic"
    )
    run.advance(4)
    assert np.isfinite(run.record.cost).all()
    assert (run.record.scale > 1).all(), "the scale alone does not tell"
    found = examine(run)
    assert (found.cause, found.step, found.phase) == ("undefined operation", 1, "gradient")
    assert "sqrt" in str(found)
    assert "harmless" not in str(found)


def test_a_gradient_that_is_0_in_float16_alone_is_an_underflow_and_a_scale_mends_it():
    run = Run("question", **HALF | {"init_scale": 0.15, "patches": 40}, momentum=0.9)
    run.advance(8)
    found = examine(run)
    assert found.cause == "underflow of the precision"
    assert "of the gradient's length lies in numbers that are 0 in float16, not in float32" in found.evidence[0]
    assert "no loss scale" in str(found)
    wide = examine(Run(run.settings.replace(precision="float32")))
    assert "underflow of the precision" not in [cause.name for cause in wide.causes]


def test_updates_that_were_all_left_out_tell_nothing_of_gradient_or_answers():
    run = Run("question", **HALF, loss_scale=1e6)
    run.advance(60)
    assert run.record.left_out.all()
    found = cnnlab.autopsy(run, prove=False)
    assert [cause.name for cause in found.causes] == ["every step skipped"]
