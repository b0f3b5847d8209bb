"""The film in a real JupyterLab: drag back, change a knob, fork, see both curves; bring back a run after a restart."""

from jupyter_page import LONG, until

SLOW_EXPLOSION = '"question", learning_rate=1e-3, seed=23, stop_at_nan=False'
"""A run of the question's network that is NaN from update 9 on, and sound up to update 1."""


def drag(slider, share):
    """Move a slider's handle by mouse to a share of its length."""
    box = slider.bounding_box()
    y = box["y"] + box["height"] / 2
    slider.page.mouse.move(box["x"] + box["width"] - 8, y)
    slider.page.mouse.down()
    slider.page.mouse.move(box["x"] + 8 + share * (box["width"] - 16), y, steps=8)
    slider.page.mouse.up()


def test_a_run_is_dragged_back_clipped_and_forked_and_both_curves_are_equal_before_the_fork(notebook, lab):
    lab = lab(SLOW_EXPLOSION)
    lab.choice("Speed").select_option("full")
    lab.press("Play")
    lab.wait_for_update(20)
    lab.wait_until_paused()
    assert "NaN" in lab.line.inner_text()
    drag(lab.slider("Update shown"), 1 / 20)
    until(lambda: lab.update() == 1, "the first update")
    assert "NaN" not in lab.line.inner_text()
    assert lab.trace("cost")["x"] == [1]
    assert notebook.value("len(lab.record)") == 20
    lab.choice("Clipping").select_option("norm")
    until(lambda: notebook.value("lab.settings.clip") == "norm", "clipping")
    lab.press("Play")
    lab.wait_for_update(20)
    lab.wait_until_paused()
    until(lambda: len(lab.trace("cost")["x"]) == 20, "the new branch's curve")
    new, old = lab.trace("cost"), lab.trace("branch 0")
    assert new["y"][:2] == old["y"][:2]
    assert new["y"][2] != old["y"][2]
    assert None not in new["y"]
    assert None in old["y"]
    assert lab.area.get_by_role("button", name="clip off -> norm at 1").get_attribute("aria-pressed") == "true"
    lab.screenshot("forked")


def test_before_the_explosion_is_one_button_and_arrow_keys_step_through_the_film(notebook, lab):
    lab = lab(SLOW_EXPLOSION)
    lab.choice("Speed").select_option("full")
    lab.press("Play")
    lab.wait_for_update(20)
    lab.wait_until_paused()
    lab.press("Look at the last update after which all was well")
    until(lambda: lab.update() == notebook.value("__import__('cnnlab').before_explosion(lab.record)"), "that update")
    scrubber = lab.slider("Update shown")
    scrubber.focus()
    before = lab.update()
    scrubber.press("ArrowRight")
    until(lambda: lab.update() == before + 1, "one update forward")
    lab.press("Back by one update")
    until(lambda: lab.update() == before, "one update back")
    lab.press("Take the run back to the update shown")
    until(lambda: notebook.value("len(lab.record)") == before, "the rewind")
    assert lab.trace("ghosts")["x"][-2] == 20


def test_a_branch_is_chosen_by_a_click_and_deleted_by_another(notebook, lab):
    lab = lab(SLOW_EXPLOSION)
    notebook.do("lab.step(6); lab.fork(1, learning_rate=1e-4); lab.step(2)")
    until(lambda: lab.update() == 3, "the fork")
    lab.area.get_by_role("button", name="1 start").click()
    until(lambda: lab.update() == 6, "the first branch")
    assert lab.textbox("Learning rate").input_value() == "0.001"
    lab.press("Delete branch 2")
    until(lambda: notebook.value("len(lab.record.others)") == 0, "one branch")


def test_a_run_that_was_interrupted_by_a_restart_is_offered_and_brought_back(open_notebook):
    notebook = open_notebook('import cnnlab\nlab = cnnlab.Lab("question", learning_rate=1e-4)')
    notebook.lab()
    notebook.do("lab.step(7)")
    cost = notebook.value("lab.record.cost.tolist()")
    notebook.restart()
    lab = notebook.lab()
    assert lab.update() == 0
    lab.area.get_by_text("interrupted").wait_for(timeout=LONG)
    lab.press("Go on with the interrupted run")
    until(lambda: lab.update() == 7, "the run")
    assert notebook.value("lab.record.cost.tolist()") == cost
    notebook.do("lab.close()")
