"""Pieces of work: how large they are, in what order, and what a worker does with one. torch is imported in the worker.

A worker may be slower than the one that a piece was made for: it gives back what it has not done in time.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.settings import Settings
from cnnlab.sweeps.devices import take_device

LASTING = 0.4
"""Seconds that a piece of work should take: long beside sending it, short for a user who waits for it."""
LONGEST = 2 * LASTING
"""Seconds after which a worker begins no more runs of a piece, where runs go one by one."""
LARGEST_PIECE = 64
"""Most runs in a piece of work, where runs go one by one."""
LARGEST_BATCH = 1024
"""The same where they go together, on a GPU."""
LEAST_BATCH = 64
"""Runs that a GPU takes together in hardly more time than one."""
WAITING = 2
"""Pieces of work for each worker that wait for it or are being computed."""


class Answer(NamedTuple):
    """What a worker has computed: arrays of float64, a row a run, of the first runs of its piece."""

    cost: NDArray[np.float64]
    began: NDArray[np.float64]
    ended: NDArray[np.float64]
    held_out: NDArray[np.float64]
    seconds: float
    """How long it took."""
    worker: str
    """The machine and process that did it."""
    together: bool
    """Whether its runs went together, on a GPU."""


def compute_piece(start: Settings, changes: Sequence[dict[str, Any]], steps: int, asked_by: str) -> Answer:
    """Train runs that differ from the settings in some fields each: all on a GPU, or as many as there is time for."""
    from cnnlab.sweeps.ensemble import compute  # not above: torch is imported where something is computed

    if asked_by != name_process() and start.device not in ("cpu", "mps"):
        take_device()
    members = [start.replace(**each) for each in changes]
    together = is_on_gpu(start)
    began, results = time.monotonic(), []
    for batch in [members] if together else ([member] for member in members):
        results.append(compute(batch, steps))
        if time.monotonic() - began > LONGEST:
            break
    cost, first, last, held_out = (
        np.concatenate(parts) for parts in zip(*(result[:4] for result in results), strict=True)
    )
    return Answer(cost, first, last, held_out, time.monotonic() - began, name_process(), together)


def is_on_gpu(start: Settings) -> bool:
    """Whether runs would go together, on a GPU; torch is only asked where the settings leave it open."""
    if start.device in ("cpu", "mps"):
        return False
    from cnnlab.training.problem import choose_device  # not above: torch is imported where something is computed

    return bool(choose_device(start).type == "cuda")


def name_process() -> str:
    """This process among those of all machines."""
    return f"{socket.gethostname()} {os.getpid()}"


class Speeds:
    """How fast each worker was at its last piece, and how many runs the next piece is to have."""

    def __init__(self) -> None:
        self.seconds_a_run: dict[str, float] = {}
        """Worker -> seconds."""
        self.together = False
        """Whether a worker computes on a GPU."""

    def note(self, answer: Answer) -> None:
        """Take in how long a piece took."""
        self.seconds_a_run[answer.worker] = answer.seconds / len(answer.cost)
        self.together = self.together or answer.together

    def choose_size(self, left: int, workers: int) -> int:
        """What the fastest worker does in time, but no more than leaves work for the others: then none waits long."""
        if not self.seconds_a_run:
            return 1
        fair = -(-left // (workers * WAITING))
        if self.together:
            return min(max(fair, LEAST_BATCH), LARGEST_BATCH)
        in_time = int(LASTING / min(self.seconds_a_run.values()))
        return max(1, min(in_time, LARGEST_PIECE, fair))


class Queue:
    """The numbers of the runs that are left to compute, in an order by chance.

    So the map fills in everywhere at once, and what is left takes as long as what was.
    """

    def __init__(self, left: NDArray[np.int64], cells: int, seeds: int) -> None:
        rank = np.random.default_rng(0).permutation(cells)[left // seeds] + left % seeds * cells
        self.order = left[np.argsort(rank)]
        self.begun = 0
        self.returned: deque[int] = deque()
        """Runs that were given out and not computed; they come first."""

    def __len__(self) -> int:
        return len(self.order) - self.begun + len(self.returned)

    def take(self, count: int) -> list[int]:
        """The next so many, or as many as there are."""
        first = [self.returned.popleft() for _ in range(min(count, len(self.returned)))]
        rest = self.order[self.begun : self.begun + count - len(first)].tolist()
        self.begun += len(rest)
        return first + rest

    def give_back(self, runs: Iterable[int]) -> None:
        """Have runs computed after all."""
        self.returned.extend(runs)
