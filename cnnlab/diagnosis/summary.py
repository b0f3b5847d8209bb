"""A record in a line of words: what the cost does, where the weights are, since when it is NaN.

A cost that was not measured is said to be so; where only some were, the words are about those.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from cnnlab.config.settings import Knobs
from cnnlab.diagnosis.early_warning import find_present_warning
from cnnlab.records.formats import number
from cnnlab.records.record import Record

CALM, RISING, BROKEN = "calm", "rising", "broken"
"""The tones of a state line."""
SHORT = {"learning_rate": "lr", "clip_threshold": "threshold"}
"""Names in the labels of branches, where room is scarce."""
LONG = 10.0
"""An update so many times as long as a layer's weights is too long (the threshold of SageMaker Debugger's rule)."""
RISE = 3.0
"""A cost above so many times its least is said to rise (the factor at which fast.ai's finder stops)."""
UNKNOWN = "the cost is not measured (watch.step(loss) tells it)"
"""What is said where nothing is known of the cost."""


def state_line(record: Record) -> str:
    """The state of a run in one line, such as "cost x 1e4 in 2 updates; cv0 weights reach 1e16"."""
    if not len(record):
        return "ready at update 0: nothing is trained yet"
    if record.first_nonfinite is not None:
        return broken_line(record)
    warned = find_present_warning(record)
    said = cost_line(record, short=warned is not None)
    if weights_are_lost(record):
        return f"{lost(record)}; {said}"
    if warned:  # which leaves no room for what has a plot of its own
        return f"Warning: {warned}. {said}; {weights(record)}"
    return f"{said}; {accuracy(record)}{weights(record)}"


def cost_line(record: Record, short: bool = False) -> str:
    """What the cost does, as long as it is finite; `short`: without its value where it rises."""
    steps, costs = record.known_costs
    if not len(costs):
        return UNKNOWN
    least = int(np.argmin(costs))
    if rises(record):
        value = "" if short else f"{number(costs[-1])}: "
        said = f"cost {value}{times(costs[-1], costs[least])} in {count(steps[-1] - steps[least])}"
    elif len(costs) > 1:
        said = f"cost {number(costs[0])} to {number(costs[-1])} in {count(steps[-1] - steps[0])}"
    else:
        said = f"cost {number(costs[0])} at update {steps[0]}"
    return said if steps[-1] == len(record) else f"{said}, not measured since update {steps[-1]}"


def start_line(record: Record) -> str:
    """The line of a look back at the start of a run that has been trained since."""
    return f"the start, before update 1: {weights(record)}"


def before_explosion(record: Record) -> int:
    """The last update after which nothing was wrong yet: 0, the start, if the very first step was too long.

    Wrong is an update that leaves a cost that is not finite or above 3 times its least so far, or one that is more than
    10 times as long as the weights of a layer (the threshold of SageMaker Debugger's rule). The cost that an update
    leaves is measured at the next one; one that was not measured tells nothing.
    """
    finite = np.where(np.isfinite(record.cost), record.cost, np.inf)
    least = np.minimum.accumulate(finite)
    bad = ~((finite[1:] <= RISE * np.maximum(least[:-1], 0.1)) & np.isfinite(finite[1:]))
    left_a_bad_cost = np.append(bad & record.is_measured("cost")[1:], False)[: len(record)]
    too_long = record.longer_than(LONG).any(axis=1)
    wrong = np.flatnonzero(left_a_bad_cost | too_long)
    if record.first_nonfinite == 1:
        return 0
    return int(wrong[0]) if len(wrong) else len(record)


def difference(record: Record, parent: Record | None, coming: Knobs | None = None) -> str:
    """What a branch does otherwise than its parent, such as "lr 0.01 -> 0.001 at 3".

    `coming` are the knobs of its next update, which tell where it has none of its own yet. Without a parent, for it has
    been deleted, the branch is compared with the past that it shared with it.
    """
    forked_at = record.branch.forked_at
    if record.branch.parent is None:
        return "start"
    before = record.knobs_at(forked_at) if forked_at else record.settings.knobs
    new = dataclasses.asdict(coming if coming and len(record) == forked_at else record.knobs_at(forked_at + 1))
    old = dataclasses.asdict(parent.knobs_at(forked_at + 1) if parent else before)
    changed = [
        f"{SHORT.get(name, name)} {said(old[name])} -> {said(new[name])}" for name in new if new[name] != old[name]
    ]
    return f"{', '.join(changed) or 'no change'} at {forked_at}"


def said(value: float | str) -> str:
    """A knob's value in a label."""
    return value if isinstance(value, str) else f"{value:g}"


def tone(record: Record) -> str:
    """How serious it is: calm, rising (cost above 3 times its least, or a warning), broken (NaN or inf).

    Broken is a run whose cost has been NaN or inf, or whose weights are.
    """
    if record.first_nonfinite is not None or weights_are_lost(record):
        return BROKEN
    if not len(record):
        return CALM
    if find_present_warning(record) is not None:
        return RISING
    return RISING if rises(record) else CALM


def rises(record: Record) -> bool:
    """Whether the last cost that was measured is above 3 times the least."""
    _, costs = record.known_costs
    return bool(len(costs) and costs[-1] > RISE * costs.min() and costs[-1] > 0.1)


def broken_line(record: Record) -> str:
    """The line of a run whose cost has been NaN or inf."""
    first = record.first_nonfinite
    assert first is not None
    steps, costs = record.known_costs
    value, last = number(record.cost[first - 1]), number(costs[-1])
    finite = costs[steps < first]
    if len(finite) == 0:
        before = "from the very start" if first == 1 else "the first that was measured"
    elif finite.max() > RISE * finite.min():
        low = int(np.argmin(finite))
        high = int(np.argmax(finite))
        grown = times(finite[high], finite[low])
        before = f"after the cost rose {grown} in {count(steps[high] - steps[low])}" if high > low else (
            f"after a cost of {number(finite[-1])}"
        )  # fmt: skip
    else:
        before = f"out of a cost of {number(finite[-1])}, without a rise"
    when = f"since update {first}" if last == value else f"at update {first}, now {last}"
    return f"cost {value} {when}, {before}; {lost(record)}"


def weights_are_lost(record: Record) -> bool:
    """Whether the weights hold NaN or inf at the end."""
    return any(bool((record.column(gauge)[-1] > 0).any()) for gauge in ("weight_nan", "weight_inf"))


def lost(record: Record) -> str:
    """Which layers hold NaN or inf, or how far the weights have grown."""
    nan, inf = (record.column(gauge)[-1] > 0 for gauge in ("weight_nan", "weight_inf"))
    names = [name for name, is_bad in zip(record.layers, nan | inf, strict=True) if is_bad]
    if not names:
        return weights(record)
    kind = "inf" if not nan.any() else "NaN or inf" if (inf & ~nan).any() else "NaN"
    if len(names) == len(record.layers):
        return f"every layer holds {kind}"
    return f"{kind} in the weights of {', '.join(names) if len(names) < 4 else f'{len(names)} layers'}"


def accuracy(record: Record) -> str:
    """The accuracy, where there is one."""
    held_out = record.held_out_accuracy[np.isfinite(record.held_out_accuracy)]
    if len(held_out):
        return f"held-out accuracy {held_out[-1]:.2f}; "
    return f"accuracy {record.accuracy[-1]:.2f}; " if np.isfinite(record.accuracy[-1]) else ""


def weights(record: Record) -> str:
    """The layer with the largest weight."""
    largest = record.column("largest_weight")[-1]
    layer = int(np.argmax(np.where(np.isnan(largest), -1, largest)))
    return f"{record.layers[layer] or 'network'} weights reach {number(largest[layer])}"


def times(new: float, old: float) -> str:
    """A growth as a factor: x 214, x 1e4; in logarithms, for a quotient could overflow."""
    if old <= 0:
        return f"from {number(old)}"
    decades = math.log10(new) - math.log10(old)
    return f"x {10**decades:.3g}" if decades < 3 else f"x 1e{round(decades)}"


def count(updates: int) -> str:
    """A number of updates in words."""
    return f"{updates} update{'' if updates == 1 else 's'}"
