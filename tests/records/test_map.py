"""Maps: labels by a stated rule, the same as those of a run of the cell; files cut short; axes between two places."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnnlab
from cnnlab.config.settings import settings
from cnnlab.records import map as maps
from cnnlab.records.map import Map


def by_hand():
    """A map of two rates and three seeds that was filled in by hand, but for one run."""
    made = Map.empty(settings(), (("learning_rate", (0.01, 0.1)),), (4, 5, 6), 3)
    made.put(0, [5.0, 4.0, 3.0], 5.0, 3.0, 0.75)
    made.put(1, [5.0, 4.0, 0.7], 5.0, 0.7, 0.5)
    made.put(2, [5.0, 5.0, 4.9], 5.0, 4.9, 0.5)
    made.put(3, [5.0, np.nan], 5.0, np.nan, 0.0)
    made.put(4, [np.inf], np.nan, np.nan, 0.25)
    return made


def test_labels_follow_the_rule():
    assert by_hand().labels.tolist() == [["converged", "stalled", "stalled"], ["diverged", "diverged", ""]]


def test_the_first_nonfinite_cost_is_an_update_or_0():
    assert by_hand().first_nonfinite.tolist() == [[0, 0, 0], [2, 1, 0]]
    assert by_hand().diverged.tolist() == [[False] * 3, [True, True, False]]


def test_the_final_cost_is_the_last_one_measured_nonfinite_or_not():
    final = by_hand().final_cost
    assert final[0].tolist() == [3.0, 0.7, 4.9]
    assert np.isnan(final[1, 0])
    assert final[1, 1] == np.inf


def test_shares_are_of_the_seeds_that_are_computed():
    assert by_hand().share("diverged").tolist() == [0.0, 1.0]
    assert by_hand().share("converged").tolist() == pytest.approx([1 / 3, 0.0])
    empty = Map.empty(settings(), (("learning_rate", (0.01, 0.1)),), (0,), 3)
    assert np.isnan(empty.share("diverged")).all()


def test_a_run_is_told_in_a_sentence():
    assert by_hand().at(0, 0) == "learning_rate 0.01, seed 4: converged, cost 3, held-out accuracy 0.75"
    assert by_hand().at(1, 1) == "learning_rate 0.1, seed 5: diverged at update 1"
    assert by_hand().at(1, 2) == "learning_rate 0.1, seed 6: not computed yet"


def test_settings_of_a_cell_have_its_values_and_its_seed():
    assert by_hand().settings_at(1, 2) == settings(learning_rate=0.1, seed=6)
    assert by_hand().settings_at(1) == settings(learning_rate=0.1, seed=4)


@pytest.mark.parametrize("where", [(2, 0), (0, 3), (-1, 0), (0, 0, 0), ()])
def test_a_place_that_is_not_there_is_an_index_error(where):
    with pytest.raises(IndexError, match="place"):
        by_hand().settings_at(*where)


def test_the_representation_counts_what_became_of_the_runs():
    assert repr(by_hand()) == (
        "Map(settings('question'), 2 learning_rate x 3 seeds, 3 updates: "
        "1 converged, 2 stalled, 2 diverged, 1 not computed)"
    )


def test_a_map_that_is_saved_and_loaded_is_the_same_map(tmp_path):
    by_hand().save(tmp_path / "map")
    found = Map.load(tmp_path / "map")
    for name in ("done", "cost", "began", "ended", "held_out_accuracy"):
        assert np.array_equal(getattr(found, name), getattr(by_hand(), name), equal_nan=name != "done")
    assert found.heading() == by_hand().heading()


def test_a_file_is_lines_of_strict_json(tmp_path):
    by_hand().save(tmp_path / "map")

    def refuse(name):
        raise AssertionError(name)

    lines = [json.loads(line, parse_constant=refuse) for line in (tmp_path / "map").read_text().splitlines()]
    assert len(lines) == 6
    assert lines[4]["cost"] == [5.0, "nan"]


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_last_line_that_was_cut_short_is_left_out(tmp_path, cut):
    by_hand().save(tmp_path / "map")
    content = (tmp_path / "map").read_bytes()
    (tmp_path / "map").write_bytes(content[:-cut])
    assert Map.load(tmp_path / "map").done.sum() == 4


@pytest.mark.parametrize("content", ["", "{}\n", "hello\n", "[1]\n", '{"cnnlab map": 1}\n', '{"cnnlab map": 2}\n'])
def test_a_file_of_something_else_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "map").write_text(content)
    with pytest.raises(ValueError, match="holds no map that can be read"):
        Map.load(tmp_path / "map")


def test_a_frozen_map_stays_as_it_is():
    growing = by_hand()
    frozen = growing.freeze()
    growing.put(5, [1.0, 1.0, 0.1], 1.0, 0.1, 0.9)
    assert not frozen.done.all()
    with pytest.raises(ValueError, match="read-only"):
        frozen.cost[0] = 0


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [((1e-4, 1e-3, 1e-2), True), ((1, 2, 3), False), ((0, 1, 10), False), ((1, 10), True), ((1, 2), False)],
)
def test_an_axis_spaced_by_factors_is_logarithmic(values, logarithmic):
    assert maps.is_logarithmic(values) is logarithmic


def test_a_refined_axis_has_as_many_values_between_its_ends():
    name, values = maps.refine_axis(("learning_rate", (1e-4, 1e-3, 1e-2, 1e-1)), 1, 2)
    assert name == "learning_rate"
    assert values == pytest.approx(np.geomspace(1e-3, 1e-2, 4))


def test_a_refined_axis_of_whole_numbers_keeps_them_whole():
    assert maps.refine_axis(("channels", (2.0, 4.0, 6.0, 8.0, 10.0)), 1, 2) == ("channels", (4.0, 5.0, 6.0))


def test_a_choice_s_axis_stays_whole_for_there_is_nothing_between():
    axis = ("activation", ("relu", "gelu", "tanh"))
    assert maps.refine_axis(axis, 0.6, 1.4) == axis
    with pytest.raises(ValueError, match="the places on activation must be two numbers"):
        maps.refine_axis(axis, 0, "gelu")


def test_a_map_of_choices_is_the_same_from_its_file_and_names_them(tmp_path):
    axes = (("optimizer", ("sgd", "adam")), ("batch_size", (4.0, 8.0)))
    made = Map.empty(cnnlab.settings("question", learning_rate=0.1), axes, (0, 1), 2)
    made.put(6, [3.0, 1.0], 3.0, 1.0, 0.5)
    made.save(tmp_path / "map")
    read = Map.load(tmp_path / "map")
    assert read.axes == axes
    assert read.at(1, 1, 0) == "optimizer adam, batch_size 8, seed 0: converged, cost 1, held-out accuracy 0.50"
    assert "2 optimizer x 2 batch_size x 2 seeds" in repr(read)
    opened = read.settings_at(1, 0, 1)
    assert (opened.optimizer, opened.momentum, opened.batch_size, opened.seed) == ("adam", 0.9, 4, 1)
    assert read.settings_at(0, 0).momentum == 0


def test_an_axis_that_cannot_be_refined_says_so():
    with pytest.raises(ValueError, match="channels has no two values between 2 and 2"):
        maps.refine_axis(("channels", (2.0, 3.0)), 0, 0.2)


def test_wilson_s_interval_is_that_of_the_literature():
    # Newcombe (1998), table I: 81 of 263 and 15 of 148.
    assert maps.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert maps.wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert maps.wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_wilson_s_interval_holds_the_share_within_0_and_1(case):
    hits, count = case
    low, high = maps.wilson(hits, count)
    assert 0 <= low <= hits / count + 1e-12
    assert hits / count - 1e-12 <= high <= 1


def test_neighbours_on_an_axis_have_names_that_tell_them_apart():
    assert maps.name_values((1e-4, 1e-3, 0.5)) == ["0.0001", "0.001", "0.5"]
    assert maps.name_values((1.69, 1.6901, 1.6902)) == ["1.69", "1.6901", "1.6902"]


@given(st.floats(1e-3, 1e3), st.floats(1e-12, 1), st.integers(2, 9))
def test_the_names_of_an_axis_are_all_different(first, share, count):
    values = sorted(set(np.linspace(first, first * (1 + share), count).tolist()))
    assert len(set(maps.name_values(values))) == len(values)


def test_a_zoom_keeps_the_map_s_own_values_to_the_bit_and_a_zero_with_its_factors():
    values = tuple(np.geomspace(1e-4, 1e6, 11).tolist())
    assert maps.refine_values(values, 0, 10) == values
    assert maps.refine_values(values, 2, 7)[::2] == values[2:8]
    finer = maps.refine_values((0.0, 1e-4, 1e-3, 1e-2, 1e-1), 1, 3)
    assert finer == pytest.approx(np.geomspace(1e-4, 1e-2, 5).tolist())
    assert maps.refine_values((0.0, 1e-4, 1e-3, 1e-2, 1e-1), 0, 1) == pytest.approx(np.linspace(0, 1e-4, 5).tolist())


@pytest.mark.parametrize("hits", [-1, 4])
def test_more_hits_than_there_are_is_refused(hits):
    with pytest.raises(ValueError, match=r"hits must lie in \[0, 3\], the count, got"):
        maps.wilson(hits, 3)


def test_a_map_beyond_memory_is_refused_in_a_sentence():
    axes = {"learning_rate": np.geomspace(1e-4, 1, 300), "init_scale": np.linspace(0.1, 1, 300)}
    with pytest.raises(ValueError, match=r"needs .* GiB of memory, at most 4 are allowed"):
        cnnlab.sweep("question", **axes, seeds=1, steps=100_000)


@pytest.mark.parametrize(("old", "new"), [
    ('["learning_rate"', '["learning_speed"'), ("[0.25, 0.5]", '["a", "b"]'), ('"seeds": [0', '"seeds": ["a"'),
    ('"cost": [1.0, 2.0]', '"cost": [1.0]'), ('"cost": [1.0, 2.0]', '"cost": []'),
    ('"cost": [1.0, 2.0]', '"cost": [1.0, 2.0, 3.0]'), ('"run": 0', '"run": 99'), ('"run": 0', '"run": "a"'),
    ('"steps": 2', '"steps": 1000000000000'),
])  # fmt: skip
def test_a_file_that_holds_what_no_map_has_is_refused_in_a_sentence(tmp_path, old, new):
    axis = ("learning_rate", (0.25, 0.5))
    shown = maps.Map.empty(settings(), (axis,), (0, 1), 2)
    shown.put(0, np.array([1.0, 2.0]), 1.0, 1.0, 0.5)
    shown.save(tmp_path / "map")
    text = (tmp_path / "map").read_text()
    assert old in text
    (tmp_path / "map").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match="holds no map that can be read"):
        maps.Map.load(tmp_path / "map")


def lines_of(tmp_path, made=None):
    """The lines of a map's file."""
    (made or by_hand()).save(tmp_path / "whole")
    return (tmp_path / "whole").read_text().splitlines(keepends=True)


