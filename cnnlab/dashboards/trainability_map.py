"""The map of trainability as a dashboard: it fills in while it is computed, a click opens a run, a box zooms."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import ipywidgets
import numpy as np

from cnnlab.config.settings import Settings, quote
from cnnlab.dashboards.job_dashboard import JobDashboard
from cnnlab.dashboards.lab import Lab
from cnnlab.dashboards.live_figure import Events
from cnnlab.plots.colours import CELLS, DARK, LATE, NOT_YET, SOON
from cnnlab.plots.map import VIEWS, draw_map, explain_view, refresh_map
from cnnlab.records import map as maps
from cnnlab.records.map import CONVERGED, DIVERGED, STALLED, Map
from cnnlab.records.map_plans import check_cells, is_choice
from cnnlab.sweeps.sweep import Survey, planned

BUSY_CELLS = 400
"""Most cells whose texts for the pointer are written anew while a map is being computed."""


class OpenedLab(Lab):
    """A Lab below a map, which shows it."""

    def show(self) -> None:
        """Leave it to the map."""


class Atlas(JobDashboard):
    """A map over one or two fields that fills in while it is computed; it displays itself.

    `Atlas("question", learning_rate=[..], optimizer=[..], seeds=4, steps=20)` takes what `cnnlab.sweep` takes. Nothing
    is computed until *Start* or `start()`. Rest the pointer on a cell to read its numbers; a click (or `open`) opens a
    run of it in a Lab below and plays it; a box drawn with the mouse (or `zoom`) is computed finer, and `back` leaves
    it again. `map` is the map so far, `lab` the Lab below.
    """

    survey: Survey

    def __init__(
        self,
        preset: str | Settings = "question",
        *,
        seeds: int | Sequence[int] = 1,
        steps: int = 20,
        executor: Executor | None = None,
        path: str | os.PathLike[str] | None = None,
        **fields: Any,
    ) -> None:
        plan = planned(preset, seeds, steps, fields)
        if not plan.axes:
            raise ValueError("an atlas has one axis or two: give a field a list of values; for seeds alone see Fan")
        self.executor = executor
        self.survey = Survey(plan, executor, path)
        self.outer: list[Survey] = []
        self.view = "what happened"
        self.cell: tuple[int, ...] | None = None
        self.seed = 0
        self.lab: OpenedLab | None = None
        self.choice = ipywidgets.Dropdown(
            options=list(VIEWS), description="Show", layout={"width": "28em", "flex": "0 1 auto"}
        )
        self.choice.observe(self._chosen, "value")
        self.back_button = ipywidgets.Button(
            description="Zoom out", layout={"width": "7em", "flex": "0 0 auto"}, disabled=True
        )
        self.back_button.on_click(lambda _button: self._later(self.back))
        self.key = ipywidgets.HTML(key())
        self.below = ipywidgets.VBox([])
        self.second = ipywidgets.HBox([self.choice, self.back_button, self.key], layout={"flex_flow": "row wrap"})
        super().__init__(draw_map(self.map), [self.second], [self.below])

    def __repr__(self) -> str:
        return f"Atlas({'closed, ' if self.closed else ''}{self.map!r})"

    @property
    def map(self) -> Map:
        """The map that is shown, as far as it is computed."""
        return self.survey.map

    def open(self, *where: int) -> None:
        """Open a run by its place on each axis, and among the seeds, in a Lab below, and play it.

        Without a seed it is the first one that fared as the cell's colour says. IndexError outside the map.
        """
        self._check_open()
        shown = self.map
        if len(where) == len(shown.axes):
            where = (*where, find_typical_seed(shown, where))
        place = shown.place(*where)
        start = shown.settings_at(*place)
        if self.lab is None or self.lab.closed:
            self.lab = OpenedLab(start, autosave=False)
            self.below.children = (self.lab.box,)
        else:
            self.lab.restart(start)
        *cell, self.seed = place
        self.cell = tuple(cell)
        self.lab.play(shown.steps)
        self.draw()

    def zoom(self, left: float, right: float, low: float = 0.0, high: float = 0.0) -> None:
        """Compute the region between two places on the first axis, and two on the second, as finely as the whole map.

        The first value of an axis is at 0, the second at 1; places need not be whole. An axis of choices stays as it
        is. ValueError if there is nothing between the places. What a `path` was given for is the whole map; zoomed ones
        are not kept there.
        """
        self._check_open()
        shown = self.map
        if all(is_choice(name) for name, _ in shown.axes):
            named = " and ".join(name for name, _ in shown.axes)
            raise ValueError(f"there is nothing between the choices of {named}: a zoom needs an axis of numbers")
        axes = [maps.refine_axis(shown.axes[0], left, right)]
        if len(shown.axes) == 2:
            axes.append(maps.refine_axis(shown.axes[1], low, high))
        check_cells(shown.settings, axes)
        plan = Map.empty(shown.settings, tuple(axes), shown.seeds, shown.steps)
        finer = Survey(plan, self.executor)
        self.cancel()
        self.outer.append(self.survey)
        self.survey = finer
        self.cell = None
        self.start()
        self.draw()

    def back(self) -> None:
        """Back to the map before the last zoom, as far as it was computed."""
        self._check_open()
        if not self.outer:
            raise ValueError("this is the whole map already")
        self.cancel()
        self.survey = self.outer.pop()
        self.cell = None
        self.draw()

    def close(self) -> None:
        """End the atlas and the Lab below it: no thread, process, widget, comm or figure stays."""
        if not self.closed and self.lab is not None:
            self.lab.close()
            self.below.children = ()
        super().close()

    # -- what the figure tells

    def list_events(self) -> Events:
        """A click opens a cell, a box zooms (called in whatever thread the kernel handles messages)."""
        return {
            "click": lambda point: self._later(lambda: self._open_point(point)),
            "zoom": lambda box: self._later(lambda: self._zoom_into(box)),
        }  # fmt: skip

    def _open_point(self, point: Any) -> None:
        """Open the cell that was clicked; ValueError in a sentence for what is none."""
        told = point if isinstance(point, dict) else {"trace": 0, "x": point, "y": None}
        if told.get("trace") == 0:
            self.open(*map(round, check_places("click", [told.get("x"), told.get("y")], 2)))

    def _zoom_into(self, box: Any) -> None:
        """Zoom into a box: two ends across and two up; ValueError in a sentence for what is none."""
        ends, shape = check_places("box", box, 4), self.survey.growing.shape
        self.zoom(*centres(ends[:2], shape[0]), *centres(ends[2:], shape[1]))

    def _chosen(self, change: Any) -> None:
        """Show another view."""
        self._later(lambda: self._show_view(change["new"]))

    def _show_view(self, view: str) -> None:
        """Show another of `plots.map.VIEWS`."""
        self.view = view
        self.draw()

    def draw_figure(self, idle: bool) -> None:
        """Draw the map, and the curves of the cell that was clicked."""
        shown = self.map
        hover = idle or math.prod(shown.shape[:2]) <= BUSY_CELLS
        refresh_map(self.figure, shown, self.view, self.cell, hover, self.seed)
        self.back_button.disabled = not self.outer
        explained = explain_view(shown, self.view)
        self.key.value = f"&ensp;{explained}; grey: none, or not computed" if explained else key()


def is_place(value: Any) -> bool:
    """Whether a page tells a place in a figure."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6


