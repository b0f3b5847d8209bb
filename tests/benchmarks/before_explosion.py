"""How often "before the explosion" is silent on healthy runs, and how near it comes on those that diverge.

python tests/benchmarks/before_explosion.py [--write]

Runs are drawn one after the other, with a preset, a batch size from 1 to 33 or the full batch, a learning rate, an
input scaling and a seed at random; in half of them the learning rate is raised by a factor from 10 to 10,000 at some
update. The first 100 healthy ones count, and the first 100 that diverge. The oracle finds when all was last well by
brute force over all epochs, and shares no line with the package.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import cnnlab
from cnnlab.records.record import Record

RESULT = Path(__file__).parent / "results" / "before_explosion.md"
COUNT = 100
NEAR = 5
"""Updates by which the answer may miss the oracle's."""
AFTER = 3
"""Updates that a run is trained on after its first NaN or inf, as a user would who comes late."""
BATCHES = (1, 2, 3, 5, 6, 10, 11, 22, 33, None)
PRESETS = {
    "question": {},
    "converges": {"patches": 200, "patch_size": 20},
    "vanishing": {"init_scale": 0.3},
    "sudden_nan": {"momentum": 0.5},
}
"""Presets, with what is changed in them: smaller patches, for speed, or so that some runs learn."""


@dataclass(frozen=True)
class Drawn:
    """What is random in a run."""

    preset: str
    """Its preset."""
    changes: dict
    """Its settings that differ from the preset."""
    raised_after: int | None
    """The update after which the learning rate is raised; None: never."""
    factor: float
    """By how much."""


def draw(number: int) -> Drawn:
    """A run's start: a function of its number."""
    chance = np.random.default_rng([19, number])
    preset = str(chance.choice(list(PRESETS)))
    batch = BATCHES[chance.integers(len(BATCHES))]
    changes = {
        "batch_size": batch,
        "learning_rate": float(10 ** chance.uniform(-5, -1)),
        "input_scaling": str(chance.choice(["raw", "unit", "standardised"])),
        "seed": int(chance.integers(10**6)),
    }
    raised = bool(chance.integers(2))
    after, factor = int(chance.integers(2, 150)), float(10 ** chance.uniform(1, 4))
    return Drawn(preset, {**PRESETS[preset], **changes}, after if raised else None, factor)


def train(drawn: Drawn) -> Record:
    """Three epochs, at least 60 updates and at most 200; a few more after the first NaN or inf, and no more."""
    run = cnnlab.Run(drawn.preset, device="cpu", history_bytes=0, **drawn.changes)
    updates = min(max(3 * run.updates_per_epoch, 60), 200)
    while run.updates < updates:
        if run.updates == (drawn.raised_after or 0) % updates != 0:
            run.set(learning_rate=min(drawn.changes["learning_rate"] * drawn.factor, 1e6))
        if run.step().nonfinite:
            run.advance(AFTER)
            break
    return run.record


def average(costs: list[float], end: int, epoch: int) -> float:
    """The average of the epoch of costs that ends with the `end`th, or of all so far; inf where one is not finite."""
    window = costs[max(0, end - epoch) : end]
    return sum(window) / len(window) if all(map(math.isfinite, window)) else math.inf


def find_last_well(costs: list[float], epoch: int, first: Callable[[int], int]) -> int:
    """The oracle: the last update that left a cost whose average is at most twice the least so far; 0 if none did.

    The least is over the averages from the one that ends with cost number `first(end)` on.
    """
    averages = [average(costs, end, epoch) for end in range(1, len(costs) + 1)]
    well = [
        end
        for end in range(1, len(costs) + 1)
        if math.isfinite(averages[end - 1]) and averages[end - 1] <= 2 * min(averages[first(end) - 1 : end])
    ]
    return max(well[-1] - 1, 0) if well else 0


@dataclass(frozen=True)
class Judged:
    """What is said of a run, and what the oracle says."""

    drawn: Drawn
    """The run."""
    kind: str
    """"diverged", "healthy" (never NaN or inf, the last epoch's cost at most a tenth above the first's) or "other"."""
    said: int
    """What `cnnlab.before_explosion` says."""
    updates: int
    """How long the record is."""
    careful: int
    """The oracle, the least being over whole epochs, and before the first is over over half of the updates so far."""
    plain: int
    """The oracle, the least being over all averages so far, those of one or two updates among them."""


def judge(drawn: Drawn, record: Record) -> Judged:
    """A run beside its oracle."""
    costs, epoch = record.cost.tolist(), record.updates_per_epoch
    kind = "diverged" if record.first_nonfinite else "other"
    if kind == "other" and sum(costs[-epoch:]) <= 1.1 * sum(costs[:epoch]):
        kind = "healthy"
    careful = find_last_well(costs, epoch, lambda end: epoch if end >= epoch else (end + 1) // 2)
    plain = find_last_well(costs, epoch, lambda end: 1)
    return Judged(drawn, kind, cnnlab.before_explosion(record), len(record), careful, plain)


def count_batches(runs: list[Judged]) -> str:
    """How many runs have each batch size."""
    sizes = Counter(str(run.drawn.changes["batch_size"] or "full") for run in runs)
    return ", ".join(f"{size}: {sizes[size]}" for size in (str(size or "full") for size in BATCHES))


def report(runs: list[Judged]) -> str:
    """The table in Markdown."""
    groups = {kind: [run for run in runs if run.kind == kind][:COUNT] for kind in ("healthy", "diverged")}
    healthy, diverged = groups.values()
    silent = sum(run.said == run.updates for run in healthy)
    near = sum(abs(run.said - run.careful) <= NEAR for run in diverged)
    plain = sum(abs(run.said - run.plain) <= NEAR for run in diverged)
    alike = sum(run.said == run.careful for run in diverged)
    lines = [
        "# Before the explosion: silent on healthy runs, near the last good update on others",
        "",
        f"torch {torch.__version__.partition('+')[0]}, x86-64. Presets {', '.join(PRESETS)}, batches of 1 to 33",
        "and the full batch, learning rates from 1e-5 to 0.1, raised in the middle of half of the runs. Healthy: never",
        "NaN or inf, the last epoch's cost at most a tenth above the first's. Oracle: the last update that leaves a",
        "cost which, averaged over an epoch, is at most twice the least so far, by brute force over all epochs.",
        "",
        "| runs | number | result |",
        "|---|---|---|",
        f"| healthy | {len(healthy)} | silent on **{silent}** |",
        f"| diverged | {len(diverged)} | within {NEAR} updates of the oracle in **{near}**, the same in {alike} |",
        f"| diverged, the least over all averages | {len(diverged)} | within {NEAR} updates in {plain} |",
        "",
        "The third line takes the averages of the first one or two batches as seriously as those of an epoch: a first",
        "patch that happens to be right costs nothing, and all that follows looks like an explosion.",
        "",
        *(f"Batch sizes of the {kind} runs: {count_batches(group)}." for kind, group in groups.items()),
    ]
    return "\n".join(lines) + "\n"


def measure() -> list[Judged]:
    """Runs until there are enough of both kinds."""
    runs: list[Judged] = []
    kinds: Counter[str] = Counter()
    while min(kinds["healthy"], kinds["diverged"]) < COUNT:
        drawn = draw(len(runs))
        runs.append(judge(drawn, train(drawn)))
        kinds[runs[-1].kind] += 1
    return runs


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--write", action="store_true")
    torch.set_num_threads(1)
    text = report(measure())
    print(text)
    if arguments.parse_args().write:
        RESULT.write_text(text)
