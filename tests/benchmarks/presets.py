"""What each preset shows, over many seeds: the numbers that its comment in cnnlab/settings.py promises.

python tests/benchmarks/presets.py [--seeds 32] [--only adam] [--write]

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
from typing import Any

import numpy as np
import torch

from cnnlab import Run, critical_learning_rate, presets
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
ADAM = {
    "learning_rate 1e-2": {},
    "learning_rate 1e-1": {"learning_rate": 1e-1},
    "learning_rate 1": {"learning_rate": 1.0},
    "learning_rate 1e-3": {"learning_rate": 1e-3},
    "learning_rate 1e-4": {"learning_rate": 1e-4},
    "learning_rate 1e-3, pixels standardised": {"learning_rate": 1e-3, "input_scaling": "standardised"},
    "adamw, l2 0.1": {"optimizer": "adamw", "l2": 0.1},
    "rmsprop": {"optimizer": "rmsprop"},
    "nesterov": {"optimizer": "nesterov"},
    "sgd": {"optimizer": "sgd"},
}
"""What changes in the preset of Adam, in words -> the changes."""
SUDDEN = {
    "as it is": {},
    "cost log_softmax": {"cost": "log_softmax"},
    "epsilon 1e-8": {"epsilon": 1e-8},
}
BATCH_NORM: dict[str, dict[str, Any]] = {
    "as it is": {},
    "learning_rate 1e-1": {"learning_rate": 0.1},
    "learning_rate 1": {"learning_rate": 1.0},
    "learning_rate 10": {"learning_rate": 10.0},
    "after the activation": {"normalization_place": "after"},
    "layer": {"normalization": "layer"},
    "group": {"normalization": "group"},
    "off": {"normalization": "off"},
}
DEEP: dict[str, dict[str, Any]] = {
    "deep_plain": {},
    "deep_residual": {"residual": "zero"},
    "shortcuts without a scale: residual on": {"residual": "on"},
    "residual on, normalization batch": {"residual": "on", "normalization": "batch"},
    "no shortcuts, normalization batch": {"normalization": "batch"},
    "6 convolutions": {"depth": 6},
}
SCALED: dict[str, dict[str, Any]] = {
    "dynamic, as it is": {},
    "1024": {"loss_scale": 1024.0},
    "off": {"loss_scale": "off"},
    "float32": {"precision": "float32"},
}
"""Loss scales of the preset of float16, and the precision that needs none -> the changes."""
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


def adam(seeds: range) -> str:
    """How far the first steps of Adam, and of others at its rate, throw the cost, and what is learnt after them."""
    rows = []
    for name, changes in ADAM.items():
        found = records("adam", seeds, **changes)
        finite = [record for record in found if record.first_nonfinite is None]
        rows.append(
            (
                name,
                share(record.first_nonfinite is not None for record in found),
                span(broken(found)),
                span(record.cost.max() for record in finite),
                span(record.cost[19] for record in finite),
                span(record.cost[-1] for record in finite),
                span((record.accuracy[-1] for record in finite), ".2f"),
            )
        )
    head = ("changed", "non-finite", "update", "largest cost of finite runs", "at update 20", "last", "last accuracy")
    return table(head, rows)


def batch_norm(seeds: range) -> str:
    """What becomes of the question with norms: of the cost, and of what is not trained on."""
    rows = []
    for name, changes in BATCH_NORM.items():
        runs = [trained("batch_norm", seed, **changes) for seed in seeds]
        alive = [run for run in runs if run.record.first_nonfinite is None]
        rows.append(
            (
                name,
                share(run.record.first_nonfinite is not None for run in runs),
                span(critical_learning_rate(Run(run.settings)).value for run in runs[:8]),
                span(run.record.cost[0] for run in runs),
                span(run.record.cost[-1] for run in alive),
                span((run.measure_held_out() for run in alive), ".3f"),
            )
        )
    head = ("changed", "non-finite", "critical rate at the start, 8 seeds", "first cost", "last cost", "held out")
    return table(head, rows)


def deep(seeds: range) -> str:
    """Twenty convolutions without and with shortcuts."""
    rows = []
    for name, changes in DEEP.items():
        runs = [trained("deep_plain", seed, **changes) for seed in seeds]
        alive = [run for run in runs if run.record.first_nonfinite is None]
        ends = [float(np.mean(run.record.cost[-20:])) for run in alive]
        rows.append(
            (
                name,
                share(run.record.first_nonfinite is not None for run in runs),
                span(run.record.cost[0] for run in runs),
                share(abs(end - LN_2) < 0.02 for end in ends),
                span(ends),
                share(run.measure_held_out() >= 0.8 for run in alive),
            )
        )
    head = ("changed", "non-finite", "first cost", "last epoch within 0.02 of ln 2", "its mean cost", "held out 0.8")
    return table(head, rows)


def make_gradient(seed: int, **changes: object) -> tuple[Run, torch.Tensor]:
    """A run of the preset of loss scaling at its start, and its gradient there; the scale is one that is in range."""
    fitting = changes or {"loss_scale": 1024.0}
    run = Run("loss_scaling", seed=seed, device="cpu", **fitting)
    with run.determinism(1):
        knobs = run.prepare_knobs(run.knobs_in_force)
        return run, run.descent.step(run.state, *run.problem.batch(1), *knobs).gradient.double()


def compare_gradients(seed: int, **changes: object) -> tuple[float, float]:
    """The cosine of the first gradient with that of float32: of cv0's part, and of the whole."""
    (run, ours), (_, true) = make_gradient(seed, **changes), make_gradient(seed, precision="float32")
    pairs = [(run.layout.by_layer(ours)[0], run.layout.by_layer(true)[0]), (ours, true)]
    first, whole = (float(one @ other / (one.norm() * other.norm()).clamp(min=1e-300)) for one, other in pairs)
    return first, whole


