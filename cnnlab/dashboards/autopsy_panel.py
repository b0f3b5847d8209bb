"""The panel that says why: cause, chain, remedies with their curves, an indicator for each detector.

The autopsy is made in a thread that ends with it. No torch, no plots; the lab says which run and takes the remedies.
"""

from __future__ import annotations

import gc
import math
import numbers
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict

from cnnlab.config.errors import describe_error, make_raisable
from cnnlab.config.settings import quote
from cnnlab.dashboards.controls import Part
from cnnlab.dashboards.static_files import read_static
from cnnlab.diagnosis.autopsy import Autopsy, autopsy
from cnnlab.diagnosis.detectors import find_alarms
from cnnlab.diagnosis.early_warning import overflow_clock
from cnnlab.records.record import Record
from cnnlab.training.malloc import give_back_memory

if TYPE_CHECKING:
    from cnnlab.diagnosis.trials import Trial
    from cnnlab.training.run import Run

CLOSED: dict[str, Any] = {"open": False}
"""The state of a panel that shows nothing."""

LONGEST = 3000
"""Updates up to which the indicators follow a run that trains: some detectors take their time over a long record."""


class CardState(TypedDict):
    """One remedy's card; `curve`: log10 of its costs, None where there is none."""

    name: str
    changes: str
    verdict: str
    reason: str
    start: int
    posted: bool
    restarts: bool
    curve: list[float | None]


class DetectorState(TypedDict):
    """One detector's line: what it said of the run, and its rule."""

    name: str
    said: str
    title: str
    lit: bool
    early: bool


class ClosedPanel(TypedDict):
    """A panel that shows nothing."""

    open: bool


class OpenPanel(ClosedPanel):
    """A panel that waits for the autopsy, or says why there is none."""

    busy: bool
    problem: str


class PanelState(OpenPanel):
    """A panel with what an autopsy has found."""

    cause: str
    confidence: str
    meaning: str
    place: str
    chain: list[str]
    evidence: list[str]
    others: list[list[str]]
    rules: list[str]
    before: int
    broken: list[float | None]
    trials: list[CardState]
    indicators: list[DetectorState]
    clock: str


