"""Each preset shows what its name says, on a seed or two; tests/benchmarks/presets.py does the same over many seeds."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnlab import Run, presets, settings
from cnnlab.records.record import Record

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs/networks.md").read_text(encoding="utf-8").split())


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


def test_with_adam_the_question_is_thrown_and_not_broken_and_learns_at_a_tenth_of_the_rate():
    thrown, learns = trained("adam"), trained("adam", learning_rate=1e-3)
    assert thrown.settings.learning_rate == 1e-2
    assert thrown.first_nonfinite is None
    assert thrown.cost.max() > 100 > learns.cost[20:].max()
    assert learns.accuracy[-1] > 0.95
    assert trained("adam", optimizer="sgd").first_nonfinite <= 5


def test_what_the_readme_says_of_adam_is_what_was_measured():
    table = (ROOT / "tests/benchmarks/results/presets.md").read_text(encoding="utf-8").partition("## adam")[2]
    rows = {row.split(" | ")[0].strip("| "): row.split(" | ") for row in table.splitlines() if row.startswith("| ")}
    usual, high, low = (rows[f"learning_rate {rate}"] for rate in ("1e-2", "1", "1e-3"))
    assert {row[1] for row in (usual, high, low)} == {"0/32"}
    said = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    largest, last = float(usual[3].split(" / ")[1]), usual[5].split(" / ")[1]
    assert f"throw the cost to {largest:,.0f} (median of the largest costs), and the median run ends at {last}" in said
    assert f"at 1e-3 every run classifies at least {low[6].split(' / ')[0]} of its training patches rightly" in said


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


def test_batch_norm_keeps_the_question_finite_at_its_own_rate():
    record = trained("batch_norm")
    assert record.settings.learning_rate == trained("question").settings.learning_rate
    assert record.first_nonfinite is None
    assert record.cost[-1] < record.cost[0]


def test_with_this_seed_twenty_plain_convolutions_learn_nothing_and_with_shortcuts_they_learn():
    plain, residual = trained("deep_plain"), trained("deep_residual")
    assert len(plain) == len(residual) == 160
    assert np.mean(plain.cost[-20:]) == pytest.approx(np.log(2), abs=0.02)
    assert np.mean(residual.cost[-20:]) < 0.3


def read_row(section: str, name: str) -> list[str]:
    """The cells of a row of the benchmark's tables."""
    table = (ROOT / "tests/benchmarks/results/presets.md").read_text(encoding="utf-8").partition(f"## {section}\n")[2]
    found = re.search(rf"^\| {re.escape(name)} \|(.*)\|$", table.partition("\n## ")[0], re.MULTILINE)
    return [cell.strip() for cell in found[1].split("|")]


def test_the_page_on_networks_says_what_was_measured_of_batch_norm():
    rows = [
        read_row("batch_norm", name)
        for name in ("as it is", *(f"learning_rate {rate}" for rate in ("1e-1", "1", "10")))
    ]
    assert {row[0] for row in rows} == {"0/32"}
    off = read_row("batch_norm", "off")
    assert off[0] == "32/32"
    before, after = re.search(r"from ([\d.]+) to ([\d.]+) \(medians of 8 seeds\)", PAGE).groups()
    assert (before, after) == (off[1].split(" / ")[1], rows[0][1].split(" / ")[1])
    assert "NaN with all 32 seeds; with batch norm it does so with none, nor at 0.1, 1 and 10" in PAGE
    low, _, _ = map(float, rows[3][3].split(" / "))
    assert low > float(np.log(2)), "nothing is learnt at 10"


def test_the_page_on_networks_says_what_was_measured_of_twenty_convolutions():
    plain, residual = (read_row("deep_plain", name) for name in ("deep_plain", "deep_residual"))
    assert (plain[0], residual[0]) == ("0/32", "0/32")
    assert re.search(r"shortcuts (\d+) of 32 seeds end beside", PAGE)[1] == plain[2].partition("/")[0]
    learnt = re.search(r"`\), (\d+) of 32 reach .*?; without them (\d+) do", PAGE).groups()
    assert learnt == (residual[4].partition("/")[0], plain[4].partition("/")[0])
    unscaled = read_row("deep_plain", "shortcuts without a scale: residual on")
    assert (
        re.search(r"no scale, (\d+) of 32 seeds end in NaN, and the others stay", PAGE)[1] == unscaled[0].split("/")[0]
    )
    assert len(set(unscaled[2].split("/"))) == 1
    normed = [read_row("deep_plain", f"{name}, normalization batch")[4] for name in ("residual on", "no shortcuts")]
    said = re.search(r"the blocks all (\d+) learn, and with batch norm and no shortcuts (\d+) do", PAGE).groups()
    assert tuple(row.partition("/")[0] for row in normed) == said


def make_first_gradient(seed: int, **changes: object) -> torch.Tensor:
    """The gradient of cv0 at the start of the preset of loss scaling."""
    run = Run("loss_scaling", seed=seed, device="cpu", **changes)
    with run.determinism(1):
        knobs = run.prepare_knobs(run.knobs_in_force)
        step = run.descent.step(run.state, *run.problem.batch(1), *knobs)
    return run.layout.by_layer(step.gradient)[0].double()


def test_a_loss_scale_saves_the_gradient_of_the_first_layer_in_float16():
    for seed in range(3):
        wide = make_first_gradient(seed, precision="float32")
        lost, saved = (make_first_gradient(seed, loss_scale=scale) for scale in ("off", 1024))
        assert float(lost @ wide / (lost.norm() * wide.norm()).clamp(min=1e-300)) <= 0.1
        assert float(saved @ wide / (saved.norm() * wide.norm())) >= 0.98
    assert Run("loss_scaling", device="cpu").step().skipped == 1


def test_the_page_on_networks_says_what_was_measured_of_loss_scaling():
    names = ("dynamic, as it is", "1024", "off", "float32")
    dynamic, fixed, off, wide = (read_row("loss_scaling", name) for name in names)
    first = re.search(r"the first gradient of cv0 has a cosine of (-?[\d.]+) with that of float32", PAGE)[1]
    assert first == off[0].split(" / ")[1]
    said = re.search(r"With a scale of 1024 it is (\d\.\d+)", PAGE)[1]
    assert said == fixed[0].split(" / ")[1]
    left_out = re.search(r"`dynamic` leaves out (\d+) of its 80 updates", PAGE)[1]
    assert left_out == dynamic[2].split(" / ")[1]
    medians = re.search(r"\(medians ([\d.]+) with it, ([\d.]+) without, ([\d.]+) in float32\)", PAGE).groups()
    assert medians == tuple(row[5].split(" / ")[1] for row in (dynamic, off, wide))