def loss_scaling(seeds: range) -> str:
    """What a loss scale saves of the first gradient in float16, and what that is worth in the end."""
    rows = []
    for name, changes in SCALED.items():
        cosines = [compare_gradients(seed, **changes) for seed in seeds]
        found = records("loss_scaling", seeds, **changes)
        ends = [float(np.mean(record.cost[-10:])) for record in found if record.first_nonfinite is None]
        rows.append(
            (
                name,
                span((first for first, _ in cosines), ".2f"),
                span((whole for _, whole in cosines), ".2f"),
                span(int(record.left_out.sum()) for record in found),
                share(record.first_nonfinite is not None for record in found),
                share(abs(end - LN_2) < 0.02 for end in ends),
                span(ends),
            )
        )
    head = (
        "loss scale",
        "first gradient of cv0: cosine with float32's",
        "of all layers",
        "updates left out",
        "non-finite",
        "last 10 updates within 0.02 of ln 2",
        "their mean cost",
    )
    return table(head, rows)


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
    "adam": adam,
    "batch_norm": batch_norm,
    "deep_plain": deep,
    "loss_scaling": loss_scaling,
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
    times = [(preset, format(milliseconds(preset), ".1f")) for preset in presets()]
    parts += ["## Processor time of an update with all gauges", table(("preset", "ms"), times)]
    return "\n\n".join(parts) + "\n"


def replace_section(preset: str, measured: str) -> str:
    """The tables that were kept, with that of one preset in its place, or before the times if it is new."""
    title, times = f"## {preset}\n\n", "## Processor time"
    kept = RESULTS.read_text(encoding="utf-8")
    before, found, rest = kept.partition(title)
    if not found:
        before, _, rest = kept.partition(times)
        return f"{before}{title}{measured}\n\n{times}{rest}"
    return f"{before}{title}{measured}\n\n## {rest.partition('## ')[2]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=32, help="how many seeds, from 0 on")
    parser.add_argument("--write", action="store_true", help="keep the tables beside this script")
    parser.add_argument("--only", choices=SHOWN, help="the preset to measure; the tables of the others stay")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.seeds)
    text = replace_section(options.only, SHOWN[options.only](seeds)) if options.only else report(seeds)
    print(text, end="")
    if options.write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
