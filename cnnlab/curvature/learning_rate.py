"""The critical learning rate of a run, whole or in pieces, and of a loop of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

from cnnlab.config.settings import quote
from cnnlab.curvature.critical import Critical, measure_critical
from cnnlab.curvature.hessian import build_hessian_product
from cnnlab.curvature.lanczos import MOST, TOLERANCE
from cnnlab.curvature.own_loop import measure_loop
from cnnlab.curvature.run_step import read_preconditioner
from cnnlab.training.determinism import use_one_thread

if TYPE_CHECKING:
    from cnnlab.training.run import Run

T = TypeVar("T")

OF = ("all", "batch")
"""What the cost of a run is taken over: all training examples, or the batch of the next update."""


def critical_learning_rate(
    run: Run | nn.Module,
    closure: Callable[[], Tensor] | None = None,
    optimizer: Any = None,
    *,
    of: str = "all",
    start: Tensor | None = None,
    tolerance: float = TOLERANCE,
    most: int = MOST,
) -> Critical:
    """The critical learning rate of a run at its present weights: `.value`, and `.eigenvalue` of the Hessian.

    Gradient descent on a quadratic diverges above 2 over the largest eigenvalue of its Hessian, with momentum beta
    above 2 (1 + beta) over it (Polyak 1964); a network's cost is one in the neighbourhood of its weights. The bounds of
    the other optimisers stand in `cnnlab.config.stability`; those of RMSprop and Adam are on the Hessian as the next
    update's averages divide it (Cohen et al. 2022), and above theirs the averages grow until it is met again. The cost
    is the one in force, L1 and L2 included; an L2 in the update counts as what it does to the step. Clipping is left
    out of account: it caps the step, whatever the curvature. `of`: "all" for the cost over all training examples,
    "batch" for that of the next update. `start` is an earlier answer's `.vector`, for a quicker search. The run is not
    changed. ValueError in a sentence if a layer has no second derivative. Half precision is measured in float32.

    `critical_learning_rate(model, closure, optimizer)` is the same for a loop of one's own, see `measure_loop`.
    """
    if closure is not None or optimizer is not None or isinstance(run, nn.Module):
        return measure_loop(run, closure, optimizer, start=start, tolerance=tolerance, most=most)
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
    everything = len(run.problem.examples)
    batch = run.problem.batch_size or everything
    x, y = run.problem.data if of == "all" else run.problem.batch(run.updates + 1)
    product, like = build_hessian_product(run, x, y)
    about = {"of": of, "examples": everything if of == "all" else batch, "batch": batch, "step": run.updates}
    about["learning_rate"] = run.knobs_in_force.learning_rate
    pieces = measure_critical(read_preconditioner(run), product, like, start, tolerance, most, **about)
    yield from compute_on_one_thread(pieces)


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
