"""The lab on networks of one's own shows what its sentences say."""

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from notebooks import execute, find_lab, find_numbers, find_said, read_cell, read_measured, read_text
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import cnnlab
from cnnlab.course.exercises import INPUTS, RATES, make_line

LAB = find_lab("09")
read_said = partial(find_said, LAB)
CURVATURE = 50_055
"""The sum of the squares of the lab's inputs."""

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def make_slope(divisor: float = 1, learning_rate: float = 0.01) -> cnnlab.Run:
    """The lab's network of one weight, its inputs divided by a number."""
    mine = make_line(INPUTS["the inputs of unit 1"])
    x, y = mine["data"]
    return cnnlab.Run(**mine | {"data": (x / divisor, y)}, learning_rate=learning_rate)


class Distance(torch.nn.Linear):
    """The distance between what two inputs become, with something added under the root."""

    added = 0.0

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """As in the lab."""
        squares = (super().forward(left) - super().forward(right)).square()
        return (squares.sum(1) + self.added).sqrt()


def make_distance(added: float, learning_rate: float, same: bool = True) -> cnnlab.Run:
    """The lab's network of pairs."""
    left, right = torch.linspace(-1, 1, 80).reshape(2, 10, 4)
    if same:
        right[3] = left[3]
    torch.manual_seed(0)
    network = Distance(4, 4)
    network.added = added
    pairs = {"data": ((left, right), torch.ones(10)), "cost": torch.nn.functional.mse_loss}
    return cnnlab.Run(network=network, **pairs, learning_rate=learning_rate)


# What is handed over.


def test_the_module_that_is_handed_over_stays_as_it_is():
    assert "The module is copied, so yours stays as it is." in read_text(LAB)
    mine = make_line((1, 2))
    run = cnnlab.Run(**mine, learning_rate=0.1)
    run.advance(2)
    assert run.parameters.item() != 0
    assert mine["network"].weight.item() == 0


@pytest.mark.parametrize("wrapped", [TensorDataset, lambda x, y: DataLoader(TensorDataset(x, y), batch_size=7)])
def test_a_dataset_or_a_loader_does_in_place_of_the_pair(wrapped):
    assert "or a `Dataset`, or a `DataLoader`" in read_text(LAB)
    mine = make_line(INPUTS["the inputs of unit 1"])
    run = cnnlab.Run(**mine | {"data": wrapped(*mine["data"])}, learning_rate=0.01)
    assert run.step().cost == make_slope().step().cost


def test_an_own_network_is_rewound_and_repeats_itself():
    assert "You can train it, rewind it and draw it here" in read_text(LAB)
    run = make_slope()
    run.advance(5)
    costs = run.record.cost
    run.rewind(2)
    run.advance(3)
    assert (run.record.cost == costs).all()


# Unit 1.


def test_the_cost_of_one_weight_grows_by_a_constant_factor_until_it_is_infinite():
    assert read_measured(LAB, "slope-compare") == 8
    (times,) = read_said(r"Each cost is about (\S+) times the one before", "slope-explain")
    factors = [float(text) for text in re.findall(r"x ([\d.e+]+)", execute(LAB)["slope-run"])]
    assert factors == pytest.approx([(1 - 0.01 * CURVATURE) ** 2] * 5, rel=1e-3)
    assert times == pytest.approx(factors[0], rel=0.01)


def test_the_squares_of_the_inputs_are_the_curvature_and_two_of_them_make_nearly_all_of_it():
    squares, most = read_said(r"add up to (\S+)\. The 100 and the 200 alone give (\S+) of it", "slope-explain")
    assert squares == sum(value**2 for value in INPUTS["the inputs of unit 1"]) == CURVATURE
    assert most == 100**2 + 200**2
    assert cnnlab.critical_learning_rate(make_slope()).eigenvalue == pytest.approx(CURVATURE, rel=1e-5)


def test_the_distance_of_the_weight_is_multiplied_by_one_less_rate_times_curvature():
    rate, curvature, factor = read_said(r"by 1 - (\S+) \* (\d+), which is (-[\d.]+),", "slope-explain")
    assert (rate, curvature) == (0.01, CURVATURE)
    assert 1 - rate * curvature == pytest.approx(factor)
    run = make_slope()
    run.advance(1)
    assert run.parameters.item() - 2 == pytest.approx(-2 * factor, rel=1e-5)


