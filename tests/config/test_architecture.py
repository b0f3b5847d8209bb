"""Which networks cannot be, and that one sentence says why."""

from __future__ import annotations

import pytest

from cnnlab.config.architecture import choose_groups, list_groups, list_sides
from cnnlab.config.settings import settings

REFUSED = {
    "patch_size must lie in [13, 40] with depth 6 and padding 'valid', got 12": {"patch_size": 12},
    "depth must lie in [1, 7] with patch_size 16 and padding 'valid', got 8": {"depth": 8},
    "depth must lie in [1, 19] with patch_size 40 and padding 'valid', got 20": {"depth": 20, "patch_size": 40},
    "depth must lie in [1, 64], got 65": {"depth": 65, "padding": "same"},
    "dropout must lie in [0, 1), got 1": {"dropout": 1},
    "residual must be 'off' with padding 'valid', for a shortcut needs two maps of one size, got 'zero'": {
        "residual": "zero"
    },
    "residual must be 'off' with depth below 3, for a shortcut spans two convolutions after cv0, got 'on'": {
        "residual": "on", "padding": "same", "depth": 2,
    },
    "batch_size must leave 2 patches or more to every batch with normalization 'batch', for one value has no variance, "
    "got 1 of 66 patches": {"normalization": "batch", "batch_size": 1},
    "batch_size must leave 2 patches or more to every batch with normalization 'batch', for one value has no variance, "
    "got 5 of 66 patches": {"normalization": "batch", "batch_size": 5},
    "hidden must give every group at least 2 values with normalization 'group', got 4 in 4 groups in hid2": {
        "normalization": "group", "hidden": (16, 4),
    },
    "hidden must give every group at least 2 values with normalization 'layer', got 1 in 1 group in hid1": {
        "normalization": "layer", "hidden": (1, 4),
    },
    "channels must give every group at least 2 values with normalization 'group', got 8 in 8 groups in cv5": {
        "normalization": "group", "channels": 8, "patch_size": 13,
    },
}  # fmt: skip


@pytest.mark.parametrize(("sentence", "changes"), REFUSED.items())
def test_a_network_that_cannot_be_is_refused_in_a_sentence(sentence, changes):
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole sentence is compared
        settings(**changes)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 7}, {"depth": 1, "patch_size": 3}, {"depth": 64, "padding": "same", "patch_size": 3},
        {"residual": "on", "padding": "same", "depth": 3}, {"normalization": "batch", "batch_size": 2},
        {"normalization": "layer", "hidden": (2, 2), "channels": 2, "patch_size": 13},
        {"normalization": "group", "channels": 16, "patch_size": 13}, {"dropout": 0.999},
    ],
)  # fmt: skip
def test_what_just_fits_is_taken(changes):
    assert settings(**changes).changes == changes


def test_a_valid_convolution_takes_two_pixels_and_a_padded_one_none():
    assert list_sides(settings(depth=3, patch_size=9)) == [7, 5, 3]
    assert list_sides(settings(depth=3, patch_size=9, padding="same")) == [9, 9, 9]


@pytest.mark.parametrize(("units", "groups"), [(32, 8), (12, 4), (6, 2), (7, 1)])
def test_a_group_norm_has_the_most_groups_of_8_4_2_1_that_divide_the_units(units, groups):
    assert choose_groups("group", units) == groups
    assert choose_groups("layer", units) == 1


def test_every_convolution_and_hidden_layer_has_groups_and_the_softmax_none():
    assert set(list_groups(settings(normalization="group", depth=2))) == {"cv0", "cv1", "hid1", "hid2"}
