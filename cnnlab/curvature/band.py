"""The band under the learning rate's slider, as plain numbers and words. Settings, records and rates only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cnnlab.config.schedules import critical_rate
from cnnlab.config.settings import Settings
from cnnlab.records.formats import format_number
from cnnlab.records.record import Record

AMBER = 10.0
"""Up to so many times the critical rate it is a gamble: tests/benchmarks/results/prediction.md has the shares."""
MEANING = (
    "Green: below the critical learning rate 2(1 + momentum)/λ, λ being the largest eigenvalue of the cost's Hessian. "
    "Amber: up to ten times above it, a gamble. Red: beyond."
)


def describe_band(record: Record, settings: Settings, no_curvature: str) -> dict[str, Any]:
    """What the band shows after a record's last update with the knobs of `settings`.

    `edges`: where amber and red begin, as learning rates, or None where there is no band; `said`: a line of words;
    `title`: more of them.
    """
    if no_curvature:
        return {"edges": None, "said": "no critical rate", "title": no_curvature}
    step, eigenvalue = find_last_measured(record)
    if step is None:
        return {"edges": None, "said": "critical rate: not measured yet", "title": MEANING}
    if math.isinf(eigenvalue):
        return {"edges": None, "said": "the Hessian is not finite", "title": f"After update {step}: no rate is safe."}
    critical = critical_rate(eigenvalue, settings.knobs)
    batch = settings.batch_size
    over = f", of a batch of {batch}" if batch is not None and batch < settings.patches else ""
    title = f"λ = {eigenvalue:.4g}{over}, after update {step}. {MEANING}"
    if math.isinf(critical):
        return {"edges": None, "said": "no critical rate: λ is not above 0", "title": title}
    times = settings.learning_rate / critical
    here = f"yours {float(f'{times:.2g}'):g} ×" if times < 1000 else f"yours {format_number(times)} ×"
    return {
        "edges": [critical, AMBER * critical],
        "said": f"critical {format_number(critical)}, {here}",
        "title": title,
    }


def find_last_measured(record: Record) -> tuple[int | None, float]:
    """The last update after which the largest eigenvalue was measured, and that; None and NaN if it never was."""
    values = record.column("sharpness")
    measured = np.flatnonzero(~np.isnan(values))
    return (int(measured[-1]), float(values[measured[-1]])) if len(measured) else (None, math.nan)
