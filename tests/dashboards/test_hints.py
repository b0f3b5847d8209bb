"""A lab without hints: what answers a guess is not on the page before it is asked for, or the run has shown it."""

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import cnnlab
from cnnlab.dashboards import cell

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8}
EXPLODES = {**SMALL, "learning_rate": 1e4}


def open_lab(*arguments: Any, **changes: Any) -> cnnlab.Lab:
    """A lab that measures at rest, as one on a page does, and has measured all there is."""
    lab = cnnlab.Lab(*arguments, **changes)
    lab.worker.measurements.watching = True
    rest(lab)
    return lab


def rest(lab: cnnlab.Lab) -> None:
    """Wait until the paused run's curvature and forecast are known, and draw."""
    lab.worker.ask()
    end = time.monotonic() + 30
    while lab.worker.thread.alive:
        assert time.monotonic() < end
        time.sleep(0.002)
    lab.draw(lab.view)


@pytest.fixture
def lab() -> Iterator[cnnlab.Lab]:
    made = open_lab("question", hints=False, **EXPLODES)
    yield made
    made.close()


def header(lab: cnnlab.Lab) -> dict[str, Any]:
    return lab.widgets.header.state


def band(lab: cnnlab.Lab) -> dict[str, Any]:
    return lab.widgets.controls.state["band"]


def curvature(lab: cnnlab.Lab) -> tuple[list[float], tuple[float, ...]]:
    """The eigenvalues in the plot of the curvature, and the range of its axis."""
    trace = next(trace for trace in lab.figure.data if trace.name == "sharpness")
    return list(trace.y), tuple(lab.figure.layout[trace.yaxis.replace("y", "yaxis")].range)


def is_shown(lab: cnnlab.Lab) -> bool:
    """Whether the page has the critical learning rate and the curvature; AssertionError if it has one of them."""
    found = {band(lab)["edges"] is not None, bool(curvature(lab)[0]), not header(lab)["hidden"]}
    assert len(found) == 1
    return found.pop()


def test_before_the_first_update_forecast_and_critical_rate_are_known_to_the_kernel_alone(lab: cnnlab.Lab) -> None:
    assert lab.view.forecast.diverges
    eigenvalue = float(lab.record.start.sharpness)
    assert not is_shown(lab)
    assert header(lab)["line"] == "ready at update 0: 8 patches, 20 updates"
    assert (header(lab)["tone"], header(lab)["trouble"]) == ("plain", False)
    assert band(lab) == {"edges": None, "said": "critical rate: hidden", "title": "Press Show forecast to see it."}
    states = json.dumps([header(lab), lab.widgets.controls.state, lab.widgets.strip.state, lab.doctor.state])
    assert "diverge" not in states
    assert f"{eigenvalue:.4g}" not in states
    assert f"{eigenvalue:.4g}" not in json.dumps(lab.figure.to_dict(), default=str)


def test_the_axis_of_the_curvature_does_not_tell_where_the_hidden_eigenvalue_lies(lab: cnnlab.Lab) -> None:
    hidden = curvature(lab)
    fresh = cnnlab.Lab("question", **EXPLODES)
    assert hidden == curvature(fresh)
    fresh.close()
    lab.show_forecast()
    assert curvature(lab) != hidden


@pytest.mark.parametrize("ask", [lambda lab: lab.show_forecast(), lambda lab: lab.received({"do": "show_forecast"})])
def test_asked_for_they_are_shown_and_stay_so_after_a_reset_and_a_new_seed(lab: cnnlab.Lab, ask: Any) -> None:
    ask(lab)
    assert is_shown(lab)
    assert "of 5 starts tried diverged within 20 updates" in header(lab)["line"]
    assert header(lab)["tone"] == "rising"
    lab.step(1)
    for again in (lab.reset, lab.new_seed):
        again()
        rest(lab)
        assert is_shown(lab)
        assert "starts tried diverged" in header(lab)["line"]


def follow(lab: cnnlab.Lab) -> list[dict[str, Any]]:
    """The header after each update up to the first whose cost is NaN or inf."""
    headers = []
    while lab.record.first_nonfinite is None and len(lab.record) < 20:
        lab.step(1)
        headers.append(dict(header(lab)))
    return headers