def check_places(what: str, values: Any, count: int) -> list[float]:
    """What a page tells of a click or a box, as so many numbers; ValueError in a sentence if they are none."""
    if not isinstance(values, (list, tuple)) or len(values) != count or not all(map(is_place, values)):
        raise ValueError(f"a {what} must be told in {count} numbers in (-1e6, 1e6), got {quote(values)}")
    return [float(value) for value in values]


def centres(ends: Sequence[float], count: int) -> tuple[float, float]:
    """Where the first and the last of so many equal cells between two ends have their middle."""
    low, high = min(ends), max(ends)
    half = (high - low) / (2 * count)
    return low + half, high - half


def find_typical_seed(shown: Map, cell: tuple[int, ...]) -> int:
    """The place of the first seed that fared as most did, the worse of two kinds; 0 where nothing is computed."""
    labels = shown.labels[shown.place(*cell)[:-1]]
    counts = [(labels == label).sum() for label in (DIVERGED, STALLED, CONVERGED)]
    wanted = (DIVERGED, STALLED, CONVERGED)[int(np.argmax(counts))]
    return int(np.argmax(labels == wanted))


def key() -> str:
    """What the colours of the first view mean, on a light ground and on a dark one."""
    colours = ((CELLS[CONVERGED], CONVERGED), (CELLS[STALLED], STALLED), (LATE, "diverged late"))
    named = (*colours, (SOON, "diverged at once"), (NOT_YET, "not computed"))
    return "".join(
        f"<span style='white-space:nowrap;margin-left:1em'><span style='display:inline-block;width:.9em;height:.9em;"
        f"background:light-dark({colour},{DARK.get(colour, colour)});vertical-align:-.1em'></span> {name}</span>"
        for colour, name in named
    )
