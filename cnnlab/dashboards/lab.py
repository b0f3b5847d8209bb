"""The dashboard: a worker trains, one task on the kernel's loop draws, a person's hand closes the loop.

Widgets and figure are touched by that one task (or by the cell that calls), never by the worker or a message's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import numbers
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets

from cnnlab.config import errors
from cnnlab.config.links import link_of, moment_of, opened
from cnnlab.config.schedules import SHARE
from cnnlab.config.settings import KNOB_FIELDS, Choice, Settings, settings, written
from cnnlab.curvature.band import band_of
from cnnlab.dashboards import controls, messages
from cnnlab.dashboards.autopsy_panel import Doctor
from cnnlab.dashboards.live_figure import LiveFigure
from cnnlab.dashboards.upload import Upload
from cnnlab.dashboards.view import View
from cnnlab.dashboards.worker import Worker
from cnnlab.diagnosis import summary as verdict
from cnnlab.diagnosis.autopsy import Autopsy
from cnnlab.plots.colours import colour_branch, colour_layer
from cnnlab.plots.dashboard import draw_dashboard, find_ranges, refresh_dashboard
from cnnlab.plots.images import draw_kernels, draw_patches
from cnnlab.plots.layer_groups import find_groups
from cnnlab.plots.layout import find_held_axes, resize_dashboard
from cnnlab.plots.recorder import FigureRecorder
from cnnlab.records.autosave import Autosave
from cnnlab.records.record import Record
from cnnlab.training.problem import own_start
from cnnlab.training.run import Run

CONTROLS_WIDTH = 292
"""Width of the controls in pixels at scale 1."""
PATCHES = 120
"""Most training patches in the picture of them."""
LEAST_WIDTH = 320
"""Least width of the plots in pixels."""
FRAMES = 8.5
"""Frames a second at most: a browser that draws without a pause leaves less of two cores to the training."""
ASKED = 4
"""While a run trains and the browser keeps up, one of so many frames asks it to say that it is drawn; else every one.

