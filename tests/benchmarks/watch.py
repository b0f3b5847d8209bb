"""What watching a loop of one's own costs: cnnlab.watch, every gauge at every update, beside others' tools.

python tests/benchmarks/watch.py [--blocks 12] [--write]

Each tool runs the same loop (three convolutions, images of 32 x 32 like CIFAR's, batch 128, SGD), a few updates at a
time, taking turns with the bare loop; the ratio is the median over turns. What is not installed is left out, and said.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from turns import in_turns

LIMIT = 1.10
"""Most that a watched loop may take, as a multiple of the bare one."""
UPDATES = 3
"""Updates in a turn."""
RESULTS = Path(__file__).parent / "results" / "watch.md"
torch.set_num_threads(1)


def network() -> nn.Sequential:
    """Three convolutions and a linear layer, the same weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4096, 10),
    )  # fmt: skip


X = torch.randn(128, 3, 32, 32, generator=torch.Generator().manual_seed(0))
Y = torch.arange(128) % 10


class Loop:
    """A training loop as a tutorial writes it; `tool` may wrap it or be told of each update."""

    def __init__(self) -> None:
        self.model = network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self.criterion = nn.CrossEntropyLoss()

    def update(self) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(X), Y)
        loss.backward()
        self.optimizer.step()
        return loss


def bare(stack: contextlib.ExitStack) -> Callable[[], object]:
    return Loop().update


def ours(stack: contextlib.ExitStack) -> Callable[[], object]:
    """All gauges at every update."""
    import cnnlab

    loop = Loop()
    stack.enter_context(cnnlab.watch(loop.model, loop.optimizer, show=False))
    return loop.update


def ours_stopping(stack: contextlib.ExitStack) -> Callable[[], object]:
    """The same with stop_before_nan."""
    import cnnlab

    loop = Loop()
    stack.enter_context(cnnlab.watch(loop.model, loop.optimizer, show=False, stop_before_nan=True))
    return loop.update


def anomalies(stack: contextlib.ExitStack) -> Callable[[], object]:
    """torch.autograd.detect_anomaly: finds the operation whose gradient is NaN, and records nothing."""
    loop = Loop()

    def update() -> None:
        with torch.autograd.set_detect_anomaly(True):
            loop.update()

    return update


def tensorboard(stack: contextlib.ExitStack) -> Callable[[], object]:
    """Histograms of weights and gradients, and the cost, at every update."""
    from torch.utils.tensorboard import SummaryWriter

    loop, count = Loop(), iter(range(10**9))
    writer = stack.enter_context(SummaryWriter(stack.enter_context(tempfile.TemporaryDirectory())))

    def update() -> None:
        loss, step = loop.update(), next(count)
        writer.add_scalar("cost", loss, step)
        for name, parameter in loop.model.named_parameters():
            writer.add_histogram(name, parameter, step)
            writer.add_histogram(f"{name}.grad", parameter.grad, step)

    return update


def wandb(stack: contextlib.ExitStack) -> Callable[[], object]:
    """wandb.watch(log="all", log_freq=1), offline."""
    import wandb as tool

    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    run = stack.enter_context(tool.init(project="cnnlab", dir=folder, mode="offline"))
    loop = Loop()
    run.watch(loop.model, log="all", log_freq=1)

    def update() -> None:
        run.log({"cost": loop.update()})

    return update


def cockpit(stack: contextlib.ExitStack) -> Callable[[], object]:
    """Cockpit's gauges that need no second derivatives, and its histogram of gradients, at every update."""
    from backpack import extend
    from cockpit import Cockpit, quantities
    from cockpit.utils.schedules import linear

    loop, count = Loop(), iter(range(10**9))
    loop.model, loop.criterion = extend(loop.model), extend(loop.criterion)
    each = extend(nn.CrossEntropyLoss(reduction="none"))
    every = linear(1)
    measured = [
        quantities.Loss(every), quantities.GradNorm(every), quantities.UpdateSize(every), quantities.Parameters(every),
        quantities.GradHist1d(every),
    ]  # fmt: skip
    tool = Cockpit(loop.model.parameters(), quantities=measured)

    def update() -> None:
        step = next(count)
        loop.optimizer.zero_grad()
        outputs = loop.model(X)
        loss = loop.criterion(outputs, Y)
        info = {"batch_size": 128, "individual_losses": each(outputs, Y), "loss": loss, "optimizer": loop.optimizer}
        with tool(step, info=info):
            loss.backward(create_graph=tool.create_graph(step))
        loop.optimizer.step()

    return update


TOOLS: dict[str, tuple[Callable[[contextlib.ExitStack], Callable[[], object]], str | None]] = {
    "cnnlab.watch, every gauge": (ours, None),
    "cnnlab.watch, stop_before_nan": (ours_stopping, None),
    "torch detect_anomaly": (anomalies, None),
    "TensorBoard histograms of weights and gradients": (tensorboard, "tensorboard"),
    "wandb.watch(log='all'), offline": (wandb, "wandb"),
    "Cockpit, first-order gauges and gradient histogram": (cockpit, "cockpit"),
}
"""What a person reads -> what makes its update, and the package that it needs."""


def seconds(update: Callable[[], object]) -> float:
    """Processor time of one update, over a turn, in all threads of this process."""
    start = time.process_time()
    for _ in range(UPDATES):
        update()
    return (time.process_time() - start) / UPDATES


def compare(make: Callable[[contextlib.ExitStack], Callable[[], object]], blocks: int) -> tuple[float, float, float]:
    """Medians of the bare and of the watched loop in milliseconds, and of their ratio within a turn."""
    with contextlib.ExitStack() as stack:
        plain, watched = bare(stack), make(stack)
        seconds(plain), seconds(watched)
        return in_turns(plain, watched, seconds, blocks)


def main() -> int:
    """Print the table; 1 if our ratio is above the limit or another's is below it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--blocks", type=int, default=12)
    arguments.add_argument("--write", action="store_true")
    chosen = arguments.parse_args()
    lines = [
        "# What watching a loop of one's own costs",
        "",
        f"torch {torch.__version__.partition('+')[0]}, x86-64, one thread; three convolutions, batch 128 of",
        f"3 x 32 x 32, SGD; {chosen.blocks} turns of {UPDATES} updates, the ratio is their median. Processor time",
        "of the process: what wandb does in a process of its own is not counted.",
        "",
        "| tool | bare, ms | watched, ms | ratio |",
        "|---|---|---|---|",
    ]
    ratios: dict[str, float] = {}
    missing = []
    for name, (make, package) in TOOLS.items():
        if package is not None and importlib.util.find_spec(package) is None:
            missing.append(f"{name}: not installed")
            continue
        try:
            before, after, ratios[name] = compare(make, chosen.blocks)
        except Exception as reason:  # another's tool may not work with this torch: said, not hidden
            missing.append(f"{name}: {type(reason).__name__}: {str(reason).splitlines()[0][:100]}")
            continue
        lines.append(f"| {name} | {before:.1f} | {after:.1f} | {ratios[name]:.3f} |")
    if missing:
        lines += ["", "Not measured:", "", *(f"- {text}" for text in missing)]
    text = "\n".join(lines) + "\n"
    print(text)
    if chosen.write:
        RESULTS.write_text(text)
    mine = ratios["cnnlab.watch, every gauge"]
    return int(mine > LIMIT or any(ratio < mine for name, ratio in ratios.items() if "cnnlab" not in name))


if __name__ == "__main__":
    raise SystemExit(main())
