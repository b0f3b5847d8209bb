"""What the other knobs are when an optimiser is chosen, and what it refuses of them."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

import cnnlab
from cnnlab import Run
from cnnlab.config.links import format_link, opened
from cnnlab.config.schedules import safe_rate
from cnnlab.config.settings import OPTIMIZER_DEFAULTS, Knobs, Settings, change_knobs, find_changes, settings

OPTIMIZERS = tuple(OPTIMIZER_DEFAULTS)


def read(knobs: Knobs) -> tuple[float, float, str]:
    return knobs.momentum, knobs.beta2, knobs.penalty_in


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("sgd", (0.0, 0.999, "cost")),
        ("nesterov", (0.9, 0.999, "cost")),
        ("rmsprop", (0.0, 0.99, "cost")),
        ("adam", (0.9, 0.999, "cost")),
        ("adamw", (0.9, 0.999, "update")),
    ],
)
def test_an_optimiser_brings_the_defaults_of_torch_optim(optimizer, expected):
    wanted = settings("question", optimizer=optimizer)
    assert read(wanted) == expected
    assert wanted.adam_epsilon == 1e-8
    assert read(opened(f"cnnlab:question?optimizer={optimizer}")[0]) == expected


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(OPTIMIZERS, 2)))
def test_another_optimiser_brings_its_own_defaults_and_keeps_what_was_given(before, after):
    first = settings("question", optimizer=before)
    assert first.replace(optimizer=after) == settings("question", optimizer=after)
    given = settings("question", optimizer=before, momentum=0.37, beta2=0.5)
    assert (given.replace(optimizer=after).momentum, given.replace(optimizer=after).beta2) == (0.37, 0.5)
    assert first.replace(optimizer=after, momentum=0.25).momentum == 0.25


def test_a_preset_keeps_the_momentum_that_it_names():
    assert settings("converges", optimizer="rmsprop").momentum == 0.9


def test_a_run_and_its_forks_take_the_defaults_too():
    run = Run("question", channels=2, hidden=(4, 3), patch_size=13, patches=8, device="cpu")
    run.advance(1)
    run.set(optimizer="adamw")
    twin = run.fork(optimizer="rmsprop")
    assert (read(run.knobs_in_force), read(twin.knobs_in_force)) == ((0.9, 0.999, "update"), (0.0, 0.99, "cost"))
    run.set(optimizer="sgd")
    assert read(run.knobs_in_force) == (0.0, 0.999, "cost")


def test_a_later_keyword_changes_the_optimiser_of_a_link():
    assert read(opened("cnnlab:question?optimizer=adamw", optimizer="sgd")[0]) == (0.0, 0.999, "cost")


ODD = [
    {"optimizer": "adam", "momentum": 0.0},
    {"optimizer": "adam", "penalty_in": "update", "l2": 0.1},
    {"optimizer": "rmsprop", "beta2": 0.999},
    {"optimizer": "sgd", "momentum": 0.9, "penalty_in": "update"},
    {"optimizer": "nesterov", "momentum": 0.0},
]


@pytest.mark.parametrize("changes", [*ODD, *({"optimizer": name} for name in OPTIMIZERS)])
def test_links_json_and_repr_give_equal_settings_back(changes):
    wanted = settings("question", **changes)
    assert opened(format_link(wanted, ((1, wanted.knobs),)))[0] == wanted
    assert Settings.from_json(wanted.to_json()) == wanted
    assert eval(repr(wanted), {"settings": settings}) == wanted


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations([*ODD, {"optimizer": "adamw"}], 2)))
def test_what_differs_is_enough_to_change_one_into_the_other(before, after):
    first, second = (settings("question", **changes).knobs for changes in (before, after))
    changes = find_changes(first, second)
    assert change_knobs(first, changes) == second
    assert dataclasses.replace(first, **changes) == second
    plan = ((1, first), (4, second))
    assert opened(format_link(settings("question", **before), plan))[1] == ((4, second),)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_momentum_of_1_is_refused_where_it_is_the_first_of_betas(optimizer):
    with pytest.raises(ValueError, match=rf"momentum must lie in \[0, 1\) with the optimizer '{optimizer}', got 1"):
        settings("question", optimizer=optimizer, momentum=1)
    assert settings("question", optimizer="nesterov", momentum=1).momentum == 1


def test_beta2_of_1_is_refused():
    with pytest.raises(ValueError, match=r"beta2 must lie in \[0, 1\), got 1"):
        settings("question", beta2=1)
    assert settings("question", beta2=0).beta2 == 0


def test_adamw_with_the_penalty_in_the_cost_is_a_contradiction():
    with pytest.raises(ValueError, match="penalty_in must be 'update' with the optimizer 'adamw', got 'cost'"):
        settings("question", optimizer="adamw", penalty_in="cost")
    with pytest.raises(ValueError, match="penalty_in must be 'update' with the optimizer 'adamw'"):
        settings("question", optimizer="adamw").replace(penalty_in="cost")


@pytest.mark.parametrize("optimizer", OPTIMIZERS[1:])
def test_a_decay_that_turns_the_sign_of_every_weight_is_refused(optimizer):
    wanted = settings("question", optimizer=optimizer, penalty_in="update", learning_rate=0.1, l2=10)
    said = rf"learning_rate must lie in \(0, 0.1\], which is 1/l2, with the optimizer '{optimizer}' and penalty_in"
    with pytest.raises(ValueError, match=said):
        wanted.replace(learning_rate=0.11)
    assert safe_rate(1e-9, wanted.knobs, 1.0, free=True) == 0.1


def test_plain_gradient_descent_may_still_explode_by_its_decay():
    assert settings("question", penalty_in="update", learning_rate=1, l2=100).l2 == 100


def test_an_unknown_optimiser_is_refused_and_the_nearest_suggested():
    with pytest.raises(ValueError, match=r"optimizer must be one of 'sgd', .*, got 'adamm'; did you mean 'adam'\?"):
        settings("question", optimizer="adamm")
    with pytest.raises(ValueError, match="optimizer must be one of"):
        settings("question", optimizer=["adam"])


def test_presets_are_plain_gradient_descent_as_before():
    for name in ("question", "converges", "sudden_nan", "overflow", "dead", "vanishing"):
        assert cnnlab.settings(name).optimizer == "sgd"
