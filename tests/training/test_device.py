"""What a GPU asks of the step and its gauges, tested on a CPU: no waiting for the device, and the same numbers.

On torch's meta device a tensor has no values, so that every question to the device (a branch, an `item`) raises.
"""

import numpy as np
import pytest
import torch

from cnnlab.training import metrics as gauges
from cnnlab.training import problem
from cnnlab.training.run import Run

CASES = [
    {},
    {"momentum": 0.9, "clip": "norm", "l2": 1.0},
    {"clip": "adaptive", "l1": 1.0, "penalty_in": "update"},
    {"clip": "value", "precision": "float16", "cost": "softmax_log"},
    {"precision": "float64", "batch_size": 6, "reduction": "sum"},
    {"precision": "bfloat16", "relu": "none"},
]


@pytest.mark.parametrize("changes", CASES)
def test_an_update_with_all_its_gauges_never_waits_for_the_device(
    monkeypatch: pytest.MonkeyPatch, changes: dict
) -> None:
    monkeypatch.setattr(problem, "choose_device", lambda _settings: torch.device("meta"))
    run = Run("question", **changes)
    for _ in range(3):
        run.update()
    assert [row.device.type for row, *_ in run.pending] == ["meta"] * 4


def test_a_network_of_ones_own_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem, "choose_device", lambda _settings: torch.device("meta"))
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    run = Run(network=network, data=(torch.randn(5, 3), torch.randn(5, 1)), cost=torch.nn.functional.mse_loss)
    run.update()
    assert len(run.pending) == 2


@pytest.mark.parametrize("changes", CASES)
def test_the_gauges_that_do_not_ask_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch, changes: dict) -> None:
    small = {"channels": 3, "hidden": (5, 4), "patch_size": 13, "patches": 12, "learning_rate": 3.0} | changes
    asked = Run("question", **small)
    asked.advance(8)
    monkeypatch.setattr(gauges, "is_read_at_once", lambda _device: False)
    silent = Run("question", **small)
    silent.advance(8)
    np.testing.assert_array_equal(asked.record.histograms, silent.record.histograms)
    np.testing.assert_allclose(asked.record.table, silent.record.table, rtol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, which this machine lacks")
def test_a_gpu_reaches_the_costs_of_the_cpu_until_the_explosion() -> None:
    costs = [Run("question", device=device, learning_rate=1e-4) for device in ("cpu", "cuda")]
    for run in costs:
        run.advance(10)
    np.testing.assert_allclose(costs[0].record.cost, costs[1].record.cost, rtol=1e-3)
