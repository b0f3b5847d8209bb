"""The script of plotly.js, sent to the page before anything else: reading it takes a page as long as torch a kernel."""

from __future__ import annotations

import functools
import gzip
from importlib.resources import files

import anywidget
import plotly
import traitlets

from cnnlab.dashboards.static_files import read_static


class PlotlyScript(anywidget.AnyWidget):
    """The script of plotly.js as the Python package brings it, once for all figures of a kernel; it has no view."""

    _esm = read_static("plotly.js", "plotly_script.js")

    layout = traitlets.Any()
    """None: what has no view needs none, and no line to the page for it."""
    code = traitlets.Bytes().tag(sync=True)
    version = traitlets.Unicode(plotly.__version__).tag(sync=True)

    def __repr__(self) -> str:
        return f"PlotlyScript({self.version})"


SHARED: list[PlotlyScript] = []
"""The one script, once a figure has needed it."""


@functools.cache
def compress_plotly() -> bytes:
    """The script of plotly.js at a third of its size."""
    # A higher level takes twice as long, in which nothing is on the screen yet, for 3 % fewer bytes.
    return gzip.compress((files("plotly") / "package_data" / "plotly.min.js").read_bytes(), 4)


def share_plotly() -> PlotlyScript:
    """The one script, made again if somebody has closed all widgets."""
    if not SHARED or SHARED[0].comm is None:
        SHARED[:] = [PlotlyScript(code=compress_plotly())]
    return SHARED[0]


def begin_plotly() -> None:
    """Have the page read the script while the kernel imports torch; nothing outside a kernel of IPython."""
    from IPython import get_ipython

    if getattr(get_ipython(), "kernel", None) is not None:  # type: ignore[no-untyped-call, unused-ignore]
        share_plotly()
