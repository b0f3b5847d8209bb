"""What was measured at one update, in plain numbers and numpy arrays.

NaN and inf stay what they are: divergence is data. What was not measured is neither: it is `NOT_MEASURED`.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.settings import Knobs

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
PerLayer = NDArray[np.float64]
"""One number a layer, in the order of `Record.layers`."""
NOT_MEASURED_BITS = 0x7FF8_0000_0000_0000 | 1954 << 29
"""A quiet NaN that no operation makes: the number that R's NA has, in the lowest bits that float32 has, too."""
NOT_MEASURED: float = struct.unpack("<d", struct.pack("<Q", NOT_MEASURED_BITS))[0]
"""Stands where a gauge was not measured: a NaN with bits of its own. `is_measured` tells it apart."""


def is_measured(values: Any) -> NDArray[np.bool_]:
    """Whether each value was measured, be it NaN or inf. Copies, float32 and files keep what tells them apart."""
    return np.asarray(np.asarray(values, dtype=np.float64).view(np.int64) != NOT_MEASURED_BITS)


@dataclass(frozen=True, eq=False)
class Frame:
    """All that was measured at one update. Costs, outputs and gradients are of before it, weights of after it."""

    step: int
    """Updates done; 0 is the start, where only the weights are known and the rest is not measured."""
    epoch: float
    """Passes over the training patches done."""
    knobs: Knobs
    """What was in force."""
    cost: float
    """What the step descended: data part plus penalty."""
    data_cost: float
    penalty: float
    """L1 and L2 within the cost; 0 where they are off or in the update."""
    accuracy: float
    """Share of the batch classified rightly; a patch with a NaN logit counts as wrong. Not measured without classes."""
    held_out_accuracy: float
    """The same on held-out patches after this update, where it was measured."""
    logit_gap: float
    """Largest difference between two logits of one patch in the batch."""
    total_gradient_norm: float
    """Euclidean norm of the whole gradient before clipping."""
    clipped: float
    """Share of the gradient's values that clipping changed."""
    scale: float
    """What the cost was multiplied by before the backward pass; not measured without a loss scale.

    Gauges of the gradient are of the one that was divided by it again.
    """
    skipped: float
    """1 where the update was left out, for its scaled gradient held inf or NaN, else 0; likewise."""
    sharpness: float
    """Largest eigenvalue of the cost's Hessian after this update, where it was measured; inf if it is not finite.

    With an optimiser that divides gradients it is that of the Hessian as the next update divides it.
    """
    weight_norm: PerLayer
    """Euclidean norm of each layer's weights and biases."""
    largest_weight: PerLayer
    """Largest magnitude in each layer."""
    gradient_norm: PerLayer
    """Euclidean norm of each layer's gradient before clipping."""
    update_ratio: PerLayer
    """Norm of the update over the norm of the weights that it met; near 1e-3 is healthy."""
    dead_relu: PerLayer
    """Share of a layer's units whose ReLU gave 0 for the whole batch; not measured without a ReLU."""
    weight_nan: PerLayer
    """How many of a layer's weights are NaN; likewise below."""
    weight_inf: PerLayer
    gradient_nan: PerLayer
    gradient_inf: PerLayer
    activation_nan: PerLayer
    activation_inf: PerLayer
    activation_mean: PerLayer
    """Mean of a layer's output, after its activation where one follows at once.

    This and what follows is measured at each of the first 8 updates, at every 4th up to 32, and at every 32nd.
    """
    activation_deviation: PerLayer
    """Standard deviation of the same values."""
    activation_zeros: PerLayer
    """Share of them that are exactly 0."""
    activation_saturated: PerLayer
    """Share of them at which a tanh, sigmoid, ELU or SELU is next to flat; not measured with other activations."""
    backward_deviation: PerLayer
    """Standard deviation of the cost's gradient with respect to the same values."""
    histogram: NDArray[np.int32]
    """(layers, classes): weights by their binary exponent; see `Record.exponents`."""
    watched: FloatArray
    """Values of the watched single weights."""

    @property
    def nonfinite(self) -> bool:
        """Whether the cost is NaN or inf; False where it was not measured."""
        return bool(is_nonfinite(self.cost))

    def __repr__(self) -> str:
        return f"Frame(step={self.step}, cost={describe_value(self.cost)}, learning_rate={self.knobs.learning_rate:g})"


def is_nonfinite(values: Any) -> NDArray[np.bool_]:
    """Whether each value was measured and is NaN or inf."""
    return ~np.isfinite(values) & is_measured(values)


def describe_value(value: float) -> str:
    """A value in six digits, or the words that it was not measured."""
    return f"{value:.6g}" if is_measured(value) else "not measured"


GAUGES = tuple(field.name for field in dataclasses.fields(Frame) if field.type == "float" and field.name != "epoch")
"""The gauges that are one number an update."""
LAYER_GAUGES = tuple(field.name for field in dataclasses.fields(Frame) if field.type == "PerLayer")
"""The gauges that are one number a layer."""

COUNTED = ("gradients", "activations", "updates")
"""What the histograms of signals count, one after the other, each layer by layer."""


def name_columns(
    gauges: Iterable[str], layer_gauges: Iterable[str], layers: Sequence[object], watched: Iterable[str]
) -> tuple[str, ...]:
    """Names of a table's columns, in their order."""
    return *gauges, *(f"{gauge}.{layer}" for gauge in layer_gauges for layer in layers), *watched
