"""Images of the reader's own: a file, bytes or an array becomes grey values and a mask of labels, kept under a name.

Numpy alone, and pillow when a file is read; nothing from cnnlab.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
SMALLEST = 13
"""Least height, and half of the least width, in pixels: the smallest patch must fit either half."""
MOST_PIXELS = 24_000_000
"""Most pixels of an image; a file says how many it has before they are unpacked."""
MOST_FILE = 64 * 2**20
"""Longest file, in bytes."""
WINDOW = 17
"""Side of the window, in pixels, in which texture is measured."""
KEPT: dict[str, tuple[Grey, Grey]] = {}
"""Name -> grey values and labels of the images that were given in this session."""
NAME = re.compile("own_[0-9a-f]{16}")


def own_image(source: Any, labels: Any = "halves") -> str:
    """Take an image of your own; returns its name, for `Run(image=name)`, `Lab(image=name)` or `settings(image=name)`.

    `source` is a path, the bytes of a file, a pillow image, or an array (rows, columns) or (rows, columns, 3 or 4) of
    uint8 or of numbers from 0 to 1; colours become grey. `labels` is "halves" (0 above, 1 below the middle), "texture"
    (1 where the grey values within 17 pixels deviate more than is usual in the image) or a mask of the image's shape, 0
    and another number. Training patches come from the left half, held-out ones from the right, each within one label.
    A saved record holds an image of up to 4 million pixels. ValueError or TypeError in a sentence for what is none.
    """
    image = grey(source)
    check_size(*image.shape)
    return keep(image, mask_of(image, labels))


def check_size(rows: int, columns: int) -> None:
    """ValueError unless an image of this size has room for a smallest patch in each half, and is none too large."""
    if rows < SMALLEST or columns < 2 * SMALLEST:
        least = f"{2 * SMALLEST}x{SMALLEST}"
        raise ValueError(f"image must be at least {least} pixels, a smallest patch in each half, got {columns}x{rows}")
    if rows * columns > MOST_PIXELS:
        raise ValueError(f"image must have at most {MOST_PIXELS:,} pixels, got {rows * columns:,}")


def keep(image: Grey, mask: Grey) -> str:
    """Hold an image under the name that its content gives it."""
    name = name_of(image, mask)
    KEPT[name] = image, mask
    return name


def name_of(image: Grey, mask: Grey) -> str:
    """own_ and sixteen digits, from the content."""
    content = hashlib.sha256(repr(image.shape).encode() + image.tobytes() + mask.tobytes())
    return f"own_{content.hexdigest()[:16]}"


def kept(name: str) -> tuple[Grey, Grey]:
    """Grey values and labels by name; ValueError if this session was not given the image."""
    if name not in KEPT:
        raise ValueError(f"image {name!r} is one of yours that this session does not hold: call cnnlab.own_image again")
    return KEPT[name]


def grey(source: Any) -> Grey:
    """Grey values 0..255 (rows, columns) of whatever holds an image."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return of_file(io.BytesIO(source), len(source), "the bytes given")
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_file():
            raise ValueError(f"image must be a file, got {str(source)!r:.200}, which is none")
        with path.open("rb") as file:
            return of_file(file, path.stat().st_size, path.name)
    if hasattr(source, "convert") and hasattr(source, "size"):
        return of_pillow(source, "the image given")
    return of_array(source)


def of_file(file: Any, size: int, name: str) -> Grey:
    """The image in an open file; its size is asked before it is unpacked."""
    from PIL import Image, UnidentifiedImageError  # not above: only files need it

    if size > MOST_FILE:
        raise ValueError(f"image must be a file of at most {MOST_FILE // 2**20} MiB, got {size / 2**20:.0f} MiB")
    try:
        opened = Image.open(file)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        raise ValueError(f"image must be a picture that pillow can read, got {name}, which is none") from None
    except Image.DecompressionBombError:
        raise ValueError(f"image must have at most {MOST_PIXELS:,} pixels, got far more in {name}") from None
    return of_pillow(opened, name)


def of_pillow(picture: Any, name: str) -> Grey:
    """Grey values of a pillow image; sixteen bits become eight."""
    columns, rows = picture.size
    if columns * rows > MOST_PIXELS:
        raise ValueError(f"image must have at most {MOST_PIXELS:,} pixels, got {columns * rows:,}")
    try:
        if picture.mode.startswith(("I", "F")):
            values = np.asarray(picture, dtype=np.float64)
            return scaled(values, values.min(), values.max())
        return np.array(picture.convert("L"), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError):
        raise ValueError(f"image must be a whole picture, got {name}, which is damaged or cut short") from None


def of_array(source: Any) -> Grey:
    """Grey values of an array of uint8, or of numbers from 0 to 1."""
    try:
        values = np.asarray(source)
    except ValueError:
        values = np.asarray(None)
    if values.dtype.kind not in "buif":
        raise TypeError(f"image must be a path, bytes, an image or an array of numbers, got {type(source).__name__}")
    if values.ndim == 3 and values.shape[2] in (3, 4):
        # Luma of ITU-R 601-2, as in pillow.
        values = (values[:, :, :3] @ np.array([0.299, 0.587, 0.114])).astype(values.dtype)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"image must be an array (rows, columns) or (rows, columns, 3 or 4), got shape {values.shape}")
    if values.size > MOST_PIXELS:
        raise ValueError(f"image must have at most {MOST_PIXELS:,} pixels, got {values.size:,}")
    if values.dtype == np.uint8:
        return values.copy()
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > (1 if values.dtype.kind in "bf" else 255):
        raise ValueError("image must hold uint8, or numbers in [0, 1], got others")
    return scaled(values.astype(np.float64), 0, 1 if values.dtype.kind in "bf" else 255)


def scaled(values: NDArray[np.float64], low: float, high: float) -> Grey:
    """Numbers between low and high as 0..255."""
    return np.rint((values - low) / (high - low or 1) * 255).astype(np.uint8)


def mask_of(image: Grey, labels: Any) -> Grey:
    """The label, 0 or 1, of each pixel."""
    if isinstance(labels, str) and labels == "halves":
        mask = np.zeros_like(image)
        mask[len(image) // 2 :] = 1
        return mask
    if isinstance(labels, str) and labels == "texture":
        deviation = local_deviation(image)
        return (deviation > np.median(deviation)).astype(np.uint8)
    if isinstance(labels, str):
        raise ValueError(f"labels must be 'halves', 'texture' or a mask, got {labels!r}")
    given = np.asarray(labels)
    if given.shape != image.shape or given.dtype.kind not in "bui":
        shape = given.shape if given.dtype.kind in "bui" else given.dtype
        raise ValueError(f"labels must be a mask of whole numbers of the image's shape {image.shape}, got {shape}")
    return (given != 0).astype(np.uint8)


def local_deviation(image: Grey) -> NDArray[np.float64]:
    """Standard deviation of the grey values in the window around each pixel, itself averaged over such windows."""
    values = image.astype(np.float64)
    mean, square = averaged(values), averaged(values**2)
    return averaged(np.sqrt(np.maximum(square - mean**2, 0)))


def averaged(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the window around each pixel; the border is mirrored."""
    side = min(WINDOW, 2 * min(values.shape) - 1)
    margin = side // 2
    wide = np.pad(values, (margin + 1, margin), mode="reflect").cumsum(0).cumsum(1)
    high, low = slice(2 * margin + 1, None), slice(None, -2 * margin - 1)
    return (wide[high, high] - wide[low, high] - wide[high, low] + wide[low, low]) / (2 * margin + 1) ** 2
