"""Whether a run will diverge, said before its first update: some starts are trained for a few updates to see."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from cnnlab.config.settings import Knobs
from cnnlab.training.run import Run

WITHIN = 20
"""Updates for which a start is tried."""
SEEDS = 4
"""Further seeds whose starts a Forecast tries."""
LONGEST = 20.0
"""Seconds of trying after which a Forecast begins no further start."""
PIECE = 0.2
"""Seconds of trying after which a Forecast lets others do something."""


@dataclass(frozen=True)
class Prediction:
    """How many starts of a run diverged when they were tried: reached a cost of NaN or inf within 20 updates."""

    diverged: int
    """Starts tried that diverged."""
    starts: int = 1
    """Starts tried."""

    @property
    def chance(self) -> float:
        """The share of the starts tried that diverged: of five starts no more than a rough estimate of the chance."""
        return self.diverged / self.starts

    @property
    def diverges(self) -> bool:
        """Whether more than half of the starts tried diverged."""
        return self.chance > 0.5

    def __str__(self) -> str:
        if self.starts == 1:
            return f"the start tried {'diverged' if self.diverged else 'did not diverge'} within {WITHIN} updates"
        return f"{self.diverged} of {self.starts} starts tried diverged within {WITHIN} updates"


def predict(run: Run) -> Prediction:
    """Whether a run reaches a cost that is NaN or inf within 20 updates from its present weights.

    The updates are made, with the knobs that are in force and planned, and thrown away: the run stays as it was.
    """
    trial = Trial(run)
    while not trial.is_over:
        trial.update()
    return Prediction(int(trial.diverged))


class Trial:
    """A run as it would go on, trained beside it from its present weights."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.state, self.updates, self.end = run.state, run.updates, run.updates + WITHIN
        self.diverged = False

    @property
    def is_over(self) -> bool:
        """Whether it has diverged, or has been tried for long enough."""
        return self.diverged or self.updates == self.end

    def update(self) -> None:
        """One more update."""
        run, update = self.run, self.updates + 1
        with run.determinism(update):
            knobs = run.prepare_knobs(run.find_planned_knobs(update))
            step = run.descent.step(self.state, *run.problem.batch(update), *knobs)
        self.state, self.updates = step.state, update
        self.diverged = not bool(step.data_cost.isfinite())


class Forecast:
    """How a run's start ends, and those of further seeds, found a start at a time."""

    def __init__(self) -> None:
        self.begun_for: Any = None
        self.further: list[Run] = []
        self.asked: Any = None
        self.trials: list[Trial] = []
        self.seconds = 0.0
        self.failed = False

    def is_known(self, run: Run) -> bool:
        """Whether the forecast of a run with its present knobs is complete, or cannot be made."""
        if self.begun_for != make_key(run) or self.asked != (run.knobs_in_force, run.plan):
            return False
        over = bool(self.trials) and self.trials[-1].is_over
        return self.failed or (over and (len(self.trials) == count_starts(run) or self.seconds > LONGEST))

    def measure_piece(self, run: Run) -> None:
        """Some more updates of a start."""
        if self.begun_for != make_key(run):
            self.begun_for, self.further, self.asked = make_key(run), [], None
        if self.asked != (run.knobs_in_force, run.plan):
            self.asked, self.trials, self.seconds, self.failed = (run.knobs_in_force, run.plan), [], 0.0, False
        began = time.monotonic()
        try:
            if not self.trials or self.trials[-1].is_over:
                self.trials.append(Trial(self.prepare_start(run)))
            while not self.trials[-1].is_over:
                self.trials[-1].update()
                if time.monotonic() > began + PIECE:
                    break
        except BaseException as reason:  # a user's network may do anything; then there is no forecast
            self.failed = True
            if not isinstance(reason, Exception):
                raise
        self.seconds += time.monotonic() - began

    def prepare_start(self, run: Run) -> Run:
        """The next start to try, with the knobs of a run: first the run itself, then those of the next seeds."""
        place = len(self.trials)
        if place == 0:
            return run
        if place > len(self.further):
            seed = (run.settings.seed + place) % 2**32
            self.further.append(Run(run.problem.replace_seed(seed), history_bytes=0))
        start = self.further[place - 1]
        start.knobs, start.plan = run.knobs, run.plan
        return start

    def find_prediction(self, run: Run) -> Prediction | None:
        """How many starts diverged; None if that is not known, or the run has begun."""
        if run.updates or not self.is_known(run) or self.failed:
            return None
        return Prediction(sum(trial.diverged for trial in self.trials), len(self.trials))


def count_starts(run: Run) -> int:
    """How many starts a Forecast tries: one where the weights are the user's own."""
    return 1 if run.own_network else 1 + SEEDS


def make_key(run: Run) -> tuple[Any, ...]:
    """What a run's starts depend on."""
    recipe = replace(run.settings, **{name: getattr(Knobs(), name) for name in Knobs.__dataclass_fields__})
    return id(run.network) if run.own_network else 0, recipe
