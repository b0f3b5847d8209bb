"""How far a loop's learning rate is from the edge: right beside the dense matrix, and the loop stays as it was."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from loops import mlp, update
from once import Once
from torch import nn

import cnnlab
from cnnlab.config.stability import find_bound
from cnnlab.curvature.critical import Critical

X = torch.randn(20, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
Y = torch.arange(20) % 3


def small():
    """Two hidden layers in float64."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def cost_of(model):
    """The cost of one batch."""
    return nn.functional.cross_entropy(model(X), Y)


def train(model, optimizer, updates):
    """Some updates of a loop."""
    for _ in range(updates):
        optimizer.zero_grad()
        cost_of(model).backward()
        optimizer.step()


def find_hessian(model, climbs=False):
    """The dense Hessian in the order of the parameters."""
    shapes = [(name, each.shape, each.numel()) for name, each in model.named_parameters()]

    def cost(flat):
        parts = flat.split([size for *_, size in shapes])
        tensors = {name: part.view(shape) for (name, shape, _), part in zip(shapes, parts, strict=True)}
        found = nn.functional.cross_entropy(torch.func.functional_call(model, tensors, (X,)), Y)
        return -found if climbs else found

    return torch.autograd.functional.hessian(cost, nn.utils.parameters_to_vector(model.parameters()).detach())


def try_step(model, optimizer, gradients):
    """The weights after torch's own step from copies of both, with these gradients and no decay."""
    model, optimizer = copy.deepcopy((model, optimizer))
    for each, gradient in zip(model.parameters(), gradients, strict=True):
        each.grad = gradient.clone()
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    optimizer.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def find_scale(model, optimizer, momentum):
    """What torch's own next step multiplies a gradient by beside its rate, with the squares of gradients as they are.

    A gradient and its opposite of the size of that root leave the level of the squares; the steps differ by twice it.
    """
    kept = [optimizer.state.get(each) for each in model.parameters()]
    sizes = [gradient.abs() for gradient in torch.autograd.grad(cost_of(model), list(model.parameters()))]
    if kept[0]:
        keep = optimizer.param_groups[0].get("alpha") or optimizer.param_groups[0]["betas"][1]
        name = "square_avg" if "square_avg" in kept[0] else "exp_avg_sq"
        sizes = [(state[name] / (1 - keep ** float(state["step"]))).sqrt() for state in kept]
    one, other = (try_step(model, optimizer, [sign * each for each in sizes]) for sign in (1, -1))
    share = 1 if "alpha" in optimizer.param_groups[0] else 1 - momentum
    rate = optimizer.param_groups[0]["lr"]
    return (other - one) / (2 * share * rate * torch.cat([each.reshape(-1) for each in sizes]))


ADAPTIVE = [
    ("rmsprop", torch.optim.RMSprop, {}, 0.0),
    ("rmsprop", torch.optim.RMSprop, {"momentum": 0.7, "eps": 1e-3}, 0.7),
    ("adam", torch.optim.Adam, {}, 0.9),
    ("adam", torch.optim.Adam, {"betas": (0.5, 0.9), "eps": 1e-4}, 0.5),
    ("adamw", torch.optim.AdamW, {}, 0.9),
]


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("updates", [0, 1, 7])
@pytest.mark.parametrize(("name", "kind", "options", "momentum"), ADAPTIVE)
def test_the_limit_is_that_of_the_dense_matrix_with_what_torch_s_own_next_step_divides_by(
    name, kind, options, momentum, updates, decay
):
    model = small()
    optimizer = kind(model.parameters(), lr=1e-3, weight_decay=decay, **options)
    train(model, optimizer, updates)
    found = cnnlab.critical_learning_rate(model, lambda: cost_of(model), optimizer, tolerance=1e-9)
    root = find_scale(model, optimizer, momentum).sqrt()
    hessian, unit = find_hessian(model), torch.eye(len(root), dtype=torch.float64)
    coupled, apart = (0.0, decay) if name == "adamw" else (decay, 0.0)
    matrix = root[:, None] * (hessian + coupled * unit) * root + find_bound(name, momentum) / 2 * apart * unit
    assert found.eigenvalue == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-6)
    assert found.ratio == pytest.approx(1e-3 * found.eigenvalue / find_bound(name, momentum))


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_gradient_descent_and_its_climbing_twin_meet_the_hessian_itself(options, maximize):
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.02, maximize=maximize, **options)
    train(model, optimizer, 3)
    found = cnnlab.critical_learning_rate(model, lambda: cost_of(model), optimizer, tolerance=1e-9)
    wanted = torch.linalg.eigvalsh(find_hessian(model, maximize))[-1].item() + 0.02
    assert found.eigenvalue == pytest.approx(wanted, rel=1e-6)
    assert found.optimizer == ("nesterov" if "nesterov" in options else "sgd")


