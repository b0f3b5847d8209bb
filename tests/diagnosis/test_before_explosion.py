"""When all was last well is told from the noise of mini-batches, and nothing is said of a healthy run."""

import numpy as np
import pytest
from handmade import record_of

import cnnlab
from cnnlab import before_explosion
from cnnlab.diagnosis.summary import average_epochs
from cnnlab.records.frame import NOT_MEASURED

BOOM = [50.0, 1e9, np.nan, np.nan]


def draw_noise(costs: int, level: float = 5.0) -> list[float]:
    """Costs of batches of one patch: right and free, or wrong and dear."""
    return (np.random.default_rng(0).integers(0, 2, costs) * 2 * level).tolist()


def test_the_start_is_the_answer_when_the_first_step_was_too_long() -> None:
    assert before_explosion(record_of([5.6, 1.45e5, 1e24, np.nan])) == 0


def test_the_answer_is_the_last_update_that_left_a_cost_that_was_no_rise() -> None:
    assert before_explosion(record_of([2.0, 1.0, 0.9, 50.0, 1e9, np.inf])) == 2


@pytest.mark.parametrize(("cost", "update"), [(1.79, 3), (1.81, 2)])
def test_a_cost_up_to_twice_the_least_is_well_and_one_above_is_not(cost: float, update: int) -> None:
    assert before_explosion(record_of([2.0, 1.0, 0.9, cost, *BOOM])) == update


def test_a_last_update_ten_times_as_long_as_its_weights_is_wrong_though_no_cost_tells_yet() -> None:
    ratio = np.ones((5, 3))
    ratio[4, 1] = 11
    assert before_explosion(record_of([2.0, 1.0, 0.9, 0.8], update_ratio=ratio)) == 3


def test_a_rise_that_came_back_is_forgiven() -> None:
    assert before_explosion(record_of([5.6, 300.0, 40.0, 0.8, 0.7])) == 5
    assert before_explosion(record_of([5.6, 300.0, 40.0, 0.8, 0.7, *BOOM])) == 4


def test_a_healthy_run_is_well_up_to_its_end() -> None:
    assert before_explosion(record_of([2.0, 1.0, 0.5])) == 3
    assert before_explosion(record_of([])) == 0


def test_a_cost_that_is_nan_from_the_start_leaves_only_the_start() -> None:
    assert before_explosion(record_of([np.nan, np.nan])) == 0


def test_the_noise_of_small_batches_is_no_explosion() -> None:
    costs = draw_noise(200)
    assert before_explosion(record_of(costs, updates_per_epoch=66)) == 200
    assert before_explosion(record_of(costs, updates_per_epoch=1)) != 200


def test_an_explosion_is_found_in_the_noise_and_what_comes_before_is_not() -> None:
    costs = [*draw_noise(130), 1e3, 1e6, 1e12, np.nan]
    assert before_explosion(record_of(costs, updates_per_epoch=66)) == 129


def test_first_patches_that_cost_nothing_are_not_what_later_ones_are_measured_by() -> None:
    costs = [0.0, 0.0, 0.0, *draw_noise(160)]
    assert before_explosion(record_of(costs, updates_per_epoch=66)) == 163


def test_an_explosion_in_the_first_epoch_is_found() -> None:
    costs = [*draw_noise(10), 1e3, 1e6, 1e12, np.nan]
    assert before_explosion(record_of(costs, updates_per_epoch=66)) == 9


def test_a_cost_that_was_not_measured_tells_nothing() -> None:
    assert before_explosion(record_of([NOT_MEASURED] * 4)) == 4
    assert before_explosion(record_of([2.0, NOT_MEASURED, 1.0, NOT_MEASURED, *BOOM])) == 3


@pytest.mark.parametrize("epoch", [1, 2, 3, 7, 10, 40])
def test_averages_over_an_epoch_are_those_of_a_loop_and_forget_what_has_gone(epoch: int) -> None:
    costs = np.random.default_rng(1).random(30)
    costs[[4, 9]] = 1e30, np.nan
    expected = [np.mean(costs[max(0, end - epoch) : end]) for end in range(1, 31)]
    expected = np.where(np.isnan(expected), np.inf, expected)
    np.testing.assert_allclose(average_epochs(costs, epoch), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_batches_of_one_patch_that_learn_nothing_are_not_called_an_explosion(seed: int) -> None:
    run = cnnlab.Run("question", batch_size=1, learning_rate=1e-6, seed=seed, device="cpu")
    run.advance(100)
    assert before_explosion(run.record) == 100


def test_a_rate_raised_in_the_middle_of_mini_batches_is_found_to_within_five_updates() -> None:
    run = cnnlab.Run("question", batch_size=11, learning_rate=1e-3, input_scaling="unit", device="cpu")
    run.advance(40)
    run.set(learning_rate=1e2)
    run.advance(30, until="nonfinite")
    assert run.record.first_nonfinite is not None
    assert abs(before_explosion(run.record) - 40) <= 5
