"""The figure tells the truth: every value is drawn, on a curve or in a lane."""

import numpy as np
import pytest
from handmade import drawn, record_of
from hypothesis import given
from hypothesis import strategies as st

from cnnlab.plots.colours import FAINT, INK, PALETTE
from cnnlab.plots.dashboard import find_last_update, find_ranges
from cnnlab.plots.layout import LANES, fit_log_range
from cnnlab.plots.points import LAYER_POINTS, choose_stretch, find_lone_points, place_marks, thin_curve


def test_the_cost_curve_holds_every_finite_cost() -> None:
    trace = drawn(record_of([4.7, 4.5e7, 7.5e31]))["cost"]
    assert trace.x.tolist() == [1, 2, 3]
    assert trace.y.tolist() == [4.7, 4.5e7, 7.5e31]


def test_nan_inf_and_zero_are_marked_in_lanes_of_their_own() -> None:
    marks = drawn(record_of([1.0, np.nan, np.inf, 0.0, -3.0]))["cost marks"]
    lanes = [LANES["nan"], LANES["inf"], LANES["low"], LANES["low"]]
    assert marks.x.tolist() == [2, 3, 4, 5]
    assert marks.y.tolist() == pytest.approx(lanes)
    assert marks.marker.symbol == ("x", "triangle-up", "triangle-down", "triangle-down")


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40))
def test_no_cost_vanishes_whatever_it_is(costs: list[float]) -> None:
    x, y = thin_curve(np.array(costs), 1000)
    on_curve = set(x[np.isfinite(y) & (y > 0)].tolist())
    in_lane = set(place_marks(np.array(costs, dtype=float))["x"].tolist())
    assert on_curve | in_lane == set(range(1, len(costs) + 1))


@given(st.lists(st.floats(), min_size=1, max_size=30))
def test_the_log_axis_holds_every_finite_positive_value_below_its_lanes(values: list[float]) -> None:
    array = np.array(values)
    low, high = fit_log_range(array)["range"]
    shown = np.log10(array[np.isfinite(array) & (array > 0)])
    assert (shown >= low).all()
    assert (shown <= low + 0.88 * (high - low)).all()


def test_a_long_run_is_thinned_without_losing_its_spikes() -> None:
    cost = np.ones(50_000)
    cost[12_345] = 1e9
    cost[23_456] = 1e-9
    x, y = thin_curve(cost, 1000)
    assert len(x) == len(y) <= 1000
    assert y.max() == 1e9
    assert y.min() == 1e-9


