"""The next step of a run, tried beside it and thrown away: what it divides gradients by, and where it leads."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from cnnlab.config.settings import ADAPTIVE, Knobs
from cnnlab.curvature.preconditioner import Preconditioner
from cnnlab.training.optimizers import Averages
from cnnlab.training.run import Run
from cnnlab.training.step import Step


def try_step(run: Run) -> Step:
    """What the next update would make; the run stays as it is. Of a long network it holds until the next update."""
    update = run.updates + 1
    with run.determinism(update):
        return run.descent.step(run.state, *run.problem.batch(update), *run.prepare_knobs(run.knobs_in_force))


def read_preconditioner(run: Run, step: Step | None = None) -> Preconditioner:
    """What a run's next update does to a gradient; `step` is that update, where it has been tried."""
    knobs = run.knobs_in_force
    found = Preconditioner(knobs.optimizer, knobs.momentum)
    if knobs.optimizer in ADAPTIVE:
        averages = (try_step(run) if step is None else step).averages
        found = dataclasses.replace(found, scale=1 / find_divisor(knobs, averages, widen(run.problem.dtype)))
    if knobs.l2 == 0 or knobs.penalty_in == "cost":
        return found
    decay = run.problem.descent.is_weight.to(widen(run.problem.dtype)) * knobs.l2
    return dataclasses.replace(found, added=found.bound / 2 * decay)


def find_divisor(knobs: Knobs, averages: Averages, dtype: torch.dtype) -> Tensor:
    """What an update of RMSprop or Adam divides by, from the averages that it leaves; bias corrections included."""
    assert averages.squares is not None
    squares, correction = averages.squares.to(dtype), 1.0
    if averages.updates is not None:
        updates = float(averages.updates)
        squares, correction = squares / (1 - knobs.beta2**updates), 1 - knobs.momentum**updates
    return correction * (squares.sqrt() + knobs.adam_epsilon)


def widen(dtype: torch.dtype) -> torch.dtype:
    """The type that curvature is measured in: float32 for the half types."""
    return torch.promote_types(dtype, torch.float32)
