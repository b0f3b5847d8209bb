"""What the plots of magnitudes show is chosen on the page, and no part of the record."""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnlab
from cnnlab.plots.gauges import PLOTS
from cnnlab.training.run import Run
from cnnlab.training.signals import measure_signals

PAGE = (Path(__file__).parents[2] / "docs" / "plots.md").read_text(encoding="utf-8")
SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "learning_rate": 1e-4}


def rest(lab: cnnlab.Lab) -> None:
    """Wait until all that is wanted of the paused run is known, and draw."""
    for _ in range(2):  # what is drawn first says what is wanted
        lab.worker.ask()
        end = time.monotonic() + 120
        while lab.worker.thread.alive:
            assert time.monotonic() < end
            time.sleep(0.002)
        lab.draw(lab.view)


def open_lab(**changes: Any) -> cnnlab.Lab:
    """A lab that measures at rest, as one on a page does."""
    lab = cnnlab.Lab("question", **{**SMALL, **changes}, autosave=False)
    lab.worker.measurements.watching = True
    lab.worker.measurements.tracker.is_known = lambda _run: True
    lab.worker.measurements.forecast.is_known = lambda _run: True
    return lab


@pytest.fixture
def lab() -> Iterator[cnnlab.Lab]:
    made = open_lab()
    yield made
    made.close()


def trace(lab: cnnlab.Lab, name: str) -> dict[str, Any]:
    """A trace as the page has it."""
    return next(each for each in lab.widgets.figure.spec["data"] if each["name"] == name)


def titles(lab: cnnlab.Lab) -> list[str]:
    """The titles of the panels on the page."""
    return [panel["title"] for panel in lab.widgets.figure.spec["layout"]["meta"]["panels"]]


def test_a_lab_opens_with_weights_and_remembers_another_choice(lab) -> None:
    assert lab.magnitudes == "weights"
    assert lab.panels == tuple(PLOTS)
    lab.step(3)
    lab.magnitudes = "gradients"
    assert titles(lab)[1:3] == ["Gradient magnitudes", "Gradient magnitudes over time"]
    lab.reset()
    lab.set(seed=3)
    lab.step(2)
    lab.widgets.enlarge("over_time")
    lab.widgets.enlarge(None)
    lab.present = True
    lab.present = False
    assert lab.magnitudes == "gradients"
    assert titles(lab)[1:3] == ["Gradient magnitudes", "Gradient magnitudes over time"]


@pytest.mark.parametrize("wrong", ["weight", 3, None])
def test_a_kind_that_is_none_is_refused_in_a_sentence_and_changes_nothing(lab, wrong) -> None:
    with pytest.raises(
        ValueError, match="magnitudes must be one of 'weights', 'gradients', 'activations', 'updates', got"
    ):
        lab.magnitudes = wrong
    assert lab.magnitudes == "weights"
    with pytest.raises(ValueError, match="magnitudes must be one of"):
        cnnlab.Lab("question", **SMALL, magnitudes=wrong)


def test_the_page_switches_and_is_told_why_not() -> None:
    async def watch() -> None:
        lab = cnnlab.Lab("question", **SMALL, autosave=False, magnitudes="updates")
        lab.widgets.figure.hear({"magnitudes": "activations"})
        while lab.magnitudes != "activations":
            await asyncio.sleep(0.002)
        lab.widgets.figure.hear({"magnitudes": "sounds"})
        while "magnitudes must be" not in lab.problem:
            await asyncio.sleep(0.002)
        assert lab.magnitudes == "activations"
        lab.close()

    asyncio.run(asyncio.wait_for(watch(), 60))


