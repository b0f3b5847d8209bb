"""Before its first update a run's start is tried, and others; what is said is what was done, and leaves no trace."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import cnnlab
from cnnlab.config.settings import LIMITS
from cnnlab.curvature import divergence
from cnnlab.curvature.divergence import SEEDS, WITHIN, Forecast, Prediction, predict
from cnnlab.training.problem import Problem
from cnnlab.training.run import Run

ROOT = Path(__file__).parents[2]
SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "relu": "none", "device": "cpu"}


def forecast_fully(run: Run, forecast: Forecast) -> Prediction | None:
    """What a forecast says of a run when it is complete."""
    while not forecast.is_known(run):
        assert forecast.find_prediction(run) is None
        forecast.measure_piece(run)
    return forecast.find_prediction(run)


def diverges(**changes: object) -> bool:
    """Whether a run reaches NaN or inf when it is really trained."""
    return Run("question", **{**SMALL, **changes}).advance(WITHIN, until="nonfinite").nonfinite


@pytest.mark.parametrize(("rate", "diverged"), [(1e-2, True), (1e-5, False)])
def test_the_question_s_network_diverges_at_its_rate_and_not_at_a_small_one(rate, diverged):
    run = Run("question", learning_rate=rate, device="cpu")
    assert cnnlab.predict(run).diverges == diverged
    assert run.updates == 0


@pytest.mark.parametrize("changes", [{}, {"batch_size": 2}, {"momentum": 0.9}, {"clip": "norm"}, {"l2": 1e4}])
@pytest.mark.parametrize("rate", [1e-9, 1e-3, 1.0])
def test_what_is_predicted_comes_to_pass(changes, rate):
    run = Run("question", learning_rate=rate, **changes, **SMALL)
    assert cnnlab.predict(run).diverges == diverges(learning_rate=rate, **changes)


def test_a_prediction_in_the_middle_of_a_run_is_of_the_updates_to_come():
    run = Run("question", learning_rate=1e-6, **SMALL)
    run.advance(3)
    assert not predict(run).diverges
    run.set(learning_rate=1e3)
    assert predict(run).diverges
    assert run.advance(WITHIN, until="nonfinite").nonfinite


def test_a_plan_is_tried_as_it_stands():
    low, high = (cnnlab.settings("question", learning_rate=rate, **SMALL).knobs for rate in (1e-9, 1e3))
    later = Run("question", plan=((1, low), (10, high)), **SMALL)
    assert predict(later).diverges
    assert not predict(Run("question", plan=((1, low), (WITHIN + 1, high)), **SMALL)).diverges
    assert forecast_fully(later, Forecast()).diverged == 1 + SEEDS


def test_predicting_changes_nothing_of_the_run():
    plain, foretold = (Run("question", learning_rate=1e-3, momentum=0.5, **SMALL) for _ in range(2))
    for _ in range(3):
        predict(foretold)
        plain.step()
        foretold.step()
    assert foretold.record.table.tobytes() == plain.record.table.tobytes()


def test_a_network_with_buffers_and_dropout_is_tried_and_left_as_it_was():
    torch.manual_seed(0)
    data = (torch.randn(8, 3), torch.randint(2, (8,)))
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    runs = [
        Run(network=network, data=data, cost=nn.functional.cross_entropy, device="cpu", learning_rate=0.1)
        for _ in range(2)
    ]
    assert not predict(runs[0]).diverges
    for run in runs:
        run.advance(3)
    assert runs[0].record.table.tobytes() == runs[1].record.table.tobytes()


@pytest.mark.parametrize(
    ("diverged", "starts", "words"),
    [
        (0, 5, "0 of 5 starts tried diverged within 20 updates"),
        (3, 5, "3 of 5 starts tried diverged within 20 updates"),
        (0, 1, "the start tried did not diverge within 20 updates"),
        (1, 1, "the start tried diverged within 20 updates"),
    ],
)
def test_a_prediction_says_what_was_tried_and_no_chance(diverged, starts, words):
    said = Prediction(diverged, starts)
    assert str(said) == words
    assert not any(word in words for word in ("%", "chance", "will"))
    assert said.chance == diverged / starts
    assert said.diverges == (diverged > starts / 2)


def test_a_forecast_counts_the_starts_that_really_diverge():
    run = Run("question", learning_rate=1e-3, **SMALL)
    expected = [diverges(learning_rate=1e-3, seed=seed) for seed in range(1 + SEEDS)]
    assert 0 < sum(expected) < 1 + SEEDS
    assert forecast_fully(run, Forecast()) == Prediction(sum(expected), 1 + SEEDS)


def test_a_forecast_is_made_anew_for_another_rate_from_the_same_starts():
    run = Run("question", learning_rate=1e-9, **SMALL)
    forecast = Forecast()
    assert forecast_fully(run, forecast).diverged == 0
    before = list(forecast.further)
    run.set(learning_rate=1e3)
    assert not forecast.is_known(run)
    assert forecast_fully(run, forecast).diverged == 1 + SEEDS
    assert all(now is then for now, then in zip(forecast.further, before, strict=True))


def test_a_run_that_takes_the_place_of_one_that_was_trained_is_tried_from_its_own_start():
    forecast, old = Forecast(), Run("question", learning_rate=1e-9, **SMALL)
    forecast_fully(old, forecast)
    old.set(learning_rate=1e3)
    old.advance(5)
    new = Run("question", learning_rate=1e-8, **SMALL)
    assert forecast_fully(new, forecast).diverged == 0


def test_a_forecast_of_a_network_of_one_s_own_is_of_its_start_alone():
    torch.manual_seed(0)
    data = (torch.randn(8, 3), torch.randint(2, (8,)))
    run = Run(network=nn.Linear(3, 2), data=data, cost=nn.functional.cross_entropy, device="cpu", learning_rate=0.1)
    assert forecast_fully(run, Forecast()) == Prediction(0, 1)


def test_a_network_without_second_derivatives_is_tried_too():
    class Rounded(torch.autograd.Function):
        """What has a first derivative and no second."""

        @staticmethod
        def forward(context, x):
            return x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(context, gradient):
            return gradient

    class Own(nn.Linear):
        """A layer that ends in it."""

        def forward(self, x):
            return Rounded.apply(super().forward(x))

    data = (torch.randn(8, 3), torch.randint(2, (8,)))
    run = Run(network=Own(3, 2), data=data, cost=nn.functional.cross_entropy, device="cpu", learning_rate=0.1)
    assert forecast_fully(run, Forecast()) == Prediction(0, 1)


def test_a_slow_network_s_forecast_comes_in_pieces_and_begins_no_start_when_time_is_up(monkeypatch):
    run = Run("question", learning_rate=1e-9, **SMALL)
    monkeypatch.setattr(divergence, "PIECE", 1e-9)
    monkeypatch.setattr(divergence, "LONGEST", 0.0)
    forecast = Forecast()
    forecast.measure_piece(run)
    assert forecast.trials[0].updates == 1
    assert not forecast.is_known(run)
    assert forecast_fully(run, forecast) == Prediction(0, 1)


def read_larger(name: str) -> list[str]:
    """The cells of a row in the table of what a forecast is worth over the larger space."""
    text = (ROOT / "tests/benchmarks/results/prediction.md").read_text(encoding="utf-8")
    table = text.split("## Over the larger space")[1].split("\n## ")[0]
    row = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in row.split("|")[2:-1]]


@pytest.mark.parametrize("name", ["all", *(f"`{each}`" for each in LIMITS["optimizer"].options)])
def test_the_starts_tried_are_right_of_a_sixth_one_with_each_optimiser(name):
    runs, ended, found, others, false, balanced, _ = map(float, read_larger(name))
    assert runs == ended + others
    assert balanced == pytest.approx((found / ended + 1 - false / others) / 2, abs=6e-4)
    assert balanced >= 0.9


def read_majority() -> float:
    """The balanced accuracy of a majority of the starts tried, as the benchmark tells it."""
    text = " ".join((ROOT / "tests/benchmarks/results/prediction.md").read_text(encoding="utf-8").split())
    (said,) = re.findall(r"`Prediction.diverges` has it, the balanced accuracy of all is ([.0-9]+)\. ", text)
    return float(said)


def test_the_readme_tells_what_a_forecast_is_worth_over_the_larger_space():
    row = r"of the five for a sixth.*\| ([.0-9]+); of a majority of them ([.0-9]+) .* each optimiser at least ([.0-9]+)"
    ((best, majority, worst),) = re.findall(row, (ROOT / "README.md").read_text(encoding="utf-8"))
    assert float(worst) <= min(float(read_larger(f"`{name}`")[5]) for name in LIMITS["optimizer"].options)
    assert float(best) == round(float(read_larger("all")[5]), 2)
    assert float(majority) == round(read_majority(), 2) >= 0.9


def test_there_is_no_forecast_once_the_run_has_begun():
    run = Run("question", learning_rate=1e-4, **SMALL)
    forecast = Forecast()
    forecast_fully(run, forecast)
    run.step()
    assert forecast.find_prediction(run) is None


def test_a_network_for_which_nothing_can_be_foretold_has_no_forecast_and_no_error(monkeypatch):
    run = Run("question", **SMALL)

    def no_other(problem, seed):
        raise MemoryError("no room for another")

    monkeypatch.setattr(Problem, "replace_seed", no_other)
    forecast = Forecast()
    assert forecast_fully(run, forecast) is None
    forecast.measure_piece(run)
    assert forecast.is_known(run)
