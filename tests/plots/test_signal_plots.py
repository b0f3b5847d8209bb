"""The plots of signals: what the magnitudes are switched to, and deviations by depth with their corridors."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from handmade import record_of
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnnlab.curvature.direction import measure_direction
from cnnlab.plots.arrangement import arrange_panels
from cnnlab.plots.dashboard import draw_dashboard, refresh_dashboard
from cnnlab.plots.dashboard_layout import BUTTONS, INDENT, SWITCH, TITLE_SIZE, measure_text
from cnnlab.plots.gauges import MORE, PLOTS, number_axes, number_lanes
from cnnlab.plots.layer_groups import group_layers
from cnnlab.plots.layout import LANES, name_axis
from cnnlab.plots.magnitudes import KINDS, SMALLEST, choose_plot, count_shares, find_next_kind, fit_span
from cnnlab.plots.numbers import write_numbers
from cnnlab.plots.over_time import measure_bands
from cnnlab.plots.recorder import FigureRecorder
from cnnlab.plots.signals import CORRIDOR
from cnnlab.records.frame import NOT_MEASURED
from cnnlab.records.histograms import EXPONENTS
from cnnlab.records.record import Record
from cnnlab.records.signals import Signals, find_signals
from cnnlab.training.run import Run

ROOT = Path(__file__).parents[2]
SMALL = {"channels": 3, "hidden": (6, 5), "patch_size": 13, "patches": 10, "learning_rate": 1e-3, "device": "cpu"}
SIGNALS = {"panels": ("signals", "magnitudes", "over_time")}


@pytest.fixture(scope="module")
def record() -> Record:
    run = Run("question", **SMALL)
    run.advance(20)
    return run.record


def traces_of(record: Record, **shape: object) -> dict[str, object]:
    """The traces of a record's dashboard by name."""
    return {trace.name: trace for trace in draw_dashboard(record, 20, **{**SIGNALS, **shape}).data}


def make_signals(forward: list[float], backward: list[float]) -> Signals:
    """Signals made by hand."""
    names = tuple(f"cv{place}" for place in range(len(forward)))
    zeros = np.zeros(len(names))
    counts = np.zeros((3 * len(names), 256), np.int32)
    return Signals(5, names, zeros, np.array(forward), zeros, zeros, np.array(backward), counts)


def test_each_kind_of_magnitudes_has_titles_a_help_and_ridges_of_its_own(record: Record) -> None:
    seen = set()
    for kind in KINDS:
        figure = draw_dashboard(record, 20, magnitudes=kind)
        panel = next(each for each in figure.layout.meta["panels"] if each["name"] == "magnitudes")
        later = next(each for each in figure.layout.meta["panels"] if each["name"] == "over_time")
        ridge = next(trace for trace in figure.data if trace.name == "magnitudes 0")
        seen.add((panel["title"], panel["help"], later["title"], later["help"], ridge.y.tobytes()))
        assert (panel["kind"], panel["then"]) == (kind, find_next_kind(kind))
        assert (later["kind"], later["then"]) == ("", "")
    assert all(len(set(parts)) == len(KINDS) for parts in zip(*seen, strict=True))
    assert [find_next_kind(kind) for kind in KINDS] == [*KINDS[1:], KINDS[0]]
    assert choose_plot("cost", "updates") is PLOTS["cost"]


@pytest.mark.parametrize("width", [320, 461, 580, 721, 1251])
def test_titles_of_every_kind_have_room_beside_the_buttons(width: int) -> None:
    for name, panel in arrange_panels(width).panels.items():
        for kind in KINDS:
            plot = choose_plot(name, kind)
            wide = measure_text(plot.short or plot.title, TITLE_SIZE) + (SWITCH if name == "magnitudes" else 0)
            assert INDENT + wide + BUTTONS <= panel.cell.width + 10


