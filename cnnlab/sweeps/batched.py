"""Members of one structure in one batch, their flat vectors under a member axis: for GPUs, tested on the CPU too.

Members do not meet in any operation. On a GPU an update of few members is recorded as a CUDA graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import vmap

from cnnlab.config.settings import Settings
from cnnlab.sweeps.convolutions import Convolution
from cnnlab.sweeps.fastest_convolutions import find_convolve
from cnnlab.sweeps.members import Found, accuracy, find_problem, locate_patches, starts, take_batch
from cnnlab.training.capture import Repeated
from cnnlab.training.losses import penalty
from cnnlab.training.metrics import choose_wide_type
from cnnlab.training.problem import Problem
from cnnlab.training.step import Descent, KnobTensors, StepStructure

MOST_RECORDED = 256
"""Most members whose update is recorded as a CUDA graph: that of more takes longer to do than to launch."""


def together(members: Sequence[Settings], updates: int) -> Found:
    """The same as `one_by_one` for members of one structure and kind, all in one batch.

    A member whose cost is NaN or inf leaves the batch; the others go on as if it had not been there.
    """
    problem, structure = find_problem(members[0]), StepStructure.from_knobs(members[0].knobs)
    device = problem.device
    size, wide = (updates, len(members)), choose_wide_type(device)
    cost, data_cost = (torch.full(size, torch.nan, device=device, dtype=wide) for _ in range(2))
    held_out = torch.full((len(members),), torch.nan, device=device)
    parameters, knobs = starts(problem, members)
    velocity = torch.zeros_like(parameters) if structure.momentum else None
    alive = torch.arange(len(members), device=device)
    step = Repeated(step_together, device if len(members) <= MOST_RECORDED else torch.device("cpu"))
    for update in range(updates):
        x, y = take_batch(problem, members, alive, update + 1)
        parameters, velocity, total, data = step(problem, structure, x, y, parameters, velocity, knobs)
        cost[update, alive], data_cost[update, alive] = total.to(wide), data.to(wide) / locate_patches(members[0], y)
        going = total.isfinite()
        if not going.all():
            held_out[alive[~going]] = measure_held_out_together(problem, parameters[~going])
            alive, parameters = alive[going], parameters[going]
            velocity = None if velocity is None else velocity[going]
            knobs = KnobTensors(*(values[going] for values in knobs))
            step.graphs.clear()  # members only become fewer: graphs of more of them are of no more use
        if not len(alive):
            break
    if len(alive):
        held_out[alive] = measure_held_out_together(problem, parameters)
    return Found(*(found.cpu().double().numpy() for found in (cost.T, data_cost.T, held_out)))


def step_together(
    problem: Problem,
    structure: StepStructure,
    x: Tensor,
    y: Tensor,
    parameters: Tensor,
    velocity: Tensor | None,
    knobs: KnobTensors,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """One update of all members: parameters and velocity (members, numbers) after it, costs and data costs (members,).

    Members do not meet in any operation, so the gradient of the sum of their costs is each one's own; a NaN in one
    stays there.
    """
    descent, own = problem.descent, 0 if y.dim() == 2 else None
    leaf = parameters.detach().requires_grad_()
    outputs = pass_together(problem, leaf, x)
    data_cost = vmap(descent.cost, in_dims=(0, own, 0))(outputs, y, knobs.epsilon)
    total = data_cost
    if structure.penalised and structure.penalty_in == "cost":
        total = data_cost + vmap(lambda flat, l1, l2: penalty(descent.weights(flat), l1, l2))(leaf, knobs.l1, knobs.l2)
    (gradient,) = torch.autograd.grad(total.sum(), leaf)
    with torch.no_grad():
        moved, velocity = moved_together(descent, structure, parameters, velocity, gradient, knobs)
    return moved, velocity, total.detach(), data_cost.detach()


def moved_together(
    descent: Descent,
    structure: StepStructure,
    parameters: Tensor,
    velocity: Tensor | None,
    gradient: Tensor,
    knobs: KnobTensors,
) -> tuple[Tensor, Tensor | None]:
    """`Descent.move` for each member."""

    def one(flat: Tensor, kept: Tensor, slope: Tensor, *numbers: Tensor) -> tuple[Tensor, Tensor]:
        move = descent.move(flat, kept, slope, KnobTensors(*numbers), structure)
        return move.parameters, kept if move.velocity is None else move.velocity

    moved, carried = vmap(one)(parameters, parameters if velocity is None else velocity, gradient, *knobs)
    return moved, None if velocity is None else carried


def measure_held_out_together(problem: Problem, parameters: Tensor) -> Tensor:
    """Held-out accuracy of each member."""
    with torch.no_grad():
        assert problem.held_out is not None
        x, y = problem.held_out
        return accuracy(pass_together(problem, parameters, x), y)


def pass_together(problem: Problem, flats: Tensor, x: Tensor) -> Tensor:
    """Logits (members, patches, classes) of flat vectors (members, numbers).

    `x` holds the same patches for all (patches, 1, rows, columns), or those of each (members, patches, 1, rows,
    columns). The question's network is convolutions, then a flatten, then linear layers, with ReLUs between.
    """
    pieces = flats.split(problem.layout.sizes, dim=1)
    tensors = {
        name: piece.view(len(flats), *shape)
        for name, piece, shape in zip(problem.layout.names, pieces, problem.layout.shapes, strict=True)
    }
    modules = list(problem.network.named_children())
    chain = [
        Convolution(tensors[f"{name}.weight"], tensors[f"{name}.bias"], isinstance(following, nn.ReLU))
        for (name, module), (_, following) in itertools.pairwise(modules)
        if isinstance(module, nn.Conv2d)
    ]
    flat = next(place for place, (_, module) in enumerate(modules) if isinstance(module, nn.Flatten))
    patches = (x if x.dim() == 5 else x[None]).movedim(2, -1)
    passed = find_convolve(flats.device, flats.dtype)(patches, chain)
    passed = passed.movedim(-1, 2).flatten(2)
    for name, module in modules[flat + 1 :]:
        if isinstance(module, nn.Linear):
            bias = tensors[f"{name}.bias"][:, None]
            passed = torch.baddbmm(bias, passed, tensors[f"{name}.weight"].transpose(1, 2))
        else:
            passed = module(passed)
    return passed
