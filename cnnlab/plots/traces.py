"""The traces of the dashboard's plots: empty lines and marks, and the drawing of values and accuracies into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.plots.colours import PALETTE
from cnnlab.plots.gauges import find_plot, number_axes, number_lanes
from cnnlab.plots.points import LAYER_POINTS, find_alone, find_first, find_lone_points, split_stretches, thin_curve
from cnnlab.records.frame import FloatArray, is_nonfinite
from cnnlab.records.record import Record

Trace = dict[str, Any]
"""A trace as plotly's JSON."""


def choose_axes(plot: str, lane: bool = False) -> dict[str, str]:
    """The axes of a trace in a plot; with `lane`, its heights are those of the plot's lanes."""
    x, y = number_axes()[plot]
    return {"xaxis": x, "yaxis": number_lanes()[plot] if lane else y}


def make_curve(
    name: str, plot: str, colour: str, width: float = 1.3, dash: str | None = "solid", mode: str = "lines", **more: Any
) -> Trace:
    """An empty line in a plot."""
    line = {"color": colour, "width": width, **({"dash": dash} if dash else {})}
    return {"type": "scatter", "name": name, "mode": mode, "line": line, **choose_axes(plot), **more}


def make_marks(name: str, plot: str, colour: str, symbol: str = "x", size: float = 7) -> Trace:
    """Empty marks on a plot's lanes, or on its rows where it has no lanes."""
    marker = {"color": colour, "size": size, "symbol": symbol}
    axes = choose_axes(plot, lane=find_plot(plot).log)
    return {"type": "scatter", "name": name, "mode": "markers", "marker": marker, **axes}


def make_layer_marks(name: str, plot: str, lane: bool = False, symbol: str = "square", size: float = 4) -> Trace:
    """Empty marks in a plot whose colours are places in PALETTE.

    Numbers, for plotly reads a text for each of a thousand marks longer than all the rest of a figure takes.
    """
    last = len(PALETTE) - 1
    scale = [[place / last, colour] for place, colour in enumerate(PALETTE)]
    marker = {"size": size, "symbol": symbol, "colorscale": scale, "cmin": 0, "cmax": last, "showscale": False}
    return {"type": "scatter", "name": name, "mode": "markers", "marker": marker, **choose_axes(plot, lane)}


def enlarge_trace(trace: Trace, scale: float) -> None:
    """Have lines and marks as much thicker as the type is larger; marks of layers stay, for they lie side by side."""
    line, marker = trace.get("line", {}), trace.get("marker", {})
    if scale > 1 and "width" in line:
        line["width"] *= scale
    if scale > 1 and "size" in marker and "colorscale" not in marker:
        trace["marker"] = {**marker, "size": marker["size"] * scale}


def join(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Several arrays as one; an empty one of none."""
    return np.concatenate(parts or [np.empty(0)])


def draw_accuracy(traces: dict[str, Any], record: Record) -> None:
    """Accuracy on the batch, and on held-out patches where it was measured."""
    x, y = thin_curve(record.accuracy, LAYER_POINTS)
    traces["accuracy"].update(x=x, y=y)
    alone, _ = find_lone_points(x, y + 1)  # an accuracy of 0 has its place, too
    traces["lone accuracy"].update(x=alone, y=y[np.searchsorted(x, alone)])
    measured = np.flatnonzero(np.isfinite(record.held_out_accuracy))
    measured = np.union1d(measured[split_stretches(len(measured), LAYER_POINTS)], measured[-1:])
    values = record.held_out_accuracy[measured].astype(np.float32)
    traces["held out"].update(x=(measured + 1).astype(np.float32), y=values)


def draw_values(traces: dict[str, Any], plot: str, values: FloatArray, owners: Sequence[int] | None = None) -> None:
    """Values (updates, curves), each stretch of updates by its largest value; their marks in the lane above.

    `owners` are the places of the curves among the colours, if those are not in the order of the curves.
    """
    places = split_stretches(len(values), LAYER_POINTS)
    steps = (places + 1).astype(np.float32)
    usable = np.where(np.isfinite(values), values, -np.inf)
    largest = np.maximum.reduceat(usable, places, axis=0) if len(values) else usable
    drawn = np.ascontiguousarray(np.where(largest > 0, largest, np.nan).T)
    for curve, heights in enumerate(drawn):
        traces[f"{plot} {curve}"].update(x=steps, y=heights)
    curves = len(drawn)
    owner, at = np.nonzero(find_alone(np.isfinite(drawn)))
    lost, lost_at = find_first(is_nonfinite(values), LAYER_POINTS)
    zero, zero_at = find_first(values == 0, LAYER_POINTS)
    lanes = np.concatenate([0.98 - 0.11 * lost / curves, 0.015 + 0.04 * zero / curves]).astype(np.float32)
    marks = (np.append(lost, zero), np.append(lost_at, zero_at) + 1, lanes)
    colours = np.array(range(curves) if owners is None else owners, dtype=np.uint8) % len(PALETTE)
    for name, (of, x, y) in ((f"{plot} marks", marks), (f"lone {plot}", (owner, steps[at], drawn[owner, at]))):
        traces[name].update(x=x.astype(np.float32), y=y, marker={"color": colours[of]})
