"""Play stops by itself two updates after a NaN; updates that are asked for by number are all made."""

from collections.abc import Iterator

import pytest
import torch

import cnnlab
from cnnlab.dashboards.nan_stop import AFTER

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "learning_rate": 1e6}


@pytest.fixture
def lab() -> Iterator[cnnlab.Lab]:
    made = cnnlab.Lab("question", **SMALL)
    made.choose_pace("full")
    yield made
    made.close()


def play(lab: cnnlab.Lab) -> None:
    """Play until it pauses."""
    lab.play()
    assert lab.wait(20)


def find_break() -> int:
    """The first update after which the run of `SMALL` is broken."""
    run = cnnlab.Run("question", **SMALL)
    while not run.broken:
        run.update()
    return run.updates


def test_play_stops_two_updates_after_the_first_that_is_broken_and_says_what_to_press_next(lab: cnnlab.Lab) -> None:
    play(lab)
    broken = find_break()
    assert broken + AFTER < 20
    assert len(lab.record) == broken + AFTER
    header = lab.widgets.header.state
    assert not header["training"]
    assert header["goal"] == 20
    assert header["next"].startswith(f"Play has stopped {AFTER} updates after the first NaN or inf. Press Why?")


def test_play_pressed_again_goes_on_to_the_planned_end(lab: cnnlab.Lab) -> None:
    play(lab)
    play(lab)
    assert len(lab.record) == 20
    assert lab.widgets.header.state["next"] == "Press Why? for the cause, or Before the explosion to look back."


def test_a_new_start_is_stopped_again_whether_it_was_playing_or_not(lab: cnnlab.Lab) -> None:
    play(lab)
    play(lab)
    lab.reset()
    lab.wait(20)
    assert not lab.widgets.header.state["next"]
    play(lab)
    assert len(lab.record) == find_break() + AFTER


def test_a_start_with_another_seed_while_it_plays_is_stopped(lab: cnnlab.Lab) -> None:
    lab.choose_pace("1")
    lab.play()
    lab.set(seed=1)
    lab.choose_pace("full")
    assert lab.wait(20)
    run = cnnlab.Run("question", **SMALL, seed=1)
    while not run.broken:
        run.update()
    assert len(lab.record) == run.updates + AFTER


def test_a_branch_from_before_the_nan_is_stopped_again(lab: cnnlab.Lab) -> None:
    play(lab)
    broken = len(lab.record) - AFTER
    lab.fork(broken - 1)
    play(lab)
    assert len(lab.record) == broken + AFTER


@pytest.mark.parametrize("ask", [lambda lab: lab.step(15), lambda lab: lab.play(15),
                                 lambda lab: lab.received({"do": "step", "updates": 15})])  # fmt: skip
def test_updates_that_are_asked_for_by_number_are_all_made(lab: cnnlab.Lab, ask) -> None:
    ask(lab)
    lab.wait(20)
    assert len(lab.record) == 15
    assert lab.record.first_nonfinite is not None


def test_a_link_replays_all_its_updates(lab: cnnlab.Lab) -> None:
    lab.step(12)
    other = cnnlab.Lab(lab.link())
    other.wait(20)
    assert len(other.record) == 12
    other.close()


def test_a_run_makes_all_its_updates() -> None:
    run = cnnlab.Run("question", **SMALL)
    run.advance(15)
    assert run.updates == 15


def test_switched_off_it_plays_to_the_end_and_the_lab_remembers(lab: cnnlab.Lab) -> None:
    lab.stop_at_nan(False)
    lab.reset()
    play(lab)
    assert len(lab.record) == 20
    assert lab.widgets.header.state["stop_at_nan"] is False
    lab.received({"stop_at_nan": True})
    lab.reset()
    play(lab)
    assert len(lab.record) == find_break() + AFTER
    assert lab.widgets.header.state["stop_at_nan"] is True


def test_it_may_be_switched_off_from_the_start() -> None:
    lab = cnnlab.Lab("question", **SMALL, stop_at_nan=False)
    lab.choose_pace("full")
    play(lab)
    assert len(lab.record) == 20
    lab.close()


def test_a_switch_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^stop_at_nan must be True or False, got 1$"):
        cnnlab.Lab("question", **SMALL, stop_at_nan=1)  # type: ignore[arg-type]


def test_a_healthy_run_is_never_stopped() -> None:
    lab = cnnlab.Lab("question", **{**SMALL, "learning_rate": 1e-4})
    lab.choose_pace("full")
    play(lab)
    assert len(lab.record) == 20
    assert lab.widgets.header.state["next"] == ""
    lab.close()


def test_weights_that_are_nan_count_though_the_cost_is_finite() -> None:
    x = torch.zeros(4, 1)
    lab = cnnlab.Lab(
        network=torch.nn.Linear(1, 1),
        data=(x, x),
        cost=lambda outputs, y: torch.where(
            outputs > -9, outputs, (0 * outputs).sqrt()
        ).mean(),  # its gradient is 0 * inf
    )
    lab.choose_pace("full")
    play(lab)
    assert lab.record.cost[0] < 9
    assert len(lab.record) == 1 + AFTER
    lab.close()


def test_nothing_is_said_of_a_run_at_whose_past_one_looks(lab: cnnlab.Lab) -> None:
    play(lab)
    lab.look_at(1)
    assert lab.widgets.header.state["next"] == ""


def test_without_hints_what_comes_next_is_said_only_once_the_run_has_broken() -> None:
    lab = cnnlab.Lab("question", **SMALL, hints=False)
    lab.step(1)
    assert lab.widgets.header.state["next"] == ""
    lab.step(4)
    assert "Why?" in lab.widgets.header.state["next"]
    lab.close()