LINES = {
    "a cost of 400 digits": (
        "5.0, 4.0, 3.0",
        f"5.0, 4.0, 1{'0' * 400}",
        "cost must be a number that a float64 can hold",
    ),
    "a cost of 400 digits on the way": (
        "5.0, 4.0, 3.0",
        f"5.0, 1{'0' * 400}, 3.0",
        "the costs of run 0 must be numbers that a float64 can hold",
    ),
    "a cost that is a text": ("5.0, 4.0, 3.0", '5.0, 4.0, "3.0"', "cost must be a number or one of nan, inf, -inf"),
    "a cost that is true": ("5.0, 4.0, 3.0", "5.0, true, 3.0", "the costs of run 0 must be numbers"),
    "a cost after the last": ("5.0, 4.0, 3.0", '5.0, "nan", 3.0', "the costs of run 0 must be numbers"),
    "a cost after an infinite one": (
        "5.0, 4.0, 3.0",
        "5.0, 1e999, 3.0",
        "the costs of run 0 go on after one that is not",
    ),
    "a run below 0": ('"run": 0', '"run": -1', r"run must lie in \[0, 5\], got -1"),
    "a run beyond": ('"run": 0', '"run": 6', r"run must lie in \[0, 5\], got 6"),
    "a run of halves": ('"run": 0', '"run": 0.0', "run must be a int, got 0.0"),
    "a run that is true": ('"run": 0', '"run": true', "run must be a int, got True"),
    "a run twice": ('"run": 0', '"run": 1', "run 1 is there twice"),
    "no end": ('"ended"', '"endde"', "ended must be a number"),
    "a list": ('{"run": 0', '[{"run": 0', "its text is no JSON"),
    "lists in lists": ('"run": 0', '"run": ' + "[" * 100_000, "its text nests too many lists"),
}


