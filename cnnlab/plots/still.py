"""A small still picture of a run as SVG: its state in words and its cost, where no plotly draws."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.plots.colours import GRID, INK, RED
from cnnlab.plots.layout import FONTS, fit_log_range
from cnnlab.plots.points import find_lone_points, place_marks, thin_curve
from cnnlab.records.record import Record

WIDTH, HEIGHT = 720, 300
"""Of the picture, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 56, 708, 70, 262
"""Edges of the plot within it."""
LETTERS, LINES = 72, 2
"""Most letters in a line of words above the plot, and most lines."""
POINTS = 600
"""Most points of the curve."""
SYMBOLS = {"x": "×", "triangle-up": "▲", "triangle-down": "▼"}
"""Plotly's name of a mark -> its sign."""


def draw_still(record: Record, line: str) -> str:
    """The cost of a record below a line of words, as SVG of at most 40 kB."""
    heights = fit_log_range(record.cost)
    last = max(len(record), 6)
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *draw_words(line),
        *draw_axes(heights, last),
        draw_curve(record.cost, heights["range"], last),
        *draw_marks(record.cost, last),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'{head} font-family="{FONTS}" font-size="11" fill="{INK}">{"".join(parts)}</svg>'


def draw_words(line: str) -> Iterator[str]:
    """The line above the plot, in two where it is long, and the plot's title."""
    for place, words in enumerate(wrap(line, LETTERS, max_lines=LINES, placeholder=" …")):
        yield write(12, 20 + 18 * place, words, 'font-size="14" font-weight="600"')
    yield write(LEFT, TOP - 7, "Cost", 'font-weight="600"')


def draw_axes(heights: dict[str, Any], last: int) -> Iterator[str]:
    """Lines and labels at powers of ten and at whole updates."""
    low, high = heights["range"]
    every = heights["dtick"]
    for power in np.arange(math.ceil(low / every) * every, high, every).tolist():
        y = find_height(power, heights["range"])
        yield f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="{GRID}"/>'
        label = f'10<tspan dy="-5" font-size="8">{power:g}</tspan>' if power else "1"
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    step = choose_step(last)
    for update in range(step, last + 1, step):
        yield write(find_place(update, last), BOTTOM + 15, str(update), 'text-anchor="middle"')
    yield write((LEFT + RIGHT) / 2, BOTTOM + 31, "Update", 'text-anchor="middle"')


def draw_curve(cost: NDArray[np.float64], heights: list[float], last: int) -> str:
    """The curve, broken where a cost cannot be drawn; a point where no line goes through."""
    x, y = thin_curve(cost, POINTS)
    pieces: list[str] = []
    pen = "M"
    for update, value in zip(x.tolist(), y.tolist(), strict=True):
        if not value > 0:
            pen = "M"
            continue
        pieces.append(f"{pen}{find_place(update, last):.1f} {find_height(math.log10(value), heights):.1f}")
        pen = "L"
    lone = zip(*(values.tolist() for values in find_lone_points(x, y)), strict=True)
    points = [
        f'<circle cx="{find_place(update, last):.1f}" cy="{find_height(math.log10(value), heights):.1f}" r="2.5"/>'
        for update, value in lone
    ]
    path = f'<path d="{"".join(pieces)}" fill="none" stroke="{INK}" stroke-width="2"/>' if pieces else ""
    return path + "".join(points)


def draw_marks(cost: NDArray[np.float64], last: int) -> Iterator[str]:
    """The red marks of what is NaN, inf, or 0 and less."""
    marks = place_marks(cost)
    for x, y, symbol in zip(marks["x"].tolist(), marks["y"].tolist(), marks["marker"]["symbol"], strict=True):
        height = BOTTOM - y * (BOTTOM - TOP)
        yield write(find_place(x, last), height + 4, SYMBOLS[symbol], f'text-anchor="middle" fill="{RED}"')
    if not np.isfinite(cost).all():
        yield write(RIGHT, TOP - 7, "NaN ×, inf ▲", f'text-anchor="end" fill="{RED}"')


def write(x: float, y: float, words: str, style: str) -> str:
    """A text at a place of the picture."""
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{html.escape(words)}</text>'


def find_place(update: float, last: int) -> float:
    """Where an update lies from left to right, in pixels."""
    return LEFT + (RIGHT - LEFT) * (update - 0.5) / last


def find_height(power: float, heights: list[float]) -> float:
    """Where a power of ten lies from the top, in pixels."""
    low, high = heights
    return BOTTOM - (BOTTOM - TOP) * (power - low) / (high - low)


def choose_step(last: int) -> int:
    """Updates between two labels, at most ten of them: 1, 2 or 5 times a power of ten."""
    decade = 10 ** math.floor(math.log10(last / 10)) if last > 10 else 1
    return next(decade * factor for factor in (1, 2, 5, 10) if last / (decade * factor) <= 10)
