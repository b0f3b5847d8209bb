"""Many members: one by one as a loop of Run to the bit, together as one by one, each undisturbed by those that die."""

import numpy as np
import pytest
import torch
from graphs import record_on_the_cpu

import cnnlab
from cnnlab.sweeps import batched as together
from cnnlab.sweeps import ensemble
from cnnlab.sweeps import members as member_groups
from cnnlab.training import capture
from cnnlab.training import problem as problems
from cnnlab.training.problem import Problem

SMALL = cnnlab.settings(relu="none", channels=4, hidden=(8, 8), patch_size=14, patches=20)
KINDS = {
    "plain": {},
    "every ReLU": {"relu": "softmax_too"},
    "momentum": {"momentum": 0.9},
    "norm": {"clip": "norm"},
    "adaptive, l2": {"clip": "adaptive", "l2": 0.1},
    "value, l1 in the update": {"clip": "value", "l1": 0.01, "penalty_in": "update"},
    "batches": {"batch_size": 7},
    "epsilon, sum": {"cost": "softmax_log", "reduction": "sum", "epsilon": 1e-8},
}
NETWORKS = {
    "GELU, padded": {"activation": "gelu", "padding": "same", "depth": 3},
    "batch norm, batches": {"normalization": "batch", "batch_size": 6, "init_scale": 0.5},
    "group norm after, dropout, batches": {
        "normalization": "group", "normalization_place": "after", "dropout": 0.4, "batch_size": 7, "hidden": (12, 12),
    },
    "ReZero, layer norm": {"residual": "zero", "padding": "same", "normalization": "layer", "depth": 4},
}  # fmt: skip
every_kind = pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)


def members(**changes):
    """Twelve members of which some explode at once, some later and some never."""
    return [
        SMALL.replace(learning_rate=rate, init_scale=scale, seed=seed, **changes)
        for rate in (1e-4, 1e-2, 0.3)
        for scale in (0.5, 1.5)
        for seed in (0, 1)
    ]


@every_kind
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_one_by_one_is_a_loop_of_runs_to_the_bit(changes, precision):
    some = members(precision=precision, **changes)[::3]
    results = ensemble.compute(some, 9)
    for member, cost, held_out in zip(some, results.cost, results.held_out, strict=True):
        run = cnnlab.Run(member)
        run.advance(9, until="nonfinite")
        assert np.array_equal(run.record.cost, cost[: len(run.record)], equal_nan=True)
        assert np.isnan(cost[len(run.record) :]).all()
        assert held_out == run.measure_held_out()


@every_kind
def test_together_in_float64_each_member_fares_as_one_by_one(changes):
    some = members(precision="float64", **changes)
    alone, along = ensemble.compute(some, 9, "one by one"), ensemble.compute(some, 9, "together")
    assert np.array_equal(np.isfinite(alone.cost), np.isfinite(along.cost))
    explodes = not {"relu", "clip", "epsilon"} & set(changes)
    assert np.isnan(alone.cost[:, -1]).any() == explodes
    np.testing.assert_allclose(along.cost, alone.cost, rtol=1e-8)
    np.testing.assert_allclose(along.ended, alone.ended, rtol=1e-8)
    assert np.array_equal(alone.held_out, along.held_out)


def test_together_in_float32_as_many_members_explode():
    some = [SMALL.replace(learning_rate=3e-3, init_scale=0.5, seed=seed) for seed in range(24)]
    alone, along = (np.isnan(ensemble.compute(some, 12, way).cost[:, -1]) for way in ("one by one", "together"))
    assert 0 < alone.sum() < 24
    assert abs(int(alone.sum()) - int(along.sum())) <= 3


def test_a_member_that_dies_does_not_touch_the_others():
    calm = [SMALL.replace(learning_rate=1e-4, init_scale=0.5, seed=seed, precision="float64") for seed in range(3)]
    wild = [SMALL.replace(learning_rate=1e3, init_scale=2.0, seed=seed, precision="float64") for seed in range(3)]
    mixed = ensemble.compute([*wild, *calm], 6, "together")
    assert np.isnan(mixed.cost[:3, -1]).all()
    np.testing.assert_allclose(mixed.cost[3:], ensemble.compute(calm, 6, "together").cost, rtol=1e-12)


