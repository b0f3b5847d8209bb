"""A record in one line: what was trained, each setting that was changed, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlab.config.settings import KNOB_FIELDS, OPTIMIZER_DEFAULTS
from cnnlab.records.formats import format_count, format_number
from cnnlab.records.frame import is_nonfinite

if TYPE_CHECKING:
    from cnnlab.records.record import Record

MOST = 160
"""Characters of a line; of more changes than it holds, it says how many there are."""
FEW = 3
"""Changes of one knob that are told one by one; more of them, such as a schedule's, are told by their ends."""
NO_RATE = 1e-300
"""Stands for a learning rate of 0, which knobs do not hold: a warm-up may begin with it."""
OWN_KNOBS = ("momentum", "beta2", "adam_epsilon")
"""Knobs that say how an optimiser works."""
Series = list[tuple[int, Any]]
"""(update, value from it on) of one knob, the start among them."""


def describe_record(record: Record) -> str:
    """A record in one line, such as "question, clip='norm' from update 2: 20 updates, last cost 0.693"."""
    series = {name: find_values(record, name) for name in KNOB_FIELDS}
    long = {name: values for name, values in series.items() if len(values) > FEW + 1}
    start = {name: value for name, value in find_start(record).items() if name not in long}
    changes = [
        *write_changes(start),
        *(describe_series(name, values) for name, values in long.items()),
        *describe_updates({name: values[1:] for name, values in series.items() if name not in long}),
    ]
    place = "" if record.branch.parent is None else f", {record.branch}"
    name = (record.network or "own network") if record.own_network else record.settings.preset
    end = f": {format_count(len(record), 'update')}, {describe_end(record)}{place}"
    return f"{join_within([name, *changes], MOST - len(end))}{end}"


def find_start(record: Record) -> dict[str, Any]:
    """The settings that a record started with, as far as they are not the preset's; of an own network, its rate."""
    wanted = record.settings
    if not record.own_network:
        return wanted.changes
    follows = ("learning_rate", "patches")  # which tells of the data, and is in the network's description
    preset = {} if wanted.preset == "question" else {"preset": wanted.preset}
    changes = {name: value for name, value in wanted.changes.items() if name not in follows}
    return {**preset, "learning_rate": wanted.learning_rate, **changes}


def find_values(record: Record, knob: str) -> Series:
    """The values of a knob, each with the first update that it was in force at."""
    values: Series = [(1, getattr(record.settings, knob))]
    for step, knobs in record.schedule:
        value = getattr(knobs, knob)
        if value != values[-1][1]:
            values.append((step, value))
    return values


def describe_series(name: str, values: Series) -> str:
    """Many changes of a knob: "learning_rate 1e-05 to 0.001 over updates 1 to 11 (10 changes)"."""
    found = [value for _, value in values]
    over = f"over updates {values[1][0] - 1} to {values[-1][0]} ({len(values) - 1} changes)"
    if any(isinstance(value, str) for value in found):
        return f"{name} {' or '.join(map(repr, dict.fromkeys(found)))} {over}"
    low, high = sorted((found[0], found[-1]))
    if low == min(found) and high == max(found):
        return f"{name} {write_value(found[0])} to {write_value(found[-1])} {over}"
    return f"{name} between {write_value(min(found))} and {write_value(max(found))} {over}"


def describe_updates(changes: dict[str, Series]) -> list[str]:
    """Few changes, update by update: "momentum=0.9, clip='norm' from update 3"."""
    steps = sorted({step for values in changes.values() for step, _ in values})
    return [
        ", ".join(
            write_changes({name: value for name, values in changes.items() for at, value in values if at == step})
        )
        + f" from update {step}"
        for step in steps
    ]


def write_changes(changes: dict[str, Any]) -> list[str]:
    """Changes as a call has them; those that belong to a new optimiser after its name: "adam (momentum 0.9)"."""
    optimizer = changes.get("optimizer")
    if optimizer is None:
        return [f"{name}={write_value(value)}" for name, value in changes.items()]
    defaults = OPTIMIZER_DEFAULTS[optimizer]
    own = [f"{name} {write_value(changes[name])}" for name in OWN_KNOBS if name in changes]
    untold = {"optimizer", *OWN_KNOBS, *(["penalty_in"] if changes.get("penalty_in") == defaults["penalty_in"] else [])}
    said = f"{optimizer} ({', '.join(own)})" if own else optimizer
    others = {name: value for name, value in changes.items() if name not in untold}
    return [said, *write_changes(others)]


def describe_end(record: Record) -> str:
    """How a record ends: its last cost, or since when that is NaN or inf."""
    first = record.first_nonfinite
    if not len(record):
        return "nothing trained yet"
    last = format_number(record.cost[-1])
    if first is None:
        return f"last cost {last}"
    was = format_number(record.cost[first - 1])
    if not is_nonfinite(record.cost[-1]):
        return f"cost {was} at update {first}, last cost {last}"
    steps, costs = record.known_costs
    others = np.flatnonzero([format_number(cost) != last for cost in costs])
    since = int(steps[others[-1] + 1]) if len(others) else first
    before = "" if since == first else f"{was} at update {first}, "
    return f"cost {before}{last} since update {since}"


def join_within(parts: list[str], most: int) -> str:
    """Parts as a list in so many characters; what has no room is counted. The first one is always there."""
    kept = len(parts)
    while kept > 1 and len(write_list(parts, kept)) > most:
        kept -= 1
    return write_list(parts, kept)


def write_list(parts: list[str], kept: int) -> str:
    """The first so many parts, and how many are left."""
    left = len(parts) - kept
    return ", ".join(parts[:kept]) + (f", {left} more changed" if left else "")


def write_value(value: Any) -> str:
    """A setting's value as a call has it, a number in six digits; what stands for a learning rate of 0 as that."""
    if value == NO_RATE:
        return "0"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
