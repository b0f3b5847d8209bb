"""The table of the dashboard's plots: what each shows of a record, where it lies, and what stands beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import methodcaller

from cnnlab.plots.colours import INK, ORANGE
from cnnlab.records.frame import FloatArray
from cnnlab.records.record import Record


@dataclass(frozen=True)
class Plot:
    """One plot of the dashboard."""

    title: str
    box: tuple[float, float, float, float]
    """Left, right, bottom, top as shares of the figure; with a bottom below 0 the figure grows downwards."""
    values: Callable[[Record], FloatArray] | None = None
    """Takes the gauge, (updates + 1,) or (updates + 1, layers), to draw a curve each; None: drawn by a function of its
    own."""
    yardstick: float | None = None
    """A value to compare with, as a dashed line."""
    key: str = ""
    """What stands to the right of the title where there is room."""
    log: bool = True
    """Whether the heights are on a log axis, with lanes for what that cannot show."""
    ground: bool = True
    """Whether the lane of NaN and inf has a ground of its own."""


def write_key(colours: dict[str, str]) -> str:
    """A key: each name in its colour."""
    return "  ".join(f"<span style='color:{colour}'>{name}</span>" for name, colour in colours.items())


PLOTS = {
    "cost": Plot("Cost", (0.042, 0.29, 0.57, 0.94)),
    "magnitudes": Plot("Weight magnitudes", (0.385, 0.655, 0.57, 0.94), log=False),
    "over_time": Plot("Over time", (0.715, 0.978, 0.57, 0.94), log=False),
    "accuracy": Plot(
        "Accuracy", (0.042, 0.29, 0.07, 0.185), key=write_key({"training": INK, "held out": ORANGE}), log=False
    ),
    "gradient": Plot("Gradient norm", (0.385, 0.655, 0.07, 0.44), methodcaller("column", "gradient_norm")),
    # Training is healthy near a ratio of 1e-3 (Karpathy 2022).
    "ratio": Plot(
        "Update/weight", (0.735, 0.978, 0.07, 0.44), methodcaller("column", "update_ratio"), 1e-3,
        key="healthy: 10<sup>-3</sup>",
    ),
    "stability": Plot(
        "Curvature", (0.042, 0.29, 0.25, 0.44), key=write_key({"λ": INK, "2/learning rate": ORANGE}), ground=False
    ),
}  # fmt: skip
"""Name -> plot, in the order of their axes. A plot with `values` needs nothing but its row."""


def number_axes() -> dict[str, tuple[str, str]]:
    """Plot -> its axes as traces name them: x and y for the first, then x2 and y2."""
    return {
        name: (f"x{place}", f"y{place}") for name, place in zip(PLOTS, ["", *range(2, len(PLOTS) + 1)], strict=True)
    }


def number_lanes() -> dict[str, str]:
    """Log plot -> the axis that runs from 0 to 1 whatever the plot shows; these follow the axes of the plots."""
    logs = [name for name, plot in PLOTS.items() if plot.log]
    return {name: f"y{place}" for place, name in enumerate(logs, len(PLOTS) + 1)}


def take_values(record: Record) -> dict[str, FloatArray]:
    """Plot -> (updates, curves): the values of each plot that has a function to take them."""
    found = {name: plot.values(record)[1:] for name, plot in PLOTS.items() if plot.values}
    return {name: values if values.ndim == 2 else values[:, None] for name, values in found.items()}
