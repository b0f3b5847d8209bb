"""Schedules are plans of knobs: a record, a rewind and a link hold them as they hold what a hand does."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnnlab
from cnnlab.config.schedules import PIECES, SAFE, SCHEDULE, critical_rate, rate_plan, safe_rate
from cnnlab.training.run import Run

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "device": "cpu"}
PLANNED = [name for name in SCHEDULE.options if name not in ("constant", SAFE)]


def rates(name: str, updates: int, first: int = 1) -> list[float]:
    """The learning rate of each update under a schedule whose highest is 1."""
    start = cnnlab.settings("question", learning_rate=1.0)
    plan = rate_plan(name, start, updates, first)
    return [
        next((knobs.learning_rate for begin, knobs in reversed(plan) if begin <= update), 1.0)
        for update in range(first, first + updates)
    ]


def test_constant_is_no_plan() -> None:
    assert rate_plan("constant", cnnlab.settings(), 20) == ()


def test_a_warm_up_rises_in_equal_factors_over_a_quarter_and_stays() -> None:
    found = rates("warm_up", 20)
    assert found[0] == pytest.approx(0.01)
    factors = [after / before for before, after in itertools.pairwise(found[:6])]
    assert factors == pytest.approx([factors[0]] * 5, rel=1e-4)
    assert found[5:] == [1.0] * 15


def test_steps_are_a_tenth_after_each_third() -> None:
    assert rates("step", 6) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_cosine_falls_from_all_to_a_hundredth_with_half_in_the_middle() -> None:
    found = rates("cosine", 21)
    assert (found[0], found[-1]) == pytest.approx((1, 0.01))
    assert found[10] == pytest.approx(0.505)
    assert found == sorted(found, reverse=True)


@given(st.sampled_from(PLANNED), st.integers(1, 5000), st.integers(1, 100))
def test_a_plan_is_short_rising_in_updates_and_never_above_its_highest_rate(name, updates, first) -> None:
    plan = rate_plan(name, cnnlab.settings("question", learning_rate=0.5), updates, first)
    firsts = [begin for begin, _ in plan]
    assert firsts == sorted(set(firsts))
    assert firsts[0] == first
    assert len(plan) <= PIECES + 1
    assert all(0 < knobs.learning_rate <= 0.5 for _, knobs in plan)


def test_the_other_knobs_stay_as_they_are() -> None:
    start = cnnlab.settings("question", momentum=0.5, clip="norm")
    assert all((knobs.momentum, knobs.clip) == (0.5, "norm") for _, knobs in rate_plan("cosine", start, 20))


@pytest.mark.parametrize("name", PLANNED)
def test_a_run_with_a_plan_rewinds_and_is_repeated_by_its_link_to_the_bit(name) -> None:
    start = cnnlab.settings("question", learning_rate=1e-4, **SMALL)
    run = Run(start, plan=rate_plan(name, start, 12))
    run.advance(12)
    assert run.record.to_dataframe()["learning_rate"].tolist() == pytest.approx(
        [1e-4 * share for share in rates(name, 12)], rel=1e-4
    )
    again = Run(run.record.link())
    again.advance(12)
    assert again.record.cost.tobytes() == run.record.cost.tobytes()
    costs = run.record.cost
    run.rewind(4)
    twin = run.fork(4)
    assert twin.knobs_in_force.learning_rate == pytest.approx(1e-4 * rates(name, 12)[4], rel=1e-4)
    assert costs[:4].tolist() == run.record.cost.tolist()


def test_a_misspelt_schedule_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"schedule must be one of .*; did you mean 'cosine'\?"):
        rate_plan("cosin", cnnlab.settings(), 20)


def test_as_high_as_is_safe_has_no_plan_to_give() -> None:
    with pytest.raises(ValueError, match="follows what is measured"):
        rate_plan(SAFE, cnnlab.settings(), 20)


@pytest.mark.parametrize("updates", [0, -1, 2.5, True])
def test_a_plan_is_for_a_whole_number_of_updates(updates) -> None:
    with pytest.raises(ValueError, match="updates must be a whole number of at least 1"):
        rate_plan("step", cnnlab.settings(), updates)


def knobs(**changes: object) -> cnnlab.Knobs:
    return cnnlab.Knobs(**{"learning_rate": 1e-3, **changes})


def test_the_critical_rate_is_two_over_the_eigenvalue_and_momentum_raises_it() -> None:
    assert critical_rate(100, knobs()) == pytest.approx(0.02)
    assert critical_rate(100, knobs(momentum=0.9)) == pytest.approx(0.038)


def test_without_upward_curvature_no_rate_is_critical_and_without_a_finite_one_none_is_known() -> None:
    assert math.isinf(critical_rate(-3, knobs()))
    assert math.isnan(critical_rate(math.inf, knobs()))
    assert math.isnan(critical_rate(math.nan, knobs()))


def test_a_safe_rate_is_a_share_of_the_critical_one_and_at_most_doubles() -> None:
    assert safe_rate(100, knobs(), 0.5, free=True) == pytest.approx(0.01)
    assert safe_rate(100, knobs(), 0.5, free=False) == pytest.approx(2e-3)
    assert safe_rate(1e6, knobs(), 0.5, free=False) == pytest.approx(1e-6)


@pytest.mark.parametrize("eigenvalue", [0.0, -5.0, math.inf, math.nan])
def test_a_safe_rate_stays_where_there_is_no_critical_one(eigenvalue) -> None:
    assert safe_rate(eigenvalue, knobs(), 0.5, free=True) == 1e-3


@pytest.mark.parametrize("share", [0, -1, 11, "half", True])
def test_a_share_out_of_range_is_refused(share) -> None:
    with pytest.raises(ValueError, match=r"share must lie in \(0, 10\]"):
        safe_rate(100, knobs(), share, free=True)
