"""What the tracer says of every edge case of torch's OpInfo list: is the operation named, and is its cause true?

python tests/diagnosis/opinfo_traced.py [WORD ...]

Of each case with finite numbers alone the first event is taken. It names the operation if its function or its argument
holds the name that OpInfo gives it, or the part of torch that it is made of. It is wrong if it calls overflow what
float64 does not hold either, at inputs of ordinary size; or undefined what float64 holds; or says that it came in.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from opinfo import BACKWARD, EdgeCase, collect, list_operations
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from cnnlab.diagnosis.events import Event, Origin
from cnnlab.diagnosis.operation_tracer import OperationTracer
from cnnlab.diagnosis.operations import HUGE, UNDEFINED_KINDS

LEFT_OUT = {"_segment_reduce"}
"""torch itself writes beyond its memory at one of the edges."""
SAME = {"rdiv": "div", "rmul": "mul", "rpow": "pow", "rmatmul": "matmul", "rmod": "remainder", "svdlowrank": "svd",
        "pcalowrank": "svd"}  # fmt: skip
"""Operations that are others under another name, or made of one."""


def trace(case: EdgeCase) -> Origin | None:
    """The origin of the first NaN or inf of a case."""
    tracer = OperationTracer(1, nn.Identity(), (), trace.__code__)
    leaves = [part.detach().clone().requires_grad_() for part in case.tensors]
    with tracer.trace():
        tracer.begin_cost()
        results = [part for part in tree_leaves(case.call(*leaves)) if isinstance(part, Tensor)]
        results = [part for part in results if part.is_floating_point() or part.is_complex()]
        given = take_gradients(results, leaves) if case.phase == BACKWARD else []
    return tracer.find_origin([*(part.detach() for part in results), *given])


def take_gradients(results: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """The gradients of the sum of all results."""
    sums = [torch.view_as_real(part.resolve_conj()).sum() if part.is_complex() else part.sum()
            for part in results if part.requires_grad and part.numel()]  # fmt: skip
    found = torch.autograd.grad(torch.stack([each.double() for each in sums]).sum(), leaves, allow_unused=True)
    return [part for part in found if part is not None]


def strip(name: str) -> str:
    """A name without underscores and numbers of axes."""
    return re.sub(r"_|\dd(?=\b)", "", name.lower())


def is_named(case: EdgeCase, event: Event) -> bool:
    """Whether an event names the operation."""
    said = strip(f"{event.function} {event.argument}")
    parts = [strip(part) for part in case.operation.split(".")]
    return any(SAME.get(part, part) in said for part in parts if part not in ("nn", "functional", "linalg", "special"))


def is_wrong(event: Event | None) -> bool:
    """Whether the cause is not the true one."""
    if event is None or event.operation == "given":
        return True
    if event.operation in UNDEFINED_KINDS:
        return math.isfinite(event.reached) and event.operation == "undefined"
    return not math.isfinite(event.reached) and event.largest < HUGE and event.phase != "gradient"


def ask_all(words: list[str]) -> Iterator[tuple[EdgeCase, Event | None]]:
    """Each case and its first event."""
    for info in list_operations():
        if info.name not in LEFT_OUT and (not words or info.name in words):
            for case in collect(info):
                if case.is_finite:
                    found: Any = trace(case)
                    yield case, None if found is None else found.first


def main() -> None:
    """Print the cases that are not named or wrong, and how many there are."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    count = named = wrong = 0
    for case, event in ask_all(sys.argv[1:]):
        good, bad = event is not None and is_named(case, event), is_wrong(event)
        count, named, wrong = count + 1, named + good, wrong + bad
        if bad or not good:
            said = "nothing" if event is None else f"{event.operation} | {event.function} | {event.argument}"
            print(f"{'wrong' if bad else 'not named'}: {case.operation} | {case.edge} | {case.phase} | {said}")
    print(f"{named} of {count} cases named, {wrong} wrong")


if __name__ == "__main__":
    main()
