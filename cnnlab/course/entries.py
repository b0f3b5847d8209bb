"""Guesses and checks that were passed as JSON: bounded and checked wherever they are read."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cnnlab.config.settings import quote
from cnnlab.records.atomic_files import check_ordinary
from cnnlab.records.bounded_json import parse

MOST_BYTES = 4_000_000
"""Largest file of guesses, or hand-in, that is read."""
MOST_ENTRIES = 2000
"""Most guesses, checks or runs in a file; most attempts at one guess."""
LONGEST_TEXT = 300
"""Most characters of a question, a name or a time."""
LONGEST_LINK = 2000
"""Most characters of a run's link."""
UNITS = ("factor", "difference", "percent", "sign")
"""What tells how close a guess is."""
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""What JSON has no number for, as text."""

T = TypeVar("T")
Value = bool | int | float


@dataclass(frozen=True)
class Attempt:
    """A value that the user gave as a guess."""

    value: Value
    """The guess."""
    sure: float | None = None
    """How sure the user was, from 0 to 1; None if they did not say."""
    at: str = ""
    """When it was given, in UTC."""
    informed: bool = False
    """Whether the measured value had been shown before."""


@dataclass(frozen=True)
class Entry:
    """All that is kept about one question."""

    question: str
    """The question, which is its name within the notebook."""
    notebook: str = ""
    """The notebook's name; empty where it is not known."""
    unit: str | None = None
    """What tells how close a guess is, one of UNITS; None: chosen by the values."""
    attempts: tuple[Attempt, ...] = ()
    """The guesses, the first one first."""
    measured: Value | None = None
    """What was measured; None if that has not been shown yet."""

    @property
    def fair(self) -> Attempt | None:
        """The last guess that was made before the measured value was shown."""
        return next((attempt for attempt in reversed(self.attempts) if not attempt.informed), None)


@dataclass(frozen=True)
class Passed:
    """An exercise whose check was passed."""

    name: str
    """The exercise."""
    notebook: str = ""
    """The notebook's name; empty where it is not known."""
    at: str = ""
    """When it was passed first, in UTC."""


@dataclass(frozen=True)
class RunOutcome:
    """What became of a run."""

    link: str
    """The run's settings and changes as a link."""
    updates: int
    """How many updates it was trained."""
    first_nonfinite: int | None = None
    """The first update whose cost was NaN or inf; None if there was none."""


@dataclass(frozen=True)
class CourseFile:
    """What a file of guesses holds, and a hand-in."""

    guesses: tuple[Entry, ...] = ()
    """One for each question."""
    checks: tuple[Passed, ...] = ()
    """One for each exercise that was passed."""
    runs: tuple[RunOutcome, ...] = ()
    """What became of runs; a file of guesses has none."""
    name: str = ""
    """Whose it is; a file of guesses does not say."""


# Reading.


def read_course_file(path: Path, kind: str) -> CourseFile:
    """What a file holds; ValueError in a sentence if it is damaged, too large, or of another kind."""
    check_ordinary(path)
    with open(path, "rb") as file:
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise ValueError(f"it must have at most {MOST_BYTES:,} bytes, got more")
    return parse_course_file(text, kind)


def parse_course_file(text: bytes, kind: str) -> CourseFile:
    """What the text of a file says; ValueError in a sentence if it says anything else."""
    parts = parse(text) if text.strip() else {"format": kind, "version": 1}
    if not isinstance(parts, dict) or (parts.get("format"), parts.get("version")) != (kind, 1):
        raise ValueError(f"it is no file of {kind}, version 1")
    return CourseFile(
        read_list(parts, "guesses", read_entry),
        read_list(parts, "checks", read_passed),
        read_list(parts, "runs", read_outcome),
        read_text(parts, "name"),
    )


def read_list(parts: Any, name: str, read: Callable[[dict[str, Any]], T]) -> tuple[T, ...]:
    """The objects of a list; ValueError that names the list and the place of the first that does not fit."""
    found = parts.get(name, [])
    if not isinstance(found, list) or len(found) > MOST_ENTRIES:
        raise ValueError(f"{name} must be a list of at most {MOST_ENTRIES} objects, got {quote(found)}")
    values = []
    for index, part in enumerate(found):
        if not isinstance(part, dict):
            raise ValueError(f"{name}[{index}] must be an object, got {quote(part)}")
        try:
            values.append(read(part))
        except ValueError as error:
            raise ValueError(f"{name}[{index}].{error}") from None
    return tuple(values)


