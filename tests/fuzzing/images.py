"""Fuzz of images: files of all forms with changed bytes, a PNG with changed chunks, arrays and what is none."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

import cnnlab
from cnnlab.config.settings import settings
from cnnlab.records import own_image as given_image
from fuzzing.invariants import REFUSED, outcome, rationed, require
from fuzzing.moves import Moves, moves_on, written
from fuzzing.mutations import PYTHON, mutated, splice


@functools.cache
def pictures() -> dict[str, bytes]:
    """A picture in each of the forms that people have, by name."""
    grey = np.random.default_rng(0).integers(0, 256, (20, 40), dtype=np.uint8)
    plain = Image.fromarray(grey)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    kinds = {"PNG": plain, "JPEG": plain.convert("RGB"), "GIF": plain, "BMP": plain, "TIFF": deep, "WEBP": plain,
             "DDS": plain.convert("RGBA"), "PPM": plain, "TGA": plain, "ICO": plain, "PCX": plain}  # fmt: skip
    found = {}
    for name, picture in kinds.items():
        stream = io.BytesIO()
        more = {"save_all": True, "append_images": [plain.rotate(180)]} if name in ("GIF", "TIFF") else {}
        picture.save(stream, name, **more)
        found[name] = stream.getvalue()
    return found


@functools.cache
def chunks() -> list[list[Any]]:
    """The chunks of the PNG: what each is called, the width and height that it tells of, and its further bytes."""
    content, place, found = pictures()["PNG"], 8, []
    while place < len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        data = content[place + 8 : place + 8 + length]
        sizes = list(struct.unpack(">II", data[:8])) if name == b"IHDR" else []
        found.append([name.decode(), sizes, data[4 * len(sizes) :]])
        place += 12 + length
    return found


def png_bytes(tree: Any) -> bytes:
    """The PNG of such chunks, each with a check sum that is right."""
    content = b"\x89PNG\r\n\x1a\n"
    for chunk in tree if isinstance(tree, list) else []:
        name, sizes, data, *_ = (*chunk, b"", b"", b"") if isinstance(chunk, list) else ("tEXt", [], b"")
        body = (str(name).encode("ascii", "replace") + b"    ")[:4]
        body += b"".join(
            struct.pack(">I", int(size) % 2**32)
            for size in (sizes if isinstance(sizes, list) else [])
            if isinstance(size, int)
        )
        body += data if isinstance(data, bytes) else b""
        content += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return content


def image_moves(random: Random) -> Moves:
    """Changes of a file of any form, of a PNG's chunks, of an array, or something else in its place; and labels."""
    way = random.random()
    if way < 0.5:
        name = random.choice(list(pictures()))
        moves: Moves = [("form", name)]
        moves += [("bytes", *splice(random, pictures()[name])) for _ in range(random.randint(1, 3))]
    elif way < 0.75:
        moves = moves_on(chunks(), png_bytes, random, in_bytes=0)
    else:
        spec = {"shape": random.choice(([20, 40], [20, 40, 3])), "kind": "<f8", "value": 0.5}
        moves = [("array", mutated(random, spec))] if way < 0.9 else [("instead", random.choice(PYTHON))]
    labels = random.choice(("halves", "texture", random.choice(PYTHON)))
    return [*moves, ("labels", labels)] if random.random() < 0.3 else moves


def try_image(moves: Moves, folder: Path) -> bool:
    """Take the image, as bytes and as a file; what is taken has labels of its own shape."""
    told = {move[0]: move[1] for move in moves if move[0] in ("form", "array", "instead", "labels")}
    source = told["instead"] if "instead" in told else array_of(told["array"]) if "array" in told else None
    if source is None and "instead" not in told:
        content = pictures()[told["form"]] if "form" in told else None
        rest = [move for move in moves if move[0] in ("tree", "many", "bytes")]
        source = written(chunks(), png_bytes if content is None else lambda _: content, rest)
    with rationed(len(source) if isinstance(source, bytes) else 0):
        name = outcome(lambda: cnnlab.own_image(source, told.get("labels", "halves")))
        if isinstance(source, bytes):
            path = folder / "odd.image"
            path.write_bytes(source)
            outcome(lambda: cnnlab.own_image(path))
    if name is REFUSED:
        return False
    image, mask = given_image.kept(name)
    require(image.shape == mask.shape and image.dtype == mask.dtype == np.uint8, "an image and its labels do not fit")
    require(settings(image=name).image == name, "the name of an image is refused")
    return True


def array_of(spec: Any) -> Any:
    """An array of such a shape, kind and value; if there is none, the description itself."""
    try:
        if np.prod(np.array(spec["shape"], dtype=float)) > 1e6:
            return spec
        with np.errstate(all="ignore"):
            return np.full(spec["shape"], spec["value"]).astype(spec["kind"])
    except Exception:  # whatever numpy will not make
        return spec
