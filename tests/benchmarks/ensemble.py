"""How fast many networks train: the engine's ways and processes, beside a plain loop of the step written by hand.

python tests/benchmarks/ensemble.py [--device cpu] [--members 32] [--updates 20] [--map 8] [--write]

All in one run and in turns, so that a busy machine slows all alike; read the ratios. --write keeps the table in
tests/benchmarks/results/ensemble.md, or of a GPU in ensemble_cuda.md. On a GPU (--device cuda) it compares the ways of
computing members together at growing numbers of members, each as a CUDA graph, too; the processes are left out there.
The last column says which share of the device's ceiling is reached: of what it does in a product of two large float32
matrices, measured in the same run, counting the multiplications and additions of forward and backward pass alone.
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
from cnnlab.sweeps import batched as together
from cnnlab.sweeps import ensemble
from cnnlab.sweeps.members import count_fitting, find_problem, starts, take_batch
from cnnlab.sweeps.workers import Workers, count_cores
from cnnlab.training.network import Layout, make_question_network
from cnnlab.training.problem import Problem
from cnnlab.training.step import StepStructure

RESULTS = {"cpu": "ensemble.md", "cuda": "ensemble_cuda.md"}
"""Device -> file of its table."""
SIZES = {
    "8 channels, patches of 14": {"channels": 8, "hidden": (64, 32), "patch_size": 14},
    "16 channels, patches of 16": {"channels": 16, "hidden": (128, 64)},
    "the question's: 32 channels, patches of 16": {},
}
"""Size of network in words -> changes."""
SLOW_MEMBERS = 8
"""Most members whose patches are unfolded on the CPU, which takes five times as long as any other way."""
LOOPED = 16
"""Members that go one after the other on a GPU, where more take longer and tell nothing new."""
MATRIX = {"cpu": 2048, "cuda": 8192}
"""Device -> rows and columns of the matrices that show its ceiling."""


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
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measured(members: list[Settings], updates: int, rounds: int) -> dict[str, float]:
    """Way -> members times updates a second, the median of a few rounds taken in turns."""
    start, on_a_gpu = members[0], members[0].device == "cuda"
    few = members[:LOOPED] if on_a_gpu else members
    ways: dict[str, Callable[[], object]] = {
        "plain loop by hand": lambda: by_hand(few, updates),
        "one by one": lambda: ensemble.compute(few, updates, "one by one"),
    }
    counts = dict.fromkeys(ways, len(few))
    for way in together.WAYS:
        if on_a_gpu or way != "unfold" or len(members) <= SLOW_MEMBERS:
            ways[way] = lambda way=way: ensemble.compute(members, updates, way)
        if on_a_gpu and len(members) <= count_fitting(find_problem(start)):
            ways[f"{way}, as a CUDA graph"] = as_graph(members, updates, way)
    with Workers(None, start) as workers:
        if not workers.together and count_cores() > 1:
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
    return {name: counts.get(name, len(members)) * updates / statistics.median(taken) for name, taken in times.items()}


def as_graph(members: list[Settings], updates: int, way: str) -> Callable[[], None]:
    """Updates of all members as a CUDA graph that is recorded already."""
    problem, kind, step = find_problem(members[0]), StepStructure.from_knobs(members[0].knobs), together.Recorder()
    start, knobs = starts(problem, members)
    x, y = take_batch(problem, members, torch.arange(len(members)), 1)

    def work(updates: int = updates) -> None:
        parameters = start
        for _ in range(updates):
            parameters = step(problem, way, kind, x, y, parameters, None, knobs)[0]

    work(together.OFTEN + 2)
    return work


def operations(problem: Problem) -> int:
    """Multiplications and additions of one update of a member, forward and backward."""
    x, y = (part.cpu() for part in problem.data)
    network = make_question_network(problem.settings).to_empty(device="cpu")
    with FlopCounterMode(display=False) as counter:
        nn.functional.cross_entropy(network(x), y).backward()
    return counter.get_total_flops()


def ceiling(device: str) -> float:
    """Multiplications and additions a second in a product of two float32 matrices: of one core, or of the GPU."""
    torch.set_num_threads(1)
    one = torch.randn(MATRIX[device], MATRIX[device], device=device)
    one @ one
    return 2 * MATRIX[device] ** 3 / min(timed(lambda: one @ one) for _ in range(5))


def map_row(device: str, side: int) -> str:
    """How long a square map of 20 updates takes, from the call to the last cell."""
    rates, scales = np.geomspace(1e-6, 0.1, side), np.geomspace(0.5, 2, side)
    began = time.perf_counter()
    found = cnnlab.sweep("question", learning_rate=rates, init_scale=scales, seeds=1, steps=20, device=device)
    took = time.perf_counter() - began
    trained = np.where(found.diverged, found.first_nonfinite, 20).sum()
    return (
        f"A map of {side} x {side} cells of the question's network and 20 updates, {found.diverged.mean():.0%} of "
        f"which diverge: {took:.1f} s, {trained / took:.0f} updates of a member a second, the workers' start included."
    )


def main() -> None:
    """Measure, print, and keep the table if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=tuple(RESULTS))
    parser.add_argument("--members", type=int, help="most members (default: 32, on a GPU 1024)")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--map", type=int, help="cells along a side of the map (default: 8, on a GPU 64)")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    on_cpu = asked.device == "cpu"
    most, side = asked.members or (32 if on_cpu else 1024), asked.map or (8 if on_cpu else 64)
    counts = sorted({count for count in ((2, 8) if on_cpu else (16, 64, 256)) if count < most} | {most})
    top = ceiling(asked.device)
    where = f"{count_cores()} cores ({platform.machine()})" if on_cpu else torch.cuda.get_device_name()
    lines = [
        "# Many networks at once",
        "",
        f"`python tests/benchmarks/ensemble.py --device {asked.device} --members {most} --updates {asked.updates} "
        f"--rounds {asked.rounds} --map {side}` on {where}, torch {torch.__version__}; load of the machine "
        f"{os.getloadavg()[0]:.1f} at the start. Learning rate 1e-6, so that no member ends early. All ways in turns; "
        f"the ratio is to the plain loop. Ceiling: {top / 1e9:,.0f} billion operations a second in a product of "
        f"float32 matrices on {'one core; processes are compared with that of all cores' if on_cpu else 'the GPU'}.",
        "",
        "| network | members | way | updates of a member a second | ratio | share of the ceiling |",
        "|---|---|---|---|---|---|",
    ]
    for words, changes in SIZES.items():
        for count in counts:
            start = settings(learning_rate=1e-6, device=asked.device, **changes)
            found = measured([start.replace(seed=seed) for seed in range(count)], asked.updates, asked.rounds)
            plain, each = found["plain loop by hand"], operations(find_problem(start))
            for way, rate in found.items():
                share = rate * each / top / (count_cores() if "processes" in way else 1)
                lines.append(f"| {words} | {count} | {way} | {rate:.1f} | {rate / plain:.2f} | {share:.0%} |")
    lines += ["", map_row(asked.device, side), "", f"Load of the machine at the end: {os.getloadavg()[0]:.1f}."]
    if on_cpu:
        lines.append("The ways on a GPU have never been measured: none was at hand.")
    print("\n".join(lines))
    if asked.write:
        (Path(__file__).parent / "results" / RESULTS[asked.device]).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
