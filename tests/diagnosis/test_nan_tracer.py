"""The first NaN or inf is found at the very place, in cases built so that the place is known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from loops import SlopeByHand
from torch import Tensor, nn

import cnnlab
from cnnlab.diagnosis.events import name_place
from cnnlab.diagnosis.nan_tracer import find_origin

PRECISIONS = ("float16", "bfloat16", "float32", "float64")
BIG = {"float16": 6e4, "bfloat16": 3e38, "float32": 3e38, "float64": 1.7e308}
"""Near the largest number of each type: ten times as much overflows."""
SQUARE = {"float16": 300.0, "bfloat16": 1e25, "float32": 1e25, "float64": 1e200}
"""Numbers whose square overflows."""
NAMES = ("a", "b", "c", "d")


class Case(NamedTuple):
    """A network, its data and cost, and where its first non-finite value and its first NaN are."""

    name: str
    make: Callable[[], cnnlab.Run]
    first: tuple[int, str, str, str]
    """Update, phase, layer, operation."""
    nan: tuple[int, str, str, str] | None


def chain(weights: list[float], precision: str, outputs: int = 1) -> nn.Sequential:
    """Layers a, b, c, .. of one number each; the last one gives its weight, and then zeros, as outputs."""
    network = nn.Sequential()
    for place, weight in enumerate(weights):
        last = place == len(weights) - 1
        layer = nn.Linear(1, outputs if last else 1, bias=False, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.zero_()
            layer.weight[0, 0] = weight
        network.add_module(NAMES[place], layer)
    return network.to(getattr(torch, precision))


def run_of(
    weights: list[float], x: float, precision: str, cost: object, y: object = 0.0, **changes: object
) -> cnnlab.Run:
    """A run of a chain on one example."""
    outputs = 2 if cost in ("log_softmax", "softmax_log") or y == 1 else 1
    target = torch.tensor([y]) if isinstance(y, int) else torch.tensor([[y]], dtype=torch.float64)
    data = (torch.tensor([[x]], dtype=torch.float64), target)
    return cnnlab.Run(network=chain(weights, precision, outputs), data=data, cost=cost, device="cpu", **changes)


def total(outputs: Tensor, _targets: Tensor) -> Tensor:
    return outputs.sum()


def squares(outputs: Tensor, _targets: Tensor) -> Tensor:
    return outputs.square().sum()


def by_hand(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with an exp that nobody has made safe."""
    powers = outputs.exp()
    return -(powers / powers.sum(1, keepdim=True))[0, targets[0]].log()


def one_over(outputs: Tensor, _targets: Tensor) -> Tensor:
    return (1 / outputs).sum()


def quotient_of_powers(outputs: Tensor, _targets: Tensor) -> Tensor:
    """A softmax by hand, of one output, taken as the cost."""
    powers = outputs.exp()
    return (powers / powers.sum()).sum()


def steep(factor: float) -> Callable[[Tensor, Tensor], Tensor]:
    """A cost that is 0 and whose gradient is -factor."""
    return lambda outputs, _targets: (outputs.detach() - outputs).sum() * factor


class Casting(nn.Module):
    """Layers a and b with a cast to float16 after one of them."""

    def __init__(self, after: str) -> None:
        super().__init__()
        self.after = after
        self.a, self.b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.a.weight.fill_(1.0)
            self.b.weight.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in (("a", self.a), ("b", self.b)):
            x = layer(x)
            if name == self.after:
                x = x.half().to(layer.weight.dtype)
        return x


def casting(after: str, precision: str) -> cnnlab.Run:
    data = (torch.tensor([[1e5]]), torch.tensor([[0.0]]))
    network = Casting(after).to(getattr(torch, precision))
    return cnnlab.Run(network=network, data=data, cost=total, device="cpu")


def growing(precision: str) -> cnnlab.Run:
    """w becomes -9 w in every update, and the cost is w squared."""
    return run_of([1.0], 1.0, precision, squares, learning_rate=5.0)


