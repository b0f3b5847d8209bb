"""A figure on the page: plotly.js and our script, told by one message a frame what has changed, numbers as bytes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

import anywidget
import ipywidgets
import numpy as np
import plotly.graph_objects as go
import traitlets
from numpy.typing import NDArray

from cnnlab.dashboards.plotly_script import PlotlyScript, share_plotly
from cnnlab.dashboards.static_files import read_static
from cnnlab.plots.colours import DARK
from cnnlab.plots.recorder import FigureRecorder, Place, find_holder, put_values

TYPES = {"<f4": "f", "<f8": "d", "<i4": "i", "|u1": "B"}
"""Numbers that are sent as they are -> what the page calls them; others are sent as float64."""
Events = Mapping[str, Callable[[Any], None]]
"""What the page may tell ("answer" to a frame, "click" on a point, "zoom" by a box, "width"); who hears it."""


def pack(spec: Any, _widget: Any = None) -> Any:
    """A figure's dictionary with each row of numbers as its type and bytes; JSON has no NaN: None elsewhere."""
    if is_row(spec):
        kind, numbers = make_sendable(spec)
        return {"type": kind, "bytes": numbers.tobytes()}
    if isinstance(spec, (np.ndarray, np.generic)):
        return pack(spec.tolist())
    if isinstance(spec, Mapping):
        return {name: pack(value) for name, value in spec.items()}
    if isinstance(spec, (list, tuple)):
        return [pack(value) for value in spec]
    return None if isinstance(spec, float) and not math.isfinite(spec) else spec


class FigureState(ipywidgets.Widget):
    """What a figure shows, and what the page is told of it.

    It is a model of ipywidgets: one of anywidget hears nothing if the page takes over two seconds to read its script.
    """

    spec = traitlets.Dict().tag(sync=True, to_json=pack)
    """All that is shown now, for a page opened later: `data`, `layout`, `moving`, the number of the last `message`."""


class LiveFigure(anywidget.AnyWidget):
    """A figure that is patched in place. The page keeps its numbers, and is sent the end of what has grown.

    `moves`: curves and marks are drawn on canvases while more frames follow, by plotly when none does.
    """

    _esm = read_static("element.js", "theme.js", "canvas.js", "panel_tools.js", "plotly.js", "live_figure.js")
    _css = read_static("theme.css", "live_figure.css")

    state = traitlets.Instance(FigureState).tag(sync=True, **ipywidgets.widget_serialization)
    config: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    events: traitlets.List[str] = traitlets.List().tag(sync=True)
    moves = traitlets.Bool().tag(sync=True)
    dark = traitlets.Dict(DARK).tag(sync=True)
    """Colour on a light ground -> its counterpart on a dark one."""
    plotly = traitlets.Instance(PlotlyScript).tag(sync=True, **ipywidgets.widget_serialization)

    def __init__(
        self,
        figure: go.Figure | dict[str, Any],
        config: Mapping[str, Any],
        heard: Events,
        *,
        moves: bool = False,
        **traits: Any,
    ) -> None:
        self.heard = heard
        self.lost = False  # whether a message could not be sent
        self.lock = threading.RLock()  # what the page tells comes in a thread of its own
        state = FigureState(spec={**take_apart(figure), "moving": False, "message": 0})
        super().__init__(
            state=state, config=dict(config), events=list(heard), moves=moves, plotly=share_plotly(), **traits
        )  # fmt: skip
        self.on_msg(lambda _widget, message, _buffers: self.hear(message))

    def close(self) -> None:
        """Close the figure and its state."""
        self.state.close()
        super().close()

    @property
    def spec(self) -> dict[str, Any]:
        """All that is shown now (see `FigureState`)."""
        return self.state.spec

    @property
    def names(self) -> list[str]:
        """The names of the traces."""
        return list_names(self.spec)

    def hear(self, message: Any) -> None:
        """Act on a message from the page; `have` is the number of the last one that it has taken in."""
        if not isinstance(message, dict):
            return
        if "have" in message and message["have"] != self.spec["message"]:
            self.send_whole()
        for name, answer in self.heard.items():
            if name in message:
                answer(message[name])

    def show(self, figure: go.Figure | dict[str, Any], drawn: FigureRecorder | None = None) -> None:
        """Show another figure, with what was drawn on it since: what differs from the present one is sent."""
        new = take_apart(figure)
        if drawn is not None:
            put_values(new, drawn)
        with self.lock:
            if list_names(new) != self.names:
                self.spec.update(new)
                self.send_whole()
                return
            changes = list_changes(self.spec["layout"], new["layout"], ("layout",))
            for number, (old, trace) in enumerate(zip(self.spec["data"], new["data"], strict=True)):
                changes += list_changes(old, trace, ("data", number))
            self.send_changes(dict(changes), self.spec["moving"])

    def take(self, drawn: FigureRecorder, moving: bool = False, ask: int = 0) -> None:
        """Take over what was drawn, and send what has changed; `moving`: more frames follow.

        `ask`: have the page answer with this number when it has drawn the frame; 0 for no answer.
        """
        self.send_changes(dict(drawn.values()), moving, ask)

    def take_whole(self, drawn: FigureRecorder, moving: bool = False) -> None:
        """Take over what was drawn, and send all there is: a page opened just now may have missed a message."""
        with self.lock:
            self.put(dict(drawn.values()))
            self.spec["moving"] = moving
            self.send_whole()

    def send_changes(self, values: Mapping[Place, Any], moving: bool = False, ask: int = 0) -> None:
        """Send those of some values that are not what the page has; None takes away what is there.

        After a message that could not be sent, all there is goes before the next one.
        """
        with self.lock:
            lost, self.lost = self.lost, True
            arrays, plain, numbers = self.put(values)
            if arrays or plain or ask or lost or self.spec["moving"] != moving:
                self.spec["moving"] = moving
                if lost:
                    self.send_whole()
                self.spec["message"] += 1
                told = {"message": self.spec["message"], "moving": moving, "arrays": arrays, "plain": plain, "ask": ask}
                self.state.send(told, [numbers])
            self.lost = False

    def put(self, values: Mapping[Place, Any]) -> tuple[list[list[Any]], list[list[Any]], bytes]:
        """Take over values for a message that must follow: arrays (place, type, numbers kept, added), others, bytes."""
        arrays: list[list[Any]] = []
        plain: list[list[Any]] = []
        parts: list[bytes] = []
        for place, value in values.items():
            holder, name = find_holder(self.spec, place)
            old = holder.get(name)
            if not is_row(value):
                if not is_same(old, value):
                    plain.append([list(place), pack(value)])
                    holder[name] = value
                continue
            kind, numbers = make_sendable(value)
            kept = count_common(old, numbers)
            if kept < len(numbers) or not isinstance(old, np.ndarray) or kept < len(old):
                arrays.append([*place, kind, kept, len(numbers) - kept])
                parts.append(numbers[kept:].tobytes())
                holder[name] = numbers
        return arrays, plain, b"".join(parts)

    def send_whole(self) -> None:
        """Send all there is, to a page that has missed a message."""
        with self.lock:
            self.spec["message"] += 1
            self.state.send_state("spec")


