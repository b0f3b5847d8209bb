"""How many frames a second a dashboard shows: as many as the training has a share of its time for."""

from __future__ import annotations

FEWEST, MOST = 8.0, 24.0
"""Frames a second."""
SHARE = 0.10
"""Share of the training's updates that drawing may take; at FEWEST frames a second it may take more."""
BLOCK = 1.0
"""Seconds over which updates are counted."""
SLOW_EVERY = 4
"""One block of so many has fewer frames, so that their cost can be told from the difference."""
MEMORY = 0.8
"""Weight of the blocks before the last one in the means."""


class FramePace:
    """Counts updates and frames in blocks, and chooses the frames a second."""

    def __init__(self) -> None:
        self.chosen = (FEWEST + MOST) / 2
        """Frames a second wanted in most blocks."""
        self.cost = 0.0
        """Seconds of training that a frame takes; negative where noise is larger than it."""
        self.means: dict[bool, tuple[float, float]] = {}
        """Whether of slow blocks -> mean frames and updates a second."""
        self.began: tuple[float, int, int] | None = None
        """When the present block began, with the updates and the frames so far."""
        self.block = 0

    @property
    def slow(self) -> bool:
        """Whether the present block is one of fewer frames."""
        return self.block % SLOW_EVERY == SLOW_EVERY - 1

    @property
    def rate(self) -> float:
        """Frames a second wanted now."""
        return max(FEWEST, self.chosen / 2) if self.slow else self.chosen

    @property
    def share(self) -> float | None:
        """Share of the updates that drawing takes from the training; None while it is not known."""
        return max(0.0, min(self.cost * self.means[False][0], 1.0)) if len(self.means) == 2 else None

    @property
    def shown(self) -> float:
        """Frames a second in the last blocks; 0 before the first."""
        return self.means[False][0] if False in self.means else 0.0

    def rest(self) -> None:
        """Have the present block not count: nothing was trained or shown in a part of it."""
        self.began = None

    def note(self, now: float, updates: int, frames: int) -> None:
        """Take in how many updates and frames there have been until now; a block that is over changes the rate."""
        if self.began is None or updates < self.began[1]:
            self.began = (now, updates, frames)
            return
        start, done, drawn = self.began
        if now - start < BLOCK:
            return
        found = ((frames - drawn) / (now - start), (updates - done) / (now - start))
        old = self.means.get(self.slow, found)
        shown, trained = (MEMORY * one + (1 - MEMORY) * other for one, other in zip(old, found, strict=True))
        self.means[self.slow] = (shown, trained)
        self.block += 1
        self.began = (now, updates, frames)
        if self.slow is False and len(self.means) == 2:
            self.choose()

    def choose(self) -> None:
        """Choose the frames a second by what they cost: updates a second fall by as much with each."""
        (many, with_many), (few, with_few) = self.means[False], self.means[True]
        # u = u0 (1 - cost f), at two values of f
        span = many * with_few - few * with_many
        if many - few < 1 or span <= 0:
            return
        self.cost = (with_few - with_many) / span
        wanted = SHARE / self.cost if self.cost > SHARE / MOST else MOST
        self.chosen += 0.5 * (min(max(wanted, FEWEST), MOST) - self.chosen)
