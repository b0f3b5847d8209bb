"""Loss scaling against torch.amp.GradScaler, and as a part of a run's state."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import cnnlab
from cnnlab import Run
from cnnlab.config.settings import Settings, settings
from cnnlab.records.record import Snapshot
from cnnlab.training import loss_scaling
from cnnlab.training.checkpoints import State, restore
from cnnlab.training.network import Layout
from cnnlab.training.step import Descent, KnobTensors, Step, StepStructure

UPDATES = 60
SMALL = {"channels": 2, "hidden": (4, 3), "patch_size": 13, "patches": 8, "input_scaling": "unit", "device": "cpu"}
HALF = {**SMALL, "precision": "float16", "learning_rate": 1e-2}

pytestmark = pytest.mark.usefixtures("one_thread")


class HalfScaler(torch.amp.GradScaler):
    """torch's own, which refuses gradients of float16: weights are kept in float32 where it is used."""

    def _unscale_grads_(self, optimizer, inv_scale, found_inf, allow_fp16):
        return super()._unscale_grads_(optimizer, inv_scale, found_inf, True)


def make_network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).half()


def make_data(update: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Examples whose targets are so large at some updates that their scaled gradient overflows, and NaN at one."""
    x = torch.linspace(-1, 1, 24).reshape(8, 3)
    y = torch.stack([x.prod(dim=1), x.sum(dim=1).sin()], dim=1) * (300 if update % 11 == 5 else 1)
    return x.half(), (y * float("nan") if update == 40 else y).half()


def measure_cost(outputs: torch.Tensor, y: torch.Tensor, _epsilon: object = None) -> torch.Tensor:
    return (outputs - y).square().mean()


def make_optimizer(wanted: Settings, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    rate, plain = wanted.learning_rate, {"foreach": False}
    match wanted.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, rate, momentum=wanted.momentum, **plain)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, rate, alpha=wanted.beta2, eps=wanted.adam_epsilon, **plain)
    betas = wanted.momentum, wanted.beta2
    return torch.optim.Adam(parameters, rate, betas=betas, eps=wanted.adam_epsilon, **plain)


def train_oracle(wanted: Settings, interval: int) -> tuple[torch.Tensor, list[float], list[int]]:
    """The parameters after all updates of a loop with torch's scaler; the scale of each update; its good updates."""
    network = make_network()
    parameters = list(network.parameters())
    optimizer = make_optimizer(wanted, parameters)
    first, fixed = (65536.0, {}) if wanted.loss_scale == "dynamic" else (wanted.loss_scale, {"growth_interval": 10**9})
    scaler = HalfScaler("cpu", first, **({"growth_interval": interval} | fixed))
    scales, counts = [], []
    for update in range(1, UPDATES + 1):
        x, y = make_data(update)
        optimizer.zero_grad()
        cost = scaler.scale(measure_cost(network(x), y))
        scales.append(scaler.get_scale())
        cost.backward()
        scaler.unscale_(optimizer)
        if wanted.clip == "value":
            nn.utils.clip_grad_value_(parameters, wanted.clip_threshold)
        scaler.step(optimizer)
        scaler.update(None if wanted.loss_scale == "dynamic" else wanted.loss_scale)
        counts.append(scaler._get_growth_tracker())
    return torch.cat([parameter.data.flatten() for parameter in parameters]), scales, counts


def train(wanted: Settings) -> list[Step]:
    """Every step of our own."""
    network = make_network()
    layout = Layout.from_network(network)
    start = layout.flatten(dict(network.named_parameters())).detach().clone()
    descent = Descent(network, layout, measure_cost, layout.is_weight(start.device))
    knobs = KnobTensors.from_knobs(wanted.knobs, start), StepStructure.from_knobs(wanted.knobs)
    state, steps = State(start, None, {}), []
    for update in range(1, UPDATES + 1):
        steps.append(descent.step(state, *make_data(update), *knobs))
        state = steps[-1].state
    return steps


@pytest.mark.parametrize("loss_scale", ["dynamic", 1024.0, 0.3])
@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0.1},
        {"learning_rate": 0.1, "momentum": 0.9, "clip": "value", "clip_threshold": 0.05},
        {"learning_rate": 3e-3, "optimizer": "rmsprop", "adam_epsilon": 1e-2},
        {"learning_rate": 1e-2, "optimizer": "adam", "adam_epsilon": 1e-4},
    ],
    ids=["sgd", "clipped momentum", "rmsprop", "adam"],
)
def test_scales_skipped_updates_and_weights_are_those_of_torchs_scaler(changes, loss_scale, monkeypatch):
    monkeypatch.setattr(loss_scaling, "GOOD", 7)
    wanted = settings("question", precision="float16", loss_scale=loss_scale, **changes)
    steps, (theirs, scales, counts) = train(wanted), train_oracle(wanted, interval=7)
    assert [step.scale.item() for step in steps] == scales
    skipped = [bool(step.skipped) for step in steps]
    assert skipped[39], "a cost that is NaN is skipped at any scale"
    if loss_scale == "dynamic":
        assert skipped[0], "a scale of 65536 is beyond float16"
        assert [int(step.scaling[1]) for step in steps] == counts
        assert max(b / a for a, b in itertools.pairwise(scales)) == 2, "it must grow on the way, too"
    assert sum(skipped) < UPDATES / 2
    assert steps[-1].scaling[2] == sum(skipped)
    difference = (steps[-1].parameters.double() - theirs.double()).abs().max() / theirs.abs().max()
    assert difference <= 5e-3, "of what float16 rounds, which has three digits"
    assert (steps[-1].parameters - steps[0].parameters).abs().max() > 0.02, "the run must get somewhere"


