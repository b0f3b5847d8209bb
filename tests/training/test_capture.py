"""Work that is recorded once and launched again: the same results, whatever moves, and never a crash."""

import warnings

import numpy as np
import pytest
import torch
from graphs import record_on_the_cpu

from cnnlab.training import capture
from cnnlab.training.run import Run

SMALL = {"channels": 3, "hidden": (5, 4), "patch_size": 13, "patches": 12, "device": "cpu", "learning_rate": 0.01}
CUDA = torch.device("cuda")
CASES = [{}, {"momentum": 0.9, "clip": "norm"}, {"batch_size": 5, "l2": 0.1}, {"precision": "float16", "clip": "value"}]


def recording_run(**changes):
    """A run on the CPU that records its updates as if it were on a GPU."""
    run = Run("question", **SMALL | changes)
    run.compute = capture.Repeated(run.compute_update, CUDA)
    return run


@pytest.mark.parametrize("changes", CASES)
def test_a_run_of_recorded_updates_is_that_of_updates_that_are_not_recorded(monkeypatch, changes):
    recorded = record_on_the_cpu(monkeypatch)
    run, plain = recording_run(**changes), Run("question", **SMALL | changes)
    run.advance(30), plain.advance(30)
    assert len(recorded) == (2 if "batch_size" in changes else 1), "the last batch of an epoch is a shape of its own"
    np.testing.assert_array_equal(run.record.table, plain.record.table)
    np.testing.assert_array_equal(run.record.histograms[0:], plain.record.histograms[0:])
    run.rewind(4)
    run.advance(26)
    np.testing.assert_array_equal(run.record.table, plain.record.table)


def test_another_value_of_a_knob_needs_no_new_graph_and_another_kind_of_clipping_does(monkeypatch):
    recorded = record_on_the_cpu(monkeypatch)
    run, plain = recording_run(), Run("question", **SMALL)
    for each in (run, plain):
        each.advance(15)
        each.set(learning_rate=0.003)
        each.advance(15)
    assert len(recorded) == 1
    for each in (run, plain):
        each.set(clip="norm")
        each.advance(15)
    assert len(recorded) == 2
    np.testing.assert_array_equal(run.record.table, plain.record.table)


def test_what_a_graph_gave_stays_when_it_is_launched_again(monkeypatch):
    record_on_the_cpu(monkeypatch)
    double = capture.Repeated(lambda number: (2 * number, None), CUDA)
    given = [torch.tensor([float(each)]) for each in range(capture.OFTEN + 5)]
    found = [double(each)[0] for each in given]
    assert [each.item() for each in found] == [2.0 * each for each in range(capture.OFTEN + 5)]


def test_few_graphs_are_kept(monkeypatch):
    record_on_the_cpu(monkeypatch)
    double = capture.Repeated(lambda number: 2 * number, CUDA)
    for size in range(capture.MOST_GRAPHS + 3):
        for _ in range(capture.OFTEN + 1):
            double(torch.ones(size))
    assert len(double.graphs) == capture.MOST_GRAPHS


def test_where_no_graph_can_be_recorded_one_sentence_says_so_and_the_run_goes_on(monkeypatch):
    def fail(_work):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(capture, "record_graph", fail)
    run, plain = recording_run(), Run("question", **SMALL)
    plain.advance(30)
    with pytest.warns(
        RuntimeWarning, match="one operation at a time, which is slower: operation not permitted"
    ) as said:
        run.advance(30)
    assert len(said) == 1
    np.testing.assert_array_equal(run.record.table, plain.record.table)


def test_on_the_cpu_nothing_is_recorded_and_nothing_said(monkeypatch):
    recorded = record_on_the_cpu(monkeypatch)
    run = Run("question", **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.advance(20)
    assert not recorded
    assert not run.compute.graphs


def test_a_network_of_ones_own_may_do_more_in_python_and_is_never_recorded(monkeypatch):
    from cnnlab.training import problem

    monkeypatch.setattr(problem, "choose_device", lambda _settings: torch.device("meta"))
    network = torch.nn.Linear(2, 1)
    run = Run(network=network, data=(torch.ones(3, 2), torch.ones(3, 1)), cost=torch.nn.functional.mse_loss)
    assert not run.compute.recording


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, which this machine lacks")
def test_on_a_gpu_updates_are_recorded_and_the_same_to_the_bit():
    run, plain = (Run("question", **SMALL | {"device": "cuda"}) for _ in range(2))
    plain.compute.recording = False
    run.advance(30), plain.advance(30)
    assert len(run.compute.graphs) == 1
    np.testing.assert_array_equal(run.record.table, plain.record.table)
