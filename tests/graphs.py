"""A CUDA graph without a GPU: work that is done anew each time, its results laid where they lay at first."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from cnnlab.training import capture


def record_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have `capture` record graphs on the CPU; returns what was recorded."""
    recorded: list[Any] = []

    def record(work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        made = work()
        kept = [leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)]

        def replay() -> None:
            new = [leaf for leaf in tree_leaves(work()) if isinstance(leaf, torch.Tensor)]
            for old, fresh in zip(kept, new, strict=True):
                old.copy_(fresh)

        recorded.append(made)
        return replay, made

    monkeypatch.setattr(capture, "record_graph", record)
    return recorded
