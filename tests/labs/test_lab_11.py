"""The lab on momentum shows what its sentences say."""

import math
import re

import numpy as np
import pytest
from claims import read_column
from notebooks import execute, find_lab, find_numbers, read_measured, read_sentence

import cnnlab
from cnnlab.config.stability import find_bound

LAB = find_lab("11")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def count_rises(way, times):
    """In how many of 32 seeds the cost rose above three times its value."""
    rises = read_column("11_network", f"{way}_{times}_rise")
    assert len(rises) == 32
    return int((rises > 3).sum())


# 1. How much longer may a step be?


def test_the_bounds_on_a_parabola_are_those_of_the_formulas():
    plain, half, heavy, nesterov = find_numbers(
        LAB, r"\{0: ([\d.]+), 0\.5: ([\d.]+), 0\.9: ([\d.]+), 'Nesterov 0\.9': ([\d.]+)\}", "bound-run"
    )
    bounds = [find_bound("sgd"), find_bound("sgd", 0.5), find_bound("sgd", 0.9), find_bound("nesterov", 0.9)]
    assert [plain, half, heavy, nesterov] == pytest.approx(bounds, abs=0.0101)
    assert read_measured(LAB, "bound-compare") == pytest.approx(heavy / plain, rel=0.01)


def test_momentum_raises_the_bound_and_nesterov_lowers_it_by_the_factors_that_are_said():
    up, momentum = read_sentence(
        LAB, "bound-explain", r"2\(1 \+ b\)/λ: ([\d.]+) times the plain one for b = ([\d.]+)\."
    )
    down, same = read_sentence(LAB, "bound-explain", r"2b\)/\(\(1 \+ 2b\)λ\), ([\d.]+) times for b = ([\d.]+)\.")
    assert up == pytest.approx(find_bound("sgd", momentum) / 2, abs=0.005)
    assert down == pytest.approx(find_bound("nesterov", same) / 2, abs=0.005)
    assert (up, down) == read_sentence(LAB, "three-sentences", r"λ, ([\d.]+) times for 0\.9, .* lowers it to ([\d.]+)")
    assert all(find_bound("sgd", each) <= 2 * find_bound("sgd") for each in np.linspace(0, 1, 101))


def test_at_the_bound_the_velocity_is_the_gradient_over_one_plus_the_momentum():
    read_sentence(LAB, "bound-explain", r"the velocity is the gradient divided by 1 \+ b")
    place, velocity = 1.0, -1 / 1.9
    for _ in range(10):
        gradient, before = place, place
        velocity = 0.9 * velocity + gradient
        assert velocity == pytest.approx(gradient / 1.9)
        place -= find_bound("sgd", 0.9) * velocity
        assert place == pytest.approx(-before)


# 2. How many updates does it save?


def read_counts():
    """Steep over flat -> updates without and with momentum."""
    rows = re.findall(r"steep over flat (\d+): plain (\d+), 0\.9 (\d+)", execute(LAB)["saving-run"])
    return {int(ratio): (int(plain), int(momentum)) for ratio, plain, momentum in rows}


def test_momentum_costs_updates_in_a_bowl_and_saves_them_in_valleys_as_is_said():
    counts = read_counts()
    more, less = read_sentence(LAB, "saving-explain", r"\*more\* updates, (\d+) in place of (\d+)\. ")
    assert counts[10] == (less, more)
    short, long = read_sentence(LAB, "saving-explain", r"takes ([\d.]+) times fewer, in the longer one (\d+) times")
    assert read_measured(LAB, "saving-compare") == pytest.approx(short, abs=0.05)
    assert counts[1000][0] / counts[1000][1] == pytest.approx(long, abs=0.5)
    assert (long, more, less) == read_sentence(
        LAB, "three-sentences", r"long valleys, (\d+) times where .* bowl, (\d+) in place of (\d+)\."
    )


def test_with_momentum_the_number_is_nearly_the_same_each_time():
    said = read_sentence(LAB, "saving-explain", r"nearly the same each time: (\d+), (\d+) and (\d+)\.")
    assert said == tuple(momentum for _, momentum in read_counts().values())


def count_updates(momentum, flat):
    """The cell of the lab: the smallest number of updates of a hundred rates."""
    rates = 2 * (1 + momentum) * np.linspace(0.01, 0.99, 100)[:, None]
    curvature, place, velocity, far = np.array([1, flat]), 1.0, 0.0, []
    for _ in range(5000):
        velocity = momentum * velocity + curvature * place
        place = place - rates * velocity
        far.append((abs(place) > 0.001).any(axis=1))
    return 5001 - np.argmax(far[::-1], axis=0).max()


def test_other_momenta_take_as_many_updates_as_is_said():
    said = read_sentence(
        LAB,
        "saving-explain",
        r"`count_updates\(0\.3, 1 / 10\)`: (\d+) updates\. .*`count_updates\(0\.7, 1 / 100\)`: (\d+)",
    )
    assert said == (count_updates(0.3, 1 / 10), count_updates(0.7, 1 / 100))


def test_the_shrinking_by_plain_descent_and_by_momentum_is_as_is_said():
    share, power, momentum, each, until = read_sentence(
        LAB,
        "saving-explain",
        r"([\d.]+) to the power of (\d+) is a thousandth\. .* by √([\d.]+) = ([\d.]+) at each .* after (\d+)\. The",
    )
    assert share**power == pytest.approx(0.001, rel=0.05)
    assert share == pytest.approx(1 - 1.9 / 100)
    assert each == pytest.approx(math.sqrt(momentum), abs=0.0005)
    assert momentum ** (until / 2) == pytest.approx(0.001, rel=0.05)


