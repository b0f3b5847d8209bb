"""Maps: labels by a stated rule, the same as those of a run of the cell; files that can be cut short; refined axes."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnnlab
from cnnlab import maps
from cnnlab.maps import Map
from cnnlab.settings import settings


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
    for name in maps.ARRAYS:
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
    frozen = growing.frozen()
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
    name, values = maps.refined(("learning_rate", (1e-4, 1e-3, 1e-2, 1e-1)), 1, 2)
    assert name == "learning_rate"
    assert values == pytest.approx(np.geomspace(1e-3, 1e-2, 4))


def test_a_refined_axis_of_whole_numbers_keeps_them_whole():
    assert maps.refined(("channels", (2.0, 4.0, 6.0, 8.0, 10.0)), 1, 2) == ("channels", (4.0, 5.0, 6.0))


def test_an_axis_that_cannot_be_refined_says_so():
    with pytest.raises(ValueError, match="channels has no two values between 2 and 2"):
        maps.refined(("channels", (2.0, 3.0)), 0, 0.2)


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
    assert maps.names_of((1e-4, 1e-3, 0.5)) == ["0.0001", "0.001", "0.5"]
    assert maps.names_of((1.69, 1.6901, 1.6902)) == ["1.69", "1.6901", "1.6902"]


@given(st.floats(1e-3, 1e3), st.floats(1e-12, 1), st.integers(2, 9))
def test_the_names_of_an_axis_are_all_different(first, share, count):
    values = sorted(set(np.linspace(first, first * (1 + share), count).tolist()))
    assert len(set(maps.names_of(values))) == len(values)


def test_a_zoom_keeps_the_map_s_own_values_to_the_bit_and_a_zero_with_its_factors():
    values = tuple(np.geomspace(1e-4, 1e6, 11).tolist())
    assert maps.between(values, 0, 10) == values
    assert maps.between(values, 2, 7)[::2] == values[2:8]
    finer = maps.between((0.0, 1e-4, 1e-3, 1e-2, 1e-1), 1, 3)
    assert finer == pytest.approx(np.geomspace(1e-4, 1e-2, 5).tolist())
    assert maps.between((0.0, 1e-4, 1e-3, 1e-2, 1e-1), 0, 1) == pytest.approx(np.linspace(0, 1e-4, 5).tolist())


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
