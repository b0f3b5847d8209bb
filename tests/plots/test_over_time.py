"""Histograms over time are numbers that only grow at their end, and the picture is made of them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from handmade import record_of
from PIL import Image

from cnnlab.plots.arrangement import arrange_panels
from cnnlab.plots.colours import DARK, DARK_GROUND, colour_layer, read_colour
from cnnlab.plots.dashboard import draw_dashboard, refresh_dashboard
from cnnlab.plots.over_time import COLUMNS, LEAST_LOST, measure_bands
from cnnlab.plots.recorder import FigureRecorder


def noted(record, **options):
    recorder = FigureRecorder(trace.name for trace in draw_dashboard(record, 20).data)
    refresh_dashboard(recorder, record, (), 20, pictures=False, **options)
    return next(trace for trace in recorder.data if trace.name == "over time")


def picture(figure):
    source = next(trace for trace in figure.data if trace.name == "over time").source
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))


def test_bands_are_bytes_with_the_largest_share_of_each_layer_at_each_time_at_255():
    strengths, lost, every = measure_bands(record_of([1.0, 2.0]))
    assert strengths.dtype == lost.dtype == np.uint8
    assert strengths.shape[:2] == lost.shape == (3, 3)
    assert every == 1
    assert (strengths.max(axis=2) == 255).all()
    assert not lost.any()


def test_a_layer_of_which_few_weights_are_nan_is_red_enough_to_be_seen():
    lost = measure_bands(record_of([1.0], lost=(1,), lost_weights=1, weights=10_000))[1]
    assert lost.tolist() == [[0, 0, 0], [0, LEAST_LOST, 0]]


@pytest.mark.parametrize(("updates", "every"), [(0, 1), (119, 1), (120, 2), (239, 2), (240, 4), (500, 8)])
def test_a_column_stands_for_a_power_of_two_updates(updates, every):
    strengths, _, found = measure_bands(record_of(np.ones(updates)))
    assert found == every
    assert len(strengths) == -(-(updates + 1) // every) <= COLUMNS


@pytest.mark.parametrize("updates", [100, 118, 250, 299])
def test_numbers_of_earlier_columns_stay_as_the_run_grows(updates):
    before, after = (noted(record_of(np.ones(count), lost=(0,))) for count in (updates, updates + 1))
    assert before["every"] == after["every"]
    size = before["layers"] * (before["bins"] + 1)
    full = (before["times"] - 1) * size
    assert len(before["bands"]) == before["times"] * size
    assert after["bands"][:full].tolist() == before["bands"][:full].tolist()


def test_the_numbers_are_noted_time_by_time_bins_first_and_then_what_is_lost():
    record = record_of([1.0], lost=(2,))
    told, (strengths, lost, every) = noted(record), measure_bands(record)
    rows = told["bands"].reshape(told["times"], -1)
    assert told["bands"].dtype == np.uint8
    assert rows[1].tolist() == [*strengths[1].ravel().tolist(), *lost[1].tolist()]
    assert (told["every"], told["layers"], told["bins"]) == (every, *strengths.shape[1:])
    assert "source" not in told


def test_nothing_is_noted_of_a_hidden_panel():
    assert noted(record_of([1.0]), panels=arrange_panels(800, 1, ("cost",)).panels) == {}


def test_a_figure_without_new_pictures_keeps_the_one_it_has():
    figure = draw_dashboard(record_of([1.0]), 20)
    before = picture(figure)
    refresh_dashboard(figure, record_of(np.ones(9)), (), 20, pictures=False)
    assert picture(figure).tolist() == before.tolist()


def test_the_picture_is_made_of_the_same_numbers_for_either_ground():
    record = record_of([1.0], lost=(1,))
    strengths, _, _ = measure_bands(record)
    bins = strengths.shape[2]
    light, dark = (picture(draw_dashboard(record, 20, dark=dark)) for dark in (False, True))
    assert light.shape == dark.shape == (3 * bins, 2, 3)
    place = bins - 1 - int(strengths[0, 0].argmax())
    assert light[place, 0].tolist() == list(read_colour(colour_layer(0)))
    assert dark[place, 0].tolist() == list(read_colour(DARK[colour_layer(0)]))
    assert light[0, 0].tolist() == [255, 255, 255]
    assert dark[0, 0].tolist() == list(DARK_GROUND.paper)
