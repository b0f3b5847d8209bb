"""How early the warning comes and how often it is false with each optimiser, over settings drawn from the larger space.

python tests/benchmarks/warning_larger.py [--keep FOLDER] [--write]

Settings are drawn as in prediction_larger.py: optimisers, normalisation, activations, depth, shortcuts, dropout, costs
and precisions. Thresholds were tuned on the first runs; those after them score them. --keep holds the records between
two calls. About sixteen minutes of one core.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from grid import DIVERGING, HEALTHY, SPOILT, Entry, print_report, recall, trained
from prediction_larger import OPTIMIZERS, draw

from cnnlab import Run
from cnnlab.config.settings import Settings
from cnnlab.diagnosis.detectors import DETECTORS
from cnnlab.records.record import Record

RESULTS = Path(__file__).parent / "results" / "warning_larger.md"
RUNS, FIT = 5200, 2600
"""Runs, and those of them on which thresholds were tuned; the others score them."""
UPDATES = 40


class Drawn(NamedTuple):
    """A run that has been trained."""

    number: int
    ending: str
    record: Record

    @property
    def settings(self) -> Settings:
        """What was drawn."""
        return self.record.settings

    @property
    def broke_at_once(self) -> bool:
        """Whether its very first cost was NaN or inf, before there was an update to warn of."""
        return self.record.first_nonfinite == 1

    @property
    def warned(self) -> int | None:
        """The first update at which our warning fired."""
        return DETECTORS[0].find_first(self.record)

    @property
    def lead(self) -> int:
        """By how many updates it led the first cost that was NaN or inf; 0: not at all."""
        broke, warned = self.record.first_nonfinite, self.warned
        return max(broke - warned, 0) if broke is not None and warned is not None else 0


def train_run(number: int) -> Drawn:
    """One run to its end."""
    chosen = draw(number, b"warning")
    outcome = trained(Entry("", "", chosen.seed, UPDATES, lambda: Run(chosen)))
    return Drawn(number, outcome.ending, outcome.record)


HEAD = [
    "| {} | runs | failing at once | failing later | warned of | share | median lead | healthy | false alarms | share "
    "| spoilt | warned of |",
    "| --- " * 12 + "|",
]


def tabulate(name: str, runs: Sequence[Drawn], key: Callable[[Drawn], str], order: Sequence[str] = ()) -> list[str]:
    """A row for each kind of run, and one of all."""
    kinds = order or sorted({key(run) for run in runs})
    rows = [(kind, [run for run in runs if key(run) == kind]) for kind in kinds]
    return [HEAD[0].format(name), HEAD[1], *(f"| {kind} | {describe(part)} |" for kind, part in [*rows, ("all", runs)])]


def describe(runs: Sequence[Drawn]) -> str:
    """How some runs end and how our warning does, in the columns of HEAD."""
    ends = {ending: [run for run in runs if run.ending == ending] for ending in (DIVERGING, HEALTHY, SPOILT)}
    later = [run for run in ends[DIVERGING] if not run.broke_at_once]
    leads = [run.lead for run in later if run.lead]
    false, spoilt = (sum(run.warned is not None for run in ends[ending]) for ending in (HEALTHY, SPOILT))
    cells = [
        len(runs), len(ends[DIVERGING]) - len(later), len(later), len(leads), f"{len(leads) / max(len(later), 1):.1%}",
        f"{statistics.median(leads):g}" if leads else "-", len(ends[HEALTHY]), false,
        f"{false / max(len(ends[HEALTHY]), 1):.1%}", len(ends[SPOILT]), spoilt,
    ]  # fmt: skip
    return " | ".join(map(str, cells))


def find_optimizer(run: Drawn) -> str:
    """The optimiser of a run."""
    return run.settings.optimizer


def report(kept_in: Path | None) -> str:
    """The whole text."""
    runs = [Drawn(*recall(kept_in, f"{number}", lambda number=number: train_run(number))) for number in range(RUNS)]
    tuned, scored = runs[:FIT], runs[FIT:]
    return "\n".join([
        "# Warnings over the larger space, by optimiser", "",
        f"torch {torch.__version__.partition('+')[0]}, {platform.machine()}, one thread; tests/benchmarks/"
        f"warning_larger.py. {len(runs)} runs of {UPDATES} updates of narrow networks, drawn as in prediction.md: "
        "every optimiser, normalisation, activation, depth, padding, shortcuts, dropout, both costs, three precisions.",
        "Failing: a cost of NaN or inf; at once: the very first one, before any update. Warned of: fired at least one "
        "update before the first such cost. Healthy: finite, no worse at the end than at the start, no layer dead. "
        "Spoilt: finite, but worse or dead: a warning there is neither right nor false. Lead in updates.", "",
        "## Scored: runs on which nothing was tuned", "",
        *tabulate("optimiser", scored, find_optimizer, OPTIMIZERS), "",
        "## Tuned on", "",
        *tabulate("optimiser", tuned, find_optimizer, OPTIMIZERS), "",
        "## Scored, by what else was drawn", "",
        *tabulate("cost", scored, lambda run: run.settings.cost), "",
        *tabulate("precision", scored, lambda run: run.settings.precision), "",
        *tabulate("normalisation", scored, lambda run: run.settings.normalization), "",
    ])  # fmt: skip


if __name__ == "__main__":
    print_report(__doc__, report, RESULTS)
