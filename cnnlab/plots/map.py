"""The map of trainability: what became of the runs at each cell, and the cost curves of one cell beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cnnlab.config.settings import LIMITS
from cnnlab.plots.colours import CELLS, INK, LATE, NOT_YET, PAPER, SOON
from cnnlab.plots.cost_curves import ON_FIGURE, add_cost_curves, add_cost_plot, make_figure, refresh_cost_curves
from cnnlab.plots.layout import HEIGHT, find_note
from cnnlab.records.map import CONVERGED, DIVERGED, STALLED, Map, wilson

LABEL_SCALE = [
    (0, CELLS[CONVERGED]), (1 / 3, CELLS[CONVERGED]), (1 / 3, CELLS[STALLED]), (2 / 3, CELLS[STALLED]),
    (2 / 3, LATE), (1, SOON),
]  # fmt: skip
"""Blue, beige, and from light orange to dark brown: the darker, the sooner a run diverged."""
VIEWS = {
    "what happened": "",
    "share that diverged": "Share of the seeds whose cost was NaN or infinite",
    "first update that was NaN or infinite": "Median over the seeds that diverged",
    "final cost": "Median over the seeds that did not diverge",
    "held-out accuracy": "Mean over the seeds that did not diverge",
}
"""View of a map -> what it shows of a cell's seeds."""
OF_ONE = {
    "what happened": "",
    "share that diverged": "1 where the cost was NaN or infinite, else 0",
    "first update that was NaN or infinite": "Of the runs that diverged",
    "final cost": "Of the runs that did not diverge",
    "held-out accuracy": "Of the runs that did not diverge",
}
"""View of a map -> what it shows where a cell is a single run."""
MOST_TOLD = 2**14
"""Most cells, 128 x 128, of which the pointer shows a text: 3 MB for the page, and two seconds for writing them."""
LONGEST_NAME = 10
"""Most characters of a cell's name beside the map that stand in one line."""
LEFT, RIGHT = (0.075, 0.56), (0.68, 0.995)
"""Where the map and the curves lie, as shares of the figure's width."""


@dataclass(frozen=True)
class Scale:
    """How the numbers of a view are coloured."""

    colours: Any
    low: float
    high: float


def draw_map(shown: Map, *, scale: float = 1.0, width: int = 1060) -> go.Figure:
    """A map on the left, the cost curves of one of its cells on the right; both are filled in by `refresh_map`."""
    figure = make_figure(scale, width, HEIGHT)
    figure.add_heatmap(name="map", hoverinfo="text", xgap=1, ygap=1, colorbar=make_colour_bar(scale))
    figure.update_layout(
        xaxis={"domain": LEFT, "showgrid": False, "zeroline": False},
        yaxis={"domain": [0.13, 0.97], "showgrid": False, "zeroline": False},
        dragmode="zoom",
    )
    figure.add_shape(
        type="rect", xref="x domain", yref="y domain", x0=0, x1=1, y0=0, y1=1, fillcolor=NOT_YET, line={"width": 0},
        layer="below",
    )  # fmt: skip
    add_cost_curves(figure, *add_cost_plot(figure, 2, RIGHT, (0.13, 0.9), shown.steps), scale)
    marker = {"symbol": "square", "size": 10 * scale, "color": PAPER, "line": {"color": INK, "width": 2}}
    figure.add_scatter(name="chosen", mode="markers", hoverinfo="skip", marker=marker)
    figure.add_annotation(name="cell", x=RIGHT[0], y=0.95, text="", **ON_FIGURE, yanchor="middle")
    refresh_map(figure, shown, "what happened", None)
    return figure


def make_colour_bar(scale: float) -> dict[str, Any]:
    """The bar beside a map that says what a colour means."""
    return {
        "x": LEFT[1] + 0.005, "xanchor": "left", "y": 0.55, "len": 0.84, "thickness": 10 * scale,
        "outlinewidth": 0, "ticks": "",
        "title": {"side": "right"}, "tickfont": {"size": 9 * scale},
    }  # fmt: skip


