"""What passes through the layers of a network at an update, forward and back, beside the magnitudes of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.records.frame import COUNTED, FloatArray, is_measured
from cnnlab.records.record import Record

OFTEN, SOMETIMES, SELDOM = 8, 4, 32
"""Signals are measured at each of the first 8 updates, at every 4th up to 32, and then at every 32nd."""
KINDS = ("weights", *COUNTED)
"""What the plots of magnitudes can show."""


def is_signal_update(step: int) -> bool:
    """Whether signals are measured at an update: its number alone decides, never what is on the screen."""
    return step > 0 and (step <= OFTEN or step % (SOMETIMES if step <= SELDOM else SELDOM) == 0)


@dataclass(frozen=True, eq=False)
class Signals:
    """Of each layer's output, after its activation where one follows at once; (layers,)."""

    step: int
    """The update in which it passes; 0 where nothing was measured."""
    layers: tuple[str, ...]
    activation_mean: FloatArray
    """Over the batch and all units."""
    activation_deviation: FloatArray
    """Standard deviation over the same."""
    activation_zeros: FloatArray
    """Share of values that are exactly 0."""
    activation_saturated: FloatArray
    """Share of values at which the activation is next to flat; not measured where its output does not tell."""
    backward_deviation: FloatArray
    """Standard deviation of the cost's gradient with respect to the output."""
    counts: NDArray[np.int32]
    """(kinds of `COUNTED` x layers, classes): histograms; of activations those of a sample of the values."""

    def count(self, kind: str) -> NDArray[np.int32]:
        """The histogram (layers, classes) of one kind of `COUNTED`."""
        return choose_layers(self.counts, kind)


SIGNALS = (
    "activation_mean", "activation_deviation", "activation_zeros", "activation_saturated", "backward_deviation",
)  # fmt: skip
"""The gauges of layers that are signals, as `Signals` and a Record have them."""


def choose_layers(counts: NDArray[Any], kind: str) -> NDArray[Any]:
    """Of histograms (.., kinds x layers, classes) those of one kind (.., layers, classes)."""
    layers = counts.shape[-2] // len(COUNTED)
    first = COUNTED.index(kind) * layers
    return counts[..., first : first + layers, :]


def find_signals(record: Record) -> Signals:
    """The signals of the last update of a record at which they were measured."""
    measured = record.signal_histograms.counted
    step = int(measured[-1]) if len(measured) else 0
    values = {name: record.column(name)[step] for name in SIGNALS}
    return Signals(step, record.layers, counts=record.signal_histograms[step], **values)


def knows_signals(record: Record) -> bool:
    """Whether the last update of a record is one at which its signals were measured."""
    return bool(is_measured(record.column("activation_deviation")[-1]).any())
