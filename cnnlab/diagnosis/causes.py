"""Why a run got into trouble: a table of causes, each with a function that looks for it and says how well it fits.

CONTRIBUTING.md shows how to add one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cnnlab.diagnosis.case import Case, find_usual, squash
from cnnlab.diagnosis.early_warning import LARGEST
from cnnlab.records.formats import format_number
from cnnlab.records.record import Record

if TYPE_CHECKING:
    from cnnlab.diagnosis.nan_tracer import Event
    from cnnlab.diagnosis.probe import Probe

RULES = {
    "a": "rule (a) of the posted answer: the cost rises, then NaN: divergence, the learning rate is too high",
    "b": "rule (b) of the posted answer: NaN comes suddenly: saturation, log(0), a derivative that does not exist",
    "c": "rule (c) of the posted answer: floating point: numbers so large that inf/inf, inf-inf, inf*0 or 0/0 appear",
}
"""The three rules for telling a cause that the question was answered with."""
UNDEFINED = {
    "0/0": "a division of 0 by 0, as in a mean over no examples",
    "x/0": "a division by 0, as in the slope of a square root at 0",
    "inf/inf": "a division of inf by inf",
    "inf-inf": "a difference of infinities, as in a softmax over -inf alone",
    "inf*0": "a product of inf and 0, as in a branch that is not taken, whose slope is infinite",
    "log(0)": "a log of 0, as where the target has no probability at all",
    "log of a negative number": "a log of a negative number, which is not defined",
    "root of a negative number": "a root of a negative number, which is not defined",
}
"""Operation -> why it has no finite answer."""
CALM = 1e6
"""Numbers below this are not those of a run that explodes."""
USUAL_RATE = 1e-2
"""A learning rate above this is unusual by itself (the threshold of UMLAUT's rule)."""
USUAL_INPUTS = 3.0
"""Root mean square of inputs above which they count as not scaled; standardised ones have 1."""


@dataclass(frozen=True)
class Cause:
    """One cause that may hold."""

    confidence: float
    """From 0 to 1: how well the numbers fit; no probability."""
    evidence: tuple[str, ...]
    """What was measured, in sentences."""
    rules: tuple[str, ...] = ()
    """Which of RULES name it."""
    name: str = ""
    """One of CAUSES, whose row gives it."""

    def __str__(self) -> str:
        return f"{self.name} ({self.confidence:.2f})"


@dataclass(frozen=True)
class CauseKind:
    """A row of the table of causes."""

    meaning: str
    """What the cause means, in a sentence."""
    judge: Callable[[Case], Iterator[Cause]] | None = None
    """What looks for it in a case; None for what remains where no cause is found."""
    needs_no_nan: bool = False
    """Whether it is found in runs without a NaN alone, so that its remedies begin at update 0."""


def rank_causes(record: Record, event: Event | None, probe: Probe | None) -> tuple[Cause, ...]:
    """The causes that may hold, the likeliest first; if there are none, `healthy` or `undecided` alone."""
    case = Case(record, event, probe)
    found = [
        replace(cause, name=name)
        for name, kind in CAUSES.items()
        if kind.judge is not None
        for cause in sorted(kind.judge(case), key=lambda each: each.confidence)[-1:]
        if cause.confidence >= 0.1
    ]
    return tuple(sorted(found, key=lambda cause: -cause.confidence)) or (describe_rest(case),)


def describe_rest(case: Case) -> Cause:
    """What is said of a run in which no cause is found."""
    record, costs = case.record, case.costs
    if case.event is not None:
        return Cause(0.0, ("no cause fits the numbers that were measured",), name="undecided")
    if not len(record):
        return Cause(0.0, ("nothing is trained yet",), name="healthy")
    if not len(costs):
        return Cause(0.0, ("the cost was not measured; all that was measured is finite",), name="undecided")
    measured = "" if len(costs) == len(record) else f", {len(costs)} of them with a cost that was measured"
    said = (
        f"the cost went from {format_number(costs[0])} to {format_number(costs[-1])} in {len(record)} updates{measured}"
    )
    return Cause(0.9 if costs[-1] <= costs[0] else 0.5, (f"{said}; all numbers are finite",), name="healthy")


def judge_learning_rate(case: Case) -> Iterator[Cause]:
    """Divergence: the rate is above 2 / lambda_max, and the cost rose."""
    excess, rate = case.excess, case.knobs.learning_rate
    if case.before_any_step or not case.diverged or not (case.rose or (excess or 0) > 1):
        return
    confidence = 0.6 if excess is None else squash(excess)
    evidence = [f"the learning rate is {format_number(rate)}"]
    if excess is not None and case.probe is not None and case.probe.critical is not None:
        where = f"after update {case.probe.step}" if case.probe.step else "at the start"
        said = f"{excess:.3g} times the critical one {where}, {format_number(case.probe.critical)}"
        momentum = f" (times 1 + {case.knobs.momentum:g} for momentum)" if case.knobs.momentum else ""
        evidence = [f"the learning rate {format_number(rate)} was {said}{momentum}"]
    evidence += case.describe_rise()
    if not case.rose:
        confidence *= 0.6
    if case.knobs.clip != "off":
        confidence *= 0.8
    if has_other_cause(case) and rate < USUAL_RATE:
        confidence *= 0.8
        evidence.append(f"yet {format_number(rate)} is a usual rate: see the other causes")
    yield Cause(confidence, tuple(evidence), ("a",))


def has_other_cause(case: Case) -> bool:
    """Whether inputs, initial weights or a sum explain why the critical rate is so low."""
    judges = (judge_inputs, judge_initial_weights, judge_sum)
    return any(each.confidence > 0.5 for judge in judges for each in judge(case))


def judge_inputs(case: Case) -> Iterator[Cause]:
    """Inputs far from a deviation of 1, and a critical rate that would be high enough without that."""
    if case.probe is None or not case.diverged or not case.probe.input_size > USUAL_INPUTS:
        return
    scaled = case.probe.critical_scaled
    evidence = [f"the inputs' root mean square is {format_number(case.probe.input_size)}, and 1 would be usual"]
    confidence = 0.55
    if scaled is not None and case.probe.critical is not None:
        evidence.append(f"with standardised inputs the critical learning rate would be {format_number(scaled)}")
        confidence = 0.97 * case.estimate_relief(scaled)
    if case.excess is not None:
        confidence *= squash(case.excess)
    yield Cause(confidence, tuple(evidence))


def judge_initial_weights(case: Case) -> Iterator[Cause]:
    """Weights that are not finite at the start, or larger than He's where with his the critical rate would do."""
    if case.event is not None and case.event.step == 0:
        said = f"weights of {case.event.layer or 'network'} are not finite before the first update"
        yield Cause(0.99, (said,), ("c",))
    if case.probe is None or not case.diverged:
        return
    gains = np.array([gain for gain in case.probe.gains if gain == gain])
    if not len(gains) or gains.max() < 1.5 or np.exp(np.log(np.maximum(gains, 1e-30)).mean()) < 1.2:
        return
    name = case.name_layer(int(np.nanargmax(case.probe.gains)))
    product = float(np.prod(gains))
    evidence = [
        f"the weights started up to {gains.max():.3g} times as large as He's sqrt(2 / fan_in) ({name}), "
        f"{product:.3g} times over all layers"
    ]
    he = case.probe.critical_he
    confidence = squash(product) if he is None else case.estimate_relief(he)
    if he is not None:
        evidence.append(f"with He's initialisation the critical learning rate would be {format_number(he)}")
    yield Cause(0.98 * confidence, tuple(evidence))


def judge_sum(case: Case) -> Iterator[Cause]:
    """A sum over the batch, and a rate that would be below the critical one for the mean."""
    if case.record.settings.reduction != "sum" or case.record.own_network or not case.diverged or case.probe is None:
        return
    count = case.record.settings.batch_size or case.probe.examples
    evidence = [f"the cost is the sum over {count} examples, so the gradient is {count} times that of the mean"]
    confidence = 0.6
    if case.probe.critical is not None:
        evidence.append(
            f"with the mean the critical learning rate would be {format_number(case.probe.critical * count)}"
        )
        confidence = 0.98 * max((1 + case.estimate_relief(case.probe.critical * count)) / 2, case.estimate_share(count))
    yield Cause(confidence, tuple(evidence))


def judge_saturation(case: Case) -> Iterator[Cause]:
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
    sure = f"the logit gap is {format_number(float(gap))}" if gap == gap else "the network is sure of its answer"
    broken = "log(0) is -inf" if underflow else f"1/p would be {format_number(event.reached)}, beyond {event.precision}"
    long = np.nan_to_num(case.record.update_ratio[: event.step - 1]).max(initial=0)
    evidence = (f"{sure}, so the probability p of a label is next to 0", broken)
    yield Cause(0.97 if long < 10 else 0.6, evidence, ("b",))


def judge_precision(case: Case) -> Iterator[Cause]:
    """A value that float32 would hold, in a type that ends sooner."""
    event = case.event
    if event is None or event.precision != "float16" or event.operation not in ("overflow", "cast", "exp overflow"):
        return
    largest = event.reached if event.reached == event.reached else event.largest
    if not largest < LARGEST["float32"]:
        return
    evidence = (f"the value would be {format_number(largest)}; float16 ends at 65504, and float32 would hold it",)
    calm = len(case.costs) < 2 or case.costs[-1] < 1e3 * max(case.costs.min(), 1e-30)
    yield Cause(0.99 if event.step == 1 else 0.96 if calm else 0.7, evidence, ("c",))


def judge_penalty(case: Case) -> Iterator[Cause]:
    """L2 that turns weights over, L1 that takes off more than they are."""
    knobs = case.knobs
    factor = 1 - knobs.learning_rate * knobs.l2
    if factor < -1:
        said = f"every update multiplies the weights by 1 - learning_rate * l2 = {format_number(factor)}"
        yield Cause(0.99 if case.diverged else 0.5, (said,))
        return
    size = case.probe.weight_size if case.probe is not None else math.inf
    step = knobs.learning_rate * knobs.l1
    if step > 2 * size and case.diverged:
        taken, was = format_number(step), format_number(size)
        said = f"L1 takes {taken} off every weight at each update, and the weights were {was} in size"
        yield Cause(0.97 * squash(step / size), (said,))


def judge_momentum(case: Case) -> Iterator[Cause]:
    """Momentum of 1, or so near to 1 that past steps add up a hundredfold."""
    kept = case.knobs.momentum
    if kept >= 1 and len(case.record):
        _, costs = case.record.known_costs
        trouble = case.diverged or bool((costs[-1:] > 0.5 * costs[:1]).any())
        yield Cause(0.99 if trouble else 0.6, ("momentum is 1: no past step ever fades",))
    elif case.diverged and not case.before_any_step and kept >= 0.5 and case.excess is not None:
        # Far below the critical rate it is the sum of steps that is too long; far above, any step is.
        longer = 1 / (1 - kept)
        said = f"momentum {kept:g} makes a steady step {longer:.3g} times as long"
        yield Cause(0.9 * squash(longer / 20) * (1 - squash(case.excess) / 2), (said,))


def judge_dead_units(case: Case) -> Iterator[Cause]:
    """A layer of which every unit is dead, for the whole last batch."""
    if case.event is not None or not len(case.record):
        return
    shares = np.nan_to_num(case.record.dead_relu[-1])
    worst = int(np.argmax(shares))
    if shares[worst] >= 0.9:
        dead = f"{shares[worst]:.0%} of the units of {case.name_layer(worst)} are dead"
        reached = f"the norm of the first layer's gradient is {format_number(float(case.record.gradient_norm[-1][0]))}"
        yield Cause(0.98 if shares[worst] == 1 else 0.35, (dead, reached))


def judge_gradient(case: Case) -> Iterator[Cause]:
    """A first layer whose gradient is a thousandth of the last one's, while the cost stands still."""
    costs = case.costs
    if case.event is not None or len(case.record) < 5 or len(case.record.layers) < 2 or len(costs) < 2:
        return
    norms = [find_usual(column) for column in case.record.gradient_norm.T]
    ratio = find_usual(case.record.update_ratio[:, 0])
    flat = abs(costs[-1] - costs[0]) <= 0.1 * abs(costs[0])
    if not flat or norms[-1] == 0 or norms[0] > 1e-3 * norms[-1]:
        return
    first, last = format_number(norms[0]), format_number(norms[-1])
    evidence = (
        f"the gradient's norm is {first} in the first layer and {last} in the last",
        f"an update is {format_number(ratio)} times as long as the first layer's weights; 1e-3 is usual",
        f"the cost went from {format_number(costs[0])} to {format_number(costs[-1])}",
    )
    alive = np.nan_to_num(case.record.dead_relu[-1]).max() < 1
    yield Cause(0.9 if alive else 0.4, evidence)


def judge_masking(case: Case) -> Iterator[Cause]:
    """An epsilon that hides log(0), or a clip that freezes: no NaN, and nothing learnt."""
    record, knobs = case.record, case.knobs
    if case.event is not None or len(record) < 3:
        return
    if record.settings.cost == "softmax_log" and knobs.epsilon > 0:
        yield from judge_epsilon(record, knobs.epsilon)
    ratio = float(np.nan_to_num(record.update_ratio[-5:]).max())
    stands = bool((case.costs[-1:] > 0.5 * case.costs[:1]).any())
    if knobs.clip != "off" and record.clipped[-5:].min() > 0.5 and ratio < 1e-6 and stands:
        clipped = f"clipping makes updates {format_number(ratio)} times as long as the weights"
        yield Cause(0.9, (clipped, f"the gradient's norm is {format_number(float(record.total_gradient_norm[-1]))}"))


def judge_epsilon(record: Record, epsilon: float) -> Iterator[Cause]:
    """Updates whose batch holds a wrong example of which no gradient is left."""
    cap = -math.log(epsilon)
    late = slice(max(0, len(record) - 2 * record.updates_per_epoch), len(record))
    without = record.total_gradient_norm[late] < 1e-2 * max(float(np.nanmax(record.total_gradient_norm)), 1e-30)
    found = np.flatnonzero((record.accuracy[late] < 1) & without & (record.logit_gap[late] > 0.9 * cap))
    if len(found):
        step = late.start + int(found[-1])
        gap, norm = (format_number(float(values[step])) for values in (record.logit_gap, record.total_gradient_norm))
        wrong = f"update {step + 1}: {1 - record.accuracy[step]:.0%} of the batch is wrong, at a logit gap of {gap}"
        capped = f"epsilon {format_number(epsilon)} caps the cost of an example at {cap:.4g}"
        yield Cause(0.95, (capped, f"{wrong}, and the gradient's norm is {norm}"))


def judge_data(case: Case) -> Iterator[Cause]:
    """NaN or inf that came with the data."""
    if case.event is not None and case.event.phase == "input":
        count = case.probe.nan_inputs if case.probe is not None else 1
        yield Cause(1.0, (f"the data hold NaN or inf in {count} of the examples",))


def judge_operation(case: Case) -> Iterator[Cause]:
    """An operation in the user's own network or cost that is not defined for its inputs, which are of usual size."""
    event = case.event
    if event is None or not case.record.own_network or event.operation not in UNDEFINED or event.largest > CALM:
        return
    said = f"update {event.step}, {event.value_name}: {UNDEFINED[event.operation]} (in {event.function})"
    evidence = (said, f"its largest input is {format_number(event.largest)}")
    calm = case.before_any_step or not case.rose
    yield Cause(0.9 if calm else 0.4, evidence, ("b",))


CAUSES = {
    "learning rate above critical": CauseKind(
        "Steps are longer than 2 / lambda_max allows, so each lands higher than the last.", judge_learning_rate
    ),
    "inputs not scaled": CauseKind(
        "Large inputs multiply the gradient, and the curvature by their square.", judge_inputs
    ),
    "initial weights too large": CauseKind(
        "The weights start so large that the cost curves too sharply for the learning rate.", judge_initial_weights
    ),
    "cost summed": CauseKind(
        "The gradient of a sum over the batch is as many times too long as there are examples.", judge_sum
    ),
    "log(0) by saturation": CauseKind(
        "The softmax is so sure that the probability p of a label is 0, or 1/p overflows.", judge_saturation
    ),
    "overflow of the precision": CauseKind(
        "The numbers fit into float32, and are too large for the type in use.", judge_precision
    ),
    "penalty factor beyond 1": CauseKind(
        "L1 or L2 takes off so much that each update turns the weights' signs and makes them larger.", judge_penalty
    ),
    "momentum": CauseKind("Past steps add up faster than they fade.", judge_momentum),
    "dead ReLUs": CauseKind(
        "A layer's ReLUs give 0 for every example, so no gradient passes.", judge_dead_units, needs_no_nan=True
    ),
    "vanishing gradient": CauseKind("Next to no gradient reaches the first layer.", judge_gradient, needs_no_nan=True),
    "masked, not mended": CauseKind(
        "An epsilon or clipping hides the NaN, but leaves no gradient to learn from.", judge_masking, needs_no_nan=True
    ),
    "data hold NaN": CauseKind("The data themselves hold NaN or inf.", judge_data),
    "undefined operation": CauseKind(
        "An operation has no finite value, or no finite slope, for its inputs.", judge_operation
    ),
    "undecided": CauseKind("None of the causes above fits the numbers that were measured."),
    "healthy": CauseKind("Nothing is wrong."),
}
"""Cause -> what it means and what looks for it. Where two fit equally well, the upper one comes first."""
