"""What an update was computed from: the calls of a model, and of functions of torch between it and the backward pass.

Kept until the optimiser has stepped, so that an update whose cost or gradient is not finite can be made again. The
graph of autograd is not held, nor anything that is computed within the model.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from cnnlab.diagnosis.source_lines import Place, find_place
from cnnlab.training.metrics import holds_numbers
from cnnlab.training.pass_listener import is_unheard

MOST_CALLS = 1000
"""A cost of more calls than this is not kept."""
READ_GRADIENT = torch.Tensor.grad.__get__  # type: ignore[union-attr]
"""What `zero_grad` calls for each parameter; a gradient that a cost is made of came from elsewhere."""
NUMBERS = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device})
"""Types of arguments that hold no tensor."""
MOST_PASSES = 8
"""Backward passes of one update that are kept, the last ones."""
MOST_BYTES = 2**28
"""Inputs and targets of more than one call of the model are kept up to this size."""

Generators = tuple[Tensor, Tensor | None] | None
"""States of torch's generators on the CPU and on the model's device; None where they were not kept."""


class Given(NamedTuple):
    """A tensor that came from elsewhere."""

    tensor: Tensor
    requires_grad: bool
    made_by: str
    """What gave it, where that is a function of autograd written by hand: its name; '' otherwise."""


class Weight(NamedTuple):
    """A parameter of the model."""

    name: str


class Made(NamedTuple):
    """A tensor that a call on the tape has given."""

    call: int
    """Which call."""
    part: int
    """Which of its tensors; -1: what the call has written into, its first argument."""


class Called(NamedTuple):
    """One call."""

    function: Callable[..., Any] | None
    """None: the model itself."""
    arguments: Any
    """Positional arguments and keywords, in which each tensor is a Given, Weight or Made."""
    place: Place | None
    """Where the user's code made the call."""
    autocast: torch.dtype | None
    """The type of mixed precision at that moment; None without."""
    generators: Generators
    """The states of torch's generators before it, on the CPU and on the model's device; of the model's calls alone."""
    grad: bool = True
    """Whether autograd was on."""


UNUSED = Called(None, ((), {}), None, None, None, False)
"""Stands for a call without autograd of which no backward pass came."""


@dataclass(frozen=True, eq=False)
class Taped:
    """All that a backward pass was computed from."""

    calls: tuple[Called, ...]
    roots: tuple[Made, ...]
    values: tuple[Tensor, ...]
    """What the roots were."""
    size: int
    """Bytes of the tensors that came from elsewhere."""


