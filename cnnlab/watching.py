"""A watch around a training loop of the reader's own: the gauges of every update, from hooks, as a Record.

The optimiser's hooks tell when an update comes, autograd's backward what it descends. Knows no widgets and no plots.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnnlab.descent import Step
from cnnlab.gauges import Gauges, classification
from cnnlab.network import Layout
from cnnlab.records import EXPONENTS, GAUGES, Log, Record
from cnnlab.run import FLUSH_EVERY, kernels_of
from cnnlab.settings import Knobs, settings

DRAWING_SHARE = 0.04
"""Largest share of the loop's time that drawing beside it may take."""
ACTIVE: list[Watch] = []
"""Watches whose block is being run."""
TINY = 1e-300
"""Stands for a learning rate of 0, which a Knobs does not hold: a warm-up may begin with it."""


class Stopped(Exception):
    """Raised within the loop to end it before an update; the watch's own block catches it."""


class Watch:
    """The gauges of every update of a training loop that is not ours; made by `cnnlab.watch`.

    `record` is what a Run's record is: `weight_norm`, `update_ratio`, histograms and all. Its cost is what was sent
    backward since the last update (summed, so that micro-batches that are accumulated count together, and without the
    scale of a GradScaler); gradients are those that the optimiser was given, so after clipping; `clipped` is NaN.
    Accuracy and logit gap are known where the cost is torch's cross-entropy of (examples, classes).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        *,
        scaler: Any = None,
        watch: Sequence[str] | None = None,
        stop_before_nan: bool = False,
        show: bool | None = None,
        updates_per_epoch: int = 1,
    ) -> None:
        self.model, compiled = unwrapped(model)
        self.optimizers = optimizers_of(optimizer)
        self.scaler = scaler
        self.stop_before_nan = stop_before_nan
        self.wants_show = show
        self.layout = Layout.of(self.model)
        named = dict(self.model.named_parameters())
        self.parameters = [named[name] for name in self.layout.names]
        flat = self.flat()
        precision = str(flat.dtype).removeprefix("torch.")
        if precision not in EXPONENTS:
            raise ValueError(f"model must have parameters of {', '.join(EXPONENTS)}, got {precision}")
        names = tuple(self.layout.watched_by_default() if watch is None else watch)
        self.places, kernel_shape = kernels_of(self.layout, flat.device)
        self.gauges = Gauges(self.model, self.layout, flat, [self.layout.index(name) for name in names])
        self.gauges.activations.release()  # until the block is entered
        self.hooked = not compiled
        self.log = Log(
            settings("question", precision=precision, **knobs_of(self.optimizers[0])),
            self.layout.layers,
            names,
            updates_per_epoch,
            kernel_shape,
        )
        self.pending = [(*self.gauges.start(flat), self.kernels(flat))]
        self.updates = 0
        self.pausing = False
        self.stopped: str | None = None
        self.skipped = 0
        self.handles: list[Any] = []
        self.interrupt_before: Any = None
        self.forget()
        self.lab: Any = None
        self.drawn_at = self.draw_due = 0.0

    # -- what a person can do

    def __enter__(self) -> Watch:
        if ACTIVE and any(one.model is self.model for one in ACTIVE):
            raise ValueError("the model is watched already: leave the other watch first")
        if self.hooked:
            self.gauges = Gauges(self.model, self.layout, self.flat(), self.gauges.watched.tolist())
        for optimizer in self.optimizers:
            self.handles.append(optimizer.register_step_pre_hook(self.before_update))
            self.handles.append(optimizer.register_step_post_hook(self.after_update))
        self.pausing, self.stopped = False, None
        self.forget()
        listen(self)
        if threading.current_thread() is threading.main_thread():
            self.interrupt_before = signal.signal(signal.SIGINT, self.interrupted)
        if self.wants_show or (self.wants_show is None and in_notebook()):
            self.show()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        deafen(self)
        if self.interrupt_before is not None:
            signal.signal(signal.SIGINT, self.interrupt_before)
            self.interrupt_before = None
        for handle in self.handles:
            handle.remove()
        self.handles = []
        self.gauges.activations.release()
        self.forget()
        self.draw()
        return isinstance(error, Stopped) and error.args[:1] == (self,)

    def pause(self) -> None:
        """End the block before the next update, whose weights stay as they are; may be called from any thread.

        Entering the same watch again goes on with its record.
        """
        self.pausing = True

    def interrupted(self, number: int, frame: Any) -> None:
        """Pause at the first interrupt (■ in JupyterLab, Ctrl-C), between two updates; obey a second one at once."""
        if self.pausing:
            raise KeyboardInterrupt
        self.pause()

    def step(self, loss: Any) -> None:
        """Say the cost of the update just made, where it is not sent backward by torch's own backward. Optional."""
        value = loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss))
        if self.updates == 0:
            raise ValueError("step(loss) follows an update of the optimizer, and there was none yet")
        row = self.pending[-1][0] if self.pending else None
        if row is None:
            for gauge in ("cost", "data_cost"):
                self.log.measured(gauge, self.updates, float(value))
        else:
            for gauge in ("cost", "data_cost"):
                row[GAUGES.index(gauge)] = value.to(row.dtype)

    def show(self) -> Any:
        """A dashboard that draws while the loop goes on, in at most a twenty-fifth of its time."""
        if self.lab is None or self.lab.closed:
            from cnnlab.watch_lab import WatchLab  # not above: plots and widgets are needed only now

            self.lab = WatchLab(self)
        return self.lab

    @property
    def record(self) -> Record:
        """Everything so far; a record taken earlier stays as it was."""
        self.flush()
        return dataclasses.replace(self.log.record(), own_network=True)

    def __repr__(self) -> str:
        return f"Watch({self.record!r}{f', {self.stopped}' if self.stopped else ''})"

    # -- what the hooks do

    def forget(self) -> None:
        """Begin to gather what belongs to the next update."""
        self.costs: list[Tensor] = []
        self.classes: tuple[Tensor, Tensor] | None = None
        self.scale = 1.0
        self.before: Tensor | None = None
        self.gradient: Tensor | None = None
        self.gauges.activations.clear()

    def heard(self, loss: Tensor) -> None:
        """Take note of a cost that is sent backward."""
        if loss.numel() != 1:
            return
        if self.scaler is not None and self.scaler.is_enabled():
            scale = float(self.scaler.get_scale())
            if self.costs and scale < self.scale:  # the update of what came before was skipped for an inf in it
                self.skipped += 1
                self.costs, self.classes = [], None
            self.scale = scale
        self.costs.append(loss.detach().reshape(()) / self.scale)
        self.classes = self.classes or classes_in(loss)

    def before_update(self, optimizer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """What happens before the optimiser's step; an update that would go wrong, or is not wanted, ends the block."""
        if self.pausing:
            self.stop(f"paused before update {self.updates + 1}")
        self.before = self.flat()
        # torch gives the arguments of the unbound step: the optimiser itself is the first.
        closure = arguments[1] if len(arguments) > 1 else keywords.get("closure")
        if closure is None:
            self.look_at_gradient(optimizer)
            return None
        self.costs = []

        @functools.wraps(closure)
        def watched(*args: Any, **kwargs: Any) -> Any:
            result = closure(*args, **kwargs)
            if self.gradient is None:
                self.costs = self.costs or ([result.detach().reshape(())] if isinstance(result, Tensor) else [])
                self.look_at_gradient(optimizer)
                self.evaluated = len(self.costs)
            return result

        rest = {name: value for name, value in keywords.items() if name != "closure"}
        return (arguments[0], watched, *arguments[2:]), rest

    def look_at_gradient(self, optimizer: Any) -> None:
        """Keep the gradient that the optimiser is about to use; stop if it is not finite and that is wanted."""
        parts = [torch.zeros_like(p) if p.grad is None else p.grad.to_dense() if p.grad.is_sparse else p.grad
                 for p in self.parameters]  # fmt: skip
        gradient = torch.cat([part.reshape(-1) for part in parts])
        scale = getattr(optimizer, "grad_scale", None)  # a fused optimiser divides by it within its step
        self.gradient = gradient if scale is None else gradient / scale
        if self.stop_before_nan and not getattr(optimizer, "found_inf", None):
            self.check(self.gradient, f"the gradient of update {self.updates + 1}")

    def after_update(self, optimizer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """What happens after the optimiser's step: the update is measured, and the dashboard drawn if it is due."""
        if self.before is None or self.gradient is None:
            return
        after = self.flat()
        if self.stop_before_nan and not finite(after) and finite(self.before):
            self.put_back(self.before)
            self.check(after, f"update {self.updates + 1}")
        self.measure(self.before, after, self.gradient)
        self.log.change(self.updates + 1, Knobs(**knobs_of(optimizer)))
        self.updates += 1
        self.forget()
        if len(self.pending) >= FLUSH_EVERY:
            self.flush()
        if self.lab is not None and time.monotonic() >= self.draw_due:
            self.draw()

    def measure(self, before: Tensor, after: Tensor, gradient: Tensor) -> None:
        """All gauges of an update, kept where they were measured until the record is asked for."""
        costs = self.costs[:1] if getattr(self, "evaluated", 0) else self.costs
        self.evaluated = 0
        cost = torch.stack(costs).sum() if costs else torch.tensor(math.nan)
        step = Step(after, None, gradient, gradient, before - after, None, cost, None, {})
        row, histogram = self.gauges.measure(before, step, None)
        row[GAUGES.index("clipped")] = math.nan
        if self.classes is not None:
            accuracy, gap = classification(*self.classes)
            row[GAUGES.index("accuracy")], row[GAUGES.index("logit_gap")] = accuracy, gap
        self.pending.append((row, histogram, self.kernels(after)))

    def check(self, flat: Tensor, what: str) -> None:
        """End the block if a vector holds NaN or inf, and say where."""
        if finite(flat):
            return
        bad = [name for name, part in self.layout.views(flat).items() if not finite(part.reshape(-1))]
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        self.stop(f"stopped because {what} holds NaN or inf in {bad[0]}{more}; the weights are those before it")

    def stop(self, why: str) -> None:
        """End the block from within the loop."""
        self.stopped = why
        raise Stopped(self, why)

    def put_back(self, flat: Tensor) -> None:
        """Give the model these weights again."""
        with torch.no_grad():
            for parameter, kept in zip(self.parameters, self.layout.views(flat).values(), strict=True):
                parameter.copy_(kept)

    def flat(self) -> Tensor:
        """All parameters in one vector, copied."""
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])

    def kernels(self, flat: Tensor) -> Tensor:
        """The first convolution's kernels, as a Record keeps them."""
        return flat[self.places].to(torch.float32)

    def flush(self) -> None:
        """Bring the gauges that wait on the device to the host, all at once."""
        if self.pending:
            parts = (torch.stack(part).cpu().numpy() for part in zip(*self.pending, strict=True))
            self.pending = []
            self.log.append(*parts)

    def draw(self) -> None:
        """Draw the dashboard, if there is one, and plan the next time so that drawing keeps to its share."""
        if self.lab is None:
            return
        start = time.monotonic()
        with contextlib.suppress(Exception):  # a dashboard that fails must not end a training of days
            self.lab.draw()
        spent = time.monotonic() - start
        self.draw_due = start + max(spent / DRAWING_SHARE, 1 / 8)


