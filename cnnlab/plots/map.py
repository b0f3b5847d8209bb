"""Figures of many runs: the map of trainability, the fan of seeds, the lanes of remedies. No widgets, no torch.

NaN and inf have a lane of their own along the top of each plot of costs.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cnnlab.config.settings import LIMITS
from cnnlab.plots.dashboard import FAINT, FONTS, INK, LANES, RED, decades, lane_ground, lone
from cnnlab.records import map as maps
from cnnlab.records.map import CONVERGED, DIVERGED, STALLED, Map

COLOURS = {CONVERGED: "#0072B2", STALLED: "#E9E2C3", DIVERGED: "#C44E12"}
"""Label -> colour: blue, sand and vermilion differ in lightness, too, so that all kinds of colour vision tell them."""
LINES = {CONVERGED: "#0072B2", STALLED: "#A5934A", DIVERGED: "#C44E12"}
"""The same for thin lines on a white ground."""
LATE, SOON = "#F3B48B", "#7A2600"
"""Colours of a run that diverged at its last update, and at its first."""
NOT_YET = "#D5D9DF"
"""Colour of a cell that is not computed yet."""
VIEWS = {
    "what happened": "",
    "share that diverged": "Share of the seeds whose cost was NaN or infinite",
    "first update that was NaN or infinite": "Median over the seeds that diverged",
    "final cost": "Median over the seeds that did not diverge",
    "held-out accuracy": "Mean over the seeds that did not diverge",
}
"""View of a map -> what it shows of a cell's seeds."""
LEFT, RIGHT = (0.075, 0.56), (0.68, 0.995)
"""Where the map and the curves lie, as shares of the figure's width."""
PLACED = {"xref": "paper", "yref": "paper", "xanchor": "left", "showarrow": False, "align": "left"}
"""What all texts in a figure share."""
HEIGHT = 384
"""Height of a figure in pixels at scale 1."""


@dataclass(frozen=True)
class Scale:
    """How the numbers of a view are coloured."""

    colours: Any
    low: float
    high: float


def map_figure(shown: Map, *, scale: float = 1.0, width: int = 1060) -> go.Figure:
    """A map on the left, the cost curves of one of its cells on the right; both are filled in by `refresh_map`."""
    left, right = LEFT, RIGHT
    figure = go.Figure(layout=plain_layout(scale, width, HEIGHT))
    figure.add_trace(go.Heatmap(name="map", hoverinfo="text", xgap=1, ygap=1, colorbar=colour_bar(scale)))
    figure.add_traces(curves("x2", "y2", "y3"))
    figure.add_trace(
        go.Scatter(name="chosen", mode="markers", hoverinfo="skip", marker={
            "symbol": "square", "size": 10 * scale, "color": "white", "line": {"color": INK, "width": 2}})
    )  # fmt: skip
    figure.update_layout(
        xaxis={"domain": left, "showgrid": False, "zeroline": False},
        yaxis={"domain": [0.13, 0.97], "showgrid": False, "zeroline": False},
        **cost_axes("2", "3", right, (0.13, 0.9), shown.steps),
        dragmode="zoom",
        shapes=[{"type": "rect", "xref": "x domain", "yref": "y domain", "x0": 0, "x1": 1, "y0": 0, "y1": 1,
                 "fillcolor": NOT_YET, "line": {"width": 0}, "layer": "below"}],
    )  # fmt: skip
    figure.add_shape(lane_ground("2"))
    figure.add_annotation(lane_name("2", scale))
    figure.add_annotation(name="cell", x=right[0], y=0.97, text="<b>Cost</b>: click a cell", **PLACED, yanchor="middle")
    refresh_map(figure, shown, "what happened", None)
    return figure


