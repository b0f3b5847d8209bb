"""One GPU for each process: a worker that sees several takes one that no other worker of its machine has taken."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from io import FileIO
from pathlib import Path
from urllib.parse import quote

from cnnlab.records.locks import lock

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable that says which GPUs a process sees, in which order; it counts until the process first uses one."""
TAKING = threading.Lock()
"""Held while a GPU is taken: the threads of a process share one."""
HELD: list[FileIO] = []
"""The locked file that tells other processes which GPU this one has taken; the system lets go of it at its end."""


def take_device() -> None:
    """Have this process see one GPU alone, for as long as it lives.

    That is the first of those it sees that no other worker has taken; with more workers than GPUs, each GPU is shared
    by as few as can be. What was set up to give each process its own (SLURM, Kubernetes, dask-cuda, which puts each
    process's own first) stays as it is. So does a process that has used a GPU before.
    """
    with TAKING:
        choose_own_device()


@cache
def choose_own_device() -> str | None:
    """The GPU that this process has taken, by the name that CUDA_VISIBLE_DEVICES has for it; None without any."""
    import torch  # not above: a worker imports it to compute

    names = list_devices(torch.cuda.device_count)
    if not names or torch.cuda.is_initialized():
        return None
    with contextlib.suppress(OSError):  # a folder that is not to be written to
        folder = make_lock_folder()
        for taken, name in ((taken, name) for taken in itertools.count() for name in names):
            file = open(folder / f"{quote(name, safe='')} {taken}", "ab", buffering=0)  # noqa: SIM115
            if lock(file) is not False:
                HELD.append(file)
                os.environ[VISIBLE] = name
                return name
            file.close()
    return None


def list_devices(count_devices: Callable[[], int]) -> list[str]:
    """The GPUs that this process may use, in its order; counted only where nobody has said which.

    A number below 0 ends the list, as it does for CUDA.
    """
    if VISIBLE in os.environ:
        names = [name.strip() for name in os.environ[VISIBLE].split(",")]
        return [name for name in itertools.takewhile(lambda name: not name.startswith("-"), names) if name]
    return [str(number) for number in range(count_devices())]


def make_lock_folder() -> Path:
    """Where the workers of a user tell each other; SLURM may number the GPUs of each of its jobs from 0."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"cnnlab-gpus-{user}-{os.environ.get('SLURM_JOB_ID', '')}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
