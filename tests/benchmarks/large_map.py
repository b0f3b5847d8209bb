"""What a map costs the process that asks for it, by its size: seconds, memory, bytes of its file, its drawing.

python tests/benchmarks/large_map.py [--sides 16 32 64 128] [--write]

Nothing is trained: a stand-in for the workers answers at once, with costs as the question's network has them at 20
updates, of which a third of the runs end at the fourth; each piece of work is pickled both ways, as on a cluster. Each
size has a process of its own. --write keeps the table in tests/benchmarks/results/large_map.md, and beside it the time
of an update on this processor.
"""

from __future__ import annotations

import argparse
import json
import pickle
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import psutil

RESULTS = Path(__file__).parent / "results" / "large_map.md"
SEEDS = 32
STEPS = 20
DIVERGED_AT = 4
"""The update at which a third of the runs end."""


class StandIn(Executor):
    """Answers every piece of work at once, by chance, after pickling it both ways."""

    _max_workers = 2

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def submit(self, *work: Any) -> Future[Any]:  # type: ignore[override]
        """An answer as `compute_piece` gives it."""
        from cnnlab.sweeps.pieces import Answer

        runs = len(pickle.loads(pickle.dumps(work))[2])
        cost = self.generator.lognormal(size=(runs, STEPS))
        cost[::3, DIVERGED_AT - 1 :] = np.nan
        numbers = (self.generator.lognormal(size=runs) for _ in range(3))
        made: Future[Any] = Future()
        made.set_result(pickle.loads(pickle.dumps(Answer(cost, *numbers, 1e-3, "stand-in", False))))
        return made


def measure(side: int) -> dict[str, float]:
    """What a map of so many cells squared costs."""
    from cnnlab.plots.map import draw_map
    from cnnlab.records import map_plans
    from cnnlab.records.map import Map
    from cnnlab.sweeps.sweep import Survey, planned

    map_plans.MOST_RUNS = 2**40
    axes = {"learning_rate": np.geomspace(1e-5, 1e-1, side), "init_scale": np.linspace(0.1, 2, side)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map"
        plan = planned("question", SEEDS, STEPS, axes)
        before = psutil.Process().memory_info().rss
        found: dict[str, float] = {"side": side, "runs": plan.done.size}
        found["plan"], survey = timed(lambda: Survey(plan, StandIn(), path))
        found["computed"], _ = timed(lambda: [None for _ in survey.pieces()])
        found["memory"] = psutil.Process().memory_info().rss - before
        found["copy"], shown = timed(lambda: survey.map)
        found["labels"], _ = timed(lambda: shown.share("diverged"))
        found["file"] = path.stat().st_size
        found["heading"] = len(shown.heading())
        found["load"], _ = timed(lambda: Map.load(path))
        found["draw"], figure = timed(lambda: draw_map(shown))
        found["page"] = len(figure.to_json())
    return found


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor that it takes, whatever else runs on the machine, and what it gives."""
    began = time.process_time()
    made = act()
    return time.process_time() - began, made


def format_row(found: dict[str, float]) -> str:
    """A line of the table."""
    runs, microseconds = found["runs"], 1e6 / found["runs"]
    return (
        f"| {found['side']:g} x {found['side']:g} | {runs:,.0f} | {found['computed']:.1f} | "
        f"{found['computed'] * microseconds:.0f} | {found['memory'] / runs:,.0f} | {found['file'] / 1e6:.1f} | "
        f"{found['file'] / runs:.0f} | {found['heading'] / 1e3:.1f} | {found['load'] * microseconds:.0f} | "
        f"{found['copy']:.3f} | {found['labels']:.2f} | {found['draw']:.2f} | {found['page'] / 1e6:.1f} |"
    )


def main() -> None:
    """Measure, print, and keep the table if that is wanted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--one", type=int, help="measure this size here, and print it as JSON")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one)))
        return
    rows = []
    for side in asked.sides:
        told = subprocess.run([sys.executable, __file__, "--one", str(side)], stdout=subprocess.PIPE, check=True)
        rows.append(format_row(json.loads(told.stdout)))
        print(rows[-1], flush=True)
    if asked.write:
        RESULTS.write_text(describe(rows))


def describe(rows: list[str]) -> str:
    """The table with its heading."""
    import torch

    import cnnlab
    from cnnlab.sweeps.ensemble import compute

    member = cnnlab.settings("question", learning_rate=1e-6, device="cpu")
    compute([member], 1)
    update = min(timed(lambda: compute([member], STEPS))[0] for _ in range(5)) / STEPS
    lines = [
        "# Large maps, in the process that asks for them",
        "",
        f"`python tests/benchmarks/large_map.py --write` on {platform.machine()}, torch {torch.__version__}. Maps of "
        f"{SEEDS} seeds and {STEPS} updates, a third of whose runs end at update {DIVERGED_AT}; a stand-in answers for "
        "the workers at once. Seconds are those of the processor; memory is what the process has more of at the end.",
        "",
        "| cells | runs | s in all | µs a run | bytes of memory a run | MB of file | bytes of file a run | kB of its "
        "first line | µs a run to load | s for a copy (`survey.map`) | s for a share of labels | s to draw | MB of "
        "the figure |",
        "|" + "---|" * 13,
        *rows,
        "",
        f"An update of the question's network, one thread: {1e3 * update:.1f} ms.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
