"""The labs on the epsilon and on the autopsy show what their texts say."""

import re
from pathlib import Path

import pytest
from test_labs import executed

LABS = Path(__file__).parent.parent / "labs"
EPSILON = LABS / "04_the_epsilon_in_the_softmax.ipynb"
AUTOPSY = LABS / "05_autopsy_of_a_nan.ipynb"

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def numbers(path: Path, pattern: str, name: str) -> tuple[float, ...]:
    """The numbers that a pattern finds in what a cell shows."""
    return tuple(map(float, re.search(pattern, executed(path)[name]).groups()))


def test_a_probability_is_zero_from_a_gap_of_104_on():
    assert numbers(EPSILON, r"Measured: a gap of (\d+)", "gap-compare") == (104,)


def test_an_epsilon_of_1e_8_caps_the_cost_at_18_42_and_leaves_no_gradient_at_200():
    assert numbers(EPSILON, r"Measured: (\S+)\.\n", "cap-compare") == (18.42,)
    assert executed(EPSILON)["cap-run"].count("and 0 of the gradient is left") == 3


def test_the_epsilon_is_silent_in_most_updates_and_log_softmax_in_none():
    silent, exact = numbers(EPSILON, r"Measured: (\d+) of 66 .*, (\d+) with", "dead-compare")
    assert silent > 33
    assert exact == 0


def test_three_ways_to_write_the_cost_have_three_diagnoses():
    lines = executed(EPSILON)["cause-run"].splitlines()
    names = [line.partition(" (0")[0] for line in lines]
    assert names == ["log(0) by saturation", "masked, not mended", "learning rate above critical"]


def test_the_first_nan_is_made_in_an_early_convolution_by_an_overflow():
    assert re.fullmatch(r"update 4, activation of cv[0-3]: overflow\n", executed(AUTOPSY)["place-run"])
    assert "times the critical one" in executed(AUTOPSY)["chain"]


def test_the_rate_is_about_a_hundred_times_too_high_for_raw_pixels_and_below_for_standardised_ones():
    raw, scaled = map(float, re.findall(r"0\.01 is (\S+) times that", executed(AUTOPSY)["critical-run"]))
    assert 80 < raw < 125
    assert scaled < 1


def test_two_of_the_five_posted_remedies_mend():
    assert numbers(AUTOPSY, r"Measured: (\d) of 5", "remedy-compare") == (2,)
    verdicts = executed(AUTOPSY)["remedy-run"]
    assert verdicts.count("does not help:") == 2
    assert verdicts.count("only hides: a safe softmax") == 1


def test_the_warning_leads_the_nan():
    assert numbers(AUTOPSY, r"Measured: (\d) updates before", "warning-compare")[0] >= 1
    assert "SageMaker Debugger: never" in executed(AUTOPSY)["warning-run"]
