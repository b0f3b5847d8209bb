"""Many members (networks with settings of their own) over the same number of updates: settings in, plain numbers out.

Two ways with one interface. On the CPU members go one by one through the very step of `Run`, one torch thread each, and
processes share them out; on a GPU members of one structure go together, their flat vectors under a member axis. No
widgets, no plots, no processes of its own: `compute` is a function that any executor can carry elsewhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from cnnlab.data import batch_indices, patches_of, updates_per_epoch
from cnnlab.descent import Descent, Kind, KnobTensors
from cnnlab.gauges import wide_type
from cnnlab.history import State
from cnnlab.initializers import initial_parameters
from cnnlab.network import Layout, question_network
from cnnlab.objective import penalty, question_cost
from cnnlab.run import chosen_device
from cnnlab.settings import Settings

FREE_SHARE = 0.5
"""Share of a GPU's free memory that a batch of members may take."""
CPU_BYTES = 2**30
"""Memory that a batch of members may take on the CPU."""
COPIES = 8
"""How many arrays as long as the parameters a member has at once: parameters, gradient, update, velocity and so on."""
UNFOLDED = 10
"""How many times the activations a forward pass keeps at most: each patch of 3x3 unfolded, and what it makes."""
PER_MEMBER = {"learning_rate", "momentum", "clip_threshold", "epsilon", "l1", "l2", "seed", "init", "init_scale"}
"""Fields that members of one structure may each have their own of."""


class Fates(NamedTuple):
    """What became of some members: numpy arrays of float64, a row a member."""

    cost: NDArray[np.float64]
    """(members, updates): of each update, NaN after the first that was NaN or inf, where the member ended."""
    began: NDArray[np.float64]
    """(members,): mean data cost of a patch over the first updates (see `window`)."""
    ended: NDArray[np.float64]
    """(members,): the same over the last updates; not finite where a cost was not."""
    held_out: NDArray[np.float64]
    """(members,): share of the held-out patches that are classified rightly at the end."""
    seconds: float
    """How long it took."""


def compute(members: Sequence[Settings], updates: int, way: str = "auto") -> Fates:
    """Train each member for so many updates, or to its first cost that is NaN or inf.

    `way` is "one by one", or one of WAYS for all members of one structure together; "auto" is one by one on the CPU,
    and on a GPU the fastest of WAYS there. One by one, the costs of a member are those of a `Run` to the bit.
    """
    began = time.perf_counter()
    if way not in ("auto", "one by one", *WAYS):
        raise ValueError(f"way must be 'auto', 'one by one' or one of {', '.join(map(repr, WAYS))}, got {way!r}")
    tables = [np.full((len(members), updates), np.nan) for _ in range(2)]
    held_out = np.full(len(members), np.nan)
    with one_thread():
        for batch in batches(members, way):
            chosen = way if way != "auto" else automatic_way(members[batch[0]], len(batch))
            part = one_by_one if chosen == "one by one" else together
            found = part([members[place] for place in batch], updates, chosen)
            tables[0][batch], tables[1][batch], held_out[batch] = found
    windows = np.array([window(member, updates) for member in members], dtype=int).reshape(-1)
    first = np.array([row[:width].mean() for row, width in zip(tables[1], windows, strict=True)])
    last = np.array([row[-width:].mean() for row, width in zip(tables[1], windows, strict=True)])
    return Fates(tables[0], first, last, held_out, time.perf_counter() - began)


