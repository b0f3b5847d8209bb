"""What the worker hands to whoever shows its run."""

from __future__ import annotations

from dataclasses import dataclass

from cnnlab.config.settings import Settings
from cnnlab.curvature.direction import SharpestDirection
from cnnlab.curvature.divergence import Prediction
from cnnlab.records.record import Record
from cnnlab.records.signals import Signals


@dataclass(frozen=True)
class View:
    """What a dashboard shows at one moment: plain numbers and arrays."""

    record: Record
    """Of the present branch; `record.others` are the other ones."""
    ghosts: tuple[Record, ...]
    """Earlier runs to compare with, the newest first."""
    settings: Settings
    """With the knobs in force at the next update."""
    goal: int
    """The update at which the run is done, as planned; a pause does not change it."""
    training: bool
    """Whether there are updates left to do."""
    rate: float
    """Updates a second, over the last second or so; 0 when paused."""
    error: str | None
    """What went wrong in the last update or job; None if nothing did."""
    schedule: str = "constant"
    """How the learning rate goes on; see `schedules.SCHEDULE`."""
    forecast: Prediction | None = None
    """Before the first update: how many starts tried diverged; None while that is not known, and later."""
    no_curvature: str = ""
    """Why the curvature cannot be measured; nothing if it can."""
    direction: SharpestDirection | None = None
    """The cost along the sharpest direction, where that is wanted and measured; of an earlier update while training."""
    no_direction: str = ""
    """Why it cannot be measured; nothing if it can."""
    signals: Signals | None = None
    """What passed through the layers in the update that is looked at, where the record lacks that and it was
    measured."""
    stopped_at_nan: bool = False
    """Whether Play has stopped by itself, two updates after the cost or a weight was NaN or inf."""
