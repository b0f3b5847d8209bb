"""The lab on Adam shows what its sentences say."""

import math
import re

import numpy as np
import pytest
from claims import find_extent, read_extent, read_preset_row, read_seeds, read_spread
from notebooks import execute, find_lab, find_numbers, find_said, read_measured, read_sentence

import cnnlab
from cnnlab.config.stability import find_bound

LAB = find_lab("12")
NARROW = cnnlab.settings("adam", channels=8, hidden=(32, 32), learning_rate=1e-3, input_scaling="standardised")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def read_right(changed):
    """Smallest, median and largest share of patches that are right in the end, over 32 seeds of the preset `adam`."""
    return read_spread(read_preset_row("adam", changed)[5])


def move(run):
    """How far an update moves each weight that is no bias."""
    before = run.weights()
    run.step()
    after = run.weights()
    return np.concatenate([abs(after[name] - before[name]).ravel() for name in after if name.endswith(".weight")])


def walk(rate, updates):
    """The way of the lab's function with Adam's own divisor: places and roots."""
    place, mean, square, places, roots = 1.0, 0.0, 0.0, [1.0], []
    for update in range(1, updates + 1):
        mean, square = 0.9 * mean + 0.1 * place, 0.999 * square + 0.001 * place**2
        roots.append(math.sqrt(square / (1 - 0.999**update)) * (1 - 0.9**update))
        place -= rate * mean / roots[-1]
        places.append(place)
    return np.array(places), np.array(roots)


def test_the_averages_of_equal_gradients_are_corrected_as_is_said():
    left, kept = read_sentence(LAB, "words", r"the mean is divided by 1 − ([\d.]+)ⁿ, and the square by 1 − ([\d.]+)ⁿ\.")
    mean = square = 0.0
    for update in range(1, 6):
        mean, square = left * mean + (1 - left) * 3, kept * square + (1 - kept) * 9
        assert mean / (1 - left**update) == pytest.approx(3)
        assert square / (1 - kept**update) == pytest.approx(9)
    assert (left, kept) == (cnnlab.settings("adam").knobs.momentum, cnnlab.settings("adam").knobs.beta2)


def test_the_rule_and_its_numbers_are_those_of_the_preset():
    said = read_sentence(LAB, "words", r"\*beta 1\* is ([\d.]+)\).*\*beta 2\* is ([\d.]+)\)\. .* is added, (\S+),")
    knobs = cnnlab.settings("adam").knobs
    assert said == (knobs.momentum, knobs.beta2, knobs.adam_epsilon)


# 1. How large a rate does Adam bear?


def test_with_the_divisor_held_the_bound_is_that_of_the_formula():
    numerator, momentum, times = read_sentence(
        LAB, "bound-explain", r"λ\), (\d+)/λ for b = ([\d.]+)\. That is (\d+) times the plain one"
    )
    assert numerator == pytest.approx(find_bound("adam", momentum))
    assert times == pytest.approx(find_bound("adam", momentum) / find_bound("sgd"))
    (found,) = find_numbers(LAB, r"([\d.]+)", "bound-run")
    assert numerator - 0.2 < found <= numerator
    assert read_measured(LAB, "bound-compare") == pytest.approx(found / 2)
    assert (numerator, times) == read_sentence(LAB, "three-sentences", r"rate of (\d+)/λ .*, (\d+) times that of plain")


def test_the_bounds_that_are_named_before_the_guess_are_those_of_the_formulas():
    plain, momentum, times = read_sentence(
        LAB, "bound-predict", r"diverges above the rate (\d)\. .* With momentum ([\d.]+) .* multiple was ([\d.]+)\."
    )
    assert plain == find_bound("sgd")
    assert times == pytest.approx(find_bound("sgd", momentum) / plain)


def read_walks():
    """Rate -> the farthest place of 2000 updates, the place after them, the farthest of the next 2000."""
    rows = re.findall(
        r"rate +(\d+): at most (\S+), after 2000 updates (\S+), then at most (\S+)", execute(LAB)["bound-walk"]
    )
    return {float(rate): tuple(map(float, rest)) for rate, *rest in rows}


def test_with_its_own_divisor_adam_does_not_diverge_and_does_not_come_to_rest():
    highest, times = read_sentence(LAB, "bound-explain", r"not even at (\d+), (\d+) times the bound")
    read_sentence(
        LAB, "bound-explain", "three walks the place is at the bottom after 2000 updates, and later .* by half the rate"
    )
    walks = read_walks()
    assert max(walks) == highest
    assert highest / find_bound("adam", 0.9) == pytest.approx(times, abs=0.5)
    for rate, (farthest, after, later) in walks.items():
        assert farthest <= rate
        assert after < 1e-20
        assert later == pytest.approx(rate / 2, rel=0.1)


