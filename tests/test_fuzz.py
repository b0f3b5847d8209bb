"""A short fuzz of every kind finds nothing; each kind finds an old fault of its own once that is planted again."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace

import fuzz
import numpy as np
import pytest
from fuzzing import invariants
from fuzzing.mutations import GONE, changed
from torch.optim import Optimizer

import cnnlab
from cnnlab.config import links
from cnnlab.config.settings import Number, settings
from cnnlab.dashboards.lab import Lab
from cnnlab.dashboards.messages import obey
from cnnlab.dashboards.worker import Worker
from cnnlab.records import archive
from cnnlab.records import map as maps
from cnnlab.records import own_image as given_image
from cnnlab.records import storage as files
from cnnlab.records.autosave import Autosave
from cnnlab.records.log import Log
from cnnlab.records.record import Record

SEED = 0


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_short_fuzz_finds_nothing(kind: str) -> None:
    told: list[str] = []
    tally = fuzz.fuzz(kind, SEED, range(fuzz.KINDS[kind].cases), told.append)
    assert not tally.failed, "\n".join(told)
    assert tally.opened > tally.cases / 50  # or nothing was looked at that was let in


@pytest.mark.parametrize("kind", ["records", "journals", "maps", "links", "settings", "images"])
def test_what_nothing_was_changed_in_is_opened(kind: str) -> None:
    assert fuzz.tried(kind, []) == (1, 0)


def let_errors_end_the_thread(patch: pytest.MonkeyPatch) -> None:
    usual = Worker._refuse

    def work(self: Worker, error: BaseException) -> None:
        usual(self, error)
        raise error

    patch.setattr(Worker, "_refuse", work)


def record_no_change_of_a_knob(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Log, "change_knobs", lambda self, step, knobs: None)


def never_return(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(invariants, "BOUND", 1.0)
    patch.setattr(Lab, "look_at", lambda self, step: threading.Event().wait())


def let_errors_of_messages_escape(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lab, "received", obey)


def check_no_record(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(files, "check_tree", lambda tree: None)


def open_what_was_altered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(archive, "refuse_broken", lambda file, size: None)


def believe_maps(patch: pytest.MonkeyPatch) -> None:
    def load(path: Path) -> maps.Map:
        told = json.loads(path.read_text().splitlines()[0])
        axes = tuple((name, tuple(values)) for name, values in told["axes"])
        return maps.Map.empty(settings(**told["settings"]), axes, tuple(told["seeds"]), told["steps"])

    patch.setattr(maps.Map, "load", load)


def take_any_text_for_an_update(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(links, "UPDATE", re.compile(".*"))


def take_any_value_for_a_number(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Number, "check", lambda self, name, value: value and float(value))


def unpack_any_picture(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(given_image, "convert_picture", lambda picture, *more: np.array(picture.convert("L")))


def leave_hooks(patch: pytest.MonkeyPatch) -> None:
    usual, handle = Optimizer.register_step_post_hook, SimpleNamespace(remove=lambda: None)
    patch.setattr(Optimizer, "register_step_post_hook", lambda self, hook: (usual(self, hook), handle)[1])


def call_what_was_not_measured_nan(patch: pytest.MonkeyPatch) -> None:
    found = lambda self: next((step for step, cost in enumerate(self.cost, 1) if not np.isfinite(cost)), None)  # noqa: E731
    patch.setattr(Record, "first_nonfinite", property(found))


def tidy_any_file(patch: pytest.MonkeyPatch) -> None:
    usual = Autosave.__init__

    def careless(self: Autosave, path: Path | None = None, *more: object) -> None:
        old = [each for each in (path.parent.glob("*.cnnlab*") if path else ()) if each.is_file()]
        [each.unlink() for each in old if time.time() - each.stat().st_mtime > 7 * 86_400]
        usual(self, path, *more)

    patch.setattr(Autosave, "__init__", careless)


PLANTED: dict[Callable[[pytest.MonkeyPatch], None], tuple[str, str]] = {
    let_errors_end_the_thread: ("controls", "the thread cnnlab-worker dies of"),
    record_no_change_of_a_knob: ("controls", "a replay has other costs"),
    never_return: ("controls", "no answer within 1 s"),
    let_errors_of_messages_escape: ("messages", "Error escapes"),
    check_no_record: ("records", "^records: (?!Fault)"),
    open_what_was_altered: ("records", "a file that was altered is opened"),
    believe_maps: ("maps", "(Key|Attribute)Error escapes"),
    take_any_text_for_an_update: ("links", "invalid literal"),
    take_any_value_for_a_number: ("settings", "could not convert|argument must be"),
    unpack_any_picture: ("images", "escapes"),
    leave_hooks: ("loops", "hooks are left on an optimiser"),
    call_what_was_not_measured_nan: ("loops", "a cost that was not measured is called NaN"),
    tidy_any_file: ("autosave", "autosave takes a person's file"),
}
"""An old fault, planted again -> the kind of fuzz that finds it, and what is said of it."""


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_an_old_fault_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    kind, said = PLANTED[plant]
    plant(monkeypatch)
    monkeypatch.setattr(fuzz, "SHRINKING", 1.0)
    found: list[str] = []
    numbers = takewhile(lambda _: not found, range(fuzz.KINDS[kind].cases))
    fuzz.fuzz(kind, SEED, numbers, lambda told: found.append(told) if re.search(said, told) else None)
    assert found


def test_a_failure_is_told_with_as_few_moves_as_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    take_any_value_for_a_number(monkeypatch)
    tally = fuzz.fuzz("settings", SEED, range(60), lambda told: None)
    assert {len(failure.moves) for failure in tally.faults.values()} <= {1, 2}
    failure = next(iter(tally.faults.values()))
    assert str(fuzz.tried("settings", failure.moves)) == str(failure.error)
    assert f"--kind settings --seed 0 --case {failure.number}" in str(failure)


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_the_cases_of_a_seed_are_always_the_same_and_of_another_seed_others(kind: str) -> None:
    first, again, other = ([repr(fuzz.moves_of(kind, seed, number)) for number in range(20)] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_change_leaves_the_value_that_it_is_made_of_as_it_was() -> None:
    value = {"a": [1, {"b": 2}], "c": 3}
    assert changed(value, [(("a", 1, "b"), 5), (("c",), GONE), (("a", 7), 1), (("x", "y"), 1)]) == {"a": [1, {"b": 5}]}
    assert value == {"a": [1, {"b": 2}], "c": 3}


def test_a_fuzz_leaves_the_alarm_of_pytest_as_it_was() -> None:
    before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0
    fuzz.fuzz("settings", SEED, range(3))
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0) == before


def test_the_command_prints_a_table_and_says_by_its_status_whether_anything_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take_any_value_for_a_number(monkeypatch)
    assert fuzz.main(["--kind", "settings", "--minutes", "0.02"]) == 1
    assert re.search(
        r"^kind +cases +opened +refused +failed +faults +seconds\nsettings ", capsys.readouterr().out, re.M
    )
    monkeypatch.undo()
    monkeypatch.setitem(fuzz.KINDS, "settings", fuzz.Kind(lambda random: [], lambda moves, folder: True, 1))
    assert fuzz.main(["--kind", "settings", "--case", "0"]) == 0


def test_the_package_is_the_one_whose_lines_are_named() -> None:
    error = fuzz.tried("settings", [("tree", ("seed",), -1), ("by keyword",)])
    assert error == (0, 1)
    assert Path(cnnlab.__file__).parent == fuzz.PACKAGE
