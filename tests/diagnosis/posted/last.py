"""Reports that were found last, when the causes had been mended: their right answers stood before any was scored."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posted.case import GITHUB, UNBOUNDED, Parts, PostedCase
from posted.fresh import INFINITE, LOG_OF_0
from posted.networks import ce, clamp, hidden, linear, mse, normal, seeded
from posted.operations import DIV, POW, SQRT, P, undefined
from posted.silent import classes, stuck
from posted.steps import MINIMUM, RATE


def no_turn() -> Parts:
    """The logarithm of a quaternion that is no rotation: its vector times the acos of its scalar."""
    x = normal(12, 4)
    x[5] = torch.tensor([1.0, 0.0, 0.0, 0.0])

    def cost(out: Tensor, y: Tensor) -> Tensor:
        out = F.normalize(out)
        vector = out[:, 1:]
        length = vector.square().sum(1, keepdim=True).clamp(min=1e-8).sqrt()
        return (vector * torch.acos(clamp(out[:, :1], -1, 1)) / length - y).square().mean()

    network = seeded(lambda: nn.Sequential(nn.Linear(4, 4, bias=False)))
    nn.init.eye_(network[0].weight)
    return Parts(network, x, torch.zeros(12, 3), cost, learning_rate=1e-3)


def two_gammas() -> Parts:
    """A number between 0 and 1 as a share of two draws that are both 0."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(4, 1)

        def forward(self, x: Tensor, draws: Tensor) -> Tensor:
            one, other = draws[:, :1] ** (1 / 1.5), draws[:, 1:] ** 1.0
            time = one / (one + other)
            return self.embed(time * x + (1 - time) * torch.ones_like(x))

    draws = torch.rand(12, 2, generator=torch.Generator().manual_seed(0))
    draws[8] = 0
    return Parts(seeded(Mixed), (normal(12, 4), draws), torch.ones(12, 1), mse)


def border() -> Parts:
    """torch's own Beta distribution of an answer at its border."""
    y = torch.rand(16, generator=torch.Generator().manual_seed(0))
    y[9] = 0

    def cost(out: Tensor, y: Tensor) -> Tensor:
        a, b = (F.softplus(out) + 1).unbind(1)
        return -torch.distributions.Beta(a, b, validate_args=False).log_prob(y).mean()

    return Parts(linear(4, 2), normal(16, 4), y, cost, batch=4, learning_rate=1e-2)


def magnitude() -> Parts:
    """The square root of a spectrum's power, by a power of a half, where a window is silent."""
    x = normal(12, 16)
    x[7] = 0
    network = seeded(lambda: nn.Sequential(nn.Linear(16, 16, bias=False)))

    def cost(out: Tensor, y: Tensor) -> Tensor:
        spectrum = torch.view_as_real(torch.fft.rfft(out)).square().sum(-1) ** 0.5
        return (spectrum - y).abs().mean()

    return Parts(network, x, torch.ones(12, 9), cost, batch=4, learning_rate=1e-3)


def decibels() -> Parts:
    """The log of a spectrum's magnitude, where the target is silent."""
    y = normal(12, 16)
    y[7] = 0

    def cost(out: Tensor, y: Tensor) -> Tensor:
        ours, theirs = (torch.fft.rfft(part).abs() for part in (out, y))
        return (ours.log() - theirs.log()).abs().mean()

    return Parts(linear(16, 16), normal(12, 16), y, cost, batch=4, learning_rate=1e-3)


def never_unscaled() -> Parts:
    """A cost times 1024, as a scaler makes it, whose gradient nobody divides again."""
    x = normal(32, 8)
    return Parts(hidden(8, 1, 16), x, x[:, :1], lambda out, y: 1024 * mse(out, y), learning_rate=0.01)


def apart() -> Parts:
    """Distances to the centres of other classes, which are to be as large as can be."""
    x, y = classes()

    def cost(out: Tensor, y: Tensor) -> Tensor:
        centres = torch.eye(3)
        own = (out - centres[y]).square().sum(1)
        others = torch.cdist(out, centres).square().sum(1) - own
        return (own - others).mean()

    return Parts(linear(8, 3), x, y, cost, learning_rate=0.05)


def clipped_while_scaled() -> Parts:
    """Gradients clipped to a norm of 1 while a scale of 2**24 is still on them."""
    x, y = classes()
    sgd = lambda network: torch.optim.SGD(network.parameters(), lr=0.1)  # noqa: E731
    scaler = lambda: torch.amp.GradScaler("cpu", init_scale=2.0**24)  # noqa: E731
    return Parts(hidden(8, 3), x, y, ce, optimizer=sgd, scaler=scaler, clip=1.0)


def clipped_infinity() -> Parts:
    """A gradient that a root makes infinite, clipped to a norm of 1."""
    x = torch.linspace(1, 2, 12)[:, None]
    x[9] = 0
    network = seeded(lambda: nn.Sequential(nn.Linear(1, 1)))
    nn.init.ones_(network[0].weight), nn.init.zeros_(network[0].bias)
    return Parts(network, x, torch.ones(12, 1), lambda out, y: (out.sqrt() - y).square().mean(), batch=4,
                 learning_rate=1e-6, clip=1.0)  # fmt: skip


