"""Which way of computing the convolutions of many members is the fastest on a device."""

from __future__ import annotations

from functools import lru_cache

import torch

from cnnlab.sweeps.convolutions import Convolution, Convolve, convolve
from cnnlab.training.fused import make_fused


@lru_cache(maxsize=16)
def find_convolve(device: torch.device, dtype: torch.dtype) -> Convolve:
    """The fastest way on a device: kernels of Triton in float32 on a GPU, where Triton can compile them."""
    if dtype != torch.float32:
        return convolve

    def make() -> Convolve:
        from cnnlab.sweeps.fused_convolutions import convolve as fused  # not above: Triton is there for a GPU alone

        try_out(fused, device)
        return fused

    return (
        make_fused(make, device, "members take more time together, as Triton cannot compile their kernels") or convolve
    )


def try_out(way: Convolve, device: torch.device) -> None:
    """Compile what a way needs, forward and backward."""
    weights = [torch.zeros(1, 16, into, 3, 3, device=device, requires_grad=True) for into in (1, 16)]
    chain = [Convolution(weight, torch.zeros(1, 16, device=device), True) for weight in weights]
    made = way(torch.zeros(1, 1, 7, 7, 1, device=device), chain)
    torch.autograd.grad(made.sum(), weights)
