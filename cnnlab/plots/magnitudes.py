"""The plots of magnitudes, now and over time: of weights, of their gradients, of what layers put out, or of updates."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.settings import Choice
from cnnlab.plots.gauges import Plot, find_plot
from cnnlab.plots.layout import choose_powers
from cnnlab.records.frame import FloatArray, IntArray
from cnnlab.records.histograms import Exponents
from cnnlab.records.record import Record
from cnnlab.records.signals import KINDS, Signals, choose_layers, find_signals

SWITCHED = ("magnitudes", "over_time")
"""The plots that a kind of magnitudes is chosen for."""
SMALLEST = -126
"""The smallest power of two at which signals are drawn; what is smaller, and not 0, is drawn there."""
SMALL, ROUND = 0.005, 8
"""Over time: the share of the smallest numbers that may lie below the span, and what its ends are multiples of."""
BASE, HEIGHT = 0.42, 0.85
"""Where a layer's ridge stands below the middle of its row, and how high it is."""
MEASURED = "Measured at the first 8 updates, every 4th up to 32 and every 32nd, and at the one that a paused run shows."
"""When signals are measured."""


@dataclass(frozen=True)
class Kind:
    """What the plots of magnitudes can show."""

    title: str
    short: str
    now: str
    """What the plot of the present shows, in a sentence."""
    over_time: str
    """What the plot over time shows."""


TEXTS = {
    "gradients": Kind(
        "Gradient magnitudes", "Gradients",
        "How large the numbers of each layer's gradient are: a ridge shows how many lie near each power of ten, the "
        "grey bar how many are 0.",
        "gradient of its weights",
    ),
    "activations": Kind(
        "Activation magnitudes", "Outputs",
        "How large the values are that each layer puts out, after its activation: a ridge shows how many lie near each "
        "power of ten, the circle their standard deviation, the grey bar how many are 0 and the orange one how many "
        "are saturated, where the activation is next to flat.",
        "values that it puts out",
    ),
    "updates": Kind(
        "Update magnitudes", "Updates",
        "How far the update moves the single weights of each layer: a ridge shows how many lie near each power of ten, "
        "the grey bar how many do not move.",
        "steps of its weights",
    ),
}  # fmt: skip
"""Kind -> its texts; those of weights are in the table of plots."""


def check_kind(kind: Any) -> str:
    """A kind of magnitudes; ValueError in a sentence if it is none."""
    return str(Choice("Magnitudes", KINDS).check("magnitudes", kind))


def choose_plot(name: str, kind: str) -> Plot:
    """A plot of the table, with the titles and the help of a kind of magnitudes where it shows those."""
    plot, texts = find_plot(name), TEXTS.get(kind)
    if texts is None or name not in SWITCHED:
        return plot
    if name == "magnitudes":
        return dataclasses.replace(plot, title=texts.title, short=texts.short, help=f"{texts.now} {MEASURED}")
    told = (
        f"Each band is a layer and each column an update: the stronger a colour, the more of the {texts.over_time} "
        "have that magnitude, small ones below and large ones above, and red is the share that is NaN or infinite. "
        f"{MEASURED}"
    )
    return dataclasses.replace(plot, title=f"{texts.title} over time", short=f"{texts.short} over time", help=told)


def find_next_kind(kind: str) -> str:
    """The kind that comes after one."""
    return KINDS[(KINDS.index(kind) + 1) % len(KINDS)]


def choose_span(exponents: Exponents, kind: str) -> tuple[int, int]:
    """The powers of two between which a kind is drawn."""
    first, last = choose_powers(exponents)
    return (first, last) if kind == "weights" else (max(SMALLEST, 1 - exponents.bias), last)


def take_counts(record: Record, updates: IntArray, kind: str) -> NDArray[np.int32]:
    """Histograms (times, layers, classes) of a kind: of each update the last one, up to it, that was counted."""
    if kind == "weights":
        return record.histograms[record.histograms.find_counted(updates)]
    kept = record.signal_histograms
    return choose_layers(kept[kept.find_counted(updates)], kind)


