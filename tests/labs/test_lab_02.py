"""The lab on starts shows what its sentences say."""

from functools import partial

import notebooks
import numpy as np
import pytest
from claims import read_column
from claims_02 import DOUBT, FORMULAS, KEPT
from notebooks import execute, find_lab, find_numbers, read_cell, read_measured, read_text

import cnnlab

LAB = find_lab("02")
find_said = partial(notebooks.find_said, LAB)
HALVING = ("question_2", "glorot_uniform", "lecun_normal")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def read_rows(name: str) -> dict[str, np.ndarray]:
    """Formula -> the numbers that a cell shows beside it."""
    lines = [line.split() for line in execute(LAB)[name].splitlines()]
    return {line[0]: np.array(line[1:], dtype=float) for line in lines if line[0] in FORMULAS}


def count_diverged(rate: str, init: str) -> tuple[int, int]:
    """How many of the first eight seeds and of all 32 diverge at a learning rate."""
    column = read_column(f"02_{rate}", init)
    return int(column[:8].sum()), int(column.sum())


def test_the_variance_of_a_sum_is_as_the_rule_has_it():
    measured, rule = find_numbers(LAB, r"measured (\S+), by the rule (\S+)", "rule-run")
    assert measured == pytest.approx(rule, rel=0.03)


def test_the_rule_holds_with_the_mean_square_where_only_the_weights_have_mean_zero():
    draw = np.random.default_rng(0)
    weights, inputs = draw.normal(0, 0.1, (10_000, 288)), draw.uniform(0, 255, (10_000, 288))
    assert (weights * inputs).sum(axis=1).var() == pytest.approx(288 * 0.1**2 * (inputs**2).mean(), rel=0.03)
    assert (weights * inputs).sum(axis=1).var() > 2 * 288 * 0.1**2 * inputs.var()


def test_a_bound_has_a_third_of_the_variance_of_a_deviation():
    draw = np.random.default_rng(0)
    assert draw.uniform(-0.3, 0.3, 100_000).var() == pytest.approx(0.3**2 / 3, rel=0.02)
    both = cnnlab.Run(init="question_6", init_scale=1), cnnlab.Run(init="glorot_uniform", init_scale=1)
    first, second = (run.weights()["cv3.weight"].var() for run in both)
    assert first == pytest.approx(3 * second, rel=0.05)
    assert "it has three times Glorot's variance" in read_text(LAB)


def test_the_second_formula_is_glorot_s_normal_form():
    run = cnnlab.Run(init="question_2", init_scale=1)
    for name, fans in (("cv3", 2 * 288), ("hid1", 512 + 128)):
        assert run.weights()[f"{name}.weight"].var() == pytest.approx(2 / fans, rel=0.05)


def test_the_last_layer_s_mean_square_is_729_times_larger_in_each_of_32_seeds():
    assert find_said(r"3⁶ = (\d+)\. The last three") == (729,)
    assert read_measured(LAB, "layers-compare") == 729
    assert execute(LAB)["layers-run"].split() == ["3", "9", "27", "81", "243", "729", "729", "729", "729"]
    factor = read_column("02_layers", "question_6_softmax") / read_column("02_layers", "question_2_softmax")
    np.testing.assert_allclose(factor, 729, rtol=1e-5)


def test_a_layer_multiplies_the_mean_square_as_the_rule_says():
    channels, width, height = find_said(r"has (\d+) channels before it and \1 behind it, and a window of (\d) × (\d):")
    assert cnnlab.Run().weights()["cv3.weight"].shape == (channels, channels, width, height)
    assert find_said(r"fan_out = (\d+) × (\d+) = (\d+)\.") == (channels, width * height, channels * width * height)
    expected = {"question_6": find_said(r"should grow (\S+) times a layer with `question_6`")[0], "he_normal": 1}
    expected |= dict.fromkeys(HALVING, 0.5)
    for init, factor in expected.items():
        ratio = read_column("02_layers", f"{init}_cv5") / read_column("02_layers", f"{init}_cv0")
        assert np.mean(ratio) ** (1 / 5) == pytest.approx(factor, rel=0.03)
        row = read_rows("forward-run")[init]
        assert (row[5] / row[0]) ** (1 / 5) == pytest.approx(factor, rel=0.1)


def test_gradients_of_all_layers_are_alike_but_with_lsuv():
    rows = read_rows("backward-run")
    (within,) = find_said(r"gradients of all layers lie within a factor of (\d+) of each other")
    assert all(rows[init].max() <= within * rows[init].min() for init in FORMULAS if init != "lsuv")
    low, high = find_said(r"every one of them is (\d+) to (\d+) times larger with the 6")
    factors = rows["question_6"] / rows["question_2"]
    assert low <= factors.min() < factors.max() <= high
    assert low * 1.5 > factors.min()
    assert high / 1.5 < factors.max()


def test_lsuv_leaves_the_first_layer_s_gradient_large():
    np.testing.assert_array_equal(read_rows("forward-run")["lsuv"][:8], 1)
    (times,) = find_said(r"first layer's gradient is more than (\d+) times that of any other")
    first, *others = read_rows("backward-run")["lsuv"]
    assert first > times * max(others)
    ratio = read_column("02_layers", "lsuv_gradient_cv0") / read_column("02_layers", "lsuv_gradient_second")
    assert ratio.min() > 5
    assert np.median(ratio) > times


