"""Everything that a GPU must show, in one run of at most 8 minutes: right to the bit, and faster than the bare loop.

python tests/gpu.py [--device cuda] [--small] [--out tests/benchmarks/results] [--only NAME ...]

It needs no more than torch, numpy and what trains, and comes in by cnnlab's public names. The parts come in the order
of their weight, each with a time limit, so that a fault in one leaves the rest; one that fails is printed FAILED with
its error, and the exit status is 1. A figure that is missed is printed "missed", and the run goes on. The table goes to
gpu.md and gpu.json in the folder that --out names. `--device cpu --small` tries the script itself.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import math
import platform
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import cnnlab

BUDGET = 450.0
"""Seconds after which no further part is begun."""
FULL = {
    "batch": 66, "large": 4096, "updates": 40, "seeds": 32, "steps": 30, "map": 64, "rounds": 5,
    "members": (32, 256, 1024, 4096), "precisions": ("float32", "float64"), "network": {},
}  # fmt: skip
SMALL = {
    "batch": 8, "large": 16, "updates": 12, "seeds": 4, "steps": 6, "map": 3, "rounds": 1,
    "members": (2,), "precisions": ("float32",),
    "network": {"channels": 4, "hidden": (8, 4), "patch_size": 14, "patches": 24},
}  # fmt: skip


@dataclasses.dataclass
class Line:
    """A row of the table."""

    what: str
    value: str
    wanted: str = ""
    met: bool | None = None
    """None where nothing is asked for."""
    must: bool = True
    """Whether to miss it is a fault, and not just slow."""


@dataclasses.dataclass
class Bench:
    """What the parts share."""

    device: str
    size: dict[str, Any]
    known: dict[str, float] = dataclasses.field(default_factory=dict)
    """Milliseconds by name, for later parts."""

    @property
    def on_gpu(self) -> bool:
        """Whether there is a device to wait for, and CUDA graphs."""
        return self.device == "cuda"

    def run(self, preset: str = "question", device: str = "", **changes: Any) -> Any:
        """A Run of the size asked for."""
        return cnnlab.Run(preset, device=device or self.device, **self.size["network"] | changes)

    def wait(self) -> None:
        """Until the device has done all of it."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def milliseconds(self, work: Callable[[], object], warm: int = 3) -> float:
        """How long a piece of work takes when it is done again and again: the median of a few rounds."""
        for _ in range(warm):
            work()
        rounds = []
        for _ in range(self.size["rounds"]):
            self.wait()
            began = time.perf_counter()
            for _ in range(self.size["updates"]):
                work()
            self.wait()
            rounds.append((time.perf_counter() - began) / self.size["updates"] * 1e3)
        return statistics.median(rounds)

    def captured(self, work: Callable[[], object]) -> Callable[[], object]:
        """The same work as a CUDA graph; as it is where there are none."""
        if not self.on_gpu:
            return work
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay


def bits(values: Any) -> Any:
    """Numbers of float64 as their bits, in which NaN equals itself."""
    return np.ascontiguousarray(np.asarray(values, dtype=np.float64)).view(np.int64)


def same_record(one: Any, other: Any) -> bool:
    """Whether two records agree in every gauge and histogram, to the bit."""
    return np.array_equal(bits(one.table), bits(other.table)) and np.array_equal(
        one.histograms[0:], other.histograms[0:]
    )


def relative(found: Any, wanted: Any) -> float:
    """The largest difference as a share of what is wanted; inf where one is finite and the other is not."""
    found, wanted = (np.asarray(each, dtype=np.float64) for each in (found, wanted))
    if not np.array_equal(np.isfinite(found), np.isfinite(wanted)):
        return math.inf
    finite = np.isfinite(wanted)
    return float(np.max(np.abs(found - wanted)[finite] / np.abs(wanted)[finite].clip(1e-30), initial=0))


def eager(run: Any) -> Any:
    """A run whose updates are launched one operation at a time."""
    run.compute.recording = False
    return run


def make_network(settings: Any) -> nn.Sequential:
    """The question's network as a person writes it."""
    channels, (first, second), side = settings.channels, settings.hidden, settings.patch_size - 12
    layers: list[nn.Module] = []
    for index in range(6):
        layers += [nn.Conv2d(channels if index else 1, channels, 3), *([nn.ReLU()] if index < 5 else [])]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(channels * side * side, first), nn.ReLU(), nn.Linear(first, second),
        nn.ReLU(), nn.Linear(second, 2),
    )  # fmt: skip


