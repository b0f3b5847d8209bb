"""Looks for where the first NaN or inf of a watched loop is made, while the loop goes on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnlab.diagnosis.events import Event, Origin
from cnnlab.diagnosis.operation_tracer import find_layer, name_precision
from cnnlab.diagnosis.tape import Tape, Taped
from cnnlab.diagnosis.update_replay import find_origin_on_tape, is_finite_on_tape, trace_cost
from cnnlab.diagnosis.watch_arguments import is_finite
from cnnlab.records.formats import format_number
from cnnlab.training.forward_hooks import Hooks
from cnnlab.training.loop_recorder import LoopRecorder, Update
from cnnlab.training.metrics import is_read_at_once
from cnnlab.training.network import Layout

CALM = 1e6
"""Gradients and weights below this do not make a step overflow."""
MOST_TRIES = 3
"""Updates that a scaler may leave out whose cost is looked at."""


@dataclass(frozen=True, eq=False)
class Kept:
    """What an update can be made again from."""

    step: int
    weights: Tensor
    """Those before it, in one vector."""
    passes: tuple[Taped, ...]
    """Its backward passes; none where they were not seen."""


class OriginFinder:
    """Keeps the tape of an update, and finds the origin of its first value that is not finite.

    On the CPU each update is looked at as it is made. On a device that would have to be waited for it is looked at
    when the next one steps: by then the answer is there. A watch that stops before a NaN `waits` all the same.
    """

    def __init__(self, model: nn.Module, layout: Layout, device: torch.device, waits: bool) -> None:
        self.model, self.layout = model, layout
        self.at_once = waits or is_read_at_once(device)
        self.begin()

    def begin(self) -> None:
        """Know of no update that broke."""
        self.tape = Tape(self.model)
        self.origin: Origin | None = None
        self.left_out: Origin | None = None
        self.broken: Kept | None = None
        self.waiting: tuple[Kept, Answer] | None = None
        self.tries = 0
        self.after_backward = False

    def is_averted(self, updates: int) -> bool:
        """Whether the update that broke was never made, for the loop ended before it; so many updates were."""
        return self.broken is not None and self.broken.step > updates

    @property
    def hooks(self) -> tuple[Hooks, Hooks]:
        """What is to be called before and after forward passes."""
        return [(self.model, self.tape.before)], [(self.model, self.tape.after)]

    @property
    def done(self) -> bool:
        """Whether an update that breaks has been seen, so that nothing more is looked for."""
        return self.broken is not None

    def hear(
        self,
        roots: Sequence[Any],
        step: int,
        is_broken: bool,
        may_pass: bool,
        read_weights: Callable[[], Tensor],
    ) -> None:
        """A backward pass begins; if its cost is not finite, its origin is looked for.

        It `may_pass` where a scaler of mixed precision leaves the update out.
        """
        self.look_back()
        taped = self.tape.take(roots)
        if not is_broken or self.done or self.tries >= MOST_TRIES:
            return
        kept = Kept(step, read_weights(), () if taped is None else (taped,))
        if may_pass:
            self.tries += 1
            self.origin = self.replay_passes(kept)
            self.left_out = self.left_out or self.origin
        else:
            self.end(kept, self.replay_passes(kept))

    def look_at_gradient(self, step: int, update: Update) -> None:
        """Look for the origin of the gradient that an optimiser is given, or of its cost, if that is not finite."""
        if not self.at_once or self.done:
            return
        if not is_finite(update.gradient) or (update.cost is not None and bool(update.cost.isnan())):
            kept = Kept(step, update.before, tuple(self.tape.passes))
            origin = self.replay_passes(kept)
            self.after_backward = origin is None and self.is_finite_once_more(kept)
            self.end(kept, origin)

    def is_finite_once_more(self, kept: Kept) -> bool:
        """Whether the only backward pass of an update is finite where it is made again; a sum of several may not be."""
        own = (kept.step, self.model, self.layout, kept.weights)
        return len(kept.passes) == 1 and is_finite_on_tape(kept.passes[0], *own)

    def look_at_step(self, optimizer: Any, step: int, update: Update, after: Tensor) -> None:
        """The step of an optimiser is done: look for the origin of weights that it has made not finite."""
        passes = tuple(self.tape.passes)
        self.tape.stop()  # a closure has begun it anew
        self.tape.drop()
        if self.done:
            return
        kept = Kept(step, update.before, passes)
        if not self.at_once:
            self.waiting = kept, Answer(update.gradient.isfinite().all() & after.isfinite().all())
        elif not is_finite(after) and is_finite(update.before):
            self.end(kept, describe_step(optimizer, step, self.layout, after, update))
        else:
            self.origin = None  # what a scaler left out broke nothing

    def look_back(self) -> None:
        """Look for the origin in the update before, if the device says that it was not finite."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not self.done and not waiting[1].read():
            self.end(waiting[0], self.replay_passes(waiting[0]))

    def replay_passes(self, kept: Kept) -> Origin | None:
        """Make the backward passes of an update again until one tells; None if none does."""
        for taped in kept.passes:
            found = find_origin_on_tape(taped, kept.step, self.model, self.layout, kept.weights)
            if found is not None and found.first.phase != "weight":
                return found
            if found is not None and kept.step == 1:
                return Origin(dataclasses.replace(found.first, step=0), found.nan)  # they were so at the start
        return None

    def end(self, kept: Kept, origin: Origin | None) -> None:
        """An update has broken: nothing more is looked for."""
        self.broken, self.origin = kept, origin
        self.tape.end()

    def trace(self, compute: Callable[[], Tensor], recorder: LoopRecorder) -> Origin | None:
        """Have a cost computed once more at the weights of the update that broke; at the present ones if none did."""
        present = recorder.flat()
        kept = Kept(recorder.updates + 1, present, ()) if self.broken is None else self.broken
        generators = next((called.generators for taped in kept.passes for called in taped.calls), None)
        recorder.put_back(kept.weights)
        try:
            return trace_cost(compute, kept.step, self.model, self.layout, generators)
        finally:
            recorder.put_back(present)


