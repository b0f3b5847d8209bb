"""The posted failures: each shows its symptom in plain PyTorch, so that what is right to say of it can be asked."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest
import torch
from posted import CASES, REPORTS
from posted.case import NAN, RAISES, SMALLEST, STUCK, UNBOUNDED, PostedCase, Seen, watch_plainly
from posted.steps import ADDING_UP

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.filterwarnings("ignore:Using a target size", "ignore:var..:UserWarning", "ignore:std..:UserWarning")
@pytest.mark.filterwarnings("ignore:Casting complex values", "ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_posted_failure_shows_its_symptom_in_plain_pytorch(case):
    seen = watch_plainly(case)
    assert seen.shows(case)
    # Factors of a matrix of NaN are an error of their own.
    assert seen.error is None or case.symptom == RAISES or not seen.finite


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_build_of_a_case_is_the_same_and_shares_nothing(case):
    one, other = case.build(), case.build()
    pairs = list(zip(one.network.parameters(), other.network.parameters(), strict=True))
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in pairs)
    assert all(a is not b for a, b in pairs)


@pytest.mark.parametrize("case", [case for case in CASES if case.right == ADDING_UP], ids=lambda case: case.name)
def test_a_loop_without_zero_grad_learns_with_it(case):
    mended = dataclasses.replace(case, build=lambda: dataclasses.replace(case.build(), zero_grad=True))
    seen = watch_plainly(mended)
    assert seen.finite
    assert seen.costs[-1] < 0.1 * seen.costs[0]


def test_names_are_unique_and_sources_are_addresses():
    assert len({case.name for case in CASES}) == len(CASES)
    reports = [case for case in CASES if case.is_report]
    assert len({case.source for case in reports}) == len(reports)
    assert all(case.source.startswith("https://") for case in REPORTS)
    assert all(case.source.startswith("https://") or case.source == SMALLEST for case in CASES)


def test_there_are_enough_reports_and_no_kind_has_more_than_three():
    kinds = Counter(case.kind for case in REPORTS)
    assert len(REPORTS) >= 40
    assert max(kinds.values()) <= 3
    assert len({case.source for case in REPORTS}) == len(REPORTS)


def test_about_half_of_the_reports_are_kept_apart_and_none_of_the_issue_s():
    halves = Counter(case.half for case in REPORTS)
    assert 0.4 * len(REPORTS) < halves["kept apart"] < 0.6 * len(REPORTS)
    assert all(case.half == "seen" for case in CASES if not case.is_report)


def test_every_case_says_what_is_right_and_rules_out_most_causes():
    assert all(case.right and len(case.wrong) >= 11 for case in CASES)
    assert all(not set(case.allowed) & set(case.wrong) for case in CASES)


@pytest.mark.parametrize(
    ("symptom", "costs", "finite", "shown"),
    [
        (NAN, [1.0, math.nan], True, True),
        (NAN, [1.0, 1.0], False, True),
        (NAN, [1.0, 0.9], True, False),
        (STUCK, [1.0, 0.95], True, True),
        (STUCK, [1.0, 0.5], True, False),
        (STUCK, [1.0, math.nan], True, False),
        (UNBOUNDED, [1.0, -200.0, math.nan], True, True),
        (UNBOUNDED, [1.0, -2.0], True, False),
    ],
)
def test_a_symptom_is_seen_only_where_it_is(symptom, costs, finite, shown):
    case = PostedCase("x", "", "", lambda: None, (), symptom=symptom)
    assert Seen(costs, finite).shows(case) == shown


def test_at_least_thirty_reports_were_found_anew_and_are_in_no_half():
    fresh = [case for case in CASES if case.found]
    assert Counter(case.half for case in fresh)["found anew"] >= 30
    assert {case.half for case in fresh} == {"found anew", "found last"}
    assert max(Counter(case.operation for case in fresh if case.operation).values()) < len(fresh) / 3
