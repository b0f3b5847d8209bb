"""How far the learning rate of a training loop of one's own is from the edge: from one batch, and changing nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnnlab.curvature.critical import Critical, measure_critical
from cnnlab.curvature.hessian import build_product, differentiate_once, explain_refusal
from cnnlab.curvature.lanczos import MOST, TOLERANCE
from cnnlab.curvature.own_optimizer import check_optimizer, read_optimizer
from cnnlab.training.determinism import keep_generators
from cnnlab.training.pass_listener import listen_to_nothing


def measure_loop(
    model: Any,
    closure: Any,
    optimizer: Any,
    *,
    start: Tensor | None = None,
    tolerance: float = TOLERANCE,
    most: int = MOST,
) -> Critical:
    """How far the learning rate of a loop is from the edge: print it.

    `closure()` returns the cost of one batch with its graph, such as `lambda: cost(model(x), y)`; it leaves out
    `backward()`. `optimizer` is torch's SGD, RMSprop, Adam or AdamW, with any of their options; its groups and its
    averages are read. Where groups have learning rates of their own, `.value` is that of the highest, all others in
    their ratio to it. Model, gradients, buffers, modes, optimizer and all generators of chance are as they were
    afterwards. TypeError or ValueError in a sentence where there is no answer.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not callable(closure):
        raise TypeError(f"closure must be a function that returns the cost of a batch, got {type(closure).__name__}")
    parameters = choose_parameters(model, check_optimizer(optimizer))
    with keep_untouched(model, parameters), torch.enable_grad():
        cost = check_cost(closure())
        try:
            return measure_graph(cost, parameters, optimizer, 1.0, start, tolerance, most)
        except RuntimeError as reason:
            if "backward through the graph a second time" not in str(reason):
                raise
            raise ValueError("closure must return the cost with its graph, got one that went backward") from None


def measure_graph(
    cost: Tensor,
    parameters: Sequence[Tensor],
    optimizer: Any,
    scale: float = 1.0,
    start: Tensor | None = None,
    tolerance: float = TOLERANCE,
    most: int = MOST,
    step: int = 0,
) -> Critical:
    """The same from a cost whose graph is there, and stays; `scale` is what mixed precision has multiplied it by."""
    gradients = explain_refusal(lambda: differentiate_once(cost / scale if scale != 1 else cost, parameters))
    if any(each is not None and each.is_sparse for each in gradients):
        raise ValueError("gradients must be dense for a critical learning rate, and an embedding's are sparse")
    own = read_optimizer(optimizer, parameters, gradients)
    plain = build_product(gradients, parameters)
    assert own.preconditioner.scale is not None
    like = own.preconditioner.scale
    about = {"of": "closure", "examples": 0, "batch": 0, "step": step}
    about |= {"learning_rate": own.learning_rate, "groups": own.groups}
    pieces = measure_critical(
        own.preconditioner, lambda vector: own.sign * plain(vector), like, start, tolerance, most, **about
    )
    *_, found = pieces
    assert isinstance(found, Critical)
    return found


def choose_parameters(model: nn.Module, optimizer: Any) -> list[Tensor]:
    """The parameters of a model that an optimiser moves; ValueError if there are none."""
    moved = {id(each) for group in optimizer.param_groups for each in group["params"]}
    chosen: list[Tensor] = [each for each in model.parameters() if each.requires_grad and id(each) in moved]
    if not chosen:
        raise ValueError("optimizer must hold parameters of the model that require a gradient, and holds none")
    if any(each.is_complex() for each in chosen):
        raise ValueError("parameters must be real for a critical learning rate, and some are complex")
    return chosen


def check_cost(cost: Any) -> Tensor:
    """What a closure has returned; TypeError or ValueError if it is no number with a graph."""
    if not isinstance(cost, Tensor):
        raise TypeError(f"closure must return the cost as a tensor, got {type(cost).__name__}")
    if cost.is_complex():
        raise ValueError("closure must return a real number, got a complex one")
    if cost.numel() != 1:
        raise ValueError(f"closure must return one number, got a tensor of shape {tuple(cost.shape)}")
    if not cost.requires_grad:
        raise ValueError("closure must return the cost with its graph, got a number without a gradient")
    return cost.reshape(())


@contextlib.contextmanager
def keep_untouched(model: nn.Module, parameters: Sequence[Tensor]) -> Iterator[None]:
    """A block in which a model may be called, and after which it is as it was; no watch takes note of it."""
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    kept = [each.grad for each in model.parameters()]
    with listen_to_nothing(), keep_generators(parameters[0].device):
        try:
            for module in modules:  # copies take their place, so that a graph that holds the others stays whole
                for name, buffer in module._buffers.items():
                    module._buffers[name] = None if buffer is None else buffer.detach().clone()
            for each in model.parameters():
                each.grad = None
            yield
        finally:
            for module, training, before in zip(modules, modes, buffers, strict=True):
                module.training = training
                module._buffers.update(before)
            for each, gradient in zip(model.parameters(), kept, strict=True):
                each.grad = gradient
