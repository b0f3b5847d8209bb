"""How good the user's guesses are: how often within a factor of 2, and how sure against how often right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cnnlab.course.entries import Attempt, Entry, Value
from cnnlab.course.guess_file import read_guess_file
from cnnlab.course.guesses import is_within_factor_two, show_value
from cnnlab.course.notebook import find_notebook

if TYPE_CHECKING:
    import plotly.graph_objects as go

RIGHT, WRONG = "#0072b2", "#d55e00"
"""Colours of guesses within a factor of 2 and of others (Okabe and Ito, 2008)."""
BINS = 5
"""Groups of how sure the user was: 0 to 20 %, and so on."""
SIGNIFICANT = 0.8
"""Who is at least so sure and not right was sure and wrong."""
FARTHEST = 10.0
"""Doublings at which the plot's edge lies: what is farther, or not finite, is drawn there."""


@dataclass(frozen=True)
class Scored:
    """A guess that was compared with what was measured."""

    question: str
    """What was asked."""
    notebook: str
    """Where it was asked; empty where that is not known."""
    value: Value
    """The last guess before the measured value was shown."""
    sure: float | None
    """How sure the user was, from 0 to 1; None if they did not say."""
    measured: Value
    """What was measured."""
    right: bool
    """Whether the guess is within a factor of 2, or on the right side where the sign was asked."""

    @property
    def sure_and_wrong(self) -> bool:
        """Whether the user was at least 80 % sure, and not right."""
        return not self.right and self.sure is not None and self.sure >= SIGNIFICANT


def score(entry: Entry) -> Scored | None:
    """The score of a question; None while the guess is open or nothing was measured."""
    fair: Attempt | None = entry.fair
    if fair is None or entry.measured is None:
        return None
    right = is_within_factor_two(fair.value, entry.measured, entry.unit)
    return Scored(entry.question, entry.notebook, fair.value, fair.sure, entry.measured, right)


@dataclass(frozen=True)
class Calibration:
    """All guesses of a folder that were compared; shows itself as a figure."""

    scores: tuple[Scored, ...]
    """One for each guess that was compared."""
    waiting: int
    """How many guesses were given and not compared yet."""

    def __repr__(self) -> str:
        if not self.scores:
            return f"no guess was compared yet; {self.waiting} waiting"
        right, wrong = (
            sum(found) for found in ((s.right for s in self.scores), (s.sure_and_wrong for s in self.scores))
        )
        share = f"{right} of {len(self.scores)} guesses within a factor of 2"
        return f"{share}; {wrong} sure and wrong; {self.waiting} waiting"

    @cached_property
    def groups(self) -> list[tuple[float, float, int]]:
        """(mean of how sure, share that was right, number of guesses) of each group of like sureness."""
        groups: dict[int, list[Scored]] = {}
        for scored in self.scores:
            if scored.sure is not None:
                groups.setdefault(min(int(scored.sure * BINS), BINS - 1), []).append(scored)
        return [
            (sum(s.sure or 0 for s in group) / len(group), sum(s.right for s in group) / len(group), len(group))
            for _, group in sorted(groups.items())
        ]

    @cached_property
    def figure(self) -> go.Figure:
        """Left, how many times too high or low each guess was; right, how sure against how often right."""
        return draw_calibration(self)

    def _repr_mimebundle_(self, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        if not self.scores:
            return {"text/plain": repr(self)}
        return {**self.figure._repr_mimebundle_(*arguments, **keywords), "text/plain": repr(self)}


def guesses() -> Calibration:
    """The calibration of the user's guesses in all notebooks of this folder."""
    entries = read_guess_file(find_notebook().folder).guesses
    scores = tuple(scored for entry in entries if (scored := score(entry)))
    return Calibration(scores, sum(bool(entry.attempts) and entry.measured is None for entry in entries))


def draw_calibration(calibration: Calibration) -> go.Figure:
    """The figure of a calibration."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    titles = ("guess / measured", "how sure, how often right")
    figure = make_subplots(1, 2, subplot_titles=titles, column_widths=[0.6, 0.4])
    for right, colour, name in ((True, RIGHT, "within a factor of 2"), (False, WRONG, "farther off")):
        found = [(place, s) for place, s in enumerate(calibration.scores, start=1) if s.right is right]
        marks = {"color": colour, "size": [6 + 8 * (s.sure or 0) for _, s in found]}
        places = {"x": [doublings(s) for _, s in found], "y": [place for place, _ in found]}
        hover = [describe_score(s) for _, s in found]
        dots = go.Scatter(**places, mode="markers", name=name, marker=marks, hovertext=hover, hoverinfo="text")
        figure.add_trace(dots, 1, 1)
    figure.add_vrect(-1, 1, fillcolor=RIGHT, opacity=0.1, line_width=0, row=1, col=1)
    ticks = (-FARTHEST, -5, -1, 1, 5, FARTHEST)
    words = ["≤ 1/1000", "1/32", "1/2", "2", "32", "≥ 1000"]
    figure.update_xaxes(tickvals=ticks, ticktext=words, tickangle=0, range=[-FARTHEST - 1, FARTHEST + 1], row=1, col=1)
    every = 1 + len(calibration.scores) // 10
    figure.update_yaxes(title="guess number", tick0=1, dtick=every, row=1, col=1)
    draw_groups(figure, calibration.groups)
    return figure.update_layout(
        template="plotly_white", height=340, margin={"t": 50}, legend={"orientation": "h", "y": -0.25}
    )


def draw_groups(figure: go.Figure, groups: list[tuple[float, float, int]]) -> None:
    """How sure against how often right, with the line of somebody who is as often right as they are sure."""
    sure, right, counts = zip(*groups, strict=True) if groups else ((), (), ())
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": "grey", "dash": "dot"}, showlegend=False, row=1, col=2
    )
    figure.add_scatter(
        x=sure,
        y=right,
        mode="markers+text",
        text=counts,
        textposition="top center",
        marker={"color": RIGHT, "size": 12},
        name="guesses (number)",
        cliponaxis=False,
        row=1,
        col=2,
    )
    figure.update_xaxes(title="sure", tickformat=".0%", range=[0, 1], row=1, col=2)
    figure.update_yaxes(title="right", tickformat=".0%", range=[0, 1.15], row=1, col=2)


def doublings(scored: Scored) -> float:
    """How many doublings a guess is above what was measured, up to the plot's edge."""
    guess, measured = float(scored.value), float(scored.measured)
    if scored.right and not (math.isfinite(guess) and math.isfinite(measured) and guess * measured > 0):
        return 0.0
    if math.isnan(guess) or math.isnan(measured):
        return FARTHEST
    if guess * measured > 0 and math.isfinite(guess) and math.isfinite(measured):
        distance = math.log2(abs(guess)) - math.log2(abs(measured))
        return max(-FARTHEST, min(FARTHEST, distance))
    return FARTHEST if guess > measured else -FARTHEST


def describe_score(scored: Scored) -> str:
    """What a dot's tooltip says: plotly reads it as HTML."""
    from html import escape

    sure = f", {scored.sure:.0%} sure" if scored.sure is not None else ""
    values = f"guess {show_value(scored.value, None)}{sure}; measured {show_value(scored.measured, None)}"
    return f"{escape(scored.question)}<br>{values}<br>{escape(scored.notebook)}"
