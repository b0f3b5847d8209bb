"""The grid of runs that warnings are measured on: networks, settings and seeds, how each run ended, where it is kept.

Most of it is the question's nine layers made narrow (8 channels, 32 hidden units, patches of 14 pixels) so that some
thousands of runs take half an hour of one core; `wide` is the question's own size. Imported by warning.py and
warning_larger.py, whose options are here, too.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import pickle
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from cnnlab import Run
from cnnlab.records.record import Record

NARROW = {"channels": 8, "hidden": (32, 32), "patch_size": 14, "device": "cpu"}
HEALTHY, DIVERGING, SPOILT = "healthy", "diverging", "spoilt"
"""How a run ends: finite and no worse than it began; with a cost of NaN or inf; finite, but worse or dead."""


class Entry(NamedTuple):
    """One run of the grid: its family, what it is in words, its seed, how long it trains, and how it is made."""

    family: str
    name: str
    seed: int
    updates: int
    make: Callable[[], Run]


class Outcome(NamedTuple):
    """A run of the grid that has been trained."""

    family: str
    name: str
    seed: int
    ending: str
    record: Record


def question(family: str, seeds: int, updates: int, *changes: dict, **varied: Iterable) -> Iterator[Entry]:
    """The question's network: each of `changes` with every combination of what is varied, for every seed."""
    for change in changes or ({},):
        for values in itertools.product(*varied.values()):
            chosen = change | dict(zip(varied, values, strict=True))
            name = ", ".join(f"{key}={value}" for key, value in chosen.items())
            for seed in range(seeds):
                wanted = NARROW | chosen | {"seed": seed}
                yield Entry(family, name, seed, updates, lambda wanted=wanted: Run("question", **wanted))


def generator(seed: int) -> torch.Generator:
    """Chance of its own for one network."""
    return torch.Generator().manual_seed(seed)


def drawn(network: nn.Module, seed: int, gain: float = 1.0) -> nn.Module:
    """Fresh weights: normal, deviation gain / sqrt(inputs); biases 0."""
    chance = generator(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() >= 2:
                inputs = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=chance) * gain / inputs**0.5)
    return network


def squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Half the mean of squares."""
    return 0.5 * (outputs - targets).square().mean()


def own(family: str, name: str, seed: int, updates: int, make: Callable[[], dict], **changes: object) -> Entry:
    """A run of a network of one's own."""
    return Entry(family, name, seed, updates, lambda: Run(seed=seed, device="cpu", **make(), **changes))


def tanh_networks() -> Iterator[Entry]:
    """Tanh in two hidden layers, 64 examples of 10 numbers; classes (logits) or numbers (squares); all or 8 a batch."""

    def make(seed: int, width: int, cost: str) -> dict:
        chance = generator(1000 + seed)
        x = torch.randn(64, 10, generator=chance)
        y = (x[:, 0] * x[:, 1] > 0).long()
        network = nn.Sequential(
            nn.Linear(10, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
            nn.Linear(width, 2 if cost == "log_softmax" else 1),
        )  # fmt: skip
        targets = y if cost == "log_softmax" else y[:, None].float()
        return {
            "network": drawn(network, seed), "data": (x, targets),
            "cost": "log_softmax" if cost == "log_softmax" else squared,
        }  # fmt: skip

    rates = (1e-2, 1e-1, 0.5, 2.0, 10.0, 100.0, 1e4)
    for rate, width, cost, batch, seed in itertools.product(
        rates, (16, 64), ("log_softmax", "squares"), (None, 8), range(6)
    ):
        yield own(
            "MLP with tanh", f"{cost}, width {width}, batch {batch}, rate {rate:g}", seed, 64,
            lambda seed=seed, width=width, cost=cost: make(seed, width, cost), learning_rate=rate, batch_size=batch,
        )  # fmt: skip


def batch_norms() -> Iterator[Entry]:
    """Two convolutions with batch norm on small pictures of stripes, raw or scaled."""

    def make(seed: int, scale: float) -> dict:
        chance = generator(2000 + seed)
        y = torch.arange(48) % 2
        stripes = torch.sin(torch.arange(10) * 1.3)
        pictures = torch.where(y[:, None, None] == 0, stripes[:, None], stripes[None]).expand(48, 10, 10)
        x = (pictures + 0.7 * torch.randn(48, 10, 10, generator=chance))[:, None] * scale
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Flatten(), nn.Linear(288, 2),
        )  # fmt: skip
        return {"network": drawn(network, seed, 2**0.5), "data": (x, y), "cost": "log_softmax"}

    rates = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 1e3, 1e6)
    for rate, batch, scale, seed in itertools.product(rates, (None, 12), (1.0, 100.0), range(8)):
        yield own(
            "CNN with batch norm", f"inputs x {scale:g}, batch {batch}, rate {rate:g}", seed, 40,
            lambda seed=seed, scale=scale: make(seed, scale), learning_rate=rate, batch_size=batch,
        )  # fmt: skip


