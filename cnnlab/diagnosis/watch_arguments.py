"""What a watch is given, and whether it is what it must be."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cnnlab.config.settings import quote
from cnnlab.training.loop_recorder import read_leading_value, read_value


def list_optimizers(optimizer: Any) -> list[Any]:
    """One optimiser or several as a list; TypeError if they have no hooks."""
    found = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
    for one in found:
        if not hasattr(one, "register_step_pre_hook") or not getattr(one, "param_groups", None):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, or several, got {type(one).__name__}")
    if not found:
        raise TypeError("optimizer must be a torch.optim.Optimizer, or several, got none")
    return found


def unwrap(model: nn.Module) -> tuple[nn.Module, bool]:
    """The module within a compiled one, and whether it was compiled: then hooks would break what was compiled.

    ValueError for a module whose parameters have no shapes yet.
    """
    lazy = [name for name, part in model.named_parameters() if isinstance(part, nn.parameter.UninitializedParameter)]
    if lazy:
        raise ValueError(f"model must have its shapes: pass one batch through it first, {lazy[0]} has none yet")
    inner = getattr(model, "_orig_mod", None)
    return (model, False) if inner is None else (inner, True)


def check_scaler(scaler: Any) -> Any:
    """A GradScaler, or None; TypeError if it is something else."""
    if scaler is not None and not all(callable(getattr(scaler, name, None)) for name in ("get_scale", "is_enabled")):
        raise TypeError(f"scaler must be a torch.amp.GradScaler or None, got {type(scaler).__name__}")
    return scaler


def read_number(name: str, value: Any) -> Tensor:
    """A single number as a tensor without axes; TypeError or ValueError if it is something else."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be one number, got a tensor of shape {tuple(value.shape)}")
        return value.detach().reshape(())
    try:
        return torch.tensor(float(value), dtype=torch.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number or a tensor of one, got {quote(value)}") from None


def describe_optimizer(optimizer: Any) -> dict[str, Any]:
    """The fields of Clues that tell of an optimiser: its class, epsilon and decay of the mean square of gradients."""
    group = optimizer.param_groups[0]
    betas = group.get("betas") or (0.0, 0.0)
    decay = betas[1] if "betas" in group else group.get("alpha", 0.0) if "centered" in group else 0.0
    epsilon = group.get("eps", 0.0)
    return {
        "optimizer": type(optimizer).__name__,
        "epsilon": float(epsilon) if isinstance(epsilon, (int, float)) else 0.0,
        "decay": float(decay) if isinstance(decay, (int, float)) else 0.0,
    }


def describe_groups(optimizers: list[Any], model: nn.Module) -> dict[str, Any]:
    """The fields of Clues that tell of the model's group with the highest rate, where it is not that of the record."""
    leading = read_leading_value(optimizers[0].param_groups, "learning_rate") or 0.0
    highest = max((rate for rate, _ in list_rates(optimizers)), default=0.0)
    if not highest > 1.01 * leading > 0:
        return {}
    rates = {id(parameter): rate for rate, group in list_rates(optimizers) for parameter in group["params"]}
    own = [(rates[id(part)], name) for name, part in model.named_parameters() if id(part) in rates]
    fastest, name = max(own, key=lambda each: each[0], default=(0.0, ""))
    return {"fastest": name.rpartition(".")[0], "fastest_rate": fastest / leading} if fastest > leading else {}


def list_rates(optimizers: list[Any]) -> list[tuple[float, dict[str, Any]]]:
    """The learning rate of each group that has one, and the group."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return [(rate, group) for group in groups if (rate := read_value(group, "learning_rate")) is not None]


def is_finite(flat: Tensor) -> bool:
    """Whether all numbers are finite. On a GPU this waits for it."""
    wide = flat.dtype if flat.dtype == torch.float64 else torch.float32
    # A sum that overflows only costs the longer look.
    return math.isfinite(flat.sum(dtype=wide).item()) or bool(flat.isfinite().all())
