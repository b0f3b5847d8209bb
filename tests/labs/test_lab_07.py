"""The lab on the map shows what its sentences say."""

import ast

import pytest
from notebooks import execute, find_lab, find_numbers

LAB = find_lab("07")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def test_part_of_the_map_explodes():
    exploding, cells = find_numbers(LAB, r"Measured: (\d+) of (\d+)", "share-compare")
    assert cells == 99
    assert 30 < exploding < 70


def test_the_middle_row_explodes_in_part_the_top_one_nearly_everywhere_and_the_bottom_one_nowhere():
    middle, top = find_numbers(LAB, r"Measured: (\d+) of 11; in the top row (\d+) of 11", "tenth-compare")
    assert 3 <= middle <= 7
    assert 9 <= top <= 11
    rows = ast.literal_eval(execute(LAB)["tenth-run"].strip())
    assert rows[0.5] == 0
    assert list(rows.values()) == sorted(rows.values())


def test_the_edge_is_clean_from_afar_and_torn_close_up():
    torn, torn_before = find_numbers(LAB, r"Measured: (\d) of 9; on the whole map it was (\d) of 9", "edge-compare")
    assert torn >= 2
    assert torn_before == 0
