"""The folded part of a lab that shows the cost along the sharpest direction, measured while the run pauses."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets
import numpy as np

from cnnlab.curvature.direction import SharpestDirection, describe_landing
from cnnlab.dashboards.live_figure import LiveFigure
from cnnlab.dashboards.view_state import Moment
from cnnlab.plots.direction import Cut, describe_direction

TITLE = "Cost along the sharpest direction"
MEANING = (
    "The black curve is the cost along the direction in which it curves most, the dashed one the parabola that the "
    "eigenvalue predicts; the dot is where the weights are, the diamond where the next step lands. Move the learning "
    "rate, and the diamond follows."
)
HIDDEN = "Hidden until Show forecast is pressed."
WAITING = "Measured when the run pauses."


class DirectionPanel:
    """A button, and below it, once it is pressed, the plot; `wanted` is told whether it is open."""

    def __init__(self, wanted: Callable[[bool], object], scale: float, width: int) -> None:
        self.wanted, self.scale, self.width = wanted, scale, width
        self.moment: Moment | None = None
        self.shown: tuple[Any, ...] = ()
        self.button = ipywidgets.ToggleButton(
            value=False, description=TITLE, icon="caret-right", tooltip=MEANING,
            layout=ipywidgets.Layout(width="auto", height="22px", margin="0 8px 2px", align_self="flex-start"),
        )  # fmt: skip
        self.words = ipywidgets.HTML()
        self.place = ipywidgets.VBox([self.words], layout=ipywidgets.Layout(display="none"))
        self.figure: LiveFigure | None = None
        self.box = ipywidgets.VBox([self.button, self.place])
        self.box.add_class("cnnlab-direction")
        self.button.observe(lambda _change: self.toggle(), "value")

    @property
    def is_open(self) -> bool:
        """Whether the plot is to be seen."""
        return bool(self.button.value)

    def toggle(self) -> None:
        """Show or hide the plot, as the button says."""
        self.button.icon = "caret-down" if self.is_open else "caret-right"
        self.place.layout.display = None if self.is_open else "none"
        if self.is_open and self.figure is None:
            self.figure = LiveFigure(self.describe(None), {"displayModeBar": False}, {})
            self.place.children = (self.words, self.figure)
        self.wanted(self.is_open)
        if self.moment is not None:
            self.draw(self.moment)

    def draw(self, moment: Moment) -> None:
        """Show what is known at a moment, the landing being that of the learning rate chosen last."""
        self.moment = moment
        if not self.is_open or self.figure is None:
            return
        found = None if moment.hidden else moment.view.direction
        rate = moment.settings.learning_rate
        shown = (found, rate, moment.hidden, moment.view.no_direction, self.width)
        if shown == self.shown:
            return
        self.shown = shown
        said = HIDDEN if moment.hidden else moment.view.no_direction or WAITING
        said = said if found is None else describe_landing(found, rate)
        self.words.value = (
            f"<div style='line-height:1.4'><div role='status'>{html.escape(said)}</div>"
            f"<small>{html.escape(MEANING)}</small></div>"
        )
        self.figure.show(self.describe(None if found is None else make_cut(found, rate)))

    def describe(self, cut: Cut | None) -> dict[str, Any]:
        """The figure with a cut, or without one."""
        return describe_direction(cut, scale=self.scale, width=self.width)

    def resize(self, width: int) -> None:
        """Fit it to a width in pixels."""
        self.width = width
        if self.moment is not None:
            self.draw(self.moment)


def make_cut(found: SharpestDirection, learning_rate: float) -> Cut:
    """What the plot shows with a learning rate; nothing is measured."""
    landing = found.find_landing(learning_rate)
    return Cut(
        found.places,
        found.costs,
        np.asarray(found.predict_cost(found.places)),
        (found.present, found.cost),
        (landing, found.read_cost(landing)),
    )
