"""Every gauge against a slow plain reference, on numbers that may be NaN, inf, subnormal, or too large to square."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cnnlab import Run
from cnnlab.records.frame import GAUGES, LAYER_GAUGES
from cnnlab.records.histograms import EXPONENTS
from cnnlab.training import metrics as metrics
from cnnlab.training.metrics import Gauges, classification, measure_dead_share
from cnnlab.training.network import Layout
from cnnlab.training.step import Step

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
SPECIAL = [
    0.0,
    -0.0,
    1e-45,
    -1e-40,
    6e-8,
    1e-300,
    5e-324,
    1e200,
    1e30,
    -3e38,
    65504.0,
    math.nan,
    -math.nan,
    math.inf,
    -math.inf,
]
SMALL = {"channels": 3, "hidden": (6, 5), "patch_size": 14, "patches": 20, "device": "cpu"}
NETWORK = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Linear(3, 2))
LAYOUT = Layout.from_network(NETWORK)
COUNT = sum(LAYOUT.sizes)
# Subnormal numbers of half types become 0 or not by the host's rounding, so the values are made in float64 first.
anything = st.lists(st.sampled_from(SPECIAL) | st.floats(), min_size=COUNT, max_size=COUNT)


def flat_of(values, precision: str = "float32") -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).to(DTYPES[precision])


def measured(before, step: Step, targets=None) -> dict[str, np.ndarray | float]:
    """The row of a step by gauge."""
    gauges = Gauges(NETWORK, LAYOUT, before, [0])
    row, _ = gauges.measure(before, step, targets)
    gauges.activations.release()
    return named(row.numpy(), 2)


def named(row: np.ndarray, layers: int) -> dict[str, np.ndarray | float]:
    found = dict(zip(GAUGES, row, strict=False))
    for place, name in enumerate(LAYER_GAUGES):
        found[name] = row[len(GAUGES) + place * layers :][:layers]
    return found


def step_of(weights, gradient=None, update=None, clipped=None) -> Step:
    gradient = torch.zeros_like(weights) if gradient is None else gradient
    update = torch.zeros_like(weights) if update is None else update
    cost = torch.tensor(1.0)
    return Step(weights, None, gradient, gradient if clipped is None else clipped, update, None, cost, None, buffers={})


def norm_of(values: torch.Tensor) -> float:
    """Euclidean norm by Python's scaled hypot, NaN where there is one even beside inf."""
    values = values.double().tolist()
    return math.nan if any(map(math.isnan, values)) else math.hypot(*values)


def assert_same(found, expected, rel: float = 1e-12) -> None:
    np.testing.assert_allclose(np.array(found, float), np.array(expected, float), rtol=rel, atol=0)


@given(anything, st.sampled_from(sorted(DTYPES)))
def test_the_histogram_counts_every_number_in_the_class_of_its_exponent(values, precision):
    flat = flat_of(values, precision)
    gauges = Gauges(NETWORK, LAYOUT, flat, [])
    histogram = gauges.histogram(flat.abs()).numpy()
    gauges.activations.release()
    exponents = EXPONENTS[precision]
    expected = np.zeros((2, exponents.count), int)
    for layer, part in enumerate(LAYOUT.by_layer(flat.double())):
        for number in part.abs().tolist():
            expected[layer, reference_class(number, exponents)] += 1
    assert np.array_equal(histogram, expected)
    assert histogram.sum() == COUNT


def reference_class(number: float, exponents) -> int:
    if not math.isfinite(number):
        return exponents.count - 1
    return max(math.frexp(number)[1] - 1 + exponents.bias, 0) if number else 0


@pytest.mark.parametrize("precision", DTYPES)
def test_nan_of_either_sign_is_counted_in_the_last_class(precision):
    flat = flat_of([0.0] * COUNT, precision)
    flat[0], flat[1] = math.nan, math.inf
    flat[2:4] = -flat[0:2]
    gauges = Gauges(NETWORK, LAYOUT, flat, [])
    assert gauges.histogram(flat.abs())[0, -1] == 4


def test_the_powers_are_those_of_the_classes():
    for precision, exponents in EXPONENTS.items():
        assert exponents.powers[exponents.bias] == 0
        smallest = torch.finfo(DTYPES[precision]).smallest_normal
        assert 2.0 ** exponents.powers[1] == smallest


@given(anything, anything, anything, st.sampled_from(sorted(DTYPES)))
def test_norms_sizes_and_counts_are_those_of_plain_python(weights, gradient, update, precision):
    weights, gradient, update = (flat_of(values, precision) for values in (weights, gradient, update))
    found = measured(weights, step_of(weights, gradient, update))
    layers = [LAYOUT.by_layer(flat) for flat in (weights, gradient, update)]
    assert_same(found["weight_norm"], [norm_of(part) for part in layers[0]])
    assert_same(found["gradient_norm"], [norm_of(part) for part in layers[1]])
    assert_same(found["total_gradient_norm"], norm_of(gradient))
    assert_same(found["largest_weight"], [np.abs(part.double().numpy()).max() for part in layers[0]])
    for name, parts in (("weight", layers[0]), ("gradient", layers[1])):
        assert_same(found[f"{name}_nan"], [np.isnan(part.double().numpy()).sum() for part in parts])
        assert_same(found[f"{name}_inf"], [np.isinf(part.double().numpy()).sum() for part in parts])


