"""What single layers put out in a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from cnnlab.training.metrics import list_parts


def collect_outputs(network: nn.Module, names: Iterable[str], forward: Callable[[], object]) -> dict[str, Tensor]:
    """The output of each named submodule in a forward pass, in the order in which they ran.

    Copies: of a tuple the first tensor, of a submodule that ran several times the last output. One that did not run is
    left out.
    """
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            for tensor in list_parts(output)[:1]:
                seen[name] = tensor.detach().clone()  # a ReLU may work in place

        return keep

    handles = [network.get_submodule(name).register_forward_hook(note(name)) for name in names]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return seen
