"""What an autopsy measures on a run beside its record: the critical learning rate, the inputs, the weights' sizes.

Nothing here changes the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cnnlab.curvature.hessian import critical_learning_rate
from cnnlab.training.run import Run


@dataclass(frozen=True)
class Probe:
    """Numbers about a run as it was before its trouble."""

    step: int
    """The update after which it was probed."""
    critical: float | None
    """Critical learning rate 2 / lambda_max of full-batch gradient descent; None where it cannot be measured."""
    critical_scaled: float | None
    """The same at the start with standardised inputs; None where that changes nothing or cannot be made."""
    critical_he: float | None
    """The same at the start with He's initialisation; None likewise."""
    input_size: float
    """Root of the mean square of the inputs."""
    nan_inputs: int
    """Examples that hold a NaN or inf."""
    examples: int
    """How many examples there are."""
    gains: tuple[float, ...]
    """Deviation of each layer's first weights at the start over He's sqrt(2 / fan_in); NaN without a weight."""
    weight_size: float
    """Root of the mean square of all parameters at the start."""


def probe_run(run: Run, step: int) -> Probe:
    """Probe a run as it was after update `step`."""
    given = run.problem.data[0]
    parts = [given] if isinstance(given, Tensor) else list(given.values() if isinstance(given, dict) else given)
    x = torch.cat([part.to(torch.float64).reshape(len(part), -1) for part in parts], dim=1)
    bad = ~x.isfinite().all(dim=1)
    start = run.state_at(0).parameters.to(torch.float64)
    critical = measure_critical_rate(run.fork(step))
    return Probe(
        step=step,
        critical=critical,
        critical_scaled=compare_critical_rate(run, critical, input_scaling="standardised"),
        critical_he=compare_critical_rate(run, critical, init="he_normal", init_scale=1.0),
        input_size=float(x[~bad].square().mean().sqrt()) if not bad.all() else math.nan,
        nan_inputs=int(bad.sum()),
        examples=len(x),
        gains=measure_gains(run, start),
        weight_size=float(start.square().mean().sqrt()),
    )


def measure_gains(run: Run, start: Tensor) -> tuple[float, ...]:
    """Each layer's deviation of weights over He's (2015), in the order of the layers."""
    found = dict.fromkeys(run.layout.layers, math.nan)
    for name, view in run.layout.views(start).items():
        if view.dim() >= 2:
            found[name.rpartition(".")[0]] = float(view.square().mean().sqrt()) * math.sqrt(view[0].numel() / 2)
    return tuple(found.values())


def compare_critical_rate(run: Run, critical: float | None, **changes: str | float) -> float | None:
    """The critical rate of the same start with some settings changed; None where there is nothing to compare."""
    changed = run.settings.replace(**changes)
    if critical is None or run.own_network or changed == run.settings:
        return None
    return measure_critical_rate(Run(changed.replace(momentum=0.0)))


def measure_critical_rate(run: Run) -> float | None:
    """The critical learning rate at the present weights; None where it cannot be measured."""
    try:
        eigenvalue = critical_learning_rate(run, tolerance=0.05, most=30).eigenvalue
    except (ValueError, RuntimeError):
        return None
    return 2 / eigenvalue if eigenvalue > 0 else None
