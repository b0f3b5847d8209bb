"""The widgets of a Lab: one figure, three parts, the panel that says why; drawn in one go, part by part."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any, cast

import ipywidgets
import plotly.graph_objects as go

from cnnlab.config.errors import catch_all
from cnnlab.config.schedules import SCHEDULE
from cnnlab.config.settings import Number, quote
from cnnlab.dashboards.autopsy_panel import AutopsyPanel
from cnnlab.dashboards.cell import close_widgets
from cnnlab.dashboards.controls import Controls, Header, Strip, Texts, group_fields
from cnnlab.dashboards.direction_panel import DirectionPanel
from cnnlab.dashboards.frame_publisher import FramePublisher
from cnnlab.dashboards.live_figure import Events, LiveFigure, list_names
from cnnlab.dashboards.view_state import (
    PATCHES,
    HeaderState,
    Moment,
    StripState,
    describe_controls,
    describe_header,
    describe_strip,
)
from cnnlab.diagnosis.summary import compare_records
from cnnlab.plots.arrangement import arrange_panels, check_focus, check_panels
from cnnlab.plots.beside import Beside
from cnnlab.plots.dashboard import describe_dashboard, refresh_dashboard
from cnnlab.plots.gauges import choose_shown
from cnnlab.plots.images import draw_patches
from cnnlab.plots.magnitudes import SWITCHED, check_kind
from cnnlab.plots.numbers import write_numbers
from cnnlab.plots.recorder import FigureRecorder, put_values
from cnnlab.records.record import Record
from cnnlab.records.signals import Signals, knows_signals

CONTROLS_WIDTH = 264
"""Width of the controls in pixels at scale 1."""
LEAST_WIDTH = 320
"""Least width of the plots in pixels."""
WIDTH = 1080
"""Width of the whole in pixels, until a page tells its own."""
PRESENT_SCALE = 1.5
"""How much a dashboard for a projector is enlarged, if nobody says."""
PRESENT_PLOTS = 1.55
"""How much more its plots are: exponents, at 0.7 of the size of a tick, are then 16 pixels high."""
PRESENTED = ("cost", "magnitudes")
"""Its plots, if nobody names others."""
PRESENT = "cnnlab-present"
"""Its class on the page."""
EVERY_FRAME = 2
"""How many plots, the first ones, every frame shows while a run trains; the others take turns."""
PAGE_WIDTH = Number("Width", 0, 1e5, (0, 1e5))
"""Pixels of the plots' place on the page."""


