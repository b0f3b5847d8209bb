"""What a map is of: axes, seeds and steps, in the limits that hold for a sweep and for a file. Settings and numpy."""

from __future__ import annotations

import contextlib
import itertools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnnlab.config.errors import check_whole_number
from cnnlab.config.settings import LIMITS, Choice, Number, Settings, quote

Axis = tuple[str, tuple[float | str, ...]]
"""A field's name and its values: numbers in rising order, or some of its choices."""
NO_AXIS = {
    "seed": "pass seeds= instead",
    "epochs": "pass steps= instead",
    "device": "all runs of a map compute on one",
}
"""Fields that are no axis, and why."""
MOST_RUNS = 2**18
"""Most runs of a map: 64 x 64 cells of 64 seeds."""
MOST_CHECKED = 2**13
"""Most cells that are all checked, which takes half a second."""
MOST_STEPS = 100_000
"""Most updates of each run of a map."""
MOST_BYTES = 4 * 2**30
"""Most memory for the costs of a map."""


def is_axis(name: str, values: Any) -> bool:
    """Whether a field is given as an axis: several values for what is one number, or one choice."""
    if isinstance(LIMITS.get(name), (Number, Choice)):
        if isinstance(values, np.ndarray):
            return values.ndim > 0
        return isinstance(values, Sequence) and not isinstance(values, (str, bytes))
    if isinstance(values, (list, np.ndarray)) and name != "hidden":
        known = name if name in LIMITS else quote(name)
        said = f"an axis must be a field of numbers or of choices, and {known} is neither"
        raise TypeError(f"{said}: it takes one value, got {quote(values)}")
    return False


def check_axis(name: str, values: Any) -> Axis:
    """An axis checked against its field's range."""
    if name in NO_AXIS:
        raise TypeError(f"{name} is no axis of a map: {NO_AXIS[name]}")
    kind = "choices" if is_choice(name) else "numbers"
    with contextlib.suppress(ValueError):  # of rows that are not alike: then the first of them is refused below
        if np.ndim(values) != 1:
            raise TypeError(f"{name} must be one row of {kind}, got an array of shape {np.shape(values)}")
    found = [value.item() if isinstance(value, np.generic) else value for value in values]
    if is_whole(name):
        found = [int(value) if isinstance(value, float) and value.is_integer() else value for value in found]
    checked: list[Any] = [LIMITS[name].check(f"{name}[{place}]", value) for place, value in enumerate(found)]
    if None in checked:
        raise TypeError(f"{name} must hold numbers where it is an axis, got None at place {checked.index(None)}")
    if not is_choice(name):
        checked = [float(value) for value in checked]
    if len(set(checked)) < 2:
        raise ValueError(
            f"an axis needs two values or more, and {name} has {len(set(checked))}; one is set as {name}={kind[:-1]}"
        )
    if is_choice(name) and len(set(checked)) < len(checked):
        raise ValueError(f"the choices of {name} must each be there once")
    if not is_choice(name) and checked != sorted(set(checked)):
        raise ValueError(f"the values of {name} must rise, each of them once")
    return name, tuple(checked)


def is_choice(name: str) -> bool:
    """Whether a field holds one of some names, between which there is nothing."""
    return isinstance(LIMITS[name], Choice)


def is_whole(name: str) -> bool:
    """Whether a field holds a whole number."""
    limit = LIMITS[name]
    return isinstance(limit, Number) and limit.whole


def check_seeds(seeds: Any, start: Settings) -> tuple[int, ...]:
    """The seeds of a map; a number of them begins with that of the settings."""
    if isinstance(seeds, numbers.Integral) and not isinstance(seeds, bool):
        count = check_whole_number("seeds", seeds, 1, MOST_RUNS)
        return tuple((start.seed + place) % 2**32 for place in range(count))
    if isinstance(seeds, (str, bytes)) or not isinstance(seeds, (Sequence, np.ndarray)) or not len(seeds):
        raise TypeError(f"seeds must be how many, or a list of them, got {quote(seeds)}")
    chosen = tuple(check_whole_number(f"seeds[{place}]", seed, 0, 2**32 - 1) for place, seed in enumerate(seeds))
    if len(set(chosen)) < len(chosen):
        raise ValueError("seeds must each be there once")
    return chosen


def check_size(
    axes: Sequence[tuple[str, Sequence[Any]]], seeds: int, steps: int, told: Callable[[int], str] = lambda runs: ""
) -> None:
    """ValueError for more axes, runs or memory than a map may have; `told` says what so many runs would take."""
    if len(axes) > 2:
        raise ValueError(f"a map has two axes at most, got {len(axes)}: {', '.join(name for name, _ in axes[:5]):.80}")
    cells = math.prod(len(values) for _, values in axes)
    runs = cells * seeds
    if runs > MOST_RUNS:
        raise ValueError(
            f"a map of {cells:,} cells and {seeds:,} seeds is {runs:,} runs, at most {MOST_RUNS:,} are allowed"
            f"{told(runs)}"
        )
    if (size := count_bytes(runs, steps)) > MOST_BYTES:
        raise ValueError(
            f"a map of {runs:,} runs of {steps:,} steps needs {size / 2**30:.1f} GiB of memory, at most "
            f"{MOST_BYTES / 2**30:g} are allowed: ask for fewer runs or steps"
        )


def count_bytes(runs: int, steps: int) -> int:
    """Bytes of the numbers of a map."""
    return runs * (steps + 5) * 8


def check_cells(start: Settings, axes: Sequence[Axis]) -> None:
    """ValueError or TypeError unless the values of the axes go together with the settings.

    Of a range without gaps the ends are enough, and of more counts than MOST_CHECKED; a choice or a count between
    others may be the one that cannot be.
    """
    telling = [list_telling(name, values) for name, values in axes]
    if math.prod(map(len, telling)) > MOST_CHECKED:
        telling = [values if is_choice(name) else values[:1] + values[-1:] for name, values in axes]
    for cell in itertools.product(*telling):
        start.replace(**convert_values({name: value for (name, _), value in zip(axes, cell, strict=True)}))


def list_telling(name: str, values: tuple[float | str, ...]) -> tuple[float | str, ...]:
    """The values of an axis that tell whether all of them can be."""
    return values if is_choice(name) or is_whole(name) else values[:1] + values[-1:]


def convert_values(changes: dict[str, float | str]) -> dict[str, float | int | str]:
    """Values of axes as their fields want them: whole numbers as int."""
    return {name: int(value) if is_whole(name) else value for name, value in changes.items()}
