"""A second record drawn over the dashboard's own: in dashes and hollow marks, in the same colours of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnlab.plots.colours import INK, ORANGE, RED, colour_layer
from cnnlab.plots.gauges import PLOTS, take_values
from cnnlab.plots.layer_groups import group_layers
from cnnlab.plots.loss_scale import find_left_out
from cnnlab.plots.points import find_lone_points, place_marks, thin_curve
from cnnlab.plots.sharpness import draw_stability
from cnnlab.plots.traces import Trace, draw_accuracy, draw_values, make_curve, make_layer_marks, make_marks
from cnnlab.records.record import Record

PREFIX = "beside "
"""What the names of its traces begin with."""
HOLLOW = {"x": "circle-open", "triangle-up": "triangle-up-open", "triangle-down": "triangle-down-open"}
"""A mark of the dashboard's own record -> that of the other one, which is seen around it where both lie."""
MARK, LAYER_MARK = 10, 7
"""Sizes of these marks in pixels."""
LONE = {"size": 6, "color": INK, "symbol": "circle-open"}
"""A point of a curve through which no line goes."""
POINTS = 1000
"""Most points of the cost curve."""


@dataclass(frozen=True)
class Beside:
    """A record to draw over another one."""

    record: Record
    words: str = ""
    """What differs from the other one, for the key."""
    curvature: bool = True
    """Whether its largest eigenvalue is drawn."""


def make_beside_traces(beside: Beside, layers: Sequence[str], scaled: bool = False) -> list[Trace]:
    """The empty traces of a record drawn over one with these layers; `scaled`: in the plot of the loss scale, too."""
    record = group_layers(beside.record)
    traces = [
        make_curve("cost", "cost", INK, 1.5, "dash"),
        make_curve("lone costs", "cost", INK, mode="markers", marker=dict(LONE)),
        make_marks("cost marks", "cost", RED, "circle-open", MARK),
        make_curve("accuracy", "accuracy", INK, 1.5, "dash"),
        make_curve("lone accuracy", "accuracy", INK, mode="markers", marker=dict(LONE)),
        make_curve("held out", "accuracy", ORANGE, 2, "dash", connectgaps=True),
        make_curve("threshold", "stability", ORANGE, 1.5, "dot"),
        make_curve("sharpness", "stability", INK, 1.5, "dash", cliponaxis=False),
        make_marks("sharpness marks", "stability", RED, "circle-open", MARK),
    ]
    if scaled:
        traces.append(make_curve("loss scale", "loss_scale", INK, 1.5, "dash"))
        traces.append(make_marks("left out", "loss_scale", RED, "circle-open", MARK))
    places = place_layers(record.layers, layers)
    for name, values in take_values(record, PLOTS).items():
        traces.append(make_layer_marks(f"{name} marks", name, True, "square-open", LAYER_MARK))
        traces.append(make_layer_marks(f"lone {name}", name, False, "square-open", LAYER_MARK))
        owners = [f" of {layer}" for layer in record.layers] if values.shape[1] > 1 else [""]
        for at, owner in enumerate(owners):
            hover = f"beside, update %{{x}}: {PLOTS[name].title.lower()}{owner} %{{y:.3g}}<extra></extra>"
            traces.append(make_curve(f"{name} {at}", name, colour_layer(places[at]), 1.3, "dash", hovertemplate=hover))
    return [{**trace, "name": PREFIX + trace["name"]} for trace in traces]


def hollow_marks(marks: dict[str, Any]) -> dict[str, Any]:
    """The same marks, seen around those of the other record."""
    return {**marks, "marker": {"symbol": [HOLLOW[symbol] for symbol in marks["marker"]["symbol"]]}}


def place_layers(layers: Sequence[str], others: Sequence[str]) -> list[int]:
    """The place among the colours of each layer: that of its namesake among the others, else one after all of them."""
    return [others.index(name) if name in others else len(others) + place for place, name in enumerate(layers)]


def draw_beside(figure: Any, beside: Beside, layers: Sequence[str]) -> None:
    """Draw the record into its traces, once: it does not grow."""
    record = group_layers(beside.record)
    traces = {trace.name.removeprefix(PREFIX): trace for trace in figure.data if trace.name.startswith(PREFIX)}
    x, y = thin_curve(record.cost, POINTS)
    traces["cost"].update(x=x, y=y)
    alone, heights = find_lone_points(x, y)
    traces["lone costs"].update(x=alone, y=heights)
    traces["cost marks"].update(hollow_marks(place_marks(record.cost)))
    if "loss scale" in traces:
        x, y = thin_curve(record.scale, POINTS)
        traces["loss scale"].update(x=x, y=y)
        traces["left out"].update(hollow_marks(place_marks(find_left_out(record))))
    draw_accuracy(traces, record)
    draw_stability(traces, record, len(record), beside.curvature)
    for name, values in take_values(record, PLOTS).items():
        draw_values(traces, name, np.ascontiguousarray(values), place_layers(record.layers, layers))
