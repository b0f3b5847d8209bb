"""A watch around a training loop of the user's own: the gauges of every update as a Record.

The optimiser's hooks tell when it steps, autograd's backward what is descended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from cnnlab.config.errors import check_whole_number, describe_problem
from cnnlab.curvature.critical import Critical
from cnnlab.diagnosis.budget import Budget
from cnnlab.diagnosis.events import Origin
from cnnlab.diagnosis.examination import BatchExaminer, is_broken, list_frozen_layers, measure_gains
from cnnlab.diagnosis.loop_curvature import LoopCurvature
from cnnlab.diagnosis.origin_finder import OriginFinder
from cnnlab.diagnosis.steering import Steering
from cnnlab.diagnosis.watch_arguments import (
    check_scaler,
    describe_groups,
    describe_optimizers,
    is_finite,
    keeps_scale,
    list_optimizers,
    read_number,
    unwrap,
)
from cnnlab.records.clues import Clues
from cnnlab.records.record import Record
from cnnlab.training.forward_hooks import call_hooks
from cnnlab.training.gradients import Written, collect_ids, gradients, have_changed
from cnnlab.training.loop_recorder import LoopRecorder, Update, read_knobs, read_leading_value
from cnnlab.training.overlay import LOCK, InterruptOverlay, Overlay, exclude_from_compiling, handles_interrupts
from cnnlab.training.pass_listener import PassListener
from cnnlab.training.passes import sum_costs

DRAWING_SHARE = 0.04
"""Largest share of the loop's time that drawing beside it may take."""
ACTIVE: list[Watch] = []
"""Watches whose block is being run."""


class Stopped(BaseException):
    """Raised within the loop to end it before an update; the watch's own block catches it.

    Like a KeyboardInterrupt it passes an `except Exception`. A loop that catches even this one and goes on gets it
    again at each further step of an optimiser, so that no weight changes any more; a warning says so once.
    """


