"""Every operation of one update as it is made again: which makes a NaN or inf, in which layer, at which line."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnnlab.diagnosis.arguments import (
    add_whole,
    describe_argument,
    describe_given,
    describe_slope,
    name_function,
    name_node,
)
from cnnlab.diagnosis.events import Event, Origin
from cnnlab.diagnosis.operations import (
    UNDEFINED_KINDS,
    Call,
    compute_true_size,
    find_tensors,
    holds_anywhere,
    holds_nonfinite,
    name_operation,
    passes_number,
)
from cnnlab.diagnosis.source_lines import Place, describe_place, find_place
from cnnlab.training import losses
from cnnlab.training.clipping import CLIPS
from cnnlab.training.metrics import is_classification, list_parts
from cnnlab.training.network import Layout

OVERWRITES = {"copy", "fill", "zero", "set"}
"""Operations that write into a tensor without reading it."""
RUNNING = {"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"}
"""Operations that write running statistics into what they are given, though their schema does not say so."""
CONSTANTS = {"scalar_tensor", "full", "fill", "full_like", "where", "masked_fill"}
"""Operations by which a function of torch puts in a NaN of its own."""
SATURATING = {"exp", "_softmax", "_safe_softmax", "softmax", "sigmoid", "tanh"}
"""Operations that round to 0 or 1 far out."""
SOFTENS = {"_softmax", "_log_softmax", "_safe_softmax", "logsumexp", "exp"}
"""Operations that take -inf for a probability of 0, so that it is a mask and no fault."""
PROBABILITIES = {"exp", "_softmax", "softmax", "sigmoid"}
"""Operations that a cost begins with where it forms probabilities."""
COSTS = {"log", "log2", "log10", "log1p", "_log_softmax", "log_sigmoid_forward", "logsumexp", "pow", "mean"}
"""Operations after which what a cost computes is the cost."""
CLIP_CODES = {function.__code__ for function in CLIPS.values()}
PENALTY_CODES = {losses.penalty.__code__, losses.compute_penalty_gradient.__code__}


@dataclasses.dataclass(frozen=True)
class Written:
    """One call of a function of torch in a forward pass or a cost."""

    name: str
    """Its name, as the user wrote it."""
    layer: str
    """The layer that was at work."""
    place: Place | None
    """Where the user's code called it."""


