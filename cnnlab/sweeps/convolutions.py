"""The convolutions of many members at once, channels last, each member with kernels of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor


class Convolution(NamedTuple):
    """A convolution of all members, without padding, and whether a ReLU follows it."""

    weight: Tensor
    """(members, channels out, channels in, high, wide)."""
    bias: Tensor
    """(members, channels out)."""
    relu: bool


Convolve = Callable[[Tensor, Sequence[Convolution]], Tensor]
"""What went in (members, or 1 for all alike, patches, rows, columns, channels), a chain of convolutions -> the last
output (members, patches, rows, columns, channels)."""


def convolve(passed: Tensor, chain: Sequence[Convolution]) -> Tensor:
    """Convolutions one after the other, each as one batched product of matrices: windows times kernels."""
    for weight, bias, relu in chain:
        members, out, _, high, _ = weight.shape
        windows = cut_windows(passed, high)
        _, patches, rows, columns, _ = windows.shape
        made = windows.flatten(1, 3) @ weight.flatten(2).transpose(1, 2) + bias[:, None]
        passed = made.view(members, patches, rows, columns, out)
        passed = passed.relu() if relu else passed
    return passed


def cut_windows(passed: Tensor, side: int) -> Tensor:
    """The windows of a convolution with square kernels, (members or 1, patches, rows, columns, channels * side^2)."""
    return passed.unfold(-3, side, 1).unfold(-3, side, 1).flatten(4)
