"""Dashboards of many runs without a browser: each button is a call, each ends without thread, process or widget."""

import multiprocessing
import re
import threading

import ipywidgets
import numpy as np
import pytest

import cnnlab
from cnnlab import Run
from cnnlab.plots.colours import CELLS, DARK, LATE, NOT_YET, SOON
from cnnlab.plots.layout import LANES
from cnnlab.plots.map import VIEWS, colour_cells, draw_map, refresh_map
from cnnlab.plots.seeds import draw_seeds, find_quantiles
from cnnlab.records import map as maps
from cnnlab.sweeps import workers
from cnnlab.sweeps.sweep import planned

TINY = {"channels": 3, "hidden": (6, 6), "patch_size": 13, "patches": 10, "relu": "none", "steps": 5}
AXES = {"learning_rate": [1e-4, 1e-2, 1.0], "init_scale": [0.5, 1.0, 4.0]}


@pytest.fixture(autouse=True)
def in_a_thread(monkeypatch):
    """One core, so that no processes are made."""
    monkeypatch.setattr(workers, "count_cores", lambda: 1)


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
    atlas.plots.hear({"click": {"trace": 1, "x": 0.0, "y": 0.0}})  # the frame around the cell that was clicked
    assert atlas.lab is None
    atlas.plots.hear({"click": {"trace": 0, "x": 2.0, "y": 1.0}})
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


@pytest.fixture
def choices():
    """An atlas of a choice beside a range."""
    made = cnnlab.Atlas("question", **TINY, optimizer=["sgd", "adam", "rmsprop"], learning_rate=[1e-4, 1e-2, 1.0])
    yield made
    made.close()


def test_a_choice_s_axis_has_its_names_and_a_click_opens_the_run_of_one(choices):
    layout = choices.figure.layout
    assert layout.xaxis.ticktext == ("sgd", "adam", "rmsprop")
    assert layout.xaxis.title.text == "Optimiser"
    assert trace(choices, "map").text[2][1].startswith("<b>optimizer adam, learning_rate 1, seed 0</b>")
    choices.plots.hear({"click": {"trace": 0, "x": 1.0, "y": 2.0}})
    opened = choices.lab.settings
    assert (opened.optimizer, opened.learning_rate, opened.momentum) == ("adam", 1.0, 0.9)


def test_long_names_beside_the_map_stand_in_two_lines_and_short_ones_in_one():
    made = planned("question", 1, 5, {"init": ["question_2", "glorot_uniform"]})
    layout = draw_map(made).layout
    assert layout.xaxis.ticktext == ("question_2", "glorot_<br>uniform")


def test_a_zoom_keeps_a_choice_s_axis_and_refines_the_other(choices):
    choices.zoom(0.4, 1.2, 0, 1)
    assert choices.map.axes[0] == ("optimizer", ("sgd", "adam", "rmsprop"))
    assert choices.map.axes[1][1] == pytest.approx(tuple(np.geomspace(1e-4, 1e-2, 3)))


def test_a_zoom_into_choices_alone_is_refused_in_a_sentence_and_changes_nothing():
    made = cnnlab.Atlas("question", **TINY, optimizer=["sgd", "adam"], activation=["relu", "tanh"])
    made.plots.hear({"zoom": [-0.5, 0.5, -0.5, 0.5]})
    made.draw()
    assert "there is nothing between the choices of optimizer and activation" in made.words.value
    assert not made.outer
    assert not made.computing
    made.close()


def test_what_is_wrong_is_said_beside_the_bar(atlas):
    atlas._later(lambda: atlas.open(7, 7))
    atlas.draw()
    assert "the place on learning_rate must be a whole number in [0, 2], got 7" in atlas.words.value


@pytest.mark.parametrize("view", VIEWS)
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
    assert find_quantiles(costs).tolist() == [[1.0, 2.0], [2.0, np.inf], [3.0, np.inf]]


