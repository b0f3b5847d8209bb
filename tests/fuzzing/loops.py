"""Fuzz of `cnnlab.watch`: random training loops, watched and not, must train the same and leave torch as it was."""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle
import signal
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import nn

import cnnlab
from cnnlab.diagnosis import summary as verdict
from cnnlab.diagnosis.watch import Stopped
from fuzzing.invariants import require

Move = list[Any]
"""What the loop does next, the number of its model, and how."""
X, Y = torch.linspace(-1, 1, 48).reshape(12, 4), torch.arange(12) % 3
COSTS = ("backward", "backward", "gradient", "weighted", "vector", "autograd.grad", "autograd.backward", "closure")
"""How a cost is sent backward."""
KNOWN = ("backward", "gradient", "autograd.backward", "closure")
"""Those of which a watch knows what the cost was."""
COPIES = ("deepcopy", "torch.save", "pickle", "state_dict")


def loop_moves(random: Random) -> list[Move]:
    """Rounds of two models between random beginnings and ends of their watches."""
    moves = [["two optimizers", random.randrange(2)] for _ in range(random.randint(0, 1))]
    moves += [["enter", random.randrange(2)]]
    for _ in range(random.randint(2, 10)):
        way, model = random.random(), random.randrange(2)
        if way < 0.55:
            how = {"cost": COSTS, "parts": (1, 1, 2), "steps": (1, 1, 1, 2), "zero": ("before", "after", "never")}
            how = {name: random.choice(ways) for name, ways in how.items()}
            moves.append(["round", model, how])
        elif way < 0.65:
            moves.append(["copy", model, random.choice(COPIES)])
        elif way < 0.7:
            moves.append([random.choice(("look", "freeze", "error", "record")), model])
        else:
            moves.append([random.choice(("enter", "exit")), model])
    return moves


class World:
    """Two models with their optimisers, and their watches, if there are any."""

    def __init__(self, moves: list[Move], watched: bool) -> None:
        torch.manual_seed(0)
        self.models = [nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)) for _ in range(2)]
        double = {move[1] for move in moves if move[0] == "two optimizers"}
        self.optimizers = [
            [torch.optim.SGD(part.parameters(), 0.1, momentum=0.5) for part in (model if number in double else [model])
             if list(part.parameters())]
            for number, model in enumerate(self.models)
        ]  # fmt: skip
        self.watches = (
            [cnnlab.watch(*pair) for pair in zip(self.models, self.optimizers, strict=True)] if watched else []
        )
        self.open = [False, False]
        self.told: list[list[float | None]] = [[], []]
        """The cost of each update of a model while it is watched; None where a watch need not know it."""

    def act(self, move: Move) -> None:
        """One move."""
        kind, model, *how = move
        match kind:
            case "round":
                self.round(model, **how[0])
            case "copy":
                self.copy(model, how[0])
            case "look":
                with torch.no_grad():
                    self.models[model](X * math.nan)
            case "enter" if not self.open[model]:
                self.open[model] = True
                _ = self.watches and self.watches[model].__enter__()
            case "exit" | "error" if self.open[model]:
                self.leave(model, ArithmeticError() if kind == "error" else None)
            case "freeze":
                self.models[model][0].bias.requires_grad_(False)
            case "record" if self.watches:
                repr(self.watches[model].record)

    def leave(self, model: int, error: Exception | None) -> None:
        """End a watch's block, by an error of the loop's own or without."""
        self.open[model] = False
        if self.watches:
            held = self.watches[model].__exit__(type(error) if error else None, error, None)
            require(not held, "a watch swallows an error of the loop")

    def round(self, model: int, cost: str, parts: int, steps: int, zero: str) -> None:
        """So many costs sent backward in some way, and as many steps of each optimiser: one update.

        But with a closure each step sends a cost backward, and is an update of its own.
        """
        network, sent = self.models[model], []
        if zero == "before":
            network.zero_grad()
        if cost != "closure":
            sent = [float(self.backward(model, part, cost)) for part in torch.arange(len(X)).chunk(parts)]
        closure = partial(self.backward, model, torch.arange(len(X)), cost) if cost == "closure" else None
        for _ in range(steps):
            for optimizer in self.optimizers[model]:
                evaluated = optimizer.step(closure)
                sent += [] if closure is None else [float(evaluated)]
        if self.open[model]:
            self.told[model] += sent if cost == "closure" else [sum(sent) if cost in KNOWN else None]
        if zero == "after":
            network.zero_grad()

    def backward(self, model: int, part: torch.Tensor, way: str) -> torch.Tensor:
        """Gradients of the mean of some costs, by one of the ways that torch has; the mean."""
        network = self.models[model]
        losses = nn.functional.cross_entropy(network(X[part]), Y[part], reduction="none")
        loss, parameters = losses.mean(), [each for each in network.parameters() if each.requires_grad]
        match way:
            case "backward" | "closure":
                loss.backward()
            case "gradient":
                loss.backward(torch.tensor(1.0))
            case "weighted":
                (loss / 2).backward(gradient=torch.tensor(2.0), retain_graph=True)
            case "vector":
                losses.backward(torch.full_like(losses, 1 / len(losses)))
            case "autograd.backward":
                torch.autograd.backward([loss])
            case "autograd.grad":
                gradients = torch.autograd.grad(loss, parameters)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return loss.detach()

    def copy(self, model: int, way: str) -> None:
        """A copy of the model as people make one, trained by itself."""
        network = self.models[model]
        match way:
            case "deepcopy":
                twin = copy.deepcopy(network)
            case "pickle":
                twin = pickle.loads(pickle.dumps(network))
            case "torch.save":
                stream = io.BytesIO()
                torch.save(network, stream)
                stream.seek(0)
                twin = torch.load(stream, weights_only=False)
            case _:
                twin = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
                twin.load_state_dict(network.state_dict())
        require(not hooks_of(twin), "a copy of a watched model carries hooks")
        nn.functional.cross_entropy(twin(X), Y).backward()
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter -= 0.1

    def end(self) -> None:
        """Leave what is open still."""
        for model in range(2):
            if self.open[model]:
                self.leave(model, None)


