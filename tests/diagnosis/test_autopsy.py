"""The cause of a trouble that was made on purpose is found, with its place, its chain and remedies that were tried."""

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
from cnnlab.diagnosis import causes
from cnnlab.diagnosis.causes import CAUSES
from cnnlab.diagnosis.trials import HIDES, MENDS, USELESS, judge_trial

SMALL = {"channels": 8, "hidden": (32, 32), "patch_size": 14, "device": "cpu"}
GOOD = SMALL | {"init": "he_normal", "init_scale": 1.0, "input_scaling": "standardised", "learning_rate": 2e-3}


def trained(preset: str, updates: int, **changes: object) -> cnnlab.Run:
    run = cnnlab.Run(preset, **{"device": "cpu", **changes})
    run.advance(updates, until="nonfinite")
    return run


SABOTAGED = {
    "learning rate above critical": [("question", 30, GOOD | {"learning_rate": 10.0})],
    "initial weights too large": [
        ("question", 30, GOOD | {"init_scale": 4.0}),
        ("question", 1, {"init_scale": 1e6, "precision": "float16"}),
    ],
    "inputs not scaled": [("question", 20, {"seed": 2, "learning_rate": 3e-3})],
    "cost summed": [("question", 30, {"reduction": "sum", "learning_rate": 2e-4, "seed": 2})],
    "log(0) by saturation": [("sudden_nan", 132, {}), ("sudden_nan", 132, {"seed": 2})],
    "overflow of the precision": [("overflow", 20, {})],
    "penalty factor beyond 1": [
        ("question", 60, GOOD | {"learning_rate": 1e-2, "l2": 400.0}),
        ("question", 60, GOOD | {"learning_rate": 1e-2, "l1": 1000.0}),
    ],
    "momentum": [("question", 120, GOOD | {"learning_rate": 3e-2, "momentum": 1.0})],
    "penalty too strong": [("question", 60, GOOD | {"learning_rate": 1e-2, "l2": 30.0})],
    "dead ReLUs": [("dead", 60, {})],
    "vanishing gradient": [("vanishing", 54, {})],
    "masked, not mended": [("sudden_nan", 132, {"epsilon": 1e-8})],
    "healthy": [("question", 30, GOOD), ("question", 20, {"learning_rate": 1e-4})],
}


@pytest.mark.parametrize(
    ("cause", "preset", "updates", "changes"),
    [(cause, *case) for cause, cases in SABOTAGED.items() for case in cases],
)
def test_the_cause_of_a_sabotaged_run_is_ranked_first(cause, preset, updates, changes):
    found = cnnlab.autopsy(trained(preset, updates, **changes).record, prove=False)
    assert found.cause == cause, found.causes
    assert found.evidence
    assert [each.confidence for each in found.causes] == sorted(
        (each.confidence for each in found.causes), reverse=True
    )


def test_a_cause_that_is_added_as_the_guide_says_is_named_by_an_autopsy(monkeypatch):
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = guide.partition("## Add a cause\n")[2].partition("\n## ")[0]
    function, row, case = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names = vars(causes) | {"GOOD": GOOD}
    exec(function, names)
    [(name, kind)] = eval(f"{{{row}}}", names).items()
    [(preset, updates, changes)] = eval(f"{{{case}}}", names)[name]
    run = trained(preset, updates, **changes)
    assert cnnlab.autopsy(run, prove=False).cause != name
    monkeypatch.setitem(CAUSES, name, kind)
    found = cnnlab.autopsy(run, prove=False)
    assert (found.cause, found.confidence, found.before) == (name, 0.8, 0)
    assert f"Cause: {name} (confidence 0.80). {kind.meaning}" in str(found)


def own_run(x: list[list[float]]) -> cnnlab.Run:
    def cost(outputs, targets):
        return (outputs - targets).square().mean()

    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    return cnnlab.Run(network=network, data=(torch.tensor(x), torch.ones(len(x), 1)), cost=cost, learning_rate=0.1)


def test_a_cost_that_grew_by_more_than_a_float_can_hold_is_told_of():
    found = cnnlab.autopsy(record_of([1e-300, 1e300, np.nan]))
    assert "the cost rose 1e600-fold from update 1 to 2" in found.causes[0].evidence


