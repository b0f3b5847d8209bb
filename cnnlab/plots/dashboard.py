"""The dashboard's one plotly figure: made once from a record, refreshed in place.

NaN and inf have a lane of their own along the top of a plot, values of 0 or less one along the bottom of a log axis;
what was not measured is a gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cnnlab.plots.arrangement import Panel, arrange_panels
from cnnlab.plots.colours import FAINT, INK, ORANGE, PALETTE, RED, colour_branch, colour_layer
from cnnlab.plots.dashboard_layout import choose_visible, make_layout
from cnnlab.plots.gauges import PLOTS, number_axes, number_lanes, take_values
from cnnlab.plots.layer_groups import group_layers
from cnnlab.plots.layout import (
    choose_power_ticks,
    choose_powers,
    choose_update_ticks,
    fit_log_range,
    name_axis,
)
from cnnlab.plots.over_time import count_shares, draw_over_time, note_over_time
from cnnlab.plots.points import LAYER_POINTS, find_lone_points, keep_first, place_marks, split_stretches, thin_curve
from cnnlab.plots.recorder import FigureRecorder
from cnnlab.plots.sharpness import draw_stability, find_heights
from cnnlab.records.frame import FloatArray, is_nonfinite
from cnnlab.records.record import Record

WIDTH = 800
"""Width of the figure in pixels where nobody says another."""
COST_POINTS = 1000
"""Most points of the cost curve."""
SHORT = 60
"""Updates that the time axes hold at first where more are planned; they double as a run grows."""
Curve = tuple[NDArray[Any], NDArray[Any], str]
"""Updates, values and a colour."""
BRANCHES = 6
"""Most other branches that are drawn, the youngest ones."""


def draw_dashboard(record: Record, goal: int, *, dark: bool = False, **shape: Any) -> go.Figure:
    """The figure of a record whose run goes up to update `goal`; `shape` as in `describe_dashboard`.

    `dark` as in `refresh_dashboard`. ValueError in a sentence if a name is no plot's.
    """
    figure = go.Figure(describe_dashboard(record, goal, **shape))
    panels = arrange_panels(**{"width": WIDTH, **shape}).panels
    refresh_dashboard(figure, record, (), goal, panels=panels, dark=dark)
    return figure


def describe_dashboard(
    record: Record,
    goal: int,
    *,
    scale: float = 1.0,
    width: int = WIDTH,
    panels: Sequence[str] | None = None,
    focus: str | None = None,
) -> dict[str, Any]:
    """The figure's `data` and `layout` as plotly's JSON, with the ranges of a record and no points yet.

    `scale` enlarges its type, `width` is in pixels. `panels` are the names of the plots that are shown, in their order,
    all of them for None; `focus` is the name of one that has the figure to itself. It is made without plotly's classes,
    which take 80 ms and 20 MiB.
    """
    record = group_layers(record)
    arrangement = arrange_panels(width, scale, panels, focus)
    traces = [
        make_curve("ghosts", "cost", FAINT, 1.2),
        *(make_curve(f"branch {place}", "cost", INK, 1.5) for place in range(BRANCHES)),
        make_curve("cost", "cost", INK, 2),
        make_curve("lone costs", "cost", INK, mode="markers", marker={"size": 4}),
        make_marks("ghost marks", "cost", FAINT),
        make_marks("cost marks", "cost", RED),
        make_curve("accuracy", "accuracy", INK, 1.5),
        make_curve("lone accuracy", "accuracy", INK, mode="markers", marker={"size": 4, "color": INK}),
        make_curve("held out", "accuracy", ORANGE, 2, mode="lines+markers", connectgaps=True),
        {"type": "image", "name": "over time", **choose_axes("over_time"), "hoverinfo": "skip", "zsmooth": False},
        make_marks("lost weights", "magnitudes", RED),
        make_curve("threshold", "stability", ORANGE, 1.5, "dash"),
        make_curve("sharpness", "stability", INK, 1.5, mode="lines+markers", marker={"size": 3}, cliponaxis=False),
        make_marks("sharpness marks", "stability", RED),
    ]
    for layer in range(len(record.layers)):
        filled: dict[str, Any] = {"fill": "toself", "fillcolor": colour_layer(layer), "opacity": 0.75}
        traces.append(make_curve(f"magnitudes {layer}", "magnitudes", colour_layer(layer), 1, dash=None, **filled))
    for name, values in take_values(record, PLOTS).items():
        if PLOTS[name].yardstick is not None:
            traces.append(make_curve(f"{name} yardstick", name, FAINT, 1, "dash"))
        traces += [make_layer_marks(f"{name} marks", name, lane=True), make_layer_marks(f"lone {name}", name)]
        owners = [f" of {layer}" for layer in record.layers] if values.shape[1] > 1 else [""]
        for at, owner in enumerate(owners):
            hover = f"update %{{x}}: {PLOTS[name].title.lower()}{owner} %{{y:.3g}}<extra></extra>"
            traces.append(make_curve(f"{name} {at}", name, colour_layer(at), hovertemplate=hover))
    for trace, visible in zip(traces, choose_visible(traces, arrangement.panels), strict=True):
        trace["visible"] = visible
    layout = make_layout(record.layers, arrangement)
    for axis, found in find_ranges(record, (), goal, panels=arrangement.panels).items():
        layout[axis] |= {**found, "autorange": False}
    return {"data": traces, "layout": layout}


def choose_axes(plot: str, lane: bool = False) -> dict[str, str]:
    """The axes of a trace in a plot; with `lane`, its heights are those of the plot's lanes."""
    x, y = number_axes()[plot]
    return {"xaxis": x, "yaxis": number_lanes()[plot] if lane else y}


