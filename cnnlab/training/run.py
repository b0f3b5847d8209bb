"""A run: a network on its way down. It steps when told to, and keeps a record; it knows no widgets and no plots."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnlab.config.links import Plan, opened
from cnnlab.config.settings import KNOB_FIELDS, LIMITS, Knobs, Number, Settings, check_names, written
from cnnlab.records.frame import Frame
from cnnlab.records.log import Log
from cnnlab.records.record import Branch, Record, Snapshot
from cnnlab.training import data as image_data
from cnnlab.training.checkpoints import History, State
from cnnlab.training.datasets import Examples, Pair, examples_of, mapped
from cnnlab.training.initializers import initial_parameters
from cnnlab.training.losses import Cost, question_cost
from cnnlab.training.malloc import keep_freed_memory
from cnnlab.training.metrics import Gauges, classification
from cnnlab.training.network import Layout, question_network
from cnnlab.training.step import Descent, Kind, KnobTensors

HISTORY_BYTES = 64 * 2**20
"""Bytes that the states kept for rewinding may take, most of them in files, unless a run is told otherwise."""
MOST_KERNEL_NUMBERS = 1024
"""Most numbers of the first convolution that are kept at every update."""
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
        preset: str | Settings | Record = "question",
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
            self.settings = same_settings(preset, changes)
            watch = same_watched(preset, watch)
        else:
            if network is not None:
                data, changes = own_start(preset, network, data, changes)
            self.settings, planned = opened(preset, **changes)
            plan = checked_plan(plan) or planned
        self.device = chosen_device(self.settings)
        self.dtype: torch.dtype = getattr(torch, self.settings.precision)
        self.own_network = network is not None
        if (
            isinstance(history_bytes, bool)
            or not isinstance(history_bytes, (int, float, np.number))
            or not history_bytes >= 0
        ):
            raise ValueError(f"history_bytes must be a number of at least 0, got {written(history_bytes)}")
        keep_freed_memory()
        with self.one_thread():
            self.prepare(network, data, cost, held_out)
            self.kernel_places, kernel_shape = kernels_of(self.layout, self.device)
            if isinstance(preset, Record):
                self.check_record(preset, kernel_shape)
            names = tuple(self.layout.watched_by_default() if watch is None else weights_named(watch))
            self.watched = [self.layout.index(name) for name in names]
            self.knobs, self.plan = self.settings.knobs, plan
            self.gauges = Gauges(self.network, self.layout, self.parameters, self.watched)
            self.log = Log(self.settings, self.layout.layers, names, self.updates_per_epoch, kernel_shape)
            self.pending = [(*self.gauges.start(self.parameters), self.kernels())]
        self.updates = 0
        self.branch = Branch()
        self.numbers = itertools.count(2)
        self.history = History(self.state, history_bytes)
        self.prepared = KnobTensors.of(self.knobs, self.parameters), Kind.of(self.knobs)
        self.prepared_for = self.knobs
        if isinstance(preset, Record):
            self.go_on(preset, history_bytes)

    def prepare(
        self,
        network: nn.Module | None,
        data: Any,
        cost: Callable[..., Tensor] | str | None,
        held_out: Any,
    ) -> None:
        """Bring network, data, cost and first parameters together on the device."""
        if network is None:
            if data is not None or held_out is not None or not (cost is None or isinstance(cost, str)):
                raise TypeError("data, held_out and cost go with a network of your own: pass network=")
            patches = image_data.patches_of(self.settings)
            examples = Examples(patches.x, patches.y)
            held: Examples | None = Examples(patches.held_x, patches.held_y)
            self.network: nn.Module = question_network(self.settings)
            objective: Cost = question_cost(self.settings)
            self.layout = Layout.of(self.network)
            start = initial_parameters(self.network, self.layout, self.settings, patches.x)
        else:
            if data is None or cost is None:
                raise TypeError("a network of your own needs data=(x, y) and cost=, a function of outputs and y")
            if not isinstance(cost, str) and not callable(cost):
                raise TypeError(f"cost must be a function of outputs and y, got {type(cost).__name__}")
            examples = examples_of("data", data)
            held = None if held_out is None else examples_of("held_out", held_out)
            self.network = copy_of(network).to(self.device)
            for buffer in (*self.network.parameters(), *self.network.buffers()):
                if buffer.is_floating_point():
                    buffer.data = buffer.data.to(self.dtype)
            objective = question_cost(self.settings) if isinstance(cost, str) else without_epsilon(cost)
            self.layout = Layout.of(self.network)
            start = self.layout.flatten(dict(self.network.named_parameters()))
        self.given = examples
        self.examples = examples.placed(self.placed)
        self.data: Pair = self.examples.pair
        self.held_out: Pair | None = None if held is None else held.placed(self.placed).pair
        buffers = {} if network is None else dict(self.network.named_buffers())
        self.state = State(start.to(self.device, self.dtype), None, buffers)
        self.blank = copy.deepcopy(self.network)
        is_weight = self.layout.is_weight(self.device)
        self.descent = Descent(self.network, self.layout, objective, is_weight)

    def go_on(self, record: Record, history_bytes: int) -> None:
        """Take over the past of a record; ValueError if its states do not fit the network."""
        states = {kept.step: self.state_of(kept) for kept in record.take_snapshots() if kept.step <= len(record)}
        if 0 not in states:
            raise ValueError("a record must hold the state at its start to be gone on with, and this one does not")
        self.log, self.pending = Log.from_record(dataclasses.replace(record, settings=self.settings)), []
        self.history = History.of(states, history_bytes)
        self.updates = len(record)
        self.knobs = record.knobs_at(self.updates + 1)
        self.branch = record.branch
        taken = max(each.branch.number for each in (record, *record.others))
        self.numbers = itertools.count(taken + 1)
        self.state = self.state_at(self.updates)

    def check_record(self, record: Record, kernel_shape: tuple[int, ...]) -> None:
        """ValueError if a record is of another network, or of other data."""
        if record.own_network and not self.own_network:
            raise ValueError("the record is of a network of your own: give it again as network=, data= and cost=")
        fits = {
            "layers": (self.layout.layers, record.layers),
            "kernels of shape": (kernel_shape, record.kernels.shape[1:]),
            "updates in an epoch:": (self.updates_per_epoch, record.updates_per_epoch),
        }
        for name, (ours, theirs) in fits.items():
            if ours != theirs:
                raise ValueError(f"the record has {name} {theirs}, but the run {ours}")

    def state_of(self, kept: Snapshot) -> State:
        """The state that a snapshot holds; ValueError if it does not fit the network."""
        like = dict(named(self.state))
        if "velocity" in kept.arrays:
            like["velocity"] = self.parameters
        sizes = [{name: part.nbytes for name, part in parts.items()} for parts in (kept.arrays, like)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"the record's state at update {kept.step} does not fit the network: it holds {in_bytes(sizes[0])}, "
                f"and the network {in_bytes(sizes[1])}"
            )
        tensors = {name: of_bytes(kept.arrays[name], tensor) for name, tensor in like.items()}
        parameters, velocity = tensors.pop("parameters"), tensors.pop("velocity", None)
        return State(parameters, velocity, {name.removeprefix("buffer."): part for name, part in tensors.items()})

    def placed(self, tensor: Tensor) -> Tensor:
        """One tensor on the run's device, in its precision if it is floating-point."""
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)

    def __repr__(self) -> str:
        return f"Run({self.record!r})"

    @property
    def updates_per_epoch(self) -> int:
        """Updates in one pass over the training patches."""
        return self.examples.updates_per_epoch(self.settings.batch_size)

    @property
    def knobs_in_force(self) -> Knobs:
        """The knobs of the next update: those last chosen, or what the plan has for it."""
        return next((knobs for first, knobs in reversed(self.plan) if first <= self.updates + 1), self.knobs)

    @property
    def record(self) -> Record:
        """Everything so far; a record taken earlier stays as it was."""
        self.flush()
        history, last = self.history, self.updates
        return dataclasses.replace(
            self.log.record(),
            branch=self.branch,
            take_snapshots=lambda: snapshots(history, last),
            own_network=self.own_network,
        )

    def set(self, **changes: Any) -> None:
        """Change knobs from the next update on; what a run starts from cannot change, and is a TypeError."""
        check_names(changes)
        for name in changes:
            if name not in KNOB_FIELDS:
                raise TypeError(f"{name} is what a run starts from: make a new Run to change it")
        if changes:
            self.choose(dataclasses.replace(self.knobs_in_force, **changes))

    def choose(self, knobs: Knobs) -> None:
        """Have these knobs in force from the next update on, whatever was planned."""
        self.knobs, self.plan = knobs, ()

    def step(self) -> Frame:
        """One update; returns its Frame. NaN and inf are data: they never raise."""
        return self.advance(1)

    def advance(self, updates: int, until: str | None = None) -> Frame:
        """So many updates, one after the other; returns the last Frame.

        `until="nonfinite"` stops after the first update whose cost is NaN or inf.
        """
        if isinstance(updates, bool) or not isinstance(updates, (int, np.integer)) or updates < 1:
            raise ValueError(f"updates must be a whole number of at least 1, got {written(updates)}")
        if until is not None and not (isinstance(until, str) and until == "nonfinite"):
            raise ValueError(f"until must be None or 'nonfinite', got {written(until)}")
        for _ in range(updates):
            self.update()
            if until and self.record.frames[-1].nonfinite:
                break
        return self.record.frames[-1]

    def update(self) -> None:
        """One update whose gauges stay on the device until the record is asked for.

        If the network or the cost raises, or an interrupt comes, the run stays as it was.
        """
        with self.one_thread():
            x, y = self.batch(self.updates + 1)
            knobs = self.knobs_in_force
            numbers, kind = self.prepared_knobs(knobs)
            try:
                with self.randomness(self.updates + 1):
                    step = self.descent.step(self.state, x, y, numbers, kind)
                measured = self.gauges.measure(self.parameters, step, y)
            finally:
                self.gauges.activations.clear()
        state = State(step.parameters, step.velocity, step.buffers)
        row = (*measured, self.kernels_in(step.parameters))
        # What comes first may be done again; the last line has no call in it, and so no place for an interrupt.
        self.log.change_knobs(self.updates + 1, knobs)
        self.history.keep(self.updates + 1, state)
        self.state, self.updates, self.pending = state, self.updates + 1, [*self.pending, row]
        if len(self.pending) >= FLUSH_EVERY:
            self.flush()

    def rewind(self, step: int) -> None:
        """Back to where the run was after update `step` (0: the start), to the bit; what came later is forgotten.

        The run goes on with the knobs that were in force at the next update then. A Record taken earlier stays as it
        was. ValueError outside the run.
        """
        step = self.checked_step(step)
        if step == self.updates:
            return
        self.flush()
        state, knobs = self.state_at(step), self.log.record().knobs_at(step + 1)
        log, history = self.log.until(step), self.history.until(step)
        self.state, self.knobs, self.log, self.history, self.updates = state, knobs, log, history, step

    def fork(self, step: int | None = None, **changes: Any) -> Run:
        """Another run that shares the past up to update `step` (None: the present), with some knobs changed.

        Without changes it repeats this run to the bit, as long as this run's knobs do not change later.
        """
        step = self.updates if step is None else self.checked_step(step)
        self.flush()
        twin = copy.copy(self)
        twin.network = copy.deepcopy(self.blank)
        twin.descent = dataclasses.replace(self.descent, network=twin.network)
        twin.gauges = Gauges(twin.network, self.layout, self.parameters, self.watched)
        twin.pending = []
        twin.log, twin.history = self.log.until(self.updates), self.history.until(self.updates)
        twin.rewind(step)
        twin.set(**changes)
        twin.branch = Branch(next(self.numbers), self.branch.number, step)
        return twin

    def checked_step(self, step: Any) -> int:
        """`step` as a plain int; ValueError if it is none of this run's updates, or 0."""
        if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or not 0 <= step <= self.updates:
            raise ValueError(f"step must be a whole number in [0, {self.updates}], got {written(step)}")
        return int(step)

    def state_at(self, step: int) -> State:
        """The state after update `step`: the nearest one kept, and the updates from there on once more."""
        nearest = self.history.nearest(step)
        state = self.history.states[nearest]
        record = self.log.record()
        with self.one_thread():
            try:
                for update in range(nearest + 1, step + 1):
                    x, y = self.batch(update)
                    numbers, kind = self.prepared_knobs(record.knobs_at(update))
                    with self.randomness(update):
                        again = self.descent.step(state, x, y, numbers, kind)
                    state = State(again.parameters, again.velocity, again.buffers)
            finally:
                self.gauges.activations.clear()
        return state

    @contextlib.contextmanager
    def randomness(self, step: int) -> Iterator[None]:
        """Chance within a network of the reader's own (dropout), as a function of seed and update."""
        if not self.own_network:
            yield
            return
        seed = self.settings.seed * 1_000_003 + step
        # A network may draw from Python's and numpy's generators, too.
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            try:
                yield
            finally:
                random.setstate(python)
                np.random.set_state(numpy)  # noqa: NPY002

    @property
    def parameters(self) -> Tensor:
        """The flat vector of all parameters; it is never written to."""
        return self.state.parameters

    def prepared_knobs(self, knobs: Knobs) -> tuple[KnobTensors, Kind]:
        """The knobs as tensors, made anew only when they have changed."""
        if self.prepared_for is not knobs:
            self.prepared = KnobTensors.of(knobs, self.parameters), Kind.of(knobs)
            self.prepared_for = knobs
        return self.prepared

    def batch(self, step: int) -> tuple[Any, Any]:
        """The examples of an update, counted from 1: a function of seed and step alone."""
        x, y = self.data
        indices = self.examples.indices(self.settings.batch_size, self.settings.seed, step)
        if indices is None:
            return x, y
        places = indices.to(self.device)
        return mapped(lambda tensor: tensor[places], x), mapped(lambda tensor: tensor[places], y)

    def flush(self) -> None:
        """Bring the gauges that wait on the device to the host, all at once."""
        if not self.pending:
            return
        waiting = self.pending[self.log.rows - self.updates - 1 :]  # none of those that an interrupted call has brought
        if self.log.rows <= self.updates:
            rows, histograms, kernels = (torch.stack(parts).cpu().numpy() for parts in zip(*waiting, strict=True))
            self.log.append(rows, histograms, kernels)
        self.pending = []

    def measure_held_out(self) -> float:
        """Accuracy on the held-out patches at the present weights, kept in the last frame; NaN without such patches.

        The network is in evaluation mode meanwhile, so that dropout and batch norm neither spoil it nor learn from it.
        """
        self.flush()
        known = self.log.last("held_out_accuracy")
        if self.held_out is None or not math.isnan(known):
            return known
        x, y = self.held_out
        try:
            with self.one_thread(), evaluation(self.network), self.randomness(self.updates):
                accuracy = classification(self.descent.outputs(self.state, x), y)[0].item()
        finally:
            self.gauges.activations.clear()
        self.log.write_gauge("held_out_accuracy", self.updates, accuracy)
        return accuracy

    def note_sharpness(self, step: int, eigenvalue: float) -> None:
        """Keep a measured largest eigenvalue of the Hessian after update `step` in its frame; NaN: it is not finite."""
        self.flush()
        self.log.write_gauge("sharpness", self.checked_step(step), math.inf if math.isnan(eigenvalue) else eigenvalue)

    @property
    def sharpness(self) -> float:
        """The largest eigenvalue of the Hessian at the present weights, if it was noted; NaN if not."""
        self.flush()
        return self.log.last("sharpness")

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of all parameters by name, as numpy arrays of float64 at present."""
        return {
            name: view.to("cpu", torch.float64).numpy().copy()
            for name, view in self.layout.views(self.parameters).items()
        }

    def kernels(self) -> Tensor:
        """The first convolution's kernels in one vector (float32, on the device), as `Record.kernels` keeps them."""
        return self.kernels_in(self.parameters)

    def kernels_in(self, parameters: Tensor) -> Tensor:
        """The same of other parameters."""
        return parameters[self.kernel_places].to(torch.float32)

    def patches(self) -> np.ndarray | None:
        """The training patches as images (patches, height, width); None if the data are no images."""
        x = self.data[0]
        there = isinstance(x, Tensor) and x.dim() == 4 and x.is_floating_point()
        return x[:, 0].to("cpu", torch.float32).numpy() if there else None

    @contextlib.contextmanager
    def one_thread(self) -> Iterator[None]:
        """One CPU thread for the question's network: the same bits under any load, and faster beside other work.

        On a GPU its convolutions are exact, see `sums_in_a_fixed_order`.
        """
        if self.device.type == "cuda":
            with sums_in_a_fixed_order():
                yield
            return
        before = torch.get_num_threads()
        if self.own_network or before == 1:
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def sums_in_a_fixed_order() -> contextlib.AbstractContextManager[None]:
    """On a GPU, convolutions whose sums have a fixed order and no rounding to TF32, so that a replay is exact."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def kernels_of(layout: Layout, device: torch.device) -> tuple[Tensor, tuple[int, int, int]]:
    """Where the first convolution's kernels for its first input lie in the flat vector, and their shape; none: empty.

    At most 1,024 numbers of them, so that keeping them at every update costs little.
    """
    views = layout.views(torch.arange(sum(layout.sizes)))
    first = next((view[:, 0] for view in views.values() if view.dim() == 4), None)
    if first is None:
        return torch.empty(0, dtype=torch.int64, device=device), (0, 1, 1)
    chosen = first[: max(1, MOST_KERNEL_NUMBERS // first[0].numel())]
    count, height, width = chosen.shape
    return chosen.flatten().to(device), (count, height, width)


def snapshots(history: History, last: int) -> tuple[Snapshot, ...]:
    """The states kept up to update `last`, as bytes."""
    kept = sorted((step, state) for step, state in dict(history.states).items() if step <= last)
    return tuple(Snapshot(step, {name: as_bytes(tensor) for name, tensor in named(state)}) for step, state in kept)


def named(state: State) -> list[tuple[str, Tensor]]:
    """The tensors of a state by the names that a Snapshot uses."""
    velocity = [] if state.velocity is None else [("velocity", state.velocity)]
    return [("parameters", state.parameters), *velocity, *((f"buffer.{name}", b) for name, b in state.buffers.items())]


def as_bytes(tensor: Tensor) -> np.ndarray:
    """A tensor's bytes as an array of uint8."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def of_bytes(array: np.ndarray, like: Tensor) -> Tensor:
    """The tensor whose bytes these are, of the same type, shape and device as another."""
    return torch.from_numpy(array.copy()).view(like.dtype).reshape(like.shape).to(like.device)


