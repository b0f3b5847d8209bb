"""The collection of edge cases from torch's own list of operations, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EDGES = {
    ("sqrt", "backward"): {"all 0", "all -0"},
    ("sqrt", "forward"): {"all -1"},
    ("acos", "backward"): {"all 1", "all -1"},
    ("acos", "forward"): {"all 89"},
    ("exp", "forward"): {"all 89"},
    ("div.no_rounding_mode", "forward"): {"all 0"},
    ("log", "forward"): {"all 0", "all -1"},
    ("std", "forward"): {"one row"},
}
"""Operation and phase -> edges that must be among its own."""
WITHOUT = ("add", "sigmoid", "tanh", "sin", "erf")
"""Operations that have a finite value and slope for every number of ordinary size."""


@pytest.fixture(scope="module")
def printed():
    names = {name.partition(".")[0] for name, _ in EDGES} | set(WITHOUT)
    script = Path(__file__).parent / "opinfo.py"
    done = subprocess.run([sys.executable, str(script), *sorted(names)], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def collected(printed):
    """Operation and phase -> edges."""
    rows = re.findall(r"^(\S+): (forward|backward) \d+: (.*)$", printed, re.MULTILINE)
    return {(name, phase): set(edges.split(", ")) for name, phase, edges in rows}


@pytest.mark.parametrize("place", EDGES, ids=" ".join)
def test_the_known_edges_of_an_operation_are_collected(collected, place):
    assert collected[place] >= EDGES[place]


@pytest.mark.parametrize("name", WITHOUT)
def test_an_operation_without_an_edge_has_no_case_of_ordinary_size(collected, name):
    edges = set().union(*(edges for (own, _), edges in collected.items() if own.partition(".")[0] == name))
    assert not [edge for edge in edges if "1e38" not in edge]


def test_no_operation_is_left_out(printed):
    tried, of = map(int, re.search(r"^(\d+) of (\d+) operations tried", printed, re.MULTILINE).groups())
    assert tried == of >= len(WITHOUT)
    assert printed.rstrip().endswith("slow: []; refused: []")


@pytest.fixture(scope="module")
def traced():
    script = Path(__file__).parent / "opinfo_traced.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_tracer_names_every_operation_at_its_edges_and_never_a_wrong_cause(traced):
    named, of, wrong = map(int, re.search(r"^(\d+) of (\d+) cases named, (\d+) wrong", traced, re.MULTILINE).groups())
    assert of > 800
    assert named >= 0.95 * of
    assert wrong == 0, traced