def test_no_step_of_the_walks_is_longer_than_the_rate():
    read_sentence(LAB, "bound-explain", "In these three walks no step is longer than the rate")
    for rate in read_walks():
        places, _ = walk(rate, 4000)
        assert abs(np.diff(places)).max() <= rate * (1 + 1e-9)


def test_the_place_swings_farther_from_where_the_root_has_shrunk_below_the_bound():
    (bound,) = read_sentence(LAB, "bound-explain", r"root shrinks until rate × curvature / root is above (\d+)\.")
    for rate in read_walks():
        places, roots = walk(rate, 4000)
        over = rate / roots
        crossed = 200 + int(np.argmax(over[200:] > bound))
        farthest = np.lib.stride_tricks.sliding_window_view(abs(places[100:]), 40).max(axis=1)
        assert abs(100 + int(np.argmin(farthest)) - crossed) < 50
        assert (over[crossed + 300 :] < bound).any()


def test_at_the_bound_the_mean_is_a_nineteenth_of_the_gradient():
    read_sentence(LAB, "bound-explain", r"a nineteenth of the gradient: \(1 − b\)/\(1 \+ b\)")
    place, mean = 1.0, -1 / 19
    for _ in range(10):
        gradient, before = place, place
        mean = 0.9 * mean + 0.1 * gradient
        assert mean == pytest.approx(gradient / 19)
        place -= find_bound("adam", 0.9) * mean
        assert place == pytest.approx(-before)


# 2. Does it save the question's network?


def read_rates():
    """Rate -> the costs before and after the first update, the last cost, the share of patches right in the end."""
    rows = re.findall(r"^(\S+) +(\S+) +(\S+) \.\.\. (\S+), right (\d+)%", execute(LAB)["first-run"], re.MULTILINE)
    assert len(rows) == 4
    return {float(rate): tuple(map(float, rest)) for rate, *rest in rows}


def test_the_cost_before_the_first_update_is_as_is_said():
    rate, said = read_sentence(LAB, "first-predict", r"its learning rate, ([\d.]+), and .* the cost is ([\d.]+)\.")
    assert cnnlab.settings("adam").learning_rate == cnnlab.settings("question").learning_rate == rate
    assert {first for first, *_ in read_rates().values()} == {said}


def test_the_first_update_throws_the_cost_as_high_as_is_said():
    said, least, most, middle = read_sentence(
        LAB, "first-explain", r"the cost (\d+) times as high; over 32 seeds it is ([\d.]+) to ([\d,]+) times, (\d+) at"
    )
    thrown = read_seeds("12_first", "thrown")
    assert read_measured(LAB, "first-compare") == pytest.approx(said, rel=0.01)
    assert (least, most) == pytest.approx(find_extent(thrown), rel=0.02)
    assert middle == pytest.approx(np.median(thrown), abs=0.5)


def test_no_cost_of_the_four_rates_is_nan_in_any_of_32_seeds():
    read_sentence(LAB, "first-explain", "No cost becomes NaN")
    for changed in ("learning_rate 1e-1", "learning_rate 1e-2", "learning_rate 1e-3", "learning_rate 1e-4"):
        assert read_preset_row("adam", changed)[0] == "0/32"


def test_0_01_and_0_1_end_as_guessing_does_and_a_tenth_of_the_rate_is_enough():
    (middle,) = read_sentence(
        LAB, "first-explain", r"the median seed ends with (\d+) % right, as by guessing\. At 0\.1"
    )
    (least,) = read_sentence(LAB, "first-explain", r"at 0\.001 at least (\d+) % are right in each of the 32")
    assert 100 * read_right("learning_rate 1e-2")[1] == middle
    assert [100 * right for right in read_right("learning_rate 1e-1")] == [50, 50, 50]
    assert 100 * read_right("learning_rate 1e-3")[0] == least
    assert cnnlab.settings("adam").epochs == find_said(LAB, r"Four learning rates, (\d+) updates each", "first-how")[0]
    assert (least, middle) == read_sentence(
        LAB,
        "three-sentences",
        r"0\.001 .* at least (\d+) % right .*, with 0\.01 it is (\d+) % at the median, and neither",
    )


