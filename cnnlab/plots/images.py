"""Small images as PNG data addresses: the first layer's kernels, the patches, histograms over time."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NONFINITE = (204, 0, 51)
"""The red of NaN and inf, the same in every plot and table."""
LOW, HIGH = (33, 102, 172), (217, 95, 2)
"""Blue for negative and orange for positive weights, white between: told apart by every kind of colour vision."""


@dataclass(frozen=True)
class Ground:
    """What a picture of bands is drawn on, as red, green and blue."""

    paper: tuple[int, int, int]
    """Where there are no weights."""
    line: tuple[int, int, int]
    """Between two bands."""
    nonfinite: tuple[int, int, int]
    """Where all weights are NaN or infinite."""


def encode_png(pixels: NDArray[np.uint8]) -> str:
    """An image (rows, columns, 3) as a PNG in a data address."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def draw_kernels(kernels: NDArray[Any]) -> str:
    """Kernels (count, height, width) side by side: white is 0, full colour the largest magnitude, red NaN or inf."""
    finite = np.isfinite(kernels)
    largest = np.abs(kernels[finite]).max(initial=0)
    relative = np.where(finite, kernels, 0) / (largest or 1)
    strength = np.abs(relative)[..., None]
    colour = np.where(relative[..., None] < 0, LOW, HIGH)
    pixels = 255 + (colour - 255) * strength
    pixels[~finite] = NONFINITE
    return encode_png(tile(pixels.astype(np.uint8), choose_columns(len(kernels), 1)))


def draw_patches(patches: NDArray[Any]) -> str:
    """Patches (count, height, width) side by side, grey from their common least to their common largest value."""
    low, high = float(patches.min()), float(patches.max())
    grey = ((patches - low) / ((high - low) or 1) * 255).astype(np.uint8)
    return encode_png(tile(np.repeat(grey[..., None], 3, axis=-1), choose_columns(len(patches), 2)))


def choose_columns(count: int, width_to_height: float) -> int:
    """Columns of a grid of about the given shape, without an unfinished row where the count allows it."""
    wanted = max(1, round(float(np.sqrt(count * width_to_height))))
    return next((columns for columns in range(wanted, 2 * wanted) if count % columns == 0), wanted)


def tile(tiles: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Tiles (count, height, width, 3) in rows of `columns`, a white line of one pixel between them."""
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), 255, dtype=np.uint8)
    for place in range(count):
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        canvas[top : top + height, left : left + width] = tiles[place]
    return canvas


def draw_bands(
    strengths: NDArray[np.uint8], lost: NDArray[np.uint8], colours: NDArray[np.int64], ground: Ground
) -> str:
    """Histograms over time as one band a layer, from the numbers of `measure_bands`; `colours` (layers, 3).

    Time runs right, magnitude upward within a band; red where weights are lost.
    """
    paper, line, nonfinite = (np.array(colour) for colour in (ground.paper, ground.line, ground.nonfinite))
    pixels = paper + (colours[None, :, None, :] - paper) * (strengths[..., None] / 255)
    red = lost[:, :, None, None] / 255
    pixels = pixels * (1 - red) + nonfinite * red
    pixels[:, :, 0] = line
    times, layers, bins, _ = pixels.shape
    upward = pixels[:, :, ::-1].transpose(1, 2, 0, 3).reshape(layers * bins, times, 3)
    return encode_png(upward.astype(np.uint8))
