"""The lab on penalties and ReLUs shows what its sentences say."""

import re
from functools import partial

import notebooks
import numpy as np
import pytest
import torch
from claims import read_column
from notebooks import execute, find_lab, find_numbers, read_measured, read_solution, read_text

import cnnlab

LAB = find_lab("03")
find_said = partial(notebooks.find_said, LAB)
LN_2 = np.log(2)

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")]


def test_a_penalty_is_the_same_to_the_bit_in_both_places():
    assert execute(LAB)["place-run"].strip() == "{'L2': 0.0, 'L1': 0.0}"
    assert read_measured(LAB, "place-compare") == 2
    assert find_said(r"the same weights to the last bit, for L2 and for L1, in each of (\d+) seeds") == (32,)
    assert not read_column("03_place", "l2").any()
    assert not read_column("03_place", "l1").any()


def test_momentum_and_clipping_tell_the_places_apart():
    assert min(find_numbers(LAB, r"'momentum': '(\S+)', 'clipping': '(\S+)'\}", "others-run")) > 1e-5
    assert min(read_column("03_place", name).min() for name in ("momentum", "clipping")) > 1e-5


def test_only_the_cost_that_is_shown_differs():
    in_cost, in_update = (cnnlab.Run(l2=0.1, learning_rate=1e-4, penalty_in=place) for place in ("cost", "update"))
    first, second = in_cost.step(), in_update.step()
    assert first.cost > first.data_cost == second.cost


def test_of_six_strengths_one_survives_no_better_than_guessing():
    shown = re.findall(r"^L2 (\S+) +(\d+) updates, cost (\S+)$", execute(LAB)["strength-run"], re.MULTILINE)
    assert [l2 for l2, updates, _ in shown if updates == "20"] == ["100"]
    assert dict((l2, cost) for l2, _, cost in shown)["100"] == "0.6931"
    assert find_said(r"The cost is (\S+), ln 2,") == (pytest.approx(LN_2, abs=1e-4),)
    assert read_measured(LAB, "strength-compare") == 1


def test_strengths_of_a_tenth_and_of_one_do_not_delay_the_explosion():
    without = read_column("03_strengths", "diverged_at_0")
    assert np.isfinite(without).all()
    assert all((read_column("03_strengths", f"diverged_at_{l2}") == without).all() for l2 in (0.1, 1))
    later = read_column("03_strengths", "diverged_at_10") - without
    assert set(later) == {0, 1}
    assert find_said(r"At 10 it came one update later in (\d+) of the (\d+),") == (later.sum(), len(later))


def test_100_hides_the_explosion_in_each_seed_and_150_in_few():
    assert np.isinf(read_column("03_strengths", "diverged_at_100")).all()
    np.testing.assert_allclose(read_column("03_strengths", "cost_at_100"), LN_2, atol=1e-4)
    assert find_said(r"this run explodes again, as (\d+) of (\d+) seeds do") == (
        np.isfinite(read_column("03_strengths", "diverged_at_150")).sum(),
        32,
    )


def test_with_100_the_weights_are_smaller_than_a_millionth_from_the_update_that_is_named_on():
    (first,) = find_said(r"From update (\d+) on, each of the \*watched weights\* is smaller than a millionth")
    run, largest = cnnlab.Run("question", l2=100), []
    while run.updates < 20:
        run.step()
        largest.append(max(np.abs(run.weights()[f"{layer}.weight"]).max() for layer in run.record.layers))
    assert next(update for update, size in enumerate(largest, start=1) if size < 1e-6) == first
    assert max(largest[int(first) - 1 :]) < 1e-6


def test_the_weakest_penalty_that_survives_leaves_nothing_to_learn_with():
    (cost,) = find_said(r"the weakest strength that stops the explosion leaves the cost at (\S+), too")
    np.testing.assert_allclose(read_column("03_weakest", "cost"), cost, atol=5e-4)
    low, high = find_said(r"takes (\d+) % to (\d+) % of each weight at every update \(over 32 seeds\)")
    weakest = read_column("03_weakest", "l2")
    assert (weakest.min(), weakest.max()) == (low, high)  # times the learning rate 0.01, in percent


def test_the_solution_finds_the_weakest_strength():
    namespace = {"cnnlab": cnnlab}
    exec("\n".join(cell.source for cell in read_solution(LAB)[:-1]), namespace)
    assert [namespace["weakest"](seed) for seed in (1, 10)] == list(read_column("03_weakest", "l2")[[1, 10]])


def test_relus_calm_and_at_the_softmax_no_run_diverges():
    pattern = r"'question': (\d), 'every_layer': (\d), 'none': (\d), 'softmax_too': (\d)"
    assert find_numbers(LAB, pattern, "shut-run") == tuple(
        read_column("03_relus", relu)[:8].sum() for relu in ("question", "every_layer", "none", "softmax_too")
    )
    assert read_column("03_relus", "every_layer")[:8].sum() == read_measured(LAB, "relu-compare") == 0
    assert read_column("03_relus", "none").all()
    assert read_column("03_relus", "none_slow").all()
    assert not read_column("03_relus", "softmax_too").any()
    more, gap = find_said(r"none of the eight diverges; over 32 seeds (\d+) do, against (\d+) with")
    assert (more, gap) == (read_column("03_relus", "every_layer").sum(), read_column("03_relus", "question").sum())
    assert find_said(r"more runs diverge \((\d+) of 32, against (\d+) with it\)") == (gap, more)


