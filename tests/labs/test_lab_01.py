"""The lab on steps shows what its sentences say."""

import re
from itertools import pairwise

import numpy as np
import pytest
from claims import read_column
from notebooks import execute, find_lab, find_numbers, read_measured, read_sentence

import cnnlab

LAB = find_lab("01")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def count_broken(name, key):
    """How many of a claim's seeds break."""
    return int(np.isfinite(read_column(name, key)).sum())


# 1. How far above the critical rate is 0.01?


def test_the_weights_and_the_hessian_are_as_many_as_is_said():
    weights, entries = read_sentence(LAB, "edge-predict", r"([\d,]+) weights, so its Hessian has (\d+) billion")
    count = len(cnnlab.Run("question").parameters)
    assert round(count, -3) == weights
    assert round(count**2 / 1e9) == entries


def test_seed_0_is_almost_a_hundred_times_about_ten_times_and_just_below_its_critical_rate():
    read_sentence(
        LAB, "edge-explain", r"0\.01 is almost a hundred times too high, 0\.001 about ten times, and 0\.0001 is just"
    )
    times = read_measured(LAB, "edge-compare")
    assert 90 < times < 100
    assert 0.9 < 0.0001 / 0.01 * times < 1


def test_over_32_seeds_the_critical_rate_has_the_spread_that_is_said():
    said = read_sentence(LAB, "edge-explain", r"goes from (\S+) to ([\d.]+), .* of them from (\S+) to (\S+)\. Does")
    assert len(read_column("01_multiples", "critical")) == 32
    low, first, third, high = np.quantile(read_column("01_multiples", "critical"), (0, 0.25, 0.75, 1))
    assert said == pytest.approx((low, high, first, third), rel=0.03)


def test_fewer_products_than_is_said_find_the_curvature_of_every_start():
    (most,) = read_sentence(LAB, "edge-explain", r"fewer than (\d+) products")
    assert max(read_column("01_multiples", "products")) < most


# 2. Does every run above its critical rate diverge?


def test_as_many_runs_diverge_at_each_multiple_as_is_said():
    below, between, above = find_numbers(LAB, r"\{0.5: (\d), 4: (\d), 64: (\d)\}", "gamble-run")
    assert (below, between) == (0, 0)
    assert read_measured(LAB, "gamble-compare") == above
    said = read_sentence(LAB, "gamble-explain", r"(none) diverges at half .*, (none) at 4 times, and (\d+) at 64 times")
    assert said == tuple(count_broken("01_multiples", f"times_{times}") for times in ("0.5", "4", "64"))
    assert said[1:] == read_sentence(LAB, "three-sentences", r"(none) of 32 seeds diverged, at 64 times (\d+) did")


def test_of_the_seeds_with_the_lowest_critical_rates_most_live_at_64_times_and_of_the_others_one():
    read_sentence(LAB, "gamble-explain", "Of the six seeds .* five live at 64 times; of the other 26 only one does")
    lives = ~np.isfinite(read_column("01_multiples", "times_64"))[np.argsort(read_column("01_multiples", "critical"))]
    assert (sum(lives[:6]), sum(lives[6:])) == (5, 1)


def run_far_above(seed):
    """The curvature of a seed at 64 times its critical rate at the start and after three updates, and the run."""
    start = cnnlab.critical_learning_rate(cnnlab.Run("question", seed=seed))
    run = cnnlab.Run("question", seed=seed, learning_rate=64 * start.value)
    run.advance(2 if seed == 0 else 3)
    return start.eigenvalue, cnnlab.critical_learning_rate(run).eigenvalue, run


def test_the_seed_that_is_caught_has_been_far_worse_and_its_curvature_falls_as_is_said():
    before, after, run = run_far_above(1)
    assert after < before / 10
    assert not run.advance(17).nonfinite
    assert max(run.record.cost) > 10 * run.record.cost[0]


def test_the_curvature_of_the_seed_that_diverges_grows():
    before, after, _ = run_far_above(0)
    assert not after < before


# 3. What does the curvature do while the network learns?


def read_shares():
    """The shares of the critical curvature that the lab prints."""
    shares = [float(text) for text in re.findall(r"\d\.\d*", execute(LAB)["stability-run"])]
    assert len(shares) == 21
    return shares


def test_the_curvature_falls_leaps_climbs_and_ends_close_to_what_the_rate_allows():
    shares = read_shares()
    assert shares[0] == pytest.approx(
        *read_sentence(LAB, "stability-predict", r"λ is ([\d.]+) times that before"), abs=0.05
    )
    read_sentence(LAB, "stability-explain", "Within six updates it falls to about half .* with one jump upwards")
    low = int(np.argmin(shares[:7]))
    assert 0.35 < shares[low] < 0.6
    assert sum(later > 1.3 * earlier for earlier, later in pairwise(shares[: low + 1])) == 1
    assert 0.85 < shares[-1] < 1.15
    assert read_measured(LAB, "stability-compare") == pytest.approx(shares[-1], abs=0.01)


def test_over_32_seeds_and_three_rates_the_curvature_comes_as_near_as_is_said():
    low, high, first, third = read_sentence(
        LAB, "stability-explain", r"is ([\d.]+) to ([\d.]+) times .* half of the seeds ([\d.]+) to ([\d.]+) times"
    )
    used = np.array([read_column("01_stability", f"at_{rate}") for rate in (1e-4, 2e-4, 4e-4)])
    assert used.shape == (3, 32)
    assert (used.min(), used.max()) == pytest.approx((low, high), abs=0.05)
    quartiles = np.quantile(used, (0.25, 0.75), axis=1)
    assert (quartiles.min(), quartiles.max()) == pytest.approx((first, third), abs=0.01)


