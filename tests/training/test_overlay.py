"""Something laid over what others replace, too: what comes back, and what is left alone."""

from __future__ import annotations

import functools
import itertools
import signal
import subprocess
import sys
import types

import pytest

from cnnlab.training import overlay
from cnnlab.training.overlay import InterruptOverlay, Overlay


@pytest.fixture
def holder() -> types.ModuleType:
    module = types.ModuleType("holder")
    module.act = lambda: ["first"]
    return module


def naming(name: str):
    return lambda below: [name, *below()]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_overlays_that_are_left_in_any_order_bring_back_what_was_there(holder, order):
    first = holder.act
    overlays = [Overlay(holder, "act", naming(str(place))) for place in range(3)]
    for each in overlays:
        each.__enter__()
    assert holder.act() == ["2", "1", "0", "first"]
    here = {0, 1, 2}
    for place in order:
        overlays[place].__exit__()
        here.remove(place)
        assert holder.act() == [*map(str, sorted(here, reverse=True)), "first"]
    assert holder.act is first


def test_what_another_lays_on_top_meanwhile_stays_and_reaches_what_was_there(holder):
    with Overlay(holder, "act", naming("ours")):
        below = holder.act
        holder.act = theirs = lambda: ["theirs", *below()]
        assert holder.act() == ["theirs", "ours", "first"]
    assert holder.act is theirs
    assert holder.act() == ["theirs", "first"]


def test_what_another_put_there_between_two_overlays_is_called_and_comes_back(holder):
    with Overlay(holder, "act", naming("ours")):
        pass
    holder.act = theirs = lambda: ["theirs"]
    with Overlay(holder, "act", naming("ours")):
        assert holder.act() == ["ours", "theirs"]
    assert holder.act is theirs


def test_one_that_has_ended_and_was_put_back_by_another_is_not_laid_over(holder):
    first = holder.act
    with Overlay(holder, "act", naming("old")):
        kept = holder.act
    holder.act = kept  # as one does who restores what there was when he came
    with Overlay(holder, "act", naming("new")):
        assert holder.act() == ["new", "first"]
    assert holder.act is first


def test_a_function_that_wraps_ours_is_not_taken_for_ours(holder):
    with Overlay(holder, "act", naming("ours")):
        below = holder.act

        @functools.wraps(below)
        def theirs():
            return ["theirs", *below()]

        holder.act = theirs
    with Overlay(holder, "act", naming("ours")):
        assert holder.act() == ["ours", "theirs", "first"]
    assert holder.act is theirs


def test_an_error_goes_through_and_brings_back_what_was_there(holder):
    first = holder.act
    with pytest.raises(ArithmeticError), Overlay(holder, "act", naming("ours")):
        raise ArithmeticError
    assert holder.act is first


def test_the_system_s_own_handler_acts_where_an_ended_overlay_is_still_called():
    code = """
import signal
from cnnlab.training.overlay import InterruptOverlay
signal.signal(signal.SIGINT, signal.SIG_DFL)
with InterruptOverlay(lambda below, *_: None):
    signal.raise_signal(signal.SIGINT)
    kept = signal.getsignal(signal.SIGINT)
assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
signal.signal(signal.SIGINT, kept)
signal.raise_signal(signal.SIGINT)
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT, done.stderr
    assert "alive" not in done.stdout


def test_a_handler_that_python_cannot_put_back_is_not_listened_over(monkeypatch):
    monkeypatch.setattr(overlay.signal, "getsignal", lambda _number: None)
    assert not overlay.handles_interrupts()


def test_two_handlers_left_out_of_order_bring_back_the_first():
    first = signal.getsignal(signal.SIGINT)
    heard = []
    one = InterruptOverlay(lambda below, *_: heard.append("one"))
    two = InterruptOverlay(lambda below, *_: heard.append("two"))
    one.__enter__()
    two.__enter__()
    one.__exit__()
    signal.raise_signal(signal.SIGINT)
    assert heard == ["two"]
    two.__exit__()
    assert signal.getsignal(signal.SIGINT) is first
