"""No file takes far more memory than it is worth: what it declares is held against what is there, before it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import KINDS, OPENED, taken_by

SPARE = 300_000_000
"""Bytes of memory that any file may take, however small."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_file_takes_300_mb_at_most_and_an_opened_one_twice_its_size_more(kind: str, tmp_path: Path) -> None:
    way, write = KINDS[kind]
    path = tmp_path / "file"
    write(path)
    taken = taken_by(way, path)
    path.unlink()
    assert (taken.verdict == "opened") == (kind in OPENED), taken.verdict
    assert taken.memory <= SPARE + (2 * taken.size if kind in OPENED else 0)
    assert len(taken.verdict) < 400
