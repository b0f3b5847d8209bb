"""What header and controls say: the epoch, the presets, why a value was refused and beside which field, the `?`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import cnnlab
from cnnlab.config.settings import LIMITS
from cnnlab.dashboards.controls import LIVE, NETWORK, RESTART, described, list_presets
from cnnlab.dashboards.explanations import ENDS, LABS, explain_field, list_explanations
from cnnlab.dashboards.messages import find_field

LABS_FOLDER = Path(__file__).parents[2] / "labs"
SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "learning_rate": 1e-4}


@pytest.fixture
def lab() -> Iterator[cnnlab.Lab]:
    made = cnnlab.Lab("question", **SMALL)
    yield made
    made.close()


def find_epochs(lab: cnnlab.Lab) -> tuple[int, int]:
    """The epoch that the header tells of, and of how many."""
    return lab.widgets.header.state["epoch"], lab.widgets.header.state["epochs"]


def test_the_first_epoch_is_epoch_1_of_those_that_are_planned() -> None:
    lab = cnnlab.Lab("question", **SMALL, batch_size=2, epochs=3)
    told = [find_epochs(lab)]
    for _ in range(5):
        lab.step(1)
        told.append(find_epochs(lab))
    assert told == [(1, 3), (1, 3), (1, 3), (1, 3), (1, 3), (2, 3)]
    lab.step(12)
    assert find_epochs(lab) == (5, 5)
    lab.close()


def test_a_network_of_ones_own_is_not_called_the_questions() -> None:
    x = torch.zeros(4, 1)
    lab = cnnlab.Lab(network=torch.nn.Linear(1, 1), data=(x, x), cost=lambda outputs, y: outputs.mean())
    assert dict(lab.widgets.header.presets)["question"] == "own network"
    assert dict(list_presets(False))["question"] == "question"
    lab.close()


@pytest.mark.parametrize(("message", "field"), [
    ({"set": {"learning_rate": "-1"}}, "learning_rate"), ({"set": {"clip": "hard"}}, "clip"),
    ({"do": "step", "updates": 0}, "updates"), ({"schedule": "steep"}, "schedule"),
    ({"problem": "image must be a picture"}, "image"), ({"preset": "none"}, ""), ({"pace": "warp"}, ""), (3, ""),
])  # fmt: skip
def test_what_is_refused_is_told_beside_its_field_until_a_field_is_set_well(lab: cnnlab.Lab, message, field) -> None:
    assert find_field(message) == field
    lab.received(message)
    lab.wait(10)
    header, controls = lab.widgets.header.state, lab.widgets.controls.state
    assert controls["problem"]
    assert controls["refused"] == field
    assert header["refused"] == (controls["problem"] if field == "updates" else "")
    lab.received({"set": {"learning_rate": "1e-3"}})
    lab.wait(10)
    assert (lab.widgets.controls.state["problem"], lab.widgets.controls.state["refused"]) == ("", "")
    assert lab.widgets.header.state["refused"] == ""


def test_a_problem_of_a_call_is_told_beside_no_field(lab: cnnlab.Lab) -> None:
    lab.received({"set": {"learning_rate": "-1"}})
    lab.received({"look": 99})
    lab.wait(10)
    assert lab.widgets.controls.state["problem"].startswith("step must be a whole number in [0, 0]")
    assert lab.widgets.controls.state["refused"] == ""


def test_an_ended_kernel_promises_to_bring_a_run_back_only_where_it_is_kept(lab: cnnlab.Lab, tmp_path) -> None:
    lab.step(1)
    assert lab.widgets.header.state["ended"] == "The kernel has ended; run this cell again."
    kept = cnnlab.Lab("question", **SMALL, autosave=tmp_path / "run.cnnlab")
    assert "brought back" not in kept.widgets.header.state["ended"]
    kept.step(1)
    assert kept.widgets.header.state["ended"].endswith("run this cell again, your run can be brought back.")
    kept.close()


@pytest.mark.parametrize("field", [*LIVE, *RESTART, *NETWORK])
def test_each_control_has_two_sentences_and_a_lab(field: str) -> None:
    explanation = explain_field(field, LIMITS[field].label)
    assert explanation["text"].endswith(".")
    assert explanation["text"].replace("et al. ", "").count(". ") == 1, "two sentences"
    assert explanation["lab_title"]


def test_where_a_slider_begins_with_0_the_text_says_what_0_does() -> None:
    zero = [name for name in ENDS if described(name).get("zero") and name != "seed"]
    assert {"init_scale", "epsilon", "l2", "adam_epsilon"} <= set(zero)
    assert [name for name in zero if not ENDS[name][0].startswith("At 0")] == []


def test_a_gradient_is_0_in_float16_where_the_text_on_the_loss_scale_says() -> None:
    assert torch.tensor([2.9e-8, 3.1e-8]).half().tolist() == [0, pytest.approx(6e-8, rel=0.01)]
    assert "below 3e-8, which float16 rounds to 0" in ENDS["loss_scale"][0]


def test_each_explanation_names_a_lab_by_its_title_and_every_field_is_explained() -> None:
    for name, title in LABS.items():
        text = (LABS_FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
        assert f"# {title}" in text, name
    assert set(ENDS) == {*LIVE, *RESTART, *NETWORK}
    assert {each["lab"] for each in list_explanations().values()} <= set(LABS)
