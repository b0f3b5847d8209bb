"""Backward passes: what is sent backward, which parameters it comes to, and what it costs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge

Classes = tuple[Tensor, Tensor]
"""Log-probabilities (examples, classes) and labels (examples,)."""


@dataclass(frozen=True, eq=False)
class Noted:
    """What is kept of a backward pass."""

    cost: Tensor | None
    """None if it is not known."""
    classes: Classes | None
    accumulates: bool
    """Whether it adds to the parameters' own gradients, as `backward` does, and `torch.autograd.grad` does not."""


@dataclass(frozen=True, eq=False)
class Pass:
    """A backward pass that is about to be made."""

    roots: list[Any]
    """Where it begins: tensors, or edges of the graph."""
    weights: list[Any] | None
    """What each root is multiplied by; None: 1."""
    inputs: list[Any] | None
    """What alone it goes to; None: to every leaf."""
    accumulates: bool
    """As of Noted."""
    is_a_cost: bool = True
    """Whether a single number that it begins at is a cost; not where its graph is kept for another pass."""

    def noted(self, scale: float) -> Noted:
        """What is kept of it, the cost without its scale."""
        cost = self.cost
        if cost is not None:
            cost = cost.clone() if scale == 1 else cost / scale
        return Noted(cost, find_classes(self.roots[0]), self.accumulates)

    @property
    def cost(self) -> Tensor | None:
        """The sum of the roots times their weights, if each is one number; None if not, or if it is no cost."""
        total: Tensor | None = None
        for root, weight in zip(self.roots, self.weights or [None] * len(self.roots), strict=False):
            if not self.is_a_cost or not isinstance(root, Tensor) or root.numel() != 1:
                return None
            part = root.detach() if root.dim() == 0 else root.detach().reshape(())
            if isinstance(weight, Tensor):
                part = part * weight.detach().reshape(())
            total = part if total is None else total + part.to(total.device)
        return total

    def find_out_if_reaches(self, wanted: frozenset[int]) -> bool | None:
        """Whether it comes to a parameter whose id is wanted; None if a function written in Python may hide one.

        The graph is followed to the first such parameter, which is near where it begins.
        """
        if self.inputs is not None or any(id(root) in wanted for root in self.roots):
            return any(id(each) in wanted for each in self.inputs or self.roots)
        waiting = [root.node if isinstance(root, GradientEdge) else root.grad_fn for root in self.roots]
        seen: dict[int, Any] = {}  # holds the nodes, so that no other gets the same id
        hidden = False
        while waiting:
            node: Any = waiting.pop()
            if node is None or id(node) in seen:
                continue
            seen[id(node)] = node
            if type(node).__name__ == "AccumulateGrad" and id(node.variable) in wanted:
                return True
            hidden = hidden or isinstance(node, BackwardCFunction)
            waiting += [before for before, _ in node.next_functions]
        return None if hidden else False


def of_backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: Any = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Any = None,
) -> Pass:
    """The pass of a call of `torch.autograd.backward` with these arguments."""
    weights = grad_variables if grad_tensors is None else grad_tensors
    return Pass(listed(tensors), optional(weights), optional(inputs), True)


def of_grad(
    outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: Any = None, create_graph: bool = False, **_: Any
) -> Pass:
    """The pass of a call of `torch.autograd.grad` with these arguments."""
    roots = listed(outputs)
    return Pass(roots, optional(grad_outputs), listed(inputs), False, not create_graph and len(roots) == 1)


def listed(value: Any) -> list[Any]:
    """One thing or several as a list."""
    return [value] if isinstance(value, (Tensor, GradientEdge)) else list(value)


def optional(value: Any) -> list[Any] | None:
    """The same where there may be nothing."""
    return None if value is None else listed(value)


def lasting(value: Any) -> Any:
    """What may be looked at more than once: an iterator as a list."""
    if value is None or isinstance(value, (Tensor, bool)):  # before it is asked whether it is one, which takes longer
        return value
    return list(value) if isinstance(value, Iterator) else value


def find_classes(loss: Any) -> Classes | None:
    """Log-probabilities and labels that torch's cross-entropy has saved for its backward pass; None for other costs."""
    node: Any = getattr(loss, "grad_fn", None)
    with contextlib.suppress(AttributeError, RuntimeError, IndexError):
        for _ in range(4):  # a scale of mixed precision, a share of accumulation
            if node is None:
                return None
            if type(node).__name__ == "NllLossBackward0":
                return node._saved_self.detach(), node._saved_target
            node = node.next_functions[0][0]
    return None


def sum_costs(passes: Sequence[Noted]) -> Tensor | None:
    """The cost of an update whose gradient these passes made: their sum; None if one is not known, or there is none.

    Beside passes of `backward`, those of `torch.autograd.grad` look at something else.
    """
    chosen = [each for each in passes if each.accumulates] or passes
    costs = [each.cost for each in chosen if each.cost is not None]
    if not costs or len(costs) < len(chosen):
        return None
    total = costs[0]
    for cost in costs[1:]:
        total = total + cost.to(total.device)
    return total


def is_within_another() -> bool:
    """Whether a backward pass is under way in this thread, as where a checkpoint computes again."""
    return bool(torch._C._current_graph_task_id() != -1)
