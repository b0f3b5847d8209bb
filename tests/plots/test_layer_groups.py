"""Groups of layers: few enough for a figure, and no NaN lost in them."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import record_of
from hypothesis import given
from hypothesis import strategies as st

import cnnlab
from cnnlab.plots.dashboard import draw_dashboard
from cnnlab.plots.layer_groups import MOST, find_groups, group_layers, name_groups, split_layers

DEEP = tuple(f"blocks.{block}.{part}" for block in range(10) for part in ("first", "second", "norm"))


def test_a_record_of_few_layers_is_left_as_it_is():
    record = record_of([1, 2])
    assert group_layers(record) is record


def test_layers_are_grouped_by_the_name_groups_their_modules():
    assert group_layers(record_of([1, 2], layers=DEEP)).layers == tuple(f"blocks.{block}" for block in range(10))


def test_layers_without_telling_names_are_grouped_by_their_order():
    layers = tuple(map(str, range(100)))
    assert group_layers(record_of([1], layers=layers)).layers[:2] == ("0–7", "8–15")
    assert len(group_layers(record_of([1], layers=layers)).layers) == MOST


def test_a_norm_and_a_shortcut_s_scale_go_with_their_layer():
    assert group_layers(cnnlab.Run("batch_norm").record).layers == (
        "cv0", "cv1", "cv2", "cv3", "cv4", "cv5", "hid1", "hid2", "softmax"
    )  # fmt: skip
    names = group_layers(cnnlab.Run("deep_residual").record).layers
    assert names[:3] == ("cv0", "cv1–cv2", "cv3–cv4"), "blocks stay whole"
    assert len(names) == MOST
    layers = [f"{name}_norm" for name in "abcdefghijklm"]
    assert name_groups(layers, split_layers(layers, MOST))[0] == "a_norm", "of no layer that is there"


def test_norms_add_up_as_squares_counts_as_they_are_and_of_ratios_the_largest_counts():
    ratios = np.ones((3, 30))
    ratios[1, 4] = 7.0
    record = record_of([1, 1], layers=DEEP, gradient_norm=2.0, weight_nan=3.0, update_ratio=ratios)
    group = group_layers(record)
    np.testing.assert_allclose(group.gradient_norm, 2 * np.sqrt(3))
    assert (group.weight_nan == 9).all()
    assert group.update_ratio[0].tolist() == [1, 7] + [1] * 8
    assert (group.cost == record.cost).all()


def test_norms_too_large_to_square_are_added_up_all_the_same():
    record = record_of([1], layers=DEEP, weight_norm=1e300)
    np.testing.assert_allclose(group_layers(record).weight_norm, np.sqrt(3) * 1e300)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_bad_layer_is_seen_in_its_group_alone(bad):
    norms = np.ones((2, 30))
    norms[1, 5] = bad
    shown = group_layers(record_of([1], layers=DEEP, gradient_norm=norms, update_ratio=norms)).layer("blocks.1")
    assert not np.isfinite(shown["gradient_norm"]).any()
    assert not np.isfinite(shown["update_ratio"]).any()
    healthy = group_layers(record_of([1], layers=DEEP, gradient_norm=norms)).layer("blocks.2")
    assert np.isfinite(healthy["gradient_norm"]).all()


def test_histograms_of_a_group_hold_all_weights_of_its_layers():
    record = record_of([1, 2], layers=DEEP)
    whole, parts = record.histograms, group_layers(record).histograms
    assert parts.shape == (3, 10, whole.shape[2])
    assert parts[-1].shape == (10, whole.shape[2])
    assert parts[-1:].sum() == whole[-1:].sum()
    assert (parts[1][:, 3] == whole[1][::3, 3] * 3).all()


HEADS = st.lists(st.sampled_from(["a", "a.x", "a.x.y", "b", "b.z", "c"]), min_size=1, max_size=60)


@given(HEADS.map(lambda heads: [f"{head}.{place}" for place, head in enumerate(heads)]))
def test_any_names_make_few_groups_with_name_groups_their_own(layers):
    firsts = split_layers(layers, MOST)
    assert firsts[0] == 0
    assert (np.diff(firsts) > 0).all()
    assert len(firsts) <= MOST
    assert len(set(name_groups(layers, firsts))) == len(firsts)
    assert set(find_groups(layers).values()) == set(range(len(firsts)))


def test_a_dashboard_of_a_hundred_layers_has_a_ridge_a_group():
    record = record_of([1, 2, np.nan], layers=tuple(f"stage.{at // 10}.{at}" for at in range(100)))
    names = [trace.name for trace in draw_dashboard(record, 3).data]
    assert sum(name.startswith("magnitudes") for name in names) == 10
