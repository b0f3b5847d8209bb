"""The dashboard beside a loop of one's own, and an image of one's own, in a real JupyterLab."""

import io

import numpy as np
import pytest
from jupyter_page import until
from PIL import Image

LOOP = """import torch
from torch import nn
import cnnlab
torch.manual_seed(0)
model = nn.Sequential(*(part for _ in range(20) for part in (nn.Linear(64, 64), nn.ReLU())), nn.Linear(64, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
x, y = torch.randn(256, 64), torch.arange(256) % 3
with cnnlab.watch(model, optimizer) as watch:
    for _ in range(100_000):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
"""
THREAD = """import threading
watch = cnnlab.watch(model, optimizer)
def train():
    with watch:
        for _ in range(100_000):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
threading.Thread(target=train).start()
"""
"""The end of the same program, with the loop in a thread."""


@pytest.fixture
def figure(open_notebook):
    """A notebook whose cell trains without end, and the figure beside the loop."""
    notebook = open_notebook(LOOP)
    notebook.edit(0)
    # Not waited for: the cell runs until it is paused.
    notebook.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell'); }")
    figure = notebook.output().locator(".js-plotly-plot")
    figure.wait_for(timeout=60_000)
    return notebook, figure


DRAWN = """graph => {
    const canvas = graph.parentElement.querySelector("canvas[data-plot=x]");
    if (!canvas?.width) return 0;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const [, update] = graph.closest(".cnnlab-watch").innerText.match(/\\(update (\\d+), /) ?? [];
    return data.some((level, place) => place % 4 === 3 && level > 0) ? Number(update) : 0;
}"""


def points(figure) -> int:
    """The update that is shown, where a curve of the cost is drawn; else 0."""
    return figure.evaluate(DRAWN)


def test_the_dashboard_draws_while_the_cell_trains_and_an_interrupt_pauses_it(figure):
    notebook, plots = figure
    until(lambda: points(plots) > 10, "a curve beside the running cell")
    seen = points(plots)
    until(lambda: points(plots) > seen + 10, "a curve that grows")
    ridges = plots.evaluate("graph => graph.data.filter((trace) => trace.name.startsWith('magnitudes')).length")
    assert ridges <= 12
    # Frames that came before the figure was on the page have taken no colour away.
    assert plots.evaluate("graph => graph.data.find((trace) => trace.name === 'accuracy').line.color") == "#222222"
    notebook.interrupt()
    box = notebook.output().locator(".cnnlab-watch")
    until(lambda: "paused before update" in box.inner_text(), "the loop to end")
    assert "loop ended" in box.inner_text()
    assert notebook.value("len(watch.record)") > seen
    assert notebook.value("bool(watch.record.first_nonfinite)") is False
    plots.scroll_into_view_if_needed()
    shot(notebook, "watch")


def set_rate(notebook, text: str) -> None:
    """Write a learning rate into its box beside the slider."""
    box = notebook.output().get_by_role("textbox", name="Learning rate, value", exact=True)
    box.fill(text)
    box.press("Enter")


def rates(notebook) -> list[float]:
    """The learning rates of the record, one after the other."""
    return notebook.value("[float(knobs.learning_rate) for _, knobs in watch.record.schedule]")


def test_a_slider_steers_a_loop_in_a_thread_and_a_bad_value_is_refused_in_a_sentence(open_notebook):
    notebook = open_notebook(LOOP.partition("with cnnlab")[0] + THREAD)
    notebook.run(0)
    box, plots = notebook.output().locator(".cnnlab-watch"), notebook.output().locator(".js-plotly-plot")
    plots.wait_for(timeout=60_000)
    until(lambda: points(plots) > 10, "a curve")
    assert "a thread" not in box.inner_text()
    set_rate(notebook, "-1")
    until(lambda: "learning_rate must lie in (0, 1e6], got -1" in box.inner_text(), "the refusal")
    set_rate(notebook, "1e-2")
    until(lambda: rates(notebook) == [1e-3, 1e-2], "the rate to be in force")
    until(lambda: "until Let go" in box.inner_text(), "the dashboard to say so")
    assert "must lie in" not in box.inner_text()
    slider = notebook.output().get_by_role("slider", name="Learning rate", exact=True)
    before = len(rates(notebook))
    slider.press("ArrowLeft")
    until(lambda: len(rates(notebook)) > before and rates(notebook)[-1] == 0.00891, "the slider to act")
    box.get_by_role("button", name="Let go").click()
    until(lambda: notebook.value("watch.steering.held") == {}, "the loop to be let go")
    shot(notebook, "steering")
    box.get_by_role("button", name="Pause").click()
    until(lambda: "paused before update" in box.inner_text(), "the loop to end")
    assert notebook.errors == []


@pytest.mark.parametrize("made_in", ["cell", "thread"])
def test_the_dashboard_of_a_loop_in_a_thread_stands_below_the_cell_that_began_it(open_notebook, made_in):
    make, begin = "watch = cnnlab.watch(model, optimizer)\n", "    with watch:\n"
    program = "made, begin = threading.Event(), threading.Event()\n" + THREAD.partition(make)[2]
    program = program.replace(begin, f"    made.set()\n    begin.wait()\n{begin}")
    if made_in == "cell":
        program = make + program
    else:
        program = program.replace("def train():\n", f"def train():\n    global watch\n    {make}")
    cell = f"{LOOP.partition('with cnnlab')[0]}import threading\n{program}made.wait()"
    notebook = open_notebook(cell, "begin.set()")
    notebook.run(0)
    notebook.run(1)
    notebook.output(0).locator(".js-plotly-plot").wait_for(timeout=60_000)
    assert notebook.output(1).locator(".cnnlab-watch").count() == 0
    notebook.do("watch.pause()")


def test_where_a_cell_trains_the_dashboard_says_that_nothing_is_steered_and_how_to_go_on(figure):
    notebook, plots = figure
    until(lambda: points(plots) > 10, "a curve beside the running cell")
    box = notebook.output().locator(".cnnlab-watch")
    assert "threading.Thread(target=train).start()" in box.inner_text()
    set_rate(notebook, "1e-2")
    seen = points(plots)
    until(lambda: points(plots) > seen + 10, "a curve that grows")
    notebook.interrupt()
    until(lambda: "paused before update" in box.inner_text(), "the loop to end")
    assert rates(notebook) == [1e-3]
    assert "threading.Thread" not in box.inner_text()


def shot(notebook, name: str) -> None:
    """Keep a picture of the page, where CNNLAB_SCREENSHOTS names a directory."""
    from jupyter_page import Lab

    Lab(notebook, 0).screenshot(name)


def test_an_image_is_uploaded_and_another_file_is_refused_in_a_sentence(open_notebook):
    notebook = open_notebook("import cnnlab\nlab = cnnlab.Lab('question')")
    lab = notebook.lab().unfold()
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    with notebook.page.expect_file_chooser() as chooser:
        lab.area.get_by_role("button", name="Train on an image of your own (PNG or JPEG)").click()
    chooser.value.set_files({"name": "noise.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    until(lambda: notebook.value("lab.settings.image").startswith("own_"), "the image to be taken")
    lab.press("Play")
    lab.wait_for_update(1)
    lab.screenshot("own-image")
    with notebook.page.expect_file_chooser() as chooser:
        lab.area.get_by_role("button", name="Train on an image of your own (PNG or JPEG)").click()
    chooser.value.set_files({"name": "no.png", "mimeType": "image/png", "buffer": b"no image"})
    until(lambda: "image must be a picture" in lab.area.inner_text(), "the sentence")