def updates_until_the_square_overflows(precision: str) -> int:
    """The first k for which 9^(2 (k - 1)) is beyond the type."""
    largest = {"float16": 65520.0, "bfloat16": 3.4e38, "float32": 3.4028235e38, "float64": 1.797e308}[precision]
    return 1 + math.floor(math.log(largest) / math.log(81)) + 1


def cases() -> list[Case]:
    made: list[Case] = []

    def add(name: str, make: Callable[[], cnnlab.Run], *first: object, nan: tuple | None = None) -> None:
        made.append(Case(name, make, first, nan))

    for kind in PRECISIONS:
        big, square = BIG[kind], SQUARE[kind]
        tiny = 1 / square
        for place, layer in enumerate("abc"):
            weights = [1.0, 1.0, 1.0, 1.0]
            weights[place] = big
            x = 10.0 if place == 0 else 1.0
            weights[max(place - 1, 0)] *= 1.0 if place == 0 else 10.0
            add(f"{kind}: activation of {layer} overflows", lambda w=weights, x=x, k=kind: run_of(w, x, k, total),
                1, "activation", layer, "overflow")  # fmt: skip
        add(f"{kind}: a logit overflows, and log-softmax takes inf from it",
            lambda k=kind, b=big: run_of([10.0, b], 1.0, k, "log_softmax", 1), 1, "logit", "b", "overflow",
            nan=(1, "cost", "", "inf-inf"))  # fmt: skip
        add(f"{kind}: a logit overflows, and softmax takes inf from it",
            lambda k=kind, b=big: run_of([1.0, 10.0, b], 1.0, k, "softmax_log", 1), 1, "logit", "c", "overflow",
            nan=(1, "probability", "c", "inf-inf"))  # fmt: skip
        add(f"{kind}: inf meets a weight of 0", lambda k=kind, b=big: run_of([10.0, b, 0.0], 1.0, k, total),
            1, "activation", "b", "overflow", nan=(1, "activation", "c", "inf*0"))  # fmt: skip
        gap = {"float16": 40.0, "bfloat16": 150.0, "float32": 150.0, "float64": 1000.0}[kind]
        add(f"{kind}: log of a probability of 0", lambda k=kind, g=gap: run_of([1.0, g], 1.0, k, "softmax_log", 1),
            1, "cost", "", "log(0)", nan=(1, "gradient", "b", "inf*0"))  # fmt: skip
        high = {"float16": 20.0, "bfloat16": 100.0, "float32": 100.0, "float64": 800.0}[kind]
        add(f"{kind}: exp overflows", lambda k=kind, h=high: run_of([h, 1.0], 1.0, k, by_hand, 1),
            1, "probability", "b", "exp overflow")  # fmt: skip
        add(f"{kind}: a cost of squares overflows", lambda k=kind, s=square: run_of([s, 1.0], 1.0, k, squares),
            1, "cost", "", "overflow")  # fmt: skip
        # p is so small that 1/p overflows while log p is still a number.
        edge = {"float16": 13.0, "bfloat16": 89.5, "float32": 95.0, "float64": 720.0}[kind]
        add(f"{kind}: 1/p overflows in the gradient", lambda k=kind, e=edge: run_of([1.0, e], 1.0, k, "softmax_log", 1),
            1, "gradient", "b", "overflow")  # fmt: skip
        add(f"{kind}: the gradient of a overflows", lambda k=kind, b=big: run_of([1e-3, 100.0], b / 10, k, total),
            1, "gradient", "a", "overflow")  # fmt: skip
        add(f"{kind}: the gradient of b overflows",
            lambda k=kind, b=big: run_of([1.0, 1e-3, 100.0], b / 10, k, total),
            1, "gradient", "b", "overflow")  # fmt: skip
        for layer, weights in (("a", [square, tiny]), ("b", [tiny, square])):
            add(f"{kind}: the square of a weight of {layer} overflows in the penalty",
                lambda k=kind, w=weights: run_of(w, 1.0, k, total, l2=1.0),
                1, "penalty", layer, "overflow")  # fmt: skip
        slope = {"float16": 1e3, "bfloat16": 1e35, "float32": 1e35, "float64": 1e303}[kind]
        add(f"{kind}: the update overflows", lambda k=kind, s=slope: run_of([1.0], 1.0, k, steep(s), learning_rate=1e6),
            1, "update", "a", "overflow")  # fmt: skip
        push = {"float16": 1.0, "bfloat16": 1e32, "float32": 1e32, "float64": 1e302}[kind]
        add(f"{kind}: a weight overflows",
            lambda k=kind, b=big, p=push: run_of([b], 1.0, k, steep(p), learning_rate=1e4 if k == "float16" else 1e6),
            1, "weight", "a", "overflow")  # fmt: skip
        add(f"{kind}: the gradient of b's inputs overflows",
            lambda k=kind, b=big, p=push: run_of([1.0, b], 1.0, k, steep(max(p, 1e3))),
            1, "gradient", "b", "overflow")  # fmt: skip
        add(f"{kind}: the data hold NaN", lambda k=kind: run_of([1.0, 1.0], math.nan, k, total),
            1, "input", "", "given", nan=(1, "input", "", "given"))  # fmt: skip
        add(f"{kind}: w grows ninefold", lambda k=kind: growing(k), updates_until_the_square_overflows(kind),
            "cost", "", "overflow")  # fmt: skip
        zero = {"float16": -20.0, "bfloat16": -150.0, "float32": -150.0, "float64": -1000.0}[kind]

        def nothing_left(outputs: Tensor, _targets: Tensor) -> Tensor:
            powers = outputs.exp()
            return (powers / powers.sum()).log().sum()

        add(f"{kind}: 0/0, for exp underflows", lambda k=kind, z=zero, c=nothing_left: run_of([z], 1.0, k, c),
            1, "probability", "a", "0/0", nan=(1, "probability", "a", "0/0"))  # fmt: skip
        add(f"{kind}: a number over 0", lambda k=kind: run_of([1.0, 0.0], 1.0, k, one_over), 1, "cost", "", "x/0",
            nan=(1, "gradient", "b", "inf*0"))  # fmt: skip
        add(f"{kind}: inf over inf", lambda k=kind, h=high: run_of([h, 1.0], 1.0, k, quotient_of_powers),
            1, "probability", "b", "exp overflow", nan=(1, "probability", "b", "inf/inf"))  # fmt: skip
        for function, named in ((Tensor.log, "log of a negative number"), (Tensor.sqrt, "root of a negative number")):
            add(f"{kind}: {named}",
                lambda k=kind, f=function: run_of([1.0, -2.0], 1.0, k, lambda outputs, _: f(outputs).sum()),
                1, "cost", "", named, nan=(1, "cost", "", named))  # fmt: skip
    for kind in ("bfloat16", "float32", "float64"):
        for layer in "ab":
            add(f"{kind}: a cast to float16 after {layer}", lambda k=kind, a=layer: casting(a, k),
                1, "activation", layer, "cast")  # fmt: skip
    add("initial weights beyond float16", lambda: cnnlab.Run("overflow", init_scale=1e6, device="cpu"),
        0, "weight", "cv0", "cast")  # fmt: skip
    return made


