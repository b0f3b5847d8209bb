"""What a run of 100,000 updates costs beside its training: memory of the record, autosaves, a view for the dashboard.

python tests/benchmarks/long_run.py [--updates 100000] [--write]

The rows are those of a few hundred real updates of the question's network, repeated: training them all would take
half an hour and change nothing here. An update's time is measured by training. --write keeps the table in
tests/benchmarks/results/long_run.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import statistics
import tempfile
import time
from pathlib import Path

import psutil
import torch

import cnnlab
from cnnlab.records.autosave import EVERY, Autosave
from cnnlab.records.log import Log
from cnnlab.records.record import Record

RESULTS = Path(__file__).parent / "results" / "long_run.md"
TRAINED = 300
"""Updates that are trained in truth."""


def memory() -> float:
    """MB that are this process's own and in memory now."""
    gc.collect()
    return psutil.Process().memory_full_info().uss / 1e6


def grown(run: cnnlab.Run, log: Log, updates: int, kept: Autosave, an_update: float) -> tuple[list[float], list[float]]:
    """Let a log grow as a run would; the seconds that each save took, and each view."""
    seed, saves, views, now = run.record, [], [], 0.0
    every = max(1, int(EVERY / an_update))
    while log.rows <= updates:
        rows = slice(1, min(every, TRAINED, updates + 2 - log.rows) + 1)
        histograms = seed.histograms[rows]
        log.append(seed.table[rows], histograms, seed.kernels[rows])
        now += EVERY + 1
        began = time.perf_counter()
        record = log.record()
        record.cost.min(), record.kernels[-1].max(), record.histograms[-1].sum()
        views.append(time.perf_counter() - began)
        last = dataclasses.replace(seed.take_snapshots()[-1], step=len(record))
        record = dataclasses.replace(record, take_snapshots=lambda last=last: (seed.take_snapshots()[0], last))
        began = time.perf_counter()
        kept.keep(record, now)
        saves.append(time.perf_counter() - began)
        assert not kept.problem
    return saves, views


def table(updates: int) -> str:
    """The table in Markdown."""
    torch.set_num_threads(1)
    run = cnnlab.Run("question", learning_rate=1e-5, device="cpu")
    run.advance(20)
    began = time.perf_counter()
    run.advance(TRAINED)
    an_update = (time.perf_counter() - began) / TRAINED
    start = run.record.until(0)
    before = memory()
    log = Log.from_record(start)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.cnnlab"
        kept = Autosave.in_file(path)
        saves, views = grown(run, log, updates, kept, an_update)
        took = memory() - before
        size = path.stat().st_size / 1e6
        record: Record = cnnlab.load(path)
        assert record.table.tobytes() == log.record().table.tobytes()
        kept.close()
    share = sum(saves) / (updates * an_update)
    quarter = len(saves) // 4
    late = statistics.median(saves[-quarter:]) / statistics.median(saves[1:quarter])
    return (
        "\n".join(
            [
                "# What a long run costs beside its training",
                "",
                f"torch {torch.__version__.partition('+')[0]}, x86-64, one thread, a shared machine;",
                "the question's network.",
                "Memory is that of the process's own pages (USS) with the whole record at hand, over",
                "that with its start.",
                "",
                "| | |",
                "|---|---|",
                f"| updates | {updates:,} |",
                f"| an update | {an_update * 1e3:.1f} ms |",
                f"| memory of the record | {took:.0f} MB |",
                f"| numbers in it | {held(log.record()):.0f} MB |",
                f"| autosaves | {len(saves)} |",
                f"| one of them | median {statistics.median(saves) * 1e3:.1f} ms, largest {max(saves) * 1e3:.0f} |",
                f"| the last quarter of them, over the first | {late:.2f} |",
                f"| share of the training | {share:.2%} |",
                f"| file | {size:.0f} MB |",
                f"| a look at the record, as each frame takes one | {statistics.median(views[-10:]) * 1e3:.2f} ms |",
            ]
        )
        + "\n"
    )


def held(record: Record) -> float:
    """MB of all numbers of a record."""
    kept = record.histograms
    arrays = (record.table, record.kernels, kept.ends, kept.places, kept.counts)
    return sum(array.nbytes for array in arrays) / 1e6


def main() -> None:
    """Print the table, and keep it if that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    text = table(asked.updates)
    print(text)
    if asked.write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
