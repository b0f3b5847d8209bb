"""Files appear whole or not at all, an error names them, and what a killed writer left goes with the next writing."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from handmade import record_of

import cnnlab
from cnnlab.config.settings import settings
from cnnlab.records import locks
from cnnlab.records.atomic_files import write_atomically
from cnnlab.records.map import Map

BEGINNING = b"PK\x03\x04" + bytes(26) + b"cnnlab.json"
"""What the parts of version 0.1 begin with."""


def trained() -> cnnlab.Record:
    run = cnnlab.Run("question", channels=2, hidden=(4, 4), patch_size=13, patches=12, device="cpu")
    run.advance(2)
    return run.record


def a_map() -> Map:
    made = Map.empty(settings(), (), (0, 1), 3)
    made.put(0, [3.0, 2.0, 1.0], 3.0, 1.0, 0.5)
    return made


WRITERS: dict[str, Callable[[Path], None]] = {
    "record": lambda path: record_of([1.0, 2.0]).save(path),
    "map": lambda path: a_map().save(path),
    "script": lambda path: cnnlab.export_script(trained(), path),
    "page": lambda path: cnnlab.export_html(trained(), path),
}


def write(path: Path, content: bytes) -> None:
    with write_atomically(path) as file:
        file.write(content)


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_told_with_the_file_and_leaves_the_old_one_and_nothing_else(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept"
    path.write_text("old")

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError, match=rf"^\[Errno 28\] No space left on device: '{re.escape(str(path))}'$"):
        WRITERS[kind](path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["kept"]


LIMITED = """
import resource, sys
from pathlib import Path
sys.path += sys.argv[2:]
from test_atomic_files import WRITERS
made = {}
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
for kind, write in WRITERS.items():
    try:
        write(Path(sys.argv[1]) / kind)
    except OSError as error:
        print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="limits are of Unix")
def test_a_file_that_grows_beyond_what_is_allowed_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    words = [sys.executable, "-c", LIMITED, tmp_path, Path(__file__).parent, Path(__file__).parents[1]]
    run = subprocess.run(words, capture_output=True, text=True)
    assert run.stdout.splitlines() == [f"[Errno 27] File too large: '{tmp_path / kind}'" for kind in WRITERS]
    assert run.stderr == ""
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_of_the_user_s_with_the_name_of_a_part_stays(kind: str, tmp_path: Path) -> None:
    kept = tmp_path / "film.part"
    kept.write_text("mine")
    WRITERS[kind](tmp_path / "film")
    assert kept.read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["film", "film.part"]


KILLED = """
import os, signal, sys
from cnnlab.records.atomic_files import write_atomically
with write_atomically(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are of Unix")
def test_the_part_of_a_killed_writer_goes_with_the_next_writing_of_the_same_file(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "film"])
    (part,) = os.listdir(tmp_path)
    assert re.fullmatch(r"\.film\.[0-9a-f]{16}\.part", part)
    write(tmp_path / "other", b"whole")
    assert part in os.listdir(tmp_path)
    write(tmp_path / "film", b"whole")
    assert sorted(os.listdir(tmp_path)) == ["film", "other"]


def test_the_part_of_a_living_writer_stays(tmp_path: Path) -> None:
    path = tmp_path / "film"
    with write_atomically(path) as file:
        write(path, b"between")
        assert path.read_bytes() == b"between"
        assert len(os.listdir(tmp_path)) == 2
        file.write(b"last")
    assert path.read_bytes() == b"last"
    assert os.listdir(tmp_path) == ["film"]


def aged(path: Path, hours: float) -> Path:
    """The file as if it had not been written to for hours."""
    then = path.stat().st_mtime - hours * 3600
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize(("hours", "left"), [(0.9, 1), (1.1, 0)])
def test_without_locks_a_part_is_abandoned_after_an_hour(
    hours: float, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    part = tmp_path / f".film.{'0' * 16}.part"
    part.write_bytes(b"half")
    aged(part, hours)
    write(tmp_path / "film", b"whole")
    assert (tmp_path / "film").read_bytes() == b"whole"
    assert part.exists() == bool(left)


def test_a_part_that_version_01_left_goes_and_one_that_it_writes_stays(tmp_path: Path) -> None:
    left, living = (tmp_path / f".{digit * 16}.part" for digit in "0f")
    for part in (left, living):
        part.write_bytes(BEGINNING + b"and more")
    aged(left, 2)
    with open(living, "ab"):
        write(tmp_path / "film", b"whole")
    assert sorted(os.listdir(tmp_path)) == [living.name, "film"]


@pytest.mark.parametrize(
    "name",
    [f".{'0' * 16}.part", f".film.{'0' * 15}.part", f".film.{'A' * 16}.part", f"film.{'0' * 16}.part", ".film.part"],
)
def test_what_merely_looks_like_a_part_stays(name: str, tmp_path: Path) -> None:
    content = b"PK\x03\x04 a zip of the user's own" if name.startswith(".0") else BEGINNING
    (tmp_path / name).write_bytes(content)
    aged(tmp_path / name, 100)
    write(tmp_path / "film", b"whole")
    assert (tmp_path / name).read_bytes() == content


def test_a_folder_and_a_link_with_the_name_of_a_part_stay(tmp_path: Path) -> None:
    folder, link = (tmp_path / f".film.{digit * 16}.part" for digit in "01")
    folder.mkdir()
    (tmp_path / "linked").write_bytes(BEGINNING)
    link.symlink_to(tmp_path / "linked")
    write(tmp_path / "film", b"whole")
    assert folder.is_dir()
    assert link.is_symlink()
    assert (tmp_path / "linked").exists()


@pytest.mark.skipif(os.name == "nt", reason="permissions are of Unix")
def test_a_file_has_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "film", b"whole")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "film").stat().st_mode) == 0o640


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127)
    write(path, b"whole")
    assert path.read_bytes() == b"whole"


@pytest.mark.parametrize("kind", WRITERS)
def test_a_link_goes_on_to_point_to_the_file_whatever_is_written(kind: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    WRITERS[kind](tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").is_file()


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_is_refused_and_a_missing_one_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder, not a file to save in$"):
        WRITERS[kind](tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^there is no folder .*nowhere to save in$"):
        WRITERS[kind](tmp_path / "nowhere" / "film")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"pipe is no ordinary file to save in$"):
        write(tmp_path / "pipe", b"whole")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk here")
def test_a_sweep_into_a_full_disk_names_the_file() -> None:
    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device: '/dev/full'$"):
        cnnlab.sweep(
            "question", seeds=1, steps=1, channels=1, hidden=(1, 1), patch_size=13, patches=2, path="/dev/full"
        )
