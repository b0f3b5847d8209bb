"""The lab on seeds shows what its sentences say."""

import re

import pytest
from notebooks import execute, find_lab, find_numbers

LAB = find_lab("08")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def test_some_seeds_break_and_some_do_not_and_those_that_do_break_early():
    share, low, high = find_numbers(LAB, r"of 64: (\S+) \((\S+) to (\S+)\)", "odds-compare")
    assert 0.2 <= low < share < high <= 0.8
    updates = list(map(int, re.findall(r"update (\d+)", execute(LAB)["ledger"])))
    assert len(updates) == round(share * 64)
    assert max(updates) <= 12


def test_a_seed_repeats_itself_to_the_bit():
    different, costs, _ = find_numbers(LAB, r"Measured: (\d+) of (\d+); it breaks at (\d+) again", "same-compare")
    assert different == 0
    assert costs > 0


def test_groups_of_five_differ_widely():
    spread, least, most = find_numbers(LAB, r"Measured: (\d) \(from (\d) to (\d) of five\)", "few-compare")
    assert spread == most - least >= 2
