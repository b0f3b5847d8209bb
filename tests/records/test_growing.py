"""Rows that grow: the same numbers in memory and in a file, views that stay, and a disk that may be full."""

from __future__ import annotations

import errno
import os
import tempfile
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnnlab
from cnnlab.records import growing
from cnnlab.records.growing import GrowingArray
from cnnlab.records.log import Log, count_shared_rows

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "learning_rate": 1e-4}


@pytest.fixture
def in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have rows lie in a file from the first kilobyte on."""
    monkeypatch.setattr(growing, "MOST_IN_MEMORY", 1024)
    monkeypatch.setattr(growing, "STEP", 4096)


@given(st.lists(st.integers(0, 300), max_size=12), st.sampled_from([(), (3,), (0, 1, 1), (2, 3, 3)]), st.booleans())
def test_it_holds_what_was_added_and_a_view_stays_as_it_was(lengths, shape, in_file):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing, "MOST_IN_MEMORY", 1024 if in_file else 2**40)
        patch.setattr(growing, "STEP", 4096)
        array, expected = GrowingArray(shape, np.float64), np.empty((0, *shape))
        views: list[tuple[Any, Any]] = []
        for number, length in enumerate(lengths):
            rows = np.random.default_rng(number).standard_normal((length, *shape))
            array.append(rows)
            expected = np.concatenate([expected, rows])
            views.append((array.view(), expected))
        for view, kept in views:
            np.testing.assert_array_equal(view, kept)
            assert not view.flags.writeable


@pytest.mark.usefixtures("in_files")
def test_rows_in_a_file_leave_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = GrowingArray((4,), np.float64)
    array.append(np.ones((1000, 4)))
    assert array.file is not None
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("in_files")
def test_a_full_disk_leaves_the_rows_in_memory(monkeypatch):
    array = GrowingArray((4,), np.float64)
    array.append(np.ones((100, 4)))
    assert array.file is not None

    class Full:
        def __getattr__(self, name: str) -> Any:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    array.file = Full()
    array.append(np.full((1000, 4), 2.0))
    array.append(np.full((1000, 4), 3.0))
    np.testing.assert_array_equal(array.view()[:, 0], np.repeat([1.0, 2.0, 3.0], [100, 1000, 1000]))


@pytest.mark.usefixtures("in_files")
def test_a_run_whose_record_lies_in_files_is_the_same_run():
    run = cnnlab.Run("question", **SMALL)
    run.advance(60)
    early = run.record
    costs, kernels = early.cost.copy(), early.kernels.copy()
    run.note_sharpness(40, 2.0)
    twin = run.fork(30, momentum=0.5)
    run.rewind(50)
    run.advance(30)
    twin.advance(10)
    assert run.log.table.file is not None
    np.testing.assert_array_equal(early.cost, costs)
    np.testing.assert_array_equal(early.kernels, kernels)
    assert np.isnan(early.sharpness[39])
    assert run.record.sharpness[39] == 2.0
    assert run.record.cost[:60].tobytes() == costs.tobytes()
    np.testing.assert_array_equal(twin.record.cost[:30], costs[:30])


def test_a_hundred_thousand_updates_leave_most_of_their_numbers_out_of_memory():
    rows, width = 1000, 900
    array = GrowingArray((width,), np.float32)
    before = psutil.Process().memory_full_info().uss
    for number in range(100):
        array.append(np.full((rows, width), number, dtype=np.float32))
    grew = psutil.Process().memory_full_info().uss - before
    assert array.view().nbytes > 350e6
    assert grew < 60e6
    assert array.view()[50_500, 7] == 50


def test_records_know_how_many_rows_they_share():
    def shared(one: Any, other: Any) -> int:
        return min(count_shared_rows(one.lineage, other.lineage), len(one.table), len(other.table))

    run = cnnlab.Run("question", **SMALL)
    run.advance(8)
    first = run.record
    twin = run.fork(5)
    run.advance(2)
    assert shared(first, run.record) == 9
    assert shared(run.record, twin.record) == 6
    twin.advance(4)
    twin.rewind(3)
    twin.advance(9)
    assert shared(first, twin.record) == 4
    run.note_sharpness(4, 1.0)
    assert shared(first, run.record) == 4
    assert shared(first, cnnlab.Run("question", **SMALL).record) == 0


def test_a_lineage_stays_short_however_often_a_run_is_rewound():
    run = cnnlab.Run("question", **SMALL)
    for _ in range(100):
        run.advance(2)
        run.rewind(1)
    assert len(run.record.lineage) < 70
    assert isinstance(run.log, Log)
