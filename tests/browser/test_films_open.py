"""The films open from the list and from the map, without a server, a kernel or the internet."""

from pathlib import Path

import pytest

INDEX = Path(__file__).parents[2] / "docs" / "films" / "index.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_film_is_opened_from_the_list_and_one_from_the_map(browser, scheme):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    context.set_offline(True)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(INDEX.as_uri())
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 1280
    page.get_by_role("link", name="Why does my cost become NaN?").click()
    page.locator("#plots > svg").or_(page.locator("#plots .main-svg").first).wait_for()
    page.locator("#plots .main-svg").first.wait_for()
    page.get_by_role("slider", name="Update").fill("12")
    assert "cost is NaN since update 4" in page.get_by_role("heading").inner_text()
    page.go_back()
    page.get_by_role("link", name="learning rate 1, initial scale 3: diverged").click()
    page.locator("#plots .main-svg").first.wait_for()
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => Number(document.getElementById('step').value) > 1")
    context.close()
    assert said == []
