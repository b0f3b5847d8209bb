"""A file that one process holds, as long as it lives and wants to: the system lets go of it when the process ends."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

PLACE = 2**40
"""Where Windows holds a byte: behind all that is ever written, for nobody can read a byte that is held."""


@dataclass
class HeldFile:
    """An open file, to be added to, that nobody else holds."""

    path: Path
    file: FileIO

    @classmethod
    def take(cls, path: Path) -> HeldFile | None:
        """Hold a file that is there; None if another does."""
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        file = open(path, "ab", buffering=0)  # noqa: SIM115
        if lock(file):
            return cls(path, file)
        file.close()
        return None

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
        self.release()
        if in_place:
            self.path.unlink(missing_ok=True)

    def release(self) -> None:
        """Let go of the file."""
        self.file.close()


def lock(file: FileIO) -> bool:
    """Hold an open file until it is closed; False if somebody else does. True where the disk knows no holding."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file.fileno(), PLACE, os.SEEK_SET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network disks
        return True
    return True