def test_over_32_seeds_the_curvature_begins_where_is_said():
    said = read_sentence(LAB, "stability-explain", r"At the start, for 0\.0002, it is ([\d.]+) to ([\d.]+) times")
    start = read_column("01_stability", "start")
    assert (min(start), max(start)) == pytest.approx(said, rel=0.02)


def test_seed_0_ends_near_the_line_of_other_rates_too():
    said = read_sentence(LAB, "stability-explain", r"has another value, ([\d.]+) and ([\d.]+) times that of \*its\*")
    ends = [read_column("01_stability", f"at_{rate}")[0] for rate in (1e-4, 4e-4)]
    assert said == pytest.approx(ends, abs=0.01)
    assert ends[0] * 2 / 1e-4 > 2 * ends[1] * 2 / 4e-4  # so the values themselves are not alike


# 4. How does a run come to a high learning rate?


def test_plain_seed_0_diverges_and_warm_up_and_clipping_keep_it_alive():
    warm, clipped = find_numbers(LAB, r"'plain': 'nan', 'warm-up': '(\S+)', 'clipped': '(\S+)'\}", "high-run")
    assert read_measured(LAB, "high-compare") == pytest.approx(clipped / warm, rel=0.01)


def test_a_warm_up_begins_at_the_share_of_the_rate_that_is_said_and_ends_when_it_is_said():
    read_sentence(LAB, "high-predict", "a hundredth of 0.001 at first, and rises to 0.001 over the first ten of 40")
    start = cnnlab.settings("question", learning_rate=1e-3)
    run = cnnlab.Run(start, plan=cnnlab.rate_plan("warm_up", start, 40))
    run.advance(12)
    rates = [frame.knobs.learning_rate for frame in run.record.frames]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[9] < rates[10] == rates[11] == 1e-3


def test_of_32_seeds_as_many_diverge_plain_warmed_up_and_clipped_as_is_said():
    said = read_sentence(
        LAB, "high-explain", r"Of 32 seeds, (\d+) diverge .* with warm-up (none) does, and with clipping (none)"
    )
    assert said == tuple(count_broken("01_high", key) for key in ("plain", "warm", "clipped"))
    assert said[0] == read_sentence(LAB, "three-sentences", r"where (\d+) of 32 seeds diverged, none did")[0]


def test_clipping_ends_higher_than_warm_up_for_every_seed_and_caps_every_step():
    (times,) = read_sentence(LAB, "high-explain", r"for each of the 32 seeds \(([\d.]+) times or more\)")
    factors = read_column("01_high", "clipped_cost") / read_column("01_high", "warm_cost")
    assert len(factors) == 32
    assert min(factors) == pytest.approx(times, abs=0.05)
    (least,) = read_sentence(LAB, "high-explain", r"longer than 1 \(for each seed (\d+) times or more\)")
    assert least <= min(read_column("01_high", "shortest_gradient")) < least + 1


def test_at_its_end_a_warm_up_is_still_above_the_critical_rate_but_less():
    now, before = read_sentence(
        LAB, "high-explain", r"but by ([\d.]+) times in the median and no longer by ([\d.]+), as at"
    )
    used = read_column("01_high", "warm_used")
    assert min(used) > 1
    assert np.median(used) == pytest.approx(now, abs=0.05)
    assert 0.001 / np.median(read_column("01_multiples", "critical")) == pytest.approx(before, abs=0.05)


def test_the_safe_run_s_cost_rises_once_and_its_rate_exceeds_one_ten_thousandth_for_two_updates():
    run = cnnlab.Run("question", learning_rate=1e-3)
    cnnlab.advance_safely(run, 40)
    rates = [frame.knobs.learning_rate for frame in run.record.frames]
    assert list(np.diff(run.record.cost) > 0) == [True] + [False] * 38
    assert sum(rate > 1e-4 for rate in rates) == 2
    assert rates[-1] == pytest.approx(3e-5, rel=0.05)
    assert find_numbers(LAB, r"last cost (\S+)", "high-safe")[0] == pytest.approx(run.record.cost[-1], rel=0.01)


def test_along_the_first_step_the_cost_falls_by_more_than_half_where_the_critical_rate_is_a_tenth():
    cost, critical = find_numbers(LAB, r"0\.1: cost ([\d.]+), critical rate (\S+)", "high-along")
    start = cnnlab.Run("question")
    assert cost < start.step().cost / 2
    assert critical == pytest.approx(0.1 * 0.01 / read_measured(LAB, "edge-compare"), rel=0.1)
    assert find_numbers(LAB, r"0\.5: cost ([\d.]+)", "high-along")[0] > 15


def test_the_critical_rate_of_a_column_of_0_to_99_is_as_is_said():
    (said,) = read_sentence(LAB, "build-spec", r"beside a column of ones it is ([\d.]+)\. So")
    table = np.stack([np.arange(100), np.ones(100)], axis=1)
    assert 200 / np.linalg.norm(table, 2) ** 2 == pytest.approx(said, rel=1e-4)
    assert said < 0.001
