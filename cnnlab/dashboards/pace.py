"""How fast updates follow each other: measured, and held to the speed that was chosen."""

from __future__ import annotations

from collections import deque


class Pace:
    """The times of the last updates, in seconds of a monotonic clock, and the limit on their rate."""

    def __init__(self) -> None:
        self.limit: float | None = None
        """Updates a second at most; None for as fast as it goes."""
        self.hurried = False
        """Whether the updates that are planned pay no heed to the limit."""
        self.times: deque[float] = deque(maxlen=64)

    @property
    def rate(self) -> float:
        """Updates a second over the last 64 updates; 0 before the second."""
        times = tuple(self.times)
        return (len(times) - 1) / max(times[-1] - times[0], 1e-9) if len(times) > 1 else 0.0

    def find_wait(self, now: float) -> float:
        """Seconds until the next update is due; 0 or less if it is."""
        if self.limit is None or self.hurried or not self.times:
            return 0.0
        return self.times[-1] + 1 / self.limit - now
