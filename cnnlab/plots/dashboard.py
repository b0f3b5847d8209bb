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

from cnnlab.plots.arrangement import Panel, arrange_panels, check_panels
from cnnlab.plots.beside import Beside, draw_beside, make_beside_traces
from cnnlab.plots.colours import FAINT, HEALTHY, HEALTHY_BACK, INK, ORANGE, RED, colour_branch, colour_layer
from cnnlab.plots.dashboard_layout import choose_visible, make_layout
from cnnlab.plots.gauges import PLOTS, choose_shown, find_plot, number_axes, take_values
from cnnlab.plots.layer_groups import group_layers, group_signals
from cnnlab.plots.layout import (
    choose_power_ticks,
    choose_update_ticks,
    fit_log_range,
    name_axis,
)
from cnnlab.plots.loss_scale import draw_loss_scale, fit_binary_range, make_scale_traces
from cnnlab.plots.magnitudes import choose_span, draw_magnitudes
from cnnlab.plots.over_time import draw_over_time, note_over_time
from cnnlab.plots.points import find_lone_points, place_marks, thin_curve
from cnnlab.plots.recorder import FigureRecorder, put_values
from cnnlab.plots.sharpness import draw_healthy_curvature, draw_stability, find_heights
from cnnlab.plots.signals import draw_signals, find_depths, find_signal_heights, make_signal_traces
from cnnlab.plots.traces import (
    choose_axes,
    draw_accuracy,
    draw_values,
    enlarge_trace,
    join,
    make_curve,
    make_layer_marks,
    make_marks,
)
from cnnlab.records.frame import FloatArray
from cnnlab.records.record import Record
from cnnlab.records.signals import Signals

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
    beside, magnitudes = shape.pop("beside", None), shape.pop("magnitudes", "weights")
    if shape.get("panels") is None:
        shape["panels"] = choose_shown(record.schedule)
    panels = arrange_panels(**{"width": WIDTH, **shape}, keyed=beside is not None).panels
    refresh_dashboard(figure, record, (), goal, panels=panels, dark=dark, beside=beside, magnitudes=magnitudes)
    return figure


def describe_dashboard(
    record: Record,
    goal: int,
    *,
    scale: float = 1.0,
    width: int = WIDTH,
    panels: Sequence[str] | None = None,
    focus: str | None = None,
    beside: Beside | None = None,
    magnitudes: str = "weights",
) -> dict[str, Any]:
    """The figure's `data` and `layout` as plotly's JSON, with the ranges of a record and none of its points yet.

    `scale` enlarges its type, `width` is in pixels. `panels` are the names of the plots that are shown, in their order,
    those of the table for None, and that of the loss scale where there is one; `focus` is the name of one that has the
    figure to itself. `beside` is a second record, drawn over the first one where that makes sense, with a key above the
    plots; without it there are no traces for one. `magnitudes` is what the plots of magnitudes show: "weights",
    "gradients", "activations" or "updates". It is made without plotly's classes, which take 80 ms and 20 MiB.
    """
    whole, record = record, group_layers(record)
    panels = choose_shown(record.schedule) if panels is None else panels
    shown = (*check_panels(panels), focus)
    arrangement = arrange_panels(width, scale, panels, focus, keyed=beside is not None)
    traces = [
        *(make_beside_traces(beside, record.layers, "loss_scale" in shown) if beside else ()),
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
        make_curve("zeros of layers", "magnitudes", FAINT, 3, hovertemplate="zeros of %{text}<extra></extra>"),
        make_curve("saturated of layers", "magnitudes", ORANGE, 3, hovertemplate="saturated, %{text}<extra></extra>"),
        make_curve("deviations of layers", "magnitudes", INK, mode="markers", marker={"size": 6, "color": INK,
                   "symbol": "circle-open"}, hovertemplate="%{text}<extra></extra>"),
        make_curve("healthy curvature", "stability", HEALTHY, 0, dash=None, fill="toself", fillcolor=HEALTHY,
                   hoverinfo="skip"),
        make_curve("threshold", "stability", ORANGE, 1.5, "dash"),
        make_curve("sharpness", "stability", INK, 1.5, mode="lines+markers", marker={"size": 3}, cliponaxis=False),
        make_marks("sharpness marks", "stability", RED),
    ]  # fmt: skip
    if "loss_scale" in shown:
        traces += make_scale_traces()
    if "signals" in shown:
        traces += make_signal_traces({"forward": HEALTHY, "backward": HEALTHY_BACK})
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
        enlarge_trace(trace, arrangement.scale)
    layout = make_layout(record.layers, arrangement, beside.words if beside else "", magnitudes)
    ranges = find_ranges(whole, (), goal, panels=arrangement.panels, beside=beside, magnitudes=magnitudes)
    for axis, found in ranges.items():
        layout[axis] |= {**found, "autorange": False}
    figure = {"data": traces, "layout": layout}
    if beside:
        drawn = FigureRecorder(trace["name"] for trace in traces)
        draw_beside(drawn, beside, record.layers)
        put_values(figure, drawn)
    return figure


