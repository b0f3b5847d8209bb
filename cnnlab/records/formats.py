"""Numbers as a person reads them."""

from __future__ import annotations

import math

from cnnlab.records.frame import is_measured


def number(value: float) -> str:
    """A value as a person reads it: 4.70, 0.00012, 4.5e7, NaN, inf, or that it was not measured."""
    if math.isnan(value):
        return "NaN" if is_measured(value) else "not measured"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}" if abs(value) >= 1 else f"{value:.3g}"
    return f"{value:.1e}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
