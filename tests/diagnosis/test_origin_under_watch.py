"""Where the first NaN of a loop of one's own was made, with no line but the watch's own: operation, layer and line."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable

import pytest
import torch
from loops import SlopeByHand
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import cnnlab

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


def network(**more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential()
    for name, layer in {"embed": nn.Linear(4, 4), "act": nn.Tanh(), **more, "head": nn.Linear(4, 2)}.items():
        model.add_module(name, layer)
    return model


def root_of_nothing(out: Tensor) -> Tensor:
    return (out - out.detach()).sum().sqrt() + out.square().mean()


def line_of(function: object) -> str:
    """Where the first line of a function's body is."""
    _, first = inspect.getsourcelines(function)
    return f"test_origin_under_watch.py:{first + 1}"


def watched(model: nn.Module, loop: object, optimizer: torch.optim.Optimizer | None = None, **more: object):
    """The first event of a loop under a watch."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01) if optimizer is None else optimizer
    with cnnlab.watch(model, optimizer, show=False, **more) as watch:
        loop(model, optimizer)
    origin = watch.record.clues.origin
    return None if origin is None else origin.first


def plain(cost, x=X, updates=3):
    def loop(model, optimizer):
        for step in range(updates):
            optimizer.zero_grad()
            cost(model(x), step).backward()
            optimizer.step()

    return loop


def log_of_less(out, step):
    return out.square().mean() + (torch.log(out[0, 0].detach() * 0 - 1) * out.sum() if step == 2 else 0)


def test_a_cost_of_nan_is_named_by_update_operation_argument_and_line():
    event = watched(network(), plain(log_of_less))
    assert (event.step, event.phase, event.operation) == (3, "cost", "log of a negative number")
    assert event.argument == "log of -1, which is defined above 0"
    assert event.source.startswith(line_of(log_of_less))
    assert "torch.log(" in event.source


def test_a_gradient_of_nan_behind_a_finite_cost_is_named_too():
    event = watched(network(), plain(lambda out, step: root_of_nothing(out) if step == 1 else out.square().mean()))
    assert (event.step, event.phase, event.operation, event.function) == (2, "gradient", "x/0", "sqrt")
    assert event.source.startswith(line_of(root_of_nothing))


class Dividing(nn.Module):
    """Divides by what is 0 where all that comes in is."""

    def forward(self, h: Tensor) -> Tensor:
        return h / h.abs().sum(1, keepdim=True)


def test_an_operation_within_the_model_is_named_with_its_layer():
    model = network(norm=Dividing())
    nn.init.zeros_(model.embed.bias)
    event = watched(model, plain(lambda out, step: out.square().mean(), torch.zeros(2, 4)))
    assert (event.phase, event.layer, event.operation) == ("activation", "norm", "0/0")
    assert event.source.startswith(line_of(Dividing.forward))


def test_dropout_is_drawn_again_as_it_was():
    model = network(drop=nn.Dropout(0.5))

    def cost(out, step):
        return (out - 0).square().mean() if step < 2 else ((out * 0).sum() + out.sum() - out.sum().item()).sqrt()

    torch.manual_seed(5)
    event = watched(model, plain(cost))
    assert (event.step, event.function, event.operation) == (3, "sqrt", "x/0")


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad])
def test_the_weights_of_the_update_are_used_whatever_the_optimiser(optimizer):
    model = network()
    given = optimizer(model.parameters(), 0.1)
    event = watched(model, plain(lambda out, step: root_of_nothing(out) if step == 2 else out.square().mean()), given)
    assert (event.step, event.function) == (3, "sqrt")


def scaled_loop(is_bad):
    """A loop with mixed precision and a scaler."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def loop(model, optimizer):
        for step in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(X).float().square().mean() * (torch.tensor(-1.0).log() if is_bad(step) else 1)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    return scaler, loop


def test_mixed_precision_with_a_scaler_is_made_again_as_it_was():
    scaler, loop = scaled_loop(lambda step: step >= 1)
    event = watched(network(), loop, scaler=scaler)
    assert (event.step, event.operation) == (2, "log of a negative number")


def test_an_update_that_a_scaler_leaves_out_is_no_origin_if_the_training_goes_on():
    scaler, loop = scaled_loop(lambda step: step == 1)
    assert watched(network(), loop, scaler=scaler) is None


