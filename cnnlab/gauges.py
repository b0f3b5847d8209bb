"""What is measured at every update, as tensors on the device: cheap enough to be always on.

On the CPU a count of NaN and inf is taken only where a sum says that there are some; on a GPU, where asking would wait
for the device, it is always taken. Both give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnnlab.clipping import safe_norm
from cnnlab.descent import Step
from cnnlab.network import Layout
from cnnlab.records import EXPONENTS, GAUGES, LAYER_GAUGES

EXPONENT_SHIFT = {
    torch.float16: (torch.int16, 10),
    torch.bfloat16: (torch.int16, 7),
    torch.float32: (torch.int32, 23),
    torch.float64: (torch.int64, 52),
}
"""Floating-point type -> the integer type of its width, and the bits of its mantissa."""


class Activations:
    """Hooks that measure what each layer puts out while it passes, so that no memory is held for it.

    Measuring at once, while the numbers are still in the processor's cache, costs a tenth of keeping them for later.
    """

    def __init__(self, network: nn.Module, layout: Layout, device: torch.device) -> None:
        self.layers = len(layout.layers)
        self.device = device
        self.clear()
        layers = [network.get_submodule(name) for name in layout.layers]
        self.unit_axis = [unit_axis(layer) for layer in layers]
        self.handles = [layer.register_forward_hook(self.saw_layer(index)) for index, layer in enumerate(layers)]
        relus = [module for module in network.modules() if isinstance(module, nn.ReLU)]
        self.handles += [relu.register_forward_pre_hook(self.saw_relu) for relu in relus]

    def clear(self) -> None:
        """Forget the last forward pass."""
        self.last: int | None = None
        self.nan: dict[int, Tensor | float] = {}
        self.inf: dict[int, Tensor | float] = {}
        self.dead: dict[int, Tensor | float] = {}

    def saw_layer(self, index: int) -> Callable[..., None]:
        """The hook that counts NaN and inf in a layer's output."""

        def count(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = next((part for part in flat_parts(output) if part.is_floating_point()), None)
            if tensor is not None:
                self.last = index
                nan, inf = counts_of_nonfinite(tensor.detach())
                self.nan[index] = self.nan.get(index, 0.0) + nan
                self.inf[index] = self.inf.get(index, 0.0) + inf

        return count

    def saw_relu(self, _module: nn.Module, inputs: Any) -> None:
        """The hook that looks for dead units in what a ReLU is given, on the account of the layer that ran last."""
        if self.last is None:
            return
        given = inputs[0].detach()
        units = self.unit_axis[self.last] % max(given.dim(), 1)
        peaks = given.amax(dim=[axis for axis in range(given.dim()) if axis != units])
        self.dead[self.last] = (peaks <= 0).mean(dtype=torch.float32)

    def taken(self) -> dict[str, Tensor]:
        """The gauges of the last forward pass, NaN where a layer did not run; the pass is then forgotten."""
        named = {"activation_nan": self.nan, "activation_inf": self.inf, "dead_relu": self.dead}
        gauges = {name: self.vector(values) for name, values in named.items()}
        self.clear()
        return gauges

    def vector(self, values: dict[int, Tensor | float]) -> Tensor:
        """One number a layer, NaN where there is none."""
        return as_vector([values.get(index, torch.nan) for index in range(self.layers)], self.device)

    def release(self) -> None:
        """Take the hooks off the network."""
        for handle in self.handles:
            handle.remove()
        self.clear()


def unit_axis(layer: nn.Module) -> int:
    """The axis of a layer's output that counts its units: channels of a convolution or of its norm, else the last."""
    kernel = getattr(layer, "kernel_size", None)
    if kernel is not None:
        return -1 - len(kernel) if isinstance(kernel, tuple) else 1
    return 1 if hasattr(layer, "num_features") or hasattr(layer, "num_channels") else -1


def flat_parts(output: Any) -> list[Tensor]:
    """The tensors in a layer's output, which may be a tuple."""
    if isinstance(output, Tensor):
        return [output]
    return [part for part in output if isinstance(part, Tensor)] if isinstance(output, (tuple, list)) else []


def counts_of_nonfinite(tensor: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """How many values are NaN, and how many inf. On the CPU they are counted only where a sum says that there are some."""
    if tensor.device.type == "cpu":
        # Half types would overflow in a sum of their own; a sum of float32 that overflows only costs a needless count.
        wide = tensor.dtype if tensor.dtype == torch.float64 else torch.float32
        if math.isfinite(tensor.sum(dtype=wide).item()):
            return 0.0, 0.0
        return float(tensor.isnan().sum()), float(tensor.isinf().sum())
    return tensor.isnan().sum(), tensor.isinf().sum()


def as_vector(values: Sequence[Tensor | float], device: torch.device) -> Tensor:
    """Numbers and 0-d tensors side by side in one tensor of the widest type that the device has."""
    wide = wide_type(device)
    if any(isinstance(value, Tensor) for value in values):
        return torch.stack([torch.as_tensor(value, dtype=wide, device=device) for value in values])
    return torch.tensor(values, dtype=wide, device=device)


def wide_type(device: torch.device) -> torch.dtype:
    """The type that gauges are formed in: float64, or float32 where the device has none."""
    return torch.float32 if device.type == "mps" else torch.float64


class Gauges:
    """Measures steps of one network: each becomes a row of numbers and a histogram, both still on the device."""

    def __init__(self, network: nn.Module, layout: Layout, parameters: Tensor, watched: Sequence[int]) -> None:
        self.layout = layout
        self.device = parameters.device
        self.activations = Activations(network, layout, self.device)
        self.watched = torch.tensor(list(watched), dtype=torch.int64, device=self.device)
        self.wide = wide_type(self.device)
        self.integer, self.shift = EXPONENT_SHIFT[parameters.dtype]
        self.classes = EXPONENTS[str(parameters.dtype).removeprefix("torch.")].count
        sizes = torch.tensor(layout.layer_sizes)
        first_class = (torch.arange(len(sizes)) * self.classes).repeat_interleave(sizes)
        self.first_class = first_class.to(self.device, torch.int64 if self.integer == torch.int64 else torch.int32)
        # Working memory, written anew at every update: fetching fresh pages from the system costs as much as measuring.
        self.magnitudes = torch.empty_like(parameters)
        self.exponents = torch.empty_like(self.first_class)
        self.widened = torch.empty_like(parameters, dtype=self.wide)
        self.known = parameters, self.norms(parameters)

    def start(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Row and histogram of weights that no update has touched; every gauge of an update is NaN."""
        return self.row(self.of_weights(parameters), parameters), self.histogram(parameters)

    def measure(self, before: Tensor, step: Step, targets: Any) -> tuple[Tensor, Tensor]:
        """Row and histogram of a step from the parameters `before`; the activations are those of its forward pass."""
        gauges = {**self.of_update(before, step), **self.of_weights(step.parameters), **self.activations.taken()}
        penalty = step.penalty
        gauges |= {
            "data_cost": step.data_cost,
            "cost": step.data_cost if penalty is None else step.data_cost + penalty,
            "penalty": torch.zeros_like(step.data_cost) if penalty is None else penalty,
        }
        if is_classification(step.outputs, targets):
            gauges["accuracy"], gauges["logit_gap"] = classification(step.outputs, targets)
        return self.row(gauges, step.parameters), self.histogram(step.parameters)

    def row(self, gauges: dict[str, Tensor], parameters: Tensor) -> Tensor:
        """One vector in the order of a Record's table; a gauge that was not measured is NaN."""
        nan = torch.full((len(self.layout.layers),), torch.nan, dtype=self.wide, device=self.device)
        parts = [gauges[name].reshape(1) if name in gauges else nan[:1] for name in GAUGES]
        parts += [gauges.get(name, nan) for name in LAYER_GAUGES]
        return torch.cat([part.to(self.wide) for part in parts] + [parameters[self.watched].to(self.wide)])

    def histogram(self, parameters: Tensor) -> Tensor:
        """(layers, classes) int64: how many numbers of each layer have each value of the exponent bits. NaN-safe."""
        magnitudes = torch.abs(parameters, out=self.magnitudes)
        torch.bitwise_right_shift(magnitudes.view(self.integer), self.shift, out=self.exponents)
        self.exponents += self.first_class
        counts = torch.bincount(self.exponents, minlength=len(self.layout.layers) * self.classes)
        return counts.view(len(self.layout.layers), self.classes)

    def of_weights(self, parameters: Tensor) -> dict[str, Tensor]:
        """The gauges of the weights alone."""
        norm = self.norms(parameters)
        self.known = parameters, norm
        nan, inf = self.nonfinite(parameters, norm)
        magnitudes = torch.abs(parameters, out=self.magnitudes)
        largest = torch.stack([part.amax() for part in self.layout.by_layer(magnitudes)])
        return {"weight_norm": norm, "largest_weight": largest, "weight_nan": nan, "weight_inf": inf}

    def of_update(self, before: Tensor, step: Step) -> dict[str, Tensor]:
        """The gauges of gradient, clipping and update."""
        norm = self.norms(step.gradient)
        nan, inf = self.nonfinite(step.gradient, norm)
        moved = self.norms(step.update)
        met = self.known[1] if before is self.known[0] else self.norms(before)
        clipped = norm.new_zeros(())
        if step.clipped is not step.gradient:
            clipped = (step.clipped.ne(step.gradient) & step.gradient.isfinite()).mean(dtype=torch.float32)
        return {
            "gradient_norm": norm,
            "total_gradient_norm": safe_norm(norm),
            "gradient_nan": nan,
            "gradient_inf": inf,
            "update_ratio": torch.where(moved == 0, 0, moved / met),
            "clipped": clipped,
        }

    def norms(self, flat: Tensor) -> Tensor:
        """Euclidean norm of each layer, formed in the widest type; on scaled values where squares leave even its range."""
        parts = self.layout.by_layer(self.widened.copy_(flat))
        norms = torch.stack([part.dot(part) for part in parts]).sqrt()
        if flat.dtype != self.wide or (flat.device.type == "cpu" and bool(((norms > 1e-140) & norms.isfinite()).all())):
            return norms
        return torch.cat([safe_norm(part) for part in parts])

    def nonfinite(self, flat: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
        """Counts of NaN and of inf in each layer, whose norm is finite only where the layer is."""
        if flat.device.type == "cpu" and bool(norms.isfinite().all()):
            none = torch.zeros_like(norms)
            return none, none
        nan, inf = (
            torch.stack([part.sum() for part in self.layout.by_layer(bad)]) for bad in (flat.isnan(), flat.isinf())
        )
        return nan, inf


def classification(outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Accuracy and largest logit gap of outputs (patches, classes) against labels (patches,); NaN for anything else."""
    if not is_classification(outputs, targets):
        return torch.tensor(torch.nan), torch.tensor(torch.nan)
    # In the widest type, for the difference of two logits may be too large for their own.
    gaps = outputs.amax(dim=1).to(wide_type(outputs.device)) - outputs.amin(dim=1)
    right = (outputs.argmax(dim=1) == targets) & ~outputs.isnan().any(dim=1)
    return right.mean(dtype=torch.float32), gaps.max()


def is_classification(outputs: Any, targets: Any) -> bool:
    """Whether outputs are logits of classes and targets their labels."""
    return (
        isinstance(outputs, Tensor)
        and isinstance(targets, Tensor)
        and outputs.dim() == 2
        and outputs.shape[1] > 1
        and targets.shape == outputs.shape[:1]
        and not targets.is_floating_point()
    )
