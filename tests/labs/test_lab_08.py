"""The lab on seeds shows what its sentences say."""

import re
from colorsys import rgb_to_hls
from functools import partial

import numpy as np
import pytest
from claims import read_column
from notebooks import execute, find_lab, find_numbers, find_said, read_cell, read_measured, read_text

import cnnlab
from cnnlab.dashboards.seeds import OURS, list_default_remedies
from cnnlab.diagnosis.remedies import TODAYS
from cnnlab.plots.cost_curves import LABEL_COLOURS
from cnnlab.plots.seeds import find_quantiles
from cnnlab.records.map import CONVERGED, DIVERGED, STALLED, label_runs

LAB = find_lab("08")
read_said = partial(find_said, LAB)
FIRST = 32
"""The seeds for which the lab measures critical learning rates."""

HUES = {"dark orange": (10, 40), "olive": (40, 75), "blue": (190, 250)}
"""Name of a colour -> its hues in degrees."""

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def score(numbers: np.ndarray, broke: np.ndarray) -> float:
    """The share of pairs in which the run that diverged has the larger number; a tie counts half."""
    ranked = np.argsort(np.argsort(numbers))[broke] + 1
    assert len(set(numbers)) == len(numbers)
    return float((ranked.sum() - broke.sum() * (broke.sum() + 1) / 2) / (broke.sum() * (~broke).sum()))


def read_fates(count: int = 64) -> np.ndarray:
    """Which of the first seeds diverge within the lab's 20 updates."""
    return read_column("08_throw", "diverged_at")[:count] <= 20


def read_growth() -> np.ndarray:
    """How many times the curvature of its start each of the first seeds has met after two updates."""
    start, later = (read_column("08_throw", f"times_critical_{update}")[:FIRST] for update in (1, 3))
    return later / start


def test_the_colours_of_the_figure_are_those_that_are_told():
    said = read_cell(LAB, "what-you-see").source
    for label, name in ((DIVERGED, "dark orange"), (CONVERGED, "blue"), (STALLED, "olive")):
        hue, *_ = rgb_to_hls(*(int(LABEL_COLOURS[label][place : place + 2], 16) / 255 for place in (1, 3, 5)))
        low, high = HUES[name]
        assert low < 360 * hue < high
        assert name in said


def test_the_three_kinds_of_run_are_those_of_the_map():
    said = read_cell(LAB, "what-you-see").source
    for text in (said, read_cell(find_lab("07"), "map-how").source):
        assert "at least a tenth" in text
        assert "0.69" in text
    assert label_runs(np.array([False] * 3), np.ones(3), np.array([0.89, 0.91, np.log(2)])).tolist() == [
        CONVERGED,
        STALLED,
        STALLED,
    ]
    assert "the stalled ones have the paler beige" in said
    assert "**Beige**: *stalled*" in read_cell(find_lab("07"), "map-how").source


def test_a_cost_that_is_nan_counts_as_infinite_in_the_band():
    assert "the middle 80 % of the seeds; a cost that is `NaN` counts as infinite there" in read_text(LAB)
    assert find_quantiles(np.array([[1.0], [2.0], [np.nan], [np.nan]]))[-1] == np.inf


# Unit 1.


def test_all_seeds_diverge_at_ten_times_the_rate_and_none_at_a_tenth_of_it():
    rates = read_said(r"At learning rate (\S+) all of the 64 seeds diverge. At (\S+) none of them does", "odds-predict")
    fates = [np.isfinite(read_column("08_rates", f"at_{rate:g}")) for rate in rates]
    assert list(map(len, fates)) == [64, 64]
    assert fates[0].all()
    assert not fates[1].any()


def test_some_seeds_diverge_and_some_do_not():
    seeds, broke = read_said(r"of the first (\d+) seeds (\d+), in 20 updates", "odds-predict")
    assert read_fates(int(seeds)).sum() == broke
    assert 10 <= read_fates().sum() <= 32
    (share,) = find_numbers(LAB, r"(\S+) of the seeds diverged", "odds-run")
    assert 10 / 64 <= share <= 32 / 64


def test_runs_that_diverge_do_so_within_the_first_dozen_updates_and_none_follows_later():
    assert "Those that diverge do it early, within the first dozen updates." in read_text(LAB)
    updates = list(map(int, re.findall(r"diverged at update (\d+)", execute(LAB)["ledger"])))
    assert len(updates) == round(64 * find_numbers(LAB, r"(\S+) of the seeds diverged", "odds-run")[0])
    assert max(updates) <= 12
    longer, shorter = read_said(r"With (\d+) updates in place of (\d+), no other of the 64 follows", "odds-explain")
    ends = read_column("08_throw", "diverged_at")
    assert len(ends) == 64
    assert np.isfinite(ends).any()
    assert not ((ends > shorter) & (ends <= longer)).any()
    assert max(ends[np.isfinite(ends)]) <= 12


