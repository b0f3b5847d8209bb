"""The matrix whose largest eigenvalue a step has to bear: the Hessian as an optimiser's divisors and decay bend it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cnnlab.config.stability import describe_bound, find_bound
from cnnlab.curvature.hessian import Product


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """What an optimiser's next update does to a gradient, beside multiplying it by the learning rate.

    With S the scale of each parameter and W its decoupled decay, both diagonal, the weights' small changes follow a
    linear recursion in S H and W. In the coordinates S^(-1/2) w it is symmetric, and its matrix polynomial at z = -1 is
    bound - learning rate (S^(1/2) H S^(1/2) + bound / 2 W): singular where the learning rate reaches bound over the
    largest eigenvalue, beyond that with a root below -1, and before it with none, whether or not H and W have their
    eigenvectors in common. So the limit is exact for a decay that spares the biases, too, on a quadratic whose S is
    frozen. (Nesterov's needs one momentum for all parameters, which is what a run has.)
    """

    optimizer: str
    """As Knobs names it."""
    momentum: float
    """Heavy ball's, Nesterov's, or the first of Adam's betas."""
    scale: Tensor | None = None
    """What each gradient is multiplied by, (parameters,), such as 1 / (sqrt(v) + epsilon); None: 1."""
    added: Tensor | None = None
    """What stands beside the scaled Hessian on the diagonal, (parameters,); None: 0."""
    dampening: float = 0.0
    """Share of a gradient that momentum leaves out."""

    @property
    def bound(self) -> float:
        """What learning rate times eigenvalue must stay below."""
        return find_bound(self.optimizer, self.momentum, self.dampening)

    @property
    def rule(self) -> str:
        """The critical learning rate as a formula with its numbers."""
        return describe_bound(self.optimizer, self.momentum, self.dampening)

    def bend(self, product: Product) -> Product:
        """The product of the matrix with a vector, from the product of the Hessian with one."""
        if self.scale is None and self.added is None:
            return product
        root = None if self.scale is None else self.scale.sqrt()

        def bent(vector: Tensor) -> Tensor:
            image = product(vector) if root is None else root * product(root * vector)
            return image if self.added is None else image + self.added * vector

        return bent

    def find_curvature(self, vector: Tensor, eigenvalue: float) -> float:
        """The second derivative of the cost along the direction of an eigenvector of length 1, without any decay."""
        bent = eigenvalue if self.added is None else eigenvalue - float(vector.dot(self.added * vector))
        return bent if self.scale is None else bent / float(vector.dot(self.scale * vector))

    def measure_along(self, vector: Tensor, change: Tensor) -> float:
        """How far a change of the weights goes along the direction of an eigenvector, beside all other eigenvectors."""
        if self.scale is None:
            return float(vector.dot(change))
        root = self.scale.sqrt()
        return float(torch.linalg.vector_norm(root * vector)) * float((vector / root).dot(change))

    def find_direction(self, vector: Tensor) -> Tensor:
        """The direction in the space of the weights, of length 1, that belongs to an eigenvector of the matrix."""
        direction = vector if self.scale is None else self.scale.sqrt() * vector
        return direction / torch.linalg.vector_norm(direction)
