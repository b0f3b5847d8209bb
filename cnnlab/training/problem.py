"""What a run trains and on what: network, data, cost, start and device, brought together once and never changed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnlab.config.settings import LIMITS, Number, Settings, quote
from cnnlab.records.formats import format_count
from cnnlab.training.checkpoints import State
from cnnlab.training.data import make_patches
from cnnlab.training.datasets import Examples, Pair, make_examples, mapped
from cnnlab.training.determinism import fix_order_of_sums, randomness, use_one_thread
from cnnlab.training.initializers import draw_parameters
from cnnlab.training.layers import drop_in_update, make_start_buffers
from cnnlab.training.losses import Cost, make_question_cost
from cnnlab.training.network import Layout, make_question_network
from cnnlab.training.step import Descent


@dataclass(frozen=True, eq=False)
class Problem:
    """All that stays the same while a run trains; a run, its forks and the members of an ensemble share one."""

    settings: Settings
    device: torch.device
    descent: Descent
    """Network, layout and cost. No hook is ever attached to this network: whoever needs some takes a copy."""
    examples: Examples
    """Training examples on the device."""
    held_out: Pair | None
    """Held-out examples on the device; None if there are none."""
    patches: Tensor | None
    """Training patches as they come from the image, which one of the initialisations measures."""
    given: State | None
    """The state that a network of the user's own came in; None for the question's network, whose weights are drawn."""

    @classmethod
    def build(
        cls,
        settings: Settings,
        network: nn.Module | None = None,
        data: Any = None,
        cost: Callable[..., Tensor] | str | None = None,
        held_out: Any = None,
    ) -> Problem:
        """The question's network on patches, or a network of the user's own on its data; nothing is drawn."""
        device = choose_device(settings)

        def placed(tensor: Tensor) -> Tensor:
            return tensor.to(device, getattr(torch, settings.precision) if tensor.is_floating_point() else tensor.dtype)

        patches: Tensor | None = None
        held: Examples | None = None
        if network is None:
            if data is not None or held_out is not None or not (cost is None or isinstance(cost, str)):
                raise TypeError("data, held_out and cost go with a network of your own: pass network=")
            found = make_patches(settings)
            examples, held, patches = Examples(found.x, found.y), Examples(found.held_x, found.held_y), found.x
            module: nn.Module = make_question_network(settings)
        else:
            if data is None or cost is None:
                raise TypeError("a network of your own needs data=(x, y) and cost=, a function of outputs and y")
            if not isinstance(cost, str) and not callable(cost):
                raise TypeError(f"cost must be a function of outputs and y, got {type(cost).__name__}")
            examples = make_examples("data", data)
            if held_out is not None:
                held = make_examples("held_out", held_out)
            module = copy_network(network).to(device)
            for tensor in (*module.parameters(), *module.buffers()):
                tensor.data = placed(tensor.data)
        objective = make_question_cost(settings) if cost is None or isinstance(cost, str) else ignore_epsilon(cost)
        layout = Layout.from_network(module)
        given = None
        if network is not None:
            flat = placed(layout.flatten(dict(module.named_parameters())))
            given = State(flat, None, dict(module.named_buffers()))
        return cls(
            settings,
            device,
            Descent(module, layout, objective, layout.is_weight(device)),
            examples.placed(placed),
            None if held is None else held.placed(placed).pair,
            patches,
            given,
        )

    @property
    def own_network(self) -> bool:
        """Whether the network is the user's own."""
        return self.given is not None

    def describe_own_network(self) -> str:
        """The user's own network by its class and the length of its data; nothing for the question's."""
        rows = format_count(len(self.examples), "row")
        return f"{name_class(self.network)}, {rows}" if self.own_network else ""

    @property
    def network(self) -> nn.Module:
        """The network, without hooks."""
        return self.descent.network

    @property
    def layout(self) -> Layout:
        """Where each parameter lies in the flat vector."""
        return self.descent.layout

    @property
    def dtype(self) -> torch.dtype:
        """The type of parameters and examples."""
        return getattr(torch, self.settings.precision)

    @property
    def data(self) -> Pair:
        """All training examples, (x, y)."""
        return self.examples.pair

    @property
    def batch_size(self) -> int | None:
        """Examples in an update; None where each takes all of them."""
        size = self.settings.batch_size
        return None if size is None or size >= len(self.examples) else size

    def replace_seed(self, seed: int) -> Problem:
        """The same problem from another random start."""
        return dataclasses.replace(self, settings=self.settings.replace(seed=seed))

    def draw_start(self, member: Settings | None = None) -> State:
        """The state to start from; `member` may have its own seed and initialisation (members of an ensemble have)."""
        if self.given is not None:
            return self.given
        assert self.patches is not None
        with use_one_thread():
            flat = draw_parameters(self.network, self.layout, member or self.settings, self.patches)
        return State(flat.to(self.device, self.dtype), None, self.make_buffers())

    def make_empty_state(self) -> State:
        """A state of the right types and shapes, whose parameters are any numbers."""
        parameters = torch.empty(sum(self.layout.sizes), dtype=self.dtype, device=self.device)
        return State(parameters, None, self.make_buffers())

    def make_buffers(self) -> dict[str, Tensor]:
        """What the network keeps beside its parameters at the start: the running statistics of its batch norms."""
        return make_start_buffers(self.network, self.device, self.dtype) if self.given is None else self.given.buffers

    def places(self, step: int, member: Settings | None = None) -> Tensor | None:
        """Which examples an update takes, counted from 1: a function of seed and step alone; None for all."""
        chosen = member or self.settings
        return self.examples.indices(chosen.batch_size, chosen.seed, step, self.device)

    def batch(self, step: int, member: Settings | None = None) -> Pair:
        """The examples of an update, (x, y)."""
        places = self.places(step, member)
        if places is None:
            return self.data
        x, y = (mapped(lambda tensor: tensor[places], part) for part in self.data)
        return x, y

    @contextlib.contextmanager
    def determinism(self, step: int) -> Iterator[None]:
        """What is computed here is the same to the bit each time; chance within the network is that of update `step`.

        A network of the user's own keeps its CPU threads.
        """
        with contextlib.ExitStack() as stack:
            if self.device.type == "cuda":
                stack.enter_context(fix_order_of_sums())
            elif not self.own_network:
                stack.enter_context(use_one_thread())
            stack.enter_context(self.chance(step))
            yield

    def chance(self, step: int, member: Settings | None = None) -> contextlib.AbstractContextManager[None]:
        """What is computed here draws from the chance of update `step`: a function of it and of the seed."""
        if self.own_network:
            return randomness(self.settings.seed, step, self.device)
        return drop_in_update(member or self.settings, step)


