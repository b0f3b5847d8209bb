"""What an autopsy says of loops of one's own: each mistake is named, and what is none of it is not said."""

from __future__ import annotations

import math
import re

import pytest
import torch
from loops import X, mlp
from torch import nn

import cnnlab

mse = nn.functional.mse_loss
ce = nn.functional.cross_entropy
TARGETS = torch.randn(24, 3, generator=torch.Generator().manual_seed(2))

pytestmark = pytest.mark.usefixtures("one_thread")


def train(model, optimizers, updates, cost=None, before_step=None, **options):
    """The autopsy of a watched regression; all optimisers step after one backward pass."""
    optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
    with cnnlab.watch(model, optimizers, **options) as watch:
        for _ in range(updates):
            model.zero_grad()
            (mse(model(X), TARGETS) if cost is None else cost()).backward()
            for optimizer in optimizers:
                if before_step is not None:
                    before_step(optimizer)
                optimizer.step()
    return cnnlab.autopsy(watch.record, prove=False)


def names(found):
    return [cause.name for cause in found.causes]


def train_adversaries(updates, clears_first=True):
    """A generator and a discriminator that take turns, each with an optimiser that clears its own gradients."""
    torch.manual_seed(0)
    data, logits = torch.randn(32, 2) + 2, nn.functional.binary_cross_entropy_with_logits
    make = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    judge = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    makes, judges = (torch.optim.Adam(part.parameters(), 1e-3) for part in (make, judge))
    with cnnlab.watch(nn.ModuleList([make, judge]), [makes, judges]) as watch:
        for _ in range(updates):
            made = make(torch.randn(32, 2))
            if clears_first:
                judges.zero_grad()
            (logits(judge(made.detach()), torch.zeros(32, 1)) + logits(judge(data), torch.ones(32, 1))).backward()
            judges.step()
            makes.zero_grad()
            logits(judge(made), torch.ones(32, 1)).backward()
            makes.step()
    return cnnlab.autopsy(watch.record, prove=False)


def test_a_gradient_that_another_optimiser_clears_before_its_own_step_does_not_add_up():
    assert "gradients add up" not in names(train_adversaries(30))
    assert train_adversaries(30, clears_first=False).cause == "gradients add up"


def test_numbers_of_words_are_no_inputs_that_are_not_scaled():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(20, 8), nn.Linear(8, 2))
    words, labels = torch.randint(0, 50, (32, 5)), torch.randint(0, 2, (32,))
    found = train(model, torch.optim.SGD(model.parameters(), 300.0), 40, lambda: ce(model(words), labels))
    assert found.cause == "learning rate above critical"
    assert not {"inputs not scaled", "outlier"} & set(names(found))


def test_pixels_of_whole_numbers_are_inputs_that_are_not_scaled():
    torch.manual_seed(0)

    class Model(nn.Linear):
        def forward(self, pixels):
            return super().forward(pixels.float())

    model, pixels = Model(6, 3), torch.randint(0, 256, (24, 6), dtype=torch.uint8)
    found = train(model, torch.optim.SGD(model.parameters(), 0.1), 40, lambda: mse(model(pixels), TARGETS))
    assert found.cause == "inputs not scaled"


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_decay_that_turns_the_weights_is_told_as_it_is(kind):
    """The record of AdamW holds no decay of more than 1 over the rate."""
    model = mlp()
    found = train(model, kind(model.parameters(), 0.1, weight_decay=30.0), 150)
    assert found.cause == "penalty factor beyond 1"
    assert found.evidence[0] == "every update multiplies the weights by 1 - learning_rate * weight_decay = -2"
    assert "weight_decay=1e-4" in found.advice


def test_the_group_whose_weights_turn_is_named_whichever_optimiser_has_it():
    model = mlp()
    calm = torch.optim.Adam(model[0].parameters(), 1e-3)
    turning = torch.optim.SGD(model[2].parameters(), 0.1, weight_decay=40.0)
    found = train(model, [calm, turning], 150)
    assert found.cause == "penalty factor beyond 1"
    assert "the weights of the group of 2 by 1 - learning_rate * weight_decay = -3" in found.evidence[0]


def test_a_decay_that_momentum_makes_bearable_turns_nothing():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=300.0)
    found = train(model, optimizer, 60)  # beyond 2, and within 2 (1 + 0.9)
    assert "penalty factor beyond 1" not in names(found)


def test_a_decay_that_momentum_does_not_bear_is_told_with_its_bound():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=500.0)
    found = train(model, optimizer, 150)
    said = "every update takes learning_rate * weight_decay = 5 times the weights off them, and momentum bears 3.8"
    assert (found.cause, found.evidence) == ("penalty factor beyond 1", (said,))


def test_a_momentum_above_1_is_told_as_it_is():
    model = mlp()
    found = train(model, torch.optim.SGD(model.parameters(), 0.01, momentum=1.1), 150)
    assert found.cause == "momentum"
    assert found.evidence == ("momentum is 1.1: past steps grow",)


