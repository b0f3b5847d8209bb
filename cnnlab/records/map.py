"""Maps of trainability: what became of many runs, by one or two fields and by seed. Settings and numpy only.

What is not computed takes no memory, nor does what would come after a cost that is NaN or infinite.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cnnlab
from cnnlab.config.errors import check_whole_number, refuse_in_a_sentence
from cnnlab.config.settings import Settings, quote, short
from cnnlab.records.atomic_files import check_ordinary, write_atomically
from cnnlab.records.map_lines import format_heading, format_run, parse_plan, parse_run, read_lines
from cnnlab.records.map_plans import Axis, convert_values, is_choice, is_whole

CONVERGED, STALLED, DIVERGED, UNKNOWN = "converged", "stalled", "diverged", ""
"""The labels of a run; one that is not computed yet has none."""
FALLEN = 0.9
"""A run has converged only if its cost has come below so many times the cost that it began with."""
COIN = math.log(2)
"""The data cost of a patch when each of two classes is given a probability of one half."""
NEAR_COIN = 0.02
"""A cost this close to COIN, as a share of it, is that of a coin: the run has stalled there."""


@dataclass(frozen=True, eq=False)
class Map:
    """What became of runs that differ in one or two fields and in their seed.

    Arrays have the axes in the order given, and the seeds last: (values of the first field, of the second, seeds).
    Without fields they are (seeds,). A cell that is not computed yet is "" among labels, False in `done` and NaN or 0
    elsewhere.

    A run has *diverged* when a cost was NaN or infinite. It has *converged* when its data cost at the end is at most
    0.9 of that at its beginning and not within 2 % of ln 2, the cost of guessing. Any other has *stalled*. Beginning
    and end are means over an epoch's updates, or over a quarter of the run if that is shorter.
    """

    settings: Settings
    """What all runs share."""
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    steps: int
    """How many updates each run has, unless it diverges before."""
    done: NDArray[np.bool_]
    costs: dict[int, NDArray[np.float64]]
    """Number of a run that is computed, the last axis fastest -> its costs, up to the first that was NaN or infinite.

    `cost` has them all in one array.
    """
    first_nonfinite: NDArray[np.int64]
    """The first update whose cost was NaN or infinite; 0 where there was none."""
    final_cost: NDArray[np.float64]
    """The last cost that was measured: NaN or inf where a run has diverged."""
    began: NDArray[np.float64]
    """Mean data cost of a patch at the beginning."""
    ended: NDArray[np.float64]
    """The same at the end."""
    held_out_accuracy: NDArray[np.float64]
    """At the end."""

    @classmethod
    def empty(cls, start: Settings, axes: tuple[Axis, ...], seeds: tuple[int, ...], steps: int) -> Map:
        """A map of which nothing is computed yet."""
        shape = (*(len(values) for _, values in axes), len(seeds))
        final, began, ended, held_out = (np.full(shape, np.nan) for _ in range(4))
        done, first = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.int64)
        return cls(start, axes, seeds, steps, done, {}, first, final, began, ended, held_out)

    @property
    def shape(self) -> tuple[int, ...]:
        """Values along each axis, seeds last."""
        return self.done.shape

    @cached_property
    def names(self) -> tuple[list[str], ...]:
        """What the values of each axis are called."""
        return tuple(map(name_axis, self.axes))

    @cached_property
    def cost(self) -> NDArray[np.float64]:
        """The cost of every update, on one more axis, read-only; NaN after the first that was NaN or infinite."""
        rows = np.full((self.done.size, self.steps), np.nan)
        for index, cost in self.costs.items():
            rows[index, : len(cost)] = cost
        whole = rows.reshape(*self.shape, self.steps)
        whole.flags.writeable = False
        return whole

    @property
    def diverged(self) -> NDArray[np.bool_]:
        """Whether a cost was NaN or infinite."""
        return self.first_nonfinite > 0

    @cached_property
    def labels(self) -> NDArray[np.str_]:
        """ "converged", "stalled", "diverged", or "" where nothing is computed yet."""
        found = label_runs(self.diverged, self.began, self.ended)
        return np.where(self.done, found, UNKNOWN)

    def share(self, label: str) -> NDArray[np.float64]:
        """The share of the seeds, among those computed, that have a label; NaN where none is computed."""
        if label not in (CONVERGED, STALLED, DIVERGED):
            raise ValueError(f"label must be one of {CONVERGED}, {STALLED}, {DIVERGED}, got {quote(label)}")
        counts = self.done.sum(axis=-1)
        with np.errstate(invalid="ignore"):
            return np.where(counts, (self.labels == label).sum(axis=-1) / np.maximum(counts, 1), np.nan)

    def place(self, *where: int) -> tuple[int, ...]:
        """A place on each axis and among the seeds (0, if it is left out); IndexError in a sentence outside them."""
        full = (*where, 0) if len(where) == len(self.axes) else where
        names = [*(name for name, _ in self.axes), "seeds"]
        if len(full) != len(self.shape):
            raise IndexError(f"a run is found by its place on {', '.join(names)}, got {len(where)} places")
        return tuple(
            check_whole_number(f"the place on {name}", place, 0, size - 1, IndexError)
            for name, place, size in zip(names, full, self.shape, strict=True)
        )

    def settings_at(self, *where: int) -> Settings:
        """The settings of a run by its place on each axis, and among the seeds (0, if it is left out)."""
        *places, seed = self.place(*where)
        changes = {name: values[place] for (name, values), place in zip(self.axes, places, strict=True)}
        return self.settings.replace(**convert_values(changes), seed=self.seeds[seed])

    def run(self, *where: int) -> cnnlab.Run:
        """A new Run of a cell, at update 0; trained for `steps`, it shares the cell's label."""
        return cnnlab.Run(self.settings_at(*where))  # fetched now: a map is looked at without torch

    def members(self) -> Iterator[Settings]:
        """The settings of every run, the last axis fastest."""
        for place in np.ndindex(self.shape):
            yield self.settings_at(*place)

    def at(self, *where: int) -> str:
        """A sentence on one run, such as "learning_rate 0.01, seed 3: diverged at update 4"."""
        place = self.place(*where)
        parts = [f"{name} {called[at]}" for (name, _), called, at in zip(self.axes, self.names, place, strict=False)]
        said = f"{', '.join([*parts, f'seed {self.seeds[place[-1]]}'])}: "
        if not self.done[place]:
            return said + "not computed yet"
        if self.first_nonfinite[place]:  # not `diverged`, which looks at the whole map
            return said + f"diverged at update {self.first_nonfinite[place]}"
        ended = f"cost {self.final_cost[place] + 0.0:.3g}, held-out accuracy {self.held_out_accuracy[place]:.2f}"
        return f"{said}{self.labels[place]}, {ended}"

    def __repr__(self) -> str:
        sizes = " x ".join([*(f"{len(values)} {name}" for name, values in self.axes), f"{len(self.seeds)} seeds"])
        counts = [f"{(self.labels == label).sum()} {label}" for label in (CONVERGED, STALLED, DIVERGED)]
        left = "" if self.done.all() else f", {(~self.done).sum()} not computed"
        return f"Map({self.settings!r}, {sizes}, {self.steps} updates: {', '.join(counts)}{left})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map to a file that `Map.load` reads and that `cnnlab.sweep(.., path=path)` goes on with."""
        with write_atomically(path) as file:
            file.write(f"{self.heading()}\n".encode())
            for index in map(int, np.flatnonzero(self.done)):
                numbers = (array.flat[index] for array in (self.began, self.ended, self.held_out_accuracy))
                file.write(f"{format_run(index, self.costs[index], *numbers)}\n".encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Map:
        """Read what `save` or a sweep has written; ValueError in a sentence if it is no map."""
        return read_map(path)[0]

    def heading(self) -> str:
        """The first line of a file: what it is a map of."""
        return format_heading(self.settings, self.axes, self.seeds, self.steps)

    def put(self, index: int, cost: Any, began: float, ended: float, held_out: float) -> None:
        """Write a run's numbers into a map that is being computed (`freeze` gives one that stays as it is)."""
        place = np.unravel_index(index, self.shape)
        known = np.full(min(len(cost) + 1, self.steps), np.nan)
        known[: len(cost)] = cost
        bad = np.flatnonzero(~np.isfinite(known))
        self.costs[index] = known[: bad[0] + 1].copy() if len(bad) else known
        self.costs[index].flags.writeable = False
        self.first_nonfinite[place] = bad[0] + 1 if len(bad) else 0
        self.final_cost[place] = self.costs[index][-1]
        self.began[place], self.ended[place], self.held_out_accuracy[place] = began, ended, held_out
        self.done[place] = True
        for name in ("cost", "labels"):  # of the map as it was
            self.__dict__.pop(name, None)

    def freeze(self) -> Map:
        """A copy whose arrays cannot be written to."""
        copy = self.thaw()
        for name in OF_A_RUN:
            getattr(copy, name).flags.writeable = False
        return copy

    def thaw(self) -> Map:
        """A copy whose arrays can be written to."""
        return dataclasses.replace(self, **{name: getattr(self, name).copy() for name in ("costs", *OF_A_RUN)})


OF_A_RUN = ("done", "first_nonfinite", "final_cost", "began", "ended", "held_out_accuracy")
"""The arrays that hold one value a run."""


def read_map(path: str | os.PathLike[str]) -> tuple[Map, int]:
    """The map in a file, and how many bytes of the file are whole lines: the last one may have been cut short."""
    with refuse_in_a_sentence(f"{os.fspath(path)} holds no map that can be read"):
        check_ordinary(path)
        with open(path, "rb") as file:
            lines = read_lines(file)
            first = next(lines, b"")
            made, whole = Map.empty(*parse_plan(first)), len(first)
            for line in lines:
                run, whole = parse_run(line, made.done.size, made.steps), whole + len(line)
                if made.done.flat[run[0]]:
                    raise ValueError(f"run {run[0]} is there twice")
                made.put(*run)
    return made.freeze(), whole


def label_runs(diverged: Any, began: Any, ended: Any) -> NDArray[np.str_]:
    """The labels of runs by the rule of `Map`, from the data costs of a patch at the beginning and at the end."""
    with np.errstate(invalid="ignore"):
        fallen = (ended <= FALLEN * np.asarray(began)) & (abs(np.asarray(ended) - COIN) > NEAR_COIN * COIN)
    return np.where(diverged, DIVERGED, np.where(fallen, CONVERGED, STALLED))


def name_axis(axis: Axis) -> list[str]:
    """What the values of an axis are called: a choice by its name."""
    name, values = axis
    return [str(value) for value in values] if is_choice(name) else name_values(take_numbers(axis))


def take_numbers(axis: Axis) -> tuple[float, ...]:
    """The values of an axis that is no choice."""
    return tuple(float(value) for value in axis[1])


def name_values(values: Iterable[float]) -> list[str]:
    """The values of an axis in few characters: three digits, or as many as tell neighbours apart."""
    known = list(values)
    for digits in range(3, 17):
        names = [short(float(f"{value:.{digits}g}")) for value in known]
        if len(set(names)) == len(set(known)):
            break
    return names


def is_logarithmic(values: Iterable[float]) -> bool:
    """Whether an axis is spaced by factors rather than by differences."""
    found = np.asarray(list(values), dtype=float)
    if len(found) < 3 or found.min() <= 0:
        return bool(len(found) == 2 and found.min() > 0 and found.max() >= 10 * found.min())
    factors, differences = np.diff(np.log(found)), np.diff(found)
    return bool(np.ptp(factors) / factors.mean() < np.ptp(differences) / differences.mean())


def refine_values(values: tuple[float, ...], low: float, high: float) -> tuple[float, ...]:
    """As many values as before between two places on an axis (0 is its first value, and they need not be whole).

    On a whole-numbered axis there may be fewer; see `refine_axis`.
    """
    known, places, at = np.asarray(values), np.linspace(low, high, len(values)), np.arange(len(values))
    inner = np.interp(places, at, known)
    zero = len(values) > 3 and values[0] == 0  # then from the second value on
    if is_logarithmic(values[zero:]):
        factors = np.exp(np.interp(places, at[zero:], np.log(known[zero:])))
        inner = np.where(places < zero, inner, factors)
    whole = np.abs(places - places.round()) < 1e-9  # the map's own values, to the bit
    return tuple(np.where(whole, known[places.round().astype(int)], inner).tolist())


def refine_axis(axis: Axis, low: float, high: float) -> Axis:
    """An axis whose values lie between two places on it; ValueError if there are fewer than two.

    An axis of choices stays whole: there is nothing between them.
    """
    name, last = axis[0], len(axis[1]) - 1
    if not all(isinstance(end, numbers.Real) and -math.inf < end < math.inf for end in (low, high)):
        said = f"{quote(low)} and {quote(high)}"
        raise ValueError(f"the places on {name} must be two numbers in [0, {last}], got {said}")
    if is_choice(name):
        return axis
    low, high = (min(max(end, 0), last) for end in sorted((low, high)))
    finer = refine_values(take_numbers(axis), low, high)
    if is_whole(name):
        finer = tuple(float(value) for value in sorted({round(value) for value in finer}))
    if len(set(finer)) < 2:
        names = name_values(finer)
        raise ValueError(f"{name} has no two values between {names[0]} and {names[-1]}")
    return name, finer


def wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The interval of Wilson (1927) for a share seen as `hits` of `count`: 95 % by default; (0, 1) if count is 0."""
    if not 0 <= hits <= count:
        raise ValueError(f"hits must lie in [0, {count}], the count, got {quote(hits)}")
    if not count:
        return 0.0, 1.0
    share, square = hits / count, z * z / count
    centre = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)
