"""The lab without a browser: every control is a call, nothing trains until asked, nothing is left over."""

import gc
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from ipywidgets.widgets.widget import _instances as open_widgets

import cnnlab
from cnnlab.config.settings import LIMITS, Number
from cnnlab.dashboards import controls
from cnnlab.dashboards.live_figure import FigureState, pack
from cnnlab.dashboards.plotly_script import share_plotly

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8}


@pytest.fixture
def lab() -> Iterator[cnnlab.Lab]:
    made = cnnlab.Lab("question", **SMALL)
    yield made
    made.close()


def trace(lab: cnnlab.Lab, name: str):
    """A trace of the lab's figure."""
    return next(trace for trace in lab.figure.data if trace.name == name)


def test_nothing_trains_until_asked(lab: cnnlab.Lab) -> None:
    assert len(lab.record) == 0
    assert not lab.worker.thread.alive
    assert "nothing is trained yet" in lab.widgets.header.state["line"]


def test_a_page_is_told_of_the_weights_at_the_start_when_the_lab_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    good = FigureState.open
    monkeypatch.setattr(FigureState, "open", lambda state: (told.append(pack(state.spec)), good(state))[1])
    lab = cnnlab.Lab("question", **SMALL)
    held = lab.widgets.figure.spec
    assert held["message"] == 0
    assert told[0] == pack(held)
    assert len(trace(lab, "magnitudes 0").x) > 20
    lab.close()


def test_steps_are_done_and_drawn_when_the_call_returns(lab: cnnlab.Lab) -> None:
    lab.step(5)
    assert lab.record.steps.tolist() == [1, 2, 3, 4, 5]
    assert trace(lab, "cost").x.tolist() == [1, 2, 3, 4, 5]
    assert lab.widgets.header.state["step"] == 5
    assert lab.widgets.header.state["progress"] == 5 / 20


def test_the_lab_trains_exactly_as_a_run_does(lab: cnnlab.Lab) -> None:
    lab.step(6)
    run = cnnlab.Run("question", **SMALL)
    run.advance(6)
    assert lab.record.cost.tobytes() == run.record.cost.tobytes()


def test_play_trains_to_the_end_and_pauses(lab: cnnlab.Lab) -> None:
    lab.choose_pace("full")
    lab.play()
    assert lab.wait(20)
    assert len(lab.record) == 20
    assert not lab.widgets.header.state["training"]


def test_a_knob_is_in_force_at_the_next_update_and_shown_by_the_controls(lab: cnnlab.Lab) -> None:
    lab.step(2)
    lab.set(learning_rate=0.5, clip="norm")
    lab.step(1)
    assert lab.record.frames[2].knobs.learning_rate == 0.5
    assert lab.record.frames[1].knobs.learning_rate == 0.01
    assert lab.widgets.controls.state["values"]["learning_rate"] == 0.5
    assert lab.widgets.controls.state["values"]["clip"] == "norm"


def test_a_start_setting_starts_again_and_leaves_a_ghost(lab: cnnlab.Lab) -> None:
    lab.step(3)
    lab.set(init_scale=2.0)
    lab.wait(10)
    assert len(lab.record) == 0
    assert len(trace(lab, "ghosts").x) == 4
    assert lab.settings.init_scale == 2.0


def test_a_reset_repeats_the_run_to_the_bit(lab: cnnlab.Lab) -> None:
    lab.step(4)
    before = lab.record.cost
    lab.reset()
    lab.step(4)
    assert lab.record.cost.tobytes() == before.tobytes()


def test_a_knob_set_before_a_reset_is_in_force_from_update_one(lab: cnnlab.Lab) -> None:
    lab.step(2)
    lab.set(learning_rate=1e-3)
    lab.reset()
    lab.step(1)
    assert lab.record.frames[0].knobs.learning_rate == 1e-3


def test_a_cost_named_at_the_start_is_a_setting_that_can_be_changed() -> None:
    lab = cnnlab.Lab("question", cost="softmax_log", **SMALL)
    assert lab.widgets.controls.state["values"]["cost"] == "softmax_log"
    lab.set(cost="log_softmax")
    lab.step(1)
    assert lab.record.settings.cost == "log_softmax"
    lab.close()


def test_the_record_is_the_new_one_as_soon_as_a_reset_returns(lab: cnnlab.Lab) -> None:
    lab.step(3)
    lab.reset()
    assert len(lab.record) == 0
    lab.choose("vanishing")
    assert lab.record.settings.preset == "vanishing"


