"""Records: arrays that grow without changing what was shown before, frames, and the schedule of knobs."""

from __future__ import annotations

import dataclasses
import math
import pickle

import numpy as np
import pytest

import cnnlab
from cnnlab.config.settings import Knobs, settings
from cnnlab.records.formats import format_number
from cnnlab.records.frame import GAUGES, LAYER_GAUGES
from cnnlab.records.histograms import EXPONENTS
from cnnlab.records.log import Log
from cnnlab.records.record import Record

LAYERS = ("a", "b")
WATCHED = ("a.weight[0,0]",)
WIDTH = len(GAUGES) + len(LAYER_GAUGES) * 2 + 1


def row(number: float) -> np.ndarray:
    """Every gauge of an update at the same number."""
    return np.full((1, WIDTH), number)


def histogram(count: int) -> np.ndarray:
    return np.full((1, 2, EXPONENTS["float32"].count), count, np.int32)


def log_of(updates: int, updates_per_epoch: int = 1) -> Log:
    """A log whose row k holds the number k everywhere."""
    log = Log(settings("question"), LAYERS, WATCHED, updates_per_epoch)
    for number in range(updates + 1):
        log.append(row(number), histogram(number))
    return log


def test_costs_and_steps_leave_the_start_out():
    record = log_of(3).record()
    assert record.cost.tolist() == [1, 2, 3]
    assert record.steps.tolist() == [1, 2, 3]
    assert record.cost.dtype == np.float64


def test_gauges_of_layers_have_a_column_for_each():
    assert log_of(3).record().weight_norm.tolist() == [[1, 1], [2, 2], [3, 3]]


def test_watched_weights_and_columns_begin_with_the_start():
    record = log_of(2).record()
    assert record.watched_values.tolist() == [[0], [1], [2]]
    assert record.column("cost").tolist() == [0, 1, 2]
    assert record.column("weight_norm").shape == (3, 2)


@pytest.mark.parametrize("name", [*GAUGES, *LAYER_GAUGES])
def test_each_gauge_of_a_frame_is_its_own_column(name):
    log = Log(settings("question"), LAYERS, WATCHED, 1)
    log.append(np.arange(WIDTH)[None] * 1.0, histogram(0))
    log.append(np.arange(WIDTH)[None] * 1.0, histogram(0))
    record = log.record()
    assert np.array_equal(getattr(record, name)[0], getattr(record.frames[0], name))
    others = [other for other in (*GAUGES, *LAYER_GAUGES) if other != name]
    assert not any(np.array_equal(getattr(record, name), getattr(record, other)) for other in others)


def test_an_unknown_gauge_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Record has no attribute 'loss'"):
        _ = log_of(1).record().loss


def test_frames_are_counted_from_the_first_update():
    frames = log_of(5).record().frames
    assert len(frames) == 5
    assert [frames[0].step, frames[-1].step, frames[np.int64(1)].step] == [1, 5, 2]


def test_frames_are_sliced_like_a_list():
    frames = log_of(5).record().frames
    assert [frame.step for frame in frames[1:3]] == [2, 3]
    assert [frame.step for frame in frames[::-2]] == [5, 3, 1]
    assert frames[9:] == []
    assert [frame.step for frame in frames] == [1, 2, 3, 4, 5]


def test_a_frame_beyond_the_end_is_an_index_error():
    with pytest.raises(IndexError):
        _ = log_of(2).record().frames[2]


@pytest.mark.parametrize("step", [-1, 3])
def test_a_step_outside_the_run_is_refused(step):
    with pytest.raises(ValueError, match=rf"^step must be a whole number in \[0, 2\], got {step}$"):
        log_of(2).record().frame(step)


def test_frame_zero_is_the_start():
    assert log_of(2).record().start.step == 0


def test_the_epoch_is_updates_over_updates_per_epoch():
    assert [frame.epoch for frame in log_of(4, 4).record().frames] == [0.25, 0.5, 0.75, 1.0]


def test_a_record_taken_earlier_stays_as_it_was_while_the_log_grows():
    log = log_of(3)
    early = log.record()
    kept = early.table.copy(), early.histograms[:]
    for number in range(4, 400):
        log.append(row(number), histogram(number))
    log.change_knobs(400, Knobs(learning_rate=0.5))
    assert len(early) == 3
    assert len(early.schedule) == 1
    assert np.array_equal(early.table, kept[0])
    assert np.array_equal(early.histograms[:], kept[1])
    assert log.record().cost.tolist() == list(range(1, 400))
    assert (log.record().histograms[:, 0, 0] == np.arange(400)).all()


