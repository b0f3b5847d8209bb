"""Every optimiser against torch.optim, and switches from one to another on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import cnnlab
from cnnlab import Run
from cnnlab.config.settings import OPTIMIZER_DEFAULTS, Settings, settings
from cnnlab.records.record import Snapshot
from cnnlab.training.checkpoints import State, restore
from cnnlab.training.network import Layout
from cnnlab.training.step import Descent, KnobTensors, StepStructure

UPDATES = 200
ROUNDING = {"float64": 1e-12, "float32": 4e-6, "float16": 1e-2, "bfloat16": 8e-2}
"""Difference allowed after 200 updates, of the largest magnitude in a tensor."""
CLIPS = {"off": 1.0, "value": 0.05, "norm": 0.2, "adaptive": 0.2}
OPTIMIZERS = tuple(OPTIMIZER_DEFAULTS)
PLACES = tuple(
    (name, place) for name in OPTIMIZERS for place in ("cost", "update") if (name, place) != ("adamw", "cost")
)

pytestmark = pytest.mark.usefixtures("one_thread")


def make_network(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).to(dtype)


def make_data(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, 24).reshape(8, 3)
    return x.to(dtype), torch.stack([x.prod(dim=1), x.sum(dim=1).sin()], dim=1).to(dtype)


def measure_cost(outputs: torch.Tensor, y: torch.Tensor, _epsilon: object = None) -> torch.Tensor:
    return (outputs - y).square().mean()


def make_oracle(network: nn.Module, wanted: Settings) -> torch.optim.Optimizer:
    """The optimiser of torch: weights decay where they do so apart from the gradient, biases never."""
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    biases = [parameter for parameter in network.parameters() if parameter.dim() == 1]
    decay = wanted.l2 if wanted.optimizer == "adamw" else 0.0
    groups = [{"params": weights, "weight_decay": decay}, {"params": biases, "weight_decay": 0.0}]
    rate, kept = wanted.learning_rate, {"eps": wanted.adam_epsilon, "foreach": False}
    match wanted.optimizer:
        case "sgd" | "nesterov":
            nesterov = wanted.optimizer == "nesterov"
            return torch.optim.SGD(groups, rate, momentum=wanted.momentum, nesterov=nesterov, foreach=False)
        case "rmsprop":
            return torch.optim.RMSprop(groups, rate, alpha=wanted.beta2, momentum=wanted.momentum, **kept)
        case "adam":
            return torch.optim.Adam(groups, rate, betas=(wanted.momentum, wanted.beta2), **kept)
    return torch.optim.AdamW(groups, rate, betas=(wanted.momentum, wanted.beta2), **kept)


def clip_gradients(network: nn.Module, wanted: Settings) -> None:
    """Clipping as the knobs say, in a few lines of plain PyTorch."""
    whole = torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).double()
    for parameter in network.parameters():
        slope, bound = parameter.grad, wanted.clip_threshold
        if wanted.clip == "value":
            slope.clamp_(-bound, bound)
        if wanted.clip == "norm":
            slope.mul_(min(1.0, bound / whole.norm().item()))
        if wanted.clip == "adaptive":
            rows = slope if slope.dim() > 1 else slope[None]
            weights = parameter.data.reshape(rows.shape).double().norm(dim=1, keepdim=True).clamp(min=1e-3)
            rows.mul_((bound * weights / rows.double().norm(dim=1, keepdim=True)).clamp(max=1).to(rows.dtype))


def train_oracle(wanted: Settings) -> torch.Tensor:
    """The parameters after all updates of a loop in plain PyTorch."""
    dtype = getattr(torch, wanted.precision)
    network, (x, y) = make_network(dtype), make_data(dtype)
    optimizer = make_oracle(network, wanted)
    for _ in range(UPDATES):
        optimizer.zero_grad()
        cost = measure_cost(network(x), y)
        weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
        if wanted.penalty_in == "cost":
            cost = cost + sum(wanted.l2 / 2 * weight.square().sum() for weight in weights)
        cost.backward()
        clip_gradients(network, wanted)
        if wanted.penalty_in == "update" and wanted.optimizer != "adamw":
            with torch.no_grad():
                for weight in weights:
                    weight.mul_(1 - wanted.learning_rate * wanted.l2)
        optimizer.step()
    return torch.cat([parameter.data.flatten() for parameter in network.parameters()])


def train(wanted: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """The parameters before and after all updates of our own step."""
    dtype = getattr(torch, wanted.precision)
    network, (x, y) = make_network(dtype), make_data(dtype)
    layout = Layout.from_network(network)
    start = layout.flatten(dict(network.named_parameters())).detach().clone()
    descent = Descent(network, layout, measure_cost, layout.is_weight(start.device))
    knobs = KnobTensors.from_knobs(wanted.knobs, start), StepStructure.from_knobs(wanted.knobs)
    state = State(start, None, {})
    for _ in range(UPDATES):
        state = descent.step(state, x, y, *knobs).state
    return start, state.parameters


def compare(wanted: Settings) -> float:
    """The largest difference to the oracle, as a share of the largest parameter."""
    (start, ours), theirs = train(wanted), train_oracle(wanted)
    assert (ours - start).abs().max() > 0.02, "the run must get somewhere"
    return ((ours.double() - theirs.double()).abs().max() / theirs.abs().max()).item()


def choose(optimizer: str, place: str, clip: str, precision: str) -> Settings:
    rate = {"sgd": 0.3, "nesterov": 0.05, "rmsprop": 0.003}.get(optimizer, 0.01)
    epsilon = 1e-2 if optimizer == "rmsprop" else 1e-4 if precision == "float16" else 1e-8
    return settings(
        "question", optimizer=optimizer, penalty_in=place, clip=clip, clip_threshold=CLIPS[clip],
        learning_rate=rate, precision=precision, l2=0.03, adam_epsilon=epsilon,
    )  # fmt: skip


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize(("optimizer", "place"), PLACES)
def test_two_hundred_updates_are_those_of_torch_optim(optimizer, place, clip):
    assert compare(choose(optimizer, place, clip, "float64")) <= ROUNDING["float64"]


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
# Torch's SGD has no decay beside its gradient, and ours adds both before it rounds.
@pytest.mark.parametrize(("optimizer", "place"), [pair for pair in PLACES if pair != ("sgd", "update")])
def test_two_hundred_updates_are_those_of_torch_optim_to_rounding(optimizer, place, precision):
    assert compare(choose(optimizer, place, "norm", precision)) <= ROUNDING[precision]


def test_a_network_of_ones_own_is_trained_as_by_torch_optim():
    data = make_data(torch.float64)
    wanted = choose("adam", "cost", "off", "float64")
    run = Run(network=make_network(torch.float64), data=data, cost=nn.functional.mse_loss, optimizer="adam", l2=0.03)
    run.advance(UPDATES)
    assert run.knobs_in_force.momentum == 0.9
    torch.testing.assert_close(run.parameters, train_oracle(wanted), rtol=1e-10, atol=1e-12)


SMALL = {"channels": 2, "hidden": (4, 3), "patch_size": 13, "patches": 8, "input_scaling": "unit", "device": "cpu"}
TOUR = ("adam", "adamw", "rmsprop", "nesterov", "sgd", "adam")


def go_through(run: Run, optimizers: tuple[str, ...], updates: int = 3) -> list[State]:
    """The states after each stage of a run that changes its optimiser on the way."""
    states = []
    for optimizer in optimizers:
        run.set(optimizer=optimizer, momentum=0.5, learning_rate=1e-3)
        run.advance(updates)
        states.append(run.state)
    return states


def list_parts(state: State) -> list[torch.Tensor]:
    return [part for part in state[:2] + state[3:5] if part is not None]


def are_equal(one: State, other: State) -> bool:
    parts = list_parts(one), list_parts(other)
    if one.optimizer != other.optimizer or len(parts[0]) != len(parts[1]):
        return False
    return all(torch.equal(*pair) for pair in zip(*parts, strict=True))


def test_a_switch_keeps_the_weights_and_begins_with_averages_of_its_own():
    run = Run("question", **SMALL)
    adam, adamw, rmsprop, nesterov, sgd, again = go_through(run, TOUR)
    assert [state.optimizer for state in (adam, adamw, rmsprop, nesterov, sgd, again)] == [
        "adam", "adam", "rmsprop", "nesterov", "sgd", "adam",
    ]  # fmt: skip
    counts = [state.updates and int(state.updates) for state in (adam, adamw, rmsprop, nesterov, sgd, again)]
    assert counts == [3, 6, None, None, None, 3]
    assert rmsprop.squares is not None
    assert nesterov.squares is sgd.squares is None
    fresh = State(nesterov.parameters, None, {})
    step = run.descent.step(fresh, *run.problem.batch(13), *run.prepare_knobs(run.record.knobs_at(13)))
    assert torch.equal(step.parameters, run.state_at(13).parameters), "plain momentum knows nothing of Nesterov's"


@pytest.mark.parametrize("step", [2, 5, 8, 11, 14])
def test_a_rewind_before_a_switch_brings_the_averages_back_to_the_bit(step):
    run = Run("question", **SMALL, history_bytes=0)
    states = []
    for optimizer in TOUR[:5]:
        run.set(optimizer=optimizer, momentum=0.5, learning_rate=1e-3)
        states += [run.advance(1) and run.state for _ in range(3)]
    twin, cost = run.fork(step), run.record.cost
    run.rewind(step)
    assert are_equal(run.state, states[step - 1])
    assert are_equal(twin.state, states[step - 1])
    twin.advance(15 - step)
    assert np.array_equal(twin.record.cost[:step], cost[:step])


def test_a_run_goes_on_from_a_file_as_if_it_had_not_been_saved(tmp_path):
    run = Run("question", **SMALL)
    for stage, optimizer in enumerate(TOUR):
        go_through(run, (optimizer,), updates=2)
        run.record.save(tmp_path / "tour.cnnlab")
        loaded = Run(cnnlab.load(tmp_path / "tour.cnnlab"))
        assert are_equal(loaded.state, run.state), f"after stage {stage}, {optimizer}"
        loaded.advance(2)
        twin = run.fork()
        twin.advance(2)
        assert are_equal(loaded.state, twin.state)
        loaded.rewind(1)
        assert are_equal(loaded.state, run.state_at(1))


def take_adam_state() -> tuple[State, Snapshot]:
    run = Run("question", **SMALL, optimizer="adam")
    run.advance(2)
    return run.problem.make_empty_state(), run.record.take_snapshots()[-1]


@pytest.mark.parametrize("count", [np.nan, np.inf, 0.0, 1.5, -1.0])
def test_a_count_from_a_file_is_a_whole_number_of_updates(count):
    like, kept = take_adam_state()
    changed = Snapshot(kept.step, {**kept.arrays, "adam.updates": np.array([count], np.float32).view(np.uint8)})
    assert restore(kept, like).updates == 2
    said = f"adam.updates of the record's state at update 2 must be a whole number of at least 1, got {count:g}"
    with pytest.raises(ValueError, match=said):
        restore(changed, like)


@pytest.mark.parametrize("name", ["adam.velocity", "adam.squares", "adam.updates"])
def test_averages_from_a_file_must_be_whole_and_fit(name):
    like, kept = take_adam_state()
    short = Snapshot(2, {key: array[:-2] if key == name else array for key, array in kept.arrays.items()})
    missing = Snapshot(2, {key: array for key, array in kept.arrays.items() if key != name})
    other = Snapshot(2, {**kept.arrays, "rmsprop.squares": kept.arrays["adam.squares"]})
    for wrong in (short, missing, other):
        with pytest.raises(ValueError, match="the record's state at update 2 does not fit the network: it holds"):
            restore(wrong, like)


def test_what_a_state_takes_counts_its_averages():
    run = Run("question", **SMALL)
    plain, adam, rmsprop = (go_through(run, (name,))[0].bytes for name in ("sgd", "adam", "rmsprop"))
    vector = run.parameters.nbytes
    assert (plain, adam, rmsprop) == (2 * vector, 3 * vector + 4, 3 * vector)


def test_long_averages_are_laid_down_in_files():
    long = torch.arange(2.0**15)
    state = State(long, long + 1, {}, long + 2, torch.tensor(7.0), "adam")
    spilled = state.spill_to_disk()
    assert are_equal(spilled, state)
    assert spilled.squares.data_ptr() != state.squares.data_ptr()
