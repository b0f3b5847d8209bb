"""The knobs of a record as passages of a script: their assignments, the table of their changes, the training loop.

Only text is made here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cnnlab.config.settings import KNOB_FIELDS, KNOB_NUMBERS, Knobs, Settings
from cnnlab.export.excerpts import CLIP_CALLS, LIKELIHOODS
from cnnlab.records.record import Record

KINDS = tuple(name for name in KNOB_FIELDS if name not in KNOB_NUMBERS)
"""The knobs that are no numbers."""


@dataclass(frozen=True)
class Table:
    """The knobs that a script has use for, over the updates of its run."""

    firsts: tuple[int, ...]
    """The updates from which on the rows are in force."""
    columns: dict[str, list[Any]]
    """Knob -> its value in each row; knobs that are off throughout are left out."""

    @classmethod
    def of(cls, record: Record) -> Table:
        """That of a record."""
        rows = [(first, knobs) for first, knobs in record.schedule if first <= len(record)]
        columns = {name: column(name, [knobs for _, knobs in rows], record.settings) for name in KNOB_FIELDS}
        used = {name: values for name, values in columns.items() if set(values) - {0.0, "off", None}}
        return cls(tuple(first for first, _ in rows), used)

    def values(self, name: str) -> list[Any]:
        """The values that a knob takes, each once, in the order of their first use; none if it is off throughout."""
        return list(dict.fromkeys(self.columns.get(name, [])))

    @property
    def changing(self) -> list[str]:
        """The knobs that change, numbers before kinds."""
        return sorted((name for name in self.columns if len(self.values(name)) > 1), key=KINDS.__contains__)

    @property
    def numbers(self) -> list[str]:
        """Those of them that are numbers."""
        return [name for name in self.changing if name not in KINDS]

    def text(self, settings: Settings, room: int) -> str:
        """The assignments of the knobs that stay, and the table of those that change, in at most so many lines."""
        stay = {name: values[0] for name, values in self.columns.items() if name not in (*self.changing, *KINDS)}
        lines = [tensors(list(stay), tuple_of(list(stay.values())), settings)] if stay else []
        if self.changing:
            lines += [f"# From which update on: {', '.join(self.changing)}", *self.schedule(room)]
        return "\n".join(lines)

    def schedule(self, room: int) -> list[str]:
        """The table of the knobs that change, as a dict: a line a change, or several where there are too many."""
        entries, before = [], None
        for first, *row in zip(self.firsts, *(self.columns[name] for name in self.changing), strict=True):
            if row != before:
                entries.append(f"{first}: {tuple_of(row)},")
            before = row
        if room == 1:
            return [f"SCHEDULE = {{{' '.join(entries)}}}  # fmt: skip"]
        share = -(-len(entries) // room)
        lines = ["    " + " ".join(entries[place : place + share]) for place in range(0, len(entries), share)]
        return ["SCHEDULE = {", *lines, "}" if share == 1 else "}  # fmt: skip"]


def column(name: str, knobs: list[Knobs], settings: Settings) -> list[Any]:
    """A knob's value in each row; where it has no effect, that of the row before it that has use for it."""
    values: list[Any] = []
    for row in knobs:
        idle = {
            "clip_threshold": row.clip == "off",
            "epsilon": settings.cost == "log_softmax",
            "penalty_in": row.l1 == row.l2 == 0,
        }.get(name, False)
        values.append((values[-1] if values else None) if idle else getattr(row, name))
    useful = next((value for value in values if value is not None), None)
    return [useful if value is None else value for value in values]


def tuple_of(values: list[Any]) -> str:
    """Values as Python text, strings in double quotes: a tuple, or one value alone."""
    texts = [f'"{value}"' if isinstance(value, str) else repr(value) for value in values]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"


def tensors(names: list[str], values: str, settings: Settings) -> str:
    """The assignment of numbers as the step takes them: float32, or float64 in a run of that precision."""
    dtype = ", dtype=torch.float64" if settings.precision == "float64" else ""
    return f"{', '.join(names)} = torch.tensor({values}{dtype}{placed(settings)})"


