"""Checks of the exercises: right answers pass however they are written, wrong ones are told by case."""

import itertools
import json
from functools import cache

import numpy as np
import pytest
import torch

import cnnlab
from cnnlab.course.checks import judge_answer
from cnnlab.course.exercises import EXERCISES, Case
from cnnlab.training.loss_scaling import follow_scaling


def survives(**changes):
    return cnnlab.Run("question", **changes).advance(20, until="nonfinite").nonfinite is False


def halve(seed):
    rate = 1e-2
    while not survives(seed=seed, learning_rate=rate):
        rate /= 2
    return rate


def halve_by_powers(seed):
    return next(1e-2 * 0.5**k for k in itertools.count() if survives(seed=seed, learning_rate=1e-2 * 0.5**k))


def halve_again(seed, rate=0.01):
    return np.float64(rate) if survives(seed=seed, learning_rate=rate) else halve_again(seed, rate / 2)


def critical(scale):
    return cnnlab.critical_learning_rate(cnnlab.Run("question", init_scale=scale)).value


def shrink(rate):
    scale = 0.9
    while critical(scale) <= rate:
        scale *= 0.8
    return scale


def shrink_by_powers(rate):
    return next(0.9 * 0.8**k for k in itertools.count() if critical(0.9 * 0.8**k) > rate)


def shrink_again(rate, scale=0.9):
    return scale if critical(scale) > rate else shrink_again(rate, scale * 0.8)


def strengthen(seed):
    l2 = 5
    while not survives(seed=seed, l2=l2):
        l2 += 5
    return l2


def rescue_from_the_end(run):
    for step in reversed(range(len(run.record))):
        if run.fork(step, clip="norm").advance(20).cost < run.record.cost[0]:
            return step


def rescue_by_maximum(run):
    ends = [run.fork(step, clip="norm").advance(20).cost for step in range(len(run.record))]
    return max(np.flatnonzero(np.array(ends) < run.record.cost[0]))


def rescue_downwards(run):
    step = len(run.record) - 1
    while not run.fork(step, clip="norm").advance(20).cost < run.record.cost[0]:
        step -= 1
    return np.int64(step)


def rescue_upwards(run):
    step = 0
    while run.fork(step + 1, clip="norm").advance(20).cost < run.record.cost[0]:
        step += 1
    return step


def share_left(gap, epsilon):
    with np.errstate(all="ignore"):
        probability = np.exp(-np.float32(gap))
        return probability / (probability + np.float32(epsilon))


def share_left_by_array(gap, epsilon):
    with np.errstate(all="ignore"):
        probability = np.exp(np.array([-gap], dtype="float32"))
        return probability / (probability + np.array([epsilon], dtype="float32"))


def share_left_by_division(gap, epsilon):
    probability = np.exp(-np.float32(gap))
    whole = probability + np.float32(epsilon)
    return float(probability) / float(whole) if whole else float("nan")


def share_left_in_float64(gap, epsilon):
    return np.exp(-gap) / (np.exp(-gap) + epsilon)


def alarm_by_ratio(record):
    return next((frame.step for frame in record.frames if not frame.update_ratio.max() <= 20), None)


def alarm_by_rise(record):
    costs = record.cost
    for place in range(1, len(costs)):
        if not costs[place] <= 100 * costs[:place].min():
            return place + 1


def alarm_by_array(record):
    (late,) = np.nonzero(~(record.update_ratio.max(axis=1) <= 10))
    return late[0] + 1 if len(late) else None


def hindsight(record):
    return record.first_nonfinite - 1 if record.first_nonfinite else None


def edge_by_argmax(found):
    return [row.argmax() if row.any() else len(row) for row in found.diverged[:, :, 0].T]


def edge_by_index(found):
    return np.array([[*row, True].index(True) for row in found.diverged[:, :, 0].T.tolist()])


def edge_by_sum(found):
    return tuple(int(n) for n in np.logical_and.accumulate(~found.diverged[:, :, 0]).sum(axis=0))


