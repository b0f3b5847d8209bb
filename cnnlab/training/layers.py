"""What stands between the convolutions and linear layers of the question's network, and how shortcuts join them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from cnnlab.config.architecture import choose_groups
from cnnlab.config.settings import Settings

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
"""Recipe.activation -> its module, as torch makes it unless told otherwise: a leaky ReLU has the slope 0.01 below 0."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm)
"""The modules that normalise."""
Draw = Callable[[int, torch.Size], Tensor]
"""Place of a dropout, counted from 1, and shape -> True where a unit is kept."""
DRAW: ContextVar[Draw | None] = ContextVar("draw", default=None)
"""How masks of dropout are drawn now; None outside of an update, where nothing is left out."""


class Dropout(nn.Module):
    """Leaves out a share of the units and scales up the rest (Srivastava et al. 2014), within an update alone.

    As in torch, what is left out is multiplied by 0.
    """

    def __init__(self, share: float, place: int) -> None:
        super().__init__()
        self.share, self.place = share, place

    def forward(self, x: Tensor) -> Tensor:
        """The units, some of them 0."""
        draw = DRAW.get()
        if draw is None or not self.training:
            return x
        return x * draw(self.place, x.shape).to(x).div(1 - self.share)


def draw_mask(seed: int, step: int, place: int, shape: torch.Size, share: float) -> Tensor:
    """True where a unit is kept: a function of seed, update and place alone, whatever else is drawn before it."""
    return torch.from_numpy(np.random.default_rng([seed, step, place]).random(tuple(shape)) >= share)


@contextlib.contextmanager
def drop(draw: Draw) -> Iterator[None]:
    """Have every dropout take its masks from here meanwhile, in this thread."""
    token = DRAW.set(draw)
    try:
        yield
    finally:
        DRAW.reset(token)


def drop_in_update(settings: Settings, step: int) -> contextlib.AbstractContextManager[None]:
    """Have every dropout leave out what it does at an update; nothing to do without dropout."""
    share, seed = settings.dropout, settings.seed
    if share == 0:
        return contextlib.nullcontext()
    return drop(lambda place, shape: draw_mask(seed, step, place, shape, share))


def drop_given(masks: Mapping[int, Tensor]) -> contextlib.AbstractContextManager[None]:
    """Have every dropout take a mask that was drawn before."""
    return drop(lambda place, _shape: masks[place]) if masks else contextlib.nullcontext()


def list_drops(settings: Settings) -> dict[int, int]:
    """Place of each dropout -> its units: 1 is after hid1, 2 after hid2."""
    return dict(enumerate(settings.hidden, start=1)) if settings.dropout else {}


class Shortcut(nn.Module):
    """The sum of what a block was given and what it made of it."""

    def forward(self, made: Tensor, given: Tensor) -> Tensor:
        """What was made, added to what was given."""
        return given + made


class ScaledShortcut(nn.Module):
    """The same, but what the block made is first multiplied by one trained number (Bachlechner et al. 2020, ReZero)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, made: Tensor, given: Tensor) -> Tensor:
        """What was made, times the scale, added to what was given."""
        return given + self.scale * made


class ResidualNetwork(nn.Sequential):
    """Modules one after the other, with a shortcut over each two convolutions from cv1 on (He et al. 2016).

    cv0, which changes the number of channels, has none, nor has a last convolution that is left alone. The shortcut
    ends after the second convolution and a norm that follows it at once, before the activation.
    """

    @cached_property
    def blocks(self) -> set[str]:
        """The names of the convolutions at which a block begins."""
        return list_blocks(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of patches."""
        given = x
        for name, module in self.named_children():
            given = x if name in self.blocks else given
            x = module(x, given) if isinstance(module, (Shortcut, ScaledShortcut)) else module(x)
        return x


def list_blocks(network: nn.Module) -> set[str]:
    """The names of the convolutions at which a block begins: of two before a shortcut the first."""
    names = [name for name, _ in network.named_children() if name.endswith("_shortcut")]
    return {f"cv{int(name.removeprefix('cv').removesuffix('_shortcut')) - 1}" for name in names}


def make_normalization(settings: Settings, units: int, flat: bool) -> nn.Module:
    """The normalisation of a layer's units: channels of a map, or values of a flat layer."""
    if settings.normalization == "batch":
        return nn.BatchNorm1d(units) if flat else nn.BatchNorm2d(units)
    return nn.GroupNorm(choose_groups(settings.normalization, units), units)


def make_start_buffers(network: nn.Module, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The running statistics of every batch norm as they begin: mean 0, variance 1, no batch seen."""
    return {
        name: torch.full(
            buffer.shape,
            float(name.endswith("running_var")),
            dtype=dtype if buffer.is_floating_point() else buffer.dtype,
            device=device,
        )
        for name, buffer in network.named_buffers()
    }


def is_plain(settings: Settings) -> bool:
    """Whether the network is valid convolutions, a flatten and linear layers with ReLUs between, and nothing else."""
    plain = ("valid", "relu", "off", "off", 0.0)
    return plain == (
        settings.padding, settings.activation, settings.normalization, settings.residual, settings.dropout,
    )  # fmt: skip
