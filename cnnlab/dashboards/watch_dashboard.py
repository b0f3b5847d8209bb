"""The dashboard beside a training loop of the user's own: state line, live figure, and Pause and sliders where they
can be heard.

It is drawn by the loop's own thread, from what the watch has measured; it trains nothing and imports no torch.
"""

from __future__ import annotations

import html
import threading
import time
from typing import Any

import ipywidgets
import plotly.graph_objects as go

from cnnlab.config.errors import describe_problem
from cnnlab.dashboards.cell import close_widgets, display_widget
from cnnlab.dashboards.controls import AT_NEXT, Controls, typed
from cnnlab.dashboards.live_figure import LiveFigure
from cnnlab.dashboards.messages import find_field
from cnnlab.dashboards.saved_picture import SavedPicture, encode_svg
from cnnlab.diagnosis.summary import BROKEN, CALM, RISING, state_line, tone
from cnnlab.plots.dashboard import describe_dashboard, draw_dashboard, refresh_dashboard
from cnnlab.plots.recorder import FigureRecorder
from cnnlab.plots.still import draw_still

FIRST_GOAL = 20
"""Updates that the time axes have room for at first."""
SETTLING = 15.0
"""Seconds within which a page should show the figure; until then every frame is complete."""
COLOURS = {CALM: "var(--cnnlab-calm)", RISING: "var(--cnnlab-warn)", BROKEN: "var(--cnnlab-alarm)"}
"""Tone of the state line -> its colour."""
BLOCKED = (
    "While a cell trains, the kernel is busy, and what is set here acts only when the cell has ended. To steer, put "
    "the loop with its watch into a function, and run it in a thread: threading.Thread(target=train).start()"
)
"""What is said where the loop runs in the kernel's own thread."""
HELD = "What was set here holds at every update, over the loop's own values and its scheduler's, until Let go."
"""What is said where something is held."""
SLIDERS = ("learning_rate", "momentum")
"""What has a slider, where the optimiser has it."""


class WatchLab:
    """What `watch.show()` of a `cnnlab.Watch` displays; `draw` brings it up to date, `close` ends it."""

    def __init__(self, watch: Any, width: int = 1080) -> None:
        self.watch = watch
        self.closed = False
        self.width = width
        self.made = time.monotonic()
        record = watch.record
        self.plots = LiveFigure(
            describe_dashboard(record, FIRST_GOAL, width=width), {"displayModeBar": False}, {}, moves=True
        )
        self.line = ipywidgets.HTML(layout=ipywidgets.Layout(flex="1 1 auto"))
        self.button = ipywidgets.Button(
            description="Pause", icon="pause", tooltip="End the loop before its next update",
            layout=ipywidgets.Layout(width="96px", flex="0 0 auto"),
        )  # fmt: skip
        self.button.on_click(lambda _button: watch.pause())
        self.heard: list[float] = [0, 0]
        self.problem = self.refused = ""
        self.knobs = record.knobs_at(1)
        self.names = [name for name in SLIDERS if name in watch.steering.names]
        self.controls = Controls(self.obey, 1.0, self.describe_controls(), {AT_NEXT: self.names},
                                 layout=ipywidgets.Layout(width="360px"))  # fmt: skip
        self.release = ipywidgets.Button(
            description="Let go", tooltip="The loop sets these again itself, its scheduler too",
            layout=ipywidgets.Layout(width="96px", flex="0 0 auto"),
        )  # fmt: skip
        self.release.on_click(lambda _button: self.let_go())
        self.sliders = ipywidgets.HBox([self.controls, self.release], layout=ipywidgets.Layout(align_items="center"))
        self.header = ipywidgets.HBox([self.button, self.line], layout=ipywidgets.Layout(align_items="center"))
        self.box = ipywidgets.VBox([self.header, self.sliders, self.plots])
        self.box.add_class("cnnlab-watch")
        self.saved = SavedPicture()
        display_widget(self.box, self.saved)
        self.draw()

    def __repr__(self) -> str:
        return f"WatchLab({'closed, ' if self.closed else ''}{self.watch.record!r})"

    @property
    def figure(self) -> go.Figure:
        """What the plots show now, as a plotly figure of its own."""
        return draw_dashboard(self.watch.record, self.find_goal(), width=self.width)

    @property
    def reachable(self) -> bool:
        """Whether the loop leaves the kernel's own thread free, so that it hears what is pressed and set."""
        return self.watch.thread is not threading.main_thread()

    def find_goal(self) -> int:
        """The update up to which the time axes have room."""
        goal = FIRST_GOAL
        while goal < len(self.watch.record):
            goal = goal * 3 // 2
        return goal

    def draw(self) -> None:
        """Show the record as it is now, in one message."""
        if self.closed:
            return
        record: Any = self.watch.record
        drawn = FigureRecorder(self.plots.names)
        ended = not self.watch.active
        refresh_dashboard(drawn, record, (), self.find_goal(), pictures=False)
        # A page that opens the figure just now cannot ask a blocked kernel for what it missed.
        if time.monotonic() - self.made < SETTLING:
            self.plots.take_whole(drawn, moving=not ended)
        else:
            self.plots.take(drawn, moving=not ended)
        said = self.watch.stopped or state_line(record)
        mood = BROKEN if self.watch.stopped and "NaN" in self.watch.stopped else tone(record)
        place = f"update {len(record)}, " + ("■ pauses" if self.watch.active else "loop ended")
        self.line.value = (
            f"<b style='color:{COLOURS[mood]}'>{html.escape(said)}</b> &nbsp;({place})"
            f"{''.join(f'<br>{html.escape(more)}' for more in [str(self.watch.curvature)] if more)}"
        )
        self.button.layout.display = None if self.reachable and self.watch.active else "none"
        self.knobs = record.knobs_at(max(len(record), 1))
        self.draw_controls()
        if ended and self.saved.shown:
            picture = encode_svg(draw_still(record, said))
            self.saved.renew(f"The loop as it was watched up to update {len(record)}.", picture, said)

    def draw_controls(self) -> None:
        """Show the knobs as they are now."""
        self.controls.state = self.describe_controls()
        self.release.layout.display = None if self.watch.steering.held and self.watch.active else "none"

    def describe_controls(self) -> dict[str, Any]:
        """What the sliders show: what was asked for, else what the update drawn last had."""
        held = self.watch.steering.held
        blocked = self.watch.active and not self.reachable
        return {
            "heard": self.heard,
            "values": {name: held.get(name, getattr(self.knobs, name)) for name in self.names},
            "problem": self.problem,
            "refused": self.refused,
            "note": BLOCKED if blocked else HELD if held else "",
        }

    def obey(self, message: Any) -> None:
        """Do what the page asks, or say why not."""
        try:
            self.watch.set(**typed(message["set"]))
            self.problem = self.refused = ""
        except (TypeError, ValueError) as error:
            self.problem, self.refused = describe_problem(error), find_field(message)
        self.heard = message["hand"]
        self.draw_controls()

    def let_go(self) -> None:
        """Give the loop back what was set here."""
        self.watch.set(**dict.fromkeys(self.watch.steering.held))
        self.draw_controls()

    def close(self) -> None:
        """End the dashboard; the watch goes on."""
        if self.closed:
            return
        self.closed = True
        close_widgets(self.header)
        close_widgets(self.sliders)
        self.box.layout.close()
        self.box.close()
        self.plots.close()
