"""One file that holds a JSON header and numpy arrays: a zip, so that any zip tool and `numpy.load` open it too.

It is written atomically and checked as a whole. No pickle anywhere, and nothing in it is compressed, so reading it
takes no more memory than it is long.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cnnlab.config.settings import quote
from cnnlab.records import bounded_json
from cnnlab.records.atomic_files import check_ordinary, write_atomically

FORMAT = "cnnlab record"
VERSION = 1
"""Version of the format; a reader knows this one and those before it."""
HEADER = "cnnlab.json"
"""The first file in the zip."""
KINDS = ("<f8", "<f4", "<i8", "<i4", "<u4", "|u1")
"""What an array may hold, as numpy writes it."""
DIGITS = 64
"""Length of the SHA-256 digest in hexadecimal: the zip's comment, and with it the file's last bytes."""
MOST_BYTES = 2**31 - 1
"""Longest file. A zip that is any longer needs the extension called zip64, which is neither written nor read."""
MOST_ARRAYS = 65_000
MOST_TEXT = 2**25
"""Longest header, in bytes. What it becomes in memory is bounded too: 200,000 changes of a knob fit in."""
END = struct.Struct("<4s16x4s8xLLH")
"""Where a zip ends: mark of zip64; mark of the end, length and place of the directory, length of the comment."""
BEGINNING = struct.Struct("<4s22xHH")
"""Where a file in a zip begins: its mark, the lengths of its name and of what is added to that; its bytes follow."""
NPY = re.compile(rb"\{'descr': '([^']*)', 'fortran_order': False, 'shape': \(([\d, -]*)\), \} *\n")
"""The header of an .npy file, as numpy writes it for an array of plain numbers."""


def write(path: str | os.PathLike[str], header: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write header and arrays; whoever kills this at any moment finds the old file there or the new one.

    ValueError if they do not fit into a file, FileNotFoundError if there is no such folder.
    """
    text = json.dumps({"format": FORMAT, "version": VERSION, **header}, allow_nan=False).encode()
    refuse_too_much(path, text, arrays)
    with write_atomically(path) as file:
        fill(file, text, arrays)


def refuse_too_much(path: str | os.PathLike[str], text: bytes, arrays: Mapping[str, NDArray[Any]]) -> None:
    """ValueError if the file would be one that `open_archive` refuses."""
    size = len(text) + sum(array.nbytes + 512 for array in arrays.values())
    if size > MOST_BYTES or len(arrays) > MOST_ARRAYS or len(text) > MOST_TEXT:
        raise ValueError(
            f"{path} cannot hold this: it may hold {MOST_BYTES / 2**30:.0f} GiB, {MOST_ARRAYS} arrays and "
            f"{MOST_TEXT / 2**20:.0f} MiB of text, got {size / 2**30:.3g} GiB, {len(arrays)} arrays and "
            f"{len(text) / 2**20:.3g} MiB"
        )
    try:
        bounded_json.check_memory(text)
    except ValueError as reason:
        raise ValueError(f"{path} cannot hold this: {reason}") from None


def fill(file: BinaryIO, text: bytes, arrays: Mapping[str, NDArray[Any]]) -> None:
    """The zip, and in its comment the digest of all that comes before."""
    with zipfile.ZipFile(file, "w", allowZip64=False) as archive:
        archive.comment = bytes(DIGITS)
        archive.writestr(zipfile.ZipInfo(HEADER), text)
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    digest = compute_digest(file, file.seek(0, os.SEEK_END) - DIGITS)
    file.seek(-DIGITS, os.SEEK_END)
    file.write(digest)


