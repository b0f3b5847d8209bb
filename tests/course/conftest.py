"""A notebook of its own for each test, in an empty folder."""

import pytest

from cnnlab.course import guess_file, guesses


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """The folder of a notebook named first, as JupyterLab tells it to the kernel."""
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "first.ipynb"))
    monkeypatch.setattr(guess_file, "MEMORY", {})
    monkeypatch.setattr(guesses, "SHOWN", set())
    return tmp_path
