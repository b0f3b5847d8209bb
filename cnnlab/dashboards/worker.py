"""The thread that trains. It lives only while there is something to do, and knows no widgets.

Whoever shows the run asks for a `View`; the thread hands one over between two updates.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence

from cnnlab.config.errors import catch_all, describe_error, make_raisable
from cnnlab.config.links import Plan
from cnnlab.config.schedules import SAFE, SHARE
from cnnlab.config.settings import Settings
from cnnlab.dashboards.branch_tree import BranchTree
from cnnlab.dashboards.idle_measurements import IdleMeasurements
from cnnlab.dashboards.nan_stop import NanStop
from cnnlab.dashboards.pace import Pace
from cnnlab.dashboards.rate_control import RateControl
from cnnlab.dashboards.view import View
from cnnlab.dashboards.worker_thread import WorkerThread
from cnnlab.records.autosave import Autosave
from cnnlab.training.malloc import give_back_memory
from cnnlab.training.run import Run

TIDY = 2.0
"""Seconds of training between two calls of `give_back_memory`."""


class Worker:
    """Trains a run in a thread of its own, towards a goal, at a pace.

    Every method may be called from any thread. `posted` is called in the worker's thread with each View. `runs` are the
    branches to go on with, the present one first, in place of a new run.
    """

    def __init__(
        self, make_run: Callable[[Settings], Run], start: Settings, posted: Callable[[View], None], plan: Plan = (),
        runs: Sequence[Run] = (),
    ) -> None:  # fmt: skip
        self.make_run = make_run
        self.posted = posted
        self.autosave = Autosave()
        self.pending: Settings | None = None  # what the last job that waits will bring, while one waits
        self.tree = BranchTree(*(runs or (make_run(start),)))
        self.run.plan = plan
        self.rate = RateControl(self.settings.learning_rate)
        self.measurements = IdleMeasurements()
        self.kept = self.rate  # the rate control of the run that is there, while restarts wait
        self.goal = self.run.updates
        self.planned = max(self.length, self.run.updates)
        self.pace = Pace()
        self.nan_stop = NanStop()
        self.playing = False  # whether it trains to the planned end, not so many updates as were asked for
        self.failure: Exception | None = None
        self.failures = 0
        self.wanted_at = float("inf")  # the update after which a View is posted
        self.wanted = self.closed = self.idle = False
        self.jobs: deque[Callable[[], None]] = deque()
        self.job: Callable[[], None] | None = None
        self.tidied = 0.0
        self.thread = WorkerThread(self._take_turn, lambda: self._has_work, self._end)
        self.changed = self.thread.changed
        self.view = self._view()

    @property
    def run(self) -> Run:
        """The run that trains, of the present branch."""
        return self.tree.run

    @property
    def settings(self) -> Settings:
        """The settings that were asked for last, with the knobs in force at the next update."""
        return self.pending or self.tree.settings

    @property
    def training(self) -> bool:
        """Whether there are updates left to do."""
        return self.run.updates < self.goal

    @property
    def length(self) -> int:
        """Updates in a whole run of the present settings."""
        return self.settings.epochs * self.run.updates_per_epoch

    def play(self, updates: int | None = None, hurried: bool = False) -> None:
        """Train to the planned end, or on from it, or so many `updates`; `hurried` ones pay no heed to the pace.

        Without `updates` it stops by itself after a NaN, unless the run was broken before; see `NanStop`.
        """
        self._after_restarts(lambda: self._aim(updates, hurried))

    def pause(self) -> None:
        """Stop before the next update."""
        if not self.closed:
            self._after_restarts(self._stop)

    def choose_pace(self, pace: float | None) -> None:
        """Updates a second at most; None for as fast as it goes."""
        with self.changed:
            self.pace.limit = pace
            self.changed.notify_all()

    def want_direction(self, wanted: bool) -> None:
        """Have the cost along the sharpest direction measured while the run pauses, or not."""
        self.measurements.direction.wanted = wanted
        self.ask()

    def want_signals(self, step: int | None) -> None:
        """Have the signals of an update measured while the run pauses; None: of no one."""
        if self.measurements.signals.wanted != step:
            self.measurements.signals.wanted = step
            if step is not None:
                self.ask()

    def stop_at_nan(self, wanted: bool) -> None:
        """Have Play stop by itself after a NaN, or not."""
        self._check_open()
        with self.changed:
            self.nan_stop.choose(wanted, self.run, self.playing)

    def set(self, new: Settings) -> None:
        """Have the next update use the knobs of these settings."""
        self._check_open()
        with self.changed:
            self.measurements.turned = time.monotonic()
            plan = self.rate.change_plan(self.run.plan, self.settings.knobs, new.knobs)
            self.pending = self.pending and new
            self.run.choose(new.knobs)
            self.run.plan = plan
            self.changed.notify_all()

    def schedule(self, name: str, share: float = SHARE) -> None:
        """Have the learning rate follow a schedule from the next update to the planned end, the present one at most."""
        self._check_open()
        with self.changed:
            knobs = self.rate.choose(name, share, self.settings.knobs)
            done = self.run.updates
            left = self.planned - done if self.planned > done else self.length
            self.run.choose(knobs)
            self.run.plan = self.rate.make_plan(knobs, left, first=done + 1)
            self.changed.notify_all()

    def restart(self, new: Settings, plan: Plan = (), schedule: str | None = None) -> None:
        """Start again from update 0; if the run was training, the new one trains to its end.

        With a `schedule` if one is named, else with that of the present run.
        """
        self._check_open()
        with self.changed:
            if self.pending is None:
                self.kept = dataclasses.replace(self.rate)
            new = self.rate.restart(new, self.settings, schedule)
            chosen = dataclasses.replace(self.rate)
            self._order(lambda: self._restart(new, plan, chosen), new)

    def rewind(self, step: int) -> None:
        """Take the present branch back to where it was after an update, and pause; what came later becomes a ghost."""
        self._change_tree(lambda: self.tree.rewind(step), self.settings)

    def fork(self, step: int, new: Settings, number: int | None = None) -> None:
        """Leave a branch (None: the present one) after an update for a new one with the knobs of `new`, and pause."""
        self._change_tree(lambda: self.tree.fork(step, number), new)

    def choose_branch(self, number: int) -> None:
        """Make another branch the present one, and pause."""
        self._change_tree(lambda: self.tree.choose(number))

    def delete_branch(self, number: int) -> None:
        """Let go of a branch; if it is the present one, its parent or the oldest left takes its place."""
        self._change_tree(lambda: self.tree.delete(number))

    def adopt(self, runs: list[Run]) -> None:
        """Put a tree of runs, the present one first, in the place of what is here; it becomes a ghost."""
        self._change_tree(lambda: self.tree.begin(*runs))
        self._order(lambda: self.autosave.discard_if_kept() if self.run is runs[0] else None)

    def ask(self) -> None:
        """Have a View posted before the next update."""
        with self.changed:
            self.wanted = True
        self.thread.wake()

    def schedule_view(self, due: float) -> None:
        """Have a View posted after the update that ends nearest to a time of the monotonic clock, if there is one."""
        with self.changed:
            self.wanted_at = due

    def wait(self, timeout: float | None = None) -> bool:
        """Block until only a paused run's curvature is left to measure; False if that took over `timeout` seconds."""
        return self.thread.wait(self._is_done, timeout)

    def settle(self, timeout: float) -> bool:
        """Block until the restarts that were asked for are done; False if that took longer than `timeout` seconds."""
        return self.thread.wait(lambda: not self.jobs, timeout)

    def close(self) -> None:
        """Stop for good; the thread ends after the update that it is in."""
        with self.changed:
            self.closed = True
            self.jobs.clear()
            self.goal = 0
            self.changed.notify_all()

    def _check_open(self) -> None:
        """RuntimeError in a sentence if the worker has been closed."""
        if self.closed:
            raise RuntimeError("this lab is closed: make a new one")

    def _order(self, job: Callable[[], None], wanted: Settings | None = None) -> None:
        """Have a job done between two updates, after those that were ordered before it; it may bring settings."""
        self._check_open()
        with self.changed:
            self.pending = wanted or self.pending
            self.jobs.append(job)
        self.thread.wake()

    def _after_restarts(self, job: Callable[[], None]) -> None:
        """Do a job when the restarts that were asked for before it are done; at once if there are none."""
        self._check_open()
        with self.changed:
            if self.jobs:
                self.jobs.append(job)
            else:
                job()
        self.thread.wake()

    def _aim(self, updates: int | None, hurried: bool) -> None:
        """Set the goal so many updates ahead; None for the planned end, or a whole run more if that is reached."""
        with self.changed:
            if not self.training:
                self.pace.times.clear()
            ahead = self.planned - self.run.updates
            self.goal = self.run.updates + (updates or (ahead if ahead > 0 else self.length))
            self.planned = max(self.planned, self.goal)
            self.pace.hurried = hurried
            self.playing = updates is None
            self.nan_stop.begin(self.run, self.playing)
            self.failure = None
            self.wanted = True

    def _stop(self) -> None:
        """Make the present update the goal."""
        with self.changed:
            self.goal = self.run.updates
            self.wanted = True

    @property
    def _has_work(self) -> bool:
        """Whether the thread has more to do than to measure a paused run."""
        return bool(self.jobs or self.training or self.wanted) and not self.closed

    def _is_done(self) -> bool:
        """Whether there is nothing left to do but to measure a paused run."""
        return not self.thread.alive or (self.idle and not self._has_work and not self.closed)

    def _take_turn(self) -> bool:
        """A job, an update, a View that is wanted or a piece of measuring; False if none is left."""
        with self.changed:
            self.idle = not (self.closed or self._has_work or self.measurements.is_complete(self.run))
            if not (self.idle or self._has_work):
                return False
            if self.idle:
                self.changed.notify_all()
            self.job = job = self.jobs[0] if self.jobs else None
            wanted = self.wanted and job is None
            self.wanted = self.wanted and not wanted
        act = self._measure_when_idle if self.idle else self._update if self.training and not wanted else self._post
        with catch_all(self._fail if job is None else self._refuse):
            (job or act)()
        with self.changed:
            # Only now, so that what is asked for meanwhile comes after it; closing has emptied the queue.
            if job is not None and self.jobs:
                self._forget_pending()
                self.jobs.popleft()
                self.changed.notify_all()
            self.job = None
        return True

    def _end(self, error: BaseException) -> None:
        """Keep what has ended the thread to be shown; what was ordered is not done."""
        self.jobs.clear()
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Keep what an update has raised to be shown, and pause; the run stays as it was before that."""
        with self.changed:
            self.goal = min(self.goal, self.run.updates)
        self._refuse(error)

    def _refuse(self, error: BaseException) -> None:
        """Keep what a job has raised to be shown; the run stays as it was before that, and trains on if it did."""
        with self.changed:
            self.failure = make_raisable(error)
            self.failures += 1
            self._forget_pending()
        try:
            self.view = self._view()
        except BaseException:  # where even that cannot be had, the view before it tells
            self.view = dataclasses.replace(self.view, training=self.training, rate=0.0, error=describe_error(error))
        with contextlib.suppress(BaseException):
            self.posted(self.view)

    def _forget_pending(self) -> None:
        """Have the settings those of the run, unless a job waits that has settings of its own."""
        if self._is_last:
            self.pending = None

    @property
    def _is_last(self) -> bool:
        """Whether no job waits for the present one to be done."""
        return all(job is self.job for job in self.jobs)

    def _update(self) -> None:
        """One update, when it is due."""
        if not self._is_due():
            return
        if self.rate.schedule == SAFE:
            self._choose_safe_rate()
        began = time.monotonic()
        self.run.update()
        if self.closed:
            return
        with self.changed:
            if self.training and self.nan_stop.is_due(self.run):
                self.goal = self.run.updates
        now = time.monotonic()
        self.measurements.measure_between_updates(self.run, now - began)
        self.pace.times.append(now)
        if self.autosave.is_due(now):
            self.autosave.keep(self.tree.record, now)
        if now - self.tidied > TIDY:
            self.tidied = now
            give_back_memory()
        if not self.training or now + (now - began) / 2 > self.wanted_at:
            self._post()

    def _is_due(self) -> bool:
        """Whether the pace allows an update now; if not, sleeps until it does or something changes."""
        with self.changed:
            left = self.pace.find_wait(time.monotonic())
            has_time = left > 0 and self.measurements.has_time(self.run, left)
            if left > 0 and not has_time:
                self.changed.wait(left)
        if has_time:
            self.measurements.measure_piece(self.run)
        return left <= 0

    def _choose_safe_rate(self) -> None:
        """Take the learning rate as high as is safe for the next update."""
        tracker = self.measurements.tracker
        eigenvalue = tracker.measure(self.run)
        with self.changed:
            knobs = self.rate.find_safe_knobs(eigenvalue, self.run.knobs_in_force)
            if self.rate.schedule == SAFE and not tracker.problem:
                self.run.choose(knobs)

    def _measure_when_idle(self) -> None:
        """Measure a piece of what is not known of a paused run, and show what has been found."""
        if self.measurements.measure_when_idle(self.run):
            self._show()

    def _restart(self, new: Settings, plan: Plan, chosen: RateControl) -> None:
        """Start again with a new run; if there can be none, its schedule and peak are again those of the old one."""
        try:
            run = self.make_run(new)
            was_training = self.training
            self.tree.begin(run)
        except BaseException:
            if self._is_last:
                self.rate = dataclasses.replace(self.kept)
            raise
        with self.changed:
            self.kept, self.rate.free = chosen, True
            run.plan = plan
            if self.settings.knobs != new.knobs:
                run.choose(self.settings.knobs)
            run.plan = run.plan or self.rate.make_plan(self.settings.knobs, self.length)
            self._arrive(self.length if was_training else 0, self.length)
        self._post()

    def _change_tree(self, change: Callable[[], None], wanted: Settings | None = None) -> None:
        """Order a change of the tree, a pause, and these knobs; None for those of the branch that is then present."""

        def change_tree() -> None:
            change()
            with self.changed:
                if wanted is not None:
                    self.run.choose(self.settings.knobs)  # which may have changed since it was ordered
                self.rate.end(self.run.plan)
                self._arrive(self.run.updates, max(self.length, self.run.updates))
            self._post()

        self._order(change_tree, wanted)

    def _arrive(self, goal: int, planned: int) -> None:
        """Go on with another run, or from another past, to a goal."""
        self._forget_pending()
        self.measurements.tracker.forget()
        self.goal, self.planned = goal, planned
        self.nan_stop.begin(self.run, self.playing)
        self.failure = None
        self.pace.times.clear()

    def _post(self) -> None:
        """Measure held-out accuracy if that is due, and show the present moment."""
        if self.closed:
            return
        self.wanted_at = float("inf")
        with catch_all(self._fail):
            self.measurements.measure_held_out(self.run, self.training)
        self._show()

    def _show(self) -> None:
        """Hand over a View, and keep a run that has paused."""
        self.view = self._view()
        self.posted(self.view)
        if not self.training:
            self.autosave.keep(self.view.record, time.monotonic())

    def _view(self) -> View:
        """The present moment."""
        rate, failure = self.pace.rate if self.training else 0.0, self.failure
        return View(
            self.tree.record, self.tree.ghosts, self.settings, self.planned, self.training, rate,
            describe_error(failure) if failure else None, self.rate.schedule,
            self.measurements.forecast.find_prediction(self.run), self.measurements.tracker.problem,
            self.measurements.direction.find(self.run), self.measurements.direction.problem,
            self.measurements.signals.find(self.run), self.nan_stop.stopped,
        )  # fmt: skip