def regressions() -> Iterator[Entry]:
    """Linear regression on 32 examples of 6 numbers with noise, at multiples of its critical learning rate."""

    def make(seed: int) -> tuple[dict, float]:
        chance = generator(3000 + seed)
        x = torch.randn(32, 6, generator=chance)
        y = x @ torch.randn(6, 1, generator=chance) + 0.5 * torch.randn(32, 1, generator=chance)
        with_bias = torch.cat([x, torch.ones(32, 1)], 1)
        critical = 2 / torch.linalg.eigvalsh(with_bias.T @ with_bias / 32)[-1].item()
        return {"network": drawn(nn.Linear(6, 1), seed), "data": (x, y), "cost": squared}, critical

    multiples = (0.05, 0.3, 0.7, 0.95, 1.02, 1.2, 1.5, 2.0, 4.0, 20.0, 1000.0)
    for multiple, batch, seed in itertools.product(multiples, (None, 8), range(8)):
        rate = multiple * make(seed)[1]
        yield own(
            "linear regression", f"batch {batch}, {multiple:g} of the critical rate", seed, 140,
            lambda seed=seed: make(seed)[0], learning_rate=rate, batch_size=batch,
        )  # fmt: skip


def catapults() -> Iterator[Entry]:
    """Two layers of width 512 in the scaling of Lewkowycz et al. (2020): above the critical rate the cost may recover.

    The output is divided by the root of the width, weights are of deviation 1; squares of 8 examples of 4 numbers.
    """

    class Scaled(nn.Module):
        def __init__(self, relu: bool) -> None:
            super().__init__()
            self.first, self.last, self.relu = nn.Linear(4, 512, bias=False), nn.Linear(512, 1, bias=False), relu

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.first(x) / 2
            return self.last(hidden.relu() if self.relu else hidden) / 512**0.5

    def make(seed: int, relu: bool) -> tuple[dict, float]:
        chance = generator(4000 + seed)
        x, y = torch.randn(8, 4, generator=chance), torch.randn(8, 1, generator=chance)
        network = Scaled(relu)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=chance))
        rows = []
        for example in x:
            outputs = network(example[None]).sum()
            rows.append(
                torch.cat([part.flatten() for part in torch.autograd.grad(outputs, list(network.parameters()))])
            )
        kernel = torch.stack(rows) @ torch.stack(rows).T / 8
        return {"network": network, "data": (x, y), "cost": squared}, 2 / torch.linalg.eigvalsh(kernel)[-1].item()

    for multiple, relu, seed in itertools.product((0.5, 1.05, 1.3, 1.6, 1.9, 2.5, 4.0, 8.0), (False, True), range(12)):
        rate = multiple * make(seed, relu)[1]
        yield own(
            "catapult", f"{'ReLU' if relu else 'linear'}, {multiple:g} of the critical rate", seed, 120,
            lambda seed=seed, relu=relu: make(seed, relu)[0], learning_rate=rate,
        )  # fmt: skip


def rising_validation() -> Iterator[Entry]:
    """24 examples with random labels learnt by heart: the cost of held-out ones rises, that of the batch is noisy."""

    def make(seed: int) -> dict:
        chance = generator(5000 + seed)
        x, y = torch.randn(24, 20, generator=chance), torch.randint(0, 2, (24,), generator=chance)
        network = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
        return {"network": drawn(network, seed, 2**0.5), "data": (x, y), "cost": "log_softmax"}

    for rate, batch, seed in itertools.product((0.05, 0.3), (4, None), range(10)):
        yield own(
            "learning by heart", f"batch {batch}, rate {rate:g}", seed, 250,
            lambda seed=seed: make(seed), learning_rate=rate, batch_size=batch,
        )  # fmt: skip


