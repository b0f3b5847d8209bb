"""A run is a film: it can be taken back to any update, to the bit, within a byte budget."""

import dataclasses
import errno
import sys

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cnnlab import Run
from cnnlab.training import checkpoints as history_room
from cnnlab.training.checkpoints import DENSE, WIDEST, History, State, spill_to_disk
from cnnlab.training.malloc import give_back_memory

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 12}


def state_of(size: int) -> State:
    """A state of so many float32 numbers."""
    return State(torch.zeros(size), None, {})


def same(first: Run, second: Run) -> bool:
    """Whether two runs stand at the same place, to the bit, with the same past."""
    past = first.record.table.tobytes() == second.record.table.tobytes()
    histograms = first.record.histograms[:].tobytes() == second.record.histograms[:].tobytes()
    present = first.parameters.view(torch.uint8).equal(second.parameters.view(torch.uint8))
    return past and histograms and present and first.knobs == second.knobs


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("changes", [{}, {"momentum": 0.9, "clip": "norm"}, {"batch_size": 5, "l2": 0.1}], ids=str)
def test_a_rewound_run_that_changes_nothing_repeats_itself_to_the_bit(precision: str, changes: dict) -> None:
    run = Run("question", **SMALL, precision=precision, **changes)
    straight = Run("question", **SMALL, precision=precision, **changes)
    run.advance(20)
    run.rewind(3)
    run.advance(17)
    straight.advance(20)
    assert same(run, straight)


def test_every_update_can_be_gone_back_to_after_the_explosion() -> None:
    run = Run("question", **SMALL, learning_rate=3.0)
    run.advance(40)
    whole = run.record
    for step in (39, 33, 17, 16, 5, 1, 0):
        run.rewind(step)
        again = Run("question", **SMALL, learning_rate=3.0)
        again.advance(step) if step else None
        assert same(run, again)
    assert len(whole) == 40


def test_knobs_are_those_that_were_in_force_at_the_next_update() -> None:
    run = Run("question", **SMALL, learning_rate=1e-4)
    run.advance(2)
    run.set(learning_rate=2e-4)
    run.advance(3)
    run.set(learning_rate=3e-4)
    run.rewind(4)
    assert run.knobs.learning_rate == 2e-4
    run.rewind(1)
    assert run.knobs.learning_rate == 1e-4
    assert len(run.record.schedule) == 1


def test_changes_of_knobs_are_replayed_where_they_were() -> None:
    run, straight = Run("question", **SMALL), Run("question", **SMALL)
    for each in (run, straight):
        for rate in (1e-4, 5e-4, 1e-5):
            each.set(learning_rate=rate)
            each.advance(30)
    run.rewind(70)
    run.advance(20)
    assert same(run, straight)


def test_a_record_taken_before_a_rewind_stays_as_it_was() -> None:
    run = Run("question", **SMALL)
    run.advance(6)
    before = run.record
    costs, histograms = before.cost.copy(), before.histograms[:].copy()
    run.rewind(2)
    run.set(learning_rate=1e-6)
    run.advance(8)
    assert before.cost.tobytes() == costs.tobytes()
    assert np.array_equal(before.histograms[:], histograms)


def test_a_fork_shares_the_past_and_goes_its_own_way() -> None:
    run = Run("question", **SMALL, learning_rate=3.0)
    run.advance(6)
    twin = run.fork(3, clip="norm", clip_threshold=1e-3)
    twin.advance(3)
    assert twin.record.cost[:4].tobytes() == run.record.cost[:4].tobytes()
    assert twin.record.cost[5] != run.record.cost[5]
    assert twin.record.frames[3].knobs.clip == "norm"
    assert len(run.record) == 6
    assert run.record.frames[3].knobs.clip == "off"


def test_a_fork_without_changes_repeats_its_parent() -> None:
    run = Run("question", **SMALL)
    run.advance(12)
    twin = run.fork(4)
    twin.advance(8)
    assert same(run, twin)


def test_parent_and_fork_may_step_in_turn() -> None:
    run = Run("question", **SMALL)
    run.advance(2)
    twin, alone = run.fork(), Run("question", **SMALL)
    for _ in range(4):
        run.step()
        twin.step()
    alone.advance(6)
    assert same(run, alone)
    assert same(twin, alone)


