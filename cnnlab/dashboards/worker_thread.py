"""A thread that lives only while there is something to do, and the lock that guards what it works on."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

GLANCE = 1.0
"""Seconds after which whoever waits looks again: a thread that was ended from outside tells nobody."""


class WorkerThread:
    """Takes one turn after another until none is left; `wake` begins it again.

    `take_turn` is False when nothing is left to do, `is_needed` (asked under the lock) whether that has changed since.
    `fail` is told, under the lock, of an exception that was sent to the thread from outside.
    """

    def __init__(
        self, take_turn: Callable[[], bool], is_needed: Callable[[], bool], fail: Callable[[BaseException], None]
    ) -> None:
        self.take_turn, self.is_needed, self.fail = take_turn, is_needed, fail
        self.changed = threading.Condition(threading.RLock())
        self.thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the thread is there."""
        thread = self.thread
        return thread is not None and thread.is_alive()

    def wake(self) -> None:
        """Make sure that the thread is there if it is needed, and that whoever waits looks again."""
        with self.changed:
            self.changed.notify_all()
            if not self.alive and self.is_needed():
                thread = threading.Thread(target=self.work, name="cnnlab-worker", daemon=True)
                thread.start()
                self.thread = thread

    def wait(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Block until a condition holds or no thread is there that could bring it about; False if it does not hold."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        with self.changed:
            while not condition() and self.alive and (left := end - time.monotonic()) > 0:
                self.changed.wait(min(left, GLANCE))
            return condition()

    def work(self) -> None:
        """What the thread does."""
        try:
            while True:
                if self.take_turn():
                    continue
                with self.changed:
                    if not self.is_needed():  # nothing was asked for since
                        return self.end()
        except BaseException as error:  # sent from outside, for a turn lets nothing out
            with self.changed:
                if self.thread is threading.current_thread():
                    self.fail(error)
                    self.end()

    def end(self) -> None:
        """Have it known that the thread ends."""
        self.thread = None
        self.changed.notify_all()
