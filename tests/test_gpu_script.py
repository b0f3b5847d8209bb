"""The script for a GPU: it runs to its end without one, and a fault in one part leaves the rest."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import gpu
import pytest

ROOT = Path(__file__).parents[1]
BLOCKED = ("plotly", "ipywidgets", "anywidget", "traitlets", "IPython", "jinja2", "nbformat", "rich")
"""What a machine for computing has not installed."""


@pytest.mark.processes
def test_the_whole_script_runs_on_a_cpu_without_plots_or_widgets(tmp_path):
    code = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED!r})); import runpy; sys.argv[0] = {str(ROOT)!r}; "
    code += f"sys.path.insert(0, {str(ROOT / 'tests')!r}); import gpu; "
    code += f"sys.exit(gpu.main(['--device', 'cpu', '--small', '--out', {str(tmp_path)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing failed" in done.stdout
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found) == list(gpu.PARTS)
    assert all(part["lines"] and not part["error"] for part in found.values())
    assert "FAILED" not in (tmp_path / "gpu.md").read_text()


def right(_bench):
    """A part that finds what was asked for."""
    yield gpu.Line("one", "1", "1", True)
    yield gpu.Line("slow", "9 ms", "<= 1 ms", False, must=False)


def wrong(_bench):
    """A part that does not."""
    yield gpu.Line("two", "3", "2", False)


def broken(_bench):
    """A part that raises after a line."""
    yield gpu.Line("three", "3")
    raise RuntimeError("out of luck")


def endless(_bench):
    """A part that never ends."""
    while True:
        time.sleep(0.01)
        yield from ()


@pytest.fixture
def parts(monkeypatch):
    """Four parts in place of the script's own."""
    chosen = {"broken": (broken, 5), "endless": (endless, 0.2), "wrong": (wrong, 5), "right": (right, 5)}
    monkeypatch.setattr(gpu, "PARTS", chosen)
    return chosen


def test_a_fault_in_one_part_leaves_the_rest_and_the_exit_status_is_1(parts, tmp_path, capsys):
    assert gpu.main(["--device", "cpu", "--small", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "FAILED broken: RuntimeError: out of luck" in said
    assert "FAILED endless: OverTime: took longer than 0.2 s" in said
    assert "FAILED wrong: not as it must be: two" in said
    assert "one: 1 (asked: 1)" in said
    assert "slow: 9 ms (asked: <= 1 ms; missed)" in said
    assert "failed: broken, endless, wrong" in said
    table = (tmp_path / "gpu.md").read_text()
    assert "| two | 3 | 2 | WRONG |" in table
    assert "| three | 3 |" in table


def test_a_figure_that_is_missed_is_no_fault(parts):
    assert gpu.main(["--device", "cpu", "--small", "--only", "right"]) == 0


def test_without_time_no_further_part_is_begun(parts):
    bench = gpu.Bench("cpu", gpu.SMALL)
    found = gpu.run_parts(bench, ["right"], budget=-1)
    assert found["right"][:2] == ([], "no time was left")


@pytest.mark.skipif(sys.platform != "linux", reason="needs Triton, which there is for Linux alone")
def test_the_kernels_compile_for_a_gpu_that_is_not_there(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = [sys.executable, str(ROOT / "tests" / "compile_kernels.py")]
    done = subprocess.run(script, capture_output=True, text=True, env=environment, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": ok") >= 7


FIGURE = re.compile(r"\d+\.\d+")
PAGES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("gpu.md", "clusters.md")}


def read_results(name="gpu.md"):
    """The table that the script wrote on a GPU."""
    return (ROOT / "tests" / "benchmarks" / "results" / name).read_text(encoding="utf-8")


def test_each_figure_of_the_page_on_gpus_was_measured():
    figures = FIGURE.findall(PAGES["gpu.md"].replace("torch 2.11", ""))
    assert len(figures) > 12
    measured = read_results() + read_results("gpu_earlier.md")
    assert [figure for figure in figures if figure not in FIGURE.findall(measured)] == []


def test_the_plan_on_gpus_follows_from_the_measured_update():
    sentence = (
        r"takes ([\d.]+) ms\. Then the plan takes (\d+) hours on one such GPU and (\d+) minutes on 16.*?with (\d+) of"
    )
    said = re.search(sentence, PAGES["clusters.md"], re.DOTALL)
    update, hours, minutes, gpus = map(float, said.groups())
    assert f"1,024 members: an update | {update} ms" in read_results()
    seconds = 32e6 / 1024 * 20 * update / 1e3
    assert (hours, minutes) == (round(seconds / 3600), round(seconds / 60 / 16))
    runs_a_second = float(re.search(r"one thread: ([\d,]+) runs a second", PAGES["clusters.md"])[1].replace(",", ""))
    assert gpus == int(runs_a_second / (1024 / (20 * update / 1e3)))