class AutopsyPanel(Part):
    """The panel, and the thread that makes its autopsy."""

    _esm = read_static("element.js", "doctor.js")
    _css = read_static("theme.css", "doctor.css")

    def __init__(self, received: Callable[[dict[str, Any]], None], scale: float, **traits: Any) -> None:
        super().__init__(received, CLOSED, part="doctor", scale=scale, **traits)
        self.found: Autopsy | None = None
        self.error: Exception | None = None
        self.record: Record | None = None
        self.thread: threading.Thread | None = None
        self.going = True
        self.followed = 0.0

    def find_trial(self, remedy: Any) -> tuple[Trial, int]:
        """A remedy that was tried, by its place, and the branch whose autopsy it is of; ValueError in a sentence."""
        tried = () if self.found is None or self.record is None else self.found.remedies
        if isinstance(remedy, bool) or not isinstance(remedy, numbers.Integral) or int(remedy) not in range(len(tried)):
            places = f"0 to {len(tried) - 1}" if tried else "none so far"
            raise ValueError(f"remedy must be one of those that explain() has tried ({places}), got {quote(remedy)}")
        assert self.record is not None
        return tried[int(remedy)], self.record.branch.number

    def ask(self, record: Record, rebuilt: Callable[[Record], Run], done: Callable[[], None]) -> None:
        """Begin an autopsy of a record, unless one is being made; `done` is called in its thread when it is there."""
        if self.thread is not None and self.thread.is_alive():
            return
        self.found, self.error, self.record = None, None, record
        thread = threading.Thread(target=self.examine, args=(rebuilt, done), name="cnnlab-doctor", daemon=True)
        thread.start()
        self.thread = thread

    def examine(self, rebuilt: Callable[[Record], Run], done: Callable[[], None]) -> None:
        """What the thread does: a run of its own from the record, and its autopsy."""
        assert self.record is not None
        try:
            self.found = autopsy(rebuilt(self.record), going=lambda: self.going)
        except BaseException as error:  # a network of the user's own may raise SystemExit, too
            self.error = make_raisable(error)
        gc.collect()  # a run is held by a cycle
        give_back_memory()
        done()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the autopsy is there; False if that took longer than `timeout` seconds."""
        if self.thread is not None:
            self.thread.join(timeout)
            return not self.thread.is_alive()
        return True

    def show(self) -> None:
        """Show what there is: the autopsy, what went wrong with it, or that it is being made."""
        if self.record is None:
            return
        self.state = dict(describe_panel(self.record, self.found, self.error))

    def follow(self, record: Record) -> None:
        """Have the indicators and the overflow of an open panel tell of the present run, once a second at most."""
        now = time.monotonic()
        if "indicators" not in self.state or len(record) > LONGEST or now - self.followed < 1:
            return
        self.followed = now
        lit = {"indicators": describe_indicators(record), "clock": clock(record)}
        if any(self.state[name] != value for name, value in lit.items()):
            self.state = {**self.state, **lit}

    def hide(self) -> None:
        """Close the panel."""
        self.state = CLOSED

    def stop(self) -> None:
        """Try no further remedy, and wait until the thread has ended."""
        self.going = False
        self.wait(10)


def describe_panel(record: Record, found: Autopsy | None, error: Exception | None) -> OpenPanel | PanelState:
    """The state of an open panel, as JSON."""
    if error is not None:
        return {"open": True, "busy": False, "problem": describe_error(error)}
    if found is None:
        return {"open": True, "busy": True, "problem": ""}
    advice = [f"to write: {each}" for each in found.advice]
    return {
        "open": True,
        "busy": False,
        "problem": "",
        "cause": found.cause,
        "confidence": f"{found.confidence:.2f}",
        "meaning": found.meaning,
        "place": "" if found.step is None else found.place,
        "chain": [*found.chain, *advice] if found.chain else [],
        "evidence": [*found.evidence, *advice],
        "others": [[str(cause), "; ".join(cause.evidence)] for cause in found.causes[1:]],
        "rules": list(found.rules),
        "before": found.before,
        "broken": powers(record.cost[found.before :][:40]),
        "trials": [describe_trial(trial) for trial in found.remedies],
        "indicators": describe_indicators(record),
        "clock": clock(record),
    }


def describe_trial(trial: Trial) -> CardState:
    """One remedy's card."""
    changes = [f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
               for name, value in trial.remedy.changes.items()]  # fmt: skip
    return {
        "name": trial.remedy.name,
        "changes": ", ".join(changes) or trial.remedy.code,
        "verdict": trial.verdict,
        "reason": trial.reason,
        "start": trial.start,
        "posted": trial.remedy.posted,
        "restarts": trial.remedy.restarts,
        "curve": powers(trial.cost),
    }


def powers(costs: Any) -> list[float | None]:
    """log10 of costs; None where they are not finite or not above 0."""
    return [math.log10(cost) if math.isfinite(cost) and cost > 0 else None for cost in map(float, costs)]


def describe_indicators(record: Record) -> list[DetectorState]:
    """An indicator for each detector: when it fired, and how long before the first cost that is not finite."""
    broke = record.first_nonfinite
    lit: list[DetectorState] = []
    for detector, step in find_alarms(record):
        if step is None:
            said = "never"
        elif broke is None:
            said = f"update {step}"
        else:
            said = f"update {step}, {broke - step} before" if step < broke else f"update {step}, too late"
        early = step is not None and (broke is None or step < broke)
        lit.append({"name": detector.name, "said": said, "title": f"{detector.rules} ({detector.source})",
                    "lit": step is not None, "early": early})  # fmt: skip
    return lit


def clock(record: Record) -> str:
    """The overflow clock in a line; '' where the cost does not grow."""
    told = {name: step for name, step in overflow_clock(record).items() if step is not None}
    if not told:
        return ""
    return "At the last growth per update: " + ", ".join(f"{name} ends at update {step}" for name, step in told.items())
