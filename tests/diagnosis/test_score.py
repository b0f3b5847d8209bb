"""The judge that says whether an autopsy is right on a posted failure."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from posted import CASES
from posted.case import NAN, STUCK, UNDEFINED, Parts, PostedCase
from posted.networks import linear, mse, normal

from cnnlab.diagnosis.autopsy import Autopsy
from cnnlab.diagnosis.causes import Cause


@pytest.fixture(scope="module")
def score():
    path = Path(__file__).parents[1] / "benchmarks" / "autopsy.py"
    spec = importlib.util.spec_from_file_location("score", path)
    module = sys.modules["score"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parts() -> Parts:
    return Parts(linear(2, 1), normal(4, 2), normal(4, 1), mse)


def root(**changes: object) -> PostedCase:
    about = {"allowed": ("undefined operation",), "operation": ("sqrt",), "place": "cost", **changes}
    return PostedCase("x", "", "", parts, UNDEFINED, **about)


def said(name: str, confidence: float, evidence: str, *others: Cause, phase: str = "cost", layer: str = "") -> Autopsy:
    first = Cause(confidence, (evidence,), name=name)
    return Autopsy(name, confidence, (evidence,), 1, phase, layer, "x/0", (), (first, *others), (), 0)


SQRT = Cause(0.4, ("sqrt of 0 is not defined",), name="undefined operation")


@pytest.mark.parametrize(
    ("found", "verdict", "misleads"),
    [
        (said("undefined operation", 0.9, "sqrt of 0"), "right", False),
        (said("undefined operation", 0.4, "sqrt of 0"), "right", False),
        (said("undefined operation", 0.9, "sqrt of 0", phase="gradient", layer="0"), "right", False),
        (said("undefined operation", 0.9, "div of 0"), "partly", False),
        (said("undefined operation", 0.9, "sqrt of 0", phase="activation", layer="0"), "partly", False),
        (said("learning rate above critical", 0.6, "1e-6", SQRT), "partly", True),
        (said("learning rate above critical", 0.6, "1e-6"), "wrong", True),
        (said("learning rate above critical", 0.4, "1e-6"), "silent", False),
        (said("undecided", 0.0, "no cause fits"), "silent", False),
        (said("undecided", 0.0, "sqrt gave it"), "partly", False),
        (said("healthy", 0.9, "all numbers are finite"), "wrong", True),
    ],
)
def test_an_autopsy_of_a_root_at_zero_is_judged(score, found, verdict, misleads):
    assert score.judge(root(), found) == verdict
    assert score.misleads(root(), found) == misleads


def test_healthy_where_nothing_was_learnt_is_silent_and_does_not_mislead(score):
    found = said("healthy", 0.9, "all numbers are finite")
    assert score.judge(root(symptom=STUCK), found) == "silent"
    assert not score.misleads(root(symptom=STUCK), found)


def test_a_word_counts_only_as_a_word(score):
    assert score.holds("a log of 0", ("log",))
    assert not score.holds("the logit gap, _log_softmax, 1e-6 unexpected", ("log", "exp"))
    assert score.holds("the targets hold NaN", ("target",))


def test_a_rate_above_the_critical_one_is_partly_right_where_targets_are_the_reason(score):
    case = root(allowed=("learning rate",), operation=(), place="targets")
    assert score.judge(case, said("learning rate above critical", 1.0, "0.1")) == "partly"
    assert not score.misleads(case, said("learning rate above critical", 1.0, "0.1"))


def test_an_error_within_the_autopsy_is_wrong(score):
    def fail(_case, _parts):
        raise IndexError("Target 7 is out of bounds.")

    answer = score.ask(root(), fail)
    assert (answer.verdict, answer.words) == ("wrong", "raised IndexError: Target 7 is out of bounds.")


@pytest.mark.parametrize("name", ["batch without positives", "kind: log of raw logits"])
def test_today_s_autopsy_of_a_run_is_right_on_some(score, name):
    case = next(case for case in CASES if case.name == name)
    assert case.symptom == NAN
    assert score.WAYS["Run"](case).verdict == "right"
