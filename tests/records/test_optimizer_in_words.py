"""A record names its optimiser in its line, with what belongs to it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnlab import Run
from cnnlab.records.description import write_changes

SMALL = {"channels": 2, "hidden": (4, 3), "patch_size": 13, "patches": 8, "device": "cpu"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": "adam", "momentum": 0.9}, ["adam (momentum 0.9)"]),
        ({"optimizer": "rmsprop", "momentum": 0.5, "beta2": 0.99}, ["rmsprop (momentum 0.5, beta2 0.99)"]),
        ({"optimizer": "adamw", "momentum": 0.9, "penalty_in": "update"}, ["adamw (momentum 0.9)"]),
        ({"optimizer": "adam", "penalty_in": "update", "l2": 0.1}, ["adam", "penalty_in='update'", "l2=0.1"]),
        ({"optimizer": "sgd", "momentum": 0.0, "penalty_in": "cost"}, ["sgd (momentum 0)"]),
        ({"momentum": 0.9, "clip": "norm"}, ["momentum=0.9", "clip='norm'"]),
    ],
)
def test_what_belongs_to_an_optimiser_stands_in_brackets_after_it(changes, said):
    assert write_changes(changes) == said


def test_a_record_names_each_optimiser_and_since_when():
    data = torch.ones(4, 2), torch.ones(4, 1)
    run = Run(network=nn.Linear(2, 1), data=data, cost=nn.functional.mse_loss, learning_rate=1e-5)
    run.advance(2)
    run.set(optimizer="adam")
    run.advance(1)
    run.set(optimizer="adamw", learning_rate=1e-4)
    run.advance(1)
    said = repr(run.record)
    assert "learning_rate=1e-05, adam (momentum 0.9) from update 3, adamw, learning_rate=0.0001 from update 4" in said
    assert "penalty_in" not in said


def test_a_link_of_a_record_repeats_its_switches_to_the_bit():
    run = Run("question", **SMALL, input_scaling="unit", optimizer="rmsprop")
    run.advance(2)
    run.set(optimizer="adamw", l2=0.1)
    run.advance(2)
    run.set(optimizer="nesterov", momentum=0.0)
    run.advance(2)
    again = Run(run.record.link())
    again.advance(6)
    assert list(again.record.cost) == list(run.record.cost)
    assert again.record.schedule == run.record.schedule
