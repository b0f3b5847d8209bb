"""The plot of the cost along the sharpest direction: what was measured, the parabola, the present and the next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cnnlab.plots.colours import FAINT, GRID, INK, LABEL_COLOURS, ORANGE, RED
from cnnlab.plots.layout import make_frame
from cnnlab.records.frame import is_nonfinite
from cnnlab.records.map import CONVERGED

HEIGHT = 260
"""Pixels at scale 1."""
HEADROOM, FOOTROOM = 1.25, 0.08
"""What the axis of the cost holds above the higher of present and landing, and below the lowest, as shares."""
TOP = 0.97
"""Height of the crosses of costs that are NaN or infinite."""
NEARER = LABEL_COLOURS[CONVERGED]
"""Colour of a step that comes nearer to the minimum; one that goes farther away is red."""


@dataclass(frozen=True, eq=False)
class Cut:
    """A cut through the cost: places are distances from the minimum of the parabola."""

    places: NDArray[np.float64]
    costs: NDArray[np.float64]
    """Measured there; NaN and inf are what they are."""
    parabola: NDArray[np.float64]
    """What the eigenvalue predicts there."""
    present: tuple[float, float]
    """Place and cost of the present weights."""
    landing: tuple[float, float]
    """The same of where the next step lands."""

    @property
    def overshoots(self) -> bool:
        """Whether the step leads farther from the minimum."""
        return abs(self.landing[0]) > abs(self.present[0])


def draw_direction(cut: Cut | None, *, scale: float = 1.0, width: int = 700) -> go.Figure:
    """The plot as a figure of its own; without a cut its axes alone."""
    return go.Figure(describe_direction(cut, scale=scale, width=width))


def describe_direction(cut: Cut | None, *, scale: float = 1.0, width: int = 700) -> dict[str, Any]:
    """The figure's `data` and `layout` as plotly's JSON."""
    thin, thick = 1.5 * scale, 2 * scale
    traces = [
        make_line("parabola", "parabola by the eigenvalue", {"color": ORANGE, "width": thin, "dash": "dash"}),
        make_line("cost", "cost", {"color": INK, "width": thick}),
        make_dots("lost", "", {"color": RED, "size": 7 * scale, "symbol": "x"}),
        make_line("step", "the next step", {"color": FAINT, "width": thin, "dash": "dot"}),
        make_dots("present", "present weights", {"color": INK, "size": 10 * scale}),
        make_dots("landing", "after the next step", {"color": NEARER, "size": 11 * scale, "symbol": "diamond"}),
    ]
    traces[2] |= {"yaxis": "y2", "hovertemplate": "cost is NaN or infinite at %{x:.3g}<extra></extra>"}
    plain = {"gridcolor": GRID, "zeroline": False, "automargin": True, "fixedrange": True}
    middle = {"zeroline": True, "zerolinecolor": FAINT, "title": {"text": "Distance from the parabola's minimum"}}
    layout = {
        **make_frame(scale, width, HEIGHT),
        "margin": {"l": 60 * scale, "r": 12 * scale, "t": 8 * scale, "b": 40 * scale},
        "xaxis": {**plain, **middle},
        "yaxis": {**plain, "title": {"text": "Cost"}},
        "yaxis2": {"overlaying": "y", "anchor": "x", "range": [0, 1], "visible": False, "fixedrange": True},
    }
    if cut is not None:
        draw_cut({trace["name"]: trace for trace in traces}, layout, cut)
    return {"data": traces, "layout": layout}


def make_line(name: str, words: str, line: dict[str, Any]) -> dict[str, Any]:
    """An empty line that says what it is where the pointer rests."""
    return {**make_trace(name, words), "mode": "lines", "line": line}


def make_dots(name: str, words: str, marker: dict[str, Any]) -> dict[str, Any]:
    """Empty marks that do."""
    return {**make_trace(name, words), "mode": "markers", "marker": marker}


def make_trace(name: str, words: str) -> dict[str, Any]:
    """What lines and marks share."""
    hover = f"{words}: %{{y:.4g}} at %{{x:.3g}}<extra></extra>"
    return {"type": "scatter", "name": name, "x": [], "y": [], "hovertemplate": hover}


def draw_cut(traces: dict[str, Any], layout: dict[str, Any], cut: Cut) -> None:
    """Put a cut into the traces, and have the axes hold the present, the landing and what lies between."""
    low, high = find_heights(cut)
    finite = np.isfinite(cut.costs)
    lost = cut.places[is_nonfinite(cut.costs)]
    traces["parabola"].update(x=cut.places, y=cut.parabola)
    traces["cost"].update(x=cut.places, y=np.where(finite, cut.costs, np.nan))
    traces["lost"].update(x=lost, y=np.full(len(lost), TOP))
    points = [(place, height if np.isfinite(height) else high) for place, height in (cut.present, cut.landing)]
    traces["step"].update(x=np.array([x for x, _ in points]), y=np.array([y for _, y in points]))
    for name, (place, height) in zip(("present", "landing"), points, strict=True):
        traces[name].update(x=np.array([place]), y=np.array([min(height, high)]))
    traces["landing"]["marker"]["color"] = RED if cut.overshoots else NEARER
    far = max(abs(cut.places[0]), abs(cut.landing[0]) * 1.05) if len(cut.places) else 1.0
    layout["xaxis"]["range"] = [-far, far] if np.isfinite(far) and far > 0 else [-1, 1]
    layout["yaxis"]["range"] = [low, high]


def find_heights(cut: Cut) -> tuple[float, float]:
    """The ends of the axis of the cost: what lies between the two points, not how high the walls are beyond."""
    far = max(abs(cut.present[0]), abs(cut.landing[0]))
    near = np.abs(cut.places) <= far
    shown = np.concatenate([cut.costs[near], cut.parabola[near], [cut.present[1], cut.landing[1]]])
    shown = shown[np.isfinite(shown)]
    if not len(shown):
        return 0.0, 1.0
    least, most = float(shown.min()), float(min(shown.max(), 3 * max(height(cut.landing), height(cut.present))))
    span = max(most - least, 1e-12 * max(abs(most), 1.0))
    return least - FOOTROOM * span, least + HEADROOM * span


def height(point: tuple[float, float]) -> float:
    """The cost of a point above 0, or inf where it is not finite, which sets no end."""
    return abs(point[1]) if np.isfinite(point[1]) else np.inf