def test_the_histogram_moves_to_larger_weights_at_every_update():
    run = make_slope()
    run.advance(7)
    places = [int(np.flatnonzero(frame.histogram[0]).item()) for frame in run.record.frames]
    assert places == sorted(set(places))


def test_the_cost_falls_just_below_the_critical_rate_and_grows_just_above_it():
    curvature, rate = read_said(r"below 2 / (\d+), about (0\.\d+)\.", "slope-explain")
    assert 2 / curvature == pytest.approx(rate, rel=0.01)
    for times, falls in ((0.99, True), (1.01, False)):
        run = make_slope(learning_rate=times * 2 / curvature)
        assert (run.advance(5).cost < run.record.cost[0]) == falls


def test_smaller_inputs_or_a_smaller_rate_let_the_cost_fall():
    divisor, rate = read_said(
        r"With \*x\* / (\d+) in place of \*x\*, the rate of (\S+) is small enough", "slope-explain"
    )
    for run in (make_slope(divisor, rate), make_slope(learning_rate=1e-5)):
        assert run.advance(40).cost < run.record.cost[0] / 2


def test_a_cost_without_labels_has_no_accuracy():
    assert "There is no accuracy, because the targets are no labels." in read_text(LAB)
    run = make_slope()
    run.advance(2)
    assert np.isnan(run.record.accuracy).all()


# Unit 2.


def test_the_weight_stays_finite_longer_than_its_cost():
    assert read_measured(LAB, "loop-compare") == 13
    assert find_numbers(LAB, r"the cost was infinite at update (\d+)", "loop-run") == (8,)
    assert "the gradient of update 14 holds NaN or inf in weight" in execute(LAB)["loop-run"]
    (weight,) = find_numbers(LAB, r"the weight is (\S+)", "loop-run")
    assert 1e30 < abs(weight) < 3.4e38


def test_between_the_two_the_cost_is_infinite_and_the_gradients_are_finite():
    run = make_slope()
    run.advance(13)
    first, last = read_said(r"infinite at update (\d+), .* finite number, up to update (\d+)", "loop-explain")
    assert (first, last) == (8, len(run.record))
    for frame in run.record.frames[7:]:
        assert np.isinf(frame.cost)
        assert not np.any([*frame.gradient_nan, *frame.gradient_inf, *frame.weight_nan, *frame.weight_inf])
    assert run.step().gradient_inf.any()


def test_the_dashboard_shows_the_weight_broken_from_that_update_on_if_it_plays_on():
    update, broken = read_said(
        r"it goes on to update (\d+), and the plot .* is red from update (\d+) on", "loop-explain"
    )
    run = make_slope()
    run.advance(int(update))
    lost = [step for step, frame in enumerate(run.record.frames, 1) if frame.weight_nan[0] or frame.weight_inf[0]]
    assert lost == list(range(int(broken), int(update) + 1))


def test_the_gradient_overflows_an_update_before_the_weight_would():
    (step, room) = read_said(
        r"At update (\d+) it is the gradient .* with more digits, it comes to (-\S+)\.", "loop-explain"
    )
    mine = make_line(INPUTS["the inputs of unit 1"])
    x, y = (part.double() for part in mine["data"])
    long = cnnlab.Run(**mine | {"network": mine["network"].double(), "data": (x, y)}, learning_rate=0.01)
    long.advance(int(step))
    assert long.parameters.item() == pytest.approx(room, rel=0.01)
    largest = float(np.finfo(np.float32).max)
    assert abs(long.parameters.item()) < largest < long.record.total_gradient_norm[-1]
    (times,) = read_said(r"The gradient is the distance times ([\d,]+), so", "loop-explain")
    assert times == CURVATURE


def test_the_watch_ends_the_loop_by_an_exception_that_its_block_catches():
    assert "it raises an exception there, which leaves `train` and its loop" in read_text(LAB)
    mine = make_line(INPUTS["the inputs of unit 1"])
    network, (x, y) = mine["network"], mine["data"]
    optimizer, steps, after = torch.optim.SGD(network.parameters(), lr=0.01), [], []
    with cnnlab.watch(network, optimizer, stop_before_nan=True, show=False):
        while len(steps) < 100:
            optimizer.zero_grad()
            mine["cost"](network(x), y).backward()
            optimizer.step()
            steps.append(network.weight.item())
        after.append("the line below the loop")
    assert (len(steps), after) == (13, [])


