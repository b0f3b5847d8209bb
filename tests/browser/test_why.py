"""The question "Why?" in a real JupyterLab: one button, an answer with curves, and a remedy that is applied."""

from jupyter_page import LONG, until


def test_why_is_asked_and_a_remedy_applied(open_notebook):
    notebook = open_notebook('import cnnlab\nlab = cnnlab.Lab("question", stop_at_nan=False)')
    notebook.errors.clear()
    lab = notebook.lab()
    why = lab.area.get_by_role("button", name="Find out why, and try remedies on copies of the run")
    assert not why.is_visible()
    lab.choice("Speed").select_option("full")
    lab.press("Play")
    lab.wait_for_update(20)
    lab.wait_until_paused()
    why.click()
    panel = lab.area.locator(".cnnlab-doctor")
    panel.locator(".cnnlab-card").first.wait_for(timeout=LONG)
    assert "learning rate above critical" in panel.locator("h3").inner_text()
    assert panel.locator(".cnnlab-card").count() >= 6
    assert panel.locator(".cnnlab-indicator").count() == 9
    assert notebook.value("len(lab.record)") == 20
    panel.scroll_into_view_if_needed()
    lab.screenshot("why")
    box, screen = panel.bounding_box(), lab.box.bounding_box()
    assert box["x"] + box["width"] <= screen["x"] + screen["width"] + 1
    cut = panel.locator(".cnnlab-columns, .cnnlab-indicators").evaluate_all(
        "found => found.filter((it) => it.scrollWidth > it.clientWidth + 1).map((it) => it.className)"
    )
    assert cut == []
    reasons = panel.locator(".cnnlab-reason")
    assert reasons.evaluate_all("found => found.filter((it) => it.scrollHeight > it.clientHeight + 1).length") == 0
    panel.get_by_role("button", name="Apply: gradient clipping").click()
    until(lambda: notebook.value("lab.settings.clip") == "norm", "the remedy to be applied")
    assert notebook.value("lab.record.branch.forked_at") == notebook.value("lab.doctor.found.before")
    lab.press("Play")
    lab.wait_until_paused()
    until(lambda: notebook.value("len(lab.record)") == 20, "the mended run to end")
    assert notebook.value("lab.record.first_nonfinite") is None
    panel.get_by_role("button", name="Close this panel").click()
    panel.wait_for(state="hidden")
    lab.screenshot("mended")
    assert notebook.errors == []
