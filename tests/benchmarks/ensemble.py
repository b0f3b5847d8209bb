"""How fast many networks train: the engine's ways and processes, beside a plain loop of the step written by hand.

python tests/benchmarks/ensemble.py [--device cpu] [--members 8] [--updates 10] [--write]

All in one run and in turns, so that a busy machine slows all alike; read the ratios. --write keeps the table in
tests/benchmarks/results/ensemble.md. On a GPU (--device cuda) it compares the ways of computing members together at
growing numbers of members; the processes are left out there.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cnnlab import ensemble
from cnnlab.network import Layout, question_network
from cnnlab.settings import Settings, settings
from cnnlab.survey import Workers, cores

RESULTS = Path(__file__).parent / "results" / "ensemble.md"
SIZES = {
    "the question's: 32 channels, patches of 16": {},
    "small: 8 channels, patches of 14": {"channels": 8, "hidden": (64, 32), "patch_size": 14},
}
"""Size of network in words -> changes."""


def by_hand(members: list[Settings], updates: int) -> None:
    """The question's step as a person writes it, network after network: forward, backward, param -= rate * grad."""
    torch.set_num_threads(1)
    for member in members:
        group = ensemble.group_of(member)
        network = question_network(member).to_empty(device=group.x.device)
        start = Layout.of(network).views(group.start(member))
        for name, parameter in network.named_parameters():
            parameter.data.copy_(start[name])
        for _ in range(updates):
            cost = nn.functional.cross_entropy(network(group.x), group.y)
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
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measured(members: list[Settings], updates: int, rounds: int) -> dict[str, float]:
    """Way -> members times updates a second, the median of a few rounds taken in turns."""
    start = members[0]
    ways: dict[str, Callable[[], object]] = {"plain loop by hand": lambda: by_hand(members, updates)}
    for way in ("one by one", *ensemble.WAYS):
        ways[way] = lambda way=way: ensemble.compute(members, updates, way)
    with Workers(None, start) as workers:
        if not workers.together and cores() > 1:
            halves = [members[place :: cores()] for place in range(cores())]
            ways[f"one by one in {cores()} processes"] = lambda: [
                future.result() for future in [workers.submit(half, updates) for half in halves]
            ]
        for work in ways.values():
            work()
        times = {name: [] for name in ways}
        for _ in range(rounds):
            for name, work in ways.items():
                times[name].append(timed(work))
    return {name: len(members) * updates / statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    """Measure, print, and keep the table if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    counts = (asked.members // 4, asked.members) if asked.device == "cpu" else (16, 64, 256, asked.members)
    lines = [
        "# Many networks at once",
        "",
        f"`python tests/benchmarks/ensemble.py --device {asked.device} --members {asked.members} "
        f"--updates {asked.updates} --rounds {asked.rounds}` on {cores()} cores ({platform.machine()}), torch "
        f"{torch.__version__}; load of the machine {os.getloadavg()[0]:.1f} at the start.",
        "Learning rate 1e-6, so that no member ends early. All ways in turns; the ratio is to the plain loop.",
        "",
        "| network | members | way | updates of a member a second | ratio |",
        "|---|---|---|---|---|",
    ]
    for words, changes in SIZES.items():
        for count in dict.fromkeys(counts):
            start = settings(learning_rate=1e-6, device=asked.device, **changes)
            found = measured([start.replace(seed=seed) for seed in range(count)], asked.updates, asked.rounds)
            plain = found["plain loop by hand"]
            for way, rate in found.items():
                lines.append(f"| {words} | {count} | {way} | {rate:.1f} | {rate / plain:.2f} |")
    lines += ["", f"Load of the machine at the end: {os.getloadavg()[0]:.1f}."]
    if asked.device == "cpu":
        lines.append("The ways on a GPU have never been measured: none was at hand.")
    print("\n".join(lines))
    if asked.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
