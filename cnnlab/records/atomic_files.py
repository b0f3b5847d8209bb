"""Files that are written atomically: whoever kills the writer finds the old file or the new one.

The new file grows as a part beside the old one, under a name and a lock by which the next writer knows whether it was
abandoned.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cnnlab.records import locks

RANDOM = "[0-9a-f]{16}"
"""What tells two parts of one file apart."""
PART_OF_VERSION_01 = re.compile(rf"\.{RANDOM}\.part")
"""What version 0.1 called its parts of records; it held no lock."""
BEGINNING_OF_VERSION_01 = re.compile(rb"PK\x03\x04.{26}cnnlab\.json", re.DOTALL)
"""What such a part begins with: the zip's first file."""
ABANDONED = 3600.0
"""Seconds after which a part that nobody wrote to is taken for abandoned, where its lock does not tell."""


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Give a file to write to; it takes the place of `path` once all is on the disk, and is gone if anything fails.

    Parts that killed writers of the same file left are removed. ValueError if `path` is a folder or no ordinary file,
    FileNotFoundError if its folder is missing; any other OSError names `path`.
    """
    place = Path(os.path.realpath(path))
    check_place(path, place)
    remove_abandoned_parts(place)
    with name_errors(path):
        part, file = open_part(place)
    is_in_place = False
    try:
        with name_errors(path, part):
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                with contextlib.suppress(PermissionError):  # Windows renames no open file
                    os.replace(part, place)  # under the lock, so that nobody takes the part for abandoned
                    is_in_place = True
            if not is_in_place:
                os.replace(part, place)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(place.parent)


def check_place(path: str | os.PathLike[str], place: Path) -> None:
    """ValueError or FileNotFoundError in a sentence unless a file may be written there."""
    if place.is_dir():
        raise ValueError(f"{path} is a folder, not a file to save in")
    if place.exists() and not place.is_file():
        raise ValueError(f"{path} is no ordinary file to save in")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {place.parent} to save in")


@contextlib.contextmanager
def name_errors(path: str | os.PathLike[str], part: Path | None = None) -> Iterator[None]:
    """Have an OSError that names no file, or the part of one, name the file: that of a full disk names none."""
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None or part is None or os.fspath(error.filename) == os.fspath(part)
        if error.errno is None or not unnamed:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def format_prefix(place: Path) -> str:
    """What the parts of a file begin with; a long name is cut, for a part's may not be longer than a file's."""
    return f".{place.name[:50]}."


def open_part(place: Path) -> tuple[Path, BinaryIO]:
    """A new part of a file, locked for as long as it is open."""
    while True:
        part = place.with_name(f"{format_prefix(place)}{secrets.token_hex(8)}.part")
        file = open(part, "xb+")  # noqa: SIM115  # it is handed on
        if locks.lock(file) is not False and part.exists():
            return part, file
        file.close()  # another writer came between opening and locking, and took it for abandoned


def remove_abandoned_parts(place: Path) -> None:
    """Remove the parts of a file that killed writers left, and the parts of any record that version 0.1 left."""
    part = re.compile(f"{re.escape(format_prefix(place))}{RANDOM}\\.part")
    with contextlib.suppress(OSError), os.scandir(place.parent) as entries:
        for entry in entries:
            is_ours = part.fullmatch(entry.name) is not None
            with contextlib.suppress(OSError):
                if (is_ours or PART_OF_VERSION_01.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False):
                    remove_abandoned(Path(entry.path), is_ours)


def remove_abandoned(part: Path, is_ours: bool) -> None:
    """Remove a part unless somebody writes to it, or its name alone is that of a part of version 0.1."""
    with open(part, "rb") as file:
        if has_writer(file, is_ours) or not (is_ours or BEGINNING_OF_VERSION_01.match(file.read(64))):
            return
        with contextlib.suppress(PermissionError):  # Windows removes no open file
            part.unlink()
    part.unlink(missing_ok=True)


def has_writer(file: BinaryIO, is_locked: bool) -> bool:
    """Whether somebody writes to a part: who does has locked it, or else has written to it within the hour."""
    # Windows unlocks a part before it is renamed.
    held = locks.lock(file) if is_locked and locks.fcntl is not None else None
    return time.time() - os.fstat(file.fileno()).st_mtime < ABANDONED if held is None else not held


def sync_folder(folder: Path) -> None:
    """Have the folder's new entry survive a power cut, where the system knows how."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_ordinary(path: str | os.PathLike[str]) -> None:
    """ValueError if a path is a folder, a pipe or a device, which is not to be read; OSError if nothing is there."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise ValueError("it is a folder" if stat.S_ISDIR(mode) else "it is no ordinary file")
