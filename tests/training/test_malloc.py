"""What the C library does with freed memory while a run trains."""

import platform
import subprocess
import sys

import pytest

from cnnlab.training import malloc as memory

FAULTS = """
import resource
import cnnlab.training.run
{before}
run = cnnlab.training.run.Run("question", learning_rate=1e-5, device="cpu", history_bytes=0)
run.advance(10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
run.advance(20)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""


def faults(before=""):
    """Page faults of an update, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", FAULTS.format(before=before)], capture_output=True, text=True, check=True
    )
    return float(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, which this machine lacks")
def test_an_update_needs_hardly_any_memory_anew():
    assert faults() < 100 < faults("cnnlab.training.run.keep_freed_memory = lambda: None")


def test_where_the_c_library_knows_no_such_thing_nothing_happens(monkeypatch):
    class Library:
        """A C library without either function."""

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _name: Library())
    memory.keep_freed_memory.__wrapped__()
    memory.give_back_memory()
