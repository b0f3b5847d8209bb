"""Why did it explode: cause, place and a remedy that is proved, of one record.

What needs torch (the replay, the probes, the trials) is imported when an autopsy is made.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlab.config.errors import describe_problem
from cnnlab.diagnosis.advice import give_advice
from cnnlab.diagnosis.causes import CAUSES, RULES, Cause, rank_causes
from cnnlab.diagnosis.early_warning import LARGEST
from cnnlab.diagnosis.events import name_place
from cnnlab.diagnosis.summary import UNKNOWN, before_explosion
from cnnlab.diagnosis.value_causes import UNDEFINED
from cnnlab.records.formats import format_count, format_growth, format_number
from cnnlab.records.frame import is_measured, is_nonfinite
from cnnlab.records.record import Record, find_record

if TYPE_CHECKING:
    from cnnlab.diagnosis.nan_tracer import Event, Origin
    from cnnlab.diagnosis.trials import Trial
    from cnnlab.training.run import Run


GIVE_AGAIN = (
    "the record of a network of your own does not hold the network: for the operation and its line give the run, "
    "autopsy(run), or autopsy(record, network=..., data=..., cost=...)"
)
"""What is said where a record alone does not do."""
TRACE_AGAIN = (
    "the watch did not see how the update was computed: watch.trace(lambda: cost(model(x), y)), with its batch and the "
    "model as it is without compiling, names the operation and its line"
)
"""What is said of the record of a watch that does not know it by itself."""
AFTER_BACKWARD = (
    "made again, the cost and the gradient of its backward pass are finite: a hook, or a line between backward and the "
    "optimiser's step, such as a division of the gradients by their norm, made it"
)
"""What is said of a gradient that was finite when its backward pass was done."""
PAGE = "all causes, with code that is wrong and right, in docs/nan.md"
"""What is said of the page on a cost that is NaN."""


WIDTH = 104
"""Characters of a line of an autopsy: a notebook beside the file browser has room for them on a small screen."""


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
    """What made it: one of `cnnlab.diagnosis.operations.OPERATIONS`; 'unknown' where the run could not be replayed."""
    chain: tuple[str, ...]
    """From that value back to the cause, in sentences with numbers."""
    causes: tuple[Cause, ...]
    """Every cause that may hold, the likeliest first."""
    rules: tuple[str, ...]
    """Which of the three rules of the posted answer apply."""
    before: int
    """The last update after which all was well: where remedies begin."""
    remedies: tuple[Trial, ...] = ()
    """The remedies that were tried, those that mend first."""
    advice: tuple[str, ...] = ()
    """What to write in a program of one's own, in words with code."""
    source: str = ""
    """File and line of the user's code that called the operation, and the code there; '' if that is not known."""

    def __repr__(self) -> str:
        place = "" if self.step is None else f", update {self.step}, {self.phase}, {self.layer!r}, {self.operation}"
        return f"Autopsy({self.cause!r} {self.confidence:.2f}{place})"

    def __str__(self) -> str:
        others = [f"{cause}: {'; '.join(cause.evidence)}" for cause in self.causes[1:]]
        return "\n".join([
            textwrap.fill(f"Cause: {self.cause} (confidence {self.confidence:.2f}). {self.meaning}", WIDTH),
            *([] if self.step is None else [f"First NaN or inf: {self.place}."]),
            *format_section("How it came about", self.chain),
            *format_section("Evidence", self.evidence),
            *format_section("Other causes that may hold", others),
            *format_section("In the words of the posted answer", self.rules),
            *format_section("What to write", self.advice and (*self.advice, f"{PAGE}: {self.cause}")),
            *format_section(f"Remedies, tried from update {self.before} on", map(str, self.remedies)),
        ])  # fmt: skip

    @property
    def meaning(self) -> str:
        """What the cause means, in a sentence."""
        return CAUSES[self.cause].meaning

    @property
    def place(self) -> str:
        """Update, phase, layer and operation in words."""
        value = f"{self.phase} of {name_place(self.layer)}" if self.layer else self.phase
        return f"update {self.step}, {value} ({'unknown operation' if self.operation == 'unknown' else self.operation})"


