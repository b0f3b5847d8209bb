"""What the C library does with memory that was freed: kept while a run trains, given back now and then."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of two parameters of glibc's mallopt."""
KEPT = 64 * 2**20
"""Bytes of freed memory that may be kept: what an update of the question's network frees is a sixth of it."""
WHOLE = 32 * 2**20
"""Bytes from which on a piece of memory comes from the system alone and goes back at once; glibc's largest."""


@cache
def keep_freed_memory() -> None:
    """Have glibc keep what is freed, for the next update needs it again; nothing elsewhere.

    Else it goes back to the system at the end of every backward pass and is fetched anew page by page in the next
    update, 600 to 2,500 page faults: an update of the question's network would take 6 % longer, a rewind 9 %
    (medians of 16 pairs of processes). It is not undone, for glibc does not tell what was in force before.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError, TypeError):
            mallopt: Callable[[int, int], int] = ctypes.CDLL(None).mallopt
            # Setting one of the two ends glibc's own way of setting both.
            mallopt(TRIM_THRESHOLD, KEPT)
            mallopt(MMAP_THRESHOLD, WHOLE)


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library can: 3 ms for 30 to 50 MiB that snapshots leave behind."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
