"""What members (networks with settings of their own) of one structure share: data, network, memory, their starts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnnlab.config.settings import ADAPTIVE, KNOB_NUMBERS, Settings
from cnnlab.sweeps.convolutions import convolve
from cnnlab.sweeps.fastest_convolutions import find_convolve
from cnnlab.training.activations import collect_outputs
from cnnlab.training.datasets import Pair
from cnnlab.training.problem import Problem
from cnnlab.training.step import KnobTensors

FREE_SHARE = 0.7
"""Share of a GPU's free memory that a batch of members may take."""
CPU_BYTES = 2**30
"""Memory that a batch of members may take on the CPU."""
COPIES = 8
"""How many arrays as long as the parameters a member has at once: parameters, gradient, update, velocity and so on."""
MORE_COPIES = 4
"""How many more of an optimiser that averages squared gradients: the averages, roots and quotients."""
FUSED, UNFOLDED = 2, 10
"""How many times a layer's outputs an update keeps at most: outputs and gradients, or the windows of 3x3 as well."""
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


def find_structure(member: Settings) -> Settings:
    """The settings of a member with all that it may have of its own at the preset's value."""
    common = Settings()
    return member.replace(epochs=1, preset="question", **{name: getattr(common, name) for name in PER_MEMBER})


def find_problem(member: Settings) -> Problem:
    """What a member shares with all of its structure, one for each thread: a module takes one call at a time."""
    return make_problem(find_structure(member), threading.get_ident())


@lru_cache(maxsize=16)
def make_problem(settings: Settings, _thread: int) -> Problem:
    """The problem of a structure in a thread; the last few are kept."""
    return Problem.build(settings)


def count_fitting(problem: Problem) -> int:
    """How many members of a structure fit into memory at once; at least one."""
    return max(1, int(find_free_memory(problem.device) // count_member_bytes(problem)))


def find_free_memory(device: torch.device) -> float:
    """The bytes that a batch of members may take: on a GPU a share of what is free, torch's own reserve included."""
    if device.type != "cuda":
        return CPU_BYTES
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return FREE_SHARE * (torch.cuda.mem_get_info(device)[0] + reserve)


def count_member_bytes(problem: Problem) -> int:
    """The memory that a member needs at most in a batch: its flat vectors, and what a forward pass keeps."""
    x = problem.data[0]
    names = [name for name, module in problem.network.named_children() if not isinstance(module, nn.ReLU)]
    batch = torch.empty((problem.batch_size or len(x), *x.shape[1:]), device="meta")
    kept = sum(
        output.numel() for output in collect_outputs(problem.network, names, lambda: problem.network(batch)).values()
    )
    unfolds = find_convolve(problem.device, problem.dtype) is convolve
    copies = COPIES + MORE_COPIES * (problem.settings.optimizer in ADAPTIVE)
    numbers = copies * sum(problem.layout.sizes) + (UNFOLDED if unfolds else FUSED) * kept
    return int(numbers * x.element_size())


def starts(problem: Problem, members: Sequence[Settings]) -> tuple[Tensor, KnobTensors]:
    """Flat vectors (members, numbers) to start from, and each knob (members,).

    Members that differ in their knobs alone share a draw, which would take longer than training them on a GPU.
    """
    drawn: dict[Any, int] = {}
    places = [drawn.setdefault((each.seed, each.init, each.init_scale), len(drawn)) for each in members]
    flats = torch.stack([problem.draw_start(members[places.index(place)]).parameters for place in drawn.values()])
    parameters = flats[torch.tensor(places, device=flats.device)]
    return parameters, KnobTensors.of_each([member.knobs for member in members], parameters)


def take_batch(problem: Problem, members: Sequence[Settings], alive: Tensor, step: int) -> Pair:
    """Patches and labels of an update: of all members alike (patches, ..), or each its own (members, patches, ..)."""
    if problem.batch_size is None:
        return problem.data
    own = [
        problem.examples.indices(each.batch_size, each.seed, step) for each in map(members.__getitem__, alive.tolist())
    ]
    rows = torch.stack([places for places in own if places is not None]).to(problem.device)
    x, y = problem.data
    return x[rows], y[rows]


def locate_patches(member: Settings, labels: Tensor) -> int:
    """What the cost of a batch is to be divided by to be that of a patch."""
    return labels.shape[-1] if member.reduction == "sum" else 1


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Share of right answers over the last but one axis of logits (.., patches, classes); NaN logits are wrong."""
    right = (outputs.argmax(dim=-1) == labels) & ~outputs.isnan().any(dim=-1)
    return right.mean(dim=-1, dtype=torch.float32)
