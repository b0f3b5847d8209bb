"""Files that ask for far more memory or time than they are worth, and honest ones of great length; what they take.

`KINDS` are written by tests/test_hostile.py and by tests/benchmarks/hostile.py, and each is opened in a process of its
own by `taken_by`.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from handmade import record_of
from PIL import Image

from cnnlab.config.settings import settings
from cnnlab.records import archive, map_lines
from cnnlab.records import storage as files
from cnnlab.records.frame import GAUGES, LAYER_GAUGES

Parts = tuple[dict, dict[str, np.ndarray]]


class Taken(NamedTuple):
    """What opening a file took."""

    verdict: str
    """"opened", or the sentence with which it was refused."""
    seconds: float
    """Of the processor, which others may use too."""
    size: int
    """Bytes of the file."""
    memory: int
    """Bytes of memory beyond those of a process that has imported all it needs."""


MEASURING = """
import sys, time
import numpy, PIL.Image
PIL.Image.init()
import cnnlab, cnnlab.records.storage, cnnlab.records.map, cnnlab.records.own_image, cnnlab.config.settings

def limit_memory():
    try:
        return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

way, path = sys.argv[1:]
ways = {
    "record": cnnlab.load,
    "map": cnnlab.Map.load,
    "image": lambda path: cnnlab.own_image(path, "texture"),
    "settings": lambda path: cnnlab.Settings.from_json(open(path).read()),
}
before, start = limit_memory(), time.process_time()
try:
    ways[way](path)
    verdict = "opened"
except (ValueError, TypeError) as refused:
    verdict = f"{refused}"
print(verdict, time.process_time() - start, limit_memory() - before, sep="\\t")
"""


def taken_by(way: str, path: Path) -> Taken:
    """Open a file in a process of its own."""
    run = subprocess.run([sys.executable, "-c", MEASURING, way, path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    verdict, seconds, memory = run.stdout.removesuffix("\n").split("\t")
    return Taken(verdict, float(seconds), path.stat().st_size, int(memory))


# Records.


FORMAT = {"format": archive.FORMAT, "version": 1}


def forge(path: Path, header: dict | bytes, arrays: dict[str, np.ndarray]) -> None:
    """A file with a right digest and whatever header and arrays a stranger likes."""
    text = header if isinstance(header, bytes) else json.dumps({**FORMAT, **header}).encode()
    with open(path, "wb+") as file:
        archive.fill(file, text, arrays)


def parts_of(rows: int, layers: int = 1) -> Parts:
    """Header and arrays of an honest record of so many rows."""
    record = record_of(np.arange(rows - 1), layers=tuple(f"layer {place}" for place in range(layers)))
    header = {
        "gauges": GAUGES,
        "layer_gauges": LAYER_GAUGES,
        "branches": [{**files.describe_branch(record), "snapshots": []}],
    }
    return header, {f"branch_1/{name}": array for name, array in files.pack_tables(record).items()}


def with_branch(rows: int = 6, **changes: object) -> Parts:
    """The same with some values of its branch replaced."""
    header, arrays = parts_of(rows)
    header["branches"][0].update(changes)
    return header, arrays


def with_text(name: str, text: str, rows: int = 6) -> tuple[bytes, dict[str, np.ndarray]]:
    """The same with a value of its branch replaced by JSON text."""
    header, arrays = with_branch(rows, **{name: "PLACE"})
    whole = json.dumps({**FORMAT, **header})
    return whole.replace('"PLACE"', text).encode(), arrays


def without_gauges(rows: int, ends: bool) -> Parts:
    """A record of nothing but rows: its table has no columns, its kernels no numbers."""
    header, arrays = with_branch(watched=[], layers=[f"layer {place}" for place in range(9)])
    header |= {"gauges": [], "layer_gauges": []}
    arrays |= {"branch_1/table": np.zeros((rows, 0)), "branch_1/kernels": np.zeros((rows, 0, 1, 1), np.float32)}
    arrays |= {f"branch_1/{name}": np.zeros(0, kind) for name, kind in {"places": "<u4", "counts": "<i4"}.items()}
    return header, arrays | ({"branch_1/ends": np.zeros(rows + 1, np.int64)} if ends else {})


def with_many_names() -> Parts:
    """Gauges and layers of which each is a few names, and all their columns ten million."""
    header, arrays = with_branch(layers=[f"{place:x}" for place in range(3000)])
    return header | {"layer_gauges": [f"{place:x}" for place in range(3000)]}, arrays


def with_changed(name: str, array: np.ndarray, rows: int = 6) -> Parts:
    """An honest record with one array replaced."""
    header, arrays = parts_of(rows)
    return header, arrays | {f"branch_1/{name}": array}


def without(name: str, parts: Parts) -> Parts:
    """A record without one of its arrays."""
    del parts[1][name]
    return parts


def long_schedule(changes: int, last: float = 0.01) -> Parts:
    """An honest record of which a knob was changed at each update."""
    entries = [[1, {}], *([step, {"learning_rate": 1 / step}] for step in range(2, changes + 1))]
    entries[-1][1]["learning_rate"] = last
    return with_branch(changes + 1, schedule=entries)


def wrong_at_the_end(rows: int) -> Parts:
    """A long record of which the last count is below 1."""
    header, arrays = parts_of(rows, layers=12)
    arrays["branch_1/counts"] = arrays["branch_1/counts"].copy()
    arrays["branch_1/counts"][-1] = 0
    return header, arrays


def with_image(shape: tuple[int, int]) -> Parts:
    """A record of an image of one's own that has a shape, and no pixels."""
    name = "own_" + "0" * 16
    header, arrays = with_branch(settings={"image": name})
    return header, arrays | {f"images/{name}/{part}": np.zeros(shape, np.uint8) for part in ("grey", "mask")}


