"""What the gauges cost: Run.step, which measures everything and returns its Frame, beside a bare PyTorch loop.

python tests/benchmarks/step.py [--blocks 20] [--write]

The two take turns in blocks of 32 updates, of which one has its signals measured, so that whatever else the machine
does slows both alike; the ratio is the median of the blocks' own ratios. --write keeps the table in
tests/benchmarks/results/step.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

import cnnlab.training.metrics
from cnnlab import Run
from cnnlab.dashboards.lab_widgets import EVERY_FRAME
from cnnlab.dashboards.live_figure import LiveFigure
from cnnlab.plots.arrangement import arrange_panels
from cnnlab.plots.dashboard import describe_dashboard, refresh_dashboard
from cnnlab.plots.recorder import FigureRecorder
from cnnlab.records.signals import SELDOM
from cnnlab.training.network import make_question_network

LIMIT = 1.15
"""Most that a step with all gauges may take, as a multiple of the bare loop."""
CLOCK = time.thread_time
"""Processor time of this one thread: work of others on the machine does not count, beyond slowing caches and memory."""
STEPS = SELDOM
"""Updates in a block."""
SHOWN_LIMIT = 1.3
"""The same with the plots drawn, activations in them, as often as a page is shown frames."""
FRAME = 4
"""Updates for each frame that is drawn: of 12 ms each they make 20 frames a second."""
TEXTS = 5
"""Frames for each that has the histograms over time in it: at four a second."""
PANELS = ("cost", "magnitudes", "over_time", "signals", "gradient", "ratio", "stability")
"""The plots that are shown: the first two in each frame, of the others one after the other."""
RESULTS = Path(__file__).parent / "results" / "step.md"
VARIANTS = {
    "plain": {},
    "momentum and clipping by norm": {"momentum": 0.9, "clip": "norm", "clip_threshold": 1.0},
}


def bare_loop(run: Run) -> Callable[[], None]:
    """One update as a PyTorch tutorial writes it, from the run's own weights and patches."""
    x, y = run.problem.data
    knobs = run.settings.knobs
    network = make_question_network(run.settings).to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(run.layout.views(run.parameters)[name])
    optimiser = torch.optim.SGD(network.parameters(), lr=knobs.learning_rate, momentum=knobs.momentum)

    def update() -> None:
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        if knobs.clip == "norm":
            torch.nn.utils.clip_grad_norm_(network.parameters(), knobs.clip_threshold)
        optimiser.step()

    return update


def milliseconds(update: Callable[[], object]) -> float:
    """Processor time of one update, over a block."""
    start = CLOCK()
    for _ in range(STEPS):
        update()
    return (CLOCK() - start) / STEPS * 1e3


def step_shown(run: Run) -> Callable[[], None]:
    """One update, of which a frame is drawn now and then as a lab draws it, the page left out."""
    shape = {"panels": PANELS, "magnitudes": "activations"}
    figure = LiveFigure(describe_dashboard(run.record, 5000, **shape), {}, {}, moves=True)
    figure.state.send = lambda *_told: None
    every = arrange_panels(800, 1, PANELS).panels
    turns = [name for name in PANELS[EVERY_FRAME:] if name != "over_time"]

    def update() -> None:
        run.update()
        frame, rest = divmod(run.updates, FRAME)
        if rest:
            return
        shown = {*PANELS[:EVERY_FRAME], turns[frame % len(turns)], *(["over_time"] if frame % TEXTS == 0 else [])}
        panels = {name: panel for name, panel in every.items() if name in shown}
        drawn = FigureRecorder(figure.names)
        refresh_dashboard(drawn, run.record, (), 5000, False, panels=panels, magnitudes="activations")
        figure.take(drawn, moving=True)

    return update


def compare(blocks: int, changes: dict, shown: bool = False) -> tuple[float, float, float]:
    """Medians of the bare loop and of Run.step in milliseconds, and of their ratio within a block."""
    # A rate at which nothing explodes: NaN and subnormal numbers would change the speed of both.
    run = Run("question", learning_rate=1e-5, device="cpu", **changes)
    bare, step = bare_loop(run), step_shown(run) if shown else run.step
    milliseconds(bare), milliseconds(step)  # in its first updates signals are measured more often
    times = []
    for block in range(blocks):
        if block % 2:
            times.append((milliseconds(bare), milliseconds(step)))
        else:
            ours = milliseconds(step)
            times.append((milliseconds(bare), ours))
    assert run.record.first_nonfinite is None
    bare_ms, step_ms = (statistics.median(column) for column in zip(*times, strict=True))
    return bare_ms, step_ms, statistics.median(ours / theirs for theirs, ours in times)


