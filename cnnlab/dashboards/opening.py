"""What a lab opens: a preset's name, Settings or a link, or a record, which may lie in a file."""

from __future__ import annotations

import os
from typing import Any

from cnnlab.config.links import Plan, find_moment, opened
from cnnlab.config.settings import Settings, quote
from cnnlab.records.journal import load
from cnnlab.records.record import Record
from cnnlab.training.problem import prepare_own_start
from cnnlab.training.run import Run
from cnnlab.training.run_arguments import check_same_settings

FILE = ".cnnlab"
"""What the names of saved records end with."""


class Opening:
    """What a lab starts with: settings, the changes that a link plans, and the runs of a record.

    `own` are the arguments of `cnnlab.Run` for a network of the user's own; they are made ready here.
    """

    def __init__(self, preset: Any, own: dict[str, Any], changes: dict[str, Any]) -> None:
        record = read_record(preset)
        self.own = own
        self.runs: tuple[Run, ...] = ()
        self.plan: Plan = ()
        self.moment = 0
        if own["network"] is not None:
            start = preset if record is None else record.settings
            own["data"], follows = prepare_own_start(start, own["network"], own["data"], changes)
            changes = follows if record is None else changes
        if record is None:
            self.start, self.plan = opened(preset, **changes)
            self.moment = find_moment(preset)
            return
        self.start = check_same_settings(record, changes)
        self.runs = tuple(self.go_on(each, device=self.start.device) for each in (record, *record.others))

    def go_on(self, record: Record, **changes: Any) -> Run:
        """A run that goes on where a record ended."""
        return Run(record, **{name: value for name, value in self.own.items() if value is not None}, **changes)

    def make_run(self, wanted: Settings) -> Run:
        """A run from update 0."""
        return Run(wanted, **self.own)


def read_record(preset: Any) -> Record | None:
    """The record that a lab is to show, out of its file if it is a file's name; None if it is none."""
    if isinstance(preset, os.PathLike) or (isinstance(preset, str) and preset.endswith(FILE)):
        return load(preset)
    return preset if isinstance(preset, Record) else None


def read_beside(beside: Any) -> Record | None:
    """The record to draw over that of a lab; TypeError in a sentence if there is none in what was given."""
    if beside is None or isinstance(beside, Record):
        return beside
    if isinstance(beside, (str, os.PathLike)):
        return load(beside)
    found = getattr(beside, "record", None)
    if not isinstance(found, Record):
        raise TypeError(f"beside must be a Record or the name of a file that cnnlab.load reads, got {quote(beside)}")
    return found
