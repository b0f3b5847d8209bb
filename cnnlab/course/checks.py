"""Checks of the labs' exercises: named cases, and a sentence on the first one that an answer fails."""

from __future__ import annotations

import contextlib
import dis
import linecache
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from cnnlab.config.errors import describe_error
from cnnlab.config.settings import nearest, quote
from cnnlab.course.cases import Case, Function, NotWritten, WrongAnswer
from cnnlab.course.entries import CourseFile, Passed
from cnnlab.course.exercises import EXERCISES
from cnnlab.course.guess_file import change_guess_file, now
from cnnlab.course.notebook import Notebook, find_notebook


@dataclass(frozen=True)
class Verdict:
    """What a check has found."""

    name: str
    """The exercise."""
    passed: bool
    """Whether every case holds."""
    said: str
    """A sentence: how many cases hold, or which one does not, what came and what was asked."""

    def __repr__(self) -> str:
        return self.said

    def _repr_html_(self) -> str:
        colour = "#007a5e" if self.passed else "#b34d00"
        return f'<p style="border-left: 4px solid {colour}; padding-left: 8px">{escape(self.said)}</p>'


def check_answer(name: str, function: Any) -> Verdict:
    """Whether a function of the user solves an exercise, such as "critical_rate"; what is passed is kept for hand_in.

    ValueError if there is no such exercise; whatever the function does wrong is said in the verdict.
    """
    if name not in EXERCISES:
        known = f"name must be one of {', '.join(EXERCISES)}, got {quote(name)}"
        raise ValueError(f"{known}{nearest(name, EXERCISES)}")
    verdict = judge_answer(name, function, EXERCISES)
    if verdict.passed:
        notebook = find_notebook()
        change_guess_file(notebook.folder, lambda content: add_passed(content, notebook, name))
    return verdict


def add_passed(content: CourseFile, notebook: Notebook, name: str) -> CourseFile:
    """A file's content with an exercise that was passed; the first time stands."""
    if any(passed.name == name for passed in content.checks):
        return content
    return replace(content, checks=(*content.checks, Passed(name, notebook.name, now())))


def judge_answer(name: str, function: Any, exercises: Mapping[str, Callable[[], Iterator[Case]]]) -> Verdict:
    """The verdict on an answer: the first case that fails decides."""
    if is_unwritten(function):
        return Verdict(name, False, f"Not yet written: {name} still holds the dots.")
    if not callable(function):
        return Verdict(name, False, f"Not yet: {name} must be a function, got {quote(function)}.")
    count = 0
    for case in exercises[name]():
        try:
            case.judge(guard(name, function))
        except NotWritten:
            return Verdict(name, False, f"Not yet written: {name} gives back the dots.")
        except WrongAnswer as wrong:
            return Verdict(name, False, f"Not yet: {case.name}: {wrong}.")
        count += 1
    return Verdict(name, True, f"Right! All {count} cases hold.")


def is_unwritten(function: Any) -> bool:
    """Whether an answer is the dots, or a function without a line of its own."""
    code = getattr(function, "__code__", None)
    if function is ... or code is None:
        return function is ...
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("RESUME", "NOP")]
    names = [step.opname for step in steps]
    return names in (["LOAD_CONST", "RETURN_VALUE"], ["RETURN_CONST"]) and steps[0].argval is None


def guard(name: str, function: Function) -> Function:
    """The user's function, whose errors are told in a sentence that names the line."""

    def call(*arguments: Any) -> Any:
        try:
            answer = function(*arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise WrongAnswer(f"{name} raised {describe_error(error)}{find_line(error, function)}") from None
        if answer is ...:
            raise NotWritten
        return answer

    return call


def find_line(error: BaseException, function: Function) -> str:
    """Where the user's code raised an error: the last line in the file, or the cell, of their function."""
    with contextlib.suppress(Exception):
        frames = traceback.extract_tb(error.__traceback__)[1:]
        file = getattr(getattr(function, "__code__", None), "co_filename", None)
        own = [frame for frame in frames if file in (None, frame.filename)]
        if own and own[-1].lineno is not None:
            text = linecache.getline(own[-1].filename, own[-1].lineno).strip()
            return f" in line {own[-1].lineno}{f', `{text[:80]}`' if text else ''}"
    return ""
