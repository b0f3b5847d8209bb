"""The shapes within the question's network, from numbers alone, and which of them cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnlab.config.settings import Settings

GROUPS = (8, 4, 2, 1)
"""Numbers of groups of a group norm: the first that divides a layer's units is taken."""

USUAL_DEPTH = 6
"""Convolutions of the question's network."""


def list_sides(chosen: Settings) -> list[int]:
    """The side of the map after each convolution: a valid 3x3 convolution takes two pixels off, a padded one none."""
    taken = 2 if chosen.padding == "valid" else 0
    return [chosen.patch_size - taken * (place + 1) for place in range(chosen.depth)]


def choose_groups(normalization: str, units: int) -> int:
    """The groups of a layer of so many units: one in a layer norm; in a group norm the largest of 8, 4, 2, 1 that fits.

    A layer norm over one example's channels, rows and columns, with a scale for each channel, is a group norm of one
    group (Wu and He 2018).
    """
    return 1 if normalization == "layer" else next(count for count in GROUPS if units % count == 0)


def list_groups(chosen: Settings) -> dict[str, tuple[int, int, int]]:
    """Each normalised layer -> its units, its groups, and how many values of one example a group holds."""
    layers = {f"cv{place}": (chosen.channels, side * side) for place, side in enumerate(list_sides(chosen))}
    layers |= {"hid1": (chosen.hidden[0], 1), "hid2": (chosen.hidden[1], 1)}
    groups = {name: choose_groups(chosen.normalization, units) for name, (units, _) in layers.items()}
    return {name: (units, groups[name], units // groups[name] * places) for name, (units, places) in layers.items()}


def check_shapes(chosen: Settings) -> None:
    """ValueError in one sentence for a network that cannot be made, or whose normalisation would divide by 0."""
    check_depth(chosen)
    if chosen.residual != "off" and chosen.padding == "valid":
        raise ValueError(
            "residual must be 'off' with padding 'valid', for a shortcut needs two maps of one size, "
            f"got {chosen.residual!r}"
        )
    if chosen.residual != "off" and chosen.depth < 3:
        raise ValueError(
            "residual must be 'off' with depth below 3, for a shortcut spans two convolutions after cv0, "
            f"got {chosen.residual!r}"
        )
    if chosen.normalization == "batch":
        check_batches(chosen)
    elif chosen.normalization != "off":
        check_groups(chosen)


def check_depth(chosen: Settings) -> None:
    """ValueError where valid convolutions leave nothing of a patch."""
    most = (chosen.patch_size - 1) // 2
    if chosen.padding == "same" or chosen.depth <= most:
        return
    if chosen.depth == USUAL_DEPTH:  # then the patch was chosen
        least = 2 * USUAL_DEPTH + 1
        ranged, given = f"patch_size must lie in [{least}, 40] with depth {USUAL_DEPTH}", chosen.patch_size
    else:
        ranged, given = f"depth must lie in [1, {most}] with patch_size {chosen.patch_size}", chosen.depth
    raise ValueError(f"{ranged} and padding 'valid', got {given}")


def check_batches(chosen: Settings) -> None:
    """ValueError where a batch holds one patch, and so a unit of hid1 one value, which has no variance."""
    size = chosen.patches if chosen.batch_size is None else min(chosen.batch_size, chosen.patches)
    last = chosen.patches % size or size
    if last == 1:
        raise ValueError(
            "batch_size must leave 2 patches or more to every batch with normalization 'batch', for one value has no "
            f"variance, got {chosen.batch_size} of {chosen.patches} patches"
        )


def check_groups(chosen: Settings) -> None:
    """ValueError where a group holds one value, which less its own mean is always 0."""
    for name, (units, groups, values) in list_groups(chosen).items():
        if values == 1:
            field = "hidden" if name.startswith("hid") else "channels"
            raise ValueError(
                f"{field} must give every group at least 2 values with normalization {chosen.normalization!r}, "
                f"got {units} in {groups} group{'s' if groups > 1 else ''} in {name}"
            )
