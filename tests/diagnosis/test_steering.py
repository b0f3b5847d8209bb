"""Learning rate, momentum and weight decay of a watched loop, set by hand while it goes on."""

from __future__ import annotations

import threading

import pytest
import torch
from loops import mlp, one_for_each, update

import cnnlab
from cnnlab.dashboards.watch_dashboard import BLOCKED, WatchLab
from cnnlab.training import loop_recorder
from cnnlab.training.metrics import bring_to_host


def schedule(watch, name="learning_rate"):
    """(first update, a knob in force from it on)."""
    return [(first, getattr(knobs, name)) for first, knobs in watch.record.schedule]


def groups_of(model, kind=torch.optim.SGD, **options):
    """An optimiser of two groups, the second with a tenth of the rate."""
    parts = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.01}]
    return kind(parts, lr=0.1, **options)


def test_a_rate_is_in_force_at_the_next_update_and_stands_in_the_record():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        update(model, optimizer)
        watch.set(learning_rate=0.02)
        assert optimizer.param_groups[0]["lr"] == 0.1
        before = model[0].weight.detach().clone()
        update(model, optimizer)
        taken = before - model[0].weight.detach()
    assert schedule(watch) == [(1, 0.1), (2, 0.02)]
    assert optimizer.param_groups[0]["lr"] == 0.02
    torch.testing.assert_close(taken, 0.02 * model[0].weight.grad)


def test_a_steered_loop_takes_the_very_steps_of_a_loop_that_sets_its_own_rate():
    weights = []
    for steered in (True, False):
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters(), 0.1)
        with cnnlab.watch(model, optimizer) as watch:
            update(model, optimizer)
            if steered:
                watch.set(learning_rate=0.01, momentum=0.5, l2=0.1)
            else:
                optimizer.param_groups[0].update(lr=0.01, betas=(0.5, 0.999), weight_decay=0.1)
            update(model, optimizer)
        assert [schedule(watch, name)[-1] for name in ("learning_rate", "momentum", "l2")] == [
            (2, 0.01), (2, 0.5), (2, 0.1)]  # fmt: skip
        weights.append(watch.recorder.flat())
    assert torch.equal(*weights)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_each_group_keeps_its_ratio_to_the_first_one(kind):
    model = mlp()
    optimizer = groups_of(model, kind)
    with cnnlab.watch(model, optimizer) as watch:
        for rate in (0.2, 0.5):
            watch.set(learning_rate=rate)
            update(model, optimizer)
            assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate, rate / 10])
        optimizer.load_state_dict(optimizer.state_dict())  # which makes the groups anew
        update(model, optimizer)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.05])


def test_two_optimisers_keep_their_ratio_too():
    model = mlp()
    first, second = one_for_each(model)
    second.param_groups[0]["lr"] = 0.3
    with cnnlab.watch(model, [first, second]) as watch:
        watch.set(learning_rate=0.2)
        update(model, first)
        assert second.param_groups[0]["lr"] == pytest.approx(0.6)
        assert first.param_groups[0]["lr"] == 0.2


def test_biases_without_weight_decay_stay_without_even_after_it_was_zero():
    model = mlp()
    groups = [{"params": model[0].parameters(), "weight_decay": 0.0}, {"params": model[2].parameters()}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.1)
    with cnnlab.watch(model, optimizer) as watch:
        for decay in (0.2, 0.0, 0.3):
            watch.set(l2=decay)
            update(model, optimizer)
            assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, decay]
    assert schedule(watch, "l2") == [(1, 0.2), (2, 0.0), (3, 0.3)]


def test_the_rate_that_is_tensors_keeps_its_tensors():
    model = mlp()
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    with cnnlab.watch(model, optimizer) as watch:
        watch.set(learning_rate=0.5)
        update(model, optimizer)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == 0.5


@pytest.mark.parametrize(
    "make",
    [lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 0.9**step),
     lambda opt: torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)],
    ids=["absolute", "multiplying"],
)  # fmt: skip
def test_a_rate_holds_over_a_scheduler_until_it_is_let_go(make):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = make(optimizer)
    with cnnlab.watch(model, optimizer) as watch:
        for number in range(1, 7):
            if number == 3:
                watch.set(learning_rate=0.5)
            elif number == 5:
                watch.set(learning_rate=None)
            update(model, optimizer)
            scheduler.step()
    rates = dict(schedule(watch))
    assert [rates[1], rates[2], rates[3]] == pytest.approx([0.1, 0.09, 0.5])
    assert 4 not in rates  # it holds
    assert rates[6] == pytest.approx(0.9 * rates[5])  # the scheduler goes on
    if isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
        assert rates[5] == pytest.approx(0.1 * 0.9**4)
    else:
        assert rates[5] == pytest.approx(0.45)


def test_a_warm_up_that_begins_with_zero_keeps_the_ratio_of_its_groups():
    model = mlp()
    optimizer = groups_of(model)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert [group["lr"] for group in optimizer.param_groups] == [0, 0]
    with cnnlab.watch(model, optimizer) as watch:
        watch.set(learning_rate=0.5)
        update(model, optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.05])


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.RMSprop, torch.optim.NAdam])
def test_momentum_can_be_given_to_an_optimiser_that_began_without(kind):
    model = mlp()
    optimizer = kind(model.parameters(), 0.01)
    with cnnlab.watch(model, optimizer) as watch:
        update(model, optimizer)
        watch.set(momentum=0.8)
        update(model, optimizer)
        update(model, optimizer)
    assert schedule(watch, "momentum")[-1] == (2, 0.8)
    assert torch.isfinite(watch.recorder.flat()).all()


