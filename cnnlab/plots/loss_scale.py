"""The plot of the loss scale of float16: powers of two over the updates, and the updates that were left out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.plots.colours import INK, RED
from cnnlab.plots.points import place_marks, thin_curve
from cnnlab.plots.traces import Trace, make_curve, make_marks
from cnnlab.records.record import Record

POINTS = 1000
"""Most points of the curve."""


def make_scale_traces() -> list[Trace]:
    """The empty traces of the plot."""
    line = make_curve("loss scale", "loss_scale", INK, 1.5, mode="lines+markers", marker={"size": 3})
    return [line, make_marks("left out", "loss_scale", RED)]


def draw_loss_scale(traces: dict[str, Any], record: Record) -> None:
    """The scale of each update, and a mark for each that was left out."""
    x, y = thin_curve(record.scale, POINTS)
    traces["loss scale"].update(x=x, y=y)
    traces["left out"].update(**place_marks(find_left_out(record)))


def find_left_out(record: Record) -> NDArray[np.float64]:
    """(updates,): inf where a scaled gradient overflowed, NaN where the cost itself was not finite, else the scale."""
    kinds = np.where(np.isfinite(record.cost), np.inf, np.nan)
    return np.where(record.left_out, kinds, record.scale)


def fit_binary_range(values: NDArray[np.float64], ticks: int = 7) -> dict[str, Any]:
    """Range (in powers of ten) and ticks at powers of two of a log axis: all values above 0, below its lanes."""
    powers = np.log2(values[np.isfinite(values) & (values > 0)])
    low, high = (math.floor(powers.min()), math.ceil(powers.max())) if len(powers) else (0, 16)
    low, high = (low, high) if low < high else (low - 1, high + 1)
    every, height = max(1, math.ceil((high - low) / ticks)), (high - low) / 0.8
    shown = range(math.ceil(low / every) * every, high + 1, every)
    return {
        "range": [math.log10(2) * (low - 0.07 * height), math.log10(2) * (low + 0.93 * height)],
        "tickvals": [2.0**power for power in shown],
        "ticktext": [f"2<sup>{power}</sup>" for power in shown],
    }
