"""The task on the kernel's loop that draws: it paces the frames and goes on after interrupts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cnnlab.dashboards.frame_pace import FramePace

if TYPE_CHECKING:
    from cnnlab.dashboards.lab import Lab

TEXTS = 0.25
"""Seconds between two states of the texts (header, controls, strip) while a run trains."""
UNSEEN = 1.0
"""The same while the plots are out of sight; there are no frames then."""
ASKING = 1.0
"""Seconds between two frames of which the page is asked to say that it has drawn them, while a run trains.

Each answer takes the page's main thread 30 ms, ten times as long as a frame: JupyterLab shows that the kernel is busy.
"""
LATE = 0.25
"""Seconds after which an answer is late; no more frames are sent until it comes."""
PATIENCE = 1.0
"""Seconds to wait for a browser to say that a frame is drawn, before the next is sent all the same."""
HEADLESS = 0.25
"""The same where no browser has ever answered."""
GONE = 15.0
"""Seconds without an answer to a question after which a page is taken to be closed."""
UNWATCHED = 300.0
"""Seconds of training that no page shows after which it pauses."""


class FramePublisher:
    """Draws on the loop that runs when it is made, whenever it is asked to, until it is closed."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.loop = find_running_loop()
        self.awake = asyncio.Event()
        self.drawn = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.closed = False
        self.frame = self.asked = self.drawn_last = 0
        self.browser_seen = self.told = self.asked_at = 0.0
        self.silent_since = 0.0  # when the page was asked first of what it has not answered since; 0: it owes nothing
        self.plots_seen = True
        self.unwatched = self.looked_at = 0.0  # seconds of training that no page has shown, and when they were counted
        self.sights: dict[float, tuple[bool, float]] = {}  # page -> whether its plots were seen, and when it said so
        self.pace = FramePace()
        self.start()

    def start(self) -> None:
        """Start the task that draws, if there is a loop; start it again if an interrupt ends it."""
        if self.loop is None or self.closed:
            return
        self.task = self.loop.create_task(self.publish(), name="cnnlab-publisher")
        self.task.add_done_callback(lambda task: None if self.closed or task.cancelled() else self.revive())

    def revive(self) -> None:
        """Start the task again, and have the frame that it was drawing drawn."""
        self.awake.set()
        self.start()

    def close(self) -> None:
        """End the task."""
        self.closed = True
        if self.task is not None:
            self.task.cancel()

    def call(self, action: Callable[[], None]) -> None:
        """Have something done on the kernel's loop, from any thread; nothing where there is no loop."""
        if self.loop is not None and not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.lab.attempt, action)

    def wake(self) -> None:
        """Have the newest view drawn soon (called in any thread)."""
        self.call(self.awake.set)

    def take_answer(self, answer: Any) -> None:
        """Note what a page says: the number of the last frame that it has drawn, and whether its plots are seen."""
        if not is_answer(answer):
            return
        now, self.silent_since = self.clock(), 0.0
        self.browser_seen = self.browser_seen or now
        self.drawn_last = max(self.drawn_last, min(answer["drawn"], self.asked))
        self.sights[answer["page"]] = (answer["seen"], now)
        self.sights = {page: sight for page, sight in self.sights.items() if now - sight[1] <= GONE}
        self.take_sight(any(seen for seen, _ in self.sights.values()))
        self.drawn.set()

    def take_sight(self, seen: bool) -> None:
        """Note whether the plots are on a screen; what has changed meanwhile is drawn when they are again."""
        if seen and not self.plots_seen:
            self.lab.worker.ask()
        self.plots_seen = seen

    def count_unwatched(self, training: bool) -> None:
        """Count the seconds that no page shows the training, and pause it when they are too many.

        A kernel that was busy hears of its pages late: of the time between two calls `GONE` seconds count at most.
        Where no page has ever answered, as in a script, and where a call waits for the updates, training goes on.
        """
        now = self.clock()
        passed, self.looked_at = now - (self.looked_at or now), now if training else 0.0
        if self.browser_seen and self.silent_since and now - self.silent_since > GONE:
            self.take_sight(False)
        self.unwatched = (
            self.unwatched + min(passed, GONE) if training and not (self.plots_seen or self.lab.awaited) else 0.0
        )
        if self.unwatched > UNWATCHED:
            self.unwatched = 0.0
            self.lab.pause_unwatched(UNWATCHED)

    def clock(self) -> float:
        """The loop's time in seconds."""
        return self.loop.time() if self.loop is not None else 0.0

    def describe(self) -> str:
        """How many frames are shown a second and what they take from the training, in a sentence; else nothing."""
        share = self.pace.share
        if not self.pace.shown:
            return ""
        cost = "" if share is None else f"; drawing takes {share:.0%} of the training's time"
        return f"{self.pace.shown:.0f} frames a second{cost}"

    async def publish(self) -> None:
        """Draw each view that is posted, and go on after an interrupt, which would end the kernel's loop."""
        while not self.closed:
            try:
                await self.publish_views()
            except (Exception, KeyboardInterrupt, SystemExit):
                self.awake.set()
                await asyncio.sleep(HEADLESS)

    async def publish_views(self) -> None:
        """Draw each view that is posted, and have the next one posted when it is due."""
        due = 0.0
        while not self.closed:
            await self.awake.wait()
            self.awake.clear()
            view = self.lab.view
            now = self.clock()
            if view.training and self.plots_seen:
                self.pace.note(now, self.lab.worker.run.updates, self.frame)
            else:
                self.pace.rest()
            tells = not view.training or now - self.told >= (TEXTS if self.plots_seen else UNSEEN)
            asks = not view.training or not self.browser_seen or now - self.asked_at >= ASKING
            self.told = now if tells else self.told
            if asks:
                self.asked, self.asked_at = self.asked + 1, now
                self.silent_since = self.silent_since or now
            plots = self.plots_seen or not view.training
            self.lab.draw(view, texts=tells, plots=plots, ask=self.asked if asks else 0)
            self.pace.note_drawing(self.clock() - now)
            await self.wait_for_page()
            interval = 1 / self.pace.rate if self.plots_seen else UNSEEN
            due = max(due, self.clock() - interval / 2) + interval
            self.count_unwatched(view.training)
            if view.training:
                self.lab.worker.schedule_view(due)

    async def wait_for_page(self) -> None:
        """Wait until the page keeps up; where none has ever answered, a moment."""
        if self.browser_seen and (self.drawn_last == self.asked or self.clock() - self.asked_at < LATE):
            return
        self.drawn.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.drawn.wait(), PATIENCE if self.browser_seen else HEADLESS)


def is_answer(answer: Any) -> bool:
    """Whether a page's answer tells a frame, whether the plots are seen, and which page it is."""
    if not isinstance(answer, dict):
        return False
    kinds = [type(answer.get(name)) for name in ("drawn", "seen", "page")]
    return kinds[:2] == [int, bool] and kinds[2] in (int, float)


def find_running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop of the kernel that runs this cell; None outside one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def obey_interrupt(error: BaseException, task: asyncio.Task[None] | None, awake: asyncio.Event) -> None:
    """Raise an interrupt of a cell that draws; have the task that draws do it again after one of its own."""
    if isinstance(error, KeyboardInterrupt):
        if task is None or find_running_loop() is None or asyncio.current_task() is not task:
            raise error
        awake.set()
