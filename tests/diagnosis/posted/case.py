"""What a posted failure is here: the parts to train, the plain loop, and what is right to say of it.

Facts alone come from the sources; every network, cost and number is our own and the smallest that shows the trouble.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

NAN, STUCK, UNBOUNDED, RAISES = "NaN or inf", "learns nothing", "falls without end", "raises"
"""What a person sees: numbers that are not finite; a finite cost that stays up; a cost below any bound; an error."""
SMALLEST = "smallest input of its kind"
"""The source of a case that no report was looked up for."""
GITHUB = "https://github.com/"
CAUSES = (
    "learning rate", "inputs not scaled", "initial weights", "cost summed", "saturation", "overflow of the precision",
    "penalty", "momentum", "dead ReLUs", "vanishing", "masked", "data hold", "undefined operation", "healthy",
)  # fmt: skip
"""Words of the causes that could be named when the cases were written; in each case all are wrong but a few."""
UNDEFINED = ("undefined", "not defined", "no finite")
"""Any of these names an operation that has no finite value or slope for its argument."""


@dataclass(frozen=True)
class Parts:
    """All that a training needs."""

    network: nn.Module
    x: Any
    """Inputs, all examples; a tuple for several inputs."""
    y: Tensor
    cost: Callable[[Any, Tensor], Tensor]
    learning_rate: float = 0.01
    batch: int | None = None
    """Examples of an update, taken in their order; None: all."""
    momentum: float = 0.0
    l2: float = 0.0
    """Weight decay of SGD."""
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None
    """Makes an optimiser other than SGD; None: SGD."""
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None
    scaler: Callable[[], torch.amp.GradScaler] | None = None
    autocast: torch.dtype | None = None
    zero_grad: bool = True
    zero_grad_late: bool = False
    """Whether the gradients are cleared between backward and step."""
    clip: float | None = None
    """The norm that the gradient is clipped to."""

    @property
    def runs(self) -> bool:
        """Whether plain SGD shows the trouble, so that `cnnlab.Run` can."""
        odd = (self.optimizer, self.schedule, self.scaler, self.autocast)
        return self.zero_grad and not self.zero_grad_late and all(part is None for part in (*odd, self.clip))

    def make_optimizer(self) -> torch.optim.Optimizer:
        if self.optimizer is not None:
            return self.optimizer(self.network)
        rest = {"momentum": self.momentum, "weight_decay": self.l2}
        return torch.optim.SGD(self.network.parameters(), self.learning_rate, **rest)

    def loader(self) -> Any:
        """The data as `cnnlab.Run` takes them."""
        if self.batch is None:
            return self.x, self.y
        return DataLoader(TensorDataset(self.x, self.y), batch_size=self.batch)

    def take_batch(self, step: int) -> tuple[Any, Tensor]:
        """The examples of an update, counted from 0."""
        if self.batch is None:
            return self.x, self.y
        count = -(-len(self.y) // self.batch)
        part = slice(step % count * self.batch, (step % count + 1) * self.batch)
        return self.x[part], self.y[part]


@dataclass(frozen=True)
class PostedCase:
    """A failure that somebody posted, and the right answer."""

    name: str
    source: str
    """Where it was posted."""
    kind: str
    build: Callable[[], Parts]
    right: tuple[str, ...]
    """Words of which the first cause, its evidence or its chain must hold one."""
    allowed: tuple[str, ...] = ()
    """Those of CAUSES that are right as the first cause."""
    place: str | None = None
    """A layer, or "cost", "inputs" or "targets"; None: no place."""
    operation: tuple[str, ...] = ()
    """Names of the operation, any of which must be said; none: no operation is at fault."""
    symptom: str = NAN
    updates: int = 12
    floor: float = 0.9
    """Where nothing is learnt: the cost never goes below so many times the first one."""
    found: str = ""
    """When: as "found anew", once the causes had been built, or "found last", once they had been mended; '': before."""

    @property
    def wrong(self) -> tuple[str, ...]:
        """Words that the first cause must not hold."""
        return tuple(word for word in CAUSES if word not in self.allowed)

    @property
    def is_report(self) -> bool:
        """Whether it was found in public, rather than named in the issue."""
        return not self.name.startswith("kind: ")

    @property
    def half(self) -> str:
        """Its half, by a rule that nobody chooses: the hash of its name. Those of the issue have been seen."""
        if self.found:
            return self.found
        odd = hashlib.sha256(self.name.encode()).digest()[0] % 2
        return "kept apart" if self.is_report and odd else "seen"


@dataclass
class Seen:
    """What a plain loop shows."""

    costs: list[float] = field(default_factory=list)
    finite: bool = True
    """Whether every weight was finite after every update."""
    error: BaseException | None = None

    def shows(self, case: PostedCase) -> bool:
        """Whether the symptom of a case was seen."""
        all_finite = self.finite and all(abs(cost) < float("inf") for cost in self.costs)
        if case.symptom == NAN:
            return not all_finite
        if case.symptom == RAISES:
            return self.error is not None
        if case.symptom == UNBOUNDED:
            return min(cost for cost in self.costs if abs(cost) < float("inf")) < -100
        return all_finite and min(self.costs) >= case.floor * self.costs[0]


def train(parts: Parts, optimizer: torch.optim.Optimizer, scaler: Any, updates: int) -> Iterator[float]:
    """A loop as a tutorial has it; the cost of each update."""
    schedule = parts.schedule(optimizer) if parts.schedule is not None else None
    for step in range(updates):
        x, y = parts.take_batch(step)
        if parts.zero_grad:
            optimizer.zero_grad()
        with torch.autocast("cpu", parts.autocast) if parts.autocast else contextlib.nullcontext():
            loss = parts.cost(parts.network(*x) if isinstance(x, tuple) else parts.network(x), y)
        if scaler is None:
            loss.backward()
            if parts.zero_grad_late:
                optimizer.zero_grad()
            if parts.clip is not None:
                nn.utils.clip_grad_norm_(parts.network.parameters(), parts.clip)
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            if parts.clip is not None:
                nn.utils.clip_grad_norm_(parts.network.parameters(), parts.clip)
            scaler.step(optimizer)
            scaler.update()
        if schedule is not None:
            schedule.step()
        yield float(loss.detach())


def watch_plainly(case: PostedCase) -> Seen:
    """Train a case in plain PyTorch."""
    parts, seen = case.build(), Seen()
    scaler = parts.scaler() if parts.scaler is not None else None
    try:
        for cost in train(parts, parts.make_optimizer(), scaler, case.updates):
            seen.costs.append(cost)
            seen.finite &= all(bool(weight.isfinite().all()) for weight in parts.network.parameters())
    except (RuntimeError, IndexError, ValueError) as error:
        seen.error = error
    return seen
