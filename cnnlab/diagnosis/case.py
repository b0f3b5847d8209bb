"""What the causes look at: a record, where its first NaN or inf was made, what was probed, and what follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.settings import Knobs
from cnnlab.diagnosis.summary import RISE
from cnnlab.records.formats import format_digits
from cnnlab.records.record import Record

if TYPE_CHECKING:
    from cnnlab.diagnosis.nan_tracer import Event
    from cnnlab.diagnosis.probe import Probe


@dataclass(frozen=True)
class Case:
    """A run of which the cause is asked."""

    record: Record
    event: Event | None
    """Where the first NaN or inf was made; None if there is none."""
    probe: Probe | None
    """What was measured beside the record; None if its run is not at hand."""

    @property
    def knobs(self) -> Knobs:
        """The knobs in force where it went wrong, or at the end."""
        return self.record.knobs_at(max(1, min(len(self.record), self.event.step if self.event else len(self.record))))

    @property
    def finite_updates(self) -> int:
        """How many updates there are before the first cost that is not finite."""
        first = self.record.first_nonfinite
        return len(self.record) if first is None else first - 1

    @property
    def steps(self) -> NDArray[np.int64]:
        """The updates before the first cost that is not finite, of those whose cost was measured."""
        steps, _ = self.record.known_costs
        return steps[steps <= self.finite_updates]

    @property
    def costs(self) -> NDArray[np.float64]:
        """Their costs."""
        return self.record.cost[self.steps - 1]

    @property
    def rose(self) -> bool:
        """Whether the cost rose: to 3 times its least before a NaN, else in the end to 3 times the first one.

        A run that breaks with updates as long as the weights has risen too, if only its last cost had no time to tell.
        """
        costs = self.costs
        if self.event is None:
            return len(costs) > 1 and bool(np.median(costs[-5:]) > RISE * costs[0] and costs[-1] > 0.1)
        climbed = len(costs) > 1 and costs[-1] > RISE * costs.min() and costs[-1] > 0.1
        return bool(climbed or self.record.longer_than(1, slice(self.finite_updates)).any())

    @property
    def diverged(self) -> bool:
        """Whether a NaN was made by steps, not given, or the cost climbs."""
        return self.rose if self.event is None else self.event.operation != "given"

    @property
    def before_any_step(self) -> bool:
        """Whether it went wrong before the learning rate had acted at all."""
        return self.event is not None and self.event.step <= 1 and self.event.phase not in ("update", "weight")

    @property
    def excess(self) -> float | None:
        """The learning rate over the critical one (with momentum m that is 1 + m times as high); None if unknown."""
        if self.probe is None or self.probe.critical is None:
            return None
        return self.knobs.learning_rate / (self.probe.critical * (1 + self.knobs.momentum))

    def estimate_relief(self, critical: float | None) -> float:
        """How well another critical rate would have spared the run: near 1 if the learning rate is far below it."""
        return 0.0 if critical is None else squash(critical * (1 + self.knobs.momentum) / self.knobs.learning_rate)

    def estimate_share(self, factor: float) -> float:
        """What share of the excess over the critical rate, in powers of ten, a factor accounts for: 0 to 1."""
        if self.excess is None or self.excess <= 1:
            return 0.0
        return min(1.0, math.log(factor) / math.log(self.excess))

    def describe_rise(self) -> list[str]:
        """How the cost rose, in a sentence; nothing if it did not."""
        costs = self.costs
        if len(costs) < 2 or costs[-1] <= costs.min() or costs.min() <= 0:
            return []
        low = int(np.argmin(costs))
        decades = math.log10(costs[-1]) - math.log10(costs[low])
        said = f"the cost rose {format_digits(10**decades)} times from update {self.steps[low]} to {self.steps[-1]}"
        return [said] if decades > 0.3 else []

    def name_layer(self, place: int) -> str:
        """The name of a layer in a sentence; 'network' for one without a name."""
        return self.record.layers[place] or "network"


def squash(ratio: float) -> float:
    """From a ratio to 0..1: 1 gives a half, 9 gives 0.9."""
    return 1.0 if math.isinf(ratio) else ratio / (1 + ratio)


def find_usual(values: NDArray[np.float64]) -> float:
    """The median of the last 5 that are not 0: optimisers may take turns, and a layer stand still at another's."""
    moved = values[-10:][values[-10:] != 0]
    return float(np.median(moved[-5:])) if len(moved) else 0.0
