"""Remedies, each tried: a fork from before the trouble, or a new start, trained long enough to tell.

A trial ends in one of three verdicts: mends, only hides, does not help.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnnlab.config.errors import describe_problem
from cnnlab.config.settings import KNOB_FIELDS, Settings
from cnnlab.diagnosis.causes import Cause
from cnnlab.records.formats import format_number
from cnnlab.records.record import Record
from cnnlab.training.run import Run

MENDS, HIDES, USELESS = "mends", "only hides", "does not help"
LEAST, MOST = 20, 40
"""Updates that a trial takes: as many again as the run took to break, within these bounds."""


@dataclass(frozen=True)
class Remedy:
    """A change of settings that may help."""

    name: str
    changes: dict[str, Any]
    """Fields of `Settings` and their values."""
    posted: bool = False
    """Whether it is one of the five of the posted answer."""

    @property
    def restarts(self) -> bool:
        """Whether it changes what a run starts from, and so begins again at update 0."""
        return any(name not in KNOB_FIELDS for name in self.changes)

    def __str__(self) -> str:
        changes = ", ".join(f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value!r}"
                            for name, value in self.changes.items())  # fmt: skip
        return f"{self.name} ({changes})"


@dataclass(frozen=True)
class Trial:
    """A remedy and how it went."""

    remedy: Remedy
    verdict: str
    """One of mends, only hides, does not help."""
    reason: str
    """Why, with numbers."""
    start: int
    """The update that it was forked after; 0: it began again."""
    cost: tuple[float, ...] = field(repr=False)
    """The cost at every update of the trial."""

    def __str__(self) -> str:
        return f"{self.verdict}: {self.remedy}: {self.reason}"


def try_remedies(
    run: Run,
    causes: tuple[Cause, ...],
    before: int,
    critical: float | None = None,
    going: Callable[[], bool] = lambda: True,
) -> tuple[Trial, ...]:
    """Try what fits the causes, and always the five remedies of the posted answer; those that mend come first.

    `critical` is the critical learning rate there, if it is known; no further remedy is tried once `going` says no.
    """
    if causes[0].name == "healthy":
        return ()
    trials = [try_remedy(run, remedy, before) for remedy in choose_remedies(run, causes, before, critical) if going()]
    order = (MENDS, HIDES, USELESS)
    return tuple(sorted(trials, key=lambda trial: order.index(trial.verdict)))


def choose_remedies(run: Run, causes: tuple[Cause, ...], before: int, critical: float | None = None) -> list[Remedy]:
    """The remedies to try: for each cause those that fit, and the five of the posted answer, none twice."""
    now = read_settings(run, before)
    rate = run.record.knobs_at(max(len(run.record), 1)).learning_rate
    likely = [cause.name for cause in causes if cause.confidence >= 0.3]
    wanted = [remedy for name in likely for remedy in list_remedies(name, rate, critical)]
    unique: dict[str, Remedy] = {}
    for remedy in [*wanted, *list_posted_remedies(now)]:
        key = str(sorted(remedy.changes.items()))
        unique[key] = dataclasses.replace(unique.get(key, remedy), posted=remedy.posted)
    return [
        remedy
        for remedy in unique.values()
        if any(getattr(now, name) != value for name, value in remedy.changes.items())
        and not (run.own_network and remedy.restarts)
    ]


def read_settings(run: Run, step: int) -> Settings:
    """The settings with the knobs that are in force at the update after `step`."""
    return run.settings.replace(**dataclasses.asdict(run.record.knobs_at(step + 1)))


def list_posted_remedies(start: Settings) -> tuple[Remedy, ...]:
    """The five remedies of the posted answer, which gives no numbers, as the changes that they make to some settings.

    Over 32 seeds of the question the lower rate mends 32, clipping 29, the initialisation 8 (it is the second one that
    the question tried; He's mends none), the epsilon none (it hides all 32) and L2 none, with 0.01 as with 0.1.
    """
    cost = {} if start.cost == "softmax_log" else {"cost": "softmax_log"}
    return (
        Remedy("a lower learning rate", {"learning_rate": round_rate(start.learning_rate / 100)}, posted=True),
        Remedy("another initialisation", {"init": "question_2", "init_scale": 1.0}, posted=True),
        Remedy("an L2 penalty", {"l2": 0.1}, posted=True),
        Remedy("a safe softmax", {**cost, "epsilon": 1e-8}, posted=True),
        Remedy("gradient clipping", {"clip": "norm", "clip_threshold": 1.0}, posted=True),
    )


def list_remedies(cause: str, rate: float, critical: float | None) -> list[Remedy]:
    """What fits a cause at a learning rate; nothing where no setting helps, as with data that hold NaN."""
    slow = Remedy("a lower learning rate", {"learning_rate": round_rate(rate / 100)})
    he = Remedy("He's initialisation", {"init": "he_normal", "init_scale": 1.0})
    exact = Remedy("cross-entropy from logits", {"cost": "log_softmax", "epsilon": 0.0})
    slow_alone = Remedy("no clipping, a lower learning rate", {"clip": "off", **slow.changes})
    half = Remedy("half the critical learning rate", {"learning_rate": round_rate((critical or 0) / 2)})
    return {
        "learning rate above critical": [slow if critical is None else half],
        "initial weights too large": [he],
        "inputs not scaled": [Remedy("standardised inputs", {"input_scaling": "standardised"})],
        "cost summed": [Remedy("the mean in place of the sum", {"reduction": "mean"})],
        "log(0) by saturation": [exact],
        "overflow of the precision": [Remedy("float32", {"precision": "float32"})],
        "penalty factor beyond 1": [Remedy("a small L2 and no L1", {"l1": 0.0, "l2": 1e-3})],
        "momentum": [Remedy("no momentum", {"momentum": 0.0})],
        "dead ReLUs": [slow],
        "vanishing gradient": [he],
        "masked, not mended": [exact, slow_alone],
    }.get(cause, [])


def round_rate(rate: float) -> float:
    """A learning rate of two digits within its range, however small it is."""
    return min(max(float(f"{rate:.1e}"), 5e-324), 1e6)


def try_remedy(run: Run, remedy: Remedy, before: int) -> Trial:
    """One remedy, trained from before the trouble or from a new start."""
    broke = run.record.first_nonfinite or len(run.record)
    updates = min(max(LEAST, 2 * (broke - before)), MOST)
    start = 0 if remedy.restarts else before
    try:
        if remedy.restarts:
            other = Run(read_settings(run, before).replace(**remedy.changes))
        else:
            other = run.fork(before, **remedy.changes)
        other.advance(updates, until="nonfinite")
    except Exception as error:
        return Trial(remedy, USELESS, f"it could not be tried: {describe_problem(error)}", before, ())
    return Trial(remedy, *judge_trial(other.record, start), start, tuple(map(float, other.record.cost[start:])))


def judge_trial(record: Record, start: int) -> tuple[str, str]:
    """The verdict on a trial, and why."""
    costs = record.cost[start:]
    if record.first_nonfinite is not None:
        return USELESS, f"the cost is {format_number(float(costs[-1]))} at update {record.first_nonfinite}"
    norm, gap = float(record.total_gradient_norm[-1]), float(record.logit_gap[-1])
    dead = np.nan_to_num(record.dead_relu[-1])
    usual = float(np.median(costs[-5:]))
    first, last = format_number(float(costs[0])), f"{format_number(usual)} (median of the last 5)"
    accuracy = float(record.accuracy[-1])
    wrong = accuracy == accuracy and accuracy < 1
    if (hidden := describe_epsilon(record, gap)) and wrong:
        return HIDES, hidden
    if norm == 0 and wrong:
        return (
            HIDES,
            f"the cost is finite, but its gradient is 0 at a logit gap of {format_number(gap)}: nothing is learnt",
        )
    if dead.max() == 1:
        name = record.layers[int(dead.argmax())] or "network"
        return HIDES, f"the cost is finite, but it stays at {last}, because every unit of {name} is dead"
    if not usual < 0.98 * float(costs[0]):
        return HIDES, f"the cost is finite, but it went from {first} to {last}"
    ended = f", accuracy {accuracy:.2f}" if accuracy == accuracy else ""
    return MENDS, f"the cost fell from {first} to {last} in {len(costs)} updates{ended}"


def describe_epsilon(record: Record, gap: float) -> str:
    """What an epsilon hides, in a sentence; '' where the logits are not so far apart that it hides anything."""
    epsilon = record.knobs_at(len(record)).epsilon
    if record.settings.cost != "softmax_log" or epsilon == 0 or not gap > -math.log(epsilon):
        return ""
    # d/dz of -log(p + e) is p/(p + e) of the true gradient, with p = exp(-gap) (in float32 exactly 0 from 104 on).
    left = math.exp(-min(gap, 700)) / (math.exp(-min(gap, 700)) + epsilon)
    exact = "exactly 0" if gap > 104 else f"{left:.1g} of the true one"
    return (
        f"the cost is finite, but that of an example is capped at {-math.log(epsilon):.4g}: at a logit gap of "
        f"{format_number(gap)} the gradient of a wrong example is {exact} (log-softmax would give 1)"
    )