def test_groups_with_rates_of_their_own_have_one_limit_for_all():
    model = small()
    groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": [*model[2].parameters(), model[4].weight]}]
    optimizer = torch.optim.SGD(groups, lr=0.1)  # the last bias stays as it is
    found = cnnlab.critical_learning_rate(model, lambda: cost_of(model), optimizer, tolerance=1e-9)
    shares = torch.cat([torch.full((25,), 0.1), torch.ones(45), torch.zeros(3)]).double().sqrt()
    wanted = torch.linalg.eigvalsh(shares[:, None] * find_hessian(model) * shares)[-1].item()
    assert found.eigenvalue == pytest.approx(wanted, rel=1e-6)
    assert found.learning_rate == 0.1
    assert "your highest, 0.1, is" in str(found)


def test_a_centred_rmsprop_and_amsgrad_divide_by_their_own_averages():
    model = small()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, centered=True, alpha=0.9)
    train(model, optimizer, 400)
    centred = cnnlab.critical_learning_rate(model, lambda: cost_of(model), optimizer).eigenvalue
    optimizer.param_groups[0]["centered"] = False
    assert centred > cnnlab.critical_learning_rate(model, lambda: cost_of(model), optimizer).eigenvalue
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, amsgrad=True)
    train(model, optimizer, 3)
    before = cnnlab.critical_learning_rate(model, lambda: cost_of(model), optimizer).eigenvalue
    for state in optimizer.state.values():
        state["exp_avg_sq"].zero_()
    assert cnnlab.critical_learning_rate(model, lambda: cost_of(model), optimizer).eigenvalue == before


def test_the_sentence_says_how_far_the_rate_is_from_the_edge():
    model = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    train(model, optimizer, 5)
    found = cnnlab.critical_learning_rate(model, lambda: cost_of(model), optimizer)
    assert isinstance(found, Critical)
    assert str(found) == (
        f"critical learning rate {found.value:.4g} = 2(1 + 0.9)/((1 - 0.9) eigenvalue), eigenvalue "
        f"{found.eigenvalue:.5g} of the preconditioned Hessian of the cost of this batch; "
        f"yours, 0.02, is {found.ratio:.2g} times that"
    )


def test_measuring_changes_nothing_of_model_optimizer_or_chance():
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)).double()

    costs = {}
    for measured in (False, True):
        model = build()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        seen = []

        def closure(model=model):
            model.eval()
            model.train()
            model[2].eval()
            random.random()
            np.random.rand()  # noqa: NPY002
            return cost_of(model)

        for _ in range(4):
            optimizer.zero_grad()
            cost = cost_of(model)
            if measured:  # between forward and backward: the graph of the loop is still whole
                cnnlab.critical_learning_rate(model, closure, optimizer)
            cost.backward()
            if measured:
                cnnlab.critical_learning_rate(model, closure, optimizer)
            optimizer.step()
            seen.append(cost.item())
        costs[measured] = seen, random.random(), np.random.rand(), model[1].running_var.tolist()  # noqa: NPY002
        assert model[2].training
    assert costs[True] == costs[False]


def test_a_watch_takes_no_note_of_what_is_measured_within_it():
    tables = []
    for measured in (False, True):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with cnnlab.watch(model, optimizer, show=False) as watch:
            for _ in range(3):
                update(model, optimizer)
                if measured:
                    inputs = torch.ones(4, 6)
                    cnnlab.critical_learning_rate(
                        model, lambda model=model, x=inputs: model(x).square().mean(), optimizer
                    )
        tables.append(watch.record.table.tobytes())
    assert tables[0] == tables[1]


def test_weights_that_overflow_are_data_and_are_said():
    model = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with torch.no_grad():
        model[0].weight.fill_(math.nan)
    found = cnnlab.critical_learning_rate(model, lambda: cost_of(model), optimizer)
    assert not found.finite
    assert (
        str(found) == "the preconditioned Hessian of this batch's cost is not finite: no learning rate is safe any more"
    )


def test_a_rate_of_zero_is_zero_times_the_critical_one():
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    found = cnnlab.critical_learning_rate(model, lambda: cost_of(model), optimizer)
    assert found.ratio == 0
    assert 0 < found.value < math.inf


class Unlike(torch.optim.Adam):
    """An optimiser of the user's own."""


