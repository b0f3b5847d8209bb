"""Which updates of a watched loop are measured in full, so that this takes a share of the loop's time and no more."""

from __future__ import annotations

import math
import numbers
import time
from typing import Any

from cnnlab.config.settings import quote

JUMP = 10.0
"""A cost of more than so many times the usual one is measured in full, whatever it takes."""
KEPT = 0.9
"""How much of the usual cost stays from one update to the next."""


class Budget:
    """Plans the next full measurement by the time that the last one took; without a share every update has one."""

    def __init__(self, share: float | None) -> None:
        self.share = check_share(share)
        self.due = -math.inf
        self.usual = math.nan

    def allows(self) -> bool:
        """Whether the next update may be measured in full."""
        return self.share is None or time.perf_counter() >= self.due

    def spend(self, seconds: float) -> None:
        """A full measurement that took so long has just ended: none is due before it was no more than its share."""
        if self.share is not None:
            self.due = time.perf_counter() + seconds * (1 / self.share - 1)

    def is_unusual(self, cost: float) -> bool:
        """Whether a cost is far above those before it, or the first NaN; it then counts among them."""
        size, before = abs(cost), self.usual
        if math.isnan(before):
            self.usual = size
            return False
        self.usual = KEPT * before + (1 - KEPT) * size
        return not size <= JUMP * before


def check_share(share: Any) -> float | None:
    """A share of the loop's time, or None; TypeError or ValueError in a sentence if it is neither."""
    if share is None:
        return None
    if isinstance(share, bool) or not isinstance(share, numbers.Real):
        raise TypeError(f"budget must be None or a number in (0, 1], got {quote(share)}")
    if not 0 < (number := float(share)) <= 1:
        raise ValueError(f"budget must lie in (0, 1], got {quote(share)}")
    return number