def refresh_dashboard(
    figure: Any,
    record: Record,
    ghosts: Sequence[Record],
    goal: int,
    pictures: bool = True,
    curvature: bool = True,
    panels: Mapping[str, Panel] | None = None,
    dark: bool = False,
    beside: Beside | None = None,
    magnitudes: str = "weights",
    signals: Signals | None = None,
) -> dict[str, dict[str, Any]]:
    """Draw the record, with earlier ones as faint ghosts, into a figure of `draw_dashboard` in one message.

    `pictures`: whether the histograms over time are drawn; if not, a FigureRecorder notes their numbers (see
    `over_time`), for the page to colour, and a figure keeps its picture. `dark`: whether that picture is for a dark
    ground; all other colours are those of a light one, for `recolour`. `curvature`: whether the largest eigenvalue is
    drawn, with which the page would hold the critical learning rate. `panels`: those of the figure's arrangement, to
    draw no others; all of a figure of the usual width for None. `beside`: what `draw_dashboard` has drawn over the
    record, for the axes to hold. `magnitudes` as in `describe_dashboard`; `signals`: those of the last update, where
    they were measured beside the record.
    Returns the ranges wanted, by axis.
    """
    whole, record = record, group_layers(record)
    panels = arrange_panels(WIDTH, panels=choose_shown(record.schedule)).panels if panels is None else panels
    grouped = signals and group_signals(signals)
    traces = {trace.name: trace for trace in figure.data}
    last = find_last_update(record, ghosts, goal, beside)
    with figure.batch_update():
        if "cost" in panels:
            draw_cost(traces, record, ghosts)
        if "accuracy" in panels:
            draw_accuracy(traces, record)
        if "magnitudes" in panels:
            draw_magnitudes(traces, record, magnitudes, grouped)
        if "over_time" in panels and pictures:
            draw_over_time(traces, record, dark, magnitudes)
        elif "over_time" in panels and isinstance(figure, FigureRecorder):
            note_over_time(traces, record, magnitudes)
        if "stability" in panels:
            draw_healthy_curvature(traces, record, last)
            draw_stability(traces, record, last, curvature)
        if "loss_scale" in panels:
            draw_loss_scale(traces, record)
        if "signals" in panels:
            draw_signals(traces, whole, signals)
        for name, values in take_values(record, panels).items():
            draw_values(traces, name, np.ascontiguousarray(values))
            yardstick = find_plot(name).yardstick
            if yardstick is not None:
                traces[f"{name} yardstick"].update(x=[0, last], y=[yardstick, yardstick])
        wanted = find_ranges(whole, ghosts, goal, curvature, panels, beside, magnitudes, signals)
        for axis, range_and_ticks in wanted.items():
            figure.layout[axis].update(range_and_ticks, autorange=False)
    return wanted


def find_last_update(record: Record, ghosts: Sequence[Record], goal: int, beside: Beside | None = None) -> int:
    """The last update on the time axes: the goal, or less as long as the runs leave most of that empty."""
    longest = max(len(record), *(min(len(other), 4 * goal) for other in (*record.others, *ghosts)), 1)
    longest = max(longest, len(beside.record) if beside else 0)
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
    beside: Beside | None = None,
    magnitudes: str = "weights",
    signals: Signals | None = None,
) -> dict[str, dict[str, Any]]:
    """Axis -> range and ticks, of the panels that are shown."""
    whole, record = record, group_layers(record)
    panels = arrange_panels(WIDTH, panels=choose_shown(record.schedule)).panels if panels is None else panels
    last = find_last_update(record, ghosts, goal, beside)
    ticks = choose_update_ticks(last)
    across: dict[str, dict[str, Any]] = {name: {"range": [-0.025 * last, last * 1.02], **ticks} for name in panels}
    up: dict[str, dict[str, Any]] = {}
    for name, panel in panels.items():
        if name == "over_time":
            across[name] = {"range": [-0.5, last + 0.5], **ticks}
        elif name == "magnitudes":
            across[name] = find_powers(record, panel.ticks[0], magnitudes)
        elif name == "signals":
            across[name] = find_depths(whole, panel.ticks[0])
            up[name] = fit_log_range(find_signal_heights(whole, signals), panel.ticks[1])
        elif name != "accuracy":
            values = find_values(name, record, ghosts, curvature)
            if beside:
                values = np.append(values, find_values(name, group_layers(beside.record), (), beside.curvature))
            up[name] = (fit_binary_range if name == "loss_scale" else fit_log_range)(values, panel.ticks[1])
    axes = number_axes()
    wanted = {name_axis(axes[name][0]): found for name, found in across.items()}
    return wanted | {name_axis(axes[name][1]): found for name, found in up.items()}


def find_powers(record: Record, ticks: int, kind: str) -> dict[str, Any]:
    """Range and ticks of the axis of magnitudes."""
    first, largest = choose_span(record.exponents, kind)
    powers, texts = choose_power_ticks(first, largest, ticks)
    return {"range": [first, largest + (largest - first) * 0.05], "tickvals": powers, "ticktext": texts}


def find_values(name: str, record: Record, ghosts: Sequence[Record], curvature: bool) -> FloatArray:
    """All that the log axis of a plot has to hold."""
    if name == "cost":
        return np.concatenate([shown.cost for shown in (record, *record.others, *ghosts)])
    if name == "stability":
        return find_heights(record, curvature)
    if name == "loss_scale":
        return record.scale
    values, yardstick = take_values(record, (name,))[name], find_plot(name).yardstick
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
