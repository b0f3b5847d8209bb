"""Dashboards of many runs without a browser: each button is a call, each ends without thread, process or widget."""

import multiprocessing
import threading

import ipywidgets
import numpy as np
import pytest

import cnnlab
from cnnlab import map_figures, maps
from cnnlab import survey as sweeping

TINY = {"channels": 3, "hidden": (6, 6), "patch_size": 13, "patches": 10, "relu": "none", "steps": 5}
AXES = {"learning_rate": [1e-4, 1e-2, 1.0], "init_scale": [0.5, 1.0, 4.0]}


@pytest.fixture(autouse=True)
def in_a_thread(monkeypatch):
    """One core, so that no processes are made."""
    monkeypatch.setattr(sweeping, "cores", lambda: 1)


@pytest.fixture
def atlas():
    made = cnnlab.Atlas("question", **TINY, **AXES)
    yield made
    made.close()


def trace(board, name):
    """A trace of a board's figure."""
    return next(trace for trace in board.figure.data if trace.name == name)


def test_nothing_is_computed_until_asked(atlas):
    assert not atlas.computing
    assert not atlas.map.done.any()
    assert atlas.button.description == "Start"


def test_a_map_is_computed_and_drawn(atlas):
    atlas.start()
    assert atlas.wait(60)
    assert atlas.map.done.all()
    drawn = np.array(trace(atlas, "map").z, dtype=float)
    assert ((drawn > 2) == atlas.map.diverged[..., 0].T).all()
    assert (drawn[atlas.map.labels[..., 0].T == "stalled"] == 1.5).all()
    assert "9 of 9 runs" in atlas.words.value


def test_a_cell_opens_as_a_run_that_fares_alike(atlas):
    atlas.start()
    atlas.wait(60)
    atlas.open(2, 2)
    atlas.lab.wait(60)
    assert atlas.lab.record.first_nonfinite == atlas.map.first_nonfinite[2, 2, 0]
    first = atlas.lab
    atlas.open(0, 0)
    atlas.lab.wait(60)
    assert atlas.lab is first
    assert len(atlas.lab.record) == 5
    assert trace(atlas, "chosen").x == (0,)


def test_a_click_in_the_figure_opens_the_cell(atlas):
    class Points:
        xs, ys = (2.0,), (1.0,)

    atlas.clicked(None, Points, None)
    assert atlas.lab.settings.learning_rate == 1.0
    assert atlas.lab.settings.init_scale == 1.0


def test_a_zoom_is_computed_finer_and_left_again(atlas):
    atlas.zoom(0, 1, 1, 2)
    assert atlas.wait(60)
    assert atlas.map.axes[0][1] == pytest.approx(tuple(np.geomspace(1e-4, 1e-2, 3)))
    assert atlas.map.done.all()
    atlas.back()
    assert atlas.map.axes[0][1] == (1e-4, 1e-2, 1.0)
    assert not atlas.map.done.any()
    with pytest.raises(ValueError, match="whole map already"):
        atlas.back()


def test_what_is_wrong_is_said_beside_the_bar(atlas):
    atlas.later(lambda: atlas.open(7, 7))
    atlas.draw()
    assert "the place on learning_rate must lie in [0, 2], got 7" in atlas.words.value


@pytest.mark.parametrize("view", map_figures.VIEWS)
def test_each_view_has_a_number_or_none_for_each_cell(atlas, view):
    atlas.start()
    atlas.wait(60)
    atlas.choice.value = view
    drawn = trace(atlas, "map").z
    assert np.shape(drawn) == (3, 3)
    assert all(value is None or np.isfinite(value) for row in drawn for value in row)
    assert any(value is not None for row in drawn for value in row)


def test_a_map_of_one_axis_has_its_seeds_upwards():
    atlas = cnnlab.Atlas("question", **TINY, learning_rate=[1e-4, 1.0], seeds=3)
    atlas.start()
    atlas.wait(60)
    assert np.shape(trace(atlas, "map").z) == (3, 2)
    atlas.open(1)
    atlas.close()


def test_a_cancelled_map_keeps_what_is_done_and_goes_on(atlas):
    atlas.start()
    atlas.cancel()
    atlas.wait(60)
    done = atlas.map.done.sum()
    atlas.start()
    atlas.wait(60)
    assert done < 9
    assert atlas.map.done.all()


def test_a_fan_shows_all_seeds_and_their_odds():
    fan = cnnlab.Fan("question", **TINY, learning_rate=1e-3, init_scale=0.5, seeds=6)
    fan.start()
    fan.wait(60)
    share, low, high = fan.odds
    assert share == fan.map.diverged.mean()
    assert (low, high) == maps.wilson(int(fan.map.diverged.sum()), 6)
    assert sum(trace(fan, "ends").y) == fan.map.diverged.sum()
    assert f"P(NaN) = {share:.2f}" in fan.figure.layout.annotations[1].text
    fan.close()


def test_a_single_cost_before_the_nan_is_a_point():
    fan = cnnlab.Fan("question", **TINY, learning_rate=1e6, init_scale=30.0, seeds=3)
    fan.start()
    assert fan.wait(60)
    assert (fan.map.first_nonfinite == 2).all()
    assert trace(fan, "lone").y == tuple(fan.map.cost[:, 0])
    fan.close()


def test_the_band_counts_nan_as_more_than_any_number():
    costs = np.array([[1.0, 2.0], [2.0, np.nan], [3.0, np.nan]])
    assert map_figures.quantiles(costs).tolist() == [[1.0, 2.0], [2.0, np.inf], [3.0, np.inf]]


def test_a_fan_has_no_axis_and_an_atlas_has_one():
    with pytest.raises(ValueError, match="a fan is of seeds alone, got an axis of learning_rate"):
        cnnlab.Fan("question", learning_rate=[0.1, 0.2])
    with pytest.raises(ValueError, match="an atlas has one axis or two"):
        cnnlab.Atlas("question")


def test_remedies_are_runs_of_one_start_each_with_a_verdict():
    board = cnnlab.Remedies("question", **TINY)
    board.start()
    assert board.wait(60)
    assert len(board.records) == 8
    assert board.verdicts["As posted"].startswith("NaN or infinite at update")
    assert board.records["Gradient clipping"].settings.clip == "norm"
    for name, record in board.records.items():
        expected = cnnlab.sweep(record.settings, seeds=1, steps=5).labels[0]
        assert board.verdicts[name].startswith("NaN" if expected == "diverged" else expected)
    board.close()


def test_a_closed_board_leaves_no_thread_process_or_widget():
    before = set(ipywidgets.Widget._instances) if hasattr(ipywidgets.Widget, "_instances") else None
    threads = set(threading.enumerate())
    boards = [cnnlab.Atlas("question", **TINY, **AXES), cnnlab.Fan("question", **TINY), cnnlab.Remedies(**TINY)]
    boards[0].open(0, 0)
    for board in boards:
        board.start()
        board.close()
        board.close()
        with pytest.raises(RuntimeError, match="this dashboard is closed"):
            board.start()
    assert set(threading.enumerate()) <= threads
    assert not multiprocessing.active_children()
    assert before is None or set(ipywidgets.Widget._instances) <= before
