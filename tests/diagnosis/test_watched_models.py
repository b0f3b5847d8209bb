"""What may be done with a model and its optimiser within a watch: all that may be done without."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch._dynamo
from loops import X, Y, ce, mlp, update
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules import module as modules

import cnnlab


def hooks_on(model: nn.Module) -> list[object]:
    """All hooks that the modules of a model carry."""
    tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
    return [hook for module in model.modules() for table in tables for hook in getattr(module, table).values()]


def saved(value: object) -> object:
    """What `torch.save` writes, read again."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def nodes(graph_module: nn.Module) -> list[tuple[str, str]]:
    """The operations of a graph."""
    return [(node.op, str(node.target)) for node in graph_module.graph.nodes]


def traced(model: nn.Module) -> list[str]:
    return [node.kind() for node in torch.jit.trace(model, X).inlined_graph.nodes()]


def onto_meta(model: nn.Module) -> torch.Size:
    return torch.func.functional_call(
        model, {name: each.to("meta") for name, each in model.named_parameters()}, (X.to("meta"),)
    ).shape


def with_fake_numbers(model: nn.Module) -> torch.Size:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return model(mode.from_tensor(X)).shape


def gradient_by_function(model: nn.Module) -> list[float]:
    found = torch.func.grad(lambda p: ce(torch.func.functional_call(model, p, (X,)), Y))(dict(model.named_parameters()))
    return [each.sum().item() for each in found.values()]


USES = {
    "torch.save": lambda model: saved(model)(X).tolist(),
    "pickle": lambda model: pickle.loads(pickle.dumps(model))(X).tolist(),
    "state_dict": lambda model: list(saved(model.state_dict())),
    "torch.jit.script": lambda model: torch.jit.script(model)(X).tolist(),
    "torch.jit.trace": traced,
    "torch.export": lambda model: nodes(torch.export.export(model, (X,)).graph_module),
    "torch.export, strict": lambda model: nodes(torch.export.export(model, (X,), strict=True).graph_module),
    "torch.fx": lambda model: nodes(torch.fx.symbolic_trace(model)),
    "torch.compile": lambda model: torch.compile(model, backend="eager", fullgraph=True)(X).tolist(),
    "copy.deepcopy": lambda model: copy.deepcopy(model)(X).tolist(),
    "averaged": lambda model: torch.optim.swa_utils.AveragedModel(model)(X).tolist(),
    "DataParallel": lambda model: nn.DataParallel(model)(X).tolist(),
    "vmap": lambda model: torch.func.vmap(model)(X).tolist(),
    "torch.func.grad": gradient_by_function,
    "meta": onto_meta,
    "fake": with_fake_numbers,
    "no example": lambda model: model(X[:0]).tolist(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_what_is_done_with_a_model_within_a_watch_is_what_it_is_without(use):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        expected = use(model)
        with cnnlab.watch(model, optimizer) as watch:
            costs = [update(model, optimizer)]
            warnings.filterwarnings("error", message="Using `torch.compile.module.` when there are global hooks")
            assert use(model) == expected
            costs.append(update(model, optimizer))
    assert watch.record.cost.tolist() == costs
    assert (watch.record.activation_nan == 0).all()
    assert watch.record.is_measured("dead_relu").tolist() == [[True, False]] * 2


def test_a_trace_or_an_export_makes_no_pass_of_the_model_that_is_watched():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    bad = X * torch.nan
    with cnnlab.watch(model, optimizer) as watch:
        loss = ce(model(X), Y)
        torch.jit.trace(model, bad, check_tolerance=0)
        torch.export.export(model, (bad,))
        loss.backward()
        optimizer.step()
    assert (watch.record.activation_nan == 0).all()


def test_no_module_carries_a_hook_within_a_watch_and_torch_has_none_afterwards():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    globally = modules._global_forward_hooks, modules._global_forward_pre_hooks
    with cnnlab.watch(model, optimizer):
        assert hooks_on(model) == []
        assert any(globally)
        assert not modules._has_any_global_hook()  # none that torch.compile would have to warn of
    assert not any(globally)


def test_hooks_of_the_reader_s_own_still_run_and_stay():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    seen = []
    handle = modules.register_module_forward_hook(lambda module, *_: seen.append(module))
    model[0].register_forward_hook(lambda module, *_: seen.append(module))
    with cnnlab.watch(model, optimizer):
        update(model, optimizer)
        assert modules._has_any_global_hook()
    assert seen == [model[0], model[0], model[1], model[2], model]
    assert list(modules._global_forward_hooks) == [handle.id]
    handle.remove()
    assert len(hooks_on(model)) == 1


def test_forward_passes_of_a_copy_are_not_the_model_s():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        target = copy.deepcopy(model)
        assert hooks_on(target) == []
        optimizer.zero_grad()
        loss = ce(model(X), Y)
        target(X * torch.nan)
        loss.backward()
        optimizer.step()
    assert (watch.record.activation_nan == 0).all()


def test_a_layer_that_two_watched_models_share_is_seen_by_both():
    shared = nn.Linear(6, 8)
    models = [nn.Sequential(shared, nn.ReLU(), nn.Linear(8, 3)) for _ in range(2)]
    optimizers = [torch.optim.SGD(model[2].parameters(), 0.1) for model in models]
    with cnnlab.watch(models[0], optimizers[0]) as one:
        with cnnlab.watch(models[1], optimizers[1]) as other:
            update(models[1], optimizers[1])
        update(models[0], optimizers[0])
    for watch in (one, other):
        assert watch.record.is_measured("activation_nan").all()
        assert watch.record.is_measured("dead_relu")[:, 0].all()


class KeepsAll(torch.optim.SGD):
    """An optimiser that pickles all it has, hooks as well."""

    def __getstate__(self):
        return dict(self.__dict__)


@pytest.mark.parametrize("kind", [torch.optim.SGD, KeepsAll])
@pytest.mark.parametrize("copied", [copy.deepcopy, saved, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_of_the_optimiser_carries_no_hook_that_does_anything(kind, copied):
    model = mlp()
    optimizer = kind(model.parameters(), 0.1, momentum=0.9)
    with cnnlab.watch(model, optimizer) as watch:
        update(model, optimizer)
        other = copied(optimizer)
        other.step()
        assert len(watch.record) == 1
        update(model, optimizer)
    assert len(watch.record) == 2
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_a_step_that_is_compiled_as_a_whole_is_recorded():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    bare = mlp()
    costs = [update(bare, other) for other in [torch.optim.SGD(bare.parameters(), 0.1)] for _ in range(3)]

    @torch.compile(backend="eager")
    def step() -> None:
        optimizer.zero_grad()
        ce(model(X), Y).backward()
        optimizer.step()

    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(3):
            step()
    np.testing.assert_allclose(watch.record.cost, costs, rtol=1e-6)


def test_autograd_s_grad_within_a_compiled_function_stays_in_one_graph(monkeypatch):
    if hasattr(torch._dynamo.config, "trace_autograd_ops"):
        monkeypatch.setattr(torch._dynamo.config, "trace_autograd_ops", True)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    @torch.compile(backend="eager", fullgraph=True)
    def slope(x: torch.Tensor) -> torch.Tensor:
        y = x.detach().requires_grad_()
        return torch.autograd.grad(y.square().sum(), y)[0]

    with cnnlab.watch(model, optimizer):
        assert torch.equal(slope(X), 2 * X)
