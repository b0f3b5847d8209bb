"""Each preset shows what its name says, on a seed or two; tests/benchmarks/presets.py does the same over many seeds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from cnnlab import Run, presets, settings
from cnnlab.records.record import Record


@cache
def trained(preset: str, seed: int = 0, **changes: object) -> Record:
    """The record of a preset's own epochs, or of the updates up to its first non-finite cost."""
    run = Run(preset, seed=seed, device="cpu", **changes)
    run.advance(run.settings.epochs * run.updates_per_epoch, until="nonfinite")
    return run.record


def exploded(**changes: object) -> int:
    """How many of the seeds 0 to 7 of the question's preset reach a non-finite cost."""
    return sum(trained("question", seed, **changes).first_nonfinite is not None for seed in range(8))


@pytest.mark.parametrize("preset", presets())
def test_a_preset_is_at_home_under_its_own_name(preset):
    assert settings(preset).preset == preset
    assert settings(preset).changes == {}


def test_the_question_explodes_at_its_own_rate_within_three_to_five_epochs():
    record = trained("question")
    assert record.updates_per_epoch == 1
    assert 1 <= record.cost[0] <= 20
    assert np.all(np.diff(record.cost[:-1]) > 0)
    assert 3 <= record.first_nonfinite <= 5


def test_the_question_explodes_for_every_seed_at_its_own_rate():
    assert exploded() == 8


def test_the_question_explodes_for_some_seeds_at_a_tenth_of_the_rate():
    assert 1 <= exploded(learning_rate=1e-3) <= 6  # 3 where it was measured; sums may be rounded otherwise elsewhere


def test_the_question_explodes_for_no_seed_at_a_hundredth_of_the_rate():
    assert exploded(learning_rate=1e-4) == 0


def test_small_pixels_alone_keep_the_question_finite():
    assert trained("question", input_scaling="standardised").first_nonfinite is None


def test_converges_learns_what_held_out_patches_show():
    run = Run("converges", device="cpu")
    run.advance(run.settings.epochs * run.updates_per_epoch)
    assert run.record.first_nonfinite is None
    assert run.measure_held_out() >= 0.9


@pytest.mark.parametrize("seed", range(2))
def test_sudden_nan_gives_no_sign_before_it_comes(seed):
    record = trained("sudden_nan", seed)
    assert record.first_nonfinite > 1
    assert record.cost[:-1].max() < 100
    assert record.cost[-1] == np.inf
    assert 100 < record.logit_gap[-1] < 1e4  # from about 104 on, a float32 probability is exactly 0


@pytest.mark.parametrize("remedy", [{"cost": "log_softmax"}, {"epsilon": 1e-8}], ids=["log_softmax", "epsilon"])
def test_a_safe_softmax_mends_sudden_nan(remedy):
    record = trained("sudden_nan", **remedy)
    assert record.first_nonfinite is None
    assert len(record) > trained("sudden_nan").first_nonfinite


@pytest.mark.parametrize("seed", range(2))
def test_overflow_ends_where_float16_does(seed):
    assert trained("overflow", seed).first_nonfinite is not None
    wider = trained("overflow", seed, precision="float32")
    assert wider.first_nonfinite is None
    assert wider.logit_gap.max() > 65504


def test_bfloat16_has_the_range_of_float32_and_mends_overflow():
    assert trained("overflow", precision="bfloat16").first_nonfinite is None


@pytest.mark.parametrize("seed", range(2))
def test_dead_units_leave_the_cost_at_ln_2_and_the_first_layer_without_a_gradient(seed):
    record = trained("dead", seed)
    assert record.first_nonfinite is None
    assert np.nanmax(record.dead_relu[-1]) >= 0.9
    assert record.cost[-1] == pytest.approx(np.log(2), abs=1e-3)
    assert record.accuracy[-1] == 0.5
    assert record.gradient_norm[-1, 0] < 1e-6


@pytest.mark.parametrize("seed", range(2))
def test_vanishing_gradients_leave_the_first_layer_where_it_was(seed):
    record = trained("vanishing", seed)
    assert record.first_nonfinite is None
    assert np.all(record.gradient_norm[:, 0] < 1e-4 * record.gradient_norm[:, -1])
    assert np.all(np.abs(record.cost - np.log(2)) < 0.01)
