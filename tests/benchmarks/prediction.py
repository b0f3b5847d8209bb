"""What the forecast before the first update is worth: the runs, and the tables.

python tests/benchmarks/prediction.py --grid      train what is missing in results/prediction*.csv but for _larger
python tests/benchmarks/prediction.py [--write]   make the tables

A forecast tries five starts of the question's network for 20 updates and says how many diverged. Here a sixth start is
tried as well, at learning rates, initial scales, placements of ReLU and input scalings drawn at random; and 68 starts
at each of seven learning rates. Beside it stands what a chance is worth that a rule gives from signs at the start, as
forecasts were made before. The grid goes on where it stopped; an hour and a half of one core.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from prediction_larger import tabulate_larger

from cnnlab.curvature.divergence import SEEDS, WITHIN
from cnnlab.curvature.learning_rate import critical_learning_rate
from cnnlab.training.clipping import safe_norm
from cnnlab.training.run import Run

RESULTS = Path(__file__).parent / "results"
SIGNS_FILE, STARTS_FILE = RESULTS / "prediction.csv", RESULTS / "prediction_starts.csv"
TRIED = 1 + SEEDS
"""Starts that a forecast tries; one more tells how good it is."""
FIT = 1300
"""Runs to which the rule of signs is fitted; those after them score it."""
SCORE, SIXTH = 2000, 800
"""Runs after them whose signs are measured, and the first of these, whose further starts are tried."""
RATES = (1e-6, 10.0)
SCALES = (0.3, 2.5)
KINDS = ("question", "every_layer", "none", "softmax_too")
FIXED = (3e-5, 1e-4, 2e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Learning rates of the preset `question` at which the same is asked."""
STARTS, SHOWN = 68, 32
"""Starts at each, and how many of their seeds are the forecast's first."""
SIGN_FIELDS = (
    "number", "learning_rate", "init_scale", "seed", "relu", "input_scaling", "critical", "ratio", "next_ratio", "cost",
    "next_cost", "diverged",
)  # fmt: skip
START_FIELDS = ("number", "learning_rate", "place", "seed", "diverged_at")
"""A number below 0: the preset at a fixed learning rate."""
RIDGE = 1.0


def draw(number: int) -> dict[str, Any]:
    """What is random in a run: a function of its number."""
    chance = np.random.default_rng([number, *b"question"])
    uniform = lambda low, high: float(np.exp(chance.uniform(np.log(low), np.log(high))))  # noqa: E731
    return {
        "learning_rate": uniform(*RATES),
        "init_scale": uniform(*SCALES),
        "seed": int(chance.integers(10**6)),
        "relu": str(chance.choice(list(KINDS))),
        "input_scaling": str(chance.choice(["raw", "unit", "standardised"])),
    }


def make_run(changes: dict[str, Any]) -> Run:
    """The run, before its first update."""
    return Run("question", device="cpu", history_bytes=0, **changes)


def measure_signs(run: Run) -> dict[str, float]:
    """What can be known of a run at its start.

    "critical": the learning rate over the critical one; "ratio" and "next_ratio": the first update, and the one after
    it, over the weights that it meets, in the layer where that is largest; the cost before and after the first.
    """
    critical = critical_learning_rate(run, tolerance=0.05, most=30)
    batch, knobs = run.problem.batch(1), run.prepare_knobs(run.knobs_in_force)
    with run.determinism(1):
        step = run.descent.step(run.state, *batch, *knobs)
        ratio = find_longest(run, step.update, run.parameters)
        after = run.descent.step(step.state, *batch, *knobs)
    return {
        "critical": run.knobs_in_force.learning_rate * critical.eigenvalue / 2,
        "ratio": ratio,
        "next_ratio": find_longest(run, after.update, step.parameters),
        "cost": step.data_cost.item(),
        "next_cost": after.data_cost.item(),
    }


def find_longest(run: Run, update: torch.Tensor, parameters: torch.Tensor) -> float:
    """The update over the weights that it meets, in the layer where that is largest; inf if it is not finite."""
    layers = zip(run.layout.by_layer(update), run.layout.by_layer(parameters), strict=True)
    ratios = [(safe_norm(moved) / safe_norm(weights).clamp(min=1e-30)).item() for moved, weights in layers]
    return max(ratio if math.isfinite(ratio) else math.inf for ratio in ratios)


