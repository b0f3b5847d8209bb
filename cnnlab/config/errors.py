"""What went wrong, in one sentence, whatever was raised."""

from __future__ import annotations

import contextlib
import math
import numbers
import operator
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from cnnlab.config.settings import quote, short

LONGEST = 300
"""Most characters of what an exception says."""
REFUSALS = (TypeError, ValueError, IndexError)
"""Kinds that say all there is to say in their text, as a refusal of bad input does."""


def extract_message(error: BaseException) -> str:
    """What an exception says, in one line; the name of its kind if it says nothing or cannot say it."""
    try:
        said = " ".join(str(error)[: 10 * LONGEST].split())
    except BaseException:  # the user's own exception may raise anything here
        said = ""
    return (said if len(said) <= LONGEST else f"{said[:LONGEST]}…") or type(error).__name__


def describe_error(error: BaseException) -> str:
    """The kind of an exception and what it says."""
    kind, said = type(error).__name__, extract_message(error)
    return kind if said == kind else f"{kind}: {said}"


def describe_problem(error: BaseException) -> str:
    """What went wrong, with its kind where it is no plain refusal."""
    return extract_message(error) if isinstance(error, REFUSALS) else describe_error(error)


def make_raisable(error: BaseException) -> Exception:
    """The exception itself; in place of one that would end the caller's program, a RuntimeError that names it."""
    if isinstance(error, Exception):
        return error
    named = RuntimeError(f"the network or its cost raised {describe_error(error)}")
    named.__cause__ = error
    return named


@contextlib.contextmanager
def catch_all(show: Callable[[BaseException], None]) -> Iterator[None]:
    """Hand whatever is raised within to `show`, and let nothing of it out: for threads, tasks and callbacks."""
    try:
        yield
    except BaseException as error:
        show(error)


def check_whole_number(
    name: str, value: Any, lowest: int, highest: float = math.inf, kind: type[Exception] = ValueError
) -> int:
    """A whole number within a range as an int; ValueError, or an error of another kind, in a sentence if it is none."""
    with contextlib.suppress(TypeError):
        if not isinstance(value, bool) and lowest <= (number := operator.index(value)) <= highest:
            return number
    span = f"of at least {short(lowest)}" if highest == math.inf else f"in [{short(lowest)}, {short(highest)}]"
    raise kind(f"{name} must be a whole number {span}, got {quote(value)}")


@contextlib.contextmanager
def refuse_in_a_sentence(said: str) -> Iterator[None]:
    """Have whatever an untrusted file brings about be a ValueError in one sentence; an OSError stays what it is."""
    try:
        yield
    except OSError:
        raise
    except Exception as reason:
        raise ValueError(f"{said}: {reason or type(reason).__name__}") from None


def check_timeout(timeout: Any) -> float:
    """A number of seconds to wait, inf for None; TypeError or ValueError in a sentence if it is none."""
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not isinstance(timeout, numbers.Real):
        raise TypeError(f"timeout must be None or a number of seconds in [0, inf], got {quote(timeout)}")
    seconds: Any = timeout
    if not 0 <= seconds <= math.inf:
        raise ValueError(f"timeout must lie in [0, inf], got {quote(timeout)}")
    return float(seconds) if seconds < 1e9 else math.inf


def warn_about_thread(owner: str, seconds: float) -> None:
    """Say that something was closed while what it computes has not come back."""
    warnings.warn(
        f"the {owner} is closed, but what it computes did not end within {seconds:g} s: its thread is left behind",
        RuntimeWarning,
        stacklevel=3,
    )
