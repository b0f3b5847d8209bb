"""The parts of the dashboard beside its plots: header, controls built from LIMITS, and the strip of table and pictures.

Each is one widget with native inputs; what the user does arrives as a message. No torch, no plotly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anywidget
import ipywidgets
import traitlets

from cnnlab.config.settings import (
    HALF,
    KNOB_FIELDS,
    LIMITS,
    Choice,
    Limit,
    Number,
    NumberOrName,
    Pair,
    Settings,
    presets,
)
from cnnlab.dashboards.explanations import MEANINGS, explain_field, list_explanations
from cnnlab.dashboards.static_files import read_static
from cnnlab.dashboards.upload import LABELS, read_upload
from cnnlab.records.formats import format_fixed, shorten_exponent
from cnnlab.records.record import Record

AT_NEXT = "In force at the next update"
"""Title of the controls of what may change while it trains."""
START_AGAIN = "Starts again from update 0"
"""Title of the controls of what a run starts from."""
LIVE = KNOB_FIELDS
"""Fields in force at the next update."""
OPTIMISER = ("optimizer", "beta2", "adam_epsilon", "loss_scale")
"""Those of them in a group of their own, which is folded."""
RESTART = ("init_scale", "seed", "batch_size", "init", "input_scaling", "cost", "reduction", "relu", "precision")
"""Fields that start the question's network again."""
NETWORK = ("depth", "dropout", "padding", "activation", "normalization", "normalization_place", "residual")
"""Those of its layers, which are folded away at first."""
RESTART_OWN = ("seed", "batch_size", "precision")
"""Those that mean something for a network of the user's own."""
NEEDS = {"loss_scale": ("precision", HALF)}
"""Field -> the field and its value without which it does nothing, and is not to be chosen."""
PACES = {"1": 1.0, "2": 2.0, "5": 5.0, "10": 10.0, "20": 20.0, "full": None}
"""Choice of speed -> updates a second at most."""
PACE = Choice("Speed", tuple(PACES))
LASTING = 10.0
"""Seconds that a whole run should take at the speed that a preset starts with."""


class Texts(ipywidgets.Widget):
    """What the parts of a dashboard say, as JSON: told in one message, however many of them have changed.

    It is a model of ipywidgets, for the reason that `FigureState` gives.
    """

    header: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    controls: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    strip: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    doctor: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    patches = traitlets.Unicode().tag(sync=True)
    """The training patches as a picture: a text of its own, for it is long and seldom changes."""


class Part(anywidget.AnyWidget):
    """One part of the dashboard; `part` chooses what panel.js draws."""

    _esm = read_static("element.js", "panel.js")
    _css = read_static("theme.css", "panel.css")

    part = traitlets.Unicode().tag(sync=True)
    scale = traitlets.Float(1.0).tag(sync=True)
    texts = traitlets.Instance(Texts).tag(sync=True, **ipywidgets.widget_serialization)

    def __init__(self, received: Callable[[dict[str, Any]], None], state: Mapping[str, Any], **traits: Any) -> None:
        traits["texts"] = traits.get("texts") or Texts()
        setattr(traits["texts"], traits["part"], dict(state))
        super().__init__(**traits)
        self.on_msg(lambda _widget, message, buffers: received(read_upload(message, buffers)))

    @property
    def state(self) -> dict[str, Any]:
        """What this part says now."""
        return getattr(self.texts, self.part)

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        setattr(self.texts, self.part, dict(state))


class Header(Part):
    """State line, transport, preset, speed, progress."""

    presets: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    paces: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    explanations = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        received: Callable[[dict[str, Any]], None],
        scale: float,
        state: Mapping[str, Any],
        own_network: bool = False,
        **traits: Any,
    ) -> None:
        paces = [[name, "full speed" if pace is None else f"{name} a second"] for name, pace in PACES.items()]
        super().__init__(
            received, state, part="header", scale=scale, presets=list_presets(own_network), paces=paces,
            explanations=list_explanations(), **traits,
        )  # fmt: skip


