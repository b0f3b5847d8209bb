"""The first lab shows what its sentences say."""

import math
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from claims import read_column
from notebooks import execute, find_lab, find_numbers, read_cell, read_measured, read_sentence

import cnnlab

LAB = find_lab("00")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def count_broken(name, key="breaks"):
    """How many of a claim's seeds break."""
    return int(np.isfinite(read_column(name, key)).sum())


@cache
def explode():
    """The record of the first lab's first run."""
    run = cnnlab.Run("question")
    run.advance(20)
    return run.record


# A tour of two minutes


def test_the_tour_s_network_learns_takes_a_new_rate_looks_back_and_begins_again():
    lab = cnnlab.Lab("question", hints=False, autosave=False)
    lab.choose("converges")
    lab.step(40)
    assert lab.record.cost[-10:].mean() < 0.5 * lab.record.cost[:10].mean()
    lab.set(learning_rate=1e-3)
    lab.step(1)
    assert (len(lab.record), lab.record.knobs_at(40).learning_rate > 1e-3) == (41, True)
    assert lab.record.knobs_at(41).learning_rate == 1e-3
    lab.look_at(10)
    assert (lab.shown_step, len(lab.record)) == (10, 41)
    old = lab.record
    lab.reset()
    assert len(lab.record) == 0
    assert [len(ghost) for ghost in lab.view.ghosts] == [len(old)]
    lab.choose("question")
    assert (lab.settings.preset, lab.hints) == ("question", False)
    lab.close()


def test_what_the_tour_names_is_on_the_page():
    told = read_cell(LAB, "tour").source
    page = (Path(cnnlab.__file__).parent / "dashboards" / "static" / "panel.js").read_text()
    for name in ("Preset", "Play", "Pause", "↺ Reset", "◀", "▶"):
        assert f"{name}" in told
        assert re.search(rf'"[^"]*{name}"', page), name
    assert {"converges", "question"} <= set(re.findall(r"`(\w+)`", told)) & set(cnnlab.presets())


# 1. When does the cost stop being a number?


def test_every_network_breaks_in_the_epochs_that_are_named():
    low, high = read_sentence(LAB, "explosion-explain", r"in every one the cost breaks in epoch (\d) or (\d)\.")
    breaks = read_column("00_rates", "0.01")
    assert set(breaks) == {low, high}
    assert read_measured(LAB, "explosion-compare") in (low, high)


def test_each_epoch_multiplies_the_cost_by_more_than_the_one_before():
    costs = [float(text) for text in re.findall(r"'([^']+)'", execute(LAB)["explosion-run"])]
    factors = [after / before for before, after in pairwise(costs) if after < math.inf]
    assert len(factors) >= 2
    assert factors == sorted(factors)


def test_after_the_first_cost_that_is_no_number_none_is_and_the_accuracy_is_0():
    record = explode()
    broke = record.first_nonfinite
    assert not np.isfinite(record.cost[broke - 1 :]).any()
    assert not record.accuracy[broke - 1 :].any()
    assert record.accuracy[0] > 0.4


def test_all_weights_grow_and_then_the_gradient_grows_much_more():
    first, second, third = explode().frames[:3]
    weights = second.weight_norm / first.weight_norm
    assert min(weights) > 10
    assert min(third.gradient_norm / second.gradient_norm) > 1000 * max(weights)


def test_infinity_comes_before_the_first_number_that_is_none():
    frame = explode().frames[explode().first_nonfinite - 1]
    infinite, none = (np.flatnonzero(values) for values in (frame.activation_inf, frame.activation_nan))
    assert infinite[0] <= none[0]


# 2. How much smaller must the learning rate be?


def test_eight_seeds_break_all_some_and_none_by_the_rate():
    high, middle, low = find_numbers(LAB, r"\{0.01: (\d), 0.001: (\d), 0.0001: (\d)\}", "gamble-run")
    assert (high, low) == (8, 0)
    assert 1 <= middle <= 7
    assert read_measured(LAB, "gamble-compare") == middle


def test_of_32_seeds_as_many_break_as_is_said():
    said = read_sentence(LAB, "gamble-explain", r"32 seeds as well: (\d+), (\d+) and (none)\.")
    assert said == tuple(count_broken("00_rates", key) for key in ("0.01", "0.001", "0.0001"))


def test_a_run_repeats_itself_exactly():
    again = cnnlab.Run("question")
    again.advance(6)
    np.testing.assert_array_equal(again.record.cost, explode().cost[:6])


