"""JSON from strangers takes no more memory than was reckoned from its text, and what cannot be read is one sentence."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnlab.records import bounded_json
from cnnlab.records.bounded_json import limit_memory, parse

LEAVES = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(max_size=20)
VALUES = st.recursive(LEAVES, lambda more: st.lists(more) | st.dictionaries(st.text(max_size=8), more), max_leaves=30)


@given(value=VALUES, ascii_only=st.booleans())
def test_what_a_text_becomes_takes_no_more_than_was_reckoned(value: object, ascii_only: bool) -> None:
    text = json.dumps([value] * 20, ensure_ascii=ascii_only).encode()
    tracemalloc.start()
    try:
        copied = bytes(bytearray(text))
        found = parse(copied)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == [value] * 20
    assert peak <= limit_memory(text) + len(text) + 5000


@pytest.mark.parametrize(
    "text", ["{},", "[],", "[1,{}],", "[[[]]],", '{"":0},', '"ab",', "1e1,", '"\\ud83d\\ude00",', "[0],"]
)
def test_many_small_values_take_no_more_than_was_reckoned(text: str) -> None:
    whole = f"[{text * 50_000}1]".encode()
    tracemalloc.start()
    try:
        found = parse(whole)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 50_001
    assert peak <= limit_memory(whole) <= 4 * peak


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[" * 100_000, "its text nests too many lists"),
        (b'{"a":' * 100_000, "its text nests too many lists"),
        (b"9" * 5000, "its text holds a number of thousands of digits"),
        (b"", "its text is no JSON: Expecting value: line 1 column 1"),
        (b"[\xff", "its text is no UTF-8 from byte 1 on"),
        (b"{},", "its text is no JSON: Extra data"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_one_sentence(text: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_a_text_that_may_take_too_much_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_json, "MOST_MEMORY", 2**20)
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(ValueError, match=r"^its text may take 1 MiB of memory, got 2 MiB: it holds too many lists"):
        parse(b"[" + b"{}," * 20_000 + b"1]")
