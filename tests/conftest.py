"""What all tests share: hypothesis keeps no stopwatch, for the machine may be busy; browser tests come last."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("cnnlab", deadline=None)
settings.load_profile("cnnlab")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the browser tests last: while Playwright is open, its event loop looks like a kernel's to every lab.

    One process runs them all, one after another, when the others have nothing left to do.
    """
    items.sort(key=lambda item: "browser" in item.path.parts)
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group("browser"))
