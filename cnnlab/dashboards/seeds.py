"""Two more dashboards of many runs: the fan of seeds of one setting, and the remedies side by side."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from cnnlab.config.schedules import rate_plan
from cnnlab.config.settings import Settings, check_names, quote, settings
from cnnlab.dashboards.job_dashboard import JobDashboard
from cnnlab.diagnosis.remedies import TODAYS, Remedy, can_have, list_posted_remedies
from cnnlab.plots.remedies import Lane, draw_remedies, refresh_remedies
from cnnlab.plots.seeds import draw_seeds, refresh_seeds
from cnnlab.records import map as maps
from cnnlab.records.map import Map
from cnnlab.records.record import Record
from cnnlab.sweeps.sweep import Pausable, Survey, planned
from cnnlab.training.run import Run

OURS: dict[str, dict[str, Any]] = {
    "Ours: standardised pixels": {"input_scaling": "standardised"},
    "Ours: and He's initialisation": {"input_scaling": "standardised", "init": "he_normal", "init_scale": 1.0},
}
"""Remedy in words -> what it changes: two that the posted answer does not name."""


def list_default_remedies(start: Settings) -> dict[str, dict[str, Any]]:
    """Remedy in words -> what it changes in some settings: nothing, the five of the posted answer, and six others.

    The six are two of ours and, where the network can have them and has not yet, what today's networks are made of.
    """
    todays = (each for each in TODAYS if can_have(start, each.changes) and (each.schedule or changes_any(start, each)))
    return {"As posted": {}, **name_changes(list_posted_remedies(start)), **OURS, **name_changes(todays)}


def name_changes(remedies: Iterable[Remedy]) -> dict[str, dict[str, Any]]:
    """Remedy in words -> what it changes, a schedule of the learning rate among it."""
    return {
        each.name[0].upper() + each.name[1:]: {**each.changes, **({"schedule": each.schedule} if each.schedule else {})}
        for each in remedies
    }


def changes_any(start: Settings, remedy: Remedy) -> bool:
    """Whether a remedy changes anything in some settings."""
    return any(getattr(start, name) != value for name, value in remedy.changes.items())


class Fan(JobDashboard):
    """The cost curves of many seeds of one setting, and how likely a NaN is; it displays itself.

    `Fan("question", learning_rate=1e-3, seeds=64, steps=20)` takes what `cnnlab.sweep` takes, but no axis. Nothing is
    computed until *Start* or `start()`. `map` holds the numbers, (seeds,), and `odds` the interval of Wilson (1927).
    """

    survey: Survey

    def __init__(
        self,
        preset: str | Settings = "question",
        *,
        seeds: int | Sequence[int] = 64,
        steps: int = 20,
        executor: Executor | None = None,
        path: str | os.PathLike[str] | None = None,
        **fields: Any,
    ) -> None:
        plan = planned(preset, seeds, steps, fields)
        if plan.axes:
            raise ValueError(f"a fan is of seeds alone, got an axis of {plan.axes[0][0]}: for a map see Atlas")
        self.survey = Survey(plan, executor, path)
        super().__init__(draw_seeds(plan))

    def __repr__(self) -> str:
        return f"Fan({'closed, ' if self.closed else ''}{self.map!r})"

    @property
    def map(self) -> Map:
        """What is computed so far, (seeds,)."""
        return self.survey.map

    @property
    def odds(self) -> tuple[float, float, float]:
        """The share of the seeds that diverged, and the ends of its 95 % interval (Wilson 1927)."""
        count, hits = int(self.map.done.sum()), int(self.map.diverged.sum())
        return (hits / count if count else float("nan"), *maps.wilson(hits, count))

    def draw_figure(self, idle: bool) -> None:
        """Draw all seeds that are computed."""
        refresh_seeds(self.figure, self.map)


class RunRace(Pausable):
    """Several runs, an update each in turn, so that their curves grow side by side; a board shows it as a survey.

    The runs are for the thread that goes through `pieces`; the `records` that it takes of them are for any.
    """

    def __init__(self, runs: Sequence[Run], steps: int) -> None:
        super().__init__()
        self.runs = runs
        self.records = [run.record for run in runs]
        self.steps = steps

    @property
    def running(self) -> list[int]:
        """The places of the runs that are not over: neither long enough nor NaN or infinite."""
        return [
            place
            for place, record in enumerate(self.records)
            if len(record) < self.steps and record.first_nonfinite is None
        ]

    @property
    def total(self) -> int:
        """How many runs there are."""
        return len(self.runs)

    @property
    def done(self) -> int:
        """How many of them are over."""
        return self.total - len(self.running)

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes if nothing more diverges; None before the first update."""
        left = sum(self.steps - len(self.records[place]) for place in self.running)
        return self.spent / self.computed * left if self.computed else None

    def pieces(self) -> Iterator[Run]:
        """Train each run that is not over by an update, again and again; gives each run after its update."""
        while (running := self.running) and not self.cancelled:
            for place in running:
                self.going.wait()
                if self.cancelled:
                    return
                run, began = self.runs[place], time.monotonic()
                run.update()
                self.records[place] = run.record
                self.spent += time.monotonic() - began
                self.computed += 1
                yield run
        for place, run in enumerate(self.runs):
            run.measure_held_out()
            self.records[place] = run.record


