"""The transport in a real JupyterLab: nothing trains until asked, Play explodes, and every button does what it says."""

import math

from jupyter_page import until

LONG_RUN = '"question", learning_rate=1e-5, epochs=100_000'


def test_the_first_command_opens_a_dashboard_that_trains_nothing_until_asked(open_notebook):
    notebook = open_notebook('import cnnlab\nlab = cnnlab.Lab("question")')
    notebook.errors.clear()
    lab = notebook.lab()
    assert lab.line.inner_text().startswith("ready at update 0")
    assert lab.update() == 0
    assert lab.rate.inner_text() == "paused"
    until(lambda: notebook.value("lab.publisher.browser_seen"), "the browser's first answer")
    until(lambda: notebook.value("not lab.worker.thread.alive"), "the curvature at the start")
    assert notebook.value("len(lab.record)") == 0
    until(lambda: len(lab.trace("magnitudes 0")["x"]) > 20, "the weights at the start")
    assert notebook.errors == []
    lab.screenshot("opened")


def test_play_explodes_and_the_plot_keeps_every_nan(notebook, lab):
    lab = lab('"question", learning_rate=0.01, init_scale=2')
    lab.choice("Speed").select_option("full")
    lab.press("Play")
    lab.wait_for_update(3)
    lab.wait_until_paused()
    until(lambda: "Play goes on" in lab.area.locator(".cnnlab-next").inner_text(), "what to press next")
    first = notebook.value("lab.record.first_nonfinite")
    assert first <= lab.update() <= first + 2
    lab.press("Play")
    lab.wait_for_update(20)
    lab.wait_until_paused()
    assert lab.line.get_attribute("data-tone") == "broken"
    assert "NaN" in lab.line.inner_text()
    assert lab.update() == 20
    cost = notebook.value("[value if value - value == 0 else None for value in lab.record.cost.tolist()]")
    lost = [update for update, value in enumerate(cost, 1) if value is None]
    assert len(lost) >= 10
    assert sorted(lab.trace("cost marks")["x"]) == lost
    drawn = lab.trace("cost")
    assert drawn["x"] == list(range(1, 21))
    assert [value is None for value in drawn["y"]] == [value is None for value in cost]
    assert all(math.isclose(one, other, rel_tol=1e-6) for one, other in zip(drawn["y"], cost, strict=True) if other)
    lab.screenshot("exploded")


def test_pause_stops_and_play_goes_on_to_the_planned_end(notebook, lab):
    lab = lab('"question", learning_rate=1e-5, epochs=30')
    lab.press("Play")
    lab.wait_for_update(3)
    lab.press("Pause")
    lab.wait_until_paused()
    paused = lab.update()
    assert 3 <= paused < 30
    until(lambda: notebook.value("not lab.worker.thread.alive"), "the curvature where it paused")
    assert notebook.value("len(lab.record)") == paused
    lab.choice("Speed").select_option("full")
    lab.press("Play")
    lab.wait_for_update(30)
    lab.wait_until_paused()
    assert lab.update() == 30
    assert notebook.value("len(lab.record)") == 30


def test_steps_are_counted_one_by_one_and_n_at_a_time_and_reset_keeps_a_ghost(notebook, lab):
    lab = lab('"question", learning_rate=1e-5')
    lab.press("One update")
    lab.wait_for_update(1)
    lab.press("One update")
    lab.wait_for_update(2)
    lab.area.get_by_role("spinbutton", name="How many updates to step").fill("4")
    lab.press("Step by this many updates")
    lab.wait_for_update(6)
    lab.wait_until_paused()
    before = notebook.value("lab.record.cost.tolist()")
    assert len(before) == 6
    lab.press("Reset to the same start")
    until(lambda: lab.update() == 0, "update 0")
    until(lambda: [y for y in lab.trace("ghosts")["y"] if y], "a ghost")
    lab.area.get_by_role("spinbutton", name="How many updates to step").fill("6")
    lab.press("Step by this many updates")
    lab.wait_for_update(6)
    assert notebook.value("lab.record.cost.tolist()") == before


def test_a_number_of_steps_that_is_none_is_refused_in_a_sentence(notebook, lab):
    lab = lab('"question", learning_rate=1e-5')
    lab.area.get_by_role("spinbutton", name="How many updates to step").fill("-3")
    lab.press("Step by this many updates")
    until(lambda: "updates must be a whole number in [1, 1e6], got -3" in "".join(lab.alerts.all_inner_texts()), "why")
    assert lab.update() == 0