def test_weights_that_begin_at_zero_grow_from_there_and_by_no_factor():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1, bias=False))
    torch.nn.init.zeros_(network[1].weight)
    x = torch.randn(8, 2)
    data = (x, x.sum(1, keepdim=True))
    run = cnnlab.Run(network=network, data=data, cost=lambda out, y: ((out - y) ** 2).mean(), learning_rate=1e3)
    run.advance(60)
    found = cnnlab.autopsy(run, prove=False)
    assert re.search(r"update 1: the weights of 1 grew from 0 to \d", str(found))
    assert "e308" not in str(found)


def test_data_that_hold_nan_are_found_out():
    run = own_run([[1.0, 2.0], [math.nan, 1.0], [0.0, 1.0]])
    run.advance(2)
    found = cnnlab.autopsy(run, prove=False)
    assert (found.cause, found.step, found.phase, found.operation) == ("data hold NaN", 1, "input", "given")
    assert found.evidence == ("the data hold NaN or inf in 1 of the examples",)


def test_a_record_without_its_network_is_read_by_its_gauges_and_says_that_it_does_not_know_the_operation():
    run = own_run([[1.0, 2.0], [math.nan, 1.0]])
    run.advance(2)
    found = cnnlab.autopsy(run.record)
    assert (found.step, found.phase, found.layer, found.operation) == (1, "activation", "0", "unknown")
    assert found.cause == "undecided"
    assert found.chain[0] == (
        "update 1: the activation of 0 holds the first NaN; the operation that made it is unknown, "
        "for the update was not replayed"
    )
    assert "First NaN or inf: update 1, activation of 0 (unknown operation)." in str(found)


@pytest.mark.parametrize(
    "gauge", ["cost", "activation_nan", "activation_inf", "gradient_nan", "gradient_inf", "weight_nan", "weight_inf"]
)
def test_nothing_that_holds_a_nan_or_an_inf_is_called_healthy(gauge):
    costs = [1.0, 0.5, math.nan if gauge == "cost" else 0.4]
    counts = np.zeros((4, 3))
    counts[3, 1] = 1
    record = record_of(costs, dead_relu=0, **({} if gauge == "cost" else {gauge: counts}))
    found = cnnlab.autopsy(record)
    assert found.step == 3
    assert "healthy" not in str(found)
    assert "healthy" not in cnnlab.state_line(record)


def test_a_network_of_one_s_own_is_autopsied_when_it_is_given_again():
    run = own_run([[1.0, 2.0], [30.0, 1.0]])
    run.set(learning_rate=50.0)
    run.advance(60, until="nonfinite")
    again = own_run([[1.0, 2.0], [30.0, 1.0]])
    found = cnnlab.autopsy(
        run.record, network=again.network, data=again.problem.data, cost=lambda o, t: (o - t).square().mean()
    )
    assert found.cause == "learning rate above critical"
    assert (found.phase, found.operation) in {("cost", "overflow"), ("gradient", "overflow"), ("logit", "overflow")}
    assert {trial.verdict for trial in found.remedies} >= {MENDS}


@pytest.fixture(scope="module")
def question() -> cnnlab.Run:
    return trained("question", 20)


@pytest.fixture(scope="module")
def found(question):
    return cnnlab.autopsy(question.record)


def test_the_question_s_autopsy_names_place_chain_and_rules(found):
    assert (found.step, found.phase, found.operation) == (4, "activation", "overflow")
    assert re.match(
        r"update 4: the activation of cv\d holds the first inf, made by convolution \(overflow\): ", found.chain[0]
    )
    assert "float32 ends at 3.4e38" in found.chain[0]
    assert any(said.startswith("update 3: the weights of") and "gradient norm" in said for said in found.chain)
    assert "times the critical one" in found.chain[-1]
    assert [rule[:8] for rule in found.rules] == ["rule (a)", "rule (c)"]


def test_the_input_s_scale_is_named_beside_the_learning_rate(found):
    assert [cause.name for cause in found.causes[:2]] == ["learning rate above critical", "inputs not scaled"]


