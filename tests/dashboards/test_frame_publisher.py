"""What the pages of a lab say of their plots: frames are drawn while one of them shows the plots."""

from __future__ import annotations

import asyncio
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
    monkeypatch.setattr(frame_publisher, "UNSEEN", 0.05)
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


def test_a_page_that_falls_silent_is_gone_and_training_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GONE", "PATIENCE", "UNSEEN"):
        monkeypatch.setattr(frame_publisher, name, 0.1)

    async def drive(lab: cnnlab.Lab) -> None:
        lab.choose_pace("full")
        lab.play(100_000)
        answer(lab, page=0.1, seen=True)
        await wait_until(lambda: not lab.worker.training)

    run_lab(drive)


def test_a_page_cannot_say_that_it_has_drawn_what_was_not_sent() -> None:
    async def drive(lab: cnnlab.Lab) -> None:
        answer(lab, page=0.1, seen=True, drawn=10**9)
        assert lab.publisher.drawn_last == lab.publisher.asked

    run_lab(drive)
