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
from cnnlab.config.settings import LIMITS, Number, Settings, quote

Axis = tuple[str, tuple[float, ...]]
"""A field's name and its values, in rising order."""
MOST_RUNS = 2**18
"""Most runs of a map: 64 x 64 cells of 64 seeds."""
MOST_STEPS = 100_000
"""Most updates of each run of a map."""
MOST_BYTES = 4 * 2**30
"""Most memory for the costs of a map."""


def is_axis(name: str, values: Any) -> bool:
    """Whether a field is given as an axis: several values for what is one number."""
    if isinstance(LIMITS.get(name), Number):
        if isinstance(values, np.ndarray):
            return values.ndim > 0
        return isinstance(values, Sequence) and not isinstance(values, (str, bytes))
    if isinstance(values, (list, np.ndarray)) and name != "hidden":
        known = name if name in LIMITS else quote(name)
        said = f"an axis must be a numeric field, and {known} is not"
        raise TypeError(f"{said}: it takes one value, got {quote(values)}")
    return False


def check_axis(name: str, values: Any) -> Axis:
    """An axis checked against its field's range."""
    if name in ("seed", "epochs"):
        raise TypeError(f"{name} is no axis of a map: pass {'seeds' if name == 'seed' else 'steps'}= instead")
    with contextlib.suppress(ValueError):  # of rows that are not alike: then the first of them is refused below
        if np.ndim(values) != 1:
            raise TypeError(f"{name} must be one row of numbers, got an array of shape {np.shape(values)}")
    found = [value.item() if isinstance(value, np.generic) else value for value in values]
    if LIMITS[name].whole:  # type: ignore[union-attr]
        found = [int(value) if isinstance(value, float) and value.is_integer() else value for value in found]
    checked = [LIMITS[name].check(f"{name}[{place}]", value) for place, value in enumerate(found)]
    if None in checked:
        raise TypeError(f"{name} must hold numbers where it is an axis, got None at place {checked.index(None)}")
    numbers_found = tuple(float(value) for value in checked)  # type: ignore[arg-type]
    if len(set(numbers_found)) < 2:
        raise ValueError(
            f"an axis needs two values or more, and {name} has {len(set(numbers_found))}; one is set as {name}=number"
        )
    if list(numbers_found) != sorted(set(numbers_found)):
        raise ValueError(f"the values of {name} must rise, each of them once")
    return name, numbers_found


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


def check_corners(start: Settings, axes: Sequence[Axis]) -> None:
    """ValueError or TypeError unless the ends of the axes go together with the settings."""
    for corner in itertools.product(*([(name, end) for end in (values[0], values[-1])] for name, values in axes)):
        start.replace(**convert_values(dict(corner)))


def convert_values(changes: dict[str, float]) -> dict[str, float | int]:
    """Values of axes as their fields want them: whole numbers as int."""
    return {name: int(value) if LIMITS[name].whole else value for name, value in changes.items()}  # type: ignore[union-attr]
