"""What passes through the layers of a network, forward and back: mean, deviation, zeros and saturation of each.

All of it is measured while it passes, in the forward and the backward pass of the update itself.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnlab.records.frame import NOT_MEASURED
from cnnlab.records.signals import SIGNALS, Signals
from cnnlab.training.metrics import Gauges, Numbers, holds_numbers, is_read_at_once, list_parts

if TYPE_CHECKING:
    from cnnlab.training.run import Run
    from cnnlab.training.step import Step

FLAT = 0.05
"""A unit is saturated where its slope is at most this share of the steepest slope of its activation."""
SATURATED: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Tanh: lambda output: 1 - output.square() <= FLAT,
    nn.Sigmoid: lambda output: 4 * output * (1 - output) <= FLAT,
    nn.ELU: lambda output: output + 1 <= FLAT,
    nn.SELU: lambda output: output / (nn.functional.selu(output.new_tensor(-math.inf)).abs()) + 1 <= FLAT,
}
"""Activation whose slope can be told from its output -> where it is next to flat; a ReLU is flat where it gives 0."""
ACTIVATIONS = (*SATURATED, nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU)
"""Modules whose output counts in the place of that of the layer before them."""
SAMPLE = 2**11
"""Most values of a layer's output that its histogram counts, evenly spread over all of them."""
SAFE = 1e-15, 1e15
"""Sizes whose squares float32 holds; beyond, numbers are scaled and measured in the widest type."""
NEAR = 0.95
"""The same where the mean is so near the root of the mean square that their difference has few digits left."""


