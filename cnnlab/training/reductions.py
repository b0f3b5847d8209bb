"""Norms, largest values and histograms of long vectors, piece by piece, each while it is in the processor's cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cnnlab.training.clipping import safe_norm

LONG = 500_000
"""Numbers in a vector from which pieces are faster than one operation after the other on the whole."""
PIECE = 65_536
"""Numbers in a piece: what is made of it fits the second-level cache."""


SAFE = {torch.float32: (1e-12, 1e18), torch.float64: (1e-140, 1e150)}
"""Type -> between which norms a sum of plain squares neither overflows nor loses anything."""


def measure_norms(parts: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of each part, float64: squares in the parts' type within a piece, summed up in float64.

    Where squares would leave the type's range, of values divided by the largest: slower, and right at any magnitude.
    """
    least, most = SAFE.get(parts[0].dtype, (0.0, 0.0))
    norms = []
    for part in parts:
        squares = torch.stack([piece.dot(piece) for piece in part.split(PIECE)])
        norm = squares.sum(dtype=torch.float64).sqrt()
        norms.append(norm if least < norm < most else safe_norm(part).to(torch.float64).squeeze())
    return torch.stack(norms)


def survey(parts: Sequence[Tensor], integer: torch.dtype, shift: int, classes: int) -> tuple[Tensor, Tensor]:
    """Largest magnitude of each part, and counts (parts, classes) of each value of the exponent bits, int64."""
    magnitudes = torch.empty(PIECE, dtype=parts[0].dtype)
    exponents = torch.empty(PIECE, dtype=integer)
    largest, counts = [], torch.zeros(len(parts), classes, dtype=torch.int64)
    for place, part in enumerate(parts):
        peaks = []
        for piece in part.split(PIECE):
            magnitude = torch.abs(piece, out=magnitudes[: len(piece)])
            peaks.append(magnitude.amax())
            exponent = torch.bitwise_right_shift(magnitude.view(integer), shift, out=exponents[: len(piece)])
            counts[place] += torch.bincount(exponent, minlength=classes)
        largest.append(torch.stack(peaks).amax())
    return torch.stack(largest), counts
