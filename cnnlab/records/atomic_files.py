"""Files that are written at one stroke: whoever kills the writer finds the old file or the new one. Standard library.

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RANDOM = "[0-9a-f]{16}"
"""What tells two parts of one file apart."""
PART_OF_VERSION_01 = re.compile(rf"\.{RANDOM}\.part")
"""What version 0.1 called its parts of records; it held no lock."""
BEGINNING_OF_VERSION_01 = re.compile(rb"PK\x03\x04.{26}cnnlab\.json", re.DOTALL)
"""What such a part begins with: the zip's first file."""
ABANDONED = 3600.0
"""Seconds after which a part that nobody wrote to is taken for abandoned, where its writer cannot be asked for."""


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
    try:
        with name_errors(path, part):
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if fcntl is not None:
                    os.replace(part, place)  # under the lock, so that nobody takes the part for abandoned
            if fcntl is None:
                os.replace(part, place)  # Windows renames no open file
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


def beginning_of(place: Path) -> str:
    """What the parts of a file begin with; a long name is cut, for a part's may not be longer than a file's."""
    return f".{place.name[:50]}."


def open_part(place: Path) -> tuple[Path, BinaryIO]:
    """A new part of a file, locked for as long as it is open."""
    while True:
        part = place.with_name(f"{beginning_of(place)}{secrets.token_hex(8)}.part")
        file = open(part, "xb+")  # noqa: SIM115  # it is handed on
        with contextlib.suppress(AttributeError, OSError):  # without locks, see `has_writer`
            fcntl.flock(file, fcntl.LOCK_EX)
        if part.exists():
            return part, file
        file.close()  # another writer came between opening and locking, and took it for abandoned


def remove_abandoned_parts(place: Path) -> None:
    """Remove the parts of a file that killed writers left, and the parts of any record that version 0.1 left."""
    part = re.compile(f"{re.escape(beginning_of(place))}{RANDOM}\\.part")
    with contextlib.suppress(OSError), os.scandir(place.parent) as entries:
        for entry in entries:
            ask = ask_lock if part.fullmatch(entry.name) else ask_lease
            if ask is ask_lease and not PART_OF_VERSION_01.fullmatch(entry.name):
                continue
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    remove_abandoned(Path(entry.path), ask)


def remove_abandoned(part: Path, ask: Callable[[BinaryIO], None]) -> None:
    """Remove a part unless somebody writes to it, or its name alone is that of a part of version 0.1."""
    with open(part, "rb") as file:
        known = ask is ask_lock or BEGINNING_OF_VERSION_01.match(file.read(64))
        if known and not has_writer(file, ask):
            part.unlink()


def has_writer(file: BinaryIO, ask: Callable[[BinaryIO], None]) -> bool:
    """Whether somebody writes to a part; where the system cannot tell, whether it was written to within the hour."""
    try:
        ask(file)
    except BlockingIOError:
        return True
    except (AttributeError, OSError):
        return time.time() - os.fstat(file.fileno()).st_mtime < ABANDONED
    return False


def ask_lock(file: BinaryIO) -> None:
    """BlockingIOError if another holds the lock of a file."""
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def ask_lease(file: BinaryIO) -> None:
    """BlockingIOError if another has a file open: Linux leases only one that nobody else has."""
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)


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
