"""A record as one HTML file that plays it: no kernel, no internet. `page.html` beside this room is its frame."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import os
import re
import string
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from cnnlab.config.settings import LIMITS, Settings
from cnnlab.diagnosis import summary as verdict
from cnnlab.plots.colours import colour_branch
from cnnlab.plots.dashboard import draw_dashboard, refresh_dashboard
from cnnlab.plots.recorder import FigureRecorder, Place
from cnnlab.records.atomic_files import write_atomically
from cnnlab.records.record import Record, record_in

FRAMES = 120
"""Most updates that a page shows; of a longer record evenly many, and all of those around the first NaN or inf."""
AROUND = 3
"""Updates shown on either side of the first non-finite one."""
SCALE, WIDTH = 1.2, 1200
"""Size of the type as in `plots.dashboard`, and the width in pixels before the page knows that of its window."""


class Frame(string.Template):
    """The frame of a page; JavaScript has the dollar to itself."""

    delimiter = "@@"


def export_html(record: Record, path: str | os.PathLike[str], cdn: bool = False) -> None:
    """Write a record as one HTML file with the dashboard's plots, a play button and a slider over its updates.

    It opens in a browser without kernel or internet (5 MB); with `cdn=True` it is small and fetches plotly.js from its
    makers' server each time. A record of more than 120 updates is thinned evenly. The file appears whole or not at all.
    """
    content = page_of(record_in(record), cdn).encode()
    with write_atomically(path) as file:
        file.write(content)


def page_of(record: Record, cdn: bool) -> str:
    """The whole text."""
    frame = Frame((files("cnnlab.export") / "templates" / "page.html").read_text(encoding="utf-8"))
    return frame.substitute(
        title=html.escape(f"cnnlab: {record.settings!r}"),
        plotly=script_from_cdn() if cdn else f"<script>{get_plotlyjs()}</script>",
        last=len(steps_of(record)) - 1,
        words=html.escape(in_words(record)),
        branches=branches(record),
        settings=rows(record.settings),
        link=opens_with(record),
        run=within_html(film(record)),
    )


def script_from_cdn() -> str:
    """The element that fetches plotly.js, with its digest, as plotly itself writes it."""
    written = plotly.io.to_html(go.Figure(), include_plotlyjs="cdn", full_html=False)
    found = re.search(r"<script[^>]*\ssrc=[^>]*></script>", written)
    assert found is not None
    return found[0]


def film(record: Record) -> dict[str, Any]:
    """What the page plays: the figure, what changes in it from frame to frame, and the state line of each frame.

    A change is a place in the figure, and the number of its value at each frame; places share values.
    """
    steps, goal = steps_of(record), max(len(record), 1)
    figure = draw_dashboard(record.until(0), goal, scale=SCALE, width=WIDTH)
    refresh_dashboard(figure, record.until(0), (record,), goal)
    names = [trace.name for trace in figure.data]
    drawn = [drawn_at(record, step, goal, names) for step in steps]
    shown = [record.until(step) for step in steps]
    return {
        "figure": json.loads(figure.to_json(validate=False)),
        "steps": steps,
        "trained": len(record),
        "lines": [verdict.state_line(each) if len(each) else verdict.start_line(each) for each in shown],
        "tones": [verdict.tone(each) for each in shown],
        **changes(drawn),
    }


def steps_of(record: Record) -> list[int]:
    """The updates that a page shows, 0 the first: all, or evenly many and those around the first non-finite one."""
    last, broke = len(record), record.first_nonfinite
    if last < FRAMES:
        return list(range(last + 1))
    around = [] if broke is None else range(max(broke - AROUND, 0), min(broke + AROUND, last) + 1)
    even = np.linspace(0, last, FRAMES - len(around)).round().astype(int)
    return sorted({*even.tolist(), *around})


def changes(drawn: list[dict[Place, str]]) -> dict[str, Any]:
    """The places whose value is not the same in every frame, and all their values; these are JSON texts until here."""
    numbers: dict[str, int] = {}
    found = []
    for place in drawn[0]:
        texts = [frame[place] for frame in drawn]
        if len(set(texts)) > 1:
            found.append({"place": place, "at": [numbers.setdefault(text, len(numbers)) for text in texts]})
    return {"changes": found, "values": [json.loads(text) for text in numbers]}


def drawn_at(record: Record, step: int, goal: int, names: Iterable[str]) -> dict[Place, str]:
    """All that `refresh_dashboard` draws of a record as it was after an update, the whole of it as a ghost behind."""
    drawn = FigureRecorder(names)
    refresh_dashboard(drawn, record.until(step), (record,), goal)
    return {place: json.dumps(plain(value), sort_keys=True) for place, value in drawn.values()}


def plain(value: Any) -> Any:
    """A value as JSON has it: an array of floating-point numbers as its bytes, in which NaN and inf stay themselves."""
    if not isinstance(value, np.ndarray):
        return [plain(each) for each in value] if isinstance(value, (list, tuple)) else number(value)
    if value.dtype.kind != "f":
        return [plain(each) for each in value.tolist()]
    kind = "f4" if in_single_precision(value) else "f8"
    return {"dtype": kind, "bdata": base64.b64encode(value.astype(f"<{kind}").tobytes()).decode("ascii")}


def in_single_precision(values: NDArray[Any]) -> bool:
    """Whether float32 has digits enough to draw the values: all but those beyond 1e38 and below 1e-37."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return bool(sizes.max(initial=1) < 1e38 and sizes.min(initial=1) > 1e-37)


