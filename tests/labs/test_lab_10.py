"""The lab on vanishing signals shows what its sentences say."""

import re

import numpy as np
import pytest
from claims import read_column, read_extent, read_preset_row
from notebooks import execute, find_lab, find_numbers, find_said, read_measured, read_sentence
from torch import nn

import cnnlab
from cnnlab.training.initializers import HE_GAINS

LAB = find_lab("10")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def test_the_factors_of_he_s_formula_are_those_of_pytorch():
    said = find_said(LAB, r"\((\d) for the sigmoid, (\d)/(\d) for tanh, √(\d) for the ReLU\)", "words")
    assert HE_GAINS["sigmoid"] == said[0] == nn.init.calculate_gain("sigmoid")
    assert HE_GAINS["tanh"] == said[1] / said[2] == nn.init.calculate_gain("tanh")
    assert HE_GAINS["relu"] == said[3] ** 0.5 == nn.init.calculate_gain("relu")


# 1. What is left after fifty layers?


def test_the_slope_of_a_sigmoid_is_a_quarter_at_most():
    read_sentence(LAB, "depth-predict", r"slope of a sigmoid is 1/4 at most")
    at = np.linspace(-20, 20, 4001)
    assert np.gradient(1 / (1 + np.exp(-at)), at).max() == pytest.approx(1 / 4, abs=1e-4)


def test_each_further_layer_leaves_the_share_that_is_said_from_5_to_20_and_from_20_to_50():
    (said,) = read_sentence(LAB, "depth-explain", r"each further layer leaves (\d+) % of the gradient")
    left = find_numbers(LAB, r"\{5: '(\S+)', 20: '(\S+)', 50: '(\S+)'\}", "depth-run")
    factors = (left[1] / left[0]) ** (1 / 15), (left[2] / left[1]) ** (1 / 30)
    assert [round(100 * factor) for factor in factors] == [said, said]
    assert 1 / read_measured(LAB, "depth-compare") == pytest.approx(left[2], rel=0.05)


def test_over_32_seeds_the_share_after_50_sigmoids_has_the_extent_that_is_said():
    said = read_sentence(LAB, "depth-explain", r"share after 50 layers is (\S+) to (\S+)\.")
    assert said == pytest.approx(read_extent("10_gradient", "sigmoid_50"), rel=0.05)
    assert find_said(LAB, r"32 seeds (\S+) to (\S+) of the gradient", "three-sentences") == said


def test_after_20_sigmoids_the_patches_differ_by_no_more_than_rounding():
    read_sentence(LAB, "depth-explain", "differ at cv19 by less than a ten-millionth of what they differ at cv0")
    assert read_extent("10_gradient", "sigmoid_spread")[1] < min(1e-7, np.finfo(np.float32).eps)
    assert len(cnnlab.Run("deep_plain").patches()) == read_sentence(LAB, "depth-explain", r"the (\d+) patches")[0]


def test_nine_tenths_fifty_times_is_as_is_said():
    (said,) = read_sentence(LAB, "depth-explain", r"0\.9, fifty times, is ([\d.]+)\. ")
    assert pytest.approx(said, rel=0.05) == 0.9**50


# 2. Is the activation to blame?


def read_row(activation):
    """The shares that are printed for an activation: with weights 0.8 times as large, as they are, and 1.25 times."""
    return find_numbers(LAB, rf"{activation} +(\S+) +(\S+) +(\S+)", "blame-run")


def test_with_tanh_the_gradient_grows_and_with_the_relu_a_share_is_left_as_is_said_over_32_seeds():
    low, high, least, most = read_sentence(
        LAB, "blame-explain", r"by a factor of (\d+) to (\d+) over 32 seeds\. With the ReLU (\d+) % to (\d+) %"
    )
    assert (low, high) == pytest.approx(read_extent("10_gradient", "tanh_1"), abs=0.5)
    assert (least / 100, most / 100) == pytest.approx(read_extent("10_gradient", "relu_1"), abs=0.005)
    assert read_measured(LAB, "blame-compare") == pytest.approx(read_row("tanh")[1], rel=0.05)


