"""The step against an oracle: the same network as an nn.Module, trained by torch.optim.SGD on the same batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cnnlab import Run
from cnnlab.config.settings import KNOB_NUMBERS, Knobs
from cnnlab.training.checkpoints import State
from cnnlab.training.datasets import Examples
from cnnlab.training.network import Layout, make_question_network
from cnnlab.training.step import Descent, KnobTensors, StepStructure

SMALL = {"channels": 4, "hidden": (8, 6), "patch_size": 14, "patches": 24, "device": "cpu"}
UPDATES = 12
ROUNDING = {"float32": 2e-5, "float64": 1e-11}
"""Relative difference allowed after 12 updates: sums are taken in another order, and clip_grad_norm_ adds 1e-6."""


pytestmark = pytest.mark.usefixtures("one_thread")  # the oracle on as many as a Run


def test_a_step_takes_each_knob_that_is_a_number() -> None:
    assert KnobTensors._fields == KNOB_NUMBERS


def oracle(run: Run, updates: int) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    """Costs, and the parameters after so many updates, of a loop in plain PyTorch from the run's own start."""
    wanted = run.settings
    network = make_question_network(wanted).to_empty(device="cpu").to(run.problem.dtype)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(run.layout.views(run.parameters)[name])
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    biases = [parameter for parameter in network.parameters() if parameter.dim() == 1]
    groups = [{"params": weights, "weight_decay": wanted.l2}, {"params": biases}]
    optimiser = torch.optim.SGD(groups, lr=wanted.learning_rate, momentum=wanted.momentum)
    costs = []
    for step in range(1, updates + 1):
        x, y = run.problem.data
        indices = Examples(x, y).indices(wanted.batch_size, wanted.seed, step)
        if indices is not None:
            x, y = x[indices], y[indices]
        optimiser.zero_grad()
        cost = nn.functional.cross_entropy(network(x), y, reduction=wanted.reduction)
        cost.backward()
        if wanted.clip == "norm":
            nn.utils.clip_grad_norm_(network.parameters(), wanted.clip_threshold)
        elif wanted.clip == "value":
            nn.utils.clip_grad_value_(network.parameters(), wanted.clip_threshold)
        optimiser.step()
        costs.append(cost.item())
    return np.array(costs), dict(network.named_parameters())


STEADY = {"input_scaling": "standardised", "init": "he_normal", "learning_rate": 0.05}


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"momentum": 0.9},
        {"l2": 0.1, "penalty_in": "update"},
        {"clip": "norm", "clip_threshold": 0.1},
        {"clip": "value", "clip_threshold": 0.01},
        {"batch_size": 7},
        {"reduction": "sum", "learning_rate": 0.002},
        {"momentum": 0.9, "clip": "norm", "clip_threshold": 0.1, "batch_size": 7, "l2": 0.0},
        {"relu": "every_layer"},
    ],
    ids=lambda changes: ", ".join(map(str, changes)) or "plain",
)
def test_the_step_is_that_of_torch_optim(precision, changes):
    run = Run("question", **{**SMALL, **STEADY, "precision": precision, **changes})
    costs, parameters = oracle(run, UPDATES)
    start = run.parameters
    run.advance(UPDATES)
    # clip_grad_norm_ divides by the norm + 1e-6: at a norm of 0.1 and above that is 1e-5 of an update, no more.
    rounding = max(ROUNDING[precision], 1e-5 if run.settings.clip == "norm" else 0)
    assert not torch.allclose(run.parameters, start, rtol=1e-3)
    np.testing.assert_allclose(run.record.data_cost, costs, rtol=rounding)
    for name, view in run.layout.views(run.parameters).items():
        scale = parameters[name].abs().max().item()
        torch.testing.assert_close(view, parameters[name].data, rtol=rounding, atol=rounding * scale)


def test_weight_decay_of_torch_is_a_penalty_in_the_cost_with_momentum():
    run = Run("question", **{**SMALL, **STEADY, "precision": "float64", "l2": 0.1, "momentum": 0.9})
    costs, _ = oracle(run, UPDATES)
    run.advance(UPDATES)
    np.testing.assert_allclose(run.record.data_cost, costs, rtol=1e-10)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_an_explosion_breaks_at_the_same_update_as_in_plain_pytorch(precision):
    changes = {"input_scaling": "raw", "init": "question_2", "init_scale": 1.0, "learning_rate": 1e-2}
    run = Run("question", **changes, channels=16, hidden=(128, 64), patch_size=20, patches=66, precision=precision)
    costs, _ = oracle(run, UPDATES)
    run.advance(UPDATES)
    broken = ~np.isfinite(costs)
    assert broken.any()
    assert np.array_equal(~np.isfinite(run.record.cost), broken)
    assert np.array_equal(np.isnan(run.record.cost), np.isnan(costs))
    # What is left of rounding is multiplied at every update of an explosion, as everything else is.
    np.testing.assert_allclose(run.record.cost[~broken], costs[~broken], rtol=0.01)


def descent_of(network: nn.Module, cost) -> tuple[Descent, torch.Tensor]:
    layout = Layout.from_network(network)
    flat = layout.flatten(dict(network.named_parameters()))
    return Descent(network, layout, cost, layout.is_weight(flat.device)), flat


def step_of(descent: Descent, flat: torch.Tensor, x, y, **knobs):
    chosen = Knobs(**knobs)
    return descent.step(
        State(flat, None, {}), x, y, KnobTensors.from_knobs(chosen, flat), StepStructure.from_knobs(chosen)
    )


def test_a_step_changes_nothing_that_it_is_given():
    x, y = torch.randn(5, 3), torch.randn(5, 2)
    descent, flat = descent_of(nn.Linear(3, 2), lambda outputs, y, _: (outputs - y).square().mean())
    kept = flat.clone(), x.clone(), y.clone()
    step = step_of(descent, flat, x, y, learning_rate=0.1, momentum=0.5, clip="norm", l1=0.1)
    assert all(torch.equal(one, other) for one, other in zip((flat, x, y), kept, strict=True))
    assert not torch.equal(step.parameters, flat)


def test_the_update_is_what_was_taken_from_the_parameters():
    descent, flat = descent_of(nn.Linear(3, 2), lambda outputs, y, _: (outputs - y).square().mean())
    step = step_of(descent, flat, torch.randn(5, 3), torch.randn(5, 2), learning_rate=0.1)
    assert torch.equal(step.parameters, flat - step.update)
    assert torch.equal(step.update, torch.tensor(0.1) * step.gradient)


def test_a_step_carries_no_graph():
    descent, flat = descent_of(nn.Linear(3, 2), lambda outputs, y, _: (outputs - y).square().mean())
    step = step_of(descent, flat, torch.randn(5, 3), torch.randn(5, 2), l2=0.1)
    assert not any(part.requires_grad for part in step if isinstance(part, torch.Tensor))


def test_a_parameter_that_the_cost_does_not_reach_stays():
    descent, flat = descent_of(
        nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)}), lambda outputs, y, _: outputs
    )
    descent.network.forward = lambda x: descent.network["a"](x).mean()
    step = step_of(descent, flat, torch.ones(1, 2), None)
    assert torch.equal(step.parameters[3:], flat[3:])
    assert not torch.equal(step.parameters[:3], flat[:3])


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_knobs_do_not_widen_half_precision(precision):
    run = Run("question", **SMALL, precision=precision, momentum=0.9, clip="norm", l1=1e-4, l2=1e-4)
    run.advance(3)
    assert run.parameters.dtype == run.state.velocity.dtype == run.problem.dtype
