"""What watching a loop of one's own costs: cnnlab.watch, every gauge or within a budget, beside others' tools.

python tests/benchmarks/watch.py [--blocks 12] [--loops NAME,..] [--write]

Seven loops as tutorials write them. Each tool runs a few updates at a time, taking turns with the bare loop in one
process; the figures are medians over turns, of the process's CPU time. What is not installed is left out, and said.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from turns import in_turns

LONG = 5.0
"""Milliseconds from which an update is long: there watching takes a share, below a time."""
LIMIT = 1.10
"""Most that a watched loop may take, as a multiple of the bare one, where updates are long."""
MOST = 0.15
"""Most milliseconds that watching may take an update, where they are short."""
BUDGET = 0.05
TURN = 0.03
"""Seconds that a turn of the bare loop lasts."""
SLOW = 5.0
"""Of a tool that is more than so many times as slow the turns are shorter."""
RESULTS = Path(__file__).parent / "results" / "watch.md"
F = nn.functional
torch.set_num_threads(1)


@dataclass(frozen=True)
class Loop:
    """A training loop."""

    models: list[nn.Module]
    """Each is watched on its own."""
    optimizers: list[torch.optim.Optimizer]
    """Those of the models, in their order."""
    update: Callable[[], Tensor]
    """One round of the loop; gives its cost."""
    updates: int = 1
    """Updates in a round: one a model."""
    data: tuple[Tensor, Tensor] | None = None
    """Inputs and targets, where there is one model."""


def make_noise(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, the same each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def supervise(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, cost: Any) -> Loop:
    """The loop of a tutorial."""

    def update() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = cost(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Loop([model], [optimizer], update, data=(x, y))


def make_mlp() -> Loop:
    """Three linear layers, Adam."""
    layers = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return supervise(model, optimizer, make_noise(64, 64), torch.arange(64) % 10, F.cross_entropy)


def make_regression() -> Loop:
    """A sum of four numbers, SGD."""
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    x = make_noise(32, 4)
    return supervise(model, torch.optim.SGD(model.parameters(), lr=1e-2), x, x.sum(1, keepdim=True), F.mse_loss)


def make_gan() -> Loop:
    """Generator and discriminator of points in a plane, Adam each."""
    generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    discriminator = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    first, second = (torch.optim.Adam(each.parameters(), lr=1e-3) for each in (generator, discriminator))
    real, noise, one, zero = make_noise(64, 2), make_noise(64, 8, seed=1), torch.ones(64, 1), torch.zeros(64, 1)
    cost = F.binary_cross_entropy_with_logits

    def update() -> Tensor:
        made = generator(noise)
        second.zero_grad()
        (cost(discriminator(real), one) + cost(discriminator(made.detach()), zero)).backward()
        second.step()
        first.zero_grad()
        loss = cost(discriminator(made), one)
        loss.backward()
        first.step()
        return loss

    return Loop([generator, discriminator], [first, second], update, updates=2)


class LastOfLstm(nn.Module):
    """A recurrent layer, and a linear one of its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


def make_lstm() -> Loop:
    """The mean of a sequence of 20, Adam."""
    model, x = LastOfLstm(), make_noise(16, 20, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return supervise(model, optimizer, x, x.mean((1, 2))[:, None], F.mse_loss)


def make_normed_cnn() -> Loop:
    """Two convolutions with batch norm, images of 16 x 16, SGD with momentum."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    return supervise(model, optimizer, make_noise(32, 3, 16, 16), torch.arange(32) % 10, F.cross_entropy)


class Transformer(nn.Module):
    """Two layers, a vocabulary of 50."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(50, 64), nn.Linear(64, 50)
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(self.embedding(x)))


