"""The knobs that a script has use for, over the updates of its run."""

from __future__ import annotations

from dataclasses import dataclass

from cnnlab.config.settings import ADAPTIVE, KNOB_FIELDS, KNOB_NUMBERS, Knobs, Settings
from cnnlab.records.record import Record

KINDS = tuple(name for name in KNOB_FIELDS if name not in KNOB_NUMBERS)
"""The knobs that are no numbers."""


@dataclass(frozen=True)
class KnobTable:
    """The knobs that have an effect, over the updates of a run."""

    firsts: tuple[int, ...]
    """The updates from which on the values are in force."""
    columns: dict[str, list[float | str]]
    """Knob -> its value from each of these updates on; knobs that are off throughout are left out."""

    @classmethod
    def from_record(cls, record: Record) -> KnobTable:
        """That of a record."""
        schedule = [(first, knobs) for first, knobs in record.schedule if first <= len(record)]
        columns = {name: list_effects(name, [knobs for _, knobs in schedule], record.settings) for name in KNOB_FIELDS}
        return cls(tuple(first for first, _ in schedule), {name: found for name, found in columns.items() if found})

    def list_values(self, name: str) -> list[float | str]:
        """The values that a knob takes, each once, in the order of their first use; none if it is off throughout."""
        return list(dict.fromkeys(self.columns.get(name, [])))

    @property
    def variables(self) -> list[str]:
        """The knobs that change, numbers before kinds."""
        return self.numbers + self.kinds

    @property
    def numbers(self) -> list[str]:
        """Those of them that are numbers."""
        return [name for name in self.columns if name not in KINDS and len(self.list_values(name)) > 1]

    @property
    def kinds(self) -> list[str]:
        """Those of them that are no numbers."""
        return [name for name in KINDS if len(self.list_values(name)) > 1]

    @property
    def constants(self) -> dict[str, float | str]:
        """The numbers that stay as they are."""
        return {name: values[0] for name, values in self.columns.items() if name not in (*self.numbers, *KINDS)}

    @property
    def rows(self) -> list[tuple[int, tuple[float | str, ...]]]:
        """From which update on the knobs that change have which values."""
        rows = list(zip(*(self.columns[name] for name in self.variables), strict=True))
        befores = [None, *rows]
        return [(first, row) for first, row, before in zip(self.firsts, rows, befores, strict=False) if row != before]


def list_effects(name: str, knobs: list[Knobs], settings: Settings) -> list[float | str]:
    """A knob's values; one without effect is that before it, or the first with an effect. None if it is always off."""
    values: list[float | str | None] = []
    for row in knobs:
        idle = {
            "clip_threshold": row.clip == "off",
            "epsilon": settings.cost == "log_softmax",
            "penalty_in": row.l1 == row.l2 == 0,
            "beta2": row.optimizer not in ADAPTIVE,
            "adam_epsilon": row.optimizer not in ADAPTIVE,
        }.get(name, False)
        values.append((values[-1] if values else None) if idle else getattr(row, name))
    useful = next((value for value in values if value is not None), 0.0)
    effects = [useful if value is None else value for value in values]
    return effects if set(effects) - {0.0, "off", "sgd"} else []