def test_a_rate_that_a_schedule_takes_below_0_is_named_and_never_called_positive():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 1 - update / 10)
    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(200):
            optimizer.zero_grad()
            mse(model(X), TARGETS).backward()
            optimizer.step()
            scheduler.step()
    found = cnnlab.autopsy(watch.record)
    assert (found.cause, found.step is None) == ("learning rate below 0", False)
    assert found.evidence[0].startswith("since update 12 the learning rate is below 0, and reaches -")
    lowest = float(re.search(r"reaches (\S+):", found.evidence[0])[1])
    assert lowest == pytest.approx(0.1 * (1 - (found.step - 1) / 10), abs=0.011)  # at the update that broke, or before
    assert "learning rate above critical" not in names(found)
    assert "e-300" not in f"{found}{watch.record}"


def test_the_step_of_one_optimiser_is_not_told_as_that_of_another():
    model = mlp()
    first = torch.optim.Adam(model[0].parameters(), 1e-3)
    found = train(model, [first, torch.optim.SGD(model[2].parameters(), 300.0)], 60)
    assert found.cause == "learning rate above critical"
    assert "Adam's step" not in str(found)


def test_the_epsilon_is_that_of_the_optimiser_that_divided_by_0():
    model = mlp().half()
    first = torch.optim.SGD(model[0].parameters(), 1e-3)
    second = torch.optim.Adam(model[2].parameters(), 1e-3)
    model[2].weight.register_hook(lambda slope: slope * 0)
    found = train(model, [first, second], 5, lambda: mse(model(X.half()), TARGETS.half()))
    assert found.cause == "epsilon of the optimiser"
    assert found.evidence[0].startswith("Adam's eps 1.0e-8 is 0 in float16")
    assert "step of the optimiser" not in names(found)
    assert not any("centered" in each for each in found.advice)


def test_rates_of_optimisers_that_take_turns_did_not_rise():
    torch.manual_seed(0)
    parts = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 3)])
    optimizers = [torch.optim.SGD(part.parameters(), rate) for part, rate in zip(parts, (1e-3, 300.0), strict=True)]
    with cnnlab.watch(parts, optimizers) as watch:
        for _ in range(60):
            for part, optimizer in zip(parts, optimizers, strict=True):
                optimizer.zero_grad()
                mse(part(X), TARGETS).backward()
                optimizer.step()
    assert "rose from 0.001 to 300" not in str(cnnlab.autopsy(watch.record))


def test_a_gradient_that_long_steps_have_shut_off_is_blamed_on_these():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Sigmoid(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 2))
    labels = torch.arange(24) % 2
    found = train(model, torch.optim.Adam(model.parameters(), 3.0), 60, lambda: ce(model(X), labels))
    assert found.cause == "learning rate above critical"
    assert any("times as long as the weights" in each for each in found.evidence)
    assert not any("rule (a)" in each for each in found.rules) or "the cost rose" in str(found)


def test_units_that_died_while_gradients_added_up_are_no_cause_of_their_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.3)
    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(100):
            mse(model(X), TARGETS).backward()
            optimizer.step()
    found = cnnlab.autopsy(watch.record)
    assert "dead ReLUs" in names(found)
    assert found.cause == "gradients add up"


def test_targets_that_adam_s_steps_do_not_reach_are_not_called_answers_that_ignore_the_inputs():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    found = train(model, optimizer, 100, lambda: mse(model(X), 1e6 * TARGETS))
    assert found.cause == "targets not scaled"
    assert "Adam moves each weight by about the rate, 0.001" in found.evidence[0]


def test_a_cost_that_overflows_for_its_targets_is_not_blamed_on_the_network():
    model = mlp()
    found = train(model, torch.optim.Adam(model.parameters(), 1e-3), 5, lambda: mse(model(X), 1e21 * TARGETS))
    assert found.cause == "targets not scaled"
    assert "forward pass explodes" not in names(found)


def test_weights_that_a_penalty_takes_away_are_no_layers_through_which_no_gradient_passes():
    model = mlp()
    found = train(model, torch.optim.Adam(model.parameters(), 0.03, weight_decay=30.0), 150)
    assert found.cause == "penalty too strong"
    assert found.evidence[0].endswith("with l2 30")


def make_scaler(scale=2.0**16):
    return torch.amp.GradScaler("cpu", init_scale=scale)


def test_a_gradient_that_is_used_with_its_loss_scale_is_named():
    model, scaler = mlp(), make_scaler()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    found = train(model, optimizer, 5, lambda: scaler.scale(mse(model(X), TARGETS)), scaler=scaler)
    assert found.cause == "loss scale left in the gradient"
    assert found.evidence[0] == "in 5 updates the optimiser was given a gradient that still had the loss scale"


