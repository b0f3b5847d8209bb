"""A record survives in one file, to the bit; whatever else lies there is refused in one sentence, and never run."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from handmade import record_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import cnnlab
from cnnlab.config.settings import KNOB_FIELDS
from cnnlab.records import archive
from cnnlab.records.record import Branch, Record, Snapshot
from cnnlab.training.run import Run

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 12}
VERSION_1 = Path(__file__).parents[1] / "data" / "version_1.cnnlab"


def forked() -> Record:
    """A record with a change of knobs, NaN and inf, and two other branches."""
    run = Run("question", **SMALL, cost="softmax_log", learning_rate=1e-3)
    run.advance(6)
    run.set(learning_rate=1e4, momentum=0.5)
    run.advance(20)
    twin = run.fork(4, clip="norm")
    twin.advance(11)
    third = twin.fork(9)
    third.advance(1)
    return dataclasses.replace(run.record, others=(twin.record, third.record))


@pytest.fixture(scope="module")
def record() -> Record:
    return forked()


@pytest.fixture(scope="module")
def saved(record: Record, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record's file; no test may change it."""
    path = tmp_path_factory.mktemp("saved") / "explosion.cnnlab"
    record.save(path)
    return path


def all_of(record: Record) -> dict[str, object]:
    """Everything that a record holds, its own branch alone, in values that can be compared to the bit."""
    last = len(record)
    return {
        "plain": (record.settings, record.layers, record.watched, record.schedule, record.updates_per_epoch),
        "own network": (record.own_network, record.network),
        "branch": record.branch,
        "table": (record.table.shape, record.table.tobytes()),
        "histograms": (record.histograms.shape, record.histograms[:].tobytes()),
        "signals": (record.signal_histograms.shape, record.signal_histograms[:].tobytes()),
        "kernels": (record.kernels.shape, record.kernels.tobytes()),
        "snapshots": [
            (kept.step, {name: array.tobytes() for name, array in kept.arrays.items()})
            for kept in record.take_snapshots()
            if kept.step <= last
        ],
    }


def same(first: Record, second: Record) -> bool:
    """Whether two records and their trees agree to the bit."""
    pairs = zip((first, *first.others), (second, *second.others), strict=True)
    return all(all_of(one) == all_of(other) for one, other in pairs)


def refusal(path: Path) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(ValueError, match="cannot be loaded: ") as caught:
        cnnlab.load(path)
    said = str(caught.value)
    assert said.startswith(f"{path} cannot be loaded: ")
    assert "\n" not in said
    return said.partition("cannot be loaded: ")[2]


def outcome(path: Path) -> Record | str:
    """What a file holds, or the sentence with which it is refused."""
    try:
        return cnnlab.load(path)
    except ValueError as refused:
        return str(refused)


# Round trips


def test_a_record_comes_back_to_the_bit_with_its_tree_and_snapshots(record: Record, saved: Path) -> None:
    again = cnnlab.load(saved)
    assert same(again, record)
    assert again.first_nonfinite == record.first_nonfinite is not None
    assert repr(again) == repr(record)
    assert len(again.take_snapshots()) > 1
    assert [other.branch for other in again.others] == [Branch(2, 1, 4), Branch(3, 2, 9)]


def test_the_same_record_gives_the_same_file(record: Record, saved: Path, tmp_path: Path) -> None:
    cnnlab.load(saved).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_a_loaded_record_cannot_be_written_to_and_can_be_pickled(record: Record, saved: Path) -> None:
    again = cnnlab.load(saved)
    for array in (again.table, again.kernels, again.histograms.counts, again.take_snapshots()[0].arrays["parameters"]):
        assert not array.flags.writeable
    assert same(pickle.loads(pickle.dumps(again)), record)


def test_states_that_branches_share_are_kept_once(saved: Path) -> None:
    again = cnnlab.load(saved)
    first, twin = (branch.take_snapshots()[0].arrays["parameters"] for branch in (again, again.others[0]))
    assert first is twin


def test_a_record_cut_short_is_saved_as_it_was_then(record: Record, tmp_path: Path) -> None:
    part = record.until(5)
    part.save(tmp_path / "part")
    again = cnnlab.load(tmp_path / "part")
    assert same(again, part)
    assert max(kept.step for kept in again.take_snapshots()) <= 5


def test_a_run_that_was_never_trained_is_saved_too(tmp_path: Path) -> None:
    run = Run("question", **SMALL)
    run.record.save(tmp_path / "new")
    again = Run(cnnlab.load(tmp_path / "new"))
    assert again.step().cost == run.step().cost


