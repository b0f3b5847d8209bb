"""Labs of saved records: one goes on, another is drawn over it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cnnlab
from cnnlab.records.frame import GAUGES
from cnnlab.records.record import Record

SMALL: dict[str, Any] = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8}


def trained(updates: int, **changes: Any) -> Record:
    """The record of a small run."""
    run = cnnlab.Run("question", **SMALL, **changes)
    run.advance(updates)
    return run.record


def trace(lab: cnnlab.Lab, name: str) -> Any:
    """A trace of the lab's figure."""
    return next(trace for trace in lab.figure.data if trace.name == name)


def key(lab: cnnlab.Lab) -> str:
    """The key above the plots."""
    text = next(note.text for note in lab.figure.layout.annotations if note.name == "key")
    return text.replace("\N{NO-BREAK SPACE}", " ")


def own() -> dict[str, Any]:
    """A network of one's own with its data and cost."""
    torch.manual_seed(0)
    x = torch.randn(7, 3)
    return {"network": torch.nn.Linear(3, 1), "data": (x, x.sum(1, keepdim=True)), "cost": torch.nn.functional.mse_loss}


def test_a_record_is_shown_whole_and_paused_and_goes_on_to_the_bit(tmp_path: Path) -> None:
    straight = trained(9, learning_rate=0.05)
    record = trained(6, learning_rate=0.05)
    record.save(tmp_path / "six.cnnlab")
    for given in (record, tmp_path / "six.cnnlab", str(tmp_path / "six.cnnlab")):
        lab = cnnlab.Lab(given)
        assert (len(lab.record), lab.worker.training, lab.settings.learning_rate) == (6, False, 0.05)
        assert trace(lab, "cost").x.tolist() == [1, 2, 3, 4, 5, 6]
        assert lab.widgets.header.state["step"] == 6
        assert lab.widgets.header.state["goal"] == 20
        lab.step(3)
        assert lab.record.cost.tobytes() == straight.cost.tobytes()
        lab.close()


def test_a_record_brings_its_branches_and_can_be_rewound() -> None:
    run = cnnlab.Run("question", **SMALL)
    run.advance(4)
    twin = run.fork(2, learning_rate=1e-3)
    twin.advance(3)
    lab = cnnlab.Lab(dataclasses.replace(twin.record, others=(run.record,)))
    assert len(lab.widgets.controls.state["branches"]) == 2
    assert lab.settings.learning_rate == 1e-3
    lab.rewind(1)
    assert len(lab.record) == 1
    lab.close()


def test_a_reset_of_a_record_begins_its_run_again() -> None:
    record = trained(4)
    lab = cnnlab.Lab(record)
    lab.reset()
    assert len(lab.record) == 0
    lab.step(4)
    assert lab.record.cost.tobytes() == record.cost.tobytes()
    lab.close()


def test_a_record_that_was_trained_past_its_plan_is_shown_and_waits() -> None:
    lab = cnnlab.Lab(trained(25))
    assert not lab.worker.training
    assert lab.widgets.header.state["progress"] == 1
    lab.close()


def test_a_record_of_ones_own_network_needs_it_and_goes_on_with_it() -> None:
    run = cnnlab.Run(**own(), learning_rate=0.1)
    run.advance(3)
    with pytest.raises(ValueError, match=r"own: give it again as network=, data= and cost=$"):
        cnnlab.Lab(run.record)
    lab = cnnlab.Lab(run.record, **own())
    lab.step(2)
    run.advance(2)
    assert lab.record.cost.tobytes() == run.record.cost.tobytes()
    lab.close()


def test_other_settings_than_the_records_are_refused() -> None:
    with pytest.raises(TypeError, match=r"learning_rate is that of the record, 0\.01, got 0\.1: change it with set"):
        cnnlab.Lab(trained(1), learning_rate=0.1)


def test_a_record_beside_is_drawn_and_the_key_says_what_differs(tmp_path: Path) -> None:
    other = trained(12, seed=3, learning_rate=1e-3)
    other.save(tmp_path / "other.cnnlab")
    for beside in (other, tmp_path / "other.cnnlab", str(tmp_path / "other.cnnlab")):
        lab = cnnlab.Lab(trained(4), beside=beside)
        np.testing.assert_allclose(trace(lab, "beside cost").y, other.cost)
        assert trace(lab, "cost").x.tolist() == [1, 2, 3, 4]
        assert key(lab).endswith("beside: lr 0.001 (here 0.01), seed 3 (here 0)")
        lab.set(learning_rate=1e-3)
        lab.step(2)
        assert len(trace(lab, "beside cost").x) == 12
        lab.reset()
        lab.wait(10)
        assert key(lab).endswith("beside: seed 3 (here 0)")
        lab.close()


def test_the_record_beside_is_sent_once_and_a_frame_holds_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    lab = cnnlab.Lab("question", beside=trained(5), **SMALL)
    names = lab.widgets.figure.names
    monkeypatch.setattr(lab.widgets.figure.state, "send", lambda message, buffers=None: sent.append(message))
    lab.step(3)
    places = [entry[1] for message in sent for entry in message["arrays"] if entry[0] == "data"]
    places += [place[1] for message in sent for place, _ in message["plain"] if place[0] == "data"]
    assert names.index("cost") in places
    assert [names[place] for place in places if names[place].startswith("beside ")] == []
    lab.close()


def test_what_hints_hide_is_hidden_of_the_record_beside_until_it_is_shown() -> None:
    other = trained(3)
    table = other.table.copy()
    table[1:, list(GAUGES).index("sharpness")] = 5.0
    lab = cnnlab.Lab("question", hints=False, beside=dataclasses.replace(other, table=table), **SMALL)
    assert len(trace(lab, "beside sharpness").y) == 0
    lab.show_forecast()
    assert trace(lab, "beside sharpness").y.tolist() == [5.0] * 3
    lab.close()


def test_without_a_record_beside_nothing_of_one_is_sent() -> None:
    lab = cnnlab.Lab("question", **SMALL)
    assert [name for name in lab.widgets.figure.names if name.startswith("beside")] == []
    lab.close()


@pytest.mark.parametrize("value", [3, b"bytes", ["question"]])
def test_what_is_no_record_is_refused_in_a_sentence(value: Any) -> None:
    with pytest.raises(TypeError, match=r"beside must be a Record or the name of a file that cnnlab\.load reads, got"):
        cnnlab.Lab("question", beside=value, **SMALL)
    with pytest.raises(FileNotFoundError, match=r"there is no file nowhere\.cnnlab"):
        cnnlab.Lab("nowhere.cnnlab")
