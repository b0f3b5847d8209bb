"""A person unfolds the cost along the sharpest direction by keyboard, and the landing follows the slider."""

from axe_playwright_python.sync_playwright import Axe
from jupyter_page import until

TITLE = "Cost along the sharpest direction"


def find_mark(shown, name):
    """The place of a mark in the plot below, and its colour; None while it is not drawn."""
    return shown.area.locator(".cnnlab-direction .js-plotly-plot").evaluate(
        """(plot, name) => {
            const trace = plot.data.find((each) => each.name === name);
            return trace && trace.x.length ? [trace.x[0], trace.marker.color] : null;
        }""",
        name,
    )


def find_words(shown):
    return shown.area.locator(".cnnlab-direction [role=status]").inner_text()


def test_it_is_unfolded_by_keyboard_and_the_landing_follows_the_learning_rate(lab):
    shown = lab("'question', learning_rate=5e-5")
    button = shown.area.get_by_role("button", name=TITLE)
    assert shown.area.locator(".cnnlab-direction .js-plotly-plot").count() == 0
    button.focus()
    shown.page.keyboard.press("Enter")
    until(lambda: shown.area.locator(".cnnlab-direction .js-plotly-plot").count() == 1, "the plot", 60)
    until(lambda: find_mark(shown, "landing"), "the landing", 60)
    assert find_words(shown).startswith("After update 0 (learning rate 5e-05")
    near, blue = find_mark(shown, "landing")
    assert abs(near) < find_mark(shown, "present")[0]
    shown.screenshot("direction-below")
    box = shown.textbox("Learning rate")
    box.fill("3e-4")
    box.press("Enter")
    until(lambda: find_mark(shown, "landing")[0] < 0, "the landing on the other side")
    far, red = find_mark(shown, "landing")
    assert -far > find_mark(shown, "present")[0]
    assert red != blue
    assert "to the other side" in find_words(shown)
    shown.screenshot("direction-above")
    found = Axe().run(shown.page, context=".cnnlab-direction").response["violations"]
    assert [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found] == []
    button.focus()
    shown.page.keyboard.press("Enter")
    until(lambda: not shown.area.locator(".cnnlab-direction .js-plotly-plot").is_visible(), "the plot to fold")
