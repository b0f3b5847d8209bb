"""What each optimiser makes of a gradient: the direction of an update, and the averages that it goes on with.

No more than arithmetic on flat vectors, so that it can be done for many members at once and recorded as a CUDA graph.
The operations are those of `torch.optim`, in its order; where it takes Python numbers, numbers of half precision are
widened for one operation and rounded after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnnlab.config.settings import Knobs
from cnnlab.training.clipping import accumulator

OWNERS = {"sgd": "sgd", "nesterov": "nesterov", "rmsprop": "rmsprop", "adam": "adam", "adamw": "adam"}
"""Knobs.optimizer -> the optimiser whose averages it goes on with: AdamW differs from Adam in the decay alone."""
NEEDED = {"sgd": (), "nesterov": (), "rmsprop": ("squares",), "adam": ("velocity", "squares", "updates")}
"""Optimiser -> the averages that it has after any update; with momentum they all have a velocity."""


class Averages(NamedTuple):
    """What an optimiser carries on from update to update; None for what it does not keep, or has not begun."""

    velocity: Tensor | None = None
    """What momentum carries on: of gradients, in RMSprop of steps; in Adam the running mean of gradients."""
    squares: Tensor | None = None
    """The running mean of squared gradients."""
    updates: Tensor | None = None
    """How many updates the running means are of, in one number."""


NO_AVERAGES = Averages()


def has_velocity(knobs: Knobs) -> bool:
    """Whether an optimiser carries on a velocity with these knobs."""
    return knobs.momentum > 0 or "velocity" in NEEDED[OWNERS[knobs.optimizer]]


def make_empty_averages(owner: str, momentum: bool, like: Tensor) -> Averages:
    """The averages before the first update, as numbers: for members whose updates are computed together.

    `like` holds a row a member.
    """
    squares, updates = (name in NEEDED[owner] for name in ("squares", "updates"))
    return Averages(
        torch.zeros_like(like) if momentum else None,
        torch.zeros_like(like) if squares else None,
        torch.zeros(len(like), device=like.device) if updates else None,
    )


def descend(gradient: Tensor, kept: Averages, knobs: Any, momentum: bool) -> tuple[Tensor, Averages]:
    """Gradient descent, with momentum a heavy ball (Polyak 1964)."""
    if not momentum:
        return gradient, NO_AVERAGES
    velocity = gather(gradient, kept, knobs)
    return velocity, Averages(velocity)


def look_ahead(gradient: Tensor, kept: Averages, knobs: Any, momentum: bool) -> tuple[Tensor, Averages]:
    """Nesterov's momentum as `torch.optim.SGD` has it: the gradient, and a part of the new velocity."""
    if not momentum:
        return gradient, NO_AVERAGES
    velocity = gather(gradient, kept, knobs)
    return gradient + knobs.momentum * velocity, Averages(velocity)


def divide_by_roots(gradient: Tensor, kept: Averages, knobs: Any, momentum: bool) -> tuple[Tensor, Averages]:
    """RMSprop (Tieleman and Hinton 2012): each gradient over the root of the mean of its squares."""
    squares = average_squares(gradient, kept, knobs)
    root = squares.sqrt()
    direction = divide(gradient, add(root, knobs.adam_epsilon))
    if not momentum:
        return direction, Averages(None, squares)
    velocity = gather(direction, kept, knobs)
    return velocity, Averages(velocity, squares)


def adapt_moments(gradient: Tensor, kept: Averages, knobs: Any, momentum: bool) -> tuple[Tensor, Averages]:
    """Adam (Kingma and Ba 2015): the running mean of gradients over the root of that of squares, both unbiased."""
    updates = gradient.new_ones((), dtype=torch.float32) if kept.updates is None else kept.updates + 1
    beta1 = knobs.momentum.to(knobs.beta2.dtype)
    velocity = torch.zeros_like(gradient) if kept.velocity is None else kept.velocity
    velocity = interpolate(velocity, gradient, 1 - beta1)
    squares = average_squares(gradient, kept, knobs)
    root = divide(squares.sqrt(), (1 - knobs.beta2**updates).sqrt())
    direction = divide(divide(velocity, add(root, knobs.adam_epsilon)), 1 - beta1**updates)
    return direction, Averages(velocity, squares, updates)


Optimizer = Callable[[Tensor, Averages, Any, bool], tuple[Tensor, Averages]]
"""Gradient, averages, knobs as tensors, whether there is a velocity -> direction, averages after the update."""
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": descend,
    "nesterov": look_ahead,
    "rmsprop": divide_by_roots,
    "adam": adapt_moments,
}


def gather(direction: Tensor, kept: Averages, knobs: Any) -> Tensor:
    """The velocity after an update: what momentum keeps of it, and the direction; at first the direction alone."""
    return direction if kept.velocity is None else (knobs.momentum * kept.velocity).add_(direction)


def average_squares(gradient: Tensor, kept: Averages, knobs: Any) -> Tensor:
    """The running mean of squared gradients after an update."""
    wide, beta2 = accumulator(gradient), knobs.beta2
    given = gradient.to(wide)
    added = (1 - beta2) * given * given
    if kept.squares is None:
        return added.to(gradient.dtype)
    rest = (beta2 * kept.squares.to(wide)).to(gradient.dtype)
    return (rest.to(wide) + added).to(gradient.dtype)


def interpolate(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """A share of the way from one vector to another."""
    wide = accumulator(start)
    first = start.to(wide)
    return (first + weight * (end.to(wide) - first)).to(start.dtype)


def add(vector: Tensor, number: Tensor) -> Tensor:
    """A vector and a number of a wider type, rounded once."""
    return (vector.to(accumulator(vector)) + number).to(vector.dtype)


def divide(vector: Tensor, divisor: Tensor) -> Tensor:
    """A vector over another or over a number of a wider type, rounded once."""
    wide = accumulator(vector)
    return (vector.to(wide) / divisor.to(wide)).to(vector.dtype)
