"""The cost curves of several runs in one plot, with a lane of NaN and inf along its top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cnnlab.plots.colours import GRID, INK, LABEL_COLOURS, RED
from cnnlab.plots.layout import (
    LANES,
    LOG,
    choose_update_ticks,
    fit_log_range,
    make_frame,
    make_lane_axis,
    make_lane_ground,
    name_axis,
)
from cnnlab.plots.points import find_lone_points
from cnnlab.records.map import CONVERGED, DIVERGED, STALLED, Map

ON_FIGURE = {"xref": "paper", "yref": "paper", "xanchor": "left", "showarrow": False, "align": "left"}
"""What all texts beside a plot share."""


def make_figure(scale: float, width: int, height: float) -> go.Figure:
    """A figure without plots; what the pointer shows is written from the left."""
    return go.Figure(layout={**make_frame(scale, width, height), "hoverlabel": {"align": "left"}})


def add_cost_plot(
    figure: go.Figure, axis: int, across: Sequence[float], up: Sequence[float], steps: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Add a plot of costs over updates on axes x2 and y2, say, its lane on y3; the axes of curves, and of marks."""
    x, y, lane = f"x{axis}", f"y{axis}", f"y{axis + 1}"
    figure.update_layout({
        name_axis(x): {
            "domain": list(across), "anchor": y, "range": [0.5, steps + 0.5], "fixedrange": True,
            **choose_update_ticks(steps), "tick0": 0, "title": {"text": "Update", "standoff": 4}, "gridcolor": GRID,
            "zeroline": False,
        },
        name_axis(y): {
            "domain": list(up), "anchor": x, **LOG, "gridcolor": GRID, "zeroline": False, "fixedrange": True,
            "tickfont": {"size": 10},
        },
        name_axis(lane): make_lane_axis(x, y),
    })  # fmt: skip
    figure.add_shape(make_lane_ground(x, y))
    return {"xaxis": x, "yaxis": y}, {"xaxis": x, "yaxis": lane}


def add_cost_curves(figure: go.Figure, curves: dict[str, str], marks: dict[str, str], scale: float) -> None:
    """Empty curves of costs, one trace for each label, points for lone costs, marks of what is NaN or infinite."""
    hover = {"hovertemplate": "update %{x}: cost %{y:.3g}<extra></extra>"}
    for label in (STALLED, CONVERGED, DIVERGED):
        line = {"color": LABEL_COLOURS[label], "width": 1.4}
        figure.add_scatter(name=label, mode="lines", line=line, opacity=0.75, **curves, **hover)
    figure.add_scatter(name="lone", mode="markers", marker={"size": 4}, **curves, **hover)
    for name, symbol, colour, size in (("zero", "triangle-down", INK, 6), ("lost", "x", RED, 7)):
        marker = {"symbol": symbol, "color": colour, "size": size}
        figure.add_scatter(name=name, mode="markers", marker=marker, **marks, hoverinfo="skip")
    figure.add_annotation(
        xref=f"{curves['xaxis']} domain", yref=f"{curves['yaxis']} domain", x=0.995, y=0.935, xanchor="right",
        yanchor="middle", showarrow=False, text="NaN, inf", font={"size": 9 * scale, "color": RED},
    )  # fmt: skip


def refresh_cost_curves(figure: Any, shown: Map, places: Sequence[tuple[int, ...]]) -> tuple[float, float]:
    """Draw the costs of some runs into the curves on x2 and y2; returns the range of y2, in powers of ten."""
    traces = {trace.name: trace for trace in figure.data}
    done = [place for place in places if shown.done[place]]
    for label in (CONVERGED, STALLED, DIVERGED):
        x, y = join_curves([shown.cost[place] for place in done if shown.labels[place] == label])
        traces[label].update(x=x, y=y)
    steps = np.arange(1, shown.steps + 1)
    alone = [(*find_lone_points(steps, shown.cost[place]), LABEL_COLOURS[shown.labels[place]]) for place in done]
    traces["lone"].update(
        x=[step for x, _, _ in alone for step in x.tolist()],
        y=[cost for _, y, _ in alone for cost in y.tolist()],
        marker={"color": [colour for x, _, colour in alone for _ in x]},
    )
    zero = np.unique([step for place in done for step in steps[shown.cost[place] <= 0].tolist()])
    traces["zero"].update(x=zero.tolist(), y=[LANES["low"]] * len(zero))
    lost = [int(shown.first_nonfinite[place]) for place in done if shown.diverged[place]]
    traces["lost"].update(x=lost, y=[LANES["nan"] - 0.06 * (rank % 3) / 2 for rank in range(len(lost))])
    heights = fit_log_range(np.array([shown.cost[place] for place in done]).ravel())
    figure.layout.yaxis2.update(heights)
    figure.layout.xaxis2.range = [0.5, shown.steps + 0.5]
    low, high = heights["range"]
    return low, high


def join_curves(rows: Sequence[NDArray[np.float64]]) -> tuple[list[float | None], list[float | None]]:
    """Several curves as one trace with gaps between them."""
    x: list[float | None] = []
    y: list[float | None] = []
    for row in rows:
        x += [*range(1, len(row) + 1), None]
        y += [float(value) if math.isfinite(value) and value > 0 else None for value in row]
        y.append(None)
    return x, y
