"""What a step descends: the cost of the outputs, and the L1 and L2 penalties of the weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cnnlab.config.settings import Settings

Cost = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Outputs, targets, epsilon -> a scalar."""


def make_question_cost(settings: Settings) -> Cost:
    """The cross-entropy that the settings name: logits (patches, classes), labels (patches,), epsilon -> a scalar.

    An epsilon above 0 is added to the probability inside the log of `softmax_log`; `log_softmax` has no use for it.
    """
    log_likelihood = {"log_softmax": log_softmax, "softmax_log": softmax_log}[settings.cost]
    mean = settings.reduction == "mean"

    def cost(logits: Tensor, labels: Tensor, epsilon: Tensor) -> Tensor:
        each = log_likelihood(logits, labels, epsilon)
        return -(each.mean() if mean else each.sum())

    return cost


def log_softmax(logits: Tensor, labels: Tensor, epsilon: Tensor) -> Tensor:
    """log p of each patch's own label, exact at any gap between logits: x - max - log(sum(exp(x - max)))."""
    return torch.log_softmax(logits, dim=-1).gather(-1, labels[:, None]).squeeze(-1)


def softmax_log(logits: Tensor, labels: Tensor, epsilon: Tensor) -> Tensor:
    """log(p + epsilon) as the question writes it, p from a softmax: -inf where p underflows to 0 and epsilon is 0."""
    return torch.log(torch.softmax(logits, dim=-1).gather(-1, labels[:, None]).squeeze(-1) + epsilon)


def penalty(weights: Tensor, l1: Tensor, l2: Tensor) -> Tensor:
    """l1 * sum|w| + l2 / 2 * sum w^2 over a flat vector of weights (0 where it holds biases)."""
    return times(l1, weights.abs().sum()) + times(l2 / 2, weights.square().sum())


def compute_penalty_gradient(weights: Tensor, l1: Tensor, l2: Tensor) -> Tensor:
    """Gradient of `penalty`: l1 * sign(w) + l2 * w, with sign(0) = 0."""
    return times(l1, weights.sign()) + times(l2, weights)


def times(factor: Tensor, value: Tensor) -> Tensor:
    """The product, but 0 for a factor of 0 whatever the value: 0 * inf would be a NaN that no penalty asked for."""
    return torch.where(factor > 0, factor * value, torch.zeros_like(value))
