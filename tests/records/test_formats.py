"""Numbers are written in few characters, whatever they are."""

import math

import numpy as np
import pytest

from cnnlab.records.formats import (
    format_digits,
    format_duration,
    format_fixed,
    format_growth,
    format_number,
    shorten_exponent,
)
from cnnlab.records.frame import NOT_MEASURED


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "NaN"), (math.inf, "inf"), (-math.inf, "-inf"), (NOT_MEASURED, "not measured"), (0, "0"),
        (-0.0, "0"), (3, "3"), (4.702012, "4.702"), (0.00012, "1.2e-4"), (4.5e7, "4.5e7"), (7.5e31, "7.5e31"),
        (0.693147, "0.693"), (9999.9, "1e4"), (5e-324, "4.9e-324"), (-1e300, "-1.0e300"), (np.float32(0.5), "0.5"),
    ],
)  # fmt: skip
def test_a_number_in_a_sentence_takes_few_characters(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("new", "old", "text"),
    [(9, 1, "9"), (642, 3, "214"), (2.4e23, 1, "2.4e23"), (996e3, 1, "1e6"), (1e300, 1e-300, "1e600")],
)
def test_a_growth_is_a_factor_however_large(new, old, text):
    assert format_growth(new, old) == f"{text}-fold"


def test_a_growth_that_is_no_factor_is_told_by_its_ends():
    assert format_growth(2.5, 0) == "from 0 to 2.5"
    assert format_growth(math.inf, 3) == "from 3 to inf"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.125, "0.125"), (6.8719e17, "6.87e17"), (1e-5, "1e-5"), (math.nan, "nan"), (-math.inf, "-inf"), (12, "12")],
)
def test_a_number_is_written_in_three_digits(value, text):
    assert format_digits(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.702012, "4.702012"), (45338036.0, "4.53e+07"), (-7330.04, "-7330.04"), (0.0, "0.000000"), (-0.0, "0.000000"),
        (1e-12, "1.00e-12"), (5e-324, "4.94e-324"), (math.inf, "inf"), (-math.inf, "-inf"), (math.nan, "nan"),
        (np.float32(0.5), "0.500000"), (7, "7.000000"),
    ],
)  # fmt: skip
def test_a_number_in_a_column_is_written_as_the_question_writes_it(value, text):
    assert format_fixed(value, 6, 1000) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0544, "0.05440"), (-0.0, "0.00000"), (-7330.04, "-7330.04"), (1.79e16, "1.79e16"), (-2.06e19, "-2.06e19"),
     (math.nan, "nan"), (-math.inf, "-inf"), (0.0, "0.00000"), (1e-7, "1.00e-7")],
)  # fmt: skip
def test_a_watched_weight_takes_at_most_nine_characters(value, text):
    assert shorten_exponent(format_fixed(value, 5, 10)) == text


@pytest.mark.parametrize(
    ("text", "short"), [("1e+100", "1e100"), ("1e-05", "1e-5"), ("2.5e+00", "2.5e0"), ("12", "12")]
)
def test_an_exponent_has_neither_plus_nor_leading_zeros(text, short):
    assert shorten_exponent(text) == short


def test_a_time_is_said_in_the_unit_that_fits():
    assert [format_duration(seconds) for seconds in (4, 700, 12000, 900_000)] == ["4 s", "12 min", "3.3 h", "10 days"]
