"""Our search for the largest eigenvalue of the Hessian beside scipy's eigsh and curvlinops: time, products, error.

python tests/benchmarks/curvature.py [--write]

Needs scipy and curvlinops-for-pytorch, which cnnlab itself does without. The rivals take turns on the same weights of
the question's network: at the start, and after each of three updates, where each may begin from its own last
eigenvector. Products are Hessian-vector products; the error is against a search with a tolerance of 1e-6.
--write keeps the table in tests/benchmarks/results/curvature.md. About two minutes of one core.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnlab import Run
from cnnlab.curvature.hessian import build_hessian_product
from cnnlab.curvature.learning_rate import critical_learning_rate
from cnnlab.training.network import make_question_network

RESULTS = Path(__file__).parent / "results" / "curvature.md"
SEEDS = range(5)
Found = tuple[float, int, np.ndarray | Tensor]
"""Eigenvalue, products, eigenvector."""


def ours(run: Run, start: Tensor | None) -> Found:
    """cnnlab's own."""
    found = critical_learning_rate(run, start=start)
    assert found.vector is not None
    return found.eigenvalue, found.iterations, found.vector


def by_eigsh(matrix: Callable[[Tensor], Tensor], size: int, start: np.ndarray | None) -> Found:
    """scipy.sparse.linalg.eigsh (ARPACK) with the tolerance that serves 1 %."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    products = 0

    def product(vector: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        return matrix(torch.from_numpy(vector.astype(np.float32).reshape(-1))).numpy()

    operator = LinearOperator((size, size), matvec=product, dtype=np.float32)
    first = np.random.default_rng(0).standard_normal(size).astype(np.float32) if start is None else start
    values, vectors = eigsh(operator, k=1, which="LA", tol=1e-2, v0=first, ncv=6)
    return float(values[0]), products, vectors[:, 0]


def eigsh(run: Run, start: np.ndarray | None) -> Found:
    """eigsh on cnnlab's Hessian-vector products."""
    product, like = build_hessian_product(run, *run.problem.data)
    return by_eigsh(product, like.numel(), start)


def curvlinops(run: Run, start: np.ndarray | None) -> Found:
    """eigsh on curvlinops's."""
    from curvlinops import HessianLinearOperator

    network = make_question_network(run.settings).to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(run.layout.views(run.parameters)[name])
    x, y = run.problem.data
    parameters = list(network.parameters())
    operator = HessianLinearOperator(
        network, torch.nn.CrossEntropyLoss(), parameters, [(x, y)], check_deterministic=False
    )
    return by_eigsh(lambda vector: (operator @ vector).detach(), len(run.parameters), start)


RIVALS = {"cnnlab's Lanczos": ours, "scipy eigsh on our products": eigsh, "scipy eigsh on curvlinops's": curvlinops}


def table() -> str:
    """The table in Markdown."""
    times, products, errors = (defaultdict(list) for _ in range(3))
    steps = defaultdict(list)
    for seed in SEEDS:
        run = Run("question", seed=seed, learning_rate=1e-4, device="cpu")
        starts: dict[str, object] = dict.fromkeys(RIVALS)
        for update in range(4):
            if update:
                began = time.thread_time()
                run.update()
                steps["step"].append(time.thread_time() - began)
            kind = "warm" if update else "cold"
            truth = critical_learning_rate(run, tolerance=1e-6, most=60).eigenvalue
            for name, rival in RIVALS.items():
                began = time.thread_time()
                value, count, starts[name] = rival(run, starts[name])  # type: ignore[arg-type]
                times[name, kind].append(time.thread_time() - began)
                products[name, kind].append(count)
                errors[name, kind].append(abs(value / truth - 1))
    step = statistics.median(steps["step"])
    lines = [
        "# The largest eigenvalue of the Hessian: three searches",
        "",
        f"torch {torch.__version__.partition('+')[0]}, x86-64, one thread, processor time; the question's preset at",
        f"learning rate 1e-4, {len(SEEDS)} seeds. Cold: from a chance vector. Warm: after an update, from the last",
        f"eigenvector. Medians; the error is the largest. An update takes {step * 1e3:.0f} ms.",
        "",
        "| search | start | ms | in updates | products | largest error |",
        "|---|---|---|---|---|---|",
    ]
    for name in RIVALS:
        for kind in ("cold", "warm"):
            spent, count = statistics.median(times[name, kind]), statistics.median(products[name, kind])
            error = max(errors[name, kind])
            lines.append(f"| {name} | {kind} | {spent * 1e3:.0f} | {spent / step:.0f} | {count:g} | {error:.2%} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--write", action="store_true")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    text = table()
    print(text)
    if chosen.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)
