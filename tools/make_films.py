"""Twelve films of the course's main runs and a map whose cells open theirs, as pages that need no installation.

python tools/make_films.py [--into docs/films]

All pages read one plotly.js that lies beside them. Runs, seeds and settings are those of the presets.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

import cnnlab
from cnnlab.diagnosis.summary import state_line
from cnnlab.export.rendering import make_environment
from cnnlab.plots.colours import CELLS
from cnnlab.plots.still import draw_still
from cnnlab.records.formats import format_number
from cnnlab.records.record import Record

ROOT = Path(__file__).parents[1]
SCRIPT = "plotly.min.js"
STEPS = 12
"""Updates of each run of the map."""
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
SCALES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.5, 2.0, 3.0)
INKS = {"converged": "#ffffff", "stalled": "#222222", "diverged": "#ffffff"}
"""Label -> colour of the numbers on its cells."""


@dataclasses.dataclass(frozen=True)
class Film:
    """A run that is shown."""

    name: str
    """The name of its page."""
    title: str
    """What it is asked."""
    words: str
    """What is different in it."""
    updates: int
    """How many updates it shows."""
    preset: str = "question"
    """What it starts from."""
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What is changed in the preset."""
    forks: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What is changed in a branch that leaves it after its first update; none without."""

    def make_record(self) -> Record:
        """The record of the run, or of its branch, with the other beside it."""
        run = cnnlab.Run(self.preset, **self.changes)
        run.advance(6 if self.forks else self.updates)
        if not self.forks:
            return run.record
        twin = run.fork(1, **self.forks)
        twin.advance(self.updates - 1)
        return dataclasses.replace(twin.record, others=(run.record,))


FILMS = (
    Film("question", "Why does my cost become NaN?", "Six convolutions at a learning rate of 0.01.", 12),
    Film("small_rate", "And a hundredth of the learning rate?", "The same start at 0.0001.", 60,
         changes={"learning_rate": 1e-4}),
    Film("he", "Is the initialisation to blame?", "He's initialisation at the question's learning rate.", 12,
         changes={"init": "he_normal", "init_scale": 1.0}),
    Film("clipped", "Does clipping help?",
         "The question's run, and a branch from its first update whose gradient is clipped by its norm.", 40,
         forks={"clip": "norm"}),
    Film("adam", "Does Adam save it?", "The question's start and learning rate with Adam.", 40, "adam"),
    Film("batch_norm", "And batch norm?",
         "The question with a norm in each layer but the last, at the same learning rate.", 60, "batch_norm"),
    Film("sudden_nan", "Why a NaN without a rise?", "The logarithm of a softmax without an epsilon.", 40, "sudden_nan"),
    Film("overflow", "What do sixteen bits change?", "Weights and activations in float16, a learning rate of 1.", 12,
         "overflow"),
    Film("dead", "What is a dead ReLU?", "A learning rate of 0.1, each entry of the gradient cut to at most 1.", 20,
         "dead"),
    Film("vanishing", "Why does nothing move?", "Initial weights a ninth as large.", 60,
         "vanishing"),
    Film("converges", "What does it look like when it learns?", "The question's nine layers on a thousand patches.",
         100, "converges"),
    Film("deep_residual", "Twenty layers?", "Twenty convolutions; what a block adds begins at 0.", 80,
         "deep_residual"),
)  # fmt: skip


def make_films(folder: Path) -> list[dict[str, str]]:
    """Write the pages of the films; what the list of them says of each."""
    shown = []
    for film in FILMS:
        record = film.make_record()
        cnnlab.export_html(record, folder / f"{film.name}.html", script=SCRIPT)
        still = draw_still(record, state_line(record))
        shown.append({"name": film.name, "title": film.title, "words": film.words, "still": still})
    return shown


def make_map(folder: Path) -> list[tuple[str, list[dict[str, str]]]]:
    """Write the page of each cell; the rows of the map, the smallest scale first."""
    (folder / "map").mkdir(exist_ok=True)
    found = cnnlab.sweep("question", steps=STEPS, learning_rate=RATES, init_scale=SCALES)
    return [
        (f"{scale:g}", [make_cell(folder, rate, scale, label) for rate, label in zip(RATES, row, strict=True)])
        for scale, row in zip(SCALES, found.labels[:, :, 0].T.tolist(), strict=True)
    ]


def make_cell(folder: Path, rate: float, scale: float, label: str) -> dict[str, str]:
    """Write the page of one cell; how it fared, and where the page lies."""
    run = cnnlab.Run("question", learning_rate=rate, init_scale=scale)
    run.advance(STEPS)
    path, broke = f"map/{rate:g}_{scale:g}.html", run.record.first_nonfinite
    cnnlab.export_html(run.record, folder / path, script=f"../{SCRIPT}")
    said = f"learning rate {rate:g}, initial scale {scale:g}: {label}"
    if broke is not None:
        said += f", NaN or inf at update {broke}"
    elif label != "diverged":
        said += f", cost {format_number(run.record.cost[-1])} after {STEPS} updates"
    return {"label": label, "path": path, "said": said, "broke": "" if broke is None else str(broke)}


def main() -> None:
    """Make all pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "films", help="the folder for the pages")
    folder = parser.parse_args().into
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("**/*.html"):
        old.unlink()
    (folder / SCRIPT).write_text(get_plotlyjs())
    template = make_environment().from_string((Path(__file__).parent / "films.html.jinja").read_text())
    page = template.render(
        films=make_films(folder), rows=make_map(folder), rates=[f"{rate:g}" for rate in RATES], steps=STEPS,
        colours=[(label, CELLS[label], ink) for label, ink in INKS.items()],
    )  # fmt: skip
    (folder / "index.html").write_text(page)


if __name__ == "__main__":
    main()
