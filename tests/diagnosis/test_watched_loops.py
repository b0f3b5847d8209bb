"""A watch around loops of all kinds: the same numbers as by hand, and nothing of the loop changed."""

from __future__ import annotations

import math
import signal
import threading

import numpy as np
import pytest
import torch
from torch import nn

import cnnlab

X = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3
ce = nn.functional.cross_entropy
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": torch.optim.Adam,
    "AdamW, fused": lambda p: torch.optim.AdamW(p, fused=True),
    "RMSprop": torch.optim.RMSprop,
    "Adagrad": torch.optim.Adagrad,
    "NAdam": torch.optim.NAdam,
}


def mlp() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, updates: int, scale: float = 1.0) -> list[float]:
    """A tutorial's loop; its costs."""
    costs = []
    for _ in range(updates):
        optimizer.zero_grad()
        loss = ce(model(X), Y) * scale
        loss.backward()
        optimizer.step()
        costs.append(loss.item())
    return costs


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_watched_loop_trains_the_same_to_the_bit_and_is_recorded(make):
    bare, watched = mlp(), mlp()
    costs = train(bare, make(bare.parameters()), 4)
    optimizer = make(watched.parameters())
    with cnnlab.watch(watched, optimizer) as watch:
        assert train(watched, optimizer, 4) == costs
    assert all(torch.equal(a, b) for a, b in zip(bare.parameters(), watched.parameters(), strict=True))
    assert watch.record.cost.tolist() == costs
    assert watch.record.layers == ("0", "2")
    assert watch.record.own_network


def test_the_gauges_are_those_of_a_run_of_the_same_descent():
    model = mlp()
    run = cnnlab.Run(network=model, data=(X, Y), cost=ce, learning_rate=0.1, device="cpu")
    run.advance(5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        train(model, optimizer, 5)
    ours, theirs = watch.record, run.record
    for gauge in ("cost", "accuracy", "logit_gap", "weight_norm", "largest_weight", "gradient_norm", "update_ratio",
                  "dead_relu", "weight_nan", "activation_inf", "total_gradient_norm"):  # fmt: skip
        np.testing.assert_allclose(getattr(ours, gauge), getattr(theirs, gauge), rtol=2e-4, atol=1e-6)
    assert ours.watched == theirs.watched
    assert ours.knobs_at(1).learning_rate == 0.1
    assert (np.abs(ours.histograms[:] - theirs.histograms[:]).sum(axis=(1, 2)) <= 2).all()


def test_torch_is_left_as_it_was():
    model, before = mlp(), torch.autograd.backward
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = cnnlab.watch(model, optimizer)

    def failing() -> None:
        with watch:
            train(model, optimizer, 1)
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        failing()
    assert torch.autograd.backward is before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    train(model, optimizer, 1)
    assert len(watch.record) == 1


def test_micro_batches_that_are_accumulated_are_one_update():
    whole, parts = mlp(), mlp()
    optimizer = torch.optim.SGD(parts.parameters(), 0.1)
    costs = train(whole, torch.optim.SGD(whole.parameters(), 0.1), 3)
    with cnnlab.watch(parts, optimizer) as watch:
        for _ in range(3):
            optimizer.zero_grad()
            for first in (0, 12):
                (ce(parts(X[first : first + 12]), Y[first : first + 12]) / 2).backward()
            optimizer.step()
    np.testing.assert_allclose(watch.record.cost, costs, rtol=1e-5)


def test_a_closure_is_watched_at_its_first_evaluation():
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)

    def closure():
        optimizer.zero_grad()
        loss = ce(model(X), Y)
        loss.backward()
        return loss

    first = ce(model(X), Y).item()
    with cnnlab.watch(model, optimizer) as watch:
        optimizer.step(closure)
        optimizer.step(closure)
    assert len(watch.record) == 2
    assert watch.record.cost[0] == pytest.approx(first)
    assert watch.record.cost[1] < first
    assert (watch.record.gradient_norm > 0).all()


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_mixed_precision_is_recorded_without_its_scale(precision):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plain = ce(model(X), Y).item()
    with cnnlab.watch(model, optimizer, scaler=scaler) as watch:
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=precision):
                loss = ce(model(X), Y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert watch.record.cost[0] == pytest.approx(plain, rel=0.02)
    assert watch.record.total_gradient_norm.max() < 10
    assert watch.record.scale.tolist() == [1024, 1024, 1024]
    assert watch.record.skipped.tolist() == [0, 0, 0]
    assert watch.record.accuracy[0] == pytest.approx(watch.record.accuracy[0])


def test_a_lightning_trainer_is_a_loop_like_any_other(tmp_path):
    import pytorch_lightning as lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = mlp()
            self.optimizer = torch.optim.SGD(self.network.parameters(), 0.1)

        def training_step(self, batch, _index):
            x, y = batch
            return ce(self.network(x), y)

        def configure_optimizers(self):
            return self.optimizer

    plain = mlp()
    costs = train(plain, torch.optim.SGD(plain.parameters(), 0.1), 4)
    module = Module()
    trainer = lightning.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=len(X))
    with cnnlab.watch(module, module.optimizer) as watch:
        trainer.fit(module, loader)
    np.testing.assert_allclose(watch.record.cost, costs, rtol=1e-6)
    assert watch.record.layers == ("network.0", "network.2")
    assert (watch.record.gradient_norm > 0).all()


