"""An update of a loop of the user's own made again from its tape, with every operation traced; nothing of the loop is
changed by it."""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from cnnlab.diagnosis.events import Event, Origin
from cnnlab.diagnosis.operation_tracer import OperationTracer, name_precision
from cnnlab.diagnosis.operations import find_tensors
from cnnlab.diagnosis.source_lines import is_library
from cnnlab.diagnosis.tape import UNUSED, Called, Generators, Given, Made, Taped, Weight
from cnnlab.training.network import Layout

CLOSE = 1e-2
"""A cost that is computed again may differ by so much of itself: not every sum on a GPU has a fixed order."""


def find_origin_on_tape(taped: Taped, step: int, model: nn.Module, layout: Layout, weights: Tensor) -> Origin | None:
    """Where the first NaN or inf of a backward pass was made; None if it has none, or cannot be made again.

    `weights` are those of the update, in one vector.
    """
    try:
        return Replay(taped, step, model, layout, weights).make()
    except Exception:  # the user's own code runs here; whatever it does must not end a training
        return None


def is_finite_on_tape(taped: Taped, step: int, model: nn.Module, layout: Layout, weights: Tensor) -> bool:
    """Whether a backward pass that is made again comes out as before, with all its numbers finite."""
    try:
        replay = Replay(taped, step, model, layout, weights)
        return replay.make() is None and replay.same
    except Exception:  # as above
        return False


class Replay:
    """One backward pass and all that it is computed from, made again."""

    def __init__(self, taped: Taped, step: int, model: nn.Module, layout: Layout, weights: Tensor) -> None:
        self.taped, self.same = taped, False
        shared = {id(part): part for part in (*model.parameters(), *model.buffers())}
        self.model = copy.deepcopy(model, shared)  # so that no state of the user's own modules changes
        views = layout.views(weights)
        named = dict(model.named_parameters())
        self.weights = {name: view.detach().requires_grad_(named[name].requires_grad) for name, view in views.items()}
        self.buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        forget_statistics(self.model, self.buffers)
        self.tracer = OperationTracer(step, self.model, layout.layers, Replay.make.__code__)
        self.tracer.name_parameters(self.weights)
        self.made: list[list[Tensor]] = []
        self.given: dict[int, Tensor] = {}

    def make(self) -> Origin | None:
        """Forward and backward once more; None if what comes out is not what came out before."""
        self.check_given()
        with fork_generators(self.weights), torch.enable_grad(), self.tracer.trace():
            for called in self.taped.calls:
                self.call(called)
            self.tracer.place = None
            roots = [self.find(root) for root in self.taped.roots]
            self.same = self.is_same(roots)
            if not self.same:
                return None
            parameters = [weight for weight in self.weights.values() if weight.requires_grad]
            ones = [torch.ones_like(root) for root in roots]
            found = torch.autograd.grad(roots, parameters, ones, allow_unused=True)
        gradients = [part for part in found if part is not None]
        found_here = self.tracer.find_origin([*self.tracer.outputs, *(root.detach() for root in roots), *gradients])
        return found_here or self.blame_function()

    def blame_function(self) -> Origin | None:
        """The slope of the only function that was not made again: one of autograd written by hand."""
        makers = {given.made_by for called in self.taped.calls for given in find_given(called.arguments)} - {""}
        if len(makers) != 1 or not all(bool(value.isfinite().all()) for value in self.taped.values):
            return None
        return Origin(describe_function(self.tracer, makers.pop(), "gradient"), None)

    def check_given(self) -> None:
        """Look at what the update was given: weights, buffers, and what came into the calls."""
        names = {tensor.data_ptr(): name for name, tensor in list_named_tensors()}
        for name, weight in self.weights.items():
            self.tracer.check_given(weight.detach(), "weight", name.rpartition(".")[0])
        for name, buffer in self.buffers.items():
            if buffer.is_floating_point():
                self.tracer.check_given(buffer, "buffer", name, f"buffer {name}")
        for called in self.taped.calls:
            for given in find_given(called.arguments):
                tensor = given.tensor
                if not find_tensors(tensor) or id(tensor) in self.given:
                    continue
                if given.requires_grad:
                    self.check_made(given)
                    continue
                name = names.get(tensor.data_ptr(), "")
                phase = "input" if called.function is None else "target" if name else "constant"
                self.given[id(tensor)] = tensor.clone()
                said = f"{phase}s {name}" if name else "a constant in the cost" if phase == "constant" else ""
                self.tracer.check_given(self.given[id(tensor)], phase, "", said)

    def check_made(self, given: Given) -> None:
        """Look at what a function of autograd written by hand gave, which is not called again."""
        if given.made_by and not bool(given.tensor.isfinite().all()):
            event = describe_function(self.tracer, given.made_by, "cost")
            self.tracer.note(event, [], [self.find(given)])

    def call(self, called: Called) -> None:
        """Make one call again."""
        if called is UNUSED:
            self.made.append([])
            return
        arguments, keywords = self.unpack(called.arguments)
        kind = next(iter(self.weights.values())).device.type
        self.tracer.place = called.place
        autocast = torch.autocast(kind, dtype=called.autocast, enabled=called.autocast is not None)
        with autocast, torch.set_grad_enabled(called.grad):
            if called.function is None:
                set_generators(called.generators, self.weights)
                tensors = {**self.weights, **self.buffers}
                result = functional_call(self.model, tensors, tuple(arguments), keywords)
            else:
                result = called.function(*arguments, **keywords)
        parts = [part for part in tree_leaves(result) if isinstance(part, Tensor)]
        self.made.append(parts or [part for part in arguments[:1] if isinstance(part, Tensor)])

    def unpack(self, value: Any) -> Any:
        """An argument with its tensors."""
        if isinstance(value, (Made, Weight, Given)):
            return self.find(value)
        if type(value) in (tuple, list):
            return type(value)([self.unpack(each) for each in value])
        if type(value) is dict:
            return {key: self.unpack(each) for key, each in value.items()}
        return value

    def find(self, value: Made | Weight | Given) -> Tensor:
        """A tensor of the calls made so far."""
        if isinstance(value, Made):
            return self.made[value.call][value.part]
        if isinstance(value, Weight):
            return self.weights[value.name]
        at = id(value.tensor)
        if at not in self.given:
            clone = value.tensor.detach().clone()
            self.given[at] = clone.requires_grad_() if value.requires_grad else clone
        return self.given[at]

    def is_same(self, roots: list[Tensor]) -> bool:
        """Whether the costs are those of before."""
        return all(
            torch.allclose(root.detach(), was, rtol=CLOSE, equal_nan=True)
            for root, was in zip(roots, self.taped.values, strict=True)
        )


