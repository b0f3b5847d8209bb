"""Training loops of one's own, for tests of what watches them."""

from __future__ import annotations

import torch
from torch import nn

X = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3
ce = nn.functional.cross_entropy


def mlp() -> nn.Sequential:
    """The same small network each time."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def update(model: nn.Module, optimizer: torch.optim.Optimizer, scale: float = 1.0) -> float:
    """One update of a tutorial's loop; its cost."""
    optimizer.zero_grad()
    loss = ce(model(X), Y) * scale
    loss.backward()
    optimizer.step()
    return loss.item()


def one_for_each(model: nn.Sequential, rate: float = 0.1) -> list[torch.optim.Optimizer]:
    """An optimiser for each of the two layers."""
    return [torch.optim.SGD(model[place].parameters(), rate) for place in (0, 2)]


class SlopeByHand(torch.autograd.Function):
    """A root whose slope has no care for 0."""

    @staticmethod
    def forward(ctx, h):
        ctx.save_for_backward(h)
        return h.abs().sqrt()

    @staticmethod
    def backward(ctx, slope):
        (h,) = ctx.saved_tensors
        return slope / (2 * h.abs().sqrt())
