"""Roots, angles, powers and deviations where they have no finite value or slope."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posted.case import GITHUB, Parts
from posted.networks import Named, Pair, ce, clamp, linear, mse, normal, seeded
from posted.operations import DIV, POW, SQRT, STD, P, undefined

# Roots.


def pairs(cost: Callable[[tuple[Tensor, Tensor], Tensor], Tensor], same: int = 13, until: int = 14) -> Parts:
    """Pairs of examples in batches of 4, of which one or more are the same twice."""
    x = normal(24, 2, 4)
    x[same:until, 1] = x[same:until, 0]
    return Parts(Pair(), x, torch.ones(24), cost, batch=4)


def contrast(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
    return ((out[0] - out[1]).pow(2).sum(1).sqrt() - y).square().mean()


def edges() -> Parts:
    """The length of an image's gradient, where one image is flat."""
    images = normal(12, 1, 6, 6)
    images[9] = 0.5

    def cost(out: Tensor, y: Tensor) -> Tensor:
        across, down = out.diff(dim=-1)[..., :-1, :], out.diff(dim=-2)[..., :-1]
        return ((across**2 + down**2).sqrt() - y).abs().mean()

    network = seeded(lambda: nn.Sequential(nn.Conv2d(1, 1, 1)))
    return Parts(network, images, torch.ones(12, 1, 5, 5), cost, batch=4)


def perfect() -> Parts:
    """The root of a mean square error that is exactly 0 in the last batch, whose examples are all 0."""
    x, y = normal(12, 2), torch.ones(12, 1)
    x[8:], y[8:] = 0, 0
    network = seeded(lambda: nn.Sequential(nn.Linear(2, 1, bias=False)))
    return Parts(network, x, y, lambda out, y: mse(out, y).sqrt(), batch=4)


# Angles.


def turned(out: tuple[Tensor, Tensor], _: Tensor) -> Tensor:
    return torch.acos(clamp(F.cosine_similarity(*out), -1, 1)).mean()


def trace() -> Parts:
    """The angle of a rotation from its trace, where one is no rotation at all."""
    angles = torch.linspace(0.3, 2.5, 12)[:, None]
    angles[5] = 0
    network = linear(1, 1)
    nn.init.ones_(network[0].weight), nn.init.zeros_(network[0].bias)
    return Parts(network, angles, angles, lambda out, y: (torch.acos(out.cos()) - y).abs().mean(), learning_rate=1e-3)


def sphere() -> Parts:
    """Geodesic distances on a sphere; the points are normalised, and one is the other's image."""
    x = normal(12, 3)
    x[7] = torch.tensor([0.0, 0.0, 2.0])

    class Points(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Linear(3, 3, bias=False)
            nn.init.eye_(self.scale.weight)

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(self.scale(x), dim=1)

    def cost(out: Tensor, y: Tensor) -> Tensor:
        return torch.acos(clamp(out[:, 2], -1, 1)).mean()

    return Parts(Points(), x, torch.zeros(12), cost, learning_rate=1e-3)


def polar() -> Parts:
    """An angle by hand, from the quotient of its two coordinates, where both are 0."""
    x = normal(16, 2)
    x[10] = 0
    network = seeded(lambda: nn.Sequential(nn.Linear(2, 2, bias=False)))
    cost = lambda out, y: (torch.atan(out[:, 1] / out[:, 0]) - y).square().mean()  # noqa: E731
    return Parts(network, x, torch.zeros(16), cost, batch=4, learning_rate=1e-3)


def phase() -> Parts:
    """The angle of a complex number so small that its square is 0."""
    x = normal(16, 2)
    x[10] = torch.tensor([5e-24, 1e-23])
    network = seeded(lambda: nn.Sequential(nn.Linear(2, 2, bias=False)))
    cost = lambda out, y: (torch.complex(out[:, 0], out[:, 1]).angle() - y).square().mean()  # noqa: E731
    return Parts(network, x, torch.zeros(16), cost, batch=4, learning_rate=1e-3)


def squashed() -> Parts:
    """Actions that a tanh has squashed to exactly 1, unsquashed again."""
    x = normal(12, 4)
    x[8] = 200
    cost = lambda out, y: (torch.atanh(torch.tanh(out)) - y).square().mean()  # noqa: E731
    return Parts(linear(4, 1), x, torch.zeros(12, 1), cost, batch=4, learning_rate=1e-4)


def hyperboloid() -> Parts:
    """The distance of points from the origin of a hyperboloid, one of which is the origin."""
    x = normal(12, 2)
    x[4] = 0

    def cost(out: Tensor, y: Tensor) -> Tensor:
        return torch.acosh(clamp((1 + out.square().sum(1)).sqrt(), low=1)).mean()

    network = seeded(lambda: nn.Sequential(nn.Linear(2, 2, bias=False)))
    return Parts(network, x, torch.zeros(12), cost, learning_rate=1e-3)


# Powers.


def similarity() -> Parts:
    """Similarities that are clamped at 0 and then raised to powers below 1."""
    x = normal(16, 4)
    x[10] = 0
    cost = lambda out, y: 1 - (clamp(out, low=0) ** 0.3 * y).mean()  # noqa: E731
    network = seeded(lambda: nn.Sequential(nn.Linear(4, 1, bias=False)))
    return Parts(network, x, torch.ones(16, 1), cost, batch=4, learning_rate=1e-3)


def opposed() -> Parts:
    """A structural similarity that is negative, raised to a power below 1."""
    x = normal(16, 4).abs()
    x[10] *= -1
    network = linear(4, 1)
    nn.init.constant_(network[0].weight, 0.2), nn.init.zeros_(network[0].bias)
    cost = lambda out, y: 1 - (out**0.3 * y).mean()  # noqa: E731
    return Parts(network, x, torch.ones(16, 1), cost, batch=4, learning_rate=1e-4)


def focal() -> Parts:
    """A focal cost with an exponent of a half, where an answer is certain and right."""
    x = normal(16, 2)
    x[11] = torch.tensor([300.0, 0.0])
    network = linear(2, 1)
    nn.init.ones_(network[0].weight)

    def cost(out: Tensor, y: Tensor) -> Tensor:
        p = out.sigmoid()
        return -((1 - p) ** 0.5 * y * (p + 1e-8).log() + p**0.5 * (1 - y) * (1 - p + 1e-8).log()).mean()

    return Parts(network, x, torch.ones(16, 1), cost, batch=4, learning_rate=1e-4)


# Deviations.


def constant_feature() -> Parts:
    """The deviation of a unit over the batch, where the unit is the same for all."""
    x = normal(12, 4)
    x[4:8] = 1.0
    cost = lambda out, y: (1 - out.var(0, correction=0).sqrt()).square().mean()  # noqa: E731
    return Parts(linear(4, 3), x, torch.zeros(12), cost, batch=4, learning_rate=1e-3)


def last_batch_of_one() -> Parts:
    """The deviation over a batch, of which the last one holds one example."""
    cost = lambda out, y: (1 - out.std(0)).square().mean()  # noqa: E731
    return Parts(linear(4, 3), normal(9, 4), torch.zeros(9), cost, batch=4, learning_rate=1e-3)


def small_map() -> Parts:
    """A norm over each channel's map, which is a single number after pooling."""

    class Instance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.conv(x)
            h = h / (h.var((2, 3), keepdim=True) + 1e-5).sqrt()
            return self.head(h.mean((2, 3)))

    return Parts(seeded(Instance), normal(6, 1, 3, 3), torch.arange(6) % 2, ce)


def norm_by_hand() -> Parts:
    """A batch norm by hand, on a last batch of one."""

    def between(h: Tensor) -> Tensor:
        return (h - h.mean(0)) / (h.std(0) + 1e-5)

    return Parts(Named(between), normal(13, 4), torch.ones(13, 1), mse, batch=4)


def epsilon_outside() -> Parts:
    """A layer norm by hand whose epsilon stands outside the root, where one example is the same in all its units."""
    x = normal(12, 4)
    x[9] = 0

    def between(h: Tensor) -> Tensor:
        centred = h - h.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True).sqrt() + 1e-5)

    network = Named(between)
    nn.init.zeros_(network.embed.bias)
    return Parts(network, x, torch.ones(12, 1), mse, batch=12)


