"""Costs and penalties: their values and gradients at gaps between logits where float32 gives way."""

from __future__ import annotations

import math

import pytest
import torch

from cnnlab import Run
from cnnlab.config.settings import settings
from cnnlab.training.losses import compute_penalty_gradient, make_question_cost, penalty

SMALL = {
    "channels": 3,
    "hidden": (6, 5),
    "patch_size": 14,
    "patches": 20,
    "input_scaling": "standardised",
    "device": "cpu",
}


def cost_and_gradient(gap: float, epsilon: float = 0.0, dtype=torch.float32, **changes):
    """Cost of one patch whose own label is `gap` below the other, and the gradient of both logits."""
    logits = torch.tensor([[0.0, gap]], dtype=dtype, requires_grad=True)
    cost = make_question_cost(settings(**changes))(logits, torch.tensor([0]), torch.tensor(epsilon, dtype=dtype))
    cost.backward()
    return cost.item(), logits.grad[0].tolist()


@pytest.mark.parametrize("gap", [0.0, 18.0, 104.0, 200.0, 1e30])
def test_log_softmax_is_exact_at_any_gap(gap):
    cost, _ = cost_and_gradient(gap, cost="log_softmax")
    assert cost == pytest.approx(math.log1p(math.exp(-gap)) + gap, rel=1e-6)


@pytest.mark.parametrize(("gap", "slope"), [(0.0, 0.5), (18.0, 1.0), (104.0, 1.0), (200.0, 1.0)])
def test_log_softmax_always_has_a_gradient(gap, slope):
    _, gradient = cost_and_gradient(gap, cost="log_softmax")
    assert gradient == pytest.approx([-slope, slope], abs=1e-6)


def test_the_two_costs_agree_while_the_gap_is_small():
    assert cost_and_gradient(3.0, cost="softmax_log")[0] == pytest.approx(math.log1p(math.exp(3.0)), rel=1e-6)


def test_softmax_log_is_infinite_beyond_a_gap_of_104_with_a_gradient_of_nan():
    cost, gradient = cost_and_gradient(200.0, cost="softmax_log")
    assert cost == math.inf
    assert all(map(math.isnan, gradient))


def test_softmax_log_holds_out_to_a_gap_of_about_103():
    assert cost_and_gradient(100.0, cost="softmax_log")[0] == pytest.approx(100, abs=0.1)


def test_an_epsilon_caps_the_cost_and_hides_the_gradient():
    cost, gradient = cost_and_gradient(200.0, epsilon=1e-8, cost="softmax_log")
    assert cost == pytest.approx(18.42, abs=0.005)
    assert gradient == [0.0, 0.0]


def test_a_smaller_epsilon_caps_the_cost_higher():
    assert cost_and_gradient(200.0, epsilon=1e-12, cost="softmax_log")[0] == pytest.approx(27.63, abs=0.005)


@pytest.mark.parametrize("gap", [10.0, 18.0, 25.0])
def test_the_gradient_fades_as_p_over_p_plus_epsilon(gap):
    _, (own, other) = cost_and_gradient(gap, epsilon=1e-8, dtype=torch.float64, cost="softmax_log")
    p = 1 / (1 + math.exp(gap))
    assert other == pytest.approx(p / (p + 1e-8) * (1 - p), rel=1e-9)
    assert own == pytest.approx(-other, rel=1e-9)


def test_log_softmax_has_no_use_for_an_epsilon():
    assert cost_and_gradient(200.0, epsilon=0.1, cost="log_softmax") == cost_and_gradient(200.0, cost="log_softmax")


@pytest.mark.parametrize("cost", ["log_softmax", "softmax_log"])
def test_the_sum_is_the_mean_times_the_patches(cost):
    logits, labels = torch.randn(7, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    epsilon = torch.tensor(0.0)
    mean = make_question_cost(settings(cost=cost, reduction="mean"))(logits, labels, epsilon)
    assert make_question_cost(settings(cost=cost, reduction="sum"))(logits, labels, epsilon) == pytest.approx(
        7 * mean.item()
    )
    assert mean == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())


def test_the_penalty_is_its_formula_and_its_gradient_that_of_autograd():
    weights = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    l1, l2 = torch.tensor(0.5), torch.tensor(0.1)
    value = penalty(weights, l1, l2)
    value.backward()
    assert value.item() == pytest.approx(0.5 * 5 + 0.1 / 2 * 13)
    assert torch.allclose(weights.grad, compute_penalty_gradient(weights.detach(), l1, l2))


@pytest.mark.parametrize(("l1", "l2"), [(1e-3, 0.0), (0.0, 1e-45), (0.0, 0.0)])
def test_a_factor_of_zero_makes_no_nan_of_an_infinite_penalty(l1, l2):
    weights = torch.tensor([1e30, -1e30], requires_grad=True)
    value = penalty(weights, torch.tensor(l1), torch.tensor(l2))
    value.backward()
    assert not math.isnan(value.item())
    assert bool(weights.grad.isfinite().all())


def test_a_factor_of_zero_makes_no_nan_of_an_infinite_weight():
    gradient = compute_penalty_gradient(torch.tensor([math.inf, 1.0]), torch.tensor(0.5), torch.tensor(0.0))
    assert gradient.tolist() == [0.5, 0.5]


def after(updates: int, **changes) -> torch.Tensor:
    run = Run("question", learning_rate=0.05, precision="float64", **SMALL, **changes)
    run.advance(updates)
    return run.parameters


@pytest.mark.parametrize("factors", [{"l1": 1e-3}, {"l2": 1e-2}, {"l1": 1e-3, "l2": 1e-2}])
def test_a_penalty_in_the_cost_and_in_the_update_are_the_same_for_plain_descent(factors):
    in_cost, in_update = (after(10, penalty_in=place, **factors) for place in ("cost", "update"))
    assert torch.allclose(in_cost, in_update, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(in_cost, after(10))


@pytest.mark.parametrize("more", [{"momentum": 0.9}, {"clip": "norm", "clip_threshold": 0.01}])
def test_the_place_of_a_penalty_matters_with_momentum_or_clipping(more):
    in_cost, in_update = (after(10, penalty_in=place, l2=0.1, **more) for place in ("cost", "update"))
    assert not torch.allclose(in_cost, in_update, rtol=1e-6)


def test_biases_are_not_penalised():
    run = Run("question", l2=1.0, penalty_in="update", learning_rate=1e-3, precision="float64", **SMALL)
    before = run.parameters
    plain = Run("question", learning_rate=1e-3, precision="float64", **SMALL)
    run.update(), plain.update()
    biases = ~run.descent.is_weight
    assert torch.equal(run.parameters[biases], plain.parameters[biases])
    assert torch.allclose(plain.parameters - run.parameters, 1e-3 * torch.where(biases, 0, before), rtol=1e-6)


def test_the_record_keeps_the_penalty_apart_from_the_data():
    frame = Run("question", l1=1e-3, l2=1e-3, **SMALL).step()
    assert frame.penalty > 0
    assert frame.cost == pytest.approx(frame.data_cost + frame.penalty, rel=1e-6)


def test_a_penalty_in_the_update_is_no_part_of_the_cost():
    frame = Run("question", l1=1e-3, l2=1e-3, penalty_in="update", **SMALL).step()
    assert (frame.penalty, frame.cost) == (0.0, frame.data_cost)
