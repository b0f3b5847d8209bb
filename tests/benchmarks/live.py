"""The live loop in a real JupyterLab in headless chromium, training at full speed: frames, slowing, latency, memory.

python tests/benchmarks/live.py [--against FOLDER] [--minutes 10] [--moves 80] [--write]

Server, kernel and browser share the cores. --against names a checkout of another version, which is measured by turns
in the same run. Sliders are moved by real key presses and stamped by the page's clock; updates are stamped in the
kernel as they begin and end. --write keeps the table in tests/benchmarks/results/live.md.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
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

from playwright.sync_api import Playwright, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "browser"))
from jupyter_page import Jupyter, Lab, Notebook, launched, until

ROOT = Path(__file__).parents[2]
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
SETTLE = 20.0
"""Seconds in which a lab finds its own pace, before that is measured."""
LATE = 5000
"""The update at which bytes and memory are measured again."""
SMALL = (
    'lab = cnnlab.Lab("question", channels=2, hidden=(4, 4), patch_size=13, patches=8, learning_rate=1e-5, '
    'epochs=1_000_000); lab.choose_pace("full")'
)
SPIES = '''
from cnnlab.training.run import Run
began_with, draws, last = [], [], [None]
update, draw = Run.update, type(lab).draw

@functools.wraps(update)
def stamped(self):
    """An update that notes when it began and ended with knobs that were not in force before."""
    start = time.time()
    update(self)
    if self.prepared[0] is not last[0]:
        last[0] = self.prepared[0]
        began_with.append((start, time.time(), last[0].learning_rate))

@functools.wraps(draw)
def timed(self, *arguments, **keywords):
    """Draw, noting wall and processor time in milliseconds."""
    wall, own = time.perf_counter(), time.thread_time()
    try:
        return draw(self, *arguments, **keywords)
    finally:
        draws.append(((time.perf_counter() - wall) * 1e3, (time.thread_time() - own) * 1e3))

Run.update = stamped
type(lab).draw = timed

asks = "schedule_view" if hasattr(lab.worker, "schedule_view") else "ask_for_next"
ask = getattr(lab.worker, asks)
pace = type(getattr(lab.publisher, "pace", None))
rate, note = getattr(pace, "rate", None), getattr(pace, "note", None)

def watch(frames=None):
    """Show so many frames a second (None: as it does by itself; 0: none); its own pace learns nothing of the rest."""
    if hasattr(lab.publisher, "pace"):
        lab.publisher.pace.rest()
        type(lab.publisher.pace).note = note if frames is None else lambda *_: None
    setattr(lab.worker, asks, ask if frames != 0 else lambda *_: None)
    if asks == "schedule_view":
        type(lab.publisher.pace).rate = property(lambda _pace: frames) if frames else rate
    lab.worker.ask()
'''
LEAVE = "Run.update = update; type(lab).draw = draw; ask = pace = None"
"""What takes the spies away, so that a lab can be closed and another one watched."""
LISTEN = """() => {
    window.moves = [];
    document.addEventListener("keydown", (event) => (window.pressed = event.timeStamp), true);
    document.addEventListener("input", (event) => {
        const at = performance.timeOrigin + performance.now();
        const pressed = performance.timeOrigin + window.pressed;
        const box = event.target.parentElement.querySelector("input[type=text]");
        if (box) setTimeout(() => window.moves.push([pressed, at, Number(box.value)]), 0);
    }, true);
}"""
COUNT = """() => {
    Object.assign(window, { shown: 0, coming: false });
    const changed = () => {
        if (window.coming) return;
        window.coming = true;
        requestAnimationFrame(() => Object.assign(window, { shown: window.shown + 1, coming: false }));
    };
    const clear = CanvasRenderingContext2D.prototype.clearRect;
    CanvasRenderingContext2D.prototype.clearRect = function (...box) {
        changed();
        return clear.apply(this, box);
    };
    const path = { subtree: true, attributes: true, attributeFilter: ["d"], childList: true };
    new MutationObserver(changed).observe(document.querySelector(".js-plotly-plot"), path);
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
Row = tuple[str, str, str]
"""What, measured, to reach."""


class Rows(list[Row]):
    """Rows that are printed as they come."""

    def __iadd__(self, rows: Any) -> Rows:  # type: ignore[override, misc]
        for row in rows:
            print(*row, sep=": ", flush=True)
            self.append(row)
        return self


def main() -> None:
    """Measure, print, and keep the table if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="a checkout of another version, measured by turns")
    parser.add_argument("--minutes", type=float, default=0.0, help="minutes over which the page's heap is watched")
    parser.add_argument("--moves", type=int, default=80, help="slider moves (default: 80)")
    parser.add_argument("--blocks", type=int, default=6, help="rounds of watched and unwatched blocks (default: 6)")
    parser.add_argument("--write", action="store_true", help="keep the table in tests/benchmarks/results/live.md")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        other = stack.enter_context(open_lab(playwright, given.against)) if given.against else None
        if other is not None:
            other.play(100)
            other.pause()
        live = stack.enter_context(open_lab(playwright, ROOT))
        live.play(60)
        rows = Rows()
        rows += [
            ("cell started to first figure on screen, torch not yet imported", tell_both(live, other, "first_figure"),
             "<= 2.5 s"),
        ]  # fmt: skip
        rows += compare_frames(live, other, given.blocks)
        rows += measure_latency(live, given.moves)
        rows += measure_other_cells(live, 15)
        rows += [measure_sight(live, given.blocks)]
        if given.minutes:
            rows += [measure_heap(live, given.minutes)]
        rows += measure_small(live, given.blocks)
        live.pause()
        with open_lab(playwright, ROOT) as fresh:
            rows += measure_memory(fresh)
        assert live.notebook.value("lab.problem, lab.worker.view.error, lab.record.first_nonfinite") == ("", None, None)
        assert not live.notebook.errors, live.notebook.errors
        table = write_table(rows, f"chromium {live.notebook.browser.version}", given.against is not None)
    print(table)
    if given.write:
        RESULTS.write_text(table + "\n", encoding="utf-8")


class Live:
    """A notebook whose third cell has made a lab, of one version of cnnlab."""

    def __init__(self, notebook: Notebook, first_figure: float) -> None:
        self.notebook, self.page = notebook, notebook.page
        self.first_figure = f"{first_figure / 1e3:.1f} s"
        self.lab = Lab(notebook, 2)
        self.lab.wait_for_figure()
        notebook.do(SPIES)
        self.session: Any = self.page.context.new_cdp_session(self.page)
        self.session.send("Performance.enable")
        self.page.evaluate(COUNT)

    def play(self, update: int = 0) -> None:
        """Train, and wait until so many updates are done."""
        self.lab.press("Play")
        self.lab.wait_for_update(update)

    def pause(self) -> None:
        """Stop training."""
        self.notebook.do("lab.pause(); lab.wait()")

    def read_metric(self, name: str) -> float:
        """One of the page's performance metrics."""
        found = self.session.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in found if metric["name"] == name))

    def measure_block(self, frames: float | None) -> dict[str, float]:
        """A block of training with so many frames a second: updates and frames a second, share of the main thread."""
        self.notebook.do(f"watch({frames})")
        time.sleep(1.0)
        self.notebook.do("draws.clear()")
        busy, shown = self.read_metric("TaskDuration"), self.page.evaluate("window.shown")
        done, start = self.notebook.value("lab.worker.run.updates, time.time()")
        time.sleep(BLOCK)
        after, end = self.notebook.value("lab.worker.run.updates, time.time()")
        took = end - start
        drawn = self.notebook.value("list(draws)") or [(0.0, 0.0)]
        wall, own = (statistics.median(column) for column in zip(*drawn, strict=True))
        return {
            "updates": (after - done) / took,
            "frames": (self.page.evaluate("window.shown") - shown) / took,
            "busy": (self.read_metric("TaskDuration") - busy) / took,
            "wall": wall, "own": own,
        }  # fmt: skip

    def count_bytes(self, seconds: float) -> tuple[float, float]:
        """Bytes and messages that the page receives for each frame that it shows."""
        sizes: list[int] = []

        def note(event: Any) -> None:
            payload = event["response"]["payloadData"]
            sizes.append(len(base64.b64decode(payload)) if event["response"]["opcode"] == 2 else len(payload))

        self.session.on("Network.webSocketFrameReceived", note)
        self.session.send("Network.enable")
        shown = self.page.evaluate("window.shown")
        self.page.wait_for_timeout(seconds * 1e3)
        frames = max(self.page.evaluate("window.shown") - shown, 1)
        self.session.send("Network.disable")
        self.session.remove_listener("Network.webSocketFrameReceived", note)
        return sum(sizes) / frames, len(sizes) / frames