def watch(model: nn.Module, optimizer: Any, **options: Any) -> Watch:
    """Watch a training loop of your own: `with cnnlab.watch(model, optimizer) as watch:` around it, and nothing within.

    `optimizer` is any torch.optim one, or a list of them. `scaler`: the GradScaler of mixed precision, so that the cost
    is known without its scale. `stop_before_nan=True` ends the block before a NaN or inf gets into the weights, which
    stay the last good ones; `watch.pause()`, or one interrupt, ends it before the next update. `watch` names single
    weights to follow. `show` draws a dashboard beside the loop; by default in a notebook only. Afterwards
    `watch.record` holds all of it. With several watches at once each hears every cost: name it with `watch.step(loss)`.
    TypeError if model or optimizer is something else, ValueError for a model without trainable parameters.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return Watch(model, optimizer, **options)


def optimizers_of(optimizer: Any) -> list[Any]:
    """One optimiser or several as a list; TypeError if they have no hooks."""
    found = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
    for one in found:
        if not hasattr(one, "register_step_pre_hook") or not getattr(one, "param_groups", None):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, or several, got {type(one).__name__}")
    if not found:
        raise TypeError("optimizer must be a torch.optim.Optimizer, or several, got none")
    return found


def unwrapped(model: nn.Module) -> tuple[nn.Module, bool]:
    """The module within a compiled one, and whether it was compiled: then hooks would break what was compiled."""
    inner = getattr(model, "_orig_mod", None)
    return (model, False) if inner is None else (inner, True)


def knobs_of(optimizer: Any) -> dict[str, Any]:
    """Learning rate, momentum and weight decay of an optimiser's first group, within the ranges that knobs have."""
    group = optimizer.param_groups[0]
    betas = group.get("betas") or (0.0,)
    wanted = {
        "learning_rate": (group.get("lr", 1.0), TINY, 1e6),
        "momentum": (group.get("momentum", betas[0]), 0.0, 1.0),
        "l2": (group.get("weight_decay", 0.0), 0.0, 1e6),
    }
    return {name: min(max(float(value), low), high) for name, (value, low, high) in wanted.items()}


