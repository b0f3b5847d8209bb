"""The smallest input of each kind of failure at which the autopsy was found wanting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from posted.case import GITHUB, RAISES, SMALLEST, STUCK, UNBOUNDED, UNDEFINED, Parts, PostedCase
from posted.networks import ce, linear, mse, normal, seeded
from posted.operations import DIV, POW, STD, P
from posted.silent import SHAPES, SKIPPED, TWICE, UNMOVED, broadcast, cut_by, network_replaced, sigmoids, skipped
from posted.silent import softmax_twice as twice
from posted.steps import ADDING_UP, MINIMUM, RECURRENT, adding_up, recurrent


def kind(
    name: str, build: Callable[[], Parts], right: tuple[str, ...], source: str = SMALLEST, **rest: Any
) -> PostedCase:
    return PostedCase(f"kind: {name}", source, name, build, right, **rest)


def operation(name: str, cost: Callable[[Tensor, Tensor], Tensor], said: str, source: str = SMALLEST) -> PostedCase:
    """An operation within the cost of a network that hands its inputs on, at the one argument that matters."""
    return kind(name, lambda: one(cost), UNDEFINED, source, allowed=("undefined operation",), place="cost",
                operation=tuple(said.split("|")))  # fmt: skip


def one(cost: Callable[[Tensor, Tensor], Tensor], x: Tensor | None = None) -> Parts:
    """A network that hands its input of 1 on, and a cost."""
    network = linear(1, 1)
    nn.init.ones_(network[0].weight), nn.init.zeros_(network[0].bias)
    x = torch.ones(2, 1) if x is None else x
    return Parts(network, x, torch.ones_like(x), cost, learning_rate=1e-6)


def given(y: list[float]) -> Callable[[], Parts]:
    def build() -> Parts:
        network = seeded(lambda: nn.Linear(1, 1))
        return Parts(network, torch.ones(2, 1), torch.tensor(y)[:, None], mse)

    return build


class Buffered(nn.Module):
    """A layer whose output is scaled by a buffer that holds NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.register_buffer("scale", torch.tensor([math.nan]))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale


def buffered() -> Parts:
    return Parts(seeded(Buffered), torch.ones(2, 2), torch.ones(2, 1), mse)


def late_root() -> Parts:
    """Costs of about 0.01 and a rate of 1e-6, and a root at 0 in the eighth batch."""
    x = torch.full((32, 1), 0.01)
    x[30] = 0
    network = seeded(lambda: nn.Sequential(nn.Linear(1, 1, bias=False)))
    nn.init.ones_(network[0].weight)
    cost = lambda out, y: out.square().sqrt().mean()  # noqa: E731
    return Parts(network, x, torch.zeros(32, 1), cost, batch=4, learning_rate=1e-6)


def noisy_root() -> Parts:
    """The same among batches whose costs differ by factors of 3."""
    x = (normal(48, 1).abs() + 0.1) * torch.tensor([1.0, 5.0, 0.3] * 4).repeat_interleave(4)[:, None]
    x[46] = 0
    network = seeded(lambda: nn.Sequential(nn.Linear(1, 1, bias=False)))
    nn.init.ones_(network[0].weight)
    cost = lambda out, y: out.square().sqrt().mean()  # noqa: E731
    return Parts(network, x, torch.zeros(48, 1), cost, batch=4, learning_rate=1e-6)


def deviation(of: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda out, y: of(out[:1]) + out.mean()


def matrix(out: Tensor, y: Tensor) -> Tensor:
    return torch.logdet(out[:, 0].mean() * torch.tensor([[1.0, 1.0], [1.0, 1.0]]))


def masked_row(out: Tensor, y: Tensor) -> Tensor:
    return out.masked_fill(torch.ones(1, 1, dtype=torch.bool), -math.inf).softmax(1).mean()


def far_target() -> Parts:
    """One target of 1e25 among 256."""
    y = normal(256, 1)
    y[77] = 1e25
    return Parts(linear(4, 1), normal(256, 4), y, mse, learning_rate=0.01)


def far_input() -> Parts:
    """One input of 1e4 among 256."""
    x = normal(256, 4)
    x[77] = 1e4
    return Parts(linear(4, 1), x, normal(256, 1, seed=1), mse, learning_rate=0.01)


def millions() -> Parts:
    """Targets near 1e6, and a cost of fourth powers."""
    y = 1e6 * (1 + 0.1 * normal(32, 1, seed=1))
    return Parts(seeded(lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))), normal(32, 4), y, mse,
                 learning_rate=0.05)  # fmt: skip


def wrong_label() -> Parts:
    """A label of 7 where there are 2 classes, in the third batch."""
    y = torch.arange(12) % 2
    y[9] = 7
    return Parts(linear(4, 2), normal(12, 4), y, ce, batch=4)


def singular() -> Parts:
    """A network that solves with its own output, which is singular for one batch."""

    class Solves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.solve(self.layer(x), torch.ones(2, 1))

    x = normal(8, 2)
    x[4:6] = 0
    return Parts(seeded(Solves), x, torch.ones(8, 1), mse, batch=2, learning_rate=1e-3)


