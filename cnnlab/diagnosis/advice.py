"""What to write in one's own program, in words with code: for operations that are not defined no setting helps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnlab.diagnosis.case import Cause
    from cnnlab.diagnosis.nan_tracer import Event

INSIDE = "add a small number inside the root, not outside: torch.sqrt(x + 1e-8)"
NEGATIVE_ROOT = "clamp before the root, and add a small number inside it: torch.sqrt(x.clamp(min=0) + 1e-8)"
QUOTIENT = "keep the divisor from 0: a / (b + 1e-8), or sum / count.clamp(min=1) for a mean over what may be nothing"
LOGARITHM = (
    "clamp before the log: torch.log(x.clamp(min=1e-8)); of probabilities take F.log_softmax or F.logsigmoid of logits"
)
POWER = "clamp before the power: x.clamp(min=1e-8) ** p; below 0 a power that is no whole number is not defined"
BORDER = "clamp before it, a little within its borders: torch.{name}(x.clamp(-1 + 1e-6, 1 - 1e-6))"
SPREAD = "give it more than one value, or torch.var(x, correction=0) + 1e-8, and the root of that"
MASK = "mask with torch.finfo(x.dtype).min in place of -inf, or leave out rows that are all masked"
BRANCH = (
    "put the where on the input, not on the output alone: torch.where(ok, f(torch.where(ok, x, 1.0)), 0.0), for the "
    "slope of the branch that is not taken is 0 * inf"
)
EXP = "take torch.logsumexp, F.log_softmax or F.softplus, or clamp what it is given: x.clamp(max=80).exp()"
CODE = {
    **dict.fromkeys(("sqrt", "rsqrt", "square root"), INSIDE),
    **dict.fromkeys(("norm", "linalg_vector_norm", "vector_norm", "cdist", "hypot", "dist"),
                    "a norm has no slope at 0: (x.square().sum(1) + 1e-8).sqrt() in its place"),
    **dict.fromkeys(("div", "true_divide", "reciprocal", "mean", "nanmean"), QUOTIENT),
    **dict.fromkeys(("log", "log2", "log10", "xlogy"), LOGARITHM),
    "log1p": "clamp before it, a little above -1: torch.log1p(x.clamp(min=-1 + 1e-6))",
    **dict.fromkeys(("logdet", "slogdet", "linalg_slogdet", "det", "linalg_det"),
                    "add to the diagonal: torch.linalg.slogdet(a + 1e-6 * torch.eye(n)), and look at its sign"),
    **dict.fromkeys(("pow", "float_power", "powsum"), POWER),
    **{name: BORDER.format(name=name) for name in ("acos", "asin", "atanh", "erfinv")},
    "logit": "keep it within (0, 1): torch.logit(x, eps=1e-6), which clamps it",
    "acosh": "clamp before it, a little above 1: torch.acosh(x.clamp(min=1 + 1e-6))",
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), SPREAD),
    **dict.fromkeys(("softmax", "log_softmax", "logsumexp", "_softmax", "_log_softmax"), MASK),
    **dict.fromkeys(("where", "mul", "clamp"), BRANCH),
    **dict.fromkeys(("exp", "exp2", "expm1", "sinh", "cosh"), EXP),
    **dict.fromkeys(("fmod", "remainder"), "keep the divisor from 0: torch.fmod(a, b.clamp(min=1e-8))"),
    **dict.fromkeys(("angle", "atan2", "sgn"), "keep it from 0: torch.atan2(b, a + 1e-8); an angle has no slope at 0"),
    **dict.fromkeys(("nll_loss", "nll_loss_forward", "nll_loss2d_forward", "cross_entropy"),
                    "leave out batches of which every label is ignored, or divide the sum by count.clamp(min=1)"),
    "batch_norm": "look at its running_var and its eps: a variance is never below 0, and eps keeps it from 0",
    "cosine_similarity": "give it a larger eps: F.cosine_similarity(a, b, eps=1e-6)",
    "normalize": "give it a larger eps: F.normalize(x, dim=1, eps=1e-6)",
    **dict.fromkeys(("ctc_loss", "_ctc_loss"), "F.ctc_loss(..., zero_infinity=True), or leave out too long targets"),
}  # fmt: skip
"""Operation -> what to write in its place."""
OF_EVIDENCE = {
    "step of the optimiser": {
        "the learning rate": "print(scheduler.get_last_lr()) in each update: a schedule over 0 updates divides by 0",
        "carries NaN on":
            "make the optimiser anew after a NaN, or end before it: cnnlab.watch(..., stop_before_nan=True)",
    },
    "log(0) by saturation": {
        "sigmoid gave": "take F.binary_cross_entropy_with_logits of the logits, or F.logsigmoid, in place of a log of "
            "a sigmoid",
    },
    "data hold NaN": {
        "the weights of": "look at what makes the first weights: a checkpoint that was saved after a NaN, or an "
            "initialisation that divides by 0",
        r"the inputs .* in (\d+) of \1 examples":
            "look for the column that holds it, x.isfinite().all(0); one that never changes is divided by a deviation "
            "of 0: (x - x.mean(0)) / (x.std(0) + 1e-8)",
    },
    "no weight moved": {
        "requires_grad is False": "layer.requires_grad_(True) for the layers that are to learn",
        "zero_grad stands between": "optimizer.zero_grad() before loss.backward(), or after optimizer.step()",
        "rounded away": "keep the weights in float32, and compute under torch.autocast",
        "learning rate is 0": "scheduler.step() once for each unit that its schedule counts in",
    },
}  # fmt: skip
"""Cause -> what is found in its first piece of evidence -> what to write."""
KINDS = {
    "0/0": QUOTIENT,
    "x/0": QUOTIENT,
    "log(0)": LOGARITHM,
    "log of a negative number": LOGARITHM,
    "root of a negative number": NEGATIVE_ROOT,
    "inf-inf": MASK,
    "inf*0": BRANCH,
    "exp overflow": EXP,
}
"""How an operation failed -> what to write, for one that is not in CODE."""
OF_CAUSES = {
    "log(0) by saturation": "take F.cross_entropy of the logits, or F.log_softmax, in place of a log of a softmax",
    "gradients add up": "optimizer.zero_grad() in each update, before loss.backward()",
    "shapes broadcast": "loss = cost(outputs.squeeze(1), y), so that both have the same shape",
    "softmax before cross-entropy": "return the logits from the network, and take the softmax only to look at them",
    "no weight moved": (
        "make the optimiser after the network, of model.parameters(); no detach, numpy, item, round or argmax between "
        "the weights and the cost"
    ),
    "cost without a minimum": "bring the targets to where the cost has a minimum: y.clamp(0, 1) or y / 255 for a mask",
    "data hold NaN": "ok = x.isfinite().all(1) & y.isfinite().all(1); x, y = x[ok], y[ok]",
    "targets not scaled": "y = (y - y.mean()) / y.std(), and the answers back: out * std + mean",
    "inputs not scaled": "x = (x - x.mean(0)) / x.std(0)",
    "outlier": "leave the example out, clamp it, or take F.huber_loss in place of the squares",
    "forward pass explodes": "start smaller: nn.init.orthogonal_(weight) for a recurrence, or a norm between layers",
    "epsilon of the optimiser": "give the optimiser eps=1e-4, or keep the weights in float32 under torch.autocast",
    "overflow of the precision": "torch.bfloat16 in place of float16, or smaller numbers: scale inputs and targets",
    "learning rate below 0": "end the loop with the schedule, or keep the rate from below 0: max(rate, 0.0)",
    "penalty factor beyond 1": "weight_decay=1e-4",
    "penalty too strong": "weight_decay=1e-4",
    "momentum": "momentum=0.9",
    "loss scale left in the gradient": (
        "scaler.scale(loss).backward(); scaler.unscale_(optimizer); clip, if at all; scaler.step(optimizer); "
        "scaler.update()"
    ),
    "step of the optimiser": (
        "keep its divisors from 0 and its roots from what is below 0: a / (b + eps), x.clamp(min=0).sqrt() + eps; of "
        "torch's RMSprop take centered=False"
    ),
    "cost summed": 'take reduction="mean", or divide the sum by the number of examples',
    "every step skipped": "find the NaN without the scaler: it is not one of its scale",
}
"""Cause -> what to write."""


def find_code(name: str, operation: str) -> str:
    """What to write in place of an operation of torch that failed in such a way; nothing if that is not known."""
    if operation == "inf*0":
        return BRANCH
    if operation == "root of a negative number" and CODE.get(name) == INSIDE:
        return NEGATIVE_ROOT
    return CODE.get(name) or KINDS.get(operation, "")


def find_advice(cause: Cause) -> str:
    """What to write by what the evidence of a cause says; '' where that tells nothing."""
    known = OF_EVIDENCE.get(cause.name, {})
    return next((code for words, code in known.items() if re.search(words, cause.evidence[0])), "")


def give_advice(causes: tuple[Cause, ...], event: Event | None) -> tuple[str, ...]:
    """What to write in one's own program for the likely causes."""
    said: list[str] = []
    for cause in causes[:2]:
        if cause.confidence < 0.5:
            continue
        found = find_advice(cause)
        if found:
            said.append(found)
        elif event is not None and cause.name in ("undefined operation", "exp beyond the type"):
            said.append(find_code(event.function.rstrip("_"), event.operation))
        elif event is not None and event.phase in ("buffer", "constant") and cause.name == "data hold NaN":
            said.append(f"print the {event.phase} before the first update, and look at where it is written")
        else:
            said.append(OF_CAUSES.get(cause.name, ""))
    return tuple(dict.fromkeys(filter(None, said)))
