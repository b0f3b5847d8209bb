"""The panel for every eye and hand: contrast in each theme, names, keyboard, refusals, the `?`, the fit."""

import pytest
from jupyter_page import until

THEMES = ("JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast")
AXE = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21aa"]}}
PANEL = {"include": [[".cnnlab-lab"]], "exclude": [[".js-plotly-plot"]]}


def choose_theme(notebook, theme):
    """Change JupyterLab's theme, as its menu does, and wait until the page has it."""
    change = "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme }).then(() => null)"
    notebook.page.evaluate(change, theme)
    notebook.page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)
    dark = "Dark" in theme
    ink = "() => getComputedStyle(document.querySelector('.cnnlab-controls')).color"
    until(lambda: (sum(read_colour(notebook.page.evaluate(ink))) > 384) == dark, "the ink of the theme")


def read_colour(text):
    """The three numbers of rgb(...)."""
    return [int(part) for part in text[text.index("(") + 1 : -1].split(",")[:3]]


def find_violations(page):
    """What axe-core finds in the panel: rule, and the elements that break it."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, context=PANEL, options=AXE).response["violations"]
    return [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found]


def test_nothing_is_wrong_with_contrast_and_names_in_any_theme(open_notebook):
    notebook = open_notebook('import cnnlab\nlab = cnnlab.Lab("question")', own_page=True)
    lab = notebook.lab().unfold()
    notebook.do("lab.step(8)")
    lab.wait_for_update(8)
    notebook.do("lab.explain()")
    lab.area.locator(".cnnlab-card").first.wait_for()
    lab.textbox("Learning rate").fill("-1")
    lab.page.keyboard.press("Enter")
    until(lambda: "learning_rate must" in lab.area.inner_text(), "a refusal, which is red")
    for theme in THEMES:
        choose_theme(notebook, theme)
        assert find_violations(notebook.page) == [], theme
        lab.screenshot(f"panel {theme}")
    choose_theme(notebook, THEMES[0])


def test_the_keyboard_reaches_everything_in_the_order_of_reading(notebook, lab):
    lab = lab('"question"')
    lab.area.get_by_role("button", name="Play", exact=True).focus()
    walked = []
    for _ in range(26):
        walked.append(lab.page.evaluate("() => document.activeElement.ariaLabel || document.activeElement.textContent"))
        lab.page.keyboard.press("Tab")
    first = ["Play", "One update", "Step by this many updates", "How many updates to step", "Reset to the same start",
             "Start again with a new seed", "Preset", "Speed"]  # fmt: skip
    assert walked[:8] == first
    later = ["About: Training and steps", "Update shown", "Look at the last update after which all was well",
             "About: Learning rate", "Learning rate", "Learning rate, value", "Momentum, value"]  # fmt: skip
    assert [name for name in walked if name in later] == later
    help_button = lab.area.get_by_role("button", name="About: Learning rate")
    help_button.focus()
    lab.page.keyboard.press("Enter")
    card = lab.area.get_by_role("dialog", name="Learning rate")
    assert "Step size of gradient descent." in card.inner_text()
    assert card.get_by_role("link").get_attribute("href").endswith("/lab/tree/labs/01_how_large_a_step.ipynb")
    lab.page.keyboard.press("Escape")
    until(lambda: not card.is_visible(), "the card to close")
    assert help_button.evaluate("it => it === document.activeElement")
    switch = lab.area.get_by_role("switch", name="stop at NaN")
    switch.focus()
    lab.page.keyboard.press("Space")
    until(lambda: notebook.value("lab.worker.nan_stop.wanted") is False, "the switch to be off")


def test_what_is_refused_is_told_below_its_box_and_goes(notebook, lab):
    lab = lab('"question", learning_rate=1e-5')
    box = lab.textbox("Momentum")
    box.fill("2")
    lab.page.keyboard.press("Enter")
    said = lab.area.get_by_text("momentum must lie in [0, 1], got 2")
    said.wait_for()
    assert 0 <= said.bounding_box()["y"] - box.bounding_box()["y"] < 40
    assert box.get_attribute("aria-invalid") == "true"
    assert said.get_attribute("id") == box.get_attribute("aria-describedby")
    lab.textbox("Learning rate").fill("x")
    lab.page.keyboard.press("Enter")
    until(lambda: not said.count(), "the first sentence to go")
    lab.textbox("Learning rate").fill("1e-4")
    lab.page.keyboard.press("Enter")
    until(lambda: not any(lab.alerts.all_inner_texts()), "the second sentence to go")
    assert lab.textbox("Learning rate").get_attribute("aria-invalid") == "false"
    many = lab.area.get_by_role("spinbutton", name="How many updates to step")
    many.fill("-3")
    lab.press("Step by this many updates")
    said = lab.area.get_by_text("updates must be a whole number in [1, 1e6], got -3")
    said.wait_for()
    assert said.count() == 1
    assert 0 <= said.bounding_box()["y"] - many.bounding_box()["y"] < 40


@pytest.mark.parametrize(
    ("size", "scale"), [((1280, 800), 1), ((1024, 768), 1), ((1920, 1080), 1.5), ((1920, 1080), 2)]
)
def test_what_matters_while_it_plays_is_seen_beside_the_file_browser(open_notebook, size, scale):
    notebook = open_notebook(
        f"import cnnlab\nlab = cnnlab.Lab('question', learning_rate=1e-5, scale={scale})", size=size
    )
    lab = notebook.lab()
    lab.page.evaluate("() => window.jupyterapp.commands.execute('filebrowser:activate').then(() => null)")
    lab.page.locator("#jp-left-stack").wait_for()
    lab.page.wait_for_timeout(300)
    box = lab.box.bounding_box()
    if size == (1280, 800):
        ends = [lab.slider("Learning rate").bounding_box(), lab.area.locator(".cnnlab-film").bounding_box()]
        assert max(end["y"] + end["height"] for end in ends) - box["y"] < 160
        assert lab.figure.bounding_box()["y"] - box["y"] < 100
    inside = lab.box.locator(".cnnlab-header, .cnnlab-controls").locator("button, input, select, .cnnlab-name, summary")
    cut = inside.evaluate_all(
        """(found, box) => found.filter((it) => {
            const outside = it.getBoundingClientRect().right > box.x + box.width;
            return it.offsetParent && (outside || it.matches(".cnnlab-name") && it.scrollWidth > it.clientWidth + 1);
        }).map((it) => it.outerHTML.slice(0, 100))""",
        box,
    )
    assert cut == []
    lab.screenshot(f"file-browser-{size[0]}-{scale}")
    lab.page.keyboard.press("Control+b")