def test_the_micro_batch_at_fault_is_found_among_those_that_are_accumulated():
    def loop(model, optimizer):
        for part in range(4):
            out = model(X[2 * part : 2 * part + 2])
            (root_of_nothing(out) if part == 1 else out.square().mean()).backward()
        optimizer.step()

    event = watched(network(), loop)
    assert (event.step, event.function) == (1, "sqrt")


def test_a_closure_is_looked_into():
    def loop(model, optimizer):
        def closure():
            optimizer.zero_grad()
            loss = root_of_nothing(model(X))
            loss.backward()
            return loss

        optimizer.step(closure)

    model = network()
    event = watched(model, loop, torch.optim.LBFGS(model.parameters(), max_iter=2))
    assert (event.function, event.source.startswith(line_of(root_of_nothing))) == ("sqrt", True)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_within_the_model_is_looked_into(reentrant):
    class Saving(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(4, 4)

        def inner(self, h):
            return (h * 0).sqrt() * self.embed(h)

        def forward(self, x):
            return checkpoint(self.inner, x.requires_grad_(), use_reentrant=reentrant)

    event = watched(Saving(), plain(lambda out, step: out.square().mean() + (out * 0 - 1).sum().log(), X.clone()))
    assert event.operation == "log of a negative number"


def test_two_networks_against_each_other():
    torch.manual_seed(0)
    maker, critic = nn.Linear(2, 4), network()

    def loop(model, optimizer):
        for step in range(3):
            optimizer.zero_grad()
            made = maker(torch.ones(8, 2))
            loss = F.softplus(-model(X)).mean() + F.softplus(model(made.detach())).mean()
            (loss if step < 2 else loss + torch.acos(model(made) * 0 + 2).mean()).backward()
            optimizer.step()

    event = watched(critic, loop)
    assert (event.step, event.function, event.argument) == (3, "acos", "acos of 2, which is defined on [-1, 1]")


def test_a_model_that_takes_names_and_returns_its_own_cost():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, inputs=None, labels=None):
            out = self.layer(inputs)
            return {"loss": F.cross_entropy(out, labels), "out": out}

    def loop(model, optimizer):
        model(inputs=X, labels=torch.full((8,), -100))["loss"].backward()
        optimizer.step()

    event = watched(Whole(), loop)
    assert (event.operation, event.function) == ("0/0", "nll_loss_forward")
    assert "all are ignored" in event.argument


def test_targets_are_called_by_their_own_name():
    labels = torch.ones(8, 2)
    labels[3, 1] = math.nan

    def loop(model, optimizer):
        expected = labels
        F.mse_loss(model(X), expected).backward()
        optimizer.step()

    event = watched(network(), loop)
    assert (event.operation, event.phase) == ("given", "target")
    assert event.argument == "targets expected: NaN in 1 of 16 values, first in example 3"


def test_a_constant_and_a_buffer_are_told_from_targets():
    event = watched(network(), plain(lambda out, step: out.square().mean() * torch.tensor(math.nan)))
    assert (event.operation, event.phase) == ("given", "constant")
    model = network(norm=nn.BatchNorm1d(4))
    model.norm.running_mean[2] = math.nan
    model.eval()
    event = watched(model, plain(lambda out, step: out.square().mean()))
    assert (event.phase, event.layer) == ("buffer", "norm.running_mean")


def test_statistics_that_the_nan_itself_has_spoilt_are_not_blamed():
    model = network(norm=nn.BatchNorm1d(4))

    def cost(out, step):
        return out.square().mean()

    bad = X.clone()
    bad[0, 0] = math.nan
    event = watched(model, plain(cost, bad))
    assert event.phase == "input"


def test_masks_of_minus_infinity_are_meant():
    def cost(out, step):
        mask = torch.tensor([0.0, -math.inf])
        return (out + mask).softmax(1)[:, 0].mean() + (out.sum() * 0 if step < 2 else torch.atanh(out.sum() * 0 + 1))

    event = watched(network(), plain(cost))
    assert (event.step, event.function) == (3, "atanh")


def test_a_compiled_cost_is_left_as_it_is():
    cost = torch.compile(lambda out: (out * 0 - 1).log().mean(), backend="eager", fullgraph=True)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with cnnlab.watch(model, optimizer, show=False) as watch:
        plain(lambda out, step: cost(out))(model, optimizer)
    assert watch.record.first_nonfinite == 1


