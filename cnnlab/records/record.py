"""What a run has shown: `Frame` (one update), `Record` (all of them). Plain numbers and numpy arrays, never a tensor.

NaN and inf stay what they are: divergence is data. What was not measured is neither: it is `NOT_MEASURED`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.links import link_of
from cnnlab.config.settings import Knobs, Settings, nearest, written
from cnnlab.records.growing import GrowingArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
PerLayer = NDArray[np.float64]
"""One number a layer, in the order of `Record.layers`."""
Lineage = tuple[tuple[object, int], ...]
"""(log, how many of its first rows are here), the log that a record was taken of last; tells what two records share."""
ALL_ROWS = 2**62
"""Stands for all rows, present and to come, of the log that a record was taken of."""
MOST_ANCESTORS = 64
"""Most logs of a lineage that are remembered; of one that is forgotten two records share less, as far as is known."""
NOT_MEASURED_BITS = 0x7FF8_0000_0000_0000 | 1954 << 29
"""A quiet NaN that no operation makes: the number that R's NA has, in the lowest bits that float32 has, too."""
NOT_MEASURED: float = struct.unpack("<d", struct.pack("<Q", NOT_MEASURED_BITS))[0]
"""Stands where a gauge was not measured: a NaN with bits of its own. `is_measured` tells it apart."""


def is_measured(values: Any) -> NDArray[np.bool_]:
    """Whether each value was measured, be it NaN or inf. Copies, float32 and files keep what tells them apart."""
    return np.asarray(np.asarray(values, dtype=np.float64).view(np.int64) != NOT_MEASURED_BITS)


@dataclass(frozen=True, eq=False)
class Frame:
    """All that was measured at one update. Costs, outputs and gradients are of before it, weights of after it."""

    step: int
    """Updates done; 0 is the start, where only the weights are known and the rest is not measured."""
    epoch: float
    """Passes over the training patches done."""
    knobs: Knobs
    """What was in force."""
    cost: float
    """What the step descended: data part plus penalty."""
    data_cost: float
    penalty: float
    """L1 and L2 within the cost; 0 where they are off or in the update."""
    accuracy: float
    """Share of the batch classified rightly; a patch with a NaN logit counts as wrong. Not measured without classes."""
    held_out_accuracy: float
    """The same on held-out patches after this update, where it was measured."""
    logit_gap: float
    """Largest difference between two logits of one patch in the batch."""
    total_gradient_norm: float
    """Euclidean norm of the whole gradient before clipping."""
    clipped: float
    """Share of the gradient's values that clipping changed."""
    sharpness: float
    """Largest eigenvalue of the cost's Hessian after this update, where it was measured; inf if it is not finite."""
    weight_norm: PerLayer
    """Euclidean norm of each layer's weights and biases."""
    largest_weight: PerLayer
    """Largest magnitude in each layer."""
    gradient_norm: PerLayer
    """Euclidean norm of each layer's gradient before clipping."""
    update_ratio: PerLayer
    """Norm of the update over the norm of the weights that it met; near 1e-3 is healthy."""
    dead_relu: PerLayer
    """Share of a layer's units whose ReLU gave 0 for the whole batch; not measured without a ReLU."""
    weight_nan: PerLayer
    """How many of a layer's weights are NaN; likewise below."""
    weight_inf: PerLayer
    gradient_nan: PerLayer
    gradient_inf: PerLayer
    activation_nan: PerLayer
    activation_inf: PerLayer
    histogram: NDArray[np.int32]
    """(layers, classes): weights by their binary exponent; see `Record.exponents`."""
    watched: FloatArray
    """Values of the watched single weights."""

    @property
    def nonfinite(self) -> bool:
        """Whether the cost is NaN or inf; False where it was not measured."""
        return bool(is_nonfinite(self.cost))

    def __repr__(self) -> str:
        return f"Frame(step={self.step}, cost={in_digits(self.cost)}, learning_rate={self.knobs.learning_rate:g})"


def is_nonfinite(values: Any) -> NDArray[np.bool_]:
    """Whether each value was measured and is NaN or inf."""
    return ~np.isfinite(values) & is_measured(values)


def in_digits(value: float) -> str:
    """A value in six digits, or the words that it was not measured."""
    return f"{value:.6g}" if is_measured(value) else "not measured"


GAUGES = tuple(field.name for field in dataclasses.fields(Frame) if field.type == "float" and field.name != "epoch")
"""The gauges that are one number an update."""
LAYER_GAUGES = tuple(field.name for field in dataclasses.fields(Frame) if field.type == "PerLayer")
"""The gauges that are one number a layer."""


