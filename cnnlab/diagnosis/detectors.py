"""The published rules for spotting a training in trouble, as data with their sources: when each fires on a record.

What a record does not hold is put in its words: mean magnitudes from norms, a unit with no gradient as a dead ReLU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnlab.diagnosis.early_warning import find_signs
from cnnlab.records.frame import is_nonfinite
from cnnlab.records.record import Record, find_record

Fired = NDArray[np.bool_]
"""(updates,): whether a detector's rules hold at each update."""


@dataclass(frozen=True)
class Detector:
    """The rules of one tool, which an indicator shows beside a run."""

    name: str
    """The tool."""
    source: str
    """Where its rules were published."""
    rules: str
    """Its thresholds in words."""
    detect: Callable[[Record], Fired]
    """Where they hold."""
    epochs: int = 0
    """It looks after so many epochs; 0: it counts updates."""
    updates: int = 1
    """It looks after so many updates."""

    def find_first(self, record: Record, every_update: bool = False) -> int | None:
        """The first update at which it fires, looking as often as it does or at every update; None if it never does."""
        every = self.epochs * record.updates_per_epoch if self.epochs else self.updates
        with np.errstate(all="ignore"):
            fired = self.detect(record)
        seen = np.arange(1, len(record) + 1) % (1 if every_update else every) == 0
        found = np.flatnonzero(fired & seen)
        return int(found[0]) + 1 if len(found) else None


def measure_mean(record: Record, gauge: str) -> NDArray[np.float64]:
    """(updates, layers): mean magnitude of gradients or weights, from their norm: that of equal magnitudes."""
    return record.column(f"{gauge}_norm")[1:] / np.sqrt(record.histograms[0].sum(axis=1))


def find_measured(record: Record) -> Fired:
    """At which updates the gauges of layers were measured."""
    return np.asarray(record.is_measured("update_ratio").any(axis=1))


def find_nonfinite(record: Record) -> Fired:
    """NaN or inf in cost, activations, gradients or weights."""
    bad = is_nonfinite(record.cost)
    for gauge in ("activation", "gradient", "weight"):
        counts = record.column(f"{gauge}_nan")[1:] + record.column(f"{gauge}_inf")[1:]
        bad |= (np.nan_to_num(counts) > 0).any(axis=1)
    return bad


def detect_autotrainer(record: Record) -> Fired:
    """Exploding, vanishing, dying ReLU, unstable loss."""
    first, last = record.gradient_norm[:, 0], record.gradient_norm[:, -1]
    exploding = first / last > 70
    vanishing = (first / last < 1e-3) & (first < 1e-4)
    dying = (np.nan_to_num(record.dead_relu) >= 0.7).any(axis=1)
    high = ~(record.cost < 1e3) & record.is_measured("cost")
    return np.asarray(exploding | vanishing | dying | high, dtype=bool)


def detect_deepdiagnosis(record: Record) -> Fired:
    """Vanishing gradient, dead units, weights that vary too little or too much, updates outside a band."""
    gradient = (measure_mean(record, "gradient") < 1e-7).any(axis=1)
    dead = (np.nan_to_num(record.dead_relu) >= 0.7).any(axis=1)
    variance = measure_mean(record, "weight") ** 2
    spread = ((variance < 1e-5) | ~(variance <= 10)).any(axis=1) & find_measured(record)
    band = ~((record.update_ratio >= 1e-5) & (record.update_ratio <= 1e-1)).all(axis=1) & find_measured(record)
    return np.asarray(gradient | dead | spread | band, dtype=bool)


def detect_umlaut(record: Record) -> Fired:
    """A learning rate outside a band; inputs outside [-1, 1], where they are the question's patches."""
    rates = np.array([record.knobs_at(step).learning_rate for step in range(1, len(record) + 1)])
    outside = not record.own_network and record.settings.input_scaling != "unit"
    return np.asarray((rates > 0.01) | (rates < 1e-7) | outside, dtype=bool)


def detect_sagemaker(record: Record) -> Fired:
    """NaN, updates far too long or short, vanishing gradient, layers of unlike variance, dead layers, no decrease."""
    known = find_measured(record)
    long = ~((record.update_ratio <= 10) & (record.update_ratio >= 1e-8)).all(axis=1) & known
    gradient = (measure_mean(record, "gradient") < 1e-7).any(axis=1)
    variance = measure_mean(record, "weight") ** 2
    early = np.arange(len(record)) < 10
    unlike = ~(variance.max(axis=1) / variance.min(axis=1) <= 10) & early & known
    dead = (np.nan_to_num(record.dead_relu) > 0.5).any(axis=1)
    stuck = np.zeros(len(record), dtype=bool)
    stuck[10:] = record.cost[10:] >= record.cost[:-10]
    return find_nonfinite(record) | long | gradient | unlike | dead | stuck


