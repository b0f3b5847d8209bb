"""The dashboard's figure in place: what it sends of what has changed, and to a page that has missed something."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from handmade import record_of

from cnnlab.dashboards.live_figure import LiveFigure, count_common, pack
from cnnlab.plots.dashboard import draw_dashboard, refresh_dashboard
from cnnlab.plots.recorder import FigureRecorder

SIZES = {"f": 4, "d": 8, "i": 4, "B": 1}
"""What the page calls numbers -> the bytes of one."""
ODD: list[Any] = [None, True, -1, 1e400, math.nan, "x", b"x", [], {}, [[]], {"have": {}}, {"have": math.nan}]


class Page:
    """What a page does with the messages of a figure: it keeps its numbers, and asks when it has missed one."""

    def __init__(self, figure: LiveFigure, monkeypatch: pytest.MonkeyPatch) -> None:
        self.figure, self.sent, self.wholes = figure, [], -1
        self.read_whole()
        monkeypatch.setattr(figure.state, "send", self.take)
        monkeypatch.setattr(figure.state, "send_state", lambda _name: self.read_whole())

    def read_whole(self) -> None:
        """Take over all there is."""
        self.wholes += 1
        self.spec = unpack(json.loads(json.dumps(pack(self.figure.spec), default=list, allow_nan=False)))

    def take(self, message: dict[str, Any], buffers: list[bytes]) -> None:
        """Take over what is new; as the page does, messages that have come already are passed over."""
        json.dumps(message, allow_nan=False)
        self.sent.append((message, buffers[0]))
        assert message["message"] == self.spec["message"] + 1
        left = buffers[0]
        for *place, kind, kept, added in message["arrays"]:
            holder = self.find(place)
            more = np.frombuffer(left[: added * SIZES[kind]], kind)
            left = left[added * SIZES[kind] :]
            old = holder.get(place[-1], more[:0])
            holder[place[-1]] = np.concatenate([old[:kept], more]) if kept else more
        assert not left
        for place, value in message["plain"]:
            self.find(place)[place[-1]] = value
        self.spec["message"] = message["message"]

    def find(self, place: list[Any]) -> Any:
        """The dictionary that holds a place."""
        holder = self.spec
        for name in place[:-1]:
            holder = holder[name] if isinstance(holder, list) else holder.setdefault(name, {})
        return holder

    @property
    def bytes(self) -> int:
        """Bytes of the last message, as JSON and numbers."""
        message, numbers = self.sent[-1]
        return len(json.dumps(message)) + len(numbers)


def unpack(value: Any) -> Any:
    """What the page makes of what was packed."""
    if isinstance(value, dict) and value.keys() == {"type", "bytes"}:
        return np.frombuffer(bytes(value["bytes"]), value["type"])
    if isinstance(value, dict):
        return {name: unpack(part) for name, part in value.items()}
    return [unpack(part) for part in value] if isinstance(value, list) else value


def make_figure(**more: Any) -> LiveFigure:
    """A figure of a curve and marks without points."""
    traces = [go.Scatter(name="curve"), go.Scatter(name="marks")]
    return LiveFigure(go.Figure(traces, {"xaxis": {"range": [0, 1]}}), {}, more, moves=True)


@pytest.fixture
def figure() -> Iterator[LiveFigure]:
    figure = make_figure()
    yield figure
    figure.close()


@pytest.fixture
def page(figure: LiveFigure, monkeypatch: pytest.MonkeyPatch) -> Page:
    return Page(figure, monkeypatch)


def draw(*values: float, kind: Any = np.float64, colour: str = "red", most: float = 1.0) -> FigureRecorder:
    """A drawn curve, and what goes with it."""
    drawn = FigureRecorder(("curve", "marks"))
    drawn.data[0].update(x=np.arange(len(values), dtype=np.float32), y=np.array(values, dtype=kind))
    drawn.data[1].update(marker={"color": colour})
    drawn.layout["xaxis"].update(range=[0, most])
    return drawn


@pytest.mark.parametrize(
    ("old", "new", "common"),
    [
        ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 2], 2), ([1, 2], [1, 3], 1), ([], [1], 0), ([1], [], 0),
        ([1, math.nan], [1, math.nan, 2], 2), ([0.0, 1], [-0.0, 1], 0), ([math.inf], [-math.inf], 0),
    ],
)  # fmt: skip
def test_numbers_are_common_from_the_beginning_while_they_are_the_same_to_the_bit(
    old: list[float], new: list[float], common: int
) -> None:
    assert count_common(np.array(old, dtype=float), np.array(new, dtype=float)) == common


def test_a_nan_of_other_bits_is_another_number() -> None:
    other = np.array([0x7FF8000000000001], dtype=np.uint64).view(np.float64)
    assert count_common(np.array([np.nan]), other) == 0
    assert count_common(other, other.copy()) == 1


def test_numbers_of_another_type_have_nothing_in_common() -> None:
    assert count_common(np.zeros(3, np.float32), np.zeros(3)) == 0
    assert count_common([0.0], np.zeros(1)) == 0
    assert count_common(None, np.zeros(1)) == 0


def test_only_the_numbers_that_are_new_are_sent(figure: LiveFigure, page: Page) -> None:
    figure.take(draw(1, np.nan))
    figure.take(draw(1, np.nan, np.inf))
    message, numbers = page.sent[-1]
    assert message["arrays"] == [["data", 0, "x", "f", 2, 1], ["data", 0, "y", "d", 2, 1]]
    assert message["plain"] == []
    assert numbers == np.float32(2).tobytes() + np.float64(np.inf).tobytes()
    np.testing.assert_array_equal(page.spec["data"][0]["y"], [1, np.nan, np.inf])


def test_numbers_that_end_earlier_are_cut_off_and_others_in_the_middle_come_with_all_after_them(
    figure: LiveFigure, page: Page
) -> None:
    figure.take(draw(1, 2, 3, 4))
    figure.take(draw(1, 2))
    assert page.sent[-1][0]["arrays"][-1][-2:] == [2, 0]
    assert page.spec["data"][0]["y"].tolist() == [1, 2]
    figure.take(draw(1, 5, 6))
    assert page.sent[-1][0]["arrays"][-1][-2:] == [1, 2]
    assert page.spec["data"][0]["y"].tolist() == [1, 5, 6]
    figure.take(draw())
    assert page.spec["data"][0]["y"].tolist() == []


def test_nothing_is_sent_of_what_is_shown_already_unless_an_answer_is_asked_for(figure: LiveFigure, page: Page) -> None:
    figure.take(draw(1, np.nan))
    figure.take(draw(1, np.nan))
    assert len(page.sent) == 1
    figure.take(draw(1, np.nan), ask=7)
    message, numbers = page.sent[1]
    assert (message["ask"], message["arrays"], message["plain"], numbers) == (7, [], [], b"")
    figure.take(draw(1, np.nan), moving=True)
    assert page.sent[2][0]["moving"] is True


def test_colours_and_ranges_are_sent_when_they_change_and_none_takes_them_away(figure: LiveFigure, page: Page) -> None:
    figure.take(draw(1))
    figure.take(draw(1, colour="blue", most=2))
    assert page.sent[-1][0]["plain"] == [
        [["data", 1, "marker", "color"], "blue"],
        [["layout", "xaxis", "range"], [0, 2]],
    ]
    figure.take(draw(1, colour=None, most=2))
    assert page.sent[-1][0]["plain"] == [[["data", 1, "marker", "color"], None]]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("f4", "f"),
        ("f8", "d"),
        ("i4", "i"),
        ("u1", "B"),
        ("i8", "d"),
        ("f2", "d"),
        ("?", "d"),
        (">f4", "d"),
        (">i4", "d"),
    ],
)
def test_numbers_of_every_type_arrive_as_they_are(figure: LiveFigure, page: Page, kind: str, name: str) -> None:
    figure.take(draw(1, 0, kind=kind))
    figure.take(draw(1, 0, 1, kind=kind))
    assert page.sent[-1][0]["arrays"][-1] == ["data", 0, "y", name, 2, 1]
    assert page.spec["data"][0]["y"].tolist() == [1, 0, 1]
    figure.send_whole()
    assert page.spec["data"][0]["y"].tolist() == [1, 0, 1]


def test_after_numbers_of_another_type_all_are_sent(figure: LiveFigure, page: Page) -> None:
    figure.take(draw(1, 2, kind=np.float32))
    figure.take(draw(1, 2, 3, kind=np.float64))
    assert page.sent[-1][0]["arrays"][-1][-2:] == [0, 3]
    assert page.spec["data"][0]["y"].tolist() == [1, 2, 3]


def test_what_is_no_row_of_numbers_is_told_without_nan_which_json_has_not() -> None:
    told = {
        "z": np.array([[1, np.nan], [np.inf, 2]]), "text": np.array(["a", "b"]),
        "odd": np.array([1, "a", None], object),
        "x": [0, np.nan, np.float32(0.5), np.int64(3), np.bool_(True)], "one": -math.inf, "tuple": (1, "nan"),
    }  # fmt: skip
    packed = pack(told)
    assert json.loads(json.dumps(packed, allow_nan=False)) == {
        "z": [[1, None], [None, 2]], "text": ["a", "b"], "odd": [1, "a", None],
        "x": [0, None, 0.5, 3, True], "one": None, "tuple": [1, "nan"],
    }  # fmt: skip


def test_a_page_that_has_missed_a_message_is_sent_all_there_is_and_one_that_has_not_nothing(
    figure: LiveFigure, page: Page
) -> None:
    figure.take(draw(1))
    figure.hear({"have": figure.spec["message"]})
    assert page.wholes == 0
    page.spec = {}
    figure.hear({"have": figure.spec["message"] - 1})
    assert page.wholes == 1
    assert page.spec["data"][0]["y"].tolist() == [1]
    figure.take(draw(1, 2))  # which the page takes in: the numbers go on after those of all there is
    assert page.spec["data"][0]["y"].tolist() == [1, 2]


def test_a_message_that_cannot_be_sent_is_made_good_by_the_next_one(
    figure: LiveFigure, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure.take(draw(1))
    with monkeypatch.context() as patch:
        patch.setattr(figure.state, "send", lambda *_told: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            figure.take(draw(1, 2))
    figure.take(draw(1, 2))
    assert page.wholes == 1
    assert page.spec["data"][0]["y"].tolist() == [1, 2]
    figure.take(draw(1, 2, 3))
    assert page.wholes == 1


def test_a_whole_frame_holds_what_was_drawn_and_is_taken_by_a_page_that_has_seen_none_before(
    figure: LiveFigure, page: Page
) -> None:
    page.spec = {}
    figure.take_whole(draw(1, 2), moving=True)
    assert page.spec["data"][0]["y"].tolist() == [1, 2]
    assert page.spec["moving"] is True
    assert page.sent == []


def test_another_figure_with_the_same_traces_is_told_by_what_differs_and_one_with_others_as_a_whole(
    figure: LiveFigure, page: Page
) -> None:
    figure.take(draw(1, 2), moving=True)
    wide = go.Figure([go.Scatter(name="curve"), go.Scatter(name="marks")], {"width": 900, "xaxis": {"range": [0, 1]}})
    figure.show(wide, draw(1, 2))
    assert page.sent[-1][0]["arrays"] == []
    assert page.sent[-1][0]["plain"] == [[["layout", "width"], 900]]
    assert page.sent[-1][0]["moving"] is True
    figure.show(go.Figure([go.Scatter(name="other", y=np.array([3.0]))]))
    assert page.wholes == 1
    assert page.spec["data"][0]["y"].tolist() == [3]
    assert figure.names == ["other"]


def test_traces_without_names_are_no_reason_to_send_all(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = LiveFigure(go.Figure([go.Bar(y=[1, 2])]), {}, {})
    page = Page(figure, monkeypatch)
    figure.show(go.Figure([go.Bar(y=[1, 3])]))
    assert page.wholes == 0
    assert len(page.sent) == 1
    figure.close()


@pytest.mark.parametrize("nonsense", ODD, ids=repr)
def test_nonsense_from_a_page_is_passed_over(page: Page, nonsense: Any) -> None:
    before = page.figure.spec["message"]
    page.figure.hear(nonsense)
    assert page.figure.spec["message"] - before == (isinstance(nonsense, dict) and "have" in nonsense)
    assert page.sent == []


def test_what_a_page_tells_goes_to_who_hears_it_and_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    figure = make_figure(click=heard.append)
    figure.hear({"click": 3, "zoom": 4})
    assert heard == [3]
    assert figure.events == ["click"]
    figure.close()


def test_two_threads_that_send_at_once_number_their_messages_in_the_order_in_which_they_go(
    figure: LiveFigure, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    monkeypatch.setattr(figure.state, "send", lambda message, _buffers: numbers.append(message["message"]))
    monkeypatch.setattr(figure.state, "send_state", lambda _name: numbers.append(figure.spec["message"]))
    asking = threading.Thread(target=lambda: [figure.hear({"have": -1}) for _ in range(200)])
    asking.start()
    for number in range(200):
        figure.take(draw(*range(number % 7)), ask=number + 1)
    asking.join()
    assert numbers == list(range(1, 401))


def spiky(count: int) -> list[float]:
    """A cost that goes down with spikes, and is sometimes NaN or infinite."""
    cost = 5 * np.exp(-np.arange(count) / 900) + np.abs(np.sin(np.arange(count) * 12.9898))
    cost[::97] *= 30
    cost[333::1000], cost[777::1000] = np.nan, np.inf
    return cost.tolist()


def test_the_bytes_of_a_frame_do_not_grow_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    cost, sizes = spiky(5000), {}
    figure = LiveFigure(draw_dashboard(record_of(cost[:1]), 5000), {}, {}, moves=True)
    page = Page(figure, monkeypatch)
    for middle in (50, 500, 5000 - 20):
        for updates in range(middle, middle + 20):
            drawn = FigureRecorder(figure.names)
            refresh_dashboard(drawn, record_of(cost[:updates]), (), 5000)
            figure.take(drawn, moving=True)
            sizes.setdefault(middle, []).append(page.bytes)
    early, *later = (sorted(counts[1:])[len(counts) // 2] for counts in sizes.values())
    assert max(later) < 1.5 * early
    assert max(counts[10] for counts in sizes.values()) < 8000
    np.testing.assert_array_equal(page.spec["data"][7]["y"], figure.spec["data"][7]["y"])
    figure.close()