@pytest.mark.parametrize("name", LINES)
def test_a_run_that_no_sweep_writes_is_refused_in_a_sentence(tmp_path, name):
    old, new, said = LINES[name]
    first, second, *others = lines_of(tmp_path)
    assert old in second
    (tmp_path / "map").write_text("".join([first, second.replace(old, new, 1), *others]))
    with pytest.raises(ValueError, match=f"map holds no map that can be read: {said}") as caught:
        Map.load(tmp_path / "map")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


HEADINGS = {
    "a text within an axis": ("[0.01, 0.1]", '[0.01, "a", 0.1]', "the values of learning_rate must be numbers"),
    "NaN within an axis": ("[0.01, 0.1]", "[0.01, NaN, 0.1]", r"learning_rate\[1\] must lie in \(0, 1e6\], got nan"),
    "a value out of range": ("[0.01, 0.1]", "[0.01, 0.05, 1e7]", r"learning_rate\[2\] must lie in"),
    "a value of 400 digits": (
        "[0.01, 0.1]",
        f"[0.01, 1{'0' * 400}]",
        r"learning_rate\[1\] must lie in .*, got a number of 401 digits",
    ),
    "falling values": ("[0.01, 0.1]", "[0.01, 0.3, 0.2, 0.4]", "the values of learning_rate must rise"),
    "values twice": ("[0.01, 0.1]", "[0.01, 0.01, 0.1]", "the values of learning_rate must rise"),
    "one value": ("[0.01, 0.1]", "[0.01]", "an axis needs two values or more"),
    "numbers for a choice": ('["learning_rate"', '["clip"', "the values of clip must be names"),
    "a choice that there is not": (
        '"learning_rate", [0.01, 0.1]',
        '"clip", ["off", "nrom"]',
        r"clip\[1\] must be one of .*, got 'nrom'; did you mean 'norm'",
    ),
    "a choice twice": ('"learning_rate", [0.01, 0.1]', '"clip", ["off", "off"]', "an axis needs two values or more"),
    "an axis of presets": ('"learning_rate", [0.01, 0.1]', '"preset", ["question"]', "an axis .* 'preset' is neither"),
    "an axis of devices": ('"learning_rate", [0.01, 0.1]', '"device", ["cpu", "auto"]', "device is no axis of a map"),
    "an axis of pairs": ('["learning_rate"', '["hidden"', "an axis must be a field of .*, and hidden is neither"),
    "an axis of seeds": ('["learning_rate"', '["seed"', "seed is no axis of a map"),
    "an axis twice": ("[0.01, 0.1]]", '[0.01, 0.1]], ["learning_rate", [0.1, 0.2]]', "axes must be of two fields"),
    "three axes": ("[0.01, 0.1]]", '[0.01, 0.1]], ["l1", [0, 1]], ["l2", [0, 1]]', "a map has two axes at most, got 3"),
    "an axis without values": (
        '["learning_rate", [0.01, 0.1]]',
        '["learning_rate"]',
        "axes must hold pairs of a field",
    ),
    "a seed below 0": (
        '"seeds": [4, 5, 6]',
        '"seeds": [4, -5, 6]',
        r"seeds\[1\] must be a whole number in \[0, 4294967295\], got -5",
    ),
    "a seed twice": ('"seeds": [4, 5, 6]', '"seeds": [4, 5, 4]', "seeds must each be there once"),
    "no seeds": ('"seeds": [4, 5, 6]', '"seeds": []', "seeds must be how many, or a list of them"),
    "seeds that are a number": ('"seeds": [4, 5, 6]', '"seeds": 3', "seeds must be a list, got 3"),
    "no steps": ('"steps": 3', '"steps": 0', r"steps must be a whole number in \[1, 100000\], got 0"),
    "steps of halves": ('"steps": 3', '"steps": 3.0', "steps must be a int, got 3.0"),
    "many steps": ('"steps": 3', '"steps": 50000000', r"steps must be a whole number in \[1, 100000\], got 50000000"),
    "corners that do not go together": (
        '"learning_rate", [0.01, 0.1]',
        '"batch_size", [2, 100]',
        "batch_size must lie in",
    ),
    "a choice that goes with nothing": (
        '"learning_rate", [0.01, 0.1]',
        '"residual", ["off", "on"]',
        "residual must be 'off' with padding 'valid'",
    ),
    "no settings": ('"settings"', '"setting"', "settings is missing"),
    "settings of lists in lists": ('"seed": 0', '"seed": ' + "[" * 500 + "]" * 500, "seed must be a whole number"),
    "lists in lists": ('"seeds": [4, 5, 6]', '"seeds": ' + "[" * 100_000, "its text nests too many lists"),
}


