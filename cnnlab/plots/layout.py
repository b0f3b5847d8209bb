"""The frame of figures: sizes, axes, titles, and the lanes of what a log axis cannot show."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.plots.colours import GROUND, INK, LANE, PAPER
from cnnlab.records.histograms import Exponents

FONTS = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
HEIGHT = 384
"""Height of a figure in pixels at scale 1."""
LANES = {"nan": 0.965, "inf": 0.905, "low": 0.03}
"""Heights of the lanes within a plot: NaN, inf, and values that a log axis cannot show."""
LOG: dict[str, Any] = {"type": "log", "exponentformat": "power", "tick0": 0}


def make_frame(scale: float, width: int, height: float = HEIGHT) -> dict[str, Any]:
    """What all figures share."""
    return {
        "width": width, "height": round(height * scale),
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0, "autoexpand": False},
        "font": {"size": 11 * scale, "color": INK, "family": FONTS},
        "paper_bgcolor": PAPER, "plot_bgcolor": GROUND, "showlegend": False, "hovermode": "closest",
        "template": {},  # plotly's own would bring 7 kB, and colours that no table here holds
    }  # fmt: skip


def make_lane_axis(x: str, y: str) -> dict[str, Any]:
    """An axis from 0 to 1 over a plot, for the marks of what its own axis cannot show."""
    return {"overlaying": y, "anchor": x, "range": [0, 1], "visible": False, "fixedrange": True}


def make_lane_ground(x: str, y: str) -> dict[str, Any]:
    """The faint red ground of the lane of NaN and inf along the top of a plot."""
    return {
        "type": "rect", "xref": f"{x} domain", "yref": f"{y} domain", "x0": 0, "x1": 1, "y0": 0.87, "y1": 1,
        "fillcolor": LANE, "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def make_band(x: str, y: str, between: tuple[float, float], colour: str) -> dict[str, Any]:
    """A band across a plot between two heights."""
    return {
        "type": "rect", "xref": f"{x} domain", "yref": y, "x0": 0, "x1": 1, "y0": between[0], "y1": between[1],
        "fillcolor": colour, "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def find_note(figure: Any, name: str) -> Any:
    """The text of this name in a figure."""
    return next(note for note in figure.layout.annotations if note.name == name)


def fit_log_range(values: NDArray[np.float64], ticks: int = 7) -> dict[str, Any]:
    """Range (in powers of ten) and ticks of a log axis: all finite positive values, below its lanes.

    `ticks`: most steps that there is room for between the least and the largest of them.
    """
    shown = values[(values > 0) & (values < np.inf)]  # a copy, of which the least takes a fifth of the time
    if not len(shown):
        return {"range": [-1, 2], "dtick": 1}
    least, largest = shown.min(), shown.max()
    low, high = math.floor(math.log10(least) - 0.02), math.ceil(math.log10(largest) + 0.02)
    coarse = 1 if high - low <= 6 else 2 if high - low <= 14 else 5
    low, high = math.floor(low / coarse) * coarse, math.ceil(high / coarse) * coarse
    height = (high - low) / 0.8
    return {
        "range": [low - 0.07 * height, low + 0.93 * height],
        "dtick": max(1, coarse * math.ceil((high - low) / coarse / ticks)),
    }


def choose_update_ticks(last: int) -> dict[str, Any]:
    """The ticks of an axis of so many updates: none lies between two."""
    return {"tickmode": "linear" if last <= 6 else "auto", "dtick": 1}


def name_axis(axis: str) -> str:
    """An axis as layouts name it: `xaxis2` for `x2`."""
    return f"{axis[0]}axis{axis[1:]}"


def choose_powers(exponents: Exponents) -> tuple[int, int]:
    """The powers of two between which magnitudes are drawn: from small weights to where the precision overflows."""
    return (-14, 16) if exponents.bits == 5 else (-40, exponents.bias + 1)


def choose_power_ticks(first: int, last: int, most: int) -> tuple[list[float], list[str]]:
    """Where powers of ten lie on an axis of powers of two, about so many of them, and their labels."""
    digits = math.log10(2)
    every = next(step for step in (1, 2, 3, 5, 10, 15, 20, 50, 100, 200) if (last - first) * digits / step <= most)
    lowest, highest = math.ceil(first * digits / every), math.floor(last * digits / every)
    decades = [place * every for place in range(lowest, highest + 1)]
    return [decade / digits for decade in decades], [f"10<sup>{decade}</sup>" if decade else "1" for decade in decades]
