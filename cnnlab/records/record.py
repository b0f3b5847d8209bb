"""All that a run has shown: every gauge at every update, each change of knobs, and the other branches of its tree."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.errors import check_whole_number
from cnnlab.config.links import format_link
from cnnlab.config.settings import Knobs, Settings, nearest, quote
from cnnlab.records.clues import NO_CLUES, Clues
from cnnlab.records.description import describe_record
from cnnlab.records.frame import (
    GAUGES,
    LAYER_GAUGES,
    FloatArray,
    Frame,
    IntArray,
    PerLayer,
    is_measured,
    is_nonfinite,
    name_columns,
)
from cnnlab.records.histograms import EXPONENTS, Exponents, Histograms

Lineage = tuple[tuple[object, int], ...]
"""(log, how many of its first rows are here), the log that a record was taken of last; tells what two records share."""


@dataclass(frozen=True)
class Branch:
    """A run's place in the tree of runs that share a start."""

    number: int = 1
    """1 is the run that began it all."""
    parent: int | None = None
    """The branch that this one left; None for the first."""
    forked_at: int = 0
    """The last update that the two share."""

    def __str__(self) -> str:
        return f"branch {self.number}, forked at {self.forked_at}"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state of a run after an update, as bytes: all that a later update depends on."""

    step: int
    arrays: dict[str, NDArray[np.uint8]]
    """The bytes of "parameters", of "velocity" if there is momentum, of each buffer by its name after "buffer.", and of
    what another optimiser than plain gradient descent carries on by its name after the optimiser's: "adam.squares"; of
    "loss_scaling" if there is a loss scale: the scale, the good updates since it was changed, and all overflows."""


@dataclass(frozen=True, eq=False)
class Record:
    """A complete log of a run: what it started from, each change of knobs, and every gauge at every update.

    Each gauge of `Frame` is here by the same name over time: `record.logit_gap` (updates,), `record.weight_norm`
    (updates, layers). Arrays are read-only views; row 0 of the tables, the start, is left out of them. What was not
    measured is a NaN there, and `record.is_measured("logit_gap")` tells which.
    """

    settings: Settings
    """What the run started from."""
    layers: tuple[str, ...]
    """Names of the layers, in the network's own order."""
    watched: tuple[str, ...]
    """Names of the watched single weights."""
    schedule: tuple[tuple[int, Knobs], ...]
    """(first update, knobs in force from it on), in rising order; the first update is 1."""
    updates_per_epoch: int
    table: FloatArray
    """(updates + 1, columns): the gauges, the layers' gauges, the watched weights. Row 0 is the start."""
    histograms: Histograms
    """(updates + 1, layers, classes): an array when it is indexed, by update, slice or array of updates."""
    kernels: NDArray[np.float32]
    """(updates + 1, kernels, height, width): the first convolution's kernels, at most 1,024 numbers of them."""
    signal_histograms: Histograms
    """(updates + 1, kinds x layers, classes): of the gradients of all layers, then of what they put out, then of the
    updates; empty where signals were not measured. See `cnnlab.records.signals`."""
    branch: Branch = Branch()
    """Its place among the runs that share its start."""
    others: tuple[Record, ...] = ()
    """The other branches of its tree."""
    take_snapshots: Callable[[], tuple[Snapshot, ...]] = tuple
    """Gives the states that were kept of this run, the start among them."""
    own_network: bool = False
    """Whether the network and its data were the user's own; a record does not hold those."""
    network: str = ""
    """The user's own network in a few words, such as "Linear, 7 rows"; nothing where that is not known."""
    lineage: Lineage = ()
    """The logs that its rows come from, see `count_shared_rows`; no part of a file."""
    clues: Clues = NO_CLUES
    """What was seen of the training beside its gauges; no part of a file."""

    def __len__(self) -> int:
        return len(self.table) - 1

    def until(self, step: int) -> Record:
        """The record as it was after update `step`: views, nothing is copied. ValueError outside the run."""
        step = check_whole_number("step", step, 0, len(self))
        return dataclasses.replace(
            self,
            schedule=tuple((first, knobs) for first, knobs in self.schedule if first <= max(step, 1)),
            table=self.table[: step + 1],
            histograms=self.histograms.until(step),
            kernels=self.kernels[: step + 1],
            signal_histograms=self.signal_histograms.until(step),
        )

    def __repr__(self) -> str:
        return f"Record({describe_record(self)})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record, the other branches of its tree and the states that were kept into one file.

        `cnnlab.load(path)` reads it. A file that was there is replaced atomically. ValueError if the
        record is longer than a file may be (2 GiB), FileNotFoundError if there is no such folder.
        """
        from cnnlab.records.storage import save  # not above: storage makes records, and is needed only now

        save(self, path)

    def link(self) -> str:
        """Settings and changes of knobs as a short text, such as "cnnlab:question?seed=3&at4.clip=norm".

        `Run(link)` and `Lab(link)` open it, and train the same run. ValueError for a network of your own, which a text
        does not hold.
        """
        if self.own_network:
            raise ValueError("a link opens the question's network only, got a record of a network of your own")
        return format_link(self.settings, self.schedule)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, a row an update: step, epoch, gauges, gauges of layers, knobs and watched weights.

        A layer's gauge is a column such as `weight_norm.cv0`. What was not measured is NaN there: `is_measured(gauge)`
        tells it from a gauge that was measured to be NaN, a row an update. ImportError without pandas.
        """
        try:
            import pandas  # not above: nothing else needs it
        except ImportError:
            raise ImportError("to_dataframe needs pandas: install it with `pip install pandas`") from None

        measured = len(self.column_names) - len(self.watched)
        knobs = [dataclasses.asdict(self.knobs_at(step)) for step, _ in self.schedule]
        lengths = np.diff([*(first for first, _ in self.schedule), len(self) + 1])
        in_force = {name: np.repeat([values[name] for values in knobs], lengths) for name in knobs[0]}
        columns = {"step": self.steps, "epoch": self.steps / self.updates_per_epoch}
        columns |= dict(zip(self.column_names[:measured], self.table[1:].T, strict=False))
        columns |= in_force
        columns |= dict(zip(self.watched, self.watched_values[1:].T, strict=True))
        return pandas.DataFrame(columns)

    def layer(self, name: str) -> dict[str, FloatArray]:
        """The gauges of one layer, each (updates,), by name; ValueError if there is no such layer."""
        if name not in self.layers:
            known = ", ".join(map(repr, self.layers))
            raise ValueError(f"layer must be one of {known}, got {quote(name)}{nearest(name, self.layers)}")
        place = self.layers.index(name)
        return {gauge: self.column(gauge)[1:, place] for gauge in LAYER_GAUGES}

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the table's columns, those of a layer's gauges such as `weight_norm.cv0`."""
        return name_columns(GAUGES, LAYER_GAUGES, self.layers, self.watched)

    def __getattr__(self, name: str) -> FloatArray:
        if name in GAUGES or name in LAYER_GAUGES:
            return self.column(name)[1:]
        raise AttributeError(f"Record has no attribute {name!r}")

    def column(self, name: str) -> FloatArray:
        """A gauge over time with the start at row 0: (updates + 1,), or (updates + 1, layers)."""
        if name in GAUGES:
            return self.table[:, GAUGES.index(name)]
        first = len(GAUGES) + LAYER_GAUGES.index(name) * len(self.layers)
        return self.table[:, first : first + len(self.layers)]

    def is_measured(self, gauge: str) -> NDArray[np.bool_]:
        """(updates,) or (updates, layers): at which updates a gauge was measured, be it NaN or inf.

        ValueError if there is no such gauge.
        """
        if gauge not in GAUGES and gauge not in LAYER_GAUGES:
            known = (*GAUGES, *LAYER_GAUGES)
            said = f"gauge must be one of {', '.join(known)}, got {quote(gauge)}"
            raise ValueError(f"{said}{nearest(gauge, known)}")
        return is_measured(self.column(gauge)[1:])

    def last_measured(self, gauge: str) -> PerLayer:
        """(layers,): a gauge of layers at the last update (0: the start) at which it was measured."""
        values = self.column(gauge)
        if is_measured(values[-1]).any():  # of a long record most often, and in no time
            return values[-1]
        found = np.flatnonzero(is_measured(values).any(axis=1))
        return values[found[-1] if len(found) else -1]

    @cached_property
    def left_out(self) -> NDArray[np.bool_]:
        """(updates,): which updates loss scaling left out, for the scaled gradient held inf or NaN."""
        return np.asarray(self.skipped == 1)

    @cached_property
    def known_costs(self) -> tuple[IntArray, FloatArray]:
        """The updates whose cost was measured, and these costs."""
        measured = self.is_measured("cost")
        return (self.steps, self.cost) if measured.all() else (self.steps[measured], self.cost[measured])

    def longer_than(self, times: float, updates: slice = slice(None)) -> NDArray[np.bool_]:
        """(updates, layers): whether an update was more than so many times as long as the weights that it met, or NaN.

        Weights that were all 0, at the start or now, have no length to compare with: to leave it is a leap where it
        takes one of them beyond 1. An update that was not measured is not known to be longer.
        """
        norms, largest = self.column("weight_norm"), self.column("largest_weight")
        has_length = (norms[:-1][updates] != 0) & (norms[0] != 0)
        ratios = self.update_ratio[updates]
        return ~(ratios <= times) & is_measured(ratios) & (has_length | ~(largest[1:][updates] <= 1))

    @property
    def steps(self) -> IntArray:
        """1, 2, .. up to the last update."""
        return np.arange(1, len(self) + 1)

    @property
    def watched_values(self) -> FloatArray:
        """(updates + 1, watched): the watched weights; row 0 is the start, row k after update k."""
        return self.table[:, self.table.shape[1] - len(self.watched) :]

    @property
    def exponents(self) -> Exponents:
        """The classes of the histograms."""
        return EXPONENTS[self.settings.precision]

    @cached_property
    def first_nonfinite(self) -> int | None:
        """The first update whose cost was NaN or inf; None if there was none. What was not measured is neither."""
        found = np.flatnonzero(is_nonfinite(self.cost))
        return int(found[0]) + 1 if len(found) else None

    @property
    def frames(self) -> Frames:
        """The updates one by one: `record.frames[0]` is update 1."""
        return Frames(self)

    @property
    def start(self) -> Frame:
        """The weights before the first update."""
        return self.frame(0)

    def frame(self, step: int) -> Frame:
        """What was measured at an update, 1 for the first; 0 is the start. ValueError outside the run."""
        step = check_whole_number("step", step, 0, len(self))
        gauges: dict[str, Any] = {name: float(self.table[step, index]) for index, name in enumerate(GAUGES)}
        return Frame(
            step=step,
            epoch=step / self.updates_per_epoch,
            knobs=self.knobs_at(max(step, 1)),
            histogram=self.histograms.at(step),
            watched=self.watched_values[step],
            **gauges,
            **{name: self.column(name)[step] for name in LAYER_GAUGES},
        )

    def knobs_at(self, step: int) -> Knobs:
        """What was in force at an update, 1 for the first."""
        return next(knobs for first, knobs in reversed(self.schedule) if first <= step)


class Frames(Sequence[Frame]):
    """The frames of a record, made when they are asked for."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def __len__(self) -> int:
        return len(self.record)

    def __getitem__(self, index: Any) -> Any:
        places = range(1, len(self) + 1)[index]
        return [self.record.frame(step) for step in places] if isinstance(places, range) else self.record.frame(places)

    def __repr__(self) -> str:
        return f"Frames({len(self)} updates)"


def find_record(value: Any) -> Record:
    """A Record itself, or that of a Run, a Lab or a Watch; TypeError in a sentence for anything else."""
    found = value if isinstance(value, Record) else getattr(value, "record", None)
    if not isinstance(found, Record):
        raise TypeError(f"record must be a Record, or a Run or a Lab that has one, got {quote(value)}")
    return found
