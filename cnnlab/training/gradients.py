"""The gradients that parameters hold for an optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cnnlab.training.metrics import is_read_at_once

Written = list[tuple[Tensor | None, int]]
"""The gradient of each parameter, and how often it had been written to."""


def collect_ids(optimizer: Any) -> frozenset[int]:
    """The ids of the parameters that an optimiser changes."""
    return frozenset(id(parameter) for group in optimizer.param_groups for parameter in group["params"])


def given(parameter: Tensor, optimizer: Any) -> Tensor:
    """The gradient of a parameter as the optimiser will use it; 0 where there is none."""
    gradient = parameter.grad
    if gradient is None:
        return torch.zeros_like(parameter)
    scale = getattr(optimizer, "grad_scale", None)  # a fused optimiser divides by it within its step
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    return dense if scale is None else dense / scale


def holds_gradient(parameter: Tensor) -> bool:
    """Whether a parameter has a gradient that is not all 0; on a GPU, which would have to be waited for, one at all."""
    gradient = parameter.grad
    if gradient is None:
        return False
    return gradient.is_sparse or not is_read_at_once(gradient.device) or bool(gradient.any())


def gradients(parameters: Sequence[Tensor]) -> Written:
    """The gradients as they are now: kept, for the place in memory of one that is gone may be another's."""
    return [(each.grad, version(each.grad)) for each in parameters]


def version(gradient: Tensor | None) -> int:
    """How often a gradient has been written to, as far as torch counts that."""
    return 0 if gradient is None or gradient.is_inference() else gradient._version


def have_changed(parameters: Sequence[Tensor], written: Written) -> bool:
    """Whether one of the parameters has a gradient that is another, or was written to since."""
    pairs = zip(parameters, written, strict=True)
    return any(each.grad is not None and (each.grad is not kept or version(each.grad) != count)
               for each, (kept, count) in pairs)  # fmt: skip
