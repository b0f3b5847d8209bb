"""Remedies tried: a fork from before the trouble, or a new start, trained past the update that broke.

A trial ends in one of four verdicts: mends, only hides, does not help, not reached.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.errors import describe_problem
from cnnlab.config.schedules import rate_plan
from cnnlab.diagnosis.causes import Cause
from cnnlab.diagnosis.early_warning import NO_GAP
from cnnlab.diagnosis.nan_tracer import find_first_update
from cnnlab.diagnosis.probe import MOST_BATCHES, measure_constant_cost
from cnnlab.diagnosis.remedies import Remedy, choose_remedies, read_settings
from cnnlab.records.formats import format_number
from cnnlab.records.record import Record
from cnnlab.training.run import Run

MENDS, HIDES, USELESS, UNREACHED = "mends", "only hides", "does not help", "not reached"
LEAST, MOST = 20, 200
"""Updates that a trial takes within: past the one that broke, twice as far as it was, and two epochs."""
LITTLE = 0.02
"""A cost must be better by this share: with all examples in a batch there is no noise to compare with."""
STILL = 1e-6
"""Weights that changed by this share of their length have not moved."""


@dataclass(frozen=True)
class Trial:
    """A remedy and how it went."""

    remedy: Remedy
    verdict: str
    """One of mends, only hides, does not help, not reached."""
    reason: str
    """Why, with numbers."""
    start: int
    """The update that it was forked after; 0: it began again."""
    cost: tuple[float, ...] = field(repr=False)
    """The cost at every update of the trial."""

    def __str__(self) -> str:
        return f"{self.verdict}: {self.remedy}: {self.reason}"


def try_remedies(
    run: Run,
    causes: tuple[Cause, ...],
    before: int,
    critical: float | None = None,
    going: Callable[[], bool] = lambda: True,
) -> tuple[Trial, ...]:
    """Try what fits the causes, and always the five remedies of the posted answer; those that mend come first.

    `critical` is the critical learning rate there, if it is known; no further remedy is tried once `going` says no.
    """
    if causes[0].name == "healthy":
        return ()
    trials = [try_remedy(run, remedy, before) for remedy in choose_remedies(run, causes, before, critical) if going()]
    order = (MENDS, UNREACHED, HIDES, USELESS)
    return tuple(sorted(trials, key=lambda trial: order.index(trial.verdict)))


def try_remedy(run: Run, remedy: Remedy, before: int) -> Trial:
    """One remedy, trained from before the trouble or from a new start."""
    broke = find_first_update(run.record)
    start = 0 if remedy.restarts else before
    try:
        other, updates = prepare_trial(run, remedy, before), count_updates(run.record, start, before, broke)
        if remedy.schedule:
            other.plan = rate_plan(remedy.schedule, other.knobs_in_force, updates, first=other.updates + 1)
        other.advance(updates, until="nonfinite")
        verdict, reason = judge_trial(other, start, broke)
    except Exception as error:
        return Trial(remedy, USELESS, f"it could not be tried: {describe_problem(error)}", before, ())
    return Trial(remedy, verdict, reason, start, tuple(map(float, other.record.cost[start:])))


def prepare_trial(run: Run, remedy: Remedy, before: int) -> Run:
    """A run with a remedy, about to be trained."""
    settings = read_settings(run, before).replace(**remedy.changes)
    if remedy.alter is not None:
        return Run(remedy.alter(dataclasses.replace(run.problem, settings=settings)))
    return Run(settings) if remedy.restarts else run.fork(before, **remedy.changes)


def count_updates(record: Record, start: int, before: int, broke: int | None) -> int:
    """How many updates a trial takes: past the one that broke, and long enough to tell whether anything is learnt."""
    trouble = len(record) if broke is None else broke
    past = trouble - start + LEAST // 2
    return min(max(LEAST, 2 * (trouble - before), past, 2 * record.updates_per_epoch), MOST)


def judge_trial(run: Run, start: int, broke: int | None = None) -> tuple[str, str]:
    """The verdict on a trial that began after an update, and why; `broke` is the update that it is to pass."""
    record = run.record
    costs = record.cost[start:]
    if record.first_nonfinite is not None:
        return USELESS, f"the cost is {format_number(float(costs[-1]))} at update {record.first_nonfinite}"
    if not bool(run.parameters.isfinite().all()):
        return USELESS, f"the weights hold NaN or inf at update {find_first_update(record)}"
    learnt = record.data_cost[start:]
    if hidden := describe_hidden(record, learnt) or describe_failure(run, start):
        return HIDES, hidden
    if broke is not None and len(record) <= broke:
        return (
            UNREACHED,
            f"all is well so far, but update {broke}, which broke, is beyond the {len(costs)} that were tried",
        )
    moved = "fell" if float(np.median(learnt[-5:])) < float(learnt[0]) else "went"
    accuracy = float(record.accuracy[-1])
    ended = f", accuracy {accuracy:.2f}" if accuracy == accuracy else ""
    return MENDS, f"the cost {moved} from {describe_course(record, start)} in {len(costs)} updates{ended}"


def describe_course(record: Record, start: int) -> str:
    """The first cost of a trial and the usual one at its end, without a penalty that it holds, in words."""
    costs = record.data_cost[start:]
    without = "" if np.array_equal(costs, record.cost[start:]) else ", without the penalty"
    last = format_number(float(np.median(costs[-5:])))
    return f"{format_number(float(costs[0]))} to {last} (median of the last 5{without})"


def describe_hidden(record: Record, costs: NDArray[np.float64]) -> str:
    """What keeps the cost finite and leaves nothing to learn from, in a sentence; '' where nothing does."""
    norm, gap = float(record.total_gradient_norm[-1]), float(record.logit_gap[-1])
    accuracy = float(record.accuracy[-1])
    wrong = accuracy == accuracy and accuracy < 1
    if (hidden := describe_epsilon(record, gap)) and wrong:
        return hidden
    if norm == 0 and wrong:
        return f"the cost is finite, but its gradient is 0 at a logit gap of {format_number(gap)}: nothing is learnt"
    dead = np.nan_to_num(record.dead_relu[-1])
    if dead.max(initial=0) == 1:
        name, last = record.layers[int(dead.argmax())] or "network", format_number(float(np.median(costs[-5:])))
        return (
            f"the cost is finite, but it stays at {last} (median of the last 5), because every unit of {name} is dead"
        )
    return ""


def describe_failure(run: Run, start: int) -> str:
    """Why a trial that stayed finite has learnt nothing, in a sentence; '' if it has."""
    costs = run.record.data_cost[start:]
    went = f"the cost is finite, but it went from {describe_course(run.record, start)}"
    begun = run.state_at(start).parameters.double()
    if float((run.parameters.double() - begun).norm()) <= STILL * float(begun.norm()):
        return f"{went}: next to nothing moved"
    untrained, forked, ended = (measure_costs(run, step) for step in (0, start, len(run.record)))
    if len(ended) == 1:  # all examples at every update, whose last one may be out of the ordinary
        ended = np.median(run.record.data_cost[start:][-5:], keepdims=True)
    here = f"{format_number(float(ended.mean()))} over {count_batches(ended)}"
    if not is_better(ended, untrained):
        return f"{went}: it is {here}, and was {format_number(float(untrained.mean()))} untrained"
    if ended.mean() < -100 * max(1.0, abs(float(untrained.mean()))):
        return f"{went}: it is {here}, on its way to minus infinity"
    if start and is_better(forked, ended):
        return f"{went}: it is {here}, and was {format_number(float(forked.mean()))} before"
    constant = measure_constant_cost(run)
    share = 0.98 if run.updates_per_epoch == 1 else 0.9  # batches differ
    poor = constant > 0 and ended.mean() > (1 - LITTLE) * constant
    if poor and not is_falling(costs, constant, share):
        return f"{went}: no better than a constant output, whose cost is {format_number(constant)}"
    return ""


def count_batches(costs: NDArray[np.float64]) -> str:
    """How many batches costs are of, in words."""
    return "all examples" if len(costs) == 1 else f"{len(costs)} batches"


def is_falling(costs: NDArray[np.float64], constant: float, share: float) -> bool:
    """Whether costs that are still above that of a constant output are on their way down, to less than a share."""
    middle = costs[len(costs) // 4 : len(costs) // 2]
    late = costs[-(len(costs) // 4 or 1) :]
    return bool(len(middle) and np.mean(late) < share * np.mean(middle) and np.mean(late) > 1.05 * constant)


def measure_costs(run: Run, step: int) -> NDArray[np.float64]:
    """The cost of some batches, those of the first updates, after an update, without a penalty."""
    state = run.state_at(step)
    count = min(run.updates_per_epoch, MOST_BATCHES)
    found = []
    with run.determinism(1):
        for step in range(1, count + 1):
            x, y = run.problem.batch(step)
            cost = run.descent.cost(run.descent.outputs(state, x), y, run.prepare_knobs(run.knobs_in_force)[0].epsilon)
            found.append(float(cost))
    return np.array(found)


def is_better(costs: NDArray[np.float64], than: NDArray[np.float64]) -> bool:
    """Whether costs are lower than others on the same batches, by more than batches differ and by 2 %."""
    if not np.isfinite(than).all():
        return bool(np.isfinite(costs).all())
    gain = than - costs
    noise = 2 * float(gain.std(ddof=1)) / math.sqrt(len(gain)) if len(gain) > 1 else 0.0
    return bool(gain.mean() > max(noise, LITTLE * abs(float(than.mean()))))


def describe_epsilon(record: Record, gap: float) -> str:
    """What an epsilon hides, in a sentence; '' where the logits are not so far apart that it hides anything."""
    epsilon = record.knobs_at(len(record)).epsilon
    if record.settings.cost != "softmax_log" or epsilon == 0 or not gap > -math.log(epsilon):
        return ""
    # d/dz of -log(p + e) is p/(p + e) of the true gradient, with p = exp(-gap), which is 0 from NO_GAP on.
    left = math.exp(-min(gap, 700)) / (math.exp(-min(gap, 700)) + epsilon)
    exact = "exactly 0" if gap > NO_GAP[record.settings.precision] else f"{left:.1g} of the true one"
    return (
        f"the cost is finite, but that of an example is capped at {-math.log(epsilon):.4g}: at a logit gap of "
        f"{format_number(gap)} the gradient of a wrong example is {exact} (log-softmax would give 1)"
    )
