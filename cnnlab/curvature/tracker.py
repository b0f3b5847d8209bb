"""How near a run is to the edge of stability, measured in pieces between its updates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cnnlab.config.errors import check_whole_number, extract_message
from cnnlab.config.schedules import SHARE, safe_rate
from cnnlab.config.settings import ADAPTIVE
from cnnlab.curvature.critical import Critical
from cnnlab.curvature.learning_rate import search
from cnnlab.records.frame import Frame
from cnnlab.training.run import Run

TIME_SHARE = 0.15
"""Largest share of the training's time that measuring may take at full speed, so that an update takes 1.2 times."""
SAVED = 0.5
"""Most seconds of measuring that may be saved up, if a piece does not take longer."""


@dataclass
class SharpnessTracker:
    """The search for the largest eigenvalue of one run's Hessian, from one update to the next."""

    problem: str = ""
    """Why nothing can be measured, in a sentence; nothing if it can."""
    credit: float = SAVED
    """Seconds of measuring that training has paid for."""
    took: float = 0.1
    """Seconds that the last piece took."""
    pieces: Iterator[Critical | None] | None = None
    asked: Any = None
    """What the present search is for."""
    known: Any = None
    """What the last one was for."""
    found: Critical | None = None
    """What the last one has found."""
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def forget(self) -> None:
        """Another run, or another past, takes the place of this one."""
        self.pieces, self.known, self.problem = None, None, ""

    def is_known(self, run: Run) -> bool:
        """Whether the present weights' eigenvalue is known with the present knobs, or cannot be."""
        return bool(self.problem) or (self.known == make_curvature_key(run) and not math.isnan(run.sharpness))

    def measure_at_rest(self, run: Run) -> None:
        """A piece of the search at the present weights, whatever was looked for before."""
        if self.asked != make_curvature_key(run):
            self.pieces = None
        self.measure_piece(run)

    def add_credit(self, seconds: float) -> None:
        """Put aside a share of the time that an update took."""
        self.credit = min(self.credit + TIME_SHARE * seconds, max(SAVED, 2 * self.took))

    def measure_within_credit(self, run: Run) -> None:
        """A piece, if training has paid for one."""
        if not self.problem and self.credit > self.took:
            self.measure_piece(run)
            self.credit -= self.took

    def measure_piece(self, run: Run) -> None:
        """One product of the Hessian with a vector; the eigenvalue goes into the run's record when it is found."""
        began = self.clock()
        try:
            if self.pieces is not None and self.asked[1] != run.knobs_in_force.optimizer:
                self.pieces = None  # another optimiser's step meets another matrix
            if self.pieces is None:
                if self.is_known(run):
                    return
                of = "all" if run.problem.batch_size is None else "batch"
                self.pieces = search(run, of=of, start=None if self.found is None else self.found.vector)
                self.asked = make_curvature_key(run)
            found = next(self.pieces)
            if found is not None:
                self.pieces, self.found, self.known = None, found, self.asked
                run.note_sharpness(found.step, found.eigenvalue)
        except BaseException as reason:  # whatever a user's network does, it is not asked again
            self.pieces, self.problem = None, extract_message(reason)
            if not isinstance(reason, Exception):
                raise
        finally:
            self.took = self.clock() - began

    def measure(self, run: Run) -> float:
        """The eigenvalue at the present weights, without a pause; NaN if it cannot be measured, inf if not finite."""
        while not self.is_known(run):
            self.measure_at_rest(run)
        return run.sharpness


def make_curvature_key(run: Run) -> tuple[Any, ...]:
    """All that the curvature depends on while a run is the same."""
    knobs = run.knobs_in_force
    shape = run.updates, knobs.optimizer, knobs.l2, knobs.epsilon, knobs.penalty_in, knobs.momentum
    if knobs.optimizer not in ADAPTIVE:
        return shape
    return *shape, knobs.beta2, knobs.adam_epsilon, knobs.l1, knobs.clip, knobs.clip_threshold  # what averages are of


def advance_safely(run: Run, updates: int, share: float = SHARE) -> Frame:
    """So many updates, each at `share` times the critical learning rate measured before it; returns the last Frame.

    The rate at most doubles from one update to the next, and stays as it is where the cost curves upwards nowhere or
    the Hessian is not finite. Each change is in the record, so that a replay or an exported script needs no measuring.
    ValueError if the network has no second derivatives.
    """
    tracker = SharpnessTracker()
    for update in range(check_whole_number("updates", updates, 1)):
        eigenvalue = tracker.measure(run)
        if tracker.problem:
            raise ValueError(tracker.problem)
        knobs = run.knobs_in_force
        run.set(learning_rate=safe_rate(eigenvalue, knobs, share, free=update == 0))
        run.update()
    return run.record.frames[-1]
