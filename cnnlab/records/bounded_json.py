"""JSON from untrusted files: the memory that a text can become is held against a limit before it is read.

A list or an object takes up to forty times the bytes of its text: `[1,{}],` is 7 bytes, and 150 in memory.
"""

from __future__ import annotations

import json
import reprlib
from typing import Any

MOST_MEMORY = 2**27
"""Most bytes that the text and all its values may take together."""


def parse(text: bytes) -> Any:
    """The value of a JSON text in UTF-8; ValueError in a sentence if it is none, nests too deep or takes too much."""
    check_memory(text)
    try:
        return json.loads(text.decode())
    except json.JSONDecodeError as reason:
        raise ValueError(f"its text is no JSON: {reason}") from None
    except UnicodeDecodeError as reason:
        raise ValueError(f"its text is no UTF-8 from byte {reason.start} on") from None
    except ValueError:
        raise ValueError("its text holds a number of thousands of digits") from None
    except RecursionError:
        raise ValueError("its text nests too many lists") from None


def check_memory(text: bytes) -> None:
    """ValueError if a JSON text may take more memory than is allowed."""
    if (memory := limit_memory(text)) > MOST_MEMORY:
        raise ValueError(
            f"its text may take {MOST_MEMORY / 2**20:.0f} MiB of memory, got {memory / 2**20:,.0f} MiB: "
            "it holds too many lists, objects and values"
        )


def limit_memory(text: bytes) -> int:
    """The most bytes that a JSON text and its values take in memory, by its signs (tests/benchmarks/hostile.py)."""
    # A list with its first four places is 88 bytes, an object 64 and with its first key 184, a number up to 32 and its
    # place in a list 8; a text is 56 and its letters, and a key is noted while the text is read.
    signs = {b"[": 88, b"{": 64, b",": 40, b'"': 28, b":": 168}
    # The text is there as bytes, as letters and as values; one wide letter makes four bytes of all others in its text.
    wide = b"\\" in text or not text.isascii()
    return len(text) * (11 if wide else 3) + sum(weight * text.count(sign) for sign, weight in signs.items())


def read_field(part: Any, name: str, kind: type) -> Any:
    """A value of an object by its name; ValueError if it is not there or of another kind."""
    if not isinstance(part, dict) or name not in part:
        raise ValueError(f"{name} is missing")
    if type(part[name]) is not kind:
        raise ValueError(f"{name} must be a {kind.__name__}, got {reprlib.repr(part[name])}")
    return part[name]