JupyterLab shows a busy kernel at each such message, which takes the page as long as the plots do.
"""
PATIENCE = 1.0
"""Seconds to wait for a browser to say that a frame is drawn, before the next is sent all the same."""
HEADLESS = 0.25
"""The same where no browser has ever answered."""
GONE = 15.0
"""Seconds without any answer after which a browser that was there is taken to be closed, and training pauses."""
CLOSING = 10.0
"""Seconds that closing waits for the update that is being made, as many as it waits for an autopsy."""
RESTART_PATIENCE = 5.0
"""Seconds that a call waits for the new start that it asked for, before it returns all the same."""
READING = 4.0
"""Seconds for which a sentence about bad input stays, whatever is clicked meanwhile."""
OFFER = "A run of this cell was interrupted when its kernel ended."
"""What the header says where an earlier kernel has left a run."""
OPEN: dict[Lab, tuple[str, int]] = {}
"""Labs that are open -> the cell that made them, and the count of that execution."""


class Lab:
    """An interactive dashboard on one run; it displays itself. Nothing trains until asked.

    `Lab("question", learning_rate=1e-3)` takes a preset's name or Settings and any field by keyword; `scale=1.5`
    enlarges it for a projector; `network`, `data`, `cost`, `held_out` and `watch` are those of `cnnlab.Run`. Every
    control is also a call: `play`, `pause`, `step`, `set`, `reset`, `close`. Running the cell again closes the lab that
    was there. `Lab(lab.link())` opens what a link was taken of: it trains to the update that was shown, and pauses. In
    a notebook the run is kept safe every few seconds (`autosave` may name another file, or be False), and a lab that
    finds one of an earlier kernel offers it.
    """

    def __init__(
        self,
        preset: str | Settings = "question",
        *,
        scale: float = 1.0,
        network: Any = None,
        data: Any = None,
        cost: Callable[..., Any] | str | None = None,
        held_out: Any = None,
        watch: Sequence[str] | None = None,
        autosave: bool | str | os.PathLike[str] = True,
        **changes: Any,
    ) -> None:
        if isinstance(scale, bool) or not isinstance(scale, numbers.Real) or not 0.5 <= scale <= 4:
            raise ValueError(f"scale must be a number in [0.5, 4], got {written(scale)}")
        if not isinstance(autosave, (bool, str, os.PathLike)):
            raise TypeError(f"autosave must be True, False or the name of a file, got {written(autosave)}")
        if network is None and isinstance(cost, str):
            changes["cost"], cost = cost, None
        if network is not None:
            data, changes = own_start(preset, network, data, changes)
        start, plan = opened(preset, **changes)
        own = {"network": network, "data": data, "cost": cost, "held_out": held_out, "watch": watch}
        self.own_network = network is not None
        self.scale = float(scale)
        self.closed = False
        self.problem = self.undrawn = ""
        self.problem_at = 0.0
        self.told = 0  # how many failures of the worker were raised here, or are over
        self.heard: list[float] = [0, 0]  # which page's hand, and which of its settings, was obeyed or refused last
        self.look: int | None = None
        self.frame = self.asked = 0
        self.width = 1080
        self.browser_seen = self.answered = 0.0
        self.ranges: dict[str, Any] = {}
        self.worker = Worker(lambda wanted: Run(wanted, **own), start, self.posted, plan)
        self.own = own
        self.view = self.worker.view
        self.pace = controls.pace_for(self.worker.length)
        self.worker.choose_pace(controls.PACES[self.pace])
        self.worker.autosave = autosave_of(autosave)
        self.build()
        OPEN[self] = current_cell()
        self.loop = running_loop()
        self.awake = asyncio.Event()
        self.drawn = asyncio.Event()
        self.publisher: asyncio.Task[None] | None = None
        self.start_publisher()
        self.show()
        moment = moment_of(preset)
        if moment:
            self.worker.play(moment, hurried=True)
        if self.loop is not None:  # outside a notebook nobody sees what is measured at rest
            self.worker.measurements.watching = True
            self.worker.ask()

    def __repr__(self) -> str:
        return f"Lab({'closed, ' if self.closed else ''}{self.record!r})"

    def _ipython_display_(self) -> None:
        """Show the lab where a cell ends with it; not twice in the cell that made it."""
        if OPEN.get(self) != current_cell() or current_cell()[0] == "":
            self.show()

    # -- what a person can do, by hand or by call

    @property
    def record(self) -> Record:
        """Everything the present run has shown."""
        return self.view.record

    @property
    def settings(self) -> Settings:
        """The settings, with the knobs in force at the next update."""
        return self.worker.settings

    def play(self, updates: int | None = None) -> None:
        """Train to the planned end, or for so many updates, at the chosen speed; returns at once."""
        updates = None if updates is None else whole(updates)
        self.leave_the_past()
        self.worker.play(updates)

    def pause(self) -> None:
        """Stop before the next update."""
        self.worker.pause()

    def step(self, updates: int = 1) -> None:
        """Train so many updates at full speed, and return when they are done and drawn.

        What the network or the cost raises is raised here, and by `wait`; the updates before it stay. In place of what
        would end the caller's program, such as SystemExit, it is a RuntimeError.
        """
        updates = whole(updates)
        self.leave_the_past()
        self.worker.play(updates, hurried=True)
        self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until training pauses, and draw; False if that took longer than `timeout` seconds."""
        seconds = errors.seconds_of(timeout)
        try:
            done = self.worker.wait(seconds)
        except KeyboardInterrupt:
            self.pause()
            raise
        self.draw(self.view)
        self.raise_failure()
        return done

    def settle(self) -> None:
        """Wait until what was asked for is there to be read from `record`; raises what has prevented it."""
        self.worker.settle(RESTART_PATIENCE)
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise what went wrong in the worker, once."""
        failure, known, self.told = self.worker.failure, self.told, self.worker.failures
        if failure is not None and self.told > known:
            raise failure

    def set(self, **changes: Any) -> None:
        """Change settings by name: knobs are in force at the next update, anything else starts again from update 0.

        `preset` starts again with that preset and the other changes.
        """
        if "preset" in changes:
            self.choose(**changes)
            return
        new = self.settings.replace(**changes)
        if all(name in KNOB_FIELDS for name in changes):
            self.worker.set(new)
        else:
            self.restart(new)
        self.problem = ""
        self.worker.ask()

    def schedule(self, name: str, share: float = SHARE) -> None:
        """Have the learning rate follow a schedule from the next update to the planned end, the present one at most.

        "constant", "warm_up", "step" or "cosine" (see `cnnlab.rate_plan`), or "as_high_as_is_safe": at every update
        `share` times the critical learning rate, measured before it. What is done lands in the record's knobs. A
        learning rate set by hand ends it.
        """
        self.worker.schedule(name, share)
        self.problem = ""
        self.worker.ask()

    def look_at(self, step: int | None) -> None:
        """Show everything as it was after an update, without training; None for the present.

        Playing or stepping from there forks: a new branch with the knobs as they are now.
        """
        if step is not None:
            self.check_step(step)
            self.worker.pause()
        self.look = None if step is None or step == len(self.record) else int(step)
        self.redraw()

    def look_before_explosion(self) -> None:
        """Show the last update after which nothing was wrong yet, by the rule of `cnnlab.before_explosion`."""
        self.look_at(verdict.before_explosion(self.record))

    def rewind(self, step: int | None = None) -> None:
        """Take the run back to where it was after an update (None: the one shown); what came later stays as a ghost."""
        step = self.shown_step if step is None else step
        self.check_step(step)
        self.command(lambda: self.worker.rewind(int(step)))

    def fork(self, step: int | None = None, **changes: Any) -> None:
        """Begin a new branch after an update (None: the one shown), with some knobs changed; go on with it."""
        step = self.shown_step if step is None else step
        self.check_step(step)
        if any(name not in KNOB_FIELDS for name in changes):
            raise TypeError(f"a fork changes knobs ({', '.join(KNOB_FIELDS)}), got {', '.join(changes)}")
        new = self.settings.replace(**changes)
        self.command(lambda: self.worker.fork(int(step), new))

    def choose_branch(self, number: int) -> None:
        """Make another branch the present one, by its number."""
        self.command(lambda: self.worker.choose_branch(number))

    def delete_branch(self, number: int) -> None:
        """Let go of a branch, by its number; the only one left stays, and is a ValueError."""
        self.command(lambda: self.worker.delete_branch(number))

    def command(self, order: Callable[[], None]) -> None:
        """Order something of the worker, wait for it, and look at the present; raises what has prevented it."""
        look, run, updates = self.look, self.worker.run, self.worker.run.updates
        self.look = None
        try:
            order()
            self.settle()
        except BaseException:
            if self.worker.run is run and run.updates == updates:  # it was refused, and the update shown stays
                self.look = look
            raise

    @property
    def shown_step(self) -> int:
        """The update that is shown: the present one, or the one that is looked at."""
        return len(self.record) if self.look is None else self.look

    def explain(self) -> Autopsy:
        """Why the present run got into trouble: cause, place and remedies, shown in a panel and returned.

        Remedies are tried on copies of the run, which itself stays as it is; that takes some seconds.
        """
        self.examine()
        self.doctor.wait()
        self.doctor.show()
        if self.doctor.error is not None:
            raise self.doctor.error
        assert self.doctor.found is not None
        return self.doctor.found

    def examine(self) -> None:
        """Begin to find out why, in a thread of its own, and show the panel."""
        self.doctor.ask(self.view.record, self.copy_of, lambda: self.wake(self.doctor.show))
        self.wake(self.doctor.show)

    def copy_of(self, record: Record) -> Run:
        """A run of its own that goes on where a record of this lab ended."""
        return Run(record, **{name: value for name, value in self.own.items() if value is not None and name != "watch"})

    def apply(self, remedy: int) -> None:
        """Apply one of the remedies that `explain` has tried, by its place: as a new branch, or from a new start."""
        found, record = self.doctor.found, self.doctor.record
        tried = () if found is None or record is None else found.remedies
        if isinstance(remedy, bool) or not isinstance(remedy, numbers.Integral) or not 0 <= remedy < len(tried):
            places = f"0 to {len(tried) - 1}" if tried else "none so far"
            raise ValueError(f"remedy must be one of those that explain() has tried ({places}), got {written(remedy)}")
        trial, number = tried[int(remedy)], record.branch.number
        if trial.remedy.restarts:
            self.set(**trial.remedy.changes)
            return
        run = self.worker.tree.find(number)
        new = run.settings.replace(**{**dataclasses.asdict(run.knobs_in_force), **trial.remedy.changes})
        self.command(lambda: self.worker.fork(trial.start, new, number))

    def leave_the_past(self) -> None:
        """If an earlier update is looked at, fork there."""
        if self.look is not None:
            self.fork()

    def check_step(self, step: Any) -> None:
        """ValueError if `step` is none of the present run's updates, or 0."""
        if isinstance(step, bool) or not isinstance(step, numbers.Real) or step not in range(len(self.record) + 1):
            raise ValueError(f"step must be a whole number in [0, {len(self.record)}], got {written(step)}")

    def reset(self) -> None:
        """Back to update 0 of the same start; what was trained stays as a ghost.

        The changes that a link has planned are played again, unless a person has changed something meanwhile.
        """
        run = self.worker.run
        start = self.settings.replace(**dataclasses.asdict(run.knobs)) if run.plan else self.settings
        self.command(lambda: self.worker.restart(start, run.plan))

    def link(self) -> str:
        """Settings, changes of knobs and the update shown as a short text: "cnnlab:question?at4.clip=norm&look=6".

        `Lab(link)` opens it: it trains to that update, with the same changes on the way, and pauses. It tells of the
        present branch, and of the knobs that are in force at its next update or planned after it. ValueError for a
        network of your own.
        """
        if self.own_network:
            return self.record.link()
        record, plan = self.record, self.worker.run.plan
        coming = len(record) + 1
        ahead = [entry for entry in plan if entry[0] >= coming] if plan else [(coming, self.settings.knobs)]
        return link_of(record.settings, (*record.schedule, *ahead), self.shown_step)

    def bring_back(self) -> None:
        """Go on with the run that an earlier kernel left here; ValueError in a sentence if there is none to be read."""
        record = self.worker.autosave.read_offer()
        own = {name: value for name, value in self.own.items() if value is not None and name != "watch"}
        runs = [Run(branch, **own) for branch in (record, *record.others)]
        self.look = None
        self.worker.adopt(runs)
        self.settle()

    def restart(self, start: Settings, schedule: str | None = None) -> None:
        """Start again from update 0, and return when the new start is there to be read from `record`."""
        self.command(lambda: self.worker.restart(start, schedule=schedule))

    def new_seed(self) -> None:
        """Start again with the next seed."""
        self.set(seed=(self.settings.seed + 1) % 2**32)

    def choose(self, preset: str, **changes: Any) -> None:
        """Start again with a preset, and any fields changed by keyword."""
        if self.own_network:
            _, changes = own_start(preset, self.own["network"], self.own["data"], changes)
        start = settings(preset, **changes)
        self.restart(start, schedule="constant")
        self.problem = ""
        self.choose_pace(controls.pace_for(start.epochs * self.worker.run.updates_per_epoch))

    def choose_pace(self, pace: str) -> None:
        """Train at most so many updates a second: one of "1", "2", "5", "10", "20", "full"."""
        controls.PACE.check("pace", pace)
        self.pace = pace
        self.worker.choose_pace(controls.PACES[pace])
        self.worker.ask()

    def close(self) -> None:
        """End the lab: no thread, widget, comm or figure stays. The record can still be read."""
        if self.closed:
            return
        self.closed = True
        OPEN.pop(self, None)
        self.worker.close()
        self.worker.wait(10)
        self.worker.autosave.close()
        self.doctor.stop()
        if self.publisher is not None:
            self.publisher.cancel()
        parts = (self.header, self.doctor, self.controls, self.upload, self.column, self.strip, self.plots)
        for widget in (*parts, self.body, self.box):
            widget.layout.close()
            widget.close()
        self.figure.close()
        if not (self.worker.wait(0) and self.doctor.wait(0)):
            errors.warn_of_thread("lab", CLOSING)

    # -- the loop

    def posted(self, view: View) -> None:
        """Take over a view (called in the worker's thread)."""
        self.view = view
        self.wake(self.awake.set) if not self.closed else None

    def received(self, message: dict[str, Any]) -> None:
        """Act on a message from the browser (called in whatever thread the kernel handles messages)."""
        with errors.shown(self.show_problem):
            message = messages.checked(message)
            try:
                self.obey(message)
            finally:
                if "hand" in message:
                    self.heard = message["hand"]
                    self.worker.ask()

    def show_problem(self, error: BaseException) -> None:
        """Have the page say why something could not be done, unless its view says so."""
        if error is not self.worker.failure:
            self.problem, self.problem_at = errors.in_a_sentence(error), time.monotonic()
        self.redraw()

    def obey(self, message: dict[str, Any]) -> None:
        """Do what a message asks; ValueError or TypeError in a sentence if it cannot be done."""
        actions: dict[str, Callable[[], None]] = {
            "play": self.play,
            "pause": self.pause,
            "reset": self.reset,
            "new_seed": self.new_seed,
            "step": lambda: self.play(whole(message.get("updates"))),
            "before_explosion": self.look_before_explosion,
            "rewind": self.rewind,
            "bring_back": self.bring_back,
            "leave_behind": self.leave_behind,
            "explain": self.examine,
            "hide_doctor": self.doctor.hide,
            "fork": self.fork,
            "choose_branch": lambda: self.choose_branch(message.get("branch")),
            "delete_branch": lambda: self.delete_branch(message.get("branch")),
        }
        if "problem" in message:
            raise ValueError(message["problem"])
        if "width" in message:
            self.wake(lambda: self.resize(message["width"]))
        if "drawn" in message:
            self.wake(self.answer)
        if "do" in message:
            if time.monotonic() - self.problem_at > READING:  # a click right after what was typed must not hide it
                self.problem = ""
            actions[Choice("Action", tuple(actions)).check("do", message["do"])]()
        if "set" in message:
            self.set(**controls.typed(message["set"]))
        if "schedule" in message:
            self.schedule(message["schedule"])
        if "apply" in message:
            self.apply(message["apply"])
        if "look" in message:
            self.look_at(message["look"])
        if "preset" in message:
            self.choose(message["preset"])
        if "pace" in message:
            self.choose_pace(message["pace"])

    def wake(self, action: Callable[[], None]) -> None:
        """Have something done on the kernel's loop, from any thread; nothing where there is no loop."""
        if self.loop is not None and not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.attempt, action)

    def attempt(self, action: Callable[[], None]) -> None:
        """Do something; what prevents it is said on the page."""
        with errors.shown(self.show_problem):
            action()

    def leave_behind(self) -> None:
        """Forget the run that an earlier kernel left here."""
        self.worker.autosave.discard()
        self.redraw()

    def redraw(self) -> None:
        """Have the present view drawn again: by the publisher, or at once where there is none."""
        if self.loop is None:
            self.draw(self.view)
        self.wake(self.awake.set)

    def answer(self) -> None:
        """Note that a browser has drawn the last frame."""
        self.answered = self.clock()
        self.browser_seen = self.browser_seen or self.answered
        self.drawn.set()

    def clock(self) -> float:
        """The loop's time in seconds."""
        return self.loop.time() if self.loop is not None else 0.0

    def start_publisher(self) -> None:
        """Start the task that draws, if there is a loop; start it again if an interrupt ends it."""
        if self.loop is None or self.closed:
            return
        self.publisher = self.loop.create_task(self.publish(), name="cnnlab-publisher")
        self.publisher.add_done_callback(lambda task: None if self.closed or task.cancelled() else self.revive())

    def revive(self) -> None:
        """Start the publisher again, and have the frame that it was drawing drawn."""
        self.awake.set()
        self.start_publisher()

    async def publish(self) -> None:
        """Draw each view that is posted, and go on after an interrupt, which would end the kernel's loop."""
        while not self.closed:
            try:
                await self.publish_views()
            except (Exception, KeyboardInterrupt, SystemExit):
                self.awake.set()
                await asyncio.sleep(HEADLESS)

    async def publish_views(self) -> None:
        """Draw each view that is posted; ask for the next one when the browser has drawn what it was asked about."""
        due, prompt = 0.0, False
        while not self.closed:
            await self.awake.wait()
            self.awake.clear()
            view, began = self.view, self.clock()
            due = max(due, began - 0.5 / FRAMES) + 1 / FRAMES
            if not (prompt and view.training) or self.frame + 1 >= self.asked + ASKED:
                self.asked = self.frame + 1
                self.drawn.clear()
            self.draw(view)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.drawn.wait(), PATIENCE if self.browser_seen else HEADLESS)
            prompt = self.drawn.is_set() and self.clock() - began < 1 / FRAMES
            await asyncio.sleep(max(0.0, due - self.clock()))
            if self.browser_seen and self.clock() - self.answered > GONE:
                self.browser_seen = 0.0
                self.pause()
            elif view.training:
                self.worker.ask_for_next()

    # -- what is shown

    def build(self) -> None:
        """Make the widgets: one figure, three parts, three boxes."""
        view, scale = self.view, self.scale
        wide = round(CONTROLS_WIDTH * scale)
        width = max(LEAST_WIDTH, self.width - wide)
        self.figure = LiveFigure(draw_dashboard(view.record, view.goal, scale=scale, width=width))
        self.figure._config = {"doubleClick": "autosize", "displayModeBar": False}
        zoomable = [f"{axis}.autorange" for axis in find_ranges(view.record, (), view.goal)]
        self.figure.layout.on_change(lambda *_: self.attempt(self.worker.ask), *zoomable)
        self.header = controls.Header(self.received, scale, self.header_state(view, view.record))
        state, layout = self.controls_state(view, view.record), fixed_column(wide)
        self.controls = controls.Controls(self.received, scale, state, self.own_network, layout)
        self.strip = controls.Strip(scale, self.strip_state(view.record), self.patches())
        self.plots = ipywidgets.VBox(
            [self.figure, self.strip], layout=ipywidgets.Layout(flex="1 1 auto", overflow="hidden")
        )
        self.upload = Upload(self.received)
        column = [self.controls] if self.own_network else [self.controls, self.upload]
        self.column = ipywidgets.VBox(column, layout=fixed_column(wide))
        self.body = ipywidgets.HBox([self.column, self.plots])
        self.doctor = Doctor(self.received, scale)
        self.box = ipywidgets.VBox([self.header, self.doctor, self.body])
        self.box.add_class("cnnlab-lab")

    def show(self) -> None:
        """Display the lab in the cell that runs now; nothing outside IPython."""
        with contextlib.suppress(ImportError):
            from IPython import get_ipython
            from IPython.display import display

            if get_ipython() is not None and not self.closed:
                display(self.box)

    def draw(self, view: View) -> None:
        """Show a view; what cannot be drawn stays as it was, and the header says why until it can be drawn.

        All parts are made ready first and then sent close together: one picture on the screen. The header is the last,
        and answers when it is drawn.
        """
        if self.closed:
            return
        self.frame += 1
        self.undrawn = ""
        past = self.look is not None and self.look < len(view.record)
        shown = view.record.until(self.look) if past and self.look is not None else view.record
        ready: list[Callable[[], None]] = []
        for part in (self.plots_of, self.strip_of, self.controls_of, self.header_of):
            with errors.shown(self.note_undrawn):
                ready.append(part(view, shown))
        for send in ready:
            with errors.shown(self.note_undrawn):
                send()

    def note_undrawn(self, error: BaseException) -> None:
        """Keep what prevents drawing. An interrupt is for the cell that draws; the publisher draws again."""
        self.undrawn = f"this could not be drawn: {errors.told(error)}"
        heed_interrupt(error, self.publisher, self.awake)

    def plots_of(self, view: View, shown: Record) -> Callable[[], None]:
        """The plots made ready to be sent, in one message."""
        ghosts = view.ghosts if shown is view.record else (view.record, *view.ghosts)
        hover = False if view.training else "closest"
        if self.figure.layout.hovermode != hover:
            self.figure.layout.hovermode = hover
        drawn = FigureRecorder(trace["name"] for trace in self.figure._data)
        self.ranges = refresh_dashboard(drawn, shown, ghosts, view.goal, self.held(), pictures=self.with_pictures(view))
        return lambda: self.figure.take(drawn, whole=not view.training)

    def with_pictures(self, view: View) -> bool:
        """Whether a frame has pictures, too."""
        return not view.training or self.figure.pictures_are_due

    def strip_of(self, view: View, shown: Record) -> Callable[[], None]:
        """The strip made ready to be sent."""
        state = self.strip_state(shown, self.with_pictures(view))
        if shown.settings.replace(seed=0) != self.pictured:
            self.strip.patches = self.patches()
        return lambda: setattr(self.strip, "state", state)

    def controls_of(self, view: View, shown: Record) -> Callable[[], None]:
        """The controls, and the lamps of an open panel, made ready to be sent."""
        state = self.controls_state(view, shown)

        def send() -> None:
            self.controls.state = state
            self.doctor.follow(view.record)

        return send

    def header_of(self, view: View, shown: Record) -> Callable[[], None]:
        """The header made ready to be sent, with what has prevented the other parts."""
        asked = self.frame == self.asked or self.loop is None
        state = {**self.header.state, "frame": self.frame, "asked": asked, "training": view.training, "problem": ""}
        with errors.shown(self.note_undrawn):
            state = self.header_state(view, shown)
        return lambda: setattr(self.header, "state", {**state, "problem": state["problem"] or self.undrawn})

    def held(self) -> frozenset[str]:
        """The axes whose range a person has set by zooming; a double click gives them back."""
        # The layout past plotly's objects, which take longer than all the plots' curves.
        return find_held_axes(self.figure._layout, self.ranges)

    def resize(self, width: float) -> None:
        """Fit the plots to the width of the cell's output, in pixels."""
        wide = max(LEAST_WIDTH, round(width) - round(CONTROLS_WIDTH * self.scale) - 2)
        if not self.closed and self.figure.layout.width != wide:
            resize_dashboard(self.figure, wide, self.scale)

    def header_state(self, view: View, shown: Record) -> dict[str, Any]:
        """What the header shows."""
        updates = len(shown)
        forecast, rate = None if updates else view.forecast, f"learning rate {view.settings.learning_rate:g}"
        line = verdict.state_line(shown)
        if not updates and len(view.record):
            line, forecast = verdict.start_line(shown), None
        elif forecast is not None:
            line = f"ready at update 0: at {rate} it {forecast}"
        return {
            "frame": self.frame,
            "asked": self.frame == self.asked or self.loop is None,
            "line": line,
            "tone": verdict.RISING if forecast is not None and forecast.diverges else verdict.tone(shown),
            "trouble": verdict.tone(view.record) != verdict.CALM,
            "trained": len(view.record),
            "training": view.training,
            "epoch": updates // view.record.updates_per_epoch,
            "step": updates,
            "goal": view.goal,
            "length": self.worker.length,
            "progress": min(updates / view.goal, 1),
            "rate": f"{view.rate:.1f}" if view.rate < 10 else f"{view.rate:.0f}",
            "preset": view.settings.preset,
            "changed": self.is_changed(view.settings),
            "pace": self.pace,
            "offer": OFFER if self.worker.autosave.offered else "",
            "problem": view.error or self.worker.autosave.problem,
        }

    def is_changed(self, present: Settings) -> bool:
        """Whether settings differ from those that their preset starts with here."""
        follows = own_start(present.preset, self.own["network"], self.own["data"], {})[1] if self.own_network else {}
        return present != settings(present.preset, **follows)

    def controls_state(self, view: View, shown: Record) -> dict[str, Any]:
        """What the controls show."""
        family = {record.branch.number: record for record in (view.record, *view.record.others)}
        coming = {number: run.knobs_in_force for number, run in dict(self.worker.tree.runs).items()}
        branches = [
            {
                "number": number,
                "colour": colour_branch(number),
                "label": verdict.difference(record, family.get(record.branch.parent or 0), coming.get(number)),
                "depth": depth_of(number, family),
                "present": record is view.record,
            }
            for number, record in sorted(family.items())
        ]
        return {
            "heard": self.heard,
            "values": controls.values_of(self.worker.settings),
            "schedule": view.schedule,
            "band": band_of(shown, self.worker.settings, view.no_curvature),
            "problem": self.problem,
            "branches": branches,
        }

    def strip_state(self, shown: Record, with_pictures: bool = True) -> dict[str, Any]:
        """What the strip below the plots shows; its picture is a new one only in a frame with all pictures."""
        layers = shown.layers
        colours = {name: colour_layer(place) for name, place in find_groups(layers).items()}
        kernels, patches = shown.kernels[-1], self.worker.settings.patches
        picture = draw_kernels(kernels[:64]) if with_pictures and len(kernels) else ""
        return {
            **controls.table_of(shown, colours),
            "kernels": picture if with_pictures else self.strip.state["kernels"],
            "kernels_title": f"{layers[0]}: {min(len(kernels), 64)} kernels" if len(kernels) else "",
            "patches_title": f"{PATCHES} of {patches} training patches"
            if patches > PATCHES
            else f"The {patches} training patches",
        }

    def patches(self) -> str:
        """The training patches as a picture, or nothing if the data are no images."""
        self.pictured = self.view.record.settings.replace(seed=0)
        found = self.worker.run.patches()
        return "" if found is None else draw_patches(found[:PATCHES])