def change_momenta(model):
    """Two groups with momenta of their own."""
    groups = [{"params": model[0].parameters(), "momentum": 0.5}, {"params": model[2].parameters()}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda m: torch.optim.NAdam(m.parameters()), TypeError, "must be one of torch.optim's SGD, RMSprop, Adam, "),
        (lambda m: Unlike(m.parameters()), TypeError, "got Unlike"),
        (lambda m: None, TypeError, "got NoneType"),
        (change_momenta, ValueError, "momentum must be the same in all groups of the optimizer, got 0.5 and 0.9"),
        (lambda m: torch.optim.SGD(nn.Linear(2, 2).parameters()), ValueError, "must hold parameters of the model"),
        (
            lambda m: torch.optim.SGD(m.parameters(), momentum=0.9, dampening=1.0),
            ValueError,
            "dampening must lie below 1 for a critical learning rate, got 1",
        ),
    ],
)
def test_an_optimizer_without_one_limit_is_refused_in_a_sentence(make, kind, said):
    model = small()
    with pytest.raises(kind, match=said):
        cnnlab.critical_learning_rate(model, lambda: cost_of(model), make(model))


def send_backward(model):
    """A closure as L-BFGS wants it."""
    cost = cost_of(model)
    cost.backward()
    return cost


@pytest.mark.parametrize(
    ("closure", "kind", "said"),
    [
        (None, TypeError, "closure must be a function that returns the cost of a batch, got NoneType"),
        (lambda model: 3.0, TypeError, "closure must return the cost as a tensor, got float"),
        (lambda model: model(X), ValueError, "closure must return one number"),
        (lambda model: cost_of(model).detach(), ValueError, "with its graph, got a number without a gradient"),
        (send_backward, ValueError, "with its graph, got one that went backward"),
        (lambda model: model[2](Once.apply(model[0](X))).square().sum(), ValueError, "needs second derivatives"),
    ],
)
def test_a_closure_that_gives_no_cost_is_refused_in_a_sentence_and_leaves_the_gradients(closure, kind, said):
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer, 1)
    kept = [each.grad.clone() for each in model.parameters()]
    with pytest.raises(kind, match=said):
        cnnlab.critical_learning_rate(model, closure and (lambda: closure(model)), optimizer)
    assert all(torch.equal(each.grad, before) for each, before in zip(model.parameters(), kept, strict=True))


def test_the_model_must_be_a_module():
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got int"):
        cnnlab.critical_learning_rate(3, lambda: None, torch.optim.SGD(small().parameters()))


def measure_trained(kind, precision, **options):
    """What is said of a small model of some precision after three updates."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3)).to(precision)
    optimizer, x = kind(model.parameters(), lr=1e-3, **options), X.to(precision)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), Y).backward()
        optimizer.step()
    return cnnlab.critical_learning_rate(model, lambda: nn.functional.cross_entropy(model(x), Y), optimizer)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_a_model_of_half_precision_is_measured_in_its_own(precision):
    wanted = measure_trained(torch.optim.SGD, torch.float32).eigenvalue
    assert measure_trained(torch.optim.SGD, precision).eigenvalue == pytest.approx(wanted, rel=0.05)
    assert measure_trained(torch.optim.Adam, precision, eps=1e-4).finite


def test_a_sparse_gradient_and_complex_numbers_are_refused_in_a_sentence():
    places = torch.arange(20) % 7
    words = nn.Sequential(nn.Embedding(7, 4, sparse=True), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(words.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="gradients must be dense for a critical learning rate"):
        cnnlab.critical_learning_rate(words, lambda: nn.functional.cross_entropy(words(places), Y), optimizer)
    waves = nn.Linear(4, 3, dtype=torch.complex64)
    optimizer = torch.optim.SGD(waves.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="parameters must be real for a critical learning rate"):
        cnnlab.critical_learning_rate(waves, lambda: waves(X.to(torch.complex64)).abs().mean(), optimizer)


def test_adam_whose_eps_is_0_in_the_type_of_the_weights_has_lost_them_and_that_is_said():
    assert not measure_trained(torch.optim.Adam, torch.float16).finite  # 1e-8 is below float16's least


def test_attention_without_second_derivatives_is_told_what_has_them():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(4, 12)

        def forward(self, x):
            query, key, value = self.project(x).reshape(1, 1, len(x), 12).split(4, dim=3)
            return nn.functional.scaled_dot_product_attention(query, key, value)

    torch.manual_seed(0)
    model = Attention()
    x = torch.randn(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def cost():
        return model(x).square().mean()

    def cost_with_plain_attention():
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return cost()

    with pytest.raises(ValueError, match=r"sdpa_kernel\(torch\.nn\.attention\.SDPBackend\.MATH\)"):
        cnnlab.critical_learning_rate(model, cost, optimizer)
    assert cnnlab.critical_learning_rate(model, cost_with_plain_attention, optimizer).value > 0
