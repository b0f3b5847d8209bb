"""Guesses that are kept before the answer is shown, and compared with what is measured then."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from cnnlab.config.settings import quote
from cnnlab.course.entries import (
    MOST_ENTRIES,
    UNITS,
    Attempt,
    CourseFile,
    Entry,
    Value,
    check_sure,
    check_text,
    check_value,
)
from cnnlab.course.guess_file import change_guess_file, now, read_guess_file
from cnnlab.course.notebook import Notebook, find_notebook
from cnnlab.records.formats import format_number

COUNTED = 100
"""Whole numbers up to this one are compared by their difference, larger ones by a factor."""

SHOWN: set[tuple[Notebook, str]] = set()
"""Questions whose measured value this kernel has shown before there was a guess."""


@dataclass(frozen=True)
class Guess:
    """What the user expects to be measured; open until they say it."""

    question: str
    """What is asked, which is the guess's name within its notebook."""
    value: Value | None = None
    """The guess that stands; None while it is open."""
    sure: float | None = None
    """How sure the user is, from 0 to 1; None if they did not say."""
    unit: str | None = None
    """What tells how close it is: "factor", "difference", "percent", "sign"; None: chosen by the values."""
    earlier: tuple[Value, ...] = ()
    """The guesses that were replaced, the first one first."""

    def compare(self, measured: Any) -> Comparison:
        """The guess beside what was measured, which is kept with it. None, for what never came, is inf."""
        value = math.inf if measured is None else check_value("measured", measured)
        notebook = find_notebook()
        if self.value is None:
            SHOWN.add((notebook, self.question))
        else:
            change_guess_file(
                notebook.folder,
                lambda content: put(content, notebook, self.question, lambda entry: replace(entry, measured=value)),
            )
        return Comparison(self, value)

    def __repr__(self) -> str:
        return f"guess of {self.question!r}: {describe_guess(self)}"


@dataclass(frozen=True)
class Comparison:
    """A guess beside the measured value."""

    guess: Guess
    """What was expected."""
    measured: Value
    """What was measured."""

    @property
    def closeness(self) -> str:
        """How close the guess is, in words; empty while it is open."""
        guess = self.guess
        return "" if guess.value is None else describe_closeness(guess.value, self.measured, guess.unit)

    def __repr__(self) -> str:
        said = f"Your guess: {describe_guess(self.guess)}. Measured: {show_value(self.measured, self.guess.unit)}."
        return f"{said} {self.closeness}" if self.closeness else said

    def _repr_html_(self) -> str:
        said = f"Your guess: {describe_guess(self.guess)}. Measured: "
        value = show_value(self.measured, self.guess.unit)
        return f"<p>{escape(said)}<b>{escape(value)}</b>. {escape(self.closeness)}</p>"


def guess(
    question: str, value: Any = ..., *, sure: float | None = None, unit: str | None = None, again: bool = False
) -> Guess:
    """Keep a guess beside the notebook before the answer is shown; `.compare(measured)` shows both.

    The dots leave the guess open. The first guess stands; `again=True` replaces it, and both are kept. `sure` is from 0
    to 1. `unit` tells how close the guess is: "factor", "difference" (of counts), "percent" (of shares from 0 to 1) or
    "sign" (the same side of 0). ValueError or TypeError in one sentence for anything else, and nothing is changed.
    """
    check_question(question)
    if unit not in (None, *UNITS):
        raise ValueError(f"unit must be None or one of {', '.join(map(repr, UNITS))}, got {quote(unit)}")
    sure = None if sure is None else check_sure(sure)
    notebook = find_notebook()
    if value is ...:
        kept = find_entry(read_guess_file(notebook.folder), notebook, question)
        return make_guess(kept or Entry(question), unit)
    attempt = Attempt(check_value("value", value), sure, now())
    return make_guess(keep_attempt(notebook, question, attempt, unit, again), unit)


def check_question(question: Any) -> None:
    """ValueError in a sentence if a question is no text, or is empty."""
    if not check_text("question", question).strip():
        raise ValueError("question must be a text of 1 to 300 characters, got ''")


def keep_attempt(notebook: Notebook, question: str, attempt: Attempt, unit: str | None, again: bool) -> Entry:
    """Keep a guess where it is the first or replaces one, and say what was done if anything was."""
    said = ""

    def add(entry: Entry) -> Entry:
        nonlocal said
        if entry.attempts and same(entry.attempts[-1].value, attempt.value):
            return replace(entry, unit=unit)
        if entry.attempts and not again:
            first = show_value(entry.attempts[-1].value, unit)
            said = f"Your guess {first} stands; again=True replaces it with {show_value(attempt.value, unit)}."
            return replace(entry, unit=unit)
        if len(entry.attempts) >= MOST_ENTRIES:
            raise ValueError(f"a guess can be replaced at most {MOST_ENTRIES - 1} times")
        said = f"Your guess is kept: {show_value(attempt.value, unit)}."
        informed = replace(attempt, informed=entry.measured is not None or (notebook, question) in SHOWN)
        return replace(entry, unit=unit, attempts=(*entry.attempts, informed))

    content = change_guess_file(notebook.folder, lambda content: put(content, notebook, question, add))
    if said:
        print(said)
    entry = find_entry(content, notebook, question)
    assert entry is not None
    return entry


