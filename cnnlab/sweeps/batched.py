"""Members of one structure in one batch, their flat vectors under a member axis: for GPUs, tested on the CPU too.

Members do not meet in any operation. On a GPU the fastest of several ways is chosen by measurement, and an update is
recorded as a CUDA graph where that pays.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from cnnlab.config.settings import Settings
from cnnlab.sweeps.members import (
    Found,
    accuracy,
    count_fitting,
    find_problem,
    find_structure,
    locate_patches,
    starts,
    take_batch,
)
from cnnlab.training.losses import penalty
from cnnlab.training.metrics import choose_wide_type
from cnnlab.training.problem import Problem, choose_device
from cnnlab.training.step import Descent, KnobTensors, StepStructure

OFTEN = 10
"""Updates of the same shapes after which a CUDA graph is recorded: recording one takes as long as several updates."""
WARM_UP = 3
"""Updates on a graph's own stream before it is recorded, in which libraries choose their ways and take memory."""


def together(members: Sequence[Settings], updates: int, way: str) -> Found:
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
    as_graph = updates > 2 * OFTEN and is_graph_faster(find_structure(members[0]), round_count_up(len(members)), way)
    step = Recorder() if as_graph else step_together
    for update in range(updates):
        x, y = take_batch(problem, members, alive, update + 1)
        parameters, velocity, total, data = step(problem, way, structure, x, y, parameters, velocity, knobs)
        cost[update, alive], data_cost[update, alive] = total.to(wide), data.to(wide) / locate_patches(members[0], y)
        going = total.isfinite()
        if not going.all():
            held_out[alive[~going]] = measure_held_out_together(problem, way, parameters[~going])
            alive, parameters = alive[going], parameters[going]
            velocity = None if velocity is None else velocity[going]
            knobs = KnobTensors(*(values[going] for values in knobs))
        if not len(alive):
            break
    if len(alive):
        held_out[alive] = measure_held_out_together(problem, way, parameters)
    return Found(*(found.cpu().double().numpy() for found in (cost.T, data_cost.T, held_out)))