def make_curve(
    name: str, plot: str, colour: str, width: float = 1.3, dash: str | None = "solid", mode: str = "lines", **more: Any
) -> dict[str, Any]:
    """An empty line in a plot."""
    line = {"color": colour, "width": width, **({"dash": dash} if dash else {})}
    return {"type": "scatter", "name": name, "mode": mode, "line": line, **choose_axes(plot), **more}


def make_marks(name: str, plot: str, colour: str) -> dict[str, Any]:
    """Empty marks on a plot's lanes, or on its rows where it has no lanes."""
    marker = {"color": colour, "size": 7, "symbol": "x"}
    axes = choose_axes(plot, lane=PLOTS[plot].log)
    return {"type": "scatter", "name": name, "mode": "markers", "marker": marker, **axes}


def make_layer_marks(name: str, plot: str, lane: bool = False) -> dict[str, Any]:
    """Empty marks in a plot whose colours are places in PALETTE.

    Numbers, for plotly reads a text for each of a thousand marks longer than all the rest of a figure takes.
    """
    last = len(PALETTE) - 1
    scale = [[place / last, colour] for place, colour in enumerate(PALETTE)]
    marker = {"size": 4, "symbol": "square", "colorscale": scale, "cmin": 0, "cmax": last, "showscale": False}
    return {"type": "scatter", "name": name, "mode": "markers", "marker": marker, **choose_axes(plot, lane)}


def refresh_dashboard(
    figure: Any,
    record: Record,
    ghosts: Sequence[Record],
    goal: int,
    pictures: bool = True,
    curvature: bool = True,
    panels: Mapping[str, Panel] | None = None,
    dark: bool = False,
) -> dict[str, dict[str, Any]]:
    """Draw the record, with earlier ones as faint ghosts, into a figure of `draw_dashboard` in one message.

    `pictures`: whether the histograms over time are drawn; if not, a FigureRecorder notes their numbers (see
    `over_time`), for the page to colour, and a figure keeps its picture. `dark`: whether that picture is for a dark
    ground; all other colours are those of a light one, for `recolour`. `curvature`: whether the largest eigenvalue is
    drawn, with which the page would hold the critical learning rate. `panels`: those of the figure's arrangement, to
    draw no others; all of a figure of the usual width for None.
    Returns the ranges wanted, by axis.
    """
    record = group_layers(record)
    panels = arrange_panels(WIDTH).panels if panels is None else panels
    traces = {trace.name: trace for trace in figure.data}
    last = find_last_update(record, ghosts, goal)
    with figure.batch_update():
        if "cost" in panels:
            draw_cost(traces, record, ghosts)
        if "accuracy" in panels:
            draw_accuracy(traces, record)
        if "magnitudes" in panels:
            draw_magnitudes(traces, record)
        if "over_time" in panels and pictures:
            draw_over_time(traces, record, dark)
        elif "over_time" in panels and isinstance(figure, FigureRecorder):
            note_over_time(traces, record)
        if "stability" in panels:
            draw_stability(traces, record, last, curvature)
        for name, values in take_values(record, panels).items():
            draw_values(traces, name, np.ascontiguousarray(values))
            yardstick = PLOTS[name].yardstick
            if yardstick is not None:
                traces[f"{name} yardstick"].update(x=[0, last], y=[yardstick, yardstick])
        wanted = find_ranges(record, ghosts, goal, curvature, panels)
        for axis, range_and_ticks in wanted.items():
            figure.layout[axis].update(range_and_ticks, autorange=False)
    return wanted


