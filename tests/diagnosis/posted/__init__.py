"""Posted failures and the smallest inputs of the kinds that are known, each with its right answer."""

from __future__ import annotations

from posted import fresh, fresh_steps, kinds, last, numbers, operations, silent, slopes, steps
from posted.case import PostedCase

REPORTS: tuple[PostedCase, ...] = (*slopes.CASES, *operations.CASES, *numbers.CASES, *steps.CASES, *silent.CASES)
"""Found in public."""
CASES: tuple[PostedCase, ...] = (*REPORTS, *fresh.CASES, *fresh_steps.CASES, *last.CASES, *kinds.CASES)
"""All of them."""
