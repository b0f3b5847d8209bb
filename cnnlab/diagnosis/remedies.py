"""Which remedies fit a cause: changes of settings, and for a network of the user's own changes of its data and start.

Each is tried, see `cnnlab.diagnosis.trials`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from cnnlab.config.settings import KNOB_FIELDS, Settings
from cnnlab.diagnosis.alterations import ALTERATIONS, Alteration
from cnnlab.diagnosis.causes import Cause
from cnnlab.training.run import Run

NO_KNOB = {
    "undefined operation", "exp beyond the type", "data hold NaN", "error raised", "no weight moved",
    "shapes broadcast", "every step skipped", "softmax before cross-entropy", "cost without a minimum",
    "forward pass explodes", "epsilon of the optimiser", "step of the optimiser",
}  # fmt: skip
"""Causes in a network of the user's own that neither rate, penalty nor clipping can mend, so that none is tried."""
USUAL_ADAM_RATE = 1e-3
"""The learning rate that Kingma and Ba (2015) and `torch.optim.Adam` begin with."""
RANGE = (5e-324, 1e6)
"""Learning rates that a run may have."""


@dataclass(frozen=True)
class Remedy:
    """A change of settings that may help."""

    name: str
    changes: dict[str, Any]
    """Fields of `Settings` and their values."""
    schedule: str = ""
    """The schedule of the learning rate that begins with it, see `cnnlab.rate_plan`; '' where it goes on as it was."""
    posted: bool = False
    """Whether it is one of the five of the posted answer."""
    alter: Alteration | None = field(default=None, repr=False)
    """Makes another problem of that of a network of the user's own; None if settings alone are changed."""
    code: str = ""
    """What to write in one's own program; '' where the changes say it."""

    @property
    def restarts(self) -> bool:
        """Whether it changes what a run starts from, and so begins again at update 0."""
        return self.alter is not None or any(name not in KNOB_FIELDS for name in self.changes)

    def __str__(self) -> str:
        changes = ", ".join(f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value!r}"
                            for name, value in self.changes.items())  # fmt: skip
        return f"{self.name} ({changes or self.code})"


def choose_remedies(run: Run, causes: tuple[Cause, ...], before: int, critical: float | None = None) -> list[Remedy]:
    """The remedies to try: for each cause those that fit, and the five of the posted answer, none twice.

    For a cause in a network of the user's own that no knob mends: what fits it alone.
    """
    hopeless = run.own_network and causes[0].name in NO_KNOB
    now = read_settings(run, before)
    rate = run.record.knobs_at(max(len(run.record), 1)).learning_rate
    likely = [cause.name for cause in (causes[:1] if hopeless else causes) if cause.confidence >= 0.3]
    wanted = [remedy for name in likely for remedy in list_remedies(name, rate, critical)]
    if run.own_network:
        wanted += [Remedy(each.name, {}, alter=each.alter, code=each.code) for name in likely
                   for each in ALTERATIONS.get(name, ()) if each.fits(run.problem)]  # fmt: skip
    unique: dict[str, Remedy] = {}
    for remedy in [*wanted, *(() if hopeless else list_posted_remedies(now))]:
        key = remedy.name if remedy.alter or remedy.schedule else str(sorted(remedy.changes.items()))
        unique[key] = dataclasses.replace(unique.get(key, remedy), posted=remedy.posted)
    return [
        remedy
        for remedy in unique.values()
        if remedy.alter is not None
        or remedy.schedule
        or (
            any(getattr(now, name) != value for name, value in remedy.changes.items())
            and not (run.own_network and remedy.restarts)
            and can_have(now, remedy.changes)
        )
    ]


def can_have(settings: Settings, changes: dict[str, Any]) -> bool:
    """Whether a network can be with these changes: batches of one patch, as an example, have no batch norm."""
    try:
        settings.replace(**changes)
    except ValueError:
        return False
    return True


def read_settings(run: Run, step: int) -> Settings:
    """The settings with the knobs that are in force at the update after `step`."""
    return run.settings.replace(**dataclasses.asdict(run.record.knobs_at(step + 1)))


