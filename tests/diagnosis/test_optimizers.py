"""What an autopsy says of optimisers, their groups and their schedulers."""

from __future__ import annotations

import re

import pytest
import torch
from loops import X, mlp
from torch import nn

import cnnlab

mse = nn.functional.mse_loss


def train(model, optimizer, updates, scheduler=None, cost=None):
    """The autopsy of a watched regression of noise, and its record."""
    target = torch.ones(24, 3)
    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(updates):
            optimizer.zero_grad()
            loss = mse(model(X), target) if cost is None else cost()
            loss.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            if not loss.isfinite():
                break
    return cnnlab.autopsy(watch.record, prove=False), watch.record


def grow(optimizer, rate):
    """A schedule that multiplies the first rate by a factor of each update."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def test_a_rate_that_rose_is_told_with_its_ends_and_the_updates_between():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    found, record = train(model, optimizer, 200, grow(optimizer, lambda step: 1.3**step))
    assert found.cause == "learning rate above critical"
    least, rate, updates = re.search(
        r"the learning rate rose from (\S+) to (\S+) in (\d+) updates", str(found)
    ).groups()
    assert float(least) == 0.001
    assert float(rate) == pytest.approx(1e-3 * 1.3 ** int(updates), rel=0.01)
    assert int(updates) == found.step - 1
    assert record.knobs_at(found.step).learning_rate == pytest.approx(float(rate), rel=0.01)


def test_a_rise_is_counted_from_where_the_rate_was_lowest_last():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    scheduler = grow(optimizer, lambda step: 0.1 if 5 <= step < 20 else 1.0 if step < 5 else 1e4)
    found, _ = train(model, optimizer, 60, scheduler)
    assert f"the learning rate rose from 0.001 to 100 in {found.step - 20} updates" in str(found)


def test_a_warm_up_from_zero_is_said_to_begin_with_zero():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 50.0)
    found, _ = train(model, optimizer, 60, grow(optimizer, lambda step: step / 10))
    assert "the learning rate rose from 0 to " in str(found)
    assert "e-300" not in str(found)


def test_a_constant_rate_did_not_rise():
    model = mlp()
    found, _ = train(model, torch.optim.SGD(model.parameters(), 30.0), 60)
    assert "the learning rate is 30" in found.evidence
    assert "rose from" not in found.evidence[0]


def test_the_group_with_the_higher_rate_is_named():
    model = mlp()
    groups = [{"params": model[0].parameters(), "lr": 1e-3}, {"params": model[2].parameters(), "lr": 300.0}]
    found, _ = train(model, torch.optim.SGD(groups), 60)
    assert found.cause == "learning rate above critical"
    assert "the group of 2 has a higher one: 300, 3e5 times as high" in found.evidence


@pytest.mark.parametrize("rates", [(30.0, 30.0), (30.0, 0.3)])
def test_no_group_is_named_where_the_first_has_the_highest_rate(rates):
    model = mlp()
    groups = [{"params": model[place].parameters(), "lr": rate} for place, rate in zip((0, 2), rates, strict=True)]
    found, _ = train(model, torch.optim.SGD(groups), 60)
    assert "the group of" not in str(found)


@pytest.mark.parametrize(
    ("kind", "options", "square"),
    [(torch.optim.Adam, {}, "exp_avg_sq"), (torch.optim.AdamW, {"weight_decay": 0.0}, "exp_avg_sq"),
     (torch.optim.RMSprop, {"alpha": 0.9}, "square_avg")],
)  # fmt: skip
def test_a_long_step_of_adam_is_told_with_its_eps_and_the_v_that_it_divides_by(kind, options, square):
    """The v in the words is the one that the optimiser holds after that update, but for Adam's correction."""
    held = {}
    model = mlp()
    model[1] = nn.Tanh()  # which does not die
    optimizer = kind(model.parameters(), 20.0, **options)

    def keep(*_):
        number = len(held) + 1
        correction = 1 if kind is torch.optim.RMSprop else 1 - 0.999**number
        states = {name: torch.cat([optimizer.state[part][square].reshape(-1) for part in model[int(name)].parameters()])
                  for name in "02"}  # fmt: skip
        held[number] = {name: float(state.mean()) / correction for name, state in states.items()}

    optimizer.register_step_post_hook(keep)
    found, record = train(model, optimizer, 40)
    said = next(each for each in found.evidence if "'s step of" in each)
    number, times, layer, epsilon, mean = re.search(
        rf"^{kind.__name__}'s step of update (\d+) was (\S+) times as long as the weights of (\d) "
        r"\(eps (\S+) against v of (\S+), the mean square of the gradients\): each weight moves by about the rate$",
        said,
    ).groups()
    assert float(times) == pytest.approx(record.update_ratio[int(number) - 1].max(), rel=0.01)
    assert float(epsilon) == 1e-8
    assert float(mean) == pytest.approx(held[int(number)][layer], rel=0.06)  # two digits


def test_an_eps_above_the_root_of_v_is_not_said_to_move_each_weight_by_the_rate():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e13, eps=1e6)
    found, _ = train(model, optimizer, 40)
    said = next(each for each in found.evidence if "'s step of" in each)
    assert "eps 1.0e6 against v of" in said
    assert "by about the rate" not in said


def test_plain_gradient_descent_has_no_eps_and_no_v():
    model = mlp()
    found, _ = train(model, torch.optim.SGD(model.parameters(), 30.0), 60)
    assert "(eps" not in str(found)
    assert " v of " not in str(found)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RMSprop])
def test_an_eps_of_zero_is_named_where_a_gradient_is_zero(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    rows = torch.tensor([0, 1, 2, 3])  # the fifth row has no gradient
    optimizer = kind(model.parameters(), 1e-3, eps=0.0)
    found, _ = train(model, optimizer, 5, cost=lambda: nn.functional.cross_entropy(model(rows), rows % 2))
    assert (found.cause, found.step, found.layer) == ("epsilon of the optimiser", 1, "0")
    assert f"{kind.__name__}'s eps is 0" in found.evidence[0]
    assert "undefined operation" not in [cause.name for cause in found.causes]
    assert not any("count.clamp" in each for each in found.advice)


def test_a_schedule_that_divides_by_zero_is_told_what_to_print():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    found, _ = train(model, optimizer, 10, grow(optimizer, lambda step: 1.0 if step < 3 else float("nan")))
    assert "the learning rate of SGD is NaN" in str(found)
    assert any("get_last_lr" in each for each in found.advice)


def test_a_gradient_that_vanishes_is_named_when_the_last_layer_has_come_to_rest_too():
    torch.manual_seed(0)
    parts = [part for _ in range(10) for part in (nn.Linear(16, 16), nn.Sigmoid())]
    model = nn.Sequential(nn.Linear(6, 16), *parts, nn.Linear(16, 2))
    labels = (X[:, 0] > 0).long()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    found, _ = train(model, optimizer, 200, cost=lambda: nn.functional.cross_entropy(model(X), labels))
    assert found.cause == "vanishing gradient"
    first, last = re.search(r"norm is (\S+) in the first layer and (\S+) in the last", str(found)).groups()
    assert float(first) < 1e-3 * float(last)


def test_a_first_layer_that_learns_beside_a_cost_that_stands_is_not_said_to_have_no_gradient():
    model = mlp()
    target = torch.randn(24, 3, generator=torch.Generator().manual_seed(3))
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    found, _ = train(model, optimizer, 60, cost=lambda: 1e-2 * mse(model(X), target))
    assert "vanishing gradient" not in [cause.name for cause in found.causes]