def compute_digest(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first `size` bytes, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    for piece in read_pieces(file, size):
        digest.update(piece)
    return digest.hexdigest().encode()


def read_pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next `size` bytes of a file, as far as they are there, a megabyte at a time."""
    while size > 0 and (piece := file.read(min(size, 2**20))):
        yield piece
        size -= len(piece)


@dataclass(frozen=True, eq=False)
class Stored:
    """An array in an open file: kind and shape are known, its numbers are read when they are asked for."""

    file: BufferedReader
    start: int
    """Place of its first byte."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def locate(cls, file: BufferedReader, start: int, shape: Sequence[int], kind: str) -> Stored:
        """An array of a kind that numpy names so; ValueError if it is none of ours."""
        if kind not in KINDS:
            raise ValueError(f"an array in it may be of {', '.join(KINDS)}, got {quote(kind)}")
        return cls(file, start, tuple(shape), np.dtype(kind))

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes its numbers take."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """A copy of some rows, which follow each other."""
        first, last, _ = rows.indices(len(self))
        shape = (max(last - first, 0), *self.shape[1:])
        found = np.empty(math.prod(shape), self.dtype)
        self.file.seek(self.start + first * math.prod(self.shape[1:]) * self.dtype.itemsize)
        if self.file.readinto(found.view(np.uint8).data) != found.nbytes:
            raise ValueError("it was cut short while it was read")
        return found.reshape(shape)

    @cached_property
    def whole(self) -> NDArray[Any]:
        """All of it, read-only; it stays in memory."""
        found = self[:]
        found.flags.writeable = False
        return found


@contextlib.contextmanager
def open_archive(path: str | os.PathLike[str]) -> Iterator[tuple[dict[str, Any], dict[str, Stored]]]:
    """Header of a file and its arrays, not yet read; ValueError in one sentence if it is not whole or not ours.

    FileNotFoundError if there is none.
    """
    try:
        check_ordinary(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        refuse_foreign(file, size)
        refuse_broken(file, size)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
        yield read_contents(file, members, size)


def refuse_foreign(file: BinaryIO, size: int) -> None:
    """ValueError if the file does not begin as ours do, or is longer than any of ours."""
    if not size:
        raise ValueError("it is empty")
    file.seek(0)
    beginning = file.read(30 + len(HEADER))
    if beginning[:4] != b"PK\3\4" or beginning[30:] != HEADER.encode():
        raise ValueError("it is not a record that cnnlab saved")
    if size > MOST_BYTES:
        raise ValueError(f"it may be {MOST_BYTES} bytes long at most, got {size}")


def refuse_broken(file: BinaryIO, size: int) -> None:
    """ValueError if a byte is not as it was written, or the zip's directory is not where and as long as ours are.

    A digest is no seal: anybody can make one that is right. It is the lengths that keep a file from taking more
    memory than a record does.
    """
    file.seek(max(size - DIGITS, 0))
    if file.read() != compute_digest(file, size - DIGITS):
        raise ValueError("it was altered or cut short since it was saved")
    end = size - DIGITS
    file.seek(max(end - END.size, 0))
    zip64, mark, length, start, comment = END.unpack(file.read(END.size))
    if zip64 == b"PK\6\7" or mark != b"PK\5\6" or comment != DIGITS or start + length + 22 != end:
        raise ValueError("it is not a record that cnnlab saved")
    if length > 128 * MOST_ARRAYS:
        raise ValueError(f"it may hold {MOST_ARRAYS} arrays at most")


def read_contents(
    file: BufferedReader, members: list[zipfile.ZipInfo], size: int
) -> tuple[dict[str, Any], dict[str, Stored]]:
    """Header and arrays of a zip of so many bytes; ValueError if they are none, or of a later version."""
    first, *others = members
    if len(others) > MOST_ARRAYS:
        raise ValueError(f"it may hold {MOST_ARRAYS} arrays at most, got {len(others)}")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it holds something compressed")
    if sum(member.file_size for member in members) > size:
        raise ValueError("it says that it holds more than it does")
    if first.file_size > MOST_TEXT:
        raise ValueError(f"it may hold {MOST_TEXT / 2**20:.0f} MiB of text, got {first.file_size / 2**20:.0f} MiB")
    file.seek(find_start(file, first, size))
    header = bounded_json.parse(file.read(first.file_size))
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("it is not a record that cnnlab saved")
    version = header.get("version")
    if version not in range(1, VERSION + 1):
        raise ValueError(
            f"it is of version {version!r:.30} of the format, and this cnnlab reads those up to {VERSION}; "
            "a newer one may open it"
        )
    return header, {member.filename.removesuffix(".npy"): locate_array(file, member, size) for member in others}


def find_start(file: BufferedReader, member: zipfile.ZipInfo, size: int) -> int:
    """The place of a member's first byte in a file of so many bytes; ValueError if the member is not all there."""
    file.seek(member.header_offset)
    beginning = file.read(BEGINNING.size).ljust(BEGINNING.size)
    mark, name, more = BEGINNING.unpack(beginning)
    start = member.header_offset + BEGINNING.size + int(name) + int(more)
    if mark != b"PK\3\4" or start + member.file_size > size:
        raise ValueError("it says that it holds more than it does")
    return start


def locate_array(file: BufferedReader, member: zipfile.ZipInfo, size: int) -> Stored:
    """The array in an .npy file in the zip; ValueError unless that holds all its numbers, one after the other."""
    start = find_start(file, member, size)
    file.seek(start)
    magic = file.read(10)
    if magic[:8] != b"\x93NUMPY\1\0":
        raise ValueError("it holds an array in a form that numpy wrote later, or none")
    length = int.from_bytes(magic[8:], "little")
    told = NPY.fullmatch(file.read(length))
    if told is None:
        raise ValueError("it holds an array whose header numpy did not write")
    shape = tuple(int(axis) for axis in told[2].split(b",") if axis.strip())
    found = Stored.locate(file, start + 10 + length, shape, told[1].decode("ascii", "replace"))
    there = member.file_size - 10 - length
    if not all(0 <= axis <= MOST_BYTES for axis in shape) or found.nbytes != there:
        raise ValueError(f"an array in it says that its shape is {shape!r:.60}, but has {there} bytes")
    return found
