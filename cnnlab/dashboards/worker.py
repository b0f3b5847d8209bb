"""The thread that trains. It holds the Run, lives only while there is something to do, and knows no widgets.

Whoever shows the run asks for a `View`; the thread hands one over between two updates.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import numbers
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cnnlab.config import errors
from cnnlab.config.links import Plan
from cnnlab.config.schedules import SAFE, SCHEDULE, SHARE, rate_plan, safe_rate
from cnnlab.config.settings import Settings, written
from cnnlab.curvature.divergence import Forecast, Prediction
from cnnlab.curvature.tracker import Edge
from cnnlab.records.autosave import Autosave
from cnnlab.records.record import Record
from cnnlab.training.malloc import give_back_memory
from cnnlab.training.run import Run

GHOSTS = 3
"""How many earlier runs are kept to compare with."""
HELD_OUT_SHARE = 0.03
"""Largest share of the time that measuring held-out accuracy may take while training."""
HAND = 1.0
"""Seconds after a knob was turned in which nothing is measured between updates: more turns are likely to follow."""
HANDOVER = 1e-4
"""Seconds after which a busy thread lets another one run while a worker is there, 5 ms by Python's own choice.

An update waits that long for the interpreter at each of its operations while a frame is drawn: 4 % of the training.
"""
TIDY = 2.0
"""Seconds of training between two calls of `give_back_memory`."""
GLANCE = 1.0
"""Seconds after which whoever waits looks again: a thread that was ended from outside tells nobody."""


@dataclass(frozen=True)
class View:
    """What a dashboard shows at one moment: plain numbers and arrays."""

    record: Record
    """Of the present branch; `record.others` are the other ones."""
    ghosts: tuple[Record, ...]
    settings: Settings
    """With the knobs in force at the next update."""
    goal: int
    """The update at which the run is done, as planned; a pause does not change it."""
    training: bool
    rate: float
    """Updates a second, over the last second or so; 0 when paused."""
    error: str | None
    """What went wrong in the last update or job; None if nothing did."""
    schedule: str = "constant"
    """How the learning rate goes on; see `schedules.SCHEDULE`."""
    forecast: Prediction | None = None
    """Before the first update: whether it will diverge; None while that is not known, and later."""
    no_curvature: str = ""
    """Why the curvature cannot be measured; nothing if it can."""


class Handover:
    """Has threads take turns every `HANDOVER` seconds while there is at least one worker."""

    lock = threading.Lock()
    workers = 0
    usual = 0.0

    @classmethod
    def count(cls, change: int) -> None:
        """One worker more, or one less."""
        with cls.lock:
            if cls.workers == 0:
                cls.usual = sys.getswitchinterval()
            cls.workers += change
            sys.setswitchinterval(min(cls.usual, HANDOVER) if cls.workers else cls.usual)


class Worker:
    """Trains a run in a thread of its own, towards a goal, at a pace.

    Every method may be called from any thread. `posted` is called in the worker's thread with each View.
    """

    def __init__(
        self, make_run: Callable[[Settings], Run], start: Settings, posted: Callable[[View], None], plan: Plan = ()
    ) -> None:
        self.make_run = make_run
        self.posted = posted
        self.autosave = Autosave()
        self.run = make_run(start)
        self.run.plan = plan
        self.runs = {1: self.run}
        self.settings = start
        self.ghosts: tuple[Record, ...] = ()
        self.goal = 0
        self.planned = self.length
        self.hurried = False
        self.pace: float | None = None
        self.failure: Exception | None = None
        self.failures = 0
        self.wanted = False
        self.wanted_after: int | None = None
        self.closed = False
        self.jobs: deque[Callable[[], None]] = deque()
        self.job: Callable[[], None] | None = None
        self.changed = threading.Condition(threading.RLock())
        self.thread: threading.Thread | None = None
        self.times: deque[float] = deque(maxlen=64)
        self.held_out_due = 0.0
        self.tidied = self.turned = 0.0
        self.watching = False
        self.pondering = False
        self.edge = Edge()
        self.forecast = Forecast()
        self.schedule, self.share, self.peak, self.free = "constant", SHARE, start.learning_rate, True
        self.kept = self.schedule, self.peak
        self.shown = self.view()

    @property
    def training(self) -> bool:
        """Whether there are updates left to do."""
        return self.run.updates < self.goal

    @property
    def error(self) -> str | None:
        """What went wrong, in words; None if nothing did."""
        return None if self.failure is None else errors.told(self.failure)

    @property
    def length(self) -> int:
        """Updates in a whole run of the present settings."""
        return self.settings.epochs * self.run.updates_per_epoch

    def play(self, updates: int | None = None) -> None:
        """Train to the planned end; from there on, or for a number of `updates`, plan further ones."""
        self.check_open()
        self.after_restarts(lambda: self.aim(updates, hurried=False))

    def train(self, updates: int, hurried: bool) -> None:
        """Train so many updates from here on; `hurried` ones pay no heed to the pace."""
        self.check_open()
        self.after_restarts(lambda: self.aim(updates, hurried))

    def check_open(self) -> None:
        """RuntimeError in a sentence if the worker has been closed."""
        if self.closed:
            raise RuntimeError("this lab is closed: make a new one")

    def aim(self, updates: int | None, hurried: bool) -> None:
        """Set the goal so many updates ahead; None for the planned end, or a whole run more if that is reached."""
        with self.changed:
            if not self.training:
                self.times.clear()
            ahead = self.planned - self.run.updates
            self.goal = self.run.updates + (updates or (ahead if ahead > 0 else self.length))
            self.planned = max(self.planned, self.goal)
            self.hurried = hurried
            self.failure = None
            self.wanted = True

    def after_restarts(self, job: Callable[[], None]) -> None:
        """Do a job when the restarts that were asked for before it are done; at once if there are none."""
        with self.changed:
            if self.jobs:
                self.jobs.append(job)
            else:
                job()
        self.wake()

    def pause(self) -> None:
        """Stop before the next update."""
        self.after_restarts(self.stop)

    def stop(self) -> None:
        """Make the present update the goal."""
        with self.changed:
            self.goal = self.run.updates
            self.wanted = True

    def set_pace(self, pace: float | None) -> None:
        """Updates a second at most; None for as fast as it goes."""
        with self.changed:
            self.pace = pace
            self.changed.notify_all()

    def set_knobs(self, new: Settings) -> None:
        """Have the next update use the knobs of these settings."""
        self.check_open()
        with self.changed:
            self.turned = time.monotonic()
            by_hand = new.learning_rate != self.settings.learning_rate
            plan = () if by_hand or self.schedule in ("constant", SAFE) else self.run.plan
            self.schedule = "constant" if by_hand else self.schedule
            self.settings = new
            self.run.choose(new.knobs)
            self.run.plan = tuple(
                (first, dataclasses.replace(new.knobs, learning_rate=knobs.learning_rate)) for first, knobs in plan
            )
            self.changed.notify_all()

    def set_schedule(self, name: str, share: float = SHARE) -> None:
        """Have the learning rate follow a schedule from the next update to the planned end, the present one at most."""
        self.check_open()
        SCHEDULE.check("schedule", name)
        with self.changed:
            safe_rate(1.0, self.settings.knobs, share, free=True)
            start = self.settings.knobs
            if self.schedule not in ("constant", SAFE):
                start = dataclasses.replace(start, learning_rate=self.peak)
            self.schedule, self.share, self.peak, self.free = name, share, start.learning_rate, True
            self.run.choose(start)
            done = self.run.updates
            if name != SAFE:
                left = self.planned - done if self.planned > done else self.length
                self.run.plan = rate_plan(name, start, left, first=done + 1)
            self.settings = self.settings.replace(**dataclasses.asdict(self.run.knobs_in_force))
            self.changed.notify_all()

    def keep_safe(self) -> None:
        """Take the learning rate as high as is safe for the next update."""
        eigenvalue = self.edge.measure(self.run)
        with self.changed:
            rate = safe_rate(eigenvalue, self.run.knobs_in_force, self.share, self.free)
            self.free = False
            if self.schedule == SAFE and not self.edge.problem:
                self.settings = self.settings.replace(learning_rate=rate)
                self.run.choose(dataclasses.replace(self.run.knobs_in_force, learning_rate=rate))

    def restart(self, new: Settings, plan: Plan = (), schedule: str | None = None) -> None:
        """Start again from update 0; if the run was training, the new one trains to its end.

        With a `schedule` if one is named, else with that of the present run.
        """
        self.check_open()
        with self.changed:
            if not self.jobs:
                self.kept = self.schedule, self.peak
            self.schedule = schedule or self.schedule
            if self.schedule not in ("constant", SAFE):
                kept = new.learning_rate == self.settings.learning_rate
                self.peak = self.peak if kept else new.learning_rate
                new = new.replace(learning_rate=self.peak)
            self.settings = new
            chosen = self.schedule, self.peak
            self.order(lambda: self.begin(new, plan, chosen))

    def rewind(self, step: int) -> None:
        """Take the present branch back to where it was after an update, and pause; what came later becomes a ghost."""
        self.order(lambda: self.go_back(step))

    def fork(self, step: int, new: Settings, number: int | None = None) -> None:
        """Leave a branch (None: the present one) after an update for a new one with the knobs of `new`, and pause."""
        self.check_open()
        with self.changed:
            self.settings = new
            self.order(lambda: self.branch_off(step, number))

    def choose_branch(self, number: int) -> None:
        """Make another branch the present one, and pause."""
        self.order(lambda: self.switch(number))

    def delete_branch(self, number: int) -> None:
        """Let go of a branch; if it is the present one, its parent or the oldest left takes its place."""
        self.order(lambda: self.drop(number))

    def order(self, job: Callable[[], None]) -> None:
        """Have a job done between two updates, after those that were ordered before it."""
        self.check_open()
        with self.changed:
            self.jobs.append(job)
        self.wake()

    def ask(self) -> None:
        """Have a View posted before the next update."""
        with self.changed:
            self.wanted = True
        self.wake()

    def ask_for_next(self) -> None:
        """Have a View posted after the next update, if there is one."""
        with self.changed:
            self.wanted_after = self.run.updates

    def wait(self, timeout: float | None = None) -> bool:
        """Block until there is nothing left to do; False if that took longer than `timeout` seconds."""
        return self.wait_for(self.is_done, timeout)

    def wait_for(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Block until a condition holds or no thread is there that could bring it about; False if it does not hold."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        with self.changed:
            while not condition() and self.alive and (left := end - time.monotonic()) > 0:
                self.changed.wait(min(left, GLANCE))
            return condition()

    @property
    def alive(self) -> bool:
        """Whether there is a thread."""
        thread = self.thread
        return thread is not None and thread.is_alive()

    def is_done(self) -> bool:
        """Whether there is nothing left to do but to measure the curvature of a paused run."""
        at_rest = self.pondering and not (self.closed or self.jobs or self.training or self.wanted)
        return not self.alive or at_rest

    def settle(self, timeout: float) -> bool:
        """Block until the restarts that were asked for are done; False if that took longer than `timeout` seconds."""
        return self.wait_for(lambda: not self.jobs, timeout)

    def close(self) -> None:
        """Stop for good; the thread ends after the update that it is in."""
        with self.changed:
            self.closed = True
            self.jobs.clear()
            self.goal = 0
            self.changed.notify_all()

    def wake(self) -> None:
        """Make sure that a thread is there to do what there is to do."""
        with self.changed:
            self.changed.notify_all()
            if not self.alive and not self.closed:
                thread = threading.Thread(target=self.work, name="cnnlab-worker", daemon=True)
                thread.start()
                self.thread = thread

    def work(self) -> None:
        """What the thread does: one turn after another, until there is nothing left to do."""
        Handover.count(+1)
        try:
            while self.take_turn():
                pass
        except BaseException as error:  # sent to the thread from outside, for a turn lets nothing out
            with self.changed:
                if self.thread is threading.current_thread():
                    self.jobs.clear()
                    self.fail(error)
                    self.end()

    def end(self) -> None:
        """Have it known that the thread ends."""
        Handover.count(-1)
        self.thread = None
        self.changed.notify_all()

    def take_turn(self) -> bool:
        """A job, an update, a View that is wanted or a piece of measuring; False if none is left, and the end."""
        with self.changed:
            asked = bool(self.jobs or self.training or self.wanted)
            self.pondering = not (asked or self.closed or self.knows())
            if self.closed or not (asked or self.pondering):
                self.end()
                return False
            if self.pondering:
                self.changed.notify_all()
            self.job = job = self.jobs[0] if self.jobs else None
            wanted = self.wanted and job is None
            self.wanted = self.wanted and not wanted
        act = self.ponder if self.pondering else self.update if self.training and not wanted else self.post
        with errors.shown(self.fail if job is None else self.refuse):
            (job or act)()
        with self.changed:
            # Only now, so that what is asked for meanwhile comes after it; closing has emptied the queue.
            self.job = None
            if job is not None and self.jobs:
                self.jobs.popleft()
                self.adjust_settings()
                self.changed.notify_all()
        return True

    def fail(self, error: BaseException) -> None:
        """Keep what an update has raised to be shown, and pause; the run stays as it was before that."""
        with self.changed:
            self.goal = min(self.goal, self.run.updates)
        self.refuse(error)

    def refuse(self, error: BaseException) -> None:
        """Keep what a job has raised to be shown; the run stays as it was before that, and trains on if it did."""
        with self.changed:
            self.failure = errors.raisable(error)
            self.failures += 1
            self.adjust_settings()
        try:
            self.view()
        except BaseException:  # where even that cannot be had, the view before it tells
            self.shown = dataclasses.replace(self.shown, training=self.training, rate=0.0, error=self.error)
        with contextlib.suppress(BaseException):
            self.posted(self.shown)

    @property
    def settings_of_run(self) -> Settings:
        """The settings of the present run, with the knobs in force at its next update."""
        return self.run.settings.replace(**dataclasses.asdict(self.run.knobs_in_force))

    @property
    def is_last(self) -> bool:
        """Whether no job waits for the present one to be done."""
        return all(job is self.job for job in self.jobs)

    def adjust_settings(self) -> None:
        """Have the settings those of the run, unless a job waits that has settings of its own."""
        if self.is_last:
            self.settings = self.settings_of_run

    def update(self) -> None:
        """One update, when it is due."""
        if not self.is_due():
            return
        if self.schedule == SAFE:
            self.keep_safe()
        began = time.monotonic()
        self.run.update()
        if self.closed:
            return
        self.follow_plan()
        now = time.monotonic()
        if self.watching:
            self.edge.earn(now - began)
            if now > self.turned + HAND:
                self.measure(self.edge.spend)
        self.times.append(now)
        if self.autosave.is_due(now):
            self.autosave.keep(self.tree(), now)
        if now - self.tidied > TIDY:
            self.tidied = now
            give_back_memory()
        after = self.wanted_after
        if not self.training or (after is not None and self.run.updates > after):
            self.post()

    def follow_plan(self) -> None:
        """Show the knobs that a plan brings into force at the next update."""
        with self.changed:
            if not self.jobs and any(first == self.run.updates + 1 for first, _ in self.run.plan):
                self.settings = self.settings.replace(**dataclasses.asdict(self.run.knobs_in_force))

    def is_due(self) -> bool:
        """Whether the pace allows an update now; if not, sleeps until it does or something changes."""
        with self.changed:
            if self.pace is None or self.hurried or not self.times:
                return True
            left = self.times[-1] + 1 / self.pace - time.monotonic()
            idle = self.watching and left > 1.5 * self.edge.took and not self.edge.knows(self.run)
            if left > 0 and not idle:
                self.changed.wait(left)
        if idle:
            self.measure(self.edge.piece)
        return left <= 0

    def measure(self, piece: Callable[[Run], None]) -> None:
        """Have a piece measured. What cannot be measured is told by who measures, and training goes on."""
        with contextlib.suppress(BaseException):
            piece(self.run)

    def knows(self) -> bool:
        """Whether all is known of a paused run that can be: its curvature, and at its start how it will end."""
        if not self.watching:
            return True
        with contextlib.suppress(Exception):
            return self.edge.knows(self.run) and (self.run.updates > 0 or self.forecast.knows(self.run))
        return True  # of a run that cannot be read nothing can be measured

    def ponder(self) -> None:
        """Measure a piece of what is not known of a paused run, and show what has been found."""
        if not self.edge.knows(self.run):
            self.measure(self.edge.at_rest)
            found = self.edge.knows(self.run)
        else:
            self.measure(self.forecast.piece)
            found = self.forecast.knows(self.run)
        if found:
            view = self.view()
            self.posted(view)
            self.autosave.keep(view.record, time.monotonic())

    def begin(self, new: Settings, plan: Plan, chosen: tuple[str, float]) -> None:
        """Start again with a new run; the old one becomes a ghost if it trained at all.

        `chosen`: schedule and peak; if there is no new run they are again those of the old one.
        """
        try:
            run, record = self.make_run(new), self.run.record
        except BaseException:
            if self.is_last:
                self.schedule, self.peak = self.kept
            raise
        with self.changed:
            self.kept = chosen
            was_training = self.training
            self.free = True
            if len(record):
                self.ghosts = (record, *self.ghosts)[:GHOSTS]
            run.plan = plan
            if self.settings.knobs != new.knobs:
                run.choose(self.settings.knobs)
            self.edge.forget()
            self.run = run
            self.runs = {1: run}
            self.planned = self.length
            if not run.plan and self.schedule not in ("constant", SAFE):
                run.plan = rate_plan(self.schedule, self.settings, self.length)
                self.settings = self.settings.replace(**dataclasses.asdict(run.knobs_in_force))
            self.goal = self.planned if was_training else 0
            self.failure = None
            self.times.clear()
        self.post()

    def go_back(self, step: int) -> None:
        """What `rewind` orders."""
        record = self.run.record
        self.run.rewind(step)
        self.run.choose(self.settings.knobs)
        self.ghosts = (record, *self.ghosts)[:GHOSTS]
        self.settled()

    def branch_off(self, step: int, number: int | None) -> None:
        """What `fork` orders."""
        parent = self.run if number is None else self.run_of(number)
        twin = parent.fork(step)
        parent.choose(parent.knobs_in_force)
        twin.choose(self.settings.knobs)
        self.runs[twin.branch.number] = twin
        self.run = twin
        self.settled()

    def switch(self, number: int) -> None:
        """What `choose_branch` orders."""
        self.run = self.run_of(number)
        self.settings = self.settings_of_run
        self.settled()

    def drop(self, number: int) -> None:
        """What `delete_branch` orders."""
        gone = self.run_of(number)
        if len(self.runs) == 1:
            raise ValueError(f"branch {number} is the only one left: it stays")
        del self.runs[number]
        if gone is self.run:
            parent = gone.branch.parent
            self.switch(parent if parent in self.runs else min(self.runs))
        else:
            self.settled()

    def run_of(self, number: Any) -> Run:
        """The run of a branch by its number; ValueError in a sentence if there is none such."""
        runs = dict(self.runs)
        if isinstance(number, bool) or not isinstance(number, numbers.Integral) or number not in runs:
            raise ValueError(f"branch must be one of {', '.join(map(str, runs))}, got {written(number)}")
        return runs[int(number)]

    def settled(self) -> None:
        """Pause at the present update of the present branch, and show it."""
        with self.changed:
            self.edge.forget()
            self.schedule = "constant" if not self.run.plan and self.schedule != SAFE else self.schedule
            self.planned = max(self.length, self.run.updates)
            self.goal = self.run.updates
            self.failure = None
            self.times.clear()
        self.post()

    def post(self) -> None:
        """Measure held-out accuracy if that is due, and hand over a View."""
        if self.closed:
            return
        self.wanted_after = None
        now = time.monotonic()
        if not self.training or now >= max(self.held_out_due, self.turned + HAND):
            with errors.shown(self.fail):
                self.run.measure_held_out()
            spent = time.monotonic() - now
            self.held_out_due = now + spent / HELD_OUT_SHARE
        view = self.view()
        self.posted(view)
        if not self.training:
            self.autosave.keep(view.record, time.monotonic())

    def adopt(self, runs: list[Run]) -> None:
        """Put a tree of runs, the present one first, in the place of what is here; it becomes a ghost."""
        self.order(lambda: self.take_in(runs))

    def take_in(self, runs: list[Run]) -> None:
        """What `adopt` orders."""
        record = self.run.record
        if len(record):
            self.ghosts = (record, *self.ghosts)[:GHOSTS]
        self.run = runs[0]
        self.runs = {run.branch.number: run for run in sorted(runs, key=lambda run: run.branch.number)}
        self.settings = self.settings_of_run
        self.settled()
        self.autosave.discard_if_kept()

    def tree(self) -> Record:
        """The present branch's record with those of the other branches."""
        others = tuple(run.record for run in self.runs.values() if run is not self.run)
        return dataclasses.replace(self.run.record, others=others)

    def view(self) -> View:
        """The present moment."""
        self.shown = View(
            self.tree(), self.ghosts, self.settings, self.planned, self.training, self.rate(),
            self.error, self.schedule, self.forecast.found(self.run), self.edge.problem,
        )  # fmt: skip
        return self.shown

    def rate(self) -> float:
        """Updates a second over the last 64 updates."""
        if not self.training or len(self.times) < 2:
            return 0.0
        return (len(self.times) - 1) / max(self.times[-1] - self.times[0], 1e-9)