def test_the_interval_of_64_seeds_is_wide():
    (points,) = read_said(r"The interval is more than (\d+) percentage points wide", "odds-explain")
    _, low, high = find_numbers(LAB, r"(\S+) of the seeds diverged; the interval is (\S+) to (\S+)", "odds-run")
    assert points / 100 < high - low < 2 * points / 100
    assert read_measured(LAB, "odds-compare") == pytest.approx(high - low, abs=0.011)


def test_the_seed_changes_the_weights_and_neither_the_patches_nor_which_of_them_an_update_takes():
    one, other = (cnnlab.Run("question", seed=seed, learning_rate=1e-3) for seed in (0, 1))
    (patches,) = read_said(r"learn from the same (\d+) patches, and every update takes all of them", "odds-explain")
    assert not one.parameters.equal(other.parameters)
    for update in (1, 2):
        (x, y), (same_x, same_y) = one.problem.batch(update), other.problem.batch(update)
        assert x.equal(same_x)
        assert y.equal(same_y)
        assert len(x) == patches


# Unit 2.


def test_a_seed_that_is_trained_again_has_the_same_costs():
    different, costs = find_numbers(LAB, r"(\d+) of (\d+) costs differ the second time", "same-run")
    assert different == 0
    assert costs > 1


def test_nearly_all_that_diverge_do_so_with_more_digits_too_an_update_or_two_later():
    lines = execute(LAB)["same-digits"].splitlines()
    ends = [tuple(map(int, re.findall(r"diverged at update (\d+)", line))) for line in lines]
    assert len(lines) == 10
    assert "Nine of the ten diverge in `float64` as well." in read_text(LAB)
    assert read_measured(LAB, "same-compare") == sum(len(each) == 2 for each in ends) == 9
    assert "They need an update or two more" in read_text(LAB)
    assert {later - first for first, later in (each for each in ends if len(each) == 2)} <= {1, 2}
    short, long = (read_column("08_digits", name) for name in ("float32", "float64"))
    both = np.isfinite(long)
    assert set(long[both] - short[both]) <= {1, 2}


def test_of_32_seeds_one_ends_otherwise_with_more_digits():
    seeds, short, long = read_said(
        r"all of the first (\d+) seeds\. .*: (\d+) diverge in `float32`, (\d+) in `float64`", "same-explain"
    )
    fates = np.isfinite([read_column("08_digits", name) for name in ("float32", "float64")])
    assert fates.shape[1] == seeds
    assert tuple(fates.sum(axis=1)) == (short, long)
    (other,) = np.flatnonzero(fates[0] != fates[1])
    assert read_said(r"The tenth is seed (\d+)", "same-explain") == (other,)


def test_the_one_that_ends_otherwise_has_the_costs_of_float32_as_long_as_those_are_numbers():
    seed, last = map(
        int, read_said(r"seed (\d+)\. Its costs are the same in both up to update (\d+), ", "same-explain")
    )
    short, long = (
        cnnlab.Run("question", learning_rate=1e-3, seed=seed, precision=name) for name in ("float32", "float64")
    )
    for run in (short, long):
        run.advance(20)
    assert short.record.first_nonfinite == last + 1
    assert np.isnan(short.record.cost[last])
    assert short.record.cost[:last] == pytest.approx(long.record.cost[:last], rel=1e-4)
    (back,) = read_said(r"In `float64` it is (\d\.\d+): the run has come back, but only to guessing", "same-explain")
    assert long.record.cost[last] == pytest.approx(back, abs=0.01)
    assert long.record.cost[-1] == pytest.approx(np.log(2), abs=0.001)


def test_the_number_types_have_the_digits_and_the_ends_that_are_told():
    digits = [np.finfo(name).precision + 1 for name in ("float32", "float64")]
    assert digits == [7, 16]
    assert "has about seven digits" in read_text(LAB)
    assert "which has about sixteen digits" in read_text(LAB)
    superscripts = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
    powers = re.findall(r"near 10([⁰-⁹¹²³]+)", read_cell(LAB, "same-predict").source)
    assert [int(power.translate(superscripts)) for power in powers] == [
        int(np.log10(np.finfo(name).max)) for name in ("float32", "float64")
    ]


# Unit 3.


def test_one_group_of_five_sees_no_explosion_and_another_sees_mostly_explosions():
    groups = list(map(int, execute(LAB)["few-run"].split()))
    assert len(groups) == 60
    assert min(groups) == 0
    assert max(groups) >= 3
    assert read_measured(LAB, "few-compare") == max(groups) - min(groups)


def test_two_of_five_runs_leave_the_interval_that_is_told():
    said = read_said(r"If two of five runs diverge, the 95 % interval goes from (\S+) to (\S+) \(", "few-explain")
    assert cnnlab.wilson(2, 5) == pytest.approx(said, abs=0.005)


def test_most_seeds_survive_with_nothing_changed():
    assert "Here it works for more than half of the seeds with nothing changed" in read_text(LAB)
    assert find_numbers(LAB, r"(\S+) of the seeds diverged", "odds-run")[0] < 0.5


