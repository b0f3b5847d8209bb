"""How many frames a second a dashboard shows: as many as the training has a share of its time for."""

from __future__ import annotations

FEWEST, MOST = 8.0, 24.0
"""Frames a second."""
SHARE = 0.08
"""Share of the training's updates that drawing may take; at FEWEST frames a second it may take more."""
BLOCK = 1.0
"""Seconds over which updates are counted."""
PROBE_EVERY = 4
"""One block of so many has another rate of frames, so that their cost can be told from the difference."""
MEMORY = 0.8
"""Weight of the blocks before the last one in the means."""


class FramePace:
    """Counts updates and frames in blocks, and chooses the frames a second."""

    def __init__(self) -> None:
        self.chosen = (FEWEST + MOST) / 2
        """Frames a second wanted in most blocks."""
        self.cost = 0.0
        """Seconds of training that a frame takes; below 0 where noise is larger than it."""
        self.means: dict[bool, tuple[float, float]] = {}
        """Whether of probes -> mean frames and updates a second."""
        self.began: tuple[float, int, int] | None = None
        """When the present block began, with the updates and the frames so far."""
        self.block = 0

    @property
    def probes(self) -> bool:
        """Whether the present block is one with another rate of frames."""
        return self.block % PROBE_EVERY == PROBE_EVERY - 1

    @property
    def rate(self) -> float:
        """Frames a second wanted now: in a probe half as many, or so many more where half would be too few."""
        if not self.probes:
            return self.chosen
        return self.chosen / 2 if self.chosen >= 2 * FEWEST else self.chosen + FEWEST

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
        old = self.means.get(self.probes, found)
        shown, trained = (MEMORY * one + (1 - MEMORY) * other for one, other in zip(old, found, strict=True))
        self.means[self.probes] = (shown, trained)
        if self.probes and len(self.means) == 2:
            self.choose()
        self.block += 1
        self.began = (now, updates, frames)

    def choose(self) -> None:
        """Choose the frames a second by what they cost: each takes as much from the updates a second.

        With u0 updates a second unwatched, u = u0 (1 - cost f) at f frames a second; two of these tell the cost.
        """
        (usual, trained), (other, trained_then) = self.means[False], self.means[True]
        span = usual * trained_then - other * trained
        if abs(usual - other) < 1 or span * (usual - other) <= 0:
            return
        self.cost = (trained_then - trained) / span
        wanted = SHARE / self.cost if self.cost > SHARE / MOST else MOST
        self.chosen += 0.5 * (min(max(wanted, FEWEST), MOST) - self.chosen)
