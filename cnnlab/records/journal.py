"""A record in a file that grows with it: each save adds what is new, and a kill in the middle of one loses that alone.

A journal is a line that says so, then entries. An entry is a mark, three numbers (length of its JSON header, of its
arrays, and the CRC-32 of both), the header and the arrays. For each branch of the tree it names a branch of the entry
before and how many of its rows this one begins with, and it holds the rows after those, the knobs changed in them, and
the states at the start and at the end. The last whole entry is the tree; what may follow it was cut short.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.errors import refuse_in_a_sentence
from cnnlab.config.settings import quote, settings
from cnnlab.records import bounded_json, own_image, storage
from cnnlab.records.archive import MOST_TEXT, Stored, read_pieces
from cnnlab.records.atomic_files import write_atomically
from cnnlab.records.bounded_json import read_field
from cnnlab.records.frame import GAUGES, LAYER_GAUGES
from cnnlab.records.locks import HeldFile
from cnnlab.records.log import Log, Packed, count_shared_rows
from cnnlab.records.record import Lineage, Record, Snapshot
from cnnlab.records.storage import (
    SIGNAL,
    Arrays,
    Header,
    convert_to_double,
    describe_start,
    find_array,
    list_later_changes,
    list_snapshots,
    pack_own_image,
    parse_branch,
    parse_schedule,
    read_names,
    read_network,
    take_images,
)
from cnnlab.records.validation import check_tree, require

ROOM = 2**28
"""Bytes that the branches of a journal may take in memory, besides twice the size of the file."""
BEGINNING = b"cnnlab journal 1\n"
"""What a journal begins with."""
MARK = b"next"
ENTRY = struct.Struct("<4sIQI")
"""Mark, length of the header, length of the arrays, CRC-32 of both."""


# Writing.


@dataclass(frozen=True)
class SavedBranch:
    """What a journal holds of a branch, as far as the next entry needs to know it."""

    lineage: Lineage
    """Of the record that was written."""
    rows: int
    about: Header
    """Settings, layers and the like."""


def build_entry(tree: Sequence[Record], written: Mapping[int, SavedBranch]) -> tuple[list[Any], dict[int, SavedBranch]]:
    """The bytes of an entry, in pieces, and what the journal holds with it; `written` is what it held before."""
    arrays: Arrays = {}
    branches, holds = [], {}
    for record in tree:
        about = describe_start(record)
        number, rows = find_source(record, written)
        same = rows > 0 and written[number].about == about
        branches.append(
            {
                "from": [number, rows],
                "about": None if same else about,
                "branch": dataclasses.asdict(record.branch),
                "schedule": list_later_changes(record, first=rows),
                "states": pack_states(record, rows, arrays),
            }
        )
        arrays |= {f"{record.branch.number}/{name}": array for name, array in pack_new_rows(record, rows).items()}
        holds[record.branch.number] = SavedBranch(record.lineage, len(record.table), about)
    known = {kept.about["settings"]["image"] for kept in written.values()}
    for image in {record.settings.image for record in tree} - known:
        arrays |= pack_own_image(image)
    return pack_entry({"gauges": GAUGES, "layer_gauges": LAYER_GAUGES, "branches": branches}, arrays), holds


def find_source(record: Record, written: Mapping[int, SavedBranch]) -> tuple[int, int]:
    """The branch that shares most rows with a record, and how many; 0, 0 where nothing is shared."""
    shared = {
        number: min(count_shared_rows(record.lineage, kept.lineage), kept.rows) for number, kept in written.items()
    }
    # Where several share as much it is its own: nothing is copied then when the journal is read.
    best = max(shared, key=lambda number: (shared[number], number == record.branch.number), default=0)
    rows = min(shared.get(best, 0), len(record.table))
    return (best, rows) if rows else (0, 0)


def pack_states(record: Record, rows: int, arrays: Arrays) -> list[Any]:
    """The states at the start, if it is not shared, and at the end; their bytes are put into arrays."""
    kept = list_snapshots(record)
    listed = []
    for snapshot in [*kept[:1], *kept[1:][-1:]][bool(rows) :]:
        own = f"{record.branch.number}/state/{snapshot.step}/"
        arrays |= {own + name: part for name, part in snapshot.arrays.items()}
        listed.append((snapshot.step, list(snapshot.arrays)))
    return listed


def pack_new_rows(record: Record, rows: int) -> Arrays:
    """The arrays of a record after so many rows."""
    arrays: Arrays = {"table": record.table[rows:], "kernels": record.kernels[rows:]}
    for prefix, kept in (("", record.histograms), (SIGNAL, record.signal_histograms)):
        numbers = slice(kept.ends[rows], kept.ends[-1])
        if prefix == SIGNAL and numbers.start == numbers.stop:
            continue  # as in a file from before there were signals
        arrays |= {
            f"{prefix}lengths": np.diff(kept.ends[rows:]),
            f"{prefix}places": kept.places[numbers],
            f"{prefix}counts": kept.counts[numbers],
        }
    return arrays


def pack_entry(header: Header, arrays: Arrays) -> list[Any]:
    """The pieces of an entry, in their order."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    listed = [(name, array.dtype.str, array.shape) for name, array in whole.items()]
    text = json.dumps({**header, "arrays": listed}, allow_nan=False).encode()
    parts: list[Any] = [text, *(array.data.cast("B") for array in whole.values() if array.size)]
    checksum = functools.reduce(lambda checksum, part: zlib.crc32(part, checksum), parts, 0)
    return [ENTRY.pack(MARK, len(text), sum(array.nbytes for array in whole.values()), checksum), *parts]


