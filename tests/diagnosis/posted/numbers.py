"""Bad data, precisions that end too soon and exponentials that overflow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posted.case import GITHUB, RAISES, Parts, PostedCase
from posted.networks import Named, ce, hidden, linear, mse, normal, seeded
from posted.operations import P

EXP = ("exp",)
HALF = ("float16", "precision", "half")


def data(
    name: str, source: str, kind: str, build: Callable[[], Parts], place: str, *right: str, **rest: Any
) -> PostedCase:
    """A case whose right answer is bad data."""
    rest = {"allowed": ("data hold",), **rest}
    return PostedCase(name, source, kind, build, right or (place.removesuffix("s"),), place=place, **rest)


# Data.


def constant_column() -> Parts:
    """Columns standardised by their deviation, of which one is constant."""
    x = normal(24, 4)
    x[:, 2] = 3
    x = (x - x.mean(0)) / x.std(0)
    return Parts(hidden(4, 1), x, torch.ones(24, 1), mse, batch=8)


def dry_fields() -> Parts:
    """Fields standardised one by one, of which one is 0 throughout, as rain may be."""
    x = normal(12, 1, 4, 4)
    x[9] = 0
    x = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)
    network = seeded(lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1)))
    return Parts(network, x, torch.ones(12, 1), mse, batch=4)


def flat_boxes() -> Parts:
    """Logs of widths as targets, where one box has no width."""
    widths = normal(24, 1).abs() + 0.1
    widths[17] = 0
    return Parts(hidden(4, 1), normal(24, 4), widths.log(), F.smooth_l1_loss, batch=8, learning_rate=1e-3)


def unknown_labels() -> Parts:
    """Targets that are NaN where nobody knows them, as a mask for the cost, which does not use it."""
    y = (normal(24, 3) > 0).float()
    y[10, 1] = math.nan
    cost = F.binary_cross_entropy_with_logits
    return Parts(hidden(4, 3), normal(24, 4), y, cost, batch=8)


def last_batch_without_labels() -> Parts:
    """Labels of the last batch are NaN for nodes that have none."""
    y = normal(20, 1, seed=1)
    y[16:] = math.nan
    return Parts(hidden(4, 1), normal(20, 4), y, mse, batch=4)


class Normed(nn.Module):
    """A layer, a batch norm that is not in training, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.norm.eval()
        return self.head(self.norm(self.embed(x)))


def broken_norm(value: float) -> Callable[[], Parts]:
    def build() -> Parts:
        network = seeded(Normed)
        network.norm.running_var[1] = value
        return Parts(network, normal(12, 4), torch.arange(12) % 2, ce)

    return build


def out_of_range() -> Parts:
    """Labels counted from 1 instead of 0."""
    return Parts(linear(4, 3), normal(12, 4), torch.arange(12) % 3 + 1, ce)


def house_prices() -> Parts:
    """Prices as targets, squared, at a rate that suits targets near 1."""
    y = 180_000 + 80_000 * normal(48, 1, seed=1)
    return Parts(hidden(4, 1, 16), normal(48, 4), y, mse, learning_rate=0.1, batch=16)


def not_definite() -> Parts:
    """A Cholesky factor of a matrix that training makes indefinite."""
    network = seeded(lambda: nn.Sequential(nn.Linear(2, 2, bias=False)))
    nn.init.eye_(network[0].weight)

    def cost(out: Tensor, y: Tensor) -> Tensor:
        return torch.linalg.cholesky((out + out.T) / 2).sum()

    return Parts(network, torch.eye(2), torch.zeros(2), cost, learning_rate=0.2)


# Exponentials.


def softplus_by_hand() -> Parts:
    """log(1 + exp(x)) of a logit beyond 88."""
    x = normal(16, 4)
    x[13] = 60.0
    network = linear(4, 1)
    nn.init.constant_(network[0].weight, 0.5)
    cost = lambda out, y: (torch.log(1 + torch.exp(out)) - y * out).mean()  # noqa: E731
    return Parts(network, x, torch.zeros(16, 1), cost, batch=4, learning_rate=1e-4)


def softmax_by_hand() -> Parts:
    """exp(x) over its sum, of logits up to 378."""
    x = normal(16, 4)
    x[9] = 378.0
    network = linear(4, 3)
    nn.init.eye_(network[0].weight)

    def cost(out: Tensor, y: Tensor) -> Tensor:
        p = out.exp() / out.exp().sum(1, keepdim=True)
        return -(p.gather(1, y[:, None]) + 1e-9).log().mean()

    return Parts(network, x, torch.arange(16) % 3, cost, batch=4, learning_rate=1e-4)