class Controls(Part):
    """Sliders, boxes and choices for the fields of Settings."""

    limits = traitlets.Dict().tag(sync=True)
    groups: traitlets.List[list[Any]] = traitlets.List().tag(sync=True)
    schedules: traitlets.List[str] = traitlets.List().tag(sync=True)
    labels: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    """What an image of the user's own may be labelled by; empty where none is taken."""
    explanations = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        received: Callable[[dict[str, Any]], None],
        scale: float,
        state: Mapping[str, Any],
        groups: Mapping[str, Sequence[str]],
        schedules: Sequence[str] = (),
        takes_image: bool = False,
        **traits: Any,
    ) -> None:
        limits = {name: described(name) for names in groups.values() for name in names}
        listed = [[title, list(names)] for title, names in groups.items()]
        super().__init__(
            received, state, part="controls", scale=scale, limits=limits, groups=listed,
            schedules=list(schedules), labels=list(map(list, LABELS.items())) if takes_image else [],
            explanations=list_explanations(), **traits,
        )  # fmt: skip


def list_presets(own_network: bool) -> list[list[str]]:
    """Each preset and what the user reads; the question's is what a network of the user's own starts with."""
    shown = {"question": "own network"} if own_network else {}
    return [[name, shown.get(name, name.replace("_", " "))] for name in presets()]


def group_fields(own_network: bool) -> dict[str, Sequence[str]]:
    """The fields that have controls in a Lab, by the title above them."""
    live = {AT_NEXT: [name for name in LIVE if name not in OPTIMISER], "Optimiser": OPTIMISER}
    if own_network:
        return {**live, START_AGAIN: RESTART_OWN}
    return {**live, START_AGAIN: RESTART, "Network: starts again too": NETWORK}


class Strip(Part):
    """The watched weights as a table; kernels and patches as pictures."""

    def __init__(self, scale: float, state: Mapping[str, Any], **traits: Any) -> None:
        super().__init__(lambda _message: None, state, part="strip", scale=scale, **traits)


def described(name: str) -> dict[str, Any]:
    """A field's range as the front end needs it to build its control."""
    limit = LIMITS[name]
    plain = {"label": limit.label, "meaning": MEANINGS[name], "explanation": explain_field(name, limit.label)}
    if isinstance(limit, Number):
        zero = limit.low == 0 and not limit.open_low
        numbers = {"whole": limit.whole, "optional": limit.optional, "logarithmic": limit.logarithmic, "zero": zero}
        return {**plain, "kind": "number", "slider": list(limit.slider), **numbers}
    if isinstance(limit, Pair):
        raise TypeError(f"{name} has no control")
    options = list(limit.options)
    if isinstance(limit, NumberOrName):
        options += [f"{number:g}" for number in limit.suggested]
    return {**plain, "kind": "choice", "options": options, "needs": list(NEEDS.get(name, ()))}


def list_field_values(settings: Settings) -> dict[str, Any]:
    """The fields that controls show, as JSON."""
    return {name: getattr(settings, name) for name in (*LIVE, *RESTART, *NETWORK)}


def typed(changes: dict[str, Any]) -> dict[str, Any]:
    """Changes from the front end, with text typed into a box turned into numbers where it is one.

    Text that is no number stays text, for Settings to refuse with the field's range.
    """
    return {
        name: parse_typed_number(value, getattr(limit, "optional", False)) if takes_number(limit, value) else value
        for name, value in changes.items()
        for limit in [LIMITS.get(name)]
    }


def takes_number(limit: Limit | None, value: Any) -> bool:
    """Whether a value is to be a number."""
    return isinstance(limit, Number) or (isinstance(limit, NumberOrName) and value not in limit.options)


def parse_typed_number(value: Any, optional: bool = False) -> Any:
    """A number from text such as 1e-3 or 12; None from "all" or "none" where it is allowed; anything else as it is."""
    if optional and isinstance(value, str) and value.strip().lower() in ("all", "none"):
        return None
    if not isinstance(value, str):
        return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if math.isfinite(number) and number.is_integer() else number


def choose_starting_pace(updates: int) -> str:
    """The speed at which so many updates last about ten seconds."""
    wanted = updates / LASTING
    return next((name for name, pace in PACES.items() if pace is None or pace >= wanted), "full")


def tabulate_weights(record: Record, colours: dict[str, str], columns: int = 6) -> tuple[list[str], list[list[Any]]]:
    """Head and rows of the table of watched weights: the start, and the last updates."""
    steps = [0, *range(max(1, len(record) - columns + 2), len(record) + 1)]
    rows: list[list[Any]] = [
        [
            name,
            colours[name.partition("[")[0].rpartition(".")[0]],
            [shorten_exponent(format_fixed(record.watched_values[step, place], 5, 10)) for step in steps],
        ]
        for place, name in enumerate(record.watched)
    ]
    return ["start", *map(str, steps[1:])], rows
