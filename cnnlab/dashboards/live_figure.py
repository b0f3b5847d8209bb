"""The FigureWidget of a Lab, patched in place in one message a frame. Plotly and numpy; of cnnlab only the drawn."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import time
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import numpy as np
import plotly.graph_objects as go
import traitlets
from plotly.basedatatypes import Undefined

from cnnlab.plots.recorder import FigureRecorder, Place


class Later(types.ModuleType):
    """Stands for a module until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def later(name: str) -> Iterator[None]:
    """Whoever imports this module meanwhile gets it when it is used."""
    if name in sys.modules or importlib.util.find_spec(name) is None:
        yield
        return
    sys.modules[name] = Later(name)
    try:
        yield
    finally:
        del sys.modules[name]


with later("nbformat"):  # plotly reads it for its version when a figure is shown by itself: 25 MiB of the kernel
    importlib.import_module("plotly.io._renderers")

NUMBERS = ("bands", "every", "times", "layers", "bins")
"""Numbers of the histograms over time, which this figure shows as a picture."""
PICTURES = 0.6
"""Seconds between two pictures of the histograms over time, while curves and ridges move with every frame."""
AT_ONCE = {"mode": "immediate", "transition": {"duration": 0}, "frame": {"duration": 0, "redraw": False}}
"""Plotly's options to move curves without drawing axes, titles and grounds again."""


def script() -> str:
    """The script of plotly's widget, without what it tells the kernel after each frame and nobody reads: 10 of 100 ms.

    What moves is written by moves.js, in 3 ms where plotly takes 17; plotly moves what that leaves. A frame that a
    newer one overtakes is no error in it either. Characters beyond Latin-1 are written as JavaScript's escapes, for a
    single one doubles the 5 MB that the text takes.
    """
    moves = (files("cnnlab.dashboards") / "static" / "moves.js").read_text(encoding="utf-8")
    text = (files("plotly") / "package_data" / "widgetbundle.js").read_text(encoding="utf-8")
    text = re.sub(r"(_send(?:TraceDeltas|LayoutDelta)\(\w+\)\{)", r"\1return;", text)
    move = r"(\w+\.default\.animate\(this\.el,(\w+),\w+\))(\.then\()"
    text = re.sub(move, r"(moveCurves(this.el,\2)?Promise.resolve():\1.catch(()=>{}))\3", text)
    return moves + re.sub("[^\0-\xff]+", lambda found: json.dumps(found[0])[1:-1], text)


