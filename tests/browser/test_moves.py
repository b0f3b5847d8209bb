"""What moves while a run trains lies where plotly itself would draw it."""

import pytest
from jupyter_page import Lab, until

GEOMETRY = """() => {
    const graph = document.querySelector(".cnnlab-lab .js-plotly-plot");
    const box = (path) => (({ x, y, width, height }) => [x, y, x + width, y + height])(path.getBBox());
    const all = (paths) => paths.filter((path) => path.getTotalLength() > 0).map(box).reduce((one, other) =>
        [0, 1, 2, 3].map((side) => Math[side < 2 ? "min" : "max"](one?.[side] ?? other[side], other[side])), null);
    const found = {};
    for (const { name, uid, visible } of graph._fullData) {
        const node = visible && graph.querySelector(`.trace${uid}`);
        if (!node) continue;
        found[name] = {
            lines: all([...node.querySelectorAll(".js-line")]),
            length: [...node.querySelectorAll(".js-line")].reduce((sum, line) => sum + line.getTotalLength(), 0),
            fills: all([...node.querySelectorAll(".js-fill")]),
            points: [...node.querySelectorAll(".point")].map((point) =>
                point.getAttribute("transform").match(/[-\\d.]+/g).map(Number)),
        };
    }
    const image = graph.querySelector(".imagelayer .im > image");
    found.picture = ["x", "y", "width", "height"].map((name) => Number(image.getAttribute(name)));
    found.source = image.getAttribute("xlink:href");
    return found;
}"""
PICTURE = "!!document.querySelector('.cnnlab-lab .imagelayer .im > image')"
WHOLE = """
from itertools import product
lab.figure.send_whole({
    ("data", place, name): trace[name] for place, trace in enumerate(lab.figure._data)
    for name in ("x", "y", "source", "x0", "y0", "dx", "dy") if name in trace
}, {})
"""


HOLES = """
import numpy as np
moves = {}
for name in ("cost", "gradient 2", "held out", "magnitudes 3"):
    place, trace = next((place, trace) for place, trace in enumerate(lab.figure._data) if trace["name"] == name)
    y = np.array(trace["y"], dtype=float)
    y[len(y) // 3 : len(y) // 2] = np.nan
    trace["y"] = moves["data", place, "y"] = y
lab.figure.send_moves(moves)
"""


def flat(part):
    """The numbers of a part of what GEOMETRY gives."""
    return [number for point in part for number in (point if isinstance(point, list) else [point])] if part else []


LEFT_OUT = 0.75
"""Pixels from its line within which plotly leaves out a point of a curve (`baseTolerance` in its scatter traces)."""


def assert_plotly_draws_the_same(notebook, lengths):
    """That the page looks the same when plotly has drawn what the kernel has; `lengths` of curves included.

    Plotly leaves out points within a pixel of others, so a crowded curve of its is shorter.
    """
    moved = notebook.page.evaluate(GEOMETRY)
    notebook.page.evaluate("""() => {
        window.whole = 0;
        document.querySelector(".js-plotly-plot").on("plotly_afterplot", () => (window.whole += 1));
    }""")
    notebook.do(WHOLE)
    until(lambda: notebook.page.evaluate("window.whole") > 0, "plotly to draw the same anew")
    drawn = notebook.page.evaluate(GEOMETRY)
    assert moved.pop("picture") == drawn.pop("picture")
    assert moved.pop("source") == drawn.pop("source")
    assert moved.keys() == drawn.keys()
    assert {"cost", "held out", "magnitudes 0", "gradient 0", "ratio 8"} <= moved.keys()
    for name, parts in moved.items():
        length = parts.pop("length")
        assert length == pytest.approx(drawn[name].pop("length"), rel=0.05) or not lengths, name
        for part, place in parts.items():
            near = LEFT_OUT if part == "lines" else 0.3
            assert flat(place) == pytest.approx(flat(drawn[name][part]), abs=near), (name, part)


@pytest.fixture
def lab_at_update(open_notebook):
    """A lab that has trained so far at twenty updates a second, from which no more frames come."""

    def made(update, epochs):
        notebook = open_notebook("import cnnlab", f'lab = cnnlab.Lab("question", learning_rate=1e-5, epochs={epochs})')
        notebook.run(0)
        notebook.run(1)
        lab = Lab(notebook, 1)
        lab.wait_for_figure()
        notebook.do('lab.choose_pace("20")')
        lab.press("Play")
        lab.wait_for_update(update)
        until(lambda: notebook.page.evaluate(PICTURE), "the picture, which comes seldom while the machine is busy")
        notebook.do("lab.worker.ask_for_next = lambda: None")
        notebook.page.wait_for_timeout(1500)  # for the frame that is on its way
        return notebook

    return made


def test_what_has_moved_lies_where_plotly_would_draw_it(lab_at_update):
    notebook = lab_at_update(80, epochs=2000)  # well past 60, where the axes double and all is drawn anew
    frame = notebook.value("lab.publisher.frame")
    assert notebook.value("len(lab.figure._moved)") > 40
    assert_plotly_draws_the_same(notebook, lengths=False)
    assert notebook.value("lab.publisher.frame") == frame


def test_where_numbers_are_missing_a_curve_has_a_hole_and_no_marker(lab_at_update):
    notebook = lab_at_update(80, epochs=400)
    before = notebook.page.evaluate(GEOMETRY)
    notebook.do(HOLES)
    until(lambda: notebook.page.evaluate(GEOMETRY) != before, "the holes")
    after = notebook.page.evaluate(GEOMETRY)
    assert after["cost"]["length"] < 0.95 * before["cost"]["length"]
    assert len(after["held out"]["points"]) < len(before["held out"]["points"])
    assert_plotly_draws_the_same(notebook, lengths=True)
