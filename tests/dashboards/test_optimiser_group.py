"""The optimiser in a Lab: a folded group of controls, and changes that take its defaults along."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cnnlab
from cnnlab.dashboards import controls

SMALL = {"channels": 2, "hidden": (4, 3), "patch_size": 13, "patches": 8, "device": "cpu"}
STEEP = {"channels": 4, "hidden": (8, 8), "patch_size": 13, "patches": 12, "init_scale": 2.0, "device": "cpu"}


@pytest.fixture
def lab() -> Iterator[cnnlab.Lab]:
    made = cnnlab.Lab("question", **SMALL)
    yield made
    made.close()


@pytest.mark.parametrize("own_network", [False, True])
def test_a_lab_opens_with_the_controls_of_before_and_the_optimiser_folded(own_network):
    groups = controls.group_fields(own_network)
    first, *folded = groups.items()
    assert first == (
        controls.AT_NEXT,
        ["learning_rate", "momentum", "clip", "clip_threshold", "epsilon", "l1", "l2", "penalty_in"],
    )
    assert ("Optimiser", ("optimizer", "beta2", "adam_epsilon", "loss_scale")) in folded


def test_a_choice_in_the_page_takes_the_optimiser_s_defaults_along(lab):
    lab.received({"set": {"optimizer": "adamw"}})
    lab.step(2)
    assert lab.record.knobs_at(1).penalty_in == "update"
    assert lab.widgets.controls.state["values"]["momentum"] == 0.9
    lab.received({"set": {"optimizer": "sgd"}})
    lab.step(1)
    assert lab.record.knobs_at(3) == cnnlab.settings("question").knobs
    assert lab.worker.run.state.optimizer == "sgd"


def test_what_contradicts_the_optimiser_is_refused_below_the_controls(lab):
    lab.received({"set": {"optimizer": "adamw"}})
    lab.received({"set": {"penalty_in": "cost"}})
    assert lab.problem == "penalty_in must be 'update' with the optimizer 'adamw', got 'cost'"
    assert lab.settings.penalty_in == "update"


def test_a_warm_up_that_is_applied_is_a_branch_with_that_schedule():
    lab = cnnlab.Lab("question", **STEEP)
    lab.step(8)
    found = lab.explain()
    place = next(number for number, trial in enumerate(found.remedies) if trial.remedy.schedule)
    lab.apply(place)
    assert lab.record.branch.parent == 1
    start = found.remedies[place].start
    lab.step(1)
    assert lab.record.knobs_at(start + 1).learning_rate == 1e-4
    lab.close()
