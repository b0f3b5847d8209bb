"""Each lab has the form of a lab, runs from top to bottom without a person, and its exercise can be solved."""

import ast
import re
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient

from cnnlab import Run

ROOT = Path(__file__).parent.parent
LABS = sorted((ROOT / "labs").glob("*.ipynb"))
FIRST = ROOT / "labs" / "00_start_here.ipynb"
REWIND = ROOT / "labs" / "06_rewind_and_fork.ipynb"
OURS = sys.stdlib_module_names | {"cnnlab", "numpy"}
"""What a lab may import."""
OWN = ROOT / "labs" / "09_your_own_network.ipynb"
"""The lab on networks of one's own, which may import torch, too."""

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]
every_lab = pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)


def cells(path: Path, kind: str | None = None) -> list[nbformat.NotebookNode]:
    """The cells of a lab as it is stored: all of them, or those of a kind."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if kind in (None, cell.cell_type)]


def cell(path: Path, name: str) -> nbformat.NotebookNode:
    """The cell with this id."""
    return next(cell for cell in cells(path) if cell.id == name)


def code_lines(source: str) -> list[str]:
    """The lines of a code cell that are not blank."""
    return [line for line in source.splitlines() if line.strip()]


def solution(path: Path) -> str:
    """The solution of the exercise that the lab itself offers, folded away above the check."""
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    return re.search(r"<details>.*?```python\n(.*?)```.*?</details>", text, re.DOTALL)[1]


@cache
def executed(path: Path) -> dict[str, str]:
    """Cell id -> what it printed or showed as text, in a kernel without a browser; an error in a cell is raised.

    After the last cell the lab's own solution is put in and the check is run once more, as the cell `solved`.
    """
    notebook = nbformat.read(path, as_version=4)
    check = cell(path, "build-check").source
    notebook.cells.append(nbformat.v4.new_code_cell(solution(path), id="solution"))
    notebook.cells.append(nbformat.v4.new_code_cell(check, id="solved"))
    notebook.cells.append(nbformat.v4.new_code_cell("import sys\nprint(sys.executable)", id="which"))
    # Without folders to look in there is only the native kernel, which is this very Python.
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = NotebookClient(notebook, km=manager, timeout=600, store_widget_state=False)
    try:
        client.execute()
    finally:  # nbclient leaves both to whoever made the manager
        if client.kc is not None:
            client.kc.stop_channels()
        run_sync(manager.shutdown_kernel)(now=True)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    wrong = [output for cell in code for output in cell.outputs if output.output_type == "error"]
    wrong += [output for cell in code for output in cell.outputs if output.get("name") == "stderr"]
    assert not wrong
    return {cell.id: "".join(map(shown, cell.outputs)) for cell in code}


def shown(output: nbformat.NotebookNode) -> str:
    """The text of an output."""
    return output.text if output.output_type == "stream" else output.data.get("text/plain", "")


def test_there_is_a_first_lab():
    assert FIRST in LABS


@every_lab
def test_the_title_is_a_question(path):
    title = cells(path)[0].source.splitlines()[0]
    assert title.startswith("# ")
    assert title.endswith("?")


@every_lab
def test_a_lab_has_20_to_45_cells(path):
    assert 20 <= len(cells(path)) <= 45


@every_lab
def test_there_are_30_to_110_words_for_each_code_cell(path):
    words = sum(len(cell.source.split()) for cell in cells(path, "markdown"))
    assert 30 <= words / len(cells(path, "code")) <= 110


@every_lab
def test_no_three_code_cells_follow_each_other(path):
    kinds = "".join(cell.cell_type[0] for cell in cells(path))
    assert "ccc" not in kinds


@every_lab
def test_no_code_cell_is_longer_than_six_lines(path):
    assert all(len(code_lines(cell.source)) <= 6 for cell in cells(path, "code"))


@every_lab
def test_a_lab_imports_only_cnnlab_numpy_and_the_standard_library(path):
    for node in ast.walk(ast.parse("\n".join(cell.source for cell in cells(path, "code")))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert {name.partition(".")[0] for name in names} <= OURS | ({"torch"} if path == OWN else set())


@every_lab
def test_three_or_four_units_predict_guess_run_compare_and_explain(path):
    ids = [cell.id for cell in cells(path)]
    units = [name.removesuffix("-guess") for name in ids if name.endswith("-guess")]
    assert 3 <= len(units) <= 4
    for unit in units:
        parts = [ids.index(f"{unit}-{part}") for part in ("predict", "guess", "run", "compare", "explain")]
        assert parts == sorted(parts)
        assert "**Predict.**" in cell(path, f"{unit}-predict").source
        assert "Things to notice" in cell(path, f"{unit}-explain").source


@every_lab
def test_a_guess_is_one_line_with_dots_to_replace_and_its_comparison_shows_it(path):
    for guess in (cell for cell in cells(path) if cell.id.endswith("-guess")):
        assert re.fullmatch(r"guess = \.\.\.(  # .*)?", guess.source)
        assert "guess" in cell(path, guess.id.replace("-guess", "-compare")).source


@every_lab
def test_a_lab_explains_two_to_four_things_to_notice(path):
    for explain in (cell for cell in cells(path) if cell.id.endswith("-explain")):
        assert 2 <= len(re.findall(r"^- ", explain.source, re.MULTILINE)) <= 4


@every_lab
def test_a_lab_ends_with_a_ledger_an_exercise_and_three_sentences(path):
    ids = [cell.id for cell in cells(path)]
    last = [ids.index(name) for name in ("ledger", "build-spec", "build", "build-check", "three-sentences")]
    assert last == sorted(last)
    assert last[-1] == len(ids) - 1
    assert len(re.findall(r"^\d\. ", cells(path)[-1].source, re.MULTILINE)) == 3


@every_lab
def test_cells_have_ids_that_a_person_can_read_each_once(path):
    ids = [cell.id for cell in cells(path)]
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in ids)
    assert len(set(ids)) == len(ids)


@every_lab
def test_a_lab_is_stored_without_outputs_counts_and_widgets_for_any_python_3(path):
    notebook = nbformat.read(path, as_version=4)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert all(not cell.outputs and cell.execution_count is None for cell in cells(path, "code"))


def test_the_first_code_cell_of_the_first_lab_shows_the_dashboard_after_at_most_one_text():
    meet, text = cells(FIRST, "code")[0], cells(FIRST)[0]
    assert re.search(r"^lab = cnnlab\.Lab\(", meet.source, re.MULTILINE)
    assert cells(FIRST)[1].id == meet.id
    assert len(text.source.split()) < 100


@every_lab
def test_a_lab_opens_one_dashboard_at_most(path):
    assert sum(cell.source.count("cnnlab.Lab(") for cell in cells(path, "code")) <= 1


@every_lab
def test_a_lab_runs_from_top_to_bottom_without_a_person(path):
    assert executed(path)["which"].strip() == sys.executable


@every_lab
def test_a_comparison_shows_what_was_measured_even_without_a_guess(path):
    shown = {name: text for name, text in executed(path).items() if name.endswith("-compare")}
    assert all(re.search(r"guess.*Ellipsis.*Measured.*\d", text) for text in shown.values())


@every_lab
def test_the_exercise_says_not_yet_until_it_is_solved(path):
    assert executed(path)["build-check"].startswith("Not yet")


@every_lab
def test_the_exercise_is_solved_by_the_solution_that_the_lab_offers(path):
    assert executed(path)["solved"].startswith("Right")


@every_lab
def test_the_blank_of_the_exercise_is_not_yet_the_solution(path):
    blank, solved = (ast.parse(source).body[-1] for source in (cell(path, "build").source, solution(path)))
    assert blank.name == solved.name
    assert len(ast.unparse(blank)) < len(ast.unparse(solved))


def found(pattern: str, name: str) -> tuple[float, ...]:
    """The numbers that a pattern finds in what a cell of the first lab shows."""
    return tuple(map(float, re.search(pattern, executed(FIRST)[name]).groups()))


def test_the_first_lab_s_network_breaks_in_epoch_4_or_5():
    assert found(r"Measured: epoch (\d+)", "explosion-compare")[0] in (4, 5)


def test_the_first_lab_s_cost_grows_by_an_ever_larger_factor():
    costs = [float(text) for text in re.findall(r"'([^']+)'", executed(FIRST)["explosion-run"])]
    factors = [after / before for before, after in pairwise(costs) if after < float("inf")]
    assert len(factors) >= 2
    assert factors == sorted(factors)


def test_the_first_lab_s_gamble_is_lost_by_all_by_some_and_by_none():
    high, middle, low = found(r"\{0.01: (\d), 0.001: (\d), 0.0001: (\d)\}", "gamble-run")
    assert (high, low) == (8, 0)
    assert 1 <= middle <= 7


def test_the_first_lab_s_mended_run_ends_lower_than_it_began():
    first, last = found(r"cost fell from (\S+) to (\S+) in 19 updates", "gamble-mend")
    assert last < first


def test_the_first_lab_s_alarm_comes_before_the_cost_breaks():
    alarm, broke = found(r"Measured: epoch (\d+); the cost breaks in epoch (\d+)", "warning-compare")
    assert 2 <= broke - alarm <= 3


def test_the_first_lab_s_first_update_is_far_from_healthy():
    assert found(r"1: .* ratio (\S+)", "warning-run")[0] > 0.2


def test_the_first_lab_s_network_survives_small_pixels_near_the_cost_of_a_coin():
    assert found(r"Measured: epoch (\d+)", "input-compare") == (0,)
    assert found(r"cost fell from \S+ to (\S+) in 19 updates", "input-run")[0] == pytest.approx(0.693, abs=0.03)


def rewound(pattern: str, name: str) -> tuple[float, ...]:
    """The numbers that a pattern finds in what a cell of the lab on rewinding shows."""
    return tuple(map(float, re.search(pattern, executed(REWIND)[name]).groups()))


def film() -> list[tuple[float, float]]:
    """Cost and largest update/weight ratio of each update up to the one that breaks."""
    lines = re.findall(r"^\d+: cost (\S+), update/weight (\S+)$", executed(REWIND)["rule-run"], re.MULTILINE)
    return [(float(cost), float(ratio)) for cost, ratio in lines]


def test_the_lab_on_rewinding_says_where_its_run_breaks():
    assert rewound(r"the cost breaks at update (\d+)", "rule-compare") == (9,)
    assert "`NaN` from the ninth on" in cell(REWIND, "film").source
    costs = [cost for cost, _ in film()]
    assert len(costs) == 9
    assert all(cost < float("inf") for cost in costs[:-1])


def test_the_lab_on_rewinding_was_last_in_order_long_before_it_breaks():
    assert rewound(r"Measured: update (\d+)", "rule-compare") == (1,)
    (start, _), (low, _), (high, _), (back, _), *rest = film()
    assert low < start / 2
    assert high > 1000
    assert low < back < high
    assert not any(cost <= low for cost, _ in rest)


def test_the_lab_on_rewinding_gives_the_first_lab_s_alarm_several_updates_later():
    alarm = next(step for step, (_, ratio) in enumerate(film(), start=1) if ratio > 10)
    assert alarm >= 1 + 1 + 3


def test_the_lab_on_rewinding_explodes_a_second_time_to_the_bit():
    assert rewound(r"Measured: update (\d+); (\d+) of 20", "again-compare") == (9, 0)


def test_the_lab_on_rewinding_is_saved_by_clipping_but_not_an_update_too_late():
    times, late, early = rewound(r"Measured: (\d+) times \((\S+) against (\S+)\)", "late-compare")
    assert 4 < early < 8
    assert 1000 < late < 1200
    assert times > 100


def test_the_lab_on_rewinding_s_leap_was_longer_than_a_thousand_clipped_steps():
    run = Run("question", seed=23, learning_rate=1e-3)
    run.advance(2)
    assert run.record.total_gradient_norm[1] > 1000


def test_the_lab_on_rewinding_is_saved_later_by_a_lower_rate_until_it_is_too_late():
    latest, coins, forks = rewound(r"Measured: update (\d+)\. Near a coin .*: (\d) of (\d)", "rate-compare")
    ends = [float(cost) for cost in re.findall(r"'\d: (\S+)'", executed(REWIND)["rate-run"])]
    assert 3 <= latest <= 7
    assert coins == forks
    assert sum(0.6 < cost < 1.05 for cost in ends[: int(latest) + 1]) > forks / 2
    assert all(cost != cost for cost in ends[int(latest) + 1 :])
    # The cost of update k + 1 is what update k has left.
    assert film()[int(latest)][0] > 10_000


def test_the_lab_on_rewinding_keeps_its_branches_in_the_ledger():
    lines = executed(REWIND)["ledger"].splitlines()
    assert len(lines) == 2 + 2 + 9
    assert sum("clip='norm'" in line for line in lines) == 2
    assert sum("learning_rate=0.0001 from update" in line or "learning_rate=0.0001," in line for line in lines) == 9


def test_the_lab_on_rewinding_s_rule_finds_the_latest_rescue():
    assert executed(REWIND)["solved"].strip() == "Right! The rule says [1, 1]."


STEP = ROOT / "labs" / "01_how_large_a_step.ipynb"
START = ROOT / "labs" / "02_how_large_a_start.ipynb"


def measured(path: Path, pattern: str, name: str) -> tuple[float, ...]:
    """The numbers that a pattern finds in what a cell of a lab shows."""
    return tuple(map(float, re.search(pattern, executed(path)[name]).groups()))


def test_the_lab_on_steps_is_far_above_the_edge_at_the_question_s_rate():
    assert 50 < measured(STEP, r"Measured for seed 0: (\d+) times", "edge-compare")[0] < 150


def test_the_lab_on_steps_loses_no_run_below_the_edge_and_some_far_above():
    below, between, above = measured(STEP, r"\{0.5: (\d), 4: (\d), 64: (\d)\}", "gamble-run")
    assert below == 0
    assert between <= above
    assert 2 <= above <= 3


def test_the_lab_on_steps_ends_near_the_edge_of_stability():
    assert 0.7 < measured(STEP, r"Measured: (\S+)\.$", "stability-compare")[0] < 1.2


def test_the_lab_on_steps_is_saved_by_warm_up_and_by_clipping():
    assert measured(STEP, r"Measured: (\d) of 3", "high-compare") == (2,)
    warm, clipped, safe = measured(STEP, r"'warm-up': (\S+),\s+'clipped': (\S+),\s+'safe': (\S+)\}", "high-run")
    assert warm < min(clipped, safe)


def test_the_lab_on_starts_measures_what_it_says_of_weights_pixels_and_sums():
    assert measured(START, r"Measured: (\d+) times", "scale-compare")[0] > 1000
    unit, standardised = measured(START, r"Measured: (\d+) times; standardised (\d+) times", "input-compare")
    assert 100 < standardised < unit < 65_025 / 10
    assert measured(START, r"Measured: (\S+)\.$", "sum-compare")[0] == pytest.approx(66, rel=0.01)


def test_the_lab_on_starts_is_saved_from_its_bad_start():
    assert measured(START, r"Measured: (\d+) times", "lsuv-compare")[0] > 20
    assert re.search(r"'bad': 'critical \S+, (nan|inf)'", executed(START)["lsuv-run"])
    assert measured(START, r"'lsuv, scaled': 'critical (\S+), ", "lsuv-run")[0] > 1e-3


def owned(pattern: str, name: str) -> tuple[float, ...]:
    """The numbers that a pattern finds in what a cell of the lab on networks of one's own shows."""
    return tuple(map(float, re.search(pattern, executed(OWN)[name]).groups()))


