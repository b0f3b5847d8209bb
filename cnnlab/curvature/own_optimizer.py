"""What an optimiser of torch is about to do to a gradient, read from its groups and its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnlab.curvature.hessian import join_parts
from cnnlab.curvature.preconditioner import Preconditioner

KINDS: dict[type, str] = {
    torch.optim.SGD: "sgd",
    torch.optim.RMSprop: "rmsprop",
    torch.optim.Adam: "adam",
    torch.optim.AdamW: "adamw",
}
"""Optimiser of torch -> its name among Knobs. A class of the user's own that extends one may step otherwise."""
COMMON = ("momentum", "dampening", "nesterov", "maximize")
"""What all groups must have in common: with several momenta the bound is no one number."""

Group = dict[str, Any]


@dataclass(frozen=True, eq=False)
class OwnStep:
    """The next step of an optimiser of torch."""

    preconditioner: Preconditioner
    """With the learning rate of each group over the highest one as a part of its scale."""
    learning_rate: float
    """The highest of all groups."""
    groups: int
    """How many learning rates there are."""
    sign: float
    """-1 where the optimiser climbs."""


def check_optimizer(optimizer: Any) -> Any:
    """An optimiser whose limit is known; TypeError in a sentence if it is another."""
    if type(optimizer) not in KINDS:
        known = ", ".join(kind.__name__ for kind in KINDS)
        raise TypeError(f"optimizer must be one of torch.optim's {known}, got {type(optimizer).__name__}")
    return optimizer


def read_optimizer(optimizer: Any, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> OwnStep:
    """The next step of an optimiser on some of its parameters; ValueError in a sentence if it has no one bound.

    The averages are taken as they stand, their bias corrections as the next update's. Before the first update they are
    what that makes of the gradient: after clipping, which is not seen here, they may be smaller.
    """
    kind = KINDS[type(check_optimizer(optimizer))]
    owners = {id(each): group for group in optimizer.param_groups for each in group["params"]}
    groups = [owners[id(each)] for each in parameters]
    momentum, dampening, nesterov, maximize = (find_common(groups, name) for name in COMMON)
    dampening = dampening if momentum and kind == "sgd" else 0.0
    if dampening >= 1:
        raise ValueError(f"dampening must lie below 1 for a critical learning rate, got {dampening:g}")
    rates = {float(group["lr"]) for group in groups}
    found = Preconditioner("nesterov" if nesterov else kind, momentum, dampening=dampening)
    scales, added = [], []
    for parameter, gradient, group in zip(parameters, gradients, groups, strict=True):
        share = float(group["lr"]) / max(rates) if max(rates) > 0 else 1.0
        scale, beside = scale_parameter(kind, group, optimizer.state.get(parameter, {}), gradient, found.bound)
        wide = torch.promote_types(parameter.dtype, torch.float32)
        scales.append((share * scale).to(wide).expand_as(parameter))
        added.append((share * beside).to(wide).expand_as(parameter))
    like = torch.empty(0, dtype=scales[0].dtype, device=parameters[0].device)
    preconditioner = Preconditioner(
        found.optimizer, momentum, join_parts(scales, like), join_parts(added, like), dampening
    )
    return OwnStep(preconditioner, max(rates), len(rates), -1.0 if maximize else 1.0)


def find_common(groups: Sequence[Group], name: str) -> float:
    """The momentum, or another number, that all groups share; 0 where they have none such."""
    values = {float(group.get(name) or 0.0) for group in groups}
    if name == "momentum":
        values = {float(group["betas"][0]) if "betas" in group else float(group["momentum"]) for group in groups}
    if len(values) > 1:
        name = "betas[0]" if name == "momentum" and "betas" in groups[0] else name
        listed = " and ".join(f"{value:g}" for value in sorted(values))
        raise ValueError(f"{name} must be the same in all groups of the optimizer, got {listed}")
    return values.pop()


def scale_parameter(
    kind: str, group: Group, state: Group, gradient: Tensor | None, bound: float
) -> tuple[Tensor, Tensor]:
    """What the gradient of one parameter is multiplied by beside the learning rate, and what its decay adds to that."""
    if gradient is None:  # the optimiser leaves out what has none
        return torch.zeros(()), torch.zeros(())
    square = gradient.detach().to(torch.promote_types(gradient.dtype, torch.float32)).square()
    scale = torch.ones((), device=square.device)
    if kind == "rmsprop":
        scale = 1 / divide_as_rmsprop(group, state, square)
    elif kind != "sgd":
        scale = 1 / divide_as_adam(group, state, square)
    decay = float(group["weight_decay"])
    # AdamW's decay may be asked of Adam, too.
    return scale, bound / 2 * decay * torch.ones_like(scale) if group.get("decoupled_weight_decay") else scale * decay


def divide_as_adam(group: Group, state: Group, square: Tensor) -> Tensor:
    """(1 - b1^t) (sqrt(v / (1 - b2^t)) + eps) of the next update t, v / (1 - b2^t) as it stands."""
    momentum, keep = (float(beta) for beta in group["betas"])
    done = float(state["step"]) if state else 0.0
    if done:
        kept = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"].to(square)
        square = kept / (1 - keep**done)
    return (1 - momentum ** (done + 1)) * (square.sqrt() + float(group["eps"]))


def divide_as_rmsprop(group: Group, state: Group, square: Tensor) -> Tensor:
    """sqrt(v) + eps, of a centred one sqrt(v - mean^2) + eps, v rising on as it does from 0."""
    keep = float(group["alpha"])
    done = float(state["step"]) if state else 0.0
    mean = square.sqrt()
    rise = 1 - keep ** (done + 1)
    if done:
        rise = rise / (1 - keep**done) if keep < 1 else 1.0
        square = state["square_avg"].to(square)
        mean = state["grad_avg"].to(square) if group["centered"] else mean
    centre = (rise * mean).square() if group["centered"] else 0.0
    return (rise * square - centre).clamp(min=0).sqrt() + float(group["eps"])
