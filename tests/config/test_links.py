"""A link is a run in a line: settings and changes of knobs, opened again to the bit."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapes import make_legal
from torch import nn

import cnnlab
from cnnlab.config.links import format_link, opened
from cnnlab.config.settings import KNOB_FIELDS, LIMITS, Choice, NumberOrName, Pair
from cnnlab.dashboards.worker import Worker

SMALL = {"channels": 2, "hidden": (4, 4), "patches": 4, "patch_size": 13, "device": "cpu"}


def values(limit):
    """Values that a field may take."""
    if isinstance(limit, Choice):
        return st.sampled_from(limit.options)
    if isinstance(limit, NumberOrName):  # what is on goes with float16 alone: tests/training/test_loss_scaling.py
        return st.just("off")
    if isinstance(limit, Pair):
        return st.tuples(values(limit.each), values(limit.each))
    if limit.whole:
        return st.integers(int(limit.low), int(limit.high)) | (st.none() if limit.optional else st.nothing())
    return st.floats(limit.low, limit.high, exclude_min=limit.open_low, exclude_max=limit.open_high)


def fits_optimizer(knobs):
    """Whether the knobs are ones that their optimiser takes."""
    given = {"optimizer": "sgd", "momentum": 0, "penalty_in": "cost", "l2": 0, "learning_rate": 1, **knobs}
    adam = given["optimizer"] in ("adam", "adamw")
    decays = given["optimizer"] != "sgd" and (given["penalty_in"] == "update" or given["optimizer"] == "adamw")
    return (
        not (adam and given["momentum"] == 1)
        and not (given["optimizer"] == "adamw" and knobs.get("penalty_in") == "cost")
        and not (decays and given["learning_rate"] * given["l2"] > 0.99)
    )


FIELDS = {name: values(limit) for name, limit in LIMITS.items()}
KNOBS = (
    st.fixed_dictionaries({name: FIELDS[name] for name in KNOB_FIELDS})
    .filter(fits_optimizer)
    .map(lambda knobs: cnnlab.Knobs(**knobs))
)
CHANGES = (
    st.fixed_dictionaries({}, optional=FIELDS)
    .filter(lambda changes: changes.get("batch_size") is None or changes["batch_size"] <= changes.get("patches", 66))
    .filter(fits_optimizer)
)
PLANS = st.dictionaries(st.integers(2, 10**9), KNOBS, max_size=4)


def advanced(start, updates):
    run = cnnlab.Run(start)
    run.advance(updates)
    return run.record


@given(st.sampled_from(["question", "overflow", "dead"]), CHANGES, PLANS)
def test_a_link_opens_as_the_settings_and_the_plan_that_it_was_made_of(preset, changes, plan):
    start = cnnlab.settings(preset, **make_legal(changes, preset))
    schedule = [(1, start.knobs), *sorted(plan.items())]
    link = format_link(start, schedule)
    again, later = opened(link)
    assert again == start
    in_force = dict(later)
    knobs = start.knobs
    for first, wanted in schedule[1:]:
        knobs = in_force.get(first, knobs)
        assert knobs == wanted
    assert format_link(again, later) == link
    assert set(link) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.,:?&=")


@given(st.text(max_size=40) | st.text(alphabet="at3.clip=norm&seed?%,", max_size=40))
def test_whatever_follows_the_question_mark_opens_or_is_one_sentence(text):
    try:
        start, _ = opened(f"cnnlab:question?{text}")
    except ValueError as error:
        said = str(error)
    else:
        said = f"the link opens: {start}"
    assert said.startswith("the link")
    assert "\n" not in said


def test_a_link_says_only_what_differs_from_its_preset():
    start = cnnlab.settings("question", seed=3, learning_rate=1e-3)
    clipped = dataclasses.replace(start.knobs, clip="norm")
    assert format_link(start, ()) == "cnnlab:question?learning_rate=0.001&seed=3"
    assert format_link(start, ((1, start.knobs), (4, clipped))) == (
        "cnnlab:question?learning_rate=0.001&seed=3&at4.clip=norm"
    )
    assert format_link(cnnlab.settings("dead"), ()) == "cnnlab:dead"


def test_numbers_in_a_link_need_no_escape():
    link = format_link(cnnlab.settings("converges", batch_size=None, hidden=(7, 8), l2=1e-5, clip_threshold=1e10), ())
    assert link == "cnnlab:converges?clip_threshold=10000000000.0&l2=1e-05&batch_size=none&hidden=7,8"


def test_keywords_stand_above_a_link_and_a_plan_keeps_only_what_it_changes():
    start, plan = opened("cnnlab:question?seed=3&at4.clip=norm", learning_rate=1e-4)
    assert (start.seed, start.learning_rate) == (3, 1e-4)
    assert plan == ((4, dataclasses.replace(start.knobs, clip="norm")),)


def test_a_link_pasted_from_a_web_page_opens():
    assert opened(" cnnlab:converges?hidden=7%2C8\n")[0].hidden == (7, 8)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("cnnlab:qestion", "did you mean 'question'"),
        ("cnnlab:question?learning_rat=1", "'learning_rat=1'.*did you mean 'learning_rate'"),
        ("cnnlab:question?learning_rate=-1", r"'learning_rate=-1'.*must lie in \(0, 1e6\], got -1"),
        ("cnnlab:question?learning_rate=nan", r"must lie in \(0, 1e6\], got nan"),
        ("cnnlab:question?seed=1.5", "'seed=1.5'.*seed must be a whole number in .0, 4294967295., got '1.5'"),
        ("cnnlab:question?hidden=3", "hidden must be two whole numbers"),
        ("cnnlab:question?clip=nrom", "clip must be one of .* did you mean 'norm'"),
        ("cnnlab:question?seed=1&seed=2", "'seed=2'.*given twice"),
        ("cnnlab:question?at0.clip=norm", "the update must be a whole number of at least 1, got '0'"),
        ("cnnlab:question?at3.seed=4", "seed is what a run starts from"),
        ("cnnlab:question?at3.clipp=norm", "did you mean 'clip'"),
        ("cnnlab:question?preset=dead", "preset is what stands before the question mark"),
        ("cnnlab:question?batch_size=67", r"the link cannot be opened: batch_size must lie in \[1, 66\]"),
        ("cnnlab:question?seed=" + "9" * 9999, "seed must be a whole number"),
    ],
)
def test_a_bad_link_is_one_sentence_with_the_part_and_the_range(link, said):
    with pytest.raises(ValueError, match=said) as caught:
        opened(link)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_a_run_opened_from_a_link_repeats_its_costs_to_the_bit():
    run = cnnlab.Run("question", seed=3, learning_rate=1e-3, momentum=0.5, batch_size=3, **SMALL)
    run.advance(3)
    run.set(clip="norm", clip_threshold=0.3)
    run.advance(2)
    run.set(learning_rate=1e-4, l2=0.1)
    run.advance(3)
    again = advanced(run.record.link(), 8)
    np.testing.assert_array_equal(again.cost, run.record.cost, strict=True)
    assert again.schedule == run.record.schedule
    assert again.settings == run.record.settings


def test_a_fork_repeats_from_its_link_too():
    run = cnnlab.Run("question", learning_rate=1e-2, **SMALL)
    run.advance(6)
    twin = run.fork(2, clip="norm", clip_threshold=0.1)
    twin.advance(6)
    again = advanced(twin.record.link(), 8)
    np.testing.assert_array_equal(again.cost, twin.record.cost, strict=True)
    assert again.branch.parent is None


def test_knobs_that_a_person_sets_end_the_plan():
    run = cnnlab.Run("cnnlab:question?at3.clip=norm&at5.clip=off", **SMALL)
    run.advance(2)
    assert run.knobs_in_force.clip == "norm"
    run.set(learning_rate=1e-4)
    run.advance(4)
    assert run.record.link().endswith("&at3.learning_rate=0.0001&at3.clip=norm")


def test_a_fork_without_changes_keeps_the_plan_and_a_rewind_plays_it_again():
    run = cnnlab.Run("cnnlab:question?at3.clip=norm", **SMALL)
    run.advance(4)
    run.rewind(1)
    assert run.knobs_in_force.clip == "off"
    twin = run.fork()
    assert [each.advance(2).knobs.clip for each in (run, twin)] == ["norm", "norm"]


def test_a_record_of_a_network_of_your_own_has_no_link():
    run = cnnlab.Run(network=nn.Linear(2, 2), data=([[1.0, 2.0]], [0]), cost="log_softmax")
    with pytest.raises(ValueError, match="question's network only"):
        run.record.link()


def test_a_worker_shows_the_knobs_that_a_plan_brings_into_force():
    start, plan = opened("cnnlab:question?at3.clip=norm", **SMALL)
    worker = Worker(cnnlab.Run, start, lambda _: None, plan)
    worker.play(1, hurried=True)
    assert worker.wait(20)
    assert worker.settings.clip == "off"
    worker.play(1, hurried=True)
    assert worker.wait(20)
    assert worker.settings.clip == "norm"
    worker.close()


def test_a_lab_opens_its_own_link_with_what_is_still_to_come():
    link = "cnnlab:question?seed=3&channels=2&hidden=4,4&patches=4&patch_size=13&device=cpu&at3.clip=norm&at9.clip=off"
    lab = cnnlab.Lab(link)
    try:
        assert opened(lab.link()) == opened(link)
        lab.step(4)
        assert opened(lab.link()) == opened(link)
        assert lab.settings.clip == "norm"
        lab.reset()
        assert lab.settings.clip == "off"
        assert opened(lab.link()) == opened(link)
        lab.step(4)
        lab.set(l1=0.5)
        assert lab.link() == format_link(*opened(link)).removesuffix("&at9.clip=off") + "&at5.l1=0.5&look=4"
    finally:
        lab.close()


def test_a_link_opens_at_the_update_that_was_shown_when_it_was_taken():
    first = cnnlab.Lab("question", **SMALL)
    second = None
    try:
        first.step(2)
        first.set(learning_rate=0.5)
        first.step(4)
        first.look_at(3)
        link = first.link()
        assert link.endswith("&at3.learning_rate=0.5&look=3")
        second = cnnlab.Lab(link)
        assert second.wait(20)
        np.testing.assert_array_equal(second.record.cost, first.record.cost[:3])
        assert second.settings.learning_rate == 0.5
        assert second.link() == link
        np.testing.assert_array_equal(cnnlab.Run(link).advance(3).cost, second.record.cost[-1])
    finally:
        first.close()
        if second is not None:
            second.close()


@pytest.mark.parametrize("look", ["0", "-1", "1.5", "nan", "", "9" * 99])
def test_a_moment_that_is_none_is_refused_in_a_sentence(look):
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        cnnlab.Lab(f"cnnlab:question?look={look}")


def test_a_lab_s_link_holds_a_knob_that_waits_for_the_next_update():
    lab = cnnlab.Lab("question", **SMALL)
    try:
        lab.set(clip="value")
        assert "?clip=value&" in lab.link()
        lab.step(1)
        lab.set(clip="norm")
        assert lab.link().endswith("&at2.clip=norm&look=1")
        assert "at2" not in lab.record.link()
    finally:
        lab.close()


def test_the_command_line_opens_a_link(capsys):
    from cnnlab.cli.main import main

    link = "cnnlab:question?channels=2&hidden=4,4&patches=4&patch_size=13&epochs=4&device=cpu&at2.l1=0.5"
    assert main(["run", "--json", link]) == 0
    assert json.loads(capsys.readouterr().out)["cost"] == advanced(link, 4).cost.tolist()
    assert main(["run", "cnnlab:question?at0.clip=norm"]) == 2
    assert "the update must be" in capsys.readouterr().err


@pytest.mark.parametrize(
    "link", ["cnnlab:{}", "cnnlab:question?{}=1", "cnnlab:question?at3.{}=1", "cnnlab:question?clip={}", "{}"]
)
def test_a_long_link_does_not_fill_the_message(link):
    with pytest.raises(ValueError, match="…") as caught:
        opened(link.format("x" * 100_000))
    assert len(str(caught.value)) < 400
