"""Reports that were found anew, when the causes had been built: their right answers stood before any was scored."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posted.case import GITHUB, RAISES, UNDEFINED, Parts, PostedCase
from posted.networks import ce, hidden, linear, mse, normal, seeded
from posted.numbers import EXP, OVERFLOWS, data
from posted.operations import DIV, POW, SQRT, P, undefined
from posted.silent import TWICE, UNMOVED, classes, stuck
from posted.steps import RATE, adam

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
        sine = torch.sqrt(1 - out.clamp(-1, 1).square())
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


# Other costs and layers.


def rate_of_counts() -> Parts:
    """torch's own likelihood of counts, given a rate that is negative."""
    cost = lambda out, y: F.poisson_nll_loss(out, y, log_input=False)  # noqa: E731
    return Parts(linear(4, 1), normal(12, 4), torch.ones(12, 1), cost, learning_rate=1e-3)


def far_cosh() -> Parts:
    """The log of a hyperbolic cosine of an error beyond 90."""
    y = normal(16, 1)
    y[9] = 95.0
    return Parts(linear(4, 1), normal(16, 4), y, lambda out, y: torch.cosh(out - y).log().mean(), batch=4,
                 learning_rate=1e-3)  # fmt: skip


def wrong_epsilon() -> Parts:
    """A cross-entropy by hand whose epsilon is taken away on one side, where an answer is certain."""

    def cost(out: Tensor, y: Tensor) -> Tensor:
        p, tiny = out.sigmoid(), 1e-6
        return -(y * torch.log(p + tiny) + (1 - y) * torch.log(1 - p - tiny)).mean()

    x = normal(16, 4)
    x[9] = 15.0
    network = linear(4, 1)
    nn.init.constant_(network[0].weight, 0.5)
    return Parts(network, x, (torch.arange(16) % 2 * 1.0)[:, None], cost, batch=4, learning_rate=1e-3)


def certain_pixels() -> Parts:
    """A cross-entropy by hand of pixels of which the decoder has become certain."""

    def cost(out: Tensor, y: Tensor) -> Tensor:
        p = out.sigmoid()
        return -(y * p.log() + (1 - y) * (1 - p).log()).mean()

    x = normal(16, 4)
    x[9] = 60.0
    network = linear(4, 1)
    nn.init.constant_(network[0].weight, 0.5)
    return Parts(network, x, torch.zeros(16, 1), cost, batch=4, learning_rate=1e-3)


def uncertain_boxes() -> Parts:
    """An error over a variance whose log is far below 0."""
    x = normal(16, 4)
    x[11] = -60.0
    network = linear(4, 2)
    nn.init.constant_(network[0].weight, 0.5)

    def cost(out: Tensor, y: Tensor) -> Tensor:
        return (torch.exp(-out[:, 1]) * (out[:, 0] - y).abs() + out[:, 1] / 2).mean()

    return Parts(network, x, torch.zeros(16), cost, batch=4, learning_rate=1e-6)