def format_section(title: str, items: Iterable[str]) -> list[str]:
    """A title and its items, folded; nothing without items."""
    folded = [textwrap.fill(item, WIDTH, initial_indent="  - ", subsequent_indent="    ") for item in items]
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
    without states, the place is taken from the gauges and the operation is 'unknown'. To try the remedies takes a
    few seconds; `prove=False` tries none, and none is begun once `going` says no. Divergence is data: nothing is raised
    for it.
    """
    from cnnlab.diagnosis.nan_tracer import find_origin
    from cnnlab.training.run import Run

    run = record if isinstance(record, Run) else rebuild_run(find_record(record), network, data, cost)
    seen = find_record(record)
    before, origin, numbers, missing = before_explosion(seen), seen.clues.origin, None, ""
    trials: tuple[Trial, ...] = ()
    if run is not None:
        from cnnlab.diagnosis.probe import probe_run
        from cnnlab.diagnosis.trials import try_remedies

        try:
            origin = find_origin(run) if len(seen) or not np.isfinite(seen.table[0]).any() else None
        except Exception as error:  # the user's own network or cost may raise anything
            missing = f"the update could not be made again: {describe_problem(error)}"
        numbers = probe_run(run, before) if len(seen) else None
    elif origin is None and seen.own_network and find_step(seen) is not None:
        traced = "" if seen.clues.after_backward else TRACE_AGAIN
        missing = traced if seen.clues.optimizer else GIVE_AGAIN
    # What does not come again in the replay was there all the same.
    event = read_gauges(seen) if origin is None else origin.first
    causes = rank_causes(seen, event, numbers)
    if run is not None and numbers is not None:
        if event is None and (CAUSES[causes[0].name].needs_no_nan or before == len(seen)):
            before = 0
        trials = try_remedies(run, causes, before, numbers.critical, going) if prove else ()
    costless = len(seen) > 0 and not len(seen.known_costs[0])
    unknown = tuple(filter(None, (UNKNOWN if costless else "", missing, describe_left_out(seen, event, causes[0]))))
    return Autopsy(
        cause=causes[0].name, confidence=causes[0].confidence, evidence=(*causes[0].evidence, *unknown),
        step=None if event is None else event.step, phase=None if event is None else event.phase,
        layer=None if event is None else event.layer, operation=None if event is None else event.operation,
        chain=() if event is None else describe_chain(seen, event, origin, causes[0]), causes=causes,
        rules=list_rules(event, causes), before=before, remedies=trials,
        advice=give_advice(causes, event) if seen.own_network else (),
        source="" if event is None else event.source,
    )  # fmt: skip


def describe_left_out(record: Record, event: Event | None, cause: Cause) -> str:
    """What loss scaling left out, and whether that is harmless; '' for nothing, or where it is the cause."""
    left_out = record.left_out
    if not left_out.any() or cause.name == "every step skipped" or (left_out.all() and event is None):
        return ""
    said = f"loss scaling left out {format_count(int(left_out.sum()), 'update')} of {len(record)}"
    if event is None:
        return f"{said}, for a scaled gradient that overflowed: harmless, as the weights stayed where they were"
    first = event.step + (event.step == 0 or not left_out[event.step - 1])  # what made it may have been the step itself
    if left_out[first - 1 :].any() and left_out[first - 1 :].all():
        return f"{said}, all since update {first}: the weights stay, and no scale helps, for the cause is another"
    return said


def list_rules(event: Event | None, causes: tuple[Cause, ...]) -> tuple[str, ...]:
    """Which of the three rules of the posted answer apply."""
    rules = {rule for cause in causes if cause.confidence >= 0.6 for rule in cause.rules}
    if event is not None and event.operation in ("inf-inf", "inf/inf", "inf*0", "0/0", "overflow"):
        rules.add("c")
    return tuple(RULES[rule] for rule in sorted(rules))


def rebuild_run(record: Record, network: Any, data: Any, cost: Any) -> Run | None:
    """The run of a record; None if its network or its states are not at hand."""
    from cnnlab.training.run import Run

    if (record.own_network and network is None) or not any(kept.step == 0 for kept in record.take_snapshots()):
        return None
    return Run(record, network=network, data=data, cost=cost)


def find_step(record: Record) -> int | None:
    """The update of the first value that is not finite; it is none of the record's where a watch ended before it."""
    from cnnlab.diagnosis.nan_tracer import find_first_update

    step = find_first_update(record)
    return len(record) + 1 if step is None and record.clues.averted else step


