"""The panel says what the autopsy says; remedies are applied by call; its thread ends."""

from __future__ import annotations

import json
import threading

import pytest
import torch

import cnnlab
from cnnlab.dashboards.autopsy_panel import describe_indicators

SMALL = {
    "channels": 8, "hidden": (32, 32), "patch_size": 14, "device": "cpu", "learning_rate": 0.1, "init_scale": 2.0,
    "autosave": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def exploded():
    lab = cnnlab.Lab("question", **SMALL)
    lab.step(10)
    lab.explain()
    yield lab
    lab.close()


def doctor_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cnnlab-doctor"]


def test_nothing_is_examined_until_asked():
    lab = cnnlab.Lab("question", **SMALL)
    lab.step(10)
    assert lab.doctor.state == {"open": False}
    assert lab.widgets.header.state["trouble"]
    assert not doctor_threads()
    lab.close()


def test_a_calm_run_offers_no_why():
    lab = cnnlab.Lab("question", **SMALL | {"learning_rate": 1e-6})
    lab.step(2)
    assert not lab.widgets.header.state["trouble"]
    lab.close()


def test_the_panel_shows_the_autopsy_as_json(exploded):
    state, found = exploded.doctor.state, exploded.doctor.found
    assert (state["cause"], state["chain"]) == (found.cause, list(found.chain))
    assert [trial["verdict"] for trial in state["trials"]] == [trial.verdict for trial in found.remedies]
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    assert not doctor_threads()


def test_explaining_leaves_the_run_as_it_is(exploded):
    steps, branches = len(exploded.record), len(exploded.record.others)
    exploded.explain()
    assert (len(exploded.record), len(exploded.record.others)) == (steps, branches)


def test_a_lamp_for_each_book_says_when_it_fired_and_whether_in_time(exploded):
    lit = {indicator["name"]: indicator for indicator in describe_indicators(exploded.record)}
    assert len(lit) == 9
    broke = exploded.record.first_nonfinite
    assert lit["TerminateOnNaN"]["said"] == f"update {broke}, too late"
    assert lit["SageMaker Debugger"]["said"] == "never"
    assert lit["cnnlab"]["early"]
    assert "before" in lit["cnnlab"]["said"]
    steps = cnnlab.first_alarms(exploded.record)
    assert {name: f"update {step}" if step else "never" for name, step in steps.items()} == {
        name: state["said"].partition(",")[0] for name, state in lit.items()
    }


def test_the_lamps_follow_the_run_that_trains_now(exploded):
    exploded.reset()
    exploded.doctor.followed = 0.0
    exploded.step(1)
    lit = {indicator["name"]: indicator["said"] for indicator in exploded.doctor.state["indicators"]}
    assert lit["TerminateOnNaN"] == "never"
    exploded.doctor.followed = 0.0
    exploded.step(9)
    lit = {indicator["name"]: indicator["said"] for indicator in exploded.doctor.state["indicators"]}
    assert lit["TerminateOnNaN"].endswith("too late")


def test_a_remedy_is_applied_as_a_branch_or_as_a_new_start(exploded):
    found = exploded.doctor.found
    knob = next(place for place, trial in enumerate(found.remedies) if not trial.remedy.restarts)
    exploded.received({"apply": knob})
    assert exploded.record.branch.forked_at == found.remedies[knob].start
    changes = found.remedies[knob].remedy.changes
    assert {name: getattr(exploded.settings, name) for name in changes} == changes
    begun = next(place for place, trial in enumerate(found.remedies) if trial.remedy.restarts)
    exploded.apply(begun)
    changes = found.remedies[begun].remedy.changes
    assert {name: getattr(exploded.settings, name) for name in changes} == changes
    assert len(exploded.record) == 0


def test_a_remedy_that_is_not_there_is_refused_in_a_sentence(exploded):
    with pytest.raises(ValueError, match="remedy must be one of those"):
        exploded.apply(99)


def test_closing_the_panel_and_the_lab():
    lab = cnnlab.Lab("question", **SMALL)
    lab.step(6)
    lab.received({"do": "explain"})
    lab.close()
    assert not [thread for thread in doctor_threads() if thread.is_alive()]


def test_a_network_of_one_s_own_is_explained_too():
    data = (torch.tensor([[1.0, 2.0], [30.0, 1.0]]), torch.ones(2, 1))
    lab = cnnlab.Lab(
        network=torch.nn.Linear(2, 1), data=data, cost=lambda o, t: (o - t).square().mean(), learning_rate=1.0,
        autosave=False, device="cpu",
    )  # fmt: skip
    lab.step(12)
    found = lab.explain()
    assert (found.cause, found.operation) == ("learning rate above critical", "overflow")
    lab.close()
