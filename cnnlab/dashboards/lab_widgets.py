"""The widgets of a Lab: one figure, three parts, the panel that says why; drawn in one go, part by part."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, cast

import ipywidgets

from cnnlab.config.errors import catch_all
from cnnlab.config.schedules import SCHEDULE
from cnnlab.config.settings import quote
from cnnlab.dashboards.autopsy_panel import AutopsyPanel
from cnnlab.dashboards.cell import close_widgets
from cnnlab.dashboards.controls import Controls, Header, Strip, group_fields
from cnnlab.dashboards.live_figure import LiveFigure
from cnnlab.dashboards.upload import Upload
from cnnlab.dashboards.view_state import (
    PATCHES,
    HeaderState,
    Moment,
    StripState,
    describe_controls,
    describe_header,
    describe_strip,
)
from cnnlab.plots.arrangement import arrange_panels
from cnnlab.plots.dashboard import draw_dashboard, find_ranges, refresh_dashboard
from cnnlab.plots.dashboard_layout import make_layout
from cnnlab.plots.images import draw_patches
from cnnlab.plots.layer_groups import group_layers
from cnnlab.plots.layout import find_held_axes
from cnnlab.plots.recorder import FigureRecorder

CONTROLS_WIDTH = 292
"""Width of the controls in pixels at scale 1."""
LEAST_WIDTH = 320
"""Least width of the plots in pixels."""
WIDTH = 1080
"""Width of the whole in pixels, until a page tells its own."""


class LabWidgets:
    """What a page shows of a lab. `received` takes its messages, `zoomed` is called when an axis is changed.

    `find_patches` gives the training patches as images, or None if the data are none.
    """

    def __init__(
        self,
        moment: Moment,
        scale: float,
        own_network: bool,
        received: Callable[[Any], None],
        zoomed: Callable[[], None],
        find_patches: Callable[[], Any],
    ) -> None:
        self.scale = scale
        self.find_patches = find_patches
        self.ranges: dict[str, Any] = {}
        wide, view = round(CONTROLS_WIDTH * scale), moment.view
        width = max(LEAST_WIDTH, WIDTH - wide)
        self.layers = group_layers(view.record).layers
        self.arrangement = arrange_panels(width, scale)
        self.figure = LiveFigure(draw_dashboard(view.record, view.goal, scale=scale, width=width))
        self.figure._config = {"doubleClick": "autosize", "displayModeBar": False}
        zoomable = [f"{axis}.autorange" for axis in find_ranges(view.record, (), view.goal)]
        self.figure.layout.on_change(lambda *_: zoomed(), *zoomable)
        self.header = Header(received, scale, describe_header(moment))
        self.controls = Controls(
            received, scale, describe_controls(moment), group_fields(own_network), SCHEDULE.options,
            layout=make_column_layout(wide),
        )  # fmt: skip
        self.strip = Strip(scale, describe_strip(moment), self.draw_patches(moment))
        self.upload = Upload(received)
        self.doctor = AutopsyPanel(received, scale)
        self.plots = ipywidgets.VBox(
            [self.figure, self.strip], layout=ipywidgets.Layout(flex="1 1 auto", overflow="hidden")
        )
        column = [self.controls] if own_network else [self.controls, self.upload]
        self.column = ipywidgets.VBox(column, layout=make_column_layout(wide))
        self.body = ipywidgets.HBox([self.column, self.plots])
        self.box = ipywidgets.VBox([self.header, self.doctor, self.body])
        self.box.add_class("cnnlab-lab")

    def draw(self, moment: Moment, note: Callable[[BaseException], None], undrawn: Callable[[], str]) -> None:
        """Show a moment; what cannot be drawn stays as it was, `note` is told, and the header says what is `undrawn`.

        All parts are made ready first and then sent close together: one picture on the screen. The header is the last,
        and answers when it is drawn.
        """
        ready: list[Callable[[], None]] = []
        for part in (self.prepare_plots, self.prepare_strip, self.prepare_controls):
            with catch_all(note):
                ready.append(part(moment))
        header = cast(HeaderState, dict(self.header.state))
        header.update({"frame": moment.frame, "asked": moment.asked, "training": moment.view.training, "problem": ""})
        with catch_all(note):
            header = describe_header(moment)
        for send in ready:
            with catch_all(note):
                send()
        with catch_all(note):
            self.header.state = {**header, "problem": header["problem"] or undrawn()}

    def prepare_plots(self, moment: Moment) -> Callable[[], None]:
        """The plots made ready to be sent, in one message."""
        view = moment.view
        ghosts = view.ghosts if moment.shown is view.record else (view.record, *view.ghosts)
        hover = False if view.training else "closest"
        if self.figure.layout.hovermode != hover:
            self.figure.layout.hovermode = hover
        drawn = FigureRecorder(trace["name"] for trace in self.figure._data)
        held = self.find_held_axes()
        pictures = self.with_pictures(moment)
        self.ranges = refresh_dashboard(
            drawn,
            moment.shown,
            ghosts,
            view.goal,
            held,
            pictures=pictures,
            curvature=not moment.hidden,
            panels=self.arrangement.panels,
        )
        return lambda: self.figure.take(drawn, whole=not view.training)

    def with_pictures(self, moment: Moment) -> bool:
        """Whether a frame has pictures, too."""
        return not moment.view.training or self.figure.pictures_are_due

    def prepare_strip(self, moment: Moment) -> Callable[[], None]:
        """The strip made ready to be sent; its picture is a new one only in a frame with all pictures."""
        picture = None if self.with_pictures(moment) else self.strip.state["kernels"]
        state: StripState = describe_strip(moment, picture)
        if moment.shown.settings.replace(seed=0) != self.pictured:
            self.strip.patches = self.draw_patches(moment)
        return lambda: setattr(self.strip, "state", state)

    def prepare_controls(self, moment: Moment) -> Callable[[], None]:
        """The controls, and the detectors of an open panel, made ready to be sent."""
        state = describe_controls(moment)

        def send() -> None:
            self.controls.state = dict(state)
            if not moment.hidden:  # the detectors of an open panel warn early, too
                self.doctor.follow(moment.view.record)

        return send

    def draw_patches(self, moment: Moment) -> str:
        """The training patches as a picture, or nothing if the data are no images."""
        self.pictured = moment.view.record.settings.replace(seed=0)
        found = self.find_patches()
        return "" if found is None else draw_patches(found[:PATCHES])

    def find_held_axes(self) -> frozenset[str]:
        """The axes whose range the user has set by zooming; a double click gives them back."""
        # The layout past plotly's objects, which take longer than all the plots' curves.
        return find_held_axes(self.figure._layout, self.ranges)

    def resize(self, width: float) -> None:
        """Fit the plots to the width of the cell's output, in pixels."""
        wide = max(LEAST_WIDTH, round(width) - round(CONTROLS_WIDTH * self.scale) - 2)
        if self.figure.layout.width != wide:
            self.arrangement = arrange_panels(wide, self.scale)
            with self.figure.batch_update():
                self.figure.update_layout(make_layout(self.layers, self.arrangement))

    def close(self) -> None:
        """Close all widgets."""
        close_widgets(self.box)
        self.upload.close()


def make_column_layout(width: int) -> ipywidgets.Layout:
    """The layout of a column so many pixels wide."""
    return ipywidgets.Layout(width=f"{width}px", flex="0 0 auto")


def check_scale(scale: Any) -> None:
    """ValueError in a sentence if a dashboard cannot be enlarged by this factor."""
    number: Any = scale if isinstance(scale, numbers.Real) and not isinstance(scale, bool) else 0
    if not 0.5 <= number <= 4:
        raise ValueError(f"scale must be a number in [0.5, 4], got {quote(scale)}")
