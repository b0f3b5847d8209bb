"""The lab as a film: look back without training, rewind, fork, and choose among branches."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import cnnlab
from cnnlab.diagnosis.summary import before_explosion, difference
from cnnlab.plots.colours import colour_branch
from cnnlab.records.record import Branch

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "learning_rate": 1e-4}


@pytest.fixture
def lab() -> Iterator[cnnlab.Lab]:
    made = cnnlab.Lab("question", **SMALL)
    made.step(8)
    yield made
    made.close()


def trace(lab: cnnlab.Lab, name: str):
    """A trace of the lab's figure."""
    return next(trace for trace in lab.figure.data if trace.name == name)


def test_looking_back_shows_everything_as_it_was_and_trains_nothing(lab: cnnlab.Lab) -> None:
    past = cnnlab.Lab("question", **SMALL)
    past.step(3)
    lab.look_at(3)
    for name in ("cost", "magnitudes 0", "gradient 4", "ratio 8", "cost marks"):
        assert np.array_equal(trace(lab, name).y, trace(past, name).y, equal_nan=True)
    assert trace(lab, "over time").source == trace(past, "over time").source
    assert lab.widgets.strip.state["rows"] == past.widgets.strip.state["rows"]
    assert lab.widgets.strip.state["kernels"] == past.widgets.strip.state["kernels"]
    assert lab.widgets.header.state["step"] == 3
    assert len(lab.record) == 8
    past.close()


def test_the_rest_of_the_run_stays_in_sight_as_a_ghost_while_looking_back(lab: cnnlab.Lab) -> None:
    lab.look_at(3)
    assert np.nanmax(trace(lab, "ghosts").x) == 8
    lab.look_at(None)
    assert len(trace(lab, "ghosts").x) == 0
    assert lab.widgets.header.state["step"] == 8


def test_playing_from_the_past_forks_there_with_the_knobs_as_they_are_now(lab: cnnlab.Lab) -> None:
    before = lab.record.cost
    lab.look_at(3)
    lab.set(clip="norm", clip_threshold=1e-3)
    lab.step(5)
    assert lab.record.branch == Branch(2, 1, 3)
    assert lab.record.cost[:4].tobytes() == before[:4].tobytes()
    assert lab.record.cost[5] != before[5]
    assert [other.branch.number for other in lab.record.others] == [1]
    assert lab.record.others[0].cost.tobytes() == before.tobytes()
    assert lab.record.others[0].frames[7].knobs.clip == "off"


def test_both_branches_are_drawn_in_colours_of_their_own_and_named_by_their_difference(lab: cnnlab.Lab) -> None:
    lab.fork(3, learning_rate=1e-3)
    lab.step(2)
    assert trace(lab, "cost").line.color == colour_branch(2)
    assert trace(lab, "branch 0").line.color == colour_branch(1)
    assert trace(lab, "branch 0").x.tolist() == list(range(1, 9))
    labels = [branch["label"] for branch in lab.widgets.controls.state["branches"]]
    assert labels == ["start", "lr 0.0001 -> 0.001 at 3"]
    assert [branch["depth"] for branch in lab.widgets.controls.state["branches"]] == [0, 1]


def test_a_branch_can_be_chosen_with_its_knobs_and_gone_on_with(lab: cnnlab.Lab) -> None:
    lab.fork(3, learning_rate=1e-3)
    lab.choose_branch(1)
    lab.wait(10)
    assert lab.settings.learning_rate == 1e-4
    lab.step(2)
    assert len(lab.record) == 10
    assert lab.record.branch.number == 1
    assert len(lab.record.others[0]) == 3


def test_a_branch_can_be_deleted_but_never_the_last(lab: cnnlab.Lab) -> None:
    lab.fork(3, momentum=0.5)
    lab.fork(2, momentum=0.9)
    assert [branch["number"] for branch in drawn(lab)] == [1, 2, 3]
    lab.delete_branch(3)
    assert [branch["number"] for branch in drawn(lab)] == [1, 2]
    assert lab.record.branch.number == 2
    lab.delete_branch(1)
    assert [(branch["number"], branch["depth"]) for branch in drawn(lab)] == [(2, 0)]
    with pytest.raises(ValueError, match="branch 2 is the only one left: it stays"):
        lab.delete_branch(2)
    lab.wait(10)
    assert "branch 2 is the only one left" in lab.widgets.header.state["problem"]
    assert len(lab.record) == 3


def drawn(lab: cnnlab.Lab) -> list[dict]:
    """The branches that the controls show."""
    lab.wait(10)
    return lab.widgets.controls.state["branches"]


def test_a_branch_that_is_not_there_is_refused_once_in_a_sentence_and_by_the_page_in_one_place(lab: cnnlab.Lab) -> None:
    for ask in (lab.choose_branch, lab.delete_branch):
        with pytest.raises(ValueError, match="branch must be one of 1, got 9"):
            ask(9)
        assert lab.wait(10)
    lab.received({"do": "choose_branch", "branch": 9})
    assert lab.wait(10)
    assert "branch must be one of 1, got 9" in lab.widgets.header.state["problem"]
    assert lab.widgets.controls.state["problem"] == ""
    lab.step(1)
    assert lab.widgets.header.state["problem"] == ""