@pytest.mark.parametrize("name", HEADINGS)
def test_a_map_that_no_sweep_makes_is_refused_in_a_sentence(tmp_path, name):
    old, new, said = HEADINGS[name]
    first = lines_of(tmp_path)[0]
    assert old in first
    (tmp_path / "map").write_text(first.replace(old, new, 1))
    with pytest.raises(ValueError, match=f"map holds no map that can be read: ({said})") as caught:
        Map.load(tmp_path / "map")
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_map_and_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no map that can be read: it is a folder"):
        Map.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Map.load(tmp_path / "nowhere")


def test_costs_are_put_together_when_they_are_asked_for(tmp_path):
    made = by_hand()
    assert made.cost.shape == (2, 3, 3)
    assert made.cost[0].tolist() == [[5.0, 4.0, 3.0], [5.0, 4.0, 0.7], [5.0, 5.0, 4.9]]
    assert np.array_equal(made.cost[1], [[5.0, np.nan, np.nan], [np.inf, np.nan, np.nan], [np.nan] * 3], equal_nan=True)
    made.put(5, [1.0, 0.5, 0.25], 1.0, 0.25, 0.9)
    assert made.cost[1, 2].tolist() == [1.0, 0.5, 0.25]
    assert made.labels[1, 2] == "converged"


def test_a_map_of_the_most_runs_and_steps_opens_and_takes_hardly_any_memory(tmp_path):
    axes = tuple((name, tuple(np.linspace(0.1, 1, 512).tolist())) for name in ("learning_rate", "init_scale"))
    made = Map.empty(settings(), axes, (0,), 2000)
    made.put(7, [np.inf], np.nan, np.nan, 0.0)
    made.save(tmp_path / "map")
    tracemalloc.start()
    found = Map.load(tmp_path / "map")
    assert found.diverged.sum() == 1
    assert "1 diverged, 262143 not computed" in repr(found)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6
