"""Remedies, each tried: a fork from before the trouble, or a new start, trained long enough to tell.

Knows run and the rooms below it. A trial ends in one of three words: mends, only hides, does not help.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnnlab.config.errors import in_a_sentence
from cnnlab.config.settings import KNOB_FIELDS, Settings
from cnnlab.diagnosis.causes import Cause
from cnnlab.records.formats import number
from cnnlab.records.record import Record
from cnnlab.training.run import Run

MENDS, HIDES, USELESS = "mends", "only hides", "does not help"
LEAST, MOST = 20, 40
"""Updates that a trial takes: as many again as the run took to break, within these bounds."""
GAP = 200.0
"""A logit gap at which the three forms of the cost are compared, in words."""


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


def prove(
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
    trials = [tried(run, remedy, before) for remedy in fitting(run, causes, before, critical) if going()]
    order = (MENDS, HIDES, USELESS)
    return tuple(sorted(trials, key=lambda trial: order.index(trial.verdict)))


def fitting(run: Run, causes: tuple[Cause, ...], before: int, critical: float | None = None) -> list[Remedy]:
    """The remedies to try: for each cause those that fit, and the five of the posted answer, none twice."""
    wanted = [remedy for cause in causes if cause.confidence >= 0.3 for remedy in for_cause(run, cause.name, critical)]
    wanted += posted(run, before)
    usable = [remedy for remedy in wanted if not (run.own_network and remedy.restarts)]
    now = in_force(run, before)
    unlike = [each for each in usable if any(getattr(now, name) != value for name, value in each.changes.items())]
    unique: dict[str, Remedy] = {}
    for remedy in unlike:
        known = unique.setdefault(str(sorted(remedy.changes.items())), remedy)
        if remedy.posted and not known.posted:
            unique[str(sorted(remedy.changes.items()))] = Remedy(known.name, known.changes, True)
    return list(unique.values())


def in_force(run: Run, step: int) -> Settings:
    """The settings with the knobs of the update after `step`."""
    knobs = run.record.knobs_at(step + 1)
    return run.settings.replace(**{name: getattr(knobs, name) for name in KNOB_FIELDS})


def posted(run: Run, before: int) -> list[Remedy]:
    """The five remedies of the posted answer: rate, initialisation, L2, a safe softmax, clipping."""
    rate = in_force(run, before).learning_rate
    epsilon: dict[str, Any] = {"epsilon": 1e-8}
    if run.settings.cost != "softmax_log":
        epsilon["cost"] = "softmax_log"
    return [
        Remedy("a lower learning rate", {"learning_rate": rate / 100}, True),
        Remedy("another initialisation", {"init": "he_normal", "init_scale": 1.0}, True),
        Remedy("an L2 penalty", {"l2": 0.01}, True),
        Remedy("a safe softmax: epsilon in the log", epsilon, True),
        Remedy("gradient clipping", {"clip": "norm", "clip_threshold": 1.0}, True),
    ]


def for_cause(run: Run, name: str, critical: float | None) -> list[Remedy]:
    """What fits one cause; nothing where no setting helps, as with data that hold NaN."""
    rate = run.record.knobs_at(max(len(run.record), 1)).learning_rate
    lower = Remedy("a lower learning rate", {"learning_rate": rate / 100})
    slow = (
        [lower] if critical is None else [Remedy("half the critical learning rate", {"learning_rate": half(critical)})]
    )
    exact = Remedy("cross-entropy from logits", {"cost": "log_softmax", "epsilon": 0.0})
    he = Remedy("He's initialisation", {"init": "he_normal", "init_scale": 1.0})
    scaled = Remedy("standardised inputs", {"input_scaling": "standardised"})
    return {
        "learning rate above critical": slow,
        "initial weights too large": [he],
        "inputs not scaled": [scaled],
        "cost summed": [Remedy("the mean in place of the sum", {"reduction": "mean"})],
        "log(0) by saturation": [exact],
        "overflow of the precision": [Remedy("float32", {"precision": "float32"})],
        "penalty factor beyond 1": [Remedy("a small L2 and no L1", {"l1": 0.0, "l2": 1e-3})],
        "momentum": [Remedy("less momentum", {"momentum": 0.0})],
        "dead ReLUs": [lower],
        "vanishing gradient": [he],
        "masked, not mended": [
            exact,
            Remedy("no clipping, a lower rate", {"clip": "off", "learning_rate": rate / 100}),
        ],
    }.get(name, [])


def half(critical: float) -> float:
    """Half of a rate, as a number of two digits that lies in the range of learning rates."""
    return min(max(float(f"{critical / 2:.1e}"), 1e-12), 1e6)


def tried(run: Run, remedy: Remedy, before: int) -> Trial:
    """One remedy, trained from before the trouble or from a new start."""
    record = run.record
    broke = record.first_nonfinite or len(record)
    updates = min(max(LEAST, 2 * (broke - before)), MOST)
    try:
        if remedy.restarts:
            start, other = 0, Run(in_force(run, before).replace(**remedy.changes))
        else:
            start, other = before, run.fork(before, **remedy.changes)
            updates = min(updates, MOST)
        other.advance(updates, until="nonfinite")
    except Exception as error:
        return Trial(remedy, USELESS, f"it could not be tried: {in_a_sentence(error)}", before, ())
    costs = other.record.cost[start:]
    verdict, reason = judged(other.record, start)
    return Trial(remedy, verdict, reason, start, tuple(map(float, costs)))


def judged(record: Record, start: int) -> tuple[str, str]:
    """The verdict on a trial, and why."""
    costs = record.cost[start:]
    if record.first_nonfinite is not None:
        return USELESS, f"the cost is {number(float(costs[-1]))} at update {record.first_nonfinite}"
    norm, gap = float(record.total_gradient_norm[-1]), float(record.logit_gap[-1])
    dead = np.nan_to_num(record.dead_relu[-1])
    last = float(np.median(costs[-5:]))
    accuracy = float(record.accuracy[-1])
    wrong = accuracy == accuracy and accuracy < 1
    if (hidden := by_epsilon(record, gap)) and wrong:
        return HIDES, hidden
    if norm == 0 and wrong:
        return HIDES, f"finite, but the gradient is 0 at a logit gap of {number(gap)}: nothing is learnt any more"
    if dead.max() == 1:
        name = record.layers[int(dead.argmax())] or "network"
        return HIDES, f"finite, but every unit of {name} is dead: the cost stays at {number(last)}"
    if not last < 0.98 * float(costs[0]):
        return HIDES, f"finite, but the cost went from {number(float(costs[0]))} to {number(last)}"
    ended = f", accuracy {accuracy:.2f}" if accuracy == accuracy else ""
    return MENDS, f"cost {number(float(costs[0]))} to {number(last)} in {len(costs)} updates{ended}"


def by_epsilon(record: Record, gap: float) -> str:
    """What an epsilon hides, in a sentence; '' where the logits are not so far apart that it hides anything."""
    epsilon = record.knobs_at(len(record)).epsilon
    if record.settings.cost != "softmax_log" or epsilon == 0 or not gap > -math.log(epsilon):
        return ""
    # d/dz of -log(p + e) is p/(p + e) of the true gradient, with p = exp(-gap) (in float32 exactly 0 from 104 on).
    left = math.exp(-min(gap, 700)) / (math.exp(-min(gap, 700)) + epsilon)
    exact = "exactly 0" if gap > 104 else f"{left:.1g} of the true one"
    return (
        f"no NaN, but the cost of an example is capped at {-math.log(epsilon):.4g}: at a logit gap of {number(gap)} "
        f"the gradient of a wrong one is {exact} (at {GAP:g} it is 0 with an epsilon, and 1 from log-softmax)"
    )
