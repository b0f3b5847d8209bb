"""What the lab on vanishing signals says of many seeds: what is left of a gradient, and what learns."""

from collections.abc import Mapping

from claims import Claim

import cnnlab

RATES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
NORMS = ("batch", "layer", "group")
TRAINED = {
    "plain": {"activation": "sigmoid"},
    "batch": {"activation": "sigmoid", "normalization": "batch"},
    "shortcuts": {"activation": "sigmoid", "residual": "on"},
}
"""Networks of twenty convolutions with sigmoids, by name."""


def measure_share(seed: int, depth: int, activation: str, **changes: object) -> float:
    """The gradient that comes to the first convolution over the one that comes to the last."""
    run = cnnlab.Run("deep_plain", seed=seed, depth=depth, activation=activation, **changes)
    found = cnnlab.measure_signals(run)
    back = dict(zip(found.layers, found.backward_deviation, strict=True))
    return float(back["cv0"] / back[f"cv{depth - 1}"])


def measure_spread(seed: int, activation: str) -> float:
    """How much the patches differ after the last of 20 convolutions, over how much they differ after the first."""
    outputs = cnnlab.Run("deep_plain", seed=seed, activation=activation).activations()
    first, last = (float(outputs[name].std(axis=0).mean()) for name in ("cv0", "cv19"))
    return last / first


def measure_gradient(seed: int) -> Mapping[str, float]:
    """What is left of the gradient by activation, depth and scale of the weights, and of the patches' differences."""
    found = {f"sigmoid_{depth}": measure_share(seed, depth, "sigmoid") for depth in (5, 20, 50)}
    for scale in (0.8, 1, 1.25):
        found |= {f"{name}_{scale}": measure_share(seed, 50, name, init_scale=scale) for name in ("tanh", "relu")}
    found["sigmoid_1.25"] = measure_share(seed, 50, "sigmoid", init_scale=1.25)
    return found | {"sigmoid_spread": measure_spread(seed, "sigmoid")}


def measure_remedies(seed: int) -> Mapping[str, float]:
    """What is left of the gradient after fifty sigmoids with each remedy, and after fifty ReLUs."""
    found = {name: measure_share(seed, 50, "sigmoid", normalization=name) for name in NORMS}
    found["shortcuts"] = measure_share(seed, 50, "sigmoid", residual="on")
    found["relu_batch"] = measure_share(seed, 50, "relu", normalization="batch")
    found["relu_shortcuts"] = measure_share(seed, 50, "relu", residual="on")
    for channels in (8, 32):
        wide = measure_share(seed, 20, "sigmoid", normalization="group", channels=channels)
        found[f"group_of_{channels // 8}"] = wide
    return found


def measure_learning(seed: int) -> Mapping[str, float]:
    """The share of patches that are right in the last epoch, by network."""
    found = {}
    for name, changes in TRAINED.items():
        run = cnnlab.Run("deep_plain", patch_size=8, seed=seed, **changes)
        run.advance(160, until="nonfinite")
        found[name] = float(run.record.accuracy[-20:].mean())
    return found


def train_vanishing(seed: int, **changes: object) -> Mapping[str, float]:
    """The share of patches right in the last epoch of the preset, and whether the cost became NaN or inf."""
    run = cnnlab.Run("vanishing", seed=seed, **changes)
    end = run.advance(54, until="nonfinite")
    return {"right": float(run.record.accuracy[-6:].mean()), "broke": float(end.nonfinite)}


def measure_small(seed: int) -> Mapping[str, float]:
    """What comes to cv0 and hid2 in the preset `vanishing`, and what becomes of it at other rates and with remedies."""
    back = cnnlab.measure_signals(cnnlab.Run("vanishing", seed=seed)).backward_deviation
    found = {"first": float(back[0] / back[-1])}
    tried = {f"rate_{rate:g}": {"learning_rate": rate} for rate in RATES}
    tried |= {"batch": {"normalization": "batch"}}
    for name, changes in tried.items():
        ends = train_vanishing(seed, **changes)
        found |= {f"{name}_right": ends["right"], f"{name}_broke": ends["broke"]}
    return found


CLAIMS = (
    Claim("10_gradient", measure_gradient),
    Claim("10_remedies", measure_remedies),
    Claim("10_learning", measure_learning),
    Claim("10_small", measure_small),
)
