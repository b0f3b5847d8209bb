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
        leap = record.longer_than(LONG, rows).any(axis=1)
        floor = max(abs(find_first_cost(record)), 1e-3)  # inf without a cost, above which nothing climbs
        climb = (cost > CLIMB * floor) & (cost > before)
        saturated = find_saturation(record, rows)
        scale = np.where(np.isfinite(record.logit_gap[rows]), record.logit_gap[rows], np.sqrt(np.abs(cost)))
        end = math.log10(LARGEST[record.settings.precision] / MARGIN)
        beyond = np.log10(np.maximum(scale, 1e-30)) + measure_growth(record, rows) > end
    return np.array([leap, climb, saturated, beyond])


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
        longer = record.longer_than(LONG, slice(step - 1, step))[0]
        ratios = np.where(longer, np.nan_to_num(record.update_ratio[step - 1], nan=np.inf, posinf=np.inf), 0)
        name = record.layers[int(np.argmax(ratios))] or "network"
        if not np.isfinite(ratios.max()):
            return EarlyWarning(step, f"update {step} of {name} holds NaN or inf")
        return EarlyWarning(
            step, f"update {step} was {format_digits(ratios.max())} times as long as the {name} weights"
        )
    if climb:
        return EarlyWarning(
            step,
            f"the cost rose from {format_digits(find_first_cost(record))} to {format_digits(record.cost[step - 1])}",
        )
    if saturated:
        return EarlyWarning(step, f"the logit gap is {format_digits(record.logit_gap[step - 1])}: log(0) is near")
    return EarlyWarning(step, f"the outputs of the next update may overflow {record.settings.precision}")


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