def make_bare_loop(bench: Bench, batch: int) -> tuple[Callable[[], None], nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """One update as a tutorial of PyTorch writes it; its network and its batch."""
    run = bench.run(learning_rate=1e-5)
    network = make_network(run.settings).to(bench.device)
    with torch.no_grad():
        for parameter, start in zip(network.parameters(), run.weights().values(), strict=True):
            parameter.copy_(torch.as_tensor(start))
    x, y = run.problem.data
    times = -(-batch // len(x))
    x, y = x.repeat(times, 1, 1, 1)[:batch].contiguous(), y.repeat(times)[:batch].contiguous()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-5)

    def update() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    return update, network, (x, y)


def fixed_order(deterministic: bool = True) -> Any:
    """The convolutions that Run uses: no TF32, sums in a fixed order."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=deterministic, allow_tf32=False)


# The parts: each gives its lines as it finds them.


def check_presets(bench: Bench) -> Iterator[Line]:
    """The first two costs of every preset, against the CPU."""
    for preset in cnnlab.presets():
        here, there = (bench.run(preset, device) for device in (bench.device, "cpu"))
        here.advance(2), there.advance(2)
        epsilon = torch.finfo(getattr(torch, here.settings.precision)).eps
        off, limit = relative(here.record.cost, there.record.cost), max(1e-4, 2 * epsilon)
        yield Line(
            f"{preset}: first two costs beside the CPU's, relative", f"{off:.1e}", f"<= {limit:.0e}", off <= limit
        )


def time_updates(bench: Bench) -> Iterator[Line]:
    """An update with every gauge beside the bare loop; a slider's value; transfers."""
    update, *_ = make_bare_loop(bench, bench.size["batch"])
    with fixed_order():
        bare = bench.milliseconds(update)
        graph = bench.milliseconds(bench.captured(update))
    slow = eager(bench.run(learning_rate=1e-5))
    one_by_one = bench.milliseconds(slow.update, warm=12)
    run = bench.run(learning_rate=1e-5)
    ours = bench.milliseconds(run.update, warm=12)
    bench.known |= {"bare": bare, "bare captured": graph, "eager": one_by_one, "ours": ours}
    with fixed_order(deterministic=False):
        free = bench.milliseconds(bench.captured(update))
    yield Line("bare loop, eager", f"{bare:.3f} ms")
    yield Line("bare loop, captured; with sums in any order", f"{graph:.3f} ms; {free:.3f} ms")
    yield Line("update with every gauge, eager", f"{one_by_one:.3f} ms")
    yield Line("update with every gauge, captured", f"{ours:.3f} ms")
    yield Line("... over the eager bare loop", f"{ours / bare:.2f}", "< 1.0", ours < bare, must=False)
    yield Line("... over the captured bare loop", f"{ours / graph:.2f}", "<= 1.3", ours <= 1.3 * graph, must=False)
    graphs = len(run.compute.graphs)
    run.set(learning_rate=3e-5)
    run.update()
    twin = eager(bench.run(learning_rate=1e-5))
    twin.advance(run.updates - 1)
    twin.set(learning_rate=3e-5)
    twin.update()
    yield Line("graphs recorded before and after a slider moved", f"{graphs}, {len(run.compute.graphs)}",
               "the same", graphs == len(run.compute.graphs) and graphs == int(bench.on_gpu))  # fmt: skip
    same = same_record(run.record, twin.record)
    yield Line("captured and eager updates agree to the bit, through the slider", str(same), "True", same)
    if bench.on_gpu:
        for changes in ({}, {"batch_size": 16, "momentum": 0.9, "clip": "norm"}):
            yield from count_transfers(bench, changes)


def count_transfers(bench: Bench, changes: dict[str, Any]) -> Iterator[Line]:
    """Transfers between device and host in a step and in a frame."""
    from torch.profiler import ProfilerActivity, profile

    run = bench.run(learning_rate=1e-5, **changes)
    run.advance(26)  # so that the next three are of one epoch, whose order comes over at its first
    run.record  # noqa: B018  # which brings over what waits
    counts = []
    for work in (lambda: [run.update() for _ in range(3)], lambda: run.record.frames[-1]):
        bench.wait()
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            work()
            bench.wait()
        named = [event.name for event in seen.events()]
        counts.append(sum("HtoD" in name or "DtoH" in name for name in named))
    step, frame = counts
    words = "a batch of 16, momentum, clipping: " if changes else ""
    yield Line(f"{words}transfers in three updates, in a frame", f"{step}, {frame}", "0, 1", (step, frame) == (0, 1))


def time_large_batches(bench: Bench) -> Iterator[Line]:
    """The same at a large batch, with a network of one's own."""
    update, network, data = make_bare_loop(bench, bench.size["large"])
    with fixed_order():
        fixed = bench.milliseconds(update)
    with fixed_order(deterministic=False):
        free = bench.milliseconds(update)
        free_graph = bench.milliseconds(bench.captured(update))
    run = cnnlab.Run(network=network, data=data, cost=functional.cross_entropy, learning_rate=1e-5, device=bench.device,
                     batch_size=None)  # fmt: skip
    ours = bench.milliseconds(run.update, warm=12)
    yield Line("bare loop, eager, sums in a fixed order", f"{fixed:.3f} ms")
    yield Line("bare loop, eager, sums in any order", f"{free:.3f} ms")
    yield Line("bare loop, captured, sums in any order", f"{free_graph:.3f} ms")
    yield Line("update of the same network with every gauge", f"{ours:.3f} ms")
    yield Line(
        "... over the bare loop with the same sums", f"{ours / fixed:.3f}", "<= 1.05", ours <= 1.05 * fixed, must=False
    )
    yield Line(
        "... over the bare loop with sums in any order",
        f"{ours / free:.3f}",
        "<= 1.05",
        ours <= 1.05 * free,
        must=False,
    )


def check_repeats(bench: Bench) -> Iterator[Line]:
    """Same run twice, rewind, fork and replay, to the bit."""
    updates = 30
    cases: dict[str, dict[str, Any]] = {
        "plain": {"learning_rate": 1e-3},
        "momentum, clipping by norm, L2": {"learning_rate": 1e-4, "momentum": 0.9, "clip": "norm", "l2": 0.01},
        "batches of 5, float64": {"learning_rate": 1e-4, "batch_size": 5, "precision": "float64"},
        "adaptive clipping, bfloat16": {"learning_rate": 1e-4, "clip": "adaptive", "precision": "bfloat16"},
        "to NaN": {"learning_rate": 1.0},
    }
    for name, changes in cases.items():
        first, second = bench.run(seed=3, **changes), bench.run(seed=3, **changes)
        first.advance(updates), second.advance(updates)
        whole, weights = first.record, first.weights()
        found = {"twice": same_record(whole, second.record)}
        fork = first.fork(11)
        fork.advance(updates - 11)
        found["fork"] = same_record(whole, fork.record)
        first.rewind(11)
        first.advance(updates - 11)
        found["rewind"] = same_record(whole, first.record) and all(
            np.array_equal(bits(weights[each]), bits(now)) for each, now in first.weights().items()
        )
        lone = eager(bench.run(seed=3, **changes))
        lone.advance(updates)
        found["eager"] = same_record(whole, lone.record)
        again = cnnlab.Run(whole.until(11), device=bench.device)
        again.advance(updates - 11)
        found["record"] = same_record(whole, again.record)
        yield Line(f"{name}: to the bit", ", ".join(f"{way} {same}" for way, same in found.items()), "all True",
                   all(found.values()))  # fmt: skip


def check_verdicts(bench: Bench) -> Iterator[Line]:
    """What becomes of the seeds, on the device together and on the CPU one by one."""
    seeds, steps, rates = bench.size["seeds"], bench.size["steps"], [1e-4, 1e-3, 1e-2]
    for precision in bench.size["precisions"]:
        found = [
            cnnlab.sweep(
                "question",
                learning_rate=rates,
                seeds=seeds,
                steps=steps,
                device=device,
                precision=precision,
                **bench.size["network"],
            )
            for device in (bench.device, "cpu")
        ]
        for place, rate in enumerate(rates):
            here, there = (each.diverged[place] for each in found)
            counts = f"{here.sum()} and {there.sum()} of {seeds} diverge, {int((here != there).sum())} otherwise"
            if precision == "float32" and rate == 1e-3:
                met = all(
                    low <= other.mean() <= high
                    for one, other in ((here, there), (there, here))
                    for low, high in [cnnlab.wilson(int(one.sum()), seeds)]
                )
                yield Line(f"{precision}, {rate:g}: device and CPU", counts, "inside each other's interval", met)
            else:
                yield Line(f"{precision}, {rate:g}: device and CPU", counts, "equal", bool((here == there).all()))
        off = max(
            relative(here[there_ok], there[there_ok])
            for here, there in zip(
                found[0].cost[..., :2].reshape(-1, 2), found[1].cost[..., :2].reshape(-1, 2), strict=True
            )
            for there_ok in [np.isfinite(there)]
        )
        yield Line(
            f"{precision}: first two costs of all these members, relative", f"{off:.1e}", "<= 1e-04", off <= 1e-4
        )


def time_members(bench: Bench) -> Iterator[Line]:
    """An update of many members together, beside a loop of single runs."""
    operations = count_operations(bench)
    peak = measure_peak(bench)
    yield Line("product of two large float32 matrices", f"{peak / 1e12:.1f} TFLOP/s")
    short, long = (4, 24) if bench.on_gpu else (2, 4)

    def timed(count: int, steps: int) -> float:
        side = max(1, count // min(count, 64))
        bench.wait()
        began = time.perf_counter()
        cnnlab.sweep("question", learning_rate=np.geomspace(1e-9, 1e-8, count // side), seeds=side, steps=steps,
                     device=bench.device, **bench.size["network"])  # fmt: skip
        bench.wait()
        return (time.perf_counter() - began) * 1e3

    for count in bench.size["members"]:
        if bench.on_gpu:
            timed(count, short)
        first = min(timed(count, short) for _ in range(2 if bench.on_gpu else 1))
        each = max((timed(count, long) - first) / (long - short), 1e-6)
        rate = operations * count / each * 1e3
        yield Line(f"{count:,} members: an update", f"{each:.2f} ms", "<= 100 ms" if count == 1024 else "",
                   each <= 100 if count == 1024 else None, must=False)  # fmt: skip
        loops = {name: bench.known[name] * count / each for name in ("bare", "eager", "ours") if name in bench.known}
        words = {"bare": "bare eager loop", "eager": "runs with gauges, eager", "ours": "runs with gauges, captured"}
        said = ", ".join(f"{words[name]} {times:.1f}" for name, times in loops.items())
        aim = count == 1024 and "eager" in loops
        yield Line("... times as fast as single runs", said, ">= 50 times eager runs" if aim else "",
                   loops["eager"] >= 50 if aim else None, must=False)  # fmt: skip
        yield Line("... of the card's peak", f"{rate / peak:.0%}, {rate / 1e12:.1f} TFLOP/s")
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        timed(1024, short)
        used = (torch.cuda.max_memory_allocated() - before) / 1024
        estimate = cnnlab.sweeps.members.count_member_bytes(bench.run().problem)
        yield Line("memory of a member, and the estimate", f"{used / 2**20:.1f} MiB, {estimate / 2**20:.1f} MiB",
                   "at most the estimate", used <= estimate)  # fmt: skip


def count_operations(bench: Bench) -> int:
    """Multiplications and additions of one update of a member, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    run = bench.run(device="cpu")
    network = make_network(run.settings)
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(network(run.problem.data[0]), run.problem.data[1]).backward()
    return int(counter.get_total_flops())


def measure_peak(bench: Bench) -> float:
    """Multiplications and additions a second in a product of two large float32 matrices."""
    side = 8192 if bench.on_gpu else 256
    one = torch.randn(side, side, device=bench.device)
    return 2 * side**3 / bench.milliseconds(lambda: one @ one) * 1e3


def time_map(bench: Bench) -> Iterator[Line]:
    """A square map of 20 updates."""
    side = bench.size["map"]
    began = time.perf_counter()
    found = cnnlab.sweep("question", learning_rate=np.geomspace(1e-6, 0.1, side), init_scale=np.geomspace(0.5, 2, side),
                         seeds=1, steps=20, device=bench.device, **bench.size["network"])  # fmt: skip
    took = time.perf_counter() - began
    yield Line(f"map of {side} x {side} cells, 20 updates, {found.diverged.mean():.0%} diverge", f"{took:.1f} s",
               "< 30 s", took < 30, must=False)  # fmt: skip


def time_curvature(bench: Bench) -> Iterator[Line]:
    """The largest eigenvalue beside training, and its value beside the CPU's."""
    here, there = (bench.run(device=device, learning_rate=1e-5) for device in (bench.device, "cpu"))
    values = [cnnlab.critical_learning_rate(run).eigenvalue for run in (here, there)]
    off = relative(values[0], values[1])
    yield Line("largest eigenvalue beside the CPU's, relative", f"{off:.1e}", "<= 1e-03", off <= 1e-3)
    assert cnnlab.advance_safely, "which opens the module of the tracker"
    tracker = cnnlab.curvature.tracker.SharpnessTracker(credit=0.0)

    def watched() -> None:
        began = time.monotonic()
        here.update()
        bench.wait()
        tracker.add_credit(time.monotonic() - began)
        tracker.measure_within_credit(here)

    def alone() -> None:
        here.update()
        bench.wait()

    alone_ms, watched_ms = (bench.milliseconds(work, warm=12) for work in (alone, watched))
    alone_ms = min(alone_ms, bench.milliseconds(alone))
    ratio = watched_ms / alone_ms
    yield Line(
        "update with the eigenvalue at its cadence, over one without",
        f"{ratio:.2f}",
        "<= 1.2",
        ratio <= 1.2,
        must=False,
    )
    known = np.isfinite(here.record.sharpness).sum()
    yield Line("... eigenvalues found meanwhile", f"{known} in {here.updates} updates")


def check_diagnosis(bench: Bench) -> Iterator[Line]:
    """Autopsy, forecast, critical rate and a watched loop in mixed precision."""
    found = []
    for device in (bench.device, "cpu"):
        run = bench.run(device=device, learning_rate=1.0)
        run.advance(12)
        report = cnnlab.autopsy(run)
        found.append((report.cause, report.step, report.layer))
    yield Line("autopsy on the device, on the CPU", f"{found[0]}, {found[1]}", "equal", found[0] == found[1])
    said = [[cnnlab.predict(bench.run(device=device, learning_rate=rate)).diverges for rate in (1e-6, 1.0)]
            for device in (bench.device, "cpu")]  # fmt: skip
    yield Line("forecast on the device, on the CPU", f"{said[0]}, {said[1]}", "equal", said[0] == said[1])
    yield from check_watch(bench)


def check_watch(bench: Bench) -> Iterator[Line]:
    """A watched loop with autocast and a GradScaler ends with the weights of the loop that is not watched."""
    _, network, (x, y) = make_bare_loop(bench, bench.size["batch"])
    start = {name: value.clone() for name, value in network.state_dict().items()}
    ends, records = [], []
    for watching in (False, True):
        network.load_state_dict(start)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        scaler = torch.amp.GradScaler(bench.device)
        with contextlib.ExitStack() as stack:
            stack.enter_context(fixed_order())
            if watching:
                watch = stack.enter_context(cnnlab.watch(network, optimizer, scaler=scaler, show=False))
            for _ in range(20):
                optimizer.zero_grad()
                with torch.autocast(bench.device, dtype=torch.float16 if bench.on_gpu else torch.bfloat16):
                    cost = functional.cross_entropy(network(x), y)
                scaler.scale(cost).backward()
                scaler.step(optimizer)
                scaler.update()
        ends.append([parameter.detach().clone() for parameter in network.parameters()])
        records += [watch.record] if watching else []
    same = all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
    yield Line("watched loop with autocast and GradScaler: same weights", str(same), "True", same)
    record = records[0]
    fine = len(record) > 10 and bool(np.isfinite(record.cost).all())
    yield Line("... its record", f"{len(record)} updates, costs {record.cost[0]:.3g} to {record.cost[-1]:.3g}",
               "finite costs", fine)  # fmt: skip


def check_precisions(bench: Bench) -> Iterator[Line]:
    """Half precisions, a network of one's own, and a record that is opened elsewhere."""
    for precision in ("float16", "bfloat16", "float64"):
        here, there = (bench.run(device=device, precision=precision, learning_rate=1e-5, input_scaling="unit")
                       for device in (bench.device, "cpu"))  # fmt: skip
        here.advance(2), there.advance(2)
        limit = max(1e-4, 4 * torch.finfo(getattr(torch, precision)).eps)
        off = relative(here.record.cost, there.record.cost)
        yield Line(f"{precision}: first two costs beside the CPU's", f"{off:.1e}", f"<= {limit:.0e}", off <= limit)
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    y = x[:, :1].sin()
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 1))
    own = [cnnlab.Run(network=module, data=(x, y), cost=functional.mse_loss, learning_rate=0.1, device=bench.device)
           for _ in range(2)]  # fmt: skip
    for run in own:
        run.advance(25)
    own[0].rewind(7)
    own[0].advance(18)
    same = same_record(own[0].record, own[1].record)
    yield Line("own network with batch norm and dropout: rewind to the bit", str(same), "True", same)
    here = bench.run(learning_rate=1e-5)
    here.advance(6)
    with tempfile.TemporaryDirectory() as folder:
        here.record.save(Path(folder) / "run.cnnlab")
        there = cnnlab.Run(cnnlab.load(Path(folder) / "run.cnnlab"), device="cpu")
    here.advance(4), there.advance(4)
    off = relative(there.record.cost, here.record.cost)
    yield Line("saved on the device, gone on with on the CPU: costs, relative", f"{off:.1e}", "<= 1e-03", off <= 1e-3)


def check_gauges(bench: Bench) -> Iterator[Line]:
    """The gauges that are measured on the device, beside plain ones, on the way to NaN."""
    cases: list[dict[str, Any]] = [
        {"learning_rate": 1.0},
        {"learning_rate": 1e-4, "clip": "value", "clip_threshold": 0.01},
        {"learning_rate": 1.0, "precision": "float64", "momentum": 0.9},
        {"learning_rate": 1e-3, "precision": "float16"},
        {"learning_rate": 1e-3, "precision": "bfloat16", "clip": "adaptive"},
        {"learning_rate": 0.1, "relu": "softmax_too"},
    ]
    for changes in cases:
        run, plain = bench.run(**changes), eager(bench.run(**changes))
        plain.gauges.activations.release()
        kind = type(plain.gauges)
        plainest = kind if kind.__base__ is object else kind.__base__
        plain.gauges = plainest(plain.network, plain.layout, plain.parameters, plain.watched)
        run.advance(16), plain.advance(16)
        off = compare_tables(run.record.table, plain.record.table)
        counts = [each.record.histograms[0:] for each in (run, plain)]
        other = np.argwhere(counts[0] != counts[1])
        first = tuple(other[0]) if len(other) else ()
        said = "equal" if not first else f"differ at {first}: {counts[0][first]} and {counts[1][first]}"
        yield Line(f"{changes}: {kind.__name__} beside {plainest.__name__}", f"{off:.1e}, histograms {said}",
                   "<= 1e-09, equal", off <= 1e-9 and not len(other))  # fmt: skip


def compare_tables(one: Any, other: Any) -> float:
    """The largest relative difference of two tables; inf where NaN, inf or "not measured" do not agree."""
    broken = ~np.isfinite(one)
    if not np.array_equal(broken, ~np.isfinite(other)):
        return math.inf
    nan = np.isnan(one)
    if not np.array_equal(nan, np.isnan(other)) or not np.array_equal(one[broken & ~nan], other[broken & ~nan]):
        return math.inf
    unmeasured = [bits(table) == bits(one)[0, 0] for table in (one, other)]  # no cost is measured at the start
    return math.inf if not np.array_equal(*unmeasured) else relative(one[~broken], other[~broken])


PARTS: dict[str, tuple[Callable[[Bench], Iterator[Line]], float]] = {
    "presets": (check_presets, 60),
    "updates": (time_updates, 60),
    "repeats": (check_repeats, 60),
    "members": (time_members, 120),
    "map": (time_map, 60),
    "verdicts": (check_verdicts, 120),
    "large batches": (time_large_batches, 40),
    "gauges": (check_gauges, 60),
    "diagnosis": (check_diagnosis, 60),
    "precisions": (check_precisions, 40),
    "curvature": (time_curvature, 40),
}
"""Name -> part, and the seconds that it may take."""


class OverTime(Exception):
    """A part took longer than it may."""


@contextlib.contextmanager
def limit_time(seconds: float) -> Iterator[None]:
    """OverTime where what is done here takes longer, on systems that have an alarm."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def end(*_: Any) -> None:
        raise OverTime(f"took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_part(
    bench: Bench, name: str, part: Callable[[Bench], Iterator[Line]], seconds: float
) -> tuple[list[Line], str]:
    """The lines that a part gave, and its error; nothing if all is right."""
    lines: list[Line] = []
    try:
        with limit_time(seconds):
            lines.extend(show(line) for line in part(bench))
    except Exception as reason:
        traceback.print_exc()
        said = " ".join(str(reason).split())[:300]
        return lines, f"{type(reason).__name__}: {said}"
    wrong = [line.what for line in lines if line.met is False and line.must]
    return lines, f"not as it must be: {'; '.join(wrong)}" if wrong else ""


def show(line: Line) -> Line:
    """Print a line as soon as it is known."""
    print(f"  {line.what}: {line.value}{describe(line)}", flush=True)
    return line


def describe(line: Line) -> str:
    """Whether a line is what was asked for."""
    if line.met is None:
        return ""
    return f" (asked: {line.wanted}{'' if line.met else '; WRONG' if line.must else '; missed'})"


def run_parts(bench: Bench, names: list[str], budget: float = BUDGET) -> dict[str, tuple[list[Line], str, float]]:
    """Part -> its lines, its error, its seconds."""
    found, began = {}, time.monotonic()
    for name in names:
        part, seconds = PARTS[name]
        left = budget - (time.monotonic() - began)
        print(name, flush=True)
        since = time.monotonic()
        lines, error = run_part(bench, name, part, min(seconds, left)) if left > 0 else ([], "no time was left")
        found[name] = lines, error, time.monotonic() - since
        print(f"{'FAILED ' + name + ': ' + error if error else 'done'} ({found[name][2]:.1f} s)", flush=True)
    return found


def write_table(bench: Bench, found: dict[str, tuple[list[Line], str, float]]) -> str:
    """The table in Markdown."""
    where = torch.cuda.get_device_name() if bench.on_gpu else platform.machine()
    out = io.StringIO()
    print("# On a GPU\n", file=out)
    print(
        f"`python tests/gpu.py` on {where}, torch {torch.__version__}; an update of the question's network unless",
        file=out,
    )
    print("another is named. Made by the script; a figure that is asked for and not reached says so.\n", file=out)
    for name, (lines, error, seconds) in found.items():
        print(f"## {name[0].upper()}{name[1:]} ({seconds:.0f} s){': FAILED' if error else ''}\n", file=out)
        if error:
            print(f"{error}\n", file=out)
        print("| what | measured | asked | |\n|---|---|---|---|", file=out)
        for line in lines:
            verdict = "" if line.met is None else "yes" if line.met else "WRONG" if line.must else "missed"
            print(f"| {line.what} | {line.value} | {line.wanted} | {verdict} |".replace("|  |", "| |"), file=out)
        print(file=out)
    return out.getvalue()


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="small sizes, to try the script itself")
    parser.add_argument("--out", type=Path, help="folder for gpu.md and gpu.json")
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=tuple(PARTS))
    asked = parser.parse_args(arguments)
    torch.backends.cuda.matmul.allow_tf32 = False
    bench = Bench(asked.device, SMALL if asked.small else FULL)
    began = time.monotonic()
    found = run_parts(bench, asked.only)
    failed = [name for name, (_, error, _) in found.items() if error]
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "gpu.md").write_text(write_table(bench, found))
        rows = {name: {"lines": [dataclasses.asdict(line) for line in lines], "error": error, "seconds": seconds}
                for name, (lines, error, seconds) in found.items()}  # fmt: skip
        (asked.out / "gpu.json").write_text(json.dumps(rows, indent=1, default=str) + "\n")
    print(f"{time.monotonic() - began:.0f} s; {'failed: ' + ', '.join(failed) if failed else 'nothing failed'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
