"""How sharply the cost curves: the largest eigenvalue of its Hessian, and the learning rate that this allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from cnnlab.config.errors import check_whole_number
from cnnlab.config.settings import quote
from cnnlab.training.datasets import mapped
from cnnlab.training.determinism import use_one_thread
from cnnlab.training.losses import penalty
from cnnlab.training.step import KnobTensors, arguments, scalar

if TYPE_CHECKING:
    from cnnlab.training.run import Run

T = TypeVar("T")

TOLERANCE = 1e-3
"""The residual of an eigenvector, as a share of its eigenvalue, at which the search ends.

The error of the eigenvalue is smaller, of the order of the square of it. Where the start holds hardly anything of the
largest eigenvalue's vector, a search may end at the next eigenvalue: of 3,939 random matrices 2 do so, and 30 at a
tolerance of 0.01, which saves one product in seven.
"""
MOST = 100
"""Most products of the Hessian with a vector, unless told otherwise."""
LEAST = 4
"""Fewest of them: a start near an eigenvector that is no longer the largest must not be taken for the answer."""
FRESH = 0.2
"""Length of the chance part that is added to a warm start of length 1."""
ROUNDING = 1e-6
"""What is so small a share of the largest number met is taken for the rounding of float32."""
KEPT_BYTES = 256 * 2**20
"""Most memory for Lanczos vectors; where it is full, the search starts again from the best vector so far."""
OF = ("all", "batch")
"""What the cost is taken over: all training examples, or the batch of the next update."""


@dataclass(frozen=True, eq=False)
class Critical:
    """The learning rate above which gradient descent swings wider and wider, at the present weights."""

    value: float
    """2 (1 + momentum) / eigenvalue; inf where the cost curves upwards nowhere, NaN if the Hessian is not finite."""
    eigenvalue: float
    """The largest (not the largest in magnitude) of the Hessian; NaN if that is not finite."""
    momentum: float
    """The momentum that the value counts on."""
    iterations: int
    """Products of the Hessian with a vector that it took."""
    converged: bool
    """Whether the eigenvalue is right to about 1 %; if not, it is a lower bound of the true one."""
    of: str
    """"all": of the cost over all training examples; "batch": over the batch of the next update alone."""
    examples: int
    """How many examples that cost is over."""
    batch: int
    """How many examples an update takes."""
    step: int
    """Updates done when it was measured."""
    vector: Tensor | None = None
    """The eigenvector, of the length of all parameters: where the next search had best begin."""

    @property
    def finite(self) -> bool:
        """Whether the Hessian is finite."""
        return not math.isnan(self.eigenvalue)

    def __str__(self) -> str:
        if not self.finite:
            return f"the Hessian is not finite after update {self.step}: no learning rate is safe any more"
        over = f"of the cost over {'all ' if self.of == 'all' else 'the next batch of '}{self.examples} examples"
        if math.isinf(self.value):
            return (
                f"no critical learning rate: the cost curves upwards nowhere (largest eigenvalue {self.eigenvalue:.4g})"
            )
        rule = "2/eigenvalue" if self.momentum == 0 else f"2(1 + {self.momentum:g})/eigenvalue"
        least = "" if self.converged else "at least "
        said = f"critical learning rate {self.value:.4g} = {rule}, eigenvalue {least}{self.eigenvalue:.5g} {over}"
        if self.of == "all" and self.batch < self.examples:
            said += f"; an update takes {self.batch}, whose own cost may curve more sharply"
        return said

    def __repr__(self) -> str:
        return f"Critical({self})"


def critical_learning_rate(
    run: Run, *, of: str = "all", start: Tensor | None = None, tolerance: float = TOLERANCE, most: int = MOST
) -> Critical:
    """The critical learning rate of a run at its present weights: `.value`, and `.eigenvalue` of the Hessian.

    Gradient descent on a quadratic diverges above 2 over the largest eigenvalue of its Hessian, with momentum beta
    above 2 (1 + beta) over it (Polyak 1964); a network's cost is one in the neighbourhood of its weights. The cost is
    the one in force, L1 and L2 included; an L2 in the update counts as what it does to the step. Clipping is left out
    of account: it caps the step, whatever the curvature. `of`: "all" for the cost over all training examples, "batch"
    for that of the next update. `start` is an earlier answer's `.vector`, for a quicker search. The run is not changed.
    ValueError in a sentence if a layer has no second derivative. Half precision is measured in float32.
    """
    *_, found = search(run, of=of, start=start, tolerance=tolerance, most=most)
    assert isinstance(found, Critical)
    return found


def search(
    run: Run, *, of: str = "all", start: Tensor | None = None, tolerance: float = TOLERANCE, most: int = MOST
) -> Iterator[Critical | None]:
    """The same in pieces: None after each product of the Hessian with a vector, and the answer last.

    Whoever trains meanwhile gets the answer for the weights at which the search began.
    """
    if not hasattr(run, "knobs_in_force"):
        raise TypeError(f"run must be a Run, got {quote(run)}")
    if of not in OF:
        raise ValueError(f"of must be one of {', '.join(map(repr, OF))}, got {quote(of)}")
    most = check_whole_number("most", most, 1)
    x, y = run.problem.data if of == "all" else run.problem.batch(run.updates + 1)
    momentum, step = run.knobs_in_force.momentum, run.updates
    everything = len(run.problem.examples)
    batch = run.problem.batch_size or everything
    product, like = build_hessian_product(run, x, y)
    value, vector, iterations, converged = math.nan, None, 0, True
    pieces = compute_on_one_thread(largest(product, like, start, tolerance, most))
    for iterations, (value, vector, converged) in enumerate(pieces, start=1):  # noqa: B007
        yield None
    bound = 2 * (1 + momentum) / value if value > 0 else math.nan if math.isnan(value) else math.inf
    yield Critical(
        bound, value, momentum, iterations, converged, of, everything if of == "all" else batch, batch, step, vector
    )


def compute_on_one_thread(pieces: Iterator[T]) -> Iterator[T]:
    """The items of an iterator, each computed on one thread: the same bits on any machine.

    Waiting for the threads of its short sums, a search took three times the processor time (two cores).
    """
    while True:
        with use_one_thread():
            try:
                piece = next(pieces)
            except StopIteration:
                return
        yield piece


def build_hessian_product(run: Run, x: Tensor, y: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The product of the Hessian with a vector at a run's present weights, and a tensor as such a vector is.

    The gradient's graph is made once; a product goes backward through it (Pearlmutter 1994).
    """
    dtype = torch.promote_types(run.problem.dtype, torch.float32)
    leaf = run.parameters.detach().to(dtype, copy=True).requires_grad_()
    buffers = {name: copied(buffer, dtype) for name, buffer in run.state.buffers.items()}
    knobs = KnobTensors.from_knobs(run.knobs_in_force, leaf)
    problem, updates = run.problem, run.updates  # of now: whoever measures in pieces may train meanwhile

    def second(make: Callable[[], Any]) -> Any:
        try:
            with problem.determinism(updates + 1), torch.enable_grad():
                return make()
        except (RuntimeError, NotImplementedError) as reason:
            if not any(sign in str(reason) for sign in NO_SECOND):
                raise
            raise ValueError(
                f"the critical learning rate needs second derivatives, and a layer or the cost has none: {reason}"
            ) from None

    def first() -> Tensor | None:
        tensors = {**problem.layout.views(leaf), **buffers}
        outputs = functional_call(problem.network, tensors, *arguments(copied(x, dtype)))
        data_cost = scalar(problem.descent.cost(outputs, copied(y, dtype), knobs.epsilon))
        cost = data_cost + differentiate_penalty(run, leaf, knobs)
        (gradient,) = torch.autograd.grad(cost, leaf, create_graph=True)
        if any("Error" in name for name in operations(gradient)):
            raise RuntimeError("one of them was marked with @once_differentiable")
        return gradient if gradient.requires_grad else None

    gradient = second(first)

    def product(vector: Tensor) -> Tensor:
        if gradient is None:
            return torch.zeros_like(vector)
        # A number needs no vector of weights to go backward: given one, torch would import all of sympy: 22 MiB.
        return second(lambda: torch.autograd.grad(gradient.dot(vector), leaf, retain_graph=True)[0]).detach()

    return product, leaf.detach()


