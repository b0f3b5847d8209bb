"""Pictures of what the labs' cells draw, light and dark, for the site: they stand where a unit of a lab is explained.

python docs/make_lab_pictures.py [NUMBER ...] [--into docs/labs]        (all labs, if no number is named)

Each lab is run from top to bottom in a kernel; after the last cell of a unit its row below draws. Chromium makes the
pictures. Some minutes on two quiet cores. Look at each picture before you commit it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import plotly.graph_objects as go
from PIL import Image

from cnnlab.plots.colours import BRANCH_COLOURS, DARK, GRID, recolour
from cnnlab.plots.cost_curves import make_figure
from cnnlab.plots.dashboard import draw_dashboard
from cnnlab.plots.direction import draw_direction
from cnnlab.plots.layout import fit_log_range, make_lane_axis, make_lane_ground
from cnnlab.plots.points import place_marks
from cnnlab.records.record import Record

HERE = Path(__file__).parent
BROWSER, NOTEBOOKS = (HERE.parent / "tests" / name for name in ("browser", "labs"))
KEPT = "CNNLAB_PICTURES"
"""The variable that names the folder for what the kernel draws."""
WIDTH, HEIGHT, SHARPNESS, COLOURS = 690, 300, 1.5, 128
"""Of a picture: pixels on the page, how many of the screen each is, and colours of its palette."""
PICTURES = {
    "00-explosion": "draw_run(lab.record)",
    "00-gamble": (
        "draw_costs({f'{rate:g}': ledger[1 + 8 * i : 9 + 8 * i] for i, rate in enumerate(died)},"
        " 'Cost at three rates, 8 seeds')"
    ),
    "00-warning": "draw_run(lab.record, 'cost', 'ratio')",
    "00-input": "draw_run(lab.record, 'cost', 'ratio')",
    "01-edge": "draw_step(cnnlab.Run('question'))",
    "01-gamble": (
        "draw_costs({f'{times:g} times critical': ledger[3 * i : 3 * i + 3] for i, times in enumerate(died)},"
        " 'Cost of 3 seeds')"
    ),
    "01-stability": "draw_run(lab.record, 'cost', 'stability')",
    "01-high": "draw_costs({name: [run.record] for name, run in {**tried, 'safe': safe}.items()})",
    "02-layers": (
        "draw_curves({init: [np.mean([mean_squares(init, seed) for seed in range(8)], axis=0)] for init in formulas},"
        " 'Mean square of the outputs, mean of 8 seeds', 'layer')"
    ),
    "02-formula": "draw_costs({r.settings.init: [r] for r in ledger[:12:2]}, 'Cost at 0.001, seed 0')",
    "02-input": "draw_costs({r.settings.init: [r] for r in ledger[12:]}, 'Cost, standardised pixels, seed 0')",
    "03-strength": "draw_costs({f'L2 {l2:g}': [run.record] for l2, run in runs.items()})",
    "03-relu": "draw_costs({record.settings.relu: [record] for record in ledger[-4:]}, 'Cost, seed 0')",
    "04-look": "draw_run(record)",
    "04-cap": "draw_curves({f'{e:g}': [costs[e]] for e in costs}, 'Cost of a wrong answer', 'logit gap', False)",
    "04-dead": "draw_costs(dict(zip(('as it is', 'epsilon', 'log-softmax'), ([r] for r in records))))",
    "05-place": "draw_run(record)",
    "05-warning": "draw_run(record, 'cost', 'ratio')",
    "06-rule": "draw_run(first, 'cost', 'ratio')",
    "06-again": "draw_costs({'as it was': [first], 'a thousandth more': [changed]})",
    "06-late": "draw_costs({'not clipped': [first], **{f'clipped after update {s}': [r] for s, r in ends.items()}})",
    "06-rate": (
        "draw_costs({f'{s}': [twin.record] for s, twin in enumerate(twins)}, 'Cost, by the update of the lower rate')"
    ),
    "07-map": "draw_atlas(first, 'what happened')",
    "07-learned": "draw_atlas(first, 'held-out accuracy')",
    "07-edge": "draw_atlas(finer, 'what happened')",
    "08-odds": "draw_fan(found)",
    "09-slope": "draw_run(run.record, 'cost', 'gradient')",
    "09-attend": "draw_run(watched.record, 'cost', 'gradient')",
    "10-depth": (
        "draw_gradients({f'{depth} sigmoids': {'depth': depth, 'activation': 'sigmoid'} for depth in (5, 20, 50)})"
    ),
    "10-blame": ("draw_gradients({a: {'depth': 50, 'activation': a} for a in ('sigmoid', 'tanh', 'relu')})"),
    "10-small": "draw_run(ledger[0], 'cost', 'gradient')",
    "10-remedy": (
        "draw_gradients({name: {'depth': 50, 'activation': 'sigmoid'} | remedies[name] for name in remedies})"
    ),
    "11-bound": (
        "draw_curves({name: [[abs(place) for place in itertools.islice(walk(1.9, **each), 40)]]"
        " for name, each in {'plain': {}, 'momentum 0.9': {'momentum': 0.9},"
        " 'Nesterov 0.9': {'momentum': 0.9, 'nesterov': True}}.items()},"
        " 'Distance from the bottom, rate 1.9, curvature 1', 'update')"
    ),
    "11-saving": (
        "draw_curves({name: [[abs(place) for place in itertools.islice(walk(rate, momentum, curvature=0.01), 400)]]"
        " for name, rate, momentum in (('plain, rate 1.9', 1.9, 0), ('momentum 0.9, rate 3.6', 3.6, 0.9))},"
        " 'Distance from the bottom along the valley', 'update')"
    ),
    "11-three": "draw_costs(dict(zip(ways, ([r] for r in ledger[3:6]))), 'Cost, from update 61 on 1.5 times 2/λ')",
    "11-ringing": (
        "draw_curves({name: [1000 * (np.array(list(itertools.islice("
        "follow(trained.fork(learning_rate=critical.value / 2, **ways[name])), 31))) - places[0] + valley.present)]"
        " for name in ('plain', 'momentum')}, 'Distance along the sharpest direction, thousandths', 'update', False)"
    ),
    "12-bound": (
        "draw_curves({f'rate {rate}': [abs(np.array([*itertools.islice(walk(rate), 4000)])).reshape(200, 20).max(1)]"
        " for rate in (1, 100, 10000)}, 'Distance from the bottom, with its own divisor', 'times twenty updates')"
    ),
    "12-first": "draw_costs({f'{r.settings.learning_rate:g}': [r] for r in ledger[:4]}, 'Cost at four rates')",
    "12-decay": (
        "draw_curves({o: [[lengths[o, l2] for l2 in (0.1, 1, 10, 100)]] for o in ('sgd', 'adam', 'adamw')},"
        " 'Length of the weights after 30 updates', 'l2 of 0.1, 1, 10 and 100', False)"
    ),
    "12-broke": (
        "draw_costs(dict(zip(('rate 1', 'rate 10000', 'beta 2 of 0', 'log', 'float16, 1e-4', 'float16')"
        ", ([r] for r in ledger[-6:]))))"
    ),
    "13-range": "draw_costs({r.settings.precision: [r] for r in ledger[:3]}, 'Cost at the learning rate 1')",
    "13-sum": (
        "draw_curves({f'{bits} bits': [[keep(4 + i / 100, bits) for i in range(41)]] for bits in (8, 24)},"
        " 'What 4, 4.01, 4.02, ... become', 'number', False)"
    ),
    "13-small": (
        "draw_curves({name: [shares[name]] for name in shares},"
        " 'Norm of the first gradient over that of float32', 'layer, the first is cv0', False)"
    ),
    "13-scale": "draw_run(scaled.record, 'cost', 'loss_scale')",
}
"""Lab and unit -> what draws the picture, in the words of the lab's own cells and of the functions below."""


