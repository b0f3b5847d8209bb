"""What moves while a run trains looks as plotly draws it at rest, zoomed or not."""

import io

import numpy as np
import pytest
from jupyter_page import until
from PIL import Image

FRAME = """
import numpy as np
from cnnlab.plots.recorder import FigureRecorder
lab.step(20)
def push(moving, marks=20):
    figure = lab.widgets.figure
    drawn = FigureRecorder(figure.names)
    traces = {trace.name: trace for trace in drawn.data}
    x = np.arange(1, 21, dtype=np.float32)
    holes = np.exp(2 * np.sin(x))
    holes[[4, 5, 6, 12, 14]] = np.nan, np.inf, np.inf, np.nan, np.nan
    traces["ghosts"].update(x=x, y=holes * 1e6)
    traces["branch 0"].update(x=x, y=holes * 1e12, line={"color": "#117733"})
    traces["lone costs"].update(x=x, y=np.full(20, 1e18), marker={"color": ["#117733", "#222222"] * 10})
    symbols = ["x", "triangle-up", "triangle-down", "square"] * 5
    traces["cost marks"].update(
        x=x[:marks], y=np.tile(np.float32([0.98, 0.9, 0.02, 0.3]), 5)[:marks], marker={"symbol": symbols[:marks]}
    )
    traces["held out"].update(x=x[::4], y=np.array([0.2, 0.9, np.nan, 0.4, 0.7]))
    crowded = np.random.default_rng(0)
    traces["accuracy"].update(x=np.linspace(0, 20, 80), y=crowded.random(80))
    traces["sharpness"].update(x=x[:9], y=holes[:9] * 1500)
    figure.take(drawn, moving=moving)
"""
"""A run with NaN in every plot, and a frame of it: holes, marks of each kind, a crowded curve, dashes, ridges."""
BOXES = """graph => {
    return graph.layout.meta.panels.map(({ name, box }) => [name, box.map(Math.round)]);
}"""
NEAR = 60
"""Levels of a colour, of 255, by which pixels may differ that are taken to be the same."""
STRAY = 8
"""Most pixels of a plot that may differ: none did, and the smallest mark has 16."""


def see(lab):
    """The figure as it is on the screen."""
    return np.asarray(Image.open(io.BytesIO(lab.figure.screenshot())).convert("RGB")).astype(int)


def count_unlike(one, other):
    """The pixels of one picture that the other has neither at their place nor next to it."""
    height, width, _ = one.shape
    around = np.pad(other, ((1, 1), (1, 1), (0, 0)), mode="edge")
    shifted = [around[down : down + height, right : right + width] for down in range(3) for right in range(3)]
    return int((np.min([np.abs(one - each).max(axis=2) for each in shifted], axis=0) > NEAR).sum())


def compare(lab, one, other):
    """Plot -> the pixels in which two pictures of the figure differ."""
    found = {}
    for name, (left, top, width, height) in lab.figure.evaluate(BOXES):
        parts = [picture[top : top + height, left : left + width] for picture in (one, other)]
        found[name] = count_unlike(*parts) + count_unlike(*reversed(parts))
    return found


def zoom(lab, subplot, across, up):
    """Draw a box in a plot, by shares of its width and height."""
    box = lab.figure.locator(f".nsewdrag[data-subplot='{subplot}']").bounding_box()
    for place, act in enumerate((lab.page.mouse.down, lab.page.mouse.up)):
        lab.page.mouse.move(box["x"] + box["width"] * across[place], box["y"] + box["height"] * up[place], steps=3)
        act()


def leave(lab):
    """Have the pointer leave the plots when plotly has heard where it was: else its label comes a little later."""
    box = lab.figure.locator(".nsewdrag[data-subplot='xy']").bounding_box()
    lab.page.mouse.move(box["x"] + 5, box["y"] + 5)
    lab.page.wait_for_timeout(200)
    lab.page.mouse.move(2, 2)


def moving(lab):
    """Whether the canvases are shown."""
    return lab.area.locator(".cnnlab-moving").count() == 1


@pytest.fixture
def frozen(notebook, lab):
    """A lab that shows what is pushed, over a run that has exploded."""
    notebook.do("import cnnlab\nother = cnnlab.Run('question', seed=3)\nother.advance(9)")
    lab = lab("'question', learning_rate=1e-3, seed=23, autosave=False, beside=other")
    notebook.do(FRAME)
    until(lambda: notebook.value("not lab.worker.thread.alive"), "the curvature")
    lab.figure.scroll_into_view_if_needed()
    lab.wait_until_drawn()
    notebook.do("lab.publisher.close()")  # no frame comes of itself
    lab.page.mouse.move(2, 2)
    return lab


def settle(lab):
    """What the page shows when it changes no more."""
    pictures = [see(lab)]

    def is_still():
        lab.page.wait_for_timeout(150)
        pictures.append(see(lab))
        return np.array_equal(*pictures[-2:])

    until(is_still, "a picture that stays")
    return pictures[-1]


def show(lab, arguments):
    """What the page shows of a frame when it has been drawn."""
    before = lab.notebook.value("lab.widgets.figure.spec['message']")
    lab.notebook.do(f"push({arguments})")
    assert lab.notebook.value("lab.widgets.figure.spec['message']") > before
    until(lambda: moving(lab) == arguments.startswith("True"), "the frame")
    return settle(lab)


def test_what_moves_looks_as_plotly_draws_it_and_follows_a_zoom(notebook, frozen):
    less, canvases = show(frozen, "True, 19"), show(frozen, "True")
    plotly = show(frozen, "False")
    apart = compare(frozen, canvases, plotly)
    assert max(apart.values()) <= STRAY, apart
    assert compare(frozen, less, plotly)["cost"] > STRAY, "a mark that is missing is seen"
    for shift in ((2, 0), (0, 2)):
        shifted = compare(frozen, np.roll(canvases, shift, axis=(0, 1)), plotly)
        assert min(shifted.values()) > 10 * STRAY, "what lies two pixels off is seen"
    show(frozen, "True, 19")
    for subplot in ("xy", "x4y4"):
        zoom(frozen, subplot, (0.2, 0.7), (0.2, 0.8))
    leave(frozen)
    followed = ("cost", "accuracy")
    until(
        lambda: min(compare(frozen, see(frozen), canvases)[name] for name in followed) > 10 * STRAY,
        "the canvases to follow",
    )
    zoomed, before = settle(frozen), frozen.axis("yaxis")
    assert moving(frozen)
    assert compare(frozen, zoomed, canvases)["cost"] > 10 * STRAY
    apart = compare(frozen, zoomed, show(frozen, "False, 19"))
    assert max(apart.values()) <= STRAY, apart
    assert frozen.axis("yaxis") == before
    show(frozen, "True")
    for subplot in ("xy", "x4y4"):
        frozen.figure.locator(f".nsewdrag[data-subplot='{subplot}']").dblclick()
    leave(frozen)
    apart = compare(frozen, settle(frozen), plotly)
    assert max(apart.values()) <= STRAY, apart
    assert notebook.errors == []