TODAYS = (
    Remedy("batch normalisation", {"normalization": "batch"}),
    Remedy("Adam, at a rate that is usual for it", {"optimizer": "adam", "learning_rate": USUAL_ADAM_RATE}),
    Remedy("shortcuts", {"residual": "on", "padding": "same"}),
    Remedy("a warm-up", {}, "warm_up", code='rate_plan("warm_up", settings, updates)'),
)
"""What today's networks have that the posted answer does not name."""


def list_posted_remedies(start: Settings) -> tuple[Remedy, ...]:
    """The five remedies of the posted answer, which gives no numbers, as the changes that they make to some settings.

    Over 32 seeds of the question the lower rate mends 32, clipping 29, the initialisation 4 (it is the second one that
    the question tried; He's mends none), the epsilon none (it hides all 32) and L2 none, with 0.01 as with 0.1.
    """
    cost = {} if start.cost == "softmax_log" else {"cost": "softmax_log"}
    return (
        Remedy("a lower learning rate", {"learning_rate": round_rate(start.learning_rate / 100)}, posted=True),
        Remedy("another initialisation", {"init": "question_2", "init_scale": 1.0}, posted=True),
        Remedy("an L2 penalty", {"l2": 0.1}, posted=True),
        Remedy("a safe softmax", {**cost, "epsilon": 1e-8}, posted=True),
        Remedy("gradient clipping", {"clip": "norm", "clip_threshold": 1.0}, posted=True),
    )


def list_remedies(cause: str, rate: float, critical: float | None) -> list[Remedy]:
    """What fits a cause at a learning rate; nothing where no setting helps, as with data that hold NaN."""
    slow = Remedy("a lower learning rate", {"learning_rate": round_rate(rate / 100)})
    he = Remedy("He's initialisation", {"init": "he_normal", "init_scale": 1.0})
    exact = Remedy("cross-entropy from logits", {"cost": "log_softmax", "epsilon": 0.0})
    slow_alone = Remedy("no clipping, a lower learning rate", {"clip": "off", **slow.changes})
    half = name_half(critical or 0)
    norm, adam, shortcuts, warm = TODAYS
    scaled = Remedy("a loss scale that adapts", {"loss_scale": "dynamic"})
    return {
        "learning rate above critical": [slow if critical is None else half, adam, warm, norm],
        "epsilon of the optimiser": [Remedy("a larger epsilon", {"adam_epsilon": 1e-4})],
        "initial weights too large": [he, norm],
        "inputs not scaled": [Remedy("standardised inputs", {"input_scaling": "standardised"}), norm],
        "cost summed": [Remedy("the mean in place of the sum", {"reduction": "mean"})],
        "log(0) by saturation": [exact],
        "underflow of the precision": [scaled, Remedy("float32", {"precision": "float32"})],
        "every step skipped": [scaled, Remedy("no loss scale", {"loss_scale": "off"})],
        "overflow of the precision": [Remedy("float32", {"precision": "float32"})],
        "penalty factor beyond 1": [Remedy("a small L2 and no L1", {"l1": 0.0, "l2": 1e-3})],
        "penalty too strong": [Remedy("a small L2 and no L1", {"l1": 0.0, "l2": 1e-3})],
        "momentum": [Remedy("no momentum", {"momentum": 0.0})],
        "dead ReLUs": [slow, Remedy("leaky ReLUs", {"activation": "leaky_relu"}), norm],
        "vanishing gradient": [he, norm, shortcuts],
        "masked, not mended": [exact, slow_alone],
    }.get(cause, [])


def name_half(critical: float) -> Remedy:
    """Half the critical rate, or what the range of a learning rate has nearest to it, said to be that."""
    half = critical / 2
    low, high = RANGE
    if low <= half <= high:
        return Remedy("half the critical learning rate", {"learning_rate": round_rate(half)})
    name = "the lowest learning rate that there is" if half < low else "the highest learning rate that a run may have"
    return Remedy(name, {"learning_rate": round_rate(half)})


def round_rate(rate: float) -> float:
    """A learning rate of two digits within its range, however small it is."""
    return min(max(float(f"{rate:.1e}"), RANGE[0]), RANGE[1])
