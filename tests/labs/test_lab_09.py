"""The lab on networks of one's own shows what its sentences say."""

import re
from functools import partial

import numpy as np
import pytest
import torch
from notebooks import execute, find_lab, find_numbers, find_said, read_measured, read_text
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
        r"\*\*Play\*\* now goes on to update (\d+): .* is red from update (\d+) on", "loop-explain"
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


# The end.


def test_an_own_image_is_learnt():
    assert "image='own_" in execute(LAB)["ledger"]
    assert find_numbers(LAB, r"the cost after \d+ updates is (\S+)", "image-run")[0] < 0.1


def test_the_check_has_the_networks_and_rates_that_are_told_and_no_rate_is_right_for_all():
    assert "four networks of one weight, each with other *x*, and eleven rates from 1e-10 to 1" in read_text(LAB)
    assert (len(INPUTS), len(RATES), min(RATES), max(RATES)) == (4, 11, 1e-10, 1)
    critical = [2 / sum(value**2 for value in inputs) for inputs in INPUTS.values()]
    assert len({max(rate for rate in RATES if rate < each) for each in critical}) == 4
