"""Another optimiser chosen by keyboard while it plays: the group is folded, and what is chosen is in force."""

from jupyter_page import until
from test_panel import find_violations

OFTEN = "lab.record.schedule[-1][1].optimizer"


def test_an_optimiser_is_chosen_by_keyboard_while_it_plays(notebook, lab):
    lab = lab('"question", learning_rate=1e-5, epochs=100_000')
    choice, momentum = lab.choice("Optimiser"), lab.textbox("Momentum")
    assert momentum.is_visible()
    assert not choice.is_visible(), "the group is folded at first"
    lab.press("Play")
    lab.wait_for_update(3)
    summary = lab.area.locator("summary", has_text="Optimiser")
    summary.focus()
    lab.page.keyboard.press("Enter")
    choice.wait_for(state="visible")
    lab.page.keyboard.press("Tab")
    for name in ("About: Beta 2", "Beta 2", "Beta 2, value", "About: Epsilon in root"):
        reached = "() => document.activeElement.ariaLabel"
        assert lab.page.evaluate(reached) == name
        lab.page.keyboard.press("Tab")
    for name, kept, beta2 in (("adam", "0.9", "0.999"), ("rmsprop", "0", "0.99"), ("sgd", "0", "0.999")):
        choice.select_option(name)
        until(lambda name=name: notebook.value(OFTEN) == name, f"an update with {name}")
        until(lambda kept=kept: momentum.input_value() == kept, "the momentum that belongs to it")
        until(lambda beta2=beta2: lab.textbox("Beta 2").input_value() == beta2, "its beta 2")
        updates = notebook.value("len(lab.record)")
        until(lambda updates=updates: notebook.value("len(lab.record)") > updates + 2, "the run to go on")
    assert notebook.value("len(lab.record.schedule)") == 4, "one change each"
    assert find_violations(notebook.page) == []
    choice.select_option("adam")
    until(lambda: notebook.value(OFTEN) == "adam", "Adam again")
    lab.textbox("Momentum").fill("1")
    lab.page.keyboard.press("Enter")
    said = "momentum must lie in [0, 1) with the optimizer 'adam', got 1"
    until(lambda: said in lab.area.inner_text(), "the sentence that refuses it")
    assert notebook.value("lab.settings.momentum") == 0.9


def test_a_loss_scale_can_be_chosen_in_float16_alone_and_its_plot_appears(notebook, lab):
    lab = lab('"question", channels=4, hidden=(8, 8), learning_rate=1e-5, epochs=100_000')
    lab.area.locator("summary", has_text="Optimiser").click()
    scale, title = lab.choice("Loss scale"), lab.area.get_by_text("Loss scale", exact=True)
    scale.wait_for(state="visible")
    assert scale.is_disabled()
    assert scale.get_attribute("title") == "only with precision float16"
    titles = title.count()
    notebook.do("lab.set(precision='float16')")
    until(scale.is_enabled, "float16 to be in force")
    lab.press("Play")
    lab.wait_for_update(3)
    for chosen, kept in (("1024", 1024.0), ("dynamic", "dynamic")):
        scale.select_option(chosen)
        until(lambda kept=kept: notebook.value("lab.record.schedule[-1][1].loss_scale") == kept, f"the scale {chosen}")
    until(lambda: title.count() > titles, "the plot of the scale")
    lab.area.get_by_role("group", name="Loss scale").wait_for()
    notebook.do("lab.set(loss_scale=300)")
    until(lambda: scale.input_value() == "300", "a number that is not among those offered")
    assert find_violations(notebook.page) == []
