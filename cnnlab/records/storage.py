"""Records in files: what is written of a record, and what is asked of a file before it becomes one.

A file holds `cnnlab.json` (settings, layers, watched weights, schedule and snapshots of each branch) and, of each, the
arrays `branch_1/table`, `ends`, `places`, `counts` and `kernels`, with `signal_ends` and so on if signals were
measured; and `states/0`, .. the bytes that snapshots name.
Whatever `save` writes, `load` reads: both ask the same of a record. What a file says of its arrays is held against what
is there before any of them is read.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import hashlib
import operator
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.errors import refuse_in_a_sentence
from cnnlab.config.settings import Knobs, check_loss_scale, check_names, list_changes, settings
from cnnlab.records import archive, own_image
from cnnlab.records.archive import Stored
from cnnlab.records.bounded_json import read_field
from cnnlab.records.frame import GAUGES, LAYER_GAUGES, NOT_MEASURED, FloatArray, name_columns
from cnnlab.records.histograms import Histograms, find_shapes
from cnnlab.records.record import Branch, Record, Snapshot
from cnnlab.records.validation import check_tree, is_rising, require

Header = dict[str, Any]
Arrays = dict[str, NDArray[Any]]
ROOM = 3 * 2**25
"""Bytes that the gauges which a file lacks may take, besides the file's own size."""
SIGNAL = "signal_"
"""What the names of the arrays of signals begin with."""
LONGEST_NETWORK = 100
"""Most characters of the words that name an own network."""


def save(record: Record, path: str | os.PathLike[str]) -> None:
    """Write a record, its other branches and their snapshots into one file, atomically; see `Record.save`."""
    tree = {branch: list_snapshots(branch) for branch in (record, *record.others)}
    try:
        check_tree(tree)
    except ValueError as reason:
        raise ValueError(f"the record cannot be saved: {reason}") from None
    arrays: Arrays = {}
    states: dict[bytes, int] = {}
    branches = []
    for branch, kept in tree.items():
        arrays |= {f"branch_{branch.branch.number}/{name}": array for name, array in pack_tables(branch).items()}
        branches.append({**describe_branch(branch), "snapshots": pack_snapshots(kept, states, arrays)})
    for name in {branch.settings.image for branch in tree}:
        arrays |= pack_own_image(name)
    header = {"gauges": GAUGES, "layer_gauges": LAYER_GAUGES, "branches": branches}
    archive.write(path, header, arrays)


MOST_PIXELS = 4_000_000
"""Most pixels of an image of the user's own that a file holds; a record of a larger one needs it given again."""


def pack_own_image(name: str) -> Arrays:
    """The arrays of an image of the user's own, if it is here and small enough; none for one that is shipped."""
    if name not in own_image.KEPT or own_image.KEPT[name][0].size > MOST_PIXELS:
        return {}
    image, mask = own_image.KEPT[name]
    return {f"images/{name}/grey": image, f"images/{name}/mask": mask}


def take_images(tree: Sequence[Record], stored: Mapping[str, Stored]) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """The images of the user's own in a file, by name; ValueError if one is not what its name says."""
    images = {}
    for name in {record.settings.image for record in tree}:
        if f"images/{name}/grey" not in stored:
            continue
        grey, mask = (find_array(stored, f"images/{name}/{part}") for part in ("grey", "mask"))
        require(grey.dtype == mask.dtype == np.uint8 and grey.ndim == 2, "an image must be bytes with two axes")
        require(grey.shape == mask.shape, "the labels of an image must fit it")
        own_image.check_size(*grey.shape)
        require(mask.whole.max(initial=0) <= 1, "the labels of an image must fit it")
        require(own_image.hash_image(grey.whole, mask.whole) == name, f"the image must be the one that {name} names")
        images[name] = grey.whole, mask.whole
    return images


def list_snapshots(record: Record) -> tuple[Snapshot, ...]:
    """The snapshots up to the record's end."""
    return tuple(snapshot for snapshot in record.take_snapshots() if snapshot.step <= len(record))


def describe_branch(record: Record) -> Header:
    """All of a record that is no array; of the schedule, each change of a knob."""
    return {
        **describe_start(record),
        "schedule": list_later_changes(record, first=1),
        "branch": dataclasses.asdict(record.branch),
    }


def describe_start(record: Record) -> Header:
    """What stays the same however long a run trains."""
    return {
        "settings": dataclasses.asdict(record.settings),
        "layers": record.layers,
        "watched": record.watched,
        "updates_per_epoch": record.updates_per_epoch,
        "own_network": record.own_network,
        "network": record.network,
    }


