"""Makes `cnnlab/images/mosaic.npz`: a wall of bricks inside, gravel outside an irregular mask.

Both photographs are scikit-image's, CC0 and part of its wheel (see NOTICE). Sums are of whole numbers and sorts are
stable, so that rounding should not make the arrays differ between machines: `python tools/make_mosaic.py`.
"""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np
from skimage import data

ROWS, COLUMNS = 192, 352
MASK_SEED = 7
BLOB_RADIUS = 20
"""Radius in pixels of the three box sums that make blobs of noise; a smaller one leaves too little room for 40x40."""
LOCAL_RADIUS = 10
"""Radius in pixels of the neighbourhood whose mean and deviation both textures lose."""
DEVIATION = 42
"""Deviation of the final grey values; 0 and 255 are then three deviations away from their mean."""
TARGET = Path(__file__).parents[1] / "cnnlab" / "images" / "mosaic.npz"


def box_sums(values: np.ndarray, radius: int) -> np.ndarray:
    """Exact sums of whole numbers over squares of 2 * radius + 1 pixels, mirrored at the edges."""
    side = 2 * radius + 1
    table = np.pad(np.pad(values.astype(np.int64), radius, mode="symmetric").cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]


def blobs() -> np.ndarray:
    """The mask, (192, 352) bool: True (brick) where low-passed noise lies above its median."""
    noise = (np.random.PCG64(MASK_SEED).random_raw(ROWS * COLUMNS) >> np.uint64(56)).astype(np.int64)
    smooth = noise.reshape(ROWS, COLUMNS)
    for _ in range(3):
        smooth = box_sums(smooth, BLOB_RADIUS)
    return smooth > np.median(smooth)


def locally_standardised(photograph: np.ndarray) -> np.ndarray:
    """A uint8 photograph less the mean and over the deviation of each pixel's neighbourhood, cropped, (192, 352).

    One squared grey value is added to the variance, so that a flat neighbourhood stays flat.
    """
    values = photograph.astype(np.int64)
    count = (2 * LOCAL_RADIUS + 1) ** 2
    total, squares = box_sums(values, LOCAL_RADIUS), box_sums(values**2, LOCAL_RADIUS)
    return ((count * values - total) / np.sqrt(count * squares - total**2 + count**2))[:ROWS, :COLUMNS]


def bell_shaped(values: np.ndarray) -> np.ndarray:
    """Grey values 0..255 in the order of a vector of values, but normally distributed; ties by position."""
    bell = NormalDist(127.5, DEVIATION)
    greys = np.array([bell.inv_cdf((rank + 0.5) / values.size) for rank in range(values.size)])
    equalised = np.empty(values.size, np.uint8)
    equalised[np.argsort(values, kind="stable")] = np.clip(np.rint(greys), 0, 255).astype(np.uint8)
    return equalised


def mosaic() -> tuple[np.ndarray, np.ndarray]:
    """The image and the mask (1 = brick), both (192, 352) uint8; either class has the same histogram."""
    brick = blobs()
    image = np.empty((ROWS, COLUMNS), np.uint8)
    for inside, photograph in ((brick, data.brick()), (~brick, data.gravel())):
        image[inside] = bell_shaped(locally_standardised(photograph)[inside])
    return image, brick.astype(np.uint8)


if __name__ == "__main__":
    image, mask = mosaic()
    np.savez_compressed(TARGET, image=image, mask=mask)
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes, brick {mask.mean():.3f} of it")