def test_an_update_that_the_scaler_skips_is_no_row_and_its_cost_is_not_carried_on():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    with cnnlab.watch(model, optimizer, scaler=scaler) as watch:
        for _ in range(8):
            optimizer.zero_grad()
            scaler.scale(ce(model(X), Y) * 100).backward()
            scaler.step(optimizer)
            scaler.update(2.0 ** (10 if scaler.get_scale() < 1e30 else 90))
            if len(watch.record) == 2:
                break
    assert watch.skipped >= 1
    assert (watch.record.cost < 200).all()
    assert watch.record.scale.tolist() == [2.0**90, 2.0**10]


def test_a_loop_without_a_scaler_or_with_one_that_is_off_has_no_scale():
    for scaler in (None, torch.amp.GradScaler("cpu", enabled=False)):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with cnnlab.watch(model, optimizer, scaler=scaler) as watch:
            train(model, optimizer, 2)
        assert np.isnan(watch.record.scale).all()
        assert np.isnan(watch.record.skipped).all()


def test_the_loop_ends_before_a_gradient_that_is_not_finite_gets_into_the_weights():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer, stop_before_nan=True) as watch:
        train(model, optimizer, 2)
        kept = [parameter.detach().clone() for parameter in model.parameters()]
        train(model, optimizer, 1, scale=math.nan)
        pytest.fail("the loop went on")
    assert all(torch.equal(a, b) for a, b in zip(kept, model.parameters(), strict=True))
    assert not any(state["exp_avg"].isnan().any() for state in optimizer.state.values())
    assert watch.stopped.startswith("stopped because the gradient of update 3 holds NaN or inf in 0.weight and 3 more")
    assert len(watch.record) == 2


def test_an_update_that_overflows_by_itself_is_taken_back():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e38)
    with cnnlab.watch(model, optimizer, stop_before_nan=True) as watch:
        train(model, optimizer, 50, scale=1e4)
    assert watch.stopped.startswith("stopped because update 1 holds NaN or inf in ")
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_without_being_asked_to_a_watch_stops_nothing():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e38)
    with cnnlab.watch(model, optimizer) as watch:
        train(model, optimizer, 4, scale=1e4)
    assert len(watch.record) == 4
    assert watch.stopped is None
    assert watch.record.weight_nan[-1].sum() > 0
    assert watch.record.first_nonfinite == 2


def test_pause_ends_the_block_before_the_next_update_and_it_can_be_entered_again():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = cnnlab.watch(model, optimizer)
    with watch:
        train(model, optimizer, 2)
        threading.Thread(target=watch.pause).start()
        train(model, optimizer, 100000)
    assert watch.stopped == f"paused before update {len(watch.record) + 1}"
    done = len(watch.record)
    with watch:
        train(model, optimizer, 2)
    assert len(watch.record) == done + 2


