"""What a file of a record costs: seconds to save and to load it, to go on from it, and its bytes.

python tests/benchmarks/files.py [--updates 10000] [--write]

A file is as long as what it holds, for nothing in it is compressed. --write keeps the table in
tests/benchmarks/results/files.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import cnnlab
from cnnlab import Run

RESULTS = Path(__file__).parent / "results" / "files.md"
REPEATS = 5
SIZES = {
    "small": {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 12},
    "the question's": {},
}
"""Name -> changes of the question's preset."""
SHARE = {"small": 1.0, "the question's": 0.1}
"""Share of the updates that each is trained for: the question's own takes 20 ms an update."""


def seconds(act: Callable[[], object]) -> float:
    """Median time of doing it, on the clock on the wall."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def row(name: str, updates: int, folder: Path) -> str:
    """A line of the table."""
    run = Run("question", learning_rate=1e-5, device="cpu", **SIZES[name])
    run.advance(updates)
    path = folder / "film.cnnlab"
    record = run.record
    save = seconds(lambda: record.save(path))
    load = seconds(lambda: cnnlab.load(path))
    loaded = cnnlab.load(path)
    assert loaded.table.tobytes() == record.table.tobytes()
    go_on = seconds(lambda: Run(loaded))
    states = sum(array.nbytes for kept in record.take_snapshots() for array in kept.arrays.values())
    size = os.path.getsize(path)
    return (
        f"| {name} | {len(run.parameters):,} | {updates:,} | {size / 1e6:.1f} | {states / 1e6:.1f} "
        f"| {save:.3f} | {load:.3f} | {go_on:.3f} |"
    )


def table(updates: int) -> str:
    """The table in Markdown."""
    lines = [
        "# What a file of a record costs",
        "",
        f"torch {torch.__version__.partition('+')[0]}, x86-64, one thread, a shared machine; medians of {REPEATS}.",
        "Saving includes the wait until the file is on the disk (fsync); loading includes the digest of every byte and",
        "all checks; going on is `Run(record)`.",
        "",
        "| network | parameters | updates | file, MB | of it states, MB | save, s | load, s | go on, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        lines += [row(name, max(1, int(updates * SHARE[name])), Path(folder)) for name in SIZES]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--updates", type=int, default=10_000)
    arguments.add_argument("--write", action="store_true")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    text = table(chosen.updates)
    print(text)
    if chosen.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
