"""Draws the packages in their layers, as the contract in pyproject.toml has them, into CONTRIBUTING.md.

python tools/draw_layers.py
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "CONTRIBUTING.md"
PLACE = re.compile(r"(?<=<!-- layers -->\n).*?(?=<!-- end of layers -->)", re.DOTALL)


def layers() -> list[list[str]]:
    """The packages of each layer, the highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (told,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [layer.split(" | ") for layer in told]


def sentence_of(package: str) -> str:
    """What a package says of itself."""
    module = ast.parse((ROOT / "cnnlab" / package / "__init__.py").read_text(encoding="utf-8"))
    return str(ast.get_docstring(module))


def picture() -> str:
    """The layers from top to bottom, and what each package holds: an import goes down, never up or sideways."""
    lines = ["```text"]
    for number, layer in enumerate(layers()):
        lines += ["   ↓"] if number else []
        lines += [f"{package:<12}{sentence_of(package)}" for package in layer]
    return "\n".join([*lines, "```", ""])


def main() -> None:
    """Put the picture into its place."""
    GUIDE.write_text(PLACE.sub(lambda _: picture(), GUIDE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