def in_bytes(sizes: dict[str, int]) -> str:
    """Sizes by name in words."""
    return ", ".join(f"{name} ({size} bytes)" for name, size in sizes.items())


def same_settings(record: Record, changes: dict[str, Any]) -> Settings:
    """The settings of a record; TypeError if others are asked for. Only the device may be another."""
    check_names(changes)
    wanted = record.settings.replace(**{name: value for name, value in changes.items() if name == "device"})
    for name, value in changes.items():
        if getattr(wanted, name) != value:
            raise TypeError(
                f"{name} is that of the record, {getattr(wanted, name)!r}, got {written(value)}: change it with set"
            )
    return wanted


def checked_plan(plan: Any) -> Plan:
    """A plan itself; TypeError in a sentence if it is no (first update, Knobs) pairs."""
    pairs = plan if isinstance(plan, (tuple, list)) else [None]
    if not all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], int) and isinstance(pair[1], Knobs)
        for pair in pairs
    ):
        raise TypeError(f"plan must be (first update, Knobs) pairs as rate_plan gives them, got {written(plan)}")
    return tuple(plan)


def weights_named(watch: Any) -> tuple[str, ...]:
    """The names in `watch`; TypeError in a sentence if it is no list of texts."""
    if isinstance(watch, str) or not isinstance(watch, Sequence) or not all(isinstance(name, str) for name in watch):
        raise TypeError(f'watch must be a list of weights such as ["hid1.weight[0,5]"], got {written(watch)}')
    return tuple(watch)


