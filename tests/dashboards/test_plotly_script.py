"""The script of plotly.js: once for all figures, and on its way before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import IPython
import plotly.graph_objects as go
import pytest

from cnnlab.dashboards import plotly_script
from cnnlab.dashboards.live_figure import LiveFigure
from cnnlab.dashboards.plotly_script import begin_plotly, share_plotly

QUIET = """
import sys
import cnnlab.dashboards
from cnnlab.dashboards.plotly_script import SHARED
assert not SHARED
print("torch" in sys.modules)
"""


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[plotly_script.PlotlyScript]:
    """No script is shared yet; what is shared then is closed after the test."""
    shared: list[plotly_script.PlotlyScript] = []
    monkeypatch.setattr(plotly_script, "SHARED", shared)
    return shared


def test_it_is_shared_and_made_again_after_all_widgets_were_closed() -> None:
    one, other = make_figure(), make_figure()
    assert one.plotly is other.plotly
    assert one.plotly.code[:2] == b"\x1f\x8b"
    one.plotly.close()
    third = make_figure()
    assert third.plotly.comm is not None
    assert third.plotly is share_plotly()
    for figure in (one, other, third):
        figure.close()
    assert third.plotly.comm is not None  # the next figure needs it


def make_figure() -> LiveFigure:
    """A figure without points."""
    return LiveFigure(go.Figure(go.Scatter(name="curve")), {}, {})


def test_a_kernel_sends_it_once_and_a_figure_made_later_uses_it(
    shared: list[plotly_script.PlotlyScript], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    begin_plotly()
    begin_plotly()
    (script,) = shared
    figure = make_figure()
    assert figure.plotly is script
    figure.close()
    script.close()


@pytest.mark.parametrize("shell", [None, SimpleNamespace()], ids=["Python", "IPython in a terminal"])
def test_nothing_is_sent_where_there_is_no_kernel(
    shell: object, shared: list[plotly_script.PlotlyScript], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    begin_plotly()
    assert shared == []


def test_a_kernel_has_not_imported_torch_when_it_sends_it() -> None:
    assert subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=True).stdout == "False\n"
