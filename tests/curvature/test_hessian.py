"""The largest eigenvalue of the Hessian is that of the dense one, and of the closed forms; the run stays as it was."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from once import Once
from torch import nn

import cnnlab
from cnnlab.curvature import hessian
from cnnlab.curvature.hessian import build_hessian_product
from cnnlab.curvature.lanczos import KEPT_BYTES, TOLERANCE, largest
from cnnlab.curvature.learning_rate import critical_learning_rate, search
from cnnlab.training.run import Run

SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 13, "patches": 8, "device": "cpu"}


def small_network(activation: type[nn.Module], seed: int = 0) -> nn.Module:
    """Two hidden layers of five units, from weights large enough to curve both ways."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, 5), activation(), nn.Linear(5, 5), activation(), nn.Linear(5, 3))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    return network


def own(activation: type[nn.Module] = nn.Tanh, seed: int = 0, **changes: object) -> Run:
    """A run of such a network on chance data."""
    torch.manual_seed(100 + seed)
    x, y = torch.randn(20, 4), torch.randint(3, (20,))
    cost = nn.functional.cross_entropy
    return Run(network=small_network(activation, seed), data=(x, y), cost=cost, device="cpu", **changes)


def dense(run: Run) -> torch.Tensor:
    """The eigenvalues of the whole Hessian, by torch.autograd.functional, in rising order."""
    knobs, (x, y) = run.knobs_in_force, run.problem.data

    def cost(flat: torch.Tensor) -> torch.Tensor:
        outputs = torch.func.functional_call(run.problem.network, run.layout.views(flat), (x.double(),))
        weights = flat[run.layout.is_weight(flat.device)]
        penalised = knobs.penalty_in == "cost"
        return nn.functional.cross_entropy(outputs, y) + penalised * knobs.l2 / 2 * weights.square().sum()

    hessian = torch.autograd.functional.hessian(cost, run.parameters.double())
    return torch.linalg.eigvalsh(hessian)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("l2", [0.0, 0.5])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_the_eigenvalue_is_the_largest_of_the_dense_hessian(activation, l2, seed):
    run = own(activation, seed, l2=l2)
    assert critical_learning_rate(run).eigenvalue == pytest.approx(dense(run)[-1].item(), rel=0.01)


def test_the_largest_is_found_where_a_negative_one_is_larger_in_magnitude():
    torch.manual_seed(0)
    # y = a * b with a far target of the other sign: the cost's Hessian at small a and b is nearly [[0, -t], [-t, 0]].
    product = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        product[0].weight.fill_(0.3)
        product[1].weight.fill_(-0.2)
    target = torch.tensor([[3.0]])
    run = Run(
        network=product,
        data=(torch.ones(1, 1), target),
        cost=lambda z, y: -(z * y).sum() - 2 * z.square().sum(),
        device="cpu",
    )

    def cost(flat):
        z = flat[0] * flat[1]
        return -(z * 3.0) - 2 * z.square()

    values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(cost, run.parameters))
    assert -values[0] > values[-1] > 0
    found = critical_learning_rate(run)
    assert found.eigenvalue == pytest.approx(values[-1].item(), rel=0.01)
    assert found.value == pytest.approx(2 / values[-1].item(), rel=0.01)


def symmetric(size, seed):
    """A random matrix, with eigenvalues of both signs or below 0 alone."""
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return matrix + matrix.T - 3 * torch.eye(size, dtype=torch.float64) * (seed % 3)


def found_in(matrix):
    """What the search finds in a matrix: value, vector, whether it has converged."""
    *_, last = largest(lambda v: matrix @ v, torch.zeros(len(matrix)).double(), None, TOLERANCE, 200)
    return last


@given(st.integers(2, 40), st.integers(0, 10**6))
def test_what_is_found_in_any_symmetric_matrix_is_an_eigenvalue_of_it_with_its_vector(size, seed):
    matrix = symmetric(size, seed)
    truth = torch.linalg.eigvalsh(matrix)
    value, vector, converged = found_in(matrix)
    rounding = 1e-5 * truth.abs().max().item()
    assert converged
    assert (truth - value).abs().min() <= 1e-3 * abs(value) + rounding
    assert torch.linalg.vector_norm(matrix @ vector - value * vector) <= 1e-3 * abs(value) + rounding


