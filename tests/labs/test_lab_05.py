"""The lab on the autopsy shows what its sentences say."""

import re
from functools import partial

import notebooks
import numpy as np
import pytest
from claims import read_column
from notebooks import ROOT, execute, find_lab, find_numbers, read_measured, read_text

import cnnlab
from cnnlab.diagnosis.trials import MENDS

LAB = find_lab("05")
find_said = partial(notebooks.find_said, LAB)
REMEDIES = {
    "rate": "learning_rate",
    "clipping": "clip",
    "initialisation": "init",
    "penalty": "l2",
    "epsilon": "epsilon",
}

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def read_row(title, name):
    """The numbers of a row in a table of the benchmark of warnings, under the heading that begins with a title."""
    table = (ROOT / "tests/benchmarks/results/warning.md").read_text(encoding="utf-8").split(f"## {title}")[1]
    row = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
    return [float(cell.strip(" %").replace("-", "nan")) for cell in row.split("|")[2:-1]]


def read_scores(name):
    """The worse of a detector's two shares of diverging runs warned of, and of its two shares of false alarms."""
    rows = [read_row(title, name) for title in ("Scored", "Tuned on")]
    return min(row[0] for row in rows), max(row[2] for row in rows), min(row[2] for row in rows)


def read_excess(scaling):
    """How many times the critical rate 0.01 is, at the start and one step on, with raw or standardised pixels."""
    return find_numbers(LAB, rf"{scaling}: (\S+) times at the start, (\S+) times one step on", "critical-ratio")


def test_the_rate_is_about_a_hundred_times_too_high_at_the_start_and_far_more_one_step_on():
    raw, later = read_excess("raw")
    assert find_said(r"At the start the learning rate of 0\.01 is (\d+) times the \*critical\* one")[0] == round(raw)
    assert "The learning rate was about a hundred times the critical one" in read_text(LAB)
    assert 80 < raw < 125
    assert "There the rate is more than ten thousand times too high" in read_text(LAB)
    assert later > 10_000
    assert read_measured(LAB, "critical-compare") == pytest.approx(later, rel=0.05)


def test_long_steps_have_led_seed_1_of_lab_01_to_a_flatter_place_where_it_lived():
    assert "In lab 01 such steps led seed 1 to a flatter place, and it lived." in read_text(LAB)
    start = cnnlab.critical_learning_rate(cnnlab.Run("question", seed=1))
    run = cnnlab.Run("question", seed=1, learning_rate=64 * start.value)
    run.advance(3)
    assert cnnlab.critical_learning_rate(run).eigenvalue < start.eigenvalue / 2
    run.advance(17)
    assert run.record.first_nonfinite is None


def test_the_rate_is_below_the_critical_one_with_standardised_pixels_at_the_start_and_one_step_on():
    assert max(read_excess("standardised")) < 1
    assert find_said(r"root mean square of about (\d+)")[0] == pytest.approx(
        find_numbers(LAB, r"root mean square is (\S+),", "chain")[0], abs=0.5
    )


def test_standardised_pixels_have_a_root_mean_square_of_one():
    pixels = cnnlab.Run("question", input_scaling="standardised").problem.data[0]
    assert "standardised ones have 1" in read_text(LAB)
    assert float(pixels.square().mean().sqrt()) == pytest.approx(1, abs=0.05)


def test_over_32_starts_the_rate_is_too_high_for_raw_pixels_by_factors_that_are_said():
    low, high, many = find_said(
        r"Over the 32 starts 0\.01 is (\d+) to (\S+) times too high before the first step\. After it, "
        r"it is more than a thousand times too high for (\d+) of them"
    )
    raw, scaled = read_column("05_excess", "raw"), read_column("05_excess", "standardised")
    assert len(raw) == 32
    assert (float(f"{raw.min():.2g}"), float(f"{raw.max():.2g}")) == (low, high)
    later = read_column("05_excess", "raw, after one update")
    assert (later > 1000).sum() == many
    assert find_said(r"Of 32 starts, (\d+) are followed by a steeper place")[0] == (later > raw).sum()
    assert "below the critical rate, at every one of the 32 starts, and after one step, too" in read_text(LAB)
    assert scaled.max() < 1
    assert read_column("05_excess", "standardised, after one update").max() < 1


def test_the_first_value_that_is_not_finite_is_made_by_an_overflow_in_the_activation_of_an_early_layer():
    shown = execute(LAB)["place-run"]
    assert re.search(r"First NaN or inf: update 4, activation of cv[0-3] \(overflow\)", shown)
    assert read_measured(LAB, "place-compare") <= 3
    assert find_said(r"larger than (\S+) × 10³⁸")[0] == pytest.approx(np.finfo(np.float32).max / 1e38, rel=0.01)
    chain = execute(LAB)["chain"].splitlines()
    assert "(overflow)" in chain[0]
    assert "made by convolution (inf-inf)" in chain[1]


