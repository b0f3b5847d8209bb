"""How fast many networks train: one by one, together, and in processes, beside a loop of the step written by hand.

python tests/benchmarks/ensemble.py [--members 32] [--updates 20] [--map 8] [--write]

All in one run and in turns, so that a busy machine slows all alike; read the ratios. --write keeps the table in
tests/benchmarks/results/ensemble.md. The last column says which share of the processor's ceiling is reached: of what it
does in a product of two large float32 matrices, measured in the same run, counting the multiplications and additions of
forward and backward pass alone. What a GPU does is measured by tests/gpu.py.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import cnnlab
from cnnlab.config.settings import Settings, settings
from cnnlab.sweeps import ensemble
from cnnlab.sweeps.members import find_problem
from cnnlab.sweeps.workers import Workers, count_cores
from cnnlab.training.network import Layout, make_question_network
from cnnlab.training.problem import Problem

RESULTS = Path(__file__).parent / "results" / "ensemble.md"
SIZES = {
    "8 channels, patches of 14": {"channels": 8, "hidden": (64, 32), "patch_size": 14},
    "16 channels, patches of 16": {"channels": 16, "hidden": (128, 64)},
    "the question's: 32 channels, patches of 16": {},
}
"""Size of network in words -> changes."""
SLOW_MEMBERS = 8
"""Most members that go together on the CPU, which takes five times as long as any other way."""
MATRIX = 2048
"""Rows and columns of the matrices that show the processor's ceiling."""


def by_hand(members: list[Settings], updates: int) -> None:
    """The question's step as a person writes it, network after network: forward, backward, param -= rate * grad."""
    torch.set_num_threads(1)
    for member in members:
        problem = find_problem(member)
        x, y = problem.data
        network = make_question_network(member).to_empty(device=problem.device)
        start = Layout.from_network(network).views(problem.draw_start(member).parameters)
        for name, parameter in network.named_parameters():
            parameter.data.copy_(start[name])
        for _ in range(updates):
            cost = nn.functional.cross_entropy(network(x), y)
            network.zero_grad()
            cost.backward()
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter -= member.learning_rate * parameter.grad
            cost.item()


def timed(work: Callable[[], object]) -> float:
    """How many seconds some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measured(members: list[Settings], updates: int, rounds: int) -> dict[str, float]:
    """Way -> members times updates a second, the median of a few rounds taken in turns."""
    ways: dict[str, Callable[[], object]] = {
        "plain loop by hand": lambda: by_hand(members, updates),
        "one by one": lambda: ensemble.compute(members, updates, "one by one"),
    }
    if len(members) <= SLOW_MEMBERS:
        ways["together"] = lambda: ensemble.compute(members, updates, "together")
    with Workers(None, members[0]) as workers:
        if count_cores() > 1:
            halves = [members[place :: count_cores()] for place in range(count_cores())]
            ways[f"one by one in {count_cores()} processes"] = lambda: [
                future.result()
                for future in [workers.executor.submit(ensemble.compute, half, updates) for half in halves]
            ]
        for work in ways.values():
            work()
        times = {name: [] for name in ways}
        for _ in range(rounds):
            for name, work in ways.items():
                times[name].append(timed(work))
    return {name: len(members) * updates / statistics.median(taken) for name, taken in times.items()}


def operations(problem: Problem) -> int:
    """Multiplications and additions of one update of a member, forward and backward."""
    x, y = (part.cpu() for part in problem.data)
    network = make_question_network(problem.settings).to_empty(device="cpu")
    with FlopCounterMode(display=False) as counter:
        nn.functional.cross_entropy(network(x), y).backward()
    return counter.get_total_flops()


def ceiling() -> float:
    """Multiplications and additions a second in a product of two float32 matrices, of one core."""
    torch.set_num_threads(1)
    one = torch.randn(MATRIX, MATRIX)
    one @ one
    return 2 * MATRIX**3 / min(timed(lambda: one @ one) for _ in range(5))


def map_row(side: int) -> str:
    """How long a square map of 20 updates takes, from the call to the last cell."""
    rates, scales = np.geomspace(1e-6, 0.1, side), np.geomspace(0.5, 2, side)
    began = time.perf_counter()
    found = cnnlab.sweep("question", learning_rate=rates, init_scale=scales, seeds=1, steps=20, device="cpu")
    took = time.perf_counter() - began
    trained = np.where(found.diverged, found.first_nonfinite, 20).sum()
    return (
        f"A map of {side} x {side} cells of the question's network and 20 updates, {found.diverged.mean():.0%} of "
        f"which diverge: {took:.1f} s, {trained / took:.0f} updates of a member a second, the workers' start included."
    )


def main() -> None:
    """Measure, print, and keep the table if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=32, help="most members")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--map", type=int, default=8, help="cells along a side of the map")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    counts = sorted({count for count in (2, 8) if count < asked.members} | {asked.members})
    top = ceiling()
    lines = [
        "# Many networks at once",
        "",
        f"`python tests/benchmarks/ensemble.py --members {asked.members} --updates {asked.updates} "
        f"--rounds {asked.rounds} --map {asked.map}` on {count_cores()} cores ({platform.machine()}), "
        f"torch {torch.__version__}; load of the machine {os.getloadavg()[0]:.1f} at the start. Learning rate 1e-6, so "
        f"that no member ends early. All ways in turns; the ratio is to the plain loop. Ceiling: {top / 1e9:,.0f} "
        "billion operations a second in a product of float32 matrices on one core; processes are compared with that of "
        "all cores.",
        "",
        "| network | members | way | updates of a member a second | ratio | share of the ceiling |",
        "|---|---|---|---|---|---|",
    ]
    for words, changes in SIZES.items():
        for count in counts:
            start = settings(learning_rate=1e-6, device="cpu", **changes)
            found = measured([start.replace(seed=seed) for seed in range(count)], asked.updates, asked.rounds)
            plain, each = found["plain loop by hand"], operations(find_problem(start))
            for way, rate in found.items():
                share = rate * each / top / (count_cores() if "processes" in way else 1)
                lines.append(f"| {words} | {count} | {way} | {rate:.1f} | {rate / plain:.2f} | {share:.0%} |")
    lines += ["", map_row(asked.map), "", f"Load of the machine at the end: {os.getloadavg()[0]:.1f}."]
    lines.append("What a GPU does: gpu.md.")
    print("\n".join(lines))
    if asked.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