def test_the_cost_ends_in_about_half_as_many_updates_as_the_weight():
    assert "in about half as many updates as the weight" in read_text(LAB)
    (largest,) = read_said(r"The largest number of float32 is near (\S+)\. The", "loop-explain")
    assert float(np.finfo(np.float32).max) == pytest.approx(largest, rel=0.01)
    cost, weight = 8, read_measured(LAB, "loop-compare") + 1
    assert cost / weight == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("watched", [False, True])
def test_a_loop_ends_with_the_same_weight_whether_it_is_watched_or_not(watched):
    assert "The loop itself stays as it is" in read_text(LAB)
    weight = train_in_a_loop(watched)
    run = make_slope()
    run.advance(5)
    assert weight == run.parameters.item()


def train_in_a_loop(watched: bool) -> float:
    """The lab's loop for five updates; the weight at its end."""
    mine = make_line(INPUTS["the inputs of unit 1"])
    network, (x, y) = mine["network"], mine["data"]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def train() -> None:
        for _ in range(5):
            optimizer.zero_grad()
            mine["cost"](network(x), y).backward()
            optimizer.step()

    if watched:
        with cnnlab.watch(network, optimizer, show=False):
            train()
    else:
        train()
    return network.weight.item()


# Unit 3.


def test_the_gradient_is_nan_at_once_and_the_cost_one_update_later():
    assert read_measured(LAB, "root-compare") == 2
    assert "If you expect none in the first three updates, write 0" in read_text(LAB)
    assert execute(LAB)["root-run"].count("cost") == 3
    (said,) = read_said(r"the first cost is (\d\.\d+)", "root-predict")
    (numbers,) = read_said(r"all (\d+) numbers of the gradient are `NaN` already", "root-explain")
    assert find_numbers(LAB, r"1: cost (\S+), NaN: gradient (\d+), weights (\d+)", "root-run") == (
        said,
        numbers,
        numbers,
    )
    assert "2: cost nan" in execute(LAB)["root-run"]


@pytest.mark.parametrize("learning_rate", [1.0, 1e-2, 1e-6, 1e-12])
def test_no_learning_rate_mends_a_derivative_that_does_not_exist(learning_rate):
    run = make_distance(0, learning_rate)
    run.advance(2)
    assert np.isfinite(run.record.cost[0])
    assert np.isnan(run.record.cost[1])


def test_something_small_under_the_root_mends_it():
    assert read_said(r"A learning rate of (\S+) gives the same", "root-explain") == (1e-6,)
    (added,) = read_said(r"With (\S+) added under the root, the cost falls", "root-explain")
    run = make_distance(added, 0.01)
    run.advance(30)
    assert (np.diff(run.record.cost) < 0).all()


def test_without_the_pair_that_is_the_same_thing_twice_nothing_breaks():
    run = make_distance(0, 0.01, same=False)
    assert run.advance(100).cost < run.record.cost[0]


# Unit 4.


def find_attend(**given: str) -> dict[str, Any]:
    """What the cells of the unit make, before its loop; some of their text may be replaced."""
    made: dict[str, Any] = {"torch": torch}
    source = "\n".join(read_cell(LAB, f"attend-{name}").source for name in ("module", "build", "update"))
    for old, new in given.items():
        assert REPLACED[old] in source
        source = source.replace(REPLACED[old], new)
    exec(compile(source, "cells.py", "exec"), made)
    made["lists"] = torch.randint(-3, 9, (3200, 6)).clamp(min=0)
    return made


REPLACED = {
    "rate": "lr=0.003",
    "optimizer": "Adam",
    "precision": 'torch.autocast("cpu", torch.bfloat16)',
    "low": "-torch.inf",
}


def attend(made: dict[str, Any], **given: Any) -> cnnlab.Watch:
    """The unit's loop under its watch."""
    with cnnlab.watch(made["model"], made["adam"], stop_before_nan=True, show=False, **given) as watch:
        for numbers in made["lists"].split(32):
            made["update"](made["model"], made["adam"], numbers)
    return watch


