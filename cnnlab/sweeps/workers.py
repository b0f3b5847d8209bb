"""Those who compute a sweep: an executor of the user's own, or processes that are made here, mended and ended."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cnnlab.config.settings import Settings
from cnnlab.sweeps.pieces import Answer, compute_piece, is_on_gpu, name_process

UNKNOWN_WORKERS = 16
"""How many workers an executor is taken to have that does not say so."""
COUNTING = 5.0
"""Seconds between two looks at how many workers a cluster has."""
MAIN_LOCK = threading.Lock()
"""Held while the user's script is hidden."""


class Workers:
    """An executor that work is given to: the user's own, or one that is made here, mended when it breaks, and ended."""

    def __init__(self, executor: Executor | None, start: Settings) -> None:
        self.own = executor is None
        self.start = start
        self.together = self.own and is_on_gpu(start)
        self.executor = executor
        self.counted, self.count_again = UNKNOWN_WORKERS, 0.0

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
        """How many workers there are; on a cluster some may come and go."""
        if self.together:
            return 1
        if time.monotonic() >= self.count_again:
            self.counted = count_workers(self.executor) or self.counted
            self.count_again = time.monotonic() + COUNTING
        return self.counted

    def make(self) -> None:
        """Processes for the cores; a thread where there is only one, or where a GPU computes."""
        count = count_cores()
        if count == 1 or self.together:
            self.executor = ThreadPoolExecutor(1, "cnnlab-sweep")
            return
        pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=begin_worker)
        with hide_main_module():
            for _ in range(count):
                pool.submit(int)
        self.executor = pool

    def submit(self, changes: Sequence[dict[str, Any]], steps: int) -> Future[Answer]:
        """Have a piece of work done: runs that differ from the settings in some fields each."""
        assert self.executor is not None
        return self.executor.submit(compute_piece, self.start, changes, steps, name_process())

    def check(self) -> None:
        """RuntimeError where a Dask client has lost its scheduler: what was given to it would never come back."""
        if getattr(getattr(self.executor, "_client", None), "status", "") in ("closing", "closed"):
            self.mend(RuntimeError("its Dask client is closed"))

    def mend(self, reason: BaseException) -> None:
        """Make new processes for those that were killed; an executor of the user's own is not ours to mend."""
        if not self.own:
            kept = "what a path= was given for is kept"
            raise RuntimeError(f"the executor is broken or shut down: {reason!r}; {kept}") from reason
        if not isinstance(reason, BrokenExecutor):
            raise reason
        assert self.executor is not None
        if getattr(self.executor, "_broken", True):
            self.executor.shutdown(wait=True, cancel_futures=True)
            self.make()


def count_workers(executor: Any) -> int | None:
    """How many pieces of work an executor computes at once: its own word, Dask's or ipyparallel's; None if unknown."""
    if hasattr(executor, "_max_workers"):
        return int(executor._max_workers)
    with contextlib.suppress(Exception):  # a cluster that cannot be asked now
        if hasattr(executor, "_client"):
            return max(1, sum(executor._client.nthreads().values()))
        return max(1, len(executor.view.client.ids))
    return None


def begin_worker() -> None:
    """Leave interrupts to the process that asked for the work, and end with it.

    Ctrl-C reaches every process of a terminal: each would end in the middle of a run with a traceback, and the pool
    would be broken when the sweep takes over what is done.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, name="cnnlab-parent", daemon=True).start()


def end_with_parent() -> None:
    """Wait for the end of the process that made this one. A worker of a killed one would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def hide_main_module() -> Iterator[None]:
    """Keep processes that are made meanwhile from running the user's own script, of which they need nothing.

    Without it a script that has no `if __name__ == "__main__"` runs again in each process, and ends in RuntimeError. In
    one thread at a time: a second one would take the first one's stand-in for the user's script, and leave it there.
    """
    with MAIN_LOCK:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def count_cores() -> int:
    """How many cores this process may use, by its affinity and by the quota of its control group."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        available = min(available, max(1, math.ceil(int(quota) / int(period))))
    return available
