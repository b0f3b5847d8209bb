"""A record as a plain PyTorch script that trains the same run again, for reading and for taking apart.

Only text is made here.
"""

from __future__ import annotations

import base64
import os
import textwrap
import zlib

from torch import nn

from cnnlab.config.settings import Settings
from cnnlab.export.excerpts import BATCH, CLIP_FUNCTIONS, DRAWS, UNIT_VARIANCE, VIEWS
from cnnlab.export.schedule import Table, loop, on_cpu, placed
from cnnlab.records.atomic_files import write_atomically
from cnnlab.records.record import Record, record_in
from cnnlab.training.data import load_image, patches_of, updates_per_epoch
from cnnlab.training.network import question_network

WIDTH = 118
"""Characters in a line of prose."""
MOST_LINES = 150
"""Lines of a script."""
MOST_PIXELS = 500_000
"""Most pixels in the left half of the image, which a script holds as text."""
LAYERS = ("cv0", "cv1", "cv2", "cv3", "cv4", "cv5", "hid1", "hid2", "softmax")
"""The layers of the question's network."""


def export_script(record: Record, path: str | os.PathLike[str]) -> None:
    """Write a record of the question's network as a PyTorch script of at most 150 lines: torch and numpy, no cnnlab.

    It trains from the start with every change of knobs and prints one line an update, such as
    `update 1  cost 5.640552997589111`: on the machine of the record its costs to the last bit, on another one to 1e-5
    of them until the run explodes. It computes on the CPU unless the settings name another device. The file appears
    whole or not at all. ValueError for a record without updates, and for one of a network of your own.
    """
    record = record_in(record)
    if record.own_network or record.layers != LAYERS:
        raise ValueError("export_script writes the question's network only, got a record of a network of your own")
    if not len(record):
        raise ValueError("record must hold at least 1 update, got 0")
    content = script_of(record).encode()
    with write_atomically(path) as file:
        file.write(content)


def script_of(record: Record) -> str:
    """The whole text: the table of changed knobs takes as many lines as the rest leaves."""
    tight = text_of(record, 1)
    return text_of(record, max(1, MOST_LINES - 2 - len(tight.splitlines())))


def text_of(record: Record, room: int) -> str:
    """The whole text, with so many lines for the table of changed knobs."""
    settings, knobs = record.settings, Table.of(record)
    functions = [VIEWS, DRAWS[settings.init], *batch(settings), *clipping(settings, knobs)]
    body = "\n\n\n".join(
        [
            f"{data(settings)}\n\n{network(settings)}",
            *(text.strip("\n") for text in functions),
            f"{start(settings, knobs)}\n\n{knobs.text(settings, room)}\n\n{loop(settings, knobs, len(record))}",
        ]
    )
    return f"{heading(record)}\n\n{imports(body)}\n\n{body}\n"


