"""Causes that lie in single values: data that hold NaN, operations that are not defined, a log or an exp of the wrong.

None of them is mended by a lower learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from cnnlab.diagnosis.case import Case, Cause
from cnnlab.diagnosis.divergence_causes import starts_too_far
from cnnlab.diagnosis.early_warning import LARGEST
from cnnlab.diagnosis.events import name_place
from cnnlab.records.formats import format_digits, format_number

UNDEFINED = {
    "0/0": "a division of 0 by 0",
    "x/0": "a division by 0, as in the slope of a square root at 0",
    "inf/inf": "a division of inf by inf",
    "inf-inf": "a difference of infinities, as in a softmax over -inf alone",
    "inf*0": "a product of inf and 0, as in a branch that is not taken, whose slope is infinite",
    "log(0)": "a log of 0, as where the target has no probability at all",
    "log of a negative number": "a log of a negative number, which is not defined",
    "root of a negative number": "a root of a negative number, which is not defined",
    "undefined": "an argument at which it, or its slope, is not defined",
}
"""Operation -> why it has no answer."""
CALM = 1e6
"""Numbers below this are not those of a run that explodes."""
GIVEN = {"input": "the inputs", "target": "the targets", "buffer": "the buffer", "constant": "a constant in the cost"}
"""Phase of what was given -> what holds the NaN, in words."""


def judge_saturation(case: Case) -> Iterator[Cause]:
    """The label's probability is 0, or so small that 1/p is beyond the type."""
    event = case.event
    if event is None or not (case.record.own_network or case.record.settings.cost == "softmax_log"):
        return
    underflow = event.operation == "log(0)" and event.function.startswith("log")
    underflow &= bool(event.saturated) or not case.record.own_network
    steep = event.phase == "gradient" and event.operation in ("overflow", "x/0", "0/0")
    steep &= event.function in ("div", "log")
    steep &= not case.record.own_network  # whose quotients may be others than 1/p
    if not (underflow or steep):
        return
    gap = case.record.logit_gap[event.step - 1]
    sure = f"the logit gap is {format_number(float(gap))}" if gap == gap else "the network is sure of its answer"
    if event.saturated:
        sure += f" ({event.saturated} gave exactly 0 or 1)"
    broken = "log(0) is -inf" if underflow else f"1/p would be {format_number(event.reached)}, beyond {event.precision}"
    long = np.nan_to_num(case.record.update_ratio[: event.step - 1]).max(initial=0)
    evidence = (f"{sure}, so the probability p of a label is next to 0", broken)
    yield Cause(0.97 if long < 10 else 0.6, evidence, ("b",))


def judge_data(case: Case) -> Iterator[Cause]:
    """NaN or inf that came with the data, a buffer or a constant."""
    event = case.event
    if event is None:
        return
    if event.operation == "given" and event.phase in GIVEN:
        yield Cause(1.0, (describe_given(case, event.phase, event.layer),))
        return
    if event.step == 0 and event.nan:
        said = f"the weights of {name_place(event.layer) or 'network'} hold NaN before the first update"
        yield Cause(1.0, (said,))
        return
    if event.masked:
        return
    for phase, figures in (("input", case.batch.inputs), ("target", case.batch.targets)):
        if figures is not None and figures.bad:
            unknown = event.operation == "unknown"
            certain = unknown or event.phase == "cost" or figures.bad == figures.examples
            yield Cause(0.98 if certain else 0.5, (describe_given(case, phase, ""),))


def describe_given(case: Case, phase: str, name: str) -> str:
    """What holds the NaN, and in which examples as far as that is known."""
    figures = {"input": case.batch.inputs, "target": case.batch.targets}.get(phase)
    held = f"{GIVEN[phase]} {name}" if phase == "buffer" and name else GIVEN[phase]
    if phase == "input" and case.probe is not None:
        return f"the data hold NaN or inf in {case.probe.nan_inputs or 1} of the examples"
    if figures is None or not figures.bad:
        return f"{held} hold{'s' if phase in ('buffer', 'constant') else ''} NaN or inf before anything is computed"
    if figures.bad == figures.examples and phase == "target":
        held = "all targets, or a constant within the cost,"
    where = f"{figures.bad} of {figures.examples} examples, the first of them example {figures.first_bad}"
    return f"{held} hold NaN or inf in {where} (counted from 0)"


