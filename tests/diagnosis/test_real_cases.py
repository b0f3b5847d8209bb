"""Networks that people posted as exploding, rebuilt small: each shows its trouble, and the gauges show where it began.

Facts alone come from the sources named; each case holds what was wrong there, in a few numbers. The diagnosis is
that of `cnnlab.autopsy`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cnnlab
from cnnlab import Record, Run

DIVERGENCE, CAUSED_BY_COST, CAUSED_BY_DATA, OVERFLOW, FORWARD = "divergence", "cost", "data", "overflow", "forward"
"""What was wrong: too long steps; a cost whose value or gradient is not finite; NaN in the data; the end of a
precision; an operation within the network."""


@dataclass(frozen=True)
class Case:
    """A posted network, rebuilt."""

    source: str
    """Where it was posted."""
    fact: str
    """What was said to be wrong there, in our words."""
    cause: str
    make: Callable[[], Run]
    cured: Callable[[], Run]
    """The same with the one change that the source names, or that follows from its cause."""
    shows: Callable[[Record], bool]
    """What the gauges show."""
    updates: int = 60
    remedies: tuple[str, ...] = field(default=())


def own(network: nn.Module, data: tuple, cost: Callable[..., Tensor], **changes: object) -> Run:
    return Run(network=network, data=data, cost=cost, device="cpu", **changes)


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return make()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


mse = nn.functional.mse_loss
ce = nn.functional.cross_entropy


def rises_first(record: Record) -> bool:
    """The cost rises by a factor of a thousand, and only then is it not finite."""
    before = record.cost[: record.first_nonfinite - 1]
    return len(before) > 1 and before.max() > 1000 * before[0]


def breaks_without_a_rise(record: Record) -> bool:
    """The cost is small until it is not finite, or the weights are NaN behind a cost that was small."""
    before = record.cost[: record.first_nonfinite - 1]
    return not len(before) or before.max() < 1000 * max(before[0], 1e-3)


def gradient_breaks_first(record: Record) -> bool:
    """At the last finite cost the gradient is already NaN or inf, while no weight was."""
    last = record.first_nonfinite - 1
    frame = record.frame(last)
    return (
        math.isfinite(frame.cost)
        and (frame.gradient_nan + frame.gradient_inf).sum() > 0
        and record.column("weight_nan")[last - 1].sum() == 0
    )


def activations_break_first(record: Record) -> bool:
    """In the first broken update activations are NaN or inf before any weight is."""
    first = record.first_nonfinite
    frame = record.frame(first)
    counted = np.nansum(frame.activation_nan) + np.nansum(frame.activation_inf)
    lost = record.column("weight_nan")[first - 1] + record.column("weight_inf")[first - 1]
    return counted > 0 and lost.sum() == 0


# 1 and 2: linear models, features of hundreds.


def slope(rate: float, factor: float = 1.0) -> Run:
    x = torch.tensor([1.0, 2, 3, 4, 5, 100, 200])[:, None] * factor
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    # The post sums over examples.
    return own(network, (x, 2 * x), lambda out, y: (out - y).square().sum() / 2, learning_rate=rate)


def line(factor: float) -> Run:
    x = torch.rand(500, 1, generator=torch.Generator().manual_seed(0)) * factor
    network = nn.Linear(1, 1)
    nn.init.zeros_(network.weight), nn.init.zeros_(network.bias)
    return own(network, (x, 5 * x + 3), mse, learning_rate=0.01)


# 3: a cubic function predicted from its past, sum of squares.


def cubic(scaled: bool) -> Run:
    t = torch.linspace(-10, 10, 100)
    y = t**3 + t**2 + t
    y = y / y.std() if scaled else y
    network = seeded(lambda: nn.Linear(80, 20))
    nn.init.normal_(network.weight, std=0.03 if scaled else 3)
    data = y[None, :80], y[None, 80:]
    return own(network, data, lambda out, want: mse(out, want, reduction="sum"), learning_rate=1e-3 if scaled else 1e-6)


# 4: a deep chain of layers without any norm.


def chain(norm: bool, rate: float = 0.1) -> Run:
    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for _ in range(12):
            layer = nn.Linear(32, 32)
            nn.init.normal_(layer.weight, std=0.5)
            layers += [layer, *([nn.LayerNorm(32)] if norm else []), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(32, 3))

    return own(seeded(make), (normal(24, 32), torch.arange(24) % 3), ce, learning_rate=rate)


# 5: the square root of a sum of squares at zero.


class Distance(nn.Module):
    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.embed, self.epsilon = nn.Linear(4, 4), epsilon

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        apart = self.embed(left) - self.embed(right)
        return (apart.square().sum(1) + self.epsilon).sqrt()


def distance(epsilon: float) -> Run:
    left = normal(10, 4)
    right = normal(10, 4, seed=1)
    right[3] = left[3]  # a pair that is the same twice
    return own(seeded(lambda: Distance(epsilon)), ((left, right), torch.ones(10)), mse, learning_rate=0.01)


# 6: where(condition, exp(x), 1 + x): the branch not taken has an infinite gradient.


class Guarded(nn.Module):
    def __init__(self, clamped: bool) -> None:
        super().__init__()
        self.scale, self.clamped = nn.Linear(1, 1), clamped
        nn.init.ones_(self.scale.weight)

    def forward(self, x: Tensor) -> Tensor:
        a = self.scale(x)
        inner = a.clamp(max=0) if self.clamped else a
        return torch.where(a <= 0, torch.exp(inner), 1 + a)


def guarded(clamped: bool) -> Run:
    x = torch.tensor([[-1.0], [0.5], [100.0]])
    return own(seeded(lambda: Guarded(clamped)), (x, torch.ones(3, 1)), mse, learning_rate=1e-5)


# 7: attention whose every key is masked with -inf.


class Masked(nn.Module):
    def __init__(self, floor: float) -> None:
        super().__init__()
        self.query, self.head, self.floor = nn.Linear(6, 6), nn.Linear(6, 3), floor

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        scores = self.query(x) @ x.transpose(1, 2)
        weights = scores.masked_fill(padding[:, None, :], self.floor).softmax(-1)
        return self.head((weights @ x).mean(1))


def masked(floor: float) -> Run:
    padding = torch.zeros(8, 5, dtype=torch.bool)
    padding[:, 3:] = True
    padding[2] = True  # an empty sequence
    data = (normal(8, 5, 6), padding), torch.arange(8) % 3
    return own(seeded(lambda: Masked(floor)), data, ce, learning_rate=0.01)


# 8: a batch in which every label is ignored.


def ignored(all_of_them: bool) -> Run:
    labels = torch.arange(12) % 3
    labels[:6] = -100
    if not all_of_them:
        labels[0] = 1
    return own(seeded(lambda: nn.Linear(5, 3)), InOrder(normal(12, 5), labels), ce, learning_rate=0.1)


class InOrder(torch.utils.data.DataLoader):
    """Two batches of six, in their order."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__(torch.utils.data.TensorDataset(x, y), batch_size=6)