def test_a_branch_is_named_by_its_change_before_it_has_trained_and_after_its_parent_is_gone(lab: cnnlab.Lab) -> None:
    lab.fork(3, learning_rate=1e-3)
    assert [branch["label"] for branch in drawn(lab)] == ["start", "lr 0.0001 -> 0.001 at 3"]
    lab.set(learning_rate=0.1)
    assert drawn(lab)[1]["label"] == "lr 0.0001 -> 0.1 at 3"
    lab.step(2)
    lab.set(learning_rate=0.5)
    assert drawn(lab)[1]["label"] == "lr 0.0001 -> 0.1 at 3"
    lab.delete_branch(1)
    assert [branch["label"] for branch in drawn(lab)] == ["lr 0.0001 -> 0.1 at 3"]


def test_a_look_back_at_the_start_is_told_as_such(lab: cnnlab.Lab) -> None:
    lab.look_at(0)
    assert lab.widgets.header.state["line"].startswith("the start, before update 1: ")


def test_a_rewind_goes_on_from_there_and_repeats_itself_to_the_bit(lab: cnnlab.Lab) -> None:
    before = lab.record.cost
    lab.rewind(2)
    assert len(lab.record) == 2
    lab.step(6)
    assert lab.record.cost.tobytes() == before.tobytes()
    assert len(lab.view.ghosts[0]) == 8
    assert lab.record.others == ()


def test_a_reset_begins_a_new_tree(lab: cnnlab.Lab) -> None:
    lab.fork(3)
    lab.reset()
    assert lab.record.branch.number == 1
    assert lab.record.others == ()


@pytest.mark.parametrize("step", [-1, 9, 2.5, "3", True])
def test_a_step_outside_the_run_is_refused_in_a_sentence(lab: cnnlab.Lab, step: object) -> None:
    for ask in (lab.look_at, lab.rewind, lab.fork):
        with pytest.raises(ValueError, match=r"step must be a whole number in \[0, 8\]"):
            ask(step)
    lab.received({"look": step})
    lab.wait(10)
    assert lab.widgets.controls.state["problem"].startswith("step must be")
    assert len(lab.record) == 8


def test_a_fork_with_another_start_is_refused(lab: cnnlab.Lab) -> None:
    with pytest.raises(TypeError, match="a fork changes knobs"):
        lab.fork(2, seed=4)
    assert lab.settings.seed == 0


def test_the_browser_s_messages_look_back_and_fork(lab: cnnlab.Lab) -> None:
    lab.received({"look": 2})
    assert lab.widgets.header.state["step"] == 2
    lab.received({"do": "fork"})
    lab.wait(10)
    assert (lab.record.branch.parent, lab.record.branch.forked_at) == (1, 2)
    lab.received({"do": "choose_branch", "branch": 1})
    lab.received({"do": "delete_branch", "branch": 2})
    lab.wait(10)
    assert lab.record.others == ()


def test_looking_before_the_explosion_of_a_healthy_run_says_that_nothing_went_wrong_and_that_is_no_problem(
    lab: cnnlab.Lab,
) -> None:
    lab.received({"do": "before_explosion"})
    assert lab.look is None
    state = lab.widgets.controls.state
    assert state["note"] == f"nothing went wrong up to update {len(lab.record)}"
    assert state["problem"] == lab.widgets.header.state["problem"] == ""


@pytest.mark.parametrize(
    "go_on",
    [
        {"do": "step", "updates": 1},
        {"do": "reset"},
        {"look": 1},
        {"do": "choose_branch", "branch": 7},
    ],
)
def test_what_was_said_of_a_healthy_run_is_over_with_the_next_thing_that_is_done(lab: cnnlab.Lab, go_on: dict) -> None:
    lab.received({"do": "before_explosion"})
    lab.received(go_on)
    lab.wait(10)
    assert lab.widgets.controls.state["note"] == ""


@pytest.mark.parametrize("call", [lambda lab: lab.step(1), lambda lab: lab.reset(), lambda lab: lab.look_at(1)])
def test_what_was_said_of_a_healthy_run_is_over_with_the_next_call(lab: cnnlab.Lab, call: Any) -> None:
    lab.look_before_explosion()
    call(lab)
    lab.wait(10)
    assert lab.widgets.controls.state["note"] == ""


def test_looking_before_an_explosion_says_nothing(lab: cnnlab.Lab) -> None:
    lab.set(learning_rate=1e3)
    lab.step(4)
    lab.look_before_explosion()
    assert lab.look == before_explosion(lab.record) < len(lab.record)
    assert lab.problem == lab.note == ""


def test_a_fork_without_a_change_says_so() -> None:
    run = cnnlab.Run("question", **SMALL)
    run.advance(3)
    assert difference(run.fork(2).record, run.record) == "no change at 2"
    assert difference(run.record, None) == "start"