def test_formulas_lose_as_many_runs_as_the_lab_says():
    for init in FORMULAS:
        low, high = find_numbers(LAB, rf"{init} +0.001 +(\d) of 8.*\n{init} +0.01 +(\d) of 8", "formula-run")
        assert (low, high) == (count_diverged("low", init)[0], count_diverged("high", init)[0])
    assert find_said(r"first formula loses (\d) of 8 runs") == (count_diverged("low", "question_6")[0],)
    assert count_diverged("low", "question_2") == count_diverged("low", "glorot_uniform") == (0, 0)
    assert count_diverged("low", "he_normal") == (8, 32)
    assert find_said(r"outputs to the same size, loses (\d)\.") == (count_diverged("low", "lsuv")[0],)
    assert read_measured(LAB, "formula-compare") == 8


def test_over_32_seeds_the_formulas_stay_in_this_order():
    assert [count_diverged("low", init)[1] for init in ("lecun_normal", "lsuv", "question_6")] == [0, 16, 27]
    (least,) = find_said(r"At 0.01 each of the six loses at least (\d) of 8")
    assert min(count_diverged("high", init)[0] for init in FORMULAS) == least
    assert min(count_diverged("high", init)[1] for init in FORMULAS) > 16


def test_he_s_formula_hands_the_pixels_size_on_and_glorot_s_does_not():
    (pixels,) = find_said(r"The mean square of the raw pixels is about ([\d,]+),")
    assert np.mean(cnnlab.Run().patches() ** 2) == pytest.approx(pixels, rel=0.01)
    rows = read_rows("forward-run")
    assert pixels < rows["he_normal"][-1] < 3 * pixels
    assert find_said(r"at the last layer about (\d+) is left") == (rows["question_2"][-1],)
    assert "from thousands to about ten" in read_text(LAB)
    assert rows["question_2"][0] > 1000 > 20 > rows["question_2"][-1]


def test_small_pixels_raise_the_critical_rate_by_far_less_than_their_square():
    raw, unit, standardised = (read_column("02_critical", kind) for kind in ("scale_0.9", "unit", "standardised"))
    low, high = find_said(r"over 32 seeds: from ([\d,]+) to ([\d,]+)\)")
    assert (unit / raw).min() == pytest.approx(low, rel=0.03)
    assert (unit / raw).max() == pytest.approx(high, rel=0.03)
    assert find_said(r"at least (\d+) times \(over 32 seeds\)")[0] == low < (unit / raw).min()
    assert 1000 < read_measured(LAB, "input-compare") < 10_000
    assert (standardised / raw).min() > 100
    (share,) = find_numbers(LAB, r"'half of each weight': '(\S+)'\}", "input-run")
    assert share == pytest.approx(unit[0], rel=0.2)


def test_with_raw_pixels_the_softmax_is_certain_of_most_patches():
    assert find_said(r"it gives (\d+) % or more to one class for most of the 66") == (94,)
    assert DOUBT < 0.94 * 0.06  # so nobody who is not in doubt gives less
    assert read_column("02_critical", "raw_in_doubt").max() < 0.5
    assert read_column("02_critical", "unit_in_doubt").min() == 1
    factor = read_column("02_critical", "unit") / read_column("02_critical", "scale_0.9")
    ranks = [np.argsort(np.argsort(column)) for column in (read_column("02_critical", "raw_product"), factor)]
    assert np.corrcoef(*ranks)[0, 1] > 0.9  # the fewer are in doubt, the more of the pixel's square is lost


def test_smaller_pixels_make_each_layer_s_outputs_smaller_by_the_same_factor():
    raw, unit = (cnnlab.Run(seed=1, input_scaling=kind).activations() for kind in ("raw", "unit"))
    for name, outputs in raw.items():
        np.testing.assert_allclose(outputs, 255 * unit[name], rtol=1e-3, atol=1e-3 * np.abs(outputs).max())


def test_with_small_pixels_the_formulas_learn_that_keep_the_mean_square():
    ends = {init: find_numbers(LAB, rf"{init} +(\S+) to (\S+)", "small-run") for init in KEPT}
    (below,) = find_said(r"all their costs end below (\S+) \(over")
    assert ends["he_normal"][1] < below
    assert ends["lsuv"][1] < below
    assert find_said(r"ends at (\S+) or (\S+): in these") == ends["question_2"]
    medians = tuple(round(float(np.median(read_column("02_small", init))), 2) for init in ("he_normal", "lsuv"))
    assert find_said(r"the medians are (\S+) and (\S+)\)") == medians
    assert read_column("02_small", "question_2").min() > 0.68
    assert "no run diverges at 0.01, and none does over 32 seeds" in read_text(LAB)
    assert all(np.isfinite(read_column("02_small", init)).all() for init in KEPT)


def test_a_sum_lowers_the_critical_rate_by_the_number_of_patches():
    assert read_measured(LAB, "sum-compare") == 66
    np.testing.assert_allclose(
        read_column("02_critical", "scale_0.9") / read_column("02_critical", "sum"), 66, rtol=1e-5
    )


def test_with_standardised_pixels_glorot_s_halving_leaves_next_to_nothing_and_he_s_size_stays():
    last = [np.mean(list(run_small(init).activations().values())[-1] ** 2) for init in ("question_2", "he_normal")]
    assert last[0] < 0.01
    assert last[1] > 0.1


def run_small(init):
    """A run with standardised pixels before its first update."""
    return cnnlab.Run(init=init, init_scale=1, input_scaling="standardised")


def test_what_the_last_sentences_say_was_measured():
    last = read_cell(LAB, "three-sentences").source
    assert "3⁶ = 729 times larger" in last
    assert "the second formula loses no run of eight, the first five and He's all eight" in last
    assert count_diverged("low", "question_6")[0] == 5
    assert count_diverged("low", "question_2")[0] == 0
    assert count_diverged("low", "he_normal")[0] == 8
    assert "66 times" in last
    assert "with standardised pixels at 0.01 He's formula learns where Glorot's does not" in last
    assert read_column("02_small", "he_normal").max() < 0.6 < read_column("02_small", "question_2").min()
