"""What a run says of its optimiser's limit: the dense matrix, torch's own loop, and where the words stop."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from handmade import record_of
from torch import nn

import cnnlab
from cnnlab.config.settings import ADAPTIVE, OPTIMIZER_DEFAULTS
from cnnlab.config.stability import find_bound
from cnnlab.curvature.band import describe_band
from cnnlab.curvature.direction import measure_direction
from cnnlab.curvature.tracker import SharpnessTracker, advance_safely
from cnnlab.plots.sharpness import find_thresholds
from cnnlab.training.run import Run

OPTIMIZERS = tuple(OPTIMIZER_DEFAULTS)
SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "device": "cpu"}
X = torch.randn(20, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
Y = torch.arange(20) % 3


def make_network() -> nn.Module:
    """Two hidden layers in float64."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def own(**changes: object) -> Run:
    """A run of it."""
    return Run(network=make_network(), data=(X, Y), cost=nn.functional.cross_entropy, device="cpu",
               precision="float64", **changes)  # fmt: skip


def find_hessian(run: Run) -> torch.Tensor:
    """The dense Hessian of the cost in force."""
    knobs = run.knobs_in_force
    coupled = knobs.l2 if knobs.penalty_in == "cost" else 0.0
    weight = run.layout.is_weight(run.parameters.device)

    def cost(flat):
        outputs = torch.func.functional_call(run.problem.network, run.layout.views(flat), (X,))
        return nn.functional.cross_entropy(outputs, Y) + coupled / 2 * flat[weight].square().sum()

    return torch.autograd.functional.hessian(cost, run.parameters)


def find_scale(run: Run, decay: float) -> torch.Tensor:
    """What the run's own next update multiplies its gradient by beside the learning rate, seen from outside."""
    knobs, twin = run.knobs_in_force, run.fork()
    twin.step()
    update = (run.parameters - twin.parameters) / knobs.learning_rate
    update = update - decay * torch.where(run.layout.is_weight(update.device), run.parameters, 0)
    return update / twin.state.velocity if knobs.optimizer in ("adam", "adamw") else update / gradient_of(run)


def gradient_of(run: Run) -> torch.Tensor:
    """The gradient of the cost in force."""
    flat = run.parameters.clone().requires_grad_()
    knobs = run.knobs_in_force
    cost = nn.functional.cross_entropy(torch.func.functional_call(run.problem.network, run.layout.views(flat), (X,)), Y)
    weights = torch.where(run.layout.is_weight(flat.device), run.parameters, 0)
    return torch.autograd.grad(cost, flat)[0] + (knobs.l2 * weights if knobs.penalty_in == "cost" else 0)


