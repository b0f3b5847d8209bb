"""The project agrees with itself: environment, versions, notebooks, packages, style, types."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rattler import MatchSpec

import cnnlab

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
CONDA = [line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]
CONDA_NAMES = {"torch": "pytorch"}
"""Package -> its name on conda-forge, where that differs."""
MACHINE = re.compile(
    r"/work[/]|/root[/]|/home[/]\w|/tmp[/]w[/]|localhost:[0-9]"
    r"|pypi[.]org|pythonhosted[.]org|npmjs[.](?:org|com)|deb[.]debian[.]org|conda[.]anaconda[.]org"
)
"""Places of one machine, and hosts of package registries: neither belongs in a file of the project."""
LINT = "from importlinter.cli import lint_imports_command as lint; lint()"
PLANTED = {
    "packages are in layers: upwards": ("records/formats.py", "import cnnlab.training.run"),
    "packages are in layers: sideways": ("sweeps/members.py", "import cnnlab.diagnosis.causes"),
    "packages are in layers: sideways from a course": ("course/notebook.py", "import cnnlab.dashboards.messages"),
    "packages are in layers: in a function": ("config/links.py", "def late():\n    import cnnlab.cli.main"),
    "packages are in layers: a package that is not listed": ("twelfth/__init__.py", "import cnnlab.config.settings"),
    "no modules of a package import in a circle": ("config/settings.py", "import cnnlab.config.links"),
    "torch is for what computes": ("plots/images.py", "import torch"),
    "torch is for what computes: a course": ("course/guesses.py", "import torch"),
    "plotly is for plots, dashboards and pages": ("diagnosis/causes.py", "import plotly"),
    "widgets are for dashboards: a course": ("course/checks.py", "import ipywidgets"),
    "widgets are for dashboards": ("export/script.py", "import ipywidgets"),
}
"""Contract, and in which way it is broken -> a module, and the line that breaks it."""
QUIET = "import sys, cnnlab; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def python(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run this Python in a folder, the project's root or another, and keep what it says."""
    surroundings = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=surroundings, capture_output=True, text=True)


def tracked() -> list[Path]:
    """The files that git knows; the test is skipped outside a clone."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git clone")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("line", CONDA)
def test_conda_understands_each_line_of_the_environment(line):
    assert MatchSpec(line, strict=True).name.normalized in line


@pytest.mark.parametrize("dependency", PROJECT["dependencies"])
def test_each_dependency_has_its_conda_counterpart_with_the_same_bounds(dependency):
    required = Requirement(dependency)
    assert f"{CONDA_NAMES.get(required.name, required.name)}{required.specifier}" in CONDA


def test_the_environment_holds_nothing_that_the_package_does_not_need():
    needed = {CONDA_NAMES.get(name, name) for name in (Requirement(text).name for text in PROJECT["dependencies"])}
    assert {re.match(r"[\w.-]+", line)[0] for line in CONDA} == {"python", "pip"} | needed


def test_binder_can_read_the_version_of_python():
    (line,) = (line for line in CONDA if line.startswith("python"))
    assert re.fullmatch(r"python=\d+\.\d+", line)
    assert SpecifierSet(PROJECT["requires-python"]).contains(line.partition("=")[2])


def test_the_environment_installs_the_clone_itself():
    assert {"pip": ["-e ."]} in ENVIRONMENT["dependencies"]
    assert (ENVIRONMENT["name"], ENVIRONMENT["channels"]) == ("cnnlab", ["conda-forge"])


def test_binder_s_own_tool_would_build_the_environment():
    ask = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", str(ROOT)]
    told = subprocess.run(ask, capture_output=True, text=True, cwd=tempfile.gettempdir(), check=True)
    text = told.stdout + told.stderr
    assert "Building conda environment for python=3.11" in text
    assert 0 < text.index("COPY --chown=0:0 src/") < text.index('--file "environment.yml"')


def test_the_memory_that_the_readme_names_for_binder_is_what_was_measured():
    table = (ROOT / "tests" / "benchmarks" / "results" / "binder.md").read_text(encoding="utf-8")
    rows = [[int(cell) for cell in line.split("|")[3:6]] for line in table.splitlines()[7:]]
    playing, asked = (max(row[place] for row in rows) for place in (1, 2))
    assert f"take at most {math.ceil(playing / 10) * 10} MiB together, up to {asked // 10 * 10}" in (
        ROOT / "README.md"
    ).read_text(encoding="utf-8")
    assert playing < 700


def test_no_binder_folder_hides_the_environment():
    assert not (ROOT / "binder").exists()
    assert not (ROOT / ".binder").exists()


def test_the_command_named_in_the_project_exists():
    module, _, name = PROJECT["scripts"]["cnnlab"].partition(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("path", sorted((ROOT / "labs").glob("**/*.ipynb")), ids=lambda path: path.name)
def test_labs_are_stored_without_outputs(path):
    lab = json.loads(path.read_text())
    assert "widgets" not in lab["metadata"]
    for cell in lab["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert not cell.get("attachments")


def test_packages_import_only_what_their_contracts_allow():
    run = python("-c", LINT, "--no-cache")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("contract", PLANTED)
def test_a_violation_of_each_contract_is_refused(contract, tmp_path):
    place, line = PLANTED[contract]
    shutil.copytree(ROOT / "cnnlab", tmp_path / "cnnlab", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    module = tmp_path / "cnnlab" / place
    module.parent.mkdir(exist_ok=True)
    module.write_text(f"{module.read_text() if module.exists() else ''}\n{line}\n")
    run = python("-c", LINT, "--no-cache", folder=tmp_path)
    assert run.returncode == 1
    assert contract.partition(":")[0] in re.findall(r"^(.*) BROKEN", run.stdout, re.M)


def test_the_guide_draws_the_layers_as_the_contract_has_them(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    drawing = import_module("draw_layers")
    assert drawing.PLACE.findall(drawing.GUIDE.read_text(encoding="utf-8")) == [drawing.picture()]
    packages = {path.parent.name for path in (ROOT / "cnnlab").glob("*/__init__.py")}
    assert {package for layer in drawing.layers() for package in layer} == packages


@pytest.mark.parametrize("arguments", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff_finds_nothing(arguments):
    run = python("-m", "ruff", *arguments, "--quiet", ".")
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_types_of_the_core_are_right():
    run = python("-m", "mypy")
    assert run.returncode == 0, run.stdout + run.stderr


def test_no_file_names_a_machine_or_a_registry():
    found = []
    for path in tracked():
        text = path.read_bytes().decode("utf-8", errors="ignore") if path.suffix not in {".npz", ".png"} else ""
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE.finditer(text)]
    assert not found


@pytest.mark.parametrize(
    "package", ["torch", "numpy", "plotly", "ipywidgets", "anywidget", "IPython", "rich", "PIL", "jinja2"]
)
def test_importing_cnnlab_imports_nothing_heavy(package, loaded_by_import):
    assert "cnnlab" in loaded_by_import
    assert package not in loaded_by_import


@pytest.fixture(scope="module")
def loaded_by_import() -> list[str]:
    """The packages in memory after `import cnnlab` in a fresh Python."""
    run = python("-c", QUIET)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE", "CHANGELOG.md", "README.md"])
def test_the_project_says_what_it_is_and_whose(name):
    assert (ROOT / name).read_text().strip()


def test_the_newest_version_in_the_changelog_is_the_package_s():
    newest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == cnnlab.__version__
