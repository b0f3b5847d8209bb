"""The one training step: parameters, batch and knobs go in; new parameters come out.

The only gradient in the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cnnlab.config.settings import Knobs
from cnnlab.training.checkpoints import State
from cnnlab.training.clipping import CLIPS
from cnnlab.training.loss_scaling import begin_scaling, follow_scaling, keep_averages, unscale
from cnnlab.training.losses import Cost, compute_penalty_gradient, penalty
from cnnlab.training.network import Layout
from cnnlab.training.optimizers import OPTIMIZERS, OWNERS, Averages, has_velocity
from cnnlab.training.reductions import LONG


class KnobTensors(NamedTuple):
    """The numbers among the knobs as 0-d tensors, so that a new value needs no new step."""

    learning_rate: Tensor
    momentum: Tensor
    beta2: Tensor
    adam_epsilon: Tensor
    clip_threshold: Tensor
    epsilon: Tensor
    l1: Tensor
    l2: Tensor

    @classmethod
    def from_knobs(cls, knobs: Knobs, parameters: Tensor) -> KnobTensors:
        """On the parameters' device; float64 for float64 parameters, else float32."""
        return cls(*(values[0] for values in cls.of_each([knobs], parameters)))

    @classmethod
    def of_each(cls, members: Sequence[Knobs], parameters: Tensor) -> KnobTensors:
        """The same for several members, each number (members,)."""
        dtype = torch.float64 if parameters.dtype == torch.float64 else torch.float32
        rows = [[getattr(knobs, name) for knobs in members] for name in cls._fields]
        # 1 - beta2 has few digits left in float32, and MPS has no more than that.
        wide = torch.float32 if parameters.device.type == "mps" else torch.float64
        beta2 = torch.tensor([knobs.beta2 for knobs in members], dtype=wide, device=parameters.device)
        return cls(*torch.tensor(rows, dtype=dtype, device=parameters.device).unbind())._replace(beta2=beta2)


@dataclass(frozen=True)
class StepStructure:
    """The structure of a step, as opposed to its numbers: changing it changes which operations run."""

    clip: str
    momentum: bool
    """Whether a velocity is carried on."""
    penalised: bool
    """Whether L1 or L2 is above 0. Structure, for 0 * inf would be a NaN of our own making."""
    penalty_in: str
    optimizer: str = "sgd"
    """Whose averages the step goes on with."""
    loss_scale: str | float = "off"
    """What the cost is multiplied by; a number too, for one seldom changes."""

    @classmethod
    def from_knobs(cls, knobs: Knobs) -> StepStructure:
        """The structure that these knobs ask for."""
        penalised, owner = knobs.l1 > 0 or knobs.l2 > 0, OWNERS[knobs.optimizer]
        return cls(knobs.clip, has_velocity(knobs), penalised, knobs.penalty_in, owner, knobs.loss_scale)


class Move(NamedTuple):
    """What an update makes of a gradient, by the names that `Step` uses."""

    parameters: Tensor
    averages: Averages
    clipped: Tensor
    update: Tensor


class ScaledMove(NamedTuple):
    """What an update makes of the gradient of a scaled cost."""

    move: Move
    """Nothing has moved where it is skipped."""
    gradient: Tensor
    """Without the scale."""
    scaling: Tensor
    """After the update."""
    skipped: Tensor
    """Whether the scaled gradient held inf or NaN."""


class Step(NamedTuple):
    """What one update made, all on the device; flat vectors share the layout of the parameters.

    Of a long network `gradient` and `update` hold until the next update of the same Descent.
    """

    parameters: Tensor
    """After the update."""
    averages: Averages
    """What the optimiser carries on."""
    gradient: Tensor
    """Of the cost in force, before clipping, without the loss scale."""
    clipped: Tensor
    """After clipping; the same tensor as `gradient` where clipping is off."""
    update: Tensor
    """What was subtracted from the parameters."""
    outputs: Any
    """What the network returned for this batch, before the update."""
    data_cost: Tensor
    penalty: Tensor | None
    """None without L1 and L2, and where they are in the update."""
    buffers: dict[str, Tensor]
    """What the network keeps beside its parameters, after the forward pass."""
    optimizer: str = "sgd"
    """Whose averages these are."""
    scale: Tensor | None = None
    """What the cost was multiplied by; None without a loss scale."""
    skipped: Tensor | None = None
    """Whether nothing was moved, for the scaled gradient held inf or NaN; likewise."""
    scaling: Tensor | None = None
    """What loss scaling carries on."""

    @property
    def velocity(self) -> Tensor | None:
        """What momentum carries on; None without momentum."""
        return self.averages.velocity

    @property
    def state(self) -> State:
        """All that the next update depends on."""
        velocity, squares, updates = self.averages
        return State(self.parameters, velocity, self.buffers, squares, updates, self.optimizer, self.scaling)


