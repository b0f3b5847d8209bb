"""A record's line: a reader sees what was changed, by name, and how the run ended."""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handmade import record_of

import cnnlab
from cnnlab.records.autosave import Autosave
from cnnlab.records.frame import NOT_MEASURED
from cnnlab.records.record import Record


def change(costs: Iterable[float], *changes: tuple[int, dict[str, Any]], **start: Any) -> Record:
    """A record of these costs that starts with some settings; at some updates knobs are changed."""
    record = record_of(list(costs))
    wanted = record.settings.replace(**start)
    schedule = [(1, wanted.knobs)]
    for step, new in changes:
        schedule.append((step, dataclasses.replace(schedule[-1][1], **new)))
    return dataclasses.replace(record, settings=wanted, schedule=tuple(schedule))


def own(rows: int = 7, **changes: Any) -> cnnlab.Run:
    data = (torch.randn(rows, 3, generator=torch.Generator().manual_seed(0)), torch.arange(rows) % 2)
    return cnnlab.Run(network=torch.nn.Linear(3, 2), data=data, cost=torch.nn.functional.cross_entropy, **changes)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (change([]), "Record(question: 0 updates, nothing trained yet)"),
        (change([0.5], seed=3, l2=0.1), "Record(question, l2=0.1, seed=3: 1 update, last cost 0.5)"),
        (change([2, 0.693147], preset="question", learning_rate=0.1 + 0.2),
         "Record(question, learning_rate=0.3: 2 updates, last cost 0.693)"),
        (change([2, 1, 1], (2, {"clip": "norm", "momentum": 0.9}), (3, {"clip": "off"})),
         "Record(question, momentum=0.9, clip='norm' from update 2, clip='off' from update 3: 3 updates, last cost 1)"),
    ],
)  # fmt: skip
def test_few_changes_are_named_each_with_its_update(record: Record, said: str) -> None:
    assert repr(record) == said


def test_a_warm_up_is_told_by_its_ends() -> None:
    start = cnnlab.settings("question", learning_rate=1e-3)
    run = cnnlab.Run(start, channels=2, hidden=(4, 4), plan=cnnlab.rate_plan("warm_up", start, 40))
    run.advance(12)
    said = repr(run.record)
    assert "learning_rate 1e-05 to 0.001 over updates 1 to 11 (10 changes): 12 updates" in said
    assert said.count("learning_rate") == 1


def test_changes_up_and_down_are_told_by_the_lowest_and_the_highest() -> None:
    rates = (1e-3, 1e-2, 1e-3, 1e-4, 1e-3)
    changes = ((step, {"learning_rate": rate}) for step, rate in enumerate(rates, 4))
    assert repr(change([1] * 9, *changes, clip="norm", learning_rate=1e-3)) == (
        "Record(question, clip='norm', learning_rate between 0.0001 and 0.01 over updates 4 to 8 (4 changes): "
        "9 updates, last cost 1)"
    )


def test_a_choice_that_went_to_and_fro_is_told_by_its_values_and_a_knob_changed_once_beside_it_by_its_update() -> None:
    kinds = ("norm", "off", "norm", "off")
    record = change([1] * 9, *((step, {"clip": kind}) for step, kind in enumerate(kinds, 2)), (7, {"l1": 0.5}))
    assert repr(record).startswith(
        "Record(question, clip 'off' or 'norm' over updates 1 to 5 (4 changes), l1=0.5 from update 7: 9 updates"
    )


@pytest.mark.parametrize(
    ("costs", "end"),
    [
        ([3, math.nan, math.nan], "3 updates, cost NaN since update 2"),
        ([3, math.inf, math.nan, math.nan], "4 updates, cost inf at update 2, NaN since update 3"),
        ([math.inf], "1 update, cost inf since update 1"),
        ([3, math.inf, 2.5], "3 updates, cost inf at update 2, last cost 2.5"),
        ([math.nan, 1, math.nan], "3 updates, cost NaN at update 1, NaN since update 3"),
        ([3, math.nan, NOT_MEASURED], "3 updates, cost NaN at update 2, last cost not measured"),
        ([3, math.nan, NOT_MEASURED, math.nan], "4 updates, cost NaN since update 2"),
        ([3, NOT_MEASURED], "2 updates, last cost not measured"),
    ],
)
def test_the_end_says_since_when_the_cost_is_nan_or_inf(costs: list[float], end: str) -> None:
    assert repr(record_of(costs)).endswith(f": {end})")


