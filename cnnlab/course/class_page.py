"""The guesses of a class on one page that stands alone: the spread of each question, and who was sure and wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnlab.config.errors import describe_problem
from cnnlab.config.links import opened
from cnnlab.course.calibration import Scored, score
from cnnlab.course.entries import CourseFile, Entry, Value
from cnnlab.course.guesses import show_value
from cnnlab.course.hand_in import read_hand_in
from cnnlab.records.atomic_files import write_atomically
from cnnlab.records.formats import format_count

PAGE = "class.html"
"""What the page is called."""
MARK = "<!-- made by cnnlab class -->"
"""What it holds at its second line, so that no other page is replaced."""
MOST_FILES = 1000
"""Most hand-ins on a page."""
MOST_RUNS = 5000
"""Most runs on a page."""
WIDTH, MARGIN, NOT_FINITE = 640.0, 20.0, 700.0
"""Width of a plot, its margin, and where values that are not finite are drawn."""
LOGARITHMIC = 20.0
"""Ratio of largest to smallest from which a plot is logarithmic."""


@dataclass(frozen=True)
class Dot:
    """One guess or run on a plot."""

    x: float
    """Pixels from the left."""
    y: float
    """Pixels from the top."""
    words: str
    """What its tooltip says."""
    right: bool
    """Whether the guess is within a factor of 2, or the run stayed finite."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis with its number."""

    place: float
    """Pixels from the left, or from the top."""
    words: str
    """The number."""


@dataclass(frozen=True)
class Question:
    """What a class guessed about one question."""

    title: str
    """The question."""
    notebook: str
    """Where it was asked."""
    measured: str
    """What most have measured, in words."""
    summary: str
    """How many were right, in words."""
    dots: tuple[Dot, ...]
    """One for each guess."""
    ticks: tuple[Tick, ...]
    """The axis."""
    line: float
    """Where the measured value lies."""
    sure_and_wrong: tuple[str, ...]
    """Who was at least 80 % sure and not within a factor of 2, with their guess."""


@dataclass(frozen=True)
class RunMap:
    """The runs of a class by learning rate and initial scale."""

    dots: tuple[Dot, ...]
    """One for each run."""
    rates: tuple[Tick, ...]
    """The axis of the learning rate."""
    scales: tuple[Tick, ...]
    """The axis of the initial scale."""


@dataclass(frozen=True)
class ClassPage:
    """The page that was written, and what was refused."""

    path: Path
    """The page."""
    students: int
    """How many hand-ins are on it."""
    refused: tuple[str, ...]
    """A sentence for each file that is not."""


def make_class_page(folder: Path) -> ClassPage:
    """Make one page of all hand-ins (*.json) in a folder, beside them.

    NotADirectoryError or ValueError in a sentence if there is none, or if another page would be replaced.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"there is no folder {folder}")
    found: dict[str, CourseFile] = {}
    refused = []
    for path in sorted(folder.glob("*.json"))[:MOST_FILES]:
        try:
            handed_in = read_hand_in(path)
            found[name_student(handed_in.name or path.stem, found)] = handed_in
        except (ValueError, OSError) as error:
            refused.append(f"{path.name} is left out: {describe_problem(error)}")
    if not found:
        raise ValueError(f"there is no hand-in in {folder}: {'; '.join(refused) or 'it has no file *.json'}")
    write_page(folder / PAGE, render_page(found))
    return ClassPage(folder / PAGE, len(found), tuple(refused))


def name_student(name: str, known: Iterable[str]) -> str:
    """A name that nobody on the page has yet."""
    number, free = 1, name
    while free in known:
        number += 1
        free = f"{name} ({number})"
    return free


def write_page(path: Path, text: str) -> None:
    """Write the page in place of an earlier one; ValueError if something else lies there."""
    if path.exists() and not (path.is_file() and MARK.encode() in path.read_bytes()[:200]):
        raise ValueError(f"{path} was not made by cnnlab class; move it away first")
    with write_atomically(path) as file:
        file.write(text.encode())


def render_page(found: dict[str, CourseFile]) -> str:
    """The page's text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cnnlab.course"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("class.html")
    return page.render(students=sorted(found), questions=list_questions(found), runs=map_runs(found))


# Questions.


