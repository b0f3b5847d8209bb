"""The growing tables behind a record, and what tells how many rows two records share."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.settings import Knobs, Settings
from cnnlab.records.frame import GAUGES, LAYER_GAUGES, FloatArray, IntArray, name_columns
from cnnlab.records.growing import GrowingArray
from cnnlab.records.histograms import EXPONENTS, Histograms
from cnnlab.records.record import Lineage, Record

ALL_ROWS = 2**62
"""Stands for all rows, present and to come, of the log that a record was taken of."""
MOST_ANCESTORS = 64
"""Most logs of a lineage that are remembered; of one that is forgotten two records share less, as far as is known."""


class Log:
    """The growing tables behind a record. Rows are only ever added, so a Record taken earlier stays as it was."""

    def __init__(
        self,
        settings: Settings,
        layers: tuple[str, ...],
        watched: tuple[str, ...],
        updates_per_epoch: int,
        kernel_shape: tuple[int, ...] = (0, 1, 1),
    ) -> None:
        self.settings = settings
        self.layers = layers
        self.watched = watched
        self.updates_per_epoch = updates_per_epoch
        self.schedule: list[tuple[int, Knobs]] = [(1, settings.knobs)]
        self.shown = 0
        self.lineage: Lineage = ((object(), ALL_ROWS),)
        self.table = GrowingArray((len(name_columns(GAUGES, LAYER_GAUGES, layers, watched)),), np.float64)
        self.kernels = GrowingArray(kernel_shape, np.float32)
        self.ends = GrowingArray.from_rows(np.zeros(1, np.int64))
        self.places = GrowingArray((), np.uint32)
        self.counts = GrowingArray((), np.int32)

    @property
    def rows(self) -> int:
        """How many rows there are, the start among them."""
        return len(self.table)

    def append(
        self, table: FloatArray, histograms: NDArray[np.int32], kernels: NDArray[np.float32] | None = None
    ) -> None:
        """Add rows, one an update; the first row ever is the start."""
        flat = histograms.reshape(-1)
        found = np.flatnonzero(flat)
        rows, places = np.divmod(found, len(flat) // len(table))
        shape = len(table), *self.kernels.numbers.shape[1:]
        first_kernels = np.zeros(shape, np.float32) if kernels is None else kernels.reshape(shape)
        self.append_packed(table, first_kernels, np.bincount(rows, minlength=len(table)), places, flat[found])

    def append_packed(
        self,
        table: FloatArray,
        kernels: NDArray[np.float32],
        lengths: IntArray,
        places: NDArray[Any],
        counts: NDArray[np.int32],
    ) -> None:
        """Add rows whose histograms are without their zeros: so many numbers a row, their places and counts."""
        self.kernels.append(kernels)
        self.places.append(places)
        self.counts.append(counts)
        self.ends.append(self.ends.view()[-1] + np.cumsum(lengths))
        self.table.append(table)

    def until(self, step: int) -> Log:
        """A log of its own that ends after update `step`."""
        return Log.from_record(self.record().until(step))

    @classmethod
    def from_record(cls, record: Record) -> Log:
        """A log of its own that begins with all of a record."""
        log = cls(record.settings, record.layers, record.watched, record.updates_per_epoch)
        log.lineage = extend_lineage(record.lineage, len(record.table))
        log.schedule = list(record.schedule)
        kept = record.histograms
        log.table, log.kernels = GrowingArray.from_rows(record.table), GrowingArray.from_rows(record.kernels)
        log.ends = GrowingArray.from_rows(kept.ends)
        log.places, log.counts = (GrowingArray.from_rows(part[: kept.ends[-1]]) for part in (kept.places, kept.counts))
        return log

    def last(self, gauge: str) -> float:
        """A gauge in the last row."""
        return float(self.table.view()[-1, GAUGES.index(gauge)])

    def write_gauge(self, gauge: str, step: int, value: float) -> None:
        """Write down a gauge that is not measured at every update; in a copy if a Record has shown this row."""
        if step < self.shown:
            self.table = GrowingArray.from_rows(self.table.view())
            self.lineage = extend_lineage(self.lineage, step)
            self.shown = 0
        self.table.numbers[step, GAUGES.index(gauge)] = value

    def change_knobs(self, step: int, knobs: Knobs) -> None:
        """Note that knobs are in force from an update on."""
        if step == 1:
            self.settings = self.settings.replace(**dataclasses.asdict(knobs))
        if self.schedule[-1][0] == step:
            self.schedule.pop()
        if not self.schedule or (self.schedule[-1][1] is not knobs and self.schedule[-1][1] != knobs):
            self.schedule.append((step, knobs))

    def record(self) -> Record:
        """Everything so far, as read-only views."""
        rows = self.shown = self.rows
        return Record(
            self.settings,
            self.layers,
            self.watched,
            tuple(self.schedule),
            self.updates_per_epoch,
            self.table.view(),
            Histograms(
                self.ends.view(),
                self.places.view(),
                self.counts.view(),
                (len(self.layers), EXPONENTS[self.settings.precision].count),
            ),
            self.kernels.view(0, rows),
            lineage=self.lineage,
        )


def extend_lineage(lineage: Lineage, rows: int) -> Lineage:
    """The lineage of a log that shares so many rows with the log of another, and goes its own way from there."""
    shared = tuple((log, min(known, rows)) for log, known in lineage if rows)
    return (*shared[-MOST_ANCESTORS:], (object(), ALL_ROWS))


def count_shared_rows(lineage: Lineage, other: Lineage) -> int:
    """How many of their first rows two records surely have in common, without a look at their numbers."""
    known = dict(other)
    return max((min(rows, known[log]) for log, rows in lineage if log in known), default=0)
