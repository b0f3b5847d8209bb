"""How early the warning comes and how often it is false, beside published detectors, over a grid of 2,332 runs.

python tests/benchmarks/warning.py [--keep FOLDER] [--write]

The grid is tests/benchmarks/grid.py; --keep holds its records between two calls. Thresholds of cnnlab/warning.py were
tuned on even seeds; odd seeds score them. About twelve minutes of one core.
"""

from __future__ import annotations

import platform
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from grid import DIVERGING, HEALTHY, SPOILT, Outcome, outcomes, print_report

from cnnlab.diagnosis.detectors import DETECTORS
from cnnlab.records.record import Record

RESULTS = Path(__file__).parent / "results" / "warning.md"
Rule = Callable[[Record], int | None]


def warned(rule: Rule, runs: Sequence[Outcome]) -> list[int]:
    """By how many updates the rule led the first non-finite cost, for each run in which it came before that at all."""
    leads = []
    for run in runs:
        first, broke = rule(run.record), run.record.first_nonfinite
        if first is not None and broke is not None and first < broke:
            leads.append(broke - first)
    return leads


def cells(rule: Rule, runs: Sequence[Outcome]) -> str:
    """Share of diverging runs warned of, median lead, share of healthy runs with a false alarm."""
    diverging = [run for run in runs if run.ending == DIVERGING]
    healthy = [run for run in runs if run.ending == HEALTHY]
    leads = warned(rule, diverging)
    false = sum(rule(run.record) is not None for run in healthy)
    lead = f"{statistics.median(leads):g}" if leads else "-"
    return f"{len(leads) / max(len(diverging), 1):.1%} | {lead} | {false / max(len(healthy), 1):.1%}"


def table(runs: Sequence[Outcome]) -> list[str]:
    """A row a detector, looking as often as it does and at every update."""
    lines = [
        "| detector | warned of | median lead | false alarms | at every update: warned of | lead | false alarms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for detector in DETECTORS:
        published = cells(detector.find_first, runs)
        lines.append(
            f"| {detector.name} | {published} | {cells(lambda record, d=detector: d.find_first(record, True), runs)} |"
        )
    return lines


def families(runs: Sequence[Outcome]) -> list[str]:
    """A row a family: how its runs end, and how our warning does."""
    lines = [
        "| family | runs | diverging | warned of | median lead | healthy | false alarms | spoilt | warned of |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rule = DETECTORS[0].find_first
    for family in dict.fromkeys(run.family for run in runs):
        part = [run for run in runs if run.family == family]
        kinds = {kind: [run for run in part if run.ending == kind] for kind in (DIVERGING, HEALTHY, SPOILT)}
        leads = warned(rule, kinds[DIVERGING])
        false = sum(rule(run.record) is not None for run in kinds[HEALTHY])
        spoilt = sum(rule(run.record) is not None for run in kinds[SPOILT])
        lead = f"{statistics.median(leads):g}" if leads else "-"
        lines.append(
            f"| {family} | {len(part)} | {len(kinds[DIVERGING])} | {len(leads)} | {lead} | {len(kinds[HEALTHY])} | "
            f"{false} | {len(kinds[SPOILT])} | {spoilt} |"
        )
    return lines


def report(kept_in: Path | None) -> str:
    """The whole text."""
    runs = list(outcomes(kept_in))
    tuned, scored = ([run for run in runs if run.seed % 2 == half] for half in (0, 1))
    ends = Counter(run.ending for run in runs)
    return "\n".join([
        "# Warnings before the cost breaks", "",
        f"torch {torch.__version__.partition('+')[0]}, {platform.machine()}, one thread; tests/benchmarks/warning.py. "
        f"{len(runs)} runs of tests/benchmarks/grid.py: {ends[DIVERGING]} diverging (a cost of NaN or inf), "
        f"{ends[HEALTHY]} healthy (finite, no worse at the end than at the start, no layer dead), {ends[SPOILT]} "
        "spoilt (finite, but worse or dead: a warning there is neither right nor false).",
        "Warned of: fired at least one update before the first non-finite cost. Lead in updates. The grid's networks "
        "are narrow (8 channels, patches of 14 pixels) but for the families that say wide.", "",
        "## Scored: odd seeds, on which nothing was tuned", "", *table(scored), "",
        "## Tuned on: even seeds", "", *table(tuned), "",
        "## Our warning by family, all seeds", "", *families(runs), "",
    ])  # fmt: skip


if __name__ == "__main__":
    print_report(__doc__, report, RESULTS)
