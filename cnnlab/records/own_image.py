"""Images of the user's own: a file, bytes or an array becomes grey values and a mask of labels, kept under a name.

The numbers of a large image are computed some rows at a time. Numpy alone, and pillow when a file is read; nothing from
cnnlab.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.settings import quote

Grey = NDArray[np.uint8]
Floats = NDArray[np.float64]
SMALLEST = 13
"""Least height, and half of the least width, in pixels: the smallest patch must fit either half."""
MOST_PIXELS = 24_000_000
"""Most pixels of an image; a file says how many it has before they are unpacked."""
UNPACKED_EASILY = frozenset(("PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "TIFF", "PPM", "TGA", "PCX"))
"""Formats of which pillow unpacks so many pixels in a second, with at most 12 bytes of memory for each."""
MOST_PIXELS_IN = {"AVIF": 16_000_000, "WEBP": 16_000_000, "JPEG2000": 10_000_000}
"""Most pixels in formats that take up to 28 bytes for each (tests/benchmarks/hostile.py)."""
MOST_PIXELS_ELSE = 3_000_000
"""The same in any other format: many of them are unpacked pixel by pixel."""
DRAWINGS = ("EPS", "WMF")
"""Formats that pillow has drawn by another program; an untrusted file is never run as code."""
MOST_FILE = 64 * 2**20
"""Longest file, in bytes."""
WINDOW = 17
"""Side of the window, in pixels, in which texture is measured."""
PIECE = 500_000
"""Pixels that are computed together."""
WIDEST = 2**16
"""Columns beyond which texture is measured column by column."""
KEPT: dict[str, tuple[Grey, Grey]] = {}
"""Name -> grey values and labels of the images that were given in this session."""


def own_image(source: Any, labels: Any = "halves") -> str:
    """Take an image of your own; returns its name, for `Run(image=name)`, `Lab(image=name)` or `settings(image=name)`.

    `source` is a path, the bytes of a file, a pillow image, or an array (rows, columns) or (rows, columns, 3 or 4) of
    uint8 or of numbers from 0 to 1; colours become grey. `labels` is "halves" (0 above, 1 below the middle), "texture"
    (1 where the grey values within 17 pixels deviate more than is usual in the image) or a mask of the image's shape, 0
    and another number. Training patches come from the left half, held-out ones from the right, each within one label.
    It may have 24 million pixels, in files that are slow to unpack fewer; a saved record holds an image of up to 4
    million. ValueError or TypeError in a sentence for what is none.
    """
    image = read_grey(source)
    check_size(*image.shape)
    return keep(image, build_mask(image, labels))


def check_size(rows: int, columns: int) -> None:
    """ValueError unless an image of this size has room for a smallest patch in each half, and is none too large."""
    if rows < SMALLEST or columns < 2 * SMALLEST:
        least = f"{2 * SMALLEST}x{SMALLEST}"
        raise ValueError(f"image must be at least {least} pixels, a smallest patch in each half, got {columns}x{rows}")
    if rows * columns > MOST_PIXELS:
        raise ValueError(f"image must have at most {MOST_PIXELS:,} pixels, got {rows * columns:,}")


def keep(image: Grey, mask: Grey) -> str:
    """Hold an image under the name that its content gives it."""
    name = hash_image(image, mask)
    KEPT[name] = image, mask
    return name


def hash_image(image: Grey, mask: Grey) -> str:
    """own_ and sixteen digits, from the content."""
    content = hashlib.sha256(repr(image.shape).encode())
    for array in (image, mask):
        content.update(np.ascontiguousarray(array).data)
    return f"own_{content.hexdigest()[:16]}"


def kept(name: str) -> tuple[Grey, Grey]:
    """Grey values and labels by name; ValueError if this session was not given the image."""
    if name not in KEPT:
        said = f"image {quote(name)} is one of yours that this session does not hold"
        raise ValueError(f"{said}: call cnnlab.own_image again")
    return KEPT[name]


def read_grey(source: Any) -> Grey:
    """Grey values 0..255 (rows, columns) of whatever holds an image."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return read_file(io.BytesIO(source), len(source), "the bytes given")
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not os.path.isfile(path):
            raise ValueError(f"image must be a file, got {quote(str(source))}, which is none")
        # All of it is read first: asked for what a damaged file says that it has, a file makes room for that at once.
        with path.open("rb") as file:
            content = file.read(MOST_FILE + 1)
        return read_file(io.BytesIO(content), max(len(content), path.stat().st_size), path.name)
    if hasattr(source, "convert") and hasattr(source, "size"):
        return convert_picture(source, "the image given")
    return convert_array(source)