def policy_ratio() -> Parts:
    """The ratio of two policies, of which the old one never took the action."""
    x = normal(16, 4)
    old = torch.zeros(16)
    old[14] = -95.0

    def cost(out: Tensor, old: Tensor) -> Tensor:
        ratio = (out.log_softmax(1)[:, 0] - old).exp()
        return -torch.min(ratio, ratio.clamp(0.8, 1.2)).mean() + 1e-3 * (ratio - 1).square().mean()

    return Parts(hidden(4, 3), x, old, cost, batch=4, learning_rate=1e-3)


def clamped_too_late() -> Parts:
    """An exponential that is clamped after it has overflowed, so that its slope is 0 times inf."""
    x = normal(16, 4)
    x[13] = 60.0
    network = linear(4, 1)
    nn.init.constant_(network[0].weight, 0.5)
    cost = lambda out, y: (out - torch.log(1 + out.exp().clamp(max=1e8)) - y).square().mean()  # noqa: E731
    return Parts(network, x, torch.zeros(16, 1), cost, batch=4, learning_rate=1e-6)


def raw_series() -> Parts:
    """A time series in its own units, at a rate of 1e-6 with momentum."""
    x = 900 + 300 * normal(48, 20)
    network = hidden(20, 1, 16)
    network[1] = nn.LeakyReLU(0.2)
    return Parts(network, x, x.mean(1, keepdim=True), mse, learning_rate=1e-5, momentum=0.9, batch=16)


def spread_of_weights() -> Parts:
    """exp(-logit) of a factorisation machine whose weights start far too large."""
    network = hidden(8, 1, 32)
    for layer in (network[0], network[2]):
        nn.init.normal_(layer.weight, std=40)
    cost = lambda out, y: torch.log(1 + torch.exp(-y * out)).mean()  # noqa: E731
    return Parts(network, normal(16, 8), (torch.arange(16) % 2 * 2.0 - 1)[:, None], cost, learning_rate=1e-5)


# Half precision.