def describe_function(tracer: OperationTracer, name: str, phase: str) -> Event:
    """The event of a function of autograd that was written by hand."""
    said = f"the slope that the backward of {name} gives" if phase == "gradient" else f"what {name} gives"
    precision = name_precision(next(tracer.network.parameters()))
    layer = tracer.last if phase == "gradient" else ""
    return Event(tracer.step, phase, layer, "undefined", name, True, 0.0, math.nan, precision, said)


def forget_statistics(model: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Put aside what batch norms in training have gathered: they do not use it, and the update has spoilt it."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.training:
            for own in ("running_mean", "running_var"):
                full = f"{name}.{own}" if name else own
                if full in buffers:
                    buffers[full].fill_(float(own == "running_var"))


def find_given(value: Any) -> Iterator[Given]:
    """The tensors in packed arguments that came from elsewhere."""
    if isinstance(value, Given):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from find_given(each)


@contextlib.contextmanager
def fork_generators(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """A block after which torch's generators are as they were."""
    device = next(iter(weights.values())).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def set_generators(states: Generators, weights: Mapping[str, Tensor]) -> None:
    """Put torch's generators into states that were kept."""
    if states is not None:
        torch.set_rng_state(states[0])
        if states[1] is not None:
            torch.cuda.set_rng_state(states[1], next(iter(weights.values())).device)


def list_named_tensors(compute: Callable[..., Any] | None = None) -> Iterator[tuple[str, Tensor]]:
    """What the user calls the tensors that a function and the running functions hold, the innermost last."""
    frame, scopes = sys._getframe(1), []
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            scopes.append(dict(frame.f_locals))
        frame = frame.f_back  # type: ignore[assignment]
    if compute is not None:
        scopes.insert(0, {**inspect.getclosurevars(compute).globals, **inspect.getclosurevars(compute).nonlocals})
    for scope in reversed(scopes):
        for name, value in reversed(scope.items()):
            for part in tree_leaves(value) if is_plain(value) else ():
                if isinstance(part, Tensor) and not part.requires_grad and part.layout == torch.strided:
                    yield name, part


def trace_cost(
    compute: Callable[[], Tensor], step: int, model: nn.Module, layout: Layout, generators: Generators
) -> Origin | None:
    """Where the first NaN or inf of a cost and its gradient is made; buffers and generators are then as they were."""
    tracer = OperationTracer(step, model, layout.layers, trace_cost.__code__)
    parameters = dict(model.named_parameters())
    tracer.name_parameters(parameters)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for name, tensor in list_named_tensors(compute if inspect.isfunction(compute) else None):
        if find_tensors(tensor):
            tracer.check_given(tensor, "target", "", f"targets {name}")
    for name, weight in parameters.items():
        tracer.check_given(weight.detach(), "weight", name.rpartition(".")[0])
    try:
        forget_statistics(model, {name: buffer.data for name, buffer in model.named_buffers()})
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                tracer.check_given(buffer, "buffer", name, f"buffer {name}")
        with fork_generators(parameters), torch.enable_grad(), tracer.trace():
            set_generators(generators, parameters)
            cost = compute()
            wanted = [weight for weight in parameters.values() if weight.requires_grad]
            found = torch.autograd.grad(cost, wanted, torch.ones_like(cost), allow_unused=True)
    finally:
        for name, buffer in model.named_buffers():
            buffer.data.copy_(buffers[name])
    return tracer.find_origin([*tracer.outputs, cost.detach(), *(part for part in found if part is not None)])


def is_plain(value: Any) -> bool:
    """Whether a local variable is a tensor, or a container that may hold some."""
    return isinstance(value, (Tensor, tuple, list, dict)) and (isinstance(value, Tensor) or len(value) < 100)
