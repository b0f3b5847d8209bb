"""The numbers of a plot as a table of comma-separated values: every update, nothing thinned."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable

import numpy as np

from cnnlab.plots.gauges import PLOTS
from cnnlab.records.frame import FloatArray, is_measured
from cnnlab.records.record import Record

Row = Iterable[object]

COLUMNS: dict[str, Callable[[Record], dict[str, FloatArray]]] = {
    "cost": lambda record: {"cost": record.cost},
    "accuracy": lambda record: {"training": record.accuracy, "held out": record.held_out_accuracy},
    "stability": lambda record: {
        "largest eigenvalue": record.column("sharpness")[1:],
        "learning rate": np.array([record.knobs_at(update).learning_rate for update in record.steps.tolist()]),
    },
}  # fmt: skip
"""Plot -> its columns, (updates,) each. Of a plot with `values` a column is a layer; magnitudes have a table of their
own."""


def write_numbers(record: Record, plot: str) -> str:
    """The numbers that a plot shows of a record, a line an update; NaN and inf as they are, nothing for not measured.

    Of magnitudes, a line a layer: how many weights are 0, in [2^k, 2^(k+1)) for each k, and NaN or infinite.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        list_histograms(record, plot == "over_time") if PLOTS[plot].layers else list_values(record, plot)
    )
    return text.getvalue()


def list_values(record: Record, plot: str) -> Iterable[Row]:
    """Head and lines of the curves of a plot."""
    values = PLOTS[plot].values
    if values is None:
        columns = COLUMNS[plot](record)
    else:
        taken = values(record)[1:]
        columns = {plot: taken} if taken.ndim == 1 else dict(zip(record.layers, taken.T, strict=True))
    yield ["update", *columns]
    for update, row in enumerate(zip(*columns.values(), strict=True), 1):
        yield [update, *(float(value) if is_measured(value) else "" for value in row)]


def list_histograms(record: Record, every: bool) -> Iterable[Row]:
    """Head and lines of the histograms: of every update, the start included, or of the last."""
    powers = record.exponents.powers.tolist()
    yield ["update", "layer", "0", *(f"2^{power}" for power in powers[1:-1]), "NaN or inf"]
    for update in range(0 if every else len(record), len(record) + 1):
        for layer, counts in zip(record.layers, record.histograms[update].tolist(), strict=True):
            yield [update, layer, *counts]
