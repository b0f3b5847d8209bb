"""What an autopsy says of a run holds for the optimiser that trained it."""

from __future__ import annotations

import pytest

from cnnlab import Run, autopsy
from cnnlab.config.schedules import rate_plan
from cnnlab.diagnosis.remedies import list_remedies
from cnnlab.diagnosis.trials import try_remedy

SMALL = {"channels": 4, "hidden": (8, 8), "patch_size": 13, "patches": 12, "device": "cpu"}
STEEP = {"init_scale": 2.0}
"""A start at which plain gradient descent diverges at once."""


def train(updates, **changes):
    run = Run("question", **{**SMALL, **changes})
    run.advance(updates)
    return run


def name_causes(found):
    return [cause.name for cause in found.causes]


def test_an_epsilon_that_float16_does_not_hold_is_the_cause_and_a_larger_one_mends():
    run = train(6, optimizer="adam", learning_rate=1e-3, precision="float16", input_scaling="standardised")
    found = autopsy(run)
    assert found.cause == "epsilon of the optimiser"
    assert "Adam's eps 1.0e-8 is 0 in float16, so that a step is 0/0 or x/0" in str(found)
    mended = [str(trial.remedy) for trial in found.remedies if trial.verdict == "mends"]
    assert "a larger epsilon (adam_epsilon=0.0001)" in mended


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "adamw"])
def test_nothing_is_said_of_a_critical_rate_that_is_not_the_optimiser_s(optimizer):
    run = train(8, optimizer=optimizer, learning_rate=1e5, reduction="sum")
    found = autopsy(run, prove=False)
    assert found.cause == "learning rate above critical"
    said = str(found)
    assert "times the critical one" not in said
    assert "the critical learning rate would be" not in said
    assert "cost summed" not in name_causes(found), "the step is as long for the mean"
    plain = autopsy(train(8, **STEEP, reduction="sum"), prove=False)
    assert "times the critical one" in str(plain)
    assert "cost summed" in name_causes(plain)


def test_nesterov_s_momentum_lowers_the_limit_and_the_heavy_ball_s_raises_it():
    ball, nesterov = (
        str(autopsy(train(8, **STEEP, momentum=0.9, optimizer=name), prove=False)) for name in ("sgd", "nesterov")
    )
    assert "(times 1 + 0.9 for momentum)" in " ".join(ball.split())
    assert "(times 0.679 for Nesterov's momentum of 0.9)" in " ".join(nesterov.split())


def test_a_penalty_that_adam_divides_by_its_size_turns_no_weight_over():
    changes = {"learning_rate": 0.1, "l2": 100.0, "input_scaling": "standardised"}
    plain, adam = (autopsy(train(12, optimizer=name, **changes), prove=False) for name in ("sgd", "adam"))
    assert plain.cause == "penalty factor beyond 1"
    assert "penalty factor beyond 1" not in name_causes(adam)


def test_adam_and_a_warm_up_are_tried_where_the_rate_is_too_high_beside_the_posted_five():
    found = autopsy(train(8, **STEEP))
    assert found.cause == "learning rate above critical"
    tried = {trial.remedy.name: trial for trial in found.remedies}
    adam, warm = tried["Adam, at a rate that is usual for it"], tried["a warm-up"]
    assert adam.remedy.changes == {"optimizer": "adam", "learning_rate": 1e-3}
    assert not adam.remedy.restarts
    assert (warm.remedy.schedule, warm.remedy.restarts, len(warm.cost)) == ("warm_up", False, 20)
    assert not any(trial.remedy.posted for trial in (adam, warm))
    assert sum(trial.remedy.posted for trial in found.remedies) == 5


def test_a_trial_of_a_warm_up_begins_with_a_hundredth_of_the_rate():
    run = train(6)
    (warm,) = (each for each in list_remedies("learning rate above critical", 0.01, None) if each.schedule)
    trial = try_remedy(run, warm, 2)
    twin = run.fork(2)
    twin.plan = rate_plan("warm_up", twin.knobs_in_force, len(trial.cost), first=3)
    twin.advance(len(trial.cost))
    assert twin.record.knobs_at(3).learning_rate == 1e-4
    assert list(trial.cost) == twin.record.cost[2:].tolist()
