"""Reports that were found anew, when the causes had been built: their right answers stood before any was scored."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posted.case import GITHUB, RAISES, UNDEFINED, Parts, PostedCase
from posted.networks import ce, clamp, linear, mse, normal, seeded
from posted.numbers import EXP, OVERFLOWS
from posted.operations import DIV, POW, SQRT, undefined
from posted.silent import UNMOVED, stuck

# Slopes of slopes.


class Slopes(nn.Module):
    """A network that answers with its value and its slope to its input."""

    def __init__(self, activation: type[nn.Module], bias: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.activation, self.last = nn.Linear(2, 8), activation(), nn.Linear(8, 1)
        nn.init.constant_(self.first.bias, bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            value = self.last(self.activation(self.first(x)))
            return value, torch.autograd.grad(value.sum(), x, create_graph=True)[0]


class Bends(Slopes):
    """One that answers with its second slope along each input."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            value = self.last(self.activation(self.first(x)))
            slope = torch.autograd.grad(value.sum(), x, create_graph=True)[0]
            return torch.autograd.grad(slope.sum(), x, create_graph=True)[0]


def concentration() -> Parts:
    """A diffusivity that is the concentration to the power of 1.2, which the network makes negative."""

    def cost(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        value, slope = out
        return (slope[:, :1] - 0.1 * value**1.2 - y).square().mean()

    return Parts(Slopes(nn.Tanh), normal(16, 2), torch.zeros(16, 1), cost, learning_rate=1e-3)


def penalty() -> Parts:
    """A penalty on the length of a critic's slope, which is 0 where all its units are off."""
    x = normal(16, 2)
    x[13] = -100.0
    network = Slopes(nn.ReLU)
    nn.init.constant_(network.first.weight, 0.3)

    def cost(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        value, slope = out
        return (value * y).mean() + 10 * (slope.square().sum(1).sqrt() - 1).square().mean()

    return Parts(network, x, torch.ones(16, 1), cost, batch=4, learning_rate=1e-3)


def unbent() -> Parts:
    """An equation in second slopes, for a network of ReLUs, which have none."""
    return Parts(Bends(nn.ReLU), normal(16, 2), torch.ones(16, 2), mse, learning_rate=1e-2)


# Attention and masks.


class Scores(nn.Module):
    """Attention by hand, whose forbidden keys are filled with a number."""

    def __init__(self, fill: float) -> None:
        super().__init__()
        self.query, self.head, self.fill = nn.Linear(4, 4), nn.Linear(4, 2), fill

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ x.transpose(1, 2)
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return self.head((scores.masked_fill(future, self.fill).softmax(-1) @ x).mean(1))


def wrong_sign() -> Parts:
    """A mask that fills in +inf where it means -inf."""
    return Parts(seeded(lambda: Scores(math.inf)), normal(6, 5, 4), torch.arange(6) % 2, ce)


class Tempered(nn.Module):
    """Similarities whose padding is masked before a learnt temperature divides them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.temperature = nn.Linear(4, 5), nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        padding = torch.arange(5) > 3
        return self.embed(x).masked_fill(padding, -math.inf) / self.temperature


def temperature() -> Parts:
    return Parts(seeded(Tempered), normal(8, 4), torch.arange(8) % 3, ce)


def smoothed() -> Parts:
    """Labels smoothed by nothing at all over words that the mask forbids."""
    forbidden = torch.zeros(4)
    forbidden[3] = -math.inf

    def cost(out: Tensor, y: Tensor) -> Tensor:
        logs = (out + forbidden).log_softmax(1)
        return F.nll_loss(logs, y) - 0.0 * logs.mean()

    return Parts(linear(4, 4), normal(12, 4), torch.arange(12) % 3, cost)


def gumbel() -> Parts:
    """Gumbel noise from uniform numbers of which one is 0."""

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(4, 3)

        def forward(self, x: Tensor, uniform: Tensor) -> Tensor:
            return self.embed(x) - torch.log(-torch.log(uniform))

    uniform = torch.rand(12, 3, generator=torch.Generator().manual_seed(0))
    uniform[7, 1] = 0
    return Parts(seeded(Noisy), (normal(12, 4), uniform), torch.arange(12) % 3, ce)


# Reinforcement learning.


class Policy(nn.Module):
    """A mean from a layer, and a deviation that is learnt as it is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mean, self.deviation = nn.Linear(4, 1), nn.Parameter(torch.tensor([0.5]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = self.mean(x)
        action = torch.normal(mean.detach(), self.deviation.detach().expand_as(mean))
        return mean, self.deviation, action


def below_zero() -> Parts:
    """A policy's deviation that the bonus drives below 0, from which no action can be drawn."""

    def cost(out: tuple[Tensor, Tensor, Tensor], y: Tensor) -> Tensor:
        mean, deviation, _ = out
        return (mean - y).square().mean() + deviation.sum()

    return Parts(Policy(), normal(12, 4), torch.zeros(12, 1), cost, learning_rate=0.1)


def scaled_actions() -> Parts:
    """The log of 1 less the square of an action that was scaled to 2 beforehand."""

    def cost(out: Tensor, y: Tensor) -> Tensor:
        action = 2 * out.tanh()
        return -torch.log(1 - action.square() + 1e-6).mean()

    x = normal(16, 4)
    x[11] = 4.0
    network = linear(4, 1)
    nn.init.constant_(network[0].weight, 0.05), nn.init.zeros_(network[0].bias)
    return Parts(network, x, torch.zeros(16, 1), cost, batch=4, learning_rate=1e-3)


# Boxes, graphs, speech, survival.


def harmonic() -> Parts:
    """The harmonic mean of a precision and a sensitivity that are both 0."""
    x = normal(12, 6)
    x[6] = -60.0
    network = seeded(lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
    nn.init.eye_(network[0].weight), nn.init.zeros_(network[0].bias)

    def cost(out: Tensor, y: Tensor) -> Tensor:
        shared = (out * y).sum(1)
        precision, sensitivity = shared / (out.sum(1) + 1), shared / (y.sum(1) + 1)
        return 1 - (2 * precision * sensitivity / (precision + sensitivity)).mean()

    return Parts(network, x, (x > 0).float(), cost, batch=4, learning_rate=1e-3)


def silence() -> Parts:
    """A ratio of signal to noise in decibels, where one signal is silent."""
    y = normal(12, 8, seed=1)
    y[10] = 0

    def cost(out: Tensor, y: Tensor) -> Tensor:
        share = (out * y).sum(1, keepdim=True) * y
        ratio = share.square().sum(1) / ((out - share).square().sum(1) + 1e-8)
        return -10 * torch.log10(ratio).mean()

    return Parts(linear(4, 8), normal(12, 4), y, cost, batch=4, learning_rate=1e-3)


def flat_prediction() -> Parts:
    """The angle of a predicted box's sides, where one is predicted without a height."""
    x = normal(12, 4).abs() + 0.1
    x[9] = torch.tensor([1.0, 1.0, 1.0, -1.0])
    network = seeded(lambda: nn.Sequential(nn.Linear(4, 2, bias=False), nn.ReLU()))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.5, 0.5, 0.5, 0.0], [0.0, 0.0, 0.0, 1.0]]))
    cost = lambda out, y: (torch.atan(out[:, 0] / out[:, 1]) - y).square().mean()  # noqa: E731
    return Parts(network, x, torch.full((12,), 0.7), cost, batch=4, learning_rate=1e-3)


class Graph(nn.Module):
    """The mean of a node's neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.head(edges @ self.embed(x) / edges.sum(1, keepdim=True))


def alone() -> Parts:
    """A node without a neighbour."""
    edges = (normal(12, 12) > 0).float()
    edges[5] = 0
    return Parts(seeded(Graph), (normal(12, 4), edges), torch.arange(12) % 2, ce)


def no_event() -> Parts:
    """A partial likelihood over the number of events of a batch that holds none."""
    events = (torch.arange(16) % 2).float()
    events[12:] = 0

    def cost(out: Tensor, events: Tensor) -> Tensor:
        risk = out[:, 0]
        return -((risk - risk.logcumsumexp(0)) * events).sum() / events.sum()

    return Parts(linear(4, 1), normal(16, 4), events, cost, batch=4)


# Metric learning.


def far_apart() -> Parts:
    """A contrast by hand at a temperature of 0.07 of features that were not scaled to length 1."""
    x = normal(16, 8) * 12
    x[8:12] += 20

    def cost(out: Tensor, y: Tensor) -> Tensor:
        logits = out @ out.T / 0.07
        logits = logits - logits.max(1, keepdim=True).values.detach()
        others = 1 - torch.eye(len(out))
        logs = logits - (logits.exp() * others).sum(1, keepdim=True).log()
        return -(logs * others * (y[:, None] == y)).sum(1).mean() / len(out)

    network = seeded(lambda: nn.Sequential(nn.Linear(8, 8, bias=False)))
    return Parts(network, x, torch.arange(16) % 2, cost, batch=4, learning_rate=1e-6)


def margin() -> Parts:
    """The sine of an angle as the root of 1 less its squared cosine, where the angle is 0."""
    x = normal(12, 3)
    x[7] = torch.tensor([0.0, 0.0, 2.0])

    class Cosine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(3))

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(x) @ F.normalize(self.weight, dim=0)

    def cost(out: Tensor, y: Tensor) -> Tensor:
        sine = torch.sqrt(1 - clamp(out, -1, 1).square())
        return ce(8 * (0.9 * out - 0.4 * sine), y)

    return Parts(Cosine(), x, torch.arange(12) % 3, cost, learning_rate=1e-3)


def prototypes() -> Parts:
    """exp of scores over 0.05, divided by their sum, of features that were not scaled to length 1."""

    def cost(out: Tensor, y: Tensor) -> Tensor:
        q = torch.exp(out / 0.05)
        q = q / q.sum()
        return -(q.detach() * out.log_softmax(1)).sum(1).mean() + 1e-3 * q.square().sum()

    x = normal(16, 4)
    x[10] = 5.0
    network = linear(4, 3)
    nn.init.constant_(network[0].weight, 0.3)
    return Parts(network, x, torch.zeros(16), cost, batch=4, learning_rate=1e-4)


LOG_OF_0 = (*UNDEFINED, "log(0)", "log of 0")
INFINITE = (*UNDEFINED, "infinit", "0 times inf", "inf - inf")
FOUND: tuple[PostedCase, ...] = (
    undefined("concentration to a power", f"{GITHUB}prateekbhustali/Physics-Informed-Neural-Networks/issues/1",
              "power of a negative number, double backward", concentration, POW),
    undefined("penalty on a flat critic", f"{GITHUB}keras-team/keras-io/issues/910", "sqrt at 0, double backward",
              penalty, SQRT),
    stuck("equation of second order with ReLUs", f"{GITHUB}ComputationalDomain/PINNs/issues/1", "no second slope",
          unbent, *UNMOVED, "second", "no gradient", updates=20),
    undefined("mask of the wrong sign", f"{GITHUB}lucidrains/memory-compressed-attention/issues/2",
              "softmax of +inf", wrong_sign, "softmax", "query", right=INFINITE),
    undefined("temperature of masked scores", f"{GITHUB}NVIDIA-NeMo/Automodel/pull/3850", "0 times inf in a slope",
              temperature, DIV, place=None, right=INFINITE),
    undefined("smoothing over forbidden words", f"{GITHUB}facebookresearch/pytext/pull/1698", "0 times inf", smoothed,
              "mul|product", right=INFINITE),
    undefined("Gumbel noise of 0", f"{GITHUB}HKUDS/SSLRec/issues/26", "log of 0", gumbel, "log", place=None,
              right=LOG_OF_0),
    PostedCase("deviation below 0", f"{GITHUB}amazon-far/holosoma/issues/25", "error in the forward pass", below_zero,
               ("std", "normal"), (), symptom=RAISES),
    undefined("scaled actions", f"{GITHUB}philtabor/Actor-Critic-Methods-Paper-To-Code/issues/7",
              "log of a negative number", scaled_actions, "log"),
    undefined("harmonic mean of nothing", f"{GITHUB}Project-MONAI/MONAI/pull/8739", "0/0", harmonic, DIV),
    undefined("silent source", f"{GITHUB}etzinis/sudo_rm_rf/issues/1", "log of 0", silence, "log10|log"),
    undefined("predicted box without a height", f"{GITHUB}ultralytics/yolov5/issues/13416",
              "slope of a quotient at x/0", flat_prediction, f"{DIV}|atan"),
    undefined("node without neighbours", f"{GITHUB}MrLeeeee/GCN-GAT-and-Graphsage/issues/3", "0/0 in a normalisation",
              alone, DIV, "embed"),
    undefined("batch without an event", f"{GITHUB}liupei101/TFDeepSurv/issues/15", "mean of nothing", no_event, DIV),
    undefined("contrast of long features", f"{GITHUB}HobbitLong/SupContrast/issues/104", "log of 0 by underflow",
              far_apart, "log", allowed=("undefined operation", "saturation"), right=LOG_OF_0),
    undefined("margin at an angle of 0", f"{GITHUB}ronghuaiyang/arcface-pytorch/issues/91", "sqrt at 0", margin, SQRT),
    PostedCase("prototypes of long features", f"{GITHUB}facebookresearch/swav/issues/67", "exp overflow", prototypes,
               EXP, OVERFLOWS, "cost", EXP),
)  # fmt: skip
CASES = tuple(dataclasses.replace(case, found="found anew") for case in FOUND)