@contextmanager
def open_lab(playwright: Playwright, root: Path) -> Iterator[Live]:
    """A lab of a checkout, in a JupyterLab and a browser of its own."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["PYTHONPATH"] = str(root.resolve())
        jupyter = Jupyter(Path(home))
        browser = launched(playwright)
        try:
            notebook = Notebook(jupyter, browser, "live", [PRELUDE, "1 + 1", LAB])
            notebook.run(0)
            assert notebook.value("cnnlab.__file__").startswith(str(root.resolve()))
            notebook.edit(2)
            yield Live(notebook, notebook.page.evaluate(FIRST_FIGURE))
        finally:
            browser.close()
            jupyter.close()


def tell_both(live: Live, other: Live | None, name: str) -> str:
    """What was measured of this version, and of the other one."""
    return getattr(live, name) + (f" ({getattr(other, name)})" if other else "")


def compare_frames(live: Live, other: Live | None, rounds: int) -> list[Row]:
    """Frames a second, and what they take from the training, by turns."""
    asked: dict[str, float | None] = {"at its own pace": None, "21 asked": 21.0, "10 asked": 10.0}
    found: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {}
    time.sleep(SETTLE)
    for _ in range(rounds):
        for name, frames in asked.items():
            found.setdefault(name, []).append((live.measure_block(frames), live.measure_block(0)))
        if other is not None:
            live.pause()
            other.play()
            found.setdefault("the other version", []).append((other.measure_block(None), other.measure_block(0)))
            other.pause()
            live.play()
    live.notebook.do("watch(None)")
    wanted = {"at its own pace": ">= 8 frames, <= 12 %", "21 asked": ">= 20, as the other; thread <= 30 %",
              "10 asked": "half of the other's"}  # fmt: skip
    return [(f"frames {name}", describe_blocks(blocks), wanted.get(name, "")) for name, blocks in found.items()]


def describe_blocks(blocks: list[tuple[dict[str, float], dict[str, float]]]) -> str:
    """Medians over pairs of watched and unwatched blocks."""
    slower = statistics.median(1 - watched["updates"] / alone["updates"] for watched, alone in blocks)
    middle = {name: statistics.median(watched[name] for watched, _ in blocks) for name in blocks[0][0]}
    alone = statistics.median(block["updates"] for _, block in blocks)
    return (
        f"{middle['frames']:.1f} a second; training {slower:.0%} slower ({middle['updates']:.1f} against {alone:.1f} "
        f"updates a second); page's main thread {middle['busy']:.0%}; kernel {middle['own']:.1f} ms a frame, wall "
        f"{middle['wall']:.1f}"
    )


def measure_latency(live: Live, moves: int) -> list[Row]:
    """From the input event of a moved slider to the first update with its value."""
    notebook, draw = live.notebook, random.Random(1)
    live.lab.slider("Learning rate").focus()
    notebook.page.evaluate(LISTEN)
    notebook.do("began_with.clear()")
    for move in range(moves):
        notebook.page.keyboard.press("ArrowRight" if move % 2 else "ArrowLeft")
        time.sleep(draw.uniform(0.15, 0.9))
    done = notebook.page.evaluate("window.moves")
    assert len(done) == moves
    until(lambda: notebook.value("began_with[-1][2]") == done[-1][2], "the last move to arrive")
    seen = notebook.value("began_with")
    found = [(pressed, at, *find_first_update(seen, at, value)) for pressed, at, value in done]
    return [
        (
            f"slider moved to the first update computed with the new value, {moves} moves",
            spread([began * 1e3 - at for _, at, began, _ in found]),
            "median <= 20, p95 <= 40",
        ),
        ("the same, until that update is done", spread([ended * 1e3 - at for _, at, _, ended in found]), ""),
        (
            "the same, from the key being pressed, however busy the page",
            spread([began * 1e3 - pressed for pressed, _, began, _ in found]),
            "",
        ),
    ]


def find_first_update(seen: list[tuple[float, float, float]], moved: float, value: float) -> tuple[float, float]:
    """Begin and end of the first update with a value that ended after the slider moved to it."""
    return next((began, ended) for began, ended, used in seen if ended * 1e3 > moved and used == value)


def spread(milliseconds: list[float]) -> str:
    """Median, p90, p95 and largest."""
    ordered = sorted(milliseconds)
    cut = statistics.quantiles(ordered, n=20, method="inclusive")
    return (
        f"median {statistics.median(ordered):.0f} ms, p90 {cut[17]:.0f}, p95 {cut[18]:.0f}, largest {ordered[-1]:.0f}"
    )


def measure_other_cells(live: Live, count: int) -> list[Row]:
    """Round trip of another cell while training: in the page, and by the kernel alone."""
    live.notebook.edit(1)
    page, kernel, paused = [], [], []
    for _ in range(count):
        page.append(live.page.evaluate(ROUND_TRIP))
        time.sleep(0.2)
        start = time.monotonic()
        live.notebook.value("1 + 1")
        kernel.append((time.monotonic() - start) * 1e3)
        time.sleep(0.3)  # the page has shown that the kernel was busy
    live.pause()
    for _ in range(count):
        paused.append(live.page.evaluate(ROUND_TRIP))
        time.sleep(0.2)
    live.play()
    said = (f"median {statistics.median(times):.0f} ms, largest {max(times):.0f}" for times in (page, paused, kernel))
    live.lab.line.scroll_into_view_if_needed()
    return [
        (f"another cell, run in the page while training, {count} times", next(said), "median <= 50 ms"),
        ("the same while nothing trains", next(said), ""),
        ("the same while training, without the page", next(said), ""),
    ]


def measure_sight(live: Live, rounds: int) -> Row:
    """Training with the plots scrolled out of sight, against training of which nothing is drawn."""
    panel = "document.querySelector('.jp-WindowedPanel-outer, .jp-Notebook')"
    live.page.evaluate("""() => {
        const space = document.createElement("div");
        space.style.height = "4000px";
        document.querySelector(".cnnlab-lab").before(space);
    }""")
    blocks = []
    for _ in range(rounds):
        live.page.evaluate(f"{panel}.scrollTo(0, 0)")
        blocks.append((live.measure_block(None), live.measure_block(0)))
    live.page.evaluate("document.querySelector('.cnnlab-lab').previousElementSibling.remove()")
    live.lab.line.scroll_into_view_if_needed()
    return "scrolled out of sight", describe_blocks(blocks), "no frames, <= 3 %"


def measure_heap(live: Live, minutes: float) -> Row:
    """The page's heap after a collection, now and some minutes later."""
    live.notebook.do("watch(None)")

    def read() -> float:
        live.session.send("HeapProfiler.collectGarbage")
        return live.read_metric("JSHeapUsedSize") / 2**20

    read()
    heaps = [read()]
    for _ in range(max(1, round(minutes))):
        time.sleep(60)
        heaps.append(read())
    said = ", ".join(f"{heap:.1f}" for heap in heaps)
    return f"page's heap over {minutes:g} minutes, each minute, MiB", said, "flat"


