"""Why a run got into trouble: every cause of a documented list, with a confidence and its evidence in numbers, ranked.

Works on a record, on where the first NaN was made, and on what was probed. No torch, no plots, no widgets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cnnlab.config.settings import Knobs
from cnnlab.diagnosis.summary import RISE
from cnnlab.records.formats import number
from cnnlab.records.record import Record

if TYPE_CHECKING:
    from cnnlab.diagnosis.nan_tracer import Event
    from cnnlab.diagnosis.probe import Probe

CAUSES = {
    "learning rate above critical": "Steps are longer than 2 / lambda_max allows, so each lands higher than the last.",
    "initial weights too large": "The weights start so large that the cost curves too sharply for the learning rate.",
    "inputs not scaled": "Large inputs multiply the gradient, and its slope by their square.",
    "cost summed": "The gradient of a sum over the batch is as many times too long as there are examples.",
    "log(0) by saturation": "The softmax is so sure that a label's probability is 0, or 1/p is beyond the type.",
    "overflow of the precision": "The numbers are harmless for float32 and too large for the type in use.",
    "penalty factor beyond 1": "L1 or L2 takes off more than there is: weights are multiplied by less than -1.",
    "momentum": "Past steps are added up faster than they fade.",
    "dead ReLUs": "A layer's ReLUs give 0 for every example, so no gradient passes.",
    "vanishing gradient": "Next to no gradient reaches the first layer.",
    "masked, not mended": "Epsilon or clipping hides the trouble, and the gradient is gone with it.",
    "data hold NaN": "The data themselves are not finite.",
    "undefined operation": "An operation has no finite answer, or no finite slope, for what it was given.",
    "undecided": "None of the causes above fits the numbers that were measured.",
    "healthy": "Nothing is wrong.",
}
"""Cause -> what it means."""
RULES = {
    "a": "rule (a) of the posted answer: the cost rises, then NaN: divergence, the learning rate is too high",
    "b": "rule (b) of the posted answer: NaN comes suddenly: saturation, log(0), a derivative that does not exist",
    "c": "rule (c) of the posted answer: floating point: numbers so large that inf/inf, inf-inf, inf*0 or 0/0 appear",
}
"""The three rules for telling a cause that the question was answered with."""
UNDEFINED = {
    "0/0": "nothing over nothing, as a mean over no examples",
    "x/0": "a quotient by 0, which the slope of a root at 0 is too",
    "inf/inf": "a quotient of infinities",
    "inf-inf": "infinities taken from each other, as in a softmax over -inf alone",
    "inf*0": "an infinity times 0, as where a branch is not taken whose slope is infinite",
    "log(0)": "the log of 0, as where what is asked for has no probability at all",
    "log of a negative number": "there is none",
    "root of a negative number": "there is none",
}
"""Operation -> why it has no finite answer."""
CALM = 1e6
"""Numbers below this are not those of a run that explodes."""
USUAL_RATE = 1e-2
"""A learning rate above this is unusual by itself (the threshold of UMLAUT's rule)."""
USUAL_INPUTS = 3.0
"""Root mean square of inputs above which they count as not scaled; standardised ones have 1."""
FLOAT32_END = 3.4028235e38


@dataclass(frozen=True)
class Cause:
    """One cause that may hold."""

    name: str
    """One of CAUSES."""
    confidence: float
    """From 0 to 1: how well the numbers fit; no probability."""
    evidence: tuple[str, ...]
    """What was measured, in sentences."""
    rules: tuple[str, ...] = ()
    """Which of RULES name it."""

    def __str__(self) -> str:
        return f"{self.name} ({self.confidence:.2f})"


def ranked(record: Record, event: Event | None, probe: Probe | None) -> tuple[Cause, ...]:
    """The causes that may hold, the likeliest first; `healthy` alone if none does."""
    case = Case(record, event, probe)
    found = [cause for rule in (*WITH_NAN, *WITHOUT) for cause in rule(case) if cause.confidence >= 0.1]
    found.sort(key=lambda cause: -cause.confidence)
    return tuple({cause.name: cause for cause in reversed(found)}.values())[::-1] or (nothing_found(case),)


@dataclass(frozen=True)
class Case:
    """What the rules of this room look at."""

    record: Record
    event: Event | None
    probe: Probe | None

    @property
    def knobs(self) -> Knobs:
        """The knobs in force where it went wrong, or at the end."""
        return self.record.knobs_at(max(1, min(len(self.record), self.event.step if self.event else len(self.record))))

    @property
    def good(self) -> int:
        """How many updates there are before the first cost that is not finite."""
        first = self.record.first_nonfinite
        return len(self.record) if first is None else first - 1

    @property
    def steps(self) -> np.ndarray:
        """The updates before the first cost that is not finite, of those whose cost was measured."""
        steps, _ = self.record.known_costs
        return steps[steps <= self.good]

    @property
    def finite(self) -> np.ndarray:
        """Their costs."""
        return self.record.cost[self.steps - 1]

    @property
    def rose(self) -> bool:
        """Whether the cost rose: to 3 times its least before a NaN, else in the end to 3 times the first one.

        A run that breaks with updates as long as the weights has risen too, if only its last cost had no time to tell.
        """
        costs = self.finite
        if self.event is None:
            return len(costs) > 1 and bool(np.median(costs[-5:]) > RISE * costs[0] and costs[-1] > 0.1)
        climbed = len(costs) > 1 and costs[-1] > RISE * costs.min() and costs[-1] > 0.1
        return bool(climbed or self.record.longer_than(1, slice(self.good)).any())

    @property
    def excess(self) -> float | None:
        """The learning rate over the critical one (with momentum m that is 1 + m times as high); None if unknown."""
        if self.probe is None or self.probe.critical is None:
            return None
        knobs = self.knobs
        return knobs.learning_rate / (self.probe.critical * (1 + knobs.momentum))

    def spared(self, critical: float | None) -> float:
        """How well another critical rate would have spared the run: near 1 if the learning rate is far below it."""
        return 0.0 if critical is None else share(critical * (1 + self.knobs.momentum) / self.knobs.learning_rate)

    def explained(self, factor: float) -> float:
        """What share of the excess over the critical rate, in powers of ten, a factor accounts for: 0 to 1."""
        if self.excess is None or self.excess <= 1:
            return 0.0
        return min(1.0, math.log(factor) / math.log(self.excess))

    @property
    def diverged(self) -> bool:
        """Whether a NaN was made by steps, not given, or the cost climbs."""
        return self.rose if self.event is None else self.event.operation != "given"

    @property
    def before_any_step(self) -> bool:
        """Whether it went wrong before the learning rate had acted at all."""
        return self.event is not None and self.event.step <= 1 and self.event.phase not in ("update", "weight")


def share(ratio: float) -> float:
    """From a ratio to 0..1: 1 gives a half, 9 gives 0.9."""
    return 1.0 if math.isinf(ratio) else ratio / (1 + ratio)


def learning_rate(case: Case) -> Iterator[Cause]:
    """Divergence: the rate is above 2 / lambda_max, and the cost rose."""
    excess, rate = case.excess, case.knobs.learning_rate
    if case.before_any_step or not case.diverged or not (case.rose or (excess or 0) > 1):
        return
    confidence = 0.6 if excess is None else share(excess)
    evidence = [f"the learning rate is {number(rate)}"]
    if excess is not None and case.probe is not None and case.probe.critical is not None:
        where = f"after update {case.probe.step}" if case.probe.step else "at the start"
        said = f"{excess:.3g} times the critical one {where}, {number(case.probe.critical)}"
        evidence = [f"the learning rate, {number(rate)}, was {said}"]
        if case.knobs.momentum:
            evidence[0] += f" (times 1 + {case.knobs.momentum:g} for momentum)"
    evidence += rise(case)
    if not case.rose:
        confidence *= 0.6
    if case.knobs.clip != "off":
        confidence *= 0.8
    if explained_otherwise(case) and rate < USUAL_RATE:
        confidence *= 0.8
        evidence.append(f"yet {number(rate)} is a usual rate: see the other causes")
    yield Cause("learning rate above critical", confidence, tuple(evidence), ("a",))


def rise(case: Case) -> list[str]:
    """How the cost rose, in a sentence; nothing if it did not."""
    costs = case.finite
    if len(costs) < 2 or costs[-1] <= costs.min() or costs.min() <= 0:
        return []
    low = int(np.argmin(costs))
    factor = math.log10(costs[-1]) - math.log10(costs[low])
    since, now = case.steps[low], case.steps[-1]
    return [f"the cost rose {10**factor:.3g} times from update {since} to {now}"] if factor > 0.3 else []


def explained_otherwise(case: Case) -> bool:
    """Whether inputs, initial weights or a sum explain why the critical rate is so low."""
    return any(cause.confidence > 0.5 for rule in (inputs, initial_weights, summed) for cause in rule(case))


def inputs(case: Case) -> Iterator[Cause]:
    """Inputs far from a deviation of 1, and a critical rate that would be high enough without that."""
    if case.probe is None or not case.diverged or not case.probe.input_size > USUAL_INPUTS:
        return
    size, scaled = case.probe.input_size, case.probe.critical_scaled
    evidence = [f"the inputs' root mean square is {number(size)}, and 1 would be usual"]
    confidence = 0.55
    if scaled is not None and case.probe.critical is not None:
        evidence.append(f"standardised, the critical learning rate would be {number(scaled)}")
        confidence = 0.97 * case.spared(scaled)
    if case.excess is not None:
        confidence *= share(case.excess)
    yield Cause("inputs not scaled", confidence, tuple(evidence))


def initial_weights(case: Case) -> Iterator[Cause]:
    """Weights that started larger than He's, and a critical rate that would be high enough with his."""
    if case.probe is None or not case.diverged:
        return
    gains = np.array([gain for gain in case.probe.gains if gain == gain])
    if not len(gains) or gains.max() < 1.5 or np.exp(np.log(np.maximum(gains, 1e-30)).mean()) < 1.2:
        return
    name = case.record.layers[int(np.nanargmax(case.probe.gains))]
    product = float(np.prod(gains))
    evidence = [
        f"the weights started up to {gains.max():.3g} times as large as He's sqrt(2 / fan_in) ({name or 'network'}), "
        f"{product:.3g} times over all layers"
    ]
    confidence = share(product) if case.probe.critical_he is None else case.spared(case.probe.critical_he)
    if case.probe.critical_he is not None:
        evidence.append(f"with He's the critical learning rate would be {number(case.probe.critical_he)}")
    yield Cause("initial weights too large", 0.98 * confidence, tuple(evidence))


def summed(case: Case) -> Iterator[Cause]:
    """A sum over the batch, and a rate that would be below the critical one for the mean."""
    if case.record.settings.reduction != "sum" or case.record.own_network or not case.diverged or case.probe is None:
        return
    count = case.record.settings.batch_size or case.probe.examples
    evidence = [f"the cost is the sum over {count} examples, so the gradient is {count} times that of the mean"]
    confidence = 0.6
    if case.probe.critical is not None:
        evidence.append(f"with the mean the critical learning rate would be {number(case.probe.critical * count)}")
        confidence = 0.98 * max((1 + case.spared(case.probe.critical * count)) / 2, case.explained(count))
    yield Cause("cost summed", confidence, tuple(evidence))


def saturation(case: Case) -> Iterator[Cause]:
    """The label's probability is 0, or so small that 1/p is beyond the type."""
    event = case.event
    if event is None or not (case.record.own_network or case.record.settings.cost == "softmax_log"):
        return
    underflow = event.operation == "log(0)" and event.function.startswith("log")
    steep = event.phase == "gradient" and event.operation in ("overflow", "x/0", "0/0") and event.function == "div"
    steep &= not case.record.own_network  # whose quotients may be others than 1/p
    if not (underflow or steep):
        return
    gap = case.record.logit_gap[event.step - 1]
    apart = f"the outputs are {number(float(gap))} apart, so that" if gap == gap else "the network is so sure that"
    evidence = [f"{apart} a label's probability is next to 0"]
    evidence.append("log(0) is -inf" if underflow else f"1/p would be {number(event.reached)}")
    long = np.nan_to_num(case.record.update_ratio[: event.step - 1]).max(initial=0)
    yield Cause("log(0) by saturation", 0.97 if long < 10 else 0.6, tuple(evidence), ("b",))


def precision(case: Case) -> Iterator[Cause]:
    """A value that float32 would hold, in a type that ends sooner."""
    event = case.event
    if event is None or event.precision != "float16" or event.operation not in ("overflow", "cast", "exp overflow"):
        return
    largest = event.reached if event.reached == event.reached else event.largest
    if not largest < FLOAT32_END:
        return
    evidence = (f"the value would be {number(largest)}, and float16 ends at 65504; float32 would hold it",)
    calm = len(case.finite) < 2 or case.finite[-1] < 1e3 * max(case.finite.min(), 1e-30)
    confidence = 0.99 if event.step == 1 else 0.96 if calm else 0.7
    yield Cause("overflow of the precision", confidence, evidence, ("c",))


def penalty(case: Case) -> Iterator[Cause]:
    """L2 that turns weights over, L1 that takes off more than they are."""
    knobs = case.knobs
    factor = 1 - knobs.learning_rate * knobs.l2
    if factor < -1:
        said = f"every update multiplies the weights by 1 - learning_rate * l2 = {number(factor)}"
        yield Cause("penalty factor beyond 1", 0.99 if case.diverged else 0.5, (said,))
        return
    size = case.probe.weight_size if case.probe is not None else math.inf
    step = knobs.learning_rate * knobs.l1
    if step > 2 * size and case.diverged:
        said = f"L1 takes {number(step)} off every weight at each update, and the weights were {number(size)} in size"
        yield Cause("penalty factor beyond 1", 0.97 * share(step / size), (said,))


def momentum(case: Case) -> Iterator[Cause]:
    """Momentum of 1, or so near to 1 that past steps add up a hundredfold."""
    kept = case.knobs.momentum
    if kept >= 1 and len(case.record):
        _, costs = case.record.known_costs
        trouble = case.diverged or bool((costs[-1:] > 0.5 * costs[:1]).any())
        yield Cause("momentum", 0.99 if trouble else 0.6, ("momentum is 1: no past step ever fades",))
    elif case.diverged and not case.before_any_step and kept >= 0.5 and case.excess is not None:
        # Far below the critical rate it is the sum of steps that is too long; far above, any step is.
        longer = 1 / (1 - kept)
        said = f"momentum {kept:g} makes a steady step {longer:.3g} times as long"
        yield Cause("momentum", 0.9 * share(longer / 20) * (1 - share(case.excess) / 2), (said,))


def dead(case: Case) -> Iterator[Cause]:
    """A layer of which every unit is dead, for the whole last batch."""
    if case.event is not None or not len(case.record):
        return
    shares = np.nan_to_num(case.record.dead_relu[-1])
    worst = int(np.argmax(shares))
    if shares[worst] >= 0.9:
        name, rate = case.record.layers[worst], float(shares[worst])
        reached = number(float(case.record.gradient_norm[-1][0]))
        evidence = (
            f"{rate:.0%} of the units of {name or 'network'} are dead",
            f"the first layer's gradient is {reached}",
        )
        yield Cause("dead ReLUs", 0.98 if rate == 1 else 0.35, evidence)


def vanishing(case: Case) -> Iterator[Cause]:
    """A first layer whose gradient is a thousandth of the last one's, while the cost stands still."""
    costs = case.finite
    if case.event is not None or len(case.record) < 5 or len(case.record.layers) < 2 or len(costs) < 2:
        return
    norms = [usual(column) for column in case.record.gradient_norm.T]
    ratio = usual(case.record.update_ratio[:, 0])
    flat = abs(costs[-1] - costs[0]) <= 0.1 * abs(costs[0])
    if not flat or norms[-1] == 0 or norms[0] > 1e-3 * norms[-1]:
        return
    evidence = (
        f"the gradient's norm is {number(norms[0])} in the first layer and {number(norms[-1])} in the last",
        f"an update is {number(ratio)} of the first layer's weights; 1e-3 would be healthy",
        f"the cost went from {number(costs[0])} to {number(costs[-1])}",
    )
    alive = np.nan_to_num(case.record.dead_relu[-1]).max() < 1
    yield Cause("vanishing gradient", 0.9 if alive else 0.4, evidence)


def usual(values: np.ndarray) -> float:
    """The median of the last 5 that are not 0: optimisers may take turns, and a layer stand still at another's."""
    moved = values[-10:][values[-10:] != 0]
    return float(np.median(moved[-5:])) if len(moved) else 0.0


def masked(case: Case) -> Iterator[Cause]:
    """An epsilon that hides log(0), or a clip that freezes: no NaN, and nothing learnt."""
    record, knobs = case.record, case.knobs
    if case.event is not None or len(record) < 3:
        return
    norm = float(record.total_gradient_norm[-1])
    if record.settings.cost == "softmax_log" and knobs.epsilon > 0:
        yield from hidden_by_epsilon(record, knobs.epsilon)
    ratio = float(np.nan_to_num(record.update_ratio[-5:]).max())
    stands = bool((case.finite[-1:] > 0.5 * case.finite[:1]).any())
    if knobs.clip != "off" and record.clipped[-5:].min() > 0.5 and ratio < 1e-6 and stands:
        evidence = (
            f"clipping leaves updates of {number(ratio)} of the weights",
            f"the gradient's norm is {number(norm)}",
        )
        yield Cause("masked, not mended", 0.9, evidence)


def hidden_by_epsilon(record: Record, epsilon: float) -> Iterator[Cause]:
    """Updates whose batch holds a wrong example of which no gradient is left."""
    cap = -math.log(epsilon)
    late = slice(max(0, len(record) - 2 * record.updates_per_epoch), len(record))
    without = record.total_gradient_norm[late] < 1e-2 * max(float(np.nanmax(record.total_gradient_norm)), 1e-30)
    found = np.flatnonzero((record.accuracy[late] < 1) & without & (record.logit_gap[late] > 0.9 * cap))
    if len(found):
        step = late.start + int(found[-1])
        evidence = (
            f"epsilon {number(epsilon)} caps the cost of an example at {cap:.4g}",
            f"update {step + 1}: {1 - record.accuracy[step]:.0%} of the batch is wrong, at a logit gap of "
            f"{number(float(record.logit_gap[step]))}, and the gradient's whole norm is "
            f"{number(float(record.total_gradient_norm[step]))}",
        )
        yield Cause("masked, not mended", 0.95, evidence)


def given(case: Case) -> Iterator[Cause]:
    """NaN or inf that came with the data."""
    if case.event is not None and case.event.phase == "input":
        count = case.probe.nan_inputs if case.probe is not None else 1
        yield Cause("data hold NaN", 1.0, (f"{count} of the examples hold a NaN or inf",))


def undefined(case: Case) -> Iterator[Cause]:
    """An operation within a reader's network or cost that is wrong for numbers of usual size."""
    event = case.event
    if event is None or not case.record.own_network or event.operation not in UNDEFINED or event.largest > CALM:
        return
    place = f"{event.phase} of {event.layer}" if event.layer else event.phase
    said = f"update {event.step}, {place}: {event.operation} in {event.function}: {UNDEFINED[event.operation]}"
    evidence = (said, f"the largest number it was given is {number(event.largest)}")
    calm = case.before_any_step or not case.rose
    yield Cause("undefined operation", 0.9 if calm else 0.4, evidence, ("b",))


def floating_point(case: Case) -> Iterator[Cause]:
    """Initial weights that their type does not hold."""
    if case.event is not None and case.event.step == 0:
        said = f"weights of {case.event.layer or 'network'} are not finite before the first update"
        yield Cause("initial weights too large", 0.99, (said,), ("c",))


def nothing_found(case: Case) -> Cause:
    """What is said of a run in which no rule finds anything."""
    record = case.record
    if case.event is not None:
        return Cause("undecided", 0.0, ("the gauges alone do not tell",))
    if not len(record):
        return Cause("healthy", 0.0, ("nothing is trained yet",))
    costs = case.finite
    if not len(costs):
        return Cause("undecided", 0.0, ("the gauges that were measured are all finite",))
    measured = "" if len(costs) == len(record) else f", of which {len(costs)} had their cost measured"
    said = f"cost {number(costs[0])} to {number(costs[-1])} in {len(record)} updates{measured}, all finite"
    return Cause("healthy", 0.9 if costs[-1] <= costs[0] else 0.5, (said,))


WITH_NAN = (
    learning_rate, inputs, initial_weights, summed, saturation, precision, penalty, momentum, given, undefined,
    floating_point,
)  # fmt: skip
WITHOUT = (dead, vanishing, masked)
"""The rules, each a Case -> causes. Those of the first kind need a NaN or a climbing cost."""
