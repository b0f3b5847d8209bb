"""The worker measures the curvature of a paused run at once and of a running one in between, and keeps schedules."""

import math
import time
from collections.abc import Iterator

import numpy as np
import pytest

import cnnlab
from cnnlab.config.schedules import SAFE
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
    made.measurements.watching = True
    yield made
    made.close()
    assert made.wait(10)


def ended(worker: Worker) -> None:
    """Wait until the thread has nothing left to do, the measuring included."""
    end = time.monotonic() + 30
    while worker.thread.alive:
        assert time.monotonic() < end
        time.sleep(0.002)


def rates(worker: Worker) -> list[float]:
    """The learning rate of each update so far."""
    return [frame.knobs.learning_rate for frame in worker.run.record.frames]


def test_a_paused_run_is_measured_and_foretold_before_its_first_update(worker, views) -> None:
    worker.ask()
    ended(worker)
    assert views[-1].record.start.sharpness > 0
    assert views[-1].forecast.starts == 5
    assert not views[-1].training


def test_after_training_the_last_weights_are_measured_and_nothing_is_foretold(worker, views) -> None:
    worker.play(3, hurried=True)
    ended(worker)
    assert views[-1].record.frames[-1].sharpness > 0
    assert views[-1].forecast is None


def test_waiting_for_training_does_not_wait_for_the_measuring(worker) -> None:
    worker.play(3, hurried=True)
    assert worker.wait(20)
    assert worker.run.updates == 3


def test_between_paced_updates_there_is_time_to_measure(worker, views) -> None:
    worker.choose_pace(4)
    worker.play(4, hurried=False)
    ended(worker)
    assert np.isfinite(views[-1].record.sharpness).sum() >= 2


def test_another_rate_has_another_forecast_and_the_same_curvature(worker, views) -> None:
    worker.ask()
    ended(worker)
    before = views[-1]
    worker.set(worker.settings.replace(learning_rate=1e4))
    worker.ask()
    ended(worker)
    assert views[-1].forecast.chance > before.forecast.chance
    assert views[-1].record.start.sharpness == before.record.start.sharpness


def test_measuring_changes_no_bit_of_the_training(worker) -> None:
    worker.play(6, hurried=True)
    ended(worker)
    plain = Run("question", **SMALL)
    plain.advance(6)
    assert worker.run.record.cost.tobytes() == plain.record.cost.tobytes()


def test_a_schedule_runs_to_the_planned_end_and_shows_its_knobs(worker, views) -> None:
    worker.schedule("cosine")
    worker.play()
    worker.wait(20)
    found = rates(worker)
    assert found[0] == pytest.approx(1e-4)
    assert found[-1] == pytest.approx(1e-6)
    assert found == sorted(found, reverse=True)
    assert views[-1].schedule == "cosine"
    assert views[-1].settings.learning_rate == found[-1]


def test_a_rate_set_by_hand_ends_the_schedule(worker) -> None:
    worker.schedule("step")
    worker.play(2, hurried=True)
    worker.wait(20)
    worker.set(worker.settings.replace(learning_rate=3e-4))
    worker.play()
    worker.wait(20)
    assert worker.rate.schedule == "constant"
    assert set(rates(worker)[2:]) == {3e-4}


def test_another_knob_leaves_the_schedule_as_it_is(worker) -> None:
    worker.schedule("step")
    worker.set(worker.settings.replace(momentum=0.5))
    worker.play()
    worker.wait(20)
    assert rates(worker)[-1] == pytest.approx(1e-6)
    assert all(frame.knobs.momentum == 0.5 for frame in worker.run.record.frames)


def test_a_new_start_keeps_the_schedule_from_its_highest_rate(worker) -> None:
    worker.schedule("cosine")
    worker.play()
    worker.wait(20)
    worker.restart(worker.settings.replace(seed=5))
    worker.wait(20)
    worker.play()
    worker.wait(20)
    assert worker.run.settings.seed == 5
    assert rates(worker)[0] == pytest.approx(1e-4)
    assert rates(worker)[-1] == pytest.approx(1e-6)


def test_going_back_ends_a_schedule_and_keeps_the_rate_that_was_there(worker) -> None:
    worker.schedule("step")
    worker.play()
    worker.wait(20)
    worker.rewind(3)
    worker.wait(20)
    assert worker.rate.schedule == "constant"
    worker.play()
    worker.wait(20)
    assert set(rates(worker)[3:]) == {1e-6}


def test_as_high_as_is_safe_follows_the_curvature_into_the_record(worker) -> None:
    worker.schedule(SAFE, 0.5)
    worker.play(4, hurried=True)
    ended(worker)
    record = worker.run.record
    assert rates(worker)[0] == pytest.approx(1 / record.start.sharpness, rel=1e-3)
    assert all(math.isfinite(value) for value in record.column("sharpness"))
    again = Run(record.link())
    again.advance(4)
    assert again.record.cost.tobytes() == record.cost.tobytes()


def test_an_unknown_schedule_is_refused_and_changes_nothing(worker) -> None:
    with pytest.raises(ValueError, match="schedule must be one of"):
        worker.schedule("linear")
    assert worker.rate.schedule == "constant"


def test_without_watching_nothing_is_measured() -> None:
    views: list[View] = []
    quiet = Worker(Run, cnnlab.settings("question", **SMALL), views.append)
    quiet.play(3, hurried=True)
    quiet.wait(20)
    assert np.isnan(views[-1].record.column("sharpness")).all()
