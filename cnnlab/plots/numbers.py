"""The numbers of a plot as a table of comma-separated values: every update, nothing thinned."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable

import numpy as np

from cnnlab.plots.gauges import find_plot
from cnnlab.records.frame import FloatArray, is_measured
from cnnlab.records.record import Record
from cnnlab.records.signals import SIGNALS, choose_layers

Row = Iterable[object]

COLUMNS: dict[str, Callable[[Record], dict[str, FloatArray]]] = {
    "cost": lambda record: {"cost": record.cost},
    "accuracy": lambda record: {"training": record.accuracy, "held out": record.held_out_accuracy},
    "stability": lambda record: {
        "largest eigenvalue": record.column("sharpness")[1:],
        "learning rate": np.array([record.knobs_at(update).learning_rate for update in record.steps.tolist()]),
    },
    "loss_scale": lambda record: {"scale": record.scale, "skipped": record.skipped},
}  # fmt: skip
"""Plot -> its columns, (updates,) each. Of a plot with `values` a column is a layer; magnitudes have a table of their
own."""


def write_numbers(record: Record, plot: str, kind: str = "weights") -> str:
    """The numbers that a plot shows of a record, a line an update; NaN and inf as they are, nothing for not measured.

    Of magnitudes, a line a layer: how many numbers of a kind are 0, in [2^k, 2^(k+1)) for each k, and NaN or infinite.
    Of signals, mean, deviations and shares.
    """
    if plot == "signals":
        rows = list_signals(record)
    elif find_plot(plot).layers:
        rows = list_histograms(record, plot == "over_time", kind)
    else:
        rows = list_values(record, plot)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def list_values(record: Record, plot: str) -> Iterable[Row]:
    """Head and lines of the curves of a plot."""
    values = find_plot(plot).values
    if values is None:
        columns = COLUMNS[plot](record)
    else:
        taken = values(record)[1:]
        columns = {plot: taken} if taken.ndim == 1 else dict(zip(record.layers, taken.T, strict=True))
    yield ["update", *columns]
    for update, row in enumerate(zip(*columns.values(), strict=True), 1):
        yield [update, *(float(value) if is_measured(value) else "" for value in row)]


def list_histograms(record: Record, every: bool, kind: str) -> Iterable[Row]:
    """Head and lines of the histograms: of every update that was counted, or of the last of them."""
    powers = record.exponents.powers.tolist()
    yield ["update", "layer", "0", *(f"2^{power}" for power in powers[1:-1]), "NaN or inf"]
    updates = np.arange(len(record) + 1) if kind == "weights" else record.signal_histograms.counted
    for update in (updates if every else updates[-1:]).tolist():
        whole = record.histograms[update] if kind == "weights" else record.signal_histograms[update]
        counts = whole if kind == "weights" else choose_layers(whole, kind)
        for layer, row in zip(record.layers, counts.tolist(), strict=True):
            yield [update, layer, *row]


def list_signals(record: Record) -> Iterable[Row]:
    """Head and lines of the signals: a line a layer of each update at which they were measured."""
    yield ["update", "layer", *(name.replace("_", " ") for name in SIGNALS)]
    values = [record.column(name) for name in SIGNALS]
    for update in np.flatnonzero(is_measured(values[1]).any(axis=1)).tolist():
        for place, layer in enumerate(record.layers):
            row = [value[update, place] for value in values]
            yield [update, layer, *(float(value) if is_measured(value) else "" for value in row)]
