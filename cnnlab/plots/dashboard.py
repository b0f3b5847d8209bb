"""The dashboard's one plotly figure: made once from a record, refreshed in place. No widgets, no torch.

NaN and inf have a lane of their own along the top of a plot, values of 0 or less one along the bottom of a log axis;
what was not measured is a gap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cnnlab.plots.images import NONFINITE, bands_picture
from cnnlab.plots.layer_groups import grouped
from cnnlab.plots.sharpness import draw_stability, shown_heights
from cnnlab.records.frame import is_measured, is_nonfinite
from cnnlab.records.histograms import Exponents
from cnnlab.records.record import Record

PALETTE = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499")
"""Paul Tol's "muted" scheme: nine colours that all kinds of colour vision tell apart. One a layer, everywhere."""
FONTS = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
INK, FAINT, RED = "#222222", "#B8BEC6", "rgb({},{},{})".format(*NONFINITE)
COST_POINTS, LAYER_POINTS, COLUMNS, BINS = 1000, 160, 120, 22
"""Most points of the cost curve and of a layer's curve; most columns of the picture over time, and its bins a layer."""
SHORT = 60
"""Updates that the time axes hold at first where more are planned; they double as a run grows."""
BRANCHES = 6
"""Most other branches that are drawn, the youngest ones."""
BRANCH_COLOURS = ("#222222", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's (2008) colours, one a branch by its number; they repeat."""
LANES = {"nan": 0.965, "inf": 0.905, "low": 0.03}
"""Heights of the lanes within a plot: NaN, inf, and values that a log axis cannot show."""
YARDSTICK = 1e-3
"""The update/weight ratio near which training is healthy (Karpathy 2022)."""
NOTHING = np.empty(0)
PANELS = {
    "cost": (0.042, 0.29, 0.57, 0.94),
    "magnitudes": (0.385, 0.655, 0.57, 0.94),
    "over_time": (0.715, 0.978, 0.57, 0.94),
    "accuracy": (0.042, 0.29, 0.07, 0.185),
    "gradient": (0.385, 0.655, 0.07, 0.44),
    "ratio": (0.735, 0.978, 0.07, 0.44),
}
"""Panel -> left, right, bottom, top as shares of the figure; in the order of their axes."""
STABILITY = (0.042, 0.29, 0.25, 0.44)
"""The same of the cost's companion, whose axes are x10 and y10; y11 is its lane."""
TITLES = {
    "cost": "Cost",
    "magnitudes": "Weight magnitudes",
    "over_time": "Over time",
    "accuracy": "Accuracy",
    "gradient": "Gradient norm",
    "ratio": "Update/weight",
}


def colour_of(layer: int) -> str:
    """The colour of a layer by its place; they repeat after nine."""
    return PALETTE[layer % len(PALETTE)]


def branch_colour(number: int) -> str:
    """The colour of a branch; the first one is in ink."""
    return BRANCH_COLOURS[(number - 1) % len(BRANCH_COLOURS)]


def dashboard(record: Record, goal: int, *, scale: float = 1.0, width: int = 800) -> go.Figure:
    """The figure of a record whose run goes up to update `goal`; `scale` enlarges it, `width` is in pixels."""
    record = grouped(record)
    layers = len(record.layers)
    figure = go.Figure(layout=layout(record, scale, width))
    figure.add_traces(
        [
            curve("ghosts", "cost", FAINT, width=1.2),
            *(curve(f"branch {place}", "cost", INK, width=1.5) for place in range(BRANCHES)),
            curve("cost", "cost", INK, width=2),
            curve("lone costs", "cost", INK, mode="markers", marker={"size": 4}),
            lane("ghost marks", "cost", FAINT),
            lane("cost marks", "cost", RED),
            curve("accuracy", "accuracy", INK, width=1.5),
            curve("lone accuracy", "accuracy", INK, mode="markers", marker={"size": 4, "color": INK}),
            curve("held out", "accuracy", "#D55E00", width=2, mode="lines+markers", connectgaps=True),
            go.Image(name="over time", xaxis="x3", yaxis="y3", hoverinfo="skip", zsmooth=False),
            curve("yardstick", "ratio", FAINT, width=1, dash="dash"),
            lane("lost weights", "magnitudes", RED),
            curve("threshold", "stability", "#D55E00", width=1.5, dash="dash"),
            curve("sharpness", "stability", INK, width=1.5, mode="lines+markers", marker={"size": 3}, cliponaxis=False),
            lane("sharpness marks", "stability", RED),
            layer_marks("gradient marks", "gradient", "y8"),
            layer_marks("ratio marks", "ratio", "y9"),
            layer_marks("lone gradient", "gradient", "y5"),
            layer_marks("lone ratio", "ratio", "y6"),
        ]
    )
    for layer in range(layers):
        colour = colour_of(layer)
        ridge = go.Scatter(
            name=f"magnitudes {layer}", mode="lines", line={"color": colour, "width": 1}, fill="toself",
            fillcolor=colour, opacity=0.75, xaxis="x2", yaxis="y2",
        )  # fmt: skip
        figure.add_traces(
            [ridge, curve(f"gradient {layer}", "gradient", colour), curve(f"ratio {layer}", "ratio", colour)]
        )
    refresh(figure, record, (), goal)
    return figure


def axis_of(panel: str) -> str:
    """The suffix of a panel's axes: '' for the first, then 2, 3, ..; 10 for the cost's companion."""
    if panel == "stability":
        return "10"
    place = list(PANELS).index(panel) + 1
    return "" if place == 1 else str(place)


def curve(
    name: str, panel: str, colour: str, width: float = 1.3, dash: str = "solid", mode: str = "lines", **more: Any
) -> go.Scatter:
    """An empty line in a panel."""
    suffix = axis_of(panel)
    line = {"color": colour, "width": width, "dash": dash}
    return go.Scatter(name=name, mode=mode, line=line, xaxis=f"x{suffix}", yaxis=f"y{suffix}", **more)


def lane(name: str, panel: str, colour: str, size: int = 7) -> go.Scatter:
    """Empty marks on a panel's lane axis, which runs from 0 to 1 whatever the panel shows."""
    lanes = {"cost": "y7", "magnitudes": "y2", "gradient": "y8", "ratio": "y9", "stability": "y11"}
    marker = {"color": colour, "size": size, "symbol": "x"}
    return go.Scatter(name=name, mode="markers", marker=marker, xaxis=f"x{axis_of(panel)}", yaxis=lanes[panel])


def layer_marks(name: str, panel: str, height: str) -> go.Scatter:
    """Empty marks in a panel whose colours are places in PALETTE; `height` is the axis of their heights.

    Numbers, for plotly reads a text for each of a thousand marks longer than all the rest of a figure takes.
    """
    last = len(PALETTE) - 1
    scale = [[place / last, colour] for place, colour in enumerate(PALETTE)]
    marker = {"size": 4, "symbol": "square", "colorscale": scale, "cmin": 0, "cmax": last, "showscale": False}
    return go.Scatter(name=name, mode="markers", marker=marker, xaxis=f"x{axis_of(panel)}", yaxis=height)


def layout(record: Record, scale: float, width: int) -> dict[str, Any]:
    """Axes, titles and type; nothing that changes while a run trains but the ranges."""
    built: dict[str, Any] = {
        "width": width, "height": round(384 * scale), "margin": {"l": 0, "r": 0, "t": 0, "b": 0, "autoexpand": False},
        "font": {"size": 11 * scale, "color": INK, "family": FONTS},
        "paper_bgcolor": "white", "plot_bgcolor": "#F7F8FA", "showlegend": False, "hovermode": "closest",
        "uirevision": "kept", "dragmode": "zoom", "annotations": titles(scale),
        "shapes": [lane_ground(axis_of(panel)) for panel in ("cost", "gradient", "ratio")],
    }  # fmt: skip
    for panel, (left, right, bottom, top) in {**PANELS, "stability": STABILITY}.items():
        suffix = axis_of(panel)
        plain = {
            "showline": False,
            "zeroline": False,
            "gridcolor": "#E6E9ED",
            "automargin": False,
            "ticklabeloverflow": "allow",  # to hide some, plotly measures each at every frame: 15 of 100 ms
            "tickfont": {"size": 10 * scale},
        }
        built[f"xaxis{suffix}"] = {**plain, "domain": [left, right], "anchor": f"y{suffix}", "nticks": 6}
        built[f"yaxis{suffix}"] = {**plain, "domain": [bottom, top], "anchor": f"x{suffix}", "nticks": 6}
    for panel in ("cost", "gradient", "ratio", "stability"):
        built[f"yaxis{axis_of(panel)}"] |= {"type": "log", "exponentformat": "power", "tick0": 0}
    built["xaxis10"] |= {"showticklabels": False}
    for name, over in (("yaxis7", ""), ("yaxis8", "5"), ("yaxis9", "6"), ("yaxis11", "10")):
        built[name] = {
            "overlaying": f"y{over}",
            "anchor": f"x{over}",
            "range": [0, 1],
            "visible": False,
            "fixedrange": True,
        }
    rows = {"range": [len(record.layers) - 0.5, -0.5], "fixedrange": True, "showgrid": False}
    names = {"tickvals": list(range(len(record.layers))), "ticktext": layer_labels(record.layers)}
    built["yaxis2"] |= rows | names
    built["yaxis3"] |= rows | {"showticklabels": False, "scaleanchor": False}
    built["yaxis4"] |= {"range": [-0.02, 1.04], "fixedrange": True, "tickvals": [0, 0.5, 1]}
    built["xaxis2"] |= {"fixedrange": True}
    return built


def titles(scale: float) -> list[dict[str, Any]]:
    """The title of each panel, and the names of the lanes of the cost."""
    plain = {"xref": "paper", "yref": "paper", "showarrow": False, "xanchor": "left"}
    found = [
        {
            **plain,
            "x": left,
            "y": top + 0.008,
            "yanchor": "bottom",
            "text": f"<b>{TITLES[panel]}</b>",
            "font": {"size": 12 * scale},
        }
        for panel, (left, _, _, top) in PANELS.items()
    ]
    left, right, bottom, top = PANELS["cost"]
    found += [
        {**plain, "x": right + 0.003, "y": bottom + (top - bottom) * height, "yanchor": "middle", "text": text,
         "font": {"size": 9 * scale, "color": RED}}
        for text, height in (("NaN", LANES["nan"]), ("inf", LANES["inf"]))
    ]  # fmt: skip
    key = f"<span style='color:{INK}'>training</span>  <span style='color:#D55E00'>held out</span>"
    left, right, _, top = PANELS["accuracy"]
    found.append({**plain, "x": right, "y": top + 0.008, "xanchor": "right", "yanchor": "bottom", "text": key})
    left, right, _, top = STABILITY
    key = f"<span style='color:{INK}'>λ</span>  <span style='color:#D55E00'>2/learning rate</span>"
    heading = {**plain, "y": top + 0.008, "yanchor": "bottom"}
    found += [
        {**heading, "x": left, "text": "<b>Curvature</b>", "font": {"size": 12 * scale}},
        {**heading, "x": right, "xanchor": "right", "text": key},
    ]
    _, right, _, top = PANELS["ratio"]
    found.append(
        {
            **plain,
            "x": right,
            "y": top + 0.008,
            "xanchor": "right",
            "yanchor": "bottom",
            "text": "healthy: 10<sup>-3</sup>",
        }
    )
    return [{"font": {"size": 10 * scale}, **annotation} for annotation in found]


def lane_ground(suffix: str) -> dict[str, Any]:
    """The faint red ground of the lane of NaN and inf along the top of a plot, by the suffix of its axes."""
    return {
        "type": "rect", "xref": f"x{suffix} domain", "yref": f"y{suffix} domain", "x0": 0, "x1": 1, "y0": 0.87, "y1": 1,
        "fillcolor": "#FBE9ED", "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def layer_labels(layers: Sequence[str]) -> list[str]:
    """Layer names in their colours, short enough for the axis."""
    names = [name or "network" for name in layers]
    short = [name if len(name) <= 9 else "…" + name[-8:] for name in names]
    return [f"<span style='color:{colour_of(place)}'><b>{name}</b></span>" for place, name in enumerate(short)]


def shown_powers(exponents: Exponents) -> tuple[int, int]:
    """The powers of two between which magnitudes are drawn: from small weights to where the precision overflows."""
    return (-14, 16) if exponents.bits == 5 else (-40, exponents.bias + 1)


def power_ticks(first: int, last: int) -> tuple[list[float], list[str]]:
    """Where powers of ten lie on an axis of powers of two, at most seven of them, and their labels."""
    digits = math.log10(2)
    every = next(step for step in (1, 2, 3, 5, 10, 20, 50, 100) if (last - first) * digits / step <= 7)
    lowest, highest = math.ceil(first * digits / every), math.floor(last * digits / every)
    decades = [place * every for place in range(lowest, highest + 1)]
    return [decade / digits for decade in decades], [f"10<sup>{decade}</sup>" if decade else "1" for decade in decades]


def refresh(
    figure: Any,
    record: Record,
    ghosts: Sequence[Record],
    goal: int,
    held: frozenset[str] = frozenset(),
    pictures: bool = True,
) -> dict[str, dict[str, Any]]:
    """Draw the record, with earlier ones as faint ghosts, into a figure of `dashboard` in one message.

    `held` names axes (such as "yaxis") whose range a person has set: these stay as they are. `pictures`: whether the
    histograms over time are drawn, too, which takes more than half of the time.
    Returns the ranges wanted, by axis.
    """
    record = grouped(record)
    traces = {trace.name: trace for trace in figure.data}
    with figure.batch_update():
        draw_cost(traces, record, ghosts)
        draw_accuracy(traces, record)
        draw_magnitudes(traces, record)
        if pictures:
            draw_over_time(traces, record)
        draw_layers(traces, record, "gradient_norm", "gradient")
        draw_layers(traces, record, "update_ratio", "ratio")
        draw_stability(traces, record, span(record, ghosts, goal))
        traces["yardstick"].update(x=[0, span(record, ghosts, goal)], y=[YARDSTICK, YARDSTICK])
        wanted = ranges(record, ghosts, goal)
        for axis, range_and_ticks in wanted.items():
            if axis not in held:
                figure.layout[axis].update(range_and_ticks, autorange=False)
    return wanted


def span(record: Record, ghosts: Sequence[Record], goal: int) -> int:
    """The last update on the time axes: the goal, or less as long as the runs leave most of that empty."""
    longest = max(len(record), *(min(len(other), 4 * goal) for other in (*record.others, *ghosts)), 1)
    room = SHORT
    while room < longest:
        room *= 2
    return max(longest, min(goal, room))


def ranges(record: Record, ghosts: Sequence[Record], goal: int) -> dict[str, dict[str, Any]]:
    """Axis -> range and ticks."""
    last = span(record, ghosts, goal)
    ticks = {"tickmode": "linear" if last <= 6 else "auto", "dtick": 1}  # no update lies between two
    time = {"range": [-0.025 * last, last * 1.02], **ticks}
    costs = np.concatenate([shown.cost for shown in (record, *record.others, *ghosts)])
    first, largest = shown_powers(record.exponents)
    powers, texts = power_ticks(first, largest)
    magnitudes = {"range": [first, largest + (largest - first) * 0.05], "tickvals": powers, "ticktext": texts}
    return {
        "xaxis2": magnitudes,
        "xaxis": time, "xaxis3": {"range": [-0.5, last + 0.5], **ticks}, "xaxis4": time, "xaxis5": time, "xaxis6": time,
        "xaxis10": time, "yaxis10": decades(shown_heights(record), ticks=3),
        "yaxis": decades(costs), "yaxis5": decades(record.gradient_norm),
        "yaxis6": decades(np.append(record.update_ratio.ravel(), YARDSTICK)),
    }  # fmt: skip


def decades(values: NDArray[np.float64], ticks: int = 5) -> dict[str, Any]:
    """Range (in powers of ten) and about so many ticks of a log axis: all finite positive values, below its lanes."""
    shown = np.isfinite(values) & (values > 0)
    if not shown.any():
        return {"range": [-1, 2], "dtick": 1}
    least, largest = values.min(where=shown, initial=np.inf), values.max(where=shown, initial=0)
    low, high = math.floor(math.log10(least) - 0.02), math.ceil(math.log10(largest) + 0.02)
    coarse = 1 if high - low <= 6 else 2 if high - low <= 14 else 5
    low, high = math.floor(low / coarse) * coarse, math.ceil(high / coarse) * coarse
    height = (high - low) / 0.8
    return {
        "range": [low - 0.07 * height, low + 0.93 * height],
        "dtick": max(1, coarse * round((high - low) / coarse / ticks)),
    }


def draw_cost(traces: dict[str, Any], record: Record, ghosts: Sequence[Record]) -> None:
    """The curve, the ghosts behind it, and the marks of what a log axis cannot show."""
    x, y = thinned(record.cost, COST_POINTS)
    traces["cost"].update(x=x, y=y, line={"color": branch_colour(record.branch.number)})
    alone = [(*lone(x, y), branch_colour(record.branch.number))]
    others = sorted(record.others, key=lambda other: other.branch.number)[-BRANCHES:]
    for place in range(BRANCHES):
        other = others[place] if place < len(others) else None
        x, y = thinned(other.cost, COST_POINTS // 4) if other else (NOTHING, NOTHING)
        colour = branch_colour(other.branch.number if other else 1)
        traces[f"branch {place}"].update(x=x, y=y, line={"color": colour})
        alone.append((*lone(x, y), colour))
    traces["cost marks"].update(**marks(record.cost))
    pieces = [thinned(ghost.cost, COST_POINTS // 4) for ghost in ghosts]
    alone = [*((*lone(x, y), FAINT) for x, y in pieces), *reversed(alone)]
    traces["lone costs"].update(
        x=np.concatenate([x for x, _, _ in alone]),
        y=np.concatenate([y for _, y, _ in alone]),
        marker={"color": [colour for x, _, colour in alone for _ in x]},
    )
    traces["ghosts"].update(
        x=np.concatenate([np.append(x, np.float32(np.nan)) for x, _ in pieces] or [np.empty(0)]),
        y=np.concatenate([np.append(y, np.nan) for _, y in pieces] or [np.empty(0)]),
    )
    ghostly = [marks(ghost.cost) for ghost in (*ghosts, *others)]
    traces["ghost marks"].update(
        x=np.concatenate([mark["x"] for mark in ghostly] or [np.empty(0)]),
        y=np.concatenate([mark["y"] for mark in ghostly] or [np.empty(0)]),
        marker={"symbol": [symbol for mark in ghostly for symbol in mark["marker"]["symbol"]]},
    )


def thinned(values: NDArray[np.float64], points: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Updates and values to draw: all of them, or the least and the largest of each of `points` / 2 stretches."""
    steps = np.arange(1, len(values) + 1, dtype=np.float32)
    if len(values) <= points:
        return steps, np.where(np.isfinite(values), values, np.nan)
    edges = np.linspace(0, len(values), points // 2 + 1).astype(int)[:-1]
    usable = np.isfinite(values)
    low = np.minimum.reduceat(np.where(usable, values, np.inf), edges)
    high = np.maximum.reduceat(np.where(usable, values, -np.inf), edges)
    both = np.stack([low, high], axis=1).ravel()
    return np.repeat(steps[edges], 2), np.where(np.isfinite(both), both, np.nan)


def lone(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The points of a curve through which no line goes, for neither neighbour can be drawn; on a log axis."""
    new = np.append(True, (x[1:] != x[:-1]) | (y[1:] != y[:-1]))[: len(x)]
    x, y = x[new], y[new]
    with np.errstate(invalid="ignore"):
        there = np.concatenate([[False], np.isfinite(y) & (y > 0), [False]])
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    return x[alone], y[alone]


def marks(values: NDArray[np.float64]) -> dict[str, Any]:
    """Marks on the lanes for each value (or stretch of values) that was measured and is NaN, inf, or 0 and less."""
    places = stretches(len(values), LAYER_POINTS)
    x: list[NDArray[Any]] = []
    y: list[NDArray[Any]] = []
    symbols: list[str] = []
    with np.errstate(invalid="ignore"):
        kinds = {
            "nan": (np.isnan(values) & is_measured(values), "x"),
            "inf": (np.isposinf(values), "triangle-up"),
            "low": (values <= 0, "triangle-down"),
        }
    for kind, (found, symbol) in kinds.items():
        there = places[np.logical_or.reduceat(found, places)] if len(values) else places
        x.append(there + 1)
        y.append(np.full(len(there), LANES[kind]))
        symbols += [symbol] * len(there)
    return {
        "x": np.concatenate(x).astype(np.float32),
        "y": np.concatenate(y).astype(np.float32),
        "marker": {"symbol": symbols},
    }


def stretches(count: int, most: int) -> NDArray[np.int64]:
    """The first index of each of at most `most` stretches of equal length."""
    return np.arange(0, count, max(1, -(-count // most)))


def draw_accuracy(traces: dict[str, Any], record: Record) -> None:
    """Accuracy on the batch, and on held-out patches where it was measured."""
    places = stretches(len(record), LAYER_POINTS)
    x, y = (places + 1).astype(np.float32), record.accuracy[places].astype(np.float32)
    traces["accuracy"].update(x=x, y=y)
    alone, _ = lone(x, y + 1)  # an accuracy of 0 has its place, too
    traces["lone accuracy"].update(x=alone, y=y[np.searchsorted(x, alone)])
    measured = np.flatnonzero(np.isfinite(record.held_out_accuracy))
    measured = np.union1d(measured[stretches(len(measured), LAYER_POINTS)], measured[-1:])
    values = record.held_out_accuracy[measured].astype(np.float32)
    traces["held out"].update(x=(measured + 1).astype(np.float32), y=values)


def draw_magnitudes(traces: dict[str, Any], record: Record) -> None:
    """The latest histogram of each layer as a ridge on the layer's row; red crosses where weights are NaN or inf."""
    first, last = shown_powers(record.exponents)
    shares = binned(record.histograms[-1:], record.exponents, first, last, 160)[0]
    bins = shares.shape[1]
    centres = first + (np.arange(bins) + 0.5) * (last - first) / bins
    x = np.concatenate([[first], centres, [last]]).astype(np.float32)
    peaks = np.maximum(shares.max(axis=1, keepdims=True), 1e-12)
    for layer, heights in enumerate(shares / peaks * 0.85):
        base = layer + 0.42
        y = np.concatenate([[base], base - heights, [base]]).astype(np.float32)
        traces[f"magnitudes {layer}"].update(x=x, y=y)
    lost = np.flatnonzero(record.histograms[-1][:, -1])
    traces["lost weights"].update(x=np.full(len(lost), last + (last - first) * 0.02), y=lost + 0.1)


def binned(
    histograms: NDArray[np.int32], exponents: Exponents, first: int, last: int, most: int
) -> NDArray[np.float64]:
    """Shares of the weights (times, layers, bins) in at most `most` equal bins from 2^first to 2^last."""
    width = -(-(last - first) // most)
    start = first + exponents.bias
    inside = histograms[:, :, start : last + exponents.bias]
    edges = np.arange(0, inside.shape[2], width)
    totals = histograms.sum(axis=2, keepdims=True)
    return np.add.reduceat(inside, edges, axis=2) / np.maximum(totals, 1)


def draw_over_time(traces: dict[str, Any], record: Record) -> None:
    """The histograms of the start and of every update (or stretch of updates) as one picture with a band a layer."""
    first, last = shown_powers(record.exponents)
    rows = len(record) + 1
    every = max(1, -(-rows // COLUMNS))
    chosen = record.histograms[np.minimum(np.arange(every - 1, rows + every - 1, every), rows - 1)]
    shares = binned(chosen, record.exponents, first, last, BINS)
    lost = chosen[:, :, -1] / np.maximum(chosen.sum(axis=2), 1)
    colours = np.array(
        [[int(colour_of(layer)[at : at + 2], 16) for at in (1, 3, 5)] for layer in range(len(record.layers))]
    )
    bins = shares.shape[2]
    traces["over time"].update(
        source=bands_picture(shares, lost, colours),
        dx=every, x0=(every - 1) / 2, dy=1 / bins, y0=-0.5 + 0.5 / bins,
        meta=[len(shares), len(record.layers) * bins],
    )  # fmt: skip


def draw_layers(traces: dict[str, Any], record: Record, gauge: str, panel: str) -> None:
    """A gauge of every layer over time, each stretch of updates by its largest value; its marks in the lane above."""
    values = np.ascontiguousarray(record.column(gauge)[1:])
    places = stretches(len(values), LAYER_POINTS)
    steps = (places + 1).astype(np.float32)
    usable = np.where(np.isfinite(values), values, -np.inf)
    largest = np.maximum.reduceat(usable, places, axis=0) if len(values) else usable
    bad = is_nonfinite(values)
    broken = np.logical_or.reduceat(bad, places, axis=0) if len(values) else bad
    x, y, colours, alone = [], [], [], []
    for layer in range(len(record.layers)):
        drawn = np.where(largest[:, layer] > 0, largest[:, layer], np.nan)
        traces[f"{panel} {layer}"].update(x=steps, y=drawn)
        alone.append(lone(steps, drawn))
        lost = places[broken[:, layer]]
        zero = places[largest[:, layer] == 0]
        x += [lost + 1, zero + 1]
        y += [
            np.full(len(lost), 0.98 - 0.11 * layer / len(record.layers)),
            np.full(len(zero), 0.015 + 0.04 * layer / len(record.layers)),
        ]
        colours.append(np.full(len(lost) + len(zero), layer % len(PALETTE), dtype=np.uint8))
    traces[f"{panel} marks"].update(
        x=np.concatenate(x).astype(np.float32),
        y=np.concatenate(y).astype(np.float32),
        marker={"color": np.concatenate(colours)},
    )
    colours = [np.full(len(x), layer % len(PALETTE), dtype=np.uint8) for layer, (x, _) in enumerate(alone)]
    traces[f"lone {panel}"].update(
        x=np.concatenate([x for x, _ in alone]),
        y=np.concatenate([y for _, y in alone]),
        marker={"color": np.concatenate(colours)},
    )
