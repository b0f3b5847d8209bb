"""Networks and data of one's own: any module, any form of data, and every chance replayed."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

import cnnlab
from cnnlab import Run, load
from cnnlab.training.datasets import AT_ONCE, make_examples
from cnnlab.training.reductions import LONG, measure_norms, survey
from cnnlab.training.step import Descent

X = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 3
ce = nn.functional.cross_entropy


def run_of(network: nn.Module, data=(X, Y), cost=ce, **changes) -> Run:
    return Run(network=network, data=data, cost=cost, device="cpu", **{"learning_rate": 0.01, **changes})


def repeats(run: Run) -> bool:
    """Whether rewinding, forking and training on bring back the same bits."""
    run.advance(4)
    after, table = run.parameters.numpy().tobytes(), run.record.table.tobytes()
    twin = run.fork(1)
    twin.advance(3)
    run.rewind(2)
    run.advance(2)
    ends = [each.parameters.numpy().tobytes() for each in (run, twin)]
    return ends == [after, after] and run.record.table.tobytes() == table


class Shared(nn.Module):
    """Two inputs, a shared weight, a buffer that is put in place anew, batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.norm, self.drop = nn.BatchNorm1d(6), nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, left, right):
        self.seen = self.seen + 1
        return self.drop(self.norm(self.first(left) + self.second(right))) + self.seen


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.cells(x[:, None])[0][:, -1])


