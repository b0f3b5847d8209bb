"""Data of the user's own as tensors that can be used again in the same order: tensors, arrays, Dataset, DataLoader.

Nothing here draws from a global generator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from cnnlab.training.data import order_of_epoch, updates_per_epoch

Tree = Any
"""A tensor, or a tuple or dict of such: what a network or a cost is given."""
Pair = tuple[Tree, Tree]
MOST_BYTES = 2**32
"""Most memory that the examples of a Dataset may take: they are kept, so that an update can come again."""
CPU = torch.device("cpu")
AT_ONCE = 256
"""Examples of a Dataset that are put together at once."""


@dataclass(frozen=True)
class Examples:
    """Examples with their targets, and how an epoch goes through them."""

    x: Tree
    """What the network is given, first axis: examples. A tuple holds several inputs, a dict inputs by keyword."""
    y: Tree
    """What the cost is given beside the outputs, first axis: examples."""
    batch_size: int | None = None
    """Examples an update, as a DataLoader has it; None: all of them, or as the settings say."""
    shuffled: bool = True
    """Whether each epoch has an order of its own, a function of seed and epoch; if not, the examples' own order."""
    drop_last: bool = False
    """Whether an epoch leaves out its last batch where that is smaller."""

    def __len__(self) -> int:
        return length(self.x)

    @property
    def pair(self) -> Pair:
        """(x, y)."""
        return self.x, self.y

    def updates_per_epoch(self, size: int | None) -> int:
        """Updates in a pass over the examples, `size` at a time."""
        if size is None or size >= len(self):
            return 1
        return len(self) // size if self.drop_last else updates_per_epoch(len(self), size)

    def indices(self, size: int | None, seed: int, step: int, device: torch.device = CPU) -> Tensor | None:
        """The examples of update `step` (from 1), an int64 vector, or None for all: a function of seed and step."""
        if size is None or size >= len(self):
            return None
        epoch, batch = divmod(step - 1, self.updates_per_epoch(size))
        order = place_order(len(self), seed if self.shuffled else None, epoch if self.shuffled else 0, device)
        return order[batch * size : (batch + 1) * size]

    def placed(self, place: Callable[[Tensor], Tensor]) -> Examples:
        """The same with each tensor as `place` returns it."""
        return dataclasses.replace(self, x=mapped(place, self.x), y=mapped(place, self.y))


@lru_cache(maxsize=64)
def place_order(count: int, seed: int | None, epoch: int, device: torch.device) -> Tensor:
    """The order in which an epoch goes through examples, brought to the device once; their own without a seed."""
    return (torch.arange(count) if seed is None else order_of_epoch(count, seed, epoch)).to(device)


def make_examples(name: str, value: Any) -> Examples:
    """Examples from a pair (x, y), a Dataset or a DataLoader; TypeError or ValueError in a sentence otherwise.

    Tensors and arrays are copied. A Dataset is read once, from first to last, so random augmentation is drawn once for
    each example. Of a DataLoader come dataset, batch size, collate_fn, and whether it shuffles; the shuffled order is
    the run's own, a function of its seed.
    """
    if isinstance(value, Examples):
        return value
    if isinstance(value, DataLoader):
        return read_loader(name, value)
    if isinstance(value, Dataset):
        return read_dataset(name, value, default_collate)
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be a pair (x, y), a Dataset or a DataLoader, got {type(value).__name__}")
    x, y = (copied(name, part) for part in value)
    return checked(name, Examples(x, y))


def read_loader(name: str, loader: DataLoader[Any]) -> Examples:
    """The examples of a DataLoader; ValueError if its order or its examples cannot be had again."""
    why = None
    if isinstance(loader.dataset, IterableDataset):
        why = "an IterableDataset gives each example once"
    elif type(loader.sampler) not in (RandomSampler, SequentialSampler) or loader.sampler.__dict__.get("replacement"):
        why = f"only the cnnlab run knows its own order, not that of a {type(loader.sampler).__name__}"
    elif loader.batch_sampler is not None and type(loader.batch_sampler) is not BatchSampler:
        why = f"the batches of a {type(loader.batch_sampler).__name__} are its own"
    if why is not None:
        raise ValueError(f"{name} must be a DataLoader that can be replayed, but {why}: pass a Dataset or (x, y)")
    found = read_dataset(name, loader.dataset, loader.collate_fn if loader.batch_size is not None else default_collate)
    shuffled = isinstance(loader.sampler, RandomSampler)
    return Examples(found.x, found.y, loader.batch_size, shuffled, loader.drop_last)


