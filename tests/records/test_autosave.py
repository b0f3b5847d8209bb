"""A run outlives its kernel: at most a few seconds are lost, a lab offers it, and other files are left alone."""

import errno
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import cnnlab
from cnnlab.cli import check as machine
from cnnlab.dashboards import cell as cells
from cnnlab.dashboards import lab
from cnnlab.records import autosave
from cnnlab.records.autosave import Autosave, find_own_folder, list_own_files
from cnnlab.records.journal import Journal
from cnnlab.records.locks import HeldFile

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "learning_rate": 1e-4}
LONG_AGO = time.time() - 30 * 86400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "lab.cnnlab"


@pytest.fixture
def make() -> Iterator[Callable[..., cnnlab.Lab]]:
    made: list[cnnlab.Lab] = []

    def lab_of(**changes: object) -> cnnlab.Lab:
        made.append(cnnlab.Lab("question", **{**SMALL, **changes}))
        return made[-1]

    yield lab_of
    for one in made:
        one.close()


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str, int], None]]:
    """Sets the cell that runs now, in a notebook whose autosaves lie in a folder of the test's own."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")

    def run(name: str, count: int) -> None:
        for module in (cells, lab):
            monkeypatch.setattr(module, "get_current_cell", lambda: (name, count))

    run("cell", 1)
    return run


def killed(one: cnnlab.Lab) -> None:
    """End a lab as the end of its kernel would: its file stays, and nobody holds it any more."""
    kept = one.worker.autosave
    if kept.journal is not None:
        kept.journal.held.file.close()
    if kept.offered is not None:
        kept.offered.file.close()
    one.worker.autosave = Autosave()
    one.close()


def everything_in(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Name, content and time of all files below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_run_of_a_killed_kernel_is_offered_and_goes_on_to_the_bit(path, make):
    first = make(autosave=path)
    first.step(9)
    killed(first)
    second = make(autosave=path)
    assert "interrupted" in second.widgets.header.state["offer"]
    assert len(second.record) == 0
    second.received({"do": "bring_back"})
    second.wait(10)
    assert second.record.cost.tobytes() == first.record.cost.tobytes()
    assert second.widgets.header.state["offer"] == ""
    second.step(3)
    straight = cnnlab.Run("question", **SMALL)
    straight.advance(12)
    assert second.record.cost.tobytes() == straight.record.cost.tobytes()


def test_the_tree_of_branches_comes_back_too(path, make):
    first = make(autosave=path)
    first.step(6)
    first.fork(2, momentum=0.9)
    first.step(3)
    killed(first)
    second = make(autosave=path)
    second.bring_back()
    assert second.record.branch.forked_at == 2
    assert second.settings.momentum == 0.9
    assert [len(other) for other in second.record.others] == [6]


def test_a_new_run_does_not_overwrite_what_is_offered(path, make):
    first = make(autosave=path)
    first.step(9)
    killed(first)
    second = make(autosave=path, seed=5)
    second.step(2)
    second.bring_back()
    assert len(second.record) == 9
    assert second.record.settings.seed == 0


def test_what_was_brought_back_is_kept_before_what_was_offered_is_forgotten(path, make):
    first = make(autosave=path)
    first.step(9)
    killed(first)
    second = make(autosave=path)
    second.bring_back()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert len(cnnlab.load(path)) == 9


def test_a_run_that_cannot_be_brought_back_is_not_lost(path, make, tmp_path):
    torch = pytest.importorskip("torch")
    x, y = torch.randn(8, 3), torch.arange(8) % 2
    own = {"data": (x, y), "cost": torch.nn.functional.cross_entropy, "autosave": path}
    first = cnnlab.Lab(network=torch.nn.Linear(3, 2), **own)
    first.step(4)
    killed(first)
    second = cnnlab.Lab(network=torch.nn.Linear(3, 5), **own | {"data": (x, y)})
    with pytest.raises(ValueError, match=r"^the record's state at update 0 does not fit the network"):
        second.bring_back()
    assert second.worker.autosave.offered is not None
    killed(second)
    third = cnnlab.Lab(network=torch.nn.Linear(3, 2), **own)
    third.bring_back()
    assert len(third.record) == 4
    third.close()


def test_an_offer_can_be_left_behind(path, make):
    first = make(autosave=path)
    first.step(2)
    killed(first)
    second = make(autosave=path)
    second.received({"do": "leave_behind"})
    assert second.widgets.header.state["offer"] == ""
    assert list(path.parent.iterdir()) == []
    with pytest.raises(ValueError, match="no run of an earlier kernel"):
        second.bring_back()


def test_an_offer_that_nobody_took_is_offered_again_and_two_are_offered_one_by_one(path, make):
    for seed in (1, 2):
        interrupted = make(autosave=path, seed=seed)
        interrupted.step(2)
        killed(interrupted)
        os.utime(path, (seed, seed))
    third = make(autosave=path)
    third.close()
    fourth = make(autosave=path)
    fourth.bring_back()
    assert fourth.settings.seed == 2
    fourth.close()
    fifth = make(autosave=path)
    fifth.bring_back()
    assert fifth.settings.seed == 1


def test_a_lab_that_is_closed_by_will_leaves_no_file(path):
    lab = cnnlab.Lab("question", autosave=path, **SMALL)
    lab.step(2)
    assert path.exists()
    lab.close()
    assert list(path.parent.iterdir()) == []


def test_files_of_others_stay_as_they_are(path, make):
    """Whatever a folder holds, of whatever age and name: an autosave in it adds its own file and touches no other."""
    path.parent.mkdir()
    saved = cnnlab.Run("question", **SMALL)
    saved.advance(2)
    for name in (
        "mine.cnnlab",
        "old.cnnlab-left",
        f"{'a' * 20}.cnnlab",
        f"{'a' * 20}-{'b' * 16}.cnnlab",
        "x.cnnlab.part",
    ):
        saved.record.save(path.parent / name)
        os.utime(path.parent / name, (LONG_AGO, LONG_AGO))
    (path.parent / "run.csv").write_text("1,2\n")
    (path.parent / f"{path.name}-left").write_text("a text of mine")
    before = everything_in(path.parent)
    first = make(autosave=path)
    first.step(3)
    killed(first)
    second = make(autosave=path)
    second.bring_back()
    second.step(1)
    second.close()
    assert everything_in(path.parent) == before


@pytest.mark.parametrize("kind", ["folder", "text", "record", "empty"])
def test_what_autosave_did_not_write_is_refused_in_a_sentence_and_stays(tmp_path, kind):
    path = tmp_path / "run.csv"
    if kind == "folder":
        path.mkdir()
        (path / "mine.txt").write_text("mine")
    elif kind == "record":
        cnnlab.Run("question", **SMALL).record.save(path)
    else:
        path.write_text("1,2\n" if kind == "text" else "")
    before = everything_in(tmp_path)
    with pytest.raises(ValueError, match=r"^autosave must name [^\n]*run.csv[^\n]*$"):
        cnnlab.Lab("question", autosave=path, **SMALL)
    assert everything_in(tmp_path) == before


def test_two_labs_never_share_a_file(path, make):
    first = make(autosave=path)
    first.step(2)
    with pytest.raises(ValueError, match=r"^autosave must name a file of its own, .*lab.cnnlab, which another open"):
        make(autosave=path)
    first.step(1)
    assert len(cnnlab.load(path)) == 3


def test_a_file_that_was_put_in_the_place_of_ours_is_neither_written_to_nor_removed(path, make):
    one = make(autosave=path)
    one.step(2)
    one.record.save(path)
    mine = path.read_bytes()
    one.step(1)
    assert "could not be saved" in one.widgets.header.state["problem"]
    one.close()
    assert path.read_bytes() == mine


def test_a_file_that_somebody_removed_is_written_again(path, make):
    one = make(autosave=path)
    one.step(2)
    path.unlink()
    one.step(1)
    assert len(cnnlab.load(path)) == 3


def test_a_refused_autosave_leaves_the_lab_of_its_cell_open(cell, make, tmp_path):
    first = make()
    first.step(2)
    cell("cell", 2)
    with pytest.raises(ValueError, match=r"^autosave must name a file, got the folder"):
        make(autosave=tmp_path)
    assert not first.closed


def test_two_labs_of_one_cell_have_files_of_their_own_and_both_are_offered(cell, make):
    pair = [make(seed=seed) for seed in (1, 2)]
    for one in pair:
        one.step(2)
    assert len(list(list_own_files())) == 2
    for one in pair:
        killed(one)
    again = [make(), make()]
    for one in again:
        one.bring_back()
    assert sorted(one.settings.seed for one in again) == [1, 2]


def test_a_cell_that_runs_again_takes_its_own_file_away_and_is_offered_nothing(cell, make):
    make().step(2)
    cell("cell", 2)
    second = make()
    assert second.worker.autosave.offered is None
    assert list(list_own_files()) == []


def test_a_cell_that_runs_again_offers_what_its_first_lab_was_offered(cell, make):
    first = make(seed=3)
    first.step(2)
    killed(first)
    make()
    cell("cell", 2)
    assert make().worker.autosave.offered is not None


def test_another_cell_is_offered_nothing(cell, make):
    first = make()
    first.step(2)
    killed(first)
    cell("other", 2)
    assert make().worker.autosave.offered is None


def test_a_run_that_another_kernel_trains_is_not_offered(cell, make):
    first = make()
    first.step(2)
    (kept,) = list_own_files()
    script = (
        "import sys, pathlib; from cnnlab.records.locks import HeldFile; "
        "print(HeldFile.take(pathlib.Path(sys.argv[1])))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(kept)], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "None"


def test_our_own_folder_forgets_after_a_week_what_we_made_and_nothing_else(cell, make):
    first = make()
    first.step(2)
    killed(first)
    (kept,) = list_own_files()
    theirs = [find_own_folder() / name for name in ("mine.cnnlab", "notes.txt", f"{'A' * 20}.cnnlab")]
    for file in theirs:
        file.write_bytes(kept.read_bytes())
    cell("third", 1)
    running = make()
    running.step(1)
    for file in find_own_folder().iterdir():
        os.utime(file, (LONG_AGO, LONG_AGO))
    cell("other", 2)
    make()
    assert running.worker.autosave.path.exists()
    assert not kept.exists()
    assert all(file.exists() for file in theirs)


def test_check_tells_where_autosaves_lie_and_how_large_they_are(cell, make):
    assert machine.inspect_autosaves().words == f"0 runs, 0.0 MB in {find_own_folder()}"
    make().step(2)
    size = sum(file.stat().st_size for file in list_own_files())
    assert machine.inspect_autosaves().words == f"1 run, {size / 1e6:.1f} MB in {find_own_folder()}"


def test_a_disk_that_refuses_is_told_and_training_goes_on(tmp_path, make):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    one = make(autosave=blocked / "lab.cnnlab")
    one.step(3)
    one.step(1)
    assert "could not be saved" in one.widgets.header.state["problem"]
    assert len(one.record) == 4


def test_a_full_disk_leaves_a_whole_file_names_it_and_is_made_up_for_later(path, monkeypatch):
    run = cnnlab.Run("question", **SMALL)
    run.step()
    kept = Autosave.in_file(path)
    kept.keep(run.record, now=10.0)

    class Full:
        def __init__(self, file):
            self.file, self.left = file, 100

        def write(self, part):
            if self.left <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.left -= 50
            return self.file.write(part[:50])

        def __getattr__(self, name):
            return getattr(self.file, name)

    disk = kept.journal.held.file
    kept.journal.held.file = Full(disk)
    run.step()
    kept.keep(run.record, now=20.0)
    assert "No space left on device" in kept.problem
    assert "lab.cnnlab" in kept.problem
    assert len(cnnlab.load(path)) == 1
    kept.journal.held.file = disk
    run.step()
    kept.keep(run.record, now=30.0)
    assert kept.problem == ""
    assert cnnlab.load(path).table.tobytes() == run.record.table.tobytes()
    kept.close()


def test_while_training_it_is_due_every_few_seconds(path):
    run = cnnlab.Run("question", **SMALL)
    run.step()
    kept = Autosave.in_file(path)
    kept.keep(run.record, now=100.0)
    assert not kept.is_due(100.0 + autosave.EVERY / 2)
    assert kept.is_due(100.1 + autosave.EVERY)
    assert not Autosave().is_due(1e9)
    kept.close()


def test_a_save_costs_what_is_new_however_long_the_run(path):
    run = cnnlab.Run("question", **SMALL)
    kept = Autosave.in_file(path)
    sizes = [0]
    for updates in (96, 32, 960, 32, 1):  # in 32 updates signals are measured once
        run.advance(updates)
        kept.keep(run.record, now=10.0)
        sizes.append(path.stat().st_size)
    first, some, _, some_later, one_later = np.diff(sizes)
    assert some_later == pytest.approx(some, rel=0.1)
    assert one_later < first
    kept.keep(run.record, now=1e6)
    assert path.stat().st_size == sizes[-1]
    kept.close()


def test_a_file_that_has_grown_useless_is_written_anew(path, monkeypatch):
    monkeypatch.setattr(autosave, "MOST_MORE", 100_000)
    run = cnnlab.Run("question", **SMALL)
    kept = Autosave.in_file(path)
    largest = 0
    for _ in range(40):
        run.advance(20)
        kept.keep(run.record, now=10.0)
        run.rewind(1)
        kept.keep(run.record, now=10.0)
        largest = max(largest, path.stat().st_size)
    assert kept.problem == ""
    assert largest < 300_000
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert cnnlab.load(path).table.tobytes() == run.record.table.tobytes()
    kept.close()


def test_a_part_that_a_kill_left_is_removed_when_the_file_is_next_written_anew(path, monkeypatch):
    monkeypatch.setattr(autosave, "MOST_TIMES", 0)
    monkeypatch.setattr(autosave, "MOST_MORE", 0)
    path.parent.mkdir()
    ours, theirs = path.parent / f".{path.name}.{'0' * 16}.part", path.parent / ".notes.part"
    for file in (ours, theirs):
        file.write_bytes(b"cnnlab journal 1\n")
    run = cnnlab.Run("question", **SMALL)
    run.step()
    kept = Autosave.in_file(path)
    kept.keep(run.record, now=10.0)
    assert sorted(file.name for file in path.parent.iterdir()) == [theirs.name, path.name]
    kept.close()


def test_a_kill_in_the_middle_of_a_save_loses_that_save_alone(path):
    run = cnnlab.Run("question", **SMALL)
    kept = Autosave.in_file(path)
    ends, tables = [], []
    for _ in range(3):
        run.advance(2)
        kept.keep(run.record, now=10.0)
        ends.append(path.stat().st_size)
        tables.append(run.record.table.tobytes())
    kept.journal.held.file.close()
    whole = path.read_bytes()
    for cut in (ends[0], ends[0] + 1, ends[0] + 30, ends[1] - 1, ends[1], ends[2] - 1):
        path.write_bytes(whole[:cut])
        survives = sum(cut >= end for end in ends) - 1
        assert cnnlab.load(path).table.tobytes() == tables[survives]
    path.write_bytes(whole[: ends[0] - 1])
    with pytest.raises(ValueError, match=r"^.*lab.cnnlab cannot be loaded: it holds no whole entry$"):
        cnnlab.load(path)


def keep_and_die(path: Path) -> None:
    """What a process does that is killed while it saves, again and again."""
    run = cnnlab.Run("question", **SMALL)
    kept = Autosave.in_file(path)
    while True:
        run.advance(1)
        kept.keep(run.record, now=10.0)


@pytest.mark.processes
def test_a_process_killed_while_it_saves_leaves_a_run_that_goes_on_to_the_bit(path):
    process = multiprocessing.get_context("spawn").Process(target=keep_and_die, args=(path,))
    process.start()
    deadline = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size > 200_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    record = cnnlab.load(path)
    straight = cnnlab.Run("question", **SMALL)
    straight.advance(len(record) + 2)
    again = cnnlab.Run(record)
    again.advance(2)
    assert again.record.table.tobytes() == straight.record.table.tobytes()
    held = HeldFile.take(path)
    assert held is not None
    held.file.close()


def test_outside_a_notebook_nothing_is_saved(make):
    one = make()
    one.step(1)
    assert one.worker.autosave.path is None


def test_a_journal_is_never_made_in_the_place_of_a_file(path):
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        Journal(path)
    assert path.read_text() == "mine"
