"""Fuzz of maps in files: lines of JSON."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from cnnlab.config.settings import settings
from cnnlab.records.map import Map
from fuzzing.invariants import REFUSED, outcome, rationed, require
from fuzzing.moves import SMALL, Moves, moves_on, text_of, written


@functools.cache
def map_tree() -> dict[str, Any]:
    """A map of two rates, two clips' thresholds and two seeds, all but one run computed, taken apart."""
    axes = (("learning_rate", (0.01, 0.1)), ("batch_size", (2.0, 4.0)))
    made = Map.empty(settings(**SMALL), axes, (4, 5), 3)
    for index in range(7):
        made.put(index, [5.0, np.nan] if index == 3 else [5.0, 4.0, 3.0 + index], 5.0, 3.0, 0.75)
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder) / "map")
        heading, *runs = map(json.loads, (Path(folder) / "map").read_text().splitlines())
    return {"heading": heading, "runs": runs}


def map_bytes(tree: Any) -> bytes:
    """The lines that a tree tells of."""
    parts = tree if isinstance(tree, dict) else {"heading": tree}
    runs = parts.get("runs")
    lines = [parts.get("heading"), *(runs[:100_000] if isinstance(runs, list) else [])]
    return b"".join(text_of(line) + b"\n" for line in lines)


def map_moves(random: Random) -> Moves:
    """Changes of the map."""
    return moves_on(map_tree(), map_bytes, random, large=0.008)


def try_map(moves: Moves, folder: Path) -> bool:
    """Load the file; a map that is there can be shown and saved."""
    content = written(map_tree(), map_bytes, moves)
    path = folder / "odd.map"
    path.write_bytes(content)
    with rationed(len(content)):
        found = outcome(lambda: Map.load(path), name=str(path))
        if found is REFUSED:
            return False
        repr(found)
        for place in list(np.ndindex(found.shape))[:20]:
            found.at(*place)
            found.settings_at(*place)
        found.save(folder / "again.map")
        again = Map.load(folder / "again.map")
    for name in ("done", "cost", "began", "ended", "held_out_accuracy"):
        one, other = getattr(found, name), getattr(again, name)
        require(np.array_equal(one, other, equal_nan=name != "done"), f"{name} of a map changes when it is saved")
    return True
