"""What a notebook keeps of a dashboard: a picture beside the widget, for who opens it without a kernel."""

import base64
import html
import math

import IPython.display
import nbformat
import pytest
from nbconvert import HTMLExporter

import cnnlab
from cnnlab.dashboards import cell
from cnnlab.dashboards.saved_picture import MOST, SavedPicture, make_page
from cnnlab.plots.still import draw_still

TINY = {"channels": 3, "hidden": (6, 6), "patch_size": 13, "patches": 10, "learning_rate": 10.0}
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def outputs(monkeypatch):
    """The outputs of a cell as a notebook keeps them: those with a display id are renewed in place."""
    kept = []

    def display(data, raw, display_id=None):
        kept.append((display_id, data))

    def update_display(data, raw, display_id):
        kept[:] = [(name, data if name == display_id else shown) for name, shown in kept]

    monkeypatch.setattr(cell, "get_shell", lambda: object())
    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(IPython.display, "update_display", update_display)
    return kept


def read_svg(page):
    """The SVG within the HTML of a picture."""
    return base64.b64decode(page.partition("svg+xml;base64,")[2].partition('"')[0]).decode()


def test_a_paused_lab_leaves_a_picture_right_below_it_that_is_renewed_in_place(outputs):
    lab = cnnlab.Lab()
    assert [WIDGET in data for _, data in outputs] == [True, False]
    assert "<img" not in outputs[1][1]["text/html"]
    for updates in (2, 6):
        lab.step(updates - len(lab.record))
        page = outputs[1][1]["text/html"]
        assert f"<p>The lab as it was at update {updates}. Run this cell for a live one.</p>" in page
    lab.close()
    assert len(outputs) == 2
    assert 'alt="Cost by update. cost is NaN since update 4' in page
    assert "cost is NaN since update 4" in read_svg(page)
    assert len(page) < 100_000


def test_a_lab_that_is_closed_leaves_its_last_update(outputs):
    lab = cnnlab.Lab()
    lab.play(3)
    assert lab.worker.wait(60)
    assert "<img" not in outputs[1][1]["text/html"]
    lab.close()
    assert "The lab as it was at update 3." in outputs[1][1]["text/html"]


def test_a_picture_says_what_the_header_says_and_nothing_that_the_lab_hides(outputs):
    lab = cnnlab.Lab(hints=False)
    lab.step(2)
    hidden, said = lab.widgets.header.state["line"], outputs[1][1]["text/html"]
    lab.show_forecast()
    shown, told = lab.widgets.header.state["line"], outputs[1][1]["text/html"]
    lab.close()
    assert hidden != shown
    assert html.escape(f"Cost by update. {hidden}") in said
    assert html.escape(f"Cost by update. {shown}") in told


def test_a_lab_outside_a_notebook_draws_no_picture(monkeypatch):
    monkeypatch.setattr("cnnlab.dashboards.lab.draw_still", lambda *_: pytest.fail("drawn"))
    lab = cnnlab.Lab()
    lab.step()
    lab.close()


def test_a_notebook_converted_to_html_shows_the_picture_and_no_widget(outputs):
    lab = cnnlab.Lab()
    lab.step(2)
    lab.close()
    made = [nbformat.v4.new_output("display_data", data) for _, data in outputs]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("lab = cnnlab.Lab()", outputs=made)])
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert "data:image/svg+xml;base64," in page
    assert "The lab as it was at update 2." in page
    assert "VBox(" not in page


def test_an_atlas_leaves_its_name(outputs):
    atlas = cnnlab.Atlas(learning_rate=[1e-3, 1e-2], steps=2)
    atlas.close()
    assert "<p>Atlas(" in outputs[1][1]["text/html"]


@pytest.mark.parametrize(
    "picture",
    ["javascript:alert(1)", 'data:image/png;base64,AAAA" onerror="x', f"data:image/png;base64,{'A' * MOST}"],
    ids=["address", "attribute", "size"],
)
def test_what_is_no_small_picture_is_refused(picture):
    with pytest.raises(ValueError, match="picture must be data:image/"):
        make_page("The lab.", picture)


def test_words_are_written_as_words():
    page = make_page("a < b", "data:image/png;base64,AAAA", '"quoted" <i>')
    assert 'alt="&quot;quoted&quot; &lt;i&gt;"' in page
    assert "<p>a &lt; b Run" in page


def test_a_picture_that_was_never_shown_is_not_renewed(outputs):
    SavedPicture().renew("The lab.")
    assert outputs == []


@pytest.mark.parametrize("updates", [1, 5, 200])
def test_a_still_marks_each_cost_that_is_nan_and_holds_no_nan_as_a_place(updates):
    run = cnnlab.Run("question", **TINY)
    run.advance(updates)
    svg = draw_still(run.record, "a < b")
    lost = sum(math.isnan(cost) for cost in run.record.cost)
    assert lost - 1 <= svg.count(">×</text>") * math.ceil(updates / 160) <= lost + 1
    assert "a &lt; b" in svg
    assert "nan" not in svg.replace("NaN ×", "")
    assert len(svg) < 40_000
