"""Changes of settings that fit one another: drawn one by one, most would ask for a network that cannot be."""

from __future__ import annotations

from typing import Any

from cnnlab.config.settings import settings

NETWORK = ("normalization", "residual", "depth", "padding", "patch_size")


def make_legal(changes: dict[str, Any], preset: str = "question") -> dict[str, Any]:
    """The changes, with the question's values for as few fields of the network as do not fit the rest."""
    usual = settings()
    for count in range(len(NETWORK) + 1):
        kept = changes | {name: getattr(usual, name) for name in NETWORK[:count]}
        try:
            settings(preset, **kept)
        except ValueError:
            continue
        return kept
    return {}
