"""The table of the dashboard's plots: what each shows of a record, what it is called, and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import methodcaller

from cnnlab.config.settings import Knobs
from cnnlab.plots.colours import FAINT, INK, ORANGE, RED
from cnnlab.records.frame import FloatArray
from cnnlab.records.record import Record


@dataclass(frozen=True)
class Plot:
    """One plot of the dashboard."""

    title: str
    help: str
    """What it shows and how to read it, in two sentences."""
    values: Callable[[Record], FloatArray] | None = None
    """Takes the gauge, (updates + 1,) or (updates + 1, layers), to draw a curve each; None: drawn by a function of its
    own."""
    yardstick: float | None = None
    """A value to compare with, as a dashed line."""
    healthy: tuple[float, float] | None = None
    """Between which values training is usually healthy, as a band."""
    key: str = ""
    """What stands after the title where there is room."""
    short: str = ""
    """The title where there is no room for the whole."""
    link: str = "labs/00_start_here.ipynb"
    """A page that says more, from the folder of the repository."""
    log: bool = True
    """Whether the heights are on a log axis, with lanes for what that cannot show."""
    ground: bool = True
    """Whether the lane of NaN and inf has a ground of its own."""
    layers: bool = False
    """Whether its rows are the layers."""


def write_key(colours: dict[str, str]) -> str:
    """A key: each colour's name, in the colour."""
    return "  ".join(f"<span style='color:{colour}'>{name}</span>" for colour, name in colours.items())


PLOTS = {
    "cost": Plot(
        "Cost",
        "The cost of each update on a log axis, with earlier runs in grey and other branches in their colours. "
        "An update whose cost is NaN or infinite has a mark in the red lane along the top.",
    ),
    "magnitudes": Plot(
        "Weight magnitudes",
        "How large the weights of each layer are now: a ridge shows how many lie near each power of ten. "
        "A ridge that moves to the right grows, and a red cross says that some of the weights are NaN or infinite.",
        short="Weights", log=False, layers=True,
    ),
    "over_time": Plot(
        "Weight magnitudes over time",
        "Each band is a layer and each column an update: the stronger a colour, the more of the weights have that "
        "magnitude, small ones below and large ones above. "
        "Red is the share of the weights that are NaN or infinite.",
        key="  ".join(f"{write_key({ink: '■'})} {name}" for ink, name in ((INK, "many"), (FAINT, "few"), (RED, "NaN"))),
        short="Weights over time", link="labs/06_rewind_and_fork.ipynb", log=False, layers=True,
    ),
    "accuracy": Plot(
        "Accuracy",
        "The share of the patches that the network names rightly: of those it trains on, and of held-out ones it never "
        "trains on. With two equally frequent classes 0.5 is no better than guessing.",
        key=write_key({INK: "training", ORANGE: "held out"}), log=False,
    ),
    "gradient": Plot(
        "Gradient norm",
        "The length of the gradient of each layer's weights at each update, in the colour of the layer. "
        "Before a NaN it grows by powers of ten from one update to the next; a mark in the lane at the top is NaN or "
        "infinite, one at the bottom is 0.",
        methodcaller("column", "gradient_norm"), link="labs/05_autopsy_of_a_nan.ipynb",
    ),
    # Training is healthy near a ratio of 1e-3 (Karpathy 2022); how many updates of presets that learn lie in the band
    # is in tests/benchmarks/results/corridor.md.
    "ratio": Plot(
        "Update/weight",
        "How far an update moves the weights of each layer, divided by their size. "
        "Near the dashed line, one part in a thousand, training is usually healthy (Karpathy 2022), and in the band, a "
        "factor of ten either way, lay 57 to 100 % of the updates of our presets that learn; above 1 an update "
        "replaces the weights.",
        methodcaller("column", "update_ratio"), 1e-3, (1e-4, 1e-2), key="healthy: 10<sup>-3</sup>",
        short="Update/weight", link="labs/01_how_large_a_step.ipynb",
    ),
    "stability": Plot(
        "Curvature",
        "λ is the largest eigenvalue of the cost's Hessian, that is, how sharply the cost curves, divided as RMSprop "
        "and Adam divide gradients; the dashed line is the most that this learning rate allows, 2/learning rate for "
        "plain gradient descent. "
        "In the band below the line steps along the sharpest direction lead nearer to its bottom; while λ lies above "
        "it they lead away (Cohen and others 2021): the cost can grow, and Adam's averages grow "
        "until λ meets the line.",
        key=write_key({INK: "λ", ORANGE: "the most allowed"}), link="labs/01_how_large_a_step.ipynb", ground=False,
    ),
}  # fmt: skip
"""Name -> plot, in the order of their axes. A plot with `values` needs nothing but its row."""
MORE = {
    "signals": Plot(
        "Signals by depth",
        "How strongly signals vary in each layer, from the first to the last: the standard deviation of what it puts "
        "out (black), and of the gradient that comes back to it (orange), with marks above where that is NaN or "
        "infinite and below where it is 0. "
        "In the bands, a factor of 10 around 1 and around the last layer's gradient, signals keep their size, as "
        "Glorot and Bengio (2010) and He and others (2015) ask of a start; in our own measurement none of 320 runs "
        "learnt that were off by a factor of 1,000 or more.",
        key=write_key({INK: "forward", ORANGE: "back"}), short="Signals", link="labs/10_why_do_signals_vanish.ipynb",
    ),
    "loss_scale": Plot(
        "Loss scale",
        "What the cost is multiplied by before the backward pass, in powers of two; the gradient is divided by it "
        "again. "
        "A mark along the top is an update that was left out: a triangle where the scaled gradient overflowed, a cross "
        "where the cost was NaN.",
        link="labs/13_sixteen_bits.ipynb",
    ),
}  # fmt: skip
"""Plots that are shown where they are asked for by name; that of the loss scale where there is one, too."""


