"""What the lab on seeds says of many seeds: which of them diverge, when, and where the first updates throw them."""

import math
from collections.abc import Mapping

from claims import Claim

import cnnlab

RATE = 1e-3
"""The lab's learning rate."""
UPDATES = 60
"""Three times the lab's own, so that a run that diverges late would be seen."""


def measure_throw(seed: int) -> Mapping[str, float]:
    """What an update meets, for updates 1 to 3: learning rate over critical rate, and cost.

    With them the update at which the cost is NaN or infinite; inf if it never is.
    """
    run = cnnlab.Run("question", learning_rate=RATE, seed=seed)
    found = {}
    for update in (1, 2, 3):
        found[f"times_critical_{update}"] = RATE / cnnlab.critical_learning_rate(run).value
        found[f"cost_{update}"] = run.step().cost
    return found | {"diverged_at": find_end(run, UPDATES)}


def measure_other_rates(seed: int) -> Mapping[str, float]:
    """The update at which the cost is NaN or infinite at ten times the lab's learning rate, and at a tenth of it."""
    starts = {"at_0.01": 1e-2, "at_0.0001": 1e-4}
    return {name: find_end(cnnlab.Run("question", learning_rate=rate, seed=seed)) for name, rate in starts.items()}


def measure_digits(seed: int) -> Mapping[str, float]:
    """The update at which the cost is NaN or infinite in float32 and in float64, and the last cost of the latter."""
    short, long = (cnnlab.Run("question", learning_rate=RATE, seed=seed, precision=p) for p in ("float32", "float64"))
    return {"float32": find_end(short), "float64": find_end(long), "last_cost": long.record.cost[-1]}


def find_end(run: cnnlab.Run, updates: int = 20) -> float:
    """Train a run to so many updates; the one at which its cost is NaN or infinite, or inf."""
    run.advance(updates - run.updates, until="nonfinite")
    return run.record.first_nonfinite or math.inf


CLAIMS = (
    Claim("08_throw", measure_throw, tuple(range(64)), again=(0, 4)),
    Claim("08_rates", measure_other_rates, tuple(range(64))),
    Claim("08_digits", measure_digits, again=(13, 24)),
)
