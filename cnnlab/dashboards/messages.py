"""What a page may ask of a lab, checked before anything is done, and the call that answers it."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, cast

from cnnlab.config.settings import Choice, nearest, quote
from cnnlab.dashboards.controls import typed

if TYPE_CHECKING:
    from cnnlab.dashboards.lab import Lab


class Message(TypedDict, total=False):
    """What a page, or the button for an image, sends."""

    do: str
    updates: int
    branch: int
    set: dict[str, Any]
    schedule: str
    apply: int
    look: int | None
    preset: str
    pace: str
    stop_at_nan: bool
    present: bool
    hand: list[float]
    problem: str


def check_message(message: Any) -> Message:
    """A message itself; TypeError or ValueError in a sentence if it is none."""
    if not isinstance(message, dict):
        raise TypeError(f"a message must be an object, got {quote(message)}")
    for name, value in message.items():
        if name not in FIELDS:
            known = f"a message may hold {', '.join(FIELDS)}"
            raise ValueError(f"{known}, got {quote(name)}{nearest(name, FIELDS)}")
        FIELDS[name].check(name, value)
    return cast(Message, message)


def obey(lab: Lab, message: Any) -> None:
    """Do what a message asks; ValueError or TypeError in a sentence if it cannot be done.

    The page is told in any case that its hand was heard, for its controls then follow the lab again.
    """
    checked = check_message(message)
    try:
        for name, field in FIELDS.items():
            if name in checked:
                field.act(lab, checked)
    finally:
        if "hand" in checked:
            lab.heard = checked["hand"]
            lab.worker.ask()


def check_updates(updates: Any) -> int:
    """A number of updates; ValueError in a sentence if it is none."""
    number: Any = updates if isinstance(updates, numbers.Real) and not isinstance(updates, bool) else 0
    if number != number // 1 or not 1 <= number <= 1e6:
        raise ValueError(f"updates must be a whole number in [1, 1e6], got {quote(updates)}")
    return int(number)


def check_switch(name: str, value: Any) -> bool:
    """A switch itself; TypeError if a value is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {quote(value)}")
    return value


def find_field(message: Any) -> str:
    """The one field that a message sets, beside which the page says why it was refused; '' where it sets none."""
    if not isinstance(message, dict):
        return ""
    if "problem" in message:
        return "image"
    changes = message.get("set")
    names = list(changes) if isinstance(changes, dict) else [name for name in ALONE if name in message]
    return str(names[0]) if len(names) == 1 else ""


def press(lab: Lab, message: Message) -> None:
    """Do what a button says."""
    lab.forget_problem()
    BUTTONS[Choice("Action", tuple(BUTTONS)).check("do", message["do"])](lab, message)


def call_branch(call: Callable[[Any], None], message: Message) -> None:
    """Make a call with the branch that a message names; the call refuses a message that names none."""
    call(message.get("branch"))


def refuse(_lab: Lab, message: Message) -> None:
    """Raise what the button for an image tells of."""
    raise ValueError(message["problem"])


def check_changes(name: str, value: Any) -> None:
    """TypeError if a value is not an object of settings by name."""
    if not isinstance(value, dict) or not all(isinstance(field, str) for field in value):
        raise TypeError(f"{name} must be an object of settings by name, got {quote(value)}")


def check_text(name: str, value: Any) -> None:
    """TypeError if a value is not a text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, got {quote(value)}")


def check_hand(name: str, value: Any) -> None:
    """TypeError if a value is not two finite numbers, which a page is told again."""
    if not isinstance(value, list) or len(value) != 2 or not all(map(is_finite, value)):
        raise TypeError(f"{name} must be two finite numbers, got {quote(value)}")


def is_finite(value: Any) -> bool:
    """Whether a value is a number that is neither NaN nor infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


@dataclass(frozen=True)
class Field:
    """One field of a message."""

    act: Callable[[Lab, Message], object] = lambda _lab, _message: None
    """The call that answers it; none for a field that goes with another one."""
    check: Callable[[str, Any], object] = lambda _name, _value: None
    """The check of its value; none where the call itself knows the range."""


FIELDS: dict[str, Field] = {
    "problem": Field(refuse, check_text),
    "do": Field(press),
    "updates": Field(),
    "branch": Field(),
    "set": Field(lambda lab, message: lab.set(**typed(message["set"])), check_changes),
    "schedule": Field(lambda lab, message: lab.schedule(message["schedule"])),
    "apply": Field(lambda lab, message: lab.apply(message["apply"])),
    "look": Field(lambda lab, message: lab.look_at(message["look"])),
    "preset": Field(lambda lab, message: lab.choose(message["preset"])),
    "pace": Field(lambda lab, message: lab.choose_pace(message["pace"])),
    "stop_at_nan": Field(lambda lab, message: lab.stop_at_nan(message["stop_at_nan"]), check_switch),
    "present": Field(lambda lab, message: lab.choose_mode(message["present"]), check_switch),
    "hand": Field(check=check_hand),
}
"""Name of a field -> its call and its check, in the order in which they are done."""
ALONE = ("updates", "schedule")
"""Fields beside which the page says why they were refused, and that are no settings."""
BUTTONS: dict[str, Callable[[Lab, Message], object]] = {
    "play": lambda lab, _message: lab.play(),
    "pause": lambda lab, _message: lab.pause(),
    "reset": lambda lab, _message: lab.reset(),
    "new_seed": lambda lab, _message: lab.new_seed(),
    "step": lambda lab, message: lab.play(check_updates(message.get("updates"))),
    "before_explosion": lambda lab, _message: lab.look_before_explosion(),
    "rewind": lambda lab, _message: lab.rewind(),
    "bring_back": lambda lab, _message: lab.bring_back(),
    "leave_behind": lambda lab, _message: lab.leave_behind(),
    "explain": lambda lab, _message: lab.examine(),
    "show_forecast": lambda lab, _message: lab.show_forecast(),
    "hide_doctor": lambda lab, _message: lab.doctor.hide(),
    "fork": lambda lab, _message: lab.fork(),
    "choose_branch": lambda lab, message: call_branch(lab.choose_branch, message),
    "delete_branch": lambda lab, message: call_branch(lab.delete_branch, message),
}
"""What `do` may be -> the call that answers it."""
