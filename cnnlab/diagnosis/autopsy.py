"""Why did it explode: cause, place and a remedy that is proved, of one record.

Plain values; what needs torch (the replay, the probes, the trials) is fetched when an autopsy is made.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlab.diagnosis.causes import CAUSES, RULES, Cause, ranked
from cnnlab.diagnosis.summary import UNKNOWN, before_explosion
from cnnlab.records.formats import number
from cnnlab.records.frame import is_measured, is_nonfinite
from cnnlab.records.record import Record, record_in

if TYPE_CHECKING:
    from cnnlab.diagnosis.nan_tracer import Event, Provenance
    from cnnlab.diagnosis.remedies import Trial
    from cnnlab.training.run import Run

ENDS = {"float16": 65504.0, "bfloat16": 3.39e38, "float32": 3.4028235e38, "float64": 1.797e308}
"""The largest number of each type."""
FROM_THE_START = ("dead ReLUs", "vanishing gradient", "masked, not mended")
"""Causes without a NaN to step back from: their remedies begin at update 0."""


@dataclass(frozen=True)
class Autopsy:
    """What was found out about a run; `print` shows it all."""

    cause: str
    """The likeliest cause, one of `cnnlab.diagnosis.causes.CAUSES`."""
    confidence: float
    """From 0 to 1: how well the numbers fit that cause."""
    evidence: tuple[str, ...]
    """Its evidence in numbers."""
    step: int | None
    """The update of the first value that is not finite; 0: the start. None if all are."""
    phase: str | None
    """Where in that update: one of `cnnlab.diagnosis.nan_tracer.PHASES`."""
    layer: str | None
    """Its layer; '' where the value belongs to none, as a cost does."""
    operation: str | None
    """What made it: one of `cnnlab.diagnosis.nan_tracer.OPERATIONS`; 'unknown' where the run could not be replayed."""
    chain: tuple[str, ...]
    """From that value back to the cause, in sentences with numbers."""
    causes: tuple[Cause, ...]
    """Every cause that may hold, the likeliest first."""
    rules: tuple[str, ...]
    """Which of the three rules of the posted answer apply."""
    before: int
    """The last update after which nothing was wrong yet: where remedies begin."""
    remedies: tuple[Trial, ...] = ()
    """The remedies that were tried, those that mend first."""

    def __repr__(self) -> str:
        place = "" if self.step is None else f", update {self.step}, {self.phase}, {self.layer!r}, {self.operation}"
        return f"Autopsy({self.cause!r} {self.confidence:.2f}{place})"

    def __str__(self) -> str:
        lines = [f"Cause: {self.cause} (confidence {self.confidence:.2f}). {CAUSES[self.cause]}"]
        if self.step is not None:
            lines.append(f"First value that is not finite: {self.place}.")
        lines += section("How it came about", self.chain) + section("Evidence", self.evidence)
        others = [f"{cause}: {'; '.join(cause.evidence)}" for cause in self.causes[1:]]
        lines += section("Other causes that may hold", others) + section(
            "In the words of the posted answer", self.rules
        )
        lines += section(f"Remedies, tried from update {self.before} on", [str(trial) for trial in self.remedies])
        return "\n".join(lines)

    @property
    def place(self) -> str:
        """Update, phase, layer and operation in words."""
        where = f"{self.phase}{f' of {self.layer}' if self.layer else ''}"
        return f"update {self.step}, {where}, by {self.operation}"


def section(title: str, items: Any) -> list[str]:
    """A title and its items, folded to the width of a terminal; nothing without items."""
    folded = [textwrap.fill(item, 110, initial_indent="  - ", subsequent_indent="    ") for item in items]
    return [f"{title}:", *folded] if folded else []


def autopsy(
    record: Record | Run,
    *,
    prove: bool = True,
    network: Any = None,
    data: tuple[Any, Any] | None = None,
    cost: Any = None,
    going: Callable[[], bool] = lambda: True,
) -> Autopsy:
    """Why a run got into trouble: the first NaN or inf and how it came about, the causes ranked, the remedies tried.

    The last updates before the trouble are replayed from a state that the record holds; the record stays as it is. A
    record of a network of your own needs `network`, `data` and `cost` again, or a `Run` in its place; without them, or
    without states, the place is read off the gauges and the operation is 'unknown'. `prove=False` tries no remedies,
    which takes a few seconds, and none is begun once `going` says no. Divergence is data: nothing is raised for it.
    """
    from cnnlab.training.run import Run

    run = record if isinstance(record, Run) else rebuilt(record_in(record), network, data, cost)
    seen = run.record if run is not None else record_in(record)
    before = before_explosion(seen)
    if run is None:
        event = seen_by_gauges(seen)
        causes = ranked(seen, event, None)
        return made(seen, event, None, causes, before, ())
    from cnnlab.diagnosis.nan_tracer import provenance
    from cnnlab.diagnosis.probe import probe
    from cnnlab.diagnosis.remedies import prove as proved

    found: Provenance | None = provenance(run) if len(seen) or not np.isfinite(seen.table[0]).any() else None
    # What does not come again in the replay was there all the same.
    event = seen_by_gauges(seen) if found is None else found.first
    numbers = probe(run, before) if len(seen) else None
    causes = ranked(seen, event, numbers)
    if event is None and causes[0].name in FROM_THE_START:
        before = 0
    trials = proved(run, causes, before, numbers.critical, going) if prove and numbers is not None else ()
    return made(seen, event, found, causes, before, trials)


def rebuilt(record: Record, network: Any, data: Any, cost: Any) -> Run | None:
    """The run of a record; None if its network or its states are not at hand."""
    from cnnlab.training.run import Run

    if (record.own_network and network is None) or not any(kept.step == 0 for kept in record.take_snapshots()):
        return None
    return Run(record, network=network, data=data, cost=cost)


def seen_by_gauges(record: Record) -> Event | None:
    """What the gauges alone tell of the first value that is not finite; its operation stays unknown."""
    from cnnlab.diagnosis.nan_tracer import Event, first_update

    step = first_update(record)
    if step is None:
        return None
    phase, layer = place_by_gauges(record, step)
    cost = record.column("cost")[step]
    counted = (record.column(f"{each}_nan")[step] for each in ("activation", "gradient", "weight"))
    nan = bool(is_measured(cost) and np.isnan(cost)) or any(bool((counts > 0).any()) for counts in counted)
    kind = record.settings.precision
    return Event(step, phase, layer, "unknown", "unknown", nan, float("nan"), float("nan"), kind)


def place_by_gauges(record: Record, step: int) -> tuple[str, str]:
    """Phase and layer of an update's first value that is not finite, as far as gauges can tell."""
    gauges = ("activation", "gradient", "weight") if step else ("weight",)
    for phase in gauges:
        bad = record.column(f"{phase}_nan")[step] + record.column(f"{phase}_inf")[step] > 0
        if phase == "gradient" and is_nonfinite(record.column("cost")[step]):
            return "cost", ""
        if bad.any():
            # A gradient comes from the last layer down.
            place = int(np.flatnonzero(bad)[-1 if phase == "gradient" else 0])
            return phase, record.layers[place]
    return "cost", ""


