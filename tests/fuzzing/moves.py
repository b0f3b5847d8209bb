"""What is changed in a file: a value of JSON and bytes that tells of its structure, then the bytes it is written as."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from random import Random
from typing import Any

from cnnlab.config.settings import Settings
from fuzzing.mutations import change, changed, changes, splice

Moves = list[tuple[Any, ...]]
"""("tree", place, value), ("many", place), ("bytes", start, stop, bytes in their stead), and more of each kind."""
Write = Callable[[Any], bytes]
"""How a tree becomes a file."""
SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "learning_rate": 1e-4}
"""Settings with which a run takes some milliseconds."""


def moves_on(
    tree: Any, write: Callable[[Any], bytes], random: Random, in_bytes: float = 0.3, large: float = 0
) -> Moves:
    """Up to three changes of a tree, or with these chances some of the bytes that it is written as, or a large one."""
    if random.random() < large:
        return [("many", change(random, tree)[0])]
    moves: Moves = [("tree", *each) for each in changes(random, tree, 3)]
    if random.random() < in_bytes:
        moves = moves[: random.randint(0, 1)]
        content = written(tree, write, moves)
        moves += [("bytes", *splice(random, content)) for _ in range(random.randint(1, 3))]
    return moves


def written(tree: Any, write: Write, moves: Moves) -> bytes:
    """The bytes of a tree after these moves."""
    content = write(changed(tree, [(*move[1:], many())[:2] for move in moves if move[0] in ("tree", "many")]))
    for _, start, stop, piece in (move for move in moves if move[0] == "bytes"):
        content = content[:start] + piece + content[stop:]
    return content


@functools.cache
def many() -> list[Any]:
    """What takes 32 MB as text, and twenty times as much in memory."""
    return [{}] * 8_000_000


def text_of(value: Any) -> bytes:
    """JSON text; whatever JSON has no form for is written as text."""
    return json.dumps(value, default=repr).encode()


def small(start: Settings) -> bool:
    """Whether a run of these settings is quickly made."""
    return start.channels <= 16 and max(start.hidden) <= 64 and start.patches <= 100 and start.patch_size <= 20
