"""The folded plot of the cost along the sharpest direction: measured at rest; the landing follows the slider."""

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from torch import nn

import cnnlab
from cnnlab.curvature import direction as directions
from cnnlab.dashboards.direction_panel import HIDDEN, DirectionPanel
from cnnlab.plots.direction import Cut, draw_direction

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8}


def rest(lab: cnnlab.Lab) -> None:
    """Wait until all that is wanted of the paused run is known, and draw."""
    lab.worker.ask()
    end = time.monotonic() + 120
    while lab.worker.thread.alive:
        assert time.monotonic() < end
        time.sleep(0.002)
    lab.draw(lab.view)


def open_lab(**changes: Any) -> cnnlab.Lab:
    """A lab that measures at rest, as one on a page does."""
    lab = cnnlab.Lab("question", **{"learning_rate": 1e-4, **SMALL, **changes})
    lab.worker.measurements.watching = True
    return lab


@pytest.fixture
def lab() -> Iterator[cnnlab.Lab]:
    made = open_lab()
    yield made
    made.close()


def panel(lab: cnnlab.Lab) -> DirectionPanel:
    return lab.widgets.direction


def point(lab: cnnlab.Lab, name: str) -> tuple[float, float]:
    """The place and the height of a mark on the page."""
    trace = next(trace for trace in panel(lab).figure.spec["data"] if trace["name"] == name)
    return float(trace["x"][0]), float(trace["y"][0])


def test_it_is_folded_at_the_start_and_nothing_is_measured_for_it(lab) -> None:
    rest(lab)
    assert panel(lab).button.value is False
    assert panel(lab).place.layout.display == "none"
    assert panel(lab).figure is None
    assert lab.view.direction is None


def test_opened_it_shows_the_present_and_where_the_next_update_goes(lab) -> None:
    lab.step(2)
    panel(lab).button.value = True
    rest(lab)
    found = lab.view.direction
    assert found.step == 2
    assert point(lab, "present")[0] == pytest.approx(found.present)
    assert point(lab, "landing")[0] == pytest.approx(found.find_landing(1e-4))
    assert f"After update 2 (learning rate 0.0001, critical {found.critical:.4g})" in panel(lab).words.value
    before, u = lab.worker.run.parameters.double(), found.line.direction.double()
    lab.step(1)
    moved = float((lab.worker.run.parameters.double() - before).dot(u))
    assert found.find_landing(1e-4) - found.present == pytest.approx(moved, rel=1e-2)  # in float32


def test_the_slider_moves_the_landing_before_anything_is_measured(lab, monkeypatch) -> None:
    panel(lab).button.value = True
    rest(lab)
    before = lab.view.direction
    monkeypatch.setattr(directions.Line, "measure", lambda *_: pytest.fail("measured"))
    lab.worker.measurements.watching = False
    rate = before.critical * 1.5
    lab.set(learning_rate=rate)
    lab.draw(lab.view)
    assert lab.view.direction is before
    assert point(lab, "landing")[0] == pytest.approx(before.find_landing(rate))
    assert point(lab, "landing")[0] < 0
    assert point(lab, "present")[0] == pytest.approx(before.present)


def test_a_landing_beyond_the_measured_range_has_the_cost_measured_there_when_it_is_idle(lab) -> None:
    panel(lab).button.value = True
    rest(lab)
    before = lab.view.direction
    rate = before.critical * 30
    lab.set(learning_rate=rate)
    rest(lab)
    after = lab.view.direction
    assert after.holds(rate)
    assert not before.holds(rate)
    assert after.present == before.present
    lab.set(learning_rate=before.critical / 2)
    rest(lab)
    assert lab.view.direction.places[-1] < after.places[-1] / 4


def test_another_knob_has_it_measured_anew_and_another_optimiser_its_own_direction(lab) -> None:
    panel(lab).button.value = True
    rest(lab)
    before = lab.view.direction
    lab.set(optimizer="adam")
    rest(lab)
    after = lab.view.direction
    assert after.eigenvalue == pytest.approx(cnnlab.critical_learning_rate(lab.worker.run).eigenvalue, rel=1e-3)
    assert after.eigenvalue != before.eigenvalue


