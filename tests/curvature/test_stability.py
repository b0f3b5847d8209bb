"""The bounds of the optimisers are where torch's own begin to diverge on quadratics, within 1 %."""

import math

import pytest
import torch
from torch import nn

import cnnlab
from cnnlab.config.stability import describe_bound, find_bound, find_critical_rate, find_largest_stable

HESSIAN = torch.tensor([[5.0, 2.0, 0.5], [2.0, 3.0, -1.0], [0.5, -1.0, 1.0]], dtype=torch.float64)
"""Whose eigenvectors are no axes."""
SPARED = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
"""Two weights that a decay acts on, and a bias that it spares."""
FROZEN = torch.tensor([0.04, 4.0, 1.0], dtype=torch.float64)
"""Mean squares of gradients, held."""


class Quadratic(nn.Module):
    """Half of w'Hw, decayed in two groups: `weight` and the last number apart."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor([0.5], dtype=torch.float64))

    def forward(self):
        w = torch.cat([self.weight, self.bias])
        return w @ HESSIAN @ w / 2

    @property
    def length(self):
        return math.hypot(self.weight.norm().item(), self.bias.norm().item())


def make_optimizer(kind, model, rate, decay=0.0, **options):
    """An optimiser of torch with the weight decayed and the bias spared."""
    groups = [{"params": [model.weight], "weight_decay": decay}, {"params": [model.bias], "weight_decay": 0.0}]
    return kind(groups, lr=rate, **options)


def freeze(model, optimizer):
    """Have the mean squares of gradients be FROZEN after the next step has added its own."""
    for place, group in enumerate(optimizer.param_groups):
        keep = group["alpha"] if "alpha" in group else group["betas"][1]
        for each in group["params"]:
            state = optimizer.state[each]
            coupled = 0 if group.get("decoupled_weight_decay") else group["weight_decay"]
            gradient = each.grad + coupled * each.detach()
            held = FROZEN[2 * place : 2 + place]
            state["square_avg" if "alpha" in group else "exp_avg_sq"] = (held - (1 - keep) * gradient**2) / keep
            state["step"] = torch.tensor(1e6)


def begin(model, optimizer):
    """Have an optimiser make its state, all 0, and leave the weights."""
    with torch.no_grad():
        for each in model.parameters():
            each.zero_()
            each.grad = torch.zeros_like(each)
    optimizer.step()
    model.load_state_dict(Quadratic().state_dict())


def descend(kind, rate, updates, decay=0.0, hold=None, **options):
    """A quadratic and its optimiser after so many updates, `hold` being called before each step."""
    model = Quadratic()
    optimizer = make_optimizer(kind, model, rate, decay, **options)
    if hold:
        begin(model, optimizer)
    for _ in range(updates):
        if model.length > 1e4:  # where the mean squares could not be held in float64
            break
        optimizer.zero_grad()
        model().backward()
        if hold:
            hold(model, optimizer)
        optimizer.step()
    return model, optimizer


PLAIN = [
    ("sgd", torch.optim.SGD, {}, {}),
    ("sgd", torch.optim.SGD, {"momentum": 0.9}, {"momentum": 0.9}),
    ("sgd", torch.optim.SGD, {"momentum": 0.6, "dampening": 0.5}, {"momentum": 0.6, "dampening": 0.5}),
    ("nesterov", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9}),
    ("nesterov", torch.optim.SGD, {"momentum": 0.4, "nesterov": True}, {"momentum": 0.4}),
]


@pytest.mark.parametrize("decay", [0.0, 1.5])
@pytest.mark.parametrize(("name", "kind", "options", "numbers"), PLAIN)
def test_gradient_descent_with_any_momentum_diverges_just_above_the_bound_and_not_just_below(
    name, kind, options, numbers, decay
):
    matrix = HESSIAN + decay * torch.diag(SPARED)
    critical = find_critical_rate(name, torch.linalg.eigvalsh(matrix)[-1].item(), **numbers)
    below, above = (descend(kind, share * critical, 800, decay, **options)[0].length for share in (0.99, 1.01))
    assert below < 1
    assert above > 100


ADAPTIVE = [
    ("rmsprop", torch.optim.RMSprop, {"alpha": 0.9}, 0.0),
    ("rmsprop", torch.optim.RMSprop, {"alpha": 0.9, "momentum": 0.8}, 0.8),
    ("adam", torch.optim.Adam, {"betas": (0.9, 0.99)}, 0.9),
    ("adam", torch.optim.Adam, {"betas": (0.5, 0.99)}, 0.5),
    ("adamw", torch.optim.AdamW, {"betas": (0.9, 0.99)}, 0.9),
]


def find_frozen_eigenvalue(name, momentum, decay):
    """The largest eigenvalue of the dense matrix that a step with frozen averages meets."""
    root = torch.diag((FROZEN.sqrt() + 1e-8).rsqrt())
    decays = decay * torch.diag(SPARED)
    if name == "adamw":
        return torch.linalg.eigvalsh(root @ HESSIAN @ root + find_bound(name, momentum) / 2 * decays)[-1].item()
    return torch.linalg.eigvalsh(root @ (HESSIAN + decays) @ root)[-1].item()


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize(("name", "kind", "options", "momentum"), ADAPTIVE)
def test_with_averages_frozen_an_adaptive_optimiser_diverges_just_above_the_bound_and_not_just_below(
    name, kind, options, momentum, decay
):
    critical = find_bound(name, momentum) / find_frozen_eigenvalue(name, momentum, decay)
    below, above = (
        descend(kind, share * critical, 700, decay, hold=freeze, **options)[0].length for share in (0.99, 1.01)
    )
    assert below < 1
    assert above > 20


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize(("name", "kind", "options", "momentum"), ADAPTIVE)
def test_a_loop_s_limit_is_that_of_the_dense_preconditioned_matrix(name, kind, options, momentum, decay):
    model, optimizer = descend(kind, 1e-3, 3, decay, hold=freeze, **options)
    found = cnnlab.critical_learning_rate(model, model, optimizer, tolerance=1e-9)
    assert found.eigenvalue == pytest.approx(find_frozen_eigenvalue(name, momentum, decay), rel=1e-6)
    assert found.value == pytest.approx(find_bound(name, momentum) / found.eigenvalue)
    assert found.optimizer == name


@pytest.mark.parametrize(
    ("kind", "rate", "options"),
    [
        (torch.optim.RMSprop, 0.01, {"alpha": 0.98}),
        (torch.optim.Adam, 0.02, {"betas": (0.9, 0.98)}),
        (torch.optim.AdamW, 0.02, {"betas": (0.9, 0.98)}),
    ],
)
def test_with_live_averages_the_preconditioned_eigenvalue_settles_at_the_bound(kind, rate, options):
    ratios = []
    model, optimizer = descend(kind, rate, 1500, 0.1, **options)
    for update in range(300):
        optimizer.zero_grad()
        model().backward()
        optimizer.step()
        if update % 10 == 0:
            ratios.append(cnnlab.critical_learning_rate(model, model, optimizer).ratio)
    assert ratios == pytest.approx([1] * len(ratios), rel=0.1)


def test_the_bounds_are_those_that_are_printed():
    assert find_bound("sgd") == 2
    assert find_bound("adam", 0.9) == pytest.approx(38)
    assert find_largest_stable("adamw", 1e-3, 0.9, decay=0.1) == pytest.approx(38 / 1e-3 - 19 * 0.1)
    assert describe_bound("adam", 0.9) == "2(1 + 0.9)/((1 - 0.9) eigenvalue)"
    assert describe_bound("nesterov", 0.9) == "2(1 + 0.9)/((1 + 2·0.9) eigenvalue)"
    assert describe_bound("rmsprop") == "2/eigenvalue"


@pytest.mark.parametrize("name", ["sgd", "nesterov", "rmsprop", "adam", "adamw"])
def test_the_critical_rate_and_the_largest_stable_eigenvalue_are_each_other_s_inverse(name):
    rate = find_critical_rate(name, 7.0, 0.3, decay=0.2)
    assert find_largest_stable(name, rate, 0.3, decay=0.2) == pytest.approx(7)


@pytest.mark.parametrize(("eigenvalue", "rate"), [(-3.0, math.inf), (0.0, math.inf)])
def test_what_curves_upwards_nowhere_has_no_critical_rate(eigenvalue, rate):
    assert find_critical_rate("adam", eigenvalue, 0.9) == rate


@pytest.mark.parametrize("eigenvalue", [math.nan, math.inf])
def test_an_eigenvalue_that_is_not_finite_gives_none(eigenvalue):
    assert math.isnan(find_critical_rate("sgd", eigenvalue))
