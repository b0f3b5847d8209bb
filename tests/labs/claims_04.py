"""What lab 04 says of many seeds: how the log of a softmax breaks, what an epsilon leaves, what learns in the end."""

from typing import Any

import numpy as np
from claims import Claim

import cnnlab

EPOCH = 33
"""Updates in an epoch of the preset `sudden_nan`."""


def train(seed: int, updates: int, **changes: Any) -> cnnlab.Run:
    """A run of the preset, trained for so many updates."""
    run = cnnlab.Run("sudden_nan", seed=seed, **changes)
    run.advance(updates)
    return run


def measure_ends(seed: int) -> dict[str, float]:
    """How 66 updates end with each way to write the cost, in how many something is wrong without any gradient, and what
    share of the sixth epoch's answers is right.
    """
    plain = train(seed, 2 * EPOCH).record
    safe_run, exact_run = train(seed, 2 * EPOCH, epsilon=1e-8), train(seed, 2 * EPOCH, cost="log_softmax")
    safe, exact = safe_run.record, exact_run.record
    for run in (safe_run, exact_run):
        run.advance(4 * EPOCH)
    broke = plain.first_nonfinite or np.inf
    dead = np.nan_to_num(exact.dead_relu[-1]) == 1
    reached, behind = np.split(exact.gradient_norm[-1], [np.flatnonzero(dead).max(initial=-1) + 1])
    last = int(min(broke, len(plain) + 1)) - 1  # the last update with a finite cost
    return {
        "broke at": broke,
        "broke by inf": bool(np.isinf(plain.cost).any()),
        "gap before": plain.logit_gap[last - 1],
        "falls before": (np.diff(plain.cost[:last]) < 0).sum(),
        "first alarm": cnnlab.first_alarms(plain)["cnnlab"] or np.inf,
        "wrong with epsilon": (safe.accuracy < 1).sum(),
        "silent with epsilon": count_silent(safe),
        "right with epsilon": safe.accuracy[-EPOCH:].mean(),
        "right with epsilon in the sixth epoch": safe_run.record.accuracy[-EPOCH:].mean(),
        "epsilon is finite": safe.first_nonfinite is None,
        "epsilon is masked": cnnlab.autopsy(safe, prove=False).cause == "masked, not mended",
        "silent with log-softmax": count_silent(exact),
        "log-softmax is finite": exact.first_nonfinite is None,
        "log-softmax above 18.42": exact.cost.max() > 18.42,
        "right with log-softmax": exact.accuracy[-EPOCH:].mean(),
        "right with log-softmax in the sixth epoch": exact_run.record.accuracy[-EPOCH:].mean(),
        "a layer is dead with log-softmax": dead.any(),
        "no gradient up to a dead layer": dead.any() and not reached.any(),
        "gradient behind a dead layer": dead.any() and behind.all(),
    }


def count_silent(record: cnnlab.Record) -> int:
    """In how many updates an answer is wrong, and no gradient is there."""
    return int(((record.accuracy < 1) & (record.total_gradient_norm == 0)).sum())


REMEDIES: dict[str, dict[str, Any]] = {
    "a lower learning rate": {"learning_rate": 3e-4},
    "another initialisation": {"init": "question_2", "init_scale": 1.0},
}


def measure_learning(seed: int) -> dict[str, float]:
    """What share of the sixth epoch's answers is right with two remedies, and whether the autopsy says that they mend.

    NaN for the verdict on a run that does not break in 20 updates. The `copy` is the one that the autopsy tried.
    """
    broken = train(seed, 20)
    trials = cnnlab.autopsy(broken.record).remedies
    verdicts = {trial.remedy.name: trial.verdict == "mends" for trial in trials}
    starts = {trial.remedy.name: trial.start for trial in trials}
    found: dict[str, float] = {}
    for name, changes in REMEDIES.items():
        record = train(seed, 6 * EPOCH, **changes).record
        found[f"{name}: mends"] = verdicts.get(name, np.nan)
        found[f"{name}: right"] = record.accuracy[-EPOCH:].mean()
        found[f"{name}: largest gap"] = record.logit_gap.max()
    slow = "a lower learning rate"
    copy = broken.fork(starts.get(slow, 0), **REMEDIES[slow])
    copy.advance(6 * EPOCH)
    found[f"{slow}: copy right"] = copy.record.accuracy[-EPOCH:].mean()
    return {**found, f"{slow}: copy breaks": copy.record.first_nonfinite is not None}


CLAIMS = (
    # Which example is wrong at which update hangs on the last bits of a long run: another CPU may differ by a few.
    Claim("04_ends", measure_ends, again=(5, 10), tolerance=0.15),
    Claim("04_learning", measure_learning, again=(0, 1), tolerance=0.15),
)
