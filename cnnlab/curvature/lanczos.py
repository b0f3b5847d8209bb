"""The largest eigenvalue of a symmetric matrix that is known by its products with vectors alone (Lanczos 1950)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

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
