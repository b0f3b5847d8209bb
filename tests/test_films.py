"""The films that need no installation: all of them there, small, without the internet, and what their runs show."""

from __future__ import annotations

import html
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from handmade import unpack_film

import cnnlab
from cnnlab.diagnosis.summary import state_line

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "films"
TOOL = runpy.run_path(str(ROOT / "tools" / "make_films.py"))
PAGES = sorted(FOLDER.glob("**/*.html"))
INDEX = (FOLDER / "index.html").read_text()


def read_film(path: Path) -> dict:
    """What a page plays."""
    return unpack_film(path.read_text())


def find_last_line(name: str) -> str:
    """What a film says at its end."""
    return read_film(FOLDER / f"{name}.html")["lines"][-1]


def test_there_are_twelve_films_and_one_for_each_cell_of_the_map():
    cells = len(TOOL["RATES"]) * len(TOOL["SCALES"])
    assert len(TOOL["FILMS"]) == 12
    named = {f"{film.name}.html" for film in TOOL["FILMS"]} | {"index.html"}
    assert named == {path.name for path in FOLDER.glob("*.html")}
    assert len(list((FOLDER / "map").iterdir())) == cells


def test_a_film_takes_at_most_300_kilobytes_and_those_of_the_map_together_5_megabytes():
    assert max(path.stat().st_size for path in PAGES) <= 300_000
    assert sum(path.stat().st_size for path in (FOLDER / "map").iterdir()) <= 5_000_000


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_page_reads_what_lies_beside_it_and_nothing_else(path):
    page = re.sub(r'<script type="text/plain" id="run">[^<]*</script>', "", path.read_text())
    assert set(re.findall(r"https?://[^\s\"')]+", page)) <= {"http://www.w3.org/2000/svg"}
    named = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert named
    for each in named:
        assert each == "data:," or (path.parent / each).is_file(), each


def test_the_list_leads_to_every_film():
    named = set(re.findall(r'href="([^"]+\.html)"', INDEX))
    assert named == {str(path.relative_to(FOLDER)) for path in PAGES} - {"index.html"}


@pytest.mark.parametrize("film", TOOL["FILMS"], ids=lambda film: film.name)
def test_a_film_is_of_the_run_that_the_script_makes(film):
    page = (FOLDER / f"{film.name}.html").read_text()
    run = cnnlab.Run(film.preset, **film.changes)
    assert read_film(FOLDER / f"{film.name}.html")["trained"] == film.updates
    run.advance(2)
    start = read_film(FOLDER / f"{film.name}.html")
    if not film.forks:
        assert start["lines"][2] == state_line(run.record)
        assert run.record.link().partition("?")[0] in page


def test_the_films_end_as_the_words_beside_them_say():
    for name in ("question", "he", "sudden_nan", "overflow"):
        assert "NaN" in find_last_line(name), name
    for name in ("small_rate", "clipped", "adam", "batch_norm", "dead", "vanishing", "converges", "deep_residual"):
        assert "NaN" not in find_last_line(name), name
    assert "accuracy 0.50" in find_last_line("dead")
    assert "accuracy 1.00" in find_last_line("converges")


def test_the_words_beside_a_film_are_those_of_the_script_and_true_of_its_run():
    for film in TOOL["FILMS"]:
        assert f"<span>{film.words}</span>" in html.unescape(INDEX)
    start, question = cnnlab.settings("converges"), cnnlab.settings("question")
    assert (start.depth, start.patches) == (question.depth, 1000)
    norms = [name for name in cnnlab.Run("batch_norm").record.layers if name.endswith("_norm")]
    assert [name.removesuffix("_norm") for name in norms] == [*cnnlab.Run("question").record.layers[:-1]]


def test_a_cell_of_the_map_says_what_its_run_does():
    cells = re.findall(r'aria-label="learning rate (\S+), initial scale (\S+): (\w+)[^"]*">(\d*)</a>', INDEX)
    assert [label for *_, label, _ in cells] == re.findall(r'<td><a class="(\w+)"', INDEX)
    for rate, scale, label, broke in cells[:: len(cells) // 6]:
        run = cnnlab.Run("question", learning_rate=float(rate), init_scale=float(scale))
        run.advance(TOOL["STEPS"])
        assert str(run.record.first_nonfinite or "") == broke, (rate, scale)
        assert broke == "" or label == "diverged"
        line = read_film(FOLDER / "map" / f"{rate}_{scale}.html")["lines"][-1]
        assert ("NaN" in line or "inf" in line) == bool(broke)
        assert np.isfinite(run.record.cost[-1]) or broke
