"""The lab on sixteen bits shows what its sentences say."""

import math
import re

import numpy as np
import pytest
import torch
from claims import read_extent, read_preset_row, read_seeds, read_spread
from notebooks import execute, find_lab, find_numbers, find_said, read_measured, read_sentence

import cnnlab
from cnnlab.plots.gauges import choose_shown, find_plot
from cnnlab.training import loss_scaling

LAB = find_lab("13")
TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


@pytest.mark.parametrize("name", TYPES)
def test_the_table_of_types_has_their_limits(name):
    largest, least, bits = read_sentence(LAB, "words", rf"\| `{name}` \| (\S+) \| (\S+) \| (\d+) \|")
    limits = torch.finfo(TYPES[name])
    assert largest == pytest.approx(limits.max, rel=0 if name == "float16" else 0.01)
    assert least == pytest.approx(limits.smallest_normal * limits.eps, rel=0.01, abs=0)
    assert limits.eps == 2 ** (1 - bits)


def test_what_is_below_half_of_the_smallest_becomes_0_and_what_is_above_it_is_rounded_up():
    low, high = read_sentence(LAB, "small-explain", r"below ([\d.]+) and become 0\. .* smallest number, ([\d.]+), is")
    assert (low, high) == pytest.approx((2**-25, 2**-24), rel=0.01)
    assert torch.tensor([0.99 * 2**-25, 1.01 * 2**-25]).half().tolist() == [0, 2**-24]
    assert (low,) == read_sentence(LAB, "small-predict", r"nothing but 0 below ([\d.]+)\.")


def test_where_the_types_end_is_said_again_as_in_the_table():
    (end,) = read_sentence(LAB, "range-explain", r"until they pass (\d+)\.")
    assert (
        (end,) == find_said(LAB, r"1\. `float16` ends at (\d+),", "three-sentences") == (torch.finfo(torch.half).max,)
    )
    (least,) = read_sentence(LAB, "small-explain", r"`bfloat16` goes down to (\S+): it")
    assert (least,) == read_sentence(LAB, "words", r"`bfloat16` \| \S+ \| (\S+) \|")
    (bits,) = find_said(LAB, r"range of `float32` and (\d+) significant bits", "three-sentences")
    assert (bits,) == read_sentence(LAB, "words", r"`bfloat16` \| \S+ \| \S+ \| (\d+)")


def test_a_number_of_sixteen_bits_takes_half_the_memory():
    read_sentence(LAB, "title", "take half the memory of `float32`")
    assert 2 * TYPES["float16"].itemsize == 2 * TYPES["bfloat16"].itemsize == TYPES["float32"].itemsize


def test_data_weights_and_gradients_have_the_type_of_the_precision():
    read_sentence(LAB, "words", "the type of the data, the weights and the gradients alike")
    run = cnnlab.Run("deep_plain", precision="bfloat16", depth=1, patch_size=8)
    step = run.descent.step(run.state, *run.problem.batch(1), *run.prepare_knobs(run.knobs_in_force))
    assert run.problem.data[0].dtype == run.parameters.dtype == step.gradient.dtype == torch.bfloat16


# 1. How long does float16 last?


def test_an_update_of_the_preset_changes_no_weight_by_more_than_1():
    read_sentence(LAB, "range-predict", "raw pixels and the learning rate 1.* no weight by more than 1")
    wanted = cnnlab.settings("overflow")
    assert (wanted.learning_rate, wanted.clip, wanted.clip_threshold) == (1, "value", 1)
    assert (wanted.momentum, wanted.input_scaling) == (0, "raw")


