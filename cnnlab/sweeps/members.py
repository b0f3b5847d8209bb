"""What members (networks with settings of their own) of one structure share: data, network, memory, their starts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnnlab.config.settings import KNOB_NUMBERS, Settings
from cnnlab.training.data import batch_indices, patches_of
from cnnlab.training.initializers import initial_parameters
from cnnlab.training.losses import question_cost
from cnnlab.training.network import Layout, question_network
from cnnlab.training.run import chosen_device
from cnnlab.training.step import Descent, KnobTensors

FREE_SHARE = 0.5
"""Share of a GPU's free memory that a batch of members may take."""
CPU_BYTES = 2**30
"""Memory that a batch of members may take on the CPU."""
COPIES = 8
"""How many arrays as long as the parameters a member has at once: parameters, gradient, update, velocity and so on."""
UNFOLDED = 10
"""How many times the activations a forward pass keeps at most: each patch of 3x3 unfolded, and what it makes."""
PER_MEMBER = {*KNOB_NUMBERS, "seed", "init", "init_scale"}
"""Fields that members of one structure may each have their own of."""


class Found(NamedTuple):
    """What was measured of some members: numpy arrays of float64, a row a member."""

    cost: NDArray[np.float64]
    """(members, updates): NaN after the first cost that was NaN or inf."""
    data_cost: NDArray[np.float64]
    """(members, updates): of a patch, without penalties; likewise."""
    held_out: NDArray[np.float64]
    """(members,): accuracy on the held-out patches at the end."""


@dataclass(frozen=True, eq=False)
class Group:
    """What all members of one structure have in common, on its device."""

    settings: Settings
    network: nn.Sequential
    layout: Layout
    descent: Descent
    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor
    patches: Tensor
    """The training patches as they come from the image, which one of the initialisations measures."""

    def start(self, member: Settings) -> Tensor:
        """The flat vector that a member starts from, as a Run would."""
        flat = initial_parameters(self.network, self.layout, member, self.patches)
        return flat.to(self.x.device, self.x.dtype)

    def places(self, member: Settings, step: int) -> Tensor | None:
        """Which patches an update of a member uses; None for all."""
        places = batch_indices(len(self.x), member.batch_size, member.seed, step)
        return None if places is None else places.to(self.x.device)


def structure(member: Settings) -> Settings:
    """The settings of a member with all that it may have of its own at the preset's value."""
    common = Settings()
    return member.replace(epochs=1, preset="question", **{name: getattr(common, name) for name in PER_MEMBER})


def group_of(member: Settings) -> Group:
    """The group that a member belongs to, one for each thread: a module takes one call at a time."""
    return made_group(structure(member), threading.get_ident())


@lru_cache(maxsize=16)
def made_group(settings: Settings, _thread: int) -> Group:
    """The group of a structure in a thread; the last few are kept."""
    device, dtype = chosen_device(settings), getattr(torch, settings.precision)
    data, network = patches_of(settings), question_network(settings)
    layout = Layout.of(network)
    descent = Descent(network, layout, question_cost(settings), layout.is_weight(device))
    x, held_x = (part.to(device, dtype) for part in (data.x, data.held_x))
    y, held_y = (part.to(device) for part in (data.y, data.held_y))
    return Group(settings, network, layout, descent, x, y, held_x, held_y, data.x)


def room_for(group: Group) -> int:
    """How many members of a group fit into memory at once; at least one."""
    return max(1, int(memory_for_members(group.x.device) // bytes_of_a_member(group)))


def memory_for_members(device: torch.device) -> float:
    """The bytes that a batch of members may take: on a GPU a share of what is free, torch's own reserve included."""
    if device.type != "cuda":
        return CPU_BYTES
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return FREE_SHARE * (torch.cuda.mem_get_info(device)[0] + reserve)


def bytes_of_a_member(group: Group) -> int:
    """The memory that a member needs at most in a batch: its flat vectors, and what a forward pass keeps."""
    count = group.settings.batch_size or len(group.x)
    kept = 0
    passed: Tensor = torch.empty((count, *group.x.shape[1:]), device="meta")
    for module in group.network:
        passed = module(passed)
        kept += passed.numel()
    numbers = COPIES * sum(group.layout.sizes) + UNFOLDED * kept
    return numbers * group.x.element_size()


def starts(group: Group, members: Sequence[Settings]) -> tuple[Tensor, KnobTensors]:
    """Flat vectors (members, numbers) to start from, and each knob (members,).

    Members that differ in their knobs alone share a draw, which would take longer than training them on a GPU.
    """
    drawn: dict[Any, int] = {}
    places = [drawn.setdefault((each.seed, each.init, each.init_scale), len(drawn)) for each in members]
    flats = torch.stack([group.start(members[places.index(place)]) for place in drawn.values()])
    parameters = flats[torch.tensor(places, device=flats.device)]
    return parameters, KnobTensors.of_each([member.knobs for member in members], parameters)


def batch_of(group: Group, members: Sequence[Settings], alive: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Patches and labels of an update: of all members alike (patches, ..), or each its own (members, patches, ..)."""
    if group.places(members[0], step) is None:
        return group.x, group.y
    places = [part for place in alive.tolist() if (part := group.places(members[place], step)) is not None]
    return group.x[torch.stack(places)], group.y[torch.stack(places)]


def patches_in(member: Settings, labels: Tensor) -> int:
    """What the cost of a batch is to be divided by to be that of a patch."""
    return labels.shape[-1] if member.reduction == "sum" else 1


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Share of right answers over the last but one axis of logits (.., patches, classes); NaN logits are wrong."""
    right = (outputs.argmax(dim=-1) == labels) & ~outputs.isnan().any(dim=-1)
    return right.mean(dim=-1, dtype=torch.float32)
