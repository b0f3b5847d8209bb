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

from cnnlab.records.frame import COUNTED, GAUGES, LAYER_GAUGES, NOT_MEASURED, FloatArray, is_measured
from cnnlab.records.histograms import Histograms, read_only
from cnnlab.records.record import Record
from cnnlab.records.signals import SIGNALS, Signals

MOST = 12
"""Most layers, or groups of them, that a figure shows."""
PARTS = ("_norm", "_shortcut")
"""What the name of a part of a layer ends with, after the layer's own name."""


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
    of_each = repeat_for_kinds(firsts, len(record.layers))
    return dataclasses.replace(
        record,
        layers=name_groups(record.layers, firsts),
        table=read_only(combine_layers(record, firsts)),
        histograms=group_histograms(record.histograms, firsts),
        signal_histograms=group_histograms(record.signal_histograms, of_each),
    )


def group_histograms(kept: Histograms, firsts: NDArray[np.int64]) -> Histograms:
    """Histograms with the layers of each group added up."""
    return GroupedHistograms(kept.ends, kept.places, kept.counts, kept.shape_of_one, firsts)


def repeat_for_kinds(firsts: NDArray[np.int64], layers: int) -> NDArray[np.int64]:
    """Where each group begins among the histograms of signals, which hold all layers once for each kind."""
    return np.concatenate([firsts + kind * layers for kind in range(len(COUNTED))])


def group_signals(signals: Signals, most: int = MOST) -> Signals:
    """Signals of groups of neighbouring layers, as `group_layers` makes them of a record's."""
    firsts = split_layers(signals.layers, most)
    if len(firsts) == len(signals.layers):
        return signals
    of_each = repeat_for_kinds(firsts, len(signals.layers))
    values = {name: combine_gauge(name, getattr(signals, name)[:, None], firsts)[:, 0] for name in SIGNALS}
    counts = np.add.reduceat(signals.counts, of_each, axis=0)
    return Signals(signals.step, name_groups(signals.layers, firsts), counts=counts, **values)


def split_layers(layers: Sequence[str], most: int) -> NDArray[np.int64]:
    """Where each group begins: by the parts of the layers' names where these give few enough, else of equal length."""
    if len(layers) <= most:
        return np.arange(len(layers))
    paths = [split_name(name, layers) for name in layers]
    best = np.zeros(1, np.int64)
    for depth in range(1, max(map(len, paths))):
        firsts = find_firsts([path[:depth] for path in paths])
        if len(firsts) > most:
            break
        best = firsts
    # Names that tell fewer than half of the groups there is room for tell too little.
    if len(best) > most // 2:
        return best
    owners = find_firsts([remove_part(name, layers) for name in layers])
    whole = owners if len(owners) >= most else np.arange(len(layers))
    return whole[np.arange(most) * len(whole) // most]


def find_firsts(heads: Sequence[Any]) -> NDArray[np.int64]:
    """Where each run of equal heads begins."""
    return np.array([0, *(place for place in range(1, len(heads)) if heads[place] != heads[place - 1])])


def remove_part(name: str, layers: Sequence[str]) -> str:
    """The name of the layer that another is a part of (its norm, its shortcut's scale), else the name itself."""
    heads = [name.removesuffix(part) for part in PARTS if name.endswith(part)]
    return heads[0] if heads and heads[0] in layers else name


def split_name(name: str, layers: Sequence[str]) -> list[str]:
    """A layer's name in its parts: blocks.0.fc, and cv0 and its norm."""
    owner = remove_part(name, layers)
    return [*owner.split("."), *filter(None, [name[len(owner) :]])]


def name_groups(layers: Sequence[str], firsts: NDArray[np.int64]) -> tuple[str, ...]:
    """A name for each group: the parts that its layers share, else first and last; all different."""
    ends = [*firsts[1:], len(layers)]
    paths = [split_name(name, layers) for name in layers]
    names: list[str] = []
    for first, end in zip(firsts, ends, strict=True):
        shared = [parts[0] for parts in zip(*paths[first:end], strict=False) if len(set(parts)) == 1]
        whole = sum(path[: len(shared)] == shared for path in paths) == end - first
        last = remove_part(layers[end - 1], layers)
        names.append(".".join(shared) if whole and shared else f"{layers[first]}–{last}")
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
    **dict.fromkeys(("dead_relu", "activation_zeros", "activation_saturated"), np.fmax.reduceat),
    **{gauge: add_counts for gauge in LAYER_GAUGES if gauge.endswith(("_nan", "_inf"))},
}
"""Gauge of layers -> how those of a group are combined; of any other the largest counts, and a NaN stays one."""


def combine_layers(record: Record, firsts: NDArray[np.int64]) -> FloatArray:
    """The record's table with the gauges of layers combined by group."""
    parts = [record.table[:, : len(GAUGES)]]
    parts += [combine_gauge(gauge, record.column(gauge).T, firsts).T for gauge in LAYER_GAUGES]
    return np.concatenate([*parts, record.watched_values], axis=1)


def combine_gauge(gauge: str, values: FloatArray, firsts: NDArray[np.int64]) -> FloatArray:
    """A gauge of layers (layers, updates) by group; not measured where it was in none of a group."""
    missing = np.logical_and.reduceat(~is_measured(values), firsts)
    return np.where(missing, NOT_MEASURED, COMBINE.get(gauge, np.maximum.reduceat)(values, firsts))


def find_groups(layers: Sequence[str], most: int = MOST) -> dict[str, int]:
    """Layer -> the place of its group."""
    firsts = split_layers(layers, most)
    lengths = np.diff([*firsts, len(layers)])
    places = itertools.chain.from_iterable([group] * count for group, count in enumerate(lengths))
    return dict(zip(layers, places, strict=True))
