"""The plot of signals by depth: how strongly they vary from layer to layer, forward and back, and what is healthy.

A start that keeps variances equal from layer to layer, forward and back, lets deep networks train (Glorot and Bengio
2010; He et al. 2015), and layers are scaled to put out a deviation of 1 (Mishkin and Matas 2016). What a factor of ten
either way tells is in tests/benchmarks/results/corridor.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlab.plots.colours import INK, ORANGE
from cnnlab.plots.points import make_lane_marks
from cnnlab.plots.traces import Trace, choose_axes, make_curve
from cnnlab.records.frame import FloatArray, is_measured
from cnnlab.records.record import Record
from cnnlab.records.signals import Signals, find_signals

CORRIDOR = 10.0
"""How many times stronger or weaker than it should be a signal is in the healthy corridor."""
DIRECTIONS = {"forward": INK, "backward": ORANGE}
"""Direction -> the colour of its curve."""
MOST_LABELS = 12
"""Most layers that are named below the plot."""


def make_signal_traces(bands: dict[str, str]) -> list[Trace]:
    """The empty traces of the plot; `bands` are the colours of the corridors by direction."""
    traces = []
    for name, colour in bands.items():
        filled: dict[str, Any] = {"fill": "toself", "fillcolor": colour, "hoverinfo": "skip"}
        traces.append(make_curve(f"{name} corridor", "signals", colour, 0, dash=None, **filled))
    for name, colour in DIRECTIONS.items():
        hover = f"%{{text}}: {name} deviation %{{y:.3g}}<extra></extra>"
        more: dict[str, Any] = {"marker": {"size": 4, "color": colour}, "hovertemplate": hover}
        traces.append(make_curve(name, "signals", colour, 1.5, mode="lines+markers", **more))
        marker = {"color": colour, "size": 7, "symbol": "x"}
        axes = choose_axes("signals", lane=True)
        traces.append({"type": "scatter", "name": f"{name} marks", "mode": "markers", "marker": marker, **axes})
    return traces


def list_curves(found: Signals) -> dict[str, FloatArray]:
    """Direction -> the deviations by layer."""
    return {"forward": found.activation_deviation, "backward": found.backward_deviation}


def find_corridors(found: Signals) -> dict[str, tuple[float, float]]:
    """Direction -> least and largest deviation of its corridor; none for a direction that has no measure to go by."""
    last = found.backward_deviation[-1]
    usable = np.isfinite(last) and last > 0
    middles = {"forward": 1.0, **({"backward": float(last)} if usable else {})}
    return {name: (middle / CORRIDOR, middle * CORRIDOR) for name, middle in middles.items()}


def draw_signals(traces: dict[str, Any], record: Record, signals: Signals | None = None) -> None:
    """The deviations of the last update at which they were measured; marks where they are 0, NaN or inf."""
    found = signals or find_signals(record)
    corridors = find_corridors(found)
    ends = np.array([-0.5, len(found.layers) - 0.5])
    for name, values in list_curves(found).items():
        with np.errstate(invalid="ignore"):
            shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
            kinds = {"nan": np.isnan(values) & is_measured(values), "inf": np.isinf(values), "low": values == 0}
        x = np.arange(len(values), dtype=np.float32)
        traces[name].update(x=x, y=shown, text=list(found.layers))
        marks = make_lane_marks({kind: np.flatnonzero(there) for kind, there in kinds.items()})
        traces[f"{name} marks"].update(**marks)
        if name in corridors:
            low, high = corridors[name]
            edges = np.append(ends, ends[::-1]), np.repeat([low, high], 2)
        else:
            edges = np.empty(0), np.empty(0)
        traces[f"{name} corridor"].update(x=edges[0].astype(np.float32), y=edges[1])


def find_signal_heights(record: Record, signals: Signals | None) -> FloatArray:
    """All that the axis has to hold."""
    found = signals or find_signals(record)
    return np.concatenate([*list_curves(found).values(), *map(np.array, find_corridors(found).values())])


def find_depths(record: Record, ticks: int) -> dict[str, Any]:
    """Range and ticks of the axis of layers."""
    layers = len(record.layers)
    every = -(-layers // min(MOST_LABELS, max(ticks, 2)))
    places = list(range(0, layers, every))
    return {
        "range": [-0.5, layers - 0.5], "tickmode": "array", "tickvals": places,
        "ticktext": [record.layers[place] for place in places],
    }  # fmt: skip
