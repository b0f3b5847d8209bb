"""A record of many layers as one of a few groups of neighbouring layers, for figures that have room for a dozen.

Nothing is averaged away: a group shows its largest ratio and every NaN.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.records.frame import GAUGES, LAYER_GAUGES, NOT_MEASURED, FloatArray, is_measured
from cnnlab.records.histograms import Histograms, read_only
from cnnlab.records.record import Record

MOST = 12
"""Most layers, or groups of them, that a figure shows."""


@dataclass(frozen=True, eq=False)
class GroupedHistograms(Histograms):
    """Histograms whose neighbouring layers are added up when they are asked for."""

    firsts: NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(1, np.int64))
    """The first layer of each group."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Updates + 1, groups, classes."""
        return len(self), len(self.firsts), self.shape_of_one[1]

    def __getitem__(self, index: Any) -> NDArray[np.int32]:
        updates, within = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        layers = super().__getitem__(updates)
        found = read_only(np.add.reduceat(layers, self.firsts, axis=-2))
        return found[(slice(None),) * (found.ndim - 2) + within]


def group_layers(record: Record, most: int = MOST) -> Record:
    """The record itself if it has at most so many layers, else one whose layers are groups of neighbours."""
    firsts = split_layers(record.layers, most)
    if len(firsts) == len(record.layers):
        return record
    kept = record.histograms
    return dataclasses.replace(
        record,
        layers=name_groups(record.layers, firsts),
        table=read_only(combine_layers(record, firsts)),
        histograms=GroupedHistograms(kept.ends, kept.places, kept.counts, kept.shape_of_one, firsts),
    )


def split_layers(layers: Sequence[str], most: int) -> NDArray[np.int64]:
    """Where each group begins: by the parts of the layers' names where these give few enough, else of equal length."""
    if len(layers) <= most:
        return np.arange(len(layers))
    deepest = max(name.count(".") + 1 for name in layers)
    best = np.zeros(1, np.int64)
    for depth in range(1, deepest):
        heads = [name.split(".")[:depth] for name in layers]
        firsts = [0, *(place for place in range(1, len(layers)) if heads[place] != heads[place - 1])]
        if len(firsts) > most:
            break
        best = np.array(firsts)
    # Names that tell fewer than half of the groups there is room for tell too little.
    return best if len(best) > most // 2 else np.arange(most) * len(layers) // most


def name_groups(layers: Sequence[str], firsts: NDArray[np.int64]) -> tuple[str, ...]:
    """A name for each group: the parts that its layers share, else first and last; all different."""
    ends = [*firsts[1:], len(layers)]
    names: list[str] = []
    for first, end in zip(firsts, ends, strict=True):
        shared = [parts[0] for parts in zip(*(name.split(".") for name in layers[first:end]), strict=False)
                  if len(set(parts)) == 1]  # fmt: skip
        name = ".".join(shared)
        whole = sum(other == name or other.startswith(f"{name}.") for other in layers) == end - first
        names.append(name if whole and name else f"{layers[first]}–{layers[end - 1]}")
    return tuple(names)


def add_norms(values: FloatArray, firsts: NDArray[np.int64]) -> FloatArray:
    """The norm of each group from those of its layers (layers, updates), also where their squares would overflow."""
    largest = np.maximum.reduceat(np.abs(values), firsts)
    usable = np.where(np.isfinite(largest) & (largest > 0), largest, 1)
    squares = (values / np.repeat(usable, np.diff([*firsts, len(values)]), axis=0)) ** 2
    return np.where(np.isfinite(largest), np.sqrt(np.add.reduceat(squares, firsts)) * usable, largest)


def add_counts(values: FloatArray, firsts: NDArray[np.int64]) -> FloatArray:
    """The count in each group from those of its layers; NaN where none of them is known."""
    unknown = np.logical_and.reduceat(np.isnan(values), firsts)
    return np.where(unknown, np.nan, np.add.reduceat(np.nan_to_num(values), firsts))


COMBINE: dict[str, Callable[[FloatArray, NDArray[np.int64]], FloatArray]] = {
    "weight_norm": add_norms,
    "gradient_norm": add_norms,
    "dead_relu": np.fmax.reduceat,
    **{gauge: add_counts for gauge in LAYER_GAUGES if gauge.endswith(("_nan", "_inf"))},
}
"""Gauge of layers -> how those of a group are combined; of any other the largest counts, and a NaN stays one."""


def combine_layers(record: Record, firsts: NDArray[np.int64]) -> FloatArray:
    """The record's table with the gauges of layers combined by group."""
    parts = [record.table[:, : len(GAUGES)]]
    for gauge in LAYER_GAUGES:
        values = record.column(gauge).T
        missing = np.logical_and.reduceat(~is_measured(values), firsts)
        parts.append(np.where(missing, NOT_MEASURED, COMBINE.get(gauge, np.maximum.reduceat)(values, firsts)).T)
    return np.concatenate([*parts, record.watched_values], axis=1)


def find_groups(layers: Sequence[str], most: int = MOST) -> dict[str, int]:
    """Layer -> the place of its group."""
    firsts = split_layers(layers, most)
    lengths = np.diff([*firsts, len(layers)])
    places = itertools.chain.from_iterable([group] * count for group, count in enumerate(lengths))
    return dict(zip(layers, places, strict=True))
