"""What all tests share: hypothesis keeps no stopwatch, for the machine may be busy; and which tests share a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from cnnlab.training.determinism import use_one_thread

settings.register_profile("cnnlab", deadline=None)
settings.load_profile("cnnlab")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes test at once, and torch would take all cores for each

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # kernels for a GPU are tried on the CPU; Triton asks when it is opened


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads of the processor as a Run of the question's network has."""
    with use_one_thread():
        yield


LONGEST = ("tests/browser/", "tests/labs/")
"""Beginnings of the tests that take longest, so that they are begun first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first; the others stay in their order."""
    items.sort(key=lambda item: next((place for place, name in enumerate(LONGEST) if item.nodeid.startswith(name)), 9))


class Together(LoadScopeScheduling):
    """One process runs all browser tests, one after another, one all that looks at the notebooks, and one each module.

    So no two browsers share the cores, and what a module's tests share is made once.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((name for name in LONGEST if nodeid.startswith(name)), nodeid.partition("::")[0])


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Not by the mark xdist_group: with pytest 9.2 it is passed over in silence (pytest-xdist issue 1386)."""
    config.option.loadscopereorder = False  # the number of a module's tests says little about their time
    return Together(config, log)
