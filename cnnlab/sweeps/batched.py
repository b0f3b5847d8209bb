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
from cnnlab.training.determinism import evaluation
from cnnlab.training.layers import draw_mask, drop_given, is_plain, list_drops
from cnnlab.training.loss_scaling import begin_scaling
from cnnlab.training.losses import penalty
from cnnlab.training.metrics import choose_wide_type
from cnnlab.training.optimizers import Averages, make_empty_averages
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
    kept = make_empty_averages(structure.optimizer, structure.momentum, parameters)
    scaling = None if structure.loss_scale == "off" else begin_scaling(None, structure.loss_scale, parameters)
    buffers = {
        name: buffer.repeat(len(members), *[1] * buffer.dim()) for name, buffer in problem.make_buffers().items()
    }
    alive = torch.arange(len(members), device=device)
    step = Repeated(step_together, device if len(members) <= MOST_RECORDED else torch.device("cpu"))
    for update in range(updates):
        x, y = take_batch(problem, members, alive, update + 1)
        masks = draw_masks(problem, [members[place] for place in alive.tolist()], update + 1, y)
        parameters, kept, scaling, buffers, total, data = step(
            problem, structure, x, y, parameters, kept, knobs, buffers, masks, scaling
        )
        cost[update, alive], data_cost[update, alive] = total.to(wide), data.to(wide) / locate_patches(members[0], y)
        going = total.isfinite()
        if not going.all():
            gone = {name: buffer[~going] for name, buffer in buffers.items()}
            held_out[alive[~going]] = measure_held_out_together(problem, parameters[~going], gone)
            alive, parameters = alive[going], parameters[going]
            buffers = {name: buffer[going] for name, buffer in buffers.items()}
            kept = Averages(*(None if part is None else part[going] for part in kept))
            scaling = None if scaling is None else scaling[going]
            knobs = KnobTensors(*(values[going] for values in knobs))
            step.graphs.clear()  # members only become fewer: graphs of more of them are of no more use
        if not len(alive):
            break
    if len(alive):
        held_out[alive] = measure_held_out_together(problem, parameters, buffers)
    return Found(*(found.cpu().double().numpy() for found in (cost.T, data_cost.T, held_out)))


def step_together(
    problem: Problem,
    structure: StepStructure,
    x: Tensor,
    y: Tensor,
    parameters: Tensor,
    kept: Averages,
    knobs: KnobTensors,
    buffers: dict[str, Tensor] | None = None,
    masks: dict[int, Tensor] | None = None,
    scaling: Tensor | None = None,
) -> tuple[Tensor, Averages, Tensor | None, dict[str, Tensor], Tensor, Tensor]:
    """One update of all members: parameters, averages, scaling, buffers after it, costs and data costs (members,).

    Members do not meet in any operation, so the gradient of the sum of their costs is each one's own; a NaN in one
    stays there.
    """
    descent, own = problem.descent, 0 if y.dim() == 2 else None
    leaf = parameters.detach().requires_grad_()
    outputs, buffers = call_together(problem, leaf, buffers or {}, x, masks or {})
    data_cost = vmap(descent.cost, in_dims=(0, own, 0))(outputs, y, knobs.epsilon)
    total = data_cost
    if structure.penalised and structure.penalty_in == "cost":
        total = data_cost + vmap(lambda flat, l1, l2: penalty(descent.weights(flat), l1, l2))(leaf, knobs.l1, knobs.l2)
    scaled = total if scaling is None else total * scaling[:, 0]
    (gradient,) = torch.autograd.grad(scaled.sum(), leaf)
    with torch.no_grad():
        moved, kept, scaling = moved_together(descent, structure, parameters, kept, gradient, knobs, scaling)
    return moved, kept, scaling, buffers, total.detach(), data_cost.detach()


def moved_together(
    descent: Descent,
    structure: StepStructure,
    parameters: Tensor,
    kept: Averages,
    gradient: Tensor,
    knobs: KnobTensors,
    scaling: Tensor | None = None,
) -> tuple[Tensor, Averages, Tensor | None]:
    """`Descent.move` for each member, or `Descent.move_scaled`."""
    there = {name: part for name, part in kept._asdict().items() if part is not None}
    met = [] if scaling is None else [scaling]

    def one(flat: Tensor, slope: Tensor, numbers: Sequence[Tensor], *parts: Tensor) -> tuple[Tensor, ...]:
        before, given = Averages(**dict(zip(there, parts, strict=False))), KnobTensors(*numbers)
        more: tuple[Tensor, ...] = ()
        if scaling is None:
            move = descent.move(flat, before, slope, given, structure)
        else:
            found = descent.move_scaled(flat, before, slope, parts[-1], given, structure)
            move, more = found.move, (found.scaling,)
        return move.parameters, *(getattr(move.averages, name) for name in there), *more

    moved, *after = vmap(one)(parameters, gradient, tuple(knobs), *there.values(), *met)
    return moved, Averages(**dict(zip(there, after, strict=False))), after[-1] if met else None


def measure_held_out_together(problem: Problem, parameters: Tensor, buffers: dict[str, Tensor]) -> Tensor:
    """Held-out accuracy of each member."""
    with torch.no_grad(), evaluation(problem.network):
        assert problem.held_out is not None
        x, y = problem.held_out
        return accuracy(call_together(problem, parameters, buffers, x, {})[0], y)


def draw_masks(problem: Problem, members: Sequence[Settings], step: int, labels: Tensor) -> dict[int, Tensor]:
    """Place of each dropout -> which units each member keeps at an update, (members, patches, units)."""
    patches = labels.shape[-1]
    return {
        place: torch.stack([
            draw_mask(member.seed, step, place, torch.Size((patches, units)), member.dropout) for member in members
        ]).to(problem.device)
        for place, units in list_drops(problem.settings).items()
    }  # fmt: skip


def call_together(
    problem: Problem, flats: Tensor, buffers: dict[str, Tensor], x: Tensor, masks: dict[int, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits (members, patches, classes) of flat vectors (members, numbers), and the buffers after that."""
    if is_plain(problem.settings):
        return pass_together(problem, flats, x), buffers

    def one(
        flat: Tensor, kept: dict[str, Tensor], patches: Tensor, left: dict[int, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        tensors = {**problem.layout.views(flat), **{name: buffer.clone() for name, buffer in kept.items()}}
        with drop_given(left):
            outputs = problem.descent.call(tensors, patches)
        return outputs, {name: tensors[name] for name in kept}

    return vmap(one, in_dims=(0, 0, 0 if x.dim() == 5 else None, 0))(flats, buffers, x, masks)


def pass_together(problem: Problem, flats: Tensor, x: Tensor) -> Tensor:
    """Logits (members, patches, classes) of flat vectors (members, numbers).

    `x` holds the same patches for all (patches, 1, rows, columns), or those of each (members, patches, 1, rows,
    columns). The plain network is convolutions, then a flatten, then linear layers, with ReLUs between.
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
