"""Fuzz of autosave: labs keep runs in folders full of a person's files, which stay byte for byte."""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import cnnlab
from cnnlab.records.autosave import Autosave
from fuzzing.invariants import REFUSED, outcome, require
from fuzzing.moves import SMALL

Move = list[Any]
"""A file that is there, or a session of a lab."""
NAMES = ("run.csv", "auto.cnnlab", "auto.cnnlab-left", "notes.txt", "old.cnnlab", "saved.cnnlab.bak", ".hidden", "auto",
         "auto.CNNLAB", "auto.cnnlab.part", "results.cnnlab-left", "run.cnnlab", "run.cnnlab-left")  # fmt: skip
"""Names that people and autosave give to files."""
CONTENTS = ("record", "record", "text", "nothing", "folder")
SAVED: list[bytes] = []
"""The bytes of a record that a person has saved."""


def folder_moves(random: Random) -> list[Move]:
    """Files of a person's, of all names and ages, and sessions of labs whose autosave lies among them."""
    files = [["file", [random.choice(NAMES), random.choice(CONTENTS), random.choice((0, 6, 8, 400))], {}]
             for _ in range(random.randint(1, 6))]  # fmt: skip
    place = random.choice((*NAMES, "auto.cnnlab", "auto.cnnlab", "new.cnnlab", "new", "below/new.cnnlab", "."))
    ends = ("close", "kill", "bring_back", "leave_behind")
    return [*files, *(["lab", [place, random.choice(ends)], {}] for _ in range(random.randint(1, 3)))]


def try_folder(moves: list[Move], folder: Path) -> tuple[int, int]:
    """Have labs keep their runs in a folder; a person's files there stay what they are, byte for byte."""
    if not SAVED:
        run = cnnlab.Run("question", **SMALL)
        run.advance(2)
        run.record.save(folder / "made")
        SAVED.append((folder / "made").read_bytes())
        (folder / "made").unlink()
    for kind, (name, content, *days), _ in moves:
        if kind == "file" and not (folder / name).exists():
            make(folder / name, content, days[0])
    before = contents(folder)
    labs = [move[1] for move in moves if move[0] == "lab"]
    done = [outcome(partial(keep_in, folder / place, end)) for place, end in labs]
    after = contents(folder)
    lost = [name for name, content in before.items() if after.get(name) != content]
    require(not lost, "autosave takes a person's file", ", ".join(lost))
    return len(done) - done.count(REFUSED), done.count(REFUSED)


def make(path: Path, content: str, days: int) -> None:
    """A file or folder of a person's, so many days old."""
    if content == "folder":
        path.mkdir()
        (path / "inside.cnnlab").write_bytes(SAVED[0])
    else:
        path.write_bytes({"record": SAVED[0], "text": b"a,b\n1,2\n", "nothing": b""}[content])
    for each in (path, *(path.iterdir() if path.is_dir() else ())):
        os.utime(each, (time.time() - days * 86_400,) * 2)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def keep_in(path: Path, end: str) -> None:
    """A session of a lab that keeps its run in a file, and ends in one way or another."""
    lab = cnnlab.Lab("question", autosave=path, **SMALL)
    try:
        if end in ("bring_back", "leave_behind"):
            with contextlib.suppress(ValueError, OSError):
                getattr(lab, end)()
        lab.step(2)
        if end == "kill":
            kept = lab.worker.autosave  # as the end of a kernel would
            for held in (kept.journal and kept.journal.held, kept.offered):
                if held is not None:
                    held.file.close()
            lab.worker.autosave = Autosave()
    finally:
        lab.close()
