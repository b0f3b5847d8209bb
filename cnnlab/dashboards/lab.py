"""The dashboard: a worker trains, one task on the kernel's loop draws, the user's changes close the loop.

Widgets and figure are touched by that one task (or by the cell that calls), never by the worker or a message's thread.
"""

from __future__ import annotations

import numbers
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from cnnlab.config import errors
from cnnlab.config.links import format_link
from cnnlab.config.schedules import SHARE
from cnnlab.config.settings import KNOB_FIELDS, Settings, quote, settings
from cnnlab.dashboards.autopsy_panel import AutopsyPanel
from cnnlab.dashboards.branch_tree import join_settings
from cnnlab.dashboards.cell import (
    OPEN,
    CellOutput,
    get_current_cell,
    open_autosave,
    remember_forecast,
    shows_forecast,
)
from cnnlab.dashboards.controls import PACE, PACES, choose_starting_pace
from cnnlab.dashboards.frame_publisher import FramePublisher, obey_interrupt
from cnnlab.dashboards.lab_widgets import PRESENT_SCALE, LabWidgets, check_scale
from cnnlab.dashboards.messages import check_switch, check_updates, find_field, obey
from cnnlab.dashboards.opening import Opening, read_beside
from cnnlab.dashboards.saved_picture import encode_svg
from cnnlab.dashboards.view import View
from cnnlab.dashboards.view_state import Moment, describe_state, take_moment
from cnnlab.dashboards.worker import Worker
from cnnlab.diagnosis.autopsy import Autopsy
from cnnlab.diagnosis.summary import before_explosion
from cnnlab.plots.arrangement import check_panels
from cnnlab.plots.magnitudes import check_kind
from cnnlab.plots.still import draw_still
from cnnlab.records.formats import format_duration
from cnnlab.records.record import Record
from cnnlab.training.problem import prepare_own_start
from cnnlab.training.run import Run

CLOSING = 10.0
"""Seconds that closing waits for the update that is being made, as many as it waits for an autopsy."""
RESTART_PATIENCE = 5.0
"""Seconds that a call waits for the new start that it asked for, before it returns all the same."""
READING = 4.0
"""Seconds for which a sentence about bad input stays, whatever is clicked meanwhile."""