def test_where_a_quantile_is_nan_the_band_and_the_median_lie_in_the_lane_of_nan():
    shown = maps.Map.empty(cnnlab.settings(), (), tuple(range(4)), 3)
    for seed, cost in enumerate(([1.0, 2.0, 3.0], [1.0, np.nan], [1.0, np.nan], [1.0, 5.0, np.nan])):
        shown.put(seed, np.array(cost), 1.0, 1.0, 0.5)
    figure = draw_seeds(shown)
    low, high = figure.layout.yaxis2.range
    for name, lost in (("low", 0), ("median", 2), ("high", 2)):
        drawn = np.log10([each for trace in figure.data if trace.name == name for each in trace.y])
        assert len(drawn) == 3
        assert ((drawn - low) / (high - low) > 0.87).sum() == lost, name


def test_a_cost_of_zero_is_seen_and_is_the_least():
    shown = maps.Map.empty(cnnlab.settings(), (("learning_rate", (0.1, 0.2, 0.3)),), (0,), 2)
    for index, cost in enumerate(([1.0, -0.0], [1.0, 0.5], [1.0, np.nan])):
        shown.put(index, np.array(cost), 1.0, 0.1, 0.9)
    values, _ = colour_cells(shown, "final cost")
    assert values[0, 0] == values[0, 1] == np.log10(0.5)
    assert np.isnan(values[0, 2])
    assert ": converged, cost 0, " in shown.at(0, 0)
    figure = draw_map(shown)
    refresh_map(figure, shown, "final cost", (0,))
    marks = next(trace for trace in figure.data if trace.name == "zero")
    assert (marks.x, marks.y) == ((2,), (LANES["low"],))


def test_the_accuracy_of_a_cell_is_that_of_the_seeds_that_did_not_diverge():
    shown = maps.Map.empty(cnnlab.settings(), (("l1", (1.0, 2.0)), ("l2", (1.0, 2.0))), (0, 1), 2)
    for index in range(8):
        shown.put(index, np.array([1.0, np.nan if index in (1, 2, 3) else 1.0]), 1.0, 1.0, [0.5, 0, 0, 0][index % 4])
    values, _ = colour_cells(shown, "held-out accuracy")
    assert values[0, 0] == 0.5
    assert np.isnan(values[1, 0])


def test_the_key_of_a_map_has_the_colours_of_its_cells_on_a_light_ground_and_on_a_dark_one(atlas):
    for colour in (CELLS[maps.CONVERGED], CELLS[maps.STALLED], LATE, SOON, NOT_YET):
        assert f"background:light-dark({colour},{DARK[colour]})" in atlas.key.value


def test_a_view_without_a_number_can_still_be_clicked(atlas):
    for view in VIEWS:
        atlas.choice.value = view
        atlas.draw()
        assert all(value == 0 for row in trace(atlas, "map").z for value in row)
    assert "did not diverge" in atlas.key.value


def test_the_line_beside_show_speaks_of_seeds_only_where_a_cell_has_several():
    one, several = (cnnlab.Atlas("question", **TINY, **AXES, seeds=seeds) for seeds in (1, 3))
    for view in list(VIEWS)[1:]:
        one.choice.value = several.choice.value = view
        assert not re.search("seed|[Mm]edian|Mean|Share", one.key.value)
        assert "seeds" in several.key.value
    for board in (one, several):
        board.choice.value = "what happened"
        assert "not computed" in board.key.value
        assert "grey" not in board.key.value
        board.close()


def test_the_line_beside_show_speaks_of_single_runs_where_each_row_is_a_seed():
    atlas = cnnlab.Atlas("question", **TINY, learning_rate=[1e-4, 1.0], seeds=3)
    atlas.choice.value = "final cost"
    assert atlas.key.value.removeprefix("&ensp;") == "Of the runs that did not diverge; grey: none, or not computed"
    atlas.close()