@pytest.mark.parametrize("step", [-1, 6, 1.5, True, None, "3"])
def test_a_step_outside_the_run_is_refused_and_nothing_is_lost(step: object) -> None:
    run = Run("question", **SMALL)
    run.advance(5)
    with pytest.raises(ValueError, match=r"step must be a whole number in \[0, 5\]"):
        run.rewind(step)
    assert len(run.record) == 5


def test_a_fork_with_another_start_is_refused() -> None:
    run = Run("question", **SMALL)
    run.advance(2)
    with pytest.raises(TypeError, match="seed is what a run starts from"):
        run.fork(1, seed=3)


def test_dropout_and_batch_norm_of_an_own_network_are_replayed_exactly() -> None:
    layers = torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(20, 3, generator=generator), torch.arange(20) % 2
    own = {"network": torch.nn.Sequential(*layers), "data": data, "cost": torch.nn.functional.cross_entropy}
    run, straight = Run(**own, batch_size=6), Run(**own, batch_size=6)
    run.advance(50)
    run.rewind(41)
    torch.rand(7)
    run.advance(9)
    straight.advance(50)
    assert same(run, straight)
    means = [each.state.buffers["1.running_mean"] for each in (run, straight)]
    assert means[0].equal(means[1])
    assert not means[0].equal(torch.zeros(8))


def test_training_an_own_network_leaves_torch_s_own_generator_alone() -> None:
    data = torch.zeros(4, 3), torch.zeros(4, 1)
    network = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Dropout())
    run = Run(network=network, data=data, cost=torch.nn.functional.mse_loss)
    before = torch.random.get_rng_state()
    run.advance(2)
    assert torch.random.get_rng_state().equal(before)


def test_no_rewind_within_ten_thousand_updates_replays_more_than_the_widest_distance() -> None:
    history = History(state_of(1), budget=10**9)
    for step in range(1, 10_001):
        history.keep(step, state_of(1))
        if step in (100, 1000, 10_000):
            kept = sorted(history.states)
            assert max(np.diff(kept)) <= WIDEST
            assert kept[-DENSE:] == list(range(step - DENSE + 1, step + 1))
            assert len(kept) < step / WIDEST + 8 * DENSE


@given(st.integers(1, 60), st.integers(1, 400), st.integers(1, 3000))
def test_the_budget_is_kept_whenever_two_states_fit(size: int, updates: int, budget: int) -> None:
    history = History(state_of(size), budget)
    for step in range(1, updates + 1):
        history.keep(step, state_of(size))
        assert history.bytes <= max(budget, 2 * 4 * size)
        assert history.bytes == 4 * size * len(history.states)
        assert {0, step} <= set(history.states)


@pytest.mark.skipif(sys.platform != "linux", reason="only the C library of Linux gives freed memory back when told to")
def test_old_states_lie_in_files_and_take_no_memory() -> None:
    size = 2**18
    start = State(torch.zeros(size), torch.ones(size), {})
    history, process = History(start, budget=10**9), psutil.Process()
    before = process.memory_info().rss
    for step in range(1, 3001):
        history.keep(step, State(torch.full((size,), float(step)), torch.ones(size), {}))
    assert history.bytes > 200e6
    give_back_memory()
    assert process.memory_info().rss - before < 100e6
    assert all((state.parameters == step).all() for step, state in history.states.items() if step)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_a_vector_laid_down_is_the_same_to_the_bit(dtype: torch.dtype) -> None:
    vector = torch.randn(50_000).to(dtype)
    vector[:3] = torch.tensor([torch.nan, torch.inf, -0.0])
    again = spill_to_disk(vector)
    assert again.dtype == dtype
    assert again.view(torch.uint8).equal(vector.view(torch.uint8))


def test_without_room_for_files_states_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_keywords: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(history_room.tempfile, "NamedTemporaryFile", full)
    vector = torch.randn(50_000)
    assert spill_to_disk(vector) is vector


def test_a_small_budget_still_rewinds_to_the_bit() -> None:
    run = Run("question", **SMALL, history_bytes=1)
    run.advance(30)
    run.rewind(21)
    straight = Run("question", **SMALL)
    straight.advance(21)
    assert same(run, straight)


def test_a_log_cut_short_holds_the_same_frames() -> None:
    run = Run("question", **SMALL)
    run.advance(9)
    whole = run.record
    run.rewind(4)
    for frame, kept in zip(run.record.frames, whole.frames, strict=False):
        for field in dataclasses.fields(frame):
            np.testing.assert_array_equal(getattr(frame, field.name), getattr(kept, field.name))
