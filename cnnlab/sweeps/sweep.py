"""Sweeps: a map computed by an executor, streamed to a file, taken up again where it was. No widgets, no plots.

torch comes in with `cnnlab.sweeps.ensemble` alone, and mostly in processes of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cnnlab.config.errors import check_whole_number
from cnnlab.config.settings import Settings, check_names, quote, settings
from cnnlab.records.atomic_files import name_errors
from cnnlab.records.formats import format_count, format_duration
from cnnlab.records.map import Map, read_map
from cnnlab.records.map_lines import format_run
from cnnlab.records.map_plans import (
    MOST_STEPS,
    check_axis,
    check_cells,
    check_seeds,
    check_size,
    convert_values,
    count_bytes,
    is_axis,
)
from cnnlab.sweeps.pieces import LARGEST_BATCH, WAITING, Answer, Queue, Speeds
from cnnlab.sweeps.workers import Workers, count_cores

ATTEMPTS = 5
"""How often a run is given to a worker before a sweep gives up."""
PROGRESS = 0.2
"""Least seconds between two calls of `progress`."""
RESTING = 9
"""The same in times that a call takes: a tenth of the time goes to it at most."""


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
    list or array of rising numbers is an axis, as is a list of choices (`optimizer=["sgd", "adam"]`); any other is set
    for all. Without an axis the map is of seeds alone.
    `seeds` are so many from that of the settings on, or a list of them; each run has so many `steps` (updates).

    Runs are spread over the processor's cores, or over any `concurrent.futures.Executor`; there each is that of a `Run`
    to the bit. On a GPU they go together, and in float32 one close to the edge of explosion may end otherwise. With a
    `path` each run is written there when it is done, and a map that was interrupted goes on where it was. `progress` is
    called with the map so far. TypeError or ValueError in a sentence for what cannot be computed.
    """
    survey = Survey(planned(preset, seeds, steps, fields), executor, path)
    shown, pause = 0.0, PROGRESS
    for _ in survey.pieces():
        if progress is not None and (began := time.monotonic()) - shown > pause:
            progress(survey.map)
            shown = time.monotonic()
            pause = max(PROGRESS, RESTING * (shown - began))  # the copy of a large map takes long
    if progress is not None:
        progress(survey.map)
    return survey.map


# What is asked for.


def planned(preset: str | Settings, seeds: int | Sequence[int], steps: int, fields: dict[str, Any]) -> Map:
    """The empty map of a sweep; TypeError or ValueError in a sentence for what cannot be computed."""
    check_names(fields)
    axes = tuple(check_axis(name, values) for name, values in fields.items() if is_axis(name, values))
    start = settings(preset, **{name: value for name, value in fields.items() if not is_axis(name, value)})
    chosen, steps = check_seeds(seeds, start), check_whole_number("steps", steps, 1, MOST_STEPS)
    check_size(axes, len(chosen), steps, lambda runs: describe_size(start, runs, steps))
    check_cells(start, axes)
    return Map.empty(start, axes, chosen, steps)


