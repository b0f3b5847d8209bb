"""The page on makemore part 3 and d2l: its cells are run as they stand there, and its numbers are what they give."""

import math
import re
from decimal import Decimal
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import cnnlab

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "anchors.md").read_text(encoding="utf-8")
WORDS = " ".join(re.sub(r"```python\n.*?```", "", PAGE, flags=re.DOTALL).split())
CELLS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"


@cache
def run_cells():
    """What the cells of the page have made, the one with the dashboard left out."""
    made = {}
    for code in CELLS:
        if not code.startswith("lab = "):
            exec(compile(code, "docs/anchors.md", "exec"), made)
    return made


def say(sentence, *measured):
    """The page has the sentence once, with the measured numbers where {} stands, as they are rounded there."""
    (said,) = re.findall(re.escape(sentence).replace(r"\{\}", NUMBER), WORDS)
    written = [said] if isinstance(said, str) else said
    for text, value in zip(written, measured, strict=True):
        assert float(text) == pytest.approx(value, abs=0.6 * 10.0 ** Decimal(text).as_tuple().exponent)


def test_a_cell_opens_a_dashboard_with_the_plots_that_the_page_names():
    (code,) = (code for code in CELLS if code.startswith("lab = "))
    made = dict(run_cells())
    exec(compile(code, "docs/anchors.md", "exec"), made)
    made["lab"].close()
    assert re.findall(r'"(\w+)"', code) == ["cost", "signals", "magnitudes", "ratio", "activations"]


def test_each_point_says_what_they_show_and_where_it_moves_here():
    points = re.split(r"^### ", PAGE.partition("\n## Not answered")[0], flags=re.MULTILINE)[1:]
    assert len(points) == 13
    assert all(point.count("**They show:**") == point.count("**Here:**") >= 1 for point in points)
    assert all("```python" in point for point in points)


def test_a_minute_that_is_named_is_the_second_that_its_link_leads_to():
    linked = re.findall(r"\[([\d:]+)\]\(\S+&t=(\d+)s\)", PAGE)
    assert len(linked) == 10
    for minute, second in linked:
        assert sum(int(part) * 60**place for place, part in enumerate(minute.split(":")[::-1])) == int(second)


def test_guessing_costs_as_much_as_it_says():
    say("costs ln 27 = {}", math.log(27))
    say("Guessing costs ln 2 = {}", math.log(2))


def test_raw_pixels_make_the_first_cost_as_large_as_it_says():
    made = run_cells()
    (raw, standardised), (raw_gap, standardised_gap) = made["first_cost"], made["logit_gap"]
    say("the first cost is {}, and the largest gap between the two logits of a patch is {}.", raw, raw_gap)
    say("standardised pixels the first cost is {} and the gap {}.", standardised, standardised_gap)


def test_the_labels_of_the_patches_alternate_as_the_cell_has_them():
    made = run_cells()
    assert cnnlab.Run(made["small"]).problem.data[1].tolist() == made["kinds"].tolist()


def test_a_large_last_layer_falls_and_ends_as_it_says():
    made = run_cells()
    large, small = made["cost_over_time"][10], made["cost_over_time"][0.1]
    say("begins at a cost of {}. The third update already meets {}:", large[0], large[2])
    say("0.1 times as large begins at {}, and the third update meets {}.", small[0], small[2])
    say("Update 12 meets a cost of {} with it, and {} with the small one.", large[11], small[11])
    times = (made["gradients"][10] / made["gradients"][0.1])[:-1]
    say("are {} to {} times as large with the large last layer", times.min(), times.max())


@pytest.mark.parametrize("pixels", ["raw", "standardised"])
def test_as_many_tanh_are_flat_as_it_says(pixels):
    largest, flat, slope, dead = run_cells()["flat"][pixels]
    say(f"| {pixels} | {{}} | {{}} % | {{}} | {{}} % |", largest, 100 * flat, slope, 100 * dead)


@pytest.mark.parametrize(("name", "gain"), [("0.5", 0.5), ("1", 1), ("5/3", 5 / 3), ("3", 3)])
def test_a_gain_gives_the_deviations_that_it_says(name, gain):
    out, flat = (run_cells()[key][gain][[0, 7]] for key in ("forward", "saturated"))
    say(f"| {name} | {{}} | {{}} | {{}} % | {{}} % |", *out, *(100 * flat))


def test_the_gains_are_those_of_the_weights():
    weights = cnnlab.Run(run_cells()["small"], init_scale=0.6 * 3).weights()
    assert weights["hid1.weight"].std() * math.sqrt(512) == pytest.approx(3, rel=0.02)
    assert weights["cv0.weight"].std() == pytest.approx(1, rel=0.1)


def test_a_gain_changes_the_gradient_on_its_way_back_as_it_says():
    say(
        "is multiplied by {} with gain 0.5, by {} with gain 1, by {} with gain 5/3 and by {} with gain 3.",
        *run_cells()["ratio"].values(),
    )


def test_without_tanh_deviations_grow_as_it_says():
    made = run_cells()
    forth, back = made["growth"], made["return_growth"]
    say("the deviation by {} forward, and the gradient by {} backward", forth[5 / 3], back[5 / 3])
    say("has a deviation of {}, nearly the root of 9. With gain 1 it is {}.", made["out"][3][0], made["out"][1][0])
    say("With gain 1 a convolution multiplies the deviation by {}, not by 1.", forth[1])
    there = np.convolve(np.ones(8), np.ones(3), "same").mean() ** 2
    say("(3 - 2/8)² = {} are there", there)
    say("The root of 7.56/9 is {}.", math.sqrt(there / 9))