class Tape(TorchFunctionMode):
    """Notes the calls of one model, and between these and a backward pass those of functions of torch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.device = next((each.device for each in model.parameters()), torch.device("cpu"))
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.ended = False
        self.forget()

    def forget(self) -> None:
        """Know of no call."""
        self.calls: list[Called] = []
        self.known: dict[int, tuple[weakref.ref[Tensor], Made | Given | Weight]] = {}
        self.size = 0
        self.passes: list[Taped] = []
        self.generators: Generators = None
        self.listening = self.resumes = self.paused = False

    def end(self) -> None:
        """Note nothing any more."""
        self.stop()
        self.forget()
        self.ended = True

    # -- the model's calls

    def before(self, _module: nn.Module, _inputs: Any) -> None:
        """The hook before the model's forward pass."""
        if self.ended:
            return
        self.resumes = self.listening
        self.stop()
        self.generators = self.read_generators() if torch.is_grad_enabled() else None

    def read_generators(self) -> Generators:
        """The states of torch's generators; None while a graph of CUDA is captured, which must not ask for them."""
        if self.device.type != "cuda":
            return torch.get_rng_state(), None
        if torch.cuda.is_current_stream_capturing():
            return None
        return torch.get_rng_state(), torch.cuda.get_rng_state(self.device)

    def after(self, module: nn.Module, inputs: Any, output: Any, keywords: Any = None) -> None:
        """The hook after it."""
        if self.ended:
            return
        if torch.is_grad_enabled() and self.generators is not None:
            parts = [output] if isinstance(output, Tensor) else find_parts(output)
            if all(map(holds_numbers, parts)) and any(part.requires_grad for part in parts):
                self.add(None, (inputs, keywords or {}), parts, None, self.generators)
                self.resumes = True
        if self.resumes:
            self.start()

    after.takes_keywords = True  # type: ignore[attr-defined]

    def start(self) -> None:
        """Listen to functions of torch, below whatever else listens, so that others find their own on top."""
        if not self.listening:
            self.listening = True
            above = take_modes()
            push_modes([self, *(mode for mode in above if mode is not self)])

    def stop(self) -> None:
        """Listen no more."""
        self.listening = False
        above = take_modes()
        push_modes([mode for mode in above if mode is not self])

    # -- functions of torch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.listening or torch.compiler.is_compiling() or func == READ_GRADIENT or is_unheard():
            return result
        if not torch.is_grad_enabled() and not self.comes_of_model(args):
            return result  # as in another model's forward pass
        if isinstance(result, Tensor):
            self.add(func, (args, kwargs or {}), [result], find_place())
        elif isinstance(result, (tuple, list)):
            parts = [part for part in result if isinstance(part, Tensor)]
            if parts:
                self.add(func, (args, kwargs or {}), parts, find_place())
        elif result is None and getattr(func, "__name__", "") == "__setitem__":
            self.add(func, (args, {}), [], find_place())
        return result

    def add(
        self,
        function: Callable[..., Any] | None,
        arguments: Any,
        parts: Sequence[Tensor],
        place: Place | None,
        generators: Generators = None,
    ) -> None:
        """Note a call and the tensors that it gave; of an endless row of them the first are forgotten."""
        if len(self.calls) >= MOST_CALLS:
            self.clear()
            self.stop()
            return
        if function is None and self.size > MOST_BYTES:
            self.clear()  # calls that are never sent backward
        kind = self.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        at = len(self.calls)
        positional, keywords = arguments
        packed = tuple([value if type(value) in NUMBERS else self.pack(value) for value in positional])
        passed = packed, self.pack(keywords)
        self.calls.append(Called(function, passed, place, autocast, generators, torch.is_grad_enabled()))
        for part, tensor in enumerate(parts):
            self.known[id(tensor)] = weakref.ref(tensor), Made(at, part)
        if not parts:
            self.known[id(positional[0])] = weakref.ref(positional[0]), Made(at, -1)

    def pack(self, value: Any) -> Any:
        """An argument, in which each tensor is replaced by where it came from."""
        if isinstance(value, Tensor):
            return self.look_up(value) or self.pack_new(value)
        if type(value) in (tuple, list):
            return type(value)([self.pack(each) for each in value])
        if type(value) is dict:
            return {key: self.pack(each) for key, each in value.items()} if value else value
        return value

    def look_up(self, tensor: Tensor) -> Made | Given | Weight | None:
        """Where a tensor came from; None if that is not known."""
        known = self.known.get(id(tensor))
        if known is None or known[0]() is not tensor:
            return None
        made = known[1]
        if isinstance(made, Made) and not self.calls[made.call].grad and name_maker(tensor):
            return None  # autograd was off only within the function written by hand that gave it
        return made

    def pack_new(self, tensor: Tensor) -> Given | Weight:
        """A tensor that no call on the tape has given."""
        name = self.names.get(id(tensor))
        wants = tensor.requires_grad
        packed = (
            Given(tensor.detach() if wants else tensor, wants, name_maker(tensor)) if name is None else Weight(name)
        )
        self.known[id(tensor)] = weakref.ref(tensor), packed
        self.size += tensor.nbytes if name is None else 0
        return packed

    def comes_of_model(self, arguments: Sequence[Any]) -> bool:
        """Whether one of a call's arguments was given by a call on the tape."""
        return any(isinstance(part, Tensor) and self.find(part) is not None
                   for each in arguments for part in (each if type(each) in (tuple, list) else (each,)))  # fmt: skip

    def find(self, tensor: Tensor) -> Made | None:
        """The call that a tensor came from."""
        known = self.look_up(tensor)
        return known if isinstance(known, Made) else None

    # -- backward passes

    def take(self, roots: Sequence[Any]) -> Taped | None:
        """All that a backward pass from these roots is computed from, which begins now; None if that is not known."""
        self.stop()
        made = [self.find(root) for root in roots if isinstance(root, Tensor)]
        calls, size = tuple(self.calls), self.size
        self.clear()
        found = [each for each in made if each is not None]
        if self.ended or not found or len(found) < len(roots):
            return None
        taped = Taped(drop_unused(calls, found), tuple(found), tuple(root.detach() for root in roots), size)
        before = self.passes[1 - MOST_PASSES :]
        self.passes = [*(before if sum(each.size for each in before) + size < MOST_BYTES else []), taped]
        return taped

    def call_backward(self, below: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """The `backward` of a tensor, not listened to: that would take longer than all else that the tape does."""
        listened = self.listening
        self.stop()
        try:
            return below(*arguments, **keywords)
        finally:
            if listened and self.calls:  # it was none of the model's
                self.start()

    def pause(self, *_: Any) -> None:
        """Before a step of any optimiser, that of another model too: none of what it calls is part of a cost."""
        if not torch.compiler.is_compiling():
            self.paused = self.listening
            self.stop()

    def resume(self, *_: Any) -> None:
        """The same after it."""
        if not torch.compiler.is_compiling() and self.paused and self.calls:
            self.start()

    def clear(self) -> None:
        """Forget the calls."""
        self.calls, self.known, self.size = [], {}, 0

    def drop(self) -> None:
        """Forget the passes of an update that is done."""
        self.passes = []


def drop_unused(calls: Sequence[Called], roots: Sequence[Made]) -> tuple[Called, ...]:
    """The calls, without those that autograd did not see and of which no root came, such as measures of accuracy."""
    if all(called.grad for called in calls):
        return tuple(calls)
    needed = {root.call for root in roots}
    for at in reversed(range(len(calls))):
        if at in needed or calls[at].grad:
            needed |= {at, *(made.call for made in find_made(calls[at].arguments))}
    return tuple(called if at in needed else UNUSED for at, called in enumerate(calls))


def find_made(value: Any) -> Iterator[Made]:
    """The tensors in packed arguments that a call on the tape has given."""
    if isinstance(value, Made):
        yield value
    elif type(value) in (tuple, list, dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from find_made(each)


def name_maker(tensor: Tensor) -> str:
    """The name of the function of autograd, written by hand, that gave a tensor; '' for other tensors."""
    node = tensor.grad_fn
    return type(node).__name__.removesuffix("Backward") if isinstance(node, BackwardCFunction) else ""


def find_parts(output: Any) -> list[Tensor]:
    """The tensors in what a call gave."""
    return [part for part in tree_leaves(output) if isinstance(part, Tensor)]


def take_modes() -> list[Any]:
    """Take all that listens to functions of torch in this thread off, the lowest first."""
    count = torch._C._len_torch_function_stack()
    return [torch._C._pop_torch_function_stack() for _ in range(count)][::-1] if count else []


def push_modes(modes: Sequence[Any]) -> None:
    """Have these listen to functions of torch, the lowest first."""
    for mode in modes:
        torch._C._push_on_torch_function_stack(mode)
