"""A warning before the cost breaks, from the gauges of the present update; and when each type runs out of numbers.

Thresholds were tuned on the runs of even seeds of a grid, and scored on the others: tests/benchmarks/warning.py; with
every optimiser, on half of some runs drawn at random: tests/benchmarks/warning_larger.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.settings import ADAPTIVE
from cnnlab.records.formats import format_digits
from cnnlab.records.frame import is_measured
from cnnlab.records.record import Record

LONG = 20.0
"""An update so many times as long as the weights of a layer is the first leap of an explosion."""
VERY_LONG = 1000.0
"""One so many times as long is a leap even in one layer alone."""
FEW = 10
"""A layer of fewer numbers is like a bias: it may be anywhere at the start."""
NEAR_ZERO = 1e-3
"""Weights whose root mean square begins below this have no length to compare an update with, until one is beyond 1."""
MOVED = 0.1
"""A cost that climbs while no update is so many times as long as the weights has met other data, no explosion."""
CLIMB = 1e4
"""A cost so many times as high as the first one, and still rising, has left the range from which runs come back.

With an optimiser that divides by its gradients they do come back, from any height.
"""
NO_GAP = {"float16": 17.329, "bfloat16": 92.882, "float32": 103.973, "float64": 745.134}
"""The logit gap at which exp(-gap) is 0 in each type: half of its smallest number. A log of that is infinite."""
NEAR = 0.75
"""Logits so near to that gap in the next update, as a share of it, may be there for another batch."""
MARGIN = 30.0
"""How near to the end of the type the next update's outputs may come: a layer within may hold larger numbers."""
STEADY = 16
"""Most costs from which the overflow clock takes the growth."""
RECENT = 5
"""Updates for which a warning is shown."""
LARGEST = {"float16": 65504.0, "bfloat16": 3.3895314e38, "float32": 3.4028235e38, "float64": 1.7976931e308}
"""The largest number of each type."""


@dataclass(frozen=True)
class EarlyWarning:
    """A sign that the cost is about to break."""

    step: int
    """The update after which it was seen."""
    words: str

    def __str__(self) -> str:
        return self.words


def find_first_warning(record: Record) -> EarlyWarning | None:
    """The first warning of a run, as the live line would have given it; None if there was none."""
    found = np.flatnonzero(find_signs(record).any(axis=0))
    return None if not len(found) else describe_warning(record, int(found[0]) + 1)


def find_present_warning(record: Record) -> EarlyWarning | None:
    """The latest warning of the last few updates; None if all is well. Looks at the last few updates alone."""
    first = max(0, len(record) - RECENT)
    found = np.flatnonzero(find_signs(record, first).any(axis=0))
    return None if not len(found) else describe_warning(record, first + int(found[-1]) + 1)


def find_signs(record: Record, first: int = 0) -> NDArray[np.bool_]:
    """(4, updates): which of the four signs are there, for the updates after `first`."""
    rows = slice(first, len(record))
    with np.errstate(all="ignore"):
        cost = record.cost[rows]
        before = find_previous_costs(record, rows)
        adaptive = find_adaptive(record, rows)
        leap = find_leaps(record, rows) & (~adaptive | find_broken(record, rows))
        floor = max(abs(find_first_cost(record)), 1e-3)  # inf without a cost, above which nothing climbs
        climb = (cost > CLIMB * floor) & (cost > before) & find_moves(record, rows) & ~adaptive
        reach = estimate_reach(record, rows)
        saturated = find_saturation(record, rows, reach)
        beyond = reach > math.log10(LARGEST[record.settings.precision] / MARGIN)
    return np.array([leap, climb, saturated, beyond])


def find_adaptive(record: Record, rows: slice) -> NDArray[np.bool_]:
    """At which updates an optimiser was in force that divides by its gradients.

    Its step is as long as its learning rate, however steep the cost: a long one does not make the next one longer.
    """
    found, end = np.zeros(rows.stop - rows.start, dtype=bool), rows.stop
    for first, knobs in reversed(record.schedule):
        begin = min(max(first - 1, rows.start), end)
        found[begin - rows.start : end - rows.start] = knobs.optimizer in ADAPTIVE
        end = begin
        if begin == rows.start:
            break
    return found