def main() -> None:
    """Make the pictures of the labs that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", help="numbers of labs, as in 03")
    parser.add_argument("--into", type=Path, default=HERE / "labs", help="the folder for the pictures")
    asked = parser.parse_args()
    asked.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[KEPT] = folder
        for number in asked.numbers or sorted({name[:2] for name in PICTURES}):
            run_lab(number)
        make_pictures(sorted(Path(folder).glob("*.json")), asked.into)


def run_lab(number: str) -> None:
    """Run a lab with a cell for each of its pictures, before the text that explains the unit."""
    sys.path.insert(0, str(NOTEBOOKS))
    from notebooks import execute_notebook, find_lab

    notebook = nbformat.read(find_lab(number), as_version=4)
    cells = []
    for cell in notebook.cells:
        name = f"{number}-{cell.id.removesuffix('-explain')}"
        if cell.id.endswith("-explain") and name in PICTURES:
            cells.append(nbformat.v4.new_code_cell(write_cell(name), id=f"{name}-picture"))
        cells.append(cell)
    notebook.cells = cells
    execute_notebook(notebook)


def write_cell(name: str) -> str:
    """The code that draws a picture in the lab's kernel, and leaves none of its names behind."""
    return (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import make_lab_pictures; sys.path.pop(0)\n"
        f"make_lab_pictures.keep({name!r}, eval({PICTURES[name]!r}, {{**vars(make_lab_pictures), **globals()}}))"
    )


def keep(name: str, figure: go.Figure) -> None:
    """Keep a figure for the browser."""
    Path(os.environ[KEPT], f"{name}.json").write_text(figure.to_json(), encoding="utf-8")


def draw_run(record: Record, *panels: str) -> go.Figure:
    """Two plots of the dashboard: the cost and the magnitudes of the weights, if no others are named."""
    return draw_dashboard(record, len(record), width=WIDTH, panels=panels or ("cost", "magnitudes"))


def draw_step(run: Any) -> go.Figure:
    """The cost along the sharpest direction of a run, and where its next step lands."""
    import cnnlab
    from cnnlab.dashboards.direction_panel import make_cut

    return draw_direction(make_cut(cnnlab.measure_direction(run), run.settings.learning_rate), width=WIDTH)


