"""A lab's run kept safe while it trains, so that a kernel's restart loses at most five seconds. Records and files only.

Only the start and the last states are kept of each branch: enough to go on to the bit, and quick to write.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from pathlib import Path

from cnnlab.files import load
from cnnlab.records import Record, Snapshot

EVERY = 4.0
"""Seconds between two savings while a run trains."""
DAYS = 7.0
"""How long a run that nobody has asked for again is kept."""


def place_of(cell: str) -> Path | None:
    """Where the lab of a notebook's cell is kept; None outside a notebook."""
    if not cell:
        return None
    from jupyter_core.paths import jupyter_runtime_dir

    notebook = os.environ.get("JPY_SESSION_NAME", str(Path.cwd()))
    name = hashlib.sha256(f"{notebook}\n{cell}".encode()).hexdigest()[:20]
    return Path(jupyter_runtime_dir()) / "cnnlab" / f"{name}.cnnlab"


class Autosave:
    """Keeps the run of one lab in one file; a file that an earlier kernel left is offered."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.offered: Path | None = None
        self.saved_at = 0.0
        self.saved: tuple[int, ...] = ()
        self.problem = ""
        if path is not None:
            with contextlib.suppress(OSError):
                self.take_over(path)

    def take_over(self, path: Path) -> None:
        """Put aside what an earlier kernel left, and forget what is a week old."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob("*.cnnlab*"):
            if time.time() - old.stat().st_mtime > DAYS * 86400:
                old.unlink()
        kept = path.with_suffix(".cnnlab-left")
        if path.exists():
            path.replace(kept)
        if kept.exists():
            self.offered = kept

    def keep(self, record: Record, now: float, at_once: bool) -> None:
        """Save if that is due: every few seconds while training, at once when it pauses. Never raises."""
        held = tuple(len(branch) for branch in (record, *record.others))
        if self.path is None or held == self.saved or not any(held) or not (at_once or now - self.saved_at > EVERY):
            return
        self.saved_at, self.saved = now, held
        try:
            others = tuple(slim(branch) for branch in record.others)
            dataclasses.replace(slim(record), others=others).save(self.path)
            self.problem = ""
        except (OSError, ValueError) as error:
            self.problem = f"the run could not be kept safe: {error}"

    def take(self) -> Record:
        """The record that an earlier kernel left; ValueError or OSError in a sentence if it cannot be read."""
        if self.offered is None:
            raise ValueError("there is no run of an earlier kernel to bring back")
        record = load(self.offered)
        self.discard()
        return record

    def discard(self) -> None:
        """Forget what an earlier kernel left."""
        if self.offered is not None:
            self.offered.unlink(missing_ok=True)
        self.offered = None

    def close(self) -> None:
        """Forget the lab's own run too: it was closed by a person's will."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


def slim(record: Record) -> Record:
    """The record with its first and its last state only."""

    def ends() -> tuple[Snapshot, ...]:
        kept = record.take_snapshots()
        return kept if len(kept) < 2 else (kept[0], kept[-1])

    return dataclasses.replace(record, take_snapshots=ends)