NO_SECOND = ("derivative for", "double backward", "differentiate twice", "once_differentiable", "is not implemented")
"""What torch says of an operation without a second derivative."""


def operations(tensor: Tensor) -> set[str]:
    """The names of the operations that a tensor has come from, as autograd has written them down."""
    known, ahead = set(), [tensor.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in known:
            known.add(node)
            ahead += [before for before, _ in node.next_functions]
    return {node.name() for node in known}


def differentiate_penalty(run: Run, leaf: Tensor, knobs: KnobTensors) -> Tensor:
    """The part of the penalties that curves: L2, also where it is in the update.

    There its share is l2 (1 + momentum): with the cost's eigenvalue h in place of the Hessian, the step's two-by-two
    matrix on (weight, velocity) is stable below 2 (1 + momentum) / (h + (1 + momentum) l2).
    """
    if run.knobs_in_force.l2 == 0:
        return leaf.new_zeros(())
    share = 1.0 if run.knobs_in_force.penalty_in == "cost" else 1 + knobs.momentum
    return penalty(run.descent.weights(leaf), torch.zeros_like(knobs.l1), share * knobs.l2)


def copied(value: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors in another type, other tensors cloned; several in a tuple or dict as they come."""
    return mapped(lambda part: part.to(dtype, copy=True) if part.is_floating_point() else part.clone(), value)


def largest(
    product: Callable[[Tensor], Tensor], like: Tensor, start: Tensor | None, tolerance: float, most: int
) -> Iterator[tuple[float, Tensor | None, bool]]:
    """The largest eigenvalue of a symmetric matrix by Lanczos (1950), one product an item: value, vector, converged.

    Each vector is made orthogonal to all before it, twice (Parlett 1980: twice is enough), so that no eigenvalue comes
    as a ghost of another; the tridiagonal matrix is float64. NaN where a product is not finite. The last item alone
    has a vector.
    """
    size = like.numel()
    room = max(8, KEPT_BYTES // (size * like.element_size()))
    # Memory for all vectors at once, whose pages the system gives when they are written to.
    basis = torch.empty(min(room, most), size, dtype=like.dtype, device=like.device)
    basis[0], count = begun(like, start), 1
    diagonal: list[float] = []
    beside: list[float] = []
    for done in range(1, most + 1):
        kept = basis[:count]
        image = product(kept[-1])
        diagonal.append(float((image * kept[-1]).sum(dtype=torch.float64)))
        if not math.isfinite(diagonal[-1]):
            yield math.nan, None, True
            return
        for _ in range(2):
            image = image - kept.T @ (kept @ image)
        length = float(torch.linalg.vector_norm(image, dtype=torch.float64))
        value, weights = find_top_eigenpair(diagonal, beside)
        noise = ROUNDING * max(map(abs, (*diagonal, *beside)))
        ended = length <= noise or count == size
        close = length * abs(weights[-1]) <= max(tolerance * abs(value), noise) and done >= LEAST
        if ended or close or done == most:
            yield value, combine_vectors(kept, weights), ended or close
            return
        yield value, None, False
        if count < len(basis):
            beside.append(length)
            basis[count] = image / length
            count += 1
        else:
            basis[0], count = combine_vectors(kept, weights), 1
            diagonal, beside = [], []


def combine_vectors(basis: Tensor, weights: np.ndarray) -> Tensor:
    """The eigenvector of length 1 that Lanczos vectors (count, size) and their weights make."""
    vector = basis.T @ torch.as_tensor(weights, dtype=basis.dtype, device=basis.device)
    return vector / torch.linalg.vector_norm(vector)


def find_top_eigenpair(diagonal: list[float], beside: list[float]) -> tuple[float, np.ndarray]:
    """The largest eigenvalue of a symmetric tridiagonal matrix, and its eigenvector."""
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    return float(values[-1]), vectors[:, -1]


def begun(like: Tensor, start: Tensor | None) -> Tensor:
    """Where the search begins: a chance vector, the same each time; with a warm start, that and a little chance."""
    chance = torch.randn(like.numel(), generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(like)
    chance = chance / torch.linalg.vector_norm(chance)
    if start is None or start.shape != like.shape or not start.isfinite().all():
        return chance
    vector = start.to(like) / torch.linalg.vector_norm(start.to(like)).clamp(min=1e-30) + FRESH * chance
    return vector / torch.linalg.vector_norm(vector)
