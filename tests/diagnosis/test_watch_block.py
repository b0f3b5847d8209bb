"""Entering and leaving a watch, its end from within the loop, and what it refuses."""

from __future__ import annotations

import math
import signal
import threading

import pytest
import torch
from loops import X, Y, ce, mlp, update
from torch import nn
from torch.nn.modules import module as modules

import cnnlab
from cnnlab.diagnosis.watch import ACTIVE, Stopped


@pytest.fixture(autouse=True)
def pythons_own_handler():
    """Ctrl-C as Python handles it, even where the tests were started by what ignores it; no watch is left behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
    while ACTIVE:
        ACTIVE[-1].__exit__(None, None, None)


def state_of_torch() -> tuple[object, ...]:
    """All that a watch may touch outside the model."""
    return (
        torch.autograd.backward, torch.autograd.grad, torch.export.export, torch.jit.trace,
        modules._has_any_global_hook, signal.getsignal(signal.SIGINT), dict(modules._global_forward_hooks),
        dict(modules._global_forward_pre_hooks), list(ACTIVE),
    )  # fmt: skip


def watched(rate: float = 0.1) -> tuple[nn.Module, torch.optim.Optimizer, cnnlab.diagnosis.watch.Watch]:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), rate)
    return model, optimizer, cnnlab.watch(model, optimizer)


class Refuses(torch.optim.SGD):
    """An optimiser that takes no second hook."""

    def register_step_post_hook(self, hook):
        raise ArithmeticError("no more hooks")


@pytest.mark.parametrize("place", ["optimizer", "backward", "signal", "gauges", "show"])
def test_an_error_half_way_through_entering_leaves_everything_as_it_was(monkeypatch, place):
    model = mlp()
    optimizer = (Refuses if place == "optimizer" else torch.optim.SGD)(model.parameters(), 0.1)
    watch = cnnlab.watch(model, optimizer, show=True)

    def fail(*_args, **_keywords):
        raise ArithmeticError(place)

    broken = {
        "backward": "cnnlab.training.pass_listener.BackwardOverlay.__enter__",
        "signal": "cnnlab.training.overlay.InterruptOverlay.wrap_below",
        "gauges": "cnnlab.training.loop_recorder.LoopRecorder.prepare",
        "show": "cnnlab.diagnosis.watch.Watch.show",
    }
    before = state_of_torch()
    if place in broken:
        monkeypatch.setattr(broken[place], fail)
    with pytest.raises(ArithmeticError):
        watch.__enter__()
    assert state_of_torch() == before
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    update(model, optimizer)
    assert len(watch.record) == 0


def test_watches_that_end_out_of_order_leave_everything_as_it_was():
    before = state_of_torch()
    (_, _, one), (model, optimizer, other) = watched(), watched()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(Stopped):
        update(model, optimizer)
    assert other.stopped == "paused before update 1"
    other.__exit__(None, None, None)
    assert state_of_torch() == before
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_handler_that_the_reader_sets_meanwhile_stays_and_works():
    first = signal.getsignal(signal.SIGINT)
    heard = []
    _, _, watch = watched()
    try:
        with watch:
            ours = signal.getsignal(signal.SIGINT)

            def theirs(*arguments):
                heard.append(arguments)
                ours(*arguments)

            signal.signal(signal.SIGINT, theirs)
            signal.raise_signal(signal.SIGINT)
            assert watch.pausing
        assert signal.getsignal(signal.SIGINT) is theirs
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert len(heard) == 2
    finally:
        signal.signal(signal.SIGINT, first)


def test_a_handler_set_by_other_means_than_python_s_is_left_alone(monkeypatch):
    set_to = []
    _, _, watch = watched()
    monkeypatch.setattr(signal, "getsignal", lambda _number: None)
    monkeypatch.setattr(signal, "signal", lambda *arguments: set_to.append(arguments))
    with watch:
        pass
    assert set_to == []


def test_a_backward_that_is_patched_between_two_watches_is_called_and_stays(monkeypatch):
    model, optimizer, watch = watched()
    with watch:
        update(model, optimizer)
    torchs, calls = torch.autograd.backward, []

    def theirs(*arguments, **keywords):
        calls.append(arguments)
        return torchs(*arguments, **keywords)

    monkeypatch.setattr(torch.autograd, "backward", theirs)
    with watch:
        cost = update(model, optimizer)
    assert len(calls) == 1
    assert torch.autograd.backward is theirs
    assert watch.record.cost[-1] == cost


def test_a_backward_that_is_patched_within_a_watch_stays_and_outlives_it(monkeypatch):
    torchs = torch.autograd.backward
    monkeypatch.setattr(torch.autograd, "backward", torchs)  # which puts it back in the end
    model, optimizer, watch = watched()
    with watch:
        ours = torch.autograd.backward
        torch.autograd.backward = theirs = lambda *arguments, **keywords: ours(*arguments, **keywords)
        cost = update(model, optimizer)
    assert watch.record.cost.tolist() == [cost]
    assert torch.autograd.backward is theirs
    update(model, optimizer)
    assert len(watch.record) == 1


def test_a_watch_in_a_thread_takes_no_interrupt():
    first = signal.getsignal(signal.SIGINT)
    seen = []

    def loop() -> None:
        with watched()[2]:
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join(60)
    assert seen == [first]


def test_a_loop_that_swallows_every_exception_is_ended_all_the_same():
    model, optimizer, watch = watched()
    with watch:
        update(model, optimizer)
        watch.pause()
        for _ in range(100):
            try:
                update(model, optimizer)
            except Exception:
                continue
        pytest.fail("the loop went on")
    assert watch.stopped == "paused before update 2"
    assert len(watch.record) == 1


def test_a_loop_that_swallows_even_the_stop_changes_no_weight_any_more_and_is_warned_once():
    model, optimizer, watch = watched()
    caught = []

    def loop() -> None:
        for _ in range(5):
            try:
                update(model, optimizer)
            except BaseException as error:
                caught.append(type(error))

    with watch:
        update(model, optimizer)
        kept = [each.detach().clone() for each in model.parameters()]
        watch.pause()
        with pytest.warns(RuntimeWarning, match=r"goes on: no step changes the weights any more") as warned:
            loop()
    assert caught == [Stopped] * 5
    assert len(warned) == 1
    assert all(torch.equal(a, b) for a, b in zip(kept, model.parameters(), strict=True))
    assert len(watch.record) == 1
    update(model, optimizer)
    assert not torch.equal(kept[0], next(model.parameters()))


def test_finally_and_a_raise_of_what_was_caught_work_within_the_loop():
    model, optimizer, watch = watched()
    said = []
    with watch:
        watch.pause()
        try:
            try:
                update(model, optimizer)
            except BaseException:
                said.append("caught")
                raise
        finally:
            said.append("finally")
    assert said == ["caught", "finally"]
    assert watch.stopped == "paused before update 1"


def test_a_pause_waits_for_all_steps_of_an_update():
    model = mlp()
    first, second = (torch.optim.SGD(model[place].parameters(), 0.1) for place in (0, 2))
    watch = cnnlab.watch(model, [first, second])
    with watch:
        for _ in range(3):
            model.zero_grad()
            ce(model(X), Y).backward()
            first.step()
            watch.pause()
            second.step()
    assert watch.stopped == "paused before update 2"
    assert (watch.record.update_ratio > 0).tolist() == [[True, True]]


def module_of(network: nn.Module, act=lambda: None):
    """A module for Lightning that trains a network, and does something before each forward pass."""
    import pytorch_lightning as lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network
            self.optimizer = torch.optim.SGD(network.parameters(), 0.1)

        def training_step(self, batch, _index):
            act()
            return ce(self.network(batch[0]), batch[1])

        def configure_optimizers(self):
            return self.optimizer

    return Module()


def fit(module, folder, epochs: int = 50, **options) -> None:
    """Train it as its trainer does."""
    import pytorch_lightning as lightning

    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, **options,
    )  # fmt: skip
    data = torch.utils.data.TensorDataset(X, Y)
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=12))


@pytest.mark.parametrize("how", ["pause", "interrupt"])
def test_a_lightning_trainer_is_ended_between_two_updates(tmp_path, how):
    calls = []

    def act() -> None:
        calls.append(None)
        if len(calls) == 3:
            watch.pause() if how == "pause" else signal.raise_signal(signal.SIGINT)

    module = module_of(mlp(), act)
    watch = cnnlab.watch(module, module.optimizer)
    before = state_of_torch()
    with watch:
        fit(module, tmp_path)
        pytest.fail("the trainer went on")
    assert len(watch.record) < 5
    assert watch.stopped == f"paused before update {len(watch.record) + 1}"
    assert state_of_torch() == before


def test_a_lightning_trainer_is_stopped_before_a_nan(tmp_path):
    module = module_of(mlp())
    with torch.no_grad():
        module.network[2].weight.fill_(1e30)
        module.network[0].weight.mul_(1e20)
    with cnnlab.watch(module, module.optimizer, stop_before_nan=True) as watch:
        fit(module, tmp_path)
        pytest.fail("the trainer went on")
    assert watch.stopped.startswith("stopped because the gradient of update 1 holds NaN or inf in ")


def test_micro_batches_that_lightning_accumulates_are_one_update(tmp_path):
    whole = mlp()
    optimizer = torch.optim.SGD(whole.parameters(), 0.1)
    costs = [update(whole, optimizer) for _ in range(3)]
    module = module_of(mlp())
    with cnnlab.watch(module, module.optimizer) as watch:
        fit(module, tmp_path, epochs=3, accumulate_grad_batches=2)
    assert watch.record.cost.tolist() == pytest.approx(costs, rel=1e-5)


def test_lightning_s_manual_optimisation_with_two_optimisers_is_one_update_for_each_backward(tmp_path):
    import pytorch_lightning as lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.network = mlp()
            self.made = [torch.optim.SGD(self.network[place].parameters(), 0.1) for place in (0, 2)]

        def training_step(self, batch, _index):
            loss = ce(self.network(batch[0]), batch[1])
            self.network.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()

        def configure_optimizers(self):
            return self.made

    module = Module()
    with cnnlab.watch(module, module.made) as watch:
        fit(module, tmp_path, epochs=2)
    assert len(watch.record) == 4
    assert watch.record.is_measured("cost").all()
    assert (watch.record.update_ratio > 0).all()


@pytest.mark.parametrize("value", [0, -1, math.nan, 1.0, True, "2", None])
def test_updates_per_epoch_must_be_a_whole_number(value):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match=rf"^updates_per_epoch must be a whole number of at least 1, got {value!r}$"):
        cnnlab.watch(model, optimizer, updates_per_epoch=value)


def test_updates_per_epoch_gives_the_epochs_of_the_record():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer, updates_per_epoch=2) as watch:
        update(model, optimizer)
    assert watch.record.frames[0].epoch == 0.5


def test_a_scaler_that_is_none_is_refused_in_a_sentence():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(TypeError, match=r"^scaler must be a torch.amp.GradScaler or None, got int$"):
        cnnlab.watch(model, optimizer, scaler=3)


def test_a_lazy_module_is_refused_in_a_sentence_until_it_has_seen_a_batch():
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sentence = r"^model must have its shapes: pass one batch through it first, 0.weight has none yet$"
    with pytest.raises(ValueError, match=sentence):
        cnnlab.watch(model, optimizer)
    model(X)
    with cnnlab.watch(model, optimizer) as watch:
        update(model, optimizer)
    assert len(watch.record) == 1
