"""Which points a plot draws of many values: thinned curves, lone points, and marks of what a log axis cannot show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.plots.layout import LANES
from cnnlab.records.frame import is_measured

SYMBOLS = {"nan": "x", "inf": "triangle-up", "low": "triangle-down"}
"""The marks on each lane."""
LAYER_POINTS = 160
"""Most points of a layer's curve, and most marks of one kind."""


def thin_curve(values: NDArray[np.float64], points: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Updates and values to draw: all of them, or the least and the largest of each of `points` / 2 stretches."""
    steps = np.arange(1, len(values) + 1, dtype=np.float32)
    usable = np.isfinite(values)
    if len(values) <= points:
        return steps, np.where(usable, values, np.nan)
    firsts = np.linspace(0, len(values), points // 2 + 1).astype(int)[:-1]
    low = np.minimum.reduceat(np.where(usable, values, np.inf), firsts)
    high = np.maximum.reduceat(np.where(usable, values, -np.inf), firsts)
    both = np.stack([low, high], axis=1).ravel()
    return np.repeat(steps[firsts], 2), np.where(np.isfinite(both), both, np.nan)


def find_lone_points(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The points of a curve through which no line goes, for neither neighbour can be drawn; on a log axis."""
    new = np.append(True, (x[1:] != x[:-1]) | (y[1:] != y[:-1]))[: len(x)]
    x, y = x[new], y[new]
    with np.errstate(invalid="ignore"):
        there = np.concatenate([[False], np.isfinite(y) & (y > 0), [False]])
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    return x[alone], y[alone]


def place_marks(values: NDArray[np.float64]) -> dict[str, Any]:
    """Marks on the lanes for each value (or stretch of values) that was measured and is NaN, inf, or 0 and less."""
    places = split_stretches(len(values), LAYER_POINTS)
    with np.errstate(invalid="ignore"):
        kinds = {"nan": np.isnan(values) & is_measured(values), "inf": np.isposinf(values), "low": values <= 0}
    found = [places[np.logical_or.reduceat(kind, places)] if len(values) else places for kind in kinds.values()]
    counts = [len(each) for each in found]
    return {
        "x": (np.concatenate(found) + 1).astype(np.float32),
        "y": np.repeat([LANES[kind] for kind in kinds], counts).astype(np.float32),
        "marker": {"symbol": [SYMBOLS[kind] for kind, count in zip(kinds, counts, strict=True) for _ in range(count)]},
    }


def split_stretches(count: int, most: int) -> NDArray[np.int64]:
    """The first index of each of at most `most` stretches of equal length."""
    return np.arange(0, count, max(1, -(-count // most)))
