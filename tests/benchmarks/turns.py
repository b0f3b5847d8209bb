"""Two ways of doing the same, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable


def in_turns(
    theirs: Callable[[], object], ours: Callable[[], object], seconds: Callable[..., float], blocks: int
) -> tuple[float, float, float]:
    """Medians of both in milliseconds, and of ours over theirs within a turn; each goes first in every other turn."""
    times = []
    for block in range(blocks):
        first, second = (theirs, ours) if block % 2 else (ours, theirs)
        one, two = seconds(first), seconds(second)
        times.append((one, two) if block % 2 else (two, one))
    before, after = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    return before, after, statistics.median(mine / other for other, mine in times)
