"""Quotients, logarithms, matrices, branches, masks and costs of torch's own that have no finite value or slope."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posted.case import GITHUB, UNDEFINED, Parts, PostedCase
from posted.networks import Named, ce, hidden, linear, mse, normal, seeded

DIV, POW, SQRT, STD = "div|division|quotient", "pow|power", "sqrt|square root", "std|deviation"
CTC, NLL = "ctc_loss|_ctc_loss", "nll_loss|nll_loss_forward|cross_entropy"
P = f"{GITHUB}pytorch/pytorch/"


def undefined(
    name: str, source: str, kind: str, build: Callable[[], Parts], operation: str, place: str = "cost", **rest: Any
) -> PostedCase:
    """A case whose right answer is an undefined operation."""
    names = tuple(operation.split("|"))
    rest = {"right": UNDEFINED, "allowed": ("undefined operation",), **rest}
    return PostedCase(name, source, kind, build, operation=names, place=place, **rest)


# Quotients.


def cosine_by_hand() -> Parts:
    """A cosine by hand, one of whose vectors is 0."""
    x = normal(16, 2, 4)
    x[9, 1] = 0

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed = nn.Linear(4, 4, bias=False)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.embed(x[:, 0]), self.embed(x[:, 1])

    def cost(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        left, right = (part / part.square().sum(1, keepdim=True).sqrt() for part in out)
        return ((left * right).sum(1) - y).square().mean()

    return Parts(Bare(), x, torch.ones(16), cost, batch=4)


def unit_vectors() -> Parts:
    """Vectors scaled to length 1 by a reciprocal root that is bounded only afterwards."""
    x = normal(16, 4)
    x[5] = 0

    def between(h: Tensor) -> Tensor:
        return h * h.square().sum(1, keepdim=True).rsqrt().clamp(max=1e6)

    network = Named(between)
    nn.init.zeros_(network.embed.bias)
    return Parts(network, x, torch.ones(16, 1), mse, learning_rate=1e-3)


def no_positives() -> Parts:
    """The mean cost of the positive anchors of a batch that has none."""
    y = (torch.arange(16) % 3 == 0).float()
    y[8:12] = 0
    cost = lambda out, y: ((out[:, 0] - 1).square() * y).sum() / y.sum()  # noqa: E731
    return Parts(linear(4, 1), normal(16, 4), y, cost, batch=4)


def triplets() -> Parts:
    """The mean over those triplets that break the margin, once none does."""
    x = normal(12, 4)
    x[8:] *= 100

    def cost(out: Tensor, y: Tensor) -> Tensor:
        broken = (1 - out.abs().sum(1)).relu()
        return broken[broken > 0].mean()

    return Parts(linear(4, 3), x, torch.zeros(12), cost, batch=4, learning_rate=1e-3)


def empty_mask() -> Parts:
    """A Dice cost of an image without the object, for which nothing is predicted either."""
    x = normal(8, 1, 4, 4)
    x[6:] = -50.0
    y = (x > 0).float()
    network = seeded(lambda: nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()))
    nn.init.ones_(network[0].weight), nn.init.zeros_(network[0].bias)

    def cost(out: Tensor, y: Tensor) -> Tensor:
        return 1 - (2 * (out * y).sum((1, 2, 3)) / (out + y).sum((1, 2, 3))).mean()

    return Parts(network, x, y, cost, batch=2, learning_rate=1e-3)


def percentage() -> Parts:
    """A mean absolute percentage error, where one target is 0."""
    y = normal(12, 1).abs() + 1
    y[10] = 0
    return Parts(linear(4, 1), normal(12, 4), y, lambda out, y: ((out - y) / y).abs().mean(), batch=4)


def correlation() -> Parts:
    """One minus a correlation, of an output that is the same for all examples."""
    x = normal(12, 4)
    x[4:8] = 0.0

    def cost(out: Tensor, y: Tensor) -> Tensor:
        a, b = out[:, 0] - out[:, 0].mean(), y - y.mean()
        return 1 - (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())

    network = seeded(lambda: nn.Sequential(nn.Linear(4, 1, bias=False)))
    return Parts(network, x, normal(12, seed=1), cost, batch=4)


def empty_parameter() -> Parts:
    """A class embedding that was never given values, scaled to length 1."""

    class Background(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.background = nn.Linear(4, 4), nn.Parameter(torch.zeros(1, 4))

        def forward(self, x: Tensor) -> Tensor:
            other = self.background / self.background.norm(dim=-1, keepdim=True)
            return self.embed(x) @ torch.cat([other, torch.eye(4)[:2]]).T

    return Parts(seeded(Background), normal(8, 4), torch.arange(8) % 3, ce)


# Logarithms.


def soft_targets() -> Parts:
    """A divergence from a distribution that is learnt too, and is certain for one example."""
    x = normal(12, 3)
    x[7] = torch.tensor([400.0, 0.0, 0.0])
    network = seeded(lambda: nn.Sequential(nn.Linear(3, 3, bias=False)))
    nn.init.eye_(network[0].weight)
    cost = lambda out, y: F.kl_div(y, out.softmax(1), reduction="batchmean")  # noqa: E731
    y = torch.full((12, 3), -math.log(3))
    return Parts(network, x, y, cost, batch=4, learning_rate=1e-3)


def relative_entropy() -> Parts:
    """Relative entropy by hand, from targets that are one-hot."""
    y = F.one_hot(torch.arange(12) % 3).float()
    cost = lambda out, y: (y * (y / out.softmax(1)).log()).sum(1).mean()  # noqa: E731
    return Parts(linear(4, 3), normal(12, 4), y, cost)


def entropy_bonus() -> Parts:
    """The entropy of a policy whose forbidden actions have logits of -inf."""
    forbidden = torch.zeros(12, 3)
    forbidden[9, 2] = -math.inf

    def cost(out: Tensor, mask: Tensor) -> Tensor:
        logs = (out + mask).log_softmax(1)
        return -logs[:, 0].mean() - 0.01 * -(logs.exp() * logs).sum(1).mean()

    return Parts(linear(4, 3), normal(12, 4), forbidden, cost, batch=4)


def mixture() -> Parts:
    """A mixture density by hand: a target far from every component has a likelihood of 0."""
    y = normal(12, 1)
    y[6] = 40.0

    def cost(out: Tensor, y: Tensor) -> Tensor:
        means, deviations, shares = out.chunk(3, 1)
        likelihood = (-((y - means) ** 2) / 2 / deviations.exp() ** 2).exp() / deviations.exp()
        return -(shares.softmax(1) * likelihood).sum(1).log().mean()

    return Parts(hidden(4, 6), normal(12, 4), y, cost, batch=4, learning_rate=1e-3)


def sure_forecast() -> Parts:
    """A Gaussian likelihood whose deviation is a softplus that has become 0."""
    x = normal(12, 4)
    x[9] = -300.0
    network = linear(4, 2)
    nn.init.constant_(network[0].weight, 0.5)

    def cost(out: Tensor, y: Tensor) -> Tensor:
        deviation = F.softplus(out[:, 1])
        return (((y - out[:, 0]) / deviation).square() / 2 + deviation.log()).mean()

    return Parts(network, x, normal(12, seed=1), cost, batch=4, learning_rate=1e-5)


# Matrices.


def low_rank() -> Parts:
    """Singular vectors of a matrix two of whose singular values are 0."""
    x = normal(4, 4)
    x[2:] = 0
    network = seeded(lambda: nn.Sequential(nn.Linear(4, 4, bias=False)))

    def cost(out: Tensor, y: Tensor) -> Tensor:
        u, s, v = torch.linalg.svd(out)
        return (u @ torch.diag(s) @ v - y).square().mean() + u[0, 0] + v[0, 0]

    return Parts(network, x, torch.zeros(4, 4), cost, learning_rate=1e-3)


def repeated() -> Parts:
    """Eigenvectors of a matrix two of whose eigenvalues are equal."""
    network = seeded(lambda: nn.Sequential(nn.Linear(3, 3, bias=False)))
    nn.init.eye_(network[0].weight)

    def cost(out: Tensor, y: Tensor) -> Tensor:
        _, vectors = torch.linalg.eigh(out @ out.T)
        return (vectors * y).sum().square()

    return Parts(network, torch.eye(3), normal(3, 3), cost, learning_rate=1e-3)


def determinant() -> Parts:
    """The log of a determinant that rounding has made negative."""
    network = seeded(lambda: nn.Sequential(nn.Linear(3, 3, bias=False)))
    nn.init.eye_(network[0].weight)
    x = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, -1e-6]])
    return Parts(network, x, torch.zeros(3, 3), lambda out, y: -torch.logdet(out), learning_rate=1e-3)


# The branch that is not taken.


def branch(condition: Callable, taken: Callable, other: Callable) -> Callable[[], Parts]:
    def build() -> Parts:
        x = torch.linspace(0.5, 4, 16)[:, None]
        x[10] = 0.0
        network = seeded(lambda: nn.Sequential(nn.Linear(1, 1, bias=False)))
        nn.init.ones_(network[0].weight)
        cost = lambda out, y: (torch.where(condition(out), taken(out), other(out)) - y).square().mean()  # noqa: E731
        return Parts(network, x, torch.ones(16, 1), cost, batch=4, learning_rate=1e-3)

    return build


# Masks.


class Attention(nn.Module):
    """torch's own attention, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out, _ = self.attention(x, x, x, attn_mask=mask.repeat_interleave(2, 0), need_weights=True)
        return self.head(out.mean(1))