def test_in_float16_every_seed_overflows_by_the_update_that_is_said_and_in_the_others_none():
    seeds, last = read_sentence(LAB, "range-explain", r"all of (\d+) seeds are `NaN` or inf by update (\d+)\.")
    broken, updates, _, _ = read_preset_row("overflow", "float16, as it is")
    assert broken == f"{seeds:.0f}/32"
    assert read_spread(updates)[-1] == last
    assert read_measured(LAB, "range-compare") <= last
    read_sentence(LAB, "range-explain", "with `float32` none of the 32 is")
    assert [read_preset_row("overflow", name)[0] for name in ("bfloat16", "float32")] == ["0/32", "0/32"]
    assert find_said(LAB, r"made all of (\d+) seeds `NaN` or inf by update (\d+),", "three-sentences") == (seeds, last)


def test_finite_is_not_learned():
    (said,) = read_sentence(LAB, "range-explain", r"both types the median cost ends at ([\d.]+), the cost of guessing")
    ends = [read_spread(read_preset_row("overflow", name)[3])[1] for name in ("bfloat16", "float32")]
    assert ends == pytest.approx([said, said], abs=0.005)
    assert math.log(2) == pytest.approx(said, abs=0.005)
    find_said(LAB, "where `bfloat16` and `float32` stayed finite and learned nothing", "three-sentences")
    least = [read_spread(read_preset_row("overflow", name)[3])[0] for name in ("bfloat16", "float32")]
    assert min(least) > said - 0.005


def test_the_finite_costs_pass_ten_billion():
    read_sentence(LAB, "range-explain", "the costs pass ten billion here")
    largest = re.findall(r"largest cost (\S+) of", execute(LAB)["range-run"])
    assert len(largest) == 4
    assert min(map(float, largest[1:3])) > 1e10


def test_the_autopsy_names_a_number_in_the_hundred_thousands_in_a_convolution():
    read_sentence(LAB, "range-explain", "a number in the hundred thousands in a convolution")
    (value,) = find_numbers(LAB, r"activation of cv\d holds[\s\S]*would\s+reach\s+(\S+),", "range-run")
    assert 1e5 <= value < 1e6
    assert "Cause: overflow of the precision" in execute(LAB)["range-run"]
    assert "(inf-inf)" in execute(LAB)["range-run"]


def test_at_a_rate_of_0_01_none_of_32_seeds_overflows_and_the_cost_falls():
    rate, broken, start, end = read_sentence(
        LAB,
        "range-explain",
        r"At the learning rate ([\d.]+), .* (none) of 32 seeds does, .* cost falls from (\d+) to ([\d.]+)\.",
    )
    assert rate == 0.01
    assert read_seeds("13_range", "gentle_broke").sum() == broken == 0
    assert find_said(LAB, r"with a rate of ([\d.]+) (none) overflowed", "three-sentences") == (rate, broken)
    assert np.median(read_seeds("13_range", "gentle_start")) == pytest.approx(start, abs=0.5)
    assert np.median(read_seeds("13_range", "gentle_end")) == pytest.approx(end, abs=0.005)


def test_after_the_first_update_the_activations_grow_until_they_pass_the_end_of_float16():
    read_sentence(LAB, "range-explain", "activations grow from layer to layer, until they pass 65504")
    run = cnnlab.Run("overflow", precision="float32")
    (end,) = read_sentence(LAB, "range-explain", r"until they pass (\d+)\.")
    before, _, after = run.activations(), run.step(), run.activations()
    read_sentence(LAB, "range-predict", "there are nine layers")
    assert len(after) == 9
    assert max(abs(each).max() for each in before.values()) < 1000
    largest = [abs(each).max() for each in after.values()]
    assert largest[0] < end < largest[-1]


def test_bfloat16_has_as_many_bits_for_the_exponent_as_float32():
    said = read_sentence(LAB, "range-explain", r"has (\d) bits for the exponent, `bfloat16` has (\d), as many")
    exponents = {name: 8 * kind.itemsize - 1 + round(math.log2(torch.finfo(kind).eps)) for name, kind in TYPES.items()}
    assert said == (exponents["float16"], exponents["bfloat16"])
    assert exponents["bfloat16"] == exponents["float32"]


# 2. What do eight digits leave out?


