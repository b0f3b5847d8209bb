"""A function of tensors that a GPU is given again and again: recorded once as a CUDA graph, and then launched at once.

Launching the few hundred small operations of an update one by one takes several times as long as doing them. On the
CPU, and where a graph cannot be recorded, the function is simply called.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from cnnlab.config.errors import extract_message

Result = TypeVar("Result")

OFTEN = 3
"""Calls with tensors of the same shapes after which a graph is recorded, which takes as long as a few calls."""
WARM_UP = 3
"""Calls on a graph's own stream before it is recorded, in which libraries choose their ways and take memory."""
MOST_GRAPHS = 8
"""Most graphs that are kept, each with memory of its own; the oldest goes first."""


class Repeated(Generic[Result]):
    """A function without effects, of tensors and of anything that can be hashed, in tuples and dicts as they come.

    Another value of a tensor needs no new graph; other shapes, another number of tensors, or another value of
    anything that is no tensor does. The results are tensors of the caller's own.
    """

    def __init__(self, function: Callable[..., Result], device: torch.device) -> None:
        self.function = function
        self.recording = device.type == "cuda"
        self.met: Counter[Hashable] = Counter()
        self.graphs: dict[Hashable, Graph] = {}

    def __call__(self, *arguments: Any) -> Result:
        """What the function returns."""
        if not self.recording:
            return self.function(*arguments)
        leaves, form = tree_flatten(arguments)
        key = tuple(leaf.shape if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        self.met[key] += 1
        if self.met[key] <= OFTEN:
            return self.function(*arguments)
        if key not in self.graphs:
            try:
                graph = Graph(lambda given: self.function(*tree_unflatten(given, form)), leaves)
            except RuntimeError as reason:  # an operation that a graph cannot hold, or too little memory
                self.stop_recording(reason)
                return self.function(*arguments)
            self.graphs[key] = graph
            if len(self.graphs) > MOST_GRAPHS:
                del self.graphs[next(iter(self.graphs))]
        return self.graphs[key](leaves)

    def stop_recording(self, reason: BaseException) -> None:
        """Call the function from now on, and say why once."""
        self.recording, self.graphs = False, {}
        message = f"updates are launched one operation at a time, which is slower: {extract_message(reason)}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)


class Graph:
    """Some work on a GPU, recorded with memory of its own for what goes in and what comes out."""

    def __init__(self, work: Callable[[list[Any]], Any], leaves: Iterable[Any]) -> None:
        self.kept = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.last: list[Any] = [None] * len(self.kept)
        self.replay, self.made = record_graph(lambda: work(self.kept))

    def __call__(self, leaves: list[Any]) -> Any:
        """The results of the work on other values of the same shapes."""
        for place, leaf in enumerate(leaves):
            # Patches and knobs are mostly the very same tensors as at the call before.
            if isinstance(leaf, Tensor) and leaf is not self.last[place]:
                self.kept[place].copy_(leaf)
        self.last = leaves
        self.replay()
        return tree_map_only(Tensor, torch.clone, self.made)


def record_graph(work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """How to do the work again as one CUDA graph, and where its results will lie."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the device meanwhile, such as a Lab that trains.
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        made = work()
    return graph.replay, made
