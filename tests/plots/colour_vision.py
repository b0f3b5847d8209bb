"""How colours look to each kind of colour vision, how far they are apart, and their contrast, from the papers."""

from __future__ import annotations

import itertools

import numpy as np

SIMULATED = {
    "normal": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""Machado, Oliveira and Fernandes (2009), severity 1, on linear red, green and blue."""
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]


def read_linear(colour: str) -> np.ndarray:
    """Linear red, green and blue of a colour such as #22187D (IEC 61966-2-1)."""
    values = np.array(list(bytes.fromhex(colour[1:]))) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def measure_contrast(one: str, other: str) -> float:
    """The contrast of WCAG 2, from 1 to 21."""
    dark, light = sorted(float(read_linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def find_lab(linear: np.ndarray) -> np.ndarray:
    """L*, a*, b* under D65."""
    relative = np.array(TO_XYZ) @ np.clip(linear, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(relative > 216 / 24389, np.cbrt(relative), relative * 24389 / 27 / 116 + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def measure_difference(one: np.ndarray, other: np.ndarray) -> float:
    """CIEDE2000 between two colours in L*, a*, b* (Sharma, Wu and Dalal 2005)."""
    (light, a, b), (light_too, a_too, b_too) = one, other
    mean = (np.hypot(a, b) + np.hypot(a_too, b_too)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25.0**7))
    chroma, chroma_too = np.hypot(stretch * a, b), np.hypot(stretch * a_too, b_too)
    hue, hue_too = np.degrees(np.arctan2(b, stretch * a)) % 360, np.degrees(np.arctan2(b_too, stretch * a_too)) % 360
    turn = (hue_too - hue + 180) % 360 - 180
    middle = np.radians((hue + turn / 2) % 360)
    lightness, saturation = (light + light_too) / 2, (chroma + chroma_too) / 2
    wave = (
        1 - 0.17 * np.cos(middle - np.radians(30)) + 0.24 * np.cos(2 * middle)
        + 0.32 * np.cos(3 * middle + np.radians(6)) - 0.2 * np.cos(4 * middle - np.radians(63))
    )  # fmt: skip
    by_light = (light_too - light) / (1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2))
    by_chroma = (chroma_too - chroma) / (1 + 0.045 * saturation)
    by_hue = 2 * np.sqrt(chroma * chroma_too) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * saturation * wave)
    blue = np.radians(60 * np.exp(-(((np.degrees(middle) - 275) / 25) ** 2)))
    twist = -2 * np.sqrt(saturation**7 / (saturation**7 + 25.0**7)) * np.sin(blue)
    return float(np.sqrt(by_light**2 + by_chroma**2 + by_hue**2 + twist * by_chroma * by_hue))


def find_least_difference(colours: list[str], vision: str) -> float:
    """Of the two colours that are most alike to a kind of colour vision."""
    seen = [find_lab(np.array(SIMULATED[vision]) @ read_linear(colour)) for colour in colours]
    return min(measure_difference(one, other) for one, other in itertools.combinations(seen, 2))