def loop(settings: Settings, knobs: Table, updates: int) -> str:
    """The training loop."""
    in_batches = settings.batch_size is not None and settings.batch_size < settings.patches
    x, y = ("inputs", "labels") if in_batches else ("x", "y")
    epsilon = " + epsilon" if "epsilon" in knobs.columns else ""
    changed = "momentum" in knobs.columns or "update" in knobs.values("penalty_in")
    lines = [
        *(["velocity = None"] if "momentum" in knobs.columns else []),
        f"for step in range(1, {updates + 1}):",
        *indented(1, new_knobs(settings, knobs)),
        *(["    inputs, labels = batch(step)"] if in_batches else []),
        "    parameters.requires_grad_()",
        f"    logits = torch.func.functional_call(network, views(parameters), ({x},))",
        f"    log_likelihood = {LIKELIHOODS[settings.cost].format(labels=y, epsilon=epsilon)}",
        f"    cost = -log_likelihood.{settings.reduction}()  # cross-entropy: each patch's own label alone counts",
        *indented(1, penalty("cost", knobs)),
        "    (gradient,) = torch.autograd.grad(cost, parameters)",
        "    with torch.no_grad():",
        *indented(2, clipped(knobs)),
        *(indented(2, direction(knobs)) if changed else []),
        *indented(2, penalty("update", knobs)),
        f"        parameters = parameters - learning_rate * {'direction' if changed else 'gradient'}",
        '    print(f"update {step}  cost {cost.item()}")',
    ]
    return "\n".join(lines)


def indented(levels: int, lines: Iterable[str]) -> list[str]:
    """Lines moved to the right."""
    return [" " * 4 * levels + line for line in lines]


def new_knobs(settings: Settings, knobs: Table) -> list[str]:
    """Take what the table says for this update."""
    names, numbers = knobs.changing, knobs.numbers
    if not names:
        return []
    kinds = [name for name in names if name not in numbers]
    if not numbers:
        taken = [f"{', '.join(kinds)} = SCHEDULE[step]"]
    elif not kinds:
        taken = [tensors(numbers, "SCHEDULE[step]", settings)]
    else:
        values = "numbers" if len(numbers) > 1 else "number"
        taken = [f"{'*' * (len(numbers) > 1)}{values}, {', '.join(kinds)} = SCHEDULE[step]"]
        taken += [tensors(numbers, values, settings)]
    return ["if step in SCHEDULE:", *indented(1, taken)]


def clipped(knobs: Table) -> list[str]:
    """Clip the gradient."""
    kinds = [kind for kind in knobs.values("clip") if kind != "off"]
    if "clip" not in knobs.changing:
        return [f"gradient = {CLIP_CALLS[kind]}" for kind in kinds]
    choices = ([f'if clip == "{kind}":', f"    gradient = {CLIP_CALLS[kind]}"] for kind in kinds)
    return [line for choice in choices for line in choice]


def direction(knobs: Table) -> list[str]:
    """Momentum; where it is switched off and on again, it starts anew."""
    if "momentum" not in knobs.columns:
        return ["direction = gradient"]
    gathered = "gradient if velocity is None else momentum * velocity + gradient"
    if 0.0 not in knobs.values("momentum"):
        return [f"direction = velocity = {gathered}"]
    return [f"velocity = ({gathered}) if momentum else None", "direction = velocity if momentum else gradient"]


def penalty(place: str, knobs: Table) -> list[str]:
    """L1 and L2 in the cost, or in the update."""
    if place not in knobs.values("penalty_in"):
        return []
    terms = {
        "cost": {"l1": "l1 * weights.abs().sum()", "l2": "l2 / 2 * weights.square().sum()"},
        "update": {"l1": "l1 * weights.sign()", "l2": "l2 * weights"},
    }[place]
    parts = [
        f"({term} if {name} else 0)" if 0.0 in knobs.values(name) else term
        for name, term in terms.items()
        if name in knobs.columns
    ]
    total = parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"
    name = {"cost": "cost", "update": "direction"}[place]
    weights, added = "weights = torch.where(is_weight, parameters, 0)", f"{name} = {name} + {total}"
    if "penalty_in" not in knobs.changing:
        return [weights, added]
    return [*([weights] if place == "cost" else []), f'if penalty_in == "{place}":', f"    {added}"]


def on_cpu(settings: Settings) -> bool:
    """Whether the script computes on the CPU: also where the run chose a device for itself."""
    return settings.device in ("auto", "cpu")


def placed(settings: Settings) -> str:
    """The argument that puts a new tensor on the run's device, if that is not the CPU."""
    return "" if on_cpu(settings) else f', device="{settings.device}"'
