"""The figure of remedies side by side: a small plot of the cost for each, with what became of it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cnnlab.plots.colours import FAINT, INK, LABEL_COLOURS, NOTE, RED, colour_text
from cnnlab.plots.cost_curves import ON_FIGURE, add_cost_plot, join_curves, make_figure
from cnnlab.plots.layout import LANES, find_note, fit_log_range

COLUMNS = 4
"""Remedies side by side."""
HEIGHT = 225
"""Height of a row of remedies in pixels at scale 1."""


@dataclass(frozen=True, eq=False)
class Lane:
    """One remedy and how the run with it fares."""

    name: str
    """What is changed, in plain words."""
    changes: str
    """The same as settings."""
    cost: NDArray[np.float64]
    """(updates,)."""
    verdict: str
    """What became of the run, in words."""
    label: str
    """The same as a label of `records.map`; another one while the run trains."""


def draw_remedies(lanes: Sequence[Lane], steps: int, *, scale: float = 1.0, width: int = 1060) -> go.Figure:
    """A small plot of the cost for each remedy; see `refresh_remedies`."""
    rows = math.ceil(len(lanes) / COLUMNS)
    figure = make_figure(scale, width, HEIGHT * rows)
    for place, lane in enumerate(lanes):
        row, column = divmod(place, COLUMNS)
        left, bottom = 0.04 + column * 0.245, 1 - (row + 1) / rows
        up = (bottom + 0.2 / rows, bottom + 0.72 / rows)
        curve, marks = add_cost_plot(figure, 2 * place + 2, (left, left + 0.205), up, steps)
        figure.layout[f"xaxis{2 * place + 2}"].title = None
        figure.add_scatter(
            name=f"cost {place}", mode="lines+markers", line={"width": 2, "color": INK}, marker={"size": 3}, **curve,
            hovertemplate="update %{x}: %{y:.3g}<extra></extra>",
        )  # fmt: skip
        marker = {"symbol": "x", "color": RED, "size": 6}
        figure.add_scatter(name=f"lost {place}", mode="markers", marker=marker, **marks, hoverinfo="skip")
        name = textwrap.shorten(lane.name, 36, placeholder="…")
        changes = "<br>".join(textwrap.wrap(lane.changes, 42, max_lines=2, placeholder="…"))
        words = f"<b>{name}</b><br><span style='color:{NOTE}'>{changes}</span>"
        for note, text, height in (("name", words, 0.99), ("verdict", "", 0.1)):
            y = bottom + height / rows
            figure.add_annotation(name=f"{note} {place}", x=left, y=y, text=text, **ON_FIGURE, yanchor="top")
    refresh_remedies(figure, lanes)
    return figure


def refresh_remedies(figure: Any, lanes: Sequence[Lane]) -> None:
    """Draw curves and verdicts as they are now; all plots have the same range of costs."""
    traces = {trace.name: trace for trace in figure.data}
    heights = fit_log_range(np.concatenate([lane.cost for lane in lanes]), ticks=5)
    with figure.batch_update():
        for place, lane in enumerate(lanes):
            x, y = join_curves([lane.cost])
            colour = LABEL_COLOURS.get(lane.label, FAINT)
            traces[f"cost {place}"].update(x=x, y=y, line_color=colour, marker_color=colour)
            lost = np.flatnonzero(~np.isfinite(lane.cost)) + 1
            traces[f"lost {place}"].update(x=lost.tolist(), y=[LANES["nan"]] * len(lost))
            figure.layout[f"yaxis{2 * place + 2}"].update(heights)
            ink = colour_text(colour) if lane.label in LABEL_COLOURS else NOTE
            words = f"<b><span style='color:{ink}'>{lane.verdict}</span></b>"
            find_note(figure, f"verdict {place}").text = words
