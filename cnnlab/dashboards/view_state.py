"""What header, controls and strip show of one moment: pure functions, and the type of each state that a page gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict

from cnnlab.config.settings import Knobs, Settings, settings
from cnnlab.curvature.band import describe_band
from cnnlab.dashboards import controls
from cnnlab.dashboards.nan_stop import AFTER
from cnnlab.dashboards.view import View
from cnnlab.diagnosis.summary import BROKEN, CALM, RISING, difference, progress_line, start_line, state_line, tone
from cnnlab.plots.colours import colour_branch, colour_layer
from cnnlab.plots.images import draw_kernels
from cnnlab.plots.layer_groups import find_groups
from cnnlab.records.record import Record
from cnnlab.training.problem import prepare_own_start

if TYPE_CHECKING:
    from cnnlab.dashboards.lab import Lab

PATCHES = 120
"""Most training patches in the picture of them."""
KERNELS = 64
"""Most kernels in the picture of them."""
OFFER = "A run of this cell was interrupted when its kernel ended."
"""What the header says where an earlier kernel has left a run."""
ENDED_UNKEPT = "The kernel has ended; run this cell again."
"""What the header says when the kernel has ended and nothing is kept of the run."""
ENDED = "The kernel has ended; run this cell again, your run can be brought back."
"""The same where the run is kept."""
STOPPED = f"Play has stopped {AFTER} updates after the first NaN or inf."
"""What is said of a Play that has stopped by itself."""
NEXT = "Press Why? for the cause, or Before the explosion to look back."
"""What to do about a run that is broken."""
PLAY_ON = "Play goes on to the end."
"""What to do with one that was stopped."""
PLAIN = "plain"
"""The tone of a line that neither warns nor calls a run healthy."""
HIDDEN: BandState = {"edges": None, "said": "critical rate: hidden", "title": "Press Show forecast to see it."}
"""The band of a run whose critical learning rate is hidden."""


class HeaderState(TypedDict):
    """What the header shows; `hidden`: see `Moment.hidden`.

    `refused`: why no such number of updates can be stepped; `ended`: what is said once the kernel has ended.
    """

    line: str
    next: str
    tone: str
    hidden: bool
    trouble: bool
    trained: int
    training: bool
    epoch: int
    epochs: int
    step: int
    goal: int
    length: int
    progress: float
    rate: str
    watching: str
    preset: str
    changed: bool
    pace: str
    stop_at_nan: bool
    offer: str
    problem: str
    refused: str
    ended: str


class BranchState(TypedDict):
    """One branch in the tree of them."""

    number: int
    colour: str
    label: str
    depth: int
    present: bool


class BandState(TypedDict):
    """The stability band below the learning rate's slider; see `describe_band`."""

    edges: list[float] | None
    said: str
    title: str


class ControlsState(TypedDict):
    """What the controls show; `heard`: which page's hand, and which of its settings, was obeyed or refused last.

    `refused`: the field that `problem` is about, beside which it is said; '' where it is about none.
    """

    heard: list[float]
    values: dict[str, Any]
    schedule: str
    band: BandState
    problem: str
    refused: str
    note: str
    branches: list[BranchState]


class StripState(TypedDict):
    """What the strip below the plots shows; a row is a weight's name, its colour and its values."""

    columns: list[str]
    rows: list[list[Any]]
    kernels: str
    kernels_title: str
    patches_title: str


@dataclass(frozen=True)
class Moment:
    """All that a page shows at one moment, of the run and of the lab."""

    view: View
    settings: Settings
    """With the knobs that were chosen last."""
    unchanged: Settings
    """What the preset starts with here."""
    coming: Mapping[int, Knobs]
    """Number of a branch -> the knobs in force at its next update."""
    length: int
    """Updates in a whole run."""
    look: int | None
    """The earlier update that is looked at; None for the present."""
    heard: list[float]
    pace: str
    offered: bool
    """Whether an earlier kernel has left a run."""
    autosave_problem: str
    stop_at_nan: bool
    """Whether Play stops by itself after a NaN."""
    is_kept: bool
    """Whether the run can be brought back when its kernel has ended."""
    problem: str
    """What could not be done, in a sentence."""
    refused: str
    """The field whose value it was; '' if it is about none."""
    note: str
    """What the user asked and is no problem, in a sentence."""
    watching: str
    """How many frames are shown a second and what they take from the training, in a sentence."""
    hints: bool
    """Whether forecast, critical learning rate and early warnings are shown in any case."""

    @cached_property
    def hidden(self) -> bool:
        """Whether forecast, critical learning rate, curvature and early warnings are kept from the page.

        Without hints they are, until the present run has shown how it ends: it is broken, or at its planned end.
        """
        record = self.view.record
        planned = record.settings.epochs * record.updates_per_epoch
        return not self.hints and len(record) < planned and tone(record) != BROKEN

    @cached_property
    def shown(self) -> Record:
        """The record up to the update that is looked at."""
        record = self.view.record
        return record if self.look is None or self.look >= len(record) else record.until(self.look)


