"""The controls in a real JupyterLab, by mouse, by keyboard and by typing: what is set there is in force."""

import pytest
from jupyter_page import until

LONG_RUN = '"question", learning_rate=1e-5, epochs=100_000'
SLIDERS = (
    "Learning rate", "Momentum", "Beta 2", "Epsilon in root", "Clip threshold", "Epsilon in log",
    "L1 factor", "L2 factor", "Initial scale", "Seed", "Batch size", "Depth", "Dropout",
)  # fmt: skip
CHOICES = (
    "Preset", "Speed", "Optimiser", "Clipping", "Penalty in the", "Initialisation", "Input scaling", "Cost",
    "Cost over batch", "ReLU placed", "Precision", "Padding", "Activation", "Normalisation", "Normalised", "Residual",
)  # fmt: skip


def learning_rate(notebook):
    return notebook.value("lab.settings.learning_rate")


def test_every_input_has_an_accessible_name(notebook, lab):
    lab = lab('"question"').unfold()
    for name in SLIDERS:
        assert lab.slider(name).count() == 1, name
        assert lab.textbox(name).count() == 1, name
        assert lab.slider(name).get_attribute("aria-valuetext"), name
    for name in CHOICES:
        assert lab.choice(name).count() == 1, name
    assert lab.area.get_by_role("progressbar", name="Progress").count() == 1
    inputs = lab.box.locator("input, select, button:not(.modebar-btn), progress")
    unnamed = inputs.evaluate_all(
        "all => all.filter(it => !(it.ariaLabel || it.innerText || it.labels?.length)).map(it => it.outerHTML)"
    )
    assert unnamed == []
    images = lab.box.locator("img")
    assert all(images.evaluate_all("found => found.map(it => it.alt)"))


def test_a_slider_moved_by_mouse_changes_the_run_that_is_playing(notebook, lab):
    lab = lab(LONG_RUN)
    lab.press("Play")
    lab.wait_for_update(3)
    slider = lab.slider("Learning rate")
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    before = int(slider.input_value())
    share = before / int(slider.get_attribute("max"))
    lab.page.mouse.move(box["x"] + box["width"] * share, middle)
    lab.page.mouse.down()
    lab.page.mouse.move(box["x"] + box["width"] * 0.05, middle, steps=5)
    lab.page.mouse.up()
    shown = float(lab.textbox("Learning rate").input_value())
    assert shown < 1e-5
    until(lambda: learning_rate(notebook) == shown, "the settings to follow")
    until(lambda: notebook.value("lab.record.schedule[-1][1].learning_rate") == shown, "an update with it")
    assert notebook.value("lab.record.schedule[0][1].learning_rate") == 1e-5
    assert notebook.value("lab.record.schedule[-1][0]") > 3
    updates = notebook.value("len(lab.record)")
    until(lambda: notebook.value("len(lab.record)") > updates, "the run to go on")
    assert float(lab.textbox("Learning rate").input_value()) == shown


def test_a_slider_moves_by_arrow_keys_to_both_its_ends(notebook, lab):
    lab = lab('"question", learning_rate=1e-3').unfold()
    slider = lab.slider("Learning rate")
    slider.focus()
    lab.page.keyboard.press("ArrowRight")
    until(lambda: learning_rate(notebook) > 1e-3, "a larger rate")
    assert learning_rate(notebook) == pytest.approx(1e-3 * 10 ** (1 / 20), rel=0.01)
    lab.page.keyboard.press("ArrowLeft")
    until(lambda: learning_rate(notebook) == pytest.approx(1e-3, rel=0.01), "the rate from before")
    lab.page.keyboard.press("End")
    until(lambda: learning_rate(notebook) == 10, "the right end")
    assert lab.textbox("Learning rate").input_value() == "10"
    lab.page.keyboard.press("Home")
    until(lambda: learning_rate(notebook) == 1e-6, "the left end")
    assert float(lab.textbox("Learning rate").input_value()) == 1e-6
    lab.slider("L2 factor").focus()
    lab.page.keyboard.press("ArrowRight")
    until(lambda: notebook.value("lab.settings.l2") == 1e-8, "the smallest factor")
    lab.page.keyboard.press("Home")
    until(lambda: notebook.value("lab.settings.l2") == 0, "no factor at all")
    lab.slider("Momentum").focus()
    lab.page.keyboard.press("End")
    until(lambda: notebook.value("lab.settings.momentum") == 1, "the right end of a linear slider")
    lab.slider("Batch size").focus()
    lab.page.keyboard.press("Home")
    until(lambda: notebook.value("lab.settings.batch_size") == 1, "one patch a batch")
    lab.page.keyboard.press("End")
    until(lambda: notebook.value("lab.settings.batch_size") is None, "all patches in one batch")
    until(lambda: lab.textbox("Batch size").input_value() == "all", "the box to say so")
    assert notebook.cell(1).evaluate("cell => cell.classList.contains('jp-mod-active')"), "JupyterLab took the keys"
    assert [text for text in lab.alerts.all_inner_texts() if text] == []


def test_a_slider_waits_where_the_hand_left_it_until_a_busy_kernel_hears_of_it(notebook, lab):
    lab = lab('"question"').unfold()
    slider = lab.slider("Batch size")
    every = slider.input_value()
    notebook.begin("import time; time.sleep(3)")
    slider.focus()
    lab.page.keyboard.press("Home")
    lab.page.wait_for_timeout(1500)
    assert slider.input_value() == "0", "no frame from before takes it back"
    lab.page.keyboard.press("End")
    assert slider.input_value() == every
    lab.page.keyboard.press("Home")
    until(lambda: notebook.value("lab.settings.batch_size") == 1, "the last place the hand left")
    assert slider.input_value() == "0"
    lab.choice("Clipping").select_option("norm")
    assert lab.choice("Clipping").input_value() == "norm"
    until(lambda: notebook.value("lab.settings.clip") == "norm", "the kind of clipping")
    lab.textbox("Learning rate").fill("-1")
    lab.page.keyboard.press("Enter")
    until(lambda: lab.textbox("Learning rate").input_value() == "0.01", "the box to show again what is in force")


