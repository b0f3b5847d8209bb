import math

import numpy as np
import pytest

from cnnlab.config.errors import check_whole_number


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_a_whole_number_is_given_back_as_an_int(value) -> None:
    assert type(check_whole_number("steps", value, 1, 3)) is int


@pytest.mark.parametrize("value", [True, np.True_, 2.0, 0, 4, math.nan, "2", None, [2]])
def test_what_is_no_whole_number_in_the_range_is_refused_in_a_sentence(value) -> None:
    with pytest.raises(ValueError, match=r"^steps must be a whole number in \[1, 3\], got "):
        check_whole_number("steps", value, 1, 3)


def test_a_range_without_an_end_is_said_as_at_least() -> None:
    with pytest.raises(IndexError, match=r"^updates must be a whole number of at least 1, got 0$"):
        check_whole_number("updates", 0, 1, kind=IndexError)
