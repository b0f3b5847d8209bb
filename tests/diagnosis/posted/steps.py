"""Steps that are too long, and costs that have no lower bound."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posted.case import GITHUB, UNBOUNDED, Parts, PostedCase
from posted.networks import ce, hidden, linear, mse, normal, seeded

RATE = ("learning rate",)


def deep(layers: int, width: int = 16, activation: type[nn.Module] = nn.ReLU, outputs: int = 1) -> nn.Sequential:
    def make() -> nn.Sequential:
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [nn.Linear(width, width), activation()]
        return nn.Sequential(*parts, nn.Linear(width, outputs))

    return seeded(make)


def adam(rate: float):
    return lambda network: torch.optim.Adam(network.parameters(), lr=rate)


# The learning rate.


def large_rate() -> Parts:
    """Plain regression at a rate of 10."""
    return Parts(linear(10, 1), normal(32, 10), normal(32, 1, seed=1), mse, learning_rate=10)


def one_card() -> Parts:
    """The rate of eight cards, on one: a small convolutional regression."""
    network = seeded(lambda: nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4),
    ))  # fmt: skip
    return Parts(network, normal(16, 1, 6, 6) * 2, normal(16, 4, seed=1), mse, learning_rate=20.0, batch=8)


def steep_adam() -> Parts:
    """Adam at a rate of 5.6, in a deep network."""
    return Parts(deep(28, activation=nn.LeakyReLU), normal(32, 16), normal(32, 1, seed=1), mse, optimizer=adam(5.6))


def rate_of_two() -> Parts:
    """Adam at a rate of 2 where 2.5e-4 is usual: attention over a few steps."""

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.query = nn.Embedding(11, 8), nn.Linear(8, 8, bias=False)
            self.key, self.mix, self.head = nn.Linear(8, 8, bias=False), nn.Linear(8, 8), nn.Linear(8, 11)

        def forward(self, x: Tensor) -> Tensor:
            h = self.embed(x)
            for _ in range(6):
                h = h + self.mix((self.query(h) @ self.key(h).transpose(1, 2)) @ h)
            return self.head(h[:, -1])

    x = torch.randint(0, 11, (16, 6), generator=torch.Generator().manual_seed(0))
    return Parts(seeded(Small), x, x[:, 0], ce, optimizer=adam(2.0))


def warm_up() -> Parts:
    """A warm-up that goes on rising, far beyond what the network bears."""
    rising = lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.6**step)  # noqa: E731
    sgd = lambda network: torch.optim.SGD(network.parameters(), lr=1e-3)  # noqa: E731
    x = normal(32, 8)
    return Parts(hidden(8, 1, 16), x, x[:, :1], mse, optimizer=sgd, schedule=rising)


# What makes a usual rate too high.


def summed() -> Parts:
    """The cost is the sum over all pixels of a batch."""
    x = normal(64, 64)
    return Parts(linear(64, 64), x, x, lambda out, y: F.mse_loss(out, y, reduction="sum"), learning_rate=0.01)


def times_the_batch() -> Parts:
    """A mean that is multiplied by the size of the batch again."""
    x = normal(64, 16)
    cost = lambda out, y: F.mse_loss(out, y) * len(y)  # noqa: E731
    return Parts(linear(16, 16), x, x * 2, cost, learning_rate=0.5)


def heavy_decay() -> Parts:
    """A weight decay of 1000 at a rate of 0.01."""
    return Parts(hidden(4, 3), normal(24, 4), torch.arange(24) % 3, ce, l2=1000.0)


def decay_at_a_high_rate() -> Parts:
    """A weight decay of 10 at a rate of 0.25."""
    return Parts(hidden(4, 3), normal(24, 4), torch.arange(24) % 3, ce, learning_rate=0.25, l2=10.0)


# Recurrence.


class Recurrent(nn.Module):
    """A recurrent ReLU over many steps, whose layer `state` is used at each."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.inside, self.state, self.head = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        nn.init.normal_(self.state.weight, std=scale)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 16)
        for step in range(x.shape[1]):
            h = (self.inside(x[:, step]) + self.state(h)).relu()
        return self.head(h)


def recurrent(steps: int, scale: float, rate: float):
    def build() -> Parts:
        return Parts(seeded(lambda: Recurrent(scale)), normal(8, steps, 4), torch.arange(8) % 3, ce,
                     learning_rate=rate)  # fmt: skip

    return build


# Gradients that add up.


def adding_up(layers: int = 1, rate: float = 0.5, batch: int | None = None) -> Parts:
    """A loop without zero_grad; with it the same learns."""
    x = normal(32, 16)
    return Parts(deep(layers), x, x[:, :1], mse, learning_rate=rate, batch=batch, zero_grad=False)


# Costs without a lower bound.


