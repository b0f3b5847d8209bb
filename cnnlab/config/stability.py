"""How long a step each optimiser bears on a quadratic: learning rate times eigenvalue must stay below a bound.

On a quadratic of Hessian H the next weights w+ follow from w by a linear recursion. Along an eigenvector of eigenvalue
h, with s = learning rate times h, it oscillates with a growing amplitude as soon as its characteristic polynomial has a
root below -1, so the bound is the s at which the polynomial is 0 at z = -1:

- Gradient descent, w+ = w - s w: z - 1 + s; s = 2.
- Heavy ball with momentum b and dampening d (Polyak 1964), v+ = b v + (1 - d) h w, w+ = w - rate v+:
  z^2 - (1 + b - (1 - d) s) z + b; s = 2 (1 + b) / (1 - d).
- Nesterov as torch has it (Sutskever et al. 2013), v+ = b v + h w, w+ = w - rate (h w + b v+):
  z^2 - (1 + b) (1 - s) z + b (1 - s); s = 2 (1 + b) / (1 + 2 b).
- RMSprop divides by d = sqrt(v) + epsilon: with v frozen it is gradient descent (with momentum heavy ball) on the
  preconditioned Hessian, h being an eigenvalue of H / d.
- Adam, m+ = b m + (1 - b) h w: heavy ball of dampening b on the Hessian divided by (1 - b^t) (sqrt(v / (1 - b2^t)) +
  epsilon), both bias corrections of update t included; s = 2 (1 + b) / (1 - b), 38 at b = 0.9 (Cohen et al. 2022).
- A decoupled decay w takes rate * w of the weights off as well. At z = -1 it stands beside h with the bound's half as
  its factor, so that h + bound / 2 * w takes the place of h: 38 / rate - 19 w is Adam's largest stable h.

The other conditions on the roots hold then, as the product of the two is at most 1 in magnitude. Each is sharp while v
is frozen. With v live, RMSprop and Adam do not diverge on a quadratic: v grows with the gradient, and the eigenvalue
settles at the bound (Cohen et al. 2022). Standard library only.
"""

from __future__ import annotations

import math

BETAS = ("adam", "adamw")
"""Optimisers whose momentum is an average of gradients, not their sum."""


def find_bound(optimizer: str, momentum: float = 0.0, dampening: float = 0.0) -> float:
    """What learning rate times eigenvalue must stay below; the eigenvalue is preconditioned where the step is."""
    if optimizer == "nesterov":
        return 2 * (1 + momentum) / (1 + 2 * momentum)
    share = 1 - (momentum if optimizer in BETAS else dampening)
    return 2 * (1 + momentum) / share if share > 0 else math.inf


def find_critical_rate(
    optimizer: str, eigenvalue: float, momentum: float = 0.0, decay: float = 0.0, dampening: float = 0.0
) -> float:
    """The learning rate above which the step grows along an eigenvalue, beside a decoupled decay of all weights.

    inf where nothing curves upwards; NaN where the eigenvalue is not finite.
    """
    bound = find_bound(optimizer, momentum, dampening)
    curved = eigenvalue + bound / 2 * decay if decay else eigenvalue
    if math.isnan(curved) or math.isinf(curved):
        return math.nan
    return bound / curved if curved > 0 else math.inf


def find_largest_stable(
    optimizer: str, learning_rate: float, momentum: float = 0.0, decay: float = 0.0, dampening: float = 0.0
) -> float:
    """The largest eigenvalue that a learning rate bears, beside a decoupled decay of all weights."""
    return find_bound(optimizer, momentum, dampening) * (1 / learning_rate - decay / 2)


def describe_bound(optimizer: str, momentum: float = 0.0, dampening: float = 0.0, λ: str = "eigenvalue") -> str:
    """The bound over the eigenvalue, as a formula with its numbers."""
    if momentum == dampening == 0:
        return f"2/{λ}"
    above = f"2(1 + {momentum:g})"
    if optimizer == "nesterov":
        return f"{above}/((1 + 2·{momentum:g}) {λ})"
    share = momentum if optimizer in BETAS else dampening
    return f"{above}/((1 - {share:g}) {λ})" if share else f"{above}/{λ}"
