"""A person switches the plots of magnitudes by keyboard while the run trains, and looks at signals by depth."""

from axe_playwright_python.sync_playwright import Axe
from jupyter_page import until

KINDS = ("weights", "gradients", "activations", "updates")
PLOTS = "panels=('cost', 'magnitudes', 'over_time', 'signals', 'ratio', 'stability')"


def find_titles(shown):
    """The titles of the plots, as the figure writes them."""
    return shown.figure.locator(".annotation-text-g").evaluate_all("all => all.map((it) => it.textContent)")


def find_button(shown, kind):
    after = KINDS[(KINDS.index(kind) + 1) % len(KINDS)]
    return shown.area.get_by_role("button", name=f"Show {after} in place of {kind}", exact=True)


def read_trace(shown, name, part):
    """Numbers of a trace that plotly shows when no more frames follow."""
    found = """(plot, [name, part]) => plot.closest(".cnnlab-moving") ? null
        : Array.from(plot.data.find((it) => it.name === name)?.[part] ?? [])"""
    drawn = []
    until(lambda: drawn.append(shown.figure.evaluate(found, [name, part])) or drawn[-1] is not None, "the points")
    return drawn[-1]


def test_magnitudes_are_switched_by_keyboard_while_it_trains(notebook, lab):
    shown = lab("'converges', learning_rate=1e-4, epochs=100_000")
    shown.choice("Speed").select_option("full")
    shown.press("Play")
    shown.wait_for_update(3)
    find_button(shown, "weights").focus()
    for kind, title in (
        ("gradients", "Gradient"),
        ("activations", "Activation"),
        ("updates", "Update"),
        ("weights", "Weight"),
    ):
        shown.page.keyboard.press("Enter")
        until(lambda: any(text.startswith((f"{title} magnitudes", title)) for text in find_titles(shown)), title)  # noqa: B023
        until(lambda: notebook.value("lab.magnitudes") == kind, "the lab to have it")  # noqa: B023
        focused = find_button(shown, kind)
        until(lambda: focused.evaluate("it => it === document.activeElement"), "the focus to stay")  # noqa: B023
    for kind in KINDS[:2]:
        find_button(shown, kind).press("Enter")
    until(lambda: notebook.value("lab.magnitudes") == "activations", "activations")
    shown.press("Pause")
    shown.wait_until_paused()
    update = notebook.value("len(lab.record)")
    until(
        lambda: any(f"update {update}:" in text for text in read_trace(shown, "deviations of layers", "text")),
        "what is measured again at rest",
    )
    assert len(read_trace(shown, "zeros of layers", "x")) > 3
    shown.screenshot("activations")
    shown.press("Reset to the same start")
    until(lambda: notebook.value("len(lab.record)") == 0, "the start")
    assert notebook.value("lab.magnitudes") == "activations"


def test_signals_by_depth_show_where_they_vanish_before_anything_is_trained(notebook, lab):
    deep = "'deep_plain', depth=30, activation='sigmoid', channels=4, patches=40"
    shown = lab(f"{deep}, {PLOTS}, magnitudes='activations'")
    until(lambda: len(read_trace(shown, "backward", "y")) == 33, "33 layers", 60)
    back = read_trace(shown, "backward", "y")
    assert 0 < back[0] < 1e-10 * back[-1]
    ranges = shown.figure.evaluate("plot => plot.layout.yaxis12.range")
    assert 10 ** ranges[0] < back[0]
    shown.screenshot("vanishing")
    shown.area.get_by_role("button", name="What Signals by depth shows").click()
    card = shown.area.locator(".cnnlab-tip:popover-open")
    assert "Glorot and Bengio (2010)" in card.inner_text()
    shown.page.keyboard.press("Escape")
    found = Axe().run(shown.page, context=".cnnlab-panels").response["violations"]
    assert [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found] == []