def find_last_update(record: Record, ghosts: Sequence[Record], goal: int) -> int:
    """The last update on the time axes: the goal, or less as long as the runs leave most of that empty."""
    longest = max(len(record), *(min(len(other), 4 * goal) for other in (*record.others, *ghosts)), 1)
    held = SHORT
    while held < longest:
        held *= 2
    return max(longest, min(goal, held))


def find_ranges(
    record: Record,
    ghosts: Sequence[Record],
    goal: int,
    curvature: bool = True,
    panels: Mapping[str, Panel] | None = None,
) -> dict[str, dict[str, Any]]:
    """Axis -> range and ticks, of the panels that are shown."""
    panels = arrange_panels(WIDTH).panels if panels is None else panels
    last = find_last_update(record, ghosts, goal)
    ticks = choose_update_ticks(last)
    across: dict[str, dict[str, Any]] = {name: {"range": [-0.025 * last, last * 1.02], **ticks} for name in panels}
    up: dict[str, dict[str, Any]] = {}
    for name, panel in panels.items():
        if name == "over_time":
            across[name] = {"range": [-0.5, last + 0.5], **ticks}
        elif name == "magnitudes":
            across[name] = find_powers(record, panel.ticks[0])
        elif name != "accuracy":
            up[name] = fit_log_range(find_values(name, record, ghosts, curvature), panel.ticks[1])
    axes = number_axes()
    wanted = {name_axis(axes[name][0]): found for name, found in across.items()}
    return wanted | {name_axis(axes[name][1]): found for name, found in up.items()}


def find_powers(record: Record, ticks: int) -> dict[str, Any]:
    """Range and ticks of the axis of magnitudes."""
    first, largest = choose_powers(record.exponents)
    powers, texts = choose_power_ticks(first, largest, ticks)
    return {"range": [first, largest + (largest - first) * 0.05], "tickvals": powers, "ticktext": texts}


def find_values(name: str, record: Record, ghosts: Sequence[Record], curvature: bool) -> FloatArray:
    """All that the log axis of a plot has to hold."""
    if name == "cost":
        return np.concatenate([shown.cost for shown in (record, *record.others, *ghosts)])
    if name == "stability":
        return find_heights(record, curvature)
    values, yardstick = take_values(record, (name,))[name], PLOTS[name].yardstick
    return values if yardstick is None else np.append(values, yardstick)


