"""Pieces of work: a slow worker has few runs, a fast one many, and each has a GPU of its own."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import cnnlab
from cnnlab.sweeps import pieces
from cnnlab.sweeps.devices import list_devices
from cnnlab.sweeps.ensemble import EnsembleResult
from cnnlab.sweeps.pieces import Answer, Queue, Speeds
from cnnlab.sweeps.workers import UNKNOWN_WORKERS, count_workers

NAME_GPU = "import os; from cnnlab.sweeps.devices import take_device; take_device(); take_device(); "
NAME_GPU += "print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); input()"


def answer(runs, seconds, worker="one", together=False):
    return Answer(*(np.zeros(runs) for _ in range(4)), seconds, worker, together)


# How large.


def test_a_first_piece_is_one_run_for_nobody_knows_how_long_it_takes():
    assert Speeds().choose_size(10_000, 2) == 1


def test_a_piece_takes_as_long_as_a_piece_should_by_the_fastest_worker():
    speeds = Speeds()
    speeds.note(answer(1, 0.5, "slow"))
    assert speeds.choose_size(10_000, 2) == 1
    speeds.note(answer(4, 4 * 0.02, "fast"))
    assert speeds.choose_size(10_000, 2) == int(pieces.LASTING / 0.02)
    speeds.note(answer(4, 4 * 0.04, "fast"))  # another program runs beside it now
    assert speeds.choose_size(10_000, 2) == int(pieces.LASTING / 0.04)
    speeds.note(answer(4, 4e-6, "fast"))
    assert speeds.choose_size(10_000, 2) == pieces.LARGEST_PIECE


def test_pieces_become_smaller_at_the_end_so_that_every_worker_has_work():
    speeds = Speeds()
    speeds.note(answer(4, 4e-6))
    assert [speeds.choose_size(left, 4) for left in (1000, 80, 8, 7, 1)] == [64, 10, 1, 1, 1]


def test_a_gpu_has_a_thousand_runs_at_once_and_never_only_a_few():
    speeds = Speeds()
    speeds.note(answer(1, 3.0, "gpu", together=True))
    assert speeds.choose_size(100_000, 2) == pieces.LARGEST_BATCH
    assert speeds.choose_size(20, 2) == pieces.LEAST_BATCH


def test_what_was_given_back_comes_first_and_every_run_comes_once():
    queue = Queue(np.arange(12), 6, 2)
    first = queue.take(5)
    queue.give_back(first[2:])
    rest = queue.take(4) + queue.take(100)
    assert rest[:3] == first[2:]
    assert sorted(first[:2] + rest) == list(range(12))
    assert len(queue) == 0
    assert queue.take(1) == []


# By whom.


def test_a_fast_worker_has_most_of_the_runs_and_a_slow_one_gives_back_what_it_has_no_time_for(monkeypatch):
    pace, asked, done = {}, [], {}

    def compute(members, steps):
        time.sleep(pace.setdefault(threading.get_ident(), 0.004 if pace else 0.064))
        finite = np.ones(len(members))
        return EnsembleResult(np.ones((len(members), steps)), finite, finite, finite, 0.0)

    def compute_piece(start, changes, *rest):
        found = pieces.compute_piece(start, changes, *rest)
        asked.append(len(changes))
        done.setdefault(pace[threading.get_ident()], []).append(len(found.cost))
        return found._replace(worker=str(threading.get_ident()))

    monkeypatch.setattr("cnnlab.sweeps.ensemble.compute", compute)
    monkeypatch.setattr("cnnlab.sweeps.workers.compute_piece", compute_piece)
    with ThreadPoolExecutor(2) as executor:
        found = cnnlab.sweep("question", device="cpu", seeds=400, steps=2, executor=executor)
    assert found.done.all()
    fast, slow = done[0.004], done[0.064]
    assert sum(fast) + sum(slow) == 400  # none of them twice
    assert sum(fast) > 5 * sum(slow) > 0
    assert max(asked) > 20
    assert max(slow) <= pieces.LONGEST / 0.064 + 1


class Lost(ThreadPoolExecutor):
    """A Dask client whose scheduler is gone: what was given to it is never answered, and no failure either."""

    _client = SimpleNamespace(status="running")

    def submit(self, *work):
        self._client.status = "closed"
        return Future()


def test_a_sweep_whose_scheduler_is_gone_ends_in_a_sentence(tmp_path):
    with Lost(2) as executor, pytest.raises(RuntimeError, match=r"broken or shut down: .* Dask client is closed.*kept"):
        cnnlab.sweep("question", seeds=2, steps=1, executor=executor, path=tmp_path / "map")


# On which device.


def start_process(visible, **environment):
    """A process that takes a GPU, which is not there, and what it says that it has taken."""
    given = {**os.environ, "CUDA_VISIBLE_DEVICES": visible, **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", NAME_GPU], env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


@pytest.fixture
def take(tmp_path):
    """Start a process that takes a GPU; all are ended after the test."""
    started = []

    def begin(visible, **environment):
        started.append(start_process(visible, TMPDIR=str(tmp_path), **environment))
        return started[-1]

    yield begin
    for process, _ in started:
        process.communicate("\n", timeout=30)


def test_each_process_takes_a_gpu_of_its_own_and_a_dead_one_s_is_taken_by_the_next(take):
    names = ["GPU-4a", "MIG-7/1/0"]
    (first, one), (_, other) = take(",".join(names)), take(",".join(names))
    assert [one, other] == names
    first.kill()
    first.wait(30)
    assert take(",".join(names))[1] == one


def test_more_workers_than_gpus_share_them_evenly(take):
    assert [take("0,1")[1] for _ in range(4)] == ["0", "1", "0", "1"]


def test_the_order_that_dask_cuda_gives_each_worker_is_kept(take):
    assert [take(visible)[1] for visible in ("1,2,0", "0,1,2", "2,0,1")] == ["1", "0", "2"]


def test_the_jobs_of_a_batch_system_do_not_take_each_other_s_numbers_for_their_own(take):
    assert [take("0,1", SLURM_JOB_ID=job)[1] for job in ("7", "8")] == ["0", "0"]


@pytest.mark.parametrize("visible", ["", "5", "-1"])
def test_a_process_that_sees_at_most_one_gpu_keeps_it(take, visible):
    assert take(visible)[1] == visible


def test_gpus_are_counted_only_where_nobody_has_said_which(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1")
    assert list_devices(None) == ["3", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,-1,0")
    assert list_devices(None) == ["2"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert list_devices(lambda: 2) == ["0", "1"]


def test_the_process_that_asks_keeps_all_its_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(pieces, "take_device", None)
    with ThreadPoolExecutor(2) as executor:
        assert cnnlab.sweep("question", seeds=2, steps=1, executor=executor).done.all()


def test_runs_on_the_cpu_take_no_gpu(monkeypatch):
    monkeypatch.setattr(pieces, "take_device", None)
    assert pieces.compute_piece(cnnlab.settings(device="cpu"), [{"seed": 3}], 1, "another process").cost.shape == (1, 1)


# How many.


def test_an_executor_s_own_word_is_taken_for_its_workers():
    with ThreadPoolExecutor(3) as threads:
        assert count_workers(threads) == 3
    assert count_workers(SimpleNamespace(_client=SimpleNamespace(nthreads=lambda: {"a": 2, "b": 1}))) == 3
    assert count_workers(SimpleNamespace(view=SimpleNamespace(client=SimpleNamespace(ids=[0, 1])))) == 2


def test_a_cluster_without_a_worker_yet_is_given_a_little_work_to_wait_for_one():
    assert count_workers(SimpleNamespace(_client=SimpleNamespace(nthreads=dict))) == 1


def test_of_an_executor_that_says_nothing_nothing_is_known():
    assert count_workers(SimpleNamespace()) is None
    assert UNKNOWN_WORKERS > 1
