"""What the lab on penalties and ReLUs says of many seeds: where a penalty acts, what it leaves, which ReLUs shut."""

import math
from collections.abc import Mapping

import numpy as np
from claims import Claim

import cnnlab

RELUS = ("question", "every_layer", "none", "softmax_too")
STRENGTHS = (0, 0.1, 1, 10, 100, 150)


def measure_difference(seed: int, updates: int, **changes: object) -> float:
    """The largest difference between two weights with the penalty in the cost and in the update."""
    places = ("cost", "update")
    pair = [cnnlab.Run("question", seed=seed, learning_rate=1e-4, penalty_in=place, **changes) for place in places]
    for run in pair:
        run.advance(updates)
    one, other = (np.concatenate([weights.ravel() for weights in run.weights().values()]) for run in pair)
    return float(np.abs(one - other).max())


def measure_place(seed: int) -> Mapping[str, float]:
    """The difference after 20 updates of plain gradient descent, and after five with momentum and with clipping."""
    return {
        "l2": measure_difference(seed, 20, l2=0.1),
        "l1": measure_difference(seed, 20, l1=0.01),
        "momentum": measure_difference(seed, 5, l2=0.1, momentum=0.9),
        "clipping": measure_difference(seed, 5, l2=0.1, clip="norm"),
    }


def measure_strengths(seed: int) -> Mapping[str, float]:
    """By L2: the update of the first cost that is not finite (inf: none in 20), and what 100 leaves."""
    found, ends = {}, {}
    for l2 in STRENGTHS:
        run = cnnlab.Run("question", seed=seed, l2=l2)
        ends[l2] = run.advance(20, until="nonfinite").data_cost
        found[f"diverged_at_{l2}"] = run.record.first_nonfinite or math.inf
    return found | {"cost_at_100": ends[100]}


def measure_weakest(seed: int) -> Mapping[str, float]:
    """The weakest of 5, 10, 15, ... that survives, and the cost that it leaves without the penalty."""
    for l2 in range(5, 200, 5):
        frame = cnnlab.Run("question", seed=seed, l2=l2).advance(20, until="nonfinite")
        if not frame.nonfinite:
            return {"l2": l2, "cost": frame.data_cost}
    return {"l2": math.inf, "cost": math.nan}


def measure_relus(seed: int) -> Mapping[str, float]:
    """Who diverges by placement, and when a ReLU at the softmax lets no gradient through any more."""
    found = {}
    for relu in RELUS:
        run = cnnlab.Run("question", relu=relu, seed=seed, learning_rate=1e-3)
        found[relu] = int(run.advance(20, until="nonfinite").nonfinite)
    shut = run.record.total_gradient_norm == 0
    found["shut_at"] = float(np.argmax(shut)) + 1 if shut.any() else math.inf
    found |= {"open_again": int((~shut[np.argmax(shut) :]).any() and shut.any()), "cost": run.record.cost[-1]}
    found["shut_at_start"] = run.record.dead_relu[0, -1]
    slow = cnnlab.Run("question", relu="none", seed=seed, learning_rate=1e-4)
    return found | {"none_slow": int(slow.advance(20, until="nonfinite").nonfinite)}


def measure_critical(seed: int) -> Mapping[str, float]:
    """The critical learning rate by placement, and what a ReLU leaves of the mean square on the way."""
    runs = {relu: cnnlab.Run("question", relu=relu, seed=seed) for relu in RELUS[:3]}
    found = {relu: cnnlab.critical_learning_rate(run).value for relu, run in runs.items()}
    outputs = runs["every_layer"].activations()
    halves = [np.mean(np.maximum(out, 0) ** 2) / np.mean(out**2) for out in list(outputs.values())[:-1]]
    return found | {"left": float(np.mean(halves))}


def measure_line(seed: int) -> Mapping[str, float]:
    """Accuracy with ReLUs and without after 150 updates of `converges`, trained and held out.

    With ReLUs, `slow` is the rate of the run without.
    """
    found = {}
    for name, relu, rate in (("question", "question", 2e-3), ("slow", "question", 2e-4), ("none", "none", 2e-4)):
        run = cnnlab.Run("converges", relu=relu, learning_rate=rate, seed=seed)
        run.advance(150)
        found |= {f"{name}_held_out": run.measure_held_out(), f"{name}_trained": run.record.accuracy[-30:].mean()}
    fast = cnnlab.Run("converges", relu="none", seed=seed).advance(150, until="nonfinite")
    return found | {"none_fast": int(fast.nonfinite)}


CLAIMS = (
    Claim("03_place", measure_place),
    Claim("03_strengths", measure_strengths),
    Claim("03_weakest", measure_weakest, again=(10, 12)),
    Claim("03_relus", measure_relus),
    Claim("03_critical", measure_critical),
    Claim("03_line", measure_line),
)