class Journal:
    """A journal that a run is written to. While it is open no other lab takes it, in this process or in another."""

    def __init__(self, path: Path) -> None:
        """Make a new file; FileExistsError if there is one."""
        path.touch(exist_ok=False)
        held = HeldFile.take(path)
        if held is None:
            raise FileExistsError(f"{path} was taken by another lab")
        self.held = held
        self.written: dict[int, SavedBranch] = {}
        try:
            self.write([BEGINNING])
        except BaseException:
            held.remove()
            raise

    @property
    def size(self) -> int:
        """The bytes of the file."""
        return os.fstat(self.held.file.fileno()).st_size

    def add(self, tree: Sequence[Record]) -> None:
        """Write what is new; the journal stays as it was if that fails. OSError if another file is in its place."""
        if not self.held.is_in_place:
            raise FileNotFoundError(f"{self.held.path} was removed or replaced")
        parts, written = build_entry(tree, self.written)
        self.write(parts)
        self.written = written

    def begin_anew(self, tree: Sequence[Record]) -> None:
        """Put a journal of the present alone in the place of all that was written."""
        parts, written = build_entry(tree, {})
        self.held.file.close()  # Windows replaces no open file
        try:
            with write_atomically(self.held.path) as file:
                file.writelines([BEGINNING, *parts])
            self.written = written
        finally:
            self.held = HeldFile.take(self.held.path) or self.held

    def write(self, parts: Iterable[Any]) -> None:
        """Add bytes; the file stays as it was if that fails."""
        size = self.size
        try:
            for part in parts:
                left = memoryview(part)
                while len(left):
                    left = left[self.held.file.write(left) :]
        except OSError as error:
            os.ftruncate(self.held.file.fileno(), size)
            raise OSError(error.errno, error.strerror, str(self.held.path)) from None


# Reading.


def load(path: str | os.PathLike[str]) -> Record:
    """Read what `Record.save` or a lab's autosave wrote: the record, its other branches, and the snapshots, to the bit.

    Nothing in a file is ever run as code. A file that was altered or cut short, is none of ours, is of a later version
    or contradicts itself is a ValueError that says so; a missing one is a FileNotFoundError. Of an autosave that was
    cut short all but its last seconds is read.
    """
    return load_limited(path, ROOM)


def load_limited(path: str | os.PathLike[str], allowed: float) -> Record:
    """The same; ValueError for a journal whose branches take more memory than twice its size and what is allowed.

    Forks share rows in a journal and not in memory. Our own may have as many as they like, an untrusted one may not.
    """
    if not os.path.isfile(path) or not is_journal(path):
        return storage.load(path)
    with refuse_in_a_sentence(f"{path} cannot be loaded"), open(path, "rb") as file:
        return read_tree(file, 2 * os.path.getsize(path) + allowed)


