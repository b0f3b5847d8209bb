"""What the gauges cost with a network of one's own: Run.update beside a bare PyTorch loop on the same module.

python tests/benchmarks/own.py [--blocks 6] [--write]

The two take turns, so that whatever else the machine does slows both alike; the ratio is the median of the turns' own.
--write keeps the table in tests/benchmarks/results/own.md.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from turns import in_turns

from cnnlab import Run

LIMIT = 1.10
"""Most that an update with all gauges may take, as a multiple of the bare loop."""
RESULTS = Path(__file__).parent / "results" / "own.md"


class Residual(nn.Module):
    """Three convolutions with batch norm beside a shortcut, as in a ResNet's bottleneck."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = width // 4
        sizes = [(width, narrow, 1), (narrow, narrow, 3), (narrow, width, 1)]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, k, padding=k // 2, bias=False) for a, b, k in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b, _ in sizes)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            y = self.relu(norm(convolution(y)))
        return x + y


def deep() -> nn.Sequential:
    """100 layers (50 convolutions, 49 norms, one linear) and 25 million numbers, for images of 32 x 32."""
    stages: list[nn.Module] = [nn.Conv2d(3, 256, 4, stride=4)]
    for width, blocks in ((256, 4), (1024, 8), (2048, 4)):
        before = 256 if width == 256 else {1024: 256, 2048: 1024}[width]
        if width != before:
            stages += [nn.AvgPool2d(2) if width == 1024 else nn.Identity(), nn.Conv2d(before, width, 1, groups=64)]
        stages += [Residual(width) for _ in range(blocks)]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 10))


def small() -> nn.Sequential:
    """Three convolutions and a linear layer for images of 32 x 32."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4096, 10),
    )  # fmt: skip


CASES = {"3 convolutions, batch 128": (small, 128), "100 layers, batch 64": (deep, 64)}


def bare_loop(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """One update as a PyTorch tutorial writes it."""
    network = copy.deepcopy(network)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-4)

    def update() -> None:
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()

    return update


def seconds(update: Callable[[], object]) -> float:
    """Processor time of this process in one update."""
    start = time.process_time()
    update()
    return time.process_time() - start


def compare(network: nn.Module, batch: int, blocks: int) -> tuple[float, float, float]:
    """Medians of the bare loop and of Run.update in milliseconds, and of their ratio within a turn."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(batch, 3, 32, 32, generator=generator), torch.arange(batch) % 10
    run = Run(network=network, data=(x, y), cost=nn.functional.cross_entropy, learning_rate=1e-4, device="cpu")
    bare = bare_loop(network, x, y)
    bare(), run.update()
    found = in_turns(bare, run.update, seconds, blocks)
    assert run.record.first_nonfinite is None
    return found


def main() -> int:
    """Print the table; 1 if a ratio is above the limit."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--blocks", type=int, default=6)
    arguments.add_argument("--write", action="store_true")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# What the gauges cost with a network of one's own",
        "",
        f"torch {torch.__version__.partition('+')[0]}, x86-64, one thread, images of 32 x 32, processor time;",
        f"all gauges at every update. {chosen.blocks} turns, 5 times as many of the small network; the median ratio.",
        "",
        "| network | layers | numbers | bare, ms | Run.update, ms | ratio |",
        "|---|---|---|---|---|---|",
    ]
    worst = 0.0
    for name, (make, batch) in CASES.items():
        torch.manual_seed(0)
        network = make()
        layers = sum(1 for part in network.modules() if any(True for _ in part.parameters(recurse=False)))
        numbers = sum(parameter.numel() for parameter in network.parameters())
        bare_ms, ours_ms, ratio = compare(network, batch, chosen.blocks * (5 if make is small else 1))
        worst = max(worst, ratio)
        lines.append(f"| {name} | {layers} | {numbers:,} | {bare_ms:.0f} | {ours_ms:.0f} | {ratio:.3f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if chosen.write:
        RESULTS.write_text(text)
    return int(worst > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
