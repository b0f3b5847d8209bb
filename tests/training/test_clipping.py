"""Clipping against plain float64 references, on gradients that hold anything at all."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cnnlab.training.clipping import CLIPS, adaptive, by_norm, by_value, safe_norm
from cnnlab.training.network import Layout

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SPECIAL = [0.0, -0.0, 1e-45, -1e-40, 6e-8, 1e-300, 1e20, -1e20, 1e38, -3e38, 60000.0, math.nan, math.inf, -math.inf]
NETWORK = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Linear(3, 2))
LAYOUT = Layout.from_network(NETWORK)
COUNT = sum(LAYOUT.sizes)

anything = st.lists(st.sampled_from(SPECIAL) | st.floats(-10, 10), min_size=COUNT, max_size=COUNT)
dtypes = st.sampled_from(DTYPES)
thresholds = st.floats(1e-3, 1e4)
kinds = st.sampled_from(sorted(CLIPS))


def clipped_by(kind, gradient, threshold, parameters=None):
    dtype = torch.float64 if gradient.dtype == torch.float64 else torch.float32
    parameters = torch.ones_like(gradient) if parameters is None else parameters
    return CLIPS[kind](gradient, torch.tensor(threshold, dtype=dtype), parameters, LAYOUT)


def exact_norm(values: torch.Tensor) -> float:
    """Euclidean norm of the finite values, by Python's scaled hypot."""
    return math.hypot(*values[values.isfinite()].double().tolist())


def slack(dtype: torch.dtype, largest: float) -> float:
    """Rounding that a norm of clipped values may carry: half a unit each, and the smallest subnormal of the type."""
    return (
        largest * (2 * torch.finfo(dtype).eps + 1e-6 * (dtype != torch.float64))
        + COUNT * torch.finfo(dtype).smallest_normal
    )


@given(anything, dtypes, thresholds, kinds)
def test_what_is_not_finite_stays_where_and_what_it_is(values, dtype, threshold, kind):
    gradient = torch.tensor(values, dtype=torch.float64).to(dtype)
    clipped = clipped_by(kind, gradient, threshold)
    bad = ~gradient.isfinite()
    assert torch.equal(gradient[bad].nan_to_num(nan=1.5), clipped[bad].nan_to_num(nan=1.5))
    assert torch.equal(bad, ~clipped.isfinite())
    assert clipped.dtype == gradient.dtype


@given(anything, dtypes, thresholds, kinds)
def test_clipping_never_enlarges_nor_turns_a_value(values, dtype, threshold, kind):
    gradient = torch.tensor(values, dtype=torch.float64).to(dtype)
    clipped = clipped_by(kind, gradient, threshold)
    good = gradient.isfinite()
    assert bool((clipped[good].abs() <= gradient[good].abs()).all())
    assert bool((clipped[good] * gradient[good].sign() >= 0).all())


@given(anything, dtypes, thresholds)
def test_the_norm_of_the_finite_values_is_at_most_the_threshold(values, dtype, threshold):
    gradient = torch.tensor(values, dtype=torch.float64).to(dtype)
    assert exact_norm(clipped_by("norm", gradient, threshold)) <= threshold + slack(dtype, threshold)


@given(anything, st.sampled_from((torch.float32, torch.float64)), thresholds)
def test_a_norm_above_the_threshold_becomes_the_threshold_and_not_zero(values, dtype, threshold):
    gradient = torch.tensor(values, dtype=torch.float64).to(dtype)
    before, after = exact_norm(gradient), exact_norm(clipped_by("norm", gradient, threshold))
    assert after == pytest.approx(min(before, threshold), rel=1e-5 if dtype == torch.float32 else 1e-12)


@given(anything, st.sampled_from((torch.float32, torch.float64)), thresholds)
def test_the_direction_is_kept(values, dtype, threshold):
    gradient = torch.tensor(values, dtype=torch.float64).to(dtype)
    clipped = clipped_by("norm", gradient, threshold).double()
    good = gradient.isfinite()
    norm = exact_norm(gradient)
    factor = min(1.0, threshold / norm) if norm else 1.0
    expected = gradient[good].double() * factor
    assert torch.allclose(clipped[good], expected, rtol=1e-5, atol=1e-37 if dtype == torch.float32 else 1e-300)