def fixed_column(width: int) -> ipywidgets.Layout:
    """The layout of a column so many pixels wide."""
    return ipywidgets.Layout(width=f"{width}px", flex="0 0 auto")


def depth_of(number: int, family: dict[int, Record]) -> int:
    """How many forks lie between a branch and the oldest of its ancestors that is left."""
    parent = family[number].branch.parent
    return 0 if parent not in family else 1 + depth_of(parent, family)


def whole(updates: Any) -> int:
    """A number of updates; ValueError in a sentence if it is none."""
    if (
        isinstance(updates, bool)
        or not isinstance(updates, numbers.Real)
        or updates != updates // 1
        or not 1 <= updates <= 1e6
    ):
        raise ValueError(f"updates must be a whole number in [1, 1e6], got {written(updates)}")
    return int(updates)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop of the kernel that runs this cell; None outside one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def heed_interrupt(error: BaseException, publisher: asyncio.Task[None] | None, awake: asyncio.Event) -> None:
    """Raise an interrupt of a cell that draws; have the publisher draw again after one of its own."""
    if isinstance(error, KeyboardInterrupt):
        if not runs_now(publisher):
            raise error
        awake.set()


def runs_now(task: asyncio.Task[None] | None) -> bool:
    """Whether this is called by a task."""
    return task is not None and running_loop() is not None and asyncio.current_task() is task


