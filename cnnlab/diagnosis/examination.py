"""What the examples and the graph of a cost tell before any number is NaN: targets, shapes, what is taken for logits.

While the graph of a cost is alive its nodes hold what they were given; nothing is computed again, and nothing changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnnlab.records.clues import BatchClues, Figures
from cnnlab.training.metrics import holds_numbers, list_parts
from cnnlab.training.network import Layout

MOST_NODES = 100
"""Nodes of a graph that are looked at, from the cost on."""
RESHAPES = {
    "ViewBackward0", "ReshapeAliasBackward0", "UnsafeViewBackward0", "TransposeBackward0", "PermuteBackward0",
    "UnsqueezeBackward0", "SqueezeBackward0", "SqueezeBackward1", "ToCopyBackward0", "CloneBackward0",
}  # fmt: skip
"""Nodes that hand numbers on as they are."""
FROM_PROBABILITIES = {"SoftmaxBackward0": "softmax", "SigmoidBackward0": "sigmoid"}
"""Nodes whose results are probabilities -> the function."""
OF_LOGITS = {"LogSoftmaxBackward0", "SoftmaxBackward0", "BinaryCrossEntropyWithLogitsBackward0"}
"""Nodes that are to be given logits."""
WITH_TARGETS = {
    "MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0", "NllLossBackward0", "NllLoss2DBackward0",
    "BinaryCrossEntropyWithLogitsBackward0", "BinaryCrossEntropyBackward0", "KlDivBackward0", "SoftMarginLossBackward0",
}  # fmt: skip
"""Nodes that keep the targets."""
NEVER_NEGATIVE = {"NllLossBackward0": "nll_loss", "NllLoss2DBackward0": "nll_loss"}
"""Costs of log-probabilities, which are below 0 only where they are given something else."""


def examine_cost(roots: Sequence[Any], inputs: Any = None, outputs: Any = None) -> BatchClues:
    """What a backward pass from these roots tells, before it is made; inputs and outputs are those of the network."""
    found = BatchClues(inputs=measure_figures(next(filter(holds_sizes, list_parts(inputs)), None)))
    with contextlib.suppress(Exception):  # nothing here is worth the user's training
        found = dataclasses.replace(found, summed=count_summed(roots[0]))
        for place, node in enumerate(list(walk(roots))):
            constant = found.constant
            found = examine_node(node, found, outputs)
            if place:  # of a part of the cost it tells nothing
                found = dataclasses.replace(found, constant=constant)
    return found


def count_summed(cost: Tensor) -> float:
    """How many times a mean the cost is, as far as the nodes that made one number of many tell; 0 for a mean."""
    node: Any = cost.grad_fn
    factor = 1.0
    while type(node).__name__ in ("MulBackward0", "DivBackward0") and node._saved_other is not None:
        other = node._saved_other
        number = float(other) if not isinstance(other, Tensor) or other.numel() == 1 else 0.0
        factor *= number if type(node).__name__ == "MulBackward0" else 1 / number
        node = node.next_functions[0][0]
    name = type(node).__name__
    if name.startswith("SumBackward"):
        sizes = node._saved_self_sym_sizes
        return factor * math.prod(sizes) if sizes and sizes[0] > 1 else 0.0
    if getattr(node, "_saved_reduction", 1) == 2:
        return factor * node._saved_self.numel() if len(node._saved_self) > 1 else 0.0
    if name == "MeanBackward0":
        examples = node._saved_self_sym_sizes[0] if node._saved_self_sym_sizes else 0
    else:
        kept = getattr(node, "_saved_target", None)
        examples = len(kept) if isinstance(kept, Tensor) and kept.dim() else 0
    return factor if examples and factor == examples else 0.0


def walk(roots: Sequence[Any]) -> Iterator[Any]:
    """The nodes of a graph, those near the cost first."""
    waiting = [root.grad_fn for root in roots if isinstance(root, Tensor) and root.grad_fn is not None]
    seen: set[int] = set()
    for node in waiting:
        if id(node) in seen or len(seen) >= MOST_NODES:
            continue
        seen.add(id(node))
        yield node
        waiting += [above for above, _ in node.next_functions if above is not None]


def examine_node(node: Any, found: BatchClues, outputs: Any) -> BatchClues:
    """What is known already, with what one node adds."""
    name = type(node).__name__
    changes: dict[str, Any] = {}
    if name in OF_LOGITS and not found.softmax:
        changes["softmax"] = FROM_PROBABILITIES.get(type(skip_reshapes(node)).__name__, "")
    if not found.broadcast:
        changes["broadcast"] = describe_broadcast(node)
    if name in WITH_TARGETS and found.targets is None:
        changes |= examine_targets(node, name)
    elif name in ("PowBackward0", "AbsBackward0") and found.targets is None:
        changes["targets"] = measure_figures(recover_targets(node, outputs))
    return dataclasses.replace(found, **changes)


def skip_reshapes(node: Any) -> Any:
    """The first node above one that changes numbers."""
    above = node.next_functions[0][0]
    while above is not None and type(above).__name__ in RESHAPES:
        above = above.next_functions[0][0]
    return above


def describe_broadcast(node: Any) -> str:
    """The shapes (N, 1) and (N) that a node has made (N, N) of; '' if it has not."""
    name = type(node).__name__
    if name not in ("SubBackward0", "ExpandBackward0", "RsubBackward1", "RsubBackward0"):
        return ""
    made = tuple(node._input_metadata[0].shape)
    if len(made) != 2 or made[0] != made[1] or made[0] < 2:
        return ""
    count, sources = made[0], list(node.next_functions)
    shapes = [tuple(above._input_metadata[place].shape) for above, place in sources if above is not None]
    if len(shapes) != 1 or shapes[0] not in ((count, 1), (count,)):
        return ""  # of two that have gradients, as in the distances of all pairs, it is meant
    given, other = f"({count}, 1)", f"({count})"
    ours, theirs = (given, other) if len(shapes[0]) == 2 else (other, given)
    return f"outputs of shape {ours} and targets of shape {theirs} were broadcast to ({count}, {count})"


def examine_targets(node: Any, name: str) -> dict[str, Any]:
    """What a node that keeps the targets tells."""
    target = node._saved_target
    changes: dict[str, Any] = {"targets": measure_figures(target), "never_negative": NEVER_NEGATIVE.get(name, "")}
    if name.startswith("NllLoss"):
        changes |= {"classes": node._saved_self.shape[1], "constant": measure_label_entropy(node)}
    elif name == "BinaryCrossEntropyWithLogitsBackward0":
        changes |= {"binary": True, "constant": measure_binary_entropy(node)}
    elif name == "MseLossBackward0" and node._saved_reduction == 1:
        changes["constant"] = float((target.double() - target.double().mean(0)).square().mean())
    return changes


def measure_label_entropy(node: Any) -> float:
    """The cross-entropy of an answer that is the same for all: that of the labels' shares; NaN with weights."""
    if node._saved_reduction != 1 or node._saved_weight is not None:
        return math.nan
    labels = node._saved_target[node._saved_target != node._saved_ignore_index]
    shares = torch.bincount(labels.reshape(-1)).double() / max(labels.numel(), 1)
    return float(-(shares * shares.clamp(min=1e-300).log()).sum())


