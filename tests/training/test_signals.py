"""What passes through the layers, against the same by hand."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import forge
from torch import nn
from torch.nn import functional

import cnnlab
from cnnlab.config.settings import settings
from cnnlab.records import journal, storage
from cnnlab.records.frame import GAUGES, LAYER_GAUGES, is_measured
from cnnlab.records.journal import Journal
from cnnlab.records.signals import SIGNALS, find_signals, is_signal_update
from cnnlab.training.run import Run
from cnnlab.training.signals import SAMPLE, listen_to_signals, measure_signals, measure_spread

VERSION_1 = Path(__file__).parents[1] / "data" / "version_1.cnnlab"
SOME = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 28, 32]
"""The updates up to 63 at which signals are measured."""
SMALL = {"channels": 4, "hidden": (8, 6), "patch_size": 7, "depth": 2, "patches": 12, "device": "cpu"}


def test_signals_are_those_of_each_layer_s_output_after_its_activation():
    run = Run(settings(**SMALL, activation="tanh", precision="float64", relu="every_layer", input_scaling="unit"))
    run.advance(2)
    weights = {name: torch.tensor(value) for name, value in run.weights().items()}
    x, y = run.problem.data
    first = torch.tanh(functional.conv2d(x, weights["cv0.weight"], weights["cv0.bias"])).requires_grad_()
    x = torch.tanh(functional.conv2d(first, weights["cv1.weight"], weights["cv1.bias"])).flatten(1)
    for name in ("hid1", "hid2"):
        x = torch.tanh(functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"]))
    logits = functional.linear(x, weights["softmax.weight"], weights["softmax.bias"])
    (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, y), first)
    signals = measure_signals(run)
    assert (signals.step, signals.layers) == (3, ("cv0", "cv1", "hid1", "hid2", "softmax"))
    assert signals.activation_mean[0] == pytest.approx(first.mean().item(), rel=1e-12)
    assert signals.activation_deviation[0] == pytest.approx(first.std(correction=0).item(), rel=1e-12)
    assert signals.activation_deviation[-1] == pytest.approx(logits.std(correction=0).item(), rel=1e-12)
    assert signals.backward_deviation[0] == pytest.approx(gradient.std(correction=0).item(), rel=1e-9)
    assert signals.activation_saturated[0] == pytest.approx((first.abs() >= math.sqrt(0.95)).double().mean().item())
    assert math.isnan(signals.activation_saturated[-1])


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "elu", "selu"])
def test_a_unit_is_saturated_where_the_slope_is_a_twentieth_of_the_steepest(name):
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64, requires_grad=True)
    module = {"tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "elu": nn.ELU(), "selu": nn.SELU()}[name]
    (slope,) = torch.autograd.grad(module(z).sum(), z)
    below = z < 0 if name in ("elu", "selu") else torch.ones_like(z, dtype=torch.bool)
    flat = (slope <= 0.05 * slope[below].max()) & below
    network = nn.Sequential(nn.Linear(1, 1).double(), module)
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[0].bias.fill_(0)
    data = z.detach()[:, None], torch.zeros(len(z), 1, dtype=torch.float64)
    signals = measure_signals(Run(network=network, data=data, cost=functional.mse_loss))
    assert signals.activation_saturated[0] == pytest.approx(flat.double().mean().item(), abs=1e-3)


def test_a_dead_layer_puts_out_zeros_alone_and_has_no_gradient():
    run = Run(settings(**SMALL))
    assert measure_signals(run).activation_zeros[0] < 1
    parameters = run.parameters.clone()
    run.layout.views(parameters)["cv0.bias"].fill_(-1e9)
    run.state = run.state._replace(parameters=parameters)
    signals = measure_signals(run)
    assert (signals.activation_zeros[0], signals.activation_deviation[0], signals.backward_deviation[0]) == (1, 0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.5},
        {"normalization": "batch", "batch_size": 6},
        {"padding": "same", "depth": 3, "residual": "zero"},
    ],
)
def test_signals_depend_on_the_state_and_the_update_alone_and_change_nothing(changes):
    run = Run(settings(**{**SMALL, **changes}, learning_rate=1e-3))
    run.advance(3)
    hooks = [len(module._forward_hooks) for module in run.network.modules()]
    buffers = copy.deepcopy(run.state.buffers)
    before = measure_signals(run)
    assert all(torch.equal(run.state.buffers[name], buffers[name]) for name in buffers)
    assert [len(module._forward_hooks) for module in run.network.modules()] == hooks
    run.advance(2)
    costs = run.record.cost
    run.rewind(3)
    again = measure_signals(run)
    for name in (*SIGNALS, "counts"):
        np.testing.assert_array_equal(getattr(again, name), getattr(before, name))
    run.advance(2)
    assert np.array_equal(run.record.cost, costs)


def test_nan_and_inf_pass_as_they_are():
    run = Run(settings(**SMALL, learning_rate=1e6, precision="float16"))
    run.advance(4)
    signals = measure_signals(run)
    assert not np.isfinite(signals.activation_mean).all()
    assert not np.isfinite(signals.backward_deviation).all()


def test_the_updates_at_which_signals_are_measured_follow_from_their_number():
    assert [step for step in range(-1, 100) if is_signal_update(step)] == [*SOME, 64, 96]


def test_a_sigmoid_that_is_next_to_flat_is_evidence_of_a_vanishing_gradient():
    small = {"channels": 4, "hidden": (16, 8), "batch_size": 11, "device": "cpu"}
    run = cnnlab.Run("question", **small, activation="sigmoid", depth=7, learning_rate=1e-3)
    run.advance(12)
    found = cnnlab.autopsy(run, prove=False)
    assert found.cause == "vanishing gradient", found
    assert any("next to flat" in evidence for evidence in found.evidence), found.evidence


@pytest.fixture(scope="module")
def trained():
    run = Run(settings(**SMALL, learning_rate=1e-3, relu="every_layer", momentum=0.9))
    run.advance(33)
    return run


def test_a_record_holds_the_signals_of_some_updates_and_says_that_the_others_were_not_measured(trained):
    record = trained.record
    for gauge in SIGNALS:
        measured = record.is_measured(gauge)
        assert (np.flatnonzero(measured.any(axis=1)) + 1).tolist() == ([] if gauge == "activation_saturated" else SOME)
    counted = record.signal_histograms[:].sum(axis=(1, 2)) > 0
    assert np.flatnonzero(counted).tolist() == SOME
    assert not is_measured(record.start.activation_mean).any()


@pytest.mark.parametrize("step", [1, 16, 32])
def test_what_is_measured_again_from_a_snapshot_is_what_the_record_holds(trained, step):
    again, record = measure_signals(trained, step), trained.record
    for gauge in SIGNALS:
        np.testing.assert_array_equal(getattr(again, gauge), record.column(gauge)[step])
    np.testing.assert_array_equal(again.counts, record.signal_histograms[step])
    found = find_signals(record.until(step))
    assert found.step == step
    np.testing.assert_array_equal(found.count("activations"), again.count("activations"))
    np.testing.assert_array_equal(again.counts, measure_signals(trained, step).counts)


def test_the_signals_of_an_update_that_has_none_in_the_record_can_be_measured_and_change_nothing(trained):
    before = trained.record.table.tobytes()
    assert measure_signals(trained, 21).step == 21
    assert trained.record.table.tobytes() == before
    with pytest.raises(ValueError, match="step must"):
        measure_signals(trained, 35)


def test_a_rewound_run_repeats_its_signals_to_the_bit_and_forgets_those_after(trained):
    twin = trained.fork(12)
    assert twin.record.signal_histograms.shape[0] == 13
    twin.advance(21)
    assert twin.record.table.tobytes() == trained.record.table.tobytes()
    np.testing.assert_array_equal(twin.record.signal_histograms[:], trained.record.signal_histograms[:])


def test_histograms_of_signals_count_every_parameter_and_a_sample_of_the_outputs(trained):
    found = find_signals(trained.record)
    for kind in ("gradients", "updates"):
        assert found.count(kind).sum(axis=1).tolist() == trained.layout.layer_sizes
    assert (found.count("activations").sum(axis=1) <= SAMPLE).all()
    zeros = found.count("activations")[:, 0] / found.count("activations").sum(axis=1)
    np.testing.assert_allclose(zeros, found.activation_zeros, atol=0.03)


def test_files_keep_signals_and_a_file_without_them_opens(trained, tmp_path):
    trained.record.save(tmp_path / "signals.cnnlab")
    loaded = cnnlab.load(tmp_path / "signals.cnnlab")
    np.testing.assert_array_equal(loaded.signal_histograms[:], trained.record.signal_histograms[:])
    assert loaded.table.tobytes() == trained.record.table.tobytes()
    old = cnnlab.load(VERSION_1)
    assert not old.is_measured("activation_deviation").any()
    assert old.signal_histograms.shape[0] == len(old) + 1
    assert old.signal_histograms[:].sum() == 0
    assert find_signals(old).step == 0
    old.save(tmp_path / "old.cnnlab")
    assert cnnlab.load(tmp_path / "old.cnnlab").signal_histograms.shape == old.signal_histograms.shape


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("ends", lambda ends: ends[:-1], "ends must be 35 numbers, got 34"),
        ("ends", lambda ends: ends[::-1], "ends must rise from 0"),
        ("places", lambda places: places + 10**6, "places must lie in"),
        ("counts", lambda counts: counts[:9], "places and counts must be"),
        ("counts", lambda counts: counts.astype(np.int64), "counts must be int32 with one axis"),
        ("counts", None, "branch_1/signal_counts is missing"),
    ],
)
def test_a_file_whose_signals_contradict_themselves_is_refused_in_a_sentence(trained, name, change, said, tmp_path):
    record = trained.record
    arrays = {f"branch_1/{each}": array for each, array in storage.pack_tables(record).items()}
    place = f"branch_1/signal_{name}"
    array = arrays.pop(place)
    arrays |= {place: change(array)} if change else {}
    branch = {**storage.describe_branch(record), "snapshots": []}
    header = {"gauges": GAUGES, "layer_gauges": LAYER_GAUGES, "branches": [branch]}
    forge(tmp_path / "odd.cnnlab", header, arrays)
    with pytest.raises(ValueError, match=f"cannot be loaded: .*{said}"):
        cnnlab.load(tmp_path / "odd.cnnlab")


def test_a_journal_keeps_signals_as_they_come(trained, tmp_path):
    kept = Journal(tmp_path / "kept")
    for step in (5, 12, 12, 33):
        kept.add([trained.record.until(step)])
    kept.held.file.close()
    loaded = journal.load(tmp_path / "kept")
    np.testing.assert_array_equal(loaded.signal_histograms[:], trained.record.signal_histograms[:])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_deviations_of_numbers_of_any_size_are_neither_0_nor_inf(scale):
    values = torch.linspace(-1, 1, 101) * scale
    mean, deviation = measure_spread(values)
    assert deviation == pytest.approx(scale * torch.linspace(-1, 1, 101).std(correction=0).item(), rel=1e-5)
    assert abs(mean) < 1e-6 * scale
    assert measure_spread(values + 1000 * scale)[1] == pytest.approx(deviation, rel=1e-3)
    assert measure_spread(torch.zeros(7)) == (0, 0)
    assert measure_spread(torch.full((7,), math.inf))[0] == math.inf
    assert math.isnan(measure_spread(torch.tensor([1.0, math.nan]))[1])


def test_one_nan_among_many_outputs_is_counted():
    run = Run(settings(**{**SMALL, "channels": 16, "patch_size": 17, "patches": 40}))
    values = torch.ones(100_003)
    with listen_to_signals(run.network, run.gauges) as passing:
        assert passing.count_sample(values, 1.0)[-1] == 0
        values[54_321] = math.nan
        assert passing.count_sample(values, math.nan)[-1] == 1


def test_signals_of_a_network_of_ones_own_that_works_in_place_and_runs_a_layer_twice():
    shared = nn.Linear(3, 3)
    network = nn.Sequential(shared, nn.ReLU(inplace=True), shared, nn.Tanh(), nn.Linear(3, 1))
    x, y = torch.randn(9, 3), torch.randn(9, 1)
    run = Run(network=network, data=(x, y), cost=functional.mse_loss)
    run.step()
    second = torch.tanh(shared(torch.relu(shared(x)))).detach()
    found = find_signals(run.record)
    assert found.activation_mean[0] == pytest.approx(second.mean().item(), rel=1e-5)
    assert is_measured(found.activation_saturated).tolist() == [True, False]


def test_a_layer_that_does_not_run_is_not_measured():
    class Half(nn.Sequential):
        def forward(self, x):
            return self[1](x)

    network = Half(nn.Linear(3, 3), nn.Linear(3, 1))
    run = Run(network=network, data=(torch.randn(9, 3), torch.randn(9, 1)), cost=functional.mse_loss)
    run.step()
    assert run.record.is_measured("activation_mean").tolist() == [[False, True]]
    assert run.record.is_measured("backward_deviation").tolist() == [[False, True]]
