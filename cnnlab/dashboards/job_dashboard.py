"""A dashboard that shows something while it is computed: buttons, a bar, the time left, one figure, one thread.

What is computed is a survey; how it is shown is told by children of the class. Nothing is computed until asked.
Widgets and figure are touched by one task on the kernel's loop (or by the cell that calls), never by that thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import ipywidgets

from cnnlab.config import errors
from cnnlab.dashboards.cell import OPEN, CellOutput, close_all, close_widgets, find_earlier, get_current_cell
from cnnlab.dashboards.frame_publisher import find_running_loop, obey_interrupt
from cnnlab.dashboards.live_figure import Events, LiveFigure
from cnnlab.records.formats import format_duration

FRAMES = 3.0
"""Frames a second at most, while something is computed."""
PATIENCE = 20.0
"""Seconds that closing waits for what is being computed."""


class Computation(Protocol):
    """What a dashboard shows the progress of: a Survey, or what has the same methods."""

    @property
    def done(self) -> int: ...  # noqa: D102
    @property
    def total(self) -> int: ...  # noqa: D102
    @property
    def seconds_left(self) -> float | None: ...  # noqa: D102
    @property
    def paused(self) -> bool: ...  # noqa: D102
    @property
    def cancelled(self) -> bool: ...  # noqa: D102
    def make_ready(self) -> None: ...  # noqa: D102
    def pieces(self) -> Iterator[Any]: ...  # noqa: D102
    def pause(self) -> None: ...  # noqa: D102
    def go_on(self) -> None: ...  # noqa: D102
    def cancel(self) -> None: ...  # noqa: D102
    def abandon(self) -> None: ...  # noqa: D102


class JobDashboard(CellOutput):
    """A dashboard of many runs; it displays itself. Each button is also a call: `start`, `pause`, `cancel`, `close`."""

    survey: Computation
    """What is computed; children set it before they call `__init__` here."""

    def __init__(self, figure: Any, above: Sequence[Any] = (), below: Sequence[Any] = ()) -> None:
        self.closed = False
        self.error = self.undrawn = ""
        self.thread: threading.Thread | None = None
        self.at_work: Computation | None = None
        self.again = False
        self.lock = threading.Lock()
        self.actions: deque[Callable[[], None]] = deque()
        self.figure = figure
        self.figure.layout.update(width=None, autosize=True)  # as wide as the page
        self.plots = LiveFigure(figure, {"doubleClick": False, "displayModeBar": False}, self.list_events())
        self.button = ipywidgets.Button(description="Start", button_style="primary", layout={"width": "7em"})
        self.stop_button = ipywidgets.Button(description="Cancel", layout={"width": "7em"}, disabled=True)
        self.bar = ipywidgets.FloatProgress(value=0.0, min=0.0, max=1.0, layout={"width": "16em"})
        self.words = ipywidgets.HTML(layout={"flex": "1 1 auto"})
        self.button.on_click(lambda _button: self._later(self._toggle))
        self.stop_button.on_click(lambda _button: self._later(self.cancel))
        self.tools = ipywidgets.HBox([self.button, self.stop_button, self.bar, self.words])
        self.box = ipywidgets.VBox([self.tools, *above, self.plots, *below])
        self.box.add_class("cnnlab-board")
        close_all(find_earlier(JobDashboard))
        OPEN[self] = get_current_cell()
        self.loop = find_running_loop()
        self.awake = asyncio.Event()
        self.publisher = None if self.loop is None else self.loop.create_task(self.publish(), name="cnnlab-board")
        self.show()
        self.draw()

    def draw_figure(self, idle: bool) -> None:
        """Bring `figure` up to date; `idle`: nothing is being computed, so that there is time."""
        raise NotImplementedError

    def list_events(self) -> Events:
        """What the page may tell of the figure, and who hears it."""
        return {}

    @property
    def computing(self) -> bool:
        """Whether something is being computed, or would be but for a pause."""
        thread = self.thread
        return thread is not None and thread.is_alive()

    def start(self) -> None:
        """Compute what is left; returns at once."""
        self._check_open()
        self.survey.go_on()
        with self.lock:
            if self.computing:  # what is being cancelled ends first
                self.again = self.at_work is not self.survey or self.survey.cancelled
            elif self.survey.done < self.survey.total:
                self._begin()
        self._touch()

    def _begin(self) -> None:
        """Start the thread that computes."""
        self.error, self.again, self.at_work = "", False, self.survey
        self.survey.make_ready()
        thread = threading.Thread(target=self._compute, args=(self.survey,), name="cnnlab-board", daemon=True)
        thread.start()
        self.thread = thread

    def _check_open(self) -> None:
        """RuntimeError in a sentence if the dashboard has been closed."""
        if self.closed:
            raise RuntimeError("this dashboard is closed: make a new one")

    def pause(self) -> None:
        """Give out no more work; `start` goes on."""
        self.survey.pause()
        self._touch()

    def cancel(self) -> None:
        """Stop; what is done is kept, and `start` computes the rest."""
        self.again = False
        if self.at_work is not None and self.computing:
            self.at_work.cancel()
        self._touch()

    def _halt(self) -> None:
        """Cancel, let go of what is being computed, and wait until nothing is any more; say so if that never ends."""
        thread, at_work = self.thread, self.at_work
        self.cancel()
        if thread is not None and at_work is not None:
            at_work.abandon()
            thread.join(PATIENCE)
            if thread.is_alive():
                errors.warn_about_thread("dashboard", PATIENCE)

    def _toggle(self) -> None:
        """What the first button does: start, pause, go on."""
        if self.computing and not self.survey.paused:
            self.pause()
        else:
            self.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until nothing is computed any more, and draw meanwhile; False if that took longer than `timeout`."""
        end = time.monotonic() + errors.check_timeout(timeout)
        try:
            while (thread := self.thread) and thread.is_alive() and (left := end - time.monotonic()) > 0:
                thread.join(min(1 / FRAMES, left))
                self.draw()
        except KeyboardInterrupt:
            self.cancel()
            raise
        self._obey()
        self.draw()
        return not self.computing

    def close(self) -> None:
        """End the dashboard: no thread, process, widget, comm or figure stays."""
        if self.closed:
            return
        self.closed = True
        OPEN.pop(self, None)
        self._halt()
        if self.publisher is not None:
            self.publisher.cancel()
        close_widgets(self.box)

    def _compute(self, survey: Computation) -> None:
        """What the thread does; an error is shown."""
        try:
            for _ in survey.pieces():
                self._touch()
        except BaseException as error:  # an executor may raise anything
            self.error = errors.describe_error(error)
        with errors.catch_all(self._show_error), self.lock:
            self.thread = None
            if self.again and not self.closed:
                self._begin()
        self._touch()

    def _show_error(self, error: BaseException) -> None:
        """Have the line beside the bar say what went wrong, until something is done again."""
        self.error = errors.describe_problem(error)

    def _later(self, action: Callable[[], None]) -> None:
        """Have something done by the task that draws; at once where there is none (called in any thread)."""
        self.actions.append(action)
        if self.loop is None:
            self._obey()
        self._touch()

    def _touch(self) -> None:
        """Have the dashboard drawn again soon (called in any thread)."""
        if self.loop is not None and not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.awake.set)

    def _obey(self) -> None:
        """Do what was asked for; an error is shown."""
        while self.actions and not self.closed:
            self.error = ""
            with errors.catch_all(self._show_error):
                self.actions.popleft()()

    async def publish(self) -> None:
        """Obey and draw whenever something has changed, a few times a second."""
        while not self.closed:
            await self.awake.wait()
            self.awake.clear()
            self._obey()
            self.draw()
            await asyncio.sleep(1 / FRAMES)

    def draw(self) -> None:
        """Show the present moment; what cannot be drawn is told beside the bar, until it can be drawn."""
        if self.closed:
            return
        self.undrawn = ""
        with errors.catch_all(self._note_undrawn):
            self._draw_state()
        with errors.catch_all(self._note_undrawn):
            self.draw_figure(idle=not self.computing or self.survey.paused)
            self.plots.show(self.figure)
        with errors.catch_all(self._note_undrawn):
            done, total = self.survey.done, self.survey.total
            self.words.value = self._in_words(done, total, self.survey.seconds_left)
            if not self.computing:
                self.saved.renew(f"{self!r}.")

    def _note_undrawn(self, error: BaseException) -> None:
        """Keep what prevents drawing. An interrupt is for the cell that draws; the publisher draws again."""
        self.undrawn = f"this could not be drawn: {errors.describe_error(error)}"
        obey_interrupt(error, self.publisher, self.awake)

    def _draw_state(self) -> None:
        """Show how far it is, and what can be done."""
        computing = self.computing
        done, total = self.survey.done, self.survey.total
        going = computing and not self.survey.paused
        self.button.description = "Pause" if going else "Go on" if computing or 0 < done < total else "Start"
        self.button.disabled = done == total
        self.stop_button.disabled = not computing or self._is_ending
        self.bar.value = done / total

    def _in_words(self, done: int, total: int, left: float | None) -> str:
        """What the line beside the bar says."""
        said = f"{done} of {total} runs"
        if self._is_ending:
            said += "; ending what is under way"
        elif self.computing and self.survey.paused:
            said += "; paused"
        elif self.computing:
            said += "; starting" if left is None else f"; about {format_duration(left)} left"
        wrong = self.error or self.undrawn
        return f"{said} <span style='color:var(--cnnlab-alarm)'>{html.escape(wrong)}</span>" if wrong else said

    @property
    def _is_ending(self) -> bool:
        """Whether what was cancelled has still to come to its end."""
        return self.computing and self.at_work is not None and self.at_work.cancelled
