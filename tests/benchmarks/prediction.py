"""Whether a run will diverge, foretold before its first update: the runs, the fit of the rule, and its score.

python tests/benchmarks/prediction.py --grid [--runs N]     train the runs and keep them in results/prediction.csv
python tests/benchmarks/prediction.py [--write]             fit the rule to some of them and score it on the others

A run is one of the question's network at full size, or of one of two networks that the rule is not fitted to, with a
learning rate, initial scale, seed, placement of ReLU and input scaling drawn at random. It diverges if its cost is NaN
or inf within 20 updates. The grid goes on where it stopped; about half an hour of one core.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import cnnlab
from cnnlab import data
from cnnlab.run import Run

RESULTS = Path(__file__).parent / "results"
UPDATES = 20
FIT, SCORE, OTHERS = 300, 1000, 300
"""Runs of the question's network that the rule is fitted to, and scored on; runs of each of the other networks."""
RATES = (1e-6, 10.0)
SCALES = (0.3, 2.5)
FIELDS = (
    "network", "number", "learning_rate", "init_scale", "seed", "relu", "input_scaling", "eigenvalue", "iterations",
    "cost", "gradient", "along", "weights", "ratio", "probe", "next_ratio", "diverged", "last_cost", "seconds",
)  # fmt: skip


ACTIVATIONS = {"question": nn.ReLU, "every_layer": nn.LeakyReLU, "none": nn.Identity, "softmax_too": nn.SiLU}
"""What takes the place of a placement of ReLU in the networks that the rule is not fitted to."""


def perceptron(act: type[nn.Module]) -> nn.Module:
    """Six hidden layers of 64 units."""
    widths = (256, 64, 64, 64, 64, 64, 64)
    hidden = [part for pair in itertools.pairwise(widths) for part in (nn.Linear(*pair), act())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 2))


def pooled(act: type[nn.Module]) -> nn.Module:
    """Five padded convolutions of 8 and 16 channels with pooling between them, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), act(), nn.Conv2d(8, 8, 3, padding=1), act(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), act(), nn.Conv2d(16, 16, 3, padding=1), act(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), act(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 2),
    )  # fmt: skip


NETWORKS = {"perceptron": perceptron, "pooled": pooled}


def drawn(network: str, number: int) -> dict:
    """What is random in a run: a function of its network's name and its number."""
    chance = np.random.default_rng([number, *network.encode()])
    uniform = lambda low, high: float(np.exp(chance.uniform(np.log(low), np.log(high))))  # noqa: E731
    return {
        "learning_rate": uniform(*RATES),
        "init_scale": uniform(*SCALES),
        "seed": int(chance.integers(10**6)),
        "relu": str(chance.choice(["question", "every_layer", "none", "softmax_too"])),
        "input_scaling": str(chance.choice(["raw", "unit", "standardised"])),
    }


def made(network: str, changes: dict) -> Run:
    """The run, before its first update."""
    if network == "question":
        return Run("question", device="cpu", history_bytes=2**20, **changes)
    wanted = cnnlab.settings("question", input_scaling=changes["input_scaling"], seed=changes["seed"])
    patches = data.patches_of(wanted)
    torch.manual_seed(changes["seed"])
    own = NETWORKS[network](ACTIVATIONS[changes["relu"]])
    with torch.no_grad():
        for parameter in own.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter)
            parameter.mul_(changes["init_scale"] if parameter.dim() > 1 else 0)
    cost = nn.functional.cross_entropy
    return Run(
        network=own, data=(patches.x, patches.y), cost=cost, learning_rate=changes["learning_rate"], device="cpu",
        history_bytes=2**20,
    )  # fmt: skip


def measured(network: str, number: int) -> dict:
    """One run: what can be known at its start, and how it ends."""
    from cnnlab.prediction import signs_of

    began = time.perf_counter()
    changes = drawn(network, number)
    run = made(network, changes)
    signs = signs_of(run)
    last = run.advance(UPDATES, until="nonfinite")
    end = {"diverged": int(last.nonfinite), "last_cost": last.cost, "seconds": time.perf_counter() - began}
    found = {"network": network, "number": number, **changes, **signs, **end}
    return {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in found.items()}


def train(runs: dict[str, int], path: Path) -> None:
    """Train the runs that are not in the file yet, and add a line for each."""
    done = {(row["network"], int(row["number"])) for row in rows_of(path)}
    torch.set_num_threads(1)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not done:
            writer.writeheader()
        for network, count in runs.items():
            for number in range(count):
                if (network, number) not in done:
                    writer.writerow(measured(network, number))
                    file.flush()


def rows_of(path: Path) -> list[dict]:
    """The lines of the file; none if it is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--grid", action="store_true")
    chosen = arguments.parse_args()
    if chosen.grid:
        train({"perceptron": OTHERS, "pooled": OTHERS, "question": FIT + SCORE}, RESULTS / "prediction.csv")
