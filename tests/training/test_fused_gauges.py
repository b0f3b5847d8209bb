"""The kernels that measure an update on a GPU, without one by Triton's interpreter: the numbers are PyTorch's."""

import math

import numpy as np
import pytest
import torch

from cnnlab.records.frame import is_measured
from cnnlab.training import metrics
from cnnlab.training import run as runs
from cnnlab.training.run import Run

SMALL = {"channels": 2, "hidden": (40, 4), "patch_size": 13, "patches": 6, "learning_rate": 3.0}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = [
    {},
    {"momentum": 0.9, "clip": "norm", "l2": 1.0},
    {"clip": "adaptive", "l1": 1.0, "penalty_in": "update"},
    {"clip": "value", "precision": "float16", "cost": "softmax_log"},
    {"precision": "float64", "batch_size": 4, "reduction": "sum"},
    {"precision": "bfloat16", "relu": "none"},
    {"learning_rate": 1e3, "relu": "softmax_too"},
]


pytest.importorskip("triton", reason="needs Triton, which there is for Linux alone")


@pytest.fixture(scope="module")
def fused():
    """The module of the fused gauges, which opens Triton."""
    from cnnlab.training import fused_gauges

    return fused_gauges


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of which the interpreter is made, at inf - inf
@pytest.mark.parametrize("changes", CASES)
def test_a_run_with_fused_gauges_has_the_record_of_one_with_plain_gauges(monkeypatch, fused, changes):
    monkeypatch.setattr(runs, "make_gauges", metrics.Gauges)
    plain = Run("question", device=DEVICE, **SMALL | changes)
    plain.advance(5)
    monkeypatch.setattr(metrics, "is_read_at_once", lambda _device: False)
    monkeypatch.setattr(runs, "make_gauges", fused.FusedGauges)
    run = Run("question", device=DEVICE, **SMALL | changes)
    run.advance(5)
    np.testing.assert_array_equal(run.record.histograms[0:], plain.record.histograms[0:])
    np.testing.assert_allclose(run.record.table, plain.record.table, rtol=1e-12)
    np.testing.assert_array_equal(is_measured(run.record.table), is_measured(plain.record.table))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_an_output_is_looked_at_once_for_nan_inf_and_dead_units(fused, dtype, axis):
    output = torch.randn(5, 7, 40, 3, generator=torch.Generator().manual_seed(0)).to(DEVICE, dtype)
    output.select(axis, 1).fill_(-1)
    output.select(axis, 2).fill_(0)
    output[4, 6, 39, 0] = math.nan
    output[1, 1, 1, 1], output[2, 5, 7, 1] = math.inf, -math.inf
    place = axis % output.dim()
    noted = torch.zeros(2 + output.shape[axis], dtype=torch.int32, device=DEVICE)
    fused.look_at_output(output, place, noted)
    peaks = output.movedim(axis, 0).flatten(1).amax(1)
    assert noted[:2].tolist() == [int(output.isnan().sum()), int(output.isinf().sum())]
    assert torch.equal(noted[2:] == 0, peaks <= 0)
    assert (peaks <= 0).any()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32", "float64"])
def test_a_nan_is_counted_in_the_last_class_whatever_its_sign(fused, precision):
    run = Run("question", device=DEVICE, precision=precision, **SMALL)
    weights = torch.ones_like(run.parameters)
    weights[:2] = torch.tensor([math.nan, math.inf], dtype=weights.dtype).copysign(torch.tensor(-1.0))
    counts = run.log.record().histograms.shape_of_one[1]
    _, histogram = fused.FlatGauges(run.layout, weights, counts).measure(weights, weights, weights, weights, None)
    assert histogram[:, -1].tolist() == [2] + [0] * (len(run.layout.layers) - 1)
    assert histogram.sum(dim=1).tolist() == run.layout.layer_sizes


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_norms_beyond_the_range_of_squares_are_exact_and_nan_wins_over_inf(monkeypatch, fused):
    run = Run("question", device=DEVICE, precision="float64", **SMALL)
    weights = torch.full_like(run.parameters, 1e200)
    gradient, update = torch.full_like(weights, 1e-200), torch.zeros_like(weights)
    gradient[0], gradient[1] = math.inf, math.nan
    gradient[-1] = -math.inf
    joined, _ = fused.FlatGauges(run.layout, weights, 2048).measure(weights, weights, gradient, update, None)
    found = dict(zip(fused.MEASURES, joined, strict=True))
    sizes = torch.tensor(run.layout.layer_sizes, dtype=torch.float64, device=DEVICE)
    torch.testing.assert_close(found["weight_norm"], 1e200 * sizes.sqrt(), rtol=1e-12, atol=0)
    assert math.isnan(found["gradient_norm"][0])
    assert math.isinf(found["gradient_norm"][-1])
    torch.testing.assert_close(found["gradient_norm"][1:-1], 1e-200 * sizes[1:-1].sqrt(), rtol=1e-12, atol=0)
    assert (found["update_ratio"] == 0).all()


def test_without_a_compiler_the_plain_gauges_measure_and_one_sentence_says_so(monkeypatch, fused):
    from cnnlab.training import gauges

    def fail(*_given):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(fused, "FusedGauges", fail)
    run = Run("question", device="cpu", **SMALL)

    class OnCuda:
        device = torch.device("cuda")

    monkeypatch.setattr(gauges, "Gauges", lambda *_given: "plain")
    with pytest.warns(
        RuntimeWarning, match="the gauges take more time, as Triton cannot compile theirs: Failed to find"
    ):
        assert gauges.make_gauges(run.network, run.layout, OnCuda(), run.watched) == "plain"
