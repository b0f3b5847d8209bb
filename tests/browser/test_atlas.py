"""The map of trainability in a real JupyterLab: it fills in, a red cell opens as a run that explodes, a box zooms."""

import pytest
from jupyter_page import LONG, until

from cnnlab.plots.map import VIEWS

pytestmark = pytest.mark.timeout(600)
SMALL = "channels=8, hidden=(64, 32), patch_size=14"
ATLAS = f"""import cnnlab
atlas = cnnlab.Atlas("question", learning_rate=[1e-4, 1e-2, 1], init_scale=[0.3, 1, 3], steps=12, {SMALL})"""
PLACE = """(graph, [column, row]) => {
    const box = graph.getBoundingClientRect();
    const {xaxis, yaxis} = graph._fullLayout;
    return [box.left + xaxis._offset + xaxis.l2p(column), box.top + yaxis._offset + yaxis.l2p(row)];
}"""
"""Where a place on the map lies on the page."""

QUICK_CLICK = """(graph, [from, to]) => {
    const send = (type, [clientX, clientY]) => document.elementFromPoint(clientX, clientY).dispatchEvent(
        new MouseEvent(type, { clientX, clientY, bubbles: true, cancelable: true, view: window }));
    send("mousemove", from);
    for (const type of ["mousemove", "mousedown", "mouseup"]) send(type, to);
}"""
"""The pointer rests on one place and clicks on another, within less than 50 ms."""


def shown(notebook, index=0):
    """The first figure of a cell, when it is there."""
    figure = notebook.output(index).locator(".js-plotly-plot").first
    figure.wait_for(timeout=LONG)
    until(lambda: figure.evaluate("graph => !!graph._fullLayout && graph.data.length > 0"), "a figure")
    notebook.output(index).get_by_role("button", name="Start", exact=True).scroll_into_view_if_needed()
    return figure


def press(notebook, name):
    """Press a button of the board."""
    notebook.output().get_by_role("button", name=name, exact=True).click()


def filled(figure):
    """How many cells of the map have a colour of their own: 0 is that of cells that are not computed."""
    return figure.evaluate("graph => graph.data[0].z.flat().filter((value) => value !== null && value > 0).length")


def picture(notebook, name):
    """Keep a picture of the page, where one is asked for."""
    import os
    from pathlib import Path

    if directory := os.environ.get("CNNLAB_SCREENSHOTS"):
        Path(directory).mkdir(parents=True, exist_ok=True)
        notebook.page.screenshot(path=Path(directory) / f"{name}.png")


def wait_for_end(notebook):
    """Wait until the board has computed all; if it never does, say what it says."""
    state = "board.survey.done == board.survey.total and not board.computing, board.words.value"
    said = []
    try:
        until(lambda: said.append(notebook.value(state)) or said[-1][0], "the end", 120)
    except AssertionError as error:
        raise AssertionError(f"{error}: {said[-1][1]}, {notebook.errors}") from None


@pytest.fixture
def map_notebook(open_notebook):
    """A notebook with an atlas that is not computed yet."""
    notebook = open_notebook(ATLAS)
    notebook.run()
    yield notebook
    notebook.do("atlas.close()")


def test_a_map_fills_in_and_a_click_on_a_red_cell_opens_a_run_that_explodes(map_notebook):
    notebook = map_notebook
    figure = shown(notebook)
    assert filled(figure) == 0
    assert notebook.value("atlas.computing") is False
    press(notebook, "Start")
    until(lambda: filled(figure) == 9, "the whole map", 120)
    until(lambda: "9 of 9 runs" in notebook.output().inner_text(), "the words")
    notebook.page.mouse.move(*figure.evaluate(PLACE, [1, 1]))
    figure.locator(".hoverlayer .hovertext").first.wait_for()
    assert "Learning rate" in figure.inner_text() or "learning_rate 0.01" in figure.inner_text()
    picture(notebook, "atlas")
    assert notebook.value("str(atlas.map.labels[2, 2, 0])") == "diverged"
    notebook.page.mouse.click(*figure.evaluate(PLACE, [2, 2]))
    until(lambda: notebook.value("atlas.lab is not None"), "the run")
    lab = notebook.output().locator(".cnnlab-lab")
    lab.wait_for(timeout=LONG)
    until(lambda: "NaN" in lab.locator(".cnnlab-line").inner_text(), "the explosion", 60)
    assert notebook.value("atlas.lab.record.settings == atlas.map.settings_at(2, 2, 0)")
    assert notebook.value("atlas.lab.record.first_nonfinite == int(atlas.map.first_nonfinite[2, 2, 0])")
    lab.scroll_into_view_if_needed()
    picture(notebook, "atlas-opened")
    assert not notebook.errors


