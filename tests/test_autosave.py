"""A run outlives its kernel: at most a few seconds are lost, and a lab offers to bring it back."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cnnlab
from cnnlab import autosave
from cnnlab.autosave import Autosave, place_of

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "learning_rate": 1e-4}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "lab.cnnlab"


@pytest.fixture
def labs() -> Iterator[list[cnnlab.Lab]]:
    made: list[cnnlab.Lab] = []
    yield made
    for lab in made:
        lab.close()


def killed(lab: cnnlab.Lab) -> None:
    """End a lab as the end of its kernel would: without its own clean-up of the file."""
    lab.worker.autosave.path = None
    lab.close()


def test_a_run_of_a_killed_kernel_is_offered_and_goes_on_to_the_bit(path: Path, labs: list[cnnlab.Lab]) -> None:
    first = cnnlab.Lab("question", autosave=path, **SMALL)
    first.step(9)
    killed(first)
    second = cnnlab.Lab("question", autosave=path, **SMALL)
    labs.append(second)
    assert "interrupted" in second.header.state["offer"]
    assert len(second.record) == 0
    second.received({"do": "bring_back"})
    second.wait(10)
    assert second.record.cost.tobytes() == first.record.cost.tobytes()
    assert second.header.state["offer"] == ""
    second.step(3)
    straight = cnnlab.Run("question", **SMALL)
    straight.advance(12)
    assert second.record.cost.tobytes() == straight.record.cost.tobytes()


def test_the_tree_of_branches_comes_back_too(path: Path, labs: list[cnnlab.Lab]) -> None:
    first = cnnlab.Lab("question", autosave=path, **SMALL)
    first.step(6)
    first.fork(2, momentum=0.9)
    first.step(3)
    killed(first)
    second = cnnlab.Lab("question", autosave=path, **SMALL)
    labs.append(second)
    second.bring_back()
    assert second.record.branch.forked_at == 2
    assert second.settings.momentum == 0.9
    assert [len(other) for other in second.record.others] == [6]


def test_a_new_run_does_not_overwrite_what_is_offered(path: Path, labs: list[cnnlab.Lab]) -> None:
    first = cnnlab.Lab("question", autosave=path, **SMALL)
    first.step(9)
    killed(first)
    second = cnnlab.Lab("question", autosave=path, seed=5, **SMALL)
    labs.append(second)
    second.step(2)
    second.bring_back()
    assert len(second.record) == 9
    assert second.record.settings.seed == 0


def test_an_offer_can_be_left_behind(path: Path, labs: list[cnnlab.Lab]) -> None:
    first = cnnlab.Lab("question", autosave=path, **SMALL)
    first.step(2)
    killed(first)
    second = cnnlab.Lab("question", autosave=path, **SMALL)
    labs.append(second)
    second.received({"do": "leave_behind"})
    assert second.header.state["offer"] == ""
    with pytest.raises(ValueError, match="no run of an earlier kernel"):
        second.bring_back()


def test_a_lab_that_is_closed_by_will_leaves_no_file(path: Path) -> None:
    lab = cnnlab.Lab("question", autosave=path, **SMALL)
    lab.step(2)
    assert path.exists()
    lab.close()
    assert list(path.parent.iterdir()) == []


def test_a_damaged_file_is_told_in_a_sentence_and_the_lab_stays(path: Path, labs: list[cnnlab.Lab]) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a record")
    lab = cnnlab.Lab("question", autosave=path, **SMALL)
    labs.append(lab)
    lab.step(2)
    lab.received({"do": "bring_back"})
    lab.wait(10)
    assert lab.controls.state["problem"]
    assert len(lab.record) == 2


def test_a_disk_that_refuses_is_told_and_training_goes_on(tmp_path: Path, labs: list[cnnlab.Lab]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    lab = cnnlab.Lab("question", autosave=blocked / "lab.cnnlab", **SMALL)
    labs.append(lab)
    lab.step(3)
    lab.step(1)
    assert "could not be kept safe" in lab.header.state["problem"]
    assert len(lab.record) == 4


def test_while_training_it_saves_every_few_seconds_and_only_what_is_new(path: Path) -> None:
    run = cnnlab.Run("question", **SMALL)
    run.step()
    kept = Autosave(path)
    kept.keep(run.record, now=100.0, at_once=False)
    assert len(cnnlab.load(path)) == 1
    run.step()
    kept.keep(run.record, now=100.0 + autosave.EVERY / 2, at_once=False)
    assert len(cnnlab.load(path)) == 1
    kept.keep(run.record, now=100.1 + autosave.EVERY, at_once=False)
    assert len(cnnlab.load(path)) == 2
    stamp = path.stat().st_mtime_ns
    kept.keep(run.record, now=1e6, at_once=True)
    assert path.stat().st_mtime_ns == stamp


def test_a_saving_holds_few_states_however_long_the_run(path: Path) -> None:
    run = cnnlab.Run("question", **SMALL)
    run.advance(60)
    Autosave(path).keep(run.record, now=10.0, at_once=True)
    assert [snapshot.step for snapshot in cnnlab.load(path).take_snapshots()] == [0, 60]
    assert np.array_equal(cnnlab.load(path).cost, run.record.cost)


def test_outside_a_notebook_nothing_is_saved() -> None:
    assert place_of("") is None
    lab = cnnlab.Lab("question", **SMALL)
    lab.step(1)
    assert lab.worker.autosave.path is None
    lab.close()


def test_each_cell_has_a_file_of_its_own() -> None:
    assert place_of("one") != place_of("two")
    assert place_of("one") == place_of("one")