def find_leaps(record: Record, rows: slice) -> NDArray[np.bool_]:
    """Whether there is the first leap of an explosion, see `leaps_at_once`, or one before that did not lower the cost.

    One layer alone leaps where its bias is far from the targets, and the cost falls by it: the next one is waited for.
    """
    first = max(rows.start - 1, 0)
    wide = slice(first, rows.stop)
    longer, at_once = find_long_layers(record, wide).any(axis=1), leaps_at_once(record, wide)
    cost = record.cost[wide]
    waited = (longer & ~at_once)[:-1] & ~(cost[1:] < cost[:-1])
    at_once[1:] |= waited
    return at_once[rows.start - first :]


def leaps_at_once(record: Record, rows: slice) -> NDArray[np.bool_]:
    """Whether each update is a leap whatever comes next: in two layers that are more than a bias, very long, or NaN."""
    longer, ratio = find_long_layers(record, rows), record.update_ratio[rows]
    large = longer & (record.histograms[0].sum(axis=1) >= FEW)
    found: NDArray[np.bool_] = large.sum(axis=1) >= 2
    return found | (large & (ratio > VERY_LONG)).any(axis=1) | find_broken(record, rows)


def find_broken(record: Record, rows: slice) -> NDArray[np.bool_]:
    """Whether each update made a layer NaN or inf."""
    undefined = np.isnan(record.update_ratio[rows]) | ~np.isfinite(record.largest_weight[rows])
    return np.asarray((find_long_layers(record, rows) & undefined).any(axis=1))


def find_long_layers(record: Record, rows: slice) -> NDArray[np.bool_]:
    """(updates, layers): which layers an update is too long for.

    Not those that begin near 0 and stay below 1; nor one of few numbers that leaves 0, as the factor of a shortcut.
    """
    counts, norms, largest = record.histograms[0].sum(axis=1), record.column("weight_norm"), record.largest_weight[rows]
    near = NEAR_ZERO * np.sqrt(np.maximum(counts, 1))
    leaves = (counts < FEW) & (norms[:-1][rows] < near) & np.isfinite(largest)
    return record.longer_than(LONG, rows) & ~((norms[0] < near) & ((largest <= 1) | leaves))


def find_moves(record: Record, rows: slice) -> NDArray[np.bool_]:
    """Whether one of the three updates before each was long enough to have changed the cost."""
    first = max(rows.start - 3, 0)
    long = record.longer_than(MOVED, slice(first, rows.stop)).any(axis=1)
    long |= ~is_measured(record.update_ratio[first : rows.stop]).any(axis=1)  # which is not known to have been short
    padded = np.concatenate([np.zeros(3, dtype=bool), long])
    near: NDArray[np.bool_] = np.asarray(padded[:-3] | padded[1:-2] | padded[2:-1])
    return near[rows.start - first :]


def find_first_cost(record: Record) -> float:
    """The first cost that was measured; inf if none was."""
    costs = record.known_costs[1]
    return float(costs[0]) if len(costs) else math.inf


def find_previous_costs(record: Record, rows: slice) -> NDArray[np.float64]:
    """The last cost that was measured before each of some updates; NaN where none was."""
    steps, costs = record.known_costs
    places = np.searchsorted(steps, record.steps[rows])
    return np.append(np.nan, costs)[places]


