"""Numbers as a user reads them: in few characters, with NaN, inf and what was not measured named as such."""

from __future__ import annotations

import math
import re

from cnnlab.records.frame import is_measured


def format_number(value: float) -> str:
    """A value in a sentence: 4.7, 0.00012, 4.5e7, NaN, inf, or that it was not measured."""
    if math.isnan(value):
        return "NaN" if is_measured(value) else "not measured"
    if value == 0:
        return "0"
    size = abs(value)
    return shorten_exponent(format(value, ".4g" if 1 <= size < 1e4 else ".3g" if 1e-3 <= size < 1 else ".1e"))


def format_digits(value: float, digits: int = 3) -> str:
    """A value in so many digits: 0.125, 6.87e17, nan, -inf."""
    return shorten_exponent(format(value, f".{digits}g"))


def format_growth(new: float, old: float) -> str:
    """A growth as a factor, however large: 9-fold, 214-fold, 2.4e23-fold, 1e600-fold; else from where to where."""
    if not (old > 0 and math.isfinite(new)):
        return f"from {format_number(old)} to {format_number(new)}"
    decades = math.log10(new) - math.log10(old)
    if decades < 3:
        return f"{format_digits(10**decades)}-fold"
    digits, exponent = f"{10 ** (decades % 1):.1e}".split("e")
    return f"{float(digits):g}e{math.floor(decades) + int(exponent)}-fold"


def format_fixed(value: float, decimals: int, most: float) -> str:
    """A value in a column: so many decimals up to a size of `most`, else 2: 4.702012, -7330.04, 4.53e+07, nan, -inf."""
    value = float(value) + 0.0  # -0.0 is 0
    if value and not 1e-4 <= abs(value) < 1e5:
        return format(value, ".2e")
    return format(value, f".{decimals if abs(value) < most else 2}f")


def format_count(number: int, noun: str) -> str:
    """A number of things, as in 1 update, 20 updates."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """A time, as in 4 s, 12 min, 3.5 h, 20 days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.0f} days"


def shorten_exponent(text: str) -> str:
    """A number's text without the plus and the zeros of its exponent: 4.5e7 and 1e-5 for 4.5e+07 and 1e-05."""
    return re.sub(r"e\+?(-?)0*(?=\d)", r"e\1", text)
