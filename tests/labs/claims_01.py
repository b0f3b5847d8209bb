"""What lab 01 says of many seeds."""

import math

from claims import Claim

import cnnlab

TIMES = (0.5, 4, 64)
RATES = (1e-4, 2e-4, 4e-4)
LOOSE = 0.3
"""On another kind of CPU a run of twenty updates ends elsewhere, by this share at most; of forty, by twice as much."""


def find_break(run: cnnlab.Run, updates: int) -> float:
    """The first update whose cost is NaN or infinite; inf if there is none."""
    run.advance(updates, until="nonfinite")
    return run.record.first_nonfinite or math.inf


def measure_multiples(seed: int) -> dict[str, float]:
    """The critical rate of a start, when runs at its multiples break, and how high the cost of the lowest rises."""
    found = cnnlab.critical_learning_rate(cnnlab.Run("question", seed=seed))
    runs = [cnnlab.Run("question", seed=seed, learning_rate=times * found.value) for times in TIMES]
    breaks = {f"times_{times:g}": find_break(run, 20) for times, run in zip(TIMES, runs, strict=True)}
    cost = runs[0].record.cost
    return {"critical": found.value, "products": found.iterations, **breaks, "rise": max(cost) / cost[0]}


def measure_used(run: cnnlab.Run) -> float:
    """The share of 2 / learning rate that the curvature is."""
    return run.knobs_in_force.learning_rate / cnnlab.critical_learning_rate(run).value


def measure_stability(seed: int) -> dict[str, float]:
    """What share of 2 / learning rate the curvature is at the start, and after twenty updates at each rate."""
    found = {"start": measure_used(cnnlab.Run("question", seed=seed, learning_rate=RATES[1]))}
    for rate in RATES:
        run = cnnlab.Run("question", seed=seed, learning_rate=rate)
        run.advance(20)
        found[f"at_{rate}"] = measure_used(run)
    return found


def measure_high(seed: int) -> dict[str, float]:
    """When the three runs of unit 4 break, where their costs end, and what clipping and warm-up meet on the way."""
    start = cnnlab.settings("question", seed=seed, learning_rate=1e-3)
    plain, clipped = cnnlab.Run(start), cnnlab.Run(start, clip="norm")
    warm = cnnlab.Run(start, plan=cnnlab.rate_plan("warm_up", start, 40))
    breaks = {"plain": find_break(plain, 40), "clipped": find_break(clipped, 40), "warm": find_break(warm, 10)}
    used = measure_used(warm)
    warm.advance(30, until="nonfinite")
    return {
        **breaks,
        "warm": warm.record.first_nonfinite or math.inf,
        "plain_cost": plain.record.cost[-1],
        "clipped_cost": clipped.record.cost[-1],
        "warm_cost": warm.record.cost[-1],
        "shortest_gradient": min(clipped.record.total_gradient_norm),
        "warm_used": used,
    }


CLAIMS: tuple[Claim, ...] = (
    Claim("01_multiples", measure_multiples),
    Claim("01_stability", measure_stability, tolerance=LOOSE),
    Claim("01_high", measure_high, tolerance=2 * LOOSE),
)
