"""Copies of the labs for a folder of one's own: as they are, for students, or with the solutions for a teacher."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cnnlab.records.atomic_files import write_atomically

if TYPE_CHECKING:
    from nbformat import NotebookNode

PACKAGE = Path(__file__).resolve().parents[1]
SOLUTIONS = "solutions"
"""The folder within the labs that holds the solutions, under the labs' names."""
BUILD, CHECK = "build", "build-check"
"""Ids of the cell with the exercise, and of the one with its check."""

Version = Literal["all", "student", "solutions"]


@dataclass(frozen=True)
class Copies:
    """What became of the files that were to be copied."""

    written: tuple[str, ...]
    """New files."""
    same: tuple[str, ...]
    """Files that were there already, unchanged."""
    changed: tuple[str, ...]
    """Files that were there, differ, and were left alone."""


def find_labs() -> Path:
    """The folder of the labs: within the package where it was installed from a wheel, else in the clone."""
    for folder in (PACKAGE / "labs", PACKAGE.parent / "labs"):
        if any(folder.glob("*.ipynb")):
            return folder
    raise FileNotFoundError(f"there are no labs in {PACKAGE / 'labs'}, nor in {PACKAGE.parent / 'labs'}")


def copy_labs(target: Path, version: Version = "all") -> Copies:
    """Copy the labs into a folder, which is made; a file that is there and differs is left alone.

    "all": labs, solutions and notes as they are. "student": labs without solutions. "solutions": labs with the
    solutions in their cells and nbgrader's metadata, and the notes for teachers.
    """
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file, not a folder to copy the labs into")
    written: list[str] = []
    same: list[str] = []
    changed: list[str] = []
    for name, text in list_files(find_labs(), version):
        path = target / name
        if path.exists() or path.is_symlink():
            (same if path.is_file() and path.read_bytes() == text else changed).append(name)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as file:
            file.write(text)
        written.append(name)
    return Copies(tuple(written), tuple(same), tuple(changed))


def list_files(labs: Path, version: Version) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a version."""
    make: dict[Version, Callable[[Path], bytes]] = {
        "all": Path.read_bytes,
        "student": Path.read_bytes,
        "solutions": make_teacher_version,
    }
    for path in sorted(labs.glob("*.ipynb")):
        yield path.name, make[version](path)
    if version == "all":
        yield from (
            (f"{SOLUTIONS}/{path.name}", path.read_bytes()) for path in sorted(labs.glob(f"{SOLUTIONS}/*.ipynb"))
        )
    if version != "student":
        yield from ((path.name, path.read_bytes()) for path in sorted(labs.glob("*.md")))


def make_teacher_version(path: Path) -> bytes:
    """A lab with the solution in the exercise's cell, as nbgrader takes the source of an assignment."""
    notebook = read_notebook(path)
    solution = path.parent / SOLUTIONS / path.name
    if solution.is_file():
        put_solution(notebook, find_cell(read_notebook(solution), BUILD).source)
    return write_notebook(notebook)


def put_solution(notebook: NotebookNode, solution: str) -> None:
    """Put the solution into the exercise's cell, between nbgrader's marks, and a test behind the check."""
    build, check = find_cell(notebook, BUILD), find_cell(notebook, CHECK)
    name = name_function(solution)
    before, _, body = split_function(solution)
    _, head, _ = split_function(build.source)
    build.source = f"{before}{head}\n    ### BEGIN SOLUTION\n{body}\n    ### END SOLUTION"
    # An import of its own: a check of a lab may run before or without cells that import.
    test = f'import cnnlab\n\nassert cnnlab.check_answer("{name}", {name}).passed'
    check.source = f"{check.source}\n### BEGIN HIDDEN TESTS\n{test}\n### END HIDDEN TESTS"
    build.metadata["nbgrader"] = describe_cell(BUILD, solution=True)
    check.metadata["nbgrader"] = describe_cell(CHECK, grade=True, locked=True, points=1)


def describe_cell(name: str, **changes: Any) -> dict[str, Any]:
    """The metadata of a cell in nbgrader's third schema."""
    fields = {"cell_type": "code", "grade": False, "grade_id": name, "locked": False, "schema_version": 3}
    return {**fields, "solution": False, "task": False, **changes}


def name_function(source: str) -> str:
    """The name of the last function that a source defines, which is the exercise's."""
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)][-1]


def split_function(source: str) -> tuple[str, str, str]:
    """A source before its last function, that function's head with the docstring, and its lines."""
    function = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)][-1]
    first = function.body[1 if ast.get_docstring(function) is not None else 0].lineno - 1
    lines = source.rstrip().splitlines()
    start = function.lineno - 1
    return "".join(f"{line}\n" for line in lines[:start]), "\n".join(lines[start:first]), "\n".join(lines[first:])


def find_cell(notebook: NotebookNode, name: str) -> NotebookNode:
    """The cell with an id; ValueError if there is none."""
    for cell in notebook.cells:
        if cell.get("id") == name:
            return cell
    raise ValueError(f"a lab must have a cell with the id {name}")


def read_notebook(path: Path) -> NotebookNode:
    """A notebook in the form that the labs are stored in."""
    import nbformat

    return nbformat.read(path, as_version=4)


def write_notebook(notebook: NotebookNode) -> bytes:
    """The text of a notebook, as the labs are stored."""
    import nbformat

    return f"{nbformat.writes(notebook)}\n".encode()
