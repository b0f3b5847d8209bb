"""Files that one process holds as long as it lives and wants to: the system lets go of them when the process ends."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

fcntl: Any
msvcrt: Any
try:
    import fcntl
except ImportError:
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

PLACE = 2**40
"""Where Windows locks a byte: behind all that is ever written, for nobody can read a byte that is locked."""


def lock(file: BinaryIO | FileIO) -> bool | None:
    """Lock an open file until it is closed; False if somebody else has, None where system or disk have no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            return lock_byte(file.fileno())
        else:
            return None
    except BlockingIOError:
        return False
    except OSError:  # some network disks
        return None
    return True


def lock_byte(handle: int) -> bool:
    """Lock an open file as Windows does, until it is closed; False if somebody else has."""
    before = os.lseek(handle, 0, os.SEEK_CUR)
    os.lseek(handle, PLACE, os.SEEK_SET)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    finally:
        os.lseek(handle, before, os.SEEK_SET)
    return True


@dataclass
class HeldFile:
    """An open file, to be added to, that nobody else holds until it is closed; where there are no locks, others may."""

    path: Path
    file: FileIO

    @classmethod
    def take(cls, path: Path) -> HeldFile | None:
        """Hold a file that is there; None if another does."""
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        file = open(path, "ab", buffering=0)  # noqa: SIM115
        if lock(file) is False:
            file.close()
            return None
        return cls(path, file)

    @property
    def is_in_place(self) -> bool:
        """Whether the path still leads to this file, and not to one that was put in its place."""
        try:
            return not self.file.closed and os.path.samestat(os.fstat(self.file.fileno()), os.stat(self.path))
        except OSError:
            return False

    def remove(self) -> None:
        """Let go of the file and remove it; what was put in its place stays."""
        in_place = self.is_in_place
        self.file.close()
        if in_place:
            self.path.unlink(missing_ok=True)
