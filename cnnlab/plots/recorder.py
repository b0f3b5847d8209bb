"""What figures draw on when every millisecond counts: it notes what it is told and checks nothing."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

Place = tuple[str | int, ...]
"""Where a value lies in a figure's JSON, such as ("data", 3, "marker", "color")."""


class TraceUpdate(dict[str, Any]):
    """What a trace or an axis is told."""

    name = ""

    def update(self, *parts: Any, **properties: Any) -> None:
        """Note properties; those within another, such as a marker's, one by one."""
        for name, value in ({**dict(*parts), **properties} if parts else properties).items():
            if isinstance(value, dict):
                self.setdefault(name, TraceUpdate()).update(value)
            else:
                self[name] = value

    def list_leaves(self, place: Place) -> Iterator[tuple[Place, Any]]:
        """Each noted value and its place."""
        for name, value in self.items():
            if isinstance(value, TraceUpdate):
                yield from value.list_leaves((*place, name))
            else:
                yield (*place, name), value


class FigureRecorder:
    """Takes what `refresh_dashboard` draws in place of a plotly figure: ten times as fast, for it checks nothing."""

    def __init__(self, names: Iterable[str]) -> None:
        self.data: list[TraceUpdate] = []
        for name in names:
            self.data.append(TraceUpdate())
            self.data[-1].name = name
        self.layout: dict[str, TraceUpdate] = defaultdict(TraceUpdate)

    def batch_update(self) -> contextlib.AbstractContextManager[None]:
        """Nothing to send, so nothing to gather."""
        return contextlib.nullcontext()

    def values(self) -> Iterator[tuple[Place, Any]]:
        """Each noted value and its place in the figure's JSON."""
        for number, trace in enumerate(self.data):
            yield from trace.list_leaves(("data", number))
        for name, axis in self.layout.items():
            yield from axis.list_leaves(("layout", name))


def put_values(figure: dict[str, Any], drawn: FigureRecorder) -> None:
    """Put what was noted into a figure's JSON."""
    for place, value in drawn.values():
        holder, name = find_holder(figure, place)
        holder[name] = value


def find_holder(figure: dict[str, Any], place: Place) -> tuple[dict[str, Any], Any]:
    """The dictionary in which a value of a figure's JSON lies, and its name there."""
    holder: Any = figure
    name: Any
    for name in place[:-1]:
        holder = holder[name] if isinstance(holder, list) else holder.setdefault(name, {})
    return holder, place[-1]
