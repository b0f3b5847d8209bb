"""The runs of a lab: one run with its forks, one of them the present one, and earlier runs to compare with."""

from __future__ import annotations

import dataclasses
import functools
import numbers
from collections.abc import Sequence
from typing import Any

from cnnlab.config.settings import Knobs, Settings, quote
from cnnlab.records.record import Record
from cnnlab.training.run import Run

GHOSTS = 3
"""How many earlier runs are kept to compare with."""


class BranchTree:
    """Branches by number, the first one given the present one. What is refused leaves the tree as it was."""

    def __init__(self, *runs: Run) -> None:
        self.ghosts: tuple[Record, ...] = ()
        self._take(runs)

    def _take(self, runs: Sequence[Run]) -> None:
        """Hold these branches, the present one first."""
        self.run = runs[0]
        self.runs = {run.branch.number: run for run in sorted(runs, key=lambda run: run.branch.number)}

    @property
    def settings(self) -> Settings:
        """The settings of the present branch, with the knobs in force at its next update."""
        return join_settings(self.run.settings, self.run.knobs_in_force)

    @property
    def record(self) -> Record:
        """The present branch's record with those of the other branches."""
        others = tuple(run.record for run in self.runs.values() if run is not self.run)
        return dataclasses.replace(self.run.record, others=others)

    def begin(self, *runs: Run) -> None:
        """Put other branches, the present one first, in the place of all; the present run becomes a ghost."""
        self.add_ghost(self.run.record)
        self._take(runs)

    def rewind(self, step: int) -> None:
        """Take the present branch back to where it was after an update; what came later becomes a ghost."""
        record = self.run.record
        self.run.rewind(step)
        self.add_ghost(record)

    def fork(self, step: int, number: int | None = None) -> None:
        """Leave a branch (None: the present one) after an update for a new one, which is then the present one."""
        parent = self.run if number is None else self.find(number)
        twin = parent.fork(step)
        parent.choose(parent.knobs_in_force)
        self.runs[twin.branch.number] = twin
        self.run = twin

    def choose(self, number: int) -> None:
        """Make another branch the present one."""
        self.run = self.find(number)

    def delete(self, number: int) -> None:
        """Let go of a branch; if it is the present one, its parent or the oldest left takes its place."""
        gone = self.find(number)
        if len(self.runs) == 1:
            raise ValueError(f"branch {number} is the only one left: it stays")
        del self.runs[number]
        if gone is self.run:
            parent = gone.branch.parent
            self.run = self.runs[parent if parent in self.runs else min(self.runs)]

    def find(self, number: Any) -> Run:
        """The run of a branch by its number; ValueError in a sentence if there is none such."""
        runs = dict(self.runs)
        if isinstance(number, bool) or not isinstance(number, numbers.Integral) or number not in runs:
            raise ValueError(f"branch must be one of {', '.join(map(str, runs))}, got {quote(number)}")
        return runs[int(number)]

    def add_ghost(self, record: Record) -> None:
        """Keep a record to compare with, if it holds an update; the oldest of too many goes."""
        if len(record):
            self.ghosts = (record, *self.ghosts)[:GHOSTS]


@functools.lru_cache(maxsize=8)  # asked for several times a frame
def join_settings(start: Settings, knobs: Knobs) -> Settings:
    """Settings of a start with other knobs."""
    return start.replace(**dataclasses.asdict(knobs))
