"""Which starts learn: those whose signals keep their size through the layers, or others too; and how far updates move.

python tests/benchmarks/corridor.py [--write]

Networks of 5 to 40 convolutions with different activations and starts train for 150 updates, with 8 seeds each. --write
keeps the tables in tests/benchmarks/results/corridor.md, which docs/plots.md is held against. Some ten minutes.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cnnlab import Run
from cnnlab.plots.gauges import PLOTS
from cnnlab.plots.signals import CORRIDOR
from cnnlab.records.signals import find_signals

RESULTS = Path(__file__).parent / "results" / "corridor.md"
DEPTHS, ACTIVATIONS = (5, 10, 20, 40), ("tanh", "relu", "sigmoid")
STARTS = tuple(itertools.product(("glorot_uniform", "he_normal"), (0.5, 1.0, 2.0)))
"""Initialisation and the factor on it."""
SHAPE = {
    "channels": 6, "patch_size": 11, "patches": 60, "batch_size": 20, "hidden": (32, 16), "relu": "every_layer",
    "device": "cpu",
}  # fmt: skip
UPDATES, LEARNT = 150, 0.3
"""Updates of a run, and the cost below which it has learnt: guessing costs ln 2, 0.69."""
SEEDS = 8
"""Runs of each network."""
PRESETS = {"converges": 40, "adam": 40, "batch_norm": 40, "deep_residual": 100}
"""Presets whose updates are looked at -> how many."""
FIRST = 5
"""Updates at the start that are not looked at."""


@dataclass(frozen=True)
class Start:
    """One run of a network."""

    words: str
    """Its network."""
    away: float
    """How many times a deviation is away, at most, from where the middle of its corridor is."""
    learnt: bool


def measure_start(depth: int, activation: str, init: str, scale: float, seed: int) -> Start:
    """How far the signals of the first update are from their corridors, and whether the network learns."""
    changes = {"depth": depth, "activation": activation, "init": init, "init_scale": scale}
    run = Run("deep_plain", seed=seed, **SHAPE, **changes)
    run.advance(1)
    found = find_signals(run.record)
    relative = np.append(found.activation_deviation, found.backward_deviation / found.backward_deviation[-1])
    run.advance(UPDATES)
    with np.errstate(divide="ignore"):
        away = float(np.exp(np.abs(np.log(relative)).max()))
    cost = run.record.cost[-9:].mean()
    return Start(f"{depth} {activation}, {init} x {scale:g}", away, bool(cost < LEARNT))


def count_ratios(preset: str, updates: int) -> tuple[float, float]:
    """The share of updates of layers in the band of the plot, and the median ratio."""
    run = Run(preset, device="cpu")
    run.advance(updates)
    low, high = PLOTS["ratio"].healthy
    ratios = run.record.update_ratio[FIRST:]
    return float(((low <= ratios) & (ratios <= high)).mean()), float(np.median(ratios))


def write_tables() -> str:
    """The tables in Markdown."""
    networks = [(*case, *start) for case in itertools.product(DEPTHS, ACTIVATIONS) for start in STARTS]
    starts = [measure_start(*network, seed) for network in networks for seed in range(SEEDS)]
    lines = [
        "# Healthy ranges", "",
        f"`python tests/benchmarks/corridor.py`: {len(networks)} networks of {DEPTHS[0]} to {DEPTHS[-1]} convolutions",
        f"(deep_plain with {SHAPE['channels']} channels and {SHAPE['patches']} patches; tanh, ReLU or sigmoid; six",
        f"starts), {SEEDS} seeds each, {UPDATES} updates. Away: how many times a deviation of the first update, in the",
        "layer farthest off, is larger or smaller than 1 forward, and than the last layer's backward. Learnt:",
        f"cost below {LEARNT}.",
        "", "| away | runs | learnt |", "|---|---|---|",
    ]  # fmt: skip
    edges = [1, CORRIDOR, CORRIDOR**2, CORRIDOR**3, CORRIDOR**4, np.inf]
    for low, high in itertools.pairwise(edges):
        within = [start.learnt for start in starts if low <= start.away < high]
        lines.append(f"| {low:g} to {high:g} | {len(within)} | {sum(within)} |")
    lines += ["", f"| network | away, median of {SEEDS} seeds | learnt |", "|---|---|---|"]
    for first in range(0, len(starts), SEEDS):
        runs = starts[first : first + SEEDS]
        away, learnt = np.median([run.away for run in runs]), sum(run.learnt for run in runs)
        lines.append(f"| {runs[0].words} | {away:.3g} | {learnt} |")
    lines += ["", f"Update/weight after the first {FIRST} updates of presets that learn:", ""]
    lines += ["| preset | updates | share in the band | median |", "|---|---|---|---|"]
    for preset, updates in PRESETS.items():
        share, middle = count_ratios(preset, updates)
        lines.append(f"| {preset} | {updates} | {share:.0%} | {middle:.2g} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the tables, and keep them if that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    text = write_tables()
    print(text)
    if asked.write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
