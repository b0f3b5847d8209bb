"""Small networks and numbers that the cases share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

mse, ce = F.mse_loss, F.cross_entropy


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return make()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Named(nn.Module):
    """A layer `embed`, what comes between, and a layer `head`."""

    def __init__(
        self, between: Callable[[Tensor], Tensor], inputs: int = 4, hidden: int = 4, outputs: int = 1, seed: int = 0
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.between, self.head = nn.Linear(inputs, hidden), between, nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.embed(x)))


class Pair(nn.Module):
    """One layer `embed` for two inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.embed(x[:, 0]), self.embed(x[:, 1])


def linear(inputs: int, outputs: int) -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(inputs, outputs)))


def hidden(inputs: int, outputs: int, width: int = 8) -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs)))


def clamp(x: Tensor, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """torch.clamp with the slope at its ends that it had when the failures were posted, 1; torch 2.14 has 0 there."""
    x = torch.where(x < low, low, x)
    return torch.where(x > high, high, x)