def masked_head() -> Parts:
    """An attention mask that leaves one query without any key."""
    mask = torch.zeros(6, 5, 5, dtype=torch.bool)
    mask[3, 2] = True
    return Parts(seeded(Attention), (normal(6, 5, 4), mask), torch.arange(6) % 2, ce)


def masked_twice() -> Parts:
    """A causal mask and a padding mask that together leave the first query without any key."""
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1).repeat(6, 1, 1)
    padding = torch.zeros(6, 1, 5, dtype=torch.bool)
    padding[4, 0, :2] = True  # padded on the left
    return Parts(seeded(Attention), (normal(6, 5, 4), causal | padding), torch.arange(6) % 2, ce)


# Costs of torch's own that have no value.


def ctc(steps: int, lengths: tuple[int, ...]) -> Callable[[], Parts]:
    def build() -> Parts:
        y = torch.randint(1, 6, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(0))

        def cost(out: Tensor, y: Tensor) -> Tensor:
            logs = out.log_softmax(-1).transpose(0, 1)
            return F.ctc_loss(logs, y, torch.full((len(lengths),), steps), torch.tensor(lengths))

        return Parts(linear(3, 6), normal(len(lengths), steps, 3), y, cost, learning_rate=0.1)

    return build


def doubled_letters() -> Parts:
    """An alignment as long as its target, which has the same letter twice in a row."""
    y = torch.tensor([[1, 2, 3], [2, 2, 2]])

    def cost(out: Tensor, y: Tensor) -> Tensor:
        logs = out.log_softmax(-1).transpose(0, 1)
        return F.ctc_loss(logs, y, torch.full((2,), 4), torch.full((2,), 3))

    return Parts(linear(3, 6), normal(2, 4, 3), y, cost, learning_rate=0.1)


