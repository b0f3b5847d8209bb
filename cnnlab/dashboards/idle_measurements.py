"""What is measured of a live run beside its training: curvature, forecast, signals and held-out accuracy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from cnnlab.curvature.direction_tracker import DirectionTracker
from cnnlab.curvature.divergence import Forecast
from cnnlab.curvature.tracker import SharpnessTracker
from cnnlab.dashboards.signal_tracker import SignalTracker
from cnnlab.training.run import Run

HELD_OUT_SHARE = 0.01
"""Largest share of the time that measuring held-out accuracy may take while training."""
HAND = 1.0
"""Seconds after a knob was turned in which nothing is measured between updates: more turns are likely to follow."""


class IdleMeasurements:
    """Measures in pieces, so that training and the user never wait long.

    What cannot be measured is told by who measures it (`tracker.problem`), and training goes on.
    """

    def __init__(self) -> None:
        self.watching = False
        self.tracker = SharpnessTracker()
        self.forecast = Forecast()
        self.direction = DirectionTracker()
        self.signals = SignalTracker()
        self.turned = self.held_out_due = 0.0

    def measure_between_updates(self, run: Run, seconds: float) -> None:
        """Measure a piece if updates, the last of so many seconds, have paid for it and no knob was just turned."""
        if self.watching:
            self.tracker.add_credit(seconds)
            if time.monotonic() > self.turned + HAND:
                self.measure(self.tracker.measure_within_credit, run)

    def has_time(self, run: Run, seconds: float) -> bool:
        """Whether so many seconds without an update are enough to measure a piece that is not known."""
        return self.watching and seconds > 1.5 * self.tracker.took and not self.tracker.is_known(run)

    def measure_piece(self, run: Run) -> None:
        """Measure a piece of the curvature of a run that waits for its next update."""
        self.measure(self.tracker.measure_piece, run)

    def is_complete(self, run: Run) -> bool:
        """Whether all is known of a paused run that can be: its curvature, and at its start how it will end."""
        if not self.watching:
            return True
        with contextlib.suppress(Exception):
            known = self.tracker.is_known(run) and self.direction.is_known(run)
            known = known and self.signals.is_known(run)
            return known and (run.updates > 0 or self.forecast.is_known(run))
        return True  # of a run that cannot be read nothing can be measured

    def measure_when_idle(self, run: Run) -> bool:
        """Measure a piece of what is not known of a paused run; whether that has found something."""
        if not self.signals.is_known(run):
            self.measure(self.signals.measure, run)
            return True
        if not self.tracker.is_known(run):
            self.measure(self.tracker.measure_at_rest, run)
            return self.tracker.is_known(run)
        if not self.direction.is_known(run):
            self.measure(lambda run: self.direction.measure(run, self.tracker.found, self.tracker.problem), run)
            return True
        self.measure(self.forecast.measure_piece, run)
        return self.forecast.is_known(run)

    def measure_held_out(self, run: Run, training: bool) -> None:
        """Measure held-out accuracy, while training only if that is due. Raises what the network raises."""
        began = time.monotonic()
        if training and began < max(self.held_out_due, self.turned + HAND):
            return
        try:
            run.measure_held_out()
        finally:
            ended = time.monotonic()
            self.held_out_due = ended + (ended - began) / HELD_OUT_SHARE

    def measure(self, piece: Callable[[Run], None], run: Run) -> None:
        """Have a piece measured, whatever a network raises."""
        with contextlib.suppress(BaseException):
            piece(run)