def test_each_member_has_knobs_of_its_own_when_some_have_a_penalty():
    some = [SMALL.replace(learning_rate=1e-5, init_scale=0.5, l2=l2, precision="float64") for l2 in (0.0, 0.1, 10.0)]
    alone, along = ensemble.compute(some, 4, "one by one"), ensemble.compute(some, 4, "together")
    np.testing.assert_allclose(along.cost, alone.cost, rtol=1e-9)
    assert len(np.unique(along.cost[:, 1])) == 3


def test_members_of_several_structures_keep_their_places():
    some = [
        SMALL.replace(channels=channels, learning_rate=1e-6, init_scale=0.5, precision="float64")
        for channels in (2, 5, 2, 3)
    ]
    along = ensemble.compute(some, 3, "together")
    np.testing.assert_allclose(along.cost, ensemble.compute(some, 3).cost, rtol=1e-9)
    assert np.array_equal(along.cost[0], along.cost[2])


def test_little_memory_makes_small_batches_of_the_same_members(monkeypatch):
    some = members(precision="float64")
    at_once = ensemble.compute(some, 4, "together")
    problem = member_groups.find_problem(some[0])
    monkeypatch.setattr(member_groups, "CPU_BYTES", 3 * member_groups.count_member_bytes(problem))
    assert member_groups.count_fitting(problem) == 3
    assert [len(batch) for batch in ensemble.batches(some, "together")] == [3, 3, 3, 3]
    np.testing.assert_allclose(ensemble.compute(some, 4, "together").cost, at_once.cost, rtol=1e-9)


def test_a_member_is_never_too_large_to_be_computed_alone(monkeypatch):
    monkeypatch.setattr(member_groups, "CPU_BYTES", 1)
    assert member_groups.count_fitting(member_groups.find_problem(SMALL)) == 1


def test_where_memory_runs_out_all_the_same_members_go_in_halves(monkeypatch):
    some, sizes = members(precision="float64"), []

    def small(members, updates):
        sizes.append(len(members))
        if len(members) > 4:
            raise torch.OutOfMemoryError
        return together.together(members, updates)

    at_once = ensemble.compute(some, 4, "together")
    monkeypatch.setitem(ensemble.METHODS, "together", small)
    in_halves = ensemble.compute(some, 4, "together")
    assert sizes == [12, 6, 3, 3, 6, 3, 3]
    np.testing.assert_allclose(in_halves.cost, at_once.cost, rtol=1e-9)
    np.testing.assert_array_equal(in_halves.held_out, at_once.held_out)


def test_memory_that_torch_holds_in_reserve_counts_as_free(monkeypatch):
    for name, value in {"mem_get_info": (60, 100), "memory_reserved": 30, "memory_allocated": 10}.items():
        monkeypatch.setattr(torch.cuda, name, lambda _device, value=value: value)
    assert member_groups.find_free_memory(torch.device("cuda")) == member_groups.FREE_SHARE * 80


def test_members_that_differ_in_knobs_alone_share_a_draw_and_start_as_a_run_does(monkeypatch):
    drawn = []
    draw = Problem.draw_start
    monkeypatch.setattr(Problem, "draw_start", lambda self, member: drawn.append(member) or draw(self, member))
    some = members()
    parameters, knobs = member_groups.starts(member_groups.find_problem(SMALL), some)
    assert len(drawn) == 4, "two seeds at two scales"
    for member, flat, rate in zip(some, parameters, knobs.learning_rate, strict=True):
        assert torch.equal(flat, draw(Problem.build(member)).parameters)
        assert rate == torch.tensor(member.learning_rate)


