"""What Windows and disks without locks do otherwise, by stand-ins: files are held, replaced and removed there, too."""

from __future__ import annotations

import errno
import io
import os
import types
from pathlib import Path

import pytest
from handmade import record_of

import cnnlab
from cnnlab.records import locks
from cnnlab.records.atomic_files import write_atomically
from cnnlab.records.autosave import Autosave
from cnnlab.records.locks import PLACE, HeldFile, lock


class WindowsLocks:
    """What msvcrt does: a locked byte is refused to any other handle until that is closed."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.held: dict[int, os.stat_result] = {}

    def locking(self, handle: int, _mode: int, _size: int) -> None:
        assert os.lseek(handle, 0, os.SEEK_CUR) == PLACE
        for other, at_first in list(self.held.items()):
            try:
                is_open = os.path.samestat(os.fstat(other), at_first)
            except OSError:
                is_open = False
            if is_open and other != handle and os.path.samestat(os.fstat(other), os.fstat(handle)):
                raise PermissionError(errno.EACCES, "Permission denied")
        self.held[handle] = os.fstat(handle)


def refuse_open_file(path: str | os.PathLike[str]) -> None:
    """PermissionError if this process has the file open, as Windows has it."""
    for handle in range(3, 200):
        try:
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                raise PermissionError(errno.EACCES, "used by another process", os.fspath(path))
        except FileNotFoundError:
            return
        except PermissionError:
            raise
        except OSError:
            continue


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as Windows treats them: locked by the byte, neither replaced nor renamed nor removed while open."""
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", WindowsLocks())
    replace, unlink, rename, open_handle = os.replace, Path.unlink, Path.rename, os.open

    def refusing(real):
        def called(path, *arguments, **keywords):
            refuse_open_file(path)
            return real(path, *arguments, **keywords)

        return called

    def open_no_folder(path, *arguments, **keywords):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return open_handle(path, *arguments, **keywords)

    monkeypatch.setattr(os, "replace", refusing(replace))
    monkeypatch.setattr(Path, "unlink", refusing(unlink))
    monkeypatch.setattr(Path, "rename", refusing(rename))
    monkeypatch.setattr(os, "open", open_no_folder)


@pytest.mark.usefixtures("windows")
def test_a_file_is_written_at_one_stroke_where_no_open_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "film"
    path.write_bytes(b"old")
    with write_atomically(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["film"]


@pytest.mark.usefixtures("windows")
def test_an_abandoned_part_goes_where_no_open_file_is_removed(tmp_path: Path) -> None:
    part = tmp_path / f".film.{'0' * 16}.part"
    part.write_bytes(b"half")
    then = part.stat().st_mtime - 4000
    os.utime(part, (then, then))
    with write_atomically(tmp_path / "film") as file:
        file.write(b"whole")
    assert os.listdir(tmp_path) == ["film"]


def test_a_folder_that_may_not_be_written_to_is_told_with_the_file(tmp_path: Path, monkeypatch) -> None:
    def refuse(source, _target):
        raise PermissionError(errno.EACCES, "Permission denied", source)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError, match=r"film'$"), write_atomically(tmp_path / "film") as file:
        file.write(b"whole")
    assert not os.listdir(tmp_path)


@pytest.mark.usefixtures("windows")
def test_a_file_is_held_by_one_lab_on_windows_and_its_content_stays(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"some")
    held = HeldFile.take(path)
    assert held is not None
    assert HeldFile.take(path) is None
    held.file.write(b" more")
    held.file.close()
    again = HeldFile.take(path)
    assert again is not None
    assert path.read_bytes() == b"some more"
    again.remove()
    assert not path.exists()


@pytest.mark.usefixtures("windows")
def test_an_autosave_is_written_begun_anew_and_taken_up_on_windows(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("cnnlab.records.autosave.MOST_TIMES", 0)
    monkeypatch.setattr("cnnlab.records.autosave.MOST_MORE", 0)
    path = tmp_path / "run"
    autosave = Autosave.in_file(path)
    autosave.keep(record_of([1.0, 2.0]), 10.0)
    assert autosave.problem == ""
    assert list(cnnlab.load(path).cost) == [1.0, 2.0]
    assert autosave.journal is not None
    with pytest.raises(ValueError, match="which another open lab keeps"):
        Autosave.in_file(path)
    autosave.journal.held.file.close()
    assert Autosave.in_file(path).offered is not None
    assert not path.exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), PermissionError(errno.EPERM, "no")])
def test_where_the_disk_has_no_locks_a_file_is_written_and_held_without(error, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_arguments):
        raise error

    monkeypatch.setattr(locks, "msvcrt", None)
    monkeypatch.setattr(locks, "fcntl", types.SimpleNamespace(flock=refuse, LOCK_EX=2, LOCK_NB=4))
    with write_atomically(tmp_path / "film") as file:
        file.write(b"whole")
    assert os.listdir(tmp_path) == ["film"]
    assert HeldFile.take(tmp_path / "film") is not None


def test_without_any_locks_a_file_is_held_all_the_same(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", None)
    with open(tmp_path / "film", "xb") as file:
        assert lock(file) is None
    assert isinstance(HeldFile.take(tmp_path / "film"), HeldFile)


@pytest.mark.usefixtures("windows")
def test_a_lock_leaves_the_place_where_a_file_is_written(tmp_path: Path) -> None:
    with open(tmp_path / "film", "xb+") as file:
        assert lock(file)
        assert file.tell() == os.lseek(file.fileno(), 0, io.SEEK_CUR) == 0