def list_later_changes(record: Record, first: int) -> list[tuple[int, Header]]:
    """The schedule from an update on: (update, each knob that is changed there)."""
    place = bisect.bisect_left(record.schedule, first, key=lambda entry: entry[0])
    before = record.schedule[place - 1][1] if place else record.settings.knobs
    return list(list_changes(before, record.schedule[place:]))


def pack_tables(record: Record) -> Arrays:
    """The arrays of a record by name."""
    signals = record.signal_histograms
    return {
        "table": record.table,
        **pack_histograms(record.histograms),
        "kernels": record.kernels,
        **(pack_histograms(signals, SIGNAL) if signals.ends[-1] else {}),
    }


def pack_histograms(kept: Histograms, prefix: str = "") -> Arrays:
    """The arrays of histograms by name."""
    last = kept.ends[-1]
    return {
        f"{prefix}ends": kept.ends,
        f"{prefix}places": kept.places[:last],
        f"{prefix}counts": kept.counts[:last],
    }


def pack_snapshots(snapshots: Sequence[Snapshot], states: dict[bytes, int], arrays: Arrays) -> list[Any]:
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
    with refuse_in_a_sentence(f"{path} cannot be loaded"), archive.open_archive(path) as (header, stored):
        tree = build_tree(header, stored)
        check_tree({record: record.take_snapshots() for record in tree})
        images = take_images(tree, stored)
        tree = [read_arrays(record) for record in tree]
    own_image.KEPT.update(images)
    return dataclasses.replace(tree[0], others=tuple(tree[1:]))


def build_tree(header: Header, stored: Mapping[str, Stored]) -> list[Record]:
    """The branches of a file; their arrays are still there. ValueError if they would be far larger in memory."""
    gauges = read_names(header, "gauges"), read_names(header, "layer_gauges")
    tree = [build_record(part, gauges, stored) for part in read_field(header, "branches", list)]
    there = sum(array.nbytes for array in stored.values())
    wider = sum(record.table.nbytes for record in tree if isinstance(record.table, WideTable))
    require(wider <= there + ROOM, f"its tables lack so many gauges that they would take {wider / 2**20:,.0f} MiB")
    return tree


def read_arrays(record: Record) -> Record:
    """A record of a file with its arrays read."""
    read: Callable[[Any], NDArray[Any]] = operator.attrgetter("whole")
    kept = tuple(
        Snapshot(snapshot.step, {name: read(array) for name, array in snapshot.arrays.items()})
        for snapshot in record.take_snapshots()
    )
    histograms, signals = (
        Histograms(read(kept.ends), read(kept.places), read(kept.counts), kept.shape_of_one)
        if isinstance(kept.ends, Stored)
        else kept
        for kept in (record.histograms, record.signal_histograms)
    )
    return dataclasses.replace(
        record,
        table=read(record.table),
        histograms=histograms,
        kernels=read(record.kernels),
        signal_histograms=signals,
        take_snapshots=functools.partial(tuple, kept),
    )


def read_names(part: Any, name: str) -> tuple[str, ...]:
    """A list of texts in the header."""
    listed = read_field(part, name, list)
    if not all(isinstance(text, str) for text in listed):
        raise ValueError(f"{name} must be texts, got {reprlib.repr(listed)}")
    return tuple(listed)


def build_record(part: Any, gauges: tuple[tuple[str, ...], tuple[str, ...]], stored: Mapping[str, Stored]) -> Record:
    """One branch of a file, with its snapshots; its arrays are not read, but in their places."""
    wanted = settings(**read_field(part, "settings", dict))
    layers, watched = read_names(part, "layers"), read_names(part, "watched")
    branch = parse_branch(read_field(part, "branch", dict))
    own = f"branch_{branch.number}/"
    table: Any = convert_to_double(find_array(stored, f"{own}table"), *gauges, layers, watched)
    kernels: Any = find_array(stored, f"{own}kernels")
    require(len(table), "table must hold the start at least")
    kept = parse_snapshots(read_field(part, "snapshots", list), stored, len(table))
    shape, signal_shape = find_shapes(wanted.precision, len(layers))
    return Record(
        wanted,
        layers,
        watched,
        parse_schedule(read_field(part, "schedule", list), wanted.knobs, wanted.precision, len(table)),
        read_field(part, "updates_per_epoch", int),
        table,
        find_histograms(stored, own, shape),
        kernels,
        find_histograms(stored, f"{own}{SIGNAL}", signal_shape)
        if f"{own}{SIGNAL}ends" in stored
        else Histograms.make_empty(len(table), signal_shape),
        branch,
        own_network=read_field(part, "own_network", bool),
        network=read_network(part),
        take_snapshots=functools.partial(tuple, kept),
    )


