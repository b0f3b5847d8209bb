"""Where the first NaN or inf of a run was made: one update is replayed, and every operation in it is looked at.

A run pays nothing for this while it trains: only the replay is traced.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from numpy.typing import NDArray

from cnnlab.diagnosis.events import Event, Origin
from cnnlab.diagnosis.operation_tracer import OperationTracer, find_layer, name_precision
from cnnlab.diagnosis.operations import find_tensors
from cnnlab.records.frame import is_nonfinite
from cnnlab.records.record import Record
from cnnlab.training.metrics import list_parts
from cnnlab.training.run import Run
from cnnlab.training.step import Descent, KnobTensors, StepStructure

__all__ = ["Event", "Origin", "find_first_update", "find_origin"]


def find_first_update(record: Record) -> int | None:
    """The first update (0: the start) at which a gauge tells of a NaN or inf in any phase; None if none does.

    A scaled gradient that overflowed, so that its update was left out, is none.
    """
    rows = is_nonfinite(record.column("cost"))
    rows[0] = False
    rows[1:] |= has_any(record, "activation") | (has_any(record, "gradient") & ~find_overflows(record))
    for gauge in ("weight_nan", "weight_inf"):
        rows |= (record.column(gauge) > 0).any(axis=1)
    found = rows.nonzero()[0]
    return int(found[0]) if len(found) else None


def has_any(record: Record, phase: str) -> NDArray[np.bool_]:
    """(updates,): whether the activations or the gradient of an update hold NaN or inf."""
    found = [(record.column(f"{phase}_{kind}")[1:] > 0).any(axis=1) for kind in ("nan", "inf")]
    return np.asarray(found[0] | found[1])


def find_overflows(record: Record) -> NDArray[np.bool_]:
    """(updates,): which updates loss scaling left out for nothing but a scaled gradient that is too large.

    Cost and activations are finite there, and the scale is above 1: at 1 and below it is not the scale's doing.
    """
    left_out = record.left_out & (record.scale > 1)
    return left_out & ~is_nonfinite(record.cost) & ~has_any(record, "activation")


def find_unscaled(run: Run) -> int | None:
    """The first update that was left out though no scale is to blame: its gradient is not finite without one.

    The first and the last that would be taken for overflows are made again, and no more.
    """
    steps = np.flatnonzero(find_overflows(run.record)) + 1
    for step in dict.fromkeys(steps[[0, -1]].tolist() if len(steps) else ()):
        with run.determinism(step):
            made = run.descent.step(run.state_at(step - 1), *run.problem.batch(step), *prepare_unscaled(run, step))
        if not bool(made.gradient.isfinite().all()):
            return step
    return None


def prepare_unscaled(run: Run, step: int) -> tuple[KnobTensors, StepStructure]:
    """The knobs of an update, without the loss scale where that left the update out."""
    numbers, kind = run.prepare_knobs(run.record.knobs_at(step))
    left_out = run.record.left_out[step - 1]
    return numbers, dataclasses.replace(kind, loss_scale="off") if left_out else kind


def find_origin(run: Run) -> Origin | None:
    """Where the first NaN or inf of a run came from; None for a run that has none. The run stays as it is."""
    found = [step for step in (find_first_update(run.record), find_unscaled(run)) if step is not None]
    step = min(found, default=None)
    if step is None:
        return None
    if step == 0:
        event = describe_start(run)
        return Origin(event, event)
    return replay(run, step)


def describe_start(run: Run) -> Event:
    """The event of a run that starts from weights which are not finite."""
    parameters = run.state_at(0).parameters
    place = int((~parameters.isfinite()).nonzero()[0])
    operation = "given" if run.own_network else "cast"
    finite = parameters[parameters.isfinite()]
    largest = float(finite.abs().max()) if len(finite) else 0.0
    nan = bool(parameters.isnan().any())
    precision = name_precision(parameters)
    return Event(0, "weight", find_layer(run.layout, place), operation, "to", nan, largest, math.nan, precision)


def replay(run: Run, step: int) -> Origin | None:
    """One update of the run once more, from the state before it, with every operation traced."""
    state = run.state_at(step - 1)
    x, y = run.problem.batch(step)
    numbers, kind = prepare_unscaled(run, step)
    tracer = OperationTracer(step, run.network, run.layout.layers, replay.__code__, run.layout)
    for part in find_tensors(x):
        tracer.check_given(part, "input")
    for part in find_tensors(y):
        tracer.check_given(part, "target")
    for name, buffer in state.buffers.items():
        if buffer.is_floating_point():
            tracer.check_given(buffer, "buffer", name, f"buffer {name}")
    tracer.check_given(state.parameters, "weight")
    tracer.name_parameters(run.layout.views(state.parameters))
    traced = dataclasses.replace(run.descent, cost=functools.partial(tracer.compute_cost, run.descent.cost))
    with run.determinism(step), tracer.trace():
        made = Descent.step(traced, state, x, y, numbers, kind)
    results = [*tracer.outputs, *list_parts(made.outputs), made.data_cost, made.gradient, made.clipped, made.update]
    results += [made.parameters] if made.penalty is None else [made.penalty, made.parameters]
    tracer.name_logits(made.outputs, y)
    return tracer.find_origin(results)
