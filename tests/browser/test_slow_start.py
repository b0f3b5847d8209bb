"""plotly.js takes a page a second to read: it begins before there is a figure, and frames do not wait for it."""

from jupyter_page import NOT_MADE, Lab, until

HELD = """() => {
    const address = URL.createObjectURL.bind(URL);
    window.read = 0;
    URL.createObjectURL = (blob) => {
        if (blob.size < 1e6) return address(blob);
        window.read += 1;
        const wait = "await new Promise((done) => { window.release = done; });\\n";
        return address(new Blob([wait, blob], { type: blob.type }));
    };
}"""
LATE = """(delay) => {
    const address = URL.createObjectURL.bind(URL);
    URL.createObjectURL = (blob) => {
        if (blob.type !== "text/javascript" || blob.size > 1e6) return address(blob);
        const wait = `await new Promise((done) => setTimeout(done, ${delay}));\\n`;
        return address(new Blob([wait, blob], { type: blob.type }));
    };
}"""
SLOW = """async () => {
    for (const [version, read] of Object.entries(window.cnnlabPlotly)) {
        const plotly = await read;
        const newPlot = async (...all) => {
            const made = await plotly.newPlot(...all);
            await new Promise((done) => { window.release = done; });
            return made;
        };
        window.cnnlabPlotly[version] = Promise.resolve({ ...plotly, newPlot });
    }
}"""
PATIENCE = 2500
"""Milliseconds, more than anywidget waits for a script without a word."""


def test_plotly_is_read_before_there_is_a_figure_and_frames_that_come_before_that_are_drawn_then(open_notebook):
    make = 'lab = Lab("question")\nlab.choose_pace("full")\nlab.play(3)'
    notebook = open_notebook("from cnnlab import Lab", make, own_page=True)
    notebook.page.evaluate(HELD)
    notebook.run(0)
    until(lambda: notebook.page.evaluate("window.read") == 1, "the page to read plotly")
    assert notebook.page.locator(".jp-OutputArea-child").count() == 0
    notebook.run(1)
    until(lambda: notebook.value("len(lab.record)") == 3, "three updates")
    notebook.page.wait_for_timeout(PATIENCE)
    assert notebook.page.locator(".js-plotly-plot").count() == 0
    assert notebook.page.evaluate("window.read") == 1
    notebook.page.evaluate("window.release()")
    lab = Lab(notebook, 1)
    lab.wait_for_figure()
    until(lambda: lab.trace("cost")["x"] == [1, 2, 3], "the frames that came early")
    lab.press("Play")
    lab.wait_for_update(6)
    until(lambda: len(lab.trace("cost")["x"]) >= 6, "the frames that came later")


def test_a_page_that_reads_the_scripts_late_shows_all_that_came_before_and_after(open_notebook):
    make = "lab = cnnlab.Lab('question', learning_rate=1e-5, epochs=100_000)\nlab.step(3)"
    notebook = open_notebook(f"import cnnlab\n{make}", own_page=True)
    notebook.page.evaluate(LATE, PATIENCE)
    notebook.run(0)
    lab = Lab(notebook, 0)
    lab.wait_for_figure()
    until(lambda: lab.trace("cost")["x"] == [1, 2, 3], "the updates before the page had read the scripts")
    lab.press("Play")
    lab.wait_for_update(6)
    lab.press("Pause")
    lab.wait_until_paused()
    until(lambda: lab.trace("cost")["x"][-1] == notebook.value("len(lab.record)"), "the frames that came later")
    patches = lab.area.locator(".cnnlab-patches img")
    before = patches.get_attribute("src")
    notebook.do("import numpy\nlab.set(image=cnnlab.own_image(numpy.eye(64)))")
    until(lambda: patches.get_attribute("src") != before, "other patches")
    assert {error.split(" Error: ")[-1] for error in notebook.errors} <= {NOT_MADE}


def test_what_comes_while_plotly_draws_a_figure_for_the_first_time_is_drawn_then(open_notebook):
    notebook = open_notebook("from cnnlab import Lab", 'lab = Lab("question")', own_page=True)
    notebook.run(0)
    until(lambda: notebook.page.evaluate("!!window.cnnlabPlotly"), "the page to read plotly")
    notebook.page.evaluate(SLOW)
    notebook.run(1)
    until(lambda: notebook.page.evaluate("!!window.release"), "the first drawing")
    notebook.do("lab.step(3)")
    until(lambda: notebook.value("len(lab.record)") == 3, "three updates")
    until(lambda: notebook.value("lab.widgets.figure.spec['moving']") is False, "the last frame")
    notebook.page.wait_for_timeout(500)
    notebook.page.evaluate("window.release()")
    lab = Lab(notebook, 1)
    until(lambda: lab.trace("cost")["x"] == [1, 2, 3], "the frames that came meanwhile")
    assert notebook.errors == []