def test_most_weights_are_nan_after_the_update_whose_cost_is_and_had_grown_as_the_text_says():
    run = cnnlab.Run("question")
    run.advance(20, until="nonfinite")
    record = run.record
    assert "most of its weights are `NaN` after the same update" in read_text(LAB)
    assert record.weight_nan[-1].sum() > run.parameters.numel() / 2
    assert "weights of every layer grew more than a hundredfold in update 2" in read_text(LAB)
    assert (record.weight_norm[1] > 100 * record.weight_norm[0]).all()
    assert "and by a factor of more than 10¹⁵ in update 3" in read_text(LAB)
    assert (record.weight_norm[2] > 1e15 * record.weight_norm[1]).all()


def test_in_32_seeds_it_is_an_overflow_and_mostly_in_an_early_convolution():
    layers = read_column("05_autopsy", "layer")
    assert len(layers) == 32
    assert "In all of 32 seeds the operation was an overflow" in read_text(LAB)
    assert read_column("05_autopsy", "overflow").all()
    assert find_said(r"in (\d+) of them it happened in cv1, cv2 or cv3")[0] == np.isin(layers, (1, 2, 3)).sum()
    assert "and in one as late as the softmax" in read_text(LAB)
    assert (layers == 8).sum() == 1


def test_the_chain_ends_at_the_rate_and_two_causes_are_ranked():
    chain = execute(LAB)["chain"]
    factor = find_numbers(LAB, r"the learning rate 0\.01 was (\S+) times the critical one", "chain")[0]
    assert factor == pytest.approx(read_excess("raw")[0], rel=0.02)
    causes = re.findall(r"^(\w[\w ]+) \((0\.\d+)\): ", chain, re.MULTILINE)
    assert [name for name, _ in causes] == ["learning rate above critical", "inputs not scaled"]
    grown = [float(number) for number in re.findall(r"the weights of \w+ grew (\S+)-fold", chain)]
    assert max(grown) > 1000
    assert "Two causes hold at once here" in read_text(LAB)


def test_our_warning_comes_before_the_nan_in_this_run_and_over_32_seeds():
    assert "Warning: update " in execute(LAB)["warning-run"]
    lead = read_column("05_autopsy", "broke at") - read_column("05_autopsy", "cnnlab fires at")
    assert "Ours came one or two updates before, for each of the 32 seeds" in read_text(LAB)
    assert find_numbers(LAB, r"cnnlab: update (\d+)", "warning-run")[0] < 4
    assert set(lead) == {1, 2}


def test_five_of_the_eight_are_in_time_here_and_for_most_seeds():
    from claims_05 import DETECTORS

    others = [name for name in DETECTORS if name != "cnnlab"]
    fires = np.array([read_column("05_autopsy", f"{name} fires at") for name in others])
    early = (fires < read_column("05_autopsy", "broke at")).sum(axis=0)
    assert "Five of the eight are in time" in read_text(LAB)
    assert read_measured(LAB, "warning-compare") == early[0] == 5
    many, seeds = find_said(r"and so they are for (\d+) of (\d+) seeds")
    assert ((early == 5).sum(), len(early), len(others)) == (many, seeds, 8)


def test_the_text_names_the_four_signs_with_their_thresholds():
    from cnnlab.diagnosis.detectors import DETECTORS
    from cnnlab.diagnosis.early_warning import CLIMB, LONG

    text = read_text(LAB)
    assert find_said(r"a step more than (\d+) times as long as a layer's weights") == (LONG,)
    (other,) = find_said(r"Lab 00 asked for (\d+) times, which is the threshold of SageMaker Debugger\. Ours was tuned")
    (sagemaker,) = (detector for detector in DETECTORS if detector.name == "SageMaker Debugger")
    assert f"update/weight > {other:.0f} " in sagemaker.rules
    assert f"In epoch 2 it is above {other:.0f}, for each of 32 seeds" in read_text(find_lab("00"))
    assert CLIMB == 10_000
    assert "a cost ten thousand times the first one and still rising" in text


def test_two_detectors_fire_at_the_first_update_and_on_many_healthy_runs():
    assert "DeepDiagnosis and UMLAUT fire at the first update, for each of the 32" in read_text(LAB)
    for name in ("DeepDiagnosis", "UMLAUT"):
        assert (read_column("05_autopsy", f"{name} fires at") == 1).all()
        assert f"{name}: update 1\n" in execute(LAB)["warning-run"]
    assert "UMLAUT fires on more than eight in ten of the healthy runs" in read_text(LAB)
    assert read_scores("UMLAUT")[2] > 80
    assert "DeepDiagnosis on more than four in ten" in read_text(LAB)
    assert 40 < read_scores("DeepDiagnosis")[2] < 50
    assert "fast.ai on more than three in ten" in read_text(LAB)
    assert 30 < read_scores("fast.ai")[2] < 40