def masked_in_half() -> Parts:
    """A mask of -1e10 in float16, added as in score * b - 1e10 * (1 - b)."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor, keep: Tensor) -> Tensor:
            scores = self.query(x) @ x.transpose(1, 2)
            large = torch.tensor(1e10).to(scores.dtype)
            scores = scores * keep[:, None] - large * (1 - keep[:, None])
            return self.head((scores.softmax(-1) @ x).mean(1))

    keep = torch.ones(6, 5).half()
    keep[:, 3:] = 0
    data = normal(6, 5, 4).half(), keep
    cost = lambda out, y: ce(out.float(), y)  # noqa: E731
    return Parts(seeded(Masked).half(), data, torch.arange(6) % 2, cost)


def square_in_half() -> Parts:
    """A group norm by hand in float16: the mean of squares, less the square of the mean."""

    def between(h: Tensor) -> Tensor:
        variance = (h * h).mean(1, keepdim=True) - h.mean(1, keepdim=True) ** 2
        return (h - h.mean(1, keepdim=True)) * (variance + 1e-3).rsqrt()

    network = Named(between, outputs=2).half()
    x = (normal(12, 4) * 300 + 1500).half()
    x[:8] *= 0.1
    cost = lambda out, y: ce(out.float(), y)  # noqa: E731
    return Parts(network, x, torch.arange(12) % 2, cost, batch=4, learning_rate=1e-3)


def adam_in_half() -> Parts:
    """Adam with its epsilon of 1e-8, which is 0 in float16, and a unit that is never used."""
    x = normal(16, 6).half()
    x[:, 4] = 0
    network = seeded(lambda: nn.Sequential(nn.Linear(6, 3))).half()
    cost = lambda out, y: ce(out.float(), y)  # noqa: E731
    adam = lambda network: torch.optim.Adam(network.parameters(), lr=1e-3)  # noqa: E731
    return Parts(network, x, torch.arange(16) % 3, cost, optimizer=adam)


def adam_with_small_gradients() -> Parts:
    """The same, where all gradients are so small that their squares are 0 in float16."""
    network = seeded(lambda: nn.Sequential(nn.Linear(6, 3))).half()
    cost = lambda out, y: ce(out.float(), y) * 1e-3  # noqa: E731
    adam = lambda network: torch.optim.Adam(network.parameters(), lr=1e-3)  # noqa: E731
    return Parts(network, normal(16, 6).half(), torch.arange(16) % 3, cost, optimizer=adam)


def sum_in_half() -> Parts:
    """A denominator that counts more than 65504 elements in float16."""

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.embed(x) * 300

    cost = lambda out, y: (out - y).square().mean()  # noqa: E731
    return Parts(seeded(Mean).half(), normal(24, 4).half(), torch.zeros(24, 4).half(), cost)


OVERFLOWS = ("undefined operation", "overflow of the precision")
CASES = (
    data("constant column standardised", f"{GITHUB}fastai/fastai/issues/889", "NaN in the inputs", constant_column,
         "inputs"),
    data("forecast field without spread", f"{GITHUB}mllam/neural-lam/issues/136", "NaN in the inputs",
         dry_fields, "inputs"),
    data("boxes of no width", f"{GITHUB}pytorch/vision/issues/3169", "inf in the targets",
         flat_boxes, "targets"),
    data("masks as NaN", f"{GITHUB}janelia-cellmap/cellmap-segmentation-challenge/issues/162", "NaN in the targets",
         unknown_labels, "targets"),
    data("nodes without a label", f"{GITHUB}pyg-team/pytorch_geometric/pull/8001", "NaN in the targets",
         last_batch_without_labels, "targets"),
    data("running variance NaN", f"{GITHUB}facebookresearch/SparseConvNet/issues/190", "NaN in a buffer",
         broken_norm(math.nan), "norm", "buffer", "running_var"),
    data("running variance below zero", f"{P}issues/106605", "buffer out of range", broken_norm(-1.0), "norm",
         "buffer", "running_var", "root of a negative", allowed=("data hold", "undefined operation")),
    data("labels from one", f"{P}issues/18014", "label out of range", out_of_range, "targets", "label", "class",
         "target", symptom=RAISES),
    PostedCase("house prices", f"{GITHUB}rstudio-conf-2020/dl-keras-tf/issues/9", "targets not scaled", house_prices,
               ("target",), ("learning rate",), "targets", updates=80),
    PostedCase("matrix no longer definite", f"{GITHUB}MCZhi/DIPP/issues/6", "error in the forward pass", not_definite,
               ("cholesky", "positive-definite"), (), None, ("cholesky",), RAISES),
    PostedCase("softplus by hand", f"{GITHUB}tracel-ai/burn/issues/5373", "exp overflow", softplus_by_hand, EXP,
               OVERFLOWS, "cost", EXP),
    PostedCase("softmax by hand", f"{GITHUB}uTensor/uTensor/issues/175", "exp overflow", softmax_by_hand, EXP,
               OVERFLOWS, "cost", EXP),
    PostedCase("ratio of two policies", f"{GITHUB}THUDM/slime/pull/2198", "exp overflow", policy_ratio, EXP,
               OVERFLOWS, "cost", EXP),
    PostedCase("exponential clamped too late", f"{GITHUB}megvii-model/YOLOF/issues/51", "clamp after an overflow",
               clamped_too_late, EXP, OVERFLOWS, "cost", EXP),
    PostedCase("series in its own units", f"{GITHUB}lmoroney/tfbook/issues/24", "inputs not scaled", raw_series,
               ("input",), ("inputs not scaled", "learning rate"), "inputs", updates=60),
    PostedCase("factors that start too large", f"{GITHUB}VinceShieh/spark-ffm/issues/12", "initial weights too large",
               spread_of_weights, ("initial", "started"), ("initial weights",)),
    PostedCase("mask of -1e10 in half", f"{GITHUB}huggingface/transformers/issues/382", "mask in float16",
               masked_in_half, HALF, ("overflow of the precision", "undefined operation"), "query"),
    PostedCase("variance by hand in half", f"{GITHUB}neuroneural/brainchop-cli/pull/56", "overflow of float16",
               square_in_half, HALF, ("overflow of the precision",), "embed"),
    PostedCase("error summed in half", f"{GITHUB}chelsea0x3b/dfdx/issues/748", "overflow of float16", sum_in_half,
               HALF, ("overflow of the precision",), "cost"),
    PostedCase("Adam in half", f"{P}issues/8860", "Adam's epsilon in float16", adam_in_half, ("eps",), ()),
    PostedCase("Adam in half with small gradients", f"{GITHUB}chainer/chainer/issues/6299",
               "Adam's epsilon in float16", adam_with_small_gradients, ("eps",), ()),
)  # fmt: skip
