"""Sweeps: a map computed by an executor, streamed to a file, taken up again where it was. No widgets, no plots.

torch comes in with `cnnlab.sweeps.ensemble` alone, and mostly in processes of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cnnlab.config.settings import Settings, check_names, settings, written
from cnnlab.records import map as maps
from cnnlab.records.atomic_files import name_errors
from cnnlab.records.map import Map
from cnnlab.records.map_lines import line_of
from cnnlab.records.map_plans import axis_of, check_corners, check_size, is_axis, memory_of, seeds_of, steps_of

LASTING = 0.4
"""Seconds that a piece of work should take: long beside sending it, short for a person who waits for it."""
LARGEST_PIECE = 64
"""Most runs in a piece of work, where runs go one by one."""
LARGEST_BATCH = 1024
"""The same where they go together."""
WAITING = 2
"""Pieces of work for each worker that wait for it or are being computed."""
UNKNOWN_WORKERS = 16
"""How many workers an executor is taken to have that does not say so."""
ATTEMPTS = 5
"""How often a run is given to a worker before a sweep gives up."""
PROGRESS = 0.2
"""Least seconds between two calls of `progress`."""


def sweep(
    preset: str | Settings = "question",
    *,
    seeds: int | Sequence[int] = 8,
    steps: int = 20,
    executor: Executor | None = None,
    path: str | os.PathLike[str] | None = None,
    progress: Callable[[Map], None] | None = None,
    **fields: Any,
) -> Map:
    """The map of what becomes of a network over one or two fields and over seeds; see `cnnlab.Map`.

    `sweep("question", learning_rate=np.geomspace(1e-4, 1e-1, 16), init_scale=[0.5, 1, 2], seeds=8)`: a field given as a
    list or array of rising numbers is an axis, any other is set for all. Without an axis the map is of seeds alone.
    `seeds` are so many from that of the settings on, or a list of them; each run has so many `steps` (updates).

    Runs are spread over the processor's cores, or over any `concurrent.futures.Executor`; there each is that of a `Run`
    to the bit. On a GPU they go together, and in float32 one close to the edge of explosion may end otherwise. With a
    `path` each run is written there when it is done, and a map that was interrupted goes on where it was. `progress` is
    called with the map so far. TypeError or ValueError in a sentence for what cannot be computed.
    """
    survey = Survey(planned(preset, seeds, steps, fields), executor, path)
    shown = 0.0
    for _ in survey.pieces():
        if progress is not None and time.monotonic() - shown > PROGRESS:
            shown = time.monotonic()
            progress(survey.map)
    if progress is not None:
        progress(survey.map)
    return survey.map


# What is asked for.


def planned(preset: str | Settings, seeds: int | Sequence[int], steps: int, fields: dict[str, Any]) -> Map:
    """The empty map of a sweep; TypeError or ValueError in a sentence for what cannot be computed."""
    check_names(fields)
    axes = tuple(axis_of(name, values) for name, values in fields.items() if is_axis(name, values))
    start = settings(preset, **{name: value for name, value in fields.items() if not is_axis(name, value)})
    chosen, steps = seeds_of(seeds, start), steps_of(steps)
    check_size(axes, len(chosen), steps, lambda runs: what_it_takes(start, runs, steps))
    check_corners(start, axes)
    return Map.empty(start, axes, chosen, steps)


def what_it_takes(start: Settings, runs: int, steps: int) -> str:
    """The end of a sentence on so many runs: the time and the memory that they would take."""
    from cnnlab.sweeps.ensemble import seconds_of_an_update  # not above: only computing needs torch

    time_needed = duration(runs * steps * seconds_of_an_update(start) / cores())
    count = f"{cores()} core{'s' if cores() > 1 else ''}"
    return f"; it would take about {time_needed} on {count}, and {memory_of(runs, steps) / 2**30:.1f} GiB of memory"


def duration(seconds: float) -> str:
    """A time in words, as in 4 s, 12 min, 3.5 h, 20 days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.0f} days"


# How it is computed.


class Pausable:
    """Work in pieces that any thread may pause and cancel."""

    def __init__(self) -> None:
        self.going = threading.Event()
        self.going.set()
        self.cancelled = False
        self.spent = 0.0
        """Seconds of work so far."""
        self.computed = 0
        """How much was done in them."""

    @property
    def paused(self) -> bool:
        """Whether no more work is given out."""
        return not self.going.is_set()

    def pause(self) -> None:
        """Give out no more work; what was given out is still computed."""
        self.going.clear()

    def go_on(self) -> None:
        """Give out work again."""
        self.going.set()

    def cancel(self) -> None:
        """End soon; what is done is kept."""
        self.cancelled = True
        self.going.set()

    def abandon(self) -> None:
        """Let go of what is being computed, too, as far as that can be done."""
        self.cancel()

    def make_ready(self) -> None:
        """Have the work go on after a cancel."""
        self.cancelled = False