def overflow(run: Run) -> Run:
    """A run whose cost is scaled so far that an update is skipped, and the next ones are not."""
    run.set(loss_scale="dynamic")
    run.advance(6)
    return run


def test_a_skipped_update_moves_nothing_and_says_so():
    run = overflow(Run("question", **HALF, momentum=0.9))
    skipped = run.record.skipped == 1
    assert skipped[0]
    assert not skipped[-1]
    still = run.record.update_ratio.max(axis=1) == 0
    assert np.array_equal(still, skipped)
    assert np.array_equal(run.record.scale, 65536 / 2 ** np.cumsum(np.append(0, skipped[:-1])))
    assert run.state.scaling.tolist() == [run.record.scale[-1], 6 - skipped.sum(), skipped.sum()]
    assert np.isfinite(run.record.gradient_norm[~skipped]).all()
    assert not np.isfinite(run.record.gradient_norm[skipped]).all(axis=1).any()


def test_gauges_of_the_gradient_are_those_of_the_one_without_the_scale():
    runs = [Run("question", **HALF | {"precision": precision}) for precision in ("float64", "float16")]
    runs[1].set(loss_scale=256)
    wide, half = (run.step() for run in runs)
    assert half.scale == 256
    np.testing.assert_allclose(half.gradient_norm, wide.gradient_norm, rtol=0.05, atol=1e-4)


def test_averages_and_their_count_stay_at_a_skipped_update():
    run = Run("question", **HALF, optimizer="adam", adam_epsilon=1e-3)
    run.advance(2)
    before = run.state
    run.set(loss_scale=1e6)
    run.step()
    assert run.record.skipped[-1] == 1
    assert before.updates == run.state.updates == 2
    pairs = zip((before.parameters, *before.averages), (run.state.parameters, *run.state.averages), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_without_a_loss_scale_nothing_of_it_is_measured_or_kept():
    run = Run("question", **HALF)
    run.step()
    assert run.state.scaling is None
    assert not run.record.is_measured("scale").any()
    assert not run.record.is_measured("skipped").any()
    assert all("loss_scaling" not in kept.arrays for kept in run.record.take_snapshots())


def test_a_change_takes_effect_at_an_update_and_dynamic_goes_on_from_a_number():
    run = Run("question", **HALF)
    for value in ("off", 64, "dynamic", "off", "dynamic"):
        run.set(loss_scale=value)
        run.step()
    assert run.record.scale[[1, 2, 4]].tolist() == [64, 64, 65536]
    assert run.record.is_measured("scale").tolist() == [False, True, True, False, True]
    assert [knobs.loss_scale for _, knobs in run.record.schedule] == ["off", 64.0, "dynamic", "off", "dynamic"]


def are_equal(one: State, other: State) -> bool:
    parts = [[*state[:2], *state[3:5], state.scaling] for state in (one, other)]
    return all(a is b is None or torch.equal(a, b) for a, b in zip(*parts, strict=True))


def test_rewinds_forks_and_files_bring_the_scale_back_to_the_bit(tmp_path):
    run = overflow(Run("question", **HALF, momentum=0.9, history_bytes=0))
    run.set(loss_scale=2048, optimizer="adam", adam_epsilon=1e-3)
    run.advance(3)
    states = [run.state_at(step) for step in range(10)]
    run.record.save(tmp_path / "scaled.cnnlab")
    loaded, twin = Run(cnnlab.load(tmp_path / "scaled.cnnlab")), run.fork(4)
    assert are_equal(loaded.state, run.state)
    assert are_equal(twin.state, states[4])
    twin.advance(2)
    assert are_equal(twin.state, states[6])
    loaded.rewind(2)
    run.rewind(2)
    assert are_equal(run.state, loaded.state)
    loaded.advance(4)
    assert are_equal(loaded.state, states[6])
    assert states[6].spill_to_disk().bytes == states[6].bytes


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([np.nan, 1, 1], r"^the loss scale of the record's state at update 6 must be a number of at least 0, got nan$"),
        ([-1, 1, 1], r"^the loss scale of .* got -1$"),
        ([np.inf, 1, 1], r"^the loss scale of .* got inf$"),
        ([1, 2000, 1], r"^the good updates of the loss scale of .* must be a whole number in \[0, 1999\], got 2000$"),
        ([1, 0.5, 1], r"^the good updates of .* got 0.5$"),
        ([1, 0, -1], r"^the overflows of the loss scale of .* got -1$"),
    ],
)
def test_a_scale_from_a_file_that_cannot_be_is_refused_in_a_sentence(numbers, said):
    run = overflow(Run("question", **HALF))
    like, kept = run.problem.make_empty_state(), run.record.take_snapshots()[-1]
    assert restore(kept, like).scaling.tolist() == run.state.scaling.tolist()
    changed = Snapshot(kept.step, {**kept.arrays, "loss_scaling": np.array(numbers, np.float32).view(np.uint8)})
    with pytest.raises(ValueError, match=said):
        restore(changed, like)