def test_the_record_tells_of_knobs_that_were_changed_on_the_way(lab: cnnlab.Lab) -> None:
    lab.set(learning_rate=1e-3)
    lab.step(2)
    assert "learning_rate=0.001" in repr(lab.record)
    assert "from update" not in repr(lab.record)
    lab.set(clip="norm", momentum=0.9)
    lab.step(1)
    assert "momentum=0.9, clip='norm' from update 3" in repr(lab.record)


def test_a_new_seed_is_another_start(lab: cnnlab.Lab) -> None:
    lab.step(1)
    first = lab.record.cost[0]
    lab.new_seed()
    lab.step(1)
    assert lab.settings.seed == 1
    assert lab.record.cost[0] != first


def test_bad_values_raise_in_a_call_and_change_nothing(lab: cnnlab.Lab) -> None:
    lab.step(2)
    with pytest.raises(ValueError, match=r"learning_rate must lie in \(0, 1e6\], got -0.1"):
        lab.set(learning_rate=-0.1)
    with pytest.raises(TypeError, match="did you mean 'learning_rate'"):
        lab.set(learning_rat=1)
    with pytest.raises(ValueError, match="updates must be a whole number"):
        lab.step(0)
    with pytest.raises(ValueError, match="scale must be a number in"):
        cnnlab.Lab("question", scale=100)
    assert len(lab.record) == 2
    assert lab.settings.learning_rate == 0.01


@pytest.mark.parametrize("text", ["-1", "nonsense", "", "nan", "inf", "1e99"])
def test_bad_text_from_a_box_is_answered_in_a_sentence_and_loses_nothing(lab: cnnlab.Lab, text: str) -> None:
    lab.step(2)
    lab.received({"set": {"learning_rate": text}})
    lab.wait(10)
    assert lab.widgets.controls.state["problem"].startswith("learning_rate must")
    assert "(0, 1e6]" in lab.widgets.controls.state["problem"]
    assert lab.widgets.controls.state["values"]["learning_rate"] == 0.01
    assert len(lab.record) == 2
    lab.received({"set": {"learning_rate": "1e-3"}})
    lab.wait(10)
    assert lab.widgets.controls.state["problem"] == ""
    assert lab.settings.learning_rate == 1e-3


@pytest.mark.parametrize("text", ["1e-3", "0.01", "-1"])
def test_a_page_is_told_which_of_its_settings_was_heard_last_taken_unchanged_or_refused(
    lab: cnnlab.Lab, text: str
) -> None:
    lab.received({"set": {"learning_rate": text}, "hand": [0.25, 7]})
    lab.wait(10)
    assert lab.widgets.controls.state["heard"] == [0.25, 7]
    assert lab.widgets.controls.state["values"]["learning_rate"] == (0.001 if text == "1e-3" else 0.01)
    assert bool(lab.widgets.controls.state["problem"]) == (text == "-1")


@pytest.mark.parametrize("message", [{"do": "step", "updates": 0}, {"do": "step", "updates": None}, {"preset": "none"},
                                     {"pace": "warp"}, {"set": {"nothing": 1}}, {"set": {"clip": "hard"}}])  # fmt: skip
def test_a_message_that_asks_for_nonsense_is_answered_and_loses_nothing(lab: cnnlab.Lab, message: dict) -> None:
    lab.step(1)
    lab.received(message)
    lab.wait(10)
    assert lab.widgets.controls.state["problem"]
    assert len(lab.record) == 1


def test_messages_of_the_browser_do_what_their_buttons_say(lab: cnnlab.Lab) -> None:
    lab.received({"pace": "full"})
    lab.received({"do": "step", "updates": 3})
    lab.wait(10)
    assert len(lab.record) == 3
    lab.received({"do": "play"})
    lab.wait(10)
    assert len(lab.record) == 20
    lab.received({"do": "reset"})
    lab.wait(10)
    assert len(lab.record) == 0
    lab.received({"do": "new_seed"})
    lab.wait(10)
    assert lab.settings.seed == 1
    lab.received({"preset": "sudden_nan"})
    lab.wait(10)
    assert lab.settings.preset == "sudden_nan"


def test_every_end_of_every_slider_is_a_legal_setting() -> None:
    for name in (*controls.LIVE, *controls.RESTART, *controls.NETWORK):
        limit = LIMITS[name]
        if isinstance(limit, Number):
            for end in limit.slider:
                assert cnnlab.settings("question", **{name: end if not limit.whole else int(end)})


def test_nan_everywhere_is_drawn_and_training_goes_on(lab: cnnlab.Lab) -> None:
    lab.set(learning_rate=1e6, precision="float16")
    lab.step(20)
    assert np.isnan(lab.record.cost[-1])
    assert lab.widgets.header.state["tone"] == "broken"
    assert len(trace(lab, "cost marks").x) > 0
    lab.step(5)
    assert len(lab.record) == 25


