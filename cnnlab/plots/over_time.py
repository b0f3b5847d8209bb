"""The histograms of a run's weights, or of its signals, over time: as numbers that a page colours, and as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.plots.colours import DARK, DARK_GROUND, LIGHT_GROUND, colour_layer, read_colour
from cnnlab.plots.images import draw_bands
from cnnlab.plots.magnitudes import count_shares, fit_span, take_counts
from cnnlab.plots.points import choose_stretch
from cnnlab.records.record import Record

COLUMNS, BINS = 120, 22
"""Most columns, and bins a layer."""
LEAST_LOST = 64
"""Strength of the red of a layer of which a single weight is NaN or infinite: of 255, so that it is seen."""
Levels = NDArray[np.uint8]


def measure_bands(record: Record, kind: str = "weights") -> tuple[Levels, Levels, int]:
    """How strongly each place over time is coloured (times, layers, bins), how red each layer (times, layers), and how
    many updates a column stands for.

    From 0 to 255: the square root of the share of the numbers over the largest share at that time in that layer; the
    share of those that are NaN or infinite. A column shows the last update of its stretch, a power of two of them
    that begins with the start of the run: as the run grows only the last column changes, until the stretches double.
    """
    rows = len(record) + 1
    every = choose_stretch(rows, COLUMNS)
    updates = np.minimum(np.arange(every - 1, rows + every - 1, every), rows - 1)
    chosen = take_counts(record, updates, kind)
    span = None if kind == "weights" else fit_span(chosen, record.exponents)
    shares = count_shares(chosen, record.exponents, BINS, span)
    strengths = np.sqrt(shares / np.maximum(shares.max(axis=2, keepdims=True), 1e-12))
    lost = 255 * chosen[:, :, -1] / np.maximum(chosen.sum(axis=2), 1)
    red = np.where(lost > 0, np.maximum(lost, LEAST_LOST), 0)
    return np.rint(255 * strengths).astype(np.uint8), np.rint(red).astype(np.uint8), every


def note_over_time(traces: dict[str, Any], record: Record, kind: str = "weights") -> None:
    """The numbers in one row: of each time all bins of the first layer, of the second, .., then the layers' red."""
    strengths, lost, every = measure_bands(record, kind)
    times, layers, bins = strengths.shape
    bands = np.concatenate([strengths.reshape(times, layers * bins), lost], axis=1).ravel()
    traces["over time"].update(bands=bands, every=every, times=times, layers=layers, bins=bins)


def draw_over_time(traces: dict[str, Any], record: Record, dark: bool, kind: str = "weights") -> None:
    """The same as a picture with a band a layer, for a light or a dark ground."""
    strengths, lost, every = measure_bands(record, kind)
    times, layers, bins = strengths.shape
    names = [colour_layer(layer) for layer in range(layers)]
    colours = np.array([read_colour(DARK[name] if dark else name) for name in names])
    traces["over time"].update(
        source=draw_bands(strengths, lost, colours, DARK_GROUND if dark else LIGHT_GROUND),
        dx=every, x0=(every - 1) / 2, dy=1 / bins, y0=-0.5 + 0.5 / bins,
        meta=[times, layers * bins],
    )  # fmt: skip
