"""Looks for where the first NaN or inf of a watched loop is made, while the loop goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnnlab.diagnosis.events import Event, Origin
from cnnlab.diagnosis.operation_tracer import find_layer, name_precision
from cnnlab.diagnosis.tape import Tape
from cnnlab.diagnosis.update_replay import find_origin_on_tape
from cnnlab.training.forward_hooks import Hooks
from cnnlab.training.network import Layout


class OriginFinder:
    """Keeps the tape of an update, and finds the origin of its first value that is not finite."""

    def __init__(self, model: nn.Module, layout: Layout) -> None:
        self.model, self.layout = model, layout
        self.tape = Tape(model)
        self.origin: Origin | None = None
        self.done = False

    @property
    def hooks(self) -> tuple[Hooks, Hooks]:
        """What is to be called before and after forward passes."""
        return [(self.model, self.tape.before)], [(self.model, self.tape.after)]

    def hear(self, roots: Sequence[Any], step: int, is_broken: bool, read_weights: Callable[[], Tensor]) -> None:
        """A backward pass begins; if its cost is not finite, its origin is looked for."""
        taped = self.tape.take(roots)
        if is_broken and not self.done:
            self.done = True
            if taped is not None:
                found = find_origin_on_tape(taped, step, self.model, self.layout, read_weights())
                # Weights that are not finite later than at the start come of what was not seen.
                self.origin = None if found is not None and found.first.phase == "weight" and step > 1 else found
            self.tape.end()

    def look_at_gradient(self, step: int, weights: Tensor) -> None:
        """The gradient of an update is not finite: look for the origin in each of its backward passes."""
        if self.done:
            return
        self.done = True
        for taped in self.tape.passes:
            self.origin = find_origin_on_tape(taped, step, self.model, self.layout, weights)
            if self.origin is not None:
                break
        self.tape.end()

    def look_at_step(self, optimizer: Any, step: int, before: Tensor, after: Tensor) -> None:
        """The optimiser's own step made weights that are not finite out of a finite gradient."""
        if self.done:
            return
        self.done = True
        bad = ~after.isfinite()
        if bool(bad.any()) and bool(before.isfinite().all()):
            event = describe_step(optimizer, step, self.layout, after, int(bad.nonzero()[0]))
            self.origin = Origin(event, event if event.nan else None)
        self.tape.end()


def describe_step(optimizer: Any, step: int, layout: Layout, after: Tensor, place: int) -> Event:
    """The event of an optimiser's step: it divides by what is 0 in the weights' type, or its step is too long."""
    name = type(optimizer).__name__
    epsilon = optimizer.param_groups[0].get("eps")
    precision = name_precision(after)
    nan = bool(after.isnan().any())
    vanishes = epsilon is not None and float(torch.tensor(float(epsilon), dtype=after.dtype)) == 0
    said = f"the step of {name} leaves {precision}"
    if vanishes:
        said = f"{name} divides by the root of a mean square plus eps, and eps {epsilon:g} is 0 in {precision}"
    operation = ("0/0" if nan else "x/0") if vanishes else "overflow"
    largest = float(after[after.isfinite()].abs().max()) if bool(after.isfinite().any()) else 0.0
    return Event(
        step, "update", find_layer(layout, place), operation, name, nan, largest, float("nan"), precision, said
    )