def is_journal(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as journals do."""
    with open(path, "rb") as file:
        return file.read(len(BEGINNING)) == BEGINNING


def read_tree(file: BufferedReader, most: float) -> Record:
    """The tree of the last whole entry of an open journal."""
    branches: dict[int, GrowingBranch] = {}
    images: dict[str, Stored] = {}
    for header, arrays in read_entries(file):
        branches = extend_branches(header, arrays, branches, most)
        images |= {name: array for name, array in arrays.items() if name.startswith("images/")}
    require(branches, "it holds no whole entry")
    tree = [branch.record() for branch in branches.values()]
    check_tree({record: record.take_snapshots() for record in tree})
    own_image.KEPT.update(take_images(tree, images))
    return dataclasses.replace(tree[0], others=tuple(tree[1:]))


def read_entries(file: BufferedReader) -> Iterator[tuple[Header, dict[str, Stored]]]:
    """Header and arrays of each whole entry; ends before one that was cut short."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    require(file.read(len(BEGINNING)) == BEGINNING, "it is not a journal that cnnlab wrote")
    while len(start := file.read(ENTRY.size)) == ENTRY.size:
        mark, length, rest, checksum = ENTRY.unpack(start)
        if mark != MARK or length > MOST_TEXT or file.tell() + length + rest > size:
            return
        text, place = file.read(length), file.tell()
        pieces = read_pieces(file, rest)
        if functools.reduce(lambda known, piece: zlib.crc32(piece, known), pieces, zlib.crc32(text)) != checksum:
            return
        header = bounded_json.parse(text)
        yield header, dict(locate_arrays(read_field(header, "arrays", list), file, place, place + rest))
        file.seek(place + rest)


def locate_arrays(listed: list[Any], file: BufferedReader, place: int, end: int) -> Iterator[tuple[str, Stored]]:
    """The arrays of an entry by name; ValueError unless they are all between two places, one after the other."""
    for entry in listed:
        name, kind, shape = check_parts(entry, "arrays", str, str, list)
        require(all(type(side) is int and side >= 0 for side in shape), f"a shape must be sizes, got {quote(shape)}")
        stored = Stored.locate(file, place, shape, kind)
        place += stored.nbytes
        require(place <= end, f"the array {quote(name)} is longer than what is there")
        yield name, stored
    require(place == end, "an entry must hold its arrays and nothing else")


def read_packed(arrays: Mapping[str, Stored], name: str, rows: int) -> Packed:
    """Histograms of so many rows whose arrays' names begin so; ValueError unless these fit each other."""
    lengths, places, counts = (find_array(arrays, name + kind) for kind in ("lengths", "places", "counts"))
    require(len(lengths) == rows, "an entry must hold as many rows of each kind")
    numbers = lengths.whole
    require((numbers >= 0).all() and numbers.sum() == len(places) == len(counts), "lengths must fit the numbers")
    return numbers, places.whole, counts.whole


@dataclass
class GrowingBranch:
    """A branch as the entries read so far have made it."""

    log: Log
    about: Header
    place: Header
    """Its number, parent and fork."""
    states: dict[int, Snapshot]

    @classmethod
    def empty(cls, about: Header, place: Header, arrays: Mapping[str, Stored]) -> GrowingBranch:
        """A branch that shares no row with another."""
        start = settings(**read_field(about, "settings", dict))
        kernels = find_array(arrays, f"{read_field(place, 'number', int)}/kernels")
        per_epoch = read_field(about, "updates_per_epoch", int)
        log = Log(start, read_names(about, "layers"), read_names(about, "watched"), per_epoch, kernels.shape[1:])
        log.schedule = []
        return cls(log, about, place, {})

    def until(self, rows: int) -> GrowingBranch:
        """A branch of its own that begins with so many rows of this one."""
        require(0 < rows <= self.log.rows, f"a branch must begin with 1 to {self.log.rows} rows, got {rows}")
        return GrowingBranch(self.log.until(rows - 1), self.about, self.place, self.states)

    def add(self, part: Header, header: Header, arrays: Mapping[str, Stored]) -> None:
        """Take over what an entry says of the branch that is new."""
        self.place = read_field(part, "branch", dict)
        self.about = self.about if part.get("about") is None else read_field(part, "about", dict)
        self.log.settings = settings(**read_field(self.about, "settings", dict))
        del self.log.schedule[bisect.bisect_left(self.log.schedule, self.log.rows, key=lambda entry: entry[0]) :]
        knobs = self.log.schedule[-1][1] if self.log.schedule else self.log.settings.knobs
        own = f"{read_field(self.place, 'number', int)}/"
        rows = self.log.rows + len(find_array(arrays, f"{own}table"))
        self.log.schedule += parse_schedule(
            read_field(part, "schedule", list), knobs, self.log.settings.precision, rows
        )
        table, kernels = (find_array(arrays, own + name) for name in ("table", "kernels"))
        gauges = read_names(header, "gauges"), read_names(header, "layer_gauges")
        wide = convert_to_double(table, *gauges, self.log.layers, self.log.watched)
        require(len(table) == len(kernels), "an entry must hold as many rows of each kind")
        none = np.zeros(len(table), np.int64), np.zeros(0, np.uint32), np.zeros(0, np.int32)
        signals = read_packed(arrays, own + SIGNAL, len(table)) if f"{own}{SIGNAL}lengths" in arrays else none
        self.log.append_packed(wide.whole, kernels.whole, read_packed(arrays, own, len(table)), signals)
        self.states = {step: state for step, state in self.states.items() if step == 0}
        for entry in read_field(part, "states", list):
            step, parts = check_parts(entry, "states", int, list)
            kept = {name: find_array(arrays, f"{own}state/{step}/{name}").whole for name in map(str, parts)}
            self.states[step] = Snapshot(step, kept)

    def record(self) -> Record:
        """The record of the branch."""
        states = tuple(state for _, state in sorted(self.states.items()))
        return dataclasses.replace(
            self.log.record(),
            branch=parse_branch(self.place),
            own_network=read_field(self.about, "own_network", bool),
            network=read_network(self.about),
            take_snapshots=functools.partial(tuple, states),
        )


def extend_branches(
    header: Header, arrays: Mapping[str, Stored], before: Mapping[int, GrowingBranch], most: float
) -> dict[int, GrowingBranch]:
    """The branches after an entry, by number, from those before it."""
    parts = read_field(header, "branches", list)
    begun: list[GrowingBranch] = []
    size = 0
    for part in parts:  # all begin before the first is added to
        begun.append(begin_branch(part, arrays, before))
        size += count_bytes(begun[-1].log.record())
        require(size <= most, f"its branches would take {size / 2**20:,.0f} MiB of memory")
    for part, branch in zip(parts, begun, strict=True):
        branch.add(part, header, arrays)
    return {read_field(branch.place, "number", int): branch for branch in begun}


def begin_branch(part: Any, arrays: Mapping[str, Stored], before: Mapping[int, GrowingBranch]) -> GrowingBranch:
    """A branch with the rows that it shares with one of the entry before."""
    number, rows = check_parts(read_field(part, "from", list), "from", int, int)
    place = read_field(part, "branch", dict)
    if not number:
        return GrowingBranch.empty(read_field(part, "about", dict), place, arrays)
    require(number in before, f"branch {quote(number)} is not there to begin with")
    known = before[number]
    return known if number == read_field(place, "number", int) and rows == known.log.rows else known.until(rows)


def check_parts(entry: Any, name: str, *kinds: type) -> list[Any]:
    """The values in a list of the header; ValueError unless they are of these kinds."""
    if not isinstance(entry, list) or [type(part) for part in entry] != list(kinds):
        raise ValueError(f"{name} must hold {', '.join(kind.__name__ for kind in kinds)}, got {quote(entry)}")
    return entry


def count_bytes(record: Record) -> int:
    """About how long a journal of a record alone would be."""
    parts: list[NDArray[Any]] = [record.table, record.kernels]
    for kept in (record.histograms, record.signal_histograms):
        parts += [kept.ends, kept.places, kept.counts]
    return sum(part.nbytes for part in parts)
