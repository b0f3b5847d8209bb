"""The lab on rewinding shows what its sentences say."""

import re
from functools import partial

import notebooks
import numpy as np
import pytest
from claims import read_column
from handmade import record_of
from notebooks import execute, find_lab, find_numbers, read_measured, read_text

from cnnlab import Run, before_explosion

LAB = find_lab("06")
find_said = partial(notebooks.find_said, LAB)
CLAIM = "06_rescue"

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def read_film() -> np.ndarray:
    """Cost and largest update/weight ratio of each update up to the one that breaks, in two rows."""
    lines = re.findall(r"^\d+: cost (\S+), update/weight (\S+)$", execute(LAB)["rule-run"], re.MULTILINE)
    return np.array(lines, dtype=float).T


def read_lower() -> np.ndarray:
    """The last costs of the forks with a lower rate, by the update at which they leave."""
    return np.array(re.findall(r"^\d+: cost (\S+)$", execute(LAB)["rate-run"], re.MULTILINE), dtype=float)


def test_the_run_breaks_where_the_lab_says():
    (broke,) = find_said(r"the cost is `NaN` from update (\d+) on\.")
    cost, _ = read_film()
    assert len(cost) == broke == 1 + find_said(r"the cost of update (\d+), the last one that is a number")[0]
    assert np.isfinite(cost[:-1]).all()
    assert np.isnan(cost[-1])


def test_the_run_was_last_in_order_before_the_cost_rose_over_a_thousand():
    cost, ratio = read_film()
    start, low = find_said(r"Update 1 does well: the cost falls from (\d+) to (\d+)\.")
    (back,) = find_said(r"Update 3 brings the cost down again, to (\d+)\.")
    assert cost[:2].round().tolist() == [start, low]
    assert cost[2] > 1000
    assert cost[3].round() == back
    assert not (cost[3:] <= low).any()
    assert "at most twice the least so far" in read_text(LAB)
    (length,) = find_said(r"its step is at most (\d+) times as long")
    good = [step for step in range(1, len(cost)) if cost[step] <= 2 * cost[:step].min() and ratio[step - 1] <= length]
    assert max(good) == read_measured(LAB, "rule-compare") == 1
    assert "Update 2 leaves a cost of more than a thousand, and no update after it is good" in read_text(LAB)
    (longest,) = find_said(
        r"The first step more than 10 times as long as a layer's weights is update (\d+), four updates"
    )
    assert longest == 1 + np.flatnonzero(ratio > 10)[0] == 2 + 4


def test_the_gradients_are_as_long_as_the_lab_says():
    run = Run("question", seed=23, learning_rate=1e-3)
    run.advance(3)
    _, second, third = run.record.total_gradient_norm
    said, step = find_said(r"At update 2 it is ([\d,]+) long, and the step 0\.001 × [\d,]+ = ([\d.]+) goes")
    assert round(second) == said
    assert step == pytest.approx(second / 1000, abs=0.05)
    assert find_said(r"There the gradient is longer, ([\d,]+) at update 3") == (round(third),)
    moved, each, left, whole = find_said(
        r"moved the weights by ([\d.]+)\. A clipped step .* by ([\d.]+), and the (\d+) that are left by ([\d.]+):"
    )
    assert (moved, each, left) == (step, 0.001, 20 - 2)
    assert whole == pytest.approx(left * each)
    assert left * each < second / 1000 / 50


def test_few_runs_that_explode_have_a_good_update_and_the_first_step_too_long_is_made_well_before_the_end():
    count, none = find_said(r"Of (\d+) starts that explode at this rate, (\d+) have none: the last good update is 0")
    safe, broke = read_column(CLAIM, "safe"), read_column(CLAIM, "broke")
    assert (len(safe), (safe == 0).sum()) == (count, none)
    assert np.isfinite(broke).all()
    assert "in all of 32 such runs it came five updates or more before the first cost that is not finite" in read_text(
        LAB
    )
    assert (broke - safe).min() == 5


def test_the_rule_is_forgiving():
    assert "after a bad update, a later one that keeps both parts is good again" in read_text(LAB)
    assert before_explosion(record_of([5.0, 300.0, 4.0, 900.0, np.nan])) == 2


def test_a_run_taken_back_repeats_itself_to_the_bit():
    assert find_numbers(LAB, r"^(\d+) costs differ", "again-run") == (0,)
    (count,) = find_said(r"The same was done with (\d+) starts that explode: none of their costs differed")
    different = read_column(CLAIM, "different")
    assert len(different) == count
    assert not different.any()


