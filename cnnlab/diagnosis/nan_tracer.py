"""Where the first NaN or inf of a run was made: one update is replayed, and every operation in it is looked at.

A run pays nothing for this while it trains: only the replay is traced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnnlab.diagnosis.operations import Call, compute_true_size, find_tensors, holds_anywhere, name_operation
from cnnlab.records.frame import is_nonfinite
from cnnlab.records.record import Record
from cnnlab.training import losses
from cnnlab.training.clipping import CLIPS
from cnnlab.training.metrics import is_classification, list_parts
from cnnlab.training.run import Run
from cnnlab.training.step import Descent

PHASES = ("input", "activation", "logit", "probability", "cost", "penalty", "gradient", "clip", "update", "weight")
"""Where in an update a value is made, in the order in which an update makes them."""
HAND_ON = {"AccumulateGrad", "SplitWithSizesBackward0", "ViewBackward0"}
"""Nodes that only hand a flat vector's parts to the layers; to go past them would reach other layers."""
OVERWRITES = {"copy", "fill", "zero", "set"}
"""Operations that write into a tensor without reading it."""
PROBABILITIES = {"exp", "_softmax", "softmax", "sigmoid"}
"""Operations that a cost begins with where it forms probabilities."""
COSTS = {"log", "log2", "log10", "log1p", "_log_softmax", "log_sigmoid_forward", "logsumexp", "pow", "mean"}
"""Operations after which what a cost computes is the cost."""
CLIP_CODES = {function.__code__ for function in CLIPS.values()}
PENALTY_CODES = {losses.penalty.__code__, losses.compute_penalty_gradient.__code__}


@dataclass(frozen=True)
class Event:
    """One operation that made a NaN or inf out of what held none (or a NaN out of inf)."""

    step: int
    """The update; 0 for what the run started from."""
    phase: str
    """One of PHASES."""
    layer: str
    """Name of the layer; '' where the value belongs to none, as a cost does."""
    operation: str
    """One of `cnnlab.diagnosis.operations.OPERATIONS`; 'unknown' where the run could not be replayed."""
    function: str
    """The name of torch's operation, such as `convolution`."""
    nan: bool
    """Whether it made a NaN; otherwise inf alone."""
    largest: float
    """Largest finite magnitude that went in."""
    reached: float
    """Largest magnitude of the true result, computed in float64; NaN where it cannot be."""
    precision: str
    """Floating-point type of the result."""

    @property
    def value_name(self) -> str:
        """The value in words: its phase, and its layer where it has one."""
        return f"{self.phase} of {self.layer}" if self.layer else self.phase


@dataclass(frozen=True)
class Origin:
    """The first non-finite value of a run, and the first NaN of the same update."""

    first: Event
    nan: Event | None
    """None if that update made inf alone."""


def find_first_update(record: Record) -> int | None:
    """The first update (0: the start) at which a gauge tells of a NaN or inf in any phase; None if none does."""
    rows = is_nonfinite(record.column("cost"))
    rows[0] = False
    for gauge in ("activation_nan", "activation_inf", "gradient_nan", "gradient_inf"):
        rows[1:] |= (record.column(gauge)[1:] > 0).any(axis=1)
    for gauge in ("weight_nan", "weight_inf"):
        rows |= (record.column(gauge) > 0).any(axis=1)
    found = rows.nonzero()[0]
    return int(found[0]) if len(found) else None


def find_origin(run: Run) -> Origin | None:
    """Where the first NaN or inf of a run came from; None for a run that has none. The run stays as it is."""
    step = find_first_update(run.record)
    if step is None:
        return None
    if step == 0:
        event = describe_start(run)
        return Origin(event, event)
    return replay(run, step)


def describe_start(run: Run) -> Event:
    """The event of a run that starts from weights which are not finite."""
    parameters = run.state_at(0).parameters
    place = int((~parameters.isfinite()).nonzero()[0])
    operation = "given" if run.own_network else "cast"
    finite = parameters[parameters.isfinite()]
    largest = float(finite.abs().max()) if len(finite) else 0.0
    nan = bool(parameters.isnan().any())
    precision = name_precision(parameters)
    return Event(0, "weight", find_layer(run, place), operation, "to", nan, largest, math.nan, precision)


