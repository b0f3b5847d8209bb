"""How the learning rate of a live run goes on: constant, by a schedule's plan, or as high as is safe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from cnnlab.config.links import Plan
from cnnlab.config.schedules import SAFE, SCHEDULE, SHARE, rate_plan, safe_rate
from cnnlab.config.settings import Knobs, Settings


@dataclass
class RateControl:
    """The schedule that was chosen, and what it needs to go on."""

    peak: float
    """The highest learning rate of a plan."""
    schedule: str = "constant"
    """Its name; see `schedules.SCHEDULE`."""
    share: float = SHARE
    """Share of the critical learning rate that is taken for safe."""
    free: bool = True
    """Whether the next safe rate may be more than twice the present one."""

    @property
    def has_plan(self) -> bool:
        """Whether the schedule is known in advance, and is not constant."""
        return self.schedule not in ("constant", SAFE)

    def choose(self, name: str, share: float, knobs: Knobs) -> Knobs:
        """Take a schedule; the knobs with the highest learning rate that it will have.

        ValueError in a sentence if there is no such schedule or share.
        """
        SCHEDULE.check("schedule", name)
        safe_rate(1.0, knobs, share, free=True)
        if self.has_plan:
            knobs = dataclasses.replace(knobs, learning_rate=self.peak)
        self.schedule, self.share, self.peak, self.free = name, share, knobs.learning_rate, True
        return knobs

    def make_plan(self, knobs: Knobs, updates: int, first: int = 1) -> Plan:
        """The plan of the schedule over so many updates; none where it has none to give in advance."""
        return rate_plan(self.schedule, knobs, updates, first) if self.has_plan else ()

    def change_plan(self, plan: Plan, present: Knobs, new: Knobs) -> Plan:
        """The plan with new knobs; none, and a constant rate from now on, if the learning rate was set by hand."""
        if new.learning_rate != present.learning_rate:
            self.schedule = "constant"
        kept = plan if self.has_plan else ()
        return tuple((first, dataclasses.replace(new, learning_rate=knobs.learning_rate)) for first, knobs in kept)

    def restart(self, new: Settings, present: Settings, schedule: str | None) -> Settings:
        """The settings of a new start, which begins with the highest rate of a plan; None keeps the schedule."""
        self.schedule = schedule or self.schedule
        if not self.has_plan:
            return new
        if new.learning_rate != present.learning_rate:
            self.peak = new.learning_rate
        return new.replace(learning_rate=self.peak)

    def find_safe_knobs(self, eigenvalue: float, knobs: Knobs) -> Knobs:
        """The knobs with the learning rate as high as is safe; after the first time it at most doubles."""
        rate = safe_rate(eigenvalue, knobs, self.share, self.free)
        self.free = False
        return dataclasses.replace(knobs, learning_rate=rate)

    def end(self, plan: Plan) -> None:
        """Be constant where no plan is left to follow."""
        if not plan and self.schedule != SAFE:
            self.schedule = "constant"