def no_label_left() -> Parts:
    """A batch of a masked language model in which no token was masked."""
    labels = torch.arange(16) % 3
    labels[8:12] = -100
    return Parts(linear(4, 3), normal(16, 4), labels, ce, batch=4, learning_rate=0.1)


CASES = (
    undefined("cosine of a zero vector", f"{GITHUB}google-deepmind/optax/pull/946", "0/0 in a normalisation",
              cosine_by_hand, DIV),
    undefined("unit vector of zero", f"{GITHUB}keras-team/keras/pull/23093", "0/0 in a normalisation", unit_vectors,
              "rsqrt", "embed"),
    undefined("embedding without values", f"{GITHUB}sauradip/STALE/issues/16", "0/0 in a normalisation",
              empty_parameter, DIV, "background"),
    undefined("batch without positives", f"{GITHUB}pjreddie/darknet/issues/567", "mean of nothing", no_positives,
              DIV),
    undefined("no triplet breaks the margin", f"{GITHUB}KevinMusgrave/pytorch-metric-learning/issues/107",
              "mean of nothing", triplets, "mean"),
    undefined("Dice of an empty mask", f"{GITHUB}nasa/delta/pull/115", "0/0", empty_mask, DIV),
    undefined("percentage of nothing", f"{GITHUB}dmlc/xgboost/issues/7586", "division by 0", percentage, DIV),
    undefined("correlation of a constant", f"{GITHUB}NVIDIA-Genomics-Research/AtacWorks/pull/104", "0/0", correlation,
              DIV),
    undefined("divergence from a certain distribution", f"{P}issues/89558", "log of 0", soft_targets,
              "kl_div|xlogy|log"),
    undefined("relative entropy of one-hot targets", f"{GITHUB}Lightning-AI/torchmetrics/issues/1029", "log of 0",
              relative_entropy, "log"),
    undefined("entropy with forbidden actions", f"{GITHUB}huggingface/trl/pull/7263", "0 times inf", entropy_bonus,
              "mul|product"),
    undefined("mixture far from its target", f"{GITHUB}keras-team/keras/issues/1061", "log of 0", mixture, "log",
              allowed=("undefined operation", "saturation"), right=(*UNDEFINED, "log(0)")),
    undefined("forecast without a deviation", f"{GITHUB}mllam/neural-lam/pull/537", "likelihood without variance",
              sure_forecast, f"{DIV}|log"),
    undefined("singular vectors of low rank", f"{P}issues/49886", "equal eigenvalues", low_rank, "svd"),
    undefined("eigenvectors of equal values", f"{P}pull/50942", "equal eigenvalues", repeated, "eigh"),
    undefined("log of a determinant below 0", f"{P}issues/23473", "logdet", determinant, "logdet|det"),
    undefined("log2 not taken", f"{P}issues/108618", "branch not taken",
              branch(lambda a: a > 2, torch.log2, lambda a: 2 * a), "log2"),
    undefined("quotient not taken", f"{P}issues/52248", "branch not taken",
              branch(lambda a: a > 0, lambda a: 1 / a, lambda a: a), f"{DIV}|reciprocal"),
    undefined("root not taken", f"{P}issues/187297", "branch not taken",
              branch(lambda a: a > 1, lambda a: (a - 1).sqrt(), lambda a: a), SQRT),
    undefined("query without a key", f"{P}issues/160064", "softmax of -inf", masked_head, "softmax", "attention"),
    undefined("two masks together", f"{P}issues/63271", "softmax of -inf", masked_twice, "softmax", "attention"),
    undefined("captcha too narrow", f"{GITHUB}ypwhs/captcha_break/issues/29", "CTC too short", ctc(6, (4, 8)), CTC),
    undefined("letters doubled", f"{GITHUB}SeanNaren/warp-ctc/issues/29", "CTC too short", doubled_letters, CTC),
    undefined("no token masked", f"{P}issues/116349", "all labels ignored", no_label_left, NLL),
)  # fmt: skip
