"""The pages of physics: every number in them is that of its measurement, or is computed anew."""

import math
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import cnnlab
from cnnlab.config.stability import find_bound

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
FORMULAS = ("question_6", "question_2", "he_normal", "glorot_uniform", "lecun_normal", "lsuv")
LN_2 = math.log(2)


@cache
def read_page(name):
    """The words of a page, in one line."""
    return " ".join((ROOT / "docs" / "physics" / f"{name}.md").read_text(encoding="utf-8").split())


@cache
def read_claim(name, key):
    """A value of a claim of the labs, for all its seeds."""
    sys.path.insert(0, str(ROOT / "tests" / "labs"))
    try:
        from claims import read_column
    finally:
        sys.path.remove(str(ROOT / "tests" / "labs"))
    return read_column(name, key)


@cache
def read_preset(section):
    """The rows of a preset's table by their first cell; each a dictionary by its column."""
    table = (RESULTS / "presets.md").read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    heads, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}


def count(values):
    """How many are finite: a run that never diverged has inf."""
    return int(np.isfinite(values).sum())


def short(value):
    """A number with two digits, as the pages have it."""
    return f"{value:.2g}"


def median(values):
    """The median, with two digits."""
    return short(np.median(values))


def say(page, *sentences):
    """Each sentence stands on the page."""
    assert [sentence for sentence in sentences if sentence not in read_page(page)] == []


def measure_radius(*rows):
    """The factor by which a linear recursion grows an update in the end."""
    return max(abs(np.linalg.eigvals(np.array(rows, dtype=float))))


RECURSIONS = {
    "gradient descent": lambda s, b: measure_radius([1 - s]),
    "heavy ball": lambda s, b: measure_radius([1 - s, -b], [s, b]),
    "Nesterov": lambda s, b: measure_radius([1 - s * (1 + b), -b * b], [s, b]),
    "RMSprop without momentum": lambda s, b: measure_radius([1 - s]),
    "Adam": lambda s, b: measure_radius([1 - s * (1 - b), -b], [s * (1 - b), b]),
}
"""Optimiser -> how a step at rate times eigenvalue and momentum changes (weight, momentum) on a parabola."""
NAMES = {"gradient descent": "sgd", "heavy ball": "sgd", "Nesterov": "nesterov", "Adam": "adam"}


