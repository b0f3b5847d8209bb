"""What a watch takes for one update, and which cost it gives to it."""

from __future__ import annotations

import math
import threading
import warnings
import weakref

import numpy as np
import pytest
import torch
from loops import X, Y, ce, mlp, one_for_each, update
from torch import nn
from torch.utils.checkpoint import checkpoint

import cnnlab
from cnnlab.records.frame import GAUGES, LAYER_GAUGES


def same(ours, theirs, but=()) -> None:
    """All gauges of two records are the same, but for rounding, and for some gauges."""
    for gauge in (name for name in (*GAUGES, *LAYER_GAUGES) if name not in but):
        np.testing.assert_allclose(getattr(ours, gauge), getattr(theirs, gauge), rtol=1e-5, atol=1e-7, err_msg=gauge)
        np.testing.assert_array_equal(ours.is_measured(gauge), theirs.is_measured(gauge), err_msg=gauge)


def watched_by_one(updates: int) -> cnnlab.records.record.Record:
    """What one optimiser of all parameters gives."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(updates):
            update(model, optimizer)
    return watch.record


def test_two_optimisers_that_step_after_one_backward_are_one_update():
    model = mlp()
    optimizers = one_for_each(model)
    with cnnlab.watch(model, optimizers) as watch:
        for _ in range(3):
            model.zero_grad()
            ce(model(X), Y).backward()
            for optimizer in optimizers:
                optimizer.step()
    same(watch.record, watched_by_one(3))
    assert watch.record.is_measured("cost").all()
    assert watch.record.first_nonfinite is None


def test_a_record_read_between_two_steps_of_an_update_stays_as_it_was_and_the_row_is_measured_again():
    model = mlp()
    optimizers = one_for_each(model)
    halves = []
    with cnnlab.watch(model, optimizers) as watch:
        for _ in range(2):
            model.zero_grad()
            ce(model(X), Y).backward()
            for optimizer in optimizers:
                optimizer.step()
                halves.append(watch.record)
    assert [len(half) for half in halves] == [1, 1, 2, 2]
    assert halves[0].update_ratio[0, 1] == 0
    assert halves[2].update_ratio[1, 1] == 0
    same(watch.record, watched_by_one(2))


def test_more_updates_than_wait_on_the_device_are_each_one_row(monkeypatch):
    monkeypatch.setattr("cnnlab.training.loop_recorder.FLUSH_EVERY", 2)
    model = mlp()
    optimizers = one_for_each(model)
    with cnnlab.watch(model, optimizers) as watch:
        for _ in range(7):
            model.zero_grad()
            ce(model(X), Y).backward()
            for optimizer in optimizers:
                optimizer.step()
    same(watch.record, watched_by_one(7))


def test_the_gradient_of_each_optimiser_is_the_one_that_it_was_given():
    model = mlp()
    first, second = one_for_each(model)
    with cnnlab.watch(model, [first, second]) as watch:
        ce(model(X), Y).backward()
        first.step()
        first.zero_grad()
        norm = nn.utils.clip_grad_norm_(model[2].parameters(), 1e-3)
        second.step()
    assert norm > 1e-3
    assert watch.record.gradient_norm[0, 0] > 1e-3
    assert watch.record.gradient_norm[0, 1] == pytest.approx(1e-3, rel=1e-4)


def test_two_optimisers_with_a_backward_each_are_two_updates():
    model = mlp()
    optimizers = one_for_each(model)
    costs = []
    with cnnlab.watch(model, optimizers) as watch:
        for optimizer in optimizers * 2:
            costs.append(update(model, optimizer))
    assert watch.record.cost.tolist() == costs
    assert (watch.record.update_ratio > 0).tolist() == [[True, False], [False, True]] * 2


def test_the_learning_rate_noted_is_that_of_the_optimiser_that_stepped_first():
    model = mlp()
    first, second = one_for_each(model)
    second.param_groups[0]["lr"] = 7.0
    with cnnlab.watch(model, [second, first]) as watch:
        for _ in range(2):
            ce(model(X), Y).backward()
            first.step()
            second.step()
    assert [watch.record.knobs_at(step).learning_rate for step in (1, 2)] == [0.1, 0.1]


def test_two_steps_after_one_backward_are_one_update_from_before_the_first_to_after_the_second():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = [each.detach().clone() for each in model[0].parameters()]
    with cnnlab.watch(model, optimizer) as watch:
        cost = update(model, optimizer)
        optimizer.step()
    moved = torch.cat([(a - b).reshape(-1) for a, b in zip(before, model[0].parameters(), strict=True)]).norm()
    met = torch.cat([each.reshape(-1) for each in before]).norm()
    assert watch.record.cost.tolist() == [cost]
    assert watch.record.update_ratio[0, 0] == pytest.approx((moved / met).item(), rel=1e-5)


def test_what_was_kept_of_the_last_update_is_out_of_memory_when_the_next_backward_pass_begins():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    vectors, kept = [], []
    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(2):
            optimizer.zero_grad()
            loss = ce(model(X), Y)
            loss.register_hook(lambda _gradient: kept.append([each() for each in vectors]))
            loss.backward()
            optimizer.step()
            vectors.extend([weakref.ref(watch.update.before), weakref.ref(watch.update.gradient)])
            assert None not in [each() for each in vectors[-2:]]
    assert kept == [[], [None, None]]


def test_a_second_step_with_gradients_that_hold_a_graph_keeps_none():
    model = mlp()
    optimizers = one_for_each(model)
    with cnnlab.watch(model, optimizers) as watch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of backward with create_graph
        ce(model(X), Y).backward(create_graph=True)
        for optimizer in optimizers:
            optimizer.step()
        assert not watch.update.gradient.requires_grad
    assert len(watch.record) == 1


def test_a_vector_sent_backward_leaves_the_cost_not_measured_and_the_rest_as_it_is():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(3):
            optimizer.zero_grad()
            ce(model(X), Y, reduction="none").backward(torch.full((24,), 1 / 24))
            optimizer.step()
    record, other = watch.record, watched_by_one(3)
    assert not record.is_measured("cost").any()
    np.testing.assert_allclose(record.gradient_norm, other.gradient_norm, rtol=1e-5)
    np.testing.assert_allclose(record.accuracy, other.accuracy)


def test_a_cost_that_was_not_seen_can_be_told_at_each_update():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    told = []
    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(3):
            optimizer.zero_grad()
            losses = ce(model(X), Y, reduction="none")
            losses.backward(torch.full((24,), 1 / 24))
            optimizer.step()
            watch.step(losses.mean())
            told.append(losses.mean().item())
        watch.record  # noqa: B018  what is told later finds its row even then
        watch.step(told[-1])
    assert watch.record.cost.tolist() == pytest.approx(told)
    assert watch.record.is_measured("penalty").all()


def test_a_cost_with_a_weight_and_a_list_of_costs_count_as_what_is_descended():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    cost = ce(model(X), Y).item()
    with cnnlab.watch(model, optimizer) as watch:
        ce(model(X), Y).backward(torch.tensor(0.5))
        optimizer.step()
        torch.autograd.backward([ce(model(X), Y), ce(model(X), Y)], [torch.tensor(1.0), torch.tensor(2.0)])
        optimizer.step()
        torch.autograd.backward([ce(model(X), Y), ce(model(X), Y)])
        optimizer.step()
    assert watch.record.cost.tolist() == pytest.approx([cost / 2, 3 * cost, 2 * cost])


def test_the_cost_of_a_loop_with_autograd_s_grad_is_what_was_sent_to_the_parameters():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    costs = []
    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(3):
            loss = ce(model(X), Y)
            found = torch.autograd.grad(loss, model.parameters())  # an iterator, which can be looked at once
            for parameter, gradient in zip(model.parameters(), found, strict=True):
                parameter.grad = gradient
            optimizer.step()
            costs.append(loss.item())
    assert watch.record.cost.tolist() == costs
    same(watch.record, watched_by_one(3))


def test_a_look_at_the_curvature_beside_the_descent_is_no_cost():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    costs = []
    parameters = list(model.parameters())
    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(2):
            optimizer.zero_grad()
            loss = ce(model(X), Y)
            found = torch.autograd.grad(loss, parameters, create_graph=True)
            torch.autograd.grad(sum(part.square().sum() for part in found), parameters, retain_graph=True)
            loss.backward()
            optimizer.step()
            costs.append(loss.item())
    assert watch.record.cost.tolist() == costs


def test_without_any_backward_an_update_begins_where_a_gradient_was_made_anew():
    model = mlp()
    optimizers = one_for_each(model)
    with cnnlab.watch(model, optimizers) as watch:
        for number in range(4):
            model.zero_grad(set_to_none=number % 2 == 0)
            with torch.no_grad():
                for parameter in model.parameters():
                    new = torch.randn_like(parameter)
                    parameter.grad = new if parameter.grad is None else parameter.grad.copy_(new)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    record = watch.record
    assert len(record) == 4
    assert (record.update_ratio > 0).all()
    assert not record.is_measured("cost").any()


def test_a_cost_whose_gradient_was_set_to_zero_again_does_not_count():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        for to_none in (True, False):
            (ce(model(X), Y) * 1e3).backward()
            optimizer.zero_grad(set_to_none=to_none)
            cost = ce(model(X), Y)
            cost.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=to_none)
            assert watch.record.cost[-1] == cost.item()


def test_a_backward_that_fails_is_no_cost():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    failing = X.clone().requires_grad_()
    failing.register_hook(lambda _gradient: 1 / 0)
    with cnnlab.watch(model, optimizer) as watch:
        with pytest.raises(ZeroDivisionError):
            ce(model(failing), Y).backward()
        cost = ce(model(X), Y)
        cost.backward()
        optimizer.step()
    assert watch.record.cost.tolist() == [cost.item()]


def test_two_watches_at_once_hear_each_its_own_costs():
    models = [mlp(), mlp()]
    optimizers = [torch.optim.SGD(model.parameters(), 0.1) for model in models]
    costs = ([], [])
    with cnnlab.watch(models[0], optimizers[0]) as one, cnnlab.watch(models[1], optimizers[1]) as other:
        for _ in range(3):
            for place in (0, 1):
                costs[place].append(update(models[place], optimizers[place], scale=1 + place))
    assert one.record.cost.tolist() == costs[0]
    assert other.record.cost.tolist() == costs[1]


def test_watches_in_two_threads_hear_each_its_own_costs():
    found = {}

    def train(place: int) -> None:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with cnnlab.watch(model, optimizer) as watch:
            costs = [update(model, optimizer, scale=1 + place) for _ in range(40)]
        found[place] = watch.record.cost.tolist() == costs

    before = torch.autograd.backward, torch.autograd.grad
    threads = [threading.Thread(target=train, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {0: True, 1: True}
    assert (torch.autograd.backward, torch.autograd.grad) == before


def test_a_backward_in_another_thread_is_heard():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        loss = ce(model(X), Y)
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join(60)
        optimizer.step()
    assert watch.record.cost.tolist() == [loss.item()]


@pytest.mark.parametrize("reentrant", [True, False])
def test_the_cost_of_a_model_within_a_checkpoint_is_heard_once(reentrant):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    inputs = X.clone().requires_grad_()
    costs = []
    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(2):
            optimizer.zero_grad()
            loss = ce(checkpoint(model, inputs, use_reentrant=reentrant), Y)
            loss.backward()
            optimizer.step()
            costs.append(loss.item())
    assert watch.record.cost.tolist() == costs


def test_an_optimiser_of_each_parameter_that_steps_within_the_backward_pass_is_one_update():
    model = mlp()
    optimizers = {each: torch.optim.SGD([each], 0.1) for each in model.parameters()}

    def act(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    with cnnlab.watch(model, list(optimizers.values())) as watch:
        handles = [each.register_post_accumulate_grad_hook(act) for each in optimizers]
        for _ in range(2):
            ce(model(X), Y).backward()
        for handle in handles:
            handle.remove()
    np.testing.assert_allclose(watch.record.cost, watched_by_one(2).cost, rtol=1e-5)


def test_mixed_precision_with_two_optimisers_is_one_update_without_its_scale():
    model = mlp()
    optimizers = one_for_each(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with cnnlab.watch(model, optimizers, scaler=scaler) as watch:
        for _ in range(3):
            model.zero_grad()
            scaler.scale(ce(model(X), Y)).backward()
            for optimizer in optimizers:
                scaler.step(optimizer)
            scaler.update()
    same(watch.record, watched_by_one(3), but=("scale", "skipped"))
    assert watch.record.scale.tolist() == [1024, 1024, 1024]


def test_a_closure_s_cost_is_what_it_returns_where_no_backward_is_seen():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def closure():
        losses = ce(model(X), Y, reduction="none")
        losses.backward(torch.full((24,), 1 / 24))
        return losses.mean()

    expected = ce(model(X), Y).item()
    with cnnlab.watch(model, optimizer) as watch:
        optimizer.step(closure)
    assert watch.record.cost.tolist() == pytest.approx([expected])


def test_a_cost_of_nan_is_nan_and_not_one_that_was_not_measured():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        update(model, optimizer, scale=math.nan)
    assert watch.record.is_measured("cost").tolist() == [True]
    assert watch.record.first_nonfinite == 1


@pytest.mark.parametrize(("told", "error"), [
    ("much", r"^loss must be a number or a tensor of one, got 'much'$"),
    (None, r"^loss must be a number or a tensor of one, got None$"),
    (torch.ones(3), r"^loss must be one number, got a tensor of shape \(3,\)$"),
])  # fmt: skip
def test_a_cost_that_is_no_number_is_refused_in_a_sentence(told, error):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        update(model, optimizer)
        with pytest.raises((TypeError, ValueError), match=error):
            watch.step(told)


@pytest.mark.parametrize("send", [torch.autograd.backward, lambda costs: costs[0].backward()])
def test_a_pass_is_heard_once_while_others_listen_to_functions_of_torch(send):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch, torch.device("cpu"):
        cost = ce(model(X), Y)
        send([cost])
        optimizer.step()
    assert watch.record.cost.tolist() == [pytest.approx(float(cost.detach()))]
