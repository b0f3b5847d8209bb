"""Which points a plot draws of many values: thinned curves, lone points, and marks of what a log axis cannot show.

What is thinned goes by stretches of a power of two updates: as a run grows, what was drawn stays, and only the end of a
curve is new, until the stretches double. Largest triangle three buckets (Steinarsson 2013) on top of that is left out:
of two spikes in a bucket it keeps one (to half of the points of a run of 5,000 updates, a spike of 15 decades is lost).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.plots.layout import LANES
from cnnlab.records.frame import is_measured

SYMBOLS = {"nan": "x", "inf": "triangle-up", "low": "triangle-down"}
"""The marks on each lane."""
LAYER_POINTS = 256
"""Most points of a layer's curve, and most marks of one kind."""


def choose_stretch(count: int, most: int) -> int:
    """The least power of two whose stretches, at most so many, hold all values."""
    every = 1
    while -(-count // every) > most:
        every *= 2
    return every


def split_stretches(count: int, most: int) -> NDArray[np.int64]:
    """The first index of each of at most `most` stretches, each of the same power of two."""
    return np.arange(0, count, choose_stretch(count, most))


def find_first(found: NDArray[np.bool_], most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where `found` (updates, curves) is true first in each of at most `most` stretches: the curves and the updates."""
    if not found.any():  # which takes a tenth of the time
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    curves, updates = np.nonzero(found.T)
    stretches = curves * len(found) + updates // choose_stretch(len(found), most)
    first = np.append(True, stretches[1:] != stretches[:-1])[: len(stretches)]
    return curves[first], updates[first]


def thin_curve(values: NDArray[np.float64], points: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Updates and values to draw: all of them, or the least and the largest of each stretch where they lie."""
    usable = np.isfinite(values)
    if len(values) <= points:
        return np.arange(1, len(values) + 1, dtype=np.float32), np.where(usable, values, np.nan)
    every = choose_stretch(len(values), points // 2)
    rows = np.full((-(-len(values) // every), every), np.nan)
    rows.ravel()[: len(values)] = np.where(usable, values, np.nan)
    missing = np.isnan(rows)
    ends = [np.where(missing, np.inf, rows).argmin(axis=1), np.where(missing, -np.inf, rows).argmax(axis=1)]
    places = (np.sort(np.stack(ends, axis=1), axis=1) + every * np.arange(len(rows))[:, None]).ravel()
    return (places + 1).astype(np.float32), rows.ravel()[places]


def find_lone_points(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The points of a curve through which no line goes, for neither neighbour can be drawn; on a log axis."""
    new = np.append(True, (x[1:] != x[:-1]) | (y[1:] != y[:-1]))[: len(x)]
    x, y = x[new], y[new]
    with np.errstate(invalid="ignore"):
        alone = find_alone(np.isfinite(y) & (y > 0))
    return x[alone], y[alone]


def find_alone(there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which values along the last axis are there while neither neighbour is."""
    ends = [(0, 0)] * (there.ndim - 1) + [(1, 1)]
    around = np.pad(there, ends)
    return np.asarray(there & ~around[..., :-2] & ~around[..., 2:])


def place_marks(values: NDArray[np.float64]) -> dict[str, Any]:
    """Marks on the lanes where a value (or the first of a stretch) was measured and is NaN, inf, or 0 and less."""
    with np.errstate(invalid="ignore"):
        kinds = {"nan": np.isnan(values) & is_measured(values), "inf": np.isposinf(values), "low": values <= 0}
    return make_lane_marks({name: find_first(kind[:, None], LAYER_POINTS)[1] + 1 for name, kind in kinds.items()})


def make_lane_marks(places: Mapping[str, NDArray[np.int64]]) -> dict[str, Any]:
    """Marks on the lane of each kind, "nan", "inf" or "low", at some places across."""
    counts = [len(each) for each in places.values()]
    return {
        "x": np.concatenate(list(places.values())).astype(np.float32),
        "y": np.repeat([LANES[kind] for kind in places], counts).astype(np.float32),
        "marker": {"symbol": [SYMBOLS[kind] for kind, each in places.items() for _ in each]},
    }