def test_no_warning_comes_before_the_nan_and_the_line_says_what_happened_after_it(lab: cnnlab.Lab) -> None:
    open_one = cnnlab.Lab("question", **EXPLODES)
    *warned, _ = follow(open_one)
    open_one.close()
    assert any(shown["line"].startswith("Warning") and shown["trouble"] for shown in warned)
    *before, broken = follow(lab)
    assert len(before) == len(warned)
    for shown in before:
        assert (shown["tone"], shown["trouble"], shown["hidden"]) == ("plain", False, True)
        assert shown["line"].startswith("cost ")
        assert "Warning" not in shown["line"]
    assert (broken["tone"], broken["trouble"], broken["hidden"]) == ("broken", True, False)
    assert f"since update {len(before) + 1}" in broken["line"]


def test_a_run_that_broke_hides_nothing_wherever_it_is_looked_at_and_the_next_start_hides_again(
    lab: cnnlab.Lab,
) -> None:
    follow(lab)
    lab.look_at(0)
    assert is_shown(lab)
    lab.reset()
    rest(lab)
    assert not is_shown(lab)
    assert header(lab)["line"].startswith("ready at update 0: 8 patches")


def test_a_run_at_its_planned_end_hides_nothing_and_one_that_is_rewound_hides_again(lab: cnnlab.Lab) -> None:
    lab.set(learning_rate=1e-5)
    lab.step(19)
    assert (header(lab)["hidden"], header(lab)["tone"]) == (True, "plain")
    lab.step(1)
    rest(lab)
    assert is_shown(lab)
    assert header(lab)["tone"] == "calm"
    lab.step(1)
    assert not header(lab)["hidden"]
    lab.rewind(4)
    rest(lab)
    assert not is_shown(lab)


def test_the_detectors_of_an_open_panel_do_not_follow_a_run_whose_warnings_are_hidden(lab: cnnlab.Lab) -> None:
    follow(lab)
    lab.explain()
    lab.reset()
    before = lab.doctor.state
    assert before["indicators"]
    lab.doctor.followed = -math.inf
    lab.step(1)
    assert lab.doctor.state == before
    lab.show_forecast()
    assert lab.doctor.state != before


def test_a_network_of_ones_own_hides_the_same() -> None:
    data = (torch.randn(6, 3), torch.arange(6) % 2)
    lab = open_lab(network=torch.nn.Linear(3, 2), data=data, cost=torch.nn.functional.cross_entropy, hints=False)
    assert lab.record.start.sharpness > 0
    assert header(lab)["line"] == "ready at update 0: Linear, 6 rows, 20 updates"
    assert not is_shown(lab)
    lab.show_forecast()
    assert is_shown(lab)
    lab.close()


def test_with_hints_nothing_is_hidden_and_no_button_asks_for_it() -> None:
    lab = open_lab("question", **EXPLODES)
    assert is_shown(lab)
    lab.close()


@pytest.mark.parametrize(("hints", "said"), [("yes", "'yes'"), (1, "1"), (None, "None")])
def test_hints_that_are_neither_true_nor_false_are_refused(hints: Any, said: str) -> None:
    with pytest.raises(TypeError, match=f"^hints must be True or False, got {said}$"):
        cnnlab.Lab("question", hints=hints)


def test_a_cell_that_was_asked_shows_its_forecast_when_it_is_run_again_and_another_cell_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def open_in(name: str, count: int) -> cnnlab.Lab:
        for module in ("cnnlab.dashboards.cell", "cnnlab.dashboards.lab"):
            monkeypatch.setattr(f"{module}.get_current_cell", lambda: (name, count))
        return cnnlab.Lab("question", hints=False, autosave=False, **EXPLODES)

    monkeypatch.setattr(cell, "SHOWN", set())
    first, other = open_in("a", 1), open_in("b", 2)
    first.show_forecast()
    again, other_again = open_in("a", 3), open_in("b", 4)
    assert first.closed
    assert not header(again)["hidden"]
    assert header(other_again)["hidden"]
    again.close()
    other_again.close()
    other.close()


def test_hints_are_no_part_of_a_link(lab: cnnlab.Lab) -> None:
    twin = cnnlab.Lab(lab.link())
    assert twin.settings == lab.settings
    assert not header(twin)["hidden"]
    twin.close()
