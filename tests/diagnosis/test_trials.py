"""A remedy is said to mend only where it passes the update that broke and something is learnt."""

from __future__ import annotations

import math

import pytest
import torch
from posted.case import Parts
from posted.networks import linear, mse, normal
from test_why import find_case, run_parts

import cnnlab
from cnnlab.diagnosis import trials
from cnnlab.diagnosis.case import Cause
from cnnlab.diagnosis.remedies import Remedy, choose_remedies, list_remedies
from cnnlab.diagnosis.trials import HIDES, MENDS, UNREACHED, USELESS, describe_epsilon, judge_trial, try_remedy

ce = torch.nn.functional.cross_entropy
SLOW = Remedy("a lower learning rate", {"learning_rate": 0.03})


pytestmark = pytest.mark.usefixtures("one_thread")


def rare_row(place: int) -> cnnlab.Run:
    """A regression of batches of one, of which one row holds a NaN; trained until it comes."""
    x = normal(60, 4)
    y = x[:, :1].clone()
    y[place] = math.nan
    return run_parts(Parts(linear(4, 1), x, y, mse, learning_rate=0.05, batch=1), 60)


def test_a_trial_passes_the_update_at_which_a_bad_row_comes():
    run = rare_row(50)
    assert run.record.first_nonfinite == 51
    trial = try_remedy(run, SLOW, before=0)
    assert (trial.verdict, len(trial.cost)) == (USELESS, 51)


def test_a_trial_that_ends_before_the_bad_row_says_that_it_was_not_reached(monkeypatch):
    monkeypatch.setattr(trials, "MOST", 40)
    trial = try_remedy(rare_row(50), SLOW, before=0)
    assert trial.verdict == UNREACHED
    assert "update 51, which broke, is beyond the 40 that were tried" in trial.reason


def test_a_trial_without_the_bad_rows_mends():
    found = cnnlab.autopsy(rare_row(5))
    assert found.cause == "data hold NaN"
    assert [(trial.verdict, trial.remedy.name) for trial in found.remedies] == [(MENDS, "without the bad rows")]


def judged(network: torch.nn.Module, cost, updates: int = 30, **changes) -> tuple[str, str]:
    x = normal(24, 4)
    run = run_parts(Parts(network, x, x[:, :1], cost, **changes), updates)
    return judge_trial(run, 0)


def test_a_cost_that_learns_is_mended():
    verdict, reason = judged(linear(4, 1), mse, learning_rate=0.1)
    assert verdict == MENDS
    assert reason.startswith("the cost fell from ")


def test_a_cost_that_runs_to_minus_infinity_is_not_mended():
    verdict, reason = judged(linear(4, 1), lambda out, y: -out.square().mean(), 60, learning_rate=0.2)
    assert verdict == HIDES
    assert "on its way to minus infinity" in reason


def test_a_huge_cost_that_falls_is_not_mended():
    network = linear(4, 1)
    run = run_parts(Parts(network, normal(24, 4), normal(24, 1), mse, learning_rate=0.1), 5)
    run.set(learning_rate=30.0)
    run.advance(8)
    high = run.record.cost[-1]
    assert high > 1e6
    fork = run.fork(13, learning_rate=0.05)
    fork.advance(3)
    assert fork.record.cost[-1] < 0.9 * fork.record.cost[13]
    verdict, reason = judge_trial(fork, 13)
    assert verdict == HIDES
    assert "untrained" in reason


def test_a_rate_at_which_nothing_moves_does_not_mend():
    verdict, reason = judged(linear(4, 1), mse, learning_rate=1e-12)
    assert verdict == HIDES
    assert reason.endswith("next to nothing moved")


def test_an_end_at_the_cost_of_chance_does_not_mend():
    x, y = torch.zeros(24, 4), torch.arange(24) % 3
    network = linear(4, 3)
    torch.nn.init.constant_(network[0].bias, 0.0)
    network[0].bias.data[0] = 5
    run = run_parts(Parts(network, x, y, ce, learning_rate=1.0), 80)
    assert run.record.cost[-1] < 0.5 * run.record.cost[0]
    verdict, reason = judge_trial(run, 0)
    assert verdict == HIDES
    assert f"no better than a constant output, whose cost is {math.log(3):.3f}" in reason


def test_a_better_cost_within_the_batches_noise_does_not_mend():
    x = normal(64, 4)
    run = run_parts(Parts(linear(4, 1), x, normal(64, 1, seed=3) * 5, mse, learning_rate=1e-4, batch=2), 30)
    assert judge_trial(run, 0)[0] == HIDES


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", ["kind: root at 0 after calm updates", "kind: graph cut", "kind: (N, 1) against (N)"])
def test_no_knob_is_tried_where_none_can_help(name):
    case = find_case(name)
    found = cnnlab.autopsy(run_parts(case.build(), case.updates))
    assert found.remedies == ()
    assert found.advice


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("kind: one input of 1e4", "without the outlier"),
        ("kind: one target of 1e25", "without the outlier"),
        ("kind: targets near 1e6", "standardised targets"),
        ("kind: cross-entropy of targets beyond 1", "targets within [0, 1]"),
    ],
)
def test_what_fits_the_cause_is_tried_and_mends(name, remedy):
    case = find_case(name)
    found = cnnlab.autopsy(run_parts(case.build(), case.updates))
    assert remedy in [trial.remedy.name for trial in found.remedies if trial.verdict == MENDS], found.remedies


