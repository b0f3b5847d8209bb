"""The signals of an update that is looked at while the run pauses, where the record lacks them: from its snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnnlab.records.signals import Signals
from cnnlab.training.run import Run
from cnnlab.training.signals import measure_signals


@dataclass
class SignalTracker:
    """What was measured last, and of what."""

    wanted: int | None = None
    """The update that is looked at; None if nobody looks."""
    found: Signals | None = None
    asked: tuple[Any, ...] = ()
    """What that is of."""

    def is_known(self, run: Run) -> bool:
        """Whether there is nothing to measure of a paused run."""
        return self.wanted is None or self.wanted > run.updates + 1 or self.asked == make_signal_key(run, self.wanted)

    def measure(self, run: Run) -> None:
        """Measure the update that is looked at; nothing is found where the network or the cost raises."""
        if self.wanted is not None:
            self.found, self.asked = None, make_signal_key(run, self.wanted)
            self.found = measure_signals(run, self.wanted)

    def find(self, run: Run) -> Signals | None:
        """What was measured of the update that is looked at."""
        there = self.wanted is not None and self.asked == make_signal_key(run, self.wanted)
        return self.found if there else None


def make_signal_key(run: Run, step: int) -> tuple[Any, ...]:
    """All that the signals of an update depend on: a rewind begins another log."""
    return step, run.log, None if step <= run.updates else run.knobs_in_force
