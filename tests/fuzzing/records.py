"""Fuzz of records in files. They are sealed after each change, so that it gets past the digest, but for some."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import cnnlab
from cnnlab.diagnosis import summary as verdict
from cnnlab.records import archive
from cnnlab.records.record import Record
from fuzzing.invariants import REFUSED, outcome, rationed, require
from fuzzing.moves import SMALL, Moves, moves_on, small, text_of, written


@functools.cache
def record_tree() -> dict[str, Any]:
    """The file of a tree of branches that go to NaN, on an image of one's own, taken apart."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 60), dtype=np.uint8)
    run = cnnlab.Run("question", **{**SMALL, "learning_rate": 1e-3}, image=cnnlab.own_image(noise))
    run.advance(3)
    run.set(learning_rate=1e4, momentum=0.5)
    run.advance(3)
    twin = run.fork(4, clip="norm")
    twin.advance(2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.cnnlab"
        dataclasses.replace(run.record, others=(twin.record,)).save(path)
        with archive.open_archive(path) as (header, stored):
            arrays = {name: array.whole for name, array in stored.items()}
    return {"header": header, "members": [member_of(name, array) for name, array in arrays.items()]}


def member_of(name: str, array: np.ndarray) -> dict[str, Any]:
    """What the zip says of an array, and its bytes."""
    said = {"descr": array.dtype.str, "fortran_order": False, "shape": list(array.shape)}
    return {"name": f"{name}.npy", "said": said, "version": 1, "data": array.tobytes(), "compressed": False}


def record_bytes(tree: Any) -> bytes:
    """The zip that a tree tells of, whatever it tells; unsealed."""
    stream = io.BytesIO()
    parts = tree if isinstance(tree, dict) else {}
    members = parts.get("members")
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as file:
        warnings.simplefilter("ignore")  # of two members with one name
        file.comment = bytes(archive.DIGITS)
        file.writestr(zipfile.ZipInfo(archive.HEADER), text_of(parts.get("header")))
        for member in members[:1000] if isinstance(members, list) else []:
            told = member if isinstance(member, dict) else {}
            name = str(told.get("name")).encode("utf-8", "replace").decode()[:1000]
            kind = zipfile.ZIP_DEFLATED if told.get("compressed") else zipfile.ZIP_STORED
            file.writestr(zipfile.ZipInfo(name), array_bytes(told), kind)
    return stream.getvalue()


def array_bytes(told: dict[str, Any]) -> bytes:
    """The .npy file that a member tells of, its header as numpy writes it wherever that can be."""
    said, data, stream = told.get("said"), told.get("data"), io.BytesIO()
    if isinstance(said, dict) and isinstance(said.get("shape"), list):
        said = {**said, "shape": tuple(said["shape"])}
    first = told.get("version") == 1
    try:
        (np.lib.format.write_array_header_1_0 if first else np.lib.format.write_array_header_2_0)(stream, said)
    except Exception:  # whatever numpy says of what is no header
        text = repr(said).encode("utf-8", "replace")[:60_000] + b"\n"
        stream = io.BytesIO()
        stream.write(b"\x93NUMPY" + bytes([1, 0]) + struct.pack("<H", len(text)) + text)
    return stream.getvalue() + (data if isinstance(data, bytes) else text_of(data))


def sealed(content: bytes) -> bytes:
    """The bytes with the digest that they ought to end with."""
    body = content[: -archive.DIGITS]
    return body + hashlib.sha256(body).hexdigest().encode()


def rearranged(member: dict[str, Any], way: str, number: int) -> dict[str, Any]:
    """A member whose array is whole, but another one; or is said to be larger than it is."""
    if way == "declared":
        said = {**member["said"], "shape": [10 ** (number % 13), *member["said"]["shape"][1:]]}
        return {**member, "said": said}
    array = np.frombuffer(member["data"], member["said"]["descr"]).reshape(member["said"]["shape"])
    match way:
        case "cut":
            array = array[: number % (len(array) + 1)]
        case "doubled":
            array = np.concatenate([array, array[: number % 4 + 1]])
        case "axes":
            array = array[None] if number % 2 else array.ravel()
        case "kind":
            with np.errstate(all="ignore"):
                array = array.astype(archive.KINDS[number % len(archive.KINDS)])
        case _:  # zero, NaN or the largest and smallest numbers that there are
            array = array.copy()
            place = number % max(1, array.size)
            array.reshape(-1)[place : place + 1].view(np.uint8)[:] = (0, 127, 255)[number % 3]
    return member_of(member["name"].removesuffix(".npy"), array)


def record_moves(random: Random) -> Moves:
    """Changes of whole arrays; or of the structure and the bytes; and now and then no seal."""
    sealing: Moves = [("unsealed",)] if random.random() < 0.1 else []
    if random.random() < 0.6:
        return [*moves_on(record_tree(), record_bytes, random, large=0.008), *sealing]
    members = range(len(record_tree()["members"]))
    ways = ("cut", "doubled", "axes", "kind", "declared", "value", "value", "value")
    chosen = ((random.choice(members), random.choice(ways), random.randrange(10**4)) for _ in range(3))
    return [*(("array", *each) for each in itertools.islice(chosen, random.randint(1, 3))), *sealing]


def try_record(moves: Moves, folder: Path) -> bool:
    """Load the file; a record that is there is good for all that records are."""
    members = list(record_tree()["members"])
    for _, number, *how in (move for move in moves if move[0] == "array"):
        with contextlib.suppress(ValueError):  # of an array that is said to be larger than it is
            members[number] = rearranged(members[number], *how)
    tree = {**record_tree(), "members": members}
    content = written(tree, record_bytes, [move for move in moves if move[0] in ("tree", "many", "bytes")])
    path = folder / "odd.cnnlab"
    path.write_bytes(content if ("unsealed",) in moves else sealed(content))
    altered = path.read_bytes() != sealed(content)
    with rationed(len(content)):
        record = outcome(lambda: cnnlab.load(path), name=str(path))
        if record is REFUSED:
            return False
        require(not altered, "a file that was altered is opened")
        for branch in (record, *record.others):
            use(branch)
        record.save(folder / "again.cnnlab")
        require(same(cnnlab.load(folder / "again.cnnlab"), record), "a record that was opened changes when it is saved")
        if small(record.settings):
            outcome(lambda: cnnlab.Run(record).step())
    return True


def use(record: Record) -> None:
    """What a person does with a record that was opened."""
    repr(record)
    verdict.state_line(record)
    verdict.before_explosion(record)
    repr(record.until(len(record) // 2))
    _ = record.histograms[-1].sum(), record.frames[-1].nonfinite
    outcome(record.link)


def same(first: Record, second: Record) -> bool:
    """Whether two trees of branches agree to the bit."""

    def content(record: Record) -> tuple[Any, ...]:
        arrays = [record.table, record.kernels]
        for kept in (record.histograms, record.signal_histograms):
            arrays += [kept.ends, kept.places[: kept.ends[-1]], kept.counts[: kept.ends[-1]]]
        states = [(each.step, {name: array.tobytes() for name, array in each.arrays.items()})
                  for each in record.take_snapshots() if each.step <= len(record)]  # fmt: skip
        plain = (
            record.settings,
            record.layers,
            record.watched,
            record.schedule,
            record.branch,
            (record.own_network, record.network),
        )
        return *plain, [(array.shape, array.tobytes()) for array in arrays], states

    pairs = zip((first, *first.others), (second, *second.others), strict=True)
    return all(content(one) == content(other) for one, other in pairs)
