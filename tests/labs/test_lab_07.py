"""The lab on the map shows what its sentences say."""

import ast
import re
from functools import partial

import notebooks
import numpy as np
import pytest
from claims import read_column
from notebooks import execute, find_lab, find_numbers, read_measured, read_text

import cnnlab

LAB = find_lab("07")
find_said = partial(notebooks.find_said, LAB)
OUTER, MIDDLE = "07_outer_rows", "07_middle_row"

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def read_rows() -> dict[float, int]:
    """Scale -> how many cells of its row of the whole map diverge."""
    return {float(scale): count for scale, count in ast.literal_eval(execute(LAB)["map-run"].splitlines()[0]).items()}


def read_fates() -> tuple[np.ndarray, np.ndarray]:
    """The learning rates of the first unit, and the update at which each run diverges (0: it does not)."""
    lines = execute(LAB)["row-run"].splitlines()
    rates = [float(re.match(r"learning_rate ([\d.e-]+), seed 0: ", line)[1]) for line in lines]
    ends = [re.search(r"diverged at update (\d+)$", line) for line in lines]
    return np.array(rates), np.array([int(end[1]) if end else 0 for end in ends])


def test_the_scale_of_the_preset_is_the_one_that_the_head_names():
    assert find_said(r"question's formula gives; the preset `question`, which most labs use, has ([\d.]+)\. ") == (
        cnnlab.settings("question").init_scale,
    )


def test_the_rate_of_the_question_is_where_the_lab_says_it_is():
    rates, _ = read_fates()
    assert "the question's rate, 0.01, is the ninth" in read_text(LAB)
    assert rates[9 - 1] == 0.01
    assert rates[1:] / rates[:-1] == pytest.approx(10**0.5, rel=0.01)


def test_a_row_diverges_from_one_place_on_and_the_sooner_the_higher_the_rate():
    rates, ends = read_fates()
    (edge,) = find_said(r"below 0\.001 no run diverges, and from ([\d.]+) on each does")
    assert ((ends > 0) == (rates >= edge)).all()
    assert read_measured(LAB, "row-compare") == (rates >= edge).sum()
    late, soon = find_said(r"after (\d+) updates at 0\.001, after (\d+) at 0\.1")
    assert (ends[rates == 0.001], ends[rates == 0.1]) == (late, soon)
    assert (np.diff(ends[ends > 0]) <= 0).all()


def test_the_edge_moves_to_the_left_with_every_row_upwards():
    rows = read_rows()
    assert len(rows) == 9
    assert set(np.diff(list(rows.values()))) <= {1, 2}
    assert "it moves to the left with every row upwards, by one cell or two" in read_text(LAB)
    assert read_measured(LAB, "map-compare") == rows[2.0] - rows[0.5]
    assert np.exp(np.mean(np.diff(np.log(list(rows))))) == pytest.approx(
        find_said(r"by a factor of (1\.\d+)\.")[0], abs=0.01
    )


def test_nothing_diverges_or_converges_in_the_bottom_row_of_the_map():
    assert read_rows()[0.5] == 0
    assert "none converges either: all eleven are beige" in read_text(LAB)
    assert "labels in the bottom row: {'stalled'}" in execute(LAB)["map-run"]


def test_eight_starts_diverge_at_twice_the_weights_and_hardly_at_half():
    fewest, most, half = find_said(
        r"at twice the weights (\d) or (\d) of the six diverge, at half the weights (\d) at most"
    )
    twice = read_column(OUTER, "twice_diverged")
    assert len(twice) == 8
    assert (twice.min(), twice.max()) == (fewest, most)
    assert read_column(OUTER, "half_diverged").max() == half
    assert "and there none converges" in read_text(LAB)
    assert not read_column(OUTER, "half_converged").any()