CASES = cases()


def test_there_are_at_least_forty_cases():
    assert len(CASES) >= 40
    assert {case.first[3] for case in CASES} >= {
        "overflow", "log(0)", "0/0", "x/0", "exp overflow", "cast", "given", "log of a negative number",
        "root of a negative number",
    }  # fmt: skip
    assert {case.nan[3] for case in CASES if case.nan} >= {"inf-inf", "inf*0", "inf/inf"}
    assert {case.first[1] for case in CASES} >= {
        "activation", "logit", "probability", "cost", "penalty", "gradient", "update", "weight"
    }  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_update_phase_layer_and_operation_are_exact(case):
    run = case.make()
    if case.first[0]:
        run.advance(case.first[0])
    found = find_origin(run)
    assert (found.first.step, found.first.phase, found.first.layer, found.first.operation) == case.first
    if case.nan is not None:
        assert (found.nan.step, found.nan.phase, found.nan.layer, found.nan.operation) == case.nan


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_healthy_run_has_no_origin_of_a_nan(precision):
    run = run_of([0.5, 0.5], 1.0, precision, squares, learning_rate=0.1)
    run.advance(20)
    assert find_origin(run) is None


def test_an_infinity_that_reaches_no_result_is_not_reported():
    def sigmoid_by_hand(outputs: Tensor, _targets: Tensor) -> Tensor:
        return (1 / (1 + (-outputs.detach()).exp()) + outputs).sum()

    run = run_of([-200.0, 1.0], 1.0, "float32", sigmoid_by_hand)
    run.advance(3)
    assert find_origin(run) is None


