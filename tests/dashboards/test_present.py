"""A lab for the projector: what is shown, how large, and how it ends."""

from collections.abc import Iterator

import pytest

import cnnlab
from cnnlab.plots.gauges import PLOTS

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8}


@pytest.fixture
def lab() -> Iterator[cnnlab.Lab]:
    made = cnnlab.Lab("question", present=True, **SMALL)
    yield made
    made.close()


def font(lab: cnnlab.Lab) -> float:
    """The size of the figure's type in pixels."""
    return lab.figure.layout.font.size


def test_it_is_enlarged_and_shows_cost_and_histograms(lab: cnnlab.Lab) -> None:
    assert lab.widgets.header.scale == lab.widgets.controls.scale == 1.5
    assert lab.panels == ("cost", "magnitudes")
    plain = cnnlab.Lab("question", scale=1.5, **SMALL)
    assert font(lab) > 1.5 * font(plain)
    assert "cnnlab-present" in lab.box._dom_classes
    assert "cnnlab-present" not in plain.box._dom_classes
    plain.close()


def test_a_scale_and_panels_that_are_given_are_kept() -> None:
    lab = cnnlab.Lab("question", present=True, scale=2, panels=["cost", "over_time"], **SMALL)
    assert lab.widgets.header.scale == 2
    assert lab.panels == ("cost", "over_time")
    lab.close()


def test_the_page_ends_it_and_all_plots_come_back_at_the_scale_of_the_rest(lab: cnnlab.Lab) -> None:
    lab.step(3)
    before = font(lab)
    lab.received({"present": False})
    assert not lab.present
    assert lab.panels == tuple(PLOTS)
    assert font(lab) < before
    assert "cnnlab-present" not in lab.box._dom_classes
    assert next(trace for trace in lab.figure.data if trace.name == "gradient 0").x.tolist() == [1, 2, 3]
    lab.present = True
    assert lab.panels == ("cost", "magnitudes")
    assert font(lab) == before


def test_plots_chosen_meanwhile_stay_when_it_ends(lab: cnnlab.Lab) -> None:
    lab.panels = ("cost", "ratio")
    lab.present = False
    assert lab.panels == ("cost", "ratio")


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_what_is_no_switch_is_refused_in_a_sentence(lab: cnnlab.Lab, value: object) -> None:
    with pytest.raises(TypeError, match="present must be True or False, got"):
        cnnlab.Lab("question", present=value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="present must be True or False, got"):
        lab.present = value  # type: ignore[assignment]
    lab.received({"present": value})
    assert lab.problem.startswith("present must be True or False, got")
    assert lab.present


def test_a_lab_is_not_for_a_projector_unless_asked() -> None:
    lab = cnnlab.Lab("question", **SMALL)
    assert not lab.present
    assert lab.widgets.header.scale == 1
    assert lab.panels == tuple(PLOTS)
    lab.close()