def breakdown(steps: int) -> dict[str, float]:
    """Median milliseconds of each gauge within a step, where the caches are as a step leaves them; some hold others."""
    run = Run("question", learning_rate=1e-5, device="cpu")
    run.gauges.activations.release()
    spent: dict[str, list[float]] = defaultdict(list)
    watched = 0.0

    def timed(function: Callable, label: str) -> Callable:
        def call(*arguments, **keywords):
            nonlocal watched
            start = CLOCK()
            try:
                return function(*arguments, **keywords)
            finally:
                took = CLOCK() - start
                if label.startswith("hooks"):
                    watched += took
                else:
                    spent[label].append(took)

        return call

    gauges = run.gauges
    for name, label in {
        "measure": "all but the hooks",
        "norms": "- norms of weights, gradient and update",
        "of_weights": "- largest weights, NaN and inf in them",
        "of_update": "- gradient, clipping and update ratio",
        "histogram": "- exponent histogram",
        "row": "- one row of them all",
    }.items():
        setattr(gauges, name, timed(getattr(gauges, name), label))
    activations = cnnlab.training.metrics.Activations
    activations.note_relu = timed(activations.note_relu, "hooks")  # type: ignore[method-assign]
    note_layer = activations.note_layer
    activations.note_layer = lambda self, index: timed(note_layer(self, index), "hooks")  # type: ignore[method-assign]
    try:
        gauges.activations = activations(run.network, run.layout)
        gauges.activations.hook()
        original, cnnlab.training.metrics.classification = (
            cnnlab.training.metrics.classification,
            timed(cnnlab.training.metrics.classification, "- accuracy and logit gap"),
        )
        for _ in range(steps):
            watched = 0.0
            run.update()
            spent["hooks: NaN and inf in activations, dead ReLUs"].append(watched)
            timed(lambda: run.record.frames[-1], "flush, record and frame")()
    finally:
        cnnlab.training.metrics.classification = original
    return {label: statistics.median(times) * 1e3 for label, times in spent.items()}


def size_of(run: Run) -> str:
    """What the speed depends on, in words."""
    wanted = run.settings
    return (
        f"{wanted.patches} patches of {wanted.patch_size} pixels, {wanted.channels} channels, "
        f"hidden {wanted.hidden}, {len(run.parameters)} parameters"
    )


def table(blocks: int) -> tuple[str, float]:
    """The table in Markdown, and the largest ratio in it over its limit."""
    lines = [
        "# What the gauges cost",
        "",
        f"torch {torch.__version__.partition('+')[0]}, x86-64, one thread; the question's preset, {blocks} blocks of",
        f"{STEPS} updates each, taking turns in one process. Bare: nn.Sequential, cross_entropy, torch.optim.SGD, no",
        "gauges. Run.step: all gauges, flushed and made a Frame at every update, the signals of the layers at one of",
        f"{SELDOM}. Shown: a frame as a lab draws it at each {FRAME}th update, of {len(PANELS)} plots in turn,",
        "magnitudes of activations in each, the page left out. The ratio is the median over blocks.",
        f"Processor time of the thread. The preset then: {size_of(Run('question', device='cpu'))}.",
        "",
        "| update | bare, ms | Run.step, ms | ratio |",
        "|---|---|---|---|",
    ]
    worst = 0.0
    for name, changes in VARIANTS.items():
        bare_ms, step_ms, ratio = compare(blocks, changes)
        worst = max(worst, ratio / LIMIT)
        lines.append(f"| {name} | {bare_ms:.2f} | {step_ms:.2f} | {ratio:.3f} |")
    bare_ms, step_ms, ratio = compare(blocks, {}, shown=True)
    worst = max(worst, ratio / SHOWN_LIMIT)
    lines.append(f"| plain, activations shown | {bare_ms:.2f} | {step_ms:.2f} | {ratio:.3f} |")
    lines += ["", "Where the time goes (with the cost of the clocks):", "", "| part | ms |", "|---|---|"]
    lines += [f"| {label} | {spent:.3f} |" for label, spent in breakdown(SELDOM * blocks // 2).items()]
    return "\n".join(lines) + "\n", worst


def main() -> int:
    """Print the table; 1 if a ratio is above its limit."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--blocks", type=int, default=20)
    arguments.add_argument("--write", action="store_true")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    text, worst = table(chosen.blocks)
    print(text)
    if chosen.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)
    return int(worst > 1)


if __name__ == "__main__":
    raise SystemExit(main())