@given(anything, anything)
def test_the_update_ratio_is_the_quotient_of_two_norms(weights, update):
    weights, update = flat_of(weights), flat_of(update)
    found = measured(weights, step_of(weights, None, update))["update_ratio"]
    for ratio, moved, met in zip(found, LAYOUT.by_layer(update), LAYOUT.by_layer(weights), strict=True):
        with np.errstate(all="ignore"):
            expected = 0.0 if norm_of(moved) == 0 else np.float64(norm_of(moved)) / norm_of(met)
        assert_same(ratio, expected)


@pytest.mark.parametrize(
    ("precision", "size"), [("float32", 1e30), ("float64", 1e200), ("float64", 1e-200), ("float16", 6e4)]
)
def test_norms_do_not_overflow_or_underflow(precision, size):
    flat = flat_of([size] * COUNT, precision)
    found = measured(flat, step_of(flat, flat, flat))
    value = flat[0].double().item()
    assert_same(found["weight_norm"], [value * math.sqrt(count) for count in LAYOUT.layer_sizes])
    assert_same(found["total_gradient_norm"], value * math.sqrt(COUNT))
    assert_same(found["update_ratio"], [1.0, 1.0])


@pytest.mark.parametrize("beside", SPECIAL)
def test_the_norm_of_a_vector_does_not_depend_on_what_is_measured_beside_it(beside):
    gauges = Gauges(NETWORK, LAYOUT, flat_of([0.0] * COUNT, "float64"), [])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        flat = torch.randn(COUNT, generator=generator, dtype=torch.float64)
        together = gauges.norms(flat, flat_of([beside] * COUNT, "float64"))[0]
        assert together.tolist() == gauges.norms(flat)[0].tolist()
    gauges.activations.release()


def test_clipped_is_the_share_of_values_that_clipping_changed():
    gradient = flat_of([1.0] * COUNT)
    gradient[0] = math.nan
    clipped = gradient.clone()
    clipped[1:4] = 0.5
    assert measured(gradient, step_of(gradient, gradient, None, clipped))["clipped"] == pytest.approx(3 / COUNT)


def test_without_clipping_the_share_is_zero():
    flat = flat_of([1.0] * COUNT)
    assert measured(flat, step_of(flat, flat))["clipped"] == 0


def forward(network: nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """The gauges of one forward pass."""
    layout = Layout.from_network(network)
    gauges = Gauges(network, layout, layout.flatten(dict(network.named_parameters())), [])
    network(x)
    found = gauges.activations.taken()
    gauges.activations.release()
    return {name: np.array([float(value) for value in values]) for name, values in found.items()}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_nan_and_inf_in_activations_are_counted_exactly(dtype):
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).to(dtype)
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[0].bias.copy_(torch.tensor([0.0, math.nan, -math.inf]))
        network[2].weight.fill_(1)
    found = forward(network, torch.ones(5, 2, dtype=dtype))
    assert found["activation_nan"].tolist() == [5, 10]
    assert found["activation_inf"].tolist() == [5, 0]


def test_an_activation_sum_that_overflows_is_no_inf():
    found = forward(nn.Linear(1, 4, bias=False), torch.full((3, 1), 3e38))
    assert found["activation_inf"].tolist() == [0]


def test_a_relu_in_place_hides_no_inf():
    network = nn.Sequential(nn.Linear(1, 2), nn.ReLU(inplace=True))
    with torch.no_grad():
        network[0].bias.copy_(torch.tensor([-math.inf, 0]))
    found = forward(network, torch.ones(3, 1))
    assert found["activation_inf"].tolist() == [3]
    assert found["dead_relu"][0] >= 0.5


def test_a_unit_is_dead_if_its_relu_gives_zero_for_the_whole_batch():
    network = nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[0].bias.copy_(torch.tensor([-100.0, 0.0, -20.0, -math.inf]))
    x = torch.ones(3, 1, 3, 3)
    x[2] = 6
    found = forward(network, x)["dead_relu"]
    assert found[0] == 0.5
    assert math.isnan(found[1])


def test_a_unit_that_lives_for_the_last_of_many_examples_alone_is_not_dead():
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    with torch.no_grad():
        network[0].weight.fill_(1)
    x = -torch.ones(100, 1)
    assert forward(network, x)["dead_relu"].tolist() == [1.0]
    x[99] = 1
    assert forward(network, x)["dead_relu"].tolist() == [0.0]


