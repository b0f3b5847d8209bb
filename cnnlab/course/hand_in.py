"""What a student hands in: guesses, checks that were passed, and the runs of the session, as one JSON file."""

from __future__ import annotations

import getpass
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnlab.course.entries import (
    LONGEST_LINK,
    MOST_ENTRIES,
    CourseFile,
    RunOutcome,
    check_text,
    describe_course_file,
    read_course_file,
)
from cnnlab.course.guess_file import read_guess_file
from cnnlab.course.notebook import find_notebook
from cnnlab.records.atomic_files import write_atomically
from cnnlab.records.formats import format_count
from cnnlab.records.record import Record

KIND = "cnnlab hand-in"
"""What the first key of the file says."""
DEEPEST = 3
"""How many lists within lists are looked into for runs."""
MOST_LOOKED_AT = 10_000
"""Most values that are looked at for runs."""


@dataclass(frozen=True)
class HandIn:
    """The file that was written, and what it holds."""

    path: Path
    """The file."""
    content: CourseFile
    """What it holds."""

    def __repr__(self) -> str:
        guesses = sum(bool(entry.attempts) for entry in self.content.guesses)
        checks, runs = format_count(len(self.content.checks), "check"), format_count(len(self.content.runs), "run")
        counts = f"{guesses} guess{'' if guesses == 1 else 'es'}, {checks} passed, {runs}"
        return f"{self.path.name}: {counts}; hand in this file"


def hand_in(name: str | None = None, runs: Iterable[Any] | None = None, path: str | Path | None = None) -> HandIn:
    """Write the guesses and checks of this folder and the runs of this session into one JSON file.

    `name` is the student's, by default the login name; `runs` are runs, records or labs, by default all that the
    notebook's variables hold; `path` is beside the notebook unless it is given. Nothing leaves the machine.
    """
    folder = find_notebook().folder
    name = check_text("name", find_login() if name is None else name)
    if not name.strip():
        raise ValueError(f"name must be a text of 1 to 300 characters, got {name!r}")
    kept = read_guess_file(folder)
    content = CourseFile(kept.guesses, kept.checks, collect_outcomes(runs), name)
    place = folder / f"hand_in_{make_file_name(name)}.json" if path is None else Path(path)
    text = json.dumps(describe_course_file(content, KIND), indent=1, ensure_ascii=False, allow_nan=False)
    with write_atomically(place) as file:
        file.write(text.encode())
    return HandIn(place, content)


def find_login() -> str:
    """The login name; "student" where there is none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # such as a container whose user has no entry
        return "student"


def read_hand_in(path: Path) -> CourseFile:
    """What was handed in; ValueError in a sentence if the file is damaged, too large or another."""
    return read_course_file(path, KIND)


def make_file_name(name: str) -> str:
    """A name with the letters and digits that every disk takes."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in name)[:60]


def collect_outcomes(runs: Iterable[Any] | None) -> tuple[RunOutcome, ...]:
    """What became of each run, once; a network of one's own has no link and is left out."""
    values = vars(sys.modules["__main__"]) if runs is None else list(runs)
    found: dict[str, RunOutcome] = {}
    for record in itertools.islice(find_records(values, DEEPEST), MOST_LOOKED_AT):
        outcome = describe_run(record)
        if outcome is not None and outcome.updates >= getattr(found.get(outcome.link), "updates", 1):
            found[outcome.link] = outcome
    return tuple(found.values())[:MOST_ENTRIES]


def find_records(value: Any, depth: int) -> Iterator[Record]:
    """The records in a value: itself, of a run or a lab, or in lists and dictionaries."""
    if isinstance(value, Record):
        yield value
    elif type(value).__module__.startswith("cnnlab."):
        record = getattr(value, "record", None)
        if isinstance(record, Record):
            yield record
    elif depth and isinstance(value, (list, tuple, dict)):
        parts = list(value.values()) if isinstance(value, Mapping) else list(value)
        for part in parts[:MOST_LOOKED_AT]:
            yield from find_records(part, depth - 1)


def describe_run(record: Record) -> RunOutcome | None:
    """What became of a run; None for one without updates, or without a link."""
    try:
        link = record.link()
    except ValueError:
        return None
    first = record.first_nonfinite
    return RunOutcome(link, len(record), first and int(first)) if len(link) <= LONGEST_LINK and len(record) else None