def refresh_map(
    figure: Any, shown: Map, view: str, cell: tuple[int, ...] | None, hover: bool = True, seed: int = 0
) -> None:
    """Draw the map as it is now, and the curves of a cell, into a figure of `map_figure` in one message.

    `hover`: whether the texts that a pointer shows are written anew, too, which takes most of the time; if not, or of
    more than MOST_TOLD cells, it shows none. `seed`: the place of the seed that was opened.
    """
    traces = {trace.name: trace for trace in figure.data}
    values, scale = colour_cells(shown, view)
    nothing = bool(np.isnan(values).all())
    if nothing:  # plotly hears no click where no cell has a number
        values, scale = np.zeros_like(values), Scale([[0, NOT_YET], [1, NOT_YET]], 0.0, 1.0)
    power, hover = view == "final cost", hover and values.size <= MOST_TOLD
    with figure.batch_update():
        traces["map"].update(
            z=list_rows(values), zmin=scale.low, zmax=scale.high, colorscale=scale.colours,
            showscale=view != "what happened" and not nothing, colorbar_title_text=view,
            colorbar_tickprefix="10<sup>" if power else "", colorbar_ticksuffix="</sup>" if power else "",
            hoverinfo="text" if hover else "none",
        )  # fmt: skip
        if hover:
            traces["map"].text = tell_cells(shown)
        figure.layout.update(make_axes(shown))
        heading = find_note(figure, "cell")
        if cell is None or len(cell) != len(shown.axes):
            refresh_cost_curves(figure, shown, ())
            traces["chosen"].update(x=[], y=[])
            heading.text = "<b>Cost</b>: click a cell"
        else:
            refresh_cost_curves(figure, shown, [(*cell, place) for place in range(len(shown.seeds))])
            traces["chosen"].update(x=[cell[0]], y=[cell[1] if len(cell) == 2 else seed])
            heading.text = f"<b>Cost</b> at {name_cell(shown, cell)}<br>opened: seed {shown.seeds[seed]}"


def explain_view(shown: Map, view: str) -> str:
    """What a view shows of a cell: of its one run, or of its seeds."""
    return (VIEWS if len(shown.axes) == 2 and len(shown.seeds) > 1 else OF_ONE)[view]


def colour_cells(shown: Map, view: str) -> tuple[NDArray[np.float64], Scale]:
    """A view of a map as numbers (rows from below, columns), NaN where nothing is to be shown, and their scale.

    The first axis goes to the right, the second upwards. A map of one axis has its seeds upwards, one in a row.
    """
    # The runs of a cell on the last axis; each run is a cell of its own where there is one axis.
    whole = ... if len(shown.axes) == 2 else (..., None)
    labels, first, done = shown.labels[whole], shown.first_nonfinite[whole].astype(float), shown.done[whole]
    if view == "what happened":
        return rank_labels(labels, first, shown.steps).T, Scale(LABEL_SCALE, 0.0, 3.0)
    if view == "share that diverged":
        return share_diverged(labels, done).T, Scale("Cividis", 0.0, 1.0)
    if view == "first update that was NaN or infinite":
        values = reduce_seeds(np.nanmedian, np.where(first > 0, first, np.nan))
        return values.T, Scale("Cividis_r", 1.0, float(max(shown.steps, 2)))
    if view == "final cost":
        final = shown.final_cost[whole]
        medians = reduce_seeds(np.nanmedian, np.where(done & np.isfinite(final), final, np.nan))
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(medians > 0, np.log10(medians), np.nan)
        values = np.where(medians <= 0, find_extremes(values)[0], values)  # a cost of 0 has the colour of the least
        return values.T, Scale("Cividis", *find_extremes(values))
    values = reduce_seeds(np.nanmean, np.where(first > 0, np.nan, shown.held_out_accuracy[whole]))
    return values.T, Scale("Cividis", 0.0, 1.0)