def certain() -> Parts:
    """A softmax and its log apart, of logits 200 apart."""
    network = seeded(lambda: nn.Sequential(nn.Linear(2, 2, bias=False)))
    nn.init.eye_(network[0].weight)
    cost = lambda out, y: -out.softmax(1).gather(1, y[:, None]).log().mean()  # noqa: E731
    return Parts(network, torch.tensor([[200.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 1]), cost, learning_rate=1e-3)


def raw_logits() -> Parts:
    """The log of raw logits, which are below 0."""
    cost = lambda out, y: -(y * out.log()).mean()  # noqa: E731
    return one(cost, -torch.ones(2, 1))


def beyond_one() -> Parts:
    """Binary cross-entropy on targets of 3."""
    network = linear(1, 1)
    cost = nn.functional.binary_cross_entropy_with_logits
    return Parts(network, torch.ones(2, 1), torch.full((2, 1), 3.0), cost, learning_rate=3.0)


ALLOWED = ("undefined operation",)
CASES = (
    kind("NaN in the targets", given([1.0, math.nan]), ("target",), allowed=("data hold",), place="targets"),
    kind("inf in the targets", given([1.0, math.inf]), ("target",), allowed=("data hold",), place="targets"),
    kind("NaN in a buffer", buffered, ("buffer", "scale"), f"{P}issues/1206", allowed=("data hold",)),
    kind("a constant of NaN in the cost", lambda: one(lambda out, y: (out - torch.tensor([math.nan])).square().mean()),
         ("constant",), allowed=("data hold",), place="cost"),
    kind("cost times NaN", lambda: one(lambda out, y: out.square().mean() * math.nan), ("constant",),
         allowed=("data hold",), place="cost"),
    kind("nanmean of nothing", lambda: Parts(linear(1, 1), torch.ones(2, 1), torch.full((2, 1), math.nan),
                                             lambda out, y: (out - y).square().nanmean()), ("target",),
         allowed=("data hold", *ALLOWED), place="targets"),
    kind("root at 0 after calm updates", late_root, UNDEFINED, f"{P}issues/2421", allowed=ALLOWED, place="cost",
         operation=("sqrt", "square root")),
    kind("root at 0 among noisy batches", noisy_root, UNDEFINED, allowed=ALLOWED, place="cost",
         operation=("sqrt", "square root"), updates=16),
    kind("recurrent ReLU of 100 steps", recurrent(100, 1.0, 1e-4), RECURRENT,
         allowed=("initial weights",), place="state"),
    kind("missing zero_grad", adding_up, ADDING_UP,
         "https://stackoverflow.com/questions/48001598/why-do-we-need-to-call-zero-grad-in-pytorch", updates=120),
    kind("cross-entropy of targets beyond 1", beyond_one, MINIMUM, f"{GITHUB}milesial/Pytorch-UNet/issues/65",
         place="targets", symptom=UNBOUNDED, updates=60),
    operation("variance of one value", deviation(torch.var), "var|variance", f"{P}issues/29372"),
    operation("deviation of one value", deviation(torch.std), STD, f"{P}issues/29372"),
    operation("slope of a power below 1 at 0", lambda out, y: (out - 1).abs().pow(0.3).mean(), POW),
    operation("0 to the power of -1", lambda out, y: ((out - 1) ** -1).mean(), f"{POW}|reciprocal"),
    operation("acos of 2", lambda out, y: torch.acos(2 * out).mean(), "acos", f"{P}issues/61810"),
    operation("acosh of a half", lambda out, y: torch.acosh(out / 2).mean(), "acosh"),
    operation("atanh of 1", lambda out, y: torch.atanh(out).mean(), "atanh"),
    operation("remainder of a division by 0", lambda out, y: torch.fmod(out, y - 1).mean(), "fmod", f"{P}pull/42668"),
    operation("logdet of a singular matrix", matrix, "logdet|det"),
    operation("softmax of -inf alone", masked_row, "softmax", f"{P}issues/41508"),
    operation("0 over 0 in a normalisation", lambda out, y: ((out - 1) / (out - 1).abs().sum()).mean(), DIV),
    kind("exp of more than 88", lambda: one(lambda out, y: (100 * out).exp().mean()), ("exp",), place="cost",
         operation=("exp",), allowed=(*ALLOWED, "overflow of the precision")),
    kind("saturated log of 0", certain, ("log(0)", "log of 0"), allowed=("saturation", *ALLOWED), place="cost"),
    kind("log of raw logits", raw_logits, UNDEFINED, allowed=ALLOWED, place="cost", operation=("log",)),
    kind("optimiser of another model", network_replaced, (*UNMOVED, "optimiser", "optimizer"),
         symptom=STUCK, updates=20),
    kind("graph cut", cut_by(lambda h: h, lambda out, y: 0 * out.sum() + float(ce(out.detach(), y))), (*UNMOVED, "cut"),
         symptom=STUCK, updates=20),
    kind("every step skipped", skipped(65536.0), SKIPPED, symptom=STUCK, updates=20),
    kind("ten sigmoids", sigmoids(10, 0.1, 24), ("vanishing", "next to no gradient"), allowed=("vanishing",),
         symptom=STUCK, updates=40),
    kind("softmax before cross-entropy", twice(6, 0.5), TWICE, symptom=STUCK, updates=60, floor=0.6),
    kind("(N, 1) against (N)", broadcast(mse), SHAPES, symptom=STUCK, updates=60),
    kind("one target of 1e25", far_target, ("target", "1e25", "example"), place="targets"),
    kind("one input of 1e4", far_input, ("outlier", "example"), place="inputs",
         allowed=("inputs not scaled", "learning rate"), updates=40),
    kind("targets near 1e6", millions, ("target",), place="targets", allowed=("learning rate",), updates=40),
    kind("a label beyond the classes", wrong_label, ("label", "class", "target"), f"{P}issues/21825", place="targets",
         symptom=RAISES),
    kind("an error within the forward pass", singular, ("singular", "solve"), symptom=RAISES),
)  # fmt: skip
