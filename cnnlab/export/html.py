"""A record as one HTML file that plays it: no kernel, no internet. Its template is `page.html.jinja`."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import html
import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import plotly.graph_objects as go
import plotly.io
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from cnnlab.config.settings import LIMITS, list_changes, quote
from cnnlab.diagnosis.summary import difference, start_line, state_line, tone
from cnnlab.export.rendering import render
from cnnlab.plots.arrangement import Arrangement, arrange_panels
from cnnlab.plots.colours import colour_branch
from cnnlab.plots.dashboard import draw_dashboard, find_ranges, refresh_dashboard
from cnnlab.plots.dashboard_layout import make_layout
from cnnlab.plots.gauges import choose_shown
from cnnlab.plots.layer_groups import group_layers
from cnnlab.plots.recorder import FigureRecorder, Place
from cnnlab.plots.still import draw_still
from cnnlab.records.atomic_files import write_atomically
from cnnlab.records.record import Record, find_record

FRAMES = 120
"""Most updates that a page shows; of a longer record evenly many, and all of those around the first NaN or inf."""
AROUND = 3
"""Updates shown on either side of the first non-finite one."""
SCALE, WIDTHS = 1.2, (290, 420, 560, 700, 870, 1080, 1300, 1500, 1760)
"""Size of the type as in `plots.dashboard`, and widths in pixels for which the page has an arrangement of the plots."""


class Change(TypedDict):
    """A place in the figure whose value changes from frame to frame."""

    place: Place
    """Where it lies in the figure's JSON."""
    at: list[int]
    """For each frame, the number of its value in `Film.values`."""


class Film(TypedDict):
    """What the page plays."""

    figure: Any
    """The figure that all frames share, as plotly's JSON."""
    layouts: list[Any]
    """Its layout for each of several widths, the narrowest first."""
    steps: list[int]
    """The update of each frame."""
    trained: int
    """Updates of the record."""
    lines: list[str]
    """The state line of each frame."""
    tones: list[str]
    """The tone of each line."""
    changes: list[Change]
    """What changes in the figure."""
    values: list[Any]
    """The values that it changes to, as JSON has them; places and frames share them."""


@dataclass(frozen=True)
class Page:
    """What the template of a page is filled with."""

    record: Record
    """The record of the run."""
    plotly: str
    """The element that holds or fetches plotly.js."""
    words: str
    """The settings and their changes in a sentence."""
    branches: list[tuple[str, str, bool]]
    """Of each branch its colour, what is different in it, and whether it is the one shown."""
    settings: list[tuple[str, str]]
    """Each setting at the start and its value."""
    still: str
    """What it shows until plotly.js is read: the cost as SVG."""
    frames: int
    """How many frames it plays."""
    run: str
    """What it plays: a `Film` as JSON, packed by gzip, in base64."""


def export_html(record: Record, path: str | os.PathLike[str], cdn: bool = False, *, script: str | None = None) -> None:
    """Write a record as one HTML file with the dashboard's plots, a play button and a slider over its updates.

    It opens in a browser without kernel or internet (5 MB). With `cdn=True` it is small (40 to 400 kB) and fetches
    plotly.js from its makers' server each time; with `script="plotly.min.js"` it reads it from that address, relative
    to the page, so that many pages share one copy. A record of more than 120 updates is thinned evenly. The file
    appears whole or not at all.
    """
    content = write_page(find_record(record), cdn, check_script(script, cdn)).encode()
    with write_atomically(path) as file:
        file.write(content)


def check_script(script: Any, cdn: bool) -> str | None:
    """The address of plotly.js itself; TypeError or ValueError in a sentence if it is none, or `cdn` is on, too."""
    if script is None:
        return None
    if not isinstance(script, str):
        raise TypeError(f"script must be the address of plotly.js as a text, or None, got {quote(script)}")
    if cdn or not script:
        wrong = "cdn=True with it" if cdn else "an empty one"
        raise ValueError(f"script must be the one address of plotly.js, or None, got {wrong}")
    return script


def find_script(cdn: bool, script: str | None) -> str:
    """The element that holds or fetches plotly.js."""
    if script is not None:
        return f'<script src="{html.escape(script)}"></script>'
    return find_cdn_script() if cdn else f"<script>{get_plotlyjs()}</script>"


def write_page(record: Record, cdn: bool, script: str | None = None) -> str:
    """The whole text."""
    film = make_film(record)
    family = {each.branch.number: each for each in (record, *record.others)}
    start = dataclasses.asdict(record.settings)
    page = Page(
        record=record,
        plotly=find_script(cdn, script),
        words=describe_settings(record),
        branches=[
            (colour_branch(number), difference(each, family.get(each.branch.parent or 0)), each is record)
            for number, each in sorted(family.items())
        ],
        settings=[(limit.label, describe_value(start[name])) for name, limit in LIMITS.items()],
        still=draw_still(record, state_line(record)),
        frames=len(film["steps"]),
        run=pack_film(film),
    )
    return render("page.html.jinja", page)


def find_cdn_script() -> str:
    """The element that fetches plotly.js, with its digest, as plotly itself writes it."""
    written = plotly.io.to_html(go.Figure(), include_plotlyjs="cdn", full_html=False)
    found = re.search(r"<script[^>]*\ssrc=[^>]*></script>", written)
    assert found is not None
    return found[0]


