"""What the forecast is worth over the larger space: every optimiser, normalisation, activation, depth, residual.

python tests/benchmarks/prediction_larger.py      train what is missing in results/prediction_larger.csv

A run's settings are drawn at random; six starts of it are trained, the forecast's five and one more. prediction.py
makes the table. It goes on where it stopped; about ten minutes of one core.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cnnlab.config.settings import ADAPTIVE, LIMITS, Settings, settings
from cnnlab.curvature.divergence import SEEDS, WITHIN
from cnnlab.sweeps.ensemble import compute

FILE = Path(__file__).parent / "results" / "prediction_larger.csv"
RUNS, TRIED = 1000, 1 + SEEDS
MAJORITY = TRIED // 2 + 1
LONG = 60
"""Updates for which the sixth start is trained, to see how many diverge after those of a forecast."""
OPTIMIZERS = LIMITS["optimizer"].options  # type: ignore[union-attr]
RATES, ADAPTIVE_RATES = (1e-6, 10.0), (1e-5, 1e3)
"""The step of an optimiser that divides by its gradients is as long as its learning rate, whatever the cost."""
SCALES = (0.3, 2.5)
SHARED: dict[str, Any] = {"channels": 8, "hidden": (32, 32), "patch_size": 14, "device": "cpu"}
"""A narrow network, as in grid.py, so that a thousand settings take no more than twenty minutes."""
DRAWN = (
    "optimizer", "learning_rate", "momentum", "seed", "init", "init_scale", "input_scaling", "batch_size", "relu",
    "activation", "normalization", "normalization_place", "depth", "padding", "residual", "dropout", "cost",
    "precision",
)  # fmt: skip
FIELDS = ("number", *DRAWN, *(f"start {place}" for place in range(1, SEEDS + 3)))


class Tried(NamedTuple):
    """A run of the file."""

    number: int
    optimizer: str
    told: int
    """How many of the forecast's starts diverged."""
    sixth: int
    """The update at which one more diverged within LONG; 0: it did not."""

    @property
    def diverged(self) -> bool:
        """Whether the sixth start diverged within the forecast's updates."""
        return 0 < self.sixth <= WITHIN


def draw(number: int, of: bytes = b"larger") -> Settings:
    """What is random in a run: a function of its number and of what it is for; each optimiser has every fifth."""
    chance = np.random.default_rng([number, *of])
    pick = lambda *options: options[int(chance.integers(len(options)))]  # noqa: E731
    uniform = lambda low, high: float(f"{np.exp(chance.uniform(np.log(low), np.log(high))):.6g}")  # noqa: E731
    optimizer = OPTIMIZERS[number % len(OPTIMIZERS)]
    changes: dict[str, Any] = {
        "learning_rate": uniform(*(ADAPTIVE_RATES if optimizer in ADAPTIVE else RATES)),
        "init_scale": uniform(*SCALES),
        "seed": int(chance.integers(10**6)),
        "init": pick("question_6", "he_normal", "glorot_uniform", "orthogonal"),
        "input_scaling": pick("raw", "unit", "standardised"),
        "batch_size": pick(None, 11),
        "relu": pick("question", "every_layer", "none", "softmax_too"),
        "activation": pick(*LIMITS["activation"].options),  # type: ignore[union-attr]
        "normalization": pick("off", "off", "off", "off", "batch", "layer", "group"),
        "normalization_place": pick("before", "after"),
        "padding": pick("valid", "same"),
        "dropout": pick(0.0, float(f"{chance.uniform(0.1, 0.6):.2f}")),
    }
    changes["cost"] = pick("log_softmax", "log_softmax", "softmax_log")
    changes["precision"] = pick("float32", "float32", "float32", "float32", "bfloat16", "float16")
    if changes["precision"] == "float16":
        changes["batch_size"] = 11  # of all patches it takes five times as long as float32 on a processor
    changes["depth"] = int(chance.integers(1, 7 if changes["padding"] == "valid" else 11))
    shortcuts = changes["padding"] == "same" and changes["depth"] >= 3
    changes["residual"] = pick("off", "on", "zero") if shortcuts else "off"
    if optimizer in ("sgd", "rmsprop"):
        changes["momentum"] = pick(0.0, 0.9)
    return settings("question", optimizer=optimizer, **SHARED, **changes)