def read_dataset(name: str, dataset: Any, collate: Callable[[list[Any]], Any]) -> Examples:
    """All examples of a Dataset, each read once."""
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise ValueError(f"{name} must be a Dataset with a length, got {type(dataset).__name__}")
    count = len(dataset)
    if count == 0:
        raise ValueError(f"{name} must hold at least 1 example, got 0")
    pieces: list[Pair] = []
    for first in range(0, count, AT_ONCE):
        piece = collate([dataset[index] for index in range(first, min(first + AT_ONCE, count))])
        if not isinstance(piece, (tuple, list)) or len(piece) < 2:
            raise TypeError(f"{name} must give pairs (x, y), got examples of type {type(piece).__name__}")
        *x, y = piece
        pieces.append((copied(name, x[0] if len(x) == 1 else tuple(x)), copied(name, y)))
        wanted = memory(pieces[0]) * count / min(AT_ONCE, count)
        if wanted > MOST_BYTES:
            size = f"{wanted / 2**30:.1f} GiB"
            raise ValueError(f"{name} must fit {MOST_BYTES / 2**30:g} GiB of memory, where a run keeps it, got {size}")
    try:
        x_all, y_all = (joined([piece[part] for piece in pieces]) for part in range(2))
    except RuntimeError:
        raise ValueError(f"{name} must hold examples of one shape, got examples of several") from None
    return checked(name, Examples(x_all, y_all))


def checked(name: str, examples: Examples) -> Examples:
    """The examples, if x and y are as long as each other; ValueError otherwise."""
    parts = [*leaves(examples.x), *leaves(examples.y)]
    lengths = {len(part) if part.dim() else 0 for part in parts}
    if len(lengths) != 1 or 0 in lengths:
        shapes = " and ".join(list_shapes(part) for part in (examples.x, examples.y))
        raise ValueError(f"{name} must hold x and y of the same length of at least 1, got shapes {shapes}")
    return examples


def copied(name: str, value: Any) -> Tree:
    """A tensor, an array, or a tuple or dict of them as tensors of their own; a list of numbers is an array."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(name, part) for key, part in value.items()}
    if isinstance(value, tuple) or (isinstance(value, list) and any(isinstance(part, Tensor) for part in value)):
        return tuple(copied(name, part) for part in value)
    try:
        return torch.tensor(np.asarray(value))
    except (TypeError, ValueError):
        raise TypeError(f"{name} must hold tensors or arrays of numbers, got {type(value).__name__}") from None


def leaves(tree: Tree) -> Iterator[Tensor]:
    """The tensors of a tree."""
    if isinstance(tree, Tensor):
        yield tree
    else:
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(part)


def mapped(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """The tree with a function applied to each tensor."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: mapped(function, part) for key, part in tree.items()}
    return tuple(mapped(function, part) for part in tree)


def joined(pieces: list[Tree]) -> Tree:
    """Pieces of one structure put together along their first axis."""
    first = pieces[0]
    if isinstance(first, Tensor):
        return torch.cat(pieces)
    if isinstance(first, dict):
        return {key: joined([piece[key] for piece in pieces]) for key in first}
    return tuple(joined([piece[place] for piece in pieces]) for place in range(len(first)))


def length(tree: Tree) -> int:
    """Examples in a tree."""
    return len(next(leaves(tree)))


def memory(tree: Tree) -> int:
    """Bytes in a tree."""
    return sum(tensor.numel() * tensor.element_size() for tensor in leaves(tree))


def list_shapes(tree: Tree) -> str:
    """The shapes of a tree in words."""
    return ", ".join(str(tuple(tensor.shape)) for tensor in leaves(tree)) or "()"
