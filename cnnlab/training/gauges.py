"""Which gauges measure a network: those of PyTorch, or on a GPU the few kernels that say the same."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence

from torch import Tensor, nn

from cnnlab.config.errors import extract_message
from cnnlab.training.metrics import Gauges
from cnnlab.training.network import Layout


def make_gauges(
    network: nn.Module, layout: Layout, parameters: Tensor, watched: Sequence[int], hooked: bool = True
) -> Gauges:
    """The fastest gauges for a network whose flat vector lies where `parameters` does."""
    if parameters.device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from cnnlab.training.fused_gauges import FusedGauges  # not above: Triton is there for a GPU alone

        try:
            return FusedGauges(network, layout, parameters, watched, hooked)
        except Exception as reason:  # whatever Triton's compiler lacks on this machine
            message = f"the gauges take more time, as Triton cannot compile theirs: {extract_message(reason)}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
    return Gauges(network, layout, parameters, watched, hooked)