def test_four_times_as_many_runs_halve_the_interval():
    widths = [high - low for low, high in (cnnlab.wilson(count // 4, count) for count in (16, 64, 256, 1024))]
    assert widths[1:] == pytest.approx([width / 2 for width in widths[:-1]], rel=0.1)


# Unit 4.


def test_all_starts_are_above_their_critical_learning_rate():
    count, factor = read_said(r"All (\d+) starts are above .*, by a factor of (\d+) or more", "which-explain")
    assert count == FIRST
    assert factor <= find_numbers(LAB, r"smallest at the start: (\S+)", "which-spread")[0] < factor + 1
    assert factor <= read_column("08_throw", "times_critical_1")[:FIRST].min() < factor + 1
    assert (read_column("08_throw", "times_critical_1") > 1).all()


def test_how_far_above_tells_almost_nothing_at_the_start_and_nearly_all_after_two_updates():
    start = read_said(r"the score at the start is (\d\.\d+)", "which-explain")
    later = read_said(r"the same number scores (\S+)\. The cost after two updates scores (\d\.\d+)", "which-explain")
    fates, columns = read_fates(FIRST), ("times_critical_1", "times_critical_3", "cost_3")
    kept = [score(read_column("08_throw", name)[:FIRST], fates) for name in columns]
    assert kept == pytest.approx((*start, *later), abs=0.006)
    here = find_numbers(
        LAB, r"at the start: (\S+)\n.*after two updates: (\S+)\ncost, after two updates: (\S+)", "which-scores"
    )
    assert here == pytest.approx((*start, *later), abs=0.1)
    assert read_measured(LAB, "which-compare") == pytest.approx(here[2], abs=0.006)
    assert "The first idea scores little more than 50 %" in read_text(LAB)
    assert 0.5 < here[0] < 0.6


def test_no_run_has_diverged_after_two_updates():
    (first,) = read_said(r"no run has diverged. Of the 32 runs .*, the first one does at update (\d+)", "which-predict")
    assert read_column("08_throw", "diverged_at")[:FIRST].min() == first > 3


def test_a_number_that_means_nothing_scores_between_the_bounds_that_are_told():
    bounds = read_said(r"a number that means nothing scores between (\S+) and (\S+) in 95 of 100", "which-explain")
    fates, draw = read_fates(FIRST), np.random.default_rng(0)
    scores = [score(draw.random(FIRST), fates) for _ in range(5000)]
    assert np.quantile(scores, (0.025, 0.975)) == pytest.approx(bounds, abs=0.01)


@pytest.mark.parametrize("count", [48, 64])
def test_with_more_seeds_the_scores_say_the_same(count):
    fates = read_fates(count)
    columns = ("times_critical_1", "times_critical_3", "cost_3")
    start, twice, cost = (score(read_column("08_throw", name)[:count], fates) for name in columns)
    assert 0.45 < start < 0.65
    assert min(twice, cost) > 0.9


def test_the_first_two_updates_raise_the_cost_of_nearly_every_run_above_that_of_its_start():
    risen, count = read_said(r"the cost of (\d+) of the (\d+) runs rises above the cost of its start", "which-explain")
    before, *after = (read_column("08_throw", f"cost_{update}")[:FIRST] for update in (1, 2, 3))
    assert (np.maximum(*after) > before).sum() == risen
    assert count == FIRST


def test_most_that_diverge_have_met_a_steeper_place_and_most_that_survive_a_flatter_one():
    steeper = read_said(
        r"Of the (\d+) runs that diverge, (\d+) have landed where the cost curves more", "which-explain"
    )
    flatter = read_said(r"Of the (\d+) that survive, (\d+) have landed where it curves less", "which-explain")
    fates, growth = read_fates(FIRST), read_growth()
    assert steeper == (fates.sum(), (growth[fates] > 1).sum())
    assert flatter == ((~fates).sum(), (growth[~fates] < 1).sum())


def test_the_medians_of_both_groups_part_within_two_updates():
    numbers = r"median (\S+) at the start, (\S+) after two updates"
    diverged = find_numbers(LAB, f"diverged: {numbers}", "which-spread")
    survived = find_numbers(LAB, f"survived: {numbers}", "which-spread")
    assert diverged[1] > 2 * diverged[0]
    assert survived[1] < survived[0]


# The end.


def test_the_remedies_named_at_the_end_are_five_of_the_answer_and_six_more():
    said = "five remedies, and with six more (two of ours, batch normalisation, Adam, shortcuts and a warm-up)"
    assert said in read_text(LAB)
    assert len(OURS) == 2
    assert [each.name.partition(",")[0] for each in TODAYS] == ["batch normalisation", "Adam", "shortcuts", "a warm-up"]
    assert len(list_default_remedies(cnnlab.settings("question"))) == 1 + 5 + 6
