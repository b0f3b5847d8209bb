"""What a watch writes down: each update of a loop, measured from the weights before and after it, as a growing Log.

Knows no hooks, plots or widgets.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnlab.config.settings import ADAPTIVE, Knobs, settings
from cnnlab.config.stability import BETAS
from cnnlab.records.description import NO_RATE
from cnnlab.records.frame import GAUGES, NOT_MEASURED
from cnnlab.records.histograms import EXPONENTS
from cnnlab.records.log import Log
from cnnlab.records.record import Record
from cnnlab.training.gauges import make_gauges
from cnnlab.training.gradients import collect_ids, given
from cnnlab.training.metrics import Numbers, bring_to_host, classification, is_classification, is_read_at_once
from cnnlab.training.network import Kernels, Layout
from cnnlab.training.optimizers import NO_AVERAGES
from cnnlab.training.passes import Classes
from cnnlab.training.problem import name_class
from cnnlab.training.run import FLUSH_EVERY
from cnnlab.training.step import Step

STEERED = {"learning_rate": "lr", "momentum": "momentum", "l2": "weight_decay"}
"""Knob -> what torch's optimisers call it; those with betas have their first one for momentum."""
COSTS = [GAUGES.index("cost"), GAUGES.index("data_cost")]
PENALTY = GAUGES.index("penalty")
"""Columns of a row: those that hold the cost, and that of the penalty."""
BELOW_ONE = 1 - 2.0**-53
"""Stands for a momentum of 1, which Adam's knobs do not hold."""
TURNS = 0.99
"""Most of a weight that knobs have a decay apart from the gradient take off: beyond 1 it would turn the sign."""


@dataclass(frozen=True, eq=False)
class Update:
    """An update of a loop: one step of an optimiser, or several with no backward pass between them."""

    before: Tensor
    """The weights before its first step."""
    gradient: Tensor
    """What each optimiser was given for its own parameters at its own step; written to at a later one."""
    knobs: Knobs
    """Those of the optimiser that stepped first."""
    cost: Tensor | None
    """None if it was not measured."""
    classes: Classes | None
    """What accuracy and logit gap are of, if that is known."""
    activations: dict[str, Numbers]
    """Of its forward passes."""
    full: bool = True
    """Whether all its gauges are wanted; else its cost alone."""
    scale: float | None = None
    """What its cost was multiplied by; None without a GradScaler."""


@dataclass(frozen=True, eq=False)
class Waiting:
    """What was measured of an update, as long as it is on the device."""

    row: Tensor
    histogram: Tensor
    kernels: Tensor
    cost: Tensor | None = None
    """What is to be written over that of the row; None: nothing."""