def read_file(file: Any, size: int, name: str) -> Grey:
    """The image in an open file; its size is asked before it is unpacked."""
    from PIL import Image  # not above: only files need it

    if size > MOST_FILE:
        raise ValueError(f"image must be a file of at most {MOST_FILE // 2**20} MiB, got {size / 2**20:.0f} MiB")
    try:
        opened = Image.open(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"image must have at most {MOST_PIXELS:,} pixels, got far more in {name}") from None
    except Exception:  # a damaged file brings about errors of any kind
        raise ValueError(f"image must be a picture that pillow can read, got {name}, which is none") from None
    if opened.format in DRAWINGS:
        raise ValueError(f"image must be made of pixels, got {name}, which is a drawing in {opened.format}")
    return convert_picture(opened, name, limit_pixels(opened.format))


def limit_pixels(kind: str | None) -> int:
    """Most pixels of a file of a format."""
    return MOST_PIXELS if kind in UNPACKED_EASILY else MOST_PIXELS_IN.get(str(kind), MOST_PIXELS_ELSE)


def convert_picture(picture: Any, name: str, most: int = MOST_PIXELS) -> Grey:
    """Grey values of a pillow image; sixteen bits become eight."""
    columns, rows = picture.size
    if columns * rows > most:
        form = f" as {picture.format}" if most < MOST_PIXELS else ""
        raise ValueError(f"image must have at most {most:,} pixels{form}, got {columns * rows:,}")
    try:
        if not picture.mode.startswith(("I", "F")):
            return np.array(picture.convert("L"), dtype=np.uint8)
        values = np.asarray(picture)
    except Exception:  # a damaged file brings about errors of any kind
        raise ValueError(f"image must be a whole picture, got {name}, which is damaged or cut short") from None
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high, high - low]).all():
        raise ValueError(f"image must hold finite numbers, got others in {name}")
    return build_in_pieces(values.shape, lambda rows: scale(values[rows].astype(np.float64), low, high))


def convert_array(source: Any) -> Grey:
    """Grey values of an array of uint8, or of numbers from 0 to 1."""
    try:
        values = np.asarray(source)
    except ValueError:
        values = np.asarray(None)
    if values.dtype.kind not in "buif":
        raise TypeError(f"image must be a path, bytes, an image or an array of numbers, got {type(source).__name__}")
    coloured = values.ndim == 3 and values.shape[2] in (3, 4)
    if (values.ndim != 2 and not coloured) or values.size == 0:
        raise ValueError(f"image must be an array (rows, columns) or (rows, columns, 3 or 4), got shape {values.shape}")
    pixels = values.shape[0] * values.shape[1]
    if pixels > MOST_PIXELS:
        raise ValueError(f"image must have at most {MOST_PIXELS:,} pixels, got {pixels:,}")
    return build_in_pieces(values.shape[:2], lambda rows: convert_rows(values[rows]))


def convert_rows(values: NDArray[Any]) -> Grey:
    """Grey values of some rows of an array."""
    if values.ndim == 3:
        # Luma of ITU-R 601-2, as in pillow.
        values = (values[:, :, :3] @ np.array([0.299, 0.587, 0.114])).astype(values.dtype)
    if values.dtype == np.uint8:
        return values
    most = 1 if values.dtype.kind in "bf" else 255
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= most):
        raise ValueError("image must hold uint8, or numbers in [0, 1], got others")
    return scale(values.astype(np.float64), 0, most)


