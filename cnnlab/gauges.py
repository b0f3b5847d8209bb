"""What is measured at every update, as tensors on the device: cheap enough to be always on.

On the CPU a count of NaN and inf is taken only where a sum says that there are some; on a GPU, where asking would wait
for the device, it is always taken. Both give the same numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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
    """Hooks that keep what each layer put out in the last forward pass, until `release`."""

    def __init__(self, network: nn.Module, layout: Layout) -> None:
        self.outputs: dict[int, list[Tensor]] = defaultdict(list)
        self.before_relu: dict[int, tuple[Tensor, int]] = {}
        self.last = 0
        self.unit_axis = [unit_axis(network.get_submodule(name)) for name in layout.layers]
        layers = [network.get_submodule(name) for name in layout.layers]
        self.handles = [layer.register_forward_hook(self.saw_layer(index)) for index, layer in enumerate(layers)]
        relus = [module for module in network.modules() if isinstance(module, nn.ReLU)]
        self.handles += [relu.register_forward_pre_hook(self.saw_relu) for relu in relus]

    def saw_layer(self, index: int) -> Callable[..., None]:
        """The hook that keeps a layer's output."""

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = next((part for part in flat_parts(output) if part.is_floating_point()), None)
            if tensor is not None:
                self.outputs[index].append(tensor.detach())
                self.last = index

        return keep

    def saw_relu(self, _module: nn.Module, inputs: Any) -> None:
        """The hook that keeps what a ReLU is given, on the account of the layer that ran last."""
        self.before_relu[self.last] = (inputs[0].detach(), self.unit_axis[self.last])

    def clear(self) -> None:
        """Forget the last forward pass."""
        self.outputs.clear()
        self.before_relu.clear()

    def release(self) -> None:
        """Take the hooks off the network."""
        for handle in self.handles:
            handle.remove()
        self.clear()


def unit_axis(layer: nn.Module) -> int:
    """The axis of a layer's output that counts its units: channels of a convolution, else the last."""
    return 1 if getattr(layer, "kernel_size", None) is not None else -1


def flat_parts(output: Any) -> list[Tensor]:
    """The tensors in a layer's output, which may be a tuple."""
    if isinstance(output, Tensor):
        return [output]
    return [part for part in output if isinstance(part, Tensor)] if isinstance(output, (tuple, list)) else []


