"""Convolutions of many members by kernels, without a GPU by Triton's interpreter: as exact as float32, both ways."""

import math

import pytest
import torch

from cnnlab.sweeps import fastest_convolutions
from cnnlab.sweeps.convolutions import Convolution, convolve

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = {
    "the same patches for all": (2, 3, 9, (4, 4), (True, False), True),
    "patches of each member's own": (2, 3, 11, (5, 20, 3), (True, True, True), False),
    "more channels than a program takes": (2, 1, 9, (40, 70), (True, False), True),
    "one member": (1, 2, 7, (16,), (False,), True),
}


pytest.importorskip("triton", reason="needs Triton, which there is for Linux alone")


@pytest.fixture(scope="module")
def fused():
    """The module of the fused convolutions, which opens Triton."""
    from cnnlab.sweeps import fused_convolutions

    return fused_convolutions


def make_chain(members, side, channels, relus):
    """Convolutions with weights by chance."""
    chance = torch.Generator().manual_seed(0)
    chain = []
    for into, out, relu in zip((1, *channels), channels, relus, strict=False):
        weight = 0.3 * torch.randn(members, out, into, 3, 3, generator=chance).to(DEVICE)
        bias = torch.randn(members, out, generator=chance).to(DEVICE)
        chain.append(Convolution(weight.requires_grad_(), bias.requires_grad_(), relu))
    return chain


def find_all(way, x, chain, slope, dtype):
    """The output and all gradients, for a slope of the output."""
    leaves = [tensor for each in chain for tensor in (each.weight, each.bias)]
    made = way(x.to(dtype), [Convolution(each.weight.to(dtype), each.bias.to(dtype), each.relu) for each in chain])
    return [made, *torch.autograd.grad(made, leaves, slope.to(dtype))]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_outputs_and_gradients_are_those_of_float64_to_the_rounding_of_float32(fused, case):
    members, patches, side, channels, relus, shared = case
    chance = torch.Generator().manual_seed(1)
    x = torch.randn(1 if shared else members, patches, side, side, 1, generator=chance).to(DEVICE)
    chain = make_chain(members, side, channels, relus)
    rest = side - 2 * len(channels)
    slope = torch.randn(members, patches, rest, rest, channels[-1], generator=chance).to(DEVICE)
    exact = find_all(convolve, x, chain, slope, torch.float64)
    for found, wanted in zip(find_all(fused.convolve, x, chain, slope, torch.float32), exact, strict=True):
        assert found.shape == wanted.shape
        assert (found.double() - wanted).norm() <= 5e-7 * wanted.norm()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of which the interpreter is made, at inf - inf
def test_a_nan_stays_in_its_member_and_passes_a_relu(fused):
    chain = make_chain(3, 9, (4, 4), (True, True))
    with torch.no_grad():
        chain[0].weight[1, 0, 0, 0, 0] = math.nan
    x = torch.ones(1, 2, 9, 9, 1, device=DEVICE)
    made, *slopes = find_all(fused.convolve, x, chain, torch.ones(3, 2, 5, 5, 4, device=DEVICE), torch.float32)
    for tensor in (made, *slopes):
        assert tensor[[0, 2]].isfinite().all()
    assert made[1].isnan().any()
    assert slopes[2][1].isnan().any()


def test_the_fused_way_is_taken_on_a_gpu_in_float32_alone(monkeypatch, fused):
    monkeypatch.setattr(fastest_convolutions, "try_out", lambda *_given: None)
    find = fastest_convolutions.find_convolve.__wrapped__
    assert find(torch.device("cuda"), torch.float32) is fused.convolve
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.float64), ("cuda", torch.bfloat16)):
        assert find(torch.device(device), dtype) is convolve


def test_without_a_compiler_members_go_by_batched_products_and_one_sentence_says_so(monkeypatch, fused):
    def fail(*_given):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(fastest_convolutions, "try_out", fail)
    with pytest.warns(RuntimeWarning, match="members take more time together, as Triton cannot compile"):
        assert fastest_convolutions.find_convolve.__wrapped__(torch.device("cuda"), torch.float32) is convolve


def test_a_way_is_tried_out_forward_and_backward(fused):
    fastest_convolutions.try_out(fused.convolve, torch.device(DEVICE))