def take_moment(lab: Lab, view: View) -> Moment:
    """What a lab shows with a view."""
    worker, preset = lab.worker, view.settings.preset
    follows = prepare_own_start(preset, lab.own["network"], lab.own["data"], {})[1] if lab.own_network else {}
    coming = {number: run.knobs_in_force for number, run in dict(worker.tree.runs).items()}
    return Moment(
        view, worker.settings, settings(preset, **follows), coming, worker.length, lab.look, lab.heard, lab.pace,
        bool(worker.autosave.offered), worker.autosave.problem,
        worker.nan_stop.wanted, bool(worker.autosave.path and len(view.record)), lab.problem,
        lab.refused if lab.problem else "", lab.note, lab.publisher.describe(), lab.hints,
    )  # fmt: skip


def describe_header(moment: Moment) -> HeaderState:
    """What the header shows."""
    view, shown = moment.view, moment.shown
    updates = len(shown)
    line, mood = describe_state(moment)
    return {
        "line": line,
        "next": describe_next(moment),
        "tone": mood,
        "hidden": moment.hidden,
        "trouble": not moment.hidden and tone(view.record) != CALM,
        "trained": len(view.record),
        "training": view.training,
        "epoch": max(1, -(-updates // view.record.updates_per_epoch)),
        "epochs": -(-view.goal // view.record.updates_per_epoch),
        "step": updates,
        "goal": view.goal,
        "length": moment.length,
        "progress": min(updates / view.goal, 1),
        "watching": moment.watching,
        "rate": f"{view.rate:.1f}" if view.rate < 10 else f"{view.rate:.0f}",
        "preset": view.settings.preset,
        "changed": view.settings != moment.unchanged,
        "pace": moment.pace,
        "stop_at_nan": moment.stop_at_nan,
        "offer": OFFER if moment.offered else "",
        "problem": view.error or moment.autosave_problem,
        "refused": moment.problem if moment.refused == "updates" else "",
        "ended": ENDED if moment.is_kept else ENDED_UNKEPT,
    }


def describe_next(moment: Moment) -> str:
    """What to press next, once a run has broken and pauses; '' otherwise, and while that is hidden."""
    view = moment.view
    if view.training or moment.hidden or moment.shown is not view.record or tone(view.record) != BROKEN:
        return ""
    return f"{STOPPED} {NEXT} {PLAY_ON}" if view.stopped_at_nan else NEXT


def describe_state(moment: Moment) -> tuple[str, str]:
    """The line of words and its tone."""
    view, shown = moment.view, moment.shown
    if len(view.record) and not len(shown):
        return start_line(shown), PLAIN if moment.hidden else CALM
    if moment.hidden:
        return progress_line(shown) if len(shown) else ready_line(shown), PLAIN
    if len(view.record) or view.forecast is None:
        return state_line(shown), tone(shown)
    line = f"ready at update 0. Forecast at learning rate {view.settings.learning_rate:g}: {view.forecast}"
    return line, RISING if view.forecast.diverged else CALM


def ready_line(record: Record) -> str:
    """The line of a run that waits for its first update, without a word on how it may end."""
    start = record.settings
    what = record.network if record.own_network else f"{start.patches} patches"
    return f"ready at update 0: {what}, {start.epochs * record.updates_per_epoch} updates"


def describe_controls(moment: Moment) -> ControlsState:
    """What the controls show."""
    view = moment.view
    return {
        "heard": moment.heard,
        "values": controls.list_field_values(moment.settings),
        "schedule": view.schedule,
        "band": describe_stability(moment),
        "problem": moment.problem,
        "refused": moment.refused,
        "note": moment.note,
        "branches": describe_branches(view.record, moment.coming),
    }


def describe_stability(moment: Moment) -> BandState:
    """The band below the learning rate's slider."""
    if moment.hidden and not moment.view.no_curvature:
        return HIDDEN
    found = describe_band(moment.shown, moment.settings, moment.view.no_curvature)
    return {"edges": found["edges"], "said": found["said"], "title": found["title"]}


def describe_branches(present: Record, coming: Mapping[int, Knobs]) -> list[BranchState]:
    """The branches by number: how each differs from the one that it left."""
    family = {record.branch.number: record for record in (present, *present.others)}
    return [
        {
            "number": number,
            "colour": colour_branch(number),
            "label": difference(record, family.get(record.branch.parent or 0), coming.get(number)),
            "depth": count_forks(number, family),
            "present": record is present,
        }
        for number, record in sorted(family.items())
    ]


def count_forks(number: int, family: Mapping[int, Record]) -> int:
    """How many forks lie between a branch and the oldest of its ancestors that is left."""
    parent = family[number].branch.parent
    return 0 if parent is None or parent not in family else 1 + count_forks(parent, family)


def describe_strip(moment: Moment, picture: str | None = None) -> StripState:
    """What the strip below the plots shows; with a picture of the kernels from before, or a new one."""
    shown, patches = moment.shown, moment.settings.patches
    layers, kernels = shown.layers, shown.kernels[-1]
    colours = {name: colour_layer(place) for name, place in find_groups(layers).items()}
    if picture is None:
        picture = draw_kernels(kernels[:KERNELS]) if len(kernels) else ""
    columns, rows = controls.tabulate_weights(shown, colours)
    return {
        "columns": columns,
        "rows": rows,
        "kernels": picture,
        "kernels_title": f"{layers[0]}: {min(len(kernels), KERNELS)} kernels" if len(kernels) else "",
        "patches_title": f"{PATCHES} of {patches} training patches"
        if patches > PATCHES
        else f"The {patches} training patches",
    }