CASES = (
    undefined("distance of equal samples", f"{GITHUB}adambielski/siamese-triplet/issues/18", "sqrt at 0",
              lambda: pairs(contrast), SQRT),
    undefined("edges of a flat image", f"{GITHUB}photosynthesis-team/piq/issues/308", "sqrt at 0", edges,
              SQRT),
    undefined("root of a perfect fit", "https://discuss.pytorch.org/t/function-mselossbackward-returned-nan-values-in-its-0th-output/94875",
              "sqrt at 0", perfect, SQRT),
    undefined("angle of equal directions", f"{GITHUB}banctilrobitaille/torch-vectorized/issues/7", "acos at the border",
              lambda: pairs(turned, 8, 16), "acos"),
    undefined("angle of no rotation", f"{P}issues/4605", "acos at the border", trace, "acos"),
    undefined("points on a sphere", f"{GITHUB}geoopt/geoopt/pull/79", "acos at the border", sphere, "acos"),
    undefined("phase of next to nothing", f"{P}issues/98276", "angle at 0", phase, "angle"),
    undefined("angle from a quotient", f"{GITHUB}tensorflow/tensorflow/issues/6095", "angle at 0", polar, DIV),
    undefined("squashed actions", f"{GITHUB}rlworkgroup/garage/pull/2129", "atanh at the border", squashed, "atanh"),
    undefined("origin of a hyperboloid", f"{GITHUB}geoopt/geoopt/pull/121", "acosh at the border", hyperboloid,
              "acosh"),
    undefined("powers of a clamped similarity", f"{GITHUB}One-sixth/ms_ssim_pytorch/issues/3", "power below 1",
              similarity, POW),
    undefined("power of a negative similarity", f"{GITHUB}VainF/pytorch-msssim/issues/7", "power below 1", opposed,
              POW),
    undefined("focal cost of a certain answer", f"{GITHUB}kornia/kornia/issues/918", "power below 1", focal, POW),
    undefined("deviation of a constant", f"{GITHUB}tensorflow/tensorflow/issues/56830", "slope of a deviation at 0",
              constant_feature, SQRT),
    undefined("epsilon outside the root", f"{GITHUB}pyg-team/pytorch_geometric/pull/2917", "slope of a deviation at 0",
              epsilon_outside, SQRT, "embed"),
    undefined("deviation of a single example", f"{P}issues/29372", "variance of one value", last_batch_of_one,
              STD),
    undefined("norm of a map of one pixel", f"{GITHUB}digantamisra98/EvoNorm/pull/5", "variance of one value",
              small_map, "var|variance", "conv"),
    undefined("batch norm by hand of one example", f"{GITHUB}karpathy/makemore/issues/22", "variance of one value",
              norm_by_hand, STD, "embed"),
)  # fmt: skip