def choose_device(wanted: Settings) -> torch.device:
    """The device that the settings ask for; ValueError if this machine lacks it, or it lacks the precision."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = next(name for name, there in available.items() if there) if wanted.device == "auto" else wanted.device
    if name == "mps" and wanted.precision == "float64":
        if wanted.device == "mps":
            raise ValueError("precision must be float32 or less on device 'mps', got 'float64'")
        name = "cpu"
    if not available[name]:
        there = ", ".join(name for name, here in available.items() if here)
        raise ValueError(f"device must be one that this machine has ({there}), got {quote(name)}")
    return torch.device(name)


def prepare_own_start(
    preset: Any, network: nn.Module, data: Any, changes: dict[str, Any]
) -> tuple[Examples | None, dict[str, Any]]:
    """Data as examples, and the changes with what follows from network and data; Settings ready-made say it all."""
    examples = None if data is None else make_examples("data", data)
    follows = derive_settings(network, examples)
    if isinstance(preset, Settings):
        follows = {name: value for name, value in follows.items() if name == "patches"}
    return examples, {**follows, **changes}


def derive_settings(network: nn.Module, data: Examples | None) -> dict[str, Any]:
    """Settings that a network of one's own and its data decide: precision, batch size, how many a batch may hold."""
    most = LIMITS["patches"]
    assert isinstance(most, Number)
    follows: dict[str, Any] = {"precision": find_precision(network)}
    if data is not None:
        follows["patches"] = int(min(max(len(data), most.low), most.high))
        if data.batch_size is not None:
            follows["batch_size"] = data.batch_size if data.batch_size < len(data) else None
    return follows


def find_precision(network: nn.Module) -> str:
    """The floating-point type of a module's first parameter, by the name that settings use."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a torch.nn.Module, got {type(network).__name__}")
    first = next((parameter for parameter in network.parameters() if parameter.is_floating_point()), None)
    return "float32" if first is None else str(first.dtype).removeprefix("torch.")


def name_class(network: nn.Module) -> str:
    """The name of a module's class, at most 40 characters of it."""
    name = type(network).__name__
    return name[:40] if name.isidentifier() else "own network"


def copy_network(network: nn.Module) -> nn.Module:
    """A copy that shares nothing; ValueError in a sentence for a module that cannot be copied or is not ready."""
    lazy = [name for name, part in network.named_parameters() if isinstance(part, nn.parameter.UninitializedParameter)]
    if lazy:
        raise ValueError(f"network must have its shapes: pass one batch through it first, {lazy[0]} has none yet")
    odd = [name for name, part in network.named_parameters() if part.requires_grad and part.is_complex()]
    if odd:
        raise ValueError(f"network must have real parameters, got complex ones in {odd[0]}")
    try:
        return copy.deepcopy(network)
    except (RuntimeError, TypeError) as reason:
        raise ValueError(f"network must be a module that copy.deepcopy can copy: {reason}".splitlines()[0]) from None


def ignore_epsilon(cost: Callable[..., Tensor]) -> Cost:
    """A cost of outputs and targets in the form of the question's, which has an epsilon too."""
    return lambda outputs, targets, _epsilon: cost(outputs, targets)