def find_entry(content: CourseFile, notebook: Notebook, question: str) -> Entry | None:
    """What is kept about a question of a notebook; a notebook without a name is taken for any."""
    same_question = [entry for entry in content.guesses if entry.question == question]
    exact = [entry for entry in same_question if entry.notebook == notebook.name]
    loose = [entry for entry in same_question if "" in (entry.notebook, notebook.name)]
    return next(iter(exact + loose), None)


def put(content: CourseFile, notebook: Notebook, question: str, change: Callable[[Entry], Entry]) -> CourseFile:
    """A file's content with the entry of one question changed, or made."""
    found = find_entry(content, notebook, question)
    if found is None and len(content.guesses) >= MOST_ENTRIES:
        raise ValueError(f"a folder keeps at most {MOST_ENTRIES} guesses")
    changed = change(found or Entry(question, notebook.name))
    others = [changed if entry is found else entry for entry in content.guesses]
    return replace(content, guesses=tuple(others if found else [*others, changed]))


def make_guess(entry: Entry, unit: str | None) -> Guess:
    """What the user holds of what is kept."""
    *earlier, last = entry.attempts or (None,)
    values = tuple(attempt.value for attempt in earlier if attempt is not None)
    unit = unit or entry.unit
    return (
        Guess(entry.question, unit=unit) if last is None else Guess(entry.question, last.value, last.sure, unit, values)
    )


# Words.


def describe_guess(guess: Guess) -> str:
    """A guess in words: its value and how sure, or that it is open."""
    if guess.value is None:
        return "open"
    sure = f" ({guess.sure:.0%} sure)" if guess.sure is not None else ""
    return f"{show_value(guess.value, guess.unit)}{sure}"


def show_value(value: Value, unit: str | None) -> str:
    """A value as a page shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if unit == "percent" and math.isfinite(value):
        return f"{100 * value:.3g} %"
    return str(value) if isinstance(value, int) and abs(value) < 1e6 else format_number(float(value))


def same(one: Value, other: Value) -> bool:
    """Whether two values are equal, NaN and NaN included."""
    return one == other or (one != one and other != other)


def describe_closeness(guess: Value, measured: Value, unit: str | None) -> str:
    """How close a guess is, as a sentence in the unit that suits."""
    if isinstance(guess, bool) or isinstance(measured, bool):
        return "Right." if bool(guess) == bool(measured) else "It is the other way round."
    if same(guess, measured):
        return "Exactly right."
    unit = unit or choose_unit(guess, measured)
    if unit == "sign":
        return f"{'The same side' if side(guess) == side(measured) else 'Not the same side'} of 0."
    if math.isnan(guess) or math.isnan(measured):
        return "One of the two is NaN, the other is not."
    high = "high" if guess > measured else "low"
    if math.isinf(guess) or math.isinf(measured):
        return f"Infinitely too {high}."
    if unit == "factor" and guess * measured != 0 and side(guess) == side(measured):
        return describe_factor(guess, measured)
    if unit == "percent":
        return f"{100 * abs(guess - measured):.3g} percentage points too {high}."
    return f"Too {high} by {show_value(abs(guess - measured), None)}."


def describe_factor(guess: Value, measured: Value) -> str:
    """How many times too high or too low a guess is."""
    distance = abs(math.log(abs(guess)) - math.log(abs(measured)))
    factor = math.exp(min(distance, 709))
    size = "high" if abs(guess) > abs(measured) else "low"
    return "Right to within 1 %." if factor < 1.01 else f"Too {size} by a factor of {format_number(factor)}."


def choose_unit(guess: Value, measured: Value) -> str:
    """What tells how close two numbers are: counts by their difference, others by a factor, or by their signs."""
    if side(guess) * side(measured) == -1:
        return "sign"
    counts = all(math.isfinite(value) and value == int(value) and abs(value) <= COUNTED for value in (guess, measured))
    return "difference" if counts else "factor"


def side(value: Value) -> int:
    """-1 below 0, 1 above, and 0 on it or for NaN."""
    return (value > 0) - (value < 0)


def is_within_factor_two(guess: Value, measured: Value, unit: str | None) -> bool:
    """Whether a guess counts as right: within a factor of 2, or on the same side where the sign was asked."""
    if isinstance(guess, bool) or isinstance(measured, bool):
        return bool(guess) == bool(measured)
    if unit == "sign" or same(guess, measured):
        return same(guess, measured) or side(guess) == side(measured) != 0
    if side(guess) != side(measured) or not (math.isfinite(guess) and math.isfinite(measured)):
        return False
    return bool(abs(measured) / 2 <= abs(guess) <= abs(measured) * 2)
