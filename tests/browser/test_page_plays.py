"""A page in a browser without internet and without a kernel: it shows each update, plays, and complains of nothing."""

import numpy as np
import pytest
from handmade import record_of

import cnnlab

MARKS = "() => document.getElementById('plots').data.find((trace) => trace.name === 'cost marks')"
DRAWN = "() => [...document.querySelectorAll('#plots .scatterlayer .points path')].map((path) => path.style.fill)"
RED = "rgb(204, 0, 51)"
NAMES = ("<img src=x onerror='window.harmed=1'>", "</script><script>window.harmed=1</script>", "<b onclick=x>")


@pytest.fixture
def page(browser):
    """A page of a browser that has no internet; at its end it must have no word of complaint."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_offline(True)
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    assert said == []


@pytest.fixture(scope="module")
def exploded(tmp_path_factory):
    """The address of the page of a run whose cost is NaN at last."""
    run = cnnlab.Run("question", channels=4, hidden=(8, 8), init_scale=2.0, device="cpu")
    run.advance(9)
    assert np.isnan(run.record.cost[-1])
    path = tmp_path_factory.mktemp("page") / "run.html"
    cnnlab.export_html(run.record, path)
    return path.as_uri()


def opened(page, address):
    page.goto(address)
    page.wait_for_selector("#plots .main-svg")
    return page.get_by_role("slider", name="Update")


def test_the_last_update_shows_the_marks_of_nan(page, exploded):
    slider = opened(page, exploded)
    assert "the start, before update 1" in page.get_by_role("heading").inner_text()
    assert RED not in page.evaluate(DRAWN)
    slider.fill("9")
    assert page.evaluate(MARKS)["marker"]["symbol"][0] == "x"
    assert RED in page.evaluate(DRAWN)
    assert "cost is NaN since" in page.get_by_role("heading").inner_text()
    assert slider.get_attribute("aria-valuetext") == "update 9 of 9"


def test_a_page_whose_plotly_is_missing_says_so_above_the_still_picture(browser, tmp_path):
    run = cnnlab.Run("question", channels=4, hidden=(8, 8), init_scale=2.0, device="cpu")
    run.advance(9)
    cnnlab.export_html(run.record, tmp_path / "run.html", script="missing.js")
    page = browser.new_page()
    page.goto((tmp_path / "run.html").as_uri())
    page.get_by_text("could not fetch").wait_for()
    assert page.locator("#plots > svg").is_visible()
    page.close()


def test_a_step_back_takes_the_marks_away_again(page, exploded):
    slider = opened(page, exploded)
    slider.fill("9")
    slider.fill("1")
    assert RED not in page.evaluate(DRAWN)


def test_play_goes_on_to_the_end_and_pause_stops_it(page, exploded):
    slider = opened(page, exploded)
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => document.getElementById('step').value >= 2")
    page.get_by_role("button", name="Pause").click()
    stopped = slider.input_value()
    page.wait_for_timeout(700)
    assert slider.input_value() == stopped
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => document.getElementById('step').value === '9'")
    page.get_by_role("button", name="Play").wait_for()


def test_arrow_keys_step_wherever_the_focus_is(page, exploded):
    slider = opened(page, exploded)
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "1"
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert slider.input_value() == "2"
    assert page.locator("output").inner_text() == "2 of 9"


def test_everything_fits_into_a_window_of_1280_by_800(page, exploded):
    opened(page, exploded)
    width, height = page.evaluate("() => [document.body.scrollWidth, document.documentElement.scrollHeight]")
    assert width <= 1280
    assert height <= 800


@pytest.mark.parametrize("width", [360, 600, 1000, 1280, 1900])
def test_no_word_of_the_plots_is_cut_off_in_a_window_of_any_width(page, exploded, width):
    page.set_viewport_size({"width": width, "height": 800})
    opened(page, exploded).fill("9")
    cut = """() => {
      const whole = document.querySelector(".main-svg").getBoundingClientRect();
      return [...document.querySelectorAll("#plots text")].filter((text) => {
        const box = text.getBoundingClientRect();
        return box.width && (box.left < whole.left || box.right > whole.right || box.top < whole.top || box.bottom > whole.bottom);
      }).map((text) => text.textContent);
    }"""  # noqa: E501
    assert page.evaluate(cut) == []
    assert page.evaluate("() => document.body.scrollWidth") <= width


def test_a_layer_named_by_a_stranger_runs_nothing(page, tmp_path):
    path = tmp_path / "stranger.html"
    record = record_of([1.0, np.nan], layers=NAMES, weight_nan=[[0, 0, 0], [0, 0, 0], [1, 1, 0]])
    cnnlab.export_html(record, path)
    opened(page, path.as_uri()).fill("2")
    page.wait_for_timeout(300)
    assert page.evaluate("() => window.harmed") is None
    assert "<img src=x" in page.get_by_role("heading").inner_text()
