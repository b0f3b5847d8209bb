"""What all tests share: hypothesis keeps no stopwatch, for the machine may be busy; and which tests share a process."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("cnnlab", deadline=None)
settings.load_profile("cnnlab")


class Together(LoadScopeScheduling):
    """One process runs all browser tests, one after another, and one all that looks at the notebooks.

    So no two browsers share the cores, and each notebook is executed once. They take longest, and begin first.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/browser/"):
            return "browser"
        return "labs" if nodeid.startswith("tests/test_labs") else nodeid


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Not by the mark xdist_group: with pytest 9.2 it is passed over in silence (pytest-xdist issue 1386)."""
    return Together(config, log)
