"""The band's edges are the critical rate and ten times it, and what is drawn of the curvature is what was measured."""

import math

import numpy as np
import pytest
from handmade import drawn, record_of

import cnnlab
from cnnlab.curvature.band import describe_band
from cnnlab.plots.sharpness import POINTS, find_eigenvalues, find_nonfinite, find_thresholds

START = cnnlab.settings("question", learning_rate=1e-2)


def measured(*values):
    """A record whose sharpness at the start and after each update is this."""
    return record_of(np.ones(len(values) - 1), sharpness=np.array(values, dtype=float))


def test_amber_begins_at_the_critical_rate_and_red_at_ten_times_it():
    band = describe_band(measured(100.0), START, "")
    assert band["edges"] == pytest.approx([0.02, 0.2])
    assert band["said"] == "critical 0.02, yours 0.5\u00a0×"


@pytest.mark.parametrize(("eigenvalue", "said"), [(50_000.0, "250"), (150.0, "0.75"), (2e6, "1.0e4")])
def test_how_many_times_the_critical_rate_it_is_has_two_digits_and_no_needless_exponent(eigenvalue, said):
    assert describe_band(measured(eigenvalue), START, "")["said"].endswith(f", yours {said}\u00a0×")


def test_momentum_moves_the_edges():
    assert describe_band(measured(100.0), START.replace(momentum=0.9), "")["edges"][0] == pytest.approx(0.038)


def test_the_last_measurement_counts_and_the_title_says_of_which_update_it_is():
    band = describe_band(measured(100.0, 50.0, math.nan, math.nan), START, "")
    assert band["edges"][0] == pytest.approx(0.04)
    assert "after update 1" in band["title"]


def test_a_hessian_that_is_not_finite_is_said_and_has_no_band():
    band = describe_band(measured(100.0, math.inf), START, "")
    assert band["edges"] is None
    assert band["said"] == "the Hessian is not finite"


def test_before_anything_is_measured_there_is_no_band():
    assert describe_band(measured(math.nan), START, "")["edges"] is None


def test_a_network_without_second_derivatives_is_told_why_it_has_none():
    band = describe_band(measured(math.nan), START, "a layer has none")
    assert (band["edges"], band["title"]) == (None, "a layer has none")


def test_a_cost_that_curves_upwards_nowhere_has_no_critical_rate_and_calls_none_safe():
    band = describe_band(measured(-4.0), START, "")
    assert band["edges"] is None
    assert band["said"] == "no critical rate: λ is not above 0"


def test_a_mini_batch_is_named():
    assert "of a batch of 6" in describe_band(measured(100.0), START.replace(batch_size=6), "")["title"]


def test_the_curve_holds_what_was_measured_at_the_update_after_which_it_was():
    traces = drawn(measured(5.0, math.nan, 7.0, math.inf, -2.0))
    assert traces["sharpness"].x.tolist() == [0, 2]
    assert traces["sharpness"].y.tolist() == [5, 7]
    assert traces["sharpness marks"].x.tolist() == [3]


def test_the_dashed_line_is_two_over_the_learning_rate_of_the_next_update():
    run = cnnlab.Run("question", channels=2, hidden=(4, 4), patch_size=13, patches=8, learning_rate=0.1)
    run.advance(3)
    run.set(learning_rate=0.01, momentum=0.5)
    run.advance(2)
    x, y = find_thresholds(run.record, 20)
    assert x.tolist() == [0, 3, 3, 20]
    assert y.tolist() == pytest.approx([20, 20, 300, 300])


def test_a_long_log_is_thinned_without_losing_its_peak():
    values = np.ones(5000)
    values[3210] = 1e6
    record = measured(*values)
    x, y = find_eigenvalues(record)
    assert len(x) <= POINTS
    assert y.max() == 1e6
    assert len(find_nonfinite(measured(*np.full(5000, math.inf)))) <= POINTS


def test_an_older_file_has_no_curvature_and_is_drawn_all_the_same():
    from pathlib import Path

    record = cnnlab.load(Path(__file__).parents[1] / "data" / "version_1.cnnlab")
    assert np.isnan(record.column("sharpness")).all()
    assert len(drawn(record)["sharpness"].x) == 0
