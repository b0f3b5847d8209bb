"""What the lab on maps says of other starts: the two outer rows of its map, and the middle row close up."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from claims import Claim

import cnnlab


def measure_outer_rows(seed: int) -> dict[str, float]:
    """How many of six rates, a factor of ten apart, diverge and converge at half and at twice the weights."""
    rates = np.geomspace(1e-6, 0.1, 6)
    with ThreadPoolExecutor(1) as executor:
        found = cnnlab.sweep(
            "question", learning_rate=rates, init_scale=[0.5, 2.0], seeds=[seed], steps=20, executor=executor
        )
    half, twice = (found.labels[:, row, 0] for row in (0, 1))
    return {
        "half_diverged": float((half == "diverged").sum()),
        "half_converged": float((half == "converged").sum()),
        "twice_diverged": float((twice == "diverged").sum()),
        "twice_converged": float((twice == "converged").sum()),
    }


def measure_middle_row(seed: int) -> dict[str, float]:
    """Whether a rate between 1e-4 and 1e-3 survives above one that diverges, and the best accuracy on new patches."""
    with ThreadPoolExecutor(1) as executor:
        rates = np.geomspace(1e-4, 1e-3, 11)
        found = cnnlab.sweep("question", init_scale=1.0, learning_rate=rates, seeds=[seed], steps=20, executor=executor)
    diverged = found.diverged[:, 0]
    return {
        "diverged": float(diverged.sum()),
        "torn": float((np.diff(diverged.astype(int)) < 0).any()),
        "most_accurate": float(found.held_out_accuracy[~diverged].max()),
    }


CLAIMS = (
    Claim("07_outer_rows", measure_outer_rows, tuple(range(8)), again=(5, 1)),
    Claim("07_middle_row", measure_middle_row, again=(5, 18)),
)