def draw_cost(traces: dict[str, Any], record: Record, ghosts: Sequence[Record]) -> None:
    """The curve, the ghosts and other branches behind it, and the marks of what a log axis cannot show."""
    others = sorted(record.others, key=lambda other: other.branch.number)[-BRANCHES:]
    curves: list[Curve] = [(*thin_curve(ghost.cost, COST_POINTS // 4), FAINT) for ghost in ghosts]
    traces["ghosts"].update(
        x=join([np.append(x, np.float32(np.nan)) for x, _, _ in curves]),
        y=join([np.append(y, np.nan) for _, y, _ in curves]),
    )
    branches: list[Curve] = [
        (*thin_curve(other.cost, COST_POINTS // 4), colour_branch(other.branch.number)) for other in others
    ]
    branches += [(np.empty(0), np.empty(0), INK)] * (BRANCHES - len(others))
    for place, (x, y, colour) in enumerate(branches):
        traces[f"branch {place}"].update(x=x, y=y, line={"color": colour})
    x, y = thin_curve(record.cost, COST_POINTS)
    traces["cost"].update(x=x, y=y, line={"color": colour_branch(record.branch.number)})
    curves += [*reversed(branches), (x, y, colour_branch(record.branch.number))]
    alone = [(*find_lone_points(x, y), colour) for x, y, colour in curves]
    traces["lone costs"].update(
        x=join([x for x, _, _ in alone]),
        y=join([y for _, y, _ in alone]),
        marker={"color": [colour for x, _, colour in alone for _ in x]},
    )
    traces["cost marks"].update(**place_marks(record.cost))
    behind = [place_marks(other.cost) for other in (*ghosts, *others)]
    traces["ghost marks"].update(
        x=join([marks["x"] for marks in behind]),
        y=join([marks["y"] for marks in behind]),
        marker={"symbol": [symbol for marks in behind for symbol in marks["marker"]["symbol"]]},
    )


def join(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Several arrays as one; an empty one of none."""
    return np.concatenate(parts or [np.empty(0)])


def draw_accuracy(traces: dict[str, Any], record: Record) -> None:
    """Accuracy on the batch, and on held-out patches where it was measured."""
    x, y = thin_curve(record.accuracy, LAYER_POINTS)
    traces["accuracy"].update(x=x, y=y)
    alone, _ = find_lone_points(x, y + 1)  # an accuracy of 0 has its place, too
    traces["lone accuracy"].update(x=alone, y=y[np.searchsorted(x, alone)])
    measured = np.flatnonzero(np.isfinite(record.held_out_accuracy))
    measured = np.union1d(measured[split_stretches(len(measured), LAYER_POINTS)], measured[-1:])
    values = record.held_out_accuracy[measured].astype(np.float32)
    traces["held out"].update(x=(measured + 1).astype(np.float32), y=values)


def draw_magnitudes(traces: dict[str, Any], record: Record) -> None:
    """The latest histogram of each layer as a ridge on the layer's row; red crosses where weights are NaN or inf."""
    first, last = choose_powers(record.exponents)
    latest = record.histograms[record.histograms.find_counted(np.array([len(record)]))]
    shares = count_shares(latest, record.exponents, 160)[0]
    bins = shares.shape[1]
    centres = first + (np.arange(bins) + 0.5) * (last - first) / bins
    x = np.concatenate([[first], centres, [last]]).astype(np.float32)
    peaks = np.maximum(shares.max(axis=1, keepdims=True), 1e-12)
    for layer, heights in enumerate(shares / peaks * 0.85):
        base = layer + 0.42
        y = np.concatenate([[base], base - heights, [base]]).astype(np.float32)
        traces[f"magnitudes {layer}"].update(x=x, y=y)
    lost = np.flatnonzero(latest[0, :, -1])
    traces["lost weights"].update(x=np.full(len(lost), last + (last - first) * 0.02), y=lost + 0.1)


def draw_values(traces: dict[str, Any], plot: str, values: FloatArray) -> None:
    """Values (updates, curves), each stretch of updates by its largest value; their marks in the lane above."""
    places = split_stretches(len(values), LAYER_POINTS)
    steps = (places + 1).astype(np.float32)
    usable = np.where(np.isfinite(values), values, -np.inf)
    largest = np.maximum.reduceat(usable, places, axis=0) if len(values) else usable
    bad, none = is_nonfinite(values), values == 0
    curves = values.shape[1]
    marks, alone = [], []
    for curve in range(curves):
        drawn = np.where(largest[:, curve] > 0, largest[:, curve], np.nan)
        traces[f"{plot} {curve}"].update(x=steps, y=drawn)
        alone.append(find_lone_points(steps, drawn))
        found = (np.flatnonzero(kind[:, curve]) for kind in (bad, none))
        lost, zero = (keep_first(each, len(values), LAYER_POINTS) for each in found)
        heights = np.array([0.98 - 0.11 * curve / curves, 0.015 + 0.04 * curve / curves], dtype=np.float32)
        marks.append((np.append(lost, zero) + 1, np.repeat(heights, [len(lost), len(zero)])))
    for name, points in ((f"{plot} marks", marks), (f"lone {plot}", alone)):
        colours = np.arange(curves, dtype=np.uint8) % len(PALETTE)
        traces[name].update(
            x=join([x for x, _ in points]).astype(np.float32),
            y=join([y for _, y in points]),
            marker={"color": np.repeat(colours, [len(x) for x, _ in points])},
        )
