"""Runs: the same to the bit, never stopped by a NaN, and open to any module."""

from __future__ import annotations

import copy
import dataclasses
import math
import threading

import numpy as np
import pytest
import torch
from torch import nn

from cnnlab import Run
from cnnlab.config.settings import LIMITS, Knobs, settings

SMALL = {"channels": 3, "hidden": (6, 5), "patch_size": 14, "patches": 20, "device": "cpu"}


def small(**changes) -> Run:
    return Run("question", **{**SMALL, **changes})


def exploding(**changes) -> Run:
    return small(input_scaling="raw", init="question_6", init_scale=4.0, learning_rate=1.0, **changes)


def trace(run: Run, updates: int = 6) -> tuple:
    """Everything measured in so many updates, and the parameters after them, as bytes."""
    run.advance(updates)
    return run.record.table.tobytes(), run.record.histograms[:].tobytes(), run.parameters.numpy().tobytes()


class ConvNet(nn.Module):
    """A small network with ReLU as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean(dim=(2, 3)))


class PickFirst(nn.Module):
    """The first of several outputs."""

    def forward(self, parts):
        return parts[0]


def mlp(dtype=torch.float32, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)


def two_moons(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Points of two classes that a straight line separates."""
    x = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)
    return x, (x.sum(axis=1) > 0).astype(np.int64)


def own(network=None, data=None, cost=nn.functional.cross_entropy, **changes) -> Run:
    changes = {"learning_rate": 0.5, "device": "cpu", **changes}
    return Run(
        network=mlp() if network is None else network, data=two_moons() if data is None else data, cost=cost, **changes
    )


# The same settings, the same bits.


@pytest.mark.parametrize("changes", [{}, {"batch_size": 7}, {"momentum": 0.9, "clip": "adaptive"}, {"init": "lsuv"}])
def test_the_same_settings_give_the_same_bits(changes):
    assert trace(small(**changes)) == trace(small(**changes))


def test_another_number_of_torch_threads_gives_the_same_bits():
    before = torch.get_num_threads()
    traces = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            traces.append(trace(Run("question", device="cpu"), 2))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert traces[0] == traces[1] == traces[2]


def test_on_a_gpu_sums_have_a_fixed_order_and_nothing_is_rounded_to_tf32_while_it_updates():
    # Only the flags are looked at; no kernel runs.
    problem = dataclasses.replace(Run("question", **SMALL).problem, device=torch.device("cuda"))
    flags = torch.backends.cudnn
    before = flags.deterministic, flags.benchmark, flags.allow_tf32
    with problem.determinism(1):
        assert (flags.deterministic, flags.benchmark, flags.allow_tf32) == (True, False, False)
    assert (flags.deterministic, flags.benchmark, flags.allow_tf32) == before


def test_another_thread_gives_the_same_bits():
    traces = []
    worker = threading.Thread(target=lambda: traces.append(trace(small())))
    worker.start()
    worker.join()
    assert traces == [trace(small())]