def draw_atlas(shown: Any, view: str) -> go.Figure:
    """A map alone, without the curves of a cell."""
    from cnnlab.plots.map import draw_map, refresh_map

    figure = draw_map(shown, width=WIDTH)
    refresh_map(figure, shown, view, None)
    figure.data = [trace for trace in figure.data if trace.name == "map"]
    figure.layout.annotations, figure.layout.shapes = (
        (),
        [shape for shape in figure.layout.shapes if shape.xref == "x domain"],
    )
    for axis in ("xaxis2", "yaxis2", "yaxis3"):
        figure.layout[axis].visible = False
    figure.layout.xaxis.domain, figure.data[0].colorbar.x = (0.1, 0.9), 0.91
    return figure


def draw_fan(shown: Any) -> go.Figure:
    """The costs of many seeds, and when they diverged."""
    from cnnlab.plots.seeds import draw_seeds

    return draw_seeds(shown, width=1034)


def draw_gradients(changes: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    """The standard deviation of the gradient by convolution in `deep_plain` with some changes, before any training."""
    import cnnlab

    curves = {}
    for name, each in changes.items():
        run = cnnlab.Run("deep_plain", **each)
        found = cnnlab.measure_signals(run)
        back = dict(zip(found.layers, found.backward_deviation, strict=True))
        curves[name] = [[back[f"cv{place}"] for place in range(run.settings.depth)]]
    return draw_curves(curves, "Deviation of the gradient at what a convolution puts out, seed 0", "convolution")


def draw_costs(groups: Mapping[str, Sequence[Record]], title: str = "Cost") -> go.Figure:
    """The costs of some runs, a colour for each group."""
    return draw_curves({name: [record.cost for record in records] for name, records in groups.items()}, title, "update")


def draw_curves(groups: Mapping[str, Sequence[Any]], title: str, across: str, log: bool = True) -> go.Figure:
    """Curves of one plot, a colour for each group and its name above; NaN and inf are crosses in a lane."""
    figure = make_figure(1.0, WIDTH, HEIGHT)
    rows = {name: [np.asarray(row, dtype=float) for row in curves] for name, curves in groups.items()}
    most = max(len(row) for curves in rows.values() for row in curves)
    figure.update_layout(
        xaxis={
            "domain": [0.07, 0.995],
            "range": [0.5, most + 0.5],
            "gridcolor": GRID,
            "zeroline": False,
            "title": {"text": across, "standoff": 4},
        },
        yaxis={"domain": [0.14, 0.82], "gridcolor": GRID, "zeroline": False, "tickfont": {"size": 10}},
        yaxis2=make_lane_axis("x", "y"),
        showlegend=True,
        legend={"orientation": "h", "x": 0.07, "y": 0.85, "yanchor": "bottom", "font": {"size": 11}},
    )
    figure.add_annotation(
        xref="paper",
        yref="paper",
        x=0.07,
        y=0.995,
        xanchor="left",
        yanchor="top",
        showarrow=False,
        text=f"<b>{title}</b>",
    )
    if log:
        heights = fit_log_range(np.concatenate([row for curves in rows.values() for row in curves]))
        figure.update_layout(yaxis={"type": "log", "exponentformat": "power", **heights})
        figure.add_shape(make_lane_ground("x", "y"))
    for number, (name, curves) in enumerate(rows.items()):
        line = {"color": BRANCH_COLOURS[number % len(BRANCH_COLOURS)], "width": 1.8}
        for place, row in enumerate(curves):
            usable = np.where(np.isfinite(row) & ((row > 0) | (not log)), row, np.nan)
            figure.add_scatter(
                x=np.arange(1, len(row) + 1),
                y=usable,
                mode="lines+markers",
                marker={"size": 4},
                line=line,
                name=name,
                showlegend=not place,
            )
            if log:
                marks = place_marks(row)
                marks["marker"] |= {"color": line["color"], "size": 7}
                figure.add_scatter(**marks, mode="markers", yaxis="y2", showlegend=False)
    return figure


def make_pictures(paths: Sequence[Path], into: Path) -> None:
    """Each figure as a picture on a light and on a dark ground."""
    from playwright.sync_api import sync_playwright
    from plotly.offline import get_plotlyjs

    sys.path.insert(0, str(BROWSER))
    from jupyter_page import launched

    with sync_playwright() as playwright:
        browser = launched(playwright)
        page = browser.new_page(viewport={"width": 2 * WIDTH, "height": 900}, device_scale_factor=SHARPNESS)
        page.set_content("<body style='margin:0'><div id='figure'></div></body>")
        page.add_script_tag(content=get_plotlyjs())
        for path in paths:
            figure = json.loads(path.read_text(encoding="utf-8"))
            for ground, shown in (("light", figure), ("dark", recolour(figure, DARK))):
                page.evaluate("({data, layout}) => Plotly.newPlot('figure', data, layout, {staticPlot: true})", shown)
                page.wait_for_timeout(200)
                picture = Image.open(io.BytesIO(page.locator("#figure .svg-container").screenshot())).convert("RGB")
                target = into / f"{path.stem}-{ground}.png"
                picture.quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
                print(target.name, target.stat().st_size, flush=True)
        browser.close()


if __name__ == "__main__":
    main()
