"""The colours of all figures in one table, each with its counterpart on a dark ground.

Curves and marks have a contrast of at least 3:1 to their ground and texts 4.5:1, on both; layers, branches and labels
are told apart by all kinds of colour vision (tests/plots/test_colours.py computes both).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cnnlab.plots.images import NONFINITE, Ground
from cnnlab.records.map import CONVERGED, DIVERGED, STALLED

PALETTE = ("#22187D", "#8A84A5", "#4F9986", "#014D11", "#686E08", "#789835", "#B24B5D", "#761946", "#8D419B")
"""Paul Tol's "muted" scheme, darkened and moved apart by a search. One a layer, everywhere."""
BRANCH_COLOURS = ("#222222", "#3492D8", "#A32A0F", "#1B7C57", "#3F063F", "#BC820B", "#505D89")
"""Okabe and Ito's (2008) colours, darkened and moved apart by a search, one a branch by its number; they repeat."""
INK, FAINT, ORANGE, RED = "#222222", "#868E97", "#B34E00", "#" + bytes(NONFINITE).hex().upper()
PAPER, GROUND, GRID, LANE = "#FFFFFF", "#F7F8FA", "#E6E9ED", "#FBE9ED"
"""Around plots, behind them, their grid, and the lane of NaN and inf."""
NOTE = "#555555"
"""Smaller print."""
LABEL_COLOURS = {CONVERGED: "#0072B2", STALLED: "#95853A", DIVERGED: "#9A3308"}
"""Label -> colour of its curves: blue, olive and dark orange."""
CELLS = {CONVERGED: "#0072B2", STALLED: "#E9E2C3", DIVERGED: "#C44E12"}
"""Label -> colour of a map's cell: blue, beige and orange differ in lightness, too."""
LATE, SOON = "#F3B48B", "#7A2600"
"""Colours of a run that diverged at its last update, light orange, and at its first, dark brown."""
NOT_YET = "#D5D9DF"
"""Colour of a cell that is not computed yet."""
BAND = "rgba(51,34,136,0.16)"
"""Between two quantiles."""
HEALTHY, HEALTHY_BACK = "rgba(27,124,87,0.14)", "rgba(179,78,0,0.12)"
"""Where a gauge is usually healthy, and the same of a gradient that comes back."""
TEXTS = {"#8A84A5": "#716C88", "#4F9986": "#3F7A6B", "#789835": "#60792A", "#95853A": "#7A6A1E"}
"""Colour -> a darker shade for texts, where it is too light for them."""

DARK: dict[str, str] = {
    PAPER: "#111111", GROUND: "#1B1D21", GRID: "#33373D", LANE: "#3A1820", INK: "#E6E6E6", FAINT: "#7C858F",
    ORANGE: "#FF9A57", RED: "#FF6B81", NOTE: "#B5B9BF", NOT_YET: "#3A3F46", BAND: "rgba(210,151,255,0.22)",
    HEALTHY: "rgba(115,250,180,0.15)", HEALTHY_BACK: "rgba(255,154,87,0.16)",
    **dict(zip(PALETTE, (
        "#D297FF", "#A6ECFD", "#D6F2D1", "#03A080", "#A29D1F", "#E0D17C", "#ED5775", "#FE90BF", "#A571CB",
    ), strict=True)),
    **dict(zip(BRANCH_COLOURS, (
        "#E6E6E6", "#4798DE", "#EC6814", "#73FAB4", "#C87BA0", "#FFB729", "#9DC6F8",
    ), strict=True)),
    "#0072B2": "#5AB0EE", "#95853A": "#E6DA9C", "#9A3308": "#E0662A",
    "#E9E2C3": "#F2EBCB", "#C44E12": "#E8753A", LATE: "#F0A070", SOON: "#B04A18",
}  # fmt: skip
"""Colour -> its counterpart on a dark ground."""
DARK |= {text: DARK[colour] for colour, text in TEXTS.items()}


def colour_layer(layer: int) -> str:
    """The colour of a layer by its place; they repeat after nine."""
    return PALETTE[layer % len(PALETTE)]


def colour_branch(number: int) -> str:
    """The colour of a branch; the first one is in ink."""
    return BRANCH_COLOURS[(number - 1) % len(BRANCH_COLOURS)]


def colour_text(colour: str) -> str:
    """The shade of a colour in which texts can be read."""
    return TEXTS.get(colour, colour)


def read_colour(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour such as #22187D."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


LIGHT_GROUND = Ground(read_colour(PAPER), (235, 235, 235), NONFINITE)
DARK_GROUND = Ground(read_colour(DARK[GROUND]), read_colour(DARK[GRID]), read_colour(DARK[RED]))
"""What pictures of bands are drawn on."""


def recolour(figure: Any, table: Mapping[str, str]) -> Any:
    """A figure's JSON with other colours: each that the table holds, alone or as the colour of a part of a text.

    `recolour(figure.to_plotly_json(), DARK)` is for a dark ground. Arrays of numbers, and pictures, stay as they are.
    """
    if isinstance(figure, str):
        return table.get(figure) or STYLE.sub(lambda found: f"color:{table.get(found[1], found[1])}", figure)
    if isinstance(figure, Mapping):
        return {name: recolour(value, table) for name, value in figure.items()}
    if isinstance(figure, (list, tuple)):
        return type(figure)(recolour(value, table) for value in figure)
    return figure


STYLE = re.compile(r"\bcolor:(#[0-9A-Fa-f]{6}\b|rgba?\([^)]*\))")
"""The colour of a part of a text."""