def with_many_states(count: int) -> Parts:
    """A record of which each row but the first has a state of one byte."""
    entries = [[step, {"parameters": step}] for step in range(count)]
    header, arrays = with_branch(count, snapshots=entries)
    return header, arrays | {f"states/{step}": np.zeros(1, np.uint8) for step in range(count)}


def record(parts: Callable[[], tuple]) -> Callable[[Path], None]:
    """A way to write a record of such parts."""
    return lambda path: forge(path, *parts())


def pairs(count: int) -> str:
    """A list of so many changes of nothing."""
    return "[[1,{}]" + ",[1,{}]" * (count - 1) + "]"


RECORDS = {
    "no gauges, 2.5 million rows": record(lambda: without_gauges(2_500_000, ends=False)),
    "no gauges, 2.5 million rows and their ends": record(lambda: without_gauges(2_500_000, ends=True)),
    "no gauges, 60,000 rows": record(lambda: without_gauges(60_000, ends=True)),
    "nine million pairs in the schedule": record(lambda: with_text("schedule", pairs(9_000_000))),
    "two million pairs in the schedule": record(lambda: with_text("schedule", pairs(2_000_000))),
    "two million pairs in the layers": record(lambda: with_text("layers", pairs(2_000_000))),
    "two million pairs in the snapshots": record(lambda: with_text("snapshots", pairs(2_000_000))),
    "half a million pairs in the schedule": record(lambda: with_text("schedule", pairs(500_000))),
    "half a million equal snapshots": record(lambda: with_text("snapshots", pairs(500_000))),
    "lists in lists": record(lambda: with_text("layers", "[" * 900 + "]" * 900)),
    "a hundred thousand lists in lists": record(lambda: with_text("layers", "[" * 100_000 + "]" * 100_000)),
    "many lists in lists": record(lambda: with_text("watched", "[" + "[[[[]]]]," * 3_000_000 + "1]")),
    "six million empty objects as branches": record(
        lambda: (json.dumps({**FORMAT, "branches": []}).replace("[]", "[" + "{}," * 6_000_000 + "1]").encode(), {})
    ),
    "a million layers": record(lambda: with_branch(layers=[f"{place:x}" for place in range(1_000_000)])),
    "a million equal layers": record(lambda: with_text("layers", '["a"' + ',"a"' * 1_000_000 + "]")),
    "a million watched weights": record(lambda: with_branch(watched=[f"{place:x}" for place in range(1_000_000)])),
    "gauges times layers": record(with_many_names),
    "a text of 30 MB with one wide letter": record(
        lambda: with_text("watched", '["' + "a" * 30_000_000 + '\\ud83d\\ude00"]')
    ),
    "a setting of 30 MB": record(lambda: with_branch(settings={"preset": "a" * 30_000_000})),
    "a number of 4,000 digits": record(lambda: with_text("updates_per_epoch", "9" * 4000)),
    "a number of a million digits": record(lambda: with_text("updates_per_epoch", "9" * 1_000_000)),
    "a fork at an update of 4,000 digits": record(
        lambda: with_text("branch", f'{{"number": 1, "parent": null, "forked_at": {"9" * 4000}}}')
    ),
    "kernels of a billion rows and no numbers": record(
        lambda: with_changed("kernels", np.zeros((6, 0, 10**9, 1), np.float32))
    ),
    "an image without pixels": record(lambda: with_image((10**9, 0))),
    "a count of 0 at the end of 200 MB": record(lambda: wrong_at_the_end(150_000)),
    "sixty thousand states, and one that is missing": record(lambda: without("states/59999", with_many_states(60_000))),
    "sixty-five thousand and one arrays": record(lambda: with_many_states(64_996)),
    "two hundred thousand changes of a knob, the last too large": record(lambda: long_schedule(200_000, last=2e6)),
    "sixty thousand states": record(lambda: with_many_states(60_000)),
    "a hundred thousand changes of a knob": record(lambda: long_schedule(100_000)),
    "two hundred thousand changes of a knob": record(lambda: long_schedule(200_000)),
}