# 9: a variational autoencoder whose log-variance is not bounded.


class Variational(nn.Module):
    def __init__(self, bounded: bool) -> None:
        super().__init__()
        self.encode, self.spread, self.decode = nn.Linear(20, 4), nn.Linear(20, 4), nn.Linear(4, 20)
        self.bounded = bounded

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encode(x), self.spread(x)
        if self.bounded:
            log_variance = log_variance.clamp(-8, 2)
        return self.decode(mean + (log_variance / 2).exp() * torch.randn_like(mean)), mean, log_variance


def evidence(outputs: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    guess, mean, log_variance = outputs
    divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)
    return (guess - x).square().sum(1).mean() + divergence.mean()


def variational(bounded: bool) -> Run:
    x = normal(16, 20) * 30
    changes = {"learning_rate": 1e-6} if bounded else {"learning_rate": 1e-3}
    return own(seeded(lambda: Variational(bounded)), (x, x), evidence, **changes)


# 10: connectionist temporal classification, targets longer than what is to be aligned with them.


def alignment(zero_infinity: bool) -> Run:
    def cost(out: Tensor, y: Tensor) -> Tensor:
        steps, targets = torch.full((4,), 5), torch.tensor([3, 3, 8, 3])
        logs = out.log_softmax(-1).transpose(0, 1)
        return nn.functional.ctc_loss(logs, y, steps, targets, zero_infinity=zero_infinity)

    y = torch.randint(1, 6, (4, 8), generator=torch.Generator().manual_seed(0))
    return own(seeded(lambda: nn.Linear(3, 6)), (normal(4, 5, 3), y), cost, learning_rate=0.1)


# 11: a softmax and a log apart, so that a certain wrong answer costs log(0).


def apart(exact: bool) -> Run:
    def cost(out: Tensor, y: Tensor) -> Tensor:
        return ce(out, y) if exact else -out.softmax(1).gather(1, y[:, None]).log().mean()

    network = seeded(lambda: nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 3)))
    x = normal(30, 10) * 300
    return own(network, (x, torch.arange(30) % 3), cost, learning_rate=1e-7)