def judge_operation(case: Case) -> Iterator[Cause]:
    """An operation in the user's own network or cost that is not defined for its inputs, which are of usual size."""
    event = case.event
    if event is None or not case.record.own_network or event.operation not in UNDEFINED or event.largest > CALM:
        return
    if event.phase == "update" and (event.operation in ("0/0", "x/0") or case.clues.optimizer):
        return  # the optimiser's own arithmetic, which has a cause of its own
    reason = UNDEFINED[event.operation]
    said = f"{reason} (in {event.function})"
    if event.argument:
        named = event.function in event.argument
        reason = reason.partition(", as in")[0]
        said = f"{event.argument if named else f'{event.function}: {event.argument}'}: {reason}"
    evidence = [f"update {event.step}, {event.value_name}: {said}"]
    if event.source:
        evidence.append(f"at {event.source}")
    evidence.append(f"its largest input is {format_number(event.largest)}")
    yield Cause(0.5 if case.exploded and not case.before_any_step else 0.96, tuple(evidence), ("b",))


def judge_exp(case: Case) -> Iterator[Cause]:
    """An exp whose argument was of usual size, and whose result is beyond the type."""
    event = case.event
    if event is None or not case.record.own_network or event.operation != "exp overflow":
        return
    high = bool(len(case.costs)) and case.costs[0] > 1e10  # before any step
    if event.largest > CALM and not high:
        return
    said = f"update {event.step}, {event.value_name}: {event.function} of {format_number(event.largest)}"
    end = format_digits(find_end(event.function.rstrip("_"), event.precision), 4)
    evidence: tuple[str, ...] = (
        f"{said}: beyond {end} its result leaves {event.precision}",
        "use logsumexp or softplus",
    )
    if high and case.event is not None and not case.before_any_step:
        evidence = (f"before any step the cost was {format_number(float(case.costs[0]))} already", *evidence)
    later = case.exploded and not case.before_any_step and not high
    yield Cause(0.5 if later or starts_too_far(case) else 0.95, evidence, ("c",))


def find_end(function: str, precision: str) -> float:
    """The argument at which exp or one of its kin reaches the largest number of a type."""
    largest = LARGEST.get(precision, LARGEST["float64"])
    if function == "exp2":
        return math.log2(largest)
    return math.log(largest) + (math.log(2) if function in ("sinh", "cosh") else 0)


def judge_bound(case: Case) -> Iterator[Cause]:
    """A cost that has no minimum, and runs to minus infinity."""
    costs, targets = case.costs, case.batch.targets
    if len(costs) < 3 or not costs[-1] < 0:
        return
    fell = f"the cost fell from {format_number(costs[0])} to {format_number(costs[-1])}, without a lower bound"
    if case.batch.binary and targets is not None and (targets.low < 0 or targets.high > 1):
        low, high = format_number(targets.low), format_number(targets.high)
        outside = f"the targets of a binary cross-entropy lie between {low} and {high}, outside [0, 1]"
        yield Cause(0.97, (outside, fell))
        return
    if case.batch.never_negative:
        name = case.batch.never_negative
        yield Cause(0.95, (f"{name} is below 0: it wants log-probabilities, as log_softmax gives them", fell))
        return
    thirds = np.array_split(costs, 3)
    falls = [float(part[0] - part[-1]) for part in thirds]
    if costs[-1] < -100 * max(1.0, abs(costs[0])) and falls[2] > 1.5 * falls[0] > 0:
        evidence = (fell, "it falls faster and faster: nothing in it grows when the outputs do")
        yield Cause(0.97 if case.fell_without_end else 0.85, evidence)


def judge_error(case: Case) -> Iterator[Cause]:
    """An error that the program raised."""
    if case.clues.error:
        said = f"update {case.clues.error_step} raised: {case.clues.error}"
        yield Cause(0.99 if case.event is None else 0.4, (said,))
