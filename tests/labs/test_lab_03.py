"""The lab on penalties and ReLUs shows what its sentences say."""

import re

import pytest
from notebooks import execute, find_lab, find_numbers, read_solution

import cnnlab

LAB = find_lab("03")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def test_a_penalty_is_the_same_to_the_bit_in_both_places_but_not_with_momentum_or_clipping():
    pattern = r"'L2': (\S+), 'L1': (\S+)\}; with L2 and \{'momentum': (\S+), 'clipping': (\S+)\}"
    l2, l1, momentum, clipping = find_numbers(LAB, pattern, "place-compare")
    assert l2 == l1 == 0
    assert min(momentum, clipping) > 1e-5


def test_of_six_strengths_one_survives_as_a_coin():
    assert find_numbers(LAB, r"Measured: (\d) of (\d), with L2 = \[(\d+)\]", "strength-compare") == (1, 6, 100)
    costs = dict(re.findall(r"([\d.]+): '(\S+) at update", execute(LAB)["strength-run"]))
    assert costs["100"] == "0.6931"
    assert re.findall(r"(\S+) at update 4'", execute(LAB)["strength-run"])


def test_relus_calm_and_at_the_softmax_they_shut_for_good():
    pattern = r"'question': (\d), 'every_layer': (\d), 'none': (\d), 'softmax_too': (\d)"
    as_asked, everywhere, nowhere, softmax_too = find_numbers(LAB, pattern, "relu-run")
    assert 1 <= as_asked <= 7
    assert (everywhere, nowhere, softmax_too) == (0, 8, 0)
    assert find_numbers(LAB, r"but (\d) have a gradient of exactly 0", "relu-compare") == (8,)


def test_without_relus_the_network_explodes_at_a_tenth_of_the_rate_too():
    runs = [cnnlab.Run("question", relu="none", learning_rate=1e-4, seed=seed) for seed in range(8)]
    assert all(run.advance(20, until="nonfinite").nonfinite for run in runs)


def test_without_relus_nine_layers_are_a_coin_on_what_they_have_not_met():
    without, with_them = find_numbers(LAB, r"Measured: (\S+); with ReLUs (\S+)\.\n", "line-compare")
    assert 0.4 < without < 0.6
    assert with_them > 0.9
    trained, learnt = find_numbers(LAB, r"trained with: (\S+) and (\S+)\.\n", "line-compare")
    assert 0.55 < trained < 0.85
    assert learnt > 0.95


def test_the_weakest_penalty_that_survives_leaves_less_than_half_of_a_weight():
    namespace = {"cnnlab": cnnlab}
    exec("\n".join(cell.source for cell in read_solution(LAB)[:-1]), namespace)
    assert all(0 <= 1 - 0.01 * namespace["weakest"](seed) < 0.5 for seed in range(3))


def test_each_relu_raises_the_critical_learning_rate():
    nowhere, as_asked, everywhere = (
        cnnlab.critical_learning_rate(cnnlab.Run("question", relu=relu)).value
        for relu in ("none", "question", "every_layer")
    )
    assert nowhere < as_asked / 2 < everywhere / 4
