"""Fuzz of a lab: random orders of calls and of the page's messages, valid and not.

Whatever is asked, the record stays consistent, is saved and loaded to the bit, and can be trained again to the bit.
"""

from __future__ import annotations

import builtins
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import nn

import cnnlab
from cnnlab.records.record import Record
from cnnlab.records.validation import check_tree
from fuzzing import invariants
from fuzzing.invariants import REFUSED, check_sentence, outcome, require
from fuzzing.moves import SMALL
from fuzzing.mutations import JSON, PYTHON, mutated
from fuzzing.records import same

Event = list[Any]
"""A method of the lab, its arguments, its keywords."""
PLANNED = "as planned"
"""What an error says that the fuzz itself has had raised."""

MESSAGES: list[dict[str, Any]] = [
    *({"do": name} for name in ("play", "pause", "reset", "new_seed", "before_explosion", "rewind", "bring_back",
                                "leave_behind", "hide_doctor", "fork")),
    {"do": "step", "updates": 3}, {"do": "choose_branch", "branch": 1}, {"do": "delete_branch", "branch": 2},
    {"set": {"learning_rate": "1e-3"}, "hand": ["a", 3]}, {"set": {"seed": "4"}}, {"set": {"batch_size": "all"}},
    {"set": {"clip": "norm"}}, {"schedule": "cosine"}, {"apply": 0}, {"look": 1}, {"pace": "full"},
    {"drawn": 3, "width": 900}, {"width": 900},
]  # fmt: skip
"""What the page sends."""
CALLS: list[Event] = [
    ["play", [], {}], ["play", [4], {}], ["pause", [], {}], *[["step", [2], {}]] * 16, ["wait", [0.05], {}],
    *[["set", [], {"learning_rate": 0.01}], ["set", [], {"momentum": 0.9, "clip": "norm"}]] * 3,
    ["set", [], {"seed": 3}], ["set", [], {"learning_rate": 1e6}], ["set", [], {"precision": "float64"}],
    ["set", [], {"batch_size": 4}],
    ["set", [], {"preset": "vanishing", **SMALL}], ["choose", ["dead"], SMALL], ["new_seed", [], {}],
    ["schedule", ["cosine"], {}], ["schedule", ["as_high_as_is_safe"], {"share": 0.8}], ["schedule", ["step"], {}],
    ["look_at", [1], {}], ["look_at", [None], {}], ["look_before_explosion", [], {}], ["rewind", [1], {}],
    ["rewind", [], {}], ["fork", [1], {"momentum": 0.5}], ["fork", [], {}], ["choose_branch", [1], {}],
    ["choose_branch", [2], {}], ["delete_branch", [1], {}], ["delete_branch", [2], {}], ["reset", [], {}],
    ["choose_pace", ["full"], {}], ["choose_pace", ["5"], {}], ["link", [], {}], ["apply", [0], {}],
    ["bring_back", [], {}], ["leave_behind", [], {}], ["explain", [], {}], ["close", [], {}],
    *(["received", [message], {}] for message in MESSAGES),
]  # fmt: skip
"""What a person calls."""
ODD_COSTS = ("RuntimeError", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "MemoryError", "StopIteration",
             "RecursionError", "several lines", "nothing", "no words", "None", "a vector", "a number", "no graph",
             "NaN")  # fmt: skip
"""What a cost of one's own raises, or gives in place of a cost."""


class Wordless(Exception):
    """An error that cannot even be written."""

    def __str__(self) -> str:
        raise RuntimeError(PLANNED)


# -- moves


def message_moves(random: Random) -> list[Event]:
    """Messages, most of them with a change or two, in any order."""
    chosen = (random.choice(MESSAGES) for _ in range(random.randint(5, 30)))
    odd = [mutated(random, message) if random.random() < 0.7 else message for message in chosen]
    return [["received", [message if random.random() < 0.98 else random.choice(JSON)], {}] for message in odd]


