"""The dashboard's figure in place: what it sends, what it keeps for later, and what it leaves out."""

import re
import subprocess
import sys

import numpy as np
import plotly.graph_objects as go
import pytest

from cnnlab.dashboards import live_figure
from cnnlab.dashboards.live_figure import LiveFigure
from cnnlab.plots.recorder import FigureRecorder


@pytest.fixture
def sent(monkeypatch):
    """What a figure sends: ("whole", style, axes, traces) or ("moves", styles, traces)."""
    found = []
    monkeypatch.setattr(
        LiveFigure, "_send_update_msg", lambda self, style, axes, traces: found.append(("whole", style, axes, traces))
    )
    monkeypatch.setattr(
        LiveFigure, "_send_animate_msg", lambda self, styles, axes, traces, how: found.append(("moves", styles, traces))
    )
    return found


@pytest.fixture
def figure():
    return LiveFigure(
        go.Figure(
            [go.Scatter(name="curve"), go.Scatter(name="marks"), go.Image(name="film")], {"xaxis": {"range": [0, 1]}}
        )
    )


def drawn(height, source="a", colour="red", most=1):
    recorder = FigureRecorder(("curve", "marks", "film"))
    recorder.data[0].update(x=np.array([1.0, 2.0]), y=np.array([height, np.nan]), line={"color": colour})
    recorder.data[1].update(x=np.array([height]))
    recorder.data[2].update(source=source)
    recorder.layout["xaxis"].update(range=[0, most])
    return recorder


def test_what_has_not_changed_is_not_sent_again(figure, sent):
    figure.take(drawn(1.0))
    figure.take(drawn(1.0))
    assert len(sent) == 1
    figure.take(drawn(2.0))
    _, style, axes, traces = sent[1]
    assert sorted(style) == ["x", "y"]
    assert traces == [0, 1]
    assert axes == {}


def test_while_more_frames_follow_curves_marks_and_the_picture_move_and_nothing_is_drawn_anew(figure, sent):
    figure.take(drawn(1.0), whole=False)
    figure.take(drawn(2.0, source="b"), whole=False)
    kind, styles, traces = sent[1]
    assert (kind, traces) == ("moves", [0, 1, 2])
    assert [sorted(style) for style in styles] == [["y"], ["x"], ["source"]]
    assert figure.data[2].source == "b"
    figure.take(drawn(3.0, source="c"), whole=True)
    kind, style, _, traces = sent[2]
    assert (kind, traces) == ("whole", [0, 1, 2])
    assert style["source"][2] == figure.data[2].source == "c"


def test_pictures_are_due_again_some_time_after_they_were_drawn(figure, monkeypatch):
    assert figure.pictures_are_due
    figure.take(drawn(1.0), whole=False)
    assert not figure.pictures_are_due
    figure.take(drawn(2.0, most=2), whole=False)  # draws the figure anew, but no new picture
    monkeypatch.setattr(live_figure, "PICTURES", -1)
    assert figure.pictures_are_due


def test_the_last_frame_leaves_nothing_for_later_and_repeats_what_had_only_moved(figure, sent):
    figure.take(drawn(1.0), whole=False)
    figure.take(drawn(2.0, source="b"), whole=False)
    figure.take(drawn(2.0, source="b"), whole=True)
    kind, style, _, traces = sent[-1]
    assert (kind, traces) == ("whole", [0, 1, 2])
    np.testing.assert_array_equal(style["y"][0], [2.0, np.nan])
    assert style["x"][1] == [2.0]
    assert style["source"][2] == "b"


@pytest.mark.parametrize("change", [{"colour": "blue"}, {"most": 2}])
def test_a_new_colour_or_range_draws_the_whole_figure(figure, sent, change):
    figure.take(drawn(1.0), whole=False)
    figure.take(drawn(2.0, **change), whole=False)
    assert sent[-1][0] == "whole"


def test_plotlys_script_still_has_what_is_left_out_of_it():
    script, lighter = str(go.FigureWidget._esm), live_figure.script()
    assert lighter.count("{return;") - script.count("{return;") == 2
    assert len(re.findall(r"moveCurves\(this\.el,(\w+)\)\?Promise\.resolve\(\):", lighter)) == 1
    assert "moveCurves" not in script
    assert max(lighter) <= "\xff"


def test_nbformat_is_read_when_it_is_used_and_not_before():
    asked = """
import importlib.metadata, sys
import cnnlab.dashboards.lab
from plotly.io import _renderers
before = "nbformat" in sys.modules
print(before, _renderers.nbformat.__version__ == importlib.metadata.version("nbformat"), "nbformat" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]


def test_a_module_that_is_there_or_nowhere_is_left_alone():
    for name in ("json", "cnnlab_has_no_such_module"):
        before = sys.modules.get(name)
        with live_figure.later(name):
            assert sys.modules.get(name) is before
        assert sys.modules.get(name) is before
