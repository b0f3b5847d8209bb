"""What the answers of the labs' exercises must do, case by case, told by properties and not by a solution."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

import cnnlab
from cnnlab.config.settings import settings
from cnnlab.course.cases import Case, Function, expect
from cnnlab.records.map import Map

if TYPE_CHECKING:
    from cnnlab.training.run import Run


def check_number(answer: Any) -> float:
    """An answer as a number."""
    value = answer.item() if isinstance(answer, np.ndarray) and answer.size == 1 else answer
    expect(isinstance(value, numbers.Real) and not isinstance(value, bool), "a number", answer)
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def check_whole(answer: Any) -> int:
    """An answer as a whole number."""
    value = check_number(answer)
    expect(value == value // 1, "a whole number", answer)
    return int(value)


@cache
def breaks(**changes: Any) -> bool:
    """Whether 20 updates of the preset `question` end in a cost that is NaN or infinite."""
    return cnnlab.Run("question", **changes).advance(20, until="nonfinite").nonfinite


# 00: halve 0.01 until the seed survives.


def list_safe_rate() -> Iterator[Case]:
    """The seeds of `safe_rate`."""
    for seed in (3, 5, 0):
        yield Case(f"seed {seed}", partial(judge_safe_rate, seed))


def judge_safe_rate(seed: int, function: Function) -> None:
    """The rate is 0.01 halved some times, survives, and is the first that does."""
    rate = check_number(function(seed))
    times = count_steps(rate, 0.01, 0.5, least=1e-9, most=1)
    expect(times >= 0, "0.01, halved some times", rate)
    expect(not breaks(seed=seed, learning_rate=0.01 / 2**times), "a rate with which the run survives", rate)
    earlier = [breaks(seed=seed, learning_rate=0.01 / 2**time) for time in range(times)]
    expect(all(earlier), "the first of the rates with which it survives", rate)


def count_steps(value: float, first: float, factor: float, *, least: float, most: float) -> int:
    """How many times the first value was multiplied by a factor to give this one, between bounds; -1 if it was not."""
    steps = round(math.log(value / first) / math.log(factor)) if least < value < most else -1
    return steps if steps >= 0 and math.isclose(value, first * factor**steps, rel_tol=1e-9) else -1


# 01: two over the largest eigenvalue of the Hessian of linear regression.


def list_critical_rate() -> Iterator[Case]:
    """The data of `critical_rate`."""
    draw = np.random.default_rng(1).normal
    yield Case("0 to 99 beside ones", partial(judge_critical_rate, np.stack([np.arange(100.0), np.ones(100)], axis=1)))
    yield Case("200 random rows of 5", partial(judge_critical_rate, draw(size=(200, 5))))
    yield Case("40 rows of 3 that go together", partial(judge_critical_rate, draw(size=(40, 3)) @ draw(size=(3, 3))))
    yield Case("more columns than rows", partial(judge_critical_rate, draw(size=(4, 7))))
    yield Case("one column", partial(judge_critical_rate, draw(size=(30, 1))))


def judge_critical_rate(data: Any, function: Function) -> None:
    """Just below the rate gradient descent shrinks the steepest direction, just above it grows."""
    rate = check_number(function(data.copy()))
    expect(rate > 0 and math.isfinite(rate), "a rate above 0", rate)
    growth = [abs(1 - times * rate * np.linalg.norm(data, 2) ** 2 / len(data)) for times in (0.9999, 1.0001)]
    expect(growth[0] < 1, "a rate below which the cost falls: yours is too high", rate)
    expect(growth[1] > 1, "a rate above which the cost grows: yours is too low", rate)


# 02: the first scale whose critical learning rate is above a rate.


@cache
def measure_critical(scale: float) -> float:
    """The critical learning rate of seed 0 at an initial scale."""
    return cnnlab.critical_learning_rate(cnnlab.Run("question", init_scale=scale)).value


def list_scale_cases() -> Iterator[Case]:
    """The rates of `scale_for`."""
    for rate in (1e-5, 1e-2, 1.5e-4, 0.5):
        yield Case(f"a rate of {rate:g}", partial(judge_scale, rate))


def judge_scale(rate: float, function: Function) -> None:
    """The scale is one of 0.9, 0.9 * 0.8, and the first whose critical learning rate is above the rate."""
    scale = check_number(function(rate))
    steps = count_steps(scale, 0.9, 0.8, least=1e-6, most=1)
    expect(steps >= 0, "one of 0.9, 0.9 * 0.8, ...", scale)
    expect(measure_critical(0.9 * 0.8**steps) > rate, "a scale at which the rate is below the critical one", scale)
    earlier = [measure_critical(0.9 * 0.8**step) <= rate for step in range(steps)]
    expect(all(earlier), "the first of these scales, and yours is smaller", scale)


# 03: the weakest L2 that survives.


def list_weakest() -> Iterator[Case]:
    """The seeds of `weakest`."""
    for seed in (3, 1, 10):
        yield Case(f"seed {seed}", partial(judge_weakest, seed))


def judge_weakest(seed: int, function: Function) -> None:
    """The L2 is one of 5, 10, ..., survives, and is the first that does."""
    l2 = check_number(function(seed))
    expect(5 <= l2 <= 300 and l2 % 5 == 0, "one of 5, 10, 15, ...", l2)
    expect(not breaks(seed=seed, l2=l2), "a strength with which the run survives", l2)
    earlier = [breaks(seed=seed, l2=float(weaker)) for weaker in range(5, int(l2), 5)]
    expect(all(earlier), "the first of the strengths with which it survives", l2)


# 04: the share of the gradient that an epsilon leaves.


LEFT = (
    ("nearly all of the gradient at a small gap", 5, 1e-8, 1.0),
    ("half of it where p is the epsilon", -math.log(1e-8), 1e-8, 0.5),
    ("none of it at a gap of 200", 200, 1e-8, 0.0),
    ("two thirds where p is twice the epsilon", -math.log(2e-4), 1e-4, 2 / 3),
    ("all of it without an epsilon while p is a number", 80, 0, 1.0),
    ("NaN without an epsilon where p is 0 in float32", 200, 0, math.nan),
    ("NaN for a gap of 120 too", 120, 0, math.nan),
)
"""What is asked, gap, epsilon, share."""


def list_left() -> Iterator[Case]:
    """The gaps and epsilons of `left`."""
    for asked, gap, epsilon, share in LEFT:
        yield Case(f"gap {gap:.4g}, epsilon {epsilon:g}", partial(judge_left, asked, gap, epsilon, share))


def judge_left(asked: str, gap: float, epsilon: float, share: float, function: Function) -> None:
    """The share is right to three places, NaN included."""
    found = check_number(function(gap, epsilon))
    expect(np.isclose(found, share, atol=1e-3, rtol=0, equal_nan=True), asked, found)


# 05: an alarm that is asked after every update.


EXPLODING: tuple[dict[str, Any], ...] = ({"seed": 3}, {"seed": 5}, {"seed": 4, "learning_rate": 1e-3})
HEALTHY: tuple[dict[str, Any], ...] = (
    {"seed": 3, "learning_rate": 1e-3, "input_scaling": "standardised"},
    {"seed": 7, "learning_rate": 1e-3, "input_scaling": "standardised"},
    {"seed": 4, "learning_rate": 1e-2, "input_scaling": "unit"},
)
"""What runs of the preset `question` change; those that explode and those that do not."""


def list_alarm() -> Iterator[Case]:
    """The runs of `alarm`."""
    for changes in EXPLODING:
        yield Case(f"a run that explodes ({name_changes(changes)})", partial(judge_alarm_in_time, changes))
    for changes in HEALTHY:
        yield Case(f"a run that does not explode ({name_changes(changes)})", partial(judge_silence, changes))


def name_changes(changes: dict[str, Any]) -> str:
    """Changes of settings in words."""
    return ", ".join(f"{name} {value}" for name, value in changes.items())


def fire(changes: dict[str, Any], function: Function) -> tuple[int | None, Run]:
    """The update after which an alarm fired first, when it was asked after each; None if it never did."""
    run = cnnlab.Run("question", **changes)
    for step in range(1, 21):
        broken = run.step().nonfinite
        answer = function(run.record)
        if answer is not None:
            expect(1 <= check_whole(answer) <= step, f"None or an update from 1 to {step}, the last so far", answer)
            return step, run
        if broken:
            break
    return None, run


def judge_alarm_in_time(changes: dict[str, Any], function: Function) -> None:
    """The alarm fires while every cost is still finite."""
    step, run = fire(changes, function)
    asked = "an update before the first cost that is not finite, from a record that ends there"
    expect(step is not None and run.record.first_nonfinite is None, asked, step and f"an alarm after update {step}")


def judge_silence(changes: dict[str, Any], function: Function) -> None:
    """The alarm never fires."""
    step, _ = fire(changes, function)
    expect(step is None, "None all the time", f"an alarm after update {step}")


# 06: the latest update from which clipping saves a run.


RESCUES = (26, 24)
"""Seeds whose runs explode at 0.001."""


def list_latest_rescue() -> Iterator[Case]:
    """The runs of `latest_rescue`."""
    for seed in RESCUES:
        yield Case(f"seed {seed}", partial(judge_latest_rescue, seed))


@cache
def explode(seed: int) -> Run:
    """A run that has exploded."""
    run = cnnlab.Run("question", seed=seed, learning_rate=1e-3)
    run.advance(20, until="nonfinite")
    return run


@cache
def saves(seed: int, step: int) -> bool:
    """Whether clipping from an update on saves the run."""
    run = explode(seed)
    return bool(run.fork(step, clip="norm").advance(20).cost < run.record.cost[0])


def judge_latest_rescue(seed: int, function: Function) -> None:
    """From the update the run is saved, and from no later one."""
    count = len(explode(seed).record)
    step = check_whole(function(explode(seed)))
    expect(0 <= step < count, f"an update in [0, {count - 1}]", step)
    expect(saves(seed, step), "an update from which the run is saved", step)
    later = any(saves(seed, other) for other in range(count - 1, step, -1))
    expect(not later, "the latest such update, and there is a later one", step)


# 07: where each row of a map begins to diverge.


def list_edge() -> Iterator[Case]:
    """The maps of `edge`."""
    draw = np.random.default_rng(7).random
    yield Case("a map with one edge", partial(judge_edge, np.tril(np.ones((6, 4), dtype=bool), -1)))
    yield Case("a torn map", partial(judge_edge, draw((9, 7)) < 0.4))
    yield Case("a map on which nothing diverges", partial(judge_edge, np.zeros((5, 3), dtype=bool)))
    yield Case("a map on which all diverges", partial(judge_edge, np.ones((3, 5), dtype=bool)))


def make_map(diverged: Any) -> Map:
    """A map of one seed with these cells."""
    rates, scales = (tuple(np.linspace(0.1, 1, count).tolist()) for count in diverged.shape)
    found = Map.empty(settings("question"), (("learning_rate", rates), ("init_scale", scales)), (0,), 5)
    found.first_nonfinite[:, :, 0] = diverged
    found.done[:] = True
    return found


def judge_edge(diverged: Any, function: Function) -> None:
    """No cell before the edge diverges, and the one at it does, or there is none."""
    answer = function(make_map(diverged))
    is_list = isinstance(answer, (list, tuple)) or (isinstance(answer, np.ndarray) and answer.ndim == 1)
    expect(is_list, "one number for each value of the second field", answer)
    expect(len(answer) == diverged.shape[1], f"{diverged.shape[1]} numbers", answer)
    for row, (place, cells) in enumerate(zip(answer, diverged.T, strict=True)):
        edge = check_whole(place)
        expect(0 <= edge <= len(cells), f"numbers in [0, {len(cells)}]", edge)
        expect(not cells[:edge].any(), f"that no cell before the edge diverges, which one does in row {row}", edge)
        expect(edge == len(cells) or cells[edge], f"that the cell at the edge diverges, which not in row {row}", edge)


# 08: the least number of runs for an interval.


def list_enough() -> Iterator[Case]:
    """The widths of `enough`."""
    for width in (0.5, 0.33, 0.2, 0.1, 0.06, 0.9):
        yield Case(f"a width of {width:g}", partial(judge_enough, width))


def measure_width(count: int) -> float:
    """How wide the interval is when a quarter of so many runs break."""
    low, high = cnnlab.wilson(count // 4, count)
    return high - low


def judge_enough(width: float, function: Function) -> None:
    """The number is a multiple of 4 and enough, and four fewer are not."""
    count = check_whole(function(width))
    expect(count >= 4 and count % 4 == 0, "a multiple of 4 from 4 on", count)
    expect(measure_width(count) < width, "a number of runs whose interval is narrower", count)
    expect(count == 4 or measure_width(count - 4) >= width, "the least such number", count)


# 09: the largest rate that holds, of networks with one weight.


INPUTS: dict[str, tuple[float, ...]] = {
    "the inputs of unit 1": (1, 2, 3, 4, 5, 100, 200),
    "inputs without the two large ones": (1, 2, 3, 4, 5),
    "inputs a hundred times as large": (100, 200, 300, 400, 500, 10_000, 20_000),
    "inputs below 1": (0.1, 0.2, 0.4),
}
RATES = (1e-4, 1e-7, 1e-2, 1e-10, 1e-5, 1e-3, 1e-6, 1e-1, 3e-5, 1.0, 1e-9)
"""In no order."""


def list_largest_rate() -> Iterator[Case]:
    """The networks of `largest_rate`."""
    for name, inputs in INPUTS.items():
        yield Case(name, partial(judge_largest_rate, inputs))


def judge_largest_rate(inputs: tuple[float, ...], function: Function) -> None:
    """The rate is below 2 over the curvature, which is the sum of the squares of the inputs; the next one is not."""
    critical = 2 / sum(value**2 for value in inputs)
    answer = check_number(function(make_line(inputs), list(RATES)))
    expect(answer in RATES, f"one of the rates {', '.join(f'{rate:g}' for rate in sorted(RATES))}", answer)
    expect(answer < critical, "a rate with which forty updates leave a lower cost", answer)
    expect(
        not any(answer < rate < critical for rate in RATES), "the largest such rate, and there is a larger one", answer
    )


def make_line(inputs: tuple[float, ...]) -> dict[str, Any]:
    """Network, data and cost of a line through 0, as lab 09 has them."""
    import torch

    def half_squares(out: Any, want: Any) -> Any:
        return (out - want).square().sum() / 2

    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    x = torch.tensor(inputs, dtype=torch.float32)[:, None]
    return {"network": network, "data": (x, 2 * x), "cost": half_squares}


# 10: the first scale at which nothing of a gradient is lost.


@cache
def keeps_gradient(activation: str, scale: float) -> bool:
    """Whether the gradient that comes to cv0 of `deep_plain` is as large as the one that comes to cv19."""
    run = cnnlab.Run("deep_plain", activation=activation, init_scale=scale)
    back = cnnlab.measure_signals(run).backward_deviation
    return bool(back[0] >= back[19])


def list_keeping_scale() -> Iterator[Case]:
    """The activations of `keeping_scale`."""
    for activation in ("tanh", "sigmoid", "relu", "gelu", "selu"):
        yield Case(f"activation {activation}", partial(judge_keeping_scale, activation))


def judge_keeping_scale(activation: str, function: Function) -> None:
    """The scale is one of 0.5, 0.5 * 1.1, and the first at which the gradient is kept."""
    scale = check_number(function(activation))
    steps = count_steps(scale, 0.5, 1.1, least=0.4, most=100)
    expect(steps >= 0, "one of 0.5, 0.5 * 1.1, ...", scale)
    expect(keeps_gradient(activation, 0.5 * 1.1**steps), "a scale at which the gradient is kept", scale)
    earlier = [keeps_gradient(activation, 0.5 * 1.1**step) for step in range(steps)]
    expect(not any(earlier), "the first of these scales, and yours is larger", scale)


# 11: the most momentum that does not swing.


def swings(rate: float, curvature: float, momentum: float) -> bool:
    """Whether momentum crosses the bottom of a parabola within 1000 updates."""
    place, velocity = 1.0, 0.0
    for _ in range(1000):
        velocity = momentum * velocity + curvature * place
        place -= rate * velocity
        if place < 0:
            return True
    return False


def list_calm_momentum() -> Iterator[Case]:
    """The rates and curvatures of `calm_momentum`."""
    for rate, curvature in ((0.02, 1.0), (0.001, 130.0), (0.3, 1.0), (5.0, 0.001), (0.94, 1.0)):
        yield Case(f"rate {rate:g}, curvature {curvature:g}", partial(judge_calm_momentum, rate, curvature))


def judge_calm_momentum(rate: float, curvature: float, function: Function) -> None:
    """The momentum is one of 0, 0.01, ... 0.99, does not swing, and the next one does."""
    momentum = check_number(function(rate, curvature))
    steps = round(100 * momentum) if 0 <= momentum < 1 else -1
    expect(steps >= 0 and math.isclose(momentum, steps / 100, abs_tol=1e-9), "one of 0, 0.01, ... 0.99", momentum)
    expect(not swings(rate, curvature, steps / 100), "a momentum that never crosses the bottom", momentum)
    later = any(not swings(rate, curvature, step / 100) for step in range(steps + 1, 100))
    expect(not later, "the largest such momentum, and there is a larger one", momentum)


# 12: the highest rate that Adam bears while its divisor stays.


def list_adam_rate() -> Iterator[Case]:
    """The quadratics of `adam_rate`."""
    draw = np.random.default_rng(12).normal
    loose, tight = draw(size=(9, 4)), draw(size=(7, 3))
    cases = {
        "one weight": (np.array([[3.0]]), np.array([4.0]), 0.9),
        "two weights that have nothing in common": (np.diag([10.0, 1.0]), np.array([1.0, 1e-4]), 0.9),
        "four weights that go together": (loose.T @ loose, np.array([0.01, 4.0, 0.3, 25.0]), 0.9),
        "the same with a momentum of 0.5": (loose.T @ loose, np.array([0.01, 4.0, 0.3, 25.0]), 0.5),
        "three weights without momentum": (tight.T @ tight, np.array([1e-6, 1e-5, 1e-7]), 0.0),
        "three weights with a momentum of 0.99": (tight.T @ tight, np.array([9.0, 900.0, 1.0]), 0.99),
    }
    for name, quadratic in cases.items():
        yield Case(name, partial(judge_adam_rate, *quadratic))


def find_growth(hessian: Any, squares: Any, momentum: float, rate: float) -> float:
    """By what factor weights and mean grow at an update in the long run, if the squares stay."""
    count = len(hessian)
    mean = np.hstack([(1 - momentum) * hessian, momentum * np.eye(count)])
    weights = np.eye(count, 2 * count) - rate * mean / np.sqrt(squares)[:, None]
    return float(max(abs(np.linalg.eigvals(np.vstack([weights, mean])))))


def judge_adam_rate(hessian: Any, squares: Any, momentum: float, function: Function) -> None:
    """Just below the rate Adam's way to the bottom shrinks, just above it grows."""
    rate = check_number(function(hessian.copy(), squares.copy(), momentum))
    expect(rate > 0 and math.isfinite(rate), "a rate above 0", rate)
    growth = [find_growth(hessian, squares, momentum, times * rate) for times in (0.999, 1.001)]
    expect(growth[0] < 1, "a rate below which the way shrinks: yours is too high", rate)
    expect(growth[1] > 1, "a rate above which the way grows: yours is too low", rate)


