"""Records in files: what is written of a record, and what is asked of a file before it becomes one.

A file holds `cnnlab.json` (settings, layers, watched weights, schedule and snapshots of each branch) and, of each, the
arrays `branch_1/table`, `ends`, `places`, `counts` and `kernels`; and `states/0`, .. the bytes that snapshots name.
Whatever `save` writes, `load` reads: both ask the same of a record. Imports settings, records, consistency, archive
and numpy.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab import archive, given_image
from cnnlab.consistency import check_tree, require
from cnnlab.records import (
    EXPONENTS,
    GAUGES,
    LAYER_GAUGES,
    NOT_MEASURED,
    Branch,
    FloatArray,
    Histograms,
    Record,
    Snapshot,
    names_of_columns,
    read_only,
)
from cnnlab.settings import Knobs, check_names, settings

Header = dict[str, Any]
Arrays = dict[str, NDArray[Any]]


def save(record: Record, path: str | os.PathLike[str]) -> None:
    """Write a record, its other branches and their snapshots into one file, at one stroke; see `Record.save`."""
    tree = {branch: kept_of(branch) for branch in (record, *record.others)}
    try:
        check_tree(tree)
    except ValueError as reason:
        raise ValueError(f"the record cannot be saved: {reason}") from None
    arrays: Arrays = {}
    for branch in tree:
        arrays |= {f"branch_{branch.branch.number}/{name}": array for name, array in tables(branch).items()}
    states: dict[bytes, int] = {}
    branches = [{**described(branch), "snapshots": stored(kept, states, arrays)} for branch, kept in tree.items()]
    for name in {branch.settings.image for branch in tree}:
        arrays |= own_image_in(name)
    header = {"gauges": GAUGES, "layer_gauges": LAYER_GAUGES, "branches": branches}
    archive.write(path, header, arrays)


MOST_PIXELS = 4_000_000
"""Most pixels of an image of the reader's own that a file holds; a record of a larger one needs it given again."""


def own_image_in(name: str) -> Arrays:
    """The arrays of an image of the reader's own, if it is here and small enough; none for one that is shipped."""
    if name not in given_image.KEPT or given_image.KEPT[name][0].size > MOST_PIXELS:
        return {}
    image, mask = given_image.KEPT[name]
    return {f"images/{name}/grey": image, f"images/{name}/mask": mask}


def take_images(tree: Sequence[Record], arrays: Arrays) -> None:
    """Have the images of the reader's own in a file at hand again; ValueError if one is not what its name says."""
    for name in {record.settings.image for record in tree}:
        if f"images/{name}/grey" not in arrays:
            continue
        image, mask = (found(arrays, f"images/{name}/{part}") for part in ("grey", "mask"))
        require(image.dtype == mask.dtype == np.uint8 and image.ndim == 2, "an image must be bytes with two axes")
        require(image.shape == mask.shape and mask.max(initial=0) <= 1, "the labels of an image must fit it")
        require(given_image.name_of(image, mask) == name, f"the image must be the one that {name} names")
        given_image.KEPT[name] = image, mask


def kept_of(record: Record) -> tuple[Snapshot, ...]:
    """The snapshots up to the record's end."""
    return tuple(snapshot for snapshot in record.take_snapshots() if snapshot.step <= len(record))


def described(record: Record) -> Header:
    """All of a record that is no array; of the schedule, each change of a knob."""
    schedule: list[tuple[int, Header]] = []
    before = dataclasses.asdict(record.settings.knobs)
    for first, knobs in record.schedule:
        now = dataclasses.asdict(knobs)
        schedule.append((first, {name: value for name, value in now.items() if value != before[name]}))
        before = now
    return {
        "settings": dataclasses.asdict(record.settings),
        "layers": record.layers,
        "watched": record.watched,
        "schedule": schedule,
        "updates_per_epoch": record.updates_per_epoch,
        "own_network": record.own_network,
        "branch": dataclasses.asdict(record.branch),
    }


def tables(record: Record) -> Arrays:
    """The arrays of a record by name."""
    ends = record.histograms.ends
    return {
        "table": record.table,
        "ends": ends,
        "places": record.histograms.places[: ends[-1]],
        "counts": record.histograms.counts[: ends[-1]],
        "kernels": record.kernels,
    }


def stored(snapshots: Sequence[Snapshot], states: dict[bytes, int], arrays: Arrays) -> list[Any]:
    """Snapshots as (update, number of the bytes by name); bytes that two branches share are put into arrays once."""
    listed = []
    for snapshot in snapshots:
        numbers = {}
        for name, array in snapshot.arrays.items():
            number = states.setdefault(hashlib.sha256(array.data).digest(), len(states))
            arrays[f"states/{number}"] = array
            numbers[name] = number
        listed.append((snapshot.step, numbers))
    return listed


