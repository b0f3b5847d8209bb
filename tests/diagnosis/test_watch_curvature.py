"""A watch measures at every so many updates how far the learning rate is from the edge, and disturbs nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from loops import X, Y, ce, mlp, one_for_each, update
from once import Once
from torch import nn

import cnnlab
from cnnlab.dashboards.watch_dashboard import WatchLab

KINDS = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (torch.optim.RMSprop, {"lr": 1e-3}),
    (torch.optim.Adam, {"lr": 1e-2}),
    (torch.optim.AdamW, {"lr": 1e-2}),
]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, updates: int, **options: object) -> cnnlab.Watch:
    """Some updates under a watch."""
    with cnnlab.watch(model, optimizer, show=False, **options) as watch:
        for _ in range(updates):
            update(model, optimizer)
    return watch


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_what_is_measured_is_what_critical_learning_rate_says_of_the_same_weights(kind, options) -> None:
    model = mlp()
    optimizer = kind(model.parameters(), **options)
    watch = train(model, optimizer, 7, curvature=3)
    sharpness = watch.record.column("sharpness")
    assert np.flatnonzero(~np.isnan(sharpness)).tolist() == [0, 3, 6]

    twin = mlp()
    again = kind(twin.parameters(), **options)
    for _ in range(6):
        update(twin, again)
    found = cnnlab.critical_learning_rate(twin, lambda: ce(twin(X), Y), again)
    assert sharpness[6] == pytest.approx(found.eigenvalue, rel=1e-3)
    assert watch.critical is not None
    assert watch.critical.value == pytest.approx(found.value, rel=1e-3)
    assert watch.critical.step == 6


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_the_loop_and_all_else_in_the_record_are_as_without_it(kind, options) -> None:
    records = []
    for curvature in (None, 2):
        model = mlp()
        records.append(train(model, kind(model.parameters(), **options), 5, curvature=curvature).record)
    plain, measured = records
    columns = plain.table.shape[1]
    same = [c for c in range(columns) if not np.array_equal(plain.table[:, c], measured.table[:, c], equal_nan=True)]
    assert len(same) == 1
    assert np.isnan(plain.column("sharpness")).all()


def test_the_line_says_after_which_update_it_is_and_how_far_the_rate_is_from_the_edge() -> None:
    model = mlp()
    watch = train(model, torch.optim.AdamW(model.parameters(), lr=0.01), 5, curvature=2)
    said = str(watch.critical)
    assert "; yours, 0.01, is " in said
    assert f"after update 4: {said}" in repr(watch)
    lab = WatchLab(watch)
    assert "after update 4: critical learning rate" in lab.line.value
    lab.close()


def test_without_it_nothing_is_measured_or_said() -> None:
    model = mlp()
    watch = train(model, torch.optim.SGD(model.parameters(), lr=0.1), 2)
    assert watch.critical is None
    assert "critical" not in repr(watch)


def test_the_scale_of_mixed_precision_is_taken_off() -> None:
    eigenvalues = []
    for scaled in (False, True):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
        with cnnlab.watch(model, optimizer, show=False, scaler=scaler, curvature=1) as watch:
            scaler.scale(ce(model(X), Y)).backward()
            scaler.step(optimizer)
            scaler.update()
        eigenvalues.append(watch.record.start.sharpness)
    assert eigenvalues[0] == pytest.approx(eigenvalues[1], rel=1e-4)


def test_of_micro_batches_the_first_is_measured_once_an_update() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cnnlab.watch(model, optimizer, show=False, curvature=1) as watch:
        for half in (slice(0, 12), slice(12, 24)):
            (ce(model(X[half]), Y[half]) / 2).backward()
        optimizer.step()
    first = cnnlab.critical_learning_rate(twin := mlp(), lambda: ce(twin(X[:12]), Y[:12]) / 2,
                                          torch.optim.SGD(twin.parameters(), lr=0.1))  # fmt: skip
    assert watch.record.start.sharpness == pytest.approx(first.eigenvalue, rel=1e-3)


def test_a_nan_is_found_as_without_it_and_its_hessian_is_not_finite() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cnnlab.watch(model, optimizer, show=False, curvature=1) as watch:
        for step in range(3):
            optimizer.zero_grad()
            loss = ce(model(X), Y)
            (loss * torch.sqrt(loss.detach() - 100) if step == 1 else loss).backward()
            optimizer.step()
    assert watch.record.clues.origin is not None
    assert "sqrt" in str(watch.record.clues.origin)
    assert watch.record.first_nonfinite is not None
    assert math.isinf(watch.record.frames[-2].sharpness)
    assert not watch.critical.finite


def test_what_is_measured_between_forward_and_backward_hides_no_origin() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cnnlab.watch(model, optimizer, show=False) as watch:
        loss = ce(model(X), Y)
        cnnlab.critical_learning_rate(model, lambda: ce(model(X), Y), optimizer)
        (loss + torch.sqrt(loss.detach() - 100)).backward()
        optimizer.step()
    assert watch.record.clues.origin is not None
    assert "sqrt" in str(watch.record.clues.origin)


def test_a_layer_without_a_second_derivative_is_said_once_and_the_loop_goes_on() -> None:
    class Layer(nn.Linear):
        def forward(self, x):
            return Once.apply(super().forward(x))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), Layer(8, 3))
    watch = train(model, torch.optim.SGD(model.parameters(), lr=0.1), 3, curvature=1)
    assert len(watch.record) == 3
    assert watch.critical is None
    assert "no critical learning rate: the critical learning rate needs second derivatives" in repr(watch)


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda m: (torch.optim.NAdam(m.parameters()), 5), TypeError, "optimizer must be one of torch.optim's SGD"),
        (lambda m: (one_for_each(m), 5), ValueError, "curvature needs one optimizer, whose step is the whole update"),
        (lambda m: (torch.optim.SGD(m.parameters()), 0), ValueError, "curvature must be a whole number of at least 1"),
        (lambda m: (torch.optim.SGD(m.parameters()), 0.5), ValueError, "curvature must be a whole number"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_loop(make, kind, said) -> None:
    model = mlp()
    optimizer, every = make(model)
    with pytest.raises(kind, match=said):
        cnnlab.watch(model, optimizer, show=False, curvature=every)
