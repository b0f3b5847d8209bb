"""Copies of the labs: for students without solutions, for teachers as nbgrader takes them, never over changed files."""

import ast
from pathlib import Path

import nbformat
import pytest

from cnnlab.cli.main import main
from cnnlab.course.exercises import EXERCISES
from cnnlab.course.lab_files import copy_labs, find_cell, find_labs, name_function, read_notebook

ROOT = Path(__file__).parents[2]
LABS = sorted((ROOT / "labs").glob("*.ipynb"))
every_lab = pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """The three versions, each in a folder of its name."""
    top = tmp_path_factory.mktemp("copies")
    for version in ("all", "student", "solutions"):
        copy_labs(top / version, version)
    return top


def texts(path):
    """All that a notebook says."""
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


def test_the_labs_of_a_clone_are_found():
    assert find_labs() == ROOT / "labs"


def test_as_they_are_the_copies_are_the_labs_byte_for_byte(copies):
    for path in [*LABS, *(ROOT / "labs" / "solutions").glob("*.ipynb")]:
        assert (copies / "all" / path.relative_to(ROOT / "labs")).read_bytes() == path.read_bytes()


@every_lab
def test_every_lab_has_a_solution_of_its_exercise(path):
    solution = find_cell(read_notebook(path.parent / "solutions" / path.name), "build").source
    blank = find_cell(read_notebook(path), "build").source
    assert name_function(solution) in EXERCISES
    heads = [ast.parse(source).body[-1] for source in (solution, blank)]
    assert heads[0].name == heads[1].name
    assert ast.unparse(heads[0].args) == ast.unparse(heads[1].args)


@every_lab
def test_a_student_gets_no_solution_in_any_form(copies, path):
    solution = find_cell(read_notebook(path.parent / "solutions" / path.name), "build").source
    said = texts(copies / "student" / path.name)
    assert solution.splitlines()[-1].strip() not in {line.strip() for line in said.splitlines()}
    assert "One solution" not in said
    assert {entry.name for entry in (copies / "student").iterdir()} == {lab.name for lab in LABS}


@every_lab
def test_a_teacher_gets_the_solution_between_nbgrader_s_marks_and_a_graded_check(copies, path):
    notebook = nbformat.read(copies / "solutions" / path.name, as_version=4)
    nbformat.validate(notebook)
    build, check = find_cell(notebook, "build"), find_cell(notebook, "build-check")
    assert (build.source.count("### BEGIN SOLUTION"), build.source.count("### END SOLUTION")) == (1, 1)
    assert build.source.index('"""') < build.source.index("### BEGIN SOLUTION")
    assert "\n    ...  #" not in build.source
    name = name_function(build.source)
    assert f'assert cnnlab.check_answer("{name}", {name}).passed\n### END HIDDEN TESTS' in check.source
    flags = [[cell.metadata.nbgrader[key] for key in ("grade", "solution", "locked")] for cell in (build, check)]
    assert flags == [[False, True, False], [True, False, True]]
    assert check.metadata.nbgrader.points == 1


def test_a_file_that_was_changed_is_named_and_left_alone_and_the_rest_is_copied(tmp_path, capsys):
    changed, same, missing = (tmp_path / path.name for path in LABS[:3])
    changed.write_text("my notes")
    same.write_bytes(LABS[1].read_bytes())
    assert main(["labs", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert changed.read_text() == "my notes"
    assert missing.read_bytes() == LABS[2].read_bytes()
    assert err.count("\n") == 1
    assert f"{changed} differs from the lab and is left alone" in err
    assert "1 were there already" in out


def test_copying_twice_changes_nothing_and_succeeds(tmp_path):
    assert main(["labs", str(tmp_path / "new" / "folder"), "--student"]) == 0
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.ipynb")}
    assert main(["labs", str(tmp_path / "new" / "folder"), "--student"]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.ipynb")} == times


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path):
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs" / LABS[0].name).symlink_to(tmp_path / "elsewhere")
    assert copy_labs(tmp_path / "labs").changed == (LABS[0].name,)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_in_place_of_the_folder_is_refused_in_a_sentence(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["labs", str(tmp_path / "file")]) == 2
    assert "is a file, not a folder to copy the labs into" in capsys.readouterr().err


def test_student_and_solutions_exclude_each_other(tmp_path):
    with pytest.raises(SystemExit):
        main(["labs", str(tmp_path / "x"), "--student", "--solutions"])
    assert not (tmp_path / "x").exists()