def rank_labels(labels: NDArray[np.str_], first: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """The most frequent label of each cell (the worse one of two): 0.5 converged, 1.5 stalled, from 2 up diverged.

    The sooner the median run of those that diverged did, the nearer to 3.
    """
    counts = np.stack([(labels == label).sum(axis=-1) for label in (DIVERGED, STALLED, CONVERGED)])
    median = reduce_seeds(np.nanmedian, np.where(first > 0, first, np.nan))
    sooner = 1 - np.log(np.maximum(median, 1)) / math.log(max(steps, 2))
    heights = np.choose(counts.argmax(axis=0), [2.02 + 0.97 * sooner, np.float64(1.5), np.float64(0.5)])
    return np.where(counts.sum(axis=0) > 0, heights, np.nan)


def reduce_seeds(reduce: Callable[..., NDArray[np.float64]], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A mean or median over the last axis that passes NaN over; NaN where there is nothing else."""
    some = ~np.isnan(values).all(axis=-1)
    reduced = np.full(values.shape[:-1], np.nan)
    reduced[some] = reduce(values[some], axis=-1)
    return reduced


def share_diverged(labels: NDArray[np.str_], done: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of the runs that diverged among those that are done; NaN where none is."""
    counts = done.sum(axis=-1)
    diverged = ((labels == DIVERGED) & done).sum(axis=-1)
    return np.where(counts > 0, diverged / np.maximum(counts, 1), np.nan)


def find_extremes(values: NDArray[np.float64]) -> tuple[float, float]:
    """The least and the largest of some numbers, a little apart; 0 and 1 if there are none."""
    if np.isnan(values).all():
        return 0.0, 1.0
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return low, max(high, low + 0.1)


def list_rows(values: NDArray[np.float64]) -> list[list[float | None]]:
    """Rows of numbers as JSON holds them: None for NaN."""
    return [[None if math.isnan(value) else round(value, 4) for value in row] for row in values.tolist()]


def tell_cells(shown: Map) -> list[list[str]]:
    """What the pointer shows of each cell, row by row as in `colour_cells`."""
    if len(shown.axes) == 1:
        return [[tell_run(shown, (place, seed)) for place in range(shown.shape[0])] for seed in range(shown.shape[1])]
    columns, rows = shown.shape[:2]
    return [[tell_cell(shown, (column, row)) for column in range(columns)] for row in range(rows)]


def tell_cell(shown: Map, cell: tuple[int, ...]) -> str:
    """What became of a cell's seeds, in a few lines and in the words of the views."""
    if len(shown.seeds) == 1:
        return tell_run(shown, (*cell, 0))
    lines = [f"<b>{name_cell(shown, cell)}</b>"]
    count = int(shown.done[cell].sum())
    if not count:
        return f"{lines[0]}<br>not computed yet"
    labels, first = shown.labels[cell], shown.first_nonfinite[cell]
    lines.append(", ".join(f"{(labels == label).sum()} {label}" for label in (CONVERGED, STALLED, DIVERGED)))
    diverged = first > 0  # not `shown.diverged[cell]`, which looks at the whole map for each cell
    if diverged.any():
        low, high = wilson(int(diverged.sum()), count)
        lines.append(f"share that diverged {diverged.sum() / count:.2f}, between {low:.2f} and {high:.2f} (95 %)")
        lines.append(f"first update that was NaN or infinite {np.median(first[diverged]):g} (median)")
    survived = shown.done[cell] & ~diverged
    if survived.any():
        lines.append(f"final cost {np.median(shown.final_cost[cell][survived]):.3g} (median)")
        lines.append(f"held-out accuracy {shown.held_out_accuracy[cell][survived].mean():.2f} (mean)")
    return "<br>".join(lines)


def tell_run(shown: Map, place: tuple[int, ...]) -> str:
    """What became of one run, in two lines."""
    name, _, fate = shown.at(*place).partition(": ")
    return f"<b>{name}</b><br>{fate}"


def name_cell(shown: Map, cell: tuple[int, ...]) -> str:
    """The fields of a cell with their values."""
    return ", ".join(
        f"{name} {called[place]}" for (name, _), called, place in zip(shown.axes, shown.names, cell, strict=False)
    )


def make_axes(shown: Map) -> dict[str, Any]:
    """Titles, ticks and ranges of a map's two axes."""
    (across, *up), (columns, *rows) = [LIMITS[name].label for name, _ in shown.axes], shown.names
    upwards = make_axis(up[0], rows[0]) if up else make_axis("Seed", [str(seed) for seed in shown.seeds])
    return {"xaxis": make_axis(across, columns), "yaxis": upwards}


def break_name(name: str) -> str:
    """A long name in two lines, so that it covers neither its neighbours nor the title of its axis."""
    return name if len(name) <= LONGEST_NAME else name.replace("_", "_<br>", 1)


def make_axis(title: str, names: Sequence[str]) -> dict[str, Any]:
    """An axis of cells, with about nine of their names."""
    every = max(1, math.ceil(len(names) / 9))
    places = list(range(0, len(names), every))
    ticks = {"tickvals": places, "ticktext": [break_name(names[place]) for place in places]}
    return {"title": {"text": title, "standoff": 4}, "range": [-0.5, len(names) - 0.5], "ticks": "", **ticks}
