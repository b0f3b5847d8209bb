"""Products of the Hessian of a cost with a vector, by going backward through the graph of its gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import functional_call

from cnnlab.config.settings import Knobs
from cnnlab.training.datasets import mapped
from cnnlab.training.losses import penalty
from cnnlab.training.step import KnobTensors, arguments, scalar

if TYPE_CHECKING:
    from cnnlab.training.problem import Problem
    from cnnlab.training.run import Run

Product = Callable[[Tensor], Tensor]
"""A matrix's product with a vector."""
PIECE = 100
"""Most examples whose graph of the gradient is in memory at a time, where the cost is their mean."""
NO_SECOND = ("derivative for", "double backward", "differentiate twice", "once_differentiable", "is not implemented")
"""What torch says of an operation without a second derivative."""


@dataclass(frozen=True, eq=False)
class CostOfWeights:
    """The cost in force at one moment of a run, an L1 or L2 in the cost included, as a function of all parameters.

    Whoever measures in pieces may train meanwhile.
    """

    problem: Problem
    update: int
    """The update whose chance (dropout) it has."""
    knobs: Knobs
    buffers: dict[str, Tensor]
    x: Any
    y: Any
    dtype: torch.dtype
    """That of the parameters, float32 in place of the half types."""

    @classmethod
    def from_run(cls, run: Run, x: Any, y: Any) -> CostOfWeights:
        """That of a run's next update on the examples (x, y)."""
        dtype = torch.promote_types(run.problem.dtype, torch.float32)
        x, y, buffers = (copied(part, dtype) for part in (x, y, run.state.buffers))
        return cls(run.problem, run.updates + 1, run.knobs_in_force, buffers, x, y, dtype)

    def copy_weights(self, flat: Tensor) -> Tensor:
        """A flat vector of all parameters as a leaf."""
        return flat.detach().to(self.dtype, copy=True).requires_grad_()

    def determinism(self) -> contextlib.AbstractContextManager[None]:
        """A block in which it is the same to the bit each time."""
        return self.problem.determinism(self.update)

    def compute(self, flat: Tensor) -> Tensor:
        """The cost of a flat vector of all parameters, within `determinism`."""
        numbers = KnobTensors.from_knobs(self.knobs, flat)
        # A module may write into a buffer.
        tensors = {**self.problem.layout.views(flat), **{name: each.clone() for name, each in self.buffers.items()}}
        outputs = functional_call(self.problem.network, tensors, *arguments(self.x))
        cost = self.problem.descent.cost(outputs, self.y, numbers.epsilon)
        cost = scalar(cost) if torch.is_grad_enabled() else cost.reshape(())
        if self.knobs.penalty_in == "cost" and (self.knobs.l1 > 0 or self.knobs.l2 > 0):
            cost = cost + penalty(self.problem.descent.weights(flat), numbers.l1, numbers.l2)
        return cost


def build_hessian_product(run: Run, x: Any, y: Any) -> tuple[Product, Tensor]:
    """The product of the Hessian with a vector at a run's present weights, and a tensor as such a vector is.

    The gradient's graph is made once; a product goes backward through it (Pearlmutter 1994). Of many examples it is
    the mean of the products of pieces, whose graphs are made anew each time and held one at a time.
    """
    pieces = list_pieces(run, x, y)
    costs = [CostOfWeights.from_run(run, *piece) for piece in pieces]
    weights = costs[0].copy_weights(run.parameters).detach()
    if len(costs) == 1:
        return build_piece_product(costs[0], weights), weights
    shares = [len(piece) / len(y) for _, piece in pieces]

    def compute(vector: Tensor) -> Tensor:
        image = torch.zeros_like(vector)
        for cost, share in zip(costs, shares, strict=True):
            image += share * build_piece_product(cost, weights)(vector)
        return image

    return compute, weights


def build_piece_product(cost: CostOfWeights, weights: Tensor) -> Product:
    """The product of one cost's Hessian with a vector, through a graph that is made once."""
    leaf = cost.copy_weights(weights)
    with cost.determinism(), torch.enable_grad():
        product = build_product(explain_refusal(lambda: differentiate_once(cost.compute(leaf), [leaf])), [leaf])

    def compute(vector: Tensor) -> Tensor:
        with cost.determinism(), torch.enable_grad():
            return product(vector)

    return compute


def list_pieces(run: Run, x: Any, y: Any) -> list[tuple[Any, Any]]:
    """Examples in pieces of `PIECE` where the cost is the mean over them; all in one where it may be another.

    Batch norm looks at all examples together, dropout at their number; what a cost of the user's own does is not known.
    """
    start = run.settings
    if run.own_network or start.normalization == "batch" or start.dropout:
        return [(x, y)]
    return list(zip(x.split(PIECE), y.split(PIECE), strict=True))


def differentiate_once(cost: Tensor, leaves: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradient of each leaf with its graph; None where the cost does not depend on a leaf."""
    gradients = torch.autograd.grad(cost, leaves, create_graph=True, allow_unused=True)
    if any("Error" in name for name in operations([each for each in gradients if each is not None])):
        raise RuntimeError("one of them was marked with @once_differentiable")
    return list(gradients)


def build_product(gradients: Sequence[Tensor | None], leaves: Sequence[Tensor]) -> Product:
    """The product of the Hessian with a vector of the length of all leaves, from gradients that have their graph."""
    sizes = [leaf.numel() for leaf in leaves]

    def product(vector: Tensor) -> Tensor:
        pairs = zip(gradients, vector.split(sizes), strict=True)
        # A number needs no vector of weights to go backward: given one, torch would import all of sympy: 22 MiB.
        parts = [each.reshape(-1).dot(part.to(each)) for each, part in pairs if each is not None and each.requires_grad]
        if not parts:
            return torch.zeros_like(vector)
        total = sum(parts[1:], parts[0])
        images = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
        return join_parts(images, vector)

    return lambda vector: explain_refusal(lambda: product(vector))


def join_parts(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """Some tensors in one flat vector of the type and on the device of another."""
    flat = [part.detach().reshape(-1).to(like) for part in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


WITH_ATTENTION = (
    "attention has them where the cost is computed under "
    "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)"
)
"""What is said of torch's fused kernels of attention."""


def explain_refusal(make: Callable[[], Any]) -> Any:
    """What `make` returns; ValueError in a sentence where torch refuses a second derivative."""
    try:
        return make()
    except (RuntimeError, NotImplementedError) as reason:
        if not any(sign in str(reason) for sign in NO_SECOND):
            raise
        remedy = f"; {WITH_ATTENTION}" if "scaled_dot_product" in str(reason) else ""
        raise ValueError(
            f"the critical learning rate needs second derivatives, and a layer or the cost has none: {reason}{remedy}"
        ) from None


def operations(tensors: Sequence[Tensor]) -> set[str]:
    """The names of the operations that tensors have come from, as autograd has written them down."""
    known: set[Any] = set()
    ahead: list[Any] = [tensor.grad_fn for tensor in tensors]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in known:
            known.add(node)
            ahead += [before for before, _ in node.next_functions]
    return {node.name() for node in known}


def copied(value: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors in another type, other tensors cloned; several in a tuple or dict as they come."""
    return mapped(lambda part: part.to(dtype, copy=True) if part.is_floating_point() else part.clone(), value)
