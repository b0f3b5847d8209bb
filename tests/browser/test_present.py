"""For the projector: little is shown, all of it large, and keys do what a teacher needs."""

from jupyter_page import until

SIZES = """box => {
    const found = [];
    const walk = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
    for (let text = walk.nextNode(); text; text = walk.nextNode()) {
        const it = text.parentElement, at = it.getBoundingClientRect();
        if (!text.textContent.trim() || !at.width || !it.checkVisibility({visibilityProperty: true})) continue;
        found.push([parseFloat(getComputedStyle(it).fontSize), text.textContent]);
    }
    for (const it of box.querySelectorAll("input, select")) {
        if (!it.checkVisibility() || it.type === "range") continue;
        found.push([parseFloat(getComputedStyle(it).fontSize), it.value]);
    }
    return found.sort(([one], [other]) => one - other).slice(0, 3);
}"""


def test_on_a_projector_all_is_large_keys_play_step_and_look_back_and_all_controls_come_back(open_notebook):
    notebook = open_notebook("import cnnlab\nlab = cnnlab.Lab('question', present=True)", "", size=(1920, 1080))
    lab, page = notebook.lab(), notebook.page
    until(lambda: lab.figure.evaluate("graph => graph._fullLayout.width") > 1500, "the width of the page")
    until(lambda: lab.figure.locator(".xtick text").count() > 3, "ticks")
    cells = page.locator(".jp-Notebook .jp-CodeCell").count()

    lab.figure.click(position={"x": 300, "y": 200})  # the focus is now the dashboard's
    page.keyboard.press("s")
    lab.wait_for_update(1)
    lab.wait_until_paused()
    page.keyboard.press("Space")
    until(lambda: notebook.value("lab.worker.view.stopped_at_nan"), "the NaN at which Play stops")
    lab.wait_until_paused()
    trained = lab.update()
    lab.wait_until_drawn()
    assert lab.box.evaluate(SIZES)[0][0] >= 16, lab.box.evaluate(SIZES)
    lab.screenshot("present")
    box, visible = lab.box.bounding_box(), page.locator(".jp-Notebook").first.bounding_box()
    assert box["height"] <= visible["height"]

    page.keyboard.press("ArrowLeft")
    until(lambda: lab.update() == trained - 1, "the update before")
    page.keyboard.press("ArrowRight")
    until(lambda: lab.update() == trained, "the present")
    page.keyboard.press("b")
    until(lambda: lab.update() < trained, "the update before the explosion")
    assert notebook.value("lab.shown_step") == notebook.value("cnnlab.before_explosion(lab.record)")

    rate = lab.area.get_by_role("textbox", name="Learning rate, value")
    rate.fill("")
    rate.type("1e-3s b")  # what is typed is typed
    assert rate.input_value() == "1e-3s b"
    rate.fill("1e-3")
    rate.press("Enter")
    until(lambda: notebook.value("lab.settings.learning_rate") == 1e-3, "the learning rate")
    slider = lab.slider("Learning rate")
    slider.focus()
    page.keyboard.press("ArrowRight")
    until(lambda: notebook.value("lab.settings.learning_rate") > 1e-3, "the slider to move by its arrow")
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == cells  # b makes a cell in JupyterLab's command mode

    assert not lab.area.get_by_role("button", name="Reset to the same start").is_visible()
    assert not lab.area.locator(".cnnlab-strip").is_visible()
    lab.press("Show all controls and plots")
    lab.area.get_by_role("button", name="Reset to the same start").wait_for()
    until(lambda: len(notebook.value("lab.panels")) == 7, "all plots")
    assert not lab.area.get_by_text("Space play").is_visible()
    page.keyboard.press("s")  # and the keys are JupyterLab's again
    page.keyboard.press("ArrowLeft")
    assert notebook.value("len(lab.record)") == trained
    assert notebook.errors == []