def test_a_drawn_box_is_the_region_that_is_computed(atlas):
    asked = []
    atlas.zoom = lambda *places: asked.append(places)
    for box in ([0.5, 1.5], [0.9, 1.1]):
        atlas.plots.hear({"zoom": box * 2})
    assert asked == [pytest.approx((2 / 3, 4 / 3) * 2), pytest.approx((0.9 + 1 / 30, 1.1 - 1 / 30) * 2)]


def test_a_start_right_after_a_cancel_is_not_lost(atlas):
    atlas.start()
    atlas.cancel()
    atlas.start()
    assert atlas.wait(60)
    assert atlas.map.done.all()
    atlas.start()
    atlas.zoom(0, 1, 0, 1)
    assert atlas.wait(60)
    assert atlas.map.done.all()
    assert atlas.outer


def test_a_cancel_is_told_while_it_lasts_and_what_was_under_way_is_kept():
    fan = cnnlab.Fan("question", **{**TINY, "steps": 3000}, seeds=3)
    fan.start()
    while not fan.survey.computed:
        pass
    fan.cancel()
    fan.draw()
    if fan.computing:
        assert "ending what is under way" in fan.words.value
        assert fan.stop_button.disabled
    done = fan.survey.done
    assert fan.wait(60)
    assert fan.survey.done >= done
    assert "ending" not in fan.words.value
    fan.close()


def test_a_mistake_hides_no_progress_and_the_next_action_clears_it(atlas):
    atlas._later(atlas.back)
    atlas.draw()
    assert "0 of 9 runs" in atlas.words.value
    assert "this is the whole map already" in atlas.words.value
    atlas._later(lambda: atlas.open(0, 0))
    atlas.draw()
    assert atlas.words.value == "0 of 9 runs"


def test_a_closed_atlas_does_nothing(atlas):
    atlas.close()
    for ask in (atlas.start, atlas.back, lambda: atlas.open(0, 0), lambda: atlas.zoom(0, 1, 0, 1)):
        with pytest.raises(RuntimeError, match="this dashboard is closed"):
            ask()
    assert atlas.lab is None
    assert not atlas.outer


def test_the_seed_that_was_opened_is_marked():
    atlas = cnnlab.Atlas("question", **TINY, learning_rate=[1e-4, 1e-3], seeds=[4, 7, 9])
    atlas.open(1, 2)
    assert (trace(atlas, "chosen").x, trace(atlas, "chosen").y) == ((1,), (2,))
    assert any(note.text.endswith("opened: seed 9") for note in atlas.figure.layout.annotations if note.text)
    assert atlas.lab.record.settings.seed == 9
    atlas.close()


@pytest.mark.parametrize("place", [float("nan"), "a", None])
def test_a_zoom_to_no_place_is_refused_in_a_sentence(atlas, place):
    with pytest.raises(ValueError, match="the places on learning_rate must be two numbers"):
        atlas.zoom(place, 1, 0, 1)
    with pytest.raises(IndexError, match="the place on learning_rate must be a whole number"):
        atlas.open(place, 0)
    assert not atlas.outer


@pytest.mark.parametrize("remedies", [["l2"], {"l2": 0.1}, "l2"])
def test_remedies_that_are_none_are_refused_in_a_sentence(remedies):
    with pytest.raises(TypeError, match="remedies must be a dict of dicts"):
        cnnlab.Remedies("question", **TINY, remedies=remedies)


def test_a_long_remedy_stays_within_its_lane():
    changes = {"input_scaling": "standardised", "init": "he_normal", "init_scale": 1.0, "momentum": 0.5, "l2": 0.01}
    board = cnnlab.Remedies("question", **TINY, remedies={"A remedy with a name of many words, too many": changes})
    lines = board.figure.layout.annotations[0].text.split("<br>")
    assert len(lines) == 3
    assert all(len(re.sub("<[^>]*>", "", line)) <= 43 for line in lines)
    board.close()


