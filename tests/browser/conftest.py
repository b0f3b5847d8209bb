"""One JupyterLab, one chromium and few pages for all browser tests of a process.

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


@pytest.fixture(scope="package")
def browser(all_is_there):
    """Closed with this folder: while Playwright is open, its event loop looks like a kernel's to all labs."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launched(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def idle_pages(browser):
    """Pages in which JupyterLab is loaded and no notebook is open."""
    return []


@pytest.fixture
def open_notebook(jupyter, browser, idle_pages, request):
    """Opens notebooks with the given cells, each with a kernel of its own, and closes them after the test.

    One with a page of its own (`own_page`) neither finds what others have loaded there nor leaves anything to them.
    """
    opened = []

    def open_one(*cells, size=(1280, 800), own_page=False):
        name, idle = f"{request.node.name[:40]}-{len(opened)}", None if own_page else idle_pages
        opened.append(Notebook(jupyter, browser, name, list(cells), size, idle))
        return opened[-1]

    yield open_one
    for notebook in opened:
        notebook.close()


@pytest.fixture(scope="module")
def notebook(jupyter, browser, idle_pages, request):
    """One notebook for the tests of a module: each runs its own lab in the same cell, which closes the one before."""
    name = request.module.__name__.rpartition(".")[2]
    notebook = Notebook(jupyter, browser, name, ["import cnnlab", ""], idle=idle_pages)
    notebook.run(0)
    yield notebook
    notebook.close()


@pytest.fixture
def lab(notebook):
    """Makes a lab from the arguments of `cnnlab.Lab`, as text, in the shared notebook; its name there is lab."""
    return lambda arguments: notebook.lab(f"lab = cnnlab.Lab({arguments})", 1)
