"""What makes a record consistent: tables, names, schedule, histograms, branches and snapshots that fit each other.

A file may come from a stranger, so nothing is taken for granted. Imports records and numpy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnlab.records import EXPONENTS, Record, Snapshot


def require(condition: Any, sentence: str) -> None:
    """ValueError with this sentence unless the condition holds."""
    if not condition:
        raise ValueError(sentence)


def rising(steps: Sequence[int]) -> bool:
    """Whether each is above the one before."""
    return all(before < after for before, after in itertools.pairwise(steps))


def check_tree(tree: Mapping[Record, Sequence[Snapshot]]) -> None:
    """ValueError unless each record agrees with itself and its snapshots, and the branches make a tree."""
    require(tree, "branches must hold a record at least")
    for record, snapshots in tree.items():
        check(record)
        check_histograms(record)
        check_snapshots(record, snapshots)
    numbers = [record.branch.number for record in tree]
    require(len(set(numbers)) == len(numbers), f"branches must have numbers of their own, got {numbers}")


def check(record: Record) -> None:
    """ValueError unless names, tables, schedule and branch of a record fit each other."""
    rows, width, branch = len(record.table), len(record.column_names), record.branch
    require(record.layers, "layers must be one at least")
    require(len(set(record.layers)) == len(record.layers), f"layers must differ, got {record.layers}")
    require(record.table.dtype == np.float64 and record.table.ndim == 2, "table must be float64 with two axes")
    require(record.table.shape[1] == width, f"table must be {width} columns wide, got {record.table.shape[1]}")
    require(rows, "table must hold the start at least")
    require(record.kernels.dtype == np.float32 and record.kernels.ndim == 4, "kernels must be float32 with four axes")
    require(len(record.kernels) == rows, f"kernels must be of {rows} updates, got {len(record.kernels)}")
    require(record.updates_per_epoch > 0, f"updates_per_epoch must be at least 1, got {record.updates_per_epoch}")
    firsts = [first for first, _ in record.schedule]
    require(firsts[:1] == [1], f"schedule must begin at update 1, got {firsts[:1]}")
    require(record.schedule[0][1] == record.settings.knobs, "schedule must begin with the knobs of the settings")
    require(rising(firsts), "schedule must rise from update to update")
    require(firsts[-1] <= max(rows - 1, 1), f"schedule must end by update {rows - 1}, got {firsts[-1]}")
    require(branch.number > 0, f"the branch's number must be at least 1, got {branch.number}")
    require(branch.forked_at >= 0, f"forked_at must be at least 0, got {branch.forked_at}")
    if branch.parent is not None:
        require(0 < branch.parent < branch.number, f"parent must lie in [1, {branch.number - 1}], got {branch.parent}")


def check_histograms(record: Record) -> None:
    """ValueError unless the histograms can be unpacked: ends rise to the numbers' end, places rise in each update."""
    kept, rows = record.histograms, len(record.table)
    for name, kind in {"ends": np.int64, "places": np.uint32, "counts": np.int32}.items():
        array = getattr(kept, name)
        require(array.dtype == kind and array.ndim == 1, f"{name} must be {kind.__name__} with one axis")
    ends = kept.ends
    require(len(ends) == rows + 1, f"ends must be {rows + 1} numbers, got {len(ends)}")
    # Compared, not subtracted: a difference of two integers of 64 bits may wrap around.
    require(ends[0] == 0 and (ends[1:] >= ends[:-1]).all(), "ends must rise from 0")
    require(ends[-1] <= min(len(kept.places), len(kept.counts)), f"places and counts must be {ends[-1]} numbers")
    places, counts = kept.places[: ends[-1]], kept.counts[: ends[-1]]
    shape = len(record.layers), EXPONENTS[record.settings.precision].count
    require(kept.shape_of_one == shape, f"histograms must be of shape {shape}, got {kept.shape_of_one}")
    require((counts > 0).all(), "counts must be above 0")
    require((places < math.prod(shape)).all(), f"places must lie in [0, {math.prod(shape) - 1}]")
    falls = np.flatnonzero(places[1:] <= places[:-1]) + 1
    require(np.isin(falls, ends).all(), "places must rise within an update")


def check_snapshots(record: Record, snapshots: Sequence[Snapshot]) -> None:
    """ValueError unless snapshots rise within the record and hold bytes."""
    steps = [snapshot.step for snapshot in snapshots]
    require(rising(steps), "snapshots must rise from update to update")
    require(all(0 <= step <= len(record) for step in steps), f"snapshots must lie in [0, {len(record)}], got {steps}")
    for snapshot in snapshots:
        require("parameters" in snapshot.arrays, f"the snapshot at {snapshot.step} must hold parameters")
        for name, array in snapshot.arrays.items():
            require(array.dtype == np.uint8 and array.ndim == 1, f"{name} at {snapshot.step} must be bytes on one axis")
