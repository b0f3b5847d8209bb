"""What lab 00 says of many seeds."""

import math

from claims import Claim

import cnnlab

RATES = (1e-2, 1e-3, 1e-4)
UPDATES = 20
LOOSE = 0.3
"""On another kind of CPU the twenty updates of a run that survives end elsewhere, by this share at most."""


def find_break(run: cnnlab.Run) -> float:
    """The first update whose cost is NaN or infinite; inf if none of the twenty is."""
    run.advance(UPDATES, until="nonfinite")
    return run.record.first_nonfinite or math.inf


def measure_rates(seed: int) -> dict[str, float]:
    """When a seed breaks at each rate, what its update/weight ratios say of 0.01, and what 0.0001 comes to."""
    high, middle, low = (cnnlab.Run("question", seed=seed, learning_rate=rate) for rate in RATES)
    breaks = [find_break(run) for run in (high, middle, low)]
    ratios = [frame.update_ratio.max() for frame in high.record.frames]
    return {
        **dict(zip(map(str, RATES), breaks, strict=True)),
        "first_ratio": ratios[0],
        "alarm": next(step for step, ratio in enumerate(ratios, start=1) if ratio > 10),
        "first_cost": low.record.cost[0],
        "last_cost": low.record.cost[-1],
        "held_out": low.measure_held_out(),
    }


def measure_unit(seed: int) -> dict[str, float]:
    """How many times the critical rate is higher with pixels from 0 to 1, when a seed breaks, and what it comes to."""
    raw, unit = (cnnlab.Run("question", seed=seed, input_scaling=scaling) for scaling in ("raw", "unit"))
    raised = cnnlab.critical_learning_rate(unit).value / cnnlab.critical_learning_rate(raw).value
    return {
        "raised": raised,
        "breaks": find_break(unit),
        "last_cost": unit.record.cost[-1],
        "held_out": unit.measure_held_out(),
    }


CLAIMS: tuple[Claim, ...] = (
    Claim("00_rates", measure_rates, again=(5, 24), tolerance=LOOSE),
    Claim("00_unit", measure_unit),
)