def test_the_critical_rates_of_the_start_are_as_is_said_over_32_seeds():
    low, high, times = read_sentence(
        LAB, "first-explain", r"start is (\S+) to (\S+) over 32 seeds\. .* each of them, (\d+) times at least"
    )
    found = read_extent("12_first", "critical")
    assert found == pytest.approx((low, high), rel=0.02)
    assert 0.01 / found[1] == pytest.approx(times, abs=0.5)
    (shown,) = find_numbers(LAB, r"critical learning rate (\S+) = ", "first-step")
    assert low < shown < high
    (learns,) = read_sentence(LAB, "first-explain", r"But so is ([\d.]+), which learns")
    assert found[1] < learns


def test_at_the_start_the_divisor_does_not_stay_and_so_the_bound_does_not():
    rate, times = read_sentence(
        LAB, "first-explain", r"here the first update at ([\d.]+) raises the critical rate (\d+) times\."
    )
    run = cnnlab.Run("adam", learning_rate=rate)
    before = cnnlab.critical_learning_rate(run).value
    run.step()
    assert cnnlab.critical_learning_rate(run).value / before == pytest.approx(times, rel=0.1)


def test_after_training_the_cost_rises_below_the_bound_and_above_it_in_as_many_seeds_as_is_said():
    below, above = read_sentence(
        LAB, "first-explain", r"three times its value in (\d+) of 32 seeds, at one and a half times that rate in (\d+)"
    )
    assert read_seeds("12_bound", "rises_0.5").sum() == below
    assert read_seeds("12_bound", "rises_1.5").sum() == above
    assert read_seeds("12_bound", "finite_0.5").all()
    assert read_seeds("12_bound", "finite_1.5").all()
    low, high = find_numbers(LAB, r"0\.5 times: (\S+)\s+1\.5 times: (\S+)", "first-bound")
    assert low < 3 < high


def test_nearly_every_weight_moves_by_the_rate_or_not_at_all():
    read_sentence(LAB, "first-explain", "nearly every weight moves by the learning rate, or, where .*, not at all")
    unmoved, moved = find_numbers(LAB, r"unmoved (\d+)%, moved by 0\.01 (\d+)%", "first-step")
    assert unmoved + moved >= 98
    assert min(unmoved, moved) > 10
    assert move(cnnlab.Run("adam")).max() == pytest.approx(0.01, rel=1e-4)


def test_the_moves_add_up_to_more_than_weights_at_random_do():
    step, inputs, moves, deviation, random = read_sentence(
        LAB,
        "first-explain",
        r"A step of (\S+) is .* With (\d+) inputs of 1 they add up to ([\d.]+), .* × ([\d.]+) = ([\d.]+)\.",
    )
    size, found = find_numbers(LAB, r"mean size ([\d.]+), deviation ([\d.]+)", "first-step")
    assert cnnlab.Run("adam").weights()["hid1.weight"].shape[1] == inputs
    assert step / size == pytest.approx(1 / 4, abs=0.02)
    assert found == deviation
    assert inputs * step == pytest.approx(moves, abs=0.05)
    assert math.sqrt(inputs) * deviation == pytest.approx(random, abs=0.05)


def test_nine_layers_make_ten_times_the_rate_a_billion_times_the_cost():
    read_sentence(LAB, "first-explain", r"from the rate 1 to the rate 10 the cost .* a billion times .* nine layers")
    costs = []
    for rate in (1, 10):
        run = cnnlab.Run("adam", learning_rate=rate)
        costs.append(run.advance(2).cost)
    assert costs[1] / costs[0] == pytest.approx(1e9, rel=0.05)
    assert len(run.record.layers) == 9


def test_clipping_does_not_shorten_the_first_step():
    said = read_sentence(LAB, "first-explain", r"after the first update is ([\d.]+) to ([\d.]+) times that without")
    share = read_seeds("12_first", "clipped") / read_seeds("12_first", "thrown")
    assert said == pytest.approx(find_extent(share), abs=0.005)


def test_no_update_moves_a_weight_farther_than_is_said_whatever_the_gradients_are():
    (most,) = read_sentence(LAB, "first-explain", r"by more than ([\d.]+) learning rates, whatever the gradients are\.")
    updates, share = np.arange(1, 100_001), 0.9**2 / 0.999
    # By Cauchy and Schwarz: the sum of the mean's parts over the root of the sum of the square's.
    highest = 0.1 * np.sqrt((1 - share**updates) / (1 - share) / 0.001)
    assert most - 0.1 < (highest * np.sqrt(1 - 0.999**updates) / (1 - 0.9**updates)).max() < most
    mean = square = 0.0
    for update in range(1, 3001):
        gradient = (0.999 / 0.9) ** (update - 3000)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
    assert most - 0.3 < mean / math.sqrt(square / (1 - 0.999**update)) < most
    run = cnnlab.Run("adam")
    assert max(move(run).max() for _ in range(10)) < 0.01 * most


