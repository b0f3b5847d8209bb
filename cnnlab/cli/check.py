"""What this machine has for the labs, what is missing, and where autosaves lie: `cnnlab check`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cnnlab.course.lab_files import find_labs
from cnnlab.records.formats import format_count

FIRST_LAB = "00_start_here.ipynb"
"""The lab that everyone starts with."""
NEEDED_MEMORY = 0.5
"""GiB that a server and one kernel with torch and plotly take (measured: 470 MiB)."""


@dataclass(frozen=True)
class Finding:
    """One line of `cnnlab check`."""

    name: str
    """What was looked for."""
    present: bool
    """True where it is there and good enough."""
    words: str
    """What was found, or what to do."""


def inspect_machine() -> Iterator[Finding]:
    """Python, the packages, torch's devices, the labs, the memory and the autosaves, in this order."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", sys.version_info >= (3, 11), f"{version} (needs 3.11 or later)")
    yield from inspect_packages()
    yield inspect_devices()
    yield inspect_labs()
    yield inspect_memory()
    yield inspect_autosaves()


def inspect_labs() -> Finding:
    """Where the labs are: in the clone, or in the package where it was installed from a wheel."""
    try:
        return Finding("labs", True, str(find_labs()))
    except FileNotFoundError as error:
        return Finding("labs", False, f"{error}; install cnnlab again, from a wheel or from a clone")


def inspect_packages() -> Iterator[Finding]:
    """A finding for each package that cnnlab depends on, by the metadata that pip wrote."""
    try:
        required = metadata.requires("cnnlab") or []
    except metadata.PackageNotFoundError:
        yield Finding("cnnlab", False, "not installed; run pip install -e . in the clone")
        return
    for text in required:
        if "extra ==" not in text:
            yield inspect_package(text)


def inspect_package(requirement: str) -> Finding:
    """Whether one package, such as torch>=2.6, is here in a version that will do."""
    name = re.match(r"[\w.-]+", requirement)[0]  # type: ignore[index]
    bounds = requirement.removeprefix(name).strip()
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, False, f"not installed (needs {bounds})")
    return Finding(name, has_allowed_version(version, bounds), f"{version} (needs {bounds})")


def has_allowed_version(version: str, bounds: str) -> bool:
    """Whether a version meets bounds such as >=2.6."""
    try:
        from packaging.specifiers import SpecifierSet  # comes with jupyterlab and with plotly
    except ImportError:
        return True  # one of those two is missing then, and has a line that says so
    return SpecifierSet(bounds).contains(version, prereleases=True)


def inspect_devices() -> Finding:
    """Where torch can compute."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("devices", False, f"torch cannot be imported: {error}")
    found = [f"cuda ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    threads = torch.get_num_threads()
    return Finding("devices", True, ", ".join([*found, f"cpu ({format_count(threads, 'thread')})"]))


def inspect_memory() -> Finding:
    """How much memory a kernel could still have."""
    try:
        import psutil  # comes with ipykernel
    except ImportError:
        return Finding("memory", False, "cannot be measured without psutil, which comes with ipykernel")
    available = min([psutil.virtual_memory().available, *read_group_memory()]) / 2**30
    return Finding("memory", available >= NEEDED_MEMORY, f"{available:.1f} GiB available (needs {NEEDED_MEMORY} GiB)")


def inspect_autosaves() -> Finding:
    """Where the labs of notebooks keep their runs, and how much space these take."""
    try:
        from cnnlab.records.autosave import find_own_folder, list_own_files

        sizes = [path.stat().st_size for path in list_own_files()]
        folder = find_own_folder()
    except (ImportError, OSError) as error:
        return Finding("autosaves", False, f"cannot be looked at: {error}")
    count = f"{format_count(len(sizes), 'run')}, {sum(sizes) / 1e6:.1f} MB"
    return Finding("autosaves", True, f"{count} in {folder}")


def read_group_memory() -> list[int]:
    """Bytes that the control group leaves, in a container that has a limit: the machine's own figure misses it."""
    group = Path("/sys/fs/cgroup")
    try:
        return [int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())]
    except (OSError, ValueError):  # no such group, or the word max
        return []
