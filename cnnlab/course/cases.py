"""What a check is made of: named cases that judge a function, and the ways to refuse it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cnnlab.config.settings import quote

Function = Callable[..., Any]


class WrongAnswer(Exception):
    """One sentence on what was asked and what came instead, without the solution."""


class NotWritten(Exception):
    """The answer still holds the dots."""


@dataclass(frozen=True)
class Case:
    """One thing that a right answer does."""

    name: str
    """What it is about, as in "seed 3"."""
    judge: Callable[[Function], None]
    """Calls the user's function; WrongAnswer if what comes is not what was asked."""


def expect(holds: Any, asked: str, got: Any) -> None:
    """WrongAnswer with what was asked and what came, unless it holds."""
    if not holds:
        raise WrongAnswer(f"got {quote(got)}, asked was {asked}")