def test_the_steps_of_plain_gradient_descent_become_longer_and_longer():
    read_sentence(LAB, "first-explain", "not, as plain gradient descent does, longer and longer ones")
    run = cnnlab.Run("question")
    first, second, third = (move(run).max() for _ in range(3))
    assert 100 * first < 10 * second < third
    assert run.step().nonfinite


# 3. Is L2 the same as decay?


def read_lengths():
    """(optimiser, l2) -> how long the weights are in the end, as printed."""
    rows = re.findall(r"^(\w+) +(\S+) length +(\S+), right", execute(LAB)["decay-run"], re.MULTILINE)
    assert len(rows) == 12
    return {(name, float(l2)): float(length) for name, l2, length in rows}


def test_with_plain_gradient_descent_l2_and_decay_are_the_same():
    read_sentence(LAB, "decay-predict", "With plain gradient descent the two are the same")
    runs = [cnnlab.Run(NARROW, optimizer="sgd", l2=10, penalty_in=place) for place in ("cost", "update")]
    for run in runs:
        run.advance(10)
    first, second = (run.weights() for run in runs)
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-3, atol=1e-5)


def test_the_length_at_the_start_is_as_is_said():
    (said,) = read_sentence(LAB, "decay-how", r"The length at the start is ([\d.]+)\.")
    length = math.sqrt(sum(np.square(weights).sum() for weights in cnnlab.Run(NARROW).weights().values()))
    assert length == pytest.approx(said, abs=0.05)


def test_a_hundredfold_l2_hardly_changes_the_length_and_decay_does():
    said = read_sentence(
        LAB,
        "decay-explain",
        r"the ratio is ([\d.]+) to ([\d.]+)\. With decay it is ([\d.]+) to ([\d.]+), .* ([\d.]+) here",
    )
    l2, decay = (
        read_seeds("12_decay", f"{name}_0.1") / read_seeds("12_decay", f"{name}_10") for name in ("l2", "decay")
    )
    assert said[:2] == pytest.approx(find_extent(l2), abs=0.0005)
    assert said[2:4] == pytest.approx(find_extent(decay), abs=0.005)
    lengths = read_lengths()
    assert lengths["sgd", 0.1] / lengths["sgd", 10] == pytest.approx(said[4], abs=0.005)
    assert read_measured(LAB, "decay-compare") == pytest.approx(lengths["adam", 0.1] / lengths["adam", 10], abs=0.001)
    assert said[0] < read_measured(LAB, "decay-compare") < said[1]


def test_from_1_to_100_the_lengths_with_l2_agree_to_the_last_digit():
    read_sentence(LAB, "decay-explain", "From 1 to 100 the three lengths with L2 agree to the last digit shown")
    assert len({read_lengths()["adam", l2] for l2 in (1, 10, 100)}) == 1
    assert len({read_lengths()["adamw", l2] for l2 in (1, 10, 100)}) == 3


def test_the_same_number_shortens_with_l2_and_not_with_decay():
    said = read_sentence(LAB, "decay-explain", r"to (\d+) % to (\d+) % of their first .* decay: (\d+) % to (\d+) %")
    extents = (*read_extent("12_decay", "l2_0.1"), *read_extent("12_decay", "decay_0.1"))
    assert [round(100 * each) for each in extents] == list(said)
    assert min(read_seeds("12_decay", "decay_0.1")) > 1


def test_more_is_learned_with_decay_in_each_of_32_seeds():
    read_sentence(LAB, "decay-explain", "More is learned with decay, in each of the 32 seeds")
    said = read_sentence(
        LAB,
        "decay-explain",
        r"at l2 = 0\.1, (\d+) % are right with L2 and (\d+) % with decay .*; at l2 = 10, (\d+) % and (\d+) %",
    )
    medians = []
    for strength in (0.1, 10):
        l2, decay = (read_seeds("12_decay", f"{name}_{strength}_right") for name in ("l2", "decay"))
        assert (l2 < decay).all()
        medians += [round(100 * np.median(l2)), round(100 * np.median(decay))]
    assert medians == list(said)


def test_with_a_large_l2_the_first_update_moves_every_weight_by_the_rate_and_decay_does_not():
    strength, rate = read_sentence(
        LAB, "decay-explain", r"With l2 = (\d+) the first update moves every weight by (\S+)\. "
    )
    assert move(cnnlab.Run(NARROW, l2=strength)) == pytest.approx(rate, rel=0.02)
    assert np.quantile(move(cnnlab.Run(NARROW, l2=strength, optimizer="adamw")), 0.9) > 10 * rate