def test_half_the_scale_makes_the_output_512_times_smaller_and_the_gradient_shorter_still():
    said = find_said(r"The first gradient is ([\d.]+) long at scale 0\.5, ([\d,]+) at 1, and ([\d,]+) at 2\.")
    starts = [cnnlab.Run("question", init_scale=scale) for scale in (0.5, 1.0, 2.0)]
    outputs = [start.descent.outputs(start.state, start.problem.data[0]).abs().max().item() for start in starts]
    (times,) = find_said(r"makes the output 2⁹ = (\d+) times smaller")
    assert outputs[1] / outputs[0] == pytest.approx(times, rel=1e-3)
    for start, length in zip(starts, said, strict=True):
        start.step()
        assert start.record.total_gradient_norm[0] == pytest.approx(length, rel=0.01)


def test_the_cell_of_the_lowest_cost_gets_little_more_than_half_of_the_new_patches_right():
    low, share = find_numbers(LAB, r"lowest cost (\S+): (\S+) of the new patches right", "learned-run")
    assert "The cell with the lowest cost gets little more than half of the new patches right" in read_text(LAB)
    assert 0.5 < share < 0.58
    assert read_measured(LAB, "learned-compare") == pytest.approx(share, abs=0.01)
    _, high = find_numbers(LAB, r"most right: (\S+), at cost (\S+)", "learned-run")
    assert "Its cost is far higher, and most blue cells have a lower one" in read_text(LAB)
    assert high > 10 * low


def test_the_best_blue_cell_gets_two_of_three_new_patches_right_and_guessing_nearly_as_many():
    best, _ = find_numbers(LAB, r"most right: (\S+), at cost (\S+)", "learned-run")
    assert "Another cell is the best on new patches: it gets about two of three right" in read_text(LAB)
    assert best == pytest.approx(2 / 3, abs=0.04)
    count, patches, lucky = find_said(
        r"If (\d+) networks merely guess on (\d+) patches, the best .* about ([\d.]+) right"
    )
    assert find_numbers(LAB, r"^(\d+) cells converged", "learned-run") == (count,)
    assert len(cnnlab.Run("question").problem.held_out[0]) == patches
    right = np.random.default_rng(0).binomial(int(patches), 0.5, (4000, int(count))).max(axis=1) / patches
    assert right.mean() == pytest.approx(lucky, abs=0.01)


def test_no_start_gets_much_more_new_patches_right():
    count, most = find_said(
        r"The middle row was computed with (\d+) starts, .* the best of all those runs gets ([\d.]+) right"
    )
    accuracy = read_column(MIDDLE, "most_accurate")
    assert len(accuracy) == count
    assert accuracy.max() == pytest.approx(most, abs=0.006)


def test_the_edge_is_clean_from_afar_and_torn_close_up_with_this_start():
    far, near = find_numbers(LAB, r"torn rows: (\d+) on the whole map, (\d+) close up", "edge-run")
    assert "On the whole map no row is torn" in read_text(LAB)
    assert far == 0
    assert near >= 2
    assert read_measured(LAB, "edge-compare") == near


def test_the_middle_row_is_torn_with_few_starts_and_with_this_one():
    count, torn = find_said(
        r"The middle row alone was computed with (\d+) starts: it is torn with (\d+) of them, of which this"
    )
    found = read_column(MIDDLE, "torn")
    assert (len(found), found.sum()) == (count, torn)
    assert found[0]


def test_the_rates_close_to_the_edge_lie_above_the_critical_one_in_each_row_but_for_the_first():
    said = find_said(
        r"critical learning rate of the start falls from ([\d.]+) in the bottom row to ([\d.]+) in the top row\. All"
    )
    starts = [cnnlab.Run("question", init_scale=float(scale)) for scale in np.geomspace(0.5, 2, 9)[[3, 5]]]
    lowest, highest = (start.settings.init_scale for start in starts)
    starts = [cnnlab.Run("question", init_scale=float(scale)) for scale in np.geomspace(lowest, highest, 9)]
    critical = [cnnlab.critical_learning_rate(start).value for start in starts]
    assert (round(critical[0], 5), round(critical[-1], 5)) == said
    assert critical == sorted(critical, reverse=True)
    assert max(critical) < np.geomspace(1e-4, 1e-3, 11)[1]


def test_the_ledger_tells_of_the_row_and_of_both_maps():
    lines = execute(LAB)["ledger"].splitlines()
    assert len(lines) == 3
    assert all(re.search(r"\d+ converged, \d+ stalled, \d+ diverged", line) for line in lines)