# 12: half precision, a learning rate that takes activations past 65504.


def half(precision: str) -> Run:
    def make() -> nn.Module:
        return nn.Sequential(*(part for _ in range(4) for part in (nn.Linear(64, 64), nn.ReLU())), nn.Linear(64, 3))

    network = seeded(make)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(20)
    return own(network, (normal(16, 64), torch.arange(16) % 3), ce, learning_rate=1e-9, precision=precision)


# 13: a missing value in one feature of one example.


def missing(filled: bool) -> Run:
    x = normal(20, 6)
    x[7, 2] = 0.0 if filled else math.nan
    return own(seeded(lambda: nn.Linear(6, 3)), (x, torch.arange(20) % 3), ce, learning_rate=0.1)


GITHUB = "https://github.com/"
CASES = {
    "slope of large features": Case(
        "https://datascience.stackexchange.com/questions/117008/normalising-data-for-simple-linear-regression",
        "y = 2x with x up to 200 and a learning rate of 0.01 gives NaN; 1e-5 converges",
        DIVERGENCE, lambda: slope(0.01), lambda: slope(1e-5), rises_first, remedies=("learning_rate",),
    ),
    "line of large features": Case(
        "https://mejorcodigo.com/p/45698.html",
        "rand(500) trains at 0.01, rand(500) * 100 explodes within a few updates",
        DIVERGENCE, lambda: line(100), lambda: line(1), rises_first, remedies=("learning_rate",),
    ),
    "cubic function": Case(
        "https://stats.stackexchange.com/questions/594738/loss-is-growing-between-epochs-in-simple-model",
        "80 inputs up to 1e3, weights of deviation 3, sum of squares, 1e-6: the cost grows a hundredfold an update",
        DIVERGENCE, lambda: cubic(False), lambda: cubic(True), rises_first, remedies=("learning_rate",),
    ),
    "many layers without a norm": Case(
        f"{GITHUB}cvignac/SMP/issues/3",
        "activations explode where many layers follow each other without normalisation",
        DIVERGENCE, lambda: chain(False), lambda: chain(True),
        lambda record: record.logit_gap[0] > 1000 and rises_first(record),
    ),
    "root of zero": Case(
        f"{GITHUB}pytorch/pytorch/issues/2421",
        "the gradient of a norm at zero is 0 times inf",
        CAUSED_BY_COST, lambda: distance(0.0), lambda: distance(1e-8), gradient_breaks_first,
    ),
    "the branch not taken": Case(
        f"{GITHUB}pytorch/pytorch/issues/68425",
        "where(a <= 0, exp(a), 1 + a) at a = 100 is finite, its gradient NaN",
        CAUSED_BY_COST, lambda: guarded(False), lambda: guarded(True), gradient_breaks_first,
    ),
    "all keys masked": Case(
        f"{GITHUB}pytorch/pytorch/issues/41508",
        "a softmax over a row of -inf alone is NaN",
        FORWARD, lambda: masked(-math.inf), lambda: masked(-1e9), activations_break_first,
    ),
    "all labels ignored": Case(
        f"{GITHUB}pytorch/pytorch/issues/70348",
        "the mean cross-entropy of a batch whose labels are all -100 is 0/0",
        CAUSED_BY_COST, lambda: ignored(True), lambda: ignored(False), breaks_without_a_rise,
    ),
    "variance without a bound": Case(
        f"{GITHUB}vanderschaarlab/synthcity/issues/331",
        "the exponential of an unbounded log-variance explodes; clamping it helps",
        OVERFLOW, lambda: variational(False), lambda: variational(True),
        lambda record: record.cost[0] > 1e10 and record.update_ratio[0].max() > 1e6,
    ),
    "targets too long to align": Case(
        f"{GITHUB}pytorch/pytorch/pull/16199",
        "CTC costs are inf and gradients NaN where the input is shorter than its target",
        CAUSED_BY_COST, lambda: alignment(False), lambda: alignment(True), breaks_without_a_rise,
    ),
    "softmax and log apart": Case(
        "https://stackoverflow.com/questions/40050397/deep-learning-nan-loss-reasons",
        "a cross-entropy of one's own after a softmax meets log(0); the library's own, from logits, does not",
        CAUSED_BY_COST, lambda: apart(False), lambda: apart(True), breaks_without_a_rise, remedies=("cost", "epsilon"),
    ),
    "half precision overflows": Case(
        f"{GITHUB}NVIDIA/apex/issues/240",
        "training wholly in float16 gives NaN where float32 does not",
        OVERFLOW, lambda: half("float16"), lambda: half("float32"), activations_break_first, remedies=("precision",),
    ),
    "a missing value": Case(
        "https://pythonhint.com/post/1021424426335883/deep-learning-nan-loss-reasons",
        "a missing value in the data is NaN in the cost, whatever the learning rate",
        CAUSED_BY_DATA, lambda: missing(False), lambda: missing(True), activations_break_first,
    ),
}  # fmt: skip


