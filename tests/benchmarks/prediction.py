"""Whether a run will diverge, foretold before its first update: the runs, the fit of the rule, and its score.

python tests/benchmarks/prediction.py --grid [--runs N]     train the runs and keep them in results/prediction.csv
python tests/benchmarks/prediction.py --write               fit the rule to 300 of them, and score it on all
python tests/benchmarks/prediction.py                       score the rule as it is

A run is one of the question's network at full size, or of one of two networks that the rule is not fitted to, with a
learning rate, initial scale, seed, placement of ReLU and input scaling drawn at random. It diverges if its cost is NaN
or inf within 20 updates. The grid goes on where it stopped; about half an hour of one core.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import cnnlab
from cnnlab.curvature.divergence import SIGNS, compute_chance, logarithm, measure_signs
from cnnlab.training import data
from cnnlab.training.run import Run

RESULTS = Path(__file__).parent / "results"
UPDATES = 20
FIT, SCORE, OTHERS = 300, 1000, 1000
"""Runs of the question's network that the rule is fitted to, and scored on; runs of each of the other networks."""
RATES = (1e-6, 10.0)
SCALES = (0.3, 2.5)
RIDGE = 1.0
SEEN = 300
"""The first runs of the other networks were looked at while the signs were chosen: they are no part of the score."""
RULE = Path(cnnlab.__file__).parent / "prediction.json"
FIELDS = (
    "network", "number", "learning_rate", "init_scale", "seed", "relu", "input_scaling", "critical", "ratio",
    "next_ratio", "eigenvalue", "cost", "next_cost", "diverged", "last_cost", "seconds",
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
    patches = data.make_patches(wanted)
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
    began = time.perf_counter()
    changes = drawn(network, number)
    run = made(network, changes)
    signs = measure_signs(run)
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


def fitted(rows: list[dict]) -> dict[str, float]:
    """The coefficients of a logistic rule of the signs, with a weak ridge; divergers and survivors weigh alike."""
    signs, diverged = signs_in(rows), ended(rows)
    mean, spread = signs.mean(0), signs.std(0)
    inputs = np.column_stack([np.ones(len(rows)), (signs - mean) / spread])
    weights = np.where(diverged, 0.5 / diverged.mean(), 0.5 / (~diverged).mean())
    ridge = np.diag([0.0, *[RIDGE] * len(SIGNS)])
    found = np.zeros(inputs.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-(inputs @ found)))
        curvature = inputs.T @ (inputs * (weights * chance * (1 - chance))[:, None]) + ridge
        found += np.linalg.solve(curvature, inputs.T @ (weights * (diverged - chance)) - ridge @ found)
    slopes = found[1:] / spread
    constant = float(found[0] - slopes @ mean)
    return {"constant": round(constant, 4), **{name: round(float(b), 4) for name, b in zip(SIGNS, slopes, strict=True)}}


def signs_in(rows: list[dict]) -> np.ndarray:
    """The logarithms that the rule looks at, (rows, signs)."""
    return np.array([[logarithm(float(row[name])) for name in SIGNS] for row in rows])


def ended(rows: list[dict]) -> np.ndarray:
    """Which rows diverged."""
    return np.array([row["diverged"] == "1" for row in rows])


def said(rows: list[dict]) -> np.ndarray:
    """Which rows the rule says will diverge."""
    return np.array([compute_chance({name: float(row[name]) for name in SIGNS}) > 0.5 for row in rows])


def score(name: str, rows: list[dict], verdicts: np.ndarray) -> str:
    """A line of the table: how many of the divergers and of the survivors are told, and the mean of the two."""
    diverged = ended(rows)
    caught, spared = verdicts[diverged].mean(), (~verdicts[~diverged]).mean()
    return (
        f"| {name} | {len(rows)} | {diverged.sum()} | {caught:.3f} | {spared:.3f} | **{(caught + spared) / 2:.3f}** |"
    )


def shares(rows: list[dict]) -> list[str]:
    """How many diverge by how far the learning rate lies above the critical one."""
    times, diverged = np.array([float(row["critical"]) for row in rows]), ended(rows)
    lines = ["| learning rate / critical | runs | diverged |", "|---|---|---|"]
    for low, high in itertools.pairwise((0, 0.3, 1, 3, 10, 30, 100, math.inf)):
        inside = (times > low) & (times <= high) | (times <= 0) * (low == 0)
        lines.append(f"| {low:g} to {high:g} | {inside.sum()} | {diverged[inside].mean():.0%} |")
    return lines


def report(rows: list[dict]) -> str:
    """The tables in Markdown."""
    question = [row for row in rows if row["network"] == "question"]
    fit, test = question[:FIT], question[FIT:]
    groups = {"question, fitted to": fit, "question": test}
    groups |= {name: [row for row in rows if row["network"] == name][SEEN:] for name in NETWORKS}
    head = [
        "| runs | number | diverged | divergers told | survivors told | balanced accuracy |",
        "|---|---|---|---|---|---|",
    ]
    kinds = {kind: [row for row in test if row["relu"] == kind] for kind in dict.fromkeys(row["relu"] for row in test)}
    lines = [
        "# Will it diverge? Said before the first update",
        "",
        f"torch {torch.__version__.partition('+')[0]}, x86-64. Learning rate from {RATES[0]:g} to {RATES[1]:g} and",
        f"initial scale from {SCALES[0]:g} to {SCALES[1]:g} (log-uniform), seed, ReLU placement and input scaling at",
        f"random; diverged: NaN or inf within {UPDATES} updates of the full batch. The question's network, full size;",
        "and a perceptron of six hidden layers and five padded convolutions with pooling, each with ReLU, LeakyReLU,",
        "SiLU or none, to which nothing was fitted; their first 300 runs each, which were looked at",
        "while the signs were chosen, are left out of the score. The runs are in prediction.csv.",
        "",
        *head,
        *(score(name, group, said(group)) for name, group in groups.items()),
        "",
        "The question's runs that the rule was not fitted to, by placement of ReLU:",
        "",
        *head,
        *(score(name, group, said(group)) for name, group in kinds.items()),
        "",
        "The same by the plainest rule of all, a learning rate above the critical one:",
        "",
        *head,
        *(
            score(name, group, np.array([float(row["critical"]) > 1 for row in group]))
            for name, group in list(groups.items())[1:]
        ),
        "",
        "All runs of the question's network by how far the learning rate lies above the critical one:",
        "",
        *shares(question),
        "",
        "With ReLU at the softmax too, many runs swing so far that every unit dies, and no number overflows.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--grid", action="store_true")
    arguments.add_argument("--write", action="store_true")
    chosen = arguments.parse_args()
    if chosen.grid:
        train({"perceptron": OTHERS, "pooled": OTHERS, "question": FIT + SCORE}, RESULTS / "prediction.csv")
    found = rows_of(RESULTS / "prediction.csv")
    if chosen.write:
        coefficients = fitted([row for row in found if row["network"] == "question"][:FIT])
        RULE.write_text(json.dumps(coefficients) + "\n")
    text = report(found)
    print(text)
    if chosen.write:
        (RESULTS / "prediction.md").write_text(text)
