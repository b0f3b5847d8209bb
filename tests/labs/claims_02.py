"""What the lab on starts says of many seeds: what passes the layers, who diverges, where the critical rate is."""

from collections.abc import Mapping

import numpy as np
from claims import Claim

import cnnlab

FORMULAS = ("question_6", "question_2", "he_normal", "glorot_uniform", "lecun_normal", "lsuv")
KEPT = ("question_6", "question_2", "he_normal", "lsuv")
"""The formulas that the lab tries with small pixels."""
DOUBT = 0.05
"""A patch is in doubt where the product of its two probabilities is above this; the product is at most a quarter."""


def measure_layers(seed: int) -> Mapping[str, float]:
    """By formula: mean square of the outputs of cv0, cv5 and softmax, and the gradient's norm in cv0 and in hid1."""
    found = {}
    for init in FORMULAS:
        run = cnnlab.Run("question", init=init, init_scale=1, seed=seed)
        forward = [float(np.mean(out**2)) for out in run.activations().values()]
        found |= {f"{init}_{layer}": forward[place] for layer, place in (("cv0", 0), ("cv5", 5), ("softmax", 8))}
        gradient = run.step().gradient_norm
        found |= {f"{init}_gradient_cv0": gradient[0], f"{init}_gradient_least": gradient.min()}
        found[f"{init}_gradient_second"] = sorted(gradient)[-2]
    return found


def diverges(seed: int, rate: float, init: str) -> int:
    """1 if 20 updates on raw pixels end in a cost that is NaN or infinite, else 0."""
    run = cnnlab.Run("question", init=init, init_scale=1, seed=seed, learning_rate=rate)
    return int(run.advance(20, until="nonfinite").nonfinite)


def measure_low(seed: int) -> Mapping[str, float]:
    """Who diverges at 0.001, by formula."""
    return {init: diverges(seed, 1e-3, init) for init in FORMULAS}


def measure_high(seed: int) -> Mapping[str, float]:
    """Who diverges at 0.01, by formula."""
    return {init: diverges(seed, 1e-2, init) for init in FORMULAS}


def measure_small(seed: int) -> Mapping[str, float]:
    """The last of 20 costs at 0.01 with standardised pixels, by formula."""
    changes = {"init_scale": 1, "seed": seed, "input_scaling": "standardised"}
    return {init: cnnlab.Run("question", init=init, **changes).advance(20).cost for init in KEPT}


def measure_critical(seed: int) -> Mapping[str, float]:
    """The critical learning rate by scale of weights and pixels, and as a sum; and how sure the softmax is."""

    def critical(**changes: object) -> float:
        return cnnlab.critical_learning_rate(cnnlab.Run("question", seed=seed, **changes)).value

    found = {f"scale_{scale}": critical(init_scale=scale) for scale in (1.8, 0.9, 0.45)}
    found |= {kind: critical(input_scaling=kind) for kind in ("unit", "standardised")}
    found["sum"] = critical(reduction="sum")
    for kind in ("raw", "unit"):
        products = multiply_probabilities(cnnlab.Run("question", seed=seed, input_scaling=kind))
        found |= {f"{kind}_in_doubt": np.mean(products > DOUBT), f"{kind}_product": products.mean()}
    return found


def multiply_probabilities(run: cnnlab.Run) -> np.ndarray:
    """The product of a patch's two probabilities, which is the cost's second derivative by its logit gap."""
    logits = run.activations()["softmax"]
    gap = np.abs(logits[:, 1] - logits[:, 0])
    return np.exp(-gap) / (1 + np.exp(-gap)) ** 2


CLAIMS = (
    Claim("02_layers", measure_layers),
    Claim("02_low", measure_low, again=(7, 8)),
    Claim("02_high", measure_high),
    Claim("02_small", measure_small),
    Claim("02_critical", measure_critical),
)
