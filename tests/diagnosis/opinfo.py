"""Edge values through every differentiable operation of torch's OpInfo list: which give NaN or inf, and where.

python tests/diagnosis/opinfo.py [WORD ...]

Of each operation the smallest sample input is taken, and the smallest that has rows; one floating-point tensor of them
at a time is filled with an edge value, or has one such element, or equal rows, or one row. What is collected are the
cases, not what is right. torch's list changes flags of torch and the profile of hypothesis when it is imported: use it
in a process of its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import sys
import time
import types
import unittest
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from time_limit import limit_time
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

VALUES = {"0": 0.0, "-0": -0.0, "-1": -1.0, "1": 1.0, "inf": float("inf"), "89": 89.0, "1e38": 1e38}
"""What a tensor is filled with; all but inf are finite."""
SAMPLES, TENSORS, SECONDS = 40, 3, 10
"""Sample inputs that are looked through, tensors of one that are changed, and seconds that an operation may take."""
FORWARD, BACKWARD = "forward", "backward"
REFUSALS = (RuntimeError, ValueError, IndexError, TypeError, AssertionError)
"""What an operation may raise at an edge."""


@dataclass(frozen=True)
class EdgeCase:
    """One operation at one edge, which gives NaN or inf."""

    operation: str
    edge: str
    """How the tensor was changed, such as "all 0", "one -1" or "equal rows"."""
    tensor: int
    """Which of the floating-point tensors of the call was changed."""
    phase: str
    """Where the first NaN or inf is: in the result, or in a gradient of a finite result."""
    call: Callable[..., Any]
    """Takes the floating-point tensors, and does the operation."""
    tensors: tuple[Tensor, ...]
    """The floating-point tensors of the call, changed."""

    @property
    def is_finite(self) -> bool:
        """Whether all that goes in is finite."""
        return all(bool(part.isfinite().all()) for part in self.tensors)


def list_operations() -> list[Any]:
    """The OpInfos that are differentiable in float32 on the CPU."""
    # Of expecttest torch uses nothing here but a base class.
    if "expecttest" not in sys.modules and importlib.util.find_spec("expecttest") is None:
        sys.modules["expecttest"] = types.ModuleType("expecttest")
        sys.modules["expecttest"].TestCase = unittest.TestCase  # type: ignore[attr-defined]
    from torch.testing._internal.common_methods_invocations import op_db

    return [one for one in op_db if one.supports_autograd and one.supports_dtype(torch.float32, "cpu")]


def name_operation(info: Any) -> str:
    """Its name, with that of its variant."""
    return f"{info.name}.{info.variant_test_name}" if info.variant_test_name else info.name


def take_samples(info: Any) -> list[Any]:
    """The smallest sample input that holds a number, and the smallest that has rows."""
    torch.manual_seed(0)
    found = list(itertools.islice(info.sample_inputs("cpu", torch.float32, requires_grad=True), SAMPLES))
    found = [each for each in found if any(part.numel() for part in list_floats(each))]
    found.sort(key=lambda each: sum(part.numel() for part in list_floats(each)))
    rows = [each for each in found if any(part.dim() > 1 and len(part) > 1 for part in list_floats(each))]
    return [*found[:1], *(each for each in rows[:1] if each is not found[0])]


def list_floats(sample: Any) -> list[Tensor]:
    """The floating-point tensors of a sample, in order."""
    leaves = tree_leaves((sample.input, sample.args, sample.kwargs))
    return [part.detach() for part in leaves if is_float(part)]


def is_float(part: Any) -> bool:
    """Whether it is a dense floating-point tensor."""
    return isinstance(part, Tensor) and part.is_floating_point() and part.layout == torch.strided


def make_call(info: Any, sample: Any) -> Callable[..., Any]:
    """The operation as a function of the floating-point tensors of a sample."""
    leaves, form = tree_flatten((sample.input, sample.args, sample.kwargs))
    places = [at for at, part in enumerate(leaves) if is_float(part)]

    def call(*tensors: Tensor) -> Any:
        filled = list(leaves)
        for at, tensor in zip(places, tensors, strict=True):
            filled[at] = tensor
        first, args, kwargs = tree_unflatten(filled, form)
        return sample.output_process_fn_grad(info.op(first, *args, **kwargs))

    return call


def change(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Each edge of a tensor, by name."""
    for name, value in VALUES.items():
        yield f"all {name}", torch.full_like(tensor, value)
        if tensor.numel() > 1:
            one = tensor.clone(memory_format=torch.contiguous_format)
            one.view(-1)[0] = value
            yield f"one {name}", one
    if tensor.dim() > 1 and len(tensor) > 1:
        yield "equal rows", tensor[:1].expand_as(tensor).clone()
        yield "one row", tensor[:1].clone()


def find_phase(call: Callable[..., Any], tensors: Iterable[Tensor]) -> str | None:
    """Where a call first gives NaN or inf; None if nowhere."""
    leaves = [part.detach().clone().requires_grad_() for part in tensors]
    results = [part for part in tree_leaves(call(*leaves)) if isinstance(part, Tensor)]
    results = [part for part in results if part.is_floating_point() or part.is_complex()]
    if any(not bool(part.isfinite().all()) for part in results):
        return FORWARD
    sums = [torch.view_as_real(part.resolve_conj()).sum() if part.is_complex() else part.sum()
            for part in results if part.requires_grad and part.numel()]  # fmt: skip
    if not sums:
        return None
    given = torch.autograd.grad(torch.stack([each.double() for each in sums]).sum(), leaves, allow_unused=True)
    return BACKWARD if any(each is not None and not bool(each.isfinite().all()) for each in given) else None


def collect(info: Any) -> Iterator[EdgeCase]:
    """The edge cases of one operation; an edge that the operation refuses is none."""
    for sample in take_samples(info):
        tensors, call = list_floats(sample), make_call(info, sample)
        for at in range(min(len(tensors), TENSORS)):
            for edge, changed in change(tensors[at]):
                filled = (*tensors[:at], changed, *tensors[at + 1 :])
                with contextlib.suppress(*REFUSALS):
                    phase = find_phase(call, filled)
                    if phase is not None:
                        yield EdgeCase(name_operation(info), edge, at, phase, call, filled)


def main() -> None:
    """Print how many there are, by operation."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    start, slow, refused = time.process_time(), [], []
    cases: list[EdgeCase] = []
    operations = [one for one in list_operations() if not sys.argv[1:] or one.name in sys.argv[1:]]
    for info in operations:
        try:
            with limit_time(SECONDS):
                cases += collect(info)
        except TimeoutError:
            slow.append(name_operation(info))
        except Exception as error:  # samples that cannot be made here
            refused.append(f"{name_operation(info)} ({type(error).__name__})")
    finite = [case for case in cases if case.is_finite]
    for name, count in Counter((case.operation, case.phase) for case in finite).items():
        edges = sorted({case.edge for case in finite if (case.operation, case.phase) == name})
        print(f"{name[0]}: {name[1]} {count}: {', '.join(edges)}")
    tried = len(operations) - len(slow) - len(refused)
    print(f"{tried} of {len(operations)} operations tried in {time.process_time() - start:.0f} s of processor time")
    for phase in (FORWARD, BACKWARD):
        of_phase = [case for case in finite if case.phase == phase]
        print(f"finite in, first not finite {phase}: {len(of_phase)} cases of {len({c.operation for c in of_phase})}")
    print(f"inf in: {len(cases) - len(finite)} cases; slow: {slow}; refused: {refused}")


if __name__ == "__main__":
    main()