def test_a_scale_from_a_file_of_another_length_is_refused_in_a_sentence():
    run = overflow(Run("question", **HALF))
    kept = run.record.take_snapshots()[-1]
    changed = Snapshot(kept.step, {**kept.arrays, "loss_scaling": np.zeros(8, np.uint8)})
    with pytest.raises(ValueError, match=r"does not fit the network: it holds .*loss_scaling \(8 bytes\)"):
        restore(changed, run.problem.make_empty_state())


REFUSED = r"^loss_scale must be 'off' with precision 'float32', got 'dynamic'$"


def test_other_precisions_than_float16_refuse_a_loss_scale_wherever_it_is_given(tmp_path):
    plain = Run("question", **SMALL)
    for give in (
        lambda: settings("question", loss_scale="dynamic"),
        lambda: settings("question", precision="float32", loss_scale="dynamic"),
        lambda: plain.set(loss_scale="dynamic"),
        lambda: plain.fork(loss_scale="dynamic"),
        lambda: Run("cnnlab:question?at3.loss_scale=dynamic"),
        lambda: Run("question", plan=((3, settings("question", precision="float16", loss_scale="dynamic").knobs),)),
    ):
        with pytest.raises(ValueError, match=REFUSED):
            give()
    with pytest.raises(ValueError, match=r"float64', got 64\.0$"):
        settings("question", precision="float64", loss_scale=64)
    assert plain.knobs.loss_scale == "off"


def test_another_precision_takes_the_loss_scale_off():
    scaled = settings("question", precision="float16", loss_scale="dynamic")
    assert scaled.replace(precision="float32").loss_scale == "off"
    assert scaled.replace(precision="float16").loss_scale == "dynamic"
    assert scaled.replace(learning_rate=1).loss_scale == "dynamic"


@pytest.mark.parametrize(
    ("value", "kind"), [(0, ValueError), (-1, ValueError), (2e6, ValueError), (np.nan, ValueError),
                        ("dynamc", ValueError), (None, TypeError), (True, TypeError), ([1], TypeError)]
)  # fmt: skip
def test_a_value_that_is_no_scale_is_refused_in_a_sentence(value, kind):
    with pytest.raises(kind, match=r"^loss_scale must (be 'off', 'dynamic' or a number|lie) in \(0, 1e6\], got "):
        settings("question", precision="float16", loss_scale=value)


@pytest.mark.parametrize("value", ["dynamic", 65536.0, 0.3])
def test_a_link_holds_the_scale(value):
    run = Run("question", **HALF, loss_scale=value)
    run.step()
    run.set(loss_scale="off")
    run.step()
    again = Run(run.record.link())
    again.advance(2)
    assert [knobs.loss_scale for _, knobs in again.record.schedule] == [value, "off"]
    assert np.array_equal(again.record.cost, run.record.cost)