def describe_size(start: Settings, runs: int, steps: int) -> str:
    """The end of a sentence on so many runs: the time and the memory that they would take."""
    from cnnlab.sweeps.ensemble import time_update  # not above: only computing needs torch

    time_needed = format_duration(runs * steps * time_update(start) / count_cores())
    count = format_count(count_cores(), "core")
    return f"; it would take about {time_needed} on {count}, and {count_bytes(runs, steps) / 2**30:.1f} GiB of memory"


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
            raise TypeError(f"executor must be a concurrent.futures.Executor, got {quote(executor)}")
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"path must be the name of a file, got {quote(path)}")
        super().__init__()
        self.growing = resume_map(plan, path)
        self.path = path
        self.executor = executor
        self.lock = threading.Lock()
        self.speeds = Speeds()
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
        size, seeds = self.growing.done[..., 0].size, len(self.growing.seeds)
        self.left = Queue(np.flatnonzero(~self.growing.done), size, seeds)

    @property
    def map(self) -> Map:
        """The map so far; it stays as it is."""
        with self.lock:
            return self.growing.freeze()

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
            file = stack.enter_context(open_file(self.path, self.growing)) if self.path is not None else None
            self.workers = workers = stack.enter_context(Workers(self.executor, self.growing.settings))
            stack.callback(setattr, self, "workers", None)
            pending: dict[Future[Any], list[int]] = {}
            failed: Counter[int] = Counter()
            stack.callback(lambda: [future.cancel() for future in pending])
            while (self.left or pending) and not self.cancelled:
                began = time.monotonic()
                self.submit(workers, pending)
                if not pending:
                    self.going.wait(PROGRESS)
                    continue
                finished, _ = wait(pending, timeout=PROGRESS, return_when=FIRST_COMPLETED)
                if self.cancelled:
                    break
                for future in finished:
                    piece = pending.pop(future)
                    if done := self.take_result(future, piece, workers, failed, file):
                        yield done
                workers.check()
                self.spent += time.monotonic() - began
            for future, piece in list(pending.items()):  # after a cancel: what is under way is kept
                kept = not future.cancel() and (workers.own or future.done()) and future.exception() is None
                if kept and (done := self.take_result(future, piece, workers, failed, file)):
                    yield done

    def submit(self, workers: Workers, pending: dict[Future[Any], list[int]]) -> None:
        """Give out as much work as the workers should have."""
        while self.left and self.going.is_set() and len(pending) < workers.count * WAITING:
            piece = self.left.take(self.choose_piece_size(workers))
            try:
                pending[workers.submit(self.list_changes(piece), self.growing.steps)] = piece
            except RuntimeError as reason:  # broken, or shut down
                self.left.give_back(piece)
                workers.mend(reason)
                return

    def choose_piece_size(self, workers: Workers) -> int:
        """How many runs make a piece of work."""
        return LARGEST_BATCH if workers.together else self.speeds.choose_size(len(self.left), workers.count)

    def list_changes(self, piece: Sequence[int]) -> list[dict[str, Any]]:
        """What sets each run of a piece apart from the settings that all share."""
        *places, seeds = (at.tolist() for at in np.unravel_index(piece, self.growing.shape))
        axes = zip(self.growing.axes, places, strict=True)
        columns = [[(name, values[at]) for at in place] for (name, values), place in axes]
        changes = (convert_values(dict(row)) for row in zip(*columns, strict=True)) if columns else ({} for _ in piece)
        return [{**change, "seed": self.growing.seeds[at]} for change, at in zip(changes, seeds, strict=True)]

    def take_result(
        self, future: Future[Answer], piece: list[int], workers: Workers, failed: Counter[int], file: BinaryIO | None
    ) -> list[int]:
        """Take over a result; gives the runs that are done, the others are to be computed again."""
        try:
            answer = future.result()
        except Exception as reason:
            self.left.give_back(piece)
            failed.update(piece)
            if failed[piece[0]] >= ATTEMPTS:
                run = self.growing.settings_at(*map(int, np.unravel_index(piece[0], self.growing.shape)))
                raise RuntimeError(f"{run!r} could not be computed in {ATTEMPTS} attempts: {reason!r}") from reason
            if isinstance(reason, BrokenExecutor):
                workers.mend(reason)
            return []
        done, left = piece[: len(answer.cost)], piece[len(answer.cost) :]
        self.left.give_back(left)
        self.speeds.note(answer)
        with self.lock:
            for index, *numbers in zip(done, *answer[:4], strict=True):
                self.growing.put(index, *numbers)
        self.computed += len(done)
        if file is not None:
            with name_errors(self.path or ""):
                file.write("".join(f"{format_run(*row)}\n" for row in zip(done, *answer[:4], strict=True)).encode())
                file.flush()
        return done


# Where it is kept.


def resume_map(plan: Map, path: str | os.PathLike[str] | None) -> Map:
    """The map that a file holds so far, or the plan; ValueError if the file is of another map."""
    if path is None or not Path(path).exists() or not Path(path).stat().st_size:
        return Map.empty(plan.settings, plan.axes, plan.seeds, plan.steps)
    found, whole_bytes = read_map(path)
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
    return found.thaw()


@contextlib.contextmanager
def open_file(path: str | os.PathLike[str], plan: Map) -> Iterator[BinaryIO]:
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
