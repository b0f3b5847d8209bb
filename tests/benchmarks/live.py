"""The live loop in a real JupyterLab in headless chromium, training at full speed: latency, frames, slowing, memory.

python tests/benchmarks/live.py [--moves 80] [--write]

Sliders are moved by real key presses and stamped by the page's clock as the input event happens; updates are stamped in
the kernel as they begin and end. --write keeps the table in tests/benchmarks/results/live.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "browser"))
from jupyter_page import Jupyter, Lab, Notebook, launched, until

RESULTS = Path(__file__).parent / "results" / "live.md"
PACKAGES = ("torch", "plotly", "anywidget", "ipywidgets", "ipykernel", "jupyterlab")
BLOCK = 4.0
"""Seconds of a block of watched or of unwatched training."""
PRELUDE = '''
import functools, gc, time
import psutil
import cnnlab
process = psutil.Process()

def resident():
    """MiB of this kernel."""
    gc.collect()
    return process.memory_info().rss / 2**20
'''
LAB = 'lab = cnnlab.Lab("question", learning_rate=1e-5, epochs=100_000); lab.choose_pace("full")'
SPIES = '''
from cnnlab.dashboards import lab_widgets
from cnnlab.training.run import Run
began_with, frames, refreshes, last = [], [], [], [None]
update, draw, refresh = Run.update, type(lab).draw, lab_widgets.refresh_dashboard

@functools.wraps(update)
def stamped(self):
    """An update that notes when it began and ended with knobs that were not in force before."""
    start = time.time()
    update(self)
    if self.prepared[0] is not last[0]:
        last[0] = self.prepared[0]
        began_with.append((start, time.time(), last[0].learning_rate))

def timed(function, times):
    """The same, noting wall and processor time of each call in milliseconds."""
    @functools.wraps(function)
    def call(*arguments, **keywords):
        wall, own = time.perf_counter(), time.thread_time()
        try:
            return function(*arguments, **keywords)
        finally:
            times.append(((time.perf_counter() - wall) * 1e3, (time.thread_time() - own) * 1e3))
    return call

Run.update = stamped
type(lab).draw = timed(draw, frames)
lab_widgets.refresh_dashboard = timed(refresh, refreshes)
ask_for_next = lab.worker.ask_for_next
'''
LISTEN = """() => {
    window.moves = [];
    document.addEventListener("keydown", (event) => (window.pressed = event.timeStamp), true);
    document.addEventListener("input", (event) => {
        const at = performance.timeOrigin + performance.now();
        const pressed = performance.timeOrigin + window.pressed;
        setTimeout(() => window.moves.push([pressed, at, Number(event.target.nextElementSibling.value)]), 0);
    }, true);
}"""
FIRST_FIGURE = """() => new Promise((resolve) => {
    const start = performance.now();
    window.jupyterapp.commands.execute("notebook:run-cell");
    const look = () => {
        const graph = document.querySelector(".jp-Notebook .cnnlab-lab .js-plotly-plot");
        const there = graph?._fullLayout && graph.querySelector(".scatterlayer path") && graph.clientWidth > 0;
        there ? requestAnimationFrame(() => resolve(performance.now() - start)) : requestAnimationFrame(look);
    };
    look();
})"""
ROUND_TRIP = """async () => {
    const start = performance.now();
    await window.jupyterapp.commands.execute("notebook:run-cell");
    return performance.now() - start;
}"""


def main() -> None:
    """Measure, print, and keep the table if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=80, help="slider moves (default: 80)")
    parser.add_argument("--blocks", type=int, default=6, help="pairs of watched and unwatched blocks (default: 6)")
    parser.add_argument("--write", action="store_true", help="keep the table in tests/benchmarks/results/live.md")
    given = parser.parse_args()
    with open_lab() as (notebook, first_figure):
        lab = Lab(notebook, 2)
        lab.wait_for_figure()
        notebook.do(SPIES)
        lab.press("Play")
        lab.wait_for_update(100)
        early = notebook.value("resident()")
        rows = [
            *latency(notebook, lab, given.moves),
            *frames(notebook, 15),
            watching(notebook, given.blocks),
            *other_cells(notebook, 15),
            *memory(notebook, early, first_figure),
        ]
        assert notebook.value("lab.problem, lab.worker.view.error, lab.record.first_nonfinite") == ("", None, None)
        browser = f"chromium {notebook.browser.version}"
    table = written(rows, browser)
    print(table)
    if given.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(table + "\n", encoding="utf-8")