class Gauges:
    """Measures steps of one network: each becomes a row of numbers and a histogram, both still on the device."""

    def __init__(self, network: nn.Module, layout: Layout, parameters: Tensor, watched: Sequence[int]) -> None:
        self.layout = layout
        self.activations = Activations(network, layout)
        self.watched = torch.tensor(list(watched), dtype=torch.int64, device=parameters.device)
        self.wide = torch.float32 if parameters.device.type == "mps" else torch.float64
        integer, self.shift = EXPONENT_SHIFT[parameters.dtype]
        self.integer = integer
        self.classes = EXPONENTS[str(parameters.dtype).removeprefix("torch.")].count
        sizes = torch.tensor(layout.layer_sizes)
        first_class = (torch.arange(len(sizes)) * self.classes).repeat_interleave(sizes)
        self.first_class = first_class.to(torch.int64 if integer == torch.int64 else torch.int32).to(parameters.device)

    def start(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Row and histogram of weights that no update has touched; every gauge of an update is NaN."""
        return self.row(self.of_weights(parameters), parameters), self.histogram(parameters)

    def measure(self, before: Tensor, step: Step, targets: Any) -> tuple[Tensor, Tensor]:
        """Row and histogram of a step from the parameters `before`; the activations are those of its forward pass."""
        gauges = {**self.of_weights(step.parameters), **self.of_update(before, step), **self.of_activations()}
        accuracy, gap = classification(step.outputs, targets)
        penalty = step.penalty
        gauges |= {
            "data_cost": step.data_cost,
            "cost": step.data_cost if penalty is None else step.data_cost + penalty,
            "penalty": torch.zeros_like(step.data_cost) if penalty is None else penalty,
            "accuracy": accuracy,
            "logit_gap": gap,
        }
        return self.row(gauges, step.parameters), self.histogram(step.parameters)

    def row(self, gauges: dict[str, Tensor], parameters: Tensor) -> Tensor:
        """One vector in the order of a Record's table; a gauge that was not measured is NaN."""
        layers = len(self.layout.layers)
        nan = torch.full((layers,), torch.nan, dtype=self.wide, device=parameters.device)
        parts = [gauges[name].reshape(1) if name in gauges else nan[:1] for name in GAUGES]
        parts += [gauges.get(name, nan) for name in LAYER_GAUGES]
        return torch.cat([part.to(self.wide) for part in parts] + [parameters[self.watched].to(self.wide)])

    def histogram(self, parameters: Tensor) -> Tensor:
        """(layers, classes) int64: how many numbers of each layer have each value of the exponent bits. NaN-safe."""
        exponents = parameters.abs().view(self.integer) >> self.shift
        counts = torch.bincount(exponents + self.first_class, minlength=len(self.layout.layers) * self.classes)
        return counts.view(len(self.layout.layers), self.classes)

    def of_weights(self, parameters: Tensor) -> dict[str, Tensor]:
        """The gauges of the weights alone."""
        views = self.layout.by_layer(parameters)
        norm = self.norms(views)
        nan, inf = self.nonfinite(views, norm)
        return {"weight_norm": norm, "largest_weight": self.largest(views), "weight_nan": nan, "weight_inf": inf}

    def of_update(self, before: Tensor, step: Step) -> dict[str, Tensor]:
        """The gauges of gradient, clipping and update."""
        gradients = self.layout.by_layer(step.gradient)
        norm = self.norms(gradients)
        nan, inf = self.nonfinite(gradients, norm)
        moved = self.norms(self.layout.by_layer(step.update))
        met = self.norms(self.layout.by_layer(before))
        unclipped = step.clipped is step.gradient
        changed = step.clipped.ne(step.gradient) & step.gradient.isfinite() if not unclipped else None
        return {
            "gradient_norm": norm,
            "total_gradient_norm": self.norms([norm])[0],
            "gradient_nan": nan,
            "gradient_inf": inf,
            "update_ratio": torch.where(moved == 0, torch.zeros_like(moved), moved / met),
            "clipped": norm.new_zeros(()) if changed is None else changed.to(self.wide).mean(),
        }

    def of_activations(self) -> dict[str, Tensor]:
        """The gauges of the last forward pass, which is then forgotten."""
        layers = range(len(self.layout.layers))
        outputs = self.activations.outputs
        none = self.first_class.new_zeros(1)
        flat = [torch.cat([part.flatten() for part in parts]) if len(parts := outputs[index]) > 1 else parts[0].flatten()
                if parts else none.to(self.wide) for index in layers]  # fmt: skip
        sums = torch.stack([part.sum(dtype=self.sum_type(part)).to(self.wide) for part in flat])
        nan, inf = self.nonfinite(flat, sums)
        dead = torch.full_like(sums, torch.nan)
        for index, (given, axis) in self.activations.before_relu.items():
            others = [other for other in range(given.dim()) if other != axis % given.dim()]
            dead[index] = (given.amax(dim=others) <= 0).to(self.wide).mean()
        self.activations.clear()
        return {"activation_nan": nan, "activation_inf": inf, "dead_relu": dead}

    def sum_type(self, tensor: Tensor) -> torch.dtype:
        """The type to sum in: float32 for the half types, which overflow at once."""
        return tensor.dtype if tensor.dtype in (torch.float32, torch.float64) else torch.float32

    def norms(self, parts: Sequence[Tensor]) -> Tensor:
        """Euclidean norms formed in float64; where squares overflow even there, formed again on scaled values."""
        norms = torch.stack([torch.linalg.vector_norm(part, dtype=self.wide) for part in parts])
        if parts[0].dtype != self.wide or (norms.device.type == "cpu" and bool(norms.isfinite().all())):
            return norms
        largest = self.largest(parts)
        usable = largest.isfinite() & (largest > 0)
        divisor = torch.where(usable, largest, 1).unbind()
        scaled = torch.stack([torch.linalg.vector_norm(part / by) for part, by in zip(parts, divisor, strict=True)])
        return torch.where(usable, largest * scaled, largest)

    def largest(self, parts: Sequence[Tensor]) -> Tensor:
        """Largest magnitude of each part; NaN if it holds one."""
        ends = torch.stack([torch.stack(torch.aminmax(part)) for part in parts])
        return ends.abs().amax(dim=1).to(self.wide)

    def nonfinite(self, parts: Sequence[Tensor], sign: Tensor) -> tuple[Tensor, Tensor]:
        """Counts of NaN and of inf in each part; `sign`, one number a part, is finite only where the part is."""
        if sign.device.type == "cpu" and bool(sign.isfinite().all()):
            none = torch.zeros_like(sign)
            return none, none
        nan = torch.stack([part.isnan().sum() for part in parts])
        inf = torch.stack([part.isinf().sum() for part in parts])
        return nan.to(self.wide), inf.to(self.wide)


def classification(outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Accuracy and largest logit gap of outputs (patches, classes) against labels (patches,); NaN for anything else."""
    if not is_classification(outputs, targets):
        return torch.tensor(torch.nan), torch.tensor(torch.nan)
    known = ~outputs.isnan().any(dim=1)
    right = (outputs.argmax(dim=1) == targets) & known
    return right.to(torch.float32).mean(), (outputs.amax(dim=1) - outputs.amin(dim=1)).max()


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