def test_the_last_layer_learns_as_much_faster_as_it_says():
    made = run_cells()
    say("is {} times as large as one of the layer before.", made["last_layer"][0.1])
    say("divided by its weights, is {} times as large.", made["steps"][-1] / made["steps"][-2])
    say("are {} times as large without it, and {} times in", made["last_layer"][1], made["in_ours"])


def test_the_ratio_of_updates_is_as_it_says():
    made = run_cells()
    over_time = made["over_time"]
    say("the ratio is {} at update 1 and {} at update 10", over_time[0], over_time[9])
    say("At 0.001 it is {} at update 1.", made["slowly"])
    say("The fastest layer's ratio is {} times that of the slowest.", made["spread"]["divided"])
    say("it is {} times.", made["spread"]["undivided"])
    weights = cnnlab.Run(made["small"], init_scale=5).weights()
    assert weights["cv1.weight"].std() == pytest.approx(1, rel=0.05)


def test_batch_norm_makes_all_gains_alike_as_it_says():
    made = run_cells()
    out, flat = made["normed_out"], 100 * made["normed_flat"]
    assert np.ptp(out, axis=0).max() < 0.001
    say("of the eight layers lie between {} and {}, and", out.min(), out.max())
    say("and {} % to {} % of the tanh are flat.", flat.min(), flat.max())
    say("the gradient is multiplied by {}, {} and {}.", *made["normed_ratio"])
    say("is {} with gain 0.2, {} with 5/3, and {} with 3.", *made["normed_update"])
    assert made["normed_ratio"][1] > made["ratio"][5 / 3] > 1


def test_running_averages_come_as_near_as_it_says():
    lag = 100 * run_cells()["lag"]
    say("the outputs is {} % too large with", lag[0])
    say("after 16 it is {} % too large, after 32 it is {} %.", lag[15], lag[31])


def test_a_bias_before_a_norm_does_not_move_and_the_norm_s_own_does():
    moved = run_cells()["moved"]
    before = [value for name, value in moved.items() if "_norm" not in name and name != "softmax.bias"]
    say("no bias in front of a norm gets as far as {} from 0", 1e-6)
    assert len(before) == 8
    assert max(before) < 1e-6
    say("as far as {}.", max(value for name, value in moved.items() if "_norm" in name))


def test_a_sigmoid_takes_as_much_of_the_gradient_as_it_says():
    made = run_cells()
    say("The slope is {} at 0, {} at 4 and {} at 8.", *made["slopes"])
    plain, glorot, relu = made["per_layer"].values()
    back = made["deep_back"]["sigmoid, he_normal"]
    say(
        "each convolution multiplies the gradient by {} on its way back. Nineteen of them leave {} of it.",
        plain,
        back[0] / back[19],
    )
    say("the gain of a ReLU it is {}.", relu)
    say("and then a convolution multiplies the gradient by {}.", glorot)
    scales = [
        abs(cnnlab.Run(made["small"], init="glorot_uniform", activation=name).weights()["cv1.weight"]).max()
        for name in ("sigmoid", "tanh")
    ]
    say("makes the weights of a sigmoid {} times as large", scales[0] / scales[1])


def test_products_of_matrices_explode_as_it_says():
    made = run_cells()
    largest, out = made["largest"], made["doubled_out"]
    say("product is {} in the median, and between {} and {}.", np.median(largest), min(largest), max(largest))
    say("the deviation is {} behind the first convolution and {} behind the last:", out[0], out[63])
    say("each multiplies it by {}.", (out[63] / out[0]) ** (1 / 63))
    first, last = (end(made["first_inf"]) + 1 for end in (min, max))
    say("The first inf is in convolution {} or {} with all eight seeds", first, last)
    assert all(np.isnan(record.cost[0]) for record in made["normal"])
    weights = cnnlab.Run(made["narrow"], init_scale=0.6 * 6).weights()
    assert weights["cv1.weight"].std() == pytest.approx(1, rel=0.15)


def test_equal_units_stay_equal_as_it_says():
    made = run_cells()
    alike, left_out, drawn = made["alike"], made["left_out"], made["drawn"]
    assert alike[0] == 0
    say("the 8 units are still {} apart. With dropout of one half they are {} apart", alike[0], left_out[0])
    say("weights drawn by chance {}. The last of the three ends at a cost of {}, the first at {}.", *drawn, alike[1])
    assert made["awake"] == ["softmax.bias"]


def test_weights_of_deviation_one_hundredth_learn_as_little_as_it_says():
    made = run_cells()
    say("gives the weights behind cv0 a deviation of {}.", made["deviation"])
    say(
        "Each convolution multiplies the deviation by {}, and the gradient of cv0 has a norm of {}.",
        made["shrink"],
        made["tiny_gradient"],
    )


@pytest.mark.parametrize("formula", ["lecun_normal", "glorot_uniform"])
def test_a_formula_keeps_one_direction_as_well_as_it_says(formula):
    forth, back, _ = run_cells()["formulas"][formula]
    say(f"| `{formula}` | {{}} | {{}} |", forth, back)


def test_the_sums_of_two_formulas_are_as_it_says():
    say("√(512/512) = {} and √(32/512) = {} for the first", 1, math.sqrt(32 / 512))
    say("√(2 · 512/544) = {} and √(2 · 32/544) = {} for the second", math.sqrt(1024 / 544), math.sqrt(64 / 544))
    assert cnnlab.Run(run_cells()["small"]).weights()["hid1.weight"].shape == (32, 512)


def test_relus_take_as_much_from_a_formula_as_it_says():
    glorot, he = (found[2] for found in run_cells()["with_relu"].values())
    say("multiplies the deviation by {} with `glorot_uniform`, and by {} with `he_normal`", glorot, he)
    say("the ReLU into account; {} is what", math.sqrt(2.75**2 / 9))