def measure_binary_entropy(node: Any) -> float:
    """The same for two classes, of each output alone."""
    target = node._saved_target.double()
    plain = node._saved_reduction == 1 and node._saved_weight is None and node._saved_pos_weight is None
    if not plain or not bool(((target >= 0) & (target <= 1)).all()):
        return math.nan
    share = target.mean(0)
    return float(-(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)).mean())


def recover_targets(node: Any, outputs: Any) -> Tensor | None:
    """The targets from a difference that was kept, of which the network's output is the other part; None if not."""
    above = node.next_functions[0][0]
    if type(above).__name__ != "SubBackward0":
        return None
    sides = [side for side, _ in above.next_functions]
    for part in list_parts(outputs):
        for place, sign in ((0, -1), (1, 1)):
            ours = sides[place] is not None and sides[1 - place] is None and sides[place] is part.grad_fn
            if ours and bool(part.isfinite().all()):
                return part.detach() + sign * node._saved_self.detach()
    return None


def holds_sizes(values: Tensor) -> bool:
    """Whether numbers tell of a size, as pixels do, and are no numbers of words, which a network looks up."""
    return values.is_floating_point() or values.dtype == torch.uint8


def measure_figures(values: Any) -> Figures | None:
    """How large the numbers of examples are, one along the first axis; None of what are no numbers."""
    if not isinstance(values, Tensor) or not values.numel() or not holds_numbers(values) or values.is_complex():
        return None
    each = values.detach().reshape(len(values), -1) if values.dim() else values.detach().reshape(1, 1)
    each = each.to("cpu", torch.float64)
    finite = each.isfinite()
    bad = ~finite.all(dim=1)
    first_bad = int(bad.nonzero()[0]) if bad.any() else -1
    held = each[finite]
    if not len(held):
        return Figures(len(each), int(bad.sum()), first_bad)
    peaks, places = each.abs().where(finite, -1).max(dim=1)
    at = int(peaks.argmax())
    others = torch.cat([peaks[:at], peaks[at + 1 :]])
    return Figures(
        examples=len(each),
        bad=int(bad.sum()),
        first_bad=first_bad,
        size=float(held.square().mean().sqrt()),
        median=float(peaks[peaks >= 0].median()),
        largest=float(each[at, places[at]]),
        largest_at=at,
        next_largest=float(others.max()) if len(others) else math.nan,
        low=float(held.min()),
        high=float(held.max()),
    )