def test_a_mask_of_minus_infinity_is_meant_but_a_row_of_nothing_else_is_not():
    def masked(outputs: Tensor, targets: Tensor) -> Tensor:
        everywhere = torch.ones_like(outputs, dtype=torch.bool)
        return outputs.masked_fill(everywhere, float("-inf")).softmax(1)[0, targets[0]]

    run = run_of([1.0, 1.0], 1.0, "float32", masked, 1)
    run.advance(1)
    found = find_origin(run)
    assert (found.first.phase, found.first.layer, found.first.operation) == ("probability", "b", "inf-inf")


@pytest.mark.parametrize("clip", ["value", "norm", "adaptive"])
def test_clipping_is_not_blamed_for_what_it_is_given(clip):
    run = run_of([1e-3, 100.0], 3e37, "float32", total, clip=clip)
    run.advance(1)
    assert find_origin(run).first.phase == "gradient"
    run = run_of([1.0], 1e38, "float32", total, clip=clip)
    run.advance(1)
    assert find_origin(run) is None


def test_looking_for_it_leaves_the_run_as_it_was():
    run, twin = cnnlab.Run("question", device="cpu"), cnnlab.Run("question", device="cpu")
    for each in (run, twin):
        each.advance(4)
    before = run.record.table.copy()
    find_origin(run)
    assert (run.state.parameters.isnan() == twin.state.parameters.isnan()).all()
    run.advance(1)
    assert (run.record.table[:5] == before).sum() == (before == before).sum()
    assert not run.network.cv0._forward_pre_hooks


@pytest.mark.parametrize("seed", range(4))
def test_the_question_s_network_overflows_in_a_convolution_where_the_gauges_first_see_it(seed):
    run = cnnlab.Run("question", seed=seed, device="cpu")
    run.advance(6, until="nonfinite")
    record, found = run.record, find_origin(run)
    bad = (record.activation_inf[-1] + record.activation_nan[-1]) > 0
    assert found.first.step == record.first_nonfinite
    assert found.first.layer == record.layers[int(bad.argmax())]
    assert (found.first.phase, found.first.operation, found.first.function) == ("activation", "overflow", "convolution")
    assert found.first.reached > 3.4e38


@pytest.mark.parametrize("seed", range(4))
def test_half_precision_overflows_where_float32_would_not(seed):
    run = cnnlab.Run("overflow", seed=seed, device="cpu")
    run.advance(6, until="nonfinite")
    found = find_origin(run)
    assert found.first.operation == "overflow"
    assert 65504 < found.first.reached < 3e38


def lying_outside(outputs: Tensor, _targets: Tensor) -> Tensor:
    return torch.acos(outputs).sum()


def flat_at_zero(outputs: Tensor, _targets: Tensor) -> Tensor:
    return outputs.abs().pow(0.3).sum()


def with_a_constant(outputs: Tensor, _targets: Tensor) -> Tensor:
    return (outputs * torch.tensor(math.nan)).sum()