class Watch:
    """The gauges of every update of a training loop that is not ours; made by `cnnlab.watch`.

    `record` is what a Run's record is: `weight_norm`, `update_ratio`, histograms and all. Its cost is what was sent
    backward to this model since the last update (summed, so that micro-batches that are accumulated count together, and
    without the scale of a GradScaler); where that is not known, it is not measured. Steps of optimisers with no
    backward pass between them are one update. Gradients are those that the optimiser was given, so after clipping;
    `clipped` is not measured. Accuracy and logit gap are known where the cost is torch's cross-entropy of (examples,
    classes). No module carries a hook meanwhile, and no copy of one is watched.

    With a budget the gauges of some updates are not measured, but for their cost; those of an update that holds NaN or
    inf, of one whose cost leaps, and of the last one always are, as far as its forward pass need not be seen for them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        *,
        scaler: Any = None,
        watch: Sequence[str] | None = None,
        stop_before_nan: bool = False,
        show: bool = False,
        updates_per_epoch: int = 1,
        budget: float | None = None,
        curvature: int | None = None,
        dashboard: Callable[[Watch], Any] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        self.dashboard = dashboard
        self.model, compiled = unwrap(model)
        self.hooked = not compiled
        self.optimizers = list_optimizers(optimizer)
        self.steering = Steering(self.optimizers)
        self.stop_before_nan = stop_before_nan
        self.wants_show = show
        self.budget = Budget(budget)
        self.curvature = LoopCurvature(curvature, self.model, self.optimizers)
        epoch = check_whole_number("updates_per_epoch", updates_per_epoch, 1)
        self.recorder = LoopRecorder(self.model, watch, read_knobs(self.optimizers[0]), epoch)
        self.parameters = self.recorder.parameters
        self.listener = PassListener(self.parameters, check_scaler(scaler), self.drop_update)
        self.pausing = self.warned = False
        self.stopped: str | None = None
        owned = frozenset().union(*map(collect_ids, self.optimizers))
        self.clues = Clues(
            frozen=list_frozen_layers(self.model),
            gains=measure_gains(self.recorder.layout, self.recorder.flat()),
            strangers=not any(id(each) in owned for each in self.parameters),
            **describe_optimizers(self.optimizers),
        )
        self.finder = OriginFinder(self.model, self.recorder.layout, self.parameters[0].device, stop_before_nan)
        self.examiner = BatchExaminer()
        self.steps = self.usual_steps = 1
        self.has_broken = False
        self.block: contextlib.ExitStack | None = None
        self.forget()
        self.thread = threading.current_thread()  # in which its block is run
        self.lock = threading.Lock()  # a record may be taken in another
        self.lab: Any = None
        self.draw_due = 0.0

    # -- what a user can do

    def __enter__(self) -> Watch:
        with contextlib.ExitStack() as stack:  # which undoes all of it if something fails
            self.take_place(stack)
            for optimizer in self.optimizers:
                stack.callback(optimizer.register_step_pre_hook(StepHook(self.prepare_step)).remove)
                stack.callback(optimizer.register_step_post_hook(StepHook(self.finish_step)).remove)
            stack.enter_context(self.listener.patch_backward())
            if handles_interrupts():
                stack.enter_context(InterruptOverlay(self.obey_interrupt))
            if self.wants_show:
                self.show()
            self.block = stack.pop_all()
        return self

    def take_place(self, stack: contextlib.ExitStack) -> None:
        """Take a place among the active watches, and see the model's forward passes; ValueError if it is watched."""
        with LOCK:
            if any(one.model is self.model for one in ACTIVE):
                raise ValueError("the model is watched already: leave the other watch first")
            ACTIVE.append(self)
            self.thread = threading.current_thread()
        stack.callback(ACTIVE.remove, self)
        self.recorder.prepare(self.recorder.flat())
        self.begin_again()
        stack.callback(self.forget)
        if self.hooked:
            activations = self.recorder.gauges.activations
            first, last = self.finder.hooks
            before = [(self.model, self.drop_skipped), *first, *activations.before]
            before.append((self.model, self.examiner.keep_inputs))
            after = [*activations.after, (self.model, self.examiner.keep_outputs), *last]
            stack.enter_context(call_hooks(before, after))
            stack.callback(self.finder.tape.stop)
            stack.enter_context(Overlay(torch.Tensor, "backward", self.finder.tape.call_backward))
            stack.callback(register_optimizer_step_pre_hook(self.finder.tape.pause).remove)
            stack.callback(register_optimizer_step_post_hook(self.finder.tape.resume).remove)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if isinstance(error, Exception):
            step = self.recorder.updates + 1
            self.clues = dataclasses.replace(self.clues, error=describe_problem(error), error_step=step)
        self.complete_last()
        self.drop_skipped()
        if self.block is not None:
            self.block.close()
            self.block = None
        self.draw()
        return isinstance(error, Stopped) and error.args[:1] == (self,)

    def pause(self) -> None:
        """End the block before the next update, whose weights stay as they are; may be called from any thread.

        Entering the same watch again goes on with its record.
        """
        self.pausing = True

    def set(self, **changes: float | None) -> None:
        """Change learning_rate, momentum (the first of Adam's betas) or l2 (weight decay) from the next update on.

        The value is that of the first group, and every other group, of each optimiser, keeps its ratio to it. It holds,
        over a scheduler or a loop that sets its own, until `set(learning_rate=None)` lets go: from then on the loop's
        own lines act again. It stands in `record.schedule` from the update on that it was first in force at. May be
        called from any thread; TypeError or ValueError in a sentence, and nothing changed, for what does not fit.
        """
        self.steering.ask(changes)

    def obey_interrupt(self, below: Any, number: int, frame: Any) -> None:
        """Pause at the first interrupt (■ in JupyterLab, Ctrl-C), between two updates; obey a second one at once."""
        if self.pausing:
            raise KeyboardInterrupt
        self.pause()

    def step(self, loss: Any) -> None:
        """Say the cost of the update just made, where it is not sent backward by torch's own backward. Optional.

        The optimiser's next step is then one of another update.
        """
        cost = read_number("loss", loss)
        if self.recorder.updates == 0:
            raise ValueError("step(loss) follows an update of the optimizer, and there was none yet")
        with self.lock:
            self.recorder.tell(cost)
        self.told = True

    def trace(self, compute: Callable[[], Tensor]) -> Origin | None:
        """Where the first NaN or inf of the update that broke is made: its cost is computed once more, and traced.

        `watch.trace(lambda: cost(model(x), y))` after the block, with the batch of that update; its weights and the
        states of torch's generators were kept. Needed only where `watch.record` does not know by itself, as of a model
        that is compiled. Without such an update the cost is looked at as it is now. All stays as it was.
        """
        if self.active:
            raise RuntimeError("trace looks at a loop that is done: leave the watch's block first")
        return self.finder.trace(compute, self.recorder)

    def show(self) -> Any:
        """A dashboard that draws while the loop goes on, in at most a twenty-fifth of its time."""
        if self.lab is None or self.lab.closed:
            if self.dashboard is None:
                raise RuntimeError("this watch was made without a dashboard: make it with cnnlab.watch")
            self.lab = self.dashboard(self)
        return self.lab

    @property
    def record(self) -> Record:
        """Everything so far; a record taken earlier stays as it was."""
        self.finder.look_back()
        self.complete_last()
        clues = dataclasses.replace(
            self.clues,
            batch=self.examiner.found,
            origin=self.finder.origin,
            after_backward=self.finder.after_backward,
            skipped=self.skipped,
            left_out=self.finder.left_out,
            stopped=self.stopped or "",
            **describe_groups(self.optimizers, self.model),
        )
        with self.lock:
            return dataclasses.replace(self.recorder.record, clues=clues)

    @property
    def skipped(self) -> int:
        """How many updates the GradScaler has left out, for an inf in their gradient."""
        return self.listener.skipped

    @property
    def active(self) -> bool:
        """Whether its block is being run."""
        return any(one is self for one in ACTIVE)

    @property
    def critical(self) -> Critical | None:
        """How far the learning rate is from the edge, as last measured; None where it is not.

        `print(watch.critical)` says it in a line; `.ratio` is the learning rate over the critical one.
        """
        return self.curvature.found

    def __repr__(self) -> str:
        more = [said for said in (self.stopped, str(self.curvature)) if said]
        return f"Watch({', '.join([repr(self.record), *more])})"

    # -- steps of an optimiser

    def begin_again(self) -> None:
        """Go on with the record; of an update that broke and was never made nothing is known any more."""
        self.pausing, self.warned, self.stopped = False, False, None
        self.clues = dataclasses.replace(self.clues, error="", error_step=0, averted="")
        if self.finder.is_averted(self.recorder.updates):
            self.finder.begin()
            self.examiner = BatchExaminer()
        self.forget()

    def forget(self) -> None:
        """Begin anew: the next step is one of another update, of which nothing is known yet."""
        self.update: Update | None = None
        self.after: Tensor | None = None
        self.recorder.gauges.activations.active = self.budget.allows()
        self.met: Tensor | None = None
        self.written: Written = []
        self.told = self.stepping = False
        self.listener.forget()
        self.examiner.forget()
        self.finder.tape.forget()
        self.recorder.gauges.activations.clear()

    def drop_skipped(self, *_: Any) -> None:
        """Forget the forward passes of an update that a scaler left out, as the next forward pass begins."""
        if self.listener.drop_skipped():
            self.recorder.gauges.activations.clear()

    def drop_update(self, roots: Sequence[Any]) -> None:
        """Forget the last update as a backward pass begins: its vectors would lie in memory beside the activations."""
        if not self.stepping:
            self.update, self.after, self.written = None, None, []
        broken, number = any(map(is_broken, roots)), self.recorder.updates + 1
        self.finder.hear(roots, number, broken, self.listener.scales, self.recorder.flat)
        self.examiner.look(roots, number, broken)
        self.measure_curvature(roots)

    def measure_curvature(self, roots: Sequence[Any]) -> None:
        """Measure the curvature of the cost as the first backward pass of an update begins, if that is due."""
        updates = self.recorder.updates
        if self.stepping or not self.curvature.is_due(updates) or len(self.listener.passes) != 1:
            return
        if self.listener.passes[0].cost is not None and len(roots) == 1:
            scale = self.listener.scale if self.listener.scales else 1.0
            eigenvalue = self.curvature.measure(roots[0].reshape(()), scale, updates)
            if eigenvalue is not None:
                with self.lock:
                    self.recorder.note_sharpness(eigenvalue)

    def prepare_step(self, optimizer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """What happens before the optimiser's step; an update that would go wrong, or is not wanted, ends the block."""
        if self.stopped is not None:
            self.stop_again()
        # torch gives the arguments of the unbound step: the optimiser itself is the first.
        closure = arguments[1] if len(arguments) > 1 else keywords.get("closure")
        if self.pausing and (closure is not None or self.begins(optimizer)):
            self.stop(f"paused before update {self.recorder.updates + 1}")
        if self.steering.held and (closure is not None or self.begins(optimizer)):
            self.steering.write()
        self.finder.tape.stop()
        self.met = self.recorder.flat()
        self.stepping = False
        if closure is None:
            self.keep_gradient(optimizer, None)
            return None

        @functools.wraps(closure)
        def watched(*args: Any, **kwargs: Any) -> Any:
            result = closure(*args, **kwargs)
            if not self.stepping:  # at its first evaluation
                self.keep_gradient(optimizer, result)
            return result

        rest = {name: value for name, value in keywords.items() if name != "closure"}
        return (arguments[0], watched, *arguments[2:]), rest

    def begins(self, optimizer: Any) -> bool:
        """Whether a step begins an update: a backward pass was made, or a cost told, since the last one.

        In a loop of which no backward pass has ever been seen: whether a gradient was made anew.
        """
        if self.update is None or self.listener.passes or self.told:
            return True
        own = collect_ids(optimizer)
        places = [place for place, each in enumerate(self.parameters) if id(each) in own]
        mine, written = [self.parameters[place] for place in places], self.written
        return not self.listener.has_heard and have_changed(mine, [written[place] for place in places])

    def keep_gradient(self, optimizer: Any, result: Any) -> None:
        """Keep what the optimiser is about to use; stop if it is not finite and that is wanted.

        `result` is what the closure of a step has returned: a cost, or nothing.
        """
        if result is None and not self.begins(optimizer):
            assert self.update is not None
            self.recorder.give(self.update.gradient, optimizer)
        else:
            self.update = self.make_update(optimizer, result)
            self.usual_steps, self.steps = self.steps, 0
            self.count_cleared()
        self.stepping = True
        self.finder.look_at_gradient(self.number, self.update)
        if self.stop_before_nan and not getattr(optimizer, "found_inf", None):
            self.check(self.update.gradient, "gradient", "the gradient of update")
            self.check_cost(self.update.cost)

    def count_cleared(self) -> None:
        """Note gradients that a backward pass has made and that are gone before the step."""
        came = any(each.accumulates for each in self.listener.passes)
        if came and all(each.grad is None for each in self.parameters):
            self.clues = dataclasses.replace(self.clues, cleared=self.clues.cleared + 1)

    def make_update(self, optimizer: Any, result: Any) -> Update:
        """The update that an optimiser begins."""
        met, cost = self.met, sum_costs(self.listener.passes)
        assert met is not None
        self.note_ascent(optimizer)
        self.count_still_scaled(optimizer)
        if cost is None and result is not None:
            with contextlib.suppress(TypeError, ValueError):  # a closure may return what it likes
                cost = read_number("loss", result).clone()
        return Update(
            before=met,
            gradient=self.recorder.gradient(optimizer, self.find_scaled(optimizer)),
            knobs=read_knobs(optimizer),
            cost=cost,
            classes=next((each.classes for each in self.listener.passes if each.classes is not None), None),
            activations=self.recorder.gauges.activations.taken(),
            full=self.is_wanted(cost),
            scale=self.listener.scale if self.listener.scales and self.listener.passes else None,
        )

    def note_ascent(self, optimizer: Any) -> None:
        """Note a learning rate below 0, which the record does not hold, until an update breaks."""
        rate = read_leading_value(optimizer.param_groups, "learning_rate")
        if rate is not None and rate < self.clues.ascent and not self.finder.done:
            first = self.clues.ascent_from or self.recorder.updates + 1
            self.clues = dataclasses.replace(self.clues, ascent=rate, ascent_from=first)

    def count_still_scaled(self, optimizer: Any) -> None:
        """Note that an optimiser steps with a gradient of which the scaler has not taken off its scale."""
        if self.listener.scales and self.listener.passes and keeps_scale(self.listener.scaler, optimizer):
            self.clues = dataclasses.replace(self.clues, still_scaled=self.clues.still_scaled + 1)

    def is_wanted(self, cost: Tensor | None) -> bool:
        """Whether an update is to be measured in full: its forward pass was looked at, or its cost leaps.

        To ask a device for the cost would be to wait for it.
        """
        if self.budget.share is None:
            return True
        unusual = self.finder.at_once and cost is not None and self.budget.is_unusual(float(cost))
        return unusual or self.recorder.gauges.activations.active

    def find_scaled(self, optimizer: Any) -> frozenset[int]:
        """The ids of parameters whose gradients still have the scale of mixed precision: those of other optimisers."""
        others = [collect_ids(other) for other in self.optimizers if other is not optimizer]
        if not others or not self.listener.scales:
            return frozenset()
        return frozenset().union(*others) - collect_ids(optimizer)

    def finish_step(self, optimizer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """What happens after the optimiser's step: the update is measured, and the dashboard drawn if it is due."""
        if not self.stepping or self.update is None or self.met is None:
            return
        met, self.met, self.stepping = self.met, None, False
        after = self.recorder.flat()
        self.finder.look_at_step(optimizer, self.number, self.update, after)
        if self.stop_before_nan and not is_finite(after) and is_finite(met):
            self.recorder.put_back(met)
            self.check(after, "update", "update")
        with self.lock:
            self.add(after)
        if not self.listener.added_to.isdisjoint(collect_ids(optimizer)):
            self.listener.added_to = frozenset()  # an update counts once
            self.clues = dataclasses.replace(self.clues, added_up=self.clues.added_up + 1)
        self.steps += 1
        self.listener.passes, self.told = [], False
        self.written = [] if self.listener.has_heard else gradients(self.parameters)
        self.recorder.gauges.activations.clear()
        # Not before all steps of an update: to draw takes the record, from which its row would have to be cut again.
        if self.lab is not None and self.steps >= self.usual_steps and time.monotonic() >= self.draw_due:
            self.draw()

    def add(self, after: Tensor) -> None:
        """Measure the update after a step, in full if the budget allows that, or it broke."""
        assert self.update is not None
        broke = self.finder.done and not self.has_broken
        self.has_broken = self.finder.done
        if broke and not self.update.full:
            self.update = dataclasses.replace(self.update, full=True)
        began = time.perf_counter()
        activations = self.recorder.gauges.activations
        self.recorder.add(self.update, after, first=self.steps == 0)
        if self.update.full:
            self.budget.spend(time.perf_counter() - began + activations.spent)
        self.after = None if self.update.full else after
        activations.spent, activations.active = 0.0, self.budget.allows()

    def complete_last(self) -> None:
        """Measure what a budget has left out of the last update, as long as its vectors are there."""
        if self.update is not None and self.after is not None:
            self.update = dataclasses.replace(self.update, full=True)
            self.recorder.add(self.update, self.after, first=False)
            self.after = None

    @property
    def number(self) -> int:
        """The update that is being made."""
        return self.recorder.updates + (self.steps == 0)

    def check_cost(self, cost: Tensor | None) -> None:
        """End the block if the cost of an update is NaN, be its gradient what it may; an inf alone does no harm."""
        if cost is not None and bool(cost.isnan()):
            number = self.recorder.updates + 1
            self.avert("cost", True, f"the cost of update {number} is NaN")

    def check(self, flat: Tensor, phase: str, what: str) -> None:
        """End the block if a vector holds NaN or inf, and say where."""
        if is_finite(flat):
            return
        bad = [name for name, part in self.recorder.layout.views(flat).items() if not is_finite(part.reshape(-1))]
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        self.avert(phase, bool(flat.isnan().any()), f"{what} {self.number} holds NaN or inf in {bad[0]}{more}")

    def avert(self, phase: str, nan: bool, held: str) -> None:
        """End the block before an update that would go wrong."""
        self.clues = dataclasses.replace(self.clues, averted=phase, averted_nan=nan)
        self.stop(f"stopped because {held}; the weights are those before it")

    def stop(self, why: str) -> None:
        """End the block from within the loop."""
        self.stopped = why
        raise Stopped(self, why)

    def stop_again(self) -> None:
        """End the block of a loop that has caught its end and goes on."""
        if not self.warned:
            self.warned = True
            caught = "the loop has caught cnnlab.diagnosis.watch.Stopped and goes on"
            said = f"{caught}: no step changes the weights any more ({self.stopped})"
            warnings.warn(said, RuntimeWarning, stacklevel=5)
        raise Stopped(self, self.stopped)

    def draw(self) -> None:
        """Draw the dashboard, if there is one, and plan the next time so that drawing keeps to its share."""
        if self.lab is None:
            return
        start = time.monotonic()
        with contextlib.suppress(Exception):  # a dashboard that fails must not end a training of days
            self.lab.draw()
        spent = time.monotonic() - start
        self.draw_due = start + max(spent / DRAWING_SHARE, 1 / 8)


class StepHook:
    """A hook of an optimiser; a copy of it, as in a pickled optimiser, does nothing."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.plain = call
        self.call = exclude_from_compiling(call)

    def __call__(self, *arguments: Any) -> Any:
        """Do what it was made for."""
        if not torch.compiler.is_compiling():
            return self.plain(*arguments)
        # A step compiled by what was not there when the block was entered is not seen.
        return None if self.call is self.plain else self.call(*arguments)

    def __reduce__(self) -> Any:
        return StepHook, (do_nothing,)


def do_nothing(*_: Any) -> None:
    """What the copy of a hook does."""
