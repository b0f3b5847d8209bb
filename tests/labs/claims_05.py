"""What lab 05 says of many seeds: where the first NaN or inf is made, how far the rate is too high, what mends it."""

import numpy as np
from claims import Claim

import cnnlab

POSTED = ("learning_rate", "clip", "init", "l2", "epsilon")
"""What the five posted remedies change."""
DETECTORS = tuple(cnnlab.first_alarms(cnnlab.Run("question").record))


def measure_autopsy(seed: int) -> dict[str, float]:
    """Place and cause of a seed's NaN, when each detector fires, and which of the five posted remedies mend."""
    run = cnnlab.Run("question", seed=seed)
    run.advance(20)
    record = run.record
    found = cnnlab.autopsy(record)
    posted = [trial for trial in found.remedies if trial.remedy.posted]
    verdicts = {name: trial.verdict for trial in posted for name in POSTED if name in trial.remedy.changes}
    alarms = cnnlab.first_alarms(record)
    return {
        "broke at": record.first_nonfinite or np.inf,
        "layer": record.layers.index(found.layer),
        "in an activation": found.phase == "activation",
        "overflow": found.operation == "overflow",
        "rate first": found.cause == "learning rate above critical",
        "inputs named": "inputs not scaled" in {cause.name for cause in found.causes},
        **{f"{name} fires at": alarms[name] or np.inf for name in DETECTORS},
        **{f"{name} mends": verdicts[name] == "mends" for name in POSTED},
        **{f"{name} hides": verdicts[name] == "only hides" for name in POSTED},
    }


def measure_excess(seed: int) -> dict[str, float]:
    """How many times the critical learning rate 0.01 is, with raw and standardised pixels, at the start and later."""
    found = {}
    for scaling in ("raw", "standardised"):
        run = cnnlab.Run("question", seed=seed, input_scaling=scaling)
        found[scaling] = 0.01 / cnnlab.critical_learning_rate(run).value
        run.step()
        found[f"{scaling}, after one update"] = 0.01 / cnnlab.critical_learning_rate(run).value
    return found


CLAIMS = (Claim("05_autopsy", measure_autopsy, again=(3, 5)), Claim("05_excess", measure_excess))