def control_moves(random: Random) -> list[Event]:
    """Calls, some of them with odd arguments; now and then on a network whose cost is odd at some update."""
    events = [control(random) for _ in range(random.randint(5, 30))]
    way = random.random()
    if way < 0.5:
        odd = {random.randint(1, 12): random.choice(ODD_COSTS) for _ in range(random.randint(1, 2))}
        events = [["own", [odd, random.random() < 0.3], {}], *events]
    return [["watched", [], {}], *events] if random.random() < 0.3 else events


def control(random: Random) -> Event:
    """A call; one in four with something odd among its arguments."""
    name, arguments, keywords = random.choice(CALLS)
    if name in ("explain", "close") and random.random() < 0.7:
        name, arguments, keywords = "step", [1], {}
    if random.random() < 0.25:
        arguments = [mutated(random, argument, JSON if name == "received" else PYTHON) for argument in arguments]
        odd = mutated(random, keywords, PYTHON) if keywords else {}
        free = name in ("set", "fork", "choose") and isinstance(odd, dict)  # others have keywords of Python's own
        keywords = {key: value for key, value in odd.items() if isinstance(key, str)} if free else {}
    return [name, arguments, keywords]


def takes_long(event: Event) -> bool:
    """Whether a call is right to take its time: many updates asked for at once, or waiting for them."""
    name, arguments, _ = event
    plain = [value for value in arguments if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if name == "step":
        return any(50 < value <= 1e6 for value in plain)
    return name == "wait" and (any(value is None for value in arguments) or any(value > 1 for value in plain))


# -- sessions


class Loop:
    """Stands for the kernel's loop: what is to be done on it is done at the next turn."""

    def __init__(self) -> None:
        self.actions: deque[Callable[[], Any]] = deque()
        self.time = time.monotonic

    def call_soon_threadsafe(self, action: Callable[..., Any], *arguments: Any) -> None:
        self.actions.append(partial(action, *arguments))

    def is_closed(self) -> bool:
        return False


class Odd:
    """A cost that is odd at some of its calls, or from one on."""

    def __init__(self, planned: dict[int, str], lasts: bool) -> None:
        self.planned, self.lasts, self.calls = planned, lasts, 0

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> Any:
        self.calls += 1
        cost = nn.functional.cross_entropy(outputs, y)
        lasting = [odd for call, odd in self.planned.items() if self.lasts and call <= self.calls]
        match self.planned.get(self.calls, lasting[0] if lasting else None):
            case None:
                return cost
            case "None":
                return None
            case "a vector":
                return nn.functional.cross_entropy(outputs, y, reduction="none")
            case "a number":
                return float(cost.detach()) if cost.numel() else 0.0
            case "no graph":
                return torch.tensor(1.0)
            case "NaN":
                return cost * float("nan")
            case "several lines":
                raise ValueError(f"{PLANNED}\nin two lines")
            case "nothing":
                raise ValueError
            case "no words":
                raise Wordless
            case name:
                raise getattr(builtins, name)(PLANNED)


def own_network() -> dict[str, Any]:
    """A network and data of one's own, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        data = torch.randn(12, 4), torch.arange(12) % 2
    return {"network": network, "data": data}


class Session:
    """A lab on a tiny network, and what must hold of it after every event."""

    def __init__(self, odd: list[Any], watched: bool) -> None:
        self.own = own_network() if odd else {}
        self.cost = Odd(*odd) if odd else None
        start = {"learning_rate": 0.1} if self.own else SMALL
        given = {**self.own, "cost": self.cost} if self.own else {}
        self.lab = cnnlab.Lab("question", autosave=False, **given, **start)
        self.loop = self.lab.publisher.loop = Loop()
        self.lab.worker.measurements.watching = watched
        self.lab.choose_pace("full")
        self.done = self.refused = 0

    def do(self, event: Event) -> None:
        """One event, and the turn of the kernel's loop that follows it."""
        name, arguments, keywords = event
        try:
            told = outcome(lambda: getattr(self.lab, name)(*arguments, **keywords), allowed=self.allowed(name))
        except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            if not self.is_planned(error):
                raise
            told = REFUSED
        self.refused += told is REFUSED
        self.done += told is not REFUSED
        self.turn()
        self.check()

    def allowed(self, name: str) -> tuple[type, ...]:
        """The errors that a call may raise; a message from the page raises none."""
        return (invariants.Fault,) if name == "received" else (ValueError, TypeError, RuntimeError, OSError)

    def is_planned(self, error: BaseException | None) -> bool:
        """Whether an error is, or comes of, the one that the cost was told to raise."""
        if self.cost is None or error is None:
            return False
        if isinstance(error, invariants.Fault):
            return self.is_planned(error.__cause__)
        odd = {self.cost.planned[call] for call in self.cost.planned if call <= self.cost.calls}
        of_a_wrong_type = odd & {"None", "a vector", "a number", "no graph", "nothing", "no words"}
        return bool(of_a_wrong_type) or PLANNED in str(error)

    def turn(self) -> None:
        """What the kernel's loop does: what waits for it, then a frame."""
        while self.loop.actions:
            self.loop.actions.popleft()()
        self.lab.draw(self.lab.view)

    def check(self) -> None:
        """Fault unless what is shown is in sentences and the record is consistent."""
        view = self.lab.view
        told = [self.lab.problem, view.error, self.lab.worker.autosave.problem]
        for said in filter(None, told):
            if self.cost is None or said is not view.error:
                check_sentence(said)
        check_tree({branch: branch.take_snapshots() for branch in (view.record, *view.record.others)})

    def end(self, folder: Path) -> None:
        """Pause, save, load, and train every branch again, all to the bit."""
        if not self.lab.closed:
            for _ in self.cost.planned if self.cost else "1":
                self.do(["pause", [], {}])
            self.do(["wait", [invariants.BOUND], {}])
            self.rest()
        record = self.lab.record
        record.save(folder / "session.cnnlab")
        require(same(cnnlab.load(folder / "session.cnnlab"), record), "a record changes when it is saved")
        for branch in (record, *record.others):
            if 0 < len(branch) <= 2000:
                self.replay(branch)

    def rest(self) -> None:
        """Fault unless a lab that nobody asks for anything comes to rest."""
        until = time.monotonic() + invariants.BOUND / 2
        while self.lab.worker.thread.alive and time.monotonic() < until:
            time.sleep(0.005)
        require(not self.lab.worker.thread.alive, "a lab does not come to rest")

    def replay(self, record: Record) -> None:
        """Fault unless a new run of the record's settings and schedule has the same costs."""
        own = {**self.own, "cost": nn.functional.cross_entropy} if self.own else {}
        plan = {"plan": record.schedule} if self.own else {}
        run = cnnlab.Run(record.settings if self.own else record.link(), **own, **plan)
        run.advance(len(record))
        if self.cost is not None and "NaN" in self.cost.planned.values():
            return
        require(np.array_equal(run.record.cost, record.cost, equal_nan=True), "a replay has other costs")

    def close(self) -> None:
        """Close the lab; one whose thread has died of an error would wait for it."""
        worker = self.lab.worker
        if not worker.thread.alive:
            worker.thread.thread = None
        self.lab.close()


def try_session(moves: list[Event], folder: Path) -> tuple[int, int]:
    """Do the events; how many were done, and how many refused."""
    setups = {move[0]: move[1] for move in moves[:2] if move[0] in ("own", "watched")}
    session = Session(setups.get("own", []), "watched" in setups)
    try:
        for event in moves:
            if event[0] not in setups and not takes_long(event):
                session.do(event)
        session.end(folder)
    finally:
        session.close()
    return session.done, session.refused