def list_questions(found: dict[str, CourseFile]) -> list[Question]:
    """The questions that somebody has guessed and measured, in the order of the notebooks."""
    asked: dict[tuple[str, str], list[tuple[str, Scored, Entry]]] = {}
    for name, content in found.items():
        for entry in content.guesses:
            if scored := score(entry):
                asked.setdefault((entry.notebook, entry.question), []).append((name, scored, entry))
    # Within a notebook the order is that in which the first student was asked.
    return [describe_question(*key, asked[key]) for key in sorted(asked, key=lambda key: key[0])]


def describe_question(notebook: str, title: str, answers: Sequence[tuple[str, Scored, Entry]]) -> Question:
    """The spread of the guesses at one question."""
    unit = answers[0][2].unit
    values = [float(scored.value) for _, scored, _ in answers]
    measured: Value = Counter(scored.measured for _, scored, _ in answers).most_common(1)[0][0]
    axis = Axis.fit([*values, float(measured)])
    right = sum(scored.right for _, scored, _ in answers)
    heights = stack([axis.place(value) for value in values])
    dots = tuple(
        Dot(axis.place(value), height, describe_guess(name, scored, unit), scored.right)
        for (name, scored, _), value, height in zip(answers, values, heights, strict=True)
    )
    return Question(
        title,
        notebook,
        show_value(measured, unit),
        f"{right} of {len(answers)} within a factor of 2",
        dots,
        axis.ticks(),
        axis.place(float(measured)),
        tuple(describe_guess(name, scored, unit) for name, scored, _ in answers if scored.sure_and_wrong),
    )


def describe_guess(name: str, scored: Scored, unit: str | None) -> str:
    """Who guessed what, and how sure."""
    sure = f", {scored.sure:.0%} sure" if scored.sure is not None else ""
    return f"{name}: {show_value(scored.value, unit)}{sure}"


def stack(places: Sequence[float]) -> list[float]:
    """A height for each dot, so that those of one place stand above each other."""
    counts: Counter[int] = Counter()
    heights = []
    for place in places:
        column = int(place // 8)
        heights.append(80 - 8.0 * min(counts[column], 9))
        counts[column] += 1
    return heights


@dataclass(frozen=True)
class Axis:
    """From values to pixels."""

    low: float
    """The least value that is finite."""
    high: float
    """The largest one."""
    logarithmic: bool
    """Whether equal distances are equal factors."""

    @classmethod
    def fit(cls, values: Iterable[float]) -> Axis:
        """The axis that shows all values; those that are not finite stand beside it."""
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        return cls(low, high, low > 0 and high / low > LOGARITHMIC)

    def place(self, value: float) -> float:
        """Where a value lies, in pixels from the left."""
        if not math.isfinite(value):
            return NOT_FINITE
        return MARGIN + (WIDTH - 2 * MARGIN) * self.share(value)

    def share(self, value: float) -> float:
        """Where a value lies between the ends, from 0 to 1."""
        if self.low == self.high:
            return 0.5
        if self.logarithmic:
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(value) - low) / (high - low)
        # Halves, for the difference of two huge numbers is infinite.
        return (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)

    def ticks(self) -> tuple[Tick, ...]:
        """Both ends, and the middle."""
        if self.low == self.high:
            return (Tick(self.place(self.low), show_value(self.low, None)),)
        middle = math.sqrt(self.low) * math.sqrt(self.high) if self.logarithmic else self.low / 2 + self.high / 2
        return tuple(Tick(self.place(value), show_value(value, None)) for value in (self.low, middle, self.high))


# Runs.


def map_runs(found: dict[str, CourseFile]) -> RunMap | None:
    """All runs by learning rate and initial scale; None if nobody handed in one. A link that is none is left out."""
    runs = []
    for name, content in found.items():
        for outcome in content.runs:
            try:
                start, _ = opened(outcome.link)
            except (ValueError, TypeError):
                continue
            broke = outcome.first_nonfinite
            end = (
                f"not finite from update {broke}"
                if broke
                else f"finite after {format_count(outcome.updates, 'update')}"
            )
            runs.append((start.learning_rate, start.init_scale, f"{name}: {outcome.link}, {end}", not broke))
    runs = runs[:MOST_RUNS]
    if not runs:
        return None
    rates, scales = Axis.fit(run[0] for run in runs), Axis.fit(run[1] for run in runs)
    dots = tuple(Dot(rates.place(rate), turn(scales.place(scale)), words, right) for rate, scale, words, right in runs)
    return RunMap(dots, rates.ticks(), tuple(Tick(turn(tick.place), tick.words) for tick in scales.ticks()))


def turn(place: float) -> float:
    """A place from the left as one from the top, in a plot of half the height."""
    return (WIDTH - place) / 2
