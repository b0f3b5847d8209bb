"""A second record over the first one: seen where the other is, told apart from it, and nothing without it."""

import re

import numpy as np
import plotly.graph_objects as go
from handmade import LAYERS, record_of

from cnnlab.plots.arrangement import arrange_panels
from cnnlab.plots.beside import Beside
from cnnlab.plots.dashboard import draw_dashboard, find_ranges, refresh_dashboard
from cnnlab.plots.gauges import PLOTS
from cnnlab.plots.recorder import FigureRecorder

NAN, INF = float("nan"), float("inf")
CALM = record_of([2.0, 1.0, 0.5], gradient_norm=np.full((4, 3), 2.0))
WILD = record_of(
    [3.0, 1e9, INF, NAN, NAN],
    gradient_norm=np.repeat([[1.0], [1.0], [1.0], [1e12], [NAN], [NAN]], 3, axis=1),
    sharpness=np.array([NAN, 1e3, 1e4, INF, NAN, NAN]),
)


def traces_of(figure: go.Figure) -> dict[str, go.Scatter]:
    """The traces by name."""
    return {trace.name: trace for trace in figure.data}


def test_a_record_beside_is_drawn_in_dashes_and_the_other_is_as_it_was_without_it() -> None:
    alone, both = draw_dashboard(CALM, 3), draw_dashboard(CALM, 3, beside=Beside(WILD))
    traces = traces_of(both)
    for name in ("cost", "accuracy", "sharpness", *(f"gradient {place}" for place in range(3))):
        assert traces[f"beside {name}"].line.dash == "dash"
        assert traces[f"beside {name}"].line.color == traces[name].line.color
    assert traces["beside cost"].y[:2].tolist() == [3.0, 1e9]
    assert traces["beside gradient 1"].y[2] == 1e12
    assert traces["beside sharpness"].y.tolist() == [1e3, 1e4]
    drawn = {name: trace.y for name, trace in traces_of(alone).items() if trace.type == "scatter"}
    assert [name for name, y in drawn.items() if not np.array_equal(y, traces[name].y, equal_nan=True)] == []


def test_nan_and_inf_of_both_are_marked_and_told_apart() -> None:
    traces = traces_of(draw_dashboard(WILD, 5, beside=Beside(WILD)))
    ours, theirs = traces["cost marks"], traces["beside cost marks"]
    assert theirs.x.tolist() == ours.x.tolist() == [4, 5, 3]
    assert theirs.y.tolist() == ours.y.tolist()
    assert theirs.marker.symbol == ("circle-open", "circle-open", "triangle-up-open")
    assert not set(theirs.marker.symbol) & set(ours.marker.symbol)
    assert theirs.marker.size > ours.marker.size
    assert traces["beside gradient marks"].x.tolist() == [4, 5] * 3
    assert traces["beside gradient marks"].marker.symbol != traces["gradient marks"].marker.symbol
    assert traces["beside sharpness marks"].x.tolist() == [3]


def test_the_axes_hold_both_and_a_longer_record_beside_is_held_whole() -> None:
    panels = arrange_panels(800).panels
    alone, both = (find_ranges(CALM, (), 3, panels=panels, beside=beside) for beside in (None, Beside(WILD)))
    gradient = f"yaxis{list(PLOTS).index('gradient') + 1}"
    for axis, largest in (("yaxis", 9), (gradient, 12)):
        assert alone[axis]["range"][1] < largest < both[axis]["range"][1]
    assert alone["xaxis"]["range"][1] < 5 < both["xaxis"]["range"][1]


def test_a_largest_eigenvalue_that_is_hidden_is_hidden_of_both_and_stretches_no_axis() -> None:
    shown, hidden = (draw_dashboard(CALM, 3, beside=Beside(WILD, curvature=curvature)) for curvature in (True, False))
    axis = f"yaxis{list(PLOTS).index('stability') + 1}"
    assert traces_of(shown)["beside sharpness"].y.tolist() == [1e3, 1e4]
    assert len(traces_of(hidden)["beside sharpness"].y) == 0
    assert len(traces_of(hidden)["beside sharpness marks"].x) == 0
    assert hidden.layout[axis].range[1] < shown.layout[axis].range[1]


def test_a_layer_beside_has_the_colour_of_its_namesake_and_another_one_a_colour_of_its_own() -> None:
    other = record_of([1.0], layers=("last", "new", "first"))
    traces = traces_of(draw_dashboard(CALM, 3, beside=Beside(other)))
    colours = [traces[f"gradient {place}"].line.color for place in range(len(LAYERS))]
    found = [traces[f"beside gradient {place}"].line.color for place in range(3)]
    assert (found[0], found[2]) == (colours[2], colours[0])
    assert found[1] not in colours
    assert "of new" in traces["beside gradient 1"].hovertemplate


def test_the_key_names_both_within_the_width_and_the_plots_lie_below_it() -> None:
    for words in ("lr 0.001 (here 0.01)", "lr 0.001 (here 0.01), " * 20):
        figure = draw_dashboard(CALM, 3, width=600, beside=Beside(CALM, words))
        key = next(note for note in figure.layout.annotations if note.name == "key")
        assert key.text.startswith("—\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}this\N{NO-BREAK SPACE}run")
        assert "beside:\N{NO-BREAK SPACE}lr\N{NO-BREAK SPACE}0.001" in key.text
        assert len(key.text) * 5 < 600
        assert words in key.hovertext
    top = figure.layout.height * (1 - key.y)
    assert all(panel["box"][1] > top for panel in figure.layout.meta["panels"])
    assert [note for note in draw_dashboard(CALM, 3).layout.annotations if note.name == "key"] == []


def test_the_help_of_each_panel_says_whether_the_run_beside_is_drawn_there() -> None:
    for beside in (None, Beside(WILD)):
        panels = draw_dashboard(CALM, 3, beside=beside).layout.meta["panels"]
        for panel in panels:
            drawn = bool(re.search("Dashed lines and hollow marks are the run beside", panel["help"]))
            left_out = "The run beside is not drawn here." in panel["help"]
            layers = panel["name"] in ("magnitudes", "over_time")
            assert (drawn, left_out) == ((False, False) if beside is None else (not layers, layers))


def test_a_frame_tells_nothing_of_the_record_beside_for_it_does_not_change() -> None:
    figure = draw_dashboard(CALM, 3, beside=Beside(WILD))
    drawn = FigureRecorder(trace.name for trace in figure.data)
    refresh_dashboard(drawn, CALM, (), 3, pictures=False, beside=Beside(WILD))
    told = {drawn.data[place[1]].name for place, _ in drawn.values() if place[0] == "data"}
    assert "cost" in told
    assert [name for name in told if name.startswith("beside ")] == []


def test_without_a_record_beside_there_is_no_trace_of_one() -> None:
    assert [trace.name for trace in draw_dashboard(CALM, 3).data if trace.name.startswith("beside ")] == []


def test_lines_and_marks_are_thicker_at_a_larger_scale_and_those_of_layers_stay() -> None:
    small, large = (traces_of(draw_dashboard(CALM, 3, scale=scale, width=2000)) for scale in (1, 2))
    assert large["cost"].line.width == 2 * small["cost"].line.width
    assert large["cost marks"].marker.size == 2 * small["cost marks"].marker.size
    assert large["gradient marks"].marker.size == small["gradient marks"].marker.size
