"""Memory of what Binder would run: the server of JupyterLab and the kernel of a lab that plays, without the browser.

python tests/benchmarks/binder.py [--write]

For each preset a lab plays, then Why? is pressed; the resident memory of the server and of all processes below it is
added up (psutil), the greatest of what is seen twice a second. --write keeps the table in
tests/benchmarks/results/binder.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

import psutil
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "browser"))
from jupyter_page import Jupyter, Lab, Notebook, launched

RESULTS = Path(__file__).parent / "results" / "binder.md"
LIMIT = 700
"""MiB that server, kernel and one lab may take (Binder gives one to two GiB)."""
PLAYING = 20.0
"""Seconds of playing."""
LABS = {
    "question": 'lab = cnnlab.Lab("question")',
    "question, 5,000 updates": 'lab = cnnlab.Lab("question", learning_rate=1e-5, epochs=100_000)\nlab.step(5000)',
    "converges": 'lab = cnnlab.Lab("converges")',
    "batch_norm": 'lab = cnnlab.Lab("batch_norm")',
    "deep_residual": 'lab = cnnlab.Lab("deep_residual")',
}
"""What is measured -> the cell that makes it."""


def measure_tree(process: psutil.Process) -> tuple[float, float]:
    """MiB of a process, and of all that it has begun."""
    below = sum(child.memory_info().rss for child in process.children(recursive=True))
    return process.memory_info().rss / 2**20, below / 2**20


def watch_memory(server: psutil.Process, seconds: float) -> tuple[float, float]:
    """The greatest memory within so many seconds: server, and all below it."""
    end, seen = time.monotonic() + seconds, []
    while time.monotonic() < end:
        seen.append(measure_tree(server))
        time.sleep(0.5)
    return max(seen, key=sum)


def measure_lab(jupyter: Jupyter, browser, source: str) -> list[tuple[float, float]]:
    """Memory of a lab at its start, while it plays, and after Why? has been pressed."""
    server = psutil.Process(jupyter.process.pid)
    notebook = Notebook(jupyter, browser, "lab", [f"import cnnlab\n{source}"])
    notebook.run()
    Lab(notebook, 0).wait_for_figure()
    found = [watch_memory(server, 3)]
    notebook.do("lab.play()")
    found.append(watch_memory(server, PLAYING))
    notebook.do("lab.pause(); lab.examine()")
    seen = [watch_memory(server, PLAYING)]
    while not notebook.value("lab.doctor.wait(0)"):
        seen.append(watch_memory(server, 1))
    found.append(max(seen, key=sum))
    notebook.close()
    time.sleep(3)  # the kernel ends
    return found


def write_table(rows: dict[str, list[tuple[float, float]]]) -> str:
    """The table, with what it was measured on."""
    lines = [
        "# Memory on Binder",
        "",
        "`python tests/benchmarks/binder.py --write`: MiB of JupyterLab's server and of its kernel, added up.",
        f"Python {platform.python_version()}, {psutil.cpu_count()} cores. {LIMIT} MiB were asked for.",
        "",
        "| lab | server | opened | playing | Why? pressed |",
        "|---|---|---|---|---|",
    ]
    for name, found in rows.items():
        sums = [f"{server + below:.0f}" for server, below in found]
        lines.append(f"| {name} | {found[0][0]:.0f} | {' | '.join(sums)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        jupyter, browser = Jupyter(Path(home)), launched(playwright)
        for name, source in LABS.items():
            rows[name] = measure_lab(jupyter, browser, source)
            print(name, rows[name], flush=True)
        jupyter.close()
        browser.close()
    table = write_table(rows)
    print(table)
    if arguments.write:
        RESULTS.write_text(table)


if __name__ == "__main__":
    main()
