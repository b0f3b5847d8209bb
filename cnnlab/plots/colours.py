"""The colours of all figures: those of layers and branches, ink, and the red of NaN and inf."""

from __future__ import annotations

from cnnlab.plots.images import NONFINITE

PALETTE = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499")
"""Paul Tol's "muted" scheme: nine colours that all kinds of colour vision tell apart. One a layer, everywhere."""
BRANCH_COLOURS = ("#222222", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's (2008) colours, one a branch by its number; they repeat."""
INK, FAINT, ORANGE, RED = "#222222", "#B8BEC6", "#D55E00", "rgb({},{},{})".format(*NONFINITE)


def colour_layer(layer: int) -> str:
    """The colour of a layer by its place; they repeat after nine."""
    return PALETTE[layer % len(PALETTE)]


def colour_branch(number: int) -> str:
    """The colour of a branch; the first one is in ink."""
    return BRANCH_COLOURS[(number - 1) % len(BRANCH_COLOURS)]


DARK: dict[str, str] = {}
"""Colour on a light ground -> its counterpart on a dark one."""
