"""The frame of figures: sizes, axes, titles, and the lanes of what a log axis cannot show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.plots.colours import INK, RED, colour_layer
from cnnlab.plots.gauges import PLOTS, number_axes, number_lanes
from cnnlab.records.histograms import Exponents

FONTS = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
GRID = "#E6E9ED"
HEIGHT = 384
"""Height of a figure in pixels at scale 1."""
LANES = {"nan": 0.965, "inf": 0.905, "low": 0.03}
"""Heights of the lanes within a plot: NaN, inf, and values that a log axis cannot show."""
LOG: dict[str, Any] = {"type": "log", "exponentformat": "power", "tick0": 0}
KEY = "key"
"""The name of the texts to the right of titles, which a narrow figure has no room for."""
WIDTH_WITH_KEYS = 560
"""Width of the dashboard in pixels at scale 1 from which on it has room for them."""
BETWEEN_TITLE_AND_PLOT = 0.008
"""As a share of the figure's height."""


def make_frame(scale: float, width: int, height: float = HEIGHT) -> dict[str, Any]:
    """What all figures share."""
    return {
        "width": width, "height": round(height * scale),
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0, "autoexpand": False},
        "font": {"size": 11 * scale, "color": INK, "family": FONTS},
        "paper_bgcolor": "white", "plot_bgcolor": "#F7F8FA", "showlegend": False, "hovermode": "closest",
    }  # fmt: skip


def make_lane_axis(x: str, y: str) -> dict[str, Any]:
    """An axis from 0 to 1 over a plot, for the marks of what its own axis cannot show."""
    return {"overlaying": y, "anchor": x, "range": [0, 1], "visible": False, "fixedrange": True}


def make_lane_ground(x: str, y: str) -> dict[str, Any]:
    """The faint red ground of the lane of NaN and inf along the top of a plot."""
    return {
        "type": "rect", "xref": f"{x} domain", "yref": f"{y} domain", "x0": 0, "x1": 1, "y0": 0.87, "y1": 1,
        "fillcolor": "#FBE9ED", "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def find_note(figure: Any, name: str) -> Any:
    """The text of this name in a figure."""
    return next(note for note in figure.layout.annotations if note.name == name)


def fit_log_range(values: NDArray[np.float64], ticks: int = 5) -> dict[str, Any]:
    """Range (in powers of ten) and about so many ticks of a log axis: all finite positive values, below its lanes."""
    shown = np.isfinite(values) & (values > 0)
    if not shown.any():
        return {"range": [-1, 2], "dtick": 1}
    least, largest = values.min(where=shown, initial=np.inf), values.max(where=shown, initial=0)
    low, high = math.floor(math.log10(least) - 0.02), math.ceil(math.log10(largest) + 0.02)
    coarse = 1 if high - low <= 6 else 2 if high - low <= 14 else 5
    low, high = math.floor(low / coarse) * coarse, math.ceil(high / coarse) * coarse
    height = (high - low) / 0.8
    return {
        "range": [low - 0.07 * height, low + 0.93 * height],
        "dtick": max(1, coarse * round((high - low) / coarse / ticks)),
    }


def choose_update_ticks(last: int) -> dict[str, Any]:
    """The ticks of an axis of so many updates: none lies between two."""
    return {"tickmode": "linear" if last <= 6 else "auto", "dtick": 1}


# The dashboard.


def make_layout(layers: Sequence[str], scale: float, width: int) -> dict[str, Any]:
    """Axes, titles and type; nothing that changes while a run trains but the ranges."""
    lowest = min(0.0, *(plot.box[2] - 0.07 for plot in PLOTS.values()))
    axes, lanes = number_axes(), number_lanes()
    built = {
        **make_frame(scale, width, HEIGHT * (1 - lowest)), "uirevision": "kept", "dragmode": "zoom",
        "annotations": make_titles(scale, lowest),
        "shapes": [make_lane_ground(*axes[name]) for name, plot in PLOTS.items() if plot.log and plot.ground],
    }  # fmt: skip
    plain = {
        "showline": False, "zeroline": False, "gridcolor": GRID, "automargin": False, "nticks": 6,
        "ticklabeloverflow": "allow",  # to hide some, plotly measures each at every frame: 15 of 100 ms
        "tickfont": {"size": 10 * scale},
    }  # fmt: skip
    for name, plot in PLOTS.items():
        (x, y), (left, right, bottom, top) = axes[name], plot.box
        up = [raise_height(bottom, lowest), raise_height(top, lowest)]
        built[name_axis(x)] = {**plain, "domain": [left, right], "anchor": y}
        built[name_axis(y)] = {**plain, "domain": up, "anchor": x, **(LOG if plot.log else {})}
        if plot.log:
            built[name_axis(lanes[name])] = make_lane_axis(x, y)
    rows: dict[str, Any] = {"range": [len(layers) - 0.5, -0.5], "fixedrange": True, "showgrid": False}
    changes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "magnitudes": (
            {"fixedrange": True}, {**rows, "tickvals": list(range(len(layers))), "ticktext": label_layers(layers)}
        ),
        "over_time": ({}, {**rows, "showticklabels": False, "scaleanchor": False}),
        "accuracy": ({}, {"range": [-0.02, 1.04], "fixedrange": True, "tickvals": [0, 0.5, 1]}),
        "stability": ({"showticklabels": False}, {}),
    }  # fmt: skip
    for name, both in changes.items():
        for axis, change in zip(axes[name], both, strict=True):
            built[name_axis(axis)] |= change
    return built


