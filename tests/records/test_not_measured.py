"""What was not measured is neither NaN nor anything else, wherever a record goes."""

from __future__ import annotations

import base64
import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
from handmade import LAYERS, record_of
from loops import X, Y, ce, mlp

import cnnlab
from cnnlab.cli import tables
from cnnlab.diagnosis import summary as verdict
from cnnlab.diagnosis.detectors import DETECTORS
from cnnlab.diagnosis.early_warning import find_first_warning, find_signs, overflow_clock
from cnnlab.export.html import make_film
from cnnlab.plots.dashboard import draw_dashboard, refresh_dashboard
from cnnlab.plots.layer_groups import group_layers
from cnnlab.records.archive import Stored
from cnnlab.records.frame import GAUGES, LAYER_GAUGES, NOT_MEASURED, is_measured, name_columns
from cnnlab.records.record import Record
from cnnlab.records.storage import convert_to_double
from cnnlab.training.metrics import bring_to_host

HOLES = [4.0, NOT_MEASURED, 2.0, NOT_MEASURED]
LOST = {"weight_nan": np.array([[0, 0, 0]] * 3 + [[0, 5, 0]])}
GAUGE_NAN = {"gradient_nan": np.array([[0, 0, 0]] * 3 + [[0, 5, 0]])}


def unknown(updates: int, **gauges: object) -> Record:
    """A record of which no cost was measured."""
    return record_of([NOT_MEASURED] * updates, **gauges)


def watched(updates: int = 3, factor: float = 1.0, precision: torch.dtype = torch.float32) -> Record:
    """A watched loop whose cost is not seen."""
    model = mlp().to(precision)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer) as watch:
        for _ in range(updates):
            optimizer.zero_grad()
            ce(model(X.to(precision)), Y, reduction="none").backward(torch.full((24,), factor, dtype=precision))
            optimizer.step()
    return watch.record


# -- the value


@pytest.mark.parametrize("way", [
    lambda value: np.float64(np.float32(value)),
    lambda value: np.full(1001, value).astype(np.float32).astype(np.float64)[7],
    lambda value: torch.tensor([value] * 9, dtype=torch.float64).numpy()[3],
    lambda value: torch.tensor([value] * 9).double().tolist()[3],
    lambda value: torch.stack([torch.full((), value)] * 2).double()[1].item(),
    lambda value: bring_to_host([torch.full((1,), value, dtype=torch.float64)])[0][0],
    lambda value: pickle.loads(pickle.dumps(value)),
    copy.deepcopy,
    lambda value: np.array([1.0, value, 2.0])[::-1][1],
])  # fmt: skip
def test_copies_and_single_precision_keep_what_tells_it_from_nan(way):
    assert not is_measured(way(NOT_MEASURED))
    assert math.isnan(way(NOT_MEASURED))
    assert is_measured(way(math.nan))


@pytest.mark.parametrize("made", [
    math.nan, -math.nan, np.nan, math.inf - math.inf, math.inf * 0.0, float("nan"),
    (torch.zeros(1) / 0).double().item(), torch.tensor(-1.0).sqrt().double().item(), 0.0, math.inf, 1.5,
])  # fmt: skip
def test_no_nan_that_an_operation_makes_is_taken_for_it(made):
    assert is_measured(made)


def test_it_is_told_for_each_value_of_an_array_whatever_its_shape():
    values = np.array([[1.0, math.nan, NOT_MEASURED], [NOT_MEASURED, math.inf, 0.0]])
    assert is_measured(values).tolist() == [[True, True, False], [False, True, True]]
    assert is_measured(values.T).tolist() == [[True, False], [True, True], [False, True]]


# -- records


def test_what_is_not_measured_at_the_start_of_a_run_and_by_a_watch():
    run = cnnlab.Run("question", channels=4, hidden=(8, 8), device="cpu")
    frame = run.step()
    start = run.record.start
    measured_at_start = {name for name in GAUGES if is_measured(getattr(start, name))}
    assert measured_at_start == set()
    assert is_measured(start.weight_norm).all()
    assert not is_measured(start.gradient_norm).any()
    assert not is_measured(frame.held_out_accuracy)
    assert not is_measured(frame.sharpness)
    assert is_measured(frame.clipped)
    record = watched()
    assert {name for name in GAUGES if record.is_measured(name).any()} == {
        "accuracy", "logit_gap", "total_gradient_norm"
    }  # fmt: skip
    assert record.is_measured("dead_relu").tolist() == [[True, False]] * 3


def test_an_unknown_gauge_is_refused_with_the_nearest_name():
    with pytest.raises(
        ValueError, match=r"^gauge must be one of cost, .*, got 'accurracy'; did you mean 'accuracy'\?$"
    ):
        record_of([1.0]).is_measured("accurracy")


