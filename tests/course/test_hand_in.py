"""What is handed in, and the page of a class: bounded, escaped, and alone on the machine."""

import json
import math
import os
import re

import pytest

import cnnlab
from cnnlab.cli.main import main
from cnnlab.course.class_page import make_class_page
from cnnlab.course.hand_in import KIND, read_hand_in

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def run():
    """A run of six updates that breaks in the fourth or before."""
    run = cnnlab.Run("question", channels=4, hidden=(8, 8), learning_rate=1.0)
    run.advance(6)
    return run


def hand_in(notebook, folder, name, value, measured=100.0, sure=0.9, question="how many times?", runs=()):
    """Have a student of this name guess and hand in."""
    (notebook / "cnnlab_guesses.json").unlink(missing_ok=True)
    cnnlab.guess(question, value, sure=sure).compare(measured)
    return cnnlab.hand_in(name, runs=runs, path=folder / f"{len(list(folder.iterdir()))}.json")


@pytest.fixture
def folder(tmp_path):
    """Where a teacher keeps what was handed in."""
    (tmp_path / "class").mkdir()
    return tmp_path / "class"


def test_a_hand_in_holds_guesses_checks_and_links_of_runs(notebook, run):
    cnnlab.guess("q", 4, sure=0.5).compare(math.nan)
    cnnlab.check_answer("critical_rate", lambda X: 2 / cnnlab_eigenvalue(X))
    handed = cnnlab.hand_in("Ada", runs=[run, run.record, "no run"])
    assert repr(handed) == "hand_in_Ada.json: 1 guess, 1 check passed, 1 run; hand in this file"
    content = json.loads((notebook / "hand_in_Ada.json").read_text())
    assert (content["format"], content["version"], content["name"]) == (KIND, 1, "Ada")
    assert content["guesses"][0]["measured"] == "nan"
    assert content["checks"][0]["name"] == "critical_rate"
    assert content["runs"] == [
        {"link": run.record.link(), "updates": 6, "first_nonfinite": run.record.first_nonfinite},
    ]
    assert repr(read_hand_in(handed.path)) == repr(handed.content)  # the guess's NaN is equal to none


def cnnlab_eigenvalue(X):
    import numpy as np

    return np.linalg.eigvalsh(X.T @ X / len(X))[-1]


def test_the_runs_of_the_notebook_s_variables_are_handed_in(notebook, run, monkeypatch):
    monkeypatch.setattr("__main__.ledger", [{"a": run.record}, (run,)], raising=False)
    assert [outcome.link for outcome in cnnlab.hand_in("Ada").content.runs] == [run.record.link()]


def test_a_network_of_one_s_own_has_no_link_and_is_left_out(notebook):
    import torch

    own = cnnlab.Run(network=torch.nn.Linear(1, 1), data=(torch.ones(2, 1),) * 2, cost=torch.nn.functional.mse_loss)
    own.advance(1)
    assert cnnlab.hand_in("Ada", runs=[own]).content.runs == ()


@pytest.mark.parametrize(("name", "match"), [("", "1 to 300"), ("x" * 301, "at most 300"), (4, "name must be a text")])
def test_a_name_that_is_none_is_refused_and_nothing_written(notebook, name, match):
    with pytest.raises(ValueError, match=match):
        cnnlab.hand_in(name)
    assert not list(notebook.iterdir())