def test_a_closure_s_optimiser_is_steered():
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), 0.1, max_iter=2)
    with cnnlab.watch(model, optimizer) as watch:
        watch.set(learning_rate=0.7)
        optimizer.step(
            lambda: (optimizer.zero_grad(), loss := model(torch.ones(2, 6)).square().sum(), loss.backward())[1]
        )
    assert schedule(watch) == [(1, 0.7)]


REFUSED = [
    ({"learning_rate": -0.1}, ValueError, r"^learning_rate must lie in \(0, 1e6\], got -0.1$"),
    ({"learning_rate": float("nan")}, ValueError, r"^learning_rate must lie in \(0, 1e6\], got nan$"),
    ({"learning_rate": "fast"}, TypeError, r"^learning_rate must be a number in \(0, 1e6\], got 'fast'$"),
    ({"momentum": 1.5}, ValueError, r"^momentum must lie in \[0, 1\], got 1.5$"),
    ({"momentum": 1}, ValueError, r"^momentum must lie in \[0, 1\) where it is the first of betas, got 1$"),
    ({"l2": -1}, ValueError, r"^l2 must lie in \[0, 1e6\], got -1$"),
    ({"weight_decay": 0.1}, TypeError,
     r"^a watch sets learning_rate, momentum, l2, got 'weight_decay'; did you mean 'l2'\?$"),
    ({"clip": "norm"}, TypeError, r"^a watch sets learning_rate, momentum, l2, got 'clip'$"),
    ({"learning_rat": 1}, TypeError, r"did you mean 'learning_rate'\?$"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "kind", "said"), REFUSED, ids=[str(each[0]) for each in REFUSED])
def test_what_does_not_fit_is_refused_in_a_sentence_and_nothing_is_changed(bad, kind, said):
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        with pytest.raises(kind, match=said):
            watch.set(**{"l2": 0.5, **bad})
        update(model, optimizer)
    assert optimizer.param_groups[0]["weight_decay"] == 0
    assert schedule(watch) == [(1, 0.1)]


def test_a_knob_that_the_optimiser_lacks_is_refused_with_those_that_it_has():
    watch = cnnlab.watch(model := mlp(), torch.optim.LBFGS(model.parameters()))
    with pytest.raises(ValueError, match=r"^momentum must be one of learning_rate, which LBFGS has, got 0.5$"):
        watch.set(momentum=0.5)


def test_another_thread_may_steer():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        update(model, optimizer)
        other = threading.Thread(target=lambda: watch.set(learning_rate=0.03))
        other.start()
        other.join()
        update(model, optimizer)
    assert schedule(watch) == [(1, 0.1), (2, 0.03)]


def test_a_record_that_is_taken_in_two_threads_at_once_has_each_update_once(monkeypatch):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        costs = [update(model, optimizer) for _ in range(5)]
    others = []

    def bring(parts):
        """While one thread has rows in its hands, another asks for the record."""
        if not others:
            others.append(threading.Thread(target=lambda: watch.record))
            others[0].start()
            others[0].join(0.3)
        return bring_to_host(parts)

    monkeypatch.setattr(loop_recorder, "bring_to_host", bring)
    assert watch.record.cost == pytest.approx(costs, rel=1e-6)
    others[0].join()
    assert watch.record.cost == pytest.approx(costs, rel=1e-6)


def test_a_dashboard_shown_from_elsewhere_knows_that_the_loop_runs_in_a_thread():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch, shown, done = cnnlab.watch(model, optimizer), threading.Event(), threading.Event()

    def train():
        with watch:
            update(model, optimizer)
            shown.set()
            done.wait(30)

    other = threading.Thread(target=train)
    other.start()
    shown.wait(30)
    lab = watch.show()
    said, button = lab.controls.state["note"], lab.button.layout.display
    done.set()
    other.join()
    lab.close()
    assert said == ""
    assert button is None


def test_a_loop_that_nobody_steers_keeps_what_it_sets_itself():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        for rate in (0.3, 0.2):
            optimizer.param_groups[0]["lr"] = rate
            update(model, optimizer)
    assert schedule(watch) == [(1, 0.3), (2, 0.2)]


def test_the_sliders_are_those_that_the_optimiser_has():
    for kind, names in ((torch.optim.SGD, ["learning_rate", "momentum"]), (torch.optim.LBFGS, ["learning_rate"])):
        lab = WatchLab(cnnlab.watch(model := mlp(), kind(model.parameters(), 0.1)))
        assert [names for _, names in lab.controls.groups] == [names]
        lab.close()


def test_a_slider_acts_says_what_it_refuses_and_lets_go():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer, show=True) as watch:
        lab = watch.lab
        assert lab.controls.state["note"] == BLOCKED  # the test's own thread trains
        lab.obey({"set": {"learning_rate": "0"}, "hand": [0.5, 1]})
        assert lab.controls.state["problem"] == "learning_rate must lie in (0, 1e6], got 0"
        lab.obey({"set": {"learning_rate": "2e-2"}, "hand": [0.5, 2]})
        assert lab.controls.state["problem"] == ""
        assert lab.controls.state["heard"] == [0.5, 2]
        assert lab.controls.state["values"]["learning_rate"] == 0.02
        update(model, optimizer)
        lab.let_go()
        optimizer.param_groups[0]["lr"] = 0.7
        update(model, optimizer)
        lab.draw()
        assert lab.controls.state["values"]["learning_rate"] == 0.7
    assert schedule(watch) == [(1, 0.02), (2, 0.7)]
    assert lab.controls.state["note"] == ""
    lab.close()
