"""How many frames a second a dashboard shows: as many as the training has a share of its time for."""

from __future__ import annotations

FEWEST, MOST = 8.0, 24.0
"""Frames a second."""
SHARE = 0.05
"""Share of the training's updates that frames may take; at FEWEST a second it may be more. Texts take 0.02 besides."""
BLOCK = 1.0
"""Seconds over which updates are counted."""
PROBE_EVERY = 4
"""One block of so many has another rate of frames, so that their cost can be told from the difference."""
MEMORY = 0.9
"""Weight of all comparisons before the last one."""
ELSEWHERE = 0.004
"""Seconds of training that a frame is expected to take beside those in which the kernel draws it (results/live.md)."""
TRUST = 4 * 8.0**2
"""How much that counts: as much as four comparisons of blocks whose rates differ by 8 frames a second."""


class FramePace:
    """Counts updates and frames in blocks, and chooses the frames a second."""

    def __init__(self) -> None:
        self.chosen = 12.0
        """Frames a second wanted in most blocks."""
        self.shown = 0.0
        """Frames a second in the last block; 0 before the first."""
        self.drawing = 0.0
        """Seconds that the kernel takes to draw a frame, in which training waits."""
        self.cost = 0.0
        """Seconds of training that a frame takes; below 0 where noise is larger than it."""
        self.spread = self.lost = 0.0
        """Sums over pairs of blocks: of the squared change of frames a second, and of that change times the loss."""
        self.previous: tuple[float, float] | None = None
        """Frames and updates a second of the block before."""
        self.began: tuple[float, int, int] | None = None
        """When the present block began, with the updates and the frames so far."""
        self.block = 0

    @property
    def rate(self) -> float:
        """Frames a second wanted now: in a probe half as many, or so many more where half would be too few."""
        if self.block % PROBE_EVERY != PROBE_EVERY - 1:
            return self.chosen
        return self.chosen / 2 if self.chosen >= 2 * FEWEST else self.chosen + FEWEST

    @property
    def share(self) -> float | None:
        """Share of the updates that drawing takes from the training; None while it is not known."""
        return max(0.0, min(self.cost * self.chosen, 1.0)) if self.spread else None

    def rest(self) -> None:
        """Have the present block not count: nothing was trained or shown in a part of it."""
        self.began = self.previous = None

    def note_drawing(self, seconds: float) -> None:
        """Take in how long the kernel took to draw a frame."""
        self.drawing += (1 - MEMORY) * (seconds - self.drawing)

    def note(self, now: float, updates: int, frames: int) -> None:
        """Take in how many updates and frames there have been until now; a block that is over may change the rate."""
        if self.began is None or updates < self.began[1]:
            self.rest()
            self.began = (now, updates, frames)
            return
        start, done, drawn = self.began
        if now - start < BLOCK:
            return
        self.shown, trained = (frames - drawn) / (now - start), (updates - done) / (now - start)
        if self.previous is not None:
            self.compare(*self.previous, self.shown, trained)
        self.previous = (self.shown, trained)
        self.block += 1
        self.began = (now, updates, frames)

    def compare(self, frames: float, updates: float, frames_then: float, updates_then: float) -> None:
        """Learn from two blocks, one after the other, what a frame costs, and choose the frames a second by that.

        With u0 updates a second unwatched, u = u0 (1 - cost f) at f frames a second: the cost is the slope of the share
        lost over the frames. Least squares over such pairs, the latest most, with one more for what is expected: that
        a frame takes as long as the kernel draws it, and a little more. What drifts slowly is the same in both blocks.
        """
        more, unwatched = frames_then - frames, (updates + updates_then) / 2 / (1 - (self.share or 0.0) / 2)
        if abs(more) < 1 or not unwatched:
            return
        self.spread = MEMORY * self.spread + more**2
        self.lost = MEMORY * self.lost + more * (updates - updates_then) / unwatched
        self.cost = (self.lost + TRUST * (self.drawing + ELSEWHERE)) / (self.spread + TRUST)
        wanted = SHARE / self.cost if self.cost > SHARE / MOST else MOST
        self.chosen += 0.5 * (min(max(wanted, FEWEST), MOST) - self.chosen)