def try_start(changes: dict[str, Any]) -> int:
    """The update at which a run really trained reaches NaN or inf; 0: it does not within 20."""
    last = make_run(changes).advance(WITHIN, until="nonfinite")
    return last.step if last.nonfinite else 0


def measure_run(number: int, changes: dict[str, Any]) -> dict[str, Any]:
    """One run with its signs, and how it ends."""
    whole = {"relu": "question", **changes}
    found = {"number": number, **whole, **measure_signs(make_run(changes)), "diverged": int(try_start(changes) > 0)}
    return {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in found.items()}


def list_runs() -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, settings) of every run whose signs are measured."""
    for (at, rate), seed in itertools.product(enumerate(FIXED), range(SHOWN)):
        yield -1 - at, {"learning_rate": rate, "seed": seed}
    for number in range(FIT + SCORE):
        yield number, draw(number)


def list_starts() -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(number, place, settings) of every start that is tried; at a fixed rate a start's place is its seed."""
    for (at, rate), seed in itertools.product(enumerate(FIXED), range(STARTS)):
        yield -1 - at, seed, {"learning_rate": rate, "seed": seed}
    for number, place in itertools.product(range(FIT, FIT + SIXTH), range(TRIED + 1)):
        changes = draw(number)
        yield number, place, {**changes, "seed": changes["seed"] + place}


def train() -> None:
    """Train what is not in the files yet, and add a line for each."""
    torch.set_num_threads(1)
    known = {(int(row["number"]), int(row["seed"])) for row in read_rows(SIGNS_FILE)}
    with SIGNS_FILE.open("a", newline="") as file:
        writer = csv.DictWriter(file, SIGN_FIELDS, lineterminator="\n")
        for number, changes in list_runs():
            if (number, changes["seed"]) not in known:
                writer.writerow(measure_run(number, changes))
                file.flush()
    tried = {(int(row["number"]), int(row["place"])) for row in read_rows(STARTS_FILE)}
    with STARTS_FILE.open("a", newline="") as file:
        writer = csv.DictWriter(file, START_FIELDS, lineterminator="\n")
        for number, place, changes in list_starts():
            if (number, place) not in tried:
                rate = f"{changes['learning_rate']:.6g}"
                writer.writerow(
                    dict(zip(START_FIELDS, (number, rate, place, changes["seed"], try_start(changes)), strict=True))
                )
                file.flush()


def read_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def take_logarithm(value: float) -> float:
    """log10 between -6 and 6; NaN counts as inf."""
    return 6.0 if math.isnan(value) else math.log10(min(max(value, 1e-6), 1e6))


def prepare_inputs(rows: list[dict[str, str]]) -> NDArray[np.float64]:
    """What the rule of signs looks at: logarithms, their positive parts, and the placement of ReLU with two of them."""
    numbers = [
        {name: float(row[name]) for name in ("critical", "ratio", "next_ratio", "cost", "next_cost")} for row in rows
    ]
    signs = np.array(
        [
            [
                *(take_logarithm(row[name]) for name in ("critical", "ratio", "next_ratio")),
                take_logarithm(row["next_cost"] / max(row["cost"], 1e-9)),
            ]
            for row in numbers
        ]
    )
    kinds = np.array([[row["relu"] == kind for kind in KINDS] for row in rows], dtype=float)
    return np.column_stack([signs, np.maximum(signs, 0), kinds, kinds * signs[:, :1], kinds * signs[:, 2:3]])