def test_a_network_of_ones_own_is_named_by_its_class_its_rows_and_its_learning_rate() -> None:
    run = own()
    run.advance(2)
    assert repr(run.record).startswith("Record(Linear, 7 rows, learning_rate=0.01: 2 updates, last cost ")
    assert repr(own(1500, learning_rate=1.0).record).startswith("Record(Linear, 1500 rows, learning_rate=1: ")
    named = "Record(Linear, 20 rows, preset='converges', learning_rate=0.002"
    assert repr(own(20, preset="converges").record).startswith(named)


def test_a_network_of_ones_own_keeps_its_name_in_files_and_one_from_before_is_called_so(tmp_path: Path) -> None:
    run = own()
    run.advance(2)
    run.record.save(tmp_path / "own.cnnlab")
    loaded = cnnlab.load(tmp_path / "own.cnnlab")
    kept = Autosave.in_file(tmp_path / "kept.cnnlab")
    kept.keep(run.record, 0.0)
    assert repr(loaded) == repr(cnnlab.load(tmp_path / "kept.cnnlab")) == repr(run.record)
    kept.close()
    assert repr(dataclasses.replace(loaded, network="")).startswith("Record(own network, learning_rate=0.01: ")


def test_a_class_without_a_proper_name_is_an_own_network() -> None:
    odd = type("line\nbreak", (torch.nn.Linear,), {})
    data = (torch.randn(6, 3), torch.arange(6) % 2)
    run = cnnlab.Run(network=odd(3, 2), data=data, cost=torch.nn.functional.cross_entropy)
    assert repr(run.record).startswith("Record(own network, 6 rows, learning_rate=0.01: ")


def test_a_loop_of_ones_own_is_named_by_its_model_and_its_schedule_by_its_ends() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        for update in range(12):
            optimizer.param_groups[0]["lr"] = 0.1 * 0.9**update
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(torch.ones(7, 3)), torch.arange(7) % 2).backward()
            optimizer.step()
    start = "Watch(Record(Linear, learning_rate 0.1 to 0.0313811 over updates 1 to 12 (11 changes): 12 updates, "
    assert repr(watch).startswith(start)


def test_a_line_holds_at_most_160_characters_and_counts_what_it_leaves_out() -> None:
    many = {"learning_rate": 0.1, "momentum": 0.5, "clip": "norm", "clip_threshold": 2.5, "l1": 0.25, "l2": 0.125,
            "seed": 123456789, "init": "lecun_normal", "init_scale": 1.5, "input_scaling": "standardised",
            "precision": "float64"}  # fmt: skip
    said = repr(change([2, math.nan], (2, {"l2": 0.0}), **many))
    assert len(said) <= 160 + len("Record()")
    assert said.startswith("Record(question, learning_rate=0.1, momentum=0.5, clip='norm', ")
    assert said.endswith(" more changed: 2 updates, cost NaN since update 2)")
    left = int(said.partition(" more changed")[0].split(", ")[-1])
    assert left + said.count("=") == len(many) + 1


def test_a_long_schedule_is_told_in_one_line_too() -> None:
    knobs = change([]).settings.knobs
    schedule = tuple((step, dataclasses.replace(knobs, learning_rate=1 / step)) for step in range(1, 5001))
    record = dataclasses.replace(record_of(np.ones(5000).tolist()), schedule=schedule)
    record = dataclasses.replace(record, settings=record.settings.replace(learning_rate=1.0))
    assert repr(record) == (
        "Record(question, learning_rate 1 to 0.0002 over updates 1 to 5000 (4999 changes): 5000 updates, last cost 1)"
    )
