"""Patches of one labelled image, training ones from its left half, held-out ones from its right; the order of batches.

Nothing here draws from a global generator.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch

from cnnlab.config.settings import Settings
from cnnlab.records import own_image as given_image

CLASSES = ("gravel", "brick")
"""Label -> what it stands for: 0 outside the mask, 1 inside."""
HELD_OUT = 132
"""Held-out patches: one is less than a hundredth of the accuracy, all take little time beside training."""
POSITION_SEED = 20
"""Seed of the order in which positions are used; the same for every run, so that two seeds see the same patches."""


@dataclass(frozen=True)
class Data:
    """Training and held-out patches of one image; float32 and int64 tensors on the CPU."""

    x: torch.Tensor
    """Training patches, (patches, 1, patch_size, patch_size), scaled as `input_scaling` says."""
    y: torch.Tensor
    """Their labels, (patches,): 0 is gravel, 1 is brick."""
    held_x: torch.Tensor
    """Held-out patches, (held out, 1, patch_size, patch_size), scaled by the training patches' numbers."""
    held_y: torch.Tensor
    """Their labels, (held out,)."""
    positions: np.ndarray
    """Row and column in the image of each training patch's upper left pixel, (patches, 2)."""
    held_positions: np.ndarray
    """The same of the held-out patches, (held out, 2)."""

    def __repr__(self) -> str:
        size = f"{self.x.shape[2]}x{self.x.shape[3]}"
        return f"Data({len(self.y)} training and {len(self.held_y)} held-out patches of {size})"


def load_image(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The image (uint8, 0..255) and the mask (uint8, 1 where the label is 1), of equal shape (rows, columns)."""
    if name.startswith("own_"):
        return given_image.kept(name)
    content = (files("cnnlab.training") / "images" / f"{name}.npz").read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays["image"], arrays["mask"]


def make_patches(settings: Settings) -> Data:
    """Training and held-out patches, alternating between the classes, each wholly inside one class.

    Patches may overlap, but never one of the left half with one of the right. Their positions depend on the image,
    `patch_size` and `patches` only, not on the seed; fewer patches are the first of more.
    """
    image, mask = load_image(settings.image)
    size, middle = settings.patch_size, image.shape[1] // 2
    held_out = check_room(mask, size, settings.patches) if settings.image.startswith("own_") else HELD_OUT
    positions = draw_positions(mask[:, :middle], size, settings.patches)
    held_positions = draw_positions(mask[:, middle:], size, held_out)
    held_positions[:, 1] += middle
    pixels, held_pixels = cut(image, positions, size), cut(image, held_positions, size)
    shift, scale = shift_and_scale(pixels, settings.input_scaling)
    return Data(
        x=torch.from_numpy(((pixels - shift) / scale).astype(np.float32)),
        y=find_labels(mask, positions),
        held_x=torch.from_numpy(((held_pixels - shift) / scale).astype(np.float32)),
        held_y=find_labels(mask, held_positions),
        positions=positions,
        held_positions=held_positions,
    )


def check_room(mask: np.ndarray, size: int, patches: int) -> int:
    """How many held-out patches an image of one's own has room for; ValueError if the training ones do not fit."""
    rows, middle = mask.shape[0], mask.shape[1] // 2
    if rows < size or middle < size:
        got = f"{mask.shape[1]}x{rows}"
        raise ValueError(f"image must have {size} rows and {2 * size} columns for patches of {size}, got {got} pixels")
    room = []
    for half in (mask[:, :middle], mask[:, middle:]):
        inside = find_pixels_inside(half, size)
        room.append(2 * int(min((inside == 0).sum(), (inside == size * size).sum())))
    if room[0] < patches or room[1] < 2:
        where = f"{room[0]} in its left half and {room[1]} in its right one"
        wanted = f"{patches} patches of {size}x{size}, half of them of each label"
        raise ValueError(f"image must have room for {wanted}, got room for {where}")
    return min(room[1], HELD_OUT)


def draw_positions(mask: np.ndarray, size: int, count: int) -> np.ndarray:
    """Row and column of `count` squares, (count, 2), no two alike: even ones outside the mask, odd ones inside."""
    inside = find_pixels_inside(mask, size)
    generator = np.random.default_rng(POSITION_SEED)
    chosen = np.empty((count, 2), np.int64)
    for label in range(2):
        places = generator.permutation(np.argwhere(inside == label * size * size))
        chosen[label::2] = places[: len(chosen[label::2])]
    return chosen


def find_pixels_inside(mask: np.ndarray, size: int) -> np.ndarray:
    """How many pixels of the mask each square holds, by its upper left pixel, (rows - size + 1, columns - size + 1)."""
    table = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]


def cut(image: np.ndarray, positions: np.ndarray, size: int) -> np.ndarray:
    """The squares of an image at these positions, (count, 1, size, size), float64."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size))
    return windows[positions[:, 0], positions[:, 1]][:, None].astype(np.float64)


def find_labels(mask: np.ndarray, positions: np.ndarray) -> torch.Tensor:
    """The label at each position, (count,) int64; it is the label of the whole patch."""
    return torch.from_numpy(mask[positions[:, 0], positions[:, 1]].astype(np.int64))


def shift_and_scale(pixels: np.ndarray, input_scaling: str) -> tuple[float, float]:
    """What `input_scaling` subtracts from a pixel, and what it then divides by."""
    if input_scaling == "standardised":
        return float(pixels.mean()), float(pixels.std())
    return 0.0, 255.0 if input_scaling == "unit" else 1.0


def updates_per_epoch(count: int, batch_size: int | None) -> int:
    """How many updates use each of `count` patches once; 1 if batch_size is None."""
    return 1 if batch_size is None else -(-count // batch_size)


def order_of_epoch(count: int, seed: int, epoch: int) -> torch.Tensor:
    """The order in which epoch `epoch` (from 0) uses the patches, (count,) int64; shared, so never write into it."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(count))