class Survey(Pausable):
    """The computing of a map: pieces of work go to an executor, results come back, into a file too, in any order.

    `pieces` is gone through in one thread; `pause`, `go_on`, `cancel` and `map` are for any thread.
    """

    def __init__(self, plan: Map, executor: Executor | None = None, path: str | os.PathLike[str] | None = None) -> None:
        if executor is not None and (isinstance(executor, type) or not callable(getattr(executor, "submit", None))):
            raise TypeError(f"executor must be a concurrent.futures.Executor, got {written(executor)}")
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"path must be the name of a file, got {written(path)}")
        super().__init__()
        self.growing = taken_up(plan, path)
        self.path = path
        self.executor = executor
        self.lock = threading.Lock()
        self.seconds_a_run: float | None = None
        self.workers: Workers | None = None
        self.make_ready()

    def abandon(self) -> None:
        """Cancel, and end the processes that were made here, whatever they compute."""
        super().abandon()
        if self.workers is not None:
            self.workers.end()

    def make_ready(self) -> None:
        """Have `pieces` compute what is left, after a cancel too."""
        super().make_ready()
        left = np.flatnonzero(~self.growing.done)
        # In an order by chance the map fills in everywhere at once, and what is left takes as long as what was.
        size, seeds = self.growing.done[..., 0].size, len(self.growing.seeds)
        cells = np.argsort(np.random.default_rng(0).permutation(size))
        rank = cells[left // seeds] + left % seeds * size
        self.left = deque(int(index) for index in left[np.argsort(rank)])

    @property
    def map(self) -> Map:
        """The map so far; it stays as it is."""
        with self.lock:
            return self.growing.frozen()

    @property
    def total(self) -> int:
        """How many runs the map has."""
        return self.growing.done.size

    @property
    def done(self) -> int:
        """How many of them are computed."""
        return int(self.growing.done.sum())

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take, by what was computed so far; None before there is any."""
        return self.spent / self.computed * (self.total - self.done) if self.computed else None

    def pieces(self) -> Iterator[list[int]]:
        """Compute what is left; gives the numbers of the runs of each piece of work when it is done."""
        if not self.left:
            return
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(journal(self.path, self.growing)) if self.path is not None else None
            self.workers = workers = stack.enter_context(Workers(self.executor, self.growing.settings))
            stack.callback(setattr, self, "workers", None)
            flying: dict[Future[Any], list[int]] = {}
            failed: Counter[int] = Counter()
            stack.callback(lambda: [future.cancel() for future in flying])
            while (self.left or flying) and not self.cancelled:
                began = time.monotonic()
                self.submit(workers, flying)
                if not flying:
                    self.going.wait(PROGRESS)
                    continue
                finished, _ = wait(flying, timeout=PROGRESS, return_when=FIRST_COMPLETED)
                if self.cancelled:
                    break
                for future in finished:
                    piece = flying.pop(future)
                    if self.taken(future, piece, workers, failed, file):
                        yield piece
                self.spent += time.monotonic() - began
            for future, piece in list(flying.items()):  # after a cancel: what is under way is kept
                kept = not future.cancel() and (workers.own or future.done()) and future.exception() is None
                if kept and self.taken(future, piece, workers, failed, file):
                    yield piece

    def submit(self, workers: Workers, flying: dict[Future[Any], list[int]]) -> None:
        """Give out as much work as the workers should have."""
        while self.left and self.going.is_set() and len(flying) < workers.count * WAITING:
            piece = [self.left.popleft() for _ in range(min(len(self.left), self.size_of_a_piece(workers)))]
            places = [np.unravel_index(index, self.growing.shape) for index in piece]
            members = [self.growing.settings_at(*(int(at) for at in place)) for place in places]
            try:
                flying[workers.submit(members, self.growing.steps)] = piece
            except RuntimeError as reason:  # broken, or shut down
                self.left.extendleft(reversed(piece))
                workers.mend(reason)
                return

    def size_of_a_piece(self, workers: Workers) -> int:
        """How many runs make a piece of work."""
        if workers.together:
            return LARGEST_BATCH
        if self.seconds_a_run is None:
            return 1
        return max(1, min(int(LASTING / self.seconds_a_run), LARGEST_PIECE))

    def taken(
        self, future: Future[Any], piece: list[int], workers: Workers, failed: Counter[int], file: BinaryIO | None
    ) -> bool:
        """Take over a result; False where there is none, and its runs are to be computed again."""
        try:
            fates = future.result()
        except Exception as reason:
            self.left.extendleft(reversed(piece))
            failed.update(piece)
            if failed[piece[0]] >= ATTEMPTS:
                run = self.growing.settings_at(*map(int, np.unravel_index(piece[0], self.growing.shape)))
                raise RuntimeError(f"{run!r} could not be computed in {ATTEMPTS} attempts: {reason!r}") from reason
            if isinstance(reason, BrokenExecutor):
                workers.mend(reason)
            return False
        with self.lock:
            for row, index in enumerate(piece):
                self.growing.put(index, fates.cost[row], fates.began[row], fates.ended[row], fates.held_out[row])
        self.computed += len(piece)
        self.seconds_a_run = fates.seconds / len(piece)
        if file is not None:
            rows = zip(piece, *fates[:4], strict=True)
            with name_errors(self.path or ""):
                file.write("".join(f"{line_of(*row)}\n" for row in rows).encode())
                file.flush()
        return True


class Workers:
    """An executor that work is given to: a reader's own, or one that is made here, mended when it breaks, and ended."""

    def __init__(self, executor: Executor | None, start: Settings) -> None:
        self.own = executor is None
        self.start = start
        self.together = self.own and on_a_gpu(start)
        self.executor = executor

    def __enter__(self) -> Workers:
        if self.own:
            self.make()
        return self

    def __exit__(self, *_error: Any) -> None:
        if self.own and self.executor is not None:
            self.executor.shutdown(wait=True, cancel_futures=True)

    def end(self) -> None:
        """End the processes that were made here at once."""
        for process in list((getattr(self.executor, "_processes", None) or {}).values()) if self.own else ():
            process.terminate()

    @property
    def count(self) -> int:
        """How many workers there are."""
        return 1 if self.together else getattr(self.executor, "_max_workers", UNKNOWN_WORKERS)

    def make(self) -> None:
        """Processes for the cores; a thread where there is only one, or where a GPU computes."""
        count = cores()
        if count == 1 or self.together:
            self.executor = ThreadPoolExecutor(1, "cnnlab-sweep")
            return
        pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=begin_worker)
        with without_main():
            for _ in range(count):
                pool.submit(int)
        self.executor = pool

    def submit(self, members: list[Settings], steps: int) -> Future[Any]:
        """Have a piece of work done."""
        assert self.executor is not None
        return self.executor.submit(computed, members, steps)

    def mend(self, reason: BaseException) -> None:
        """Make new processes for those that were killed; an executor of the reader's own is not ours to mend."""
        if not self.own:
            kept = "what a path= was given for is kept"
            raise RuntimeError(f"the executor is broken or shut down: {reason!r}; {kept}") from reason
        if not isinstance(reason, BrokenExecutor):
            raise reason
        assert self.executor is not None
        if getattr(self.executor, "_broken", True):
            self.executor.shutdown(wait=True, cancel_futures=True)
            self.make()


