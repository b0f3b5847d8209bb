"""Colours can be told apart and seen on both grounds, and a figure for a dark ground has no light one left."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from colour_vision import SIMULATED, find_least_difference, measure_contrast, measure_difference
from handmade import record_of

import cnnlab
from cnnlab.plots.colours import (
    BRANCH_COLOURS,
    CELLS,
    DARK,
    FAINT,
    GROUND,
    INK,
    LABEL_COLOURS,
    LANE,
    LATE,
    NOT_YET,
    NOTE,
    ORANGE,
    PALETTE,
    PAPER,
    RED,
    SOON,
    colour_text,
    recolour,
)
from cnnlab.plots.dashboard import draw_dashboard
from cnnlab.plots.map import draw_map
from cnnlab.plots.remedies import Lane, draw_remedies
from cnnlab.plots.seeds import draw_seeds
from cnnlab.records.map import DIVERGED, Map

JUPYTER_DARK, CODE_DARK = "#111111", "#1E1E1E"
"""Behind cells in JupyterLab's dark theme and in VS Code's."""
CURVES = (*PALETTE, *BRANCH_COLOURS, *LABEL_COLOURS.values(), INK, FAINT, ORANGE, RED)
WRITTEN = (*map(colour_text, (*PALETTE, *LABEL_COLOURS.values())), INK, ORANGE, RED, NOTE)
CALM = [colour for label, colour in CELLS.items() if label != DIVERGED]
APART = {
    "layers": (PALETTE, 12), "branches": (BRANCH_COLOURS, 12), "labels": (tuple(LABEL_COLOURS.values()), 12),
    "late cells": ((*CALM, LATE, NOT_YET), 9.9), "early cells": ((*CALM, SOON, NOT_YET), 9.9),
}  # fmt: skip
"""What is told apart by colour, and the least difference (CIEDE2000); Tol's muted scheme itself has 11.5."""
WILD = record_of([1e-30, 1.0, np.nan, np.inf, 0.0, 1e30], lost=(1,))
COLOUR = r"#[0-9A-Fa-f]{3,8}\b|rgba?\([^)]*\)"


def make_figure(name):
    axes = () if name == "seeds" else (("learning_rate", (0.1, 0.2)),)
    shown = Map.empty(cnnlab.settings(), axes, (0, 1), 3)
    shown.put(0, np.array([2.0, np.nan]), 2.0, 1.0, 0.75)
    lanes = [Lane("clip", "clip_threshold=1", np.array([1.0, np.inf]), "diverged at update 2", DIVERGED)]
    draw = {
        "dashboard": lambda: draw_dashboard(WILD, 20),
        "map": lambda: draw_map(shown),
        "seeds": lambda: draw_seeds(shown),
        "remedies": lambda: draw_remedies(lanes, 3),
    }
    return draw[name]()


def test_the_measure_of_differences_agrees_with_published_pairs():
    pairs = [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ]
    for one, other, wanted in pairs:
        assert measure_difference(np.array(one), np.array(other)) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("vision", SIMULATED)
@pytest.mark.parametrize("name", APART)
def test_colours_are_told_apart_by_every_kind_of_colour_vision_on_both_grounds(name, vision):
    colours, least = APART[name]
    assert find_least_difference(list(colours), vision) >= least
    assert find_least_difference([DARK[colour] for colour in colours], vision) >= least


@pytest.mark.parametrize("colour", dict.fromkeys(CURVES))
def test_curves_and_marks_are_seen_on_both_grounds(colour):
    assert min(measure_contrast(colour, ground) for ground in (GROUND, PAPER)) >= 3
    grounds = (DARK[GROUND], DARK[PAPER], CODE_DARK)
    assert min(measure_contrast(DARK[colour], ground) for ground in grounds) >= 3


@pytest.mark.parametrize("colour", dict.fromkeys(WRITTEN))
def test_texts_are_read_on_both_grounds(colour):
    assert min(measure_contrast(colour, ground) for ground in (GROUND, PAPER)) >= 4.5
    grounds = (DARK[GROUND], DARK[PAPER], CODE_DARK)
    assert min(measure_contrast(DARK[colour], ground) for ground in grounds) >= 4.5


def test_marks_on_the_lane_of_nan_are_seen():
    assert measure_contrast(RED, LANE) >= 4.5
    assert measure_contrast(DARK[RED], DARK[LANE]) >= 4.5
    assert DARK[PAPER] == JUPYTER_DARK


@pytest.mark.parametrize("name", ["dashboard", "map", "seeds", "remedies"])
def test_every_colour_of_a_figure_is_in_the_table_and_none_is_left_on_a_dark_ground(name):
    light = make_figure(name).to_json()
    found = set(re.findall(COLOUR, light))
    assert found
    assert found <= set(DARK)
    left = set(re.findall(COLOUR, json.dumps(recolour(json.loads(light), DARK))))
    assert left == {DARK[colour] for colour in found}
    assert '"white"' not in light


def test_only_colours_change():
    figure = {"a": [1, None, INK, f"say {INK}"], "b": (f"<span style='color:{INK}'>x {INK}</span>",), "c": 2.0}
    dark = DARK[INK]
    changed = {"a": [1, None, dark, f"say {INK}"], "b": (f"<span style='color:{dark}'>x {INK}</span>",), "c": 2.0}
    assert recolour(figure, DARK) == changed
    values = np.arange(3)
    assert recolour(values, DARK) is values


def test_a_figure_as_plotly_has_it_is_recoloured_and_stays_as_it_was():
    figure = draw_dashboard(WILD, 20)
    dark = recolour(figure.to_plotly_json(), DARK)
    assert dark["layout"]["paper_bgcolor"] == DARK[PAPER]
    assert dark["data"][0]["line"]["color"] == DARK[FAINT]
    assert figure.layout.paper_bgcolor == PAPER
