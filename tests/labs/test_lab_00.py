"""The first lab shows what its sentences say."""

import re
from itertools import pairwise

import pytest
from notebooks import execute, find_lab, find_numbers

LAB = find_lab("00")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def test_the_first_lab_s_network_breaks_in_epoch_4_or_5():
    assert find_numbers(LAB, r"Measured: epoch (\d+)", "explosion-compare")[0] in (4, 5)


def test_the_first_lab_s_cost_grows_by_an_ever_larger_factor():
    costs = [float(text) for text in re.findall(r"'([^']+)'", execute(LAB)["explosion-run"])]
    factors = [after / before for before, after in pairwise(costs) if after < float("inf")]
    assert len(factors) >= 2
    assert factors == sorted(factors)


def test_the_first_lab_s_gamble_is_lost_by_all_by_some_and_by_none():
    high, middle, low = find_numbers(LAB, r"\{0.01: (\d), 0.001: (\d), 0.0001: (\d)\}", "gamble-run")
    assert (high, low) == (8, 0)
    assert 1 <= middle <= 7


def test_the_first_lab_s_mended_run_ends_lower_than_it_began():
    first, last = find_numbers(LAB, r"cost fell from (\S+) to (\S+) in 19 updates", "gamble-mend")
    assert last < first


def test_the_first_lab_s_alarm_comes_before_the_cost_breaks():
    alarm, broke = find_numbers(LAB, r"Measured: epoch (\d+); the cost breaks in epoch (\d+)", "warning-compare")
    assert 2 <= broke - alarm <= 3


def test_the_first_lab_s_first_update_is_far_from_healthy():
    assert find_numbers(LAB, r"1: .* ratio (\S+)", "warning-run")[0] > 0.2


def test_the_first_lab_s_network_survives_small_pixels_near_the_cost_of_a_coin():
    assert find_numbers(LAB, r"Measured: epoch (\d+)", "input-compare") == (0,)
    assert find_numbers(LAB, r"cost fell from \S+ to (\S+) in 19 updates", "input-run")[0] == pytest.approx(
        0.693, abs=0.03
    )
