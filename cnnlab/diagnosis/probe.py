"""What an autopsy measures on a run beside its record: the critical learning rate, the inputs, the weights' sizes.

Nothing here changes the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnlab.config.settings import ADAPTIVE
from cnnlab.curvature.hessian import CostOfWeights
from cnnlab.curvature.learning_rate import critical_learning_rate
from cnnlab.diagnosis.examination import examine_cost, measure_figures, measure_gains
from cnnlab.records.clues import BatchClues
from cnnlab.training.datasets import Examples, length, mapped
from cnnlab.training.run import Run
from cnnlab.training.signals import measure_signals

MOST_BATCHES = 33
"""Most batches over which a cost is taken."""


@dataclass(frozen=True)
class Probe:
    """Numbers about a run as it was before its trouble."""

    step: int
    """The update after which it was probed."""
    critical: float | None
    """Critical learning rate 2 / lambda_max of full-batch gradient descent; None where it cannot be measured.

    None, too, with optimisers that divide gradients by averages: above their bound these grow, and a run need not
    diverge.
    """
    critical_scaled: float | None
    """The same at the start with standardised inputs; None where that changes nothing or cannot be made."""
    critical_targets: float | None
    """The same at the start with targets divided by their root mean square; None where they are of usual size."""
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
    saturated: tuple[str, float] | None = None
    """The layer whose activation is next to flat for most of its outputs, and for what share; None without such."""
    batch: BatchClues | None = None
    """What the examples and the graph of the cost tell."""
    underflow: float = 0.0
    """Share of the next gradient's length that lies in numbers which are 0 in float16, not in float32; 0 elsewhere."""


def probe_run(run: Run, step: int) -> Probe:
    """Probe a run as it was after update `step`."""
    x = join_parts(run.problem.data[0])
    bad = ~x.isfinite().all(dim=1)
    start = run.state_at(0).parameters.to(torch.float64)
    probed = run.fork(step)
    critical = measure_critical_rate(probed)
    return Probe(
        step=step,
        critical=critical,
        critical_scaled=compare_critical_rate(run, critical, input_scaling="standardised"),
        critical_targets=compare_scaled_targets(run, critical),
        critical_he=compare_critical_rate(run, critical, init="he_normal", init_scale=1.0),
        input_size=float(x[~bad].square().mean().sqrt()) if not bad.all() else math.nan,
        nan_inputs=int(bad.sum()),
        examples=len(x),
        gains=measure_gains(run.layout, start),
        weight_size=float(start.square().mean().sqrt()),
        saturated=find_saturated(probed),
        batch=examine_run(run),
        underflow=measure_underflow(probed),
    )


def measure_underflow(run: Run) -> float:
    """Share of the next gradient's length in float32 that lies in numbers which are 0 in float16, at the same weights.

    1 where all of it is lost; what is lost in half of the numbers may be next to nothing of it, or all but nothing.
    """
    if run.problem.dtype != torch.float16:
        return 0.0
    step = run.updates + 1
    batch = run.problem.batch(step)
    try:
        cost = CostOfWeights.from_run(run, *batch)
        leaf = cost.copy_weights(run.parameters)
        with cost.determinism(), torch.enable_grad():
            (gradient,) = torch.autograd.grad(cost.compute(leaf), [leaf])
        with run.determinism(step):
            half = run.descent.step(run.state, *batch, *run.prepare_knobs(run.knobs_in_force)).gradient
    except Exception:  # the user's own network or cost may raise anything
        return 0.0
    gradient = gradient.double()
    whole = float(gradient.norm())
    return float(gradient[half == 0].norm()) / whole if 0 < whole < math.inf else 0.0


def find_saturated(run: Run) -> tuple[str, float] | None:
    """The layer with the largest share of outputs at which its activation is next to flat; None without any."""
    try:
        signals = measure_signals(run)
    except Exception:  # the user's own network or cost may raise anything
        return None
    shares = np.nan_to_num(signals.activation_saturated)
    return (signals.layers[int(shares.argmax())], float(shares.max())) if shares.any() else None


def join_parts(given: Any) -> Tensor:
    """All inputs of the examples side by side, (examples, numbers) in float64."""
    parts = [given] if isinstance(given, Tensor) else list(given.values() if isinstance(given, dict) else given)
    return torch.cat([part.to(torch.float64).reshape(len(part), -1) for part in parts], dim=1)


def holds_floats(given: Any) -> bool:
    """Whether the inputs are numbers, and no numbers of words."""
    parts = [given] if isinstance(given, Tensor) else list(given.values() if isinstance(given, dict) else given)
    return all(part.is_floating_point() for part in parts)


def examine_run(run: Run) -> BatchClues:
    """What all examples tell, and the graph of the first update's cost."""
    x, y = run.problem.data
    graph = BatchClues()
    with contextlib.suppress(Exception):  # the user's own network or cost may raise anything
        graph = examine_first_cost(run)
    return dataclasses.replace(
        graph,
        inputs=measure_figures(join_parts(x)) if holds_floats(x) else None,
        targets=measure_figures(y) or graph.targets,
        constant=measure_constant_cost(run),
    )


