"""Gradient clipping that never freezes a run in silence: norms are measured so that they cannot overflow.

A value that is already NaN or inf passes through as it is, and touches no other value; the Frame counts them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cnnlab.training.network import Layout

LEAST_WEIGHT_NORM = 1e-3
"""Smallest weight norm that adaptive clipping reckons with, so that units at zero can move (Brock et al. 2021)."""


def by_value(gradient: Tensor, threshold: Tensor, parameters: Tensor, layout: Layout) -> Tensor:
    """Each finite value brought into [-threshold, threshold] (Mikolov 2012)."""
    kept = gradient.nan_to_num(0.0, 0.0, 0.0)
    return kept.clamp(-threshold, threshold) + (gradient - kept)


def by_norm(gradient: Tensor, threshold: Tensor, parameters: Tensor, layout: Layout) -> Tensor:
    """The whole gradient scaled to a Euclidean norm of at most threshold (Pascanu et al. 2013)."""
    return scale_to_length(gradient, threshold)


def adaptive(gradient: Tensor, threshold: Tensor, parameters: Tensor, layout: Layout) -> Tensor:
    """Each unit's gradient scaled to at most threshold times the norm of its weights (Brock et al. 2021).

    A unit is one output: a row of a weight as a matrix (out, rest). A bias is one unit as a whole, as in the paper's
    code. Here the last layer is clipped like the others, which the paper leaves out.
    """
    weights = layout.views(parameters)
    clipped = []
    for name, part in layout.views(gradient).items():
        rows = part.flatten(1) if part.dim() >= 2 else part.reshape(1, -1)
        norms = safe_norm(weights[name].reshape(rows.shape)).clamp(min=LEAST_WEIGHT_NORM)
        clipped.append(scale_to_length(rows, threshold * norms).flatten())
    return torch.cat(clipped)


CLIPS: dict[str, Callable[[Tensor, Tensor, Tensor, Layout], Tensor]] = {
    "value": by_value,
    "norm": by_norm,
    "adaptive": adaptive,
}
"""Knobs.clip -> gradient, threshold, parameters, layout -> clipped gradient; all flat vectors. `off` has no entry."""


def scale_to_length(rows: Tensor, bound: Tensor) -> Tensor:
    """Each row (last axis) scaled so that the norm of its finite values is at most bound; the others stay as they are.

    The norm is never formed: a row is divided by its largest magnitude first, so 1e20 in float32 is no trouble.
    """
    # The half types would lose small values, and the direction, in the division. (On the CPU isfinite and where over a
    # whole gradient would take longer than all that follows.)
    kept = rows.nan_to_num(0.0, 0.0, 0.0).to(accumulator(rows))
    largest = kept.abs().amax(dim=-1, keepdim=True)
    relative = torch.linalg.vector_norm(kept / torch.where(largest > 0, largest, 1), dim=-1, keepdim=True)
    too_long = largest * relative > bound
    divisor, factor = torch.where(too_long, largest, 1), torch.where(too_long, bound / relative, 1)
    others = rows - kept
    return kept.div_(divisor).mul_(factor).add_(others).to(rows.dtype)


def safe_norm(rows: Tensor) -> Tensor:
    """Euclidean norm over the last axis, kept as an axis of one; inf only if a value or the true norm is."""
    largest = rows.abs().amax(dim=-1, keepdim=True)
    usable = (largest > 0) & largest.isfinite()
    scaled = rows / torch.where(usable, largest, 1)
    relative = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True, dtype=accumulator(rows))
    return torch.where(usable, largest * relative, largest)


def accumulator(tensor: Tensor) -> torch.dtype:
    """The type that sums of squares are formed in: float64 for float64, else float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
