"""The lab on the epsilon shows what its sentences say."""

import re
from functools import partial

import notebooks
import numpy as np
import pytest
import torch
from claims import read_column
from notebooks import execute, find_lab, find_numbers, read_measured, read_text

import cnnlab

LAB = find_lab("04")
find_said = partial(notebooks.find_said, LAB)
OTHER = {"init": "question_2", "init_scale": 1.0}

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def broken():
    """Which of the 32 seeds break within two epochs."""
    return np.isfinite(read_column("04_ends", "broke at"))


def test_the_text_names_the_settings_of_the_run():
    rate, momentum, threshold = find_said(
        r"rate is (\S+) and its momentum is (\S+)\. .* gradient's norm is above (\d+),"
    )
    start = cnnlab.settings("sudden_nan")
    assert (start.learning_rate, start.momentum, start.clip_threshold) == (rate, momentum, threshold)
    assert (start.clip, start.batch_size, start.cost, start.epsilon) == ("norm", 2, "softmax_log", 0)
    assert start.input_scaling == "standardised"
    assert cnnlab.Run(start).updates_per_epoch == find_said(r"epoch of 66 patches has (\d+) updates")[0]


def test_the_probabilities_at_small_gaps_are_those_of_the_text():
    five, ten = find_said(r"less likely class gets (\S+) %, at a gap of 10 it gets (\S+) %")
    assert 100 / (1 + np.exp(5)) == pytest.approx(five, rel=0.05)
    assert 100 / (1 + np.exp(10)) == pytest.approx(ten, rel=0.1)


def test_a_probability_is_zero_from_the_gap_that_the_text_names():
    zero = read_measured(LAB, "gap-compare")
    assert zero == find_said(r"From a gap of (\d+) on the probability is exactly 0")[0]
    assert zero == find_said(r"exactly zero from a logit gap of (\d+) on")[0]
    assert np.finfo(np.float32).smallest_subnormal == pytest.approx(1.4e-45, rel=0.01)
    assert np.finfo(np.float32).max == pytest.approx(3.4e38, rel=0.01)


def test_one_over_p_is_infinite_from_the_gap_that_the_text_names():
    first, last = find_said(r"From a gap of (\d+) to (\d+) the probability is still above zero")
    gaps = np.arange(1, 201, dtype=np.float32)
    with np.errstate(all="ignore"):
        steep = 1 / (np.exp(-gaps) / (1 + np.exp(-gaps)))
    assert gaps[np.isinf(steep)][0] == first
    assert last == read_measured(LAB, "gap-compare") - 1
    shown = execute(LAB)["gap-run"]
    assert f"gap {first:.0f}: p = 2.2e-39, 1/p = inf" in shown
    assert re.search(rf"gap {first - 1:.0f}: p = \S+, 1/p = 1\.65e\+38", shown)


def test_where_one_over_p_is_infinite_the_cost_is_finite_and_the_gradient_is_not():
    logits = torch.tensor([0.0, 95.0], requires_grad=True)
    cost = -torch.softmax(logits, 0)[0].log()
    cost.backward()
    assert cost.isfinite()
    assert logits.grad.isnan().any()


def test_a_cost_that_is_nan_before_it_is_inf_follows_a_gap_at_which_one_over_p_is_infinite():
    nan = broken() & (read_column("04_ends", "broke by inf") == 0)
    gaps = read_column("04_ends", "gap before")[nan]
    assert ((gaps > 88) & (gaps < 104)).any()
    assert (gaps > 88).all()  # a larger one may be that of the other patch, whose answer is right


def test_the_cost_goes_up_and_down_and_is_zero_two_updates_before_it_is_inf():
    shown = re.findall(r"cost (\S+), logit gap (\S+)\n", execute(LAB)["look"])
    costs, gaps = np.array(shown, dtype=float).T
    assert costs[-1] == np.inf
    assert 40 < costs[:-1].max() < find_said(r"up and down between 0 and (\d+)")[0]
    assert (np.diff(costs[:-1]) < 0).sum() >= 3
    assert costs[-3] == 0
    assert gaps[-1] > 104


def test_the_text_names_the_gap_from_which_on_there_is_a_warning():
    from cnnlab.diagnosis.early_warning import NEAR, NO_GAP

    assert find_said(r"warns when the gap of the logits is above (\d+),") == (round(NEAR * NO_GAP["float32"]),)


