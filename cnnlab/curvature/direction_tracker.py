"""The cost along the sharpest direction of one run, measured anew where it is wanted and the present is another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnnlab.config.errors import extract_message
from cnnlab.curvature.critical import Critical
from cnnlab.curvature.direction import SharpestDirection, measure_direction
from cnnlab.training.run import Run


@dataclass
class DirectionTracker:
    """What was measured last, and of what."""

    wanted: bool = False
    """Whether anybody looks."""
    problem: str = ""
    """Why it cannot be measured at present, in a sentence; nothing if it can."""
    found: SharpestDirection | None = None
    asked: Any = None
    """What that is of."""
    run: Any = None

    def is_known(self, run: Run) -> bool:
        """Whether there is nothing to measure of a paused run: the range has to hold the landing, too."""
        if not self.wanted:
            return True
        known = self.run is run and self.asked == make_direction_key(run)
        return known and (self.found is None or self.found.covers(run.knobs_in_force.learning_rate))

    def measure(self, run: Run, critical: Critical | None, problem: str) -> None:
        """Measure it, from the critical learning rate at the present weights; a new learning rate a new range alone."""
        key = make_direction_key(run)
        if self.run is run and self.asked == key and self.found is not None:
            self.found = self.found.measure_range(run.knobs_in_force.learning_rate)
            return
        self.run, self.asked, self.found, self.problem = run, key, None, problem
        if problem:
            return
        try:
            self.found = measure_direction(run, critical)
        except BaseException as reason:  # a user's network may do anything; then there is none
            self.problem = extract_message(reason)
            if not isinstance(reason, Exception):
                raise

    def find(self, run: Run) -> SharpestDirection | None:
        """What was measured last of a run; None where it is not of its past."""
        there = self.wanted and self.run is run and self.found is not None and self.found.step <= run.updates
        return self.found if there else None


def make_direction_key(run: Run) -> tuple[Any, ...]:
    """All that a cut depends on while a run is the same: the learning rate only moves the landing."""
    knobs = vars(run.knobs_in_force)
    return run.updates, *(value for name, value in knobs.items() if name != "learning_rate")