def find_histograms(stored: Mapping[str, Stored], name: str, shape_of_one: tuple[int, int]) -> Histograms:
    """Histograms whose arrays' names begin so; the arrays are not read, but in their places."""
    arrays: list[Any] = [find_array(stored, name + kind) for kind in ("ends", "places", "counts")]
    return Histograms(arrays[0], arrays[1], arrays[2], shape_of_one)


def read_network(part: Header) -> str:
    """The user's own network in a few words; nothing in files from before they had it."""
    words = read_field({"network": "", **part}, "network", str)
    require(len(words) <= LONGEST_NETWORK and words.isprintable(), "network must be a line of a few words")
    return words


def find_array(stored: Mapping[str, Stored], name: str) -> Stored:
    """An array by its name; ValueError if the file has none of that name."""
    if name not in stored:
        raise ValueError(f"the array {name:.60} is missing")
    return stored[name]


def parse_branch(part: Header) -> Branch:
    """A run's place in the tree."""
    parent = part.get("parent")
    return Branch(
        read_field(part, "number", int),
        None if parent is None else read_field(part, "parent", int),
        read_field(part, "forked_at", int),
    )


def parse_schedule(entries: list[Any], knobs: Knobs, precision: str, rows: int) -> tuple[tuple[int, Knobs], ...]:
    """The knobs from update to update, each as the ones before with some changed."""
    pairs = check_pairs(entries, "schedule", rows)
    schedule = []
    for first, changes in pairs:
        check_names(changes)
        knobs = dataclasses.replace(knobs, **changes) if changes else knobs
        check_loss_scale(knobs, precision)
        schedule.append((first, knobs))
    return tuple(schedule)


def parse_snapshots(entries: list[Any], stored: Mapping[str, Stored], rows: int) -> tuple[Snapshot, ...]:
    """States by their updates and the numbers of their bytes."""
    pairs = check_pairs(entries, "snapshots", rows)
    return tuple(
        Snapshot(step, {name: find_array(stored, f"states/{number}") for name, number in numbers.items()})  # type: ignore[misc]
        for step, numbers in pairs
    )


def check_pairs(entries: list[Any], name: str, rows: int) -> list[tuple[int, dict[str, Any]]]:
    """Updates in rising order and what belongs to each, at most one a row; ValueError if it is something else."""
    require(len(entries) <= rows, f"{name} must hold at most one entry a row of the table, {rows}, got {len(entries)}")
    for entry in entries:
        if not (isinstance(entry, list) and [type(part) for part in entry] == [int, dict]):
            raise ValueError(f"{name} must hold pairs of an update and its values, got {reprlib.repr(entry)}")
    require(is_rising([step for step, _ in entries]), f"{name} must rise from update to update")
    return entries


@dataclass(frozen=True, eq=False)
class WideTable(Stored):
    """A table in a file with the columns that a Record has at present; what is not in the file is not measured."""

    narrow: Stored
    """The table as it is in the file."""
    places: NDArray[np.int64]
    """Where each column lies in it; -1 for one that does not."""

    def __getitem__(self, rows: slice) -> FloatArray:
        narrow = self.narrow[rows]
        wide = np.full((len(narrow), len(self.places)), NOT_MEASURED)
        for column, place in enumerate(self.places):
            if place >= 0:
                wide[:, column] = narrow[:, place]
        return wide


def convert_to_double(
    table: Stored,
    gauges: tuple[str, ...],
    layer_gauges: tuple[str, ...],
    layers: tuple[str, ...],
    watched: tuple[str, ...],
) -> Stored:
    """A table with the columns that a Record has at present: what an older cnnlab did not measure is not measured."""
    width = len(gauges) + len(layer_gauges) * len(layers) + len(watched)
    require(table.dtype == np.float64 and table.ndim == 2, "table must be float64 with two axes")
    require(table.shape[1] == width, f"table must be {width} columns wide, got {table.shape[1]}")
    if (gauges, layer_gauges) == (GAUGES, LAYER_GAUGES):
        return table
    there = {name: place for place, name in enumerate(name_columns(gauges, layer_gauges, range(len(layers)), ()))}
    known = name_columns(GAUGES, LAYER_GAUGES, range(len(layers)), ())
    places = [*(there.get(name, -1) for name in known), *range(width - len(watched), width)]
    shape = len(table), len(places)
    return WideTable(table.file, table.start, shape, table.dtype, table, np.array(places))