def add_hundredths(kind):
    """0.01 added ten thousand times in a type of torch."""
    total, hundredth = torch.zeros((), dtype=kind), torch.tensor(0.01, dtype=kind)
    for _ in range(10_000):
        total = total + hundredth
    return total.item()


def test_the_sums_are_those_that_torch_makes_in_the_three_types():
    step, exact, bits = read_sentence(
        LAB,
        "sum-predict",
        r"at 0 and add ([\d.]+), ten thousand times\. .* gives (\d+)\. .* rounded to (\d+) significant",
    )
    assert 10_000 * step == exact
    assert torch.finfo(torch.bfloat16).eps == 2 ** (1 - bits)
    sums = dict(re.findall(r"^(\w+) +([\d.]+), 1 \+", execute(LAB)["sum-run"], re.MULTILINE))
    assert {name: float(total) for name, total in sums.items()} == pytest.approx(
        {name: add_hundredths(kind) for name, kind in TYPES.items()}, rel=1e-5
    )
    eight, eleven = read_sentence(
        LAB, "sum-explain", r"With 8 bits the sum stops at (\d+)\. .* 11 bits it stops at (\d+)"
    )
    assert (float(sums["bfloat16"]), float(sums["float16"])) == (eight, eleven)
    assert read_measured(LAB, "sum-compare") == eight
    assert find_said(LAB, r"a sum of hundredths stops at (\d)", "three-sentences") == (eight,)


def test_the_steps_between_numbers_of_8_bits_are_as_is_said():
    (far,) = read_sentence(LAB, "sum-explain", r"the numbers are 1/(\d+) apart, 0\.01 is less than half")
    (near,) = read_sentence(LAB, "sum-predict", r"Between 1 and 2 they are 1/(\d+) apart")
    kind = torch.bfloat16
    above = [torch.nextafter(torch.tensor(one, dtype=kind), torch.tensor(9.0, dtype=kind)) - one for one in (4.0, 1.0)]
    assert [step.item() for step in above] == [1 / far, 1 / near]
    assert 1 / far / 2 > 0.01


def test_1_and_a_512th_is_1_with_8_bits():
    read_sentence(LAB, "sum-explain", r"And 1 \+ 1/512 is 1 with 8 bits")
    assert torch.tensor(1 + 1 / 512).bfloat16().item() == 1
    assert "1 + 1/512 is 1.0\n" in execute(LAB)["sum-run"]
    assert "1 + 1/512 is 1.001953125\n" in execute(LAB)["sum-run"]


def test_the_small_network_is_the_one_that_is_described():
    said = read_sentence(LAB, "sum-network", r"patches of (\d) × (\d) pixels, for (\d+) updates")
    runs = execute(LAB)["ledger"].splitlines()
    assert ["depth=4, patch_size=8: 60 updates" in line for line in runs] == [False] * 4 + [True] * 6 + [False] * 6
    assert said == (8, 8, 60)


def test_the_ledger_has_the_runs_in_the_order_that_is_said():
    read_sentence(LAB, "ledger-text", "four runs of unit 1, the six of unit 2, and those of unit 4, .* at the end")
    runs = execute(LAB)["ledger"].splitlines()
    assert [re.match(r"Record\((\w+)", line)[1] for line in runs] == (
        ["overflow"] * 4 + ["deep_plain"] * 6 + ["loss_scaling"] * 3 + ["overflow", "deep_plain", "loss_scaling"]
    )


def read_costs(precision, rate):
    """The cost of the last epoch of 32 seeds."""
    return read_seeds("13_digits", f"{precision}_{rate}_cost")


def test_at_the_low_rate_bfloat16_trains_worse_in_every_seed():
    rate, count, short, wide = read_sentence(
        LAB, "sum-explain", r"rate ([\d.]+) `bfloat16` does .* in (\d+) of 32 seeds, .* ([\d.]+) in place of ([\d.]+)\."
    )
    low = read_costs("bfloat16", rate), read_costs("float32", rate)
    assert (low[0] > low[1]).sum() == count
    assert [np.median(costs) for costs in low] == pytest.approx([short, wide], abs=0.0005)
    assert find_said(
        LAB, r"In (\d+) of 32 seeds it trained worse at the learning rate ([\d.]+),", "three-sentences"
    ) == (count, rate)