def replay(run: Run, step: int) -> Origin | None:
    """One update of the run once more, from the state before it, with every operation traced."""
    state = run.state_at(step - 1)
    x, y = run.problem.batch(step)
    numbers, kind = run.prepare_knobs(run.record.knobs_at(step))
    tracer = NanTracer(run, step)
    for part in find_tensors(x):
        tracer.check_given(part, "input")
    tracer.check_given(state.parameters, "weight")
    traced = dataclasses.replace(run.descent, cost=functools.partial(tracer.compute_cost, run.descent.cost))
    with run.determinism(step), tracer.follow_layers(), tracer:
        made = Descent.step(traced, state, x, y, numbers, kind)
    results = [*tracer.outputs, *list_parts(made.outputs), made.data_cost, made.gradient, made.clipped, made.update]
    results += [made.parameters] if made.penalty is None else [made.penalty, made.parameters]
    tracer.name_logits(made.outputs, y)
    return tracer.find_origin(results)


def find_layer(run: Run, place: int) -> str:
    """The layer to which a number of the flat vector belongs."""
    for name, size in zip(run.layout.layers, run.layout.layer_sizes, strict=True):
        if place < size:
            return name
        place -= size
    raise ValueError(f"place must lie within the parameters, got {place} beyond them")


def name_precision(tensor: Tensor) -> str:
    """The name of a floating-point type, as settings use it."""
    return str(tensor.dtype).removeprefix("torch.")


