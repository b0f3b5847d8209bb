"""The lab on rewinding shows what its sentences say."""

import re

import pytest
from notebooks import execute, find_lab, find_numbers, read_cell

from cnnlab import Run

LAB = find_lab("06")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def film() -> list[tuple[float, float]]:
    """Cost and largest update/weight ratio of each update up to the one that breaks."""
    lines = re.findall(r"^\d+: cost (\S+), update/weight (\S+)$", execute(LAB)["rule-run"], re.MULTILINE)
    return [(float(cost), float(ratio)) for cost, ratio in lines]


def test_the_lab_on_rewinding_says_where_its_run_breaks():
    assert find_numbers(LAB, r"the cost breaks at update (\d+)", "rule-compare") == (9,)
    assert "`NaN` from the ninth on" in read_cell(LAB, "film").source
    costs = [cost for cost, _ in film()]
    assert len(costs) == 9
    assert all(cost < float("inf") for cost in costs[:-1])


def test_the_lab_on_rewinding_was_last_in_order_long_before_it_breaks():
    assert find_numbers(LAB, r"Measured: update (\d+)", "rule-compare") == (1,)
    (start, _), (low, _), (high, _), (back, _), *rest = film()
    assert low < start / 2
    assert high > 1000
    assert low < back < high
    assert not any(cost <= low for cost, _ in rest)


def test_the_lab_on_rewinding_gives_the_first_lab_s_alarm_several_updates_later():
    alarm = next(step for step, (_, ratio) in enumerate(film(), start=1) if ratio > 10)
    assert alarm >= 1 + 1 + 3


def test_the_lab_on_rewinding_explodes_a_second_time_to_the_bit():
    assert find_numbers(LAB, r"Measured: update (\d+); (\d+) of 20", "again-compare") == (9, 0)


def test_the_lab_on_rewinding_is_saved_by_clipping_but_not_an_update_too_late():
    times, late, early = find_numbers(LAB, r"Measured: (\d+) times \((\S+) against (\S+)\)", "late-compare")
    assert 4 < early < 8
    assert 1000 < late < 1200
    assert times > 100


def test_the_lab_on_rewinding_s_leap_was_longer_than_a_thousand_clipped_steps():
    run = Run("question", seed=23, learning_rate=1e-3)
    run.advance(2)
    assert run.record.total_gradient_norm[1] > 1000


def test_the_lab_on_rewinding_is_saved_later_by_a_lower_rate_until_it_is_too_late():
    latest, coins, forks = find_numbers(LAB, r"Measured: update (\d+)\. Near a coin .*: (\d) of (\d)", "rate-compare")
    ends = [float(cost) for cost in re.findall(r"'\d: (\S+)'", execute(LAB)["rate-run"])]
    assert 3 <= latest <= 7
    assert coins == forks
    assert sum(0.6 < cost < 1.05 for cost in ends[: int(latest) + 1]) > forks / 2
    assert all(cost != cost for cost in ends[int(latest) + 1 :])
    # The cost of update k + 1 is what update k has left.
    assert film()[int(latest)][0] > 10_000


def test_the_lab_on_rewinding_keeps_its_branches_in_the_ledger():
    lines = execute(LAB)["ledger"].splitlines()
    assert len(lines) == 2 + 2 + 9
    assert sum("clip='norm'" in line for line in lines) == 2
    assert sum("learning_rate=0.0001 from update" in line or "learning_rate=0.0001," in line for line in lines) == 9


def test_the_lab_on_rewinding_s_rule_finds_the_latest_rescue():
    assert execute(LAB)["solved"].strip() == "Right! The rule says [1, 1]."
