"""What a film costs: keeping history at every update, going back, the memory of 10,000 frames, drawing the last.

python tests/benchmarks/rewind.py [--blocks 60] [--write]

Long runs are made by repeating the rows of a real one, and long histories of states without numbers in them: what is
timed and counted does not depend on the values. --write keeps the tables in tests/benchmarks/results/rewind.md.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cnnlab import Run
from cnnlab.plots.dashboard import draw_dashboard, refresh_dashboard
from cnnlab.records.log import Log
from cnnlab.records.record import Record
from cnnlab.training.checkpoints import History, State
from cnnlab.training.run import FLUSH_EVERY, HISTORY_BYTES

CLOCK = time.thread_time
"""Processor time of this one thread: work of others on the machine does not count, beyond slowing caches and memory."""
STEPS = 8
"""Updates in a block."""
LONG = 10_000
"""Updates of a long run."""
BUDGETS = (HISTORY_BYTES, 2 * HISTORY_BYTES, 3 * HISTORY_BYTES, 4 * HISTORY_BYTES)
RESULTS = Path(__file__).parent / "results" / "rewind.md"


def milliseconds(action: Callable[[], object]) -> float:
    """Processor time of a call."""
    start = CLOCK()
    action()
    return (CLOCK() - start) * 1e3


def calm_run(**changes: object) -> Run:
    """The question's network at a rate at which nothing explodes: NaN would change the speed."""
    return Run("question", learning_rate=1e-5, device="cpu", **changes)


def keeping(blocks: int, changes: dict) -> tuple[float, float, float]:
    """Medians of Run.update in milliseconds without and with history, and of their ratio within a block."""
    with_history, without = calm_run(**changes), calm_run(**changes)
    without.history.keep = lambda step, state: None  # type: ignore[method-assign]

    def block(run: Run) -> float:
        return milliseconds(lambda: [run.update() for _ in range(STEPS)]) / STEPS

    block(without), block(with_history)
    times = []
    for number in range(blocks):
        if number % 2:
            times.append((block(without), block(with_history)))
        else:
            ours = block(with_history)
            times.append((block(without), ours))
    assert with_history.record.first_nonfinite is None
    alone, ours = (statistics.median(column) for column in zip(*times, strict=True))
    return alone, ours, statistics.median(ours / theirs for theirs, ours in times)


def film(run: Run, updates: int) -> Log:
    """A log of so many updates, flushed as a run does: the rows of a real one, the later half of them over and over."""
    record = run.record
    log = Log(record.settings, record.layers, record.watched, record.updates_per_epoch, record.kernels.shape[1:])
    histograms, half = record.histograms[:], len(record) // 2
    for first in range(0, updates + 1, FLUSH_EVERY):
        rows = np.arange(first, min(first + FLUSH_EVERY, updates + 1))
        chosen = np.where(rows < half, rows, half + rows % half)
        log.append(record.table[chosen], histograms[chosen], record.kernels[chosen])
    return log


def history_of(like: State, updates: int, budget: int) -> History:
    """A history of so many updates; every state is the same one, counted each time."""
    history = History(like, budget)
    for step in range(1, updates + 1):
        history.keep(step, like)
    return history


def going_back(run: Run, updates: int) -> tuple[float, float, int]:
    """Median and worst milliseconds of a rewind or fork to kept updates near and far, and how many updates are kept."""
    log, history = film(run, updates), history_of(run.state, updates, 4 * HISTORY_BYTES)
    kept = sorted(history.states)
    times = []
    for place in np.linspace(0, len(kept) - 2, 60).astype(int):
        for action in (lambda run, step: run.rewind(step), lambda run, step: run.fork(step)):
            again = copy.copy(run)
            again.log, again.history, again.updates, again.pending = log, history, updates, []
            times.append(milliseconds(lambda: action(again, kept[place])))  # noqa: B023
    return statistics.median(times), max(times), len(kept)


def replays(like: State, budget: int) -> tuple[float, int, int]:
    """Median and most updates that a rewind within a long run replays, and the first update at which it is > 32."""
    history = History(like, budget)
    most, too_many, gaps = 0, 0, np.zeros(0)
    for step in range(1, LONG + 1):
        history.keep(step, like)
        if step % 50 == 0:
            gaps = np.diff([*sorted(history.states), step + 1])
            most = max(most, int(gaps.max()) - 1)
            too_many = too_many or (step if most > 32 else 0)
    # A gap of g updates holds rewinds that replay 0, 1, .. g - 1 of them.
    every = np.concatenate([np.arange(gap) for gap in gaps])
    return float(np.median(every)), most, too_many