def fit_span(histograms: NDArray[np.int32], exponents: Exponents) -> tuple[int, int]:
    """The powers of two that hold all of some histograms of signals, but for the smallest numbers of each."""
    inside = np.cumsum(histograms[:, :, 1:-1], axis=2).reshape(-1, exponents.count - 2)
    inside = inside[inside[:, -1] > 0]
    if not len(inside):
        return choose_span(exponents, "gradients")
    totals = inside[:, -1:]
    low = (inside < SMALL * totals).sum(axis=1).min() + 1 - exponents.bias
    high = (inside < totals).sum(axis=1).max() + 2 - exponents.bias
    return int(low // ROUND * ROUND), int(-(-high // ROUND) * ROUND)


def count_shares(
    histograms: NDArray[np.int32], exponents: Exponents, most: int, span: tuple[int, int] | None = None
) -> FloatArray:
    """Shares of the numbers (times, layers, bins) in at most `most` equal bins of the powers of a span.

    Without a span, in those of weights; within one, what is smaller counts in the first bin.
    """
    first, last = span or choose_powers(exponents)
    start = first + exponents.bias
    inside = histograms[:, :, max(start, 1) : last + exponents.bias]
    if span is not None:
        inside = np.pad(inside, [(0, 0), (0, 0), (last - first - inside.shape[2], 0)])  # copied, too
        inside[:, :, 0] += histograms[:, :, 1 : max(start, 1)].sum(axis=2)
    firsts = np.arange(0, last - first, -(-(last - first) // most))
    totals = histograms.sum(axis=2, keepdims=True)
    return np.add.reduceat(inside, firsts, axis=2) / np.maximum(totals, 1)


def draw_magnitudes(
    traces: dict[str, Any], record: Record, kind: str = "weights", signals: Signals | None = None
) -> None:
    """The latest histogram of each layer as a ridge on the layer's row; red crosses where some are NaN or inf.

    `signals`: those of the update that is shown, if they were measured beside the record.
    """
    first, last = choose_span(record.exponents, kind)
    found = None if kind == "weights" else signals or find_signals(record)
    latest = take_counts(record, np.array([len(record)]), kind) if found is None else found.count(kind)[None]
    shares = count_shares(latest, record.exponents, 160, None if kind == "weights" else (first, last))[0]
    bins = shares.shape[1]
    centres = first + (np.arange(bins) + 0.5) * (last - first) / bins
    x = np.concatenate([[first], centres, [last]]).astype(np.float32)
    peaks = np.maximum(shares.max(axis=1, keepdims=True), 1e-12)
    for layer, heights in enumerate(shares / peaks * HEIGHT):
        base = layer + BASE
        y = np.concatenate([[base], base - heights, [base]]).astype(np.float32)
        traces[f"magnitudes {layer}"].update(x=x, y=y)
    lost = np.flatnonzero(latest[0, :, -1])
    traces["lost weights"].update(x=np.full(len(lost), last + (last - first) * 0.02), y=lost + 0.1)
    draw_bars(traces, record, kind, found)


def draw_bars(traces: dict[str, Any], record: Record, kind: str, found: Signals | None) -> None:
    """Below each ridge a bar as long as the share of zeros, one for saturated units, and a circle at the deviation."""
    first, last = choose_span(record.exponents, kind)
    layers = np.arange(len(record.layers))
    nothing = np.zeros(len(layers))
    zeros = saturated = deviations = nothing
    if found is not None:
        counts = found.count(kind)
        zeros = counts[:, 0] / np.maximum(counts.sum(axis=1), 1)
    if found is not None and kind == "activations":
        zeros, saturated, deviations = found.activation_zeros, found.activation_saturated, found.activation_deviation
    for name, shares, below in (("zeros", zeros, 0.44), ("saturated", saturated, 0.36)):
        there = np.flatnonzero(np.nan_to_num(shares) > 0)
        ends = first + shares[there] * (last - first)
        x = np.stack([np.full(len(there), first), ends, np.full(len(there), np.nan)], axis=1).ravel()
        y = np.repeat(layers[there] + below, 3)
        said = [f"{record.layers[layer]}: {shares[layer]:.0%}" for layer in there for _ in range(3)]
        traces[f"{name} of layers"].update(x=x.astype(np.float32), y=y.astype(np.float32), text=said)
    there = np.flatnonzero(np.isfinite(deviations) & (deviations > 0))
    places = np.clip(np.log2(deviations[there]), first, last)
    said = [] if found is None else [describe_layer(found, layer) for layer in there.tolist()]
    traces["deviations of layers"].update(
        x=places.astype(np.float32), y=(layers[there] + BASE).astype(np.float32), text=said
    )


def describe_layer(found: Signals, layer: int) -> str:
    """What is known of a layer's output, for the pointer."""
    shares = {"zeros": found.activation_zeros, "saturated": found.activation_saturated}
    said = [f"{name} {share[layer]:.0%}" for name, share in shares.items() if not np.isnan(share[layer])]
    mean, deviation = found.activation_mean[layer], found.activation_deviation[layer]
    where = f"{found.layers[layer]}, update {found.step}"
    return f"{where}: mean {mean:.3g}, deviation {deviation:.3g}, {', '.join(said)}"
