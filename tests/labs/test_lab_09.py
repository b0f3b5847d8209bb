"""The lab on networks of one's own shows what its sentences say."""

import re

import pytest
from notebooks import execute, find_lab, find_numbers

LAB = find_lab("09")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def test_the_lab_on_own_networks_breaks_where_it_says_by_a_constant_factor():
    assert find_numbers(LAB, r"Measured: update (\d+)", "slope-compare") == (8,)
    factors = [float(text) for text in re.findall(r"x ([\d.e+]+)", execute(LAB)["slope-run"])]
    assert factors == pytest.approx([(1 - 0.01 * 50055) ** 2] * 5, rel=1e-3)


def test_the_lab_on_own_networks_keeps_its_weight_finite_longer_than_its_cost():
    assert find_numbers(LAB, r"Measured: (\d+); the cost broke at (\d+)", "loop-compare") == (13, 8)
    assert "the gradient of update 14 holds NaN or inf in weight" in execute(LAB)["loop-run"]
    assert abs(find_numbers(LAB, r"the weight is (\S+)", "loop-run")[0]) < 3.4e38


def test_the_lab_on_own_networks_has_a_gradient_that_breaks_before_its_cost():
    assert find_numbers(LAB, r"Measured: update (\d+)", "root-compare") == (2,)
    first, bad, lost = find_numbers(LAB, r"1: cost (\S+), NaN in gradient (\d+), in weights (\d+)", "root-run")
    assert first == pytest.approx(0.2, abs=0.1)
    assert bad >= 16
    assert lost >= 16


def test_the_lab_on_own_networks_trains_on_an_own_image():
    assert "image='own_" in execute(LAB)["ledger"]
