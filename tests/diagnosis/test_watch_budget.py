"""A watch with a budget: what it leaves out is known to be left out, and no NaN is missed for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loops import X, Y, ce, mlp, update
from torch import nn

import cnnlab
from cnnlab.diagnosis import budget as budgets
from cnnlab.diagnosis.early_warning import find_first_warning
from cnnlab.plots.dashboard import draw_dashboard
from cnnlab.records.frame import LAYER_GAUGES, is_measured
from cnnlab.records.signals import SIGNALS

LEAST = 1e-9
"""A budget of which the first update takes more than a test lasts."""


def train(updates: int, budget: float | None, break_at: int = 0, rate: float = 0.1) -> cnnlab.Record:
    """The record of a small network; from update `break_at` on its cost takes the root of a number below 0."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with cnnlab.watch(model, optimizer, show=False, budget=budget) as watch:
        for step in range(1, updates + 1):
            optimizer.zero_grad()
            loss = ce(model(X), Y)
            if step == break_at:
                loss = loss + torch.sqrt(loss.detach() - 100)
            loss.backward()
            optimizer.step()
    return watch.record


def test_a_budget_measures_the_first_and_the_last_update_and_the_cost_of_all() -> None:
    all_of_it, record = train(20, None), train(20, LEAST)

    assert record.is_measured("cost").all()
    np.testing.assert_array_equal(record.cost, all_of_it.cost)
    for gauge in ("weight_norm", "gradient_norm", "update_ratio", "total_gradient_norm", "largest_weight"):
        measured = record.is_measured(gauge).reshape(20, -1).all(axis=1)
        assert np.flatnonzero(measured).tolist() == [0, 19], gauge
        np.testing.assert_array_equal(getattr(record, gauge)[measured], getattr(all_of_it, gauge)[measured])


def test_a_full_budget_measures_what_a_watch_without_one_does() -> None:
    all_of_it, record = train(10, None), train(10, 1)

    np.testing.assert_array_equal(record.table, all_of_it.table)
    np.testing.assert_array_equal(record.histograms[:], all_of_it.histograms[:])


def test_histograms_are_there_at_the_updates_that_were_measured_and_at_no_other() -> None:
    all_of_it, record = train(12, None), train(12, LEAST)

    counted = record.histograms[:].sum(axis=(1, 2)) > 0
    measured = np.append(True, record.is_measured("weight_norm").all(axis=1))
    np.testing.assert_array_equal(counted, measured)
    np.testing.assert_array_equal(record.histograms[counted], all_of_it.histograms[counted])


