"""Fuzz of autosaves: journals whose entries are changed and sealed again, are left out, or change places."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import cnnlab
from cnnlab.records.autosave import Autosave
from cnnlab.records.journal import BEGINNING, ENTRY, MARK
from fuzzing.invariants import REFUSED, outcome, rationed, require
from fuzzing.moves import SMALL, Moves, moves_on, small, text_of, written
from fuzzing.records import same, use


@functools.cache
def journal_tree() -> list[dict[str, Any]]:
    """The entries of a journal, taken apart: of a run and a fork that go on, rewind and go to NaN."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 60), dtype=np.uint8)
    run = cnnlab.Run("question", **{**SMALL, "learning_rate": 1e-3}, image=cnnlab.own_image(noise))
    with tempfile.TemporaryDirectory() as folder:
        kept = Autosave.in_file(Path(folder) / "sample.cnnlab")
        run.advance(3)
        kept.keep(run.record, now=0.0)
        run.set(learning_rate=1e4, momentum=0.5)
        run.advance(3)
        kept.keep(run.record, now=0.0)
        twin = run.fork(4, clip="norm")
        twin.advance(2)
        run.rewind(5)
        kept.keep(dataclasses.replace(run.record, others=(twin.record,)), now=0.0)
        content = kept.path.read_bytes()
        kept.close()
    return list(entries_in(content))


def entries_in(content: bytes) -> Iterator[dict[str, Any]]:
    """What the entries of a journal say, and the bytes of their arrays."""
    place = len(BEGINNING)
    while place < len(content):
        _, length, rest, _ = ENTRY.unpack_from(content, place)
        middle = place + ENTRY.size + length
        yield {"says": json.loads(content[place + ENTRY.size : middle]), "data": content[middle : middle + rest]}
        place = middle + rest


def journal_bytes(tree: Any) -> bytes:
    """The journal that a tree tells of, whatever it tells, with checksums that are right."""
    content = BEGINNING
    for entry in tree[:100] if isinstance(tree, list) else []:
        told = entry if isinstance(entry, dict) else {}
        text, data = text_of(told.get("says")), told.get("data")
        data = data if isinstance(data, bytes) else text_of(data)
        content += ENTRY.pack(MARK, len(text), len(data), zlib.crc32(data, zlib.crc32(text))) + text + data
    return content


def journal_moves(random: Random) -> Moves:
    """Changes of the structure and of the bytes; or of the order of the entries."""
    if random.random() < 0.1:
        return [("order", [random.randrange(3) for _ in range(random.randint(1, 8))])]
    return moves_on(journal_tree(), journal_bytes, random, large=0.008)


def try_journal(moves: Moves, folder: Path) -> bool:
    """Load the file; a tree that is there is good for all that records are."""
    tree = journal_tree()
    for _, order in (move for move in moves if move[0] == "order"):
        tree = [tree[place] for place in order]
    content = written(tree, journal_bytes, [move for move in moves if move[0] != "order"])
    path = folder / "odd.cnnlab"
    path.write_bytes(content)
    with rationed(len(content)):
        record = outcome(lambda: cnnlab.load(path), name=str(path))
        if record is REFUSED:
            return False
        for branch in (record, *record.others):
            use(branch)
        record.save(folder / "again.cnnlab")
        require(
            same(cnnlab.load(folder / "again.cnnlab"), record), "an autosave that was opened changes when it is saved"
        )
        if small(record.settings):
            outcome(lambda: cnnlab.Run(record).step())
    return True