def test_with_smaller_weights_the_relu_loses_and_tanh_does_not_in_each_of_32_seeds():
    (said,) = read_sentence(LAB, "blame-explain", r"ReLU that loses: less than ([\d.]+) is left, in each")
    assert read_extent("10_gradient", "relu_0.8")[1] < said
    assert read_extent("10_gradient", "tanh_0.8")[0] > 1


def test_the_relu_s_share_changes_by_the_scale_to_the_power_of_the_layers():
    small, large = read_sentence(LAB, "blame-explain", r"0\.8⁴⁹ is ([\d.]+), and 1\.25⁴⁹ is ([\d,]+)\.")
    assert (small, large) == pytest.approx((0.8**49, 1.25**49), rel=0.03)
    below, usual, above = read_row("relu")
    assert (below / usual, above / usual) == pytest.approx((small, large), rel=0.2)


def test_larger_weights_leave_little_more_of_a_sigmoid_s_gradient():
    (said,) = read_sentence(LAB, "blame-explain", r"weights of 1\.25 times the size leave no more than (\S+)\. ")
    assert read_extent("10_gradient", "sigmoid_1.25")[1] <= said


# 3. Does a higher learning rate help?


def test_the_weights_of_the_preset_are_a_ninth_of_the_question_s_and_its_gradient_is_as_small_as_is_said():
    read_sentence(LAB, "small-predict", "weights a ninth as large .* less than a millionth of that at the softmax")
    assert cnnlab.settings("question").init_scale / cnnlab.settings("vanishing").init_scale == pytest.approx(9)
    assert read_extent("10_small", "first")[1] < 1e-6


def read_rates():
    """The six rates, the shares of patches that are right and the costs that the lab prints."""
    rows = re.findall(r"rate (\S+) +right (\S+), cost (\S+)", execute(LAB)["small-run"])
    assert len(rows) == 6
    return np.array(rows, dtype=float).T


def test_no_learning_rate_makes_the_preset_learn_in_any_of_32_seeds():
    rates, right, _ = read_rates()
    assert read_measured(LAB, "small-compare") == sum(right >= 0.7) == 0
    (said,) = read_sentence(LAB, "small-explain", r"at most (\d+) % are right at the four lower rates\.")
    most = max(read_extent("10_small", f"rate_{rate:g}_right")[1] for rate in rates[:4])
    assert most == pytest.approx(said / 100, abs=0.005)
    assert said < 70


def test_at_the_two_highest_rates_every_run_diverges():
    (said,) = read_sentence(
        LAB, "small-explain", r"At the rate 10, (\d+) of the 32 diverge, and at 100 and 1000 every run diverges"
    )
    assert read_column("10_small", "rate_10_broke").sum() == said
    _, _, costs = read_rates()
    assert list(np.isfinite(costs)) == [True] * 4 + [False] * 2
    assert read_extent("10_small", "rate_100_broke")[0] == read_extent("10_small", "rate_1000_broke")[0] == 1


def test_in_the_dashboard_the_gradient_norms_lie_as_far_apart_as_is_said_and_the_cost_is_level():
    (level,) = read_sentence(
        LAB, "small-explain", r"four powers of ten and more .* \*\*Cost\*\* is level at ([\d.]+)\."
    )
    run = cnnlab.Run("vanishing")
    run.advance(54)
    assert (run.record.gradient_norm[:, 0] < 1e-4 * run.record.gradient_norm[:, -1]).all()
    assert run.record.cost == pytest.approx(level, abs=0.005)


def test_with_batch_norm_the_preset_learns_in_as_many_of_32_seeds_as_is_said():
    least, count = read_sentence(
        LAB, "small-explain", r"with batch norm .* (\d+) % or more are right in (\d+) of 32 seeds"
    )
    assert (read_column("10_small", "batch_right") >= least / 100).sum() == count


def test_a_layer_whose_gradient_is_0_is_moved_by_no_optimiser():
    read_sentence(LAB, "small-explain", "cv0 is one of the layers with a gradient of 0, and Adam does not move it")
    rows = re.findall(r"gradient 0 in (\d) layers, then cv0 moves by (\S+)", execute(LAB)["small-dead"])
    assert len(rows) == 3
    assert all(int(zeros) >= 1 and float(moved) == 0 for zeros, moved in rows)


# 4. What do normalisation and shortcuts change?