class Remedies(JobDashboard):
    """One start, side by side with the posted answer's five remedies and six more; it displays itself.

    `Remedies("question", seed=3, steps=20)` takes any field by keyword for all lanes; a remedy then changes its own.
    `remedies` gives others, by name: each a dict of fields, and of a `schedule` of the learning rate over all steps (as
    `cnnlab.rate_plan` has them). Nothing is computed until *Start* or `start()`. `records` and `verdicts` are by name.
    """

    survey: RunRace

    def __init__(
        self,
        preset: str | Settings = "question",
        *,
        remedies: dict[str, dict[str, Any]] | None = None,
        steps: int = 20,
        **fields: Any,
    ) -> None:
        start = settings(preset, **fields)
        self.remedies = list_default_remedies(start) if remedies is None else remedies
        if not isinstance(self.remedies, dict) or not all(
            isinstance(name, str) and isinstance(each, dict) for name, each in self.remedies.items()
        ):
            such = "{'L2': {'l2': 0.1}}"
            raise TypeError(f"remedies must be a dict of dicts such as {such}, got {quote(remedies)}")
        for each in self.remedies.values():
            check_names(name for name in each if name != "schedule")
        if not self.remedies or len(self.remedies) > MOST_LANES:
            raise ValueError(f"remedies must be 1 to {MOST_LANES}, got {len(self.remedies)}")
        steps = check_steps(steps)
        self.survey = RunRace([prepare_run(start, changes, steps) for changes in self.remedies.values()], steps)
        super().__init__(draw_remedies(self.lanes(), steps))

    def __repr__(self) -> str:
        return f"Remedies({'closed, ' if self.closed else ''}{self.verdicts!r})"

    @property
    def records(self) -> dict[str, Record]:
        """The record of each remedy by its name."""
        return dict(zip(self.remedies, self.survey.records, strict=True))

    @property
    def verdicts(self) -> dict[str, str]:
        """What became of each remedy, in words, by its name."""
        return {lane.name: lane.verdict for lane in self.lanes()}

    def lanes(self) -> list[Lane]:
        """All remedies as they are now."""
        found = []
        for (name, changes), record in zip(self.remedies.items(), self.records.values(), strict=True):
            label, verdict = describe_outcome(record, self.survey.steps)
            told = ", ".join(f"{field} {value}" for field, value in changes.items())
            found.append(Lane(name, told or "nothing changed", record.cost, verdict, label))
        return found

    def draw_figure(self, idle: bool) -> None:
        """Draw the curves and verdicts."""
        refresh_remedies(self.figure, self.lanes())


MOST_LANES = 12
"""Most remedies side by side."""


def prepare_run(start: Settings, changes: dict[str, Any], steps: int) -> Run:
    """A run of some settings with a remedy, whose learning rate follows the schedule that it names."""
    changed = start.replace(**{name: value for name, value in changes.items() if name != "schedule"})
    return Run(changed, plan=rate_plan(changes.get("schedule", "constant"), changed, steps))


def check_steps(steps: Any) -> int:
    """A number of updates, checked as `cnnlab.sweep` checks it."""
    return planned("question", 1, steps, {}).steps


def list_batches(record: Record) -> np.ndarray:
    """How many patches each update took: the last batch of an epoch may be smaller, (updates,)."""
    patches, each = record.settings.patches, record.updates_per_epoch
    size = record.settings.batch_size or patches
    place = np.arange(len(record)) % each
    return np.minimum(size, patches - place * size)


def describe_outcome(record: Record, steps: int) -> tuple[str, str]:
    """The label of a run and a verdict in words, by the rule of `Map`; while it trains there is no label."""
    if record.first_nonfinite is not None:
        return maps.DIVERGED, f"NaN or infinite at update {record.first_nonfinite}"
    if len(record) < steps:
        return maps.UNKNOWN, f"update {len(record)} of {steps}"
    width = max(1, min(record.updates_per_epoch, steps // 4))
    costs = record.data_cost / (list_batches(record) if record.settings.reduction == "sum" else 1)
    label = str(maps.label_runs(False, costs[:width].mean(), costs[-width:].mean()))
    held_out = record.held_out_accuracy[-1]
    learned = "" if np.isnan(held_out) else f", held out {held_out:.2f}"
    return label, f"{label}: cost {record.cost[-1]:.3g}{learned}"
