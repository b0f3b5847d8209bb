"""Why a training of one's own went wrong: each cause on the smallest input that has it, and never another one."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import re
import warnings

import numpy as np
import pytest
import torch
from handmade import record_of
from posted import CASES
from posted.case import Parts, PostedCase, train
from posted.networks import linear, mse, normal
from test_autopsy import SABOTAGED

import cnnlab
from cnnlab.diagnosis.autopsy import Autopsy
from cnnlab.diagnosis.causes import CAUSES
from cnnlab.diagnosis.value_causes import find_end
from cnnlab.records.clues import Clues

ce = torch.nn.functional.cross_entropy


pytestmark = pytest.mark.usefixtures("one_thread")


def find_case(name: str) -> PostedCase:
    return next(case for case in CASES if case.name == name)


def run_parts(parts: Parts, updates: int) -> cnnlab.Run:
    knobs = {"learning_rate": parts.learning_rate, "momentum": parts.momentum, "l2": parts.l2}
    run = cnnlab.Run(network=parts.network, data=parts.loader(), cost=parts.cost, device="cpu", **knobs)
    with contextlib.suppress(IndexError, RuntimeError):
        run.advance(updates, until="nonfinite")
    return run


def watch_parts(parts: Parts, updates: int) -> cnnlab.Record:
    optimizer, scaler = parts.make_optimizer(), parts.scaler() if parts.scaler is not None else None
    with (
        warnings.catch_warnings(),
        contextlib.suppress(IndexError, RuntimeError),
        cnnlab.watch(parts.network, optimizer, scaler=scaler, show=False) as watch,
    ):
        warnings.simplefilter("ignore")
        collections.deque(train(parts, optimizer, scaler, updates), maxlen=0)
    return watch.record


def explain(way: str, name: str) -> Autopsy:
    case = find_case(name)
    if way == "watch":
        return cnnlab.autopsy(watch_parts(case.build(), case.updates))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cnnlab.autopsy(run_parts(case.build(), case.updates), prove=False)


BOTH = ("Run", "watch")
FOUND = {
    "no weight moved": {"kind: graph cut": BOTH, "kind: optimiser of another model": ("watch",)},
    "every step skipped": {"kind: every step skipped": ("watch",)},
    "shapes broadcast": {"kind: (N, 1) against (N)": BOTH},
    "softmax before cross-entropy": {"kind: softmax before cross-entropy": BOTH},
    "gradients add up": {"kind: missing zero_grad": ("watch",)},
    "cost without a minimum": {"kind: cross-entropy of targets beyond 1": BOTH},
    "outlier": {"kind: one target of 1e25": BOTH, "kind: one input of 1e4": BOTH},
    "targets not scaled": {"kind: targets near 1e6": BOTH},
    "forward pass explodes": {"kind: recurrent ReLU of 100 steps": ("Run",)},
    "exp beyond the type": {"kind: exp of more than 88": ("Run",)},
    "error raised": {"kind: a label beyond the classes": BOTH, "kind: an error within the forward pass": BOTH},
    "data hold NaN": {"kind: NaN in the targets": BOTH, "kind: inf in the targets": BOTH},
    "undefined operation": {"kind: root at 0 after calm updates": ("Run",)},
    "vanishing gradient": {"kind: ten sigmoids": BOTH},
    "epsilon of the optimiser": {"Adam in half with small gradients": ("watch",)},
    "step of the optimiser": {"centred RMSprop": ("watch",), "step scaled by its own length": ("watch",)},
}
"""Cause -> the inputs that have it, and the ways in which it is seen."""


@pytest.mark.parametrize(
    ("cause", "name", "way"),
    [(cause, name, way) for cause, names in FOUND.items() for name, ways in names.items() for way in ways],
)
def test_the_cause_of_the_smallest_input_of_its_kind_comes_first(cause, name, way):
    found = explain(way, name)
    assert found.cause == cause, found.causes
    assert found.confidence >= 0.5
    assert found.evidence


def test_every_cause_of_the_list_is_explained_and_tried():
    # Below, in test_loss_scale.py and in test_optimizers.py.
    elsewhere = {"no better than a constant", "undecided", "underflow of the precision"}
    elsewhere |= {"learning rate below 0", "loss scale left in the gradient"}
    assert set(CAUSES) == {*SABOTAGED, *FOUND, *elsewhere}


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("name", ["kind: root at 0 after calm updates", "kind: root at 0 among noisy batches"])
def test_the_rate_is_not_blamed_for_a_nan_in_calm_numbers(name, way):
    found = explain(way, name)
    assert "learning rate above critical" not in {cause.name for cause in found.causes}


def test_a_nan_in_calm_numbers_says_that_they_were_calm():
    record = record_of([1.0, 0.9, 0.8, math.nan], update_ratio=np.full((5, 3), 1e-3))
    found = cnnlab.autopsy(record)
    assert found.cause == "undecided"
    assert "the learning rate is not to blame" in found.evidence[1]


def test_a_rise_with_long_steps_is_still_the_rate_s():
    found = cnnlab.autopsy(watch_parts(find_case("a rate of ten").build(), 40))
    assert found.cause == "learning rate above critical"


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize(
    "name", [case.name for case in CASES if case.name.startswith("kind: ") and case.symptom == "NaN or inf"]
)
def test_beside_a_nan_nothing_is_called_healthy_or_finite(name, way):
    case = find_case(name)
    if way == "Run" and not case.build().runs:
        return
    text = str(dataclasses.replace(explain(way, name), advice=()))  # whose code may ask isfinite
    assert "healthy" not in text
    assert "finite" not in text


def test_an_outlier_is_named_by_its_example_its_value_and_the_median():
    found = explain("Run", "kind: one target of 1e25")
    assert (
        "targets of example 77 of 256 (counted from 0) reach 1.0e25; the median example's reach 0." in found.evidence[0]
    )


def test_targets_that_hold_nan_are_named_by_their_examples():
    found = explain("watch", "kind: NaN in the targets")
    assert found.evidence == (
        "the targets hold NaN or inf in 1 of 2 examples, the first of them example 1 (counted from 0)",
    )


def test_a_network_that_answers_the_same_for_all_is_no_better_than_a_constant():
    y = torch.arange(24) % 3
    parts = Parts(linear(4, 3), torch.zeros(24, 4), y, ce, learning_rate=0.5)
    found = cnnlab.autopsy(run_parts(parts, 60), prove=False)
    assert found.cause == "no better than a constant"
    assert f"{math.log(3):.3f}" in found.evidence[0]


def test_a_run_that_learns_is_healthy_without_a_word_on_constants():
    x = normal(24, 4)
    found = cnnlab.autopsy(run_parts(Parts(linear(4, 1), x, x[:, :1], mse, learning_rate=0.1), 60), prove=False)
    assert found.cause == "healthy"
    assert "constant" not in str(found)


def test_gradients_that_are_accumulated_on_purpose_do_not_add_up():
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = normal(24, 4), torch.arange(24) % 3
    with cnnlab.watch(model, optimizer, show=False) as watch:
        for _ in range(5):
            optimizer.zero_grad(set_to_none=False)
            for part in range(3):
                ce(model(x[part::3]), y[part::3]).backward()
            optimizer.step()
    assert watch.record.clues.added_up == 0


def test_a_distance_of_all_pairs_is_no_mistake_of_shapes():
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    x = normal(12, 4)
    with cnnlab.watch(model, optimizer, show=False) as watch:
        for _ in range(3):
            out = model(x)
            optimizer.zero_grad()
            (out - out.T).square().mean().backward()
            optimizer.step()
    assert watch.record.clues.batch.broadcast == ""


def test_an_error_of_the_network_is_raised_and_stands_in_the_record():
    parts = find_case("kind: an error within the forward pass").build()
    run = cnnlab.Run(network=parts.network, data=parts.loader(), cost=parts.cost, device="cpu", learning_rate=1e-3)
    with pytest.raises(RuntimeError, match="singular"):
        run.advance(12)
    assert run.record.clues.error_step == len(run.record) + 1 == 3
    found = cnnlab.autopsy(run, prove=False)
    assert "update 3 raised: " in found.evidence[0]
    run.rewind(1)
    assert run.record.clues == Clues()


def test_clues_are_no_part_of_a_comparison_or_a_file(tmp_path):
    run = cnnlab.Run("question", channels=2, hidden=(4, 4), patch_size=14, device="cpu")
    record = dataclasses.replace(run.record, clues=Clues(error="x", error_step=1))
    record.save(tmp_path / "run.cnnlab")
    assert cnnlab.load(tmp_path / "run.cnnlab").clues == Clues()


def test_an_undefined_operation_comes_with_the_code_to_write():
    found = explain("Run", "kind: root at 0 after calm updates")
    assert found.advice
    assert "+ 1e-8" in found.advice[0]
    assert "What to write:" in str(found)


ON_NUMBERS_OUT_OF_RANGE = {
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "log": torch.log,
    "log1p": lambda out: torch.log1p(3 * out),
    "pow": lambda out: out**1.5,
    "acos": lambda out: torch.acos(3 * out),
    "atanh": lambda out: torch.atanh(3 * out),
    "acosh": torch.acosh,
    "logit": torch.logit,
}
"""Operation -> a cost of outputs for some of which it is not defined."""


@pytest.mark.parametrize("name", ON_NUMBERS_OUT_OF_RANGE)
def test_what_to_write_for_numbers_out_of_range_gives_a_finite_cost_and_gradient(name):
    torch.manual_seed(0)
    model, x = torch.nn.Linear(2, 2), normal(64, 2)
    with cnnlab.watch(model, torch.optim.SGD(model.parameters(), 1e-3)) as watch:
        out = model(x)
        ON_NUMBERS_OUT_OF_RANGE[name](out).mean().backward()
        watch.optimizers[0].step()
    (advice,) = cnnlab.autopsy(watch.record).advice
    code = re.search(r"(torch\.\w+\(x[^;]*\)|x\.clamp\(min=1e-8\) \*\* p)", advice).group(1)
    x = torch.linspace(-3, 3, 64).requires_grad_()
    written = eval(code, {"torch": torch, "x": x, "p": 1.5})
    written.mean().backward()
    assert written.isfinite().all(), code
    assert x.grad.isfinite().all(), code


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("function", ["exp", "expm1", "exp2", "sinh", "cosh"])
def test_the_end_of_an_exp_is_where_its_result_leaves_the_type(function, precision):
    near = torch.tensor([0.999, 1.001], dtype=torch.float64) * find_end(function, precision)
    found = getattr(torch, function)(near)
    largest = torch.finfo(getattr(torch, precision)).max
    assert (found.isfinite() & (found <= largest)).tolist() == [True, False]


def test_an_autopsy_says_of_exp2_where_exp2_ends():
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    with cnnlab.watch(model, torch.optim.SGD(model.parameters(), 1e-3)) as watch:
        torch.exp2(40 * model(normal(8, 2)).abs() + 100).mean().backward()
        watch.optimizers[0].step()
    assert "beyond 128 its result leaves float32" in str(cnnlab.autopsy(watch.record).evidence)


@pytest.mark.parametrize("function", [torch.slogdet, torch.linalg.slogdet, torch.logdet])
def test_a_determinant_of_0_has_something_to_write(function):
    model = torch.nn.Linear(2, 2)
    with cnnlab.watch(model, torch.optim.SGD(model.parameters(), 1e-3)) as watch:
        out = model(normal(2, 2))
        found = function(out - out.detach())
        (found if isinstance(found, torch.Tensor) else found.logabsdet).backward()
        watch.optimizers[0].step()
    assert "to the diagonal" in cnnlab.autopsy(watch.record).advice[0]


def stopped_watch(cost) -> cnnlab.Watch:
    """A watch with `stop_before_nan` around a loop whose third cost is made by `cost`."""
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    x = normal(8, 2)
    with cnnlab.watch(model, optimizer, stop_before_nan=True) as watch:
        for update in range(5):
            out = model(x * 0 if update == 2 else x)
            loss = cost(out) if update == 2 else out.square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())
    return watch


def test_a_nan_in_the_cost_alone_ends_the_block_before_it_is_recorded():
    watch = stopped_watch(lambda out: out.square().mean() + torch.tensor(math.nan))
    assert watch.stopped == "stopped because the cost of update 3 is NaN; the weights are those before it"
    assert len(watch.record) == 2
    found = cnnlab.autopsy(watch.record)
    assert (found.cause, found.step, found.phase) == ("data hold NaN", 3, "constant")


def test_the_autopsy_of_a_block_that_was_stopped_names_the_update_that_was_not_made():
    watch = stopped_watch(lambda out: out.square().sum(1).sqrt().mean())
    assert watch.stopped.startswith("stopped because the gradient of update 3 holds NaN or inf in weight")
    found = cnnlab.autopsy(watch.record)
    assert (found.cause, found.step, found.phase) == ("undefined operation", 3, "gradient")
    assert "healthy" not in str(found)


def test_a_cost_of_log_probabilities_that_is_given_logits_is_named():
    nll = torch.nn.functional.nll_loss
    parts = Parts(linear(4, 3), normal(24, 4), torch.arange(24) % 3, nll, learning_rate=0.1)
    found = cnnlab.autopsy(watch_parts(parts, 40))
    assert found.cause == "cost without a minimum"
    assert found.evidence[0].startswith("nll_loss is below 0: it wants log-probabilities")


def test_a_part_of_a_cost_does_not_tell_what_a_constant_output_would_cost():
    x, y = normal(24, 4), torch.arange(24) % 3
    parts = Parts(linear(4, 3), x, y, lambda out, y: 100 * ce(out, y) + out.square().mean(), learning_rate=1e-3)
    found = cnnlab.autopsy(watch_parts(parts, 60))
    assert (found.cause, found.confidence) == ("healthy", 0.9)
