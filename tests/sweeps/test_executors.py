"""Sweeps beyond one process pool: Dask with a real scheduler and worker processes, and an ipyparallel cluster."""

import os
import signal
import time

import numpy as np
import pytest

import cnnlab
from cnnlab.sweeps import sweep as sweeping
from cnnlab.sweeps import workers
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
def dask_client():
    """A client of a Dask scheduler with two worker processes."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, protocol="tcp"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_dask_computes_the_same_map(dask_client, expected):
    executor = dask_client.get_executor(pure=False)
    assert same(cnnlab.sweep("question", **ASKED, seeds=4, steps=5, executor=executor), expected)


def test_a_killed_dask_worker_loses_nothing(dask_client, expected, monkeypatch):
    monkeypatch.setattr(sweeping, "LARGEST_PIECE", 1)
    pids = list(dask_client.run(os.getpid).values())
    survey = Survey(sweeping.planned("question", 4, 5, ASKED), dask_client.get_executor(pure=False))
    for count, _ in enumerate(survey.pieces()):
        if count == 1:
            os.kill(pids[0], signal.SIGKILL)
    assert same(survey.map, expected)


@pytest.fixture(scope="module")
def engines():
    """A client of an ipyparallel cluster of two engines."""
    ipyparallel = pytest.importorskip("ipyparallel")
    with ipyparallel.Cluster(n=2, log_level=40) as client:
        yield client


def test_ipyparallel_computes_the_same_map(engines, expected):
    assert same(cnnlab.sweep("question", **ASKED, seeds=4, steps=5, executor=engines.executor()), expected)


def test_a_killed_ipyparallel_engine_loses_nothing(engines, expected, monkeypatch):
    monkeypatch.setattr(sweeping, "LARGEST_PIECE", 1)
    pids = engines[:].apply_sync(os.getpid)
    survey = Survey(sweeping.planned("question", 4, 5, ASKED), engines.executor())
    for count, _ in enumerate(survey.pieces()):
        if count == 1:
            os.kill(pids[0], signal.SIGKILL)
            time.sleep(0.5)
    assert same(survey.map, expected)
