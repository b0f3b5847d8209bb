"""The dashboard beside a training loop of the user's own: state line, live figure, Pause where it can be heard.

It is drawn by the loop's own thread, from what the watch has measured; it trains nothing and imports no torch.
"""

from __future__ import annotations

import html
import threading
import time
from typing import Any

import ipywidgets

from cnnlab.dashboards.cell import close_widgets, display_widget
from cnnlab.dashboards.live_figure import LiveFigure
from cnnlab.diagnosis.summary import BROKEN, CALM, RISING, state_line, tone
from cnnlab.plots.dashboard import draw_dashboard, refresh_dashboard
from cnnlab.plots.recorder import FigureRecorder

FIRST_GOAL = 20
"""Updates that the time axes have room for at first."""
SETTLING = 15.0
"""Seconds within which a page should show the figure; until then every frame is complete."""
COLOURS = {CALM: "#1B7837", RISING: "#B35806", BROKEN: "#B2182B"}
"""Tone of the state line -> its colour."""


class WatchLab:
    """What `watch.show()` of a `cnnlab.Watch` displays; `draw` brings it up to date, `close` ends it."""

    def __init__(self, watch: Any, width: int = 1080) -> None:
        self.watch = watch
        self.closed = False
        self.made = time.monotonic()
        record = watch.record
        self.figure = LiveFigure(draw_dashboard(record, FIRST_GOAL, width=width))
        self.figure._config = {"doubleClick": "autosize", "displayModeBar": False}
        self.line = ipywidgets.HTML(layout=ipywidgets.Layout(flex="1 1 auto"))
        self.button = ipywidgets.Button(
            description="Pause", icon="pause", tooltip="End the loop before its next update",
            layout=ipywidgets.Layout(width="96px", flex="0 0 auto"),
        )  # fmt: skip
        self.button.on_click(lambda _button: watch.pause())
        self.header = ipywidgets.HBox([self.button, self.line], layout=ipywidgets.Layout(align_items="center"))
        self.box = ipywidgets.VBox([self.header, self.figure])
        self.box.add_class("cnnlab-watch")
        self.draw()
        display_widget(self.box)

    def __repr__(self) -> str:
        return f"WatchLab({'closed, ' if self.closed else ''}{self.watch.record!r})"

    def draw(self) -> None:
        """Show the record as it is now, in one message."""
        if self.closed:
            return
        record: Any = self.watch.record
        goal = FIRST_GOAL
        while goal < len(record):
            goal = goal * 3 // 2
        drawn = FigureRecorder(trace["name"] for trace in self.figure._data)
        if time.monotonic() - self.made < SETTLING:
            self.figure._sent.clear()  # the page may not show the figure yet: send all there is
        ended = not self.watch.active
        refresh_dashboard(drawn, record, (), goal, pictures=ended or self.figure.pictures_are_due)
        self.figure.take(drawn, whole=ended)
        said = self.watch.stopped or state_line(record)
        mood = BROKEN if self.watch.stopped and "NaN" in self.watch.stopped else tone(record)
        place = f"update {len(record)}, " + ("■ pauses" if self.watch.active else "loop ended")
        self.line.value = f"<b style='color:{COLOURS[mood]}'>{html.escape(said)}</b> &nbsp;({place})"
        # While a cell runs in the kernel's own thread no press of a button reaches it: the kernel's interrupt does.
        reachable = threading.current_thread() is not threading.main_thread()
        self.button.layout.display = None if reachable and self.watch.active else "none"

    def close(self) -> None:
        """End the dashboard; the watch goes on."""
        if self.closed:
            return
        self.closed = True
        close_widgets(self.header)
        self.box.layout.close()
        self.box.close()
        self.figure.close()