def refresh_map(
    figure: Any, shown: Map, view: str, cell: tuple[int, ...] | None, hover: bool = True, seed: int = 0
) -> None:
    """Draw the map as it is now, and the curves of a cell, into a figure of `map_figure` in one message.

    `hover`: whether the texts that a pointer shows are written anew, too, which takes most of the time; if not, it
    shows none. `seed`: the place of the seed that was opened.
    """
    traces = {trace.name: trace for trace in figure.data}
    values, scale = picture(shown, view)
    nothing = bool(np.isnan(values).all())
    if nothing:  # plotly hears no click where no cell has a number
        values, scale = np.zeros_like(values), Scale([[0, NOT_YET], [1, NOT_YET]], 0.0, 1.0)
    power = view == "final cost"
    with figure.batch_update():
        traces["map"].update(
            z=listed(values), zmin=scale.low, zmax=scale.high, colorscale=scale.colours,
            showscale=view != "what happened" and not nothing, colorbar_title_text=view,
            colorbar_tickprefix="10<sup>" if power else "", colorbar_ticksuffix="</sup>" if power else "",
            hoverinfo="text" if hover else "none",
        )  # fmt: skip
        if hover:
            traces["map"].text = texts(shown)
        figure.layout.update(map_axes(shown))
        heading = next(note for note in figure.layout.annotations if note.name == "cell")
        if cell is None or len(cell) != len(shown.shape) - 1:
            refresh_curves(figure, shown, ())
            traces["chosen"].update(x=[], y=[])
            heading.text = "<b>Cost</b>: click a cell"
        else:
            places = [(*cell, seed) for seed in range(shown.shape[-1])]
            refresh_curves(figure, shown, places)
            row = cell[1] if len(cell) == 2 else seed
            traces["chosen"].update(x=[cell[0]], y=[row])
            heading.text = f"{title_of(shown, cell)}; opened: seed {shown.seeds[seed]}"


def picture(shown: Map, view: str) -> tuple[NDArray[np.float64], Scale]:
    """A view of a map as numbers (rows from below, columns), NaN where nothing is to be shown, and their scale.

    The first axis goes to the right, the second upwards. A map of one axis has its seeds upwards, one in a row.
    """
    by_run = len(shown.axes) == 1
    labels = shown.labels if not by_run else shown.labels[..., None]
    first = (shown.first_nonfinite if not by_run else shown.first_nonfinite[..., None]).astype(float)
    done = shown.done if not by_run else shown.done[..., None]
    if view == "what happened":
        values = happened(labels, first, shown.steps)
        scale = Scale(happened_colours(), 0.0, 3.0)
    elif view == "share that diverged":
        values = share(labels == DIVERGED, done)
        scale = Scale("Cividis", 0.0, 1.0)
    elif view == "first update that was NaN or infinite":
        values = over_seeds(np.nanmedian, np.where(first > 0, first, np.nan))
        scale = Scale("Cividis_r", 1.0, float(max(shown.steps, 2)))
    elif view == "final cost":
        final = shown.final_cost if not by_run else shown.final_cost[..., None]
        medians = over_seeds(np.nanmedian, np.where(done & np.isfinite(final), final, np.nan))
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(medians > 0, np.log10(medians), np.nan)
            values = np.where(medians <= 0, ends_of(values)[0], values)  # a cost of 0 has the colour of the least
        scale = Scale("Cividis", *ends_of(values))
    else:
        accuracy = shown.held_out_accuracy if not by_run else shown.held_out_accuracy[..., None]
        values = over_seeds(np.nanmean, np.where(first > 0, np.nan, accuracy))
        scale = Scale("Cividis", 0.0, 1.0)
    return values.T, scale