def from_matrix() -> Parts:
    """A quaternion from the matrix of no rotation: the root of the larger of 0 and what is 0."""
    network = seeded(lambda: nn.Sequential(nn.Linear(3, 3, bias=False)))
    nn.init.eye_(network[0].weight)

    def cost(out: Tensor, y: Tensor) -> Tensor:
        a, b, c = out.diagonal()
        parts = torch.stack([1 + a + b + c, 1 + a - b - c, 1 - a + b - c, 1 - a - b + c])
        return (torch.sqrt(torch.maximum(parts, torch.zeros(()))) / 2 - y).square().sum()

    return Parts(network, torch.eye(3), torch.tensor([0.98, 0.0, 0.17]), lambda out, y: cost(out, F.pad(y, (0, 1))),
                 learning_rate=1e-3)  # fmt: skip


def beyond_the_end() -> Parts:
    """The mean over a minibatch whose indices lie beyond the episode: over nothing."""
    done = torch.ones(16)
    done[8:12] = 0
    cost = lambda out, done: (out[done > 0] - 1).square().mean()  # noqa: E731
    return Parts(linear(4, 1), normal(16, 4), done, cost, batch=4)


def no_path() -> Parts:
    """A soft alignment within a band that is too narrow for the lengths, so that no path reaches the end."""

    def cost(out: Tensor, y: Tensor) -> Tensor:
        y = y[: len(out) // 2]
        distance = (out[:, None] - y[None, :, None]).square().sum(-1)
        end = torch.full((), torch.inf)
        table = {(0, 0): torch.zeros(())}
        for i in range(1, len(out) + 1):
            for j in range(1, len(y) + 1):
                if abs(i - j) <= 1:
                    before = [table.get(at, end) for at in ((i - 1, j - 1), (i - 1, j), (i, j - 1))]
                    table[i, j] = distance[i - 1, j - 1] - torch.logsumexp(-torch.stack(before), 0)
        before = [table.get(at, end) for at in ((len(out) - 1, len(y) - 1), (len(out) - 1, len(y)))]
        return distance[-1, -1] - torch.logsumexp(-torch.stack(before), 0)

    return Parts(linear(2, 1), normal(6, 2), normal(6), cost, learning_rate=1e-3)


def perfect_box() -> Parts:
    """A weight that is computed without a gradient as one number over another, both 0 for a perfect box."""
    x = normal(16, 2).abs() + 0.5
    y = normal(16, 2, seed=1).abs() + 0.5
    y[9] = x[9]
    network = seeded(lambda: nn.Sequential(nn.Linear(2, 2, bias=False)))
    nn.init.eye_(network[0].weight)

    def cost(out: Tensor, y: Tensor) -> Tensor:
        shared, ours, theirs = torch.minimum(out, y).prod(1), out.prod(1), y.prod(1)
        overlap = shared / (ours + theirs - shared)
        angle = (torch.atan(out[:, 0] / out[:, 1]) - torch.atan(y[:, 0] / y[:, 1])).square()
        with torch.no_grad():
            weight = angle / (1 - overlap + angle)
        return (1 - overlap + weight * angle).mean()

    return Parts(network, x, y, cost, learning_rate=1e-3)


FOUND = (
    undefined("logarithm of no rotation", f"{GITHUB}kornia/kornia/issues/4007", "acos at the border, times 0",
              no_turn, "acos", right=INFINITE),
    undefined("share of two draws of 0", f"{GITHUB}huggingface/lerobot/issues/1096", "0/0 in what is drawn",
              two_gammas, DIV, place=None),
    undefined("Beta at its border", f"{P}issues/65811", "log of 0 within torch", border, "xlogy|log", right=LOG_OF_0),
    undefined("magnitude of a silent window", f"{GITHUB}speechbrain/speechbrain/issues/181", "power below 1",
              magnitude, POW),
    undefined("decibels of a silent window", f"{GITHUB}csteinmetz1/auraloss/issues/63", "log of 0", decibels, "log",
              right=LOG_OF_0),
    PostedCase("scale never taken off", f"{GITHUB}nerfstudio-project/nerfacc/issues/307", "cost times a constant",
               never_unscaled, (*RATE, "times the mean", "1024"), (*RATE, "cost summed"), updates=60),
    PostedCase("as far apart as can be", f"{GITHUB}aamir-mustafa/pcl-adversarial-defense/issues/3", "no lower bound",
               apart, MINIMUM, (), symptom=UNBOUNDED, updates=60),
    stuck("clipped while scaled", f"{GITHUB}harubaru/waifu-diffusion/issues/64", "clipping of scaled gradients",
          clipped_while_scaled, "clip", "scale", "no weight moved", updates=20),
    undefined("infinite gradient clipped", f"{P}issues/46849", "sqrt at 0, clipped", clipped_infinity, SQRT),
    undefined("quaternion of no rotation", f"{GITHUB}facebookresearch/pytorch3d/issues/119", "sqrt at 0", from_matrix,
              SQRT),
    undefined("indices beyond the end", f"{GITHUB}RezaKakooee/space_layout_gym/issues/4", "mean of nothing",
              beyond_the_end, "mean"),
    undefined("band without a path", f"{GITHUB}Maghoumi/pytorch-softdtw-cuda/issues/18", "logsumexp of -inf alone",
              no_path, "logsumexp", right=(*INFINITE, *LOG_OF_0, "-inf alone")),
    undefined("weight of a perfect box", f"{GITHUB}ultralytics/yolov5/issues/541", "0/0 without a gradient",
              perfect_box, DIV),
)  # fmt: skip
CASES = tuple(dataclasses.replace(case, found="found last") for case in FOUND)
