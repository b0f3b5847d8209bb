"""Whatever is raised while training, drawing or answering a page is told in one sentence, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from traitlets import TraitError

import cnnlab
from cnnlab.config import errors
from cnnlab.config.schedules import SAFE
from cnnlab.dashboards import frame_pace, messages, view_state
from cnnlab.dashboards.branch_tree import BranchTree
from cnnlab.dashboards.job_dashboard import JobDashboard
from cnnlab.dashboards.live_figure import FigureState
from cnnlab.dashboards.upload import read_upload
from cnnlab.dashboards.view import View
from cnnlab.dashboards.worker import Worker
from cnnlab.plots import dashboard
from cnnlab.plots import map as trainability_map
from cnnlab.plots.gauges import list_plots
from cnnlab.sweeps import workers
from cnnlab.training.checkpoints import History
from cnnlab.training.network import Kernels
from cnnlab.training.run import Run

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8}
TINY = {"channels": 3, "hidden": (6, 6), "patch_size": 13, "patches": 10, "relu": "none", "steps": 3}
AXES = {"learning_rate": [1e-4, 1.0], "init_scale": [0.5, 4.0]}


class Mute(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise SystemExit("in __str__")


class Silent:
    """A value that cannot be written."""

    def __repr__(self) -> str:
        raise KeyError("repr")


ENDING = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError("gone")]
"""What would end a thread, a loop or a program."""
ORDINARY = [RuntimeError("no\n  more"), Mute(), RecursionError("too deep"), MemoryError(), StopIteration(1)]
KINDS = [*ENDING, *ORDINARY]
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]
ODD = ["x", "", None, True, 1.5, float("nan"), float("inf"), -1, 10**5000, [], {}, (1, 2), b"x", 1j, DEEP, Silent()]
"""Values that are no whole number in any range."""
PYTHON = ("object", "attribute", "unhashable", "argument", "not supported", "convert", "KeyError", "repr", "\n")
"""Words that are Python's own, and not a sentence on a field."""


def kind_of(error: Any) -> str:
    """The name of a test's case."""
    return type(error).__name__


kinds = pytest.mark.parametrize("kind", KINDS, ids=kind_of)
ending = pytest.mark.parametrize("kind", ENDING, ids=kind_of)
odd = pytest.mark.parametrize("value", ODD, ids=kind_of)


class Cost:
    """A cost that raises what it is told to, once, or at every call from then on."""

    def __init__(self) -> None:
        self.calls = 0
        self.kind: BaseException | None = None
        self.fails_at = 0
        self.always = False

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.kind is not None and (self.calls == self.fails_at or (self.always and self.calls > self.fails_at)):
            raise self.kind
        return torch.nn.functional.cross_entropy(outputs, y)

    def fail(self, kind: BaseException | None, after: int = 0, always: bool = False) -> None:
        """Raise at the call after so many good ones."""
        self.kind, self.fails_at, self.always = kind, self.calls + after + 1, always


@pytest.fixture
def cost() -> Cost:
    return Cost()


def own(cost: Any) -> dict[str, Any]:
    """A small network of the reader's own."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 3, generator=generator), torch.arange(6) % 2
    network = torch.nn.Linear(3, 2)
    torch.nn.init.ones_(network.weight)
    torch.nn.init.zeros_(network.bias)
    return {"network": network, "data": (x, y), "cost": cost}


@pytest.fixture
def own_lab(cost: Cost) -> Iterator[cnnlab.Lab]:
    made = cnnlab.Lab(**own(cost), learning_rate=0.1)
    yield made
    made.close()


@pytest.fixture
def lab() -> Iterator[cnnlab.Lab]:
    made = cnnlab.Lab("question", **SMALL)
    made.step(3)
    yield made
    made.close()


def state_of(lab: cnnlab.Lab) -> tuple[Any, ...]:
    """All that a refusal must leave as it is."""
    worker = lab.worker
    run = worker.run
    return (
        run, run.updates, run.record.cost.tobytes(), run.weights()["weight"].tobytes() if run.own_network else b"",
        run.record.branch, run.plan, run.knobs_in_force, tuple(worker.tree.runs), worker.tree.ghosts,
        worker.rate.schedule, worker.rate.peak, worker.goal, worker.planned, lab.settings, lab.look, lab.pace,
    )  # fmt: skip


def is_a_sentence(text: str) -> bool:
    """Whether a text is one short line without Python's own words."""
    return bool(text) and len(text) < 420 and not any(word in text for word in PYTHON)


# The sentence.


@kinds
def test_an_exception_is_told_in_one_line_whatever_it_is(kind: BaseException) -> None:
    said = errors.describe_error(kind)
    assert said.startswith(type(kind).__name__)
    assert "\n" not in said
    assert not said.endswith((": ", ":"))


