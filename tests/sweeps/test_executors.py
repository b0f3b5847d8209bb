"""Sweeps beyond one process pool: Dask with a real scheduler and worker processes, and an ipyparallel cluster."""

import contextlib
import os
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import cnnlab
from cnnlab.sweeps import pieces, workers
from cnnlab.sweeps import sweep as sweeping
from cnnlab.sweeps.sweep import Survey

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ASKED = {
    "channels": 3,
    "hidden": (6, 6),
    "patch_size": 13,
    "patches": 10,
    "relu": "none",
    "learning_rate": [1e-4, 1e-2, 1.0],
}


@pytest.fixture(scope="module")
def expected():
    """The map as a thread of this process computes it."""
    survey = Survey(sweeping.planned("question", 4, 5, ASKED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "count_cores", lambda: 1)
        list(survey.pieces())
    return survey.map


def same(found, wanted):
    """Whether two maps hold the same numbers."""
    names = ("cost", "began", "ended", "held_out_accuracy")
    return all(np.array_equal(getattr(found, name), getattr(wanted, name), equal_nan=True) for name in names)


@pytest.fixture(scope="module")
def dask_client(distributed_cluster):
    """A client of a Dask scheduler with two worker processes."""
    with distributed_cluster() as client:
        yield client


@pytest.fixture(scope="module")
def distributed_cluster():
    """How to make a Dask scheduler with two worker processes, which have an environment."""
    distributed = pytest.importorskip("distributed")

    @contextlib.contextmanager
    def make(environment=None):
        asked = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "protocol": "tcp"}
        with (
            distributed.LocalCluster(**asked, processes=True, env=environment or {}) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client

    return make


def test_dask_computes_the_same_map(dask_client, expected):
    executor = dask_client.get_executor(pure=False)
    assert same(cnnlab.sweep("question", **ASKED, seeds=4, steps=5, executor=executor), expected)


def test_a_killed_dask_worker_loses_only_its_batch(dask_client, expected, monkeypatch, tmp_path):
    monkeypatch.setattr(pieces, "LARGEST_PIECE", 1)
    dask_client.run(log_runs, str(tmp_path))
    survey = Survey(sweeping.planned("question", 4, 5, ASKED), dask_client.get_executor(pure=False))
    killed = 0
    for count, _ in enumerate(survey.pieces()):
        if count == 1:
            killed = int(next(name for name in read_runs(tmp_path) if name.endswith("begun")).split()[0])
            os.kill(killed, signal.SIGKILL)
    assert same(survey.map, expected)
    begun = Counter(name.split()[1] for name in read_runs(tmp_path))
    again = [run for run, times in begun.items() if times > 1]
    assert len(begun) <= survey.total
    assert len(again) <= 2  # one under way, one whose result was not fetched yet
    for run in again:
        assert any(name.startswith(f"{killed} {run} ") for name in read_runs(tmp_path))


def log_runs(folder):
    """Have a worker tell in the names of files which runs it begins, and which of them it has done."""
    real = pieces.compute_piece

    def compute_piece(start, changes, *rest):
        name = f"{os.getpid()} {'_'.join(map(str, changes[0].values()))}"
        begun = Path(folder) / f"{name} begun"
        begun.touch()
        time.sleep(0.05)
        found = real(start, changes, *rest)
        begun.rename(Path(folder) / f"{name} done")
        return found

    pieces.compute_piece = compute_piece


def read_runs(folder):
    """What the workers have told: "process run begun" or "process run done"."""
    return [path.name for path in folder.iterdir()]


def test_each_dask_worker_has_a_gpu_of_its_own_a_new_one_that_of_the_dead(distributed_cluster, tmp_path):
    with distributed_cluster({"CUDA_VISIBLE_DEVICES": "4,7", "TMPDIR": str(tmp_path)}) as client:
        piece = (cnnlab.settings("question", seed=3), [{"seed": 4}], 1, "another process")
        client.run(pieces.compute_piece, *piece)
        taken = dict(client.run(name_gpu).values())
        assert sorted(taken.values()) == ["4", "7"]
        dead = min(taken)
        os.kill(dead, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len(there := dict(client.run(name_gpu, on_error="ignore").values())) < 2 or dead in there:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        client.run(pieces.compute_piece, *piece)
        (new,) = set(there) - set(taken)
        assert dict(client.run(name_gpu).values())[new] == taken[dead]


def name_gpu():
    """A worker's process and the GPUs that it sees."""
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.fixture(scope="module")
def engines():
    """A client of an ipyparallel cluster of two engines."""
    ipyparallel = pytest.importorskip("ipyparallel")
    with ipyparallel.Cluster(n=2, log_level=40) as client:
        yield client


def test_ipyparallel_computes_the_same_map(engines, expected):
    assert same(cnnlab.sweep("question", **ASKED, seeds=4, steps=5, executor=engines.executor()), expected)


def test_a_killed_ipyparallel_engine_loses_nothing(engines, expected, monkeypatch):
    monkeypatch.setattr(pieces, "LARGEST_PIECE", 1)
    pids = engines[:].apply_sync(os.getpid)
    survey = Survey(sweeping.planned("question", 4, 5, ASKED), engines.executor())
    for count, _ in enumerate(survey.pieces()):
        if count == 1:
            os.kill(pids[0], signal.SIGKILL)
            time.sleep(0.5)
    assert same(survey.map, expected)
