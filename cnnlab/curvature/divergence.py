"""Whether a run will diverge, said before its first update, from what can be measured at its start."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from torch import Tensor

from cnnlab.config.settings import Knobs
from cnnlab.curvature.hessian import Critical, critical_learning_rate
from cnnlab.records.formats import format_chance
from cnnlab.training.checkpoints import State
from cnnlab.training.clipping import safe_norm
from cnnlab.training.run import Run

SIGNS = ("critical", "ratio", "next_ratio")
"""What the rule looks at, each as a decimal logarithm; see `measure_signs`."""
WITHIN = 20
"""Updates within which a run is foretold to reach a cost that is NaN or inf, or not to."""
SEEDS = 4
"""Further seeds over which a Forecast takes the chance."""
ENDS = (-6.0, 6.0)
"""Ends of each logarithm; 0 is at the lower one, inf and NaN at the upper one."""


@dataclass(frozen=True)
class Prediction:
    """Whether a run is likely to reach NaN or inf within 20 updates."""

    chance: float
    """Between 0 and 1: of this start, or the mean over several seeds."""
    starts: int = 1
    """Random starts that the chance is the mean of."""

    @property
    def diverges(self) -> bool:
        """Whether it is more likely to diverge than not."""
        return self.chance > 0.5

    def __str__(self) -> str:
        verdict = "will diverge" if self.diverges else "will not diverge"
        over = "" if self.starts == 1 else f" over {self.starts} seeds"
        return f"{verdict} (chance of NaN{over}: {format_chance(self.chance)})"


def predict(run: Run) -> Prediction:
    """Whether a run will reach a cost that is NaN or inf within 20 updates from its present weights.

    A logistic rule of how far the learning rate lies above the critical one, and of how long the first update and the
    one after it would be beside the weights: one trial update is made, and thrown away. Fitted to 300 runs of the
    question's network; tests/benchmarks/results/prediction.md has its score on others. A network whose outputs are
    bounded by saturating units (tanh) may swing without ever reaching NaN, which the rule does not know. ValueError in
    a sentence if the network has no second derivatives.
    """
    return Prediction(compute_chance(measure_signs(run)))


def measure_signs(run: Run, critical: Critical | None = None) -> dict[str, float]:
    """What is measured at a run's present weights, as plain numbers.

    "critical": the learning rate over the critical one, clipping taken off; "ratio" and "next_ratio": the first update,
    and the one after it, over the weights that it meets, in the layer where that is largest; and the cost before and
    after a trial update.
    """
    critical = critical or measured(run)
    batch, knobs = run.problem.batch(run.updates + 1), run.prepare_knobs(run.knobs_in_force)
    with run.determinism(run.updates + 1):
        step = run.descent.step(run.state, *batch, *knobs)
        same = step.clipped is step.gradient
        clipped = 1.0 if same else (safe_norm(step.clipped) / safe_norm(step.gradient)).item()
        ratio = longest(run, step.update, run.parameters)  # now: a long network's next update writes over this one
        state = State(step.parameters, step.velocity, step.buffers)
        after = run.descent.step(state, *batch, *knobs)
    rate = run.knobs_in_force.learning_rate * (clipped if math.isfinite(clipped) else 1.0)
    return {
        "critical": rate * critical.eigenvalue / (2 * (1 + critical.momentum)),
        "ratio": ratio,
        "next_ratio": longest(run, after.update, step.parameters),
        "eigenvalue": critical.eigenvalue,
        "cost": step.data_cost.item(),
        "next_cost": after.data_cost.item(),
    }


def measured(run: Run) -> Critical:
    """The curvature at a run's present weights, to a few per cent."""
    of = "all" if run.problem.batch_size is None else "batch"
    return critical_learning_rate(run, of=of, tolerance=0.05, most=30)


def longest(run: Run, update: Tensor, parameters: Tensor) -> float:
    """The update over the weights that it meets, in the layer where that is largest; inf if it is not finite."""
    layers = zip(run.layout.by_layer(update), run.layout.by_layer(parameters), strict=True)
    ratios = [(safe_norm(moved) / safe_norm(weights).clamp(min=1e-30)).item() for moved, weights in layers]
    return max(ratio if math.isfinite(ratio) else math.inf for ratio in ratios)


def compute_chance(signs: dict[str, float]) -> float:
    """The chance of NaN or inf that the rule gives to what was measured."""
    weights = rule()
    total = weights["constant"] + sum(weights[name] * logarithm(signs[name]) for name in SIGNS)
    return 1 / (1 + math.exp(-min(max(total, -30), 30)))


@cache
def rule() -> dict[str, float]:
    """The coefficients, as tests/benchmarks/prediction.py --write has fitted them."""
    return json.loads((files("cnnlab.curvature") / "prediction.json").read_text(encoding="utf-8"))


def logarithm(value: float) -> float:
    """log10 within ENDS."""
    low, high = ENDS
    if math.isnan(value) or value == math.inf:
        return high
    return low if value <= 0 else min(max(math.log10(value), low), high)


class Forecast:
    """The chance of a run at its start, over this and further seeds, found a start at a time."""

    def __init__(self) -> None:
        self.begun_for: Any = None
        self.starts: list[tuple[Run, Critical]] = []
        self.asked: Knobs | None = None
        self.chances: list[float] = []
        self.failed = False

    def wanted(self, run: Run) -> int:
        """Over how many starts: one where the weights are the user's own."""
        return 1 if run.own_network else 1 + SEEDS

    def is_known(self, run: Run) -> bool:
        """Whether the forecast of a run with its present knobs is complete, or cannot be made."""
        same = self.begun_for == make_key(run) and self.asked == run.knobs_in_force
        return same and (self.failed or len(self.chances) == self.wanted(run))

    def measure_piece(self, run: Run) -> None:
        """The chance of one more start."""
        if self.begun_for != make_key(run):
            self.begun_for, self.starts, self.asked = make_key(run), [], None
        if self.asked != run.knobs_in_force:
            self.asked, self.chances, self.failed = run.knobs_in_force, [], False
        place = len(self.chances)
        try:
            if place == len(self.starts):
                seed = (run.settings.seed + place) % 2**32
                start = run if place == 0 else Run(run.problem.replace_seed(seed), history_bytes=0)
                self.starts.append((start, measured(start)))
            start, critical = self.starts[place]
            if start is not run:
                start.choose(run.knobs_in_force)
            critical = replace(critical, momentum=run.knobs_in_force.momentum)
            self.chances.append(compute_chance(measure_signs(start, critical)))
        except BaseException as reason:  # a user's network may do anything; then there is no forecast
            self.failed = True
            if not isinstance(reason, Exception):
                raise

    def find_prediction(self, run: Run) -> Prediction | None:
        """The mean over the starts; None if it is not known, or the run has begun."""
        if run.updates or not self.is_known(run) or self.failed:
            return None
        return Prediction(sum(self.chances) / len(self.chances), len(self.chances))


def make_key(run: Run) -> tuple[Any, ...]:
    """What the curvature at a run's starts depends on."""
    knobs = run.knobs_in_force
    recipe = replace(run.settings, **{name: getattr(Knobs(), name) for name in Knobs.__dataclass_fields__})
    return id(run.network) if run.own_network else 0, recipe, knobs.l2, knobs.epsilon, knobs.penalty_in
