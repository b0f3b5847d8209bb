"""The gauges of an update on a GPU in a few kernels of Triton, which PyTorch brings along for CUDA on Linux.

As operations of PyTorch they are hundreds of launches, which take longer than the update that they measure. The numbers
are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from cnnlab.training.clipping import safe_norm
from cnnlab.training.gauge_kernels import join_chunks, look_at_rows, survey_chunks
from cnnlab.training.metrics import EXPONENT_SHIFT, Activations, Constants, Gauges, Numbers
from cnnlab.training.network import Layout
from cnnlab.training.step import Step

CHUNK = 1024
"""Numbers of a flat vector that one program measures."""
JOINED = 1024
"""Chunks of a layer that are joined at once."""
ROWS, COLUMNS = 16, 1024
"""Numbers of a layer's output that one program looks at: examples, and numbers within an example."""
MEASURES = (
    "weight_norm", "gradient_norm", "update_ratio", "largest_weight",
    "weight_nan", "weight_inf", "gradient_nan", "gradient_inf", "differing",
)  # fmt: skip
"""The rows of `FlatGauges.measure`."""


INTEGERS = {torch.int16: tl.int16, torch.int32: tl.int32, torch.int64: tl.int64}
"""Integer type of PyTorch -> of Triton."""


class FlatGauges:
    """Measures the flat vectors of an update."""

    def __init__(self, layout: Layout, parameters: Tensor, classes: int) -> None:
        starts, lengths, layers, firsts = [], [], [], [0]
        begun = 0
        for layer, size in enumerate(layout.layer_sizes):
            for first in range(0, size, CHUNK):
                starts.append(begun + first)
                lengths.append(min(CHUNK, size - first))
                layers.append(layer)
            begun += size
            firsts.append(len(starts))
        device = parameters.device
        self.starts, self.firsts = (torch.tensor(each, device=device) for each in (starts, firsts))
        self.lengths, self.layers = (torch.tensor(each, dtype=torch.int32, device=device) for each in (lengths, layers))
        self.most = max(after - before for before, after in itertools.pairwise(firsts))
        self.classes = classes
        integer, self.shift = EXPONENT_SHIFT[parameters.dtype]
        self.integer = INTEGERS[integer]

    def measure(
        self, before: Tensor, weight: Tensor, gradient: Tensor, update: Tensor, clipped: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Float64 (MEASURES, layers), and counts (layers, classes) of each value of the weights' exponent bits."""
        chunks, layers = len(self.starts), len(self.firsts) - 1
        partial = torch.empty(10, chunks, dtype=torch.float64, device=weight.device)
        joined = torch.empty(len(MEASURES), layers, dtype=torch.float64, device=weight.device)
        histogram = torch.zeros(layers, self.classes, dtype=torch.int32, device=weight.device)
        clips = clipped is not None
        with torch.cuda.device_of(weight):  # Triton launches on the present device, wherever the numbers are
            survey_chunks[(chunks,)](
                weight, gradient, update, before, clipped if clips else gradient,
                self.starts, self.lengths, self.layers, partial, histogram, chunks,
                clips, CHUNK, self.integer, self.shift, self.classes,
            )  # fmt: skip
            size = min(JOINED, triton.next_power_of_2(self.most))
            join_chunks[(layers,)](partial, self.firsts, chunks, joined, layers, clips, self.most, size)
        return joined, histogram


def look_at_output(output: Tensor, units: int, noted: Tensor) -> None:
    """Count in `noted` (2 + units,) the NaN and inf of an output, and mark the units that gave more than 0, or NaN.

    `output` is contiguous, with its units along axis `units`.
    """
    rows = output.shape[:units].numel()
    columns = output.shape[units:].numel()
    if rows and columns:
        column = min(COLUMNS, max(32, triton.next_power_of_2(columns)))
        grid = (triton.cdiv(columns, column), triton.cdiv(rows, ROWS))
        wide = tl.float64 if output.dtype == torch.float64 else tl.float32
        with torch.cuda.device_of(output):
            look_at_rows[grid](output, noted, rows, columns, columns // output.shape[units], wide, ROWS, column)


class FusedActivations(Activations):
    """Looks once at each layer's output, for NaN, inf and dead units alike, where all of it lies in one piece."""

    def __init__(self, network: nn.Module, layout: Layout, constants: Constants) -> None:
        self.constants = constants
        self.widest = 2
        self.masks: dict[tuple[bool, ...], Tensor] = {}
        super().__init__(network, layout)

    def clear(self) -> None:
        """Forget the last forward pass."""
        super().clear()
        self.noted: Tensor | None = None
        self.looked: Tensor | None = None
        self.units = [0] * self.layers
        self.relus: set[int] = set()

    def note_output(self, index: int, output: Tensor) -> None:
        """Look at a layer's output."""
        axis = self.unit_axis[index] % max(output.dim(), 1)
        elsewhere = output.device != self.constants.device
        if elsewhere or not output.dim() or not output.is_contiguous() or not output.shape[axis]:
            super().note_output(index, output)
            return
        self.units[index] = output.shape[axis]
        look_at_output(output, axis, self.find_room(index, output))
        self.looked = output if index not in self.seen else None

    def find_room(self, index: int, output: Tensor) -> Tensor:
        """Where a layer's counts and the marks of its units go: room for all layers is set to 0 once a pass."""
        self.widest = max(self.widest, 2 + self.units[index])
        if self.noted is None or self.noted.shape[1] < self.widest:
            before, self.noted = (
                self.noted,
                torch.zeros(self.layers, self.widest, dtype=torch.int32, device=output.device),
            )
            if before is not None:
                self.noted[:, : before.shape[1]] = before
        return self.noted[index]

    def note_given(self, index: int, given: Tensor) -> None:
        """Find the share of dead units, which is known already where a ReLU is given just what a layer put out."""
        if self.looked is not None and given.data_ptr() == self.looked.data_ptr() and given.shape == self.looked.shape:
            self.relus.add(index)
        else:
            super().note_given(index, given)

    def taken(self) -> dict[str, Numbers]:
        """The gauges of the last forward pass, where a layer ran; the pass is then forgotten."""
        noted, known = self.noted, [bool(units) for units in self.units]
        if noted is None:
            return super().taken()
        nan, inf = noted[:, :2].t().to(self.constants.dtype, memory_format=torch.contiguous_format)
        units = self.constants.take(*(float(max(count, 1)) for count in self.units))
        dead = (units - noted[:, 2:].sum(dim=1)) / units
        relus = [index in self.relus for index in range(self.layers)]
        others = super().taken()
        found = {"activation_nan": (nan, known), "activation_inf": (inf, known), "dead_relu": (dead, relus)}
        return {name: self.choose(values, others[name], which) for name, (values, which) in found.items()}

    def choose(self, found: Tensor, others: Numbers, which: list[bool]) -> Numbers:
        """What was found of some layers, and of the rest what was counted otherwise, or not measured."""
        assert isinstance(others, list)
        if any(isinstance(other, Tensor) for other in others):
            return [mine if chosen else other for mine, other, chosen in zip(found, others, which, strict=True)]
        if all(which):
            return found
        key = tuple(which)
        if key not in self.masks:
            self.masks[key] = torch.tensor(which, device=found.device)
        return torch.where(self.masks[key], found, self.constants.take(*others))


class FusedGauges(Gauges):
    """Measures steps of one network on a GPU."""

    def __init__(
        self, network: nn.Module, layout: Layout, parameters: Tensor, watched: Sequence[int], hooked: bool = True
    ) -> None:
        super().__init__(network, layout, parameters, watched, hooked=False)
        self.activations = FusedActivations(network, layout, self.constants)
        self.vectors = FlatGauges(layout, parameters, self.classes)
        self.vectors.measure(parameters, parameters, parameters, parameters, None)  # which compiles what it needs
        if hooked:
            self.activations.hook()

    def start(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Row and histogram of weights that no update has touched; no gauge of an update is measured."""
        row, histogram = super().start(parameters)
        return row, histogram.to(torch.int32)

    def measure_vectors(self, before: Tensor, step: Step) -> tuple[dict[str, Numbers], Tensor]:
        """The gauges of weights, gradient and update, and the histogram of the weights."""
        clips = step.clipped is not step.gradient
        joined, histogram = self.vectors.measure(
            before, step.parameters, step.gradient, step.update, step.clipped if clips else None
        )
        gauges: dict[str, Numbers] = dict(zip(MEASURES, joined, strict=True))
        norms, differing = joined[MEASURES.index("gradient_norm")], gauges.pop("differing")
        double = step.gradient.dtype == torch.float64  # elsewhere no square of a norm leaves the range of float64
        gauges["total_gradient_norm"] = safe_norm(norms) if double else torch.linalg.vector_norm(norms)
        gauges["clipped"] = 0.0
        if clips:
            assert isinstance(differing, Tensor)
            broken = joined[MEASURES.index("gradient_nan")] + joined[MEASURES.index("gradient_inf")]
            gauges["clipped"] = (differing - broken).sum() / len(step.gradient)
        return gauges, histogram