def measure_memory(live: Live) -> list[Row]:
    """Memory of a new kernel and bytes a frame, early and at the 5,000th update, and with Why pressed."""
    notebook = live.notebook
    live.play(60)
    early_bytes = live.count_bytes(3)
    live.lab.wait_for_update(100)
    early = notebook.value("resident()")
    until(lambda: live.lab.update() >= LATE, f"update {LATE}", 300)
    late_bytes = live.count_bytes(3)
    late = notebook.value("resident()")
    notebook.do("lab.pause(); lab.wait(); lab.explain()")
    explained = notebook.value("resident()")
    notebook.do(LEAVE)
    after = []
    for _ in range(2):
        lab = notebook.lab(index=2)
        lab.press("Play")
        lab.wait_for_update(50)
        after.append(notebook.value("resident()"))
    bytes_said = ", ".join(f"{size / 1e3:.1f} kB in {count:.1f} messages" for size, count in (early_bytes, late_bytes))
    return [
        ("all bytes a frame at about the 60th and the 5,000th update", bytes_said, "<= 8 kB"),
        ("kernel's memory with a lab playing, after 100 updates", f"{early:.0f} MiB", "<= 370 MiB"),
        ("the same after 5,000, the states to rewind to in files", f"{late:.0f} MiB", "<= 400 MiB"),
        ("the same after Why?", f"{explained:.0f} MiB", "<= 440 MiB"),
        ("added by a second execution of the cell, by a third", f"{after[0] - explained:+.0f}, "
         f"{after[1] - after[0]:+.0f} MiB", ""),
    ]  # fmt: skip