def same_watched(record: Record, watch: Sequence[str] | None) -> tuple[str, ...]:
    """The weights that a record watches; TypeError if others are asked for."""
    if watch is not None and tuple(watch) != record.watched:
        raise TypeError(f"watch is that of the record, {record.watched}, got {tuple(watch)}")
    return record.watched


def chosen_device(wanted: Settings) -> torch.device:
    """The device that the settings ask for; ValueError if this machine lacks it, or it lacks the precision."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = next(name for name, there in available.items() if there) if wanted.device == "auto" else wanted.device
    if name == "mps" and wanted.precision == "float64":
        if wanted.device == "mps":
            raise ValueError("precision must be float32 or less on device 'mps', got 'float64'")
        name = "cpu"
    if not available[name]:
        there = ", ".join(name for name, here in available.items() if here)
        raise ValueError(f"device must be one that this machine has ({there}), got {written(name)}")
    return torch.device(name)


@contextlib.contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for every module, and then each module's own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def own_start(
    preset: Any, network: nn.Module, data: Any, changes: dict[str, Any]
) -> tuple[Examples | None, dict[str, Any]]:
    """Data as examples, and the changes with what follows from network and data; Settings ready-made say it all."""
    examples = None if data is None else examples_of("data", data)
    follows = what_follows_from(network, examples)
    if isinstance(preset, Settings):
        follows = {name: value for name, value in follows.items() if name == "patches"}
    return examples, {**follows, **changes}


def what_follows_from(network: nn.Module, data: Examples | None) -> dict[str, Any]:
    """Settings that a network of one's own and its data decide: precision, batch size, how many a batch may hold."""
    most = LIMITS["patches"]
    assert isinstance(most, Number)
    follows: dict[str, Any] = {"precision": precision_of(network)}
    if data is not None:
        follows["patches"] = int(min(max(len(data), most.low), most.high))
        if data.batch_size is not None:
            follows["batch_size"] = data.batch_size if data.batch_size < len(data) else None
    return follows


