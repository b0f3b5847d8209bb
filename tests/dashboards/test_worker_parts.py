"""What the worker is made of holds without a thread: branches, the learning rate, the pace, what is measured beside."""

import dataclasses
import inspect
from typing import Any

import pytest

import cnnlab
from cnnlab.config.schedules import SAFE
from cnnlab.dashboards.branch_tree import GHOSTS, BranchTree
from cnnlab.dashboards.idle_measurements import IdleMeasurements
from cnnlab.dashboards.pace import Pace
from cnnlab.dashboards.rate_control import RateControl
from cnnlab.training.run import Run

SMALL: dict[str, Any] = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "learning_rate": 1e-4}


@pytest.fixture
def run() -> Run:
    made = Run("question", **SMALL)
    made.advance(3)
    return made


def test_a_fork_is_the_present_branch_and_its_parent_stays(run: Run) -> None:
    tree = BranchTree(run)
    tree.fork(2)
    assert (tree.run.updates, run.updates) == (2, 3)
    assert [len(other) for other in tree.record.others] == [3]
    assert tree.settings == run.settings


def test_deleting_the_present_branch_goes_to_its_parent_and_the_last_one_is_kept(run: Run) -> None:
    tree = BranchTree(run)
    tree.fork(2)
    tree.delete(2)
    assert tree.run is run
    with pytest.raises(ValueError, match="branch 1 is the only one left: it stays"):
        tree.delete(1)
    with pytest.raises(ValueError, match="branch must be one of 1, got 2"):
        tree.choose(2)
    with pytest.raises(ValueError, match="branch must be one of 1, got True"):
        tree.choose(True)
    assert tree.runs == {1: run}


def test_what_a_rewind_leaves_is_a_ghost_and_the_oldest_ghosts_go(run: Run) -> None:
    tree = BranchTree(run)
    for _ in range(GHOSTS + 1):
        run.advance(1)
        tree.rewind(0)
    assert [len(ghost) for ghost in tree.ghosts] == [1] * GHOSTS
    tree.begin(Run("question", **SMALL))
    assert len(tree.ghosts) == GHOSTS  # a run without an update leaves none
    assert tree.run is not run


def test_another_knob_keeps_the_schedule_and_another_rate_ends_it(run: Run) -> None:
    rate, knobs = RateControl(1e-4), run.knobs_in_force
    plan = rate.make_plan(rate.choose("step", 0.5, knobs), 10)
    momentum = dataclasses.replace(knobs, momentum=0.5)
    plan = rate.change_plan(plan, knobs, momentum)
    assert rate.schedule == "step"
    assert all(planned.momentum == 0.5 for _, planned in plan)
    assert rate.change_plan(plan, momentum, dataclasses.replace(momentum, learning_rate=1e-3)) == ()
    assert rate.schedule == "constant"


def test_a_new_start_begins_with_the_highest_rate_of_its_schedule(run: Run) -> None:
    rate = RateControl(1e-4)
    rate.choose("cosine", 0.5, run.knobs_in_force)
    later = run.settings.replace(learning_rate=1e-6)  # what a cosine has come to
    assert rate.restart(later.replace(seed=7), later, None).learning_rate == 1e-4
    assert rate.restart(later.replace(learning_rate=0.5), later, None).learning_rate == 0.5
    assert rate.restart(later, later, "constant").learning_rate == 1e-6


def test_the_safe_rate_is_a_share_of_the_critical_one_and_at_most_doubles_later(run: Run) -> None:
    rate = RateControl(1e-4)
    knobs = rate.choose(SAFE, 0.5, run.knobs_in_force)
    knobs = rate.find_safe_knobs(4.0, knobs)
    assert knobs.learning_rate == 0.25
    assert rate.find_safe_knobs(0.004, knobs).learning_rate == 0.5
    assert rate.make_plan(knobs, 10) == ()


def test_an_update_is_due_when_its_pace_says_so_and_a_hurried_one_at_once() -> None:
    pace = Pace()
    assert (pace.rate, pace.find_wait(5.0)) == (0.0, 0.0)
    pace.limit = 4.0
    pace.times.extend([9.5, 10.0])
    assert pace.rate == 2.0
    assert pace.find_wait(10.1) == pytest.approx(0.15)
    assert pace.find_wait(11.0) < 0
    pace.hurried = True
    assert pace.find_wait(10.1) == 0.0


def test_a_paused_run_is_measured_in_pieces_only_where_it_is_watched(run: Run) -> None:
    measurements = IdleMeasurements()
    assert measurements.is_complete(run)
    assert not measurements.has_time(run, 60.0)
    measurements.watching = True
    assert not measurements.is_complete(run)
    assert measurements.has_time(run, 60.0)
    while not measurements.measure_when_idle(run):
        pass
    assert measurements.is_complete(run)
    assert run.sharpness > 0


def test_a_learning_rate_goes_from_the_slider_s_message_to_the_run_in_six_calls_over_five_modules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ways: list[list[tuple[str, str]]] = []
    choose = Run.choose

    def note_the_way(run: Run, knobs: Any) -> None:
        calls = [(frame.filename.rpartition("cnnlab/")[2], frame.function) for frame in inspect.stack()[1:]]
        ways.append([call for call in calls if call[0].startswith("dashboards/")])
        choose(run, knobs)

    monkeypatch.setattr(Run, "choose", note_the_way)
    lab = cnnlab.Lab("question", **SMALL)
    lab.received({"set": {"learning_rate": "0.5"}})
    lab.step()
    assert lab.record.knobs_at(1).learning_rate == 0.5
    lab.close()
    way = ways[0]
    assert len(way) + 1 <= 6  # Run.choose is the last
    assert len({module for module, _ in way} | {"training/run.py"}) <= 5
