"""Warnings come before the cost breaks and stay away from what is healthy; the overflow clock is right."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import record_of

import cnnlab
from cnnlab.diagnosis.detectors import DETECTORS
from cnnlab.diagnosis.early_warning import NO_GAP, estimate_reach, find_first_warning, find_present_warning
from cnnlab.diagnosis.summary import before_explosion, state_line, tone

ROOT = Path(__file__).parents[2]
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


ADAM = {"optimizer": "adam"}


def test_a_long_step_of_adam_is_no_leap_but_one_that_holds_nan_is():
    ratio = np.full((4, 3), 1e-3)
    ratio[2, :2] = 50
    assert find_first_warning(record_of([1.0] * 3, update_ratio=ratio)).step == 2
    assert find_first_warning(record_of([1.0] * 3, update_ratio=ratio, settings=ADAM)) is None
    ratio[3, 1] = np.nan
    found = find_first_warning(record_of([1.0] * 3, update_ratio=ratio, settings=ADAM))
    assert str(found) == "update 3 of second holds NaN or inf"


def test_with_adam_a_cost_that_climbs_is_no_warning_by_itself():
    cost = [1, 1e6, 1e20]
    assert find_first_warning(record_of(cost)).step == 2
    assert find_first_warning(record_of(cost, settings=ADAM)) is None


def test_what_a_long_step_means_goes_by_the_optimiser_in_force_at_it():
    ratio = np.full((6, 3), 1e-3)
    ratio[4, :2] = 50
    record = record_of([1.0] * 5, update_ratio=ratio)
    (_, sgd), adam = record.schedule[0], cnnlab.settings("question", **ADAM).knobs
    for schedule, warned in ((((1, sgd), (4, adam)), None), (((1, adam), (4, sgd)), 4), (((1, sgd), (5, adam)), 4)):
        found = find_first_warning(dataclasses.replace(record, schedule=schedule))
        assert (found and found.step) == warned


def test_the_factor_of_a_shortcut_may_leave_zero_and_is_warned_of_later_as_any_layer():
    ratio, norm = np.full((4, 3), 1e-3), np.full((4, 3), 2.0)
    norm[0, 2], ratio[1, 2] = 0, np.inf
    asked = {"update_ratio": ratio, "weight_norm": norm, "largest_weight": 2.0, "weights": 1}
    assert find_first_warning(record_of([1.0, 2.0, 3.0], **asked)) is None
    ratio[2, 2] = 25
    assert find_first_warning(record_of([1.0, 2.0, 3.0], **asked)).step == 3


LOG = {"cost": "softmax_log"}


def test_a_step_that_may_take_the_logits_too_far_is_warned_of_only_where_the_log_of_a_softmax_is_taken():
    asked = {"logit_gap": 5.0, "gradient_norm": 30.0, "weights": 1000}  # in three layers 12 times the step down to 0
    assert str(find_first_warning(record_of([0.5], settings=LOG, **asked))) == (
        "update 1 may take the logits 104 apart: log(0) is near"
    )
    assert find_first_warning(record_of([0.5], **asked)) is None
    assert find_first_warning(record_of([0.5], settings={**LOG, "epsilon": 1e-8}, **asked)) is None
    assert find_first_warning(record_of([0.5], settings={**LOG, "reduction": "sum"}, **asked)) is None  # of 66
    assert find_first_warning(record_of([0.5], settings=LOG, **asked | {"gradient_norm": 5.0})) is None


def test_a_step_that_takes_no_layer_s_outputs_below_0_to_where_they_were_makes_them_no_larger():
    asked = {"logit_gap": 8.0, "weights": 1000}
    for gradient, reach in ((1.0, 8), (8.0, 8), (12.0, 64)):
        record = record_of([0.5], settings=LOG, gradient_norm=gradient, **asked)
        assert 10 ** estimate_reach(record, slice(0, 1)) == pytest.approx(reach)


@pytest.mark.parametrize("multiple", [0.4, 1.3, 2.0, 4.0])
def test_the_next_outputs_of_a_linear_regression_are_estimated_exactly(multiple):
    run = regression("float32", multiple)
    run.advance(6)
    here, later = np.sqrt(run.record.cost[:-1]), np.sqrt(run.record.cost[1:])
    told = 10 ** estimate_reach(run.record, slice(0, 5))
    np.testing.assert_allclose(told, np.maximum(here, later), rtol=1e-4)


def test_a_network_that_answers_the_same_for_all_is_not_warned_of_for_its_gap_of_0():
    asked = {"settings": LOG, "logit_gap": 0.0, "gradient_norm": 1e-8, "weights": 1000}
    assert find_first_warning(record_of([0.69] * 3, update_ratio=5e-3, **asked)) is None


@pytest.mark.parametrize(("length", "warned"), [(5.0, None), (10.0, 1)])
def test_behind_a_norm_logits_are_no_further_apart_than_the_weights_from_it_on_can_take_them(length, warned):
    asked = {"layers": ("cv0", "cv0_norm", "softmax"), "logit_gap": 5.0, "gradient_norm": 300.0, "weights": 1000}
    normed = {**LOG, "normalization": "batch"}
    found = find_first_warning(record_of([0.5] * 2, settings=normed, weight_norm=length, **asked))
    assert (found and found.step) == warned
    plain = asked | {"layers": ("cv0", "cv1", "softmax")}
    assert find_first_warning(record_of([0.5] * 2, settings=LOG, weight_norm=length, **plain)).step == 1


@pytest.mark.parametrize("precision", NO_GAP)
def test_from_its_gap_on_a_probability_is_0_in_each_type(precision):
    gaps = NO_GAP[precision] * torch.tensor([0.98, 1.02])
    small = torch.softmax(torch.stack([torch.zeros(2), -gaps], dim=1).to(getattr(torch, precision)), dim=1)[:, 1]
    assert (small > 0).tolist() == [True, False]


@pytest.mark.parametrize("precision", NO_GAP)
def test_logits_three_quarters_as_far_apart_as_log_0_needs_are_warned_of_in_each_type(precision):
    for share, epsilon, warned in ((0.74, 0.0, None), (0.76, 0.0, 1), (0.76, 1e-6, None)):
        record = record_of(
            [0.5], settings={**LOG, "epsilon": epsilon}, precision=precision, updates_per_epoch=6,
            logit_gap=share * NO_GAP[precision], gradient_norm=1e-3,
        )  # fmt: skip
        found = find_first_warning(record)
        assert (found and found.step) == warned
        assert found is None or str(found).startswith("the logit gap is ")


def test_an_epsilon_that_is_0_in_its_type_hides_no_log_of_0():
    asked = {"logit_gap": 15.0, "gradient_norm": 1e-3, "precision": "float16", "settings": {**LOG, "epsilon": 1e-8}}
    assert find_first_warning(record_of([0.5], **asked)).step == 1
    assert find_first_warning(record_of([0.5], **asked | {"precision": "float32", "logit_gap": 90.0})) is None


@pytest.mark.parametrize(("updates_per_epoch", "cost", "warned"), [(1, 1e-3, None), (1, 2.0, 1), (6, 1e-3, 1)])
def test_a_gap_of_right_answers_is_no_alarm_where_each_batch_holds_all_patches(updates_per_epoch, cost, warned):
    asked = {"logit_gap": 90.0, "gradient_norm": 1e-3, "data_cost": cost, "updates_per_epoch": updates_per_epoch}
    found = find_first_warning(record_of([cost], settings=LOG, **asked))
    assert (found and found.step) == warned


@pytest.mark.parametrize(("gradient", "warned"), [(200.0, None), (1000.0, 1)])
def test_outputs_that_a_step_may_take_to_the_end_of_the_type_are_warned_of(gradient, warned):
    asked = {"precision": "float16", "logit_gap": 1e3, "update_ratio": 5.0, "weights": 1000}
    found = find_first_warning(record_of([0.5], gradient_norm=gradient, **asked))
    assert (found and str(found)) == (warned and "the outputs of the next update may overflow float16")


def test_before_the_first_update_nothing_is_warned_of():
    run = cnnlab.Run("question", cost="softmax_log", channels=2, hidden=(4, 4), patch_size=13, patches=4, device="cpu")
    assert find_present_warning(run.record) is None


def read_larger(title: str, name: str) -> list[float]:
    """The numbers of a row in a table of the benchmark over the larger space."""
    table = (ROOT / "tests/benchmarks/results/warning_larger.md").read_text(encoding="utf-8").split(f"## {title}")[1]
    row = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
    return [float(cell.strip(" %").replace("-", "nan")) for cell in row.split("|")[2:-1]]


OPTIMIZERS = ("sgd", "nesterov", "rmsprop", "adam", "adamw")


@pytest.mark.parametrize("name", ["all", *OPTIMIZERS])
def test_with_each_optimiser_95_of_100_failing_runs_are_warned_of_in_time_and_at_most_2_of_healthy_ones(name):
    _, _, failing, warned, share, _, healthy, false, *_ = read_larger("Scored", name)
    assert failing >= 50
    assert share == round(100 * warned / failing, 1) >= 95
    assert false / healthy <= 0.02


def test_the_readme_tells_the_scores_of_the_benchmark_over_the_larger_space_and_the_worst_optimiser_s():
    row = (
        r"the same with every optimiser.*\| ([\d.]+) %, ([\d.]+) % \(of ([\d,]+) failing runs and ([\d,]+) healthy ones"
        r".*of ([\d,]+) failing runs or more, at least ([\d.]+) % and at most ([\d.]+) %\)"
    )
    found = re.search(row, (ROOT / "README.md").read_text(encoding="utf-8")).groups()
    scored, each = read_larger("Scored", "all"), [read_larger("Scored", name) for name in OPTIMIZERS]
    worst = [min(cells[2] for cells in each), min(cells[4] for cells in each), max(cells[8] for cells in each)]
    assert [float(number.replace(",", "")) for number in found] == [scored[place] for place in (4, 8, 2, 6)] + worst
