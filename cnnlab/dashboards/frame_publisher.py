"""The task on the kernel's loop that draws: it paces the frames and goes on after interrupts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnlab.dashboards.lab import Lab

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


class FramePublisher:
    """Draws on the loop that runs when it is made, whenever it is asked to, until it is closed."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.loop = find_running_loop()
        self.awake = asyncio.Event()
        self.drawn = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.closed = False
        self.frame = self.asked = 0
        self.browser_seen = self.answered = 0.0
        self.start()

    @property
    def asks(self) -> bool:
        """Whether the present frame asks the browser to say that it is drawn."""
        return self.frame == self.asked or self.loop is None

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

    def take_answer(self) -> None:
        """Note that a browser has drawn the last frame."""
        self.answered = self.clock()
        self.browser_seen = self.browser_seen or self.answered
        self.drawn.set()

    def clock(self) -> float:
        """The loop's time in seconds."""
        return self.loop.time() if self.loop is not None else 0.0

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
        due, prompt, training = 0.0, False, False
        while not self.closed:
            await self.awake.wait()
            self.awake.clear()
            began = self.clock()
            due = max(due, began - 0.5 / FRAMES) + 1 / FRAMES
            if not (prompt and training) or self.frame + 1 >= self.asked + ASKED:
                self.asked = self.frame + 1
                self.drawn.clear()
            view = self.lab.view
            training = view.training
            self.lab.draw(view)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.drawn.wait(), PATIENCE if self.browser_seen else HEADLESS)
            prompt = self.drawn.is_set() and self.clock() - began < 1 / FRAMES
            await asyncio.sleep(max(0.0, due - self.clock()))
            if self.browser_seen and self.clock() - self.answered > GONE:
                self.browser_seen = 0.0
                self.lab.pause()
            elif training:
                self.lab.worker.ask_for_next()


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
