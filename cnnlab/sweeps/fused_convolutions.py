"""The convolutions of many members by kernels of Triton, which PyTorch brings along for CUDA on Linux."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from cnnlab.sweeps.convolution_kernels import convolve_block, differentiate_block
from cnnlab.sweeps.convolutions import Convolution, cut_windows

BLOCK = 64
"""Positions that one program computes."""
SOME_IN, SOME_OUT = 32, 64
"""Most channels that one program takes at once, and most that it makes."""
LEAST = 16
"""Fewest rows and columns of a product on the matrix units."""


def convolve(passed: Tensor, chain: Sequence[Convolution]) -> Tensor:
    """What `convolutions.convolve` returns, in float32."""
    relus = tuple(each.relu for each in chain)
    tensors = [tensor for each in chain for tensor in (each.weight, each.bias)]
    made: Tensor = Chain.apply(passed, relus, *tensors)
    return made


class Chain(torch.autograd.Function):
    """Convolutions one after the other; of what lies between only the outputs are kept, after their ReLU."""

    @staticmethod
    def forward(context: Any, passed: Tensor, relus: tuple[bool, ...], *tensors: Tensor) -> Tensor:
        """The last output (members, patches, rows, columns, channels)."""
        weights, biases = tensors[::2], tensors[1::2]
        outputs = [cut_windows(passed, weights[0].shape[-1])]
        kernels = [order_kernels(weight, first=place == 0) for place, weight in enumerate(weights)]
        for kernel, bias, relu in zip(kernels, biases, relus, strict=True):
            outputs.append(forward_pass(outputs[-1], kernel, bias.contiguous(), relu))
        context.save_for_backward(*outputs, *kernels)
        context.relus = relus
        return outputs[-1]

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of kernels and biases; the patches have none."""
        relus = context.relus
        outputs, kernels = context.saved_tensors[: len(relus) + 1], context.saved_tensors[len(relus) + 1 :]
        slope = slopes[0].contiguous()
        if relus[-1]:
            slope = slope.where(~(outputs[-1] <= 0), 0)
        found: list[Tensor] = []
        for place in reversed(range(len(relus))):
            weight, bias = differentiate_kernels(outputs[place], slope, kernels[place])
            found = [restore_order(weight, first=place == 0), bias, *found]
            if place:
                slope = backward_pass(slope, kernels[place], outputs[place] if relus[place - 1] else None)
        return None, None, *found


def order_kernels(weight: Tensor, first: bool) -> Tensor:
    """Kernels (members, out, into, high, wide) as (members, positions, into, out); the first are 1x1, on windows."""
    if first:
        return weight.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
    return weight.flatten(3).permute(0, 3, 2, 1).contiguous()


def restore_order(weight: Tensor, first: bool) -> Tensor:
    """Gradients of kernels, in the order that the kernels have."""
    if first:
        members, _, into, out = weight.shape
        side = round((into) ** 0.5)
        return weight.view(members, into, out).transpose(1, 2).reshape(members, out, 1, side, side)
    members, positions, into, out = weight.shape
    side = round(positions**0.5)
    return weight.permute(0, 3, 2, 1).reshape(members, out, into, side, side)


def choose_sizes(into: int, out: int) -> tuple[int, int]:
    """How many channels a program takes and makes at once."""
    some_in, some_out = (max(LEAST, triton.next_power_of_2(count)) for count in (into, out))
    return min(SOME_IN, some_in), min(SOME_OUT, some_out)


def choose_precision(tensor: Tensor) -> str:
    """How products are as exact as float32: on the matrix units in three parts, on older devices without them.

    Sums over all positions, as those of a kernel's gradient, were the quicker ones without (H100: 12.6 and 15.3 ms).
    """
    modern = tensor.device.type == "cuda" and torch.cuda.get_device_capability(tensor.device) >= (8, 0)
    return "tf32x3" if modern else "ieee"


def forward_pass(passed: Tensor, kernel: Tensor, bias: Tensor, relu: bool) -> Tensor:
    """The output of a convolution, after a ReLU where there is one."""
    return launch(passed, kernel, 0, bias=bias, relu=relu)


def backward_pass(slope: Tensor, kernel: Tensor, output: Tensor | None) -> Tensor:
    """The gradient of what went in, 0 where that was cut off by a ReLU."""
    side = round(kernel.shape[1] ** 0.5)
    return launch(slope, kernel.flip(1).transpose(2, 3).contiguous(), side - 1, gate=output)


def launch(
    passed: Tensor, kernel: Tensor, pad: int, bias: Tensor | None = None, relu: bool = False, gate: Tensor | None = None
) -> Tensor:
    """A convolution of all members."""
    members, positions, into, out = kernel.shape
    given, patches, high, wide, _ = passed.shape
    side = round(positions**0.5)
    rows, columns = (length + 2 * pad - side + 1 for length in (high, wide))
    made = passed.new_empty(members, patches, rows, columns, out)
    some_in, some_out = choose_sizes(into, out)
    grid = (triton.cdiv(patches * rows * columns, BLOCK), members, triton.cdiv(out, some_out))
    convolve_block[grid](
        passed, kernel, made if bias is None else bias, made if gate is None else gate, made,
        patches, high, wide, int(given > 1), into, out, side, pad, bias is not None, relu, gate is not None,
        BLOCK, some_in, some_out, choose_precision(passed), num_warps=4,
    )  # fmt: skip
    return made


def differentiate_kernels(passed: Tensor, slope: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of a convolution's kernels and biases."""
    members, positions, into, out = kernel.shape
    given, patches, high, wide, _ = passed.shape
    side = round(positions**0.5)
    weight, bias = torch.empty_like(kernel), kernel.new_empty(members, out)
    some_in, some_out = choose_sizes(into, out)
    grid = (members, side * triton.cdiv(into, some_in), triton.cdiv(out, some_out))
    differentiate_block[grid](
        passed, slope, weight, bias, patches, high, wide, int(given > 1), into, out, side,
        BLOCK, some_in, some_out, "ieee", num_warps=4,
    )  # fmt: skip
    return weight, bias
