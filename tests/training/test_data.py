"""The patches, their labels and their order, each test against the mask, the image or arithmetic of its own."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from cnnlab.config.settings import settings
from cnnlab.training.data import HELD_OUT, load_image, make_patches, updates_per_epoch
from cnnlab.training.datasets import Examples

ROOT = Path(__file__).parents[2]
SIZES = (13, 20, 40)
counts = st.integers(1, 200)
seeds = st.integers(0, 2**32 - 1)


def best_threshold(values: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """The threshold and the direction that classify best, tried one by one."""
    tried = [(float(threshold), sign) for threshold in values for sign in (1, -1)]
    return max(tried, key=lambda pair: ((pair[1] * values > pair[1] * pair[0]) == labels).mean())


def held_out_accuracy(gauge, patch_size: int) -> float:
    """Accuracy on held-out patches of the threshold on `gauge` that is best for 400 training patches."""
    data = make_patches(settings(patch_size=patch_size, patches=400))
    threshold, sign = best_threshold(gauge(data.x.numpy()), data.y.numpy() == 1)
    return float(((sign * gauge(data.held_x.numpy()) > sign * threshold) == (data.held_y.numpy() == 1)).mean())


def batch_indices(count: int, batch_size: int | None, seed: int, step: int) -> torch.Tensor | None:
    """Which of so many examples an update uses."""
    return Examples(torch.zeros(count), torch.zeros(count)).indices(batch_size, seed, step)


def test_the_image_spans_all_grey_values_and_the_mask_only_zero_and_one():
    image, mask = load_image("mosaic")
    assert image.shape == mask.shape == (192, 352)
    assert image.dtype == mask.dtype == np.uint8
    assert (image.min(), image.max()) == (0, 255)
    assert set(np.unique(mask)) == {0, 1}


def test_mean_and_deviation_of_the_two_classes_are_equal():
    image, mask = load_image("mosaic")
    brick, gravel = image[mask == 1].astype(float), image[mask == 0].astype(float)
    assert brick.mean() == pytest.approx(gravel.mean(), abs=0.01)
    assert brick.std() == pytest.approx(gravel.std(), abs=0.01)


@pytest.mark.parametrize("patch_size", range(3, 41))
def test_every_patch_lies_wholly_in_the_class_of_its_label(patch_size):
    _, mask = load_image("mosaic")
    data = make_patches(settings(patch_size=patch_size, padding="same"))
    for places, labels in ((data.positions, data.y), (data.held_positions, data.held_y)):
        for (row, column), label in zip(places, labels.tolist(), strict=True):
            assert set(mask[row : row + patch_size, column : column + patch_size].flat) == {label}


@pytest.mark.parametrize("patch_size", SIZES)
def test_raw_patches_are_the_pixels_of_the_image_at_their_positions(patch_size):
    image, _ = load_image("mosaic")
    data = make_patches(settings(patch_size=patch_size, input_scaling="raw"))
    for places, patches in ((data.positions, data.x), (data.held_positions, data.held_x)):
        for (row, column), patch in zip(places, patches.numpy(), strict=True):
            np.testing.assert_array_equal(patch[0], image[row : row + patch_size, column : column + patch_size])


@pytest.mark.parametrize("patch_size", SIZES)
def test_training_patches_lie_in_the_left_half_and_held_out_ones_in_the_right(patch_size):
    data = make_patches(settings(patch_size=patch_size, patches=1000))
    assert data.positions[:, 1].max() + patch_size <= 176 <= data.held_positions[:, 1].min()
    assert data.held_positions[:, 1].max() + patch_size <= 352


@pytest.mark.parametrize("patch_size", SIZES)
@pytest.mark.parametrize("patches", [2, 3, 66, 67, 1000])
def test_shapes_types_and_counts_are_as_asked_and_both_classes_balanced(patch_size, patches):
    data = make_patches(settings(patch_size=patch_size, patches=patches))
    assert data.x.shape == (patches, 1, patch_size, patch_size)
    assert data.held_x.shape == (HELD_OUT, 1, patch_size, patch_size)
    assert (data.x.dtype, data.y.dtype) == (data.held_x.dtype, data.held_y.dtype) == (torch.float32, torch.int64)
    assert data.x.device == data.held_x.device == torch.device("cpu")
    for labels in (data.y, data.held_y):
        assert abs(2 * int(labels.sum()) - len(labels)) <= 1


@pytest.mark.parametrize("patch_size", SIZES)
def test_no_patch_is_cut_twice(patch_size):
    data = make_patches(settings(patch_size=patch_size, patches=1000))
    assert len(np.unique(data.positions, axis=0)) == 1000
    assert len(np.unique(data.held_positions, axis=0)) == HELD_OUT


def test_the_seed_does_not_move_patches():
    one, other = make_patches(settings(seed=0)), make_patches(settings(seed=1))
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.held_x, other.held_x)


def test_nothing_draws_from_a_global_generator():
    state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    make_patches(settings())
    batch_indices(66, 8, 0, 1)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_fewer_patches_are_the_first_of_more():
    few, many = make_patches(settings(patches=31)), make_patches(settings(patches=300))
    assert torch.equal(few.x, many.x[:31])
    assert torch.equal(few.held_x, many.held_x)


def test_unit_scaling_divides_raw_pixels_by_255():
    raw, unit = make_patches(settings(input_scaling="raw")), make_patches(settings(input_scaling="unit"))
    torch.testing.assert_close(unit.x, raw.x / 255)
    torch.testing.assert_close(unit.held_x, raw.held_x / 255)


def test_standardised_training_patches_have_mean_zero_and_deviation_one():
    x = make_patches(settings(input_scaling="standardised")).x.double()
    assert float(x.mean()) == pytest.approx(0, abs=1e-6)
    assert float(x.std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_held_out_patches_are_standardised_by_the_training_patches_and_not_by_themselves():
    raw, scaled = make_patches(settings(input_scaling="raw")), make_patches(settings(input_scaling="standardised"))
    expected = (raw.held_x - raw.x.mean()) / raw.x.std(correction=0)
    torch.testing.assert_close(scaled.held_x, expected, atol=1e-5, rtol=1e-5)
    assert abs(float(scaled.held_x.mean())) > 1e-4


@pytest.mark.parametrize("patch_size", [20, 40])
@pytest.mark.parametrize("gauge", [np.mean, np.std])
def test_a_threshold_on_the_mean_or_the_deviation_of_a_patch_tells_little(gauge, patch_size):
    assert held_out_accuracy(lambda patches: gauge(patches, axis=(1, 2, 3)), patch_size) < 0.65


@given(count=counts, batch_size=counts, seed=seeds, epoch=st.integers(0, 10**6))
@effort(max_examples=60, deadline=None)
def test_the_batches_of_an_epoch_use_every_patch_once(count, batch_size, seed, epoch):
    updates = updates_per_epoch(count, batch_size)
    assert updates == math.ceil(count / batch_size)
    batches = [batch_indices(count, batch_size, seed, epoch * updates + step) for step in range(1, updates + 1)]
    if batch_size >= count:
        assert batches == [None]
    else:
        assert sorted(torch.cat(batches).tolist()) == list(range(count))
        assert {len(batch) for batch in batches[:-1]} == {batch_size}


@given(seed=seeds, steps=st.lists(st.integers(1, 10**6), min_size=2, max_size=20))
@effort(max_examples=20, deadline=None)
def test_a_batch_depends_on_seed_and_step_and_not_on_what_was_asked_before(seed, steps):
    forwards = [batch_indices(66, 8, seed, step).tolist() for step in steps]
    backwards = [batch_indices(66, 8, seed, step).tolist() for step in reversed(steps)]
    assert forwards == backwards[::-1]


def test_another_seed_and_another_epoch_have_another_order():
    first = batch_indices(66, 65, 0, 1).tolist()
    assert first != batch_indices(66, 65, 1, 1).tolist()
    assert first != batch_indices(66, 65, 0, 3).tolist()


def test_the_full_batch_is_one_update_per_epoch_and_needs_no_indices():
    assert updates_per_epoch(66, None) == updates_per_epoch(66, 66) == 1
    assert batch_indices(66, None, 0, 5) is None
    assert batch_indices(66, 66, 0, 5) is None


def test_data_names_itself_in_one_line():
    assert repr(make_patches(settings())) == "Data(66 training and 132 held-out patches of 16x16)"


def test_the_script_makes_the_image_that_is_shipped():
    pytest.importorskip(
        "skimage", reason="scikit-image, which holds the two photographs, is not installed (it is in the test extra)"
    )
    image, mask = runpy.run_path(str(ROOT / "tools" / "make_mosaic.py"))["mosaic"]()
    shipped_image, shipped_mask = load_image("mosaic")
    np.testing.assert_array_equal(image, shipped_image)
    np.testing.assert_array_equal(mask, shipped_mask)
