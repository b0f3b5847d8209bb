"""Claims over many seeds: measured once by `tests/benchmarks/lab_claims.py`, kept in a file, held against sentences."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results" / "labs"


@dataclass(frozen=True)
class Claim:
    """What a lab says of many seeds."""

    name: str
    """The number of the lab and a word, as in "08_throw"; the file in `tests/benchmarks/results/labs` is named so."""
    measure: Callable[[int], Mapping[str, float]]
    """Seed -> what is measured of it, by name; NaN and inf are values like any other."""
    seeds: tuple[int, ...] = tuple(range(32))
    """The seeds that the sentence speaks of."""
    again: tuple[int, int] = (0, 1)
    """The two seeds that the tests measure anew."""
    tolerance: float = 0.01
    """By what share the value measured anew may differ."""


def list_claims() -> list[Claim]:
    """The claims of all modules `claims_NN.py` beside this one."""
    return [claim for path in sorted(HERE.glob("claims_*.py")) for claim in import_module(path.stem).CLAIMS]


def find_file(name: str) -> Path:
    """Where a claim's values are kept."""
    return RESULTS / f"{name}.json"


def write_values(name: str, values: Mapping[int, Mapping[str, float]]) -> None:
    """Keep the values of a claim, a line a seed."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    lines = [f'  "{seed}": {json.dumps({key: float(value) for key, value in values[seed].items()})}' for seed in values]
    find_file(name).write_text("{\n" + ",\n".join(lines) + "\n}\n")


@cache
def read_values(name: str) -> dict[int, dict[str, float]]:
    """Seed -> the values of a claim, by name."""
    return {int(seed): values for seed, values in json.loads(find_file(name).read_text()).items()}


def read_column(name: str, key: str) -> np.ndarray:
    """One value of a claim for all its seeds, in their order."""
    return np.array([values[key] for values in read_values(name).values()])


def read_seeds(name: str, key: str) -> np.ndarray:
    """One value of a claim for its 32 seeds."""
    column = read_column(name, key)
    assert len(column) == 32
    return column


def find_extent(column: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest of the values of 32 seeds."""
    assert len(column) == 32
    return float(min(column)), float(max(column))


def read_extent(name: str, key: str) -> tuple[float, float]:
    """The smallest and the largest value of a claim over its 32 seeds."""
    return find_extent(read_seeds(name, key))


def read_preset_row(preset: str, name: str) -> list[str]:
    """The cells of a row of the table of a preset over 32 seeds."""
    text = (RESULTS.parent / "presets.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {preset}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    (row,) = re.findall(rf"^\| {name} \|(.*) \|$", section, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


def read_spread(cell: str) -> tuple[float, ...]:
    """Least, median and largest of a cell."""
    return tuple(map(float, cell.split(" / ")))