# Maps.


AXES = [("learning_rate", np.geomspace(1e-6, 1, 512).tolist()), ("init_scale", np.linspace(0.1, 1, 512).tolist())]


def heading(**changes: object) -> str:
    """The first line of a map's file, with some values replaced."""
    told = {"axes": (("learning_rate", (0.1, 0.2)),), "seeds": (0,), "steps": 3, **changes}
    return map_lines.format_heading(settings(), **told) + "\n"


def run_line(index: int, cost: str) -> str:
    """The line of a run."""
    return f'{{"run": {index}, "cost": [{cost}], "began": 1.0, "ended": 1.0, "held_out_accuracy": 0.5}}\n'


def text(content: Callable[[], str | bytes]) -> Callable[[Path], None]:
    """A way to write a text."""

    def write(path: Path) -> None:
        made = content()
        path.write_bytes(made if isinstance(made, bytes) else made.encode())

    return write


def runs(count: int, cost: str) -> str:
    """The lines of so many runs."""
    return "".join(run_line(index, cost) for index in range(count))


def sparse(size: int, beginning: bytes = b"") -> Callable[[Path], None]:
    """A way to write a file that is long, and takes no room on the disk."""

    def write(path: Path) -> None:
        path.write_bytes(beginning)
        os.truncate(path, size)

    return write


MAPS = {
    "fifty million steps": text(lambda: heading(steps=50_000_000)),
    "4 GiB of costs, none computed": text(lambda: heading(axes=AXES, steps=2000)),
    "a million runs": text(lambda: heading(axes=AXES, seeds=tuple(range(4)))),
    "every run lost at once": text(lambda: heading(axes=AXES, steps=2000) + runs(2**18, '"nan"')),
    "a cost of 400 digits": text(lambda: heading() + run_line(0, f"1.0, 1.0, 1{'0' * 400}")),
    "a run of 4,000 digits": text(lambda: heading() + run_line(0, "1.0, 1.0, 1.0").replace("0", "9" * 4000, 1)),
    "a map of lists in lists": text(lambda: "[" * 100_000 + "\n"),
    "a run of lists in lists": text(lambda: heading() + '{"run": ' + "[" * 100_000 + "\n"),
    "five million empty objects as seeds": text(
        lambda: heading().replace('"seeds": [0]', '"seeds": [' + "{}," * 5_000_000 + "1]")
    ),
    "a million texts as an axis": text(lambda: heading(axes=(("l1", ["a"] * 1_000_000),))),
    "a million values on three axes": text(
        lambda: heading(axes=[(name, [0.1] * 400_000) for name in ("l1", "l2", "momentum")])
    ),
    "noise": text(lambda: np.random.default_rng(0).bytes(20_000_000)),
    "a line of 8 GiB": sparse(2**33),
    "a heading and a line of 8 GiB": sparse(2**33, heading().encode()),
    "a whole map": text(lambda: heading(axes=AXES, steps=20) + runs(2**16, ", ".join(["0.6931471805599453"] * 20))),
}