@pytest.mark.parametrize("unscales", [True, False])
def test_a_gradient_that_is_clipped_with_its_loss_scale_is_named_and_no_other(unscales):
    model, scaler = mlp(), make_scaler()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with cnnlab.watch(model, optimizer, scaler=scaler) as watch:
        for _ in range(20):
            optimizer.zero_grad()
            scaler.scale(mse(model(X), TARGETS)).backward()
            if unscales:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
    found = cnnlab.autopsy(watch.record)
    assert (found.cause == "loss scale left in the gradient") is not unscales
    assert ("the gradient's norm times the loss scale is 0.5 at every update" in str(found)) is not unscales


def test_a_scaler_that_the_loop_does_not_use_scales_nothing():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with cnnlab.watch(model, optimizer, scaler=make_scaler()) as watch:
        optimizer.zero_grad()
        cost = mse(model(X), TARGETS)
        cost.backward()
        optimizer.step()
    assert watch.record.cost[0] == pytest.approx(cost.item())
    assert math.isnan(watch.record.scale[0])
    assert cnnlab.autopsy(watch.record).cause == "healthy"


def test_the_last_step_that_a_scaler_leaves_out_is_counted():
    model, scaler = mlp(), make_scaler()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with cnnlab.watch(model, optimizer, scaler=scaler) as watch:
        for _ in range(7):
            optimizer.zero_grad()
            scaler.scale(mse(model(X), TARGETS) * math.inf).backward()
            scaler.step(optimizer)
            scaler.update()
    assert watch.skipped == 7


def test_weights_that_something_else_changes_are_not_called_calm():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    def grow(_):
        with torch.no_grad():
            model[2].weight.mul_(10.0)

    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(60):
            optimizer.zero_grad()
            mse(model(X), torch.zeros(24, 3)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
            grow(optimizer)
    found = cnnlab.autopsy(watch.record)
    assert found.cause == "undecided"
    assert "the weights of 2 grew" in found.evidence[1]
    assert "something other than the optimiser changed them" in found.evidence[1]
    assert "calm" not in str(found)


def test_a_loop_whose_weights_hardly_move_is_called_healthy_with_less_confidence_and_the_reason():
    model = mlp()
    found = train(model, torch.optim.SGD(model.parameters(), 1e-6), 30)
    assert (found.cause, found.confidence) == ("healthy", 0.5)
    assert "times as long as the weights, and 1e-3 is usual" in found.evidence[1]


def test_what_to_write_fits_what_was_found():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    flat = X.clone()
    flat[:, 2] = 4.0  # a column that never changes
    inputs = (flat - flat.mean(0)) / flat.std(0)
    found = train(model, optimizer, 2, lambda: mse(model(inputs), TARGETS))
    assert "x[ok]" not in str(found.advice)
    assert "(x - x.mean(0)) / (x.std(0) + 1e-8)" in found.advice[0]

    model = nn.Sequential(nn.Linear(6, 1), nn.Sigmoid())
    nn.init.constant_(model[0].weight, 100.0)
    labels = (torch.arange(24) % 2)[:, None].float()
    cost = lambda: -(labels * model(X).log() + (1 - labels) * (1 - model(X)).log()).mean()  # noqa: E731
    found = train(model, torch.optim.Adam(model.parameters(), 1e-3), 2, cost)
    assert found.cause == "log(0) by saturation"
    assert "binary_cross_entropy_with_logits" in found.advice[0]


def test_weights_that_are_nan_at_first_are_given_and_not_too_large():
    model = mlp()
    with torch.no_grad():
        model[0].weight[1, 2] = math.nan
    found = train(model, torch.optim.Adam(model.parameters(), 1e-3), 3)
    assert (found.cause, found.step, found.layer) == ("data hold NaN", 0, "0")
    assert found.evidence[0] == "the weights of 0 hold NaN before the first update"
    assert "initial weights too large" not in names(found)
    assert "checkpoint" in found.advice[0]


def test_targets_that_grow_with_the_answers_were_not_large_at_first():
    model, updates = mlp(), 150
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)

    def cost():
        with torch.no_grad():
            targets = 3 * model(X) + 1
        return mse(model(X), targets)

    found = train(model, optimizer, updates, cost)
    assert found.step is None
    assert "targets not scaled" not in names(found)
    assert "the cost rose" in str(found)


def test_a_gradient_that_breaks_after_its_backward_pass_is_told_so():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def train_clipped(watch, updates):
        for update in range(updates):
            optimizer.zero_grad()
            (mse(model(X), TARGETS) * (update != 4)).backward()
            norm = torch.cat([each.grad.reshape(-1) for each in model.parameters()]).norm()
            for each in model.parameters():
                each.grad /= norm  # 0/0
            optimizer.step()

    with cnnlab.watch(model, optimizer) as watch:
        train_clipped(watch, 8)
    found = cnnlab.autopsy(watch.record)
    assert (found.cause, found.step, found.phase) == ("undecided", 5, "gradient")
    assert "the cost and the gradient of its backward pass are finite" in " ".join(str(found).split())
    assert "watch.trace" not in str(found)
    assert "not replayed" not in str(found)
