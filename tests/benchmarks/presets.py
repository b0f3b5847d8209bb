"""What each preset shows, over many seeds: the numbers that its comment in cnnlab/settings.py promises.

python tests/benchmarks/presets.py [--seeds 32] [--write]

Seeds are 0, 1, 2 and so on; a run ends after its preset's own epochs or at its first non-finite cost. --write keeps the
tables in tests/benchmarks/results/presets.md. About ten minutes of one core with 32 seeds.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from cnnlab import Run
from cnnlab.records.record import Record

RESULTS = Path(__file__).parent / "results" / "presets.md"
LN_2 = float(np.log(2))
QUESTION = {
    "learning_rate 1e-2": {},
    "learning_rate 1e-3": {"learning_rate": 1e-3},
    "learning_rate 1e-4": {"learning_rate": 1e-4},
    "pixels divided by 255": {"input_scaling": "unit"},
    "pixels standardised": {"input_scaling": "standardised"},
    "W_bound_2: init question_2, init_scale 1": {"init": "question_2", "init_scale": 1.0},
    "W_bound_6 as written: init_scale 1": {"init_scale": 1.0},
    "bfloat16": {"precision": "bfloat16"},
    "float64": {"precision": "float64"},
    "gradient clipped to norm 1": {"clip": "norm"},
}
"""What changes in the question's preset, in words -> the changes."""
SUDDEN = {
    "as it is": {},
    "cost log_softmax": {"cost": "log_softmax"},
    "epsilon 1e-8": {"epsilon": 1e-8},
}
OVERFLOW = {
    "float16, as it is": {},
    "bfloat16": {"precision": "bfloat16"},
    "float32": {"precision": "float32"},
}


def trained(preset: str, seed: int, **changes: object) -> Run:
    """A run of a preset to the end of its epochs, or to its first non-finite cost."""
    run = Run(preset, seed=seed, device="cpu", **changes)
    run.advance(run.settings.epochs * run.updates_per_epoch, until="nonfinite")
    return run


def records(preset: str, seeds: range, **changes: object) -> list[Record]:
    """The records of such runs, one a seed."""
    return [trained(preset, seed, **changes).record for seed in seeds]


def finite_costs(record: Record) -> np.ndarray:
    """The costs before the first non-finite one."""
    return record.cost[: record.first_nonfinite - 1] if record.first_nonfinite else record.cost


def broken(found: list[Record]) -> list[int]:
    """The updates of the first non-finite cost, of the runs that have one."""
    return [record.first_nonfinite for record in found if record.first_nonfinite]


def share(flags: Iterable[bool]) -> str:
    """How many are true, of how many: 13/32; a dash of none."""
    flags = list(flags)
    return f"{sum(flags)}/{len(flags)}" if flags else "-"


def span(numbers: Iterable[float], form: str = ".3g") -> str:
    """Smallest, median and largest of numbers, or a dash where there is none."""
    numbers = list(numbers)
    ends = (min(numbers), statistics.median(numbers), max(numbers)) if numbers else ()
    return " / ".join(format(number + 0.0, form) for number in ends) or "-"


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """A markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def question(seeds: range) -> str:
    """How often and how soon the question's network reaches a non-finite cost, as it is and with one thing changed."""
    rows = []
    for name, changes in QUESTION.items():
        found = records("question", seeds, **changes)
        first = [record.cost[0] for record in found]
        rows.append(
            (
                name,
                share(record.first_nonfinite is not None for record in found),
                share(3 <= step <= 5 for step in broken(found)),
                span(broken(found)),
                format(statistics.median(first), ".3g"),
                share(1 <= cost <= 20 for cost in first),
            )
        )
    head = ("changed", "non-finite", "of these at update 3 to 5", "update", "median first cost", "first cost 1 to 20")
    return table(head, rows)


def trace(seeds: range) -> str:
    """The costs of the question's preset at seed 0, beside which the question's own can be laid."""
    return (
        f"Costs at seed {seeds[0]}: "
        + ", ".join(f"{cost:.4g}" for cost in records("question", seeds[:1])[0].cost)
        + "."
    )


def converges(seeds: range) -> str:
    """Accuracy on held-out patches after the preset's epochs, and the cost's way down."""
    runs = [trained("converges", seed) for seed in seeds]
    accuracies = [run.measure_held_out() for run in runs]
    row = (
        len(runs[0].record),
        share(accuracy >= 0.9 for accuracy in accuracies),
        span(accuracies, ".3f"),
        span(run.record.cost[-1] for run in runs),
    )
    return table(("updates", "held-out accuracy of 0.9 or more", "held-out accuracy", "last cost"), [row])


