"""What is said of the first NaN or inf of a training: where in the update it was made, and by what."""

from __future__ import annotations

import re
from dataclasses import dataclass

PHASES = (
    "input", "target", "buffer", "constant", "activation", "logit", "probability", "cost", "penalty", "gradient",
    "clip", "update", "weight",
)  # fmt: skip
"""Where in an update a value is made, in the order in which an update makes them."""


@dataclass(frozen=True)
class Event:
    """One operation that made a NaN or inf out of what held none (or a NaN out of inf)."""

    step: int
    """The update; 0 for what the run started from."""
    phase: str
    """One of PHASES."""
    layer: str
    """Name of the layer, or of the buffer; '' where the value belongs to none, as a cost does."""
    operation: str
    """One of `cnnlab.diagnosis.operations.OPERATIONS`; 'unknown' where the run could not be replayed."""
    function: str
    """The name of torch's operation, such as `convolution`; in a gradient that whose slope it is, such as `acos`."""
    nan: bool
    """Whether it made a NaN; otherwise inf alone."""
    largest: float
    """Largest finite magnitude that went in."""
    reached: float
    """Largest magnitude of the true result, computed in float64; NaN where it cannot be."""
    precision: str
    """Floating-point type of the result."""
    argument: str = ""
    """What was asked of the operation, in words, such as "acos of 2, which is defined on [-1, 1]"; '' if unknown."""
    source: str = ""
    """File and line of the user's code that called it, and the code there; '' if it was not the user's code."""
    saturated: str = ""
    """The softmax, sigmoid or exp that gave exactly 0 or 1, of which this came; '' if none did."""
    masked: bool = False
    """Whether all that was given and not finite is a mask of -inf, which is no fault of the data."""

    def __str__(self) -> str:
        made = "given" if self.operation == "given" else f"{self.operation} in {self.function}"
        asked = f": {self.argument}" if self.argument else ""
        return f"update {self.step}, {self.value_name}, {made}{asked}{f'; {self.source}' if self.source else ''}"

    @property
    def value_name(self) -> str:
        """The value in words: its phase, and its layer where it has one."""
        return f"{self.phase} of {name_place(self.layer)}" if self.layer else self.phase


PLACES = re.compile(r"(cv\d+|hid[12]|softmax)_(\w+)")
"""What stands after a layer of the question's network, such as cv2_norm."""
WRITTEN = {
    "relu": "ReLU", "leaky_relu": "leaky ReLU", "elu": "ELU", "selu": "SELU", "gelu": "GELU", "silu": "SiLU",
    "norm": "normalisation",
}  # fmt: skip
"""Parts whose names are written otherwise."""


def name_place(layer: str) -> str:
    """A layer in words: "the normalisation of cv2", "the GELU of hid1"; any other by its name."""
    found = PLACES.fullmatch(layer)
    return f"the {WRITTEN.get(found[2], found[2])} of {found[1]}" if found else layer


@dataclass(frozen=True, repr=False)
class Origin:
    """The first non-finite value of a run, and the first NaN of the same update."""

    first: Event
    nan: Event | None
    """None if that update made inf alone."""

    def __repr__(self) -> str:
        return f"Origin({self.first})"
