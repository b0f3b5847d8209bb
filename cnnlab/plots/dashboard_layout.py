"""The layout of the dashboard's figure: axes, titles, and where its panels lie, for the page that frames them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypedDict

from cnnlab.plots.arrangement import Arrangement, Panel
from cnnlab.plots.colours import GRID, HEALTHY, RED, colour_layer, colour_text
from cnnlab.plots.gauges import Plot, find_plot, list_plots, number_axes, number_lanes
from cnnlab.plots.layout import LANES, LOG, make_band, make_frame, make_lane_axis, make_lane_ground, name_axis
from cnnlab.plots.magnitudes import SWITCHED, choose_plot, find_next_kind

BUTTONS, SWITCH = 92, 18
"""Pixels at scale 1 at the right end of a title's line that the page's buttons take, and that one more to switch."""
INDENT = 6
"""Pixels at scale 1 between a panel's left edge and its title."""
TITLE_SIZE, KEY_SIZE, TICK_SIZE, LANE_SIZE = 12, 10, 10, 9
"""Sizes of type in pixels at scale 1."""
POWERS = 1.25
"""How much larger than its type plotly writes the labels of a log axis."""
BESIDE = "Dashed lines and hollow marks are the run beside."
NOT_BESIDE = "The run beside is not drawn here."
"""What a panel's help says of a second record."""
NARROW, WIDE = set("ijltfrI1.,:;'|!/()[]-… "), set("mwMW%@—")
"""Characters that take less than others, and more."""


class PanelState(TypedDict):
    """What the page is told of a panel."""

    name: str
    title: str
    help: str
    link: str
    kind: str
    """What the plots of magnitudes show, for the one that has the button to switch them; '' for others."""
    then: str
    """What they are switched to next."""
    box: list[float]
    """Left, top, width and height of all of it in pixels."""
    plot: list[float]
    """The same of what its axes span."""


def make_layout(
    layers: Sequence[str], arrangement: Arrangement, beside: str = "", kind: str = "weights"
) -> dict[str, Any]:
    """Axes, titles and type; nothing that changes while a run trains but the ranges.

    `beside` is what a second record has other than the first, for the key. A plot that is not shown keeps the numbers
    of its axes. `kind` is what the plots of magnitudes show. `meta` holds what the page is told of the panels.
    """
    scale, axes, lanes = arrangement.scale, number_axes(), number_lanes()
    built = {
        **make_frame(scale, arrangement.width), "height": arrangement.height, "uirevision": "kept", "dragmode": "zoom",
        "annotations": [*make_titles(arrangement, kind), *make_key(arrangement, beside)],
        "shapes": make_grounds(arrangement),
        "meta": {"scale": scale, "focus": arrangement.focus, "panels": describe_panels(arrangement, kind)},
    }  # fmt: skip
    for name, plot in list_plots().items():
        panel, (x, y) = arrangement.panels.get(name), axes[name]
        if panel is None:
            built |= make_hidden_axes(x, y)
        else:
            across, up = make_axes(panel, arrangement)
            built[name_axis(x)] = {**across, "anchor": y}
            built[name_axis(y)] = {**up, "anchor": x}
            if plot.log:
                built[name_axis(y)] |= {**LOG, "tickfont": {"size": TICK_SIZE * scale / POWERS}}
            for axis, change in zip((x, y), choose_rows(name, layers, panel, scale), strict=True):
                built[name_axis(axis)] |= change
        if plot.log:
            built[name_axis(lanes[name])] = make_lane_axis(x, y)
    return built


def make_grounds(arrangement: Arrangement) -> list[dict[str, Any]]:
    """The lanes of NaN and inf, and the bands in which gauges are healthy."""
    axes = number_axes()
    plots = {name: find_plot(name) for name in arrangement.panels}
    lanes = [make_lane_ground(*axes[name]) for name, plot in plots.items() if plot.log and plot.ground]
    bands = [make_band(*axes[name], plot.healthy, HEALTHY) for name, plot in plots.items() if plot.healthy]
    return lanes + bands


