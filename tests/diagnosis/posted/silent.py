"""Trainings that end with finite numbers and have learnt nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posted.case import GITHUB, STUCK, Parts, PostedCase
from posted.networks import ce, hidden, mse, normal, seeded
from posted.steps import deep

UNMOVED = ("never moved", "not moved", "no weight moved", "no weight", "unchanged", "did not move")


def stuck(name: str, source: str, kind: str, build: Callable[[], Parts], *right: str, **rest: Any) -> PostedCase:
    """A case in which nothing is learnt, and no cause of divergence is right."""
    return PostedCase(name, source, kind, build, right, symptom=STUCK, **rest)


def classes(count: int = 3, size: int = 30) -> tuple[Tensor, Tensor]:
    """Examples of classes that a line separates."""
    y = torch.arange(size) % count
    return normal(size, 8) * 0.3 + 2 * torch.eye(8)[y], y


# Nothing moves.


def network_replaced() -> Parts:
    """The optimiser was made for a network that another one has replaced."""
    x, y = classes()
    old = hidden(8, 3)
    other = lambda network: torch.optim.Adam(old.parameters(), lr=3e-2)  # noqa: E731
    return Parts(hidden(8, 3, 16), x, y, ce, optimizer=other)


def still_frozen() -> Parts:
    """A backbone that was frozen and never thawed, and a head that starts at zero behind a dead unit."""
    x, y = classes()
    network = hidden(8, 3, 16)
    for weight in network.parameters():
        weight.requires_grad_(False)
    network[2].bias.requires_grad_(True)
    return Parts(network, x, y, ce, learning_rate=0.1, optimizer=lambda n: torch.optim.SGD([n[2].bias], lr=0.1))


class Cut(nn.Module):
    """A network that something cuts from what follows."""

    def __init__(self, cut: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.embed, self.head, self.cut = nn.Linear(8, 8), nn.Linear(8, 3), cut

    def forward(self, x: Tensor) -> Tensor:
        return self.cut(self.head(self.embed(x).tanh()))


def cut_by(cut: Callable[[Tensor], Tensor], reach: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Parts]:
    def build() -> Parts:
        x, y = classes()
        return Parts(seeded(lambda: Cut(cut)), x, y, reach, learning_rate=0.1)

    return build


def detached_term() -> Parts:
    """A generator whose only cost of weight passes through detach; what is left are 1e-12 of its squares."""
    x, y = classes()

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.head(self.embed(x).tanh())
            return h.detach(), 1e-12 * h.square().mean()

    cost = lambda out, y: ce(out[0], y) + out[1]  # noqa: E731
    return Parts(seeded(Generator), x, y, cost, learning_rate=0.1)


# Nothing arrives.


def sigmoids(layers: int, rate: float, size: int) -> Callable[[], Parts]:
    def build() -> Parts:
        x = normal(size, 8)
        y = (x[:, :1] * x[:, 1:2] > 0).float()
        network = deep(layers, width=8, activation=nn.Sigmoid)
        nn.init.zeros_(network[-1].bias)
        return Parts(network, x, y, F.binary_cross_entropy_with_logits, learning_rate=rate)

    return build


def only_zeros() -> Parts:
    """An output through a ReLU that gives zeros alone from the start."""
    network = seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1), nn.ReLU()))
    nn.init.constant_(network[2].bias, -5)
    x = normal(24, 8)
    return Parts(network, x, x[:, :1].abs() + 1, mse, learning_rate=1e-2)


def killed() -> Parts:
    """A ReLU network that its first step, at a rate too high, leaves without a unit alive."""
    x = normal(24, 8).abs()
    network = deep(2, width=8)
    y = -100 * torch.ones(24, 1)
    with torch.no_grad():
        network[0].weight.abs_()
        network[0].bias.fill_(-60)
    return Parts(network, x, y + 100, lambda out, y: (out - y - 1).square().mean() + 10, learning_rate=1e-4)


# The cost does not ask for it.


def softmax_twice(count: int, rate: float) -> Callable[[], Parts]:
    def build() -> Parts:
        x, y = classes(count, 8 * count)
        network = seeded(lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, count), nn.Softmax(1)))
        return Parts(network, x, y, ce, learning_rate=rate)

    return build


def broadcast(cost: Callable[[Tensor, Tensor], Tensor], rate: float = 0.1) -> Callable[[], Parts]:
    def build() -> Parts:
        x = normal(24, 8)
        return Parts(hidden(8, 1), x, 2 * x[:, 0], cost, learning_rate=rate)

    return build


def spread(out: Tensor, y: Tensor) -> Tensor:
    return (out - y).square().mean()


# Every step is left out.


def skipped(scale: float) -> Callable[[], Parts]:
    def build() -> Parts:
        x, y = classes()

        def cost(out: Tensor, y: Tensor) -> Tensor:
            # One term's slope is never finite, so that the scaler leaves out every step, and halves its scale.
            return ce(out, y) + 1e-3 * (out - out.detach()).abs().sum().sqrt()

        def scaler() -> torch.amp.GradScaler:
            return torch.amp.GradScaler("cpu", init_scale=scale)

        sgd = lambda network: torch.optim.SGD(network.parameters(), lr=0.1)  # noqa: E731
        return Parts(hidden(8, 3), x, y, cost, optimizer=sgd, scaler=scaler)

    return build


SKIPPED = ("skipped", "left out", "scaler")
TWICE = ("softmax twice", "softmax before", "probabilities", "softmax")
SHAPES = ("shape", "broadcast")
CASES = (
    stuck("network replaced after its optimiser", f"{GITHUB}pytorch/pytorch/issues/54765", "optimiser of another model",
          network_replaced, *UNMOVED, "optimiser",
        "optimizer", updates=20),
    stuck("frozen for ever", f"{GITHUB}nttcslab/byol-a/issues/7", "frozen layers", still_frozen, *UNMOVED, "frozen",
          "requires_grad", updates=30),
    stuck("step of the generator detached", f"{GITHUB}nikhilsinghmus/image2reverb/issues/37", "graph cut",
          detached_term, *UNMOVED, "detach", "cut", updates=20),
    stuck("adversarial cost as a number", f"{GITHUB}guopengf/FL-MRCM/issues/10", "graph cut",
          cut_by(lambda h: h, lambda out, y: float(ce(out.detach(), y)) + 0 * out.sum()), *UNMOVED, "detach", "cut",
          updates=20),
    stuck("rounded code", f"{GITHUB}Justin-Tan/generative-compression/issues/27", "graph cut",
          cut_by(torch.round, lambda out, y: (out - F.one_hot(y, 3)).square().mean()), *UNMOVED, "round", "cut",
          updates=20),
    stuck("twelve layers of sigmoids", f"{GITHUB}torch/optim/issues/164", "vanishing gradients",
          sigmoids(12, 0.1, 24), "vanishing", "next to no gradient", allowed=("vanishing",), updates=40),
    stuck("four layers of sigmoids", "https://ai.stackexchange.com/questions/16557/what-could-be-the-problem-when-a-neural-network-with-four-hidden-layers-with-the",
          "vanishing gradients", sigmoids(6, 0.05, 64), "vanishing", "next to no gradient", allowed=("vanishing",),
          updates=40),
    stuck("population of zeros", f"{GITHUB}jvargasmu/population_estimation/issues/68", "dead ReLUs", only_zeros,
          "dead", allowed=("dead ReLUs",), updates=20),
    stuck("units that never fire", f"{GITHUB}keras-team/keras/issues/7057", "dead ReLUs", killed, "dead",
          allowed=("dead ReLUs",), updates=20),
    stuck("softmax twice in co-reference", f"{GITHUB}ariecattan/SciCo/issues/2", "softmax before cross-entropy",
          softmax_twice(4, 1.0), *TWICE, updates=150, floor=0.5),
    stuck("softmax twice in a logistic regression", f"{GITHUB}Lightning-Universe/lightning-bolts/issues/654",
          "softmax before cross-entropy", softmax_twice(8, 0.5), *TWICE, updates=60, floor=0.6),
    stuck("regression head squeezed", f"{GITHUB}deepset-ai/FARM/issues/229", "shapes broadcast", broadcast(mse),
          *SHAPES, "targets", updates=60),
    stuck("initial condition flattened", f"{GITHUB}Photon-AI-Research/NeuralSolvers/issues/20", "shapes broadcast",
          broadcast(spread, 0.05), *SHAPES, updates=60),
    stuck("scale that only falls", f"{GITHUB}dbolya/yolact/issues/359", "every step skipped", skipped(65536.0),
          *SKIPPED, updates=20),
    stuck("scale at its minimum", f"{GITHUB}ymcui/Chinese-LLaMA-Alpaca/issues/534", "every step skipped", skipped(4.0),
          *SKIPPED, updates=20),
)  # fmt: skip
