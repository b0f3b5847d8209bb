"""The dashboard's plots lie in a grid of pixels: nothing overlaps, nothing is cut, and the cost comes first."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from handmade import record_of
from hypothesis import given
from hypothesis import strategies as st

from cnnlab.plots.arrangement import LEAST_WIDTH, arrange_panels
from cnnlab.plots.dashboard import draw_dashboard, find_ranges, refresh_dashboard
from cnnlab.plots.dashboard_layout import BUTTONS, INDENT, TICK_SIZE, TITLE_SIZE, make_layout, measure_text
from cnnlab.plots.gauges import PLOTS, find_plot, list_plots
from cnnlab.plots.recorder import FigureRecorder

ROOT = Path(__file__).parents[2]
WIDTHS, SCALES = st.integers(320, 2600), st.floats(0.5, 4)
SOME = st.lists(st.sampled_from(list(list_plots())), min_size=1, unique=True)
WILD = record_of([1e-30, 1.0, np.nan, np.inf, 0.0, 1e30], gradient_norm=np.logspace(-30, 35, 21).reshape(7, 3))


def strip_tags(text):
    return re.sub("<[^>]*>", "", text)


@given(WIDTHS, SCALES, SOME)
def test_cells_lie_within_the_figure_and_none_upon_another(width, scale, names):
    found = arrange_panels(width, scale, names)
    assert list(found.panels) == names
    cells = [panel.cell for panel in found.panels.values()]
    for cell in cells:
        assert min(cell.left, cell.top) >= 0
        assert cell.left + cell.width <= width
        assert cell.top + cell.height <= found.height + 1e-6
    for one, other in itertools.combinations(cells, 2):
        beside = one.left + one.width <= other.left or other.left + other.width <= one.left
        above = one.top + one.height <= other.top + 1e-6 or other.top + other.height <= one.top + 1e-6
        assert beside or above


@given(WIDTHS, SCALES, SOME)
def test_the_rows_are_filled_to_the_right_edge(width, scale, names):
    found = arrange_panels(width, scale, names)
    rows = {}
    for panel in found.panels.values():
        rows.setdefault(round(panel.cell.top), []).append(panel.cell.left + panel.cell.width)
    assert max(rows[0]) == width
    assert max(max(ends) for ends in rows.values()) == width


@given(WIDTHS, SCALES)
def test_the_cost_comes_first_and_is_never_narrower_than_another(width, scale):
    panels = arrange_panels(width, scale).panels
    first = panels["cost"]
    assert (first.cell.left, first.cell.top) == (0, 0)
    for panel in panels.values():
        assert panel.cell.width <= first.cell.width + 1 + 1e-6  # a pixel cannot be parted
        assert panel.plot.width <= first.plot.width + 1 + 1e-6


@given(WIDTHS, SCALES, SOME)
def test_every_plot_has_room_for_its_tick_labels_its_title_and_the_buttons(width, scale, names):
    found = arrange_panels(width, scale, names)
    unit = found.scale
    for name, panel in found.panels.items():
        left = (panel.plot.left - panel.cell.left) / unit
        labels = ("conv…",) if find_plot(name).layers else ("10-38", "10-300")
        assert left >= max(measure_text(label, TICK_SIZE) for label in labels) * 0.8
        assert (panel.cell.left + panel.cell.width - panel.plot.left - panel.plot.width) / unit >= 20
        assert panel.plot.width >= 130 * unit
        assert panel.plot.height >= 55 * unit
        title = find_plot(name).short or find_plot(name).title
        assert INDENT + measure_text(title, TITLE_SIZE) + BUTTONS <= panel.cell.width / unit + 10


@pytest.mark.parametrize(("width", "rows"), [
    (320, [1, 1, 1, 1, 1, 1]), (580, [2, 2, 2]), (800, [3, 3]), (1080, [3, 3]), (1500, [3, 4]), (1900, [3, 4]),
])  # fmt: skip
def test_a_wider_figure_has_more_plots_side_by_side(width, rows):
    panels = arrange_panels(width).panels
    lefts = {}
    for panel in panels.values():
        row = next((top for top in lefts if top <= panel.cell.top < top + 150), panel.cell.top)
        lefts.setdefault(row, set()).add(panel.cell.left)
    assert [len(lefts[top]) for top in sorted(lefts)] == rows


def test_accuracy_and_curvature_share_a_cell_only_where_that_saves_a_row():
    shared = arrange_panels(580).panels
    assert shared["stability"].cell.left == shared["accuracy"].cell.left
    assert not shared["accuracy"].tick_labels
    assert shared["stability"].tick_labels
    alone = arrange_panels(580, 1, ("stability", "accuracy")).panels
    assert alone["stability"].cell.left != alone["accuracy"].cell.left
    assert alone["accuracy"].tick_labels
    assert "stability" not in arrange_panels(580, 1, ("cost", "accuracy", "gradient")).panels


def test_the_first_row_of_a_laptop_s_dashboard_is_at_most_230_pixels_high():
    panels = arrange_panels(580).panels
    assert panels["magnitudes"].cell.top == panels["cost"].cell.top == 0
    assert panels["magnitudes"].cell.height == panels["cost"].cell.height <= 230


def test_a_very_narrow_figure_has_smaller_type_instead_of_cut_labels():
    assert arrange_panels(320, 4).scale == pytest.approx(320 / LEAST_WIDTH)
    assert arrange_panels(2600, 4).scale == 4


def test_a_plot_in_focus_has_the_figure_to_itself():
    found = arrange_panels(800, 1, ("cost", "ratio"), focus="gradient")
    assert list(found.panels) == ["gradient"]
    assert found.panels["gradient"].cell.width == 800
    assert found.height > 400


@pytest.mark.parametrize(("panels", "said"), [
    (("cost", "costs"), "panels must be names of cost, magnitudes, over_time, accuracy, gradient, ratio, stability, "
                        "signals, loss_scale, got 'costs'; did you mean 'cost'?"),
    ("costs", "panels must be names of .*, got 'costs'; did you mean 'cost'?"),
    ((3,), "panels must be names of .*, got 3$"),
    ((), r"panels must be one or more names of .*, each once, got \(\)$"),
    (("cost", "cost"), "panels must be one or more names of .*, each once, got"),
])  # fmt: skip
def test_a_name_that_is_no_plot_s_is_refused_in_a_sentence(panels, said):
    with pytest.raises(ValueError, match=said):
        draw_dashboard(record_of([1.0]), 20, panels=panels)


def test_a_focus_that_is_no_plot_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"focus must be one of cost, .*, got 'ratios'; did you mean 'ratio'\?"):
        draw_dashboard(record_of([1.0]), 20, focus="ratios")


def test_hidden_plots_keep_the_numbers_of_their_axes_and_show_nothing():
    whole, some = (draw_dashboard(WILD, 20, panels=names) for names in (None, ("ratio", "cost")))
    assert [(trace.name, trace.yaxis) for trace in whole.data] == [(trace.name, trace.yaxis) for trace in some.data]
    visible = {trace.name.split()[0] for trace in some.data if trace.visible}
    assert visible == {"ghosts", "branch", "cost", "lone", "ghost", "ratio"}
    assert [strip_tags(note.text) for note in some.layout.annotations] == [
        "Update/weight  healthy: 10-3", "Cost", "NaN", "inf",
    ]  # fmt: skip
    assert len(some.layout.shapes) == 3, "two lanes of NaN and inf, and one band"
    assert some.layout.yaxis5.visible is some.layout.xaxis5.visible is False
    assert some.layout.yaxis6.visible is None
    assert all(trace.visible for trace in whole.data)


def test_nothing_is_drawn_of_hidden_plots():
    names = [trace.name for trace in draw_dashboard(WILD, 20).data]
    recorder = FigureRecorder(names)
    panels = arrange_panels(800, 1, ("cost",)).panels
    wanted = refresh_dashboard(recorder, WILD, (), 20, panels=panels)
    told = {trace.name for trace in recorder.data if trace}
    assert told == {name for name in names if "cost" in name or name.startswith(("ghost", "branch"))}
    assert set(wanted) == {"xaxis", "yaxis"}


def test_the_page_is_told_the_name_title_help_link_and_box_of_every_panel():
    figure = draw_dashboard(record_of([1.0]), 20, width=1500)
    told = {panel["name"]: panel for panel in figure.layout.meta["panels"]}
    assert list(told) == list(PLOTS)
    assert told["cost"]["box"][:2] == [0, 0]
    assert told["over_time"]["title"] == "Weight magnitudes over time"
    for name, panel in told.items():
        axis = figure.layout["yaxis" + ("" if name == "cost" else str(list(PLOTS).index(name) + 1))]
        left, top, width, height = panel["plot"]
        assert axis.domain[1] * figure.layout.height == pytest.approx(figure.layout.height - top, abs=0.1)
        box = panel["box"]
        assert box[0] <= left
        assert left + width <= box[0] + box[2]
        assert top + height <= box[1] + box[3]


@pytest.mark.parametrize("name", list_plots())
def test_every_plot_has_a_help_of_two_sentences_and_a_lab_that_there_is(name):
    plot = find_plot(name)
    sentences = re.findall(r"[A-Zλ][^.]*(?:\.\d[^.]*)*\.(?=\s|$)", plot.help)
    assert len(sentences) == 2
    assert " ".join(sentences) == plot.help
    assert re.search(r"\w+\.ipynb$", plot.link), "the page makes the name of the lab of it"
    assert (ROOT / plot.link).is_file()


def test_a_key_is_left_out_where_there_is_no_room_and_a_title_is_short():
    def titles(width):
        return [strip_tags(note.text) for note in draw_dashboard(record_of([1.0]), 20, width=width).layout.annotations]

    assert "Weight magnitudes over time  ■ many  ■ few  ■ NaN" in titles(1900)
    assert "Weights over time  ■ many  ■ few  ■ NaN" in titles(1080)
    assert "Weights over time" in titles(580)
    assert "Update/weight" in titles(720)
    assert "Update/weight  healthy: 10-3" in titles(1900)


def test_a_long_name_of_a_layer_is_cut_to_its_room():
    wide = draw_dashboard(record_of([1.0], layers=("MMMMMMMMM", "x" * 40, "conv1")), 20)
    labels = [strip_tags(text) for text in wide.layout.yaxis2.ticktext]
    assert labels[2] == "conv1"
    assert all(label.startswith("…") and len(label) > 4 for label in labels[:2])
    assert all(measure_text(label, TICK_SIZE) <= 66 for label in labels)


@pytest.mark.parametrize("width", [320, 560, 840, 1900])
def test_tick_labels_of_powers_have_room_side_by_side(width):
    panels = arrange_panels(width).panels
    axis = find_ranges(WILD, (), 20, panels=panels)["xaxis2"]
    apart = np.diff(axis["tickvals"]).min() / np.diff(axis["range"])[0] * panels["magnitudes"].plot.width
    assert len(axis["tickvals"]) >= 3
    assert apart >= 34


@pytest.mark.parametrize(("width", "panels"), [(320, None), (580, None), (1900, None), (580, ("stability", "cost"))])
def test_tick_labels_above_each_other_have_room(width, panels):
    found = arrange_panels(width, 1, panels).panels
    ranges = find_ranges(WILD, (), 20, panels=found)
    for name, axis in (("cost", "yaxis"), ("stability", "yaxis7")):
        low, high = ranges[axis]["range"]
        assert ranges[axis]["dtick"] / (high - low) * found[name].plot.height >= 13


def test_a_new_width_is_a_new_layout_that_leaves_ranges_alone():
    figure = draw_dashboard(WILD, 20, width=580)
    before = figure.layout.yaxis.range
    figure.update_layout(make_layout(WILD.layers, arrange_panels(1900)))
    assert figure.layout.width == 1900
    assert figure.layout.yaxis.range == before
    assert isinstance(figure, go.Figure)