def current_cell() -> tuple[str, int]:
    """The id of the cell that runs now and the count of its execution; '' and 0 where there is none."""
    try:
        from IPython import get_ipython
    except ImportError:
        return "", 0
    shell = get_ipython()
    if shell is None or not hasattr(shell, "get_parent"):
        return "", 0
    return shell.get_parent().get("metadata", {}).get("cellId", ""), shell.execution_count


def autosave_of(wanted: bool | str | os.PathLike[str]) -> Autosave:
    """The autosave of a new lab; closes the labs of an earlier execution of this cell, unless a file is refused."""
    earlier = labs_of_this_cell()
    path = None if isinstance(wanted, bool) else Path(os.path.realpath(wanted))
    if path is not None and path not in [lab.worker.autosave.path for lab in earlier]:
        kept = Autosave.in_file(path)
        close_all(earlier)
        return kept
    close_all(earlier)
    if path is not None:
        return Autosave.in_file(path)
    return Autosave.of_cell(current_cell()[0]) if wanted else Autosave()


def close_all(labs: Iterable[Lab]) -> None:
    """Close labs."""
    for lab in labs:
        lab.close()


def labs_of_this_cell() -> list[Lab]:
    """The open labs that an earlier execution of this cell made."""
    cell, count = current_cell()
    return [lab for lab, (made_in, made_at) in OPEN.items() if cell and made_in == cell and made_at != count]
