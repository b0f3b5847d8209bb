"""The lab on the autopsy shows what its sentences say."""

import re

import pytest
from notebooks import execute, find_lab, find_numbers

LAB = find_lab("05")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def test_the_first_nan_is_made_in_an_early_convolution_by_an_overflow():
    assert re.fullmatch(r"update 4, activation of cv[0-3]: overflow\n", execute(LAB)["place-run"])
    assert "times the critical one" in execute(LAB)["chain"]


def test_the_rate_is_about_a_hundred_times_too_high_for_raw_pixels_and_below_for_standardised_ones():
    raw, scaled = map(float, re.findall(r"0\.01 is (\S+) times that", execute(LAB)["critical-run"]))
    assert 80 < raw < 125
    assert scaled < 1


def test_two_of_the_five_posted_remedies_mend():
    assert find_numbers(LAB, r"Measured: (\d) of 5", "remedy-compare") == (2,)
    verdicts = execute(LAB)["remedy-run"]
    assert verdicts.count("does not help:") == 2
    assert verdicts.count("only hides: a safe softmax") == 1


def test_the_warning_leads_the_nan():
    assert find_numbers(LAB, r"Measured: (\d) updates before", "warning-compare")[0] >= 1
    assert "SageMaker Debugger: never" in execute(LAB)["warning-run"]