class Drawing(nn.Module):
    """A module that draws from three global generators."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x) * (random.random() + np.random.rand() + torch.rand(()))  # noqa: NPY002


def attention() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.3, batch_first=True)
    return nn.Sequential(nn.Embedding(10, 8), nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(32, 3))


TOKENS = torch.randint(0, 10, (20, 4), generator=torch.Generator().manual_seed(0))
KINDS = {
    "recurrent": (Recurrent, (X, Y)),
    "attention, embedding, layer norm": (attention, (TOKENS, Y)),
    "two inputs": (Shared, ((X, X.flip(0)), Y)),
    "inputs by name": (Shared, ({"left": X, "right": X.flip(0)}, Y)),
    "spectral and weight norm": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6)),
            nn.ReLU(),
            nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)),
        ),
        (X, Y),
    ),
    "chance of three generators": (Drawing, (X, Y)),
}


@pytest.mark.parametrize(("make", "data"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("batch_size", [None, 7])
def test_any_module_is_replayed_to_the_bit(make, data, batch_size):
    torch.manual_seed(0)
    assert repeats(run_of(make(), data, batch_size=batch_size))


def test_chance_within_a_network_leaves_the_global_generators_alone():
    run = run_of(Drawing())
    states = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()  # noqa: NPY002
    run.advance(2)
    run.rewind(1)
    assert (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()) == states  # noqa: NPY002


def test_a_buffer_that_is_put_in_place_anew_is_kept_from_update_to_update():
    run = run_of(Shared(), ((X, X), Y))
    run.advance(3)
    assert run.state.buffers["seen"] == 3
    assert run.state.buffers["norm.num_batches_tracked"] == 3


LAYERS = st.lists(
    st.sampled_from(["linear", "convolution", "relu", "tanh", "batch norm", "layer norm", "dropout", "group norm"]),
    min_size=1, max_size=6,
)  # fmt: skip


def module_of(kinds: list[str], bias: bool) -> nn.Module:
    """Layers on (examples, 4, 6), whatever their order."""
    makers = {
        "linear": lambda: nn.Linear(6, 6, bias=bias), "convolution": lambda: nn.Conv1d(4, 4, 3, padding=1, bias=bias),
        "relu": nn.ReLU, "tanh": nn.Tanh, "batch norm": lambda: nn.BatchNorm1d(4, affine=bias),
        "layer norm": lambda: nn.LayerNorm(6), "dropout": lambda: nn.Dropout(0.4),
        "group norm": lambda: nn.GroupNorm(2, 4),
    }  # fmt: skip
    return nn.Sequential(*(makers[kind]() for kind in kinds), nn.Flatten(), nn.Linear(24, 3))


@given(LAYERS, st.booleans(), st.sampled_from([None, 5, 20]), st.sampled_from(["float32", "float64"]), st.booleans())
@example(["linear", "tanh"], False, None, "float64", True)  # a gradient of 0 beside weights that are not
@settings(max_examples=25)
def test_a_random_module_steps_rewinds_and_forks_as_torch_does(kinds, bias, batch_size, precision, wild):
    torch.manual_seed(0)
    module = module_of(kinds, bias)
    x = torch.randn(20, 4, 6) * (1e20 if wild else 1)
    run = run_of(module, (x, Y), batch_size=batch_size, precision=precision, momentum=0.5)
    assert repeats(run)
    assert len(run.record.layers) == len({name.rpartition(".")[0] for name, _ in module.named_parameters()})
    assert run.record.histograms[-1].sum() == len(run.parameters)
    counted = run.record.weight_nan[-1].sum() + run.record.weight_inf[-1].sum()
    assert counted == (~run.parameters.isfinite()).sum()


def test_one_update_is_that_of_torch_with_dropout_from_the_same_seed():
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 3))
    run = run_of(module, seed=2)
    run.step()
    torch.manual_seed(2 * 1_000_003 + 1)
    optimiser = torch.optim.SGD(module.parameters(), 0.01)
    ce(module(X), Y).backward()
    optimiser.step()
    theirs = torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])
    torch.testing.assert_close(run.parameters, theirs)


# Data.


class Listed(Dataset):
    def __init__(self, x=X, y=Y) -> None:
        self.x, self.y = x, y
        self.reads = 0

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index):
        self.reads += 1
        return self.x[index], int(self.y[index])


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, 3)


@pytest.mark.parametrize(
    "data",
    [(X.numpy(), Y.numpy()), (X.tolist(), Y.tolist()), Listed(), TensorDataset(X, Y), DataLoader(Listed(), 20)],
    ids=["arrays", "lists", "dataset", "tensor dataset", "loader"],
)
def test_every_form_of_data_trains_alike(data):
    assert run_of(linear(), data).step().cost == pytest.approx(run_of(linear()).step().cost, rel=1e-6)


def test_a_dataset_is_read_once():
    data = Listed(X.repeat(30, 1), Y.repeat(30))
    assert len(data) > AT_ONCE
    run_of(linear(), data, batch_size=50).advance(20)
    assert data.reads == 600


def test_a_loaders_batches_are_its_own_when_it_does_not_shuffle():
    run = run_of(linear(), DataLoader(Listed(), batch_size=8, shuffle=False))
    assert run.settings.batch_size == 8
    assert run.updates_per_epoch == 3
    for step, batch in enumerate(DataLoader(Listed(), batch_size=8), start=1):
        assert torch.equal(run.problem.batch(step)[0], batch[0])
    assert torch.equal(run.problem.batch(4)[0], X[:8])


def test_a_loader_that_shuffles_goes_through_all_in_an_order_of_the_seed():
    first, second = (run_of(linear(), DataLoader(Listed(), 8, shuffle=True), seed=seed) for seed in (0, 1))
    seen = torch.cat([first.problem.batch(step)[0] for step in (1, 2, 3)])
    assert torch.equal(seen.sort(0)[0], X.sort(0)[0])
    assert not torch.equal(first.problem.batch(1)[0], second.problem.batch(1)[0])


def test_a_loader_that_drops_the_last_batch_has_whole_ones_only():
    run = run_of(linear(), DataLoader(Listed(), 8, drop_last=True))
    assert run.updates_per_epoch == 2
    assert [len(run.problem.batch(step)[0]) for step in (1, 2, 3)] == [8, 8, 8]


def test_a_collate_function_makes_the_examples():
    def doubled(items):
        return torch.stack([2 * x for x, _ in items]), torch.tensor([y for _, y in items])

    assert torch.equal(make_examples("data", DataLoader(Listed(), 4, collate_fn=doubled)).x, 2 * X)


class Endless(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("loader", "why"),
    [
        (DataLoader(Endless(), 2), "an IterableDataset gives each example once"),
        (DataLoader(Listed(), 2, sampler=WeightedRandomSampler([1.0] * 20, 20)), "not that of a WeightedRandomSampler"),
        (DataLoader(Listed(), batch_sampler=[[0, 1], [2]]), "the batches of a list are its own"),
    ],
)
def test_a_loader_that_cannot_be_replayed_is_refused_in_a_sentence(loader, why):
    with pytest.raises(ValueError, match=rf"^data must be a DataLoader that can be replayed, but .*{why}.*$"):
        run_of(linear(), loader)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (Endless(), ValueError, r"^data must be a Dataset with a length, got Endless$"),
        (Listed(X[:0], Y[:0]), ValueError, r"^data must hold at least 1 example, got 0$"),
        (TensorDataset(X), TypeError, r"^data must give pairs \(x, y\), got examples of type"),
        ((X, "labels"), TypeError, r"^data must hold tensors or arrays of numbers, got str$"),
        (
            ((X, X[:3]), Y),
            ValueError,
            r"^data must hold x and y of the same length of at least 1, got",
        ),
        (5, TypeError, r"^data must be a pair \(x, y\), a Dataset or a DataLoader, got int$"),
    ],
)
def test_what_is_no_data_is_refused_in_a_sentence(data, error, message):
    with pytest.raises(error, match=message):
        run_of(linear(), data)


def test_a_dataset_too_large_to_keep_is_refused_after_its_first_examples(monkeypatch):
    monkeypatch.setattr("cnnlab.training.datasets.MOST_BYTES", 400)
    with pytest.raises(ValueError, match=r"^data must fit .* GiB of memory, where a run keeps it, got"):
        run_of(linear(), Listed())


def test_modules_that_are_not_ready_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"^network must have its shapes: pass one batch through it first, "):
        run_of(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(ValueError, match=r"^network must have real parameters, got complex ones in weight$"):
        run_of(nn.Linear(6, 3, dtype=torch.complex64), precision="float32")


def test_targets_may_be_several():
    run = run_of(
        linear(), (X, {"label": Y, "weight": torch.ones(20)}), lambda o, y: (ce(o, y["label"]) * y["weight"]).mean()
    )
    assert repeats(run)


def test_a_network_of_ones_own_is_saved_and_gone_on_with(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 3))
    run = run_of(network, batch_size=6)
    run.advance(5)
    run.record.save(tmp_path / "own.cnnlab")
    again = Run(load(tmp_path / "own.cnnlab"), network=network, data=(X, Y), cost=ce)
    run.advance(3)
    again.advance(3)
    assert torch.equal(again.parameters, run.parameters)


# Long vectors.


@pytest.mark.parametrize("factor", [1.0, 1e-30, 1e25, float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_norms_and_histograms_of_long_vectors_are_those_of_short_ones(factor, dtype):
    flat = (torch.randn(200_000, generator=torch.Generator().manual_seed(0)) * factor).to(dtype)
    parts = flat.split([150_000, 49_999, 1])
    wide = torch.stack([torch.linalg.vector_norm(part.double()) for part in parts])
    torch.testing.assert_close(
        measure_norms(parts), wide, rtol=1e-3 if dtype == torch.float16 else 1e-5, atol=0, equal_nan=True
    )
    integer, shift, classes = {
        torch.float32: (torch.int32, 23, 256), torch.float64: (torch.int64, 52, 2048),
        torch.float16: (torch.int16, 10, 32),
    }[dtype]  # fmt: skip
    largest, counts = survey(parts, integer, shift, classes)
    assert counts.sum(1).tolist() == [150_000, 49_999, 1]
    assert counts[:, -1].sum() == (~flat.isfinite()).sum()
    torch.testing.assert_close(largest, torch.stack([part.abs().amax() for part in parts]), equal_nan=True)


@pytest.mark.parametrize(
    "changes", [{}, {"momentum": 0.9}, {"l2": 0.1}, {"clip": "norm"}, {"clip": "value", "momentum": 0.5}]
)
def test_a_long_network_steps_as_a_short_one(changes, monkeypatch):
    long, short = run_of(linear(), **changes), run_of(linear(), **changes)
    short.advance(4)
    monkeypatch.setattr("cnnlab.training.step.LONG", 1)
    long.advance(4)
    assert torch.equal(long.parameters, short.parameters)
    assert long.record.table.tobytes() == short.record.table.tobytes()
    assert LONG > 1
    assert isinstance(long.descent, Descent)


def test_a_long_network_has_the_gauges_of_a_short_one(monkeypatch):
    short = run_of(linear())
    monkeypatch.setattr("cnnlab.training.metrics.LONG", 1)
    long = run_of(linear())
    short.advance(3)
    long.advance(3)
    np.testing.assert_allclose(long.record.table, short.record.table, rtol=1e-6)
    assert (long.record.histograms[:] == short.record.histograms[:]).all()


@pytest.mark.parametrize(("size", "updates"), [(1024, 3), (2048, 2), (2500, 1), (10_000, 1)])
def test_a_large_batch_of_a_loader_stays_as_large(size, updates):
    pair = (torch.randn(2500, 3), torch.arange(2500) % 2)
    loader = DataLoader(TensorDataset(*pair), batch_size=size)
    run = cnnlab.Run(network=nn.Linear(3, 2), data=loader, cost=nn.functional.cross_entropy)
    assert run.updates_per_epoch == updates
    assert len(run.problem.batch(1)[1]) == min(size, 2500)
    run.advance(3)
    assert np.isfinite(run.record.cost).all()
    assert cnnlab.Settings.from_json(run.settings.to_json()) == run.settings


@pytest.mark.parametrize("history_bytes", ["a", -1, float("nan"), True, None])
def test_a_history_of_no_number_of_bytes_is_refused(history_bytes):
    with pytest.raises(ValueError, match="history_bytes must be a number of at least 0, got"):
        cnnlab.Run(history_bytes=history_bytes)
