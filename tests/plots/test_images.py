"""Pictures show what the numbers are: also where they are NaN or inf."""

import base64
import io

import numpy as np
from PIL import Image

from cnnlab.plots.colours import LIGHT_GROUND
from cnnlab.plots.images import HIGH, LOW, NONFINITE, draw_bands, draw_kernels, draw_patches


def pixels(address: str) -> np.ndarray:
    """The pixels of a PNG in a data address."""
    head, data = address.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_kernels_show_sign_by_colour_and_size_by_strength() -> None:
    picture = pixels(draw_kernels(np.array([[[-2.0, 0.0, 2.0]]])))
    assert picture.tolist() == [[list(LOW), [255, 255, 255], list(HIGH)]]


def test_a_kernel_value_that_is_nan_or_inf_is_red_and_the_others_keep_their_colours() -> None:
    picture = pixels(draw_kernels(np.array([[[np.nan, np.inf, 3.0]]])))
    assert picture[0].tolist() == [list(NONFINITE), list(NONFINITE), list(HIGH)]


def test_kernels_that_are_all_zero_or_all_nan_still_make_a_picture() -> None:
    assert (pixels(draw_kernels(np.zeros((4, 3, 3))))[:3, :3] == 255).all()
    assert (pixels(draw_kernels(np.full((1, 3, 3), np.nan))) == NONFINITE).all()


def test_patches_run_from_black_to_white() -> None:
    picture = pixels(draw_patches(np.array([[[0.0, 255.0]]])))
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[0, 1].tolist() == [255, 255, 255]


def test_sixty_six_patches_are_laid_out_with_a_line_between_them() -> None:
    picture = pixels(draw_patches(np.zeros((66, 20, 20))))
    assert picture.shape == (6 * 21 - 1, 11 * 21 - 1, 3)
    assert (picture[20] == 255).all()


def test_a_band_rises_with_magnitude_and_turns_red_where_weights_are_lost() -> None:
    strengths = np.zeros((2, 1, 3), dtype=np.uint8)
    strengths[0, 0, 2] = 255
    lost = np.array([[0], [255]], dtype=np.uint8)
    picture = pixels(draw_bands(strengths, lost, np.array([[0, 0, 0]]), LIGHT_GROUND))
    assert picture.shape == (3, 2, 3)
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[1, 0].tolist() == [255, 255, 255]
    assert picture[1, 1].tolist() == list(NONFINITE)