def hooks_of(module: nn.Module) -> list[Any]:
    """All hooks of a module and its parts."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [hook for part in module.modules() for kind in kinds for hook in getattr(part, kind).values()]


def try_loop(moves: list[Move], _folder: Path) -> tuple[int, int]:
    """The loop with its watches and without: the same weights, an update for each step, no cost called NaN."""
    with torch.random.fork_rng():
        bare, handler = World(moves, watched=False), signal.getsignal(signal.SIGINT)
        for move in moves:  # all of it first: watches hear whatever is sent backward
            bare.act(move)
        watched = World(moves, watched=True)
        try:
            for move in moves:
                watched.act(move)
        except Stopped as error:
            require(False, "a watch ends a loop that nobody has paused", error)
        finally:
            watched.end()
            lost = signal.getsignal(signal.SIGINT) is not handler
            signal.signal(signal.SIGINT, handler)
    require(not lost, "the interrupt's handler is not put back")
    check(bare, watched)
    return sum(map(len, watched.told)), 0


def check(bare: World, watched: World) -> None:
    """Fault unless the watches have changed nothing and seen everything."""
    for ours, theirs in zip(bare.models, watched.models, strict=True):
        same = all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
        require(same, "a watched loop trains otherwise")
        require(not hooks_of(theirs), "hooks are left on a model")
    for optimizer in itertools.chain(*watched.optimizers):
        left = [*optimizer._optimizer_step_pre_hooks, *optimizer._optimizer_step_post_hooks]
        require(not left, "hooks are left on an optimiser")
    for watch, told in zip(watched.watches, watched.told, strict=True):
        record = watch.record
        require(len(record) == len(told), "updates are not those that were made", f"{len(record)} and not {len(told)}")
        require(record.first_nonfinite is None, "a cost that was not measured is called NaN or infinite")
        require("NaN" not in verdict.state_line(record), "the state line tells of a NaN that never was")
        pairs = zip(record.cost, told, strict=True)
        right = all(cost is None or math.isclose(cost, seen, rel_tol=1e-5) for seen, cost in pairs)
        require(right, "a cost is not the one that was sent backward", f"{record.cost.tolist()} and not {told}")