class Coder(nn.Module):
    """An encoder that gives a mean and a log of a variance, and a decoder of what is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.logvar, self.decode = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(2, 4)
        nn.init.constant_(self.logvar.weight, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        deviation = torch.exp(0.5 * self.logvar(x))
        return self.decode(self.mean(x) + deviation * torch.ones_like(deviation))


def reparameterised() -> Parts:
    """An encoder whose log of a variance has no bound."""
    x = normal(16, 4)
    x[14] = 60.0
    return Parts(seeded(Coder), x, x * 0, lambda out, y: F.smooth_l1_loss(out, y), batch=4, learning_rate=1e-5)


class Flow(nn.Module):
    """Couplings that each scale half of the inputs by an exponential of what the other half gives."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(2, 4) for _ in range(4))
        for block in self.blocks:
            nn.init.normal_(block.weight, std=0.01), nn.init.zeros_(block.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logdet = x.new_zeros(len(x))
        for block in self.blocks:
            left, right = x.chunk(2, 1)
            scale, shift = block(left).chunk(2, 1)
            x, logdet = torch.cat([right * scale.exp() + shift, left], 1), logdet + scale.sum(1)
        return x, logdet


def couplings() -> Parts:
    """A flow at a rate at which its scales grow without end."""

    def cost(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        return (out[0].square().sum(1) / 2 - out[1]).mean()

    return Parts(seeded(Flow), normal(32, 4), torch.zeros(32), cost, learning_rate=0.3)


class Adapted(nn.Module):
    """A layer whose rows are scaled to a learnt length."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.length = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.ones(4, 1))
        with torch.no_grad():
            self.weight[2] = 0

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight * (self.length / self.weight.norm(dim=1, keepdim=True))).T


def zero_row() -> Parts:
    """A row of 0, scaled to a length."""
    return Parts(seeded(lambda: nn.Sequential(nn.Linear(4, 4), Adapted(), nn.Linear(4, 2))), normal(12, 4),
                 torch.arange(12) % 2, ce)  # fmt: skip


class Generalised(nn.Module):
    """A mean of powers whose exponent is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return x.pow(self.exponent).mean(2)


def learnt_exponent() -> Parts:
    """A learnt exponent over activations of which some are below 0."""
    network = seeded(lambda: nn.Sequential(nn.Conv1d(1, 4, 3), nn.SiLU(), Generalised(), nn.Linear(4, 2)))
    return Parts(network, normal(8, 1, 8), torch.arange(8) % 2, ce, learning_rate=1e-3)


class Chain(nn.Module):
    """A layer, and a matrix of transitions that nobody gave values."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.embed, self.transitions = nn.Linear(4, 3), nn.Parameter(torch.zeros(3, 3))
        with torch.no_grad():
            self.transitions[1, 2] = value

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x) @ self.transitions


def never_given(value: float) -> Callable[[], Parts]:
    """Whatever the memory held before, as torch.empty leaves it."""
    return lambda: Parts(seeded(lambda: Chain(value)), normal(12, 4), torch.arange(12) % 3, ce)


def flat_pictures() -> Parts:
    """Pictures scaled by their mean distance from their mean, of which one is white throughout."""
    x = normal(12, 1, 4, 4)
    x[6] = 1
    x = x - x.mean((1, 2, 3), keepdim=True)
    x = x / x.abs().mean((1, 2, 3), keepdim=True)
    network = seeded(lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1)))
    return Parts(network, x, torch.ones(12, 1), mse, batch=4)


# Optimisers and loops.


def centred() -> Parts:
    """RMSprop that takes the square of the mean from the mean of the squares, where the gradient stays the same."""
    network = linear(64, 1)
    centred = lambda network: torch.optim.RMSprop(network.parameters(), lr=1e-6, alpha=0.5, centered=True, eps=0)  # noqa: E731
    cost = lambda out, y: out.mean() * 1234.567  # noqa: E731
    return Parts(network, normal(4, 64), torch.zeros(4), cost, optimizer=centred)


class Scaled(torch.optim.Optimizer):
    """Steps that are scaled to the length of the gradient after they were normalised."""

    def __init__(self, parameters: object, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                step = weight.grad / (weight.grad.square().mean() + 1e-8).sqrt()
                weight -= group["lr"] * step * (weight.grad.norm() / step.norm())


def zero_gradient() -> Parts:
    """A step scaled to a length, of a layer whose gradient is 0 since the layer after it starts at 0."""
    network = hidden(4, 3)
    nn.init.zeros_(network[2].weight)
    scaled = lambda network: Scaled(network.parameters(), 0.1)  # noqa: E731
    return Parts(network, normal(12, 4), torch.arange(12) % 3, ce, optimizer=scaled)


def rms_in_half() -> Parts:
    """RMSprop with its epsilon of 1e-8 in float16, and an input that is never used."""
    x = normal(16, 6).half()
    x[:, 2] = 0
    network = seeded(lambda: nn.Sequential(nn.Linear(6, 3))).half()
    rms = lambda network: torch.optim.RMSprop(network.parameters(), lr=1e-3)  # noqa: E731
    return Parts(network, x, torch.arange(16) % 3, lambda out, y: ce(out.float(), y), optimizer=rms)


def rounded_away() -> Parts:
    """Weights near 1 in bfloat16, whose steps of 6e-4 are rounded away."""
    x, y = classes()
    network = seeded(lambda: nn.Sequential(nn.Linear(8, 3, bias=False)))
    nn.init.ones_(network[0].weight)
    cost = lambda out, y: ce(out.float(), y)  # noqa: E731
    return Parts(network.bfloat16(), x.bfloat16(), y, cost, optimizer=adam(6e-4))


def squashed_twice() -> Parts:
    """A sigmoid, and a cost that takes another."""
    x, y = classes(2, 24)
    network = seeded(lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1), nn.Sigmoid()))
    cost = F.binary_cross_entropy_with_logits
    return Parts(network, x, (y == 0).float()[:, None], cost, learning_rate=1.0)


def no_rate() -> Parts:
    """A warm-up that is stepped once an epoch, and whose first rate is 0."""
    x, y = classes()
    sgd = lambda network: torch.optim.SGD(network.parameters(), lr=0.1)  # noqa: E731
    warm_up = lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step // 30 / 10)  # noqa: E731
    return Parts(hidden(8, 3), x, y, ce, optimizer=sgd, schedule=warm_up)


def cleared() -> Parts:
    """Gradients that are cleared after backward and before the step."""
    x, y = classes()
    return Parts(hidden(8, 3), x, y, ce, learning_rate=0.1, zero_grad_late=True)


def clipped() -> Parts:
    """Gradients that are clipped to a norm of 0."""
    x, y = classes()
    return Parts(hidden(8, 3), x, y, ce, learning_rate=0.1, clip=0.0)


LOG_OF_0 = (*UNDEFINED, "log(0)", "log of 0")
INFINITE = (*UNDEFINED, "infinit", "0 times inf", "inf - inf")
WEIGHTS = ("parameter", "weight", "initial", "started", "before any step")
STEP = ("optimiser", "optimizer", "RMSprop", "the step itself", "own arithmetic")
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
    undefined("negative rate of counts", f"{P}issues/184030", "log of a negative number", rate_of_counts,
              "log|poisson_nll_loss"),
    PostedCase("log of a large cosh", f"{GITHUB}UCL/STIR/issues/768", "cosh overflow", far_cosh, ("cosh",), OVERFLOWS,
               "cost", ("cosh",)),
    undefined("epsilon on the wrong side", f"{GITHUB}emited/VariationalRecurrentNeuralNetwork/issues/10",
              "log of a negative number", wrong_epsilon, "log"),
    undefined("certain pixels", f"{GITHUB}hwalsuklee/tensorflow-mnist-VAE/issues/4", "log of 0 by saturation",
              certain_pixels, "log", allowed=("undefined operation", "saturation"),
              right=LOG_OF_0),
    PostedCase("uncertain boxes", f"{GITHUB}ethanhe42/KL-Loss/issues/4", "exp overflow", uncertain_boxes, EXP,
               OVERFLOWS, "cost", EXP),
    PostedCase("log of a variance without bound", f"{GITHUB}vanderschaarlab/synthcity/issues/331", "exp overflow",
               reparameterised, EXP, OVERFLOWS, "logvar", EXP),
    PostedCase("couplings at too high a rate", f"{GITHUB}volflow/DeFlow/issues/4", "scales of a flow grow", couplings,
               ("learning rate", "exp"), (*RATE, *OVERFLOWS), updates=40),
    undefined("row of zeros scaled", f"{GITHUB}KohakuBlueleaf/LyCORIS/pull/166", "division by a norm of 0", zero_row,
              DIV, "1"),
    undefined("learnt exponent", f"{GITHUB}keras-team/keras/issues/15600", "slope of a power to its exponent",
              learnt_exponent, POW, "2"),
    PostedCase("transitions never given values", f"{GITHUB}kmkurn/pytorch-crf/issues/1", "NaN in a parameter",
               never_given(math.nan), WEIGHTS, ("data hold", "initial weights")),
    PostedCase("weights as memory left them", f"{GITHUB}suolyer/PyTorch_BERT_Biaffine_NER/pull/3",
               "initial weights too large", never_given(1e38), WEIGHTS, ("data hold", "initial weights")),
    data("white pictures", f"{GITHUB}lukasruff/Deep-SVDD-PyTorch/issues/10", "NaN in the inputs", flat_pictures,
         "inputs"),
    PostedCase("centred RMSprop", f"{GITHUB}apache/mxnet/pull/6235", "optimiser's own root", centred, STEP, (),
               updates=60),
    PostedCase("step scaled by its own length", f"{GITHUB}microsoft/dion/pull/24", "optimiser's own 0/0",
               zero_gradient, STEP, ()),
    PostedCase("RMSprop in half", f"{GITHUB}google-deepmind/optax/issues/1789", "epsilon in float16", rms_in_half,
               ("eps",), ()),
    stuck("steps rounded away", f"{GITHUB}workofart/ml-by-hand/pull/85", "steps below the precision", rounded_away,
          "bfloat16", "rounded", "precision", updates=20),
    stuck("sigmoid twice", f"{GITHUB}yudi-mars/daisyRec/pull/15", "sigmoid before a cost with one", squashed_twice,
          *TWICE, "sigmoid", updates=60, floor=0.6),
    stuck("warm-up from 0", f"{GITHUB}Project-MONAI/tutorials/issues/630", "learning rate of 0", no_rate,
          "learning rate is 0", "learning rate was 0", "learning rate of 0", "rate is 0", "rate was 0",
          allowed=RATE, updates=20),
    stuck("gradients cleared before the step", f"{GITHUB}Tony-Y/pytorch_warmup/issues/12", "zero_grad before the step",
          cleared, *UNMOVED, "zero_grad", updates=20),
    stuck("clipped to nothing", f"{GITHUB}strands-labs/robots/pull/2028", "clipping to a norm of 0", clipped, *UNMOVED,
          "clip", updates=20),
)  # fmt: skip
CASES = tuple(dataclasses.replace(case, found="found anew") for case in FOUND)
