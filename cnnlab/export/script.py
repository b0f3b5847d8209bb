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
from cnnlab.training.network import make_question_network

TEMPLATE = "run.py.jinja"
MOST_LINES = 150
"""Lines of a script."""
MOST_PIXELS = 500_000
"""Most pixels in the left half of the image, which a script holds as text."""
LAYERS = ("cv0", "cv1", "cv2", "cv3", "cv4", "cv5", "hid1", "hid2", "softmax")
"""The layers of the question's network."""


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
    """The network's modules, a line a layer."""
    table_lines: int = 1
    """Lines that the table of changed knobs may take."""


def export_script(record: Record, path: str | os.PathLike[str]) -> None:
    """Write a record of the question's network as a PyTorch script of at most 150 lines: torch and numpy, no cnnlab.

    It trains from the start with every change of knobs and prints one line an update, such as
    `update 1  cost 5.640552997589111`: on the machine of the record its costs to the last bit, on another one to 1e-5
    of them until the run explodes. It computes on the CPU unless the settings name another device. The file appears
    whole or not at all. ValueError for a record without updates, and for one of a network of your own.
    """
    record = find_record(record)
    if record.own_network or record.layers != LAYERS:
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
        layers=write_layers(settings),
    )
    rest = len(render(TEMPLATE, context).splitlines()) - context.table_lines
    return render(TEMPLATE, dataclasses.replace(context, table_lines=max(1, MOST_LINES - rest)))


def write_layers(settings: Settings) -> list[str]:
    """The network's modules, a line a layer."""
    lines: list[str] = []
    for name, module in make_question_network(settings).named_children():
        match module:
            case nn.Conv2d():
                lines.append(f"nn.Conv2d({module.in_channels}, {module.out_channels}, 3),  # {name}")
            case nn.Linear():
                lines.append(f"nn.Linear({module.in_features}, {module.out_features}),  # {name}")
            case nn.Flatten():
                lines.append("nn.Flatten(),")
            case _:
                lines[-1] = lines[-1].replace(",  #", f", nn.{type(module).__name__}(),  #")
    return lines
