"""A page plays a record as the dashboard drew it, in one file; what a stranger wrote into the record stays text."""

import base64
import dataclasses
import json
import os
from html.parser import HTMLParser

import numpy as np
import plotly.offline
import pytest
from handmade import record_of, unpack_film
from jinja2 import UndefinedError
from torch import nn

import cnnlab
from cnnlab.diagnosis import summary as verdict
from cnnlab.export.html import FRAMES, choose_steps, describe_settings, make_film, write_page
from cnnlab.export.rendering import render
from cnnlab.plots.arrangement import arrange_panels
from cnnlab.plots.colours import colour_branch
from cnnlab.plots.dashboard import draw_dashboard, refresh_dashboard

SMALL = {"channels": 4, "hidden": (8, 8), "device": "cpu"}


@pytest.fixture(scope="module")
def exploded():
    """A run that is NaN from its fourth update on, and a branch of it that is clipped."""
    run = cnnlab.Run("question", **SMALL, init_scale=2.0)
    run.advance(9)
    twin = run.fork(2, clip="norm")
    twin.advance(3)
    assert run.record.first_nonfinite
    return dataclasses.replace(run.record, others=(twin.record,))


def shown_by_page(played, frame):
    """What the page's script puts together for a frame."""
    figure = json.loads(json.dumps(played["figure"]))
    for change in played["changes"]:
        within = figure
        for name in change["place"][:-1]:
            within = within[name] if isinstance(within, list) else within.setdefault(name, {})
        within[change["place"][-1]] = played["values"][change["at"][frame]]
    return figure


def told(value):
    """A value of a figure's JSON, arrays as arrays; null is NaN."""
    if isinstance(value, dict) and "bdata" in value:
        return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).astype(float)
    if isinstance(value, list) and all(isinstance(each, (int, float, type(None))) for each in value):
        return np.array(value, dtype=float)
    return value


def assert_same(shown, wanted, place=""):
    shown, wanted = told(shown), told(wanted)
    if isinstance(wanted, np.ndarray):
        np.testing.assert_allclose(shown, wanted, rtol=1e-6, err_msg=place)
    elif isinstance(wanted, dict):
        for name in shown.keys() | wanted.keys():
            assert_same(shown.get(name), wanted.get(name), f"{place}.{name}")
    elif isinstance(wanted, list) and not all(isinstance(each, str) for each in wanted):
        for number, (one, other) in enumerate(zip(shown, wanted, strict=True)):
            assert_same(one, other, f"{place}[{number}]")
    else:
        assert shown == wanted, place


class Elements(HTMLParser):
    """The elements of a page, and the text outside its scripts."""

    def __init__(self, page):
        super().__init__()
        self.started, self.text, self.within = [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.started.append((tag, dict(attrs)))
        self.within = tag

    def handle_endtag(self, tag):
        self.within = ""

    def handle_data(self, data):
        self.text += "" if self.within in ("script", "style") else data


def test_each_frame_is_what_the_dashboard_draws_of_that_update(exploded):
    played = make_film(exploded)
    assert played["steps"] == list(range(10))
    figure = draw_dashboard(exploded, len(exploded), scale=1.2, width=290)
    panels = arrange_panels(290, 1.2).panels
    for frame in reversed(range(10)):
        refresh_dashboard(figure, exploded.until(frame), (exploded,), len(exploded), panels=panels)
        shown, wanted = shown_by_page(played, frame), json.loads(figure.to_json())
        del shown["layout"]["margin"], wanted["layout"]["margin"]
        assert_same(shown, wanted)


def test_the_page_has_a_layout_for_each_of_several_widths(exploded):
    played = make_film(exploded)
    widths = [layout["width"] for layout in played["layouts"]]
    assert widths == sorted(widths)
    assert widths[0] == 290
    shown, first = shown_by_page(played, 0)["layout"], json.loads(json.dumps(played["layouts"][0]))
    del shown["template"], first["template"]
    assert_same(shown, first)


def test_each_frame_has_the_state_line_of_its_update(exploded):
    played = make_film(exploded)
    assert played["lines"] == [
        verdict.start_line(exploded.until(0)),
        *(verdict.state_line(exploded.until(step)) for step in range(1, 10)),
    ]
    assert played["tones"][-1] == "broken"


def test_a_cost_that_overflows_float32_is_still_drawn():
    played = make_film(record_of([1e-60, 1.0, 1e300], precision="float64"))
    costs = [trace for trace in shown_by_page(played, 3)["data"] if trace["name"] == "cost"]
    np.testing.assert_array_equal(told(costs[0]["y"]), [1e-60, 1.0, 1e300])


def test_the_question_s_run_takes_less_than_a_tenth_of_a_megabyte_beside_plotly(tmp_path):
    run = cnnlab.Run("question", device="cpu")
    run.advance(20)
    cnnlab.export_html(run.record, tmp_path / "run.html")
    cnnlab.export_html(run.record, tmp_path / "small.html", cdn=True)
    whole, small = ((tmp_path / name).stat().st_size for name in ("run.html", "small.html"))
    assert small < 100_000
    assert whole - len(plotly.offline.get_plotlyjs().encode()) < 100_000
    assert os.listdir(tmp_path) in (["run.html", "small.html"], ["small.html", "run.html"])


def test_the_page_fetches_nothing_unless_told_to(exploded):
    fetched = [values for _, values in Elements(write_page(exploded, cdn=False)).started if "src" in values]
    assert fetched == []
    (script,) = [values for _, values in Elements(write_page(exploded, cdn=True)).started if "src" in values]
    assert script["src"].startswith("https://")
    assert script["integrity"]


def test_pages_share_a_plotly_that_lies_beside_them(exploded, tmp_path):
    cnnlab.export_html(exploded, tmp_path / "run.html", script='../"a" & b.js')
    page = (tmp_path / "run.html").read_text()
    assert [values["src"] for _, values in Elements(page).started if "src" in values] == ['../"a" & b.js']
    assert unpack_film(page) == json.loads(json.dumps(make_film(exploded)))
    assert len(page) < 300_000


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"script": 3}, TypeError, "script must be the address of plotly.js as a text, or None, got 3"),
        ({"script": ""}, ValueError, "script must be the one address of plotly.js, or None, got an empty one"),
        ({"script": "a.js", "cdn": True}, ValueError, "or None, got cdn=True with it"),
    ],
)
def test_an_address_that_is_none_is_refused_and_no_page_written(exploded, tmp_path, given, error, words):
    with pytest.raises(error, match=words):
        cnnlab.export_html(exploded, tmp_path / "run.html", **given)
    assert os.listdir(tmp_path) == []


