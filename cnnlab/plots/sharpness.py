"""The plot of the cost's curvature beside what the learning rate allows: the edge of stability (Cohen et al. 2021)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.schedules import critical_rate
from cnnlab.plots.points import choose_stretch, split_stretches
from cnnlab.records.record import Record

POINTS = 400
"""Most measured values that are drawn: of more, the largest of each stretch."""
BELOW = 1e-12
"""The lower edge of the band of what the learning rate allows, over its upper one."""
TOP = 0.95
"""Height of the crosses of a Hessian that is not finite."""


def find_eigenvalues(record: Record) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Updates and the largest eigenvalue after each, where it was measured, is finite and above 0."""
    values = record.column("sharpness")
    with np.errstate(invalid="ignore"):
        steps = np.flatnonzero(np.isfinite(values) & (values > 0))
    if len(steps) > POINTS:
        edges = split_stretches(len(steps), POINTS)
        return steps[edges].astype(np.float32), np.maximum.reduceat(values[steps], edges).astype(np.float32)
    return steps.astype(np.float32), values[steps].astype(np.float32)


def find_nonfinite(record: Record) -> NDArray[np.float32]:
    """The updates after which the Hessian was found not to be finite, a few hundred at most."""
    steps = np.flatnonzero(np.isinf(record.column("sharpness")))
    return steps[split_stretches(len(steps), POINTS)].astype(np.float32)


def find_thresholds(record: Record, last: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The corners of 2 (1 + momentum) / learning rate over the updates, up to update `last`."""
    firsts = [first - 1 for first, _ in record.schedule]
    ends = [*firsts[1:], max(last, firsts[-1])]
    # A critical rate and the eigenvalue that it belongs to are each the other's image: 2 (1 + momentum) over it.
    heights = [critical_rate(knobs.learning_rate, knobs) for _, knobs in record.schedule]
    every = choose_stretch(len(firsts), POINTS)
    x = np.stack([firsts, ends], axis=1)[::every].ravel()
    return x.astype(np.float32), np.repeat(heights[::every], 2).astype(np.float32)


def draw_stability(traces: dict[str, Any], record: Record, last: int, curvature: bool) -> None:
    """What the learning rate allows; with `curvature` the eigenvalue, too, and crosses where it is not finite."""
    none = np.empty(0, dtype=np.float32)
    x, y = find_thresholds(record, last)
    traces["threshold"].update(x=x, y=y)
    x, y = find_eigenvalues(record) if curvature else (none, none)
    traces["sharpness"].update(x=x, y=y)
    x = find_nonfinite(record) if curvature else none
    traces["sharpness marks"].update(x=x, y=np.full(len(x), TOP, dtype=np.float32))


def draw_healthy_curvature(traces: dict[str, Any], record: Record, last: int) -> None:
    """The band below what the learning rate allows, down to beyond any axis."""
    x, y = find_thresholds(record, last)
    traces["healthy curvature"].update(x=np.append(x, x[::-1]), y=np.append(y, y[::-1] * np.float32(BELOW)))


def find_heights(record: Record, curvature: bool) -> NDArray[np.float64]:
    """All that the axis has to hold."""
    eigenvalues = [find_eigenvalues(record)[1]] if curvature else []
    return np.concatenate([*eigenvalues, find_thresholds(record, 1)[1]]).astype(np.float64)
