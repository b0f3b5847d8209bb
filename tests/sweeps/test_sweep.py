"""Sweeps: labels as those of runs, whatever executor computes them, whatever is killed, wherever they stop."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

import cnnlab
from cnnlab.records.map import Map
from cnnlab.sweeps import pieces, workers
from cnnlab.sweeps import sweep as sweeping
from cnnlab.sweeps.sweep import Survey
from cnnlab.sweeps.workers import count_cores

TINY = {"channels": 3, "hidden": (6, 6), "patch_size": 13, "patches": 10, "relu": "none"}
AXES = {"learning_rate": [1e-4, 1e-2, 1.0], "init_scale": [0.5, 4.0]}
ASKED = {**TINY, **AXES, "seeds": 2, "steps": 6}


@pytest.fixture(autouse=True)
def in_a_thread(monkeypatch, request):
    """One run a piece; one core, so that no processes are made, but for the tests that are about them."""
    monkeypatch.setattr(pieces, "LARGEST_PIECE", 1)
    if "processes" not in request.keywords:
        monkeypatch.setattr(workers, "count_cores", lambda: 1)


@pytest.fixture(scope="module")
def expected():
    """The map that all the ways of computing it must come to: by a loop of runs."""
    made = sweeping.planned("question", 2, 6, {**TINY, **AXES})
    for index, member in enumerate(made.members()):
        run = cnnlab.Run(member)
        run.advance(6, until="nonfinite")
        cost = run.record.cost
        made.put(index, cost, cost[0], cost[5] if len(cost) == 6 else np.nan, run.measure_held_out())
    return made


def same(found, wanted):
    """Whether two maps hold the same numbers."""
    names = ("cost", "began", "ended", "held_out_accuracy")
    return all(np.array_equal(getattr(found, name), getattr(wanted, name), equal_nan=True) for name in names)


def test_a_sweep_is_a_loop_of_runs(expected):
    found = cnnlab.sweep("question", **ASKED)
    assert found.shape == (3, 2, 2)
    assert found.done.all()
    assert same(found, expected)
    assert {"diverged", "stalled", "converged"} <= set(found.labels.flat)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_cell_opened_as_a_run_has_the_label_of_the_map(precision):
    found = cnnlab.sweep("question", **ASKED, precision=precision)
    for place in np.ndindex(found.shape):
        run = found.run(*place)
        run.advance(found.steps, until="nonfinite")
        assert (run.record.first_nonfinite or 0) == found.first_nonfinite[place]
        assert np.array_equal(run.record.cost[-1], found.final_cost[place], equal_nan=True)


def test_without_an_axis_a_map_is_of_seeds_alone():
    found = cnnlab.sweep("question", **TINY, seeds=[7, 3], steps=2)
    assert found.shape == (2,)
    assert found.seeds == (7, 3)
    assert found.settings_at(1).seed == 3


def test_seeds_go_on_from_that_of_the_settings():
    assert cnnlab.sweep("question", **TINY, seed=5, seeds=3, steps=1).seeds == (5, 6, 7)


def test_any_numeric_field_may_be_an_axis_and_whole_ones_stay_whole():
    found = cnnlab.sweep("question", **TINY | {"channels": np.array([2, 4])}, l2=[0, 1.0], seeds=1, steps=2)
    assert [name for name, _ in found.axes] == ["channels", "l2"]
    assert found.settings_at(1, 0).channels == 4
    assert found.settings_at(1, 1).l2 == 1.0


def test_a_choice_may_be_an_axis_beside_a_range_and_its_cells_are_runs():
    found = cnnlab.sweep(
        "question", **TINY, optimizer=["adam", "sgd"], learning_rate=[1e-3, 1.0], seeds=1, steps=4, l2=0.1
    )
    assert found.axes[0] == ("optimizer", ("adam", "sgd"))  # in the order given
    assert set(found.labels[1, 1]) == {"diverged"} != set(found.labels[0, 0])
    for place in np.ndindex(found.shape):
        run = found.run(*place)
        assert run.settings.optimizer == ("adam", "sgd")[place[0]]
        run.advance(4, until="nonfinite")
        assert np.array_equal(run.record.cost, found.cost[place][: len(run.record)], equal_nan=True)


def test_choices_of_the_network_s_structure_may_be_axes():
    axes = {"normalization": ["off", "group", "batch"], "activation": np.array(["gelu", "tanh"])}
    found = cnnlab.sweep(
        "question", **{**TINY, "channels": 16, "hidden": (16, 16), "relu": "question"}, **axes, seeds=1, steps=1
    )
    assert found.done.all()
    assert len(set(found.cost.flat)) == 6


def test_progress_is_called_with_the_map_so_far_and_at_last_with_all_of_it():
    seen = []
    found = cnnlab.sweep("question", **ASKED, progress=seen.append)
    assert same(seen[-1], found)
    assert [part.done.sum() for part in seen] == sorted(part.done.sum() for part in seen)


def test_progress_that_takes_long_is_called_seldom(monkeypatch):
    monkeypatch.setattr(sweeping, "PROGRESS", 0.0)
    seen = []
    cnnlab.sweep("question", **ASKED, progress=lambda part: seen.append(part) or time.sleep(0.3))
    assert len(seen) <= 3  # and not after each of the 12 runs
    assert seen[-1].done.all()


REFUSED = [
    ({"lerning_rate": [1, 2]}, TypeError, "no setting named 'lerning_rate'; did you mean 'learning_rate'"),
    ({"learning_rate": [0.1]}, ValueError, "an axis needs two values or more, and learning_rate has 1"),
    ({"learning_rate": [0.1, 0.1]}, ValueError, "needs two values or more, and learning_rate has 1"),
    ({"learning_rate": []}, ValueError, "needs two values or more, and learning_rate has 0"),
    ({"learning_rate": [0.1, float("nan")]}, ValueError, r"learning_rate\[1\] must lie in \(0, 1e6\], got nan"),
    ({"learning_rate": np.array([np.nan, 1])}, ValueError, r"learning_rate\[0\] must lie in \(0, 1e6\], got nan"),
    ({"learning_rate": [0.1, -1]}, ValueError, r"learning_rate\[1\] must lie in \(0, 1e6\], got -1"),
    ({"learning_rate": [0.2, 0.1]}, ValueError, "the values of learning_rate must rise"),
    ({"learning_rate": [[0.1, 0.2]]}, TypeError, r"one row of numbers, got an array of shape \(1, 2\)"),
    ({"learning_rate": [0.1, "high"]}, TypeError, r"learning_rate\[1\] must be a number"),
    ({"clip": ["off", "nrom"]}, ValueError, r"clip\[1\] must be one of .*, got 'nrom'; did you mean 'norm'"),
    ({"clip": ["off", 3]}, ValueError, r"clip\[1\] must be one of .*, got 3"),
    ({"clip": np.array([["off", "norm"]])}, TypeError, r"one row of choices, got an array of shape \(1, 2\)"),
    ({"clip": ["off"]}, ValueError, "needs two values or more, and clip has 1; one is set as clip=choice"),
    ({"clip": ("norm", "off", "norm")}, ValueError, "the choices of clip must each be there once"),
    ({"device": ["cpu", "auto"]}, TypeError, "device is no axis of a map: all runs of a map compute on one"),
    ({"residual": ["off", "on"]}, ValueError, "residual must be 'off' with padding 'valid'"),
    ({"batch_size": [10, 65, 66], "normalization": "batch"}, ValueError, "leave 2 patches or more"),
    ({"normalization": ["off", "batch", "layer"], "batch_size": [1, 5]}, ValueError, "leave 2 patches or more"),
    ({"batch_size": [None, 3]}, TypeError, "batch_size must hold numbers where it is an axis, got None at place 0"),
    ({"batch_size": [2, 100]}, ValueError, r"batch_size must lie in \[1, 66\]"),
    ({"channels": [1.5, 2]}, TypeError, r"channels\[0\] must be a whole number"),
    ({"seed": [1, 2]}, TypeError, "seed is no axis of a map: pass seeds="),
    ({"epochs": [1, 2]}, TypeError, "epochs is no axis of a map: pass steps="),
    ({"l1": [0, 1], "l2": [0, 1], "momentum": [0, 0.9]}, ValueError, "two axes at most, got 3: l1, l2, momentum"),
    ({"steps": 0}, ValueError, r"steps must be a whole number in \[1, 100000\], got 0"),
    ({"steps": 2.5}, ValueError, "steps must be a whole number"),
    ({"seeds": 0}, ValueError, r"seeds must be a whole number in \[1, 262144\], got 0"),
    ({"seeds": []}, TypeError, "seeds must be how many, or a list of them"),
    ({"seeds": [1, 1]}, ValueError, "seeds must each be there once"),
    ({"seeds": [1, -1]}, ValueError, r"seeds\[1\] must be a whole number in \[0, 4294967295\], got -1"),
    ({"executor": 4}, TypeError, "executor must be a concurrent.futures.Executor, got 4"),
]


@pytest.mark.parametrize(("asked", "kind", "sentence"), REFUSED, ids=[str(asked) for asked, *_ in REFUSED])
def test_what_cannot_be_computed_is_refused_in_a_sentence(asked, kind, sentence):
    with pytest.raises(kind, match=sentence) as caught:
        cnnlab.sweep("question", **asked)
    assert "\n" not in str(caught.value)


def test_a_million_cells_are_refused_with_the_time_and_memory_that_they_would_take(monkeypatch):
    monkeypatch.setattr(sweeping, "count_cores", lambda: 1)
    axes = {"learning_rate": np.geomspace(1e-6, 1, 1000), "init_scale": np.linspace(0.1, 2, 1000)}
    pattern = r"1,000,000 cells and 8 seeds is 8,000,000 runs.* would take about .*(h|days) on 1 core, and 1\.5 GiB"
    with pytest.raises(ValueError, match=pattern):
        cnnlab.sweep("question", **axes)


# Files.


def test_a_map_that_was_interrupted_goes_on_where_it_was(tmp_path, expected, monkeypatch):
    path = tmp_path / "map"

    def interrupt(part):
        if part.done.sum() >= 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(sweeping, "PROGRESS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        cnnlab.sweep("question", **ASKED, path=path, progress=interrupt)
    kept = Map.load(path)
    assert 5 <= kept.done.sum() < kept.done.size
    computed = []
    real = workers.compute_piece
    monkeypatch.setattr(
        workers, "compute_piece", lambda start, changes, *rest: computed.extend(changes) or real(start, changes, *rest)
    )
    assert same(cnnlab.sweep("question", **ASKED, path=path), expected)
    assert len(computed) == kept.done.size - kept.done.sum()
    assert same(Map.load(path), expected)


def test_a_file_that_was_cut_within_a_line_goes_on_too(tmp_path, expected):
    path = tmp_path / "map"
    cnnlab.sweep("question", **ASKED, path=path)
    path.write_bytes(path.read_bytes()[:-100])
    assert Map.load(path).done.sum() < 12
    assert same(cnnlab.sweep("question", **ASKED, path=path), expected)
    assert same(Map.load(path), expected)


def test_a_complete_file_is_read_and_nothing_is_computed(tmp_path, expected, monkeypatch):
    cnnlab.sweep("question", **ASKED, path=tmp_path / "map")
    monkeypatch.setattr(workers, "compute_piece", None)
    assert same(cnnlab.sweep("question", **ASKED, path=tmp_path / "map"), expected)


def test_a_file_of_another_map_is_not_written_to(tmp_path):
    path = tmp_path / "map"
    cnnlab.sweep("question", **TINY, seeds=2, steps=1, path=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"holds another map, .*: seeds differ; give another path"):
        cnnlab.sweep("question", **TINY, seeds=3, steps=1, path=path)
    assert path.read_bytes() == before


# Pausing and cancelling.


def test_what_was_done_before_a_cancel_is_kept():
    survey = Survey(sweeping.planned("question", 2, 6, {**TINY, **AXES}))
    for count, _ in enumerate(survey.pieces()):
        if count == 2:
            survey.cancel()
    assert 3 <= survey.done < survey.total
    assert survey.map.done.sum() == survey.done


def test_a_paused_survey_computes_nothing_until_it_goes_on(expected):
    survey = Survey(sweeping.planned("question", 2, 6, {**TINY, **AXES}))
    survey.pause()
    thread = threading.Thread(target=lambda: list(survey.pieces()))
    thread.start()
    time.sleep(0.5)
    assert survey.done == 0
    survey.go_on()
    thread.join(30)
    assert same(survey.map, expected)


def test_the_time_left_follows_from_what_was_computed():
    survey = Survey(sweeping.planned("question", 2, 6, {**TINY, **AXES}))
    assert survey.seconds_left is None
    pieces = survey.pieces()
    next(pieces)
    next(pieces)
    assert survey.seconds_left == pytest.approx(survey.spent / survey.computed * (12 - survey.done))
    assert not list(pieces)[12:]
    assert survey.seconds_left == 0


# Executors.


class Flaky(ThreadPoolExecutor):
    """An executor of which some pieces of work fail, as when a worker elsewhere is lost."""

    given = 0

    def submit(self, *work):
        self.given += 1
        if self.given in (2, 5, 7):
            lost: Future = Future()
            lost.set_exception(OSError("the worker is gone"))
            return lost
        return super().submit(*work)


def test_runs_of_a_lost_worker_are_computed_again(expected):
    with Flaky(2) as executor:
        assert same(cnnlab.sweep("question", **ASKED, executor=executor), expected)
        assert executor.given > 12
        assert executor.submit(int).result(10) == 0  # the reader's own executor is not shut down


def test_a_run_that_fails_again_and_again_ends_the_sweep_in_a_sentence(monkeypatch):
    def fail(*_piece):
        raise MemoryError("no room")

    monkeypatch.setattr(workers, "compute_piece", fail)
    with pytest.raises(RuntimeError, match=r"settings\(.*\) could not be computed in 5 attempts: MemoryError"):
        cnnlab.sweep("question", **ASKED)


def test_an_executor_that_is_shut_down_is_said(tmp_path):
    with ThreadPoolExecutor(1) as executor:
        pass
    with pytest.raises(RuntimeError, match=r"the executor is broken or shut down: .*is kept"):
        cnnlab.sweep("question", steps=2, seeds=2, executor=executor, path=tmp_path / "map")


def test_a_broken_executor_of_the_reader_s_own_is_said(tmp_path):
    class Broken(ThreadPoolExecutor):
        def submit(self, *work):
            raise BrokenProcessPool("a child process terminated abruptly")

    with Broken(1) as executor, pytest.raises(RuntimeError, match=r"the executor is broken.*is kept"):
        cnnlab.sweep("question", **ASKED, executor=executor, path=tmp_path / "map")


@pytest.mark.processes
def test_what_is_abandoned_ends_without_waiting_for_its_runs(monkeypatch):
    monkeypatch.setattr(workers, "count_cores", lambda: 2)
    survey = Survey(sweeping.planned("question", 4, 100_000, TINY))
    thread = threading.Thread(target=lambda: list(survey.pieces()))
    thread.start()
    while not (survey.workers and survey.workers.executor and survey.workers.executor._processes):
        time.sleep(0.1)
    survey.abandon()
    thread.join(60)
    assert not thread.is_alive()
    assert not survey.map.done.any()
    assert not multiprocessing.active_children()


@pytest.mark.processes
def test_a_killed_process_loses_nothing(expected, monkeypatch):
    monkeypatch.setattr(workers, "count_cores", lambda: 2)
    pools = []
    make = ProcessPoolExecutor.__init__
    monkeypatch.setattr(
        ProcessPoolExecutor, "__init__", lambda pool, *a, **k: pools.append(pool) or make(pool, *a, **k)
    )
    survey = Survey(sweeping.planned("question", 2, 6, {**TINY, **AXES}))
    for count, _ in enumerate(survey.pieces()):
        if count == 1:
            os.kill(next(iter(pools[0]._processes)), signal.SIGKILL)
    assert len(pools) == 2
    assert same(survey.map, expected)
    assert not any(process.is_alive() for pool in pools for process in (pool._processes or {}).values())


@pytest.mark.processes
def test_a_script_without_a_guard_around_its_main_part_sweeps_with_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import cnnlab\nfrom cnnlab.sweeps import workers\nprint('once')\nworkers.count_cores = lambda: 2\n"
        "found = cnnlab.sweep('question', channels=2, hidden=(3, 3), patch_size=13, patches=4, seeds=3, steps=1)\n"
        "print(found.done.all())\n"
    )
    told = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert told.stdout.split() == ["once", "True"], told.stderr
    assert told.stderr == ""


@pytest.mark.processes
def test_workers_end_with_a_process_that_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time, cnnlab\nfrom cnnlab.sweeps.workers import Workers\nfrom cnnlab.sweeps import workers\n"
        "workers.count_cores = lambda: 2\nworkers = Workers(None, cnnlab.settings()).__enter__()\n"
        "print(*[workers.executor.submit(os.getpid).result() for _ in range(1)], flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        worker = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}/stat").exists() and " Z " not in Path(f"/proc/{worker}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_cores_are_a_whole_number():
    assert isinstance(count_cores(), int)
    assert count_cores() >= 1


@pytest.mark.parametrize("quota", ["50000 100000", "max 100000", None])
def test_cores_are_counted_where_the_system_has_no_affinity(quota, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)

    def read(_path):
        if quota is None:
            raise FileNotFoundError
        return quota

    monkeypatch.setattr(Path, "read_text", read)
    assert count_cores() == (1 if quota == "50000 100000" else 4)


def test_the_user_s_script_is_back_after_two_threads_have_made_processes_at_once():
    main = sys.modules["__main__"]
    entered, leave = threading.Event(), threading.Event()

    def make_processes():
        with workers.hide_main_module():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=make_processes)
    with workers.hide_main_module():
        assert sys.modules["__main__"] is not main
        thread.start()
        entered.wait(0.3)
    leave.set()
    thread.join(10)
    assert sys.modules["__main__"] is main