def test_a_gauge_measured_later_is_in_the_next_record_and_not_in_those_before():
    log = log_of(2)
    early = log.record()
    log.write_gauge("held_out_accuracy", 2, 0.75)
    log.write_gauge("held_out_accuracy", 1, 0.5)
    log.append(row(3), histogram(3))
    assert early.held_out_accuracy.tolist() == [1, 2]
    assert log.record().held_out_accuracy.tolist() == [0.5, 0.75, 3]


@pytest.mark.parametrize("array", ["table", "cost", "weight_norm", "watched_values"])
def test_a_record_cannot_be_written_to(array):
    with pytest.raises(ValueError, match="read-only"):
        getattr(log_of(3).record(), array)[0] = 0


@pytest.mark.parametrize("array", ["weight_norm", "histogram", "watched"])
def test_a_frame_cannot_be_written_to(array):
    with pytest.raises(ValueError, match="read-only"):
        getattr(log_of(3).record().frames[0], array)[0] = 0


def test_frames_and_records_are_frozen():
    record = log_of(1).record()
    for value in (record, record.frames[0]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.settings = None


def test_knobs_are_in_force_from_their_update_on():
    log = log_of(0)
    first, second = Knobs(learning_rate=0.1), Knobs(learning_rate=0.2)
    for step in range(1, 6):
        log.change_knobs(step, first if step < 4 else second)
        log.append(row(step), histogram(step))
    record = log.record()
    assert record.schedule == ((1, first), (4, second))
    assert [frame.knobs.learning_rate for frame in record.frames] == [0.1, 0.1, 0.1, 0.2, 0.2]


def test_a_change_that_is_taken_back_before_its_update_leaves_no_mark():
    log = log_of(0)
    start = log.settings.knobs
    log.change_knobs(3, Knobs(learning_rate=0.1))
    log.change_knobs(3, start)
    assert log.record().schedule == ((1, start),)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_cost_that_is_not_finite_is_found(value):
    log = log_of(2)
    log.append(row(value), histogram(0))
    log.append(row(4), histogram(0))
    record = log.record()
    assert record.first_nonfinite == 3
    assert [frame.nonfinite for frame in record.frames] == [False, False, True, False]
    assert repr(record).endswith(f": 4 updates, cost {format_number(value)} at update 3, last cost 4)")


def test_a_record_that_stayed_finite_says_nothing_of_nan():
    record = log_of(2).record()
    assert record.first_nonfinite is None
    assert repr(record).endswith("2 updates, last cost 2)")


def test_a_record_of_nothing_says_so():
    record = log_of(0).record()
    assert len(record) == len(record.frames) == len(record.cost) == 0
    assert repr(record).endswith("0 updates, nothing trained yet)")


def test_a_record_survives_pickling():
    record = log_of(3).record()
    again = pickle.loads(pickle.dumps(record))
    assert isinstance(again, Record)
    assert np.array_equal(again.table, record.table)
    assert again.schedule == record.schedule


@pytest.mark.parametrize("value", [3, None, "question", []])
def test_what_holds_no_record_is_refused_in_a_sentence(value, tmp_path):
    asks = (cnnlab.autopsy, lambda v: cnnlab.export_html(v, tmp_path / "x.html"),
            lambda v: cnnlab.export_script(v, tmp_path / "x.py"))  # fmt: skip
    for ask in asks:
        with pytest.raises(TypeError, match=r"^record must be a Record, or a Run or a Lab that has one, got"):
            ask(value)
    with pytest.raises(TypeError, match=r"^run must be a Run, got"):
        cnnlab.critical_learning_rate(value)


def test_a_run_stands_for_its_record(tmp_path):
    run = cnnlab.Run("question", channels=2, hidden=(4, 4), patch_size=13, patches=8)
    run.advance(3)
    for write in (cnnlab.export_html, cnnlab.export_script):
        write(run, tmp_path / "of_run")
        write(run.record, tmp_path / "of_record")
        assert (tmp_path / "of_run").read_bytes() == (tmp_path / "of_record").read_bytes()
