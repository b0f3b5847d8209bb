"""Where the first NaN or inf of a run was made: one update is replayed, and every operation in it is looked at.

A healthy run pays nothing for this: only the replay is watched. Knows run and the rooms below it; no widgets, no plots.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cnnlab.records.record import Record, is_nonfinite
from cnnlab.training import losses as objective
from cnnlab.training.clipping import CLIPS
from cnnlab.training.metrics import flat_parts, is_classification
from cnnlab.training.run import Run
from cnnlab.training.step import Descent

PHASES = ("input", "activation", "logit", "probability", "cost", "penalty", "gradient", "clip", "update", "weight")
"""Where in an update a value is made, in the order in which an update makes them."""
OPERATIONS = (
    "given", "cast", "overflow", "exp overflow", "log(0)", "log of a negative number", "root of a negative number",
    "0/0", "x/0", "inf/inf", "inf-inf", "inf*0",
)  # fmt: skip
"""What makes a NaN or inf. `given`: it was in the data or in the weights before the first update."""


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
    """One of OPERATIONS."""
    function: str
    """The name of torch's operation, such as `convolution`."""
    nan: bool
    """Whether it made a NaN; otherwise inf alone."""
    largest: float
    """Largest finite magnitude that went in."""
    reached: float
    """Largest magnitude of the true result, reckoned in float64; NaN where it cannot be."""
    precision: str
    """Floating-point type of the result."""
    place: int | None = None
    """Index in the flat vector of parameters, where it is one of those."""

    def __str__(self) -> str:
        what = f"{self.phase}{f' of {self.layer}' if self.layer else ''}"
        return f"update {self.step}: {what}, {self.operation} in {self.function}"


@dataclass(frozen=True)
class Provenance:
    """The first non-finite value of a run, and the first NaN of the same update."""

    first: Event
    nan: Event | None
    """None if that update made inf alone."""


def first_update(record: Record) -> int | None:
    """The first update (0: the start) at which a gauge tells of a NaN or inf in any phase; None if none does."""
    rows = is_nonfinite(record.column("cost"))
    rows[0] = False
    for gauge in ("activation_nan", "activation_inf", "gradient_nan", "gradient_inf"):
        rows[1:] |= (record.column(gauge)[1:] > 0).any(axis=1)
    for gauge in ("weight_nan", "weight_inf"):
        rows |= (record.column(gauge) > 0).any(axis=1)
    found = rows.nonzero()[0]
    return int(found[0]) if len(found) else None


def provenance(run: Run) -> Provenance | None:
    """Where the first NaN or inf of a run came from; None for a run that has none. The run stays as it is."""
    step = first_update(run.record)
    if step is None:
        return None
    if step == 0:
        return Provenance(*[start_event(run)] * 2)
    return replayed(run, step)


def start_event(run: Run) -> Event:
    """The event of a run that starts from weights which are not finite."""
    parameters = run.state_at(0).parameters
    place = int((~parameters.isfinite()).nonzero()[0])
    operation = "given" if run.own_network else "cast"
    finite = parameters[parameters.isfinite()]
    largest = float(finite.abs().max()) if len(finite) else 0.0
    nan = bool(parameters.isnan().any())
    return Event(
        0, "weight", layer_at(run, place), operation, "to", nan, largest, float("nan"), named(parameters), place
    )


def replayed(run: Run, step: int) -> Provenance | None:
    """One update of the run once more, from the state before it, under observation."""
    state = run.state_at(step - 1)
    x, y = run.problem.batch(step)
    numbers, kind = run.prepared_knobs(run.record.knobs_at(step))
    watch = Watch(run, step)
    for part in tensors_in(x):
        watch.give(part, "input", "")
    watch.give(state.parameters, "weight", "")
    watched = dataclasses.replace(run.descent, cost=watch.around(run.descent.cost))
    with run.determinism(step), watch.layers(), watch:
        made = Descent.step(watched, state, x, y, numbers, kind)
    seen = [*watch.outputs, *flat_parts(made.outputs), made.data_cost, made.gradient, made.clipped, made.update]
    seen += [made.parameters] if made.penalty is None else [made.penalty, made.parameters]
    watch.name_logits(made.outputs, y)
    return watch.verdict(seen)


def layer_at(run: Run, place: int) -> str:
    """The layer to which a number of the flat vector belongs."""
    for name, size in zip(run.layout.layers, run.layout.layer_sizes, strict=True):
        if place < size:
            return name
        place -= size
    raise ValueError(f"place must lie within the parameters, got {place} beyond them")


