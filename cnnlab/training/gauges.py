"""Which gauges measure a network: those of PyTorch, or on a GPU the few kernels that say the same."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cnnlab.training.fused import make_fused
from cnnlab.training.metrics import Gauges
from cnnlab.training.network import Layout


def make_gauges(
    network: nn.Module, layout: Layout, parameters: Tensor, watched: Sequence[int], hooked: bool = True
) -> Gauges:
    """The fastest gauges for a network whose flat vector lies where `parameters` does."""

    def make() -> Gauges:
        from cnnlab.training.fused_gauges import FusedGauges  # not above: Triton is there for a GPU alone

        return FusedGauges(network, layout, parameters, watched, hooked)

    fused = make_fused(make, parameters.device, "the gauges take more time, as Triton cannot compile theirs")
    return fused or Gauges(network, layout, parameters, watched, hooked)
