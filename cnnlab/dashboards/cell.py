"""Which dashboards the cells of a notebook own: running a cell again closes those that it made before.

What a user has asked a cell to show stays shown in it while the kernel lives.
"""

from __future__ import annotations

import contextlib
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import ipywidgets

from cnnlab.dashboards.saved_picture import SavedPicture
from cnnlab.dashboards.shell import get_shell
from cnnlab.records.autosave import Autosave

if TYPE_CHECKING:
    from cnnlab.dashboards.lab import Lab

Kind = TypeVar("Kind", bound="CellOutput")


class CellOutput:
    """A dashboard that belongs to the cell that made it, and is displayed once in its output."""

    box: ipywidgets.Widget
    closed = False

    def close(self) -> None:
        """End the dashboard."""
        raise NotImplementedError

    @cached_property
    def saved(self) -> SavedPicture:
        """What a saved notebook shows in place of the dashboard."""
        return SavedPicture()

    def show(self) -> None:
        """Display the dashboard in the cell that runs now; nothing outside IPython."""
        if not self.closed:
            display_widget(self.box, self.saved)

    def _ipython_display_(self) -> None:
        """Show the dashboard where a cell ends with it; not twice in the cell that made it."""
        if OPEN.get(self) != get_current_cell() or get_current_cell()[0] == "":
            self.show()


OPEN: dict[CellOutput, tuple[str, int]] = {}
"""Dashboards that are open -> the cell that made them, and the count of that execution."""
SHOWN: set[str] = set()
"""Ids of the cells whose labs show their forecasts, for a user has asked one of them to."""


def display_widget(widget: ipywidgets.Widget, saved: SavedPicture) -> None:
    """Display a widget, and what is saved in its place, in the cell that runs now; nothing outside IPython.

    A program that shows no widgets, and JupyterLab in a notebook that it does not trust, take the empty HTML instead.
    """
    if get_shell() is not None:
        from IPython.display import display

        display({**widget._repr_mimebundle_(), "text/html": ""}, raw=True)  # type: ignore[no-untyped-call, unused-ignore]
        saved.show()


def get_current_cell() -> tuple[str, int]:
    """The id of the cell that runs now and the count of its execution; '' and 0 where there is none."""
    shell = get_shell()
    if shell is None or not hasattr(shell, "get_parent"):
        return "", 0
    return shell.get_parent().get("metadata", {}).get("cellId", ""), shell.execution_count


def shows_forecast() -> bool:
    """Whether the user has asked a lab of the cell that runs now to show its forecast."""
    return get_current_cell()[0] in SHOWN


def remember_forecast(output: CellOutput) -> None:
    """Have the labs of this one's cell show their forecasts; nothing outside a notebook."""
    cell, _ = OPEN.get(output, ("", 0))
    SHOWN.update({cell} - {""})


def find_earlier(kind: type[Kind]) -> list[Kind]:
    """The open dashboards of a kind that an earlier execution of this cell made."""
    cell, count = get_current_cell()
    made = [(output, *where) for output, where in OPEN.items() if isinstance(output, kind)]
    return [output for output, made_in, made_at in made if cell and made_in == cell and made_at != count]


def close_all(outputs: list[Kind]) -> None:
    """Close dashboards."""
    for output in outputs:
        output.close()


def close_widgets(widget: ipywidgets.Widget) -> None:
    """Close a widget and all within it, with their layouts, styles and texts."""
    for child in getattr(widget, "children", ()):
        close_widgets(child)
    for part in ("layout", "style", "texts"):
        with contextlib.suppress(AttributeError):
            getattr(widget, part).close()
    widget.close()


def open_autosave(kind: type[Lab], wanted: bool | str | os.PathLike[str]) -> Autosave:
    """The autosave of a new lab; closes those of an earlier execution of this cell, unless a file is refused."""
    path = None if isinstance(wanted, bool) else Path(os.path.realpath(wanted))
    earlier = find_earlier(kind)
    if path is not None and path not in [lab.worker.autosave.path for lab in earlier]:
        kept = Autosave.in_file(path)
        close_all(earlier)
        return kept
    close_all(earlier)
    if path is not None:
        return Autosave.in_file(path)
    return Autosave.of_cell(get_current_cell()[0]) if wanted else Autosave()