def trained(case: Case) -> Record:
    run = case.make()
    run.advance(case.updates, until="nonfinite")
    return run.record


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_posted_network_breaks_as_it_was_said_to(case):
    assert trained(case).first_nonfinite is not None


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_gauges_show_what_was_wrong(case):
    assert case.shows(trained(case))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_one_change_that_was_named_mends_it(case):
    run = case.cured()
    run.advance(10)
    assert run.record.first_nonfinite is None
    assert np.isfinite(run.record.column("weight_norm")).all()


def test_adam_in_float16_breaks_at_its_first_update_without_a_bad_gradient():
    """https://github.com/afiaka87/glide-finetune/pull/6: Adam's epsilon of 1e-8 is 0 in float16; 1e-4 mends it."""
    x, y = normal(16, 6), torch.arange(16) % 3
    x[:, 4] = 0  # a feature that is never there: its weights have a gradient of 0, and 0 / (0 + 0) is NaN
    broken, stopped, mended = (seeded(lambda: nn.Linear(6, 3)).half() for _ in range(3))
    for model, epsilon, stop in ((broken, 1e-8, False), (stopped, 1e-8, True), (mended, 1e-4, False)):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=epsilon)
        with cnnlab.watch(model, optimizer, stop_before_nan=stop) as watch:
            for _ in range(3):
                optimizer.zero_grad()
                ce(model(x.half()).float(), y).backward()
                optimizer.step()
        if model is broken:
            assert watch.record.gradient_nan[0].sum() == 0
            assert watch.record.weight_nan[0].sum() == 3
            assert watch.record.first_nonfinite == 2
        elif stop:
            assert watch.stopped.startswith("stopped because update 1 holds NaN or inf in weight")
            assert model.weight.isfinite().all()
        else:
            assert watch.record.first_nonfinite is None


def test_the_sources_are_at_least_ten():
    assert len({case.source for case in CASES.values()}) >= 10
    assert all(case.source.startswith("https://") and case.fact for case in CASES.values())


FOUND = {
    "slope of large features": ("learning rate above critical", "cost", "", "overflow"),
    "line of large features": ("learning rate above critical", "cost", "", "overflow"),
    "cubic function": ("initial weights too large", "cost", "", "overflow"),
    "many layers without a norm": ("learning rate above critical", "activation", "4", "overflow"),
    "root of zero": ("undefined operation", "gradient", "embed", "x/0"),
    "the branch not taken": ("exp beyond the type", "activation", "scale", "exp overflow"),
    "all keys masked": ("undefined operation", "activation", "query", "inf-inf"),
    "all labels ignored": ("undefined operation", "cost", "", "0/0"),
    "variance without a bound": ("exp beyond the type", "activation", "spread", "exp overflow"),
    "targets too long to align": ("undefined operation", "cost", "", "log(0)"),
    "softmax and log apart": ("log(0) by saturation", "cost", "", "log(0)"),
    "half precision overflows": ("overflow of the precision", "logit", "8", "overflow"),
    "a missing value": ("data hold NaN", "input", "", "given"),
}
"""Case -> cause, phase, layer and operation."""


@pytest.mark.parametrize("name", CASES)
def test_the_autopsy_names_cause_and_place(name):
    run = CASES[name].make()
    run.advance(CASES[name].updates, until="nonfinite")
    found = cnnlab.autopsy(run, prove=False)
    assert (found.cause, found.phase, found.layer, found.operation) == FOUND[name]
    assert found.step <= run.record.first_nonfinite


@pytest.mark.parametrize("name", CASES)
def test_a_record_alone_still_tells_the_update(name):
    record = trained(CASES[name])
    found = cnnlab.autopsy(record)
    assert found.operation == "unknown"
    assert found.step <= record.first_nonfinite


def test_every_case_has_an_answer():
    assert FOUND.keys() == CASES.keys()
