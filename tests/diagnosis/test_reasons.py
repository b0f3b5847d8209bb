"""What an autopsy takes for a fault and what for none: masks, slopes in a cost, steps that move nothing, starts."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from handmade import record_of
from posted.case import Parts
from posted.networks import ce, hidden, linear, mse, normal, seeded
from posted.silent import classes
from test_why import BOTH, explain, run_parts, watch_parts
from torch import Tensor, nn

import cnnlab
from cnnlab.diagnosis.autopsy import Autopsy
from cnnlab.diagnosis.tape import UNUSED, Tape

pytestmark = pytest.mark.usefixtures("one_thread")


def examine(way: str, parts: Parts, updates: int = 5) -> Autopsy:
    """An autopsy of some parts, trained in one of two ways."""
    if way == "watch":
        return cnnlab.autopsy(watch_parts(parts, updates))
    return cnnlab.autopsy(run_parts(parts, updates), prove=False)


# -- masks


@pytest.mark.parametrize("way", BOTH)
def test_a_mask_of_minus_infinity_among_the_targets_is_no_bad_data(way):
    found = explain(way, "entropy with forbidden actions")
    assert (found.cause, found.operation) == ("undefined operation", "inf*0")
    assert "data hold NaN" not in {cause.name for cause in found.causes}
    assert "hold NaN or inf" not in str(found)


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("bad", [-math.inf, math.inf, math.nan])
def test_targets_that_no_softmax_takes_are_bad_data_whatever_they_hold(way, bad):
    y = normal(12, 1)
    y[7] = bad
    found = examine(way, Parts(linear(4, 1), normal(12, 4), y, mse))
    assert (found.cause, found.phase) == ("data hold NaN", "target")


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_mask_that_is_not_minus_infinity_is_bad_data_even_before_a_softmax(way, bad):
    mask = torch.zeros(12, 3)
    mask[7, 1] = bad
    found = examine(
        way, Parts(linear(4, 3), normal(12, 4), mask, lambda out, y: -(out + y).log_softmax(1)[:, 0].mean())
    )
    assert (found.cause, found.phase) == ("data hold NaN", "target")


@pytest.mark.parametrize("way", BOTH)
def test_a_constant_mask_in_a_cost_is_not_what_is_wrong(way):
    found = explain(way, "smoothing over forbidden words")
    assert (found.cause, found.operation) == ("undefined operation", "inf*0")


@pytest.mark.parametrize("way", BOTH)
def test_a_mask_that_a_slope_multiplies_by_0_is_a_product_and_no_overflow(way):
    found = explain(way, "temperature of masked scores")
    assert (found.cause, found.operation, found.phase) == ("undefined operation", "inf*0", "gradient")
    assert "the slope of div" in found.evidence[0]


@pytest.mark.parametrize("way", BOTH)
def test_a_softmax_over_plus_infinity_is_told_from_one_over_minus_infinity_alone(way):
    above, below = explain(way, "mask of the wrong sign"), explain(way, "kind: softmax of -inf alone")
    assert "softmax over inf:" in above.evidence[0]
    assert "softmax over -inf alone" in below.evidence[0]


# -- where it is


@pytest.mark.parametrize("way", BOTH)
def test_a_cost_that_follows_a_slope_is_still_the_cost(way):
    found = explain(way, "concentration to a power")
    assert (found.phase, found.operation) == ("cost", "root of a negative number")


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("create_graph", [True, False])
def test_a_slope_that_is_taken_within_the_cost_leaves_what_follows_in_the_cost(way, create_graph):
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = x.detach().requires_grad_(True)
            return x, self.layer(x)

    def cost(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        slope = torch.autograd.grad(out[1].sum(), out[0], retain_graph=True, create_graph=create_graph)[0]
        return (out[1] * 0 + slope - slope.detach().abs() - 1).log().mean()

    found = examine(way, Parts(seeded(Both), normal(4, 2), torch.zeros(4), cost))
    assert (found.phase, found.operation, found.step) == ("cost", "log of a negative number", 1)


@pytest.mark.parametrize("way", BOTH)
def test_a_parameter_of_the_network_itself_is_named_where_no_layer_is(way):
    found = explain(way, "embedding without values")
    assert found.layer == ""
    assert "div: 0 / 0, of the parameter background" in found.evidence[0]


@pytest.mark.parametrize("way", BOTH)
def test_a_quotient_that_is_made_without_a_gradient_is_no_constant(way):
    found = explain(way, "weight of a perfect box")
    assert (found.cause, found.operation, found.phase) == ("undefined operation", "0/0", "cost")


def test_the_tape_keeps_of_what_has_no_gradient_only_what_a_cost_comes_of():
    model, other, x = linear(2, 1), linear(2, 1), torch.ones(2, 2)
    tape = Tape(model)
    tape.before(model, (x,))
    out = model(x)
    tape.after(model, (x,), out)
    with torch.no_grad():
        other(x)
        measured = out.abs() > 0
        weight = out.exp()
    taped = tape.take([(out * weight).sum()])
    assert bool(measured.any())
    kept = [(call.function.__name__, call.grad) for call in taped.calls[1:] if call is not UNUSED]
    assert kept == [("exp", False), ("mul", True), ("sum", True)]
    assert taped.calls.count(UNUSED) == 2  # abs and >; the other model's own calls were never noted


# -- the optimiser


def test_a_centred_optimiser_that_takes_the_root_of_a_negative_number_is_named():
    found = explain("watch", "centred RMSprop")
    assert (found.cause, found.operation, found.phase) == (
        "step of the optimiser",
        "root of a negative number",
        "update",
    )
    assert "RMSprop: the root of -" in found.evidence[0]
    assert "RMSprop" in " ".join(found.advice)


def test_an_optimiser_whose_own_arithmetic_makes_nan_is_named_with_what_it_was_given():
    found = explain("watch", "step scaled by its own length")
    assert (found.cause, found.operation) == ("step of the optimiser", "undefined")
    assert "Scaled gives NaN in 0.weight" in found.evidence[0]
    assert "the gradient of 0.weight is 0 throughout" in found.evidence[0]


def test_a_step_that_is_too_long_is_no_arithmetic_of_the_optimiser_s():
    found = examine("watch", Parts(linear(2, 1), normal(8, 2), normal(8, 1) * 1e10, mse, learning_rate=1e30))
    assert found.cause != "step of the optimiser"


# -- nothing moves


def stuck(**changes: object) -> Parts:
    x, y = classes()
    return dataclasses.replace(Parts(hidden(8, 3), x, y, ce, learning_rate=0.1), **changes)


def sgd(rate: float):
    return lambda network: torch.optim.SGD(network.parameters(), lr=rate)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (stuck(optimizer=sgd(0.0)), "the learning rate is 0"),
        (stuck(zero_grad_late=True), "zero_grad stands between the two"),
        (stuck(clip=0.0), "or it is clipped or set to 0 before the step"),
        (stuck(optimizer=lambda network: torch.optim.SGD(hidden(8, 3).parameters(), lr=0.1)), "made for other weights"),
        (stuck(optimizer=sgd(1e-12)), "the rate is too low"),
    ],
    ids=["rate 0", "cleared", "clipped", "other weights", "low rate"],
)
def test_why_no_weight_moved_is_said(parts, said):
    found = examine("watch", parts, 10)
    assert found.cause == "no weight moved"
    assert said in found.evidence[1]


def test_steps_that_bfloat16_rounds_away_are_not_called_those_of_another_network():
    found = explain("watch", "steps rounded away")
    assert found.cause == "no weight moved"
    assert "rounded away: bfloat16 holds 1 and 1 + 0.0078125" in found.evidence[1]
    assert "other weights" not in found.evidence[1]


def test_gradients_that_stay_until_the_step_are_not_counted_as_cleared():
    record = watch_parts(stuck(), 5)
    assert (record.clues.cleared, record.clues.strangers) == (0, False)
    assert watch_parts(stuck(zero_grad_late=True), 5).clues.cleared == 5


# -- where it starts


def test_a_watch_measures_its_weights_at_the_start_as_a_run_does():
    network = hidden(4, 3)
    nn.init.normal_(network[0].weight, std=10 * math.sqrt(2 / 4))
    gains = watch_parts(Parts(network, normal(8, 4), torch.arange(8) % 3, ce), 1).clues.gains
    assert gains[0] == pytest.approx(10, rel=0.3)
    assert gains[1] < 1


def test_weights_that_start_huge_are_blamed_under_watch_before_the_rate():
    found = explain("watch", "weights as memory left them")
    assert found.cause == "initial weights too large"


@pytest.mark.parametrize("way", BOTH)
def test_an_exp_of_what_large_initial_weights_give_is_blamed_on_these(way):
    found = explain(way, "factors that start too large")
    assert found.cause == "initial weights too large"
    assert found.causes[1].name == "exp beyond the type"


@pytest.mark.parametrize("way", BOTH)
def test_an_exp_that_he_s_weights_would_not_save_is_blamed_on_the_exp(way):
    found = explain(way, "kind: exp of more than 88")
    assert found.cause == "exp beyond the type"
    assert found.confidence > 0.9


# -- a cost that only falls


@pytest.mark.parametrize("way", BOTH)
def test_a_cost_that_falls_for_ever_is_not_blamed_on_the_rate_first(way):
    found = explain(way, "critic without a constraint")
    assert found.cause == "cost without a minimum"
    assert all(cause.confidence < 0.5 for cause in found.causes if cause.name == "learning rate above critical")


def test_a_cost_below_zero_that_swings_is_not_one_that_falls_for_ever():
    swings = [1.0, -1e3, 5e5, -1e6, 1e7, -1e8]
    found = cnnlab.autopsy(record_of(swings, update_ratio=np.full((len(swings) + 1, 3), 2.0)))
    assert found.cause != "cost without a minimum"
    assert not [cause for cause in found.causes if "yet the cost fell all the time" in str(cause.evidence)]


def test_a_state_that_explodes_is_no_data_though_the_model_is_given_it():
    model = torch.nn.Linear(8, 8)
    torch.nn.init.orthogonal_(model.weight, 1.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with cnnlab.watch(model, optimizer) as watch:
        state = torch.ones(4, 8)
        for _ in range(400):
            state = model(state)
        state.square().mean().backward()
        optimizer.step()
    found = cnnlab.autopsy(watch.record)
    assert found.cause == "forward pass explodes"
    assert "data hold NaN" not in [each.name for each in found.causes]
