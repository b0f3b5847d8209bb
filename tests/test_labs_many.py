"""The labs on the map and on the seeds show what their texts say."""

import re

import pytest
from test_labs import executed
from test_labs_why import LABS, numbers

MAP = LABS / "07_map_of_trainability.ipynb"
SEEDS = LABS / "08_why_is_every_run_different.ipynb"

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def test_part_of_the_map_explodes():
    exploding, cells = numbers(MAP, r"Measured: (\d+) of (\d+)", "share-compare")
    assert cells == 30
    assert 5 < exploding < 25


def test_a_lower_rate_mends_the_lowest_row_that_explodes_and_not_the_top_one():
    low, top = numbers(MAP, r"Measured: (\d) of 6; in the top row (\d) of 6", "tenth-compare")
    assert 0 < low < 6
    assert top == 6


def test_near_the_edge_all_three_outcomes_lie_close_together():
    exploding, cells = numbers(MAP, r"Measured: (\d+) of (\d+)", "edge-compare")
    assert 0 < exploding < cells == 30
    finer = executed(MAP)["ledger"].splitlines()[-1]
    assert all(label in finer for label in ("converged", "diverged", "stalled"))


def test_some_seeds_break_and_some_do_not_and_those_that_do_break_early():
    share, low, high = numbers(SEEDS, r"of 24: (\S+) \((\S+) to (\S+)\)", "odds-compare")
    assert 0 < low < share < high < 1
    updates = list(map(int, re.findall(r"update (\d+)", executed(SEEDS)["ledger"])))
    assert len(updates) == round(share * 24)
    assert max(updates) <= 10


def test_a_seed_repeats_itself_to_the_bit():
    different, costs, _ = numbers(SEEDS, r"Measured: (\d+) of (\d+); it breaks at (\d+) again", "same-compare")
    assert different == 0
    assert costs > 0


def test_groups_of_five_differ_widely():
    spread, least, most = numbers(SEEDS, r"Measured: (\d) \(from (\d) to (\d) of five\)", "few-compare")
    assert spread == most - least >= 2