def test_at_the_high_rate_no_difference_is_certain():
    rate, higher, lower, short, wide = read_sentence(
        LAB,
        "sum-explain",
        r"At ([\d.]+) it is higher in (\d+) seeds and lower in (\d+), .*chance \(medians ([\d.]+) and ([\d.]+)\)",
    )
    costs = read_costs("bfloat16", rate), read_costs("float32", rate)
    assert ((costs[0] > costs[1]).sum(), (costs[0] < costs[1]).sum()) == (higher, lower)
    assert [np.median(each) for each in costs] == pytest.approx([short, wide], abs=0.0005)
    chance = 2 * sum(math.comb(32, count) for count in range(int(higher), 33)) / 2**32
    assert chance > 0.05
    assert find_said(LAB, r"and at ([\d.]+) no difference was certain", "three-sentences") == (rate,)


def test_weights_that_an_update_leaves_unchanged_are_as_many_as_is_said():
    low, high, wide = read_sentence(
        LAB, "sum-explain", r"leaves (\d+) % to (\d+) % of hid1's weights unchanged, with `float32` at most (\d+) %"
    )
    assert (low / 100, high / 100) == pytest.approx(read_extent("13_digits", "bfloat16_0.001_still"), abs=0.005)
    assert read_extent("13_digits", "float32_0.001_still")[1] == pytest.approx(wide / 100, abs=0.005)
    said = read_sentence(LAB, "sum-explain", r"Yet (\d+) % to (\d+) % of the weights are unchanged")
    assert said == pytest.approx([100 * each for each in read_extent("13_digits", "bfloat16_0.01_still")], abs=0.5)


def test_float16_overflows_in_none_of_these_runs_and_costs_are_higher_in_about_half():
    broken, rate, higher = read_sentence(
        LAB, "sum-explain", r"overflows in (none) of the 32 seeds at ([\d.]+), .* that of `float32` in (\d+)\."
    )
    short, wide = read_costs("float16", rate), read_costs("float32", rate)
    assert (~np.isfinite(short)).sum() == broken
    assert (short > wide).sum() == higher


def test_half_a_step_is_longer_than_the_median_update_at_the_low_rate_alone():
    least, most = read_sentence(LAB, "sum-explain", r"1/512 to 1/256 of a weight: ([\d.]+) % to ([\d.]+) %\.")
    assert (least, most) == pytest.approx((100 / 512, 100 / 256), abs=0.05)
    high, low = read_sentence(
        LAB, "sum-explain", r"median update of a layer is ([\d.]+) % .* rate 0\.01, and ([\d.]+) % at 0\.001"
    )
    medians = [100 * np.median(read_seeds("13_digits", f"float32_{rate}_ratio")) for rate in (0.01, 0.001)]
    assert medians == pytest.approx([high, low], abs=0.005)
    assert low < least < high


def take_gradient(run, weights, update):
    """The cost of the lab's small network with these weights, and its gradient, in the precision of the run."""
    state = run.state._replace(parameters=weights.to(run.parameters.dtype))
    step = run.descent.step(state, *run.problem.batch(update), *run.prepare_knobs(run.knobs_in_force))
    return float(step.data_cost), step.gradient.float()


def train_by_hand(precision, rate, keep):
    """The mean of the last twenty of 60 costs, where `keep` says what the weights become after each update."""
    run = cnnlab.Run("deep_plain", depth=4, patch_size=8, precision=precision, learning_rate=rate)
    weights = cnnlab.Run("deep_plain", depth=4, patch_size=8).parameters.clone()
    velocity, costs = torch.zeros_like(weights), []
    for update in range(1, 61):
        cost, gradient = take_gradient(run, weights, update)
        velocity = run.knobs.momentum * velocity + gradient
        weights = keep(weights - rate * velocity)
        costs.append(cost)
    return np.mean(costs[-20:])