@contextmanager
def open_lab() -> Iterator[tuple[Notebook, float]]:
    """A notebook whose third cell has made a lab, and the milliseconds from running it to its first figure."""
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        jupyter = Jupyter(Path(home))
        browser = launched(playwright)
        try:
            notebook = Notebook(jupyter, browser, "live", [PRELUDE, "1 + 1", LAB])
            notebook.run(0)
            notebook.edit(2)
            yield notebook, notebook.page.evaluate(FIRST_FIGURE)
        finally:
            browser.close()
            jupyter.close()


def latency(notebook: Notebook, lab: Lab, moves: int) -> list[tuple[str, str, str]]:
    """From the input event of a moved slider to the first update with its value."""
    draw = random.Random(1)
    slider = lab.slider("Learning rate")
    slider.focus()
    notebook.page.evaluate(LISTEN)
    notebook.do("began_with.clear()")
    for move in range(moves):
        notebook.page.keyboard.press("ArrowRight" if move % 2 else "ArrowLeft")
        time.sleep(draw.uniform(0.15, 0.9))
    done = notebook.page.evaluate("window.moves")
    assert len(done) == moves
    until(lambda: notebook.value("began_with[-1][2]") == done[-1][2], "the last move to arrive")
    seen = notebook.value("began_with")
    found = [(pressed, at, *first_update(seen, at, value)) for pressed, at, value in done]
    return [
        (
            f"slider moved to the first update computed with the new value, {moves} moves",
            spread([began * 1e3 - at for _, at, began, _ in found]),
            "<= 30, p95 <= 100",
        ),
        ("the same, until that update is done", spread([ended * 1e3 - at for _, at, _, ended in found]), ""),
        (
            "the same, from the key being pressed, however busy the page",
            spread([began * 1e3 - pressed for pressed, _, began, _ in found]),
            "",
        ),
    ]


def first_update(seen: list[tuple[float, float, float]], moved: float, value: float) -> tuple[float, float]:
    """Begin and end of the first update with a value that ended after the slider moved to it."""
    return next((began, ended) for began, ended, used in seen if ended * 1e3 > moved and used == value)


def spread(milliseconds: list[float]) -> str:
    """Median, p90, p95 and largest."""
    ordered = sorted(milliseconds)
    cut = statistics.quantiles(ordered, n=20, method="inclusive")
    return (
        f"median {statistics.median(ordered):.0f} ms, p90 {cut[17]:.0f}, p95 {cut[18]:.0f}, largest {ordered[-1]:.0f}"
    )


def frames(notebook: Notebook, seconds: float) -> list[tuple[str, str, str]]:
    """Frames on the screen in which the plots are new ones, and what each costs."""
    session = notebook.page.context.new_cdp_session(notebook.page)
    session.send("Performance.enable")
    notebook.page.evaluate(
        """() => {
            Object.assign(window, { shown: 0, whole: 0, coming: false });
            const graph = document.querySelector(".js-plotly-plot");
            graph.on("plotly_afterplot", () => (window.whole += 1));
            const changed = () => {
                if (window.coming) return;
                window.coming = true;
                requestAnimationFrame(() => Object.assign(window, { shown: window.shown + 1, coming: false }));
            };
            const path = { subtree: true, attributes: true, attributeFilter: ["d"], childList: true };
            new MutationObserver(changed).observe(graph.querySelector(".scatterlayer"), path);
        }"""
    )
    busy = task_seconds(session)
    notebook.do("frames.clear(); refreshes.clear()")
    before, start = notebook.page.evaluate("[window.shown, window.whole]"), time.monotonic()
    time.sleep(seconds)
    after, took = notebook.page.evaluate("[window.shown, window.whole]"), time.monotonic() - start
    busy = task_seconds(session) - busy
    drawn, refreshed = notebook.value("list(frames), list(refreshes)")
    shown, whole = (late - early for late, early in zip(after, before, strict=True))
    said = f"{shown / took:.1f} ({whole / took:.1f} of them drawn whole, axes and all)"
    return [
        ("frames drawn a second, all plots", said, ">= 8"),
        ("kernel's time a frame: processor, wall (the worker holds the GIL, too)", middle(drawn), ""),
        ("of which the plots (refresh_dashboard)", middle(refreshed), ""),
        ("browser's main thread a frame", f"{busy / max(shown, 1) * 1e3:.0f} ms", "< 60 ms"),
    ]


