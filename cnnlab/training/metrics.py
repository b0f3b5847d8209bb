"""What is measured at every update, as tensors on the device: cheap enough to be always on.

On the CPU a count of NaN and inf is taken only where a sum says that there are some; on a GPU, where asking would wait
for the device, it is always taken. Both give the same numbers.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.hooks import RemovableHandle

from cnnlab.records.frame import GAUGES, LAYER_GAUGES, NOT_MEASURED
from cnnlab.records.histograms import EXPONENTS
from cnnlab.training.clipping import safe_norm
from cnnlab.training.network import Layout
from cnnlab.training.reductions import LONG, measure_norms, survey
from cnnlab.training.step import Step

EXPONENT_SHIFT = {
    torch.float16: (torch.int16, 10),
    torch.bfloat16: (torch.int16, 7),
    torch.float32: (torch.int32, 23),
    torch.float64: (torch.int64, 52),
}
"""Floating-point type -> the integer type of its width, and the bits of its mantissa."""


Numbers = Tensor | float | list[Any]
"""A number, or one for each layer."""
Hooks = list[tuple[nn.Module, Callable[..., None]]]
"""Modules, and what is called around the forward pass of each, with the arguments of torch's hooks."""


class Activations:
    """Measures what each layer puts out while it passes, so that no memory is held for it.

    Measuring at once, while the numbers are still in the processor's cache, costs a tenth of keeping them for later.
    `before` and `after` are for whoever calls them: `hook` has the modules themselves do it.
    """

    def __init__(self, network: nn.Module, layout: Layout) -> None:
        self.layers = len(layout.layers)
        self.clear()
        layers = [network.get_submodule(name) for name in layout.layers]
        self.unit_axis = [unit_axis(layer) for layer in layers]
        self.after: Hooks = [(layer, self.note_layer(index)) for index, layer in enumerate(layers)]
        relus = [module for module in network.modules() if isinstance(module, nn.ReLU)]
        self.before: Hooks = [(relu, self.note_relu) for relu in relus]

        self.active = True
        """Whether forward passes are looked at; set by whoever measures some updates alone."""
        self.spent = 0.0
        """Seconds that looking has taken, on the host."""
        self.handles: list[RemovableHandle] = []

    def hook(self) -> None:
        """Have the modules call this, until it is released: for a network that is ours alone."""
        self.handles = [module.register_forward_hook(call) for module, call in self.after]
        self.handles += [module.register_forward_pre_hook(call) for module, call in self.before]

    def clear(self) -> None:
        """Forget the last forward pass."""
        self.last: int | None = None
        self.seen: set[int] = set()
        self.nan: list[Any] = [NOT_MEASURED] * self.layers
        self.inf: list[Any] = [NOT_MEASURED] * self.layers
        self.dead: list[Any] = [NOT_MEASURED] * self.layers

    def note_layer(self, index: int) -> Callable[..., None]:
        """The hook that counts NaN and inf in a layer's output."""

        def count(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not self.active or not torch.is_grad_enabled():  # a look at held-out examples, or a checkpoint's
                return
            began = time.perf_counter()
            tensor = next((part for part in list_parts(output) if part.is_floating_point()), None)
            if tensor is None or not holds_numbers(tensor):
                return
            self.note_output(index, tensor.detach())
            self.last = index
            self.seen.add(index)
            self.spent += time.perf_counter() - began

        return count

    def note_output(self, index: int, output: Tensor) -> None:
        """Count NaN and inf in what a layer put out, beside those of its earlier calls in this pass."""
        nan, inf = count_nonfinite(output)
        if index in self.seen:
            nan, inf = nan + self.nan[index], inf + self.inf[index]
        self.nan[index], self.inf[index] = nan, inf

    def note_relu(self, _module: nn.Module, inputs: Any) -> None:
        """The hook that looks for dead units in what a ReLU is given, on the account of the layer that ran last."""
        if self.last is None or not self.active or not torch.is_grad_enabled():
            return
        given = next(iter(list_parts(inputs)), None)
        if given is None or not given.numel() or not holds_numbers(given):
            return
        began = time.perf_counter()
        self.note_given(self.last, given.detach())
        self.spent += time.perf_counter() - began

    def note_given(self, index: int, given: Tensor) -> None:
        """Find the share of dead units in what a ReLU is given on the account of a layer."""
        self.dead[index] = measure_dead_share(given, self.unit_axis[index] % max(given.dim(), 1))

    def taken(self) -> dict[str, Numbers]:
        """The gauges of the last forward pass, where a layer ran; the pass is then forgotten."""
        gauges: dict[str, Numbers] = {"activation_nan": self.nan, "activation_inf": self.inf, "dead_relu": self.dead}
        self.clear()
        return gauges

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


def list_parts(output: Any) -> list[Tensor]:
    """The tensors in a layer's output, which may be a tuple."""
    if isinstance(output, Tensor):
        return [output]
    return [part for part in output if isinstance(part, Tensor)] if isinstance(output, (tuple, list)) else []


def holds_numbers(tensor: Tensor) -> bool:
    """Whether a tensor has numbers that can be looked at: not on torch's meta device, not within vmap or an export."""
    if tensor.layout != torch.strided or tensor.device.type == "meta" or isinstance(tensor, FakeTensor):
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def count_nonfinite(tensor: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """How many values are NaN, and how many inf; on the CPU counted only where a sum says that there are some."""
    if is_read_at_once(tensor.device):
        # Half types would overflow in a sum of their own; a sum of float32 that overflows only costs a needless count.
        wide = tensor.dtype if tensor.dtype == torch.float64 else torch.float32
        if math.isfinite(tensor.sum(dtype=wide).item()):
            return 0.0, 0.0
        return float(tensor.isnan().sum()), float(tensor.isinf().sum())
    return tensor.isnan().sum(), tensor.isinf().sum()


def measure_dead_share(given: Tensor, units: int) -> Tensor | float:
    """Share of units, counted along one axis, whose largest value is not above 0; on the CPU a Python number."""
    if units > 0 and given.is_contiguous():
        # Over the first axis whole slices are compared, up to three times as fast as all axes at once.
        given, units = given.amax(dim=0), units - 1
    others = [axis for axis in range(given.dim()) if axis != units]
    peaks = given.amax(dim=others) if others else given.reshape(-1)
    if not is_read_at_once(peaks.device):
        return (peaks <= 0).mean(dtype=choose_wide_type(peaks.device))
    if peaks.dtype == torch.bfloat16:  # which numpy lacks
        peaks = peaks.float()
    return int(np.count_nonzero(peaks.numpy() <= 0)) / len(peaks)


def total(parts: Numbers) -> Any:
    """The sum of one number a layer."""
    return parts.sum() if isinstance(parts, Tensor) else sum(parts)  # type: ignore[arg-type]


def divide_norms(norms: Tensor, others: Tensor) -> Numbers:
    """Norms over others; 0 where the first is 0, whatever the other."""
    if not is_read_at_once(norms.device):
        return torch.where(norms == 0, 0, norms / others)
    pairs = zip(norms.tolist(), others.tolist(), strict=True)
    return [(one / other if other else one * math.inf) if one else 0.0 for one, other in pairs]


def total_norm(norms: Tensor) -> Numbers:
    """Norm of the whole from the norms of its layers, formed so that it does not overflow; NaN if one of them is."""
    if not is_read_at_once(norms.device):
        return safe_norm(norms)
    values = norms.tolist()
    return math.nan if any(map(math.isnan, values)) else math.hypot(*values)


def is_read_at_once(device: torch.device) -> bool:
    """Whether reading a number from the device takes no waiting: on the CPU alone."""
    return device.type == "cpu"


def choose_wide_type(device: torch.device) -> torch.dtype:
    """The type that gauges are formed in: float64, or float32 where the device has none."""
    return torch.float32 if device.type == "mps" else torch.float64


class Constants:
    """Numbers on a device, brought there once: to copy them at every update would wait for the device."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self.known: dict[bytes, Tensor] = {}

    def take(self, *numbers: float) -> Tensor:
        """The numbers as a vector."""
        key = struct.pack(f"<{len(numbers)}d", *numbers)
        if key not in self.known:
            self.known[key] = torch.tensor(numbers, dtype=self.dtype, device=self.device)
        return self.known[key]


class Gauges:
    """Measures steps of one network: each becomes a row of numbers and a histogram, both still on the device."""

    def __init__(
        self, network: nn.Module, layout: Layout, parameters: Tensor, watched: Sequence[int], hooked: bool = True
    ) -> None:
        self.layout = layout
        self.device = parameters.device
        self.activations = Activations(network, layout)
        if hooked:
            self.activations.hook()
        self.watched = torch.tensor(list(watched), dtype=torch.int64, device=self.device)
        self.wide = choose_wide_type(self.device)
        self.dtype = parameters.dtype
        self.integer, self.shift = EXPONENT_SHIFT[parameters.dtype]
        self.classes = EXPONENTS[str(parameters.dtype).removeprefix("torch.")].count
        sizes = torch.tensor(layout.layer_sizes)
        self.long = len(parameters) >= LONG and is_read_at_once(self.device)
        # Working memory, written anew at every update: fewer operations, and no fresh pages to fetch from the system.
        room = parameters[:0] if self.long else parameters
        self.magnitudes = torch.empty_like(room)
        first_class = (torch.arange(len(sizes)) * self.classes).repeat_interleave(sizes)[: len(room)]
        self.first_class = first_class.to(self.device, torch.int64 if self.integer == torch.int64 else torch.int32)
        self.exponents = torch.empty_like(self.first_class)
        self.widened = torch.empty_like(room, dtype=self.wide)
        self.none = [0.0] * len(layout.layers)
        self.unknown = [NOT_MEASURED] * len(layout.layers)
        self.constants = Constants(self.wide, self.device)
        self.known = parameters, self.norms(parameters)[0]

    def start(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Row and histogram of weights that no update has touched; no gauge of an update is measured."""
        largest, histogram = self.survey(parameters)
        gauges = self.of_weights(parameters, largest, self.norms(parameters))
        return self.row(gauges, parameters), histogram

    def measure(
        self,
        before: Tensor,
        step: Step,
        targets: Any,
        activations: dict[str, Numbers] | None = None,
        signals: Mapping[str, Numbers] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Row and histogram of a step from the parameters `before`; activations and signals are those of its passes."""
        gauges, histogram = self.measure_vectors(before, step)
        gauges |= activations or self.activations.taken()
        gauges |= signals or {}
        gauges["data_cost"] = gauges["cost"] = step.data_cost.to(self.wide)
        gauges["penalty"] = 0.0
        if step.penalty is not None:
            gauges |= {"penalty": step.penalty, "cost": step.data_cost + step.penalty}
        if step.scale is not None and step.skipped is not None:
            gauges |= {"scale": step.scale, "skipped": step.skipped}
        if is_classification(step.outputs, targets):
            gauges["accuracy"], gauges["logit_gap"] = classification(step.outputs, targets)
        return self.row(gauges, step.parameters), histogram

    def measure_vectors(self, before: Tensor, step: Step) -> tuple[dict[str, Numbers], Tensor]:
        """The gauges of weights, gradient and update, and the histogram of the weights."""
        norms = self.norms(step.parameters, step.gradient, step.update)
        met = self.known[1] if before is self.known[0] else self.norms(before)[0]
        largest, histogram = self.survey(step.parameters)
        gauges = self.of_weights(step.parameters, largest, norms) | self.of_update(step, norms, met)
        self.known = step.parameters, norms[0]
        return gauges, histogram

    def row(self, gauges: dict[str, Numbers], parameters: Tensor) -> Tensor:
        """One vector in the order of a Record's table; what is not among the gauges was not measured."""
        parts = [gauges.get(name, NOT_MEASURED) for name in GAUGES]
        layer_parts = [gauges.get(name, self.unknown) for name in LAYER_GAUGES]
        watched = parameters[self.watched]
        if is_read_at_once(self.device):
            every = (*parts, *layer_parts, watched)
            return torch.tensor([number for part in every for number in plain(part)], dtype=self.wide)
        return torch.cat([self.on_device(part) for part in (parts, *layer_parts, watched)])

    def on_device(self, part: Numbers) -> Tensor:
        """One part of a row as a vector on a device that is not the CPU."""
        if isinstance(part, Tensor):
            return part.to(self.wide).reshape(-1)
        numbers = part if isinstance(part, list) else [part]
        if not any(isinstance(number, Tensor) for number in numbers):
            return self.constants.take(*numbers)
        return torch.stack([
            number.to(self.wide).reshape(()) if isinstance(number, Tensor) else self.constants.take(number)[0]
            for number in numbers
        ])  # fmt: skip

    def histogram(self, magnitudes: Tensor) -> Tensor:
        """(layers, classes) int64: how many numbers of each layer have each value of the exponent bits. NaN-safe."""
        torch.bitwise_right_shift(magnitudes.view(self.integer), self.shift, out=self.exponents)
        if not is_read_at_once(self.device):
            self.exponents &= self.classes - 1  # CUDA leaves a NaN of float64 its sign
        self.exponents += self.first_class
        count = len(self.layout.layers) * self.classes
        if is_read_at_once(self.device):
            counts = torch.bincount(self.exponents, minlength=count)
        else:  # bincount would wait for the device, to learn the largest value
            places = self.exponents.to(torch.int64)
            counts = places.new_zeros(count).scatter_add_(0, places, torch.ones_like(places))
        return counts.view(len(self.layout.layers), self.classes)

    def count(self, values: Tensor) -> Tensor:
        """(classes,) int64: how many of some values have each value of the exponent bits of this network's numbers."""
        whole = values.to(self.dtype).contiguous().view(self.integer)
        exponents = (whole >> self.shift & (self.classes - 1)).to(torch.int64)
        if is_read_at_once(self.device):
            return torch.bincount(exponents, minlength=self.classes)
        return exponents.new_zeros(self.classes).scatter_add_(0, exponents, torch.ones_like(exponents))

    def survey(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Largest magnitude and histogram of each layer."""
        if self.long:
            return survey(self.layout.by_layer(parameters), self.integer, self.shift, self.classes)
        magnitudes = torch.abs(parameters, out=self.magnitudes)
        largest = torch.stack([part.amax() for part in self.layout.by_layer(magnitudes)])
        return largest, self.histogram(magnitudes)

    def of_weights(self, parameters: Tensor, largest: Tensor, norms: Tensor) -> dict[str, Numbers]:
        """The gauges of the weights alone."""
        nan, inf = self.nonfinite(parameters, norms[0])
        return {"weight_norm": norms[0], "largest_weight": largest, "weight_nan": nan, "weight_inf": inf}

    def of_update(self, step: Step, norms: Tensor, met: Tensor) -> dict[str, Numbers]:
        """The gauges of gradient, clipping and update; `met` holds the norms of the weights that the update met."""
        nan, inf = self.nonfinite(step.gradient, norms[1])
        clipped: Numbers = 0.0
        if step.clipped is not step.gradient:
            # What is not finite stays as it was, and differs from itself here.
            differing = (step.clipped - step.gradient).count_nonzero().to(self.wide)
            clipped = (differing - total(nan) - total(inf)) / len(step.gradient)
        return {
            "gradient_norm": norms[1],
            "total_gradient_norm": total_norm(norms[1]),
            "gradient_nan": nan,
            "gradient_inf": inf,
            "update_ratio": divide_norms(norms[2], met),
            "clipped": clipped,
        }

    def norms(self, *flats: Tensor) -> Tensor:
        """Euclidean norms (vectors, layers) in the widest type; of scaled values where squares leave its range."""
        if self.long:
            return torch.stack([measure_norms(self.layout.by_layer(flat)) for flat in flats]).to(self.wide)
        squares = [part.dot(part) for flat in flats for part in self.layout.by_layer(self.widened.copy_(flat))]
        norms = torch.stack(squares).sqrt().view(len(flats), -1)
        if flats[0].dtype != self.wide:
            return norms
        # Each number decides for itself, so that a vector's norm does not depend on which are measured beside it.
        in_range = (norms > 1e-140) & norms.isfinite()
        if is_read_at_once(self.device) and bool(in_range.all()):
            return norms
        scaled = [torch.cat([safe_norm(part) for part in self.layout.by_layer(flat)]) for flat in flats]
        return torch.where(in_range, norms, torch.stack(scaled))

    def nonfinite(self, flat: Tensor, norms: Tensor) -> tuple[Numbers, Numbers]:
        """Counts of NaN and of inf in each layer, whose norm is finite only where the layer is."""
        if is_read_at_once(self.device) and all(map(math.isfinite, norms.tolist())):
            return self.none, self.none
        nan, inf = self.layout.by_layer(flat.isnan()), self.layout.by_layer(flat.isinf())
        return torch.stack([part.sum() for part in nan]), torch.stack([part.sum() for part in inf])


def bring_to_host(parts: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Tensors as numpy arrays, all in one transfer where they lie on a device."""
    if is_read_at_once(parts[0].device):
        return [part.numpy() for part in parts]
    raw = torch.cat([part.contiguous().view(-1).view(torch.uint8) for part in parts]).cpu().numpy()
    pieces = np.split(raw, np.cumsum([part.nbytes for part in parts])[:-1])
    return [
        piece.view(str(part.dtype).removeprefix("torch.")).reshape(part.shape)
        for piece, part in zip(pieces, parts, strict=True)
    ]


def plain(part: Numbers) -> list[Any]:
    """Python numbers of one part of a row on the CPU."""
    if isinstance(part, Tensor):
        return part.reshape(-1).tolist()
    return part if isinstance(part, list) else [part]


def classification(outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Accuracy and largest logit gap of outputs (patches, classes) against labels (patches,); not measured else."""
    if not is_classification(outputs, targets):
        return torch.tensor(NOT_MEASURED), torch.tensor(NOT_MEASURED)
    low, high = torch.aminmax(outputs, dim=1)
    # The difference of two logits may be too large for their own type.
    gap = (high.to(choose_wide_type(outputs.device)) - low).max()
    right = (outputs.argmax(dim=1) == targets) & (high == high)
    return right.mean(dtype=torch.float32), gap


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