def test_a_new_seed_starts_again_with_the_next_seed(notebook, lab):
    lab = lab('"question", learning_rate=1e-5, seed=4').unfold()
    lab.press("One update")
    lab.wait_for_update(1)
    first = notebook.value("lab.record.cost.tolist()")
    lab.press("Start again with a new seed")
    until(lambda: lab.textbox("Seed").input_value() == "5", "seed 5")
    until(lambda: lab.update() == 0, "update 0")
    lab.press("One update")
    lab.wait_for_update(1)
    assert notebook.value("lab.settings.seed") == 5
    assert notebook.value("lab.record.cost.tolist()") != first


def test_a_preset_is_chosen_from_the_list(notebook, lab):
    lab = lab('"question", learning_rate=1e-5')
    lab.choice("Preset").select_option("vanishing")
    until(lambda: notebook.value("lab.settings.preset") == "vanishing", "the preset")
    assert notebook.value("lab.settings == cnnlab.settings('vanishing')")
    until(lambda: float(lab.textbox("Learning rate").input_value()) == notebook.value("lab.settings.learning_rate"),
          "the box of the learning rate")  # fmt: skip


def test_the_speed_is_the_one_chosen_and_the_progress_bar_moves(notebook, lab):
    lab = lab('"question", learning_rate=1e-5, epochs=40')
    bar = lab.area.get_by_role("progressbar", name="Progress")
    lab.choice("Speed").select_option("2")
    lab.press("Play")
    lab.wait_for_update(4)
    slow = float(lab.rate.inner_text().split()[0])
    assert 1.5 <= slow <= 2.1
    assert 0.1 <= float(bar.get_attribute("value") or bar.evaluate("bar => bar.value")) <= 0.2
    lab.choice("Speed").select_option("full")
    lab.wait_for_update(40)
    assert bar.evaluate("bar => bar.value") == 1
    lab.wait_until_paused()


def test_a_zoom_survives_updates_and_a_double_click_gives_the_plot_back(notebook, lab):
    lab = lab(LONG_RUN)
    lab.press("Play")
    lab.wait_for_update(20)
    lab.press("Pause")
    lab.wait_until_paused()
    whole = lab.axis("yaxis")
    plot = lab.figure.locator(".nsewdrag[data-subplot='xy']")
    box = plot.bounding_box()
    lab.page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.2)
    lab.page.mouse.down()
    lab.page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.8, steps=4)
    lab.page.mouse.up()
    until(lambda: lab.axis("yaxis") != whole, "the zoom")
    zoomed = lab.axis("xaxis") + lab.axis("yaxis")
    lab.press("Step by this many updates")
    lab.wait_for_update(25)
    lab.wait_until_paused()
    assert lab.axis("xaxis") + lab.axis("yaxis") == zoomed
    plot.dblclick()
    for axis in ("xaxis", "yaxis"):
        until(
            lambda axis=axis: close(lab.axis(axis), notebook.value(f"lab.figure.layout.{axis}.range")),
            "all of it",
        )
    lab.press("Play")
    lab.wait_for_update(40)
    lab.press("Pause")
    lab.wait_until_paused()
    assert close(lab.axis("xaxis"), notebook.value("lab.figure.layout.xaxis.range"))


def close(one, other):
    return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6) for a, b in zip(one, other, strict=True))


def test_two_labs_in_two_cells_work_at_once(open_notebook):
    notebook = open_notebook(
        'import cnnlab\none = cnnlab.Lab("question", learning_rate=1e-5)',
        'two = cnnlab.Lab("question", learning_rate=1e-6, seed=1)',
    )
    one, two = notebook.lab(index=0), notebook.lab(index=1)
    for lab in (two, one):
        lab.choice("Speed").select_option("full")
        lab.press("Play")
    one.wait_for_update(20)
    two.wait_for_update(20)
    assert notebook.value("len(one.record), len(two.record), len(cnnlab.dashboards.cell.OPEN)") == (20, 20, 2)
    assert one.trace("cost")["y"] != two.trace("cost")["y"]
    assert (one.update(), two.update()) == (20, 20)
    assert notebook.errors == []
