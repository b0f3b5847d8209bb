"""Which operation of torch makes a NaN or inf, and how: a table of operations, each with the rules that may apply."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

OPERATIONS = (
    "given", "cast", "overflow", "exp overflow", "log(0)", "log of a negative number", "root of a negative number",
    "0/0", "x/0", "inf/inf", "inf-inf", "inf*0", "undefined",
)  # fmt: skip
"""What makes a NaN or inf.

`given`: it was in the data, in a buffer, a constant or the weights before anything was computed. `overflow`: the
type is too short for the result. `undefined`: there is no finite result, and no other name fits.
"""
UNDEFINED_KINDS = frozenset(OPERATIONS) - {"given", "cast", "overflow", "exp overflow"}
"""Those that have no finite result in any floating-point type."""
HUGE = 1e18
"""Inputs above this overflow by themselves; a NaN or inf out of smaller ones needs another reason."""
DOMAINS = {
    **dict.fromkeys(("acos", "asin"), "on [-1, 1]"),
    **dict.fromkeys(("log", "log2", "log10", "rsqrt"), "above 0"),
    **dict.fromkeys(("lgamma", "digamma", "polygamma", "mvlgamma"), "outside 0, -1, -2, .."),
    "acosh": "from 1 on",
    "atanh": "within (-1, 1)",
    "erfinv": "within (-1, 1)",
    "log1p": "above -1",
    "logit": "within (0, 1)",
    **dict.fromkeys(("special_ndtri", "ndtri"), "within (0, 1)"),
    "sqrt": "from 0 on",
}
"""Operation -> where it has a finite value."""
ARITHMETIC = frozenset({
    "mul", "add", "sub", "rsub", "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "vdot", "convolution", "sum",
    "cumsum", "linear", "matmul", "addcmul", "square", "neg", "abs", "prod", "cumprod",
})  # fmt: skip
"""Operations that are defined for all numbers, so that they can do no more than overflow."""


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
    reached: float = float("nan")
    """Largest magnitude of the result in float64; NaN if it has none, or is not known."""

    @property
    def largest(self) -> float:
        """Largest finite magnitude that goes in."""
        finite = [part[part.isfinite()] for part in self.inputs]
        return max((float(part.abs().max()) for part in finite if part.numel()), default=0.0)


Rule = Callable[[Call], str]
"""Tells one of OPERATIONS by a call; '' where the rule does not apply."""


def name_operation(call: Call) -> str:
    """What kind of operation made the values of a result that are not finite: one of OPERATIONS."""
    rules = [(RULES_WITH_INF if call.inf_in else RULES_WITHOUT_INF).get(call.name), RULES.get(call.name)]
    said = (rule(call) for rule in rules if rule is not None)
    return next(filter(None, said), "inf-inf" if call.inf_in else name_rest(call))


def name_rest(call: Call) -> str:
    """Overflow if a longer type would hold the result, or if the inputs are huge; undefined otherwise."""
    wide = call.result.dtype == torch.float64
    holds = math.isfinite(call.reached) and not wide
    huge = call.largest > (HUGE**5 if wide else HUGE) and call.name not in DOMAINS
    return "overflow" if call.name in ARITHMETIC or holds or huge else "undefined"


def make_rule(operation: str) -> Rule:
    """The rule of an operation that can fail in one way alone."""
    return lambda _: operation


def name_logarithm(call: Call) -> str:
    """By what the log was taken of."""
    return "log(0)" if bool(call.result.isinf().any()) else "log of a negative number"


def name_root(call: Call) -> str:
    """A root that gives NaN, and no inf, out of numbers."""
    return "" if bool(call.result.isinf().any()) else "root of a negative number"


def name_division(call: Call) -> str:
    """Which quotient it was, at the first bad place."""
    result = call.result
    above, below = (call.inputs[0], call.arguments[1]) if call.name == "div" else (1.0, call.inputs[0])
    bad = result.isnan() if bool(result.isnan().any()) else result.isinf()
    over, under = (torch.as_tensor(part, device=result.device).expand(result.shape)[bad][0] for part in (above, below))
    if under == 0:
        return "0/0" if over == 0 else "x/0"
    return "inf/inf" if over.isinf() and under.isinf() else "overflow"


def name_power(call: Call) -> str:
    """A negative power of 0, a root of a negative number, or a power that is too large."""
    base, exponent = (torch.as_tensor(part) for part in call.arguments[:2])
    if bool(((base == 0) & (exponent < 0)).any()):
        return "x/0"
    if bool((call.result.isnan() & (base < 0)).any()):
        return "root of a negative number"
    return "overflow" if bool((call.result.isinf() & (base.abs() > 1)).any()) else ""


def name_deviation(call: Call) -> str:
    """Over no more values than its correction takes off; it is finite for all others."""
    return "0/0" if bool(call.result.isnan().any()) and call.largest < HUGE else ""


def name_norm(call: Call) -> str:
    """A batch norm by a running variance that is below 0."""
    return "root of a negative number" if find_negative_variance(call) is not None else ""


def find_negative_variance(call: Call) -> float | None:
    """The running variance of a batch norm at which no root exists; None if there is none."""
    named = zip(call.function._schema.arguments, call.arguments, strict=False)
    given = next((part for argument, part in named if argument.name in ("running_var", "var")), None)
    return float(given.min()) if isinstance(given, Tensor) and given.numel() and bool((given < 0).any()) else None


def name_mean(call: Call) -> str:
    """A mean over nothing, which is NaN."""
    return "0/0" if bool(call.result.isnan().any()) else ""


def name_sum_of_products(call: Call) -> str:
    """inf*0 if magnitudes alone give a NaN, for then no two infinities can have cancelled."""
    magnitudes = call.function(*change_tensors(call.arguments, Tensor.abs), **call.keywords)
    return "inf*0" if holds_anywhere(torch.isnan, find_tensors(magnitudes)) else ""


def name_softmax_gradient(call: Call) -> str:
    """inf*0 if the products in p * (g - sum(g * p)), or in g - p * sum(g), are NaN before anything is subtracted."""
    gradient, output = call.inputs[:2]
    of_logarithm = call.name == "_log_softmax_backward_data"
    products = output.exp() * gradient.sum(-1, keepdim=True) if of_logarithm else gradient * output
    return "inf*0" if bool(products.isnan().any()) else ""


RULES: dict[str, Rule] = {
    **dict.fromkeys(("_to_copy", "to", "copy"), make_rule("cast")),
    **dict.fromkeys(("exp", "exp2", "expm1", "sinh", "cosh"), make_rule("exp overflow")),
    **dict.fromkeys(("log", "log2", "log10", "log1p"), name_logarithm),
    **dict.fromkeys(("div", "reciprocal", "true_divide", "rsqrt"), name_division),
}
"""Operation of torch -> the rule that tells how it failed; one without a rule has overflowed, or taken inf from inf."""
RULES_WITHOUT_INF: dict[str, Rule] = {
    **dict.fromkeys(("sqrt", "rsqrt"), name_root),
    "pow": name_power,
    **dict.fromkeys(("std", "var", "std_mean", "var_mean"), name_deviation),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit_no_training", "batch_norm", "_batch_norm_no_update"), name_norm
    ),
    **dict.fromkeys(("fmod", "remainder"), make_rule("x/0")),
    **dict.fromkeys(("nll_loss_forward", "nll_loss2d_forward", "mean"), name_mean),
    # A cost that is inf where no alignment is possible, whose probability is 0.
    **dict.fromkeys(("_ctc_loss", "_cudnn_ctc_loss"), make_rule("log(0)")),
}
"""The same for inputs that are all finite; what these rules do not tell is left to RULES."""
RULES_WITH_INF: dict[str, Rule] = {
    "logsumexp": make_rule("log(0)"),
    **dict.fromkeys(("mul", "addcmul"), make_rule("inf*0")),
    **dict.fromkeys(("_softmax_backward_data", "_log_softmax_backward_data"), name_softmax_gradient),
    **dict.fromkeys(
        ("mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "dot", "convolution", "convolution_backward", "linear",
         "matmul", "mkldnn_convolution", "einsum"), name_sum_of_products,
    ),
}  # fmt: skip
"""The same where an input holds inf."""


def compute_true_size(function: Any, arguments: Any, keywords: dict[str, Any]) -> float:
    """The largest magnitude of the same operation in float64; NaN where it does not run in it."""
    others = {name: value for name, value in keywords.items() if name != "dtype"}
    try:
        result = function(*change_tensors(arguments, Tensor.double), **others)
    except (RuntimeError, TypeError):
        return float("nan")
    values = [part.abs().max() for part in find_tensors(result) if part.numel()]
    return float(max(values)) if values and all(part == part for part in values) else float("nan")


def find_tensors(value: Any) -> list[Tensor]:
    """The floating-point and complex tensors in nested tuples, lists and dictionaries."""
    parts = (part for part in tree_leaves(value) if isinstance(part, Tensor))
    return [part for part in parts if part.is_floating_point() or part.is_complex()]


def change_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Nested arguments with every floating-point tensor changed."""
    return tree_map_only(Tensor, lambda part: change(part) if part.is_floating_point() else part, value)


def holds_anywhere(test: Callable[[Tensor], Tensor], tensors: list[Tensor]) -> bool:
    """Whether a test holds for a number of any of the tensors."""
    return any(bool(test(part).any()) for part in tensors)


def holds_nonfinite(value: Any) -> bool:
    """Whether a number, or a number of a tensor, is NaN or inf."""
    if isinstance(value, Tensor):
        return (value.is_floating_point() or value.is_complex()) and not bool(value.detach().isfinite().all())
    return isinstance(value, float) and not math.isfinite(value)


def passes_number(test: Callable[[float], bool], value: Any) -> bool:
    """Whether a plain number that is NaN, or inf, was passed."""
    return any(isinstance(part, float) and test(part) for part in tree_leaves(value))