@dataclass(frozen=True)
class Exponents:
    """The classes of a histogram over float exponents: one for each value of the exponent bits of a type.

    Class 0 holds zeros and subnormal numbers, the last one NaN and inf, class k the magnitudes in
    [2^(k-bias), 2^(k-bias+1)).
    """

    bits: int
    """Exponent bits: 5 for float16, 8 for bfloat16 and float32, 11 for float64."""

    @property
    def count(self) -> int:
        """How many classes there are."""
        return 1 << self.bits

    @property
    def bias(self) -> int:
        """The class of magnitudes from 1 up to 2."""
        return (1 << (self.bits - 1)) - 1

    @property
    def powers(self) -> IntArray:
        """log2 of the lower end of each class; that of class 0 is one below the smallest normal power."""
        return np.arange(self.count) - self.bias


EXPONENTS = {"float16": Exponents(5), "bfloat16": Exponents(8), "float32": Exponents(8), "float64": Exponents(11)}
"""Precision -> its classes."""


@dataclass(frozen=True, eq=False)
class Histograms:
    """Histograms of every update, kept without their zeros: a hundred numbers in place of thousands.

    `histograms[step]` is an array (layers, classes); a slice or an array of updates gives (updates, layers, classes);
    further indices go to layers and classes.
    """

    ends: IntArray
    """(updates + 2,): where the numbers of each update begin and end."""
    places: NDArray[np.uint32]
    """Place of each count in its flattened histogram."""
    counts: NDArray[np.int32]
    shape_of_one: tuple[int, int]
    """Layers, classes."""

    def __len__(self) -> int:
        return len(self.ends) - 1

    def until(self, step: int) -> Histograms:
        """Those of the updates up to `step`."""
        return dataclasses.replace(self, ends=self.ends[: step + 2])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Updates + 1, layers, classes."""
        return len(self), *self.shape_of_one

    def __getitem__(self, index: Any) -> NDArray[np.int32]:
        updates, within = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        chosen = np.arange(len(self))[updates]
        dense = np.zeros((chosen.size, math.prod(self.shape_of_one)), dtype=np.int32)
        for row, step in zip(dense, chosen.ravel(), strict=True):
            self.fill(row, int(step))
        found = read_only(dense.reshape(*chosen.shape, *self.shape_of_one))
        return found[(slice(None),) * chosen.ndim + within]

    def at(self, step: int) -> NDArray[np.int32]:
        """The histogram (layers, classes) of one update, sooner than by an index."""
        dense = np.zeros(math.prod(self.shape_of_one), dtype=np.int32)
        self.fill(dense, step)
        return read_only(dense.reshape(self.shape_of_one))

    def fill(self, dense: NDArray[np.int32], step: int) -> None:
        """Write the counts of an update into its flattened histogram, which holds zeros."""
        part = slice(self.ends[step], self.ends[step + 1])
        dense[self.places[part]] = self.counts[part]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or np.int32)


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
    """The bytes of "parameters", of "velocity" if there is momentum, and of each buffer by its name after "buffer."."""


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
    branch: Branch = Branch()
    """Its place among the runs that share its start."""
    others: tuple[Record, ...] = ()
    """The other branches of its tree."""
    take_snapshots: Callable[[], tuple[Snapshot, ...]] = tuple
    """Gives the states that were kept of this run, the start among them."""
    own_network: bool = False
    """Whether the network and its data were the reader's own; a record does not hold those."""
    lineage: Lineage = ()
    """The logs that its rows come from, see `shared_rows`; no part of a file."""

    def __len__(self) -> int:
        return len(self.table) - 1

    def until(self, step: int) -> Record:
        """The record as it was after update `step`: views, nothing is copied. ValueError outside the run."""
        if not 0 <= step <= len(self):
            raise ValueError(f"step must lie in [0, {len(self)}], got {step}")
        return dataclasses.replace(
            self,
            schedule=tuple((first, knobs) for first, knobs in self.schedule if first <= max(step, 1)),
            table=self.table[: step + 1],
            histograms=self.histograms.until(step),
            kernels=self.kernels[: step + 1],
        )

    def __repr__(self) -> str:
        end = f"last cost {in_digits(self.cost[-1])}" if len(self) else "nothing trained yet"
        broke = f", first non-finite cost at update {self.first_nonfinite}" if self.first_nonfinite else ""
        place = "" if self.branch.parent is None else f", {self.branch}"
        return f"Record({self.settings!r}{self.later_changes}: {len(self)} updates, {end}{broke}{place})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record, the other branches of its tree and the states that were kept into one file.

        `cnnlab.load(path)` reads it. A file that was there is replaced at one stroke, or not at all. ValueError if the
        record is longer than a file may be (2 GiB), FileNotFoundError if there is no such folder.
        """
        from cnnlab.records import storage as files  # not above: files makes records, and is needed only now

        files.save(self, path)

    def link(self) -> str:
        """Settings and changes of knobs as a short text, such as "cnnlab:question?seed=3&at4.clip=norm".

        `Run(link)` and `Lab(link)` open it, and train the same run. ValueError for a network of your own, which a text
        does not hold.
        """
        if self.own_network:
            raise ValueError("a link opens the question's network only, got a record of a network of your own")
        return link_of(self.settings, self.schedule)

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
            raise ValueError(f"layer must be one of {known}, got {written(name)}{nearest(name, self.layers)}")
        place = self.layers.index(name)
        return {gauge: self.column(gauge)[1:, place] for gauge in LAYER_GAUGES}

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the table's columns, those of a layer's gauges such as `weight_norm.cv0`."""
        return names_of_columns(GAUGES, LAYER_GAUGES, self.layers, self.watched)

    @property
    def later_changes(self) -> str:
        """What was changed while the run trained, such as ", learning_rate=0.001 from update 4"."""
        said = ""
        for (_, before), (step, knobs) in itertools.pairwise(self.schedule):
            old = dataclasses.asdict(before)
            new = {name: value for name, value in dataclasses.asdict(knobs).items() if value != old[name]}
            said += "".join(f", {name}={value!r}" for name, value in new.items()) + f" from update {step}"
        return said

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
            said = f"gauge must be one of {', '.join(known)}, got {written(gauge)}"
            raise ValueError(f"{said}{nearest(gauge, known)}")
        return is_measured(self.column(gauge)[1:])

    @property
    def known_costs(self) -> tuple[IntArray, FloatArray]:
        """The updates whose cost was measured, and these costs."""
        measured = self.is_measured("cost")
        return (self.steps, self.cost) if measured.all() else (self.steps[measured], self.cost[measured])

    def longer_than(self, times: float, updates: slice = slice(None)) -> NDArray[np.bool_]:
        """(updates, layers): whether an update was more than so many times as long as the weights that it met, or NaN.

        Weights that were all 0, at the start or now, have no length to compare with: to leave it is a leap where it
        takes one of them beyond 1.
        """
        norms, largest = self.column("weight_norm"), self.column("largest_weight")
        has_length = (norms[:-1][updates] != 0) & (norms[0] != 0)
        return ~(self.update_ratio[updates] <= times) & (has_length | ~(largest[1:][updates] <= 1))

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

    @property
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
        if not 0 <= step <= len(self):
            raise ValueError(f"step must lie in [0, {len(self)}], got {step}")
        return Frame(
            step=step,
            epoch=step / self.updates_per_epoch,
            knobs=self.knobs_at(max(step, 1)),
            histogram=self.histograms.at(step),
            watched=self.watched_values[step],
            **self.gauges_at(step),
        )

    def gauges_at(self, step: int) -> dict[str, Any]:
        """The gauges of an update by name."""
        single: dict[str, Any] = {name: float(self.table[step, index]) for index, name in enumerate(GAUGES)}
        return single | {name: self.column(name)[step] for name in LAYER_GAUGES}

    def knobs_at(self, step: int) -> Knobs:
        """What was in force at an update, 1 for the first."""
        return next(knobs for first, knobs in reversed(self.schedule) if first <= step)