def number(value: Any) -> Any:
    """A single value as JSON has it; NaN and inf, which JSON lacks, are null, a gap."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def within_html(value: Any) -> str:
    """JSON that a script element may hold: no text in it can end the element or begin another."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def in_words(record: Record) -> str:
    """The settings in a sentence, such as: Preset question, learning rate 0.001; from update 4: clipping norm."""
    said = ", ".join([f"Preset {record.settings.preset}", *labelled(record.settings.changes)])
    before = dataclasses.asdict(record.settings.knobs)
    for first, knobs in record.schedule:
        now = dataclasses.asdict(knobs)
        changed = {name: value for name, value in now.items() if value != before[name]}
        said += f"; from update {first}: {', '.join(labelled(changed))}" if changed else ""
        before = now
    return f"{said}."


def labelled(values: dict[str, Any]) -> list[str]:
    """Fields in the words of the dashboard's controls, with their values."""
    return [f"{lowered(LIMITS[name].label)} {said(value)}" for name, value in values.items()]


def lowered(label: str) -> str:
    """A label within a sentence; abbreviations stay large."""
    return label if label[1:2].isupper() or label[1:2].isdigit() else label[:1].lower() + label[1:]


def said(value: Any) -> str:
    """A field's value in words."""
    if isinstance(value, tuple):
        return " and ".join(map(str, value))
    return "all" if value is None else f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")


def rows(settings: Settings) -> str:
    """Every setting of the start as a term and its value."""
    values = dataclasses.asdict(settings)
    pairs = [(limit.label, said(values[name])) for name, limit in LIMITS.items()]
    return "".join(f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>" for label, value in pairs)


def branches(record: Record) -> str:
    """A key to the branches' colours, where there are several."""
    family = {each.branch.number: each for each in (record, *record.others)}
    if len(family) == 1:
        return ""
    items = [
        f'<li><span style="background:{colour_branch(number)}"></span>'
        f"{html.escape(verdict.difference(each, family.get(each.branch.parent or 0)))}"
        f"{' (shown)' if each is record else ''}</li>"
        for number, each in sorted(family.items())
    ]
    return f'<ul class="branches" aria-label="Branches">{"".join(items)}</ul>'


def opens_with(record: Record) -> str:
    """How to train the run again; nothing for a network of the reader's own."""
    if record.own_network:
        return ""
    return f"<p>Train it again: <code>cnnlab.Lab({html.escape(json.dumps(record.link()), quote=False)})</code></p>"