class Answer:
    """A yes or no that a device gives by and by, brought to the host without waiting for what follows it."""

    def __init__(self, flag: Tensor) -> None:
        self.flag, self.event = flag, None
        if flag.device.type == "cuda":
            self.flag = torch.empty((), dtype=torch.bool, pin_memory=True)
            self.flag.copy_(flag, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def read(self) -> bool:
        """The answer, waited for if need be."""
        if self.event is not None:
            self.event.synchronize()
        return bool(self.flag)


def describe_step(optimizer: Any, step: int, layout: Layout, after: Tensor, update: Update) -> Origin:
    """The origin of weights that an optimiser's step makes not finite out of a finite gradient."""
    nan, precision = bool(after.isnan().any()), name_precision(after)
    operation, said = explain_step(optimizer, after.dtype, nan)
    largest = float(after[after.isfinite()].abs().max()) if bool(after.isfinite().any()) else 0.0
    layer = find_layer(layout, int((~after.isfinite()).nonzero()[0]))
    if operation == "overflow" and nan:
        explained = explain_own_arithmetic(optimizer, layout, after, update, layer)
        operation, said = ("undefined", explained) if explained else (operation, said)
    event = Event(
        step, "update", layer, operation, type(optimizer).__name__, nan, largest, float("nan"), precision, said
    )
    return Origin(event, event if nan else None)


def explain_step(optimizer: Any, dtype: torch.dtype, nan: bool) -> tuple[str, str]:
    """The operation and its argument: what the step was given is not finite, or it divides by 0, or it is too long."""
    name, precision = type(optimizer).__name__, str(dtype).removeprefix("torch.")
    groups: list[dict[str, Any]] = optimizer.param_groups
    rates = [float(group["lr"]) for group in groups if "lr" in group]
    bad = next((rate for rate in rates if not math.isfinite(rate)), None)
    if bad is not None:
        return "undefined", f"the learning rate of {name} is {format_number(bad)}"
    for state in optimizer.state.values():
        for key, value in state.items() if isinstance(state, dict) else ():
            if isinstance(value, Tensor) and value.is_floating_point() and bool(value.isnan().any()):
                return "undefined", f"{name} carries NaN on in its {key}"
    least = find_least_variance(optimizer)
    if least < 0 and nan:
        said = f"{name}: the root of {format_number(least)}, the mean of squares less the square of the mean"
        return "root of a negative number", said
    epsilon = groups[0].get("eps")
    if epsilon is not None and float(torch.tensor(float(epsilon), dtype=dtype)) == 0:
        said = f"{name} divides by the root of a mean square plus eps, and eps {epsilon:g} is 0 in {precision}"
        return ("0/0" if nan else "x/0"), said
    return "overflow", f"the step of {name} leaves {precision}"


def find_least_variance(optimizer: Any) -> float:
    """The least mean of squares less the square of the mean that a centred optimiser takes the root of; 0 without."""
    least = 0.0
    for state in optimizer.state.values():
        kept = state if isinstance(state, dict) else {}
        squares, mean = kept.get("square_avg"), kept.get("grad_avg")
        if isinstance(squares, Tensor) and isinstance(mean, Tensor):
            least = min(least, float(squares.addcmul(mean, mean, value=-1).min()))
    return least


def explain_own_arithmetic(optimizer: Any, layout: Layout, after: Tensor, update: Update, layer: str) -> str:
    """Why a NaN is one of the optimiser's own arithmetic, and no overflow; '' where the numbers are large."""
    gradient = layout.views(update.gradient)
    if not max(float(part.abs().max()) for part in (update.gradient, update.before)) < CALM:
        return ""
    name = type(optimizer).__name__
    bad = next(each for each, part in layout.views(after).items() if bool(part.isnan().any()))
    zero = f"; the gradient of {bad} is 0 throughout" if not bool(gradient[bad].any()) else ""
    return f"{name} gives NaN in {bad or layer} for a gradient and weights of usual size{zero}"
