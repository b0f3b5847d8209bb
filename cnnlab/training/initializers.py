"""Initial weights of the question's network: the two formulas of the question, and five published ones to compare.

Every formula draws in float64 on the CPU from a generator of its own, so that a seed gives the same start (up to
rounding) in every precision and on every device. Biases are zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cnnlab.config.settings import Settings
from cnnlab.training.activations import collect_outputs
from cnnlab.training.layers import NORMS, make_start_buffers
from cnnlab.training.network import Layout


def draw_parameters(network: nn.Module, layout: Layout, settings: Settings, x: Tensor) -> Tensor:
    """The flat vector (float64, CPU) that a run starts from; `x`, the patches, is needed by lsuv alone."""
    generator = torch.Generator().manual_seed(settings.seed)
    draw = FORMULAS[settings.init]
    tensors = {}
    factor = find_factor(settings.init, settings.activation)
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        drawn = draw(tuple(shape), generator) * factor if len(shape) >= 2 else begin_vector(network, name, shape)
        tensors[name] = drawn
    if settings.init == "lsuv":
        tensors = scale_to_unit_variance(network, layout, tensors, x[:LSUV_PATCHES].float())
    flat = layout.flatten(tensors)
    return torch.where(layout.is_weight(flat.device), flat * settings.init_scale, flat)


def begin_vector(network: nn.Module, name: str, shape: torch.Size) -> Tensor:
    """What a parameter of one axis begins as: the scale of a norm 1, all others (biases, ReZero's scale) 0."""
    layer, _, own = name.rpartition(".")
    is_scale = own == "weight" and isinstance(network.get_submodule(layer), NORMS)
    return torch.full(shape, float(is_scale), dtype=torch.float64)


HE_GAINS = {
    "relu": math.sqrt(2),
    "leaky_relu": math.sqrt(2 / (1 + 0.01**2)),
    "selu": 3 / 4,
    "tanh": 5 / 3,
    "sigmoid": 1.0,
    "elu": 1.2451983,
    "gelu": 1.5335304,
    "silu": 1.6765324,
}
"""Activation f -> the gain g in He's deviation g / sqrt(fan_in).

As `torch.nn.init.calculate_gain` has it; where it has none (ELU, GELU, SiLU) the second-moment gain that He et al.
(2015) derive for the ReLU, 1 / sqrt(mean of f(z)^2 over a standard normal z), by quadrature.
"""
SLOPES = {"sigmoid": 1 / 4, "gelu": 1 / 2, "silu": 1 / 2}
"""Activation -> its slope at 0, where it is not 1 (of the ReLUs, ELU and SELU it is that of their linear side, 1)."""


def find_factor(init: str, activation: str) -> float:
    """What an activation multiplies a formula's weights by: exactly 1 for ReLU, and in formulas that know none.

    He's formula has the gain of the activation, see HE_GAINS: of the ReLUs, ELU, GELU and SiLU it keeps the second
    moment. Glorot's (2010, section 4.2.1) and
    LeCun's (1998) keep the variance of units that work near 0 with a slope of 1, so that another slope is divided by:
    the sigmoid's 1/4 gives the factor 4 of the tutorials of deeplearning.net. SELU is made for LeCun's formula
    (Klambauer et al. 2017). The question's formulas and the orthogonal ones know no activation.
    """
    if init == "he_normal":
        return HE_GAINS[activation] / HE_GAINS["relu"]
    return 1 / SLOPES.get(activation, 1.0) if init in ("glorot_uniform", "lecun_normal") else 1.0


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """fan_in and fan_out of a weight: units that feed one output, and outputs that one unit feeds.

    For a convolution (out, in, height, width): in * height * width and out * height * width, as in the tutorials of
    deeplearning.net (2010) that the question's code follows (their pooling divisor is 1 here: the network does not
    pool). For a linear layer (out, in): in and out.
    """
    area = math.prod(shape[2:])
    return shape[1] * area, shape[0] * area


def question(gain: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """The question's randn * sqrt(gain / (fan_in + fan_out)): deviation, not bound, is that root."""
    return torch.randn(shape, generator=generator, dtype=torch.float64) * math.sqrt(gain / sum(fans(shape)))


def question_2(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """The question's W_bound_2, in every layer: randn * sqrt(2 / (fan_in + fan_out)), Glorot's (2010) normal form."""
    return question(2, shape, generator)


def question_6(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """The question's W_bound_6, in convolutions: randn * sqrt(6 / (fan_in + fan_out)); other layers keep the 2."""
    return question(6 if len(shape) > 2 else 2, shape, generator)


def glorot_uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform within plus or minus sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010): what the 6 was meant for."""
    bound = math.sqrt(6 / sum(fans(shape)))
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound


def he_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Normal with deviation sqrt(2 / fan_in) (He et al. 2015), which keeps the second moment through a ReLU."""
    return torch.randn(shape, generator=generator, dtype=torch.float64) * math.sqrt(2 / fans(shape)[0])


def lecun_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Normal with deviation sqrt(1 / fan_in) (LeCun et al. 1998), which keeps the variance of a linear layer."""
    return torch.randn(shape, generator=generator, dtype=torch.float64) * math.sqrt(1 / fans(shape)[0])


def orthogonal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Orthonormal rows or columns, whichever are fewer, of the weight as a matrix (out, rest) (Saxe et al. 2014)."""
    rows, columns = shape[0], math.prod(shape[1:])
    gaussian = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
    basis, triangle = torch.linalg.qr(gaussian)
    basis = basis * triangle.diagonal().sign()
    return (basis if rows >= columns else basis.T).reshape(shape)


FORMULAS: dict[str, Callable[[tuple[int, ...], torch.Generator], Tensor]] = {
    "question_2": question_2,
    "question_6": question_6,
    "glorot_uniform": glorot_uniform,
    "he_normal": he_normal,
    "lecun_normal": lecun_normal,
    "orthogonal": orthogonal,
    "lsuv": orthogonal,
}
"""Recipe.init -> shape, generator -> weights; lsuv starts orthogonal and is then scaled by the data."""


LSUV_PATCHES = 66
"""How many patches lsuv measures its outputs on: a batch, as in the paper."""


def scale_to_unit_variance(
    network: nn.Module, layout: Layout, tensors: dict[str, Tensor], x: Tensor
) -> dict[str, Tensor]:
    """Layer-sequential unit variance (Mishkin and Matas 2016): layer by layer, scale weights until outputs vary by 1.

    At most ten rounds a layer, until the variance over patches and units is within 0.1 of 1, as in the paper. A layer
    whose outputs do not vary (all its inputs are 0) is left as it is. Measured in float32 on the first patches.
    """
    tensors = dict(tensors)
    for name in (name for name, shape in zip(layout.names, layout.shapes, strict=True) if len(shape) >= 2):
        for _ in range(10):
            variance = output_variance(network, name.rpartition(".")[0], tensors, x)
            if variance == 0 or abs(variance - 1) < 0.1:
                break
            tensors[name] = tensors[name] / math.sqrt(variance)
    return tensors


def output_variance(network: nn.Module, layer: str, tensors: dict[str, Tensor], x: Tensor) -> float:
    """Variance of one layer's outputs over patches and units, at the given parameters; batch norms see the same."""
    given = {name: tensor.float() for name, tensor in tensors.items()}
    given |= make_start_buffers(network, x.device, x.dtype)
    with torch.no_grad():
        outputs = collect_outputs(network, [layer], lambda: functional_call(network, given, (x,)))
    return outputs[layer].var().item()
