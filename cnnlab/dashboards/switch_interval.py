"""How often Python's threads take turns while a worker trains. An effect on the whole process."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

SHORT = 1e-4
"""Seconds after which a busy thread lets another one run; 5 ms by Python's own choice.

An update waits that long for the interpreter at each of its operations while a frame is drawn.
"""


class Usual:
    """What the interval was before the first of the threads that are there now."""

    lock = threading.Lock()
    threads = 0
    seconds = 0.0


@contextlib.contextmanager
def short_switch_interval() -> Iterator[None]:
    """Have threads take turns often; as before once the last of those that asked for it is done."""
    count_threads(+1)
    try:
        yield
    finally:
        count_threads(-1)


def count_threads(change: int) -> None:
    """One thread more that asks for short turns, or one less."""
    with Usual.lock:
        if Usual.threads == 0:
            Usual.seconds = sys.getswitchinterval()
        Usual.threads += change
        sys.setswitchinterval(min(Usual.seconds, SHORT) if Usual.threads else Usual.seconds)
