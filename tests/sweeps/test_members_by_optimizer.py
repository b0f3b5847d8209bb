"""Members trained by each optimiser, one by one and together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cnnlab
from cnnlab.sweeps import batched, ensemble, members
from cnnlab.training import problem as problems

SMALL = cnnlab.settings("question", relu="none", channels=3, hidden=(6, 6), patch_size=13, patches=12, device="cpu")
KINDS = {
    "nesterov": {"optimizer": "nesterov", "l2": 0.1},
    "rmsprop": {"optimizer": "rmsprop"},
    "rmsprop with momentum": {"optimizer": "rmsprop", "momentum": 0.5, "l2": 0.1, "penalty_in": "update"},
    "adam, clipped": {"optimizer": "adam", "clip": "norm", "l2": 0.1},
    "adamw": {"optimizer": "adamw", "l2": 0.1, "l1": 0.01},
}
every_kind = pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)


def list_members(precision, **changes):
    """Members with knobs of their own, all of one structure."""
    own = [{"beta2": 0.9}, {"adam_epsilon": 1e-3}, {"momentum": 0.25} if changes.get("momentum", 1) else {}, {}]
    rates = (1e-4, 1e-3, 1e-2, 1e-3)
    return [
        SMALL.replace(precision=precision, seed=seed, **{"learning_rate": rate, **changes}).replace(**knobs)
        for seed, (rate, knobs) in enumerate(zip(rates, own, strict=True))
    ]


@every_kind
def test_one_by_one_is_a_loop_of_runs_to_the_bit(changes):
    some = list_members("float32", **changes)
    for member, cost in zip(some, ensemble.compute(some, 6).cost, strict=True):
        run = cnnlab.Run(member)
        run.advance(6, until="nonfinite")
        assert np.array_equal(run.record.cost, cost[: len(run.record)], equal_nan=True)


@every_kind
def test_together_in_float64_each_member_fares_as_one_by_one(changes):
    some = list_members("float64", **changes)
    assert len(set(some)) == 4
    alone, along = ensemble.compute(some, 6, "one by one"), ensemble.compute(some, 6, "together")
    assert np.isfinite(alone.cost).sum() >= 12
    np.testing.assert_allclose(along.cost, alone.cost, rtol=1e-7)


@every_kind
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_members_of_half_precision_stay_in_it(changes, precision):
    some = list_members(precision, **changes)
    problem, structure = members.find_problem(some[0]), batched.StepStructure.from_knobs(some[0].knobs)
    parameters, knobs = members.starts(problem, some)
    kept = batched.make_empty_averages(structure.optimizer, structure.momentum, parameters)
    moved, after, *_ = batched.step_together(problem, structure, *problem.data, parameters, kept, knobs)
    assert {part.dtype for part in (moved, *after[:2]) if part is not None} == {problem.dtype}
    assert [part is None for part in after] == [part is None for part in kept]


@every_kind
def test_an_update_together_never_waits_for_the_device_so_that_it_can_be_recorded(monkeypatch, changes):
    monkeypatch.setattr(problems, "choose_device", lambda _settings: torch.device("meta"))
    some = list_members("float32", **changes)
    problem = members.make_problem.__wrapped__(members.find_structure(some[0]), 0)
    structure = batched.StepStructure.from_knobs(some[0].knobs)
    parameters, knobs = members.starts(problem, some)
    kept = batched.make_empty_averages(structure.optimizer, structure.momentum, parameters)
    moved, after, *_ = batched.step_together(problem, structure, *problem.data, parameters, kept, knobs)
    assert moved.shape == parameters.shape
    assert [part.shape for part in after if part is not None] == [part.shape for part in kept if part is not None]
