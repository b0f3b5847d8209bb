"""Each initialisation against the statistic that defines it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call

from cnnlab.config.settings import LIMITS, Settings, settings
from cnnlab.training.data import make_patches
from cnnlab.training.initializers import FORMULAS, draw_parameters, fans
from cnnlab.training.network import Layout, make_question_network

CONVOLUTION = (64, 32, 3, 3)
LINEAR = (200, 300)
SMALL = {"channels": 4, "hidden": (8, 6), "patch_size": 14}


def drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    return FORMULAS[name](shape, torch.Generator().manual_seed(0))


def start(wanted: Settings) -> tuple[Layout, torch.Tensor]:
    network = make_question_network(wanted)
    layout = Layout.from_network(network)
    return layout, draw_parameters(network, layout, wanted, make_patches(wanted).x)


def test_every_option_has_a_formula():
    assert set(FORMULAS) == set(LIMITS["init"].options)


def test_fans_are_those_of_the_tutorials():
    # deeplearning.net: fan_in = prod(filter_shape[1:]), fan_out = filter_shape[0] * prod(filter_shape[2:]).
    assert fans((20, 1, 5, 5)) == (25, 500)
    assert fans((500, 800)) == (800, 500)


@pytest.mark.parametrize(
    ("name", "shape", "variance"),
    [
        ("question_2", CONVOLUTION, 2 / (32 * 9 + 64 * 9)),
        ("question_2", LINEAR, 2 / 500),
        ("question_6", CONVOLUTION, 6 / (32 * 9 + 64 * 9)),
        ("question_6", LINEAR, 2 / 500),
        ("glorot_uniform", CONVOLUTION, 2 / (32 * 9 + 64 * 9)),
        ("glorot_uniform", LINEAR, 2 / 500),
        ("he_normal", CONVOLUTION, 2 / (32 * 9)),
        ("he_normal", LINEAR, 2 / 300),
        ("lecun_normal", CONVOLUTION, 1 / (32 * 9)),
        ("lecun_normal", LINEAR, 1 / 300),
    ],
)
def test_the_variance_is_that_of_the_formula(name, shape, variance):
    weights = drawn(name, shape)
    # 18,432 draws or more: the variance of a normal sample is known to sqrt(2/n) = 1 %; five of these.
    assert weights.var().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / weights.numel()))
    assert abs(weights.mean().item()) < 5 * math.sqrt(variance / weights.numel())


@pytest.mark.parametrize("name", ["question_2", "question_6", "he_normal", "lecun_normal"])
def test_the_normal_ones_are_normal(name):
    weights = drawn(name, LINEAR)
    standard = weights / weights.std()
    assert (standard**4).mean().item() == pytest.approx(3, abs=0.15)


def test_glorot_uniform_fills_its_bound_evenly_and_never_leaves_it():
    weights = drawn("glorot_uniform", LINEAR)
    bound = math.sqrt(6 / 500)
    counts = torch.histc(weights, bins=10, min=-bound, max=bound)
    assert weights.abs().max() <= bound
    assert counts.sum() == weights.numel()
    assert (counts / weights.numel() - 0.1).abs().max() < 0.01


@pytest.mark.parametrize("shape", [(10, 40), (40, 10), (16, 16, 3, 3), (16, 1, 3, 3), (7, 7)])
def test_orthogonal_rows_or_columns_are_orthonormal(shape):
    matrix = drawn("orthogonal", shape).flatten(1)
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    assert torch.allclose(product, torch.eye(len(product), dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("input_scaling", ["raw", "standardised"])
def test_lsuv_makes_every_layer_put_out_unit_variance_on_the_patches(input_scaling):
    wanted = settings(init="lsuv", input_scaling=input_scaling, init_scale=1.0)
    layout, flat = start(wanted)
    network = make_question_network(wanted)
    seen = {}
    for name in layout.layers:
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.update({name: output.var().item()})
        )
    functional_call(network, layout.views(flat), (make_patches(wanted).x.double(),))
    assert list(seen) == list(layout.layers)
    assert all(abs(variance - 1) < 0.1 for variance in seen.values()), seen


@pytest.mark.parametrize("init", FORMULAS)
def test_biases_start_at_zero_and_weights_do_not(init):
    layout, flat = start(settings(init=init, init_scale=1.0, **SMALL))
    for name, view in layout.views(flat).items():
        assert bool((view == 0).all()) == name.endswith("bias")


@pytest.mark.parametrize("init", FORMULAS)
def test_init_scale_multiplies_the_weights(init):
    _, single = start(settings(init=init, init_scale=1.0, **SMALL))
    _, triple = start(settings(init=init, init_scale=3.0, **SMALL))
    assert torch.equal(triple, 3 * single)


@pytest.mark.parametrize("init", FORMULAS)
def test_a_seed_gives_the_same_start_in_every_precision(init):
    starts = [start(settings(init=init, precision=name, **SMALL))[1] for name in LIMITS["precision"].options]
    assert all(torch.equal(starts[0], other) for other in starts)


@pytest.mark.parametrize("init", FORMULAS)
def test_another_seed_gives_another_start(init):
    _, one = start(settings(init=init, seed=1, **SMALL))
    _, two = start(settings(init=init, seed=2, **SMALL))
    assert (one != two).float().mean() > 0.8


@pytest.mark.parametrize("init", FORMULAS)
def test_nothing_is_drawn_from_the_global_generator(init):
    before = torch.get_rng_state()
    start(settings(init=init, **SMALL))
    assert torch.equal(before, torch.get_rng_state())


def test_lsuv_leaves_a_layer_alone_whose_inputs_are_all_zero():
    wanted = settings(init="lsuv", **SMALL)
    network = make_question_network(wanted)
    layout = Layout.from_network(network)
    flat = draw_parameters(network, layout, wanted, torch.zeros(4, 1, 14, 14))
    assert bool(flat.isfinite().all())