@pytest.mark.parametrize("optimizer", RECURSIONS)
def test_the_limit_of_an_optimiser_is_where_its_steps_on_a_parabola_begin_to_grow(optimizer):
    page = (ROOT / "docs" / "physics" / "step_size.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith(f"| {optimizer} "))
    limit = float(row.strip("| ").rpartition("| ")[2])
    assert RECURSIONS[optimizer](0.995 * limit, 0.9) < 1 < RECURSIONS[optimizer](1.005 * limit, 0.9)


def test_the_limits_are_those_that_the_package_reckons_with():
    for optimizer, name in NAMES.items():
        limit = find_bound(name, 0.0 if optimizer == "gradient descent" else 0.9)
        assert RECURSIONS[optimizer](0.999 * limit, 0.9) < 1 < RECURSIONS[optimizer](1.001 * limit, 0.9)
    for beta in (0.01, 0.5, 0.9, 0.999):
        assert find_bound("nesterov", beta) < find_bound("sgd") < find_bound("sgd", beta)
    say("step_size", r"without momentum, for any $\beta$ above 0.")


def test_the_hessian_has_as_many_entries():
    weights = sum(layer.size for layer in cnnlab.Run("question").weights().values())
    assert f"has {weights**2 / 1e9:.0f} billion entries" in read_page("step_size")


def test_the_critical_rates_and_what_became_of_the_runs_are_those_measured():
    critical = read_claim("01_multiples", "critical")
    died = {times: count(read_claim("01_multiples", f"times_{times}")) for times in ("0.5", "4", "64")}
    begin, end = (np.median(read_claim("01_stability", key)) for key in ("start", "at_0.0002"))
    assert died["0.5"] == died["4"] == 0
    assert critical.max() < 0.001
    say(
        "step_size",
        f"between {short(critical.min())} and {short(critical.max())}; its median is {median(critical)}",
        f"0.01, is {median(0.01 / critical)} times the critical one in the median, and {min(0.01 / critical):.0f}",
        f"none of the {len(critical)} runs diverges, and at 4 times its critical rate none either. At 64 times",
        f"At 64 times {died['64']} of them diverge.",
        f"a rate of 0.001 is above the critical one, with each of the {len(critical)} seeds.",
        f"begins at {short(begin)} times the limit in the median. After 20 updates it is {short(end)} times the limit",
    )


def test_warm_up_and_clipping_save_as_many_runs_as_it_says():
    plain, warm, clipped = (count(read_claim("01_high", name)) for name in ("plain", "warm", "clipped"))
    ratio = read_claim("01_high", "clipped_cost") / read_claim("01_high", "warm_cost")
    assert read_claim("01_high", "shortest_gradient").min() > 1
    say(
        "step_size",
        f"{plain} of {len(ratio)} runs diverge. With a warm-up over the first ten updates {warm} do, and with clipping",
        f"to norm 1 {clipped} do. The cost of the clipped run ends {median(ratio)} times as high",
    )


def test_the_variance_of_a_sum_and_of_uniform_numbers_is_as_it_says():
    draw = np.random.default_rng(0)
    weights, inputs = draw.normal(0, 0.1, (20_000, 100)), draw.uniform(0, 4, (20_000, 100))
    assert (weights * inputs).sum(1).var() == pytest.approx(100 * 0.1**2 * (inputs**2).mean(), rel=0.05)
    assert draw.uniform(-3, 3, 100_000).var() == pytest.approx(3**2 / 3, rel=0.02)


def test_the_two_formulas_of_the_question_are_as_far_apart_as_it_says():
    factor = read_claim("02_layers", "question_6_softmax") / read_claim("02_layers", "question_2_softmax")
    say("initialisation", f"the factor is {np.median(factor):.0f}.")
    assert np.ptp(factor) < 0.01


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_s_row_holds_what_was_measured(formula):
    sizes = [median(read_claim("02_layers", f"{formula}_{layer}")) for layer in ("cv0", "softmax")]
    died = [int(read_claim(name, formula).sum()) for name in ("02_low", "02_high")]
    say("initialisation", f"| `{formula}` | {' | '.join(map(str, (*sizes, *died)))} |")


def test_standardised_pixels_let_the_formulas_end_as_it_says():
    assert all(
        np.isfinite(read_claim("02_small", name)).all() for name in ("question_6", "question_2", "he_normal", "lsuv")
    )
    ends = [np.median(read_claim("02_small", name)) for name in ("he_normal", "question_2")]
    say("initialisation", f"at a cost of {ends[0]:.2f} in the median, and `question_2` at {ends[1]:.2f}.")
    assert f"{ends[1]:.2f}" == f"{LN_2:.2f}"


def test_the_critical_rate_rises_as_many_times_as_it_says():
    base = read_claim("02_critical", "scale_0.9")
    unit, standardised, half = (read_claim("02_critical", key) / base for key in ("unit", "standardised", "scale_0.45"))
    say(
        "initialisation",
        f"raise the critical learning rate {round(np.median(unit), -1):.0f} times in the median, and",
        f"in the median, and {round(unit.min(), -1):.0f} times at least.",
        f"Standardised pixels raise it {round(np.median(standardised), -1):.0f} times",
        f"Half of every weight raises it {round(np.median(half), -1):.0f} times",
        f"divides it by {np.median(base / read_claim('02_critical', 'sum')):.0f}.",
    )


def test_the_softmax_has_as_little_curvature_of_its_own_as_it_says():
    def measure(**changes):
        logits = [cnnlab.Run("question", seed=seed, **changes).activations()["softmax"] for seed in range(32)]
        gaps = np.array([each[:, 1] - each[:, 0] for each in logits], dtype=float)
        share = 1 / (1 + np.exp(-gaps))
        return np.median((share * (1 - share)).mean(axis=1)), abs(gaps).max(axis=1)

    (raw, gaps), (unit, unit_gaps), (_, half_gaps) = measure(), measure(input_scaling="unit"), measure(init_scale=0.45)
    say(
        "initialisation",
        f"is {raw:.4f}; with pixels divided by 255 it is {unit:.2f} (medians).",
        f"{255**2:,} times less",
    )
    assert gaps / unit_gaps == pytest.approx(255, rel=1e-3)
    assert gaps / half_gaps == pytest.approx(2**9, rel=1e-3)


def test_a_sigmoid_s_slope_and_the_product_of_nine_are_as_it_says():
    z = torch.linspace(-5, 5, 1001, dtype=torch.float64, requires_grad=True)
    torch.sigmoid(z).sum().backward()
    assert z.grad.max().item() == pytest.approx(1 / 4)
    number, power = f"{4.0**-9:.1e}".split("e")
    say("normalisation", rf"$4^{{-9}} = {number} \cdot 10^{{{int(power)}}}$")


def test_the_preset_vanishing_is_as_it_says():
    (row,) = read_preset("vanishing").values()
    below, ratio, off = (
        row[key] for key in ("cv0 below 1e-4 of softmax at every update", "largest ratio", "furthest cost from ln 2")
    )
    say(
        "normalisation",
        f"for {below.replace('/', ' of ')} seeds. The largest ratio of any seed is {ratio.split(' / ')[2]}.",
        f"the cost stays within {off.split(' / ')[2]} of ln 2",
    )
    changed = cnnlab.settings("vanishing"), cnnlab.settings("question")
    say("normalisation", "an initial scale of {} in place of {}".format(*(settings.init_scale for settings in changed)))


def test_the_norms_are_as_it_says():
    rows = read_preset("batch_norm")
    for name, row in {"off": "off", "batch": "as it is", "layer": "layer", "group": "group"}.items():
        critical = rows[row]["critical rate at the start, 8 seeds"].split(" / ")[1]
        last = rows[row]["last cost"].split(" / ")[1:2] or ["-"]
        say("normalisation", f"| {name} | {critical} | {rows[row]['non-finite'].partition('/')[0]} | {last[0]} |")
    high = rows["learning_rate 10"]
    say(
        "normalisation",
        f"With batch norm {high['non-finite'].replace('/', ' of ')} runs diverge",
        f"ends at {high['last cost'].split(' / ')[1]} in",
    )


def test_behind_a_norm_the_gradient_is_at_right_angles_to_the_weights_and_shrinks_as_they_grow():
    torch.manual_seed(0)
    x, goal = torch.randn(32, 8, dtype=torch.float64), torch.randn(32, 4, dtype=torch.float64)
    start = torch.randn(4, 8, dtype=torch.float64)

    def slope(weights):
        weights = weights.clone().requires_grad_()
        F.mse_loss(F.batch_norm(x @ weights.T, None, None, training=True, eps=1e-30), goal).backward()
        return weights.grad

    once, thrice = slope(start), slope(3 * start)
    assert abs((once * start).sum(1)).max() < 1e-12 < once.abs().max()
    torch.testing.assert_close(thrice, once / 3)


def test_the_twenty_convolutions_are_as_it_says():
    rows = read_preset("deep_plain")
    named = {
        "no shortcuts": "deep_plain",
        "shortcuts, scale that begins at 0": "deep_residual",
        "no shortcuts, batch norm": "no shortcuts, normalization batch",
        "shortcuts and batch norm": "residual on, normalization batch",
    }
    for name, row in named.items():
        reached = rows[row]["held out 0.8"].replace("/", " of ")
        say("normalisation", f"| {name} | {rows[row]['non-finite'].partition('/')[0]} | {reached} |")
    alone = rows["shortcuts without a scale: residual on"]
    died, (reached, others) = alone["non-finite"].partition("/")[0], alone["held out 0.8"].split("/")
    say("normalisation", f"| shortcuts without a scale | {died} | {reached} of the {others} others |")


def test_the_place_of_a_penalty_makes_as_much_difference_as_it_says():
    same = [int((read_claim("03_place", key) == 0).sum()) for key in ("l2", "l1")]
    assert same == [32, 32]
    differs = [median(read_claim("03_place", key)) for key in ("momentum", "clipping")]
    say(
        "penalties",
        "In 32 of 32 seeds the weights agree",
        f"is {differs[0]} with momentum 0.9 and {differs[1]} with clipping",
    )


@pytest.mark.parametrize("strength", [0, 0.1, 1, 10, 100, 150])
def test_a_penalty_of_a_strength_fares_as_it_says(strength):
    died = count(read_claim("03_strengths", f"diverged_at_{strength}"))
    say("penalties", f"| {strength} | {1 - 0.01 * strength:g} | {died} |")


def test_the_weakest_penalty_that_stops_the_explosion_is_as_it_says():
    weakest, cost = read_claim("03_weakest", "l2"), read_claim("03_weakest", "cost")
    say(
        "penalties",
        f"lies between {weakest.min():g} and {weakest.max():g}",
        f"takes {weakest.min():g} % to {weakest.max():g} % of each weight",
    )
    assert {f"{value:.3f}" for value in cost} == {"0.693"}
    say("penalties", "leaves the cost at 0.693")


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_decay_in_the_update_lowers_the_limit_of_adam_as_it_says(decay):
    rate, beta = 0.5, 0.9
    limit = 38 / rate - 19 * decay
    assert rate * ((1 - beta) / (1 + beta) * limit + decay) == pytest.approx(2)

    def grow(curvature):
        step = rate * (1 - beta) * curvature
        return measure_radius([1 - rate * decay - step, -rate * beta], [(1 - beta) * curvature, beta])

    assert grow(0.995 * limit) < 1 < grow(1.005 * limit)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_a_type_has_the_ends_that_it_says(name):
    kind = torch.finfo(getattr(torch, name))
    largest = f"{kind.max:.0f}" if name == "float16" else f"{kind.max:.1e}"
    smallest = kind.smallest_normal * kind.eps
    least = torch.tensor([smallest], dtype=torch.float64).to(getattr(torch, name))
    assert least.item() == smallest
    assert (least / 2).item() == 0
    say("floating_point", f"| {name} | {largest} | {kind.smallest_normal:.1e} | {smallest:.1e} | {kind.eps:.2g} |")


def test_a_number_overflows_from_half_a_step_beyond_the_largest_on():
    for name in ("float16", "bfloat16", "float32"):
        kind = torch.finfo(getattr(torch, name))
        step = kind.max * kind.eps / (2 - kind.eps)  # from the number before the largest to it
        numbers = torch.tensor([kind.max + 0.49 * step, kind.max + 0.5 * step], dtype=torch.float64)
        assert numbers.to(getattr(torch, name)).tolist() == [kind.max, math.inf]
    say(
        "floating_point",
        "larger than the largest by half a step or more becomes **inf**",
        "at most half of the smallest",
    )


def test_exp_and_softmax_leave_float32_where_it_says():
    exp, gap = torch.tensor([88.7, 88.8]).exp(), torch.tensor([[103.0, 0.0], [104.0, 0.0]])
    assert exp.isinf().tolist() == [False, True]
    assert (torch.softmax(gap, 1)[:, 1] == 0).tolist() == [False, True]
    say("floating_point", "above $z = 88.7$", "from a logit gap of 104 on")


def test_the_epsilon_caps_the_cost_where_it_says_and_takes_the_slope():
    say("floating_point", *(f"never above {-math.log(epsilon):.2f}" for epsilon in (1e-8, 1e-12)))
    costs = {
        "log of a softmax": lambda z: -torch.softmax(z, 1)[0, 1].log(),
        "the same with an epsilon of 1e-8": lambda z: -(torch.softmax(z, 1)[0, 1] + 1e-8).log(),
        "cross-entropy of the logits": lambda z: F.cross_entropy(z, torch.tensor([1])),
    }
    for name, cost in costs.items():
        z = torch.tensor([[0.0, -200.0]], requires_grad=True)
        cost(z).backward()
        right, wrong = z.grad[0].tolist()
        say("floating_point", f"| {name} | {wrong:g}, {right:g} |".replace("-0", "0"))


def test_an_epsilon_leaves_wrong_answers_without_a_gradient_as_often_as_it_says():
    silent = read_claim("04_ends", "silent with epsilon")
    assert read_claim("04_ends", "epsilon is finite").sum() == len(silent)
    assert read_claim("04_ends", "silent with log-softmax").max() == 0
    say(
        "floating_point",
        f"all of {len(silent)} seeds stay finite. In {silent.min():.0f} to {silent.max():.0f} of the first 66 updates",
    )


def test_the_explosion_begins_with_an_overflow_as_often_as_it_says():
    made, active = (int(read_claim("05_autopsy", key).sum()) for key in ("overflow", "in an activation"))
    say("floating_point", f"by an overflow with {made} of 32 seeds, and with {active} of them in an activation")


def test_sixteen_bits_fare_as_it_says():
    half, brain, single = read_preset("overflow").values()
    ends = [row["last cost of finite runs"].split(" / ")[1] for row in (brain, single)]
    latest = half["update"].split(" / ")[2]
    counts = [row["non-finite"].partition("/")[0] for row in (brain, single)]
    assert half["non-finite"] == "32/32"
    say(
        "floating_point",
        f"32 of 32 seeds are NaN or inf in float16 by update {latest}, with bfloat16 {counts[0]} are,",
        f"with bfloat16 {counts[0]} are, and with float32 {counts[1]}.",
    )
    assert {f"{float(end):.2f}" for end in ends} == {f"{LN_2:.2f}"}
    assert torch.tensor(1e-8).half() == 0
    assert torch.tensor([2.9e-8, 3.1e-8]).half().tolist() == [0, pytest.approx(6e-8, rel=0.01)]


def test_sums_and_norms_behave_as_it_says():
    assert (0.1 + 0.2) + 0.3 != 0.1 + (0.2 + 0.3)
    gradient = torch.full((4,), 1e20, requires_grad=True)
    gradient.grad = torch.full((4,), 1e20)
    norm = torch.sqrt((gradient.grad**2).sum())
    assert norm.isinf()
    assert (gradient.grad * (1 / norm)).tolist() == [0, 0, 0, 0]
    assert (torch.tensor(math.inf) * 0).isnan()
    assert not any((math.nan < 1, math.nan > 1, math.nan == math.nan))


def test_as_many_seeds_diverge_as_it_says():
    broke = np.isfinite(read_claim("08_throw", "diverged_at"))
    ends = [count(read_claim("08_rates", key)) for key in ("at_0.01", "at_0.0001")]
    say(
        "chance",
        f"diverges with {broke[:32].sum()} of the first 32 seeds, and with {broke.sum()} of the first {len(broke)}.",
        f"At 0.01 it diverges with {ends[0]} of 64, and at 0.0001 with {ends[1]} of 64.",
    )


@pytest.mark.parametrize(("hits", "runs"), [(0, 5), (2, 5), (0, 32), (13, 32), (22, 64)])
def test_an_interval_is_the_formula_s(hits, runs):
    z, share = 1.959964, hits / runs
    middle, spread = share + z**2 / (2 * runs), z * math.sqrt(share * (1 - share) / runs + z**2 / (4 * runs**2))
    ends = [(middle + sign * spread) / (1 + z**2 / runs) for sign in (-1, 1)]
    assert cnnlab.wilson(hits, runs) == pytest.approx(ends, abs=1e-4)
    say("chance", f"| {hits} of {runs} | {abs(ends[0]):.2f} to {ends[1]:.2f} |")


def test_the_numbers_that_tell_who_diverges_score_as_it_says():
    broke = np.isfinite(read_claim("08_throw", "diverged_at"))

    def score(key):
        pairs = read_claim("08_throw", key)[broke][:, None] - read_claim("08_throw", key)[~broke]
        return f"{(pairs > 0).mean() + (pairs == 0).mean() / 2:.2f}"

    start, last = (read_claim("08_throw", f"times_critical_{update}") for update in (1, 3))
    say(
        "chance",
        f"before update 1 | {score('times_critical_1')} |",
        f"before update 2 | {score('times_critical_2')} |",
        f"before update 3 | {score('times_critical_3')} |",
        f"that update 2 meets | {score('cost_2')} |",
        f"that update 3 meets | {score('cost_3')} |",
        f"by a factor of {start.min():.1f} to {round(start.max(), -1):.0f}.",
        f"is {np.median(last[broke]):.0f} times the critical one for those that will diverge, and",
        f"will diverge, and {np.median(last[~broke]):.1f} times for those that will not",
    )


def test_more_digits_change_as_few_ends_as_it_says():
    ends = [np.isfinite(read_claim("08_digits", key)) for key in ("float32", "float64")]
    (seed,) = np.flatnonzero(ends[0] != ends[1])
    say(
        "chance", f"{ends[0].sum()} diverge in float32 and {ends[1].sum()} in float64. Only seed {seed} ends otherwise."
    )


def test_a_small_change_before_an_explosion_grows_as_it_says():
    first, last = (np.median(read_claim("06_rescue", key)) - 1 for key in ("changed_first", "changed_last"))
    broke, nudged = read_claim("06_rescue", "broke"), read_claim("06_rescue", "nudged_broke")
    assert np.isfinite(nudged).all()
    say(
        "chance",
        f"moves the next cost by {first:.2%}".replace("%", " %"),
        f"the last finite cost by {last:.0%}".replace("%", " %"),
        f"{(broke == nudged).sum()} of the {len(broke)} still diverge at the same update",
    )