@given(
    st.lists(st.sampled_from([np.nan, np.inf, 0.0, 1.0, 2.0, 3.0]), min_size=1, max_size=300),
    st.sampled_from([6, 20, 64]),
)
def test_as_a_run_grows_only_the_end_of_a_thinned_curve_is_new(costs: list[float], points: int) -> None:
    values = np.array([*costs, 5.0])
    before, after = thin_curve(values[:-1], points), thin_curve(values, points)
    assert len(after[0]) <= points
    if len(costs) > points and choose_stretch(len(costs), points // 2) == choose_stretch(len(values), points // 2):
        kept = len(before[0]) - 2
        for old, new in zip(before, after, strict=True):
            assert new[:kept].tolist() == pytest.approx(old[:kept].tolist(), nan_ok=True)


@given(st.lists(st.floats(-9, 9), min_size=65, max_size=300))
def test_a_thinned_curve_has_the_least_and_the_largest_of_each_stretch_where_they_lie(costs: list[float]) -> None:
    values = np.array(costs)
    x, y = thin_curve(values, 64)
    every = choose_stretch(len(values), 32)
    assert (np.diff(x) >= 0).all()
    assert values[x.astype(int) - 1].tolist() == y.tolist()
    for first in range(0, len(values), every):
        inside = y[(x > first) & (x <= first + every)]
        stretch = values[first : first + every]
        assert (inside.min(), inside.max()) == (stretch.min(), stretch.max())


@pytest.mark.parametrize("updates", [3000, 5000, 8000])
def test_marks_and_gauges_of_what_was_drawn_stay_as_a_run_grows(updates: int) -> None:
    rng = np.random.default_rng(0)
    cost = np.where(rng.random(updates) < 0.01, np.nan, 1.0)
    gradient = rng.random((updates + 1, 3))
    gradient[rng.random((updates + 1, 3)) < 0.01] = 0
    record = record_of(cost, gradient_norm=gradient, accuracy=np.append(np.nan, rng.random(updates)))
    before, after = drawn(record.until(updates - 1)), drawn(record)
    for name in ("cost marks", "gradient 1", "gradient marks", "accuracy"):
        old, new = (set(zip(shown[name].x.tolist(), shown[name].y.tolist(), strict=True)) for shown in (before, after))
        assert len(old - new) <= 2
        assert len(old) > 25


def test_a_gradient_that_is_zero_for_one_update_of_many_is_marked() -> None:
    gradient = np.ones((10_001, 3))
    gradient[5000, 1] = 0
    assert drawn(record_of(np.ones(10_000), gradient_norm=gradient))["gradient marks"].x.tolist() == [5000]


def test_a_dip_of_the_accuracy_in_a_long_run_is_drawn() -> None:
    accuracy = np.ones(10_001)
    accuracy[4321] = 0.25
    trace = drawn(record_of(np.ones(10_000), accuracy=accuracy))["accuracy"]
    assert trace.y.min() == 0.25
    assert len(trace.x) <= LAYER_POINTS


def test_one_nan_among_many_updates_is_still_marked() -> None:
    cost = np.ones(50_000)
    cost[31_007] = np.nan
    marks = place_marks(cost)
    assert marks["x"].tolist() == [31_008]


def test_ghosts_are_drawn_faintly_with_their_marks_and_a_gap_between_them() -> None:
    traces = drawn(record_of([1.0]), (record_of([2.0, np.nan]), record_of([3.0])))
    assert traces["ghosts"].y.tolist() == pytest.approx([2, np.nan, np.nan, 3, np.nan], nan_ok=True)
    assert traces["ghost marks"].x.tolist() == [2]


def test_a_layer_whose_gradient_is_nan_is_marked_in_its_colour_while_others_keep_their_curves() -> None:
    gradient = np.ones((3, 3))
    gradient[2, 1] = np.nan
    traces = drawn(record_of([1.0, 1.0], gradient_norm=gradient))
    assert traces["gradient marks"].x.tolist() == [2]
    assert traces["gradient marks"].marker.color.tolist() == [1]
    assert traces["gradient 0"].y.tolist() == [1, 1]


def test_the_colours_of_marks_are_those_of_the_layers() -> None:
    for name in ("gradient marks", "ratio marks"):
        marker = drawn(record_of([1.0]))[name].marker
        assert [colour for _, colour in marker.colorscale] == list(PALETTE)
        places = [place * (marker.cmax - marker.cmin) + marker.cmin for place, _ in marker.colorscale]
        assert places == pytest.approx(range(9))


def test_a_value_between_two_that_no_curve_can_show_is_a_point() -> None:
    nan = np.nan
    traces = drawn(record_of([nan, 3.0, nan, 4.0, 5.0, 0.0, 7.0]), (record_of([2.0, nan]), record_of([1.0, 1.0])))
    assert traces["lone costs"].x.tolist() == [1, 2, 7]
    assert traces["lone costs"].y.tolist() == [2, 3, 7]
    assert traces["lone costs"].marker.color == (FAINT, INK, INK)
    gradient = np.array([[nan] * 3, [1, nan, 1], [nan, 2, 1], [3, nan, 1]])
    alone = drawn(record_of([1.0] * 3, gradient_norm=gradient))["lone gradient"]
    assert (alone.x.tolist(), alone.y.tolist(), alone.marker.color.tolist()) == ([1, 3, 2], [1, 3, 2], [0, 0, 1])


def test_the_first_update_is_seen_in_every_plot() -> None:
    traces = drawn(record_of([3.0], accuracy=[0.0], gradient_norm=np.ones((2, 3)), update_ratio=np.ones((2, 3))))
    for name, count in (("lone costs", 1), ("lone accuracy", 1), ("lone gradient", 3), ("lone ratio", 3)):
        assert traces[name].x.tolist() == [1] * count
    assert traces["lone accuracy"].y.tolist() == [0]


@given(st.lists(st.sampled_from([np.nan, np.inf, 0.0, 1.0, 2.0, 3.0]), max_size=60), st.sampled_from([6, 20, 1000]))
def test_every_value_has_a_line_a_point_or_a_mark(costs: list[float], points: int) -> None:
    x, y = thin_curve(np.array(costs), points)
    alone = set(find_lone_points(x, y)[0].tolist())
    with np.errstate(invalid="ignore"):
        there = np.isfinite(y) & (y > 0)
    joined = there[1:] & there[:-1] & ((x[1:] != x[:-1]) | (y[1:] != y[:-1]))
    in_line = set(x[1:][joined].tolist()) | set(x[:-1][joined].tolist())
    assert alone | in_line == set(x[there].tolist())
    assert not alone & in_line


@pytest.mark.parametrize(("done", "goal", "last"), [
    (0, 20, 20), (0, 1000, 60), (60, 1000, 60), (61, 1000, 120), (61, 100, 100), (150, 100, 150), (4, 10**6, 60),
])  # fmt: skip
def test_the_time_axes_hold_the_run_without_leaving_most_of_them_empty(done: int, goal: int, last: int) -> None:
    assert find_last_update(record_of([1.0] * done), (), goal) == last


def test_no_tick_lies_between_two_updates() -> None:
    axes = find_ranges(record_of([1.0]), (), 2)
    assert {axes[axis]["tickmode"] for axis in ("xaxis", "xaxis3", "xaxis4", "xaxis5")} == {"linear"}
    assert axes["xaxis"]["dtick"] == 1
    assert find_ranges(record_of([1.0]), (), 7)["xaxis"]["tickmode"] == "auto"


def test_one_nan_in_the_gradient_of_a_long_run_is_marked_and_one_spike_is_drawn() -> None:
    gradient = np.ones((10_001, 3))
    gradient[1235, 1] = np.nan
    gradient[7778, 2] = 1e9
    traces = drawn(record_of(np.ones(10_000), gradient_norm=gradient))
    assert traces["gradient marks"].marker.color.tolist() == [1]
    assert abs(traces["gradient marks"].x[0] - 1235) <= 10_000 / LAYER_POINTS + 1
    assert traces["gradient 2"].y.max() == 1e9


def test_a_layer_whose_gradient_is_zero_is_marked_below() -> None:
    gradient = np.ones((2, 3))
    gradient[1, 2] = 0
    marks = drawn(record_of([1.0], gradient_norm=gradient))["gradient marks"]
    assert marks.y[0] < 0.1
    assert marks.marker.color.tolist() == [2]


def test_lost_weights_are_crossed_on_their_layers_row() -> None:
    assert drawn(record_of([1.0], lost=(1,)))["lost weights"].y.tolist() == pytest.approx([1.1])
    assert len(drawn(record_of([1.0]))["lost weights"].y) == 0


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32", "float64"])
def test_a_ridge_peaks_where_the_weights_are(precision: str) -> None:
    trace = drawn(record_of([1.0], precision=precision))["magnitudes 0"]
    peak = trace.x[np.argmin(trace.y)]
    width = (trace.x[-1] - trace.x[0]) / (len(trace.x) - 2)
    assert abs(peak - (-1.5)) <= width


def test_nine_layers_have_nine_colours_and_the_picture_over_time_is_a_png() -> None:
    assert len(set(PALETTE)) == 9
    assert drawn(record_of([1.0]))["over time"].source.startswith("data:image/png;base64,")


def test_a_network_of_many_layers_is_drawn() -> None:
    layers = tuple(f"block.{place}.convolution" for place in range(30))
    names = drawn(record_of([1.0, np.nan], layers=layers))
    assert "ratio 11" in names
    assert "ratio 12" not in names