def load(path: str | os.PathLike[str]) -> Record:
    """Read what `Record.save` wrote: the record, its other branches, and the snapshots, to the bit.

    Nothing in a file is ever run as code. A file that was altered or cut short, is none of ours, is of a later version
    or contradicts itself is a ValueError that says so; a missing one is a FileNotFoundError.
    """
    try:
        header, arrays = archive.read(path)
        tree = [record_of(part, header, arrays) for part in field(header, "branches", list)]
        check_tree({record: record.take_snapshots() for record in tree})
        take_images(tree, arrays)
    except OSError:
        raise
    except Exception as reason:  # whatever a stranger's file brings about, it is one sentence
        raise ValueError(f"{path} cannot be loaded: {reason or type(reason).__name__}") from None
    return dataclasses.replace(tree[0], others=tuple(tree[1:]))


def field(part: Any, name: str, kind: type) -> Any:
    """A value of the header; ValueError if it is not there or of another kind."""
    if not isinstance(part, dict) or name not in part:
        raise ValueError(f"{name} is missing")
    if type(part[name]) is not kind:
        raise ValueError(f"{name} must be a {kind.__name__}, got {part[name]!r:.60}")
    return part[name]


def names(part: Any, name: str) -> tuple[str, ...]:
    """A list of texts in the header."""
    listed = field(part, name, list)
    if not all(isinstance(text, str) for text in listed):
        raise ValueError(f"{name} must be texts, got {listed!r:.60}")
    return tuple(listed)


def record_of(part: Any, header: Header, arrays: Arrays) -> Record:
    """One branch of a file, with its snapshots."""
    wanted = settings(**field(part, "settings", dict))
    layers, watched = names(part, "layers"), names(part, "watched")
    branch = branch_of(field(part, "branch", dict))
    table, ends, places, counts, kernels = (
        found(arrays, f"branch_{branch.number}/{name}") for name in ("table", "ends", "places", "counts", "kernels")
    )
    columns = names_of_columns(names(header, "gauges"), names(header, "layer_gauges"), layers, watched)
    kept = tuple(snapshot_of(entry, arrays) for entry in field(part, "snapshots", list))
    return Record(
        wanted,
        layers,
        watched,
        schedule_of(field(part, "schedule", list), wanted.knobs),
        field(part, "updates_per_epoch", int),
        arranged(table, columns, names_of_columns(GAUGES, LAYER_GAUGES, layers, watched)),
        Histograms(ends, places, counts, (len(layers), EXPONENTS[wanted.precision].count)),
        kernels,
        branch,
        own_network=field(part, "own_network", bool),
        take_snapshots=functools.partial(tuple, kept),
    )


def found(arrays: Arrays, name: str) -> NDArray[Any]:
    """An array by its name; ValueError if the file has none of that name."""
    if name not in arrays:
        raise ValueError(f"the array {name} is missing")
    return arrays[name]


def branch_of(part: Header) -> Branch:
    """A run's place in the tree."""
    parent = part.get("parent")
    return Branch(
        field(part, "number", int),
        None if parent is None else field(part, "parent", int),
        field(part, "forked_at", int),
    )


def schedule_of(entries: list[Any], knobs: Knobs) -> tuple[tuple[int, Knobs], ...]:
    """The knobs from update to update, each as the ones before with some changed."""
    schedule = []
    for entry in entries:
        first, changes = pair(entry, "schedule")
        check_names(changes)
        knobs = dataclasses.replace(knobs, **changes)
        schedule.append((first, knobs))
    return tuple(schedule)


def snapshot_of(entry: Any, arrays: Arrays) -> Snapshot:
    """A state by its update and the numbers of its bytes."""
    step, numbers = pair(entry, "snapshots")
    return Snapshot(step, {name: found(arrays, f"states/{number}") for name, number in numbers.items()})


def pair(entry: Any, name: str) -> tuple[int, dict[str, Any]]:
    """An update and what belongs to it; ValueError if the entry is something else."""
    if not (isinstance(entry, list) and [type(part) for part in entry] == [int, dict]):
        raise ValueError(f"{name} must hold pairs of an update and its values, got {entry!r:.60}")
    step, values = entry
    return step, values


def arranged(table: FloatArray, old: tuple[str, ...], new: tuple[str, ...]) -> FloatArray:
    """A table with the columns that a Record has at present: what an older cnnlab did not measure is not measured."""
    require(table.dtype == np.float64 and table.ndim == 2, "table must be float64 with two axes")
    require(table.shape[1] == len(old), f"table must be {len(old)} columns wide, got {table.shape[1]}")
    if old == new:
        return table
    places = {name: place for place, name in enumerate(old)}
    whole = np.full((len(table), len(new)), NOT_MEASURED)
    for place, name in enumerate(new):
        if name in places:
            whole[:, place] = table[:, places[name]]
    return read_only(whole)
