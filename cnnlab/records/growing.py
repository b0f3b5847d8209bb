"""Rows of numbers that are only ever added to: in memory while they are few, in a temporary file once they are many."""

from __future__ import annotations

import math
import mmap
import tempfile
import weakref
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MOST_IN_MEMORY = 8 * 2**20
"""Bytes up to which rows stay in memory."""
STEP = 2 * 2**20
"""Bytes by which the file grows. Each time its pages are mapped anew, so that only what is read takes memory."""
FIRST_ROWS = 64
"""Rows that are allocated at first."""


class GrowingArray:
    """An array (rows, ...) to which rows are added. A view that was given out stays as it was.

    The file has no name, and is gone with the array and its views. Where there is no room for it on the disk, the rows
    stay in memory.
    """

    def __init__(self, shape_of_row: tuple[int, ...], dtype: Any) -> None:
        self.length = 0
        self.numbers: NDArray[Any] = np.empty((FIRST_ROWS, *shape_of_row), dtype)
        self.file: BinaryIO | None = None

    @classmethod
    def from_rows(cls, rows: NDArray[Any]) -> GrowingArray:
        """A growing array of its own that begins with these rows."""
        array = cls(rows.shape[1:], rows.dtype)
        array.append(rows)
        return array

    def __len__(self) -> int:
        return self.length

    @property
    def row_bytes(self) -> int:
        """The bytes that a row takes."""
        return math.prod(self.numbers.shape[1:]) * self.numbers.itemsize

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows, a piece at a time where they are many."""
        if self.length + len(rows) <= len(self.numbers):  # there is room, as most often
            self.numbers[self.length : self.length + len(rows)] = rows
            self.length += len(rows)
            return
        piece = max(1, STEP // max(self.row_bytes, 1))
        for first in range(0, len(rows), piece):
            part = rows[first : first + piece]
            end = self.length + len(part)
            if end > len(self.numbers):
                self.grow(end)
            self.numbers[self.length : end] = part
            self.length = end

    def view(self, first: int = 0, end: int | None = None) -> NDArray[Any]:
        """The rows from one to another (None: all there are), read-only."""
        view = self.numbers[first : self.length if end is None else end]
        view.flags.writeable = False
        return view

    def grow(self, rows: int) -> None:
        """Allocate so many rows, in memory or, where they are many, in the file."""
        wanted = max(rows, len(self.numbers) * 3 // 2)
        if self.file is not None or wanted * self.row_bytes > MOST_IN_MEMORY:
            try:
                self.spill_to_disk(rows)
                return
            except (OSError, ValueError):  # no disk, or a full one
                self.file = None
        bigger = np.empty((wanted, *self.numbers.shape[1:]), self.numbers.dtype)
        bigger[: self.length] = self.numbers[: self.length]
        self.numbers = bigger

    def spill_to_disk(self, rows: int) -> None:
        """Lengthen the file to hold so many rows, and read and write them there from now on."""
        if self.file is None:
            file: BinaryIO = tempfile.TemporaryFile(prefix="cnnlab-")  # noqa: SIM115
            weakref.finalize(self, file.close)
            file.write(np.ascontiguousarray(self.numbers[: self.length]).data)
            self.file = file
        size = math.ceil(rows * self.row_bytes / STEP) * STEP
        self.file.seek(0, 2)
        # Written, not just declared: a disk that is full refuses now, where it can be caught, and not a later store.
        self.file.write(bytes(size - self.file.tell()))
        self.file.flush()
        mapped = mmap.mmap(self.file.fileno(), size)
        shape = (size // self.row_bytes, *self.numbers.shape[1:])
        self.numbers = np.frombuffer(mapped, self.numbers.dtype, math.prod(shape)).reshape(shape)