def test_decay_takes_the_shares_that_are_said():
    less, more = read_sentence(LAB, "decay-predict", r"off: ([\d.]+) % with the one, (\d+) % with the other")
    assert (less, more) == pytest.approx([100 * NARROW.learning_rate * strength for strength in (0.1, 10)])


# 4. Where does Adam end in NaN?


def test_the_narrow_network_learns_as_it_is():
    (rate,) = read_sentence(LAB, "broke-predict", r"learns with Adam at its rate of ([\d.]+)\. Six")
    assert rate == NARROW.learning_rate
    run = cnnlab.Run(NARROW)
    run.advance(60)
    assert run.record.accuracy[-1] > 0.95


def test_four_of_six_end_in_nan_and_over_32_seeds_as_many_as_is_said():
    read_sentence(LAB, "broke-explain", "Four of the six end in NaN or inf")
    assert read_measured(LAB, "broke-compare") == 4
    shown = re.findall(r"\} (\w+)", execute(LAB)["broke-run"])
    assert [update == "None" for update in shown] == [True, False, False, False, True, False]
    said = read_sentence(
        LAB,
        "broke-explain",
        r"the rate 10000 in (\d+), a beta 2 of 0 in (\d+), the log of a softmax in (\d+), `float16` in (\d+)\.",
    )
    assert said == tuple(read_seeds("12_broke", name).sum() for name in ("rate_10000", "beta2_0", "log", "float16"))
    assert not read_seeds("12_broke", "epsilon").any()


def test_the_rate_1_throws_the_cost_high_and_ends_in_no_nan():
    (said,) = read_sentence(LAB, "broke-explain", r"though the cost goes above (\S+)\. The")
    run = cnnlab.Run(NARROW, learning_rate=1)
    run.advance(30)
    assert max(run.record.cost) > said
    assert read_preset_row("adam", "learning_rate 1")[0] == "0/32"


def test_the_first_update_at_10000_makes_weights_whose_product_is_beyond_float32():
    rate, end = read_sentence(
        LAB, "broke-explain", r"weights of ±(\d+), in nine layers, and `float32` ends at (\S+)\. "
    )
    run = cnnlab.Run(NARROW, learning_rate=rate)
    run.step()
    weights = [values for name, values in run.weights().items() if name.endswith(".weight")]
    assert len(weights) == 9
    assert [abs(values).max() for values in weights] == pytest.approx([rate] * 9, rel=0.001)
    assert np.finfo(np.float32).max == pytest.approx(end, rel=0.01)
    assert run.record.first_nonfinite is None
    assert run.step().nonfinite


def test_the_first_update_drives_the_logits_so_far_apart_that_a_probability_is_zero():
    (said,) = read_sentence(LAB, "broke-explain", r"the logits more than (\d+) apart")
    run = cnnlab.Run(NARROW, cost="softmax_log", learning_rate=0.1)
    run.advance(2)
    assert run.record.logit_gap[1] > said > run.record.logit_gap[0]
    assert np.exp(np.float32(-said)) == 0
    assert run.record.cost[1] == np.inf


def test_with_a_beta_2_of_0_a_gradient_that_is_suddenly_small_makes_a_long_step():
    low, high = read_sentence(
        LAB, "broke-explain", r"by more than ([\d,]+) learning rates at once, .* With 0\.999 it is ([\d.]+) at most"
    )
    assert read_seeds("12_broke", "reach_0").min() > low
    assert high - 0.01 < read_seeds("12_broke", "reach").max() < high
    mean = 1 - 0.9**20
    assert (0.9 * mean + 0.1 * 1e-4) / 1e-4 > 1000 > (0.9 * mean + 0.1 * 1e-4) / math.sqrt(0.999 * (1 - 0.999**20))


def test_in_float16_epsilon_is_zero_and_an_epsilon_of_zero_does_the_same_in_float32():
    (smallest,) = read_sentence(LAB, "broke-predict", r"smallest number above 0 in `float16` is (\S+)\.$")
    (epsilon,) = read_sentence(LAB, "broke-explain", r"\*float16\.\* (\S+) is too small")
    assert np.finfo(np.float16).smallest_subnormal == pytest.approx(smallest, rel=0.01)
    assert np.float16(epsilon) == 0
    (count,) = read_sentence(LAB, "broke-explain", r"an epsilon of 0 does the same, in (\d+) of 32 seeds")
    assert read_seeds("12_broke", "no_epsilon").sum() == count


def test_the_autopsy_names_the_division_and_the_epsilon():
    shown = execute(LAB)["broke-autopsy"]
    assert "epsilon of the optimiser" in shown
    assert "0/0" in shown