def test_one_interrupt_pauses_between_two_updates_and_a_second_one_ends_at_once():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = signal.getsignal(signal.SIGINT)
    with cnnlab.watch(model, optimizer) as watch:
        train(model, optimizer, 2)
        signal.raise_signal(signal.SIGINT)
        train(model, optimizer, 1)
        pytest.fail("the loop went on")
    assert watch.stopped == "paused before update 3"
    assert signal.getsignal(signal.SIGINT) is before

    def impatient() -> None:
        with watch:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        impatient()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loop_in_a_thread_has_a_button_that_pauses_it():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = cnnlab.watch(model, optimizer)
    lab = watch.show()
    displayed = []

    def loop() -> None:
        with watch:
            train(model, optimizer, 1)
            lab.draw()
            displayed.append(lab.button.layout.display)
            lab.button.click()
            train(model, optimizer, 100_000)

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join(60)
    assert displayed == [None]
    assert watch.stopped == "paused before update 2"
    assert lab.button.layout.display == "none"
    lab.close()


def test_an_optimiser_of_half_the_parameters_shows_the_other_half_standing_still():
    model = mlp()
    optimizer = torch.optim.SGD(model[2].parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        train(model, optimizer, 2)
    assert (watch.record.update_ratio[:, 0] == 0).all()
    assert (watch.record.update_ratio[:, 1] > 0).all()


def test_a_changing_learning_rate_is_in_the_schedule_even_a_zero_one():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 2)
    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(3):
            train(model, optimizer, 1)
            warm.step()
    rates = [watch.record.knobs_at(step).learning_rate for step in (1, 2, 3)]
    assert rates == pytest.approx([0, 0.25, 0.5])


def test_a_look_at_other_data_without_gradients_is_not_counted():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        train(model, optimizer, 1)
        with torch.no_grad():
            model(X * math.nan)
        train(model, optimizer, 1)
    assert (watch.record.activation_nan == 0).all()


def test_the_cost_of_a_loop_without_backward_can_be_told():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(2):
            loss = ce(model(X), Y)
            for parameter, gradient in zip(
                model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
            ):
                parameter.grad = gradient
            optimizer.step()
            watch.step(loss)
            told = loss.item()
    assert watch.record.cost[-1] == pytest.approx(told)


def test_a_record_of_a_watch_can_be_saved_and_loaded(tmp_path):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        train(model, optimizer, 3)
    watch.record.save(tmp_path / "watched.cnnlab")
    np.testing.assert_array_equal(cnnlab.load(tmp_path / "watched.cnnlab").table, watch.record.table)
    with pytest.raises(ValueError, match=r"the question's network only, got a record of a network of your own$"):
        cnnlab.export_script(watch.record, tmp_path / "run.py")


def test_what_is_no_model_or_optimiser_is_refused():
    with pytest.raises(TypeError, match=r"^model must be a torch.nn.Module, got int$"):
        cnnlab.watch(3, None)
    with pytest.raises(TypeError, match=r"^optimizer must be a torch.optim.Optimizer, or several, got float$"):
        cnnlab.watch(mlp(), 0.1)
    frozen = mlp().requires_grad_(False)
    with pytest.raises(ValueError, match=r"^network must have parameters that require a gradient"):
        cnnlab.watch(frozen, torch.optim.SGD(frozen.parameters(), 0.1))


def test_a_model_is_watched_once_at_a_time():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer), pytest.raises(ValueError, match=r"^the model is watched already"):
        cnnlab.watch(model, optimizer).__enter__()


def test_the_dashboard_draws_what_was_watched():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer, show=True) as watch:
        train(model, optimizer, 5)
    costs = next(trace for trace in watch.lab.figure._data if trace["name"] == "cost")
    np.testing.assert_allclose(costs["y"], watch.record.cost)
    assert "loop ended" in watch.lab.line.value
    watch.lab.close()
    assert "closed" in repr(watch.lab)