class SignalListener:
    """Notes what each layer puts out in a pass forward, and the deviation of what comes back to it.

    A layer's output is looked at when the next layer runs: by then its activation has run, too.
    """

    def __init__(self, network: nn.Module, gauges: Gauges) -> None:
        self.gauges = gauges
        self.layers = gauges.layout.layers
        self.owners = {network.get_submodule(name): name for name in self.layers}
        self.latest = ""
        self.waiting: tuple[Tensor, nn.Module] | None = None
        self.passes: dict[str, int] = {}
        self.forward: dict[str, list[Any]] = {}
        self.backward: dict[str, Any] = {}
        self.counts: dict[str, Tensor] = {}

    def note(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        """The hook of layers and activations; what an activation puts out counts as the output of the layer before."""
        if not torch.is_grad_enabled():  # a look at held-out examples, or the first pass of a checkpoint
            return
        if module in self.owners:
            self.finish()
            self.latest = self.owners[module]
        part = next((each for each in list_parts(output) if each.is_floating_point()), None)
        if part is None or not self.latest or not part.numel() or not holds_numbers(part):
            return
        self.waiting = part, module
        name = self.latest
        number = self.passes[name] = self.passes.get(name, 0) + 1
        self.backward.pop(name, None)
        if part.requires_grad:
            part.register_hook(lambda gradient: self.note_gradient(name, number, gradient))

    def note_gradient(self, name: str, number: int, gradient: Tensor) -> None:
        """The hook of the backward pass; only the output that a layer's signals are measured of counts."""
        if self.passes[name] == number:
            self.backward[name] = measure_spread(gradient.detach())[1]

    def finish(self) -> None:
        """Look at the output that waits."""
        if self.waiting is not None:
            part, module = self.waiting
            values = part.detach()
            self.forward[self.latest] = found = describe_output(values, module)
            self.counts[self.latest] = self.count_sample(values, found[0])
            self.waiting = None

    def count_sample(self, values: Tensor, mean: Tensor | float) -> Tensor:
        """The histogram (classes,) of a sample of values with a mean; of NaN and inf at least one is counted."""
        flat = values.reshape(-1)
        every = -(-len(flat) // SAMPLE)
        while math.gcd(every, len(flat)) > 1:  # or the same places in each example would be looked at
            every += 1
        counts = self.gauges.count(flat[::every])
        if isinstance(mean, Tensor) or not math.isfinite(mean):
            counts[-1].clamp_(min=(~torch.isfinite(flat)).any().to(counts.dtype))
        return counts

    def read(self) -> dict[str, Numbers]:
        """The gauges of the pass, in the order of the layers; a layer that did not run is not measured."""
        unknown = [NOT_MEASURED] * (len(SIGNALS) - 1)
        rows = [[*self.forward.get(name, unknown), self.backward.get(name, NOT_MEASURED)] for name in self.layers]
        return {gauge: [row[place] for row in rows] for place, gauge in enumerate(SIGNALS)}

    def count(self, step: Step) -> Tensor:
        """Histograms (kinds x layers, classes) of the gradients, of the outputs and of what the update subtracted."""
        gradients, updates = (self.gauges.survey(flat)[1] for flat in (step.gradient, step.update))
        none = torch.zeros_like(gradients[0])
        outputs = torch.stack([self.counts.get(name, none).to(none.dtype) for name in self.layers])
        return torch.cat([gradients, outputs, updates]).to(torch.int32)


@contextlib.contextmanager
def listen_to_signals(network: nn.Module, gauges: Gauges) -> Iterator[SignalListener]:
    """What passes through a network in the update that is made here."""
    listener = SignalListener(network, gauges)
    heard = [module for module in network.modules() if module in listener.owners or isinstance(module, ACTIVATIONS)]
    handles = [module.register_forward_hook(listener.note) for module in heard]
    try:
        yield listener
        listener.finish()
    finally:
        for handle in handles:
            handle.remove()


def measure_signals(run: Run, step: int | None = None) -> Signals:
    """The signals of an update of a run, or of the one that comes next. The run is not changed.

    They are what the record holds of an update at which they are measured. NaN and inf count as they are: the mean of
    what holds them is NaN or inf. ValueError for an update beyond the next one.
    """
    step = run.updates + 1 if step is None else run.check_step(step - 1) + 1
    state = run.state if step == run.updates + 1 else run.state_at(step - 1)
    knobs = run.find_planned_knobs(step) if step > run.updates else run.record.knobs_at(step)
    with run.determinism(step), listen_to_signals(run.network, run.gauges) as passing:
        made = run.descent.step(state, *run.problem.batch(step), *run.prepare_knobs(knobs))
    values = {name: np.array([float(value) for value in numbers]) for name, numbers in passing.read().items()}  # type: ignore[union-attr]
    return Signals(step, run.layout.layers, counts=passing.count(made).cpu().numpy(), **values)


def describe_output(values: Tensor, module: nn.Module) -> list[Any]:
    """Mean, deviation, share of zeros and of saturated values."""
    flat = next((rule for kind, rule in SATURATED.items() if isinstance(module, kind)), None)
    return [
        *measure_spread(values),
        measure_share(values == 0),
        NOT_MEASURED if flat is None else measure_share(flat(values)),
    ]


def measure_share(found: Tensor) -> Tensor | float:
    """The share of values that are True."""
    if is_read_at_once(found.device):
        return int(np.count_nonzero(found.numpy())) / found.numel()
    return found.mean(dtype=torch.float32)


def measure_spread(values: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Mean and standard deviation, right for numbers of any size."""
    wide = values.reshape(-1).to(torch.promote_types(values.dtype, torch.float32))
    if is_read_at_once(values.device):
        mean, size = float(wide.mean()), float(torch.linalg.vector_norm(wide)) / math.sqrt(len(wide))
        if SAFE[0] < size < SAFE[1] and abs(mean) < NEAR * size:
            return mean, math.sqrt(size * size - mean * mean)
    widest = wide.to(torch.float32 if values.device.type == "mps" else torch.float64)
    largest = widest.abs().amax()
    # What is all 0, or holds NaN or inf, stays as it is.
    scale = torch.where((largest > 0) & torch.isfinite(largest), largest, torch.ones_like(largest))
    relative = widest / scale
    middle, spread = relative.mean() * scale, relative.std(correction=0) * scale
    return (float(middle), float(spread)) if is_read_at_once(values.device) else (middle, spread)
