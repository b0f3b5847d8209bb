"""Which operation of torch makes a NaN or inf, and how: a table of operations, each with the rules that may apply."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

OPERATIONS = (
    "given", "cast", "overflow", "exp overflow", "log(0)", "log of a negative number", "root of a negative number",
    "0/0", "x/0", "inf/inf", "inf-inf", "inf*0",
)  # fmt: skip
"""What makes a NaN or inf. `given`: it was in the data or in the weights before the first update."""


@dataclass(frozen=True)
class Call:
    """One call of an operation that made a NaN or inf."""

    function: Any
    """Torch's overload of the operation."""
    name: str
    """Its name, without the underscore of one that works in place."""
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    inputs: list[Tensor]
    """Its floating-point inputs as they were before."""
    result: Tensor
    """The first result that is not finite."""
    inf_in: bool
    """Whether an input holds inf; none holds NaN."""


Rule = Callable[[Call], str]
"""Tells one of OPERATIONS by a call; '' where the rule does not apply."""


def name_operation(call: Call) -> str:
    """What kind of operation made the values of a result that are not finite: one of OPERATIONS."""
    said = (rule(call) for rule in RULES.get(call.name, ()))
    return next(filter(None, said), "inf-inf" if call.inf_in else "overflow")


def make_rule(operation: str) -> Rule:
    """The rule of an operation that can fail in one way alone."""
    return lambda _: operation


def name_logarithm(call: Call) -> str:
    """By what the log was taken of."""
    return "log(0)" if bool(call.result.isneginf().any()) else "log of a negative number"


def name_root(call: Call) -> str:
    """A root that gives NaN, and no inf, out of numbers."""
    return "" if call.inf_in or bool(call.result.isinf().any()) else "root of a negative number"


def name_division(call: Call) -> str:
    """Which quotient it was, at the first bad place."""
    result = call.result
    above, below = (call.inputs[0], call.arguments[1]) if call.name == "div" else (1.0, call.inputs[0])
    bad = result.isnan() if bool(result.isnan().any()) else result.isinf()
    over, under = (torch.as_tensor(part, device=result.device).expand(result.shape)[bad][0] for part in (above, below))
    if under == 0:
        return "0/0" if over == 0 else "x/0"
    return "inf/inf" if over.isinf() and under.isinf() else "overflow"


def name_mean(call: Call) -> str:
    """A NaN out of numbers, where nothing is averaged over."""
    return "0/0" if not call.inf_in and bool(call.result.isnan().any()) else ""


def name_alignment(call: Call) -> str:
    """A cost that is inf where no alignment is possible, whose probability is 0."""
    return "" if call.inf_in else "log(0)"


def name_product(call: Call) -> str:
    """A product that is NaN where one factor is inf, so the other is 0."""
    return "inf*0" if call.inf_in else ""


def name_sum_of_products(call: Call) -> str:
    """inf*0 if magnitudes alone give a NaN, for then no two infinities can have cancelled."""
    if not call.inf_in:
        return ""
    magnitudes = call.function(*change_tensors(call.arguments, Tensor.abs), **call.keywords)
    parts = [part for part in find_tensors(magnitudes) if part.is_floating_point()]
    return "inf*0" if holds_anywhere(torch.isnan, parts) else ""


def name_softmax_gradient(call: Call) -> str:
    """inf*0 if the products in p * (g - sum(g * p)), or in g - p * sum(g), are NaN before anything is subtracted."""
    if not call.inf_in:
        return ""
    gradient, output = call.inputs[:2]
    of_logarithm = call.name == "_log_softmax_backward_data"
    products = output.exp() * gradient.sum(-1, keepdim=True) if of_logarithm else gradient * output
    return "inf*0" if bool(products.isnan().any()) else ""


RULES: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys(("_to_copy", "to", "copy"), (make_rule("cast"),)),
    **dict.fromkeys(("exp", "exp2", "expm1", "sinh", "cosh"), (make_rule("exp overflow"),)),
    **dict.fromkeys(("log", "log2", "log10", "log1p"), (name_logarithm,)),
    **dict.fromkeys(("sqrt", "pow"), (name_root,)),
    **dict.fromkeys(("div", "reciprocal", "true_divide"), (name_division,)),
    "rsqrt": (name_root, name_division),
    **dict.fromkeys(("nll_loss_forward", "nll_loss2d_forward", "mean"), (name_mean,)),
    **dict.fromkeys(("_ctc_loss", "_cudnn_ctc_loss"), (name_alignment,)),
    **dict.fromkeys(("mul", "addcmul"), (name_product,)),
    **dict.fromkeys(("_softmax_backward_data", "_log_softmax_backward_data"), (name_softmax_gradient,)),
    **dict.fromkeys(
        ("mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "dot", "convolution", "convolution_backward", "linear",
         "matmul", "mkldnn_convolution", "einsum"), (name_sum_of_products,)
    ),
}  # fmt: skip
"""Operation of torch -> the rules that may apply, the first that does tells; else it is an overflow, or inf - inf."""


def compute_true_size(function: Any, arguments: Any, keywords: dict[str, Any]) -> float:
    """The largest magnitude of the same operation in float64; NaN where it does not run in it."""
    others = {name: value for name, value in keywords.items() if name != "dtype"}
    try:
        result = function(*change_tensors(arguments, Tensor.double), **others)
    except (RuntimeError, TypeError):
        return float("nan")
    values = [part.abs().max() for part in find_tensors(result) if part.is_floating_point() and part.numel()]
    return float(max(values)) if values and all(part == part for part in values) else float("nan")


def find_tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from find_tensors(part)


def change_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Nested arguments with every floating-point tensor changed."""
    if isinstance(value, Tensor):
        return change(value) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(change_tensors(part, change) for part in value)
    return value


def holds_anywhere(test: Callable[[Tensor], Tensor], tensors: list[Tensor]) -> bool:
    """Whether a test holds for a number of any of the tensors."""
    return any(bool(test(part).any()) for part in tensors)