def window(member: Settings, updates: int) -> int:
    """How many updates the beginning and the end of a run are measured over: an epoch, but a quarter of it at most."""
    return max(1, min(updates_per_epoch(member.patches, member.batch_size), updates // 4))


def seconds_of_an_update(member: Settings) -> float:
    """How long one update of a member takes here, one by one, by the shortest of three."""
    return min(compute([member], 1, "one by one").seconds for _ in range(3))


LOCK = threading.Lock()
THREADS_BEFORE: list[int] = []
"""What `one_thread` has found, once for each thread that is within it."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread, as for every run of the question's network: the same bits, and room for other processes."""
    with LOCK:
        THREADS_BEFORE.append(torch.get_num_threads())
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with LOCK:  # the last one out gives back what the first one in has found
            before = THREADS_BEFORE.pop()
            if not THREADS_BEFORE:
                torch.set_num_threads(before)


# The parts that members share.


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


def batches(members: Sequence[Settings], way: str) -> Iterator[list[int]]:
    """The places of members that go together: of one structure and kind of step, as many as memory allows."""
    alike: dict[Any, list[int]] = {}
    for place, member in enumerate(members):
        alike.setdefault((structure(member), Kind.of(member.knobs)), []).append(place)
    for places in alike.values():
        one = way == "one by one" or (way == "auto" and chosen_device(members[places[0]]).type != "cuda")
        size = len(places) if one else room_for(group_of(members[places[0]]))
        yield from (places[first : first + size] for first in range(0, len(places), size))


def room_for(group: Group) -> int:
    """How many members of a group fit into memory at once; at least one."""
    device = group.x.device
    free = FREE_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else CPU_BYTES
    return max(1, int(free // bytes_of_a_member(group)))


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


# One by one.


def one_by_one(
    members: Sequence[Settings], updates: int, way: str = "one by one"
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Costs and data costs of a patch (members, updates), and held-out accuracies (members,), by the step of Run."""
    cost, data_cost = (np.full((len(members), updates), np.nan) for _ in range(2))
    held_out = np.full(len(members), np.nan)
    for row, member in enumerate(members):
        group = group_of(member)
        state = State(group.start(member), None, {})
        numbers, kind = KnobTensors.of(member.knobs, state.parameters), Kind.of(member.knobs)
        for update in range(updates):
            places = group.places(member, update + 1)
            x, y = (group.x, group.y) if places is None else (group.x[places], group.y[places])
            step = group.descent.step(state, x, y, numbers, kind)
            state = State(step.parameters, step.velocity, step.buffers)
            total = step.data_cost if step.penalty is None else step.data_cost + step.penalty
            cost[row, update], data_cost[row, update] = total.item(), step.data_cost.item() / patches_in(member, y)
            if not math.isfinite(cost[row, update]):
                break
        held_out[row] = accuracy(group.descent.outputs(state, group.held_x), group.held_y).item()
    return cost, data_cost, held_out


def patches_in(member: Settings, labels: Tensor) -> int:
    """What the cost of a batch is to be divided by to be that of a patch."""
    return labels.shape[-1] if member.reduction == "sum" else 1


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Share of right answers over the last but one axis of logits (.., patches, classes); NaN logits are wrong."""
    right = (outputs.argmax(dim=-1) == labels) & ~outputs.isnan().any(dim=-1)
    return right.mean(dim=-1, dtype=torch.float32)


# Together.


def together(
    members: Sequence[Settings], updates: int, way: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The same as `one_by_one` for members of one structure and kind, all in one batch.

    A member whose cost is NaN or inf leaves the batch; the others go on as if it had not been there.
    """
    group, kind = group_of(members[0]), Kind.of(members[0].knobs)
    device = group.x.device
    size, wide = (updates, len(members)), wide_type(device)
    cost, data_cost = (torch.full(size, torch.nan, device=device, dtype=wide) for _ in range(2))
    held_out = torch.full((len(members),), torch.nan, device=device)
    parameters = torch.stack([group.start(member) for member in members])
    velocity = torch.zeros_like(parameters) if kind.momentum else None
    each = [KnobTensors.of(member.knobs, parameters) for member in members]
    knobs = KnobTensors(*(torch.stack(values) for values in zip(*each, strict=True)))
    alive = torch.arange(len(members), device=device)
    for update in range(updates):
        x, y = batch_of(group, members, alive.tolist(), update + 1)
        parameters, velocity, total, data = step_together(group, way, parameters, velocity, x, y, knobs, kind)
        cost[update, alive], data_cost[update, alive] = total.to(wide), data.to(wide) / patches_in(members[0], y)
        going = total.isfinite()
        if not going.all():
            held_out[alive[~going]] = held_out_together(group, way, parameters[~going])
            alive, parameters = alive[going], parameters[going]
            velocity = None if velocity is None else velocity[going]
            knobs = KnobTensors(*(values[going] for values in knobs))
        if not len(alive):
            break
    if len(alive):
        held_out[alive] = held_out_together(group, way, parameters)
    return cost.T.cpu().double().numpy(), data_cost.T.cpu().double().numpy(), held_out.cpu().double().numpy()


def batch_of(group: Group, members: Sequence[Settings], alive: list[int], step: int) -> tuple[Tensor, Tensor]:
    """Patches and labels of an update: of all members alike (patches, ..), or each its own (members, patches, ..)."""
    if group.places(members[0], step) is None:
        return group.x, group.y
    places = torch.stack([part for place in alive if (part := group.places(members[place], step)) is not None])
    return group.x[places], group.y[places]


def step_together(
    group: Group,
    way: str,
    parameters: Tensor,
    velocity: Tensor | None,
    x: Tensor,
    y: Tensor,
    knobs: KnobTensors,
    kind: Kind,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """One update of all members: parameters and velocity (members, numbers) after it, costs and data costs (members,).

    Members do not meet in any operation, so the gradient of the sum of their costs is each one's own; a NaN in one
    stays there.
    """
    descent, own = group.descent, 0 if y.dim() == 2 else None
    leaf = parameters.detach().requires_grad_()
    outputs = WAYS[way](group, leaf, x)
    data_cost = vmap(descent.cost, in_dims=(0, own, 0))(outputs, y, knobs.epsilon)
    total = data_cost
    if kind.penalised and kind.penalty_in == "cost":
        total = data_cost + vmap(lambda flat, l1, l2: penalty(descent.weights(flat), l1, l2))(leaf, knobs.l1, knobs.l2)
    (gradient,) = torch.autograd.grad(total.sum(), leaf)
    with torch.no_grad():
        moved, velocity = moved_together(descent, kind, parameters, velocity, gradient, knobs)
    return moved, velocity, total.detach(), data_cost.detach()


def moved_together(
    descent: Descent,
    kind: Kind,
    parameters: Tensor,
    velocity: Tensor | None,
    gradient: Tensor,
    knobs: KnobTensors,
) -> tuple[Tensor, Tensor | None]:
    """`Descent.move` for each member."""

    def one(flat: Tensor, kept: Tensor, slope: Tensor, *numbers: Tensor) -> tuple[Tensor, Tensor]:
        move = descent.move(flat, kept, slope, KnobTensors(*numbers), kind)
        return move.parameters, kept if move.velocity is None else move.velocity

    moved, carried = vmap(one)(parameters, parameters if velocity is None else velocity, gradient, *knobs)
    return moved, None if velocity is None else carried


def held_out_together(group: Group, way: str, parameters: Tensor) -> Tensor:
    """Held-out accuracy of each member."""
    with torch.no_grad():
        return accuracy(WAYS[way](group, parameters, group.held_x), group.held_y)


def by_vmap(group: Group, flats: Tensor, x: Tensor) -> Tensor:
    """Logits (members, patches, classes) of flat vectors (members, numbers), by torch's own vectorisation."""

    def one(flat: Tensor, patches: Tensor) -> Any:
        return functional_call(group.network, group.layout.views(flat), (patches,))

    return vmap(one, in_dims=(0, 0 if x.dim() == 5 else None))(flats, x)


def by_groups(group: Group, flats: Tensor, x: Tensor) -> Tensor:
    """The same with a member's channels as one group of a wider convolution."""

    def convolve(passed: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        members, out, *kernel = weight.shape
        if passed.dim() == 4:  # the same patches for all: the members' kernels are those of one wide convolution
            wide = functional.conv2d(passed, weight.reshape(members * out, *kernel), bias.reshape(-1))
        else:
            patches = passed.transpose(0, 1).flatten(1, 2)
            wide = functional.conv2d(patches, weight.reshape(members * out, *kernel), bias.reshape(-1), groups=members)
        return wide.unflatten(1, (members, out)).transpose(0, 1)

    return through(group, flats, x, convolve)


def by_unfolding(group: Group, flats: Tensor, x: Tensor) -> Tensor:
    """The same with each convolution as one batched product of matrices: patches of 3x3 times kernels."""

    def convolve(passed: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        members, out, _, high, wide = weight.shape
        windows = passed.unfold(-2, high, 1).unfold(-2, wide, 1)  # (.., patches, channels, rows, columns, high, wide)
        windows = windows.movedim(-5, -3)  # (.., patches, rows, columns, channels, high, wide)
        *_, patches, rows, columns, _, _, _ = windows.shape
        matrix = windows.reshape(*windows.shape[:-6], patches * rows * columns, -1)
        made = matrix @ weight.flatten(2).transpose(1, 2) + bias[:, None]
        return made.view(members, patches, rows, columns, out).movedim(-1, 2)

    return through(group, flats, x, convolve)


def through(group: Group, flats: Tensor, x: Tensor, convolve: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """All members through the question's network, whose modules are convolutions, linear layers, ReLUs and a flatten.

    `convolve` takes what came so far (members, patches, channels, rows, columns), without the first axis where it is
    the same for all, and the members' kernels and biases.
    """
    pieces = flats.split(group.layout.sizes, dim=1)
    tensors = {
        name: piece.view(len(flats), *shape)
        for name, piece, shape in zip(group.layout.names, pieces, group.layout.shapes, strict=True)
    }
    passed = x
    for name, module in group.network.named_children():
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


WAYS: dict[str, Callable[[Group, Tensor, Tensor], Tensor]] = {
    "vmap": by_vmap,
    "groups": by_groups,
    "unfold": by_unfolding,
}
"""Way of computing members together -> group, flat vectors (members, numbers), patches -> logits."""


def automatic_way(member: Settings, count: int) -> str:
    """One by one on the CPU; on a GPU the fastest of WAYS for so many members, as measured once a structure."""
    if chosen_device(member).type != "cuda":
        return "one by one"
    return fastest_way(structure(member), 1 << max(count - 1, 0).bit_length())


@lru_cache(maxsize=64)
def fastest_way(settings: Settings, count: int) -> str:
    """The fastest of WAYS for so many members of a structure, by the second of two updates of each."""
    return min(WAYS, key=lambda way: seconds_together(settings, count, way))


def seconds_together(settings: Settings, count: int, way: str) -> float:
    """How long an update of so many members takes together, once the device has warmed up."""
    members = [dataclasses.replace(settings, learning_rate=1e-9, seed=seed) for seed in range(count)]
    members = members[: room_for(group_of(settings))]
    times = []
    for _ in range(2):
        began = time.perf_counter()
        together(members, 1, way)
        times.append((time.perf_counter() - began) * count / len(members))
    return times[-1]
