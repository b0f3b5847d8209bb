"""One JupyterLab for all browser tests, and a chromium for each file of them.

Without them the tests are skipped with a reason; where CNNLAB_REQUIRE_BROWSER is set, they fail instead.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
from jupyter_page import BROWSERS, Jupyter, Notebook, chromium, launched


@pytest.fixture(scope="session")
def all_is_there():
    """Skips, or fails where a browser is required, with the names of what is missing."""
    missing = [name for name in ("playwright", "jupyterlab", "jupyter_client") if not importlib.util.find_spec(name)]
    if chromium() is None:
        missing.append(f"a browser ({', '.join(BROWSERS)})")
    if missing:
        reason = f"the browser tests need {' and '.join(missing)}"
        pytest.fail(reason) if os.environ.get("CNNLAB_REQUIRE_BROWSER") else pytest.skip(reason)


@pytest.fixture(scope="session")
def jupyter(all_is_there, tmp_path_factory):
    jupyter = Jupyter(tmp_path_factory.mktemp("jupyter"))
    yield jupyter
    jupyter.close()


@pytest.fixture(scope="module")
def browser(all_is_there):
    """Closed with its module: while Playwright is open, its event loop looks like a kernel's to all labs."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launched(playwright)
        yield browser
        browser.close()


@pytest.fixture
def open_notebook(jupyter, browser, request):
    """Opens notebooks with the given cells, each with a kernel of its own, and closes them after the test."""
    opened = []

    def open_one(*cells, size=(1280, 800)):
        opened.append(Notebook(jupyter, browser, f"{request.node.name[:40]}-{len(opened)}", list(cells), size))
        return opened[-1]

    yield open_one
    for notebook in opened:
        notebook.close()


@pytest.fixture(scope="module")
def notebook(jupyter, browser, request):
    """One notebook for the tests of a module: each runs its own lab in the same cell, which closes the one before."""
    notebook = Notebook(jupyter, browser, request.module.__name__.rpartition(".")[2], ["import cnnlab", ""])
    notebook.run(0)
    yield notebook
    notebook.close()


@pytest.fixture
def lab(notebook):
    """Makes a lab from the arguments of `cnnlab.Lab`, as text, in the shared notebook; its name there is lab."""
    return lambda arguments: notebook.lab(f"lab = cnnlab.Lab({arguments})", 1)