class Lab(CellOutput):
    """An interactive dashboard on one run; it displays itself. Nothing trains until asked.

    `Lab("question", learning_rate=1e-3)` takes a preset's name or Settings and any field by keyword; `scale=1.5`
    enlarges it; `network`, `data`, `cost`, `held_out` and `watch` are those of `cnnlab.Run`. Every
    control is also a call: `play`, `pause`, `step`, `set`, `reset`, `close`. Running the cell again closes the lab that
    was there. `Lab(lab.link())` opens what a link was taken of: it trains to the update that was shown, and pauses. In
    a notebook the run is kept safe every few seconds (`autosave` may name another file, or be False), and a lab that
    finds one of an earlier kernel offers it. `panels` are the plots that are shown, in their order, such as ("cost",
    "magnitudes"); `lab.panels` changes them, and "signals" is one that is shown where it is named alone. `magnitudes`
    is what the plots of magnitudes show, "weights", "gradients", "activations" or "updates"; the button ⇄ beside their
    titles, and `lab.magnitudes`, change it.

    `hints=False` keeps from the page what would answer a guess: the forecast before the first update, the critical
    learning rate with the curvature, and the warnings before the cost is NaN or inf. They are shown once the present
    run has shown how it ends (its cost or its weights have been NaN or inf, or it is at its planned end), until a new
    start, a rewind or a fork goes on from an update before that; and from when the user asks for them: by the button
    **Show forecast**, or by `show_forecast`. That is remembered, also where the cell is run again in the same kernel.
    The schedule "as_high_as_is_safe" takes its learning rates from the critical one, and they are shown as any others.

    `present=True` is for a projector: the cost, the histograms of the weights and the learning rate alone, enlarged by
    1.5 (or by `scale`) and the plots by more; the keys that the page names work while the dashboard has the focus. Its
    button **All controls**, or `lab.present = False`, ends that.

    `Lab(record)` shows a record, or the file that one was saved in, whole and paused, and goes on from its end as
    `Run(record)` does. `Lab(record, beside=other)` draws another one over it, a Record or the name of a file that
    `cnnlab.load` reads: in dashes and hollow marks, in every plot but the two of the weights' magnitudes.

    `stop_at_nan=True` has Play stop by itself two updates after the cost or a weight is NaN or inf; Play pressed again
    then goes on to the planned end. The page has the same switch. Updates that are asked for by number are all made.
    """

    def __init__(
        self,
        preset: str | os.PathLike[str] | Settings | Record = "question",
        *,
        scale: float | None = None,
        present: bool = False,
        hints: bool = True,
        stop_at_nan: bool = True,
        network: Any = None,
        data: Any = None,
        cost: Callable[..., Any] | str | None = None,
        held_out: Any = None,
        watch: Sequence[str] | None = None,
        autosave: bool | str | os.PathLike[str] = True,
        panels: Sequence[str] | None = None,
        magnitudes: str = "weights",
        beside: Record | str | os.PathLike[str] | None = None,
        **changes: Any,
    ) -> None:
        check_switch("present", present)
        scale = check_scale((PRESENT_SCALE if present else 1.0) if scale is None else scale)
        check_panels(panels)
        check_kind(magnitudes)
        compared = read_beside(beside)
        check_switch("hints", hints)
        check_switch("stop_at_nan", stop_at_nan)
        self.hints = hints or shows_forecast()
        if not isinstance(autosave, (bool, str, os.PathLike)):
            raise TypeError(f"autosave must be True, False or the name of a file, got {quote(autosave)}")
        if network is None and isinstance(cost, str):
            changes["cost"], cost = cost, None
        self.own = {"network": network, "data": data, "cost": cost, "held_out": held_out, "watch": watch}
        opening = Opening(preset, self.own, changes)
        self.own_network = network is not None
        self.problem = self.refused = self.note = self.undrawn = ""
        self.problem_at = 0.0
        self.told = 0  # how many failures of the worker were raised here, or are over
        self.heard: list[float] = [0, 0]
        self.look: int | None = None
        self.awaited = 0  # how many calls wait for training to pause
        self.worker = Worker(opening.make_run, opening.start, self._take_view, opening.plan, opening.runs)
        self.worker.stop_at_nan(stop_at_nan)
        self.view = self.worker.view
        self.pace = choose_starting_pace(self.worker.length)
        self.worker.choose_pace(PACES[self.pace])
        self.worker.autosave = open_autosave(type(self), autosave)
        self.publisher: FramePublisher = FramePublisher(self)
        self.widgets: LabWidgets = LabWidgets(
            take_moment(self, self.view), scale, self.own_network, self.received,
            self.publisher, lambda: self.worker.run.patches(), panels, present, compared,
            self.worker.want_direction, magnitudes, self.worker.want_signals,
        )  # fmt: skip
        self.box = self.widgets.box
        self.doctor: AutopsyPanel = self.widgets.doctor
        OPEN[self] = get_current_cell()
        self.show()
        if opening.moment:
            self.worker.play(opening.moment, hurried=True)
        if self.publisher.loop is not None:  # outside a notebook nobody sees what is measured at rest
            self.worker.measurements.watching = True
            self.worker.ask()

    def __repr__(self) -> str:
        return f"Lab({'closed, ' if self.closed else ''}{self.record!r})"

    @property
    def record(self) -> Record:
        """Everything the present run has shown."""
        return self.view.record

    @property
    def figure(self) -> go.Figure:
        """What the plots show now, as a plotly figure of its own: to save, to change, `write_image`."""
        return self.widgets.make_figure()

    @property
    def panels(self) -> tuple[str, ...]:
        """The names of the plots that are shown, in their order; may be set, None shows all."""
        return self.widgets.panels

    @panels.setter
    def panels(self, names: Sequence[str] | None) -> None:
        self.widgets.choose_panels(names)

    @property
    def magnitudes(self) -> str:
        """What the plots of magnitudes show: "weights", "gradients", "activations" or "updates"; may be set."""
        return self.widgets.magnitudes

    @magnitudes.setter
    def magnitudes(self, kind: str) -> None:
        self.widgets.choose_magnitudes(kind)

    @property
    def present(self) -> bool:
        """Whether the page is as for a projector; may be set."""
        return self.widgets.present

    @present.setter
    def present(self, present: bool) -> None:
        self.widgets.choose_mode(check_switch("present", present))

    @property
    def settings(self) -> Settings:
        """The settings, with the knobs in force at the next update."""
        return self.worker.settings

    def show_forecast(self) -> None:
        """Show the forecast, the critical learning rate and the early warnings, which `hints=False` hides."""
        self.hints = True
        remember_forecast(self)
        self._redraw()

    def play(self, updates: int | None = None) -> None:
        """Train to the planned end, or for so many updates, at the chosen speed; returns at once.

        Without `updates` it stops two updates after a NaN, if that is not switched off; see `stop_at_nan`.
        """
        updates = None if updates is None else check_updates(updates)
        self._leave_the_past()
        self.worker.play(updates)

    def pause(self) -> None:
        """Stop before the next update."""
        self.worker.pause()

    def pause_unwatched(self, seconds: float) -> None:
        """Pause a run that no page has shown for so many seconds, and say so."""
        self.note = f"paused: no page has shown this lab for {format_duration(seconds)}; Play goes on"
        self.pause()

    def step(self, updates: int = 1) -> None:
        """Train so many updates at full speed, and return when they are done and drawn.

        What the network or the cost raises is raised here, and by `wait`; the updates before it stay. In place of what
        would end the caller's program, such as SystemExit, it is a RuntimeError.
        """
        updates = check_updates(updates)
        self._leave_the_past()
        self.worker.play(updates, hurried=True)
        self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until training pauses, and draw; False if that took longer than `timeout` seconds."""
        seconds = errors.check_timeout(timeout)
        self.awaited += 1
        try:
            done = self.worker.wait(seconds)
        except KeyboardInterrupt:
            self.pause()
            raise
        finally:
            self.awaited -= 1
        self.draw(self.view)
        self._raise_failure()
        return done

    def settle(self) -> None:
        """Wait until what was asked for is there to be read from `record`; raises what has prevented it."""
        self.worker.settle(RESTART_PATIENCE)
        self._raise_failure()

    def _raise_failure(self) -> None:
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
        self.worker.set(new) if all(name in KNOB_FIELDS for name in changes) else self.restart(new)
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
        self.note = ""
        if step is not None:
            self._check_step(step)
            self.worker.pause()
        self.look = None if step is None or step == len(self.record) else int(step)
        self._redraw()

    def look_before_explosion(self) -> None:
        """Show the last update after which all was well, by the rule of `cnnlab.before_explosion`."""
        update = before_explosion(self.record)
        self.look_at(update)
        if update == len(self.record):
            self.note = f"nothing went wrong up to update {update}"
            self._redraw()

    def rewind(self, step: int | None = None) -> None:
        """Take the run back to where it was after an update (None: the one shown); what came later stays as a ghost."""
        step = self.shown_step if step is None else step
        self._check_step(step)
        self._command(lambda: self.worker.rewind(int(step)))

    def fork(self, step: int | None = None, **changes: Any) -> None:
        """Begin a new branch after an update (None: the one shown), with some knobs changed; go on with it."""
        step = self.shown_step if step is None else step
        self._check_step(step)
        if any(name not in KNOB_FIELDS for name in changes):
            raise TypeError(f"a fork changes knobs ({', '.join(KNOB_FIELDS)}), got {', '.join(changes)}")
        self._command(lambda: self.worker.fork(int(step), self.settings.replace(**changes)))

    def choose_branch(self, number: int) -> None:
        """Make another branch the present one, by its number."""
        self._command(lambda: self.worker.choose_branch(number))

    def delete_branch(self, number: int) -> None:
        """Let go of a branch, by its number; the only one left stays, and is a ValueError."""
        self._command(lambda: self.worker.delete_branch(number))

    def _command(self, order: Callable[[], None]) -> None:
        """Order something of the worker, wait for it, and look at the present; raises what has prevented it."""
        look, run, updates = self.look, self.worker.run, self.worker.run.updates
        self.look, self.note = None, ""
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
        self.doctor.ask(self.view.record, self._rebuild_run, lambda: self.publisher.call(self.doctor.show))
        self.publisher.call(self.doctor.show)

    def _rebuild_run(self, record: Record) -> Run:
        """A run of its own that goes on where a record of this lab ended."""
        return Run(record, **{name: value for name, value in self.own.items() if value is not None and name != "watch"})

    def apply(self, remedy: int) -> None:
        """Apply one of the remedies that `explain` has tried, by its place: as a new branch, or from a new start."""
        trial, number = self.doctor.find_trial(remedy)
        if trial.remedy.alter is not None:
            raise ValueError(f"remedy must be a change of settings, got {trial.remedy}: write that in your own program")
        if trial.remedy.restarts:
            self.set(**trial.remedy.changes)
            return
        run = self.worker.tree.find(number)
        new = join_settings(run.settings, run.knobs_in_force).replace(**trial.remedy.changes)
        self._command(lambda: self.worker.fork(trial.start, new, number))
        if trial.remedy.schedule:
            self.schedule(trial.remedy.schedule)

    def _leave_the_past(self) -> None:
        """If an earlier update is looked at, fork there; what was said of the updates so far is over."""
        self.note = ""
        if self.look is not None:
            self.fork()

    def _check_step(self, step: Any) -> None:
        """ValueError if `step` is none of the present run's updates, or 0."""
        if isinstance(step, bool) or not isinstance(step, numbers.Real) or step not in range(len(self.record) + 1):
            raise ValueError(f"step must be a whole number in [0, {len(self.record)}], got {quote(step)}")

    def reset(self) -> None:
        """Back to update 0 of the same start; what was trained stays as a ghost.

        The changes that a link has planned are played again, unless the user has changed something meanwhile.
        """
        run = self.worker.run
        start = join_settings(self.settings, run.knobs) if run.plan else self.settings
        self._command(lambda: self.worker.restart(start, run.plan))

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
        return format_link(record.settings, (*record.schedule, *ahead), self.shown_step)

    def bring_back(self) -> None:
        """Go on with the run that an earlier kernel left here; ValueError in a sentence if there is none to be read."""
        record = self.worker.autosave.read_offer()
        runs = [self._rebuild_run(branch) for branch in (record, *record.others)]
        self.look = None
        self.worker.adopt(runs)
        self.settle()

    def restart(self, start: Settings, schedule: str | None = None) -> None:
        """Start again from update 0, and return when the new start is there to be read from `record`."""
        self._command(lambda: self.worker.restart(start, schedule=schedule))

    def new_seed(self) -> None:
        """Start again with the next seed."""
        self.set(seed=(self.settings.seed + 1) % 2**32)

    def choose(self, preset: str, **changes: Any) -> None:
        """Start again with a preset, and any fields changed by keyword."""
        if self.own_network:
            _, changes = prepare_own_start(preset, self.own["network"], self.own["data"], changes)
        start = settings(preset, **changes)
        self.restart(start, schedule="constant")
        self.problem = ""
        self.choose_pace(choose_starting_pace(start.epochs * self.worker.run.updates_per_epoch))

    def choose_pace(self, pace: str) -> None:
        """Train at most so many updates a second: one of "1", "2", "5", "10", "20", "full"."""
        PACE.check("pace", pace)
        self.pace = pace
        self.worker.choose_pace(PACES[pace])
        self.worker.ask()

    def stop_at_nan(self, stop: bool = True) -> None:
        """Have Play stop by itself two updates after the cost or a weight is NaN or inf, or not."""
        self.worker.stop_at_nan(check_switch("stop_at_nan", stop))
        self.worker.ask()

    def choose_mode(self, present: bool) -> None:
        """Have the page as for a projector, or not (called in whatever thread messages are handled)."""
        if self.publisher.loop is None:
            self.present = present
        else:
            self.publisher.call(lambda: setattr(self, "present", present))

    def close(self) -> None:
        """End the lab: no thread, widget, comm or figure stays. The record can still be read."""
        if self.closed:
            return
        self._renew_picture(take_moment(self, self.view))
        self.closed = True
        OPEN.pop(self, None)
        self.worker.close()
        self.worker.wait(CLOSING)
        self.worker.autosave.close()
        self.doctor.stop()
        self.publisher.close()
        self.widgets.close()
        if not (self.worker.wait(0) and self.doctor.wait(0)):
            errors.warn_about_thread("lab", CLOSING)

    def received(self, message: Any) -> None:
        """Act on a message from the browser (called in whatever thread the kernel handles messages)."""
        with errors.catch_all(lambda error: self._show_problem(error, find_field(message))):
            obey(self, message)

    def leave_behind(self) -> None:
        """Forget the run that an earlier kernel left here."""
        self.worker.autosave.discard()
        self._redraw()

    def forget_problem(self) -> None:
        """Say no more what was told or refused; but a click right after what was typed must not hide it."""
        self.note = ""
        if time.monotonic() - self.problem_at > READING:
            self.problem = ""

    def attempt(self, action: Callable[[], None]) -> None:
        """Do something; what prevents it is said on the page."""
        with errors.catch_all(self._show_problem):
            action()

    def draw(self, view: View, *, texts: bool = True, plots: bool = True, ask: int = 0) -> None:
        """Show a view; what cannot be drawn stays as it was, and the header says why until it can be drawn.

        `ask`: have the page answer with this number when that is on the screen.
        """
        if self.closed:
            return
        self.publisher.frame += plots
        self.undrawn = ""
        moment = take_moment(self, view)
        self.widgets.draw(moment, self._note_undrawn, lambda: self.undrawn, texts=texts, plots=plots, ask=ask)
        if not view.training:
            self._renew_picture(moment)

    def _renew_picture(self, moment: Moment) -> None:
        """Have a saved notebook show the lab as it is now; before the first update, once the page shows the lab."""
        if not self.saved.shown or not (len(moment.shown) or self.publisher.browser_seen):
            return
        with errors.catch_all(self._note_undrawn):
            line, _ = describe_state(moment)
            picture = encode_svg(draw_still(moment.shown, line)) if len(moment.shown) else ""
            self.saved.renew(f"The lab as it was at update {len(moment.shown)}.", picture, f"Cost by update. {line}")

    def _take_view(self, view: View) -> None:
        """Take over a view (called in the worker's thread)."""
        self.view = view
        if not self.closed:
            self.publisher.wake()

    def _show_problem(self, error: BaseException, field: str = "") -> None:
        """Have the page say why something could not be done, beside its field, unless its view says so."""
        if error is not self.worker.failure:
            self.problem, self.refused, self.problem_at = errors.describe_problem(error), field, time.monotonic()
        self._redraw()

    def _redraw(self) -> None:
        """Have the present view drawn again: by the publisher, or at once where there is none."""
        if self.publisher.loop is None:
            self.draw(self.view)
        self.publisher.wake()

    def _note_undrawn(self, error: BaseException) -> None:
        """Keep what prevents drawing. An interrupt is for the cell that draws; the publisher draws again."""
        self.undrawn = f"this could not be drawn: {errors.describe_error(error)}"
        obey_interrupt(error, self.publisher.task, self.publisher.awake)