def test_two_runs_at_once_do_not_disturb_each_other():
    alone = [trace(small(seed=seed), 10) for seed in (1, 2)]
    together: dict[int, tuple] = {}
    workers = [
        threading.Thread(target=lambda seed=seed: together.update({seed: trace(small(seed=seed), 10)}))
        for seed in (1, 2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [together[1], together[2]] == alone


def test_a_run_neither_reads_nor_writes_the_global_generator():
    before = torch.get_rng_state()
    one = trace(small(batch_size=7))
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(5)
    assert trace(small(batch_size=7)) == one


def test_another_seed_is_another_run():
    assert small(seed=1).step().cost != small(seed=2).step().cost


def test_one_by_one_and_all_at_once_are_the_same():
    one, all_at_once = small(), small()
    for _ in range(5):
        one.step()
    all_at_once.advance(5)
    assert one.record.table.tobytes() == all_at_once.record.table.tobytes()


def test_going_on_from_a_record_or_forking_draws_no_weights(monkeypatch):
    run = small()
    run.advance(3)

    def draw(*_given):
        raise AssertionError("weights were drawn")

    monkeypatch.setattr("cnnlab.training.problem.draw_parameters", draw)
    again, twin = Run(run.record), run.fork(2)
    assert torch.equal(again.parameters, run.parameters)
    assert twin.problem is run.problem
    with pytest.raises(AssertionError, match="weights were drawn"):
        small()


# Steps and knobs.


def test_a_step_returns_its_frame():
    run = small()
    frames = [run.step() for _ in range(3)]
    assert [frame.step for frame in frames] == [1, 2, 3]
    assert [frame.cost for frame in frames] == run.record.cost.tolist()


def test_nothing_is_trained_until_asked():
    run = small()
    assert (run.updates, len(run.record)) == (0, 0)


def test_advance_stops_after_the_first_cost_that_is_not_finite():
    run = exploding()
    frame = run.advance(200, until="nonfinite")
    assert frame.nonfinite
    assert run.updates == run.record.first_nonfinite < 200


def test_advance_goes_through_nan_unless_told_to_stop():
    run = exploding()
    assert run.advance(30).step == 30
    assert run.record.first_nonfinite < 30
    assert math.isnan(run.record.cost[-1])


def test_changed_knobs_are_in_force_at_the_next_update():
    run, plain = small(), small()
    before = run.parameters
    plain.step()
    run.set(learning_rate=2 * run.knobs.learning_rate)
    frame = run.step()
    assert frame.knobs.learning_rate == run.knobs.learning_rate
    torch.testing.assert_close(run.parameters - before, 2 * (plain.parameters - before), rtol=1e-3, atol=1e-5)


def test_the_schedule_holds_each_change_of_knobs():
    run = small(learning_rate=1e-3)
    run.advance(2)
    run.set(learning_rate=1e-4)
    run.set(momentum=0.5)
    run.advance(2)
    assert [(first, knobs.learning_rate, knobs.momentum) for first, knobs in run.record.schedule] == [
        (1, 1e-3, 0.0),
        (3, 1e-4, 0.5),
    ]


def test_momentum_that_is_switched_off_is_forgotten():
    run = small(momentum=0.9, learning_rate=1e-3)
    run.advance(2)
    run.set(momentum=0.0)
    run.step()
    assert run.state.velocity is None


@pytest.mark.parametrize("updates", [0, -1, 1.5, True, "3", None])
def test_a_number_of_updates_that_is_none_is_refused(updates):
    with pytest.raises(ValueError, match=r"^updates must be a whole number of at least 1, got"):
        small().advance(updates)


def test_an_unknown_end_is_refused():
    with pytest.raises(ValueError, match=r"^until must be None or 'nonfinite', got 'nan'$"):
        small().advance(3, until="nan")


def test_what_a_run_starts_from_cannot_be_set():
    with pytest.raises(TypeError, match=r"^seed is what a run starts from: make a new Run to change it$"):
        small().set(seed=3)


def test_a_knob_out_of_range_is_refused_and_changes_nothing():
    run = small()
    before = run.knobs
    with pytest.raises(ValueError, match="learning_rate must lie in"):
        run.set(momentum=0.5, learning_rate=-1)
    assert run.knobs == before


def test_a_misspelt_knob_brings_the_nearest():
    with pytest.raises(TypeError, match="did you mean 'learning_rate'"):
        small().set(learning_rat=1)


def test_a_record_taken_earlier_stays_as_it_was():
    run = small()
    run.advance(2)
    early = run.record
    costs = early.cost.tolist()
    run.advance(70)
    run.measure_held_out()
    assert early.cost.tolist() == costs
    assert np.isnan(early.held_out_accuracy).all()
    assert len(run.record) == 72


# Patches, batches and precisions.


def test_an_epoch_of_mini_batches_has_one_smaller_batch_and_counts_as_one():
    run = small(batch_size=7)
    sizes = [len(run.problem.batch(step)[0]) for step in (1, 2, 3)]
    assert (run.updates_per_epoch, sizes) == (3, [7, 7, 6])
    assert run.advance(3).epoch == 1


@pytest.mark.parametrize("precision", LIMITS["precision"].options)
@pytest.mark.parametrize(
    "changes", [{}, {"momentum": 0.9, "clip": "norm", "l1": 1e-3, "l2": 1e-3}, {"clip": "adaptive"}]
)
def test_every_precision_steps_through_its_own_end_without_raising(precision, changes):
    run = exploding(precision=precision, **changes)
    run.advance(12)
    assert run.parameters.dtype == getattr(torch, precision)
    assert len(run.record) == 12
    assert (run.record.histograms[:].sum(axis=2) == run.layout.layer_sizes).all()


@pytest.mark.parametrize("cost", LIMITS["cost"].options)
@pytest.mark.parametrize("clip", LIMITS["clip"].options)
@pytest.mark.parametrize("penalty_in", LIMITS["penalty_in"].options)
def test_no_knob_raises_when_everything_is_nan(cost, clip, penalty_in):
    run = exploding(cost=cost, clip=clip, penalty_in=penalty_in, l2=0.1, momentum=0.5)
    run.state = run.state._replace(parameters=torch.full_like(run.parameters, math.nan))
    assert math.isnan(run.advance(2).cost)


def test_the_cost_of_the_settings_can_be_chosen_by_name():
    assert small(cost="softmax_log").settings.cost == "softmax_log"


def test_held_out_accuracy_is_kept_in_the_last_frame_alone():
    run = small()
    run.advance(2)
    accuracy = run.measure_held_out()
    assert 0 <= accuracy <= 1
    assert run.record.frames[-1].held_out_accuracy == accuracy
    assert math.isnan(run.record.frames[0].held_out_accuracy)


def test_held_out_accuracy_can_be_measured_before_training():
    run = small()
    assert run.measure_held_out() == run.record.start.held_out_accuracy


def test_measuring_held_out_patches_does_not_change_the_run():
    watched, unwatched = small(), small()
    for _ in range(3):
        watched.step(), unwatched.step()
        watched.measure_held_out()
    assert torch.equal(watched.parameters, unwatched.parameters)
    assert np.array_equal(watched.record.activation_nan, unwatched.record.activation_nan)


def test_weights_are_copies():
    run = small()
    run.weights()["cv0.weight"][:] = 7
    assert not bool((run.parameters == 7).any())


def test_activations_are_what_each_layer_puts_out_before_the_relu():
    run = small(input_scaling="raw")
    weights, out = run.weights(), run.activations()
    windows = np.lib.stride_tricks.sliding_window_view(run.patches().astype(float), (3, 3), axis=(1, 2))
    expected = np.einsum("nijxy,cxy->ncij", windows, weights["cv0.weight"][:, 0])
    assert tuple(out) == run.record.layers
    assert out["cv0"].min() < 0
    np.testing.assert_allclose(out["cv0"], expected, rtol=1e-3, atol=1e-2)
    expected = np.maximum(out["hid2"], 0) @ weights["softmax.weight"].T
    np.testing.assert_allclose(out["softmax"], expected, rtol=1e-4, atol=1e-3)


def test_looking_at_activations_does_not_change_the_run():
    watched, unwatched = small(), small()
    for _ in range(3):
        watched.step(), unwatched.step()
        watched.activations()["cv0"][:] = 7
    assert torch.equal(watched.parameters, unwatched.parameters)
    assert np.array_equal(watched.record.table, unwatched.record.table, equal_nan=True)


def test_activations_after_an_explosion_are_nan_as_they_are():
    run = exploding()
    run.advance(6)
    assert np.isnan(run.activations()["softmax"]).all()


def test_activations_of_a_network_of_one_s_own_are_those_before_a_relu_in_place():
    network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(inplace=True), nn.Dropout(), nn.BatchNorm1d(8), nn.LSTM(8, 2))
    run = own(nn.Sequential(network, PickFirst()), two_moons())
    before = copy.deepcopy(run.state.buffers)
    out = run.activations()
    assert [name.rpartition(".")[2] for name in out] == ["0", "3", "4"]
    assert out["0.0"].min() < 0
    assert out["0.4"].shape == (40, 2)
    assert all(torch.equal(run.state.buffers[name], buffer) for name, buffer in before.items())


def test_watched_weights_are_followed_by_name():
    run = small(watch=["hid1.weight[2,3]", "softmax.bias[1]"])
    run.advance(2)
    weights = run.weights()
    assert run.record.watched == ("hid1.weight[2,3]", "softmax.bias[1]")
    assert run.record.watched_values[-1].tolist() == [weights["hid1.weight"][2, 3], weights["softmax.bias"][1]]


def test_a_device_that_is_missing_is_refused_with_those_that_are_there():
    missing = next(name for name in ("mps", "cuda") if not getattr(torch, name).is_available())
    with pytest.raises(ValueError, match=rf"^device must be one that this machine has \(.*cpu\), got '{missing}'$"):
        small(device=missing)


def test_settings_can_be_given_ready_made():
    assert Run(settings("question", **SMALL), seed=5).settings == settings("question", **SMALL, seed=5)


# Networks of one's own.


def test_a_network_of_tanh_learns():
    run = own()
    run.advance(60)
    assert run.record.layers == ("0", "2")
    assert run.record.accuracy[-1] > 0.9
    assert run.record.cost[-1] < run.record.cost[0]
    assert np.isnan(run.record.dead_relu).all()


def test_a_convolutional_network_with_functional_relu_learns():
    x = np.random.default_rng(0).normal(size=(30, 1, 6, 6))
    y = np.arange(30) % 2
    x[y == 1] += 2
    run = own(ConvNet(), (x, y))
    run.advance(40)
    assert run.record.layers == ("conv", "head")
    assert run.record.accuracy[-1] > 0.9
    assert run.record.kernels[-1].shape == (4, 3, 3)


def test_a_regression_has_no_accuracy():
    x = np.linspace(-1, 1, 20)[:, None]
    run = own(nn.Linear(1, 1), (x, 3 * x), nn.functional.mse_loss, held_out=(x, 3 * x))
    run.advance(200)
    assert run.record.cost[-1] < 1e-3
    assert np.isnan(run.record.accuracy).all()
    assert np.isnan(run.record.logit_gap).all()
    assert math.isnan(run.measure_held_out())


def test_a_float64_module_keeps_its_precision():
    run = own(mlp(torch.float64))
    assert run.settings.precision == "float64"
    assert run.step().histogram.shape == (2, 2048)


def test_a_module_can_be_asked_into_another_precision():
    run = own(mlp(torch.float64), precision="bfloat16")
    run.step()
    assert run.parameters.dtype == torch.bfloat16


def test_the_users_own_module_and_data_stay_untouched():
    network, (x, y) = mlp(), two_moons()
    before = copy.deepcopy(network.state_dict())
    kept = x.copy()
    own(network, (x, y)).advance(3)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network[0]._forward_hooks
    assert np.array_equal(x, kept)


def test_data_changed_after_the_start_do_not_reach_the_run():
    x, y = two_moons()
    run, same = own(data=(x, y)), own()
    x[:] = math.nan
    assert run.step().cost == same.step().cost


def test_a_batch_may_hold_as_many_of_ones_own_examples_as_there_are():
    run = own(data=two_moons(200), batch_size=100)
    assert run.updates_per_epoch == 2
    with pytest.raises(ValueError, match=r"^batch_size must lie in \[1, 40\]"):
        own(batch_size=41)


def test_a_network_of_ones_own_may_use_a_cost_of_the_question_by_name():
    assert own(cost="log_softmax").step().cost == pytest.approx(own().step().cost, rel=1e-6)


def test_parameters_on_the_module_itself_are_a_layer_without_a_name():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return self.factor * x

    x = np.ones((4, 1))
    run = own(Scale(), (x, 2 * x), nn.functional.mse_loss, learning_rate=0.1)
    run.advance(50)
    assert run.record.layers == ("",)
    assert run.record.watched_values[-1, 0] == pytest.approx(2, abs=0.01)


def test_dropout_and_batch_norm_sleep_while_held_out_examples_are_measured():
    network = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    network[2].eval()
    run = own(network, held_out=two_moons(10))
    mean = run.network[1].running_mean.clone()
    assert run.measure_held_out() == run.measure_held_out()
    assert torch.equal(run.network[1].running_mean, mean)
    assert [module.training for module in run.network] == [True, True, False, True]


def failing_at(update: int):
    """A cost that raises at one of its calls."""
    calls = iter(range(1, 1000))

    def cost(outputs, y):
        if next(calls) == update:
            raise RuntimeError("out of luck")
        return nn.functional.cross_entropy(outputs, y)

    return cost


def test_a_cost_that_raises_leaves_the_run_as_it_was():
    run, whole = own(cost=failing_at(3), momentum=0.5), own(momentum=0.5)
    run.advance(2)
    before = run.knobs
    run.set(learning_rate=7)
    with pytest.raises(RuntimeError, match="out of luck"):
        run.step()
    assert run.updates == len(run.record) == 2
    assert run.record.schedule == ((1, before),)
    run.set(learning_rate=before.learning_rate)
    assert trace(run, 2) == trace(whole, 4)


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        (lambda outputs, y: outputs.sum().item(), TypeError, "cost must return a tensor, got float"),
        (lambda outputs, y: outputs, ValueError, r"cost must return one number, got a tensor of shape \(40, 2\)"),
        (lambda outputs, y: torch.tensor(1.0), ValueError, "cost must depend on the network's parameters"),
    ],
)
def test_a_cost_that_is_not_one_number_is_refused(cost, error, message):
    run = own(cost=cost)
    with pytest.raises(error, match=f"^{message}"):
        run.step()
    assert run.updates == 0


