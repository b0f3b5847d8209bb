"""What must hold whatever is tried: errors are sentences, calls return, memory is bounded, nothing is left behind."""

from __future__ import annotations

import contextlib
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules import module as modules

from cnnlab.records import own_image as given_image

BOUND = 20.0
"""Seconds within which whatever is tried is over, on a busy machine too."""
MOST_TIME = 5.0
"""Seconds of computing that a file may take."""
MOST_MEMORY = 300_000_000
"""Bytes that a file may take besides twice its own length."""
LONGEST = 600
"""Characters of the longest sentence, names of files aside."""
REFUSED = object()
"""What became of a call that was refused in a sentence."""
WORDS = ("object has no attribute", "has no attribute", "unhashable", "not subscriptable", "'NoneType'",
         "positional argument", "keyword argument", "invalid literal", "could not convert", "KeyError", "list index",
         "index out of range", "string indices", "indices must be", "not iterable", "not callable", "cannot unpack",
         "values to unpack", "not supported between", "unsupported operand", "bad operand", "must be real number",
         "can't multiply", "can only concatenate", "cannot convert", "can't convert", "cannot be interpreted",
         "truth value", "ufunc", "broadcast", "reshape", "codec can't", "embedded null", "maximum recursion",
         "MemoryError", "allocate", "too large to", "too large for", "out of bounds", "JSON serializable", "Traceback",
         "Exceeds the limit", "argument must be", "object cannot", "Expected")  # fmt: skip
"""Python's, numpy's and torch's own words, which say nothing to a person who has made a mistake."""


class Fault(AssertionError):
    """An invariant that does not hold, in a sentence; and in which way."""

    def __str__(self) -> str:
        return ": ".join(map(str, self.args))


class Hang(BaseException):
    """The time is over; no `except Exception` on the way stops it."""


def require(condition: Any, sentence: str, *way: Any) -> None:
    """Fault with this sentence unless the condition holds."""
    if not condition:
        raise Fault(sentence, *way)


def check_sentence(said: str, name: str = "") -> None:
    """Fault unless this is one sentence in a person's words that names the file."""
    require(said.strip() and not said.rstrip().endswith(":"), "an error says nothing", said)
    require("\n" not in said and "\r" not in said, "an error takes several lines", repr(said))
    require(name in said, "an error does not name the file", said)
    said = said.replace(name, "FILE") if name else said
    require(len(said) <= LONGEST, f"an error is longer than {LONGEST} characters", said)
    word = next((word for word in WORDS if word in said), None)
    require(word is None, f"an error speaks Python ({word})", said)


def outcome(
    call: Callable[[], Any], name: str = "", allowed: tuple[type, ...] = (ValueError, TypeError, OSError)
) -> Any:
    """What a call gives, or REFUSED where it is refused in a sentence; Fault for any other error."""
    try:
        return call()
    except Exception as error:
        if any(isinstance(each, MemoryError) for each in causes(error)):
            raise Fault("more memory is wanted than a file may take", error) from error
        if not isinstance(error, allowed):
            raise Fault(f"{type(error).__name__} escapes", error) from error
        try:
            check_sentence(str(error), name)
        except Fault as fault:
            raise fault from error
        return REFUSED


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it comes of, the innermost last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def rationed(size: int) -> Iterator[None]:
    """Whatever opens a file of so many bytes gets only the memory that it may take, and its time is measured."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    present = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (present + MOST_MEMORY + 2 * size, hard))
    began = time.process_time()
    try:
        yield
    except MemoryError as error:
        raise Fault("more memory is wanted than a file may take") from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    spent = time.process_time() - began
    require(spent <= MOST_TIME, f"more than {MOST_TIME:g} s of computing")


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    """Hang after BOUND seconds, or when a thread dies of an error: whoever waits for it would wait for ever.

    And again after as long, in case somebody has caught the first.
    """
    died: list[str] = []
    rang: list[str] = []

    def bury(found: Any) -> None:
        died.append(f"the thread {found.thread.name} dies of {found.exc_type.__name__}")
        signal.setitimer(signal.ITIMER_REAL, 0.2, BOUND)

    def ring(_number: int, _frame: Any) -> None:
        rang.append(died[0] if died else f"no answer within {BOUND:g} s")
        raise Hang(rang[0])

    hook, handler, began = threading.excepthook, signal.signal(signal.SIGALRM, ring), time.monotonic()
    threading.excepthook = bury
    left, _ = signal.setitimer(signal.ITIMER_REAL, BOUND, BOUND)
    try:
        yield
        require(not died + rang, "".join((died + rang)[:1]))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        threading.excepthook = hook
        if left:  # pytest's own alarm
            signal.setitimer(signal.ITIMER_REAL, max(0.01, left + began - time.monotonic()))


@contextlib.contextmanager
def use_one_thread() -> Iterator[None]:
    """Several threads only wait for one another where networks are tiny and the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Fault unless threads, signals, generators of chance, torch and the interpreter are as they were."""
    before, threads, images = state_of_process(), set(threading.enumerate()), dict(given_image.KEPT)
    yield
    given_image.KEPT.clear()
    given_image.KEPT.update(images)
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
        require(not thread.is_alive(), f"the thread {thread.name} is left behind")
    for name, value in state_of_process().items():
        require(value == before[name], f"{name} is not put back")


def state_of_process() -> dict[str, Any]:
    """What all of a process shares, by name."""
    return {
        "torch's backward": (torch.autograd.backward, torch.autograd.grad, torch.Tensor.backward),
        "torch's global hooks": (len(modules._global_forward_hooks), len(modules._global_forward_pre_hooks)),
        "the interrupt's handler": signal.getsignal(signal.SIGINT),
        "torch's threads": torch.get_num_threads(),
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "Python's generator": random.getstate(),
        "the interpreter's switch interval": sys.getswitchinterval(),
        "torch's gradient mode": torch.is_grad_enabled(),
    }
