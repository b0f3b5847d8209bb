"""A lab without hints on the screen: the forecast and the band come when a person asks for them, and stay."""

from jupyter_page import until


def find_button(shown):
    return shown.area.get_by_role("button", name="Show forecast, critical learning rate and early warnings")


def band(shown):
    return shown.area.locator(".cnnlab-critical").inner_text()


def test_the_forecast_comes_when_it_is_asked_for_by_keyboard_and_stays_after_a_reset(notebook, lab):
    shown = lab('"question", hints=False')
    until(lambda: notebook.value("lab.view.forecast is not None and lab.view.forecast.starts == 5"), "a forecast", 60)
    assert shown.line.inner_text() == "ready at update 0: 66 patches, 20 updates"
    assert band(shown) == "critical rate: hidden"
    assert shown.area.locator(".cnnlab-colours").get_attribute("data-edges") == ""
    assert shown.trace("sharpness")["y"] == []
    assert "diverge" not in shown.box.inner_html()
    shown.line.scroll_into_view_if_needed()
    shown.screenshot("hints-hidden")
    button = find_button(shown)
    inside, whole = button.bounding_box(), shown.box.bounding_box()
    assert inside["x"] + inside["width"] <= whole["x"] + whole["width"]
    button.focus()
    shown.page.keyboard.press("Enter")
    until(lambda: "5 of 5 starts tried diverged within 20 updates" in shown.line.inner_text(), "the forecast")
    until(lambda: band(shown).startswith("critical 1."), "the critical rate")
    until(lambda: len(shown.trace("sharpness")["y"]) == 1, "the curvature")
    assert not button.is_visible()
    assert shown.area.get_by_role("button", name="Play").evaluate("it => it === document.activeElement")
    shown.screenshot("hints-shown")
    shown.press("One update")
    shown.wait_for_update(1)
    shown.press("Reset to the same start")
    until(lambda: "starts tried diverged" in shown.line.inner_text(), "the forecast of the new start")
    until(lambda: band(shown).startswith("critical 1."), "its critical rate")
    assert not button.is_visible()


def test_no_warning_comes_before_the_nan_and_the_longest_line_is_not_cut_off(open_notebook):
    notebook = open_notebook('import cnnlab\nlab = cnnlab.Lab("question", hints=False)')
    shown = notebook.lab()
    why = shown.area.get_by_role("button", name="Find out why, and try remedies on copies of the run")
    for update in (1, 2, 3):
        shown.press("One update")
        shown.wait_for_update(update)
        shown.wait_until_paused()
        assert shown.line.get_attribute("data-tone") == "plain"
        assert shown.line.evaluate("it => it.scrollWidth <= it.clientWidth"), shown.line.inner_text()
        assert not shown.line.inner_text().startswith("Warning")
        assert find_button(shown).is_visible()
        assert not why.is_visible()
    shown.screenshot("hints-before-the-nan")
    shown.press("One update")
    shown.wait_for_update(4)
    until(lambda: shown.line.get_attribute("data-tone") == "broken", "the line of the NaN")
    assert why.is_visible()
    assert not find_button(shown).is_visible()
    shown.screenshot("hints-broken")


def test_a_cell_run_again_remembers_that_its_forecast_was_asked_for(open_notebook):
    notebook = open_notebook('import cnnlab\nlab = cnnlab.Lab("question", hints=False, learning_rate=1e-4)')
    shown = notebook.lab()
    find_button(shown).click()
    until(lambda: band(shown).startswith("critical 1."), "the critical rate")
    again = notebook.lab()
    until(lambda: band(again).startswith("critical 1."), "the critical rate again")
    assert not find_button(again).is_visible()
    assert notebook.errors == []
