"""A Record as text: the question's tables for a terminal, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnlab.diagnosis.summary import state_line
from cnnlab.records.formats import format_fixed
from cnnlab.records.frame import is_measured
from cnnlab.records.record import Record

if TYPE_CHECKING:
    from cnnlab.diagnosis.autopsy import Autopsy

WATCHED_EPOCHS = 4
"""The table of watched weights goes as far as the question's own."""


def show_tables(record: Record) -> None:
    """Print the two tables of the question and the verdict."""
    # A pipe has no width of its own, and a table must not be cut to fit one.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    with console.capture() as said:  # printed below: where a pipe is closed, rich would end the program
        console.print(Text(repr(record.settings)), soft_wrap=True)
        if record.updates_per_epoch > 1:
            console.print(Text(f"An epoch is {record.updates_per_epoch} updates; each row shows its last one."))
        console.print(make_epoch_table(record))
        if record.watched:
            console.print(make_watched_table(record))
        console.print(Text(state_line(record)), soft_wrap=True)
    sys.stdout.writelines(said.get().splitlines(keepends=True))


def make_epoch_table(record: Record) -> Table:
    """A row an epoch: cost, accuracy, gradient norm and largest weight at its last update.

    With a loss scale that of its last update too, and how many updates have been left out so far.
    """
    gauges = {
        "cost": record.cost,
        "accuracy": record.accuracy,
        "gradient norm": record.total_gradient_norm,
        "largest weight": record.largest_weight.max(axis=1),
    }
    counts = {}
    if record.is_measured("scale").any():
        gauges["loss scale"], counts["left out"] = record.scale, np.cumsum(record.left_out)
    table = make_table("epoch", *gauges, *counts)
    for epoch, last in enumerate(range(record.updates_per_epoch - 1, len(record), record.updates_per_epoch), start=1):
        cells = [format_cell(gauge[last]) for gauge in gauges.values()]
        table.add_row(str(epoch), *cells, *(str(count[last]) for count in counts.values()))
    return table


def make_watched_table(record: Record) -> Table:
    """A row a watched weight: its value at the start and after each of the first epochs."""
    values = record.watched_values[:: record.updates_per_epoch][: WATCHED_EPOCHS + 1]
    table = make_table("weight", "initial", *map(str, range(1, len(values))))
    for name, row in zip(record.watched, values.T, strict=True):
        table.add_row(Text(name), *map(format_cell, row))
    return table


def make_table(first: str, *others: str) -> Table:
    """An empty table with a column of names and columns of numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def format_cell(value: float) -> Text:
    """A number for a table, red where it is not finite; a dash where it was not measured."""
    if not is_measured(value):
        return Text("-")
    return Text(format_fixed(value, 6, 1000), style="" if math.isfinite(value) else "bold red")


def write_json(record: Record, autopsy: Autopsy | None = None) -> None:
    """Print a record as one strict JSON object: an entry an update, and for watched weights one more for the start.

    An autopsy, if there is one, goes in as `explanation`, with all its fields. What was not measured is null.
    """
    values = {
        "settings": dataclasses.asdict(record.settings),
        "updates_per_epoch": record.updates_per_epoch,
        "cost": record.cost,
        "accuracy": record.accuracy,
        "first_nonfinite": record.first_nonfinite,
        "watched": dict(zip(record.watched, record.watched_values.T, strict=True)),
        "verdict": state_line(record),
    }
    if record.is_measured("scale").any():
        values |= {"scale": record.scale, "skipped": record.skipped}
    if autopsy is not None:
        values["explanation"] = dataclasses.asdict(autopsy)
    print(json.dumps(to_json(values), allow_nan=False))


def to_json(value: Any) -> Any:
    """The value as strict JSON can hold it: arrays as lists, what is not finite as "nan", "inf" or "-inf"."""
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, dict):
        return {name: to_json(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(part) for part in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return str(value) if is_measured(value) else None
