"""The figure of many seeds of one setting: all cost curves, their quantiles, and how likely a NaN is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cnnlab.plots import cost_curves
from cnnlab.plots.colours import BAND, GRID, INK, LABEL_COLOURS
from cnnlab.plots.layout import HEIGHT, LANES, choose_update_ticks, find_note
from cnnlab.records.map import CONVERGED, DIVERGED, STALLED, Map, wilson


def draw_seeds(shown: Map, *, scale: float = 1.0, width: int = 1060) -> go.Figure:
    """The cost curves of all seeds with a band of quantiles, and beside it when they ended; see `refresh_seeds`."""
    figure = cost_curves.make_figure(scale, width, HEIGHT)
    for name, x, y in (("title", 0.055, 0.955), ("odds", 0.7, 0.9)):
        figure.add_annotation(name=name, x=x, y=y, **cost_curves.ON_FIGURE, yanchor="middle", text="")
    curves, marks = cost_curves.add_cost_plot(figure, 2, (0.055, 0.62), (0.13, 0.9), shown.steps)
    band = {"mode": "lines", "line": {"width": 0}, **curves, "hoverinfo": "skip"}
    figure.add_scatter(name="low", **band)
    figure.add_scatter(name="high", **band, fill="tonexty", fillcolor=BAND)
    cost_curves.add_cost_curves(figure, curves, marks, scale)
    figure.add_scatter(
        name="median", mode="lines", line={"color": INK, "width": 2.5}, **curves,
        hovertemplate="median at update %{x}: %{y:.3g}<extra></extra>",
    )  # fmt: skip
    figure.add_bar(
        name="ends", marker={"color": LABEL_COLOURS[DIVERGED]}, xaxis="x4", yaxis="y4",
        hovertemplate="%{y} seeds at update %{x}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        xaxis4={
            "domain": [0.7, 0.995], "anchor": "y4", "range": [0.5, shown.steps + 0.5], "fixedrange": True,
            **choose_update_ticks(shown.steps), "tick0": 0, "gridcolor": GRID, "zeroline": False,
            "title": {"text": "First update that was NaN or infinite", "standoff": 4},
        },
        yaxis4={
            "domain": [0.13, 0.78], "anchor": "x4", "gridcolor": GRID, "zeroline": False, "fixedrange": True,
            "title": {"text": "Seeds", "standoff": 4},
        },
    )  # fmt: skip
    refresh_seeds(figure, shown)
    return figure


def refresh_seeds(figure: Any, shown: Map) -> None:
    """Draw all seeds that are computed so far into a figure of `draw_seeds` in one message."""
    traces = {trace.name: trace for trace in figure.data}
    with figure.batch_update():
        low, high = cost_curves.refresh_cost_curves(figure, shown, [(seed,) for seed in range(shown.shape[0])])
        steps = list(range(1, shown.steps + 1))
        lane = 10 ** min(low + LANES["nan"] * (high - low), 307.0)  # where a quantile is NaN or infinite
        for name, row in zip(("low", "median", "high"), find_quantiles(shown.cost[shown.done]), strict=True):
            drawn = [min(float(value), lane) if value > 0 else None for value in row]
            traces[name].update(x=steps[: len(drawn)], y=drawn)
        counts = np.bincount(shown.first_nonfinite[shown.diverged], minlength=shown.steps + 1)[1:]
        traces["ends"].update(x=steps, y=counts.tolist())
        most = max(int(counts.max()), 1)
        figure.layout.yaxis4.update(range=[0, most * 1.08], dtick=max(1, math.ceil(most / 5)))
        title = "<b>Cost of each seed</b>, the median, and the band of 10 % to 90 %"
        find_note(figure, "title").text, find_note(figure, "odds").text = title, tell_odds(shown)


def find_quantiles(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 10 %, 50 % and 90 % quantiles (3, updates) of costs (seeds, updates); NaN counts as more than any number."""
    if not len(costs):
        return np.full((3, 0), np.nan)
    known = np.sort(np.where(np.isnan(costs), np.inf, costs), axis=0)
    places = np.round(np.array([0.1, 0.5, 0.9]) * (len(known) - 1)).astype(int)
    return np.asarray(known[places])


def tell_odds(shown: Map) -> str:
    """How likely a NaN is, with the interval of Wilson, and what became of the other seeds."""
    count, hits = int(shown.done.sum()), int(shown.diverged.sum())
    if not count:
        return "<b>P(NaN)</b>: nothing computed yet"
    low, high = wilson(hits, count)
    others = [f"{(shown.labels == label).sum()} {label}" for label in (STALLED, CONVERGED)]
    first = f"<b>P(NaN) = {hits / count:.2f}</b>, 95 % interval {low:.2f} to {high:.2f}"
    return f"{first}<br>{hits} of {count} diverged, {', '.join(others)}"
