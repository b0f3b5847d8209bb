"""The one file of guesses in a folder: read and changed under a lock, so that several kernels lose nothing."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cnnlab.course.entries import CourseFile, describe_course_file, read_course_file
from cnnlab.records.atomic_files import write_atomically
from cnnlab.records.locks import HeldFile

FILE = "cnnlab_guesses.json"
"""What the file of guesses is called."""
KIND = "cnnlab guesses"
"""What its first key says."""
LOCK = ".cnnlab_guesses.lock"
"""What is held while the file is changed; the file itself is replaced by a new one."""
PATIENCE = 10.0
"""Seconds to wait for another kernel that changes the file."""

MEMORY: dict[Path, CourseFile] = {}
"""Folder that cannot be written -> what is kept of it until the kernel ends."""


def read_guess_file(folder: Path) -> CourseFile:
    """What is kept for a folder; a damaged file is set aside, which is said in a sentence."""
    if folder in MEMORY:
        return MEMORY[folder]
    with contextlib.suppress(FileNotFoundError):
        try:
            return read_course_file(folder / FILE, KIND)
        except (ValueError, OSError):
            return change_guess_file(folder, lambda content: content)
    return CourseFile()


def change_guess_file(folder: Path, change: Callable[[CourseFile], CourseFile]) -> CourseFile:
    """Change what is kept for a folder and return it; what cannot be written is kept in memory, which is said."""
    if folder not in MEMORY:
        try:
            with locked(folder):
                before = read_or_set_aside(folder)
                if (after := change(before)) != before:
                    write(folder / FILE, after)
                return after
        except OSError as error:
            print(
                f"Guesses stay in memory until the kernel ends: {folder} cannot be written ({error.strerror or error})."
            )
            MEMORY[folder] = remember(folder)
    MEMORY[folder] = change(MEMORY[folder])
    return MEMORY[folder]


def write(path: Path, content: CourseFile) -> None:
    """Replace the file at one stroke."""
    text = json.dumps(describe_course_file(content, KIND), indent=1, ensure_ascii=False, allow_nan=False)
    with write_atomically(path) as file:
        file.write(text.encode())


def remember(folder: Path) -> CourseFile:
    """What a folder that cannot be written holds already."""
    try:
        return read_course_file(folder / FILE, KIND)
    except (ValueError, OSError):
        return CourseFile()


def read_or_set_aside(folder: Path) -> CourseFile:
    """What the file holds; one that cannot be understood gets another name, which is said, and is kept."""
    path = folder / FILE
    try:
        return read_course_file(path, KIND)
    except FileNotFoundError:
        return CourseFile()
    except ValueError as error:
        number = 1
        while (aside := path.with_name(f"cnnlab_guesses.damaged-{number}.json")).exists():
            number += 1
        path.rename(aside)
        print(f"{FILE} cannot be understood ({error}); it is kept as {aside.name}, and a new file begins.")
        return CourseFile()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder's file of guesses; TimeoutError if another holds it for too long."""
    held = take_lock(folder / LOCK)
    try:
        yield
    finally:
        # Before it is let go: whoever waits for it finds that it is gone, and makes a new one.
        with contextlib.suppress(OSError):
            held.path.unlink()
        held.file.close()


def take_lock(path: Path) -> HeldFile:
    """The lock's file, held."""
    end = time.monotonic() + PATIENCE
    while True:
        path.touch()
        with contextlib.suppress(FileNotFoundError):
            if held := HeldFile.take(path):
                if held.is_in_place:
                    return held
                held.file.close()
        if time.monotonic() > end:
            raise TimeoutError(f"another kernel has held {path.name} for {PATIENCE:g} s")
        time.sleep(0.01)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