def test_costs_that_were_not_measured_are_no_costs_of_nan():
    record = record_of(HOLES)
    assert record.first_nonfinite is None
    assert [frame.nonfinite for frame in record.frames] == [False] * 4
    assert record.is_measured("cost").tolist() == [True, False, True, False]
    assert [part.tolist() for part in record.known_costs] == [[1, 3], [4.0, 2.0]]
    assert "last cost not measured" in repr(record)
    assert "cost=not measured" in repr(record.frames[-1])
    assert "nan" not in repr(record)
    assert record_of([*HOLES, math.nan]).first_nonfinite == 5


def test_files_keep_it_and_those_of_version_1_have_nan_where_they_had(tmp_path):
    record = record_of([*HOLES, math.nan])
    record.save(tmp_path / "holes.cnnlab")
    loaded = cnnlab.load(tmp_path / "holes.cnnlab")
    np.testing.assert_array_equal(loaded.table.view(np.int64), record.table.view(np.int64))
    assert loaded.is_measured("cost").tolist() == record.is_measured("cost").tolist()
    watched().save(tmp_path / "watched.cnnlab")
    assert not cnnlab.load(tmp_path / "watched.cnnlab").is_measured("cost").any()


def test_a_gauge_that_an_older_file_lacks_was_not_measured(tmp_path):

    path = tmp_path / "numbers"
    path.write_bytes(np.ones((3, 2)).tobytes())
    with open(path, "rb") as file:
        stored = Stored(file, 0, (3, 2), np.dtype("<f8"))
        table = convert_to_double(stored, ("cost",), ("weight_norm",), ("only",), ()).whole
    there = [name in ("cost", "weight_norm.only") for name in name_columns(GAUGES, LAYER_GAUGES, ("only",), ())]
    assert is_measured(table).tolist() == [there] * 3


def test_a_record_survives_pickling_with_it():
    record = record_of(HOLES)
    assert pickle.loads(pickle.dumps(record)).is_measured("cost").tolist() == [True, False, True, False]


def test_a_data_frame_has_nan_and_the_record_tells_which():
    pytest.importorskip("pandas")
    record = record_of([1.0, math.nan, NOT_MEASURED])
    frame = record.to_dataframe()
    assert frame["cost"].isna().tolist() == [False, True, True]
    assert frame["cost"].isna().tolist() == (np.isnan(record.cost)).tolist()
    assert record.is_measured("cost").tolist() == is_measured(frame["cost"]).tolist() == [True, True, False]


def test_groups_of_layers_keep_it():
    layers = tuple(f"part{place}" for place in range(30))
    missing = np.full((3, 30), NOT_MEASURED)
    missing[2, 3] = 0.5
    record = record_of([1.0, 2.0], layers=layers, dead_relu=missing, activation_nan=missing, gradient_norm=missing)
    small = group_layers(record)
    assert len(small.layers) == 12
    for gauge in ("dead_relu", "activation_nan"):
        assert small.is_measured(gauge).sum() == 1
        assert np.nanmax(small.column(gauge)) == 0.5
    assert not is_measured(small.column("gradient_norm")[0]).any()


# -- in words


def test_a_run_without_a_measured_cost_says_so_and_is_not_called_broken():
    record = unknown(4)
    assert verdict.state_line(record) == (
        "the cost is not measured (give it with watch.step(loss)); held-out accuracy 1.00; first weights reach 1"
    )
    assert verdict.tone(record) == verdict.CALM
    assert "NaN" not in verdict.state_line(record)
    assert verdict.before_explosion(record) == 4


def test_weights_that_hold_nan_are_called_broken_whether_or_not_a_cost_was_measured():
    for costs in ([NOT_MEASURED] * 3, [3.0, 2.0, 1.0]):
        record = record_of(costs, **LOST)
        assert verdict.tone(record) == verdict.BROKEN
        assert verdict.state_line(record).startswith("weights of second hold NaN; ")
    assert "the cost is not measured" in verdict.state_line(unknown(3, **LOST))


def test_where_only_some_costs_were_measured_the_words_are_about_those():
    assert verdict.state_line(record_of(HOLES)).startswith(
        "cost fell from 4 to 2 in 2 updates, not measured since update 3; "
    )
    rising = record_of([NOT_MEASURED, 2.0, NOT_MEASURED, 1.0, NOT_MEASURED, 5e4])
    assert "cost rose 5e4-fold in 2 updates; " in verdict.state_line(rising)
    assert verdict.tone(rising) == verdict.RISING
    single = record_of([NOT_MEASURED, 2.0])
    assert verdict.state_line(single).startswith("cost is 2 at update 2; ")
    broken = record_of([NOT_MEASURED, 1.0, 9.0, NOT_MEASURED, math.inf, NOT_MEASURED])
    assert verdict.state_line(broken).startswith("cost is inf since update 5, after it rose 9-fold in 1 update; ")
    first = record_of([NOT_MEASURED, math.nan])
    assert verdict.state_line(first).startswith("cost is NaN since update 2, with no finite cost before; ")