def test_what_the_reader_has_listen_to_torch_stays_on_top():
    class Counting(torch.overrides.TorchFunctionMode):
        calls = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    model, mode = network(), Counting()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with cnnlab.watch(model, optimizer, show=False) as watch:
        with torch.device("cpu"), mode:
            out = model(X)
        calls = mode.calls
        loss = (out * 0 - 1).log().mean()
        assert mode.calls == calls
        loss.backward()
        optimizer.step()
    assert watch.record.clues.origin.first.operation == "log of a negative number"
    assert torch._C._len_torch_function_stack() == 0


def test_forward_passes_that_are_never_sent_backward_hold_no_graphs():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with cnnlab.watch(model, optimizer, show=False):
        out = model(X)
        held = StorageWeakRef(out.grad_fn._saved_mat1.untyped_storage())
        assert out.square().mean() > 0
        del out
        model(X[:1])
        assert held.expired()


def test_a_training_is_the_same_to_the_bit_with_a_nan_looked_for():
    def train(block):
        torch.manual_seed(1)
        model = network(norm=nn.BatchNorm1d(4), drop=nn.Dropout(0.3))
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        with block(model, optimizer):
            for step in range(6):
                optimizer.zero_grad()
                out = model(X)
                (root_of_nothing(out) if step == 3 else out.square().mean()).backward()
                optimizer.step()
        return [*(part.clone() for part in model.state_dict().values()), torch.rand(3)]

    watch = lambda model, optimizer: cnnlab.watch(model, optimizer, show=False)  # noqa: E731
    one, other = train(watch), train(lambda *_: contextlib.nullcontext())
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(one, other, strict=True))


def test_the_module_s_own_state_is_not_changed_by_the_replay():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.calls = nn.Linear(4, 2), 0

        def forward(self, x):
            self.calls += 1
            return self.layer(x)

    model = Counting()
    event = watched(model, plain(lambda out, step: root_of_nothing(out), updates=1))
    assert (event.function, model.calls) == ("sqrt", 1)


def test_a_step_that_breaks_finite_gradients_is_the_optimiser_s():
    model = network().half()

    def loop(model, optimizer):
        (model(X.half()).float() * torch.tensor([0.0, 1e-4])).sum().backward()
        optimizer.step()

    event = watched(model, loop, torch.optim.Adam(model.parameters(), 1e-3))
    assert (event.phase, event.function) == ("update", "Adam")
    assert "eps 1e-08 is 0 in float16" in event.argument


def test_a_stop_before_a_nan_knows_its_origin():
    event = watched(network(), plain(lambda out, step: root_of_nothing(out)), stop_before_nan=True)
    assert (event.step, event.function) == (1, "sqrt")


def nan_at(step: int) -> Callable[[Tensor, int], Tensor]:
    """A cost that is NaN in one update, and whose gradient is."""
    return lambda out, at: out.square().mean() + ((out[0, 0] - out[0, 0] - 1).sqrt() if at == step else 0)


def stopped(model: nn.Module, loop: object) -> cnnlab.Watch:
    with cnnlab.watch(model, torch.optim.SGD(model.parameters(), 0.01), stop_before_nan=True, show=False) as watch:
        loop(model, watch.optimizers[0])
    assert watch.stopped
    return watch


@pytest.mark.parametrize("finite_gradient", [False, True])
def test_a_stop_before_a_nan_knows_its_origin_on_a_device_that_is_not_waited_for(monkeypatch, finite_gradient):
    monkeypatch.setattr("cnnlab.diagnosis.origin_finder.is_read_at_once", lambda _device: False)
    monkeypatch.setattr("cnnlab.diagnosis.watch.is_broken", lambda _root: False)

    def cost(out: Tensor, step: int) -> Tensor:
        part = out.detach() if finite_gradient else out
        return out.square().mean() + ((part[0, 0] - part[0, 0] - 1).sqrt() if step == 2 else 0)

    watch = stopped(network(), plain(cost))
    assert ("the cost of update 3 is NaN" in watch.stopped) == finite_gradient
    assert (watch.record.clues.origin.first.step, watch.record.clues.origin.first.function) == (3, "sqrt")


@pytest.mark.parametrize("finite_gradient", [False, True])
def test_an_autopsy_of_a_stop_that_could_not_be_seen_is_not_healthy(finite_gradient):
    model = network()
    used = torch.compile(model, backend="eager")

    def loop(_model, optimizer):
        for step in range(4):
            optimizer.zero_grad()
            out = used(X)
            part = out.detach() if finite_gradient else out
            (out.square().mean() + part.sum() * (math.nan if step == 2 else 0)).backward()
            optimizer.step()

    watch = stopped(model, loop)
    found = cnnlab.autopsy(watch.record)
    assert (found.cause, found.step, found.operation) == ("undecided", 3, "unknown")
    assert found.phase == ("cost" if finite_gradient else "gradient")
    assert "watch.trace(lambda: " in str(found)
    assert "finite" not in str(found)