def find_saturation(record: Record, rows: slice, reach: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the log of a probability is about to be the log of 0.

    Where each batch holds all patches, no answer is wrong by more than all costs together: right ones are no danger.
    """
    settings = record.settings
    if settings.cost != "softmax_log" or record.own_network:
        return np.zeros(len(reach), dtype=bool)
    end = NO_GAP[settings.precision]
    unsafe = np.array([record.knobs_at(step + 1).epsilon <= math.exp(-end) for step in range(len(record))[rows]], bool)
    if record.updates_per_epoch == 1:
        costs = record.data_cost[rows] * (settings.patches if settings.reduction == "mean" else 1)
        reach = reach + np.log10(np.fmin(costs / record.logit_gap[rows], 1))
    return unsafe & (reach > math.log10(NEAR * end))


def estimate_reach(record: Record, rows: slice) -> NDArray[np.float64]:
    """log10 of how far apart the next update's logits may be, or of how large its outputs are where there are none.

    A step takes what a layer puts out down to 0, and a longer one beyond: s times as long it leaves s - 1 times what
    there was, in a linear regression exactly. The factors of layers multiply, as layers do. Behind a norm, outputs are
    at most the product of the weights' lengths from it on.
    """
    gaps = record.logit_gap[rows]
    scale = np.log10(np.maximum(np.where(np.isfinite(gaps), gaps, np.sqrt(np.abs(record.cost[rows]))), 1e-30))
    factors = np.maximum(measure_steps(record, rows) - 1, 1)
    return np.fmax(scale, np.fmin(scale + np.log10(factors).sum(axis=1), find_bound(record, rows)))


def measure_steps(record: Record, rows: slice) -> NDArray[np.float64]:
    """(updates, layers): how many times as long each layer's step is as one that would take its outputs down to 0.

    To first order a step lowers the cost by at most the lengths of gradient times update. Outputs of 0 are half a logit
    gap away, for the slope is 1/2 where two classes are as likely; with squares, twice the cost. But no update takes
    outputs further than if its numbers all pointed one way where the weights point anywhere: the ratio of their lengths
    times the root of their number.
    """
    ratios, gaps = record.update_ratio[rows], record.logit_gap[rows]
    examples = record.settings.batch_size or record.settings.patches if record.settings.reduction == "sum" else 1
    lowered = record.gradient_norm[rows] * ratios * record.column("weight_norm")[:-1][rows] / examples
    worth = np.where(np.isfinite(gaps), gaps / 2, 2 * np.abs(record.cost[rows]))[:, None]
    steps = np.minimum(lowered / worth, ratios * np.sqrt(record.histograms[0].sum(axis=1)))
    return np.nan_to_num(steps, nan=0, posinf=np.inf)  # NaN: not measured, or a layer that leaves 0


def find_bound(record: Record, rows: slice) -> NDArray[np.float64]:
    """log10 of the furthest that logits can be apart behind the last norm of the question's network; else inf."""
    places = [place for place, name in enumerate(record.layers) if name.endswith("_norm")]
    if not places or record.own_network:
        return np.full(len(record.cost[rows]), np.inf)
    lengths = record.column("weight_norm")[1:][rows][:, places[-1] :]
    return np.asarray(np.log10(lengths).sum(axis=1) + math.log10(2) / 2)


def describe_warning(record: Record, step: int) -> EarlyWarning:
    """The warning of an update."""
    leap, climb, saturated, _ = find_signs(record.until(step), step - 1)[:, 0]
    if leap:
        return EarlyWarning(step, describe_leap(record, step))
    if climb:
        return EarlyWarning(
            step,
            f"the cost rose from {format_digits(find_first_cost(record))} to {format_digits(record.cost[step - 1])}",
        )
    if saturated:
        gap, end = record.logit_gap[step - 1], NO_GAP[record.settings.precision]
        far = gap > NEAR * end
        said = f"the logit gap is {format_digits(gap)}" if far else f"update {step} may take the logits {end:.0f} apart"
        return EarlyWarning(step, f"{said}: log(0) is near")
    return EarlyWarning(step, f"the outputs of the next update may overflow {record.settings.precision}")


def describe_leap(record: Record, step: int) -> str:
    """The longest update of a layer, be it the present one or the one before, which was waited for."""
    if not leaps_at_once(record, slice(step - 1, step))[0]:
        step -= 1
    longer = find_long_layers(record, slice(step - 1, step))[0]
    ratios = np.where(longer, np.nan_to_num(record.update_ratio[step - 1], nan=np.inf, posinf=np.inf), 0)
    name = record.layers[int(np.argmax(ratios))] or "network"
    if not np.isfinite(ratios.max()):
        return f"update {step} of {name} holds NaN or inf"
    return f"update {step} was {format_digits(ratios.max())} times as long as the {name} weights"


def overflow_clock(record: Record) -> dict[str, int | None]:
    """Precision -> the update at which the cost overflows it at the present growth; None if it does not grow.

    The growth per update is the mean over the last updates that agree on it within a tenth; one that itself grows is
    faster than this says. What overflows is the sum over the batch, which a mean forms first.
    """
    clock: dict[str, int | None] = dict.fromkeys(LARGEST)
    finite = np.flatnonzero(np.isfinite(record.cost) & (record.cost > 0))
    if len(finite) < 2 or finite[-1] != finite[-2] + 1:
        return clock
    step = int(finite[-1]) + 1
    steady = record.cost[max(0, step - STEADY) : step]
    rates = np.diff(np.log(np.where(np.isfinite(steady) & (steady > 0), steady, np.nan)))[::-1]
    if not rates[0] > 0:
        return clock
    agree = np.append(np.abs(rates - rates[0]) <= 0.1 * rates[0], False)
    rate = float(rates[: int(np.argmin(agree))].mean())
    count = record.settings.batch_size or record.settings.patches
    have = math.log(steady[-1]) + (math.log(count) if record.settings.reduction == "mean" or record.own_network else 0)
    return {name: step + math.ceil((math.log(end) - have) / rate) for name, end in LARGEST.items()}
