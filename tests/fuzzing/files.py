"""Fuzz of what is read: records, maps, links, settings and images, each a valid one with some changes.

A file is first a value of JSON and bytes, whose structure is changed, then bytes, which are changed again. A record is
sealed after that, so that its digest is right and the changes get past it, unless a move says that it is not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

import cnnlab
from cnnlab import archive, given_image, verdict
from cnnlab.links import link_of, moment_of, opened
from cnnlab.maps import ARRAYS, Map
from cnnlab.records import Record
from cnnlab.settings import Settings, settings
from fuzzing.invariants import REFUSED, outcome, rationed, require
from fuzzing.mutations import PYTHON, change, changed, changes, mutated, splice

Moves = list[tuple[Any, ...]]
"""("tree", place, value), ("many", place), ("bytes", start, stop, bytes in their stead), and more of each kind."""
Write = Callable[[Any], bytes]
"""How a tree becomes a file."""
SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "learning_rate": 1e-4}
"""Settings with which a run takes some milliseconds."""


def moves_on(
    tree: Any, write: Callable[[Any], bytes], random: Random, in_bytes: float = 0.3, large: float = 0
) -> Moves:
    """Up to three changes of a tree, or with these chances some of the bytes that it is written as, or a large one."""
    if random.random() < large:
        return [("many", change(random, tree)[0])]
    moves: Moves = [("tree", *each) for each in changes(random, tree, 3)]
    if random.random() < in_bytes:
        moves = moves[: random.randint(0, 1)]
        content = written(tree, write, moves)
        moves += [("bytes", *splice(random, content)) for _ in range(random.randint(1, 3))]
    return moves


def written(tree: Any, write: Write, moves: Moves) -> bytes:
    """The bytes of a tree after these moves."""
    content = write(changed(tree, [(*move[1:], many())[:2] for move in moves if move[0] in ("tree", "many")]))
    for _, start, stop, piece in (move for move in moves if move[0] == "bytes"):
        content = content[:start] + piece + content[stop:]
    return content


@functools.cache
def many() -> list[Any]:
    """What takes 32 MB as text, and twenty times as much in memory."""
    return [{}] * 8_000_000


def text_of(value: Any) -> bytes:
    """JSON text; whatever JSON has no form for is written as text."""
    return json.dumps(value, default=repr).encode()


def small(start: Settings) -> bool:
    """Whether a run of these settings is quickly made."""
    return start.channels <= 16 and max(start.hidden) <= 64 and start.patches <= 100 and start.patch_size <= 20


# -- records


@functools.cache
def record_tree() -> dict[str, Any]:
    """The file of a tree of branches that go to NaN, on an image of one's own, taken apart."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 60), dtype=np.uint8)
    run = cnnlab.Run("question", **{**SMALL, "learning_rate": 1e-3}, image=cnnlab.own_image(noise))
    run.advance(3)
    run.set(learning_rate=1e4, momentum=0.5)
    run.advance(3)
    twin = run.fork(4, clip="norm")
    twin.advance(2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.cnnlab"
        dataclasses.replace(run.record, others=(twin.record,)).save(path)
        header, arrays = archive.read(path)
    return {"header": header, "members": [member_of(name, array) for name, array in arrays.items()]}


def member_of(name: str, array: np.ndarray) -> dict[str, Any]:
    """What the zip says of an array, and its bytes."""
    said = {"descr": array.dtype.str, "fortran_order": False, "shape": list(array.shape)}
    return {"name": f"{name}.npy", "said": said, "version": 1, "data": array.tobytes(), "compressed": False}


def record_bytes(tree: Any) -> bytes:
    """The zip that a tree tells of, whatever it tells; unsealed."""
    stream = io.BytesIO()
    parts = tree if isinstance(tree, dict) else {}
    members = parts.get("members")
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as file:
        warnings.simplefilter("ignore")  # of two members with one name
        file.comment = bytes(archive.DIGITS)
        file.writestr(zipfile.ZipInfo(archive.HEADER), text_of(parts.get("header")))
        for member in members[:1000] if isinstance(members, list) else []:
            told = member if isinstance(member, dict) else {}
            name = str(told.get("name")).encode("utf-8", "replace").decode()[:1000]
            kind = zipfile.ZIP_DEFLATED if told.get("compressed") else zipfile.ZIP_STORED
            file.writestr(zipfile.ZipInfo(name), array_bytes(told), kind)
    return stream.getvalue()


def array_bytes(told: dict[str, Any]) -> bytes:
    """The .npy file that a member tells of, its header as numpy writes it wherever that can be."""
    said, data, stream = told.get("said"), told.get("data"), io.BytesIO()
    if isinstance(said, dict) and isinstance(said.get("shape"), list):
        said = {**said, "shape": tuple(said["shape"])}
    first = told.get("version") == 1
    try:
        (np.lib.format.write_array_header_1_0 if first else np.lib.format.write_array_header_2_0)(stream, said)
    except Exception:  # whatever numpy says of what is no header
        text = repr(said).encode("utf-8", "replace")[:60_000] + b"\n"
        stream = io.BytesIO()
        stream.write(b"\x93NUMPY" + bytes([1, 0]) + struct.pack("<H", len(text)) + text)
    return stream.getvalue() + (data if isinstance(data, bytes) else text_of(data))


def sealed(content: bytes) -> bytes:
    """The bytes with the digest that they ought to end with."""
    body = content[: -archive.DIGITS]
    return body + hashlib.sha256(body).hexdigest().encode()


def rearranged(member: dict[str, Any], way: str, number: int) -> dict[str, Any]:
    """A member whose array is whole, but another one; or is said to be larger than it is."""
    if way == "declared":
        said = {**member["said"], "shape": [10 ** (number % 13), *member["said"]["shape"][1:]]}
        return {**member, "said": said}
    array = np.frombuffer(member["data"], member["said"]["descr"]).reshape(member["said"]["shape"])
    match way:
        case "cut":
            array = array[: number % (len(array) + 1)]
        case "doubled":
            array = np.concatenate([array, array[: number % 4 + 1]])
        case "axes":
            array = array[None] if number % 2 else array.ravel()
        case "kind":
            with np.errstate(all="ignore"):
                array = array.astype(archive.KINDS[number % len(archive.KINDS)])
        case _:  # zero, NaN or the largest and smallest numbers that there are
            array = array.copy()
            place = number % max(1, array.size)
            array.reshape(-1)[place : place + 1].view(np.uint8)[:] = (0, 127, 255)[number % 3]
    return member_of(member["name"].removesuffix(".npy"), array)


def record_moves(random: Random) -> Moves:
    """Changes of whole arrays; or of the structure and the bytes; and now and then no seal."""
    sealing: Moves = [("unsealed",)] if random.random() < 0.1 else []
    if random.random() < 0.6:
        return [*moves_on(record_tree(), record_bytes, random, large=0.008), *sealing]
    members = range(len(record_tree()["members"]))
    ways = ("cut", "doubled", "axes", "kind", "declared", "value", "value", "value")
    chosen = ((random.choice(members), random.choice(ways), random.randrange(10**4)) for _ in range(3))
    return [*(("array", *each) for each in itertools.islice(chosen, random.randint(1, 3))), *sealing]


def try_record(moves: Moves, folder: Path) -> bool:
    """Load the file; a record that is there is good for all that records are."""
    members = list(record_tree()["members"])
    for _, number, *how in (move for move in moves if move[0] == "array"):
        with contextlib.suppress(ValueError):  # of an array that is said to be larger than it is
            members[number] = rearranged(members[number], *how)
    tree = {**record_tree(), "members": members}
    content = written(tree, record_bytes, [move for move in moves if move[0] in ("tree", "many", "bytes")])
    path = folder / "odd.cnnlab"
    path.write_bytes(content if ("unsealed",) in moves else sealed(content))
    altered = path.read_bytes() != sealed(content)
    with rationed(len(content)):
        record = outcome(lambda: cnnlab.load(path), name=str(path))
        if record is REFUSED:
            return False
        require(not altered, "a file that was altered is opened")
        for branch in (record, *record.others):
            use(branch)
        record.save(folder / "again.cnnlab")
        require(same(cnnlab.load(folder / "again.cnnlab"), record), "a record that was opened changes when it is saved")
        if small(record.settings):
            outcome(lambda: cnnlab.Run(record).step())
    return True


def use(record: Record) -> None:
    """What a person does with a record that was opened."""
    repr(record)
    verdict.state_line(record)
    verdict.before_explosion(record)
    repr(record.until(len(record) // 2))
    _ = record.histograms[-1].sum(), record.frames[-1].nonfinite
    outcome(record.link)


def same(first: Record, second: Record) -> bool:
    """Whether two trees of branches agree to the bit."""

    def content(record: Record) -> tuple[Any, ...]:
        kept = record.histograms
        arrays = (record.table, record.kernels, kept.ends, kept.places[: kept.ends[-1]], kept.counts[: kept.ends[-1]])
        states = [(each.step, {name: array.tobytes() for name, array in each.arrays.items()})
                  for each in record.take_snapshots() if each.step <= len(record)]  # fmt: skip
        plain = record.settings, record.layers, record.watched, record.schedule, record.branch, record.own_network
        return *plain, [(array.shape, array.tobytes()) for array in arrays], states

    pairs = zip((first, *first.others), (second, *second.others), strict=True)
    return all(content(one) == content(other) for one, other in pairs)


# -- maps


@functools.cache
def map_tree() -> dict[str, Any]:
    """A map of two rates, two clips' thresholds and two seeds, all but one run computed, taken apart."""
    axes = (("learning_rate", (0.01, 0.1)), ("batch_size", (2.0, 4.0)))
    made = Map.empty(settings(**SMALL), axes, (4, 5), 3)
    for index in range(7):
        made.put(index, [5.0, np.nan] if index == 3 else [5.0, 4.0, 3.0 + index], 5.0, 3.0, 0.75)
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder) / "map")
        heading, *runs = map(json.loads, (Path(folder) / "map").read_text().splitlines())
    return {"heading": heading, "runs": runs}


def map_bytes(tree: Any) -> bytes:
    """The lines that a tree tells of."""
    parts = tree if isinstance(tree, dict) else {"heading": tree}
    runs = parts.get("runs")
    lines = [parts.get("heading"), *(runs[:100_000] if isinstance(runs, list) else [])]
    return b"".join(text_of(line) + b"\n" for line in lines)


def map_moves(random: Random) -> Moves:
    """Changes of the map."""
    return moves_on(map_tree(), map_bytes, random, large=0.008)


def try_map(moves: Moves, folder: Path) -> bool:
    """Load the file; a map that is there can be shown and saved."""
    content = written(map_tree(), map_bytes, moves)
    path = folder / "odd.map"
    path.write_bytes(content)
    with rationed(len(content)):
        found = outcome(lambda: Map.load(path), name=str(path))
        if found is REFUSED:
            return False
        repr(found)
        for place in list(np.ndindex(found.shape))[:20]:
            found.at(*place)
            found.settings_at(*place)
        found.save(folder / "again.map")
        again = Map.load(folder / "again.map")
    for name in ARRAYS:
        one, other = getattr(found, name), getattr(again, name)
        require(np.array_equal(one, other, equal_nan=name != "done"), f"{name} of a map changes when it is saved")
    return True


# -- links and settings

LINK = {
    "preset": "question",
    "parts": [["channels", "2"], ["hidden", "4,4"], ["patch_size", "13"], ["patches", "8"], ["batch_size", "none"],
              ["at3.momentum", "0.5"], ["at12.l2", "1e-3"], ["look", "2"]],
}  # fmt: skip
"""A link, taken apart."""
OPTIONS: dict[str, dict[str, Any]] = {
    "lab options": {"scale": 1.5, "watch": ["hid1.weight[0,0]"], "cost": "log_softmax", **SMALL},
    "run options": {"history_bytes": 2**20, "watch": ["hid1.weight[0,0]"], "cost": "log_softmax", **SMALL},
}
"""What a Lab and a Run are given by keyword."""


def link_bytes(tree: Any) -> bytes:
    """The link that a tree tells of."""
    parts = tree if isinstance(tree, dict) else {"preset": tree}
    listed = parts.get("parts")
    pairs = ["=".join(map(str, part)) if isinstance(part, list) else str(part)
             for part in (listed if isinstance(listed, list) else [])]  # fmt: skip
    return f"cnnlab:{parts.get('preset')}?{'&'.join(pairs)}".encode("utf-8", "surrogatepass")


def link_moves(random: Random) -> Moves:
    """Changes of a link; or something else that is asked to be opened; and whether a lab is made, or how."""
    way = random.random()
    if way < 0.1:
        return [("instead", random.choice(PYTHON))]
    if way < 0.2:
        return [(name, mutated(random, options, PYTHON)) for name, options in OPTIONS.items()]
    moves = moves_on(LINK, link_bytes, random)
    return [*moves, ("lab",)] if random.random() < 0.05 else moves


def try_link(moves: Moves, _folder: Path) -> bool:
    """Open the link; a run of it has a link that gives the same settings and plan."""
    made = [make_by_options(*move) for move in moves if move[0] in OPTIONS]
    if made:
        return all(made)
    link: Any = written(LINK, link_bytes, [move for move in moves if move[0] in ("tree", "many", "bytes")])
    link = next((move[1] for move in moves if move[0] == "instead"), link.decode("utf-8", "surrogateescape"))
    found = outcome(lambda: opened(link))
    if found is REFUSED:
        outcome(lambda: cnnlab.Run(link))
        outcome(lambda: cnnlab.Lab(link).close())
        return False
    moment_of(link)
    again = link_of(*found)
    require(link_of(*opened(again)) == again, "a link of what a link has opened opens something else")
    if small(found[0]):
        made = outcome(lambda: cnnlab.Run(link))
        require(made is REFUSED or made.step().step == 1, "a run of a link does not train")
        if ("lab",) in moves:
            outcome(lambda: cnnlab.Lab(link).close())
    return True


def make_by_options(name: str, options: Any) -> bool:
    """Whether a lab or a run is made with such keywords; one that would be large is not tried."""
    given = options if isinstance(options, dict) else {}
    given = {name: value for name, value in given.items() if isinstance(name, str)}
    if any(isinstance(given.get(name, 0), int) and given.get(name, 0) > 40 for name in SMALL):
        return False
    make = cnnlab.Run if name == "run options" else cnnlab.Lab
    made = outcome(lambda: make("question", **given))
    _ = made is not REFUSED and made is not None and getattr(made, "close", bool)()
    return made is not REFUSED


def settings_tree() -> dict[str, Any]:
    """All fields of some settings."""
    return json.loads(settings(**SMALL).to_json())


def settings_moves(random: Random) -> Moves:
    """Changes of JSON text; or of values given by keyword, where anything may come."""
    if random.random() < 0.5:
        return moves_on(settings_tree(), text_of, random)
    return [("tree", *each) for each in changes(random, settings_tree(), 3, PYTHON)] + [("by keyword",)]


def try_settings(moves: Moves, _folder: Path) -> bool:
    """Make settings; those that are made come back from their text, their link and their representation."""
    if ("by keyword",) in moves:
        values = changed(settings_tree(), [move[1:] for move in moves if move[0] == "tree"])
        by_name = isinstance(values, dict) and all(isinstance(name, str) for name in values)
        made = outcome(lambda: settings(**values) if by_name else settings(values))
    else:
        text = written(settings_tree(), text_of, moves)
        made = outcome(lambda: Settings.from_json(text.decode("utf-8", "surrogateescape")))
    if made is REFUSED:
        return False
    require(Settings.from_json(made.to_json()) == made, "settings are not those of their text")
    require(opened(link_of(made, ()))[0] == made, "settings are not those of their link")
    require(eval(repr(made), {"settings": settings}) == made, "settings are not those of their representation")
    return True


# -- images


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
