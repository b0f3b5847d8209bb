"""Learning rate, momentum and weight decay of a loop's optimisers, changed by hand while the loop goes on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cnnlab.config.settings import LIMITS, nearest, quote
from cnnlab.training.loop_recorder import STEERED, read_value

MOST_MOMENTUM = 0.999
"""A group whose momentum is more than that of the first one gets no more than this."""
OTHER_NAMES = {"lr": "learning_rate", "weight_decay": "l2", "betas": "momentum", "beta1": "momentum"}
"""What torch calls a knob -> its name here."""


Place = tuple[int, int]
"""Which optimiser, and which group of it: `load_state_dict` makes the groups anew."""


class Steering:
    """What is asked of the optimisers of a loop, written into their groups when an update begins.

    A value asked for holds at every update from the next one on, over a scheduler and over the loop's own lines, until
    None is asked for in its place. `ask` may be called from any thread.
    """

    def __init__(self, optimizers: Sequence[Any]) -> None:
        self.optimizers = optimizers
        self.held: dict[str, float] = {}
        self.new: set[str] = set()
        self.shares: dict[tuple[str, Place], float] = {}
        self.lock = threading.Lock()

    def ask(self, changes: dict[str, Any]) -> None:
        """Hold these from the next update on, or let go of what is None; all of them or, at an error, none."""
        checked = {name: self.check(name, value) for name, value in changes.items()}
        with self.lock:
            kept = {**self.held, **checked}
            # A new dictionary: who draws or writes at this moment has the old one whole.
            self.held = {name: value for name, value in kept.items() if value is not None}
            self.new |= checked.keys()

    def check(self, name: str, value: Any) -> float | None:
        """The value of a knob as a float, None to let go; TypeError or ValueError in a sentence if it does not fit."""
        if name not in STEERED:
            better = OTHER_NAMES.get(name)
            said = f"; did you mean {better!r}?" if better else nearest(name, STEERED)
            raise TypeError(f"a watch sets {', '.join(STEERED)}, got {quote(name)}{said}")
        groups = self.find_groups(name)
        if not groups:
            kinds = " and ".join(dict.fromkeys(type(each).__name__ for each in self.optimizers))
            raise ValueError(f"{name} must be one of {', '.join(self.names)}, which {kinds} has, got {quote(value)}")
        if value is None:
            return None
        number: Any = LIMITS[name].check(name, value)
        if number == 1 and name == "momentum" and any("betas" in group for group in groups.values()):
            raise ValueError(f"momentum must lie in [0, 1) where it is the first of betas, got {quote(value)}")
        return float(number)

    @property
    def names(self) -> tuple[str, ...]:
        """The knobs that an optimiser has."""
        return tuple(name for name in STEERED if self.find_groups(name))

    def find_groups(self, name: str) -> dict[Place, dict[str, Any]]:
        """The groups of all optimisers that have a knob."""
        return {
            (one, place): group
            for one, optimizer in enumerate(self.optimizers)
            for place, group in enumerate(optimizer.param_groups)
            if read_value(group, name) is not None
        }

    def write(self) -> None:
        """Have what is held be in force, in all groups of all optimisers."""
        with self.lock:
            held, new, self.new = self.held, self.new, set()
        for name, value in held.items():
            groups = self.find_groups(name)
            if name in new:
                self.measure_shares(name, groups)
            highest = max(value, MOST_MOMENTUM) if name == "momentum" else float(LIMITS[name].high)  # type: ignore[union-attr]
            for place, group in groups.items():
                write_value(group, name, min(value * self.shares.get((name, place), 1.0), highest))
        if held.get("momentum"):
            for optimizer in self.optimizers:
                add_momentum_buffers(optimizer)

    def measure_shares(self, name: str, groups: dict[Place, dict[str, Any]]) -> None:
        """Note how each group's value stands to the leading one's; as before where that is 0, and tells nothing."""
        values = [read_value(group, name) or 0.0 for group in groups.values()]
        if name == "learning_rate" and not any(values):  # at the start of a warm-up
            values = [float(group.get("initial_lr", 0.0)) for group in groups.values()]
        leading = next(filter(None, values), 0.0)
        if leading:
            self.shares |= {(name, place): value / leading for place, value in zip(groups, values, strict=True)}


def write_value(group: dict[str, Any], name: str, value: float) -> None:
    """Write a knob into a group; into its tensor where it has one, which a compiled step reads."""
    key = STEERED[name]
    if name == "momentum" and "momentum" not in group:
        first, *rest = group["betas"]
        group["betas"] = (put(first, value), *rest)
    else:
        group[key] = put(group[key], value)


def put(old: Any, value: float) -> Any:
    """A number in place of another; a tensor keeps its place."""
    if not isinstance(old, Tensor):
        return value
    with torch.no_grad():
        return old.fill_(value)


def add_momentum_buffers(optimizer: Any) -> None:
    """Give an optimiser that began without momentum the buffers that it looks for once it has some (RMSprop)."""
    for group in optimizer.param_groups:
        if not group.get("momentum") or "alpha" not in group:
            continue
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state and "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
