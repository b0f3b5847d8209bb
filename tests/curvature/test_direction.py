"""The cost along the sharpest direction: on a quadratic the parabola is the cost, and the step lands where it says."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import cnnlab
from cnnlab.curvature.direction import POINTS, measure_direction
from cnnlab.training.run import Run

X = torch.randn(30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * torch.tensor([3.0, 1.0, 0.3])


def squares(**changes: object) -> Run:
    """Linear regression: its cost is a quadratic of the weights."""
    torch.manual_seed(2)
    network = nn.Linear(3, 1, bias=False).double()
    return Run(
        network=network, data=(X, X.sum(dim=1, keepdim=True)), cost=lambda z, y: (z - y).square().mean(),
        device="cpu", **changes,
    )  # fmt: skip


def small(**changes: object) -> Run:
    """A question's network of a few channels."""
    return Run("question", channels=2, hidden=(4, 4), patch_size=13, patches=8, device="cpu", **changes)


@pytest.mark.parametrize("share", [0.3, 0.9, 1.5])
def test_on_a_quadratic_the_parabola_is_the_cost_and_the_step_lands_at_one_less_rate_times_eigenvalue(share) -> None:
    rate = share * cnnlab.critical_learning_rate(squares(), tolerance=1e-9).value
    run = squares(learning_rate=rate)
    found = measure_direction(run, cnnlab.critical_learning_rate(run, tolerance=1e-9))
    assert found.costs == pytest.approx(found.predict_cost(found.places), rel=1e-6)
    factor = 1 - rate * found.eigenvalue
    assert found.find_landing(rate) == pytest.approx(factor * found.present, rel=1e-6)
    place = found.present
    for _ in range(3):
        run.step()
        place *= factor
        again = measure_direction(run, cnnlab.critical_learning_rate(run, tolerance=1e-9))
        assert again.present == pytest.approx(abs(place), rel=1e-5)
    assert (abs(place) > found.present) == (share > 1)


def test_another_learning_rate_moves_the_landing_without_a_new_measurement() -> None:
    run = squares(learning_rate=0.01)
    found = measure_direction(run)
    run.set(learning_rate=0.05)
    assert measure_direction(run).find_landing(0.05) == pytest.approx(found.find_landing(0.05))
    assert found.find_landing(found.critical) == pytest.approx(-found.present, rel=1e-2)
    assert found.find_landing(found.critical / 2) == pytest.approx(0, abs=1e-2 * found.present)


def test_the_present_weights_lie_right_of_the_minimum_at_their_own_cost_within_the_measured_range() -> None:
    run = small(learning_rate=1e-4)
    run.advance(2)
    found = measure_direction(run)
    assert found.step == 2
    assert found.present > 0
    assert len(found.places) == len(found.costs) == POINTS
    assert found.places[0] == -found.places[-1]
    assert found.places[-1] >= 2 * found.present
    assert found.read_cost(found.present) == pytest.approx(found.cost, rel=0.2)
    exact = found.line.measure(np.zeros(1))[0]
    assert exact == pytest.approx(found.cost, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "rel"),
    [
        ({"momentum": 0.9}, 1e-6),
        ({"l2": 0.5}, 1e-6),
        ({"l2": 0.5, "penalty_in": "update"}, 1e-6),
        ({"clip": "norm"}, 1e-6),
    ],
)
def test_the_landing_is_where_the_run_s_own_next_update_goes_along_the_direction(changes, rel) -> None:
    run = squares(learning_rate=0.02, **changes)
    run.advance(3)
    found = measure_direction(run)
    before, u = run.parameters.clone(), found.line.direction
    run.step()
    moved = float((run.parameters - before).dot(u))
    assert found.find_landing(0.02) - found.present == pytest.approx(moved, rel=rel)


def test_the_range_follows_a_landing_that_lies_beyond_it() -> None:
    found = measure_direction(squares(learning_rate=1e-3))
    far = 40 * found.critical
    assert not found.holds(far)
    assert found.read_cost(found.find_landing(far)) == pytest.approx(float(found.predict_cost(found.find_landing(far))))
    wider = found.measure_range(far)
    assert wider.holds(far)
    assert wider.present == found.present
    assert wider.costs == pytest.approx(wider.predict_cost(wider.places), rel=1e-5)


def test_a_cost_that_overflows_along_the_line_is_data() -> None:
    run = Run("question", learning_rate=1e6, device="cpu", cost="softmax_log")
    found = measure_direction(run)
    assert not np.isfinite(found.costs).all()
    assert len(found.costs) == POINTS
    broken = Run("question", device="cpu")
    broken.advance(8)
    lost = measure_direction(broken)
    assert math.isnan(lost.eigenvalue)
    assert np.isnan(lost.costs).all()


def test_a_cost_that_curves_upwards_nowhere_is_looked_at_around_the_weights() -> None:
    data = (torch.randn(5, 2), torch.zeros(5, 1))
    run = Run(network=nn.Linear(2, 1), data=data, cost=lambda z, y: -(z - y).square().mean(), device="cpu")
    found = measure_direction(run)
    assert found.present == 0
    assert np.isfinite(found.costs).all()
    assert found.places[-1] > 0


def test_measuring_changes_nothing_of_the_run() -> None:
    plain, measured = (small(learning_rate=1e-3, momentum=0.9) for _ in range(2))
    for _ in range(3):
        measure_direction(measured)
        plain.step()
        measured.step()
    assert measured.record.table.tobytes() == plain.record.table.tobytes()


def test_of_mini_batches_the_next_one_s_cost_is_cut() -> None:
    run = small(batch_size=3)
    found = measure_direction(run)
    assert found.eigenvalue == pytest.approx(cnnlab.critical_learning_rate(run, of="batch").eigenvalue)
    run.step()
    assert found.cost == pytest.approx(run.record.cost[0], rel=1e-5)


def test_it_is_printed_in_a_sentence_that_says_how_much_farther_the_step_leads() -> None:
    rate = 1.5 * cnnlab.critical_learning_rate(squares(), tolerance=1e-9).value
    found = cnnlab.measure_direction(squares(learning_rate=rate))
    assert repr(found).startswith("SharpestDirection(After update 0 (learning rate ")
    assert str(found).endswith("2 times as far from the minimum, to the other side.")
    assert "\n" not in repr(found)
