"""Where the notebook that runs lies, and what it is called, as far as its kernel can know."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Notebook:
    """A notebook's place on the disk."""

    folder: Path
    """Where it lies; the working directory where nothing tells."""
    name: str = ""
    """Its file's name without the ending; empty where nothing tells, as under nbconvert and nbclient."""


def find_notebook() -> Notebook:
    """The notebook that this kernel runs.

    VS Code sets a variable in the notebook. Jupyter Server, which JupyterLab and Notebook 7 use, sets JPY_SESSION_NAME
    to folder and name. nbconvert and nbclient start the kernel in the notebook's folder and tell no name.
    """
    variables = getattr(sys.modules.get("__main__"), "__dict__", {})
    for told in (variables.get("__vsc_ipynb_file__"), os.environ.get("JPY_SESSION_NAME")):
        if isinstance(told, str) and told and (folder := Path.cwd() / Path(told).parent).is_dir():
            # A session of JupyterLab may bear a random name in place of the file's.
            return Notebook(folder.resolve(), Path(told).stem if told.endswith(".ipynb") else "")
    return Notebook(Path.cwd())