def heading(record: Record) -> str:
    """The script's docstring."""
    run = f"{record.settings!r}, {len(record)} updates."
    form = (
        f"Prints one line an update, the first `update 1  cost {record.cost[0]}`: the recorded costs to the last bit "
        "where they were recorded; another machine rounds sums otherwise, and agrees to five digits until it explodes."
    )
    return "\n".join(
        [
            '"""Train the network of a recorded run again, in plain PyTorch. Written by cnnlab.',
            "",
            *textwrap.wrap(run, max(WIDTH, len(run) // 4 + 30)),
            *textwrap.wrap(form, WIDTH),
            '"""',
        ]
    )


def imports(body: str) -> str:
    """The import statements, and the one setting of torch that the costs depend on."""
    lines = [
        "import base64",
        *(["import math"] if "math." in body else []),
        "import zlib",
        "",
        "import numpy as np",
        "import torch",
        "from torch import nn",
        "",
        "torch.set_num_threads(1)  # several threads would add the same numbers in another order",
    ]
    return "\n".join(lines)


def data(settings: Settings) -> str:
    """The left half of the image as text, and the patches cut from it."""
    image, _ = load_image(settings.image)
    picture = image[:, : image.shape[1] // 2]
    if picture.size > MOST_PIXELS:
        raise ValueError(f"export_script writes images of at most {2 * MOST_PIXELS:,} pixels, got {image.size:,}")
    packed = base64.b64encode(zlib.compress(picture.tobytes(), 9)).decode()
    corners = ", ".join(f"({row}, {column})" for row, column in patches_of(settings).positions)
    count, size, device = settings.patches, settings.patch_size, placed(settings)
    scaled = {
        "raw": [],
        "unit": ["pixels = pixels / 255"],
        "standardised": ["pixels = (pixels - pixels.mean()) / pixels.std()"],
    }
    lines = [
        "# The left half of the image, brick and gravel: grey values from 0 to 255, compressed, as text.",
        f'PICTURE = "{packed}"',
        "# Row and column of the upper left pixel of each patch; patches of gravel and of brick take turns.",
        f"CORNERS = [{corners}]  # fmt: skip",
        f"picture = np.frombuffer(zlib.decompress(base64.b64decode(PICTURE)), np.uint8).reshape{picture.shape}",
        f"squares = [picture[None, row : row + {size}, column : column + {size}] for row, column in CORNERS]",
        "pixels = np.stack(squares).astype(np.float64)  # patches, channels, height, width",
        *scaled[settings.input_scaling],
        "x = torch.from_numpy(pixels.astype(np.float32))",
        f"y = torch.arange({count}{device}) % 2  # 0 is gravel, 1 is brick",
    ]
    return "\n".join(lines)


def network(settings: Settings) -> str:
    """The network's modules, a line a layer, and the shapes of its parameters."""
    lines: list[str] = []
    for name, module in question_network(settings).named_children():
        match module:
            case nn.Conv2d():
                lines.append(f"        nn.Conv2d({module.in_channels}, {module.out_channels}, 3),  # {name}")
            case nn.Linear():
                lines.append(f"        nn.Linear({module.in_features}, {module.out_features}),  # {name}")
            case nn.Flatten():
                lines.append("        nn.Flatten(),")
            case _:
                lines[-1] = lines[-1].replace(",  #", f", nn.{type(module).__name__}(),  #")
    return "\n".join(
        [
            "# The network. On torch's meta device it has shapes only; its weights are one long vector, drawn below.",
            'with torch.device("meta"):',
            "    network = nn.Sequential(",
            *lines,
            "    )  # fmt: skip",
            "SHAPES = {name: parameter.shape for name, parameter in network.named_parameters()}",
        ]
    )


def batch(settings: Settings) -> list[str]:
    """The function that chooses an update's patches, where it does not use them all."""
    count, size = settings.patches, settings.batch_size
    if size is None or size >= count:
        return []
    return [BATCH.format(updates=updates_per_epoch(count, size), seed=settings.seed, patches=count, size=size)]


def clipping(settings: Settings, knobs: Table) -> list[str]:
    """The functions that clip gradients; the half types compute norms in float32."""
    half = settings.precision in ("float16", "bfloat16")
    scaled = "finite / divisor * factor + (rows - finite)"
    functions = dict.fromkeys(text for kind in knobs.values("clip") for text in CLIP_FUNCTIONS.get(kind, ()))
    return [
        text.format(
            widened=".to(torch.float32)" if half else "",
            scaled=f"return ({scaled}).to(rows.dtype)" if half else f"return {scaled}",
            wide=", dtype=torch.float32" if half else "",
        )
        for text in functions
    ]


def start(settings: Settings, knobs: Table) -> str:
    """The initial parameters, and which of them the penalties act on."""
    scaled = "tensor" if settings.init_scale == 1 else f"({settings.init_scale} * tensor)"
    as_run = kept(settings)
    lines = [
        "# The initial weights are drawn in float64.",
        f"generator = torch.Generator().manual_seed({settings.seed})",
        "tensors = {name: draw(shape, generator) for name, shape in SHAPES.items()}",
        *([UNIT_VARIANCE.strip("\n")] if settings.init == "lsuv" else []),
        f"parameters = torch.cat([{scaled}.flatten() for tensor in tensors.values()]).to({as_run})",
        *([] if as_run == "torch.float32" else [f"x = x.to({as_run})"]),
    ]
    if "penalty_in" in knobs.columns:
        masks = f"[torch.full(shape, len(shape) >= 2{placed(settings)}).flatten() for shape in SHAPES.values()]"
        lines.append(f"is_weight = torch.cat({masks})")
    return "\n".join(lines)


def kept(settings: Settings) -> str:
    """Where, if not on the CPU, and as which type the run keeps its numbers."""
    where = "" if on_cpu(settings) else f'"{settings.device}", '
    return f"{where}torch.{settings.precision}"
