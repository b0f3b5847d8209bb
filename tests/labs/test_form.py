"""Each lab has the form of a lab, runs from top to bottom without a person, and its exercise can be solved."""

import ast
import re
import sys

import nbformat
import pytest
from notebooks import LABS, execute, execute_notebook, find_lab, read_cell, read_cells, read_solution

import cnnlab

FIRST, OWN = find_lab("00"), find_lab("09")
OURS = sys.stdlib_module_names | {"cnnlab", "numpy"}
"""What a lab may import; the one on networks of one's own may import torch, too."""
GUESS = re.compile(r'guess = cnnlab\.guess\("[^"]+", \.\.\.(, unit="\w+")?\)(  # .*)?')
FOLDED = re.compile(r"<details><summary>([^<]*)</summary>\n\n(.*?)\n\n</details>", re.DOTALL)
STRAY = re.compile(r"Frame\(|Parameter containing|<generator|<function|Ellipsis| at 0x")
"""What nobody wants to read below a cell."""

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]
every_lab = pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)


def list_units(path):
    """The names of a lab's units, in order."""
    return [cell.id.removesuffix("-guess") for cell in read_cells(path) if cell.id.endswith("-guess")]


def list_code_lines(source):
    """The lines of a code cell that are not blank."""
    return [line for line in source.splitlines() if line.strip()]


@every_lab
def test_the_title_is_a_question(path):
    title = read_cells(path)[0].source.splitlines()[0]
    assert title.startswith("# ")
    assert title.endswith("?")


@every_lab
def test_the_head_says_how_long_it_takes_what_to_know_before_and_what_one_can_say_after(path):
    title = read_cells(path)[0]
    assert title.id == "title"
    assert re.search(r"\*\*Time\.\*\* \d+ minutes", title.source)
    assert "**Before.**" in title.source
    assert "**Afterwards.**" in title.source


@every_lab
def test_a_lab_links_to_the_next_one_and_every_link_between_labs_leads_somewhere(path):
    text = "\n".join(cell.source for cell in read_cells(path, "markdown"))
    local = re.findall(r"\]\(((?!http)[^)#]+)\)", text)
    assert all((path.parent / name).is_file() for name in local)
    later = LABS[LABS.index(path) + 1 :]
    assert not later or later[0].name in local


@every_lab
def test_a_lab_has_20_to_45_cells(path):
    assert 20 <= len(read_cells(path)) <= 45


@every_lab
def test_there_are_30_to_110_words_for_each_code_cell(path):
    words = sum(len(cell.source.split()) for cell in read_cells(path, "markdown"))
    assert 30 <= words / len(read_cells(path, "code")) <= 110


@every_lab
def test_no_three_code_cells_follow_each_other(path):
    kinds = "".join(cell.cell_type[0] for cell in read_cells(path))
    assert "ccc" not in kinds


@every_lab
def test_no_code_cell_is_longer_than_six_lines_nor_a_line_than_88_characters(path):
    for cell in read_cells(path, "code"):
        assert len(list_code_lines(cell.source)) <= 6
        assert max(map(len, cell.source.splitlines())) <= 88


@every_lab
def test_a_lab_imports_only_cnnlab_numpy_and_the_standard_library_and_uses_public_names(path):
    tree = ast.parse("\n".join(cell.source for cell in read_cells(path, "code")))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert {name.partition(".")[0] for name in names} <= OURS | ({"torch"} if path == OWN else set())
        assert not any(name.startswith("cnnlab.") for name in names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cnnlab":
            assert node.attr in cnnlab.__all__


@every_lab
def test_three_or_four_units_predict_guess_run_compare_and_explain(path):
    ids = [cell.id for cell in read_cells(path)]
    assert 3 <= len(list_units(path)) <= 4
    for unit in list_units(path):
        parts = [ids.index(f"{unit}-{part}") for part in ("predict", "guess", "run", "compare", "explain")]
        assert parts == sorted(parts)
        assert "**Predict.**" in read_cell(path, f"{unit}-predict").source


@every_lab
def test_a_guess_is_one_line_with_dots_to_replace_and_its_comparison_another(path):
    for unit in list_units(path):
        assert GUESS.fullmatch(read_cell(path, f"{unit}-guess").source)
        assert re.fullmatch(r"guess\.compare\(.+\)", read_cell(path, f"{unit}-compare").source)


@every_lab
def test_no_two_guesses_of_a_lab_have_the_same_name(path):
    names = [re.search(r'"([^"]+)"', read_cell(path, f"{unit}-guess").source)[1] for unit in list_units(path)]
    assert len(set(names)) == len(names)


@every_lab
def test_two_to_four_things_to_notice_are_folded_away_with_the_why(path):
    for unit in list_units(path):
        (folded,) = FOLDED.findall(read_cell(path, f"{unit}-explain").source)
        assert folded[0].startswith("Things to notice")
        assert 2 <= len(re.findall(r"^- ", folded[1], re.MULTILINE)) <= 4
        assert "**Why.**" in folded[1]


@every_lab
def test_a_dashboard_gives_no_hint_before_the_guesses(path):
    for cell in read_cells(path, "code"):
        assert cell.source.count("cnnlab.Lab(") == cell.source.count("hints=False")


@every_lab
def test_a_lab_ends_with_a_ledger_an_exercise_and_three_sentences(path):
    ids = [cell.id for cell in read_cells(path)]
    last = [ids.index(name) for name in ("ledger", "build-spec", "build", "build-check", "three-sentences")]
    assert last == sorted(last)
    assert last[-1] == len(ids) - 1
    assert len(re.findall(r"^\d\. ", read_cells(path)[-1].source, re.MULTILINE)) == 3


@every_lab
def test_cells_have_ids_that_a_person_can_read_each_once(path):
    ids = [cell.id for cell in read_cells(path)]
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in ids)
    assert len(set(ids)) == len(ids)