def test_an_exception_of_many_lines_or_an_enormous_one_is_cut_to_one_line() -> None:
    assert errors.describe_error(RuntimeError("no\n\n   more")) == "RuntimeError: no more"
    assert len(errors.describe_error(RuntimeError("x" * 10**6))) < 350
    assert errors.describe_problem(ValueError("step must be 3")) == "step must be 3"


# Training.


@kinds
def test_what_an_update_raises_is_told_once_and_the_run_before_it_goes_on(
    own_lab: cnnlab.Lab, cost: Cost, kind: BaseException
) -> None:
    own_lab.step(2)
    cost.fail(kind, after=1)
    with pytest.raises(Exception) as raised:  # noqa: PT011
        own_lab.step(5)
    if isinstance(kind, Exception):
        assert raised.value is kind
    else:
        assert type(raised.value) is RuntimeError
        assert str(raised.value).startswith(f"the network or its cost raised {type(kind).__name__}")
        assert raised.value.__cause__ is kind
    assert type(kind).__name__ in own_lab.widgets.header.state["problem"]
    assert len(own_lab.record) == 3
    assert own_lab.wait(5)
    own_lab.step(2)
    assert own_lab.widgets.header.state["problem"] == ""
    alone = cnnlab.Run(**own(torch.nn.functional.cross_entropy), learning_rate=0.1)
    alone.advance(5)
    assert own_lab.record.cost.tobytes() == alone.record.cost.tobytes()


@kinds
def test_what_play_meets_is_shown_and_each_next_command_works(
    own_lab: cnnlab.Lab, cost: Cost, kind: BaseException
) -> None:
    cost.fail(kind, after=2)
    own_lab.choose_pace("full")
    own_lab.play(9)
    own_lab.worker.wait(10)
    assert type(kind).__name__ in own_lab.view.error
    assert not own_lab.view.training
    own_lab.set(learning_rate=0.2)
    own_lab.fork(1)
    own_lab.step(1)
    own_lab.rewind(1)
    own_lab.choose_branch(1)
    assert len(own_lab.record) == 2
    own_lab.reset()
    own_lab.play(3)
    assert own_lab.wait(10)
    assert len(own_lab.record) == 3


@kinds
@pytest.mark.parametrize("command", ["rewind", "fork"])
def test_a_replay_that_raises_leaves_run_branches_and_the_update_looked_at(
    own_lab: cnnlab.Lab, cost: Cost, kind: BaseException, command: str
) -> None:
    own_lab.step(40)
    own_lab.look_at(13)
    own_lab.worker.wait(5)
    before = state_of(own_lab)
    cost.fail(kind)
    with pytest.raises(Exception):  # noqa: B017, PT011
        getattr(own_lab, command)()
    assert state_of(own_lab) == before
    getattr(own_lab, command)()
    assert len(own_lab.record) == 13
    assert own_lab.record.branch.number == (1 if command == "rewind" else 2)
    assert own_lab.look is None


@kinds
def test_a_start_that_raises_leaves_the_run_its_schedule_and_its_training(kind: BaseException) -> None:
    views: list[View] = []

    def make(wanted: cnnlab.Settings) -> Run:
        if wanted.seed == 13:
            raise kind
        return Run(wanted)

    worker = Worker(make, cnnlab.settings("question", **SMALL), views.append)
    worker.schedule("cosine")
    worker.choose_pace(50)
    worker.play(200)
    worker.restart(worker.settings.replace(seed=13, learning_rate=0.5), schedule="constant")
    worker.restart(worker.settings.replace(seed=13, learning_rate=0.25))
    assert worker.settle(10)
    assert worker.view.error.startswith(type(kind).__name__) or type(kind).__name__ in worker.view.error
    assert worker.training
    assert (worker.rate.schedule, worker.rate.peak, worker.settings.seed) == ("cosine", 0.01, 0)
    worker.pause()
    assert worker.wait(10)
    worker.restart(worker.settings.replace(seed=13))
    worker.restart(worker.settings.replace(seed=14))
    assert worker.wait(10)
    assert (views[-1].record.settings.seed, views[-1].record.settings.learning_rate) == (14, 0.01)
    worker.close()


