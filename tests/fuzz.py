"""A fuzz test of cnnlab: events, files, maps, links, settings, messages, images, loops and folders with random changes.

`python tests/fuzz.py --minutes 10` tries as many cases of each kind as the time allows, prints each kind of failure
once with the smallest case that shows it, and then a table; its status is 1 if there was a failure. A case is known by
kind, seed and number: `--kind maps --seed 3 --case 17` tries that one alone. `tests/test_fuzz.py` runs a short one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from pathlib import Path
from random import Random
from typing import Any

from fuzzing import folders, images, journals, loops, maps, records, sessions, texts
from fuzzing.invariants import Fault, Hang, alarm, causes, nothing_left_behind, use_one_thread

import cnnlab

PACKAGE = Path(cnnlab.__file__).parent
SHRINKING = 20.0
"""Seconds at most that are spent on making a case smaller."""


@dataclass(frozen=True)
class Kind:
    """One kind of fuzz."""

    make: Callable[[Random], list[Any]]
    """The moves of a case, each of which can be left out."""
    play: Callable[[list[Any], Path], Any]
    """Makes the moves in an empty folder; True or False: opened or refused, or how many of each."""
    cases: int
    """How many are tried in the suite."""


KINDS = {
    "controls": Kind(sessions.control_moves, sessions.try_session, 25),
    "messages": Kind(sessions.message_moves, sessions.try_session, 20),
    "records": Kind(records.record_moves, records.try_record, 300),
    "journals": Kind(journals.journal_moves, journals.try_journal, 200),
    "maps": Kind(maps.map_moves, maps.try_map, 400),
    "links": Kind(texts.link_moves, texts.try_link, 400),
    "settings": Kind(texts.settings_moves, texts.try_settings, 500),
    "images": Kind(images.image_moves, images.try_image, 250),
    "loops": Kind(loops.loop_moves, loops.try_loop, 80),
    "autosave": Kind(folders.folder_moves, folders.try_folder, 16),
}


@dataclass(frozen=True)
class Failure:
    """A case that breaks an invariant."""

    kind: str
    seed: int
    number: int
    moves: list[Any]
    """The smallest that were found."""
    error: BaseException

    @property
    def signature(self) -> tuple[str, str]:
        """What two failures of the same fault have in common: what does not hold, and where that comes from."""
        said = self.error.args[0] if isinstance(self.error, Fault) else type(self.error).__name__
        return said, origin(self.error)

    def __str__(self) -> str:
        steps = "\n".join(f"    {shortened(move)}" for move in self.moves)
        said = f"{type(self.error).__name__}: {self.error}"
        case = f"--kind {self.kind} --seed {self.seed} --case {self.number}"
        return f"{self.kind}: {shortened(said)}\n  in {origin(self.error)}; {case}, of which it takes\n{steps}"


@dataclass
class Tally:
    """What came of the cases of a kind."""

    cases: int = 0
    opened: int = 0
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0
    faults: dict[tuple[str, str], Failure] = field(default_factory=dict)
    """What they have in common -> the first failure that shows it, as small as it gets."""


def attempt(kind: str, moves: list[Any]) -> tuple[int, int]:
    """Make the moves of a case; how many things were opened and refused. Any error is a failure."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", module="cnnlab")
        with use_one_thread(), nothing_left_behind(), alarm():
            told = KINDS[kind].play(moves, Path(folder))
    return (int(told), int(not told)) if isinstance(told, bool) else told


def tried(kind: str, moves: list[Any]) -> tuple[int, int] | BaseException:
    """The same, with an error as a value; a person's own interrupt is none."""
    try:
        return attempt(kind, moves)
    except KeyboardInterrupt as error:
        if sessions.PLANNED not in str(error):
            raise
        return error
    except (Exception, SystemExit, GeneratorExit, Hang) as error:
        return error


def moves_of(kind: str, seed: int, number: int) -> list[Any]:
    """The moves of one case."""
    return KINDS[kind].make(Random(f"{kind} {seed} {number}"))


def fuzz(kind: str, seed: int, numbers: Sequence[int] | Iterator[int], tell: Callable[[str], Any] = print) -> Tally:
    """Try the cases of these numbers; each kind of failure is told of once, as small as it gets."""
    tally, began = Tally(), time.monotonic()
    for number in numbers:
        moves = moves_of(kind, seed, number)
        came = tried(kind, moves)
        tally.cases += 1
        if isinstance(came, tuple):
            tally.opened, tally.refused = tally.opened + came[0], tally.refused + came[1]
            continue
        found = Failure(kind, seed, number, moves, came)
        tally.failed += 1
        if found.signature not in tally.faults:
            tally.faults[found.signature] = smallest = shrunk(found)
            tell(f"{smallest}\n")
    tally.seconds = time.monotonic() - began
    return tally


def shrunk(failure: Failure) -> Failure:
    """The failure with as few moves as still show it: halves, quarters and at last single ones are left out."""
    until, size = time.monotonic() + SHRINKING, len(failure.moves) // 2
    while size >= 1 and time.monotonic() < until:
        for start in range(len(failure.moves) - size, -1, -size):
            moves = failure.moves[:start] + failure.moves[start + size :]
            came = tried(failure.kind, moves) if time.monotonic() < until else ()
            if isinstance(came, tuple):
                continue
            smaller = replace(failure, moves=moves, error=came)
            failure = smaller if smaller.signature == failure.signature else failure
        size = min(size // 2, len(failure.moves) // 2) if size > 1 else 0
    return failure


def origin(error: BaseException) -> str:
    """Where in cnnlab an error comes from: the innermost line of it and of what caused it."""
    place = "no line of cnnlab"
    for each in causes(error):
        lines = [line for line in traceback.extract_tb(each.__traceback__) if PACKAGE in Path(line.filename).parents]
        place = f"{Path(lines[-1].filename).name}, {lines[-1].name}" if lines else place
    return place


def shortened(value: Any) -> str:
    """A value in at most three hundred characters, however deep it is."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except RecursionError:
        text = "something too deep to be written"
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-80:]} ({len(text)} characters)"


def table(tallies: dict[str, Tally]) -> str:
    """What was tried, in a table."""
    columns = ("cases", "opened", "refused", "failed", "faults", "seconds")
    rows = {kind: [tally.cases, tally.opened, tally.refused, tally.failed, len(tally.faults), round(tally.seconds)]
            for kind, tally in tallies.items()}  # fmt: skip
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    lines = {"kind": columns, **rows}
    return "\n".join(f"{name:<10}" + "".join(f"{value:>9}" for value in line) for name, line in lines.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz for some minutes; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="how long, all kinds together (1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, action="append", help="this kind only; may be given several times")
    parser.add_argument("--case", type=int, help="the case of this number only")
    given = parser.parse_args(arguments)
    kinds = given.kind or list(KINDS)
    share, tallies = 60 * given.minutes / len(kinds), {}
    for kind in kinds:
        end = time.monotonic() + share
        numbers = takewhile(lambda _, end=end: time.monotonic() < end, count())
        tallies[kind] = fuzz(kind, given.seed, numbers if given.case is None else [given.case])
    print(table(tallies))
    return int(any(tally.failed for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
