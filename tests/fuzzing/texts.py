"""Fuzz of links, of settings as text and by keyword, and of what a Run and a Lab are made with."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import cnnlab
from cnnlab.config.links import find_moment, format_link, opened
from cnnlab.config.settings import Settings, settings
from fuzzing.invariants import REFUSED, outcome, require
from fuzzing.moves import SMALL, Moves, moves_on, small, text_of, written
from fuzzing.mutations import PYTHON, changed, changes, mutated

LINK = {
    "preset": "question",
    "parts": [["channels", "2"], ["hidden", "4,4"], ["patch_size", "13"], ["patches", "8"], ["batch_size", "none"],
              ["at3.momentum", "0.5"], ["at12.l2", "1e-3"], ["look", "2"]],
}  # fmt: skip
"""A link, taken apart."""
OPTIONS: dict[str, dict[str, Any]] = {
    "lab options": {"scale": 1.5, "watch": ["hid1.weight[0,0]"], "cost": "log_softmax", **SMALL},
    "run options": {"history_bytes": 2**20, "watch": ["hid1.weight[0,0]"], "cost": "log_softmax", **SMALL},
}
"""What a Lab and a Run are given by keyword."""


def link_bytes(tree: Any) -> bytes:
    """The link that a tree tells of."""
    parts = tree if isinstance(tree, dict) else {"preset": tree}
    listed = parts.get("parts")
    pairs = ["=".join(map(str, part)) if isinstance(part, list) else str(part)
             for part in (listed if isinstance(listed, list) else [])]  # fmt: skip
    return f"cnnlab:{parts.get('preset')}?{'&'.join(pairs)}".encode("utf-8", "surrogatepass")


def link_moves(random: Random) -> Moves:
    """Changes of a link; or something else that is asked to be opened; and whether a lab is made, or how."""
    way = random.random()
    if way < 0.1:
        return [("instead", random.choice(PYTHON))]
    if way < 0.2:
        return [(name, mutated(random, options, PYTHON)) for name, options in OPTIONS.items()]
    moves = moves_on(LINK, link_bytes, random)
    return [*moves, ("lab",)] if random.random() < 0.05 else moves


def try_link(moves: Moves, _folder: Path) -> bool:
    """Open the link; a run of it has a link that gives the same settings and plan."""
    made = [make_by_options(*move) for move in moves if move[0] in OPTIONS]
    if made:
        return all(made)
    link: Any = written(LINK, link_bytes, [move for move in moves if move[0] in ("tree", "many", "bytes")])
    link = next((move[1] for move in moves if move[0] == "instead"), link.decode("utf-8", "surrogateescape"))
    found = outcome(lambda: opened(link))
    if found is REFUSED:
        outcome(lambda: cnnlab.Run(link))
        outcome(lambda: cnnlab.Lab(link).close())
        return False
    find_moment(link)
    again = format_link(*found)
    require(format_link(*opened(again)) == again, "a link of what a link has opened opens something else")
    if small(found[0]):
        made = outcome(lambda: cnnlab.Run(link))
        require(made is REFUSED or made.step().step == 1, "a run of a link does not train")
        if ("lab",) in moves:
            outcome(lambda: cnnlab.Lab(link).close())
    return True


def make_by_options(name: str, options: Any) -> bool:
    """Whether a lab or a run is made with such keywords; one that would be large is not tried."""
    given = options if isinstance(options, dict) else {}
    given = {name: value for name, value in given.items() if isinstance(name, str)}
    if any(isinstance(given.get(name, 0), int) and given.get(name, 0) > 40 for name in SMALL):
        return False
    make = cnnlab.Run if name == "run options" else cnnlab.Lab
    made = outcome(lambda: make("question", **given))
    if isinstance(made, cnnlab.Lab):
        made.close()
    return made is not REFUSED


def settings_tree() -> dict[str, Any]:
    """All fields of some settings."""
    return json.loads(settings(**SMALL).to_json())


def settings_moves(random: Random) -> Moves:
    """Changes of JSON text; or of values given by keyword, where anything may come."""
    if random.random() < 0.5:
        return moves_on(settings_tree(), text_of, random)
    return [("tree", *each) for each in changes(random, settings_tree(), 3, PYTHON)] + [("by keyword",)]


def try_settings(moves: Moves, _folder: Path) -> bool:
    """Make settings; those that are made come back from their text, their link and their representation."""
    if ("by keyword",) in moves:
        values = changed(settings_tree(), [move[1:] for move in moves if move[0] == "tree"])
        by_name = isinstance(values, dict) and all(isinstance(name, str) for name in values)
        made = outcome(lambda: settings(**values) if by_name else settings(values))
    else:
        text = written(settings_tree(), text_of, moves)
        made = outcome(lambda: Settings.from_json(text.decode("utf-8", "surrogateescape")))
    if made is REFUSED:
        return False
    require(Settings.from_json(made.to_json()) == made, "settings are not those of their text")
    require(opened(format_link(made, ()))[0] == made, "settings are not those of their link")
    require(eval(repr(made), {"settings": settings}) == made, "settings are not those of their representation")
    return True