def name_axis(axis: str) -> str:
    """An axis as layouts name it: `xaxis2` for `x2`."""
    return f"{axis[0]}axis{axis[1:]}"


def raise_height(height: float, lowest: float) -> float:
    """A height as a share of a figure that begins at `lowest`."""
    return (height - lowest) / (1 - lowest)


def make_titles(scale: float, lowest: float) -> list[dict[str, Any]]:
    """The title of each plot with its key, and the names of the lanes of the cost."""
    plain: dict[str, Any] = {"xref": "paper", "yref": "paper", "showarrow": False, "xanchor": "left"}
    found = []
    for plot in PLOTS.values():
        left, right, _, top = plot.box
        place = {**plain, "y": raise_height(top, lowest) + BETWEEN_TITLE_AND_PLOT / (1 - lowest), "yanchor": "bottom"}
        found.append({**place, "x": left, "text": f"<b>{plot.title}</b>", "font": {"size": 12 * scale}})
        if plot.key:
            font = {"size": 10 * scale}
            found.append({**place, "name": KEY, "x": right, "xanchor": "right", "text": plot.key, "font": font})
    _, right, bottom, top = PLOTS["cost"].box
    red = {"size": 9 * scale, "color": RED}
    for text in ("NaN", "inf"):
        height = raise_height(bottom + (top - bottom) * LANES[text.lower()], lowest)
        found.append({**plain, "x": right + 0.003, "y": height, "yanchor": "middle", "text": text, "font": red})
    return found


def resize_dashboard(figure: Any, width: int, scale: float) -> None:
    """Make the dashboard so many pixels wide, with keys beside its titles where there is room.

    Where there is none, the shares of the width that lie left of the plots are too narrow for 10 to a power of two
    digits: a margin adds what is missing.
    """
    roomy = width >= WIDTH_WITH_KEYS * scale
    with figure.batch_update():
        figure.layout.width = width
        figure.layout.margin.l = 0 if roomy else round(12 * scale)
        for note in figure.layout.annotations:
            if note.name == KEY:
                note.visible = roomy


def find_held_axes(layout: dict[str, Any], ranges: dict[str, dict[str, Any]]) -> frozenset[str]:
    """The axes of a layout that show another range than the one they were given: a user has zoomed."""
    return frozenset(
        name for name, given in ranges.items()
        if not layout[name].get("autorange") and (ends := layout[name].get("range")) is not None
        and not all(math.isclose(*pair, abs_tol=1e-6) for pair in zip(ends, given["range"], strict=True))
    )  # fmt: skip


def label_layers(layers: Sequence[str]) -> list[str]:
    """Layer names in their colours, short enough for the axis."""
    names = [name or "network" for name in layers]
    short = [name if len(name) <= 9 else "…" + name[-8:] for name in names]
    return [f"<span style='color:{colour_layer(place)}'><b>{name}</b></span>" for place, name in enumerate(short)]


def choose_powers(exponents: Exponents) -> tuple[int, int]:
    """The powers of two between which magnitudes are drawn: from small weights to where the precision overflows."""
    return (-14, 16) if exponents.bits == 5 else (-40, exponents.bias + 1)


def choose_power_ticks(first: int, last: int) -> tuple[list[float], list[str]]:
    """Where powers of ten lie on an axis of powers of two, at most seven of them, and their labels."""
    digits = math.log10(2)
    every = next(step for step in (1, 2, 3, 5, 10, 20, 50, 100) if (last - first) * digits / step <= 7)
    lowest, highest = math.ceil(first * digits / every), math.floor(last * digits / every)
    decades = [place * every for place in range(lowest, highest + 1)]
    return [decade / digits for decade in decades], [f"10<sup>{decade}</sup>" if decade else "1" for decade in decades]