@pytest.mark.parametrize("name", ["magnitudes", "over_time"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_help_of_every_kind_is_two_sentences(name: str, kind: str) -> None:
    assert len(re.findall(r"\.(?=\s|$)", choose_plot(name, kind).help)) == 2


def test_the_plot_over_time_has_the_button_where_it_is_alone(record: Record) -> None:
    figure = draw_dashboard(record, 20, panels=("cost", "over_time"), magnitudes="updates")
    assert [(panel["kind"], panel["then"]) for panel in figure.layout.meta["panels"]] == [
        ("", ""),
        ("updates", "weights"),
    ]


def test_the_ridge_of_weights_is_what_it_was(record: Record) -> None:
    before, after = traces_of(record), traces_of(record, magnitudes="weights")
    assert before["magnitudes 3"].y.tolist() == after["magnitudes 3"].y.tolist()
    assert len(after["deviations of layers"].x) == len(after["zeros of layers"].x) == 0


def test_bars_are_as_long_as_the_shares_of_zeros_and_circles_lie_at_the_deviations(record: Record) -> None:
    traces, found = traces_of(record, magnitudes="activations"), find_signals(record)
    ends = traces["zeros of layers"].x[1::3]
    there = found.activation_zeros > 0
    np.testing.assert_allclose((ends - SMALLEST) / (128 - SMALLEST), found.activation_zeros[there], rtol=1e-5)
    np.testing.assert_allclose(2.0 ** traces["deviations of layers"].x, found.activation_deviation, rtol=1e-4)
    assert "update 20" in traces["deviations of layers"].text[0]
    assert len(traces["saturated of layers"].x) == 0
    assert len(traces_of(record, magnitudes="gradients")["deviations of layers"].x) == 0


def test_what_is_too_small_for_the_axis_is_drawn_at_its_end_and_not_left_out() -> None:
    counts = np.zeros((1, 1, EXPONENTS["float64"].count), np.int32)
    counts[0, 0, 3] = 5
    assert count_shares(counts, EXPONENTS["float64"], 160, (-126, 1024))[0, 0, 0] == 1
    assert count_shares(counts, EXPONENTS["float64"], 160)[0].sum() == 0


@pytest.mark.parametrize("precision", EXPONENTS)
@given(places=st.lists(st.integers(0, 2**11 - 1), min_size=1, max_size=9))
def test_over_time_the_span_holds_the_largest_numbers_and_all_but_a_few_of_the_smallest(
    precision: str, places: list[int]
) -> None:
    exponents = EXPONENTS[precision]
    counts = np.zeros((1, 2, exponents.count), np.int32)
    counts[0, 0, [place % exponents.count for place in places]] = 1000
    first, last = fit_span(counts, exponents)
    finite = counts[0, 0, 1:-1].sum() / max(counts[0, 0].sum(), 1)
    shares = count_shares(counts, exponents, 22, (first, last))
    assert shares.shape[2] <= 22
    assert shares[0, 0].sum() == pytest.approx(finite)
    powers = exponents.powers[1:-1][counts[0, 0, 1:-1] > 0]
    assert all(first <= power < last for power in powers)
    if len(powers):
        assert last - first <= max(powers) - min(powers) + 16


def test_bands_over_time_hold_the_last_signals_until_there_are_new_ones(record: Record) -> None:
    strengths, lost, every = measure_bands(record, "gradients")
    assert every == 1
    assert not strengths[0].any()
    assert (strengths[8] == strengths[11]).all()
    assert (strengths[11] != strengths[12]).any()
    assert not lost.any()


def draw_signals_of(found: Signals) -> tuple[dict[str, dict[str, NDArray[np.float64]]], dict[str, dict[str, object]]]:
    """What is drawn of signals that were measured beside a record, by trace, and the ranges of the axes."""
    record = record_of([1.0], layers=found.layers)
    drawn = FigureRecorder(trace.name for trace in draw_dashboard(record, 20, **SIGNALS).data)
    panels = arrange_panels(800, 1, ("signals",)).panels
    wanted = refresh_dashboard(drawn, record, (), 20, panels=panels, signals=found)
    return {trace.name: trace for trace in drawn.data}, wanted


def test_nan_inf_and_zero_are_marked_and_every_other_deviation_lies_on_the_curve() -> None:
    found = make_signals([1e-30, np.nan, np.inf, 0.0, 3.0], [0.0, 0.0, np.nan, 1e-20, 1.0])
    traces, wanted = draw_signals_of(found)
    forward = {"nan": [1], "inf": [2], "low": [3]}
    backward = {"nan": [2], "inf": [], "low": [0, 1]}
    for name, marked in (("forward", forward), ("backward", backward)):
        x, y = traces[f"{name} marks"]["x"], traces[f"{name} marks"]["y"]
        assert {lane: x[np.isclose(y, LANES[lane])].tolist() for lane in marked} == marked
    assert np.flatnonzero(np.isfinite(traces["forward"]["y"])).tolist() == [0, 4]
    assert traces["forward"]["y"][0] == 1e-30
    x, y = number_axes()["signals"]
    assert wanted[name_axis(y)]["range"][0] < -30
    assert wanted[name_axis(x)]["range"] == [-0.5, 4.5]


def test_what_was_not_measured_is_no_mark() -> None:
    traces, _ = draw_signals_of(make_signals([1.0, NOT_MEASURED], [NOT_MEASURED, 1.0]))
    assert len(traces["forward marks"]["x"]) == len(traces["backward marks"]["x"]) == 0


@pytest.mark.parametrize(("last", "band"), [(0.25, [0.025, 0.025, 2.5, 2.5]), (0.0, []), (np.nan, []), (np.inf, [])])
def test_the_corridors_lie_around_1_and_around_the_last_gradient_and_there_is_none_around_nothing(
    last: float, band: list[float]
) -> None:
    traces, _ = draw_signals_of(make_signals([1.0, 1.0], [1e-9, last]))
    assert traces["forward corridor"]["y"].tolist() == [1 / CORRIDOR, 1 / CORRIDOR, CORRIDOR, CORRIDOR]
    assert traces["backward corridor"]["y"].tolist() == pytest.approx(band)


def test_a_network_of_fifty_layers_is_drawn_whole_and_its_labels_have_room() -> None:
    layers = tuple(f"cv{place}" for place in range(50))
    record = record_of([1.0] * 3, layers=layers)
    figure = draw_dashboard(record, 20, panels=("signals", "magnitudes"), width=800)
    x, _ = number_axes()["signals"]
    axis = figure.layout[f"xaxis{x[1:]}"]
    assert axis.range == (-0.5, 49.5)
    assert 3 <= len(axis.tickvals) <= 12
    assert len(group_layers(record).layers) == 12


def test_the_plot_of_signals_is_shown_where_it_is_named_alone() -> None:
    figure = draw_dashboard(record_of([1.0]), 20)
    assert "forward" not in {trace.name for trace in figure.data}
    assert "signals" not in {panel["name"] for panel in figure.layout.meta["panels"]}
    assert "signals" in MORE
    assert "forward" in traces_of(record_of([1.0]))
    axes = [y for _, y in number_axes().values()] + list(number_lanes().values())
    assert len(set(axes)) == len(axes)


def test_healthy_ranges_are_bands(record: Record) -> None:
    figure = draw_dashboard(record, 20)
    bands = [shape for shape in figure.layout.shapes if shape.yref == number_axes()["ratio"][1]]
    assert [(band.y0, band.y1) for band in bands] == [PLOTS["ratio"].healthy]
    traces = {trace.name: trace for trace in figure.data}
    limit, band = traces["threshold"].y, traces["healthy curvature"].y
    assert band[: len(limit)].tolist() == limit.tolist()
    assert (band[len(limit) :] < limit.min() / 1e6).all()


def test_the_numbers_of_signals_are_a_table(record: Record) -> None:
    rows = list(csv.DictReader(io.StringIO(write_numbers(record, "signals"))))
    assert [row["update"] for row in rows if row["layer"] == "cv0"] == [*map(str, range(1, 9)), "12", "16", "20"]
    last = find_signals(record)
    assert float(rows[-1]["backward deviation"]) == last.backward_deviation[-1]
    assert rows[-1]["activation saturated"] == ""
    counted = list(csv.DictReader(io.StringIO(write_numbers(record, "magnitudes", "updates"))))
    assert [row["update"] for row in counted] == ["20"] * len(record.layers)
    assert int(counted[0]["0"]) == last.count("updates")[0, 0]
    assert CORRIDOR == 10


def test_what_page_and_help_say_of_the_bands_is_what_was_measured() -> None:
    measured = (ROOT / "tests/benchmarks/results/corridor.md").read_text(encoding="utf-8")
    page = " ".join((ROOT / "docs/plots.md").read_text(encoding="utf-8").split())
    rows = re.findall(r"\| (\d+) to (\w+) \| (\d+) \| (\d+) \|", measured)
    within = {low: (int(count), int(learnt)) for low, _, count, learnt in rows}
    for low, high in (("1", "10"), ("10", "100"), ("100", "1,000")):
        count, learnt = within[low]
        assert re.search(rf"\b{learnt} of the {count} (runs )?within (a factor of )?{high}\b", page)
    beyond = [count for low, count in within.items() if float(low) >= 1000]
    assert sum(learnt for _, learnt in beyond) == 0
    count = sum(count for count, _ in beyond)
    assert f"none of the {count} beyond" in page
    assert f"none of {count} runs learnt" in MORE["signals"].help
    shares = dict(re.findall(r"\| (\w+) \| \d+ \| (\d+)% \|", measured))
    for preset in ("deep_residual", "adam", "batch_norm"):
        assert f"{shares[preset]} %" in page
    assert f"`deep_residual` and {shares['batch_norm']} % of those of `batch_norm`, which all learn" in page
    del shares["adam"]
    assert f"{min(map(int, shares.values()))} to {max(map(int, shares.values()))} %" in PLOTS["ratio"].help


def test_the_run_of_adam_whose_updates_lie_in_the_band_is_no_better_than_guessing() -> None:
    run = Run("adam", device="cpu")
    run.advance(40)
    record = run.record
    assert record.cost[-1] > 0.99 * np.log(2)
    assert record.accuracy[-1] == pytest.approx(0.5, abs=0.02)


def test_below_the_line_of_the_curvature_a_step_may_overshoot_and_lands_nearer_all_the_same() -> None:
    run = Run("question", device="cpu", learning_rate=1e-4)
    run.advance(60)
    cut = measure_direction(run)
    before, after = cut.present, cut.find_landing(0.8 * cut.critical)
    assert before * after < 0
    assert abs(after) < abs(before)
    assert "lead nearer to its bottom" in PLOTS["stability"].help
