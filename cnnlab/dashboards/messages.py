"""What a page may ask of a lab: one object a message, checked before anything is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cnnlab.config.settings import Number, nearest, written

WIDTH = Number("Width", 0, 1e5, (0, 1e5))
"""Pixels of the cell's output."""


def checked(message: Any) -> dict[str, Any]:
    """A message itself; TypeError or ValueError in a sentence if it is none."""
    if not isinstance(message, dict):
        raise TypeError(f"a message must be an object, got {written(message)}")
    for name, value in message.items():
        if name not in FIELDS:
            known = f"a message may hold {', '.join(FIELDS)}"
            raise ValueError(f"{known}, got {written(name)}{nearest(name, FIELDS)}")
        FIELDS[name](name, value)
    return message


def check_changes(name: str, value: Any) -> None:
    """TypeError if a value is not an object of settings by name."""
    if not isinstance(value, dict) or not all(isinstance(field, str) for field in value):
        raise TypeError(f"{name} must be an object of settings by name, got {written(value)}")


def check_text(name: str, value: Any) -> None:
    """TypeError if a value is not a text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, got {written(value)}")


def check_hand(name: str, value: Any) -> None:
    """TypeError if a value is not two finite numbers, which a page is told again."""
    if not isinstance(value, list) or len(value) != 2 or not all(map(is_finite, value)):
        raise TypeError(f"{name} must be two finite numbers, got {written(value)}")


def is_finite(value: Any) -> bool:
    """Whether a value is a number that is neither NaN nor infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


def check_later(name: str, value: Any) -> None:
    """Leave it to the call that the field is for, which knows the range."""


FIELDS: dict[str, Callable[[str, Any], Any]] = {
    "do": check_later, "updates": check_later, "branch": check_later, "set": check_changes, "schedule": check_later,
    "apply": check_later, "look": check_later, "preset": check_later, "pace": check_later, "width": WIDTH.check,
    "drawn": check_later, "hand": check_hand, "problem": check_text,
}  # fmt: skip
"""Field of a message -> the check of its value."""