def step_together(
    problem: Problem,
    way: str,
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
    outputs = WAYS[way](problem, leaf, x)
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


def measure_held_out_together(problem: Problem, way: str, parameters: Tensor) -> Tensor:
    """Held-out accuracy of each member."""
    with torch.no_grad():
        assert problem.held_out is not None
        x, y = problem.held_out
        return accuracy(WAYS[way](problem, parameters, x), y)


def by_vmap(problem: Problem, flats: Tensor, x: Tensor) -> Tensor:
    """Logits (members, patches, classes) of flat vectors (members, numbers), by torch's own vectorisation."""

    def one(flat: Tensor, patches: Tensor) -> Any:
        return functional_call(problem.network, problem.layout.views(flat), (patches,))

    return vmap(one, in_dims=(0, 0 if x.dim() == 5 else None))(flats, x)


def by_groups(problem: Problem, flats: Tensor, x: Tensor) -> Tensor:
    """The same with a member's channels as one group of a wider convolution."""

    def convolve(passed: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        members, out, *kernel = weight.shape
        if passed.dim() == 4:  # the same patches for all: the members' kernels are those of one wide convolution
            wide = functional.conv2d(passed, weight.reshape(members * out, *kernel), bias.reshape(-1))
        else:
            patches = passed.transpose(0, 1).flatten(1, 2)
            wide = functional.conv2d(patches, weight.reshape(members * out, *kernel), bias.reshape(-1), groups=members)
        return wide.unflatten(1, (members, out)).transpose(0, 1)

    return through(problem, flats, x, convolve)


def by_unfolding(problem: Problem, flats: Tensor, x: Tensor) -> Tensor:
    """The same with each convolution as one batched product of matrices: patches of 3x3 times kernels."""

    def convolve(passed: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        members, out, _, high, wide = weight.shape
        windows = passed.unfold(-2, high, 1).unfold(-2, wide, 1)  # (.., patches, channels, rows, columns, high, wide)
        windows = windows.movedim(-5, -3)  # (.., patches, rows, columns, channels, high, wide)
        *_, patches, rows, columns, _, _, _ = windows.shape
        matrix = windows.reshape(*windows.shape[:-6], patches * rows * columns, -1)
        made = matrix @ weight.flatten(2).transpose(1, 2) + bias[:, None]
        return made.view(members, patches, rows, columns, out).movedim(-1, 2)

    return through(problem, flats, x, convolve)


def through(problem: Problem, flats: Tensor, x: Tensor, convolve: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """All members through the question's network, whose modules are convolutions, linear layers, ReLUs and a flatten.

    `convolve` takes what came so far (members, patches, channels, rows, columns), without the first axis where it is
    the same for all, and the members' kernels and biases.
    """
    pieces = flats.split(problem.layout.sizes, dim=1)
    tensors = {
        name: piece.view(len(flats), *shape)
        for name, piece, shape in zip(problem.layout.names, pieces, problem.layout.shapes, strict=True)
    }
    passed = x
    for name, module in problem.network.named_children():
        if isinstance(module, nn.Conv2d):
            passed = convolve(passed, tensors[f"{name}.weight"], tensors[f"{name}.bias"])
        elif isinstance(module, nn.Linear):
            bias = tensors[f"{name}.bias"][:, None]
            passed = torch.baddbmm(bias, passed, tensors[f"{name}.weight"].transpose(1, 2))
        elif isinstance(module, nn.Flatten):
            passed = passed.flatten(2)
        else:
            passed = module(passed)
    return passed


WAYS: dict[str, Callable[[Problem, Tensor, Tensor], Tensor]] = {
    "vmap": by_vmap,
    "groups": by_groups,
    "unfold": by_unfolding,
}
"""Way of computing members together -> problem, flat vectors (members, numbers), patches -> logits."""


class Recorder:
    """`step_together` on a GPU, recorded as a CUDA graph once the same shapes have come often.

    A graph is launched at once, where the many small operations of a few members take longer to launch than to do. It
    reads and writes memory of its own; what it returns holds until its next update.
    """

    def __init__(self) -> None:
        self.met: Counter[Any] = Counter()
        self.graphs: dict[Any, Graph] = {}

    def __call__(
        self, problem: Problem, way: str, structure: StepStructure, x: Tensor, y: Tensor,
        parameters: Tensor, velocity: Tensor | None, knobs: KnobTensors,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:  # fmt: skip
        """What `step_together` returns."""
        moving = [parameters] if velocity is None else [parameters, velocity]

        def work(x: Tensor, y: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
            flats, numbers = rest[: len(moving)], KnobTensors(*rest[len(moving) :])
            return step_together(problem, way, structure, x, y, flats[0], flats[1] if flats[1:] else None, numbers)

        given = [x, y, *moving, *knobs]
        shapes = tuple(tensor.shape for tensor in given)
        self.met[shapes] += 1
        if self.met[shapes] <= OFTEN:
            return work(*given)
        if shapes not in self.graphs:
            # Members only become fewer: graphs of more of them are of no more use, and hold much memory.
            self.graphs = {known: graph for known, graph in self.graphs.items() if known[2] == shapes[2]}
            self.graphs[shapes] = Graph(work, given)
        return self.graphs[shapes](*given)


class Graph:
    """Some work on a GPU, recorded with memory of its own for what goes in and what comes out."""

    def __init__(self, work: Callable[..., Any], given: Sequence[Tensor]) -> None:
        self.kept = [tensor.clone() for tensor in given]
        self.last: list[Tensor | None] = [None] * len(given)
        self.replay, self.made = recorded(lambda: work(*self.kept))

    def __call__(self, *given: Tensor) -> Any:
        """The results of the work, which hold until it is done again."""
        for place, tensor in enumerate(given):
            if tensor is not self.last[place]:  # patches and knobs are mostly the same as at the update before
                self.kept[place].copy_(tensor)
        self.last = [None if any(tensor is part for part in self.made) else tensor for tensor in given]
        self.replay()
        return self.made


def recorded(work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """How to do the work again as one CUDA graph, and where its results will lie."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the device meanwhile, such as a Lab that trains.
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        made = work()
    return graph.replay, made


def round_count_up(count: int) -> int:
    """The next power of two, so that few numbers of members are measured."""
    return 1 << max(count - 1, 0).bit_length()


@lru_cache(maxsize=64)
def find_fastest_way(settings: Settings, count: int) -> str:
    """The fastest of WAYS for so many members of a structure."""
    return min(WAYS, key=lambda way: time_together(settings, count, way))


@lru_cache(maxsize=64)
def is_graph_faster(settings: Settings, count: int, way: str) -> bool:
    """Whether an update recorded as a CUDA graph is the faster one; never off a GPU, or where none can be recorded."""
    if choose_device(settings).type != "cuda":
        return False
    try:
        graphed = time_together(settings, count, way, Recorder(), OFTEN + 2)
    except RuntimeError:  # an operation that a graph cannot hold
        return False
    return graphed < 0.95 * time_together(settings, count, way)


def time_together(
    settings: Settings, count: int, way: str, step: Callable[..., Any] = step_together, updates: int = 3
) -> float:
    """How long an update of so many members takes together: the last of a few, when the device has warmed up.

    Infinity where there is too little memory.
    """
    problem, structure = find_problem(settings), StepStructure.from_knobs(settings.knobs)
    members = [settings.replace(learning_rate=1e-9)] * min(count, count_fitting(problem))
    parameters, knobs = starts(problem, members)
    x, y = take_batch(problem, members, torch.arange(len(members)), 1)
    taken = 0.0
    try:
        for _ in range(updates):
            began = time.perf_counter()
            step(problem, way, structure, x, y, parameters, None, knobs)[2].tolist()  # which waits for the device
            taken = time.perf_counter() - began
    except torch.OutOfMemoryError:
        return math.inf
    return taken * count / len(members)
