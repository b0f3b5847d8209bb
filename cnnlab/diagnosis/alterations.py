"""Remedies for a network of the user's own that no setting holds: other examples, another start, a mean for a sum.

Each makes a problem out of a problem, so that it can be tried; its code says how to do the same in one's own program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnlab.diagnosis.examination import measure_figures
from cnnlab.diagnosis.probe import examine_first_cost, join_parts, standardise
from cnnlab.training.datasets import mapped
from cnnlab.training.problem import Problem
from cnnlab.training.run import Run

Alteration = Callable[[Problem], Problem]


@dataclass(frozen=True)
class OwnRemedy:
    """A row of the table of what may be altered."""

    name: str
    alter: Alteration
    """ValueError where it does not fit."""
    code: str
    """What to write in one's own program."""

    def fits(self, problem: Problem) -> bool:
        """Whether a problem can be altered so."""
        try:
            self.alter(problem)
        except Exception:  # the user's own network or cost may raise anything
            return False
        return True


def keep_examples(problem: Problem, kept: Tensor) -> Problem:
    """The problem with these examples alone; ValueError if none or all are left."""
    if not bool(kept.any()) or bool(kept.all()):
        raise ValueError("no example to leave out, or none that stays")
    x, y = problem.data
    examples = dataclasses.replace(problem.examples, x=mapped(lambda part: part[kept], x), y=pick(y, kept))
    return dataclasses.replace(problem, examples=examples)


def pick(y: Any, kept: Tensor) -> Any:
    """The targets of some examples."""
    return mapped(lambda part: part[kept], y)


def drop_bad_examples(problem: Problem) -> Problem:
    """Without the examples of which an input or a target is NaN or inf."""
    x, y = problem.data
    kept = join_parts(x).isfinite().all(dim=1)
    if isinstance(y, Tensor):
        kept &= y.reshape(len(y), -1).isfinite().all(dim=1)
    return keep_examples(problem, kept)


def drop_outlier(problem: Problem) -> Problem:
    """Without the one example whose numbers are farthest from the others'."""
    found = [figures for part in problem.data if (figures := measure_figures(part)) is not None]
    worst = max(found, key=lambda figures: abs(figures.largest) / max(figures.median, 1e-30))
    kept = torch.ones(worst.examples, dtype=torch.bool)
    kept[worst.largest_at] = False
    return keep_examples(problem, kept)


def scale_inputs(problem: Problem) -> Problem:
    """Inputs with a mean of 0 and a deviation of 1."""
    examples = dataclasses.replace(problem.examples, x=mapped(standardise, problem.data[0]))
    return dataclasses.replace(problem, examples=examples)


def scale_targets(problem: Problem) -> Problem:
    """Targets with a mean of 0 and a deviation of 1."""
    examples = dataclasses.replace(problem.examples, y=standardise(problem.data[1]))
    return dataclasses.replace(problem, examples=examples)


def clamp_targets(problem: Problem) -> Problem:
    """Targets of a binary cross-entropy brought to [0, 1], by a division where they are masks of 0 and 255."""
    y = problem.data[1]
    if not examine_first_cost(Run(problem)).binary:
        raise ValueError("the cost is no binary cross-entropy")
    scaled = y / 255 if y.max() > 2 and y.min() >= 0 else y.clamp(0, 1)
    return dataclasses.replace(problem, examples=dataclasses.replace(problem.examples, y=scaled))


def shrink_weights(problem: Problem) -> Problem:
    """A start with a tenth of the weights; biases stay."""
    assert problem.given is not None
    weights = problem.layout.is_weight(problem.device)
    flat = torch.where(weights, problem.given.parameters / 10, problem.given.parameters)
    return dataclasses.replace(problem, given=problem.given._replace(parameters=flat))


def widen_type(problem: Problem) -> Problem:
    """Weights and examples in float32; ValueError where they have it."""
    if problem.settings.precision in ("float32", "float64"):
        raise ValueError(f"precision is {problem.settings.precision} already")
    cost = problem.descent.cost
    settings = problem.settings.replace(precision="float32")
    return Problem.build(settings, problem.network, problem.data, lambda out, y: cost(out, y, torch.zeros(())))


def take_mean(problem: Problem) -> Problem:
    """The cost divided by the number of what it sums."""
    summed = examine_first_cost(Run(problem)).summed
    if summed < 2:
        raise ValueError("the cost is no sum")
    cost = problem.descent.cost
    descent = dataclasses.replace(problem.descent, cost=lambda out, y, epsilon: cost(out, y, epsilon) / summed)
    return dataclasses.replace(problem, descent=descent)


DROP = OwnRemedy(
    "without the bad rows", drop_bad_examples, "ok = x.isfinite().all(1) & y.isfinite(); x, y = x[ok], y[ok]"
)
OUTLIER = OwnRemedy("without the outlier", drop_outlier, "leave that example out, or clamp it: x.clamp(low, high)")
INPUTS = OwnRemedy("standardised inputs", scale_inputs, "x = (x - x.mean(0)) / x.std(0)")
TARGETS = OwnRemedy("standardised targets", scale_targets, "y = (y - y.mean()) / y.std()")
CLAMPED = OwnRemedy("targets within [0, 1]", clamp_targets, "y.clamp(0, 1), or y / 255 for a mask of 0 and 255")
SMALLER = OwnRemedy("a tenth of the initial weights", shrink_weights, "with torch.no_grad(): weight.mul_(0.1)")
FLOAT32 = OwnRemedy("float32", widen_type, "model.float(), or autocast with a GradScaler")
MEAN = OwnRemedy("the mean in place of the sum", take_mean, 'reduction="mean", or divide by the number of examples')
ALTERATIONS: dict[str, tuple[OwnRemedy, ...]] = {
    "data hold NaN": (DROP,),
    "outlier": (OUTLIER,),
    "inputs not scaled": (INPUTS,),
    "targets not scaled": (TARGETS,),
    "initial weights too large": (SMALLER,),
    "forward pass explodes": (SMALLER, INPUTS),
    "exp beyond the type": (SMALLER, INPUTS),
    "overflow of the precision": (FLOAT32,),
    "cost summed": (MEAN,),
    "cost without a minimum": (CLAMPED,),
}
"""Cause -> what fits it beside settings."""
