"""What the lab on sixteen bits says of many seeds: what overflows, what is rounded away, what underflows."""

from collections.abc import Mapping

import numpy as np
import torch
from claims import Claim
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.grad import conv2d_weight

import cnnlab

PRECISIONS = ("float32", "bfloat16", "float16")
LAYERS = ("cv0", "cv1", "cv2")
"""Those that a gradient comes to last."""


def measure_range(seed: int) -> Mapping[str, float]:
    """The first update that is NaN or inf in float16 with loss scaling, and what a rate of 0.01 does."""
    scaled, gentle = (
        cnnlab.Run("overflow", seed=seed, **new) for new in ({"loss_scale": "dynamic"}, {"learning_rate": 0.01})
    )
    scaled.advance(20, until="nonfinite")
    gentle.advance(20, until="nonfinite")
    first = scaled.record.first_nonfinite
    return {
        "scaled_first": np.nan if first is None else float(first),
        "gentle_broke": float(gentle.broken),
        "gentle_start": float(gentle.record.cost[0]),
        "gentle_end": float(np.median(gentle.record.cost[-5:])),
    }


def train(seed: int, precision: str, rate: float) -> tuple[cnnlab.Run, float]:
    """The lab's small network after 60 updates, and the share of hid1's weights that the last one left as they were."""
    run = cnnlab.Run("deep_plain", depth=4, patch_size=8, precision=precision, learning_rate=rate, seed=seed)
    run.advance(59)
    before = run.weights()["hid1.weight"]
    run.step()
    return run, float(np.mean(run.weights()["hid1.weight"] == before))


def measure_digits(seed: int) -> Mapping[str, float]:
    """Of the small network, by type and rate: the cost of the last epoch, and the share of weights that stood still."""
    found = {}
    for rate in (0.01, 0.001):
        for precision in PRECISIONS if rate == 0.01 else PRECISIONS[:2]:
            run, still = train(seed, precision, rate)
            name = f"{precision}_{rate:g}"
            found |= {f"{name}_cost": float(run.record.cost[-20:].mean()), f"{name}_still": still}
            found[f"{name}_ratio"] = float(np.median(run.record.update_ratio))
    return found


def measure_underflow(seed: int) -> Mapping[str, float]:
    """The norms of the first gradient of `loss_scaling` over those of float32, by layer, and what passes back there."""
    wide = cnnlab.Run("loss_scaling", precision="float32", seed=seed)
    back = cnnlab.measure_signals(wide).backward_deviation
    norms = wide.step().gradient_norm
    found = {"first": float(norms[0]), "back_first": float(back[0]), "back_last": float(back[-1])}
    ways = {"off": {"loss_scale": "off"}, "scaled": {"loss_scale": 1024}, "bfloat16": {"precision": "bfloat16"}}
    for name, changes in ways.items():
        shares = cnnlab.Run("loss_scaling", seed=seed, **changes).step().gradient_norm / norms
        found |= {f"{name}_{layer}": float(share) for layer, share in zip(LAYERS, shares, strict=False)}
        found[f"{name}_short"] = float((shares < 0.5).sum())
    return found | {"first_left_out": float(cnnlab.Run("loss_scaling", seed=seed).step().skipped)}


def measure_cancelling(seed: int) -> Mapping[str, float]:
    """Of `loss_scaling` in float32: what is left of the parts of cv1's gradient, and what rounding them does to it."""
    run = cnnlab.Run("loss_scaling", precision="float32", seed=seed)
    heard: dict[str, torch.Tensor] = {}
    layer = run.network.get_submodule("cv1")
    handle = layer.register_forward_hook(lambda _, given, out: heard.update(given=given[0].detach(), out=out))
    weights = {
        name: torch.tensor(values, dtype=torch.float32, requires_grad=True) for name, values in run.weights().items()
    }
    patches, labels = run.problem.batch(1)
    try:
        cost = cross_entropy(functional_call(run.network, weights, (patches,)), labels)
    finally:
        handle.remove()
    (parts,) = torch.autograd.grad(cost, heard["out"])

    def add_up(parts: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        return conv2d_weight(given, weights["cv1.weight"].shape, parts)

    exact, short = add_up(parts, heard["given"]), parts.half().float()
    return {
        "left": float(exact.abs().sum() / add_up(parts.abs(), heard["given"].abs()).sum()),
        "parts": float(short.norm() / parts.norm()),
        "gradient": float(add_up(short, heard["given"]).norm() / exact.norm()),
    }


CLAIMS = (
    Claim("13_range", measure_range),
    Claim("13_digits", measure_digits),
    Claim("13_underflow", measure_underflow),
    Claim("13_cancelling", measure_cancelling, tolerance=0.05),
)
