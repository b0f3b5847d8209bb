"""A record in a line of words: what the cost does, where the weights are, since when it is NaN.

A cost that was not measured is said to be so; where only some were, the words are about those.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.settings import Knobs
from cnnlab.diagnosis.early_warning import find_present_warning
from cnnlab.records.formats import format_count, format_growth, format_number
from cnnlab.records.record import Record

CALM, RISING, BROKEN = "calm", "rising", "broken"
"""The tones of a state line."""
SHORT = {"learning_rate": "lr", "clip_threshold": "threshold"}
"""Names in the labels of branches, where space is scarce."""
LONG = 10.0
"""An update so many times as long as a layer's weights is too long (the threshold of SageMaker Debugger's rule)."""
RISE = 3.0
"""A cost above so many times its least is said to rise (the factor at which fast.ai's finder stops)."""
WELL = 2.0
"""A cost, averaged over an epoch, up to so many times its least is well."""
UNKNOWN = "the cost is not measured (give it with watch.step(loss))"
"""What is said where nothing is known of the cost."""


def state_line(record: Record) -> str:
    """The state of a run in one line, such as "cost rose 1e4-fold in 2 updates; cv0 weights reach 1e16"."""
    if not len(record):
        return "ready at update 0: nothing is trained yet"
    if record.first_nonfinite is not None:
        return describe_break(record)
    warned = find_present_warning(record)
    said = describe_cost(record, short=warned is not None)
    if holds_nonfinite_weights(record):
        return f"{describe_weights(record)}; {said}"
    if warned:  # which leaves no space for what has a plot of its own
        return f"Warning: {warned}. {said}; {describe_largest_weight(record)}"
    return progress_line(record)


def progress_line(record: Record) -> str:
    """What a run has done so far, in one line, without a word on what may come."""
    left_out = describe_left_out(record)
    return f"{describe_cost(record)}; {left_out}{describe_accuracy(record)}{describe_largest_weight(record)}"


def count_left_out(record: Record) -> int:
    """How many of the last updates loss scaling left out, one after the other."""
    made = np.flatnonzero(~record.left_out)
    return len(record) - (int(made[-1]) + 1 if len(made) else 0)


def describe_left_out(record: Record) -> str:
    """That the last updates were left out; nothing where they were not."""
    count = count_left_out(record)
    if not count:
        return ""
    which = f"update {len(record)} was" if count == 1 else f"the last {count} updates were"
    return f"{which} left out, for the scaled gradient overflows; "


def is_stuck(record: Record) -> bool:
    """Whether updates are left out without an end: at a scale that does not fall, or has fallen to 1 and below."""
    if count_left_out(record) < 3:
        return False
    return record.knobs_at(len(record)).loss_scale != "dynamic" or bool(record.scale[-1] <= 1)


def describe_cost(record: Record, short: bool = False) -> str:
    """What the cost does, as long as it is finite; `short`: without its value where it rises."""
    steps, costs = record.known_costs
    if not len(costs):
        return UNKNOWN
    least = int(np.argmin(costs))
    if rises(record):
        value = "" if short else f", to {format_number(costs[-1])}"
        updates = format_count(steps[-1] - steps[least], "update")
        said = f"cost rose {write_growth(costs[-1], costs[least])} in {updates}{value}"
    elif len(costs) > 1:
        first, last = format_number(costs[0]), format_number(costs[-1])
        moved = "went" if first == last else "rose" if costs[-1] > costs[0] else "fell"
        said = f"cost {moved} from {first} to {last} in {format_count(steps[-1] - steps[0], 'update')}"
    else:
        said = f"cost is {format_number(costs[0])} at update {steps[0]}"
    return said if steps[-1] == len(record) else f"{said}, not measured since update {steps[-1]}"


def start_line(record: Record) -> str:
    """The line of a look back at the start of a run that has been trained since."""
    return f"the start, before update 1: {describe_largest_weight(record)}"


def before_explosion(record: Record) -> int:
    """The last update after which all was well: the last one of the record if nothing went wrong, 0 if all did.

    All is well after an update if the cost that it leaves, averaged over an epoch, is at most twice the least such
    average so far, and the update was at most 10 times as long as the weights of each layer (the threshold of
    SageMaker Debugger's rule). What went wrong and came back is forgiven. The cost that an update leaves is measured at
    the next one; one that was not measured tells nothing.
    """
    steps, costs = record.known_costs
    latest = np.searchsorted(steps, np.arange(1, len(record) + 2), side="right")
    well = np.append(True, is_low(costs, record.updates_per_epoch))[latest]
    well[1:] &= ~record.longer_than(LONG).any(axis=1)
    return int(np.flatnonzero(well)[-1]) if well.any() else 0


def is_low(costs: NDArray[np.float64], epoch: int) -> NDArray[np.bool_]:
    """Whether the average over the epoch that each cost ends is at most twice the least average so far.

    In the first epoch the average is over the costs so far. Averages over less than a quarter of an epoch, or over less
    than half of the costs so far, are too uncertain to be the least.
    """
    averages = average_epochs(costs, epoch)
    firsts = np.minimum(np.arange(len(costs)) // 2, -(-epoch // 4) - 1)
    begin = int(firsts.max(initial=0))
    least = np.minimum.accumulate(np.append(np.full(begin, np.inf), averages[begin:]))
    for place, first in enumerate(firsts[: 2 * begin]):
        least[place] = averages[first : place + 1].min()
    return np.isfinite(averages) & (averages <= WELL * np.maximum(least, 0.1))


def average_epochs(costs: NDArray[np.float64], epoch: int) -> NDArray[np.float64]:
    """The average of each cost and those of the epoch before it; inf where one is not finite.

    Sums of 1, 2, 4, .. costs are put together: from sums of all so far a cost of 1e30 would never be gone.
    """
    total, piece, width, taken = np.zeros(len(costs)), costs, 1, 0
    with np.errstate(over="ignore", invalid="ignore"):
        while width <= epoch:
            if epoch & width:
                total, taken = total + shift(piece, taken), taken + width
            piece, width = piece + shift(piece, width), 2 * width
    averages = total / np.minimum(np.arange(1, len(costs) + 1), epoch)
    return np.where(np.isfinite(averages), averages, np.inf)


def shift(values: NDArray[np.float64], places: int) -> NDArray[np.float64]:
    """The values so many places later, after zeros."""
    return np.append(np.zeros(min(places, len(values))), values[: max(len(values) - places, 0)])


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
        f"{SHORT.get(name, name)} {write_knob(old[name])} -> {write_knob(new[name])}"
        for name in new
        if new[name] != old[name]
    ]
    return f"{', '.join(changed) or 'no change'} at {forked_at}"


def compare_records(record: Record, other: Record) -> str:
    """What another record has otherwise than a record, such as "lr 0.001 (here 0.01), seed 3 (here 0)".

    Where both start alike, the first change of knobs in which they differ: "lr 0.001 (here 0.01) from update 4".
    """
    changed = write_differences(dataclasses.asdict(record.settings), dataclasses.asdict(other.settings))
    if record.network != other.network:
        ours, theirs = (each.network or "the network of the question" for each in (record, other))
        changed.insert(0, f"{theirs} (here {ours})")
    if changed:
        return ", ".join(changed)
    for update in sorted({first for each in (record, other) for first, _ in each.schedule}):
        if update > min(len(record), len(other)):
            break
        knobs = (dataclasses.asdict(each.knobs_at(update)) for each in (record, other))
        if changed := write_differences(*knobs):
            return f"{', '.join(changed)} from update {update}"
    return f"the same settings, {format_count(len(other), 'update')}"


def write_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Each field that differs, with both values; how long Play goes on and where it computes are none of them."""
    return [
        f"{SHORT.get(name, name)} {write_value(theirs[name])} (here {write_value(ours[name])})"
        for name in ours
        if ours[name] != theirs[name] and name not in ("epochs", "preset", "device")
    ]


def write_value(value: Any) -> str:
    """A setting's value in a label."""
    return f"{value:g}" if isinstance(value, float) else "all" if value is None else str(value)


def write_knob(value: float | str) -> str:
    """A knob's value in a label."""
    return value if isinstance(value, str) else f"{value:g}"


def tone(record: Record) -> str:
    """How serious it is: calm, rising (cost above 3 times its least, or a warning, or no update made), broken.

    Broken (NaN or inf) is a run whose cost has been NaN or inf, or whose weights are.
    """
    if record.first_nonfinite is not None or holds_nonfinite_weights(record):
        return BROKEN
    if not len(record):
        return CALM
    return RISING if find_present_warning(record) is not None or rises(record) or is_stuck(record) else CALM


def rises(record: Record) -> bool:
    """Whether the last cost that was measured is above 3 times the least."""
    _, costs = record.known_costs
    return bool(len(costs) and costs[-1] > RISE * costs.min() and costs[-1] > 0.1)


def describe_break(record: Record) -> str:
    """The line of a run whose cost has been NaN or inf."""
    first = record.first_nonfinite
    assert first is not None
    steps, costs = record.known_costs
    value, last = format_number(record.cost[first - 1]), format_number(costs[-1])
    when = f"is {value} since update {first}" if last == value else f"was {value} at update {first} and is {last} now"
    before = describe_time_before(steps[steps < first], costs[steps < first])
    return f"cost {when}, {before}; {describe_weights(record)}"


def describe_time_before(steps: NDArray[np.int64], costs: NDArray[np.float64]) -> str:
    """What the cost did in the updates before it was NaN or inf."""
    if not len(costs):
        return "with no finite cost before"
    low, high = int(np.argmin(costs)), int(np.argmax(costs))
    if not costs[high] > RISE * costs[low]:
        return f"after a cost of {format_number(costs[-1])} without a rise"
    if high < low:
        return f"after a cost of {format_number(costs[-1])}"
    return (
        f"after it rose {write_growth(costs[high], costs[low])} in {format_count(steps[high] - steps[low], 'update')}"
    )


def holds_nonfinite_weights(record: Record) -> bool:
    """Whether the weights hold NaN or inf at the end."""
    return any(bool((record.last_measured(gauge) > 0).any()) for gauge in ("weight_nan", "weight_inf"))


def describe_weights(record: Record) -> str:
    """Which layers hold NaN or inf, or how far the weights have grown."""
    nan, inf = (record.last_measured(gauge) > 0 for gauge in ("weight_nan", "weight_inf"))
    names = [name for name, is_bad in zip(record.layers, nan | inf, strict=True) if is_bad]
    if not names:
        return describe_largest_weight(record)
    kind = "inf" if not nan.any() else "NaN or inf" if (inf & ~nan).any() else "NaN"
    if len(names) == len(record.layers):
        return f"every layer holds {kind}"
    return f"weights of {', '.join(names) if len(names) < 4 else f'{len(names)} layers'} hold {kind}"


def describe_accuracy(record: Record) -> str:
    """The accuracy, where there is one."""
    held_out = record.held_out_accuracy[np.isfinite(record.held_out_accuracy)]
    if len(held_out):
        return f"held-out accuracy {held_out[-1]:.2f}; "
    return f"accuracy {record.accuracy[-1]:.2f}; " if np.isfinite(record.accuracy[-1]) else ""


def describe_largest_weight(record: Record) -> str:
    """The layer with the largest weight."""
    largest = record.last_measured("largest_weight")
    layer = int(np.argmax(np.where(np.isnan(largest), -1, largest)))
    return f"{record.layers[layer] or 'network'} weights reach {format_number(largest[layer])}"


def write_growth(new: float, old: float) -> str:
    """A growth of the cost: as a factor, or from where if that is not above 0."""
    return format_growth(new, old) if old > 0 else f"from {format_number(old)}"
