"""A person sees the band under the learning rate, and it moves; schedules are a choice; the forecast stands above."""

from jupyter_page import until


def edge(shown):
    """Where green ends, in per cent of the slider's way."""
    place = shown.area.locator(".cnnlab-colours").evaluate("it => it.style.getPropertyValue('--cnnlab-critical')")
    return float(place.rstrip("%") or 0)


def words(shown):
    return shown.area.locator(".cnnlab-critical").inner_text()


def test_the_band_is_there_before_play_and_moves_with_the_start_and_with_training(lab):
    shown = lab("'question', learning_rate=1e-4")
    until(lambda: words(shown).startswith("critical 1.1e-4"), "the critical rate")
    before = edge(shown)
    assert 20 < before < 40
    bar = shown.area.locator(".cnnlab-colours").bounding_box()
    slider = shown.slider("Learning rate").bounding_box()
    assert slider["x"] <= bar["x"] < bar["x"] + bar["width"] <= slider["x"] + slider["width"]
    assert 0 < bar["y"] - slider["y"] < 30
    shown.press("One update")
    shown.wait_for_update(1)
    until(lambda: edge(shown) != before, "the band to move")


def test_before_play_it_says_how_many_starts_diverged(lab):
    shown = lab("'question'")
    until(lambda: "of 5 starts tried diverged within 20 updates" in shown.line.inner_text(), "a forecast", 60)


def test_when_nothing_is_finite_any_more_the_band_says_so(lab):
    shown = lab("'question', stop_at_nan=False")
    shown.choice("Speed").select_option("full")
    shown.press("Play")
    shown.wait_for_update(20)
    until(lambda: words(shown) == "the Hessian is not finite", "the words")


def test_a_schedule_chosen_moves_the_slider_as_it_trains(lab):
    shown = lab("'question', learning_rate=1e-4")
    shown.area.get_by_label("Schedule of the learning rate").select_option("cosine")
    shown.choice("Speed").select_option("full")
    shown.press("Play")
    shown.wait_for_update(20)
    shown.wait_until_paused()
    until(lambda: shown.area.get_by_label("Learning rate, value").input_value() == "1e-6", "the last rate")