def measure_small(live: Live, rounds: int) -> list[Row]:
    """The same for a network of which an update takes about a millisecond."""
    live.notebook.do(LEAVE)
    live.lab = live.notebook.lab(SMALL, 2)
    live.notebook.do(SPIES)
    live.play(1000)
    time.sleep(SETTLE)
    blocks = [(live.measure_block(None), live.measure_block(0)) for _ in range(rounds)]
    return [("a small network, at its own pace", describe_blocks(blocks), "<= 10 %")]


def write_table(rows: list[Row], browser: str, compared: bool) -> str:
    """The table in Markdown, with what it was measured on."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        "# The live loop", "",
        f"`python tests/benchmarks/live.py`, {time.strftime('%Y-%m-%d')}: {cores} cores ({platform.machine()}) for "
        f"server, kernel and browser together, Python {platform.python_version()}, {versions}, {browser} (headless). "
        'The run: `Lab("question", learning_rate=1e-5, epochs=100_000)` at full speed. "Slower": medians over pairs of '
        f"blocks of {BLOCK:g} s with and without frames."
        + (' "The other version" is that of before the figure of our own, measured by turns.' if compared else ""), "",
        "| | measured | to reach |", "|---|---|---|",
        *(f"| {what} | {found} | {wanted} |" for what, found, wanted in rows),
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
