"""Where the first NaN or inf of a run was made: one update is replayed, and every operation in it is looked at.

A run pays nothing for this while it trains: only the replay is traced.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from cnnlab.diagnosis.events import Event, Origin
from cnnlab.diagnosis.operation_tracer import OperationTracer, find_layer, name_precision
from cnnlab.diagnosis.operations import find_tensors
from cnnlab.records.frame import is_nonfinite
from cnnlab.records.record import Record
from cnnlab.training.metrics import list_parts
from cnnlab.training.run import Run
from cnnlab.training.step import Descent

__all__ = ["Event", "Origin", "find_first_update", "find_origin"]


def find_first_update(record: Record) -> int | None:
    """The first update (0: the start) at which a gauge tells of a NaN or inf in any phase; None if none does."""
    rows = is_nonfinite(record.column("cost"))
    rows[0] = False
    for gauge in ("activation_nan", "activation_inf", "gradient_nan", "gradient_inf"):
        rows[1:] |= (record.column(gauge)[1:] > 0).any(axis=1)
    for gauge in ("weight_nan", "weight_inf"):
        rows |= (record.column(gauge) > 0).any(axis=1)
    found = rows.nonzero()[0]
    return int(found[0]) if len(found) else None


def find_origin(run: Run) -> Origin | None:
    """Where the first NaN or inf of a run came from; None for a run that has none. The run stays as it is."""
    step = find_first_update(run.record)
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
    numbers, kind = run.prepare_knobs(run.record.knobs_at(step))
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