def test_the_lists_are_made_as_the_test_makes_them():
    (first,) = (line for line in read_cell(LAB, "attend-run").source.splitlines() if line.startswith("lists"))
    assert first == "lists = torch.randint(-3, 9, (3200, 6)).clamp(min=0)"
    assert "3,200 lists in batches of 32, which are 100 updates" in read_text(LAB)
    made = find_attend()
    assert "lists of six numbers from 1 to 8" in read_text(LAB)
    assert made["lists"].unique().tolist() == list(range(9))
    assert "on average every third" in read_text(LAB)
    assert (made["lists"] == 0).double().mean().item() == pytest.approx(1 / 3, abs=0.01)
    assert not made["model"].embed(torch.tensor(0)).any()


def test_the_autopsy_of_the_watch_names_cause_operation_layer_and_line():
    assert read_measured(LAB, "attend-compare") == 6
    lines = read_cell(LAB, "attend-module").source.splitlines()
    assert len(lines) == 6
    assert "masked_fill" in lines[4]
    assert "Line 5 is a *mask*" in read_text(LAB)
    said = " ".join(execute(LAB)["attend-run"].split())
    assert said.startswith("Cause: undefined operation")
    assert "First NaN or inf: update 25, activation of attention (inf-inf)." in said
    assert f"made by softmax (inf-inf), at cell:6: {lines[5].strip()}: softmax over -inf alone" in said
    assert "What to write: - mask with torch.finfo(x.dtype).min in place of -inf, or leave out rows that are" in said


