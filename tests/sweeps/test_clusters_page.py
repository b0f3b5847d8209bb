"""The worked page on clusters: what runs without a cluster is run as it stands there, with fewer cells."""

import ast
import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

from cnnlab.records.map import Map

PAGE = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
LOCAL, SLURM, KUBERNETES, PLAN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

pytestmark = [pytest.mark.timeout(240), pytest.mark.filterwarnings("ignore::ResourceWarning")]


def run_code(code, **changes):
    """Run a block of the page as a script, some of its numbers changed; what it prints."""
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(compile(code, "docs/clusters.md", "exec"), {"__name__": "__main__"})
    return told.getvalue()


@pytest.mark.parametrize("code", [LOCAL, SLURM, KUBERNETES, PLAN])
def test_each_block_of_the_page_gives_a_sweep_an_executor(code):
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    (sweep,) = (call for call in calls if ast.unparse(call.func) == "cnnlab.sweep")
    assert "executor" in [keyword.arg for keyword in sweep.keywords]
    assert "client.get_executor(pure=False)" in map(ast.unparse, calls)


def test_two_processes_compute_the_page_s_first_map(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "3 learning_rate x 3 init_scale x 1 seeds, 20 updates" in run_code(LOCAL, **{'"seeds": 8': '"seeds": 1'})
    assert Map.load("first.map").done.all()


def test_the_plan_computes_its_parts_and_puts_them_together(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    small = {"1000)": "4)", "4), 8": "4), 2", "seeds=32": "seeds=2, steps=5"}
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        client.write_scheduler_file("scheduler.json")
        run_code(PLAN, **small)
        assert Path("whole.html").stat().st_size > 1000
        parts = sorted(Path("parts").iterdir())
        assert [part.name for part in parts] == ["0000.map", "0000.npy", "0002.map", "0002.npy"]
        for path in parts[::2]:
            share = np.load(path.with_suffix(".npy"))
            assert share.shape == (4, 2)
            assert np.array_equal(share, Map.load(path).share("diverged").astype(np.float32))
            path.unlink()
        run_code(PLAN, **small)  # again: what is done is not computed anew
        assert [part.name for part in sorted(Path("parts").iterdir())] == ["0000.npy", "0002.npy"]


def test_the_plan_s_parts_are_maps_that_are_allowed():
    from cnnlab.records.map_plans import MOST_RUNS

    cells, rows = (int(number) for number in re.search(r"(\d+)\), (\d+)\nPARTS", PLAN).groups())
    seeds = int(re.search(r"seeds=(\d+)", PLAN).group(1))
    assert cells * rows * seeds == 256_000 <= MOST_RUNS < 2 * 256_000
    assert f"{MOST_RUNS:,} runs at most" in PAGE
    assert f"{cells // rows} parts of {cells:,} x {rows} cells and {seeds} seeds, 256,000 runs each" in PAGE


def test_the_plan_s_figures_are_those_that_were_measured():
    table = (Path(__file__).parents[1] / "benchmarks" / "results" / "large_map.md").read_text(encoding="utf-8")
    *_, row = (line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| 128"))
    microseconds, memory, file, load = (float(row[place]) for place in (3, 4, 6, 8))
    update = float(re.search(r"one thread: ([\d.]+) ms", table).group(1))
    runs, part = 32_000_000, 256_000
    days = runs * 20 * update / 1000 / 86_400
    assert f"CPU: {update} ms an update and core | {20 * update / 1000:.2f} s | {days:.0f} days of one core" in PAGE
    assert f"{days * 24 / 128:.0f} hours of 128 | {part * 20 * update / 1000 / 128 / 60:.0f} minutes of 128" in PAGE
    minutes = f"{runs * microseconds / 6e7:.0f} minutes | {part * microseconds / 1e6:.0f} s"
    assert f"| {microseconds:.0f} µs | {minutes} |" in PAGE
    assert f"| {memory:.0f} bytes | {runs * memory / 1e9:.1f} GB | {part * memory / 1e6:.0f} MB |" in PAGE
    assert f"| {file:.0f} bytes | {runs * file / 1e9:.1f} GB | {part * file / 1e6:.0f} MB |" in PAGE
    assert f"| {load:.0f} µs | {runs * load / 6e7:.0f} minutes | {part * load / 1e6:.0f} s |" in PAGE
