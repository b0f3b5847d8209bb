"""Guesses: the first stands, none is lost, and how close they are is said in the unit that suits."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import cnnlab
from cnnlab.course import guess_file
from cnnlab.course.entries import CourseFile, Entry
from cnnlab.course.guess_file import FILE, KIND, change_guess_file
from cnnlab.course.notebook import find_notebook

ROOT = Path(__file__).parents[2]
MANY = """
import cnnlab, sys
for number in range(20):
    cnnlab.guess(f"{sys.argv[1]} {number}", number)
"""


def kept(folder):
    """What the file in a folder says of the guesses."""
    return json.loads((folder / FILE).read_text())["guesses"]


def values(folder):
    """The values of the first question, in the order in which they were given."""
    return [attempt["value"] for attempt in kept(folder)[0]["attempts"]]


def test_a_guess_is_kept_beside_the_notebook_under_its_name(notebook):
    cnnlab.guess("epoch of the first NaN", 4, sure=0.7)
    (entry,) = kept(notebook)
    assert (entry["question"], entry["notebook"], entry["measured"]) == ("epoch of the first NaN", "first", None)
    assert (entry["attempts"][0]["value"], entry["attempts"][0]["sure"]) == (4, 0.7)
    assert {path.name for path in notebook.iterdir()} == {FILE}


def test_the_same_cell_run_twice_says_nothing_new(notebook, capsys):
    cnnlab.guess("q", 4)
    assert capsys.readouterr().out == "Your guess is kept: 4.\n"
    cnnlab.guess("q", 4)
    assert capsys.readouterr().out == ""
    assert values(notebook) == [4]


def test_the_first_guess_stands_and_another_is_refused_in_a_sentence(notebook, capsys):
    cnnlab.guess("q", 4)
    capsys.readouterr()
    assert cnnlab.guess("q", 7).value == 4
    assert capsys.readouterr().out == "Your guess 4 stands; again=True replaces it with 7.\n"
    assert values(notebook) == [4]


def test_again_replaces_a_guess_and_keeps_both(notebook):
    cnnlab.guess("q", 4)
    replaced = cnnlab.guess("q", 7, again=True)
    assert (replaced.value, replaced.earlier) == (7, (4,))
    assert values(notebook) == [4, 7]


def test_dots_leave_a_guess_open_and_write_nothing(notebook, capsys):
    left_open = cnnlab.guess("q", ...)
    said = repr(left_open) + repr(left_open.compare(5)) + left_open.compare(5)._repr_html_() + capsys.readouterr().out
    assert "Your guess: open. Measured: 5." in said
    assert "llipsis" not in said
    assert not list(notebook.iterdir())


def test_dots_after_a_guess_leave_it_as_it_is(notebook, capsys):
    cnnlab.guess("q", 4, sure=0.5)
    capsys.readouterr()
    assert repr(cnnlab.guess("q", ...)) == "guess of 'q': 4 (50% sure)"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"question": ""}, "question must be a text of 1 to 300"),
        ({"question": "x" * 301}, "question must be a text of at most 300"),
        ({"question": 4}, "question must be a text"),
        ({"question": "\ud800"}, "UTF-8"),
        ({"value": "four"}, r"value must be a number in \[-inf, inf\] or NaN, got 'four'"),
        ({"value": None}, "value must be a number"),
        ({"value": [4]}, "value must be a number"),
        ({"value": 10**400}, "value must lie in"),
        ({"sure": 70}, r"sure must lie in \[0, 1\], got 70"),
        ({"sure": math.nan}, r"sure must lie in \[0, 1\], got nan"),
        ({"sure": "very"}, "sure must lie in"),
        ({"unit": "metres"}, "unit must be None or one of 'factor'"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_and_loses_nothing(notebook, arguments, match):
    cnnlab.guess("q", 4)
    before = (notebook / FILE).read_bytes()
    with pytest.raises((TypeError, ValueError), match=match) as refusal:
        cnnlab.guess(**{"question": "q", "value": 5, "again": True, **arguments})
    assert "\n" not in str(refusal.value)
    assert (notebook / FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("value", "measured", "unit", "said"),
    [
        (4, 4, None, "Exactly right."),
        (4, 6, None, "Too low by 2."),
        (0, 3, None, "Too low by 3."),
        (1e-3, 4e-3, None, "Too low by a factor of 4."),
        (300, 150, None, "Too high by a factor of 2."),
        (1.001e-3, 1e-3, None, "Right to within 1 %."),
        (1e-300, 1e300, "factor", "Too low by a factor of 8.2e307."),
        (-2, 3.5, None, "Not the same side of 0."),
        (-2, -7, "sign", "The same side of 0."),
        (0.5, 0.73, "percent", "23 percentage points too low."),
        (math.nan, math.nan, None, "Exactly right."),
        (4, math.nan, None, "One of the two is NaN, the other is not."),
        (4, math.inf, None, "Infinitely too low."),
        (4, None, None, "Infinitely too low."),
        (math.inf, None, None, "Exactly right."),
        (True, False, None, "It is the other way round."),
        (True, np.True_, None, "Right."),
        (4, np.float32(6), None, "Too low by 2."),
        (4, torch.tensor(6.0), None, "Too low by 2."),
        (4, np.int64(6), None, "Too low by 2."),
    ],
)
def test_how_close_a_guess_is_is_said_in_the_unit_that_suits(notebook, value, measured, unit, said):
    comparison = cnnlab.guess("q", value, unit=unit).compare(measured)
    assert comparison.closeness == said
    assert repr(comparison).startswith("Your guess: ")
    assert "\n" not in repr(comparison)
    assert comparison._repr_html_().count("<p>") == 1


def test_what_is_measured_may_be_nan_or_inf_and_is_kept(notebook):
    cnnlab.guess("q", 4).compare(math.nan)
    assert kept(notebook)[0]["measured"] == "nan"
    cnnlab.guess("q", 4).compare(math.inf)
    assert kept(notebook)[0]["measured"] == "inf"
    assert repr(cnnlab.guesses()).startswith("0 of 1 guesses within")


def test_a_question_with_html_in_it_is_escaped(notebook):
    comparison = cnnlab.guess("<b>", 1).compare(1)
    assert "<b>1</b>" in comparison._repr_html_()
    assert "<script" not in cnnlab.guess("<script>", 1).compare(1)._repr_html_()


def test_two_notebooks_ask_the_same_question_apart(notebook, monkeypatch):
    cnnlab.guess("q", 4)
    monkeypatch.setenv("JPY_SESSION_NAME", str(notebook / "second.ipynb"))
    assert cnnlab.guess("q", 9).value == 9
    assert [entry["notebook"] for entry in kept(notebook)] == ["first", "second"]


def test_a_guess_made_in_jupyterlab_is_found_where_no_name_is_told_as_under_nbconvert(notebook, monkeypatch):
    cnnlab.guess("q", 4)
    monkeypatch.delenv("JPY_SESSION_NAME")
    monkeypatch.chdir(notebook)
    assert cnnlab.guess("q", ...).value == 4


def test_the_notebook_is_found_in_vs_code_and_with_a_random_session_name(notebook, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", str(notebook / "34361149-e3d8-4dbc"))
    assert (find_notebook().folder, find_notebook().name) == (notebook, "")
    monkeypatch.setattr("__main__.__vsc_ipynb_file__", str(notebook / "code.ipynb"), raising=False)
    assert (find_notebook().folder, find_notebook().name) == (notebook, "code")


def test_a_notebook_whose_folder_is_gone_is_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "gone" / "first.ipynb"))
    monkeypatch.chdir(tmp_path)
    assert find_notebook().folder == tmp_path


@pytest.mark.processes
def test_kernels_that_guess_at_once_lose_no_guess(notebook):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    kernels = [subprocess.Popen([sys.executable, "-c", MANY, name], env=environment) for name in "abc"]
    assert [kernel.wait() for kernel in kernels] == [0, 0, 0]
    assert len({entry["question"] for entry in kept(notebook)}) == 60
    assert {path.name for path in notebook.iterdir()} == {FILE}


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b"\0" * 100,
        b'{"format": "cnnlab guesses", "version": 2}',
        b'{"format": "cnnlab guesses", "version": 1, "guesses": {}}',
        b'{"format": "cnnlab guesses", "version": 1, "guesses": [4]}',
        b'{"format": "cnnlab guesses", "version": 1, "guesses": [{"attempts": [{"value": "x"}]}]}',
        b'{"format": "cnnlab guesses", "version": 1, "guesses": [{"attempts": [{"value": 1, "sure": 7}]}]}',
        b'{"format": "cnnlab guesses", "version": 1, "guesses": [{"question": "\\ud800"}]}',
        b" " * 4_000_001,
    ],
    ids=range(11),
)
def test_a_damaged_file_is_set_aside_and_said_never_overwritten(notebook, capsys, text):
    (notebook / FILE).write_bytes(text)
    cnnlab.guess("q", 4)
    assert "cannot be understood" in capsys.readouterr().out
    assert (notebook / "cnnlab_guesses.damaged-1.json").read_bytes() == text
    assert values(notebook) == [4]


def test_a_second_damaged_file_does_not_replace_the_first(notebook):
    for text in ("{1", "{2"):
        (notebook / FILE).write_text(text)
        cnnlab.guesses()
    assert (notebook / "cnnlab_guesses.damaged-1.json").read_text() == "{1"
    assert (notebook / "cnnlab_guesses.damaged-2.json").read_text() == "{2"


def test_what_cannot_be_written_is_kept_in_memory_and_said_once(notebook, capsys, monkeypatch):
    cnnlab.guess("before", 1)
    capsys.readouterr()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(guess_file, "write_atomically", refuse)
    cnnlab.guess("q", 4)
    assert capsys.readouterr().out.splitlines()[0] == (
        f"Guesses stay in memory until the kernel ends: {notebook} cannot be written (Permission denied)."
    )
    assert cnnlab.guess("q", ...).value == 4
    assert cnnlab.guess("before", ...).value == 1
    assert cnnlab.guess("r", 5).compare(5).closeness == "Exactly right."
    assert "memory" not in capsys.readouterr().out
    assert [entry["question"] for entry in kept(notebook)] == ["before"]


def test_a_lock_that_another_kernel_never_lets_go_of_costs_no_guess(notebook, capsys, monkeypatch):
    monkeypatch.setattr(guess_file, "PATIENCE", 0.05)
    with guess_file.locked(notebook):
        cnnlab.guess("q", 4)
    assert "stay in memory" in capsys.readouterr().out
    assert cnnlab.guess("q", ...).value == 4


def test_a_change_that_fails_leaves_the_file_and_no_lock(notebook):
    cnnlab.guess("q", 4)
    before = (notebook / FILE).read_bytes()
    with pytest.raises(ZeroDivisionError):
        change_guess_file(notebook, lambda content: 1 / 0)
    assert (notebook / FILE).read_bytes() == before
    assert {path.name for path in notebook.iterdir()} == {FILE}


def test_a_file_takes_no_more_guesses_than_it_can_be_read_with(notebook):
    change_guess_file(notebook, lambda content: CourseFile(tuple(Entry(str(i), "first") for i in range(2000))))
    with pytest.raises(ValueError, match="at most 2000 guesses"):
        cnnlab.guess("one more", 4)


def test_the_calibration_counts_who_is_right_and_who_was_sure_and_wrong(notebook):
    cnnlab.guess("near", 4, sure=0.9).compare(6)
    cnnlab.guess("far", 4e-3, sure=0.9).compare(1e-6)
    cnnlab.guess("sign", -1, unit="sign", sure=0.2).compare(-50)
    cnnlab.guess("never", math.inf).compare(None)
    cnnlab.guess("waiting", 4)
    cnnlab.guess("open", ...).compare(4)
    assert repr(cnnlab.guesses()) == "3 of 4 guesses within a factor of 2; 1 sure and wrong; 1 waiting"
    assert cnnlab.guesses().groups == [(0.2, 1.0, 1), (0.9, 0.5, 2)]


def test_the_calibration_judges_the_last_guess_that_was_made_before_the_answer(notebook):
    cnnlab.guess("q", 1)
    cnnlab.guess("q", 2, again=True).compare(50)
    cnnlab.guess("q", 50, again=True)
    (scored,) = cnnlab.guesses().scores
    assert (scored.value, scored.right) == (2, False)


def test_a_guess_that_comes_after_the_answer_was_shown_is_kept_and_not_scored(notebook):
    cnnlab.guess("q", ...).compare(50)
    cnnlab.guess("q", 50).compare(50)
    assert values(notebook) == [50]
    assert cnnlab.guesses().scores == ()


def test_the_figure_draws_every_score_at_a_finite_place_nan_and_inf_too(notebook):
    pairs = [
        (1, math.nan),
        (math.nan, 1),
        (math.inf, 3),
        (3, math.inf),
        (math.nan, math.nan),
        (0, 5),
        (-3, 5),
        (1e-300, 1e300),
    ]
    for number, (value, measured) in enumerate(pairs):
        cnnlab.guess(str(number), value, sure=0.5).compare(measured)
    figure = cnnlab.guesses().figure
    drawn = [x for trace in figure.data[:2] for x in trace.x]
    assert len(drawn) == len(pairs)
    assert all(math.isfinite(x) for x in drawn)


def test_the_calibration_shows_itself_as_a_figure_with_a_line_of_text(notebook, monkeypatch):
    monkeypatch.setattr("plotly.io.renderers.default", "plotly_mimetype")
    assert set(cnnlab.guesses()._repr_mimebundle_()) == {"text/plain"}
    cnnlab.guess("q", 4).compare(5)
    shown = cnnlab.guesses()._repr_mimebundle_()
    assert shown["text/plain"] == "1 of 1 guesses within a factor of 2; 0 sure and wrong; 0 waiting"
    assert set(shown) == {"text/plain", "application/vnd.plotly.v1+json"}


def test_the_file_of_guesses_says_what_it_is(notebook):
    cnnlab.guess("q", 4)
    content = json.loads((notebook / FILE).read_text())
    assert (content["format"], content["version"]) == (KIND, 1)
