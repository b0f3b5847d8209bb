"""A kernel that has ended: one sentence, everything off, nothing in the console."""

from jupyter_page import Lab, until

TRAINED = 'import cnnlab\nlab = cnnlab.Lab("question", learning_rate=1e-5, epochs=100_000)'

SHUT_DOWN = """() => {
    for (const start = performance.now(); performance.now() < start + 2000; );
    return window.jupyterapp.shell.currentWidget.sessionContext.shutdown().then(() => null);
}"""
"""Shuts the kernel down from a page that is busy: what the kernel has sent meanwhile is read after that."""


def check_ended(notebook, lab):
    """AssertionError unless the dashboard says that its kernel has ended, and is off."""
    said = "The kernel has ended; run this cell again, your run can be brought back."
    until(lambda: said in lab.area.locator(".cnnlab-problem").first.inner_text(), "the sentence")
    on = lab.box.locator("button:not(.modebar-btn), input, select").evaluate_all(
        "all => all.filter((it) => it.closest('.cnnlab') && !it.disabled).map((it) => it.outerHTML)"
    )
    assert on == []
    assert lab.rate.inner_text() == "ended"
    lab.area.get_by_role("button", name="Pause").click(force=True)
    lab.page.set_viewport_size({"width": 1180, "height": 780})  # the page would tell a kernel of its width
    lab.page.wait_for_timeout(200)
    assert notebook.errors == []


def test_a_restarted_and_a_shut_down_kernel_are_told_and_leave_the_console_empty(open_notebook):
    notebook = open_notebook(TRAINED)
    for end in ("restart", "shut down"):
        lab = notebook.lab()
        assert isinstance(lab, Lab)
        lab.press("Play")
        lab.wait_for_update(3)
        notebook.errors.clear()
        if end == "restart":
            notebook.restart()
        else:
            notebook.disconnect()
            notebook.page.evaluate(SHUT_DOWN)
        check_ended(notebook, lab)