@pytest.mark.parametrize("shape", [(), (5,), (3, 5), (40, 5), (5, 7, 4), (40, 5, 3, 2)])
@pytest.mark.parametrize("units", [0, 1, -1])
def test_the_share_of_dead_units_is_that_of_a_loop_whether_or_not_the_device_may_be_asked(monkeypatch, shape, units):
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1)) - 1.5
    axis = min(units % max(len(shape), 1), max(len(shape) - 1, 0))
    apart = given.reshape(1, -1).T if len(shape) < 2 else given.movedim(axis, 0).flatten(1)
    expected = np.mean([all(value <= 0 for value in unit) for unit in apart.tolist()])
    asked = measure_dead_share(given, axis)
    monkeypatch.setattr(metrics, "is_read_at_once", lambda _device: False)
    assert asked == pytest.approx(expected)
    assert float(measure_dead_share(given, axis)) == pytest.approx(expected)


def test_a_unit_that_gives_nan_is_not_dead():
    network = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    with torch.no_grad():
        network[0].weight.fill_(0)
        network[0].bias.copy_(torch.tensor([-1.0, math.nan]))
    assert forward(network, torch.ones(3, 1))["dead_relu"].tolist() == [0.5]


def test_channels_of_a_batch_norm_are_its_units():
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.tensor([-1.0, -1, -1, 1]))
    found = forward(network, torch.randn(3, 1, 2, 5))["dead_relu"]
    assert math.isnan(found[0])
    assert found[1] == 0.75


def test_a_relu_before_any_layer_is_on_no_account():
    assert math.isnan(forward(nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), -torch.ones(3, 2))["dead_relu"][0])


def test_a_layer_that_runs_twice_is_counted_twice():
    network = nn.Linear(2, 2)
    twice = nn.Sequential(network, network)
    with torch.no_grad():
        network.bias.fill_(math.nan)
    assert forward(twice, torch.ones(3, 2))["activation_nan"].tolist() == [12]


def test_a_layer_that_does_not_run_has_no_counts():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    found = forward(Half(), torch.ones(3, 2))["activation_nan"]
    assert found[0] == 0
    assert math.isnan(found[1])


def test_accuracy_and_gap_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 3, generator=generator), torch.randint(3, (50,), generator=generator)
    accuracy, gap = classification(logits, labels)
    rows = logits.tolist()
    assert accuracy == pytest.approx(
        np.mean([row.index(max(row)) == label for row, label in zip(rows, labels.tolist(), strict=True)])
    )
    assert gap == pytest.approx(max(max(row) - min(row) for row in rows))


def test_a_patch_with_a_nan_logit_counts_as_wrong():
    logits = torch.tensor([[math.nan, 1.0], [1.0, math.nan], [0.0, 1.0], [0.0, math.inf]])
    accuracy, gap = classification(logits, torch.tensor([0, 1, 1, 1]))
    assert accuracy == 0.5
    assert gap.isnan()


@pytest.mark.parametrize(("dtype", "size"), [(torch.float16, 6e4), (torch.float32, 3e38)])
def test_the_gap_of_large_logits_does_not_overflow(dtype, size):
    logits = torch.tensor([[size, -size]], dtype=dtype)
    assert classification(logits, torch.tensor([0]))[1] == 2 * logits[0, 0].double()


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(3)),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64)),
        ((torch.zeros(3, 2),), torch.zeros(3, dtype=torch.int64)),
    ],
)
def test_what_is_no_classification_has_no_accuracy(outputs, targets):
    assert all(part.isnan() for part in classification(outputs, targets))


def test_one_poisoned_weight_is_found_in_its_layer_and_its_nan_followed():
    run = Run("question", **SMALL, input_scaling="standardised", relu="none")
    place = run.layout.index("hid1.weight[2,3]")
    run.state = run.state._replace(parameters=run.parameters.clone())
    run.parameters[place] = math.nan
    frame = run.step()
    layers = run.layout.layers
    assert frame.activation_nan[layers.index("cv5")] == 0
    assert frame.activation_nan[layers.index("hid1")] == 20
    assert frame.activation_nan[layers.index("hid2")] == 20 * 5
    assert frame.activation_nan[layers.index("softmax")] == 20 * 2
    assert math.isnan(frame.cost)
    assert frame.accuracy == 0
    assert (frame.gradient_nan > 0).all()
    assert (frame.weight_nan == frame.gradient_nan).all()


def test_a_run_measures_what_its_own_parameters_say():
    run = Run(
        "question", **SMALL, precision="float64", learning_rate=1e-3, momentum=0.5, clip="value", clip_threshold=1e-3
    )
    run.advance(3)
    before = run.parameters
    frame = run.step()
    moved = run.layout.by_layer(before - run.parameters)
    met = run.layout.by_layer(before)
    assert_same(frame.weight_norm, [norm_of(part) for part in run.layout.by_layer(run.parameters)])
    ratios = [norm_of(part) / norm_of(weights) for part, weights in zip(moved, met, strict=True)]
    # The parameters are rounded after the update is taken away.
    assert_same(frame.update_ratio, ratios, rel=1e-9)
    assert frame.histogram.sum() == len(before)
    assert 0 < frame.clipped <= 1


def test_the_start_knows_the_weights_and_nothing_else():
    start = Run("question", **SMALL).record.start
    assert np.isfinite(start.weight_norm).all()
    assert (start.weight_nan == 0).all()
    assert math.isnan(start.cost)
    assert np.isnan(start.gradient_norm).all()
    assert np.isnan(start.dead_relu).all()
