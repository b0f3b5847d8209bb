"""What makes a record consistent: tables, names, schedule, histograms, branches and snapshots that fit each other.

A file may be untrusted, so nothing is taken for granted. Arrays may still lie in their file: what their shapes
tell is asked before their numbers, and those are looked at in pieces.
"""

from __future__ import annotations

import itertools
import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnlab.config.settings import quote
from cnnlab.records.histograms import Histograms, find_shapes
from cnnlab.records.record import Record, Snapshot

PIECE = 2**18
"""Numbers of an array that are looked at together."""
MOST = 2**53
"""Largest whole number of a record, the last one that every float64 tells from its neighbours."""


def require(condition: Any, sentence: str) -> None:
    """ValueError with this sentence unless the condition holds."""
    if not condition:
        raise ValueError(sentence)


def is_rising(steps: Sequence[int]) -> bool:
    """Whether each is above the one before."""
    return all(before < after for before, after in itertools.pairwise(steps))


def check_tree(tree: Mapping[Record, Sequence[Snapshot]]) -> None:
    """ValueError unless each record agrees with itself and its snapshots, and the branches make a tree."""
    require(tree, "branches must hold a record at least")
    numbers = [record.branch.number for record in tree]
    for record, snapshots in tree.items():
        check_shapes(record)
        check(record)
        check_snapshots(record, snapshots)
    require(len(set(numbers)) == len(numbers), f"branches must have numbers of their own, got {reprlib.repr(numbers)}")
    for record in tree:
        check_histograms(record.histograms)
        check_histograms(record.signal_histograms)


def check(record: Record) -> None:
    """ValueError unless names, schedule and branch of a record fit each other."""
    branch = record.branch
    require(record.layers, "layers must be one at least")
    require(len(set(record.layers)) == len(record.layers), f"layers must differ, got {reprlib.repr(record.layers)}")
    epoch = quote(record.updates_per_epoch)
    require(record.updates_per_epoch > 0, f"updates_per_epoch must be at least 1, got {epoch}")
    require(record.updates_per_epoch <= MOST, f"updates_per_epoch must be at most {MOST}, got {epoch}")
    firsts, last = [first for first, _ in record.schedule], len(record)
    require(firsts[:1] == [1], f"schedule must begin at update 1, got {reprlib.repr(firsts[:1])}")
    require(is_rising(firsts), "schedule must rise from update to update")
    require(firsts[-1] <= max(last, 1), f"schedule must end by update {last}, got {quote(firsts[-1])}")
    require(record.schedule[0][1] == record.settings.knobs, "schedule must begin with the knobs of the settings")
    require(branch.number > 0, f"the branch's number must be at least 1, got {branch.number}")
    require(branch.number <= MOST, f"the branch's number must be at most {MOST}, got {quote(branch.number)}")
    require(branch.forked_at >= 0, f"forked_at must be at least 0, got {quote(branch.forked_at)}")
    require(branch.forked_at <= MOST, f"forked_at must be at most {MOST}, got {quote(branch.forked_at)}")
    if branch.parent is not None:
        parent = quote(branch.parent)
        require(0 < branch.parent < branch.number, f"parent must lie in [1, {branch.number - 1}], got {parent}")


def check_shapes(record: Record) -> None:
    """ValueError unless the tables of a record are as long and as wide as they must be."""
    table, kernels = record.table, record.kernels
    width = len(record.column_names)
    require(table.dtype == np.float64 and table.ndim == 2, "table must be float64 with two axes")
    require(table.shape[1] == width, f"table must be {width} columns wide, got {table.shape[1]}")
    rows = len(table)
    require(rows, "table must hold the start at least")
    require(kernels.dtype == np.float32 and kernels.ndim == 4, "kernels must be float32 with four axes")
    require(len(kernels) == rows, f"kernels must be of {rows} updates, got {len(kernels)}")
    none = kernels.shape[1:] == (0, 1, 1)
    require(none or 0 not in kernels.shape, f"kernels must hold numbers, got the shape {kernels.shape}")
    weights, signals = find_shapes(record.settings.precision, len(record.layers))
    check_kinds(record.histograms, rows, weights)
    check_kinds(record.signal_histograms, rows, signals)


def check_kinds(kept: Histograms, rows: int, shape: tuple[int, int]) -> None:
    """ValueError unless the arrays of histograms of so many rows are of the kinds that they must be."""
    for name, kind in {"ends": np.int64, "places": np.uint32, "counts": np.int32}.items():
        array = getattr(kept, name)
        require(array.dtype == kind and array.ndim == 1, f"{name} must be {kind.__name__} with one axis")
    require(len(kept.ends) == rows + 1, f"ends must be {rows + 1} numbers, got {len(kept.ends)}")
    require(kept.shape_of_one == shape, f"histograms must be of shape {shape}, got {kept.shape_of_one}")


def check_histograms(kept: Histograms) -> None:
    """ValueError unless the histograms can be unpacked: ends rise to the numbers' end, places rise in each update."""
    ends = kept.ends[:]
    # Compared, not subtracted: a difference of two integers of 64 bits may wrap around.
    require(ends[0] == 0 and (ends[1:] >= ends[:-1]).all(), "ends must rise from 0")
    last = int(ends[-1])
    require(last <= min(len(kept.places), len(kept.counts)), f"places and counts must be {last} numbers")
    size = math.prod(kept.shape_of_one)
    for first in range(0, last, PIECE):
        beyond = min(first + PIECE, last)
        places = kept.places[max(first - 1, 0) : beyond]
        require((kept.counts[first:beyond] > 0).all(), "counts must be above 0")
        require((places < size).all(), f"places must lie in [0, {size - 1}]")
        falls = np.flatnonzero(places[1:] <= places[:-1]) + max(first, 1)
        require((ends[np.searchsorted(ends, falls)] == falls).all(), "places must rise within an update")


def check_snapshots(record: Record, snapshots: Sequence[Snapshot]) -> None:
    """ValueError unless snapshots rise within the record and hold bytes."""
    steps = [snapshot.step for snapshot in snapshots]
    require(is_rising(steps), "snapshots must rise from update to update")
    inside = all(0 <= step <= len(record) for step in steps[:1] + steps[-1:])
    require(inside, f"snapshots must lie in [0, {len(record)}], got {reprlib.repr(steps)}")
    for snapshot in snapshots:
        require("parameters" in snapshot.arrays, f"the snapshot at {snapshot.step} must hold parameters")
        for name, array in snapshot.arrays.items():
            bytes_on_one_axis = array.dtype == np.uint8 and array.ndim == 1
            require(bytes_on_one_axis, f"{name:.60} at {snapshot.step} must be bytes on one axis")
