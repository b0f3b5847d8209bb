"""A lab's run saved while it trains, so that the end of its kernel loses at most five seconds.

Of each branch the rows are kept, and the states at its start and at its end: enough to go on to the bit. A lab in a
notebook has a file of its own in a folder of ours; a lab that is given a file keeps to that one. Nothing else is ever
removed, renamed or written to.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from cnnlab.records.journal import BEGINNING, ENTRY, Journal, count_bytes, is_journal, load_limited
from cnnlab.records.locks import HeldFile
from cnnlab.records.record import Record

EVERY = 4.0
"""Seconds between two savings while a run trains."""
DAYS = 7.0
"""How long a run that nobody has asked for again is kept in our own folder."""
OWN_NAME = re.compile(r"[0-9a-f]{20}(-[0-9a-f]{16})?\.cnnlab(-left)?")
"""Names of the files in our own folder: the cell, and the lab; version 0.1 had no lab in them."""
MOST_TIMES, MOST_MORE = 4, 64 * 2**20
"""A file is written anew when it is longer than so many times what it holds, and so many bytes more."""


def find_own_folder() -> Path:
    """Where the labs of notebooks keep their runs."""
    from jupyter_core.paths import jupyter_runtime_dir  # not above: comes with JupyterLab

    return Path(jupyter_runtime_dir()) / "cnnlab"


def list_own_files(cell: str = "") -> list[Path]:
    """The files in our own folder, the newest first; those of one cell, if it is named."""
    return list_newest_first(
        find_own_folder(), lambda path: OWN_NAME.fullmatch(path.name) and path.name.startswith(cell)
    )


def hash_cell(cell: str) -> str:
    """What the files of a notebook's cell begin with."""
    notebook = os.environ.get("JPY_SESSION_NAME", str(Path.cwd()))
    return hashlib.sha256(f"{notebook}\n{cell}".encode()).hexdigest()[:20]


class Autosave:
    """Keeps the run of one lab in one file; offers one that an earlier kernel has left.

    `path` is None where nothing is kept. Nothing is written before the run has trained.
    """

    def __init__(self, path: Path | None = None, offered: HeldFile | None = None) -> None:
        self.path = path
        self.offered = offered
        self.journal: Journal | None = None
        self.saved_at = 0.0
        self.saved: tuple[object, ...] = ()
        self.problem = ""

    @classmethod
    def of_cell(cls, cell: str) -> Autosave:
        """The autosave of a new lab in a notebook's cell; keeps nothing outside a notebook."""
        if not cell:
            return cls()
        name = hash_cell(cell)
        with contextlib.suppress(OSError):
            find_own_folder().mkdir(parents=True, exist_ok=True)
            remove_old_files()
        offered = next(filter(None, map(take_if_whole, list_own_files(name))), None)
        return cls(find_own_folder() / f"{name}-{secrets.token_hex(8)}.cnnlab", offered)

    @classmethod
    def in_file(cls, path: Path) -> Autosave:
        """An autosave in a file that the user names; ValueError in a sentence if it is not one for us to write."""
        path = Path(os.path.realpath(path))
        refuse_foreign(path)
        if path.exists():
            held = HeldFile.take(path)
            if held is None:
                raise ValueError(f"autosave must name a file of its own, got {path}, which another open lab keeps")
            held.file.close()  # Windows renames no open file
            path.rename(find_free_name(path))
        offered = next(filter(None, map(take_if_whole, list_left_files(path))), None)
        return cls(path, offered)

    def is_due(self, now: float) -> bool:
        """Whether it is time to save a run that trains."""
        return self.path is not None and now - self.saved_at > EVERY

    def keep(self, record: Record, now: float) -> None:
        """Save what is new, if anything is. Never raises."""
        tree = (record, *record.others)
        present = tuple((each.branch, len(each.table), each.lineage[-1:]) for each in tree)
        if self.path is None or present == self.saved or (self.journal is None and not any(map(len, tree))):
            return
        self.saved_at = now
        try:
            self.write(tree)
            self.saved, self.problem = present, ""
        except (OSError, ValueError) as error:
            self.problem = f"the run could not be saved: {error}"

    def write(self, tree: tuple[Record, ...]) -> None:
        """Add to the journal; make it at first, and anew when most of it is of no use any more."""
        assert self.path is not None
        if self.journal is not None and not self.path.exists():
            self.journal.held.file.close()
            self.journal = None
        if self.journal is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.journal = Journal(self.path)
        self.journal.add(tree)
        if self.journal.size > MOST_TIMES * sum(map(count_bytes, tree)) + MOST_MORE:
            self.journal.begin_anew(tree)

    def read_offer(self) -> Record:
        """The record that an earlier kernel has left; ValueError or OSError in a sentence if it cannot be read."""
        if self.offered is None:
            raise ValueError("there is no run of an earlier kernel to bring back")
        return load_limited(self.offered.path, math.inf)

    def discard(self) -> None:
        """Forget what an earlier kernel has left."""
        if self.offered is not None:
            self.offered.remove()
        self.offered = None

    def discard_if_kept(self) -> None:
        """Forget it if the run that was brought back is kept in a file of its own by now."""
        if self.journal is not None and not self.problem:
            self.discard()

    def close(self) -> None:
        """Forget the lab's own run, which was closed by the user's will; what is offered stays for another lab."""
        with contextlib.suppress(OSError):
            if self.journal is not None:
                self.journal.held.remove()
            if self.offered is not None:
                self.offered.file.close()
        self.path = self.journal = self.offered = None


def refuse_foreign(path: Path) -> None:
    """ValueError in a sentence unless there is no such file, or one that an autosave wrote."""
    if path.is_dir():
        raise ValueError(f"autosave must name a file, got the folder {path}")
    if path.exists() and not (path.is_file() and is_journal(path)):
        raise ValueError(f"autosave must name a new file, or one that it wrote itself, got {path}, which is neither")


def take_if_whole(path: Path) -> HeldFile | None:
    """Hold a file of an earlier lab that nobody holds, if it has something in it."""
    with contextlib.suppress(OSError):
        held = HeldFile.take(path)
        if held is not None and (path.stat().st_size > len(BEGINNING) + ENTRY.size or not is_journal(path)):
            return held
        if held is not None:
            held.remove()
    return None


def find_free_name(path: Path) -> Path:
    """A name for what an earlier kernel has left in a file, beside it."""
    names = (path.with_name(f"{path.name}-left{f'-{number}' if number > 1 else ''}") for number in range(1, 1_000_000))
    return next(name for name in names if not name.exists())


def list_left_files(path: Path) -> list[Path]:
    """What earlier kernels have left of a file, the newest first."""
    pattern = re.compile(re.escape(path.name) + r"-left(-[0-9]+)?")
    return list_newest_first(path.parent, lambda other: pattern.fullmatch(other.name) and is_journal(other))


def list_newest_first(folder: Path, is_wanted: Callable[[Path], object]) -> list[Path]:
    """The files in a folder that are wanted; as many as can be read."""
    found = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_file() and is_wanted(path):
                found.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(found, reverse=True)]


def remove_old_files() -> None:
    """Remove the runs in our own folder that nobody has asked for again."""
    for path in list_own_files():
        if time.time() - path.stat().st_mtime > DAYS * 86400:
            held = HeldFile.take(path)
            if held is not None:
                held.remove()