def test_a_click_opens_the_cell_under_the_pointer_however_quickly_it_came_there(map_notebook):
    notebook = map_notebook
    figure = shown(notebook)
    places = [figure.evaluate(PLACE, where) for where in ([1, 1], [1.7, 2.3])]
    figure.evaluate(QUICK_CLICK, places)
    until(lambda: notebook.value("atlas.cell"), "the run")
    assert notebook.value("atlas.cell") == (2, 2)
    notebook.output().locator(".cnnlab-lab").wait_for(timeout=LONG)
    assert not notebook.errors


def test_a_box_drawn_on_the_map_is_computed_finer_and_left_again(map_notebook):
    notebook = map_notebook
    figure = shown(notebook)
    start, end = figure.evaluate(PLACE, [0.45, 0.45]), figure.evaluate(PLACE, [2.45, 1.55])
    notebook.page.mouse.move(*start)
    notebook.page.mouse.down()
    notebook.page.mouse.move(*end, steps=8)
    notebook.page.mouse.up()
    until(lambda: notebook.value("len(atlas.outer)") == 1, "the zoom")
    until(lambda: filled(figure) == 9, "the finer map", 120)
    rates = notebook.value("atlas.map.axes[0][1]")
    assert rates[0] == pytest.approx(10 ** (2 * (0.45 + 1 / 3) - 4), rel=0.1)  # the first of three cells of the box
    assert rates[-1] == 1.0
    picture(notebook, "atlas-zoomed")
    press(notebook, "Zoom out")
    until(lambda: notebook.value("len(atlas.outer)") == 0, "the whole map")
    assert notebook.value("atlas.map.axes[0][1]") == (1e-4, 1e-2, 1.0)
    assert not notebook.errors


def test_a_map_is_paused_goes_on_and_is_cancelled(open_notebook):
    notebook = open_notebook(ATLAS.replace("steps=12", "steps=150, seeds=8"))
    notebook.run()
    shown(notebook)
    press(notebook, "Start")
    press(notebook, "Pause")
    until(lambda: "paused" in notebook.output().inner_text(), "the pause")
    press(notebook, "Go on")
    until(lambda: "left" in notebook.output().inner_text(), "the time left", 120)
    press(notebook, "Cancel")
    until(lambda: notebook.value("atlas.computing") is False, "the end", 60)
    assert 0 < notebook.value("int(atlas.map.done.sum())") < 72
    notebook.do("atlas.close()")


@pytest.mark.parametrize("made", ["Fan(seeds=12, learning_rate=1e-2, ", "Remedies("], ids=["fan", "remedies"])
def test_the_fan_and_the_remedies_fill_in(open_notebook, made):
    notebook = open_notebook(f"import cnnlab\nboard = cnnlab.{made}steps=10, {SMALL})")
    notebook.run()
    figure = shown(notebook)
    press(notebook, "Start")
    wait_for_end(notebook)
    words = "12 diverged" if made.startswith("Fan") else "NaN or infinite at update"
    until(lambda: words in figure.inner_text(), "the verdict")
    picture(notebook, made.partition("(")[0].lower())
    assert not notebook.errors
    notebook.do("board.close()")


def test_nothing_beside_show_is_cut_off_where_the_file_browser_takes_its_share_of_the_page(open_notebook):
    notebook = open_notebook(ATLAS, size=(1000, 800))
    notebook.run()
    shown(notebook)
    board = notebook.output().locator(".cnnlab-board")
    edge = board.evaluate("it => it.getBoundingClientRect().right")
    for view in VIEWS:
        notebook.do(f"atlas.choice.value = {view!r}; atlas.draw()")
        for name in ("Start", "Cancel", "Zoom out"):
            button = board.get_by_role("button", name=name, exact=True)
            assert button.evaluate("it => it.scrollWidth <= it.clientWidth"), (view, name)
            assert button.evaluate("it => it.getBoundingClientRect().right") <= edge
        words = board.locator(".widget-html-content, .jp-HTMLWidget").last
        assert words.evaluate("it => it.getBoundingClientRect().right") <= edge, view
    plots = board.locator(".main-svg").first
    until(lambda: plots.evaluate("it => it.getBoundingClientRect().right") <= edge, "the width of the page")
    picture(notebook, "atlas-show")
    notebook.do("atlas.close()")