def read_gauges(record: Record) -> Event | None:
    """What the gauges alone tell of the first value that is not finite; its operation stays unknown."""
    from cnnlab.diagnosis.nan_tracer import Event

    step, unknown, nan = find_step(record), float("nan"), record.clues.averted_nan
    if step is None:
        return None
    if step > len(record):
        phase, layer = record.clues.averted, ""
    else:
        phase, layer = locate_by_gauges(record, step)
        cost = record.column("cost")[step]
        counted = (record.column(f"{each}_nan")[step] for each in ("activation", "gradient", "weight"))
        nan = bool(is_measured(cost) and np.isnan(cost)) or any(bool((counts > 0).any()) for counts in counted)
    said = AFTER_BACKWARD if record.clues.after_backward else ""
    return Event(step, phase, layer, "unknown", "unknown", nan, unknown, unknown, record.settings.precision, said)


def locate_by_gauges(record: Record, step: int) -> tuple[str, str]:
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


def describe_chain(record: Record, event: Event, origin: Origin | None, cause: Cause) -> tuple[str, ...]:
    """From the first value that is not finite back to the cause, one sentence an update."""
    said = [f"update {event.step}: {describe_event(event)}"]
    if origin is not None and origin.nan is not None and origin.nan != event:
        nan = origin.nan
        said.append(
            f"update {nan.step}: the {nan.value_name} holds the first NaN, made by {nan.function} ({nan.operation})"
        )
    said += [
        f"update {step}: {describe_update(record, step)}" for step in range(event.step - 1, max(event.step - 4, 0), -1)
    ]
    if cause.name not in ("data hold NaN", "undefined operation"):
        said.append(f"{cause.name}: {cause.evidence[0]}")
    return tuple(said)


def describe_event(event: Event) -> str:
    """What happened first, in words."""
    if event.operation == "given":
        return f"the {event.phase} {event.layer}".rstrip() + " holds NaN or inf before anything is computed"
    first = f"the {event.value_name} holds the first {'NaN' if event.nan else 'inf'}"
    if event.operation == "unknown":
        reason = event.argument or "the operation that made it is unknown, for the update was not replayed"
        return f"{first}; {reason}"
    made = f"{first}, made by {event.function} ({event.operation}){f', at {event.source}' if event.source else ''}"
    if event.operation in UNDEFINED and event.argument:
        return f"{made}: {event.argument}"
    if event.operation == "log(0)":
        return f"{made}: a probability is exactly 0"
    inputs = f"{made}: the largest input is {format_number(event.largest)}"
    if event.reached == event.reached and event.operation in ("overflow", "cast", "exp overflow"):
        end = format_number(LARGEST[event.precision])
        return f"{inputs}, the result would reach {format_number(event.reached)}, and {event.precision} ends at {end}"
    return inputs


def describe_update(record: Record, step: int) -> str:
    """What an update before the trouble did: its cost, its gradient and the layer whose weights grew most."""
    norms = record.column("weight_norm")
    if not is_measured(norms[[step - 1, step]]).any(axis=1).all():
        return f"the cost was {format_number(float(record.cost[step - 1]))}; not all else was measured"
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.nan_to_num(norms[step] / norms[step - 1], nan=0.0, posinf=np.inf)
    layer = int(np.argmax(growth))
    gap = float(record.logit_gap[step - 1])
    if growth[layer] > 1.01:
        grown = format_growth(norms[step, layer], norms[step - 1, layer])
        changed = f"the weights of {record.layers[layer] or 'network'} grew {grown}"
    else:
        changed = f"the logit gap was {format_number(gap)}" if np.isfinite(gap) else "no layer's weights grew"
    norm, cost = (format_number(float(values[step - 1])) for values in (record.total_gradient_norm, record.cost))
    return f"{changed}; the gradient norm was {norm}, the cost {cost}"