def test_a_name_cannot_lead_to_another_folder(notebook):
    assert cnnlab.hand_in("../../etc/passwd", runs=[]).path.parent == notebook


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "other"}, "it is no file of cnnlab hand-in"),
        ({"version": 99}, "it is no file of cnnlab hand-in"),
        ({"name": 4}, "name must be a text"),
        ({"runs": [{"link": "x" * 3000, "updates": 1}]}, r"runs\[0\].link must be a text of at most 2000"),
        ({"runs": [{"link": "x", "updates": -1}]}, r"runs\[0\].updates must be a whole number"),
        ({"runs": [{"link": "x", "updates": True}]}, r"runs\[0\].updates must be a whole number"),
        ({"checks": [[]]}, r"checks\[0\] must be an object"),
        ({"guesses": [{}] * 2001}, "guesses must be a list of at most 2000 objects"),
        ({"guesses": [{"unit": "x"}]}, r"guesses\[0\].unit must be null or one of"),
        ({"guesses": [{"attempts": [{"value": None}]}]}, r"guesses\[0\].attempts\[0\].value must be a number"),
        ({"guesses": [{"attempts": [{"value": 1, "sure": "x"}]}]}, r"attempts\[0\].sure must lie in \[0, 1\]"),
    ],
)
def test_a_hostile_hand_in_is_refused_in_a_sentence(tmp_path, change, match):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"format": KIND, "version": 1, **change}))
    with pytest.raises(ValueError, match=match) as refusal:
        read_hand_in(path)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_the_page_of_a_class_shows_the_spread_and_who_was_sure_and_wrong(notebook, folder, run):
    hand_in(notebook, folder, "Ada", 90, runs=[run])
    hand_in(notebook, folder, "Bob", 3)
    hand_in(notebook, folder, "Eve", 5000, sure=0.3)
    page = make_class_page(folder)
    text = page.path.read_text()
    assert page.students == 3
    assert "measured 100; 1 of 3 within a factor of 2" in text
    assert re.search(r"Sure and wrong: Bob: 3, 90% sure\.", text)
    assert text.count('<circle class="right"') == 1
    assert text.count('<circle class="wrong"') == 2 + 1
    assert run.record.link().replace("&", "&amp;") in text


def test_the_page_draws_nan_and_inf_and_numbers_far_apart(notebook, folder):
    for number, value in enumerate((math.nan, math.inf, -math.inf, 1e-300, 1e300, -5, 0)):
        hand_in(notebook, folder, str(number), value, measured=1e-3)
    text = make_class_page(folder).path.read_text()
    assert text.count("<circle") == 7
    assert not re.search(r'c[xy]="(nan|-?inf)', text)


def test_names_and_questions_are_escaped_and_the_page_loads_nothing(notebook, folder):
    hand_in(notebook, folder, EVIL, 3, question=EVIL)
    text = make_class_page(folder).path.read_text()
    assert "&lt;img" in text
    assert "<img" not in text
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"?http", text)
    assert "default-src 'none'" in text


def test_a_file_that_is_no_hand_in_is_named_and_the_others_are_shown(notebook, folder, capsys):
    hand_in(notebook, folder, "Ada", 90)
    (folder / "broken.json").write_text("{")
    os.mkfifo(folder / "pipe.json")
    assert main(["class", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out.endswith(f"{folder / 'class.html'}: 1 hand-in\n")
    assert "broken.json is left out: its text is no JSON" in err
    assert "pipe.json is left out: it is no ordinary file" in err


def test_two_students_of_one_name_are_told_apart(notebook, folder):
    for _ in range(2):
        hand_in(notebook, folder, "Ada", 3)
    assert "Ada, Ada (2)" in make_class_page(folder).path.read_text()


def test_a_link_that_is_none_is_left_out_of_the_map(notebook, folder):
    content = {"format": KIND, "version": 1, "name": "Ada", "runs": [{"link": "cnnlab:nothing", "updates": 1}]}
    (folder / "x.json").write_text(json.dumps(content))
    assert "<circle" not in make_class_page(folder).path.read_text()


def test_the_page_is_made_anew_but_another_page_is_never_replaced(notebook, folder, capsys):
    hand_in(notebook, folder, "Ada", 3)
    assert main(["class", str(folder)]) == main(["class", str(folder)]) == 0
    (folder / "class.html").write_text("mine")
    assert main(["class", str(folder)]) == 2
    assert "was not made by cnnlab class" in capsys.readouterr().err
    assert (folder / "class.html").read_text() == "mine"


def test_a_folder_without_hand_ins_is_refused_in_a_sentence(tmp_path, capsys):
    assert main(["class", str(tmp_path)]) == 2
    assert "there is no hand-in in" in capsys.readouterr().err
    assert main(["class", str(tmp_path / "gone")]) == 2
    assert "there is no folder" in capsys.readouterr().err