@pytest.mark.parametrize("kind", ["plain", "momentum", "batches", "adaptive, l2"])
def test_recorded_updates_are_the_same_and_members_that_die_leave_them(monkeypatch, kind):
    some = members(precision="float64", **KINDS[kind])
    plainly = ensemble.compute(some, 40, "together")
    recorded = record_on_the_cpu(monkeypatch)
    monkeypatch.setattr(together, "Repeated", lambda work, _device: capture.Repeated(work, torch.device("cuda")))
    by_graph = ensemble.compute(some, 40, "together")
    assert len(recorded) >= (2 if kind == "batches" else 1), "the last batch of an epoch is a shape of its own"
    for one, other in zip(plainly[:4], by_graph[:4], strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.isnan(plainly.cost[:, -1]).any() == (kind != "adaptive, l2")
    assert np.isfinite(plainly.cost[:, -1]).any()


@every_kind
def test_an_update_together_never_waits_for_the_device_so_that_it_can_be_recorded(monkeypatch, changes):
    # On torch's meta device a tensor has no values: a question to it (a branch, an `item`, a copy to the host) raises.
    monkeypatch.setattr(problems, "choose_device", lambda _settings: torch.device("meta"))
    some = [member for member in members(precision="float64", **changes) if member.learning_rate < 1]
    problem = member_groups.make_problem.__wrapped__(member_groups.find_structure(some[0]), 0)
    parameters, knobs = member_groups.starts(problem, some)
    kind = together.StepStructure.from_knobs(some[0].knobs)
    kept = together.make_empty_averages(kind.optimizer, kind.momentum, parameters)
    moved, *_, cost = together.step_together(problem, kind, *problem.data, parameters, kept, knobs)
    assert (moved.device.type, moved.shape, cost.shape) == ("meta", parameters.shape, (len(some),))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, which this machine lacks")
def test_on_a_gpu_a_recorded_update_is_the_one_that_is_not_recorded():
    settings = member_groups.find_structure(SMALL.replace(device="cuda", precision="float64"))
    problem, kind = member_groups.find_problem(settings), together.StepStructure.from_knobs(settings.knobs)
    parameters, knobs = member_groups.starts(problem, [settings] * 4)
    step, found = capture.Repeated(together.step_together, problem.device), []
    for _ in range(capture.OFTEN + 3):
        found.append(step(problem, kind, *problem.data, parameters, together.Averages(), knobs)[0])
    assert len(step.graphs) == 1
    for moved in found[1:]:
        torch.testing.assert_close(moved, found[0])


def test_on_the_cpu_members_go_one_by_one():
    assert ensemble.choose_way(SMALL) == "one by one"


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="way must be one of 'auto', 'one by one', 'together', got 'fast'"):
        ensemble.compute([SMALL], 1, "fast")


def test_the_number_of_threads_is_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    ensemble.compute([SMALL], 1)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_beginning_and_end_are_means_over_an_epoch_but_a_quarter_of_the_run_at_most():
    assert ensemble.window(SMALL, 20) == 1
    assert ensemble.window(SMALL.replace(batch_size=5), 40) == 4
    assert ensemble.window(SMALL.replace(batch_size=5), 8) == 2
    results = ensemble.compute([SMALL.replace(batch_size=5, learning_rate=1e-7)], 8)
    assert results.began[0] == pytest.approx(results.cost[0, :2].mean())
    assert results.ended[0] == pytest.approx(results.cost[0, -2:].mean())


@pytest.mark.parametrize("changes", NETWORKS.values(), ids=NETWORKS)
def test_other_networks_fare_alike_in_a_run_one_by_one_and_together(changes):
    """Batch statistics and dropout are each member's own, also beside one that is thrown about."""
    some = [
        SMALL.replace(relu="question", precision="float64", **changes | {"seed": seed, "learning_rate": rate})
        for seed, rate in ((0, 1e-3), (1, 1e-3), (2, 1e6))
    ]
    alone, along = ensemble.compute(some, 5, "one by one"), ensemble.compute(some, 5, "together")
    np.testing.assert_allclose(along.cost[:2], alone.cost[:2], rtol=1e-8)
    assert np.array_equal(alone.held_out[:2], along.held_out[:2])
    assert alone.cost[2, 1] > 1e3
    run = cnnlab.Run(some[1])
    run.advance(5)
    assert np.array_equal(run.record.cost, alone.cost[1])
    assert run.measure_held_out() == alone.held_out[1]
    assert not np.array_equal(alone.cost[0], alone.cost[1])
