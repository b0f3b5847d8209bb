"""The growing tables behind a record, and what tells how many rows two records share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.settings import Knobs, Settings
from cnnlab.records.frame import GAUGES, LAYER_GAUGES, FloatArray, IntArray, name_columns
from cnnlab.records.growing import GrowingArray
from cnnlab.records.histograms import Histograms, find_shapes
from cnnlab.records.record import Lineage, Record

ALL_ROWS = 2**62
"""Stands for all rows, present and to come, of the log that a record was taken of."""
NOTHING: NDArray[np.int32] = np.zeros(0, np.int32)
NO_SIGNALS: Mapping[int, NDArray[np.int32]] = {}
Packed = tuple[IntArray, NDArray[Any], NDArray[np.int32]]
"""Histograms without their zeros: how many numbers each update has, their places, and their counts."""
MOST_ANCESTORS = 64
"""Most logs of a lineage that are remembered; of one that is forgotten two records share less, as far as is known."""


def pack(histograms: NDArray[np.int32]) -> Packed:
    """Histograms (updates, ..) without their zeros."""
    flat = histograms.reshape(-1)
    found = flat.nonzero()[0]
    if len(histograms) == 1:  # as at each step of a run that is asked for each frame
        return np.array([len(found)]), found, flat[found]
    rows, places = np.divmod(found, len(flat) // len(histograms))
    return np.bincount(rows, minlength=len(histograms)), places, flat[found]


def pack_some(signals: Mapping[int, NDArray[np.int32]], rows: int) -> Packed:
    """The histograms of some of so many rows, without their zeros; nothing is counted in the others."""
    lengths, places, counts = np.zeros(rows, np.int64), [NOTHING], [NOTHING]
    for row in sorted(signals):
        numbers, found, counted = pack(signals[row][None])
        lengths[row] = numbers[0]
        places.append(found)
        counts.append(counted)
    return (lengths, np.concatenate(places), np.concatenate(counts)) if signals else (lengths, NOTHING, NOTHING)


class GrowingHistograms:
    """The histograms of each update, kept without their zeros."""

    def __init__(self, shape_of_one: tuple[int, int]) -> None:
        self.shape_of_one = shape_of_one
        self.ends = GrowingArray.from_rows(np.zeros(1, np.int64))
        self.places = GrowingArray((), np.uint32)
        self.counts = GrowingArray((), np.int32)

    @classmethod
    def from_kept(cls, kept: Histograms) -> GrowingHistograms:
        """Ones of their own that begin with these."""
        growing = cls(kept.shape_of_one)
        growing.ends = GrowingArray.from_rows(kept.ends)
        parts = (kept.places, kept.counts)
        growing.places, growing.counts = (GrowingArray.from_rows(part[: kept.ends[-1]]) for part in parts)
        return growing

    def append(self, lengths: IntArray, places: NDArray[Any], counts: NDArray[np.int32]) -> None:
        """Add updates: so many numbers each, their places and counts."""
        if len(places):
            self.places.append(places)
            self.counts.append(counts)
        self.ends.append(self.ends.view()[-1] + np.cumsum(lengths))

    def view(self) -> Histograms:
        """All of them, read-only."""
        return Histograms(self.ends.view(), self.places.view(), self.counts.view(), self.shape_of_one)


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
        weights, signals = find_shapes(settings.precision, len(layers))
        self.histograms, self.signals = GrowingHistograms(weights), GrowingHistograms(signals)

    @property
    def rows(self) -> int:
        """How many rows there are, the start among them."""
        return len(self.table)

    def append(
        self,
        table: FloatArray,
        histograms: NDArray[np.int32],
        kernels: NDArray[np.float32] | None = None,
        signals: Mapping[int, NDArray[np.int32]] = NO_SIGNALS,
    ) -> None:
        """Add rows, one an update; the first row ever is the start. `signals` are the histograms of those by row."""
        shape = len(table), *self.kernels.numbers.shape[1:]
        first_kernels = np.zeros(shape, np.float32) if kernels is None else kernels.reshape(shape)
        self.append_packed(table, first_kernels, pack(histograms), pack_some(signals, len(table)))

    def append_packed(
        self, table: FloatArray, kernels: NDArray[np.float32], histograms: Packed, signals: Packed
    ) -> None:
        """Add rows whose histograms are without their zeros."""
        self.kernels.append(kernels)
        self.histograms.append(*histograms)
        self.signals.append(*signals)
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
        log.table, log.kernels = GrowingArray.from_rows(record.table), GrowingArray.from_rows(record.kernels)
        log.histograms = GrowingHistograms.from_kept(record.histograms)
        log.signals = GrowingHistograms.from_kept(record.signal_histograms)
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
            self.histograms.view(),
            self.kernels.view(0, rows),
            self.signals.view(),
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