def task_seconds(session: Any) -> float:
    """Seconds that the page's main thread has been busy."""
    found = session.send("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in found if metric["name"] == "TaskDuration")


def middle(times: list[tuple[float, float]]) -> str:
    """Medians of processor and wall time."""
    wall, own = zip(*times, strict=True)
    return f"{statistics.median(own):.1f} ms, {statistics.median(wall):.1f} ms"


def watching(notebook: Notebook, pairs: int) -> tuple[str, str, str]:
    """How much slower training is while it is drawn: the same run and thread, in turns with and without drawing."""
    rates: list[tuple[float, float]] = []
    for pair in range(pairs):
        found = {}
        for watched in (True, False) if pair % 2 else (False, True):
            notebook.do(
                "lab.worker.ask_for_next = ask_for_next; lab.worker.ask()"
                if watched
                else "lab.worker.ask_for_next = lambda: None"
            )
            time.sleep(0.7)
            before, start = notebook.value("lab.worker.run.updates, time.time()")
            time.sleep(BLOCK)
            after, end = notebook.value("lab.worker.run.updates, time.time()")
            found[watched] = (after - before) / (end - start)
        rates.append((found[True], found[False]))
    notebook.do("lab.worker.ask_for_next = ask_for_next; lab.worker.ask()")
    slower = statistics.median(1 - watched / alone for watched, alone in rates)
    watched, alone = (statistics.median(column) for column in zip(*rates, strict=True))
    said = f"{slower:.0%} slower ({watched:.1f} against {alone:.1f} updates a second)"
    return f"training while watched, {pairs} pairs of blocks", said, "<= 20 %"


def other_cells(notebook: Notebook, count: int) -> list[tuple[str, str, str]]:
    """Round trip of another cell while training: in the page, and by the kernel alone."""
    notebook.edit(1)
    page, kernel = [], []
    for _ in range(count):
        page.append(notebook.page.evaluate(ROUND_TRIP))
        time.sleep(0.2)
        start = time.monotonic()
        notebook.value("1 + 1")
        kernel.append((time.monotonic() - start) * 1e3)
    said = (f"median {statistics.median(times):.0f} ms, largest {max(times):.0f}" for times in (page, kernel))
    return [
        (f"another cell, run in the page while training, {count} times", next(said), "<= 300 ms"),
        ("the same without the page", next(said), ""),
    ]


def memory(notebook: Notebook, early: float, first_figure: float) -> list[tuple[str, str, str]]:
    """Memory of the kernel with one lab playing, after as many updates as a preset has and now; and with later ones."""
    playing, updates = notebook.value("resident(), lab.worker.run.updates")
    notebook.do("Run.update = update; type(lab).draw = draw; lab_widgets.refresh_dashboard = refresh; del ask_for_next")
    after = []
    for _ in range(2):
        lab = notebook.lab(index=2)
        lab.press("Play")
        lab.wait_for_update(50)
        after.append(notebook.value("resident()"))
    return [
        ("kernel's memory with a lab playing, after 100 updates", f"{early:.0f} MiB", "<= 450 MiB"),
        (f"the same after {updates:,}, the states to rewind to in files", f"{playing:.0f} MiB", "<= 450 MiB"),
        ("added by a second execution of the cell, by a third", f"{after[0] - playing:+.0f}, {after[1] - after[0]:+.0f}"
         " MiB", ""),
        ("cell started to first figure on screen, torch not yet imported", f"{first_figure / 1e3:.1f} s", ""),
    ]  # fmt: skip


def written(rows: list[tuple[str, str, str]], browser: str) -> str:
    """The table in Markdown, with what it was measured on."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        "# The live loop", "",
        f"`python tests/benchmarks/live.py`, {time.strftime('%Y-%m-%d')}: {cores} cores ({platform.machine()}) for "
        f"server, kernel and browser together, Python {platform.python_version()}, {versions}, {browser} (headless). "
        'The run: `Lab("question", learning_rate=1e-5, epochs=100_000)` at full speed.', "",
        "| | measured | to reach |", "|---|---|---|",
        *(f"| {what} | {found} | {wanted} |" for what, found, wanted in rows),
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