def test_it_is_the_largest_one_but_for_one_matrix_in_a_thousand():
    misses = 0
    for size in range(2, 41):
        for seed in range(26):
            matrix = symmetric(size, seed)
            truth = torch.linalg.eigvalsh(matrix)
            wanted = pytest.approx(truth[-1].item(), rel=0.01, abs=1e-5 * truth.abs().max().item())
            misses += found_in(matrix)[0] != wanted
    assert misses <= 1


def test_linear_regression_has_the_critical_rate_of_the_closed_form():
    x = torch.stack([torch.arange(100.0), torch.ones(100)], dim=1)
    run = Run(
        network=nn.Linear(2, 1, bias=False),
        data=(x, torch.zeros(100, 1)),
        cost=lambda outputs, y: (outputs - y).square().sum() / (2 * len(y)),
        device="cpu",
    )
    found = critical_learning_rate(run)
    assert found.eigenvalue == pytest.approx(3284.25, rel=1e-4)
    assert found.value == pytest.approx(6.0897e-4, rel=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("penalty_in", ["cost", "update"])
@pytest.mark.parametrize(("share", "diverges"), [(0.97, False), (1.03, True)])
def test_gradient_descent_on_a_quadratic_converges_below_the_critical_rate_and_diverges_above(
    momentum, penalty_in, share, diverges
):
    torch.manual_seed(1)
    x = torch.randn(30, 3).double() * torch.tensor([3.0, 1.0, 0.3]).double()
    arguments = {
        "network": nn.Linear(3, 1, bias=False).double(),
        "data": (x, torch.zeros(30, 1).double()),
        "cost": lambda outputs, y: (outputs - y).square().mean(),
        "device": "cpu",
        "momentum": momentum,
        "l2": 2.0,
        "penalty_in": penalty_in,
    }
    critical = critical_learning_rate(Run(**arguments)).value
    run = Run(learning_rate=share * critical, **arguments)
    run.advance(400)
    assert (run.record.cost[-1] > run.record.cost[0]) == diverges


def test_the_question_s_network_diverges_a_hundred_times_above_and_not_below():
    critical = critical_learning_rate(Run("question", device="cpu")).value
    assert 1e-5 < critical < 1e-3
    assert Run("question", device="cpu", learning_rate=100 * critical).advance(20, until="nonfinite").nonfinite
    assert not Run("question", device="cpu", learning_rate=critical / 2).advance(20, until="nonfinite").nonfinite


def test_the_scale_of_the_input_moves_the_threshold():
    raw, unit = (critical_learning_rate(Run("question", input_scaling=kind)).value for kind in ("raw", "unit"))
    assert unit > 100 * raw


def test_a_warm_start_gives_the_same_answer_in_no_more_products():
    run = Run("question", learning_rate=1e-5, seed=2, device="cpu")
    first = critical_learning_rate(run)
    run.advance(1)
    cold, warm = critical_learning_rate(run), critical_learning_rate(run, start=first.vector)
    assert warm.eigenvalue == pytest.approx(cold.eigenvalue, rel=0.01)
    assert warm.iterations <= cold.iterations


def test_a_start_that_is_another_eigenvector_does_not_hide_the_largest():
    matrix = torch.diag(torch.tensor([1.0, 2.0, 3.0, 9.0, -20.0]))
    *_, (value, _, _) = largest(lambda v: matrix @ v, torch.zeros(5), torch.eye(5)[2], 0.01, 50)
    assert value == pytest.approx(9, rel=0.01)


def test_a_start_that_is_not_finite_or_of_another_length_is_left_out():
    run = own()
    plain = critical_learning_rate(run)
    for start in (torch.full_like(run.parameters, math.nan), torch.ones(3)):
        assert critical_learning_rate(run, start=start).eigenvalue == plain.eigenvalue


def test_a_search_out_of_room_starts_again_from_its_best_vector(monkeypatch):
    values = torch.cat([torch.linspace(-1, 1, 300), torch.tensor([1.1])])
    monkeypatch.setattr("cnnlab.curvature.lanczos.KEPT_BYTES", KEPT_BYTES * 0)
    *steps, (value, _, converged) = largest(lambda v: values * v, torch.zeros(301), None, 1e-3, 300)
    assert converged
    assert value == pytest.approx(1.1, rel=0.01)
    assert len(steps) > 9


def test_too_few_products_are_said_to_give_a_lower_bound():
    run = Run("question", seed=1, device="cpu")
    run.advance(1)
    early = critical_learning_rate(run, most=1)
    assert not early.converged
    assert early.iterations == 1
    assert early.eigenvalue < critical_learning_rate(run).eigenvalue
    assert "at least" in str(early)


def test_a_cost_that_curves_upwards_nowhere_has_no_critical_rate():
    run = Run(
        network=nn.Linear(2, 1),
        data=(torch.randn(5, 2), torch.zeros(5, 1)),
        cost=lambda outputs, y: -(outputs - y).square().mean(),
        device="cpu",
    )
    found = critical_learning_rate(run)
    assert math.isinf(found.value)
    assert "upwards nowhere" in str(found)


def test_a_cost_without_any_curvature_has_no_critical_rate():
    run = Run(
        network=nn.Linear(2, 1), data=(torch.randn(5, 2), torch.zeros(5, 1)), cost=lambda z, y: z.sum(), device="cpu"
    )
    assert critical_learning_rate(run).eigenvalue == 0
    assert math.isinf(critical_learning_rate(run).value)


def test_a_hessian_that_is_not_finite_is_said_to_be_so():
    run = Run("question", device="cpu")
    run.advance(8)
    found = critical_learning_rate(run)
    assert not found.finite
    assert math.isnan(found.value)
    assert str(found).startswith("the Hessian is not finite after update 8")


def test_a_layer_without_a_second_derivative_gets_one_clear_sentence():
    class Layer(nn.Linear):
        def forward(self, x):
            return Once.apply(super().forward(x))

    cost = nn.functional.cross_entropy
    data = (torch.randn(6, 3), torch.randint(2, (6,)))
    run = Run(network=Layer(3, 2), data=data, cost=cost, device="cpu")
    run.advance(2)
    with pytest.raises(ValueError, match="needs second derivatives, and a layer or the cost has none"):
        critical_learning_rate(run)


def test_another_error_of_the_network_is_passed_on():
    class Broken(nn.Linear):
        broken = False

        def forward(self, x):
            if Broken.broken:
                raise RuntimeError("no power")
            return super().forward(x)

    data = (torch.randn(6, 3), torch.randint(2, (6,)))
    run = Run(network=Broken(3, 2), data=data, cost=nn.functional.cross_entropy, device="cpu")
    Broken.broken = True
    with pytest.raises(RuntimeError, match="no power"):
        critical_learning_rate(run)


def test_measuring_changes_nothing_of_the_run():
    plain, measured = (Run("question", learning_rate=1e-3, **SMALL) for _ in range(2))
    for _ in range(4):
        critical_learning_rate(measured)
        plain.step()
        measured.step()
    assert measured.record.table.tobytes() == plain.record.table.tobytes()


def test_batch_norm_keeps_its_running_means():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    data = (torch.randn(10, 3), torch.randint(2, (10,)))
    run = Run(network=network, data=data, cost=nn.functional.cross_entropy, device="cpu")
    run.advance(2)
    before = {name: buffer.clone() for name, buffer in run.state.buffers.items()}
    assert critical_learning_rate(run).value > 0
    assert all(torch.equal(before[name], buffer) for name, buffer in run.state.buffers.items())


def test_momentum_allows_up_to_twice_the_rate():
    plain, heavy = (critical_learning_rate(Run("question", momentum=beta, **SMALL)) for beta in (0, 0.9))
    assert heavy.value == pytest.approx(1.9 * plain.value)
    assert "2(1 + 0.9)/eigenvalue" in str(heavy)


def test_a_mini_batch_run_says_what_the_cost_is_over():
    run = Run("question", batch_size=3, **SMALL)
    full, batch = critical_learning_rate(run), critical_learning_rate(run, of="batch")
    assert "over all 8 examples; an update takes 3" in str(full)
    assert "over the next batch of 3 examples" in str(batch)
    assert batch.eigenvalue != full.eigenvalue
    product, like = build_hessian_product(run, *run.problem.batch(1))
    assert torch.allclose(product(batch.vector), batch.eigenvalue * batch.vector, atol=0.02 * batch.eigenvalue)
    assert like.shape == run.parameters.shape


def test_the_mean_of_batches_is_the_whole():
    run = Run("question", batch_size=4, **SMALL)
    v = torch.randn_like(run.parameters)
    whole = build_hessian_product(run, *run.problem.data)[0](v)
    halves = [build_hessian_product(run, *run.problem.batch(update))[0](v) for update in (1, 2)]
    assert torch.allclose(whole, (halves[0] + halves[1]) / 2, rtol=1e-3, atol=1e-3 * whole.abs().max().item())


def test_many_examples_go_in_pieces_whose_mean_is_the_whole(monkeypatch):
    run = Run("question", l2=0.1, precision="float64", **{**SMALL, "patches": 10})
    v = torch.randn_like(run.parameters)
    whole = build_hessian_product(run, *run.problem.data)[0](v)
    monkeypatch.setattr(hessian, "PIECE", 4)
    assert [len(x) for x, _ in hessian.list_pieces(run, *run.problem.data)] == [4, 4, 2]
    pieces = build_hessian_product(run, *run.problem.data)[0](v)
    assert not torch.equal(whole, pieces), "rounding tells that they were taken one by one"
    assert torch.allclose(whole, pieces, rtol=1e-10, atol=1e-12 * whole.abs().max().item())


@pytest.mark.parametrize("changes", [{"normalization": "batch"}, {"dropout": 0.5}])
def test_a_cost_that_is_no_mean_over_examples_is_taken_whole(monkeypatch, changes):
    monkeypatch.setattr(hessian, "PIECE", 4)
    run = Run("question", **SMALL, **changes)
    assert [len(x) for x, _ in hessian.list_pieces(run, *run.problem.data)] == [8]


def test_half_precision_is_measured_in_float32():
    half, single = (critical_learning_rate(Run("question", precision=kind, **SMALL)) for kind in ("float16", "float32"))
    assert half.eigenvalue == pytest.approx(single.eigenvalue, rel=0.05)
    assert half.vector.dtype == torch.float32


def test_a_search_in_pieces_answers_for_the_weights_at_which_it_began():
    run = Run("question", learning_rate=1e-4, **SMALL)
    expected = critical_learning_rate(run).eigenvalue
    pieces = search(run)
    assert next(pieces) is None
    run.advance(3)
    *_, found = pieces
    assert found.eigenvalue == expected
    assert found.step == 0


def test_a_search_has_the_same_bits_on_any_number_of_threads_and_leaves_that_number():
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            run = Run("question", learning_rate=1e-3)
            run.advance(2)
            found.append(critical_learning_rate(run))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0].eigenvalue == found[1].eigenvalue
    assert found[0].vector.equal(found[1].vector)


@pytest.mark.parametrize(
    ("wrong", "said"), [({"of": "half"}, "of must be one of 'all', 'batch', got 'half'"), ({"most": 0}, "most must be")]
)
def test_wrong_arguments_are_refused_in_a_sentence(wrong, said):
    with pytest.raises(ValueError, match=said):
        critical_learning_rate(own(), **wrong)


def test_it_is_a_public_name_with_a_short_repr():
    found = cnnlab.critical_learning_rate(own())
    assert repr(found).startswith("Critical(critical learning rate ")
    assert "\n" not in repr(found)