def names_of_columns(
    gauges: Sequence[str], layer_gauges: Sequence[str], layers: Sequence[str], watched: Sequence[str]
) -> tuple[str, ...]:
    """Names of a table's columns, in their order."""
    return *gauges, *(f"{gauge}.{layer}" for gauge in layer_gauges for layer in layers), *watched


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


class Log:
    """The growing tables behind a record. Rows are only ever added, so a Record taken earlier stays as it was."""

    def __init__(
        self,
        settings: Settings,
        layers: tuple[str, ...],
        watched: tuple[str, ...],
        updates_per_epoch: int,
        kernel_shape: tuple[int, ...] = (0, 1, 1),
    ) -> None:
        self.settings = settings
        self.layers = layers
        self.watched = watched
        self.updates_per_epoch = updates_per_epoch
        self.schedule: list[tuple[int, Knobs]] = [(1, settings.knobs)]
        self.shown = 0
        self.lineage: Lineage = ((object(), ALL_ROWS),)
        width = len(GAUGES) + len(LAYER_GAUGES) * len(layers) + len(watched)
        self.table = GrowingArray((width,), np.float64)
        self.kernels = GrowingArray(kernel_shape, np.float32)
        self.ends = GrowingArray.copy_of(np.zeros(1, np.int64))
        self.places = GrowingArray((), np.uint32)
        self.counts = GrowingArray((), np.int32)

    @property
    def rows(self) -> int:
        """How many rows there are, the start among them."""
        return len(self.table)

    def append(
        self, table: FloatArray, histograms: NDArray[np.int32], kernels: NDArray[np.float32] | None = None
    ) -> None:
        """Add rows, one an update; the first row ever is the start."""
        flat = histograms.reshape(-1)
        found = np.flatnonzero(flat)
        rows, places = np.divmod(found, len(flat) // len(table))
        shape = len(table), *self.kernels.numbers.shape[1:]
        first_kernels = np.zeros(shape, np.float32) if kernels is None else kernels.reshape(shape)
        self.append_packed(table, first_kernels, np.bincount(rows, minlength=len(table)), places, flat[found])

    def append_packed(
        self,
        table: FloatArray,
        kernels: NDArray[np.float32],
        lengths: IntArray,
        places: NDArray[Any],
        counts: NDArray[np.int32],
    ) -> None:
        """Add rows whose histograms are without their zeros: so many numbers a row, their places and counts."""
        self.kernels.append(kernels)
        self.places.append(places)
        self.counts.append(counts)
        self.ends.append(self.ends.view()[-1] + np.cumsum(lengths))
        self.table.append(table)

    def until(self, step: int) -> Log:
        """A log of its own that ends after update `step`."""
        return Log.of(self.record().until(step))

    @classmethod
    def of(cls, record: Record) -> Log:
        """A log of its own that begins with all of a record."""
        log = cls(record.settings, record.layers, record.watched, record.updates_per_epoch)
        log.lineage = branched(record.lineage, len(record.table))
        log.schedule = list(record.schedule)
        kept = record.histograms
        log.table, log.kernels = GrowingArray.copy_of(record.table), GrowingArray.copy_of(record.kernels)
        log.ends = GrowingArray.copy_of(kept.ends)
        log.places, log.counts = (GrowingArray.copy_of(part[: kept.ends[-1]]) for part in (kept.places, kept.counts))
        return log

    def last(self, gauge: str) -> float:
        """A gauge in the last row."""
        return float(self.table.view()[-1, GAUGES.index(gauge)])

    def measured(self, gauge: str, step: int, value: float) -> None:
        """Write down a gauge that is not measured at every update; in a copy if a Record has shown this row."""
        if step < self.shown:
            self.table = GrowingArray.copy_of(self.table.view())
            self.lineage = branched(self.lineage, step)
            self.shown = 0
        self.table.numbers[step, GAUGES.index(gauge)] = value

    def change(self, step: int, knobs: Knobs) -> None:
        """Note that knobs are in force from an update on."""
        if step == 1:
            self.settings = self.settings.replace(**dataclasses.asdict(knobs))
        if self.schedule[-1][0] == step:
            self.schedule.pop()
        if not self.schedule or self.schedule[-1][1] != knobs:
            self.schedule.append((step, knobs))

    def record(self) -> Record:
        """Everything so far, as read-only views."""
        rows = self.shown = self.rows
        return Record(
            self.settings,
            self.layers,
            self.watched,
            tuple(self.schedule),
            self.updates_per_epoch,
            self.table.view(),
            Histograms(
                self.ends.view(),
                self.places.view(),
                self.counts.view(),
                (len(self.layers), EXPONENTS[self.settings.precision].count),
            ),
            self.kernels.view(0, rows),
            lineage=self.lineage,
        )


def branched(lineage: Lineage, rows: int) -> Lineage:
    """The lineage of a log that shares so many rows with the log of another, and goes its own way from there."""
    shared = tuple((log, min(known, rows)) for log, known in lineage if rows)
    return (*shared[-MOST_ANCESTORS:], (object(), ALL_ROWS))


def shared_rows(lineage: Lineage, other: Lineage) -> int:
    """How many of their first rows two records surely have in common, without a look at their numbers."""
    known = dict(other)
    return max((min(rows, known[log]) for log, rows in lineage if log in known), default=0)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view that cannot be written through."""
    view = array.view()
    view.flags.writeable = False
    return view


def record_in(value: Any) -> Record:
    """A Record itself, or that of a Run, a Lab or a Watch; TypeError in a sentence for anything else."""
    found = value if isinstance(value, Record) else getattr(value, "record", None)
    if not isinstance(found, Record):
        raise TypeError(f"record must be a Record, or a Run or a Lab that has one, got {written(value)}")
    return found
