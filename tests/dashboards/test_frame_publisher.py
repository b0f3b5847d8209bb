"""What the pages of a lab say of their plots: frames are drawn while one of them shows the plots."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import cnnlab
from cnnlab.dashboards import frame_publisher

SMALL: dict[str, Any] = {"channels": 2, "hidden": (4, 4), "patches": 8, "autosave": False, "learning_rate": 1e-6}


async def wait_until(condition: Callable[[], bool]) -> None:
    """Let the loop run until a condition holds; AssertionError if it does not come."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def run_lab(drive: Callable[[cnnlab.Lab], Awaitable[None]]) -> None:
    """Have a lab on a loop driven as a page would."""

    async def run() -> None:
        lab = cnnlab.Lab("question", **SMALL)
        try:
            await drive(lab)
        finally:
            lab.close()

    asyncio.run(run())


def answer(lab: cnnlab.Lab, page: float, seen: bool, drawn: int | None = None) -> None:
    """Answer as a page does."""
    number = lab.publisher.asked if drawn is None else drawn
    lab.publisher.take_answer({"drawn": number, "seen": seen, "page": page, "busy": 0.0})


def count_points(lab: cnnlab.Lab) -> int:
    """How many points the cost curve on the page has."""
    return len(next(trace for trace in lab.widgets.figure.spec["data"] if trace["name"] == "cost")["x"])


def test_plots_are_seen_while_one_of_the_pages_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drive(lab: cnnlab.Lab) -> None:
        monkeypatch.setattr(lab.publisher, "clock", lambda: now)
        now = 1.0
        answer(lab, page=0.1, seen=True)
        answer(lab, page=0.2, seen=False)
        assert lab.publisher.plots_seen
        answer(lab, page=0.1, seen=False)
        assert not lab.publisher.plots_seen
        answer(lab, page=0.2, seen=True)
        assert lab.publisher.plots_seen
        now += 2 * frame_publisher.GONE
        answer(lab, page=0.1, seen=False)
        assert not lab.publisher.plots_seen, "a page that says nothing any more is none"

    run_lab(drive)


def test_out_of_sight_no_frame_is_drawn_training_goes_on_and_back_in_sight_all_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("UNSEEN", "ASKING"):
        monkeypatch.setattr(frame_publisher, name, 0.05)
    monkeypatch.setattr(frame_publisher, "GONE", 0.5)

    async def drive(lab: cnnlab.Lab) -> None:
        lab.choose_pace("full")
        lab.play(100_000)
        answer(lab, page=0.1, seen=False)
        frames, drawn, asked = lab.publisher.frame, count_points(lab), lab.publisher.asked
        end = time.monotonic() + 3 * frame_publisher.GONE
        while time.monotonic() < end:
            answer(lab, page=0.1, seen=False)
            await asyncio.sleep(0.02)
        assert lab.publisher.frame == frames
        assert lab.worker.training
        assert lab.publisher.asked > asked + 3, "texts, and the question whether the page is there, go on"
        assert lab.widgets.header.state["step"] > drawn
        assert count_points(lab) == drawn
        answer(lab, page=0.1, seen=True)
        await wait_until(lambda: lab.publisher.frame > frames)
        assert count_points(lab) > drawn

    run_lab(drive)


def hurry(monkeypatch: pytest.MonkeyPatch, unwatched: float) -> None:
    """Have pages taken to be closed after 0.2 s, and training that none shows paused after so many seconds."""
    for name in ("PATIENCE", "UNSEEN", "ASKING"):
        monkeypatch.setattr(frame_publisher, name, 0.05)
    monkeypatch.setattr(frame_publisher, "GONE", 0.2)
    monkeypatch.setattr(frame_publisher, "UNWATCHED", unwatched)


@pytest.mark.parametrize("answers", [False, True], ids=["closed", "hidden"])
def test_training_that_no_page_shows_for_five_minutes_pauses_and_says_so(
    monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    assert frame_publisher.UNWATCHED == 300
    hurry(monkeypatch, 1.0)

    async def drive(lab: cnnlab.Lab) -> None:
        lab.choose_pace("full")
        lab.play(1_000_000)
        answer(lab, page=0.1, seen=True)
        began = time.monotonic()
        while lab.worker.training:
            assert time.monotonic() < began + 20
            if answers:
                answer(lab, page=0.1, seen=False)
            await asyncio.sleep(0.02)
        assert time.monotonic() > began + 1
        await wait_until(lambda: not lab.view.training)
        assert lab.widgets.controls.state["note"] == "paused: no page has shown this lab for 1 s; Play goes on"
        lab.play(1_000_000)
        answer(lab, page=0.1, seen=True)
        await wait_until(lambda: not lab.widgets.controls.state["note"])
        assert lab.worker.training

    run_lab(drive)


@pytest.mark.parametrize("how", ["shown", "no page", "awaited", "kernel busy"])
def test_training_goes_on_while_it_is_shown_or_awaited_or_there_never_was_a_page(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    hurry(monkeypatch, 0.5)

    async def drive(lab: cnnlab.Lab) -> None:
        lab.choose_pace("full")
        if how != "no page":
            answer(lab, page=0.1, seen=True)
        lab.play(1_000_000)
        waiting = threading.Thread(target=lambda: lab.wait(2.0))
        if how == "awaited":
            waiting.start()
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            await asyncio.sleep(0.02)
            if how == "shown":
                answer(lab, page=0.1, seen=True)
            if how == "kernel busy":
                time.sleep(0.6)
                await asyncio.sleep(0.1)  # its pages are heard later than the time is seen
                answer(lab, page=0.1, seen=True)
        assert lab.worker.training
        assert not lab.note
        lab.pause()
        if how == "awaited":
            waiting.join()

    run_lab(drive)


def test_after_a_while_in_which_nothing_was_drawn_play_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_publisher, "GONE", 0.3)
    monkeypatch.setattr(frame_publisher, "ASKING", 0.1)

    async def drive(lab: cnnlab.Lab) -> None:
        lab.choose_pace("full")
        await wait_until(lambda: not lab.worker.thread.alive)
        asked = -1
        while asked != lab.publisher.asked:  # what is measured at the start is drawn, too
            asked = lab.publisher.asked
            await asyncio.sleep(0.5)
        answer(lab, page=0.1, seen=True)
        await asyncio.sleep(3 * frame_publisher.GONE)
        assert lab.publisher.asked == asked
        lab.play(100_000)
        end = time.monotonic() + 2 * frame_publisher.GONE
        while time.monotonic() < end:
            await asyncio.sleep(0.02)
            answer(lab, page=0.1, seen=True)
        assert lab.worker.training, "a page that was not asked has not fallen silent"
        assert lab.publisher.browser_seen

    run_lab(drive)


def test_a_page_cannot_say_that_it_has_drawn_what_was_not_sent() -> None:
    async def drive(lab: cnnlab.Lab) -> None:
        answer(lab, page=0.1, seen=True, drawn=10**9)
        assert lab.publisher.drawn_last == lab.publisher.asked

    run_lab(drive)