def make_axes(panel: Panel, arrangement: Arrangement) -> tuple[dict[str, Any], dict[str, Any]]:
    """The axes of a panel."""
    plot, width, height = panel.plot, arrangement.width, arrangement.height
    plain = {
        "showline": False, "zeroline": False, "ticks": "", "gridcolor": GRID, "automargin": False, "tickangle": 0,
        "ticklabeloverflow": "allow",  # to hide some, plotly measures each at every frame: 15 of 100 ms
        "tickfont": {"size": TICK_SIZE * arrangement.scale},
    }  # fmt: skip
    across = {"domain": [plot.left / width, (plot.left + plot.width) / width], "nticks": panel.ticks[0]}
    up = {"domain": [1 - (plot.top + plot.height) / height, 1 - plot.top / height], "nticks": panel.ticks[1]}
    return {**plain, **across, "showticklabels": panel.tick_labels}, {**plain, **up}


def make_hidden_axes(x: str, y: str) -> dict[str, Any]:
    """The axes of a plot that is not shown, in a corner where they hear no pointer."""
    # Plotly takes less than 1/4096 for a mistake, and gives such a plot the whole figure.
    hidden = {"visible": False, "fixedrange": True, "domain": [0, 1e-3]}
    return {name_axis(x): {**hidden, "anchor": y}, name_axis(y): {**hidden, "anchor": x}}


