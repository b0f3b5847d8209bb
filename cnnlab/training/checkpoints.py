"""Where a run has been: its state after some of the updates, under a byte budget, dense lately and sparse long ago."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnlab.config.settings import quote
from cnnlab.records.record import Record, Snapshot
from cnnlab.training.loss_scaling import GOOD
from cnnlab.training.optimizers import NEEDED, NO_AVERAGES, Averages


class State(NamedTuple):
    """All that the next update depends on, but for batch and knobs. Nothing in it is ever written to."""

    parameters: Tensor
    """The flat vector of all parameters."""
    velocity: Tensor | None
    """What momentum carries on; None without momentum. In Adam the running mean of gradients."""
    buffers: dict[str, Tensor]
    """What a network of the user's own keeps beside its parameters, such as the running means of batch norm."""
    squares: Tensor | None = None
    """The running mean of squared gradients that RMSprop and Adam divide by; None with the others."""
    updates: Tensor | None = None
    """How many updates Adam's running means are of, in one number; None with the others."""
    optimizer: str = "sgd"
    """Whose averages these are: another optimiser begins with its own."""
    scaling: Tensor | None = None
    """What loss scaling carries on: the scale, the good updates since it was changed, all overflows; None if off."""

    @property
    def averages(self) -> Averages:
        """What the optimiser carries on."""
        return Averages(self.velocity, self.squares, self.updates)

    def find_averages(self, optimizer: str) -> Averages:
        """What an optimiser goes on with from here: nothing where another one was at work."""
        return self.averages if optimizer == self.optimizer else NO_AVERAGES

    @property
    def bytes(self) -> int:
        """The memory that it takes."""
        parts = (self.parameters, *self.averages, self.scaling)
        tensors = [*self.buffers.values(), *(part for part in parts if part is not None)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def spill_to_disk(self) -> State:
        """The same state with its long vectors in files, so that it takes no memory until it is asked for."""
        velocity, squares = (None if part is None else spill_to_disk(part) for part in self.averages[:2])
        return self._replace(parameters=spill_to_disk(self.parameters), velocity=velocity, squares=squares)


DENSE = 8
"""Every state of the last so many updates is kept."""
WIDEST = 32
"""Largest distance of two kept states while the budget lasts, and so the most updates that a rewind replays."""
OLD = DENSE * WIDEST // 2
"""Updates after which a state that is still kept is laid down in a file."""
LONG_ENOUGH = 2**16
"""Bytes from which on a vector is worth a file."""


def spill_to_disk(vector: Tensor) -> Tensor:
    """A vector with the same numbers, which the system reads from a temporary file when they are asked for.

    The file has no name any more, and is gone with the vector. A short vector, one that is on a GPU, and any where
    there is no room for files comes back as it is; on Windows, where a file in use keeps its name, too.
    """
    if os.name == "nt" or vector.device.type != "cpu" or vector.nbytes < LONG_ENOUGH:
        return vector
    with contextlib.suppress(OSError, RuntimeError), tempfile.NamedTemporaryFile(prefix="cnnlab-") as file:
        file.write(vector.contiguous().view(torch.uint8).numpy().data)
        file.flush()
        return torch.from_file(file.name, shared=False, size=vector.numel(), dtype=vector.dtype)
    return vector


class History:
    """States by update. Keeping one costs next to nothing: states are never written to, so none is copied.

    The start and the last updates are in memory, what is older than that in files.
    """

    def __init__(self, start: State, budget: int) -> None:
        if isinstance(budget, bool) or not isinstance(budget, (int, float, np.number)) or not budget >= 0:
            raise ValueError(f"history_bytes must be a number of at least 0, got {quote(budget)}")
        self.budget = budget
        self.widest = WIDEST
        self.states = {0: start}
        self.bytes = start.bytes

    @classmethod
    def from_states(cls, states: dict[int, State], budget: int) -> History:
        """A history of these states, that of update 0 among them."""
        history, last = cls(states[0], budget), max(states)
        history.states = {
            step: state.spill_to_disk() if 0 < step < last - OLD else state for step, state in sorted(states.items())
        }
        history.bytes = sum(state.bytes for state in states.values())
        history.thin(last)
        return history

    def keep(self, step: int, state: State) -> None:
        """Keep the state after an update, and forget what its age or the budget no longer allows."""
        self.forget(step)
        self.states[step] = state
        self.bytes += state.bytes
        self.thin(step)

    def thin(self, now: int) -> None:
        """Forget the states that have just grown too old for their place, and more of them beyond the budget."""
        distance = 1
        while distance < self.widest:
            old = now - DENSE * distance
            if old > 0 and old % (2 * distance):
                self.forget(old)
            distance *= 2
        if now - OLD in self.states and now > OLD:
            self.states[now - OLD] = self.states[now - OLD].spill_to_disk()
        while self.bytes > self.budget and self.widest < now:
            self.widest *= 2
            for step in [step for step in self.states if step % self.widest and step < now - DENSE * self.widest // 2]:
                self.forget(step)
        while self.bytes > self.budget and len(self.states) > 2:
            self.forget(sorted(self.states)[1])

    def forget(self, step: int) -> None:
        """Let go of one state, if it is there."""
        state = self.states.pop(step, None)
        self.bytes -= 0 if state is None else state.bytes

    def nearest(self, step: int) -> int:
        """The last kept update at or before `step`; 0, the start, is always kept."""
        return max(kept for kept in self.states if kept <= step)

    def until(self, step: int) -> History:
        """A history of its own that ends at `step`; the states are shared."""
        part = History(self.states[0], self.budget)
        part.widest = self.widest
        part.states = {kept: state for kept, state in self.states.items() if kept <= step}
        part.bytes = sum(state.bytes for state in part.states.values())
        return part

    def snapshots(self, last: int) -> tuple[Snapshot, ...]:
        """The states kept up to update `last`, as bytes."""
        kept = sorted((step, state) for step, state in dict(self.states).items() if step <= last)
        return tuple(Snapshot(step, {name: as_bytes(part) for name, part in named(state)}) for step, state in kept)


def restore_states(record: Record, like: State) -> dict[int, State]:
    """The states of a record by update; ValueError if one does not fit the network, or the start is missing."""
    states = {kept.step: restore(kept, like) for kept in record.take_snapshots() if kept.step <= len(record)}
    if 0 not in states:
        raise ValueError("a record must hold the state at its start to be gone on with, and this one does not")
    return states


def restore(kept: Snapshot, like: State) -> State:
    """The state that a snapshot holds, of the types, shapes and device of another; ValueError if it does not fit."""
    optimizer, averages = find_optimizer(kept), {}
    for name, part in zip(Averages._fields, (like.parameters, like.parameters, NO_UPDATES), strict=True):
        if name in NEEDED[optimizer] or name_average(optimizer, name) in kept.arrays:
            averages[name_average(optimizer, name)] = part
    if SCALING in kept.arrays:
        averages[SCALING] = NO_SCALING
    wanted = {**dict(named(like)), **averages}
    sizes = [{name: part.nbytes for name, part in parts.items()} for parts in (kept.arrays, wanted)]
    if sizes[0] != sizes[1]:
        held, needed = (", ".join(f"{name} ({size} bytes)" for name, size in each.items()) for each in sizes)
        raise ValueError(
            f"the record's state at update {kept.step} does not fit the network: it holds {held}, "
            f"and the network {needed}"
        )
    tensors = {
        name: torch.from_numpy(kept.arrays[name].copy()).view(part.dtype).reshape(part.shape).to(like.parameters.device)
        for name, part in wanted.items()
    }
    velocity, squares, updates = (tensors.pop(name_average(optimizer, name), None) for name in Averages._fields)
    scaling = tensors.pop(SCALING, None)
    where = f"of the record's state at update {kept.step}"
    least = 1 if scaling is None else 0  # the first updates may have been skipped
    if updates is not None and not (updates >= least and updates == updates.floor() and updates.isfinite()):
        raise ValueError(
            f"{name_average(optimizer, 'updates')} {where} must be a whole number of at least {least}, "
            f"got {updates.item():g}"
        )
    if scaling is not None:
        check_scaling(scaling.tolist(), where)
    parameters = tensors.pop("parameters")
    buffers = {name.removeprefix("buffer."): part for name, part in tensors.items()}
    return State(parameters, velocity, buffers, squares, updates, optimizer, scaling)


def check_scaling(numbers: list[float], where: str) -> None:
    """ValueError in a sentence for numbers that loss scaling does not come to."""
    scale, good, overflows = numbers
    if not 0 <= scale < math.inf:  # which halves to 0 where the network itself makes NaN
        raise ValueError(f"the loss scale {where} must be a number of at least 0, got {scale:g}")
    for name, count, most in (("good updates", good, GOOD - 1), ("overflows", overflows, MOST_COUNTED)):
        if not (0 <= count <= most and count == math.floor(count)):
            raise ValueError(
                f"the {name} of the loss scale {where} must be a whole number in [0, {most}], got {count:g}"
            )


SCALING = "loss_scaling"
"""What a Snapshot calls a state's scaling."""
NO_SCALING = torch.zeros(3)
"""Its form."""
MOST_COUNTED = 2**24
"""The most that a count in float32 comes to."""
NO_UPDATES = torch.zeros(())
"""The form of a state's number of updates."""


def name_average(optimizer: str, name: str) -> str:
    """What a Snapshot calls an average: "velocity" of plain momentum, "adam.squares" of another optimiser."""
    return name if optimizer == "sgd" else f"{optimizer}.{name}"


def find_optimizer(kept: Snapshot) -> str:
    """The optimiser whose averages a snapshot holds; "sgd" for one without any."""
    names = {name_average(optimizer, name): optimizer for optimizer in NEEDED for name in Averages._fields}
    return next((names[name] for name in kept.arrays if name in names), "sgd")


def named(state: State) -> list[tuple[str, Tensor]]:
    """The tensors of a state by the names that a Snapshot uses."""
    averages = [
        (name_average(state.optimizer, name), part)
        for name, part in zip(Averages._fields, state.averages, strict=True)
        if part is not None
    ]
    scaling = [] if state.scaling is None else [(SCALING, state.scaling)]
    buffers = [(f"buffer.{name}", buffer) for name, buffer in state.buffers.items()]
    return [("parameters", state.parameters), *averages, *scaling, *buffers]


def as_bytes(tensor: Tensor) -> np.ndarray:
    """A tensor's bytes as an array of uint8."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
