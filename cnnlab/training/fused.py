"""What is computed by kernels of Triton on a GPU, where PyTorch brings Triton along and it can compile them."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

from cnnlab.config.errors import extract_message

Fused = TypeVar("Fused")


def make_fused(make: Callable[[], Fused], device: torch.device, slower: str) -> Fused | None:
    """What `make` gives, which compiles kernels; None without Triton, or where it fails, which one sentence says."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    try:
        return make()
    except Exception as reason:  # whatever Triton's compiler lacks on this machine
        warnings.warn(f"{slower}: {extract_message(reason)}", RuntimeWarning, stacklevel=3)
        return None
