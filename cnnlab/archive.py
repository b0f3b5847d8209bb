"""One file that holds a JSON header and numpy arrays: a zip, so that any zip tool and `numpy.load` open it too.

It is written at one stroke and checked as a whole. No pickle anywhere, and nothing in it is compressed, so reading it
takes no more memory than it is long. Imports numpy, and nothing from cnnlab.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import secrets
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

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
MOST_TEXT = 2**26
"""Longest header, in bytes: a million changes of a knob fit in."""
END = struct.Struct("<4s16x4s8xLLH")
"""Where a zip ends: mark of zip64; mark of the end, length and place of the directory, length of the comment."""


def write(path: str | os.PathLike[str], header: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write header and arrays; whoever kills this at any moment finds the old file there or the new one.

    ValueError if they do not fit into a file, FileNotFoundError if there is no such folder.
    """
    place = Path(os.path.realpath(path))
    text = json.dumps({"format": FORMAT, "version": VERSION, **header}, allow_nan=False).encode()
    refuse_too_much(path, text, arrays)
    if place.is_dir():
        raise ValueError(f"{path} is a folder, not a file to save in")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {place.parent} to save in")
    part = place.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb+") as file:
            fill(file, text, arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, place)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    keep_folder(place.parent)


def refuse_too_much(path: str | os.PathLike[str], text: bytes, arrays: Mapping[str, NDArray[Any]]) -> None:
    """ValueError if the file would be one that `read` refuses."""
    size = len(text) + sum(array.nbytes + 512 for array in arrays.values())
    if size > MOST_BYTES or len(arrays) > MOST_ARRAYS or len(text) > MOST_TEXT:
        raise ValueError(
            f"{path} cannot hold this: it may hold {MOST_BYTES / 2**30:.0f} GiB, {MOST_ARRAYS} arrays and "
            f"{MOST_TEXT / 2**20:.0f} MiB of text, got {size / 2**30:.3g} GiB, {len(arrays)} arrays and "
            f"{len(text) / 2**20:.3g} MiB"
        )


def fill(file: BinaryIO, text: bytes, arrays: Mapping[str, NDArray[Any]]) -> None:
    """The zip, and in its comment the digest of all that comes before."""
    with zipfile.ZipFile(file, "w", allowZip64=False) as archive:
        archive.comment = bytes(DIGITS)
        archive.writestr(zipfile.ZipInfo(HEADER), text)
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    digest = digest_of(file, file.seek(0, os.SEEK_END) - DIGITS)
    file.seek(-DIGITS, os.SEEK_END)
    file.write(digest)


def digest_of(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first `size` bytes, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0 and (piece := file.read(min(size, 2**20))):
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest().encode()


def keep_folder(folder: Path) -> None:
    """Have the folder's new entry survive a power cut, where the system knows how."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays (read-only) of a file; ValueError in one sentence if it is not whole or not ours.

    FileNotFoundError if there is none.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    if not stat.S_ISREG(mode):
        raise ValueError("it is a folder" if stat.S_ISDIR(mode) else "it is no ordinary file")
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        refuse_foreign(file, size)
        refuse_broken(file, size)
        with zipfile.ZipFile(file) as archive:
            return contents(archive, size)


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

    A digest is no seal: a stranger can make one that is right. It is the lengths that keep his file from taking more
    memory than a record does.
    """
    file.seek(max(size - DIGITS, 0))
    if file.read() != digest_of(file, size - DIGITS):
        raise ValueError("it was altered or cut short since it was saved")
    end = size - DIGITS
    file.seek(max(end - END.size, 0))
    zip64, mark, length, start, comment = END.unpack(file.read(END.size))
    if zip64 == b"PK\6\7" or mark != b"PK\5\6" or comment != DIGITS or start + length + 22 != end:
        raise ValueError("it is not a record that cnnlab saved")
    if length > 128 * MOST_ARRAYS:
        raise ValueError(f"it may hold {MOST_ARRAYS} arrays at most")


def contents(archive: zipfile.ZipFile, size: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a zip of so many bytes; ValueError if they are none, or of a later version."""
    first, *others = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in (first, *others)):
        raise ValueError("it holds something compressed")
    if sum(member.file_size for member in (first, *others)) > size or first.file_size > MOST_TEXT:
        raise ValueError("it says that it holds more than it does")
    header = json.loads(archive.read(first))
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("it is not a record that cnnlab saved")
    version = header.get("version")
    if version not in range(1, VERSION + 1):
        raise ValueError(
            f"it is of version {version!r} of the format, and this cnnlab reads those up to {VERSION}; "
            "a newer one may open it"
        )
    return header, {member.filename.removesuffix(".npy"): array_of(archive.read(member)) for member in others}


def array_of(npy: bytes) -> NDArray[Any]:
    """The array in the bytes of an .npy file; ValueError unless these are all its numbers, one after the other."""
    stream = io.BytesIO(npy)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("it holds an array in a form that numpy wrote later")
    shape, by_column, kind = np.lib.format.read_array_header_1_0(stream)
    if kind.str not in KINDS or by_column:
        raise ValueError(f"an array in it may be of {', '.join(KINDS)}, got {kind.str}")
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != len(npy) - stream.tell():
        raise ValueError(f"an array in it says that its shape is {shape}, but has {len(npy) - stream.tell()} bytes")
    return np.ndarray(shape, kind, npy, stream.tell())