@pytest.mark.parametrize(
    ("weight", "cost", "phase", "operation", "function", "argument"),
    [
        (2.0, lying_outside, "cost", "undefined", "acos", "acos of 2, which is defined on [-1, 1]"),
        (1.0, lying_outside, "gradient", "x/0", "acos", "the slope of acos at 1"),
        (0.0, flat_at_zero, "gradient", "x/0", "pow", "the slope of pow at 0, to the power of 0.3"),
        (1.0, with_a_constant, "constant", "given", "data", "a constant in the cost: NaN in 1 of 1 values"),
    ],
)
def test_the_operation_that_was_written_its_argument_and_its_line_are_named(
    weight, cost, phase, operation, function, argument
):
    run = run_of([weight], 1.0, "float32", cost)
    run.advance(1)
    found = find_origin(run).first
    assert (found.phase, found.operation, found.function, found.argument) == (phase, operation, function, argument)
    line = cost.__code__.co_firstlineno + 1
    assert found.source.startswith(f"test_nan_tracer.py:{line}: return ")


def test_no_line_is_named_where_none_of_the_user_s_own_is_at_work():
    run = run_of([1.0, 150.0], 1.0, "float32", "softmax_log", 1)
    run.advance(1)
    found = find_origin(run).first
    assert (found.operation, found.source, found.saturated) == ("log(0)", "", "softmax")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_targets_that_hold_nan_are_said_to(value):
    run = run_of([1.0], 1.0, "float32", lambda outputs, targets: (outputs - targets).square().sum(), value)
    run.advance(1)
    found = find_origin(run).first
    assert (found.phase, found.operation) == ("target", "given")
    assert f"{'inf' if value > 1 else 'NaN'} in 1 of 1 values" in found.argument


def test_a_buffer_that_holds_nan_is_named_and_one_that_is_negative_too():
    def make(value: float) -> cnnlab.Run:
        network = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)).eval()
        network[1].running_var.fill_(value)
        network.train = lambda mode=True: network  # stays as it is
        return cnnlab.Run(network=network, data=(torch.ones(2, 1), torch.ones(2, 1)), cost=total, device="cpu")

    run = make(math.nan)
    run.advance(1)
    found = find_origin(run).first
    assert (found.phase, found.layer, found.argument) == (
        "buffer",
        "1.running_var",
        "buffer 1.running_var: NaN in 1 of 1 values",
    )
    run = make(-1.0)
    run.advance(1)
    found = find_origin(run).first
    assert (found.phase, found.layer, found.operation) == ("activation", "1", "root of a negative number")
    assert found.argument == "the root of a negative number in batch_norm: running_var is -1"


def test_a_backward_that_is_the_user_s_own_is_named_with_its_line():
    run = run_of([0.0], 1.0, "float32", lambda outputs, _: SlopeByHand.apply(outputs).sum())
    run.advance(1)
    found = find_origin(run).first
    assert (found.phase, found.operation, found.function) == ("gradient", "x/0", "SlopeByHand")
    assert "return slope / (2 * h.abs().sqrt())" in found.source
    assert "within" not in found.argument


def test_what_stands_after_a_layer_is_named_in_words():
    small = {"channels": 8, "hidden": (32, 32), "learning_rate": 1e3, "device": "cpu"}
    run = cnnlab.Run("question", normalization="layer", normalization_place="after", **small)
    run.advance(12, until="nonfinite")
    assert " of the normalisation of " in find_origin(run).first.value_name
    assert name_place("hid1_gelu") == "the GELU of hid1"
    assert name_place("cv12_leaky_relu") == "the leaky ReLU of cv12"
    assert [name_place(name) for name in ("cv0", "block_norm", "encoder.cv0_norm", "")] == [
        "cv0", "block_norm", "encoder.cv0_norm", "",
    ]  # fmt: skip


def test_a_batch_norm_is_not_taken_for_what_it_writes_into_its_running_statistics():
    small = {"channels": 8, "hidden": (32, 32), "precision": "float16", "device": "cpu"}
    run = cnnlab.Run("question", normalization="batch", learning_rate=1e4, **small)
    run.advance(2)
    origin = find_origin(run)
    assert (origin.first.phase, origin.first.layer, origin.first.operation) == ("activation", "cv0", "overflow")
    assert (origin.nan.phase, origin.nan.layer, origin.nan.function) == ("activation", "cv0_norm", "batch_norm")