def test_a_gradient_of_inf_that_a_stop_averts_is_not_called_nan():
    model = nn.Linear(4, 2)
    watch = stopped(model, plain(lambda out, step: out.sum() * (1e38 if step else 1e-3), x=100 * X.abs()))
    assert (len(watch.record), watch.record.clues.averted, watch.record.clues.averted_nan) == (1, "gradient", False)


def test_a_watch_that_is_entered_again_after_a_stop_knows_nothing_of_what_it_averted():
    model = network()
    watch = stopped(model, plain(nan_at(2)))
    assert watch.record.clues.origin is not None
    with watch:
        plain(nan_at(9), updates=5)(model, watch.optimizers[0])
    found = cnnlab.autopsy(watch.record)
    assert (found.cause, found.step, len(watch.record)) == ("healthy", None, 7)
    with watch:
        plain(nan_at(1))(model, watch.optimizers[0])
    assert watch.record.clues.origin.first.step == 9


def test_a_watch_that_is_entered_again_after_a_nan_in_its_record_still_knows_its_origin():
    model = network()
    with cnnlab.watch(model, torch.optim.SGD(model.parameters(), 0.01), show=False) as watch:
        plain(nan_at(1), updates=2)(model, watch.optimizers[0])
    with watch:
        plain(nan_at(9), updates=2)(model, watch.optimizers[0])
    assert watch.record.clues.origin.first.step == 2


def test_an_error_is_no_cause_any_more_once_the_watch_goes_on():
    model = network()
    watch = cnnlab.watch(model, torch.optim.SGD(model.parameters(), 0.01), show=False)
    with pytest.raises(RuntimeError), watch:
        model(X[:, :3])
    assert watch.record.clues.error
    with watch:
        plain(nan_at(9))(model, watch.optimizers[0])
    assert cnnlab.autopsy(watch.record).cause == "healthy"


def test_what_a_scaler_leaves_out_is_no_nan_of_the_next_update_and_is_told():
    model, scaler = network(), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with cnnlab.watch(model, optimizer, scaler=scaler, show=False) as watch:
        for step in range(6):
            optimizer.zero_grad()
            scaler.scale(nan_at(2)(model(X * (math.nan if step == 4 else 1)), step)).backward()
            scaler.step(optimizer)
            scaler.update()
    assert not (watch.record.column("activation_nan") > 0).any()
    found = cnnlab.autopsy(watch.record)
    assert (found.cause, found.step, watch.skipped) == ("healthy", None, 2)
    assert found.evidence[1] == "the GradScaler left out 2 more updates, for NaN or inf in the gradient"
    assert found.evidence[2].startswith("the cost of one of them was NaN, whatever the scale: update 3, cost, ")
    assert "in sqrt: " in found.evidence[2]


def test_a_healthy_loop_has_no_origin():
    assert watched(network(), plain(lambda out, step: out.square().mean(), updates=20)) is None


@pytest.mark.parametrize("compiled", [False, True])
def test_a_trace_makes_the_update_that_broke_again_at_its_weights_and_changes_nothing(compiled):
    model = network(norm=nn.BatchNorm1d(4), drop=nn.Dropout(0.5))
    used = torch.compile(model, backend="eager") if compiled else model
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    cost = lambda step: lambda out: root_of_nothing(out) if step == 2 else out.square().mean()  # noqa: E731
    with cnnlab.watch(used, optimizer, show=False) as watch:
        for step in range(4):
            optimizer.zero_grad()
            cost(step)(used(X)).backward()
            optimizer.step()
    before = [part.clone() for part in (*model.state_dict().values(), torch.get_rng_state())]
    assert ("watch.trace(lambda: " in str(cnnlab.autopsy(watch.record))) == compiled
    found = watch.trace(lambda: cost(2)(model(X)))
    assert repr(found).startswith(
        "Origin(update 3, gradient of head, x/0 in sqrt: the slope of sqrt where its value is 0; "
    )
    assert (found.first.step, found.first.function, found.first.phase) == (3, "sqrt", "gradient")
    assert found.first.source.startswith(line_of(root_of_nothing))
    after = [*model.state_dict().values(), torch.get_rng_state()]
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(before, after, strict=True))


