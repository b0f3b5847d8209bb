"""Causes of a training that stays finite and learns nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from cnnlab.diagnosis.case import Case, Cause, find_usual
from cnnlab.diagnosis.divergence_causes import describe_longest_step, judge_adding_up
from cnnlab.diagnosis.events import name_place
from cnnlab.diagnosis.summary import count_left_out
from cnnlab.records.formats import format_count, format_digits, format_number
from cnnlab.records.frame import is_measured
from cnnlab.records.record import Record

UNMOVED = {"float64": 1e-16, "float32": 6e-8, "bfloat16": 4e-3, "float16": 5e-4}
"""Type -> an update so many times as long as the weights is lost in their rounding."""

ROUNDING = {"bfloat16": 2**-7, "float16": 2**-10}
"""Short type -> the distance from 1 to the next number above."""
NO_RATE = 1e-250
"""A learning rate below this stands for 0."""
OUTWEIGHS, HALVED = 10.0, 0.5
"""A penalty so many times the cost that has taken the norm of the weights below this share is too strong."""
SHRUNK = 0.1
"""Weights whose norm is below this share of what it was at the start have been taken away."""
LOST_BY_CLIPPING = 1e-2
"""A gradient whose norm never reaches this, and is always the same, was clipped by mistake."""
UNTRAINED = 0.01
"""A layer whose updates come to no more than this share of its weights has not been trained."""


def judge_dead_units(case: Case) -> Iterator[Cause]:
    """A layer of which every unit is dead, for the whole last batch."""
    if case.event is not None or not len(case.record):
        return
    shares = np.nan_to_num(case.record.last_measured("dead_relu"))
    worst = int(np.argmax(shares))
    if shares[worst] >= 0.9:
        dead = f"{shares[worst]:.0%} of the units of {case.name_layer(worst)} are dead"
        norm = format_number(float(case.record.last_measured("gradient_norm")[0]))
        reached = f"the norm of the first layer's gradient is {norm}"
        all_dead = 0.5 if any(judge_adding_up(case)) else 0.98
        yield Cause(all_dead if shares[worst] == 1 else 0.35, (dead, reached, *describe_longest_step(case)))


def judge_gradient(case: Case) -> Iterator[Cause]:
    """A first layer whose gradient is a thousandth of the last one's, now or at its height, beside a cost that stands.

    Once the last layer has found the best constant answer its own gradient is faint, too.
    """
    costs = case.data_costs
    if case.event is not None or len(case.record) < 5 or len(case.record.layers) < 2 or len(costs) < 2:
        return
    norms = [find_usual(column) for column in case.record.gradient_norm.T]
    if not np.isfinite(norms).all():
        return  # of updates that loss scaling left out
    ratio = find_usual(case.record.update_ratio[:, 0])
    flat = abs(costs[-1] - costs[0]) <= 0.1 * abs(costs[0])
    faint = 0 < max(norms) < 1e-5 and case.ratios.max(initial=0) < 1e-6
    heights = np.nan_to_num(case.record.gradient_norm).max(axis=0)
    never = 0 < heights[0] < 1e-3 * heights[-1] and np.nansum(case.record.update_ratio[:, 0]) < UNTRAINED
    if not flat or norms[-1] == 0 or (norms[0] > 1e-3 * norms[-1] and not faint and not never):
        return
    if never:
        norms = list(heights)
    first, last = format_number(norms[0]), format_number(norms[-1])
    evidence = (
        f"the gradient's norm is {first} in the first layer and {last} in the last",
        f"an update is {format_number(ratio)} times as long as the first layer's weights; 1e-3 is usual",
        f"the cost went from {format_number(costs[0])} to {format_number(costs[-1])}",
        *describe_saturation(case),
    )
    alive = np.nan_to_num(case.record.last_measured("dead_relu")).max() < 1
    # What came through before steps as long as the weights is no matter of the layers.
    lost = case.was_thrown and case.record.gradient_norm[0, 0] > 1e-3 * case.record.gradient_norm[0, -1]
    yield Cause(0.9 if alive and not lost else 0.4, evidence)


def describe_saturation(case: Case) -> tuple[str, ...]:
    """What a tanh, a sigmoid or the like that is next to flat for most of its outputs lets through."""
    found = None if case.probe is None else case.probe.saturated
    if found is None or found[1] < 0.5:
        return ()
    layer, share = name_place(found[0]), format_digits(100 * found[1])
    return (f"the activation after {layer} is next to flat for {share} % of its outputs, and passes little gradient",)


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


def judge_unmoved(case: Case) -> Iterator[Cause]:
    """Weights that no update has changed, or of which nothing but a few could."""
    record = case.record
    if case.event is not None or len(record) < 3 or record.left_out.all():
        return
    longest = float(np.nan_to_num(record.update_ratio).max(initial=0))
    if longest < UNMOVED[record.settings.precision]:
        yield Cause(0.98, (f"no weight moved in {format_count(len(record), 'update')}", explain_rest(case, longest)))
    elif case.clues.frozen and case.stands:
        names = ", ".join(name or "network" for name in case.clues.frozen)
        said = f"{names} never moved: frozen, for requires_grad is False"
        costs = case.costs
        yield Cause(0.8, (said, f"the cost went from {format_number(costs[0])} to {format_number(costs[-1])}"))


def explain_rest(case: Case, longest: float) -> str:
    """Why no weight moves, as far as gradient and rate tell."""
    norm = float(np.nan_to_num(case.record.total_gradient_norm).max(initial=0))
    rate, clues = format_number(case.knobs.learning_rate), case.clues
    if clues.cleared:
        return "a backward pass made gradients, and they were gone at the step: zero_grad stands between the two"
    if norm == 0 and is_underflow(case):
        return "the gradient is 0 in float16, and is not in float32"
    if norm == 0:
        lost = ", or it is clipped or set to 0 before the step" if clues.optimizer else ""
        cut = "the graph between weights and cost is cut (detach, numpy, round)"
        return f"the gradient is 0: {cut}, or inputs are 0{lost}"
    if case.knobs.learning_rate < NO_RATE:
        return "the learning rate is 0: a warm-up or schedule that begins with 0, and is stepped too seldom"
    if is_lost_in_rounding(case, norm):
        precision = case.record.settings.precision
        next_to_1 = f"{precision} holds 1 and 1 + {ROUNDING[precision]:g}, and nothing between"
        return (
            f"steps at a learning rate of {rate} are rounded away: {next_to_1}; keep the weights in float32 under "
            "torch.autocast"
        )
    if longest == 0 and (clues.strangers or not clues.optimizer) and norm * case.knobs.learning_rate > 1e-12:
        return (
            f"the gradient's norm reaches {format_number(norm)} and the learning rate is {rate}: "
            "the optimiser was made for other weights than those of this model"
        )
    return (
        f"the gradient's norm is at most {format_number(norm)} and the learning rate {rate}: either the graph from the "
        "weights to the cost is cut but for a trace (detach), or the rate is too low"
    )


def is_lost_in_rounding(case: Case, norm: float) -> bool:
    """Whether an optimiser has the weights, and its steps are lost in the rounding of a short type."""
    precision = case.record.settings.precision
    if precision not in ROUNDING or case.clues.strangers or not case.clues.optimizer:
        return False
    return norm > 0 and case.knobs.learning_rate > NO_RATE


def judge_underflow(case: Case) -> Iterator[Cause]:
    """A gradient most of whose numbers are 0 in float16 and not in float32, beside a cost that stands."""
    costs = case.costs
    if case.event is not None or len(costs) < 3 or not is_underflow(case) or costs[-1] < 0.9 * costs[0]:
        return
    assert case.probe is not None
    scaled = case.knobs.loss_scale
    share = f"{case.probe.underflow:.0%} of the gradient's length lies in numbers that are 0 in float16, not in float32"
    how = "no loss scale is in use" if scaled == "off" else f"the loss scale is {scaled}"
    yield Cause(
        0.99, (share, how, f"the cost went from {format_number(costs[0])} to {format_number(costs[-1])}"), ("c",)
    )


def is_underflow(case: Case) -> bool:
    """Whether most of the gradient is lost below the least number of float16, which is 6e-8."""
    return case.probe is not None and case.probe.underflow > 0.5


def judge_skipped(case: Case) -> Iterator[Cause]:
    """Steps that mixed precision left out, all or most of them."""
    yield from judge_scaling(case)
    skipped, made = case.clues.skipped, len(case.record)
    if skipped >= 3 and skipped > made:
        said = f"the GradScaler skipped {format_count(skipped, 'step')} for an inf in the gradient, and made {made}"
        evidence = (said, "a scale that falls and falls means a gradient that is NaN or inf whatever the scale")
        yield Cause(0.98 if not made else 0.9, evidence)


def judge_left_scale(case: Case) -> Iterator[Cause]:
    """A gradient that was clipped, or stepped with, while it still had the scale of mixed precision."""
    made, scale = case.clues.still_scaled, case.record.scale
    if made and 2 * made >= len(case.record):
        used = f"in {format_count(made, 'update')} the optimiser was given a gradient that still had the loss scale"
        yield Cause(0.98, (used, "write scaler.step(optimizer) in place of optimizer.step()"))
        return
    if case.event is not None or len(scale) < 5 or not case.stands or not case.clues.optimizer:
        return
    norms = case.record.total_gradient_norm
    held = norms * scale  # what the gradient was before its scale was taken off
    if norms.max() < LOST_BY_CLIPPING and is_measured(held).all() and np.ptp(held) < 1e-2 * held.max():
        norm, scaled = format_number(float(norms[-1])), f"{scale[-1]:g}"
        same = f"the gradient's norm times the loss scale is {format_number(float(held[-1]))} at every update"
        clipped = f"it was clipped before the scale was taken off, and is {norm} at a scale of {scaled}"
        yield Cause(0.95, (f"{same}: {clipped}", "write scaler.unscale_(optimizer) before the clipping"))


def judge_scaling(case: Case) -> Iterator[Cause]:
    """Updates that the loss scale of a run left out: the last half of them or more, without an end."""
    record = case.record
    stretch = count_left_out(record)
    if case.event is not None or stretch < 3 or 2 * stretch < len(record):
        return
    before, now = (f"{record.scale[place]:g}" for place in (len(record) - stretch, -1))
    said = f"loss scaling left out the last {stretch} of {len(record)} updates, for inf or NaN in the scaled gradient"
    scale = f"the scale fell from {before} to {now}, and is still too high" if before != now else f"the scale is {now}"
    yield Cause(0.99, (said, f"{scale}; the weights stay as they are"))


def judge_strong_penalty(case: Case) -> Iterator[Cause]:
    """L1 or L2 that has taken the weights away, beside a cost that stands."""
    sizes, costs = {"l1": case.knobs.l1, "l2": case.knobs.l2}, case.data_costs
    if case.event is not None or not len(costs) or not any(sizes.values()):
        return
    if not (case.stands or costs[-1] > 0.98 * case.batch.constant):
        return
    norms, penalties = np.linalg.norm(case.record.column("weight_norm"), axis=1), case.record.penalty
    share = norms[-1] / max(norms[0], 1e-30)
    left = f"the norm of all weights fell from {format_number(norms[0])} to {format_number(norms[-1])}"
    if penalties[0] > 0:  # in which biases have no part
        share = min(share, math.sqrt(penalties[-1] / penalties[0]))
        left = f"the penalty fell from {format_number(penalties[0])} to {format_number(penalties[-1])}"
    outweighs = 0.5 * case.knobs.l2 * norms[-1] ** 2 > OUTWEIGHS * costs[-1]
    if share < (HALVED if outweighs else SHRUNK):
        named = " and ".join(f"{name} {format_number(size)}" for name, size in sizes.items() if size)
        went = f"the cost without the penalty went from {format_number(costs[0])} to {format_number(costs[-1])}"
        yield Cause(0.95, (f"{left}, with {named}", went))


def judge_double_softmax(case: Case) -> Iterator[Cause]:
    """A cost that takes logits, and is given probabilities."""
    name = case.batch.softmax
    if name:
        said = f"the cost is given probabilities after a {name}, and takes a softmax or sigmoid of them again"
        evidence = (said, f"take the {name} out of the network: the cost wants logits")
        yield Cause(0.9 if case.event is None else 0.3, evidence)


def judge_broadcast(case: Case) -> Iterator[Cause]:
    """Outputs and targets whose shapes differ, so that every output is compared with every target."""
    if case.batch.broadcast:
        evidence = (f"shapes differ: {case.batch.broadcast}", "give both the same shape: outputs.squeeze(1)")
        yield Cause(0.95 if case.event is None else 0.5, evidence)


def judge_constant(case: Case) -> Iterator[Cause]:
    """A cost that ends no better than the best answer that is the same for all examples, and stands still there."""
    costs, least = case.data_costs, case.batch.constant
    if (
        case.event is not None
        or case.record.left_out.all()
        or len(costs) < 50
        or not math.isfinite(least)
        or least <= 0
    ):
        return
    count = min(max(5, case.record.updates_per_epoch), len(costs) // 3)
    now, before = float(np.mean(costs[-count:])), float(np.mean(costs[-2 * count : -count]))
    if now > 0.98 * least and now > (0.95 if now < 1.05 * least else 0.999) * before:
        ends = f"the cost ends at {format_number(now)}, no better than that of a constant output"
        yield Cause(0.6, (f"{ends}, {format_number(least)}: the answers do not depend on the inputs",))
