"""Where the dashboard's plots lie, in pixels, for a width: a grid whose cells hold tick labels and titles, too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cnnlab.config.settings import nearest, quote
from cnnlab.plots.gauges import PLOTS, find_plot, list_plots

COLUMNS = ((460, 1), (720, 2), (1250, 3), (math.inf, 4))
"""Width in pixels at scale 1 below which so many columns have room."""
SHARED = ("accuracy", "stability")
"""Plots of half the height, the one below the other, where that saves a row."""
LEAST_WIDTH = 240
"""Least width in pixels at scale 1: in a figure with less room the type is smaller."""
TITLE, BOTTOM, BETWEEN, RIGHT, LEFT = 25, 25, 8, 26, 40
"""Pixels at scale 1 above a plot, below it, below it where another shares its cell, to its right, and to its left."""
LEFT_OF_LAYERS = 72
"""Pixels at scale 1 to the left of a plot whose rows are layers."""
ROW, HIGHEST_ROW = 208, 340
"""Height of a row in pixels at scale 1 where cells are narrow, and where they are wide."""
KEY = 22
"""Height in pixels at scale 1 of a key above all plots."""
LOWEST_FOCUS, HIGHEST_FOCUS = 300, 600
"""Height in pixels at scale 1 of a plot that has the figure to itself."""
TICK_WIDTH, TICK_HEIGHT = 38, 17
"""Pixels at scale 1 between two tick labels side by side, and above each other."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, from the left and from the top of the figure."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Panel:
    """Where one plot lies."""

    cell: Box
    """All that belongs to the plot: its title, tick labels and the names of its lanes."""
    plot: Box
    """What its axes span."""
    ticks: tuple[int, int]
    """Most tick labels that there is room for side by side, and most steps between those above each other."""
    tick_labels: bool
    """Whether the update is written below; not above a plot that shares the cell and says it."""


@dataclass(frozen=True)
class Arrangement:
    """The figure's size and the panels that are shown."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    scale: float
    """How much larger the type is than at scale 1; less than asked for where the figure is very narrow."""
    panels: dict[str, Panel]
    """Name of a plot -> where it lies, in the order in which they are shown."""
    focus: str | None = None
    """The one that has the figure to itself."""
    key: Box | None = None
    """Where the key of two records lies; None where only one is drawn."""


def check_panels(panels: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the plots to show, those of the table for None; ValueError in a sentence if one is no plot's."""
    names = list(PLOTS) if panels is None else [panels] if isinstance(panels, str) else list(panels)
    plots = list_plots()
    known = ", ".join(plots)
    for name in names:
        if not isinstance(name, str) or name not in plots:
            raise ValueError(f"panels must be names of {known}, got {quote(name)}{nearest(name, plots)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"panels must be one or more names of {known}, each once, got {quote(panels)}")
    return tuple(names)


def check_focus(focus: str | None) -> str | None:
    """The name of the plot that has the figure to itself; ValueError in a sentence if it is no plot's."""
    plots = list_plots()
    if focus is not None and (not isinstance(focus, str) or focus not in plots):
        raise ValueError(f"focus must be one of {', '.join(plots)}, got {quote(focus)}{nearest(focus, plots)}")
    return focus


def arrange_panels(
    width: int,
    scale: float = 1.0,
    panels: Sequence[str] | None = None,
    focus: str | None = None,
    keyed: bool = False,
) -> Arrangement:
    """Where plots lie in a figure so many pixels wide, in their order; `focus` is one that has it to itself.

    `keyed`: whether there is a key of two records above them. Earlier rows have as many panels as later ones, or one
    less: the first panel is as wide as any.
    """
    names = check_panels(panels)
    if check_focus(focus) is not None:
        names = (str(focus),)
    scale = min(scale, width / LEAST_WIDTH)
    rows = split_rows(names, next(count for most, count in COLUMNS if width / scale < most))
    height = choose_focus_height(width, scale) if focus else choose_row_height(width / len(rows[0]), scale)
    found: dict[str, Panel] = {}
    key = Box(0, 0, width, round(KEY * scale)) if keyed else None
    top = key.height if key else 0
    for row, cells in enumerate(rows):
        edges = [round(width * place / len(cells)) for place in range(len(cells) + 1)]
        for cell, left, right in zip(cells, edges[:-1], edges[1:], strict=True):
            found |= place_cell(cell, Box(left, top + row * height, right - left, height), scale)
    whole = round(top + len(rows) * height)
    return Arrangement(width, whole, scale, {name: found[name] for name in names}, focus, key)


def choose_row_height(cell: float, scale: float) -> int:
    """The height of a row whose first cell is so wide: higher where cells are wide."""
    return round(min(max(0.3 * cell + 110 * scale, ROW * scale), HIGHEST_ROW * scale))


def choose_focus_height(width: int, scale: float) -> int:
    """The height of a figure of one large plot."""
    return round(min(max(0.6 * width, LOWEST_FOCUS * scale), HIGHEST_FOCUS * scale))


def split_rows(names: Sequence[str], columns: int) -> list[list[tuple[str, ...]]]:
    """The cells of each row, a cell being the plots in it."""
    cells = [(name,) for name in names]
    joined = [SHARED if name == SHARED[0] else (name,) for name in names if name != SHARED[1]]
    saves = math.ceil(len(joined) / columns) < math.ceil(len(cells) / columns)
    chosen: list[tuple[str, ...]] = list(joined if saves and set(SHARED) <= set(names) else cells)
    count = math.ceil(len(chosen) / columns)
    few, longer = divmod(len(chosen), count)
    rows = []
    for row in range(count):
        length = few + (row >= count - longer)
        rows.append(chosen[:length])
        chosen = chosen[length:]
    return rows


def place_cell(names: tuple[str, ...], cell: Box, scale: float) -> dict[str, Panel]:
    """The panels of the plots in a cell; they are equally high."""
    title, bottom, between = (pixels * scale for pixels in (TITLE, BOTTOM, BETWEEN))
    height = (cell.height - len(names) * title - bottom - (len(names) - 1) * between) / len(names)
    found, top = {}, cell.top
    for name in names:
        below = bottom if name == names[-1] else between
        left = (LEFT_OF_LAYERS if find_plot(name).layers else LEFT) * scale
        plot = Box(cell.left + left, top + title, cell.width - left - RIGHT * scale, height)
        ticks = (max(2, int(plot.width / scale / TICK_WIDTH)), max(2, int(0.8 * height / scale / TICK_HEIGHT)))
        whole = Box(cell.left, top, cell.width, title + height + below)
        found[name] = Panel(whole, plot, ticks, name == names[-1])
        top += whole.height
    return found