def read_entry(part: dict[str, Any]) -> Entry:
    """One question and its guesses."""
    unit = part.get("unit")
    if unit not in (None, *UNITS):
        raise ValueError(f"unit must be null or one of {', '.join(UNITS)}, got {quote(unit)}")
    measured = None if part.get("measured") is None else read_value(part, "measured")
    attempts = read_list(part, "attempts", read_attempt)
    return Entry(read_text(part, "question"), read_text(part, "notebook"), unit, attempts, measured)


def read_attempt(part: dict[str, Any]) -> Attempt:
    """One guess."""
    sure = part.get("sure")
    if sure is not None:
        sure = check_sure(sure)
    return Attempt(read_value(part, "value"), sure, read_text(part, "at"), part.get("informed") is True)


def read_passed(part: dict[str, Any]) -> Passed:
    """One exercise that was passed."""
    return Passed(read_text(part, "name"), read_text(part, "notebook"), read_text(part, "at"))


def read_outcome(part: dict[str, Any]) -> RunOutcome:
    """What became of one run."""
    first = part.get("first_nonfinite")
    return RunOutcome(
        read_text(part, "link", LONGEST_LINK),
        read_count(part, "updates"),
        None if first is None else read_count(part, "first_nonfinite"),
    )


def read_text(part: Mapping[str, Any], name: str, longest: int = LONGEST_TEXT) -> str:
    """A text of limited length; empty where it is left out."""
    return check_text(name, part.get(name, ""), longest)


def read_count(part: Mapping[str, Any], name: str) -> int:
    """A whole number of updates."""
    value = part.get(name)
    if type(value) is not int or not 0 <= value <= 10**12:
        raise ValueError(f"{name} must be a whole number in [0, 1e12], got {quote(value)}")
    return value


def read_value(part: Mapping[str, Any], name: str) -> Value:
    """A number, where nan, inf and -inf may be texts."""
    value = part.get(name)
    try:
        return NOT_FINITE[value] if isinstance(value, str) and value in NOT_FINITE else check_value(name, value)
    except TypeError as error:
        raise ValueError(error) from None


# Checks.


def check_value(name: str, value: Any) -> Value:
    """A number as a plain bool, int or float, from numpy's and torch's too; TypeError in a sentence if it is none."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # of numpy or torch
        value = value.item()
    if isinstance(value, bool):
        return value
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number in [-inf, inf] or NaN, got {quote(value)}")
    if isinstance(value, numbers.Integral) and abs(int(value)) < 2**53:
        return int(value)
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must lie in [-1.8e308, 1.8e308] or be inf, got {quote(value)}") from None


def check_sure(sure: Any) -> float:
    """How sure somebody is, from 0 to 1; ValueError in a sentence if it is no such number."""
    if isinstance(sure, bool) or not isinstance(sure, numbers.Real) or not 0 <= float(sure) <= 1:
        raise ValueError(f"sure must lie in [0, 1], got {quote(sure)}")
    return float(sure)


def check_text(name: str, text: Any, longest: int = LONGEST_TEXT) -> str:
    """A text of limited length that can be written as UTF-8; ValueError in a sentence if it is none."""
    if not isinstance(text, str) or len(text) > longest:
        raise ValueError(f"{name} must be a text of at most {longest} characters, got {quote(text)}")
    if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        raise ValueError(f"{name} must be text that can be written as UTF-8, got {quote(text)}")
    return text


# Writing.


def describe_course_file(content: CourseFile, kind: str) -> dict[str, Any]:
    """A file's content as plain values of JSON; the README says what they mean."""
    return {
        "format": kind,
        "version": 1,
        **({"name": content.name} if content.name else {}),
        "guesses": [describe(entry) | {"attempts": describe_all(entry.attempts)} for entry in content.guesses],
        "checks": describe_all(content.checks),
        **({"runs": describe_all(content.runs)} if content.runs else {}),
    }


def describe_all(values: Sequence[Any]) -> list[dict[str, Any]]:
    """The fields of each value."""
    return [describe(value) for value in values]


def describe(value: Any) -> dict[str, Any]:
    """The fields of a value, with what is not finite as text."""
    return {name: write_number(part) for name, part in vars(value).items()}


def write_number(value: Any) -> Any:
    """A number that JSON knows, or its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
