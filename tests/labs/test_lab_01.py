"""The lab on steps shows what its sentences say."""

import pytest
from notebooks import find_lab, find_numbers

LAB = find_lab("01")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def test_the_lab_on_steps_is_far_above_the_edge_at_the_question_s_rate():
    assert 50 < find_numbers(LAB, r"Measured for seed 0: (\d+) times", "edge-compare")[0] < 150


def test_the_lab_on_steps_loses_no_run_below_the_edge_and_some_far_above():
    below, between, above = find_numbers(LAB, r"\{0.5: (\d), 4: (\d), 64: (\d)\}", "gamble-run")
    assert below == 0
    assert between <= above
    assert 2 <= above <= 3


def test_the_lab_on_steps_ends_near_the_edge_of_stability():
    assert 0.7 < find_numbers(LAB, r"Measured: (\S+)\.$", "stability-compare")[0] < 1.2


def test_the_lab_on_steps_is_saved_by_warm_up_and_by_clipping():
    assert find_numbers(LAB, r"Measured: (\d) of 3", "high-compare") == (2,)
    warm, clipped, safe = find_numbers(LAB, r"'warm-up': (\S+),\s+'clipped': (\S+),\s+'safe': (\S+)\}", "high-run")
    assert warm < min(clipped, safe)
