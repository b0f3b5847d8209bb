"""How long each lab takes from top to bottom with its solution, as the tests run it: seconds on this machine.

python tests/benchmarks/lab_times.py [NUMBER ...] [--write]

A NUMBER is that of a lab, as in 07; without one all are run: one after the other, and then once more two at a time, as
the tests do. --write keeps the table in tests/benchmarks/results/labs.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "labs"))

from notebooks import LABS, execute

RESULTS = Path(__file__).parent / "results" / "labs.md"
LIMIT = 60
"""Most seconds that a lab may take on two cores."""
LIMIT_OF_ALL = 240
"""Most seconds that all labs may take together, two at a time."""


@dataclass(frozen=True)
class Timing:
    """What one lab took."""

    name: str
    """The name of its file."""
    wall: float
    """Seconds by the clock, with the start of the kernel."""
    processor: float
    """Seconds of the processor in the kernel and in its workers."""
    solved: bool
    """Whether its solution was right."""


def time_lab(path: Path) -> Timing:
    """Run a lab in a kernel of its own, as the tests do."""
    begun, used = time.perf_counter(), measure_children()
    shown = execute(path)
    took = time.perf_counter() - begun
    return Timing(path.stem, took, measure_children() - used, shown["solved"].startswith("Right!"))


def measure_children() -> float:
    """Seconds of the processor that this process's children have used, those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def time_pairs(paths: list[Path]) -> float:
    """Seconds that labs take two at a time, each in a process of its own."""
    begun = time.perf_counter()
    with ProcessPoolExecutor(2, max_tasks_per_child=1) as pool:
        list(pool.map(time_lab, paths))
    return time.perf_counter() - begun


def write_table(timings: list[Timing], pairs: float) -> str:
    """The timings as a page."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        "# How long the labs take",
        "",
        "Each lab from top to bottom with its solution, as `tests/labs/notebooks.py` runs it, one after the other;",
        f"{cores} cores of {platform.machine()}, Python {platform.python_version()}, torch {version('torch')}. Wall:",
        "seconds by the clock with the start of the kernel; processor: seconds of it in the kernel and its workers.",
        f"At most {LIMIT} seconds for a lab, and {LIMIT_OF_ALL} for all, two at a time.",
        "",
        "| lab | wall, s | processor, s | solved |",
        "|---|---|---|---|",
    ]
    for timing in timings:
        solved = "yes" if timing.solved else "no"
        lines.append(f"| {timing.name} | {timing.wall:.0f} | {timing.processor:.0f} | {solved} |")
    wall, processor = sum(timing.wall for timing in timings), sum(timing.processor for timing in timings)
    together = [f"| all | {wall:.0f} | {processor:.0f} | |", f"| all, two at a time | {pairs:.0f} | | |", ""]
    return "\n".join([*lines, *together])


def main() -> None:
    """Time the labs that are named, print the table, and say whether one took too long."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", metavar="NUMBER")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    chosen = [path for path in LABS if not options.numbers or path.name.startswith(tuple(options.numbers))]
    timings = []
    for path in chosen:
        timings.append(time_lab(path))
        print(f"{timings[-1].name}: {timings[-1].wall:.1f} s", flush=True)
    pairs = time_pairs(chosen)
    table = write_table(timings, pairs)
    print(f"\n{table}")
    if options.write:
        RESULTS.write_text(table)
    slow = [timing.name for timing in timings if timing.wall > LIMIT]
    if slow or pairs > LIMIT_OF_ALL:
        sys.exit(f"too long: {', '.join(slow) or 'all labs together'}")


if __name__ == "__main__":
    main()