def test_folded_again_it_costs_nothing(lab) -> None:
    panel(lab).button.value = True
    rest(lab)
    panel(lab).button.value = False
    lab.step(1)
    rest(lab)
    assert lab.view.direction is None
    assert panel(lab).place.layout.display == "none"


def test_a_new_start_and_a_rewind_show_no_cut_of_another_past(lab) -> None:
    panel(lab).button.value = True
    lab.step(3)
    rest(lab)
    assert lab.view.direction.step == 3
    lab.worker.measurements.watching = False
    lab.rewind(1)
    lab.draw(lab.view)
    assert lab.view.direction is None
    assert "Measured when the run pauses." in panel(lab).words.value
    lab.reset()
    lab.draw(lab.view)
    assert lab.view.direction is None


def test_without_hints_it_is_hidden_until_the_forecast_is_shown() -> None:
    lab = open_lab(hints=False)
    panel(lab).button.value = True
    rest(lab)
    assert HIDDEN in panel(lab).words.value
    assert all(not len(trace["x"]) for trace in panel(lab).figure.spec["data"])
    lab.show_forecast()
    lab.draw(lab.view)
    assert "After update 0" in panel(lab).words.value
    lab.close()


def test_a_run_that_has_broken_is_said_to_have_no_direction() -> None:
    lab = open_lab(learning_rate=1e4)
    lab.step(8)
    panel(lab).button.value = True
    rest(lab)
    assert "the Hessian is not finite: there is no sharpest direction" in panel(lab).words.value
    assert lab.problem == ""
    lab.close()


def test_a_network_without_second_derivatives_is_told_why() -> None:
    import torch
    from once import Once

    class Layer(nn.Linear):
        def forward(self, x):
            return Once.apply(super().forward(x))

    data = (torch.randn(6, 3), torch.randint(2, (6,)))
    lab = cnnlab.Lab(network=Layer(3, 2), data=data, cost=nn.functional.cross_entropy, device="cpu")
    lab.worker.measurements.watching = True
    lab.step(1)
    panel(lab).button.value = True
    rest(lab)
    assert "needs second derivatives" in panel(lab).words.value
    lab.close()


def test_closing_the_lab_closes_it(lab) -> None:
    panel(lab).button.value = True
    rest(lab)
    figure = panel(lab).figure
    lab.close()
    assert figure.comm is None


def cut(costs: list[float], landing: tuple[float, float]) -> Cut:
    """A cut of five places; its parabola is x^2."""
    places = np.linspace(-2, 2, 5)
    return Cut(places, np.array(costs), places**2, (1.0, 1.0), landing)


def test_costs_that_are_nan_or_infinite_have_crosses_along_the_top() -> None:
    figure = draw_direction(cut([math.inf, 1, 0, 1, math.nan], (-2.0, math.inf)))
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces["lost"].x) == [-2, 2]
    assert np.isnan(traces["cost"].y[[0, 4]]).all()
    low, high = figure.layout.yaxis.range
    assert traces["landing"].y[0] == pytest.approx(high)
    assert low < 0 < 1 < high < math.inf


@pytest.mark.parametrize(("place", "red"), [(-0.5, False), (-1.5, True), (0.2, False), (1.8, True)])
def test_a_step_that_goes_farther_from_the_minimum_is_red(place, red) -> None:
    from cnnlab.plots.colours import RED

    figure = draw_direction(cut([4, 1, 0, 1, 4], (place, place**2)))
    landing = next(trace for trace in figure.data if trace.name == "landing")
    assert (landing.marker.color == RED) == red
    assert figure.layout.xaxis.range[1] >= abs(place)


def test_without_a_cut_the_axes_stand_alone() -> None:
    figure = draw_direction(None)
    assert all(not len(trace.x) for trace in figure.data)
