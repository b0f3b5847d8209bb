"""The lab on the epsilon shows what its sentences say."""

import pytest
from notebooks import execute, find_lab, find_numbers

LAB = find_lab("04")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def test_a_probability_is_zero_from_a_gap_of_104_on():
    assert find_numbers(LAB, r"Measured: a gap of (\d+)", "gap-compare") == (104,)


def test_an_epsilon_of_1e_8_caps_the_cost_at_18_42_and_leaves_no_gradient_at_200():
    assert find_numbers(LAB, r"Measured: (\S+)\.\n", "cap-compare") == (18.42,)
    assert execute(LAB)["cap-run"].count("and 0 of the gradient is left") == 3


def test_the_epsilon_is_silent_in_most_updates_and_log_softmax_in_none():
    silent, exact = find_numbers(LAB, r"Measured: (\d+) of 66 .*, (\d+) with", "dead-compare")
    assert silent > 33
    assert exact == 0


def test_three_ways_to_write_the_cost_have_three_diagnoses():
    lines = execute(LAB)["cause-run"].splitlines()
    names = [line.partition(" (0")[0] for line in lines]
    assert names == ["log(0) by saturation", "masked, not mended", "learning rate above critical"]