def fit_rule(inputs: NDArray[np.float64], diverged: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The coefficients of a logistic rule with a weak ridge."""
    found = np.zeros(inputs.shape[1])
    for _ in range(60):
        chance = compute_chance(inputs, found)
        curvature = inputs.T @ (inputs * (chance * (1 - chance))[:, None]) + RIDGE * np.eye(len(found))
        found += np.linalg.solve(curvature, inputs.T @ (diverged - chance) - RIDGE * found)
    return found


def compute_chance(inputs: NDArray[np.float64], rule: NDArray[np.float64]) -> NDArray[np.float64]:
    """The chances that the rule gives."""
    return 1 / (1 + np.exp(-np.clip(inputs @ rule, -30, 30)))


def find_interval(count: int, among: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, z = count / among, 1.96
    middle = (share + z * z / 2 / among) / (1 + z * z / among)
    half = z * math.sqrt(share * (1 - share) / among + z * z / 4 / among**2) / (1 + z * z / among)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def describe_share(diverged: NDArray[np.bool_]) -> str:
    """How many of some starts diverged, in three columns."""
    if not len(diverged):
        return "0 | |"
    low, high = find_interval(int(diverged.sum()), len(diverged))
    return f"{len(diverged)} | {diverged.sum()} ({diverged.mean():.0%}) | {low:.0%} to {high:.0%}"


def find_ended(rows: list[dict[str, str]]) -> NDArray[np.bool_]:
    """Which runs diverged."""
    return np.array([row["diverged"] == "1" for row in rows])


def tabulate_sixth(tried: NDArray[np.bool_]) -> list[str]:
    """What a sixth start did by how many of five diverged; `tried`: (runs, 6)."""
    counts, sixth = tried[:, :TRIED].sum(axis=1), tried[:, TRIED]
    brier, constant = np.mean((counts / TRIED - sixth) ** 2), sixth.mean() * (1 - sixth.mean())
    return [
        "| starts tried that diverged | runs | a sixth start diverged | 95 % interval |",
        "|---|---|---|---|",
        *(f"| {count} of {TRIED} | {describe_share(sixth[counts == count])} |" for count in range(TRIED + 1)),
        "",
        f"{len(tried)} runs. Read as a chance, the share that diverged has a Brier score of {brier:.3f}; the constant",
        f"{sixth.mean():.2f} has {constant:.3f}.",
    ]


def tabulate_fixed(starts: dict[int, dict[int, bool]]) -> list[str]:
    """What is shown at each fixed rate over the seeds, beside the truth."""
    lines = [
        f"| learning rate | 0 of {TRIED} | "
        + " | ".join(map(str, range(1, TRIED + 1)))
        + f" | of {STARTS} starts diverged |",
        "|---" * (TRIED + 3) + "|",
    ]
    for at, rate in enumerate(FIXED):
        ended = starts[-1 - at]
        shown = Counter(sum(ended[seed + place] for place in range(TRIED)) for seed in range(SHOWN))
        cells = " | ".join(str(shown[count]) for count in range(TRIED + 1))
        lines.append(f"| {rate:g} | {cells} | {sum(ended.values())} |")
    return lines


def tabulate_bins(chance: NDArray[np.float64], diverged: NDArray[np.bool_]) -> list[str]:
    """The reliability of a chance in ten bins of equal count."""
    lines, errors, inside = ["| mean chance | runs | diverged | 95 % interval |", "|---|---|---|---|"], [], 0
    for places in np.array_split(np.argsort(chance, kind="stable"), 10):
        mean, ended = float(chance[places].mean()), diverged[places]
        low, high = find_interval(int(ended.sum()), len(ended))
        inside += low <= mean <= high
        errors.append(abs(mean - float(ended.mean())))
        lines.append(f"| {mean:.3f} | {describe_share(ended)} |")
    brier, constant = np.mean((chance - diverged) ** 2), diverged.mean() * (1 - diverged.mean())
    return [
        *lines,
        "",
        f"Inside the interval in {inside} of 10 bins, mean error {np.mean(errors):.3f}, Brier score {brier:.3f}; the",
        f"constant {diverged.mean():.2f} has {constant:.3f}.",
    ]


def tabulate_means(rows: list[dict[str, str]], rule: NDArray[np.float64]) -> list[str]:
    """The chance that the rule gives at each fixed rate, beside the truth."""
    lines = ["| learning rate | mean chance | largest | diverged |", "|---|---|---|---|"]
    for at, rate in enumerate(FIXED):
        group = [row for row in rows if int(row["number"]) == -1 - at]
        chance, ended = compute_chance(prepare_inputs(group), rule), find_ended(group)
        lines.append(f"| {rate:g} | {chance.mean():.0%} | {chance.max():.0%} | {ended.sum()} of {len(ended)} |")
    return lines


def tabulate_shares(rows: list[dict[str, str]]) -> list[str]:
    """How many diverge by how far the learning rate lies above the critical one."""
    times, diverged = np.array([float(row["critical"]) for row in rows]), find_ended(rows)
    lines = ["| learning rate / critical | runs | diverged |", "|---|---|---|"]
    for low, high in itertools.pairwise((0, 0.3, 1, 3, 10, 30, 100, math.inf)):
        inside = (times > low) & (times <= high) | (times <= 0) * (low == 0)
        lines.append(f"| {low:g} to {high:g} | {inside.sum()} | {diverged[inside].mean():.0%} |")
    return lines


def write_report(signs: list[dict[str, str]], starts: dict[int, dict[int, bool]]) -> str:
    """The tables in Markdown."""
    rows = sorted((row for row in signs if int(row["number"]) >= 0), key=lambda row: int(row["number"]))
    ends = [list(ended.values()) for number, ended in starts.items() if number >= 0 and len(ended) == TRIED + 1]
    fit, score = rows[:FIT], rows[FIT:]
    rule = fit_rule(prepare_inputs(fit), find_ended(fit))
    lines = [
        "# Will it diverge? What is said before the first update",
        "",
        f"torch {torch.__version__.partition('+')[0]}, x86-64. A run diverges if its cost is NaN or inf within",
        f"{WITHIN} updates. The forecast tries {TRIED} starts, the run's own and those of the next {SEEDS} seeds, and",
        "says how many diverged. What the run's own start did comes to pass: the same settings give the same run to",
        "the bit.",
        "",
        "## What a sixth start does",
        "",
        f"The question's network, learning rate from {RATES[0]:g} to {RATES[1]:g} and initial scale from",
        f"{SCALES[0]:g} to {SCALES[1]:g} (log-uniform), placement of ReLU, input scaling and seed at random.",
        "",
        *tabulate_sixth(np.array(ends, dtype=bool)),
        "",
        "## Over the larger space",
        "",
        *tabulate_larger(),
        "",
        f"## The preset `question`: what is shown for {SHOWN} seeds, and the truth",
        "",
        *tabulate_fixed(starts),
        "",
        "## Why no chance is shown",
        "",
        "A logistic rule of signs at the start (learning rate over the critical one, length of the first two updates,",
        f"growth of the cost in a trial update, placement of ReLU), fitted to {len(fit)} runs. On {len(score)} others:",
        "",
        *tabulate_bins(compute_chance(prepare_inputs(score), rule), find_ended(score)),
        "",
        "So it is nearly right on average over this grid. At a given rate of the preset it is far off:",
        "",
        *tabulate_means([row for row in signs if int(row["number"]) < 0], rule),
        "",
        "To measure the signs takes as long as some 15 updates of this network (0.17 s); to try it takes 20.",
        "",
        "## How far above the critical learning rate",
        "",
        "All of these runs, by how far the learning rate lies above the critical one:",
        "",
        *tabulate_shares(rows),
        "",
        "With ReLU at the softmax too, many runs swing so far that every unit dies, and no number overflows.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def group_starts(rows: list[dict[str, str]]) -> dict[int, dict[int, bool]]:
    """Number -> place -> whether that start diverged."""
    groups: dict[int, dict[int, bool]] = {}
    for row in sorted(rows, key=lambda row: (int(row["number"]), int(row["place"]))):
        groups.setdefault(int(row["number"]), {})[int(row["place"])] = int(row["diverged_at"]) > 0
    return groups


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--grid", action="store_true")
    arguments.add_argument("--write", action="store_true")
    chosen = arguments.parse_args()
    if chosen.grid:
        train()
    text = write_report(read_rows(SIGNS_FILE), group_starts(read_rows(STARTS_FILE)))
    print(text)
    if chosen.write:
        (RESULTS / "prediction.md").write_text(text)
