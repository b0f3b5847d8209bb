"""How to cite the project: what the format asks for is there, and says the same as the package."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import cnnlab

ROOT = Path(__file__).parents[2]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = {"authors", "cff-version", "message", "title"}
"""Keys that version 1.2.0 of the format asks for."""
ALLOWED = REQUIRED | {
    "abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url",
    "preferred-citation", "references", "repository", "repository-artifact", "repository-code", "type", "url",
    "version",
}  # fmt: skip
"""All keys that it knows."""


def test_the_citation_has_each_key_that_the_format_asks_for_and_no_other():
    assert REQUIRED <= set(CITATION) <= ALLOWED
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] == "software"


@pytest.mark.parametrize("key", ["message", "title", "version", "license", "abstract"])
def test_a_value_of_the_citation_is_a_text(key):
    assert isinstance(CITATION[key], str)
    assert CITATION[key].strip()


def test_each_author_is_a_person_or_has_the_one_name_of_a_group():
    assert CITATION["authors"] == PROJECT["authors"]
    assert all(set(author) == {"name"} for author in CITATION["authors"])


def test_the_citation_says_the_same_as_the_package():
    assert CITATION["version"] == cnnlab.__version__
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["keywords"] == PROJECT["keywords"]
    assert len(set(CITATION["keywords"])) == len(CITATION["keywords"])


def test_the_classifiers_name_each_python_from_the_oldest_that_is_asked_for():
    named = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)]
    assert named[0] == PROJECT["requires-python"].removeprefix(">=")
    assert [int(name.partition(".")[2]) for name in named] == [*range(11, 11 + len(named))]
    assert len(named) == 4