@dataclass(frozen=True)
class Descent:
    """A network with its cost, ready to take steps of gradient descent. Holds no state of a run."""

    network: nn.Module
    layout: Layout
    cost: Cost
    is_weight: Tensor
    """Bool, one for each parameter: those that L1 and L2 act on."""
    scratch: dict[str, Tensor] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Memory of long vectors that no state keeps, used again at every update: fresh pages take longer than the sums."""

    def step(self, state: State, x: Any, y: Any, knobs: KnobTensors, structure: StepStructure) -> Step:
        """One update from `state` on the batch (x, y); nothing that is passed in is changed."""
        parameters = state.parameters
        with_penalty = structure.penalised and structure.penalty_in == "cost"
        leaf = parameters.detach().requires_grad_()
        # Of a long vector the pieces are leaves, so that their gradients can be put together in memory that is there.
        whole = with_penalty or len(parameters) < LONG
        views = self.layout.views(leaf if whole else parameters)
        leaves = [leaf] if whole else [view.detach().requires_grad_() for view in views.values()]
        buffers = {name: buffer.clone() for name, buffer in state.buffers.items()}
        tensors = {**(views if whole else dict(zip(views, leaves, strict=True))), **buffers}
        outputs = self.call(tensors, x)
        # A module may write into a buffer, or put another tensor in its place, which functional_call hands back.
        buffers = {name: tensors[name].detach() for name in buffers}
        data_cost = scalar(self.cost(outputs, y, knobs.epsilon))
        extra = penalty(self.weights(leaf), knobs.l1, knobs.l2) if with_penalty else None
        total = data_cost if extra is None else data_cost + extra
        kept = state.find_averages(structure.optimizer)
        if structure.loss_scale == "off":
            gradient = self.gradient(total, leaves)
            with torch.no_grad():
                move = self.move(parameters, kept, gradient, knobs, structure)
            scaled: tuple[Tensor, ...] = ()
        else:
            met = begin_scaling(state.scaling, structure.loss_scale, parameters)
            gradient = self.gradient(total * met[0], leaves)
            with torch.no_grad():
                move, gradient, after, skipped = self.move_scaled(parameters, kept, gradient, met, knobs, structure)
            scaled = met[0], skipped, after
        return Step(
            move.parameters, move.averages, gradient, move.clipped, move.update, detached(outputs), data_cost.detach(),
            detached(extra), buffers, structure.optimizer, *scaled,
        )  # fmt: skip

    def move(
        self,
        parameters: Tensor,
        kept: Averages,
        gradient: Tensor,
        knobs: KnobTensors,
        structure: StepStructure,
    ) -> Move:
        """What an update makes of a gradient; no more than arithmetic, so that it can be done for many at once."""
        clipped = gradient if structure.clip == "off" else self.clip(gradient, parameters, knobs, structure)
        direction, averages = OPTIMIZERS[structure.optimizer](clipped, kept, knobs, structure.momentum)
        if averages.velocity is not None and averages.velocity is self.scratch.get("gradient"):
            averages = averages._replace(velocity=averages.velocity.clone())
        decay = None
        if structure.penalised and structure.penalty_in == "update":
            decay = compute_penalty_gradient(self.weights(parameters), knobs.l1, knobs.l2)
        if decay is None or structure.optimizer == "sgd":
            direction = direction if decay is None else direction + decay
            update = torch.mul(knobs.learning_rate, direction, out=self.scratch_memory("update", direction))
            return Move(parameters - update, averages, clipped, update)
        # As torch's AdamW does, which in half precision loses a decay that is too small beside a weight.
        decay, taken = knobs.learning_rate * decay, knobs.learning_rate * direction
        return Move(parameters - decay - taken, averages, clipped, decay + taken)

    def move_scaled(
        self,
        parameters: Tensor,
        kept: Averages,
        gradient: Tensor,
        scaling: Tensor,
        knobs: KnobTensors,
        structure: StepStructure,
    ) -> ScaledMove:
        """The same for the gradient of a scaled cost; one that holds inf or NaN moves nothing."""
        skipped = ~gradient.isfinite().all()
        gradient = unscale(gradient, scaling)
        move = self.move(parameters, kept, gradient, knobs, structure)
        moved = Move(
            torch.where(skipped, parameters, move.parameters),
            keep_averages(skipped, kept, move.averages),
            move.clipped,
            torch.where(skipped, 0, move.update),
        )
        return ScaledMove(moved, gradient, follow_scaling(scaling, skipped, structure.loss_scale == "dynamic"), skipped)

    def gradient(self, total: Tensor, leaves: list[Tensor]) -> Tensor:
        """The gradient as one flat vector; 0 where the cost does not depend on a parameter."""
        if len(leaves) == 1:
            return torch.autograd.grad(total, leaves)[0].reshape(-1)
        found = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
        memory = self.scratch_memory("gradient", leaves[0], sum(self.layout.sizes))
        return torch.cat([part.reshape(-1) for part in found], out=memory)

    def scratch_memory(self, name: str, like: Tensor, size: int | None = None) -> Tensor | None:
        """Memory for a long vector on the CPU, the same at every update; None for a short one."""
        size = len(like) if size is None else size
        if size < LONG or like.device.type != "cpu":
            return None
        if name not in self.scratch or self.scratch[name].dtype != like.dtype:
            self.scratch[name] = torch.empty(size, dtype=like.dtype)
        return self.scratch[name]

    def clip(self, gradient: Tensor, parameters: Tensor, knobs: KnobTensors, structure: StepStructure) -> Tensor:
        """The gradient clipped as the knobs say."""
        return CLIPS[structure.clip](gradient, knobs.clip_threshold, parameters, self.layout)

    def weights(self, flat: Tensor) -> Tensor:
        """The flat vector with biases and scales at 0, which L1 and L2 leave alone."""
        return torch.where(self.is_weight, flat, 0)

    def outputs(self, state: State, x: Any) -> Any:
        """What the network returns for x in this state, without a gradient."""
        with torch.no_grad():
            tensors = {**self.layout.views(state.parameters), **state.buffers}
            return self.call(tensors, x)

    def call(self, tensors: dict[str, Tensor], x: Any) -> Any:
        """What the network returns for x with these tensors in place of its parameters and buffers."""
        # Looking for shared tensors takes 0.15 ms, so it is done where there are some.
        return functional_call(self.network, tensors, *arguments(x), tie_weights=self.shares)

    @cached_property
    def shares(self) -> bool:
        """Whether the network has a parameter or buffer in several places."""
        ways = (self.network.named_parameters, self.network.named_buffers)
        return any(len(list(way())) < len(list(way(remove_duplicate=False))) for way in ways)


def arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a network: one tensor, several as a tuple, or several by name."""
    if isinstance(x, dict):
        return (), x
    return (x, {}) if isinstance(x, tuple) else ((x,), {})


def scalar(cost: Any) -> Tensor:
    """The cost itself; TypeError or ValueError if it is not one number that depends on the parameters."""
    if not isinstance(cost, Tensor):
        raise TypeError(f"cost must return a tensor, got {type(cost).__name__}")
    if cost.numel() != 1:
        raise ValueError(f"cost must return one number, got a tensor of shape {tuple(cost.shape)}")
    if not cost.requires_grad:
        raise ValueError("cost must depend on the network's parameters, got a number without a gradient")
    return cost.reshape(())


def detached(value: Any) -> Any:
    """A tensor without its graph; anything else as it is."""
    return value.detach() if isinstance(value, Tensor) else value
