"""Reports that were found anew, as in `fresh`: other costs, layers, optimisers and loops."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posted.case import GITHUB, Parts, PostedCase
from posted.fresh import LOG_OF_0
from posted.networks import ce, hidden, linear, mse, normal, seeded
from posted.numbers import EXP, OVERFLOWS, data
from posted.operations import DIV, POW, P, undefined
from posted.silent import TWICE, UNMOVED, classes, stuck
from posted.steps import RATE, adam

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


WEIGHTS = ("parameter", "weight", "initial", "started", "before any step")
STEP = ("optimiser", "optimizer", "RMSprop", "the step itself", "own arithmetic")
FOUND: tuple[PostedCase, ...] = (
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