@pytest.mark.parametrize("size", [1e20, 1e30, 3e38])
def test_a_gradient_too_large_for_its_own_norm_is_no_freeze(size):
    gradient = torch.full((COUNT,), size)
    assert not torch.linalg.vector_norm(gradient).isfinite()
    assert exact_norm(clipped_by("norm", gradient, 1.0)) == pytest.approx(1.0, rel=1e-6)


def test_a_gradient_within_the_threshold_is_left_to_the_bit():
    gradient = torch.randn(COUNT)
    assert torch.equal(clipped_by("norm", gradient, 1e3), gradient)


@given(anything, dtypes, thresholds)
def test_by_value_brings_finite_values_within_the_threshold(values, dtype, threshold):
    gradient = torch.tensor(values, dtype=torch.float64).to(dtype)
    clipped = clipped_by("value", gradient, threshold)
    bound = torch.tensor(threshold, dtype=torch.float64).to(dtype)
    good = gradient.isfinite()
    assert torch.equal(clipped[good], gradient[good].clamp(-bound, bound))


@pytest.mark.parametrize("threshold", [0.1, 2.0, 100.0])
def test_by_norm_does_as_pytorch_in_the_ordinary_range(threshold):
    gradient = torch.randn(COUNT, dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(COUNT, dtype=torch.float64))
    weight.grad = gradient.clone()
    nn.utils.clip_grad_norm_([weight], threshold)
    # PyTorch divides by the norm + 1e-6.
    assert torch.allclose(clipped_by("norm", gradient, threshold), weight.grad, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_by_value_does_as_pytorch_to_the_bit(dtype):
    gradient = torch.randn(COUNT).to(dtype)
    weight = nn.Parameter(torch.zeros(COUNT, dtype=dtype))
    weight.grad = gradient.clone()
    nn.utils.clip_grad_value_([weight], 0.5)
    assert torch.equal(clipped_by("value", gradient, 0.5), weight.grad)


def brock(gradient: torch.Tensor, threshold: float, parameters: torch.Tensor) -> torch.Tensor:
    """Adaptive clipping as section 4.1 of Brock et al. (2021) writes it, unit by unit in float64."""
    clipped = gradient.double().clone()
    views, weights = LAYOUT.views(clipped), LAYOUT.views(parameters.double())
    for name, part in views.items():
        units = (
            [(part[row], weights[name][row]) for row in range(len(part))] if part.dim() > 1 else [(part, weights[name])]
        )
        for unit, weight in units:
            norm, most = unit.norm(), threshold * max(weight.norm().item(), 1e-3)
            if norm > most:
                unit *= most / norm
    return clipped


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("scale", [0.0, 1e-5, 1.0])
def test_adaptive_does_as_the_paper_unit_by_unit(dtype, threshold, scale):
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(COUNT, generator=generator).to(dtype)
    parameters = (torch.randn(COUNT, generator=generator) * scale).to(dtype)
    expected = brock(gradient, threshold, parameters)
    assert torch.allclose(clipped_by("adaptive", gradient, threshold, parameters).double(), expected, rtol=1e-5)


def test_adaptive_bounds_one_unit_without_touching_another():
    gradient = torch.full((COUNT,), 1e-6)
    gradient[0] = 100.0
    clipped = clipped_by("adaptive", gradient, 0.1)
    assert (clipped != gradient).nonzero().flatten().tolist() == [0, 1, 2, 3]


@given(anything, anything)
def test_adaptive_makes_no_nan_whatever_the_weights(gradient, weights):
    gradient, weights = torch.tensor(gradient), torch.tensor(weights)
    clipped = adaptive(gradient, torch.tensor(0.1), weights, LAYOUT)
    assert torch.equal(clipped.isnan(), gradient.isnan())


@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_the_safe_norm_is_that_of_python(values):
    measured = safe_norm(torch.tensor(values, dtype=torch.float64)).item()
    expected = math.hypot(*values)
    if any(map(math.isnan, values)):
        assert math.isnan(measured)
    else:
        assert measured == pytest.approx(expected, rel=1e-12)


def test_the_safe_norm_reaches_both_ends_of_float64():
    rows = torch.tensor([[3e200, 4e200], [3e-200, 4e-200]], dtype=torch.float64)
    assert safe_norm(rows).flatten().tolist() == pytest.approx([5e200, 5e-200], rel=1e-12)


def test_the_functions_are_those_that_the_knobs_name():
    assert (CLIPS["value"], CLIPS["norm"], CLIPS["adaptive"]) == (by_value, by_norm, adaptive)
