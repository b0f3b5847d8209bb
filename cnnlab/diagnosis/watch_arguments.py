"""What a watch is given, and whether it is what it must be."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cnnlab.config.settings import quote
from cnnlab.config.stability import find_bound
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


def keeps_scale(scaler: Any, optimizer: Any) -> bool:
    """Whether a scaler has not taken its scale off the gradient of an optimiser, as `step` and `unscale_` do.

    torch tells this in no public way; a scaler that keeps no such note is taken to have done it.
    """
    if getattr(optimizer, "grad_scale", None) is not None:
        return False  # a fused optimiser takes it off by itself
    states = getattr(scaler, "_per_optimizer_states", None)
    if type(scaler).__module__ != torch.amp.GradScaler.__module__ or not isinstance(states, dict):
        return False
    state = states.get(id(optimizer))
    return not (isinstance(state, dict) and state.get("found_inf_per_device"))


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


def describe_optimizers(optimizers: list[Any]) -> dict[str, Any]:
    """The fields of Clues that tell of the optimisers: class, epsilon and decay of the mean square of gradients."""
    group = optimizers[0].param_groups[0]
    betas = group.get("betas") or (0.0, 0.0)
    decay = betas[1] if "betas" in group else group.get("alpha", 0.0) if "centered" in group else 0.0
    epsilons = tuple((type(one).__name__, read_epsilon(one)) for one in optimizers)
    return {
        "optimizer": epsilons[0][0],
        "epsilon": epsilons[0][1],
        "epsilons": epsilons,
        "decay": float(decay) if isinstance(decay, (int, float)) and len(optimizers) == 1 else 0.0,
    }


def read_epsilon(optimizer: Any) -> float:
    """What an optimiser adds to a denominator; 0 without one."""
    epsilon = optimizer.param_groups[0].get("eps", 0.0)
    return float(epsilon) if isinstance(epsilon, (int, float)) else 0.0


def describe_groups(optimizers: list[Any], model: nn.Module) -> dict[str, Any]:
    """The fields of Clues that tell of groups: what is beyond what knobs hold, and is not that of the first group."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    momentum = max((read_value(group, "momentum") or 0.0 for group in groups), default=0.0)
    return {
        **find_fastest_group(optimizers, model),
        **find_turned_group(optimizers, model),
        "momentum": momentum if momentum >= 1 else 0.0,
    }


def find_turned_group(optimizers: list[Any], model: nn.Module) -> dict[str, Any]:
    """The fields that tell of the group from whose weights a decay takes more than twice as much as they are."""
    found: dict[str, Any] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if type(optimizer).__name__ != "SGD" and not group.get("decoupled_weight_decay"):
                continue  # which divides the decay with the gradient
            share = (read_value(group, "learning_rate") or 0.0) * (read_value(group, "l2") or 0.0)
            bound = 2.0 if group.get("decoupled_weight_decay") else find_bound_of_group(group)
            if bound < share < math.inf and share > found.get("turns", 0):
                found = {"turns": share, "turns_beyond": bound, "turned": name_part(group, model)}
    return found


def find_bound_of_group(group: dict[str, Any]) -> float:
    """What rate times decay must stay below where momentum acts on the decay too."""
    name = "nesterov" if group.get("nesterov") else "sgd"
    return find_bound(name, float(group.get("momentum", 0.0)), float(group.get("dampening", 0.0)))


def name_part(group: dict[str, Any], model: nn.Module) -> str:
    """The first layer of the model that has a parameter of a group; '' for a group of all of them, and of none."""
    own = {id(parameter) for parameter in group["params"]}
    names = [name for name, part in model.named_parameters() if id(part) in own]
    return names[0].rpartition(".")[0] if names and len(names) < len(list(model.parameters())) else ""


def find_fastest_group(optimizers: list[Any], model: nn.Module) -> dict[str, Any]:
    """The fields that tell of the model's group with the highest rate, where it is not that of the record."""
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