def test_the_early_warning_comes_ten_updates_before_the_inf():
    warned = find_numbers(LAB, r"early warning at update (\d+)", "look")[0]
    updates = execute(LAB)["look"].count("logit gap")
    assert "here ten updates before the `inf`" in read_text(LAB)
    assert updates - warned == 10


def test_over_32_seeds_nearly_all_break_after_a_cost_that_fell_and_the_warning_is_mostly_in_time():
    count, seeds, fell = find_said(
        r"(\d+) of (\d+) seeds end in `inf` or `NaN` within two epochs, and in (\d+) of them"
    )
    assert (broken().sum(), len(broken())) == (count, seeds)
    assert (read_column("04_ends", "falls before")[broken()] > 0).sum() == fell
    in_time = read_column("04_ends", "first alarm") < read_column("04_ends", "broke at")
    assert find_said(r"Over the (\d+) seeds the warning came in time in (\d+)") == (count, in_time[broken()].sum())


def test_an_epsilon_of_1e_8_caps_the_cost_and_a_smaller_one_moves_the_cap():
    cap, smaller = find_said(r"`-log\(epsilon\)`: (\S+) for 1e-8.*end of the cost to (\S+)\. ")
    assert read_measured(LAB, "cap-compare") == cap
    shown = execute(LAB)["cap-run"]
    assert f"1e-08: {cap} at gap 25, {cap} at 200, 0 more" in shown
    assert f"{smaller} at 200, 0 more" in shown


def test_the_gradient_with_an_epsilon_is_the_share_of_the_true_one_that_the_text_says():
    for gap in (5.0, 19.0, 25.0):
        slopes = []
        for epsilon in (0.0, 1e-8):
            logits = torch.tensor([0.0, gap], requires_grad=True)
            probability = torch.softmax(logits, 0)[0]
            (-(probability + epsilon).log()).backward()
            slopes.append(float(logits.grad[0]))
        p = float(probability.detach())
        assert slopes[1] / slopes[0] == pytest.approx(p / (p + 1e-8), rel=1e-4)


def test_with_the_epsilon_most_updates_learn_nothing_and_it_guesses_for_every_seed():
    low, high = find_said(r"over 32 seeds in (\d+) to (\d+) of the 66")
    silent = read_column("04_ends", "silent with epsilon")
    assert (silent.min(), silent.max()) == (low, high)
    assert low <= read_measured(LAB, "dead-compare") <= high
    assert low > 66 / 2
    np.testing.assert_allclose(read_column("04_ends", "right with epsilon"), 0.5, atol=0.02)
    assert read_column("04_ends", "epsilon is finite").all()
    assert find_numbers(LAB, r"cost up to (\S+), 50% right\n", "dead-measure") == (18.42,)


def test_log_softmax_is_never_silent_nor_does_it_mend():
    silent, highest = find_numbers(LAB, r"\n(\d+) lost, cost up to (\S+),", "dead-measure")
    assert silent == 0
    assert highest > 10 * 18.42
    find_said(r"cost, which goes far above 18\.42, and its answers are little better than guesses")
    assert 45 < find_numbers(LAB, r"\n0 lost, .*, (\d+)% right", "dead-measure")[0] < 60
    assert not read_column("04_ends", "silent with log-softmax").any()
    assert read_column("04_ends", "log-softmax is finite").all()
    assert read_column("04_ends", "log-softmax above 18.42").all()
    dead = read_column("04_ends", "a layer is dead with log-softmax")
    assert find_said(r"In (\d+) of the 32 seeds, at the last update with log-softmax, all ReLUs")[0] == dead.sum()


def test_no_gradient_reaches_a_dead_layer_nor_one_before_it_and_those_behind_it_have_one():
    dead = read_column("04_ends", "a layer is dead with log-softmax")
    np.testing.assert_array_equal(read_column("04_ends", "no gradient up to a dead layer"), dead)
    np.testing.assert_array_equal(read_column("04_ends", "gradient behind a dead layer"), dead)


def read_trials():
    """What the autopsy says, a line a remedy."""
    return execute(LAB)["cure-trials"].replace("\n  ", " ")