def made(
    record: Record,
    event: Event | None,
    found: Provenance | None,
    causes: tuple[Cause, ...],
    before: int,
    trials: tuple[Trial, ...],
) -> Autopsy:
    """The findings put together."""
    rules = dict.fromkeys(rule for cause in causes if cause.confidence >= 0.6 for rule in cause.rules)
    if event is not None and event.operation in ("inf-inf", "inf/inf", "inf*0", "0/0", "overflow"):
        rules["c"] = None
    first = causes[0]
    unknown = (UNKNOWN,) if len(record) and not len(record.known_costs[0]) else ()
    return Autopsy(
        cause=first.name, confidence=first.confidence, evidence=(*first.evidence, *unknown),
        step=None if event is None else event.step, phase=None if event is None else event.phase,
        layer=None if event is None else event.layer, operation=None if event is None else event.operation,
        chain=chain(record, event, found, causes), causes=causes,
        rules=tuple(RULES[rule] for rule in sorted(rules)), before=before, remedies=trials,
    )  # fmt: skip


def chain(record: Record, event: Event | None, found: Provenance | None, causes: tuple[Cause, ...]) -> tuple[str, ...]:
    """From the first value that is not finite back to the cause, one sentence an update."""
    if event is None:
        return ()
    said = [f"update {event.step}: {of_event(event)}"]
    if found is not None and found.nan is not None and found.nan != event:
        said.append(f"update {found.nan.step}: {of_nan(found.nan)}")
    for step in range(event.step - 1, max(event.step - 4, 0), -1):
        said.append(f"update {step}: {of_update(record, step)}")
    cause = causes[0]
    if cause.name != "data hold NaN" or not said:
        said.append(f"{cause.name}: {cause.evidence[0]}")
    return tuple(said)


def of_event(event: Event) -> str:
    """What happened first, in words."""
    what = f"{event.phase}{f' of {event.layer}' if event.layer else ''}"
    if event.operation == "given":
        return f"the {event.phase} is not finite from the outset"
    if event.operation == "log(0)":
        return f"{what}: the log of a probability that is exactly 0 (log(0))"
    reached = ""
    if event.reached == event.reached and event.operation in ("overflow", "cast", "exp overflow"):
        reached = f" would reach {number(event.reached)}, and {event.precision} ends at {number(ENDS[event.precision])}"
    return f"{what}: {event.function} of numbers up to {number(event.largest)}{reached} ({event.operation})"


def of_nan(event: Event) -> str:
    """The first NaN, in words."""
    what = f"{event.phase}{f' of {event.layer}' if event.layer else ''}"
    return f"the first NaN is in the {what}, from {event.operation} in {event.function}"


def of_update(record: Record, step: int) -> str:
    """What an update before the trouble did: its cost, its gradient and the layer whose weights grew most."""
    norms = record.column("weight_norm")
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.nan_to_num(norms[step] / norms[step - 1], nan=0.0)
    layer = int(np.argmax(growth))
    name = record.layers[layer] or "network"
    gap = record.logit_gap[step - 1]
    grew = f"weights of {name} grew {growth[layer]:.3g} times"
    if growth[layer] <= 1.01:
        grew = f"the logits were {number(float(gap))} apart" if np.isfinite(gap) else "no layer's weights grew"
    size = f"gradient norm {number(float(record.total_gradient_norm[step - 1]))}"
    return f"{grew}; {size}, cost {number(float(record.cost[step - 1]))}"
