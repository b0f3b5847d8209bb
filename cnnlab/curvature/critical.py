"""The critical learning rate: the bound of an optimiser over the largest eigenvalue that its step meets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cnnlab.config.errors import check_whole_number
from cnnlab.config.settings import ADAPTIVE
from cnnlab.config.stability import describe_bound
from cnnlab.curvature.hessian import Product
from cnnlab.curvature.lanczos import largest
from cnnlab.curvature.preconditioner import Preconditioner


@dataclass(frozen=True, eq=False)
class Critical:
    """The learning rate above which an optimiser swings wider and wider, at the present weights."""

    value: float
    """bound / eigenvalue, for gradient descent 2 (1 + momentum) / eigenvalue; inf where nothing curves upwards, NaN if
    the Hessian is not finite."""
    eigenvalue: float
    """The largest (not the largest in magnitude) of the Hessian, of an adaptive optimiser's preconditioned one; NaN if
    that is not finite."""
    momentum: float
    """The momentum that the value counts on."""
    iterations: int
    """Products of the Hessian with a vector that it took."""
    converged: bool
    """Whether the eigenvalue is right to about 1 %; if not, it is a lower bound of the true one."""
    of: str
    """"all": of the cost over all training examples; "batch": over the batch of the next update alone; "closure": of
    the cost that a loop of one's own gave."""
    examples: int
    """How many examples that cost is over; 0 where that is not known."""
    batch: int
    """How many examples an update takes; 0 where that is not known."""
    step: int
    """Updates done when it was measured."""
    vector: Tensor | None = None
    """The eigenvector, of the length of all parameters: where the next search had best begin."""
    optimizer: str = "sgd"
    """Whose step it is, as Knobs names it."""
    learning_rate: float = math.nan
    """The one in force; of several groups of parameters the highest, whose critical one `value` is."""
    dampening: float = 0.0
    """Share of a gradient that momentum leaves out."""
    groups: int = 1
    """How many groups of parameters have a learning rate of their own."""

    @property
    def finite(self) -> bool:
        """Whether the Hessian is finite."""
        return not math.isnan(self.eigenvalue)

    @property
    def ratio(self) -> float:
        """The learning rate over the critical one: above 1 the step is too long for the curvature."""
        return self.learning_rate / self.value

    @property
    def matrix(self) -> str:
        """What the eigenvalue is of, where it is not the plain Hessian."""
        return "preconditioned Hessian of the " if self.optimizer in ADAPTIVE else ""

    @property
    def over(self) -> str:
        """What the cost is taken over."""
        if self.of == "closure":
            return "of this batch"
        return f"over {'all ' if self.of == 'all' else 'the next batch of '}{self.examples} examples"

    def __str__(self) -> str:
        which = "preconditioned Hessian" if self.matrix else "Hessian"
        if not self.finite:
            where = (
                "of this batch's cost is not finite"
                if self.of == "closure"
                else f"is not finite after update {self.step}"
            )
            return f"the {which} {where}: no learning rate is safe any more"
        if math.isinf(self.value):
            return (
                f"no critical learning rate: the cost curves upwards nowhere (largest eigenvalue {self.eigenvalue:.4g})"
            )
        rule = describe_bound(self.optimizer, self.momentum, self.dampening)
        least = "" if self.converged else "at least "
        said = f"critical learning rate {self.value:.4g} = {rule}, eigenvalue {least}{self.eigenvalue:.5g} of the "
        said += f"{self.matrix}cost {self.over}"
        if self.of == "all" and self.batch < self.examples:
            said += f"; an update takes {self.batch}, whose own cost may curve more sharply"
        if self.of == "closure":
            yours = "yours" if self.groups == 1 else "your highest"
            said += f"; {yours}, {self.learning_rate:.4g}, is {self.ratio:.2g} times that"
        return said

    def __repr__(self) -> str:
        return f"Critical({self})"


def measure_critical(
    preconditioner: Preconditioner,
    product: Product,
    like: Tensor,
    start: Tensor | None,
    tolerance: float,
    most: int,
    **about: Any,
) -> Iterator[Critical | None]:
    """None after each product of the Hessian with a vector, and the answer last, with what else is known `about` it."""
    most = check_whole_number("most", most, 1)
    value, vector, iterations, converged = math.nan, None, 0, True
    pieces = largest(preconditioner.bend(product), like, start, tolerance, most)
    for iterations, (value, vector, converged) in enumerate(pieces, start=1):  # noqa: B007
        yield None
    yield Critical(
        value=preconditioner.bound / value if value > 0 else math.nan if math.isnan(value) else math.inf,
        eigenvalue=value,
        momentum=preconditioner.momentum,
        iterations=iterations,
        converged=converged,
        vector=vector,
        optimizer=preconditioner.optimizer,
        dampening=preconditioner.dampening,
        **about,
    )
