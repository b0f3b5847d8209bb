"""A run: a network on its way down. It steps when told to, and keeps a record; it knows no widgets and no plots."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnlab.config.errors import check_whole_number, describe_problem
from cnnlab.config.links import Plan, opened
from cnnlab.config.settings import KNOB_FIELDS, Knobs, Settings, change_knobs, check_loss_scale, check_names, quote
from cnnlab.records.clues import Clues
from cnnlab.records.frame import GAUGES, LAYER_GAUGES, NOT_MEASURED, Frame
from cnnlab.records.log import Log
from cnnlab.records.record import Branch, Record
from cnnlab.records.signals import is_signal_update
from cnnlab.training.activations import collect_outputs
from cnnlab.training.capture import Repeated
from cnnlab.training.checkpoints import History, State, restore_states
from cnnlab.training.determinism import evaluation
from cnnlab.training.gauges import make_gauges
from cnnlab.training.malloc import keep_freed_memory
from cnnlab.training.metrics import bring_to_host, classification
from cnnlab.training.network import Kernels, Layout
from cnnlab.training.problem import Problem, prepare_own_start
from cnnlab.training.run_arguments import check_plan, check_same_settings, check_same_watched, check_watched
from cnnlab.training.signals import listen_to_signals
from cnnlab.training.step import Descent, KnobTensors, StepStructure

HISTORY_BYTES = 64 * 2**20
"""Bytes that the states kept for rewinding may take, most of them in files, unless a run is told otherwise."""
Row = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Of one update: the gauges in the order of a Record's table, the histogram, the first kernels, and the histograms of
its signals where they are measured."""
FLUSH_EVERY = 256
"""Updates whose gauges may wait on the device before they cross to the host."""


