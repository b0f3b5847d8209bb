"""Settings and the changes of knobs on the way as a short text, such as "cnnlab:question?seed=3&at3.clip=norm".

A link names what differs from its preset and, as "look=4", the update that a lab is to show; nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote

from cnnlab.config.settings import (
    KNOB_FIELDS,
    LIMITS,
    Choice,
    Knobs,
    Limit,
    NumberOrName,
    Pair,
    Settings,
    change_knobs,
    check_loss_scale,
    check_names,
    check_preset,
    list_changes,
    make_settings,
    settings,
)

SCHEME = "cnnlab:"
"""What every link begins with."""
AT = re.compile(r"at([^.]*)\.(.*)", re.DOTALL)
"""A knob from an update on: at3.clip."""
UPDATE = re.compile(r"[1-9][0-9]{0,11}")
LOOK = "look"
"""The part that says which update is shown."""
SHOWN = 60
"""Characters of a link's part that an error repeats."""

Plan = tuple[tuple[int, Knobs], ...]
"""(first update, knobs in force from it on), in rising order."""


def format_link(start: Settings, schedule: Iterable[tuple[int, Knobs]], look: int = 0) -> str:
    """The link of settings, of a schedule (first update, knobs in force from it on; rising), and of an update shown.

    Equal runs have equal links; `opened` gives the same settings and changes back.
    """
    parts = []
    for first, changes in list_changes(start.knobs, schedule):
        if first <= 1:
            start = start.replace(**changes)
        else:
            parts += [f"at{first}.{name}={written(value)}" for name, value in changes.items()]
    parts = [f"{name}={written(value)}" for name, value in start.changes.items()] + parts
    parts += [f"{LOOK}={look}"] if look else []
    return f"{SCHEME}{start.preset}{'?' if parts else ''}{'&'.join(parts)}"


def opened(preset: str | Settings = "question", **changes: Any) -> tuple[Settings, Plan]:
    """The settings that a preset's name, settings or a link stand for, with any fields changed, and a link's plan.

    The plan is empty but for a link with knobs that change on the way. ValueError in one sentence for a bad link.
    """
    if not isinstance(preset, str) or not preset.strip().startswith(SCHEME):
        return settings(preset, **changes), ()
    name, _, query = preset.strip().removeprefix(SCHEME).partition("?")
    check_preset(unquote(name))
    at_start, later = parse_query(query)
    try:
        start = make_settings(unquote(name), at_start, later.pop(1, {}), changes)
    except ValueError as error:
        raise ValueError(f"the link cannot be opened: {error}") from None
    knobs, plan = start.knobs, []
    for first, new in sorted(later.items()):
        knobs = change_knobs(knobs, new)
        check_loss_scale(knobs, start.precision)
        plan.append((first, knobs))
    return start, tuple(plan)


def find_moment(preset: Any) -> int:
    """The update that a link shows; 0, the start, for one that names none, and for all that is no link."""
    if not isinstance(preset, str) or not preset.strip().startswith(SCHEME):
        return 0
    parts = (part.partition("=") for part in preset.strip().partition("?")[2].split("&"))
    found = [parse_update(unquote(text)) for name, _, text in parts if unquote(name) == LOOK]
    return found[-1] if found else 0


def parse_query(query: str) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """What a link changes at the start, and by update what it changes later; ValueError that names a part's fault."""
    at_start: dict[str, Any] = {}
    later: dict[int, dict[str, Any]] = {}
    for part in filter(None, query.split("&")):
        place, _, text = part.partition("=")
        try:
            if unquote(place) == LOOK:
                parse_update(unquote(text))
                continue
            found = AT.fullmatch(unquote(place))
            name = found[2] if found else unquote(place)
            value = parse_field(name, unquote(text))
            changes = later.setdefault(parse_first_update(found[1], name), {}) if found else at_start
            if name in changes:
                raise ValueError(f"{unquote(place)} is given twice")
        except (TypeError, ValueError) as error:
            raise ValueError(f"the link's part {shorten(part)!r} cannot be read: {error}") from None
        changes[name] = value
    return at_start, later


def parse_first_update(text: str, name: str) -> int:
    """The update from which a knob is in force; ValueError if it is none, or if the field is no knob."""
    update = parse_update(text)
    if name not in KNOB_FIELDS:
        raise ValueError(f"{name} is what a run starts from; on the way change {', '.join(KNOB_FIELDS)}")
    return update


def parse_update(text: str) -> int:
    """The number of an update; ValueError if it is none."""
    if not UPDATE.fullmatch(text):
        raise ValueError(f"the update must be a whole number of at least 1, got {shorten(text)!r}")
    return int(text)


def parse_field(name: str, text: str) -> Any:
    """A field's value from its text, checked; ValueError or TypeError with the range if it does not fit."""
    check_names([name])
    if name not in LIMITS:
        raise ValueError(f"{name} is what stands before the question mark")
    if len(text) > SHOWN:
        raise ValueError(f"{name} must {LIMITS[name]}, got {shorten(text)!r}")
    return LIMITS[name].check(name, parse_value(LIMITS[name], text))


def parse_value(limit: Limit, text: str) -> Any:
    """A text as the number, pair or None that it stands for, or as itself: then a limit refuses it in its own words."""
    if isinstance(limit, Choice) or (isinstance(limit, NumberOrName) and text in limit.options):
        return text
    if isinstance(limit, Pair):
        return tuple(parse_value(limit.each, part) for part in text.split(","))
    if isinstance(limit, NumberOrName):
        return parse_value(limit.number, text)
    if limit.optional and text == "none":
        return None
    try:
        return int(text) if limit.whole else float(text)
    except ValueError:
        return text


def written(value: Any) -> str:
    """A value in a link: exact, and in letters that an address may hold."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return quote(str(value).replace("e+", "e"), safe="")


def shorten(text: str) -> str:
    """The beginning of a text, enough to recognise it."""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