def test_a_thousandth_more_rate_changes_the_next_cost_little_and_the_last_one_much():
    times = [float(text) for text in re.findall(r"^update \d+: (\S+)$", execute(LAB)["again-change"], re.MULTILINE)]
    rate, old = find_said(r"with a learning rate of (\S+) in place of (\S+)\. That is a thousandth more")
    assert rate / old == pytest.approx(1.001)
    first, percent = find_said(r"the first cost that can differ is that of update (\d+)\. It is only (\S+) % higher")
    assert times[: int(first) - 1] == [1] * (int(first) - 1)
    assert times[int(first) - 1] == pytest.approx(1 + percent / 100, abs=1e-3)
    assert "Five updates later the cost is thousands of times as high" in read_text(LAB)
    assert len(times) == first + 5
    assert 1000 < times[-1] < 100_000
    assert read_measured(LAB, "again-compare") == pytest.approx(times[-1], rel=0.05)


def test_a_thousandth_more_rate_moves_the_last_cost_of_many_starts_by_more_than_a_factor_of_two():
    (percent,) = find_said(r"the first cost that can differ changes by (\S+) % at most")
    assert 100 * np.abs(read_column(CLAIM, "changed_first") - 1).max() <= percent
    factor, many = find_said(r"changes by more than a factor of (\d+), up or down, with (\d+) of them")
    assert (np.abs(np.log(read_column(CLAIM, "changed_last"))) > np.log(factor)).sum() == many


def test_clipping_saves_the_run_but_not_an_update_too_late():
    begun, end, late_begun, late_end = find_numbers(
        LAB, r"after update 1: (\S+) -> (\S+)\nclip after update 2: (\S+) -> (\S+)", "late-costs"
    )
    low, end_said, high = find_said(
        r"The early branch goes down from (\d+) to about (\d+)\. The late one begins at (\d+)"
    )
    assert (round(begun), round(end), round(late_begun)) == (low, end_said, high)
    assert "still has a cost of nearly a thousand at the end" in read_text(LAB)
    assert 900 < late_end < 1100
    assert read_measured(LAB, "late-compare") == pytest.approx(late_end / end, rel=0.01)


def test_clipping_saves_every_run_from_the_last_good_update_and_hardly_any_from_the_next():
    count, saved = find_said(
        r"Tried with (\d+) starts that explode: clipped from the last good update, all (\d+) end below"
    )
    (too_late,) = find_said(r"Clipped one update later, (\d+) do\.")
    early, late = read_column(CLAIM, "early_saved"), read_column(CLAIM, "late_saved")
    assert (len(early), early.sum(), late.sum()) == (count, saved, too_late)


def test_a_lower_rate_saves_the_run_later_than_clipping_until_it_is_too_late():
    last, lost = find_said(
        r"here even after update (\d+), which has left a cost of more than 20,000\. .* after update (\d+)"
    )
    ends, (cost, _) = read_lower(), read_film()
    assert read_measured(LAB, "rate-compare") == last == lost - 1
    assert cost[int(last)] > 20_000  # of update k + 1, which update k has left
    assert (ends[: int(lost)] < cost[0]).all()
    assert np.isnan(ends[int(lost) :]).all()


def test_a_lower_rate_saves_every_run_that_explodes_until_a_few_updates_before_the_end():
    (count,) = find_said(
        r"So it was with (\d+) starts that explode: each has a latest update from which the lower rate saves"
    )
    nearest, farthest = find_said(
        r"always later than the last good one, and (\d) to (\d) updates before the first cost"
    )
    broke, latest, safe = (read_column(CLAIM, key) for key in ("broke", "latest", "safe"))
    assert len(broke) == count
    assert ((broke - latest).min(), (broke - latest).max()) == (nearest, farthest)
    assert (latest > safe).all()
    assert not read_column(CLAIM, "gaps").any()


def test_an_earlier_rescue_is_not_a_better_one_and_none_has_learned():
    best, count = find_said(r"In only (\d+) of the (\d+) does the earliest, at the start, end with the lowest cost")
    earliest = read_column(CLAIM, "earliest_is_best")
    assert (earliest.sum(), len(earliest)) == (best, count)
    accuracies = [float(text) for text in re.findall(r"0\.\d\d", execute(LAB)["rate-place"].partition("accuracy:")[2])]
    assert len(accuracies) == 1 + read_measured(LAB, "rate-compare")
    assert all(abs(accuracy - 0.5) < 0.1 for accuracy in accuracies)
    (most,) = find_said(r"of those of all 32 starts, none gets more than (0\.\d+)\.")
    assert round(read_column(CLAIM, "most_accurate").max(), 2) == most


def test_a_lower_rate_leaps_from_a_sharply_curved_place_into_a_flatter_one():
    fork, then = find_numbers(LAB, r"critical learning rate: (\S+) at the fork, (\S+) then", "rate-place")
    assert fork < 1e-4 / 100
    assert then > 100 * fork
    assert "with all 32 starts the last place was flatter than the first" in read_text(LAB)
    assert read_column(CLAIM, "flatter").all()
    assert read_column(CLAIM, "above_critical").all()


def test_the_ledger_tells_of_each_branch():
    lines = execute(LAB)["ledger"].splitlines()
    assert len(lines) == 3 + 2 + 9
    assert sum("clip='norm'" in line for line in lines) == 2
    assert sum("learning_rate=0.0001 from update" in line or "learning_rate=0.0001," in line for line in lines) == 9