def test_it_is_the_rounded_weights_that_train_worse_and_weights_kept_in_float32_avoid_it():
    rate, rounded, kept, wide = read_sentence(
        LAB,
        "sum-explain",
        r"after each update, the cost at ([\d.]+) is ([\d.]+) in this run, .* gives ([\d.]+) .* the ([\d.]+) of",
    )
    shown = dict(re.findall(rf"^{rate} +(\w+) +cost (\S+),", execute(LAB)["sum-learn"], re.MULTILINE))
    assert (float(shown["bfloat16"]), float(shown["float32"])) == pytest.approx((rounded, wide), abs=0.01)
    by_hand = train_by_hand("float32", rate, lambda weights: weights.bfloat16().float())
    assert by_hand == pytest.approx(rounded, abs=0.01)
    assert train_by_hand("bfloat16", rate, lambda weights: weights) == pytest.approx(kept, abs=0.01)


def test_the_six_runs_print_what_the_seeds_show():
    rows = re.findall(r"^(\S+) +(\w+) +cost (\S+), unchanged (\d+)%$", execute(LAB)["sum-learn"], re.MULTILINE)
    assert len(rows) == 6
    costs = {(rate, name): float(cost) for rate, name, cost, _ in rows}
    assert costs["0.001", "bfloat16"] > costs["0.001", "float32"]
    same = {(rate, name): int(share) for rate, name, _, share in rows}
    assert same["0.001", "bfloat16"] > same["0.01", "bfloat16"] > same["0.01", "float32"]


# 3. What becomes 0?


def test_the_gradient_passes_back_from_the_softmax_to_cv0_as_is_said():
    last, first = read_sentence(LAB, "small-predict", r"puts out is ([\d.]+) at the softmax, and ([\d.]+) at cv0\.")
    back = cnnlab.measure_signals(cnnlab.Run("loss_scaling", precision="float32")).backward_deviation
    assert (back[-1], back[0]) == pytest.approx((last, first), rel=0.2)
    assert list(back) == sorted(back)


def test_float16_loses_the_gradient_of_cv0_in_as_many_seeds_as_is_said():
    count, low, high = read_sentence(
        LAB, "small-explain", r"exactly 0 in (\d+) of 32 seeds\. In the other four (\d+) % to (\d+) % of its"
    )
    left = read_seeds("13_underflow", "off_cv0")
    assert (left == 0).sum() == count == 28
    others = left[left > 0]
    assert (min(others), max(others)) == pytest.approx((low / 100, high / 100), abs=0.005)
    assert find_said(LAB, r"cv0's did in (\d+) of 32 seeds", "three-sentences") == (count,)


def test_two_layers_have_less_than_half_of_their_gradient_in_the_run_of_the_lab():
    row = find_numbers(LAB, r"float16 +" + r"(\S+) " * 8 + r"(\S+)", "small-run")
    assert sum(share < 0.5 for share in row) == read_measured(LAB, "small-compare") == 2
    assert read_seeds("13_underflow", "off_short")[0] == 2
    (first,) = find_numbers(LAB, r"cv0 in float32: (\S+)", "small-run")
    assert first == pytest.approx(read_seeds("13_underflow", "first")[0], rel=0.03)


def test_bfloat16_and_a_scale_keep_the_gradient_of_cv0_in_every_seed():
    said = read_sentence(LAB, "small-explain", r"With `bfloat16` cv0's gradient has ([\d.]+) to ([\d.]+) times")
    assert said == pytest.approx(read_extent("13_underflow", "bfloat16_cv0"), abs=0.005)
    said = read_sentence(LAB, "scale-explain", r"cv0's first gradient is ([\d.]+) to ([\d.]+) times as long")
    assert said == pytest.approx(read_extent("13_underflow", "scaled_cv0"), abs=0.0051)