def named(tensor: Tensor) -> str:
    """The name of a floating-point type, as settings use it."""
    return str(tensor.dtype).removeprefix("torch.")


@dataclass
class Making:
    """An event that is still being understood: `parents` are those that its inputs came from."""

    event: Event
    parents: frozenset[int]


@dataclass
class Watch(TorchDispatchMode):
    """Sees every operation of one update, forward and backward, and notes those that make a NaN or inf."""

    run: Run
    step: int
    made: list[Making] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.taint: dict[int, frozenset[int]] = {}
        self.kept: list[Any] = []
        self.layer = ""
        self.last = ""
        self.stage = "activation"
        self.descending = False
        self.nodes: dict[Any, str] = {}

    # -- what is going on

    def layers(self) -> Hooks:
        """Hooks that say which layer is at work."""
        return Hooks(self)

    def around(self, cost: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The cost, with a word before it."""

        def watched(*arguments: Any) -> Tensor:
            for output in flat_parts(arguments[0]):
                self.assign(output, self.layer)
            self.last, self.stage = self.layer, "cost"
            return cost(*arguments)

        return watched

    def assign(self, output: Tensor, layer: str) -> None:
        """Note that the nodes of the graph which lead to an output, and are not yet known, belong to a layer."""
        waiting = [output.grad_fn] if output.grad_fn is not None else []
        while waiting:
            node = waiting.pop()
            if node in self.nodes or type(node).__name__ in PLUMBING:
                continue
            self.nodes[node] = layer
            waiting += [above for above, _ in node.next_functions if above is not None]

    def phase_and_layer(self, name: str, args: Any) -> tuple[str, str]:
        """The phase and the layer of the operation that runs now."""
        node = torch._C._current_autograd_node()
        if node is not None:
            self.descending = True
            return "gradient", self.nodes.get(node, self.last)
        if self.stage == "activation":
            return "activation", self.layer
        codes = set(running())
        if codes & CLIP_CODES:
            return "clip", ""
        if codes & PENALTY_CODES:
            return "penalty", ""
        if self.descending:
            tensors = [part for part in args if isinstance(part, Tensor)]
            moved = name == "sub" and tensors and key(tensors[0]) == self.parameters
            return ("weight" if moved else "update"), ""
        return self.stage, self.last if self.stage == "probability" else ""

    # -- what is seen

    def give(self, tensor: Tensor, phase: str, layer: str) -> None:
        """Note what the update was given; if it is not finite, that is the event."""
        if phase == "weight":
            self.parameters = key(tensor)
        if tensor.is_floating_point() and not tensor.isfinite().all():
            nan = bool(tensor.isnan().any())
            self.note(
                Event(self.step, phase, layer, "given", "data", nan, 0.0, float("nan"), named(tensor)), [], [tensor]
            )

    def note(self, event: Event, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Keep an event, and mark the tensors that carry it on."""
        parents = frozenset[int]().union(*(self.taint.get(key(part), frozenset()) for part in inputs))
        self.made.append(Making(event, parents))
        self.mark(outputs, frozenset([len(self.made) - 1]))

    def mark(self, outputs: list[Tensor], origins: frozenset[int]) -> None:
        """Mark tensors as what came of events; they are kept, so that no other takes their memory."""
        for part in outputs:
            self.taint[key(part)] = origins
            self.kept.append(part)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.rstrip("_") or func.overloadpacket.__name__
        mutable = func._schema.is_mutable
        inputs = [part for part in tensors_in((args, kwargs)) if part.is_floating_point()]
        if mutable and name in OVERWRITES:
            inputs = inputs[1:]
        before = [part.clone() for part in inputs] if mutable else inputs
        self.enter(name)
        result = func(*args, **kwargs)
        outputs = [part for part in tensors_in(result) if part.is_floating_point()]
        bad = [part for part in outputs if part.numel() and not part.isfinite().all()]
        if not bad or name.startswith(("empty", "new_empty")) or nonfinite_number_in((args, kwargs)):
            return result
        nan_in, inf_in = any_of(before, torch.isnan), any_of(before, torch.isinf)
        nan_out = any_of(bad, torch.isnan)
        if nan_in or (inf_in and not nan_out):
            origins = [self.taint.get(key(part), frozenset()) for part in inputs if not part.isfinite().all()]
            self.mark(bad, frozenset[int]().union(*origins))
            return result
        phase, layer = self.phase_and_layer(name, args)
        place = self.place_in(bad[0])
        finite = [part[part.isfinite()] for part in before]
        event = Event(
            self.step, phase, layer if place is None else layer_at(self.run, place),
            operation(func, name, args, kwargs, before, bad[0], inf_in), func.overloadpacket.__name__, nan_out,
            max((float(part.abs().max()) for part in finite if part.numel()), default=0.0),
            true_result(func, args, kwargs) if not mutable else float("nan"), named(bad[0]), place,
        )  # fmt: skip
        self.note(event, inputs, bad)
        if nan_out and not inf_in and event.operation == "overflow":
            # Products that overflow to both sides within one sum: the overflow is first, the NaN comes of it.
            self.note(dataclasses.replace(event, operation="inf-inf"), bad, bad)
            self.made[-2].event = dataclasses.replace(event, nan=False)
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

    def place_in(self, tensor: Tensor) -> int | None:
        """The first bad place of a flat vector of parameters or of a gradient; None for other tensors."""
        total = sum(self.run.layout.sizes)
        if tensor.shape != (total,):
            return None
        return int((~tensor.isfinite()).nonzero()[0])

    # -- what came of it

    def name_logits(self, outputs: Any, targets: Any) -> None:
        """Call the values of the layer that ran last logits, if they are."""
        if is_classification(outputs, targets):
            for making in self.made:
                if making.event.phase == "activation" and making.event.layer == self.last:
                    making.event = dataclasses.replace(making.event, phase="logit")

    def verdict(self, seen: list[Tensor]) -> Provenance | None:
        """The first event, and the first that made a NaN, among those that reached a result of the update."""
        reached: set[int] = set()
        waiting = [event for part in seen if not part.isfinite().all() for event in self.taint.get(key(part), ())]
        while waiting:
            number = waiting.pop()
            if number not in reached:
                reached.add(number)
                waiting += self.made[number].parents
        events = [self.made[number].event for number in sorted(reached)]
        if not events:
            return None
        return Provenance(events[0], next((event for event in events if event.nan), None))


class Hooks:
    """Keeps a Watch told of the layer at work, as long as it is entered."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def __enter__(self) -> None:
        network = self.watch.run.network
        self.handles = []
        for name in self.watch.run.layout.layers:
            layer = network.get_submodule(name)
            self.handles.append(layer.register_forward_pre_hook(self.entering(name)))
            self.handles.append(layer.register_forward_hook(self.leaving(name)))

    def __exit__(self, *_error: Any) -> None:
        for handle in self.handles:
            handle.remove()

    def entering(self, name: str) -> Callable[..., None]:
        """The hook of a layer that begins: what led to its inputs belongs to the layer before."""

        def enter(_module: nn.Module, inputs: Any) -> None:
            for part in flat_parts(inputs):
                self.watch.assign(part, self.watch.layer)
            self.watch.layer = name

        return enter

    def leaving(self, name: str) -> Callable[..., None]:
        """The hook of a layer that is done."""

        def leave(_module: nn.Module, _inputs: Any, output: Any) -> None:
            for part in flat_parts(output):
                self.watch.assign(part, name)
                self.watch.outputs.append(part.detach())
            self.watch.layer = name

        return leave


PLUMBING = {"AccumulateGrad", "SplitWithSizesBackward0", "ViewBackward0"}
"""Nodes that only hand a flat vector's parts to the layers; to go past them would reach other layers."""
OVERWRITES = {"copy", "fill", "zero", "set"}
"""Operations that write into a tensor without reading it."""
PROBABILITIES = {"exp", "_softmax", "softmax", "sigmoid"}
COSTS = {"log", "log2", "log10", "log1p", "_log_softmax", "log_sigmoid_forward", "logsumexp", "pow", "mean"}
SUMS_OF_PRODUCTS = {
    "mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "dot", "convolution", "convolution_backward", "linear", "matmul",
    "mkldnn_convolution", "einsum",
}  # fmt: skip
NOTHING_TO_AVERAGE = {"nll_loss_forward", "nll_loss2d_forward", "mean"}
"""Operations that are NaN without a NaN or inf among their inputs where they average over nothing."""
ALIGNMENTS = {"_ctc_loss", "_cudnn_ctc_loss"}
"""Costs that are inf where no alignment is possible, whose probability is 0."""
CLIP_CODES = {function.__code__ for function in CLIPS.values()}
PENALTY_CODES = {objective.penalty.__code__, objective.penalty_gradient.__code__}


def running() -> Iterator[Any]:
    """The code of every function that is at work in this thread."""
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back  # type: ignore[assignment]


def key(tensor: Tensor) -> int:
    """What tells the memory of a tensor from that of others."""
    return tensor.untyped_storage()._cdata


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        yield from tensors_in(tuple(value.values()))


def nonfinite_number_in(value: Any) -> bool:
    """Whether a plain number that is NaN or inf was passed: then it was meant, as in a mask."""
    if isinstance(value, (tuple, list)):
        return any(map(nonfinite_number_in, value))
    if isinstance(value, dict):
        return nonfinite_number_in(tuple(value.values()))
    return isinstance(value, float) and not math.isfinite(value)


def any_of(tensors: list[Tensor], test: Callable[[Tensor], Tensor]) -> bool:
    """Whether a test holds anywhere."""
    return any(bool(test(part).any()) for part in tensors)


def operation(
    func: Any, name: str, args: Any, kwargs: dict[str, Any], inputs: list[Tensor], result: Tensor, inf_in: bool
) -> str:
    """What kind of operation made the values of a result that are not finite."""
    if name in ("_to_copy", "to", "copy"):
        return "cast"
    if name in ("exp", "exp2", "expm1", "sinh", "cosh"):
        return "exp overflow"
    if name in ("log", "log2", "log10", "log1p"):
        return "log(0)" if bool(result.isneginf().any()) else "log of a negative number"
    if name in ("sqrt", "rsqrt", "pow") and not inf_in and not bool(result.isinf().any()):
        return "root of a negative number"
    if name in ("div", "reciprocal", "rsqrt", "true_divide"):
        return of_division(name, args, inputs, result)
    if name in NOTHING_TO_AVERAGE and not inf_in and bool(result.isnan().any()):
        return "0/0"
    if name in ALIGNMENTS and not inf_in:
        return "log(0)"
    if not inf_in:
        return "overflow"
    if name in ("_softmax_backward_data", "_log_softmax_backward_data"):
        return of_softmax_backward(name, *inputs[:2])
    if name in SUMS_OF_PRODUCTS:
        return of_products(func, args, kwargs)
    return "inf*0" if name in ("mul", "addcmul") else "inf-inf"


def of_division(name: str, args: Any, inputs: list[Tensor], result: Tensor) -> str:
    """Which quotient it was, at the first bad place."""
    above, below = (1.0, inputs[0]) if name != "div" else (inputs[0], args[1])
    bad = result.isnan() if bool(result.isnan().any()) else result.isinf()
    shape = result.shape
    over = torch.as_tensor(above, device=result.device).expand(shape)[bad][0]
    under = torch.as_tensor(below, device=result.device).expand(shape)[bad][0]
    if under == 0:
        return "0/0" if over == 0 else "x/0"
    return "inf/inf" if over.isinf() and under.isinf() else "overflow"


def of_products(func: Any, args: Any, kwargs: dict[str, Any]) -> str:
    """inf*0 if magnitudes alone give a NaN, for then no two infinities can have cancelled; else inf-inf."""
    result = func(*changed(args, Tensor.abs), **kwargs)
    return (
        "inf*0" if any_of([part for part in tensors_in(result) if part.is_floating_point()], torch.isnan) else "inf-inf"
    )


def of_softmax_backward(name: str, gradient: Tensor, output: Tensor) -> str:
    """Whether the products in p * (g - sum(g * p)), or in g - p * sum(g), are NaN before anything is subtracted."""
    products = gradient * output if name == "_softmax_backward_data" else output.exp() * gradient.sum(-1, keepdim=True)
    return "inf*0" if bool(products.isnan().any()) else "inf-inf"


def true_result(func: Any, args: Any, kwargs: dict[str, Any]) -> float:
    """The largest magnitude of the same operation in float64; NaN where it does not run in it."""
    try:
        result = func(
            *changed(args, Tensor.double), **{name: value for name, value in kwargs.items() if name != "dtype"}
        )
    except (RuntimeError, TypeError):
        return float("nan")
    values = [part.abs().max() for part in tensors_in(result) if part.is_floating_point() and part.numel()]
    return float(max(values)) if values and all(part == part for part in values) else float("nan")


def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Nested arguments with every floating-point tensor changed."""
    if isinstance(value, Tensor):
        return change(value) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(changed(part, change) for part in value)
    return value
