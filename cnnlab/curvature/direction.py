"""The cost along the sharpest direction: the parabola that the eigenvalue predicts, and where the next step lands."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnlab.curvature.critical import Critical
from cnnlab.curvature.hessian import CostOfWeights
from cnnlab.curvature.learning_rate import critical_learning_rate
from cnnlab.curvature.run_step import read_preconditioner, try_step
from cnnlab.training.determinism import use_one_thread
from cnnlab.training.run import Run

POINTS = 41
"""Places along the direction at which the cost is measured; odd, so that one is the parabola's minimum."""
ROOM = 1.3
"""The measured range over what has to lie in it."""
TOO_WIDE = 4.0
"""Most times as wide as it need be that a measured range stays for another learning rate."""
LEAST_ROOM = 2.0
"""The same over the distance of the present weights, where the step is shorter."""


@dataclass(frozen=True, eq=False)
class Line:
    """A cost along a direction through some weights."""

    cost: CostOfWeights
    weights: Tensor
    """The present ones, (parameters,)."""
    direction: Tensor
    """Of length 1, (parameters,)."""

    def measure(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """The cost at distances from the present weights."""
        with self.cost.determinism(), use_one_thread(), torch.no_grad():
            found = [self.cost.compute(self.weights + float(each) * self.direction) for each in distances]
        return torch.stack(found).to("cpu", torch.float64).numpy()


@dataclass(frozen=True, eq=False)
class SharpestDirection:
    """A cut through the cost along the eigenvector of the largest eigenvalue, through the present weights.

    Places are distances in the space of the weights from the minimum of the parabola that slope and curvature predict.
    On the parabola a step of gradient descent takes the place x to (1 - learning rate * eigenvalue) x.
    """

    step: int
    """Updates done when it was measured."""
    eigenvalue: float
    """That of the optimiser's matrix, whose critical learning rate is bound / eigenvalue."""
    critical: float
    """The critical learning rate."""
    learning_rate: float
    """The one in force when it was measured."""
    cost: float
    """At the present weights."""
    slope: float
    """Of the cost along the direction, at the present weights."""
    curvature: float
    """Of the cost along the direction; the eigenvalue itself where the optimiser takes the gradient as it is."""
    speed: float
    """How far the next update goes back along the direction, over its learning rate."""
    places: NDArray[np.float64]
    """Where the cost was measured."""
    costs: NDArray[np.float64]
    """The cost there; NaN and inf are what they are."""
    line: Line
    """What is measured along."""

    @property
    def present(self) -> float:
        """The place of the present weights."""
        return self.slope / self.curvature if self.curvature > 0 else 0.0

    @property
    def floor(self) -> float:
        """The parabola's least value."""
        return self.cost - self.slope * self.present / 2 if self.curvature > 0 else self.cost

    def predict_cost(self, places: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """The height of the parabola."""
        return np.asarray(self.floor + self.curvature / 2 * np.square(np.asarray(places, dtype=np.float64)))

    def find_landing(self, learning_rate: float) -> float:
        """The place to which the next update goes with another learning rate; nothing is measured anew."""
        return self.present - learning_rate * self.speed

    def read_cost(self, place: float) -> float:
        """The cost at a place by the nearest two measured ones; beyond them that of the parabola."""
        if self.places[0] <= place <= self.places[-1]:
            return float(np.interp(place, self.places, self.costs))
        return float(self.predict_cost(place))

    def holds(self, learning_rate: float) -> bool:
        """Whether the place where a learning rate lands is within the measured range."""
        return bool(abs(self.find_landing(learning_rate)) <= self.places[-1])

    def covers(self, learning_rate: float) -> bool:
        """Whether the measured range suits a learning rate: it holds the landing, and is not far too wide for it."""
        far = self.find_range(learning_rate)
        if not (math.isfinite(self.find_landing(learning_rate)) and far > 0):
            return True  # another range would be the same
        return self.holds(learning_rate) and bool(self.places[-1] <= TOO_WIDE * far)

    def find_range(self, learning_rate: float) -> float:
        """How far from the minimum the cost is to be measured for a learning rate."""
        return max(LEAST_ROOM * abs(self.present), ROOM * abs(self.find_landing(learning_rate)))

    def measure_range(self, learning_rate: float) -> SharpestDirection:
        """The same with the cost measured where the present weights and the landing of a learning rate have room."""
        far = self.find_range(learning_rate)
        if not (math.isfinite(far) and far > 0):
            far = float(torch.linalg.vector_norm(self.line.weights)) or 1.0  # nothing curves upwards: a look around
        places = np.linspace(-far, far, POINTS)
        return replace(self, places=places, costs=self.line.measure(places - self.present))

    def __str__(self) -> str:
        return describe_landing(self, self.learning_rate)

    def __repr__(self) -> str:
        return f"SharpestDirection({self})"


def measure_direction(run: Run, found: Critical | None = None) -> SharpestDirection:
    """The cost along a run's sharpest direction at its present weights, `found` being its critical learning rate.

    The cost is the one whose eigenvalue that is: over all examples, or over the next batch where an update takes less.
    For an optimiser that divides by averages the direction is the eigenvector in the space of the weights. The present
    weights lie right of the minimum, where the cost rises. The run is not changed.
    """
    of = "all" if run.problem.batch_size is None else "batch"
    if found is None or found.step != run.updates:
        found = critical_learning_rate(run, of=of)
    x, y = run.problem.data if of == "all" else run.problem.batch(run.updates + 1)
    cost = CostOfWeights.from_run(run, x, y)
    leaf = cost.copy_weights(run.parameters)
    with cost.determinism(), use_one_thread(), torch.enable_grad():
        height = cost.compute(leaf)
        (gradient,) = torch.autograd.grad(height, [leaf])
    knobs, step = run.knobs_in_force, try_step(run)
    geometry = read_preconditioner(run, step)
    vector = torch.zeros_like(leaf) if found.vector is None else found.vector.to(leaf)
    direction = geometry.find_direction(vector)
    slope = float(gradient.dot(direction))
    sign = -1.0 if slope < 0 else 1.0
    update = step.update.to(leaf) / knobs.learning_rate
    line = Line(cost, leaf.detach(), sign * direction)
    unmeasured = SharpestDirection(
        step=run.updates,
        eigenvalue=found.eigenvalue,
        critical=found.value,
        learning_rate=knobs.learning_rate,
        cost=float(height.detach()),
        slope=abs(slope),
        curvature=geometry.find_curvature(vector, found.eigenvalue),
        speed=sign * geometry.measure_along(vector, update),
        places=np.zeros(0),
        costs=np.zeros(0),
        line=line,
    )
    return unmeasured.measure_range(knobs.learning_rate)


def describe_landing(found: SharpestDirection, learning_rate: float) -> str:
    """Where the next update leads along the direction with a learning rate, in a sentence."""
    if math.isnan(found.eigenvalue) or not math.isfinite(found.cost):
        return f"After update {found.step} the Hessian is not finite: there is no sharpest direction."
    if found.curvature <= 0:
        return f"After update {found.step} the cost curves upwards nowhere (largest eigenvalue {found.eigenvalue:.4g})."
    before, after = found.present, found.find_landing(learning_rate)
    side = "to the other side" if after < 0 else "on this side"
    times = abs(after) / before if before > 0 else math.inf
    moved = f"{times:.3g} times as far from the minimum, {side}" if math.isfinite(times) else f"to {after:.3g}"
    rate = f"learning rate {learning_rate:.4g}, critical {found.critical:.4g}"
    return f"After update {found.step} ({rate}): the next step leads from {before:.3g} to {after:.3g}, {moved}."