def test_the_gradient_of_cv0_itself_would_not_be_too_small():
    (said,) = read_sentence(LAB, "small-explain", r"it is more than ([\d.]+) long, in each of 32 seeds")
    weights = sum(each.size for name, each in cnnlab.Run("loss_scaling").weights().items() if name.startswith("cv0"))
    assert read_extent("13_underflow", "first")[0] > said
    assert said / weights > 6e-8
    assert read_extent("13_underflow", "back_first")[1] < 3e-8


def test_an_underflow_can_lengthen_a_gradient():
    said = read_sentence(LAB, "small-explain", r"is from (\d) to ([\d.]+) times as long as it should be")
    assert said == pytest.approx(read_extent("13_underflow", "off_cv1"), abs=0.05)


def test_the_parts_of_a_gradient_nearly_cancel_and_less_so_when_they_are_rounded():
    low, high, longer = read_sentence(
        LAB, "small-explain", r"leave ([\d.]+) % to ([\d.]+) % of .*, at most ([\d.]+) times as long,"
    )
    assert (low / 100, high / 100) == pytest.approx(read_extent("13_cancelling", "left"), abs=0.0005)
    assert read_extent("13_cancelling", "parts")[1] == pytest.approx(longer, abs=0.005)
    (most,) = read_sentence(LAB, "small-explain", r"their sum is up to ([\d.]+) times as long")
    assert read_extent("13_cancelling", "gradient")[1] == pytest.approx(most, abs=0.05)


# 4. What does loss scaling mend?


def test_the_rule_of_the_scale_is_that_of_the_package_and_of_torch():
    first, often = read_sentence(LAB, "scale-predict", r"the scale is (\d+) at first\. .* After (\d+) updates in a row")
    assert (first, often) == (loss_scaling.START, loss_scaling.GOOD)
    torchs = torch.amp.GradScaler("cpu")
    assert (first, often) == (torchs.get_scale(), torchs.get_growth_interval())
    assert (torchs.get_backoff_factor(), torchs.get_growth_factor()) == (0.5, 2)


def test_the_first_update_is_always_left_out_and_as_many_of_80_as_is_said():
    (first,) = read_sentence(LAB, "scale-explain", r"first update is always left out, for (\d+) itself is too large")
    assert first == loss_scaling.START
    assert torch.tensor(first).half().isinf()
    assert read_extent("13_underflow", "first_left_out") == (1, 1)
    least, most, middle = read_sentence(
        LAB, "scale-explain", r"updates (\d) to (\d) are left out over 32 seeds, (\d) at the median"
    )
    assert read_spread(read_preset_row("loss_scaling", "dynamic, as it is")[2]) == (least, middle, most)
    assert least <= read_measured(LAB, "scale-compare") <= most
    updates = cnnlab.settings("loss_scaling").epochs * cnnlab.Run("loss_scaling").updates_per_epoch
    assert read_sentence(LAB, "scale-predict", r"How many of the first (\d+) updates") == (updates,)
    assert read_sentence(LAB, "scale-explain", r"Of the (\d+) updates") == (updates,)


def test_the_autopsy_calls_an_update_that_was_left_out_harmless():
    read_sentence(LAB, "scale-explain", "The autopsy calls them harmless: the weights stayed where they were")
    assert "harmless, as the weights stayed where they were" in " ".join(execute(LAB)["scale-run"].split())
    assert "Cause: healthy" in execute(LAB)["scale-run"]


def read_trained():
    """The update in which cv0 moves first, by run: with a dynamic scale, without one, in float32."""
    rows = re.findall(r"cv0 moves from update (\d+) on, cost ([\d.]+): Record", execute(LAB)["scale-without"])
    assert len(rows) == 3
    return [int(update) for update, _ in rows]


def test_the_dashboard_shows_the_plot_that_is_named():
    read_sentence(
        LAB,
        "scale-how",
        r"\*\*Loss scale\*\*, the last of the plots, which is drawn in powers of two\. A triangle along its top",
    )
    assert choose_shown([(1, cnnlab.settings("loss_scaling").knobs)])[-1] == "loss_scale"
    assert find_plot("loss_scale").title == "Loss scale"