def test_a_network_without_data_or_cost_is_refused():
    for given in ({}, {"data": two_moons()}, {"cost": nn.functional.cross_entropy}):
        with pytest.raises(TypeError, match=r"^a network of your own needs data=\(x, y\) and cost="):
            Run(network=mlp(), **given)


@pytest.mark.parametrize(
    "given", [{"data": two_moons()}, {"cost": nn.functional.cross_entropy}, {"held_out": two_moons()}]
)
def test_data_without_a_network_are_refused(given):
    with pytest.raises(TypeError, match=r"go with a network of your own: pass network=$"):
        Run("question", **given)


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match=r"^network must be a torch\.nn\.Module, got function$"):
        own(network=failing_at)


@pytest.mark.parametrize("data", [(np.zeros((3, 2)), np.zeros(4)), (np.zeros((0, 2)), np.zeros(0)), (1.0, 2.0)])
def test_data_of_different_or_no_length_are_refused(data):
    with pytest.raises(ValueError, match=r"^data must hold x and y of the same length of at least 1, got shapes"):
        own(data=data)


def test_data_that_are_no_pair_are_refused():
    with pytest.raises(TypeError, match=r"^data must be a pair \(x, y\), a Dataset or a DataLoader, got ndarray$"):
        own(data=np.zeros((3, 2)))


def test_the_repr_tells_how_far_the_run_is():
    run = small()
    assert "nothing trained yet" in repr(run)
    run.step()
    assert ": 1 update, last cost" in repr(run)


def test_the_knobs_in_force_are_those_of_the_next_update():
    run = small(momentum=0.25)
    assert isinstance(run.knobs_in_force, Knobs)
    assert run.knobs_in_force.momentum == 0.25
