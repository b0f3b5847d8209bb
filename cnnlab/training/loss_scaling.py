"""Loss scaling as `torch.amp.GradScaler` has it: a small gradient is not lost in float16, a large one is left out.

A scaling is three numbers along the last axis: the scale, the good updates since it was changed, and all overflows. No
more than arithmetic, so that it can be done for many members at once and recorded as a CUDA graph.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cnnlab.training.optimizers import Averages

START = 65536.0
"""The scale that "dynamic" begins with."""
GOOD = 2000
"""Updates in a row without an overflow after which the scale doubles; at an overflow it halves."""


def begin_scaling(kept: Tensor | None, loss_scale: str | float, like: Tensor) -> Tensor:
    """The scaling that an update meets; `kept` is that after the update before, None if it was off.

    "dynamic" goes on from the scale that was in force; a number takes its place. `like` holds the parameters.
    """
    if kept is None:
        kept = torch.zeros(*like.shape[:-1], 3, device=like.device)
        first = START if loss_scale == "dynamic" else float(loss_scale)
    elif loss_scale == "dynamic":
        return kept
    else:
        first = float(loss_scale)
    scale, good, overflows = kept.unbind(-1)
    return torch.stack([torch.full_like(scale, first), torch.zeros_like(good), overflows], dim=-1)


def unscale(gradient: Tensor, scaling: Tensor) -> Tensor:
    """The gradient of a scaled cost, divided by the scale in float32 and rounded once."""
    scale = scaling[..., 0]
    wide = scale if scale.device.type == "mps" else scale.double()
    return (gradient.to(scale.dtype) * wide.reciprocal().to(scale.dtype)).to(gradient.dtype)


def follow_scaling(scaling: Tensor, overflows: Tensor, dynamic: bool) -> Tensor:
    """The scaling after an update; `overflows` is whether its scaled gradient held inf or NaN."""
    scale, good, count = scaling.unbind(-1)
    count = count + overflows
    if not dynamic:
        return torch.stack([scale, good, count], dim=-1)
    good = torch.where(overflows, 0, good + 1)
    doubled = torch.where((good == GOOD) & (2 * scale).isfinite(), 2 * scale, scale)
    scale = torch.where(overflows, scale / 2, doubled)
    return torch.stack([scale, torch.where(good == GOOD, 0, good), count], dim=-1)


def keep_averages(skipped: Tensor, before: Averages, after: Averages) -> Averages:
    """The averages after an update that may be skipped; those that have not begun are 0, which begins them as well."""
    pairs = zip(before, after, strict=True)
    return Averages(*(
        None if new is None else torch.where(skipped, torch.zeros_like(new) if old is None else old, new)
        for old, new in pairs
    ))  # fmt: skip