def test_the_record_is_the_same_to_the_bit_whatever_is_shown() -> None:
    plain = Run("question", **SMALL)
    plain.advance(20)
    lab = open_lab(magnitudes="activations", panels=("cost", "magnitudes", "over_time", "signals"))
    rest(lab)
    for updates in (1, 9, 10):
        lab.step(updates)
        rest(lab)
    lab.look_at(13)
    rest(lab)
    assert lab.view.signals.step == 13
    assert lab.record.table[:, :-1].tobytes() != b""
    measured = [name for name in lab.record.column_names if name not in ("sharpness", "held_out_accuracy")]
    places = [lab.record.column_names.index(name) for name in measured]
    assert lab.record.table[:, places].tobytes() == plain.record.table[:, places].tobytes()
    np.testing.assert_array_equal(lab.record.signal_histograms[:], plain.record.signal_histograms[:])
    lab.close()


def test_at_rest_the_update_that_is_looked_at_is_measured_again_from_its_snapshot(lab) -> None:
    lab.panels = ("cost", "magnitudes", "signals")
    lab.magnitudes = "activations"
    lab.step(21)
    rest(lab)
    again = Run("question", **SMALL)
    again.advance(21)
    for look, step in ((None, 21), (13, 13), (16, 16), (0, 1)):
        lab.look_at(look)
        rest(lab)
        found = measure_signals(again, step)
        np.testing.assert_array_equal(trace(lab, "forward")["y"], found.activation_deviation)
        assert f"update {step}:" in trace(lab, "deviations of layers")["text"][0]
    assert not lab.record.is_measured("activation_mean")[20].any()


def test_after_a_rewind_and_other_knobs_it_is_measured_anew(lab) -> None:
    lab.magnitudes = "updates"
    lab.step(21)
    rest(lab)
    before = lab.view.signals
    lab.rewind(12)
    lab.set(learning_rate=2e-4)
    lab.step(9)
    rest(lab)
    assert before.step == lab.view.signals.step == 21
    assert (before.counts != lab.view.signals.counts).any()


def test_nothing_is_measured_at_rest_where_no_plot_shows_it(lab) -> None:
    lab.step(9)
    rest(lab)
    lab.magnitudes = "gradients"
    lab.panels = ("cost", "accuracy")
    rest(lab)
    assert lab.view.signals is None
    lab.panels = ("cost", "over_time")
    rest(lab)
    assert lab.view.signals.step == 9


def test_a_network_that_raises_when_it_is_measured_again_leaves_the_last_signals(lab, monkeypatch) -> None:
    monkeypatch.setattr("cnnlab.dashboards.signal_tracker.measure_signals", lambda *_: 1 / 0)
    lab.magnitudes = "gradients"
    lab.step(9)
    rest(lab)
    assert lab.view.signals is None
    assert lab.view.error is None
    assert len(trace(lab, "magnitudes 0")["y"]) > 2


def test_the_bytes_of_a_frame_with_activations_do_not_grow_with_the_run(monkeypatch) -> None:
    run = Run("question", **SMALL)
    lab = open_lab(magnitudes="activations", panels=("magnitudes", "over_time", "signals"))
    sizes: dict[int, list[int]] = {}
    sent: list[int] = []
    monkeypatch.setattr(
        lab.widgets.figure.state, "send", lambda told, buffers=(): sent.append(len(str(told)) + sum(map(len, buffers)))
    )
    for middle in (100, 700):  # each with an update at which signals are measured
        run.advance(middle - run.updates)
        for _ in range(33):
            run.update()
            view = lab.view.__class__(**{**vars(lab.view), "record": run.record, "training": True})
            lab.draw(view)
            sizes.setdefault(middle, []).append(sent[-1])
    lab.close()
    early, late = (sum(counts[1:]) for counts in sizes.values())
    assert late < 1.5 * early
    assert max(sizes[700][1:]) < 12_000


@pytest.mark.parametrize("cell", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_the_cells_of_the_page_run(cell: str, capsys) -> None:
    names: dict[str, Any] = {"cnnlab": cnnlab}
    exec(cell, names)
    if "lab" in names:
        assert names["lab"].worker.failure is None
        names["lab"].close()
    else:
        assert capsys.readouterr().out