def test_a_trace_names_targets_and_inputs_that_hold_nan():
    labels, inputs = torch.full((8, 2), math.nan), X.clone()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    watch = cnnlab.watch(model, optimizer, show=False)
    assert watch.trace(lambda: F.mse_loss(model(inputs), labels)).first.phase == "target"
    inputs[2] = math.nan
    assert watch.trace(lambda: model(inputs).mean()).first.phase == "input"
    assert watch.trace(lambda: model(X).mean()) is None


def test_a_trace_within_the_block_is_refused():
    model = network()
    with (
        cnnlab.watch(model, torch.optim.SGD(model.parameters(), 0.01), show=False) as watch,
        pytest.raises(RuntimeError, match="leave the watch's block first"),
    ):
        watch.trace(lambda: model(X).mean())


@pytest.mark.parametrize("phase", ["gradient", "cost"])
def test_a_function_of_autograd_written_by_hand_is_named(phase):
    class Broken(SlopeByHand):
        @staticmethod
        def forward(ctx, h):
            return SlopeByHand.forward(ctx, h) * (1 if phase == "gradient" else math.nan)

    event = watched(network(), plain(lambda out, step: out.square().mean() + Broken.apply(out - out.detach()).mean()))
    assert (event.step, event.phase, event.function) == (1, phase, "Broken")
    assert "Broken" in event.argument


def test_weights_that_are_not_finite_at_the_start_are_those_of_update_0():
    model = network()
    model.head.weight.data[0, 1] = math.nan
    event = watched(model, plain(lambda out, step: out.square().mean()))
    assert (event.step, event.phase, event.layer, event.operation) == (0, "weight", "head", "given")


def test_what_an_operation_in_place_was_given_is_what_was_there_before():
    def cost(out, step):
        share = torch.tensor([1.0, 0.0])
        share /= share.clone()
        return (out * share).mean()

    event = watched(network(), plain(cost))
    assert (event.operation, event.argument) == ("0/0", "div: 0 / 0")


@pytest.mark.parametrize(
    ("probability", "named"), [(lambda out: (out * 1e4).softmax(1), "softmax"), (lambda out: out * 0, "")]
)
def test_a_log_of_0_knows_what_was_saturated(probability, named):
    event = watched(network(), plain(lambda out, step: probability(out).log().mean()))
    assert (event.operation, event.saturated) == ("log(0)", named)


def test_a_device_that_would_have_to_be_waited_for_is_asked_at_the_next_step(monkeypatch):
    monkeypatch.setattr("cnnlab.diagnosis.origin_finder.is_read_at_once", lambda device: False)
    event = watched(network(), plain(lambda out, step: root_of_nothing(out) if step == 1 else out.square().mean()))
    assert (event.step, event.function, event.operation) == (2, "sqrt", "x/0")


def test_many_forward_passes_without_a_backward_hold_a_bounded_part_of_their_inputs(monkeypatch):
    monkeypatch.setattr("cnnlab.diagnosis.tape.MOST_BYTES", 3 * X.nbytes)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    held = []
    with cnnlab.watch(model, optimizer, show=False) as watch:
        for _ in range(20):
            given = X.clone()
            held.append(StorageWeakRef(given.untyped_storage()))
            model(given)
        assert sum(not each.expired() for each in held) <= 6
        root_of_nothing(model(X)).backward()
        optimizer.step()
    assert watch.record.clues.origin.first.function == "sqrt"


@pytest.mark.parametrize("rate", [math.nan, math.inf])
def test_a_learning_rate_that_is_not_finite_is_named(rate):
    def loop(model, optimizer):
        for step in range(3):
            optimizer.param_groups[0]["lr"] = rate if step == 1 else 0.01
            optimizer.zero_grad()
            model(X).square().mean().backward()
            optimizer.step()

    event = watched(network(), loop)
    assert (event.step, event.phase, event.function, event.operation) == (2, "update", "SGD", "undefined")
    assert event.argument == f"the learning rate of SGD is {'NaN' if rate != rate else 'inf'}"


def test_an_optimiser_that_carries_nan_on_is_named():
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    model(X).square().mean().backward()
    optimizer.step()
    optimizer.state[model.embed.weight]["exp_avg"][0, 0] = math.nan
    event = watched(model, plain(lambda out, step: out.square().mean()), optimizer)
    assert (event.step, event.phase, event.layer) == (1, "update", "embed")
    assert event.argument == "Adam carries NaN on in its exp_avg"