@dataclass
class NanTracer(TorchDispatchMode):
    """Sees every operation of one update, forward and backward, and notes those that make a NaN or inf."""

    run: Run
    step: int
    events: list[Event] = field(default_factory=list)
    """What made a NaN or inf, in the order in which it happened."""
    parents: list[frozenset[int]] = field(default_factory=list)
    """For each event the places in `events` of those that its inputs came from."""
    outputs: list[Tensor] = field(default_factory=list)
    """What the layers gave."""

    def __post_init__(self) -> None:
        super().__init__()
        self.sources: dict[int, frozenset[int]] = {}
        self.kept: list[Any] = []
        self.layer = self.last = ""
        self.stage = "activation"
        self.descending = False
        self.nodes: dict[Any, str] = {}

    # -- which phase and layer is at work

    @contextlib.contextmanager
    def follow_layers(self) -> Iterator[None]:
        """Hooks on the layers that tell which one is at work."""
        with contextlib.ExitStack() as stack:
            for name in self.run.layout.layers:
                layer = self.run.network.get_submodule(name)
                stack.callback(layer.register_forward_pre_hook(functools.partial(self.enter_layer, name)).remove)
                stack.callback(layer.register_forward_hook(functools.partial(self.leave_layer, name)).remove)
            yield

    def enter_layer(self, name: str, _module: nn.Module, inputs: Any) -> None:
        """The hook of a layer that begins: what led to its inputs belongs to the layer before."""
        for part in list_parts(inputs):
            self.assign(part, self.layer)
        self.layer = name

    def leave_layer(self, name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        """The hook of a layer that is done."""
        for part in list_parts(output):
            self.assign(part, name)
            self.outputs.append(part.detach())
        self.layer = name

    def compute_cost(self, cost: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """The cost, with the note before it that the layers are done."""
        for output in list_parts(arguments[0]):
            self.assign(output, self.layer)
        self.last, self.stage = self.layer, "cost"
        return cost(*arguments)

    def assign(self, output: Tensor, layer: str) -> None:
        """Note that the nodes of the graph which lead to an output, and are not yet known, belong to a layer."""
        waiting = [output.grad_fn] if output.grad_fn is not None else []
        while waiting:
            node = waiting.pop()
            if node in self.nodes or type(node).__name__ in HAND_ON:
                continue
            self.nodes[node] = layer
            waiting += [above for above, _ in node.next_functions if above is not None]

    def find_phase(self, name: str, args: Any) -> tuple[str, str]:
        """The phase and the layer of the operation that runs now."""
        node = torch._C._current_autograd_node()
        if node is not None:
            self.descending = True
            return "gradient", self.nodes.get(node, self.last)
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

    def check_given(self, tensor: Tensor, phase: str) -> None:
        """Note what the update was given; if it is not finite, that is the event."""
        if phase == "weight":
            self.parameters = identify(tensor)
        if not tensor.isfinite().all():
            nan, precision = bool(tensor.isnan().any()), name_precision(tensor)
            self.note(Event(self.step, phase, "", "given", "data", nan, 0.0, math.nan, precision), [], [tensor])

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
        mutable = func._schema.is_mutable
        inputs = find_tensors((args, kwargs))
        if mutable and name in OVERWRITES:
            inputs = inputs[1:]
        before = [part.clone() for part in inputs] if mutable else inputs
        self.enter(name)
        result = func(*args, **kwargs)
        bad = [part for part in find_tensors(result) if part.numel() and not part.isfinite().all()]
        if not bad or name.startswith(("empty", "new_empty")) or passes_nonfinite_number((args, kwargs)):
            return result
        nan_in, inf_in = holds_anywhere(torch.isnan, before), holds_anywhere(torch.isinf, before)
        nan_out = holds_anywhere(torch.isnan, bad)
        if nan_in or (inf_in and not nan_out):
            self.mark(bad, self.find_sources([part for part in inputs if not part.isfinite().all()]))
            return result
        phase, layer = self.find_phase(name, args)
        place = self.find_place(bad[0])
        finite = [part[part.isfinite()] for part in before]
        event = Event(
            self.step, phase, layer if place is None else find_layer(self.run, place),
            name_operation(Call(func, name, args, kwargs, before, bad[0], inf_in)), func.overloadpacket.__name__,
            nan_out, max((float(part.abs().max()) for part in finite if part.numel()), default=0.0),
            math.nan if mutable else compute_true_size(func, args, kwargs), name_precision(bad[0]),
        )  # fmt: skip
        if nan_out and not inf_in and event.operation == "overflow":
            # Products that overflow to both sides within one sum: the overflow is first, the NaN comes of it.
            self.note(dataclasses.replace(event, nan=False), inputs, bad)
            event, inputs = dataclasses.replace(event, operation="inf-inf"), bad
        self.note(event, inputs, bad)
        return result

    def enter(self, name: str) -> None:
        """Tell probabilities from costs by what the cost calls first."""
        if torch._C._current_autograd_node() is not None:
            self.descending = True
        elif self.stage in ("cost", "probability") and not self.descending:
            if name in PROBABILITIES:
                self.stage = "probability"
            elif name in COSTS:
                self.stage = "cost"

    def find_place(self, tensor: Tensor) -> int | None:
        """The first bad place of a flat vector of parameters or of a gradient; None for other tensors."""
        is_flat = tensor.shape == (sum(self.run.layout.sizes),)
        return int((~tensor.isfinite()).nonzero()[0]) if is_flat else None

    # -- what came of it

    def name_logits(self, outputs: Any, targets: Any) -> None:
        """Call the values of the layer that ran last logits, if they are."""
        if is_classification(outputs, targets):
            for place, event in enumerate(self.events):
                if (event.phase, event.layer) == ("activation", self.last):
                    self.events[place] = dataclasses.replace(event, phase="logit")

    def find_origin(self, results: list[Tensor]) -> Origin | None:
        """The first event, and the first that made a NaN, among those that reached a result of the update."""
        reached: set[int] = set()
        waiting = set(self.find_sources([part for part in results if not part.isfinite().all()]))
        while waiting:
            reached |= waiting
            waiting = set().union(*(self.parents[place] for place in waiting)) - reached
        events = [self.events[place] for place in sorted(reached)]
        return Origin(events[0], next((event for event in events if event.nan), None)) if events else None


def list_running_code() -> Iterator[Any]:
    """The code of every function that is at work in this thread."""
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back  # type: ignore[assignment]


def identify(tensor: Tensor) -> int:
    """What tells the memory of a tensor from that of others."""
    return tensor.untyped_storage()._cdata


def passes_nonfinite_number(value: Any) -> bool:
    """Whether a plain number that is NaN or inf was passed: then it was meant, as in a mask."""
    return any(isinstance(part, float) and not math.isfinite(part) for part in tree_leaves(value))