def entries() -> Iterator[Entry]:
    """Every run of the grid."""
    inits = {"init": ("question_2", "question_6"), "input_scaling": ("raw", "standardised")}
    rates = (1e-1, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)
    good = {"init": "he_normal", "init_scale": 1.0, "input_scaling": "standardised"}
    yield from question("question, narrow", 10, 30, learning_rate=rates, **inits)
    wide = {"channels": 32, "hidden": (128, 128), "patch_size": 16}
    yield from question("question, wide", 30, 20, wide, learning_rate=(1e-2, 1e-3, 1e-4))
    yield from question(
        "question, wide",
        8,
        20,
        wide,
        learning_rate=(1e-2, 1e-3),
        precision=("bfloat16", "float64"),
        momentum=(0.0, 0.9),
    )
    yield from question("question, wide", 8, 33, wide | {"batch_size": 6}, learning_rate=(1e-2, 1e-3, 1e-4))
    yield from question(
        "log of a softmax", 16, 99, wide | good | {"cost": "softmax_log", "momentum": 0.9, "batch_size": 2},
        learning_rate=(0.03,), clip=("norm",), clip_threshold=(40.0,), epsilon=(0.0,),
    )  # fmt: skip
    yield from question(
        "mini-batches", 8, 66, {"batch_size": 6}, learning_rate=(1e-2, 1e-3, 1e-4, 1e-5), momentum=(0.0, 0.9)
    )
    yield from question(
        "mini-batches", 8, 110, good | {"batch_size": 6}, good | {"batch_size": 2},
        learning_rate=(0.3, 0.1, 0.03, 0.01, 0.002), momentum=(0.0, 0.9),
    )  # fmt: skip
    yield from question(
        "precisions", 6, 30, precision=("float16", "bfloat16", "float64"), learning_rate=(1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
        input_scaling=("raw", "unit"),
    )  # fmt: skip
    yield from question(
        "log of a softmax", 6, 99, good | {"cost": "softmax_log", "momentum": 0.9, "batch_size": 4},
        learning_rate=(0.1, 0.03, 0.01, 0.001), clip=("off", "norm"), clip_threshold=(40.0,), epsilon=(0.0, 1e-8),
    )  # fmt: skip
    yield from question(
        "clipping", 4, 40, clip=("value", "norm", "adaptive"), clip_threshold=(0.1, 1.0, 10.0),
        learning_rate=(1e-2, 1e-3),
    )  # fmt: skip
    yield from question(
        "summed cost", 6, 30, {"reduction": "sum"}, learning_rate=(1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
        input_scaling=("raw", "standardised"),
    )  # fmt: skip
    yield from question("L1 and L2", 4, 60, good, l2=(0.1, 1.0, 150.0, 250.0, 1000.0), penalty_in=("cost", "update"))
    yield from question("L1 and L2", 4, 60, good, l1=(1e-3, 1.0, 100.0), penalty_in=("cost", "update"))
    yield from question(
        "momentum", 6, 60, good, learning_rate=(1e-1, 1e-2, 1e-3), momentum=(0.9, 0.99, 1.0)
    )  # fmt: skip
    yield from question(
        "initial scale", 5, 40, init_scale=(0.1, 0.3, 2.0, 5.0, 10.0, 30.0), input_scaling=("unit", "standardised"),
        learning_rate=(1e-2, 1e-3),
    )  # fmt: skip
    yield from question(
        "narrow but learning", 20, 200, good | {"batch_size": 10}, learning_rate=(2e-3,), momentum=(0.9,)
    )
    yield from tanh_networks()
    yield from batch_norms()
    yield from regressions()
    yield from catapults()
    yield from rising_validation()


def ending(record: Record) -> str:
    """How a run ended, by its costs and by what can still move; no rule of warning has a say in it."""
    if record.first_nonfinite is not None:
        return DIVERGING
    last = float(np.median(record.cost[-5:]))
    dead = (np.nan_to_num(record.dead_relu[-1]) == 1).any() or record.total_gradient_norm[-1] == 0
    worse = last > 1.05 * record.cost[0] + 1e-3 * (1 + record.cost[0])
    return SPOILT if dead or worse else HEALTHY


def trained(entry: Entry) -> Outcome:
    """One run to its end, without its kernels and states."""
    run = entry.make()
    run.advance(entry.updates, until="nonfinite")
    record = dataclasses.replace(run.record, kernels=run.record.kernels[:, :0], take_snapshots=tuple)
    return Outcome(entry.family, entry.name, entry.seed, ending(record), record)


def outcomes(kept_in: Path | None) -> Iterator[Outcome]:
    """Every run of the grid."""
    for entry in entries():
        name = re.sub("[^a-z0-9.+-]+", "_", f"{entry.family} {entry.name} {entry.seed}".lower())
        yield Outcome(*recall(kept_in, name, lambda entry=entry: trained(entry)))


def recall(kept_in: Path | None, name: str, train: Callable[[], tuple]) -> tuple:
    """What a run gave, from the folder if it has been trained before, else trained and kept there."""
    if kept_in is None:
        return train()
    path = kept_in / f"{name}.pickle"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(tuple(train())))
    return pickle.loads(path.read_bytes())


def print_report(what: str, report: Callable[[Path | None], str], results: Path) -> None:
    """Print the tables of a benchmark of warnings, and keep them where that is asked for."""
    options = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keep", type=Path, help="folder that holds the records between two calls")
    options.add_argument("--write", action="store_true", help=f"keep the tables in {results.name}")
    given = options.parse_args()
    text = report(given.keep)
    print(text)
    if given.write:
        results.write_text(text)
