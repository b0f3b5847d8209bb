"""What the lab on Adam says of many seeds: the first step, the bound, L2 beside decay, and where Adam diverges."""

from collections.abc import Mapping

import numpy as np
from claims import Claim

import cnnlab

NARROW = {"channels": 8, "hidden": (32, 32), "input_scaling": "standardised", "learning_rate": 1e-3}
TRIES: dict[str, dict[str, object]] = {
    "rate_10000": {"learning_rate": 10000},
    "beta2_0": {"beta2": 0},
    "log": {"cost": "softmax_log", "learning_rate": 0.1},
    "float16": {"precision": "float16"},
    "epsilon": {"precision": "float16", "adam_epsilon": 1e-4},
    "no_epsilon": {"adam_epsilon": 0},
}
"""What the lab tries on its narrow network, and an epsilon of 0."""


def start_narrow(seed: int, **changes: object) -> cnnlab.Run:
    """The lab's narrow network with Adam."""
    return cnnlab.Run("adam", seed=seed, **(NARROW | changes))


def measure_first(seed: int) -> Mapping[str, float]:
    """The question's network: Adam's critical rate, and the cost after the first update over the one before it."""
    run = cnnlab.Run("adam", seed=seed)
    critical = cnnlab.critical_learning_rate(run).value
    clipped = cnnlab.Run("adam", seed=seed, clip="norm")
    found = {"critical": critical}
    for name, each in (("thrown", run), ("clipped", clipped)):
        each.advance(2)
        found[name] = float(each.record.cost[1] / each.record.cost[0])
    return found


def measure_bound(seed: int) -> Mapping[str, float]:
    """The narrow network after 60 updates: whether its cost rises above three times what it was, by rate."""
    trained = start_narrow(seed)
    trained.advance(60)
    critical = cnnlab.critical_learning_rate(trained).value
    found = {}
    for times in (0.5, 1.5):
        run = trained.fork(learning_rate=times * critical)
        run.advance(12)
        costs = run.record.cost[60:]
        found[f"rises_{times}"] = float(max(costs) > 3 * costs[0])
        found[f"finite_{times}"] = float(np.isfinite(costs).all())
    return found


def measure_length(run: cnnlab.Run) -> float:
    """The root of the sum of all squared weights."""
    return float(np.sqrt(sum(np.square(weights).sum() for weights in run.weights().values())))


def measure_decay(seed: int) -> Mapping[str, float]:
    """How long the weights are after 30 updates over their first length, and the share of patches right at the end."""
    found = {}
    for name, optimizer in (("l2", "adam"), ("decay", "adamw")):
        for strength in (0.1, 10):
            run = start_narrow(seed, optimizer=optimizer, l2=strength)
            before = measure_length(run)
            run.advance(30)
            found |= {f"{name}_{strength}": measure_length(run) / before}
            found |= {f"{name}_{strength}_right": float(run.record.accuracy[-1])}
    return found


def measure_reach(run: cnnlab.Run) -> float:
    """The longest move of a weight in five updates, in learning rates."""
    longest, before = 0.0, run.weights()
    for _ in range(5):
        run.step()
        after = run.weights()
        longest = max(longest, *(float(abs(after[name] - before[name]).max()) for name in after))
        before = after
    return longest / run.knobs.learning_rate


def measure_broke(seed: int) -> Mapping[str, float]:
    """Whether a cost is NaN or inf within 30 updates (with a larger epsilon 5), and how far weights move."""
    found = {}
    for name, changes in TRIES.items():
        run = start_narrow(seed, **changes)
        found[name] = float(run.advance(5 if name == "epsilon" else 30, until="nonfinite").nonfinite)
    found |= {"reach": measure_reach(start_narrow(seed)), "reach_0": measure_reach(start_narrow(seed, beta2=0))}
    return found


CLAIMS = (
    Claim("12_first", measure_first, tolerance=0.05),
    Claim("12_bound", measure_bound),
    Claim("12_decay", measure_decay),
    Claim("12_broke", measure_broke, again=(4, 5), tolerance=0.1),
)
