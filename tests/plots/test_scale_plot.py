"""The plot of the loss scale: powers of two, marks of what was left out, and no place where there is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from handmade import record_of

import cnnlab
from cnnlab.plots.arrangement import check_panels
from cnnlab.plots.beside import Beside
from cnnlab.plots.dashboard import draw_dashboard
from cnnlab.plots.gauges import PLOTS, choose_shown, number_axes
from cnnlab.plots.loss_scale import fit_binary_range
from cnnlab.plots.numbers import write_numbers
from cnnlab.records.frame import NOT_MEASURED
from cnnlab.records.record import Record

NAN = float("nan")


def scaled() -> Record:
    """Off at update 1, an overflow at update 2, a cost of NaN at update 4, a scale of 0 at update 5."""
    scale, skipped = [NOT_MEASURED, NOT_MEASURED, 8.0, 4.0, 4.0, 0.0], [NOT_MEASURED, NOT_MEASURED, 1, 0, 1, 0]
    found = record_of([1.0, 1.0, 1.0, NAN, 1.0], scale=np.array(scale), skipped=np.array(skipped))
    off = cnnlab.settings("question", precision="float16")
    schedule = ((1, off.knobs), (2, off.replace(loss_scale="dynamic").knobs))
    return dataclasses.replace(found, settings=off, schedule=schedule)


def test_the_scale_is_drawn_and_what_was_left_out_is_marked_by_its_reason():
    traces = {trace.name: trace for trace in draw_dashboard(scaled(), 5).data}
    assert np.array_equal(traces["loss scale"].y, [NAN, 8, 4, 4, 0], equal_nan=True)
    marks = traces["left out"]
    assert dict(zip(marks.x.tolist(), marks.marker.symbol, strict=True)) == {
        4: "x", 2: "triangle-up", 5: "triangle-down",
    }  # fmt: skip
    beside = {trace.name: trace for trace in draw_dashboard(scaled(), 5, beside=Beside(scaled())).data}
    assert beside["beside left out"].x.tolist() == marks.x.tolist()
    assert not set(beside["beside left out"].marker.symbol) & set(marks.marker.symbol)


def test_its_axis_has_ticks_at_powers_of_two_and_holds_all():
    figure = draw_dashboard(scaled(), 5)
    axis = figure.layout[number_axes()["loss_scale"][1].replace("y", "yaxis")]
    assert axis.type == "log"
    assert list(zip(axis.tickvals, axis.ticktext, strict=True)) == [
        (4, "2<sup>2</sup>"), (8, "2<sup>3</sup>"),
    ]  # fmt: skip
    assert axis.range[0] < np.log10(4) < np.log10(8) < axis.range[1]
    wide = fit_binary_range(np.array([2.0**-20, 2.0**16, NAN]), ticks=6)
    assert len(wide["tickvals"]) <= 7
    assert np.all(np.log2(wide["tickvals"]) % 1 == 0)
    assert fit_binary_range(np.array([NAN]))["tickvals"]


def test_the_plot_is_hidden_where_no_scale_is_on_unless_it_is_asked_for():
    plain, found = record_of([1.0]), scaled()
    assert "loss_scale" not in choose_shown(plain.schedule)
    assert choose_shown(found.schedule) == (*PLOTS, "loss_scale")
    for record, shown in ((plain, False), (found, True)):
        panels = draw_dashboard(record, 5).layout.meta["panels"]
        assert ("loss_scale" in [panel["name"] for panel in panels]) is shown
    asked = draw_dashboard(plain, 5, panels=("loss_scale",)).layout.meta["panels"]
    assert [panel["name"] for panel in asked] == ["loss_scale"]
    assert "loss_scale" not in check_panels(None)


def test_its_numbers_are_the_scale_and_whether_the_update_was_left_out():
    assert write_numbers(scaled(), "loss_scale").splitlines() == [
        "update,scale,skipped", "1,,", "2,8.0,1.0", "3,4.0,0.0", "4,4.0,1.0", "5,0.0,0.0",
    ]  # fmt: skip


@pytest.mark.parametrize("changes", [{"loss_scale": "dynamic"}, {"loss_scale": 1024}])
def test_a_lab_shows_the_plot_from_when_a_scale_is_chosen_on(changes):
    small = {"channels": 2, "hidden": (4, 3), "patch_size": 13, "patches": 8, "device": "cpu"}
    lab = cnnlab.Lab("question", **small, precision="float16")
    assert "loss_scale" not in lab.panels
    lab.step(1)
    lab.received({"set": {name: str(value) for name, value in changes.items()}})
    lab.step(1)
    assert lab.panels == (*PLOTS, "loss_scale")
    shown = [panel["name"] for panel in lab.widgets.figure.spec["layout"]["meta"]["panels"]]
    assert shown == [*PLOTS, "loss_scale"]
    assert lab.record.knobs_at(2).loss_scale == changes["loss_scale"]
    assert lab.widgets.controls.state["values"]["loss_scale"] == changes["loss_scale"]
    lab.set(loss_scale="off")
    lab.step(1)
    assert "loss_scale" in lab.panels, "it has something to show"
    lab.close()
