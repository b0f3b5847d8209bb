"""Histograms of numbers by their binary exponent, kept without their zeros."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.records.frame import COUNTED, IntArray


@dataclass(frozen=True)
class Exponents:
    """The classes of a histogram over float exponents: one for each value of the exponent bits of a type.

    Class 0 holds zeros and subnormal numbers, the last one NaN and inf, class k the magnitudes in
    [2^(k-bias), 2^(k-bias+1)).
    """

    bits: int
    """Exponent bits: 5 for float16, 8 for bfloat16 and float32, 11 for float64."""

    @property
    def count(self) -> int:
        """How many classes there are."""
        return 1 << self.bits

    @property
    def bias(self) -> int:
        """The class of magnitudes from 1 up to 2."""
        return (1 << (self.bits - 1)) - 1

    @property
    def powers(self) -> IntArray:
        """log2 of the lower end of each class; that of class 0 is one below the smallest normal power."""
        return np.arange(self.count) - self.bias


EXPONENTS = {"float16": Exponents(5), "bfloat16": Exponents(8), "float32": Exponents(8), "float64": Exponents(11)}
"""Precision -> its classes."""


def find_shapes(precision: str, layers: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(rows, classes) of an update's histograms: of the weights of so many layers, and of all their signals."""
    classes = EXPONENTS[precision].count
    return (layers, classes), (len(COUNTED) * layers, classes)


@dataclass(frozen=True, eq=False)
class Histograms:
    """Histograms of every update, kept without their zeros: a hundred numbers in place of thousands.

    `histograms[step]` is an array (layers, classes); a slice or an array of updates gives (updates, layers, classes);
    further indices go to layers and classes.
    """

    ends: IntArray
    """(updates + 2,): where the numbers of each update begin and end."""
    places: NDArray[np.uint32]
    """Place of each count in its flattened histogram."""
    counts: NDArray[np.int32]
    shape_of_one: tuple[int, int]
    """Layers, classes."""

    def __len__(self) -> int:
        return len(self.ends) - 1

    @classmethod
    def make_empty(cls, rows: int, shape_of_one: tuple[int, int]) -> Histograms:
        """Those of so many updates of which nothing was counted."""
        # Broadcast, for a file may say that it has as many rows as no memory holds.
        ends = np.broadcast_to(np.int64(0), rows + 1)
        return cls(ends, np.zeros(0, np.uint32), np.zeros(0, np.int32), shape_of_one)

    def until(self, step: int) -> Histograms:
        """Those of the updates up to `step`."""
        return dataclasses.replace(self, ends=self.ends[: step + 2])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Updates + 1, layers, classes."""
        return len(self), *self.shape_of_one

    def __getitem__(self, index: Any) -> NDArray[np.int32]:
        updates, within = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        chosen = np.arange(len(self))[updates]
        dense = np.zeros((chosen.size, math.prod(self.shape_of_one)), dtype=np.int32)
        for row, step in zip(dense, chosen.ravel(), strict=True):
            self.fill(row, int(step))
        found = read_only(dense.reshape(*chosen.shape, *self.shape_of_one))
        return found[(slice(None),) * chosen.ndim + within]

    def at(self, step: int) -> NDArray[np.int32]:
        """The histogram (layers, classes) of one update, sooner than by an index."""
        dense = np.zeros(math.prod(self.shape_of_one), dtype=np.int32)
        self.fill(dense, step)
        return read_only(dense.reshape(self.shape_of_one))

    @property
    def counted(self) -> IntArray:
        """The updates of which something was counted."""
        return np.flatnonzero(np.diff(self.ends))

    def find_counted(self, updates: IntArray) -> IntArray:
        """For each update the last one, up to it, of which something was counted; the first of all if none was."""
        counted = self.counted
        return np.append(0, counted)[np.searchsorted(counted, updates, side="right")]

    def fill(self, dense: NDArray[np.int32], step: int) -> None:
        """Write the counts of an update into its flattened histogram, which holds zeros."""
        part = slice(self.ends[step], self.ends[step + 1])
        dense[self.places[part]] = self.counts[part]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or np.int32)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view that cannot be written through."""
    view = array.view()
    view.flags.writeable = False
    return view
