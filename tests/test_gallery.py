"""The gallery: what it says is what the lab shows, and its pictures are there, small and all of one size."""

import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

import cnnlab

DOCS = Path(__file__).parent.parent / "docs"
TEXT = " ".join((DOCS / "gallery.md").read_text(encoding="utf-8").split())
PICTURES = sorted((DOCS / "screenshots").glob("*.png"))
README = (DOCS.parent / "README.md").read_text(encoding="utf-8")
MOMENTS = ("start", "playing", "exploded", "why", "atlas")
MOST = 120_000
"""Bytes of a picture."""


def read(pattern):
    """The numbers that a sentence of the gallery holds."""
    return [float(number) for number in re.search(pattern, TEXT).groups()]


@cache
def explain():
    """The question's run as Play leaves it, and why it exploded."""
    run = cnnlab.Run("question")
    run.advance(6)
    return run.record, cnnlab.autopsy(run.record)


def test_of_the_starts_tried_as_many_diverge_as_it_says():
    tried, rate, diverged = read(r"tried (\d+) starts at the learning rate ([\d.]+), and (\d+) of them diverged")
    runs = [cnnlab.Run("question", learning_rate=rate, seed=seed) for seed in range(int(tried))]
    assert sum(cnnlab.predict(run).diverged for run in runs) == diverged


def test_the_rate_is_as_many_times_the_critical_one():
    (times,) = read(r"the rate is (\d+) times the critical one")
    assert round(0.01 / cnnlab.critical_learning_rate(cnnlab.Run("question")).value) == times


def test_the_cost_at_a_low_rate_falls_as_it_says():
    rate, first, most, update = read(
        r"rate of ([\d.]+) the same .*? from ([\d.]+) at .*? less than ([\d.]+) at update (\d+)"
    )
    run = cnnlab.Run("question", learning_rate=rate)
    run.advance(int(update))
    assert run.record.cost[0] == pytest.approx(first, abs=1e-3)
    assert 0.3 * most < run.record.cost[-1] < most


def test_the_explosion_is_where_it_says():
    assert [explain()[0].first_nonfinite] == read(r"the cost is NaN at update (\d+)")


def test_the_remedies_fare_as_it_says():
    answer = explain()[1]
    tried, mends, hides, helps_not = read(
        r"and (\d+) remedies, .*? (\d+) mend it, (\d+) only hides it, and (\d+) do not"
    )
    verdicts = [trial.verdict for trial in answer.remedies]
    assert len(verdicts) == tried
    assert [verdicts.count(verdict) for verdict in ("mends", "only hides", "does not help")] == [
        mends,
        hides,
        helps_not,
    ]
    assert [round(answer.confidence, 2)] == read(r"confidence of ([\d.]+);")


def test_the_map_has_as_many_runs_and_the_one_opened_ends_as_it_says(monkeypatch):
    runs, updates, rate, scale, broke = read(
        r"map of (\d+) runs of (\d+) updates .*? at ([\d.]+) and ([\d.]+) was .*? since update (\d+)"
    )
    monkeypatch.syspath_prepend(str(DOCS))
    script = import_module("make_screenshots")
    rates, scales = re.findall(r"\[(.*?)\]", script.ATLAS)
    rates, scales = ([float(number) for number in row.split(",")] for row in (rates, scales))
    assert (len(rates) * len(scales), rates[script.CELL[0]], scales[script.CELL[1]]) == (runs, rate, scale)
    run = cnnlab.Run("question", learning_rate=rate, init_scale=scale)
    run.advance(int(updates))
    assert run.record.first_nonfinite == broke


def test_each_picture_is_shown_and_is_there():
    shown = re.findall(r"\(screenshots/([\w-]+\.png)\)", TEXT)
    assert shown == [f"{moment}-{ground}.png" for moment in MOMENTS for ground in ("light", "dark")]
    assert {path.name for path in PICTURES} == set(shown)
    assert all((DOCS.parent / path).is_file() for path in re.findall(r"\((docs/[^)]*\.png)\)", README))


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_is_small_and_has_the_size_of_the_page(path):
    assert path.stat().st_size <= MOST
    assert Image.open(path).size == (1280, 800)
