"""The band under the learning rate's slider, as plain numbers and words. Settings, records and rates only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cnnlab.config.schedules import critical_rate
from cnnlab.config.settings import ADAPTIVE, Knobs, Settings
from cnnlab.config.stability import describe_bound
from cnnlab.records.formats import format_number
from cnnlab.records.record import Record

AMBER = 10.0
"""Up to so many times the critical rate it is a gamble: tests/benchmarks/results/prediction.md has the shares."""
HIGHEST = 1e6
"""The end of a band that has no red, beyond the slider's."""
SCORED = ("sgd",)
"""Optimisers of which it was measured how runs end above the critical rate; of others red would say too much."""
GAMBLE = "Amber: up to ten times above it, a gamble. Red: beyond."
UNDECIDED = "Amber: above it; how such runs end is undecided."
GROWS = "Amber: above it steps overshoot, and the averages grow until it is met again; how runs end is undecided."


def describe_band(record: Record, settings: Settings, no_curvature: str) -> dict[str, Any]:
    """What the band shows after a record's last update with the knobs of `settings`.

    `edges`: where amber and red begin, as learning rates, or None where there is no band; `said`: a line of words;
    `title`: more of them.
    """
    if no_curvature:
        return {"edges": None, "said": "no critical rate", "title": no_curvature}
    meaning = describe_colours(settings.knobs)
    step, eigenvalue = find_last_measured(record, settings.optimizer)
    if step is None:
        return {"edges": None, "said": "critical rate: not measured yet", "title": meaning}
    if math.isinf(eigenvalue):
        return {"edges": None, "said": "the Hessian is not finite", "title": f"After update {step}: no rate is safe."}
    critical = critical_rate(eigenvalue, settings.knobs)
    batch = settings.batch_size
    over = f", of a batch of {batch}" if batch is not None and batch < settings.patches else ""
    title = f"λ = {eigenvalue:.4g}{over}, after update {step}. {meaning}"
    if math.isinf(critical):
        return {"edges": None, "said": "no critical rate: λ is not above 0", "title": title}
    times = settings.learning_rate / critical
    here = f"yours {float(f'{times:.2g}'):g}" if times < 1000 else f"yours {format_number(times)}"
    return {
        "edges": [critical, AMBER * critical if settings.optimizer in SCORED else HIGHEST],
        "said": f"critical {format_number(critical)}, {here}\u00a0×",
        "title": title,
    }


def describe_colours(knobs: Knobs) -> str:
    """What the colours mean with an optimiser."""
    rule = "2(1 + momentum)/λ" if knobs.optimizer == "sgd" else describe_bound(knobs.optimizer, knobs.momentum, λ="λ")
    plain = knobs.optimizer not in ADAPTIVE
    matrix = "the cost's Hessian" if plain else "the cost's Hessian as the averages of this optimiser divide it"
    above = GAMBLE if knobs.optimizer in SCORED else UNDECIDED if plain else GROWS
    return f"Green: below the critical learning rate {rule}, λ being the largest eigenvalue of {matrix}. {above}"


def find_last_measured(record: Record, optimizer: str) -> tuple[int | None, float]:
    """The last update after which what an optimiser's step meets was measured, and that; None and NaN if it never was.

    What was measured before another optimiser was chosen is of another matrix.
    """
    values = record.column("sharpness")
    measured = np.flatnonzero(~np.isnan(values))
    measured = measured[measured >= find_optimizer_start(record, optimizer)]
    return (int(measured[-1]), float(values[measured[-1]])) if len(measured) else (None, math.nan)


def find_optimizer_start(record: Record, optimizer: str) -> int:
    """The update from whose weights on an optimiser has been in force without a break; the present one if it is new."""
    first = len(record)
    for start, knobs in reversed(record.schedule):
        if knobs.optimizer != optimizer:
            break
        first = min(first, start - 1)
    return first