def test_until_plotly_is_read_the_page_shows_the_whole_cost_and_its_end(exploded):
    elements = Elements(write_page(exploded, cdn=True))
    assert [tag for tag, _ in elements.started].count("svg") == 1
    assert "cost is NaN since" in elements.text


def test_what_a_stranger_called_a_layer_is_text():
    names = ("</script><script>harm()</script>", "<img src=x onerror=harm()>", "<!--<script>")
    page = write_page(record_of([1.0, np.nan], layers=names, weight_nan=1, largest_weight=np.nan), cdn=True)
    elements = Elements(page)
    assert [tag for tag, _ in elements.started].count("script") == 3
    assert "img" not in [tag for tag, _ in elements.started]
    assert "<script>harm" not in page
    assert "<!--" not in page


def test_a_layer_named_in_the_language_of_templates_is_text():
    page = write_page(record_of([1.0, np.nan], layers=("{{6*7}}", "{% x %}", "{# c #}")), cdn=True)
    assert "42" not in Elements(page).text
    held = json.dumps(unpack_film(page)["figure"])
    for text in ("{{6*7}}", "{% x %}", "{# c #}"):
        assert text in held


def test_a_value_that_a_template_needs_and_does_not_get_is_an_error():
    with pytest.raises(UndefinedError, match="'record' is undefined"):
        render("page.html.jinja", cnnlab.settings())


def test_a_long_record_is_thinned_but_not_around_its_first_nan():
    cost = np.ones(5000)
    cost[2345:] = np.nan
    steps = choose_steps(record_of(cost))
    assert len(steps) <= FRAMES
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, 5000)
    assert {2343, 2344, 2345, 2346, 2347, 2348, 2349} <= set(steps)
    assert max(np.diff(steps)) <= 5000 / FRAMES * 1.2


@pytest.mark.parametrize("updates", [1, FRAMES - 1])
def test_a_short_record_shows_every_update(updates):
    assert choose_steps(record_of(np.ones(updates))) == list(range(updates + 1))


def test_a_record_in_which_nothing_is_trained_is_a_page_too():
    played = make_film(cnnlab.Run("question", **SMALL).record)
    assert (played["steps"], played["changes"]) == ([0], [])
    assert played["lines"][0].startswith("the start, before update 1: ")


def test_a_network_of_your_own_is_a_page_without_a_link():
    run = cnnlab.Run(network=nn.Linear(2, 2), data=([[1.0, 2.0]], [0]), cost="log_softmax")
    run.advance(2)
    assert "Train it again" not in write_page(run.record, cdn=True)


def test_the_settings_and_their_changes_are_there_in_words(exploded):
    twin = exploded.others[0]
    assert describe_settings(twin) == (
        "Preset question, initial scale 2, channels 4, hidden units 8 and 8, device cpu; from update 3: clipping norm."
    )
    text = Elements(write_page(twin, cdn=True)).text
    assert twin.link() in text
    assert "Learning rate" in text


def test_the_branches_have_a_key_to_their_colours(exploded):
    page = write_page(exploded, cdn=True)
    assert "clip off -&gt; norm at 2" in page
    assert colour_branch(2) in page
    assert 'class="branches"' not in write_page(dataclasses.replace(exploded, others=()), cdn=True)


def test_a_page_that_cannot_be_written_leaves_the_old_one(exploded, tmp_path, monkeypatch):
    path = tmp_path / "run.html"
    path.write_text("old")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("cnnlab.export.html.os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        cnnlab.export_html(exploded, path)
    assert os.listdir(tmp_path) == ["run.html"]
    assert path.read_text() == "old"