class OperationTracer(TorchDispatchMode):
    """Sees every operation of one update, forward and backward, and notes those that make a NaN or inf.

    `end` is the code of the function within which the update is made again: no line of code beyond it is named. `flat`
    is the layout of parameters that are one vector; without it no vector is taken for one.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: to keep torch.compile out of here, torch would import it, 900 modules and 130 MiB."""
        return False

    def __init__(
        self, step: int, network: nn.Module, layers: Sequence[str], end: CodeType, flat: Layout | None = None
    ) -> None:
        super().__init__()
        self.step, self.network, self.end, self.flat = step, network, end, flat
        self.layers = frozenset(layers)
        self.events: list[Event] = []
        self.parents: list[frozenset[int]] = []
        self.outputs: list[Tensor] = []
        self.meant: set[int] = set()
        self.parameter_names: dict[int, str] = {}
        self.sources: dict[int, frozenset[int]] = {}
        self.saturated: dict[int, str] = {}
        self.kept: list[Any] = []
        self.layer = self.owner = self.last = self.function = ""
        self.passed: Any = ()
        self.stage = "activation"
        self.descending = False
        self.starts: list[int] = []
        self.written: list[Written] = []
        self.parameters = -1
        self.place: Place | None = None

    # -- which phase, layer and line is at work

    @contextlib.contextmanager
    def trace(self) -> Iterator[None]:
        """A block in which all operations are seen."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.network.register_forward_pre_hook(self.begin_layers).remove)
            for name, module in self.network.named_modules():
                if name in self.layers or not list(module.children()):
                    stack.callback(module.register_forward_pre_hook(functools.partial(self.enter_layer, name)).remove)
                    stack.callback(module.register_forward_hook(functools.partial(self.leave_layer, name)).remove)
            stack.callback(self.network.register_forward_hook(self.begin_cost).remove)
            stack.enter_context(FunctionNames(self))
            stack.enter_context(self)
            yield

    def enter_layer(self, name: str, _module: nn.Module, _inputs: Any) -> None:
        """The hook of a layer that begins."""
        self.layer = name
        if name in self.layers:
            self.owner = name

    def leave_layer(self, name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        """The hook of a layer that is done: what follows belongs to the last one that has parameters."""
        self.outputs += [part.detach() for part in list_parts(output)]
        if name in self.layers:
            self.owner = name
        self.layer = self.owner

    def compute_cost(self, cost: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """The cost, with the note before it that the layers are done."""
        self.begin_cost()
        return cost(*arguments)

    def begin_cost(self, *_: Any) -> None:
        """The hook of the network that is done: what is computed from now on belongs to the cost."""
        self.last, self.stage = self.owner, "cost"

    def begin_layers(self, _module: nn.Module, inputs: Any) -> None:
        """The hook of the network that is called; what it is given was perhaps taken for targets."""
        self.stage = "activation"
        for part in find_tensors(inputs):
            if all(self.events[place].phase == "target" for place in self.find_sources([part])):
                self.check_given(part, "input")

    def note_function(self, function: Any, passed: Any) -> None:
        """Note a call of a function of torch, whose nodes of the graph will have numbers from now on."""
        name = str(getattr(function, "__name__", "")).strip("_")
        name = {"truediv": "div", "rtruediv": "div", "rdiv": "div", "rpow": "pow"}.get(name, name)
        self.function, self.passed = name, passed
        if torch._C._current_autograd_node() is None and not self.descending:
            self.starts.append(torch._C._autograd._get_sequence_nr())
            self.written.append(Written(name, self.layer, self.find_line()))

    def return_to_forward(self, values: Any) -> None:
        """Go on with the forward pass or the cost after a slope within it, once values have a graph again."""
        if self.descending and torch._C._current_autograd_node() is None and torch.is_grad_enabled():
            self.descending = not any(part.requires_grad for part in find_tensors(values))

    def find_line(self) -> Place | None:
        """Where the user's code calls what runs now; in a call that is made again from a tape, where it did."""
        return find_place(self.end) or self.place

    def find_written(self, node: Any) -> Written | None:
        """The call that made a node of the graph."""
        at = bisect.bisect_right(self.starts, node._sequence_nr()) - 1
        return self.written[at] if at >= 0 else None

    def find_phase(self, name: str, args: Any) -> tuple[str, str]:
        """The phase and the layer of the operation that runs now."""
        node = torch._C._current_autograd_node()
        if node is not None:
            self.descending = True
            written = self.find_written(node)
            return "gradient", (written.layer if written is not None else "") or self.last
        if self.stage == "activation":
            return "activation", self.layer
        codes = set(list_running_code())
        if codes & CLIP_CODES:
            return "clip", ""
        if codes & PENALTY_CODES:
            return "penalty", ""
        if self.descending:
            tensors = [part for part in args if isinstance(part, Tensor)]
            moved = name == "sub" and tensors and identify(tensors[0]) == self.parameters
            return ("weight" if moved else "update"), ""
        return self.stage, self.last if self.stage == "probability" else ""

    # -- what the operations make

    def name_parameters(self, views: Mapping[str, Tensor]) -> None:
        """Say what the parameters are called, by the places of their memory."""
        self.parameter_names = {view.data_ptr(): name for name, view in views.items() if view.numel()}

    def check_given(self, tensor: Tensor, phase: str, layer: str = "", name: str = "") -> None:
        """Note what the update was given; if it is not finite, that is the event. `name` is what the user calls it."""
        if phase == "weight":
            self.parameters = identify(tensor)
        if tensor.numel() and not tensor.isfinite().all():
            self.note(self.make_given(tensor, phase, layer, describe_given(tensor, name)), [], [tensor])

    def make_given(self, tensor: Tensor, phase: str, layer: str, argument: str, source: str = "") -> Event:
        """The event of a value that came in."""
        nan, precision = bool(tensor.isnan().any()), name_precision(tensor)
        return Event(self.step, phase, layer, "given", "data", nan, 0.0, math.nan, precision, argument, source)

    def note(self, event: Event, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Keep an event, and mark the tensors that carry it on."""
        self.events.append(event)
        self.parents.append(self.find_sources(inputs))
        self.mark(outputs, frozenset([len(self.events) - 1]))

    def find_sources(self, tensors: list[Tensor]) -> frozenset[int]:
        """The places of the events that tensors came from."""
        return frozenset[int]().union(*(self.sources.get(identify(part), frozenset()) for part in tensors))

    def mark(self, outputs: list[Tensor], sources: frozenset[int]) -> None:
        """Mark tensors as what came of events; they are kept, so that no other takes their memory."""
        self.sources.update(dict.fromkeys(map(identify, outputs), sources))
        self.kept += outputs

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.rstrip("_") or func.overloadpacket.__name__
        mutable = func._schema.is_mutable or name in RUNNING
        inputs = find_tensors((args, {key: value for key, value in kwargs.items() if key not in ("out", "grad_input")}))
        if mutable and name in OVERWRITES:
            inputs = inputs[1:]
        before = [part.clone() for part in inputs] if mutable else inputs
        self.enter(name)
        result = func(*args, **kwargs)
        self.note_saturation(name, inputs, result)
        self.note_mask(name, before)
        bad = [part for part in find_tensors(result) if part.numel() and not part.isfinite().all()]
        if not bad or name.startswith(("empty", "new_empty")):
            return result
        if passes_number(math.isinf, (args, kwargs)) and not passes_number(math.isnan, (args, kwargs)):
            return result  # it was meant, as in a mask
        nan_in, inf_in = holds_anywhere(torch.isnan, before), holds_anywhere(torch.isinf, before)
        nan_out = holds_anywhere(torch.isnan, bad)
        came_in = nan_in or passes_number(math.isnan, (args, kwargs)) or (inf_in and not nan_out)
        if came_in and not self.makes_within_function(inputs) and name != "logsumexp":
            self.mark_carried(inputs, before, bad)
            return result
        reached = math.nan if mutable else compute_true_size(func, args, kwargs)
        if mutable and before and args and args[0] is inputs[0]:
            args = (before[0], *args[1:])
        call = Call(func, name, args, kwargs, before, bad[0], inf_in, reached)
        event = self.make_event(call, nan_out)
        if nan_out and not inf_in and event.operation == "overflow":
            # Products that overflow to both sides within one sum: the overflow is first, the NaN comes of it.
            self.note(dataclasses.replace(event, nan=False), inputs, bad)
            event, inputs = dataclasses.replace(event, operation="inf-inf"), bad
        self.note(event, inputs, bad)
        return result

    def note_mask(self, name: str, inputs: list[Tensor]) -> None:
        """Note that what was given is a mask, if it comes to a softmax as -inf and nothing worse."""
        if name not in SOFTENS or torch._C._current_autograd_node() is not None or self.descending:
            return
        sources = self.find_sources(inputs)
        if sources and not any(bool((part.isnan() | (part == math.inf)).any()) for part in inputs):
            self.meant |= {at for at in sources if self.events[at].operation == "given" and not self.events[at].nan}

    def note_saturation(self, name: str, inputs: list[Tensor], result: Any) -> None:
        """Note what gives exactly 0 or 1, and what is computed from that."""
        if torch._C._current_autograd_node() is not None or self.descending:
            return
        found = next((self.saturated[identify(part)] for part in inputs if identify(part) in self.saturated), "")
        for part in find_tensors(result):
            if name in SATURATING and bool(((part == 0) | (part == 1)).any()):
                found = name.strip("_")
            if found:
                self.saturated[identify(part)] = found
                self.kept.append(part)

    def makes_within_function(self, inputs: list[Tensor]) -> bool:
        """Whether a NaN that was in no input was put in by torch itself, within a function that was given none."""
        if not self.function or any(identify(part) in self.sources for part in inputs):
            return False
        if torch._C._current_autograd_node() is not None and any(map(holds_nonfinite, inputs)):
            return False  # a mask that the forward pass has kept for the slope
        return not any(holds_nonfinite(part) for part in tree_leaves(self.passed))

    def mark_carried(self, inputs: list[Tensor], before: list[Tensor], bad: list[Tensor]) -> None:
        """Mark results with what their inputs came from; what came from no event was a constant."""
        carried = [part for part, was in zip(inputs, before, strict=True) if not was.isfinite().all()]
        sources = self.find_sources(carried)
        unknown = [part for part in carried if identify(part) not in self.sources]
        if torch._C._current_autograd_node() is None and not self.descending and (unknown or not carried):
            made = unknown[0] if unknown else bad[0]
            source = describe_place(self.find_line())
            event = self.make_given(made, "constant", "", describe_given(made, "a constant in the cost"), source)
            self.note(event, carried, bad)
            if not event.nan:
                self.meant.add(len(self.events) - 1)
            sources |= {len(self.events) - 1}
        self.mark(bad, sources)

    def make_event(self, call: Call, nan: bool) -> Event:
        """The event of a call."""
        phase, layer = self.find_phase(call.name, call.arguments)
        place = self.find_number(call.result)
        operation = name_operation(call)
        node = torch._C._current_autograd_node()
        if node is None:
            function = self.function if call.name in CONSTANTS and self.function else name_function(call)
            source = describe_place(self.find_line())
            said = describe_argument(call, function) if operation in (*UNDEFINED_KINDS, "exp overflow") else ""
            argument = self.add_parameter(add_whole(said, function, self.function), layer, call.inputs)
        else:
            # Of a function of autograd written by hand the user's own backward is running now.
            own, written = find_place(self.end), self.find_written(node)
            function, place_there = name_node(node), own or (None if written is None else written.place)
            source = describe_place(place_there)
            said = describe_slope(node, call.result) if operation in UNDEFINED_KINDS else ""
            argument = add_whole(said, function, "" if written is None or own is not None else written.name)
        return Event(
            self.step, phase, layer if place is None or self.flat is None else find_layer(self.flat, place), operation,
            function, nan, call.largest, call.reached, name_precision(call.result), argument, source,
            next((self.saturated[identify(part)] for part in call.inputs if identify(part) in self.saturated), ""),
        )  # fmt: skip

    def add_parameter(self, said: str, layer: str, inputs: list[Tensor]) -> str:
        """What an operation was asked for, with the parameter that it was given where no layer says whose it is."""
        named = next(filter(None, (self.parameter_names.get(part.data_ptr()) for part in inputs)), "")
        return f"{said}, of the parameter {named}" if said and named and not layer else said

    def enter(self, name: str) -> None:
        """Tell probabilities from costs by what the cost calls first."""
        if torch._C._current_autograd_node() is not None:
            self.descending = True
        elif self.stage in ("cost", "probability") and not self.descending:
            if name in PROBABILITIES:
                self.stage = "probability"
            elif name in COSTS:
                self.stage = "cost"

    def find_number(self, tensor: Tensor) -> int | None:
        """The first bad place of a flat vector of parameters or of a gradient; None for other tensors."""
        is_flat = self.flat is not None and tensor.shape == (sum(self.flat.sizes),)
        return int((~tensor.isfinite()).nonzero()[0]) if is_flat else None

    # -- what came of it

    def name_logits(self, outputs: Any, targets: Any) -> None:
        """Call the values of the layer that ran last logits, if they are."""
        if is_classification(outputs, targets):
            for place, event in enumerate(self.events):
                if (event.phase, event.layer) == ("activation", self.last):
                    self.events[place] = dataclasses.replace(event, phase="logit")

    def find_origin(self, results: list[Tensor]) -> Origin | None:
        """The first event, and the first that made a NaN, among those that reached a result of the update.

        An infinity that was given as a constant, as a mask is, counts only if nothing else did it.
        """
        reached: set[int] = set()
        waiting = set(self.find_sources([part for part in results if not part.isfinite().all()]))
        while waiting:
            reached |= waiting
            waiting = set().union(*(self.parents[place] for place in waiting)) - reached
        chosen = sorted(reached - self.meant) or sorted(reached)
        events = [self.events[place] for place in chosen]
        if not events:
            return None
        return Origin(self.add_given(events[0]), next((event for event in events if event.nan), None))

    def add_given(self, event: Event) -> Event:
        """An event with a word of what came in that was not finite, though it did not come there itself."""
        given = {at: each.phase for at, each in enumerate(self.events) if each.operation == "given"}
        phases = {phase for at, phase in given.items() if phase in ("input", "target") and at not in self.meant}
        if given and set(given) <= self.meant:
            event = dataclasses.replace(event, masked=True)
        if not phases or event.operation not in UNDEFINED_KINDS:
            return event
        held = " and ".join(f"{phase}s" for phase in sorted(phases))
        return dataclasses.replace(event, argument=f"{event.argument or event.function}; the {held} hold NaN or inf")


class FunctionNames(TorchFunctionMode):
    """Tells a tracer of each function of torch that is called, by the name and at the line that the user wrote."""

    def __init__(self, tracer: OperationTracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.tracer.return_to_forward((args, kwargs))
        self.tracer.note_function(func, (args, kwargs))
        try:
            result = func(*args, **(kwargs or {}))
        finally:
            self.tracer.function = ""
        self.tracer.return_to_forward(result)
        return result


def find_layer(layout: Layout, place: int) -> str:
    """The layer to which a number of the flat vector belongs."""
    for name, size in zip(layout.layers, layout.layer_sizes, strict=True):
        if place < size:
            return name
        place -= size
    raise ValueError(f"place must lie within the parameters, got {place} beyond them")


def name_precision(tensor: Tensor) -> str:
    """The name of a floating-point type, as settings use it."""
    return str(tensor.dtype).removeprefix("torch.")


def list_running_code() -> Iterator[Any]:
    """The code of every function that is at work in this thread."""
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back  # type: ignore[assignment]


def identify(tensor: Tensor) -> int:
    """What tells the memory of a tensor from that of others."""
    return tensor.untyped_storage()._cdata