def pack_film(film: Film) -> str:
    """A film as text without letters that HTML would read; the same bytes each time."""
    packed = gzip.compress(json.dumps(film, separators=(",", ":")).encode(), mtime=0)
    return base64.b64encode(packed).decode("ascii")


def make_film(record: Record) -> Film:
    """The figure, what changes in it from frame to frame, and the state line of each frame."""
    steps, goal = choose_steps(record), max(len(record), 1)
    shown = [record.until(step) for step in steps]
    figure = draw_dashboard(shown[0], goal, scale=SCALE, width=WIDTHS[0], panels=choose_shown(record.schedule))
    refresh_dashboard(figure, shown[0], (record,), goal, panels=arrange(record, WIDTHS[0]).panels)
    changes, values = find_changes([draw_frame(each, record, [trace.name for trace in figure.data]) for each in shown])
    return {
        "figure": json.loads(figure.to_json(validate=False)),
        "layouts": [make_first_layout(shown[0], record, width) for width in WIDTHS],
        "steps": steps,
        "trained": len(record),
        "lines": [state_line(each) if len(each) else start_line(each) for each in shown],
        "tones": [tone(each) for each in shown],
        "changes": changes,
        "values": values,
    }


def arrange(record: Record, width: int) -> Arrangement:
    """Where the plots of a record lie at a width."""
    return arrange_panels(width, SCALE, choose_shown(record.schedule))


def make_first_layout(shown: Record, record: Record, width: int) -> dict[str, Any]:
    """The layout of the first frame at a width."""
    arrangement = arrange(record, width)
    layout = make_layout(group_layers(shown).layers, arrangement)
    ranges = find_ranges(group_layers(shown), (record,), max(len(record), 1), panels=arrangement.panels)
    for axis, range_and_ticks in ranges.items():
        layout[axis] |= range_and_ticks | {"autorange": False}
    return layout


def choose_steps(record: Record) -> list[int]:
    """The updates that a page shows, 0 the first: all, or evenly many and those around the first non-finite one."""
    last, broke = len(record), record.first_nonfinite
    if last < FRAMES:
        return list(range(last + 1))
    around = [] if broke is None else range(max(broke - AROUND, 0), min(broke + AROUND, last) + 1)
    even = np.linspace(0, last, FRAMES - len(around)).round().astype(int)
    return sorted({*even.tolist(), *around})


def find_changes(drawn: list[dict[Place, str]]) -> tuple[list[Change], list[Any]]:
    """The places whose value is not the same in every frame, and all their values; these are JSON texts until here."""
    numbers: dict[str, int] = {}
    found: list[Change] = []
    for place in drawn[0]:
        texts = [frame[place] for frame in drawn]
        if len(set(texts)) > 1:
            found.append({"place": place, "at": [numbers.setdefault(text, len(numbers)) for text in texts]})
    return found, [json.loads(text) for text in numbers]


def draw_frame(shown: Record, record: Record, names: Iterable[str]) -> dict[Place, str]:
    """All that `refresh_dashboard` draws of a record after an update, with the whole record as a ghost behind it."""
    drawn = FigureRecorder(names)
    # The axis of every layout has room for the ticks of the narrowest.
    panels = arrange(record, WIDTHS[0]).panels
    refresh_dashboard(drawn, shown, (record,), max(len(record), 1), panels=panels)
    return {place: json.dumps(to_json(value), sort_keys=True) for place, value in drawn.values()}


def to_json(value: Any) -> Any:
    """A value as JSON has it: an array of floating-point numbers as its bytes, in which NaN and inf stay themselves.

    A single number that is NaN or inf, which JSON lacks, is null, a gap.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        kind = "f4" if fits_single_precision(value) else "f8"
        return {"dtype": kind, "bdata": base64.b64encode(value.astype(f"<{kind}").tobytes()).decode("ascii")}
    value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    if isinstance(value, (list, tuple)):
        return [to_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def fits_single_precision(values: NDArray[Any]) -> bool:
    """Whether float32 has digits enough to draw the values: all but those beyond 1e38 and below 1e-37."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return bool(sizes.max(initial=1) < 1e38 and sizes.min(initial=1) > 1e-37)


def describe_settings(record: Record) -> str:
    """The settings in a sentence, such as: Preset question, learning rate 0.001; from update 4: clipping norm."""
    said = ", ".join([f"Preset {record.settings.preset}", *label_values(record.settings.changes)])
    for first, changed in list_changes(record.settings.knobs, record.schedule):
        said += f"; from update {first}: {', '.join(label_values(changed))}" if changed else ""
    return f"{said}."


def label_values(values: dict[str, Any]) -> list[str]:
    """Fields in the words of the dashboard's controls, with their values."""
    return [f"{lower_label(LIMITS[name].label)} {describe_value(value)}" for name, value in values.items()]


def lower_label(label: str) -> str:
    """A label within a sentence; abbreviations stay large."""
    return label if label[1:2].isupper() or label[1:2].isdigit() else label[:1].lower() + label[1:]


def describe_value(value: Any) -> str:
    """A field's value in words."""
    if isinstance(value, tuple):
        return " and ".join(map(str, value))
    return "all" if value is None else f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")