def examine_first_cost(run: Run) -> BatchClues:
    """What the graph of the first update's cost tells."""
    state, (x, y) = run.state_at(0), run.problem.batch(1)
    with run.determinism(1), torch.enable_grad():
        leaf = state.parameters.detach().requires_grad_()
        buffers = {name: buffer.clone() for name, buffer in state.buffers.items()}
        outputs = run.descent.call({**run.layout.views(leaf), **buffers}, x)
        cost = run.descent.cost(outputs, y, torch.zeros(()))
        return examine_cost([cost], None, outputs)


def measure_constant_cost(run: Run) -> float:
    """The least cost of an output that is the same for all examples, over some batches; NaN where it is not found.

    NaN too where all targets are the same, for then it is the right answer.
    """
    y = run.problem.data[1]
    if isinstance(y, Tensor) and len(y) and bool((y == y[0]).all()):
        return math.nan
    try:
        steps = range(1, min(run.updates_per_epoch, MOST_BATCHES) + 1)
        pairs = [run.problem.batch(step) for step in steps]
        with run.determinism(1):
            outputs = run.descent.outputs(run.state_at(0), pairs[0][0])
            if not isinstance(outputs, Tensor) or outputs.dim() < 2:
                return math.nan
            answer = outputs.double().mean(0).nan_to_num(0, 0, 0).requires_grad_()
            return descend_constant(run, answer, pairs)
    except Exception:  # the user's own network or cost may raise anything
        return math.nan


class LightLBFGS(torch.optim.LBFGS):
    """L-BFGS that does not have torch import its compiler, 900 modules and 130 MiB, to keep it out of its parts."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)


def descend_constant(run: Run, answer: Tensor, pairs: list[Any]) -> float:
    """The least mean cost over batches of an answer that all examples share, by L-BFGS."""
    optimizer = LightLBFGS([answer], max_iter=40, line_search_fn="strong_wolfe")
    zero = torch.zeros((), dtype=torch.float64, device=answer.device)
    targets = [y.double() if isinstance(y, Tensor) and y.is_floating_point() else y for _, y in pairs]

    def close() -> Tensor:
        costs = [run.descent.cost(answer.expand(length(y), *answer.shape), y, zero) for y in targets]
        cost = torch.stack(costs).mean()
        (answer.grad,) = torch.autograd.grad(cost, [answer])
        return cost.detach()

    with torch.enable_grad():
        optimizer.step(close)
        return float(close())


def compare_critical_rate(run: Run, critical: float | None, **changes: str | float) -> float | None:
    """The critical rate of the same start with some settings changed; None where there is nothing to compare."""
    if run.own_network:
        scales = changes == {"input_scaling": "standardised"}
        return compare_scaled_data(run, critical, standardise, lambda y: y) if scales else None
    changed = run.settings.replace(**changes)
    if critical is None or changed == run.settings:
        return None
    return measure_critical_rate(Run(changed.replace(optimizer="sgd", momentum=0.0)))


def compare_scaled_targets(run: Run, critical: float | None) -> float | None:
    """The critical rate of a network of the user's own with smaller targets; None where theirs are of usual size."""
    y = run.problem.data[1]
    if not run.own_network or not isinstance(y, Tensor) or not y.is_floating_point():
        return None
    size = y[y.isfinite()].double().square().mean().sqrt().item()
    return compare_scaled_data(run, critical, lambda x: x, lambda y: y / size) if size > 10 else None


def compare_scaled_data(run: Run, critical: float | None, scale_x: Any, scale_y: Any) -> float | None:
    """The critical rate at the start with other examples; None where that cannot be tried."""
    x, y = run.problem.data
    if critical is None or not holds_floats(x):
        return None
    try:
        examples = Examples(mapped(scale_x, x), scale_y(y))
        return measure_critical_rate(Run(dataclasses.replace(run.problem, examples=examples)))
    except Exception:  # the user's own network or cost may raise anything
        return None


def standardise(x: Tensor) -> Tensor:
    """Inputs with a mean of 0 and a deviation of 1."""
    finite = x[x.isfinite()].double()
    return ((x - finite.mean()) / finite.std().clamp(min=1e-30)).to(x.dtype)


def measure_critical_rate(run: Run) -> float | None:
    """The critical learning rate of gradient descent at the present weights; None where it cannot be measured."""
    if run.knobs_in_force.optimizer in ADAPTIVE:
        return None
    try:
        eigenvalue = critical_learning_rate(run, tolerance=0.05, most=30).eigenvalue
    except Exception:  # the user's own network or cost may raise anything
        return None
    return 2 / eigenvalue if eigenvalue > 0 else None