def test_a_number_typed_into_the_box_is_taken_and_moves_the_slider(notebook, lab):
    lab = lab('"question"')
    slider = lab.slider("Learning rate")
    before = int(slider.input_value())
    lab.textbox("Learning rate").fill("1e-3")
    lab.page.keyboard.press("Enter")
    until(lambda: learning_rate(notebook) == 1e-3, "the settings to follow")
    until(lambda: int(slider.input_value()) == before - 20, "the slider to follow, a decade down")
    lab.textbox("Clip threshold").fill("0.5")
    lab.page.keyboard.press("Tab")
    until(lambda: notebook.value("lab.settings.clip_threshold") == 0.5, "the settings to follow")
    lab.choice("Clipping").select_option("norm")
    until(lambda: notebook.value("lab.settings.clip") == "norm", "the kind of clipping")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("-1", "learning_rate must lie in (0, 1e6], got -1"),
        ("fast", "learning_rate must be a number in (0, 1e6], got 'fast'"),
    ],
)
def test_what_is_no_learning_rate_is_refused_in_a_sentence_and_the_run_stays(notebook, lab, text, sentence):
    lab = lab('"question", learning_rate=1e-5')
    lab.press("One update")
    lab.wait_for_update(1)
    lab.textbox("Learning rate").fill(text)
    lab.page.keyboard.press("Enter")
    until(lambda: [said for said in lab.alerts.all_inner_texts() if said] == [sentence], sentence)
    assert notebook.value("lab.settings.learning_rate, len(lab.record)") == (1e-5, 1)
    lab.textbox("Learning rate").fill("1e-4")
    lab.page.keyboard.press("Enter")
    until(lambda: not any(lab.alerts.all_inner_texts()), "the sentence to go")
    assert learning_rate(notebook) == 1e-4


def test_what_a_run_starts_from_starts_it_again_and_leaves_a_ghost(notebook, lab):
    lab = lab('"question", learning_rate=1e-5').unfold()
    for changed, press in (
        ("init_scale", lambda: lab.slider("Initial scale").press("ArrowRight")),
        ("seed", lambda: lab.slider("Seed").press("ArrowRight")),
        ("precision", lambda: lab.choice("Precision").select_option("float64")),
    ):
        before = notebook.value(f"lab.settings.{changed}")
        lab.press("Step by this many updates")
        lab.wait_for_update(5)
        lab.wait_until_paused()
        drawn = [value for value in lab.trace("cost")["y"] if value]
        press()
        until(lambda: lab.update() == 0, f"update 0 after {changed}")
        assert notebook.value(f"lab.settings.{changed}") != before
        until(lambda: notebook.value("len(lab.record)") == 0, "an empty record")
        until(lambda drawn=drawn: set(drawn) <= set(lab.trace("ghosts")["y"]), "the old curve as a ghost")
        assert lab.trace("cost")["y"] == []
    assert notebook.value("len(lab.view.ghosts), lab.settings.precision") == (3, "float64")
    lab.screenshot("ghosts")


def test_a_preset_that_was_changed_is_marked_and_can_be_chosen_again(notebook, lab):
    lab = lab('"question"')
    shown = lab.choice("Preset").evaluate_handle("it => it")
    assert shown.evaluate("it => it.selectedOptions[0].textContent") == "question"
    notebook.do("lab.set(learning_rate=0.5, seed=7)")
    until(lambda: shown.evaluate("it => it.selectedOptions[0].textContent") == "question *", "the mark of a change")
    lab.choice("Preset").select_option("question")
    until(lambda: notebook.value("lab.settings == cnnlab.settings()"), "the preset as it was")
    until(lambda: shown.evaluate("it => it.selectedOptions[0].textContent") == "question", "no mark")


def test_a_long_value_is_shown_short_and_told_in_full(notebook, lab):
    lab = lab('"question", learning_rate=1.23456789e-7, seed=4294967295').unfold()
    assert lab.textbox("Learning rate").input_value() == "1.235e-7"
    assert lab.textbox("Learning rate").get_attribute("title") == "1.23456789e-7"
    assert lab.textbox("Seed").input_value() == "4294967295"
    lab.textbox("Learning rate").press("Enter")
    assert notebook.value("lab.settings.learning_rate") == 1.23456789e-7


def test_the_network_is_folded_away_and_what_is_chosen_in_it_starts_again(notebook, lab):
    lab = lab('"question"')
    lab.press("One update")
    until(lambda: notebook.value("len(lab.record)") == 1, "an update")
    choice = lab.choice("Normalisation")
    assert not choice.is_visible()
    lab.box.locator("summary", has_text="Network").focus()
    lab.page.keyboard.press("Enter")
    choice.select_option("batch")
    until(lambda: notebook.value("lab.settings.normalization") == "batch", "the settings to follow")
    until(lambda: notebook.value("len(lab.record)") == 0, "a new start")
    lab.press("One update")
    until(lambda: notebook.value("len(lab.record)") == 1, "an update of the new network")
    assert "cv0_norm" in notebook.value("lab.record.layers")
    lab.choice("Residual").select_option("on")
    lab.area.get_by_text("residual must be 'off' with padding 'valid'").first.wait_for()
    assert notebook.value("lab.settings.residual") == "off"