def test_what_was_not_measured_is_no_sign_of_trouble():
    record = unknown(4)
    assert not find_signs(record).any()
    assert find_first_warning(record) is None
    assert set(overflow_clock(record).values()) == {None}
    climbing = record_of([NOT_MEASURED, 1.0, NOT_MEASURED, 2e4])
    assert find_first_warning(climbing).words == "the cost rose from 1 to 2e4"


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_no_detector_takes_it_for_a_broken_cost(detector):
    quiet = {"update_ratio": 1e-3, "largest_weight": 0.1}
    known, not_known = record_of([1.0] * 6, **quiet), unknown(6, **quiet)
    assert detector.detect(not_known).tolist() == detector.detect(known).tolist()
    holes = record_of([2.0, NOT_MEASURED, 1.9, NOT_MEASURED, 1.8, NOT_MEASURED], **quiet)
    assert (detector.detect(holes) <= detector.detect(known)).all()


def test_the_autopsy_says_that_the_cost_was_not_measured_and_invents_no_cause():
    for record in (unknown(6, dead_relu=0), watched(6)):
        found = cnnlab.autopsy(record)
        assert found.cause == "undecided"
        assert found.step is None
        assert "the cost is not measured (give it with watch.step(loss))" in found.evidence
        assert "healthy" not in str(found)
        assert "NaN" not in str(found)


def test_the_autopsy_of_a_run_that_broke_unseen_finds_the_place_by_the_weights():
    found = cnnlab.autopsy(watched(3, factor=math.nan))
    assert (found.step, found.phase) == (1, "gradient")
    assert "the cost is not measured (give it with watch.step(loss))" in found.evidence
    assert "healthy" not in str(found)
    found = cnnlab.autopsy(unknown(3, **LOST))
    assert (found.step, found.phase, found.layer) == (3, "weight", "second")
    found = cnnlab.autopsy(unknown(3, **GAUGE_NAN))
    assert (found.step, found.phase, found.layer) == (3, "gradient", "second")


def test_the_autopsy_of_some_measured_costs_is_about_those():
    found = cnnlab.autopsy(record_of(HOLES, dead_relu=0))
    assert found.cause == "healthy"
    assert found.evidence == (
        "the cost went from 4 to 2 in 4 updates, 2 of them with a cost that was measured; all numbers are finite",
    )


def test_taking_turns_is_no_vanishing_gradient():
    turns = np.ones((9, 3))
    turns[1::2, 0] = turns[::2, 1:] = 0
    record = record_of([1.0] * 8, gradient_norm=turns, update_ratio=turns * 1e-3, dead_relu=0)
    assert cnnlab.autopsy(record).cause == "healthy"


# -- in plots, pages and tables


def traces_of(record: Record) -> dict[str, object]:
    figure = draw_dashboard(record, 20)
    refresh_dashboard(figure, record, (), 20)
    return {trace.name: trace for trace in figure.data}


def test_in_plots_it_is_a_gap_and_no_mark_in_the_lane_of_nan():
    drawn = traces_of(record_of([4.0, NOT_MEASURED, math.nan, 2.0]))
    assert np.isnan(drawn["cost"].y).tolist() == [False, True, True, False]
    assert drawn["cost marks"].x.tolist() == [3]
    missing = np.ones((5, len(LAYERS)))
    missing[2, 0], missing[3, 1] = NOT_MEASURED, math.nan
    drawn = traces_of(record_of([1.0] * 4, gradient_norm=missing))
    assert drawn["gradient marks"].x.tolist() == [3]


def test_a_page_draws_no_cross_for_it_either():
    def crosses(record: Record) -> list[float]:
        played = make_film(record)
        place = next(place for place, trace in enumerate(played["figure"]["data"]) if trace["name"] == "cost marks")
        change = next((each for each in played["changes"] if list(each["place"]) == ["data", place, "x"]), None)
        if change is None:
            return []
        last = played["values"][change["at"][-1]]
        return np.frombuffer(base64.b64decode(last["bdata"]), last["dtype"]).tolist()

    assert crosses(record_of([4.0, math.nan, 2.0])) == [2]
    assert crosses(record_of([4.0, NOT_MEASURED, 2.0])) == []
    assert make_film(unknown(3))["tones"] == ["calm"] * 4


def test_json_has_null_for_it_and_the_word_for_nan(capsys):
    tables.write_json(record_of([1.0, math.nan, NOT_MEASURED, math.inf]))
    assert json.loads(capsys.readouterr().out)["cost"] == [1.0, "nan", None, "inf"]


def test_a_table_has_a_dash_for_it_that_is_not_red():
    assert (str(tables.format_cell(NOT_MEASURED)), tables.format_cell(NOT_MEASURED).style) == ("-", "")
    assert (str(tables.format_cell(math.nan)), tables.format_cell(math.nan).style) == ("nan", "bold red")


def test_the_dashboard_beside_a_loop_says_that_the_cost_is_not_measured():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with cnnlab.watch(model, optimizer, show=True) as watch:
        ce(model(X), Y, reduction="none").backward(torch.ones(24))
        optimizer.step()
    assert "the cost is not measured" in watch.lab.line.value
    assert "NaN" not in watch.lab.line.value
    watch.lab.close()