@every_lab
def test_a_lab_is_stored_without_outputs_counts_and_widgets_for_any_python_3(path):
    notebook = nbformat.read(path, as_version=4)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert all(not cell.outputs and cell.execution_count is None for cell in read_cells(path, "code"))


def test_the_first_code_cell_of_the_first_lab_shows_the_dashboard_after_at_most_one_text():
    meet, text = read_cells(FIRST, "code")[0], read_cells(FIRST)[0]
    assert re.search(r"^lab = cnnlab\.Lab\(", meet.source, re.MULTILINE)
    assert read_cells(FIRST)[1].id == meet.id
    assert len(text.source.split()) < 160


@every_lab
def test_a_lab_opens_one_dashboard_at_most(path):
    assert sum(cell.source.count("cnnlab.Lab(") for cell in read_cells(path, "code")) <= 1


@every_lab
def test_a_lab_runs_from_top_to_bottom_without_a_person(path):
    assert execute(path)["which"].strip() == sys.executable


@every_lab
def test_no_cell_shows_what_nobody_wants_to_read(path):
    assert not [name for name, text in execute(path).items() if STRAY.search(text)]


@every_lab
def test_a_comparison_shows_what_was_measured_even_without_a_guess(path):
    for unit in list_units(path):
        assert re.match(r"Your guess: open\. Measured: \S+", execute(path)[f"{unit}-compare"])


@every_lab
def test_the_exercise_is_not_yet_written_until_it_is_solved(path):
    assert execute(path)["build-check"].startswith("Not yet written")


@every_lab
def test_the_exercise_is_solved_by_the_solution_beside_the_labs(path):
    assert execute(path)["solved"].startswith("Right!")


@every_lab
def test_the_solution_is_not_in_the_lab_and_its_check_is_the_lab_s_own(path):
    *solution, check = read_solution(path)
    (blank,) = ast.parse(read_cell(path, "build").source).body
    (solved,) = [node for cell in solution for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)]
    assert blank.name == solved.name
    assert len(ast.unparse(blank)) < len(ast.unparse(solved))
    assert check.source == read_cell(path, "build-check").source == f'cnnlab.check_answer("{blank.name}", {blank.name})'
    text = "\n".join(cell.source for cell in read_cells(path))
    assert "solution</summary>" not in text
    assert ast.unparse(solved.body[-1]) not in text


@every_lab
def test_the_notes_for_teachers_tell_of_each_lab(path):
    notes = (path.parent / "teaching.md").read_text(encoding="utf-8")
    title = read_cells(path)[0].source.splitlines()[0].removeprefix("# ")
    (section,) = re.findall(
        rf"^## {path.name[:2]} {re.escape(title)}\n(.*?)(?=^## |\Z)", notes, re.DOTALL | re.MULTILINE
    )
    parts = ("Minutes", "Ask before", "What classes get wrong", "In five minutes", "Answers")
    places = [section.index(f"**{part}**") for part in parts]
    assert places == sorted(places)


def test_guesses_that_are_made_are_compared_and_kept_until_the_calibration():
    notebook = nbformat.read(FIRST, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code" and "build" not in cell.id]
    for cell in notebook.cells:
        if cell.id.endswith("-guess"):
            cell.source = re.sub(r"\.\.\.", "4, sure=0.7", cell.source, count=1)
    notebook.cells.append(nbformat.v4.new_code_cell("print(cnnlab.guesses())", id="calibration"))
    shown = execute_notebook(notebook)
    compared = [text for name, text in shown.items() if name.endswith("-compare")]
    assert all(text.startswith("Your guess: 4 (70% sure). Measured: ") for text in compared)
    assert f"{len(compared)} " in shown["calibration"]