def computed(members: list[Settings], steps: int) -> Any:
    """What a worker does with a piece of work; torch is imported there."""
    from cnnlab.sweeps.ensemble import compute

    return compute(members, steps)


def on_a_gpu(start: Settings) -> bool:
    """Whether members would go together, on a GPU; torch is only asked where the settings leave it open."""
    if start.device in ("cpu", "mps"):
        return False
    from cnnlab.training.problem import chosen_device  # not above: torch is imported where something is computed

    return bool(chosen_device(start).type == "cuda")


def begin_worker() -> None:
    """Leave interrupts to the process that asked for the work, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, name="cnnlab-parent", daemon=True).start()


def end_with_parent() -> None:
    """Wait for the end of the process that made this one. A worker of a killed one would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Keep processes that are made meanwhile from running the reader's own script: they need nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def cores() -> int:
    """How many cores this process may use, by its affinity and by the quota of its control group."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        available = min(available, max(1, math.ceil(int(quota) / int(period))))
    return available


# Where it is kept.


def taken_up(plan: Map, path: str | os.PathLike[str] | None) -> Map:
    """The map that a file holds so far, or the plan; ValueError if the file is of another map."""
    if path is None or not Path(path).exists() or not Path(path).stat().st_size:
        return Map.empty(plan.settings, plan.axes, plan.seeds, plan.steps)
    found, whole_bytes = maps.read(path)
    if found.heading() != plan.heading():
        asked, there = (
            {**dataclasses.asdict(of.settings), **dict(of.axes), "seeds": of.seeds, "steps": of.steps}
            for of in (plan, found)
        )
        other = ", ".join(name for name in asked if asked[name] != there[name])
        raise ValueError(
            f"{os.fspath(path)} holds another map, {found!r}: {other} differ; give another path, or delete it"
        )
    with open(path, "r+b") as file:
        file.truncate(whole_bytes)
    return found.thawed()


@contextlib.contextmanager
def journal(path: str | os.PathLike[str], plan: Map) -> Iterator[BinaryIO]:
    """The file that a map is added to, run by run."""
    file = open(path, "ab")  # noqa: SIM115  # an error of the file is named, one of the work is not its
    try:
        with name_errors(path):
            if not file.tell():
                file.write(f"{plan.heading()}\n".encode())
                file.flush()
        yield file
    finally:
        with name_errors(path):
            file.close()
