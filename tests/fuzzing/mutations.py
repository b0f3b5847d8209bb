"""Changes of JSON-like values: at a random place another type, size, nesting or boundary. All kinds of fuzz share them.

A value is made of dicts, lists, texts, bytes and numbers; whoever wants others hands them over as `odd`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

Place = tuple[Any, ...]
"""Keys and indices that lead to a part of a value; () is the value itself."""
Change = tuple[Place, Any]
"""What lies at a place becomes another value."""
GONE = ...
"""In place of a value: it is taken out of the dict or list that holds it."""

NUMBERS = (0, -1, 1, 2, 3, 0.5, -0.0, 5e-324, 1e308, -1e308, 255, 2**31, 2**53 + 1, 2**63, 2**64, 10**9, 10**400,
           math.nan, math.inf, -math.inf)  # fmt: skip
TEXTS = ("", " ", "0", "-1", "1e3", "1e999", "nan", "all", "two\nlines", "\0", "é\u2028\u202e", "\ud800", "x" * 5000,
         "9" * 5000, "../..", "__class__")  # fmt: skip
JSON = (*NUMBERS, *TEXTS, None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"a": {}}}, ["x"] * 3)
"""Values of all types and sizes that JSON holds, NaN and lone halves of characters among them."""


class Multiline:
    """Something whose representation takes two lines, as that of a matrix does."""

    def __repr__(self) -> str:
        return "one line\nand another"


PYTHON = (*JSON, b"", b"\0\xff", {1}, 1j, object, len, Multiline(), Fraction(1, 3), Path("x"), range(3),
          np.float32(0.1), np.int64(3), np.array(0.5), np.arange(3), np.zeros((3, 3)), np.datetime64("NaT"),
          np.bool_(True))  # fmt: skip
"""And values that only a call from Python brings."""
BYTES = (b"", b"\0", b"\xff" * 4, b"\n", b"[" * 100_000, b'{"a":' * 20_000, b"9" * 5000, b"\0" * 100_000, b"NaN", b'"')
"""What is put into the bytes of a file."""


def changes(random: Random, value: Any, most: int, odd: Sequence[Any] = JSON) -> list[Change]:
    """From one change to `most`, each made of what the ones before it leave."""
    made: list[Change] = []
    for _ in range(random.randint(1, most)):
        made.append(change(random, value, odd))
        value = changed(value, made[-1:])
    return made


def change(random: Random, value: Any, odd: Sequence[Any] = JSON) -> Change:
    """A change at a random place."""
    place: list[Any] = []
    while isinstance(value, (dict, list)) and value and random.random() < 0.85:
        place.append(random.choice(list(value) if isinstance(value, dict) else range(len(value))))
        value = value[place[-1]]
    if place and random.random() < 0.1:
        return tuple(place), GONE
    return tuple(place), random.choice((lambda *_: random.choice(odd), resized, resized, nested))(random, value)


def mutated(random: Random, value: Any, odd: Sequence[Any] = JSON) -> Any:
    """The value with one change or two."""
    return changed(value, changes(random, value, 2, odd))


def changed(value: Any, made: Sequence[Change]) -> Any:
    """A copy of the value with these changes; one whose place is not there any more does nothing."""
    for place, new in made:
        value = put(value, place, new)
    return value


def put(value: Any, place: Place, new: Any) -> Any:
    """A copy with one part replaced; only what leads to the part is copied."""
    if not place:
        return value if new is GONE else new
    first, *rest = place
    is_there = first in value if isinstance(value, dict) else isinstance(value, list) and first in range(len(value))
    if not is_there:
        return value
    copy = value.copy()
    if new is GONE and not rest:
        del copy[first]
    else:
        copy[first] = put(value[first], tuple(rest), new)
    return copy


def resized(random: Random, value: Any) -> Any:
    """A value of the same type, but longer, shorter, or another number."""
    if isinstance(value, (bool, type(None))):
        return random.choice(NUMBERS)
    if isinstance(value, (int, float)):
        return random.choice((random.choice(NUMBERS), -value, value + 1, value * 2, value // 3, str(value)))
    if isinstance(value, dict):
        name = random.choice([*value, "x"])
        return {**value, random.choice(TEXTS): value.get(name), name: random.choice(JSON)}
    if isinstance(value, (str, bytes, list)):
        return spliced(random, value)
    return random.choice(JSON)


def spliced(random: Random, value: Any) -> Any:
    """A text, bytes or a list with a part cut out, doubled, repeated, or replaced by something odd."""
    start, stop = sorted(random.randint(0, len(value)) for _ in range(2))
    odd: Sequence[Any] = TEXTS if isinstance(value, str) else BYTES if isinstance(value, bytes) else [[x] for x in JSON]
    part = value[start:stop]
    piece = random.choice((value[:0], part + part, part[:20] * 50, random.choice(odd)))
    return value[:start] + piece + value[random.choice((start, stop)) :]


def nested(random: Random, value: Any) -> Any:
    """The value a level deeper, or three hundred."""
    wrap: Callable[[Any], Any] = random.choice((lambda inner: [inner], lambda inner: {"a": inner}))
    for _ in range(random.choice((1, 1, 2, 300))):
        value = wrap(value)
    return value


def splice(random: Random, content: bytes) -> tuple[int, int, bytes]:
    """A change of a file's bytes: from one place to another these in their stead."""
    start = random.randint(0, len(content))
    stop = min(len(content), start + random.choice((0, 0, 1, 1, 4, 60, len(content))))
    own = content[(at := random.randint(0, len(content))) : at + 40]
    one = bytes([random.randrange(256)])
    return start, stop, random.choice((one, one, own, random.choice(BYTES)))
