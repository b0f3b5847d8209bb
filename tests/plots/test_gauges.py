"""The table of plots: a row is all that a plot of a gauge needs, as CONTRIBUTING.md says."""

import re
from collections.abc import Iterator
from operator import methodcaller
from pathlib import Path

import numpy as np
import pytest
from handmade import drawn, record_of

from cnnlab.plots import gauges, layer_groups
from cnnlab.plots.dashboard import draw_dashboard, find_ranges, refresh_dashboard
from cnnlab.plots.gauges import PLOTS, Plot, number_axes, number_lanes
from cnnlab.plots.recorder import FigureRecorder
from cnnlab.records.record import Record
from cnnlab.training.metrics import Gauges

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"
HELP = "What it is. How it is read."


@pytest.fixture
def table() -> Iterator[dict[str, Plot]]:
    """The table, as it was again after the test."""
    before = dict(PLOTS)
    yield PLOTS
    PLOTS.clear()
    PLOTS.update(before)


def section_of_the_guide() -> str:
    """What CONTRIBUTING.md says of a new gauge."""
    return GUIDE.read_text(encoding="utf-8").partition("## Add a gauge")[2].partition("\n## ")[0]


def add_row_of_the_guide() -> None:
    """Run its example as if it stood in the module of the table."""
    exec(re.findall(r"```python\n(.*?)```", section_of_the_guide(), re.DOTALL)[0], dict(vars(gauges)))


def growing_record() -> Record:
    """Three layers of which the second becomes NaN at update 2."""
    norms = np.array([[2.0, 1, 4], [4, 1, 2], [8, np.nan, 1]])
    return record_of([1.0, 2.0], weight_norm=norms)


def test_the_guide_names_files_and_functions_that_there_are() -> None:
    section = section_of_the_guide()
    paths = re.findall(r"`(cnnlab/[\w/.]+)`", section)
    methods = re.findall(r"`Gauges\.(\w+)`", section)
    assert len(paths) == 4
    assert [path for path in paths if not (GUIDE.parent / path).exists()] == []
    assert len(methods) == 2
    assert [method for method in methods if not hasattr(Gauges, method)] == []
    assert "COMBINE" in vars(layer_groups)


@pytest.mark.usefixtures("table")
def test_the_gauge_of_the_guide_is_drawn_with_its_yardstick_and_its_nan() -> None:
    add_row_of_the_guide()
    traces = drawn(growing_record())
    assert traces["growth 0"].y.tolist() == [2, 4]
    assert traces["growth 2"].y.tolist() == [0.5, 0.25]
    assert traces["growth marks"].x.tolist() == [2]
    assert traces["growth marks"].marker.color.tolist() == [1]
    assert traces["growth yardstick"].y == (1.0, 1.0)


@pytest.mark.usefixtures("table")
def test_a_new_row_has_a_place_after_the_others_and_leaves_their_axes() -> None:
    before = draw_dashboard(growing_record(), 2).layout
    add_row_of_the_guide()
    after = draw_dashboard(growing_record(), 2).layout
    assert after.height > before.height
    assert 0 <= after.yaxis8.domain[0] < after.yaxis8.domain[1] < after.yaxis5.domain[1]
    assert after.yaxis7.anchor == before.yaxis7.anchor == "x7"
    assert [note.text for note in after.annotations].count("<b>Weight growth</b>") == 1
    assert after.meta["panels"][-1]["name"] == "growth"


def test_a_gauge_of_a_frame_is_drawn_by_its_name_alone(table: dict[str, Plot]) -> None:
    table["gap"] = Plot("Logit gap", HELP, methodcaller("column", "logit_gap"))
    record = record_of([1.0, 2.0, 3.0], logit_gap=[1.0, 5.0, np.inf, 7.0])
    traces = drawn(record)
    assert record.logit_gap.tolist() == [5, np.inf, 7]
    assert traces["gap 0"].y[[0, 2]].tolist() == [5, 7]
    assert traces["gap marks"].x.tolist() == [2]
    assert "gap 1" not in traces
    assert "gap yardstick" not in traces
    assert find_ranges(record, (), 3)["yaxis8"]["range"][1] > np.log10(7)


@pytest.mark.usefixtures("table")
def test_a_new_row_is_drawn_in_place_of_a_plotly_figure_too() -> None:
    add_row_of_the_guide()
    record = growing_record()
    recorder = FigureRecorder(trace.name for trace in draw_dashboard(record, 2).data)
    refresh_dashboard(recorder, record, (), 20)
    noted = {trace.name: trace for trace in recorder.data}
    assert noted["growth 0"]["y"].tolist() == drawn(record)["growth 0"].y.tolist()
    assert "yaxis8" in recorder.layout


def test_no_axis_has_two_uses() -> None:
    heights = [y for _, y in number_axes().values()]
    used = heights + list(number_lanes().values())
    assert len(used) == len(set(used))


def test_the_pointer_is_told_the_gauge_and_the_layer_in_words() -> None:
    traces = drawn(record_of([1.0]))
    assert traces["gradient 1"].hovertemplate == "update %{x}: gradient norm of second %{y:.3g}<extra></extra>"
    assert traces["ratio 2"].hovertemplate == "update %{x}: update/weight of last %{y:.3g}<extra></extra>"
