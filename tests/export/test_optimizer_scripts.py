"""Scripts of runs that other optimisers than plain gradient descent trained: they use those of torch.optim."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

import cnnlab
from cnnlab import Run
from cnnlab.records.record import Record

SMALL = {"channels": 2, "hidden": (4, 3), "patch_size": 13, "patches": 8, "input_scaling": "standardised",
         "init": "he_normal", "learning_rate": 1e-3, "device": "cpu"}  # fmt: skip
UPDATES = 8
ROUNDING = {"float64": 1e-11, "float32": 1e-5}

pytestmark = pytest.mark.usefixtures("one_thread")


def print_costs(record: Record, path: Path, capsys: pytest.CaptureFixture[str]) -> list[float]:
    """The costs that the script of a record prints."""
    cnnlab.export_script(record, path)
    runpy.run_path(str(path))
    return [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if line.startswith("update")]


def check_layout(path: Path) -> str:
    text = path.read_text()
    assert len(text.splitlines()) <= 150
    code = [line for line in text.splitlines() if not line.startswith(("PICTURE", "CORNERS"))]
    assert max(map(len, code)) <= 120
    return text


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize(
    ("optimizer", "changes"),
    [
        ("nesterov", {"l2": 0.1}),
        ("rmsprop", {"clip": "norm", "clip_threshold": 0.1}),
        ("rmsprop", {"momentum": 0.5, "l1": 0.01, "penalty_in": "update"}),
        ("adam", {"l2": 0.1, "batch_size": 3}),
        ("adam", {"momentum": 0.0, "beta2": 0.0}),
        ("adamw", {"l2": 0.1, "adam_epsilon": 1e-3}),
    ],
)
def test_a_script_trains_with_the_optimiser_of_torch(optimizer, changes, precision, tmp_path, capsys):
    run = Run("question", **SMALL, precision=precision, optimizer=optimizer, **changes)
    run.advance(UPDATES)
    costs = print_costs(run.record, tmp_path / "run.py", capsys)
    np.testing.assert_allclose(costs, run.record.cost, rtol=ROUNDING[precision])
    assert f"{run.record.cost[-1] / run.record.cost[0]:.3f}" != "1.000"
    text = check_layout(tmp_path / "run.py")
    assert text.count("torch.optim.") == 1
    assert "velocity" not in text


@pytest.mark.parametrize("precision", ROUNDING)
def test_a_switch_on_the_way_makes_a_new_optimiser(precision, tmp_path, capsys):
    run = Run("question", **SMALL, precision=precision, l2=0.05)
    for changes in (
        {"optimizer": "adam"},
        {"optimizer": "adamw", "l2": 0.1},
        {"optimizer": "rmsprop", "clip": "value"},
        {"momentum": 0.5},
        {"momentum": 0.0},
        {"momentum": 0.5},
        {"optimizer": "nesterov", "momentum": 0.9},
        {"momentum": 0.0, "penalty_in": "update"},
        {"momentum": 0.9},
        {"optimizer": "sgd", "l1": 0.01},
        {"optimizer": "adam"},
    ):
        run.advance(3)
        run.set(**changes)
    run.advance(3)
    costs = print_costs(run.record, tmp_path / "run.py", capsys)
    np.testing.assert_allclose(costs, run.record.cost, rtol=ROUNDING[precision])
    check_layout(tmp_path / "run.py")


def test_a_script_of_plain_gradient_descent_uses_no_optimiser(tmp_path):
    run = Run("question", **SMALL, momentum=0.9)
    run.advance(2)
    cnnlab.export_script(run.record, tmp_path / "run.py")
    assert "optim" not in (tmp_path / "run.py").read_text()


HALF = {**SMALL, "precision": "float16", "learning_rate": 0.05}


@pytest.mark.parametrize(
    "stages",
    [
        [{"loss_scale": "dynamic", "momentum": 0.5}],
        [{"loss_scale": 1024.0, "clip": "value"}],
        [{}, {"loss_scale": "dynamic"}, {"loss_scale": 64.0}, {"loss_scale": 1e6}, {"loss_scale": "dynamic"},
         {"loss_scale": "off"}, {"loss_scale": "dynamic"}],
    ],
    ids=["dynamic", "a number", "both in turns"],
)  # fmt: skip
def test_a_script_scales_the_cost_and_skips_the_same_updates(stages, tmp_path, capsys):
    run = Run("question", **HALF)
    for changes in stages:
        run.set(**changes)
        run.advance(4)
    assert print_costs(run.record, tmp_path / "run.py", capsys) == run.record.cost.tolist()
    assert 0 < (run.record.skipped == 1).sum() < len(run.record) or stages[0].get("loss_scale") == 1024
    check_layout(tmp_path / "run.py")


def test_a_script_writes_the_scale_of_adam_and_repeats_its_run(tmp_path, capsys):
    run = Run("question", **HALF | {"learning_rate": 1e-2}, optimizer="adam", adam_epsilon=1e-3, loss_scale="dynamic")
    run.advance(6)
    costs = print_costs(run.record, tmp_path / "run.py", capsys)
    np.testing.assert_allclose(costs, run.record.cost, rtol=5e-3)
    assert (run.record.skipped == 1).any()
    assert costs[0] == costs[1] != costs[-1], "the first update is skipped, for its scale is beyond float16"