@kinds
def test_held_out_data_that_cannot_be_measured_are_told_and_the_command_before_it_is_done(kind: BaseException) -> None:
    class Moody(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not self.training:
                raise kind
            return super().forward(x)

    given = own(torch.nn.functional.cross_entropy)
    lab = cnnlab.Lab(**{**given, "network": Moody(3, 2)}, held_out=given["data"])
    with pytest.raises(Exception):  # noqa: B017, PT011
        lab.step(2)
    with pytest.raises(Exception):  # noqa: B017, PT011
        lab.reset()
    assert len(lab.record) == 0
    assert type(kind).__name__ in lab.view.error
    lab.close()


@kinds
@pytest.mark.parametrize("watching", [True, False])
def test_a_curvature_that_raises_ends_no_thread_and_is_not_asked_for_again(
    cost: Cost, kind: BaseException, watching: bool
) -> None:
    views: list[View] = []
    worker = Worker(lambda wanted: Run(wanted, **own(cost)), cnnlab.settings("question"), views.append)
    worker.measurements.watching = watching
    cost.fail(kind, always=True)
    if watching:
        worker.ask()
    else:
        worker.schedule(SAFE)
        worker.play(2, hurried=True)
    end = time.monotonic() + 20
    while worker.thread.alive:
        assert time.monotonic() < end
        time.sleep(0.002)
    asked = cost.calls
    cost.fail(None)
    worker.schedule("constant")
    worker.play(2, hurried=True)
    assert worker.wait(10)
    assert len(views[-1].record) == 2
    assert asked < 10
    worker.close()


@kinds
def test_a_view_that_cannot_be_made_or_handed_over_ends_no_thread(
    monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    views: list[View] = []

    def post(view: View) -> None:
        if fails:
            raise kind
        views.append(view)

    fails = True
    worker = Worker(Run, cnnlab.settings("question", **SMALL), post)
    worker.play(2, hurried=True)
    assert worker.wait(10)
    fails = False
    worker.play(4, hurried=True)
    assert worker.wait(10)
    assert len(views[-1].record) == 4
    assert views[-1].error is None

    def cannot(self: BranchTree) -> None:
        raise kind

    with monkeypatch.context() as patch:
        patch.setattr(BranchTree, "record", property(cannot))
        worker.play(1, hurried=True)
        assert worker.wait(10)
    assert type(kind).__name__ in views[-1].error
    assert len(views[-1].record) == 4
    worker.play(1, hurried=True)
    assert worker.wait(10)
    assert views[-1].error is None
    assert len(views[-1].record) == worker.run.updates > 4
    worker.close()


@ending
def test_a_thread_that_is_ended_from_outside_is_replaced_and_nobody_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    views: list[View] = []
    worker = Worker(Run, cnnlab.settings("question", **SMALL), views.append)

    def ended() -> bool:
        raise kind

    with monkeypatch.context() as patch:
        patch.setattr(worker.thread, "take_turn", ended)
        worker.restart(worker.settings.replace(seed=3))
        assert worker.wait(10)
        assert worker.settle(0)
    assert type(kind).__name__ in views[-1].error
    assert worker.settings.seed == 0
    worker.play(2, hurried=True)
    assert worker.wait(10)
    assert len(views[-1].record) == 2
    worker.close()


def test_a_thread_that_ends_without_a_word_is_not_waited_for() -> None:
    worker = Worker(Run, cnnlab.settings("question", **SMALL), lambda view: None)
    worker.thread.thread = threading.Thread(target=lambda: None)
    worker.thread.thread.start()
    worker.jobs.append(lambda: None)
    assert worker.wait(60)
    assert not worker.settle(60)
    worker.play(2, hurried=True)
    assert worker.wait(10)
    assert worker.run.updates == 2
    worker.close()


def test_a_closed_lab_says_that_a_cost_has_not_come_back_and_that_later_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released, entered = threading.Event(), threading.Event()

    def cost(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        entered.set()
        released.wait(60)
        return torch.nn.functional.cross_entropy(outputs, y)

    lab = cnnlab.Lab(**own(cost))
    lab.play(3)
    assert entered.wait(10)
    thread, wait = lab.worker.thread.thread, lab.worker.wait
    monkeypatch.setattr(lab.worker, "wait", lambda timeout: wait(min(timeout, 0.1)))
    with pytest.warns(
        RuntimeWarning, match=r"^the lab is closed, but what it computes did not end within 10 s: its th"
    ):
        lab.close()
    released.set()
    thread.join(10)
    assert len(lab.record) == 0
    assert not lab.worker.thread.alive


@pytest.mark.parametrize("place", ["keep", "read"])
def test_an_interrupt_in_the_middle_of_an_update_leaves_the_run_as_it_was(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    run, alone = cnnlab.Run("question", **SMALL), cnnlab.Run("question", **SMALL)
    run.advance(3)
    owner = History if place == "keep" else Kernels
    good = getattr(owner, place)

    def interrupted(*arguments: Any) -> None:
        good(*arguments)
        raise KeyboardInterrupt

    run.set(momentum=0.9)
    with monkeypatch.context() as patch:
        patch.setattr(owner, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.advance(1)
    assert (run.updates, len(run.record)) == (3, 3)
    run.set(momentum=0.0)
    run.advance(3)
    alone.advance(6)
    assert run.record.cost.tobytes() == alone.record.cost.tobytes()
    assert run.record.schedule == alone.record.schedule
    run.rewind(4)
    run.advance(2)
    assert run.record.cost.tobytes() == alone.record.cost.tobytes()


def test_an_interrupt_after_gauges_are_written_down_writes_none_of_them_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    run = cnnlab.Run("question", **SMALL)
    run.advance(3)
    run.update()
    good = run.log.append

    def interrupted(*arguments: Any) -> None:
        good(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(run.log, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.flush()
    monkeypatch.undo()
    run.advance(2)
    alone = cnnlab.Run("question", **SMALL)
    alone.advance(6)
    assert run.record.cost.tobytes() == alone.record.cost.tobytes()


def test_a_fork_that_is_refused_takes_no_number() -> None:
    run = cnnlab.Run("question", **SMALL)
    run.advance(2)
    with pytest.raises(TypeError, match="learning_rate must be a number"):
        run.fork(1, learning_rate="x")
    assert run.fork(1).branch.number == 2


# Drawing.


def breaking(monkeypatch: pytest.MonkeyPatch, place: str, kind: BaseException) -> list[int]:
    """Have drawing raise at one of its places; gives a list that grows with each time."""
    times: list[int] = []

    def cannot(*_arguments: Any, **_options: Any) -> None:
        times.append(1)
        raise kind

    owner = {
        "draw_cost": dashboard, "colour_cells": trainability_map, "describe_band": view_state,
        "send": FigureState, "_in_words": JobDashboard,
    }[place]  # fmt: skip
    monkeypatch.setattr(owner, place, cannot)
    return times


@pytest.mark.parametrize("place", ["draw_cost", "describe_band", "send"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not isinstance(kind, KeyboardInterrupt)], ids=kind_of)
def test_an_error_while_drawing_is_shown_and_the_next_good_frame_clears_it_and_holds_all(
    lab: cnnlab.Lab, monkeypatch: pytest.MonkeyPatch, place: str, kind: BaseException
) -> None:
    with monkeypatch.context() as patch:
        times = breaking(patch, place, kind)
        lab.step(2)
        assert times
    assert lab.record.steps.tolist() == [1, 2, 3, 4, 5]
    assert lab.widgets.header.state["step"] == 5
    assert lab.widgets.header.state["problem"].startswith(f"this could not be drawn: {type(kind).__name__}")
    sent: list[Any] = []
    good = FigureState.send_state
    monkeypatch.setattr(FigureState, "send_state", lambda *told: (sent.append(told[1]), good(*told))[1])
    lab.step(1)
    assert lab.widgets.header.state["problem"] == ""
    assert next(trace for trace in lab.figure.data if trace.name == "cost").x.tolist() == [1, 2, 3, 4, 5, 6]
    assert lab.widgets.controls.state["band"]
    assert sent == ["spec"] * (place == "send")


def test_a_trait_that_refuses_is_shown_and_the_other_parts_are_drawn(lab: cnnlab.Lab) -> None:
    def refuse(_change: Any) -> None:
        raise TraitError("not this table")

    lab.widgets.texts.observe(refuse, "strip")
    lab.step(1)
    assert lab.widgets.header.state["problem"] == "this could not be drawn: TraitError: not this table"
    assert (lab.widgets.header.state["step"], len(lab.record)) == (4, 4)
    lab.received({"set": {"learning_rate": "x"}})
    assert lab.widgets.controls.state["problem"].startswith("learning_rate must be")
    lab.widgets.texts.unobserve(refuse, "strip")
    lab.step(1)
    assert lab.widgets.header.state["problem"] == ""


def test_an_interrupt_while_a_cell_draws_is_the_cell_s_and_the_next_call_draws(
    lab: cnnlab.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        breaking(patch, "draw_cost", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            lab.step(1)
    assert len(lab.record) == 4
    lab.step(1)
    assert (lab.widgets.header.state["step"], lab.widgets.header.state["problem"]) == (5, "")


async def soon(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Let the loop run until a condition holds; AssertionError if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


@kinds
def test_an_error_in_the_publisher_ends_no_loop_is_paced_and_is_cleared(
    monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    async def watch() -> None:
        lab = cnnlab.Lab("question", **SMALL, autosave=False)
        with monkeypatch.context() as patch:
            times = breaking(patch, "draw_cost", kind)
            lab.choose_pace("full")
            began = time.monotonic()
            lab.play(100_000)
            await soon(lambda: "could not be drawn" in lab.widgets.header.state["problem"] and len(times) > 2)
            assert len(times) <= 2 + (time.monotonic() - began) * 2 * frame_pace.MOST
            assert type(kind).__name__ in lab.widgets.header.state["problem"]
            lab.received({"set": {"learning_rate": "x"}})
            await soon(lambda: lab.widgets.controls.state["problem"].startswith("learning_rate must be a number"))
        assert lab.view.training
        await soon(lambda: lab.widgets.header.state["problem"] == "" and lab.widgets.header.state["step"] > 0)
        lab.pause()
        await soon(lambda: not lab.widgets.header.state["training"])
        assert lab.widgets.header.state["step"] == len(lab.record)
        lab.close()

    asyncio.run(watch())


def test_an_interrupt_anywhere_in_the_publisher_ends_neither_it_nor_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch() -> None:
        lab = cnnlab.Lab("question", **SMALL, autosave=False)
        good, calls = lab.publisher.clock, []

        def interrupted() -> float:
            calls.append(1)
            if len(calls) == 1:
                raise KeyboardInterrupt
            return good()

        monkeypatch.setattr(lab.publisher, "clock", interrupted)
        lab.choose_pace("full")
        lab.play(3)
        await soon(lambda: lab.widgets.header.state["step"] == 3)
        assert not lab.publisher.task.done()
        lab.close()

    asyncio.run(watch())


@kinds
def test_what_the_loop_is_asked_to_do_raises_on_the_page_and_not_in_the_loop(
    monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    async def watch() -> None:
        lab = cnnlab.Lab("question", **SMALL, autosave=False)
        wrong: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, told: wrong.append(told))

        def cannot(_width: float) -> None:
            raise kind

        monkeypatch.setattr(lab.widgets, "resize", cannot)
        lab.widgets.figure.hear({"width": 800})
        await soon(lambda: lab.widgets.controls.state["problem"] == errors.describe_problem(kind))
        assert not wrong
        lab.close()

    asyncio.run(watch())


# Boards.


@pytest.fixture
def atlas(monkeypatch: pytest.MonkeyPatch) -> Iterator[cnnlab.Atlas]:
    monkeypatch.setattr(workers, "count_cores", lambda: 1)
    made = cnnlab.Atlas("question", **TINY, **AXES)
    yield made
    made.close()


@kinds
def test_what_a_board_s_computing_raises_is_shown_and_start_computes_the_rest(
    atlas: cnnlab.Atlas, monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    def cannot(*_arguments: Any) -> None:
        raise kind

    with monkeypatch.context() as patch:
        patch.setattr(atlas.survey, "submit", cannot)
        atlas.start()
        assert atlas.wait(20)
    assert type(kind).__name__ in atlas.words.value
    atlas.start()
    assert atlas.wait(60)
    assert atlas.map.done.all()
    assert atlas.words.value == "4 of 4 runs"


@kinds
def test_what_a_button_of_a_board_raises_is_shown(
    atlas: cnnlab.Atlas, monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    def cannot(*_arguments: Any) -> None:
        raise kind

    with monkeypatch.context() as patch:
        patch.setattr(atlas.survey, "go_on", cannot)
        atlas.button.click()
        atlas.draw()
    assert errors.describe_problem(kind) in atlas.words.value
    atlas.button.click()
    assert atlas.wait(60)
    assert atlas.map.done.all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not isinstance(kind, KeyboardInterrupt)], ids=kind_of)
def test_an_error_while_a_board_draws_is_shown_and_the_next_good_frame_clears_it(
    atlas: cnnlab.Atlas, monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    with monkeypatch.context() as patch:
        breaking(patch, "colour_cells", kind)
        atlas.start()
        assert atlas.wait(60)
    assert atlas.map.done.all()
    assert f"this could not be drawn: {type(kind).__name__}" in atlas.words.value
    atlas.choice.value = "held-out accuracy"
    assert atlas.words.value == "4 of 4 runs"


@ending
def test_an_error_while_a_board_s_publisher_draws_ends_no_loop(
    monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    monkeypatch.setattr(workers, "count_cores", lambda: 1)

    async def watch() -> None:
        atlas = cnnlab.Atlas("question", **TINY, **AXES)
        with monkeypatch.context() as patch:
            breaking(patch, "colour_cells", kind)
            atlas.start()
            await soon(lambda: "could not be drawn" in atlas.words.value and not atlas.computing)
        atlas.choice.value = "held-out accuracy"
        await soon(lambda: atlas.words.value == "4 of 4 runs")
        assert not atlas.publisher.done()
        atlas.close()

    asyncio.run(watch())


def test_a_board_that_was_closed_while_it_computes_says_so(
    atlas: cnnlab.Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, entered = threading.Event(), threading.Event()

    def blocked(*_arguments: Any) -> None:
        entered.set()
        released.wait(60)

    monkeypatch.setattr(atlas.survey, "submit", blocked)
    monkeypatch.setattr("cnnlab.dashboards.job_dashboard.PATIENCE", 0.1)
    atlas.start()
    assert entered.wait(10)
    thread = atlas.thread
    with pytest.warns(RuntimeWarning, match="the dashboard is closed, but what it computes did not end within 0.1 s"):
        atlas.close()
    released.set()
    thread.join(10)
    assert not thread.is_alive()


@odd
def test_a_click_or_a_box_of_nonsense_is_answered_in_a_sentence(atlas: cnnlab.Atlas, value: Any) -> None:
    before = atlas.survey
    for told in (
        {"click": value},
        {"click": {"trace": 0, "x": value, "y": value}},
        {"zoom": value},
        {"zoom": [value] * 4},
    ):
        atlas.plots.hear(told)
        assert is_a_sentence(atlas.error) or told.get("click") == {}, told
    atlas.draw()
    assert atlas.survey is before
    assert atlas.lab is None


def test_a_run_that_cannot_be_opened_leaves_the_cell_that_is_marked(
    atlas: cnnlab.Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas.open(0, 0)
    atlas.lab.wait(20)

    def cannot(_start: Any) -> None:
        raise ValueError("no such start")

    monkeypatch.setattr(atlas.lab, "restart", cannot)
    with pytest.raises(ValueError, match="no such start"):
        atlas.open(1, 1)
    assert atlas.cell == (0, 0)


@odd
@pytest.mark.parametrize("field", ["steps", "seeds", "executor", "path", "learning_rate"])
def test_odd_arguments_of_a_board_are_refused_in_a_sentence(value: Any, field: str) -> None:
    fits = {"seeds": [(1, 2)], "executor": [None], "path": ["x", "", None], "learning_rate": [1.5]}
    if value in fits.get(field, ()):
        return
    with pytest.raises((TypeError, ValueError)) as refused:
        cnnlab.Fan("question", **{**TINY, field: value})
    assert field in str(refused.value) or "axis" in str(refused.value)
    assert is_a_sentence(str(refused.value))


@pytest.mark.parametrize("remedies", [{3: {}}, {None: {}}, {"a": {3: 1}}, {"a": {"l3": 1}}, {"a": 3}, Silent(), DEEP])
def test_remedies_of_odd_names_or_fields_are_refused_in_a_sentence(remedies: Any) -> None:
    with pytest.raises(TypeError, match=r"^(remedies must be a dict of dicts|there is no setting named)"):
        cnnlab.Remedies("question", **TINY, remedies=remedies)


# The doctor and the upload.


@ending
def test_what_ends_a_program_within_an_autopsy_is_shown_and_raised_and_the_next_one_works(
    own_lab: cnnlab.Lab, cost: Cost, kind: BaseException
) -> None:
    own_lab.set(learning_rate=1e6)
    own_lab.step(3)
    cost.fail(kind, always=True)
    with pytest.raises(Exception) as raised:  # noqa: PT011
        own_lab.explain()
    assert isinstance(raised.value, RuntimeError) or raised.value is kind
    assert type(kind).__name__ in own_lab.doctor.state["problem"]
    assert not own_lab.doctor.state["busy"]
    cost.fail(None)
    assert own_lab.explain().cause


@pytest.mark.parametrize("kind", ORDINARY, ids=kind_of)
def test_an_autopsy_is_made_whatever_the_network_or_cost_raises(
    own_lab: cnnlab.Lab, cost: Cost, kind: BaseException
) -> None:
    own_lab.set(learning_rate=1e6)
    own_lab.step(3)
    cost.fail(kind, always=True)
    found = own_lab.explain()
    assert found.cause
    assert not own_lab.doctor.state["problem"]


@kinds
def test_a_file_that_cannot_be_used_is_told_whatever_is_raised(
    monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    def cannot(*_arguments: Any) -> None:
        raise kind

    monkeypatch.setattr("cnnlab.dashboards.upload.own_image", cannot)
    assert read_upload({"file": "halves"}, [b"x"]) == {"problem": errors.describe_problem(kind)}


# What a page asks.


NONSENSE = [value for value in ODD if isinstance(value, (str, float, int, list, dict)) or value is None]
NONSENSE += [1e308, "y" * 100_000, ["z"] * 10_000, {"learning_rate": None}, {"hidden": "4,4"}, [[[{"a": []}]]]]


def told_by(lab: cnnlab.Lab) -> str:
    """What the page says is wrong, once the worker is at rest."""
    assert lab.worker.wait(20)
    return lab.problem or lab.worker.view.error or lab.undrawn


@pytest.mark.parametrize("value", NONSENSE, ids=kind_of)
def test_nonsense_in_any_field_is_answered_in_one_sentence_and_changes_nothing(lab: cnnlab.Lab, value: Any) -> None:
    asked = [{name: value} for name in messages.FIELDS if name not in ("updates", "branch")]
    asked += [{"do": "step", "updates": value}, {"do": "choose_branch", "branch": value}, {"unknown": value}]
    asked += [{"do": "delete_branch", "branch": value}, {"pace": "full", "set": {"seed": value}}, value]
    allowed = [{"look": None}, {"stop_at_nan": True}, {"present": True}, {"set": {}}, {}]
    before, pace = state_of(lab)[:-1], lab.pace
    for message in asked:
        if any(message == each and type(message) is type(each) for each in allowed) or message == {"problem": value}:
            continue
        lab.problem, lab.worker.failure = "", None
        lab.received(message)
        said = told_by(lab)
        assert is_a_sentence(said.replace("must be an object", "")), (message, said)
        assert state_of(lab)[:-1] == before
        assert lab.pace == pace


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({"set": None}, "set must be an object of settings by name, got None"),
        ({"set": {"learning_rate": [1]}}, "learning_rate must be a number in (0, 1e6], got [1]"),
        ({"do": "step"}, "updates must be a whole number in [1, 1e6], got None"),
        ({"do": ["play"]}, "do must be one of 'play'"),
        ({"do": "plya"}, "did you mean 'play'?"),
        ({"do": "choose_branch"}, "branch must be one of 1, got None"),
        ({"apply": "x"}, "remedy must be one of those that explain() has tried (none so far), got 'x'"),
        ({"hand": [1, None]}, "hand must be two finite numbers, got [1, None]"),
        ({"pase": "full"}, "did you mean 'pace'?"),
        ([], "a message must be an object, got []"),
    ],
)
def test_the_sentence_names_the_field_the_value_and_the_range(lab: cnnlab.Lab, message: Any, sentence: str) -> None:
    lab.received(message)
    assert sentence in told_by(lab)


@pytest.mark.parametrize("value", NONSENSE, ids=kind_of)
def test_nonsense_about_the_figure_is_told_in_a_sentence_or_passed_over_and_the_loop_goes_on(value: Any) -> None:
    async def watch() -> None:
        lab = cnnlab.Lab("question", **SMALL, autosave=False)
        wrong: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, told: wrong.append(told))
        width, panels = lab.widgets.width, lab.widgets.figure.names
        parts = [{"drawn": value, "seen": True, "page": 1}, {"drawn": 1, "seen": value, "page": 1}]
        parts += [{"drawn": 1, "seen": False, "page": value}]
        for name in lab.widgets.figure.events:
            for told in (value, *(parts if name == "answer" else ())):
                if (name, told) in (("width", 1.5), ("width", 0), ("focus", None)):
                    continue
                lab.problem = ""
                lab.widgets.figure.hear({name: told})
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert lab.problem == "" or is_a_sentence(lab.problem), (name, told, lab.problem)
                assert lab.problem or name == "answer", (name, told)
        assert not wrong
        assert (lab.widgets.width, lab.widgets.figure.names) == (width, panels)
        lab.step(2)
        await soon(lambda: lab.widgets.header.state["step"] == 2)
        lab.close()

    asyncio.run(watch())


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"width": None}, "width must be a number in [0, 100000], got None"),
        ({"width": -1}, "width must lie in [0, 100000], got -1"),
        ({"width": float("nan")}, "width must lie in [0, 100000], got nan"),
        ({"csv": None}, f"panels must be names of {', '.join(list_plots())}, got None"),
    ],
)
def test_a_width_or_a_panel_that_is_none_is_refused_in_a_sentence(told: Any, sentence: str) -> None:
    async def watch() -> None:
        lab = cnnlab.Lab("question", **SMALL, autosave=False)
        lab.widgets.figure.hear(told)
        await soon(lambda: lab.problem == sentence)
        lab.close()

    asyncio.run(watch())


def test_the_hand_is_heard_though_what_it_asked_was_refused(lab: cnnlab.Lab) -> None:
    lab.received({"set": {"clip": 3}, "hand": [0.5, 4]})
    lab.wait(10)
    assert lab.widgets.controls.state["heard"] == [0.5, 4]
    lab.received({"set": {"clip": "norm"}, "hand": "mine"})
    lab.wait(10)
    assert lab.settings.clip == "off"
    assert lab.widgets.controls.state["heard"] == [0.5, 4]


@kinds
def test_what_a_message_leads_to_may_raise_anything(
    lab: cnnlab.Lab, monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    def cannot() -> None:
        raise kind

    monkeypatch.setattr(lab, "pause", cannot)
    lab.received({"do": "pause"})
    assert lab.widgets.controls.state["problem"] == errors.describe_problem(kind)


# What a cell calls.


CALLS: dict[str, Callable[[cnnlab.Lab, Any], object]] = {
    "branch": lambda lab, value: lab.choose_branch(value),
    "branch ": lambda lab, value: lab.delete_branch(value),
    "remedy": lambda lab, value: lab.apply(value),
    "step": lambda lab, value: lab.look_at(value),
    "step ": lambda lab, value: lab.rewind(value),
    "step  ": lambda lab, value: lab.fork(value),
    "updates": lambda lab, value: lab.step(value),
    "updates ": lambda lab, value: lab.play(value),
    "timeout": lambda lab, value: lab.wait(value),
    "pace": lambda lab, value: lab.choose_pace(value),
    "preset": lambda lab, value: lab.choose(value),
    "schedule": lambda lab, value: lab.schedule(value),
    "share": lambda lab, value: lab.schedule("cosine", share=value),
    "scale": lambda lab, value: cnnlab.Lab("question", scale=value),
    "watch": lambda lab, value: cnnlab.Lab("question", watch=value),
    "cost": lambda lab, value: cnnlab.Lab("question", cost=value),
    "history_bytes": lambda lab, value: cnnlab.Run("question", history_bytes=value, **SMALL),
    "plan": lambda lab, value: cnnlab.Run("question", plan=value, **SMALL),
    "updates  ": lambda lab, value: lab.worker.run.advance(value),
    "step   ": lambda lab, value: lab.worker.run.rewind(value),
    "step    ": lambda lab, value: lab.worker.run.fork(value),
    "until": lambda lab, value: lab.worker.run.advance(1, until=value),
}
FITS: dict[str, tuple[Any, ...]] = {
    "step": (None,), "step ": (None,), "step  ": (None,), "step    ": (None,), "updates ": (None,),
    "timeout": (None, 1.5, float("inf"), 10**5000), "share": (1.5,), "scale": (None, 1.5), "watch": (None, []),
    "cost": (None,), "history_bytes": (1.5, float("inf"), 10**5000), "plan": ([],), "updates  ": (10**5000,),
    "until": (None,),
}  # fmt: skip
"""Call -> what of the odd values it takes."""


@odd
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.replace(" ", "'"))
def test_a_bad_argument_is_refused_in_one_sentence_and_the_run_stays(lab: cnnlab.Lab, call: str, value: Any) -> None:
    if any(
        type(value) is type(each) and (value is each or value == each or value != value) for each in FITS.get(call, ())
    ):
        return
    before = state_of(lab)
    with pytest.raises((TypeError, ValueError)) as refused:
        CALLS[call](lab, value)
    said = str(refused.value)
    assert call.strip() in said
    assert is_a_sentence(said)
    assert state_of(lab) == before
    assert lab.wait(10)


@pytest.mark.parametrize("call", ["choose_branch", "delete_branch", "rewind", "fork", "apply", "set"])
def test_a_refusal_does_not_pause_a_run_that_trains(lab: cnnlab.Lab, call: str) -> None:
    lab.choose_pace("20")
    lab.play(10_000)
    bad: dict[str, Any] = {"image": "own_0123456789abcdef"} if call == "set" else {}
    with pytest.raises((TypeError, ValueError)):
        getattr(lab, call)(**bad) if bad else getattr(lab, call)(99)
    assert lab.worker.training
    assert lab.worker.goal == 10_003
    assert lab.settings.image == "mosaic"


def test_playing_on_from_the_past_with_a_bad_number_makes_no_branch(lab: cnnlab.Lab) -> None:
    lab.look_at(1)
    with pytest.raises(ValueError, match="updates must be a whole number"):
        lab.play("x")
    assert lab.look == 1
    assert lab.record.branch.number == 1


def test_numbers_of_numpy_are_numbers_everywhere(lab: cnnlab.Lab) -> None:
    lab.step(np.int64(2))
    lab.fork(np.int16(3))
    lab.choose_branch(np.uint8(1))
    lab.delete_branch(np.int64(2))
    lab.schedule("cosine", share=np.float32(0.5))
    assert lab.wait(np.float64(10))
    assert cnnlab.advance_safely(lab.worker.run.fork(), np.int64(1))
    assert cnnlab.rate_plan("cosine", lab.settings, np.int64(4))
    assert cnnlab.Run("question", history_bytes=np.int64(10**6), **SMALL).updates == 0
    assert len(lab.record) == 5
    assert lab.record.others == ()