def take_apart(figure: go.Figure | dict[str, Any]) -> dict[str, Any]:
    """The traces and the layout of a figure as dictionaries, arrays as arrays; those are taken as they are."""
    if isinstance(figure, dict):
        return figure
    return {
        "data": [trace.to_plotly_json() for trace in figure.data], "layout": figure.layout.to_plotly_json()
    }  # fmt: skip


def list_names(spec: Mapping[str, Any]) -> list[str]:
    """The names of a figure's traces."""
    return [trace.get("name") or "" for trace in spec["data"]]


def list_changes(old: Any, new: Any, place: Place) -> list[tuple[Place, Any]]:
    """What is to be set within `old` for it to be `new`: places and values, None for what is gone."""
    found: list[tuple[Place, Any]] = []
    for name in {**old, **new}:
        one, other = old.get(name), new.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += list_changes(one, other, (*place, name))
        elif not is_same(one, other):
            found.append(((*place, name), other))
    return found


def is_row(value: Any) -> bool:
    """Whether a value is an array of numbers that is sent as bytes."""
    return isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "fiub"


def make_sendable(numbers: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """What the page calls the type of an array, and the array in that type."""
    kind = TYPES.get(numbers.dtype.str)
    return (kind, numbers) if kind else ("d", numbers.astype(np.float64))


def count_common(old: Any, new: NDArray[Any]) -> int:
    """How many numbers at the beginning of two arrays are the same to the bit."""
    if not isinstance(old, np.ndarray) or old.dtype != new.dtype:
        return 0
    if old is new:
        return len(new)
    count = min(len(old), len(new))
    if old[:count].tobytes() == new[:count].tobytes():  # the most frequent, and a fifth of the time
        return count
    bits = np.dtype(f"u{new.dtype.itemsize}")
    differs = np.ascontiguousarray(old[:count]).view(bits) != np.ascontiguousarray(new[:count]).view(bits)
    return int(differs.argmax())


def is_same(old: Any, new: Any) -> bool:
    """Whether two values of a figure's dictionary are the same."""
    if isinstance(old, np.ndarray) or isinstance(new, np.ndarray):
        return type(old) is type(new) and np.array_equal(old, new, equal_nan=new.dtype.kind == "f")
    return type(old) is type(new) and bool(old == new)
