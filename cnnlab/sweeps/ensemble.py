"""Many members (networks with settings of their own) over the same number of updates: settings in, plain numbers out.

Two ways with one interface. On the CPU members go one by one through the very step of `Run`, one torch thread each, and
processes share them out; on a GPU members of one structure go together, their flat vectors under a member axis. No
widgets, no plots, no processes of its own: `compute` is a function that any executor can carry elsewhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cnnlab.config.settings import Settings, quote
from cnnlab.sweeps.batched import together
from cnnlab.sweeps.members import Found, accuracy, count_fitting, find_problem, find_structure, locate_patches
from cnnlab.training.data import updates_per_epoch
from cnnlab.training.determinism import evaluation, fix_order_of_sums, use_one_thread
from cnnlab.training.malloc import keep_freed_memory
from cnnlab.training.problem import choose_device
from cnnlab.training.step import KnobTensors, StepStructure


class EnsembleResult(NamedTuple):
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


def compute(members: Sequence[Settings], updates: int, way: str = "auto") -> EnsembleResult:
    """Train each member for so many updates, or to its first cost that is NaN or inf.

    `way` is "one by one", or "together" for all members of one structure; "auto" is one by one on the CPU, together on
    a GPU. One by one, the costs of a member are those of a `Run` to the bit. Together
    its sums are in another order: labels are the same in float64, but in float32 a run that is thrown about beside the
    edge of explosion multiplies the rounding at every update, and may end on the other side of it.
    """
    began = time.perf_counter()
    if way not in ("auto", *METHODS):
        raise ValueError(f"way must be one of 'auto', {', '.join(map(repr, METHODS))}, got {quote(way)}")
    keep_freed_memory()
    tables = [np.full((len(members), updates), np.nan) for _ in range(2)]
    held_out = np.full(len(members), np.nan)
    with use_one_thread(), fix_order_of_sums():
        for batch in batches(members, way):
            chosen = way if way != "auto" else choose_way(members[batch[0]])
            found = split_within_memory(METHODS[chosen], [members[place] for place in batch], updates)
            tables[0][batch], tables[1][batch], held_out[batch] = found
    windows = np.array([window(member, updates) for member in members], dtype=int).reshape(-1)
    first = np.array([row[:width].mean() for row, width in zip(tables[1], windows, strict=True)])
    last = np.array([row[-width:].mean() for row, width in zip(tables[1], windows, strict=True)])
    return EnsembleResult(tables[0], first, last, held_out, time.perf_counter() - began)


def split_within_memory(method: Method, members: Sequence[Settings], updates: int) -> Found:
    """What a method finds of all members at once, or of each half where the device has too little memory for that."""
    try:
        return method(members, updates)
    except torch.OutOfMemoryError:
        if len(members) == 1:
            raise
    torch.cuda.empty_cache()
    middle = len(members) // 2
    first, second = (split_within_memory(method, some, updates) for some in (members[:middle], members[middle:]))
    return Found(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))


def window(member: Settings, updates: int) -> int:
    """How many updates the beginning and the end of a run are measured over: an epoch, but a quarter of it at most."""
    return max(1, min(updates_per_epoch(member.patches, member.batch_size), updates // 4))


def time_update(member: Settings) -> float:
    """How long one update of a member takes here, one by one, by the shortest of three."""
    return min(compute([member], 1, "one by one").seconds for _ in range(3))


def batches(members: Sequence[Settings], way: str) -> Iterator[list[int]]:
    """The places of members that go together: of one structure and kind of step, as many as memory allows."""
    alike: dict[Any, list[int]] = {}
    for place, member in enumerate(members):
        alike.setdefault((find_structure(member), StepStructure.from_knobs(member.knobs)), []).append(place)
    for places in alike.values():
        one = (choose_way(members[places[0]]) if way == "auto" else way) == "one by one"
        size = len(places) if one else count_fitting(find_problem(members[places[0]]))
        yield from (places[first : first + size] for first in range(0, len(places), size))


def one_by_one(members: Sequence[Settings], updates: int) -> Found:
    """What the step of `Run` makes of each member, one after the other."""
    cost, data_cost = (np.full((len(members), updates), np.nan) for _ in range(2))
    held_out = np.full(len(members), np.nan)
    for row, member in enumerate(members):
        problem = find_problem(member)
        state = problem.draw_start(member)
        knobs = KnobTensors.from_knobs(member.knobs, state.parameters), StepStructure.from_knobs(member.knobs)
        for update in range(updates):
            x, y = problem.batch(update + 1, member)
            with problem.chance(update + 1, member):
                step = problem.descent.step(state, x, y, *knobs)
            state = step.state
            total = step.data_cost if step.penalty is None else step.data_cost + step.penalty
            cost[row, update], data_cost[row, update] = total.item(), step.data_cost.item() / locate_patches(member, y)
            if not math.isfinite(cost[row, update]):
                break
        assert problem.held_out is not None
        x, y = problem.held_out
        with evaluation(problem.network):
            held_out[row] = accuracy(problem.descent.outputs(state, x), y).item()
    return Found(cost, data_cost, held_out)


Method = Callable[[Sequence[Settings], int], Found]
"""Members of one structure and kind of step, and updates -> what was measured of them."""
METHODS: dict[str, Method] = {"one by one": one_by_one, "together": together}
"""All ways of training members."""


def choose_way(member: Settings) -> str:
    """One by one on the CPU, where members together gain nothing; together on a GPU, which one of them cannot fill."""
    return "together" if choose_device(member).type == "cuda" else "one by one"
