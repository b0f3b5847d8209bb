"""Whether a run will diverge is said before its first update, and rightly where it is beyond doubt."""

import math

import pytest
import torch
from torch import nn

import cnnlab
from cnnlab.curvature.divergence import (
    SEEDS,
    SIGNS,
    Forecast,
    Prediction,
    compute_chance,
    logarithm,
    measure_signs,
    rule,
)
from cnnlab.training.problem import Problem
from cnnlab.training.run import Run

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "device": "cpu"}


@pytest.mark.parametrize(("rate", "diverges"), [(1e-2, True), (1e-5, False)])
def test_the_question_s_network_is_foretold_to_diverge_at_its_rate_and_not_at_a_small_one(rate, diverges):
    run = Run("question", learning_rate=rate, device="cpu")
    said = cnnlab.predict(run)
    assert said.diverges == diverges
    assert run.updates == 0
    assert run.advance(20, until="nonfinite").nonfinite == diverges


def test_a_higher_rate_has_no_lower_chance():
    chances = [cnnlab.predict(Run("question", learning_rate=rate, **SMALL)).chance for rate in (1e-6, 1e-3, 1.0)]
    assert chances == sorted(chances)


def test_clipping_lowers_the_chance():
    plain, clipped = (Run("question", device="cpu", clip=kind, clip_threshold=0.01) for kind in ("off", "norm"))
    assert cnnlab.predict(clipped).chance < 0.5 < cnnlab.predict(plain).chance


def test_predicting_changes_nothing_of_the_run():
    plain, foretold = (Run("question", learning_rate=1e-3, momentum=0.5, **SMALL) for _ in range(2))
    for _ in range(3):
        cnnlab.predict(foretold)
        plain.step()
        foretold.step()
    assert foretold.record.table.tobytes() == plain.record.table.tobytes()


def test_the_rule_is_the_fitted_one_and_rises_with_each_sign():
    assert set(rule()) == {"constant", *SIGNS}
    middle = dict.fromkeys(SIGNS, 1.0)
    for name in SIGNS:
        assert compute_chance({**middle, name: 100.0}) > compute_chance(middle)


def test_what_is_not_finite_counts_as_the_worst_and_what_is_zero_as_the_best():
    worst, best = (dict.fromkeys(SIGNS, value) for value in (math.nan, 0.0))
    assert compute_chance(worst) > 0.99
    assert compute_chance(best) < 0.01
    assert logarithm(math.inf) == logarithm(math.nan) == 6
    assert logarithm(-1.0) == logarithm(0.0) == -6


def test_the_critical_sign_is_the_rate_over_the_critical_one():
    run = Run("question", learning_rate=1e-3, **SMALL)
    critical = cnnlab.critical_learning_rate(run)
    assert measure_signs(run, critical)["critical"] == pytest.approx(1e-3 / critical.value)


@pytest.mark.parametrize(("chance", "words"), [(0.0, "under 1 %"), (0.5, "50 %"), (0.999, "over 99 %")])
def test_a_prediction_says_its_chance_without_false_certainty(chance, words):
    assert words in str(Prediction(chance))


def test_a_forecast_is_the_mean_over_seeds():
    run = Run("question", learning_rate=1e-3, **SMALL)
    forecast = Forecast()
    while not forecast.is_known(run):
        assert forecast.find_prediction(run) is None
        forecast.measure_piece(run)
    chances = [
        cnnlab.predict(Run("question", learning_rate=1e-3, **{**SMALL, "seed": seed})).chance
        for seed in range(1 + SEEDS)
    ]
    assert forecast.find_prediction(run).chance == pytest.approx(sum(chances) / len(chances))
    assert f"over {1 + SEEDS} seeds" in str(forecast.find_prediction(run))


def test_a_forecast_is_made_anew_for_another_rate_from_the_same_starts():
    run = Run("question", learning_rate=1e-6, **SMALL)
    forecast = Forecast()
    while not forecast.is_known(run):
        forecast.measure_piece(run)
    low, starts = forecast.find_prediction(run), [start for start, _ in forecast.starts]
    assert all(start.problem.descent is run.problem.descent for start in starts)
    run.set(learning_rate=10.0)
    assert not forecast.is_known(run)
    while not forecast.is_known(run):
        forecast.measure_piece(run)
    assert forecast.find_prediction(run).chance > low.chance
    assert all(now is before for (now, _), before in zip(forecast.starts, starts, strict=True))


def test_a_forecast_of_a_network_of_one_s_own_is_of_its_start_alone():
    torch.manual_seed(0)
    data = (torch.randn(8, 3), torch.randint(2, (8,)))
    run = Run(network=nn.Linear(3, 2), data=data, cost=nn.functional.cross_entropy, device="cpu", learning_rate=0.1)
    forecast = Forecast()
    forecast.measure_piece(run)
    assert forecast.is_known(run)
    assert forecast.find_prediction(run).starts == 1
    assert not forecast.find_prediction(run).diverges


def test_there_is_no_forecast_once_the_run_has_begun():
    run = Run("question", learning_rate=1e-4, **SMALL)
    forecast = Forecast()
    while not forecast.is_known(run):
        forecast.measure_piece(run)
    run.step()
    assert forecast.find_prediction(run) is None


def test_a_network_for_which_nothing_can_be_foretold_has_no_forecast_and_no_error(monkeypatch):
    run = Run("question", **SMALL)

    def no_other(problem, seed):
        raise MemoryError("no room for another")

    monkeypatch.setattr(Problem, "replace_seed", no_other)
    forecast = Forecast()
    forecast.measure_piece(run)
    forecast.measure_piece(run)
    assert forecast.is_known(run)
    assert forecast.find_prediction(run) is None


def test_mini_batches_are_foretold_from_their_first_batch():
    run = Run("question", batch_size=2, learning_rate=1e-9, **SMALL)
    assert cnnlab.predict(run).chance < 0.5
