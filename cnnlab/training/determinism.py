"""Effects on the process or on a network while something is computed, each undone afterwards."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn


@contextlib.contextmanager
def use_one_thread() -> Iterator[None]:
    """One CPU thread in this thread's operations: the same bits under any load, and faster beside other work.

    How a sum is split among threads decides its rounding, and how many there are is the machine's affair.
    """
    before = torch.get_num_threads()  # of this thread: other threads that are within this have their own number
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fix_order_of_sums() -> contextlib.AbstractContextManager[None]:
    """On a GPU, convolutions whose sums have a fixed order and no rounding to TF32, so that a replay is exact."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


@contextlib.contextmanager
def randomness(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Chance within a network (dropout) as a function of seed and update; the generators are then as they were.

    A network may draw from Python's and numpy's global generators, too.
    """
    number = seed * 1_000_003 + step
    with keep_generators(device):
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number % 2**32)  # noqa: NPY002
        yield


@contextlib.contextmanager
def keep_generators(device: torch.device) -> Iterator[None]:
    """A block after which the global generators of torch, Python and numpy are as they were before it."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextlib.contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for every module, and then each module's own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
