"""What the pointer shows of a cell of a map is in the words of its legend and of its views."""

import numpy as np
import pytest

import cnnlab
from cnnlab.plots import map as map_plots
from cnnlab.plots.map import VIEWS, draw_map, tell_cells
from cnnlab.records.map import Map

RATES, SCALES = (0.1, 0.2), (1.0, 2.0)


def make_map(seeds, *axes):
    """A map on which a run whose number is odd has diverged at update 2, but for the last, which is not computed."""
    shown = Map.empty(cnnlab.settings(), axes, tuple(range(seeds)), 3)
    for index in range(shown.done.size - 1):
        shown.put(index, np.array([2.0, np.nan] if index % 2 else [2.0, 1.5, 1.0]), 2.0, 1.0, 0.75)
    return shown


@pytest.mark.parametrize("axes", [(("learning_rate", RATES),), (("learning_rate", RATES), ("init_scale", SCALES))])
def test_the_pointer_tells_of_one_seed_what_became_of_it_and_nothing_of_many(axes):
    texts = [text for row in tell_cells(make_map(1, *axes)) for text in row]
    assert "converged, cost 1, held-out accuracy 0.75" in texts[0]
    assert texts[-1].endswith("not computed yet")
    assert not any(
        word in text for text in texts for word in ("median", "mean)", "95 %", "between", "1 converged", "share")
    )


def test_the_pointer_tells_of_one_seed_at_which_update_it_diverged():
    shown = make_map(1, ("learning_rate", RATES), ("init_scale", SCALES))
    assert tell_cells(shown)[1][0] == "<b>learning_rate 0.1, init_scale 2, seed 0</b><br>diverged at update 2"


def test_the_pointer_tells_of_several_seeds_in_the_words_of_the_views():
    text = tell_cells(make_map(4, ("learning_rate", RATES), ("init_scale", SCALES)))[0][0]
    assert "2 converged, 0 stalled, 2 diverged" in text
    assert all(view in text for view in VIEWS if view != "what happened")
    assert "share that diverged 0.50, between 0.15 and 0.85 (95 %)" in text


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_text_of_a_cell_is_written_without_a_look_at_the_whole_map(seeds, monkeypatch):
    shown = make_map(seeds, ("learning_rate", RATES), ("init_scale", SCALES))
    monkeypatch.setattr(Map, "diverged", None)
    assert len(tell_cells(shown)) == 2


def test_of_more_cells_than_a_page_can_hold_the_pointer_shows_no_text(monkeypatch):
    shown = make_map(4, ("learning_rate", RATES), ("init_scale", SCALES))
    drawn = draw_map(shown).data[0]
    assert drawn.hoverinfo == "text"
    assert "converged" in drawn.text[0][0]
    monkeypatch.setattr(map_plots, "MOST_TOLD", 3)
    bare = draw_map(shown).data[0]
    assert bare.hoverinfo == "none"
    assert bare.text is None
    assert bare.z == drawn.z