def make_transformer() -> Loop:
    """Sequences of 32 tokens, dropout, AdamW."""
    model, x = Transformer(), torch.randint(0, 50, (16, 32), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    flat = x.roll(1, 1).flatten()
    return supervise(model, optimizer, x, flat, lambda outputs, y: F.cross_entropy(outputs.flatten(0, 1), y))


def make_cnn() -> Loop:
    """Three convolutions, batch 128 of images of 32 x 32 like CIFAR's, SGD."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4096, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    return supervise(model, optimizer, make_noise(128, 3, 32, 32), torch.arange(128) % 10, F.cross_entropy)


LOOPS: dict[str, Callable[[], Loop]] = {
    "tiny regression, SGD": make_regression,
    "MLP, Adam": make_mlp,
    "GAN, Adam": make_gan,
    "LSTM, Adam": make_lstm,
    "CNN with batch norm, SGD": make_normed_cnn,
    "transformer, AdamW": make_transformer,
    "CNN, SGD": make_cnn,
}
"""What a person reads -> the loop."""


def make_loop(name: str) -> Loop:
    """A loop, the same each time."""
    torch.manual_seed(0)
    return LOOPS[name]()


Maker = Callable[[contextlib.ExitStack, Loop], Callable[[], object]]
"""Makes what a loop under a tool does."""


def watch_with(**options: Any) -> Maker:
    """cnnlab.watch of each model."""

    def make(stack: contextlib.ExitStack, loop: Loop) -> Callable[[], object]:
        import cnnlab

        for model, optimizer in zip(loop.models, loop.optimizers, strict=True):
            stack.enter_context(cnnlab.watch(model, optimizer, show=False, **options))
        return loop.update

    return make


def detect_anomalies(stack: contextlib.ExitStack, loop: Loop) -> Callable[[], object]:
    """torch.autograd.detect_anomaly: finds the operation whose gradient is NaN, and records nothing."""

    def update() -> None:
        with torch.autograd.set_detect_anomaly(True):
            loop.update()

    return update


def write_tensorboard(stack: contextlib.ExitStack, loop: Loop) -> Callable[[], object]:
    """Histograms of weights and gradients, and the cost, at every update."""
    from torch.utils.tensorboard import SummaryWriter

    count = iter(range(10**9))
    writer = stack.enter_context(SummaryWriter(stack.enter_context(tempfile.TemporaryDirectory())))

    def update() -> None:
        loss, step = loop.update(), next(count)
        writer.add_scalar("cost", loss, step)
        for place, model in enumerate(loop.models):
            for name, parameter in model.named_parameters():
                writer.add_histogram(f"{place}.{name}", parameter, step)
                writer.add_histogram(f"{place}.{name}.grad", parameter.grad, step)

    return update


def watch_with_wandb(stack: contextlib.ExitStack, loop: Loop) -> Callable[[], object]:
    """wandb.watch(log="all", log_freq=1), offline."""
    import wandb as tool

    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    run = stack.enter_context(tool.init(project="cnnlab", dir=folder, mode="offline"))
    run.watch(loop.models, log="all", log_freq=1)

    def update() -> None:
        run.log({"cost": loop.update()})

    return update


def use_cockpit(stack: contextlib.ExitStack, loop: Loop) -> Callable[[], object]:
    """Cockpit's gauges that need no second derivatives, and its histogram of gradients, at every update."""
    from backpack import extend
    from cockpit import Cockpit, quantities
    from cockpit.utils.schedules import linear

    sequence, optimizer = loop.models[0], loop.optimizers[0]
    if loop.updates > 1 or not isinstance(sequence, nn.Sequential) or not isinstance(sequence[-1], nn.Linear):
        raise TypeError("written here for nn.Sequential alone")
    classes = sequence[-1].out_features > 1
    kind = nn.CrossEntropyLoss if classes else nn.MSELoss
    count, every = iter(range(10**9)), linear(1)
    assert loop.data is not None
    x, y = loop.data
    model, criterion = extend(sequence), extend(kind())
    each = kind(reduction="none")
    measured = [
        quantities.Loss(every), quantities.GradNorm(every), quantities.UpdateSize(every), quantities.Parameters(every),
        quantities.GradHist1d(every),
    ]  # fmt: skip
    tool = Cockpit(model.parameters(), quantities=measured)

    def update() -> None:
        step = next(count)
        optimizer.zero_grad()
        outputs = model(x)
        loss = criterion(outputs, y)
        losses = each(outputs, y).reshape(len(x), -1).mean(1)
        info = {"batch_size": len(x), "individual_losses": losses, "loss": loss, "optimizer": optimizer}
        with tool(step, info=info):
            loss.backward(create_graph=tool.create_graph(step))
        optimizer.step()

    return update


MINE, SHARE = "cnnlab.watch, every gauge at every update", f"cnnlab.watch, budget={BUDGET:g}"
TOOLS: dict[str, tuple[Maker, str | None]] = {
    MINE: (watch_with(), None),
    SHARE: (watch_with(budget=BUDGET), None),
    "the same, stop_before_nan": (watch_with(budget=BUDGET, stop_before_nan=True), None),
    "torch detect_anomaly": (detect_anomalies, None),
    "TensorBoard histograms of weights and gradients": (write_tensorboard, "tensorboard"),
    "wandb.watch(log='all'), offline": (watch_with_wandb, "wandb"),
    "Cockpit, first-order gauges and gradient histogram": (use_cockpit, "cockpit"),
}
"""What a person reads -> what makes its update, and the package that it needs."""


def compare(make: Maker, name: str, blocks: int) -> tuple[float, float, float]:
    """Medians of the bare and of the watched loop, in milliseconds an update, and of their ratio within a turn."""
    with contextlib.ExitStack() as stack:
        bare, loop = make_loop(name), make_loop(name)
        watched = make(stack, loop)
        rounds = 1

        def measure(update: Callable[[], object]) -> float:
            start = time.process_time()
            for _ in range(rounds):
                update()
            return (time.process_time() - start) / rounds / loop.updates

        for update in (bare.update, watched):
            measure(update)
        usual = max(measure(bare.update), measure(watched) / SLOW) * loop.updates
        rounds = max(2, round(TURN / max(usual, 1e-6)))
        measure(watched)
        return in_turns(bare.update, watched, measure, blocks)


def say_cell(before: float, after: float, ratio: float) -> str:
    """A cell of the table: the ratio where updates are long, and the time that is added to each."""
    return f"{ratio:.2f} (+{max(after - before, 0.0):.2f} ms)"


def holds(before: float, after: float, ratio: float) -> bool:
    """Whether watching keeps to its bounds."""
    return ratio <= LIMIT if before >= LONG else after - before <= MOST


def main() -> int:
    """Print the table; 1 if a watch with a budget leaves its bounds, or anomaly mode and the like are below it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--blocks", type=int, default=12)
    arguments.add_argument("--loops", default="", help="only loops whose name begins so, by commas")
    arguments.add_argument("--write", action="store_true")
    chosen = arguments.parse_args()
    begins = tuple(chosen.loops.split(","))
    names = [name for name in LOOPS if name.startswith(begins)]
    found: dict[str, dict[str, tuple[float, float, float]]] = {tool: {} for tool in TOOLS}
    missing: dict[str, list[str]] = {}
    for name in names:
        for tool, (make, package) in TOOLS.items():
            if package is not None and importlib.util.find_spec(package) is None:
                missing.setdefault(f"{tool}: not installed", []).append(name)
                continue
            try:
                found[tool][name] = compare(make, name, chosen.blocks)
            except Exception as reason:  # another's tool may not work with this torch: said, not hidden
                said = f"{tool}: {type(reason).__name__}: {str(reason).splitlines()[0][:100]}"
                missing.setdefault(said, []).append(name)
                continue
            print(f"{name}: {tool}: {say_cell(*found[tool][name])}", flush=True)
    text = write_table(names, found, missing, chosen.blocks)
    print(text)
    if chosen.write:
        RESULTS.write_text(text)
    broken = [name for name in names if not holds(*found[SHARE][name])]
    print("beyond the bounds:", ", ".join(broken) or "none")
    return int(bool(broken))


def write_table(
    names: list[str],
    found: dict[str, dict[str, tuple[float, float, float]]],
    missing: dict[str, list[str]],
    blocks: int,
) -> str:
    """The results as a page."""
    lines = [
        "# What watching a loop of one's own costs",
        "",
        f"torch {torch.__version__.partition('+')[0]}, x86-64, one thread. CPU time of an update over that of the bare",
        f"loop, and what is added to it, by turns in one process ({blocks} turns, medians). What wandb does in a",
        f"process of its own is not counted. Aim: at most {LIMIT:.2f} where an update takes {LONG:g} ms or more, at",
        f"most {MOST} ms an update where it takes less.",
        "",
        f"| tool | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    bare = [f"{found[MINE][name][0]:.2f} ms" for name in names]
    lines.append(f"| the bare loop, an update | {' | '.join(bare)} |")
    for tool, cells in found.items():
        if cells:
            row = [say_cell(*cells[name]) if name in cells else "–" for name in names]
            lines.append(f"| {tool} | {' | '.join(row)} |")
    if missing:
        lines += ["", "Not measured:", ""]
        lines += [f"- {said} ({', '.join(of)})" for said, of in missing.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