@pytest.mark.parametrize("updates", [0, 1, 6])
@pytest.mark.parametrize("place", ["cost", "update"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_limit_is_that_of_the_dense_matrix_with_what_the_run_s_own_next_update_divides_by(name, place, updates):
    if (name, place) == ("adamw", "cost"):
        place = "update"
    run = own(optimizer=name, learning_rate=1e-3, l2=0.3, penalty_in=place)
    if updates:
        run.advance(updates)
    decay = 0.3 if place == "update" else 0.0
    bound = find_bound(name, run.knobs.momentum)
    scale = torch.ones_like(run.parameters) if name not in ADAPTIVE else find_scale(run, decay)
    root, spared = scale.sqrt(), decay * run.layout.is_weight(scale.device).double()
    matrix = root[:, None] * find_hessian(run) * root + bound / 2 * torch.diag(spared)
    found = cnnlab.critical_learning_rate(run, tolerance=1e-9)
    assert found.eigenvalue == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-6)
    assert found.value == pytest.approx(bound / found.eigenvalue)
    assert found.optimizer == name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_before_the_first_update_a_run_and_a_loop_of_torch_s_say_the_same(name):
    run, model = own(optimizer=name, learning_rate=1e-3), make_network()
    kinds = {"rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    options = {"momentum": run.knobs.momentum, "nesterov": name == "nesterov"} if name not in ADAPTIVE else {}
    optimizer = kinds.get(name, torch.optim.SGD)(model.parameters(), lr=1e-3, weight_decay=0.0, **options)
    loop = cnnlab.critical_learning_rate(
        model, lambda: nn.functional.cross_entropy(model(X), Y), optimizer, tolerance=1e-9
    )
    found = cnnlab.critical_learning_rate(run, tolerance=1e-9)
    assert found.eigenvalue == pytest.approx(loop.eigenvalue, rel=1e-9)
    assert found.value == pytest.approx(loop.value)
    assert ("preconditioned Hessian" in str(found)) == (name in ADAPTIVE)


@pytest.mark.parametrize("name", ["rmsprop", "adam", "adamw"])
def test_what_is_clipped_and_what_a_mini_batch_gives_is_what_the_averages_are_of(name):
    run = own(optimizer=name, learning_rate=1e-3, clip="norm", clip_threshold=1e-3, batch_size=5)
    found = cnnlab.critical_learning_rate(run)
    assert found.eigenvalue > 2 * cnnlab.critical_learning_rate(own(optimizer=name, learning_rate=1e-3)).eigenvalue
    before = run.record.table.tobytes()
    assert run.record.table.tobytes() == before
    assert run.updates == 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_landing_is_where_the_next_update_goes_and_on_the_parabola_where_the_eigenvalue_says(name):
    run = own(optimizer=name, momentum=0.0, learning_rate=1e-3)
    run.advance(3)
    found = measure_direction(run, cnnlab.critical_learning_rate(run, tolerance=1e-9))
    assert found.find_landing(1e-3) == pytest.approx((1 - 1e-3 * found.eigenvalue) * found.present, rel=1e-5)
    assert found.find_landing(found.critical) == pytest.approx(-found.present, rel=1e-5)
    near = np.array([-1e-3, 1e-3]) * found.places[-1]
    assert found.line.measure(near) == pytest.approx(found.predict_cost(near + found.present), rel=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_tracker_keeps_what_the_next_step_meets_and_a_switch_has_it_measured_anew(name):
    run, tracker = Run("question", learning_rate=1e-4, **SMALL), SharpnessTracker()
    run.advance(2)
    before = tracker.measure(run)
    run.set(optimizer=name)
    assert tracker.is_known(run) == (name == "sgd")
    assert math.isnan(run.sharpness) == (name != "sgd")
    after = tracker.measure(run)
    assert after == pytest.approx(cnnlab.critical_learning_rate(run).eigenvalue, rel=1e-3)
    assert (after == before) == (name == "sgd")


def test_a_search_that_a_switch_interrupts_is_given_up():
    run, tracker = Run("question", learning_rate=1e-4, **SMALL), SharpnessTracker()
    tracker.measure_piece(run)
    run.set(optimizer="adam")
    while math.isnan(run.sharpness):
        tracker.measure_piece(run)
    assert run.sharpness == pytest.approx(cnnlab.critical_learning_rate(run).eigenvalue, rel=1e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_band_and_the_dashed_line_are_of_the_optimiser(name):
    settings = cnnlab.settings("question", optimizer=name, learning_rate=1e-2)
    record = dataclasses.replace(
        record_of(np.ones(1), sharpness=np.array([100.0, math.nan])), schedule=((1, settings.knobs),)
    )
    band = describe_band(record, settings, "")
    bound = find_bound(name, settings.momentum)
    assert band["edges"][0] == pytest.approx(bound / 100)
    assert (band["edges"][1] == pytest.approx(bound / 10)) == (name == "sgd")
    assert ("Red: beyond" in band["title"]) == (name == "sgd")
    assert ("undecided" in band["title"]) == (name != "sgd")
    assert ("averages" in band["title"]) == (name in ADAPTIVE)
    assert find_thresholds(record, 1)[1].tolist() == pytest.approx([bound / 1e-2] * 2)


def test_what_was_measured_before_another_optimiser_was_chosen_makes_no_band_of_it():
    old = cnnlab.settings("question").knobs
    new = cnnlab.settings("question", optimizer="adam")
    record = record_of(np.ones(3), sharpness=np.array([100.0, 100.0, math.nan, math.nan]))
    record = dataclasses.replace(record, schedule=((1, old), (3, new.knobs)))
    assert describe_band(record, new, "")["edges"] is None
    assert describe_band(record, cnnlab.settings("question"), "")["edges"] is None
    again = record_of(np.ones(3), sharpness=np.array([100.0, 100.0, 9.0, math.nan]))
    again = dataclasses.replace(again, schedule=record.schedule)
    assert describe_band(again, new, "")["edges"][0] == pytest.approx(38 / 9)


@pytest.mark.parametrize("name", ["nesterov", "adam"])
def test_safe_steps_are_a_share_of_the_optimiser_s_own_limit(name):
    run = own(optimizer=name, learning_rate=1e-3)
    critical = cnnlab.critical_learning_rate(run).value
    advance_safely(run, 1, share=0.25)
    assert run.record.knobs_at(1).learning_rate == pytest.approx(critical / 4, rel=2e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_autopsy_blames_a_rate_above_the_critical_one_only_where_that_decides(name):
    run = Run("question", optimizer=name, learning_rate=1.0, **SMALL)
    run.advance(30, until="nonfinite")
    said = str(cnnlab.autopsy(run, prove=False))
    assert ("the critical one" in said) <= (name not in ADAPTIVE)


@pytest.mark.parametrize("name", ["rmsprop", "adam", "adamw"])
def test_weights_that_are_lost_have_no_finite_matrix(name):
    run = own(optimizer=name, learning_rate=1e-3)
    run.state = run.state._replace(parameters=torch.full_like(run.parameters, math.nan))
    found = cnnlab.critical_learning_rate(run)
    assert str(found) == "the preconditioned Hessian is not finite after update 0: no learning rate is safe any more"