def masks_of_255() -> Parts:
    """Binary cross-entropy of masks that are 0 and 255."""
    x = normal(8, 1, 4, 4)
    network = seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1)))
    cost = F.binary_cross_entropy_with_logits
    return Parts(network, x, (x > 0).float() * 255, cost, learning_rate=1e-2)


def masks_of_minus_one() -> Parts:
    """Binary cross-entropy of masks that augmentation has brought to -1 and 1."""
    x = normal(16, 4)
    y = (x[:, :1] > 0).float() * 2 - 1
    return Parts(hidden(4, 1), x, y, F.binary_cross_entropy_with_logits, learning_rate=3.0)


def critic() -> Parts:
    """A critic that says how much more it likes one half than the other, without any constraint."""
    x = normal(24, 8)
    side = (x[:, :1] > 0).float() * 2 - 1
    return Parts(deep(2, width=8), x, side, lambda out, y: (out * y).mean(), learning_rate=0.3)


ADDING_UP = ("zero_grad", "add up", "accumulate")
RECURRENT = ("initial", "started", "before any step", "recurrent", "each step", "forward pass")
MINIMUM = ("no minimum", "lower bound", "unbounded", "minus infinity", "targets beyond", "outside [0, 1]")
CASES = (
    PostedCase("a rate of ten", "https://www.codegenes.net/blog/loss-explodes-pytorch", "learning rate too high",
               large_rate, RATE, RATE, updates=40),
    PostedCase("rate of eight cards on one", f"{GITHUB}facebookresearch/maskrcnn-benchmark/issues/295",
               "learning rate too high", one_card, RATE, RATE, updates=20),
    PostedCase("Adam at 5.6", f"{GITHUB}flashlight/wav2letter/issues/334", "learning rate too high, Adam", steep_adam,
               RATE, RATE, updates=60),
    PostedCase("attention at a rate of two", f"{GITHUB}OpenNMT/OpenNMT-tf/issues/744", "learning rate too high, Adam",
               rate_of_two, RATE, RATE, updates=40),
    PostedCase("a warm-up that rises on", f"{GITHUB}YunYang1994/TensorFlow2.0-Examples/issues/8", "warm-up too fast",
               warm_up, ("learning rate", "rate rose", "warm-up"), RATE, updates=40),
    PostedCase("pixels summed", f"{GITHUB}ai-safety-foundation/sparse_autoencoder/issues/63", "sum instead of mean",
               summed, ("sum", "summed"), (*RATE, "cost summed"), updates=40),
    PostedCase("mean times the batch", f"{GITHUB}WongKinYiu/yolov7/issues/1713", "sum instead of mean",
               times_the_batch, ("sum", "summed", "times the batch"), (*RATE, "cost summed"), updates=80),
    PostedCase("weight decay of a thousand", f"{GITHUB}fastai/fastai/issues/1806", "L2 too strong", heavy_decay,
               ("l2", "decay"), ("penalty",), updates=60),
    PostedCase("weight decay at a high rate", f"{GITHUB}facebookresearch/fairseq/issues/79", "L2 too strong",
               decay_at_a_high_rate, ("l2", "decay"), ("penalty",), updates=250),
    PostedCase("language model with a ReLU", f"{GITHUB}chenxie95/deeplearning_course_sjtu/issues/31",
               "recurrence explodes", recurrent(120, 0.8, 1e-4),
               RECURRENT, ("initial weights",), "state"),
    PostedCase("sentences of a thousand steps", f"{GITHUB}keras-team/keras/issues/2194", "recurrence explodes",
               recurrent(400, 0.5, 1e-3), RECURRENT,
               ("initial weights",), "state"),
    PostedCase("keywords without zero_grad", f"{GITHUB}wenet-e2e/wekws/pull/73", "missing zero_grad",
               lambda: adding_up(3, 0.1, 8), ADDING_UP, (), updates=100),
    PostedCase("tennis court without zero_grad", f"{GITHUB}yastrebksv/TennisCourtDetector/issues/7",
               "missing zero_grad", lambda: adding_up(1, 0.4, 16), ADDING_UP, (), updates=120),
    PostedCase("masks of 255", f"{GITHUB}milesial/Pytorch-UNet/issues/78", "no lower bound", masks_of_255, MINIMUM, (),
               "targets", symptom=UNBOUNDED, updates=60),
    PostedCase("masks of minus one", f"{GITHUB}bigmb/Unet-Segmentation-Pytorch-Nest-of-Unets/issues/18",
               "no lower bound", masks_of_minus_one, MINIMUM, (), "targets", symptom=UNBOUNDED, updates=60),
    PostedCase("critic without a constraint", f"{GITHUB}ChristophReich1996/Mode_Collapse/pull/1", "no lower bound",
               critic, MINIMUM, (), symptom=UNBOUNDED, updates=60),
)  # fmt: skip