def combine_clues(before: BatchClues | None, now: BatchClues) -> BatchClues:
    """What two looks tell: the later one's figures, unless the earlier one saw larger numbers or bad ones."""
    if before is None:
        return now
    return BatchClues(
        inputs=choose_figures(before.inputs, now.inputs),
        targets=choose_figures(before.targets, now.targets),
        softmax=now.softmax or before.softmax,
        broadcast=now.broadcast or before.broadcast,
        binary=now.binary or before.binary,
        never_negative=now.never_negative or before.never_negative,
        classes=now.classes or before.classes,
        summed=now.summed or before.summed,
        constant=before.constant if math.isnan(now.constant) else now.constant,
    )


def choose_figures(before: Figures | None, now: Figures | None) -> Figures | None:
    """The figures of two batches that tell more."""
    if before is None or now is None:
        return before if now is None else now
    worse = (before.bad > 0, abs(before.largest)) > (now.bad > 0, abs(now.largest))
    return before if worse else now


def list_frozen_layers(network: nn.Module) -> tuple[str, ...]:
    """Layers that have parameters of which none is trained."""
    owned = {name: list(part.parameters(recurse=False)) for name, part in network.named_modules()}
    return tuple(name for name, own in owned.items() if own and not any(each.requires_grad for each in own))


def measure_gains(layout: Layout, start: Tensor) -> tuple[float, ...]:
    """Each layer's deviation of weights over He's (2015), in the order of the layers."""
    found = dict.fromkeys(layout.layers, math.nan)
    matrices = {name: view for name, view in layout.views(start).items() if view.dim() >= 2}
    norms = [torch.linalg.vector_norm(view, dtype=torch.promote_types(view.dtype, torch.float32))
             for view in matrices.values()]  # fmt: skip
    # A norm of n numbers over their root is their deviation; He's is the root of 2 / fan_in.
    for (name, view), norm in zip(matrices.items(), torch.stack(norms).tolist() if norms else [], strict=True):
        found[name.rpartition(".")[0]] = norm / math.sqrt(2 * len(view)) if view.numel() else math.nan
    return tuple(found.values())


def is_broken(root: Any) -> bool:
    """Whether a cost on the CPU is NaN or inf; to ask elsewhere would wait for the device."""
    if not isinstance(root, Tensor) or root.numel() != 1 or root.device.type != "cpu":
        return False
    return not math.isfinite(root.item())


class BatchExaminer:
    """Looks at examples and graph of a watched loop: at updates 1, 2, 4, .., and where a cost is not finite."""

    def __init__(self) -> None:
        self.found: BatchClues | None = None
        self.broken = False
        self.forget()

    def forget(self) -> None:
        """Hold no batch."""
        self.inputs: Any = None
        self.outputs: list[weakref.ref[Tensor]] = []  # which hold the graph

    def keep_inputs(self, _module: nn.Module, inputs: Any) -> None:
        """The hook before the model's forward pass; what a model is given of its own making is no data."""
        if torch.is_grad_enabled():
            given = not any(part.requires_grad for part in list_parts(inputs))
            self.inputs, self.outputs = inputs if given or self.inputs is None else self.inputs, []

    def keep_outputs(self, _module: nn.Module, _inputs: Any, outputs: Any) -> None:
        """The hook after it."""
        if torch.is_grad_enabled():
            self.outputs = [weakref.ref(part) for part in list_parts(outputs)]

    def look(self, roots: Sequence[Any], number: int, broken: bool) -> None:
        """Look at a backward pass of an update, before it is made; `broken`: its cost is not finite."""
        if self.broken or (number & (number - 1) and not broken):
            return
        outputs = tuple(part for one in self.outputs if (part := one()) is not None)
        self.broken = broken  # after which the weights themselves are
        self.found = combine_clues(self.found, examine_cost(roots, self.inputs, outputs))
