"""A page that is reloaded, a second tab, plots out of sight: the figure is there and alive, and nothing complains."""

from jupyter_page import Lab, until

LAB = "import cnnlab\nlab = cnnlab.Lab('question', learning_rate=1e-5, epochs=100_000, autosave=False)\nlab.play()"
HIDE = """hidden => {
    Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
    window.frameOnScreen ??= window.requestAnimationFrame;
    window.requestAnimationFrame = hidden ? () => 0 : window.frameOnScreen;
    document.dispatchEvent(new Event("visibilitychange"));
}"""
INK = """graph => [...graph.parentElement.querySelectorAll("canvas")].map((canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let sum = 0;
    for (let place = 3; place < data.length; place += 4) sum = (31 * sum + data[place]) % 1e9;
    return sum;
})"""
"""What the canvases show, as a number each."""


def assert_alive(lab):
    """That what the canvases of a page show changes."""
    lab.wait_for_figure()
    until(lambda: lab.area.locator(".cnnlab-moving").count() == 1 and any(lab.figure.evaluate(INK)), "a frame")
    before = lab.figure.evaluate(INK)
    until(lambda: lab.figure.evaluate(INK) != before, "another frame")


def frames(notebook):
    """Frames drawn, answers heard of, updates made, and whether the run trains, so far."""
    return notebook.value("lab.publisher.frame, lab.publisher.drawn_last, len(lab.record), lab.worker.training")


def assert_still(notebook):
    """That no frame is drawn while training and answers go on, longer than a silent page is waited for."""
    until(lambda: not notebook.value("lab.publisher.plots_seen"), "the kernel to hear that nobody looks")
    before = frames(notebook)
    until(lambda: frames(notebook)[1] >= before[1] + 4, "four answers")
    after = frames(notebook)
    assert after[0] == before[0], "frames are drawn that nobody sees"
    assert after[2] > before[2]
    assert after[3]


def test_a_page_reloaded_a_second_tab_and_plots_out_of_sight(open_notebook):
    notebook = open_notebook(LAB, "1\n" * 60, own_page=True)
    lab = notebook.lab()
    notebook.do("publisher = cnnlab.dashboards.frame_publisher; publisher.GONE = 1.5")
    notebook.do("publisher.UNSEEN = publisher.ASKING = 0.5")
    assert_alive(lab)
    notebook.page.evaluate(HIDE, True)
    assert_still(notebook)
    notebook.page.evaluate(HIDE, False)
    assert_alive(lab)
    notebook.cell(1).locator(".cm-line").last.scroll_into_view_if_needed()
    assert_still(notebook)
    lab.line.scroll_into_view_if_needed()
    assert_alive(lab)
    notebook.do("publisher.GONE = 30")
    notebook.save()
    first = notebook.page
    notebook.open()  # a second tab; the first one stays
    second = Lab(notebook, 0)
    assert_alive(second)
    assert_alive(lab)
    first.evaluate(HIDE, True)
    assert_alive(second)
    first.close()
    notebook.page.reload()
    notebook.page.wait_for_function("window.jupyterapp && window.jupyterapp.restored.then(() => true)")
    reloaded = Lab(notebook, 0)
    reloaded.area.wait_for()
    assert_alive(reloaded)
    reloaded.press("Pause")
    reloaded.wait_until_paused()
    reloaded.wait_until_drawn()
    assert reloaded.trace("cost")["x"][-1] == notebook.value("len(lab.record)")
    assert notebook.errors == []