def precision_of(network: nn.Module) -> str:
    """The floating-point type of a module's first parameter, by the name that settings use."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a torch.nn.Module, got {type(network).__name__}")
    first = next((parameter for parameter in network.parameters() if parameter.is_floating_point()), None)
    return "float32" if first is None else str(first.dtype).removeprefix("torch.")


def copy_of(network: nn.Module) -> nn.Module:
    """A copy that shares nothing; ValueError in a sentence for a module that cannot be copied or is not ready."""
    lazy = [name for name, part in network.named_parameters() if isinstance(part, nn.parameter.UninitializedParameter)]
    if lazy:
        raise ValueError(f"network must have its shapes: pass one batch through it first, {lazy[0]} has none yet")
    odd = [name for name, part in network.named_parameters() if part.requires_grad and part.is_complex()]
    if odd:
        raise ValueError(f"network must have real parameters, got complex ones in {odd[0]}")
    try:
        return copy.deepcopy(network)
    except (RuntimeError, TypeError) as reason:
        raise ValueError(f"network must be a module that copy.deepcopy can copy: {reason}".splitlines()[0]) from None


def without_epsilon(cost: Callable[..., Tensor]) -> Cost:
    """A cost of outputs and targets in the form of the question's, which has an epsilon too."""
    return lambda outputs, targets, _epsilon: cost(outputs, targets)