def test_the_lab_on_own_networks_breaks_where_it_says_by_a_constant_factor():
    assert owned(r"Measured: update (\d+)", "slope-compare") == (8,)
    factors = [float(text) for text in re.findall(r"x ([\d.e+]+)", executed(OWN)["slope-run"])]
    assert factors == pytest.approx([(1 - 0.01 * 50055) ** 2] * 5, rel=1e-3)


def test_the_lab_on_own_networks_keeps_its_weight_finite_longer_than_its_cost():
    assert owned(r"Measured: (\d+); the cost broke at (\d+)", "loop-compare") == (13, 8)
    assert "the gradient of update 14 holds NaN or inf in weight" in executed(OWN)["loop-run"]
    assert abs(owned(r"the weight is (\S+)", "loop-run")[0]) < 3.4e38


def test_the_lab_on_own_networks_has_a_gradient_that_breaks_before_its_cost():
    assert owned(r"Measured: update (\d+)", "root-compare") == (2,)
    first, bad, lost = owned(r"1: cost (\S+), NaN in gradient (\d+), in weights (\d+)", "root-run")
    assert first == pytest.approx(0.2, abs=0.1)
    assert bad >= 16
    assert lost >= 16


def test_the_lab_on_own_networks_trains_on_an_own_image():
    assert "image='own_" in executed(OWN)["ledger"]
