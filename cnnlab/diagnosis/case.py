"""What the causes look at: a record, where its first NaN or inf was made, what was probed, and what follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.settings import ADAPTIVE, Knobs
from cnnlab.config.stability import find_bound
from cnnlab.diagnosis.events import name_place
from cnnlab.diagnosis.summary import RISE
from cnnlab.records.clues import BatchClues, Clues
from cnnlab.records.formats import format_growth
from cnnlab.records.frame import is_measured
from cnnlab.records.record import Record

if TYPE_CHECKING:
    from cnnlab.diagnosis.nan_tracer import Event
    from cnnlab.diagnosis.probe import Probe


LONG_STEP = 0.5
"""An update so many times as long as the weights that it met is long: two of them show a divergence."""
LEAP = 10.0
"""One update so many times as long as the weights is enough."""


@dataclass(frozen=True)
class Cause:
    """One cause that may hold."""

    confidence: float
    """From 0 to 1: how well the numbers fit; no probability."""
    evidence: tuple[str, ...]
    """What was measured, in sentences."""
    rules: tuple[str, ...] = ()
    """Which of `cnnlab.diagnosis.causes.RULES` name it."""
    name: str = ""
    """One of `cnnlab.diagnosis.causes.CAUSES`, whose row gives it."""

    def __str__(self) -> str:
        return f"{self.name} ({self.confidence:.2f})"


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
    def data_costs(self) -> NDArray[np.float64]:
        """The same without a penalty that the cost holds: whether anything is learnt of the data."""
        return self.record.data_cost[self.steps - 1]

    @property
    def clues(self) -> Clues:
        """What was seen beside the gauges while it trained."""
        return self.record.clues

    @property
    def batch(self) -> BatchClues:
        """What examples and graph tell; empty where neither was looked at."""
        return (self.probe.batch if self.probe is not None else self.clues.batch) or BatchClues()

    @property
    def calm_updates(self) -> int:
        """How many updates there are before the one that made the first NaN or inf, whose own step proves nothing."""
        return len(self.record) if self.event is None else max(self.event.step - 1, 0)

    @property
    def climbed(self) -> bool:
        """Whether the last cost before the trouble is above 3 times the least, and above whatever batches differ by.

        A cost that one batch alone had is no climb: the updates since the least must have moved the weights.
        """
        costs = self.costs
        if len(costs) < 2 or not costs[-1] > 0.1 or not costs[-1] > RISE * costs.min():
            return False
        least = int(self.steps[int(np.argmin(costs))])
        moved = np.nan_to_num(self.ratios[least - 1 :], nan=0.0, posinf=LEAP)
        return bool(moved.sum() > 0.1)

    @property
    def fell_without_end(self) -> bool:
        """Whether the cost fell below any bound without ever rising much, so that no step was too long for it."""
        costs = self.costs
        if len(costs) < 3 or not costs[-1] < -100 * max(1.0, abs(costs[0])):
            return False
        rises = np.maximum(np.diff(costs), 0)
        return bool(rises.max() < 0.01 * abs(costs[-1]) and costs[-1] == costs.min())

    @property
    def gains(self) -> NDArray[np.float64]:
        """(layers,): how many times as large as He's the first weights of each layer were; NaN where not known."""
        return np.array(self.clues.gains if self.probe is None else self.probe.gains, dtype=float)

    @property
    def ratios(self) -> NDArray[np.float64]:
        """(updates,): how long each update before the trouble was, over the weights of the layer it changed most."""
        ratios = self.record.update_ratio[: self.calm_updates]
        return np.where(np.isnan(ratios), -1, ratios).max(axis=1, initial=-1)

    @property
    def rose(self) -> bool:
        """Whether the cost rose: to 3 times its least before a NaN, else in the end to 3 times the first one.

        A run that breaks with updates as long as the weights has risen too, if only its last cost had no time to tell.
        """
        costs = self.costs
        if self.event is None:
            return len(costs) > 1 and bool(np.median(costs[-5:]) > RISE * costs[0] and costs[-1] > 0.1)
        return bool(self.climbed or self.record.longer_than(1, slice(self.calm_updates)).any())

    @property
    def exploded(self) -> bool:
        """Whether steps were so long that they, and no single operation, explain the trouble.

        Before a NaN: a rise, and two updates at least half as long as the weights, or one ten times as long.
        """
        if self.event is None or not self.rose:
            return self.rose
        return self.has_long_steps

    @property
    def has_long_steps(self) -> bool:
        """Whether two updates before the trouble were at least half as long as the weights, or one ten times as long.

        Weights that start at 0 are as long as the update that leaves 0, whatever its length.
        """
        longer = [self.record.longer_than(times, slice(self.calm_updates)).any(axis=1) for times in (LONG_STEP, LEAP)]
        return bool(longer[0].sum() >= 2 or longer[1].any())

    @property
    def was_thrown(self) -> bool:
        """Whether steps as long as the weights, none of which broke anything, left the cost no lower than it was."""
        return self.event is None and self.stands and self.has_long_steps

    @property
    def stands(self) -> bool:
        """Whether the cost is in the end where it was at the start, or above."""
        costs = self.data_costs
        return len(costs) >= 5 and bool(np.median(costs[-5:]) > 0.9 * costs[0] > 0)

    @property
    def diverged(self) -> bool:
        """Whether steps made the numbers grow until they broke, or the cost climbs."""
        return self.exploded if self.event is None else self.exploded and self.event.operation != "given"

    @property
    def before_any_step(self) -> bool:
        """Whether it went wrong before the learning rate had acted at all."""
        return self.event is not None and self.event.step <= 1 and self.event.phase not in ("update", "weight")

    @property
    def is_adaptive(self) -> bool:
        """Whether the optimiser divides each gradient by its usual size: what holds of 2 / lambda_max does not then."""
        return self.knobs.optimizer in ADAPTIVE

    @property
    def stretch(self) -> float:
        """How many times 2 / lambda_max momentum allows a learning rate to be."""
        return find_bound(self.knobs.optimizer, self.knobs.momentum) / 2

    @property
    def excess(self) -> float | None:
        """The learning rate over the critical one (with momentum m that is 1 + m times as high); None if unknown."""
        if self.is_adaptive or self.probe is None or self.probe.critical is None:
            return None
        return self.knobs.learning_rate / (self.probe.critical * self.stretch)

    def estimate_relief(self, critical: float | None) -> float:
        """How well another critical rate would have spared the run: near 1 if the learning rate is far below it."""
        known = critical is not None and not self.is_adaptive
        return squash(critical * self.stretch / self.knobs.learning_rate) if known else 0.0  # type: ignore[operator]

    def estimate_share(self, factor: float) -> float:
        """What share of the excess over the critical rate, in powers of ten, a factor accounts for: 0 to 1."""
        if self.excess is None or self.excess <= 1:
            return 0.0
        return min(1.0, math.log(factor) / math.log(self.excess))

    def describe_rise(self) -> list[str]:
        """How the cost rose, in a sentence; nothing if it did not."""
        costs = self.costs
        if not len(costs):
            return []
        low = int(np.argmin(costs))
        if costs[low] <= 0 or costs[-1] / 2 <= costs[low]:
            return []
        growth = format_growth(costs[-1], costs[low])
        return [f"the cost rose {growth} from update {self.steps[low]} to {self.steps[-1]}"]

    def name_layer(self, place: int) -> str:
        """The name of a layer in a sentence; 'network' for one without a name."""
        return name_place(self.record.layers[place]) or "network"


def squash(ratio: float) -> float:
    """From a ratio to 0..1: 1 gives a half, 9 gives 0.9."""
    return 1.0 if math.isinf(ratio) else ratio / (1 + ratio)


def find_usual(values: NDArray[np.float64]) -> float:
    """The median of the last 5 that are not 0: optimisers may take turns, and a layer stand still at another's."""
    known = values[is_measured(values)][-10:]
    moved = known[known != 0]
    return float(np.median(moved[-5:])) if len(moved) else 0.0