def test_how_sharply_the_cost_curves_differs_from_start_to_start_and_changes_with_each_update():
    read_sentence(LAB, "gamble-explain", "differs from start to start, and it changes with each update")
    first, second, third = (read_column("08_throw", f"times_critical_{update}") for update in (1, 2, 3))
    assert max(first) > 10 * min(first)
    assert (first != second).all()
    assert (second != third).all()


def test_the_mended_run_jumps_and_ends_lower_than_it_began():
    first, last = find_numbers(LAB, r"cost fell from (\S+) to (\S+) in 19 updates", "gamble-mended")
    assert last < first
    run = cnnlab.Run("question", learning_rate=1e-4)
    run.advance(20)
    assert max(run.record.cost) > 2 * first


def test_a_network_that_survives_is_little_better_than_guessing():
    (best,) = read_sentence(LAB, "gamble-look", r"Of 32 seeds the best reaches ([\d.]*\d)")
    held_out = read_column("00_rates", "held_out")
    assert max(held_out) == pytest.approx(best, abs=0.005)
    assert 0.5 < np.median(held_out) < 0.6


# 3. Is there a warning before the NaN?


def test_the_first_cost_of_the_start_that_is_guessed_is_as_is_said_and_below_that_of_seed_0():
    seed, cost = read_sentence(LAB, "warning-predict", r"with seed (\d)\. Its first cost is ([\d.]+), lower")
    costs = read_column("00_rates", "first_cost")
    assert costs[int(seed)] == pytest.approx(cost, abs=0.05)
    assert costs[int(seed)] < costs[0]


def test_in_the_epoch_that_is_named_an_update_is_ten_times_its_weights_and_the_cost_breaks_later():
    (epoch,) = read_sentence(LAB, "warning-explain", r"In epoch (\d) it is above 10, for each of 32 seeds")
    assert find_numbers(LAB, rf"\n{epoch:.0f}: .* ratio (\S+)", "warning-run")[0] > 10
    assert set(read_column("00_rates", "alarm")) == {epoch}
    assert set(read_column("00_rates", "0.01") - epoch) == {1, 2}


def test_whoever_looks_at_every_tenth_update_finds_nothing_but_the_nan():
    assert max(read_column("00_rates", "0.01")) < 10


def test_the_first_update_is_as_far_from_healthy_as_is_said():
    here, least = read_sentence(LAB, "warning-explain", r"([\d,]+) times as large here, and at least (\d+) times")
    assert read_measured(LAB, "warning-compare") == pytest.approx(here, rel=0.02)
    assert least <= 1000 * min(read_column("00_rates", "first_ratio")) < 1.1 * least


def test_in_all_nine_layers_weights_jump_by_powers_of_ten_within_three_updates():
    read_sentence(LAB, "warning-explain", r"then \*\*Step\*\* three times")
    run = cnnlab.Run("question", seed=6)
    run.advance(3)
    assert len(run.record.layers) == 9
    assert min(run.record.frames[2].largest_weight / run.record.start.largest_weight) > 100


# 4. Does it matter that pixels run from 0 to 255?


def test_the_logits_of_a_start_shrink_as_the_input_does():
    raw, unit = (cnnlab.Run("question", input_scaling=scaling).step().logit_gap for scaling in ("raw", "unit"))
    assert raw / unit == pytest.approx(255, rel=1e-3)


def test_no_network_breaks_with_small_pixels():
    assert read_measured(LAB, "input-compare") == 0
    assert count_broken("00_unit") == 0


def test_with_small_pixels_the_cost_stays_near_that_of_guessing():
    cost = read_column("00_unit", "last_cost")
    assert abs(cost - math.log(2)).max() < 0.05
    assert find_numbers(LAB, r"cost fell from \S+ to (\S+) in", "input-run")[0] == pytest.approx(0.69, abs=0.01)


def test_with_small_pixels_the_first_update_is_below_the_dashed_line_in_every_layer():
    assert max(cnnlab.Run("question", input_scaling="unit").step().update_ratio) < 1e-3


def test_small_pixels_raise_the_critical_rate_of_every_start():
    read_sentence(LAB, "input-explain", "so longer steps are allowed")
    assert min(read_column("00_unit", "raised")) > 1


# The end.


def test_the_ledger_tells_of_each_run_and_the_guesses_are_shown():
    lines = execute(LAB)["ledger"].splitlines()
    assert len(lines) == 28
    assert sum("NaN" in line for line in lines) >= 10
    assert execute(LAB)["calibration"].startswith("no guess was compared yet")
