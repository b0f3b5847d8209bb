"""Why a run got into trouble: a table of causes, each with a function that looks for it and says how well it fits.

CONTRIBUTING.md shows how to add one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cnnlab.diagnosis.case import Case, Cause
from cnnlab.diagnosis.divergence_causes import (
    judge_adding_up,
    judge_ascent,
    judge_epsilon_of_optimizer,
    judge_forward,
    judge_initial_weights,
    judge_inputs,
    judge_learning_rate,
    judge_momentum,
    judge_outlier,
    judge_penalty,
    judge_precision,
    judge_step,
    judge_sum,
    judge_targets,
)
from cnnlab.diagnosis.learning_causes import (
    judge_broadcast,
    judge_constant,
    judge_dead_units,
    judge_double_softmax,
    judge_gradient,
    judge_left_scale,
    judge_masking,
    judge_skipped,
    judge_strong_penalty,
    judge_underflow,
    judge_unmoved,
)
from cnnlab.diagnosis.value_causes import (
    judge_bound,
    judge_data,
    judge_error,
    judge_exp,
    judge_operation,
    judge_saturation,
)
from cnnlab.records.formats import format_count, format_growth, format_number
from cnnlab.records.record import Record

if TYPE_CHECKING:
    from cnnlab.diagnosis.nan_tracer import Event
    from cnnlab.diagnosis.probe import Probe

__all__ = ["CAUSES", "RULES", "Case", "Cause", "CauseKind", "Iterator", "format_number", "np", "rank_causes"]

RULES = {
    "a": "rule (a) of the posted answer: the cost rises, then NaN: divergence, the learning rate is too high",
    "b": "rule (b) of the posted answer: NaN comes suddenly: saturation, log(0), a derivative that does not exist",
    "c": "rule (c) of the posted answer: floating point: numbers so large that inf/inf, inf-inf, inf*0 or 0/0 appear",
}
"""The three rules for telling a cause that the question was answered with."""


SHORT_STEP = 1e-5
"""Updates that are never longer than this share of the weights teach little."""


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
        return Cause(0.0, describe_calm(case), name="undecided")
    if not len(record):
        return Cause(0.0, ("nothing is trained yet",), name="healthy")
    if not len(costs):
        return Cause(0.0, ("the cost was not measured; all that was measured is finite",), name="undecided")
    left_out = int(record.left_out.sum())
    if left_out == len(record):
        return Cause(0.0, ("loss scaling left out every update so far",), name="undecided")
    measured = "" if len(costs) == len(record) else f", {len(costs)} of them with a cost that was measured"
    updates = format_count(len(record), "update")
    said = f"the cost went from {format_number(costs[0])} to {format_number(costs[-1])} in {updates}{measured}"
    finite = "all numbers of the updates that were made are finite" if left_out else "all numbers are finite"
    learnt, least = case.data_costs, case.batch.constant
    evidence = [f"{said}; {finite}", *describe_skipped(case)]
    if not np.array_equal(learnt, costs):
        evidence.append(f"without the penalty it went from {format_number(learnt[0])} to {format_number(learnt[-1])}")
    slow = len(costs) >= 20 and costs[-1] > 0.99 * costs[0] > 0 and 0 <= case.ratios.max(initial=-1) < SHORT_STEP
    if slow:
        longest = format_number(float(case.ratios.max()))
        evidence.append(f"no update was more than {longest} times as long as the weights, and 1e-3 is usual")
    poor = least > 0 and learnt[-1] > 0.98 * least
    if poor:
        evidence.append(f"so far that is no better than a constant output, whose cost would be {format_number(least)}")
    well = learnt[-1] <= learnt[0] and not poor and not slow
    return Cause(0.9 if well else 0.5, tuple(evidence), name="healthy")


def describe_skipped(case: Case) -> Iterator[str]:
    """What a GradScaler left out of a run that is well without it."""
    clues = case.clues
    if clues.skipped:
        left_out = format_count(clues.skipped, "more update")
        yield f"the GradScaler left out {left_out}, for NaN or inf in the gradient"
    if clues.skipped and clues.left_out is not None and clues.left_out.nan is not None:
        yield f"the cost of one of them was NaN, whatever the scale: {clues.left_out.first}"


def describe_calm(case: Case) -> tuple[str, ...]:
    """What is known of a NaN for which no cause is found."""
    said = "no cause fits the numbers that were measured"
    ratios, others = case.ratios, describe_other_hands(case)
    if not len(ratios) or case.exploded or others:
        return said, *others
    longest = f"no update before was more than {format_number(float(ratios.max()))} times as long as the weights"
    return said, f"the numbers before were calm, so the learning rate is not to blame: {longest}"


def describe_other_hands(case: Case) -> list[str]:
    """The first update of a watch that began with other weights than the one before had left, in a sentence.

    The weights after an update are at most as long as those before it and the update together.
    """
    norms = case.record.column("weight_norm")[: case.calm_updates + 1]
    ratios = case.record.update_ratio[: case.calm_updates]
    if not case.clues.optimizer or not len(ratios):
        return []
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        growth = norms[1:] / norms[:-1]
        grew = np.isfinite(growth) & (growth > 1.1 * (1 + ratios))
    if not grew.any():
        return []
    update, layer = (int(place) for place in np.argwhere(grew)[0])
    grown = format_growth(norms[update + 1, layer], norms[update, layer])
    own = format_number(float(ratios[update, layer]))
    whose = f"the weights of {case.name_layer(layer)}"
    return [
        f"{whose} grew {grown} up to the end of update {update + 1}, whose own step was {own} times as long: "
        "something other than the optimiser changed them"
    ]


CAUSES = {
    "learning rate above critical": CauseKind(
        "Steps are longer than the curvature allows (for plain gradient descent 2 / lambda_max), so each lands higher "
        "than the last.",
        judge_learning_rate,
    ),
    "learning rate below 0": CauseKind("A schedule that goes on beyond its end: each step climbs.", judge_ascent),
    "inputs not scaled": CauseKind(
        "Large inputs multiply the gradient, and the curvature by their square.", judge_inputs
    ),
    "initial weights too large": CauseKind(
        "The weights start so large that the cost curves too sharply for the learning rate.",
        judge_initial_weights,
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
    "epsilon of the optimiser": CauseKind(
        "What keeps the optimiser from dividing by 0 is 0 in the type of the weights.", judge_epsilon_of_optimizer
    ),
    "step of the optimiser": CauseKind(
        "The optimiser's own arithmetic makes NaN of a finite gradient, as in the root of a number below 0.", judge_step
    ),
    "penalty factor beyond 1": CauseKind(
        "L1 or L2 takes off so much that each update turns the weights' signs and makes them larger.",
        judge_penalty,
    ),
    "penalty too strong": CauseKind(
        "L1 or L2 takes the weights away faster than the cost builds them up.", judge_strong_penalty, needs_no_nan=True
    ),
    "momentum": CauseKind("Past steps add up faster than they fade.", judge_momentum),
    "dead ReLUs": CauseKind(
        "A layer's ReLUs give 0 for every example, so no gradient passes.", judge_dead_units, needs_no_nan=True
    ),
    "vanishing gradient": CauseKind("Next to no gradient reaches the first layer.", judge_gradient, needs_no_nan=True),
    "masked, not mended": CauseKind(
        "An epsilon or clipping hides the NaN, but leaves no gradient to learn from.",
        judge_masking,
        needs_no_nan=True,
    ),
    "no weight moved": CauseKind(
        "What was trained stayed as it was: it has no gradient, or no optimiser.",
        judge_unmoved,
        needs_no_nan=True,
    ),
    "every step skipped": CauseKind(
        "Mixed precision leaves out each step whose gradient holds inf.", judge_skipped, needs_no_nan=True
    ),
    "loss scale left in the gradient": CauseKind(
        "What a GradScaler has multiplied the gradient by was there still when it was clipped, or used.",
        judge_left_scale,
    ),
    "underflow of the precision": CauseKind(
        "The numbers of the gradient are too small for the type in use, and are 0 in it.",
        judge_underflow,
        needs_no_nan=True,
    ),
    "shapes broadcast": CauseKind(
        "Every output is compared with every target, so that the best answer is their mean.",
        judge_broadcast,
        needs_no_nan=True,
    ),
    "softmax before cross-entropy": CauseKind(
        "Probabilities are taken for logits, so that the cost cannot fall to 0 and its gradient is small.",
        judge_double_softmax,
        needs_no_nan=True,
    ),
    "no better than a constant": CauseKind(
        "The network answers the same whatever it is given.", judge_constant, needs_no_nan=True
    ),
    "gradients add up": CauseKind(
        "No zero_grad: each update is given the sum of all gradients so far.", judge_adding_up
    ),
    "cost without a minimum": CauseKind(
        "The cost has no minimum for these targets: it falls to minus infinity.", judge_bound
    ),
    "outlier": CauseKind("One example is far from all others, and makes the gradient alone.", judge_outlier),
    "targets not scaled": CauseKind(
        "Large targets make large errors, and the first gradients as large.", judge_targets
    ),
    "forward pass explodes": CauseKind(
        "The outputs grow from layer to layer or step to step, before any update.", judge_forward
    ),
    "exp beyond the type": CauseKind("The result of an exp is larger than the type in use.", judge_exp),
    "error raised": CauseKind("The program itself raised an error.", judge_error),
    "data hold NaN": CauseKind(
        "What is given holds NaN or inf: inputs, targets, first weights, a buffer or a constant.", judge_data
    ),
    "undefined operation": CauseKind(
        "An operation is not defined for its inputs, or its slope is not.", judge_operation
    ),
    "undecided": CauseKind("None of the causes above fits the numbers that were measured."),
    "healthy": CauseKind("No sign of trouble was found."),
}
"""Cause -> what it means and what looks for it. Where two fit equally well, the upper one comes first."""