def test_the_steps_of_the_preset_are_short_though_its_rate_is_high():
    rate, norm = read_sentence(
        LAB, "scale-how", r"The learning rate is (\d+), which is soon far .* clipped to a norm of ([\d.]+),"
    )
    wanted = cnnlab.settings("loss_scaling")
    assert (wanted.learning_rate, wanted.clip, wanted.clip_threshold) == (rate, "norm", norm)
    run = cnnlab.Run("loss_scaling")
    run.advance(20)
    assert rate > 10 * cnnlab.critical_learning_rate(run).value


def test_without_a_scale_cv0_stands_still_for_a_dozen_updates():
    read_sentence(LAB, "scale-explain", "without a scale cv0 does not move in the first dozen updates")
    scaled, without, wide = read_trained()
    assert (scaled, wide) == (2, 1)
    assert without > 12


def test_the_costs_are_no_lower_with_a_scale():
    said = read_sentence(
        LAB,
        "scale-explain",
        r"a median of ([\d.]+) with a dynamic scale, ([\d.]+) without a scale, and ([\d.]+) with `float32`",
    )
    rows = [read_preset_row("loss_scaling", name) for name in ("dynamic, as it is", "off", "float32")]
    assert said == pytest.approx([read_spread(row[5])[1] for row in rows], abs=0.0005)
    assert said[0] >= said[1]


def test_what_comes_back_to_cv0_grows_while_the_last_layers_learn():
    read_sentence(LAB, "scale-explain", "the last layers learn without one, and then more comes back to cv0")
    run = cnnlab.Run("loss_scaling", loss_scale="off")
    run.advance(20)
    assert (run.record.update_ratio[:10, -1] > 0).all()
    assert run.record.gradient_norm[0, 0] == 0
    assert run.record.gradient_norm[-1, 0] > 1e-3


def test_no_scale_mends_the_overflow_and_the_autopsy_says_so():
    seeds, last = read_sentence(LAB, "scale-explain", r"becomes `NaN` in (\d+) of 32 seeds, by update (\d+)\.")
    first = read_seeds("13_range", "scaled_first")
    assert np.isfinite(first).sum() == seeds
    assert max(first) == last
    shown = execute(LAB)["scale-overflow"]
    assert "no scale helps, for the cause is another" in shown
    (scale,) = find_numbers(LAB, r"\] (\S+)\n", "scale-overflow")
    assert scale < 1


def test_in_the_long_run_the_scale_tries_its_double_and_falls_back():
    again, said = read_sentence(
        LAB,
        "scale-explain",
        r"that is (\d+), too large once more: it overflows at update (\d+), and",
    )
    assert again == loss_scaling.START
    rows = re.findall(r"from update (\d+) on: (\d+)", execute(LAB)["scale-long"])
    before, double, after = [(int(update), float(scale)) for update, scale in rows]
    assert double == (said, 2 * before[1])
    assert after == (said + 1, before[1])
    assert said == before[0] + loss_scaling.GOOD
    assert find_said(LAB, r"Every (\d+) updates the scale tries its double", "scale-explain") == (loss_scaling.GOOD,)
    assert find_said(LAB, r"trained for (\d+) updates", "scale-more")[0] > said


def test_the_exercise_can_be_tried_on_the_run_of_the_lab():
    rule = read_sentence(
        LAB, "build-spec", r"rule of unit 4: (\d+) for the first; half .* after (\d+) updates in a row"
    )
    assert rule == (loss_scaling.START, loss_scaling.GOOD)
    read_sentence(LAB, "build-spec", r"`scales\(list\(scaled\.record\.left_out\)\)` must give")
    run = cnnlab.Run("loss_scaling", patches=20)
    run.advance(20)
    scale = 65536.0
    for met, left_out in zip(run.record.scale, run.record.left_out, strict=True):
        assert met == scale
        scale *= 0.5 if left_out else 1