# Images, and texts.


def picture(kind: str, shape: tuple[int, ...], dtype: type = np.uint8, **options: object) -> Callable[[Path], None]:
    """A way to write a picture of numbers that rise from row to row."""

    def write(path: Path) -> None:
        rows = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        Image.fromarray(np.broadcast_to(rows, shape).astype(dtype)).save(path, kind, **options)

    return write


def bytes_of(kind: str, array: np.ndarray) -> bytes:
    """A picture's file."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def damaged_dds(path: Path) -> None:
    """A DDS of a form that pillow does not know."""
    whole = bytearray(bytes_of("DDS", np.zeros((64, 64, 4), np.uint8)))
    whole[76:88] = b"\x20\0\0\0\x04\0\0\0ZZZZ"
    path.write_bytes(whole)


def bomb(path: Path) -> None:
    """A PNG of 60,000 x 60,000 pixels in a few hundred bytes."""
    chunks = [b"IHDR" + (60000).to_bytes(4, "big") * 2 + b"\x08\0\0\0\0", b"IDAT" + zlib.compress(bytes(1000)), b"IEND"]
    body = b"".join((len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


LARGE = (4000, 5750)
"""23 megapixels."""
PACKED = {"compression": "tiff_adobe_deflate"}
IMAGES = {
    "PNG of 23 megapixels": picture("PNG", LARGE),
    "PNG of 23 megapixels with transparency": picture("PNG", (*LARGE, 4), compress_level=1),
    "PNG of 23 megapixels of 16 bits": picture("PNG", LARGE, np.uint16),
    "PNG of 26 rows": picture("PNG", (26, 900_000)),
    "PNG of 30 columns": picture("PNG", (760_000, 30)),
    "JPEG of 23 megapixels": picture("JPEG", (*LARGE, 3)),
    "TIFF of 23 million floats": picture("TIFF", LARGE, np.float32, **PACKED),
    "TIFF of 23 million whole numbers": picture("TIFF", LARGE, np.int32, **PACKED),
    "WEBP of 23 megapixels": picture("WEBP", (*LARGE, 3)),
    "WEBP of 12 megapixels": picture("WEBP", (3000, 4000, 4)),
    "JPEG 2000 of 23 megapixels": picture("JPEG2000", (*LARGE, 3)),
    "JPEG 2000 of 10 megapixels": picture("JPEG2000", (2500, 4000, 4)),
    "DDS damaged": damaged_dds,
    "PNG of 3.6 gigapixels": bomb,
    "EPS": picture("EPS", (64, 64, 3)),
    "image of 8 GiB": sparse(2**33),
}
TEXTS = {
    "settings of lists in lists": text(lambda: "[" * 100_000),
    "settings of 30 MB": text(lambda: '{"seed": "' + "9" * 30_000_000 + '"}'),
    "settings of a name of 90,000 letters": text(lambda: '{"' + "a" * 90_000 + '": 1}'),
}
KINDS = {
    **{name: ("record", write) for name, write in RECORDS.items()},
    **{name: ("map", write) for name, write in MAPS.items()},
    **{name: ("image", write) for name, write in IMAGES.items()},
    **{name: ("settings", write) for name, write in TEXTS.items()},
}
"""What a file is -> the way that it is opened, and how it is written."""
OPENED = {
    "no gauges, 60,000 rows",
    "a hundred thousand changes of a knob",
    "two hundred thousand changes of a knob",
    "sixty thousand states",
    "4 GiB of costs, none computed",
    "every run lost at once",
    "a whole map",
    *(name for name in IMAGES if name.startswith(("PNG of 2", "PNG of 30", "JPEG of", "TIFF"))),
    "WEBP of 12 megapixels",
    "JPEG 2000 of 10 megapixels",
}
"""Those that are opened; all others are refused."""
