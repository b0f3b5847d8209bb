"""Settings: what they accept, what they say when they refuse, and that they come back from JSON as they were."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapes import make_legal

from cnnlab.config.settings import (
    KNOB_FIELDS,
    LIMITS,
    OPTIMIZER_DEFAULTS,
    Choice,
    Knobs,
    Number,
    NumberOrName,
    Recipe,
    Settings,
    presets,
    settings,
    short,
)

NUMBERS = {name: limit for name, limit in LIMITS.items() if isinstance(limit, Number)}
WHOLE = [name for name, limit in NUMBERS.items() if limit.whole]
REAL = [name for name, limit in NUMBERS.items() if not limit.whole]
CHOICES = [name for name, limit in LIMITS.items() if isinstance(limit, Choice)]


def list_field_values(limit):
    """Every value that a limit allows."""
    if isinstance(limit, Choice):
        return st.sampled_from(limit.options)
    if isinstance(limit, Number):
        if limit.whole:
            numbers = st.integers(int(limit.low), int(limit.high))
        else:
            numbers = st.floats(limit.low, limit.high, exclude_min=limit.open_low, exclude_max=limit.open_high)
        return st.none() | numbers if limit.optional else numbers
    if isinstance(limit, NumberOrName):
        return st.sampled_from(limit.options) | list_field_values(limit.number)
    return st.tuples(list_field_values(limit.each), list_field_values(limit.each))


def any_changes():
    """Any valid value for every field, a batch no larger than the patches, a network that can be."""
    fields = st.fixed_dictionaries({name: list_field_values(limit) for name, limit in LIMITS.items()})
    return fields.map(
        lambda chosen: make_legal(
            {
                **chosen,
                **match_optimizer(chosen),
                "loss_scale": chosen["loss_scale"] if chosen["precision"] == "float16" else "off",
                "batch_size": fitting(chosen["batch_size"], chosen["patches"]),
            }
        )
    )


def match_optimizer(chosen):
    """The knobs of any changes as far as an optimiser asks for others."""
    name, adam = chosen["optimizer"], chosen["optimizer"] in ("adam", "adamw")
    decays = name == "adamw" or (name != "sgd" and chosen["penalty_in"] == "update")
    return {
        "momentum": min(chosen["momentum"], 0.999) if adam else chosen["momentum"],
        "penalty_in": "update" if name == "adamw" else chosen["penalty_in"],
        "l2": min(chosen["l2"], 0.999 / chosen["learning_rate"]) if decays else chosen["l2"],
    }


def fitting(batch_size, patches):
    return None if batch_size is None else min(batch_size, patches)


@given(any_changes(), st.sampled_from(presets()))
def test_any_settings_come_back_from_json_equal_and_with_the_same_hash(changes, preset):
    before = settings(preset, **changes)
    after = Settings.from_json(before.to_json())
    assert after == before
    assert hash(after) == hash(before)


@given(any_changes())
def test_the_repr_is_the_call_that_makes_the_settings(changes):
    before = settings("question", **changes)
    assert eval(repr(before), {"settings": settings}) == before


@given(any_changes())
def test_changes_name_only_what_differs_from_the_preset(changes):
    start = settings("question")
    expected = {name: value for name, value in changes.items() if value != getattr(start, name)}
    # An optimiser would bring its own momentum, unless that of plain gradient descent is asked for.
    brought = {
        name for name, value in OPTIMIZER_DEFAULTS[changes["optimizer"]].items() if value != getattr(start, name)
    }
    found = settings("question", **changes).changes
    assert expected.items() <= found.items()
    assert set(found) <= {*expected, *(brought if "optimizer" in expected else ())}


def test_every_field_but_the_preset_has_a_limit_and_every_limit_a_field():
    assert {field.name for field in dataclasses.fields(Settings)} - {"preset"} == set(LIMITS)
    recipe = {field.name for field in dataclasses.fields(Recipe)}
    assert set(KNOB_FIELDS) | recipe | {"epochs"} == set(LIMITS)
    assert not set(KNOB_FIELDS) & recipe


def test_a_number_outside_its_range_is_refused_with_field_range_and_value():
    with pytest.raises(ValueError, match=r"^learning_rate must lie in \(0, 1e6\], got -0\.1$"):
        settings(learning_rate=-0.1)


def test_a_refused_number_is_quoted_unrounded():
    with pytest.raises(ValueError, match=r"^seed must lie in \[0, 4294967295\], got 4294967296$"):
        settings(seed=2**32)


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_numbers_beyond_either_end_are_refused_by_name(name):
    limit = NUMBERS[name]
    step = 1 if limit.whole else abs(limit.high)
    for outside in (limit.low - 1, limit.high + step, 10**400, -(10**400)):
        with pytest.raises(ValueError, match=rf"^{name} must lie in "):
            settings(**{name: outside})


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused_where_a_number_is_asked(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must lie in .*got -?(nan|inf)$"):
        settings(**{name: value})


@pytest.mark.parametrize("name", sorted(NUMBERS))
@pytest.mark.parametrize("value", [True, False, np.True_, "0.1", [1], 1j])
def test_what_is_no_number_is_refused_where_a_number_is_asked(name, value):
    with pytest.raises(TypeError, match=rf"^{name} must be (None \(all\) or )?a (whole )?number in "):
        settings(**{name: value})


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_may_not_be_a_float(name):
    with pytest.raises(TypeError, match=rf"^{name} must be (None \(all\) or )?a whole number in .*got 20\.0$"):
        settings(**{name: 20.0})


def test_a_learning_rate_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"learning_rate must lie in \(0, 1e6\], got 0"):
        Knobs(learning_rate=0)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_numbers_of_other_libraries_are_kept_as_plain_floats(number):
    kept = settings(learning_rate=number).learning_rate
    assert type(kept) is float
    assert kept == 0.5


@pytest.mark.parametrize("number", [np.int64(7), np.uint8(7)])
def test_whole_numbers_of_numpy_are_kept_as_plain_ints(number):
    kept = settings(seed=number).seed
    assert type(kept) is int
    assert kept == 7


@pytest.mark.parametrize("name", CHOICES)
def test_an_unknown_choice_is_refused_with_all_options(name):
    with pytest.raises(ValueError, match=rf"^{name} must be one of '.*got 'nonsense'"):
        settings(**{name: "nonsense"})


@pytest.mark.parametrize("value", [None, 3, ["norm"], b"norm"])
def test_a_choice_must_be_text(value):
    with pytest.raises(ValueError, match=r"^clip must be one of"):
        settings(clip=value)


def test_a_misspelt_choice_brings_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean 'he_normal'\?$"):
        settings(init="he-normal")


def test_an_unknown_name_is_a_type_error_that_suggests_the_nearest():
    with pytest.raises(TypeError, match=r"^there is no setting named 'learning_rat'; did you mean 'learning_rate'\?$"):
        settings(learning_rat=0.1)


@pytest.mark.parametrize(
    ("name", "ours"), [("lr", "learning_rate"), ("weight_decay", "l2"), ("eps", "adam_epsilon"), ("dtype", "precision")]
)
def test_a_name_that_torch_has_brings_the_field_of_that_meaning(name, ours):
    with pytest.raises(TypeError, match=f"^there is no setting named '{name}'; did you mean '{ours}'\\?$"):
        settings(**{name: 1})


def test_an_unknown_name_unlike_any_other_brings_no_suggestion():
    with pytest.raises(TypeError, match=r"^there is no setting named 'zzz'$"):
        settings("question").replace(zzz=1)


def test_an_unknown_preset_brings_the_list_and_the_nearest():
    with pytest.raises(
        ValueError, match=r"^preset must be one of question, .*got 'questoin'; did you mean 'question'\?$"
    ):
        settings("questoin")


@pytest.mark.parametrize("hidden", [(128,), (1, 2, 3), 128, "ab", None])
def test_hidden_must_be_two_numbers(hidden):
    with pytest.raises(TypeError, match=r"^hidden must be two whole numbers in \[1, 4096\]"):
        settings(hidden=hidden)


def test_the_part_of_a_pair_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"^hidden\[1\] must lie in \[1, 4096\], got 0$"):
        settings(hidden=(1, 0))


def test_a_batch_larger_than_the_patches_is_refused():
    with pytest.raises(ValueError, match=r"^batch_size must lie in \[1, 40\], the number of patches, got 41$"):
        settings(patches=40, batch_size=41)


def test_settings_cannot_be_written_to():
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings().learning_rate = 0.1  # type: ignore[misc]


def test_replace_leaves_the_original_as_it_was():
    before = settings()
    after = before.replace(learning_rate=0.5)
    assert (before.learning_rate, after.learning_rate) == (settings().learning_rate, 0.5)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "3", "null", '"question"'])
def test_text_that_is_no_json_object_is_refused(text):
    with pytest.raises((ValueError, TypeError)):
        Settings.from_json(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": math.nan}, "learning_rate must lie in"),
        ({"learning_rate": "1"}, "learning_rate must be a number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"lr": 1}, "there is no setting named 'lr'"),
        ({"preset": "x"}, "preset must be one of"),
        ({"preset": ["question"]}, "preset must be one of"),
        ({"hidden": [1]}, "hidden must be two"),
    ],
)
def test_json_with_wrong_values_says_which(values, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Settings.from_json(json.dumps(values))


@pytest.mark.parametrize("preset", presets())
def test_json_that_names_a_preset_alone_is_that_preset(preset):
    assert Settings.from_json(json.dumps({"preset": preset})) == settings(preset)


@pytest.mark.parametrize("limit", NUMBERS.values(), ids=NUMBERS)
def test_both_ends_of_a_slider_lie_in_range(limit):
    low, high = limit.slider
    assert low < high <= limit.high
    assert low >= limit.low


@given(st.floats(allow_nan=False) | st.integers(-(2**53), 2**53))
def test_a_number_in_few_characters_still_is_that_number(number):
    assert float(short(number)) == number


def test_settings_need_neither_torch_nor_numpy():
    program = "import sys, cnnlab; cnnlab.settings('question'); print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_a_value_of_thousands_of_digits_does_not_fill_the_message():
    for value in (10**100, 10**5000, "x" * 5000, list(range(5000))):
        with pytest.raises((TypeError, ValueError), match=r"^seed must .*\[0, 4294967295\], got .{1,100}$"):
            settings(seed=value)


def test_text_that_is_no_json_is_refused_in_a_sentence():
    for text in ("", "{", "nonsense"):
        with pytest.raises(ValueError, match=r"^settings must be JSON text, got"):
            Settings.from_json(text)


def test_a_batch_may_be_larger_than_the_patches_only_where_these_stand_for_more():
    assert settings(patches=1000, batch_size=2048).batch_size == 2048
    with pytest.raises(ValueError, match=r"batch_size must lie in \[1, 999\], the number of patches, got 2048"):
        settings(patches=999, batch_size=2048)


@pytest.mark.parametrize("depth", [*range(940, 1000, 3), 50_000])
@pytest.mark.parametrize("field", ["seed", "hidden", "clip", "preset", "image"])
def test_text_of_lists_in_lists_is_refused_in_a_sentence(field, depth):
    """Python reads about a thousand levels, and writes a few less."""
    with pytest.raises((ValueError, TypeError), match=rf"^(settings|{field}) must ") as caught:
        Settings.from_json(f'{{"{field}": {"[" * depth}{"]" * depth}}}')
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['{"%s": 1}', '{"preset": "%s"}', '{"clip": "%s"}', '{"image": "%s"}', "%s"])
def test_a_long_text_does_not_fill_the_message(text):
    with pytest.raises((ValueError, TypeError), match="…") as caught:
        Settings.from_json(text % ("x" * 90_000))
    assert len(str(caught.value)) < 250


def test_text_longer_than_any_settings_is_refused_before_it_is_read():
    with pytest.raises(ValueError, match=r"^settings must be JSON text of at most 100000 characters, got 100001$"):
        Settings.from_json("[" * 100_001)
