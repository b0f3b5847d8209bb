"""The worker trains towards a goal, takes new knobs at the next update, and leaves no thread behind."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

import cnnlab
from cnnlab.dashboards.view import View
from cnnlab.dashboards.worker import Worker
from cnnlab.training.run import Run

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "learning_rate": 1e-4}


@pytest.fixture
def views() -> list[View]:
    return []


@pytest.fixture
def worker(views: list[View]) -> Iterator[Worker]:
    made = Worker(Run, cnnlab.settings("question", **SMALL), views.append)
    yield made
    made.close()
    assert made.wait(5)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition; AssertionError if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_no_thread_lives_before_training_and_none_after(worker: Worker) -> None:
    assert not worker.thread.alive
    worker.play(3, hurried=False)
    assert worker.wait(10)
    assert not worker.thread.alive
    assert not [thread for thread in threading.enumerate() if thread.name == "cnnlab-worker"]


def test_while_a_knob_is_turned_nothing_is_measured(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    worker.measurements.watching = True
    worker.measurements.tracker.credit = 100.0
    monkeypatch.setattr(worker.measurements.tracker, "measure_within_credit", lambda run: measured.append(run.updates))
    monkeypatch.setattr("cnnlab.dashboards.idle_measurements.HAND", 0.3)
    worker.play(100_000, hurried=True)
    until(lambda: bool(measured))
    worker.set(worker.settings.replace(learning_rate=2e-4))
    before = len(measured)
    time.sleep(0.1)
    assert len(measured) <= before + 1  # one may have been under way
    until(lambda: len(measured) > before + 2)
    worker.pause()


def test_it_trains_to_the_goal_and_posts_a_last_view(worker: Worker, views: list[View]) -> None:
    worker.play(5, hurried=False)
    worker.wait(10)
    assert len(views[-1].record) == 5
    assert not views[-1].training


def test_play_goes_to_the_planned_end_and_then_plans_as_much_again(worker: Worker) -> None:
    for end in (20, 40):
        worker.play()
        worker.wait(20)
        assert worker.run.updates == end


def test_play_after_a_pause_goes_to_the_end_that_was_planned(worker: Worker) -> None:
    worker.choose_pace(20)
    worker.play()
    until(lambda: worker.run.updates >= 2)
    worker.pause()
    worker.wait(10)
    assert 2 <= worker.run.updates < 20
    worker.choose_pace(None)
    worker.play()
    worker.wait(10)
    assert worker.run.updates == 20


def test_new_knobs_are_in_force_at_the_next_update(worker: Worker, views: list[View]) -> None:
    worker.play(2, hurried=False)
    worker.wait(10)
    worker.set(worker.settings.replace(learning_rate=0.5))
    worker.play(1, hurried=False)
    worker.wait(10)
    record = views[-1].record
    assert [frame.knobs.learning_rate for frame in record.frames] == [1e-4, 1e-4, 0.5]


def test_a_pace_is_kept_and_hurried_updates_ignore_it(worker: Worker) -> None:
    worker.choose_pace(20)
    began = time.monotonic()
    worker.play(5, hurried=False)
    worker.wait(10)
    assert time.monotonic() - began > 4 / 20
    worker.choose_pace(0.01)
    worker.play(5, hurried=True)
    assert worker.wait(10)


def test_a_new_pace_takes_effect_while_it_waits(worker: Worker) -> None:
    worker.choose_pace(0.001)
    worker.play(3, hurried=False)
    until(lambda: worker.run.updates == 1)
    worker.choose_pace(None)
    assert worker.wait(10)
    assert worker.run.updates == 3


def test_a_restart_keeps_the_old_run_as_a_ghost_and_training_goes_on(worker: Worker, views: list[View]) -> None:
    worker.choose_pace(50)
    worker.play()
    until(lambda: worker.run.updates >= 2)
    worker.restart(worker.settings.replace(seed=5))
    worker.choose_pace(None)
    assert worker.wait(20)
    assert views[-1].record.settings.seed == 5
    assert len(views[-1].record) == 20
    assert views[-1].ghosts[0].settings.seed == 0


def test_a_restart_of_a_paused_run_waits_at_update_zero(worker: Worker, views: list[View]) -> None:
    worker.play(2, hurried=False)
    worker.wait(10)
    worker.restart(worker.settings)
    worker.wait(10)
    assert len(views[-1].record) == 0
    assert not views[-1].training


def test_only_the_latest_ghosts_are_kept(worker: Worker, views: list[View]) -> None:
    for _ in range(6):
        worker.play(1, hurried=False)
        worker.wait(10)
        worker.restart(worker.settings)
        worker.wait(10)
    assert len(views[-1].ghosts) == 3


def test_a_view_asked_for_is_posted_without_training(worker: Worker, views: list[View]) -> None:
    worker.ask()
    worker.wait(10)
    assert len(views) == 1
    assert len(views[0].record) == 0


def test_an_error_in_an_update_is_posted_and_the_run_before_it_stays() -> None:
    class Fails(torch.nn.Linear):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Fails.calls += 1
            if Fails.calls == 4:
                raise RuntimeError("the fourth call fails")
            return super().forward(x)

    views: list[View] = []
    x, y = torch.randn(6, 3), torch.randint(2, (6,))
    own = {"network": Fails(3, 2), "data": (x, y), "cost": torch.nn.functional.cross_entropy}
    worker = Worker(lambda wanted: Run(wanted, **own), cnnlab.settings("question"), views.append)
    worker.play(10, hurried=True)
    assert worker.wait(10)
    assert views[-1].error == "RuntimeError: the fourth call fails"
    assert len(views[-1].record) == 3
    worker.play(2, hurried=True)
    worker.wait(10)
    assert views[-1].error is None
    assert len(views[-1].record) == 5


def test_a_restart_that_fails_keeps_the_run_and_its_settings() -> None:
    views: list[View] = []

    def make(wanted: cnnlab.Settings) -> Run:
        if wanted.seed == 13:
            raise ValueError("no thirteen")
        return Run(wanted)

    worker = Worker(make, cnnlab.settings("question", **SMALL), views.append)
    worker.play(2, hurried=True)
    worker.wait(10)
    worker.restart(worker.settings.replace(seed=13))
    worker.wait(10)
    assert views[-1].error == "ValueError: no thirteen"
    assert len(views[-1].record) == 2
    assert worker.settings.seed == 0


def test_a_closed_worker_does_nothing_more(worker: Worker, views: list[View]) -> None:
    worker.close()
    with pytest.raises(RuntimeError, match="this lab is closed"):
        worker.play(3, hurried=True)
    assert worker.wait(5)
    assert worker.run.updates == 0
