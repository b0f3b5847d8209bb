"""What was seen of a training beside its gauges, in plain numbers: from it an autopsy tells what gauges do not show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figures:
    """How large the numbers of some examples are: all inputs, or all targets."""

    examples: int
    """How many examples there are."""
    bad: int = 0
    """How many of them hold NaN or inf."""
    first_bad: int = -1
    """The first of these, counted from 0; -1: none."""
    size: float = math.nan
    """Root of the mean square of the finite numbers."""
    median: float = math.nan
    """Median over the examples of each one's largest magnitude."""
    largest: float = math.nan
    """The largest of these, with its sign."""
    largest_at: int = -1
    """Its example, counted from 0."""
    next_largest: float = math.nan
    """The largest magnitude among the other examples."""
    low: float = math.nan
    high: float = math.nan
    """The finite numbers lie between these."""


@dataclass(frozen=True)
class BatchClues:
    """What the graph of a cost and the examples of its batch tell."""

    inputs: Figures | None = None
    targets: Figures | None = None
    """None where they are not known."""
    softmax: str = ""
    """What the cost takes for logits and is none of them, such as "softmax"; '' where nothing was found."""
    broadcast: str = ""
    """The shapes that were broadcast against each other, in words; '' where none were."""
    binary: bool = False
    """Whether the cost is a binary cross-entropy, which has a minimum for targets in [0, 1] alone."""
    never_negative: str = ""
    """The cost of log-probabilities, such as "nll_loss", which is below 0 only of other inputs; '' for others."""
    classes: int = 0
    """How many classes the cost knows; 0: it is not one of classes."""
    summed: float = 0.0
    """How many times the mean over the examples the cost is; 0: it is a mean, or that is not known."""
    constant: float = math.nan
    """The least cost of an output that is the same for every example; NaN where that is not known."""


@dataclass(frozen=True)
class Clues:
    """What was seen of a training beside its gauges."""

    origin: Any = None
    """Where the first NaN or inf was made, a `cnnlab.diagnosis.nan_tracer.Origin`; None where that is not known."""
    after_backward: bool = False
    """Whether the backward pass of that update is finite, so that something between it and the step made the value."""
    batch: BatchClues | None = None
    """None where no batch was looked at."""
    skipped: int = 0
    """Updates that a GradScaler left out."""
    still_scaled: int = 0
    """Updates whose gradient still had the scale of a GradScaler at the step."""
    left_out: Any = None
    """The Origin of the first of them whose cost was not finite; None if there was none."""
    added_up: int = 0
    """Updates whose gradient was added to that of the update before."""
    frozen: tuple[str, ...] = ()
    """Layers whose parameters are not trained, or belong to no optimiser that was watched."""
    optimizer: str = ""
    """The class of the optimiser; '' for a Run, which has SGD."""
    epsilon: float = 0.0
    """What the optimiser adds to a denominator; 0 without one."""
    epsilons: tuple[tuple[str, float], ...] = ()
    """The same of each optimiser that was watched, with its class."""
    gains: tuple[float, ...] = ()
    """How many times as large as He's each layer's weights were at first; NaN without any, () if not known."""
    strangers: bool = False
    """Whether no optimiser that was watched has any of the model's parameters."""
    cleared: int = 0
    """Updates whose gradients were gone at the step, though a backward pass had made them."""
    decay: float = 0.0
    """What share of its mean square of gradients the optimiser keeps from update to update (beta2); 0 without one, and
    where several optimisers are watched."""
    fastest: str = ""
    """The layer whose group has the highest learning rate; '' where all groups have the same."""
    fastest_rate: float = 0.0
    """That rate, over the one that the record holds."""
    turned: str = ""
    """The layer whose group has a decay that turns the sign of its weights at each update."""
    turns: float = 0.0
    """What share of these weights an update takes off; 0 where there is no such group."""
    turns_beyond: float = 2.0
    """Above what share their signs turn and they grow: 2, and more with momentum."""
    momentum: float = 0.0
    """The largest momentum of a group, where that is 1 or more."""
    ascent: float = 0.0
    """The lowest learning rate below 0, with which an update climbs, before the trouble; 0 where there was none."""
    ascent_from: int = 0
    """The first update with such a rate."""
    error: str = ""
    """What the program raised, in a sentence; '' if nothing."""
    error_step: int = 0
    """The update in which it was raised."""
    stopped: str = ""
    """Why a watch ended the training, in a sentence; '' if it did not."""
    averted: str = ""
    """The phase of the NaN or inf of an update that it ended the training before; '' if there was none."""
    averted_nan: bool = False
    """Whether that was a NaN; otherwise inf alone."""


NO_CLUES = Clues()
"""Those of a training of which nothing more was seen."""