def classes_in(loss: Tensor) -> tuple[Tensor, Tensor] | None:
    """Log-probabilities and labels that torch's cross-entropy has saved for its backward pass; None for other costs."""
    node: Any = loss.grad_fn
    with contextlib.suppress(AttributeError, RuntimeError, IndexError):
        for _ in range(4):  # a scale of mixed precision, a share of accumulation
            if type(node).__name__ == "NllLossBackward0":
                return node._saved_self.detach(), node._saved_target
            node = node.next_functions[0][0]
    return None


def finite(flat: Tensor) -> bool:
    """Whether all numbers are finite. On a GPU this waits for it."""
    wide = flat.dtype if flat.dtype == torch.float64 else torch.float32
    # A sum that overflows only costs the longer look.
    return bool(flat.sum(dtype=wide).isfinite()) or bool(flat.isfinite().all())


def in_notebook() -> bool:
    """Whether a kernel runs this, which can show widgets."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")


@functools.cache
def original() -> Callable[..., Any]:
    """torch's own backward."""
    return torch.autograd.backward


def listen(watch: Watch) -> None:
    """Have a watch hear what is sent backward."""
    if not ACTIVE:
        original()
        torch.autograd.backward = heard_backward
    ACTIVE.append(watch)


def deafen(watch: Watch) -> None:
    """End that; the last watch leaves torch as it was."""
    if watch in ACTIVE:
        ACTIVE.remove(watch)
    if not ACTIVE and torch.autograd.backward is heard_backward:
        torch.autograd.backward = original()


def heard_backward(tensors: Any, *arguments: Any, **keywords: Any) -> Any:
    """torch.autograd.backward that tells the watches of the cost first."""
    for loss in costs_in(tensors):
        for one in ACTIVE:
            one.heard(loss)
    return original()(tensors, *arguments, **keywords)


def costs_in(tensors: Any) -> Iterator[Tensor]:
    """The tensors that are sent backward."""
    yield from [tensors] if isinstance(tensors, Tensor) else [part for part in tensors if isinstance(part, Tensor)]