def test_an_error_of_a_network_is_shown_and_the_record_stays() -> None:
    class Fails(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls > 3:
                raise RuntimeError("no more")
            return super().forward(x)

    data = (torch.randn(6, 3), torch.randint(2, (6,)))
    lab = cnnlab.Lab(network=Fails(3, 2), data=data, cost=torch.nn.functional.cross_entropy)
    with pytest.raises(RuntimeError, match="no more"):
        lab.step(9)
    assert lab.widgets.header.state["problem"] == "RuntimeError: no more"
    assert len(lab.record) == 3
    assert lab.wait(10)  # what has been told is not told again
    lab.received({"do": "play"})
    with pytest.raises(RuntimeError, match="no more"):
        lab.wait(10)
    assert len(lab.record) == 3
    lab.close()


def test_a_start_that_cannot_be_made_raises_and_the_run_stays(lab: cnnlab.Lab) -> None:
    lab.step(2)
    for change, sentence in (({"device": "mps"}, "device must be one"), ({"image": "own_0123456789abcdef"}, "image")):
        with pytest.raises(ValueError, match=sentence):
            lab.set(**change)
        assert len(lab.record) == 2
        assert lab.settings.device == "auto"
        assert lab.settings.image == "mosaic"


def test_a_closed_lab_says_so_and_does_nothing() -> None:
    lab = cnnlab.Lab("question", **SMALL)
    lab.step(2)
    lab.close()
    calls = (lab.step, lab.play, lab.reset, lab.new_seed, lab.rewind, lab.fork, lambda: lab.set(learning_rate=0.1),
             lambda: lab.set(seed=3), lambda: lab.choose("dead"), lambda: lab.schedule("cosine"))  # fmt: skip
    for call in calls:
        with pytest.raises(RuntimeError, match="this lab is closed: make a new one"):
            call()
    lab.pause()
    assert lab.wait(1)
    assert len(lab.record) == 2
    lab.received({"do": "play"})
    assert len(lab.record) == 2


def test_a_preset_can_be_set_with_other_fields_and_chosen_again(lab: cnnlab.Lab) -> None:
    assert lab.widgets.header.state["changed"]
    lab.set(preset="dead", **SMALL, seed=5)
    assert (lab.settings.preset, lab.settings.clip, lab.settings.seed) == ("dead", "value", 5)
    assert len(lab.record) == 0
    lab.received({"preset": "dead"})
    lab.wait(10)
    assert lab.settings == cnnlab.settings("dead")
    assert not lab.widgets.header.state["changed"]


def test_a_preset_for_a_network_of_ones_own_keeps_what_follows_from_network_and_data() -> None:
    data = (torch.randn(8, 3, dtype=torch.float64), torch.arange(8) % 2)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=4)
    own = torch.nn.Linear(3, 2, dtype=torch.float64)
    lab = cnnlab.Lab(network=own, data=loader, cost=torch.nn.functional.cross_entropy)
    assert not lab.widgets.header.state["changed"]
    lab.choose("converges")
    kept = (lab.settings.precision, lab.settings.batch_size, lab.settings.patches)
    assert kept == ("float64", 4, 8)
    assert lab.settings.learning_rate == 2e-3
    lab.set(learning_rate=1.0)
    lab.wait(10)
    assert lab.widgets.header.state["changed"]
    lab.close()


@pytest.mark.parametrize(("scale", "width"), [(4, 320), (1.5, 684), (np.float32(0.5), 948)])
def test_every_scale_leaves_room_for_the_plots(scale: float, width: int) -> None:
    lab = cnnlab.Lab("question", scale=scale, **SMALL)
    assert lab.figure.layout.width == width
    lab.close()


@pytest.mark.parametrize("watch", ["cv0.weight[0]", [3], 3, {}, [None]])
def test_what_is_no_list_of_weights_is_refused_in_a_sentence(watch: object) -> None:
    with pytest.raises(TypeError, match=r"^watch must be a list of weights such as"):
        cnnlab.Lab("question", watch=watch, **SMALL)


def test_numbers_of_numpy_count_as_numbers(lab: cnnlab.Lab) -> None:
    lab.step(np.int64(3))
    lab.look_at(np.int64(1))
    lab.rewind(np.int32(2))
    assert len(lab.record) == 2
    with pytest.raises(TypeError, match="autosave must be True, False or the name of a file, got 3"):
        cnnlab.Lab("question", autosave=3)


