"""What an autopsy measures on a run beside its record: the critical learning rate, the inputs, the weights' sizes.

Knows run and the rooms below it; plain numbers come out. Nothing here changes the run.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cnnlab.run import Run

ROUNDS = 9
"""Rounds of power iteration: the largest eigenvalue to a tenth or so, which is enough to tell 6 from 60 times."""

EXAMPLES = 66
"""Examples that the curvature is measured on, the question's whole batch: more would take long and tell little more."""


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
    gains: tuple[float, ...]
    """Deviation of each layer's first weights at the start over He's sqrt(2 / fan_in); NaN without a weight."""
    weight_size: float
    """Root of the mean square of all parameters at the start."""


def probe(run: Run, step: int) -> Probe:
    """Probe a run as it was after update `step`."""
    x = run.data[0].to(torch.float64)
    bad = ~x.reshape(len(x), -1).isfinite().all(dim=1)
    start = run.state_at(0).parameters.to(torch.float64)
    critical = critical_rate(run.fork(step))
    return Probe(
        step=step,
        critical=critical,
        critical_scaled=otherwise(run, critical, input_scaling="standardised"),
        critical_he=otherwise(run, critical, init="he_normal", init_scale=1.0),
        input_size=float(x[~bad].square().mean().sqrt()) if not bad.all() else math.nan,
        nan_inputs=int(bad.sum()),
        examples=len(x),
        gains=gains(run, start),
        weight_size=float(start.square().mean().sqrt()),
    )


def gains(run: Run, start: Tensor) -> tuple[float, ...]:
    """Each layer's deviation of weights over He's (2015), in the order of the layers."""
    found = dict.fromkeys(run.layout.layers, math.nan)
    for name, view in run.layout.views(start).items():
        if view.dim() >= 2:
            found[name.rpartition(".")[0]] = float(view.square().mean().sqrt()) * math.sqrt(view[0].numel() / 2)
    return tuple(found.values())


def otherwise(run: Run, critical: float | None, **changes: str | float) -> float | None:
    """The critical rate of the same start with some settings changed; None where there is nothing to compare."""
    wanted = run.settings
    if critical is None or run.own_network or all(getattr(wanted, name) == value for name, value in changes.items()):
        return None
    return critical_rate(Run(wanted.replace(**changes, momentum=0.0)))


def critical_rate(run: Run) -> float | None:
    """The critical learning rate at the present weights; None where it cannot be measured."""
    try:
        room = importlib.import_module("cnnlab.curvature")
    except ModuleNotFoundError:
        return by_power_iteration(run)
    value = room.critical_learning_rate(run).value
    return None if value is None or not math.isfinite(value) else float(value)


def by_power_iteration(run: Run) -> float | None:
    """2 / lambda_max over the first EXAMPLES by power iteration, with differences of gradients for the Hessian."""
    if run.dtype not in (torch.float32, torch.float64):
        return None
    here = run.parameters
    slope = slope_of(run)
    direction = torch.randn(here.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(here)
    distance = 1e-3 * float(here.norm()) or 1e-3
    curvature = math.nan
    for _ in range(ROUNDS):
        direction = direction / direction.norm()
        bent = (slope(here + distance * direction) - slope(here - distance * direction)) / (2 * distance)
        curvature, direction = float(direction.dot(bent)), bent
        if not math.isfinite(curvature) or float(bent.norm()) == 0:
            return None
    return 2 / curvature if curvature > 0 else None


def slope_of(run: Run) -> Callable[[Tensor], Tensor]:
    """The gradient of the cost over the first EXAMPLES as a function of the parameters."""
    numbers, kind = run.prepared_knobs(dataclasses.replace(run.knobs_in_force, l1=0.0, l2=0.0))
    x, y = (part[:EXAMPLES] for part in run.data)

    def slope(parameters: Tensor) -> Tensor:
        try:
            with run.one_thread(), run.randomness(run.updates + 1):
                made = run.descent.step(run.state._replace(parameters=parameters), x, y, numbers, kind)
        finally:
            run.gauges.activations.clear()
        return made.gradient

    return slope
