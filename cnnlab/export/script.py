"""A record as a plain PyTorch script that trains the same run again, for reading and for taking apart."""

from __future__ import annotations

import base64
import dataclasses
import os
import zlib
from dataclasses import dataclass

from torch import nn

from cnnlab.config.settings import Settings
from cnnlab.export.rendering import render
from cnnlab.export.schedule import KnobTable
from cnnlab.records.atomic_files import write_atomically
from cnnlab.records.record import Record, find_record
from cnnlab.training.data import load_image, make_patches
from cnnlab.training.initializers import find_factor
from cnnlab.training.layers import Dropout, ScaledShortcut, Shortcut, is_plain, list_blocks
from cnnlab.training.network import Layout, make_question_network

TEMPLATE = "run.py.jinja"
MOST_LINES = 150
"""Lines of a script of a plain network."""
MORE_LINES = 50
"""Lines more for norms, shortcuts and dropout."""
MOST_PIXELS = 500_000
"""Most pixels in the left half of the image, which a script holds as text."""
MOST_LAYERS = 20
"""Lines of layers above which those that repeat are written once."""


@dataclass(frozen=True)
class Script:
    """What the template of a script is filled with."""

    record: Record
    """The record of the run."""
    knobs: KnobTable
    """The knobs that have an effect."""
    picture: str
    """The left half of the image: its grey values, compressed, in base 64."""
    shape: tuple[int, ...]
    """Rows and columns of that half."""
    corners: list[tuple[int, int]]
    """Row and column of the upper left pixel of each patch."""
    layers: list[str]
    """The network's modules, a line a layer, or fewer."""
    factor: float
    """What the activation multiplies the initial weights by."""
    plain: bool
    """Whether the network has nothing but convolutions, linear layers and ReLUs."""
    table_lines: int = 1
    """Lines that the table of changed knobs may take."""


def export_script(record: Record, path: str | os.PathLike[str]) -> None:
    """Write a record of the question's network as a PyTorch script of at most 150 lines: torch and numpy, no cnnlab.

    A network with norms, shortcuts or dropout, which stand in it too, takes up to 50 lines more.
    It trains from the start with every change of knobs and prints one line an update, such as
    `update 1  cost 5.640552997589111`: on the machine of the record its costs to the last bit, on another one to 1e-5
    of them until the run explodes. What another optimiser than plain gradient descent has trained is trained by that of
    `torch.optim`, whose costs agree to rounding. It computes on the CPU unless the settings name another device. The
    file appears whole or not at all. ValueError for a record without updates, and for one of a network of your own.
    """
    record = find_record(record)
    if record.own_network or record.layers != Layout.from_network(make_question_network(record.settings)).layers:
        raise ValueError("export_script writes the question's network only, got a record of a network of your own")
    if not len(record):
        raise ValueError("record must hold at least 1 update, got 0")
    content = write_script(record).encode()
    with write_atomically(path) as file:
        file.write(content)


def write_script(record: Record) -> str:
    """The whole text: the table of changed knobs takes as many lines as the rest leaves."""
    settings = record.settings
    image, _ = load_image(settings.image)
    left_half = image[:, : image.shape[1] // 2]
    if left_half.size > MOST_PIXELS:
        raise ValueError(f"export_script writes images of at most {2 * MOST_PIXELS:,} pixels, got {image.size:,}")
    context = Script(
        record=record,
        knobs=KnobTable.from_record(record),
        picture=base64.b64encode(zlib.compress(left_half.tobytes(), 9)).decode(),
        shape=left_half.shape,
        corners=[(row, column) for row, column in make_patches(settings).positions.tolist()],
        layers=join_repeated(write_layers(settings)),
        factor=find_factor(settings.init, settings.activation),
        plain=is_plain(settings),
    )
    rest = len(render(TEMPLATE, context).splitlines()) - context.table_lines
    most = MOST_LINES + (0 if context.plain else MORE_LINES)
    return render(TEMPLATE, dataclasses.replace(context, table_lines=max(1, most - rest)))


def write_layers(settings: Settings) -> list[str]:
    """The network's modules, a line a layer with what follows it; a shortcut spans the two lines of its layers."""
    network = make_question_network(settings)
    blocks, lines = list_blocks(network), list[str]()
    for name, module in network.named_children():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.Flatten)):
            opened = "Shortcut(" if name in blocks else ""
            lines.append(f"{opened}{write_module(module)},  # {name}".removesuffix("  # flatten"))
        elif isinstance(module, (Shortcut, ScaledShortcut)):
            closed = ", Scale())" if isinstance(module, ScaledShortcut) else ")"
            lines[-1] = lines[-1].replace(",  #", f"{closed},  #")
        else:
            lines[-1] = lines[-1].replace(",  #", f", {write_module(module)},  #")
    return lines


def write_module(module: nn.Module) -> str:
    """The call that makes a module."""
    kind = type(module).__name__
    match module:
        case nn.Conv2d():
            padding = ", padding=1" if module.padding == (1, 1) else ""
            return f"nn.Conv2d({module.in_channels}, {module.out_channels}, 3{padding})"
        case nn.Linear():
            return f"nn.Linear({module.in_features}, {module.out_features})"
        case nn.GroupNorm():
            return f"nn.GroupNorm({module.num_groups}, {module.num_channels})"
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return f"nn.{kind}({module.num_features})"
        case Dropout():
            return f"Dropout({module.place})"
    return f"nn.{kind}()"


def join_repeated(lines: list[str]) -> list[str]:
    """The same with the pairs of layers from cv1 on that are alike written once, where there are many."""
    if len(lines) <= MOST_LAYERS:
        return lines
    pairs = [lines[place : place + 2] for place in range(1, len(lines), 2)]
    bare = [[line.partition("  #")[0] for line in pair] for pair in pairs]
    count = next(place for place, pair in enumerate(bare) if pair != bare[0])
    named = [f"    {line}" for line in pairs[0]]
    last = pairs[count - 1][-1].partition("# ")[2]
    opening = f"*(layer for _ in range({count}) for layer in (  # the two below, up to {last}"
    return [lines[0], opening, *named, ")),", *lines[1 + 2 * count :]]