def happened(labels: NDArray[np.str_], first: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """The most frequent label of each cell (the worse one of two): 0.5 converged, 1.5 stalled, from 2 up diverged.

    The sooner the median run of those that diverged did, the nearer to 3.
    """
    counts = np.stack([(labels == label).sum(axis=-1) for label in (DIVERGED, STALLED, CONVERGED)])
    median = over_seeds(np.nanmedian, np.where(first > 0, first, np.nan))
    sooner = 1 - np.log(np.maximum(median, 1)) / math.log(max(steps, 2))
    found = np.choose(
        counts.argmax(axis=0), [2.02 + 0.97 * sooner, np.full_like(median, 1.5), np.full_like(median, 0.5)]
    )
    return np.where(counts.sum(axis=0) > 0, found, np.nan)


def happened_colours() -> list[tuple[float, str]]:
    """Blue up to 1, sand up to 2, and from there vermilion, the darker the sooner."""
    third = 1 / 3
    blue, sand = COLOURS[CONVERGED], COLOURS[STALLED]
    return [(0, blue), (third, blue), (third, sand), (2 * third, sand), (2 * third, LATE), (1, SOON)]


def over_seeds(reduce: Any, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A mean or median over the last axis that passes NaN over; NaN where there is nothing else."""
    some = ~np.isnan(values).all(axis=-1)
    found = np.full(values.shape[:-1], np.nan)
    found[some] = reduce(values[some], axis=-1)
    return found


def share(hits: NDArray[np.bool_], done: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of hits among what is done; NaN where nothing is."""
    counts = done.sum(axis=-1)
    return np.where(counts > 0, (hits & done).sum(axis=-1) / np.maximum(counts, 1), np.nan)


def ends_of(values: NDArray[np.float64]) -> tuple[float, float]:
    """The least and the largest of some numbers, a little apart; 0 and 1 if there are none."""
    if np.isnan(values).all():
        return 0.0, 1.0
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return low, max(high, low + 0.1)


def listed(values: NDArray[np.float64]) -> list[list[float | None]]:
    """Rows of numbers as JSON holds them: None for NaN."""
    return [[None if math.isnan(value) else round(value, 4) for value in row] for row in values.tolist()]


def texts(shown: Map) -> list[list[str]]:
    """What the pointer shows of each cell, row by row as in `picture`."""
    if len(shown.axes) == 1:
        return [[shown.at(place, seed).replace(": ", ":<br>", 1) for place in range(shown.shape[0])]
                for seed in range(shown.shape[1])]  # fmt: skip
    columns, rows = shown.shape[:2]
    return [[cell_text(shown, (column, row)) for column in range(columns)] for row in range(rows)]


def cell_text(shown: Map, cell: tuple[int, ...]) -> str:
    """What became of a cell's seeds, in a few lines."""
    lines = [f"<b>{named_values(shown, cell)}</b>"]
    count = int(shown.done[cell].sum())
    if not count:
        return f"{lines[0]}<br>not computed yet"
    labels = shown.labels[cell]
    lines.append(", ".join(f"{(labels == label).sum()} {label}" for label in (CONVERGED, STALLED, DIVERGED)))
    diverged = shown.diverged[cell]
    if diverged.any():
        low, high = maps.wilson(int(diverged.sum()), count)
        lines.append(f"first NaN or inf at update {np.median(shown.first_nonfinite[cell][diverged]):g} (median)")
        lines.append(f"P(NaN) {diverged.sum() / count:.2f}, between {low:.2f} and {high:.2f} (95 %)")
    survived = shown.done[cell] & ~diverged
    if survived.any():
        cost = np.median(shown.final_cost[cell][survived])
        lines.append(f"cost {cost:.3g}, held-out accuracy {shown.held_out_accuracy[cell][survived].mean():.2f}")
    return "<br>".join(lines)


def named_values(shown: Map, cell: tuple[int, ...]) -> str:
    """The fields of a cell with their values."""
    return ", ".join(
        f"{name} {called[place]}" for (name, _), called, place in zip(shown.axes, shown.names, cell, strict=False)
    )


def title_of(shown: Map, cell: tuple[int, ...]) -> str:
    """What stands above the curves of a cell."""
    return f"<b>Cost</b> at {named_values(shown, cell)}"


def map_axes(shown: Map) -> dict[str, Any]:
    """Titles, ticks and ranges of a map's two axes."""
    (across, *up), (columns, *rows) = [LIMITS[name].label for name, _ in shown.axes], shown.names
    upwards = axis(up[0], rows[0]) if up else axis("Seed", [str(seed) for seed in shown.seeds])
    return {"xaxis": axis(across, columns), "yaxis": upwards}


def axis(title: str, names: Sequence[str]) -> dict[str, Any]:
    """An axis of cells, with about nine of their names."""
    every = max(1, math.ceil(len(names) / 9))
    places = list(range(0, len(names), every))
    ticks = {"tickvals": places, "ticktext": [names[place] for place in places]}
    return {"title": {"text": title, "standoff": 4}, "range": [-0.5, len(names) - 0.5], **ticks}


# Curves of costs.


def curves(x: str, y: str, lane: str) -> list[go.Scatter]:
    """Empty curves of costs, one trace for each label, points for lone costs, marks of what is NaN or infinite."""
    made = [
        go.Scatter(name=label, mode="lines", line={"color": LINES[label], "width": 1.4}, opacity=0.75, xaxis=x, yaxis=y)
        for label in (STALLED, CONVERGED, DIVERGED)
    ]
    made.append(go.Scatter(name="lone", mode="markers", marker={"size": 4}, xaxis=x, yaxis=y))
    marker = {"symbol": "triangle-down", "color": INK, "size": 6}
    made.append(go.Scatter(name="zero", mode="markers", marker=marker, xaxis=x, yaxis=lane, hoverinfo="skip"))
    marker = {"symbol": "x", "color": RED, "size": 7}
    made.append(go.Scatter(name="lost", mode="markers", marker=marker, xaxis=x, yaxis=lane, hoverinfo="skip"))
    for trace in made[:-1]:
        trace.update(hovertemplate="update %{x}: cost %{y:.3g}<extra></extra>")
    return made


def refresh_curves(figure: Any, shown: Map, places: Sequence[tuple[int, ...]]) -> tuple[float, float]:
    """Draw the costs of some runs into the traces of `curves`; returns the range of their axis, in powers of ten."""
    traces = {trace.name: trace for trace in figure.data}
    done = [place for place in places if shown.done[place]]
    for label in (CONVERGED, STALLED, DIVERGED):
        x, y = joined([shown.cost[place] for place in done if shown.labels[place] == label])
        traces[label].update(x=x, y=y)
    steps = np.arange(1, shown.steps + 1)
    alone = [(*lone(steps, shown.cost[place]), LINES[shown.labels[place]]) for place in done]
    traces["lone"].update(
        x=[step for x, _, _ in alone for step in x.tolist()],
        y=[cost for _, y, _ in alone for cost in y.tolist()],
        marker={"color": [colour for x, _, colour in alone for _ in x]},
    )
    zero = np.unique([step for place in done for step in steps[shown.cost[place] <= 0].tolist()])
    traces["zero"].update(x=zero.tolist(), y=[LANES["low"]] * len(zero))
    lost = [int(shown.first_nonfinite[place]) for place in done if shown.diverged[place]]
    heights = [LANES["nan"] - 0.06 * (rank % 3) / 2 for rank in range(len(lost))]
    traces["lost"].update(x=lost, y=heights)
    costs = np.array([shown.cost[place] for place in done]).ravel()
    found = decades(costs)
    figure.layout.yaxis2.update(found)
    figure.layout.xaxis2.range = [0.5, shown.steps + 0.5]
    low, high = found["range"]
    return low, high


def joined(rows: Sequence[NDArray[np.float64]]) -> tuple[list[float | None], list[float | None]]:
    """Several curves as one trace with gaps between them."""
    x: list[float | None] = []
    y: list[float | None] = []
    for row in rows:
        x += [*range(1, len(row) + 1), None]
        y += [float(value) if math.isfinite(value) and value > 0 else None for value in row]
        y.append(None)
    return x, y


def plain_layout(scale: float, width: int, height: int) -> dict[str, Any]:
    """What all these figures share."""
    return {
        "width": width, "height": round(height * scale),
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0, "autoexpand": False},
        "font": {"size": 11 * scale, "color": INK, "family": FONTS},
        "paper_bgcolor": "white", "plot_bgcolor": "#F7F8FA",
        "showlegend": False, "hovermode": "closest", "hoverlabel": {"align": "left"},
    }  # fmt: skip


def lane_name(suffix: str, scale: float) -> dict[str, Any]:
    """The name of that lane."""
    return {
        "xref": f"x{suffix} domain", "yref": f"y{suffix} domain", "x": 0.995, "y": 0.935, "xanchor": "right",
        "yanchor": "middle", "showarrow": False, "text": "NaN, inf", "font": {"size": 9 * scale, "color": RED},
    }  # fmt: skip


def cost_axes(suffix: str, lane: str, across: Sequence[float], up: Sequence[float], steps: int) -> dict[str, Any]:
    """The axes of a plot of costs: updates, costs on a log axis, and the lane of NaN and inf above them."""
    return {
        f"xaxis{suffix}": {
            "domain": list(across), "anchor": f"y{suffix}", "range": [0.5, steps + 0.5], "fixedrange": True,
            "tickmode": "linear" if steps <= 6 else "auto", "tick0": 0, "dtick": 1,
            "title": {"text": "Update", "standoff": 4}, "gridcolor": "#E6E9ED", "zeroline": False,
        },
        f"yaxis{suffix}": {
            "domain": list(up), "anchor": f"x{suffix}", "type": "log", "exponentformat": "power", "tick0": 0,
            "gridcolor": "#E6E9ED", "zeroline": False, "fixedrange": True, "tickfont": {"size": 10},
        },
        f"yaxis{lane}": {
            "overlaying": f"y{suffix}", "anchor": f"x{suffix}", "range": [0, 1], "visible": False, "fixedrange": True,
        },
    }  # fmt: skip


def colour_bar(scale: float) -> dict[str, Any]:
    """The bar beside a map that says what a colour means."""
    return {
        "x": LEFT[1] + 0.005, "xanchor": "left", "y": 0.55, "len": 0.84, "thickness": 10 * scale,
        "title": {"side": "right"}, "tickfont": {"size": 9 * scale},
    }  # fmt: skip


# The fan of seeds.


def fan_figure(shown: Map, *, scale: float = 1.0, width: int = 1060) -> go.Figure:
    """The cost curves of all seeds with a band of quantiles, and beside it when they ended; see `refresh_fan`."""
    figure = go.Figure(layout=plain_layout(scale, width, HEIGHT))
    band = {"mode": "lines", "line": {"width": 0}, "xaxis": "x2", "yaxis": "y2", "hoverinfo": "skip"}
    figure.add_traces([
        go.Scatter(name="low", **band),
        go.Scatter(name="high", **band, fill="tonexty", fillcolor="rgba(51,34,136,0.16)"),
        *curves("x2", "y2", "y3"),
        go.Scatter(name="median", mode="lines", line={"color": INK, "width": 2.5}, xaxis="x2", yaxis="y2",
                   hovertemplate="median at update %{x}: %{y:.3g}<extra></extra>"),
        go.Bar(name="ends", marker={"color": COLOURS[DIVERGED]}, xaxis="x4", yaxis="y4",
               hovertemplate="%{y} seeds at update %{x}<extra></extra>"),
    ])  # fmt: skip
    figure.update_layout(
        **cost_axes("2", "3", (0.055, 0.62), (0.13, 0.9), shown.steps),
        xaxis4={"domain": [0.7, 0.995], "anchor": "y4", "range": [0.5, shown.steps + 0.5], "fixedrange": True,
                "tickmode": "linear" if shown.steps <= 6 else "auto", "tick0": 0, "dtick": 1,
                "title": {"text": "First update that was NaN or infinite", "standoff": 4}},
        yaxis4={"domain": [0.13, 0.78], "anchor": "x4", "gridcolor": "#E6E9ED", "fixedrange": True,
                "title": {"text": "Seeds", "standoff": 4}},
    )  # fmt: skip
    for x, y in ((0.055, 0.955), (0.7, 0.9)):
        figure.add_annotation(
            x=x,
            y=y,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="middle",
            showarrow=False,
            align="left",
            text="",
        )
    figure.add_shape(lane_ground("2"))
    figure.add_annotation(lane_name("2", scale))
    refresh_fan(figure, shown)
    return figure


def refresh_fan(figure: Any, shown: Map) -> None:
    """Draw all seeds that are computed so far into a figure of `fan_figure` in one message."""
    traces = {trace.name: trace for trace in figure.data}
    with figure.batch_update():
        low, high = refresh_curves(figure, shown, [(seed,) for seed in range(shown.shape[0])])
        steps = list(range(1, shown.steps + 1))
        lane = 10 ** min(low + LANES["nan"] * (high - low), 307.0)  # where a quantile is NaN or infinite
        for name, row in zip(("low", "median", "high"), quantiles(shown.cost[shown.done]), strict=True):
            drawn = [min(float(value), lane) if value > 0 else None for value in row]
            traces[name].update(x=steps[: len(drawn)], y=drawn)
        counts = np.bincount(shown.first_nonfinite[shown.diverged], minlength=shown.steps + 1)[1:]
        traces["ends"].update(x=steps, y=counts.tolist())
        most = max(int(counts.max()), 1)
        figure.layout.yaxis4.update(range=[0, most * 1.08], dtick=max(1, math.ceil(most / 5)))
        figure.layout.annotations[0].text = "<b>Cost of each seed</b>, the median, and the band of 10 % to 90 %"
        figure.layout.annotations[1].text = odds_of(shown)


def quantiles(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 10 %, 50 % and 90 % quantiles (3, updates) of costs (seeds, updates); NaN counts as more than any number."""
    if not len(costs):
        return np.full((3, 0), np.nan)
    known = np.sort(np.where(np.isnan(costs), np.inf, costs), axis=0)
    places = np.round(np.array([0.1, 0.5, 0.9]) * (len(known) - 1)).astype(int)
    return known[places]


def odds_of(shown: Map) -> str:
    """How likely a NaN is, with the interval of Wilson, and what became of the other seeds."""
    count, hits = int(shown.done.sum()), int(shown.diverged.sum())
    low, high = maps.wilson(hits, count)
    if not count:
        return "<b>P(NaN)</b>: nothing computed yet"
    others = [f"{(shown.labels == label).sum()} {label}" for label in (STALLED, CONVERGED)]
    first = f"<b>P(NaN) = {hits / count:.2f}</b>, 95 % interval {low:.2f} to {high:.2f}"
    return f"{first}<br>{hits} of {count} diverged, {', '.join(others)}"


# The lanes of remedies.


@dataclass(frozen=True, eq=False)
class Lane:
    """One remedy and how the run with it fares."""

    name: str
    """What is changed, in a person's words."""
    changes: str
    """The same as settings."""
    cost: NDArray[np.float64]
    verdict: str
    label: str


COLUMNS = 4
"""Lanes side by side."""


def lanes_figure(lanes: Sequence[Lane], steps: int, *, scale: float = 1.0, width: int = 1060) -> go.Figure:
    """A small plot of the cost for each remedy; see `refresh_lanes`."""
    rows = math.ceil(len(lanes) / COLUMNS)
    figure = go.Figure(layout=plain_layout(scale, width, 225 * rows))
    for place, lane in enumerate(lanes):
        column, row = place % COLUMNS, place // COLUMNS
        left, bottom = 0.04 + column * 0.245, 1 - (row + 1) / rows
        across, up = (left, left + 0.205), (bottom + 0.2 / rows, bottom + 0.72 / rows)
        suffix, over = str(2 * place + 2), str(2 * place + 3)
        axes = cost_axes(suffix, over, across, up, steps)
        axes[f"xaxis{suffix}"]["title"] = None
        figure.update_layout(**axes)
        named = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}", "hovertemplate": "update %{x}: %{y:.3g}<extra></extra>"}
        marker = {"symbol": "x", "color": RED, "size": 6}
        line = {"width": 2, "color": INK}
        figure.add_trace(go.Scatter(name=f"cost {place}", mode="lines+markers", line=line, marker={"size": 3}, **named))
        figure.add_trace(
            go.Scatter(name=f"lost {place}", mode="markers", marker=marker, xaxis=f"x{suffix}", yaxis=f"y{over}",
                       hoverinfo="skip")
        )  # fmt: skip
        figure.add_shape(lane_ground(suffix))
        name = textwrap.shorten(lane.name, 36, placeholder="…")
        told = "<br>".join(textwrap.wrap(lane.changes, 42, max_lines=2, placeholder="…"))
        words = f"<b>{name}</b><br><span style='color:#555'>{told}</span>"
        top, low = bottom + 0.99 / rows, bottom + 0.1 / rows
        figure.add_annotation(x=left, y=top, text=words, **PLACED, yanchor="top")
        figure.add_annotation(x=left, y=low, text="", **PLACED, yanchor="top")
    refresh_lanes(figure, lanes)
    return figure


def refresh_lanes(figure: Any, lanes: Sequence[Lane]) -> None:
    """Draw curves and verdicts as they are now; all lanes have the same range of costs."""
    traces = {trace.name: trace for trace in figure.data}
    wanted = decades(np.concatenate([lane.cost for lane in lanes]))
    with figure.batch_update():
        for place, lane in enumerate(lanes):
            x, y = joined([lane.cost])
            colour = LINES.get(lane.label, FAINT)
            traces[f"cost {place}"].update(x=x, y=y, line_color=colour, marker_color=colour)
            lost = np.flatnonzero(~np.isfinite(lane.cost)) + 1
            traces[f"lost {place}"].update(x=lost.tolist(), y=[LANES["nan"]] * len(lost))
            figure.layout[f"yaxis{2 * place + 2}"].update(wanted)
            words = f"<b><span style='color:{colour}'>{lane.verdict}</span></b>"
            figure.layout.annotations[2 * place + 1].text = words
