"""A notebook that is opened again after its kernel has ended shows pictures where its dashboards were."""

from jupyter_page import until

IMPORT = "import cnnlab"
MAKE = 'lab = cnnlab.Lab("question")\nlab.step(6)\nprint("done")'
ATLAS = "atlas = cnnlab.Atlas(learning_rate=[1e-3, 1e-2], steps=2)"
OPEN = """([path, kernel]) => window.jupyterapp.commands.execute("docmanager:open", {
    path, kernelPreference: {shouldStart: kernel, canStart: kernel, autoStartDefault: kernel},
}).then(() => null)"""
LEAVE = "() => [...window.jupyterapp.shell.widgets('main')].forEach((widget) => widget.dispose())"
SEEN = """() => [...document.querySelectorAll(".jp-OutputArea-child")]
    .filter((output) => output.checkVisibility() && output.getBoundingClientRect().height > 0)
    .map((output) => output.innerText)"""
JUPYTERLAB = ("Cannot read properties of null (reading 'kernel')", "widget model not found")
"""What the widgets of JupyterLab write to the console: where a notebook has no session, and where widgets are gone."""
CAPTION = "The lab as it was at update 6. Run this cell for a live one."


def test_a_notebook_without_its_kernel_shows_a_picture_of_the_lab_and_no_error(open_notebook):
    notebook = open_notebook(IMPORT, MAKE, ATLAS)
    notebook.run(0)
    notebook.lab(index=1).wait_for_update(6)
    notebook.run(2)
    notebook.output(2).locator(".js-plotly-plot").wait_for()
    live = notebook.page.evaluate(SEEN)
    assert len(live) == 3  # the lab, what is printed, the atlas
    assert "Run this cell for a live one" not in "".join(live)
    notebook.save()
    until(lambda: CAPTION in (notebook.jupyter.root / notebook.name).read_text(), "the picture to be saved")
    reader = open_notebook("")
    notebook.page.close()
    notebook.jupyter.end_kernel(notebook.name)
    picture = reader.page.locator(".cnnlab-saved img")
    for kernel in (False, True):
        reader.page.evaluate(LEAVE)
        reader.page.evaluate(OPEN, [notebook.name, kernel])
        until(lambda: picture.count() and picture.is_visible(), "the picture of the lab")
        if kernel:
            reader.wait_until_idle()
            until(lambda: "not found" in reader.page.locator("body").text_content(), "the widget to be given up")
        until(lambda: len(reader.page.evaluate(SEEN)) == 3, "three outputs")
        lab, printed, atlas = reader.page.evaluate(SEEN)
        assert lab == CAPTION
        assert picture.evaluate("image => image.naturalWidth") == 720
        assert printed.strip() == "done"
        assert atlas.startswith("Atlas(")
        assert atlas.endswith("Run this cell for a live one.")
    assert [error for error in reader.errors if not any(words in error for words in JUPYTERLAB)] == []
