"""What the lab on rewinding says of 32 runs that explode."""

import math

import numpy as np
from claims import Claim

import cnnlab

EXPLODING = (0, 4, 5, 13, 14, 16, 17, 18, 23, 24, 26, 28, 30, 32, 33, 46, 48, 49, 51, 55, 58, 61, 65, 66, 67, 75, 77)
EXPLODING += (78, 81, 87, 89, 90)
"""The first 32 seeds whose cost becomes NaN or infinite within 20 updates at 0.001."""


def measure_rescue(seed: int) -> dict[str, float]:
    """When a run was last in order, what clipping and a lower rate save, and whether it explodes again to the bit."""
    run = cnnlab.Run("question", seed=seed, learning_rate=1e-3)
    run.advance(20, until="nonfinite")
    record, broke = run.record, run.record.first_nonfinite or math.inf
    safe, start = cnnlab.before_explosion(record), record.cost[0]
    alarm = next(frame.step for frame in record.frames if frame.update_ratio.max() > 10)
    early, late = (run.fork(safe + wait, clip="norm").advance(20).cost for wait in (0, 1))
    lower = [run.fork(step, learning_rate=1e-4) for step in range(len(record))]
    ends = [twin.advance(20, until="nonfinite").cost for twin in lower]
    saved = [step for step, end in enumerate(ends) if end < start]
    nudged = run.fork(safe, learning_rate=1.001e-3)
    nudged.advance(20, until="nonfinite")
    change = nudged.record.cost[: len(record)] / record.cost[: len(nudged.record)]
    before = cnnlab.critical_learning_rate(run.fork(saved[-1])).value
    after = cnnlab.critical_learning_rate(lower[saved[-1]]).value
    run.rewind(safe)
    run.advance(20, until="nonfinite")
    found = {
        "broke": broke,
        "safe": safe,
        "alarm": alarm,
        "different": sum(a.tobytes() != b.tobytes() for a, b in zip(record.cost, run.record.cost, strict=True)),
        "changed_first": change[safe + 1],
        "changed_last": change[np.isfinite(change)][-1],
        "nudged_broke": nudged.record.first_nonfinite or math.inf,
        "early_saved": early < start,
        "late_saved": late < start,
        "late_broke": not math.isfinite(late),
        "latest": saved[-1],
        "gaps": saved != list(range(len(saved))),
        "earliest_is_best": ends[0] == min(ends[step] for step in saved),
        "most_accurate": max(lower[step].measure_held_out() for step in saved),
        "flatter": after > before,
        "above_critical": before < 1e-4,
    }
    return {name: float(value) for name, value in found.items()}


CLAIMS = (Claim("06_rescue", measure_rescue, EXPLODING, again=(46, 13)),)