def test_words_for_the_whole_batch_are_taken_and_what_was_refused_is_read_before_a_click_clears_it(
    lab: cnnlab.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.received({"set": {"batch_size": "4"}})
    assert lab.settings.batch_size == 4
    lab.received({"set": {"batch_size": "None"}})
    assert lab.settings.batch_size is None
    lab.received({"set": {"learning_rate": "1e100"}})
    lab.received({"do": "step", "updates": 1})
    lab.wait(10)
    assert lab.widgets.controls.state["problem"] == "learning_rate must lie in (0, 1e6], got a number of 101 digits"
    monkeypatch.setattr("cnnlab.dashboards.lab.READING", 0.0)
    lab.received({"do": "step", "updates": 1})
    lab.wait(10)
    assert lab.widgets.controls.state["problem"] == ""


def test_own_networks_have_only_the_controls_that_mean_something_for_them() -> None:
    data = (np.random.default_rng(0).normal(size=(6, 3)), np.arange(6) % 2)
    own = torch.nn.Linear(3, 2, dtype=torch.float64)
    lab = cnnlab.Lab(network=own, data=data, cost=torch.nn.functional.cross_entropy)
    lab.step(3)
    titles, fields = zip(*lab.widgets.controls.groups, strict=True)
    assert titles[1:] == ("Optimiser", controls.START_AGAIN)
    assert fields[2] == list(controls.RESTART_OWN)
    assert lab.widgets.strip.texts.patches == ""
    assert lab.record.layers == ("",)
    lab.close()


def test_a_closed_lab_leaves_no_widget_and_no_thread_and_its_record_can_be_read() -> None:
    before = {*open_widgets, share_plotly().model_id}
    threads = threading.active_count()
    lab = cnnlab.Lab("question", **SMALL)
    lab.step(2)
    assert set(open_widgets) - before
    lab.close()
    lab.close()
    assert not set(open_widgets) - before
    assert threading.active_count() == threads
    assert len(lab.record) == 2


def test_the_figure_is_one_of_its_own_and_may_be_saved_and_changed() -> None:
    lab = cnnlab.Lab("question", **SMALL)
    lab.step(3)
    shown = lab.figure
    assert type(shown) is go.Figure
    cost = next(trace for trace in shown.data if trace.name == "cost")
    assert cost.x.tolist() == [1, 2, 3]
    assert "over time" in shown.to_json()
    cost.update(x=[5], line={"color": "blue"})
    shown.update_layout(width=300)
    assert lab.figure is not shown
    assert lab.figure.layout.width != 300
    on_page = next(trace for trace in lab.widgets.figure.spec["data"] if trace["name"] == "cost")
    assert on_page["x"].tolist() == [1, 2, 3]
    lab.close()


def test_a_closed_lab_is_freed() -> None:
    lab = cnnlab.Lab("question", **SMALL)
    lab.step(2)
    lab.close()
    remains = [weakref.ref(lab), weakref.ref(lab.figure), weakref.ref(lab.worker)]
    del lab
    gc.collect()
    assert [reference() for reference in remains] == [None, None, None]


def test_a_watched_weight_is_shown_update_by_update() -> None:
    lab = cnnlab.Lab("question", watch=["cv0.weight[1,0,2,2]", "softmax.bias[1]"], **SMALL)
    lab.step(2)
    assert lab.widgets.strip.state["columns"] == ["start", "1", "2"]
    assert [row[0] for row in lab.widgets.strip.state["rows"]] == ["cv0.weight[1,0,2,2]", "softmax.bias[1]"]
    assert lab.widgets.strip.state["rows"][1][2][0] == "0.00000"
    lab.close()
    with pytest.raises(ValueError, match="watch must name one of"):
        cnnlab.Lab("question", watch=["cv9.weight[0]"], **SMALL)


def test_a_preset_starts_at_a_speed_at_which_it_lasts_ten_seconds() -> None:
    assert controls.choose_starting_pace(20) == "2"
    assert controls.choose_starting_pace(150) == "20"
    assert controls.choose_starting_pace(100_000) == "full"


def test_the_figure_of_a_lab_is_one_of_its_own_and_may_be_saved_and_changed(lab: cnnlab.Lab) -> None:
    lab.step(3)
    shown = lab.figure
    assert type(shown) is go.Figure
    assert "over time" in shown.to_json()
    np.testing.assert_array_equal(trace(lab, "cost").y, lab.record.cost)
    shown.update_layout(width=300)
    shown.update_traces(y=[5], selector={"name": "cost"})
    assert lab.figure.layout.width != 300
    np.testing.assert_array_equal(trace(lab, "cost").y, lab.record.cost)