def test_two_of_the_four_remedies_keep_the_gradient_in_each_of_32_seeds():
    said = read_sentence(
        LAB,
        "remedy-explain",
        r"leave (\d+) % to (\d+) % of the gradient \(32 seeds\)\. Layer norm leaves (\S+) to (\S+), and shortcuts "
        r"(\S+) to (\S+)\. - Learning",
    )
    low, high = zip(read_extent("10_remedies", "batch"), read_extent("10_remedies", "group"), strict=True)
    assert (said[0] / 100, said[1] / 100) == pytest.approx((min(low), max(high)), abs=0.005)
    assert said[2:4] == pytest.approx(read_extent("10_remedies", "layer"), rel=0.02)
    assert said[4:6] == pytest.approx(read_extent("10_remedies", "shortcuts"), rel=0.03)
    assert read_measured(LAB, "remedy-compare") == 2


def test_with_norms_too_the_share_is_that_of_the_first_and_the_last_convolution():
    found = cnnlab.measure_signals(cnnlab.Run("deep_plain", depth=50, activation="sigmoid", normalization="batch"))
    assert (found.layers[0], found.layers[1], found.layers[98]) == ("cv0", "cv0_norm", "cv49")
    (printed,) = find_numbers(LAB, r"'batch norm': '(\S+)'", "remedy-run")
    assert found.backward_deviation[0] / found.backward_deviation[98] == pytest.approx(printed, rel=0.05)


def test_what_was_left_without_a_remedy_is_as_is_said():
    (said,) = read_sentence(LAB, "remedy-predict", r"where (\S+) of the gradient was left")
    assert 1 / read_measured(LAB, "depth-compare") == pytest.approx(said, rel=0.15)


def test_with_sigmoids_what_keeps_its_gradient_learns_and_the_others_guess():
    most, least = read_sentence(
        LAB, "remedy-explain", r"with shortcuts at most (\d+) % are right, .*; with batch norm at least (\d+) %"
    )
    highest = max(read_extent("10_learning", key)[1] for key in ("plain", "shortcuts"))
    assert highest == pytest.approx(most / 100, abs=0.005)
    assert read_extent("10_learning", "batch")[0] == pytest.approx(least / 100, abs=0.005)
    assert most < 60 < 70 < least


def test_with_relus_shortcuts_that_begin_at_zero_let_every_seed_learn():
    plain, other = read_sentence(
        LAB, "remedy-explain", r"cost of guessing in (\d+) of 32 seeds, .* shortcuts in (none)"
    )
    assert read_preset_row("deep_plain", "deep_plain")[2] == f"{plain:.0f}/32"
    assert read_preset_row("deep_plain", "deep_residual")[2] == f"{other:.0f}/32"
    assert cnnlab.settings("deep_residual").changes == {}
    assert cnnlab.settings("deep_plain", residual="zero").knobs == cnnlab.settings("deep_residual").knobs


def test_fifty_relus_with_batch_norm_or_shortcuts_make_the_gradient_grow():
    said = read_sentence(
        LAB, "remedy-explain", r"by a factor of (\d+) to ([\d,]+), and with shortcuts .* by (\d+) to ([\d,]+)\. \("
    )
    grown = (*read_extent("10_remedies", "relu_batch"), *read_extent("10_remedies", "relu_shortcuts"))
    assert said == pytest.approx(grown, rel=0.02)


def test_four_channels_to_a_group_keep_less_than_one():
    most, least = read_sentence(LAB, "remedy-explain", r"at most ([\d.]+) % are left \(32 seeds\), against (\d+) % or")
    assert read_extent("10_remedies", "group_of_4")[1] == pytest.approx(most / 100, rel=0.02)
    assert read_extent("10_remedies", "group_of_1")[0] == pytest.approx(least / 100, abs=0.005)


def test_shortcuts_leave_half_of_the_powers_of_ten():
    left, whole = read_sentence(
        LAB, "remedy-explain", r"half of the slopes remain, and (\d+) of the (\d+) powers of ten\."
    )
    kept = read_column("10_gradient", "sigmoid_50"), read_column("10_remedies", "shortcuts")
    powers = [-np.log10(np.median(each)) for each in kept]
    assert [round(power) for power in powers] == [whole, left]