class LoopRecorder:
    """The record of the updates of a model."""

    def __init__(self, model: nn.Module, watch: Sequence[str] | None, knobs: Knobs, updates_per_epoch: int) -> None:
        self.model = model
        self.layout = Layout.from_network(model)
        named = dict(model.named_parameters())
        self.parameters = [named[name] for name in self.layout.names]
        flat = self.flat()
        precision = str(flat.dtype).removeprefix("torch.")
        if precision not in EXPONENTS:
            raise ValueError(f"model must have parameters of {', '.join(EXPONENTS)}, got {precision}")
        names = tuple(self.layout.choose_watched() if watch is None else watch)
        self.watched = [self.layout.index(name) for name in names]
        self.kernels = Kernels.from_layout(self.layout, flat.device)
        recipe = settings("question", precision=precision, **dataclasses.asdict(knobs))
        self.log = Log(recipe, self.layout.layers, names, updates_per_epoch, self.kernels.shape)
        self.prepare(flat)
        row, histogram = self.gauges.start(flat)
        self.pending = [Waiting(row, histogram, self.kernels.read(flat))]
        self.nothing = torch.full_like(row, NOT_MEASURED), torch.zeros_like(histogram)
        self.updates = 0

    def prepare(self, flat: Tensor) -> None:
        """Measure on the device where the weights are now."""
        self.gauges = make_gauges(self.model, self.layout, flat, self.watched, hooked=False)

    def flat(self) -> Tensor:
        """All parameters in one vector, copied."""
        return join(self.parameters)

    def put_back(self, flat: Tensor) -> None:
        """Give the model these weights again."""
        with torch.no_grad():
            for parameter, kept in zip(self.parameters, self.layout.views(flat).values(), strict=True):
                parameter.copy_(kept)

    def gradient(self, optimizer: Any, left_out: Collection[int]) -> Tensor:
        """What an optimiser is given, in one vector, copied; 0 for parameters whose ids are left out."""
        return join([given(each, optimizer) if id(each) not in left_out else torch.zeros_like(each)
                     for each in self.parameters])  # fmt: skip

    def give(self, gradient: Tensor, optimizer: Any) -> None:
        """Write what an optimiser is given for its own parameters into the gradient of an update."""
        own = collect_ids(optimizer)
        for parameter, view in zip(self.parameters, self.layout.views(gradient).values(), strict=True):
            if id(parameter) in own:
                view.copy_(given(parameter, optimizer).detach())

    def add(self, update: Update, after: Tensor, first: bool) -> None:
        """Measure an update after a step; its gauges wait where they were measured until the record is asked for.

        A step that is not its `first` is measured together with those before it, in the same row.
        """
        row, histogram = self.measure(update, after) if update.full else self.nothing
        if first:
            self.updates += 1
        else:
            self.drop_last()
        cost = None if update.full else update.cost
        self.pending.append(Waiting(row, histogram, self.kernels.read(after), cost))
        self.log.change_knobs(self.updates, update.knobs)
        if len(self.pending) > FLUSH_EVERY:
            self.flush(kept=1)  # to which a further step may belong

    def measure(self, update: Update, after: Tensor) -> tuple[Tensor, Tensor]:
        """Row and histogram of an update."""
        unknown = torch.full((), NOT_MEASURED, dtype=self.gauges.wide, device=after.device)
        cost = unknown if update.cost is None else update.cost
        before, known = update.before, self.gauges.known[0]
        if is_read_at_once(after.device) and torch.equal(before, known):
            before = known  # whose norms are
        step = Step(after, NO_AVERAGES, update.gradient, update.gradient, before - after, None, cost, None, {})
        row, histogram = self.gauges.measure(before, step, None, update.activations)
        values: dict[str, Tensor | float] = {"clipped": unknown}
        if update.cost is None:
            values["penalty"] = unknown
        if update.scale is not None:
            values |= {"scale": update.scale, "skipped": 0.0}  # what is left out is no update of a loop's record
        if update.classes is not None and is_classification(*update.classes):
            values |= dict(zip(("accuracy", "logit_gap"), classification(*update.classes), strict=True))
        for gauge, value in values.items():
            row[GAUGES.index(gauge)] = value
        return row, histogram

    def drop_last(self) -> None:
        """Take the last update off the record; records taken earlier keep it."""
        if self.pending:
            self.pending.pop()
        else:
            self.log = self.log.until(self.updates - 1)

    def tell(self, cost: Tensor) -> None:
        """Write down the cost of the last update."""
        if self.pending:
            self.pending[-1] = dataclasses.replace(self.pending[-1], cost=cost.clone())
            return
        for gauge, value in {"cost": cost, "data_cost": cost, "penalty": torch.zeros(())}.items():
            self.log.write_gauge(gauge, self.updates, float(value))

    def note_sharpness(self, eigenvalue: float) -> None:
        """Write down the largest eigenvalue of the Hessian at the present weights; NaN: it is not finite."""
        value = math.inf if math.isnan(eigenvalue) else eigenvalue
        if not self.pending:
            self.log.write_gauge("sharpness", self.updates, value)
            return
        row = self.pending[-1].row.clone()
        row[GAUGES.index("sharpness")] = value
        self.pending[-1] = dataclasses.replace(self.pending[-1], row=row)

    def flush(self, kept: int = 0) -> None:
        """Bring the gauges that wait on the device to the host, all at once, but for so many of the last."""
        waiting = self.pending[: len(self.pending) - kept]
        if waiting:
            rows = torch.stack([each.row for each in waiting])
            known = {place: each.cost.to(rows) for place, each in enumerate(waiting) if each.cost is not None}
            if known:
                places = list(known)
                rows[places, COSTS[0]] = rows[places, COSTS[1]] = torch.stack(list(known.values()))
                rows[places, PENALTY] = 0.0
            others = [torch.stack([getattr(each, name) for each in waiting]) for name in ("histogram", "kernels")]
            table, histograms, kernels = bring_to_host([rows, *others])
            self.pending = self.pending[len(waiting) :]
            self.log.append(table, histograms, kernels)

    @property
    def record(self) -> Record:
        """Everything so far."""
        self.flush()
        return dataclasses.replace(self.log.record(), own_network=True, network=name_class(self.model))


