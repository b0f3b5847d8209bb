"""The labs on the map and on the seeds show what their texts say."""

import ast
import re

import pytest
from test_labs import executed
from test_labs_why import LABS, numbers

MAP = LABS / "07_map_of_trainability.ipynb"
SEEDS = LABS / "08_why_is_every_run_different.ipynb"

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def test_part_of_the_map_explodes():
    exploding, cells = numbers(MAP, r"Measured: (\d+) of (\d+)", "share-compare")
    assert cells == 99
    assert 30 < exploding < 70


def test_the_middle_row_explodes_in_part_the_top_one_nearly_everywhere_and_the_bottom_one_nowhere():
    middle, top = numbers(MAP, r"Measured: (\d+) of 11; in the top row (\d+) of 11", "tenth-compare")
    assert 3 <= middle <= 7
    assert 9 <= top <= 11
    rows = ast.literal_eval(executed(MAP)["tenth-run"].strip())
    assert rows[0.5] == 0
    assert list(rows.values()) == sorted(rows.values())


def test_the_edge_is_clean_from_afar_and_torn_close_up():
    torn, torn_before = numbers(MAP, r"Measured: (\d) of 9; on the whole map it was (\d) of 9", "edge-compare")
    assert torn >= 2
    assert torn_before == 0


def test_some_seeds_break_and_some_do_not_and_those_that_do_break_early():
    share, low, high = numbers(SEEDS, r"of 64: (\S+) \((\S+) to (\S+)\)", "odds-compare")
    assert 0.2 <= low < share < high <= 0.8
    updates = list(map(int, re.findall(r"update (\d+)", executed(SEEDS)["ledger"])))
    assert len(updates) == round(share * 64)
    assert max(updates) <= 12


def test_a_seed_repeats_itself_to_the_bit():
    different, costs, _ = numbers(SEEDS, r"Measured: (\d+) of (\d+); it breaks at (\d+) again", "same-compare")
    assert different == 0
    assert costs > 0


def test_groups_of_five_differ_widely():
    spread, least, most = numbers(SEEDS, r"Measured: (\d) \(from (\d) to (\d) of five\)", "few-compare")
    assert spread == most - least >= 2