def test_half_the_critical_rate_is_called_so_only_where_it_is():
    named = {
        critical: list_remedies("learning rate above critical", 0.1, critical)[0] for critical in (1e-20, 0.5, 1e7)
    }
    assert named[1e-20].name == named[0.5].name == "half the critical learning rate"
    assert named[1e-20].changes == {"learning_rate": 5e-21}
    assert named[1e7].name == "the highest learning rate that a run may have"
    assert named[1e7].changes == {"learning_rate": 1e6}


def test_a_remedy_that_does_not_fit_the_data_is_not_listed():
    case = find_case("kind: NaN in a buffer")
    run = run_parts(case.build(), case.updates)
    causes = cnnlab.autopsy(run, prove=False).causes
    assert causes[0].name == "data hold NaN"
    assert choose_remedies(run, causes, 0) == []


def test_float32_mends_what_float16_cannot_hold():
    x = normal(24, 4)
    network = linear(4, 1).half()
    parts = Parts(network, (x * 3).half(), x[:, :1].half(), lambda out, y: ((out - y) * 300).square().mean() / 9e4)
    found = cnnlab.autopsy(run_parts(parts, 10))
    assert found.cause == "overflow of the precision", found.causes
    assert "float32" in [trial.remedy.name for trial in found.remedies if trial.verdict == MENDS], found.remedies


def test_a_record_of_a_network_of_one_s_own_says_what_to_give():
    case = find_case("kind: root at 0 after calm updates")
    found = cnnlab.autopsy(run_parts(case.build(), case.updates).record)
    assert found.operation == "unknown"
    assert "autopsy(record, network=..., data=..., cost=...)" in found.evidence[-1]


def test_batch_norm_is_tried_where_the_rate_is_too_high_and_mends():
    run = cnnlab.Run("question", channels=8, hidden=(32, 32), device="cpu", padding="same", residual="on")
    run.advance(8)
    found = cnnlab.autopsy(run)
    assert found.cause == "learning rate above critical"
    assert {"normalization": "batch"} in [trial.remedy.changes for trial in found.remedies if trial.verdict == MENDS]


def test_a_network_that_cannot_be_is_not_tried():
    """Batches of one patch have no batch norm; a shortcut brings the padding with it."""
    causes = (Cause(0.9, (), name="vanishing gradient"),)
    names = {
        size: [each.name for each in choose_remedies(cnnlab.Run("question", batch_size=size, device="cpu"), causes, 0)]
        for size in (1, 6)
    }
    assert ("batch normalisation" in names[1], "batch normalisation" in names[6]) == (False, True)
    assert "shortcuts" in names[1]


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("gap", [15.0, 60.0, 98.0, 200.0, 650.0])
def test_what_an_epsilon_leaves_of_a_gradient_is_exactly_0_where_it_is_so_in_the_type(precision, gap):
    epsilon = 1e-4
    logits = torch.tensor([[0.0, -gap]], dtype=getattr(torch, precision), requires_grad=True)
    (-(torch.softmax(logits, 1)[0, 1] + epsilon).log()).backward()
    run = cnnlab.Run("sudden_nan", precision=precision, epsilon=epsilon)
    run.step()
    assert ("exactly 0" in describe_epsilon(run.record, gap)) == bool(logits.grad[0, 1] == 0)


def sigmoids(**changes) -> cnnlab.Run:
    """Twelve sigmoids, which learn nothing in so few updates."""
    about = {"activation": "sigmoid", "depth": 12, "padding": "same", "init": "glorot_uniform", "init_scale": 1.0}
    size = {"channels": 4, "hidden": (8, 8), "patch_size": 8, "patches": 24, "device": "cpu"}
    run = cnnlab.Run("question", input_scaling="standardised", **about, **size, **changes)
    run.advance(60)
    return run


def test_a_penalty_that_falls_is_nothing_learnt_of_the_data():
    run = sigmoids()
    trial = try_remedy(run, Remedy("an L2 penalty", {"l2": 0.1}), before=0)
    assert trial.verdict == HIDES
    assert trial.cost[-1] < 0.98 * trial.cost[0]  # for the penalty fell
    assert "(median of the last 5, without the penalty): no better than a constant output" in trial.reason


def test_a_run_whose_penalty_alone_falls_is_not_called_healthy():
    found = cnnlab.autopsy(sigmoids(l2=0.1), prove=False)
    assert found.cause != "healthy"


def test_remedies_of_a_run_that_stands_begin_at_the_start_and_not_where_nothing_is_left():
    x = normal(24, 4)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Sigmoid(), torch.nn.Linear(8, 1))
    run = run_parts(Parts(network, x, 1e6 * x[:, :1], mse, learning_rate=1e-3), 1)
    run.rewind(0)
    run.set(optimizer="adam")
    run.advance(30)
    found = cnnlab.autopsy(run)
    assert (found.cause, found.before) == ("targets not scaled", 0)
    assert MENDS in [trial.verdict for trial in found.remedies]
