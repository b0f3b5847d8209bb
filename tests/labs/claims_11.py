"""What the lab on momentum says of many seeds: where the cost rises, what is gained, how long a swing is."""

from collections.abc import Mapping

import numpy as np
from claims import Claim

import cnnlab

WAYS = {
    "plain": {"momentum": 0.0},
    "momentum": {"momentum": 0.9},
    "nesterov": {"optimizer": "nesterov", "momentum": 0.9},
}
TIMES = (0.8, 1.5, 2.2)
"""Learning rates over the critical one of plain descent."""


def flatten(run: cnnlab.Run) -> np.ndarray:
    """All weights in one row."""
    return np.concatenate([weights.ravel() for weights in run.weights().values()])


def count_turns(run: cnnlab.Run, valley: cnnlab.SharpestDirection) -> int:
    """How often the way along a direction turns round in 30 updates."""
    start, along = flatten(run), valley.line.direction.numpy()
    places = [0.0]
    while len(places) < 31:
        run.step()
        places.append(float((flatten(run) - start) @ along))
    moves = np.diff(places)
    return int((moves[1:] * moves[:-1] < 0).sum())


def measure_network(seed: int) -> Mapping[str, float]:
    """After 60 updates: the highest and the last cost of twelve more, by rate and way, and the turns of a swing."""
    trained = cnnlab.Run("question", learning_rate=1e-4, seed=seed)
    trained.advance(60)
    critical = cnnlab.critical_learning_rate(trained)
    found: dict[str, float] = {"used": 1e-4 / critical.value}
    for times in TIMES:
        for name, changes in WAYS.items():
            run = trained.fork(learning_rate=times * critical.value, **changes)
            run.advance(12)
            costs = run.record.cost[60:]
            found |= {f"{name}_{times}_rise": max(costs) / costs[0], f"{name}_{times}_end": costs[-1] / costs[0]}
    valley = cnnlab.measure_direction(trained, critical)
    run = trained.fork(learning_rate=critical.value / 2, momentum=0.9)
    return found | {"turns": count_turns(run, valley)}


CLAIMS = (Claim("11_network", measure_network),)