# 13: the loss scale that each update meets.


def list_scales() -> Iterator[Case]:
    """The updates of `scales`: whether the scaled gradient of each overflowed."""
    bad, good = [True], [False]
    yield Case("five good updates", partial(judge_scales, 5 * good))
    yield Case("overflows in updates 1, 2 and 4", partial(judge_scales, 2 * bad + good + bad + 5 * good))
    yield Case("twenty overflows in a row", partial(judge_scales, 20 * bad + 5 * good))
    yield Case("2,001 good updates", partial(judge_scales, 2001 * good))
    yield Case("an overflow amid 3,998 good updates", partial(judge_scales, 1999 * good + bad + 1999 * good))
    yield Case("6,500 good updates", partial(judge_scales, 6500 * good))
    yield Case("an overflow right after a doubling", partial(judge_scales, 2000 * good + bad + 2005 * good))
    draw = np.random.default_rng(13).random
    yield Case("an overflow in a thousand updates", partial(judge_scales, (draw(9000) < 0.001).tolist()))
    yield Case("an overflow in three updates", partial(judge_scales, (draw(40) < 0.3).tolist()))


def judge_scales(overflowed: list[bool], function: Function) -> None:
    """The scale is 65536 at first, half as large after an overflow, and doubled after 2000 other updates in a row."""
    answer = function(list(overflowed))
    is_list = isinstance(answer, (list, tuple)) or (isinstance(answer, np.ndarray) and answer.ndim == 1)
    expect(is_list, "a list of scales", answer)
    expect(len(answer) == len(overflowed), f"{len(overflowed)} scales", f"{len(answer)} of them")
    scale, good = 65536.0, 0
    for update, (found, bad) in enumerate(zip(answer, overflowed, strict=True), 1):
        expect(check_number(found) == scale, f"{scale:g} for update {update}", found)
        good = 0 if bad else good + 1
        scale *= 0.5 if bad else 2 if good == 2000 else 1
        good %= 2000


EXERCISES: dict[str, Callable[[], Iterator[Case]]] = {
    "safe_rate": list_safe_rate,
    "critical_rate": list_critical_rate,
    "scale_for": list_scale_cases,
    "weakest": list_weakest,
    "left": list_left,
    "alarm": list_alarm,
    "latest_rescue": list_latest_rescue,
    "edge": list_edge,
    "enough": list_enough,
    "largest_rate": list_largest_rate,
    "keeping_scale": list_keeping_scale,
    "calm_momentum": list_calm_momentum,
    "adam_rate": list_adam_rate,
    "scales": list_scales,
}
"""The function that a lab asks for -> its cases."""
