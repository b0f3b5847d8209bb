"""What a Run is given: each check gives the argument itself, or an error in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cnnlab.config.links import Plan
from cnnlab.config.settings import Knobs, Settings, check_loss_scale, check_names, quote
from cnnlab.records.record import Record


def check_same_settings(record: Record, changes: dict[str, Any]) -> Settings:
    """The settings of a record; TypeError if others are asked for. Only the device may be another."""
    check_names(changes)
    wanted = record.settings.replace(**{name: value for name, value in changes.items() if name == "device"})
    for name, value in changes.items():
        if getattr(wanted, name) != value:
            raise TypeError(
                f"{name} is that of the record, {getattr(wanted, name)!r}, got {quote(value)}: change it with set"
            )
    return wanted


def check_plan(plan: Any, start: Settings) -> Plan:
    """A plan itself; TypeError in a sentence if it is no (first update, Knobs) pairs, ValueError if one cannot be."""
    pairs = plan if isinstance(plan, (tuple, list)) else [None]
    if not all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], int) and isinstance(pair[1], Knobs)
        for pair in pairs
    ):
        raise TypeError(f"plan must be (first update, Knobs) pairs as rate_plan gives them, got {quote(plan)}")
    for _, knobs in plan:
        check_loss_scale(knobs, start.precision)
    return tuple(plan)


def check_watched(watch: Any) -> tuple[str, ...]:
    """The names in `watch`; TypeError in a sentence if it is no list of texts."""
    if isinstance(watch, str) or not isinstance(watch, Sequence) or not all(isinstance(name, str) for name in watch):
        raise TypeError(f'watch must be a list of weights such as ["hid1.weight[0,5]"], got {quote(watch)}')
    return tuple(watch)


def check_same_watched(record: Record, watch: Sequence[str] | None) -> tuple[str, ...]:
    """The weights that a record watches; TypeError if others are asked for."""
    if watch is not None and tuple(watch) != record.watched:
        raise TypeError(f"watch is that of the record, {record.watched}, got {tuple(watch)}")
    return record.watched