class LabWidgets:
    """What a page shows of a lab. `received` takes its messages, `publisher` its answers.

    `find_patches` gives the training patches as images, or None if the data are none; `want_direction` is told
    whether the cost along the sharpest direction is to be seen, `want_signals` of which update signals are, if the
    record lacks them.
    """

    def __init__(
        self,
        moment: Moment,
        scale: float,
        own_network: bool,
        received: Callable[[Any], None],
        publisher: FramePublisher,
        find_patches: Callable[[], Any],
        panels: Sequence[str] | None,
        present: bool = False,
        beside: Record | None = None,
        want_direction: Callable[[bool], object] = lambda _wanted: None,
        magnitudes: str = "weights",
        want_signals: Callable[[int | None], object] = lambda _step: None,
    ) -> None:
        self.magnitudes, self.want_signals = check_kind(magnitudes), want_signals
        self.scale, self.present, self.beside = scale, present, beside
        self.find_patches = find_patches
        self.moment = moment
        self.compared = self.compare()
        self.width = max(LEAST_WIDTH, WIDTH - (0 if present else round(CONTROLS_WIDTH * scale)))
        self.chosen = panels
        self.focus: str | None = None
        self.turn = 0
        self.arranged = self.panels
        heard: Events = {
            "answer": lambda answer: publisher.call(lambda: publisher.take_answer(answer)),
            "width": lambda width: publisher.call(lambda: self.resize(width)),
            "focus": lambda name: publisher.call(lambda: self.enlarge(name)),
            "csv": lambda name: publisher.call(lambda: self.send_numbers(name)),
            "magnitudes": lambda kind: publisher.call(lambda: self.choose_magnitudes(kind)),
        }
        figure = self.describe_figure()
        put_values(figure, self.record_plots(moment, figure=figure))
        self.figure = LiveFigure(figure, {"displayModeBar": False}, heard, moves=True)
        wide, texts = round(CONTROLS_WIDTH * scale), Texts()
        self.texts = texts
        self.header = Header(received, scale, describe_header(moment), own_network, texts=texts)
        self.controls = Controls(
            received, scale, describe_controls(moment), group_fields(own_network), SCHEDULE.options, texts=texts,
            takes_image=not own_network, layout=make_column_layout(wide),
        )  # fmt: skip
        texts.patches = self.draw_patches(moment)
        self.strip = Strip(scale, describe_strip(moment), texts=texts)
        self.doctor = AutopsyPanel(received, scale, texts=texts)
        self.direction = DirectionPanel(want_direction, scale, self.width)
        self.plots = ipywidgets.VBox(
            [self.figure, self.strip, self.direction.box], layout=ipywidgets.Layout(flex="1 1 auto", overflow="hidden")
        )
        self.column = ipywidgets.VBox([self.controls], layout=make_column_layout(wide))
        self.body = ipywidgets.HBox([self.column, self.plots])
        for part, name in ((self.column, "column"), (self.plots, "plots"), (self.body, "body")):
            part.add_class(f"cnnlab-{name}")
        self.box = ipywidgets.VBox([self.header, self.doctor, self.body])
        self.box.add_class("cnnlab-lab")
        if present:
            self.box.add_class(PRESENT)

    @property
    def panels(self) -> tuple[str, ...]:
        """The names of the plots that are shown, in their order."""
        moment, chosen = self.moment, self.chosen
        if chosen is not None or self.present:
            return check_panels(PRESENTED if chosen is None else chosen)
        beside = () if self.beside is None else self.beside.schedule
        return choose_shown(moment.view.record.schedule, beside, [(1, moment.settings)])

    @property
    def plot_scale(self) -> float:
        """How much the plots are enlarged."""
        return self.scale * PRESENT_PLOTS if self.present else self.scale

    def compare(self) -> Beside | None:
        """The record beside, with what it has otherwise than the present run; None if there is none."""
        if self.beside is None:
            return None
        words = compare_records(self.moment.view.record, self.beside)
        return Beside(self.beside, words, not self.moment.hidden)

    def describe_figure(self) -> dict[str, Any]:
        """A figure of the present width, without points."""
        view = self.moment.view
        return describe_dashboard(
            self.moment.shown, view.goal, scale=self.plot_scale, width=self.width, panels=self.panels,
            focus=self.focus, beside=self.compared, magnitudes=self.magnitudes,
        )  # fmt: skip

    def draw(
        self, moment: Moment, note: Callable[[BaseException], None], undrawn: Callable[[], str], *,
        texts: bool, plots: bool, ask: int,
    ) -> None:  # fmt: skip
        """Show a moment; what cannot be drawn stays as it was, `note` is told, and the header says what is `undrawn`.

        All that is wanted is made ready first and then sent close together: one picture on the screen. `ask`: have the
        page answer with this number when it is there.
        """
        self.moment = moment
        if texts:
            self.ask_for_signals(moment)
        if self.beside is not None and texts:
            with catch_all(note):
                self.follow_differences()
        if self.panels != self.arranged:
            with catch_all(note):
                self.arrange()
        ready: list[Callable[[], None]] = []
        parts = [self.prepare_strip, self.prepare_controls] if texts else []
        for part in parts:
            with catch_all(note):
                ready.append(part(moment))
        drawn = FigureRecorder([])
        if plots:
            with catch_all(note):
                drawn = self.record_plots(moment, but=self.choose_waiting(texts) if moment.view.training else ())
        with catch_all(note):
            self.figure.take(drawn, moving=moment.view.training, ask=ask)
        if not texts:
            return
        header = cast(HeaderState, dict(self.header.state))
        header.update({"training": moment.view.training, "problem": ""})
        with catch_all(note):
            header = describe_header(moment)
        with self.texts.hold_sync():
            for send in ready:
                with catch_all(note):
                    send()
            with catch_all(note):
                self.direction.draw(moment)
            with catch_all(note):
                self.header.state = {**header, "problem": header["problem"] or undrawn()}

    def choose_waiting(self, texts: bool) -> tuple[str, ...]:
        """The plots that the next frame of a training run leaves out; histograms over time are drawn with `texts`."""
        names = (self.focus,) if self.focus else self.panels
        turns = [name for name in names[EVERY_FRAME:] if name != "over_time"]
        self.turn += 1
        drawn = {*names[:EVERY_FRAME], *turns[self.turn % max(len(turns), 1) :][:1]} - {"over_time"}
        return tuple(name for name in names if name not in drawn and not (texts and name == "over_time"))

    def record_plots(
        self, moment: Moment, but: Sequence[str] = (), figure: dict[str, Any] | None = None
    ) -> FigureRecorder:
        """What the plots show of a moment, but for those of some names, for a figure, that on the page for None."""
        drawn = FigureRecorder(self.figure.names if figure is None else list_names(figure))
        self.refresh(drawn, moment, pictures=False, but=but)
        return drawn

    def refresh(self, figure: Any, moment: Moment, pictures: bool, but: Sequence[str] = ()) -> None:
        """Draw a moment into a figure, or what notes it; not the panels of some names."""
        view = moment.view
        ghosts = view.ghosts if moment.shown is view.record else (view.record, *view.ghosts)
        keyed = self.compared is not None
        found = arrange_panels(self.width, self.plot_scale, self.panels, self.focus, keyed).panels
        panels = {name: panel for name, panel in found.items() if name not in but}
        refresh_dashboard(
            figure, moment.shown, ghosts, view.goal, pictures=pictures, curvature=not moment.hidden, panels=panels,
            beside=self.compared, magnitudes=self.magnitudes, signals=find_measured(moment),
        )  # fmt: skip

    def make_figure(self) -> go.Figure:
        """What the plots show now, as a figure of its own."""
        figure = go.Figure(self.describe_figure())
        self.refresh(figure, self.moment, pictures=True)
        return figure

    def prepare_strip(self, moment: Moment) -> Callable[[], None]:
        """The strip made ready to be sent."""
        state: StripState = describe_strip(moment)
        if moment.shown.settings.replace(seed=0) != self.pictured:
            self.strip.texts.patches = self.draw_patches(moment)
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

    def resize(self, width: Any) -> None:
        """Fit the plots to the width of their place on the page, in pixels."""
        wide = max(LEAST_WIDTH, int(PAGE_WIDTH.check("width", width) or 0))
        if wide != self.width:
            self.width = wide
            self.arrange()
            self.direction.resize(wide)

    def enlarge(self, panel: str | None) -> None:
        """Give the whole figure to one panel, by its name; None: show all panels again."""
        self.focus = check_focus(panel)
        self.arrange()

    def choose_panels(self, panels: Sequence[str] | None) -> None:
        """Show the panels of these names in their order; None: all that the run has something for."""
        check_panels(panels)
        self.chosen, self.focus = panels, None
        self.arrange()

    def choose_magnitudes(self, kind: Any) -> None:
        """Have the plots of magnitudes show weights, gradients, activations or updates."""
        self.magnitudes = check_kind(kind)
        self.arrange()

    @property
    def shows_signals(self) -> bool:
        """Whether a plot shows what was measured of signals."""
        shown = (self.focus,) if self.focus else self.panels
        return "signals" in shown or (self.magnitudes != "weights" and bool(set(SWITCHED) & set(shown)))

    def ask_for_signals(self, moment: Moment) -> None:
        """Have the signals of the update that is shown measured while the run pauses, if the record lacks them."""
        step = max(len(moment.shown), 1)
        there = step == len(moment.shown) and knows_signals(moment.shown)
        known = there or moment.view.training or not self.shows_signals
        self.want_signals(None if known else step)

    def choose_mode(self, present: bool) -> None:
        """Show the dashboard as for a projector, or with all controls."""
        if present == self.present:
            return
        self.present, self.focus = present, None
        (self.box.add_class if present else self.box.remove_class)(PRESENT)
        self.arrange()

    def follow_differences(self) -> None:
        """Have the key say what differs now, and the plots hide what is hidden now."""
        compared = self.compare()
        if compared != self.compared:
            self.compared = compared
            self.arrange()

    def arrange(self) -> None:
        """Show the same in another arrangement."""
        self.arranged = self.panels
        self.ask_for_signals(self.moment)
        figure = self.describe_figure()  # of other traces than that on the page, where other plots are shown
        self.figure.show(figure, self.record_plots(self.moment, figure=figure))

    def send_numbers(self, panel: Any) -> None:
        """Send the numbers of a panel to the page, which saves them."""
        (name,) = check_panels((panel,))
        self.figure.state.send({"file": f"{name}.csv", "text": write_numbers(self.moment.shown, name, self.magnitudes)})

    def close(self) -> None:
        """Close all widgets."""
        close_widgets(self.box)


def find_measured(moment: Moment) -> Signals | None:
    """The signals of the update that is shown, where they were measured beside the record."""
    found = moment.view.signals
    return found if found is not None and found.step == max(len(moment.shown), 1) else None


def make_column_layout(width: int) -> ipywidgets.Layout:
    """The layout of a column so many pixels wide."""
    return ipywidgets.Layout(width=f"{width}px", flex="0 0 auto")


def check_scale(scale: Any) -> float:
    """A factor to enlarge a dashboard by; ValueError in a sentence if it is none."""
    number: Any = scale if isinstance(scale, numbers.Real) and not isinstance(scale, bool) else 0
    if not 0.5 <= number <= 4:
        raise ValueError(f"scale must be a number in [0.5, 4], got {quote(scale)}")
    return float(number)
