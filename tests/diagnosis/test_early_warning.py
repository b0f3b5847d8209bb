"""Warnings come before the cost breaks and stay away from what is healthy; the overflow clock is right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from handmade import record_of

import cnnlab
from cnnlab.diagnosis.detectors import DETECTORS
from cnnlab.diagnosis.early_warning import find_first_warning, find_present_warning
from cnnlab.diagnosis.summary import before_explosion, state_line, tone

DETECTOR = {detector.name: detector for detector in DETECTORS}


@pytest.mark.parametrize("seed", range(4))
def test_the_question_is_warned_of_at_least_one_update_before_it_breaks(seed):
    run = cnnlab.Run("question", seed=seed, device="cpu")
    run.advance(10, until="nonfinite")
    assert find_first_warning(run.record).step < run.record.first_nonfinite


def test_the_live_line_says_the_warning_first_and_changes_its_tone():
    run = cnnlab.Run("question", device="cpu")
    run.advance(2)
    line = state_line(run.record)
    assert line.startswith("Warning: update 2 was ")
    assert "times as long as the cv" in line
    assert tone(run.record) == "rising"


@pytest.mark.parametrize(
    ("name", "changes"), [("converges", {}), ("question", {"learning_rate": 1e-4}), ("vanishing", {})]
)
def test_a_start_at_zero_is_no_leap(name, changes):
    run = cnnlab.Run(name, init_scale=0.0, device="cpu", **changes)
    run.advance(12)
    assert np.isinf(run.record.update_ratio).any()
    assert find_first_warning(run.record) is None
    assert before_explosion(run.record) == 12


def test_a_leap_from_zero_is_warned_of_once_the_weights_are_large():
    run = cnnlab.Run("question", init_scale=0.0, device="cpu", learning_rate=1e5, channels=4, hidden=(16, 16))
    run.advance(2)
    assert str(find_present_warning(run.record)).startswith("update 2 was ")


def test_a_layer_that_begins_at_zero_is_not_warned_of_and_the_others_still_are():
    ratio, norm = np.full((6, 3), 1e-3), np.ones((6, 3))
    norm[0, 2], ratio[1, 2] = 0, np.inf
    assert find_first_warning(record_of([1.0] * 5, update_ratio=ratio, weight_norm=norm)) is None
    ratio[1, 0] = 25
    warning = find_first_warning(record_of([1.0] * 5, update_ratio=ratio, weight_norm=norm))
    assert str(warning) == "update 1 was 25 times as long as the first weights"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_update_that_has_no_finite_length_is_called_so(value):
    ratio = np.full((4, 3), 1e-3)
    ratio[3, 1] = value
    assert str(find_first_warning(record_of([1.0] * 3, update_ratio=ratio))) == "update 3 of second holds NaN or inf"


def test_a_broken_run_is_no_longer_warned_of():
    run = cnnlab.Run("question", device="cpu")
    run.advance(10, until="nonfinite")
    assert "Warning" not in state_line(run.record)


@pytest.mark.parametrize(
    "cost",
    [
        [5.0, 3.0, 2.0, 1.0, 0.5],
        [1.0, 40.0, 300.0, 20.0, 0.5, 0.3],
        [0.7, 0.7, 0.7, 0.7],
        [0.7, 0.2, 0.9, 0.1, 1.5, 0.05, 0.8],
    ],
    ids=["falling", "catapult", "plateau", "noisy mini-batches"],
)
def test_what_is_healthy_is_not_warned_of(cost):
    record = record_of(cost, update_ratio=1e-3)
    assert find_first_warning(record) is None
    assert "Warning" not in state_line(record)


def test_the_live_warning_is_the_one_that_the_whole_record_gives():
    run = cnnlab.Run("question", device="cpu", learning_rate=1e-3, seed=23)
    run.advance(9, until="nonfinite")
    whole = find_first_warning(run.record)
    assert find_present_warning(run.record.until(whole.step)) == whole
    assert find_present_warning(run.record.until(whole.step - 1)) is None


def test_an_old_warning_is_forgotten():
    ratio = np.full((12, 3), 1e-3)
    ratio[2] = 50
    record = record_of([1.0] * 11, update_ratio=ratio)
    assert find_present_warning(record.until(3)) is not None
    assert find_present_warning(record) is None


def test_a_logit_gap_near_the_end_of_exp_is_warned_of_only_where_a_log_of_it_is_taken():
    safe = record_of([0.1, 0.1], logit_gap=80.0)
    assert find_first_warning(safe) is None
    run = cnnlab.Run("sudden_nan", device="cpu")
    run.advance(132, until="nonfinite")
    assert find_first_warning(run.record).words.endswith("log(0) is near")


def regression(precision: str, multiple: float) -> cnnlab.Run:
    """Linear regression of one number at a multiple of its critical rate, 2: the cost grows geometrically."""
    network = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(1.0)
    network = network.to(getattr(torch, precision))
    data = (torch.ones(8, 1, dtype=torch.float64), torch.zeros(8, 1, dtype=torch.float64))
    return cnnlab.Run(
        network=network, data=data, cost=lambda o, t: 0.5 * (o - t).square().mean(), learning_rate=2 * multiple,
        device="cpu",
    )  # fmt: skip


@pytest.mark.parametrize("multiple", [1.3, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32", "float64"])
def test_the_overflow_clock_is_right_within_one_update(precision, multiple):
    run = regression(precision, multiple)
    run.advance(3 if precision == "float16" else 12)
    told = cnnlab.overflow_clock(run.record)[precision]
    run.advance(1500, until="nonfinite")
    assert abs(told - run.record.first_nonfinite) <= 1


@pytest.mark.parametrize("multiple", [1.5, 4.0])
def test_a_run_in_float64_tells_when_the_other_types_would_have_ended(multiple):
    run = regression("float64", multiple)
    run.advance(12)
    clock = cnnlab.overflow_clock(run.record)
    for precision, told in clock.items():
        other = regression(precision, multiple)
        other.advance(1500, until="nonfinite")
        assert abs(told - other.record.first_nonfinite) <= 1
    assert clock["float16"] < clock["float32"] < clock["float64"]


def test_a_cost_that_falls_overflows_nowhere():
    assert set(cnnlab.overflow_clock(record_of([2.0, 1.0])).values()) == {None}
    assert set(cnnlab.overflow_clock(record_of([])).values()) == {None}


def test_every_detector_has_a_source_and_its_thresholds():
    assert len(DETECTORS) == 9
    assert all(detector.source and detector.rules for detector in DETECTORS)


def test_first_alarms_tell_when_each_detector_fires_looking_as_often_as_it_does():
    run = cnnlab.Run("question", device="cpu")
    run.advance(12)
    alarms = cnnlab.first_alarms(run.record)
    assert list(alarms) == [detector.name for detector in DETECTORS]
    assert alarms == {detector.name: detector.find_first(run.record) for detector in DETECTORS}
    assert alarms["cnnlab"] == find_first_warning(run.record).step < run.record.first_nonfinite
    assert alarms["SageMaker Debugger"] is None  # it looks at every 500th update
    assert cnnlab.first_alarms(run) == alarms


def test_no_alarm_is_raised_by_a_run_without_updates():
    assert set(cnnlab.first_alarms(record_of([])).values()) == {None}


def fired(name: str, record: cnnlab.Record, every_update: bool = True) -> int | None:
    return DETECTOR[name].find_first(record, every_update)


def test_keras_and_theano_fire_at_the_nan_itself_and_at_1e10():
    record = record_of([1.0, 2.0, 1e11, math.nan])
    assert fired("TerminateOnNaN", record) == 4
    assert fired("NanGuardMode", record) == 3


def test_fast_ai_fires_at_3_times_the_least():
    assert fired("fast.ai", record_of([2.0, 1.0, 2.9, 3.1])) == 4


def test_autotrainer_looks_every_third_epoch():
    record = record_of([1.0, 1.0, 1.0, 2000.0, 1.0, 2000.0], dead_relu=0.0)
    assert fired("AutoTrainer", record) == 4
    assert fired("AutoTrainer", record, every_update=False) == 6


def test_autotrainer_s_gradient_ratios_and_dead_units():
    exploding = np.ones((4, 3))
    exploding[3, 0] = 71
    assert fired("AutoTrainer", record_of([1.0] * 3, gradient_norm=exploding, dead_relu=0.0)) == 3
    dead = np.zeros((4, 3))
    dead[2] = 0.7
    assert fired("AutoTrainer", record_of([1.0] * 3, dead_relu=dead)) == 2


def test_deepdiagnosis_wants_updates_within_its_band():
    quiet = {"dead_relu": 0.0, "weight_norm": 1.0}
    assert fired("DeepDiagnosis", record_of([1.0] * 3, update_ratio=1e-3, **quiet)) is None
    assert fired("DeepDiagnosis", record_of([1.0] * 3, update_ratio=0.2, **quiet)) == 1


def test_umlaut_objects_to_rates_above_0_01_and_to_raw_inputs():
    slow = {"learning_rate": 0.01, "device": "cpu", "channels": 2, "hidden": (4, 4), "patch_size": 13}
    for changes, expected in (
        ({"input_scaling": "unit"}, None),
        ({}, 1),
        ({"input_scaling": "unit", "learning_rate": 0.02}, 1),
    ):
        run = cnnlab.Run("question", **slow | changes)
        run.advance(2)
        assert fired("UMLAUT", run.record) == expected


def test_sagemaker_s_default_cadence_misses_what_it_would_see_at_every_update():
    run = cnnlab.Run("question", device="cpu")
    run.advance(10, until="nonfinite")
    assert fired("SageMaker Debugger", run.record, every_update=False) is None
    assert fired("SageMaker Debugger", run.record) < run.record.first_nonfinite


def test_thedeepchecker_fires_at_twice_the_least_of_five():
    quiet = {"update_ratio": 1e-2}
    assert fired("TheDeepChecker", record_of([1.0] * 8, **quiet)) is None
    assert fired("TheDeepChecker", record_of([1.0] * 6 + [2.0], **quiet)) == 7


def test_no_detector_raises_on_nan_or_on_a_run_that_has_not_begun():
    for record in (record_of([]), record_of([math.nan, math.inf])):
        for detector in DETECTORS:
            detector.find_first(record)


X = torch.randn(128, 16, generator=torch.Generator().manual_seed(0))
FAR = 500 + 10 * X[:, :1]
mse = torch.nn.functional.mse_loss


def mlp(outputs: int, spread: float | None = None) -> torch.nn.Sequential:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, outputs))
    if spread is not None:
        torch.nn.init.normal_(model[2].weight, std=spread)
        torch.nn.init.zeros_(model[2].bias)
    return model


class Offset(torch.nn.Module):
    """A linear layer and an offset of its own that starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line, self.offset = torch.nn.Linear(16, 1), torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x) + self.offset


