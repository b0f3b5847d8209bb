"""Normalisation, activations, shortcuts and dropout of the question's network, against torch's own functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

import cnnlab
from cnnlab.config.settings import LIMITS, settings
from cnnlab.training.initializers import HE_GAINS, draw_parameters, find_factor
from cnnlab.training.layers import ACTIVATIONS, draw_mask, drop_in_update, is_plain
from cnnlab.training.network import Layout, make_question_network
from cnnlab.training.run import Run

SMALL = {"channels": 4, "hidden": (12, 6), "patch_size": 9, "depth": 3, "patches": 14, "device": "cpu"}
CALM = {**SMALL, "learning_rate": 1e-3, "input_scaling": "unit"}
BATCHES = {"normalization": "batch", "batch_size": 6, "learning_rate": 1e-2, **SMALL}


def names(**changes) -> list[str]:
    return [name for name, _ in make_question_network(settings(**changes)).named_children()]


def test_the_question_s_network_is_a_plain_sequence_of_layers_and_relus():
    network = make_question_network(settings())
    assert type(network) is nn.Sequential
    assert {type(module) for module in network} == {nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear}
    assert not list(network.buffers())
    assert is_plain(settings(depth=7, relu="every_layer", learning_rate=1))


@pytest.mark.parametrize(
    "changes",
    [{"padding": "same"}, {"activation": "gelu"}, {"normalization": "layer"}, {"dropout": 0.1},
     {"residual": "on", "padding": "same"}],
)  # fmt: skip
def test_a_network_with_more_than_that_is_not_plain(changes):
    assert not is_plain(settings(**changes))


def test_depth_counts_the_convolutions_and_the_last_has_no_relu():
    assert names(depth=2)[:5] == ["cv0", "cv0_relu", "cv1", "flatten", "hid1"]


@pytest.mark.parametrize(
    ("place", "order"),
    [("before", ["cv0", "cv0_norm", "cv0_gelu"]), ("after", ["cv0", "cv0_gelu", "cv0_norm"])],
)
def test_the_norm_stands_before_or_after_the_activation_and_never_after_the_softmax(place, order):
    found = names(normalization="batch", normalization_place=place, activation="gelu")
    assert found[:3] == order
    assert {name.removesuffix("_norm") for name in found if name.endswith("_norm")} == {
        "cv0", "cv1", "cv2", "cv3", "cv4", "cv5", "hid1", "hid2",
    }  # fmt: skip


def test_a_shortcut_ends_before_the_activation_of_each_second_convolution_after_cv0():
    found = names(residual="on", padding="same", normalization="batch")
    assert [name for name in found if name.endswith("_shortcut")] == ["cv2_shortcut", "cv4_shortcut"]
    place = found.index("cv2_shortcut")
    assert (found[place - 1], found[place + 1]) == ("cv2_norm", "cv2_relu")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation_is_torch_s_function_of_that_name(name):
    x = torch.linspace(-3, 3, 50)
    assert torch.equal(ACTIVATIONS[name]()(x), getattr(functional, name)(x))
    assert name in LIMITS["activation"].options


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "selu", "tanh", "sigmoid"])
def test_he_s_gain_is_torch_s_where_torch_has_one(name):
    slope = 0.01 if name == "leaky_relu" else None
    assert HE_GAINS[name] == pytest.approx(nn.init.calculate_gain(name, slope), rel=1e-15)


@pytest.mark.parametrize("name", ["relu", "elu", "gelu", "silu"])
def test_he_s_gain_keeps_the_second_moment_of_a_standard_normal(name):
    z = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    moment = float(torch.trapezoid(ACTIVATIONS[name]()(z).square() * density, z))
    assert HE_GAINS[name] == pytest.approx(1 / math.sqrt(moment), rel=1e-6)


def test_the_weights_of_a_formula_are_those_for_relu_times_a_factor():
    def start(**changes):
        wanted = settings(**SMALL, **changes)
        network = make_question_network(wanted)
        return draw_parameters(network, Layout.from_network(network), wanted, torch.zeros(1))

    for init in ("he_normal", "glorot_uniform", "lecun_normal", "question_2", "orthogonal"):
        assert find_factor(init, "relu") == 1
        torch.testing.assert_close(
            start(init=init, activation="sigmoid"), find_factor(init, "sigmoid") * start(init=init), rtol=1e-12, atol=0
        )
    assert [find_factor(init, "sigmoid") for init in ("glorot_uniform", "lecun_normal", "question_2")] == [4, 4, 1]
    assert find_factor("he_normal", "tanh") == pytest.approx(5 / 3 / math.sqrt(2))


def test_scales_of_norms_start_at_1_and_those_of_shortcuts_at_0():
    run = Run(settings(normalization="group", residual="zero", padding="same", init_scale=0.5, **SMALL))
    weights = run.weights()
    assert (weights["cv0_norm.weight"] == 1).all()
    assert (weights["hid2_norm.bias"] == 0).all()
    assert weights["cv2_shortcut.scale"] == [0]
    run.step()
    assert run.weights()["cv2_shortcut.scale"] != [0]


def test_a_block_whose_scale_is_0_gives_back_what_it_was_given():
    run = Run(settings(residual="zero", padding="same", relu="none", **SMALL))
    seen: list[torch.Tensor] = []
    run.network.cv1.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    run.network.cv2_shortcut.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    run.step()
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(("activation", "same"), [("relu", True), ("gelu", False), ("sigmoid", False)])
def test_behind_the_activation_it_is_the_same_with_relus_alone(activation: str, same: bool):
    run = Run(settings(residual="zero", padding="same", relu="every_layer", activation=activation, **SMALL))
    seen: list[torch.Tensor] = []
    run.network.cv1.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    run.network.hid1.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].reshape(seen[0].shape)))
    run.step()
    assert torch.equal(seen[0], seen[1]) is same


def descend_by_hand(run: Run, updates: int) -> list[float]:
    """The costs of the same network written with torch's functions, and descended by torch's SGD."""
    wanted = run.settings
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in run.weights().items()}
    means: dict[str, torch.Tensor] = {}
    optimizer = torch.optim.SGD(tensors.values(), lr=wanted.learning_rate)

    def normalize(x, name):
        scale = tensors[f"{name}_norm.weight"], tensors[f"{name}_norm.bias"]
        if wanted.normalization == "batch":
            state = means.setdefault(name, torch.stack([torch.zeros(x.shape[1]), torch.ones(x.shape[1])]).double())
            return functional.batch_norm(x, state[0], state[1], *scale, training=True)
        if x.dim() == 2 and wanted.normalization == "layer":
            return functional.layer_norm(x, x.shape[1:], *scale)
        return functional.group_norm(x, 1 if wanted.normalization == "layer" else 4 if name != "hid2" else 2, *scale)

    def layer(x, name, given=None):
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        padding = 1 if wanted.padding == "same" else 0
        x = (
            functional.conv2d(x, weight, bias, padding=padding)
            if weight.dim() == 4
            else functional.linear(x, weight, bias)
        )
        x = normalize(x, name) if wanted.normalization_place == "before" and wanted.normalization != "off" else x
        if given is not None:
            x = given + (tensors[f"{name}_shortcut.scale"] * x if wanted.residual == "zero" else x)
        x = getattr(functional, wanted.activation)(x) if name != "cv2" else x
        return normalize(x, name) if wanted.normalization_place == "after" and wanted.normalization != "off" else x

    costs = []
    for step in range(1, updates + 1):
        x, y = run.problem.batch(step)
        first = layer(x, "cv0")
        x = layer(layer(first, "cv1"), "cv2", None if wanted.residual == "off" else first)
        for place, name in enumerate(("hid1", "hid2"), start=1):
            x = layer(x.flatten(1), name)
            if wanted.dropout:
                kept = draw_mask(wanted.seed, step, place, x.shape, wanted.dropout)
                x = x * kept / (1 - wanted.dropout)
        x = functional.linear(x, tensors["softmax.weight"], tensors["softmax.bias"])
        cost = functional.cross_entropy(x, y)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        costs.append(cost.item())
    for name, (mean, variance) in means.items():
        torch.testing.assert_close(run.state.buffers[f"{name}_norm.running_mean"], mean)
        torch.testing.assert_close(run.state.buffers[f"{name}_norm.running_var"], variance)
    return costs


@pytest.mark.parametrize(
    "changes",
    [
        {"normalization": "batch", "batch_size": 5},
        {"normalization": "batch", "normalization_place": "after", "activation": "tanh", "dropout": 0.3},
        {"normalization": "layer", "activation": "silu"},
        {"normalization": "group", "residual": "on", "padding": "same", "activation": "gelu"},
        {"residual": "zero", "padding": "same", "activation": "elu", "dropout": 0.5},
    ],
    ids=str,
)
def test_a_run_is_descent_on_the_network_that_torch_s_functions_make(changes):
    run = Run(settings(**CALM, precision="float64", **changes))
    start = Run(run.settings)
    run.advance(4)
    start.state = start.state._replace(buffers=run.state.buffers)
    np.testing.assert_allclose(run.record.cost, descend_by_hand(start, 4), rtol=1e-10)


def test_the_statistics_of_batch_norm_come_back_in_rewinds_forks_and_files_to_the_bit(tmp_path):
    run = Run(settings(**BATCHES))
    run.advance(5)
    then = {name: buffer.clone() for name, buffer in run.state.buffers.items()}
    run.advance(3)
    costs, held_out = run.record.cost, run.measure_held_out()
    run.record.save(tmp_path / "run.cnnlab")
    for other in (run.fork(5), Run(cnnlab.load(tmp_path / "run.cnnlab"))):
        other.rewind(5)
        assert all(torch.equal(other.state.buffers[name], then[name]) for name in then)
        other.advance(3)
        assert np.array_equal(other.record.cost, costs)
        assert other.measure_held_out() == held_out
    assert int(then["cv0_norm.num_batches_tracked"]) == 5


def test_held_out_accuracy_is_that_of_the_running_statistics_and_leaves_them_alone():
    run = Run(settings(**BATCHES))
    run.advance(4)
    kept = {name: buffer.clone() for name, buffer in run.state.buffers.items()}
    network = make_question_network(run.settings).to_empty(device="cpu").eval()
    x, y = run.problem.held_out
    outputs = functional_call(network, {**run.layout.views(run.parameters), **kept}, (x,))
    assert run.measure_held_out() == pytest.approx(float((outputs.argmax(1) == y).float().mean()))
    assert all(torch.equal(run.state.buffers[name], kept[name]) for name in kept)
    assert run.network.training


def test_a_mask_of_dropout_is_a_function_of_seed_update_and_layer():
    shape = torch.Size((200, 300))
    mask = draw_mask(3, 7, 1, shape, 0.3)
    assert float(mask.double().mean()) == pytest.approx(0.7, abs=0.01)
    draw_mask(3, 7, 2, shape, 0.3)
    assert torch.equal(mask, draw_mask(3, 7, 1, shape, 0.3))
    for other in ((4, 7, 1), (3, 8, 1), (3, 7, 2)):
        assert float((draw_mask(*other, shape, 0.3) == mask).double().mean()) < 0.7


def test_dropout_repeats_itself_after_a_rewind_whatever_else_was_drawn():
    run = Run(settings(**CALM, dropout=0.5))
    run.advance(6)
    torch.rand(3)
    twin = run.fork(0)
    twin.measure_held_out()
    twin.advance(6)
    assert np.array_equal(twin.record.cost, run.record.cost)
    assert not np.array_equal(Run(settings(**CALM)).advance(6).cost, run.record.cost[-1])


def test_dropout_leaves_out_nothing_outside_of_an_update():
    dropout = make_question_network(settings(**SMALL, dropout=0.5)).hid1_dropout
    x = torch.ones(5, 12)
    assert torch.equal(dropout(x), x)
    with drop_in_update(settings(dropout=0.5), 1):
        assert set(dropout(x).flatten().tolist()) == {0.0, 2.0}
        assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("changes", [{"dropout": 0.4}, {"normalization": "batch"}, {"normalization": "layer"}], ids=str)
def test_the_critical_rate_is_of_the_network_as_the_next_update_sees_it(changes):
    """The same mask in every product, and the statistics of the batch."""
    tiny = {"channels": 2, "hidden": (4, 4), "depth": 1, "patch_size": 5, "patches": 8, "device": "cpu"}
    run = Run(settings(**tiny, init_scale=0.3, precision="float64", activation="tanh", learning_rate=1e-3, **changes))
    run.advance(2)
    x, y = run.problem.data
    network = make_question_network(run.settings).to_empty(device="cpu")

    def cost(flat):
        buffers = {name: buffer.clone() for name, buffer in run.state.buffers.items()}
        with drop_in_update(run.settings, run.updates + 1):
            return functional.cross_entropy(functional_call(network, {**run.layout.views(flat), **buffers}, (x,)), y)

    dense = torch.autograd.functional.hessian(cost, run.parameters)
    largest = float(torch.linalg.eigvalsh(dense)[-1])
    assert cnnlab.critical_learning_rate(run).eigenvalue == pytest.approx(largest, rel=1e-4)