def scale(values: Floats, low: float, high: float) -> Grey:
    """Numbers between low and high as 0..255."""
    return np.rint((values - low) / (high - low or 1) * 255).astype(np.uint8)


def build_in_pieces(shape: tuple[int, ...], made: Callable[[slice], Grey]) -> Grey:
    """An image of which some rows at a time are made, so that what is made on the way takes little memory."""
    image = np.empty(shape, np.uint8)
    for rows in split_rows(*shape):
        image[rows] = made(rows)
    return image


def split_rows(rows: int, columns: int) -> Iterator[slice]:
    """The rows of an image, some at a time."""
    size = max(1, PIECE // columns)
    return (slice(first, min(first + size, rows)) for first in range(0, rows, size))


def build_mask(image: Grey, labels: Any) -> Grey:
    """The label, 0 or 1, of each pixel."""
    if isinstance(labels, str) and labels == "halves":
        mask = np.zeros_like(image)
        mask[len(image) // 2 :] = 1
        return mask
    if isinstance(labels, str) and labels == "texture":
        return label_texture(image)
    if isinstance(labels, str):
        raise ValueError(f"labels must be 'halves', 'texture' or a mask, got {quote(labels)}")
    given = np.asarray(labels)
    if given.shape != image.shape or given.dtype.kind not in "bui":
        shape = given.shape if given.dtype.kind in "bui" else given.dtype
        raise ValueError(f"labels must be a mask of whole numbers of the image's shape {image.shape}, got {shape}")
    return (given != 0).astype(np.uint8)


def label_texture(image: Grey) -> Grey:
    """1 where the grey values deviate more than is usual in the image."""
    if image.shape[1] > WIDEST:
        return np.ascontiguousarray(label_texture(image.T).T)
    deviation = np.empty(image.shape)
    for rows, part in measure_deviation(image):
        deviation[rows] = part
    usual = np.median(deviation, overwrite_input=True)
    del deviation
    mask = np.empty_like(image)
    for rows, part in measure_deviation(image):  # again: to keep all of it beside its median takes twice the memory
        mask[rows] = part > usual
    return mask


def measure_deviation(image: Grey) -> Iterator[tuple[slice, Floats]]:
    """Standard deviation of the grey values in the window around each pixel, itself averaged over such windows."""
    side = min(WINDOW, 2 * min(image.shape) - 1)
    # The image's rows, and as many again beyond its border as the window reaches; the border is mirrored.
    mirrored = np.pad(np.arange(len(image)), (side // 2 + 1, side // 2), mode="reflect")
    parts = (mirrored[rows] for rows in split_rows(len(mirrored), image.shape[1]))
    done = 0
    for means in average((measure_rows(image, part, mirrored, side) for part in parts), side):
        yield slice(done, done + len(means)), means
        done += len(means)


def measure_rows(image: Grey, rows: NDArray[np.int64], mirrored: NDArray[np.int64], side: int) -> Floats:
    """Standard deviation of the grey values in the window around each pixel of some rows, close to each other."""
    first = rows.min()
    values = image[mirrored[first : rows.max() + 1 + side]].astype(np.float64)
    # Sums of whole numbers are exact, so that it does not matter with which row they begin.
    mean, square = (next(average(iter([each]), side)) for each in (values, values**2))
    return np.sqrt(np.maximum(square - mean**2, 0))[rows - first]


def average(parts: Iterator[Floats], side: int) -> Iterator[Floats]:
    """The means over the window around each pixel, of mirrored rows that come some at a time."""
    above: Any = 0.0
    kept: Floats | None = None
    for part in parts:
        wide = np.pad(part, ((0, 0), (side // 2 + 1, side // 2)), mode="reflect")
        wide[0] += above
        wide = wide.cumsum(0)
        above = wide[-1].copy()
        wide = wide.cumsum(1)
        total = wide if kept is None else np.concatenate([kept, wide])
        kept = total[-side:].copy()
        if len(total) > side:
            high, low = slice(side, None), slice(None, -side)
            yield (total[high, high] - total[low, high] - total[high, low] + total[low, low]) / side**2
