"""A warning before the cost breaks, from the gauges of the present update; and when each type runs out of numbers.

Thresholds were tuned on the runs of even seeds of a grid, and scored on the others: tests/benchmarks/warning.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnlab.records.formats import format_digits
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
"""A cost so many times as high as the first one, and still rising, has left the range from which runs come back."""
GAP = 60.0
"""A logit gap near which float32's exp(-gap) is about to underflow: fatal where the log is taken of a probability."""
MARGIN = 10.0
"""How near to the end of the type the next update's outputs may come: the layers' growths multiply."""
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
        leap = find_leaps(record, rows)
        floor = max(abs(find_first_cost(record)), 1e-3)  # inf without a cost, above which nothing climbs
        climb = (cost > CLIMB * floor) & (cost > before) & find_moves(record, rows)
        saturated = find_saturation(record, rows)
        scale = np.where(np.isfinite(record.logit_gap[rows]), record.logit_gap[rows], np.sqrt(np.abs(cost)))
        end = math.log10(LARGEST[record.settings.precision] / MARGIN)
        beyond = np.log10(np.maximum(scale, 1e-30)) + measure_growth(record, rows) > end
    return np.array([leap, climb, saturated, beyond])


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
    broken = longer & (np.isnan(ratio) | ~np.isfinite(record.largest_weight[rows]))
    found: NDArray[np.bool_] = large.sum(axis=1) >= 2
    return found | (large & (ratio > VERY_LONG)).any(axis=1) | broken.any(axis=1)


def find_long_layers(record: Record, rows: slice) -> NDArray[np.bool_]:
    """(updates, layers): which layers an update is too long for; not those that begin near 0 and stay below 1."""
    small = record.column("weight_norm")[0] < NEAR_ZERO * np.sqrt(np.maximum(record.histograms[0].sum(axis=1), 1))
    return record.longer_than(LONG, rows) & ~(small & (record.largest_weight[rows] <= 1))


def find_moves(record: Record, rows: slice) -> NDArray[np.bool_]:
    """Whether one of the three updates before each was long enough to have changed the cost."""
    first = max(rows.start - 3, 0)
    long = record.longer_than(MOVED, slice(first, rows.stop)).any(axis=1)
    long |= ~record.is_measured("update_ratio")[first : rows.stop].any(axis=1)  # which is not known to have been short
    padded = np.concatenate([np.zeros(3, dtype=bool), long])
    near: NDArray[np.bool_] = np.asarray(padded[:-3] | padded[1:-2] | padded[2:-1])
    return near[rows.start - first :]


def find_first_cost(record: Record) -> float:
    """The first cost that was measured; inf if none was."""
    return next(iter(record.known_costs[1].tolist()), math.inf)


def find_previous_costs(record: Record, rows: slice) -> NDArray[np.float64]:
    """The last cost that was measured before each of some updates; NaN where none was."""
    steps, costs = record.known_costs
    places = np.searchsorted(steps, record.steps[rows])
    return np.append(np.nan, costs)[places]


def find_saturation(record: Record, rows: slice) -> NDArray[np.bool_]:
    """Whether the log of a probability is about to be the log of 0."""
    if record.settings.cost != "softmax_log" or record.own_network or record.settings.precision == "float64":
        return np.zeros(len(record.cost[rows]), dtype=bool)
    unsafe = np.array([record.knobs_at(step + 1).epsilon == 0 for step in range(len(record))[rows]], dtype=bool)
    return unsafe & (record.logit_gap[rows] > GAP)


def measure_growth(record: Record, rows: slice) -> NDArray[np.float64]:
    """log10 of what all layers' weights have grown in each update, multiplied over the layers; not below 0.

    A layer that leaves a start at 0 counts for nothing.
    """
    norms = record.column("weight_norm")
    met = norms[:-1][rows]
    ratio = np.where(met == 0, 1, norms[1:][rows] / met)
    return np.maximum(np.nansum(np.log10(np.maximum(ratio, 1e-9)), axis=1), 0)


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
        return EarlyWarning(step, f"the logit gap is {format_digits(record.logit_gap[step - 1])}: log(0) is near")
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
