"""Causes of steps that are too long: the learning rate, and what makes a usual one too high."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from cnnlab.diagnosis.case import LONG_STEP, Case, Cause, squash
from cnnlab.diagnosis.early_warning import LARGEST
from cnnlab.records.formats import format_count, format_digits, format_number

USUAL_RATE = 1e-2
"""A learning rate above this is unusual by itself (the threshold of UMLAUT's rule)."""
LEAST_RATE = 1e-200
"""A learning rate below this stands for 0, with which a warm-up may begin."""
USUAL_SIZE = 3.0
"""Root mean square of inputs above which they count as not scaled; standardised ones have 1."""
USUAL_TARGETS = 100.0
"""The same of targets: those of a regression may be larger than its inputs."""
FORWARD = ("activation", "logit", "cost")
"""Phases of a forward pass."""
NAMES = {"rmsprop": "RMSprop", "adam": "Adam", "adamw": "AdamW"}
"""Knobs.optimizer -> the name of an optimiser that divides by the usual size of the gradients."""
FAR_TOO_LARGE = 5.0
"""Weights so many times as large as He's are no choice of a scale."""
FAR = 100.0
"""An example is an outlier if its largest number is so many times that of any other, or of the median."""


def judge_learning_rate(case: Case) -> Iterator[Cause]:
    """Divergence: the rate is above 2 / lambda_max, and the cost rose while steps were long."""
    excess, rate = case.excess, case.knobs.learning_rate
    if is_single_leap(case):
        yield Cause(
            0.9, (f"the learning rate is {format_number(rate)}", "one step of it leaves the type in use"), ("c",)
        )
        return
    too_long = (case.diverged or case.was_thrown) and not case.clues.ascent
    if case.before_any_step or not too_long or (excess is not None and excess <= 1):
        return
    confidence = 0.6 if excess is None else squash(excess)
    evidence = [describe_rate(case)]
    if excess is not None and case.probe is not None and case.probe.critical is not None:
        where = f"after update {case.probe.step}" if case.probe.step else "at the start"
        said = f"{excess:.3g} times the critical one {where}, {format_number(case.probe.critical)}"
        evidence = [f"the learning rate {format_number(rate)} was {said}{describe_stretch(case)}"]
    evidence += describe_groups(case)
    rise, adaptive = case.describe_rise(), describe_adaptive_step(case)
    evidence += [*rise, *adaptive] if rise else describe_longest_step(case)
    if not case.rose and not case.was_thrown:
        confidence *= 0.6
    if case.fell_without_end:
        confidence *= 0.5
        evidence.append("yet the cost fell all the time: a step that is too long makes it rise")
    if case.knobs.clip != "off":
        confidence *= 0.8
    if has_other_cause(case) and rate < USUAL_RATE:
        confidence *= 0.8
        evidence.append(f"yet {format_number(rate)} is a usual rate: see the other causes")
    elif find_plainer_cause(case, confidence):
        confidence *= 0.7
    yield Cause(confidence, tuple(evidence), ("a",) if case.rose else ())


def judge_ascent(case: Case) -> Iterator[Cause]:
    """A learning rate below 0, with which each step climbs."""
    rate, first = format_number(case.clues.ascent), case.clues.ascent_from
    if case.clues.ascent < 0 and not case.before_any_step:
        said = f"since update {first} the learning rate is below 0, and reaches {rate}: each step climbs"
        yield Cause(0.99 if case.diverged else 0.6, (said, *case.describe_rise()))


def describe_stretch(case: Case) -> str:
    """How many times as high momentum allows the rate to be, in brackets; nothing without momentum."""
    if not case.knobs.momentum:
        return ""
    if case.knobs.optimizer == "nesterov":
        return f" (times {case.stretch:.3g} for Nesterov's momentum of {case.knobs.momentum:g})"
    return f" (times 1 + {case.knobs.momentum:g} for momentum)"


def is_single_leap(case: Case) -> bool:
    """Whether the step itself left the type, though the gradient had not."""
    event = case.event
    return event is not None and event.phase in ("update", "weight") and event.operation == "overflow" and not event.nan


def describe_rate(case: Case) -> str:
    """The learning rate in force, and how it came to be where it rose: since it was lowest."""
    now = max(1, case.calm_updates + (case.event is not None))
    spans = [(first, knobs.learning_rate) for first, knobs in case.record.schedule if first <= now]
    ends = [first - 1 for first, _ in spans[1:]] + [now]
    least, minus_end = min((each, -end) for (_, each), end in zip(spans, ends, strict=True))
    rate = spans[-1][1]
    takes_turns = len(case.clues.epsilons) > 1  # optimisers, each with a rate of its own
    if rate > 1.5 * least and not takes_turns:
        start = "0" if least < LEAST_RATE else format_number(least)
        return (
            f"the learning rate rose from {start} to {format_number(rate)} in {format_count(now + minus_end, 'update')}"
        )
    return f"the learning rate is {format_number(rate)}"


def describe_groups(case: Case) -> list[str]:
    """That another group of the optimiser has a higher rate, in a sentence."""
    times, layer = case.clues.fastest_rate, case.clues.fastest
    if not times:
        return []
    rate = format_number(times * case.knobs.learning_rate)
    return [f"the group of {layer or 'network'} has a higher one: {rate}, {format_digits(times)} times as high"]


def describe_adaptive_step(case: Case) -> list[str]:
    """The longest step of an optimiser that divides by the root of a mean square v, with v and epsilon, in a sentence.

    The mean of v over a layer is that of its squared gradients, which the record holds.
    """
    record, clues, ratios = case.record, case.clues, case.ratios
    if not clues.decay or not len(ratios) or not 0.1 < ratios.max() < math.inf:
        return []
    longest = int(np.argmax(ratios))
    layer = int(np.nanargmax(record.update_ratio[longest]))
    numbers = float(np.asarray(record.histograms[0])[layer].sum())
    squares = np.square(record.gradient_norm[: longest + 1, layer]) / max(numbers, 1.0)
    ages = np.arange(len(squares))[::-1]
    mean = float(((1 - clues.decay) * clues.decay**ages * squares).sum())
    if "RMS" not in clues.optimizer:  # all others take off that v begins with 0
        mean /= 1 - clues.decay ** len(squares)
    if not math.isfinite(mean):  # gradients that were not measured at every update
        return []
    times, name = format_digits(float(ratios[longest])), case.name_layer(layer)
    step = f"{clues.optimizer}'s step of update {longest + 1} was {times} times as long as the weights of {name}"
    held = f"eps {format_number(clues.epsilon)} against v of {format_number(mean)}, the mean square of the gradients"
    moved = ": each weight moves by about the rate" if math.sqrt(mean) > clues.epsilon else ""
    return [f"{step} ({held}){moved}"]


def describe_longest_step(case: Case) -> list[str]:
    """The longest step before the trouble, in a sentence, if it was a tenth as long as the weights or more."""
    return describe_adaptive_step(case) or describe_plain_step(case)


def describe_plain_step(case: Case) -> list[str]:
    """The longest step of an optimiser that divides by nothing, in a sentence."""
    ratios = case.ratios
    if not len(ratios) or not ratios.max() > 0.1:
        return []
    longest = int(np.argmax(ratios))
    return [f"update {longest + 1} was {format_number(float(ratios[longest]))} times as long as the weights"]


def has_other_cause(case: Case) -> bool:
    """Whether inputs, initial weights or a sum explain why the critical rate is so low."""
    judges = (judge_inputs, judge_initial_weights, judge_sum)
    return any(each.confidence > 0.5 for judge in judges for each in judge(case))


def find_plainer_cause(case: Case, confidence: float) -> bool:
    """Whether one example, the targets' size, a sum or a missing zero_grad is as likely."""
    judges = (judge_outlier, judge_sum, judge_adding_up, judge_targets)
    return any(cause.confidence > 0.8 * confidence for judge in judges for cause in judge(case))


def judge_inputs(case: Case) -> Iterator[Cause]:
    """Inputs far from a deviation of 1, and a critical rate that would be high enough without that."""
    size = measure_inputs(case)
    if not case.diverged or not size > USUAL_SIZE:
        return
    scaled = case.probe.critical_scaled if case.probe is not None else None
    evidence = [f"the inputs' root mean square is {format_number(size)}, and 1 would be usual"]
    confidence = 0.55 if case.probe is not None else 0.9 * squash(size / USUAL_SIZE)
    if scaled is not None and case.probe is not None and case.probe.critical is not None and not case.is_adaptive:
        evidence.append(f"with standardised inputs the critical learning rate would be {format_number(scaled)}")
        confidence = 0.97 * case.estimate_relief(scaled)
    if case.excess is not None:
        confidence *= squash(case.excess)
    yield Cause(confidence, tuple(evidence))


def measure_inputs(case: Case) -> float:
    """Root of the mean square of the inputs, as far as it is known; else NaN, as for numbers of words."""
    if case.probe is not None:
        return case.probe.input_size if case.batch.inputs is not None else math.nan
    return case.batch.inputs.size if case.batch.inputs is not None else math.nan


def judge_targets(case: Case) -> Iterator[Cause]:
    """Targets so large that the first error is a step too long, though the rate is usual."""
    targets = case.batch.targets
    if targets is None or not targets.size > USUAL_TARGETS or case.batch.classes:
        return
    if not (case.diverged or overflows_at_once(case) or is_far_from_targets(case)):
        return
    if len(case.costs) and abs(case.costs[0]) < 0.01 * targets.size:
        return  # they have grown with the answers, as where a copy of the network makes them
    if is_far_from_targets(case):
        rate = format_number(case.knobs.learning_rate)
        far = f"the targets' root mean square is {format_number(targets.size)}"
        near = f"a step of {case.clues.optimizer or NAMES[case.knobs.optimizer]} moves each weight by about the rate"
        yield Cause(0.8, (f"{far}, and {near}, {rate}: it takes very many", "scale the targets to a deviation of 1"))
        return
    said = (
        f"the targets' root mean square is {format_number(targets.size)}: the first errors and gradients are as large"
    )
    evidence = [said, "scale the targets to a deviation of 1, and the answers back"]
    confidence = 0.85 * squash(targets.size / USUAL_TARGETS)
    scaled = case.probe.critical_targets if case.probe is not None and not case.is_adaptive else None
    if scaled is not None:
        evidence.insert(1, f"with targets of size 1 the critical learning rate would be {format_number(scaled)}")
        confidence = 0.97 * case.estimate_relief(scaled)
    yield Cause(confidence, tuple(evidence))


def is_far_from_targets(case: Case) -> bool:
    """Whether a cost stands because steps whose length does not grow with the error are short beside the targets."""
    costs, steps = case.costs, case.ratios
    if case.event is not None or not case.is_adaptive or len(costs) < 5 or not 1e-5 < steps.max(initial=0) < LONG_STEP:
        return False
    return bool(costs[0] > 0 and 0.9 * costs[0] < np.median(costs[-5:]) <= costs[0])


def judge_outlier(case: Case) -> Iterator[Cause]:
    """One example far from all others, in its inputs or in its targets."""
    if not (case.diverged or overflows_at_once(case)):
        return
    for name, figures in (("inputs", case.batch.inputs), ("targets", case.batch.targets)):
        if figures is None or (name == "targets" and case.batch.classes) or figures.examples < 8:
            continue
        size = abs(figures.largest)
        if size > FAR * figures.next_largest and size > FAR * figures.median:
            said = (
                f"the {name} of example {figures.largest_at} of {figures.examples} (counted from 0) reach "
                f"{format_number(figures.largest)}; the median example's reach {format_number(figures.median)}"
            )
            yield Cause(0.96, (said, f"no other example's {name} go beyond {format_number(figures.next_largest)}"))


def overflows_at_once(case: Case) -> bool:
    """Whether a value went beyond the type before any step."""
    return (
        case.before_any_step and case.event is not None and case.event.operation in ("overflow", "unknown", "inf-inf")
    )


def judge_forward(case: Case) -> Iterator[Cause]:
    """A forward pass that leaves the type before any step was taken."""
    event = case.event
    if event is None or not overflows_at_once(case) or event.phase not in FORWARD or has_bad_data(case):
        return
    if event.phase == "cost" and any(judge_targets(case)):
        return  # it is not the network that is large
    if event.operation == "unknown":
        place = case.record.layers.index(event.layer) if event.layer in case.record.layers else 0
        if not case.record.column("activation_inf")[event.step, place] > 0:
            return  # a NaN that no inf came before
    elif not max(event.largest, np.nan_to_num(event.reached, nan=0)) > math.sqrt(LARGEST[event.precision]):
        return
    name = event.layer or ("the cost" if event.phase == "cost" else "the network")
    evidence = [f"in update 1, before any step, the forward pass reaches {describe_end(case)} in {name}"]
    if event.phase != "cost":
        evidence.append(f"the weights of {name} multiply what passes, at each layer or step: start them smaller")
    elif event.source:
        evidence.append(f"at {event.source}")
    yield Cause(0.85 if event.operation != "unknown" else 0.7, tuple(evidence), ("c",))


def has_bad_data(case: Case) -> bool:
    """Whether NaN or inf was among the inputs or targets."""
    return any(figures is not None and figures.bad > 0 for figures in (case.batch.inputs, case.batch.targets))


def describe_end(case: Case) -> str:
    """Where a value that left the type would have come to, in words."""
    event = case.event
    assert event is not None
    known = event.reached == event.reached and not math.isinf(event.reached)
    return f"{format_number(event.reached)}, beyond {event.precision}," if known else f"the end of {event.precision}"


def judge_initial_weights(case: Case) -> Iterator[Cause]:
    """Weights that are not finite at the start, or larger than He's where with his the critical rate would do."""
    if case.event is not None and case.event.step == 0 and not case.event.nan:
        said = f"weights of {case.event.layer or 'network'} hold inf before the first update"
        yield Cause(0.99, (said,), ("c",))
    if not (case.diverged or overflows_at_once(case) or starts_too_far(case)):
        return
    gains = case.gains[~np.isnan(case.gains)]
    least = 1.5 if case.probe is not None else FAR_TOO_LARGE
    if not len(gains) or gains.max() < least or np.exp(np.log(np.maximum(gains, 1e-30)).mean()) < 1.2:
        return
    name = case.name_layer(int(np.nanargmax(case.gains)))
    product = float(np.prod(gains))
    evidence = [
        f"the weights started up to {gains.max():.3g} times as large as He's sqrt(2 / fan_in) ({name}), "
        f"{product:.3g} times over all layers"
    ]
    he = None if case.probe is None or case.is_adaptive else case.probe.critical_he
    confidence = squash(product) if he is None else case.estimate_relief(he)
    if he is not None:
        evidence.append(f"with He's initialisation the critical learning rate would be {format_number(he)}")
    yield Cause(0.98 * confidence, tuple(evidence))


def starts_too_far(case: Case) -> bool:
    """Whether an exp overflows before any step, and would not with He's weights."""
    event, gains = case.event, case.gains[~np.isnan(case.gains)]
    if event is None or not case.before_any_step or event.operation != "exp overflow" or not len(gains):
        return False
    return bool(gains.max() >= FAR_TOO_LARGE and event.largest / np.prod(gains) < math.log(LARGEST[event.precision]))


def judge_sum(case: Case) -> Iterator[Cause]:
    """A sum over the batch, and a rate that would be below the critical one for the mean."""
    if not case.diverged:
        return
    if case.record.own_network:
        yield from judge_own_sum(case)
        return
    # A step that divides the gradient by its usual size is as long for the sum as for the mean.
    if case.record.settings.reduction != "sum" or case.probe is None or case.is_adaptive:
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


def judge_own_sum(case: Case) -> Iterator[Cause]:
    """The same in a cost of the user's own, which grows with the number of examples."""
    count = case.batch.summed
    if count < 4:
        return
    evidence = [f"the cost is summed: it is {format_number(count)} times the mean, and so is its gradient"]
    confidence = 0.75
    if case.excess is not None and case.probe is not None and case.probe.critical is not None:
        mean = format_number(case.probe.critical * count)
        evidence.append(f"with the mean the critical learning rate would be {mean}")
        # What is left of the excess, beyond what the sum accounts for.
        confidence = max(0.97 if case.excess <= count else 0.0, 0.9 * case.estimate_share(count))
    yield Cause(confidence, tuple(evidence))


def judge_adding_up(case: Case) -> Iterator[Cause]:
    """Gradients that are never set to 0, so that each update is given the sum of all."""
    count = case.clues.added_up
    own = len(case.record) / max(len(case.clues.epsilons), 1)  # updates of one optimiser where several take turns
    if count < max(2, 0.5 * (own - 1)):
        return
    said = f"in {format_count(count, 'update')} the gradient was added to that of the update before: they add up"
    evidence = (said, "call optimizer.zero_grad() in each update, before backward")
    yield Cause(0.97 if case.event is not None or case.rose else 0.6, evidence)


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


def judge_epsilon_of_optimizer(case: Case) -> Iterator[Cause]:
    """An Adam whose epsilon is 0, as it is or in the type of the weights."""
    event, precision = case.event, case.record.settings.precision
    name, epsilon = find_divisor(case)
    if event is None or not name or event.phase not in ("weight", "update"):
        return
    least = {"float16": 6e-8, "bfloat16": 9e-41}.get(precision, 1e-45)
    bad = case.record.gradient_nan[event.step - 1] + case.record.gradient_inf[event.step - 1]
    lost = 0 < epsilon < least / 2 and not np.nansum(bad)
    if lost or event.operation in ("0/0", "x/0"):
        eps = f"eps {format_number(epsilon)} is 0 in {precision}" if epsilon else "eps is 0"
        said = f"{name}'s {eps}, so that a step is 0/0 or x/0"
        remedy = "give eps=1e-4, or keep the weights in float32 under torch.autocast" if lost else "give eps=1e-8"
        yield Cause(0.97, (said, remedy), ("c",))


def find_divisor(case: Case) -> tuple[str, float]:
    """The optimiser's name and its epsilon; no name for one of a Run that divides by nothing."""
    if case.clues.optimizer:
        own = (case.clues.optimizer, case.clues.epsilon)
        named = case.event.function if case.event is not None else ""
        return next((each for each in case.clues.epsilons if each[0] == named), own)
    return NAMES.get(case.knobs.optimizer, ""), case.knobs.adam_epsilon


def judge_step(case: Case) -> Iterator[Cause]:
    """An optimiser that makes NaN out of a gradient that is finite."""
    event = case.event
    if event is None or event.phase != "update" or not case.clues.optimizer:
        return
    if event.operation not in ("overflow", "unknown", "0/0", "x/0"):  # a quotient is that of the epsilon
        said = f"update {event.step}, {event.value_name}: {event.argument} ({event.operation})"
        yield Cause(0.965, (said, "the gradient that the optimiser was given is finite"), ("b",))


def judge_penalty(case: Case) -> Iterator[Cause]:
    """L2 that turns weights over, L1 that takes off more than they are."""
    knobs, turns = case.knobs, case.clues.turns
    if turns:
        whose = f"the weights of the group of {case.clues.turned}" if case.clues.turned else "the weights"
        said = describe_turn(whose, "learning_rate * weight_decay", turns, case.clues.turns_beyond)
        yield Cause(0.99 if case.diverged else 0.5, (said,))
    if case.clues.optimizer:
        return
    if case.is_adaptive and knobs.penalty_in == "cost":
        return  # it is divided by the gradient's usual size, as the rest of the gradient is
    share, bound = knobs.learning_rate * knobs.l2, 2 * case.stretch if knobs.penalty_in == "cost" else 2.0
    if share > bound:
        said = describe_turn("the weights", "learning_rate * l2", share, bound)
        yield Cause(0.99 if case.diverged else 0.5, (said,))
        return
    size = case.probe.weight_size if case.probe is not None else math.inf
    step = knobs.learning_rate * knobs.l1
    if step > 2 * size and case.diverged:
        taken, was = format_number(step), format_number(size)
        said = f"L1 takes {taken} off every weight at each update, and the weights were {was} in size"
        yield Cause(0.97 * squash(step / size), (said,))


def describe_turn(whose: str, product: str, share: float, bound: float) -> str:
    """What a decay does that takes more than twice the weights off them, which momentum makes bearable for a while."""
    if bound == 2:
        return f"every update multiplies {whose} by 1 - {product} = {format_number(1 - share)}"
    borne = f"momentum bears {format_digits(bound)}"
    return f"every update takes {product} = {format_number(share)} times {whose} off them, and {borne}"


def judge_momentum(case: Case) -> Iterator[Cause]:
    """Momentum of 1, or so near to 1 that past steps add up a hundredfold."""
    kept = case.knobs.momentum
    if kept >= 1 and len(case.record):
        _, costs = case.record.known_costs
        trouble = case.diverged or bool((costs[-1:] > 0.5 * costs[:1]).any())
        grows = case.clues.momentum > 1
        said = f"{format_digits(case.clues.momentum)}: past steps grow" if grows else "1: no past step ever fades"
        yield Cause(0.99 if trouble else 0.6, (f"momentum is {said}",))
    elif case.diverged and kept >= 0.5 and case.excess is not None:
        # Far below the critical rate it is the sum of steps that is too long; far above, any step is.
        longer = 1 / (1 - kept)
        said = f"momentum {kept:g} makes a steady step {longer:.3g} times as long"
        yield Cause(0.9 * squash(longer / 20) * (1 - squash(case.excess) / 2), (said,))