@pytest.mark.parametrize("stop", [False, True])
def test_a_nan_at_an_update_that_the_budget_left_out_is_in_the_record_and_its_origin_named(stop: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cnnlab.watch(model, optimizer, show=False, budget=LEAST, stop_before_nan=stop) as watch:
        for step in range(1, 9):
            optimizer.zero_grad()
            loss = ce(model(X), Y)
            if step == 6:
                loss = loss + torch.sqrt(loss.detach() - 100)
            loss.backward()
            optimizer.step()
    record = watch.record
    found = cnnlab.autopsy(record)

    assert not record.is_measured("weight_norm")[4].any() or stop
    assert ("update 6" in str(watch.stopped)) is stop
    assert record.clues.origin is not None
    assert record.clues.origin.first.step == 6
    assert record.clues.origin.first.function == "sqrt"
    assert "test_watch_budget.py" in str(found)
    assert (record.first_nonfinite == 6) is not stop


def test_a_gradient_that_turns_nan_beside_a_finite_cost_is_counted_at_its_own_update() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cnnlab.watch(model, optimizer, show=False, budget=LEAST) as watch:
        for step in range(1, 10):
            optimizer.zero_grad()
            outputs = model(torch.ones(3, 2))
            below = torch.where(outputs > 1e9, torch.sqrt(outputs * 0), outputs)  # whose slope at 0 is inf * 0
            loss = (below if step == 5 else outputs).square().mean()
            loss.backward()
            optimizer.step()
    record = watch.record

    assert record.is_measured("gradient_nan").all(axis=1).nonzero()[0].tolist() == [0, 4, 5, 8]
    assert (record.gradient_nan[4] > 0).all()
    assert (record.weight_nan[4] > 0).all()
    assert record.clues.origin is not None
    assert record.clues.origin.first.step == 5


def test_a_cost_that_leaps_is_measured_in_full() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with cnnlab.watch(model, optimizer, show=False, budget=LEAST) as watch:
        for step in range(1, 11):
            update(model, optimizer, 1000.0 if step == 7 else 1.0)
    measured = watch.record.is_measured("gradient_norm").all(axis=1)

    assert np.flatnonzero(measured).tolist() == [0, 6, 9]


def test_what_a_budget_left_out_raises_no_alarm_and_blames_nothing() -> None:
    record = train(40, LEAST, rate=0.05)

    assert find_first_warning(record) is None
    assert (
        cnnlab.first_alarms(record)["SageMaker Debugger"]
        == cnnlab.first_alarms(train(40, None, rate=0.05))["SageMaker Debugger"]
    )
    assert not record.longer_than(1e-6)[1:-1].any()
    assert "nan" not in cnnlab.state_line(record).lower()
    assert "nan" not in str(cnnlab.autopsy(record)).lower()


def test_a_record_with_a_budget_saves_and_loads(tmp_path) -> None:
    record = train(15, LEAST, break_at=9)
    record.save(tmp_path / "watched.cnnlab")
    loaded = cnnlab.load(tmp_path / "watched.cnnlab")

    np.testing.assert_array_equal(loaded.table.view(np.int64), record.table.view(np.int64))
    np.testing.assert_array_equal(loaded.histograms[:], record.histograms[:])
    np.testing.assert_array_equal(loaded.is_measured("dead_relu"), record.is_measured("dead_relu"))
    assert loaded.first_nonfinite == 9


def test_the_dashboard_shows_the_last_weights_that_were_counted() -> None:
    record = train(20, LEAST)
    figure = draw_dashboard(record.until(10), 20)  # whose last update was left out
    first = draw_dashboard(record.until(1), 20)
    ridge, same = (next(each.y for each in drawn.data if each.name == "magnitudes 0") for drawn in (figure, first))

    assert np.isfinite(ridge).all()
    np.testing.assert_array_equal(ridge, same)


def test_a_record_that_is_asked_for_in_the_middle_ends_with_a_measured_update() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cnnlab.watch(model, optimizer, show=False, budget=LEAST) as watch:
        for _ in range(6):
            update(model, optimizer)
        middle = watch.record
        for _ in range(6):
            update(model, optimizer)
    last = watch.record

    assert [len(middle), len(last)] == [6, 12]
    for gauge in LAYER_GAUGES:
        # Those of a forward pass that is over, and signals, which a watch does not measure.
        if gauge not in ("dead_relu", "activation_nan", "activation_inf", *SIGNALS):
            assert is_measured(middle.column(gauge)[-1]).all(), gauge
    assert np.flatnonzero(last.is_measured("weight_norm").all(axis=1)).tolist() == [0, 5, 11]


def test_steps_of_several_optimisers_are_one_update_with_a_budget_too() -> None:
    model = mlp()
    optimizers = [torch.optim.SGD(model[place].parameters(), 0.1) for place in (0, 2)]
    with cnnlab.watch(model, optimizers, show=False, budget=LEAST) as watch:
        for _ in range(5):
            for optimizer in optimizers:
                optimizer.zero_grad()
            ce(model(X), Y).backward()
            for optimizer in optimizers:
                optimizer.step()
    record = watch.record

    assert len(record) == 5
    assert np.flatnonzero(record.is_measured("update_ratio").all(axis=1)).tolist() == [0, 4]
    assert (record.update_ratio[[0, 4]] > 0).all()


def test_a_measurement_is_due_when_it_was_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(budgets.time, "perf_counter", lambda: now)
    budget = budgets.Budget(0.1)

    assert budget.allows()
    budget.spend(1.0)
    now = 108.9
    assert not budget.allows()
    now = 109.1
    assert budget.allows()


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_a_budget_out_of_range_is_refused_in_one_sentence(share: float) -> None:
    model = mlp()
    with pytest.raises(ValueError, match=r"^budget must lie in \(0, 1\], got [^.]*(\.\d+)?$"):
        cnnlab.watch(model, torch.optim.SGD(model.parameters(), 0.1), show=False, budget=share)


@pytest.mark.parametrize("share", ["0.1", True, [0.1]])
def test_a_budget_that_is_no_number_is_refused(share: object) -> None:
    model = mlp()
    with pytest.raises(TypeError, match=r"^budget must be None or a number in \(0, 1\], got "):
        cnnlab.watch(model, torch.optim.SGD(model.parameters(), 0.1), show=False, budget=share)


def test_the_step_of_another_optimiser_is_no_part_of_the_tape_and_the_cost_after_it_is() -> None:
    model, other = mlp(), mlp()
    optimizer, another = (torch.optim.Adam(each.parameters(), 0.01) for each in (model, other))
    heard = []
    with cnnlab.watch(model, optimizer, show=False, budget=LEAST) as watch:
        for step in range(1, 7):
            optimizer.zero_grad()
            outputs = model(X)
            update(other, another)  # between the model and its cost
            heard.append([call.function.__name__ for call in watch.finder.tape.calls if call.function is not None])
            loss = ce(outputs, Y)
            if step == 5:
                loss = loss + torch.sqrt(loss.detach() - 100)
            loss.backward()
            optimizer.step()
    origin = watch.record.clues.origin

    assert origin is not None
    assert (origin.first.step, origin.first.function) == (5, "sqrt")
    assert not any("lerp" in name or "addcdiv" in name or "foreach" in name for each in heard for name in each)
    assert "__get__" not in heard[1]


def test_torch_is_left_as_it_was() -> None:
    from torch.optim import optimizer as optimizers

    before = torch.Tensor.backward, dict(optimizers._global_optimizer_pre_hooks)
    train(2, LEAST)

    assert (torch.Tensor.backward, dict(optimizers._global_optimizer_pre_hooks)) == before
    assert not optimizers._global_optimizer_post_hooks
