"""Schedules of the learning rate: each is a plan of knobs by update, as a link or a Run takes it."""

from __future__ import annotations

import dataclasses
import itertools
import math
import numbers

from cnnlab.config.errors import check_whole_number
from cnnlab.config.links import Plan
from cnnlab.config.settings import Choice, Knobs, Settings, find_highest_rate, quote
from cnnlab.config.stability import find_critical_rate

SAFE = "as_high_as_is_safe"
SCHEDULE = Choice("Schedule", ("constant", "warm_up", "step", "cosine", SAFE))
"""How the learning rate goes on; the last one follows what is measured, and has no plan."""
WARM = 0.25
"""Share of a run over which the learning rate rises in a warm-up."""
FIRST = 0.01
"""Share of the learning rate that a warm-up begins with."""
STEPS = 3
"""Levels of the step schedule, each a tenth of the one before."""
LAST = 0.01
"""Share of the learning rate that a cosine ends with."""
PIECES = 100
"""Most values that a plan gives the learning rate: a long run's are held for several updates each."""
SHARE = 0.5
"""Share of the critical learning rate that is taken as high as is safe, unless told otherwise."""

GROWTH = 2.0
"""Most times that a safe learning rate may grow from one update to the next."""
LEAST, MOST = 1e-12, 1e3
"""Ends of what is taken for safe."""


def rate_plan(name: str, start: Settings | Knobs, updates: int, first: int = 1) -> Plan:
    """The plan of a schedule over `updates` updates from update `first` on, with the other knobs as in `start`.

    The learning rate of `start` is the highest. "warm_up": from a hundredth of it in equal factors over the first
    quarter, then constant (Goyal et al. 2017 rise linearly); "step": a tenth after each third; "cosine": half a cosine
    down to a hundredth (Loshchilov and Hutter 2017); "constant": no plan. "as_high_as_is_safe" has none to give in
    advance, and is a ValueError. `Run(plan=rate_plan("cosine", settings("question"), 20))` trains with it.
    """
    SCHEDULE.check("schedule", name)
    if name == SAFE:
        raise ValueError("as_high_as_is_safe follows what is measured, and has no plan: use Lab.schedule or safe_steps")
    updates = check_whole_number("updates", updates, 1)
    if name == "constant":
        return ()
    knobs = start.knobs if isinstance(start, Settings) else start
    hold = -(-updates // PIECES)
    shares = [(first + done, share(name, done, updates)) for done in range(0, updates, hold)]
    if name == "warm_up":
        shares.append((first + count_warm_up(updates), 1.0))
    changes = [next(group) for _, group in itertools.groupby(sorted(set(shares)), key=lambda pair: pair[1])]
    rates = [(step, float(f"{knobs.learning_rate * part:.6g}")) for step, part in changes]
    return tuple((step, dataclasses.replace(knobs, learning_rate=rate)) for step, rate in rates)


def share(name: str, done: int, updates: int) -> float:
    """The share of the learning rate that the update after `done` of all `updates` has."""
    if name == "warm_up":
        return FIRST ** max(1 - done / count_warm_up(updates), 0)
    if name == "step":
        return 10.0 ** -min(STEPS * done // updates, STEPS - 1)
    return LAST + (1 - LAST) * (1 + math.cos(math.pi * done / max(updates - 1, 1))) / 2


def count_warm_up(updates: int) -> int:
    """How many updates a warm-up takes."""
    return max(1, round(WARM * updates))


def critical_rate(eigenvalue: float, knobs: Knobs) -> float:
    """The optimiser's bound over the eigenvalue that its step meets, for gradient descent 2 (1 + momentum) over it.

    inf where that is 0 or less, NaN where it is not finite or not known.
    """
    return find_critical_rate(knobs.optimizer, eigenvalue, knobs.momentum)


def safe_rate(eigenvalue: float, knobs: Knobs, share: float, free: bool) -> float:
    """The learning rate at a share of the critical one, in four digits; the present one if there is no critical rate.

    Unless it is `free`, it at most doubles: where one long step leads, the curvature may be another.
    """
    if not (isinstance(share, numbers.Real) and not isinstance(share, bool) and 0 < share <= 10):
        raise ValueError(f"share must lie in (0, 10], got {quote(share)}")
    critical = critical_rate(eigenvalue, knobs)
    if not math.isfinite(critical):
        return knobs.learning_rate
    wanted = share * critical if free else min(share * critical, GROWTH * knobs.learning_rate)
    return min(float(f"{min(max(wanted, LEAST), MOST):.4g}"), find_highest_rate(knobs))