class LiveFigure(go.FigureWidget):
    """A FigureWidget that is freed when it is closed: its script is text, not a watched file (anywidget #929).

    Plotly's script is read after the widget is there, however long that takes, and no frame is lost meanwhile.
    """

    _esm = (files("cnnlab.dashboards") / "static" / "live_figure.js").read_text(encoding="utf-8")
    _plotly = traitlets.Unicode(script()).tag(sync=True)
    made = False

    def __init__(self, figure: go.Figure) -> None:
        super().__init__(figure)
        self.made = True
        self._sent: dict[Place, Any] = {}
        self._moved: set[Place] = set()
        self._pictured_at = 0.0
        self._lost = False
        self.open()

    @property
    def pictures_are_due(self) -> bool:
        """Whether it is time for pictures again, with which the figure is drawn anew."""
        return time.monotonic() - self._pictured_at > PICTURES

    def take(self, drawn: FigureRecorder, whole: bool = True) -> None:
        """Take over what was drawn, and send what has changed in one message.

        This goes past plotly's validators, which would take most of the time of a frame. `whole`: have the figure drawn
        anew; if not, curves, marks and the picture are moved, unless more than these has changed. After a message that
        could not be sent the next one holds all there is.
        """
        lost, self._lost = self._lost, True
        if lost:
            self._moved = set(self._sent)
        changed = {
            place: value
            for place, value in drawn.values()
            if place[0] == "data" and place[2] not in NUMBERS and not same(self._sent.get(place), value)
        }
        axes = self.find_changed_axes(drawn, lost)
        pictures = {place for place in changed if self._data[place[1]]["type"] == "image"}
        moves = pictures | {place for place in changed if place[2:] in (("x",), ("y",))}
        if pictures:
            self._pictured_at = time.monotonic()
        whole = whole or lost or bool(axes or set(changed) - moves)
        for place in changed if whole else moves:
            self._sent[place] = changed[place]
            put(self._data[place[1]], place[2:], changed[place])
        if whole:
            self.send_whole({**{place: self._sent[place] for place in self._moved}, **changed}, axes)
        elif moves:
            self.send_moves({place: changed[place] for place in sorted(moves)})
        self._lost = False

    def find_changed_axes(self, drawn: FigureRecorder, lost: bool) -> dict[str, Any]:
        """All that was drawn of the axes of which it says something new, or of all whose message was `lost`."""
        changed = {
            name: axis
            for name, axis in drawn.layout.items()
            if (lost and axis) or any(self._layout[name].get(key) != value for key, value in axis.items())
        }
        for name, axis in changed.items():
            self._layout[name].update(axis)
        return {f"{name}.{key}": value for name, axis in changed.items() for key, value in axis.items()}

    def send_whole(self, changed: dict[Place, Any], axes: dict[str, Any]) -> None:
        """Have the figure drawn anew. What has only been moved comes along: a hidden page leaves moves out."""
        self._moved.clear()
        traces = sorted({place[1] for place in changed})
        if not traces and not axes:
            return
        style: dict[str, list[Any]] = {}
        for place, value in changed.items():
            path: tuple[Any, ...] = place[2:]
            name = ".".join(map(str, path))
            if name not in style:
                style[name] = [self.present(int(trace), path) for trace in traces]
            style[name][traces.index(place[1])] = value
        self._send_update_msg(style, axes, traces)

    def present(self, trace: int, path: Sequence[Any]) -> Any:
        """A property as it is; undefined where there is none.

        What a message leaves undefined plotly's widget takes away if it comes before the figure is on the page.
        """
        value: Any = self._data[trace]
        for name in path:
            value = value[name] if isinstance(value, dict) and name in value else Undefined
        return value

    def send_moves(self, changed: dict[Place, Any]) -> None:
        """Have curves, marks and the picture drawn anew, and nothing else."""
        self._moved |= set(changed)
        styles: dict[Any, dict[Any, Any]] = {}
        for (_, trace, name), value in changed.items():
            styles.setdefault(trace, {})[name] = value
        self._send_animate_msg(list(styles.values()), {}, list(styles), AT_ONCE)

    def open(self) -> None:
        """Tell the browser of the figure when it is complete: plotly tells of an empty one first, and may draw that."""
        if self.made:
            super().open()

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """The figure as it is now, for a page opened later; plotly's own would be the figure as it was made."""
        state = super().get_state(key, drop_defaults)
        for name, present in (("_widget_data", "_data"), ("_widget_layout", "_layout")):
            if state.get(name):  # empty while the figure is being made
                state[name] = self.trait_metadata(name, "to_json")(getattr(self, present), self)
        return state

    def _handler_js2py_traceDeltas(self, change: Any) -> None:
        """Leave unread what the browser would tell of the traces' defaults: it would only take time."""


def same(sent: Any, value: Any) -> bool:
    """Whether a value is the one that was sent last."""
    if isinstance(value, np.ndarray):
        return isinstance(sent, np.ndarray) and np.array_equal(sent, value, equal_nan=value.dtype.kind == "f")
    return type(sent) is type(value) and bool(sent == value)


def put(properties: dict[str, Any], path: Sequence[Any], value: Any) -> None:
    """Set a value below a dictionary of plotly's."""
    for name in path[:-1]:
        properties = properties.setdefault(name, {})
    properties[path[-1]] = value
