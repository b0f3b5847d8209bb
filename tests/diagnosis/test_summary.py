"""The state line says in words what the numbers say, and nothing that they do not."""

import dataclasses

import numpy as np
import pytest
from handmade import record_of

import cnnlab
from cnnlab.diagnosis.summary import compare_records, describe_largest_weight, start_line, state_line, tone
from cnnlab.records.record import Record


def test_a_run_that_has_not_begun_says_so() -> None:
    record = record_of([])
    assert "nothing is trained yet" in state_line(record)
    assert tone(record) == "calm"


def test_a_falling_cost_is_calm_and_told_from_first_to_last() -> None:
    record = record_of([2.0, 1.0, 0.5])
    assert state_line(record).startswith("cost fell from 2 to 0.5 in 2 updates")
    assert tone(record) == "calm"


def test_a_rising_cost_is_told_as_a_factor_from_its_least() -> None:
    record = record_of([4.0, 2.0, 60.0, 2e4])
    assert "cost rose 1e4-fold in 2 updates, to 2.0e4; " in state_line(record)
    assert tone(record) == "rising"


def test_a_nan_is_told_with_its_update_and_the_climb_before_it() -> None:
    record = record_of([4.0, 4e7, 4e31, np.nan, np.nan])
    assert state_line(record).startswith("cost is NaN since update 4, after it rose 1e31-fold in 2 updates; ")
    assert tone(record) == "broken"


def test_a_sudden_inf_is_not_told_as_a_climb() -> None:
    line = state_line(record_of([0.7, 0.69, np.inf]))
    assert line.startswith("cost is inf since update 3, after a cost of 0.69 without a rise; ")
    assert "rose" not in line


def test_a_cost_that_is_nan_from_the_start_is_told_so() -> None:
    assert state_line(record_of([np.nan])).startswith("cost is NaN since update 1, with no finite cost before; ")


def test_a_cost_that_recovers_is_told_with_its_present_value() -> None:
    assert state_line(record_of([0.7, np.inf, 1.0])).startswith("cost was inf at update 2 and is 1 now, ")


def test_an_inf_that_turns_to_nan_is_not_told_as_a_lasting_inf() -> None:
    assert state_line(record_of([0.7, np.inf, np.nan])).startswith("cost was inf at update 2 and is NaN now, ")
    assert state_line(record_of([0.7, np.nan, np.nan])).startswith("cost is NaN since update 2, ")


def test_layers_that_hold_nan_are_named() -> None:
    nan = np.zeros((3, 3))
    nan[-1, 1] = 5
    line = state_line(record_of([1.0, np.nan], weight_nan=nan))
    assert line.endswith("; weights of second hold NaN")
    assert "first" not in line


@pytest.mark.parametrize(("nan", "inf", "words"), [
    ([1, 1, 1], [0, 1, 0], "every layer holds NaN"), ([0, 0, 0], [1, 2, 3], "every layer holds inf"),
    ([1, 0, 0], [0, 1, 1], "every layer holds NaN or inf"), ([0, 0, 0], [0, 0, 9], "weights of last hold inf"),
    ([1, 0, 0], [0, 0, 9], "weights of first, last hold NaN or inf"),
])  # fmt: skip
def test_nan_and_inf_in_the_weights_are_told_apart(nan: list[int], inf: list[int], words: str) -> None:
    counts = {"weight_nan": np.array([[0, 0, 0], nan]), "weight_inf": np.array([[0, 0, 0], inf])}
    assert state_line(record_of([np.nan], **counts)).endswith(f"; {words}")


def test_a_look_back_at_the_start_does_not_say_that_nothing_is_trained() -> None:
    assert start_line(record_of([])) == f"the start, before update 1: {describe_largest_weight(record_of([]))}"


def test_the_layer_with_the_largest_weight_is_named() -> None:
    largest = np.array([[1.0, 2.0, 1.0], [1.0, 1e16, 3.0]])
    assert "second weights reach 1.0e16" in state_line(record_of([1.0], largest_weight=largest))


def test_a_growth_beyond_float64_is_put_in_words() -> None:
    assert "rose 1e600-fold in 1 update" in state_line(record_of([1e-300, 1e300]))


def test_a_cost_of_zero_does_not_divide() -> None:
    assert "from 0" in state_line(record_of([0.0, 5.0]))


def made_with(updates: int, **changes: object) -> Record:
    """A record of so many updates that starts from changed settings."""
    record = record_of([1.0] * updates)
    return dataclasses.replace(
        record,
        settings=cnnlab.settings("question", **changes),
        schedule=((1, cnnlab.settings("question", **changes).knobs),),
    )


def test_of_two_records_each_setting_that_differs_is_named_with_both_values() -> None:
    one, other = made_with(2), made_with(3, seed=3, learning_rate=1e-3, batch_size=6, hidden=(8, 4))
    said = compare_records(one, other)
    assert set(said.split(", ", 1)[0:1]) == {"lr 0.001 (here 0.01)"}
    for part in ("seed 3 (here 0)", "batch_size 6 (here all)", "hidden (8, 4) (here (128, 128))"):
        assert part in said
    assert "lr 0.01 (here 0.001)" in compare_records(other, one)


def test_how_long_play_goes_on_and_where_it_computes_is_no_difference() -> None:
    assert compare_records(made_with(2), made_with(3, epochs=50, device="cpu")) == "the same settings, 3 updates"


def test_of_two_records_that_start_alike_the_first_change_of_knobs_is_named() -> None:
    one = made_with(6)
    later = dataclasses.replace(one.schedule[0][1], learning_rate=1e-4)
    other = dataclasses.replace(one, schedule=(*one.schedule, (4, later)))
    assert compare_records(one, other) == "lr 0.0001 (here 0.01) from update 4"
    assert compare_records(one.until(3), other) == "the same settings, 6 updates"


def test_another_network_is_named_first() -> None:
    one, other = (dataclasses.replace(made_with(1), network=name) for name in ("Linear, 7 rows", "Sequential, 9 rows"))
    assert compare_records(one, other) == "Sequential, 9 rows (here Linear, 7 rows)"
    assert compare_records(made_with(1), other).startswith("Sequential, 9 rows (here the network of the question)")
    assert compare_records(one, made_with(1)).startswith("the network of the question (here Linear, 7 rows)")
