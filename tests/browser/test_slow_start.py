"""A machine on which plotly takes longer to be read than anywidget has patience for: two seconds."""

from jupyter_page import Lab, until

SLOW = """() => {
    const address = URL.createObjectURL.bind(URL);
    window.slowed = 0;
    URL.createObjectURL = (blob) => {
        if (blob.size < 1e6) return address(blob);
        window.slowed += 1;
        const wait = "await new Promise((done) => setTimeout(done, 4000));\\n";
        return address(new Blob([wait, blob], { type: blob.type }));
    };
}"""


def test_frames_that_come_before_plotly_is_read_are_drawn_when_it_is(open_notebook):
    notebook = open_notebook(
        'import cnnlab\nlab = cnnlab.Lab("question")\nlab.choose_pace("full")\nlab.play(3)', own_page=True
    )
    notebook.page.evaluate(SLOW)
    notebook.run()
    until(lambda: notebook.value("len(lab.record)") == 3, "three updates")
    assert notebook.page.locator(".js-plotly-plot").count() == 0
    assert notebook.page.evaluate("window.slowed") == 1
    lab = Lab(notebook, 0)
    lab.wait_for_figure()
    until(lambda: lab.trace("cost")["x"] == [1, 2, 3], "the frames that came early")
    lab.press("Play")
    lab.wait_for_update(6)
    until(lambda: len(lab.trace("cost")["x"]) >= 6, "the frames that came later")