@pytest.mark.parametrize("batch_size", [None, 3, 4])
def test_remedies_label_a_run_as_a_map_does_whatever_the_batches(batch_size):
    start = {**TINY, "steps": 13, "reduction": "sum", "batch_size": batch_size, "learning_rate": 1e-5}
    board = cnnlab.Remedies("question", **start, init_scale=0.3, remedies={"As posted": {}})
    board.start()
    board.wait(60)
    label = cnnlab.sweep("question", **start, init_scale=0.3, seeds=1).labels[0]
    assert board.verdicts["As posted"].startswith(label)
    board.close()


def test_a_fan_has_no_axis_and_an_atlas_has_one():
    with pytest.raises(ValueError, match="a fan is of seeds alone, got an axis of learning_rate"):
        cnnlab.Fan("question", learning_rate=[0.1, 0.2])
    with pytest.raises(ValueError, match="an atlas has one axis or two"):
        cnnlab.Atlas("question")


def test_remedies_are_runs_of_one_start_each_with_a_verdict():
    board = cnnlab.Remedies("question", **TINY)
    board.start()
    assert board.wait(60)
    assert len(board.records) == 12
    assert board.verdicts["As posted"].startswith("NaN or infinite at update")
    assert board.records["Gradient clipping"].settings.clip == "norm"
    for name, record in board.records.items():
        if name != "A warm-up":  # which no map has
            expected = cnnlab.sweep(record.settings, seeds=1, steps=5).labels[0]
            assert board.verdicts[name].startswith("NaN" if expected == "diverged" else expected)
    board.close()


def test_runs_that_train_are_read_by_the_thread_that_trains_them_alone(monkeypatch):
    """A run brings what waits on its device into its tables when its record is taken: two threads would mix them up."""
    board = cnnlab.Remedies("question", **TINY)
    readers, take = set(), Run.record.fget
    monkeypatch.setattr(Run, "record", property(lambda run: readers.add(threading.current_thread().name) or take(run)))
    board.start()
    assert board.wait(60)
    assert board.verdicts["As posted"].startswith("NaN or infinite at update")
    assert readers == {"cnnlab-board"}
    board.close()


def test_what_today_s_networks_have_is_tried_beside_the_posted_answer():
    board = cnnlab.Remedies("question", **TINY)
    todays = {name: board.remedies[name] for name in list(board.remedies)[-4:]}
    assert todays == {
        "Batch normalisation": {"normalization": "batch"},
        "Adam, at a rate that is usual for it": {"optimizer": "adam", "learning_rate": 1e-3},
        "Shortcuts": {"residual": "on", "padding": "same"},
        "A warm-up": {"schedule": "warm_up"},
    }
    *_, warm = board.survey.runs
    warm.advance(5, until="nonfinite")
    assert warm.record.knobs_at(1).learning_rate == 1e-4
    assert warm.record.knobs_at(2).learning_rate == 1e-2
    shown = " ".join(note.text or "" for note in board.figure.layout.annotations)
    assert "schedule warm_up" in shown
    assert "residual on, padding same" in shown
    board.close()


@pytest.mark.parametrize(
    ("start", "missing"),
    [
        ({"depth": 2}, "Shortcuts"),
        ({"batch_size": 3}, "Batch normalisation"),
        ({"residual": "on", "padding": "same"}, "Shortcuts"),
        ({"normalization": "batch"}, "Batch normalisation"),
    ],
    ids=str,
)
def test_a_remedy_that_a_network_cannot_have_or_has_already_is_no_lane(start, missing):
    board = cnnlab.Remedies("question", **TINY, **start)
    assert len(board.remedies) == 11
    assert missing not in board.remedies
    board.close()


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("wram_up", "schedule must be one of .*, got 'wram_up'; did you mean 'warm_up'"),
        (3, "schedule must be one of .*, got 3"),
        ("as_high_as_is_safe", "follows what is measured, and has no plan"),
    ],
)
def test_a_schedule_that_no_remedy_can_have_is_refused_in_a_sentence(schedule, said):
    with pytest.raises(ValueError, match=said):
        cnnlab.Remedies("question", **TINY, remedies={"Mine": {"schedule": schedule}})


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
