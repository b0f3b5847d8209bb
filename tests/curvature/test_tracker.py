"""Curvature is measured between updates in pieces that training has paid for, and kept in the record."""

import math

import numpy as np
import pytest
import torch
from once import Once
from torch import nn

import cnnlab
from cnnlab.curvature.tracker import SharpnessTracker, advance_safely
from cnnlab.training.run import Run

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "device": "cpu"}


class Clock:
    """A clock that goes on by so many seconds each time it is looked at."""

    def __init__(self, tick: float = 1.0) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def small(**changes: object) -> Run:
    return Run("question", **{"learning_rate": 1e-4, **SMALL, **changes})


def no_second_derivative() -> Run:
    class Layer(nn.Linear):
        def forward(self, x):
            return torch.nn.functional.linear(Once.apply(x @ self.weight.T), torch.eye(2))

    data = (torch.randn(6, 3), torch.randint(2, (6,)))
    return Run(network=Layer(3, 2, bias=False), data=data, cost=nn.functional.cross_entropy, device="cpu")


def test_what_is_measured_is_the_critical_rate_s_eigenvalue_and_stands_in_the_record() -> None:
    run = small()
    run.advance(2)
    value = SharpnessTracker().measure(run)
    assert value == pytest.approx(cnnlab.critical_learning_rate(run).eigenvalue, rel=1e-6)
    assert run.record.frames[-1].sharpness == value
    assert np.isnan(run.record.column("sharpness")[:-1]).all()


def test_it_can_be_measured_before_the_first_update() -> None:
    run = small()
    assert SharpnessTracker().measure(run) == run.record.start.sharpness


def test_a_piece_is_done_only_when_training_has_paid_for_it() -> None:
    run, edge = small(), SharpnessTracker(clock=Clock(), credit=0.0, took=1.0)
    for _ in range(6):
        run.update()
        edge.add_credit(1.0)
        edge.measure_within_credit(run)
        assert edge.pieces is None
    edge.credit = 1.5
    edge.measure_within_credit(run)
    assert edge.pieces is not None
    assert edge.credit == pytest.approx(0.5)


@pytest.mark.parametrize("tick", [0.05, 3.0])
def test_measuring_takes_at_most_its_share_of_the_training_s_time(tick) -> None:
    clock, updates, each = Clock(tick), 400, tick / 3
    run, edge = small(), SharpnessTracker(credit=0.0, clock=clock)
    for _ in range(updates):
        run.update()
        edge.add_credit(each)
        edge.measure_within_credit(run)
    spent = clock.now / 2  # between two looks at the clock a piece is done, and as long passes until the next piece
    assert 0 < spent <= 0.2 * updates * each
    assert np.isfinite(run.record.column("sharpness")).sum() >= 2


def test_a_slow_search_answers_for_the_update_at_which_it_began() -> None:
    run, edge = small(), SharpnessTracker()
    run.update()
    edge.measure_piece(run)
    run.advance(3)
    for _ in range(100):
        if not np.isnan(run.record.column("sharpness")[1]):
            break
        edge.measure_piece(run)
    fresh = small()
    fresh.advance(1)
    assert run.record.column("sharpness")[1] == pytest.approx(SharpnessTracker().measure(fresh), rel=1e-6)
    assert math.isnan(run.sharpness)


def test_at_rest_a_search_for_an_older_update_is_given_up() -> None:
    run, edge = small(), SharpnessTracker()
    edge.measure_piece(run)
    run.advance(2)
    assert edge.measure(run) == run.record.column("sharpness")[2]
    assert math.isnan(run.record.column("sharpness")[0])


def test_a_knob_that_bends_the_cost_has_it_measured_anew() -> None:
    run, edge = small(), SharpnessTracker()
    before = edge.measure(run)
    run.set(learning_rate=0.5)
    assert edge.is_known(run)
    run.set(l2=100.0)
    assert not edge.is_known(run)
    assert edge.measure(run) == pytest.approx(before + 100, rel=0.2)


def test_a_hessian_that_is_not_finite_is_inf_in_the_record_and_not_measured_is_nan() -> None:
    run = Run("question", device="cpu")
    run.advance(7)
    assert math.isinf(SharpnessTracker().measure(run))
    assert math.isnan(run.record.frames[0].sharpness)


def test_a_network_without_second_derivatives_is_said_once_and_trains_on() -> None:
    run, edge = no_second_derivative(), SharpnessTracker()
    assert math.isnan(edge.measure(run))
    assert "needs second derivatives" in edge.problem
    run.advance(2)
    edge.measure_within_credit(run)
    assert edge.pieces is None
    edge.forget()
    assert not edge.problem


def test_rewinding_keeps_what_was_measured_before() -> None:
    run, edge = small(), SharpnessTracker()
    run.advance(2)
    value = edge.measure(run)
    run.advance(3)
    run.rewind(2)
    assert run.sharpness == value


def test_a_saved_record_keeps_it_and_an_older_file_has_none(tmp_path) -> None:
    run = small()
    value = SharpnessTracker().measure(run)
    run.record.save(tmp_path / "run.cnnlab")
    assert cnnlab.load(tmp_path / "run.cnnlab").start.sharpness == value


def test_mini_batches_are_measured_on_the_next_batch() -> None:
    run = small(batch_size=3)
    assert SharpnessTracker().measure(run) == pytest.approx(
        cnnlab.critical_learning_rate(run, of="batch").eigenvalue, rel=1e-6
    )


def test_as_high_as_is_safe_survives_where_the_same_start_rate_explodes() -> None:
    assert Run("question", device="cpu").advance(20, until="nonfinite").nonfinite
    run = Run("question", device="cpu")
    last = advance_safely(run, 8)
    assert not last.nonfinite
    assert last.cost < run.record.cost[0]
    rates = run.record.to_dataframe()["learning_rate"].to_numpy()
    critical = 2 / run.record.column("sharpness")[:-1]
    assert (rates <= 0.5 * critical * 1.001).all()
    assert rates[0] == pytest.approx(0.5 * critical[0], rel=1e-3)


def test_a_safe_run_is_repeated_from_its_link_without_measuring() -> None:
    run = small()
    advance_safely(run, 5, share=0.8)
    again = Run(run.record.link())
    again.advance(5)
    assert again.record.cost.tobytes() == run.record.cost.tobytes()
    assert np.isnan(again.record.sharpness).all()


def test_advancing_safely_needs_second_derivatives_and_a_number_of_updates() -> None:
    with pytest.raises(ValueError, match="needs second derivatives"):
        advance_safely(no_second_derivative(), 2)
    with pytest.raises(ValueError, match="updates must be a whole number"):
        advance_safely(small(), 0)