def test_numpy_opens_the_arrays_without_cnnlab(record: Record, saved: Path) -> None:
    with np.load(saved, allow_pickle=False) as arrays:
        assert arrays["branch_1/table"].tobytes() == record.table.tobytes()


def test_saving_and_loading_need_no_torch(saved: Path) -> None:
    code = "import sys, cnnlab; r = cnnlab.load(sys.argv[1]); r.save(sys.argv[2]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, saved, saved.with_name("without_torch")], check=True)


def test_ten_thousand_updates_are_saved_and_loaded(tmp_path: Path) -> None:
    """Of a small network and its states they are 16 MB: tests/benchmarks/results/files.md."""
    record = record_of(np.arange(10_000))
    record.save(tmp_path / "long")
    assert same(cnnlab.load(tmp_path / "long"), record)
    assert (tmp_path / "long").stat().st_size < 10_000 * (record.table.itemsize * record.table.shape[1] + 100)


ANY_FLOAT = st.floats(width=64, allow_nan=True, allow_infinity=True, allow_subnormal=True)


@given(
    costs=arrays_of.arrays(np.float64, st.integers(0, 9), elements=ANY_FLOAT),
    layers=st.lists(st.text(max_size=9), min_size=1, max_size=3, unique=True),
    snapshots=st.dictionaries(st.text(max_size=9), arrays_of.arrays(np.uint8, st.integers(0, 9)), max_size=3),
)
def test_any_numbers_and_names_come_back(
    costs: np.ndarray, layers: list[str], snapshots: dict, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kept = Snapshot(0, {"parameters": np.zeros(4, np.uint8), **snapshots})
    record = dataclasses.replace(record_of(costs, layers=tuple(layers)), take_snapshots=lambda: (kept,))
    path = tmp_path_factory.getbasetemp() / "any"
    record.save(path)
    assert same(cnnlab.load(path), record)


def test_a_file_of_version_1_still_opens() -> None:
    record = cnnlab.load(VERSION_1)
    np.testing.assert_array_equal(
        record.cost, [0.6931642889976501, 0.6931837797164917, 4.271328926086426, math.inf, math.nan]
    )
    assert record.first_nonfinite == 4
    assert (record.settings.cost, record.settings.hidden, record.settings.momentum) == ("softmax_log", (2, 2), 0.5)
    assert record.watched == ("hid1.weight[0,0]",)
    (twin,) = record.others
    assert twin.branch == Branch(2, 1, 2)
    assert twin.frames[-1].knobs.learning_rate == 1e-3
    assert [kept.step for kept in record.take_snapshots()] == [0, 5]
    run = Run(record)
    run.advance(1)
    assert run.updates == 6


# Refusals


@settings(max_examples=300)
@given(place=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_noticed(place: int, bit: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = bytearray(VERSION_1.read_bytes())
    whole[place % len(whole)] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(whole)
    assert refusal(path) in {
        "it was altered or cut short since it was saved",
        "it is not a record that cnnlab saved",
    }


@given(size=st.integers(0, 10**9))
def test_a_file_cut_short_anywhere_is_refused(size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = VERSION_1.read_bytes()
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(whole[: size % len(whole)])
    refusal(path)


@pytest.mark.parametrize("added", [b"\0", b"PK", VERSION_1.read_bytes()])
def test_a_file_with_something_after_it_is_refused(added: bytes, tmp_path: Path) -> None:
    path = tmp_path / "longer"
    path.write_bytes(VERSION_1.read_bytes() + added)
    if added == VERSION_1.read_bytes():
        assert "altered" in refusal(path)
    refusal(path)


def npz() -> bytes:
    """An npz of something else."""
    stream = io.BytesIO()
    np.savez(stream, weights=np.zeros(3))
    return stream.getvalue()


FOREIGN = {
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "pickle": pickle.dumps({"cost": 1.0}),
    "npz": npz(),
    "text": b"cost,step\n" * 40,
    "zeros": bytes(10_000),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_record_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    path.write_bytes(FOREIGN[kind])
    assert refusal(path) == "it is not a record that cnnlab saved"


def test_an_empty_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert refusal(tmp_path / "empty") == "it is empty"
    assert refusal(tmp_path) == "it is a folder"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == "it is no ordinary file"


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^there is no file .*nowhere$"):
        cnnlab.load(tmp_path / "nowhere")


def parts(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Header and arrays of a file, to be changed; the arrays are copies."""
    with archive.open_archive(path) as (header, stored):
        arrays = {name: array.whole for name, array in stored.items()}
    return header, {name: array.copy() for name, array in arrays.items()}


def forged(path: Path, header: object, members: dict[str, bytes], **zipped: object) -> Path:
    """A stranger's file: whatever header and members he likes, under a digest that is right."""
    with zipfile.ZipFile(path, "w", **zipped) as file:
        file.comment = bytes(archive.DIGITS)
        file.writestr(zipfile.ZipInfo(archive.HEADER), header if isinstance(header, bytes) else json.dumps(header))
        for name, content in members.items():
            file.writestr(name, content)
    return sealed(path)


def sealed(path: Path) -> Path:
    """The file with the digest that it ought to have."""
    with open(path, "rb+") as file:
        digest = archive.compute_digest(file, file.seek(0, os.SEEK_END) - archive.DIGITS)
        file.seek(-archive.DIGITS, os.SEEK_END)
        file.write(digest)
    return path


def npy(array: np.ndarray, **options: bool) -> bytes:
    """The bytes of an .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


OURS = {"format": archive.FORMAT, "version": archive.VERSION, "branches": []}


class Bomb:
    """What a stranger would like to have run."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("exploded"),))


def test_a_stranger_s_file_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickled = npy(np.array([Bomb()], dtype=object), allow_pickle=True)
    path = forged(tmp_path / "bomb", OURS, {"branch_1/table.npy": pickled})
    assert refusal(path).startswith("an array in it may be of")
    forged(path, OURS, {"branch_1/table.npy": pickle.dumps(Bomb())})
    refusal(path)
    assert not Path("exploded").exists()


def test_a_later_version_says_that_it_is_one(tmp_path: Path) -> None:
    path = forged(tmp_path / "later", {**OURS, "version": 2}, {"unheard_of.npy": b"?"})
    assert "it is of version 2 of the format, and this cnnlab reads those up to 1" in refusal(path)


@pytest.mark.parametrize("version", [0, -1, None, "1", 1.5, [1], 10**30])
def test_a_version_that_never_was_is_refused(version: object, tmp_path: Path) -> None:
    assert "version" in refusal(forged(tmp_path / "odd", {**OURS, "version": version}, {}))


def test_something_compressed_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = forged(tmp_path / "bomb", OURS, {}, compression=zipfile.ZIP_STORED)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("a.npy", bytes(30 * 2**20), zipfile.ZIP_DEFLATED)
        file.comment = bytes(archive.DIGITS)
    assert path.stat().st_size < 2**20
    assert refusal(sealed(path)) == "it holds something compressed"


HUGE = [(10**15,), (2**62, 4), (-1, -(2**20)), (10**30,), (10**12, 10**12, 0, 3, 10**40), (2**63,)]


@pytest.mark.parametrize("shape", HUGE, ids=str)
def test_an_array_that_says_it_is_enormous_is_refused_before_memory_is_asked_for(shape: tuple, tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    path = forged(tmp_path / "huge", OURS, {"branch_1/table.npy": stream.getvalue() + bytes(80)})
    refusal(path)


def test_members_that_say_they_are_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    path = forged(tmp_path / "huge", OURS, {"a.npy": npy(np.zeros(3))})
    whole = bytearray(path.read_bytes())
    directory = whole.rindex(b"PK\1\2")
    whole[directory + 20 : directory + 28] = b"\xf0\xff\xff\x7f" * 2
    path.write_bytes(whole)
    assert refusal(sealed(path)) == "it says that it holds more than it does"


def test_a_file_of_many_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(VERSION_1.read_bytes())
    os.truncate(path, 2**40)
    start = time.perf_counter()
    assert "bytes long at most" in refusal(path)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "header", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": 1e999}', b"9" * 9999], ids=str
)
def test_a_header_that_is_no_header_is_refused(header: bytes, tmp_path: Path) -> None:
    refusal(forged(tmp_path / "header", header, {}))


def changed(header: dict, path: tuple, value: object) -> dict:
    """A header with one value replaced, or taken out where the value is `...`."""
    copied = json.loads(json.dumps(header))
    place = copied
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copied


HEADERS = {
    "branches missing": (("branches",), ..., "branches is missing"),
    "no branch": (("branches",), [], "branches must hold a record"),
    "a branch of nothing": (("branches", 0), None, "settings is missing"),
    "settings of a list": (("branches", 0, "settings"), [1], "settings must be a dict"),
    "a rate below 0": (("branches", 0, "settings", "learning_rate"), -0.1, r"learning_rate must lie in \(0, 1e6\]"),
    "a rate of NaN": (("branches", 0, "settings", "learning_rate"), math.nan, r"learning_rate must lie in \(0, 1e6\]"),
    "an unknown setting": (("branches", 0, "settings", "learning_rat"), 1, "no setting named 'learning_rat'"),
    "an unknown preset": (("branches", 0, "settings", "preset"), "quest", "preset must be one of"),
    "a layer too few": (("branches", 0, "layers"), ["cv0"], "table must be 20 columns wide, got "),
    "no layers": (("branches", 0, "layers"), [], "table must be 9 columns wide"),
    "a layer twice": (("branches", 0, "layers"), ["cv0"] * 9, "layers must differ"),
    "a layer of a number": (("branches", 0, "layers"), [1] * 9, "layers must be texts"),
    "a weight watched more": (("branches", 0, "watched"), ["a", "b"], "table must be"),
    "gauges missing": (("gauges",), ["cost"], "table must be"),
    "an empty schedule": (("branches", 0, "schedule"), [], "schedule must begin at update 1"),
    "a late schedule": (("branches", 0, "schedule"), [[2, {}]], "schedule must begin at update 1"),
    "a schedule out of order": (
        ("branches", 0, "schedule"),
        [[1, {}], [4, {"l1": 1}], [3, {}]],
        "schedule must rise from update to update",
    ),
    "a schedule beyond": (("branches", 0, "schedule"), [[1, {}], [6, {"l1": 1}]], "schedule must end by update 5"),
    "a schedule of others": (("branches", 0, "schedule"), [[1, {"l1": 1}]], "begin with the knobs of the settings"),
    "a knob out of range": (("branches", 0, "schedule"), [[1, {}], [2, {"l1": -1}]], "l1 must lie in"),
    "a knob that is none": (("branches", 0, "schedule"), [[1, {}], [2, {"seed": 1}]], "seed"),
    "a schedule of halves": (("branches", 0, "schedule"), [[1, {}], [2.5, {}]], "pairs of an update and its values"),
    "no epoch": (("branches", 0, "updates_per_epoch"), 0, "updates_per_epoch must be at least 1"),
    "half an epoch": (("branches", 0, "updates_per_epoch"), 0.5, "updates_per_epoch must be a int"),
    "a network of a number": (("branches", 0, "network"), 7, "network must be a str"),
    "a network of a book": (("branches", 0, "network"), "x" * 101, "network must be a line of a few words"),
    "a network of two lines": (("branches", 0, "network"), "a\nb", "network must be a line of a few words"),
    "branch 0": (("branches", 0, "branch", "number"), 0, "branch_0/table is missing"),
    "a parent of its own": (("branches", 1, "branch", "parent"), 2, r"parent must lie in \[1, 1\], got 2"),
    "a branch twice": (("branches", 1, "branch"), {"number": 1, "forked_at": 0}, "ends must be|numbers of their own"),
    "a child's child": (("branches", 0, "branch", "parent"), 2, r"parent must lie in \[1, 0\], got 2"),
    "forked before the start": (("branches", 1, "branch", "forked_at"), -1, "forked_at must be at least 0"),
    "states missing": (("branches", 0, "snapshots"), [[0, {"parameters": 99}]], "states/99 is missing"),
    "no parameters": (("branches", 0, "snapshots"), [[0, {}]], "snapshot at 0 must hold parameters"),
    "a state beyond": (("branches", 0, "snapshots"), [[6, {"parameters": 0}]], r"snapshots must lie in \[0, 5\]"),
    "states out of order": (("branches", 0, "snapshots"), [[3, {"parameters": 0}]] * 2, "snapshots must rise"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_contradicts_itself_is_refused(name: str, tmp_path: Path) -> None:
    place, value, said = HEADERS[name]
    header, arrays = parts(VERSION_1)
    members = {f"{name}.npy": npy(array) for name, array in arrays.items()}
    path = forged(tmp_path / "odd", changed(header, place, value), members)
    with pytest.raises(ValueError, match=said):
        cnnlab.load(path)
    refusal(path)


def wrapping(ends: np.ndarray) -> np.ndarray:
    """Ends whose differences rise only because 64 bits wrap around."""
    ends[1:4] = 2**63 - 1, -(2**63), -1
    return ends


ARRAYS = {
    "table cut": ("table", lambda a: a[:-1], "kernels must be of 5 updates"),
    "table of float32": ("table", lambda a: a.astype(np.float32), "table must be float64 with two axes"),
    "table of one axis": ("table", np.ravel, "table must be float64 with two axes"),
    "table of nothing": ("table", lambda a: a[:0], "table must hold the start"),
    "kernels of one axis": ("kernels", np.ravel, "kernels must be float32 with four axes"),
    "ends too few": ("ends", lambda a: a[:-1], "ends must be 7 numbers"),
    "ends of two axes": ("ends", lambda a: a[:, None], "ends must be int64 with one axis"),
    "ends falling": ("ends", lambda a: a[[0, 2, 1, 3, 4, 5, 6]], "ends must rise from 0"),
    "ends below 0": ("ends", lambda a: a - 1, "ends must rise from 0"),
    "ends that wrap around": ("ends", wrapping, "ends must rise from 0"),
    "counts beyond their ends": ("ends", lambda a: a + (np.arange(7) == 6), "places and counts must be"),
    "counts too few": ("counts", lambda a: a[:-1], "places and counts must be"),
    "counts below 1": ("counts", lambda a: a - a.max(), "counts must be above 0"),
    "counts of float": ("counts", lambda a: a.astype(np.float64), "counts must be int32 with one axis"),
    "places beyond": ("places", lambda a: a + np.uint32(2304), r"places must lie in \[0, 2303\]"),
    "places backwards": ("places", lambda a: a[::-1].copy(), "places must rise within an update"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_contradict_each_other_are_refused(name: str, tmp_path: Path) -> None:
    array, change, said = ARRAYS[name]
    header, arrays = parts(VERSION_1)
    arrays[f"branch_1/{array}"] = change(arrays[f"branch_1/{array}"])
    archive.write(tmp_path / "odd", header, arrays)
    with pytest.raises(ValueError, match=said):
        cnnlab.load(tmp_path / "odd")


def test_an_array_that_is_missing_is_named(tmp_path: Path) -> None:
    header, arrays = parts(VERSION_1)
    del arrays["branch_2/kernels"]
    archive.write(tmp_path / "odd", header, arrays)
    assert refusal(tmp_path / "odd") == "the array branch_2/kernels is missing"


def test_a_gauge_that_an_older_cnnlab_did_not_measure_is_nan(tmp_path: Path) -> None:
    header, arrays = parts(VERSION_1)
    for branch in (1, 2):
        arrays[f"branch_{branch}/table"] = np.delete(arrays[f"branch_{branch}/table"], 3, axis=1)
    header["gauges"].pop(3)
    archive.write(tmp_path / "older", header, arrays)
    older, whole = cnnlab.load(tmp_path / "older"), cnnlab.load(VERSION_1)
    assert np.isnan(older.accuracy).all()
    assert older.logit_gap.tobytes() == whole.logit_gap.tobytes()
    assert older.watched_values.tobytes() == whole.watched_values.tobytes()


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_a_stranger_writes_into_the_header_is_loaded_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing but a ValueError of one sentence comes of it."""
    header, arrays = parts(VERSION_1)
    path: list = []
    place: object = header
    while isinstance(place, (dict, list)) and place and (not path or data.draw(st.booleans())):
        path.append(data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))))
        place = place[path[-1]]
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    value = data.draw(st.recursive(leaf, lambda more: st.lists(more) | st.dictionaries(st.text(max_size=5), more)))
    file = tmp_path_factory.getbasetemp() / "stranger"
    forged(file, changed(header, tuple(path), value), {f"{name}.npy": npy(array) for name, array in arrays.items()})
    came = outcome(file)
    assert isinstance(came, Record) or (came.startswith(f"{file} cannot be loaded: ") and "\n" not in came)


def test_a_knob_changed_at_each_of_a_hundred_thousand_updates_is_saved_and_loaded(tmp_path: Path) -> None:
    record = record_of(np.arange(100_000), layers=("only",))
    rates = ((step, dataclasses.replace(record.settings.knobs, learning_rate=1 / step)) for step in range(2, 100_001))
    record = dataclasses.replace(record, schedule=(*record.schedule, *rates))
    record.save(tmp_path / "long")
    assert cnnlab.load(tmp_path / "long").schedule == record.schedule


def test_a_schedule_that_could_not_be_read_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = record_of([1.0])
    record.save(tmp_path / "film")
    monkeypatch.setattr("cnnlab.records.bounded_json.MOST_MEMORY", 1000)
    said = r"its text may take 0 MiB of memory, got 0 MiB: it holds too many lists, objects and values"
    with pytest.raises(ValueError, match=f"film cannot hold this: {said}"):
        record.save(tmp_path / "film")
    assert refusal(tmp_path / "film") == said


def test_a_table_that_lacks_gauges_may_grow_only_so_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header, arrays = parts(VERSION_1)
    for branch in (1, 2):
        lacking = range(1, len(header["gauges"]))
        arrays[f"branch_{branch}/table"] = np.delete(arrays[f"branch_{branch}/table"], lacking, axis=1)
    del header["gauges"][1:]
    archive.write(tmp_path / "older", header, arrays)
    assert np.isnan(cnnlab.load(tmp_path / "older").accuracy).all()
    monkeypatch.setattr("cnnlab.records.storage.ROOM", -50_000)
    assert refusal(tmp_path / "older") == "its tables lack so many gauges that they would take 0 MiB"


KERNELS = {
    "no numbers, a million rows": (6, 0, 1_000_000, 1),
    "no rows": (6, 3, 0, 1),
    "no columns": (6, 3, 3, 0),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_without_numbers_have_no_size(name: str, tmp_path: Path) -> None:
    header, arrays = parts(VERSION_1)
    arrays["branch_1/kernels"] = np.zeros(KERNELS[name], np.float32)
    archive.write(tmp_path / "odd", header, arrays)
    assert refusal(tmp_path / "odd") == f"kernels must hold numbers, got the shape {KERNELS[name]}"


def test_places_are_looked_at_across_the_ends_of_pieces(
    record: Record, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for piece in (1, 2, 7):
        monkeypatch.setattr("cnnlab.records.validation.PIECE", piece)
        assert same(cnnlab.load(saved), record)
        for name in ("places backwards", "places beyond", "counts below 1"):
            array, change, said = ARRAYS[name]
            header, arrays = parts(VERSION_1)
            arrays[f"branch_1/{array}"] = change(arrays[f"branch_1/{array}"])
            archive.write(tmp_path / "odd", header, arrays)
            with pytest.raises(ValueError, match=said):
                cnnlab.load(tmp_path / "odd")


def test_a_refused_file_is_not_read_further_than_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header, arrays = parts(VERSION_1)
    header["branches"][1]["branch"]["parent"] = 2
    archive.write(tmp_path / "odd", header, arrays)
    monkeypatch.setattr(archive.Stored, "__getitem__", lambda *_: pytest.fail("an array was read"))
    assert "parent must lie in" in refusal(tmp_path / "odd")


# At one stroke


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_while_saving_leaves_the_old_file_and_nothing_else(
    name: str, error: type, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept"
    path.write_bytes(VERSION_1.read_bytes())

    def fails(*_arguments: object) -> None:
        raise error("no space left on device")

    monkeypatch.setattr(os, name, fails)
    with pytest.raises(error, match="no space left"):
        record.save(path)
    assert path.read_bytes() == VERSION_1.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_is_on_the_disk_before_it_takes_the_old_one_s_place(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=original: (called.append(n), f(*a)))
    record.save(tmp_path / "new")
    assert called[:2] == ["fsync", "replace"]


def test_a_link_goes_on_to_point_to_the_file(record: Record, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    record.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert same(cnnlab.load(tmp_path / "file"), record)


SAVER = """
import itertools, sys, cnnlab
records = [cnnlab.load(path) for path in sys.argv[2:]]
for record in itertools.cycle(records):
    record.save(sys.argv[1])
    print("saved", flush=True)
"""


def test_a_kill_at_any_moment_leaves_the_old_record_or_the_new(tmp_path: Path) -> None:
    """The saver of two records in turn is killed 20 times, somewhere within its saving."""
    chance = random.Random(3)
    sources, records = [], []
    for updates in (300, 400):
        run = Run("question", **SMALL)
        run.advance(updates)
        sources.append(tmp_path / f"source_{updates}")
        records.append(run.record)
        records[-1].save(sources[-1])
    folder = tmp_path / "saved"
    folder.mkdir()
    path = folder / "film.cnnlab"
    left_parts = 0
    for _ in range(20):
        saver = subprocess.Popen([sys.executable, "-c", SAVER, path, *sources], stdout=subprocess.PIPE, text=True)
        assert saver.stdout is not None
        assert saver.stdout.readline() == "saved\n"
        time.sleep(chance.uniform(0, 0.03))
        saver.send_signal(signal.SIGKILL)
        saver.wait()
        saver.stdout.close()
        found = cnnlab.load(path)
        assert any(same(found, record) for record in records)
        left = list(folder.glob(".*.part"))
        assert len(left) <= 1, "a save leaves the part of an earlier one"
        left_parts += len(left)
    assert left_parts, "no kill came in the middle of a save, so that nothing was tested"


def test_a_folder_that_is_missing_or_is_the_file_is_named(record: Record, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere to save in"):
        record.save(tmp_path / "nowhere" / "film")
    with pytest.raises(ValueError, match="is a folder, not a file to save in"):
        record.save(tmp_path)


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = record_of([1.0])
    with pytest.raises(ValueError, match="the record cannot be saved: branches must have numbers of their own"):
        dataclasses.replace(record, others=(record_of([2.0]),)).save(tmp_path / "twice")
    monkeypatch.setattr(archive, "MOST_BYTES", 2000)
    with pytest.raises(ValueError, match="cannot hold this: it may hold"):
        record.save(tmp_path / "large")
    assert not list(tmp_path.iterdir())


# A run from a record


def alike(first: Run, second: Run) -> bool:
    """Whether two runs stand at the same place, to the bit, with the same past."""
    ours, theirs = (all_of(run.record) for run in (first, second))
    return (ours["table"], ours["histograms"], ours["kernels"], ours["plain"]) == (
        theirs["table"],
        theirs["histograms"],
        theirs["kernels"],
        theirs["plain"],
    ) and first.parameters.equal(second.parameters)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("changes", [{}, {"momentum": 0.9, "clip": "norm"}, {"batch_size": 5, "l2": 0.1}], ids=str)
def test_a_run_goes_on_from_a_file_to_the_bit(precision: str, changes: dict, tmp_path: Path) -> None:
    run = Run("question", **SMALL, precision=precision, learning_rate=1e-3, **changes)
    run.advance(20)
    run.set(learning_rate=1e-4)
    run.advance(23)
    run.record.save(tmp_path / "film")
    again = Run(cnnlab.load(tmp_path / "film"))
    assert again.settings == run.settings
    for each in (run, again):
        each.advance(7)
        each.set(momentum=0.5)
        each.advance(10)
    assert alike(again, run)
    for each in (run, again):
        each.rewind(31)
        each.advance(3)
    assert alike(again, run)


def test_a_run_goes_on_from_the_middle_of_a_record() -> None:
    run = Run("question", **SMALL, momentum=0.9)
    run.advance(70)
    again, straight = Run(run.record.until(45)), Run("question", **SMALL, momentum=0.9)
    again.advance(5)
    straight.advance(50)
    assert alike(again, straight)


def test_a_run_from_a_record_leaves_the_record_as_it_was(record: Record, saved: Path) -> None:
    loaded = cnnlab.load(saved)
    run = Run(loaded)
    run.rewind(3)
    run.advance(5)
    assert same(loaded, record)


def test_a_fork_after_loading_has_a_number_of_its_own(saved: Path) -> None:
    loaded = cnnlab.load(saved)
    run = Run(loaded.others[0])
    assert run.record.branch == Branch(2, 1, 4)
    assert Run(loaded).fork(2).branch == Branch(4, 1, 2)


def test_a_small_budget_holds_after_loading_too(saved: Path) -> None:
    run = Run(cnnlab.load(saved), history_bytes=1)
    assert len(run.history.states) == 2
    run.rewind(13)
    assert run.updates == 13


def own(hidden: int = 8, examples: int = 20) -> dict:
    """A network of a reader's own, with buffers and chance."""
    import torch
    from torch import nn

    torch_seed = torch.Generator().manual_seed(1)
    x = torch.randn(examples, 3, generator=torch_seed)
    network = nn.Sequential(nn.Linear(3, hidden), nn.BatchNorm1d(hidden), nn.Dropout(0.5), nn.Linear(hidden, 2))
    return {"network": network, "data": (x, torch.arange(examples) % 2), "cost": nn.functional.cross_entropy}


def test_a_network_of_one_s_own_goes_on_with_its_buffers_to_the_bit(tmp_path: Path) -> None:
    run = Run(**own(), batch_size=6, momentum=0.9)
    run.advance(41)
    run.record.save(tmp_path / "own")
    loaded = cnnlab.load(tmp_path / "own")
    assert loaded.own_network
    again = Run(loaded, **own())
    for each in (run, again):
        each.advance(9)
    assert alike(again, run)
    assert again.state.buffers.keys() == run.state.buffers.keys()
    for name, buffer in run.state.buffers.items():
        assert again.state.buffers[name].equal(buffer)
        assert again.state.buffers[name].dtype == buffer.dtype
    assert again.state.buffers["1.num_batches_tracked"] == 50


def test_a_network_of_one_s_own_may_have_one_of_the_question_s_costs(tmp_path: Path) -> None:
    run = Run(**{**own(), "cost": "softmax_log"}, epsilon=1e-6)
    run.advance(3)
    again = Run(run.record, **{**own(), "cost": "softmax_log"})
    assert again.step().cost == run.step().cost
    with pytest.raises(TypeError, match="cost is that of the record, 'softmax_log', got 'log_softmax'"):
        Run(run.record, **{**own(), "cost": "log_softmax"})


def test_a_record_of_another_network_or_other_data_is_refused() -> None:
    run = Run(**own(), batch_size=6)
    run.advance(2)
    with pytest.raises(ValueError, match="the record is of a network of your own: give it again as network=, data="):
        Run(run.record)
    with pytest.raises(ValueError, match=r"the record has layers \('0', '1', '3'\), but the run \('cv0', "):
        Run(dataclasses.replace(run.record, own_network=False))
    with pytest.raises(ValueError, match=r"state at update 0 does not fit the network: it holds parameters \(") as said:
        Run(run.record, **own(hidden=9))
    assert "\n" not in str(said.value)
    with pytest.raises(ValueError, match="the record has updates in an epoch: 4, but the run 7"):
        Run(run.record, **own(examples=40))


def test_a_record_without_its_states_is_refused() -> None:
    run = Run("question", **SMALL)
    run.advance(2)
    with pytest.raises(ValueError, match="a record must hold the state at its start to be gone on with"):
        Run(dataclasses.replace(run.record, take_snapshots=tuple))


def test_settings_and_watched_weights_are_those_of_the_record(record: Record) -> None:
    with pytest.raises(TypeError, match=r"learning_rate is that of the record, 0\.001, got 0\.5: change it with set"):
        Run(record, learning_rate=0.5)
    with pytest.raises(TypeError, match="did you mean 'learning_rate'"):
        Run(record, learning_rat=0.5)
    with pytest.raises(TypeError, match="watch is that of the record"):
        Run(record, watch=["cv0.bias[0]"])
    assert Run(record, device="cpu", watch=record.watched).updates == len(record)


# A record as data


def test_a_data_frame_has_a_row_an_update(record: Record) -> None:
    frame = record.to_dataframe()
    assert frame["step"].tolist() == record.steps.tolist()
    np.testing.assert_array_equal(frame["cost"], record.cost)
    np.testing.assert_array_equal(frame["epoch"], [each.epoch for each in record.frames])
    np.testing.assert_array_equal(frame["weight_norm.hid1"], record.weight_norm[:, record.layers.index("hid1")])
    np.testing.assert_array_equal(frame["learning_rate"], [each.knobs.learning_rate for each in record.frames])
    assert frame["clip"].tolist() == ["off"] * len(record)
    np.testing.assert_array_equal(frame[record.watched[-1]], record.watched_values[1:, -1])
    assert frame.shape == (len(record), 2 + record.table.shape[1] + len(KNOB_FIELDS))


def test_a_data_frame_of_nothing_has_its_columns() -> None:
    frame = Run("question", **SMALL).record.to_dataframe()
    assert len(frame) == 0
    assert {"step", "epoch", "cost", "dead_relu.cv0", "penalty_in"} <= set(frame.columns)


def test_without_pandas_one_sentence_says_so(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^to_dataframe needs pandas: install it with `pip install pandas`$"):
        record.to_dataframe()


def test_a_layer_is_known_by_its_name(record: Record) -> None:
    layer = record.layer("cv5")
    assert layer["gradient_norm"].tobytes() == record.gradient_norm[:, 5].tobytes()
    assert set(layer) == set(cnnlab.records.frame.LAYER_GAUGES)
    with pytest.raises(ValueError, match=r"layer must be one of 'cv0', .*, got 'cv9'; did you mean 'cv"):
        record.layer("cv9")


def test_a_branch_says_where_it_left_the_first_and_the_first_does_not(record: Record) -> None:
    assert repr(record.others[0]).endswith(", branch 2, forked at 4)")
    assert "branch" not in repr(record)
    assert "\n" not in repr(record.others[0])