def list_plots() -> dict[str, Plot]:
    """Name -> plot, those that are shown where they are asked for among them."""
    return {**PLOTS, **MORE}


def find_plot(name: str) -> Plot:
    """A plot by its name."""
    return PLOTS[name] if name in PLOTS else MORE[name]


def choose_shown(*schedules: Iterable[tuple[int, Knobs]]) -> tuple[str, ...]:
    """The plots that are shown where none is asked for: with that of the loss scale, where a schedule has one.

    A schedule is that of a Record: (first update, knobs in force from it on).
    """
    scaled = any(knobs.loss_scale != "off" for schedule in schedules for _, knobs in schedule)
    return (*PLOTS, "loss_scale") if scaled else tuple(PLOTS)


def number_axes() -> dict[str, tuple[str, str]]:
    """Plot -> its axes as traces name them: x and y for the first, then x2 and y2; after the lanes of the plots that
    are always there come those that may be."""
    numbers = {name: str(place) if place > 1 else "" for place, name in enumerate(PLOTS, 1)}
    numbers |= {name: str(place) for place, name in enumerate(MORE, len(PLOTS) + count_lanes() + 1)}
    return {name: (f"x{number}", f"y{number}") for name, number in numbers.items()}


def count_lanes() -> int:
    """How many of the plots that are always there have lanes."""
    return sum(plot.log for plot in PLOTS.values())


def number_lanes() -> dict[str, str]:
    """Log plot -> the axis that runs from 0 to 1 whatever the plot shows; these follow the axes of the plots."""
    logs = [name for name, plot in PLOTS.items() if plot.log]
    lanes = {name: f"y{place}" for place, name in enumerate(logs, len(PLOTS) + 1)}
    more = [name for name, plot in MORE.items() if plot.log]
    return lanes | {name: f"y{place}" for place, name in enumerate(more, len(PLOTS) + len(lanes) + len(MORE) + 1)}


def take_values(record: Record, names: Iterable[str]) -> dict[str, FloatArray]:
    """Plot -> (updates, curves): the values of each of some plots that has a function to take them."""
    taken = {name: find_plot(name).values for name in names}
    found = {name: values(record)[1:] for name, values in taken.items() if values}
    return {name: values if values.ndim == 2 else values[:, None] for name, values in found.items()}