def detect_thedeepchecker(record: Record) -> Fired:
    """A loss twice its recent least, weights and gradients that are large or double, updates outside a band."""
    fired = is_nonfinite(record.cost)
    weights, gradient = measure_mean(record, "weight"), measure_mean(record, "gradient")
    known = find_measured(record)
    fired |= (~(weights <= 1e8).all(axis=1) | ~((gradient <= 1e6) & (gradient >= 1e-6)).all(axis=1)) & known
    powers = np.log10(record.update_ratio)
    fired |= ~((powers >= -4) & (powers <= -1)).all(axis=1) & known
    recent = np.where(record.is_measured("cost"), record.cost, np.inf)
    for step in range(5, len(record)):
        fired[step] |= record.cost[step] >= 2 * recent[step - 5 : step].min()
        for gauge in (weights, gradient):
            fired[step] |= bool((gauge[step] > 2 * gauge[step - 5]).any())
    return fired


def detect_nanguard(record: Record) -> Fired:
    """NaN, inf, or a number beyond 1e10."""
    large = (record.largest_weight > 1e10).any(axis=1) | (np.abs(record.cost) > 1e10)
    return np.asarray(find_nonfinite(record) | large | (record.total_gradient_norm > 1e10), dtype=bool)


def detect_fastai(record: Record) -> Fired:
    """A loss above 3 times its least so far."""
    lowest = np.minimum.accumulate(np.where(np.isfinite(record.cost), record.cost, np.inf))
    return ~(record.cost <= 3 * lowest) & record.is_measured("cost")


DETECTORS = (
    Detector("cnnlab", "this package, cnnlab/diagnosis/early_warning.py", "update/weight > 20 in two layers, or in "
         "one with no lower cost after it; cost > 1e4 times the first and rising; next logits, estimated to first "
         "order in each layer, 3/4 as far apart as log(0) needs, or above 1/30 of the type's largest number; with "
         "RMSprop and Adam of the steps only one that holds NaN, and no rising cost",
         lambda record: np.asarray(find_signs(record).any(axis=0), dtype=bool)),
    Detector("AutoTrainer", "Zhang et al., ICSE 2021", "first/last gradient > 70, or < 1e-3 with the first < 1e-4; "
         "zero gradients >= 0.7; loss >= 1e3 or not finite; every 3 epochs", detect_autotrainer, epochs=3),
    Detector("DeepDiagnosis", "Wardat et al., ICSE 2022", "mean gradient < 1e-7; dead >= 0.7; weight variance "
         "outside [1e-5, 10]; update/weight outside [1e-5, 1e-1]; every epoch", detect_deepdiagnosis, epochs=1),
    Detector("UMLAUT", "Schoop et al., CHI 2021", "learning rate > 0.01 or < 1e-7; inputs outside [-1, 1]",
         detect_umlaut),
    Detector("SageMaker Debugger", "Rauschmayr et al., MLSys 2021", "NaN or inf; update/weight > 10 or < 1e-8; mean "
         "gradient < 1e-7; weight variances of layers > 10 apart in 10 steps; > 50 % dead; no decrease in 10 steps; "
         "every 500 steps", detect_sagemaker, updates=500),
    Detector("TheDeepChecker", "Ben Braiek and Khomh, TOSEM 2023", "loss >= 2 times its least of 5; mean weight > 1e8 "
         "or doubled; mean gradient > 1e6, doubled or < 1e-6; log10 update/weight outside [-4, -1]; every 10 updates",
         detect_thedeepchecker, updates=10),
    Detector("NanGuardMode", "Theano, nanguardmode.py", "NaN, inf or a magnitude > 1e10", detect_nanguard),
    Detector("TerminateOnNaN", "Keras, callbacks", "batch loss not finite", lambda record: is_nonfinite(record.cost)),
    Detector("fast.ai", "fast.ai, learning rate finder", "loss > 3 times its least", detect_fastai),
)  # fmt: skip
"""Our own rules, and those of eight tools."""


def first_alarms(record: Record) -> dict[str, int | None]:
    """Detector -> the first update at which it fires, looking as often as its authors say; None if it never does.

    "cnnlab" is the early warning of this package, which `cnnlab.state_line` shows; the others are published.
    """
    return {detector.name: step for detector, step in find_alarms(find_record(record))}


def find_alarms(record: Record) -> list[tuple[Detector, int | None]]:
    """Each detector with the first update at which it fires, looking as often as its authors say."""
    return [(detector, detector.find_first(record)) for detector in DETECTORS]