def try_starts(chosen: Settings) -> Iterator[int]:
    """The update at which each start reaches NaN or inf, the forecast's and then one more; 0 where it does not."""
    starts = [chosen.replace(seed=(chosen.seed + place) % 2**32) for place in range(SEEDS + 2)]
    for members, updates in ((starts[:-1], WITHIN), (starts[-1:], LONG)):
        for cost in compute(members, updates, "one by one").cost:
            bad = np.flatnonzero(~np.isfinite(cost))
            yield int(bad[0]) + 1 if len(bad) else 0


def read_runs() -> list[Tried]:
    """The runs of the file; none if there is none."""
    if not FILE.is_file():
        return []
    with FILE.open(newline="") as file:
        return [
            Tried(
                int(row["number"]),
                row["optimizer"],
                sum(row[f"start {place}"] != "0" for place in range(1, SEEDS + 2)),
                int(row[f"start {SEEDS + 2}"]),
            )
            for row in csv.DictReader(file)
        ]


def train() -> None:
    """Train what is not in the file yet, and add a line for each."""
    torch.set_num_threads(1)
    known = {tried.number for tried in read_runs()}
    with FILE.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not file.tell():
            writer.writerow(FIELDS)
        for number in range(RUNS):
            if number not in known:
                chosen = draw(number)
                writer.writerow([number, *(getattr(chosen, name) for name in DRAWN), *try_starts(chosen)])
                file.flush()


def choose_least(runs: Sequence[Tried]) -> int:
    """How many of the forecast's starts must diverge for it to say so: the best for some runs, a majority of equals."""
    order = sorted(range(1, TRIED + 1), key=lambda least: abs(least - MAJORITY))
    return max(order, key=lambda least: score(runs, least))


def score(runs: Sequence[Tried], least: int) -> float:
    """Balanced accuracy: the mean of the shares of runs that diverge and of others of which the forecast was right."""
    right = [
        [(run.told >= least) == diverged for run in runs if run.diverged == diverged] for diverged in (True, False)
    ]
    return float(np.mean([np.mean(each) for each in right])) if all(right) else math.nan


def describe_runs(runs: Sequence[Tried], least: int) -> str:
    """What a forecast is worth, in the columns of `tabulate_larger`."""
    ended = [run for run in runs if run.diverged]
    found = sum(run.told >= least for run in ended)
    false = sum(run.told >= least for run in runs) - found
    later = sum(run.sixth > WITHIN for run in runs)
    cells = [len(runs), len(ended), found, len(runs) - len(ended), false, f"{score(runs, least):.3f}", later]
    return " | ".join(map(str, cells))


def tabulate_larger() -> list[str]:
    """What the forecast is worth over the larger space, scored on the half that did not choose its threshold."""
    runs = read_runs()
    tuned, scored = ([run for run in runs if run.number // len(OPTIMIZERS) % 2 == half] for half in (0, 1))
    least = choose_least(tuned)
    rows = [(f"`{name}`", [run for run in scored if run.optimizer == name]) for name in OPTIMIZERS]
    (low, high), (least_rate, most_rate) = RATES, ADAPTIVE_RATES
    return [
        f"{len(runs)} runs of the question's network made narrow ({SHARED['channels']} channels, {SHARED['hidden'][0]}",
        f"hidden units, patches of {SHARED['patch_size']} pixels), {len(runs) // len(OPTIMIZERS)} of each optimiser.",
        "Drawn at random: initialisation and its scale, input scaling, all patches or 11 in a batch, kind and",
        "placement of the activation, normalisation and its place, depth from 1 to 10, padding, shortcuts, dropout,",
        "the cost (a third as the log of a softmax), the precision (a sixth each float16 and bfloat16), the seed, and",
        f"the learning rate from {low:g} to {high:g}, with RMSprop, Adam, AdamW from {least_rate:g} to {most_rate:g}",
        f"(log-uniform). Asked is whether a sixth start diverges within {WITHIN} updates. The forecast says so where",
        f"at least {least} of {TRIED} starts did, the best threshold on the {len(tuned)} runs of one half (balanced",
        f"accuracy there {score(tuned, least):.3f}). On the other half:",
        "",
        "| optimiser | runs | diverged | of them foretold | others | of them foretold | balanced accuracy | later |",
        "|---|---|---|---|---|---|---|---|",
        *(f"| {name} | {describe_runs(part, least)} |" for name, part in [*rows, ("all", scored)]),
        "",
        "Where more than half of the starts must have diverged, as `Prediction.diverges` has it, the balanced",
        f"accuracy of all is {score(scored, MAJORITY):.3f}. A forecast looks {WITHIN} updates ahead. The last column",
        f"counts the runs among the others that diverged later, by update {LONG}.",
    ]  # fmt: skip


if __name__ == "__main__":
    train()