def test_the_cost_falls_until_the_batch_with_the_first_empty_list():
    first, last, calm, broken = read_said(
        r"falls from (\S+) to about (\S+) in (\d+) updates\. .* `NaN` of update (\d+)\.", "attend-explain"
    )
    among, empty, of = read_said(
        r"By chance (\d+) of the ([\d,]+) lists are\. - One empty list among (\d+) is enough", "attend-explain"
    )
    made = find_attend()
    holes = (~made["lists"].any(dim=1)).nonzero().flatten()
    assert (len(holes), len(made["lists"]), int(holes[0]) // 32 + 1, of) == (among, empty, broken, 32)
    watch = attend(made)
    assert len(watch.record) == calm == broken - 1
    assert watch.record.cost[[0, -1]] == pytest.approx([first, last], abs=0.1)
    assert all(parameter.isfinite().all() for parameter in made["model"].parameters())
    assert "the weights are those before it" in watch.stopped
    assert np.isfinite(watch.record.cost).all()
    assert cnnlab.first_alarms(watch.record)["cnnlab"] is None


def test_a_mask_over_some_places_makes_infinities_and_no_nan():
    made = find_attend()
    model, full = made["model"], made["lists"][made["lists"].any(dim=1)]
    assert model(full).isfinite().all()
    assert not (full != 0).all(dim=1).all()
    assert model(torch.zeros(1, 6, dtype=torch.long)).isnan().all()


@pytest.mark.parametrize(
    "given", [{"optimizer": "SGD"}, {"rate": "lr=0.000001"}, {"precision": 'torch.autocast("cpu", enabled=False)'}]
)
def test_neither_the_optimizer_nor_the_rate_nor_mixed_precision_is_to_blame(given):
    others = "With SGD, with a learning rate of 0.000001, or without `torch.autocast`"
    assert f"{others}, it is the same line at the same update" in read_text(LAB)
    watch = attend(find_attend(**given))
    found = cnnlab.autopsy(watch.record)
    assert (found.cause, found.step, found.layer) == ("undefined operation", 25, "attention")
    assert found.source == "cells.py:6"
    assert watch.record.clues.origin.first.function == "softmax"


def test_a_softmax_subtracts_the_largest_score():
    assert "infinity minus infinity is not defined" in read_text(LAB)
    scores = torch.tensor([1000.0, 999.0])
    assert scores.softmax(0).tolist() == (scores - scores.max()).softmax(0).tolist()
    assert torch.full((6,), -torch.inf).softmax(0).isnan().all()


def test_products_are_of_bfloat16_and_the_weights_stay_in_float32():
    made = find_attend()
    with torch.autocast("cpu", torch.bfloat16):
        assert made["model"].embed(made["lists"]).dtype == torch.float32
        assert made["model"](made["lists"]).dtype == torch.bfloat16
    assert {parameter.dtype for parameter in made["model"].parameters()} == {torch.float32}
    assert "half as many bits as float32" in read_text(LAB)
    assert 2 * torch.finfo(torch.bfloat16).bits == torch.finfo(torch.float32).bits


def test_bfloat16_reaches_as_far_as_float32_and_float16_does_not():
    (far,) = read_said(r"bfloat16 reaches to (\S+), as float32 does", "attend-explain")
    for kind in (torch.bfloat16, torch.float32):
        assert torch.finfo(kind).max == pytest.approx(far, rel=0.01)
    top, small = read_said(
        r"float16 reaches only to ([\d,]+), and what is smaller than (0\.0+3) becomes 0", "attend-explain"
    )
    assert torch.finfo(torch.float16).max == top
    assert torch.tensor([0.99 * small, 1.01 * small]).half().bool().tolist() == [False, True]


def test_a_scaler_leaves_the_broken_updates_out_and_the_watch_counts_them():
    out, of, skipped = read_said(
        r": (\d+) of (\d+) updates are left out, .* Its `skipped` is then (\d+), and the autopsy", "attend-explain"
    )
    made, scaler = find_attend(), torch.amp.GradScaler("cpu")
    with cnnlab.watch(made["model"], made["adam"], scaler=scaler, stop_before_nan=True, show=False) as watch:
        for numbers in made["lists"].split(32):
            with torch.autocast("cpu", torch.float16):
                cost = torch.nn.functional.cross_entropy(made["model"](numbers), numbers.amax(dim=1))
            made["adam"].zero_grad()
            scaler.scale(cost).backward()
            scaler.step(made["adam"])
            scaler.update()
    assert (watch.skipped, len(watch.record) + watch.skipped, watch.stopped) == (skipped, of, None)
    assert out == skipped
    assert "and the autopsy of its record names the line." in read_text(LAB)
    assert "inf-inf in softmax: softmax over -inf alone; cells.py:6" in cnnlab.autopsy(watch.record).evidence[-1]
    assert np.isfinite(watch.record.cost).all()


def test_without_the_empty_lists_the_loop_goes_on_and_learns():
    assert find_numbers(LAB, r"lists: (\d+)", "attend-mend") == (3194,)
    start, end, accuracy = find_numbers(
        LAB, r"cost fell from (\S+) to (\S+) in 99 updates; accuracy (\S+);", "attend-mend"
    )
    assert end < start / 5
    assert accuracy > 0.95


def test_the_smallest_number_of_the_type_as_a_mask_mends_it_too():
    assert "in line 5, `torch.finfo(scores.dtype).min` in place of `-torch.inf`" in read_text(LAB)
    watch = attend(find_attend(low="torch.finfo(scores.dtype).min"))
    assert (len(watch.record), watch.stopped) == (100, None)
    assert watch.record.cost[-20:].mean() < watch.record.cost[0] / 5


def test_float16_cannot_hold_a_mask_that_many_programs_have():
    assert "Many programs have `-1e9` there, which float16 cannot hold: PyTorch then raises an error." in read_text(LAB)
    with pytest.raises(RuntimeError, match="without overflow"):
        torch.zeros(2, dtype=torch.float16).masked_fill(torch.tensor([True, False]), -1e9)


# The end.


def test_an_own_image_is_learnt(tmp_path):
    (call,) = re.findall(r"`(cnnlab\.Run\([^`]*own_image[^`]*)`", read_text(LAB))
    pixels = np.random.default_rng(0).integers(0, 256, (120, 240), dtype=np.uint8)
    pixels[:60] = np.arange(240) % 8 * 32
    Image.fromarray(pixels).save(tmp_path / "leaf.png")
    run = eval(call.replace("leaf.png", str(tmp_path / "leaf.png")))
    assert run.advance(100).cost < 0.1


def test_the_check_has_the_networks_and_rates_that_are_told_and_no_rate_is_right_for_all():
    assert "four networks of one weight, each with other *x*, and eleven rates from 1e-10 to 1" in read_text(LAB)
    assert (len(INPUTS), len(RATES), min(RATES), max(RATES)) == (4, 11, 1e-10, 1)
    critical = [2 / sum(value**2 for value in inputs) for inputs in INPUTS.values()]
    assert len({max(rate for rate in RATES if rate < each) for each in critical}) == 4