def choose_rows(name: str, layers: Sequence[str], panel: Panel, scale: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is special about the axes of a plot."""
    room = (panel.plot.left - panel.cell.left) / scale - INDENT
    rows: dict[str, Any] = {
        "range": [len(layers) - 0.5, -0.5], "fixedrange": True, "showgrid": False,
        "tickvals": list(range(len(layers))), "ticktext": label_layers(layers, room), "ticklabelstandoff": round(scale),
    }  # fmt: skip
    special: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "magnitudes": ({"fixedrange": True}, rows),
        "over_time": ({}, {**rows, "scaleanchor": False}),
        "accuracy": ({}, {"range": [-0.02, 1.04], "fixedrange": True, "tickvals": [0, 0.5, 1]}),
    }
    return special.get(name, ({}, {}))


def make_titles(arrangement: Arrangement, kind: str) -> list[dict[str, Any]]:
    """The title of each panel with its key, and the names of the lanes of the cost."""
    scale, width, height = arrangement.scale, arrangement.width, arrangement.height
    plain: dict[str, Any] = {"xref": "paper", "yref": "paper", "showarrow": False, "xanchor": "left"}
    found, switched = [], find_switched(arrangement)
    for name, panel in arrangement.panels.items():
        room = panel.cell.width / scale - INDENT - BUTTONS - (SWITCH if name == switched else 0)
        x = (panel.cell.left + INDENT * scale) / width
        y = 1 - (panel.cell.top + panel.plot.top) / 2 / height
        text, font = write_title(choose_plot(name, kind), room, scale), {"size": TITLE_SIZE * scale}
        found.append({**plain, "name": name, "x": x, "y": y, "yanchor": "middle", "text": text, "font": font})
    if "cost" in arrangement.panels:
        plot, red = arrangement.panels["cost"].plot, {"size": LANE_SIZE * scale, "color": RED}
        for text in ("NaN", "inf"):
            x = (plot.left + plot.width + 2 * scale) / width
            y = 1 - (plot.top + plot.height * (1 - LANES[text.lower()])) / height
            found.append({**plain, "x": x, "y": y, "yanchor": "middle", "text": text, "font": red})
    return found


def make_key(arrangement: Arrangement, beside: str) -> list[dict[str, Any]]:
    """The key of two records, in a line above all plots; cut to its width, the whole where the pointer rests."""
    if arrangement.key is None:
        return []
    scale, room = arrangement.scale, arrangement.key.width / arrangement.scale - 2 * INDENT
    parts = ("— × this run", f"- - ○ beside: {beside}")
    text = cut_text("      ".join(parts), room)
    return [{
        "name": "key", "xref": "paper", "yref": "paper", "showarrow": False, "xanchor": "left", "yanchor": "middle",
        "x": INDENT * scale / arrangement.width, "y": 1 - arrangement.key.height / 2 / arrangement.height,
        "text": text.replace(" ", "\N{NO-BREAK SPACE}"), "font": {"size": KEY_SIZE * scale}, "hovertext": parts[1],
    }]  # fmt: skip


def cut_text(text: str, room: float) -> str:
    """A text in the size of a key, or as much of its beginning as there is room for."""
    if measure_text(text, KEY_SIZE) <= room:
        return text
    while len(text) > 1 and measure_text(f"{text}…", KEY_SIZE) > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


def write_title(plot: Plot, room: float, scale: float) -> str:
    """The title with its key, shorter or without it where there is no room in so many pixels at scale 1."""
    short = plot.short or plot.title
    key = f"  <span style='font-size:{KEY_SIZE * scale:g}px'>{plot.key}</span>" if plot.key else ""
    for title, after in ((plot.title, key), (short, key), (plot.title, "")):
        if measure_text(title, TITLE_SIZE) + 0.9 * measure_text(after, KEY_SIZE) <= room:  # a key is not bold
            return f"<b>{title}</b>{after}"
    return f"<b>{short}</b>"


def measure_text(text: str, size: float) -> float:
    """The width in pixels that a text has room enough in, bold and in a wide typeface."""
    plain = re.sub("<[^>]*>", "", text)
    return size * sum(0.42 if letter in NARROW else 1.05 if letter in WIDE else 0.72 for letter in plain)


def label_layers(layers: Sequence[str], room: float) -> list[str]:
    """Layer names in their colours, cut so that they fit into so many pixels at scale 1."""
    names = [cut_name(name or "network", room) for name in layers]
    return [
        f"<span style='color:{colour_text(colour_layer(place))}'><b>{name}</b></span>"
        for place, name in enumerate(names)
    ]


def cut_name(name: str, room: float) -> str:
    """A name, or as much of its end as there is room for."""
    if measure_text(name, TICK_SIZE) <= room:
        return name
    while len(name) > 1 and measure_text(f"…{name}", TICK_SIZE) > room:
        name = name[1:]
    return f"…{name}"


def describe_panels(arrangement: Arrangement, kind: str) -> list[PanelState]:
    """What the page is told of each panel that is shown."""
    plots = {name: choose_plot(name, kind) for name in arrangement.panels}
    switched, then = find_switched(arrangement), find_next_kind(kind)
    return [
        {
            "name": name, "title": plots[name].title, "link": plots[name].link,
            "help": write_help(name, plots[name], arrangement),
            "kind": kind if name == switched else "", "then": then if name == switched else "",
            "box": [round(side, 2) for side in asdict(panel.cell).values()],
            "plot": [round(side, 2) for side in asdict(panel.plot).values()],
        }
        for name, panel in arrangement.panels.items()
    ]  # fmt: skip


def find_switched(arrangement: Arrangement) -> str:
    """The plot of magnitudes that has the button to switch them, the first that is shown; '' if none is."""
    return next((name for name in arrangement.panels if name in SWITCHED), "")


def write_help(name: str, plot: Plot, arrangement: Arrangement) -> str:
    """What a panel shows, and whether a record beside is drawn in it."""
    if arrangement.key is None:
        return plot.help
    return f"{plot.help} {NOT_BESIDE if plot.layers or name == 'signals' else BESIDE}"


def choose_visible(traces: Iterable[Any], panels: Mapping[str, Panel]) -> list[bool]:
    """Whether each trace of the dashboard lies in a panel that is shown; its `visible`."""
    axes, lanes = number_axes(), number_lanes()
    shown = {axes[name][1] for name in panels} | {lanes[name] for name in panels if name in lanes}
    return [trace["yaxis"] in shown for trace in traces]
