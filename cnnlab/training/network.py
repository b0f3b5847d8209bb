"""The question's network as a module, and the flat vector that holds all parameters of any module.

Nothing outside this module knows a layer of the question's network by name.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from cnnlab.config.architecture import list_sides
from cnnlab.config.settings import Settings, quote
from cnnlab.training.layers import ACTIVATIONS, Dropout, ResidualNetwork, ScaledShortcut, Shortcut, make_normalization


def make_question_network(settings: Settings) -> nn.Sequential:
    """The question's network: cv0..cv5 (3x3, valid), hid1, hid2 and softmax (the linear layer that makes two logits).

    Input (patches, 1, size, size), output (patches, 2); hid1 sees all of the last map. The parameters are empty (on
    torch's meta device): the weights come from `cnnlab.training.initializers`, nothing is drawn from the global
    generator. Biases are part of each layer. After a layer stand, each where the settings ask for it: its norm, the
    end of a shortcut, its activation (the norm after that), and dropout.
    """
    side, (first, second) = list_sides(settings)[-1], settings.hidden
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    with torch.device("meta"):
        for index in range(settings.depth):
            inputs = settings.channels if index else 1
            convolution = nn.Conv2d(inputs, settings.channels, 3, padding=int(settings.padding == "same"))
            add_layer(modules, f"cv{index}", convolution, settings)
        modules["flatten"] = nn.Flatten()
        add_layer(modules, "hid1", nn.Linear(settings.channels * side * side, first), settings)
        add_layer(modules, "hid2", nn.Linear(first, second), settings)
        add_layer(modules, "softmax", nn.Linear(second, 2), settings)
        return nn.Sequential(modules) if settings.residual == "off" else ResidualNetwork(modules)


def has_activation(name: str, settings: Settings) -> bool:
    """Whether the settings place an activation after a layer."""
    without = {
        "question": (f"cv{settings.depth - 1}", "softmax"),
        "every_layer": ("softmax",),
        "none": (name,),
        "softmax_too": (),
    }
    return name not in without[settings.relu]


def add_layer(modules: dict[str, nn.Module], name: str, layer: nn.Conv2d | nn.Linear, settings: Settings) -> None:
    """Append a layer, and what the settings place after it."""
    modules[name] = layer
    normalized = settings.normalization != "off" and name != "softmax"
    if normalized and settings.normalization_place == "before":
        add_normalization(modules, name, layer, settings)
    if settings.residual != "off" and isinstance(layer, nn.Conv2d) and ends_block(name):
        modules[f"{name}_shortcut"] = Shortcut() if settings.residual == "on" else ScaledShortcut()
    if has_activation(name, settings):
        modules[f"{name}_{settings.activation}"] = ACTIVATIONS[settings.activation]()
    if normalized and settings.normalization_place == "after":
        add_normalization(modules, name, layer, settings)
    if settings.dropout and name in ("hid1", "hid2"):
        modules[f"{name}_dropout"] = Dropout(settings.dropout, int(name[-1]))


def add_normalization(
    modules: dict[str, nn.Module], name: str, layer: nn.Conv2d | nn.Linear, settings: Settings
) -> None:
    """Append the norm of a layer."""
    units, flat = (layer.out_features, True) if isinstance(layer, nn.Linear) else (layer.out_channels, False)
    modules[f"{name}_norm"] = make_normalization(settings, units, flat)


def ends_block(name: str) -> bool:
    """Whether a convolution is the second of a block: cv2, cv4 and so on."""
    place = int(name.removeprefix("cv"))
    return place > 0 and place % 2 == 0


@dataclass(frozen=True)
class Layout:
    """Where each parameter of a module lies in its flat vector. A layer is a submodule that owns parameters itself."""

    names: tuple[str, ...]
    """Names of the parameters, as `named_parameters` gives them."""
    shapes: tuple[torch.Size, ...]
    layers: tuple[str, ...]
    """Names of the layers in the module's order; '' is the module itself."""
    counts: tuple[int, ...]
    """How many parameter tensors each layer owns."""

    @classmethod
    def from_network(cls, network: nn.Module) -> Layout:
        """The layout of a module's trainable parameters; ValueError if it has none."""
        trainable = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
        if not trainable:
            raise ValueError("network must have parameters that require a gradient, got none")
        owners = [name.rpartition(".")[0] for name, _ in trainable]
        layers = tuple(dict.fromkeys(owners))
        return cls(
            names=tuple(name for name, _ in trainable),
            shapes=tuple(parameter.shape for _, parameter in trainable),
            layers=layers,
            counts=tuple(owners.count(layer) for layer in layers),
        )

    @cached_property
    def sizes(self) -> list[int]:
        """Numbers in each parameter."""
        return [math.prod(shape) for shape in self.shapes]

    @cached_property
    def layer_sizes(self) -> list[int]:
        """Numbers in each layer, weights and biases together."""
        ends = [sum(self.counts[: index + 1]) for index in range(len(self.counts))]
        return [sum(self.sizes[end - count : end]) for end, count in zip(ends, self.counts, strict=True)]

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The parameters by name, each a view of the flat vector (or of one as long, such as a gradient)."""
        pieces = flat.split(self.sizes)
        return {name: piece.view(shape) for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)}

    def by_layer(self, flat: Tensor) -> tuple[Tensor, ...]:
        """One flat view a layer, weights and biases together."""
        return flat.split_with_sizes(self.layer_sizes)

    def flatten(self, tensors: dict[str, Tensor]) -> Tensor:
        """The flat vector of tensors given by parameter name."""
        return torch.cat([tensors[name].detach().reshape(-1) for name in self.names])

    def is_weight(self, device: torch.device) -> Tensor:
        """Bool, one for each number of the flat vector: True where the parameter has two or more axes."""
        flags = torch.tensor([len(shape) >= 2 for shape in self.shapes])
        return flags.repeat_interleave(torch.tensor(self.sizes)).to(device)

    def index(self, name: str) -> int:
        """Place in the flat vector of a single number such as `hid1.weight[0,5]`; ValueError if there is none such."""
        parameter, bracket, indices = name.partition("[")
        if parameter not in self.names:
            raise ValueError(f"watch must name one of {', '.join(self.names)}, got {quote(name)}")
        place = self.names.index(parameter)
        shape = self.shapes[place]
        try:
            where = tuple(int(part) for part in indices.removesuffix("]").split(","))
        except ValueError:
            where = ()
        if bracket and not indices.endswith("]"):
            raise ValueError(f"watch must end with a bracket, as {parameter}[0] does, got {quote(name)}")
        if len(where) != len(shape) or not all(0 <= part < size for part, size in zip(where, shape, strict=True)):
            raise ValueError(f"watch must index {parameter} within its shape {tuple(shape)}, got {quote(name)}")
        offset = sum(part * math.prod(shape[axis + 1 :]) for axis, part in enumerate(where))
        return sum(self.sizes[:place]) + offset

    def choose_watched(self) -> tuple[str, ...]:
        """Two weights each of the first layer, the third from the end and the last: 0, 6 and 8 in the question."""
        chosen = dict.fromkeys((0, max(len(self.layers) - 3, 0), len(self.layers) - 1))
        return tuple(name for layer in chosen for name in self.first_two(layer))

    def first_two(self, layer: int) -> tuple[str, ...]:
        """Names of the first two numbers of a layer's first parameter, along its first axis of more than one."""
        place = sum(self.counts[:layer])
        name, shape = self.names[place], self.shapes[place]
        origin = [0] * len(shape)
        axis = next((axis for axis, size in enumerate(shape) if size > 1), None)
        if axis is None:
            return (f"{name}[{','.join(map(str, origin))}]",)
        second = [int(position == axis) for position in range(len(shape))]
        return tuple(f"{name}[{','.join(map(str, where))}]" for where in (origin, second))


MOST_KERNEL_NUMBERS = 1024
"""Most numbers of the first convolution that are kept at every update."""


@dataclass(frozen=True, eq=False)
class Kernels:
    """The first convolution's kernels for its first input, as a Record keeps them; none where there is none."""

    places: Tensor
    """Where they lie in the flat vector: at most 1,024 numbers, so that keeping them at every update costs little."""
    shape: tuple[int, int, int]
    """Kernels, rows and columns."""

    @classmethod
    def from_layout(cls, layout: Layout, device: torch.device) -> Kernels:
        """Those of a network."""
        views = layout.views(torch.arange(sum(layout.sizes)))
        first = next((view[:, 0] for view in views.values() if view.dim() == 4), None)
        if first is None:
            return cls(torch.empty(0, dtype=torch.int64, device=device), (0, 1, 1))
        chosen = first[: max(1, MOST_KERNEL_NUMBERS // first[0].numel())]
        count, height, width = chosen.shape
        return cls(chosen.flatten().to(device), (count, height, width))

    def read(self, flat: Tensor) -> Tensor:
        """Their numbers in a flat vector of parameters: one vector, float32, on the device."""
        if not self.shape[0]:
            return self.nothing
        return flat[self.places].to(torch.float32)

    @cached_property
    def nothing(self) -> Tensor:
        """No number."""
        return torch.empty(0, device=self.places.device)