def count_up(width):
    count = 4
    while np.ptp(cnnlab.wilson(count // 4, count)) >= width:
        count += 4
    return count


def count_by_range(width):
    ends = ((count, cnnlab.wilson(count // 4, count)) for count in range(4, 100_000, 4))
    return next(count for count, (low, high) in ends if high - low < width)


def count_in_floats(width):
    return float(count_up(width))


def train(mine, rate):
    run = cnnlab.Run(**mine, learning_rate=rate)
    return run.advance(40).cost < run.record.cost[0]


def largest_first(mine, rates):
    return next(rate for rate in sorted(rates, reverse=True) if train(mine, rate))


def largest_of_all(mine, rates):
    return max(rate for rate in rates if train(mine, rate))


def largest_by_theory(mine, rates):
    return max(rate for rate in rates if rate < 2 / mine["data"][0].square().sum().item())


def smallest_of_all(mine, rates):
    return min(rate for rate in rates if train(mine, rate))


@cache
def keeps(activation, scale):
    run = cnnlab.Run("deep_plain", activation=activation, init_scale=scale)
    back = cnnlab.measure_signals(run).backward_deviation
    return back[0] >= back[19]


def enlarge(activation):
    scale = 0.5
    while not keeps(activation, scale):
        scale *= 1.1
    return scale


def enlarge_by_powers(activation):
    return next(0.5 * 1.1**k for k in itertools.count() if keeps(activation, 0.5 * 1.1**k))


def enlarge_again(activation, scale=0.5):
    return np.float64(scale) if keeps(activation, scale) else enlarge_again(activation, scale * 1.1)


def crosses(rate, curvature, momentum):
    place, velocity = 1.0, 0.0
    for _ in range(1000):
        velocity = momentum * velocity + curvature * place
        place = place - rate * velocity
        if place < 0:
            return True
    return False


def calm_by_trying(rate, curvature):
    return max(step / 100 for step in range(100) if not crosses(rate, curvature, step / 100))


def calm_downwards(rate, curvature):
    momentum = 0.99
    while crosses(rate, curvature, momentum):
        momentum -= 0.01
    return round(momentum, 2)


def calm_by_theory(rate, curvature):
    return np.floor(100 * (1 - np.sqrt(rate * curvature)) ** 2) / 100


def divide_rows(hessian, squares):
    return hessian / np.sqrt(squares)[:, None]


def rate_by_rows(hessian, squares, momentum):
    steepest = np.linalg.eigvals(divide_rows(hessian, squares)).real.max()
    return 2 * (1 + momentum) / ((1 - momentum) * steepest)


def rate_by_both_sides(hessian, squares, momentum):
    root = squares**0.25
    return (2 + 2 * momentum) / (1 - momentum) / np.linalg.eigvalsh(hessian / np.outer(root, root))[-1]


def goes_down(hessian, squares, momentum, rate):
    step = np.diag(rate / np.sqrt(squares))
    one, mean = np.eye(len(squares)), (1 - momentum) * hessian
    update = np.block([[one - step @ mean, -momentum * step], [mean, momentum * one]])
    with np.errstate(all="ignore"):
        early, late = (abs(np.linalg.matrix_power(update, count)).max() for count in (4096, 8192))
    return late < early or late == 0


def rate_by_halving(hessian, squares, momentum):
    low, high = 1e-9, 1e9
    while high / low > 1.0005:
        middle = np.sqrt(low * high)
        low, high = (middle, high) if goes_down(hessian, squares, momentum, middle) else (low, middle)
    return low


def count_and_scale(overflowed):
    scale, good, met = 65536, 0, []
    for bad in overflowed:
        met.append(scale)
        good = 0 if bad else good + 1
        if bad:
            scale /= 2
        elif good == 2000:
            scale, good = 2 * scale, 0
    return met


def scale_as_the_package(overflowed):
    state, met = torch.tensor([65536.0, 0, 0]), []
    for bad in torch.tensor(overflowed):
        met.append(state[0].item())
        state = follow_scaling(state, bad, True)
    return np.array(met)


def scale_by_stretches(overflowed):
    powers = np.zeros(len(overflowed) + 1)
    ends = [-1, *np.flatnonzero(overflowed), len(overflowed)]
    for begin, end in itertools.pairwise(ends):
        powers[begin + 2001 : end + 1 : 2000] += 1
        powers[end + 1 : end + 2] -= 1
    return tuple(65536 * 2 ** powers.cumsum()[:-1])


def scale_by(overflowed, first=65536.0, often=2000, reset=True, less=0.5, anew=True, least=0.0):
    scale, good, met = first, 0, []
    for bad in overflowed:
        met.append(scale)
        good = good + 1 if not bad else 0 if reset else good
        if bad:
            scale = max(scale * less, least)
        elif good >= often:
            scale, good = 2 * scale, 0 if anew else good
    return met


def eigenvalue(X):
    return np.linalg.eigvalsh(X.T @ X / len(X))[-1]


RIGHT = {
    "safe_rate": (halve, halve_by_powers, halve_again),
    "critical_rate": (
        lambda X: 2 / eigenvalue(X),
        lambda X: 2 * len(X) / np.linalg.svd(X, compute_uv=False)[0] ** 2,
        lambda X: 2 / max(np.linalg.eigvals(X.T @ X / len(X)).real),
    ),
    "scale_for": (shrink, shrink_by_powers, shrink_again),
    "weakest": (
        strengthen,
        lambda seed: next(l2 for l2 in range(5, 200, 5) if survives(seed=seed, l2=l2)),
        lambda seed: np.float64(strengthen(seed)),
    ),
    "left": (share_left, share_left_by_array, share_left_by_division),
    "alarm": (alarm_by_ratio, alarm_by_rise, alarm_by_array),
    "latest_rescue": (rescue_from_the_end, rescue_by_maximum, rescue_downwards),
    "edge": (edge_by_argmax, edge_by_index, edge_by_sum),
    "enough": (count_up, count_by_range, count_in_floats),
    "largest_rate": (largest_first, largest_of_all, largest_by_theory),
    "keeping_scale": (enlarge, enlarge_by_powers, enlarge_again),
    "calm_momentum": (calm_by_trying, calm_downwards, calm_by_theory),
    "adam_rate": (rate_by_rows, rate_by_both_sides, rate_by_halving),
    "scales": (count_and_scale, scale_as_the_package, scale_by_stretches),
}
"""Exercise -> answers that are right, written differently."""

WRONG = {
    "safe_rate": (
        lambda seed: 0.01 / 8,
        lambda seed: 1e-6,
        lambda seed: halve(seed) / 2,
        lambda seed: halve(seed) * 2,
        lambda seed: halve(0),
        lambda seed: float("nan"),
    ),
    "critical_rate": (
        lambda X: 2 / np.trace(X.T @ X / len(X)),
        lambda X: 2 / np.max(X.T @ X / len(X)),
        lambda X: 2 / np.linalg.norm(X.T @ X / len(X)),
        lambda X: 2 / np.mean(X**2),
        lambda X: 1 / eigenvalue(X),
        lambda X: 2 / eigenvalue(X * np.sqrt(len(X))),
        lambda X: 2 / np.linalg.eigvalsh(X.T @ X / len(X))[0],
        lambda X: 0.00060897,
        lambda X: np.array([1.0, 2.0]),
    ),
    "scale_for": (
        lambda rate: 0.47,
        lambda rate: 0.5,
        lambda rate: 0.9,
        lambda rate: 0.9 * 0.8**3,
        lambda rate: shrink(rate) * 0.8,
        lambda rate: shrink(1e-2),
        lambda rate: "0.5",
    ),
    "weakest": (
        lambda seed: 55,
        lambda seed: 90,
        lambda seed: 300,
        lambda seed: strengthen(seed) + 5,
        lambda seed: strengthen(seed) - 5,
        lambda seed: max(50, strengthen(seed)),
        lambda seed: 1,
    ),
    "left": (
        share_left_in_float64,
        lambda gap, epsilon: 1.0,
        lambda gap, epsilon: 1 - share_left(gap, epsilon),
        lambda gap, epsilon: np.nan_to_num(share_left(gap, epsilon)),
        lambda gap, epsilon: 0.5 if epsilon else share_left(gap, epsilon),
        lambda gap, epsilon: float(gap < 18.4),
    ),
    "alarm": (
        hindsight,
        lambda record: 2,
        lambda record: None if len(record) < 2 else 2,
        lambda record: 1 if record.settings.learning_rate == 0.01 else None,
        lambda record: None if np.isfinite(record.cost).all() else 1,
        lambda record: alarm_by_ratio(record) and len(record) + 1,
        lambda record: record.cost[-1] > 5 and len(record),
    ),
    "latest_rescue": (
        lambda run: 0,
        lambda run: 1,
        lambda run: 4,
        lambda run: cnnlab.before_explosion(run.record),
        rescue_upwards,
        lambda run: len(run.record) - 1,
        lambda run: 1000,
    ),
    "edge": (
        lambda found: found.diverged[:, :, 0].argmax(axis=0),
        lambda found: (~found.diverged[:, :, 0]).sum(axis=0),
        lambda found: [place + 1 for place in edge_by_argmax(found)],
        lambda found: [row.argmax() if row.any() else len(row) for row in found.diverged[:, :, 0]],
        lambda found: [0] * found.shape[1],
        lambda found: [*edge_by_argmax(found), 0],
        lambda found: [[place] for place in edge_by_argmax(found)],
        lambda found: 3,
    ),
    "enough": (
        lambda width: 16,
        lambda width: 10_000,
        lambda width: count_up(width) + 4,
        lambda width: max(count_up(width) - 4, 4),
        lambda width: 1 / width**2,
        lambda width: count_up(width) - 1,
    ),
    "largest_rate": (
        lambda mine, rates: 1e-5,
        lambda mine, rates: max(rates),
        lambda mine, rates: min(rates),
        lambda mine, rates: rates[0],
        smallest_of_all,
        lambda mine, rates: 2 / mine["data"][0].square().sum().item(),
    ),
    "keeping_scale": (
        lambda activation: 1.0,
        lambda activation: 0.5,
        lambda activation: 10,
        lambda activation: enlarge("tanh"),
        lambda activation: enlarge(activation) * 1.1,
        lambda activation: enlarge(activation) / 1.1,
        lambda activation: {"sigmoid": enlarge("sigmoid"), "tanh": enlarge("tanh")}.get(activation, 1.0),
    ),
    "calm_momentum": (
        lambda rate, curvature: 0.9,
        lambda rate, curvature: 0.0,
        lambda rate, curvature: (1 - np.sqrt(rate * curvature)) ** 2,
        lambda rate, curvature: calm_by_theory(rate, 1.0),
        lambda rate, curvature: calm_by_theory(rate, curvature) + 0.01,
        lambda rate, curvature: max(calm_by_theory(rate, curvature) - 0.01, 0),
        lambda rate, curvature: 1 - np.sqrt(rate * curvature),
    ),
    "adam_rate": (
        lambda hessian, squares, momentum: 0.001,
        lambda hessian, squares, momentum: 38 / np.linalg.eigvals(divide_rows(hessian, squares)).real.max(),
        lambda hessian, squares, momentum: rate_by_rows(hessian, np.ones(len(squares)), momentum),
        lambda hessian, squares, momentum: rate_by_rows(hessian, squares**2, momentum),
        lambda hessian, squares, momentum: rate_by_rows(hessian, squares, momentum) * (1 - momentum),
        lambda hessian, squares, momentum: rate_by_rows(np.diag(np.diag(hessian)), squares, momentum),
        lambda hessian, squares, momentum: rate_by_rows(hessian, squares, momentum) * 1.01,
        lambda hessian, squares, momentum: rate_by_rows(hessian, squares, momentum) / 1.01,
        lambda hessian, squares, momentum: (
            2 * (1 + momentum) / (1 - momentum) / np.linalg.eigvalsh(divide_rows(hessian, squares))[-1]
        ),
    ),
    "scales": (
        lambda overflowed: 65536.0,
        lambda overflowed: [65536.0] * len(overflowed),
        lambda overflowed: [65536 * 0.5 ** sum(overflowed[:at]) for at in range(len(overflowed))],
        lambda overflowed: [65536 * 0.5 ** sum(overflowed[: at + 1]) for at in range(len(overflowed))],
        lambda overflowed: count_and_scale(overflowed)[1:],
        lambda overflowed: scale_by(overflowed, first=32768.0),
        lambda overflowed: scale_by(overflowed, often=1999),
        lambda overflowed: scale_by(overflowed, often=2001),
        lambda overflowed: scale_by(overflowed, reset=False),
        lambda overflowed: scale_by(overflowed, anew=False),
        lambda overflowed: scale_by(overflowed, less=0.25),
        lambda overflowed: scale_by(overflowed, least=1.0),
        lambda overflowed: [int(scale) for scale in count_and_scale(overflowed)],
    ),
}
"""Exercise -> answers that are wrong."""


def pairs(answers):
    """Each exercise with each of its answers."""
    return [pytest.param(name, one, id=f"{name}-{at}") for name in answers for at, one in enumerate(answers[name])]


def test_every_exercise_has_three_right_answers_and_five_wrong_ones():
    assert set(RIGHT) == set(WRONG) == set(EXERCISES)
    assert all(len(answers) >= 3 for answers in RIGHT.values())
    assert all(len(answers) >= 5 for answers in WRONG.values())


@pytest.mark.parametrize(("name", "answer"), pairs(RIGHT))
def test_a_right_answer_passes_however_it_is_written(notebook, name, answer):
    verdict = cnnlab.check_answer(name, answer)
    assert verdict.passed, verdict
    assert repr(verdict).startswith("Right! All ")


@pytest.mark.parametrize(("name", "answer"), pairs(WRONG))
def test_a_wrong_answer_is_told_by_case_by_what_came_and_what_was_asked(notebook, name, answer):
    verdict = cnnlab.check_answer(name, answer)
    assert not verdict.passed
    assert any(verdict.said.startswith(f"Not yet: {case.name}: ") for case in EXERCISES[name]())
    assert ": got " in verdict.said
    assert ", asked was " in verdict.said
    assert "\n" not in verdict.said
    assert not list(notebook.iterdir())


def empty(seed): ...


def empty_but_for_its_docstring(seed):
    """Halve 0.01."""
    ...


def dots(seed):
    return ...


@pytest.mark.parametrize("answer", [..., empty, empty_but_for_its_docstring, dots, lambda seed: None])
def test_an_answer_that_is_left_as_dots_is_not_yet_written(notebook, answer):
    assert repr(cnnlab.check_answer("safe_rate", answer)).startswith("Not yet written: safe_rate ")


def stumble(data):
    half = len(data) // 0
    return half


def leave(data):
    raise SystemExit(3)


def recurse(data):
    return recurse(data)


def test_an_error_of_the_answer_is_told_in_a_sentence_with_case_and_line(notebook):
    said = cnnlab.check_answer("critical_rate", stumble).said
    line = stumble.__code__.co_firstlineno + 1
    assert said.startswith("Not yet: 0 to 99 beside ones: critical_rate raised ZeroDivisionError: ")
    assert said.endswith(f" in line {line}, `half = len(data) // 0`.")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (leave, "SystemExit: 3"),
        (recurse, "RecursionError"),
        (lambda: 1, "TypeError"),
        (np.linalg.cholesky, "LinAlgError"),
    ],
)
def test_whatever_the_answer_raises_ends_no_notebook(notebook, answer, error):
    assert f"critical_rate raised {error}" in cnnlab.check_answer("critical_rate", answer).said


@pytest.mark.parametrize("name", ["critical_rate", "adam_rate", "enough"])
@pytest.mark.parametrize("answer", [["a"], [1j], [None], [...], [True]])
def test_an_array_that_holds_no_number_is_refused_in_a_sentence(notebook, name, answer):
    assert cnnlab.check_answer(name, lambda *given: np.array(answer)).said.endswith(", asked was a number.")


@pytest.mark.parametrize("name", ["critical_rate", "adam_rate", "enough"])
@pytest.mark.parametrize("answer", [10**400, -(10**400)])
def test_a_number_too_large_for_a_float_is_refused_in_a_sentence(notebook, name, answer):
    assert cnnlab.check_answer(name, lambda *given: answer).said.startswith("Not yet: ")


def test_an_interrupt_is_not_taken_for_a_mistake(notebook):
    def interrupt(data):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cnnlab.check_answer("critical_rate", interrupt)


def test_an_answer_that_spoils_its_arguments_is_judged_by_what_it_was_given(notebook):
    def spoil(X):
        rate = 2 / eigenvalue(X)
        X *= 0
        return rate

    assert cnnlab.check_answer("critical_rate", spoil).passed


def test_what_is_no_function_and_what_is_no_exercise_are_refused_in_a_sentence(notebook):
    assert repr(cnnlab.check_answer("safe_rate", 0.01)) == "Not yet: safe_rate must be a function, got 0.01."
    with pytest.raises(ValueError, match=r"name must be one of .*; did you mean 'safe_rate'\?"):
        cnnlab.check_answer("save_rate", halve)


def test_a_verdict_escapes_what_the_answer_gave(notebook):
    shown = cnnlab.check_answer("critical_rate", lambda X: "<script>")._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown


def test_an_exercise_that_was_passed_is_kept_once(notebook):
    for _ in range(2):
        cnnlab.check_answer("enough", count_up)
    (passed,) = json.loads((notebook / "cnnlab_guesses.json").read_text())["checks"]
    assert (passed["name"], passed["notebook"]) == ("enough", "first")


def test_the_first_case_that_fails_decides():
    def refuse(function):
        raise AssertionError("asked after a case had failed")

    cases = {"one": lambda: iter([Case("first", lambda function: function()), Case("second", refuse)])}
    assert judge_answer("one", lambda: 1 // 0, cases).said.startswith("Not yet: first: one raised")