def join(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers of some tensors in one vector, copied."""
    with torch.no_grad():
        if len(tensors) == 1:
            return tensors[0].detach().reshape(-1).clone()
        joined: Tensor = torch._C._nn.flatten_dense_tensors(list(tensors))
        return joined


make_knobs = functools.lru_cache(Knobs)
"""Knobs of these numbers, made and checked once."""


def read_knobs(optimizer: Any) -> Knobs:
    """Learning rate, momentum and weight decay of an optimiser, within the ranges that knobs have.

    Each is that of the first group where it is not 0: a group of biases without weight decay may be the first. A knob
    that is NaN is taken for the least one: the loop goes on, and its weights tell.
    """
    rate, momentum, decay = (read_leading_value(optimizer.param_groups, name) for name in STEERED)
    name = name_optimizer(optimizer)
    rate = clamp(1.0 if rate is None else rate, NO_RATE, 1e6)
    apart = name == "adamw"
    return make_knobs(
        learning_rate=rate,
        optimizer=name,
        momentum=clamp(momentum or 0.0, 0.0, BELOW_ONE if name in BETAS else 1.0),
        l2=clamp(decay or 0.0, 0.0, min(TURNS / rate, 1e6) if apart else 1e6),
        penalty_in="update" if apart else "cost",
        **read_divisor(name, optimizer.param_groups[0]),
    )


def read_divisor(name: str, group: dict[str, Any]) -> dict[str, float]:
    """The knobs of what RMSprop and Adam divide by; none of other optimisers."""
    if name not in ADAPTIVE:
        return {}
    keep = float(group["alpha"] if name == "rmsprop" else group["betas"][1])
    return {"beta2": clamp(keep, 0.0, BELOW_ONE), "adam_epsilon": clamp(float(group["eps"]), 0.0, 1.0)}


def name_optimizer(optimizer: Any) -> str:
    """What Knobs call an optimiser of torch; "sgd" for others, whose own name is among the clues."""
    group = optimizer.param_groups[0]
    known = {
        "RMSprop": "rmsprop",
        "Adam": "adam",
        "AdamW": "adamw",
        "SGD": "nesterov" if group.get("nesterov") else "sgd",
    }
    return known.get(type(optimizer).__name__, "sgd")


def read_leading_value(groups: Sequence[dict[str, Any]], name: str) -> float | None:
    """A knob of the first group where it is not 0; None where no group has it."""
    values = [value for group in groups if (value := read_value(group, name)) is not None]
    return next(filter(None, values), values[0] if values else None)


def read_value(group: dict[str, Any], name: str) -> float | None:
    """A knob of one group of an optimiser; None where the group has none such."""
    value = group.get(STEERED[name])
    if value is None and name == "momentum":
        value = (group.get("betas") or (None,))[0]
    return None if value is None else float(value)


def clamp(value: float, low: float, high: float) -> float:
    """A number within a range."""
    return min(max(low, value), high)