def test_the_autopsy_tries_the_six_remedies_that_the_text_names():
    assert "Here it tries six" in read_text(LAB)
    named = re.findall(r"^- [^:]+: (.*?) \((.*?)\): ", read_trials(), re.MULTILINE)
    text = read_text(LAB)
    assert len(named) == 6
    assert all(f"*{name}*" in text for name, _ in named)
    assert dict(named)["gradient clipping"] == "clip='norm', clip_threshold=1"
    assert dict(named)["a safe softmax"] == "epsilon=1e-08"


def test_one_remedy_alone_mends_and_it_alone_learns():
    shown = read_trials()
    assert re.findall(r"^- mends: (.*?) \(", shown, re.MULTILINE) == ["a lower learning rate"]
    assert "a lower learning rate (learning_rate=0.0003)" in shown
    assert cnnlab.settings("sudden_nan").learning_rate / 100 == pytest.approx(0.0003)
    right = dict(re.findall(r"^(.*): (\d+)% right", execute(LAB)["cure-run"], re.MULTILINE))
    assert [name for name, share in right.items() if int(share) > 80] == ["a lower learning rate"]
    assert read_measured(LAB, "cure-compare") == 1


def test_another_initialisation_only_hides():
    shown = read_trials()
    first, last = find_said(r"the cost stays finite: it went from (\S+) to (\S+)\. But")
    said = "only hides: another initialisation (init='question_2', init_scale=1): the cost is finite, but it went from"
    assert f"{said} {first} to {last} " in shown
    assert last < 1
    assert find_said(r"has a cost of ln 2 = (\S+)\. ")[0] == pytest.approx(np.log(2), abs=5e-4)


def test_the_two_remedies_that_were_met_before_had_few_answers_right():
    (most,) = find_said(r"in the second epoch neither had (\d+) % of the answers right")
    right = [int(share) for share in re.findall(r"(\d+)% right", execute(LAB)["dead-measure"])]
    assert len(right) == 2
    assert max(right) < most


def test_the_other_initialisation_has_smaller_weights():
    sizes = [cnnlab.Run("sudden_nan", **changes).record.start.weight_norm for changes in ({}, OTHER)]
    assert "*another initialisation*, with smaller weights" in read_text(LAB)
    assert (sizes[1] < sizes[0]).all()


def test_over_32_seeds_another_initialisation_guesses_and_a_lower_rate_learns():
    least, gap, most = find_said(
        r"Over 32 seeds at least (\d+) % .* their gap is never above (\d+)\. .* all of 32 \(at most (\d+) % right\)"
    )
    assert round(100 * read_column("04_learning", "another initialisation: right").max()) == most
    assert round(100 * read_column("04_learning", "a lower learning rate: right").min()) == least
    assert gap - 1 < read_column("04_learning", "a lower learning rate: largest gap").max() < gap


def test_neither_the_epsilon_nor_log_softmax_learns_in_six_epochs():
    most = find_said(r"log-softmax makes this network learn: over 32 seeds at most (\d+) %")[0]
    shares = [read_column("04_ends", f"right with {name} in the sixth epoch") for name in ("epsilon", "log-softmax")]
    assert round(100 * np.max(shares)) == most
    for name in ("a safe softmax", "cross-entropy from logits"):
        assert find_numbers(LAB, rf"{name}: (\d+)% right", "cure-run")[0] < 60


def test_over_the_seeds_mends_is_said_only_where_the_copy_learns():
    rate, runs, start, all_runs, copies = find_said(
        r"lower rate with (\d+) of (\d+) seeds, .* initialisation with (\d+) of (\d+)\. .* these (\d+) copies"
    )
    for name, count in (("a lower learning rate", rate), ("another initialisation", start)):
        verdicts = read_column("04_learning", f"{name}: mends")
        assert np.nansum(verdicts) == count
        assert np.isfinite(verdicts).sum() == runs == all_runs
        assert np.isnan(verdicts).sum() == 1
    mends = read_column("04_learning", "a lower learning rate: mends")
    assert copies == rate
    assert "more than half of its answers are right" in read_text(LAB)
    assert read_column("04_learning", "a lower learning rate: copy right")[mends == 1].min() > 0.5
    assert "Most of the others break again" in read_text(LAB)
    assert read_column("04_learning", "a lower learning rate: copy breaks")[mends == 0].mean() > 0.5


def test_each_remedy_is_tried_for_two_epochs():
    assert "tries remedies on copies of the run, for two epochs each" in read_text(LAB)
    assert re.search(r"mends: a lower learning rate .* in 66 updates", read_trials())