class Run:
    """Gradient descent on one network, an update at a time.

    `Run("question", seed=3, learning_rate=1e-2)` trains the question's network on patches of one image.
    `Run(network=module, data=(x, y), cost=cost)` trains a copy of any module, from the weights it has:
    `cost(outputs, y)` returns one number (or is the name of one of the question's costs), `x` (examples, ...) and
    `y` (examples, ...) are tensors or numpy arrays and are copied; a tuple `x` holds several inputs, a dict inputs by
    name. `data` may be a Dataset or DataLoader too (see `cnnlab.training.datasets`), and `held_out` is any of these.
    Chance within the network (dropout) is a function of seed and update.
    `watch` names single weights whose values are kept at every update, such as "hid1.weight[0,5]"; `history_bytes` is
    what the states to rewind to may take: the last 128 updates' in memory, older ones in temporary files.
    `Run(record)` goes on where a record ended, to the bit, with its settings, past and branch; what it was trained on
    is no part of a record, so that a network of your own, its data and its cost are given again.
    `Run("cnnlab:question?seed=3&at3.clip=norm")` opens a link as `record.link()` gives it: the knobs that it plans come
    into force at their updates, until others are chosen with `set`. `plan` is the same as (first update, Knobs) pairs.

    The same settings on the same device give the same run to the bit: the question's network computes on one CPU
    thread, and nothing draws from a global generator.
    """

    def __init__(
        self,
        preset: str | Settings | Record | Problem = "question",
        *,
        network: nn.Module | None = None,
        data: Any = None,
        cost: Callable[..., Tensor] | str | None = None,
        held_out: Any = None,
        watch: Sequence[str] | None = None,
        history_bytes: int = HISTORY_BYTES,
        plan: Plan = (),
        **changes: Any,
    ) -> None:
        if isinstance(cost, str):
            changes["cost"] = cost
        if isinstance(preset, Record):
            wanted, watch = check_same_settings(preset, changes), check_same_watched(preset, watch)
        elif not isinstance(preset, Problem):
            if network is not None:
                data, changes = prepare_own_start(preset, network, data, changes)
            wanted, planned = opened(preset, **changes)
            plan = check_plan(plan, wanted) or planned
        keep_freed_memory()
        self.problem = preset if isinstance(preset, Problem) else Problem.build(wanted, network, data, cost, held_out)
        layout = self.layout
        self.kernels = Kernels.from_layout(layout, self.problem.device)
        if isinstance(preset, Record):
            self.check_record(preset)
        names = tuple(layout.choose_watched() if watch is None else check_watched(watch))
        self.watched = [layout.index(name) for name in names]
        self.knobs, self.plan = self.settings.knobs, plan
        self.prepared: tuple[Knobs, KnobTensors, StepStructure] | None = None
        self.raised: tuple[int, str] = 0, ""
        self.switched: int | None = None  # the update after which another optimiser was chosen, until that is noted
        if isinstance(preset, Record):
            self.take_over(preset, history_bytes)
            return
        self.state = self.problem.draw_start()
        self.history = History(self.state, history_bytes)
        self.updates, self.branch, self.numbers = 0, Branch(), itertools.count(2)
        self.attach_gauges()
        with self.determinism(0):
            self.pending: list[Row] = [(*self.gauges.start(self.parameters), self.kernels.read(self.parameters), None)]
        self.log = Log(self.settings, layout.layers, names, self.updates_per_epoch, self.kernels.shape)

    def take_over(self, record: Record, history_bytes: int) -> None:
        """Go on with the past of a record; ValueError if its states do not fit the network."""
        states = restore_states(record, self.problem.make_empty_state())
        self.history = History.from_states(states, history_bytes)
        self.log, self.pending = Log.from_record(dataclasses.replace(record, settings=self.settings)), []
        self.updates, self.branch = len(record), record.branch
        self.raised = record.clues.error_step, record.clues.error
        self.knobs = record.knobs_at(self.updates + 1)
        taken = max(each.branch.number for each in (record, *record.others))
        self.numbers = itertools.count(taken + 1)
        self.state = states[0]
        self.attach_gauges()
        self.state = self.state_at(self.updates)

    def attach_gauges(self) -> None:
        """Train a copy of the network that this run has for itself, with hooks that measure activations."""
        self.network = copy.deepcopy(self.problem.network)
        self.descent: Descent = dataclasses.replace(self.problem.descent, network=self.network)
        with self.problem.determinism(0):
            self.gauges = make_gauges(self.network, self.layout, self.parameters, self.watched)
        # What a user's own network does besides, in Python, would be done once and never again, as a dropout's draw.
        called = self.own_network or self.settings.dropout > 0
        device = torch.device("cpu") if called else self.problem.device
        self.compute = Repeated(self.compute_update, device)

    def check_record(self, record: Record) -> None:
        """ValueError if a record is of another network, or of other data."""
        if record.own_network and not self.own_network:
            raise ValueError("the record is of a network of your own: give it again as network=, data= and cost=")
        fits = {
            "layers": (self.layout.layers, record.layers),
            "kernels of shape": (self.kernels.shape, record.kernels.shape[1:]),
            "updates in an epoch:": (self.updates_per_epoch, record.updates_per_epoch),
        }
        for name, (ours, theirs) in fits.items():
            if ours != theirs:
                raise ValueError(f"the record has {name} {theirs}, but the run {ours}")

    def __repr__(self) -> str:
        return f"Run({self.record!r})"

    @property
    def settings(self) -> Settings:
        """What the run started from."""
        return self.problem.settings

    @property
    def own_network(self) -> bool:
        """Whether the network is the user's own."""
        return self.problem.own_network

    @property
    def layout(self) -> Layout:
        """Where each parameter lies in the flat vector."""
        return self.problem.layout

    @property
    def updates_per_epoch(self) -> int:
        """Updates in one pass over the training patches."""
        return self.problem.examples.updates_per_epoch(self.settings.batch_size)

    @property
    def knobs_in_force(self) -> Knobs:
        """The knobs of the next update: those last chosen, or what the plan has for it."""
        return self.find_planned_knobs(self.updates + 1)

    def find_planned_knobs(self, update: int) -> Knobs:
        """The knobs of an update to come, unless others are chosen by then."""
        return next((knobs for first, knobs in reversed(self.plan) if first <= update), self.knobs)

    @property
    def record(self) -> Record:
        """Everything so far; a record taken earlier stays as it was."""
        self.flush()
        history, last = self.history, self.updates
        return dataclasses.replace(
            self.log.record(),
            branch=self.branch,
            take_snapshots=lambda: history.snapshots(last),
            own_network=self.own_network,
            network=self.problem.describe_own_network(),
            clues=Clues(error_step=self.raised[0], error=self.raised[1]),
        )

    @property
    def broken(self) -> bool:
        """Whether the cost of the last update, or a weight after it, is NaN or inf."""
        waiting = self.pending  # which another thread may bring to the host meanwhile
        row = (waiting[-1][0] if waiting else self.log.table.view()[-1]).tolist()
        layers = len(self.log.layers)
        nan = len(GAUGES) + LAYER_GAUGES.index("weight_nan") * layers
        counts = row[nan : nan + 2 * layers]  # those of inf come next
        return any(counts) or (self.updates > 0 and not math.isfinite(row[GAUGES.index("cost")]))

    def set(self, **changes: Any) -> None:
        """Change knobs from the next update on; what a run starts from cannot change, and is a TypeError."""
        check_names(changes)
        for name in changes:
            if name not in KNOB_FIELDS:
                raise TypeError(f"{name} is what a run starts from: make a new Run to change it")
        if changes:
            knobs = change_knobs(self.knobs_in_force, changes)
            check_loss_scale(knobs, self.settings.precision)
            self.choose(knobs)

    def choose(self, knobs: Knobs) -> None:
        """Have these knobs in force from the next update on, whatever was planned."""
        if knobs.optimizer != self.knobs_in_force.optimizer:
            self.switched = self.updates
        self.knobs, self.plan = knobs, ()

    def step(self) -> Frame:
        """One update; returns its Frame. NaN and inf are data: they never raise."""
        return self.advance(1)

    def advance(self, updates: int, until: str | None = None) -> Frame:
        """So many updates, one after the other; returns the last Frame.

        `until="nonfinite"` stops after the first update whose cost is NaN or inf.
        """
        updates = check_whole_number("updates", updates, 1)
        if until is not None and not (isinstance(until, str) and until == "nonfinite"):
            raise ValueError(f"until must be None or 'nonfinite', got {quote(until)}")
        for _ in range(updates):
            self.update()
            if until and self.record.frames[-1].nonfinite:
                break
        return self.record.frames[-1]

    def update(self) -> None:
        """One update whose gauges stay on the device until the record is asked for.

        If the network or the cost raises, or an interrupt comes, the run stays as it was; the record says what was
        raised.
        """
        try:
            self.make_update()
        except Exception as error:
            self.raised = self.updates + 1, describe_problem(error)
            raise
        self.raised = 0, ""

    def make_update(self) -> None:
        """One update."""
        knobs = self.knobs_in_force
        with self.determinism(self.updates + 1):
            batch = self.problem.batch(self.updates + 1)
            # A graph of its own would take memory for few updates, so that those with signals are not recorded.
            compute = self.compute_signals if is_signal_update(self.updates + 1) else self.compute
            state, row = compute(self.state, *batch, *self.prepare_knobs(knobs))
        # What comes first may be done again; the last line has no call in it, and so no place for an interrupt.
        self.log.change_knobs(self.updates + 1, knobs)
        self.history.keep(self.updates + 1, state)
        self.state, self.updates, self.pending = state, self.updates + 1, [*self.pending, row]
        if len(self.pending) >= FLUSH_EVERY:
            self.flush()

    def compute_update(
        self, state: State, x: Any, y: Any, knobs: KnobTensors, structure: StepStructure
    ) -> tuple[State, Row]:
        """The state after an update, and all that is measured of it; nothing of the run is changed."""
        step = self.descent.step(state, x, y, knobs, structure)
        measured = self.gauges.measure(state.parameters, step, y)
        return step.state, (*measured, self.kernels.read(step.parameters), None)

    def compute_signals(
        self, state: State, x: Any, y: Any, knobs: KnobTensors, structure: StepStructure
    ) -> tuple[State, Row]:
        """The same, with what passes through the layers."""
        with listen_to_signals(self.network, self.gauges) as passing:
            step = self.descent.step(state, x, y, knobs, structure)
        measured = self.gauges.measure(state.parameters, step, y, signals=passing.read())
        return step.state, (*measured, self.kernels.read(step.parameters), passing.count(step))

    def rewind(self, step: int) -> None:
        """Back to where the run was after update `step` (0: the start), to the bit; what came later is forgotten.

        The run goes on with the knobs that were in force at the next update then. A Record taken earlier stays as it
        was. ValueError outside the run.
        """
        step = self.check_step(step)
        if step == self.updates:
            return
        self.flush()
        state, knobs = self.state_at(step), self.log.record().knobs_at(step + 1)
        log, history = self.log.until(step), self.history.until(step)
        self.state, self.knobs, self.log, self.history, self.updates = state, knobs, log, history, step
        self.raised = 0, ""

    def fork(self, step: int | None = None, **changes: Any) -> Run:
        """Another run that shares the past up to update `step` (None: the present), with some knobs changed.

        Without changes it repeats this run to the bit, as long as this run's knobs do not change later.
        """
        step = self.updates if step is None else self.check_step(step)
        self.flush()
        twin = copy.copy(self)
        twin.attach_gauges()
        twin.pending, twin.raised = [], (0, "")
        twin.log, twin.history = self.log.until(self.updates), self.history.until(self.updates)
        twin.rewind(step)
        twin.set(**changes)
        twin.branch = Branch(next(self.numbers), self.branch.number, step)
        return twin

    def check_step(self, step: Any) -> int:
        """`step` as a plain int; ValueError if it is none of this run's updates, or 0."""
        return check_whole_number("step", step, 0, self.updates)

    def state_at(self, step: int) -> State:
        """The state after update `step`: the nearest one kept, and the updates from there on once more."""
        nearest = self.history.nearest(step)
        state = self.history.states[nearest]
        record = self.log.record()
        for update in range(nearest + 1, step + 1):
            with self.determinism(update):
                knobs = self.prepare_knobs(record.knobs_at(update))
                state = self.descent.step(state, *self.problem.batch(update), *knobs).state
        return state

    @contextlib.contextmanager
    def determinism(self, update: int) -> Iterator[None]:
        """What is computed here is the same to the bit each time, as a part of that update."""
        try:
            with self.problem.determinism(update):
                yield
        finally:
            self.gauges.activations.clear()

    @property
    def parameters(self) -> Tensor:
        """The flat vector of all parameters; it is never written to."""
        return self.state.parameters

    def prepare_knobs(self, knobs: Knobs) -> tuple[KnobTensors, StepStructure]:
        """The knobs as tensors, made anew only when they have changed."""
        if self.prepared is None or self.prepared[0] is not knobs:
            self.prepared = knobs, KnobTensors.from_knobs(knobs, self.parameters), StepStructure.from_knobs(knobs)
        return self.prepared[1:]

    def flush(self) -> None:
        """Bring the gauges that wait on the device to the host, all at once."""
        self.bring_waiting()
        switched, self.switched = self.switched, None
        if switched is not None and not math.isnan(self.log.table.view()[switched, GAUGES.index("sharpness")]):
            self.log.write_gauge("sharpness", switched, NOT_MEASURED)  # it was of what the other's step meets

    def bring_waiting(self) -> None:
        """Bring them, where some wait."""
        if not self.pending:
            return
        waiting = self.pending[self.log.rows - self.updates - 1 :]  # none of those that an interrupted call has brought
        if self.log.rows <= self.updates:
            passing = {place: row[-1] for place, row in enumerate(waiting) if row[-1] is not None}
            parts = [torch.stack(parts) for parts in zip(*(row[:-1] for row in waiting), strict=True)]
            table, histograms, kernels, *signals = bring_to_host([*parts, *passing.values()])
            self.log.append(table, histograms, kernels, dict(zip(passing, signals, strict=True)))
        self.pending = []

    def measure_held_out(self) -> float:
        """Accuracy on the held-out patches at the present weights, kept in the last frame; NaN without such patches.

        The network is in evaluation mode meanwhile, so that dropout and batch norm neither spoil it nor learn from it.
        """
        self.flush()
        known = self.log.last("held_out_accuracy")
        if self.problem.held_out is None or not math.isnan(known):
            return known
        x, y = self.problem.held_out
        with self.determinism(self.updates), evaluation(self.network):
            accuracy = classification(self.descent.outputs(self.state, x), y)[0].item()
        self.log.write_gauge("held_out_accuracy", self.updates, accuracy)
        return accuracy

    def note_sharpness(self, step: int, eigenvalue: float) -> None:
        """Keep a measured largest eigenvalue after update `step` in its frame; NaN: it is not finite.

        It is that of what the next update's step meets: of the Hessian, or of the one that its optimiser divides.
        """
        self.flush()
        self.log.write_gauge("sharpness", self.check_step(step), math.inf if math.isnan(eigenvalue) else eigenvalue)

    @property
    def sharpness(self) -> float:
        """The largest eigenvalue that the next step meets, if it was noted; NaN if not."""
        self.flush()
        return self.log.last("sharpness")

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of all parameters by name, as numpy arrays of float64 at present."""
        return {
            name: view.to("cpu", torch.float64).numpy().copy()
            for name, view in self.layout.views(self.parameters).items()
        }

    def activations(self) -> dict[str, np.ndarray]:
        """Each layer's output for all training examples at the present weights, before any ReLU, by the layer's name.

        Float64 arrays (examples, ...), in the order in which the layers run. The network is in evaluation mode
        meanwhile, so that nothing of the run changes.
        """
        with self.determinism(self.updates), evaluation(self.network):
            forward = functools.partial(self.descent.outputs, self.state, self.problem.data[0])
            outputs = collect_outputs(self.network, self.layout.layers, forward)
        return {name: output.to("cpu", torch.float64).numpy() for name, output in outputs.items()}

    def patches(self) -> np.ndarray | None:
        """The training patches as images (patches, height, width); None if the data are no images."""
        x = self.problem.data[0]
        there = isinstance(x, Tensor) and x.dim() == 4 and x.is_floating_point()
        return x[:, 0].to("cpu", torch.float32).numpy() if there else None
