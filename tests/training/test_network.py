"""The question's network, and the flat vector that holds the parameters of any module."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from cnnlab.config.settings import settings
from cnnlab.training.network import Layout, make_question_network

LAYERS = ("cv0", "cv1", "cv2", "cv3", "cv4", "cv5", "hid1", "hid2", "softmax")
SMALL = {"channels": 3, "hidden": (5, 4), "patch_size": 14}


class Rooted(nn.Module):
    """Parameters on the module itself, one of them a single number, before those of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 2)))

    def forward(self, x):
        return self.scale * self.inner(x)


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


def evaluated(relu: str) -> dict[str, torch.Tensor]:
    """What follows each layer of a small network with random weights: its ReLU's output where it has one."""
    network = make_question_network(settings(relu=relu, **SMALL)).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(20, 1, 14, 14, generator=generator)
    outputs, name = {}, ""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for child, module in network.named_children():
            value = module(value)
            name = child if child in LAYERS else name
            outputs[name] = value.flatten(1)
    return outputs


def flat_of(network: nn.Module) -> tuple[Layout, torch.Tensor]:
    layout = Layout.from_network(network)
    return layout, layout.flatten(dict(network.named_parameters()))


def test_the_layers_come_in_the_order_of_the_question():
    assert Layout.from_network(make_question_network(settings())).layers == LAYERS


def test_layers_0_6_and_8_are_those_of_the_asker():
    layers = Layout.from_network(make_question_network(settings())).layers
    assert [layers[place] for place in (0, 6, 8)] == ["cv0", "hid1", "softmax"]


def test_six_valid_convolutions_leave_twelve_pixels_less():
    assert make_question_network(settings(patch_size=20, channels=16)).hid1.in_features == 16 * 8 * 8


@pytest.mark.parametrize("size", [13, 40])
def test_the_network_fits_the_smallest_and_the_largest_patches(size):
    network = make_question_network(settings(patch_size=size, channels=2, hidden=(3, 3))).to_empty(device="cpu")
    assert network(torch.zeros(5, 1, size, size)).shape == (5, 2)


@pytest.mark.parametrize(
    ("relu", "may_be_negative"),
    [("question", {"cv5", "softmax"}), ("every_layer", {"softmax"}), ("none", set(LAYERS)), ("softmax_too", set())],
)
def test_relu_stands_where_the_settings_say(relu, may_be_negative):
    assert {name for name, output in evaluated(relu).items() if (output < 0).any()} == may_be_negative


def test_making_a_network_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    make_question_network(settings())
    assert torch.equal(before, torch.get_rng_state())


def test_views_share_their_memory_with_the_flat_vector():
    layout, flat = flat_of(Rooted())
    layout.views(flat)["inner.0.bias"].fill_(7)
    assert int((flat == 7).sum()) == 4


@pytest.mark.parametrize("make", [Rooted, Tied, lambda: nn.Linear(2, 3), lambda: nn.Conv2d(1, 2, 3)])
def test_views_of_a_flattened_module_are_its_parameters(make):
    network = make()
    layout, flat = flat_of(network)
    assert len(flat) == sum(parameter.numel() for parameter in network.parameters())
    for name, parameter in network.named_parameters():
        assert torch.equal(layout.views(flat)[name], parameter)


def test_a_layer_is_a_submodule_with_parameters_of_its_own():
    layout = Layout.from_network(Rooted())
    assert layout.layers == ("", "inner.0", "inner.1.1")
    assert layout.layer_sizes == [1, 16, 10]


def test_by_layer_joins_weights_and_biases():
    layout, flat = flat_of(Rooted())
    views = layout.views(flat)
    expected = torch.cat([views["inner.0.weight"].flatten(), views["inner.0.bias"]])
    assert torch.equal(layout.by_layer(flat)[1], expected)


def test_a_shared_weight_is_held_once_and_reaches_both_layers():
    network = Tied()
    layout, flat = flat_of(network)
    assert len(flat) == 16 + 4 + 4
    x = torch.randn(3, 4)
    doubled = functional_call(network, layout.views(flat * 2), (x,))
    expected = (x @ (2 * network.first.weight.T) + 2 * network.first.bias) @ (2 * network.first.weight.T)
    assert torch.allclose(doubled, expected + 2 * network.second.bias)


def test_frozen_parameters_stay_out_of_the_vector():
    network = Rooted()
    network.inner[0].weight.requires_grad_(False)
    assert Layout.from_network(network).names == ("scale", "inner.0.bias", "inner.1.1.weight", "inner.1.1.bias")


def test_a_module_with_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="network must have parameters that require a gradient, got none"):
        Layout.from_network(nn.ReLU())


def test_weights_are_the_parameters_of_two_or_more_axes():
    layout, _ = flat_of(Rooted())
    views = layout.views(layout.is_weight(torch.device("cpu")))
    assert {name for name, flags in views.items() if flags.all()} == {"inner.0.weight", "inner.1.1.weight"}
    assert not any(flags.any() for name, flags in views.items() if "weight" not in name)


def test_every_number_is_found_by_its_name_and_index():
    layout, flat = flat_of(nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(4, 5)))
    for name, view in layout.views(flat).items():
        for where in (
            torch.cartesian_prod(*(torch.arange(size) for size in view.shape)).reshape(-1, view.dim()).tolist()
        ):
            index = layout.index(f"{name}[{','.join(map(str, where))}]")
            assert flat[index] == view[tuple(where)]


def test_a_single_number_needs_no_index():
    assert Layout.from_network(Rooted()).index("scale") == 0


@pytest.mark.parametrize(
    "name",
    ["0.weight", "0.weight[]", "0.weight[0]", "0.weight[0,0,0]", "0.weight[3,0]", "0.weight[-1,0]", "0.weight[a,b]"],
)
def test_an_index_outside_a_parameter_is_refused_with_its_shape(name):
    with pytest.raises(ValueError, match=r"^watch must index 0\.weight within its shape \(3, 2\), got '0\.weight"):
        Layout.from_network(nn.Sequential(nn.Linear(2, 3))).index(name)


def test_an_unknown_parameter_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"^watch must end with a bracket, as 0\.weight\[0\] does"):
        Layout.from_network(nn.Sequential(nn.Linear(2, 3))).index("0.weight[0,1")
    with pytest.raises(ValueError, match=r"^watch must name one of 0\.weight, 0\.bias, got 'cv0\.weight\[0,0\]'$"):
        Layout.from_network(nn.Sequential(nn.Linear(2, 3))).index("cv0.weight[0,0]")


def test_by_default_two_weights_each_of_layers_0_6_and_8_are_watched():
    names = Layout.from_network(make_question_network(settings())).choose_watched()
    assert [name.partition(".")[0] for name in names] == ["cv0", "cv0", "hid1", "hid1", "softmax", "softmax"]


@pytest.mark.parametrize("make", [Rooted, Tied, lambda: nn.Linear(1, 1), lambda: nn.Linear(1, 4)])
def test_what_is_watched_by_default_exists_and_is_distinct(make):
    layout = Layout.from_network(make())
    indices = [layout.index(name) for name in layout.choose_watched()]
    assert len(set(indices)) == len(indices) >= 1