def test_the_five_remedies_of_the_posted_answer_are_tried(found):
    verdicts = {trial.remedy.name: trial.verdict for trial in found.remedies if trial.remedy.posted}
    assert verdicts == {
        "a lower learning rate": MENDS,
        "another initialisation": USELESS,
        "an L2 penalty": USELESS,
        "a safe softmax": HIDES,
        "gradient clipping": MENDS,
    }


def test_the_dashboard_of_remedies_and_the_autopsy_have_the_same_five():
    run = trained("question", 4, **SMALL, learning_rate=0.5)
    tried = [trial.remedy for trial in cnnlab.autopsy(run).remedies if trial.remedy.posted]
    board = cnnlab.Remedies("question", **SMALL, learning_rate=0.5)
    shown = {name.lower(): changes for name, changes in board.remedies.items()}
    board.close()
    assert len(tried) == 5
    assert all(shown[remedy.name.lower()] == remedy.changes for remedy in tried)
    assert shown["a lower learning rate"] == {"learning_rate": 0.005}


def test_an_epsilon_only_hides_and_the_reason_is_a_gradient_of_zero(found):
    trial = next(trial for trial in found.remedies if "epsilon" in trial.remedy.changes)
    assert trial.verdict == HIDES
    assert "capped at 18.42" in trial.reason
    assert "gradient of a wrong example is exactly 0" in trial.reason


def test_a_remedy_s_curve_is_what_a_run_with_its_changes_gives(question, found):
    trial = next(trial for trial in found.remedies if trial.remedy.changes == {"learning_rate": 1e-4})
    twin = question.fork(trial.start, learning_rate=1e-4)
    twin.advance(len(trial.cost))
    assert trial.cost == tuple(twin.record.cost[trial.start :])


def test_the_last_cost_that_a_reason_names_is_said_to_be_the_median_that_the_verdict_looks_at(found):
    told = [trial for trial in found.remedies if trial.verdict == MENDS]
    assert len(told) > 2
    for trial in told:
        words = re.search(r"the cost fell from (\S+) to (\S+) \(median of the last 5\) in (\d+) updates", trial.reason)
        assert float(words[1]) == pytest.approx(trial.cost[0], rel=1e-3)
        assert float(words[2]) == pytest.approx(np.median(trial.cost[-5:]), rel=5e-3)  # three digits
        assert int(words[3]) == len(trial.cost)


def test_a_cost_that_went_up_is_told_by_the_same_median():
    run = trained("sudden_nan", 20, cost="log_softmax")
    record = run.record
    verdict, reason = judge_trial(run, 0)
    assert verdict == HIDES
    usual = float(np.median(record.cost[-5:]))
    assert f"went from {record.cost[0]:.4g} to {usual:.4g} (median of the last 5): it is " in reason
    assert usual != record.cost[-1]


def test_an_autopsy_is_frozen_prints_whole_and_has_a_short_repr(found):
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.cause = "another"
    text = str(found)
    for title in (
        "Cause:",
        "First NaN or inf: update 4, activation of cv",
        "How it came about:",
        "Evidence:",
        "Remedies",
    ):
        assert title in text
    assert max(map(len, text.splitlines())) <= 120 or text.splitlines()[0].startswith("Cause")
    assert "\n" not in repr(found)


def test_an_autopsy_changes_neither_run_nor_record(question):
    before = question.record.table.copy(), question.updates, question.knobs_in_force
    cnnlab.autopsy(question)
    assert (question.record.table == before[0]).sum() == (before[0] == before[0]).sum()
    assert (question.updates, question.knobs_in_force) == before[1:]


def test_a_healthy_run_is_called_so_and_no_remedy_is_tried():
    found = cnnlab.autopsy(trained("question", 10, **GOOD).record)
    assert (found.cause, found.step, found.remedies, found.chain) == ("healthy", None, (), ())
    assert "First NaN" not in str(found)


def test_a_run_that_has_not_begun_is_no_case():
    assert cnnlab.autopsy(cnnlab.Run("question", **SMALL)).cause == "healthy"


def test_a_loaded_record_gives_the_same_place(question, found, tmp_path):
    question.record.save(tmp_path / "run.cnnlab")
    again = cnnlab.autopsy(cnnlab.load(tmp_path / "run.cnnlab"), prove=False)
    assert (again.step, again.phase, again.layer, again.operation) == (
        found.step, found.phase, found.layer, found.operation,
    )  # fmt: skip
