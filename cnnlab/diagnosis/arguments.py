"""What an operation was asked for where it made a NaN or inf, in words: "acos of 2, which is defined on [-1, 1]"."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from cnnlab.diagnosis.operations import DOMAINS, Call, find_negative_variance
from cnnlab.records.formats import format_number

QUOTIENTS = {"div": "/", "true_divide": "/", "fmod": "by", "remainder": "by", "pow": "to the power of", "atan2": "and"}
"""Operations of two numbers -> the word between these."""
PLAIN = {"linalg_vector_norm": "norm", "native_batch_norm": "batch_norm", "native_layer_norm": "layer_norm",
         "native_group_norm": "group_norm",
         "_native_batch_norm_legit": "batch_norm", "_native_batch_norm_legit_no_training": "batch_norm"}  # fmt: skip
"""Operations whose own name nobody writes."""


def describe_argument(call: Call, name: str) -> str:
    """What a call of an operation of this name was asked for, at the first bad place of its result."""
    with contextlib.suppress(RuntimeError, TypeError, ValueError, IndexError):
        return find_words(call, name)
    return ""


def find_words(call: Call, name: str) -> str:
    """The same, or an error where the arguments have an unusual form."""
    counted = describe_count(call, name)
    if counted:
        return counted
    variance = find_negative_variance(call) if "norm" in name else None
    if variance is not None:
        return f"the root of a negative number in {name}: running_var is {format_number(variance)}"
    values = [read_number(part, call.result) for part in call.arguments[:2]]
    first = values[0] if values else None
    if name in QUOTIENTS and len(values) == 2 and None not in values:
        return f"{name}: {write(first)} {QUOTIENTS[name]} {write(values[1])}"
    if name == "reciprocal" and first is not None:
        return f"reciprocal: 1 / {write(first)}"
    if first is None:
        return ""
    if "softmax" in name and call.inf_in:
        above = any(bool((part == math.inf).any()) for part in call.inputs)
        return f"{name} over inf" if above else f"{name} over -inf alone"
    domain = f", which is defined {DOMAINS[name]}" if name in DOMAINS else ""
    return f"{name} of {write(first)}{domain}"


def describe_count(call: Call, name: str) -> str:
    """What a mean or a deviation over too few values was asked for."""
    given = call.inputs[0] if call.inputs else None
    if given is None or not call.result.numel():
        return ""
    each = given.numel() // call.result.numel()
    if name == "mean" and each == 0:
        return "mean of no values"
    if name in ("std", "var", "std_mean", "var_mean") and each <= 1:
        return f"{name.partition('_')[0]} of {'one value' if each else 'no values'}, which divides by 0"
    if name == "logsumexp":
        return "logsumexp over -inf alone"
    if name.endswith("ctc_loss"):
        return f"{name} of a target that is too long for its input: no alignment is possible"
    if name in ("nll_loss_forward", "nll_loss2d_forward"):
        return "nll_loss of no labels: all are ignored"
    return ""


def read_number(value: Any, result: Tensor) -> float | None:
    """An argument's number at the first bad place of a result; None where it has none there."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    if not isinstance(value, Tensor) or not value.numel() or value.is_complex():
        return None
    if value.numel() == 1:
        return float(value.reshape(()))
    bad = find_bad(result)
    return float(value.expand(result.shape)[bad].reshape(-1)[0]) if bool(bad.any()) else None


def find_bad(result: Tensor) -> Tensor:
    """Where a result is NaN; where it is inf, if it is NaN nowhere."""
    bad = result.isnan()
    return bad if bool(bad.any()) else ~result.isfinite()


def write(value: float | None) -> str:
    """A number as it is written in a sentence."""
    assert value is not None
    return f"{value:g}" if abs(value) < 1e5 and value == round(value, 3) else format_number(value)


def add_whole(said: str, function: str, whole: str) -> str:
    """What an operation was asked for, and the function of torch that it is a part of, where that has another name."""
    if whole in ("", function) or function.startswith(f"{whole}_"):
        return said
    return f"{said or function}, within {whole}"


def name_function(call: Call) -> str:
    """The name of torch's operation, as it is known to users."""
    name = str(call.function.overloadpacket.__name__)
    return name.strip("_") if call.name not in PLAIN else PLAIN[call.name]


# -- slopes


def describe_slope(node: Any, result: Tensor) -> str:
    """What the slope of an operation was asked for, from what its node of the graph has kept: "acos at 1"."""
    name = name_node(node)
    kept = [(each, read_saved(node, each)) for each in dir(node) if each.startswith("_saved_")]
    held = {each.removeprefix("_saved_"): value for each, value in kept}
    at = next((held[each] for each in ("self", "input", "result", "other") if isinstance(held.get(each), Tensor)), None)
    value = None if at is None else find_edge(name, at, held)
    if value is None:
        return f"the slope of {name}"
    exponent = held.get("exponent")
    more = f", to the power of {write(read_number(exponent, result))}" if isinstance(exponent, (int, float)) else ""
    where = "where its value is" if "self" not in held and "input" not in held else "at"
    return f"the slope of {name} {where} {write(value)}{more}"


def find_edge(name: str, at: Tensor, held: dict[str, Any]) -> float | None:
    """The number at which the slope of an operation is not finite, among those that its node has kept."""
    if at.is_complex() or not at.numel():
        return None
    edges = [1.0, -1.0] if name in ("acos", "asin", "atanh", "acosh", "erfinv") else [0.0]
    for value in (held["other"], at) if name == "div" and isinstance(held.get("other"), Tensor) else (at,):
        for edge in edges:
            if bool((value == edge).any()):
                return edge
    return None


def name_node(node: Any) -> str:
    """The forward operation of a node of autograd's graph: `acos` of an AcosBackward0; its class if written by hand."""
    if isinstance(node, BackwardCFunction):
        return type(node).__name__.removesuffix("Backward")
    name = node.name().partition("Backward")[0].removeprefix("torch::autograd::")
    words = "".join(f"_{each.lower()}" if each.isupper() else each for each in name).strip("_")
    return words.removeprefix("linalg_") if words.startswith("linalg_vector") else words


def read_saved(node: Any, name: str) -> Any:
    """What a node has kept under a name; None if it is gone."""
    try:
        return getattr(node, name)
    except (RuntimeError, AttributeError):
        return None


# -- what came in


def describe_given(tensor: Tensor, name: str) -> str:
    """How much of what came in is not finite, and where first."""
    bad = ~tensor.isfinite()
    kind = "NaN" if bool(tensor.isnan().any()) else "inf"
    count = f"{kind} in {int(bad.sum())} of {tensor.numel()} values"
    first = f", first in example {int(bad.nonzero()[0][0])}" if tensor.dim() and len(tensor) > 1 else ""
    return f"{name}: {count}{first}" if name else f"{count}{first}"