def test_who_looks_too_seldom_is_never_in_time():
    broke = read_column("05_autopsy", "broke at")
    assert "SageMaker Debugger: never" in execute(LAB)["warning-run"]
    for name in ("SageMaker Debugger", "TheDeepChecker"):
        assert (read_column("05_autopsy", f"{name} fires at") >= broke).all()
    assert "The cost here is `NaN` at the fourth" in read_text(LAB)
    assert find_numbers(LAB, r"not finite from update (\d+) on", "place-run") == (4,)


def test_keras_sees_the_nan_itself():
    assert "TerminateOnNaN sees the `NaN` itself, which is too late by definition" in read_text(LAB)
    assert find_numbers(LAB, r"TerminateOnNaN: update (\d+)", "warning-run") == (4,)


def test_our_scores_are_those_of_the_benchmark():
    runs, led, wrong = find_said(
        r"We measured ([\d,]+) runs, .* half of them\. Ours led the `NaN` in more than (\d+) of 100 .* at most (\d+) of"
    )
    result = (ROOT / "tests/benchmarks/results/warning.md").read_text(encoding="utf-8")
    assert f" {runs:.0f} runs of " in result
    warned, false, _ = read_scores("cnnlab")
    assert led < warned < led + 1
    assert wrong - 1 < false <= wrong
    family = read_row("Our warning by family", "log of a softmax")
    assert find_said(r"of (\d+) runs that broke with the log of a softmax it led in (\d+)") == (family[1], family[2])


def test_a_remedy_is_tried_for_20_updates_past_the_one_that_broke():
    (tried,) = find_said(r"from before the trouble, for (\d+) updates\. How many")
    run = cnnlab.Run("question")
    run.advance(20)
    remedies = cnnlab.autopsy(run.record).remedies
    assert {len(trial.cost) for trial in remedies if trial.verdict == MENDS} == {tried}
    assert "the cost stays finite past the update that broke, and ends lower than that of the untrained" in read_text(
        LAB
    )


def test_two_of_the_five_posted_remedies_mend_this_run():
    assert read_measured(LAB, "remedy-compare") == 2
    verdicts = execute(LAB)["remedy-run"]
    assert verdicts.count("- mends: a lower learning rate") == verdicts.count("- mends: gradient clipping") == 1
    assert verdicts.count("- does not help: another initialisation") == 1
    assert verdicts.count("- does not help: an L2 penalty") == 1
    assert verdicts.count("- only hides: a safe softmax") == 1
    assert "gradient of a wrong example is exactly 0" in verdicts


def test_over_32_seeds_the_remedies_fare_as_the_text_says():
    mended = {name: read_column("05_autopsy", f"{field} mends").sum() for name, field in REMEDIES.items()}
    assert "Over 32 seeds the lower rate mends every run" in read_text(LAB)
    assert mended["rate"] == 32
    assert find_said(r"mends every run, and clipping (\d+)")[0] == mended["clipping"]
    assert (
        find_said(r"other initialisation mends (\d+) of the 32 seeds, the penalty none")[0] == mended["initialisation"]
    )
    assert mended["penalty"] == mended["epsilon"] == 0
    assert "*Only hides*: the epsilon, with all 32 seeds" in read_text(LAB)
    assert read_column("05_autopsy", "epsilon hides").all()


def test_the_first_step_already_raises_the_cost_as_the_text_says():
    low, high = find_said(r"raises the cost from (\d+) to more than ([\d,]+)")
    run = cnnlab.Run("question")
    run.advance(2)
    assert round(run.record.cost[0]) == low
    assert high < run.record.cost[1] < 2 * high


def test_the_first_card_is_half_of_the_critical_rate_and_mends():
    first, *rest = execute(LAB)["apply"].splitlines()
    assert first.startswith("mends: half the critical learning rate")
    assert rest[-1].startswith("cost fell from ")


def test_the_card_and_the_run_with_its_remedy_tell_one_truth_of_the_last_costs():
    usual = find_numbers(LAB, r"to (\S+) \(median of the last 5\)", "apply")[0]
    rate = find_numbers(LAB, r"learning_rate=(\S+)\):", "apply")[0]
    run = cnnlab.Run("question", learning_rate=rate)
    run.advance(20)
    assert np.median(run.record.cost[-5:]) == pytest.approx(usual, rel=1e-3)
    assert find_numbers(LAB, r"cost fell from \S+ to (\S+) in", "apply")[0] == pytest.approx(
        run.record.cost[-1], rel=1e-3
    )


def test_what_the_text_says_of_the_check_is_what_the_check_does():
    from cnnlab.course.exercises import EXPLODING, HEALTHY

    text = read_text(LAB)
    assert "three runs that explode" in text
    assert len(EXPLODING) == len(HEALTHY) == 3
    assert all(changes["seed"] != 0 for changes in (*EXPLODING, *HEALTHY))
    assert [changes["learning_rate"] for changes in EXPLODING if "learning_rate" in changes] == [0.001]
    assert [changes["learning_rate"] for changes in HEALTHY].count(0.01) == 1
    assert "one run explodes at a learning rate of 0.001, and one healthy run has a rate of 0.01" in text
