"""The lines of a map's file, in strict JSON: what it is a map of, then a line for each run. Settings and numpy.

A file may be untrusted: what it says that it is a map of has the limits of a sweep.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from collections.abc import Iterator, Sequence
from io import BufferedReader
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.errors import check_whole_number
from cnnlab.config.settings import Settings, quote, settings
from cnnlab.records import bounded_json
from cnnlab.records.bounded_json import read_field
from cnnlab.records.map_plans import (
    MOST_STEPS,
    Axis,
    check_axis,
    check_cells,
    check_seeds,
    check_size,
    is_axis,
    is_choice,
)

LONGEST = 2**24
"""Most bytes of a line: the first one of a map of the most runs has 10 million."""
NOT_FINITE = ("nan", "inf", "-inf")
"""Numbers that strict JSON holds as texts."""
Plan = tuple[Settings, tuple[Axis, ...], tuple[int, ...], int]
"""What a map is of: settings, axes, seeds, steps."""


def format_heading(start: Settings, axes: Sequence[Axis], seeds: Sequence[int], steps: int) -> str:
    """The first line of a file: what it is a map of."""
    what = {"settings": dataclasses.asdict(start), "axes": axes, "seeds": seeds, "steps": steps}
    return json.dumps({"cnnlab map": 1, **what})


def format_run(index: int, cost: NDArray[np.float64], began: float, ended: float, held_out: float) -> str:
    """A line of a file: the run of that number, the last axis fastest."""
    bad = np.flatnonzero(~np.isfinite(cost))
    told = [format_number(value) for value in cost[: bad[0] + 1 if len(bad) else None]]
    numbers = {"began": began, "ended": ended, "held_out_accuracy": held_out}
    return json.dumps({"run": index, "cost": told, **{name: format_number(value) for name, value in numbers.items()}})


def format_number(value: float) -> float | str:
    """A number as strict JSON can hold it: what is not finite as text."""
    return float(value) if math.isfinite(value) else str(float(value))


def read_lines(file: BufferedReader) -> Iterator[bytes]:
    """The lines of a file but for a last one that was cut short; ValueError if one is longer than any of ours."""
    while (line := file.readline(LONGEST + 1)).endswith(b"\n"):
        yield line
    if len(line) > LONGEST:
        raise ValueError(f"a line may be {LONGEST} bytes long at most")


def parse_plan(line: bytes) -> Plan:
    """What the first line says that a file is a map of; ValueError or TypeError if no sweep makes such a map."""
    told = bounded_json.parse(line)
    if not isinstance(told, dict) or told.get("cnnlab map") != 1:
        raise ValueError("it is of another kind or version")
    start, seeds = settings(**read_field(told, "settings", dict)), read_field(told, "seeds", list)
    given = read_field(told, "axes", list)
    steps = check_whole_number("steps", read_field(told, "steps", int), 1, MOST_STEPS)
    for pair in given:
        if not (isinstance(pair, list) and [type(part) for part in pair] == [str, list]):
            raise ValueError(f"axes must hold pairs of a field and its values, got {reprlib.repr(pair)}")
    check_size(given, len(seeds), steps)
    axes = tuple(parse_axis(name, values) for name, values in given)
    if len({name for name, _ in axes}) < len(axes):
        raise ValueError(f"axes must be of two fields, got {axes[0][0]} twice")
    check_cells(start, axes)
    return start, axes, check_seeds(seeds, start), steps


def parse_axis(name: str, values: list[Any]) -> Axis:
    """An axis as a sweep would take it."""
    if not is_axis(name, values):
        raise ValueError(f"an axis must be a field of numbers or of choices, and {name:.40} is neither")
    kinds, known = ({str}, "names") if is_choice(name) else ({int, float}, "numbers")
    if not set(map(type, values)) <= kinds:
        raise ValueError(f"the values of {name} must be {known}, got {reprlib.repr(values)}")
    return check_axis(name, values)


def parse_run(line: bytes, runs: int, steps: int) -> tuple[int, NDArray[np.float64], float, float, float]:
    """The number of a run and its costs, and how it began, ended and did on held-out patches; see `line_of`."""
    told = bounded_json.parse(line)
    index, listed = read_field(told, "run", int), read_field(told, "cost", list)
    if not 0 <= index < runs:
        raise ValueError(f"run must lie in [0, {runs - 1}], got {quote(index)}")
    if not listed or len(listed) > steps:
        raise ValueError(f"run {index} has {len(listed)} costs where {steps} are wanted")
    if not set(map(type, listed[:-1])) <= {int, float}:
        raise ValueError(f"the costs of run {index} must be numbers, and only the last may be not finite")
    try:
        cost = np.array([*listed[:-1], parse_number("cost", listed[-1])], dtype=np.float64)
    except OverflowError:
        raise ValueError(f"the costs of run {index} must be numbers that a float64 can hold") from None
    finite = np.isfinite(cost)
    if not finite[:-1].all():
        raise ValueError(f"the costs of run {index} go on after one that is not finite")
    if finite[-1] and len(cost) != steps:
        raise ValueError(f"run {index} has {len(cost)} costs where {steps} are wanted")
    began, ended, held_out = (parse_number(name, told.get(name)) for name in ("began", "ended", "held_out_accuracy"))
    return index, cost, began, ended, held_out


def parse_number(name: str, value: Any) -> float:
    """A number of a line, where it may be not finite; ValueError for anything else."""
    if type(value) not in (int, float) and value not in NOT_FINITE:
        raise ValueError(f"{name} must be a number or one of {', '.join(NOT_FINITE)}, got {reprlib.repr(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that a float64 can hold, got {quote(value)}") from None