def replaying(run: Run) -> float:
    """Median milliseconds of one update that is replayed."""
    run.advance(9)
    nearest = run.history.nearest
    run.history.nearest = lambda step: nearest(step - 8)  # type: ignore[method-assign]
    return statistics.median(milliseconds(lambda: run.state_at(run.updates)) / 8 for _ in range(15))


def memory(run: Run) -> tuple[float, float]:
    """Megabytes that a long run's frames take, and the most that they took while they grew."""
    run.flush()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    log = film(run, LONG)
    held, peak = (value - before for value in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    assert log.rows == LONG + 1
    return held / 1e6, peak / 1e6


def drawing(run: Run, blocks: int) -> list[float]:
    """Median milliseconds of a refresh after 100, 1,000 and 10,000 updates, taking turns."""
    records: list[Record] = [film(run, updates).record() for updates in (100, 1000, LONG)]
    drawn = [draw_dashboard(record, len(record)) for record in records]
    times = [
        [milliseconds(lambda: refresh_dashboard(figure, record, (), len(record)))  # noqa: B023
         for figure, record in zip(drawn, records, strict=True)]
        for _ in range(blocks)
    ]  # fmt: skip
    return [statistics.median(column) for column in zip(*times, strict=True)]


def tables(blocks: int) -> str:
    """All tables in Markdown."""
    run = calm_run()
    run.advance(40)
    size = run.state.bytes
    lines = [
        "# What a film costs",
        "",
        f"torch {torch.__version__.partition('+')[0]}, x86-64, one thread; processor time of the thread; the",
        f"question's preset ({len(run.parameters)} parameters, {size / 1e6:.3f} MB a state, twice that with momentum).",
        "",
        "## Keeping history",
        "",
        f"Run.update with History.keep and without it, {blocks} blocks of {STEPS} updates each, taking turns. The",
        "ratio is the median over blocks. Target: at most 1.05.",
        "",
        "| update | without, ms | with, ms | ratio |",
        "|---|---|---|---|",
    ]
    for name, changes in {"plain": {}, "momentum": {"momentum": 0.9}}.items():
        lines.append("| {} | {:.2f} | {:.2f} | {:.3f} |".format(name, *keeping(blocks, changes)))
    lines += [
        "",
        "## Going back",
        "",
        "Run.rewind and Run.fork to 60 kept updates near and far, without replay: look-up, log and history cut.",
        "Target: at most 100 ms.",
        "",
        "| from update | median, ms | worst, ms | states kept (256 MiB) |",
        "|---|---|---|---|",
    ]
    for updates in (1000, LONG):
        lines.append("| {:,} | {:.2f} | {:.2f} | {} |".format(updates, *going_back(run, updates)))
    lines += [
        "",
        "Updates replayed by a rewind to any update: the median at update 10,000, the most at any time up to then, and",
        "the update at which that is more than 32 for the first time (0: never). Target: at most 32. A replayed update",
        f"takes {replaying(run):.1f} ms.",
        "",
        "| budget, MiB | plain: median | most | > 32 from | momentum: median | most | > 32 from |",
        "|---|---|---|---|---|---|---|",
    ]
    flat = torch.empty(len(run.parameters), device="meta")
    for budget in BUDGETS:
        plain, heavy = (replays(State(flat, velocity, {}), budget) for velocity in (None, flat))
        lines.append("| {} | {:g} | {} | {:,} | {:g} | {} | {:,} |".format(budget // 2**20, *plain, *heavy))
    held, peak = memory(run)
    lines += [
        "",
        "## Memory of 10,000 frames",
        "",
        "Tables, kernels and histograms, by tracemalloc. Target: at most 250 MB.",
        "",
        "| held, MB | most while growing, MB |",
        "|---|---|",
        f"| {held:.1f} | {peak:.1f} |",
        "",
        "## Drawing",
        "",
        "refresh_dashboard, taking turns. Up to 160 updates (cost: 1,000) every one is a point of its own; beyond,",
        "curves are decimated. Broken: all is NaN from update 4 on. Target: 10,000 at most 1.3 times 100.",
        "",
        "| run | 100 updates, ms | 1,000, ms | 10,000, ms | 10,000 to 100 |",
        "|---|---|---|---|---|",
    ]
    broken = Run("question", device="cpu")
    broken.advance(40)
    for name, each in (("calm", run), ("broken", broken)):
        times = drawing(each, max(blocks // 2, 5))
        lines.append("| {} | {:.1f} | {:.1f} | {:.1f} | {:.2f} |".format(name, *times, times[-1] / times[0]))
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--blocks", type=int, default=60)
    arguments.add_argument("--write", action="store_true")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    text = tables(chosen.blocks)
    print(text)
    if chosen.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