def test_the_best_momenta_of_the_formula_are_as_is_said():
    said = read_sentence(LAB, "saving-explain", r"steep over flat: ([\d.]+), ([\d.]+) and ([\d.]+) here")
    roots = np.sqrt([10, 100, 1000])
    assert said == pytest.approx(((roots - 1) / (roots + 1)) ** 2, abs=0.005)


# 3. Does the bound hold for a network?


def read_rises():
    """(times, way) -> the highest cost over the first, as the lab prints it."""
    rows = re.findall(r"([\d.]+) times, (\w+) +([\d.]+)", execute(LAB)["three-run"])
    assert len(rows) == 9
    return {(float(times), way): float(rise) for times, way, rise in rows}


def test_of_nine_runs_the_cost_of_six_rises_as_on_the_parabola():
    read_sentence(
        LAB, "three-explain", "At 0.8 times it is Nesterov's .* at 1.5 times plain .* at 2.2 times all three do"
    )
    rises = read_rises()
    above = {
        times: {way for (each, way), rise in rises.items() if each == times and rise > 3} for times in (0.8, 1.5, 2.2)
    }
    assert above == {0.8: {"Nesterov"}, 1.5: {"plain", "Nesterov"}, 2.2: {"plain", "momentum", "Nesterov"}}
    assert read_measured(LAB, "three-compare") == 6


def test_over_32_seeds_the_cost_rises_in_as_many_as_is_said():
    plain, nesterov, heavy = read_sentence(
        LAB, "three-explain", r"At 1\.5 times: plain descent in (\d+), Nesterov's in (\d+), momentum in (\w+)\. At"
    )
    assert (plain, nesterov, heavy) == tuple(count_rises(way, 1.5) for way in ("plain", "nesterov", "momentum"))
    neither, low = read_sentence(LAB, "three-explain", r"plain descent and momentum in (none), Nesterov's in (\d+)\.")
    assert count_rises("plain", 0.8) == count_rises("momentum", 0.8) == neither
    assert count_rises("nesterov", 0.8) == low
    (high,) = read_sentence(LAB, "three-explain", r"At 2\.2 times momentum in (\d+)\.")
    assert count_rises("momentum", 2.2) == high
    assert (plain, heavy) == read_sentence(LAB, "three-sentences", r"value in (\d+) of 32 seeds .*, in (\w+) with it")


def test_what_momentum_gains_in_twelve_updates_is_as_is_said():
    count, middle = read_sentence(LAB, "three-explain", r"in (\d+) of the 32, at the median ([\d.]+) of it")
    gains = read_column("11_network", "momentum_1.5_end") / read_column("11_network", "plain_0.8_end")
    assert count == (gains < 1).sum()
    assert np.median(gains) == pytest.approx(middle, abs=0.005)


def test_none_of_the_nine_runs_diverges():
    read_sentence(LAB, "three-explain", "None of these runs diverges")
    assert all(math.isfinite(rise) for rise in read_rises().values())
    for way in ("plain", "momentum", "nesterov"):
        assert np.isfinite(read_column("11_network", f"{way}_2.2_rise")).all()


# 4. How long is a swing?


def read_places(way):
    """The distances of the first ten updates, in thousandths."""
    (row,) = re.findall(rf"{way} +\d+ turns \[(.*?)\]", execute(LAB)["ringing-run"], re.DOTALL)
    return [float(number) for number in row.split()]


def test_both_first_steps_lead_to_the_bottom_and_only_momentum_goes_to_the_other_side():
    read_sentence(LAB, "ringing-explain", "The first step leads both to the bottom")
    plain, heavy = read_places("plain"), read_places("momentum")
    assert abs(plain[1]) < 0.05 * plain[0]
    assert abs(heavy[1]) < 0.05 * heavy[0]
    assert max(map(abs, plain[1:])) < 0.2 * plain[0]
    assert heavy[2] < -0.5 * heavy[0]


def test_a_swing_on_a_parabola_is_as_long_as_is_said():
    momentum, updates = read_sentence(LAB, "ringing-explain", r"s is 1, and b is ([\d.]+): ([\d.]+)\.")
    turn = math.acos((1 + momentum - 1) / (2 * math.sqrt(momentum)))
    assert 2 * math.pi / turn == pytest.approx(updates, abs=0.05)


def test_over_32_seeds_a_swing_of_the_network_comes_as_near_to_that_as_is_said():
    said = read_sentence(
        LAB, "ringing-explain", r"there are (\d+) to (\d+) turns in 30 updates, (\d+) to (\d+) in the middle half"
    )
    turns = read_column("11_network", "turns")
    assert len(turns) == 32
    assert said == tuple(np.quantile(turns, (0, 1, 0.25, 0.75)).round())
    (exact,) = read_sentence(LAB, "ringing-explain", r"With swings of 5\.8 it would be (\d+)\.")
    assert round(2 * 30 / 5.8) == exact


def test_the_swing_that_is_measured_is_near_that_of_the_parabola():
    (turns,) = find_numbers(LAB, r"momentum +(\d+) turns", "ringing-run")
    assert read_measured(LAB, "ringing-compare") == pytest.approx(60 / turns, rel=0.01)
    assert 5 < 60 / turns < 8


def test_half_the_critical_rate_is_about_what_the_reader_sets_in_the_dashboard():
    (said,) = read_sentence(LAB, "ringing-see", r"\*Learning rate\* to ([\d.]+) and")
    (critical,) = find_numbers(LAB, r"critical learning rate (\S+) =", "three-train")
    assert critical / 2 == pytest.approx(said, rel=0.1)
    assert cnnlab.settings("question", learning_rate=said, momentum=0.9).knobs.optimizer == "sgd"
