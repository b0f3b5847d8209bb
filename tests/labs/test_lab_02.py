"""The lab on starts shows what its sentences say."""

import re

import pytest
from notebooks import execute, find_lab, find_numbers

LAB = find_lab("02")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def test_the_lab_on_starts_measures_what_it_says_of_weights_pixels_and_sums():
    assert find_numbers(LAB, r"Measured: (\d+) times", "scale-compare")[0] > 1000
    unit, standardised = find_numbers(LAB, r"Measured: (\d+) times; standardised (\d+) times", "input-compare")
    assert 100 < standardised < unit < 65_025 / 10
    assert find_numbers(LAB, r"Measured: (\S+)\.$", "sum-compare")[0] == pytest.approx(66, rel=0.01)


def test_the_lab_on_starts_is_saved_from_its_bad_start():
    assert find_numbers(LAB, r"Measured: (\d+) times", "lsuv-compare")[0] > 20
    assert re.search(r"'bad': 'critical \S+, (nan|inf)'", execute(LAB)["lsuv-run"])
    assert find_numbers(LAB, r"'lsuv, scaled': 'critical (\S+), ", "lsuv-run")[0] > 1e-3
