"""Which line of the user's code is running: the innermost that is neither torch's nor cnnlab's."""

from __future__ import annotations

import functools
import linecache
import os
import sys
from pathlib import Path
from types import CodeType, FrameType

import torch

LIBRARIES = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))
"""Folders whose code is not the user's."""
LONGEST = 90
"""Most characters of a line of code that are shown."""

Place = tuple[str, int]
"""A file and a line of it."""


@functools.cache
def is_library(file: str) -> bool:
    """Whether a file is none of the user's."""
    return file.startswith((*LIBRARIES, "<frozen", "<string>"))


def find_place(end: CodeType | None = None) -> Place | None:
    """File and line of the user's innermost frame; None if there is none within the function whose code is `end`."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not end:
        if not is_library(frame.f_code.co_filename):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None


def describe_place(place: Place | None) -> str:
    """A place in words: the file's name, the line and the code there; '' for none."""
    if place is None:
        return ""
    name, line = place
    code = linecache.getline(name, line).strip().partition("  # ")[0]
    shown = code if len(code) <= LONGEST else f"{code[: LONGEST - 3]}..."
    return f"{name_file(name)}:{line}{f': {shown}' if shown else ''}"


def name_file(name: str) -> str:
    """A file's name without its folder; a cell of a notebook is called one."""
    return "cell" if "ipykernel" in name else Path(name).name