def reward(update: int) -> torch.Tensor:
    """Targets of 0 until a reward appears."""
    return 100 * (X[:, :1] > 0.5).float() if update >= 20 else torch.zeros(128, 1)


UNUSUAL = {
    "head near 0 under Adam": (lambda: mlp(4, 1e-5), torch.optim.Adam, 1e-2,
                               lambda out, _: torch.nn.functional.cross_entropy(out, torch.arange(128) % 4)),
    "targets near 500": (lambda: torch.nn.Linear(16, 1), torch.optim.SGD, 5e-2, lambda out, _: mse(out, FAR)),
    "targets near 500, two layers": (lambda: mlp(1), torch.optim.SGD, 1e-4, lambda out, _: mse(out, FAR)),
    "an offset from 0": (Offset, torch.optim.SGD, 1e-2, lambda out, _: mse(out, FAR)),
    "a reward appears": (lambda: mlp(1), torch.optim.Adam, 1e-3, lambda out, update: mse(out, reward(update))),
    "a reward appears to a head of zeros": (lambda: mlp(1, 0.0), torch.optim.Adam, 1e-3,
                                            lambda out, update: mse(out, reward(update))),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_program_that_learns_is_not_warned_of(name):
    make, optimizer_of, rate, cost = UNUSUAL[name]
    torch.manual_seed(0)
    model = make()
    optimizer = optimizer_of(model.parameters(), rate)
    with cnnlab.watch(model, optimizer) as watch:
        for update in range(60):
            loss = cost(model(X), update)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert np.isfinite(watch.record.cost).all()
    assert find_first_warning(watch.record) is None


def test_a_leap_of_one_layer_is_warned_of_once_the_cost_has_not_fallen():
    ratio = np.full((4, 3), 1e-3)
    ratio[2, 1] = 50
    for cost, warned in (([1.0, 1.0, 3.0], 3), ([1.0, 1.0, 0.5], None)):
        found = find_first_warning(record_of(cost, update_ratio=ratio))
        assert (found and found.step) == warned
    assert str(find_first_warning(record_of([1.0, 1.0, 3.0], update_ratio=ratio))).startswith("update 2 was 50 times")


def test_a_leap_of_two_layers_is_warned_of_at_once():
    ratio = np.full((4, 3), 1e-3)
    ratio[3, :2] = 50
    assert find_first_warning(record_of([1.0, 1.0, 1.0], update_ratio=ratio)).step == 3