def sudden_nan(seeds: range) -> str:
    """How low the cost is just before log(0), and that two remedies leave none."""
    rows = []
    for name, changes in SUDDEN.items():
        found = records("sudden_nan", seeds, **changes)
        rows.append(
            (
                name,
                share(record.first_nonfinite is not None for record in found),
                share(np.isposinf(record.cost[-1]) for record in found if record.first_nonfinite),
                span(broken(found)),
                span(finite_costs(record)[-1] for record in found if len(finite_costs(record))),
                span(finite_costs(record).max() for record in found if len(finite_costs(record))),
            )
        )
    return table(("changed", "non-finite", "of these inf", "update", "last finite cost", "largest finite cost"), rows)


def overflow(seeds: range) -> str:
    """Which precision cannot hold the activations of the same settings."""
    rows = []
    for name, changes in OVERFLOW.items():
        found = records("overflow", seeds, **changes)
        rows.append(
            (
                name,
                share(record.first_nonfinite is not None for record in found),
                span(broken(found)),
                span(np.nanmax(record.logit_gap) for record in found),
                span(record.cost[-1] for record in found if record.first_nonfinite is None),
            )
        )
    return table(("precision", "non-finite", "update", "largest logit gap seen", "last cost of finite runs"), rows)


def dead(seeds: range) -> str:
    """How many units are 0 for every patch in the end, and what that leaves of cost, accuracy and gradient."""
    found = records("dead", seeds)
    shares = [np.nanmax(record.dead_relu[-1]) for record in found]
    row = (
        share(record.first_nonfinite is not None for record in found),
        share(value >= 0.9 for value in shares),
        span(shares),
        share(abs(record.cost[-1] - LN_2) < 1e-3 for record in found),
        span(record.accuracy[-1] for record in found),
        span(record.gradient_norm[-1, 0] for record in found),
    )
    head = (
        "non-finite",
        "0.9 of a layer dead",
        "largest dead share",
        "last cost within 1e-3 of ln 2",
        "last accuracy",
        "last gradient norm of cv0",
    )
    return table(head, [row])


def vanishing(seeds: range) -> str:
    """The gradient of the first layer beside the last one's, and how little the cost moves."""
    found = records("vanishing", seeds)
    ratios = [np.max(record.gradient_norm[:, 0] / record.gradient_norm[:, -1]) for record in found]
    row = (
        share(record.first_nonfinite is not None for record in found),
        share(ratio < 1e-4 for ratio in ratios),
        span(ratios),
        span(np.abs(record.cost - LN_2).max() for record in found),
    )
    head = ("non-finite", "cv0 below 1e-4 of softmax at every update", "largest ratio", "furthest cost from ln 2")
    return table(head, [row])


def milliseconds(preset: str) -> float:
    """Median processor time of an update with all its gauges, over the updates before a non-finite cost."""
    run = Run(preset, device="cpu")
    times = []
    for _ in range(min(run.settings.epochs * run.updates_per_epoch, 30)):
        start = time.thread_time()
        frame = run.step()
        times.append((time.thread_time() - start) * 1e3)
        if frame.nonfinite:
            break
    return statistics.median(times)


SHOWN: dict[str, Callable[[range], str]] = {
    "question": question,
    "converges": converges,
    "sudden_nan": sudden_nan,
    "overflow": overflow,
    "dead": dead,
    "vanishing": vanishing,
}
"""Preset -> the table of what it shows."""


def report(seeds: range) -> str:
    """All tables, as markdown."""
    parts = [
        "# What the presets show",
        f"torch {torch.__version__.partition('+')[0]}, {platform.machine().replace('_', '-')}, one thread; seeds "
        f"{seeds[0]} to {seeds[-1]}; tests/benchmarks/presets.py. Three numbers are smallest / median / largest.\n"
        "A run ends at its preset's epochs (the question: 20 epochs of one update) or at its first non-finite cost.",
    ]
    for preset, measure in SHOWN.items():
        extra = [trace(seeds)] if preset == "question" else []
        parts += [f"## {preset}", measure(seeds), *extra]
    times = [(preset, format(milliseconds(preset), ".1f")) for preset in SHOWN]
    parts += ["## Processor time of an update with all gauges", table(("preset", "ms"), times)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=32, help="how many seeds, from 0 on")
    parser.add_argument("--write", action="store_true", help="keep the tables beside this script")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = report(range(options.seeds))
    print(text, end="")
    if options.write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