def test_at_the_softmax_relus_shut_for_good_some_from_the_start():
    lines = re.findall(r"seed (\d): (\d+)% shut, then gradient (\S+)\n", execute(LAB)["shut-run"])
    shares = read_column("03_relus", "shut_at_start")
    assert [(int(seed), int(share) / 100) for seed, share, _ in lines] == list(enumerate(shares[:8]))
    assert [gradient for *_, gradient in lines] == 8 * ["0"]
    shut_at = read_column("03_relus", "shut_at")
    dead, last, shut = find_said(
        r"Of 32 seeds (\d+) \(seed 0 .*\) are shut .*; by update (\d+) the gradient is 0 in (\d+)"
    )
    assert (shares == 1).sum() == (shut_at == 1).sum() == dead
    assert shares[0] == 1
    assert (shut_at <= last).sum() == np.isfinite(shut_at).sum() == shut
    assert not read_column("03_relus", "open_again").any()
    np.testing.assert_allclose(read_column("03_relus", "cost")[np.isfinite(shut_at)], LN_2, atol=1e-6)


def test_seed_0_with_relus_at_the_softmax_has_a_level_cost_and_no_gradient():
    (cost,) = find_said(r"\*\*Cost\*\* is a level line at ([\d.]+), and")
    run = cnnlab.Run("question", relu="softmax_too", learning_rate=1e-3)
    run.advance(20)
    np.testing.assert_allclose(run.record.cost, cost, atol=5e-4)
    assert not run.record.total_gradient_norm.any()


def test_a_relu_takes_half_of_the_mean_square_and_raises_the_critical_rate():
    assert np.median(read_column("03_critical", "left")) == pytest.approx(0.5, abs=0.02)
    nowhere, as_asked, everywhere = (read_column("03_critical", relu) for relu in ("none", "question", "every_layer"))
    first, second = find_said(r"critical learning rate is (\d+) times higher .* and again (\S+) times higher")
    assert np.median(as_asked / nowhere) == pytest.approx(first, rel=0.05)
    assert np.median(everywhere / as_asked) == pytest.approx(second, rel=0.05)


def test_without_relus_nine_layers_are_about_as_good_as_guessing_on_what_they_have_not_met():
    shown = execute(LAB)["line-run"]
    trained, held_out = map(float, re.findall(r"\d\.\d\d", shown.splitlines()[1]))
    assert read_measured(LAB, "line-compare") == pytest.approx(held_out, abs=0.005)
    pattern = r"over 32 seeds (\S+) to (\S+)\), and somewhat better .* \((\S+) to (\S+)\)"
    low, high, least, most = find_said(pattern)
    others, own = read_column("03_line", "none_held_out"), read_column("03_line", "none_trained")
    assert (low, high) == (round(others.min(), 2), round(others.max(), 2))
    assert (least, most) == (round(own.min(), 2), round(own.max(), 2))
    assert least <= trained <= most
    assert find_said(
        r"With ReLUs it gets at least (\S+) of the held-out patches right, and at least (\S+) of the others"
    ) == (
        np.floor(100 * read_column("03_line", "question_held_out").min()) / 100,
        round(read_column("03_line", "question_trained").min(), 2),
    )


def test_with_relus_the_lower_rate_does_far_better_than_without():
    slow = read_column("03_line", "slow_held_out")
    said = find_said(r"With ReLUs and this lower rate .* gets (\S+) to (\S+) of the held-out patches right \(over")
    assert said == (round(slow.min(), 2), round(slow.max(), 2))
    assert slow.min() > read_column("03_line", "none_held_out").max()


def test_without_relus_the_preset_that_converges_needs_a_lower_rate():
    assert read_column("03_line", "none_fast").all()
    assert "lower the learning rate tenfold, otherwise it diverges" in read_text(LAB)


@pytest.mark.parametrize(("relu", "is_linear"), [("none", True), ("question", False)])
def test_without_relus_the_network_is_one_weighted_sum_and_a_constant(relu, is_linear):
    run = cnnlab.Run("converges", relu=relu)
    x = torch.from_numpy(run.patches()[:4, None])
    with torch.no_grad():
        tensors = {name: torch.from_numpy(value).float() for name, value in run.weights().items()}
        outputs = torch.func.functional_call(run.problem.network, tensors, torch.cat([x, x[:2] + x[2:], 0 * x[:2]]))
    first, second, both, nothing = outputs.split(2)
    assert torch.allclose(both, first + second - nothing, rtol=1e-3, atol=1e-3) == is_linear


def test_brick_and_gravel_have_the_same_mean_and_deviation_and_no_weighted_sum_is_good():
    run = cnnlab.Run("converges")
    (x, labels), (others, wanted) = run.problem.data, run.problem.held_out
    x, others = (part.numpy().reshape(len(part), -1).astype(float) for part in (x, others))
    sides = [x[labels.numpy() == label] for label in (0, 1)]
    assert abs(sides[0].mean() - sides[1].mean()) < 0.1
    assert abs(sides[0].std() - sides[1].std()) < 0.1
    signs, found = 2 * labels.numpy() - 1.0, []
    for strength in 10.0 ** np.array([0, 2, 3, 4, 5, 6]):
        weights = x.T @ np.linalg.solve(x @ x.T + strength * np.eye(len(x)), signs - signs.mean())
        found.append(np.mean((others @ weights > 0) == (wanted.numpy() > 0)))
    low, high = find_said(r"it gets (\S+) to (\S+) of the held-out patches")
    assert (round(min(found), 2), round(max(found), 2)) == (low, high)
