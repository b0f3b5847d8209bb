"""The labs as they are stored, and what their cells show in a kernel without a browser."""

import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
LABS = sorted((ROOT / "labs").glob("*.ipynb"))


def find_lab(number: str) -> Path:
    """The lab with this number, as in "03"."""
    return next(path for path in LABS if path.name.startswith(number))


def read_cells(path: Path, kind: str | None = None) -> list[nbformat.NotebookNode]:
    """The cells of a notebook as it is stored: all of them, or those of a kind."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if kind in (None, cell.cell_type)]


def read_cell(path: Path, name: str) -> nbformat.NotebookNode:
    """The cell with this id."""
    return next(cell for cell in read_cells(path) if cell.id == name)


def read_text(path: Path) -> str:
    """All text cells of a lab as one line, for a test that looks for a sentence."""
    return " ".join(" ".join(cell.source for cell in read_cells(path, "markdown")).split())


def read_sentence(path: Path, name: str, pattern: str) -> tuple[float, ...]:
    """The numbers that a pattern finds in a text cell of a lab; the sentence must be there."""
    return find_said(path, pattern, name)


def find_said(path: Path, pattern: str, name: str | None = None) -> tuple[float, ...]:
    """The numbers that a pattern finds in a lab's text, or in one of its text cells; the sentence must be there.

    "none" is 0; thousands may have commas, and the minus may be the typographic one.
    """
    text = read_text(path) if name is None else " ".join(read_cell(path, name).source.split())
    found = re.search(pattern, text)
    assert found, f"{pattern} is not in {name or path.stem}: {text!r}"
    said = (number.replace(",", "").replace("\N{MINUS SIGN}", "-") for number in found.groups())
    return tuple(0.0 if number == "none" else float(number) for number in said)


def read_solution(path: Path) -> list[nbformat.NotebookNode]:
    """The code cells of a lab's solution; the last of them is the check."""
    return read_cells(path.parent / "solutions" / path.name, "code")


@cache
def execute(path: Path) -> dict[str, str]:
    """Cell id -> what it printed or showed as text, in a kernel without a browser; an error in a cell is raised.

    No guess is made. After the last cell the lab's solution is put in, and the check is run once more, as `solved`.
    """
    notebook = nbformat.read(path, as_version=4)
    *solution, check = read_solution(path)
    notebook.cells += [nbformat.v4.new_code_cell(cell.source, id=f"solution-{i}") for i, cell in enumerate(solution)]
    notebook.cells.append(nbformat.v4.new_code_cell(check.source, id="solved"))
    notebook.cells.append(nbformat.v4.new_code_cell("import sys\nprint(sys.executable)", id="which"))
    return execute_notebook(notebook)


def execute_notebook(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Cell id -> what it showed; the notebook's kernel works in a folder of its own, which is removed afterwards."""
    folder = tempfile.mkdtemp()
    # Without folders to look in there is only the native kernel, which is this very Python.
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    resources = {"metadata": {"path": folder}}
    client = NotebookClient(notebook, km=manager, timeout=600, store_widget_state=False, resources=resources)
    try:
        client.execute()
    finally:  # nbclient leaves both to whoever made the manager
        if client.kc is not None:
            client.kc.stop_channels()
        run_sync(manager.shutdown_kernel)(now=True)
        shutil.rmtree(folder, ignore_errors=True)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    wrong = [output for cell in code for output in cell.outputs if output.output_type == "error"]
    wrong += [output for cell in code for output in cell.outputs if output.get("name") == "stderr"]
    assert not wrong
    return {cell.id: "".join(map(read_output, cell.outputs)) for cell in code}


def read_output(output: nbformat.NotebookNode) -> str:
    """The text of an output; none of a widget, which is shown as itself."""
    if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
        return ""
    return output.text if output.output_type == "stream" else output.data.get("text/plain", "")


def find_numbers(path: Path, pattern: str, name: str) -> tuple[float, ...]:
    """The numbers that a pattern finds in what a cell of a lab shows."""
    shown = execute(path)[name]
    found = re.search(pattern, shown)
    assert found, f"{name} shows {shown!r}"
    return tuple(map(float, found.groups()))


def read_measured(path: Path, name: str) -> float:
    """The number that a lab's comparison shows as measured."""
    shown = execute(path)[name]
    found = re.search(r"Measured: ([-+.\deinfa]+?)( %)?\.(?!\d)", shown)
    assert found, f"{name} shows {shown!r}"
    return float(found[1]) / (100 if found[2] else 1)
