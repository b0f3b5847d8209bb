"""How far the learning rate of a watched loop is from the edge, measured as a backward pass begins, every few updates.

The graph of the cost is there then, and is left as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cnnlab.config.errors import check_whole_number, extract_message
from cnnlab.curvature.critical import Critical
from cnnlab.curvature.own_loop import choose_parameters, measure_graph
from cnnlab.curvature.own_optimizer import check_optimizer
from cnnlab.training.pass_listener import listen_to_nothing


class LoopCurvature:
    """The measuring of a loop's curvature at every so many updates; None: never."""

    def __init__(self, every: Any, model: nn.Module, optimizers: Sequence[Any]) -> None:
        self.every = None if every is None else check_whole_number("curvature", every, 1)
        self.found: Critical | None = None
        self.problem = ""
        self.measured = -1
        if self.every is not None:
            if len(optimizers) > 1:
                raise ValueError(
                    f"curvature needs one optimizer, whose step is the whole update, got {len(optimizers)}"
                )
            self.optimizer = check_optimizer(optimizers[0])
            self.parameters = choose_parameters(model, self.optimizer)

    def is_due(self, updates: int) -> bool:
        """Whether the eigenvalue after so many updates is wanted, and not known: the number alone decides."""
        return self.every is not None and not self.problem and updates % self.every == 0 and updates != self.measured

    def measure(self, cost: Tensor, scale: float, updates: int) -> float | None:
        """The eigenvalue at the present weights from a cost about to go backward; None if it cannot be measured.

        Whatever fails is said once, and not tried again: the loop goes on.
        """
        self.measured, start = updates, None if self.found is None else self.found.vector
        try:
            with listen_to_nothing():
                self.found = measure_graph(cost, self.parameters, self.optimizer, scale, start, step=updates)
        except BaseException as reason:
            self.problem = extract_message(reason)
            if not isinstance(reason, Exception):
                raise
            return None
        return self.found.eigenvalue

    def __str__(self) -> str:
        if self.problem:
            return f"no critical learning rate: {self.problem}"
        return "" if self.found is None else f"after update {self.found.step}: {self.found}"
